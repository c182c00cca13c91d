//! What is wrong with a rule file, with its place, in words that show the way out.
//!
//! A loader collects problems and goes on, so that a person sees all of them at once.

use std::fmt;
use std::path::PathBuf;

/// Line and column, both counted from one. Zero: the whole file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

/// An error keeps the rule from loading, a warning does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong: `rules/x.yml:12:5: rule exec: …`.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub path: PathBuf,
    pub place: Place,
    /// Name, id or title of the rule; `None` when the file could not be read that far.
    pub rule: Option<String>,
    pub severity: Severity,
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.place.line > 0 {
            write!(f, ":{}:{}", self.place.line, self.place.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(": warning")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": rule `{rule}`")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// "; did you mean `x`?", or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint(pub Option<String>);

impl Hint {
    /// The candidate nearest to `name`, when one is near enough to be a slip of the finger.
    pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        let allowed = (name.chars().count() / 3).max(1);
        let lower = name.to_lowercase();
        let near = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), c));
        Self(
            near.filter(|(distance, _)| *distance <= allowed && *distance < lower.chars().count())
                .min()
                .map(|(_, c)| c.to_owned()),
        )
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |s| write!(f, "; did you mean `{s}`?"))
    }
}

/// What exactly is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    // The file.
    #[error("not YAML we can read: {0}")]
    NotYaml(String),
    #[error("the file is larger than {limit} bytes; split it")]
    FileTooLarge { limit: usize },
    #[error("the file holds no rule")]
    Empty,
    #[error("expected {expected}, found {found}")]
    Expected { expected: &'static str, found: &'static str },
    #[error("`{key}` is missing; a rule needs {needed}")]
    Missing { key: &'static str, needed: &'static str },
    #[error("unknown key `{key}`{hint}")]
    UnknownKey { key: String, hint: Hint },
    #[error("`{key}` is `{value}`; expected one of {allowed}{hint}")]
    NotOneOf { key: &'static str, value: String, allowed: &'static str, hint: Hint },
    #[error("`{key}` is `{value}`; expected a date as YYYY-MM-DD")]
    NotADate { key: &'static str, value: String },
    #[error("`{key}` is `{value}`; expected a number and one of s, m, h, d, as in `90m`")]
    NotASpan { key: &'static str, value: String },
    #[error("`{key}` is longer than {limit} characters")]
    TooLong { key: &'static str, limit: usize },
    #[error("a document has `detection`, `correlation` or `filter`, and only one of them")]
    SeveralKinds,
    #[error("logsource {key} is `{value}`; only `product: kubernetes` with `service: audit` can be judged here")]
    OtherLogSource { key: &'static str, value: String },
    #[error("`timeframe` was removed from Sigma; write a correlation with `timespan`")]
    Timeframe,

    // Selections.
    #[error("unknown field `{name}`{hint}")]
    UnknownField { name: String, hint: Hint },
    #[error("selection `{0}` is empty and would never match")]
    EmptySelection(String),
    #[error("field `{0}` has an empty list of values and would never match")]
    EmptyValues(String),
    #[error("a selection nests deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("unknown modifier `{name}`{hint}")]
    UnknownModifier { name: String, hint: Hint },
    #[error("modifier `{0}` is given twice")]
    RepeatedModifier(&'static str),
    #[error("modifiers `{one}` and `{other}` do not go together")]
    Conflict { one: &'static str, other: &'static str },
    #[error("modifier `{name}` has to come after `{after}`")]
    Order { name: &'static str, after: &'static str },
    #[error("modifier `{name}` needs {needs}")]
    ModifierNeeds { name: &'static str, needs: &'static str },
    #[error("modifier `{modifier}` takes {expected}, not {found}")]
    WrongValue { modifier: &'static str, expected: &'static str, found: String },
    #[error("modifier `all` on one single value changes nothing; drop it or give a list")]
    PointlessAll,
    #[error(
        "modifier `{0}` needs a field; without one the whole event is searched, with `all`, `cased`, `contains` or `re`"
    )]
    ModifierNeedsField(&'static str),
    #[error("a search text without a field must not be empty")]
    EmptyKeyword,
    #[error("`{0}` cannot be read as a path; expected names joined by dots, as in `securityContext.privileged`")]
    BadPath(String),
    #[error("placeholder `%{name}%` is not defined{hint}")]
    UnknownPlaceholder { name: String, hint: Hint },
    #[error("regular expression `{pattern}` is longer than {limit} bytes")]
    RegexTooLong { pattern: String, limit: usize },
    #[error(
        "regular expression `{pattern}` uses {what}, which is not supported because it can take forever; write it without, or as a second selection with `not`"
    )]
    RegexUnsupported { pattern: String, what: &'static str },
    #[error("regular expression `{pattern}` does not compile: {reason}")]
    RegexBroken { pattern: String, reason: String },
    #[error("`{0}` is no network; expected an address and a prefix length, as in `10.0.0.0/8`")]
    NotANetwork(String),
    #[error("the values do not compile into a search: {0}")]
    SearchBroken(String),

    // Conditions.
    #[error("condition `{condition}`: {fault}")]
    Condition { condition: String, fault: super::condition::ConditionFault },
    #[error("selection `{0}` is never used in the condition")]
    UnusedSelection(String),

    // Several rules.
    #[error("{what} `{name}` is already taken by {first}")]
    Duplicate { what: &'static str, name: String, first: String },
    #[error("there is no rule `{name}`{hint}")]
    UnknownRule { name: String, hint: Hint },
    #[error("rule `{0}` is disabled, so this correlation is left out too")]
    RefersToDisabled(String),
    #[error("`{0}` is a filter; a correlation refers to rules and correlations")]
    RefersToFilter(String),
    #[error("`{0}` is a correlation; a filter applies to rules only")]
    FiltersCorrelation(String),
    #[error("correlations refer to each other in a circle: {0}")]
    Circle(String),
    #[error(
        "correlation type `{0}` is not supported; use event_count, value_count, temporal, temporal_ordered, kill_chain, new_value, rare_value or rate_anomaly"
    )]
    UnsupportedCorrelation(String),
    #[error("correlation type `{kind}` needs {needs}")]
    CorrelationNeeds { kind: &'static str, needs: &'static str },
    #[error("alias `{alias}` names rule `{rule}`, which is not one of this correlation's `rules`{hint}")]
    AliasOfOther { alias: String, rule: String, hint: Hint },
    #[error("alias `{alias}` says nothing about rule `{rule}`; add it")]
    AliasIncomplete { alias: String, rule: String },
    #[error("no event can meet this condition: {0}")]
    ImpossibleCount(String),
    #[error("the filter expired on {0} and is ignored; renew or remove it")]
    Expired(String),
    #[error("a filter says what to leave out; `not …` is read as `leave out …`, as other Sigma tools do")]
    NegatedFilter,
    #[error("no rule reads the list `{name}`{hint}")]
    UnreadList { name: String, hint: Hint },
    #[error("disabled rule `{name}` does not exist{hint}")]
    UnknownDisabled { name: String, hint: Hint },

    // Tests beside rules.
    #[error("a test needs {0}")]
    TestNeeds(&'static str),
    #[error("events text line {line} is not JSON: {reason}")]
    EventNotJson { line: usize, reason: String },
}

/// Collects the problems of one file while it is read.
#[derive(Debug)]
pub struct Problems {
    path: PathBuf,
    /// The rule being read, named in every problem from now on.
    pub rule: Option<String>,
    list: Vec<Problem>,
}

/// A file with more problems than this is not a rule file; the rest is not told.
const MAX_PROBLEMS: usize = 200;

impl Problems {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rule: None, list: Vec::new() }
    }

    pub fn error(&mut self, place: Place, fault: Fault) {
        self.push(place, Severity::Error, fault);
    }

    pub fn warn(&mut self, place: Place, fault: Fault) {
        self.push(place, Severity::Warning, fault);
    }

    fn push(&mut self, place: Place, severity: Severity, fault: Fault) {
        if self.list.len() < MAX_PROBLEMS {
            let problem = Problem { path: self.path.clone(), place, rule: self.rule.clone(), severity, fault };
            self.list.push(problem);
        }
    }

    /// How many errors so far; compare before and after to see whether a part was good.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|p| p.severity == Severity::Error).count()
    }

    /// In the order of the file.
    pub fn into_list(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|p| p.place);
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line_with_place_and_way_out() {
        let mut problems = Problems::new("rules/x.yml");
        problems.rule = Some("exec".into());
        let hint = Hint::nearest("objectRef.subresourse", ["objectRef.resource", "objectRef.subresource"]);
        let fault = Fault::UnknownField { name: "objectRef.subresourse".into(), hint };
        problems.error(Place { line: 12, column: 5 }, fault.clone());
        problems.warn(Place::default(), fault);
        let list = problems.into_list();
        let text = "rule `exec`: unknown field `objectRef.subresourse`; did you mean `objectRef.subresource`?";
        assert_eq!(list[0].to_string(), format!("rules/x.yml: warning: {text}"));
        assert_eq!(list[1].to_string(), format!("rules/x.yml:12:5: {text}"));
    }

    #[test]
    fn a_hint_needs_a_near_name() {
        assert_eq!(Hint::nearest("contians", ["contains", "cased"]).0.as_deref(), Some("contains"));
        assert_eq!(Hint::nearest("banana", ["contains", "cased"]).0, None);
    }
}
