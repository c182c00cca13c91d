//! A receiver that is dead, slow or wrong: nothing is lost at it, and the output beside it does not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, until};
use crate::judge::{judge, told};
use crate::receivers::{Kind, Receiver, Way};
use crate::sender::Ledger;
use crate::{Row, Scale};

/// What can be wrong with a receiver of webhooks, and with every other that speaks HTTP.
const HTTP: [Way; 10] = [
    Way::Refuse,
    Way::Silent,
    Way::Reset,
    Way::Garbage,
    Way::Unauthorized,
    Way::Busy,
    Way::Broken,
    Way::Cut,
    Way::Drip,
    Way::Certificate,
];

/// A connection is all that syslog tells of its receiver.
const SYSLOG: [Way; 6] = [Way::Refuse, Way::Silent, Way::Reset, Way::Cut, Way::Drip, Way::Certificate];

/// Silence and drips cost a minute for each try of a mail: they are for the long form.
const MAIL: [Way; 8] =
    [Way::Refuse, Way::Reset, Way::Garbage, Way::Unauthorized, Way::Busy, Way::Broken, Way::Cut, Way::Certificate];

/// In the short form webhooks in every way, the others in those that are theirs alone or that they handle themselves.
const SHORT: [(Kind, &[Way]); 5] = [
    (Kind::Webhook, &HTTP),
    (Kind::Splunk, &[Way::Unauthorized, Way::Busy, Way::Cut, Way::Unacknowledged]),
    (Kind::Elasticsearch, &[Way::Refuse, Way::Busy, Way::Cut, Way::BusyItems]),
    (Kind::Syslog, &[Way::Refuse, Way::Silent, Way::Reset, Way::Cut, Way::Certificate]),
    (Kind::Mail, &[Way::Unauthorized, Way::Busy, Way::Cut, Way::Certificate]),
];

fn trials(scale: &Scale) -> Vec<(Kind, Way)> {
    if !scale.long {
        return SHORT.iter().flat_map(|(kind, ways)| ways.iter().map(|way| (*kind, *way))).collect();
    }
    let http = [Kind::Webhook, Kind::Splunk, Kind::Elasticsearch];
    let mut all: Vec<_> = http.into_iter().flat_map(|kind| HTTP.map(|way| (kind, way))).collect();
    all.extend([(Kind::Splunk, Way::Unacknowledged), (Kind::Elasticsearch, Way::BusyItems)]);
    all.extend(SYSLOG.map(|way| (Kind::Syslog, way)));
    all.extend(MAIL.into_iter().chain([Way::Silent, Way::Drip]).map(|way| (Kind::Mail, way)));
    all
}

const REFUSED_TRIES: u32 = 2;

/// Notices of new alerts about commands in pods, as receivers know them, that the file output has.
fn wanted(daemon: &Daemon) -> BTreeSet<String> {
    let alerts = daemon.alerts();
    let loud = alerts.iter().filter(|a| a["rule"]["id"] == "exec-into-pod" && a["status"] == "new");
    loud.map(|alert| format!("{}.new", alert["id"].as_str().unwrap())).collect()
}

