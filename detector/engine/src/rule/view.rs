//! What a rule sees of an event.

use crate::field::Field;

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
    /// The audit policy logs this request without the body.
    LevelTooLow,
    /// The API server removed the bodies because they were too large.
    Truncated,
    /// The body is there and cannot be read.
    Unreadable,
    /// This form of the request does not carry the field.
    NotCarried,
}

/// The values of a field. Absent = the event could carry it and does not.
#[derive(Clone, Debug, PartialEq)]
pub enum Values<'a> {
    Absent,
    Unknown(Unknown),
    One(Scalar<'a>),
    Many(Vec<Scalar<'a>>),
}

/// The elements of a list of objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements<'a> {
    Absent,
    Unknown(Unknown),
    Items(Vec<&'a serde_json::Value>),
}

/// An event as rules read it.
pub trait View {
    fn values(&self, field: &Field) -> Values<'_>;
    fn elements(&self, field: &Field) -> Elements<'_>;
    /// The whole event as text, for keyword search.
    fn all_text(&self) -> &str;
}

impl Unknown {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LevelTooLow => "the audit policy does not log this body",
            Self::Truncated => "the API server removed the body because it was too large",
            Self::Unreadable => "the body cannot be read",
            Self::NotCarried => "this form of the request does not carry it",
        }
    }
}
