//! How many connections there are: in all, by source address, and of those nobody knows yet.
//!
//! Who has not shown who it is has a place until somebody newer needs it, and of them the source that holds most goes first:
//! strangers that hold connections open cannot keep an API server out.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::listen::{End, Limits};

/// Who holds how many connections.
#[derive(Debug, Default)]
pub struct Slots(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Who has not shown who it is, oldest first.
    unknown: BTreeMap<u64, Unknown>,
    next: u64,
}

#[derive(Debug)]
struct Unknown {
    address: IpAddr,
    /// Cancelled when displaced.
    displaced: CancellationToken,
}

/// One connection's place; dropping it gives it back.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
    id: u64,
    displaced: CancellationToken,
}

impl Slot {
    /// The connection has shown who it is: nobody displaces it any more.
    pub fn known(&self) {
        self.slots.lock().unknown.remove(&self.id);
    }

    /// Resolves when a newer connection needs the place.
    pub async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Slots {
    /// A place for a connection from `address`, or which limit is reached.
    pub fn take(slots: &Arc<Self>, address: IpAddr, limits: &Limits) -> Result<Slot, End> {
        let address = source(address);
        let mut taken = slots.lock();
        if taken.by_address.get(&address).is_some_and(|n| *n >= limits.per_address) {
            return Err(End::TooManyFromAddress);
        }
        let full = taken.all >= limits.connections;
        if full || taken.unknown.len() >= limits.unknown {
            match taken.least_missed() {
                Some(unknown) => unknown.displaced.cancel(),
                None if full => return Err(End::TooMany),
                None => {}
            }
        }
        let (id, displaced) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.unknown.insert(id, Unknown { address, displaced: displaced.clone() });
        *taken.by_address.entry(address).or_default() += 1;
        taken.all += 1;
        Ok(Slot { slots: Arc::clone(slots), address, id, displaced })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Takes out the oldest stranger of the address that has most of them: one that comes alone loses its place to a crowd
    /// only when each of the crowd has an address of its own.
    fn least_missed(&mut self) -> Option<Unknown> {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        self.unknown.values().for_each(|unknown| *held.entry(unknown.address).or_default() += 1);
        let most = held.values().copied().max()?;
        let (id, _) = self.unknown.iter().find(|(_, unknown)| held.get(&unknown.address) == Some(&most))?;
        let id = *id;
        self.unknown.remove(&id)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.unknown.remove(&self.id);
        taken.all -= 1;
        if let Some(mine) = taken.by_address.get_mut(&self.address) {
            *mine -= 1;
            if *mine == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// One sender as far as limits go: an IPv4 address, or a /64, which one IPv6 host can fill at will.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn slots_are_counted_by_source_and_given_back() {
        let limits = Limits { connections: 3, per_address: 2, ..Limits::default() };
        let slots = Arc::new(Slots::default());
        let take = |address| Slots::take(&slots, ip(address), &limits).inspect(Slot::known);
        let first = take("10.0.0.1").unwrap();
        let second = take("::ffff:10.0.0.1").unwrap();
        assert_eq!(take("10.0.0.1").err(), Some(End::TooManyFromAddress));
        let third = take("2001:db8::1").unwrap();
        assert_eq!(take("2001:db8::2").err(), Some(End::TooMany));
        drop(first);
        let fourth = take("2001:db8::2").unwrap();
        assert_eq!(slots.lock().by_address.len(), 2);
        drop((second, third, fourth));
        assert!(slots.lock().by_address.is_empty(), "addresses of the past take no memory");
    }

    #[test]
    fn a_crowd_of_strangers_takes_places_from_itself() {
        let limits = Limits { connections: 8, unknown: 4, ..Limits::default() };
        let slots = Arc::new(Slots::default());
        let take = |address| Slots::take(&slots, ip(address), &limits).unwrap();
        let alone = take("10.0.0.1");
        let crowd: Vec<Slot> = (0..6).map(|n| take(["10.0.0.2", "10.0.0.3"][n % 2])).collect();
        let gone: Vec<bool> = crowd.iter().map(|slot| slot.displaced.is_cancelled()).collect();
        assert_eq!(gone, [true, true, true, false, false, false]);
        assert!(!alone.displaced.is_cancelled());
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_nobody_who_is_known() {
        let limits = Limits { connections: 4, unknown: 2, ..Limits::default() };
        let slots = Arc::new(Slots::default());
        let take = |n: u8| Slots::take(&slots, ip(&format!("10.0.0.{n}")), &limits).unwrap();
        let gone = |all: &[&Slot]| all.iter().map(|slot| slot.displaced.is_cancelled()).collect::<Vec<_>>();
        let known = take(1);
        known.known();
        let (a, b) = (take(2), take(3));
        assert_eq!(gone(&[&known, &a, &b]), [false, false, false]);
        let c = take(4);
        assert_eq!(gone(&[&known, &a, &b, &c]), [false, true, false, false]);
        drop(a);
        b.known();
        let d = take(5);
        d.known();
        assert_eq!(gone(&[&known, &b, &c, &d]), [false; 4]);
        let e = take(6);
        assert_eq!(gone(&[&known, &b, &c, &d, &e]), [false, false, true, false, false], "all places are taken");
        e.known();
        assert_eq!(Slots::take(&slots, ip("10.0.0.7"), &limits).err(), Some(End::TooMany));
        drop((c, d, b, e, known));
        assert!(slots.lock().unknown.is_empty());
    }
}
