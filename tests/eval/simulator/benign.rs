//! What happens in the cluster when nothing happens: machines, operators, deployments, people, and what changes.

use super::{DAYS, Identity, Person, SYSTEM_NAMESPACES, TEAMS, TEST, UPGRADE, World, always, office};
use crate::stream::{DAY, HOUR, Mark, Request, SECOND};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Developer,
    Operator,
    Analyst,
    Reader,
}

/// Verb, resource and how often.
type Habit = ((&'static str, &'static str), f64);

const DEVELOPER: &[Habit] = &[
    (("list", "pods"), 8.0),
    (("get", "pods"), 4.0),
    (("get", "pods/log"), 5.0),
    (("list", "deployments"), 3.0),
    (("get", "configmaps"), 2.0),
    (("list", "events"), 2.0),
    (("list", "services"), 1.0),
    (("create", "pods/portforward"), 1.0),
    (("create", "pods/exec"), 0.5),
    (("patch", "deployments"), 0.5),
    (("delete", "pods"), 0.4),
    (("create", "selfsubjectaccessreviews"), 0.3),
    (("get", "secrets"), 0.12),
    (("list", "secrets"), 0.08),
];
const OPERATOR: &[Habit] = &[
    (("list", "pods"), 8.0),
    (("get", "pods/log"), 4.0),
    (("list", "deployments"), 4.0),
    (("list", "events"), 4.0),
    (("list", "nodes"), 3.0),
    (("patch", "deployments"), 1.5),
    (("create", "pods/exec"), 1.0),
    (("delete", "pods"), 1.0),
    (("list", "namespaces"), 1.0),
    (("get", "secrets"), 0.5),
    (("patch", "nodes"), 0.4),
    (("create", "pods/eviction"), 0.3),
    (("list", "secrets"), 0.3),
    (("list", "rolebindings"), 0.3),
    (("create", "selfsubjectaccessreviews"), 0.3),
    (("create", "pods/portforward"), 0.3),
    (("get", "clusterroles"), 0.2),
    (("create", "jobs"), 0.2),
    (("create", "rolebindings"), 0.06),
    (("create", "clusterrolebindings"), 0.015),
];
const ANALYST: &[Habit] = &[
    (("list", "pods"), 4.0),
    (("get", "pods/log"), 3.0),
    (("create", "jobs"), 2.0),
    (("list", "jobs"), 2.0),
    (("delete", "jobs"), 0.5),
    (("get", "configmaps"), 0.5),
];
const READER: &[Habit] =
    &[(("list", "pods"), 3.0), (("list", "deployments"), 2.0), (("list", "nodes"), 1.0), (("list", "namespaces"), 1.0)];

impl Role {
    fn habits(self) -> &'static [Habit] {
        match self {
            Self::Developer => DEVELOPER,
            Self::Operator => OPERATOR,
            Self::Analyst => ANALYST,
            Self::Reader => READER,
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Developer => "developers",
            Self::Operator => "operators",
            Self::Analyst => "analysts",
            Self::Reader => "readers",
        }
    }

    fn sessions_a_day(self) -> f64 {
        match self {
            Self::Developer => 25.0,
            Self::Operator => 60.0,
            Self::Analyst => 12.0,
            Self::Reader => 6.0,
        }
    }
}

/// An operator: namespace and name of its account, client, requests a day, habits, and whether it works in the
/// namespaces of applications.
struct Controller {
    account: (&'static str, &'static str),
    agent: &'static str,
    per_day: f64,
    habits: &'static [Habit],
    everywhere: bool,
}

