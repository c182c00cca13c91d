use std::collections::BTreeMap;

use super::*;
use crate::flow::gather::Take;
use crate::output::sample;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

fn outputs() -> Vec<String> {
    ["siem", "chat", "pager"].map(str::to_owned).to_vec()
}

fn flow(yaml: &str) -> Result<Flow, Problems> {
    let route: Route = serde_saphyr::from_str(yaml).unwrap();
    let nights = "[{ name: night, intervals: [{ times: [{ from: '00:00', to: '06:00' }] }] }]";
    let intervals: Vec<TimeInterval> = serde_saphyr::from_str(nights).unwrap();
    let outputs = outputs();
    Flow::new(Sections { route: Some(&route), inhibit_rules: &[], time_intervals: &intervals, outputs: &outputs })
}

fn told(flow: &Flow, alert: &Alert) -> Vec<(String, String)> {
    let outputs = outputs();
    let hops = outputs.iter().filter_map(|o| Some((o.clone(), flow.hop(o, alert)?.path.clone())));
    hops.collect()
}

const TREE: &str = "
outputs: [chat]
routes:
  - { outputs: [siem], continue: true }
  - matchers: ['level=~\"high|critical\"']
    outputs: [chat]
    routes:
      - { matchers: ['namespace=shop'], outputs: [pager] }
  - { matchers: ['cluster=test'], outputs: [siem] }
";

#[test]
fn an_alert_goes_down_the_tree_as_in_alertmanager() {
    let flow = flow(TREE).unwrap();
    let alert = sample::alert();
    let at = |output: &str, path: &str| (output.to_owned(), path.to_owned());
    assert_eq!(told(&flow, &alert), [at("siem", "route.routes[0]"), at("pager", "route.routes[1].routes[0]")]);
    let mut elsewhere = alert.clone();
    elsewhere.evidence[0].namespace = "x".into();
    assert_eq!(told(&flow, &elsewhere), [at("siem", "route.routes[0]"), at("chat", "route.routes[1]")]);
    let low = Alert { level: lapwing_engine::alert::Level::Low, cluster: "test".into(), ..alert };
    assert_eq!(told(&flow, &low), [at("siem", "route.routes[0]")], "told once, though two nodes say so");
    assert_eq!(flow.unreached(&outputs()), [""; 0]);
}

#[test]
fn the_root_takes_what_no_node_takes_and_nothing_set_is_inherited_but_matchers_and_times() {
    let tree = "{ outputs: [chat], groupBy: [rule], groupWait: 10s, muteTimeIntervals: [night],
        routes: [{ matchers: [actor=bob], groupInterval: 5m }] }";
    let flow = flow(tree).unwrap();
    let night = "2026-03-01T03:00:00Z".parse().unwrap();
    let root = flow.hop("chat", &sample::alert()).unwrap();
    assert_eq!((root.path.as_str(), root.muted_by(night)), ("route", Some("night")));
    let bob = Alert { actor: "bob".into(), ..sample::alert() };
    let node = flow.hop("chat", &bob).unwrap();
    assert_eq!((node.pace.wait, node.pace.interval, node.muted_by(night)), (10_000_000, 5 * MINUTE, None));
    assert_eq!(flow.unreached(&outputs()), ["siem", "pager"]);
}

#[test]
fn without_a_tree_every_output_is_told_at_once() {
    let flow = Flow::default();
    let hop = flow.hop("anything", &sample::alert()).unwrap();
    assert!(hop.pace.is_plain() && hop.muted_by(Utc::now()).is_none());
}

#[test]
fn every_problem_of_the_tree_is_told() {
    let problems = flow(
        "{ matchers: ['level=high'], routes: [
            { outputs: [nobody], groupBy: [colour], digest: 5s },
            { matchers: ['level=~\"(\"'], muteTimeIntervals: [dawn] } ] }",
    )
    .unwrap_err();
    let paths: Vec<_> = problems.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "route",
        "route.routes[0].outputs[0]",
        "route.routes[0].groupBy[0]",
        "route.routes[0].digest",
        "route.routes[1].matchers[0]",
        "route.routes[1]",
        "route.routes[1].muteTimeIntervals[0]",
    ];
    assert_eq!(paths, expected, "{problems:#?}");
}

/// A gatherer with one node of the given settings.
struct Bench {
    flow: Flow,
    gather: Gather,
    position: u64,
}

impl Bench {
    fn new(settings: &str) -> Self {
        let flow = flow(&format!("{{ outputs: [chat], {settings} }}")).unwrap();
        Self { flow, gather: Gather::default(), position: 0 }
    }

    fn add(&mut self, actor: &str, at: i64) {
        self.position += 1;
        let alert = Alert { actor: actor.into(), ..sample::alert() };
        let hop = Arc::clone(self.flow.hop("chat", &alert).unwrap());
        self.gather.add(alert, &hop, self.position, at);
    }

