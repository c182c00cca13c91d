//! A tolerant, borrowing view of one audit event.
//!
//! The shape is `audit.k8s.io/v1 Event` (kubernetes/staging/src/k8s.io/apiserver/pkg/apis/audit/v1).
//! Unknown fields are ignored. A field of the wrong type does not hide its neighbours: the event is
//! read again field by field, what cannot be read is left empty and named in [`Event::malformed`].
//! Bodies stay raw text; nobody parses them before a rule or the index asks.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::carry::{NotCarried, Part};

/// Text borrowed from the event where it has no escapes.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for V<'a> {
            type Value = Text<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
            fn visit_string<E>(self, v: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(v)))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
        }
        d.deserialize_any(V(std::marker::PhantomData))
    }
}

/// How much the audit policy asked for. Ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditLevel {
    /// Absent or not one we know.
    #[default]
    Unknown,
    Metadata,
    Request,
    RequestResponse,
}

/// Which stage of the request this event tells about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    #[default]
    ResponseComplete,
    Panic,
    Unknown,
}

impl AuditLevel {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }

    pub fn parse(s: &str) -> Self {
        match s {
            "Metadata" => Self::Metadata,
            "Request" => Self::Request,
            "RequestResponse" => Self::RequestResponse,
            _ => Self::Unknown,
        }
    }
}

impl Stage {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
            Self::Unknown => "",
        }
    }

    pub fn parse(s: &str) -> Self {
        match s {
            "RequestReceived" => Self::RequestReceived,
            "ResponseStarted" => Self::ResponseStarted,
            "ResponseComplete" => Self::ResponseComplete,
            "Panic" => Self::Panic,
            _ => Self::Unknown,
        }
    }
}

macro_rules! from_text {
    ($t:ty) => {
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Text::deserialize(d).map(|t| Self::parse(&t))
            }
        }
    };
}
from_text!(AuditLevel);
from_text!(Stage);

/// String keys to values in the order of the event: annotations, `user.extra`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs<'a, V>(pub Vec<(Text<'a>, V)>);

impl<V> Default for Pairs<'_, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Pairs<'_, V> {
    /// The last value of `key`: Go keeps the last of duplicate keys.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.iter().rev().find(|(k, _)| k.as_str() == key).map(|(_, v)| v)
    }
}

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Pairs<'a, V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct P<'a, V>(std::marker::PhantomData<(&'a (), V)>);
        impl<'de: 'a, 'a, V: Deserialize<'de>> Visitor<'de> for P<'a, V> {
            type Value = Pairs<'a, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    out.push(entry);
                }
                Ok(Pairs(out))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Pairs::default())
            }
        }
        d.deserialize_any(P(std::marker::PhantomData))
    }
}

/// A list that may be `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct L<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for L<T> {
            type Value = List<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut out = Vec::new();
                while let Some(x) = seq.next_element()? {
                    out.push(x);
                }
                Ok(List(out))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(List::default())
            }
        }
        d.deserialize_any(L(std::marker::PhantomData))
    }
}

/// `user` or `impersonatedUser`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct User<'a> {
    pub username: Text<'a>,
    pub uid: Text<'a>,
    pub groups: List<Text<'a>>,
    pub extra: Pairs<'a, List<Text<'a>>>,
}

/// What the request was about; absent for non-resource URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
pub struct ObjectRef<'a> {
    pub resource: Text<'a>,
    pub namespace: Text<'a>,
    pub name: Text<'a>,
    pub uid: Text<'a>,
    pub api_group: Text<'a>,
    pub api_version: Text<'a>,
    pub resource_version: Text<'a>,
    pub subresource: Text<'a>,
}

/// How the request ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct ResponseStatus<'a> {
    pub status: Text<'a>,
    pub reason: Text<'a>,
    pub message: Text<'a>,
    pub code: Option<i64>,
}

/// Annotation of an event that lost its bodies on the way in because it was too large.
pub const BODIES_DROPPED: &str = "lapwing.dev/bodies-dropped";

/// One stage of one request, as the API server wrote it.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
pub struct Event<'a> {
    pub kind: Text<'a>,
    pub api_version: Text<'a>,
    pub level: AuditLevel,
    #[serde(rename = "auditID")]
    pub audit_id: Text<'a>,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    pub request_uri: Text<'a>,
    pub verb: Text<'a>,
    pub user: User<'a>,
    pub impersonated_user: Option<User<'a>>,
    #[serde(rename = "sourceIPs")]
    pub source_ips: List<Text<'a>>,
    pub user_agent: Text<'a>,
    pub object_ref: Option<ObjectRef<'a>>,
    pub response_status: Option<ResponseStatus<'a>>,
    #[serde(borrow)]
    pub request_object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub response_object: Option<&'a RawValue>,
    pub request_received_timestamp: Text<'a>,
    pub stage_timestamp: Text<'a>,
    pub annotations: Pairs<'a, Text<'a>>,
    /// Names of fields that were there but could not be read.
    #[serde(skip)]
    pub malformed: Vec<&'static str>,
    /// What is absent because the source cannot carry it.
    #[serde(skip)]
    pub not_carried: NotCarried,
}

