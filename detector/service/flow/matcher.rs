//! Matchers as Alertmanager spells them: `level="high"`, `rule!="x"`, `actor=~"system:.*"`, `namespace!~"kube-.*"`.
//!
//! A pattern must match the whole value. A field an alert does not have is the empty text. Of a field with several values
//! (`tag`, `namespace`) one must match for `=` and `=~`, and none for `!=` and `!~`.

use std::borrow::Cow;
use std::fmt;

use lapwing_engine::alert::{Alert, Evidence, Verdict};
use regex::Regex;

/// Largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// What of an alert can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Level,
    Rule,
    Tag,
    Cluster,
    Namespace,
    Actor,
    ActorKind,
    Action,
    Resource,
    Outcome,
    Verdict,
    Status,
}

impl Field {
    const ALL: [(&'static str, Self); 12] = [
        ("level", Self::Level),
        ("rule", Self::Rule),
        ("tag", Self::Tag),
        ("cluster", Self::Cluster),
        ("namespace", Self::Namespace),
        ("actor", Self::Actor),
        ("actorKind", Self::ActorKind),
        ("action", Self::Action),
        ("resource", Self::Resource),
        ("outcome", Self::Outcome),
        ("verdict", Self::Verdict),
        ("status", Self::Status),
    ];

    /// As our own output calls them in Alertmanager.
    const THERE: [(&'static str, Self); 3] =
        [("alertname", Self::Rule), ("severity", Self::Level), ("actor_kind", Self::ActorKind)];

    /// The field called `name`.
    pub fn parse(name: &str) -> Result<Self, MatcherError> {
        let found = Self::ALL.into_iter().chain(Self::THERE).find(|(known, _)| *known == name);
        found.map(|(_, field)| field).ok_or_else(|| MatcherError::Field(name.to_owned()))
    }

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    /// Every value `alert` has for it, each once; one empty text when there is none.
    pub fn values(self, alert: &Alert) -> Vec<Cow<'_, str>> {
        let evidence = |of: fn(&Evidence) -> &str| {
            let mut found: Vec<Cow<'_, str>> = alert.evidence.iter().map(|e| Cow::Borrowed(of(e))).collect();
            found.retain(|text| !text.is_empty());
            found.sort_unstable();
            found.dedup();
            found
        };
        let mut found = match self {
            Self::Level => vec![Cow::Borrowed(alert.level.as_str())],
            Self::Rule => vec![Cow::Borrowed(alert.rule.id.as_str())],
            Self::Tag => alert.rule.tags.iter().map(|t| Cow::Borrowed(t.as_str())).collect(),
            Self::Cluster => vec![Cow::Borrowed(alert.cluster.as_str())],
            Self::Namespace => evidence(|e| &e.namespace),
            Self::Actor => vec![Cow::Borrowed(alert.actor.as_str())],
            Self::ActorKind => vec![Cow::Borrowed(alert.actor_kind.as_str())],
            Self::Action => evidence(|e| &e.action),
            Self::Resource => evidence(|e| &e.resource),
            Self::Outcome => evidence(|e| &e.outcome),
            Self::Verdict => vec![Cow::Borrowed(match alert.verdict {
                Verdict::Match => "match",
                Verdict::Undecidable => "undecidable",
            })],
            Self::Status => vec![Cow::Borrowed(alert.status.as_str())],
        };
        if found.is_empty() {
            found.push(Cow::Borrowed(""));
        }
        found
    }
}

/// Why a matcher cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    #[error("`{0}` is no matcher; expected for example `level=\"high\"` or `actor=~\"system:.*\"`")]
    Shape(String),
    #[error("unknown field `{0}`; known: {known}", known = Field::ALL.map(|(name, _)| name).join(", "))]
    Field(String),
    #[error("`{0}` has no closing quote, or something behind it")]
    Quote(String),
    #[error("`{pattern}` is no pattern: {reason}")]
    Pattern { pattern: String, reason: String },
}

#[derive(Clone, Debug)]
enum Test {
    Is(String),
    Like(Regex),
}

/// One condition on an alert.
#[derive(Clone, Debug)]
pub struct Matcher {
    field: Field,
    test: Test,
    negated: bool,
    value: String,
    text: String,
}

impl Matcher {
    /// Reads `text`.
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        let shape = || MatcherError::Shape(text.to_owned());
        let at = text.find(['=', '!']).ok_or_else(shape)?;
        let (name, rest) = text.split_at(at);
        let ops = [("=~", true, false), ("!~", true, true), ("!=", false, true), ("=", false, false)];
        let found = ops.iter().find_map(|(op, like, negated)| Some((rest.strip_prefix(op)?, *like, *negated)));
        let (value, like, negated) = found.ok_or_else(shape)?;
        let value = unquote(value.trim()).ok_or_else(|| MatcherError::Quote(text.to_owned()))?;
        let test = if like {
            let built = regex::RegexBuilder::new(&format!("^(?:{value})$")).size_limit(MAX_PATTERN).build();
            Test::Like(built.map_err(|e| MatcherError::Pattern { pattern: value.clone(), reason: reason(&e) })?)
        } else {
            Test::Is(value.clone())
        };
        Ok(Self { field: Field::parse(name.trim())?, test, negated, value, text: text.trim().to_owned() })
    }

