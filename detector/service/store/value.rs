//! Values of query clauses: text becomes a type here.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use ipnet::IpNet;
use lapwing_engine::alert::Level;

use super::doc::to_v6;

/// What "now" is and how times without a zone are read.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Microseconds since the epoch.
    pub now: i64,
    /// Times without a zone are UTC; otherwise local.
    pub utc: bool,
}

impl Clock {
    /// The time of this machine.
    pub fn system(utc: bool) -> Self {
        Self { now: Utc::now().timestamp_micros(), utc }
    }

    fn zoned(self, naive: NaiveDateTime) -> Option<i64> {
        if self.utc {
            Some(naive.and_utc().timestamp_micros())
        } else {
            Local.from_local_datetime(&naive).earliest().map(|t| t.timestamp_micros())
        }
    }
}

/// Reads `2h`, `3d`, `now`, `2026-11-20`, `2026-11-20T16:00` or RFC 3339 (seconds may be left out)
/// to microseconds since the epoch. A duration lies before now.
pub(super) fn time(text: &str, clock: Clock) -> Option<i64> {
    if text == "now" {
        return Some(clock.now);
    }
    if let Some(ago) = duration(text) {
        return Some(clock.now.saturating_sub(ago));
    }
    if let Ok(t) = DateTime::parse_from_rfc3339(text) {
        return Some(t.timestamp_micros());
    }
    for format in ["%Y-%m-%dT%H:%M%:z", "%Y-%m-%dT%H:%M%z"] {
        if let Ok(t) = DateTime::parse_from_str(&text.replace('Z', "+00:00"), format) {
            return Some(t.timestamp_micros());
        }
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(t) = NaiveDateTime::parse_from_str(text, format) {
            return clock.zoned(t);
        }
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|d| clock.zoned(d.and_time(NaiveTime::MIN)))
}

/// `90s`, `15m`, `2h`, `3d`, `1w` in microseconds.
fn duration(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000)
}

/// How a value compares: `high`, `>=high`, `<500`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// Splits the comparison off the front of a value.
pub(super) fn comparison(text: &str) -> (Comparison, &str) {
    for (sign, comparison) in [
        (">=", Comparison::AtLeast),
        ("<=", Comparison::AtMost),
        (">", Comparison::Above),
        ("<", Comparison::Below),
        ("=", Comparison::Equal),
    ] {
        if let Some(rest) = text.strip_prefix(sign) {
            return (comparison, rest);
        }
    }
    (Comparison::Equal, text)
}

/// `403`, `4xx`, `>=400` as an inclusive range of HTTP status codes; may be empty (`<0`).
pub(super) fn code(text: &str) -> Option<RangeInclusive<u64>> {
    const MAX: u64 = u16::MAX as u64;
    let (comparison, rest) = comparison(text);
    if let Some(class) = rest.strip_suffix("xx").or_else(|| rest.strip_suffix('*')) {
        let class: u64 = class.parse().ok().filter(|c| (1..=9).contains(c))?;
        return (comparison == Comparison::Equal).then_some(class * 100..=class * 100 + 99);
    }
    let n = u64::from(rest.parse::<u16>().ok()?);
    Some(match comparison {
        Comparison::Equal => n..=n,
        Comparison::AtLeast => n..=MAX,
        Comparison::AtMost => 0..=n,
        Comparison::Above => n + 1..=MAX,
        Comparison::Below => match n.checked_sub(1) {
            Some(n) => 0..=n,
            None => RangeInclusive::new(1, 0),
        },
    })
}

/// `high`, `>=medium`: the levels meant.
pub(super) fn levels(text: &str) -> Option<Vec<Level>> {
    let (comparison, name) = comparison(text);
    let level = Level::parse(&name.to_ascii_lowercase())?;
    let holds = |l: &Level| match comparison {
        Comparison::Equal => *l == level,
        Comparison::AtLeast => *l >= level,
        Comparison::AtMost => *l <= level,
        Comparison::Above => *l > level,
        Comparison::Below => *l < level,
    };
    Some(Level::ALL.into_iter().filter(holds).collect())
}

/// An address or a CIDR range, both ends inclusive, IPv4 in its mapped form.
pub(super) fn addresses(text: &str) -> Option<RangeInclusive<Ipv6Addr>> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(to_v6(ip)..=to_v6(ip));
    }
    let net = text.parse::<IpNet>().ok()?;
    Some(to_v6(net.network())..=to_v6(net.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_documented_form() {
        let clock = Clock { now: 1_795_190_557_000_000, utc: true };
        let at = |s| DateTime::parse_from_rfc3339(s).map(|t| t.timestamp_micros()).ok();
        for (text, want) in [
            ("now", Some(clock.now)),
            ("90s", Some(clock.now - 90_000_000)),
            ("2h", Some(clock.now - 7_200_000_000)),
            ("1w", Some(clock.now - 604_800_000_000)),
            ("2026-11-20", at("2026-11-20T00:00:00Z")),
            ("2026-11-20T16:00", at("2026-11-20T16:00:00Z")),
            ("2026-11-20T16:00:07", at("2026-11-20T16:00:07Z")),
            ("2026-11-20T16:00Z", at("2026-11-20T16:00:00Z")),
            ("2026-11-20T16:00+01:00", at("2026-11-20T15:00:00Z")),
            ("2026-11-20T16:00:07.5Z", at("2026-11-20T16:00:07.5Z")),
            ("", None),
            ("h", None),
            ("-2h", None),
            ("2y", None),
            ("2µ", None),
            ("99999999999999999999h", None),
            ("9223372036854775807w", None),
            ("yesterday", None),
        ] {
            assert_eq!(time(text, clock), want, "{text}");
        }
    }

    #[test]
    fn codes_and_levels_compare() {
        assert_eq!(code("403"), Some(403..=403));
        assert_eq!(code("4xx"), Some(400..=499));
        assert_eq!(code(">=500"), Some(500..=65_535));
        assert_eq!(code("<300"), Some(0..=299));
        assert!(code("<0").is_some_and(|r| r.is_empty()));
        assert_eq!(code("forbidden"), None);
        assert_eq!(code("0xx"), None);
        assert_eq!(code(">4xx"), None);
        assert_eq!(levels(">=high"), Some(vec![Level::High, Level::Critical]));
        assert_eq!(levels("<low"), Some(vec![Level::Informational]));
        assert_eq!(levels("LOW"), Some(vec![Level::Low]));
        assert_eq!(levels(">critical"), Some(vec![]));
        assert_eq!(levels("urgent"), None);
    }
}
