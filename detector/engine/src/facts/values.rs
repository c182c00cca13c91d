//! From a [`Field`] to its values.

use super::{Exec, Facts, actor, body, uri};
use crate::event::{List, Text};
use crate::field::{Field, Path};
use crate::rule::index::COMMON_ANNOTATIONS;
use crate::rule::view::{Elements, Scalar, Unknown, Values, View};
use crate::tree::Tree;

fn text(s: &str) -> Values<'_> {
    if s.is_empty() { Values::Absent } else { Values::One(Scalar::Str(s)) }
}

fn maybe(s: Option<&str>) -> Values<'_> {
    s.map_or(Values::Absent, text)
}

fn yes(b: bool) -> Values<'static> {
    Values::One(Scalar::Bool(b))
}

pub(super) fn many<'a>(items: impl IntoIterator<Item = &'a str>) -> Values<'a> {
    let list: Vec<Scalar<'a>> = items.into_iter().map(Scalar::Str).collect();
    if list.is_empty() { Values::Absent } else { Values::Many(list) }
}

fn texts<'a>(items: &'a List<Text<'_>>) -> Values<'a> {
    many(items.0.iter().map(Text::as_str))
}

pub(super) fn strings(items: &[String]) -> Values<'_> {
    many(items.iter().map(String::as_str))
}

/// The part of a view, absent where the view is, unknown where the view is.
fn part<'a, T>(view: Result<Option<&'a T>, Unknown>, read: impl FnOnce(&'a T) -> Values<'a>) -> Values<'a> {
    match view {
        Ok(Some(v)) => read(v),
        Ok(None) => Values::Absent,
        Err(why) => Values::Unknown(why),
    }
}

fn scalar<'a>(v: &'a Tree<'_>) -> Option<Scalar<'a>> {
    Some(match v {
        Tree::Null => Scalar::Null,
        Tree::Bool(b) => Scalar::Bool(*b),
        Tree::Int(n) => Scalar::Int(*n),
        Tree::Float(n) => Scalar::Float(*n),
        Tree::Text(text) => Scalar::Str(text),
        Tree::List(_) | Tree::Object(_) => return None,
    })
}

fn at_path<'a>(body: &'a body::Body<'_>, path: &Path) -> Values<'a> {
    let root = match body {
        Ok(Some(root)) => root,
        Ok(None) => return Values::Absent,
        Err(why) => return Values::Unknown(*why),
    };
    let mut found = Vec::new();
    body::walk(root, &path.0, &mut found);
    let scalars: Vec<Scalar<'a>> = found.iter().filter_map(|v| scalar(v)).collect();
    match (found.is_empty(), scalars.is_empty()) {
        (true, _) => Values::Absent,
        // An object is there: it has no text, but `exists` holds.
        (false, true) => Values::Many(Vec::new()),
        _ => Values::Many(scalars),
    }
}

fn whole<'a>(body: &'a body::Body<'_>) -> Values<'a> {
    match body {
        Ok(Some(_)) => Values::Many(Vec::new()),
        Ok(None) => Values::Absent,
        Err(why) => Values::Unknown(*why),
    }
}

fn elements_of<'a>(list: Result<Option<&'a [Tree<'a>]>, Unknown>) -> Elements<'a> {
    match list {
        Ok(None | Some([])) => Elements::Absent,
        Ok(Some(list)) => Elements::Items(list.iter().collect()),
        Err(why) => Elements::Unknown(why),
    }
}

fn elements_at<'a>(body: &'a body::Body<'_>, path: &Path) -> Elements<'a> {
    match body {
        Ok(Some(root)) => {
            let mut found = Vec::new();
            body::walk(root, &path.0, &mut found);
            found.retain(|v| v.is_object());
            if found.is_empty() { Elements::Absent } else { Elements::Items(found) }
        }
        Ok(None) => Elements::Absent,
        Err(why) => Elements::Unknown(*why),
    }
}

impl View for Facts<'_> {
    fn all_text(&self) -> &str {
        self.text
    }

    fn elements(&self, field: &Field) -> Elements<'_> {
        match field {
            Field::WorkloadContainers => elements_of(self.workload().map(|w| w.map(|_| self.containers()))),
            Field::RbacRules => elements_of(self.rbac().map(|r| r.map(|r| r.rules.as_slice()))),
            Field::Request(path) => elements_at(self.written(), path),
            Field::Response(path) => elements_at(self.answered(), path),
            _ => Elements::Absent,
        }
    }

    fn values(&self, field: &Field) -> Values<'_> {
        let values = self.told(field);
        if self.event.not_carried.none() { values } else { self.unless_hidden(field, values) }
    }
}

