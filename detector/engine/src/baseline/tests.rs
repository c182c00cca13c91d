//! The baselines as a whole: what is told, what cannot be taught, what is bounded, what comes back.

use super::*;
use crate::event::Event;

const DAY: i64 = 24 * HOUR;
/// A Monday, 08:00 UTC.
const START: i64 = 1_780_300_800_000_000;

/// One request; what a test does not say is as usual.
#[derive(Clone)]
struct Request {
    user: &'static str,
    verb: &'static str,
    resource: &'static str,
    namespace: &'static str,
    name: String,
    agent: String,
    address: &'static str,
    code: u16,
}

fn usual() -> Request {
    Request {
        user: "system:serviceaccount:web:front",
        verb: "get",
        resource: "configmaps",
        namespace: "web",
        name: "settings".to_owned(),
        agent: "front/v1.4.2".to_owned(),
        address: "10.244.3.9",
        code: 200,
    }
}

fn secrets() -> Request {
    Request { verb: "list", resource: "secrets", name: String::new(), ..usual() }
}

fn see(b: &mut Baselines, r: &Request, at: i64, rules: &[Spoken<'_>]) -> Vec<Told> {
    let stamp = to_datetime(at).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let text = format!(
        r#"{{"auditID":"{at}","stage":"ResponseComplete","verb":"{}","user":{{"username":"{}","groups":["devs"]}},"sourceIPs":["{}"],
        "userAgent":"{}","objectRef":{{"resource":"{}","namespace":"{}","name":"{}"}},"responseStatus":{{"code":{}}},"stageTimestamp":"{stamp}"}}"#,
        r.verb, r.user, r.address, r.agent, r.resource, r.namespace, r.name, r.code
    );
    let event = Event::parse(&text).expect(&text);
    b.observe(&Facts::new(&event, &text, "prod"), at, rules)
}

/// Twenty service accounts that each read their settings every working hour, for `days`.
fn routine(b: &mut Baselines, from: i64, days: i64) {
    const USERS: [&str; 6] = [
        "system:serviceaccount:web:front",
        "system:serviceaccount:web:back",
        "system:serviceaccount:pay:ledger",
        "system:serviceaccount:pay:cards",
        "system:serviceaccount:ads:bids",
        "system:serviceaccount:ads:clicks",
    ];
    for day in 0..days {
        for hour in 0..8 {
            for (i, user) in USERS.into_iter().enumerate() {
                let at = from + day * DAY + hour * HOUR + i as i64 * 1_000_000;
                let told = see(b, &Request { user, ..usual() }, at, &[]);
                assert!(told.is_empty(), "day {day}: {told:?}");
                see(b, &Request { user, verb: "list", resource: "pods", name: String::new(), ..usual() }, at + 1, &[]);
            }
        }
    }
}

fn trained() -> Baselines {
    let mut b = Baselines::new(Options { fixed: Some((8.0, 10.0)), ..Options::default() });
    routine(&mut b, START, 14);
    b
}

const LATER: i64 = START + 14 * DAY;

#[test]
fn the_first_list_of_secrets_in_a_life_is_told_with_reasons() {
    let mut b = trained();
    let told = see(&mut b, &Request { agent: "curl/7.88.1".into(), address: "185.3.4.5", ..secrets() }, LATER, &[]);
    let [told] = told.as_slice() else { panic!("one anomaly: {told:?}") };
    let a = &told.anomaly;
    assert_eq!((a.kind, a.confidence), (AnomalyKind::Surprise, Confidence::High));
    assert!(a.surprise_bits > 8.0 && a.reasons.len() == 3, "{a:?}");
    let action = a.reasons.iter().find(|r| r.dimension == "action").expect("the action is a reason");
    assert_eq!((action.value.as_str(), action.seen, action.peers), ("list secrets", 0.0, 0));
    assert!(
        action.text.starts_with("never before did `list secrets`; no other serviceaccount does; usual: "),
        "{}",
        action.text
    );
    assert!(action.probability.is_some_and(|p| p < 0.01) && action.of > 10.0);
    assert_eq!(a.principal.since, to_datetime(START / HOUR * HOUR));
    assert_eq!(a.tactics, ["credential-access"]);
}

