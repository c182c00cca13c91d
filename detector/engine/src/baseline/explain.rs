//! Why something is unusual, in words a tired person understands and as data.

use super::Dimension;
use super::burst::Rise;
use super::observation::Observation;
use super::principal::Principal;
use super::score::{Term, mode, outcome, table_text};
use super::vocabulary::Vocabulary;
use crate::alert::Reason;

/// Usual values named beside an unusual one.
const SHOWN: usize = 3;
/// In a reason's text, between what is unusual and what is usual instead.
pub(crate) const USUAL: &str = "; usual: ";

/// Context and value of a term.
pub(super) fn place<'o>(o: &'o Observation, term: &Term) -> (&'o str, &'o str) {
    match term.dimension {
        Dimension::Action => ("", o.action_text()),
        Dimension::Namespace => (mode(o), o.namespace()),
        Dimension::Object => (o.object_kind(), o.object_text()),
        Dimension::Client => ("", o.client()),
        Dimension::ClientVersion => (o.client(), o.version()),
        Dimension::Network => ("", o.network()),
        Dimension::Subnet => (o.network(), o.subnet()),
        Dimension::Outcome => ("", outcome(o)),
        Dimension::Time => ("", super::observation::SLOTS[o.slot() as usize]),
        Dimension::Content => (o.resource(), o.tokens().nth(term.token).unwrap_or_default()),
        Dimension::Principal | Dimension::Burst | Dimension::Rule => ("", o.principal()),
    }
}

/// `secrets` of `list secrets`, as words: what the principal did.
fn did(dimension: Dimension, context: &str, value: &str) -> String {
    match dimension {
        Dimension::Action => format!("did `{value}`"),
        Dimension::Namespace if context == "r" => format!("read in namespace {value}"),
        Dimension::Namespace => format!("wrote in namespace {value}"),
        Dimension::Object => format!("touched {context} {}", value.trim_end_matches('/')),
        Dimension::Client => format!("used {value}"),
        Dimension::ClientVersion => format!("used {context} {value}"),
        Dimension::Network | Dimension::Subnet => format!("came from {value}"),
        Dimension::Outcome => format!("was {value}"),
        Dimension::Time => format!("was active on {value}"),
        Dimension::Content => format!("wrote {context} with `{value}`"),
        Dimension::Principal | Dimension::Burst | Dimension::Rule => value.to_owned(),
    }
}

/// What the request did, as far as this term is about it.
pub(super) fn deed(o: &Observation, term: &Term) -> String {
    let (context, value) = place(o, term);
    did(term.dimension, context, value)
}

/// The reason a term is.
pub(super) fn reason(o: &Observation, term: &Term, p: &Principal, hour: u32, words: &Vocabulary) -> Reason {
    let (context, value) = place(o, term);
    let mut table = String::new();
    table_text(&mut table, term.dimension, context);
    let usual: Vec<String> = p
        .usual(words.find(&table), hour)
        .into_iter()
        .map(|(id, share)| (words.text(id).rsplit('\u{1f}').next().unwrap_or_default(), share))
        .filter(|(text, _)| *text != value)
        .take(SHOWN)
        .map(|(text, share)| format!("{text} ({:.0} %)", share * 100.0))
        .collect();
    let (seen, of) = (round(term.own.count), round(term.own.total));
    let history = match (of, seen) {
        _ if term.dimension == Dimension::Principal => {
            format!("{} was never seen before; new identities of class {} are rare", o.principal(), o.class.as_str())
        }
        (0.0, _) => format!("{}; nothing like it is known of this identity yet", did(term.dimension, context, value)),
        (_, 0.0) => format!("never before {}", did(term.dimension, context, value)),
        _ => format!("seldom before {} ({seen} of {of})", did(term.dimension, context, value)),
    };
    let peers = match term.peers.0 {
        _ if term.dimension == Dimension::Principal => String::new(),
        0 => format!("; no other {} does", o.class.as_str()),
        n => format!("; {n} of class {} do", o.class.as_str()),
    };
    let instead = if usual.is_empty() { String::new() } else { format!("{USUAL}{}", usual.join(", ")) };
    Reason {
        dimension: term.dimension.as_str().to_owned(),
        context: context.to_owned(),
        value: value.to_owned(),
        bits: round(term.bits),
        probability: Some(term.p),
        seen,
        of,
        peers: term.peers.0,
        text: format!("{history}{peers}{instead}"),
        usual,
    }
}

/// The reason a burst is.
pub(super) fn burst(rise: &Rise) -> Reason {
    let what = rise.channel.as_str();
    Reason {
        dimension: Dimension::Burst.as_str().to_owned(),
        context: String::new(),
        value: what.to_owned(),
        bits: round(rise.bits),
        probability: None,
        seen: 0.0,
        of: 0.0,
        peers: 0,
        usual: vec![format!("{:.1} an hour", rise.usual)],
        text: format!("{} {what} within an hour{USUAL}{:.1}", rise.count, rise.usual),
    }
}

pub(super) fn round(x: f32) -> f32 {
    (x * 10.0).round() / 10.0
}
