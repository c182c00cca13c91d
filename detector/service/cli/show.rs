//! `lapwing show ID`: one alert or one request, explained, with what happened around it.

use std::io::{self, Write};
use std::path::Path;

use anyhow::bail;
use clap::ValueEnum;
use lapwing_engine::alert::Alert;
use serde::Serialize;
use serde_json::value::RawValue;

use super::explain::{write_alert, write_events};
use super::search::short_id;
use super::terminal::{clean_cut, quiet_pipe};
use crate::store::field::Id;
use crate::store::originals::{self, Originals};
use crate::store::search::TIME_LIMIT;
use crate::store::{Answer, Ask, Hit, Index, Kind, Order, Position, Query, Searcher};

/// How far around an alert to look, in microseconds.
const AROUND: i64 = 5 * 60 * 1_000_000;
/// How many events around it are shown.
const AROUND_LIMIT: usize = 20;
/// Shorter beginnings of ids are refused: they say too little.
const SHORTEST: usize = 4;

const EXAMPLES: &str = "\
EXAMPLES
  lapwing show 3f2c9a7e               an alert, by its id or the beginning of it
  lapwing show 0f6a1c5e-8b1d          a request, by its audit id or the beginning of it
  lapwing show 1042:7                 a stored event, by its position
  lapwing show 3f2c9a7e --output json | jq .alert.evidence

EXIT CODES
  0  found    1  not found    2  could not run, or the beginning fits several";

/// Explain one alert or one request
///
/// An alert with its evidence, why it matters and what to do; a request with its original and the alerts that rest
/// on it; both with what the same actor did five minutes before and after.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Alert id, audit id, a beginning of either, or a position (lsn:index)
    #[arg(value_name = "ID")]
    pub id: String,
    /// How to print
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Show times in UTC instead of local time
    #[arg(long)]
    pub utc: bool,
    /// Flags that commands to type next must repeat.
    #[arg(skip)]
    pub again: String,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// An alert with what happened around it. Its JSON is what `--output json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownAlert {
    /// `None` when the alert journal no longer has it; the hit is what the index kept.
    pub alert: Option<Alert>,
    pub hit: Hit,
    pub around: Vec<Hit>,
    /// Events around it in all; `around` has the first of them.
    pub around_total: usize,
}

/// The stages of one request, with the alerts that rest on it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShownEvents {
    pub events: Vec<ShownEvent>,
    pub alerts: Vec<Hit>,
    pub around: Vec<Hit>,
    pub around_total: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct ShownEvent {
    pub hit: Hit,
    /// `None` when the journal no longer has it.
    pub raw: Option<Raw>,
}

/// An original: as it is if it is JSON, else as text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Raw {
    Json(Box<RawValue>),
    Text(String),
}

/// Runs the command. Returns the exit status 0 or 1; an error is exit status 2.
pub fn run(args: &Args, data_dir: &Path) -> anyhow::Result<u8> {
    let searcher = Index::open_read_only(&data_dir.join("index"))?.searcher()?;
    let originals = originals::open(data_dir)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let status = show(args, &searcher, &*originals, &mut out)?;
    if status == 1 {
        eprintln!("no alert or request has the id `{}`", clean_cut(&args.id, 100));
    }
    Ok(status)
}

fn show(args: &Args, searcher: &Searcher, originals: &dyn Originals, out: &mut impl Write) -> anyhow::Result<u8> {
    let hits = find(&args.id, searcher)?;
    let Some(first) = hits.first() else { return Ok(1) };
    let written = if first.kind == Kind::Alert {
        let shown = shown_alert(first.clone(), searcher, originals)?;
        match args.output {
            Format::Json => json(out, &shown),
            Format::Text => write_alert(out, &shown, args),
        }
    } else {
        let shown = shown_events(hits, searcher, originals)?;
        match args.output {
            Format::Json => json(out, &shown),
            Format::Text => write_events(out, &shown, args),
        }
    };
    quiet_pipe(written.and_then(|()| out.flush()))?;
    Ok(0)
}