/// A request that was repeated is known before it is taken into its parts; one that differs in anything must not be.
#[test]
fn known_requests_are_only_those_that_repeat_in_every_part() {
    let one = || Request { resource: "secrets", name: "a".to_owned(), ..usual() };
    let others = [
        one(),
        Request { user: "system:serviceaccount:web:back", ..one() },
        Request { verb: "list", ..one() },
        Request { resource: "configmaps", ..one() },
        Request { namespace: "pay", ..one() },
        Request { name: "b".to_owned(), ..one() },
        Request { agent: "curl/8.1".to_owned(), ..one() },
        Request { address: "185.3.4.5", ..one() },
        Request { code: 403, ..one() },
    ];
    for (i, other) in others.iter().enumerate() {
        let seen_before = |times: i64| {
            let mut b = trained();
            (0..times).for_each(|n| drop(see(&mut b, &one(), LATER + n, &[])));
            see(&mut b, other, LATER + 9, &[]);
            (b.last().repeated, b.last().surprise)
        };
        let (taken_apart, known) = (seen_before(1), seen_before(4));
        assert_eq!((taken_apart.0, known.0), (i == 0, i == 0), "{i}");
        assert!((taken_apart.1 - known.1).abs() < 0.01, "{i}: {taken_apart:?} {known:?}");
    }
    let mut b = trained();
    (0..4).for_each(|n| drop(see(&mut b, &one(), LATER + n, &[])));
    see(&mut b, &one(), LATER + HOUR, &[]);
    assert!(!b.last().repeated, "another hour");
}

#[test]
fn what_it_always_does_is_no_surprise_from_the_first_repeat_on() {
    let mut b = trained();
    assert!(see(&mut b, &usual(), LATER, &[]).is_empty());
    assert!(b.last().surprise < 1.0 && !b.last().repeated);
    see(&mut b, &usual(), LATER + 1, &[]);
    assert!(b.last().repeated);
}

#[test]
fn a_loud_hour_teaches_no_more_than_one_request() {
    let (mut once, mut loud) = (trained(), trained());
    let quiet_start = Request { namespace: "pay", ..usual() };
    see(&mut once, &quiet_start, LATER, &[]);
    for i in 0..10_000 {
        see(&mut loud, &quiet_start, LATER + i, &[]);
    }
    for b in [&mut once, &mut loud] {
        see(b, &Request { namespace: "pay", ..secrets() }, LATER + 2 * HOUR, &[]);
    }
    assert_eq!(once.last().surprise, loud.last().surprise);
}

#[test]
fn normal_traffic_does_not_dilute_an_attack() {
    let attack = Request { agent: "curl/7.88.1".into(), address: "185.3.4.5", ..secrets() };
    let (mut alone, mut hidden) = (trained(), trained());
    for i in 0..5_000 {
        let path = format!("settings{i}");
        see(&mut hidden, &Request { name: path, ..usual() }, LATER + i, &[]);
    }
    see(&mut alone, &attack, LATER + 10_000, &[]);
    see(&mut hidden, &attack, LATER + 10_000, &[]);
    assert!(hidden.last().surprise > alone.last().surprise - 1.0, "{:?} {:?}", hidden.last(), alone.last());
}

#[test]
fn what_is_very_surprising_is_not_learnt_before_the_third_day() {
    let mut b = trained();
    let odd = Request { agent: "curl/7.88.1".into(), address: "185.3.4.5", ..secrets() };
    let mut surprise = Vec::new();
    for day in 0..5 {
        see(&mut b, &odd, LATER + day * DAY, &[]);
        surprise.push(b.last().surprise);
    }
    assert!(surprise[..3].iter().all(|s| *s > 8.0), "{surprise:?}");
    assert!(surprise[3] < surprise[2] - 3.0, "after three days it is a habit: {surprise:?}");
}

#[test]
fn identities_made_in_masses_teach_their_peers_nothing() {
    let mut b = trained();
    let users: Vec<String> = (0..200).map(|i| format!("system:serviceaccount:web:fake{}", name_of(i))).collect();
    for (i, user) in users.iter().enumerate() {
        let user: &'static str = Box::leak(user.clone().into_boxed_str());
        see(&mut b, &Request { user, ..secrets() }, LATER + i as i64, &[]);
    }
    see(&mut b, &secrets(), LATER + HOUR, &[]);
    assert!(b.last().surprise > 5.0, "two hundred newcomers do not make it common: {:?}", b.last());
}

