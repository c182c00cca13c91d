//! What Lapwing derives from an event once, so that rules stay short and cannot be walked around.
//!
//! The cheap facts (who, what, how it ended) are computed when [`Facts`] is made: the index needs
//! them for every event. What costs (bodies, the pod spec, RBAC, certificates) is computed when the
//! first rule asks and kept for the next one.

mod action;
mod actor;
mod body;
mod csr;
mod object;
mod rbac;
mod uri;
mod values;
mod workload;

use std::cell::OnceCell;

pub(crate) use actor::push_range;
pub use actor::service_account;
pub(crate) use body::Body;
pub use rbac::Rbac;
pub(crate) use rbac::{is_actor, powers_of_right};
pub use uri::{Exec, Proxy};
pub use workload::Workload;
pub(crate) use workload::{is_sensitive, read as workload_of};

use crate::event::{Event, Stage, Text};
use crate::rule::index::{COMMON_ANNOTATIONS, carried, is_common_group};
use crate::rule::view::Unknown;
use crate::tree::Tree;

/// One event with everything derived from it.
#[derive(Debug)]
pub struct Facts<'e> {
    pub event: &'e Event<'e>,
    text: &'e str,
    pub cluster: &'e str,
    pub action: &'e str,
    pub action_type: &'static str,
    pub outcome: &'static str,
    pub dry_run: bool,
    pub actor_kind: &'static str,
    /// The control plane, a node or a built-in controller acts.
    pub cluster_component: bool,
    pub resource: &'e str,
    pub subresource: &'e str,
    pub namespace: &'e str,
    lazy: Lazy<'e>,
}

#[derive(Debug, Default)]
struct Lazy<'e> {
    written: OnceCell<Body<'e>>,
    answered: OnceCell<Body<'e>>,
    head: OnceCell<body::Head<'e>>,
    managers: OnceCell<Option<Vec<Text<'e>>>>,
    workload: OnceCell<Result<Option<Box<Workload>>, Unknown>>,
    containers: OnceCell<Vec<Tree<'static>>>,
    rbac: OnceCell<Result<Option<Box<Rbac>>, Unknown>>,
    csr: OnceCell<Result<Option<Box<csr::Csr>>, Unknown>>,
    labels: OnceCell<object::Entries>,
    annotations: OnceCell<object::Entries>,
    config: OnceCell<object::Entries>,
    exec: OnceCell<Exec>,
    proxy: OnceCell<Proxy>,
    name: OnceCell<&'e str>,
    network: OnceCell<&'static str>,
    time: OnceCell<Option<i64>>,
    range: OnceCell<String>,
    client: OnceCell<(&'e str, &'e str)>,
}

impl<'e> Facts<'e> {
    /// `text` is the event as it was read, for keyword search.
    pub fn new(event: &'e Event<'e>, text: &'e str, cluster: &'e str) -> Self {
        let action = action::action(event);
        let action_type = action::action_type(action, &event.verb);
        let dry_run = action::dry_run(action, action_type, &event.request_uri);
        let object = event.object_ref.as_ref();
        let actor_kind = if user_unreadable(event) { "unknown" } else { actor::kind(&event.user) };
        Self {
            event,
            text,
            cluster,
            action,
            action_type,
            outcome: action::outcome(event, dry_run),
            dry_run,
            actor_kind,
            cluster_component: actor::is_cluster_component(actor_kind, event),
            resource: object.map_or("", |o| &*o.resource),
            subresource: object.map_or("", |o| &*o.subresource),
            namespace: object.map_or("", |o| &*o.namespace),
            lazy: Lazy::default(),
        }
    }

