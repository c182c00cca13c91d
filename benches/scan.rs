//! What judging costs, CPU time per event: the parser alone, a JSON tree alone, and the whole scan path at several
//! numbers of rules, over the same events in one run; then the stages of the service one by one.
//!
//! `cargo bench --bench scan`; `LAPWING_BENCH_FILE=audit.log` measures a file of JSON lines instead of the fixtures,
//! `LAPWING_BENCH_ROUNDS` the rounds. Rounds are interleaved and the medians told, so a busy machine shifts all alike.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapwing::input::{Events, Limits, split};
use lapwing::ruleset::Selection;
use lapwing::store::{EventDoc, Index, Progress};
use lapwing_engine::baseline;
use lapwing_engine::engine::{Engine, Options, Output};
use lapwing_engine::event::Event;
use lapwing_engine::facts::Facts;
use lapwing_engine::redact;
use lapwing_engine::rule::set::{LoadOptions, RuleSet};
use rustix::time::{ClockId, clock_gettime};

/// As in the program: memory and time are measured with the allocator it has.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The fixtures are repeated to about so many events.
const EVENTS: usize = 50_000;
/// Events of one request of the API server, by its own default.
const BATCH: usize = 400;

fn main() -> Result<()> {
    let rounds = match std::env::var("LAPWING_BENCH_ROUNDS") {
        Ok(n) => n.parse()?,
        Err(_) => 7,
    };
    let text = match std::env::var_os("LAPWING_BENCH_FILE") {
        Some(path) => fs::read_to_string(path)?,
        None => fixtures()?,
    };
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("audit.log");
    fs::write(&file, &text)?;
    let lines: Vec<&str> = text.lines().collect();
    println!("{} events, {} bytes each on average, {rounds} rounds", lines.len(), text.len() / lines.len().max(1));
    judging(&lines, &file, rounds)?;
    let light: Vec<&str> = lines.iter().filter(|l| !has_bodies(l)).copied().collect();
    println!("\nthe same without the events that have bodies: {} are left", light.len());
    fs::write(&file, light.join("\n"))?;
    judging(&light, &file, rounds)?;
    serving(&lines, dir.path(), rounds)
}

fn has_bodies(line: &str) -> bool {
    line.contains("Object\":{")
}

/// One thing to measure: a pass over all events.
type Case<'a> = (String, Box<dyn FnMut() -> Result<()> + 'a>);

fn judging(lines: &[&str], file: &Path, rounds: usize) -> Result<()> {
    let files = Selection::default().rule_files()?;
    let built_in = load(files.clone())?;
    let mut cases: Vec<Case<'_>> = vec![
        ("(a) serde_json into Event".into(), Box::new(|| each(lines, |l| drop(black_box(Event::parse(l)))))),
        (
            "(b) serde_json into Value".into(),
            Box::new(|| each(lines, |l| drop(black_box(serde_json::from_str::<serde_json::Value>(l))))),
        ),
        ("reading the lines".into(), Box::new(|| read(file))),
        (format!("(c) scan, built-in rules: {}", built_in.rules().len()), Box::new(move || scan(file, &built_in))),
    ];
    for n in [1, 50, 200, 1000] {
        let rules = load(some_rules(&files, n))?;
        let name = format!("(c) scan, {} rules", rules.rules().len());
        cases.push((name, Box::new(move || scan(file, &rules))));
    }
    let medians = measure(&mut cases, lines.len(), rounds)?;
    println!("\n{:<36} {:>9} {:>7} {:>9}", "", "µs/event", "of (a)", "events/s");
    for ((name, _), micros) in cases.iter().zip(&medians) {
        println!("{name:<36} {micros:>9.2} {:>7.2} {:>9.0}", micros / medians[0], 1e6 / micros);
    }
    let by_count = &medians[4..];
    println!("\n(c) / (a) = {:.2}, expected at most 1.6", medians[3] / medians[0]);
    println!("(c) / (b) = {:.2}, expected below 1", medians[3] / medians[1]);
    println!("1,000 rules / 50 rules = {:.2}, expected at most 1.3", by_count[3] / by_count[1]);
    Ok(())
}