const CONTROLLERS: &[Controller] = &[
    Controller {
        account: ("argocd", "argocd-application-controller"),
        agent: "argocd-application-controller/v2.9",
        per_day: 900.0,
        habits: &[
            (("get", "deployments"), 5.0),
            (("patch", "deployments"), 2.0),
            (("get", "services"), 3.0),
            (("get", "configmaps"), 3.0),
            (("patch", "configmaps"), 1.0),
            (("list", "pods"), 2.0),
            (("get", "serviceaccounts"), 0.5),
            (("patch", "ingresses"), 0.4),
            (("patch", "cronjobs"), 0.2),
            (("create", "services"), 0.2),
            (("create", "rolebindings"), 0.02),
        ],
        everywhere: true,
    },
    Controller {
        account: ("monitoring", "prometheus-k8s"),
        agent: "Prometheus/2.48",
        per_day: 500.0,
        habits: &[
            (("list", "pods"), 4.0),
            (("list", "endpoints"), 4.0),
            (("list", "services"), 3.0),
            (("get", "nodes/metrics"), 3.0),
        ],
        everywhere: false,
    },
    Controller {
        account: ("cert-manager", "cert-manager"),
        agent: "cert-manager-controller/v1.13",
        per_day: 250.0,
        habits: &[
            (("get", "secrets"), 3.0),
            (("update", "certificates/status"), 2.0),
            (("update", "secrets"), 1.0),
            (("create", "certificaterequests"), 0.5),
            (("patch", "ingresses"), 0.2),
        ],
        everywhere: true,
    },
    Controller {
        account: ("external-secrets", "external-secrets"),
        agent: "external-secrets/v0.9",
        per_day: 300.0,
        habits: &[(("get", "secrets"), 4.0), (("patch", "externalsecrets/status"), 3.0), (("update", "secrets"), 2.0)],
        everywhere: true,
    },
    Controller {
        account: ("kube-system", "coredns"),
        agent: "coredns/linux",
        per_day: 120.0,
        habits: &[(("list", "services"), 1.0), (("list", "endpointslices"), 1.0), (("list", "namespaces"), 0.5)],
        everywhere: false,
    },
    Controller {
        account: ("kube-system", "metrics-server"),
        agent: "metrics-server/v0.6",
        per_day: 150.0,
        habits: &[(("get", "nodes/metrics"), 3.0), (("list", "nodes"), 1.0), (("list", "pods"), 1.0)],
        everywhere: false,
    },
    Controller {
        account: ("kube-system", "cluster-autoscaler"),
        agent: "cluster-autoscaler/v1.28",
        per_day: 250.0,
        habits: &[
            (("list", "nodes"), 2.0),
            (("list", "pods"), 2.0),
            (("create", "pods/eviction"), 0.1),
            (("delete", "nodes"), 0.03),
        ],
        everywhere: false,
    },
    Controller {
        account: ("ingress", "ingress-nginx"),
        agent: "nginx-ingress-controller/v1.9",
        per_day: 250.0,
        habits: &[
            (("list", "ingresses"), 2.0),
            (("list", "endpointslices"), 2.0),
            (("get", "secrets"), 1.5),
            (("update", "ingresses/status"), 1.0),
        ],
        everywhere: true,
    },
    Controller {
        account: ("logging", "fluent-bit"),
        agent: "fluent-bit",
        per_day: 200.0,
        habits: &[(("get", "pods"), 4.0), (("list", "namespaces"), 1.0)],
        everywhere: true,
    },
    Controller {
        account: ("vault", "vault-injector"),
        agent: "vault-k8s/v1.3",
        per_day: 120.0,
        habits: &[
            (("create", "tokenreviews"), 3.0),
            (("get", "mutatingwebhookconfigurations"), 1.0),
            (("patch", "mutatingwebhookconfigurations"), 0.2),
        ],
        everywhere: false,
    },
    Controller {
        account: ("kube-system", "node-problem-detector"),
        agent: "node-problem-detector",
        per_day: 150.0,
        habits: &[(("patch", "nodes/status"), 3.0), (("create", "events"), 1.0)],
        everywhere: false,
    },
];

fn cluster_wide(resource: &str) -> bool {
    let kind = resource.split('/').next().unwrap_or_default();
    matches!(
        kind,
        "nodes"
            | "namespaces"
            | "clusterroles"
            | "clusterrolebindings"
            | "tokenreviews"
            | "selfsubjectaccessreviews"
            | "customresourcedefinitions"
    ) || kind.ends_with("webhookconfigurations")
}

fn success(verb: &str) -> u16 {
    if verb == "create" { 201 } else { 200 }
}

impl World {
    pub(super) fn live(&mut self) {
        self.kubelets();
        self.control_plane();
        self.controllers();
        self.backup();
        self.applications();
        self.new_controller();
        self.deployments();
        self.staff();
        self.nights_on_call();
        self.outside_noise();
    }

    /// One request of an identity, benign.
    fn does(&mut self, t: i64, who: &Identity, (verb, resource): (&str, &str), (namespace, name): (&str, &str)) {
        self.answered(t, who, (verb, resource), (namespace, name), success(verb));
    }