/// A daemon with the file output and this receiver, and some alerts.
fn trial(kind: Kind, way: Way, kills: usize, row: &mut Row) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let (receiver, ledger) = (Receiver::new(kind, way, dir.path()), Ledger::default());
    std::fs::write(dir.path().join("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let output = format!(
        "  - {{ name: hook, {}, minLevel: low, retry: {{ maxWaitSeconds: 1, refusedTries: {REFUSED_TRIES} }} }}\n",
        receiver.settings()
    );
    let mut daemon = Daemon::prepare(dir.path(), &output);
    daemon.run();
    let asked = Instant::now();
    for _ in 0..10 {
        ledger.deliver(daemon.webhook, 5, crate::daemon::PATIENCE);
    }
    until("the file output", || (told(&daemon.alerts()).len() == 10).then_some(()));
    let beside = asked.elapsed();
    let wanted = wanted(&daemon);
    let failed = |d: &Daemon| d.metric("lapwing_output_deliveries_total{outcome=\"retry\",output=\"hook\"}");
    let delivered = |d: &Daemon| d.metric("lapwing_output_deliveries_total{outcome=\"delivered\",output=\"hook\"}");
    // More often than a refusal for good is tried: what passes by itself must not count as one. Syslog, which gets no
    // answer, may believe that all is well; a mail is given a minute.
    until("failed deliveries", || {
        let enough = match (kind, way) {
            (Kind::Mail, Way::Silent | Way::Drip) => failed(&daemon) >= 1.0,
            (Kind::Syslog, Way::Silent | Way::Reset | Way::Cut | Way::Drip) if delivered(&daemon) >= 10.0 => true,
            _ => failed(&daemon) > f64::from(REFUSED_TRIES),
        };
        enough.then_some(())
    });
    for _ in 0..kills {
        daemon.kill();
        daemon.run();
    }
    let healed = Instant::now();
    receiver.heal();
    let got = || {
        let mut got: BTreeMap<String, usize> = BTreeMap::new();
        receiver.got().into_iter().filter(|id| wanted.contains(id)).for_each(|id| *got.entry(id).or_default() += 1);
        got
    };
    let all = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until(&format!("every alert at the receiver of {kind:?}, {way:?}"), || (got().len() == 10).then_some(()));
    }));
    if all.is_err() {
        row.lost += 10 - got().len();
        row.wrong.push(format!("{} of 10 alerts came at the receiver", got().len()));
    }
    row.recovery.push(healed.elapsed());
    row.duplicates += got().values().map(|times| times - 1).sum::<usize>();
    judge(&mut daemon, &ledger, row);
    if std::fs::exists(dir.path().join("data/outputs/hook.dead.ndjson")).unwrap() {
        row.wrong.push("dead letters were made".into());
    }
    row.trials += 1;
    beside
}

/// All of these trials, a few at once: they mostly wait.
fn all(trials: &[(Kind, Way)], kills: usize) -> (Row, Duration) {
    let (next, found) = (AtomicUsize::new(0), Mutex::new((Row::default(), Duration::ZERO)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((kind, way)) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut row = Row::default();
                    let beside = trial(*kind, *way, kills, &mut row);
                    row.wrong.iter_mut().for_each(|wrong| *wrong = format!("{kind:?}, {way:?}: {wrong}"));
                    let mut found = found.lock().unwrap();
                    found.0.add(row);
                    found.1 = found.1.max(beside);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// `webhook 10, splunk 4`: how many ways each kind had.
fn counts(trials: &[(Kind, Way)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    trials.iter().for_each(|(kind, _)| *counts.entry(kind.word()).or_default() += 1);
    counts.iter().map(|(kind, ways)| format!("{kind} {ways}")).collect::<Vec<_>>().join(", ")
}

pub fn in_many_ways(scale: &Scale) -> Row {
    let trials = trials(scale);
    let (mut row, mut beside) = (Row::default(), Duration::ZERO);
    for _ in 0..scale.of(1, 3) {
        let (found, worst) = all(&trials, 0);
        row.add(found);
        beside = beside.max(worst);
    }
    row.note = format!(
        "ways: {}; the output beside it had all within {:.2} s at worst",
        counts(&trials),
        beside.as_secs_f64()
    );
    row
}

pub fn down_and_killed(scale: &Scale) -> Row {
    let mut trials = vec![(Kind::Webhook, Way::Refuse), (Kind::Webhook, Way::Cut), (Kind::Syslog, Way::Refuse)];
    trials.extend([(Kind::Splunk, Way::Unacknowledged), (Kind::Elasticsearch, Way::Cut), (Kind::Mail, Way::Cut)]);
    if scale.long {
        trials.extend([Kind::Splunk, Kind::Elasticsearch, Kind::Mail].map(|kind| (kind, Way::Refuse)));
    }
    let kills = scale.of(3, 10);
    let (mut row, _) = all(&trials, kills);
    row.trials *= kills;
    row.note = format!("ways: {}", counts(&trials));
    row
}
