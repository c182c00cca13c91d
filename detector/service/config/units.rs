//! Durations and sizes as people write them: `1h`, `30d`, `20GiB`.
//!
//! Both parse from one text, print back the shortest exact form, and describe themselves in the
//! JSON Schema (keyword `x-lapwing`), so that the checker can say what was wrong and where.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a duration or a size could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("`{0}` has no number; write for example {1}")]
    NoNumber(String, &'static str),
    #[error("`{0}` has no unit; write for example {1}")]
    NoUnit(String, &'static str),
    #[error("`{0}` has the unknown unit `{1}`; units are {2}")]
    UnknownUnit(String, String, &'static str),
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// A length of time: one or more numbers with a unit, largest first: `90s`, `1h30m`, `30d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// Milliseconds per unit, largest first. A day is 24 hours and a week 7 days, always.
const DURATION_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const DURATION_EXAMPLE: &str = "`90s`, `1h` or `30d`";
const DURATION_NAMES: &str = "`ms`, `s`, `m`, `h`, `d` and `w`";

impl HumanDuration {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let unit = |name: &str| DURATION_UNITS.iter().find(|(n, _)| *n == name).map(|(_, ms)| *ms);
        let ms = sum(text, unit, DURATION_EXAMPLE, DURATION_NAMES)?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        f.pad(&compose(ms, &DURATION_UNITS[1..], "0s"))
    }
}

/// A number of bytes: `512B`, `64MiB`, `20GiB`; decimal `20GB` is accepted too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DECIMAL_SIZE_UNITS: [(&str, u64); 4] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
const SIZE_EXAMPLE: &str = "`64MiB` or `20GiB`";
const SIZE_NAMES: &str = "`B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` and `TB`";

impl ByteSize {
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let unit = |name: &str| {
            SIZE_UNITS.iter().chain(&DECIMAL_SIZE_UNITS).find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, b)| *b)
        };
        sum(text, unit, SIZE_EXAMPLE, SIZE_NAMES).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest_exact = SIZE_UNITS.iter().find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes));
        let (name, bytes) = largest_exact.unwrap_or(&("B", 1));
        f.pad(&format!("{}{name}", self.0 / bytes))
    }
}

/// Adds up `<number><unit>` pairs. A missing unit is an error: `60` could be seconds or minutes.
fn sum(
    text: &str,
    unit: impl Fn(&str) -> Option<u64>,
    example: &'static str,
    names: &'static str,
) -> Result<u64, UnitError> {
    let mut rest = text.trim();
    let mut total = 0u64;
    loop {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        if number.is_empty() {
            return Err(UnitError::NoNumber(text.into(), example));
        }
        let after = after.trim_start();
        let (name, next) = after.split_at(after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len()));
        if name.is_empty() {
            return Err(UnitError::NoUnit(text.into(), example));
        }
        let scale = unit(name).ok_or_else(|| UnitError::UnknownUnit(text.into(), name.into(), names))?;
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale));
        total = part.and_then(|p| total.checked_add(p)).ok_or_else(|| UnitError::TooLarge(text.into()))?;
        rest = next.trim_start();
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

fn compose(mut value: u64, units: &[(&str, u64)], zero: &str) -> String {
    let mut text = String::new();
    for (name, scale) in units {
        if value >= *scale {
            text.push_str(&format!("{}{name}", value / scale));
            value %= scale;
        }
    }
    if text.is_empty() { zero.to_owned() } else { text }
}

macro_rules! as_text {
    ($type:ident, $tag:literal, $example:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example], "x-lapwing": $tag })
            }
        }
    };
}

as_text!(HumanDuration, "duration", "1h", "^\\s*([0-9]+\\s*(ms|s|m|h|d|w)\\s*)+$");
as_text!(ByteSize, "size", "20GiB", "^\\s*([0-9]+\\s*([KkMmGgTt][Ii]?)?[Bb]\\s*)+$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, ms, printed) in [
            ("1h", 3_600_000, "1h"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("30d", 2_592_000_000, "30d"),
            ("2w", 1_209_600_000, "14d"),
            ("250ms", 250, "250ms"),
            (" 10 s ", 10_000, "10s"),
            ("0s", 0, "0s"),
        ] {
            let read: HumanDuration = text.parse().unwrap();
            assert_eq!(read.0.as_millis(), ms, "{text}");
            assert_eq!(read.to_string(), printed);
            assert_eq!(printed.parse::<HumanDuration>().unwrap(), read);
        }
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, printed) in [
            ("20GiB", 20 << 30, "20GiB"),
            ("1536MiB", 1536 << 20, "1536MiB"),
            ("64mib", 64 << 20, "64MiB"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("0B", 0, "0B"),
        ] {
            let read: ByteSize = text.parse().unwrap();
            assert_eq!(read.0, bytes, "{text}");
            assert_eq!(read.to_string(), printed);
            assert_eq!(printed.parse::<ByteSize>().unwrap(), read);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let duration = |text: &str| text.parse::<HumanDuration>().unwrap_err().to_string();
        assert_eq!(duration("60"), "`60` has no unit; write for example `90s`, `1h` or `30d`");
        assert_eq!(duration("h"), "`h` has no number; write for example `90s`, `1h` or `30d`");
        assert_eq!(duration(""), "`` has no number; write for example `90s`, `1h` or `30d`");
        assert_eq!(duration("-1h"), "`-1h` has no number; write for example `90s`, `1h` or `30d`");
        assert_eq!(duration("1y"), "`1y` has the unknown unit `y`; units are `ms`, `s`, `m`, `h`, `d` and `w`");
        assert_eq!(duration("99999999999999w"), "`99999999999999w` is too large");
        let size = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
        assert_eq!(
            size("20G"),
            "`20G` has the unknown unit `G`; units are `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` and `TB`"
        );
        assert_eq!(size("99999999TiB"), "`99999999TiB` is too large");
    }
}