/// The alert of this id or beginning of one, if there is one and its journal still has it.
///
/// # Errors
/// When the index cannot be read, or several alerts begin like this.
pub(super) fn find_alert(id: &str, data_dir: &Path) -> anyhow::Result<Option<Alert>> {
    let searcher = Index::open_read_only(&data_dir.join("index"))?.searcher()?;
    let hits = find(id, &searcher)?;
    let Some(hit) = hits.first().filter(|h| h.kind == Kind::Alert) else { return Ok(None) };
    originals::open(data_dir)?.alert(hit.position.lsn)
}

fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// One alert, or every stage of one request oldest first. An exact id goes before a beginning, an
/// alert before a request.
fn find(id: &str, searcher: &Searcher) -> anyhow::Result<Vec<Hit>> {
    let not_alert = || Query::Not(Box::new(Query::Is(Id::Kind, "alert".into())));
    if let Ok(at) = id.parse::<Position>() {
        return Ok(ask(searcher, Query::At(at), 1)?.hits);
    }
    let alert = ask(searcher, Query::Is(Id::Alert, id.into()), 1)?.hits;
    if !alert.is_empty() {
        return Ok(alert);
    }
    let events = ask(searcher, Query::Is(Id::Audit, id.into()).and(not_alert()), 100)?.hits;
    if !events.is_empty() || id.chars().count() < SHORTEST {
        return Ok(events);
    }
    let alerts = ask(searcher, Query::StartsWith(Id::Alert, id.into()), 10)?.hits;
    if !alerts.is_empty() {
        return only_one(id, alerts, |h| h.id.as_str());
    }
    let events = ask(searcher, Query::StartsWith(Id::Audit, id.into()).and(not_alert()), 100)?.hits;
    only_one(id, events, |h| h.audit_ids.first().map_or("", String::as_str))
}

fn only_one(id: &str, hits: Vec<Hit>, name: impl Fn(&Hit) -> &str) -> anyhow::Result<Vec<Hit>> {
    let mut names: Vec<&str> = hits.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > 1 {
        let some: Vec<_> = names.iter().take(5).map(|n| format!("`{}`", clean_cut(n, 64))).collect();
        bail!(
            "`{}` is the beginning of several ids, for example {}; give more of it",
            clean_cut(id, 64),
            some.join(", ")
        );
    }
    Ok(hits)
}

fn ask(searcher: &Searcher, query: Query, limit: usize) -> anyhow::Result<Answer> {
    Ok(searcher.search(&Ask { query, limit, order: Order::Oldest, within: TIME_LIMIT })?)
}

fn shown_alert(hit: Hit, searcher: &Searcher, originals: &dyn Originals) -> anyhow::Result<ShownAlert> {
    let alert = originals.alert(hit.position.lsn)?;
    let (first, last) = match &alert {
        Some(a) => (a.first.timestamp_micros(), a.last.timestamp_micros()),
        None => (hit.time.timestamp_micros(), hit.time.timestamp_micros()),
    };
    let around = around(searcher, &hit, first, last)?;
    Ok(ShownAlert { alert, hit, around_total: around.total, around: around.hits })
}

fn shown_events(hits: Vec<Hit>, searcher: &Searcher, originals: &dyn Originals) -> anyhow::Result<ShownEvents> {
    let (first, last) = match (hits.first(), hits.last()) {
        (Some(a), Some(b)) => (a.clone(), b.time.timestamp_micros()),
        _ => bail!("no event to show"),
    };
    let alerts = match first.audit_ids.first() {
        Some(id) => {
            let resting = Query::Is(Id::Audit, id.clone()).and(Query::Is(Id::Kind, "alert".into()));
            ask(searcher, resting, AROUND_LIMIT)?.hits
        }
        None => Vec::new(),
    };
    let around = around(searcher, &first, first.time.timestamp_micros(), last)?;
    let mut events = Vec::with_capacity(hits.len());
    for hit in hits {
        let raw = originals.event(hit.position)?.map(|text| match RawValue::from_string(text.clone()) {
            Ok(json) => Raw::Json(json),
            Err(_) => Raw::Text(text),
        });
        events.push(ShownEvent { hit, raw });
    }
    Ok(ShownEvents { events, alerts, around_total: around.total, around: around.hits })
}

