//! The words of an alert: who did what to what, from where, with which right, whether it succeeded, why it
//! matters and what to run next. Written once; Slack, e-mail and the terminal only lay it out.
//!
//! The texts here are *not* encoded: each layout encodes them for its own format.

use std::io::IsTerminal;

use lapwing_engine::alert::{Alert, Evidence, Level, Status, Verdict};
use owo_colors::{OwoColorize, Style};

use super::encode::{cap, terminal, visible};

/// An alert in words, in the order a reader wants them.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// `HIGH  Shell opened in a pod`: fixed words, the rule's title and nothing from the event.
    pub headline: String,
    pub summary: String,
    /// Label and value, one per line.
    pub facts: Vec<(&'static str, String)>,
    /// What a baseline found, heaviest first.
    pub unusual: Vec<String>,
    pub why: String,
    pub next_steps: Vec<String>,
    pub false_positives: Vec<String>,
    /// Further alerts told with it, a line each.
    pub others: Vec<String>,
}

/// Further alerts that are listed; of the rest it is said how many they are.
const LISTED: usize = 20;

/// The mark in front of the headline: what kind of notice this is.
fn mark(alert: &Alert) -> &'static str {
    match alert.status {
        Status::New => "",
        Status::Update => "UPDATE: ",
        Status::Resolved => "RESOLVED: ",
        Status::Test => "TEST: ",
    }
}

/// Title line for headers and subjects. Holds no text an attacker controls.
pub fn headline(alert: &Alert) -> String {
    let doubt = if alert.verdict == Verdict::Undecidable { " (cannot be decided)" } else { "" };
    format!("{}{} {}{doubt}", mark(alert), alert.level.as_str().to_uppercase(), alert.rule.title)
}

/// The request an alert is best explained by: the last one.
pub fn leading(alert: &Alert) -> Option<&Evidence> {
    alert.evidence.last()
}

/// `pods/exec web-1 in shop`
pub fn target(e: &Evidence) -> String {
    let mut text = e.resource.clone();
    if !e.name.is_empty() {
        text.push(' ');
        text.push_str(&e.name);
    }
    if !e.namespace.is_empty() {
        text.push_str(" in ");
        text.push_str(&e.namespace);
    }
    text
}

fn who(alert: &Alert, e: Option<&Evidence>) -> String {
    let mut text = format!("{} ({})", alert.actor, alert.actor_kind);
    if let Some(other) = e.and_then(|e| e.acting_as.as_deref()) {
        text.push_str(" acting as ");
        text.push_str(other);
    }
    text
}

fn when(alert: &Alert) -> String {
    let first = alert.first.format("%Y-%m-%d %H:%M:%S UTC");
    match alert.count {
        0 | 1 => first.to_string(),
        n => format!("{first} to {}, {n} times", alert.last.format("%H:%M:%S UTC")),
    }
}