fn serving(lines: &[&str], dir: &Path, rounds: usize) -> Result<()> {
    let bodies: Vec<String> = lines.chunks(BATCH).map(list).collect();
    let clean: Vec<String> = lines.iter().map(|l| redact::event(l).into_owned()).collect();
    let rules = Selection::default().load()?;
    let mut cases: Vec<Case<'_>> = vec![
        (
            "reading an EventList".into(),
            Box::new(|| {
                bodies.iter().for_each(|b| {
                    let mut events = Events::new(b.as_bytes(), Limits::default());
                    while let Some(item) = events.next() {
                        let _ = black_box(item);
                    }
                });
                Ok(())
            }),
        ),
        ("redact".into(), Box::new(|| each(lines, |l| drop(black_box(redact::event(l)))))),
        (
            "read, check and redact: input::split".into(),
            Box::new(|| {
                bodies.iter().for_each(|b| drop(black_box(split(b.as_bytes(), &Limits::default()))));
                Ok(())
            }),
        ),
        ("engine".into(), Box::new(|| engine(&clean, &rules, None))),
        ("engine with baselines".into(), Box::new(|| engine(&clean, &rules, Some(Default::default())))),
        ("index, commit included".into(), Box::new(|| index(&clean, dir))),
    ];
    let medians = measure(&mut cases, lines.len(), rounds.min(3))?;
    println!("\n{:<36} {:>9}", "", "µs/event");
    for ((name, _), micros) in cases.iter().zip(&medians) {
        println!("{name:<36} {micros:>9.2}");
    }
    redaction_by_kind(lines, rounds)
}

/// Redaction of events without bodies, and of those with bodies that hold nothing to redact.
fn redaction_by_kind(lines: &[&str], rounds: usize) -> Result<()> {
    let bodies = |l: &&&str| has_bodies(l);
    let clean = |l: &&&str| matches!(redact::event(l), std::borrow::Cow::Borrowed(_));
    let kinds: [(&str, Vec<&str>); 3] = [
        ("redact, no bodies", lines.iter().filter(|l| !bodies(l)).copied().collect()),
        ("redact, bodies, nothing in them", lines.iter().filter(bodies).filter(clean).copied().collect()),
        ("redact, secrets found", lines.iter().filter(|l| !clean(l)).copied().collect()),
    ];
    println!("\n{:<36} {:>9} {:>9} {:>9}", "", "events", "µs/event", "µs/kB");
    for (name, lines) in &kinds {
        let one = || each(lines, |l| drop(black_box(redact::event(l))));
        let micros = measure(&mut [(String::new(), Box::new(one))], lines.len().max(1), rounds)?[0];
        let size = lines.iter().map(|l| l.len()).sum::<usize>() as f64 / lines.len().max(1) as f64;
        println!("{name:<36} {:>9} {micros:>9.2} {:>9.2}", lines.len(), micros / size * 1e3);
    }
    Ok(())
}

/// Medians of the CPU time per event in microseconds, one for each case. The first round is not counted.
fn measure(cases: &mut [Case<'_>], events: usize, rounds: usize) -> Result<Vec<f64>> {
    let mut taken = vec![Vec::new(); cases.len()];
    for round in 0..=rounds {
        for ((_, case), taken) in cases.iter_mut().zip(&mut taken) {
            let before = cpu();
            case()?;
            let micros = (cpu() - before) * 1e6 / events as f64;
            if round > 0 || rounds == 0 {
                taken.push(micros);
            }
        }
    }
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    Ok(taken.into_iter().map(median).collect())
}

/// CPU seconds of this process, all threads.
fn cpu() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

fn each(lines: &[&str], mut f: impl FnMut(&str)) -> Result<()> {
    lines.iter().for_each(|l| f(l));
    Ok(())
}

fn read(file: &Path) -> Result<()> {
    let mut events = Events::open(file, Limits::default())?;
    while let Some(item) = events.next() {
        let _ = black_box(item);
    }
    Ok(())
}

fn scan(file: &Path, rules: &Arc<RuleSet>) -> Result<()> {
    let mut engine = Engine::new(Arc::clone(rules), Options { brief: true, ..Options::default() });
    let mut events = Events::open(file, Limits::default())?;
    let (mut now, mut out) = (0, Output::default());
    while let Some(item) = events.next() {
        if let Ok(text) = item
            && let Ok(time) = engine.event("bench", text, now, &String::new, &mut out)
        {
            now = time.map_or(now, |t| t.max(now));
            engine.tick(now, &mut out);
        }
        black_box(std::mem::take(&mut out));
    }
    engine.finish(&mut out);
    black_box(out);
    Ok(())
}

fn engine(events: &[String], rules: &Arc<RuleSet>, baseline: Option<baseline::Options>) -> Result<()> {
    let mut engine = Engine::new(Arc::clone(rules), Options { brief: true, baseline, ..Options::default() });
    let (mut now, mut out) = (0, Output::default());
    for text in events {
        if let Ok(time) = black_box(engine.event("bench", text, now, &String::new, &mut out)) {
            now = time.map_or(now, |t| t.max(now));
        }
        black_box(std::mem::take(&mut out));
    }
    Ok(())
}

fn index(events: &[String], dir: &Path) -> Result<()> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut writer = Index::open(dir.path())?.writer()?;
    for (i, text) in events.iter().enumerate() {
        let Ok(event) = Event::parse(text) else { continue };
        let facts = Facts::new(&event, text, "bench");
        let doc = EventDoc {
            time: event.time().unwrap_or_default(),
            cluster: "bench",
            actor: facts.actor(),
            actor_kind: facts.actor_kind,
            acting_as: facts.acting_as().unwrap_or_default(),
            verb: &event.verb,
            action: facts.action,
            resource: facts.resource,
            subresource: facts.subresource,
            namespace: facts.namespace,
            name: facts.name(),
            outcome: facts.outcome,
            code: event.code(),
            address: facts.address(),
            client: facts.client().0,
            audit_id: &event.audit_id,
            text: &[],
        };
        writer.add_event(&doc, (i / BATCH) as u64, (i % BATCH) as u32)?;
    }
    writer.commit(Progress::default())?;
    Ok(writer.close()?)
}

