//! The closed list of what a rule may read. A name becomes a [`Field`] once, when a rule is loaded.

use std::borrow::Cow;

/// Steps into a body. Lists fan out at every step, so `a.b[].c` and `a.b.c` are the same path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<String>);

impl Path {
    fn parse(text: &str) -> Option<Self> {
        let steps: Vec<String> = text.split('.').map(|s| s.trim_end_matches("[]").to_owned()).collect();
        steps.iter().all(|s| !s.is_empty()).then_some(Self(steps))
    }
}

/// A name that is no field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown field `{name}`{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
pub struct UnknownField {
    pub name: String,
    pub suggestion: Option<String>,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// Something a rule may read.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Field {
            $($(#[$doc])* $variant,)*
            /// `annotations.<key>`
            Annotation(String),
            /// `user.extra.<key>`
            UserExtra(String),
            /// `requestObject.<path>`: for patches, what the patch writes.
            Request(Path),
            /// `responseObject.<path>`
            Response(Path),
            /// A name that published rules use and no audit event has; never matches.
            Never(&'static str),
        }

        /// Every fixed name, in the order of the documentation.
        pub const NAMES: &[&str] = &[$($name,)*];

        impl Field {
            fn fixed(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// The name as a rule writes it.
            pub fn name(&self) -> Cow<'static, str> {
                match self {
                    $(Self::$variant => Cow::Borrowed($name),)*
                    Self::Annotation(k) => Cow::Owned(format!("annotations.{k}")),
                    Self::UserExtra(k) => Cow::Owned(format!("user.extra.{k}")),
                    Self::Request(p) => Cow::Owned(format!("requestObject.{}", p.0.join("."))),
                    Self::Response(p) => Cow::Owned(format!("responseObject.{}", p.0.join("."))),
                    Self::Never(name) => Cow::Borrowed(name),
                }
            }
        }
    };
}

fields! {
    Kind "kind",
    ApiVersion "apiVersion",
    Level "level",
    AuditId "auditID",
    Stage "stage",
    RequestUri "requestURI",
    Verb "verb",
    UserName "user.username",
    UserUid "user.uid",
    UserGroups "user.groups",
    ImpersonatedName "impersonatedUser.username",
    ImpersonatedUid "impersonatedUser.uid",
    ImpersonatedGroups "impersonatedUser.groups",
    SourceIps "sourceIPs",
    UserAgent "userAgent",
    RefResource "objectRef.resource",
    RefSubresource "objectRef.subresource",
    RefNamespace "objectRef.namespace",
    RefName "objectRef.name",
    RefUid "objectRef.uid",
    RefApiGroup "objectRef.apiGroup",
    RefApiVersion "objectRef.apiVersion",
    RefResourceVersion "objectRef.resourceVersion",
    StatusCode "responseStatus.code",
    StatusStatus "responseStatus.status",
    StatusReason "responseStatus.reason",
    StatusMessage "responseStatus.message",
    RequestBody "requestObject",
    ResponseBody "responseObject",
    ReceivedTime "requestReceivedTimestamp",
    StageTime "stageTimestamp",
    Cluster "cluster",
    ActorName "actor.name",
    ActorKind "actor.kind",
    ActorGroups "actor.groups",
    ActorNamespace "actor.namespace",
    ActorServiceAccount "actor.serviceaccount",
    ActorAs "actor.as",
    ActorAsGroups "actor.as_groups",
    ActorImpersonating "actor.impersonating",
    ActorAdmin "actor.admin",
    Action "action",
    ActionType "action.type",
    Outcome "outcome",
    DryRun "dryrun",
    TargetResource "target.resource",
    TargetSubresource "target.subresource",
    TargetNamespace "target.namespace",
    TargetName "target.name",
    TargetGroup "target.group",
    TargetPath "target.path",
    TargetScope "target.scope",
    TargetSystemNamespace "target.system_namespace",
    ClientFamily "client.family",
    ClientVersion "client.version",
    ClientAddress "client.address",
    ClientNetwork "client.network",
    ClientRange "client.range",
    ClientClaims "client.claims",
    CredentialKind "credential.kind",
    CredentialId "credential.id",
    CredentialPod "credential.pod",
    CredentialNode "credential.node",
    RightReason "right.reason",
    RightBinding "right.binding",
    RightRole "right.role",
    ExecCommand "exec.command",
    ExecArgs "exec.args",
    ExecContainer "exec.container",
    ExecStdin "exec.stdin",
    ExecTty "exec.tty",
    ProxyPath "proxy.path",
    ProxyPort "proxy.port",
    ProxyKubelet "proxy.kubelet",
    WorkloadKind "workload.kind",
    WorkloadPrivileged "workload.privileged",
    WorkloadHostPid "workload.host_pid",
    WorkloadHostIpc "workload.host_ipc",
    WorkloadHostNetwork "workload.host_network",
    WorkloadHostPaths "workload.host_paths",
    WorkloadSensitiveHostPaths "workload.sensitive_host_paths",
    WorkloadCapabilities "workload.capabilities",
    WorkloadImages "workload.images",
    WorkloadRegistries "workload.registries",
    WorkloadCommands "workload.commands",
    WorkloadEnv "workload.env",
    WorkloadServiceAccount "workload.service_account",
    WorkloadRunAsRoot "workload.run_as_root",
    WorkloadAllowPrivilegeEscalation "workload.allow_privilege_escalation",
    WorkloadShareProcessNamespace "workload.share_process_namespace",
    WorkloadNodeName "workload.node_name",
    WorkloadToleratesControlPlane "workload.tolerates_control_plane",
    WorkloadHostPorts "workload.host_ports",
    WorkloadInteractive "workload.interactive",
    WorkloadAutomountToken "workload.automount_token",
    WorkloadSeccompUnconfined "workload.seccomp_unconfined",
    WorkloadApparmorUnconfined "workload.apparmor_unconfined",
    WorkloadProcMountUnmasked "workload.proc_mount_unmasked",
    WorkloadUnsafeSysctls "workload.unsafe_sysctls",
    WorkloadMirror "workload.mirror",
    WorkloadOwned "workload.owned",
    WorkloadContainers "workload.containers",
    RbacKind "rbac.kind",
    RbacRole "rbac.role",
    RbacRoleKind "rbac.role_kind",
    RbacSubjects "rbac.subjects",
    RbacSubjectKinds "rbac.subject_kinds",
    RbacVerbs "rbac.verbs",
    RbacResources "rbac.resources",
    RbacRules "rbac.rules",
    RbacPowers "rbac.powers",
    RbacBroadSubject "rbac.broad_subject",
    RbacSelfGrant "rbac.self_grant",
    RbacAggregates "rbac.aggregates",
    CsrSigner "csr.signer",
    CsrCn "csr.cn",
    CsrOrganizations "csr.organizations",
    CsrUsages "csr.usages",
    PsaEnforce "psa.enforce",
    PsaViolations "psa.violations",
    AdmissionFailedOpen "admission.failed_open",
    EventTruncated "event.truncated",
    EventMalformed "event.malformed",
}

/// Names from published Sigma rules that are no field of an audit event, and what is meant.
pub const NEVER: &[(&str, &str)] = &[
    ("hostPath", "workload.host_paths"),
    ("capabilities", "workload.capabilities"),
    ("apiGroup", "objectRef.apiGroup"),
];

impl Field {
    /// The field called `name`, or what was probably meant.
    pub fn parse(name: &str) -> Result<Self, UnknownField> {
        if let Some(field) = Self::fixed(name) {
            return Ok(field);
        }
        if let Some((never, _)) = NEVER.iter().find(|(n, _)| *n == name) {
            return Ok(Self::Never(never));
        }
        let behind = |prefix: &str| name.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        if let Some(key) = behind("annotations.") {
            return Ok(Self::Annotation(key.to_owned()));
        }
        if let Some(key) = behind("user.extra.") {
            return Ok(Self::UserExtra(key.to_owned()));
        }
        if let Some(path) = behind("requestObject.").and_then(Path::parse) {
            return Ok(Self::Request(path));
        }
        if let Some(path) = behind("responseObject.").and_then(Path::parse) {
            return Ok(Self::Response(path));
        }
        Err(UnknownField { name: name.to_owned(), suggestion: nearest(name, NAMES) })
    }

