//! Ways to score a stream: Lapwing's, and simpler ones to beat. Each sees the same observation of an event and learns
//! from everything it sees, attacks included.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use lapwing_engine::alert::{Level, Verdict};
use lapwing_engine::baseline::{self, Observation};
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::event::Event;
use lapwing_engine::facts::Facts;
use lapwing_engine::rule::set::{LoadOptions, RuleSet};

use crate::stream::{DAY, Stream};

pub const CLUSTER: &str = "eval";
/// Surprise and risk in bits from which on an alert is worth having whatever the budget; chosen on neither stream.
pub const FIXED: (f32, f32) = (8.0, 10.0);
/// Above every score: a rule spoke.
const CERTAIN: f32 = 1000.0;

/// What one way of looking at it says of each event: the more, the more unusual.
#[derive(Clone, Debug)]
pub struct Lane {
    pub name: &'static str,
    pub scores: Vec<f32>,
    /// The threshold it would ship with, where there is one.
    pub fixed: Option<f32>,
    /// Whether a threshold may be chosen in calibration.
    pub steered: bool,
}

/// Everything measured of a stream.
pub struct Measured {
    pub lanes: Vec<Lane>,
    /// Whom each event is about: the identity, and the address of who has none. `None`: nothing to judge.
    pub who: Vec<Option<u64>>,
}

/// The rules of the repository, with the filters that are on by default.
pub fn rules(dir: &Path) -> anyhow::Result<Arc<RuleSet>> {
    let mut sources = Vec::new();
    gather(dir, &mut sources)?;
    let options = LoadOptions::default();
    let set = RuleSet::load(sources, &options).map_err(|p| anyhow::anyhow!("{} problems in the rules", p.len()))?;
    Ok(Arc::new(set))
}

fn gather(dir: &Path, sources: &mut Vec<(std::path::PathBuf, String)>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read `{}`", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let off = dir.ends_with("filters") && name != "kubeadm.yml";
        if path.is_dir() {
            gather(&path, sources)?;
        } else if name.ends_with(".yml") && !name.ends_with(".test.yml") && !off {
            sources.push((path.clone(), std::fs::read_to_string(&path)?));
        }
    }
    sources.sort();
    Ok(())
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Scores a stream in every way.
pub fn measure(stream: &Stream, rules: &Arc<RuleSet>) -> anyhow::Result<Measured> {
    let mut simple: Vec<(&'static str, Box<dyn Simple>, Option<f32>)> = vec![
        ("first seen, 14 days", Box::new(FirstSeen::default()), Some(1.0)),
        ("histogram (HBOS)", Box::new(Histogram::default()), None),
        ("naive Bayes per identity", Box::new(NaiveBayes::default()), None),
        ("count-min sketch", Box::new(CountMin::new()), None),
    ];
    let mut scores = vec![Vec::with_capacity(stream.events.len()); simple.len()];
    let mut who = Vec::with_capacity(stream.events.len());
    let mut o = Observation::default();
    for labelled in &stream.events {
        let event = Event::parse(&labelled.text)?;
        let facts = Facts::new(&event, &labelled.text, CLUSTER);
        let seen = o.fill(&facts);
        let address = if o.class == baseline::Class::Anonymous { facts.address() } else { "" };
        who.push(seen.then(|| hash((o.owner(), address))));
        for ((_, method, _), scores) in simple.iter_mut().zip(&mut scores) {
            scores.push(if seen { method.score(&o, labelled.time) } else { f32::MIN });
        }
    }
    let lane = |((name, _, fixed), scores)| Lane { name, scores, fixed, steered: true };
    let mut lanes: Vec<Lane> = simple.into_iter().zip(scores).map(lane).collect();
    let (none, _) = RuleSet::load_lenient(Vec::new(), &LoadOptions::default());
    let alone = engine(stream, &Arc::new(none))?;
    let whole = engine(stream, rules)?;
    let zip =
        |a: &[f32], b: &[f32], f: fn(f32, f32) -> f32| a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect::<Vec<f32>>();
    let either = |s: f32, w: f32| (s - FIXED.0).max(w - FIXED.1);
    let with_rules = zip(&whole.surprise, &whole.risk, either);
    lanes.extend([
        Lane { name: "rules", scores: whole.rules.clone(), fixed: Some(CERTAIN), steered: false },
        Lane { name: "surprise (S)", scores: alone.surprise.clone(), fixed: Some(FIXED.0), steered: true },
        Lane { name: "risk (W)", scores: alone.risk.clone(), fixed: Some(FIXED.1), steered: true },
        Lane { name: "S or W", scores: zip(&alone.surprise, &alone.risk, either), fixed: Some(0.0), steered: true },
        Lane {
            name: "rules, S or W",
            scores: zip(&with_rules, &whole.rules, f32::max),
            fixed: Some(0.0),
            steered: false,
        },
        Lane { name: "S or W, thresholds as shipped", scores: alone.over, fixed: Some(0.0), steered: false },
        Lane {
            name: "rules, S or W, as shipped",
            scores: zip(&whole.over, &whole.rules, f32::max),
            fixed: Some(0.0),
            steered: false,
        },
    ]);
    Ok(Measured { lanes, who })
}

