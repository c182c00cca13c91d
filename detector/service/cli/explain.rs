//! The words of `lapwing show`: an alert or a request for a tired person.
//!
//! Every text passes [`clean`]: names in it were chosen by whoever sent the request.

use std::io::{self, Write};

use chrono::{DateTime, Local, Utc};
use lapwing_engine::alert::{Alert, Evidence, Verdict};

use super::search::{outcome, table, target, when};
use super::show::{Args, Raw, ShownAlert, ShownEvent, ShownEvents, next_command};
use super::terminal::{clean, clean_cut};
use crate::output::text::wrap;
use crate::store::{Hit, Kind};

/// Longest single value shown, in characters.
const MOST: usize = 300;
/// Lines of an original that are shown, and characters of a line: an event can be 12 MB.
const LINES: usize = 400;
const LONGEST_LINE: usize = 2000;
/// Prose is wrapped here.
const WIDTH: usize = 78;

pub(super) fn write_alert(out: &mut impl Write, shown: &ShownAlert, args: &Args) -> io::Result<()> {
    let utc = args.utc;
    let hit = &shown.hit;
    let level = hit.level.map_or("", |l| l.as_str()).to_uppercase();
    writeln!(out, "{level}  {}", clean_cut(&hit.title, MOST))?;
    paragraph(out, "", &hit.summary)?;
    let time = hit.time.timestamp_micros();
    let (first, last) = match &shown.alert {
        Some(alert) => {
            writeln!(out)?;
            facts(out, alert, utc)?;
            heading(out, "Why it matters")?;
            paragraph(out, "  ", &alert.why)?;
            unusual(out, alert)?;
            evidence(out, alert, utc)?;
            (alert.first.timestamp_micros(), alert.last.timestamp_micros())
        }
        None => {
            writeln!(out, "\nThe whole alert is no longer in the alert journal; the index kept this:\n")?;
            writeln!(out, "{}", table(std::slice::from_ref(hit), utc, None))?;
            (time, time)
        }
    };
    around(out, &shown.around, shown.around_total, utc)?;
    if let Some(alert) = &shown.alert {
        list(out, "It may be harmless", &alert.false_positives, |_| "-".to_owned())?;
        list(out, "What to do", &alert.next_steps, |i| format!("{}.", i + 1))?;
    }
    heading(out, "Next command")?;
    writeln!(out, "  {}", next_command(hit, first, last, &args.again))
}

pub(super) fn write_events(out: &mut impl Write, shown: &ShownEvents, args: &Args) -> io::Result<()> {
    let utc = args.utc;
    for event in &shown.events {
        write_event(out, event, utc)?;
    }
    if !shown.alerts.is_empty() {
        heading(out, "Alerts that rest on it")?;
        indented(out, &table(&shown.alerts, utc, None))?;
    }
    around(out, &shown.around, shown.around_total, utc)?;
    let (Some(first), Some(last)) = (shown.events.first(), shown.events.last()) else { return Ok(()) };
    heading(out, "Next command")?;
    let command = match shown.alerts.first() {
        Some(alert) => format!("lapwing show{} {}", args.again, clean_cut(&alert.id, 64)),
        None => {
            let (first, last) = (&first.hit, last.hit.time.timestamp_micros());
            next_command(first, first.time.timestamp_micros(), last, &args.again)
        }
    };
    writeln!(out, "  {command}")
}

fn write_event(out: &mut impl Write, event: &ShownEvent, utc: bool) -> io::Result<()> {
    let hit = &event.hit;
    let what = if hit.kind == Kind::Reject { "Unreadable input" } else { "Request" };
    writeln!(out, "{what} {}", hit.position)?;
    fact(out, "when", &moment(hit.time, utc))?;
    fact(out, "cluster", &hit.cluster)?;
    fact(out, "who", &acting(&hit.actor, &hit.acting_as))?;
    fact(out, "what", &did(&hit.action, &hit.resource, &hit.namespace, &hit.name))?;
    fact(out, "from", &hit.address)?;
    fact(out, "outcome", &outcome(&hit.outcome, hit.code))?;
    fact(out, "problem", &hit.summary)?;
    fact(out, "audit id", &hit.audit_ids.join(", "))?;
    writeln!(out)?;
    match &event.raw {
        None => writeln!(out, "  The original is no longer in the journal.\n"),
        Some(Raw::Text(text)) => writeln!(out, "  {}\n", clean(text)),
        Some(Raw::Json(json)) => {
            let text = pretty(json.get());
            for line in text.lines().take(LINES) {
                writeln!(out, "  {}", clean_cut(line, LONGEST_LINE))?;
            }
            match text.lines().count().saturating_sub(LINES) {
                0 => writeln!(out),
                more => writeln!(out, "  … {more} more lines; --output json prints all\n"),
            }
        }
    }
}

fn facts(out: &mut impl Write, a: &Alert, utc: bool) -> io::Result<()> {
    let last = a.evidence.last().cloned().unwrap_or_default();
    let who = format!("{} ({})", acting(&a.actor, last.acting_as.as_deref().unwrap_or("")), a.actor_kind);
    fact(out, "who", &who)?;
    fact(out, "what", &did(&last.action, &last.resource, &last.namespace, &last.name))?;
    let from = [last.address.as_str(), last.user_agent.as_str()];
    fact(out, "from", &from.into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", "))?;
    fact(out, "right", &last.right)?;
    fact(out, "outcome", &outcome(&last.outcome, last.code))?;
    fact(out, "cluster", &a.cluster)?;
    let span = if a.first == a.last { String::new() } else { format!(" to {}", moment(a.last, utc)) };
    let count = if a.count > 1 { format!(", {} findings", a.count) } else { String::new() };
    fact(out, "when", &format!("{}{span}{count}", moment(a.first, utc)))?;
    fact(out, "rule", &format!("{} {}", a.rule.id, a.rule.tags.join(" ")))?;
    if a.verdict == Verdict::Undecidable {
        fact(out, "verdict", "undecidable: the event lacks what the rule needs to be sure")?;
    }
    fact(out, "alert", &a.id)
}

