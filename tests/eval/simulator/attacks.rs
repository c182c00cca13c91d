//! Sixteen ways an identity is misused, three times each in the judged week, none of them told to the detector.

use rand::seq::SliceRandom;

use super::habits::Role;
use super::{DAYS, Identity, TEST, World};
use crate::stream::{DAY, HOUR, Mark, Request, SECOND};

/// One request of an attack: verb and resource, namespace and name, answer.
type Step = ((&'static str, &'static str), (String, String), u16);

fn step(deed: (&'static str, &'static str), namespace: &str, name: &str, code: u16) -> Step {
    (deed, (namespace.to_owned(), name.to_owned()), code)
}

/// Whom an attacker takes, each at most once.
struct Victims {
    apps: Vec<Identity>,
    developers: Vec<Identity>,
    operators: Vec<Identity>,
    nodes: Vec<Identity>,
    deployers: Vec<Identity>,
}

fn take(of: &mut Vec<Identity>) -> Identity {
    of.pop().expect("fewer attacks than identities of every kind")
}

impl World {
    pub(super) fn attack(&mut self) {
        let people = |role: Role| self.people.iter().filter(move |p| p.role == role).map(|p| p.identity.clone());
        let mut victims = Victims {
            apps: self.apps.clone(),
            developers: people(Role::Developer).collect(),
            operators: people(Role::Operator).collect(),
            nodes: self.nodes.clone(),
            deployers: self.deployers.clone(),
        };
        victims.apps.shuffle(&mut self.rng);
        victims.developers.shuffle(&mut self.rng);
        victims.operators.shuffle(&mut self.rng);
        victims.nodes.shuffle(&mut self.rng);
        victims.deployers.shuffle(&mut self.rng);
        for _ in 0..3 {
            self.service_accounts(&mut victims);
            self.people_misused(&mut victims);
            self.machines(&mut victims);
        }
    }

    /// A day of the judged week, between these hours.
    fn when(&mut self, from: i64, to: i64) -> i64 {
        self.range(TEST, DAYS - 1) * DAY + self.range(from * HOUR, to * HOUR)
    }

    /// Logs the steps of one run, `gap` seconds apart on average.
    fn run(&mut self, kind: &str, who: &Identity, start: i64, gap: i64, steps: &[Step]) {
        let mark = self.stream.run(kind);
        let mut t = start;
        for ((verb, resource), (namespace, name), code) in steps {
            t += self.pause((gap * SECOND) as f64);
            let (user, group, agent, address) = (&*who.user, &*who.group, &*who.agent, &*who.address);
            let request = Request { user, group, verb, resource, namespace, name, agent, address, code: *code };
            self.log(t, &request, mark);
        }
    }

    fn tool(&mut self) -> String {
        self.pick(&["curl/7.88.1", "kubectl/v1.29.1 (linux/amd64)", "python-requests/2.31"]).to_owned()
    }

    fn some_namespaces(&mut self, many: usize) -> Vec<String> {
        let mut all = self.namespaces.clone();
        all.shuffle(&mut self.rng);
        all.truncate(many);
        all
    }

    /// `get` of the first secrets of some namespaces.
    fn reads_of(&self, namespaces: &[String], each: usize) -> Vec<Step> {
        let secrets = namespaces.iter().flat_map(|n| {
            self.secrets.get(n).into_iter().flatten().take(each).map(move |s| step(("get", "secrets"), n, s, 200))
        });
        secrets.collect()
    }