/// Why a text is not an event.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    #[error("not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    #[error("not a JSON object")]
    NotAnObject,
    #[error("kind is `{0}`, expected `Event` of `audit.k8s.io`")]
    OtherKind(String),
    #[error("neither `auditID`, `verb` nor `requestURI` is there")]
    NothingInIt,
}

impl<'a> Event<'a> {
    /// Reads one event. Field-level damage is tolerated (see [`Event::malformed`]); what is no audit
    /// event at all is an error.
    pub fn parse(text: &'a str) -> Result<Self, NotAnEvent> {
        let event = match serde_json::from_str::<Self>(text) {
            Ok(event) => event,
            Err(_) => Self::parse_field_by_field(text)?,
        };
        Self { not_carried: NotCarried::of(text), ..event }.check()
    }

    fn check(self) -> Result<Self, NotAnEvent> {
        let kind_fits = self.kind.is_empty() || &*self.kind == "Event";
        let version_fits = self.api_version.is_empty() || self.api_version.starts_with("audit.k8s.io/");
        if !kind_fits || !version_fits {
            return Err(NotAnEvent::OtherKind(format!("{} {}", &*self.api_version, &*self.kind).trim().to_owned()));
        }
        if self.audit_id.is_empty() && self.verb.is_empty() && self.request_uri.is_empty() {
            return Err(NotAnEvent::NothingInIt);
        }
        Ok(self)
    }

    fn parse_field_by_field(text: &'a str) -> Result<Self, NotAnEvent> {
        if !text.trim_start().starts_with('{') {
            return match serde_json::from_str::<&RawValue>(text) {
                Ok(_) => Err(NotAnEvent::NotAnObject),
                Err(e) => Err(NotAnEvent::NotJson(e)),
            };
        }
        let fields: Pairs<'a, &'a RawValue> = match serde_json::from_str(text) {
            Ok(fields) => fields,
            Err(e) => return Err(NotAnEvent::NotJson(e)),
        };
        let mut event = Self::default();
        for (key, raw) in fields.0 {
            event.set(&key, raw);
        }
        Ok(event)
    }

    fn set(&mut self, key: &str, raw: &'a RawValue) {
        fn take<'a, T: Deserialize<'a>>(
            into: &mut T,
            name: &'static str,
            raw: &'a RawValue,
            malformed: &mut Vec<&'static str>,
        ) {
            match serde_json::from_str(raw.get()) {
                Ok(v) => *into = v,
                Err(_) => malformed.push(name),
            }
        }
        fn text<'a>(into: &mut Text<'a>, name: &'static str, raw: &'a RawValue, malformed: &mut Vec<&'static str>) {
            match serde_json::from_str(raw.get()) {
                Ok(v) => *into = v,
                Err(_) => {
                    // Keep the raw text: a wrong type or a lone surrogate must not hide the value.
                    *into = Text(Cow::Borrowed(raw.get().trim_matches('"')));
                    malformed.push(name);
                }
            }
        }
        let bad = &mut self.malformed;
        match key {
            "kind" => text(&mut self.kind, "kind", raw, bad),
            "apiVersion" => text(&mut self.api_version, "apiVersion", raw, bad),
            "level" => take(&mut self.level, "level", raw, bad),
            "auditID" => text(&mut self.audit_id, "auditID", raw, bad),
            "stage" => take(&mut self.stage, "stage", raw, bad),
            "requestURI" => text(&mut self.request_uri, "requestURI", raw, bad),
            "verb" => text(&mut self.verb, "verb", raw, bad),
            "user" => user(&mut self.user, "user", raw, bad),
            "impersonatedUser" => {
                let mut as_user = User::default();
                user(&mut as_user, "impersonatedUser", raw, bad);
                self.impersonated_user = (raw.get() != "null").then_some(as_user);
            }
            "sourceIPs" => take(&mut self.source_ips, "sourceIPs", raw, bad),
            "userAgent" => text(&mut self.user_agent, "userAgent", raw, bad),
            "objectRef" => take(&mut self.object_ref, "objectRef", raw, bad),
            "responseStatus" => take(&mut self.response_status, "responseStatus", raw, bad),
            "requestObject" => self.request_object = (raw.get() != "null").then_some(raw),
            "responseObject" => self.response_object = (raw.get() != "null").then_some(raw),
            "requestReceivedTimestamp" => {
                text(&mut self.request_received_timestamp, "requestReceivedTimestamp", raw, bad);
            }
            "stageTimestamp" => text(&mut self.stage_timestamp, "stageTimestamp", raw, bad),
            "annotations" => take(&mut self.annotations, "annotations", raw, bad),
            _ => {}
        }

