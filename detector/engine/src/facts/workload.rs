//! One view of the pod spec that a request writes: pods, every kind with a pod template, every
//! container kind, every verb and patch form.

use crate::tree::Tree;

/// What a workload write asks for. Everything is about what *this request* writes: a patch that
/// touches no security setting shows none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    pub kind: String,
    pub privileged: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub host_network: bool,
    pub host_paths: Vec<String>,
    pub sensitive_host_paths: Vec<String>,
    pub capabilities: Vec<String>,
    pub images: Vec<String>,
    pub image_tags: Vec<String>,
    pub registries: Vec<String>,
    pub commands: Vec<String>,
    pub env: Vec<String>,
    pub service_account: Option<String>,
    pub run_as_root: bool,
    pub allow_privilege_escalation: bool,
    pub share_process_namespace: bool,
    pub node_name: Option<String>,
    pub tolerates_control_plane: bool,
    pub host_ports: Vec<i64>,
    pub interactive: bool,
    pub automount_token: Option<bool>,
    pub seccomp_unconfined: bool,
    pub apparmor_unconfined: bool,
    pub proc_mount_unmasked: bool,
    pub unsafe_sysctls: Vec<String>,
    pub mirror: bool,
    pub owned: bool,
    /// Resources for which a container of the pod has no limit: `cpu`, `memory`.
    pub missing_limits: Vec<&'static str>,
    pub has_containers: bool,
}

/// Host directories and files that give a container the node, its credentials or its runtime.
const SENSITIVE: &[&str] = &[
    "/etc",
    "/root",
    "/home",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/lib/modules",
    "/usr/lib/modules",
    "/var/run",
    "/run",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/rancher",
    "/var/log",
    "/etc/kubernetes",
    "/opt/cni",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/bin",
    "/sbin",
    "/var/spool/cron",
];

/// The workload written by a request on `resource`, or `None` where the object is none.
pub fn read(resource: &str, object: &Tree<'_>) -> Option<Workload> {
    let spec = pod_spec(resource, object)?;
    let metadata = pod_metadata(resource, object);
    let mut w = Workload { kind: resource.trim_end_matches('s').to_owned(), ..Workload::default() };
    w.read_pod(spec);
    w.read_metadata(object, metadata);
    for (container, _) in containers_of(spec) {
        w.read_container(container);
    }
    for list in [
        &mut w.host_paths,
        &mut w.sensitive_host_paths,
        &mut w.capabilities,
        &mut w.images,
        &mut w.image_tags,
        &mut w.registries,
    ] {
        list.sort_unstable();
        list.dedup();
    }
    Some(w)
}

