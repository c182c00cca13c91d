//! The engine: a pure fold over events and time. Events in, findings and alerts out.
//!
//! It reads no clock and keeps no order but that of its input: the same input with the same rules
//! gives the same output with the same ids. Everything it remembers is bounded and can be taken as a
//! snapshot.

mod chain;
mod fired;
mod shapes;
mod taught;
mod undecidable;
mod unusual;
mod wiring;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::alert::{Alert, Evidence, Finding, Level, MAX_EVIDENCE, RuleRef, Verdict};
use crate::baseline::{self, Baselines};
use crate::carry::Part;
use crate::event::{Event, NotAnEvent, to_datetime};
use crate::facts::Facts;
use crate::group::{self, Advice, Groups};
use crate::listed::Listed;
use crate::memory::{self, Memory, Sight};
use crate::rule::file::Meta;
use crate::rule::index::{Keys, UNKNOWN};
use crate::rule::set::RuleSet;
use crate::rule::{Judgement, Rule};
use crate::window::{DEFAULT_CAP, Hit};
use crate::words::{self, Told};
use fired::{Fired, request_id};
use shapes::Shapes;
use taught::Taught;
use undecidable::{UNDECIDABLE, Undecided};
pub use unusual::ANOMALY_RULES;
use wiring::{Feed, History, Wiring, group_key, hit_of, span, unique};

/// How the engine behaves, apart from its rules.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long findings of one rule, actor and cluster are one alert, microseconds.
    pub group_window: i64,
    /// Groups one correlation remembers.
    pub window_groups: usize,
    /// Objects, credentials and so on of each kind that are remembered.
    pub memory: usize,
    /// Findings below this level are counted and not reported.
    pub min_level: Level,
    /// Findings that no alert will show in full are not put into words: no summary, no evidence. For who reads alerts.
    pub brief: bool,
    /// Whether to learn what is normal and tell of what is not.
    pub baseline: Option<baseline::Options>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            group_window: 3_600_000_000,
            window_groups: DEFAULT_CAP,
            memory: memory::DEFAULT_CAP,
            min_level: Level::Informational,
            brief: false,
            baseline: None,
        }
    }
}

/// What one step produced, in order.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub findings: Vec<Finding>,
    pub alerts: Vec<Alert>,
}

/// Counts since the start, for metrics and reports.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub truncated: u64,
    pub malformed: u64,
    /// Requests that had fired the same rule before: another stage, or delivered again.
    pub repeated: u64,
    /// Undecidable verdicts, per rule index.
    pub undecidable: HashMap<u32, u64>,
    /// Findings, per rule index; correlations follow the rules.
    pub findings: HashMap<u32, u64>,
}

/// Rules, and what is remembered between events.
#[derive(Debug)]
pub struct Engine {
    rules: Arc<RuleSet>,
    options: Options,
    wiring: Wiring,
    histories: Vec<History>,
    groups: Groups,
    /// Shared only while an event is judged, so never copied.
    memory: Arc<Memory>,
    fired: Fired,
    /// Resources and clusters whose bodies the audit policy hides, with the time that may be told again.
    blind: HashMap<(String, String), i64>,
    baselines: Option<Box<Baselines>>,
    counts: Counts,
    shapes: Shapes,
    taught: Taught,
    /// The latest stage time met, microseconds: the clock of habits.
    latest: i64,
    /// Kept for their room only.
    candidates: Vec<u32>,
    key: String,
}

