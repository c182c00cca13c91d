//! Rules, correlations and filters that refer to each other.

use serde_json::json;

use super::super::Judgement;
use super::super::correlation::{Bound, CorrelationKind};
use super::super::fake::Fake;
use super::super::index::Keys;
use super::*;

const SOURCE: &str = "logsource: {product: kubernetes, service: audit}";

fn rule(name: &str, verb: &str) -> String {
    format!(
        "title: {name}\nid: id-{name}\nname: {name}\n{SOURCE}\ndetection:\n  s:\n    verb: {verb}\n  condition: s\n"
    )
}

fn correlation(name: &str, rules: &str, rest: &str) -> String {
    format!(
        "title: {name}\nname: {name}\ncorrelation:\n  type: event_count\n  rules: {rules}\n  group-by: [user.username]\n  \
         timespan: 5m\n  condition: {{gte: 3}}\n{rest}"
    )
}

fn filter(name: &str, rules: &str, condition: &str) -> String {
    format!(
        "title: {name}\nname: {name}\n{SOURCE}\nfilter:\n  rules: {rules}\n  selection:\n    user.username: bot\n  condition: {condition}\n"
    )
}

fn load(texts: &[String], options: &LoadOptions) -> (RuleSet, Vec<String>) {
    let sources = texts.iter().enumerate().map(|(i, t)| (PathBuf::from(format!("{i}.yml")), t.clone())).collect();
    let (set, problems) = RuleSet::load_lenient(sources, options);
    (set, problems.iter().map(ToString::to_string).collect())
}

fn labels(set: &RuleSet) -> Vec<&str> {
    let rules = set.rules().iter().map(|r| r.meta.label());
    rules.chain(set.correlations().iter().map(|c| c.meta.label())).collect()
}

#[test]
fn rules_and_correlations_find_each_other() {
    let texts = [
        correlation("burst", "[a, id-b]", ""),
        correlation("loud", "[c]", "  generate: true\n"),
        format!("{}---\n{}", rule("a", "get"), rule("b", "list")),
        rule("c", "watch"),
        rule("d", "create"),
    ];
    let (set, problems) = load(&texts, &LoadOptions::default());
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(labels(&set), ["a", "b", "c", "d", "burst", "loud"]);
    let burst = &set.correlations()[0];
    assert_eq!(burst.kind, CorrelationKind::EventCount);
    assert_eq!(burst.parts, [Part::Rule(0), Part::Rule(1)]);
    assert_eq!(burst.timespan_micros, 300_000_000);
    assert_eq!(burst.bounds, [(Bound::GreaterOrEqual, 3)]);
    assert_eq!(burst.group_by[0].fields.len(), 2);
    assert_eq!([0, 1, 2, 3].map(|i| set.speaks(i)), [false, false, true, true]);
    assert_eq!(set.find("ID-B"), Some(Part::Rule(1)));
    assert_eq!(set.find("loud"), Some(Part::Correlation(1)));
    let mut out = Vec::new();
    set.index().candidates(&Keys { verb: "list", ..Keys::default() }, &mut out);
    assert_eq!(out, [1]);
}

#[test]
fn aliases_give_each_rule_its_field() {
    let aliases = "  aliases:\n    who:\n      a: user.username\n      b: objectRef.name\n";
    let text = correlation("x", "[a, b]", aliases).replace("[user.username]", "[who, verb]");
    let (set, problems) = load(&[text.clone(), rule("a", "get"), rule("b", "list")], &LoadOptions::default());
    assert_eq!(problems, Vec::<String>::new());
    let keys: Vec<Vec<_>> = set.correlations()[0]
        .group_by
        .iter()
        .map(|k| k.fields.iter().map(|f| f.name().into_owned()).collect())
        .collect();
    assert_eq!(keys, [["user.username", "objectRef.name"], ["verb", "verb"]]);
    let text = text.replace("      b: objectRef.name", "      c: objectRef.name");
    let (_, problems) = load(&[text, rule("a", "get"), rule("b", "list")], &LoadOptions::default());
    assert_eq!(
        problems,
        [
            "0.yml:10:5: rule `x`: alias `who` says nothing about rule `b`; add it",
            "0.yml:12:7: rule `x`: alias `who` names rule `c`, which is not one of this correlation's `rules`",
        ]
    );
}

