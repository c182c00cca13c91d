//! How many per hour: refused requests, distinct secrets, distinct namespaces, deletions, sessions in pods.
//!
//! A negative binomial around the principal's own decayed mean, shrunk to its class with a weight of one day. What an
//! hour is worth is the Chernoff bound of its upper tail in bits, less eight for the looks taken every day. An hour
//! that alarmed is learnt only up to three times the usual (winsorised).

use serde::{Deserialize, Serialize};

use super::observation::Observation;
use super::principal::{allocated, decay};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Channel {
    Denied,
    Secrets,
    Deletions,
    Sessions,
    Namespaces,
}

impl Channel {
    pub const ALL: [Self; 5] = [Self::Denied, Self::Secrets, Self::Deletions, Self::Sessions, Self::Namespaces];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "refused requests",
            Self::Secrets => "different secrets",
            Self::Deletions => "deletions",
            Self::Sessions => "sessions in pods",
            Self::Namespaces => "different namespaces",
        }
    }

    /// Whether distinct values are counted and not requests.
    const fn distinct(self) -> bool {
        matches!(self, Self::Secrets | Self::Namespaces)
    }

    fn counts(self, o: &Observation) -> bool {
        match self {
            Self::Denied => o.denied,
            Self::Secrets => !o.denied && o.reads && o.resource() == "secrets",
            Self::Deletions => matches!(o.verb(), "delete" | "deletecollection" | "evict"),
            Self::Sessions => matches!(o.verb(), "exec" | "attach" | "debug") || (o.verb() == "proxy" && o.sensitive),
            Self::Namespaces => true,
        }
    }

    /// Whether a request seen before in this hour can still count.
    pub(super) fn any_repeats(o: &Observation) -> bool {
        Self::ALL.into_iter().any(|c| !c.distinct() && c.counts(o))
    }
}

/// Distinct values of one hour that a channel tells apart.
const MAX_DISTINCT: u8 = 64;
/// Hours of the class mean that weigh as much as the principal's own.
const PRIOR_HOURS: f32 = 24.0;
/// Bits that pay for about 250 looks a day.
const LOOKS: f32 = 8.0;
const MAX_BITS: f32 = 25.0;