impl Engine {
    pub fn new(rules: Arc<RuleSet>, options: Options) -> Self {
        let histories = rules.correlations().iter().map(|c| History::of(c, options.window_groups)).collect();
        let groups = Groups::new(options.group_window);
        Self {
            wiring: Wiring::of(&rules),
            memory: Arc::new(Memory::new(options.memory)),
            rules,
            baselines: options.baseline.map(|o| Box::new(Baselines::new(o))),
            options,
            histories,
            groups,
            fired: Fired::default(),
            blind: HashMap::new(),
            counts: Counts::default(),
            shapes: Shapes::default(),
            taught: Taught::default(),
            latest: 0,
            candidates: Vec::new(),
            key: String::new(),
        }
    }

    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// The rule or correlation that [`Counts`] calls `index`.
    pub fn meta(&self, index: u32) -> Option<&Meta> {
        let (rules, i) = (self.rules.rules(), index as usize);
        rules.get(i).map(|r| &r.meta).or_else(|| self.rules.correlations().get(i - rules.len()).map(|c| &c.meta))
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What is normal, if it is learned.
    pub fn baselines(&self) -> Option<&Baselines> {
        self.baselines.as_deref()
    }

    /// As [`Self::baselines`], to keep house in them.
    pub fn baselines_mut(&mut self) -> Option<&mut Baselines> {
        self.baselines.as_deref_mut()
    }

    /// Follows what people told about the baselines; false where it is about nobody known, or nothing is learned.
    pub fn follow(&mut self, order: &baseline::Order) -> bool {
        self.baselines.as_mut().is_some_and(|b| b.follow(order))
    }

    /// Takes over baselines learned elsewhere, instead of its own.
    pub fn import(&mut self, stored: baseline::Snapshot) {
        let shelf = self.baselines.as_mut().and_then(|b| b.unshelve());
        if let Some(options) = self.options.baseline {
            let mut baselines = Baselines::restore(options, stored);
            shelf.into_iter().for_each(|shelf| baselines.shelve(shelf));
            self.baselines = Some(Box::new(baselines));
        }
    }

    /// Groups that correlations forgot because their cap was reached.
    pub fn evicted(&self) -> u64 {
        self.histories.iter().map(History::evicted).sum()
    }

    /// What is remembered of objects and credentials.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Judges one event and returns its stage time. `now` is the engine's time in microseconds and must not go back; `position`
    /// names the event's place in the journal and is asked only when the event is evidence.
    pub fn event(
        &mut self,
        cluster: &str,
        text: &str,
        now: i64,
        position: &dyn Fn() -> String,
        out: &mut Output,
    ) -> Result<Option<i64>, NotAnEvent> {
        let event = Event::parse(text)?;
        self.counts.events += 1;
        self.counts.malformed += u64::from(!event.malformed.is_empty());
        self.counts.truncated += u64::from(event.truncated());
        let facts = Facts::new(&event, text, cluster);
        self.latest = self.latest.max(facts.time().unwrap_or_default());
        let memory = Arc::clone(&self.memory);
        let sight = Sight::new(&facts, &memory);
        let found = out.findings.len();
        self.judge(&sight, now, position, out);
        self.unusual(&sight, now, position, found, out);
        let places = sight.places();
        drop(memory);
        if self.wiring.remembers {
            Arc::make_mut(&mut self.memory).learn(&facts, places);
        }
        Ok(facts.time())
    }

    /// Lets time pass: closes groups whose window is over.
    pub fn tick(&mut self, now: i64, out: &mut Output) {
        self.groups.close_due(now, &mut out.alerts);
    }

    /// When [`Engine::tick`] would next have something to do.
    pub fn next_tick(&self) -> Option<i64> {
        self.groups.next_close()
    }

    /// The input has ended: closes every group.
    pub fn finish(&mut self, out: &mut Output) {
        self.groups.close_all(&mut out.alerts);
    }

    fn judge(&mut self, sight: &Sight<'_, '_>, now: i64, position: &dyn Fn() -> String, out: &mut Output) {
        let mut candidates = std::mem::take(&mut self.candidates);
        let past = if self.wiring.remembers { sight.carried() } else { 0 };
        self.shapes.candidates(&self.rules, sight.facts, past, &mut candidates);
        if !candidates.is_empty() {
            let rules = Arc::clone(&self.rules);
            let told = Telling::new(sight, position);
            let before = out.findings.len();
            let mut undecided: Vec<Undecided> = Vec::new();
            for &index in &candidates {
                let rule = &rules.rules()[index as usize];
                match rule.judge(sight) {
                    Judgement::NoMatch => {}
                    Judgement::Match => self.matched(index, rule, &told, now, out),
                    Judgement::Undecidable(why, field) => {
                        *self.counts.undecidable.entry(index).or_default() += 1;
                        undecided.push((index, why, field));
                    }
                }
            }
            self.undecidable(&undecided, &told, now, out);
            self.chains(before, &told, now, out);
        }
        self.candidates = candidates;
    }

    fn matched(&mut self, index: u32, rule: &Rule, telling: &Telling<'_, '_, '_>, now: i64, out: &mut Output) {
        let facts = telling.sight.facts;
        if self.wiring.only_teaches[index as usize] {
            if self.wiring.known_by_hour[index as usize] && !self.taught.is_new(index, facts, self.latest) {
                return;
            }
            self.correlate(index, telling, now, out);
            return;
        }
        let request = telling.request();
        if !self.fired.first((index, request)) {
            self.counts.repeated += 1;
            return;
        }
        if self.wiring.speaks[index as usize] {
            let named = rule_ref(&rule.meta);
            let brief = self.brief(&named, request, facts, now, out);
            let finding = brief.unwrap_or_else(|| self.finding(named, &[request], facts, telling.told(), None));
            self.report(index, finding, &advice(&rule.meta), now, out);
        }
        if !self.wiring.feeds[index as usize].is_empty() {
            self.correlate(index, telling, now, out);
        }
    }

    /// Feeds a match of rule or correlation `index` to the correlations that rest on it.
    fn correlate(&mut self, index: u32, telling: &Telling<'_, '_, '_>, now: i64, out: &mut Output) {
        let rules = Arc::clone(&self.rules);
        let base = rules.rules().len() as u32;
        let mut key = std::mem::take(&mut self.key);
        for at in 0..self.wiring.feeds[index as usize].len() {
            let Feed { which, slot, same_group } = self.wiring.feeds[index as usize][at];
            let correlation = &rules.correlations()[which as usize];
            if !same_group {
                group_key(correlation, slot, telling.sight, &mut key);
            }
            let windows = match &mut self.histories[which as usize] {
                History::Windows(windows) => windows,
                History::Habits(habits) => {
                    let told = unusual::of_group(habits, correlation, slot, telling.sight, &key, self.latest);
                    let Some(what) = told else { continue };
                    if self.wiring.speaks[(base + which) as usize] {
                        let rule = rule_ref(&correlation.meta);
                        let mut finding =
                            self.finding(rule, &[telling.request()], telling.sight.facts, telling.told(), None);
                        finding.summary = format!("{what}: {}", finding.summary);
                        self.report(base + which, finding, &advice(&correlation.meta), now, out);
                    }
                    self.correlate(base + which, telling, now, out);
                    continue;
                }
            };
            let Some(mut hit) = hit_of(correlation, slot, telling.sight, telling.request()) else { continue };
            if windows.wants_evidence(&key, &hit) {
                hit.evidence = Some(Box::new(telling.told().evidence.clone()));
            }
            let Some(hits) = windows.add(&key, hit) else { continue };
            if self.wiring.speaks[(base + which) as usize] {
                let count = unique(hits.iter().map(|h| h.audit_id.clone())).len();
                self.correlated(which, hits, &format!("{count} requests"), telling, now, out);
            }
            self.correlate(base + which, telling, now, out);
        }
        self.key = key;
    }

    /// A finding without words, where its alert has all it will show.
    fn brief(
        &mut self,
        rule: &RuleRef,
        request: u64,
        facts: &Facts<'_>,
        now: i64,
        out: &mut Output,
    ) -> Option<Finding> {
        if !self.options.brief {
            return None;
        }
        let actor = words::safe(facts.actor());
        if !self.groups.shows_no_more(now, &rule.id, facts.cluster, &actor, &mut out.alerts) {
            return None;
        }
        let audit_id = words::safe(&facts.event.audit_id);
        Some(finding(rule.clone(), &[request], facts, actor, String::new(), (vec![audit_id], Vec::new())))
    }

    /// Reports that `hits` fulfil a correlation: `what` they are, in its time, and the last of them.
    fn correlated(
        &mut self,
        which: u32,
        hits: Vec<Hit>,
        what: &str,
        telling: &Telling<'_, '_, '_>,
        now: i64,
        out: &mut Output,
    ) {
        let rules = Arc::clone(&self.rules);
        let correlation = &rules.correlations()[which as usize];
        let requests: Vec<u64> = hits.iter().map(|h| h.request).collect();
        let audit_ids = unique(hits.iter().map(|h| h.audit_id.clone()));
        let spelled: Vec<Evidence> = hits.into_iter().filter_map(|h| h.evidence.map(|e| *e)).collect();
        let (rule, hits) = (rule_ref(&correlation.meta), Some((audit_ids, spelled)));
        let mut finding = self.finding(rule, &requests, telling.sight.facts, telling.told(), hits);
        finding.summary = format!("{what} within {}, the last: {}", span(correlation.timespan_micros), finding.summary);
        self.report(rules.rules().len() as u32 + which, finding, &advice(&correlation.meta), now, out);
    }

    fn finding(
        &self,
        rule: RuleRef,
        requests: &[u64],
        facts: &Facts<'_>,
        told: &Told,
        hits: Option<(Vec<String>, Vec<Evidence>)>,
    ) -> Finding {
        let (audit_ids, mut evidence) =
            hits.unwrap_or_else(|| (vec![told.evidence.audit_id.clone()], vec![told.evidence.clone()]));
        evidence.truncate(MAX_EVIDENCE);
        finding(rule, requests, facts, told.evidence.actor.clone(), told.summary.clone(), (audit_ids, evidence))
    }

    fn report(&mut self, index: u32, finding: Finding, advice: &Advice<'_>, now: i64, out: &mut Output) {
        *self.counts.findings.entry(index).or_default() += 1;
        if finding.rule.level < self.options.min_level {
            return;
        }
        self.groups.add(now, &finding, advice, &mut out.alerts);
        out.findings.push(finding);
    }

    /// Judges by other rules from here on. What is remembered stays, but for what belongs to rules that are gone.
    pub fn change_rules(&mut self, rules: Arc<RuleSet>) {
        let new = Self::new(rules, self.options.clone());
        let old = std::mem::replace(self, new);
        let index = self.by_id();
        let now_called = |i: u32| Some(index.get(&old.meta(i & !UNDECIDABLE)?.id)? | i & UNDECIDABLE);
        for (i, request) in &old.fired.order {
            if let Some(i) = now_called(*i) {
                self.fired.first((i, *request));
            }
        }
        let mut histories: HashMap<&String, History> =
            old.rules.correlations().iter().map(|c| &c.meta.id).zip(old.histories).collect();
        for (correlation, history) in self.rules.correlations().iter().zip(&mut self.histories) {
            histories.remove(&correlation.meta.id).into_iter().for_each(|old| history.go_on(old));
        }
        (self.groups, self.blind, self.memory, self.baselines) = (old.groups, old.blind, old.memory, old.baselines);
        self.latest = old.latest;
    }

    fn by_id(&self) -> HashMap<String, u32> {
        (0u32..).map_while(|i| self.meta(i).map(|m| (m.id.clone(), i))).collect()
    }

    /// Takes over a snapshot. What belongs to rules that are gone is left out.
    ///
    /// # Errors
    /// When it is not one of this version.
    pub fn restore(&mut self, snapshot: &str) -> Result<(), serde_json::Error> {
        let snapshot: Stored<'_> = serde_json::from_str(snapshot)?;
        for (correlation, history) in self.rules.correlations().iter().zip(&mut self.histories) {
            if let Some(stored) = snapshot.windows.get(&correlation.meta.id) {
                history.restore(stored.get())?;
            }
        }
        self.groups = Groups::restore(self.options.group_window, snapshot.groups.get())?;
        let index = self.by_id();
        for (id, undecidable, request) in snapshot.fired {
            if let Some(i) = index.get(&id) {
                self.fired.first((i | if undecidable { UNDECIDABLE } else { 0 }, request));
            }
        }
        for (resource, cluster, again) in snapshot.blind {
            self.blind.insert((resource, cluster), again);
        }
        if let (Some(options), Some(stored)) = (self.options.baseline, snapshot.baselines) {
            self.baselines = Some(Box::new(Baselines::restore(options, stored)));
        }
        self.latest = snapshot.latest;
        snapshot.memory.map_or(Ok(()), |memory| Arc::make_mut(&mut self.memory).restore(memory.get()))
    }
}

/// Everything remembered, as data: same rules and same snapshot, same future.
impl Serialize for Engine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let correlations = self.rules.correlations().iter().map(|c| &c.meta.id);
        let windows: BTreeMap<&String, &History> = correlations.zip(&self.histories).collect();
        let mut blind: Vec<_> =
            self.blind.iter().map(|((resource, cluster), again)| (resource, cluster, again)).collect();
        blind.sort_unstable();
        let fired = |(rule, request): &(u32, u64)| {
            Some((&self.meta(rule & !UNDECIDABLE)?.id, rule & UNDECIDABLE != 0, *request))
        };
        let mut engine = serializer.serialize_struct("Engine", 7)?;
        engine.serialize_field("windows", &windows)?;
        engine.serialize_field("groups", &self.groups)?;
        engine.serialize_field("fired", &Listed(|| self.fired.order.iter().filter_map(fired)))?;
        engine.serialize_field("blind", &blind)?;
        engine.serialize_field("memory", &*self.memory)?;
        engine.serialize_field("baselines", &self.baselines)?;
        engine.serialize_field("latest", &self.latest)?;
        engine.end()
    }
}

