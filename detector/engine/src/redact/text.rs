//! Credentials that show by their shape or by the name in front of them, in plain text.
//!
//! Every pattern is linear in the text. A match is replaced as narrowly as possible: the name, the
//! scheme, the quotes and the program around a credential stay readable.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use memchr::memchr2;
use regex::{Captures, Regex};

use super::{marker, name};

/// The group `gone` is the credential, perhaps quoted.
struct Pattern {
    regex: Regex,
    accept: Accept,
    /// What the text must hold besides.
    mark: Mark,
}

/// A name alone gives nothing away: what has to stand behind it somewhere.
#[derive(Clone, Copy)]
enum Mark {
    None,
    Equals,
    ColonAndBlank,
    Colon,
    Blank,
}

impl Mark {
    fn is_in(self, text: &str) -> bool {
        let any = |a, b| memchr2(a, b, text.as_bytes()).is_some();
        // Beyond ASCII there are more blanks than worth telling apart.
        let blank = || text.bytes().any(|b| b <= b' ' || b >= 0x80);
        match self {
            Self::None => true,
            Self::Equals => any(b'=', b'%'),
            Self::ColonAndBlank => any(b':', b':') && blank(),
            Self::Colon => any(b':', b':'),
            Self::Blank => blank(),
        }
    }
}

/// Of a value: is this one really a credential?
type Accept = fn(&str) -> bool;

/// What a credential is called; what stands before does not matter.
const NAME: &str = r"(?i-u:passw(?:or)?d|passphrase|pass|pwd|secrets?|token|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|account[_-]?key|encryption[_-]?key|key[_-]data|_auth|credentials?)[0-9]*";

const NAME_NEEDS: [&str; 10] =
    ["passw", "pass", "pwd", "secret", "token", "key", "_auth", "credential", "key-data", "key_data"];

