//! `field|modifier|modifier` to a checked set of modifiers.
//!
//! What does not exist or does not go together is a load error that names it.

use super::pattern::Utf16;
use super::problem::{Fault, Hint};

/// Where in the field's text the value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Whole,
    Contains,
    StartsWith,
    EndsWith,
}

/// How the values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Regex {
        ignore_case: bool,
        multi_line: bool,
        dot_all: bool,
    },
    Network,
    Exists,
    Compare(Relation),
    FieldRef,
    /// Lapwing's own: one element of a list meets all nested conditions.
    Element,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Relation {
    pub fn holds(self, actual: f64, wanted: f64) -> bool {
        match self {
            Self::Less => actual < wanted,
            Self::LessOrEqual => actual <= wanted,
            Self::Greater => actual > wanted,
            Self::GreaterOrEqual => actual >= wanted,
        }
    }
}

/// A number taken from a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePart {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base64 {
    Whole,
    Offset,
}

/// The modifiers of one item, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modifiers {
    pub kind: Kind,
    pub position: Position,
    pub all: bool,
    pub cased: bool,
    pub negated: bool,
    pub expand: bool,
    pub any_dash: bool,
    pub utf16: Option<Utf16>,
    pub base64: Option<Base64>,
    pub part: Option<TimePart>,
}

impl Modifiers {
    pub const PLAIN: Self = Self {
        kind: Kind::Text,
        position: Position::Whole,
        all: false,
        cased: false,
        negated: false,
        expand: false,
        any_dash: false,
        utf16: None,
        base64: None,
        part: None,
    };

    /// The name of the modifier that decides what a value has to be; for messages.
    pub const fn name(&self) -> &'static str {
        match (self.kind, self.base64, self.position) {
            (Kind::Regex { .. }, ..) => "re",
            (Kind::Network, ..) => "cidr",
            (Kind::Exists, ..) => "exists",
            (Kind::FieldRef, ..) => "fieldref",
            (Kind::Element, ..) => "any",
            (Kind::Compare(Relation::Less), ..) => "lt",
            (Kind::Compare(Relation::LessOrEqual), ..) => "lte",
            (Kind::Compare(Relation::Greater), ..) => "gt",
            (Kind::Compare(Relation::GreaterOrEqual), ..) => "gte",
            (Kind::Text, Some(Base64::Whole), _) => "base64",
            (Kind::Text, Some(Base64::Offset), _) => "base64offset",
            (Kind::Text, None, _) if self.any_dash => "windash",
            (Kind::Text, None, Position::Contains) => "contains",
            (Kind::Text, None, Position::StartsWith) => "startswith",
            (Kind::Text, None, Position::EndsWith) => "endswith",
            (Kind::Text, None, Position::Whole) => match self.part {
                Some(part) => part.name(),
                None if self.negated => "neq",
                None => "cased",
            },
        }
    }
}

impl TimePart {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// Every modifier there is, for did-you-mean.
pub const NAMES: [&str; 32] = [
    "contains",
    "startswith",
    "endswith",
    "all",
    "any",
    "cased",
    "exists",
    "neq",
    "windash",
    "re",
    "i",
    "m",
    "s",
    "base64",
    "base64offset",
    "utf16",
    "utf16le",
    "utf16be",
    "wide",
    "cidr",
    "lt",
    "lte",
    "gt",
    "gte",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "year",
    "fieldref",
    "expand",
];

/// Splits `field|a|b` into the field's name and its modifiers. Every fault is reported.
pub fn parse_key(key: &str, faults: &mut Vec<Fault>) -> (String, Modifiers) {
    let mut parts = key.split('|');
    let field = parts.next().unwrap_or_default().trim();
    let mut reader = Reader { m: Modifiers::PLAIN, seen: Vec::new(), kind_name: None, faults };
    for name in parts {
        reader.read(name.trim());
    }
    reader.check();
    (field.to_owned(), reader.m)
}

struct Reader<'f> {
    m: Modifiers,
    seen: Vec<&'static str>,
    /// The modifier that chose the kind.
    kind_name: Option<&'static str>,
    faults: &'f mut Vec<Fault>,
}