    pub fn matches(&self, alert: &Alert) -> bool {
        self.field.values(alert).iter().any(|value| self.holds(value)) != self.negated
    }

    /// The text of a matcher: the opposite of [`Self::parse`].
    pub fn write(name: &str, value: &str, pattern: bool, equal: bool) -> String {
        let operator = match (pattern, equal) {
            (false, true) => "=",
            (false, false) => "!=",
            (true, true) => "=~",
            (true, false) => "!~",
        };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}{operator}\"{value}\"")
    }

    pub fn field(&self) -> Field {
        self.field
    }

    /// What is compared with: a text, or a pattern.
    pub fn value(&self) -> &str {
        &self.value
    }

    pub fn is_pattern(&self) -> bool {
        matches!(self.test, Test::Like(_))
    }

    pub fn is_negated(&self) -> bool {
        self.negated
    }

    /// Whether a field with this one value matches.
    pub fn admits(&self, value: &str) -> bool {
        self.holds(value) != self.negated
    }

    fn holds(&self, value: &str) -> bool {
        match &self.test {
            Test::Is(wanted) => wanted == value,
            Test::Like(pattern) => pattern.is_match(value),
        }
    }

    /// Whether an alert without the field would match.
    pub fn matches_nothing(&self) -> bool {
        self.holds("") != self.negated
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All of them must match.
pub fn all(matchers: &[Matcher], alert: &Alert) -> bool {
    matchers.iter().all(|m| m.matches(alert))
}

fn reason(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// A value with or without quotes; inside them `\"`, `\\` and `\n` as in Alertmanager.
fn unquote(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else {
        return (!text.contains('"')).then(|| text.to_owned());
    };
    let (mut out, mut chars) = (String::new(), inner.chars());
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                c @ ('"' | '\\') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::sample;

    fn matches(text: &str) -> bool {
        Matcher::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).matches(&sample::alert())
    }

    #[test]
    fn the_four_operators_on_every_field() {
        for (text, wanted) in [
            ("level=high", true),
            ("level=\"high\"", true),
            (" level =~ \"high|critical\" ", true),
            ("level=~hig", false),
            ("level!=high", false),
            ("level!~\"low|medium\"", true),
            ("rule=pod-exec-shell", true),
            ("tag=attack.t1609", true),
            ("tag!=attack.t1609", false),
            ("tag=~\"attack\\.t.*\"", true),
            ("cluster=\"\"", false),
            ("namespace=shop", true),
            ("namespace!~\"kube-.*\"", true),
            ("actor=alice", true),
            ("actorKind=human", true),
            ("action=exec", true),
            ("resource=pods/exec", true),
            ("outcome=allowed", true),
            ("verdict=match", true),
            ("status=new", true),
            ("alertname=pod-exec-shell", true),
            ("severity=low", false),
        ] {
            assert_eq!(matches(text), wanted, "{text}");
        }
        let mut bare = sample::alert();
        bare.evidence.clear();
        assert!(Matcher::parse("namespace=\"\"").unwrap().matches(&bare), "what is not there is empty");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| Matcher::parse(text).unwrap_err().to_string();
        assert!(error("high").contains("expected for example"));
        assert!(error("host=a").starts_with("unknown field `host`; known: level, rule"));
        assert!(error("level=\"high").contains("no closing quote"));
        assert!(error("level=\"a\" b").contains("no closing quote"));
        assert!(error("level=~\"(\"").contains("is no pattern: unclosed group"), "{}", error("level=~\"(\""));
        assert!(error("level=~\"(a{1000}){1000}\"").contains("is no pattern"));
        assert!(error("level!high").contains("is no matcher"));
    }

    proptest! {
        #[test]
        fn a_quoted_value_comes_back(value in any::<String>()) {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            prop_assert_eq!(unquote(&format!("\"{quoted}\"")), Some(value));
        }

        #[test]
        fn what_is_written_reads_the_same(value in "[a-z\"\\\\\n=~!. é]{0,30}", equal: bool) {
            let matcher = Matcher::parse(&Matcher::write("actor", &value, false, equal)).unwrap();
            prop_assert_eq!((matcher.value(), matcher.is_negated(), matcher.is_pattern()), (value.as_str(), !equal, false));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = Matcher::parse(&text);
        }
    }
}
