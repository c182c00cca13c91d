//! What happens in the cluster when nothing happens: machines, operators and deployments, and what changes.

use super::habits::{CONTROLLERS, Habit, Role, cluster_wide, success};
use super::{DAYS, Identity, TEST, UPGRADE, World, always, office};
use crate::stream::{DAY, HOUR, Mark, Request, SECOND};

/// User, program, what it does and how often a day.
type Part = (&'static str, &'static str, &'static [(&'static str, &'static str)], f64);

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
    pub(super) fn does(
        &mut self,
        t: i64,
        who: &Identity,
        (verb, resource): (&str, &str),
        (namespace, name): (&str, &str),
    ) {
        self.answered(t, who, (verb, resource), (namespace, name), success(verb));
    }

    pub(super) fn answered(
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
    pub(super) fn object(&mut self, verb: &str, resource: &str, namespace: &str) -> String {
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
        let parts: [Part; 4] = [
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
}
