//! A Falco condition: text to a tree. Macros and lists are still names.

/// Conditions nest no deeper.
const MAX_DEPTH: usize = 64;
/// A condition has no more parts.
const MAX_TOKENS: usize = 20_000;

/// A value as written: only a bare word can be the name of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub quoted: bool,
}

impl Word {
    pub fn bare(text: &str) -> Self {
        Self { text: text.to_owned(), quoted: false }
    }
}

/// `ka.verb`, `jevt.value[/stage]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRef {
    pub name: String,
    pub arg: Option<String>,
}

impl std::fmt::Display for FieldRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.arg.as_ref().map_or(Ok(()), |arg| write!(f, "[{arg}]"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    Intersects,
    Pmatch,
    Contains,
    IContains,
    StartsWith,
    EndsWith,
    Glob,
    IGlob,
    Regex,
    Exists,
}

impl Op {
    pub fn read(word: &str) -> Option<Self> {
        Some(match word {
            "=" | "==" => Self::Eq,
            "!=" => Self::Ne,
            "<" => Self::Lt,
            "<=" => Self::Le,
            ">" => Self::Gt,
            ">=" => Self::Ge,
            "in" => Self::In,
            "intersects" => Self::Intersects,
            "pmatch" => Self::Pmatch,
            "contains" => Self::Contains,
            "icontains" => Self::IContains,
            "startswith" => Self::StartsWith,
            "endswith" => Self::EndsWith,
            "glob" => Self::Glob,
            "iglob" => Self::IGlob,
            "regex" => Self::Regex,
            "exists" => Self::Exists,
            _ => return None,
        })
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::In => "in",
            Self::Intersects => "intersects",
            Self::Pmatch => "pmatch",
            Self::Contains => "contains",
            Self::IContains => "icontains",
            Self::StartsWith => "startswith",
            Self::EndsWith => "endswith",
            Self::Glob => "glob",
            Self::IGlob => "iglob",
            Self::Regex => "regex",
            Self::Exists => "exists",
        }
    }

    /// Takes a list in parentheses, or the bare name of one.
    pub const fn takes_list(self) -> bool {
        matches!(self, Self::In | Self::Intersects | Self::Pmatch)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Macro(String),
    Check { field: FieldRef, op: Op, values: Vec<Word> },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFault {
    #[error("the condition is empty")]
    Empty,
    #[error("expected {expected} {found}")]
    Expected { expected: &'static str, found: String },
    #[error("a quote is never closed")]
    Quote,
    #[error("a `[` is never closed")]
    Bracket,
    #[error("operator `{0}` is not supported")]
    Operator(String),
    #[error("`{0}(…)` is not supported")]
    Function(String),
    #[error("it nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("it has more than {MAX_TOKENS} parts")]
    TooLong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Comma,
    /// `=`, `!=`, `<` …
    Sign(String),
    Word(Word),
    Field(FieldRef),
}

impl Token {
    fn bare(&self) -> Option<&str> {
        match self {
            Self::Word(w) if !w.quoted => Some(&w.text),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Open => "(".into(),
            Self::Close => ")".into(),
            Self::Comma => ",".into(),
            Self::Sign(s) => s.clone(),
            Self::Word(w) => w.text.clone(),
            Self::Field(f) => f.to_string(),
        }
    }
}

/// Reads a condition.
pub fn condition(text: &str) -> Result<Node, ParseFault> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Err(ParseFault::Empty);
    }
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let node = parser.or()?;
    if parser.at < tokens.len() { Err(parser.unexpected("`and` or `or`")) } else { Ok(node) }
}

fn tokens(text: &str) -> Result<Vec<Token>, ParseFault> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, len) = match c {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '=' | '!' | '<' | '>' => {
                let len = rest.chars().take(2).take_while(|c| "=!<>".contains(*c)).count();
                let sign = &rest[..len];
                if Op::read(sign).is_none() {
                    return Err(ParseFault::Operator(sign.to_owned()));
                }
                (Token::Sign(sign.to_owned()), len)
            }
            '"' | '\'' => quoted(rest, c)?,
            _ => bare(rest)?,
        };
        out.push(token);
        rest = rest[len..].trim_start();
        if out.len() > MAX_TOKENS {
            return Err(ParseFault::TooLong);
        }
    }
    Ok(out)
}

