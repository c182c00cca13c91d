//! Which alert is told where, when, and with which others: routes, silences, inhibition, time intervals, grouping.
//!
//! The words are Alertmanager's. Nothing here delivers: a worker asks ([`Flow::hop`], [`Gather`]) and tells its output.
//! Without `route` every output gets every alert of its level, each at once.

pub mod gather;
pub mod incident;
pub mod inhibit;
pub mod matcher;
pub mod silence;
pub mod window;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use lapwing_engine::alert::Alert;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::gather::Gather;
use self::inhibit::{InhibitRule, Rule};
use self::matcher::{Field, Matcher};
use self::window::{TimeInterval, Window};
use crate::config::HumanDuration;

/// A node of the routing tree. An alert goes down into the first of `routes` whose matchers fit, and on to the next
/// fitting one after a node that says `continue`; where none fits it is told at this node. What a node does not set it
/// has from its parent, but for `matchers`, `continue` and the time intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Route {
    /// All must match: `level="high"`, `actor!~"system:.*"`. The outermost node has none.
    pub matchers: Vec<String>,
    /// Names of outputs that are told.
    pub outputs: Vec<String>,
    /// Look at the following nodes too.
    pub r#continue: bool,
    /// Alerts with the same values of these fields are told together; `[]`: all of the node. Default: each by itself.
    pub group_by: Option<Vec<String>>,
    /// How long the first alert of a group waits for others. Default: 0s.
    pub group_wait: Option<HumanDuration>,
    /// After a group was told, how long further alerts of it wait. Default: 0s.
    pub group_interval: Option<HumanDuration>,
    /// The same rule, actor and cluster are told again after this long at the earliest. Default: 0s, each alert is told.
    pub repeat_interval: Option<HumanDuration>,
    /// Tell together what came, at full hours, days and so on (UTC): `1h`, `1d`. Takes the place of the three above.
    pub digest: Option<HumanDuration>,
    /// While one of these time intervals holds, alerts of this node wait.
    pub mute_time_intervals: Vec<String>,
    /// Alerts of this node wait unless one of these time intervals holds.
    pub active_time_intervals: Vec<String>,
    /// Nodes below.
    pub routes: Vec<Route>,
}

/// The parts of the configuration that say who is told what.
#[derive(Clone, Copy, Debug)]
pub struct Sections<'a> {
    pub route: Option<&'a Route>,
    pub inhibit_rules: &'a [InhibitRule],
    pub time_intervals: &'a [TimeInterval],
    /// Names of the outputs.
    pub outputs: &'a [String],
}

/// How the alerts of a node are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// `None`: each by itself.
    pub by: Option<Vec<Field>>,
    /// Microseconds.
    pub wait: i64,
    pub interval: i64,
    pub repeat: i64,
    pub digest: i64,
}

impl Pace {
    /// Each alert at once.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Where and how one output is told an alert.
#[derive(Clone, Debug, Default)]
pub struct Hop {
    /// `route.routes[1]`; empty without a tree.
    pub path: String,
    pub pace: Pace,
    mute: Vec<Arc<Window>>,
    active: Vec<Arc<Window>>,
}

impl Hop {
    /// The name of the time interval that makes its alerts wait at `now`; for lack of an active one, the first of those.
    pub fn muted_by(&self, now: DateTime<Utc>) -> Option<&str> {
        let mute = self.mute.iter().find(|w| w.holds(now));
        let inactive = || self.active.first().filter(|_| !self.active.iter().any(|w| w.holds(now)));
        mute.or_else(inactive).map(|w| w.name.as_str())
    }
}

#[derive(Debug)]
struct Node {
    matchers: Vec<Matcher>,
    outputs: Vec<String>,
    goes_on: bool,
    hop: Arc<Hop>,
    inner: Vec<Node>,
}

/// The checked sections.
#[derive(Debug, Default)]
pub struct Flow {
    root: Option<Node>,
    plain: Arc<Hop>,
    pub rules: Arc<Vec<Rule>>,
}

/// What is wrong with the sections: path and message.
pub type Problems = Vec<(String, String)>;

impl Flow {
    /// Reads the sections; every problem at once.
    pub fn new(sections: Sections<'_>) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let mut windows = Vec::new();
        for (i, interval) in sections.time_intervals.iter().enumerate() {
            let path = format!("timeIntervals[{i}]");
            if windows.iter().any(|w: &Arc<Window>| w.name == interval.name) {
                problems.push((format!("{path}.name"), format!("a second time interval `{}`", interval.name)));
            }
            match Window::new(interval) {
                Ok(window) => windows.push(Arc::new(window)),
                Err(e) => problems.push((path, e.to_string())),
            }
        }
        let rules = inhibit::read(sections.inhibit_rules, &mut problems);
        let mut reader = Reader { windows, outputs: sections.outputs, problems };
        let root = sections.route.map(|route| {
            if !route.matchers.is_empty() {
                reader.say("route", "the outermost route takes every alert: it has no matchers");
            }
            reader.node(route, "route", &[], &Pace::default())
        });
        if reader.problems.is_empty() {
            Ok(Self { root, plain: Arc::default(), rules: Arc::new(rules) })
        } else {
            Err(reader.problems)
        }
    }