fn name_of(i: u32) -> String {
    i.to_string().bytes().map(|d| char::from(b'a' + d - b'0')).collect()
}

#[test]
fn forged_client_names_cost_the_forger() {
    let (mut honest, mut forger) = (trained(), trained());
    see(&mut honest, &secrets(), LATER, &[]);
    see(&mut forger, &Request { agent: "front-e/v1.4.2".into(), ..secrets() }, LATER, &[]);
    assert!(forger.last().surprise > honest.last().surprise);
    see(
        &mut forger,
        &Request { agent: r"front/v1.4\u001f10.244.0.0/16\u001fS".into(), address: "185.3.4.5", ..secrets() },
        LATER + 1,
        &[],
    );
    assert!(forger.last().surprise > honest.last().surprise, "a name cannot reach into another part");
}

#[test]
fn slow_training_does_not_hide_the_mass_read() {
    const USER: &str = "dev";
    for start in [9, 14, 20] {
        let mut b = Baselines::new(Options { fixed: Some((8.0, 10.0)), ..Options::default() });
        let person = Request { user: USER, agent: "kubectl/v1.32.0".into(), address: "10.8.0.7", ..usual() };
        let secret = |i: i64| Request {
            resource: "secrets",
            namespace: ["pay", "ads", "web"][i as usize % 3],
            name: format!("s{}", name_of(i as u32)),
            ..person.clone()
        };
        routine(&mut b, START, 1);
        for day in 0..start + 13 {
            for hour in 0..6 {
                see(
                    &mut b,
                    &Request { verb: "list", resource: "pods", name: String::new(), ..person.clone() },
                    START + day * DAY + hour * HOUR,
                    &[],
                );
            }
            if day >= start {
                see(&mut b, &secret(day - start), START + day * DAY + 2 * HOUR + 60_000_000, &[]);
            }
        }
        let attack = START + (start + 13) * DAY + HOUR;
        let told: Vec<Told> =
            (0..40).flat_map(|i| see(&mut b, &secret(100 + i), attack + i * 6_000_000, &[])).collect();
        assert!(!told.is_empty(), "training from day {start}");
        assert!(
            told.iter().flat_map(|t| &t.anomaly.reasons).any(|r| r.dimension == "burst" || r.dimension == "object")
        );
    }
}

#[test]
fn three_medium_findings_within_a_day_are_one_incident_with_a_story() {
    let mut b = trained();
    let rule = |rule: &'static str, title: &'static str| Spoken { rule, title, level: Level::Medium, tags: &[] };
    assert!(see(&mut b, &usual(), LATER, &[rule("one", "One")]).is_empty());
    assert!(see(&mut b, &usual(), LATER + HOUR, &[rule("one", "One")]).is_empty(), "the same rule counts once a day");
    assert!(see(&mut b, &usual(), LATER + 2 * HOUR, &[rule("two", "Two")]).is_empty());
    let told = see(&mut b, &usual(), LATER + 3 * HOUR, &[rule("three", "Three")]);
    let [told] = told.as_slice() else { panic!("one incident: {told:?}") };
    assert_eq!(told.anomaly.kind, AnomalyKind::Risk);
    let mut story: Vec<&str> = told.anomaly.reasons.iter().map(|r| r.text.as_str()).collect();
    story.sort_unstable();
    assert_eq!(story, ["One", "Three", "Two"]);
    assert_eq!(told.audit_ids.len(), 3);
}

#[test]
fn a_rule_that_speaks_every_day_adds_little() {
    let mut b = trained();
    let habit = Spoken { rule: "habit", title: "Habit", level: Level::High, tags: &[] };
    let risk: Vec<f32> = (0..12)
        .map(|day| {
            see(&mut b, &usual(), LATER + day * DAY, &[habit]);
            b.last().risk
        })
        .collect();
    assert!(risk[11] < risk[0] / 2.0, "{risk:?}");
}

