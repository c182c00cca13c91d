//! A baseline as people read it.

use serde::Serialize;

use super::observation::Class;
use super::principal::Principal;
use super::{Baselines, Dimension, HOUR, explain};
use crate::alert::Habits;
use crate::event::to_datetime;

/// What is normal for one principal.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    pub cluster: String,
    pub principal: Habits,
    /// Bits of risk now.
    pub risk_bits: f32,
    pub bytes: usize,
    pub tables: Vec<Described>,
}

/// The values of one dimension in one context, the most usual first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Described {
    pub dimension: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub context: String,
    pub values: Vec<DescribedValue>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DescribedValue {
    pub value: String,
    /// Part of what is known, 0 to 1.
    pub share: f32,
    /// Principals of the class that hold it, this one included.
    pub peers: u32,
}

impl Baselines {
    /// The principals called `name`, or all of them, by cluster and name.
    pub fn describe(&mut self, name: Option<&str>) -> Vec<Description> {
        match name {
            Some(name) => self.bring_back(name),
            None => self.members.gather(&mut self.words),
        }
        let called = |p: &&Principal| name.is_none_or(|n| p.who.owner.split('\u{1f}').nth(1) == Some(n));
        let mut found: Vec<Description> =
            self.members.ids().map(|(_, p)| p).filter(called).map(|p| self.described(p)).collect();
        found.sort_by(|a, b| (&a.cluster, &a.principal.name).cmp(&(&b.cluster, &b.principal.name)));
        found
    }

    fn described(&self, p: &Principal) -> Description {
        let (cluster, name) = p.who.owner.split_once('\u{1f}').unwrap_or_default();
        let mut tables: Vec<Described> = p.tables().filter_map(|table| self.table(p, table)).collect();
        let rank = |d: &Described| Dimension::TABLES.iter().position(|t| t.as_str() == d.dimension);
        tables.sort_by(|a, b| (rank(a), &a.context).cmp(&(rank(b), &b.context)));
        Description {
            cluster: cluster.to_owned(),
            principal: Habits {
                name: name.to_owned(),
                class: Class::as_str(p.who.class).to_owned(),
                since: to_datetime(i64::from(p.who.first_hour) * HOUR),
                active_hours: explain::round(p.who.active),
            },
            risk_bits: explain::round(p.risk.bits_at(self.time)),
            bytes: p.bytes(),
            tables,
        }
    }

    fn table(&self, p: &Principal, table: u32) -> Option<Described> {
        let text = self.words.text(table);
        let code = text.chars().next()?;
        let dimension = Dimension::TABLES.into_iter().find(|d| d.code() == code)?;
        let value = |(id, share): (u32, f32)| DescribedValue {
            value: self.words.text(id).rsplit('\u{1f}').next().unwrap_or_default().to_owned(),
            share,
            peers: self.words.holders(p.who.peers[0], Some(id), ""),
        };
        let values = p.usual(Some(table), self.hour()).into_iter().map(value).collect();
        Some(Described { dimension: dimension.as_str(), context: text[code.len_utf8()..].to_owned(), values })
    }
}