    fn service_accounts(&mut self, victims: &mut Victims) {
        let review = step(("create", "selfsubjectrulesreviews"), "", "", 201);
        let mut who = take(&mut victims.apps);
        let home = who.namespaces[0].clone();
        (who.agent, who.address) = (self.tool(), self.outside_address());
        let mut steps = vec![
            review.clone(),
            step(("create", "selfsubjectaccessreviews"), "", "", 201),
            step(("list", "secrets"), "", "", 403),
            step(("list", "secrets"), &home, "", self.pick(&[200, 403])),
            step(("list", "pods"), &home, "", 200),
        ];
        steps.extend(self.reads_of(std::slice::from_ref(&home), 9));
        let start = self.when(0, 22);
        self.run("token used from outside", &who, start, 8, &steps);

        let mut who = take(&mut victims.apps);
        let home = who.namespaces[0].clone();
        who.agent = "kubectl/v1.29.1 (linux/amd64)".into();
        let secret = self.secret_of(&home);
        let steps = [
            review,
            step(("list", "pods"), "", "", 403),
            step(("list", "secrets"), &home, "", 403),
            step(("list", "configmaps"), &home, "", 200),
            step(("get", "secrets"), &home, &secret, 200),
            step(("create", "pods"), &home, "dbg", 403),
        ];
        let start = self.when(0, 22);
        self.run("kubectl in a pod", &who, start, 15, &steps);

        let who = take(&mut victims.apps);
        let home = who.namespaces[0].clone();
        let own = self.secrets[&home].clone();
        let steps = [
            step(("list", "pods"), &home, "", 200),
            step(("get", "secrets"), &home, &own[own.len() - 1], 200),
            step(("get", "secrets"), &home, &own[0], 200),
            step(("list", "serviceaccounts"), &home, "", 200),
        ];
        let start = self.when(0, 22);
        self.run("quiet reads with the own client", &who, start, 1500, &steps);

        let who = take(&mut victims.apps);
        let resources = [
            ("list", "secrets"),
            ("list", "configmaps"),
            ("list", "pods"),
            ("list", "deployments"),
            ("list", "roles"),
            ("list", "rolebindings"),
            ("list", "serviceaccounts"),
            ("list", "jobs"),
            ("list", "cronjobs"),
            ("list", "ingresses"),
            ("list", "services"),
        ];
        let steps: Vec<Step> = resources.into_iter().map(|r| step(r, &self.some_namespaces(1)[0], "", 403)).collect();
        let start = TEST * DAY + self.range(5 * HOUR, 3 * DAY);
        self.run("slow probing, all refused", &who, start, 5400, &steps);
    }

    fn people_misused(&mut self, victims: &mut Victims) {
        let mut who = take(&mut victims.developers);
        let production: Vec<String> = self.namespaces.iter().filter(|n| n.ends_with("prod")).cloned().collect();
        let target = self.pick(&production);
        let own = who.namespaces[0].clone();
        let secrets = self.secrets[&target].clone();
        who.address = self.outside_address();
        let steps = [
            step(("list", "pods"), &target, "", 200),
            step(("create", "pods/exec"), &target, "app-xx", 101),
            step(("get", "secrets"), &target, &secrets[0], 200),
            step(("get", "secrets"), &target, &secrets[1], 200),
            step(("list", "secrets"), &own, "", 200),
        ];
        let start = self.when(0, 22);
        self.run("stolen kubeconfig", &who, start, 30, &steps);

        let who = take(&mut victims.operators);
        let mut steps = vec![step(("list", "secrets"), "", "", 200)];
        let targets = self.some_namespaces(12);
        steps.extend(self.reads_of(&targets, 2));
        let start = self.when(1, 4);
        self.run("insider reads all secrets at night", &who, start, 3, &steps);

        let who = take(&mut victims.developers);
        let steps = [
            step(("create", "pods"), "kube-system", "netdiag", 201),
            step(("create", "pods/exec"), "kube-system", "netdiag", 101),
            step(("delete", "pods"), "kube-system", "netdiag", 200),
        ];
        let start = self.when(9, 18);
        self.run("pod in kube-system", &who, start, 40, &steps);

        let who = take(&mut victims.developers);
        let steps = [
            step(("create", "certificatesigningrequests"), "", "user-x", 201),
            step(("update", "certificatesigningrequests/approval"), "", "user-x", 200),
            step(("get", "certificatesigningrequests"), "", "user-x", 200),
        ];
        let start = self.when(9, 19);
        self.run("certificate for later", &who, start, 30, &steps);

        let who = take(&mut victims.developers);
        let own = who.namespaces[who.namespaces.len() - 1].clone();
        let kinds = ["deployments", "services", "configmaps", "secrets", "persistentvolumeclaims"];
        let deletions =
            kinds.into_iter().flat_map(|k| (0..5).map(move |i| (k, format!("app-{}", char::from(b'a' + i)))));
        let steps: Vec<Step> = deletions.map(|(k, name)| step(("delete", k), &own, &name, 200)).collect();
        let start = self.when(9, 20);
        self.run("mass deletion", &who, start, 2, &steps);

        self.slow_training(take(&mut victims.developers));

        let who = take(&mut victims.developers);
        let steps = [
            step(("impersonate", "users"), "", "admin", 200),
            step(("create", "serviceaccounts/token"), "kube-system", "generic-garbage-collector", 201),
            step(("list", "secrets"), "kube-system", "", 200),
        ];
        let start = self.when(9, 19);
        self.run("impersonation and a token", &who, start, 30, &steps);
    }

