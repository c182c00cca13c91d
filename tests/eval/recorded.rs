//! Recordings of a real API server, stretched over three weeks, with changes nobody announces and attack windows
//! placed at random.
//!
//! The recordings are minutes of scripted work: one second of them becomes about an hour. Two thirds are for learning,
//! a sixth for calibration, the last sixth is judged. Of an attack window only the attacker's own requests count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::DateTime;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::stream::{DAY, Event, Mark, START, Stream, stamp};

const DAYS: i64 = 21;
const CALIBRATION: i64 = 14 * DAY;
const TEST: i64 = 17 * DAY + DAY / 2;

/// What a folder holds: benign recordings in order, and attack windows.
#[derive(Clone, Debug)]
pub struct Corpus {
    benign: Vec<Vec<Value>>,
    attacks: Vec<(String, Vec<Value>)>,
}

fn unpacked(path: &Path) -> anyhow::Result<Vec<Value>> {
    let name = || format!("cannot read `{}`", path.display());
    let text = zstd::stream::decode_all(fs::File::open(path).with_context(name)?).with_context(name)?;
    let events = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(serde_json::from_slice);
    events.collect::<Result<_, _>>().with_context(name)
}

fn entries(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = fs::read_dir(dir).with_context(|| format!("cannot read `{}`", dir.display()))?;
    let mut paths = list.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

impl Corpus {
    /// Reads `benign/*.zst`, oldest first, and below `attack` every folder with `events.jsonl.zst`, of which
    /// `labels.json`, where there is one, names the `malicious` audit ids.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let mut benign = Vec::new();
        for path in entries(&dir.join("benign"))? {
            benign.push(unpacked(&path)?);
        }
        // A cluster's bring-up is no ordinary work.
        benign.retain(|b| b.len() > 5000);
        benign.sort_by_key(|b| b.iter().filter_map(time).min());
        let mut attacks = Vec::new();
        gather(&dir.join("attack"), &mut attacks)?;
        anyhow::ensure!(!benign.is_empty() && !attacks.is_empty(), "no recordings in `{}`", dir.display());
        Ok(Self { benign, attacks })
    }
}

fn gather(dir: &Path, attacks: &mut Vec<(String, Vec<Value>)>) -> anyhow::Result<()> {
    for path in entries(dir)? {
        let events = path.join("events.jsonl.zst");
        if !events.exists() {
            if path.is_dir() {
                gather(&path, attacks)?;
            }
            continue;
        }
        let mut events = unpacked(&events)?;
        if let Ok(labels) = fs::read(path.join("labels.json")) {
            let labels: Value = serde_json::from_slice(&labels)?;
            let of: BTreeSet<&str> =
                labels["malicious"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            events.retain(|e| e["auditID"].as_str().is_some_and(|id| of.contains(id)));
        }
        let kind = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if !events.is_empty() {
            attacks.push((kind, events));
        }
    }
    Ok(())
}

fn time(event: &Value) -> Option<i64> {
    let text = event["stageTimestamp"].as_str()?;
    DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_micros())
}

fn place(event: &mut Value, time: i64) {
    let at = json!(stamp(time));
    event["requestReceivedTimestamp"] = at.clone();
    event["stageTimestamp"] = at;
}

/// Changes of the judged days, each from its own time on.
struct Drift {
    changes: Vec<(i64, Change)>,
}

enum Change {
    /// Every client of this minor version is upgraded.
    Upgrade(u32),
    /// Half of what somebody does is done by somebody new.
    Newcomer(String, String),
    /// Two people of one team swap their jobs.
    Swap(String, String),
    /// A network of people gets another range.
    Range(String, String),
    /// A namespace is moved.
    Namespace(String, String),
    /// A service account is renamed.
    Account(String, String),
}

impl Drift {
    fn none() -> Self {
        Self { changes: Vec::new() }
    }

