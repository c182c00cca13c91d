//! A cluster of some two hundred identities over four weeks: machines, operators, deployments and people with their
//! hours, changes nobody announces to the detector, and in the last week attacks of sixteen kinds.
//!
//! Two weeks to learn, one clean week to choose thresholds in, one to judge. It writes Metadata level only: no bodies.

mod attacks;
pub use attacks::POISONED;
mod benign;
mod habits;
mod people;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::stream::{DAY, Event, HOUR, Mark, Request, SECOND, START, Stream};

/// Days without attacks, of which the last seven are for calibration.
const TEST: i64 = 21;
const DAYS: i64 = 28;
/// The cluster, and with it every client of the control plane, is upgraded in the judged week.
const UPGRADE: i64 = TEST * DAY + 2 * DAY + 9 * HOUR;

const SYSTEM_NAMESPACES: [&str; 10] = [
    "kube-system",
    "monitoring",
    "argocd",
    "cert-manager",
    "ingress",
    "velero",
    "external-secrets",
    "logging",
    "vault",
    "ci",
];
const TEAMS: [&str; 10] = ["pay", "cart", "search", "ml", "web", "auth", "data", "ship", "ads", "core"];

/// What an identity is, and where its requests usually come from.
#[derive(Clone, Debug)]
struct Identity {
    user: String,
    group: String,
    agent: String,
    address: String,
    namespaces: Vec<String>,
}

/// A person and what the job is.
#[derive(Clone, Debug)]
struct Person {
    identity: Identity,
    role: habits::Role,
}

/// The cluster being simulated. Times are microseconds from [`START`].
struct World {
    rng: ChaCha8Rng,
    stream: Stream,
    nodes: Vec<Identity>,
    /// Namespaces of applications.
    namespaces: Vec<String>,
    /// Names of the secrets of a namespace, by its place in [`World::all_namespaces`].
    secrets: std::collections::BTreeMap<String, Vec<String>>,
    settings: std::collections::BTreeMap<String, Vec<String>>,
    apps: Vec<Identity>,
    operators: Vec<Identity>,
    deployers: Vec<Identity>,
    people: Vec<Person>,
    versions: [String; 2],
}

/// The stream of one seed.
pub fn simulate(seed: u64) -> Stream {
    let mut world = World::new(seed);
    world.live();
    world.attack();
    let mut stream = world.stream;
    stream.calibration = (14 * DAY, TEST * DAY);
    stream.test = (TEST * DAY, DAYS * DAY);
    stream.sort();
    stream
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut namespaces: Vec<String> =
            TEAMS.iter().flat_map(|t| ["dev", "stg", "prod"].map(|e| format!("{t}-{e}"))).collect();
        namespaces.extend((0..6).map(|i| format!("tools-{}", char::from(b'a' + i))));
        let nodes = (0..30).map(|i| Identity {
            user: format!("system:node:node-{i:02}"),
            group: "system:nodes".into(),
            agent: String::new(),
            address: format!("10.0.{}.{}", rng.random_range(0..4), rng.random_range(4..250)),
            namespaces: Vec::new(),
        });
        let nodes = nodes.collect();
        let minor = rng.random_range(27..33);
        let mut world = Self {
            rng,
            stream: Stream::default(),
            nodes,
            namespaces,
            secrets: Default::default(),
            settings: Default::default(),
            apps: Vec::new(),
            operators: Vec::new(),
            deployers: Vec::new(),
            people: Vec::new(),
            versions: [format!("v1.{minor}.7"), format!("v1.{}.3", minor + 1)],
        };
        for namespace in world.all_namespaces() {
            let team = namespace.split('-').next().unwrap_or_default().to_owned();
            let some = world.range(2, 6) as usize;
            let secrets =
                ["db", "tls", "api-key", "registry", "oauth"].iter().take(some).map(|s| format!("{team}-{s}"));
            world.secrets.insert(namespace.clone(), secrets.collect());
            let some = world.range(1, 4) as usize;
            let settings = ["app", "feature", "env"].iter().take(some).map(|s| format!("cfg-{s}"));
            world.settings.insert(namespace, settings.collect());
        }
        world
    }

    fn all_namespaces(&self) -> Vec<String> {
        self.namespaces.iter().cloned().chain(SYSTEM_NAMESPACES.map(str::to_owned)).collect()
    }

    fn range(&mut self, from: i64, to: i64) -> i64 {
        self.rng.random_range(from..to)
    }

    fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p.clamp(0.0, 1.0))
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())].clone()
    }

    /// One of these, by weight.
    fn weighed<T: Copy>(&mut self, of: &[(T, f64)]) -> T {
        let mut x = self.rng.random::<f64>() * of.iter().map(|(_, w)| w).sum::<f64>();
        for (value, weight) in of {
            x -= weight;
            if x <= 0.0 {
                return *value;
            }
        }
        of[of.len() - 1].0
    }

    /// An exponential pause with this mean, microseconds.
    fn pause(&mut self, mean: f64) -> i64 {
        (-mean * (1.0 - self.rng.random::<f64>()).ln()) as i64
    }

    /// Letters and digits as Kubernetes draws them.
    fn suffix(&mut self, len: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..len).map(|_| char::from(ALPHABET[self.rng.random_range(0..ALPHABET.len())])).collect()
    }

    fn pod_address(&mut self) -> String {
        format!("10.244.{}.{}", self.range(0, 30), self.range(2, 250))
    }

    fn outside_address(&mut self) -> String {
        let first = self.pick(&[45, 185, 193, 91, 104]);
        format!("{first}.{}.{}.{}", self.range(1, 251), self.range(1, 251), self.range(1, 251))
    }

    fn secret_of(&mut self, namespace: &str) -> String {
        let names = self.secrets.get(namespace).cloned().unwrap_or_else(|| vec!["settings".into()]);
        self.pick(&names)
    }

    fn setting_of(&mut self, namespace: &str) -> String {
        let names = self.settings.get(namespace).cloned().unwrap_or_else(|| vec!["settings".into()]);
        self.pick(&names)
    }

    /// Times of a Poisson process of `per_day`, kept with the probability `season` gives.
    fn times(&mut self, per_day: f64, from: i64, to: i64, season: fn(i64) -> f64) -> Vec<i64> {
        let (mut t, mut times) = (from, Vec::new());
        loop {
            t += self.pause(DAY as f64 / per_day);
            if t >= to {
                return times;
            }
            if self.chance(season(t)) {
                times.push(t);
            }
        }
    }

    /// Logs a request.
    fn log(&mut self, time: i64, request: &Request<'_>, mark: Mark) {
        let time = START + time.min(DAYS * DAY - SECOND);
        let text = request.text(time, self.stream.events.len());
        self.stream.events.push(Event { time, text, mark });
    }
}

fn always(_: i64) -> f64 {
    1.0
}

/// When people work.
fn office(t: i64) -> f64 {
    let (weekday, hour) = (t / DAY % 7, (t % DAY) as f64 / HOUR as f64);
    match hour {
        _ if weekday >= 5 => {
            if (9.0..20.0).contains(&hour) {
                0.04
            } else {
                0.01
            }
        }
        h if (9.0..12.0).contains(&h) || (13.0..18.0).contains(&h) => 1.0,
        h if (8.0..20.0).contains(&h) => 0.35,
        _ => 0.015,
    }
}
