//! What is normal for every identity, learned from the stream, and how unlike it a request is.
//!
//! A pure fold like the rest of the engine: bounded by a budget of bytes, deterministic, a snapshot away from where it
//! was. Each principal has decayed counts of what it does; its peers and its class stand in where it has none. Surprise
//! is of one request, risk adds up over a day, findings of rules included. It never changes what a rule says.

mod again;
mod budget;
mod burst;
mod cold;
mod describe;
mod explain;
mod fleet;
pub mod habit;
mod members;
mod name;
mod observation;
mod order;
mod principal;
mod prior;
mod risk;
mod score;
mod vocabulary;

#[cfg(test)]
mod tests;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

pub use budget::Thresholds;
pub use cold::{Place as ShelfPlace, Shelf};
pub use describe::{Described, DescribedValue, Description};
pub(crate) use explain::USUAL;
pub use observation::{Class, Observation};
pub use order::{Order, Place, may_quiet};

use crate::alert::{Anomaly, AnomalyKind, Confidence, Habits, Level, Reason};
use crate::event::to_datetime;
use crate::facts::Facts;
use again::Again;
use burst::Channel;
use fleet::Fleet;
use members::Members;
use order::Exception;
use principal::Principal;
use prior::Tactic;
use risk::Credit;
use score::{Known, Terms};
use vocabulary::Vocabulary;

/// A property of a request that has a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dimension {
    Action,
    Namespace,
    Object,
    Client,
    ClientVersion,
    Network,
    Subnet,
    Outcome,
    Time,
    Content,
    Principal,
    Burst,
    Rule,
}

impl Dimension {
    /// Those that have tables of values.
    pub const TABLES: [Self; 11] = [
        Self::Action,
        Self::Namespace,
        Self::Object,
        Self::Client,
        Self::ClientVersion,
        Self::Network,
        Self::Subnet,
        Self::Outcome,
        Self::Time,
        Self::Content,
        Self::Rule,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Namespace => "namespace",
            Self::Object => "object",
            Self::Client => "client",
            Self::ClientVersion => "client version",
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Outcome => "outcome",
            Self::Time => "time",
            Self::Content => "content",
            Self::Principal => "principal",
            Self::Burst => "burst",
            Self::Rule => "rule",
        }
    }

    /// First letter of its tables in the vocabulary.
    const fn code(self) -> char {
        match self {
            Self::Action => 'a',
            Self::Namespace => 'n',
            Self::Object => 'o',
            Self::Client => 'c',
            Self::ClientVersion => 'v',
            Self::Network => 'i',
            Self::Subnet => 's',
            Self::Outcome => 'f',
            Self::Time => 't',
            Self::Content => 'k',
            Self::Rule => 'r',
            Self::Principal | Self::Burst => '-',
        }
    }
}

/// How baselines behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Alerts a day and cluster the thresholds are steered to.
    pub per_day: f32,
    /// Surprise and risk in bits from which on to tell, instead of steering.
    pub fixed: Option<Thresholds>,
    /// Memory of all baselines together.
    pub max_bytes: usize,
    /// Records of identities that are not in memory, where there is a shelf for them.
    pub max_shelved: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { per_day: 5.0, fixed: None, max_bytes: 512 << 20, max_shelved: 1 << 30 }
    }
}

/// Surprise up to which what is new is learnt at once.
const QUARANTINE: f32 = 6.0;
/// Active hours from which on a baseline is trusted.
const TRUSTED: f32 = 20.0;
/// What must be reached where it is not.
const UNTRUSTED: f32 = 12.0;
/// What must be reached on the first day of a class of identities: everybody is new then, and nobody has peers.
const FIRST_DAY: f32 = 20.0;
/// What a request must add to its principal's risk to be told for it.
const RISK_STEP: f32 = 0.5;
/// Evidence above this is remembered, to count it once a day.
const WORTH_CREDIT: f32 = 1.0;
/// Requests of one hour told apart; beyond that all are looked at again.
const MAX_SEEN: usize = 200_000;
/// One part in so many of the budget is left for what an allocator loses between what comes and goes.
const RESERVE: usize = 5;
/// Segments of the shelf that are written together at a time.
const TIDY: usize = 2;
/// Clocks may run ahead of each other by this, microseconds.
const SKEW: i64 = 300_000_000;
const HOUR: i64 = 3_600_000_000;

