//! What other systems wrap around audit events, told by its shape and taken off.
//!
//! [`open`] looks at one JSON value that does not begin like an event. What it finds inside is either an event it could
//! write down, or bytes to be read on as a stream of their own: an event, a list, lines, another wrapper. Nesting and
//! what may be unpacked are bounded by the reader.

mod cloudwatch;
mod gke;
mod path;
mod rancher;
mod salvage;
mod written;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

pub use salvage::salvage;

/// Which wrapper it was. Each is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A line of a log shipper (Vector, Fluent Bit, Fluentd, Filebeat) or of a container's log.
    Shipper,
    /// A diagnostic record of Azure, from Event Hubs.
    Aks,
    /// A record of an AWS CloudWatch Logs subscription.
    CloudWatch,
    /// A record of Kinesis, Firehose or Pub/Sub: base64 around anything.
    Record,
    /// A log entry of Google Cloud with an audit record of GKE.
    Gke,
    /// An event as OpenShift's log collector writes it, with fields of its own in between.
    OpenShift,
    /// A line of the audit log of Rancher's own API.
    Rancher,
}

impl Kind {
    pub const ALL: [Self; 7] =
        [Self::Shipper, Self::Aks, Self::CloudWatch, Self::Record, Self::Gke, Self::OpenShift, Self::Rancher];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shipper => "shipper",
            Self::Aks => "aks",
            Self::CloudWatch => "cloudwatch",
            Self::Record => "record",
            Self::Gke => "gke",
            Self::OpenShift => "openshift",
            Self::Rancher => "rancher",
        }
    }
}

/// What came in wrappers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wrappers taken off.
    pub opened: BTreeMap<Kind, u64>,
    /// Wrapped things that are no audit events and are not meant to be: other logs of the same stream.
    pub skipped: BTreeMap<Kind, u64>,
    /// Events cut off by a log service and read as far as they go.
    pub salvaged: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.opened, &other.opened), (&mut self.skipped, &other.skipped)] {
            for (kind, n) in theirs {
                *mine.entry(*kind).or_default() += n;
            }
        }
        self.salvaged += other.salvaged;
    }
}

/// A wrapper without its content.
#[derive(Debug)]
pub struct Opened {
    pub kind: Kind,
    pub content: Vec<Content>,
}

/// What was in it.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// An event, written down as the API server would have.
    Event(String),
    /// To be read on. `time`: when it was logged, microseconds since the epoch, for an event that lost its own.
    Inner { bytes: Vec<u8>, time: Option<i64> },
    /// Another log of the same stream.
    Skipped,
    /// It should have been readable.
    Broken(String),
}

impl Content {
    fn inner(text: &str) -> Self {
        Self::Inner { bytes: text.as_bytes().to_vec(), time: None }
    }
}

/// The members that tell wrappers apart.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Shape<'a> {
    #[serde(borrow, rename = "auditID")]
    audit_id: Option<&'a RawValue>,
    #[serde(borrow)]
    k8s_audit_level: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    log: Option<&'a RawValue>,
    #[serde(borrow)]
    log_processed: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    json: Option<&'a RawValue>,
    #[serde(borrow)]
    kubernetes: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    awslogs: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
    #[serde(borrow)]
    category: Option<&'a RawValue>,
    #[serde(borrow, rename = "messageType")]
    message_type: Option<&'a RawValue>,
    #[serde(borrow, rename = "protoPayload")]
    proto_payload: Option<&'a RawValue>,
}

/// Takes the wrapper off one JSON value; `None` when it has none that is known. At most `room` bytes are unpacked.
pub fn open(text: &str, room: usize) -> Option<Opened> {
    if !text.starts_with('{') {
        return None;
    }
    let shape: Shape<'_> = serde_json::from_str(text).ok()?;
    let opened = |kind, content| Some(Opened { kind, content });
    if shape.proto_payload.is_some() {
        return opened(Kind::Gke, vec![gke::event(text)]);
    }
    if shape.audit_id.is_some() {
        return of_event(text, &shape);
    }
    if let Some(properties) = shape.properties.filter(|_| shape.category.is_some()) {
        return opened(Kind::Aks, vec![aks(shape.category, properties)]);
    }
    if shape.message_type.is_some() {
        return opened(Kind::CloudWatch, cloudwatch::events(text));
    }
    if let Some(data) = shape.awslogs.and_then(|logs| member(logs, "data")) {
        return opened(Kind::Record, vec![unpack(data, room)]);
    }
    // Pub/Sub pushes the record as `message`; Kinesis, Firehose and a pull have it bare.
    let pushed = shape.message.and_then(|message| member(message, "data"));
    if let Some(data) = pushed.or(shape.data.filter(|data| data.get().starts_with('"'))) {
        return opened(Kind::Record, vec![unpack(data, room)]);
    }
    shipped(&shape).map(|content| Opened { kind: Kind::Shipper, content: vec![content] })
}

