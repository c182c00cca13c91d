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
    ActorClusterComponent "actor.cluster_component",
    ActorCloudIdentity "actor.cloud_identity",
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
    TargetLabels "target.labels",
    TargetAnnotations "target.annotations",
    TargetManagers "target.managers",
    ConfigEntries "config.entries",
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
    CredentialPodDeleted "credential.pod_deleted",
    CredentialIssuedBy "credential.issued_by",
    CredentialIssuedKind "credential.issued_kind",
    CredentialIssuedAgo "credential.issued_ago",
    CredentialIssuedFrom "credential.issued_from",
    CredentialSeenAgo "credential.seen_ago",
    CredentialFirstAddress "credential.first_address",
    CredentialFirstNetwork "credential.first_network",
    CredentialFirstClient "credential.first_client",
    CredentialNewAddress "credential.new_address",
    CredentialNewClient "credential.new_client",
    CredentialCsrRequestedBy "credential.csr_requested_by",
    CredentialCsrApprovedBy "credential.csr_approved_by",
    CredentialCsrAgo "credential.csr_ago",
    RightReason "right.reason",
    RightBinding "right.binding",
    RightRole "right.role",
    RightGrantedBy "right.granted_by",
    RightGrantedAgo "right.granted_ago",
    RightGrantedAfterDenial "right.granted_after_denial",
    ActorDeniedAgo "actor.denied_ago",
    PodPowers "pod.powers",
    PodServiceAccount "pod.service_account",
    PodCreator "pod.creator",
    PodAge "pod.age",
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
    WorkloadImageTags "workload.image_tags",
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
    WorkloadMissingLimits "workload.missing_limits",
    WorkloadContainers "workload.containers",
    WorkloadClaimedHostPaths "workload.claimed_host_paths",
    FormerImages "former.images",
    FormerRegistries "former.registries",
    FormerServiceAccount "former.service_account",
    FormerReplicas "former.replicas",
    FormerGrowth "former.growth",
    FormerRaised "former.raised",
    RbacKind "rbac.kind",
    RbacRole "rbac.role",
    RbacRoleKind "rbac.role_kind",
    RbacSubjects "rbac.subjects",
    RbacSubjectKinds "rbac.subject_kinds",
    RbacSubjectNames "rbac.subject_names",
    RbacVerbs "rbac.verbs",
    RbacResources "rbac.resources",
    RbacRules "rbac.rules",
    RbacPowers "rbac.powers",
    RbacBroadSubject "rbac.broad_subject",
    RbacSelfGrant "rbac.self_grant",
    RbacAggregates "rbac.aggregates",
    RbacGained "rbac.gained",
    RbacGainedPowers "rbac.gained_powers",
    RbacGainedSubjects "rbac.gained_subjects",
    RbacGainedBySelf "rbac.gained_by_self",
    RbacHolders "rbac.holders",
    RbacPrebound "rbac.prebound",
    RbacGrantedBy "rbac.granted_by",
    RbacGrantedPowers "rbac.granted_powers",
    RbacLived "rbac.lived",
    RbacUsed "rbac.used",
    CsrSigner "csr.signer",
    CsrCn "csr.cn",
    CsrOrganizations "csr.organizations",
    CsrUsages "csr.usages",
    PsaEnforce "psa.enforce",
    PsaViolations "psa.violations",
    AdmissionFailedOpen "admission.failed_open",
    AdmissionWeakened "admission.weakened",
    AdmissionWeakenedAgo "admission.weakened_ago",
    AdmissionWeakenedBy "admission.weakened_by",
    AdmissionRefusedAgo "admission.refused_ago",
    AdmissionRefusedIn "admission.refused_in",
    AnnotationKeys "annotation.keys",
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

    /// Whether it is read from what the engine remembers of earlier events.
    pub const fn is_remembered(&self) -> bool {
        self.is_of_credential()
            || matches!(
                self,
                Self::RightGrantedBy
                    | Self::RightGrantedAgo
                    | Self::RightGrantedAfterDenial
                    | Self::ActorDeniedAgo
                    | Self::PodPowers
                    | Self::PodServiceAccount
                    | Self::PodCreator
                    | Self::PodAge
                    | Self::WorkloadClaimedHostPaths
                    | Self::FormerImages
                    | Self::FormerRegistries
                    | Self::FormerServiceAccount
                    | Self::FormerReplicas
                    | Self::FormerGrowth
                    | Self::FormerRaised
                    | Self::RbacGained
                    | Self::RbacGainedPowers
                    | Self::RbacGainedSubjects
                    | Self::RbacGainedBySelf
                    | Self::RbacHolders
                    | Self::RbacPrebound
                    | Self::RbacGrantedBy
                    | Self::RbacGrantedPowers
                    | Self::RbacLived
                    | Self::RbacUsed
                    | Self::AdmissionWeakened
                    | Self::AdmissionWeakenedAgo
                    | Self::AdmissionWeakenedBy
                    | Self::AdmissionRefusedAgo
                    | Self::AdmissionRefusedIn
            )
    }

    /// Whether it tells of a binding that is removed, for which a deletion without a body will do.
    pub const fn is_of_removed_binding(&self) -> bool {
        matches!(self, Self::RbacGrantedBy | Self::RbacGrantedPowers | Self::RbacLived | Self::RbacUsed)
    }

    /// Whether it is about the past of a credential, which everyday use has none of.
    pub const fn is_of_credential(&self) -> bool {
        matches!(
            self,
            Self::CredentialPodDeleted
                | Self::CredentialIssuedBy
                | Self::CredentialIssuedKind
                | Self::CredentialIssuedAgo
                | Self::CredentialIssuedFrom
                | Self::CredentialSeenAgo
                | Self::CredentialFirstAddress
                | Self::CredentialFirstNetwork
                | Self::CredentialFirstClient
                | Self::CredentialNewAddress
                | Self::CredentialNewClient
                | Self::CredentialCsrRequestedBy
                | Self::CredentialCsrApprovedBy
                | Self::CredentialCsrAgo
        )
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
