//! Which rules an event of this shape can meet, remembered.
//!
//! The index leaves out rules by single fields. What it leaves in is judged once per shape, with only the fields that
//! make up the shape known: a rule that is false already then is false for every event of that shape. Most events come
//! in a few hundred shapes, and for most shapes no rule is left. Of the rules left, those that need a certain user,
//! namespace or name are found by it.

use super::keys;
use crate::alike::Alike;
use crate::facts::Facts;
use crate::field::Field;
use crate::rule::Judgement;
use crate::rule::index::{PINS, Pinned};
use crate::rule::set::RuleSet;
use crate::rule::view::{Elements, Unknown, Values, View};

#[derive(Debug, Default)]
pub(super) struct Shapes(Alike<Left>);

/// The rules left for a shape, in order.
#[derive(Debug, Default)]
struct Left {
    always: Box<[u32]>,
    /// Those that some field of [`PINS`] can still leave out.
    pinned: Box<[u32]>,
    /// Positions of those fields, a bit each.
    pins: u8,
}

impl Shapes {
    /// Puts the positions of the rules that this event can meet into `out`, in order. `past`: what is remembered of it, as
    /// bits of [`carried`](crate::rule::index::carried).
    pub(super) fn candidates(&mut self, rules: &RuleSet, facts: &Facts<'_>, past: u16, out: &mut Vec<u32>) {
        self.read(facts, past);
        if let Some(left) = self.0.get() {
            left.of(rules.index().pinned(), facts, out);
            return;
        }
        rules.index().candidates(&keys(facts, past), out);
        out.retain(|i| {
            let rule = &rules.rules()[*i as usize];
            // Whom a name leaves in is few anyway.
            let named = rules.index().pinned().field(*i).is_some_and(|pin| !is_namespace(&PINS[pin]));
            named || rule.searches_text() || rule.judge(&Shape(facts)) != Judgement::NoMatch
        });
        let left = Left::new(rules.index().pinned(), out);
        left.of(rules.index().pinned(), facts, out);
        self.0.keep(left);
    }

    /// Every value that [`Shape`] shows.
    fn read(&mut self, facts: &Facts<'_>, past: u16) {
        let event = facts.event;
        self.0.start(&[event.stage as u8]);
        self.0.texts([
            facts.action,
            &event.verb,
            facts.resource,
            facts.subresource,
            facts.outcome,
            facts.actor_kind,
            facts.scope(),
            facts.network(),
            &event.user_agent,
        ]);
        self.0.bytes(&(facts.carried() | past).to_le_bytes());
        if !event.not_carried.none() {
            // Then the bits say that anything may be there, and no longer what is.
            let is = [facts.cluster_component, facts.dry_run, event.impersonated_user.is_some()];
            self.0.bytes(&is.map(u8::from));
            self.0.bytes(&event.not_carried.bits().to_le_bytes());
        }
    }
}

impl Left {
    fn new(index: &Pinned, candidates: &[u32]) -> Self {
        let (pinned, always): (Vec<u32>, Vec<u32>) = candidates.iter().partition(|rule| index.field(**rule).is_some());
        let pins = pinned.iter().filter_map(|rule| index.field(*rule)).fold(0, |bits, pin| bits | 1 << pin);
        Self { always: always.into(), pinned: pinned.into(), pins }
    }

    /// Puts the rules that an event of this shape can meet into `out`, in order.
    fn of(&self, index: &Pinned, facts: &Facts<'_>, out: &mut Vec<u32>) {
        out.clear();
        out.extend_from_slice(&self.always);
        for pin in (0..PINS.len()).filter(|pin| self.pins >> pin & 1 == 1) {
            match index.at(pin, &facts.values(&PINS[pin])) {
                Some(few) => out.extend(few.iter().filter(|rule| self.pinned.binary_search(rule).is_ok())),
                None => out.extend(self.pinned.iter().filter(|rule| index.field(**rule) == Some(pin))),
            }
        }
        if out.len() > self.always.len() {
            out.sort_unstable();
        }
    }
}

fn is_namespace(field: &Field) -> bool {
    matches!(field, Field::RefNamespace | Field::TargetNamespace)
}

/// An event of which only its shape is known.
struct Shape<'f, 'e>(&'f Facts<'e>);

