//! The worker against an alert journal in memory and a receiver that answers from a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::tries::{GRACE, MIN_WAIT};
use super::*;
use crate::metrics::Metrics;
use crate::output::metrics::Meter;
use crate::output::sample;

/// Records by position (1, 2, …) and a cursor, shared with the test.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    records: Vec<Vec<u8>>,
    read: u64,
    cursor: u64,
    /// How often the cursor was written.
    moves: usize,
    broken: bool,
}

impl Memory {
    fn of(alerts: &[Alert]) -> Self {
        let memory = Self::default();
        memory.0.lock().unwrap().records = alerts.iter().map(|a| serde_json::to_vec(a).unwrap()).collect();
        memory
    }

    /// What a restart sees: reading starts after the cursor.
    fn reopened(&self) -> Self {
        let mut shelf = self.0.lock().unwrap();
        shelf.read = shelf.cursor;
        drop(shelf);
        self.clone()
    }

    fn cursor(&self) -> u64 {
        self.0.lock().unwrap().cursor
    }
}

impl AlertSource for Memory {
    fn next(&mut self, _wait: Duration) -> io::Result<Next> {
        let mut shelf = self.0.lock().unwrap();
        if shelf.broken {
            return Err(io::Error::other("broken"));
        }
        let Some(record) = shelf.records.get(usize::try_from(shelf.read).unwrap()).cloned() else {
            return Ok(Next::Idle);
        };
        shelf.read += 1;
        let position = shelf.read;
        Ok(if record.is_empty() { Next::Skip { position } } else { Next::from_json(position, &record) })
    }

    fn done(&mut self, position: u64) -> io::Result<()> {
        let mut shelf = self.0.lock().unwrap();
        assert!(position > shelf.cursor, "the cursor only moves on");
        shelf.cursor = position;
        shelf.moves += 1;
        Ok(())
    }

    fn pending(&self) -> u64 {
        let shelf = self.0.lock().unwrap();
        shelf.records.len() as u64 - shelf.cursor
    }
}

/// Answers the script, then `Ok`; notes what it took and when; rings when idle.
#[derive(Clone, Default)]
struct Receiver {
    script: Arc<Mutex<VecDeque<Failure>>>,
    taken: Arc<Mutex<Vec<String>>>,
    tries: Arc<Mutex<Vec<Instant>>>,
    idle: Arc<Notify>,
    hang: bool,
    /// Refuses whatever holds the alert of this id.
    blame: Option<String>,
}

impl Deliver for Receiver {
    async fn deliver(&mut self, alerts: &[&Alert]) -> Result<Receipt, Failure> {
        self.tries.lock().unwrap().push(Instant::now());
        if self.hang {
            self.idle.notify_one();
            std::future::pending::<()>().await;
        }
        if let Some(failure) = self.script.lock().unwrap().pop_front() {
            return Err(failure);
        }
        if alerts.iter().any(|a| Some(&a.id) == self.blame.as_ref()) {
            return Err(Failure::reject("400"));
        }
        let resolved = |a: &&Alert| if a.status == lapwing_engine::alert::Status::Resolved { " resolved" } else { "" };
        let ids: Vec<String> = alerts.iter().map(|a| format!("{}{}", a.id, resolved(a))).collect();
        self.taken.lock().unwrap().push(ids.join("+"));
        Ok(Receipt("ok".to_owned()))
    }