/// The actor's events in the same cluster from before `first` until after `last`.
fn around(searcher: &Searcher, hit: &Hit, first: i64, last: i64) -> anyhow::Result<Answer> {
    if hit.actor.is_empty() {
        return Ok(Answer { hits: Vec::new(), total: 0 });
    }
    let mut all = vec![
        Query::Is(Id::Actor, hit.actor.clone()),
        Query::Is(Id::Kind, "event".into()),
        Query::Since(first.saturating_sub(AROUND)),
        Query::Until(last.saturating_add(AROUND)),
    ];
    if !hit.cluster.is_empty() {
        all.push(Query::Is(Id::Cluster, hit.cluster.clone()));
    }
    ask(searcher, Query::And(all), AROUND_LIMIT)
}

/// A query for what the actor did around that time, ready to paste into a shell. Names an attacker
/// chose are only used when no shell and no query could read them in another way.
pub(super) fn next_command(hit: &Hit, first: i64, last: i64, again: &str) -> String {
    let harmless = |s: &str| {
        !s.is_empty() && s.len() < 200 && s.chars().all(|c| c.is_ascii_alphanumeric() || "@:._/+=,-".contains(c))
    };
    if !harmless(&hit.actor) || !(hit.cluster.is_empty() || harmless(&hit.cluster)) {
        return format!("lapwing show{again} {} --output json", clean_harmless_id(hit));
    }
    let cluster = if hit.cluster.is_empty() { String::new() } else { format!(" cluster:{}", hit.cluster) };
    let time = |t: i64| lapwing_engine::event::to_datetime(t).format("%Y-%m-%dT%H:%M:%SZ");
    let (since, until) = (time(first.saturating_sub(AROUND)), time(last.saturating_add(AROUND)));
    format!("lapwing search{again} 'actor:{}{cluster}' --since {since} --until {until} --oldest", hit.actor)
}