    /// Chosen at random among what the recordings hold.
    fn random(corpus: &Corpus, rng: &mut ChaCha8Rng) -> Self {
        let events = || corpus.benign.iter().flatten();
        let users: BTreeSet<&str> = events().filter_map(|e| e["user"]["username"].as_str()).collect();
        let mut people: Vec<&str> =
            users.iter().copied().filter(|u| !u.starts_with("system:") && u.contains('@')).collect();
        let accounts: Vec<&str> = users
            .iter()
            .copied()
            .filter(|u| u.starts_with("system:serviceaccount:") && !u.contains(":kube-system:"))
            .collect();
        let spaces: BTreeSet<&str> = events()
            .filter(|e| !e["user"]["username"].as_str().unwrap_or_default().starts_with("system:"))
            .filter_map(|e| e["objectRef"]["namespace"].as_str())
            .filter(|n| !n.starts_with("kube-"))
            .collect();
        let spaces: Vec<&str> = spaces.into_iter().collect();
        let home = |person: &str| {
            let address = events().find(|e| e["user"]["username"] == person)?["sourceIPs"][0].as_str()?.to_owned();
            let end = address.match_indices('.').nth(1)?.0;
            Some(address[..=end].to_owned())
        };
        people.shuffle(rng);
        let team = |person: &str| {
            events().find(|e| e["user"]["username"] == person).and_then(|e| e["user"]["groups"][0].as_str())
        };
        let same = |(i, a): (usize, &&str)| {
            let other = people[i + 1..].iter().find(|b| team(a).is_some() && team(a) == team(b));
            other.map(|b| Change::Swap((*a).into(), (*b).into()))
        };
        let swap = people.iter().enumerate().find_map(same);
        let mut changes = vec![Change::Upgrade(32)];
        changes.extend(swap);
        if let [a, ..] = people[..] {
            changes.push(Change::Newcomer(a.into(), "kim@corp.example".into()));
            changes.extend(home(a).map(|range| Change::Range(range, "172.28.".into())));
        }
        for space in spaces.choose_multiple(rng, 2) {
            changes.push(Change::Namespace((*space).into(), format!("{space}-blue")));
        }
        changes.extend(accounts.choose(rng).map(|a| Change::Account((*a).into(), format!("{a}-next"))));
        let changes = changes.into_iter().map(|c| (rng.random_range(TEST..DAYS * DAY - DAY), c));
        Self { changes: changes.collect() }
    }

    fn apply(&self, event: &mut Value, at: i64, rng: &mut ChaCha8Rng) {
        for (_, change) in self.changes.iter().filter(|(from, _)| at >= *from) {
            match change {
                Change::Upgrade(minor) => {
                    replace(&mut event["userAgent"], &format!("v1.{minor}."), &format!("v1.{}.", minor + 1))
                }
                Change::Newcomer(old, new) if event["user"]["username"] == *old && rng.random_bool(0.5) => {
                    event["user"]["username"] = json!(new);
                }
                Change::Swap(a, b) => {
                    let other = match event["user"]["username"].as_str() {
                        Some(u) if u == a => b,
                        Some(u) if u == b => a,
                        _ => continue,
                    };
                    event["user"]["username"] = json!(other);
                }
                Change::Range(old, new) => {
                    event["sourceIPs"].as_array_mut().into_iter().flatten().for_each(|ip| {
                        if ip.as_str().is_some_and(|ip| ip.starts_with(old.as_str())) {
                            replace(ip, old, new);
                        }
                    });
                }
                Change::Namespace(old, new) if event["objectRef"]["namespace"] == *old => {
                    event["objectRef"]["namespace"] = json!(new);
                    replace(&mut event["requestURI"], &format!("/{old}/"), &format!("/{new}/"));
                }
                Change::Account(old, new) if event["user"]["username"] == *old => {
                    event["user"]["username"] = json!(new);
                }
                _ => {}
            }
        }
    }
}

fn replace(text: &mut Value, old: &str, new: &str) {
    if let Some(now) = text.as_str().filter(|t| t.contains(old)).map(|t| t.replacen(old, new, 1)) {
        *text = json!(now);
    }
}

/// The corpus as three weeks: every attack window once, at a random time of the judged days.
pub fn stretched(corpus: &Corpus, seed: u64, drifts: bool) -> Stream {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drift = if drifts { Drift::random(corpus, &mut rng) } else { Drift::none() };
    let spans: Vec<(i64, i64)> = corpus.benign.iter().map(|b| span(b)).collect();
    let all: i64 = spans.iter().map(|(from, to)| to - from).sum();
    let factor = (DAYS * DAY) as f64 / all as f64;
    let mut stream = Stream { calibration: (CALIBRATION, TEST), test: (TEST, DAYS * DAY), ..Stream::default() };
    let mut before = 0;
    for (recording, (from, to)) in corpus.benign.iter().zip(&spans) {
        for event in recording {
            let Some(real) = time(event) else { continue };
            let at = ((before + real - from) as f64 * factor) as i64;
            let mut event = event.clone();
            drift.apply(&mut event, at, &mut rng);
            place(&mut event, START + at);
            stream.events.push(Event { time: START + at, text: event.to_string(), mark: Mark::Benign });
        }
        before += to - from;
    }
    for (kind, window) in &corpus.attacks {
        let mark = stream.run(kind);
        let (from, to) = span(window);
        let start = rng.random_range(TEST..DAYS * DAY - (to - from).min(DAY));
        for event in window {
            let Some(real) = time(event) else { continue };
            let mut event = event.clone();
            let at = START + start + real - from;
            place(&mut event, at);
            stream.events.push(Event { time: at, text: event.to_string(), mark });
        }
    }
    stream.sort();
    stream
}

/// First and last time of some events.
fn span(events: &[Value]) -> (i64, i64) {
    let times = || events.iter().filter_map(time);
    (times().min().unwrap_or_default(), times().max().unwrap_or_default())
}
