//! Who acts, with which credential, from where, with which client and by which right.

use std::net::IpAddr;

use crate::event::{Event, User};

/// `human`, `serviceaccount`, `node`, `controlplane` or `anonymous`.
///
/// The class follows the name that authentication gave. A client certificate can carry any name, so
/// rules that exempt a class should also ask for the credential or the address.
pub fn kind(user: &User<'_>) -> &'static str {
    let name = &*user.username;
    if name.is_empty() || name == "system:anonymous" || user.groups.0.iter().any(|g| &**g == "system:unauthenticated") {
        return "anonymous";
    }
    if name.starts_with("system:serviceaccount:") {
        return "serviceaccount";
    }
    if name.starts_with("system:node:") {
        return "node";
    }
    match name {
        "system:apiserver"
        | "system:kube-controller-manager"
        | "system:kube-scheduler"
        | "system:kube-proxy"
        | "system:aggregator"
        | "system:cloud-controller-manager"
        | "system:addon-manager"
        | "kube-apiserver-kubelet-client" => "controlplane",
        _ => "human",
    }
}

/// Whether the request comes from the machinery of the cluster: the control plane, a node, or a controller built into
/// kube-controller-manager under its own service account. A token of such an account that is bound to a pod is not the
/// controller's: somebody runs a pod as that account. Nor is one that another program uses, though a program's name
/// alone would prove nothing.
pub fn is_cluster_component(kind: &str, event: &Event<'_>) -> bool {
    let user = &event.user;
    match kind {
        "controlplane" | "node" => true,
        "serviceaccount" => {
            let built_in = user.username.strip_prefix("system:serviceaccount:kube-system:");
            built_in.is_some_and(|name| CONTROLLERS.binary_search(&name).is_ok())
                && credential_pod(user).is_empty()
                && CONTROLLER_MANAGERS.contains(&client(&event.user_agent).0)
        }
        _ => false,
    }
}

/// Programs that contain kube-controller-manager.
const CONTROLLER_MANAGERS: &[&str] = &["kube-controller-manager", "k3s", "kubelite", "hyperkube"];

/// Service accounts of kube-controller-manager's controllers, sorted
/// (kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy/controller_policy.go).
const CONTROLLERS: &[&str] = &[
    "attachdetach-controller",
    "bootstrap-signer",
    "certificate-controller",
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "device-taint-eviction-controller",
    "disruption-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "endpointslicemirroring-controller",
    "ephemeral-volume-controller",
    "expand-controller",
    "generic-garbage-collector",
    "horizontal-pod-autoscaler",
    "job-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher",
    "legacy-service-account-token-cleaner",
    "namespace-controller",
    "node-controller",
    "persistent-volume-binder",
    "pod-garbage-collector",
    "pv-protection-controller",
    "pvc-protection-controller",
    "replicaset-controller",
    "replication-controller",
    "resource-claim-controller",
    "resourcequota-controller",
    "root-ca-cert-publisher",
    "selinux-warning-controller",
    "service-account-controller",
    "service-cidrs-controller",
    "service-controller",
    "statefulset-controller",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector",
    "taint-eviction-controller",
    "token-cleaner",
    "tokens-controller",
    "ttl-after-finished-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
    "volumeattributesclass-protection-controller",
];

/// Namespace and name of `system:serviceaccount:<namespace>:<name>`.
pub fn service_account(username: &str) -> Option<(&str, &str)> {
    username.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// Whether the request ran with unconditional power.
pub fn is_admin(event: &Event<'_>) -> bool {
    let all = |u: &User<'_>| u.groups.0.iter().any(|g| matches!(&**g, "system:masters" | "kubeadm:cluster-admins"));
    all(&event.user) || event.impersonated_user.as_ref().is_some_and(all)
}

/// The peer's address: the last of `sourceIPs`. Everything before it the client may have written itself.
pub fn address<'e>(event: &'e Event<'_>) -> &'e str {
    event.source_ips.0.last().map_or("", |t| t.as_str())
}

/// `loopback`, `private`, `public` or `unknown`.
pub fn network(address: &str) -> &'static str {
    let Ok(ip) = address.parse::<IpAddr>() else { return "unknown" };
    let ip = ip.to_canonical();
    let private = match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || v4.is_unspecified() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => (v6.segments()[0] & 0xfe00) == 0xfc00 || (v6.segments()[0] & 0xffc0) == 0xfe80,
    };
    match (ip.is_loopback(), private) {
        (true, _) => "loopback",
        (_, true) => "private",
        _ => "public",
    }
}