    async fn tend(&mut self) -> Result<(), Failure> {
        self.idle.notify_one();
        // Lets the paused clock go on while a worker has nothing to do.
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

impl Receiver {
    fn answering(script: impl IntoIterator<Item = Failure>) -> Self {
        Self { script: Arc::new(Mutex::new(script.into_iter().collect())), ..Self::default() }
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

struct House {
    dir: tempfile::TempDir,
    metrics: std::sync::Arc<Metrics>,
    stop: CancellationToken,
    /// When it was built, by both clocks.
    built: (i64, Instant),
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outputs")).unwrap();
        Self {
            dir,
            metrics: std::sync::Arc::new(Metrics::new([""; 0])),
            stop: CancellationToken::new(),
            built: (now_micros(), Instant::now()),
        }
    }

    fn worker(&self, receiver: &Receiver) -> Worker<Receiver> {
        self.worker_of(&output("stdout", serde_json::json!({})), receiver)
    }

    fn worker_of(&self, config: &Config, receiver: &Receiver) -> Worker<Receiver> {
        let meter = Meter::new(std::sync::Arc::clone(&self.metrics), "out");
        let (start, began) = self.built;
        let mut worker = Worker::new(config, receiver.clone(), self.dir.path(), meter, self.stop.clone());
        // The clock of the tests is the paused one.
        worker.clock = Arc::new(move || start + began.elapsed().as_micros() as i64);
        worker
    }

    /// Runs a worker until it has nothing to do.
    async fn run(&self, receiver: &Receiver, memory: &Memory) {
        let running = tokio::spawn(self.worker(receiver).run(memory.clone()));
        receiver.idle.notified().await;
        self.stop.cancel();
        running.await.unwrap().unwrap();
    }

    fn letters(&self) -> Vec<DeadLetter> {
        let text = std::fs::read_to_string(DeadLetters::of(self.dir.path(), "out").path()).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn count(&self, metric: &str, outcome: Option<&str>) -> f64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let wanted = |l: &&str| l.starts_with(&format!("{metric}{{")) && outcome.is_none_or(|o| l.contains(o));
        let line = text.lines().find(wanted).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// The settings of an output of this type.
fn output(kind: &str, more: serde_json::Value) -> Config {
    let mut settings = serde_json::json!({ "type": kind, "name": "out" });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(settings).unwrap()
}

fn alerts(count: u32) -> Vec<Alert> {
    (1..=count).map(|n| Alert { id: n.to_string(), ..sample::alert() }).collect()
}

fn retry(after: Option<u64>) -> Failure {
    Failure::Retry { reason: "busy".to_owned(), after: after.map(Duration::from_secs) }
}

#[tokio::test(start_paused = true)]
async fn delivers_in_order_and_moves_the_cursor() {
    let (house, receiver, memory) = (House::new(), Receiver::default(), Memory::of(&alerts(5)));
    house.run(&receiver, &memory).await;
    assert_eq!(receiver.taken(), ["1", "2", "3", "4", "5"]);
    assert_eq!(memory.cursor(), 5);
    assert_eq!(house.count("lapwing_output_deliveries_total", Some("delivered")), 5.0);
    assert_eq!(house.count("lapwing_output_pending", None), 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_until_it_passes_and_nothing_overtakes() {
    let receiver = Receiver::answering((0..40).map(|_| retry(None)));
    let (house, memory) = (House::new(), Memory::of(&alerts(2)));
    house.run(&receiver, &memory).await;
    assert_eq!(receiver.taken(), ["1", "2"]);
    assert_eq!(house.letters(), []);
    assert_eq!(house.count("lapwing_output_deliveries_total", Some("retry")), 40.0);
    let tries = receiver.tries.lock().unwrap();
    let gaps: Vec<_> = tries.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps[..40].iter().all(|g| *g >= MIN_WAIT / 10 && *g <= Duration::from_secs(61)), "{gaps:?}");
    assert!(gaps[0] <= MIN_WAIT * 2 && gaps[10..40].iter().any(|g| *g > Duration::from_secs(10)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn patience_is_what_the_receiver_asks_but_not_more_than_five_minutes() {
    let receiver = Receiver::answering([retry(Some(7)), retry(Some(86_400))]);
    let (house, memory) = (House::new(), Memory::of(&alerts(1)));
    house.run(&receiver, &memory).await;
    let tries = receiver.tries.lock().unwrap();
    assert_eq!((tries[1] - tries[0]).as_secs(), 7);
    assert_eq!((tries[2] - tries[1]).as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_five_times_is_buried_and_the_next_goes_on() {
    let receiver = Receiver::answering((0..5).map(|_| Failure::reject("404 Not Found")));
    let (house, memory) = (House::new(), Memory::of(&alerts(2)));
    house.run(&receiver, &memory).await;
    assert_eq!(receiver.taken(), ["2"]);
    assert_eq!(memory.cursor(), 2);
    let letters = house.letters();
    assert_eq!((letters.len(), letters[0].tries, letters[0].reason.as_str()), (1, 5, "404 Not Found"));
    assert_eq!(letters[0].alert.as_ref().unwrap().id, "1");
    assert_eq!(house.count("lapwing_output_dead_letters_total", None), 1.0);
}

#[tokio::test(start_paused = true)]
async fn four_refusals_are_not_five_even_among_other_failures() {
    let mixed = (0..4).flat_map(|_| [Failure::reject("no"), retry(None)]);
    let (house, receiver, memory) = (House::new(), Receiver::answering(mixed), Memory::of(&alerts(1)));
    house.run(&receiver, &memory).await;
    assert_eq!((receiver.taken().len(), house.letters().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn low_levels_and_foreign_records_are_passed_over() {
    let mut list = alerts(3);
    list[0].level = Level::Low;
    list[2].level = Level::Medium;
    let memory = Memory::of(&list);
    memory.0.lock().unwrap().records[1] = Vec::new();
    let (house, receiver) = (House::new(), Receiver::default());
    house.run(&receiver, &memory).await;
    assert_eq!((receiver.taken(), memory.cursor()), (vec!["3".to_owned()], 3));
}

#[tokio::test(start_paused = true)]
async fn a_long_row_of_foreign_records_does_not_write_the_cursor_each_time() {
    let memory = Memory::default();
    memory.0.lock().unwrap().records = vec![Vec::new(); 1000];
    let (house, receiver) = (House::new(), Receiver::default());
    house.run(&receiver, &memory).await;
    assert_eq!(memory.cursor(), 1000);
    assert!(memory.0.lock().unwrap().moves < 20);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_kept_as_a_dead_letter() {
    let memory = Memory::of(&alerts(2));
    memory.0.lock().unwrap().records[0] = b"{\"id\":\n".to_vec();
    let (house, receiver) = (House::new(), Receiver::default());
    house.run(&receiver, &memory).await;
    assert_eq!((receiver.taken(), memory.cursor()), (vec!["2".to_owned()], 2));
    assert_eq!(house.letters()[0].unreadable, "{\"id\":\n");
}

#[tokio::test(start_paused = true)]
async fn the_cursor_waits_for_the_dead_letter() {
    let house = House::new();
    // A directory where the file should be: it cannot be written.
    let path = DeadLetters::of(house.dir.path(), "out").path().to_owned();
    std::fs::create_dir(&path).unwrap();
    let receiver = Receiver::answering((0..5).map(|_| Failure::reject("no")));
    let memory = Memory::of(&alerts(1));
    let running = tokio::spawn(house.worker(&receiver).run(memory.clone()));
    // Time is paused: this passes as soon as all that can happen has happened, some dozen tries later.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(memory.cursor(), 0);
    std::fs::remove_dir(&path).unwrap();
    receiver.idle.notified().await;
    house.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!((memory.cursor(), house.letters().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn stopping_leaves_the_undelivered_for_the_next_start() {
    let house = House::new();
    let (receiver, memory) = (Receiver { hang: true, ..Receiver::default() }, Memory::of(&alerts(1)));
    let running = tokio::spawn(house.worker(&receiver).run(memory.clone()));
    receiver.idle.notified().await;
    let start = Instant::now();
    house.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), GRACE);
    assert_eq!(memory.cursor(), 0);

    let (again, receiver) = (House::new(), Receiver::default());
    again.run(&receiver, &memory.reopened()).await;
    assert_eq!((receiver.taken().len(), memory.cursor()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn stopping_during_a_pause_is_prompt() {
    let house = House::new();
    let (receiver, memory) = (Receiver::answering([retry(Some(300))]), Memory::of(&alerts(1)));
    let running = tokio::spawn(house.worker(&receiver).run(memory.clone()));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(house.count("lapwing_output_oldest_seconds", None) >= 15.0);
    let start = Instant::now();
    house.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!((start.elapsed(), memory.cursor()), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broken_journal_ends_the_worker() {
    let (house, memory) = (House::new(), Memory::of(&alerts(1)));
    memory.0.lock().unwrap().broken = true;
    let ended = house.worker(&Receiver::default()).run(memory).await;
    assert!(matches!(ended, Err(WorkerError::Source { .. })));
}

/// An output for people, told by a route with these settings.
fn chat(settings: &str) -> (Config, Arc<Flow>) {
    let yaml = format!(
        "outputs: [{{ name: out, type: slack, urlFile: x, maxPerMinute: 60 }}]\nroute: {{ outputs: [out], {settings} }}"
    );
    let config: crate::config::Config = serde_saphyr::from_str(&yaml).unwrap();
    (config.outputs[0].clone(), Arc::new(config.flow().unwrap()))
}

/// Runs a worker for so long.
async fn run_for(house: &House, worker: Worker<Receiver>, memory: &Memory, seconds: u64) {
    let running = tokio::spawn(worker.run(memory.clone()));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    house.stop.cancel();
    running.await.unwrap().unwrap();
}

/// The same house after a restart.
fn again(house: House) -> House {
    House { stop: CancellationToken::new(), ..house }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_group_survives_a_restart_and_is_told_once() {
    let (config, flow) = chat("groupBy: [actor], groupWait: 60s, repeatInterval: 1h");
    let mut list = alerts(5);
    list[1].actor = "bob".into();
    let (house, receiver, memory) = (House::new(), Receiver::default(), Memory::of(&list[..3]));
    run_for(&house, house.worker_of(&config, &receiver).with_flow(Arc::clone(&flow)), &memory, 10).await;
    assert_eq!((receiver.taken(), memory.cursor()), (vec![], 0), "the cursor stays before what waits");
    assert_eq!(house.count("lapwing_output_held", None), 3.0);
    let house = again(house);
    let records = list.iter().map(|a| serde_json::to_vec(a).unwrap()).collect();
    memory.0.lock().unwrap().records = records;
    let worker = house.worker_of(&config, &receiver).with_flow(Arc::clone(&flow));
    run_for(&house, worker, &memory.reopened(), 100).await;
    assert_eq!(receiver.taken(), ["1+3+4+5", "2"], "alice's, then bob's");
    assert_eq!(memory.cursor(), 5);
    let house = again(house);
    memory.0.lock().unwrap().records.push(serde_json::to_vec(&Alert { id: "6".into(), ..list[0].clone() }).unwrap());
    let worker = house.worker_of(&config, &receiver).with_flow(flow);
    run_for(&house, worker, &memory.reopened(), 100).await;
    assert_eq!((receiver.taken().len(), memory.cursor()), (2, 5), "told already: not again within the hour");
}

#[tokio::test(start_paused = true)]
async fn what_was_told_behind_something_that_waits_is_not_told_again_after_a_restart() {
    let (config, flow) = chat("routes: [{ matchers: [actor=bob], groupBy: [], groupWait: 1h }]");
    let mut list = alerts(4);
    list[1].actor = "bob".into();
    let (house, receiver, memory) = (House::new(), Receiver::default(), Memory::of(&list));
    run_for(&house, house.worker_of(&config, &receiver).with_flow(Arc::clone(&flow)), &memory, 10).await;
    assert_eq!((receiver.taken().join(" "), memory.cursor()), ("1 3 4".to_owned(), 1));
    let house = again(house);
    run_for(&house, house.worker_of(&config, &receiver).with_flow(flow), &memory.reopened(), 4000).await;
    assert_eq!((receiver.taken().join(" "), memory.cursor()), ("1 3 4 2".to_owned(), 4));
}

#[tokio::test(start_paused = true)]
async fn what_comes_faster_than_the_rate_is_told_together() {
    let (config, flow) = chat("groupBy: [rule, actor]");
    let list: Vec<Alert> =
        (1..=200).map(|n| Alert { id: n.to_string(), actor: n.to_string(), ..sample::alert() }).collect();
    let (house, receiver, memory) = (House::new(), Receiver::default(), Memory::of(&list));
    run_for(&house, house.worker_of(&config, &receiver).with_flow(flow), &memory, 300).await;
    let taken = receiver.taken();
    assert_eq!(taken.len(), 61, "sixty at once, a minute later the rest in one");
    assert_eq!(taken.join("+").split('+').count(), 200, "nothing is dropped");
    assert_eq!(memory.cursor(), 200);
}

/// No sixty seconds have more than `most` of these.
fn assert_rate(tries: &[Instant], most: usize) {
    for some in tries.windows(most + 1) {
        assert!(some[most] - some[0] >= Duration::from_secs(60), "{some:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_each_alert_is_a_message_they_wait_in_order() {
    let ids: Vec<String> = (1..=25).map(|n| n.to_string()).collect();
    for (kind, more) in [
        ("syslog", serde_json::json!({ "address": "siem:6514", "maxPerMinute": 10 })),
        ("pagerduty", serde_json::json!({ "keyFile": "k", "maxPerMinute": 10 })),
        ("kafka", serde_json::json!({ "brokers": ["b:9092"], "topic": "t", "maxPerMinute": 10 })),
    ] {
        let (house, receiver, memory) = (House::new(), Receiver::default(), Memory::of(&alerts(25)));
        let config = output(kind, more);
        run_for(&house, house.worker_of(&config, &receiver), &memory, 119).await;
        let taken = receiver.taken();
        assert_eq!(taken.join("+").split('+').collect::<Vec<_>>(), ids[..20], "{kind}: two minutes' worth, in order");
        if kind == "kafka" {
            assert_eq!(taken.len(), 2, "its records travel together and are counted singly");
        } else {
            assert_rate(&receiver.tries.lock().unwrap(), 10);
        }
        // As soon as ten are out the eleventh waits: nearly all the time.
        let limited = house.count("lapwing_output_limited_seconds_total", None);
        assert!((100.0..=119.0).contains(&limited), "{kind}: {limited}");
        // What waited is told after a restart, in order still.
        let house = again(house);
        run_for(&house, house.worker_of(&config, &receiver), &memory.reopened(), 60).await;
        assert_eq!(receiver.taken().join("+"), ids.join("+"), "{kind}");
        assert_eq!(memory.cursor(), 25);
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_request_takes_many_they_get_larger() {
    let (house, receiver, memory) = (House::new(), Receiver::default(), Memory::of(&alerts(1)));
    let config = output("otlp", serde_json::json!({ "url": "https://otel.example.org/v1/logs", "maxPerMinute": 2 }));
    let running = tokio::spawn(house.worker_of(&config, &receiver).run(memory.clone()));
    for n in 2..=120 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let alert = Alert { id: n.to_string(), ..sample::alert() };
        memory.0.lock().unwrap().records.push(serde_json::to_vec(&alert).unwrap());
    }
    tokio::time::sleep(Duration::from_secs(70)).await;
    house.stop.cancel();
    running.await.unwrap().unwrap();
    let sizes: Vec<usize> = receiver.taken().iter().map(|ids| ids.split('+').count()).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (5, 120), "{sizes:?}");
    assert_eq!(sizes[2..4], [50, 50], "what waited a minute, as much as it carries");
    assert_rate(&receiver.tries.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn tries_that_fail_count_and_wait_too() {
    let (house, memory) = (House::new(), Memory::of(&alerts(2)));
    let receiver = Receiver::answering((0..7).map(|_| retry(None)));
    let config = output("webhook", serde_json::json!({ "url": "https://example.org/in", "maxPerMinute": 3 }));
    run_for(&house, house.worker_of(&config, &receiver), &memory, 300).await;
    assert_eq!((receiver.taken().join(" "), memory.cursor()), ("1 2".to_owned(), 2));
    assert_eq!(receiver.tries.lock().unwrap().len(), 9);
    assert_rate(&receiver.tries.lock().unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_go_yet_is_not_read_into_memory() {
    for (kind, more, most) in [
        ("syslog", serde_json::json!({ "address": "siem:6514", "maxPerMinute": 1 }), 1),
        ("slack", serde_json::json!({ "urlFile": "x", "maxPerMinute": 1 }), crate::flow::gather::MAX_HELD as u64 - 1),
    ] {
        let (house, receiver, memory) = (House::new(), Receiver::default(), Memory::of(&alerts(5000)));
        run_for(&house, house.worker_of(&output(kind, more), &receiver), &memory, 50).await;
        assert_eq!((receiver.taken(), memory.cursor()), (vec!["1".to_owned()], 1), "{kind}");
        assert_eq!(memory.0.lock().unwrap().read, 1 + most, "{kind}: the rest waits in the journal");
    }
}

#[tokio::test(start_paused = true)]
async fn silenced_unrouted_and_inhibited_alerts_are_not_told_and_counted() {
    use crate::flow::silence::{Silence, Silences, Watch};
    let yaml = "
outputs: [{ name: out, type: stdout }, { name: other, type: stdout }]
inhibitRules: [{ sourceMatchers: [rule=loud], targetMatchers: [rule=quiet], equal: [actor] }]
route: { outputs: [out], routes: [{ matchers: [actor=carol], outputs: [other] }] }";
    let config: crate::config::Config = serde_saphyr::from_str(yaml).unwrap();
    let flow = Arc::new(config.flow().unwrap());
    let (house, receiver) = (House::new(), Receiver::default());
    let (now, hour) = (chrono::Utc::now(), chrono::TimeDelta::hours(1));
    let silences = Silences::of(house.dir.path());
    let ours = Silence::new(vec!["actor=bob".into()], ("a".into(), "b".into()), (now - hour, now + hour), now);
    silences.add(ours.unwrap()).unwrap();
    let of = |id: &str, rule: &str, actor: &str| {
        let mut alert = Alert { id: id.into(), actor: actor.into(), ..sample::alert() };
        alert.rule.id = rule.into();
        alert
    };
    let list = [
        of("1", "quiet", "eve"),
        of("2", "loud", "eve"),
        of("3", "quiet", "eve"),
        of("4", "quiet", "dan"),
        of("5", "x", "bob"),
        of("6", "x", "carol"),
    ];
    let memory = Memory::of(&list);
    let worker = house.worker_of(&config.outputs[0], &receiver).with_flow(flow).with_silences(Watch::new(silences));
    run_for(&house, worker, &memory, 5).await;
    assert_eq!((receiver.taken().join(" "), memory.cursor()), ("1 2 4".to_owned(), 6));
    for reason in ["silence", "route", "inhibition"] {
        assert_eq!(house.count("lapwing_output_withheld_total", Some(reason)), 1.0, "{reason}");
    }
    assert_eq!(house.count("lapwing_output_withheld_total", Some("level")), 0.0);
}

/// A worker of an output that takes many records at once.
fn records(house: &House, receiver: &Receiver) -> Worker<Receiver> {
    let config = serde_json::json!({ "type": "otlp", "name": "out", "url": "https://otel.example.org/v1/logs" });
    house.worker_of(&serde_json::from_value(config).unwrap(), receiver)
}

#[tokio::test(start_paused = true)]
async fn what_is_there_travels_together_and_in_halves_when_it_is_too_large() {
    let large = || Failure::TooLarge { reason: "413".to_owned() };
    let (house, receiver, memory) = (House::new(), Receiver::answering([large(), large()]), Memory::of(&alerts(70)));
    run_for(&house, records(&house, &receiver), &memory, 10).await;
    let sizes: Vec<usize> = receiver.taken().iter().map(|ids| ids.split('+').count()).collect();
    assert_eq!(sizes, [12, 38, 20], "50 is what it carries");
    let expected: Vec<String> = (1..=70).map(|n| n.to_string()).collect();
    assert_eq!((receiver.taken().join("+"), memory.cursor()), (expected.join("+"), 70));
    assert_eq!(house.letters(), []);
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_the_refused_are_buried_and_the_others_sent_again() {
    let partly = Failure::Partial {
        refused: vec![(1, "bad field".to_owned())],
        again: vec![3],
        reason: "busy".to_owned(),
        after: None,
    };
    let (house, receiver, memory) = (House::new(), Receiver::answering([partly]), Memory::of(&alerts(5)));
    run_for(&house, records(&house, &receiver), &memory, 10).await;
    let letters: Vec<_> = house.letters().into_iter().map(|l| (l.alert.unwrap().id, l.reason)).collect();
    assert_eq!(letters, [("2".to_owned(), "bad field".to_owned())]);
    assert_eq!((receiver.taken(), memory.cursor()), (vec!["4".to_owned()], 5));
    assert_eq!(house.count("lapwing_output_deliveries_total", Some("delivered")), 4.0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_costs_only_the_one_to_blame() {
    let (house, memory) = (House::new(), Memory::of(&alerts(5)));
    // All together are refused five times; then one by one the first two are taken and the third is not.
    let receiver = Receiver { blame: Some("3".to_owned()), ..Receiver::default() };
    run_for(&house, records(&house, &receiver), &memory, 600).await;
    let letters: Vec<_> = house.letters().into_iter().map(|l| l.alert.unwrap().id).collect();
    assert_eq!((letters, receiver.taken()), (vec!["3".to_owned()], ["1", "2", "4+5"].map(str::to_owned).to_vec()));
    assert_eq!((receiver.tries.lock().unwrap().len(), memory.cursor()), (5 + 3 + 1, 5));
}

#[tokio::test(start_paused = true)]
async fn an_incident_is_closed_after_its_quiet_though_the_worker_was_restarted() {
    let config = serde_json::json!({ "type": "pagerduty", "name": "out", "keyFile": "k", "resolveAfter": "1h" });
    let config: Config = serde_json::from_value(config).unwrap();
    let (house, receiver, memory) = (House::new(), Receiver::default(), Memory::of(&alerts(1)));
    run_for(&house, house.worker_of(&config, &receiver), &memory, 600).await;
    assert_eq!((receiver.taken(), memory.cursor()), (vec!["1".to_owned()], 1));
    let house = again(house);
    run_for(&house, house.worker_of(&config, &receiver), &memory.reopened(), 7200).await;
    assert_eq!(receiver.taken(), ["1", "1 resolved"]);
    let house = again(house);
    run_for(&house, house.worker_of(&config, &receiver), &memory.reopened(), 7200).await;
    assert_eq!(receiver.taken().len(), 2, "once");
}