/// A rule's finding about the event being observed.
#[derive(Clone, Copy, Debug)]
pub struct Spoken<'s> {
    pub rule: &'s str,
    pub title: &'s str,
    pub level: Level,
    pub tags: &'s [String],
}

/// What is told of a request: the anomaly, how grave, and the requests it rests on beside this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub anomaly: Anomaly,
    pub level: Level,
    pub audit_ids: Vec<String>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests scored.
    pub scored: u64,
    /// Requests like one scored in the same hour.
    pub repeated: u64,
    /// Principals forgotten for want of room.
    pub evicted: u64,
    /// Principals forgotten because their record could not be read.
    pub lost: u64,
    /// All, and those of them on the shelf.
    pub principals: u64,
    pub shelved: u64,
    /// Memory, and records on the shelf.
    pub bytes: u64,
    pub shelved_bytes: u64,
}

/// What the last observation was worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Bits of this request; of one like it in the same hour, where it repeats one.
    pub surprise: f32,
    /// Bits of its principal.
    pub risk: f32,
    pub repeated: bool,
    /// Bits above the threshold that is exceeded most; negative where nothing would be told, whatever was told before.
    pub over: f32,
}

impl Default for Scored {
    fn default() -> Self {
        Self { surprise: 0.0, risk: 0.0, repeated: false, over: f32::MIN }
    }
}

/// All baselines.
#[derive(Debug)]
pub struct Baselines {
    options: Options,
    words: Vocabulary,
    members: Members,
    fleet: Fleet,
    exceptions: Vec<Exception>,
    /// Score of each observation of this hour.
    seen: foldhash::HashMap<Box<str>, f32>,
    again: Again,
    /// The newest time so far; it never goes back.
    time: i64,
    observation: Observation,
    text: String,
    scored: u64,
    repeated: u64,
    last: Scored,
}