    /// What an author probably wanted instead of a [`Field::Never`] name.
    pub fn instead(&self) -> Option<&'static str> {
        match self {
            Self::Never(name) => NEVER.iter().find(|(n, _)| n == name).map(|(_, meant)| *meant),
            _ => None,
        }
    }
}

/// The candidate closest to `name`, if one is close enough to be what was meant.
pub fn nearest(name: &str, candidates: &[&str]) -> Option<String> {
    let lower = name.to_lowercase();
    candidates
        .iter()
        .map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), *c))
        .min()
        .filter(|(distance, c)| *distance <= 1 + c.len().max(name.len()) / 4)
        .map(|(_, c)| c.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_itself() {
        for name in NAMES {
            assert_eq!(Field::parse(name).expect(name).name(), *name);
        }
        for name in
            ["annotations.pod-security.kubernetes.io/audit-violations", "user.extra.x/y.z", "requestObject.spec.a"]
        {
            assert_eq!(Field::parse(name).expect(name).name(), name);
        }
    }

    #[test]
    fn every_name_is_documented() {
        let page = include_str!("../../../docs/fields.md");
        for name in NAMES {
            assert!(page.contains(&format!("`{name}`")), "docs/fields.md does not tell of `{name}`");
        }
    }

    #[test]
    fn lists_fan_out_with_or_without_brackets() {
        assert_eq!(
            Field::parse("requestObject.spec.containers[].image"),
            Field::parse("requestObject.spec.containers.image")
        );
    }

    #[test]
    fn a_slip_gets_a_suggestion_and_nonsense_does_not() {
        let e = Field::parse("objectRef.subresourse").expect_err("a slip");
        assert_eq!(e.to_string(), "unknown field `objectRef.subresourse`; did you mean `objectRef.subresource`?");
        assert_eq!(Field::parse("process.command_line").expect_err("nonsense").suggestion, None);
        assert!(Field::parse("annotations.").is_err() && Field::parse("requestObject.a..b").is_err());
    }
}
