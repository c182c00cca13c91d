//! What an imported rule does not see, because its original does not.

use std::collections::BTreeSet;

use super::tree::Tree;

const RBAC: [&str; 4] = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"];
const HOST_PATH: &str = "requestObject.spec.volumes.hostPath.path";

/// The remarks on one rule, in plain words.
pub fn remarks(tree: &Tree) -> Vec<String> {
    let seen = Seen::of(tree);
    let mut out = Vec::new();
    let mut say = |when: bool, text: &str| {
        if when {
            out.push(text.to_owned());
        }
    };
    say(
        seen.exec() && seen.verbs_are(&["create"]),
        "sees exec and attach only with verb create; clients that use WebSockets send get",
    );
    say(
        seen.stages_are("ResponseStarted"),
        "looks only at stage ResponseStarted: denied attempts have no such event, and an audit policy may leave that stage out",
    );
    say(
        seen.stages.is_none(),
        "names no stage: Falco alerts once for each stage of a request, Lapwing once for each request",
    );
    say(
        seen.resources_are(&["pods"]) && seen.reads("requestObject.spec."),
        "sees bare pods only: the pod of a Deployment, Job or DaemonSet is created by a controller, so the alert names the controller and not the author of the workload",
    );
    say(
        seen.reads("requestObject.spec.containers") && !seen.reads("requestObject.spec.initContainers"),
        "reads containers only: init and ephemeral containers are not looked at",
    );
    say(
        seen.exact.contains(HOST_PATH),
        "compares paths of the host letter by letter: a slash at the end or a path below is not seen",
    );
    say(
        !seen.resources.is_empty() && seen.resources.iter().all(|r| RBAC.contains(r)) && seen.verbs_are(&["create"]),
        "sees create only: the same rights given by update or patch are not seen",
    );
    say(
        seen.resources_are(&["clusterrolebindings"]) && seen.reads("requestObject.roleRef"),
        "sees ClusterRoleBindings only: the same role bound by a RoleBinding is not seen",
    );
    say(
        seen.writes() && !seen.reads("responseStatus.") && !seen.reads("annotations.authorization.k8s.io/decision"),
        "does not look at the answer: denied and failed requests alert as if they were done",
    );
    say(seen.writes() && !seen.reads("requestURI"), "does not tell dry runs from real writes");
    say(seen.excused.contains("objectRef.name"), "excuses objects by their name, which the attacker chooses");
    say(seen.excused.contains("userAgent"), "excuses clients by their user agent, which any client may set");
    say(
        seen.excused_prefixes.contains("user.username"),
        "excuses user names by how they begin: every service account, system:anonymous and any certificate with such a name",
    );
    say(
        seen.excused.iter().any(|f| f.ends_with(".image")),
        "excuses images by their repository: a private registry with a port, and tags that move, look the same",
    );
    say(seen.keywords, "searches the text in the whole event, not only in the object Falco looks at");
    out
}

/// What a condition asks about.
#[derive(Debug, Default)]
struct Seen<'t> {
    fields: BTreeSet<&'t str>,
    /// Fields compared with whole values.
    exact: BTreeSet<&'t str>,
    /// Fields under `not`.
    excused: BTreeSet<&'t str>,
    excused_prefixes: BTreeSet<&'t str>,
    verbs: BTreeSet<&'t str>,
    resources: BTreeSet<&'t str>,
    subresources: BTreeSet<&'t str>,
    stages: Option<BTreeSet<&'t str>>,
    keywords: bool,
}

impl<'t> Seen<'t> {
    fn of(tree: &'t Tree) -> Self {
        let needs = |field| tree.needs(field);
        let mut seen = Self {
            verbs: needs("verb").unwrap_or_default(),
            resources: needs("objectRef.resource").unwrap_or_default(),
            subresources: needs("objectRef.subresource").unwrap_or_default(),
            stages: needs("stage"),
            ..Self::default()
        };
        tree.visit(false, &mut |item, negated| {
            let field = item.field();
            seen.keywords |= field.is_empty();
            seen.fields.insert(field);
            if item.exact().is_some() && !negated {
                seen.exact.insert(field);
            }
            if negated && item.key.contains("|startswith") {
                seen.excused_prefixes.insert(field);
            }
            if negated {
                seen.excused.insert(field);
            }
        });
        seen
    }

    fn reads(&self, prefix: &str) -> bool {
        self.fields.iter().any(|f| f.starts_with(prefix))
    }

    fn verbs_are(&self, verbs: &[&str]) -> bool {
        self.verbs.iter().copied().eq(verbs.iter().copied())
    }

    fn resources_are(&self, resources: &[&str]) -> bool {
        self.resources.iter().copied().eq(resources.iter().copied())
    }

    fn stages_are(&self, stage: &str) -> bool {
        self.stages.as_ref().is_some_and(|s| s.iter().eq([&stage]))
    }

    fn exec(&self) -> bool {
        self.subresources.iter().any(|s| matches!(*s, "exec" | "attach"))
    }

    fn writes(&self) -> bool {
        !self.verbs.is_empty()
            && self.verbs.iter().all(|v| matches!(*v, "create" | "update" | "patch" | "delete" | "deletecollection"))
    }
}
