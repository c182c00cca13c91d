//! What baselines take: a million identities against the byte budget, and a restart.

use std::time::Instant;

use lapwing_engine::baseline::{Baselines, Options, Snapshot};
use lapwing_engine::event::Event;
use lapwing_engine::facts::Facts;

use crate::methods::CLUSTER;
use crate::stream::{HOUR, Request, START};

/// Identities whose memory is brought through a restart.
const RESTARTED: u32 = 20_000;

/// Feeds `identities` workloads of a large installation: forty to a namespace, each with its own settings and secret, a
/// few shared clients, some of them busy.
fn feed(baselines: &mut Baselines, identities: std::ops::Range<u32>) -> anyhow::Result<()> {
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
            let at = START + i64::from(i) * (HOUR / 1000) + n as i64;
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
    let mut small = Baselines::new(Options::default());
    feed(&mut small, 0..RESTARTED)?;
    let json = serde_json::to_vec(&small.snapshot())?;
    let started = Instant::now();
    let stored: Snapshot = serde_json::from_slice(&json)?;
    let again = Baselines::restore(Options::default(), stored);
    let took = started.elapsed();
    let same = serde_json::to_vec(&again.snapshot())? == json;
    anyhow::ensure!(same, "a restored memory differs from the one that was stored");
    println!(
        "restart: {RESTARTED} identities come back the same, {} bytes each as JSON, {} ms",
        json.len() / RESTARTED as usize,
        took.as_millis()
    );
    drop((small, again, json));

    let options = Options::default();
    let mut baselines = Baselines::new(options);
    let mut fullest = 0;
    for some in 0..identities.div_ceil(1000) {
        feed(&mut baselines, some * 1000..(some * 1000 + 1000).min(identities))?;
        fullest = fullest.max(baselines.counts().bytes);
    }
    let counts = baselines.counts();
    anyhow::ensure!(
        counts.principals + counts.evicted == u64::from(identities),
        "an identity is neither there nor forgotten"
    );
    anyhow::ensure!(fullest <= options.max_bytes as u64, "the budget was exceeded: {fullest}");
    println!("{identities} identities, budget {} MiB", options.max_bytes >> 20);
    println!("kept {}, forgotten {}", counts.principals, counts.evicted);
    println!(
        "{} bytes each by its own account, never more than {} MiB",
        counts.bytes / counts.principals,
        fullest >> 20
    );
    println!("{} bytes each as the system sees it", (resident() - before) / counts.principals as usize);
    Ok(())
}
