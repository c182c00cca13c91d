//! Grouping of findings into alerts.
//!
//! The first finding of a rule, actor and cluster opens a group and its alert goes out at once. Later
//! findings are counted into the group; when its window closes and there was more than the first
//! notice told, one update with the same id goes out. Time is the engine's time: an argument.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize, Serializer};

use crate::alert::{Alert, Finding, Level, MAX_AUDIT_IDS, MAX_EVIDENCE, Status, Verdict};

/// What the rule adds to its alerts.
#[derive(Clone, Debug, Default)]
pub struct Advice<'a> {
    pub why: &'a str,
    pub false_positives: &'a [String],
    pub next_steps: &'a [String],
}

/// Groups that may be open at once; the oldest closes early beyond that.
const MAX_GROUPS: usize = 50_000;

type Key = (String, String, String, bool);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Open {
    key: Key,
    closes: i64,
    told: u64,
    alert: Alert,
}

/// All open groups.
#[derive(Clone, Debug)]
pub struct Groups {
    window: i64,
    open: HashMap<Key, Open>,
    closing: BTreeSet<(i64, Key)>,
}

impl Groups {
    /// `window` in microseconds.
    pub fn new(window: i64) -> Self {
        Self { window, open: HashMap::new(), closing: BTreeSet::new() }
    }

    /// Adds a finding. The alert, if this opens a group; updates of groups closed early go to `out` as well.
    pub fn add(&mut self, now: i64, finding: &Finding, advice: &Advice<'_>, out: &mut Vec<Alert>) {
        self.close_due(now, out);
        let key = key(finding);
        if let Some(group) = self.open.get_mut(&key) {
            extend(&mut group.alert, finding);
            return;
        }
        if self.open.len() >= MAX_GROUPS {
            self.close_oldest(out);
        }
        let alert = first_notice(finding, advice);
        out.push(alert.clone());
        let closes = now.saturating_add(self.window);
        self.closing.insert((closes, key.clone()));
        self.open.insert(key.clone(), Open { key, closes, told: 1, alert });
    }

    /// Whether the group of such a finding is open and holds all the evidence it will show.
    pub fn shows_no_more(&mut self, now: i64, rule: &str, cluster: &str, actor: &str, out: &mut Vec<Alert>) -> bool {
        self.close_due(now, out);
        let key = (rule.to_owned(), cluster.to_owned(), actor.to_owned(), false);
        self.open.get(&key).is_some_and(|group| group.alert.evidence.len() >= MAX_EVIDENCE)
    }

    /// Closes every group whose window has passed.
    pub fn close_due(&mut self, now: i64, out: &mut Vec<Alert>) {
        while self.closing.first().is_some_and(|(closes, _)| *closes <= now) {
            self.close_oldest(out);
        }
    }

    /// Closes everything: the input has ended.
    pub fn close_all(&mut self, out: &mut Vec<Alert>) {
        while !self.closing.is_empty() {
            self.close_oldest(out);
        }
    }

    fn close_oldest(&mut self, out: &mut Vec<Alert>) {
        let Some((_, key)) = self.closing.pop_first() else { return };
        if let Some(group) = self.open.remove(&key).filter(|g| g.alert.count > g.told) {
            out.push(Alert { status: Status::Update, ..group.alert });
        }
    }

    /// When the next group closes, if any is open.
    pub fn next_close(&self) -> Option<i64> {
        self.closing.first().map(|(closes, _)| *closes)
    }

    /// The groups a snapshot holds.
    pub fn restore(window: i64, snapshot: &str) -> Result<Self, serde_json::Error> {
        let mut groups = Self::new(window);
        for open in serde_json::from_str::<Vec<Open>>(snapshot)? {
            groups.closing.insert((open.closes, open.key.clone()));
            groups.open.insert(open.key.clone(), open);
        }
        Ok(groups)
    }
}

/// The open groups as data, in a fixed order.
impl Serialize for Groups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.closing.iter().filter_map(|(_, key)| self.open.get(key)))
    }
}

fn key(f: &Finding) -> Key {
    (f.rule.id.clone(), f.cluster.clone(), f.actor.clone(), f.verdict == Verdict::Undecidable)
}

/// 20 hex digits of BLAKE3 over the parts, each behind its length.
pub fn id(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..20].to_owned()
}

fn first_notice(f: &Finding, advice: &Advice<'_>) -> Alert {
    let first = f.evidence.iter().map(|e| e.time).min().unwrap_or(f.time);
    Alert {
        id: id(&["alert", &f.id, &f.actor, &f.cluster]),
        status: Status::New,
        rule: f.rule.clone(),
        level: f.rule.level,
        verdict: f.verdict,
        cluster: f.cluster.clone(),
        actor: f.actor.clone(),
        actor_kind: f.actor_kind.clone(),
        first,
        last: f.time,
        count: 1,
        summary: f.summary.clone(),
        why: advice.why.to_owned(),
        false_positives: advice.false_positives.to_vec(),
        next_steps: advice.next_steps.iter().map(|s| fill(s, f)).collect(),
        audit_ids: f.audit_ids.clone(),
        evidence: f.evidence.clone(),
        anomaly: f.anomaly.clone(),
    }
}