impl Baselines {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            words: Vocabulary::default(),
            members: Members::default(),
            fleet: Fleet::default(),
            exceptions: Vec::new(),
            seen: foldhash::HashMap::default(),
            again: Again::default(),
            time: 0,
            observation: Observation::default(),
            text: String::new(),
            scored: 0,
            repeated: 0,
            last: Scored::default(),
        }
    }

    /// What the last event was worth.
    pub fn last(&self) -> Scored {
        self.last
    }

    pub fn counts(&self) -> Counts {
        Counts {
            scored: self.scored,
            repeated: self.repeated,
            evicted: self.members.evicted,
            lost: self.members.cold.lost,
            principals: self.members.len() as u64,
            shelved: self.members.cold.len() as u64,
            bytes: self.bytes() as u64,
            shelved_bytes: self.members.cold.shelved(),
        }
    }

    fn bytes(&self) -> usize {
        self.members.bytes() + self.words.bytes()
    }

    fn hour(&self) -> u32 {
        (self.time / HOUR) as u32
    }

    /// Learns from a request and says whether it is unusual. `now` is the engine's time, `rules` what rules found in it.
    pub fn observe(&mut self, facts: &Facts<'_>, now: i64, rules: &[Spoken<'_>]) -> Vec<Told> {
        self.last = Scored::default();
        let known = self.again.find(facts);
        if let Some(surprise) = known.filter(|_| rules.is_empty()) {
            let time = self.after(facts.time().unwrap_or_default(), now);
            if time / HOUR == self.time / HOUR {
                self.time = time;
                self.repeats(surprise);
                return Vec::new();
            }
        }
        let mut o = std::mem::take(&mut self.observation);
        let told = if o.fill(facts) { self.look(&o, &facts.event.audit_id, now, rules) } else { Vec::new() };
        self.observation = o;
        told
    }

    /// The newest time, with an event of stage time `time`.
    fn after(&self, time: i64, now: i64) -> i64 {
        self.time.max(time.min(now.saturating_add(SKEW)))
    }

    fn repeats(&mut self, surprise: f32) {
        self.repeated += 1;
        self.last = Scored { surprise, repeated: true, ..Scored::default() };
    }

    fn pass(&mut self, o: &Observation, now: i64) {
        let hour = self.hour();
        self.time = self.after(o.time, now);
        if self.hour() != hour {
            self.seen.clear();
            self.again.clear();
            self.fleet.forget(self.hour());
            self.members.rest(self.hour(), self.time);
        }
    }

    fn look(&mut self, o: &Observation, audit_id: &str, now: i64, rules: &[Spoken<'_>]) -> Vec<Told> {
        self.pass(o, now);
        let before = self.seen.get(o.key()).copied();
        if let Some(surprise) = before.filter(|_| rules.is_empty() && !Channel::any_repeats(o)) {
            self.again.keep(surprise);
            self.repeats(surprise);
            return Vec::new();
        }
        let hour = self.hour();
        let cluster = self.members.cluster(o.cluster(), hour / 24);
        let id = self.members.find_or_make(o, cluster, hour, self.time, &mut self.words);
        let Some(mut p) = self.members.take(id) else { return Vec::new() };
        let told = self.judge((cluster, id), &mut p, o, before, audit_id, rules);
        self.members.put(id, p);
        self.make_room();
        told
    }

    /// Keeps memory and shelf within their budgets. Half of memory at most is for those on the shelf.
    fn make_room(&mut self) {
        let most = self.options.max_bytes - self.options.max_bytes / RESERVE;
        while self.bytes() > most && self.members.evict(&mut self.words) {}
        let crowded = |b: &Self| {
            b.members.cold.shelved() > b.options.max_shelved
                || b.members.cold.bytes() + b.words.frozen_bytes() > b.options.max_bytes / 2
        };
        while crowded(self) && self.members.forget_oldest(&mut self.words) {}
    }

    /// Brings everybody of this name back to memory.
    fn bring_back(&mut self, name: &str) {
        let owners = self.members.clusters.iter().map(|c| format!("{}\u{1f}{name}", c.name));
        let owners: Vec<String> = owners.collect();
        for owner in owners {
            self.members.find_anywhere(&owner, &mut self.words);
        }
    }

    /// From here on whoever memory has no room for goes to `shelf`. Records of a snapshot are looked for there.
    pub fn shelve(&mut self, shelf: Box<dyn Shelf>) {
        self.members.cold.shelf = Some(shelf);
    }

    /// Takes the shelf away, for a successor.
    pub fn unshelve(&mut self) -> Option<Box<dyn Shelf>> {
        self.members.cold.shelf.take()
    }

    /// Writes records together that lie scattered, and tells the segments of the shelf that are in use.
    pub fn tidy(&mut self) -> Vec<u32> {
        self.members.cold.tidy(TIDY);
        self.members.cold.segments().collect()
    }

    /// Brings everybody back to memory: what is written then needs no shelf.
    pub fn gather(&mut self) {
        self.members.gather(&mut self.words);
    }

    fn judge(
        &mut self,
        (cluster, id): (u32, u32),
        p: &mut Principal,
        o: &Observation,
        before: Option<f32>,
        audit_id: &str,
        rules: &[Spoken<'_>],
    ) -> Vec<Told> {
        let (hour, now) = (self.hour(), self.time);
        let first_of_day = p.who.active == 0.0 || p.who.last_hour / 24 != hour / 24;
        let new = self.members.touch(id, p, hour, &mut self.words);
        let risk_before = p.risk.bits_at(now);
        let request = request_hash(audit_id);
        let rise = p.bursts.add(o, request, hour, &mut self.members.class(cluster, o.class).bursts);
        let mut terms = Terms::default();
        let mut score = before.unwrap_or_default();
        if before.is_none() {
            self.scored += 1;
            let mut known = Known {
                vocabulary: &self.words,
                members: &self.members,
                fleet: &self.fleet,
                principal: p,
                hour,
                text: &mut self.text,
            };
            terms = known.terms(o, cluster, new);
            self.apply_exceptions(o, &mut terms);
            score = terms.score();
            if self.seen.len() >= MAX_SEEN {
                self.seen.clear();
                self.again.clear();
            }
            self.seen.insert(o.key().into(), score);
        } else {
            self.repeated += 1;
        }
        if first_of_day {
            self.members.count_day(cluster, o.class, new && p.who.active <= 1.0, hour);
        }
        score = rise.map_or(score, |r| score.max(0.0) + r.bits);
        let mut reasons = self.reasons(p, o, &terms, hour);
        reasons.extend(rise.as_ref().map(explain::burst));
        if before.is_none() || rise.is_some() {
            let more = rise.map_or(0.0, |r| r.bits);
            self.add_risk(cluster, p, o, (&terms, more), &reasons, audit_id);
        }
        self.add_rules(p, rules, audit_id, hour);
        let mut told = Vec::new();
        if before.is_none() {
            told.extend(self.fleet_changes((cluster, id), p, o, &terms));
            self.learn(p, o, &terms, score < QUARANTINE, hour);
        }
        let options = self.options;
        let state = &mut self.members.clusters[cluster as usize];
        state.budget.note(hour / 24, id, score, p.risk.bits, &options);
        let thresholds = state.budget.thresholds(&options);
        let least = match self.members.class_age(&p.who, hour) {
            0..24 => FIRST_DAY,
            _ if p.who.active < TRUSTED => UNTRUSTED,
            _ => 0.0,
        };
        let thresholds = (thresholds.0.max(least), thresholds.1.max(least));
        let fresh = before.is_none() || rise.is_some();
        let grown = p.risk.bits_at(now) > risk_before + RISK_STEP;
        let over = (
            if fresh { score - thresholds.0 } else { f32::MIN },
            if grown { p.risk.bits_at(now) - thresholds.1 } else { f32::MIN },
        );
        self.last = Scored { surprise: score, risk: p.risk.bits, repeated: before.is_some(), over: over.0.max(over.1) };
        let surprise = if fresh { score } else { f32::MIN };
        told.extend(tell(p, o, surprise, over, thresholds, reasons, now));
        told
    }

    /// Reasons worth telling, heaviest first.
    fn reasons(&self, p: &Principal, o: &Observation, terms: &Terms, hour: u32) -> Vec<Reason> {
        let mut heavy: Vec<&score::Term> = terms.iter().filter(|t| t.bits > WORTH_CREDIT).collect();
        heavy.sort_by(|a, b| b.bits.total_cmp(&a.bits));
        heavy.into_iter().map(|t| explain::reason(o, t, p, hour, &self.words)).collect()
    }

    /// Adds the evidence that was not counted within the last day.
    fn add_risk(
        &mut self,
        cluster: u32,
        p: &mut Principal,
        o: &Observation,
        (terms, burst): (&Terms, f32),
        reasons: &[Reason],
        audit_id: &str,
    ) {
        let now = self.time;
        p.risk.pass(now);
        let mut evidence = 0.0;
        for term in terms.iter() {
            let (_, value) = explain::place(o, term);
            if term.bits <= 0.0 || !p.risk.credited(term.dimension, value) {
                evidence += term.bits;
            }
        }
        for reason in reasons {
            let Some(dimension) = Dimension::parse(&reason.dimension) else { continue };
            if p.risk.credited(dimension, &reason.value) {
                continue;
            }
            p.risk.credit(Credit {
                dimension,
                context: reason.context.as_str().into(),
                value: reason.value.as_str().into(),
                at: now,
                bits: reason.bits,
                audit_id: crate::words::cut(audit_id).into(),
                text: reason.text.as_str().into(),
            });
        }
        let tactic = Tactic::of(o.verb(), o.resource());
        p.risk.add(evidence, tactic, now, &mut self.members.class(cluster, o.class).level);
        p.risk.add_burst(burst, now);
    }

    /// Adds what rules found: each rule once a day, and the less the more often it has spoken of this principal.
    fn add_rules(&mut self, p: &mut Principal, rules: &[Spoken<'_>], audit_id: &str, hour: u32) {
        let now = self.time;
        for rule in rules {
            score::table_text(&mut self.text, Dimension::Rule, "");
            let table = self.words.find(&self.text);
            score::value_text(&mut self.text, rule.rule);
            let habit = p.own(table, self.words.find(&self.text), hour).count;
            self.learn_value(p, Dimension::Rule, "", rule.rule, hour, true);
            let bits = risk::rule_bits(rule.level) / (1.0 + habit);
            p.risk.pass(now);
            if bits <= 0.0 || p.risk.credited(Dimension::Rule, rule.rule) {
                continue;
            }
            p.risk.credit(Credit {
                dimension: Dimension::Rule,
                context: "".into(),
                value: rule.rule.into(),
                at: now,
                bits,
                audit_id: crate::words::cut(audit_id).into(),
                text: rule.title.into(),
            });
            p.risk.add_rule(bits, rule.tags.iter().filter_map(|t| Tactic::of_tag(t)), now);
        }
    }

    /// Notes what is new to a principal; what is told where that makes it common.
    fn fleet_changes(&mut self, who: (u32, u32), p: &Principal, o: &Observation, terms: &Terms) -> Vec<Told> {
        let hour = self.hour();
        let common = terms.iter().filter(|t| self.fleet.note(who, o, t, hour));
        let common: Vec<_> = common.collect();
        // While a class is young everything is new to everybody, and nothing has changed.
        if self.members.class_age(&p.who, hour) < members::MATURE {
            return Vec::new();
        }
        let told = |term: &score::Term| {
            let mut reason = explain::reason(o, term, p, hour, &self.words);
            let deed = explain::deed(o, term);
            reason.text = format!("several identities of class {} {deed} for the first time", o.class.as_str());
            let anomaly = anomaly(p, o, AnomalyKind::Fleet, (term.bits, 0.0), vec![reason], Vec::new());
            Told { anomaly, level: Level::Informational, audit_ids: Vec::new() }
        };
        common.into_iter().map(told).collect()
    }

    fn learn(&mut self, p: &mut Principal, o: &Observation, terms: &Terms, at_once: bool, hour: u32) {
        use Dimension as D;
        let mut one = |d: Dimension, context: &str, value: &str, at_once: bool| {
            let known = terms.numbers(d).is_some_and(|(table, value)| p.count(table, value, hour));
            if !known {
                self.learn_value(p, d, context, value, hour, at_once);
            }
        };
        one(D::Action, "", o.action_text(), at_once);
        one(D::Namespace, score::mode(o), o.namespace(), at_once);
        if o.sensitive {
            one(D::Object, o.object_kind(), o.object_text(), at_once);
        }
        one(D::Client, "", o.client(), at_once);
        one(D::ClientVersion, o.client(), o.version(), at_once);
        one(D::Network, "", o.network(), at_once);
        one(D::Subnet, o.network(), o.subnet(), at_once);
        one(D::Outcome, "", score::outcome(o), at_once);
        if o.class == Class::Human {
            one(D::Time, "", observation::SLOTS[o.slot() as usize], true);
        }
        for token in o.tokens() {
            self.learn_value(p, D::Content, o.resource(), token, hour, at_once);
        }
    }

    /// Counts a value; one that is new is taken up at once, or when it has been seen on three days.
    fn learn_value(&mut self, p: &mut Principal, d: Dimension, context: &str, value: &str, hour: u32, at_once: bool) {
        score::table_text(&mut self.text, d, context);
        let table_end = self.text.len();
        let table = self.words.find(&self.text);
        score::value_text(&mut self.text, value);
        let known = table.zip(self.words.find(&self.text));
        if known.is_some_and(|(table, value)| p.count(table, value, hour)) {
            return;
        }
        if !at_once && !p.quarantine(&self.text, hour / 24) {
            return;
        }
        let table = self.words.hold(&self.text[..table_end]);
        let value = self.words.hold(&self.text);
        let told = self.members.told(&p.who, hour);
        if told {
            members::gain(&mut self.words, p.who.peers, table, value);
        }
        if let Some((old, old_told)) = p.insert(table, value, hour, told) {
            members::forget_value(&mut self.words, p.who.peers, table, old, old_told);
        }
    }

    /// Baselines as a snapshot has them.
    pub fn restore(options: Options, snapshot: Snapshot) -> Self {
        Self {
            words: Vocabulary::restore(snapshot.words),
            members: Members::restore(snapshot.members),
            fleet: snapshot.fleet,
            exceptions: snapshot.exceptions,
            seen: snapshot.seen.into_iter().collect(),
            again: Again::default(),
            time: snapshot.time,
            ..Self::new(options)
        }
    }
}

/// Everything remembered, as the data of a [`Snapshot`].
impl Serialize for Baselines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seen: Vec<_> = self.seen.iter().collect();
        seen.sort_unstable_by_key(|(key, _)| *key);
        let mut baselines = serializer.serialize_struct("Baselines", 6)?;
        baselines.serialize_field("time", &self.time)?;
        baselines.serialize_field("words", &self.words)?;
        baselines.serialize_field("members", &self.members)?;
        baselines.serialize_field("fleet", &self.fleet)?;
        baselines.serialize_field("exceptions", &self.exceptions)?;
        baselines.serialize_field("seen", &seen)?;
        baselines.end()
    }
}

