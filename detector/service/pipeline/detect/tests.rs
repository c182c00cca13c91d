use lapwing_engine::batch::Origin;

use super::*;
use crate::journal;
use crate::ruleset::Selection;

/// An event that no engine can bear, in these tests.
pub(super) fn crash_at(text: &str) {
    assert!(!text.contains("\"poison\""), "poisoned");
}

/// The two journals and everything else that is on disk.
struct House {
    dir: tempfile::TempDir,
    events: Journal,
    alerts: Journal,
    metrics: Arc<Metrics>,
    options: lapwing_engine::engine::Options,
}

impl House {
    fn new() -> Self {
        Self::with(lapwing_engine::engine::Options::default())
    }

    fn with(options: lapwing_engine::engine::Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for part in ["state", "rules"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        let open = |part: &str| Journal::open(&dir.path().join(part), journal::Options::default()).unwrap().0;
        let (events, alerts) = (open("journal"), open("alerts"));
        let house = Self { events, alerts, metrics: Arc::new(Metrics::new(["prod"])), options, dir };
        house.run("first");
        house
    }

    /// A batch with one event of each actor.
    fn event(&self, actors: &str) {
        self.event_at(10, actors);
    }

    fn event_at(&self, hour: i64, actors: &str) {
        let text = |actor| {
            format!(
                r#"{{"auditID":"{actor}","stage":"ResponseComplete","verb":"get","requestURI":"/","user":{{"username":"{actor}"}},"objectRef":{{"resource":"pods","name":"p","namespace":"n"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"2026-11-20T{hour}:00:00.000000Z","stageTimestamp":"2026-11-20T{hour}:00:00.000000Z"}}"#
            )
        };
        let items = actors.split(' ').map(|actor| Item::Event(text(actor))).collect();
        let batch = Batch {
            cluster: "prod".into(),
            origin: Origin::Webhook,
            received: 1_795_132_800_000_000 + hour * 3_600_000_000,
            items,
        };
        self.events.append_blocking(event_record::BATCH, batch.encode()).unwrap();
    }

    /// One run of the engine thread with a single rule, up to the end of the journal.
    fn run(&self, rule: &str) {
        let rulebook = self.book(rule);
        let options = self.options.clone();
        let detect = Detect {
            events: self.events.clone(),
            alerts: self.alerts.clone(),
            state: self.dir.path().join("state"),
            rules: self.dir.path().join("rules"),
            engine: Engine::new(Arc::clone(&rulebook.rules), options.clone()),
            rulebook: Arc::new(rulebook),
            options,
            progress: Arc::new(Progress { stop: AtomicBool::new(true), ..Progress::default() }),
            metrics: Arc::clone(&self.metrics),
            own: SelfAlerts::new(self.alerts.clone(), Arc::clone(&self.metrics)),
            space: Arc::new(Space::new(self.dir.path(), crate::space::Config::default())),
            new_rules: NewRules::default(),
        };
        detect.run().unwrap();
    }

    fn book(&self, rule: &str) -> Rulebook {
        let file = self.dir.path().join("rule.yml");
        let text = format!(
            "title: {rule}\nid: {rule}\nlevel: high\nlogsource: {{ product: kubernetes, service: audit }}\n\
             detection: {{ selection: {{ verb: get }}, condition: selection }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let selection = Selection { paths: vec![file], only_paths: true, filters: Vec::new(), ..Selection::default() };
        let options = self.options.clone();
        Rulebook::write(&self.dir.path().join("rules"), selection.sources().unwrap(), &options).unwrap()
    }

    /// Rule and actor of every alert told.
    fn told(&self) -> Vec<String> {
        let mut reader = self.alerts.reader(Lsn(0));
        let mut told = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            if record.kind == alert_record::ALERT {
                let alert: Alert = serde_json::from_slice(&record.payload).unwrap();
                told.push(format!("{} {}", alert.rule.id, alert.actor));
            }
        }
        told
    }

    fn forget_snapshots(&self) {
        for entry in std::fs::read_dir(self.dir.path().join("state")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "snap") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn each_event_is_judged_by_the_rules_of_its_place() {
    let house = House::new();
    house.event("ada");
    house.run("first");
    // Stored while the first rules were in use, judged after a restart with others.
    house.event("bob");
    house.run("second");
    house.event("eve");
    house.run("second");
    let expected = ["first ada", "first bob", "second eve"];
    assert_eq!(house.told(), expected);
    // The same from the snapshot, and from the beginning of the journal: nothing is told twice, nothing differs.
    house.run("second");
    house.forget_snapshots();
    house.run("second");
    house.forget_snapshots();
    house.run("third");
    assert_eq!((house.told(), house.metrics.replay_divergence.get()), (expected.map(String::from).to_vec(), 0));
}

#[test]
fn what_was_forgotten_is_counted_once_over_restarts_and_changes_of_rules() {
    let baseline = lapwing_engine::baseline::Options { max_bytes: 50_000, max_shelved: 0, ..Default::default() };
    let house = House::with(lapwing_engine::engine::Options { baseline: Some(baseline), ..Default::default() });
    let crowd: Vec<String> = (0..200).map(|i| format!("person{i}")).collect();
    house.event(&crowd.join(" "));
    house.run("first");
    let forgotten = house.metrics.baseline_evictions.get();
    assert!(forgotten > 50, "{forgotten}");
    for rule in ["first", "second"] {
        house.event("person199");
        house.run(rule);
        assert_eq!(house.metrics.baseline_evictions.get(), forgotten, "{rule}");
    }
}

#[test]
fn rules_that_are_gone_are_told_of_by_nobody_and_stop_nothing() {
    let house = House::new();
    house.event("ada");
    house.run("first");
    house.event("bob");
    let rules = house.dir.path().join("rules");
    std::fs::remove_dir_all(&rules).unwrap();
    std::fs::create_dir(&rules).unwrap();
    house.run("second");
    assert_eq!(
        (house.told(), house.metrics.replay_divergence.get()),
        (vec!["first ada".into(), "second bob".into()], 0)
    );
}

#[test]
fn a_replay_that_says_something_else_is_told() {
    let house = House::new();
    house.event("ada");
    house.run("first");
    let told = house.alerts.get(Lsn(1)).unwrap().unwrap();
    let mut invented: Alert = serde_json::from_slice(&told.payload).unwrap();
    invented.id = "invented".into();
    let payload = serde_json::to_vec(&invented).unwrap();
    let mark = (alert_record::PROGRESS, house.events.durable().0.to_le_bytes().to_vec());
    house.alerts.append_all_blocking(vec![(alert_record::ALERT, payload), mark]).unwrap();
    house.forget_snapshots();
    house.run("first");
    assert_eq!(house.metrics.replay_divergence.get(), 1);
    assert_eq!(house.told().last().unwrap(), "lapwing-replay-diverged lapwing");
}

#[test]
fn an_event_that_ends_the_process_is_left_out_after_the_second_time_and_told() {
    let house = House::new();
    house.event("ada poison bob");
    let run = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| house.run("first")));
    assert!(run().is_err() && run().is_err());
    run().unwrap();
    assert_eq!(house.told(), ["lapwing-record-set-aside lapwing", "first ada", "first bob"]);
    house.forget_snapshots();
    run().unwrap();
    assert_eq!((house.told().len(), house.metrics.replay_divergence.get(), house.metrics.set_aside.get()), (3, 0, 1));
}

#[test]
fn identities_on_disk_survive_a_restart_a_crash_and_new_rules_and_damage_is_counted() {
    let baseline = lapwing_engine::baseline::Options { max_bytes: 66_000, ..Default::default() };
    let house = House::with(lapwing_engine::engine::Options { baseline: Some(baseline), ..Default::default() });
    let crowd = (0..200).map(|i| format!("actor-{i}")).collect::<Vec<String>>().join(" ");
    let state = house.dir.path().join("state");
    let counts = || {
        let m = &house.metrics;
        (m.baseline_principals.get(), m.baseline_shelved.get() > 50, m.baseline_evictions.get(), m.baseline_lost.get())
    };
    for (hour, rule) in [(11, "first"), (12, "first"), (13, "second")] {
        house.event_at(hour, &crowd);
        house.run(rule);
        assert_eq!(counts(), (200, true, 0, 0), "{rule}");
    }
    // The newest snapshot is lost: the one before it still finds what it names.
    let mut snapshots: Vec<PathBuf> = std::fs::read_dir(&state).unwrap().map(|e| e.unwrap().path()).collect();
    snapshots.retain(|path| path.extension().is_some_and(|end| end == "snap"));
    std::fs::remove_file(snapshots.iter().max().unwrap()).unwrap();
    house.event_at(14, &crowd);
    house.run("second");
    assert_eq!((counts(), house.metrics.replay_divergence.get()), ((200, true, 0, 0), 0));
    for entry in std::fs::read_dir(state.join("baselines")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8..].iter_mut().for_each(|b| *b ^= 0x55);
        std::fs::write(path, bytes).unwrap();
    }
    house.event_at(15, &crowd);
    house.run("second");
    let (known, _, evicted, lost) = counts();
    assert!((known, evicted) == (200, 0) && lost > 50, "{known} {evicted} {lost}");
}
