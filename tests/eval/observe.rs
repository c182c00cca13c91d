//! Streams as text, and the scorer's view of them.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use lapwing_engine::baseline::{Baselines, Observation, Options};
use lapwing_engine::event::Event;
use lapwing_engine::facts::Facts;
use serde_json::{Value, json};

use crate::methods::{CLUSTER, FIXED};
use crate::stream::{Mark, Stream};

/// Prints the events, each with its mark as an annotation.
pub fn print(stream: &Stream) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for event in &stream.events {
        let mark = match event.mark {
            Mark::Benign => String::new(),
            Mark::Attack(run) => format!("{run} {}", stream.runs[run]),
            Mark::Setup => "setup".into(),
        };
        let mut value: Value = serde_json::from_str(&event.text)?;
        value["evaluation"] = json!(mark);
        writeln!(out, "{value}")?;
    }
    Ok(out.flush()?)
}

/// Prints what the scorer sees and says of the events of some files: plain or compressed JSON lines.
pub fn run(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut baselines = Baselines::new(Options { fixed: Some(FIXED), ..Options::default() });
    let mut now = i64::MIN;
    for path in files {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
        let packed = path.extension().is_some_and(|e| e == "zst");
        let reader: Box<dyn std::io::Read> =
            if packed { Box::new(zstd::stream::read::Decoder::new(file)?) } else { Box::new(file) };
        for line in BufReader::new(reader).lines() {
            let line = line?;
            if let Some(seen) = observed(&line, &mut baselines, &mut now)? {
                writeln!(out, "{seen}")?;
            }
        }
    }
    Ok(out.flush()?)
}

/// The observation of an event and its scores; nothing for one that is not scored.
pub fn observed(line: &str, baselines: &mut Baselines, now: &mut i64) -> anyhow::Result<Option<Value>> {
    let event = Event::parse(line)?;
    let facts = Facts::new(&event, line, CLUSTER);
    *now = (*now).max(event.time().unwrap_or(*now));
    baselines.observe(&facts, *now, &[]);
    let mut o = Observation::default();
    if !o.fill(&facts) {
        return Ok(None);
    }
    let scored = baselines.last();
    Ok(Some(json!({
        "id": event.audit_id.as_str(), "time": o.time, "key": o.key(), "principal": o.principal(),
        "class": o.class.as_str(), "group": o.group(), "action": o.action_text(), "verb": o.verb(),
        "resource": o.resource(), "namespace": o.namespace(), "kind": o.object_kind(), "object": o.object_text(),
        "sensitive": o.sensitive, "client": o.client(), "version": o.version(), "network": o.network(),
        "subnet": o.subnet(), "private": o.private, "denied": o.denied, "reads": o.reads, "slot": o.slot(),
        "tokens": o.tokens().collect::<Vec<&str>>(),
        "surprise": scored.surprise, "risk": scored.risk, "repeated": scored.repeated,
        "over": scored.over,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four weeks of some twenty identities and the scores `reference.py` gives them. To record them again:
    /// `lapwing-eval simulate 7 | grep -Ef tests/eval/testdata/identities | zstd -19 > …/events.jsonl.zst`,
    /// `lapwing-eval observe …/events.jsonl.zst | tests/eval/reference.py --scores | zstd -19 > …/scores.jsonl.zst`.
    #[test]
    fn every_event_has_the_score_of_the_reference() {
        let text = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
            let file = std::fs::File::open(path).expect(name);
            String::from_utf8(zstd::stream::decode_all(file).expect(name)).expect(name)
        };
        let (events, scores) = (text("events.jsonl.zst"), text("scores.jsonl.zst"));
        let mut baselines = Baselines::new(Options { fixed: Some(FIXED), ..Options::default() });
        let (mut now, mut surprising) = (i64::MIN, 0);
        let seen = events.lines().filter_map(|l| observed(l, &mut baselines, &mut now).expect("an event"));
        let mut scores = scores.lines();
        for (i, seen) in seen.enumerate() {
            let score: Value = serde_json::from_str(scores.next().expect("a score for each event")).expect("a score");
            for kind in ["surprise", "risk"] {
                let (ours, theirs) = (seen[kind].as_f64().expect(kind), score[kind].as_f64().expect(kind));
                assert!((ours - theirs).abs() <= 0.05, "{kind} of event {i}: {ours}, reference {theirs}: {seen}");
            }
            surprising += usize::from(seen["surprise"].as_f64() > Some(6.0));
        }
        assert_eq!(scores.next(), None);
        assert!(surprising > 20, "{surprising} surprising events: too tame to prove anything");
    }
}