fn evidence_facts(e: &Evidence, facts: &mut Vec<(&'static str, String)>) {
    let mut add = |label, value: String| {
        if !value.is_empty() {
            facts.push((label, value));
        }
    };
    add("What", format!("{} {}", e.action, target(e)));
    add("From", e.address.clone());
    add("Client", e.user_agent.clone());
    add("Right", e.right.clone());
    add("Outcome", e.code.map_or_else(|| e.outcome.clone(), |code| format!("{} ({code})", e.outcome)));
    for detail in &e.details {
        add("Detail", detail.clone());
    }
}

/// The words of `alert`.
pub fn words(alert: &Alert) -> Words {
    let lead = leading(alert);
    let mut facts = vec![("Who", who(alert, lead))];
    if let Some(e) = lead {
        evidence_facts(e, &mut facts);
    }
    facts.push(("When", when(alert)));
    facts.push(("Cluster", alert.cluster.clone()));
    facts.push(("Rule", alert.rule.id.clone()));
    facts.push(("Alert", alert.id.clone()));
    Words {
        headline: headline(alert),
        summary: alert.summary.clone(),
        facts,
        unusual: unusual(alert),
        why: alert.why.trim().to_owned(),
        next_steps: alert.next_steps.clone(),
        false_positives: alert.false_positives.clone(),
        others: Vec::new(),
    }
}

/// `text` with nothing in it that a mail or chat program makes a link of by itself: `http[://]evil`, `www[.]evil`.
fn unlinked(text: &str) -> String {
    let mut out = text.replace("://", "[://]");
    for (start, cut) in [("www.", "www[.]"), ("mailto:", "mailto[:]")] {
        // Same bytes, same places: only ASCII letters change.
        while let Some(at) = out.to_ascii_lowercase().find(start) {
            out.replace_range(at..at + start.len(), cut);
        }
    }
    out
}

/// The words of a notice, for people: its worst alert spelled out, the others a line each. The first thing to run shows the
/// alert. What a sender wrote is no link.
pub fn message(alerts: &[&Alert]) -> Words {
    let worst = worst(alerts);
    let mut words = words(worst);
    if worst.status == Status::Resolved {
        let quiet = worst.last.format("%Y-%m-%d %H:%M:%S UTC");
        words.summary = format!(
            "Nothing more came of it since {quiet}; that is no proof that it is over. It was: {}",
            words.summary
        );
        // Said when it was told; now it only has to be recognised.
        words.unusual.clear();
        words.false_positives.clear();
        words.next_steps.clear();
        words.why = String::new();
    }
    if worst.status != Status::Test {
        words.next_steps.insert(0, format!("lapwing show {}", short(&worst.id)));
    }
    if alerts.len() > 1 {
        words.headline = format!("{} alerts, the worst: {}", alerts.len(), words.headline);
        let mut others: Vec<&&Alert> = alerts.iter().filter(|a| !std::ptr::eq(**a, worst)).collect();
        others.sort_by_key(|a| std::cmp::Reverse(a.level));
        words.others = others.iter().take(LISTED).map(|a| line(a)).collect();
        if others.len() > LISTED {
            words.others.push(format!("and {} more: lapwing search kind:alert --since 1d", others.len() - LISTED));
        }
    }
    words.summary = unlinked(&words.summary);
    for (_, value) in &mut words.facts {
        *value = unlinked(value);
    }
    for text in words.unusual.iter_mut().chain(&mut words.next_steps).chain(&mut words.others) {
        *text = unlinked(text);
    }
    words
}

/// The alert a notice is headed by: the first of the highest level.
pub fn worst<'a>(alerts: &[&'a Alert]) -> &'a Alert {
    let by_level = |best: &'a Alert, next: &&'a Alert| if next.level > best.level { *next } else { best };
    alerts[1..].iter().fold(alerts[0], by_level)
}

/// `HIGH Shell opened in a pod: alice in prod, 2026-03-01 12:00:00 UTC, lapwing show a1b2c3d4`
fn line(alert: &Alert) -> String {
    let who = cap(&alert.actor, 80);
    let cluster = cap(&alert.cluster, 80);
    let line = format!("{}: {who} in {cluster}, {}, lapwing show {}", headline(alert), when(alert), short(&alert.id));
    // One alert is one line, whatever it is called.
    visible(&line).into_owned()
}

/// Enough of an id to find the alert by, and nothing a shell would not take as it is.
fn short(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(12).collect()
}

fn unusual(alert: &Alert) -> Vec<String> {
    let reasons = alert.anomaly.iter().flat_map(|a| &a.reasons);
    reasons.map(|r| format!("{:.1} bits: {}", r.bits, visible(&r.text))).collect()
}

/// Longest value shown to a person; the whole text is in the JSON outputs.
const SHOWN: usize = 400;

fn shown(text: &str) -> String {
    terminal(&cap(text, SHOWN)).into_owned()
}

fn style(level: Level, colours: bool) -> Style {
    match level {
        _ if !colours => Style::new(),
        Level::Critical => Style::new().bold().white().on_red(),
        Level::High => Style::new().bold().red(),
        Level::Medium => Style::new().bold().yellow(),
        Level::Low => Style::new().bold().cyan(),
        Level::Informational => Style::new().bold(),
    }
}

/// The human rendering, several lines, ending in an empty one. Safe to print on a terminal.
pub fn plain(alert: &Alert, colours: bool) -> String {
    layout(&words(alert), alert.level, colours)
}

/// Words as several lines, ending in an empty one. Safe to print on a terminal.
pub fn layout(words: &Words, level: Level, colours: bool) -> String {
    let dim = if colours { Style::new().dimmed() } else { Style::new() };
    let mut out = format!("{}\n", shown(&words.headline).style(style(level, colours)));
    out.push_str(&sentence(&words.summary));
    for (label, value) in &words.facts {
        out.push_str(&format!("  {} {}\n", format!("{label:<8}").style(dim), shown(value)));
    }
    paragraph(&mut out, "Why it is unusual", &words.unusual, "- ", dim);
    paragraph(&mut out, "Why it matters", std::slice::from_ref(&words.why), "", dim);
    paragraph(&mut out, "Harmless when", &words.false_positives, "- ", dim);
    paragraph(&mut out, "Do next", &words.next_steps, "$ ", dim);
    paragraph(&mut out, "Told with it", &words.others, "- ", dim);
    out.push('\n');
    out
}

