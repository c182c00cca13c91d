//! The path of a Kubernetes resource → what an event names as its object.

/// `objectRef` of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub api_group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub subresource: &'a str,
}

impl<'a> Object<'a> {
    /// Behind group and version: `[namespaces/<ns>/]<resource>[/<name>[/<subresource>…]]`, read as the API server does.
    pub(super) fn read(group: &'a str, version: &'a str, rest: &'a str) -> Self {
        let all: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let part = |at: usize, parts: &[&'a str]| parts.get(at).copied().unwrap_or_default();
        let of_namespace = |sub: &str| matches!(sub, "status" | "finalize");
        let (namespace, parts) = match all.as_slice() {
            ["namespaces", namespace] => (*namespace, all.as_slice()),
            ["namespaces", namespace, sub, ..] if of_namespace(sub) => (*namespace, all.as_slice()),
            ["namespaces", namespace, parts @ ..] => (*namespace, parts),
            parts => ("", parts),
        };
        Self {
            resource: part(0, parts),
            namespace,
            name: part(1, parts),
            api_group: group,
            api_version: version,
            subresource: part(2, parts),
        }
    }

    /// `/api/v1/…` or `/apis/<group>/<version>/…`; `None` for what is no resource.
    pub(super) fn of_uri(uri: &'a str) -> Option<Self> {
        let path = uri.split(['?', '#']).next()?.trim_start_matches('/');
        let (group, version, rest) = match path.split_once('/')? {
            ("api", rest) => {
                let (version, rest) = rest.split_once('/')?;
                ("", version, rest)
            }
            ("apis", rest) => {
                let (group, rest) = rest.split_once('/')?;
                let (version, rest) = rest.split_once('/')?;
                (group, version, rest)
            }
            _ => return None,
        };
        Some(Self::read(group, version, rest)).filter(|object| !object.resource.is_empty())
    }
}