impl Dimension {
    fn parse(text: &str) -> Option<Self> {
        Self::TABLES.into_iter().chain([Self::Principal, Self::Burst]).find(|d| d.as_str() == text)
    }
}

/// Baselines as data: same snapshot, same options, same future.
#[derive(Debug, Deserialize)]
pub struct Snapshot {
    time: i64,
    words: vocabulary::Stored,
    members: members::Stored,
    fleet: Fleet,
    #[serde(default)]
    exceptions: Vec<Exception>,
    seen: Vec<(Box<str>, f32)>,
}

/// What to tell of a request that is `over` a threshold: surprise before risk, and only when an open incident grows.
fn tell(
    p: &mut Principal,
    o: &Observation,
    surprise: f32,
    over: (f32, f32),
    thresholds: Thresholds,
    reasons: Vec<Reason>,
    now: i64,
) -> Option<Told> {
    let risk = p.risk.bits_at(now);
    let (kind, threshold) = match over {
        (by, _) if by >= 0.0 => (AnomalyKind::Surprise, thresholds.0),
        (_, by) if by >= 0.0 => (AnomalyKind::Risk, thresholds.1),
        _ => return None,
    };
    if !p.risk.opens(surprise.max(risk), now) {
        return None;
    }
    let story = p.risk.story();
    let reasons = match kind {
        AnomalyKind::Surprise => reasons.into_iter().take(3).collect(),
        _ => story.iter().take(8).map(|c| retold(c)).collect(),
    };
    let mut audit_ids: Vec<String> = story.iter().map(|c| String::from(&*c.audit_id)).collect();
    audit_ids.sort_unstable();
    audit_ids.dedup();
    let tactics = p.risk.tactics(now).map(|t| t.as_str().to_owned()).collect();
    let level = risk::risk_level(surprise.max(risk));
    let mut anomaly = anomaly(p, o, kind, (surprise, risk), reasons, tactics);
    anomaly.threshold = explain::round(threshold);
    Some(Told { anomaly, level, audit_ids })
}