        fn user<'a>(into: &mut User<'a>, name: &'static str, raw: &'a RawValue, bad: &mut Vec<&'static str>) {
            let Ok(fields) = serde_json::from_str::<Pairs<'a, &'a RawValue>>(raw.get()) else {
                bad.push(name);
                return;
            };
            let before = bad.len();
            for (key, raw) in fields.0 {
                match &*key {
                    "username" => text(&mut into.username, name, raw, bad),
                    "uid" => text(&mut into.uid, name, raw, bad),
                    "groups" => take(&mut into.groups, name, raw, bad),
                    "extra" => take(&mut into.extra, name, raw, bad),
                    _ => {}
                }
            }
            bad.truncate((before + 1).min(bad.len()));
        }
    }

    /// `text`, from which this was read, with `null` in place of the bodies.
    pub fn text_without_bodies<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let place = |body: &RawValue| {
            let start = (body.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            text.get(start..start + body.get().len()).map(|_| start..start + body.get().len())
        };
        let mut bodies: Vec<_> =
            [self.request_object, self.response_object].into_iter().flatten().filter_map(place).collect();
        if bodies.is_empty() {
            return Cow::Borrowed(text);
        }
        bodies.sort_by_key(|body| body.start);
        let mut head = String::with_capacity(text.len() - bodies.iter().map(ExactSizeIterator::len).sum::<usize>() + 8);
        let mut at = 0;
        for body in bodies {
            head.push_str(&text[at..body.start]);
            head.push_str("null");
            at = body.end;
        }
        head.push_str(&text[at..]);
        Cow::Owned(head)
    }

    /// The HTTP status, where the event has one in range.
    pub fn code(&self) -> Option<u16> {
        self.response_status.as_ref().and_then(|s| s.code).and_then(|c| u16::try_from(c).ok())
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(Text::as_str)
    }

    /// Stage time in microseconds since the epoch; the request's time where the stage's is missing.
    pub fn time(&self) -> Option<i64> {
        parse_time(&self.stage_timestamp).or_else(|| parse_time(&self.request_received_timestamp))
    }

    /// Bodies were removed because they were too large: by the API server, by Lapwing or by a log service on the way.
    pub fn truncated(&self) -> bool {
        let removed = ["audit.k8s.io/truncated", BODIES_DROPPED].iter().any(|key| self.annotation(key) == Some("true"));
        removed || self.not_carried.has(Part::RequestBody) || self.not_carried.has(Part::ResponseBody)
    }
}

/// RFC 3339 to microseconds since the epoch.
pub fn parse_time(text: &str) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    api_server_time(text).or_else(|| chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_micros()))
}

/// The form the API server writes, `2026-11-20T18:12:00.123456Z`, at a fifth of the cost; anything else is `None`.
fn api_server_time(text: &str) -> Option<i64> {
    let t: &[u8; 27] = text.as_bytes().try_into().ok()?;
    let fits = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
    if fits.iter().any(|(at, mark)| t[*at] != *mark) {
        return None;
    }
    let number = |from: usize, to: usize| {
        t[from..to].iter().try_fold(0u32, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
    };
    let date = chrono::NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
    let time = date.and_hms_micro_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 26)?)?;
    Some(time.and_utc().timestamp_micros())
}