/// Alert ids are ours (hexadecimal) and positions are numbers; anything else is not pasted.
fn clean_harmless_id(hit: &Hit) -> String {
    short_id(hit).chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-')).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;
    use crate::store::originals::InMemory;
    use crate::store::tests::{NOW, alert, exec, filled};
    use crate::store::{EventDoc, Progress};

    const AUDIT: &str = "0f0f0f0f-1111-2222-3333-444444444444";

    fn args(id: &str, output: Format) -> Args {
        Args { id: id.into(), output, utc: true, again: String::new() }
    }

    fn originals() -> InMemory {
        let mut originals = InMemory::default();
        originals.events.insert("7:0".parse().unwrap(), "{\"verb\":\"create\",\"n\":1e999}".into());
        originals.events.insert("8:0".parse().unwrap(), "{\"kind\":\"Broken".into());
        originals.alerts.insert(3, alert("f00dcafe00", 1, 5));
        originals
    }

    fn shown(id: &str, output: Format) -> (anyhow::Result<u8>, String) {
        let dir = tempfile::tempdir().unwrap();
        let searcher = filled(dir.path()).searcher().unwrap();
        let mut out = Vec::new();
        let status = show(&args(id, output), &searcher, &originals(), &mut out);
        (status, String::from_utf8(out).unwrap())
    }

    #[test]
    fn an_alert_is_explained() {
        for id in ["f00dcafe00", "f00d"] {
            let (status, text) = shown(id, Format::Text);
            assert_eq!(status.unwrap(), 0);
            for part in [
                "HIGH",
                "Exec into a pod",
                "alice@example.com opened a shell in pod shop/web-0",
                "alice@example.com (human)",
                "10.1.2.3",
                "RoleBinding shop/debuggers",
                "allowed 101",
                "A shell in a running container is rarely needed.",
                "command: whoami",
                "A developer debugging.",
                "1. Ask alice.",
                "lapwing search 'actor:alice@example.com cluster:prod' --since 2026-11-20T15:52:37Z",
            ] {
                assert!(text.contains(part), "{part}\n{text}");
            }
            assert!(text.contains("7:0"), "the exec ten minutes ago is within five minutes of the alert\n{text}");
        }
    }

    #[test]
    fn around_is_five_minutes_both_ways_of_the_same_actor_and_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path());
        let mut w = index.writer().unwrap();
        let alert_at = NOW - AROUND;
        for (i, (after, cluster)) in
            [(AROUND, "prod"), (AROUND + 1, "prod"), (-AROUND - 1, "prod"), (0, "dev")].into_iter().enumerate()
        {
            let event = EventDoc { time: alert_at + after, cluster, ..exec() };
            w.add_event(&event, 20, u32::try_from(i).unwrap()).unwrap();
        }
        w.add_event(&EventDoc { time: alert_at, actor: "bob", ..exec() }, 21, 0).unwrap();
        w.commit(Progress::default()).unwrap();
        let mut out = Vec::new();
        show(&args("f00dcafe00", Format::Json), &index.searcher().unwrap(), &originals(), &mut out).unwrap();
        let v: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let around: Vec<_> = v["around"].as_array().unwrap().iter().map(|h| h["position"].as_str().unwrap()).collect();
        assert_eq!(around, ["7:0", "20:0"]);
    }

    #[test]
    fn an_alert_as_json() {
        let (_, text) = shown("f00dcafe00", Format::Json);
        let v: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(v["alert"]["rule"]["id"], "exec-into-pod");
        assert_eq!((v["aroundTotal"].as_u64(), v["around"][0]["position"].as_str()), (Some(1), Some("7:0")));
    }

    #[test]
    fn a_request_is_shown_by_audit_id_and_position() {
        for id in [AUDIT, "0f0f0f", "7:0"] {
            let (status, text) = shown(id, Format::Text);
            assert_eq!(status.unwrap(), 0, "{id}");
            for part in [AUDIT, "pods/exec shop/web-0", "\"verb\": \"create\"", "1e999", "f00dcafe00"] {
                assert!(text.contains(part), "{id}: {part}\n{text}");
            }
        }
        let (_, text) = shown("8:0", Format::Text);
        assert!(text.contains("cut off at byte 12") && text.contains("{\"kind\":\"Broken"), "{text}");
        let (_, text) = shown("7:0", Format::Json);
        assert!(text.contains("1e999"), "raw stays raw\n{text}");
    }

    #[test]
    fn unknown_short_and_ambiguous_ids() {
        assert_eq!(shown("nothing-like-it", Format::Text).0.unwrap(), 1);
        assert_eq!(shown("f00", Format::Text).0.unwrap(), 1, "too short to guess");
        assert_eq!(shown("99:0", Format::Text).0.unwrap(), 1);
        assert_eq!(shown("3:0", Format::Text).0.unwrap(), 1, "3 is a record of the other journal");
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path());
        let mut w = index.writer().unwrap();
        w.add_alert(&alert("f00dbeef", 1, 1), 4).unwrap();
        w.commit(Progress::default()).unwrap();
        let found = find("f00d", &index.searcher().unwrap());
        assert!(found.unwrap_err().to_string().contains("`f00dbeef`, `f00dcafe00`"));
    }

    #[test]
    fn what_retention_removed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let searcher = filled(dir.path()).searcher().unwrap();
        for id in ["f00dcafe00", AUDIT] {
            let mut out = Vec::new();
            show(&args(id, Format::Text), &searcher, &InMemory::default(), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("no longer in the") && text.contains("alice@example.com"), "{text}");
        }
    }

    #[test]
    fn nothing_an_attacker_named_reaches_shell_or_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path());
        let actor = "eve'; rm -rf / #\u{1b}]0;x\u{7}";
        let mut w = index.writer().unwrap();
        let event = EventDoc { time: NOW, actor, audit_id: "evil", text: &[], ..exec() };
        w.add_event(&event, 9, 0).unwrap();
        let mut a = alert("badbad00", 1, 0);
        a.actor = actor.into();
        a.summary = format!("{actor} did it");
        w.add_alert(&a, 4).unwrap();
        w.commit(Progress::default()).unwrap();
        let mut originals = originals();
        originals.alerts.insert(4, a);
        originals.events.insert("9:0".parse().unwrap(), format!("{{\"x\":\"{}\"}}", "\u{9b}31m\u{202e}"));
        for id in ["badbad00", "evil"] {
            let mut out = Vec::new();
            show(&args(id, Format::Text), &index.searcher().unwrap(), &originals, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{text}");
            assert!(!text.contains("search 'actor:eve"), "{text}");
        }
    }
}
