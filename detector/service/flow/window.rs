//! Times that recur, after Alertmanager's time intervals: `weekdays: [monday:friday]`, `times: [{from: "09:00", to:
//! "17:00"}]`, `location: Europe/Berlin`. An interval holds when each of its lists that is not empty holds.

use chrono::{DateTime, Datelike, NaiveTime, Timelike, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A name for times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "intervals"]))]
pub struct TimeInterval {
    /// What routes call it by.
    pub name: String,
    /// It holds when one of these does.
    pub intervals: Vec<Interval>,
}

/// Times within days; lists that are empty do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Interval {
    /// Times of the day.
    pub times: Vec<Times>,
    /// `monday` or `monday:friday`.
    pub weekdays: Vec<String>,
    /// `1`, `1:7`; `-1` is the last day of the month.
    pub days_of_month: Vec<String>,
    /// `1:3`, `may:august`.
    pub months: Vec<String>,
    /// `2026`, `2026:2027`.
    pub years: Vec<String>,
    /// Whose clocks and calendars are meant, by the name of the time zone: `Europe/Berlin`. Default: UTC.
    pub location: Option<String>,
}

/// From a time of the day up to, not including, another of the same day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[schemars(extend("required" = ["from", "to"]))]
pub struct Times {
    /// `02:00`.
    pub from: String,
    /// `04:30`; `24:00` is the end of the day.
    pub to: String,
}

const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Why an interval cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("`{0}` is no time; expected `HH:MM`")]
    Time(String),
    #[error("`{from}` to `{to}` is no span; the first must be earlier, over midnight are two spans")]
    Span { from: String, to: String },
    #[error("no time zone `{0}`; expected a name such as `Europe/Berlin` or `UTC`")]
    Location(String),
    #[error("`{text}` is no {what}; expected for example `{example}`")]
    Range { what: &'static str, text: String, example: &'static str },
}

type Range = (i32, i32);

/// A checked [`Interval`].
#[derive(Clone, Debug)]
struct Checked {
    /// Minutes of the day.
    times: Vec<Range>,
    weekdays: Vec<Range>,
    days: Vec<Range>,
    months: Vec<Range>,
    years: Vec<Range>,
    /// The rules of time zones are part of the program: what the machine has of them does not matter.
    zone: Tz,
}

/// A checked [`TimeInterval`].
#[derive(Clone, Debug)]
pub struct Window {
    pub name: String,
    intervals: Vec<Checked>,
}

impl Window {
    pub fn new(config: &TimeInterval) -> Result<Self, WindowError> {
        let intervals = config.intervals.iter().map(check).collect::<Result<_, _>>()?;
        Ok(Self { name: config.name.clone(), intervals })
    }

    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        self.intervals.iter().any(|i| i.holds(now))
    }
}

impl Checked {
    fn holds(&self, now: DateTime<Utc>) -> bool {
        let now = now.with_timezone(&self.zone);
        let within = |ranges: &[Range], value: i32| {
            ranges.is_empty() || ranges.iter().any(|(from, to)| (*from..=*to).contains(&value))
        };
        let minute = (now.hour() * 60 + now.minute()) as i32;
        let (day, last) = (now.day() as i32, i32::from(now.num_days_in_month()));
        let from_start = |d: i32| if d < 0 { last + 1 + d } else { d };
        let days: Vec<Range> = self.days.iter().map(|(a, b)| (from_start(*a), from_start(*b))).collect();
        (self.times.is_empty() || self.times.iter().any(|(from, to)| (*from..*to).contains(&minute)))
            && within(&self.weekdays, now.weekday().num_days_from_sunday() as i32)
            && within(&days, day)
            && within(&self.months, now.month() as i32)
            && within(&self.years, now.year())
    }
}

fn check(interval: &Interval) -> Result<Checked, WindowError> {
    let named = |names: &'static [&str], base: i32| {
        move |text: &str| {
            let at = names.iter().position(|name| name.eq_ignore_ascii_case(text));
            at.map(|at| at as i32 + base).or_else(|| text.parse().ok().filter(|_| base == 1))
        }
    };
    let plain = |text: &str| text.parse::<i32>().ok();
    let zone = |name: &String| name.parse().map_err(|_| WindowError::Location(name.clone()));
    Ok(Checked {
        zone: interval.location.as_ref().map_or(Ok(Tz::UTC), zone)?,
        times: interval.times.iter().map(span).collect::<Result<_, _>>()?,
        weekdays: ranges(&interval.weekdays, "weekday", "monday:friday", named(&DAYS, 0), 0..=6)?,
        days: ranges(&interval.days_of_month, "day of a month", "1:7", plain, -31..=31)?,
        months: ranges(&interval.months, "month", "may:august", named(&MONTHS, 1), 1..=12)?,
        years: ranges(&interval.years, "year", "2026", plain, 1970..=9999)?,
    })
}

fn ranges(
    texts: &[String],
    what: &'static str,
    example: &'static str,
    read: impl Fn(&str) -> Option<i32>,
    allowed: std::ops::RangeInclusive<i32>,
) -> Result<Vec<Range>, WindowError> {
    let one = |text: &String| {
        let (from, to) = text.split_once(':').unwrap_or((text, text));
        let (from, to) = (read(from.trim())?, read(to.trim())?);
        let ordered = from <= to || (from > 0 && to < 0);
        let real = |n: i32| allowed.contains(&n) && (n != 0 || *allowed.start() == 0);
        (ordered && real(from) && real(to)).then_some((from, to))
    };
    let wrong = |text: &String| WindowError::Range { what, text: text.clone(), example };
    texts.iter().map(|text| one(text).ok_or_else(|| wrong(text))).collect()
}

