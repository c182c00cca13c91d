//! An alert as ArcSight CEF, within a size: bulky fields leave first, what remains is always valid CEF.

use std::net::IpAddr;

use lapwing_engine::alert::{Alert, Evidence, Level, Status};

use super::encode::{cap, cef_header, cef_value};
use super::text;

/// Extension fields in the order they are written.
type Fields = Vec<(&'static str, String)>;

/// Longest value of the fields that carry text of the event, in characters; the format's own limit.
const VALUE: usize = 1023;

/// What leaves first when a record is too large. The fields not named here always stay, shortened.
const BULKY: [&str; 9] = ["requestClientApplication", "request", "cs5", "reason", "duser", "cs6", "cs3", "cs2", "cs4"];

/// 0 to 10.
const fn severity(level: Level) -> u8 {
    match level {
        Level::Informational => 1,
        Level::Low => 3,
        Level::Medium => 5,
        Level::High => 8,
        Level::Critical => 10,
    }
}

fn add(fields: &mut Fields, key: &'static str, value: &str) {
    if !value.is_empty() {
        fields.push((key, cap(value, VALUE).into_owned()));
    }
}

fn labelled(fields: &mut Fields, (key, label_key): (&'static str, &'static str), label: &str, value: &str) {
    if !value.is_empty() {
        add(fields, label_key, label);
        add(fields, key, value);
    }
}

fn outcome(outcome: &str) -> &'static str {
    match outcome {
        "allowed" | "dry-run" => "success",
        _ => "failure",
    }
}

fn request(fields: &mut Fields, e: &Evidence) {
    add(fields, "duser", e.acting_as.as_deref().unwrap_or_default());
    match e.address.parse() {
        Ok(IpAddr::V4(ip)) => add(fields, "src", &ip.to_string()),
        Ok(IpAddr::V6(ip)) => labelled(fields, ("c6a2", "c6a2Label"), "Source IPv6 Address", &ip.to_string()),
        // CEF wants an address here or nothing.
        Err(_) => {}
    }
    add(fields, "act", &e.action);
    add(fields, "outcome", outcome(&e.outcome));
    add(fields, "requestMethod", &e.verb);
    add(fields, "requestClientApplication", &e.user_agent);
    add(fields, "reason", &e.right);
    if let Some(code) = e.code {
        labelled(fields, ("cn1", "cn1Label"), "HTTP status", &code.to_string());
    }
    labelled(fields, ("cs2", "cs2Label"), "Namespace", &e.namespace);
    if e.resource.starts_with('/') {
        add(fields, "request", &e.resource);
    } else {
        labelled(fields, ("cs3", "cs3Label"), "Resource", &e.resource);
    }
    labelled(fields, ("cs4", "cs4Label"), "Object", &e.name);
}

fn fields(alert: &Alert) -> Fields {
    let mut fields = Vec::new();
    add(&mut fields, "rt", &alert.last.timestamp_millis().to_string());
    add(&mut fields, "start", &alert.first.timestamp_millis().to_string());
    add(&mut fields, "end", &alert.last.timestamp_millis().to_string());
    add(&mut fields, "externalId", &alert.id);
    add(&mut fields, "deviceExternalId", alert.audit_ids.last().map_or("", String::as_str));
    add(&mut fields, "cat", alert.status.as_str());
    add(&mut fields, "cnt", &alert.count.to_string());
    add(&mut fields, "suser", &alert.actor);
    if let Some(e) = text::leading(alert) {
        request(&mut fields, e);
    }
    labelled(&mut fields, ("cs1", "cs1Label"), "Cluster", &alert.cluster);
    let (attack, other): (Vec<&str>, Vec<&str>) =
        alert.rule.tags.iter().map(String::as_str).partition(|t| t.starts_with("attack."));
    labelled(&mut fields, ("cs5", "cs5Label"), "Rule tags", &other.join(","));
    labelled(&mut fields, ("cs6", "cs6Label"), "ATT&CK", &attack.join(","));
    add(&mut fields, "msg", &alert.summary);
    fields
}

fn header(alert: &Alert, room: usize) -> String {
    let test = if alert.status == Status::Test { "TEST: " } else { "" };
    format!(
        "CEF:0|Lapwing|Lapwing|{}|{}|{test}{}|{}|",
        env!("CARGO_PKG_VERSION"),
        cef_header(&cap(&alert.rule.id, room.min(100))),
        cef_header(&cap(&alert.rule.title, room.min(200))),
        severity(alert.level)
    )
}

fn record(header: &str, fields: &Fields) -> String {
    let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{key}={}", cef_value(value))).collect();
    format!("{header}{}", pairs.join(" "))
}

