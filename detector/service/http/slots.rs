//! How many connections there are, in all and by source address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::listen::{End, Limits};

/// Who holds how many connections.
#[derive(Default)]
pub struct Slots(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; dropping it gives it back.
pub struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    /// A place for a connection from `address`, or which limit is reached.
    pub fn take(slots: &Arc<Self>, address: IpAddr, limits: &Limits) -> Result<Slot, End> {
        let address = source(address);
        let mut taken = slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= limits.connections {
            return Err(End::TooMany);
        }
        let mine = taken.by_address.entry(address).or_default();
        if *mine >= limits.per_address {
            return Err(End::TooManyFromAddress);
        }
        *mine += 1;
        taken.all += 1;
        Ok(Slot { slots: Arc::clone(slots), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let take = |address| Slots::take(&slots, ip(address), &limits);
        let first = take("10.0.0.1").unwrap();
        let second = take("::ffff:10.0.0.1").unwrap();
        assert_eq!(take("10.0.0.1").err(), Some(End::TooManyFromAddress));
        let third = take("2001:db8::1").unwrap();
        assert_eq!(take("2001:db8::2").err(), Some(End::TooMany));
        drop(first);
        let fourth = take("2001:db8::2").unwrap();
        assert_eq!(slots.0.lock().unwrap().by_address.len(), 2);
        drop((second, third, fourth));
        assert!(slots.0.lock().unwrap().by_address.is_empty(), "addresses of the past take no memory");
    }
}