#[test]
fn a_new_version_everywhere_is_one_notice() {
    let mut b = trained();
    let mut told = Vec::new();
    for (i, user) in ["front", "back"].into_iter().enumerate() {
        let user: &'static str = Box::leak(format!("system:serviceaccount:web:{user}").into_boxed_str());
        told.extend(see(&mut b, &Request { user, agent: "front/v1.5.0".into(), ..usual() }, LATER + i as i64, &[]));
    }
    assert!(told.is_empty(), "{told:?}");
    for user in
        ["system:serviceaccount:pay:ledger", "system:serviceaccount:pay:cards", "system:serviceaccount:ads:bids"]
    {
        told.extend(see(&mut b, &Request { user, agent: "front/v1.5.0".into(), ..usual() }, LATER + HOUR, &[]));
    }
    let kinds: Vec<AnomalyKind> = told.iter().map(|t| t.anomaly.kind).collect();
    assert_eq!(kinds, [AnomalyKind::Fleet]);
    assert_eq!(told[0].level, Level::Informational);
}

#[test]
fn memory_stays_within_its_budget_and_losses_show() {
    let mut b = Baselines::new(Options { max_bytes: 300_000, ..Options::default() });
    for i in 0..2_000u32 {
        let user: &'static str = Box::leak(format!("user{}", name_of(i)).into_boxed_str());
        see(
            &mut b,
            &Request { user, name: format!("x{}", name_of(i)), ..usual() },
            START + i64::from(i) * 60_000_000,
            &[],
        );
    }
    let counts = b.counts();
    assert!(counts.bytes <= 300_000 && counts.evicted > 0, "{counts:?}");
    assert_eq!(counts.principals + counts.evicted, 2_000);
    let kept = |i: u64| b.members.find(&format!("prod\u{1f}user{}", name_of(i as u32))).is_some();
    assert!((0..counts.evicted - 60).all(|i| !kept(i)), "those not seen for longest went, to the hour");
}

#[test]
fn who_is_idle_for_a_day_takes_less_and_has_the_same_future() {
    let story = |idle: bool| {
        let mut b = trained();
        see(&mut b, &Request { agent: "curl/7.88.1".into(), address: "185.3.4.5", ..secrets() }, LATER, &[]);
        let before = b.bytes();
        if idle {
            let other = Request { user: "system:serviceaccount:web:back", ..usual() };
            see(&mut b, &other, LATER + 30 * HOUR, &[]);
            assert!(b.bytes() + 600 < before, "{} of {before}", b.bytes());
        }
        see(&mut b, &secrets(), LATER + 31 * HOUR, &[]);
        b.last()
    };
    assert_eq!(story(true), story(false));
}

#[test]
fn everybody_gone_leaves_nothing_behind() {
    let mut b = trained();
    while b.members.evict(&mut b.words) {}
    assert_eq!((b.counts().principals, b.bytes()), (0, 0));
}

#[test]
fn a_restored_memory_has_the_same_future() {
    let mut a = trained();
    let json = serde_json::to_string(&a).expect("data");
    let stored: Snapshot = serde_json::from_str(&json).expect("own data");
    let mut b = Baselines::restore(Options { fixed: Some((8.0, 10.0)), ..Options::default() }, stored);
    assert_eq!(serde_json::to_string(&b).expect("data"), json);
    for i in 0..30 {
        let r = if i % 7 == 3 { secrets() } else { Request { name: format!("x{}", i % 5), ..usual() } };
        assert_eq!(see(&mut a, &r, LATER + i * HOUR / 3, &[]), see(&mut b, &r, LATER + i * HOUR / 3, &[]));
        assert_eq!(a.last(), b.last());
    }
    assert_eq!(serde_json::to_string(&a).expect("data"), serde_json::to_string(&b).expect("data"));
}

#[test]
fn a_clock_in_the_future_does_not_age_the_memory() {
    let mut b = trained();
    let stamp = START + 4_000 * DAY;
    let text = format!(
        r#"{{"auditID":"x","stage":"ResponseComplete","verb":"get","user":{{"username":"eve"}},"stageTimestamp":"{}"}}"#,
        to_datetime(stamp).to_rfc3339()
    );
    let event = Event::parse(&text).expect(&text);
    b.observe(&Facts::new(&event, &text, "prod"), LATER, &[]);
    assert!(b.time <= LATER + SKEW);
}

#[test]
fn a_young_baseline_says_so_and_speaks_only_of_much() {
    let mut b = Baselines::new(Options { fixed: Some((2.0, 2.0)), ..Options::default() });
    let told = see(&mut b, &secrets(), START, &[]);
    assert!(
        told.iter().all(|t| t.anomaly.confidence == Confidence::Low && t.anomaly.surprise_bits >= UNTRUSTED),
        "{told:?}"
    );
}