    fn answered(
        &mut self,
        t: i64,
        who: &Identity,
        (verb, resource): (&str, &str),
        (namespace, name): (&str, &str),
        code: u16,
    ) {
        let (user, group, agent, address) = (&*who.user, &*who.group, &*who.agent, &*who.address);
        let request = Request { user, group, verb, resource, namespace, name, agent, address, code };
        self.log(t, &request, Mark::Benign);
    }

    /// Name of an object a habit is about.
    fn object(&mut self, verb: &str, resource: &str, namespace: &str) -> String {
        match (verb, resource) {
            ("list" | "create", r) if !r.contains('/') => String::new(),
            (_, "secrets") => self.secret_of(namespace),
            (_, "configmaps") => self.setting_of(namespace),
            _ => format!("app-{}-{}", self.suffix(9), self.suffix(5)),
        }
    }

    fn version(&self, t: i64) -> String {
        self.versions[usize::from(t >= UPGRADE)].clone()
    }

    fn kubelets(&mut self) {
        for i in 0..self.nodes.len() {
            let mut node = self.nodes[i].clone();
            let all = self.all_namespaces();
            let mut homes: Vec<String> = (0..12).map(|_| self.pick(&all)).collect();
            for t in self.times(150.0, 0, DAYS * DAY, always) {
                node.agent = format!("kubelet/{} (linux/amd64) kubernetes", self.version(t));
                if self.chance(0.004) {
                    let at = self.range(0, 12) as usize;
                    homes[at] = self.pick(&all);
                }
                let home = self.pick(&homes);
                let name = node.user.trim_start_matches("system:node:").to_owned();
                let pod = format!("p-{}-{}", self.suffix(9), self.suffix(5));
                let (secret, setting) = (self.secret_of(&home), self.setting_of(&home));
                match self.weighed(&[
                    (0, 45.0),
                    (1, 25.0),
                    (2, 8.0),
                    (3, 7.0),
                    (4, 5.0),
                    (5, 5.0),
                    (6, 0.5),
                    (7, 0.2),
                    (8, 4.3),
                ]) {
                    0 => self.does(t, &node, ("patch", "nodes/status"), ("", &name)),
                    1 => self.does(t, &node, ("patch", "pods/status"), (&home, &pod)),
                    2 => self.does(t, &node, ("get", "pods"), (&home, &pod)),
                    3 => self.does(t, &node, ("create", "serviceaccounts/token"), (&home, "default")),
                    4 => self.does(t, &node, ("get", "secrets"), (&home, &secret)),
                    5 => self.does(t, &node, ("get", "configmaps"), (&home, &setting)),
                    6 => {
                        let gone = format!("gone-{}", self.suffix(3));
                        self.answered(t, &node, ("get", "secrets"), (&home, &gone), 404);
                    }
                    7 => self.answered(t, &node, ("get", "secrets"), (&home, &secret), 403),
                    _ => self.does(t, &node, ("create", "events"), (&home, "")),
                }
            }
            node.agent = format!("kubelet/{} (linux/amd64) kubernetes", self.versions[1]);
            self.nodes[i] = node;
        }
    }

    fn control_plane(&mut self) {
        let parts: [(&str, &str, &[(&str, &str)], f64); 4] = [
            (
                "system:kube-controller-manager",
                "kube-controller-manager",
                &[
                    ("update", "endpoints"),
                    ("update", "deployments/status"),
                    ("create", "pods"),
                    ("delete", "pods"),
                    ("update", "replicasets/status"),
                    ("create", "serviceaccounts/token"),
                    ("list", "secrets"),
                    ("create", "replicasets"),
                ],
                1500.0,
            ),
            (
                "system:kube-scheduler",
                "kube-scheduler",
                &[("create", "pods/binding"), ("patch", "pods/status"), ("list", "nodes"), ("create", "events")],
                800.0,
            ),
            (
                "system:apiserver",
                "kube-apiserver",
                &[
                    ("get", "namespaces"),
                    ("update", "apiservices/status"),
                    ("get", "services"),
                    ("list", "resourcequotas"),
                ],
                300.0,
            ),
            (
                "system:serviceaccount:kube-system:generic-garbage-collector",
                "kube-controller-manager",
                &[("delete", "pods"), ("list", "replicasets"), ("delete", "replicasets"), ("patch", "pods")],
                300.0,
            ),
        ];
        let all = self.all_namespaces();
        for (user, program, habits, per_day) in parts {
            for t in self.times(per_day, 0, DAYS * DAY, always) {
                let (verb, resource) = self.pick(habits);
                let wide = matches!(resource, "nodes" | "apiservices/status");
                let namespace = if wide { String::new() } else { self.pick(&all) };
                let agent = format!("{program}/{} (linux/amd64)", self.version(t));
                let address = format!("10.0.0.{}", self.range(2, 5));
                let (user, group) = (user.to_owned(), "system:authenticated".to_owned());
                let who = Identity { user, group, agent, address, namespaces: Vec::new() };
                let name = format!("x-{}", self.suffix(5));
                self.does(t, &who, (verb, resource), (&namespace, &name));
            }
        }
    }