#[test]
fn bad_references_are_told() {
    let texts = [
        rule("exec", "get"),
        rule("exec", "list"),
        correlation("lost", "[exce]", ""),
        correlation("one", "[two]", ""),
        correlation("two", "[three, exec]", ""),
        correlation("three", "[one]", ""),
        correlation("of-filter", "[quiet]", ""),
        filter("quiet", "[exec, one, nobody]", "selection"),
    ];
    let (set, problems) = load(&texts, &LoadOptions::default());
    assert_eq!(
        problems,
        [
            "1.yml:1:1: rule `exec`: id `id-exec` is already taken by 0.yml:1",
            "1.yml:1:1: rule `exec`: name `exec` is already taken by 0.yml:1",
            "2.yml:5:11: rule `lost`: there is no rule `exce`; did you mean `exec`?",
            "3.yml:1:1: rule `one`: correlations refer to each other in a circle: one → two → three → one",
            "6.yml:5:11: rule `of-filter`: `quiet` is a filter; a correlation refers to rules and correlations",
            "7.yml:5:22: rule `quiet`: there is no rule `nobody`",
        ]
    );
    assert_eq!(labels(&set), ["exec"]);
    assert_eq!(set.rules()[0].filters.len(), 1);
}

#[test]
fn bad_correlations_are_told() {
    for (from, to, want) in [
        (
            "event_count",
            "value_sum",
            "correlation type `value_sum` is not supported; use event_count, value_count, temporal, temporal_ordered, kill_chain, new_value, rare_value or rate_anomaly",
        ),
        (
            "event_count",
            "value_count",
            "correlation type `value_count` needs `condition.field`: the field whose values are counted",
        ),
        ("event_count", "temporal", "correlation type `temporal` needs at least two `rules`"),
        ("{gte: 3}", "{gte: 3, lt: 2}", "no event can meet this condition: lt: 2"),
        ("{gte: 3}", "{gt: 3, lt: 4}", "no event can meet this condition: lt: 4"),
        ("{gte: 3}", "{gte: 1, lte: 0}", "no event can meet this condition: lte: 0"),
        (
            "{gte: 3}",
            "{lt: 3}",
            "needs a lower bound (`gt`, `gte` or `eq`): in a stream an upper bound alone holds from the first event on",
        ),
        (
            "{gte: 3}",
            "{gte: 3, field: verb}",
            "correlation type `event_count` needs no `condition.field`; only value_count, new_value, rare_value and rate_anomaly look at values",
        ),
        ("{gte: 3}", "{}", "correlation type `event_count` needs a `condition` with a count, as in `gte: 10`"),
        ("[user.username]", "[user.usernam]", "unknown field `user.usernam`; did you mean `user.username`?"),
    ] {
        let text = correlation("c", "[a]", "").replace(from, to);
        let (set, problems) = load(&[text, rule("a", "get")], &LoadOptions::default());
        assert_eq!(problems.len(), 1, "{to}: {problems:?}");
        assert!(problems[0].ends_with(want), "{}", problems[0]);
        assert_eq!(labels(&set), ["a"]);
        assert!(set.speaks(0), "a rule whose correlation failed speaks for itself");
    }
    let counts = "field: verb, gte: 3";
    for (kind, condition, want) in [
        ("new_value", counts, "correlation type `new_value` needs no count: a value is new or it is not"),
        ("rare_value", counts, "needs `lte`: how many groups may show a value that is still rare"),
        ("rate_anomaly", "field: verb", "needs `gte`: how much is worth telling at least, as in `gte: 10`"),
        ("new_value", "", "needs `condition.field`: the field whose values are counted"),
    ] {
        let text = correlation("c", "[a]", "").replace("event_count", kind).replace("gte: 3", condition);
        let (_, problems) = load(&[text, rule("a", "get")], &LoadOptions::default());
        assert_eq!(problems.len(), 1, "{kind}: {problems:?}");
        assert!(problems[0].ends_with(want), "{}", problems[0]);
    }
}

#[test]
fn a_correlation_of_a_bad_rule_is_left_out_quietly() {
    let texts =
        [rule("a", "get").replace("verb", "verv"), correlation("c", "[a]", ""), filter("f", "[a]", "selection")];
    let (set, problems) = load(&texts, &LoadOptions::default());
    assert_eq!(problems, ["0.yml:7:5: rule `a`: unknown field `verv`; did you mean `verb`?"]);
    assert!(labels(&set).is_empty());
}

#[test]
fn filters_leave_out_what_they_match() {
    for condition in ["selection", "not selection"] {
        let texts = [rule("a", "get"), rule("b", "get"), filter("f", "[a]", condition)];
        let (set, problems) = load(&texts, &LoadOptions::default());
        assert_eq!(problems, Vec::<String>::new());
        let judge =
            |i: usize, user: &str| set.rules()[i].judge(&Fake::new(json!({"verb": "get", "user": {"username": user}})));
        assert_eq!(judge(0, "bot"), Judgement::NoMatch);
        assert_eq!(judge(0, "eve"), Judgement::Match);
        assert_eq!(judge(1, "bot"), Judgement::Match);
        let open = Fake::new(json!({"verb": "get", "user": {"?": "cut"}}));
        assert!(matches!(set.rules()[0].judge(&open), Judgement::Undecidable(..)), "an open filter leaves it open");
    }
    let (set, _) =
        load(&[rule("a", "get"), rule("b", "get"), filter("f", "any", "selection")], &LoadOptions::default());
    assert!(set.rules().iter().all(|r| r.filters.len() == 1));
}

