//! Falco's fields of audit events, and where their values are in ours.

use lapwing_engine::field::Field;

use super::parse::FieldRef;

/// Where the values of a Falco field are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One value.
    One(String),
    /// A list of texts.
    Many(String),
    /// For each element of a list of objects the value at a path.
    Each { list: String, path: String, image: bool },
    /// The ports of the containers: the host port, else the container's.
    Ports(String),
    /// The kinds of the volumes: the keys beside `name`.
    VolumeTypes,
    /// Whether a volume mounts this path of the host, `*` at its end for all below: `true` or `false`.
    HostPath(String),
    /// A parameter of the request URI.
    Parameter(String),
    /// The text of a whole object, in which texts can be searched.
    Text(String),
    /// The time or number of the event: always there, never zero.
    Constant,
}

/// Why a field has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("field `{0}` is not known")]
    Unknown(String),
    #[error("field `{0}` reads one element of a list by its number; ours look at all elements")]
    Index(String),
    #[error("field `{0}` has no counterpart in an audit event of ours")]
    NoCounterpart(String),
    #[error("field `{0}` needs an argument")]
    NeedsArgument(String),
    #[error("field `{0}` goes through a key that holds a dot, which a path of ours cannot name")]
    DottedKey(String),
}

/// Finds the values of `field`.
pub fn place(field: &FieldRef) -> Result<Place, NoPlace> {
    let one = |path: &str| Ok(Place::One(path.to_owned()));
    let many = |path: &str| Ok(Place::Many(path.to_owned()));
    let indexed = field.arg.as_ref().is_some_and(|a| a.bytes().all(|b| b.is_ascii_digit()));
    let argument = || field.arg.clone().ok_or_else(|| NoPlace::NeedsArgument(field.name.clone()));
    if let Some(rest) = field.name.strip_prefix("ka.req.pod.").or_else(|| field.name.strip_prefix("ka.req.container")) {
        if indexed {
            return Err(NoPlace::Index(field.to_string()));
        }
        let old = field.name.starts_with("ka.req.container.");
        if old && rest.starts_with(".image") {
            // It reads the first container.
            return Err(NoPlace::Index(field.to_string()));
        }
        return in_pod(if old { &field.name["ka.req.".len()..] } else { rest }, field);
    }
    if indexed && field.name.starts_with("ka.req.") {
        return Err(NoPlace::Index(field.to_string()));
    }
    match field.name.as_str() {
        "ka.auditid" => one("auditID"),
        "ka.stage" => one("stage"),
        "ka.auth.decision" => one("annotations.authorization.k8s.io/decision"),
        "ka.auth.reason" => one("annotations.authorization.k8s.io/reason"),
        "ka.auth.openshift.decision" => one("annotations.authorization.openshift.io/decision"),
        "ka.auth.openshift.reason" => one("annotations.authorization.openshift.io/reason"),
        "ka.user.name" => one("user.username"),
        "ka.user.groups" => many("user.groups"),
        "ka.impuser.name" => one("impersonatedUser.username"),
        "ka.verb" => one("verb"),
        "ka.uri" => one("requestURI"),
        "ka.uri.param" => argument().map(Place::Parameter),
        "ka.target.name" | "ka.req.configmap.name" => one("objectRef.name"),
        "ka.target.namespace" => one("objectRef.namespace"),
        "ka.target.resource" => one("objectRef.resource"),
        "ka.target.subresource" => one("objectRef.subresource"),
        "ka.req.binding.role" => one("requestObject.roleRef.name"),
        "ka.req.binding.subjects" => Ok(Place::Text("requestObject.subjects".into())),
        "ka.req.configmap.obj" => Ok(Place::Text("requestObject.data".into())),
        "ka.req.role.rules" => Ok(Place::Text("requestObject.rules".into())),
        "ka.req.role.rules.apiGroups" => many("requestObject.rules.apiGroups"),
        "ka.req.role.rules.nonResourceURLs" => many("requestObject.rules.nonResourceURLs"),
        "ka.req.role.rules.verbs" => many("requestObject.rules.verbs"),
        "ka.req.role.rules.resources" => many("requestObject.rules.resources"),
        "ka.req.service.type" => one("requestObject.spec.type"),
        "ka.req.volume.hostpath" => argument().map(Place::HostPath),
        "ka.resp.name" => one("responseObject.metadata.name"),
        "ka.response.code" => one("responseStatus.code"),
        "ka.response.reason" => one("responseStatus.reason"),
        "ka.useragent" => one("userAgent"),
        "ka.sourceips" => many("sourceIPs"),
        "ka.cluster.name" => one("cluster"),
        "jevt.value" | "json.value" => pointer(&argument()?),
        "jevt.obj" | "json.obj" => Ok(Place::Text(String::new())),
        "jevt.time" | "jevt.rawtime" | "jevt.time.iso8601" | "json.rawtime" | "evt.num" | "evt.time"
        | "evt.rawtime" => Ok(Place::Constant),
        name if name.starts_with("ka.") => Err(NoPlace::NoCounterpart(name.to_owned())),
        name => Err(NoPlace::Unknown(name.to_owned())),
    }
}