    /// The real person or machine: the impersonator, where there is one.
    pub fn actor(&self) -> &'e str {
        match &*self.event.user.username {
            "" if self.user_unreadable() => "unknown",
            "" => "system:anonymous",
            name => name,
        }
    }

    /// The event names a user that cannot be read: nobody knows who it was, least of all that it was nobody.
    pub fn user_unreadable(&self) -> bool {
        user_unreadable(self.event)
    }

    /// Whom the request acted as.
    pub fn acting_as(&self) -> Option<&'e str> {
        self.event.impersonated_user.as_ref().map(|u| &*u.username)
    }

    /// The peer's address.
    pub fn address(&self) -> &'e str {
        actor::address(self.event)
    }

    /// `x509`, `token`, `unknown` or `none`.
    pub fn credential_kind(&self) -> &'static str {
        actor::credential_kind(&self.event.user)
    }

    /// The right that allowed the request, or why it was refused, in the API server's words.
    pub fn reason(&self) -> &'e str {
        self.event.annotation("authorization.k8s.io/reason").unwrap_or_default()
    }

    /// `loopback`, `private`, `public` or `unknown`.
    pub fn network(&self) -> &'static str {
        self.lazy.network.get_or_init(|| actor::network(self.address()))
    }

    /// Id of the credential, empty where it is not told.
    pub fn credential_id(&self) -> &'e str {
        actor::credential_id(&self.event.user)
    }

    /// Name and uid of the pod a service account token is bound to.
    pub fn credential_pod(&self) -> (&'e str, &'e str) {
        (actor::credential_pod(&self.event.user), actor::credential_pod_uid(&self.event.user))
    }

    /// As [`Event::time`].
    pub fn time(&self) -> Option<i64> {
        *self.lazy.time.get_or_init(|| self.event.time())
    }

    /// The network the peer's address lies in: /16 of IPv4, /32 of IPv6. Empty for what is no address.
    pub fn client_range(&self) -> &str {
        self.lazy.range.get_or_init(|| {
            let mut range = String::new();
            actor::push_range(self.address(), false, &mut range);
            range
        })
    }

    /// Family of the client: the first product token of the user agent.
    pub fn client(&self) -> (&'e str, &'e str) {
        *self.lazy.client.get_or_init(|| actor::client(&self.event.user_agent))
    }

    /// `namespaced`, `cluster`, `all-namespaces` or `url`.
    pub fn scope(&self) -> &'static str {
        if self.event.object_ref.is_none() {
            return "url";
        }
        if !self.namespace.is_empty() {
            return "namespaced";
        }
        let many = matches!(&*self.event.verb, "list" | "watch" | "deletecollection");
        if many && is_namespaced(self.resource) { "all-namespaces" } else { "cluster" }
    }

    /// Name of the target, from the answer or the body where `objectRef` has none (`generateName`).
    pub fn name(&self) -> &str {
        let from_ref = *self.lazy.name.get_or_init(|| self.event.object_ref.as_ref().map_or("", |o| &*o.name));
        if !from_ref.is_empty() || self.action_type != "write" || &*self.event.verb != "create" {
            return from_ref;
        }
        if !self.head().name.is_empty() {
            return &self.head().name;
        }
        let written = self.written().as_ref().ok().and_then(Option::as_ref);
        written.and_then(|object| object.at(&["metadata", "name"])).and_then(Tree::as_str).unwrap_or_default()
    }

    /// What the request writes.
    pub fn written(&self) -> &Body<'e> {
        self.lazy.written.get_or_init(|| body::written(self.event))
    }

    /// What the API server answered.
    pub fn answered(&self) -> &Body<'e> {
        self.lazy.answered.get_or_init(|| body::answered(self.event))
    }

    /// The head of what the API server answered.
    pub(crate) fn head(&self) -> &body::Head<'e> {
        self.lazy.head.get_or_init(|| body::head(self.event))
    }

    /// Service account of the pod that the answer shows.
    pub(crate) fn answered_service_account(&self) -> Text<'e> {
        body::answered_service_account(self.event)
    }

    fn writes_object(&self) -> bool {
        matches!(self.action, "create" | "update" | "patch" | "debug")
    }

    /// What of the things most events lack this one may carry, as bits of [`carried`].
    pub fn carried(&self) -> u16 {
        let event = self.event;
        if !event.not_carried.none() {
            // Any of it may have been there.
            return u16::MAX;
        }
        let (mut failed_open, mut other) = (false, false);
        for (key, _) in &event.annotations.0 {
            failed_open |= key.starts_with(FAILED_OPEN);
            other |= !COMMON_ANNOTATIONS.contains(&key.as_str());
        }
        [
            (event.impersonated_user.is_some(), carried::IMPERSONATION),
            (self.dry_run, carried::DRY_RUN),
            (other && event.truncated(), carried::TRUNCATED),
            (failed_open, carried::FAILED_OPEN),
            (!actor::credential_pod(&event.user).is_empty(), carried::POD_TOKEN),
            (other, carried::ANNOTATION),
            (self.may_write_workload(), carried::WORKLOAD),
            (self.may_write_rbac(), carried::RBAC),
            (!matches!(event.code(), Some(200 | 201)), carried::CODE),
            (event.user.groups.0.iter().any(|g| !is_common_group(g)), carried::GROUP),
            (!self.cluster_component, carried::OUTSIDER),
        ]
        .iter()
        .filter(|(held, _)| *held)
        .fold(0, |bits, (_, bit)| bits | bit)
    }

    /// False when there is no pod spec for sure, without a look into the body.
    fn may_write_workload(&self) -> bool {
        self.writes_object()
            && writes_spec(self.subresource)
            && carries_pods(self.resource)
            && !is_reserved(self.outcome)
            && (self.event.request_object.is_some() || workload::is_kind(self.resource))
    }

    fn may_write_rbac(&self) -> bool {
        self.writes_object() && !is_reserved(self.outcome) && rbac::kind(self.resource).is_some()
    }

    /// False when there is neither a pod spec nor RBAC for sure, without a look into the body.
    pub(crate) fn may_write_powers(&self) -> bool {
        self.may_write_workload() || self.may_write_rbac()
    }

    /// The pod spec this request writes.
    pub fn workload(&self) -> Result<Option<&Workload>, Unknown> {
        let view = self.lazy.workload.get_or_init(|| {
            if !self.may_write_workload() {
                return Ok(None);
            }
            match self.written() {
                Ok(object) => Ok(object.as_ref().and_then(|o| workload::read(self.resource, o)).map(Box::new)),
                // A body we cannot see matters only where it could hold a pod spec.
                Err(why) if workload::is_kind(self.resource) => Err(*why),
                Err(_) => Ok(None),
            }
        });
        view.as_ref().map(Option::as_deref).map_err(|e| *e)
    }

    /// One object per container of the pod spec this request writes.
    fn containers(&self) -> &[Tree<'static>] {
        self.lazy.containers.get_or_init(|| match self.written() {
            Ok(Some(object)) => workload::containers(self.resource, object),
            _ => Vec::new(),
        })
    }

    /// The role or binding this request writes.
    pub fn rbac(&self) -> Result<Option<&Rbac>, Unknown> {
        let view = self.lazy.rbac.get_or_init(|| {
            let Some(kind) = rbac::kind(self.resource).filter(|_| self.may_write_rbac()) else { return Ok(None) };
            match self.written() {
                Ok(Some(object)) => {
                    let answered = if &*self.event.verb == "patch" { self.answered().as_ref().ok() } else { None };
                    Ok(Some(Box::new(rbac::read(kind, self.event, object, answered.and_then(Option::as_ref)))))
                }
                Ok(None) => Ok(None),
                Err(why) => Err(*why),
            }
        });
        view.as_ref().map(Option::as_deref).map_err(|e| *e)
    }

    pub(crate) fn csr(&self) -> Result<Option<&csr::Csr>, Unknown> {
        let view = self.lazy.csr.get_or_init(|| {
            if self.resource != "certificatesigningrequests" || self.action_type != "write" {
                return Ok(None);
            }
            // An approval answers with the whole request.
            let whole = if self.action == "approve" { self.answered() } else { self.written() };
            match whole {
                Ok(object) => Ok(object.as_ref().map(csr::read).map(Box::new)),
                Err(why) => Err(*why),
            }
        });
        view.as_ref().map(Option::as_deref).map_err(|e| *e)
    }

    /// The command of an exec, attach or kubelet exec.
    pub fn exec(&self) -> Option<&Exec> {
        let runs = matches!(self.action, "exec" | "attach") || (self.action == "proxy" && self.resource == "nodes");
        runs.then(|| self.lazy.exec.get_or_init(|| self.read_exec()))
    }

    /// Some collectors drop the query of the URI and keep the options of the exec as a body.
    fn read_exec(&self) -> Exec {
        let exec = uri::exec(&self.event.request_uri);
        if self.action != "exec" || !exec.args.is_empty() {
            return exec;
        }
        match self.written() {
            Ok(Some(options)) => uri::exec_of_body(options),
            Ok(None) => exec,
            // The API server lets no exec pass without a command: it was there.
            Err(why) => Exec { hidden: Some(*why), ..exec },
        }
    }

    /// Where a proxied request goes.
    pub fn proxy(&self) -> Option<&Proxy> {
        (self.action == "proxy")
            .then(|| self.lazy.proxy.get_or_init(|| uri::proxy(&self.event.request_uri, self.resource)))
    }

    /// Whether rules judge this stage although they do not name one.
    pub fn judged(&self) -> bool {
        self.event.stage != Stage::RequestReceived
    }
}