impl Reader<'_> {
    fn read(&mut self, name: &str) {
        let Some(&name) = NAMES.iter().find(|n| **n == name) else {
            let hint = Hint::nearest(name, NAMES.into_iter().filter(|n| n.len() > 1));
            self.faults.push(Fault::UnknownModifier { name: name.to_owned(), hint });
            return;
        };
        if self.seen.contains(&name) {
            self.faults.push(Fault::RepeatedModifier(name));
            return;
        }
        self.seen.push(name);
        match name {
            "contains" => self.position(name, Position::Contains),
            "startswith" => self.position(name, Position::StartsWith),
            "endswith" => self.position(name, Position::EndsWith),
            "all" => self.m.all = true,
            "cased" => self.m.cased = true,
            "neq" => self.m.negated = true,
            "expand" => self.m.expand = true,
            "windash" => self.m.any_dash = true,
            "re" => self.kind(name, Kind::Regex { ignore_case: false, multi_line: false, dot_all: false }),
            "i" | "m" | "s" => self.flag(name),
            "cidr" => self.kind(name, Kind::Network),
            "exists" => self.kind(name, Kind::Exists),
            "fieldref" => self.kind(name, Kind::FieldRef),
            "any" => self.kind(name, Kind::Element),
            "lt" => self.kind(name, Kind::Compare(Relation::Less)),
            "lte" => self.kind(name, Kind::Compare(Relation::LessOrEqual)),
            "gt" => self.kind(name, Kind::Compare(Relation::Greater)),
            "gte" => self.kind(name, Kind::Compare(Relation::GreaterOrEqual)),
            "utf16" => self.utf16(name, Utf16::Marked),
            "utf16le" | "wide" => self.utf16(name, Utf16::Little),
            "utf16be" => self.utf16(name, Utf16::Big),
            "base64" => self.base64(name, Base64::Whole),
            "base64offset" => self.base64(name, Base64::Offset),
            _ => self.part(name),
        }
    }

    fn conflict(&mut self, one: &'static str, other: &'static str) {
        self.faults.push(Fault::Conflict { one, other });
    }

    /// The first of `names` that was given before.
    fn given(&self, names: &[&str]) -> Option<&'static str> {
        self.seen.iter().copied().find(|s| names.contains(s))
    }

    fn position(&mut self, name: &'static str, position: Position) {
        if self.m.position != Position::Whole {
            let other = self.given(&["contains", "startswith", "endswith"]).unwrap_or(name);
            self.conflict(other, name);
        }
        self.m.position = position;
    }

    fn kind(&mut self, name: &'static str, kind: Kind) {
        if let Some(other) = self.kind_name {
            self.conflict(other, name);
        }
        self.kind_name = Some(name);
        self.m.kind = kind;
    }

    fn flag(&mut self, name: &'static str) {
        match (&mut self.m.kind, name) {
            (Kind::Regex { ignore_case, .. }, "i") => *ignore_case = true,
            (Kind::Regex { multi_line, .. }, "m") => *multi_line = true,
            (Kind::Regex { dot_all, .. }, _) => *dot_all = true,
            _ => self.faults.push(Fault::Order { name, after: "re" }),
        }
    }

    fn utf16(&mut self, name: &'static str, form: Utf16) {
        if self.m.utf16.replace(form).is_some() {
            let other = self.given(&["utf16", "utf16le", "utf16be", "wide"]).unwrap_or(name);
            self.conflict(other, name);
        }
        if let Some(other) = self.given(&["base64", "base64offset"]) {
            self.faults.push(Fault::Order { name: other, after: name });
        }
    }

    fn base64(&mut self, name: &'static str, form: Base64) {
        if self.m.base64.replace(form).is_some() {
            self.conflict("base64", "base64offset");
        }
        if let Some(other) = self.given(&["contains", "startswith", "endswith"]) {
            self.faults.push(Fault::Order { name: other, after: name });
        }
    }

    fn part(&mut self, name: &'static str) {
        let part = match name {
            "minute" => TimePart::Minute,
            "hour" => TimePart::Hour,
            "day" => TimePart::Day,
            "week" => TimePart::Week,
            "month" => TimePart::Month,
            _ => TimePart::Year,
        };
        if self.m.part.replace(part).is_some() {
            let other = self.given(&["minute", "hour", "day", "week", "month", "year"]).unwrap_or(name);
            self.conflict(other, name);
        }
    }

    fn check(&mut self) {
        const POSITIONS: &[&str] = &["contains", "startswith", "endswith"];
        const ENCODINGS: &[&str] = &["base64", "base64offset", "utf16", "utf16le", "utf16be", "wide", "windash"];
        const PARTS: &[&str] = &["minute", "hour", "day", "week", "month", "year"];
        let refused: &[&[&str]] = match self.m.kind {
            Kind::Text => &[],
            Kind::Regex { .. } => &[POSITIONS, ENCODINGS, PARTS, &["cased", "expand"]],
            Kind::Network => &[POSITIONS, ENCODINGS, PARTS, &["cased"]],
            Kind::Exists | Kind::Element => &[POSITIONS, ENCODINGS, PARTS, &["all", "cased", "neq", "expand"]],
            Kind::Compare(_) => &[POSITIONS, ENCODINGS, &["all", "cased", "neq", "expand"]],
            Kind::FieldRef => &[ENCODINGS, PARTS, &["all", "expand"]],
        };
        for group in refused {
            if let (Some(other), Some(kind)) = (self.given(group), self.kind_name) {
                self.conflict(kind, other);
            }
        }
        if let (Some(part), Kind::Text) = (self.given(PARTS), self.m.kind) {
            for group in [POSITIONS, ENCODINGS, &["cased", "expand"]] {
                if let Some(other) = self.given(group) {
                    self.conflict(part, other);
                }
            }
        }
        if self.m.any_dash
            && let Some(other) = self.given(&ENCODINGS[..6])
        {
            self.conflict("windash", other);
        }
        if self.m.utf16.is_some() && self.m.base64.is_none() {
            let name = self.given(&["utf16", "utf16le", "utf16be", "wide"]).unwrap_or("wide");
            self.faults.push(Fault::ModifierNeeds { name, needs: "`base64` or `base64offset` after it" });
        }
        if self.m.base64 == Some(Base64::Offset) && self.m.position != Position::Contains {
            self.faults.push(Fault::ModifierNeeds { name: "base64offset", needs: "`contains` after it" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(key: &str) -> Vec<String> {
        let mut faults = Vec::new();
        parse_key(key, &mut faults);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_combinations() {
        for key in [
            "verb",
            "verb|contains",
            "verb|contains|all",
            "verb|all|startswith",
            "verb|cased|endswith",
            "verb|re|i|m|s",
            "x|wide|base64offset|contains",
            "x|utf16|base64",
            "x|windash|contains|all",
            "x|cidr|neq",
            "x|exists",
            "x|any",
            "x|gte",
            "x|hour|gte",
            "x|month",
            "x|fieldref|startswith",
            "x|fieldref|neq|cased",
            "x|expand|contains",
            "x|neq|endswith",
            "x|base64",
        ] {
            assert_eq!(faults(key), Vec::<String>::new(), "{key}");
        }
    }

    #[test]
    fn bad_combinations_are_named() {
        for (key, want) in [
            ("x|contians", "unknown modifier `contians`; did you mean `contains`?"),
            ("x|near", "unknown modifier `near`; did you mean `year`?"),
            ("x|exact", "unknown modifier `exact`"),
            ("x|contains|contains", "modifier `contains` is given twice"),
            ("x|contains|startswith", "modifiers `contains` and `startswith` do not go together"),
            ("x|re|contains", "modifiers `re` and `contains` do not go together"),
            ("x|re|cidr", "modifiers `re` and `cidr` do not go together"),
            ("x|i", "modifier `i` has to come after `re`"),
            ("x|exists|all", "modifiers `exists` and `all` do not go together"),
            ("x|lt|neq", "modifiers `lt` and `neq` do not go together"),
            ("x|gt|lt", "modifiers `gt` and `lt` do not go together"),
            ("x|hour|contains", "modifiers `hour` and `contains` do not go together"),
            ("x|hour|minute", "modifiers `hour` and `minute` do not go together"),
            ("x|wide", "modifier `wide` needs `base64` or `base64offset` after it"),
            ("x|base64offset", "modifier `base64offset` needs `contains` after it"),
            ("x|contains|base64", "modifier `contains` has to come after `base64`"),
            ("x|base64|wide", "modifier `base64` has to come after `wide`"),
            ("x|windash|base64", "modifiers `windash` and `base64` do not go together"),
            ("x|any|all", "modifiers `any` and `all` do not go together"),
            ("x|fieldref|base64", "modifiers `fieldref` and `base64` do not go together"),
        ] {
            assert!(faults(key).contains(&want.to_owned()), "{key}: {:?}", faults(key));
        }
    }
}