/// One object per container; the elements of `workload.containers|any`.
pub fn containers(resource: &str, object: &Tree<'_>) -> Vec<Tree<'static>> {
    pod_spec(resource, object)
        .map(|spec| containers_of(spec).map(|(c, kind)| element(c, kind)).collect())
        .unwrap_or_default()
}

fn containers_of<'t, 'e>(spec: &'t Tree<'e>) -> impl Iterator<Item = (&'t Tree<'e>, &'static str)> {
    [("initContainers", "init"), ("containers", "container"), ("ephemeralContainers", "ephemeral")]
        .into_iter()
        .flat_map(|(list, kind)| spec.each(list).map(move |c| (c, kind)))
        .filter(|(c, _)| c.is_object())
}

fn element(container: &Tree<'_>, kind: &'static str) -> Tree<'static> {
    let context = container.get("securityContext").unwrap_or(&Tree::Null);
    let copy = |name| Tree::Text(text(container, &[name]).unwrap_or_default().to_owned().into());
    let texts = |list: &mut dyn Iterator<Item = String>| Tree::List(list.map(|t| Tree::Text(t.into())).collect());
    let ports = container.each("ports").filter_map(|p| p.get("containerPort").and_then(Tree::as_i64)).map(Tree::Int);
    let fields = [
        ("name", copy("name")),
        ("type", Tree::Text(kind.into())),
        ("image", copy("image")),
        ("privileged", Tree::Bool(is_privileged(context))),
        ("capabilities", texts(&mut capabilities(context))),
        ("command", Tree::Text(command(container).into())),
        ("env", texts(&mut env(container))),
        ("run_as_root", Tree::Bool(is_root(context))),
        ("ports", Tree::List(ports.collect())),
    ];
    Tree::Object(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn is_root(context: &Tree<'_>) -> bool {
    context.get("runAsUser").and_then(Tree::as_i64) == Some(0)
        || context.get("runAsNonRoot").and_then(Tree::as_bool) == Some(false)
}

fn is_privileged(context: &Tree<'_>) -> bool {
    let windows_host = context.at(&["windowsOptions", "hostProcess"]).and_then(Tree::as_bool) == Some(true);
    flag(context, "privileged") || windows_host
}

fn capabilities(context: &Tree<'_>) -> impl Iterator<Item = String> {
    let added = context.get("capabilities").unwrap_or(&Tree::Null).each("add");
    added.filter_map(Tree::as_str).map(|c| c.to_uppercase().trim_start_matches("CAP_").to_owned())
}

/// Command and arguments as one line.
fn command(container: &Tree<'_>) -> String {
    let words: Vec<&str> = container.each("command").chain(container.each("args")).filter_map(Tree::as_str).collect();
    words.join(" ")
}

/// `NAME=value`
fn env(container: &Tree<'_>) -> impl Iterator<Item = String> {
    container
        .each("env")
        .filter_map(|e| Some(format!("{}={}", text(e, &["name"])?, text(e, &["value"]).unwrap_or_default())))
}

/// The built-in kinds that are a pod or hold a pod template.
pub fn is_kind(resource: &str) -> bool {
    matches!(
        resource,
        "pods"
            | "deployments"
            | "daemonsets"
            | "statefulsets"
            | "replicasets"
            | "replicationcontrollers"
            | "jobs"
            | "cronjobs"
            | "podtemplates"
    )
}

fn pod_spec<'t, 'e>(resource: &str, object: &'t Tree<'e>) -> Option<&'t Tree<'e>> {
    let path: &[&str] = match resource {
        "pods" => &["spec"],
        "cronjobs" => &["spec", "jobTemplate", "spec", "template", "spec"],
        "podtemplates" => &["template", "spec"],
        _ => &["spec", "template", "spec"],
    };
    let spec = object.at(path).filter(|s| s.is_object())?;
    // Other kinds count when they carry containers (Argo Rollouts, Knative services, …).
    (is_kind(resource) || spec.get("containers").is_some_and(|c| c.as_list().is_some())).then_some(spec)
}

fn pod_metadata<'t, 'e>(resource: &str, object: &'t Tree<'e>) -> Option<&'t Tree<'e>> {
    object.at(match resource {
        "pods" => &["metadata"],
        "cronjobs" => &["spec", "jobTemplate", "spec", "template", "metadata"],
        "podtemplates" => &["template", "metadata"],
        _ => &["spec", "template", "metadata"],
    })
}

fn flag(v: &Tree<'_>, key: &str) -> bool {
    v.get(key).and_then(Tree::as_bool) == Some(true)
}

fn text<'t>(tree: &'t Tree<'_>, names: &[&str]) -> Option<&'t str> {
    tree.at(names).and_then(Tree::as_str)
}

impl Workload {
    fn read_pod(&mut self, spec: &Tree<'_>) {
        self.host_pid = flag(spec, "hostPID");
        self.host_ipc = flag(spec, "hostIPC");
        self.host_network = flag(spec, "hostNetwork");
        self.share_process_namespace = flag(spec, "shareProcessNamespace");
        self.node_name = text(spec, &["nodeName"]).filter(|n| !n.is_empty()).map(str::to_owned);
        self.automount_token = spec.get("automountServiceAccountToken").and_then(Tree::as_bool);
        self.service_account =
            text(spec, &["serviceAccountName"]).or_else(|| text(spec, &["serviceAccount"])).map(str::to_owned);
        for volume in spec.each("volumes") {
            if let Some(path) = text(volume, &["hostPath", "path"]) {
                self.host_paths.push(path.to_owned());
                if is_sensitive(path) {
                    self.sensitive_host_paths.push(path.to_owned());
                }
            }
        }
        for toleration in spec.each("tolerations") {
            let key = text(toleration, &["key"]).unwrap_or_default();
            self.tolerates_control_plane |= key.starts_with("node-role.kubernetes.io/")
                || (key.is_empty() && text(toleration, &["operator"]) == Some("Exists"));
        }
        if let Some(context) = spec.get("securityContext") {
            self.read_confinement(context);
            for sysctl in context.each("sysctls") {
                self.unsafe_sysctls
                    .extend(text(sysctl, &["name"]).filter(|n| !SAFE_SYSCTLS.contains(n)).map(str::to_owned));
            }
        }
    }

    fn read_metadata(&mut self, object: &Tree<'_>, pod: Option<&Tree<'_>>) {
        self.owned = object.get("metadata").unwrap_or(&Tree::Null).each("ownerReferences").next().is_some();
        let annotations = pod.and_then(|m| m.get("annotations")).and_then(Tree::as_object);
        for (key, value) in annotations.into_iter().flatten() {
            self.mirror |= key == "kubernetes.io/config.mirror";
            self.apparmor_unconfined |= key.starts_with("container.apparmor.security.beta.kubernetes.io/")
                && value.as_str() == Some("unconfined");
        }
    }

    /// What pods and containers both say in their security context.
    fn read_confinement(&mut self, context: &Tree<'_>) {
        self.run_as_root |= is_root(context);
        self.seccomp_unconfined |= text(context, &["seccompProfile", "type"]) == Some("Unconfined");
        self.apparmor_unconfined |= text(context, &["appArmorProfile", "type"]) == Some("Unconfined");
    }

    fn read_container(&mut self, container: &Tree<'_>) {
        self.has_containers = true;
        if let Some(context) = container.get("securityContext") {
            self.read_confinement(context);
            self.privileged |= is_privileged(context);
            self.allow_privilege_escalation |= flag(context, "allowPrivilegeEscalation");
            self.proc_mount_unmasked |= text(context, &["procMount"]) == Some("Unmasked");
            self.capabilities.extend(capabilities(context));
        }
        let image = text(container, &["image"]).unwrap_or_default();
        if !image.is_empty() {
            self.images.push(image.to_owned());
            self.registries.push(registry(image).to_owned());
            self.image_tags.extend(tag(image).map(str::to_owned));
        }
        for resource in ["cpu", "memory"] {
            if container.at(&["resources", "limits", resource]).is_none() && !self.missing_limits.contains(&resource) {
                self.missing_limits.push(resource);
            }
        }
        self.commands.extend(Some(command(container)).filter(|c| !c.is_empty()));
        self.env.extend(env(container));
        self.host_ports.extend(container.each("ports").filter_map(|p| p.get("hostPort").and_then(Tree::as_i64)));
        self.interactive |= flag(container, "stdin") && flag(container, "tty");
    }
}

const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
];

/// The path without `.`, `..`, doubled or trailing slashes, as the kernel would walk it.
fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            p => parts.push(p),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether a directory or file of the node gives away the node, its credentials or its runtime.
pub(crate) fn is_sensitive(path: &str) -> bool {
    let path = normalise(path);
    path == "/"
        || path == "/var"
        || path == "/var/lib"
        || path == "/usr"
        || SENSITIVE.iter().any(|s| path == *s || path.strip_prefix(s).is_some_and(|rest| rest.starts_with('/')))
}

/// The registry host of an image reference; `docker.io` when it names none.
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The tag of an image reference, `latest` when it names none; a digest fixes the image whatever the tag.
fn tag(image: &str) -> Option<&str> {
    let name = image.rsplit('/').next().unwrap_or_default();
    match name.split_once(':') {
        _ if image.contains('@') => None,
        Some((_, tag)) => Some(tag),
        None => Some("latest"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Workload {
        read("pods", &json!({"spec": spec}).into()).expect("a workload")
    }

    #[test]
    fn every_template_kind_is_one_view() {
        let spec = json!({"hostPID": true, "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]});
        for (resource, object) in [
            ("pods", json!({"spec": spec})),
            ("deployments", json!({"spec": {"template": {"spec": spec}}})),
            ("cronjobs", json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}})),
            ("podtemplates", json!({"template": {"spec": spec}})),
            ("rollouts", json!({"spec": {"template": {"spec": spec}}})),
        ] {
            let w = read(resource, &object.into()).expect(resource);
            assert!(w.privileged && w.host_pid, "{resource}");
        }
        assert_eq!(read("services", &json!({"spec": {"type": "NodePort"}}).into()), None);
        assert_eq!(read("rollouts", &json!({"spec": {"template": {"spec": {"x": 1}}}}).into()), None);
    }

    #[test]
    fn every_container_kind_counts() {
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            let mut spec = json!({"containers": [{"name": "a", "image": "x"}]});
            spec[list] = json!([{"name": "b", "image": "ghcr.io/y", "securityContext": {"privileged": true, "capabilities": {"add": ["CAP_SYS_ADMIN", "all"]}}}]);
            let w = pod(spec);
            assert!(w.privileged, "{list}");
            assert_eq!(w.capabilities, ["ALL", "SYS_ADMIN"]);
            assert!(w.registries.contains(&"ghcr.io".to_owned()));
        }
    }

    #[test]
    fn a_harmless_pod_shows_nothing() {
        let w = pod(json!({"containers": [{"name": "a", "image": "x", "securityContext": {"privileged": false}}],
            "volumes": [{"emptyDir": {}}], "securityContext": {"runAsNonRoot": true}}));
        assert!(!w.privileged && !w.host_pid && !w.run_as_root && !w.tolerates_control_plane);
        assert!(w.host_paths.is_empty() && w.capabilities.is_empty());
    }

    #[test]
    fn sensitive_paths_survive_disguise() {
        for path in [
            "/",
            "/etc/",
            "/etc/kubernetes/pki",
            "//var//run/docker.sock",
            "/opt/../etc",
            "/var/lib/kubelet/pods",
            "/proc/1",
            "/run/containerd/containerd.sock",
        ] {
            assert!(is_sensitive(path), "{path}");
        }
        for path in ["/data", "/mnt/disk1", "/etcetera", "/var/www", "/opt/app"] {
            assert!(!is_sensitive(path), "{path}");
        }
    }

    #[test]
    fn tags() {
        for (image, expected) in [
            ("nginx", Some("latest")),
            ("localhost:5000/x", Some("latest")),
            ("localhost:5000/x:v1", Some("v1")),
            ("nginx:latest@sha256:1", None),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }

    #[test]
    fn limits_are_missing_per_resource() {
        let limited = json!({"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}});
        let half = json!({"name": "b", "resources": {"limits": {"cpu": "1"}}});
        assert!(pod(json!({"containers": [limited]})).missing_limits.is_empty());
        assert_eq!(pod(json!({"containers": [limited, half]})).missing_limits, ["memory"]);
        assert_eq!(pod(json!({"containers": [{"name": "c"}]})).missing_limits, ["cpu", "memory"]);
    }

    #[test]
    fn registries() {
        for (image, expected) in [
            ("nginx", "docker.io"),
            ("team/app:1", "docker.io"),
            ("quay.io/a/b@sha256:1", "quay.io"),
            ("localhost:5000/x", "localhost:5000"),
        ] {
            assert_eq!(registry(image), expected);
        }
    }
}