/// Annotations of admission webhooks that failed and were ignored begin so.
const FAILED_OPEN: &str = "failed-open.";

fn user_unreadable(event: &Event<'_>) -> bool {
    event.malformed.contains(&"user")
}

/// The authorizer refused before the body was read: nothing was written and nothing is hidden.
fn is_reserved(outcome: &str) -> bool {
    matches!(outcome, "denied" | "unauthenticated")
}

/// Of the subresources only these change a pod spec: the API server ignores a spec sent to `status`.
fn writes_spec(subresource: &str) -> bool {
    matches!(subresource, "" | "ephemeralcontainers" | "resize")
}

/// Kinds written so often and never with a pod spec that parsing their bodies would be waste.
fn carries_pods(resource: &str) -> bool {
    !matches!(resource, "leases" | "events" | "endpoints" | "endpointslices" | "configmaps" | "secrets" | "nodes" | "")
}

/// Kinds that live in no namespace, of the built-in API groups.
fn is_namespaced(resource: &str) -> bool {
    !matches!(
        resource,
        "nodes"
            | "namespaces"
            | "persistentvolumes"
            | "clusterroles"
            | "clusterrolebindings"
            | "customresourcedefinitions"
            | "apiservices"
            | "mutatingwebhookconfigurations"
            | "validatingwebhookconfigurations"
            | "validatingadmissionpolicies"
            | "validatingadmissionpolicybindings"
            | "mutatingadmissionpolicies"
            | "mutatingadmissionpolicybindings"
            | "certificatesigningrequests"
            | "clustertrustbundles"
            | "storageclasses"
            | "csidrivers"
            | "csinodes"
            | "volumeattachments"
            | "volumeattributesclasses"
            | "priorityclasses"
            | "runtimeclasses"
            | "ingressclasses"
            | "flowschemas"
            | "prioritylevelconfigurations"
            | "componentstatuses"
            | "servicecidrs"
            | "ipaddresses"
            | "deviceclasses"
            | "resourceslices"
            | "selfsubjectaccessreviews"
            | "selfsubjectrulesreviews"
            | "selfsubjectreviews"
            | "subjectaccessreviews"
            | "tokenreviews"
    )
}
