//! LEEF 2.0 (QRadar): a header, then `key=value` pairs between tabs. The format has no escapes, so what would end a value
//! becomes visible text.

use std::net::IpAddr;

use lapwing_engine::alert::{Alert, Level, Status};

use super::encode::{cap, leef_header, leef_value};
use super::{shrink, text};

/// Longest value, in characters.
const VALUE: usize = 1023;

/// 1 to 10.
const fn severity(level: Level) -> u8 {
    match level {
        Level::Informational => 1,
        Level::Low => 3,
        Level::Medium => 5,
        Level::High => 8,
        Level::Critical => 10,
    }
}

/// `alert` as one LEEF record of at most `max` bytes.
pub fn encode(alert: &Alert, max: usize) -> String {
    shrink::fit(alert, max, |alert, _| record(alert))
}

fn record(alert: &Alert) -> String {
    let e = text::leading(alert).cloned().unwrap_or_default();
    let test = if alert.status == Status::Test { "TEST: " } else { "" };
    let source = e.address.parse::<IpAddr>().map(|ip| ip.to_string()).unwrap_or_default();
    let fields = [
        ("devTime", alert.last.timestamp_millis().to_string()),
        ("cat", format!("alert-{}", alert.status.as_str())),
        ("sev", severity(alert.level).to_string()),
        ("src", source),
        ("usrName", alert.actor.clone()),
        ("resource", text::target(&e)),
        ("ruleTitle", format!("{test}{}", alert.rule.title)),
        ("alertId", alert.id.clone()),
        ("auditId", alert.audit_ids.last().cloned().unwrap_or_default()),
        ("count", alert.count.to_string()),
        ("cluster", alert.cluster.clone()),
        ("namespace", e.namespace.clone()),
        ("action", e.action.clone()),
        ("verb", e.verb.clone()),
        ("outcome", e.outcome.clone()),
        ("responseCode", e.code.map(|c| c.to_string()).unwrap_or_default()),
        ("actingAs", e.acting_as.clone().unwrap_or_default()),
        ("right", e.right.clone()),
        ("userAgent", e.user_agent.clone()),
        ("tags", alert.rule.tags.join(",")),
        ("msg", alert.summary.clone()),
    ];
    let pair = |(key, value): (&str, String)| format!("{key}={}", leef_value(&cap(&value, VALUE)));
    let pairs: Vec<String> = fields.into_iter().filter(|(_, value)| !value.is_empty()).map(pair).collect();
    let version = env!("CARGO_PKG_VERSION");
    let id = leef_header(&cap(&alert.rule.id, 100));
    format!("LEEF:2.0|Lapwing|Lapwing|{version}|{id}|x09|{}", pairs.join("\t"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::output::sample;

    /// A reader after the specification.
    fn read(line: &str) -> (Vec<&str>, BTreeMap<&str, &str>) {
        let mut parts = line.splitn(7, '|');
        let header: Vec<&str> = parts.by_ref().take(6).collect();
        assert_eq!((header.len(), header[5]), (6, "x09"));
        let pairs: Vec<(&str, &str)> = parts.next().unwrap().split('\t').map(|p| p.split_once('=').unwrap()).collect();
        let map: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        assert_eq!(map.len(), pairs.len(), "no key twice: {line:?}");
        (header, map)
    }

    #[test]
    fn reads_as_expected() {
        let line = encode(&sample::alert(), 8000);
        let (header, fields) = read(&line);
        assert_eq!(header[4], "pod-exec-shell");
        assert_eq!((fields["usrName"], fields["src"], fields["sev"]), ("alice", "203.0.113.7", "8"));
        assert_eq!((fields["cat"], fields["devTime"]), ("alert-new", "1772366400000"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn nothing_adds_a_field_and_it_always_fits(
            text in "[a-z=|\\\\ \t\n\\x01\u{1f600}\u{202e}]{0,3000}", max in 2000usize..8000,
        ) {
            let mut alert = sample::hostile(&text);
            alert.rule.title = text.clone();
            alert.rule.id = text.clone();
            let plain = encode(&sample::alert(), 80_000);
            let known: Vec<&str> = read(&plain).1.into_keys().chain(["actingAs"]).collect();
            let line = encode(&alert, max);
            prop_assert!(line.len() <= max, "{}", line.len());
            prop_assert!(!line.contains(['\n', '\r']));
            let (_, fields) = read(&line);
            prop_assert!(fields.keys().all(|key| known.contains(key)), "{fields:?}");
            prop_assert!(fields.contains_key("alertId"));
        }
    }
}