/// `HIGH` in its colour.
pub fn level(level: Level, colours: bool) -> String {
    level.as_str().to_uppercase().style(style(level, colours)).to_string()
}

/// Three lines: headline, sentence, and when, where and how often. Safe to print on a terminal.
pub fn brief(alert: &Alert, colours: bool) -> String {
    let headline = shown(&headline(alert));
    let line = format!("{}  cluster {}  rule {}  alert {}", when(alert), alert.cluster, alert.rule.id, alert.id);
    let dim = if colours { Style::new().dimmed() } else { Style::new() };
    let headline = headline.style(style(alert.level, colours));
    format!("{headline}\n{}  {}\n\n", sentence(&alert.summary), shown(&line).style(dim))
}

/// The sentence of an alert; what a sender put into it cannot begin a line where a label would.
fn sentence(summary: &str) -> String {
    format!("  {}\n", wrap(&shown(summary), WIDTH - 4).join("\n    "))
}

fn paragraph(out: &mut String, title: &str, lines: &[String], bullet: &str, dim: Style) {
    let mut lines = lines.iter().flat_map(|l| l.lines()).filter(|l| !l.trim().is_empty()).peekable();
    if lines.peek().is_none() {
        return;
    }
    out.push_str(&format!("  {}\n", title.style(dim)));
    for line in lines {
        let line = terminal(&cap(line, 1000)).into_owned();
        // A command stays on one line: it is there to be copied.
        if bullet == "$ " && is_command(&line) {
            out.push_str(&format!("    $ {line}\n"));
            continue;
        }
        let bullet = if bullet == "$ " { "- " } else { bullet };
        let hanging = " ".repeat(bullet.len());
        for (i, part) in wrap(&line, WIDTH - 4 - bullet.len()).iter().enumerate() {
            out.push_str(&format!("    {}{part}\n", if i == 0 { bullet } else { &hanging }));
        }
    }
}

/// Prose is wrapped here: it fits a terminal as small as they come.
const WIDTH: usize = 78;

/// `text` in lines of at most `width` characters, broken between words; a longer word has its own line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let letters = word.chars().count();
        match lines.last_mut() {
            Some(line) if length + 1 + letters <= width => {
                line.push(' ');
                line.push_str(word);
                length += 1 + letters;
            }
            _ => {
                lines.push(word.to_owned());
                length = letters;
            }
        }
    }
    lines
}

/// Does this next step look like something to type, and nothing else?
pub fn is_command(step: &str) -> bool {
    !step.contains(": ") && ["kubectl ", "lapwing ", "crictl ", "openssl "].iter().any(|tool| step.starts_with(tool))
}

