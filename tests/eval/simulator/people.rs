//! People at work, at night and new; and the internet at the door.

use super::habits::{Role, cluster_wide, success};
use super::{DAYS, Identity, Person, SYSTEM_NAMESPACES, TEAMS, TEST, World, always, office};
use crate::stream::{DAY, HOUR, SECOND};

impl World {
    pub(super) fn staff(&mut self) {
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
    pub(super) fn nights_on_call(&mut self) {
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
    pub(super) fn outside_noise(&mut self) {
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