impl View for Shape<'_, '_> {
    fn values(&self, field: &Field) -> Values<'_> {
        match field {
            Field::Action
            | Field::ActionType
            | Field::Verb
            | Field::TargetResource
            | Field::RefResource
            | Field::TargetSubresource
            | Field::RefSubresource
            | Field::Outcome
            | Field::ActorKind
            | Field::ActorClusterComponent
            | Field::ActorImpersonating
            | Field::Stage
            | Field::TargetScope
            | Field::UserAgent
            | Field::ClientFamily
            | Field::ClientVersion
            | Field::ClientNetwork
            | Field::DryRun => self.0.values(field),
            _ => Values::Unknown(Unknown::NotCarried),
        }
    }

    fn elements(&self, _: &Field) -> Elements<'_> {
        Elements::Unknown(Unknown::NotCarried)
    }

    fn all_text(&self) -> &str {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::alike::{MAX, MAX_KEY};
    use crate::event::Event;
    use crate::rule::set::LoadOptions;

    fn rules(detections: &[&str]) -> RuleSet {
        let rule = |(i, detection): (usize, &&str)| {
            let detection: String = detection.lines().map(|l| format!("  {l}\n")).collect();
            let head = format!("title: t\nid: r{i}\nname: r{i}\nlevel: low\nlogsource: {{product: kubernetes}}\n");
            (PathBuf::from(format!("r{i}.yml")), format!("{head}detection:\n{detection}"))
        };
        RuleSet::load(detections.iter().enumerate().map(rule).collect(), &LoadOptions::default()).expect("good rules")
    }

    /// The rules left for an event, asked twice so that the second answer comes from memory.
    fn left(shapes: &mut Shapes, rules: &RuleSet, text: &str) -> Vec<u32> {
        let event = Event::parse(text).expect("an event");
        let facts = Facts::new(&event, text, "c");
        let [mut first, mut second] = [vec![99], vec![98]];
        shapes.candidates(rules, &facts, 0, &mut first);
        shapes.candidates(rules, &facts, 0, &mut second);
        assert_eq!(first, second);
        first
    }

    fn event(verb: &str, user: &str, agent: &str) -> String {
        format!(
            r#"{{"auditID":"a","verb":"{verb}","stage":"ResponseComplete","user":{{"username":"{user}"}},"userAgent":"{agent}",
            "objectRef":{{"resource":"pods"}},"responseStatus":{{"code":200}}}}"#
        )
    }

    #[test]
    fn rules_that_the_shape_decides_are_left_out() {
        let rules = rules(&[
            "s:\n  userAgent|contains: peirates\ncondition: s",
            "s:\n  user.username: mallory\ncondition: s",
            "s:\n  user.username: mallory\nf:\n  userAgent|startswith: kubectl\ncondition: s and not f",
            "s:\n  - peirates\ncondition: s",
            "s:\n  requestObject.a: 1\n  action.type: write\ncondition: s",
        ]);
        let mut shapes = Shapes::default();
        assert_eq!(left(&mut shapes, &rules, &event("get", "alice", "kubectl/v1")), [3]);
        assert_eq!(
            left(&mut shapes, &rules, &event("get", "Mallory", "kubectl/v1")),
            [1, 2, 3],
            "a name is not weighed against the client"
        );
        assert_eq!(left(&mut shapes, &rules, &event("get", "mallory", "peirates")), [0, 1, 2, 3]);
        assert_eq!(left(&mut shapes, &rules, &event("create", "alice", "curl")), [3, 4]);
        assert_eq!(shapes.0.len(), 3, "the name of a user is no part of a shape");
    }

    #[test]
    fn rules_are_found_by_what_they_are_pinned_to() {
        let rules = rules(&[
            "s:\n  user.username: [mallory, eve]\n  objectRef.name: x\ncondition: s",
            "s:\n  objectRef.name: [x, y]\ncondition: s",
            "s:\n  objectRef.name|startswith: x\ncondition: s",
            "s:\n  objectRef.name: [x, null]\ncondition: s",
            "s:\n  user.username: mallory\nt:\n  objectRef.name: x\ncondition: s or t",
            "s:\n  user.username: mallory\ncondition: s",
        ]);
        let named = |name: &str| event("get", "eve", "curl").replace("\"resource\"", &format!("{name}\"resource\""));
        let mut shapes = Shapes::default();
        assert_eq!(left(&mut shapes, &rules, &named("\"name\":\"x\",")), [0, 1, 2, 3, 4]);
        assert_eq!(left(&mut shapes, &rules, &named("\"name\":\"Y\",")), [1, 2, 3, 4]);
        assert_eq!(left(&mut shapes, &rules, &named("")), [2, 3, 4]);
        let unreadable = event("get", "eve", "curl").replace("\"eve\"", "[1]");
        assert_eq!(left(&mut shapes, &rules, &unreadable), [2, 3, 4, 5], "who it was cannot be known");
    }

    #[test]
    fn shapes_are_bounded() {
        let rules = rules(&["s:\n  verb: get\ncondition: s"]);
        let mut shapes = Shapes::default();
        for i in 0..MAX + 10 {
            left(&mut shapes, &rules, &event("get", "a", &i.to_string()));
        }
        assert_eq!(shapes.0.len(), 10);
        assert_eq!(left(&mut shapes, &rules, &event("get", "a", &"x".repeat(MAX_KEY))), [0]);
        assert_eq!(shapes.0.len(), 10);
    }
}