fn extend(alert: &mut Alert, f: &Finding) {
    alert.count += 1;
    alert.level = alert.level.max(f.rule.level);
    if f.anomaly.is_some() {
        alert.anomaly.clone_from(&f.anomaly);
    }
    alert.first = alert.first.min(f.evidence.iter().map(|e| e.time).min().unwrap_or(f.time));
    alert.last = alert.last.max(f.time);
    for id in &f.audit_ids {
        if alert.audit_ids.len() < MAX_AUDIT_IDS && !alert.audit_ids.contains(id) {
            alert.audit_ids.push(id.clone());
        }
    }
    let room = MAX_EVIDENCE.saturating_sub(alert.evidence.len());
    alert.evidence.extend(f.evidence.iter().take(room).cloned());
}

/// `{actor}`, `{namespace}`, … in a next step, quoted for a shell where the value needs it.
fn fill(step: &str, f: &Finding) -> String {
    if !step.contains('{') {
        return step.to_owned();
    }
    let last = f.evidence.last().cloned().unwrap_or_default();
    let from = |key: &str| {
        let wanted = format!("{key}: ");
        last.details.iter().find_map(|d| d.strip_prefix(&wanted)).unwrap_or_default().to_owned()
    };
    let namespace = if last.namespace.is_empty() { "default".to_owned() } else { last.namespace.clone() };
    let audit_id = f.audit_ids.last().cloned().unwrap_or_default();
    [
        ("{actor}", f.actor.clone()),
        ("{cluster}", f.cluster.clone()),
        ("{namespace}", namespace),
        ("{name}", last.name.clone()),
        ("{resource}", last.resource.clone()),
        ("{address}", last.address.clone()),
        ("{role}", from("role")),
        ("{auditID}", audit_id),
    ]
    .into_iter()
    .fold(step.to_owned(), |text, (placeholder, value)| text.replace(placeholder, &shell(&value)))
}

/// `value` as one word of a POSIX shell: names come from whoever made the request.
fn shell(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@' | '…');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let clean: String = value.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", clean.replace('\'', r"'\''"))
}

/// Highest level a finding of verdict undecidable may have.
pub const UNDECIDABLE_LEVEL: Level = Level::Medium;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Evidence, RuleRef};
    use crate::event::to_datetime;

    const HOUR: i64 = 3_600_000_000;

    fn finding(actor: &str, at: i64) -> Finding {
        Finding {
            id: format!("{actor}{at}"),
            rule: RuleRef { id: "r".into(), title: "R".into(), level: Level::High, tags: vec![] },
            verdict: Verdict::Match,
            reason: String::new(),
            cluster: "prod".into(),
            actor: actor.into(),
            actor_kind: "human".into(),
            time: to_datetime(at),
            summary: "s".into(),
            audit_ids: vec![format!("audit-{at}")],
            evidence: vec![Evidence { time: to_datetime(at), name: "a'; rm -rf / #".into(), ..Evidence::default() }],
            anomaly: None,
        }
    }

    fn add(groups: &mut Groups, now: i64, f: &Finding) -> Vec<Alert> {
        let mut out = Vec::new();
        let steps = ["kubectl delete pod {name}".to_owned()];
        groups.add(now, f, &Advice { why: "why", next_steps: &steps, ..Advice::default() }, &mut out);
        out
    }

    #[test]
    fn the_first_is_told_at_once_the_rest_in_one_update() {
        let mut g = Groups::new(HOUR);
        let first = add(&mut g, 0, &finding("eve", 1));
        assert_eq!((first.len(), first[0].status, first[0].count), (1, Status::New, 1));
        assert!(add(&mut g, 5, &finding("eve", 2)).is_empty());
        assert_eq!(add(&mut g, 6, &finding("bob", 3)).len(), 1, "another actor is another alert");
        let mut closed = Vec::new();
        g.close_due(HOUR, &mut closed);
        assert_eq!(closed.len(), 1, "bob's single finding needs no update");
        assert_eq!((closed[0].id.clone(), closed[0].status, closed[0].count), (first[0].id.clone(), Status::Update, 2));
        assert_eq!(closed[0].audit_ids, ["audit-1", "audit-2"]);
        assert_eq!(add(&mut g, HOUR + 7, &finding("eve", 9))[0].status, Status::New, "a new window is a new alert");
    }

    #[test]
    fn a_restored_group_goes_on_where_it_was() {
        let mut a = Groups::new(HOUR);
        add(&mut a, 0, &finding("eve", 1));
        let mut b = Groups::restore(HOUR, &serde_json::to_string(&a).expect("data")).expect("own snapshot");
        for g in [&mut a, &mut b] {
            assert!(add(g, 10, &finding("eve", 2)).is_empty());
        }
        let (mut out_a, mut out_b) = (Vec::new(), Vec::new());
        a.close_all(&mut out_a);
        b.close_all(&mut out_b);
        assert_eq!(out_a, out_b);
        assert_eq!(out_a.len(), 1);
    }

    #[test]
    fn a_name_cannot_leave_its_word_in_a_command() {
        let mut g = Groups::new(HOUR);
        let alert = add(&mut g, 0, &finding("eve", 1)).remove(0);
        assert_eq!(alert.next_steps, [r"kubectl delete pod 'a'\''; rm -rf / #'"]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut g = Groups::new(HOUR);
        for i in 0..(MAX_GROUPS as i64 + 10) {
            add(&mut g, i, &finding(&format!("a{i}"), i));
        }
        assert_eq!(g.open.len(), MAX_GROUPS);
        assert_eq!(g.closing.len(), MAX_GROUPS);
    }
}