/// Mean of a class: (count, hours).
pub(super) type ClassMean = (f32, f32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Burst {
    channel: Channel,
    /// Distinct values told apart in `hour`.
    #[serde(default)]
    apart: u8,
    hour: u32,
    count: f32,
    /// Decayed sums of counts, of their squares, and of hours.
    sum: f32,
    squares: f32,
    hours: f32,
    /// Bits told of this hour.
    told: f32,
}

/// A burst that is worth telling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rise {
    pub channel: Channel,
    /// Bits the hour has gained since it was last told of.
    pub bits: f32,
    pub count: f32,
    /// Expected in an hour.
    pub usual: f32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bursts {
    channels: Vec<Burst>,
    /// Hashes of the distinct values of `hour`, all channels together.
    #[serde(default)]
    distinct: Vec<u64>,
    #[serde(default)]
    hour: u32,
    /// The request counted last: its stages are one.
    last: u64,
}

impl Bursts {
    /// Counts a request; the channel that rose most, if one did.
    pub(super) fn add(&mut self, o: &Observation, request: u64, hour: u32, means: &mut [ClassMean; 5]) -> Option<Rise> {
        let again = std::mem::replace(&mut self.last, request) == request;
        if std::mem::replace(&mut self.hour, hour) != hour {
            self.distinct.clear();
        }
        let mut best: Option<Rise> = None;
        for channel in Channel::ALL.into_iter().filter(|c| c.counts(o)) {
            if again && !channel.distinct() {
                continue;
            }
            let burst = match self.channels.iter().position(|b| b.channel == channel) {
                Some(at) => &mut self.channels[at],
                None => {
                    self.channels.reserve_exact(1);
                    self.channels.push(Burst::new(channel, hour));
                    let last = self.channels.len() - 1;
                    &mut self.channels[last]
                }
            };
            if burst.hour != hour {
                burst.close(hour, &mut means[channel as usize]);
            }
            if channel.distinct() && !burst.is_new(&mut self.distinct, o) {
                continue;
            }
            let rise = burst.add(means[channel as usize]);
            best = rise.into_iter().chain(best).max_by(|a, b| a.bits.total_cmp(&b.bits));
        }
        best
    }

    /// Gives back what only the hour that is over needed.
    pub(super) fn rest(&mut self) {
        self.distinct = Vec::new();
    }

    /// Keeps no room that is not used.
    pub(super) fn shrink(&mut self) {
        self.channels.shrink_to_fit();
        self.distinct.shrink_to_fit();
    }

    pub(super) fn bytes(&self) -> usize {
        allocated::<Burst>(self.channels.len()) + allocated::<u64>(self.distinct.len())
    }
}

impl Burst {
    fn new(channel: Channel, hour: u32) -> Self {
        Self { channel, apart: 0, hour, count: 0.0, sum: 0.0, squares: 0.0, hours: 0.0, told: 0.0 }
    }

    /// Counts one more in the hour that is open.
    fn add(&mut self, class: ClassMean) -> Option<Rise> {
        self.count += 1.0;
        if self.count < 4.0 {
            return None;
        }
        let of_class = class.0 / class.1;
        let hours = self.hours + PRIOR_HOURS;
        let usual = (self.sum + PRIOR_HOURS * of_class) / hours + 0.02;
        let square = (self.squares + PRIOR_HOURS * (of_class * of_class + 2.0 * of_class)) / hours;
        if self.count < 2.0 * usual + 2.0 {
            return None;
        }
        let bits = tail(self.count, usual, square - usual * usual);
        let rise = bits - self.told;
        if rise <= 1.0 {
            return None;
        }
        self.told = bits;
        Some(Rise { channel: self.channel, bits: rise, count: self.count, usual })
    }

    /// Learns the hour that is over.
    fn close(&mut self, hour: u32, class: &mut ClassMean) {
        let gap = hour.saturating_sub(self.hour);
        let left = decay(gap);
        let mut count = self.count;
        *class = (class.0 * 0.9995 + count.min(50.0), class.1 * 0.9995 + gap as f32);
        if self.told > 0.0 {
            count = count.min(3.0 * (self.sum + 1.0) / (self.hours + 1.0) + 2.0);
        }
        self.sum = self.sum * left + count;
        self.squares = self.squares * left + count * count;
        self.hours = self.hours * left + gap as f32;
        (self.hour, self.count, self.told, self.apart) = (hour, 0.0, 0.0, 0);
    }

    /// Whether this hour has not shown the value that is counted; beyond [`MAX_DISTINCT`] all are new.
    fn is_new(&mut self, distinct: &mut Vec<u64>, o: &Observation) -> bool {
        use std::hash::BuildHasher;
        let value = if self.channel == Channel::Secrets { o.object_text() } else { o.namespace() };
        let hash = foldhash::fast::FixedState::with_seed(self.channel as u64).hash_one(value);
        let new = !distinct.contains(&hash);
        if new && self.apart < MAX_DISTINCT {
            self.apart += 1;
            distinct.reserve_exact(1);
            distinct.push(hash);
        }
        new
    }
}

/// Bits of `count` or more under a negative binomial, by the Chernoff bound, less [`LOOKS`].
pub(super) fn tail(count: f32, mean: f32, variance: f32) -> f32 {
    let variance = variance.max(mean * 1.3);
    let r = (mean * mean / (variance - mean)).clamp(0.05, 50.0);
    let nats = count * (count / mean).ln() - (r + count) * ((r + count) / (r + mean)).ln();
    (nats / std::f32::consts::LN_2 - LOOKS).clamp(0.0, MAX_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_above_the_usual_is_worth_bits_and_a_busy_hour_is_not() {
        assert_eq!(tail(4.0, 2.0, 4.0), 0.0);
        assert!(tail(40.0, 2.0, 4.0) > 10.0);
        assert!(tail(40.0, 2.0, 400.0) < tail(40.0, 2.0, 4.0), "one who varies may vary");
        assert!(tail(1e6, 0.02, 0.02) <= MAX_BITS);
    }
}
