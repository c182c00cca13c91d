//! The audit log of Rancher's own API. What goes through its proxy to a cluster is told as that cluster's API server
//! would have; what Rancher does itself is a request to a URL that is no resource.

use lapwing_engine::carry::{NotCarried, Part};
use serde_json::Value;
use serde_json::value::RawValue;

use super::path::Object;
use super::written::Written;
use super::{Content, text_of};

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(rename = "auditID")]
    audit_id: String,
    #[serde(rename = "requestURI", default)]
    request_uri: String,
    #[serde(rename = "sourceIPs", default)]
    source_ips: Vec<String>,
    #[serde(default)]
    remote_addr: String,
    user: User,
    #[serde(default)]
    verb: String,
    #[serde(default)]
    method: String,
    #[serde(default)]
    stage: String,
    #[serde(default)]
    stage_timestamp: String,
    #[serde(default)]
    request_timestamp: String,
    #[serde(default)]
    response_timestamp: String,
    #[serde(default)]
    response_code: Option<u16>,
    #[serde(default)]
    response_status: Option<Value>,
    #[serde(borrow, default)]
    request_body: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct User {
    name: String,
    #[serde(default)]
    group: Vec<String>,
}

/// Never told by this log.
const MISSING: [Part; 7] =
    [Part::Uid, Part::Extra, Part::Impersonated, Part::Agent, Part::ObjectIds, Part::ResponseBody, Part::Annotations];

pub(super) fn event(text: &str) -> Content {
    let line: Line<'_> = match serde_json::from_str(text) {
        Ok(line) => line,
        Err(e) => return Content::Broken(format!("a line of Rancher's audit log of another form: {e}")),
    };
    // `/k8s/clusters/<id>/api/…` is what the cluster sees as `/api/…`.
    let proxied = line.request_uri.strip_prefix("/k8s/clusters/").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    let uri = proxied.unwrap_or(&line.request_uri);
    let object = proxied.and_then(Object::of_uri);
    let method = if line.method.is_empty() { &line.verb } else { &line.method };
    let code = line.response_code.or_else(|| code(line.response_status.as_ref()?));
    let peer = line.remote_addr.rsplit_once(':').map_or(&*line.remote_addr, |(host, _)| host.trim_matches(['[', ']']));
    let ips = line.source_ips.iter().map(String::as_str).chain((!peer.is_empty()).then_some(peer)).collect();
    let body = line.request_body.map(|body| text_of(body).map_or_else(|| Some(body.to_owned()), |text| raw(&text)));
    let body = body.flatten().filter(|body| body.get().starts_with(['{', '[']));
    let first = |texts: [&str; 3]| texts.into_iter().find(|t| !t.is_empty()).map(time).unwrap_or_default();
    let event = Written {
        level: if body.is_some() { "Request" } else { "Metadata" },
        audit_id: &line.audit_id,
        stage: if line.stage == "RequestReceived" { "RequestReceived" } else { "ResponseComplete" },
        request_uri: uri.into(),
        verb: verb(method, uri, object.as_ref()),
        user: serde_json::json!({ "username": line.user.name, "groups": line.user.group }),
        source_ips: ips,
        object_ref: object,
        response_status: code.map(|code| serde_json::json!({ "code": code })),
        request_object: body.as_deref(),
        request_received_timestamp: first([&line.request_timestamp, &line.stage_timestamp, ""]).into(),
        stage_timestamp: first([&line.response_timestamp, &line.stage_timestamp, &line.request_timestamp]).into(),
        ..Written::default()
    };
    let lacks = MISSING.into_iter().chain(code.is_none().then_some(Part::Status));
    event.content(lacks.fold(NotCarried::default(), NotCarried::with))
}

fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

fn code(status: &Value) -> Option<u16> {
    let text = status.as_str().and_then(|text| text.split(' ').next()?.parse().ok());
    text.or_else(|| status.as_u64().and_then(|code| u16::try_from(code).ok()))
}

/// `2018-07-20 10:22:43 +0800` as RFC 3339; other texts as they are.
fn time(text: &str) -> String {
    let parsed = chrono::DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S %z");
    parsed.map_or_else(|_| text.to_owned(), |t| t.to_rfc3339())
}

/// The API server's verb for an HTTP method.
fn verb(method: &str, uri: &str, object: Option<&Object<'_>>) -> &'static str {
    let many = object.is_some_and(|object| object.name.is_empty());
    let watch =
        uri.split_once('?').is_some_and(|(_, query)| query.split('&').any(|p| matches!(p, "watch=true" | "watch=1")));
    match (method.to_ascii_uppercase().as_str(), many) {
        ("GET" | "HEAD", true) if watch => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "unknown",
    }
}
