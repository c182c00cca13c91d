//! What a rule sees of an event: the values of its fields, three-valued.
//!
//! The implementation lives with the facts; rules know this trait alone.

use crate::field::Field;
use crate::tree::Tree;

/// One scalar a rule compares with. Borrowed from the event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    Str(&'a str),
    Int(i64),
    Float(f64),
    Bool(bool),
    Null,
}

/// Why a field could not be read from this event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// The audit policy did not ask for the body.
    LevelTooLow,
    /// The API server cut the body off.
    Truncated,
    /// The body is there, but not in a form we can read.
    Unreadable,
    /// This kind of request does not carry what the field is derived from.
    NotCarried,
}

impl Unknown {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LevelTooLow => "the audit level is too low",
            Self::Truncated => "the event is truncated",
            Self::Unreadable => "the body is unreadable",
            Self::NotCarried => "the event does not carry it",
        }
    }
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The values of a field. Absent = the event could carry it and does not.
#[derive(Clone, Debug, PartialEq)]
pub enum Values<'a> {
    Absent,
    Unknown(Unknown),
    One(Scalar<'a>),
    Many(Vec<Scalar<'a>>),
}

/// The elements of a list-of-objects field.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements<'a> {
    Absent,
    Unknown(Unknown),
    Items(Vec<&'a Tree<'a>>),
}

/// An event as rules see it.
pub trait View {
    fn values(&self, field: &Field) -> Values<'_>;
    fn elements(&self, field: &Field) -> Elements<'_>;
    /// The raw event, for keyword search.
    fn all_text(&self) -> &str;
}
