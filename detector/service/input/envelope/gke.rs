//! Log entries of Google Cloud: the audit events of GKE in the form of Cloud Audit Logs.
//!
//! The entry tells who did what to what and how it ended, with request and answer where the API server's policy asked
//! for them. It has no groups, credentials, request URI or object uids; the event is marked accordingly. The status is a
//! gRPC code, from which the HTTP code is told as far as it can be; an answer that is a `Status` tells it exactly.

use std::collections::BTreeMap;

use lapwing_engine::carry::{NotCarried, Part};
use serde_json::value::RawValue;

use super::path::Object;
use super::written::Written;
use super::{Content, member, text_of};

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow)]
    proto_payload: Payload<'a>,
    #[serde(default)]
    insert_id: String,
    #[serde(default)]
    timestamp: String,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "or_default")]
    operation: Operation,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Operation {
    id: String,
    first: bool,
    last: bool,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Payload<'a> {
    service_name: String,
    method_name: String,
    resource_name: String,
    #[serde(deserialize_with = "or_default")]
    authentication_info: Authentication,
    #[serde(deserialize_with = "or_default")]
    authorization_info: Vec<Authorization>,
    #[serde(deserialize_with = "or_default")]
    request_metadata: Caller,
    status: Option<Status>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Authentication {
    principal_email: String,
    authority_selector: String,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Authorization {
    granted: Option<bool>,
    resource: String,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Caller {
    #[serde(alias = "callerIP")]
    caller_ip: String,
    caller_supplied_user_agent: String,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Status {
    code: i64,
    message: String,
}

/// `responseStatus` of an event.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default)]
struct Outcome {
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    code: i64,
}

/// A member that is null is not there.
fn or_default<'de, D: serde::Deserializer<'de>, T: Default + serde::Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    serde::Deserialize::deserialize(d).map(|value: Option<T>| value.unwrap_or_default())
}

/// Never told by these logs.
const MISSING: [Part; 7] =
    [Part::Groups, Part::Uid, Part::Extra, Part::ImpersonatedGroups, Part::Uri, Part::Claims, Part::ObjectIds];

/// The event of one log entry; other services' entries are passed over.
pub(super) fn event(text: &str) -> Content {
    let entry: Entry<'_> = match serde_json::from_str(text) {
        Ok(entry) => entry,
        Err(e) => return Content::Broken(format!("a log entry of another form: {e}")),
    };
    let payload = &entry.proto_payload;
    let Some(method) = payload.method_name.strip_prefix("io.k8s.") else { return Content::Skipped };
    if !matches!(&*payload.service_name, "" | "k8s.io") {
        return Content::Skipped;
    }
    let asked = payload.authorization_info.first();
    let place = match (&*payload.resource_name, asked) {
        ("", Some(asked)) => &*asked.resource,
        (place, _) => place,
    };
    let (of_method, verb) = method.rsplit_once('.').unwrap_or(("", method));
    let object = object(place).or_else(|| object_of_method(of_method));
    let outcome = outcome(payload, object.as_ref());
    let mut not_carried = MISSING.into_iter().fold(NotCarried::default(), NotCarried::with);
    if outcome.is_none() {
        not_carried = not_carried.with(Part::Status);
    }
    let mut annotations: BTreeMap<&str, &str> =
        entry.labels.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
    if let Some(granted) = asked.and_then(|asked| asked.granted) {
        annotations.entry("authorization.k8s.io/decision").or_insert(if granted { "allow" } else { "forbid" });
    }
    let (user, impersonated_user) = who(&payload.authentication_info);
    let event = Written {
        level: match (payload.request, payload.response) {
            (_, Some(_)) => "RequestResponse",
            (Some(_), None) => "Request",
            _ => "Metadata",
        },
        audit_id: if entry.operation.id.is_empty() { &entry.insert_id } else { &entry.operation.id },
        stage: if entry.operation.first && !entry.operation.last { "ResponseStarted" } else { "ResponseComplete" },
        request_uri: if object.is_none() { format!("/{}", place.trim_start_matches('/')).into() } else { "".into() },
        verb,
        user,
        impersonated_user,
        source_ips: vec![&payload.request_metadata.caller_ip],
        user_agent: &payload.request_metadata.caller_supplied_user_agent,
        object_ref: object,
        response_status: outcome.map(|outcome| serde_json::json!(outcome)),
        request_object: payload.request,
        response_object: payload.response,
        request_received_timestamp: entry.timestamp.as_str().into(),
        stage_timestamp: entry.timestamp.as_str().into(),
        annotations,
        ..Written::default()
    };
    event.content(not_carried)
}

/// Who acts, and as whom. Google removes the name of a stranger who was refused: then nobody knows, least of all that
/// it was nobody.
fn who(info: &Authentication) -> (serde_json::Value, Option<serde_json::Value>) {
    let user = |name: &str| serde_json::json!({ "username": name });
    match (&*info.principal_email, &*info.authority_selector) {
        ("", "") => ("not told by the log".into(), None),
        ("", selected) => (user(selected), None),
        (name, "") => (user(name), None),
        (name, selected) if name == selected => (user(name), None),
        (name, selected) => (user(name), Some(user(selected))),
    }
}

/// `core/v1/namespaces/<ns>/pods/<name>` and the like; `None` for a URL that is no resource (`readyz`).
fn object(place: &str) -> Option<Object<'_>> {
    let (group, rest) = place.split_once('/')?;
    let (version, rest) = rest.split_once('/')?;
    let is_version = version.strip_prefix('v').is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()));
    is_version.then(|| Object::read(if group == "core" { "" } else { group }, version, rest))
}

/// `core.v1.pods[.exec]`, for an entry that names no resource.
fn object_of_method(method: &str) -> Option<Object<'_>> {
    let parts: Vec<&str> = method.split('.').collect();
    let version = parts.iter().position(|p| p.starts_with('v') && p[1..].starts_with(|c: char| c.is_ascii_digit()))?;
    let resource = parts.get(version + 1)?;
    let api_group = match &parts[..version] {
        ["core"] => "",
        ["rbac" | "authorization", ..] => "rbac.authorization.k8s.io",
        [group] => group,
        _ => "",
    };
    let subresource = parts.get(version + 2).copied().unwrap_or_default();
    Some(Object { resource, api_group, api_version: parts[version], subresource, ..Object::default() })
}

/// How the request ended, as an HTTP status; `None` where the entry does not say.
fn outcome(payload: &Payload<'_>, object: Option<&Object<'_>>) -> Option<Outcome> {
    let told = payload.response.filter(|answer| member(answer, "kind").and_then(text_of).as_deref() == Some("Status"));
    let exact = told.and_then(|answer| serde_json::from_str::<Outcome>(answer.get()).ok()).filter(|o| o.code != 0);
    if exact.is_some() {
        return exact;
    }
    let status = payload.status.as_ref()?;
    let joins = object.is_some_and(|o| matches!(o.subresource, "exec" | "attach" | "portforward"));
    let code = match status.code {
        0 if joins => 101,
        0 => 200,
        code => http(code),
    };
    let text = if status.code == 0 { "Success" } else { "Failure" };
    Some(Outcome { status: text.to_owned(), message: status.message.clone(), reason: String::new(), code })
}

/// The HTTP code behind a gRPC code (google/rpc/code.proto).
fn http(code: i64) -> i64 {
    match code {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