/// Appends the network an address lies in: /16 of IPv4 and /32 of IPv6, `narrow` /24 and /48. False, and nothing
/// appended, for what is no address.
pub fn push_range(address: &str, narrow: bool, out: &mut String) -> bool {
    use std::fmt::Write;
    let parsed = address.parse::<IpAddr>();
    if let Ok(IpAddr::V4(_)) = parsed {
        // The text has no other form: its own digits do, without printing them anew.
        let (dot, rest) = if narrow { (2, ".0/24") } else { (1, ".0.0/16") };
        let end = address.match_indices('.').nth(dot).map_or(address.len(), |(at, _)| at);
        out.push_str(&address[..end]);
        out.push_str(rest);
        return true;
    }
    let written = match parsed.map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(v4)) => {
            let [a, b, c, _] = v4.octets();
            if narrow { write!(out, "{a}.{b}.{c}.0/24") } else { write!(out, "{a}.{b}.0.0/16") }
        }
        Ok(IpAddr::V6(v6)) => {
            let [a, b, c, ..] = v6.segments();
            if narrow { write!(out, "{a:x}:{b:x}:{c:x}::/48") } else { write!(out, "{a:x}:{b:x}::/32") }
        }
        Err(_) => return false,
    };
    written.is_ok()
}

/// Product and version of a user agent: `kubectl/v1.32.4 (linux…)` is (`kubectl`, `v1.32.4`).
pub fn client(user_agent: &str) -> (&str, &str) {
    let end = user_agent.bytes().position(|b| matches!(b, b' ' | b'('));
    let first = &user_agent[..end.unwrap_or(user_agent.len())];
    match first.split_once('/') {
        _ if user_agent.is_empty() => ("none", ""),
        Some((product, version)) => (product, version.split('/').next().unwrap_or_default()),
        None => (first, ""),
    }
}

const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

fn extra<'e>(user: &'e User<'_>, key: &str) -> &'e str {
    user.extra.get(key).and_then(|v| v.0.first()).map_or("", |t| t.as_str())
}

/// The credential's own id (`JTI=…`, `X509SHA256=…`), where the API server tells it (1.30 and newer).
pub fn credential_id<'e>(user: &'e User<'_>) -> &'e str {
    extra(user, CREDENTIAL_ID)
}

/// The pod a bound service account token belongs to.
pub fn credential_pod<'e>(user: &'e User<'_>) -> &'e str {
    extra(user, POD_NAME)
}

/// The uid of that pod.
pub fn credential_pod_uid<'e>(user: &'e User<'_>) -> &'e str {
    extra(user, POD_UID)
}

/// The node a bound service account token was issued for.
pub fn credential_node<'e>(user: &'e User<'_>) -> &'e str {
    extra(user, NODE_NAME)
}

/// Where the authenticators of clouds tell who signed in: EKS (aws-iam-authenticator), AKS (Entra object id).
const CLOUD_IDENTITY: [&str; 4] = ["canonicalArn", "arn", "sigs.k8s.io/aws-iam-authenticator/principalId", "oid"];

/// The cloud's own name of the user: an AWS role or user, an Entra object id, a Google account.
pub fn cloud_identity<'e>(user: &'e User<'_>) -> &'e str {
    let told = CLOUD_IDENTITY.iter().map(|key| extra(user, key)).find(|id| !id.is_empty());
    let name = &*user.username;
    // GKE names users by their account, EKS those without a mapping by their ARN.
    let is_account = name.ends_with(".gserviceaccount.com") || name.starts_with("arn:aws");
    told.unwrap_or(if is_account { name } else { "" })
}