/// An event with an `auditID` at its top: its own form, unless a collector changed it.
fn of_event(text: &str, shape: &Shape<'_>) -> Option<Opened> {
    if let Some(level) = shape.k8s_audit_level {
        let content = vec![Content::Event(openshift(text, level)?)];
        return Some(Opened { kind: Kind::OpenShift, content });
    }
    let rancher = shape.kind.is_none() && shape.user.is_some_and(|user| member(user, "name").is_some());
    rancher.then(|| Opened { kind: Kind::Rancher, content: vec![rancher::event(text)] })
}

/// OpenShift's collector puts the log's severity where the audit level was, and the level beside it. Of two members
/// with one name the last counts.
fn openshift(text: &str, level: &RawValue) -> Option<String> {
    Some(format!("{},\"level\":{}}}", text.trim_end().strip_suffix('}')?, level.get()))
}

/// Azure writes every log of the control plane in this form; the category tells which.
fn aks(category: Option<&RawValue>, properties: &RawValue) -> Content {
    let category = category.and_then(text_of).unwrap_or_default();
    if !category.starts_with("kube-audit") {
        return Content::Skipped;
    }
    match member(properties, "log") {
        None => Content::Broken("a record of `kube-audit` without `properties.log`".to_owned()),
        Some(log) => {
            text_of(log).map_or_else(|| Content::inner(log.get()), |text| of_line(&text).unwrap_or(Content::Skipped))
        }
    }
}

/// The line a shipper carries, or the object it parsed it into.
fn shipped(shape: &Shape<'_>) -> Option<Content> {
    let original = shape.event.and_then(|event| member(event, "original"));
    let audit = shape.kubernetes.and_then(|kubernetes| member(kubernetes, "audit"));
    let lines = [original, shape.message, shape.log, shape.event];
    let line = lines.into_iter().flatten().filter_map(text_of).find_map(|text| of_line(&text));
    let objects = [audit, shape.log_processed, shape.json, shape.event, shape.message, shape.log];
    line.or_else(|| {
        objects.into_iter().flatten().find(|o| member(o, "auditID").is_some()).map(|o| Content::inner(o.get()))
    })
}

/// A logged line that holds JSON, without what a container runtime puts before it (`<time> stdout F `).
fn of_line(line: &str) -> Option<Content> {
    let line = line.trim_start();
    let bare = line.splitn(4, ' ').collect::<Vec<_>>();
    let line = match bare.as_slice() {
        [_, "stdout" | "stderr", "F" | "P", rest] => rest,
        _ => line,
    };
    line.starts_with(['{', '[']).then(|| Content::inner(line))
}

/// base64, and gzip in it where there is: at most `room` bytes.
fn unpack(data: &RawValue, room: usize) -> Content {
    let Some(Ok(bytes)) = text_of(data).map(|text| STANDARD.decode(text.trim())) else {
        return Content::Broken("the data of a record is not base64".to_owned());
    };
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Content::Inner { bytes, time: None };
    }
    let mut out = Vec::new();
    match flate2::read::MultiGzDecoder::new(&*bytes).take(room as u64 + 1).read_to_end(&mut out) {
        Ok(_) if out.len() > room => Content::Broken(format!("a record unpacks to more than the {room} bytes left")),
        Ok(_) => Content::Inner { bytes: out, time: None },
        Err(e) => Content::Broken(format!("the gzip data of a record is damaged: {e}")),
    }
}

/// A member of an object, the last of that name.
fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    use lapwing_engine::event::Pairs;
    let members: Pairs<'a, &'a RawValue> = serde_json::from_str(object.get()).ok()?;
    members.0.into_iter().rev().find(|(key, _)| key.as_str() == name).map(|(_, value)| value)
}

fn text_of(value: &RawValue) -> Option<Cow<'_, str>> {
    let text: lapwing_engine::event::Text<'_> = serde_json::from_str(value.get()).ok()?;
    value.get().starts_with('"').then_some(text.0)
}

#[cfg(test)]
mod tests;
