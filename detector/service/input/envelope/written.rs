//! An event as kube-apiserver would have written it, of a log that has only its parts.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lapwing_engine::carry::NotCarried;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Content;
use super::path::Object;

#[derive(Default, serde::Serialize)]
#[serde(tag = "kind", rename = "Event", rename_all = "camelCase")]
pub(super) struct Written<'a> {
    pub api_version: ApiVersion,
    pub level: &'static str,
    #[serde(rename = "auditID")]
    pub audit_id: &'a str,
    pub stage: &'static str,
    #[serde(rename = "requestURI", skip_serializing_if = "str::is_empty")]
    pub request_uri: Cow<'a, str>,
    pub verb: &'a str,
    pub user: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<Value>,
    #[serde(rename = "sourceIPs")]
    pub source_ips: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<Object<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<&'a RawValue>,
    pub request_received_timestamp: Cow<'a, str>,
    pub stage_timestamp: Cow<'a, str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Default, serde::Serialize)]
pub(super) enum ApiVersion {
    #[default]
    #[serde(rename = "audit.k8s.io/v1")]
    V1,
}

impl Written<'_> {
    /// The event, with the mark of what its source cannot carry.
    pub(super) fn content(&self, not_carried: NotCarried) -> Content {
        match serde_json::to_string(self) {
            Ok(text) => Content::Event(not_carried.mark(&text)),
            Err(e) => Content::Broken(e.to_string()),
        }
    }
}