/// Microseconds since the epoch to a UTC time; out of range becomes the epoch.
pub fn to_datetime(micros: i64) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_reads_a_time_as_the_long_one() {
        let long = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_micros());
        for text in ["2026-11-20T18:12:00.123456Z", "1969-12-31T23:59:59.999999Z", "2024-02-29T00:00:00.000000Z"] {
            assert_eq!(api_server_time(text), long(text), "{text}");
        }
        for text in [
            "2026-11-20T18:12:00Z",
            "2026-11-20T18:12:00.123456+01:00",
            "2026-13-20T18:12:00.123456Z",
            "2023-02-29T00:00:00.000000Z",
            "2016-12-31T23:59:60.123456Z",
            "2026-11-20T18:12:00.12345xZ",
            "2026/11/20T18:12:00.123456Z",
        ] {
            assert_eq!(parse_time(text), long(text), "{text}");
            assert_eq!(api_server_time(text), None, "{text}");
        }
    }

    #[test]
    fn metadata_borrows_and_bodies_stay_raw() {
        let text = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a","stage":"ResponseComplete",
            "requestURI":"/api/v1/pods?x=1&y=2","verb":"create","user":{"username":"u","groups":["g1","g2"],
            "extra":{"authentication.kubernetes.io/credential-id":["JTI=1"]}},"sourceIPs":["10.0.0.1","192.0.2.7"],
            "objectRef":{"resource":"pods","namespace":"n","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201},
            "requestObject":{"a": 1e999},"annotations":{"authorization.k8s.io/decision":"allow"},
            "stageTimestamp":"2026-11-20T16:02:37.089627Z","somethingNew":{"x":[1,2]}}"#;
        let e = Event::parse(text).expect("an event");
        assert!(matches!(e.verb.0, Cow::Borrowed("create")));
        assert_eq!(e.level, AuditLevel::RequestResponse);
        assert_eq!(e.code(), Some(201));
        assert_eq!(e.user.groups.0.len(), 2);
        assert_eq!(e.request_object.map(RawValue::get), Some(r#"{"a": 1e999}"#));
        assert_eq!(e.annotation("authorization.k8s.io/decision"), Some("allow"));
        assert_eq!(e.time(), Some(1_795_190_557_089_627));
        assert!(e.malformed.is_empty());
    }

    #[test]
    fn one_damaged_field_hides_no_other() {
        let cases = [
            (r#"{"verb":"get","auditID":"a","userAgent":7,"user":{"username":"u"}}"#, "userAgent"),
            (r#"{"verb":"get","auditID":"a","userAgent":"\ud800","user":{"username":"u"}}"#, "userAgent"),
            (r#"{"verb":"get","auditID":"a","sourceIPs":"10.0.0.1","user":{"username":"u"}}"#, "sourceIPs"),
            (r#"{"verb":"get","auditID":"a","user":{"username":"u","groups":{"a":1}}}"#, "user"),
            (
                r#"{"verb":"get","auditID":"a","responseStatus":{"code":"200"},"user":{"username":"u"}}"#,
                "responseStatus",
            ),
        ];
        for (text, damaged) in cases {
            let e = Event::parse(text).expect(text);
            assert_eq!((&*e.verb, &*e.user.username), ("get", "u"), "{text}");
            assert_eq!(e.malformed, [damaged], "{text}");
        }
    }

    #[test]
    fn bodies_are_left_out_wherever_they_stand() {
        for (text, expected) in [
            (r#"{"requestObject":{"a":"é"},"verb":"get"}"#, r#"{"requestObject":null,"verb":"get"}"#),
            (
                r#"{"responseObject":[1],"verb":"get","requestObject":"x"}"#,
                r#"{"responseObject":null,"verb":"get","requestObject":null}"#,
            ),
            (r#"{"verb":"get","requestObject":null}"#, r#"{"verb":"get","requestObject":null}"#),
        ] {
            let event = Event::parse(text).expect(text);
            assert_eq!(event.text_without_bodies(text), expected);
            let other = String::from("{}");
            assert_eq!(event.text_without_bodies(&other), "{}", "a text it was not read from stays as it is");
        }
    }

    #[test]
    fn hostile_bodies_do_not_cost_the_event() {
        let deep = format!(
            r#"{{"verb":"patch","auditID":"a","requestObject":{}1{}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        for text in [deep.as_str(), r#"{"verb":"patch","auditID":"a","requestObject":"\ud800"}"#] {
            let e = Event::parse(text).expect("an event");
            assert_eq!(&*e.verb, "patch");
            assert!(e.request_object.is_some());
        }
    }

    #[test]
    fn other_things_are_not_events() {
        for text in ["", "x", "[1]", "7", "{}", r#"{"kind":"Pod","apiVersion":"v1"}"#, r#"{"verb":"get""#] {
            assert!(Event::parse(text).is_err(), "{text}");
        }
        assert!(Event::parse(r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1beta1","auditID":"a"}"#).is_ok());
        assert!(Event::parse(r#"{"kind":"Event","apiVersion":"v1","reason":"Pulling"}"#).is_err(), "a core Event");
    }

    #[test]
    fn duplicate_keys_keep_the_last_like_go() {
        let e = Event::parse(r#"{"verb":"get","verb":"delete","auditID":"a"}"#).expect("an event");
        assert_eq!(&*e.verb, "delete");
    }
}