    /// How `output` is told `alert`; `None` when no route leads there.
    pub fn hop(&self, output: &str, alert: &Alert) -> Option<&Arc<Hop>> {
        let Some(root) = &self.root else { return Some(&self.plain) };
        let mut found = Vec::new();
        walk(root, alert, &mut found);
        found.into_iter().find(|node| node.outputs.iter().any(|o| o == output)).map(|node| &node.hop)
    }

    /// The rules of inhibition whose target `alert` is.
    pub fn may_inhibit(&self, alert: &Alert) -> Vec<String> {
        let targets = self.rules.iter().enumerate().filter(|(_, rule)| rule.is_target(alert));
        targets.map(|(at, _)| inhibit::name(at)).collect()
    }

    /// Outputs no route names.
    pub fn unreached<'a>(&self, outputs: &'a [String]) -> Vec<&'a str> {
        let Some(root) = &self.root else { return Vec::new() };
        outputs.iter().map(String::as_str).filter(|o| !names(root, o)).collect()
    }
}

fn names(node: &Node, output: &str) -> bool {
    node.outputs.iter().any(|o| o == output) || node.inner.iter().any(|inner| names(inner, output))
}

/// The nodes an alert is told at. True when `node` took it.
fn walk<'a>(node: &'a Node, alert: &Alert, found: &mut Vec<&'a Node>) -> bool {
    if !matcher::all(&node.matchers, alert) {
        return false;
    }
    let mut taken = false;
    for inner in &node.inner {
        if walk(inner, alert, found) {
            taken = true;
            if !inner.goes_on {
                break;
            }
        }
    }
    if !taken {
        found.push(node);
    }
    true
}

struct Reader<'a> {
    windows: Vec<Arc<Window>>,
    outputs: &'a [String],
    problems: Problems,
}

impl Reader<'_> {
    fn say(&mut self, path: &str, what: impl Into<String>) {
        self.problems.push((path.to_owned(), what.into()));
    }

    fn node(&mut self, route: &Route, path: &str, outputs: &[String], pace: &Pace) -> Node {
        let mut matchers = Vec::new();
        for (i, text) in route.matchers.iter().enumerate() {
            match Matcher::parse(text) {
                Ok(matcher) => matchers.push(matcher),
                Err(e) => self.say(&format!("{path}.matchers[{i}]"), e.to_string()),
            }
        }
        for (i, name) in route.outputs.iter().enumerate() {
            if !self.outputs.contains(name) {
                let what = format!("no output `{name}`; configured: {}", self.outputs.join(", "));
                self.say(&format!("{path}.outputs[{i}]"), what);
            }
        }
        let outputs = if route.outputs.is_empty() { outputs } else { &route.outputs };
        if outputs.is_empty() && route.routes.is_empty() {
            self.say(path, "no output is told here; name `outputs` here or further out");
        }
        let pace = self.pace(route, path, pace);
        let hop = Hop {
            path: path.to_owned(),
            mute: self.named(&route.mute_time_intervals, &format!("{path}.muteTimeIntervals")),
            active: self.named(&route.active_time_intervals, &format!("{path}.activeTimeIntervals")),
            pace: pace.clone(),
        };
        let inner = route.routes.iter().enumerate();
        let inner = inner.map(|(i, r)| self.node(r, &format!("{path}.routes[{i}]"), outputs, &pace)).collect();
        Node { matchers, outputs: outputs.to_vec(), goes_on: route.r#continue, hop: Arc::new(hop), inner }
    }

    fn pace(&mut self, route: &Route, path: &str, outer: &Pace) -> Pace {
        let micros = |set: Option<HumanDuration>, outer: i64| {
            set.map_or(outer, |d| i64::try_from(d.get().as_micros()).unwrap_or(i64::MAX))
        };
        let by = route.group_by.as_ref().map(|names| {
            let read = |(i, name): (usize, &String)| match Field::parse(name) {
                Ok(field) => Some(field),
                Err(e) => {
                    self.say(&format!("{path}.groupBy[{i}]"), e.to_string());
                    None
                }
            };
            names.iter().enumerate().filter_map(read).collect()
        });
        let pace = Pace {
            by: by.or_else(|| outer.by.clone()),
            wait: micros(route.group_wait, outer.wait),
            interval: micros(route.group_interval, outer.interval),
            repeat: micros(route.repeat_interval, outer.repeat),
            digest: micros(route.digest, outer.digest),
        };
        if pace.digest != 0 && pace.digest < 60_000_000 {
            self.say(&format!("{path}.digest"), "expected at least a minute");
        }
        pace
    }

    fn named(&mut self, names: &[String], path: &str) -> Vec<Arc<Window>> {
        let mut found = Vec::new();
        for (i, name) in names.iter().enumerate() {
            match self.windows.iter().find(|w| w.name == *name) {
                Some(window) => found.push(Arc::clone(window)),
                None => self.say(&format!("{path}[{i}]"), format!("no time interval `{name}` under `timeIntervals`")),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