    fn account(&mut self, namespace: &str, name: &str, agent: &str) -> Identity {
        Identity {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            group: format!("system:serviceaccounts:{namespace}"),
            agent: agent.to_owned(),
            address: self.pod_address(),
            namespaces: Vec::new(),
        }
    }

    fn controllers(&mut self) {
        for c in CONTROLLERS {
            let mut who = self.account(c.account.0, c.account.1, c.agent);
            for t in self.times(c.per_day, 0, DAYS * DAY, always) {
                if self.chance(0.0006) {
                    who.address = self.pod_address();
                }
                let (verb, resource) = self.weighed(c.habits);
                let scoped = c.everywhere && !cluster_wide(resource);
                let namespace = if scoped { self.pick(&self.namespaces.clone()) } else { String::new() };
                let name = match (verb, resource) {
                    ("list" | "create", _) => String::new(),
                    (_, "secrets" | "configmaps") => self.object(verb, resource, &namespace),
                    _ => format!("{}-{}", &resource[..4], self.range(0, 10)),
                };
                let code = if matches!(verb, "update" | "patch") && self.chance(0.01) { 409 } else { 200 };
                self.answered(t, &who, (verb, resource), (&namespace, &name), code);
            }
            self.operators.push(who);
        }
        // Refused all its life: it must not be an alert a day.
        let broken = self.account("tools-a", "broken-operator", "broken/v0.1");
        for t in self.times(300.0, 0, DAYS * DAY, always) {
            let habits = [(("list", "secrets"), 1.0), (("list", "configmaps"), 2.0), (("get", "deployments"), 1.0)];
            let (verb, resource) = self.weighed(&habits);
            let namespace = self.pick(&["tools-a", ""]);
            let code = if resource == "secrets" { 403 } else { 200 };
            self.answered(t, &broken, (verb, resource), (namespace, ""), code);
        }
    }

    /// A backup reads everything, every night.
    fn backup(&mut self) {
        let who = self.account("velero", "velero", "velero-server/v1.12");
        for day in 0..DAYS {
            let mut t = day * DAY + 2 * HOUR + self.range(0, 300) * SECOND;
            for namespace in self.all_namespaces() {
                for resource in ["secrets", "configmaps", "deployments", "pods"] {
                    t += self.range(0, 2 * SECOND);
                    self.does(t, &who, ("list", resource), (&namespace, ""));
                }
            }
        }
    }

    fn applications(&mut self) {
        for namespace in self.namespaces.clone() {
            for i in 0..self.range(1, 4) {
                let name =
                    format!("{}-{}", namespace.split('-').next().unwrap_or_default(), char::from(b'a' + i as u8));
                let app = self.application(&namespace, &name, 0);
                self.apps.push(app);
            }
        }
        let maker = self.account("ci", "deployer-a", "Terraform/1.6");
        for _ in 0..14 {
            let namespace = format!("new-{}", self.suffix(4));
            let t = self.range(DAY, (DAYS - 1) * DAY);
            self.secrets.insert(namespace.clone(), vec![format!("{namespace}-db")]);
            self.settings.insert(namespace.clone(), vec!["cfg-app".into()]);
            self.does(t, &maker, ("create", "namespaces"), ("", &namespace));
            for resource in ["serviceaccounts", "secrets", "configmaps", "deployments", "services", "rolebindings"] {
                let later = t + self.range(0, 60 * SECOND);
                self.does(later, &maker, ("create", resource), (&namespace, "app"));
            }
            self.application(&namespace, "app", t + 15 * 60 * SECOND);
        }
    }

