//! What baselines cost a CPU beside the rules: the same stream through the engine with and without them.

use std::sync::Arc;

use lapwing_engine::baseline;
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::rule::set::RuleSet;

use crate::methods::CLUSTER;
use crate::stream::Stream;

const ROUNDS: usize = 5;

/// Time this process has been on a CPU, nanoseconds.
fn cpu() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
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