/// `alert` as one line of CEF of at most `max` bytes, given at least 1500.
pub fn encode(alert: &Alert, max: usize) -> String {
    let mut fields = fields(alert);
    let mut line = record(&header(alert, VALUE), &fields);
    for bulky in BULKY {
        if line.len() <= max {
            return line;
        }
        fields.retain(|(key, _)| *key != bulky && key.strip_suffix("Label") != Some(bulky));
        line = record(&header(alert, VALUE), &fields);
    }
    let mut room = VALUE;
    while line.len() > max && room > 8 {
        room /= 2;
        for (_, value) in &mut fields {
            *value = cap(value, room).into_owned();
        }
        line = record(&header(alert, room), &fields);
    }
    line
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::output::sample;

    /// A small reader of CEF: header fields and extension. Panics on what no reader would take.
    pub fn read(line: &str) -> (Vec<String>, BTreeMap<String, String>) {
        assert!(!line.contains(['\n', '\r']), "one record is one line");
        let (mut header, mut field, mut chars) = (Vec::new(), String::new(), line.chars());
        while header.len() < 7 {
            match chars.next().expect("a whole header") {
                '\\' => field.push(chars.next().expect("an escaped character")),
                '|' => header.push(std::mem::take(&mut field)),
                c => field.push(c),
            }
        }
        (header, extension(chars.as_str()))
    }

    fn extension(text: &str) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let mut starts = Vec::new();
        let bytes = text.as_bytes();
        for (at, _) in text.match_indices('=').filter(|(at, _)| slashes_before(bytes, *at).is_multiple_of(2)) {
            let start = text[..at].rfind(' ').map_or(0, |s| s + 1);
            starts.push((start, at));
        }
        for (i, (start, at)) in starts.iter().enumerate() {
            let end = starts.get(i + 1).map_or(text.len(), |(next, _)| next - 1);
            let key = &text[*start..*at];
            assert!(!key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric()), "key {key:?} in {text:?}");
            assert!(out.insert(key.to_owned(), unescape(&text[at + 1..end])).is_none(), "{key} twice");
        }
        out
    }

    fn slashes_before(bytes: &[u8], at: usize) -> usize {
        bytes[..at].iter().rev().take_while(|b| **b == b'\\').count()
    }

    fn unescape(text: &str) -> String {
        let (mut out, mut chars) = (String::new(), text.chars());
        while let Some(c) = chars.next() {
            out.push(match c {
                '\\' => match chars.next().expect("an escaped character") {
                    'n' => '\n',
                    'r' => '\r',
                    c => c,
                },
                c => c,
            });
        }
        out
    }

    #[test]
    fn reads_as_expected() {
        assert_eq!(
            encode(&sample::alert(), 8000),
            format!(
                "CEF:0|Lapwing|Lapwing|{}|pod-exec-shell|Shell opened in a pod|8|\
                 rt=1772366400000 start=1772366400000 end=1772366400000 externalId=a1b2c3d4 \
                 deviceExternalId=7f0f6f3e-0000-4000-8000-000000000001 cat=new cnt=1 suser=alice src=203.0.113.7 \
                 act=exec outcome=success requestMethod=create requestClientApplication=kubectl/v1.31.0 \
                 reason=RoleBinding shop/devs cn1Label=HTTP status cn1=101 cs2Label=Namespace cs2=shop \
                 cs3Label=Resource cs3=pods/exec cs4Label=Object cs4=web-1 cs1Label=Cluster cs1=prod \
                 cs6Label=ATT&CK cs6=attack.execution,attack.t1609 \
                 msg=alice opened a shell in pod web-1 (namespace shop) from 203.0.113.7; it was allowed",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    #[test]
    fn injected_fields_stay_inside_their_value() {
        let evil = "x suser=root\nCEF:0|a|b|c|d|e|10| outcome=success \\";
        let (header, fields) = read(&encode(&sample::hostile(evil), 8000));
        assert_eq!(header[5], "Shell opened in a pod");
        assert_eq!(fields["suser"], evil);
        assert_eq!(fields["msg"], evil);
        assert_eq!(fields["outcome"], "failure");
        assert!(!fields.contains_key("src"), "not an address");
    }

    #[test]
    fn bulky_fields_leave_first() {
        let mut alert = sample::alert();
        alert.evidence[0].user_agent = "=".repeat(5000);
        let (_, fields) = read(&encode(&alert, 2000));
        assert!(!fields.contains_key("requestClientApplication"));
        assert_eq!(fields["cs4"], "web-1");
    }

    #[test]
    fn a_test_says_so() {
        let mut alert = sample::alert();
        alert.status = Status::Test;
        let (header, fields) = read(&encode(&alert, 8000));
        assert_eq!((header[5].as_str(), fields["cat"].as_str()), ("TEST: Shell opened in a pod", "test"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn always_valid_and_never_too_large(
            text in "[a-z=|\\\\ \n\\x01\u{1f600}\u{202e}]{0,3000}", max in 1500usize..8000,
        ) {
            let mut alert = sample::hostile(&text);
            alert.rule.title = text.clone();
            alert.rule.id = text;
            let line = encode(&alert, max);
            prop_assert!(line.len() <= max, "{}", line.len());
            let (_, fields) = read(&line);
            prop_assert!(fields.contains_key("externalId") && fields.contains_key("rt"));
        }
    }
}