/// Each with the letters without which it cannot match, in any case.
fn patterns() -> Vec<(Pattern, &'static [&'static str])> {
    // A quoted value with its quotes (also escaped ones, also without an end), or a bare word.
    // The colon of YAML and JSON needs a blank or a quote behind it: `serviceaccount:token:x` is a name.
    let quoted = r#""(?:[^"\\]|\\.)*(?:"|\\?\z)|'[^']*(?:'|\z)|\\+"[^"]*(?:"|\z)"#;
    let value = format!(r#"{quoted}|[^\s"'&,;\\{{\[|>(<][^\s"'&,;\\]*"#);
    let any: Accept = |_| true;
    let table: [(String, Accept, &'static [&'static str], Mark); 14] = [
        // PEM private keys, and base64 of them (a base64 text starts at its first byte, so prefixes are fixed).
        (r"(?<gone>-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z))".into(), any, &["private key"], Mark::None),
        (r"(?<gone>LS0tLS1CRUdJTi(?:BQUklW|BSU0EgUFJ|BFQyBQ|BPUEVOU1NI|BFTkNSWVBU|BEU0EgUFJ)[A-Za-z0-9+/=_-]*)".into(), any, &["ls0tls1crudjti"], Mark::None),
        (r"(?<gone>eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?)".into(), any, &["eyj"], Mark::None),
        (r#"(?:(?i-u:authorization)\\*["']?\s*[:=]\s*\\*["']?(?:[A-Za-z]+\s+)?)(?<gone>[^\s"'\\,;&]+)"#.into(), any, &["authorization"], Mark::None),
        (r"(?-u:\b)(?i-u:bearer|basic)\s+(?<gone>[A-Za-z0-9._~+/=-]{8,})".into(), |value| {
            value.len() >= 24 || value.bytes().any(|b| b.is_ascii_digit() || b == b'=')
        }, &["bearer", "basic"], Mark::None),
        (r"(?-u:\b)(?<gone>(?:AKIA|ASIA)[0-9A-Z]{16})(?-u:\b)".into(), any, &["akia", "asia"], Mark::None),
        (r"(?-u:\b)(?<gone>gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[a-z]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|[rs]k_live_[A-Za-z0-9]{16,}|hvs\.[A-Za-z0-9_-]{20,})".into(), any, &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "aiza", "k_live_", "hvs."], Mark::None),
        (r"hooks\.slack\.com/services/(?<gone>[A-Za-z0-9/]{8,})".into(), any, &["hooks.slack.com"], Mark::None),
        (r#"://[^\s/:@"'\\<>]*:(?<gone>[^\s/@"'\\<>]+)@"#.into(), any, &["://"], Mark::None),
        (format!(r#"{NAME}\\*["']?\s*(?:=|%3[Dd])\s*(?<gone>{value})"#), named, &NAME_NEEDS, Mark::Equals),
        (format!(r#"{NAME}\\*["']?\s*:\s+(?<gone>{value})"#), named, &NAME_NEEDS, Mark::ColonAndBlank),
        (format!(r#"{NAME}\\*["']?\s*:(?<gone>{quoted})"#), named, &NAME_NEEDS, Mark::Colon),
        (format!(r#"(?:^|\s)--?[A-Za-z0-9_-]{{0,40}}?{NAME}\s+(?<gone>{value})"#), |v| !v.starts_with('-') && named(v), &NAME_NEEDS, Mark::Blank),
        (r#"(?-u:\b)(?:(?:mysql|mariadb)[A-Za-z0-9_-]*(?-u:\b)[^|;&\n]*?\s-p|sshpass\s+-p\s*|redis-cli(?-u:\b)[^|;&\n]*?\s-a\s+|curl(?-u:\b)[^|;&\n]*?\s(?:-u|--user)[ =]["']?[^\s:"']+:)(?<gone>[^\s"'\\]+)"#.into(), any, &["mysql", "mariadb", "sshpass", "redis-cli", "curl"], Mark::None),
    ];
    table
        .into_iter()
        .map(|(regex, accept, needs, mark)| {
            (Pattern { regex: Regex::new(&regex).expect("the patterns are fixed"), accept, mark }, needs)
        })
        .collect()
}

/// The patterns, and one search that says which of them a text can match at all.
struct Patterns {
    all: Vec<Pattern>,
    needs: AhoCorasick,
    /// Of each needle, its pattern.
    owner: Vec<usize>,
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let (mut all, mut needles, mut owner) = (Vec::new(), Vec::<&str>::new(), Vec::new());
    for (index, (pattern, needs)) in patterns().into_iter().enumerate() {
        all.push(pattern);
        needles.extend(needs);
        owner.extend(needs.iter().map(|_| index));
    }
    let needs = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(aho_corasick::AhoCorasickKind::DFA))
        .build(needles)
        .expect("the needles are fixed");
    Patterns { all, needs, owner }
});

impl Patterns {
    /// A bit for each pattern that could match.
    fn possible(&self, text: &str) -> u32 {
        self.needs.find_overlapping_iter(text).fold(0, |bits, found| bits | 1 << self.owner[found.pattern().as_usize()])
    }
}

/// A value behind a credential's name, unless it plainly is none.
fn named(value: &str) -> bool {
    !matches!(value, "true" | "false" | "null" | "none")
}

/// `None` when there is nothing to redact.
pub(super) fn redact(text: &str) -> Option<String> {
    let mut now = Cow::Borrowed(text);
    // A replacement can bring two halves together; a second look makes the result a fixed point.
    for _ in 0..4 {
        match pass(&now) {
            Some(next) => now = Cow::Owned(next),
            None => break,
        }
    }
    match now {
        Cow::Borrowed(_) => None,
        Cow::Owned(changed) => Some(changed),
    }
}

fn pass(text: &str) -> Option<String> {
    let mut now = Cow::Borrowed(text);
    let mut changed = false;
    let possible = PATTERNS.possible(text);
    for (_, pattern) in
        PATTERNS.all.iter().enumerate().filter(|(index, p)| possible >> index & 1 == 1 && p.mark.is_in(text))
    {
        let replaced = pattern.regex.replace_all(&now, |found: &Captures<'_>| match replacement(pattern, found) {
            Some(text) => {
                changed = true;
                text
            }
            None => found[0].to_owned(),
        });
        if let Cow::Owned(next) = replaced {
            now = Cow::Owned(next);
        }
    }
    changed.then(|| now.into_owned())
}

fn replacement(pattern: &Pattern, found: &Captures<'_>) -> Option<String> {
    let gone = found.name("gone")?.as_str();
    let value = gone.trim_start_matches('\\');
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let inner = match quote {
        Some(q) => value[1..].trim_end_matches(q).trim_end_matches('\\'),
        None => value,
    };
    if inner.is_empty() || inner.starts_with("<redacted") || !(pattern.accept)(inner) {
        return None;
    }
    let from = found.get(0)?;
    let start = gone.find(inner)?;
    let whole = from.as_str();
    let offset = found.name("gone")?.start() - from.start() + start;
    Some(format!("{}{}{}", &whole[..offset], marker(inner.len()), &whole[offset + inner.len()..]))
}

/// For JSON that cannot be read: what stands in an object under `data` or `stringData`, and every
/// pattern, on the raw text.
pub(super) fn redact_damaged(raw: &str) -> Option<String> {
    static DATA: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(?s)\\*"(?:data|stringData)\\*"\s*:\s*\{[^}]*"#).expect("the pattern is fixed"));
    static VALUE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(\\*"\s*:\s*\\*")([^"\\<]+|<[^"\\]*)"#).expect("the pattern is fixed"));
    let mut changed = false;
    let data = DATA.replace_all(raw, |object: &Captures<'_>| {
        VALUE
            .replace_all(&object[0], |value: &Captures<'_>| {
                if super::is_marker(&value[2]) {
                    return value[0].to_owned();
                }
                changed = true;
                format!("{}{}", &value[1], marker(value[2].len()))
            })
            .into_owned()
    });
    match redact(&data) {
        Some(text) => Some(text),
        None => changed.then(|| data.into_owned()),
    }
}

/// Whether a command line names a program that takes its password in a way of its own.
pub(super) fn names_program(line: &str) -> bool {
    ["curl ", "mysql", "mariadb", "sshpass ", "redis-cli "].iter().any(|program| line.contains(program))
}

/// One argument of a command: `mysql -psecret`, `--password secret`. `program` is its first word, `before` the one before.
pub(super) fn argument(program: &str, before: Option<&str>, argument: &str) -> Option<String> {
    if super::is_marker(argument) || argument.is_empty() {
        return None;
    }
    behind_flag(program, before, argument).or_else(|| redact(argument))
}

/// An argument that is a credential by its place. Where only arguments are known, `program` is the first of them.
pub(super) fn behind_flag(program: &str, before: Option<&str>, argument: &str) -> Option<String> {
    let program = program.rsplit('/').next().unwrap_or(program);
    let follows = before.is_some_and(|flag| {
        (name::is_credential_flag(flag) && !argument.starts_with('-'))
            || (program == "sshpass" && flag == "-p")
            || (program == "redis-cli" && flag == "-a")
    });
    if follows {
        return Some(marker(argument.len()));
    }
    if (program == "curl" || program.starts_with('-'))
        && matches!(before, Some("-u" | "--user"))
        && let Some((user, password)) = argument.split_once(':')
    {
        // Numbers are the user and group of other programs.
        let is_group = program != "curl" && password.bytes().all(|b| b.is_ascii_digit());
        return (!super::is_marker(password) && !password.is_empty() && !is_group)
            .then(|| format!("{user}:{}", marker(password.len())));
    }
    let glued =
        if program.starts_with("mysql") || program.starts_with("mariadb") { argument.strip_prefix("-p") } else { None };
    let password = glued.filter(|p| !p.is_empty() && !super::is_marker(p))?;
    Some(format!("-p{}", marker(password.len())))
}