fn quieted(places: &[(&str, &str)]) -> Order {
    let place = |(dimension, value): &(&str, &str)| Place {
        dimension: (*dimension).to_owned(),
        context: String::new(),
        value: (*value).to_owned(),
    };
    Order::Benign {
        cluster: "prod".into(),
        principal: "system:serviceaccount:web:front".into(),
        places: places.iter().map(place).collect(),
        until: LATER + 30 * DAY,
        owner: "platform".into(),
    }
}

#[test]
fn what_was_called_right_is_quiet_for_this_principal_and_these_values_alone() {
    let odd = Request { agent: "curl/7.88.1".into(), address: "185.3.4.5", ..usual() };
    let mut b = trained();
    see(&mut b, &odd, LATER, &[]);
    let before = b.last().surprise;
    assert!(before > 5.0, "{before}");
    assert!(b.follow(&quieted(&[("client", "curl"), ("network", "185.3.0.0/16")])));
    see(&mut b, &odd, LATER + HOUR, &[]);
    assert!(b.last().surprise < 1.0, "{:?}", b.last());
    see(&mut b, &Request { user: "system:serviceaccount:web:back", ..odd.clone() }, LATER + HOUR, &[]);
    assert!(b.last().surprise > before - 2.0, "another principal stays loud: {:?}", b.last());
    see(&mut b, &Request { address: "91.3.4.5", ..secrets() }, LATER + 2 * HOUR, &[]);
    assert!(b.last().surprise > 5.0, "another value stays loud: {:?}", b.last());
}

#[test]
fn nobody_can_quiet_a_rule_a_power_or_a_new_identity() {
    let place = |dimension: &str, value: &str| Place {
        dimension: dimension.into(),
        context: String::new(),
        value: value.into(),
    };
    assert!(may_quiet(&place("client", "curl")) && may_quiet(&place("content", "image from ghcr.io")));
    for (dimension, value) in
        [("rule", "exec"), ("content", "privileged"), ("principal", "eve"), ("burst", "deletions"), ("", "x")]
    {
        assert!(!may_quiet(&place(dimension, value)), "{dimension} {value}");
    }
    let mut b = trained();
    let rule = |rule| Spoken { rule, title: rule, level: Level::Critical, tags: &[] };
    b.follow(&quieted(&[("rule", "exec")]));
    assert_eq!(see(&mut b, &usual(), LATER, &[rule("exec")]).len(), 1);
}

#[test]
fn after_an_attack_what_it_taught_is_forgotten_and_the_rest_stays() {
    let mut b = trained();
    let odd = Request { agent: "curl/7.88.1".into(), address: "185.3.4.5", ..usual() };
    for day in 0..4 {
        see(&mut b, &odd, LATER + day * DAY, &[]);
        see(&mut b, &usual(), LATER + day * DAY + 1, &[]);
    }
    let learnt = b.last();
    see(&mut b, &odd, LATER + 4 * DAY, &[]);
    assert!(b.last().surprise < 4.0, "{:?}", b.last());
    let (cluster, principal) = ("prod".to_owned(), "system:serviceaccount:web:front".to_owned());
    assert!(b.follow(&Order::Malicious { cluster, principal, since: LATER, owner: "soc".into() }));
    see(&mut b, &odd, LATER + 5 * DAY, &[]);
    assert!(b.last().surprise > 5.0, "{:?}", b.last());
    see(&mut b, &usual(), LATER + 5 * DAY + 1, &[]);
    assert!((b.last().surprise - learnt.surprise).abs() < 1.0, "{:?} {learnt:?}", b.last());
}

#[test]
fn a_reset_forgets_one_or_all() {
    let mut b = trained();
    let reset = |cluster: Option<&str>, principal: Option<&str>| Order::Reset {
        cluster: cluster.map(str::to_owned),
        principal: principal.map(str::to_owned),
    };
    assert!(!b.follow(&reset(Some("stage"), None)));
    assert!(b.follow(&reset(None, Some("system:serviceaccount:web:front"))));
    assert_eq!(b.counts().principals, 5);
    assert!(b.follow(&reset(None, None)));
    assert_eq!((b.counts().principals, b.bytes()), (0, 0));
}