/// A backslash keeps a quote or a backslash from being one.
fn quoted(text: &str, quote: char) -> Result<(Token, usize), ParseFault> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(|(_, n)| matches!(n, '\\' | '"' | '\'')) => {
                out.extend(chars.next().map(|(_, n)| n));
            }
            c if c == quote => return Ok((Token::Word(Word { text: out, quoted: true }), at + 1)),
            c => out.push(c),
        }
    }
    Err(ParseFault::Quote)
}

/// A bare word, or a field with an argument.
fn bare(text: &str) -> Result<(Token, usize), ParseFault> {
    let stop = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"' | '\'' | '=' | ',');
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let name = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    if text[name..].starts_with('[') && text[..name].contains('.') {
        let close = text[name..].find(']').ok_or(ParseFault::Bracket)?;
        let arg = text[name + 1..name + close].trim().trim_matches(['"', '\'']);
        let field = FieldRef { name: text[..name].to_owned(), arg: Some(arg.to_owned()) };
        return Ok((Token::Field(field), name + close + 1));
    }
    let mut len = text.find(stop).unwrap_or(text.len());
    // `a!=b`, `a<b`: the sign ends a name.
    if let Some(sign) = text[..len].find(['!', '<', '>']).filter(|s| *s == name && *s > 0) {
        len = sign;
    }
    Ok((Token::Word(Word::bare(&text[..len])), len))
}

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn eat(&mut self, word: &str) -> bool {
        let hit = self.peek().and_then(Token::bare) == Some(word);
        self.at += usize::from(hit);
        hit
    }

    fn eat_token(&mut self, token: &Token) -> bool {
        let hit = self.peek() == Some(token);
        self.at += usize::from(hit);
        hit
    }

    fn unexpected(&self, expected: &'static str) -> ParseFault {
        let found = self.peek().map_or_else(|| "at the end".to_owned(), |t| format!("before `{}`", t.shown()));
        ParseFault::Expected { expected, found }
    }

    fn or(&mut self) -> Result<Node, ParseFault> {
        let mut parts = vec![self.and()?];
        while self.eat("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Or(parts) })
    }

    fn and(&mut self) -> Result<Node, ParseFault> {
        let mut parts = vec![self.not()?];
        while self.eat("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::And(parts) })
    }

    fn not(&mut self) -> Result<Node, ParseFault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ParseFault::TooDeep);
        }
        let node = if self.eat("not") {
            Node::Not(Box::new(self.not()?))
        } else if self.eat_token(&Token::Open) {
            let inner = self.or()?;
            if !self.eat_token(&Token::Close) {
                return Err(self.unexpected("`and`, `or` or `)`"));
            }
            inner
        } else {
            self.check()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn check(&mut self) -> Result<Node, ParseFault> {
        let first = match self.peek() {
            Some(Token::Field(field)) => field.clone(),
            Some(Token::Word(w)) if !w.quoted && !matches!(w.text.as_str(), "and" | "or") => {
                FieldRef { name: w.text.clone(), arg: None }
            }
            _ => return Err(self.unexpected("a field or a macro")),
        };
        self.at += 1;
        if self.peek() == Some(&Token::Open) {
            return Err(ParseFault::Function(first.name));
        }
        let op = match self.peek() {
            Some(Token::Sign(sign)) => Op::read(sign),
            Some(t) if t.bare().is_some_and(|w| !matches!(w, "and" | "or")) => {
                let word = t.bare().unwrap_or_default();
                Some(Op::read(word).ok_or_else(|| ParseFault::Operator(word.to_owned()))?)
            }
            _ => None,
        };
        let Some(op) = op else {
            return if first.arg.is_none() && !first.name.contains('.') {
                Ok(Node::Macro(first.name))
            } else {
                Err(self.unexpected("an operator"))
            };
        };
        self.at += 1;
        let values = match op {
            Op::Exists => Vec::new(),
            op if op.takes_list() => self.list()?,
            _ => vec![self.value()?],
        };
        Ok(Node::Check { field: first, op, values })
    }

    fn value(&mut self) -> Result<Word, ParseFault> {
        let word = match self.peek() {
            Some(Token::Word(w)) => w.clone(),
            // `[` in a value, as in `a[b]`, reads like a field.
            Some(Token::Field(f)) => Word::bare(&f.to_string()),
            _ => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        Ok(word)
    }

    fn list(&mut self) -> Result<Vec<Word>, ParseFault> {
        if !self.eat_token(&Token::Open) {
            return Ok(vec![self.value()?]);
        }
        let mut values = Vec::new();
        while !self.eat_token(&Token::Close) {
            if !values.is_empty() && !self.eat_token(&Token::Comma) {
                return Err(self.unexpected("`,` or `)`"));
            }
            values.push(self.value()?);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field: &str, op: Op, values: &[&str]) -> Node {
        let field = FieldRef { name: field.to_owned(), arg: None };
        Node::Check { field, op, values: values.iter().map(|v| Word::bare(v)).collect() }
    }

    #[test]
    fn not_binds_before_and_before_or() {
        let want = Node::Or(vec![
            Node::And(vec![Node::Not(Box::new(Node::Macro("a".into()))), Node::Macro("b".into())]),
            Node::Macro("c".into()),
        ]);
        assert_eq!(condition("not a and b or c"), Ok(want));
        assert_eq!(condition("not (not a)"), condition("not not a"));
    }

    #[test]
    fn operators_need_no_blanks() {
        assert_eq!(condition("ka.verb=get"), Ok(check("ka.verb", Op::Eq, &["get"])));
        assert_eq!(condition("ka.ns!=kube-system"), Ok(check("ka.ns", Op::Ne, &["kube-system"])));
        assert_eq!(condition("ka.response.code>=400"), Ok(check("ka.response.code", Op::Ge, &["400"])));
        assert_eq!(condition("ka.verb in(create,\n update )"), Ok(check("ka.verb", Op::In, &["create", "update"])));
        assert_eq!(condition("ka.name in ()"), Ok(check("ka.name", Op::In, &[])));
        assert_eq!(condition("ka.name in names"), Ok(check("ka.name", Op::In, &["names"])));
    }

    #[test]
    fn values_hold_what_a_shell_would_not() {
        assert_eq!(condition("ka.uri startswith /healthz?"), Ok(check("ka.uri", Op::StartsWith, &["/healthz?"])));
        assert_eq!(condition("ka.name=system:coredns"), Ok(check("ka.name", Op::Eq, &["system:coredns"])));
        let Ok(Node::Check { values, .. }) = condition(r#"ka.uri contains "a \"b\" (c)""#) else { panic!() };
        assert_eq!(values, [Word { text: r#"a "b" (c)"#.into(), quoted: true }]);
    }

    #[test]
    fn arguments_of_fields() {
        let Ok(Node::Check { field, op, .. }) = condition("jevt.value[/annotations/a.b~1c] exists") else { panic!() };
        assert_eq!((field.to_string().as_str(), op), ("jevt.value[/annotations/a.b~1c]", Op::Exists));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, want) in [
            ("", "the condition is empty"),
            ("a and", "expected a field or a macro at the end"),
            ("(a or b", "expected `and`, `or` or `)` at the end"),
            ("a b", "operator `b` is not supported"),
            ("ka.verb", "expected an operator at the end"),
            ("tolower(ka.verb) = x", "`tolower(…)` is not supported"),
            ("ka.verb = \"x", "a quote is never closed"),
            ("jevt.value[/x exists", "a `[` is never closed"),
            ("ka.verb bcontains 00", "operator `bcontains` is not supported"),
        ] {
            assert_eq!(condition(text).unwrap_err().to_string(), want, "{text}");
        }
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        assert_eq!(condition(&deep), Err(ParseFault::TooDeep));
    }
}