fn in_pod(rest: &str, field: &FieldRef) -> Result<Place, NoPlace> {
    let spec = |path: &str| Ok(Place::One(format!("requestObject.spec.{path}")));
    match rest {
        "host_ipc" => return spec("hostIPC"),
        "host_network" | "container.host_network" => return spec("hostNetwork"),
        "host_pid" => return spec("hostPID"),
        "run_as_user" => return spec("securityContext.runAsUser"),
        "run_as_group" => return spec("securityContext.runAsGroup"),
        "fs_group" => return spec("securityContext.fsGroup"),
        "supplemental_groups" => {
            return Ok(Place::Many("requestObject.spec.securityContext.supplementalGroups".into()));
        }
        "volumes.hostpath" => return Ok(each("volumes", "hostPath.path")),
        "volumes.flexvolume_driver" => return Ok(each("volumes", "flexVolume.driver")),
        "volumes.volume_type" => return Ok(Place::VolumeTypes),
        _ => {}
    }
    let none = || NoPlace::NoCounterpart(field.name.clone());
    let (list, what) = rest.split_once('.').ok_or_else(none)?;
    let list = if list == "container" { "containers" } else { list };
    if !matches!(list, "containers" | "initContainers" | "ephemeralContainers") {
        return Err(none());
    }
    Ok(match what {
        "name" => each(list, "name"),
        "image" => each(list, "image"),
        "image.repository" => {
            Place::Each { list: format!("requestObject.spec.{list}"), path: "image".into(), image: true }
        }
        "privileged" => each(list, "securityContext.privileged"),
        "allow_privilege_escalation" => each(list, "securityContext.allowPrivilegeEscalation"),
        "read_only_fs" => each(list, "securityContext.readOnlyRootFilesystem"),
        "run_as_user" => each(list, "securityContext.runAsUser"),
        "run_as_group" => each(list, "securityContext.runAsGroup"),
        "proc_mount" => each(list, "securityContext.procMount"),
        "add_capabilities" => each(list, "securityContext.capabilities.add"),
        "host_port" => Place::Ports(format!("requestObject.spec.{list}")),
        _ => return Err(none()),
    })
}

fn each(list: &str, path: &str) -> Place {
    Place::Each { list: format!("requestObject.spec.{list}"), path: path.to_owned(), image: false }
}

