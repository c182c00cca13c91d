//! What baselines cost a CPU beside the rules: the same stream through the engine with and without them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapwing_engine::baseline;
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::rule::set::RuleSet;

use crate::methods::CLUSTER;
use crate::stream::{Event, Mark, Stream};

const ROUNDS: usize = 9;

/// Time this process has been on a CPU, nanoseconds.
fn cpu() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

/// The stream of `cargo bench --bench scan`: every recorded attack once, and the working day again and again.
pub fn bench_stream(fixtures: &Path) -> anyhow::Result<Stream> {
    const EVENTS: usize = 50_000;
    let unpacked = |path: PathBuf| -> anyhow::Result<Vec<String>> {
        let text = String::from_utf8(zstd::stream::decode_all(std::fs::File::open(&path)?)?)?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let mut attacks: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(fixtures.join("attacks"))? {
        attacks.push(entry?.path().join("events.jsonl.zst"));
    }
    attacks.sort();
    let mut lines = Vec::new();
    for path in attacks {
        lines.extend(unpacked(path)?);
    }
    let day = unpacked(fixtures.join("benign/working-day.jsonl.zst"))?;
    for n in 0..EVENTS.saturating_sub(lines.len()).div_ceil(day.len()) {
        let id = format!("\"auditID\":\"{n}");
        lines.extend(day.iter().map(|line| line.replace("\"auditID\":\"", &id)));
    }
    let mut stream = Stream::default();
    let mut time = 0;
    for text in lines {
        time = lapwing_engine::event::Event::parse(&text)?.time().map_or(time, |t| t.max(time));
        stream.events.push(Event { time, text, mark: Mark::Benign });
    }
    Ok(stream)
}

/// Prints medians of interleaved rounds.
pub fn run(name: &str, stream: &Stream, rules: &Arc<RuleSet>) -> anyhow::Result<()> {
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (taken, baseline) in taken.iter_mut().zip([None, Some(baseline::Options::default())]) {
            let mut engine = Engine::new(Arc::clone(rules), Options { brief: true, baseline, ..Options::default() });
            let before = cpu()?;
            for event in &stream.events {
                let mut out = Output::default();
                engine.event(CLUSTER, &event.text, event.time, &String::new, &mut out)?;
                engine.tick(event.time, &mut out);
            }
            taken.push((cpu()? - before) as f64 / 1000.0 / stream.events.len() as f64);
        }
    }
    let [without, with] = taken.map(|mut t: Vec<f64>| {
        t.sort_by(f64::total_cmp);
        t[ROUNDS / 2]
    });
    println!("{name}: rules {without:.2} µs an event, with baselines {with:.2}: {:.2} more", with - without);
    Ok(())
}
