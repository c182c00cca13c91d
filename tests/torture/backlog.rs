//! How long nobody answers after a kill, whatever there is still to judge.

use std::path::Path;
use std::time::{Duration, Instant};

use lapwing::journal::{Journal, Lsn, Options};
use lapwing::pipeline::event_record;
use lapwing_engine::batch::{Batch, Item, Origin};

use crate::daemon::{Daemon, PATIENCE};
use crate::judge::stored;
use crate::sender::{Ledger, audit_id, event};
use crate::{Row, Scale};

const PROMISED: Duration = Duration::from_secs(5);
const EVENTS_IN_BATCH: u32 = 400;

/// Fills a journal that nobody has judged.
fn fill(dir: &Path, bytes: u64, ledger: &Ledger) -> Lsn {
    let (journal, _) = Journal::open(dir, Options { sync: false, ..Options::default() }).unwrap();
    while journal.stat().bytes < bytes {
        let group = (0..8).map(|_| {
            let items = ledger.take(EVENTS_IN_BATCH).map(|n| Item::Event(event(n))).collect();
            let batch =
                Batch { cluster: "prod".into(), origin: Origin::Webhook, received: 1_763_632_800_000_000, items };
            (event_record::BATCH, batch.encode())
        });
        journal.append_all_blocking(group.collect()).unwrap();
    }
    let last = journal.durable();
    journal.close();
    last
}

pub fn outage(scale: &Scale) -> Row {
    let (mut row, ledger) = (Row::default(), Ledger::default());
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::prepare(dir.path(), "");
    let (data, mib) = (Path::new(&daemon.data_dir()).to_owned(), scale.of(100, 4096) as u64);
    std::fs::create_dir(&data).unwrap();
    let last = fill(&data.join("journal"), mib << 20, &ledger);
    for _ in 0..scale.of(5, 30) {
        let started = Instant::now();
        daemon.spawn();
        ledger.deliver(daemon.webhook, 5, PATIENCE);
        row.recovery.push(started.elapsed());
        row.trials += 1;
        daemon.kill();
    }
    let slow = row.recovery.iter().filter(|time| **time > PROMISED).count();
    if slow * 100 > row.trials {
        row.wrong.push(format!("{slow} of {} restarts took longer than {PROMISED:?}", row.trials));
    }
    let acked = ledger.acked.lock().unwrap().clone();
    let stored = stored(&data, last);
    row.checked = acked.len();
    row.lost = acked.iter().filter(|n| !stored.contains(&audit_id(**n))).count();
    row.note = format!("{mib} MiB not judged; recovery: from the start to the first answer");
    row
}
