//! How surprising one request is: a robust likelihood ratio of "attacker" to "this principal", in bits.
//!
//! Each dimension compares what attackers do, q, with what this principal is predicted to do, P:
//! `log2((1-π) + π·min(q/P, 10⁴))`, where π is how often an attacker deviates there at all. P backs off from the
//! principal's own counts to its peers' and its class's (Witten-Bell), so one with many habits makes its own
//! novelty cheap, and what peers do costs little.

use super::members::Members;
use super::observation::{Class, Observation, is_power};
use super::principal::{Own, Principal};
use super::prior;
use super::vocabulary::{Id, Vocabulary};
use super::{Dimension, Fleet};

/// Smallest probability believed.
const P_MIN: f32 = 1e-5;
/// Largest likelihood ratio believed, about 13 bits.
const RATIO_MAX: f32 = 1e4;
/// An upgrade of a known client, another subnet of a known network, an object the node authorizer lets a node
/// have because a pod there needs it: never rarer than this.
const P_REFINED: f32 = 0.05;
/// Probability of an outcome or a time of day, at least.
const P_COARSE: f32 = 2e-3;
/// Chance that the requests under a stolen credential are the owner's own all the same: no request weighs less than -1 bit.
const SHARED: f32 = 0.5;

/// One dimension of one observation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    pub dimension: Dimension,
    pub bits: f32,
    /// Predicted probability.
    pub p: f32,
    pub own: Own,
    /// Peers of the class holding the value, and how many values peers hold at all.
    pub peers: (u32, u32),
    /// Which content token, for [`Dimension::Content`].
    pub token: usize,
}

/// Most terms an observation has.
const MAX_TERMS: usize = 10;

/// Most values an observation has a number for.
const MAX_NUMBERS: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Terms {
    list: [Option<Term>; MAX_TERMS],
    len: usize,
    /// Table and value of what the principal has a habit of, as far as it was looked up: learning needs them again.
    numbers: [Option<(Dimension, Id, Id)>; MAX_NUMBERS],
    numbered: usize,
}

impl Terms {
    fn push(&mut self, term: Term) {
        if let Some(slot) = self.list.get_mut(self.len) {
            *slot = Some(term);
            self.len += 1;
        }
    }

    fn weigh(&mut self, mut term: Term, attack: f32, deviates: f32) {
        term.bits = bits(attack, term.p, deviates);
        self.push(term);
    }

    fn number(&mut self, dimension: Dimension, table: Id, value: Id) {
        if let Some(slot) = self.numbers.get_mut(self.numbered) {
            *slot = Some((dimension, table, value));
            self.numbered += 1;
        }
    }

    /// Numbers of the table and the value of a dimension with one value, if the principal has a habit of it.
    pub fn numbers(&self, dimension: Dimension) -> Option<(Id, Id)> {
        let mut known = self.numbers[..self.numbered].iter().flatten();
        known.find(|(d, ..)| *d == dimension).map(|(_, table, value)| (*table, *value))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Term> {
        self.list[..self.len].iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Term> {
        self.list[..self.len].iter_mut().flatten()
    }

    /// Bits of the whole observation.
    pub fn score(&self) -> f32 {
        let sum: f32 = self.iter().map(|t| t.bits).sum();
        ((1.0 - SHARED) + SHARED * sum.min(60.0).exp2()).log2()
    }
}

/// Writes the text of a table, and of a value in it, as the vocabulary knows them.
pub(super) fn table_text(out: &mut String, dimension: Dimension, context: &str) {
    out.clear();
    out.push(dimension.code());
    out.push_str(context);
}

pub(super) fn value_text(out: &mut String, value: &str) {
    out.push('\u{1f}');
    out.push_str(value);
}

/// Everything a prediction rests on.
pub(super) struct Known<'k> {
    pub vocabulary: &'k Vocabulary,
    pub members: &'k Members,
    pub fleet: &'k Fleet,
    pub principal: &'k Principal,
    pub hour: u32,
    pub text: &'k mut String,
}

/// Context of a namespace: reading and writing are different habits.
pub(super) fn mode(o: &Observation) -> &'static str {
    if o.reads { "r" } else { "w" }
}

pub(super) fn outcome(o: &Observation) -> &'static str {
    if o.denied { "refused" } else { "answered" }
}