    /// From the eighth day on one new secret a day, in a new namespace every other day; then many at once.
    fn slow_training(&mut self, who: Identity) {
        let targets = self.some_namespaces(10);
        for i in 0..13usize {
            let namespace = targets[(i / 2).min(9)].clone();
            let name = self.secret_of(&namespace);
            let t = (8 + i as i64) * DAY + self.range(10 * HOUR, 17 * HOUR);
            let (user, group, agent, address) = (&*who.user, &*who.group, &*who.agent, &*who.address);
            let (verb, resource, namespace, name, code) = ("get", "secrets", &*namespace, &*name, 200);
            let request = Request { user, group, verb, resource, namespace, name, agent, address, code };
            self.log(t, &request, Mark::Setup);
        }
        let steps = self.reads_of(&targets, 3);
        let start = self.when(10, 17);
        self.run(POISONED, &who, start, 6, &steps);
    }

    fn machines(&mut self, victims: &mut Victims) {
        let who = take(&mut victims.deployers);
        let steps = [
            step(("create", "clusterrolebindings"), "", "ops-view", 201),
            step(("create", "serviceaccounts"), "kube-system", "ops", 201),
            step(("create", "serviceaccounts/token"), "kube-system", "ops", 201),
        ];
        let start = self.when(0, 22);
        self.run("pipeline grants itself rights", &who, start, 20, &steps);

        let address = self.outside_address();
        let agent = self.pick(&["curl/7.81", "python-requests/2.28", "Go-http-client/1.1"]).to_owned();
        let nobody = Identity {
            user: "system:anonymous".into(),
            group: "system:unauthenticated".into(),
            agent,
            address,
            namespaces: Vec::new(),
        };
        let mut kinds = [
            "pods",
            "secrets",
            "nodes",
            "namespaces",
            "services",
            "configmaps",
            "deployments",
            "roles",
            "clusterroles",
        ];
        kinds.shuffle(&mut self.rng);
        let steps: Vec<Step> =
            kinds[..8].iter().map(|k| step(("list", k), self.pick(&["", "default", "kube-system"]), "", 403)).collect();
        let start = self.when(0, 22);
        self.run("anonymous probing", &nobody, start, 2, &steps);

        let mut who = take(&mut victims.nodes);
        let targets = self.some_namespaces(5);
        who.agent = self.pick(&["kubectl/v1.29.1 (linux/amd64)", "curl/7.88"]).to_owned();
        if self.chance(0.5) {
            who.address = self.pod_address();
        }
        let mut steps = vec![step(("list", "pods"), "", "", 200), step(("list", "nodes"), "", "", 200)];
        for (deed, (namespace, name), _) in self.reads_of(&targets, 1) {
            steps.push((deed, (namespace, name), self.pick(&[200, 403])));
        }
        steps.push(step(("create", "serviceaccounts/token"), &targets[0], "default", 201));
        let start = self.when(0, 22);
        self.run("kubelet credential stolen", &who, start, 10, &steps);

        let operators: Vec<Identity> = self.operators.clone();
        let of = |name: &str| operators.iter().find(|o| o.user.ends_with(name)).cloned().expect("an operator");
        let name = self.pick(&["argocd-application-controller", "cert-manager", "external-secrets"]);
        let steps = [
            step(("create", "cronjobs"), "kube-system", "sync", 201),
            step(("create", "rolebindings"), "kube-system", "sync", 201),
            step(("get", "secrets"), "kube-system", "kube-token", 200),
        ];
        let start = self.when(0, 22);
        self.run("operator misused", &of(name), start, 60, &steps);

        let node = self.pick(&self.nodes.clone()).user.trim_start_matches("system:node:").to_owned();
        let steps = [step(("get", "nodes/proxy"), "", &node, 200), step(("create", "nodes/proxy"), "", &node, 201)];
        let start = self.when(0, 22);
        self.run("commands through the kubelet", &of("prometheus-k8s"), start, 20, &steps);
    }
}

/// The kind of run that [`World::slow_training`] prepares.
pub const POISONED: &str = "mass read after slow training";