/// The recorded events in the repository: every attack once, and the working day again and again, each time as other
/// requests.
fn fixtures() -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut attacks = Vec::new();
    for entry in fs::read_dir(root.join("attacks"))? {
        attacks.push(entry?.path().join("events.jsonl.zst"));
    }
    attacks.sort();
    let mut text = String::new();
    for path in attacks {
        text.push_str(&unpacked(&path)?);
    }
    let day = unpacked(&root.join("benign/working-day.jsonl.zst"))?;
    let times = EVENTS.saturating_sub(text.lines().count()).div_ceil(day.lines().count());
    for n in 0..times {
        text.push_str(&day.replace("\"auditID\":\"", &format!("\"auditID\":\"{n}")));
    }
    Ok(text)
}

fn unpacked(path: &Path) -> Result<String> {
    let mut text = String::from_utf8(zstd::stream::decode_all(fs::File::open(path)?)?)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn list(lines: &[&str]) -> String {
    format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#, lines.join(","))
}

type Sources = Vec<(PathBuf, String)>;

fn load(sources: Sources) -> Result<Arc<RuleSet>> {
    let (set, problems) = RuleSet::load_lenient(sources, &LoadOptions::default());
    // A part of the rules leaves correlations behind that refer to the others.
    let real = problems.iter().filter(|p| !p.path.starts_with("rules")).count();
    if real > 0 { Err(format!("{}", problems[0]).into()) } else { Ok(Arc::new(set)) }
}

/// `n` rules: the built-in ones, spread over their list; then variants of them, each with another id and one condition
/// more, so that a variant is looked at whenever its original is and never makes findings. With them come the
/// correlations and filters over those that are there: without its correlation, a rule that only feeds it would speak.
fn some_rules(files: &Sources, n: usize) -> Sources {
    let (rules, others): (Vec<_>, Vec<_>) = files.iter().partition(|(_, t)| is_single_rule(t));
    let step = (rules.len() as f64 / n as f64).max(1.0);
    let mut some: Sources = (0..n.min(rules.len())).map(|i| rules[(i as f64 * step) as usize].clone()).collect();
    for i in 0..n.saturating_sub(some.len()) {
        let (path, text) = rules[i % rules.len()];
        some.push((path.with_extension(format!("{i}.yml")), variant(text, i)));
    }
    some.extend(others.into_iter().filter(|(_, t)| !t.contains("\ndetection:")).cloned());
    some
}

fn is_single_rule(text: &str) -> bool {
    text.contains("\ndetection:") && !text.contains("\n---") && text.matches("\n    condition: ").count() == 1
}

fn variant(text: &str, n: usize) -> String {
    let line = |l: &str| match l {
        _ if l.starts_with("id: ") || l.starts_with("name: ") => format!("{l}-variant-{n}"),
        "detection:" => format!("detection:\n    variant:\n        user.username: variant-{n}"),
        _ => match l.strip_prefix("    condition: ") {
            Some(condition) => format!("    condition: ({condition}) and variant"),
            None => l.to_owned(),
        },
    };
    text.lines().map(|l| line(l) + "\n").collect()
}