#[test]
fn a_description_tells_what_is_usual() {
    let mut b = trained();
    let all = b.describe(None);
    assert_eq!(all.len(), 6);
    let [one] = &b.describe(Some("system:serviceaccount:web:front"))[..] else { panic!("one") };
    let action = one.tables.iter().find(|t| t.dimension == "action").expect("actions");
    let values: Vec<&str> = action.values.iter().map(|v| v.value.as_str()).collect();
    assert_eq!(values, ["get configmaps", "list pods"]);
    assert!((action.values[0].share - 0.5).abs() < 0.05 && action.values[0].peers == 6);
    let subnet = one.tables.iter().find(|t| t.dimension == "subnet").expect("subnets");
    assert_eq!((subnet.context.as_str(), subnet.values[0].value.as_str()), ("10.244.0.0/16", "10.244.3.0/24"));
}

/// A shelf in memory; every fourth record begins a segment.
#[derive(Clone, Debug, Default)]
struct Drawer(std::sync::Arc<std::sync::Mutex<Vec<Option<Vec<u8>>>>>);

impl Drawer {
    fn records(&self) -> std::sync::MutexGuard<'_, Vec<Option<Vec<u8>>>> {
        self.0.lock().expect("one thread")
    }
}

impl Shelf for Drawer {
    fn put(&mut self, record: &[u8]) -> Option<ShelfPlace> {
        let mut records = self.records();
        records.push(Some(record.to_vec()));
        let at = records.len() as u32 - 1;
        Some(ShelfPlace { segment: at / 4, offset: at % 4, len: record.len() as u32 })
    }

    fn get(&self, place: ShelfPlace) -> Option<Vec<u8>> {
        self.records().get((place.segment * 4 + place.offset) as usize).cloned().flatten()
    }

    fn full(&self) -> Vec<(u32, u64)> {
        let records = self.records();
        let size = |four: &[Option<Vec<u8>>]| four.iter().flatten().map(Vec::len).sum::<usize>() as u64;
        (0..).zip(records.chunks_exact(4)).map(|(segment, four)| (segment, size(four))).collect()
    }
}

/// Room for some forty principals.
const TIGHT: Options = Options { per_day: 5.0, fixed: Some((8.0, 10.0)), max_bytes: 66_000, max_shelved: 1 << 20 };

fn shelved(options: Options) -> (Baselines, Drawer) {
    let (mut b, drawer) = (Baselines::new(options), Drawer::default());
    b.shelve(Box::new(drawer.clone()));
    (b, drawer)
}

/// The `i`th request of a crowd: each with habits and secrets of its own, some of them shared by two, that come back
/// after many others; people with groups among them.
fn of_crowd(i: u32) -> Request {
    let who = i * 7 % 150;
    let name = name_of(who);
    let user =
        if who.is_multiple_of(3) { format!("dev{name}") } else { format!("system:serviceaccount:web:app{name}") };
    let of = if i.is_multiple_of(11) { name_of(who / 2) } else { name };
    let (resource, verb) = [("secrets", "get"), ("configmaps", "get"), ("pods", "list")][i as usize / 150 % 3];
    Request { user: Box::leak(user.into_boxed_str()), resource, verb, name: format!("own{of}"), ..usual() }
}

fn crowd(b: &mut Baselines, some: std::ops::Range<u32>, mut each: impl FnMut(&mut Baselines, u32, Vec<Told>)) {
    for i in some {
        let told = see(b, &of_crowd(i), START + i64::from(i) * HOUR / 20, &[]);
        each(b, i, told);
    }
}

#[test]
fn who_was_on_the_shelf_is_judged_as_if_it_had_never_left() {
    let mut roomy = Baselines::new(Options { max_bytes: 1 << 30, ..TIGHT });
    let (mut tight, drawer) = shelved(TIGHT);
    let mut expected = Vec::new();
    crowd(&mut roomy, 0..6_000, |b, _, told| expected.push((b.last(), told)));
    crowd(&mut tight, 0..6_000, |b, i, told| {
        assert_eq!((b.last(), told), expected[i as usize], "request {i}");
        assert!(b.bytes() <= TIGHT.max_bytes);
    });
    let (all, some) = (roomy.counts(), tight.counts());
    assert_eq!((some.principals, some.evicted, some.lost), (all.principals, 0, 0));
    assert!(some.shelved > 50 && drawer.records().len() > 2_000, "{some:?}");
    assert_eq!(tight.describe(None).len(), roomy.describe(None).len());
    let orders = [
        quieted(&[("client", "curl")]),
        Order::Reset { cluster: None, principal: Some("devd".into()) },
        Order::Reset { cluster: None, principal: None },
    ];
    for order in &orders {
        assert_eq!(tight.follow(order), roomy.follow(order), "{order:?}");
        assert_eq!(tight.counts().principals, roomy.counts().principals);
    }
    assert_eq!((tight.bytes(), tight.counts().shelved_bytes), (0, 0));
}