/// A snapshot as it is read.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    windows: HashMap<String, &'a RawValue>,
    #[serde(borrow)]
    groups: &'a RawValue,
    fired: Vec<(String, bool, u64)>,
    blind: Vec<(String, String, i64)>,
    /// Absent, as what follows, in snapshots of older versions.
    #[serde(default, borrow)]
    memory: Option<&'a RawValue>,
    #[serde(default)]
    baselines: Option<baseline::Snapshot>,
    #[serde(default)]
    latest: i64,
}

/// An event being judged: what findings tell of it is put into words once, when the first needs it.
struct Telling<'f, 's, 'e> {
    sight: &'f Sight<'s, 'e>,
    position: &'f dyn Fn() -> String,
    request: OnceCell<u64>,
    told: OnceCell<Told>,
}

impl<'f, 's, 'e> Telling<'f, 's, 'e> {
    fn new(sight: &'f Sight<'s, 'e>, position: &'f dyn Fn() -> String) -> Self {
        Self { sight, position, request: OnceCell::new(), told: OnceCell::new() }
    }

    fn request(&self) -> u64 {
        *self.request.get_or_init(|| request_id(self.sight.facts))
    }

    fn told(&self) -> &Told {
        self.told.get_or_init(|| words::tell(self.sight, &(self.position)()))
    }
}