/// Colours belong on a terminal only, and `NO_COLOR` turns them off.
pub fn colours_wanted() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[test]
    fn says_why_it_is_unusual_in_words_and_bits() {
        let anomaly = serde_json::json!({
            "kind": "surprise", "surpriseBits": 11.7, "riskBits": 12.0, "threshold": 8.0, "confidence": "high",
            "principal": { "name": "web", "class": "serviceaccount", "since": "2026-03-01T12:00:00Z", "activeHours": 90.0 },
            "reasons": [{ "dimension": "client", "value": "curl", "bits": 4.93, "seen": 0.0, "of": 90.0, "peers": 0,
                "text": "never before used curl; usual: web (100 %)" }],
            "tactics": [],
        });
        let anomaly = Some(serde_json::from_value(anomaly).expect("an anomaly"));
        let text = plain(&Alert { anomaly, ..sample::alert() }, false);
        let told = "Why it is unusual\n    - 4.9 bits: never before used curl; usual: web (100 %)\n";
        assert!(text.contains(told), "{text}");
        assert!(!plain(&sample::alert(), false).contains("unusual"));
    }

    #[test]
    fn says_who_did_what_from_where_and_what_to_run() {
        let text = plain(&sample::alert(), false);
        insta_like(&text);
    }

    fn insta_like(text: &str) {
        let expected = "\
HIGH Shell opened in a pod
  alice opened a shell in pod web-1 (namespace shop) from 203.0.113.7; it
    was allowed
  Who      alice (human)
  What     exec pods/exec web-1 in shop
  From     203.0.113.7
  Client   kubectl/v1.31.0
  Right    RoleBinding shop/devs
  Outcome  allowed (101)
  Detail   command: sh -i
  When     2026-03-01 12:00:00 UTC
  Cluster  prod
  Rule     pod-exec-shell
  Alert    a1b2c3d4
  Why it matters
    A shell in a pod runs with the pod's rights.
  Harmless when
    - Debugging by the team that owns the pod
  Do next
    $ kubectl -n shop get pod web-1 -o yaml
    - Ask alice whether this was planned

";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_hostile_field_stays_on_its_line_and_sends_no_escape() {
        let mut alert = sample::alert();
        alert.summary = "a".to_owned();
        let lines = plain(&alert, false).lines().count();
        alert.evidence[0].user_agent = "x\n  Outcome  denied\x1b[2J\u{202e}".to_owned();
        alert.summary = "a\r\nb".to_owned();
        let text = plain(&alert, false);
        assert_eq!(text.lines().count(), lines);
        assert!(text.contains("\\u000a  Outcome  denied\\u001b[2J\\u202e"), "{text}");
    }

    #[test]
    fn prose_is_wrapped_and_commands_are_not() {
        let mut alert = sample::alert();
        alert.why = "word ".repeat(40);
        alert.next_steps = vec!["step ".repeat(30), format!("kubectl get pod {}", "x".repeat(90))];
        let text = plain(&alert, false);
        let long: Vec<_> = text.lines().filter(|l| l.chars().count() > WIDTH).collect();
        assert!(matches!(long.as_slice(), [command] if command.starts_with("    $ kubectl get pod x")), "{long:?}");
        assert!(text.contains("    - step") && text.contains("\n      step"), "{text}");
        assert!(!is_command("kubectl get pod x -o yaml: what can it do?"));
    }

    #[test]
    fn a_message_shows_the_worst_first_and_the_others_a_line_each() {
        let (first, mut worst) = (sample::alert(), sample::hostile("eve\nWho: root"));
        worst.level = Level::Critical;
        let many = vec![first.clone(); 30];
        let all: Vec<&Alert> = many.iter().chain([&worst]).collect();
        let words = message(&all);
        assert_eq!(words.headline, "31 alerts, the worst: CRITICAL Shell opened in a pod");
        assert_eq!(words.next_steps[0], "lapwing show a1b2c3d4");
        assert_eq!(words.others.len(), LISTED + 1);
        assert_eq!(
            words.others[0],
            "HIGH Shell opened in a pod: alice in prod, 2026-03-01 12:00:00 UTC, lapwing show a1b2c3d4"
        );
        assert_eq!(words.others[LISTED], "and 10 more: lapwing search kind:alert --since 1d");
        assert!(message(&[&first, &worst]).others.iter().all(|l| !l.contains('\n')), "an alert is one line");
    }

    #[test]
    fn what_a_sender_wrote_is_no_link() {
        let hostile = sample::hostile("HTTPS://evil www.WWW.evil MailTo:x@evil http://http://x");
        let mut other = sample::alert();
        other.level = Level::Critical;
        for alerts in [vec![&hostile], vec![&hostile, &other]] {
            let text = layout(&message(&alerts), Level::High, false).to_ascii_lowercase();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for link in ["://e", "://h", "://x", "www.", "mailto:"] {
                assert!(!text.replace("[://]", "").contains(link), "{link} in {text}");
            }
            assert!(text.contains("https[://]evil www[.]www[.]evil mailto[:]x@evil http[://]http[://]x"), "{text}");
        }
        assert_eq!(words(&hostile).summary, hostile.summary, "machines get it as it was");
    }

    #[test]
    fn colours_only_when_asked() {
        assert!(!plain(&sample::alert(), false).contains('\x1b'));
        assert!(plain(&sample::alert(), true).contains('\x1b'));
    }

    #[test]
    fn a_headline_says_test_update_and_doubt() {
        let mut alert = sample::alert();
        alert.status = Status::Test;
        assert_eq!(headline(&alert), "TEST: HIGH Shell opened in a pod");
        alert.status = Status::Update;
        alert.verdict = Verdict::Undecidable;
        assert_eq!(headline(&alert), "UPDATE: HIGH Shell opened in a pod (cannot be decided)");
    }

    #[test]
    fn a_group_tells_its_span() {
        let mut alert = sample::alert();
        alert.count = 12;
        alert.last += chrono::Duration::seconds(61);
        let words = words(&alert);
        let when = words.facts.iter().find(|(l, _)| *l == "When").map(|(_, v)| v.as_str());
        assert_eq!(when, Some("2026-03-01 12:00:00 UTC to 12:01:01 UTC, 12 times"));
    }
}