#[test]
fn a_snapshot_finds_its_records_again_and_an_export_needs_none() {
    let (mut a, drawer) = shelved(TIGHT);
    crowd(&mut a, 0..1_000, |_, _, _| {});
    let json = serde_json::to_string(&a).expect("data");
    let again = || Baselines::restore(TIGHT, serde_json::from_str(&json).expect("own data"));
    let mut b = again();
    b.shelve(Box::new(drawer.clone()));
    assert_eq!((b.counts().principals, b.bytes()), (a.counts().principals, a.bytes()));
    let mut expected = Vec::new();
    crowd(&mut a, 1_000..2_000, |b, _, told| expected.push((b.last(), told)));
    // What was written after the snapshot lies there too, and is nobody's.
    crowd(&mut b, 1_000..2_000, |b, i, told| assert_eq!((b.last(), told), expected[i as usize - 1_000]));
    assert_eq!(b.counts().lost, 0);
    let mut exporting = again();
    exporting.shelve(Box::new(drawer));
    let exported = {
        exporting.gather();
        let json = serde_json::to_string(&exporting).expect("data");
        Baselines::restore(Options::default(), serde_json::from_str(&json).expect("own data"))
    };
    assert_eq!((exported.counts().shelved, exported.counts().principals), (0, b.counts().principals));
}

#[test]
fn a_damaged_record_is_counted_and_its_identity_learned_anew() {
    let (mut b, drawer) = shelved(TIGHT);
    crowd(&mut b, 0..1_000, |_, _, _| {});
    let before = b.counts();
    for (i, record) in drawer.records().iter_mut().enumerate() {
        match i % 3 {
            0 => *record = None,
            1 => record.iter_mut().for_each(|r| r.truncate(20)),
            _ => {}
        }
    }
    crowd(&mut b, 1_000..3_000, |_, _, _| {});
    let after = b.counts();
    assert!(after.lost >= before.shelved / 2, "{before:?} {after:?}");
    assert_eq!((after.principals, after.evicted), (before.principals, 0));
}

#[test]
fn the_shelf_is_bounded_and_scattered_records_are_written_together() {
    let (mut b, _) = shelved(Options { max_shelved: 20_000, ..TIGHT });
    crowd(&mut b, 0..3_000, |b, _, _| assert!(b.counts().shelved_bytes <= 20_000));
    let counts = b.counts();
    assert!(counts.evicted > 0 && counts.shelved > 10, "{counts:?}");

    let (mut b, drawer) = shelved(TIGHT);
    crowd(&mut b, 0..3_000, |_, _, _| {});
    let (mut last, mut now) = (usize::MAX, b.members.cold.segments().count());
    while now < last {
        (last, now) = (now, b.tidy().len());
    }
    let wasted = |b: &Baselines| {
        let used: Vec<u32> = b.members.cold.segments().collect();
        let whole: u64 = drawer.full().into_iter().filter(|(s, _)| used.contains(s)).map(|(_, bytes)| bytes).sum();
        whole / b.counts().shelved_bytes
    };
    assert!(wasted(&b) < 3, "{}", wasted(&b));
    // What no segment in use has is removed, and nobody misses it.
    let used: Vec<u32> = b.members.cold.segments().collect();
    (0..).zip(drawer.records().iter_mut()).filter(|(at, _)| !used.contains(&(at / 4))).for_each(|(_, r)| *r = None);
    let expected = b.counts().principals;
    assert_eq!((b.describe(None).len() as u64, b.counts().lost), (expected, 0));
    while b.members.evict(&mut b.words) {}
    assert_eq!((b.counts().principals, b.bytes()), (0, 0));
}