#[test]
fn an_expired_filter_is_ignored_with_a_warning() {
    let text = filter("f", "[a]", "selection") + "lapwing: {expires: 2025-06-01, owner: me, reason: migration}\n";
    let on = |day: &str| {
        let today = Some(day.parse().unwrap());
        load(&[rule("a", "get"), text.clone()], &LoadOptions { today, ..LoadOptions::default() }).0
    };
    assert_eq!(on("2025-05-31").rules()[0].filters.len(), 1);
    let late = on("2025-06-01");
    assert_eq!(late.rules()[0].filters.len(), 0);
    assert_eq!(
        late.warnings()[0].to_string(),
        "1.yml:1:1: warning: rule `f`: the filter expired on 2025-06-01 and is ignored; renew or remove it"
    );
}

#[test]
fn disabled_and_low_rules_are_left_out() {
    let texts = [
        rule("a", "get"),
        rule("b", "get") + "level: low\n",
        rule("c", "get") + "level: informational\n",
        correlation("burst", "[c]", "level: high\n"),
        correlation("of-a", "[a]", "level: high\n"),
    ];
    let disabled = vec!["id-a".to_owned(), "bb".to_owned()];
    let options = LoadOptions { disabled, min_level: Some(Level::Medium), ..LoadOptions::default() };
    let (set, problems) = load(&texts, &options);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(labels(&set), ["c", "burst"]);
    let warnings: Vec<_> = set.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "4.yml:5:11: warning: rule `of-a`: rule `a` is disabled, so this correlation is left out too",
            "rules.disable: warning: disabled rule `bb` does not exist; did you mean `b`?",
        ]
    );
}

#[test]
fn the_hash_is_of_the_meaning() {
    let hash = |texts: &[String]| load(texts, &LoadOptions::default()).0.rules()[0].hash.clone();
    let plain = hash(&[rule("a", "get")]);
    assert_eq!(plain, hash(&[rule("a", "get").replace("title: a", "title: other # note") + "level: high\n"]));
    assert_ne!(plain, hash(&[rule("a", "list")]));
    assert_ne!(plain, hash(&[rule("a", "get"), filter("f", "[a]", "selection")]));
}

#[test]
fn strict_loading_is_all_or_nothing() {
    let sources = |t: String| vec![(PathBuf::from("x.yml"), t)];
    assert!(RuleSet::load(sources(rule("a", "get")), &LoadOptions::default()).is_ok());
    let bad = rule("a", "get").replace("condition: s", "condition: t");
    assert_eq!(RuleSet::load(sources(bad), &LoadOptions::default()).unwrap_err().len(), 1);
}

#[test]
fn a_range_of_counts_is_possible() {
    let text = correlation("c", "[a]", "").replace("{gte: 3}", "{gt: 3, lt: 5}");
    let (set, problems) = load(&[text, rule("a", "get")], &LoadOptions::default());
    assert_eq!(problems, Vec::<String>::new());
    let holds = |n| set.correlations()[0].count_holds(n);
    assert_eq!([3, 4, 5].map(holds), [false, true, false]);
}

proptest::proptest! {
    /// Whatever stands in a file, loading ends with rules or problems.
    #[test]
    fn loading_never_panics(cuts in proptest::collection::vec((0usize..600, ".{0,6}|[-\\[\\]{}:|*?%&'\"\\\\\\n ]{0,6}"), 0..5)) {
        let mut text = format!(
            "{}---\n{}---\n{}",
            rule("a", "['%x%', \"g?t*\", 1.5, null]").replace("verb:", "verb|contains|all:"),
            correlation("c", "[a]", "  aliases: {who: {a: verb}}\n"),
            filter("f", "[a]", "1 of selection* and not (selection)")
        );
        for (at, insert) in cuts {
            let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            let end = (at + insert.len() / 2..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
            text.replace_range(at..end, &insert);
        }
        let (set, problems) = load(&[text], &LoadOptions::default());
        for rule in set.rules() {
            let _ = rule.explain(&Fake::new(json!({"verb": ["get", 1], "user": {"username": "x"}}))).to_string();
        }
        drop(problems);
    }
}
