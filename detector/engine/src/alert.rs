//! Findings (a rule spoke about events) and alerts (what a person receives).
//!
//! These types are the public JSON of Lapwing: outputs, the store, `scan` and `schemas/` all use
//! them as they are. Field names are camelCase; times are RFC 3339 in UTC.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Severity of a rule, in Sigma's words. Ordered: `Informational < … < Critical`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Informational,
    Low,
    #[default]
    Medium,
    High,
    Critical,
}

impl Level {
    pub const ALL: [Self; 5] = [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The level named `text`, or `None`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.as_str() == text)
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a rule said about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Match,
    /// The event lacks what the rule needs (truncated, level too low, unreadable body).
    Undecidable,
}

/// The rule a finding or alert comes from, as much of it as a reader needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleRef {
    pub id: String,
    pub title: String,
    pub level: Level,
    /// Sigma tags, for example `attack.t1609`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// One request as evidence: who did what to what, from where, with which right, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    pub time: DateTime<Utc>,
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// Where the event lies in the journal: `lsn:index`. Empty for `scan`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub position: String,
    pub actor: String,
    /// The identity acted as, when the request was impersonated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting_as: Option<String>,
    pub action: String,
    pub verb: String,
    /// `resource` or `resource/subresource`; the path for non-resource requests.
    pub resource: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// The binding that allowed it, or the reason it was refused, in the API server's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub right: String,
    /// What makes this request remarkable, one short line each (`command: id`, `privileged: web/c1`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// A rule spoke about one or more events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Deterministic: the same events and rule give the same id.
    pub id: String,
    pub rule: RuleRef,
    pub verdict: Verdict,
    /// Why it could not be decided. Empty for a match.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub cluster: String,
    pub actor: String,
    /// `human`, `serviceaccount`, `node`, `controlplane` or `anonymous`.
    pub actor_kind: String,
    /// Stage time of the newest event it rests on.
    pub time: DateTime<Utc>,
    /// One sentence a person understands.
    pub summary: String,
    /// Every event it rests on, oldest first.
    #[serde(rename = "auditIDs")]
    pub audit_ids: Vec<String>,
    /// At most ten of these events, spelled out.
    pub evidence: Vec<Evidence>,
    /// Why it is unusual, where a baseline spoke and not a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Box<Anomaly>>,
}

/// What a baseline found unusual about a principal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Anomaly {
    pub kind: AnomalyKind,
    /// Surprise of the last request, in bits: how much likelier it is from an attacker than from this principal.
    pub surprise_bits: f32,
    /// Risk of the principal after it, in bits: surprise and findings of rules, added up and fading by half a day.
    pub risk_bits: f32,
    /// What one of the two had to reach.
    pub threshold: f32,
    pub confidence: Confidence,
    pub principal: Habits,
    /// What weighs most, heaviest first; at most three for a surprise, eight for a risk.
    pub reasons: Vec<Reason>,
    /// ATT&CK tactics seen of this principal within three days.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tactics: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnomalyKind {
    /// One request unlike this principal.
    Surprise,
    /// Evidence that adds up over a day.
    Risk,
    /// The same new thing at many principals at once: an upgrade, a rollout.
    Fleet,
}

/// `low`: the baseline of this principal is young.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Low,
    High,
}

/// Whose baseline it is, and how much is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Habits {
    /// The actor, for machine identities without the part that changes with every run.
    pub name: String,
    pub class: String,
    /// When it was first seen.
    pub since: DateTime<Utc>,
    /// Hours with something to learn, those of the last two weeks weighing most.
    pub active_hours: f32,
}

/// One reason, as data and in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// `action`, `namespace`, `object`, `client`, `client version`, `network`, `subnet`, `outcome`, `time`, `content`,
    /// `principal`, `burst` or `rule`.
    pub dimension: String,
    /// In which context the value counts: the resource of an object, the client of a version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub context: String,
    pub value: String,
    pub bits: f32,
    /// Probability that this principal does this, as predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f32>,
    /// Decayed count of the value in the principal's own history, and of all values there.
    pub seen: f32,
    pub of: f32,
    /// Peers of its class that hold the value.
    pub peers: u32,
    /// What is usual instead, the most usual first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usual: Vec<String>,
    pub text: String,
}

/// How much evidence a finding or an alert carries.
pub const MAX_EVIDENCE: usize = 10;
/// How many audit ids a finding or an alert carries.
pub const MAX_AUDIT_IDS: usize = 500;

/// What kind of notice this is about an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The first finding of the group.
    New,
    /// The group closed with more findings than the first notice told.
    Update,
    /// Nothing came of it for a while. Only for outputs that close what they opened.
    Resolved,
    /// Sent by `lapwing output test`.
    Test,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}

/// What a person receives: findings of one rule, actor and cluster, grouped over a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Deterministic, and the same for every notice about this alert.
    pub id: String,
    pub status: Status,
    pub rule: RuleRef,
    pub level: Level,
    pub verdict: Verdict,
    pub cluster: String,
    pub actor: String,
    pub actor_kind: String,
    /// Stage time of the first and the last event.
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
    /// How many findings are grouped here.
    pub count: u64,
    /// One sentence: who did what to what, from where, and whether it succeeded.
    pub summary: String,
    /// Why it matters (the rule's description).
    pub why: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub false_positives: Vec<String>,
    /// What to do next, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_steps: Vec<String>,
    #[serde(rename = "auditIDs")]
    pub audit_ids: Vec<String>,
    pub evidence: Vec<Evidence>,
    /// Why it is unusual, where a baseline spoke and not a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Box<Anomaly>>,
}