    /// The life of an application's account from a time on.
    fn application(&mut self, namespace: &str, name: &str, from: i64) -> Identity {
        const HABITS: [&[Habit]; 5] = [
            &[(("get", "configmaps"), 4.0), (("list", "pods"), 1.0)],
            &[(("get", "configmaps"), 2.0), (("list", "endpoints"), 2.0), (("list", "services"), 1.0)],
            &[(("get", "configmaps"), 1.0), (("get", "secrets"), 1.0), (("update", "configmaps"), 2.0)],
            &[(("list", "pods"), 3.0), (("get", "pods"), 1.0)],
            &[
                (("create", "jobs"), 1.0),
                (("list", "jobs"), 2.0),
                (("get", "pods/log"), 1.0),
                (("delete", "jobs"), 0.7),
            ],
        ];
        let own_client = format!("{name}/v0.0.0 (linux/amd64) kubernetes/$Format");
        let agent = self
            .pick(&["OpenAPI-Generator/28.1.0/python", own_client.as_str(), "fabric8-kubernetes-client/6.9"])
            .to_owned();
        let mut who = self.account(namespace, name, &agent);
        let habits = self.pick(&HABITS);
        let per_day = self.pick(&[5.0, 20.0, 60.0]);
        let (secret, setting) = (self.secret_of(namespace), self.setting_of(namespace));
        for t in self.times(per_day, from, DAYS * DAY, always) {
            if self.chance(0.01) {
                who.address = self.pod_address();
            }
            let (verb, resource) = self.weighed(habits);
            let object = match (verb, resource) {
                (_, "secrets") => secret.clone(),
                (_, "configmaps") => setting.clone(),
                _ => self.object(verb, resource, namespace),
            };
            let code = if self.chance(0.003) { 404 } else { 200 };
            self.answered(t, &who, (verb, resource), (namespace, &object), code);
        }
        who.namespaces = vec![namespace.to_owned()];
        who
    }

    /// In the judged week somebody installs an operator that is busy from its first minute on.
    fn new_controller(&mut self) {
        let day = TEST * DAY + DAY + 11 * HOUR;
        let admin = Identity {
            user: "alice@corp".into(),
            group: Role::Operator.group().into(),
            agent: "Helm/3.13".into(),
            address: "10.8.0.11".into(),
            namespaces: Vec::new(),
        };
        for resource in [
            "namespaces",
            "clusterroles",
            "clusterrolebindings",
            "serviceaccounts",
            "deployments",
            "customresourcedefinitions",
            "validatingwebhookconfigurations",
            "secrets",
        ] {
            let namespace = if cluster_wide(resource) { "" } else { "keda" };
            let t = day + self.range(0, 30 * SECOND);
            self.does(t, &admin, ("create", resource), (namespace, "keda-operator"));
        }
        let who = self.account("keda", "keda-operator", "keda/v2.12");
        let namespaces = self.namespaces.clone();
        for t in self.times(300.0, day + 10 * 60 * SECOND, DAYS * DAY, always) {
            let (verb, resource) = self.pick(&[
                ("list", "scaledobjects"),
                ("get", "deployments/scale"),
                ("update", "deployments/scale"),
                ("list", "secrets"),
                ("get", "configmaps"),
                ("update", "leases"),
            ]);
            let namespace = self.pick(&namespaces);
            let name = if verb == "list" { String::new() } else { format!("k-{}", self.range(0, 10)) };
            self.does(t, &who, (verb, resource), (&namespace, &name));
        }
    }