impl Facts<'_> {
    /// The values of a field, unknown where nothing is told because the source cannot carry it.
    pub(crate) fn unless_hidden<'v>(&self, field: &Field, values: Values<'v>) -> Values<'v> {
        let nothing = match &values {
            Values::Absent | Values::One(Scalar::Bool(false)) => true,
            Values::One(Scalar::Str(text)) => matches!(
                (field, *text),
                (Field::Outcome, "pending") | (Field::CredentialKind, "unknown") | (Field::ClientFamily, "none")
            ),
            _ => *field == Field::SourceIps,
        };
        if nothing && self.event.not_carried.hides(field) { Values::Unknown(Unknown::NotCarried) } else { values }
    }

    fn told(&self, field: &Field) -> Values<'_> {
        match field {
            Field::Kind => Values::One(Scalar::Str("Event")),
            Field::ApiVersion => text(&self.event.api_version),
            Field::Level => text(self.event.level.as_str()),
            Field::AuditId => text(&self.event.audit_id),
            Field::Stage => text(self.event.stage.as_str()),
            Field::RequestUri => text(&self.event.request_uri),
            Field::Verb => text(&self.event.verb),
            Field::SourceIps => texts(&self.event.source_ips),
            Field::UserAgent => text(&self.event.user_agent),
            Field::ReceivedTime => text(&self.event.request_received_timestamp),
            Field::StageTime => text(&self.event.stage_timestamp),
            Field::Annotation(key) => maybe(self.event.annotation(key)),
            Field::Request(path) => at_path(self.written(), path),
            Field::Response(path) => at_path(self.answered(), path),
            Field::RequestBody => whole(self.written()),
            Field::ResponseBody => whole(self.answered()),
            Field::Cluster => text(self.cluster),
            Field::Never(_) => Values::Absent,
            Field::PsaViolations => maybe(self.event.annotation("pod-security.kubernetes.io/audit-violations")),
            Field::AnnotationKeys => self.annotation_keys(),
            Field::AdmissionFailedOpen => yes(self.failed_open()),
            Field::EventTruncated => yes(self.event.truncated()),
            Field::EventMalformed => yes(!self.event.malformed.is_empty()),
            Field::PsaEnforce => self.psa_enforce(),
            _ => self
                .user_value(field)
                .or_else(|| self.target_value(field))
                .or_else(|| self.client_value(field))
                .or_else(|| self.uri_value(field))
                .or_else(|| self.object_value(field))
                .or_else(|| self.workload_value(field))
                .unwrap_or_else(|| self.rbac_value(field)),
        }
    }

    fn user_value(&self, field: &Field) -> Option<Values<'_>> {
        let user = &self.event.user;
        let other = self.event.impersonated_user.as_ref();
        let account = || actor::service_account(&user.username);
        if self.user_unreadable() && is_about_user(field) {
            return Some(Values::Unknown(Unknown::Unreadable));
        }
        Some(match field {
            Field::UserName => text(&user.username),
            Field::UserUid => text(&user.uid),
            Field::UserGroups | Field::ActorGroups => texts(&user.groups),
            Field::UserExtra(key) => user.extra.get(key).map_or(Values::Absent, texts),
            Field::ImpersonatedName | Field::ActorAs => maybe(other.map(|u| u.username.as_str())),
            Field::ImpersonatedUid => maybe(other.map(|u| u.uid.as_str())),
            Field::ImpersonatedGroups | Field::ActorAsGroups => other.map_or(Values::Absent, |u| texts(&u.groups)),
            Field::ActorImpersonating => yes(other.is_some()),
            Field::ActorName => text(self.actor()),
            Field::ActorKind => text(self.actor_kind),
            Field::ActorNamespace => maybe(account().map(|(ns, _)| ns)),
            Field::ActorServiceAccount => maybe(account().map(|(_, name)| name)),
            Field::ActorAdmin => yes(actor::is_admin(self.event)),
            Field::ActorClusterComponent => yes(self.cluster_component),
            Field::ActorCloudIdentity => text(actor::cloud_identity(user)),
            Field::CredentialKind => text(self.credential_kind()),
            Field::CredentialId => text(actor::credential_id(user)),
            Field::CredentialPod => text(actor::credential_pod(user)),
            Field::CredentialNode => text(actor::credential_node(user)),
            Field::RightReason => text(self.reason()),
            Field::RightBinding => maybe(actor::right(self.reason()).0),
            Field::RightRole => maybe(actor::right(self.reason()).1),
            _ => return None,
        })
    }

    fn target_value(&self, field: &Field) -> Option<Values<'_>> {
        let object = self.event.object_ref.as_ref();
        let status = self.event.response_status.as_ref();
        Some(match field {
            Field::RefResource | Field::TargetResource => text(self.resource),
            Field::RefSubresource | Field::TargetSubresource => text(self.subresource),
            Field::RefNamespace | Field::TargetNamespace => text(self.namespace),
            Field::RefName => maybe(object.map(|o| o.name.as_str())),
            Field::TargetName => text(self.name()),
            Field::RefUid => maybe(object.map(|o| o.uid.as_str())),
            Field::RefApiGroup | Field::TargetGroup => maybe(object.map(|o| o.api_group.as_str())),
            Field::RefApiVersion => maybe(object.map(|o| o.api_version.as_str())),
            Field::RefResourceVersion => maybe(object.map(|o| o.resource_version.as_str())),
            Field::TargetPath if object.is_none() => text(uri::path(&self.event.request_uri)),
            Field::TargetPath => Values::Absent,
            Field::TargetScope => text(self.scope()),
            Field::TargetSystemNamespace => {
                yes(matches!(self.namespace, "kube-system" | "kube-public" | "kube-node-lease"))
            }
            Field::StatusCode => status.and_then(|s| s.code).map_or(Values::Absent, |c| Values::One(Scalar::Int(c))),
            Field::StatusStatus => maybe(status.map(|s| s.status.as_str())),
            Field::StatusReason => maybe(status.map(|s| s.reason.as_str())),
            Field::StatusMessage => maybe(status.map(|s| s.message.as_str())),
            Field::Action => text(self.action),
            Field::ActionType => text(self.action_type),
            Field::Outcome => text(self.outcome),
            Field::DryRun => yes(self.dry_run),
            _ => return None,
        })
    }

    fn client_value(&self, field: &Field) -> Option<Values<'_>> {
        Some(match field {
            Field::ClientFamily => text(self.client().0),
            Field::ClientVersion => text(self.client().1),
            Field::ClientAddress => text(self.address()),
            Field::ClientRange => text(self.client_range()),
            Field::ClientNetwork => text(self.network()),
            Field::ClientClaims => {
                let ips = &self.event.source_ips.0;
                many(ips[..ips.len().saturating_sub(1)].iter().map(Text::as_str))
            }
            _ => return None,
        })
    }

    fn uri_value(&self, field: &Field) -> Option<Values<'_>> {
        Some(match field {
            Field::ExecCommand | Field::ExecArgs => match self.exec() {
                Some(Exec { hidden: Some(why), .. }) => Values::Unknown(*why),
                Some(exec) if *field == Field::ExecArgs => strings(&exec.args),
                exec => maybe(exec.map(|e| e.command.as_str())),
            },
            Field::ExecContainer => maybe(self.exec().and_then(|e| e.container.as_deref())),
            Field::ExecStdin => self.exec().map_or(Values::Absent, |e| yes(e.stdin)),
            Field::ExecTty => self.exec().map_or(Values::Absent, |e| yes(e.tty)),
            Field::ProxyPath => maybe(self.proxy().map(|p| p.path.as_str())),
            Field::ProxyPort => maybe(self.proxy().and_then(|p| p.port.as_deref())),
            Field::ProxyKubelet => self.proxy().map_or(Values::Absent, |p| yes(p.kubelet)),
            _ => return None,
        })
    }

    fn workload_value(&self, field: &Field) -> Option<Values<'_>> {
        let w = |read: fn(&super::Workload) -> Values<'_>| part(self.workload(), read);
        Some(match field {
            Field::WorkloadKind => w(|w| text(&w.kind)),
            Field::WorkloadPrivileged => w(|w| yes(w.privileged)),
            Field::WorkloadHostPid => w(|w| yes(w.host_pid)),
            Field::WorkloadHostIpc => w(|w| yes(w.host_ipc)),
            Field::WorkloadHostNetwork => w(|w| yes(w.host_network)),
            Field::WorkloadHostPaths => w(|w| strings(&w.host_paths)),
            Field::WorkloadSensitiveHostPaths => w(|w| strings(&w.sensitive_host_paths)),
            Field::WorkloadCapabilities => w(|w| strings(&w.capabilities)),
            Field::WorkloadImages => w(|w| strings(&w.images)),
            Field::WorkloadImageTags => w(|w| strings(&w.image_tags)),
            Field::WorkloadRegistries => w(|w| strings(&w.registries)),
            Field::WorkloadCommands => w(|w| strings(&w.commands)),
            Field::WorkloadEnv => w(|w| strings(&w.env)),
            Field::WorkloadServiceAccount => w(|w| maybe(w.service_account.as_deref())),
            Field::WorkloadRunAsRoot => w(|w| yes(w.run_as_root)),
            Field::WorkloadAllowPrivilegeEscalation => w(|w| yes(w.allow_privilege_escalation)),
            Field::WorkloadShareProcessNamespace => w(|w| yes(w.share_process_namespace)),
            Field::WorkloadNodeName => w(|w| maybe(w.node_name.as_deref())),
            Field::WorkloadToleratesControlPlane => w(|w| yes(w.tolerates_control_plane)),
            Field::WorkloadHostPorts => w(|w| ints(&w.host_ports)),
            Field::WorkloadInteractive => w(|w| yes(w.interactive)),
            Field::WorkloadAutomountToken => w(|w| w.automount_token.map_or(Values::Absent, yes)),
            Field::WorkloadSeccompUnconfined => w(|w| yes(w.seccomp_unconfined)),
            Field::WorkloadApparmorUnconfined => w(|w| yes(w.apparmor_unconfined)),
            Field::WorkloadProcMountUnmasked => w(|w| yes(w.proc_mount_unmasked)),
            Field::WorkloadUnsafeSysctls => w(|w| strings(&w.unsafe_sysctls)),
            Field::WorkloadMirror => w(|w| yes(w.mirror)),
            Field::WorkloadOwned => w(|w| yes(w.owned)),
            Field::WorkloadMissingLimits => w(|w| many(w.missing_limits.iter().copied())),
            Field::WorkloadContainers => {
                w(|w| if w.has_containers { Values::Many(Vec::new()) } else { Values::Absent })
            }
            _ => return None,
        })
    }

    fn rbac_value(&self, field: &Field) -> Values<'_> {
        let r = |read: fn(&super::Rbac) -> Values<'_>| part(self.rbac(), read);
        let c = |read: fn(&super::csr::Csr) -> Values<'_>| part(self.csr(), read);
        match field {
            Field::RbacKind => super::rbac::kind(self.resource).map_or(Values::Absent, text),
            Field::RbacRole => r(|r| match &r.role {
                Some(Ok(role)) => text(role),
                Some(Err(why)) => Values::Unknown(*why),
                None => Values::Absent,
            }),
            Field::RbacRoleKind => r(|r| maybe(r.role_kind.as_deref())),
            Field::RbacSubjects => r(|r| strings(&r.subjects)),
            Field::RbacSubjectKinds => r(|r| strings(&r.subject_kinds)),
            Field::RbacSubjectNames => r(|r| strings(&r.subject_names)),
            Field::RbacVerbs => r(|r| strings(&r.verbs)),
            Field::RbacResources => r(|r| strings(&r.resources)),
            Field::RbacRules => r(|r| if r.rules.is_empty() { Values::Absent } else { Values::Many(Vec::new()) }),
            Field::RbacPowers => r(|r| match &r.role {
                Some(Err(why)) => Values::Unknown(*why),
                _ => many(r.powers.iter().copied()),
            }),
            Field::RbacBroadSubject => r(|r| yes(r.broad_subject)),
            Field::RbacSelfGrant => r(|r| yes(r.self_grant)),
            Field::RbacAggregates => r(|r| strings(&r.aggregates)),
            Field::CsrSigner => c(|c| maybe(c.signer.as_deref())),
            Field::CsrCn => c(|c| maybe(c.cn.as_deref())),
            Field::CsrOrganizations => c(|c| strings(&c.organizations)),
            Field::CsrUsages => c(|c| strings(&c.usages)),
            _ => Values::Absent,
        }
    }

    /// Audit annotations beside those that every authorized request has.
    fn annotation_keys(&self) -> Values<'_> {
        let keys = self.event.annotations.0.iter().map(|(key, _)| key.as_str());
        many(keys.filter(|key| !COMMON_ANNOTATIONS.contains(key)))
    }

    fn failed_open(&self) -> bool {
        self.event.annotations.0.iter().any(|(k, _)| k.starts_with(super::FAILED_OPEN))
    }

    /// The enforce label a write on a namespace sets; the empty text when a patch removes it.
    fn psa_enforce(&self) -> Values<'_> {
        if self.resource != "namespaces" || !matches!(self.action, "create" | "update" | "patch") {
            return Values::Absent;
        }
        const LABEL: &str = "pod-security.kubernetes.io/enforce";
        match self.written() {
            Ok(Some(object)) => match object.at(&["metadata", "labels", LABEL]) {
                Some(Tree::Text(level)) => Values::One(Scalar::Str(level)),
                Some(_) => Values::One(Scalar::Str("removed")),
                None => Values::Absent,
            },
            Ok(None) => Values::Absent,
            Err(why) => Values::Unknown(*why),
        }
    }
}

/// Fields that tell who acts, and of which an unreadable user tells nothing.
fn is_about_user(field: &Field) -> bool {
    matches!(
        field,
        Field::UserName
            | Field::UserUid
            | Field::UserGroups
            | Field::UserExtra(_)
            | Field::ActorName
            | Field::ActorKind
            | Field::ActorGroups
            | Field::ActorNamespace
            | Field::ActorServiceAccount
            | Field::ActorAdmin
            | Field::ActorClusterComponent
            | Field::ActorCloudIdentity
            | Field::CredentialKind
            | Field::CredentialId
            | Field::CredentialPod
            | Field::CredentialNode
    )
}

fn ints(items: &[i64]) -> Values<'_> {
    if items.is_empty() { Values::Absent } else { Values::Many(items.iter().map(|i| Scalar::Int(*i)).collect()) }
}