    /// The actors told at `now`, each notice by itself.
    fn tell(&mut self, now: i64) -> Vec<String> {
        let mut notices = Vec::new();
        loop {
            let taken = self.gather.take(now, Take::Group);
            if taken.is_empty() {
                return notices;
            }
            self.gather.note(&taken, now);
            notices.push(taken.iter().map(|h| h.alert.actor.as_str()).collect::<Vec<_>>().join("+"));
        }
    }
}

#[test]
fn plain_alerts_are_told_one_by_one_in_order() {
    let mut bench = Bench::new("");
    ["b", "a", "b"].into_iter().for_each(|actor| bench.add(actor, 0));
    assert_eq!(bench.tell(0), ["b", "a", "b"]);
    assert_eq!((bench.gather.held(), bench.gather.told().len()), (0, 0), "nothing to remember");
}

#[test]
fn a_group_waits_gathers_and_keeps_its_interval() {
    let mut bench = Bench::new("groupBy: [rule], groupWait: 30s, groupInterval: 5m, repeatInterval: 4h");
    bench.add("alice", 0);
    bench.add("bob", MINUTE / 4);
    assert_eq!(bench.tell(MINUTE / 2 - 1), [""; 0]);
    assert_eq!(bench.tell(MINUTE / 2), ["alice+bob"]);
    bench.add("eve", MINUTE);
    assert_eq!(bench.tell(5 * MINUTE), [""; 0]);
    assert_eq!(bench.tell(5 * MINUTE + MINUTE / 2), ["eve"], "new in the group: after the interval");
    bench.add("alice", HOUR);
    bench.add("alice", 2 * HOUR);
    assert_eq!(bench.tell(4 * HOUR), [""; 0], "known: not before it may be repeated");
    assert_eq!(bench.tell(4 * HOUR + MINUTE), ["alice+alice"], "what came meanwhile is told with it");
}

#[test]
fn a_repetition_without_groups_is_by_rule_actor_and_cluster() {
    let mut bench = Bench::new("repeatInterval: 1h");
    bench.add("alice", 0);
    bench.add("bob", 0);
    assert_eq!(bench.tell(0).len(), 2);
    bench.add("alice", MINUTE);
    bench.add("eve", MINUTE);
    assert_eq!(bench.tell(MINUTE), ["eve"]);
    let saved = bench.gather.told().clone();
    let json = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<BTreeMap<String, gather::Told>>(&json).unwrap(), saved, "survives a restart");
    assert_eq!(bench.tell(HOUR), ["alice"]);
}

#[test]
fn a_digest_comes_at_full_hours() {
    let mut bench = Bench::new("digest: 1h");
    bench.add("alice", 5 * HOUR + MINUTE);
    bench.add("bob", 5 * HOUR + 40 * MINUTE);
    assert_eq!(bench.tell(6 * HOUR - 1), [""; 0]);
    assert_eq!(bench.tell(6 * HOUR), ["alice+bob"]);
}

#[test]
fn what_a_time_interval_keeps_is_told_together_afterwards() {
    let mut bench = Bench::new("muteTimeIntervals: [night]");
    bench.add("alice", HOUR);
    bench.add("bob", 2 * HOUR);
    assert_eq!(bench.tell(6 * HOUR - 1), [""; 0]);
    assert_eq!(bench.tell(6 * HOUR), ["alice+bob"]);
    let mut bench = Bench::new("activeTimeIntervals: [night]");
    bench.add("alice", 12 * HOUR);
    assert_eq!(bench.tell(12 * HOUR), [""; 0]);
    assert_eq!(bench.tell(25 * HOUR), ["alice"]);
}

#[test]
fn what_waits_is_bounded() {
    let mut bench = Bench::new("groupBy: [actor], groupWait: 1d");
    for n in 0..gather::MAX_HELD {
        assert_eq!(bench.gather.take(0, Take::Group).len(), 0);
        bench.add(&n.to_string(), 0);
    }
    assert_eq!(bench.gather.take(0, Take::AtMost(20)).len(), 20, "records go in pieces");
    bench.add("x", 0);
    (0..19).for_each(|_| bench.add("x", 0));
    assert_eq!(bench.gather.take(0, Take::Group).len(), gather::MAX_HELD, "people are told once, and early");
    assert_eq!(bench.gather.held(), 0);
}

#[test]
fn under_a_rate_everything_due_is_told_together() {
    let mut bench = Bench::new("groupBy: [actor], groupWait: 30s");
    ["alice", "bob"].into_iter().for_each(|actor| bench.add(actor, 0));
    bench.add("late", MINUTE);
    assert_eq!(bench.gather.due(MINUTE), 2);
    assert_eq!(bench.gather.take(MINUTE, Take::Together).len(), 2);
}