    fn deployments(&mut self) {
        for i in 0..6usize {
            let letter = char::from(b'a' + i as u8);
            let agent = if i < 4 { "Helm/3.13" } else { "kubectl/v1.28.2 (linux/amd64)" };
            let mut who = self.account("ci", &format!("deployer-{letter}"), agent);
            let mine: Vec<String> = self.namespaces.iter().skip(i).step_by(6).cloned().collect();
            for t in self.times(60.0, 0, DAYS * DAY, |t| office(t).max(0.05)) {
                who.address = format!("10.244.9.{}", self.range(2, 250));
                let namespace = self.pick(&mine);
                let release = |n: i64| format!("sh.helm.release.v1.app.v{n}");
                let setting = self.setting_of(&namespace);
                let steps = [
                    ("list", "secrets", String::new()),
                    ("get", "secrets", release(t / DAY)),
                    ("patch", "deployments", "app".into()),
                    ("get", "deployments", "app".into()),
                    ("patch", "configmaps", setting),
                    ("get", "services", "app".into()),
                    ("create", "secrets", release(t / DAY + 1)),
                ];
                for (verb, resource, name) in steps {
                    if self.chance(0.8) {
                        let later = t + self.range(0, 20 * SECOND);
                        self.does(later, &who, (verb, resource), (&namespace, &name));
                    }
                }
                if self.chance(0.02) {
                    let rare = self.pick(&["rolebindings", "serviceaccounts", "roles", "cronjobs", "networkpolicies"]);
                    self.does(t, &who, ("create", rare), (&namespace, "app"));
                }
            }
            who.namespaces = mine;
            self.deployers.push(who);
        }
    }