/// `past`: what is remembered of it, as bits of [`crate::rule::index::carried`].
fn keys<'f>(facts: &'f Facts<'_>, past: u16) -> Keys<'f> {
    let hidden = |part| facts.event.not_carried.has(part);
    Keys {
        action: facts.action,
        verb: &facts.event.verb,
        resource: facts.resource,
        subresource: facts.subresource,
        outcome: if hidden(Part::Status) && facts.outcome == "pending" { UNKNOWN } else { facts.outcome },
        actor_kind: if facts.user_unreadable() { UNKNOWN } else { facts.actor_kind },
        stage: facts.event.stage,
        scope: facts.scope(),
        client: if hidden(Part::Agent) { UNKNOWN } else { facts.client().0 },
        network: facts.network(),
        carried: facts.carried() | past,
    }
}

fn finding(
    rule: RuleRef,
    requests: &[u64],
    facts: &Facts<'_>,
    actor: String,
    summary: String,
    (audit_ids, evidence): (Vec<String>, Vec<Evidence>),
) -> Finding {
    let requests: String = requests.iter().map(|r| format!("{r:016x}")).collect();
    Finding {
        id: group::id(&["finding", &rule.id, facts.cluster, &requests]),
        rule,
        verdict: Verdict::Match,
        reason: String::new(),
        cluster: facts.cluster.to_owned(),
        actor,
        actor_kind: facts.actor_kind.to_owned(),
        time: to_datetime(facts.time().unwrap_or_default()),
        summary,
        audit_ids,
        evidence,
        anomaly: None,
    }
}

fn rule_ref(meta: &Meta) -> RuleRef {
    RuleRef { id: meta.id.clone(), title: meta.title.clone(), level: meta.level, tags: meta.tags.clone() }
}

fn advice(meta: &Meta) -> Advice<'_> {
    Advice { why: &meta.description, false_positives: &meta.false_positives, next_steps: &meta.next_steps }
}

#[cfg(test)]
mod tests;