/// A JSON pointer into the event.
fn pointer(pointer: &str) -> Result<Place, NoPlace> {
    let unknown = || NoPlace::Unknown(format!("jevt.value[{pointer}]"));
    let steps: Vec<String> = pointer.split('/').skip(1).map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    let [first, rest @ ..] = steps.as_slice() else { return Err(unknown()) };
    let body = matches!(first.as_str(), "requestObject" | "responseObject");
    if rest.iter().any(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())) {
        return Err(NoPlace::Index(format!("jevt.value[{pointer}]")));
    }
    if body && rest.iter().any(|s| s.contains('.')) {
        return Err(NoPlace::DottedKey(format!("jevt.value[{pointer}]")));
    }
    let name = steps.join(".");
    let field = Field::parse(&name).map_err(|_| unknown())?;
    Ok(match field {
        // Facts of ours are no part of the event's JSON.
        _ if !matches!(
            first.as_str(),
            "kind"
                | "apiVersion"
                | "level"
                | "auditID"
                | "stage"
                | "requestURI"
                | "verb"
                | "user"
                | "impersonatedUser"
                | "sourceIPs"
                | "userAgent"
                | "objectRef"
                | "responseStatus"
                | "requestObject"
                | "responseObject"
                | "annotations"
                | "requestReceivedTimestamp"
                | "stageTimestamp"
        ) =>
        {
            return Err(unknown());
        }
        Field::UserGroups | Field::ImpersonatedGroups | Field::SourceIps | Field::UserExtra(_) => Place::Many(name),
        Field::RequestBody | Field::ResponseBody => Place::Text(name),
        _ => Place::One(name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, arg: Option<&str>) -> Result<Place, NoPlace> {
        place(&FieldRef { name: name.to_owned(), arg: arg.map(str::to_owned) })
    }

    #[test]
    fn every_place_is_a_field_of_ours() {
        for name in [
            "ka.auditid",
            "ka.verb",
            "ka.uri",
            "ka.user.groups",
            "ka.impuser.name",
            "ka.target.subresource",
            "ka.req.binding.role",
            "ka.req.configmap.obj",
            "ka.req.role.rules.verbs",
            "ka.req.service.type",
            "ka.resp.name",
            "ka.response.code",
            "ka.useragent",
            "ka.sourceips",
            "ka.cluster.name",
            "ka.req.pod.host_ipc",
            "ka.req.pod.fs_group",
            "ka.req.pod.volumes.hostpath",
            "ka.req.pod.initContainers.privileged",
            "ka.req.container.privileged",
            "ka.auth.openshift.reason",
        ] {
            let field = match of(name, None).expect(name) {
                Place::One(f) | Place::Many(f) | Place::Text(f) => f,
                Place::Each { list, path, .. } => format!("{list}.{path}"),
                other => panic!("{other:?}"),
            };
            Field::parse(&field).expect(name);
        }
    }

    #[test]
    fn pointers() {
        assert_eq!(of("jevt.value", Some("/stage")), Ok(Place::One("stage".into())));
        let decision = "annotations.authorization.k8s.io/decision";
        assert_eq!(
            of("jevt.value", Some("/annotations/authorization.k8s.io~1decision")),
            Ok(Place::One(decision.into()))
        );
        assert_eq!(of("jevt.value", Some("/user/groups")), Ok(Place::Many("user.groups".into())));
        assert!(matches!(of("jevt.value", Some("/requestObject/spec/containers/0/image")), Err(NoPlace::Index(_))));
        assert!(matches!(of("jevt.value", Some("/requestObject/metadata/labels/a.b")), Err(NoPlace::DottedKey(_))));
        assert!(matches!(of("jevt.value", Some("/actor/name")), Err(NoPlace::Unknown(_))));
        assert!(matches!(of("jevt.value", Some("/nothing")), Err(NoPlace::Unknown(_))));
        assert!(matches!(of("jevt.value", None), Err(NoPlace::NeedsArgument(_))));
    }

    #[test]
    fn what_has_no_place_is_named() {
        assert!(matches!(of("ka.req.pod.containers.image", Some("0")), Err(NoPlace::Index(_))));
        assert!(matches!(of("ka.req.pod.containers.eff_run_as_user", None), Err(NoPlace::NoCounterpart(_))));
        assert!(matches!(of("proc.name", None), Err(NoPlace::Unknown(_))));
    }
}