fn anomaly(
    p: &Principal,
    o: &Observation,
    kind: AnomalyKind,
    (surprise, risk): (f32, f32),
    reasons: Vec<Reason>,
    tactics: Vec<String>,
) -> Anomaly {
    Anomaly {
        kind,
        surprise_bits: explain::round(surprise.max(-1.0)),
        risk_bits: explain::round(risk),
        threshold: 0.0,
        confidence: if p.who.active < TRUSTED { Confidence::Low } else { Confidence::High },
        principal: Habits {
            name: o.principal().to_owned(),
            class: o.class.as_str().to_owned(),
            since: to_datetime(i64::from(p.who.first_hour) * HOUR),
            active_hours: explain::round(p.who.active),
        },
        reasons,
        tactics,
    }
}

/// Evidence of the last day, told again.
fn retold(credit: &Credit) -> Reason {
    Reason {
        dimension: credit.dimension.as_str().to_owned(),
        context: String::from(&*credit.context),
        value: String::from(&*credit.value),
        bits: explain::round(credit.bits),
        probability: None,
        seen: 0.0,
        of: 0.0,
        peers: 0,
        usual: Vec::new(),
        text: String::from(&*credit.text),
    }
}

/// Tells the stages of one request from the next request of the same principal.
fn request_hash(audit_id: &str) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::with_seed(0).hash_one(audit_id)
}
