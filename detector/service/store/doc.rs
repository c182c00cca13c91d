//! What becomes a document: events, alerts, rejects.

use std::net::{IpAddr, Ipv6Addr};

use lapwing_engine::alert::Alert;
use serde::{Deserialize, Serialize};
use tantivy::TantivyDocument;
use tantivy::schema::Field;

use super::Position;
use super::schema::Fields;

/// Longer values are cut here. A query is shorter than that, so what is cut is found by its beginning.
pub const MAX_VALUE: usize = 8 * 1024;

/// One event as the index sees it. Empty text means absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventDoc<'a> {
    /// Stage time, microseconds since the epoch.
    pub time: i64,
    pub cluster: &'a str,
    /// The real person: the impersonator.
    pub actor: &'a str,
    pub actor_kind: &'a str,
    /// The impersonated identity.
    pub acting_as: &'a str,
    pub verb: &'a str,
    pub action: &'a str,
    /// Without the subresource (`pods`); the path for non-resource requests.
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub outcome: &'a str,
    pub code: Option<u16>,
    /// The last source address.
    pub address: &'a str,
    /// Client family, for example `kubectl`.
    pub client: &'a str,
    pub audit_id: &'a str,
    /// More to find it by: the request path, the user agent, the exec command. Names are added here.
    pub text: &'a [&'a str],
}

/// Something that came and was no event.
#[derive(Clone, Copy, Debug, Default)]
pub struct RejectDoc<'a> {
    /// When it was received, microseconds since the epoch.
    pub time: i64,
    pub cluster: &'a str,
    /// Name of a [`lapwing_engine::batch::RejectReason`]; searchable as the outcome.
    pub reason: &'a str,
    pub detail: &'a str,
    pub excerpt: &'a str,
}

/// What a table or a reader needs of an alert or reject beyond the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extra {
    pub id: String,
    pub title: String,
    pub summary: String,
    pub count: u64,
}

/// Adds values to one document: absent ones not at all, long ones cut.
struct Builder<'f> {
    doc: TantivyDocument,
    fields: &'f Fields,
}

impl<'f> Builder<'f> {
    fn new(fields: &'f Fields, kind: &str, time: i64, at: Position) -> Self {
        let mut doc = TantivyDocument::new();
        doc.add_i64(fields.time, time);
        doc.add_u64(fields.lsn, at.lsn);
        doc.add_u64(fields.item, u64::from(at.index));
        doc.add_text(fields.kind, kind);
        Self { doc, fields }
    }

    fn text(&mut self, field: Field, value: &str) {
        if !value.is_empty() {
            self.doc.add_text(field, cut(value));
        }
    }

    fn target(&mut self, resource: &str, subresource: &str) {
        if !subresource.is_empty() {
            self.text(self.fields.resource, &format!("{}/{}", cut(resource), cut(subresource)));
            self.text(self.fields.subresource, subresource);
        }
        self.text(self.fields.resource, resource);
    }

    fn address(&mut self, address: &str) {
        self.text(self.fields.address, address);
        if let Ok(ip) = address.parse::<IpAddr>() {
            self.doc.add_ip_addr(self.fields.ip, to_v6(ip));
        }
    }

    fn extra(&mut self, extra: &Extra) {
        // A struct of strings and a number always serialises.
        self.doc.add_bytes(self.fields.extra, &serde_json::to_vec(extra).unwrap_or_default());
    }
}

pub(super) fn event(f: &Fields, e: &EventDoc<'_>, at: Position) -> TantivyDocument {
    let mut b = Builder::new(f, "event", e.time, at);
    for (field, value) in [
        (f.cluster, e.cluster),
        (f.actor, e.actor),
        (f.actor_kind, e.actor_kind),
        (f.acting_as, e.acting_as),
        (f.verb, e.verb),
        (f.action, e.action),
        (f.namespace, e.namespace),
        (f.name, e.name),
        (f.outcome, e.outcome),
        (f.client, e.client),
        (f.audit_id, e.audit_id),
        (f.text, e.actor),
        (f.text, e.acting_as),
        (f.text, e.name),
    ] {
        b.text(field, value);
    }
    b.target(e.resource, e.subresource);
    b.address(e.address);
    if let Some(code) = e.code {
        b.doc.add_u64(f.code, u64::from(code));
    }
    for text in e.text {
        b.text(f.text, text);
    }
    b.doc
}

pub(super) fn reject(f: &Fields, r: &RejectDoc<'_>, at: Position) -> TantivyDocument {
    let mut b = Builder::new(f, "reject", r.time, at);
    b.text(f.cluster, r.cluster);
    b.text(f.outcome, r.reason);
    b.text(f.text, r.detail);
    b.text(f.text, r.excerpt);
    b.extra(&Extra { summary: cut(r.detail).to_owned(), ..Extra::default() });
    b.doc
}

/// An alert is found by itself and by all of its evidence; its columns show the first piece.
pub(super) fn alert(f: &Fields, a: &Alert, lsn: u64) -> TantivyDocument {
    let mut b = Builder::new(f, "alert", a.last.timestamp_micros(), Position { lsn, index: 0 });
    for (field, value) in [
        (f.cluster, a.cluster.as_str()),
        (f.actor, &a.actor),
        (f.actor_kind, &a.actor_kind),
        (f.rule, &a.rule.id),
        (f.level, a.level.as_str()),
        (f.alert_id, &a.id),
        (f.text, &a.summary),
        (f.text, &a.rule.title),
        (f.text, &a.actor),
    ] {
        b.text(field, value);
    }
    let mut seen: Vec<(Field, &str)> = Vec::new();
    for e in &a.evidence {
        for (field, value) in [
            (f.acting_as, e.acting_as.as_deref().unwrap_or_default()),
            (f.verb, &e.verb),
            (f.action, &e.action),
            (f.resource, &e.resource),
            (f.namespace, &e.namespace),
            (f.name, &e.name),
            (f.outcome, &e.outcome),
            (f.address, &e.address),
            (f.text, &e.user_agent),
        ] {
            if value.is_empty() || seen.contains(&(field, value)) {
                continue;
            }
            seen.push((field, value));
            if field == f.resource {
                alert_target(&mut b, value);
            } else if field == f.address {
                b.address(value);
            } else {
                b.text(field, value);
            }
        }
        if let Some(code) = e.code {
            b.doc.add_u64(f.code, u64::from(code));
        }
        for detail in &e.details {
            b.text(f.text, detail);
        }
    }
    for id in &a.audit_ids {
        b.text(f.audit_id, id);
    }
    b.extra(&Extra { id: a.id.clone(), title: a.rule.title.clone(), summary: a.summary.clone(), count: a.count });
    b.doc
}

/// Evidence writes `resource/subresource` in one; a path has a leading slash and is left whole.
fn alert_target(b: &mut Builder<'_>, target: &str) {
    match target.split_once('/') {
        Some((resource, sub)) if !resource.is_empty() => b.target(resource, sub),
        _ => b.target(target, ""),
    }
}

/// `value` without what exceeds [`MAX_VALUE`] bytes, cut between characters.
pub(super) fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(MAX_VALUE)]
}

/// IPv4 as its mapped IPv6 address, as the index orders them.
pub(super) fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