/// `x509`, `token`, `unknown` or `none`.
pub fn credential_kind(user: &User<'_>) -> &'static str {
    let id = credential_id(user);
    match () {
        () if kind(user) == "anonymous" => "none",
        () if id.starts_with("X509SHA256=") => "x509",
        () if id.starts_with("JTI=") => "token",
        () => "unknown",
    }
}

/// The binding and the role that allowed a request, from the API server's own sentence
/// `RBAC: allowed by RoleBinding "name/namespace" of ClusterRole "role" to …`.
pub fn right(reason: &str) -> (Option<&str>, Option<&str>) {
    let mut quoted = reason.split('"').skip(1).step_by(2);
    if !reason.starts_with("RBAC: allowed by ") {
        return (None, None);
    }
    (quoted.next(), quoted.next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Text;

    #[test]
    fn components_are_known_by_identity_and_credential() {
        let by = |name: &str, pod: &str, agent: &str| {
            let extra = format!(r#"{{"{POD_NAME}":["{pod}"]}}"#);
            let extra = serde_json::from_str(if pod.is_empty() { "{}" } else { &extra }).expect("JSON");
            let user = User { username: Text(name.to_owned().into()), extra, ..User::default() };
            let event = Event { user, user_agent: Text(agent.to_owned().into()), ..Event::default() };
            is_cluster_component(kind(&event.user), &event)
        };
        let is = |name: &str, pod: &str| by(name, pod, "kube-controller-manager/v1.36.0 (linux/amd64)");
        assert!(is("system:kube-scheduler", "") && is("system:node:n1", ""));
        assert!(CONTROLLERS.is_sorted());
        for name in CONTROLLERS {
            assert!(is(&format!("system:serviceaccount:kube-system:{name}"), ""), "{name}");
        }
        assert!(!is("system:serviceaccount:kube-system:replicaset-controller", "evil-pod"), "a pod runs as it");
        let account = "system:serviceaccount:kube-system:replicaset-controller";
        assert!(by(account, "", "k3s/v1.32.1+k3s1 (linux/amd64)") && !by(account, "", "kubectl/v1.32.4 (linux/amd64)"));
        assert!(!is("system:serviceaccount:shop:replicaset-controller", ""));
        assert!(!is("system:serviceaccount:kube-system:default", "") && !is("alice", ""));
    }

    #[test]
    fn kinds() {
        let of = |name: &str| kind(&User { username: Text(name.to_owned().into()), ..User::default() });
        assert_eq!(of(""), "anonymous");
        assert_eq!(of("system:anonymous"), "anonymous");
        assert_eq!(of("system:serviceaccount:a:b"), "serviceaccount");
        assert_eq!(of("system:node:n1"), "node");
        assert_eq!(of("system:kube-scheduler"), "controlplane");
        assert_eq!(of("system:admin"), "human");
        assert_eq!(of("alice"), "human");
    }

    #[test]
    fn identities_of_clouds() {
        let of = |text: &str| cloud_identity(&serde_json::from_str(text).expect("a user")).to_owned();
        assert_eq!(
            of(
                r#"{"username":"admin","extra":{"arn":["arn:aws:sts::1:assumed-role/r/s"],"canonicalArn":["arn:aws:iam::1:role/r"]}}"#
            ),
            "arn:aws:iam::1:role/r"
        );
        assert_eq!(of(r#"{"username":"a@b","extra":{"oid":["8f1c"]}}"#), "8f1c");
        assert_eq!(of(r#"{"username":"ci@p.iam.gserviceaccount.com"}"#), "ci@p.iam.gserviceaccount.com");
        assert_eq!(of(r#"{"username":"alice","extra":{"arn":[]}}"#), "");
    }

    #[test]
    fn networks() {
        for (ip, expected) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("::ffff:10.1.2.3", "private"),
            ("100.64.0.1", "private"),
            ("fd00::1", "private"),
            ("203.0.113.9", "public"),
            ("2001:db8::1", "public"),
            ("not an ip", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(network(ip), expected, "{ip}");
        }
    }

    #[test]
    fn ranges() {
        let of = |address: &str, narrow: bool| {
            let mut out = String::new();
            push_range(address, narrow, &mut out).then_some(out)
        };
        assert_eq!(of("10.8.1.7", false).as_deref(), Some("10.8.0.0/16"));
        assert_eq!(of("::ffff:10.8.1.7", true).as_deref(), Some("10.8.1.0/24"));
        assert_eq!(of("2001:db8:7::1", false).as_deref(), Some("2001:db8::/32"));
        assert_eq!(of("2001:db8:7::1", true).as_deref(), Some("2001:db8:7::/48"));
        assert_eq!(of("", false), None);
    }

    #[test]
    fn client_families() {
        assert_eq!(client("kubectl/v1.32.4 (linux/amd64) kubernetes/4cb5f07"), ("kubectl", "v1.32.4"));
        assert_eq!(
            client("kube-controller-manager/v1.32.0 (x) y/leader-election"),
            ("kube-controller-manager", "v1.32.0")
        );
        assert_eq!(client("curl"), ("curl", ""));
        assert_eq!(client(""), ("none", ""));
    }

    #[test]
    fn rights() {
        let reason = r#"RBAC: allowed by RoleBinding "team-web-edit/web" of ClusterRole "edit" to Group "team-web""#;
        assert_eq!(right(reason), (Some("team-web-edit/web"), Some("edit")));
        assert_eq!(right(""), (None, None));
    }
}
