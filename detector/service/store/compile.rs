//! From a parsed query to a tantivy query.

use std::ops::Bound;

use tantivy::Term;
use tantivy::query::{AllQuery, BooleanQuery, EmptyQuery, Occur, Query as Tantivy, RangeQuery, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::tokenizer::TokenStream;

use super::field::Id;
use super::query::Query;
use super::schema::{Fields, words};

/// `query` against the fields of the index. Depth and size are bounded by the parser.
pub(super) fn compile(query: &Query, f: &Fields) -> Box<dyn Tantivy> {
    match query {
        Query::All => Box::new(AllQuery),
        Query::And(all) => {
            let only_negations = all.iter().all(|q| matches!(q, Query::Not(_)));
            let rest = only_negations.then(everything);
            Box::new(BooleanQuery::new(all.iter().map(|q| must(q, f)).chain(rest).collect()))
        }
        Query::Not(q) => Box::new(BooleanQuery::new(vec![everything(), (Occur::MustNot, compile(q, f))])),
        Query::Or(any) => Box::new(BooleanQuery::new(any.iter().map(|q| (Occur::Should, compile(q, f))).collect())),
        // Audit ids have a column but no postings.
        Query::Is(Id::Audit, id) => {
            let term = Term::from_field_text(f.audit_id, id);
            Box::new(RangeQuery::new(Bound::Included(term.clone()), Bound::Included(term)))
        }
        Query::Is(id, value) => term(field_of(*id, f), value),
        Query::StartsWith(id, prefix) => starts_with(field_of(*id, f), prefix),
        Query::Levels(levels) => any_of(levels.iter().map(|l| term(f.level, l.as_str()))),
        Query::Code(codes) => {
            let bound = |c: &u64| Bound::Included(Term::from_field_u64(f.code, *c));
            range_unless(codes.is_empty(), bound(codes.start()), bound(codes.end()))
        }
        Query::Address(ips) => {
            let bound = |ip: &std::net::Ipv6Addr| Bound::Included(Term::from_field_ip_addr(f.ip, *ip));
            range_unless(ips.is_empty(), bound(ips.start()), bound(ips.end()))
        }
        Query::Since(t) => {
            Box::new(RangeQuery::new(Bound::Included(Term::from_field_i64(f.time, *t)), Bound::Unbounded))
        }
        Query::Until(t) => {
            Box::new(RangeQuery::new(Bound::Unbounded, Bound::Included(Term::from_field_i64(f.time, *t))))
        }
        Query::At(at) => {
            let bound = |field, n| Bound::Included(Term::from_field_u64(field, n));
            let equal = |field, n| Box::new(RangeQuery::new(bound(field, n), bound(field, n))) as Box<dyn Tantivy>;
            Box::new(BooleanQuery::new(vec![
                (Occur::Must, equal(f.lsn, at.lsn)),
                (Occur::Must, equal(f.item, u64::from(at.index))),
                (Occur::MustNot, term(f.kind, "alert")),
            ]))
        }
        Query::Text { words, prefix } => text(words, *prefix, f),
    }
}

fn must(q: &Query, f: &Fields) -> (Occur, Box<dyn Tantivy>) {
    match q {
        Query::Not(inner) => (Occur::MustNot, compile(inner, f)),
        q => (Occur::Must, compile(q, f)),
    }
}

/// A boolean query of negations alone finds nothing in tantivy; with this it finds the rest.
fn everything() -> (Occur, Box<dyn Tantivy>) {
    (Occur::Must, Box::new(AllQuery))
}

fn term(field: Field, value: &str) -> Box<dyn Tantivy> {
    Box::new(TermQuery::new(Term::from_field_text(field, value), IndexRecordOption::Basic))
}

fn any_of(queries: impl Iterator<Item = Box<dyn Tantivy>>) -> Box<dyn Tantivy> {
    Box::new(BooleanQuery::new(queries.map(|q| (Occur::Should, q)).collect()))
}

fn range_unless(empty: bool, from: Bound<Term>, to: Bound<Term>) -> Box<dyn Tantivy> {
    if empty { Box::new(EmptyQuery) } else { Box::new(RangeQuery::new(from, to)) }
}

/// Every value from `prefix` up to the first one that no longer starts with it.
fn starts_with(field: Field, prefix: &str) -> Box<dyn Tantivy> {
    let end = match after(prefix) {
        Some(end) => Bound::Excluded(Term::from_field_text(field, &end)),
        None => Bound::Unbounded,
    };
    Box::new(RangeQuery::new(Bound::Included(Term::from_field_text(field, prefix)), end))
}

/// The smallest text greater than every text that starts with `prefix`; `None` when there is none.
fn after(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

fn text(text: &str, prefix: bool, f: &Fields) -> Box<dyn Tantivy> {
    let mut tokens = Vec::new();
    let mut analyzer = words();
    analyzer.token_stream(text).process(&mut |t| tokens.push(t.text.clone()));
    let last = tokens.len().saturating_sub(1);
    if tokens.is_empty() {
        return Box::new(EmptyQuery);
    }
    let all = tokens.iter().enumerate().map(|(i, token)| {
        let query = if prefix && i == last { starts_with(f.text, token) } else { term(f.text, token) };
        (Occur::Must, query)
    });
    Box::new(BooleanQuery::new(all.collect()))
}

fn field_of(id: Id, f: &Fields) -> Field {
    match id {
        Id::Actor => f.actor,
        Id::ActorKind => f.actor_kind,
        Id::ActingAs => f.acting_as,
        Id::Verb => f.verb,
        Id::Action => f.action,
        Id::Resource => f.resource,
        Id::Subresource => f.subresource,
        Id::Namespace => f.namespace,
        Id::Name => f.name,
        Id::Outcome => f.outcome,
        Id::Client => f.client,
        Id::Rule => f.rule,
        Id::Kind => f.kind,
        Id::Cluster => f.cluster,
        Id::Audit => f.audit_id,
        Id::Alert => f.alert_id,
    }
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn after_is_just_above_the_prefix() {
        assert_eq!(after("exec").as_deref(), Some("exed"));
        assert_eq!(after("\u{10ffff}"), None);
        assert_eq!(after("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(after(""), None);
    }
}