    fn staff(&mut self) {
        let all = self.all_namespaces();
        for name in ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"] {
            self.hire(&format!("{name}@corp"), Role::Operator, &all, (0, DAYS * DAY));
        }
        for i in 0..22 {
            let team = self.pick(&TEAMS);
            let mut own: Vec<String> = self.namespaces.iter().filter(|n| n.starts_with(team)).cloned().collect();
            if self.chance(0.3) {
                own.push(self.pick(&self.namespaces.clone()));
            }
            self.hire(&format!("dev{i:02}@corp"), Role::Developer, &own, (0, DAYS * DAY));
        }
        let some = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<String>>();
        for i in 0..7 {
            self.hire(
                &format!("ds{i:02}@corp"),
                Role::Analyst,
                &some(&["ml-dev", "ml-stg", "data-dev"]),
                (0, DAYS * DAY),
            );
        }
        for i in 0..5 {
            let own: Vec<String> = (0..4).map(|_| self.pick(&self.namespaces.clone())).collect();
            self.hire(&format!("ro{i:02}@corp"), Role::Reader, &own, (0, DAYS * DAY));
        }
        // Whom attackers may choose is who was there all the time.
        let known = self.people.len();
        let (hour, end) = (DAY / 24, DAYS * DAY);
        self.hire("newdev1@corp", Role::Developer, &some(&["pay-dev", "pay-stg"]), (TEST * DAY + 10 * hour, end));
        self.hire("newdev2@corp", Role::Developer, &some(&["web-dev", "web-prod"]), ((TEST - 4) * DAY, end));
        self.hire("newsre@corp", Role::Operator, &all, (TEST * DAY + 55 * hour, end));
        self.hire("leaves@corp", Role::Developer, &some(&["cart-dev", "cart-prod"]), (0, TEST * DAY + 3 * DAY));
        let change = TEST * DAY + 60 * hour;
        self.hire("moves@corp", Role::Developer, &some(&["ads-dev", "ads-prod"]), (0, change));
        self.hire("moves@corp", Role::Developer, &some(&["auth-dev", "auth-prod"]), (change, end));
        self.people.truncate(known);
    }

    /// The working life of a person between two times.
    fn hire(&mut self, name: &str, role: Role, namespaces: &[String], (from, to): (i64, i64)) {
        let mut addresses: Vec<String> =
            (0..2).map(|_| format!("10.8.{}.{}", self.range(0, 2), self.range(2, 250))).collect();
        if self.chance(0.3) {
            let home = self.pick(&[81, 92, 77]);
            addresses.push(format!("{home}.{}.{}.{}", self.range(1, 251), self.range(1, 251), self.range(1, 251)));
        }
        let os = self.pick(&["darwin/arm64", "darwin/amd64", "linux/amd64", "windows/amd64"]);
        let mut version = self.pick(&["v1.27.4", "v1.28.2", "v1.28.4", "v1.29.0"]);
        let other = self.pick(&[None, Some("Lens/6.5"), Some("k9s/v0.29"), None]);
        let mut who = Identity {
            user: name.to_owned(),
            group: role.group().to_owned(),
            agent: String::new(),
            address: addresses[0].clone(),
            namespaces: namespaces.to_vec(),
        };
        let mut favourites = namespaces.to_vec();
        for i in (1..favourites.len()).rev() {
            let j = self.range(0, i as i64 + 1) as usize;
            favourites.swap(i, j);
        }
        let everywhere = self.namespaces.clone();
        for start in self.times(role.sessions_a_day(), from, to, office) {
            if self.chance(0.12) {
                who.address = self.pick(&addresses);
            }
            if self.chance(0.004) {
                let at = self.range(0, addresses.len() as i64) as usize;
                addresses[at] = format!("10.8.{}.{}", self.range(0, 2), self.range(2, 250));
            }
            if self.chance(0.0012) {
                version = self.pick(&["v1.28.5", "v1.29.2", "v1.29.1"]);
            }
            let favourite = (self.pause(1.6) as usize).min(favourites.len() - 1);
            let namespace = favourites[favourite].clone();
            let mut t = start;
            for _ in 0..1 + self.pause(1.5) {
                t += self.pause(25.0 * SECOND as f64);
                let (verb, resource) = self.weighed(role.habits());
                let all = role == Role::Operator && verb == "list" && self.chance(0.25);
                let mut target = if all || cluster_wide(resource) { String::new() } else { namespace.clone() };
                let object = if target.is_empty() { String::new() } else { self.object(verb, resource, &target) };
                let mut code = success(verb);
                if role != Role::Operator && self.chance(0.006) {
                    (target, code) = (self.pick(&everywhere), 403);
                }
                who.agent = format!("kubectl/{version} ({os})");
                if let Some(other) = other
                    && self.chance(0.3)
                {
                    who.agent = other.to_owned();
                }
                self.answered(t, &who, (verb, resource), (&target, &object), code);
            }
        }
        who.agent = format!("kubectl/{version} ({os})");
        self.people.push(Person { identity: who, role });
    }

    /// Three incidents at night: sessions, secrets and deletions in production by somebody who may.
    fn nights_on_call(&mut self) {
        for night in [5 * DAY + HOUR, 16 * DAY + 2 * HOUR, TEST * DAY + 4 * DAY + 2 * HOUR] {
            let operators: Vec<Person> = self.people.iter().filter(|p| p.role == Role::Operator).cloned().collect();
            let mut who = self.pick(&operators).identity;
            who.agent = "kubectl/v1.28.4 (darwin/arm64)".into();
            let production: Vec<String> = self.namespaces.iter().filter(|n| n.ends_with("prod")).cloned().collect();
            let namespace = self.pick(&production);
            for _ in 0..60 {
                let (verb, resource) = self.pick(&[
                    ("list", "pods"),
                    ("get", "pods/log"),
                    ("create", "pods/exec"),
                    ("delete", "pods"),
                    ("patch", "deployments"),
                    ("list", "events"),
                    ("get", "secrets"),
                ]);
                let object = self.object(verb, resource, &namespace);
                who.address = format!("10.8.0.{}", self.range(2, 250));
                let t = night + self.range(0, 5400 * SECOND);
                self.does(t, &who, (verb, resource), (&namespace, &object));
            }
        }
    }

    /// Load balancers and scanners of the internet, without credentials.
    fn outside_noise(&mut self) {
        let mut nobody = Identity {
            user: "system:anonymous".into(),
            group: "system:unauthenticated".into(),
            agent: "ELB-HealthChecker/2.0".into(),
            address: String::new(),
            namespaces: SYSTEM_NAMESPACES.map(str::to_owned).to_vec(),
        };
        for t in self.times(60.0, 0, DAYS * DAY, always) {
            nobody.address = format!("10.0.1.{}", self.range(2, 5));
            let path = self.pick(&["/healthz", "/livez", "/readyz"]);
            self.does(t, &nobody, ("get", path), ("", ""));
        }
        for t in self.times(6.0, 0, DAYS * DAY, always) {
            let address = (self.range(11, 200), self.range(0, 250), self.range(0, 250), self.range(1, 250));
            nobody.address = format!("{}.{}.{}.{}", address.0, address.1, address.2, address.3);
            let agents =
                ["Mozilla/5.0 zgrab/0.x", "python-requests/2.28", "curl/7.81", "Go-http-client/1.1", "masscan/1.3"];
            nobody.agent = self.pick(&agents).to_owned();
            let path = self.pick(&["/", "/version", "/api", "/favicon.ico", "/metrics"]);
            self.answered(t, &nobody, ("get", path), ("", ""), 403);
        }
    }
}
