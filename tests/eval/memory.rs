//! What baselines take: a million identities against the byte budget, their return, and a restart.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lapwing_engine::baseline::{Baselines, Options, Shelf, ShelfPlace, Snapshot};
use lapwing_engine::event::Event;
use lapwing_engine::facts::Facts;

use crate::methods::CLUSTER;
use crate::stream::{DAY, HOUR, Request, START};

/// Identities that come back after all others have come.
const BACK: u32 = 20_000;

/// Records one after the other in files of 32 MiB, as the service has them but for their durability.
#[derive(Clone, Debug)]
struct Records {
    files: Vec<Arc<File>>,
    dir: Arc<tempfile::TempDir>,
    end: u64,
}

impl Records {
    const SEGMENT: u64 = 32 << 20;

    fn new() -> anyhow::Result<Self> {
        Ok(Self { files: Vec::new(), dir: Arc::new(tempfile::tempdir()?), end: Self::SEGMENT })
    }
}

fn create(dir: &Path, segment: usize) -> Option<Arc<File>> {
    File::options().read(true).write(true).create_new(true).open(dir.join(segment.to_string())).ok().map(Arc::new)
}

impl Shelf for Records {
    fn put(&mut self, record: &[u8]) -> Option<ShelfPlace> {
        if self.end >= Self::SEGMENT {
            self.files.push(create(self.dir.path(), self.files.len())?);
            self.end = 0;
        }
        let (file, offset) = (self.files.last()?, self.end);
        file.write_all_at(record, offset).ok()?;
        self.end += record.len() as u64;
        Some(ShelfPlace { segment: self.files.len() as u32 - 1, offset: offset as u32, len: record.len() as u32 })
    }

    fn get(&self, place: ShelfPlace) -> Option<Vec<u8>> {
        let mut record = vec![0; place.len as usize];
        self.files.get(place.segment as usize)?.read_exact_at(&mut record, u64::from(place.offset)).ok()?;
        Some(record)
    }

    fn full(&self) -> Vec<(u32, u64)> {
        (0..self.files.len().saturating_sub(1) as u32).map(|segment| (segment, Self::SEGMENT)).collect()
    }
}

/// Feeds `identities` workloads of a large installation: forty to a namespace, each with its own settings and secret, a
/// few shared clients, some of them busy.
fn feed(baselines: &mut Baselines, identities: std::ops::Range<u32>, later: i64) -> anyhow::Result<()> {
    const HABITS: [(&str, &str); 6] = [
        ("get", "configmaps"),
        ("list", "pods"),
        ("get", "secrets"),
        ("watch", "endpointslices"),
        ("update", "leases"),
        ("create", "events"),
    ];
    for i in identities {
        let namespace = format!("team-{}", word(i / 40));
        let user = format!("system:serviceaccount:{namespace}:app-{}", word(i));
        let group = format!("system:serviceaccounts:{namespace}");
        let agent = ["app/v1.2 (linux/amd64)", "OpenAPI-Generator/28.1.0/python", "fabric8-kubernetes-client/6.9"]
            [i as usize % 3];
        let many = if i % 10 == 0 { HABITS.len() } else { 2 + i as usize % 3 };
        for (n, (verb, resource)) in HABITS.iter().take(many).enumerate() {
            let address = format!("10.{}.{}.{}", 64 + i % 16, i / 16 % 250, 2 + i % 250);
            let name = format!("{}-{resource}", word(i));
            let (user, group, namespace, address) = (&*user, &*group, &*namespace, &*address);
            let request = Request { user, group, verb, resource, namespace, name: &name, agent, address, code: 200 };
            let at = START + later + i64::from(i) * (HOUR / 1000) + n as i64;
            let text = request.text(at, i as usize * 8 + n);
            let event = Event::parse(&text)?;
            baselines.observe(&Facts::new(&event, &text, CLUSTER), at, &[]);
        }
    }
    Ok(())
}

