//! What a durable append costs: latency and throughput of 400 kB batches, alone and from several senders at once,
//! and the same without `fdatasync`. `cargo bench --bench journal -- DIR` writes to DIR (default: the temporary
//! directory), which should be on the disk that is to be judged. Reading back and one lookup are measured too.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lapwing::journal::{Journal, Lsn, Options, open_read_only};

const BATCH: usize = 400_000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let parent = std::env::args().nth(1).filter(|a| !a.starts_with('-')).map_or_else(std::env::temp_dir, PathBuf::from);
    println!("senders  sync    p50 ms   p99 ms   max ms     MB/s  mean sync ms  stored/raw");
    for (senders, sync) in [(1, true), (4, true), (16, true), (1, false), (4, false)] {
        appends(&parent, senders, sync, 400)?;
    }
    Ok(())
}

fn appends(parent: &std::path::Path, senders: usize, sync: bool, batches: usize) -> Result<()> {
    let dir = tempfile::tempdir_in(parent)?;
    let (journal, _) = Journal::open(dir.path(), Options { sync, ..Options::default() })?;
    let started = Instant::now();
    let mut latencies = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..senders)
            .map(|s| {
                let journal = &journal;
                scope.spawn(move || send(journal, s, batches / senders))
            })
            .collect();
        senders.into_iter().filter_map(|s| s.join().ok()).flatten().collect::<Vec<_>>()
    });
    let took = started.elapsed();
    latencies.sort_unstable();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let at = |p: f64| ms(latencies[((latencies.len() - 1) as f64 * p) as usize]);
    let (stat, raw) = (journal.stat(), (latencies.len() * BATCH) as f64);
    println!(
        "{senders:7}  {sync:5} {:8.1} {:8.1} {:8.1} {:8.1} {:13.1} {:11.2}",
        at(0.5),
        at(0.99),
        at(1.0),
        raw / took.as_secs_f64() / 1e6,
        ms(stat.sync_time) / stat.syncs.max(1) as f64,
        stat.bytes as f64 / raw,
    );
    if (senders, sync) == (1, true) {
        read(&journal, dir.path(), raw)?;
    }
    Ok(())
}

fn send(journal: &Journal, sender: usize, batches: usize) -> Vec<Duration> {
    let mut took = Vec::with_capacity(batches);
    for n in 0..batches {
        let batch = batch((sender * batches + n) as u64);
        let started = Instant::now();
        if let Err(e) = journal.append_blocking(0, batch) {
            eprintln!("{e}");
            break;
        }
        took.push(started.elapsed());
    }
    took
}

fn read(journal: &Journal, dir: &std::path::Path, raw: f64) -> Result<()> {
    let started = Instant::now();
    let (mut reader, mut n) = (journal.reader(Lsn(0)), 0);
    while reader.next()?.is_some() {
        n += 1;
    }
    println!("         read back {n} records: {:.0} MB/s", raw / started.elapsed().as_secs_f64() / 1e6);
    let started = Instant::now();
    for lsn in (1..=n).step_by(7) {
        open_read_only(dir)?.get(Lsn(lsn))?;
    }
    println!("         get: {:.2} ms", started.elapsed().as_secs_f64() * 1e3 / (n as f64 / 7.0));
    Ok(())
}

/// Text shaped like audit events: constant keys, identifiers that differ.
fn batch(seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(BATCH + 2048);
    let mut random = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    while out.len() < BATCH {
        let mut id = [0; 16];
        random.fill(&mut id);
        let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
        out.extend(
            format!(
                "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"{id}\",\
                 \"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/namespaces/team-{}/pods/web-{}\",\"verb\":\"get\",\
                 \"user\":{{\"username\":\"system:serviceaccount:team-{}:web\",\"uid\":\"{}\",\"groups\":[\"system:serviceaccounts\",\
                 \"system:authenticated\"]}},\"sourceIPs\":[\"10.0.{}.{}\"],\"userAgent\":\"kubectl/v1.34.1 (linux/amd64)\",\
                 \"objectRef\":{{\"resource\":\"pods\",\"namespace\":\"team-{}\",\"name\":\"web-{}\",\"apiVersion\":\"v1\"}},\
                 \"responseStatus\":{{\"metadata\":{{}},\"code\":200}}}}\n",
                &id[..2], &id[2..10], &id[..2], &id[10..], seed % 256, out.len() % 256, &id[..2], &id[2..10],
            )
            .as_bytes(),
        );
    }
    out.truncate(BATCH);
    out
}