fn span(times: &Times) -> Result<Range, WindowError> {
    let minute = |text: &str| match text {
        "24:00" => Ok(24 * 60),
        _ => NaiveTime::parse_from_str(text, "%H:%M")
            .map(|t| (t.hour() * 60 + t.minute()) as i32)
            .map_err(|_| WindowError::Time(text.to_owned())),
    };
    let (from, to) = (minute(&times.from)?, minute(&times.to)?);
    if from < to { Ok((from, to)) } else { Err(WindowError::Span { from: times.from.clone(), to: times.to.clone() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(yaml: &str) -> Result<Window, WindowError> {
        let intervals: Vec<Interval> = serde_saphyr::from_str(yaml).unwrap();
        Window::new(&TimeInterval { name: "w".into(), intervals })
    }

    #[test]
    fn intervals_hold_when_each_list_does() {
        let office = "[{ weekdays: ['monday:friday'], times: [{ from: '09:00', to: '17:00' }] }]";
        let month_end = "[{ daysOfMonth: ['-2:-1'] }]";
        let nights = "[{ times: [{ from: '22:00', to: '24:00' }] }, { times: [{ from: '00:00', to: '06:00' }] }]";
        for (yaml, time, wanted) in [
            (office, "2026-03-02T09:00:00Z", true),
            (office, "2026-03-02T16:59:59Z", true),
            (office, "2026-03-02T17:00:00Z", false),
            (office, "2026-03-01T12:00:00Z", false),
            (month_end, "2028-02-29T00:00:00Z", true),
            (month_end, "2028-02-27T00:00:00Z", false),
            (nights, "2026-03-02T23:59:00Z", true),
            (nights, "2026-03-02T05:59:00Z", true),
            (nights, "2026-03-02T06:00:00Z", false),
            ("[{ months: ['may:august', '12'], years: ['2026'] }]", "2026-06-01T00:00:00Z", true),
            ("[{ months: ['may:august', '12'], years: ['2026'] }]", "2026-12-01T00:00:00Z", true),
            ("[{ months: ['may:august'], years: ['2026'] }]", "2027-06-01T00:00:00Z", false),
            ("[{ daysOfMonth: ['5:-1'] }]", "2026-03-31T00:00:00Z", true),
            ("[]", "2026-03-31T00:00:00Z", false),
        ] {
            assert_eq!(window(yaml).unwrap().holds(time.parse().unwrap()), wanted, "{yaml} {time}");
        }
    }

    #[test]
    fn clocks_are_those_of_the_place() {
        let of = |times: &str, zone: &str| format!("[{{ times: [{times}], location: {zone} }}]");
        let nights = of("{ from: '02:00', to: '03:00' }", "Europe/Berlin");
        let day = of("{ from: '09:00', to: '17:00' }", "America/New_York");
        let monday = "[{ weekdays: [monday], location: Pacific/Auckland }]";
        let month_end = "[{ daysOfMonth: ['-1'], location: Asia/Kolkata }]";
        for (yaml, time, wanted) in [
            // Winter and summer: the same clock, another hour of UTC.
            (day.as_str(), "2026-01-15T14:00:00Z", true),
            (day.as_str(), "2026-01-15T13:30:00Z", false),
            (day.as_str(), "2026-07-15T13:30:00Z", true),
            (day.as_str(), "2026-07-15T21:00:00Z", false),
            // The night the clocks go forward has no hour between two and three.
            (nights.as_str(), "2026-03-28T01:30:00Z", true),
            (nights.as_str(), "2026-03-29T00:59:59Z", false),
            (nights.as_str(), "2026-03-29T01:00:00Z", false),
            (nights.as_str(), "2026-03-30T00:30:00Z", true),
            // The night they go back has it twice.
            (nights.as_str(), "2026-10-24T23:59:59Z", false),
            (nights.as_str(), "2026-10-25T00:00:00Z", true),
            (nights.as_str(), "2026-10-25T01:59:59Z", true),
            (nights.as_str(), "2026-10-25T02:00:00Z", false),
            // Days begin elsewhere too.
            (monday, "2026-03-01T11:00:00Z", true),
            (monday, "2026-03-01T10:59:59Z", false),
            (monday, "2026-03-02T11:00:00Z", false),
            (month_end, "2026-02-27T18:30:00Z", true),
            (month_end, "2026-02-28T18:30:00Z", false),
        ] {
            assert_eq!(window(yaml).unwrap().holds(time.parse().unwrap()), wanted, "{yaml} {time}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for yaml in [
            "[{ weekdays: [mittwoch] }]",
            "[{ weekdays: ['friday:monday'] }]",
            "[{ weekdays: ['3'] }]",
            "[{ location: Berlin }]",
            "[{ location: Local }]",
            "[{ daysOfMonth: ['0'] }]",
            "[{ daysOfMonth: ['32'] }]",
            "[{ months: ['13'] }]",
            "[{ times: [{ from: '25:00', to: '26:00' }] }]",
            "[{ times: [{ from: '22:00', to: '06:00' }] }]",
        ] {
            assert!(window(yaml).is_err(), "{yaml}");
        }
    }
}