#[derive(Default)]
struct Run {
    surprise: Vec<f32>,
    risk: Vec<f32>,
    /// How far the event is above the thresholds of its time, bits.
    over: Vec<f32>,
    rules: Vec<f32>,
}

fn engine(stream: &Stream, rules: &Arc<RuleSet>) -> anyhow::Result<Run> {
    let baseline = Some(baseline::Options::default());
    let mut engine = Engine::new(Arc::clone(rules), Options { baseline, brief: true, ..Options::default() });
    let mut run = Run::default();
    for labelled in &stream.events {
        let mut out = Output::default();
        engine.event(CLUSTER, &labelled.text, labelled.time, &String::new, &mut out)?;
        engine.tick(labelled.time, &mut out);
        let scored = engine.baselines().map(baseline::Baselines::last).unwrap_or_default();
        run.surprise.push(scored.surprise);
        run.risk.push(scored.risk);
        run.over.push(scored.over);
        let spoke = |f: &&lapwing_engine::alert::Finding| {
            f.anomaly.is_none() && f.verdict == Verdict::Match && f.rule.level >= Level::Medium
        };
        run.rules.push(if out.findings.iter().any(|f| spoke(&f)) { CERTAIN } else { f32::MIN });
    }
    Ok(run)
}

/// A way to score without knowing anything of attacks.
trait Simple {
    fn score(&mut self, o: &Observation, time: i64) -> f32;
}

fn parts(o: &Observation) -> [(u8, &str); 5] {
    [(0, o.action_text()), (1, o.namespace()), (2, o.object_text()), (3, o.client()), (4, o.network())]
}

/// How many properties of the request the identity has not shown for two weeks.
#[derive(Default)]
struct FirstSeen {
    last: HashMap<u64, i64>,
}

impl Simple for FirstSeen {
    fn score(&mut self, o: &Observation, time: i64) -> f32 {
        let mut new = 0.0;
        for part in parts(o) {
            let last = self.last.insert(hash((o.owner(), part)), time);
            new += f32::from(u8::from(last.is_none_or(|last| time - last > 14 * DAY)));
        }
        new
    }
}

/// How rare the properties are among all events, each for itself.
#[derive(Default)]
struct Histogram {
    counts: HashMap<u64, f32>,
    all: f32,
}

impl Simple for Histogram {
    fn score(&mut self, o: &Observation, _: i64) -> f32 {
        self.all += 1.0;
        let mut bits = 0.0;
        for part in parts(o) {
            let count = self.counts.entry(hash(part)).or_default();
            *count += 1.0;
            bits += (self.all / *count).log2();
        }
        bits
    }
}

/// How rare the properties are for this identity, each for itself, with one added to every count.
#[derive(Default)]
struct NaiveBayes {
    counts: HashMap<u64, f32>,
    owners: HashMap<u64, (f32, [f32; 5])>,
}

impl Simple for NaiveBayes {
    fn score(&mut self, o: &Observation, _: i64) -> f32 {
        let (all, values) = self.owners.entry(hash(o.owner())).or_default();
        let mut bits = 0.0;
        for part in parts(o) {
            let count = self.counts.entry(hash((o.owner(), part))).or_default();
            bits += ((*all + values[part.0 as usize] + 1.0) / (*count + 1.0)).log2();
            values[part.0 as usize] += f32::from(u8::from(*count == 0.0));
            *count += 1.0;
        }
        *all += 1.0;
        bits
    }
}

/// How rare the whole request is for this identity, counted in a sketch: seven rows of 27,183 counters, an error of at
/// most one in ten thousand with a probability of 0.999.
struct CountMin {
    rows: Vec<Vec<u32>>,
    all: HashMap<u64, f32>,
}

impl CountMin {
    fn new() -> Self {
        Self { rows: vec![vec![0; 27_183]; 7], all: HashMap::new() }
    }
}

impl Simple for CountMin {
    fn score(&mut self, o: &Observation, _: i64) -> f32 {
        let mut least = u32::MAX;
        for (i, row) in self.rows.iter_mut().enumerate() {
            let at = hash((i, o.owner(), parts(o))) as usize % row.len();
            least = least.min(row[at]);
            row[at] = row[at].saturating_add(1);
        }
        let all = self.all.entry(hash(o.owner())).or_default();
        *all += 1.0;
        (*all / (least as f32 + 1.0)).log2()
    }
}