impl Known<'_> {
    /// P of a value; `symbols`: how many values the dimension can have, 1 for open ones.
    fn predict(
        &mut self,
        terms: &mut Terms,
        dimension: Dimension,
        (context, value): (&str, &str),
        symbols: f32,
    ) -> Term {
        table_text(self.text, dimension, context);
        let table = self.vocabulary.find(self.text);
        value_text(self.text, value);
        let value = self.vocabulary.find(self.text);
        let [class, group] = self.principal.who.peers;
        let holders = self.vocabulary.holders(class, value, self.text);
        let class_held = self.vocabulary.held(class, table);
        let mut p = match class_held {
            None => 0.3 / symbols,
            Some(held) => {
                let (pairs, values) = (held.pairs as f32, held.values as f32);
                if holders > 0 { holders as f32 / (pairs + values) } else { values / (pairs + values) / symbols }
            }
        };
        if group != class
            && let Some(held) = self.vocabulary.held(group, table)
        {
            let holders = self.vocabulary.holders(group, value, self.text) as f32;
            p = (holders + held.values as f32 * p) / (held.pairs as f32 + held.values as f32);
        }
        p = p.max(P_MIN);
        let own = self.principal.own(table, value, self.hour);
        if own.total > 0.0 {
            let values = own.values.max(1) as f32;
            p = ((own.count + values * p) / (own.total + values)).max(P_MIN);
        }
        if let (true, Some(table), Some(value)) = (own.count > 0.0, table, value) {
            terms.number(dimension, table, value);
        }
        let peers = (holders, class_held.map_or(0, |h| h.pairs));
        Term { dimension, bits: 0.0, p, own, peers, token: 0 }
    }

    /// All terms of an observation. `new`: whether the principal is in its first day.
    pub fn terms(&mut self, o: &Observation, cluster: u32, new: bool) -> Terms {
        let mut terms = Terms::default();
        let action = self.predict(&mut terms, Dimension::Action, ("", o.action_text()), prior::ACTIONS);
        terms.weigh(action, prior::attack(o.verb(), o.resource(), o.reads), 0.9);
        let namespace = self.predict(&mut terms, Dimension::Namespace, (mode(o), o.namespace()), 1.0);
        let new_namespace = namespace.own.count <= 0.0;
        terms.weigh(namespace, if new_namespace { 0.3 } else { namespace.p.min(0.3) }, 0.5);
        if o.sensitive {
            let mut object = self.predict(&mut terms, Dimension::Object, (o.object_kind(), o.object_text()), 1.0);
            if o.class == Class::Node && !o.denied {
                object.p = object.p.max(P_REFINED);
            }
            // In a new namespace every object is new: that has been paid for.
            terms.weigh(object, if object.own.count <= 0.0 && !new_namespace { 0.5 } else { object.p }, 0.5);
        }
        let client = self.refined(&mut terms, (Dimension::Client, o.client()), (Dimension::ClientVersion, o.version()));
        terms.weigh(client, if client.own.count <= 0.0 { 0.4 } else { client.p }, 0.5);
        let network = self.refined(&mut terms, (Dimension::Network, o.network()), (Dimension::Subnet, o.subnet()));
        terms.weigh(network, if network.own.count <= 0.0 { 0.4 } else { network.p }, 0.5);
        let mut ended = self.predict(&mut terms, Dimension::Outcome, ("", outcome(o)), 1.0);
        ended.p = ended.p.max(P_COARSE);
        terms.weigh(ended, if o.denied { 0.3 } else { 0.7 }, 0.4);
        if o.class == Class::Human {
            let slot = super::observation::SLOTS[o.slot() as usize];
            let mut slot = self.predict(&mut terms, Dimension::Time, ("", slot), 12.0);
            slot.p = slot.p.max(P_COARSE);
            terms.weigh(slot, 1.0 / 12.0, 0.3);
        }
        if new && let Some(p) = self.members.newcomer(cluster, o.class) {
            let (own, peers) = (Own::default(), (0, 0));
            terms.weigh(Term { dimension: Dimension::Principal, bits: 0.0, p, own, peers, token: 0 }, 0.3, 0.5);
        }
        let mut content: Option<Term> = None;
        for (token, text) in o.tokens().enumerate() {
            let mut term = self.predict(&mut terms, Dimension::Content, (o.resource(), text), 1.0);
            let attack = if is_power(text) { 0.3 } else { 0.1 };
            (term.bits, term.token) = (bits(if term.own.count <= 0.0 { attack } else { term.p }, term.p, 0.5), token);
            content = content.into_iter().chain([term]).max_by(|a, b| a.bits.total_cmp(&b.bits));
        }
        content.into_iter().for_each(|term| terms.push(term));
        for term in terms.iter_mut().filter(|t| t.bits > 0.0) {
            term.bits *= self.fleet.weight(cluster, o, term);
        }
        terms
    }

    /// A value, or where that is known the finer value inside it: weak evidence, since clients are upgraded.
    fn refined(&mut self, terms: &mut Terms, coarse: (Dimension, &str), fine: (Dimension, &str)) -> Term {
        let known = self.predict(terms, coarse.0, ("", coarse.1), 1.0);
        if known.own.count <= 0.0 {
            return known;
        }
        let finer = self.predict(terms, fine.0, (coarse.1, fine.1), 1.0);
        if finer.own.count > 0.0 {
            return known;
        }
        Term { p: finer.p.max(P_REFINED), ..finer }
    }
}

/// Robust log likelihood ratio.
fn bits(attack: f32, p: f32, deviates: f32) -> f32 {
    ((1.0 - deviates) + deviates * (attack / p).min(RATIO_MAX)).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dimension_convicts_nobody_and_acquits_nobody() {
        assert!(bits(0.4, 1e-9, 0.5) < 12.3 + 0.1);
        assert!((bits(0.0, 1.0, 0.5) + 1.0).abs() < 1e-6, "a usual client takes at most one bit away");
        assert_eq!(bits(0.3, 0.3, 0.5), 0.0);
        let mut terms = Terms::default();
        let term =
            Term { dimension: Dimension::Action, bits: -50.0, p: 1.0, own: Own::default(), peers: (0, 0), token: 0 };
        terms.push(term);
        assert!((terms.score() + 1.0).abs() < 1e-6);
        terms.iter_mut().for_each(|t| t.bits = 20.0);
        assert!((terms.score() - 19.0).abs() < 1e-3);
    }
}