/// What a baseline found, heaviest first.
fn unusual(out: &mut impl Write, a: &Alert) -> io::Result<()> {
    let Some(anomaly) = &a.anomaly else { return Ok(()) };
    let p = &anomaly.principal;
    let since = p.since.format("%Y-%m-%d");
    let known = format!("{:.0} active hours since {since}", p.active_hours);
    heading(out, &format!("Why it is unusual for {} ({known})", clean_cut(&p.name, MOST)))?;
    for reason in &anomaly.reasons {
        paragraph(out, "  ", &format!("{:.1} bits: {}", reason.bits, reason.text))?;
    }
    Ok(())
}

/// Newest last, with what makes each remarkable below the table.
fn evidence(out: &mut impl Write, a: &Alert, utc: bool) -> io::Result<()> {
    let all = a.audit_ids.len().max(a.evidence.len());
    if a.evidence.is_empty() {
        heading(out, &format!("It rests on {all} requests, shown by their audit ids"))?;
        return a.audit_ids.iter().take(10).try_for_each(|id| writeln!(out, "  {}", clean_cut(id, MOST)));
    }
    heading(out, &format!("Evidence ({} of {all} requests)", a.evidence.len()))?;
    for e in &a.evidence {
        let parts = [
            when(e.time, utc),
            did(&e.action, &e.resource, &e.namespace, &e.name),
            outcome(&e.outcome, e.code),
            e.address.clone(),
            reference(e),
        ];
        let parts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).map(|p| clean_cut(p, MOST)).collect();
        writeln!(out, "  {}", parts.join("  "))?;
        for detail in &e.details {
            writeln!(out, "      {}", clean_cut(detail, MOST))?;
        }
    }
    Ok(())
}

/// What `lapwing show` finds this request by.
fn reference(e: &Evidence) -> String {
    if e.position.is_empty() { e.audit_id.clone() } else { e.position.clone() }
}

fn around(out: &mut impl Write, hits: &[Hit], total: usize, utc: bool) -> io::Result<()> {
    if hits.is_empty() {
        return Ok(());
    }
    let which = if hits.len() < total { format!("first {} of {total}", hits.len()) } else { total.to_string() };
    heading(out, &format!("The same actor, five minutes before to five minutes after ({which})"))?;
    indented(out, &table(hits, utc, None))
}

fn list(out: &mut impl Write, title: &str, lines: &[String], mark: impl Fn(usize) -> String) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    heading(out, title)?;
    for (i, line) in lines.iter().enumerate() {
        let mark = mark(i);
        let hanging = " ".repeat(mark.len());
        for (n, part) in wrap(&clean(line), WIDTH - 3 - mark.len()).iter().enumerate() {
            writeln!(out, "  {} {part}", if n == 0 { &mark } else { &hanging })?;
        }
    }
    Ok(())
}

fn heading(out: &mut impl Write, title: &str) -> io::Result<()> {
    writeln!(out, "\n{title}")
}

fn fact(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    match value.trim() {
        "" => Ok(()),
        value => writeln!(out, "  {name:<9}{}", clean_cut(value, MOST)),
    }
}

fn indented(out: &mut impl Write, lines: &str) -> io::Result<()> {
    lines.lines().try_for_each(|line| writeln!(out, " {line}"))
}

/// Prose, wrapped between words; its own line breaks are white space.
fn paragraph(out: &mut impl Write, indent: &str, text: &str) -> io::Result<()> {
    let words: Vec<_> = text.split_whitespace().map(clean).collect();
    wrap(&words.join(" "), WIDTH - indent.len()).iter().try_for_each(|line| writeln!(out, "{indent}{line}"))
}

fn acting(actor: &str, acting_as: &str) -> String {
    if acting_as.is_empty() { actor.to_owned() } else { format!("{actor} as {acting_as}") }
}

fn did(action: &str, resource: &str, namespace: &str, name: &str) -> String {
    format!("{action} {}", target(resource, namespace, name)).trim().to_owned()
}

fn moment(time: DateTime<Utc>, utc: bool) -> String {
    if utc { format!("{} UTC", when(time, true)) } else { time.with_timezone(&Local).format("%F %T %:z").to_string() }
}

/// JSON laid out by nesting without reading it: numbers stay as written and no depth is too deep.
fn pretty(json: &str) -> String {
    const DEEPEST: usize = 40;
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', 2 * depth.min(DEEPEST)));
    };
    let mut chars = json.chars().filter(|c| !matches!(c, '\n' | '\r')).peekable();
    while let Some(c) = chars.next() {
        if in_text {
            out.push(c);
            (in_text, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            ' ' | '\t' => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_whitespace()).is_some() {}
                if let Some(end) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_text = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn pretty_lays_out_and_changes_nothing() {
        let text = r#"{"a":[1e999,{"b":"x,{\"}[:"}],"c":{},"d":[ ]}"#;
        let want =
            "{\n  \"a\": [\n    1e999,\n    {\n      \"b\": \"x,{\\\"}[:\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}";
        assert_eq!(pretty(text), want);
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(pretty(&deep).split_whitespace().collect::<String>(), deep);
    }

    #[test]
    fn prose_is_wrapped() {
        let mut out = Vec::new();
        paragraph(&mut out, "  ", &"word ".repeat(50)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().count() > 2 && text.lines().all(|l| l.starts_with("  w") && l.len() <= WIDTH + 2));
    }
}