/// A number in letters: digits would look like the number of a run.
fn word(i: u32) -> String {
    i.to_string().bytes().map(|d| char::from(d - b'0' + b'a')).collect()
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).and_then(|l| l.split_whitespace().nth(1));
    line.and_then(|kb| kb.parse::<usize>().ok()).unwrap_or_default() * 1024
}

pub fn run(identities: u32) -> anyhow::Result<()> {
    let before = resident();
    let (options, records) = (Options::default(), Records::new()?);
    let mut baselines = Baselines::new(options);
    baselines.shelve(Box::new(records.clone()));
    let (mut fullest, mut resident_most) = (0, 0);
    let mut all = |baselines: &mut Baselines, some: std::ops::Range<u32>, later: i64| -> anyhow::Result<()> {
        for i in some.step_by(1000) {
            feed(baselines, i..(i + 1000).min(identities), later)?;
            fullest = fullest.max(baselines.counts().bytes);
            resident_most = resident_most.max(resident() - before);
        }
        Ok(())
    };
    all(&mut baselines, 0..identities, 0)?;
    // Those seen first come back, a day after the last: nobody is new.
    let later = i64::from(identities) * (HOUR / 1000) + DAY;
    all(&mut baselines, 0..BACK.min(identities), later)?;
    let counts = baselines.counts();
    anyhow::ensure!(
        (counts.principals, counts.evicted, counts.lost) == (u64::from(identities), 0, 0),
        "an identity is gone: {counts:?}"
    );
    anyhow::ensure!(fullest <= options.max_bytes as u64, "the budget was exceeded: {fullest}");
    let here = counts.principals - counts.shelved;
    println!("{identities} identities, budget {} MiB: none forgotten", options.max_bytes >> 20);
    println!(
        "in memory {here}, on disk {} with {} bytes each",
        counts.shelved,
        per(counts.shelved_bytes, counts.shelved)
    );
    println!("most memory by its own account {} MiB, as the system sees it {} MiB", fullest >> 20, resident_most >> 20);

    let started = Instant::now();
    let json = serde_json::to_vec(&baselines)?;
    let took = started.elapsed();
    let started = Instant::now();
    let stored: Snapshot = serde_json::from_slice(&json)?;
    let mut again = Baselines::restore(options, stored);
    again.shelve(Box::new(records));
    println!(
        "restart: snapshot of {} MB in {} ms, back in {} ms",
        json.len() / 1_000_000,
        took.as_millis(),
        started.elapsed().as_millis()
    );
    anyhow::ensure!(serde_json::to_vec(&again)? == json, "a restored memory differs from the one that was stored");
    drop((baselines, json));
    feed(&mut again, 0..BACK.min(identities), later + DAY)?;
    let counts = again.counts();
    anyhow::ensure!(
        (counts.principals, counts.evicted, counts.lost) == (u64::from(identities), 0, 0),
        "an identity is gone after the restart: {counts:?}"
    );
    // In a process of its own: what this one has used and given back would hide it.
    let each = std::process::Command::new(std::env::current_exe()?).args(["memory", "300000", "--each"]).status()?;
    anyhow::ensure!(each.success(), "the identities in memory could not be measured");
    Ok(())
}

/// How much an identity takes that is in memory, by the account and as the system sees it.
pub fn each(identities: u32) -> anyhow::Result<()> {
    let before = resident();
    let mut baselines = Baselines::new(Options { max_bytes: usize::MAX, ..Options::default() });
    for i in (0..identities).step_by(1000) {
        feed(&mut baselines, i..(i + 1000).min(identities), 0)?;
    }
    let counts = baselines.counts();
    println!(
        "{identities} in memory: {} bytes each by its own account, {} as the system sees it",
        per(counts.bytes, counts.principals),
        per((resident() - before) as u64, counts.principals)
    );
    Ok(())
}

fn per(bytes: u64, of: u64) -> u64 {
    bytes / of.max(1)
}
