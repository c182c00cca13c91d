//! A hundred rebalances and fifty kills under load. Takes five minutes: `tests/kafka-long` runs it, with fewer where
//! `LAPWING_REBALANCES` and `LAPWING_KILLS` say so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::broker::Broker;
use super::real::{Sender, detector, each_told_once, member};

const PARTITIONS: i32 = 6;

/// What the environment asks for, or so many.
fn count(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Sends one event every 25 ms until told to stop; how many it were.
fn load(sender: &mut Sender, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        sender.send(10, Duration::from_millis(25), 0..PARTITIONS);
    }
}

/// While `work` runs, events come.
fn under_load(sender: &mut Sender, work: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| load(sender, &over));
        work();
        over.store(true, Ordering::Release);
    });
}

#[test]
#[ignore = "takes five minutes"]
fn a_hundred_rebalances_and_fifty_kills_under_load() {
    let broker = Broker::start(PARTITIONS as u32);
    let mut sender = Sender::new(&broker.address());
    let dirs = [(), ()].map(|()| tempfile::tempdir().expect("a directory"));
    let [mut a, mut b] = dirs.each_ref().map(|dir| detector(dir.path(), &[member(&broker)]));
    a.run();
    b.run();
    let begun = Instant::now();

    let (mut rebalances, wanted) = (0, count("LAPWING_REBALANCES", 100));
    under_load(&mut sender, || {
        while rebalances < wanted {
            // A stranger joins, is given partitions, reads nothing of them and leaves.
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", broker.address()).set("group.id", "lapwing");
            config.set("partition.assignment.strategy", "cooperative-sticky").set("enable.auto.commit", "false");
            let stranger: BaseConsumer = config.create().expect("a consumer");
            stranger.subscribe(&["audit"]).expect("subscribed");
            let deadline = Instant::now() + Duration::from_secs(60);
            while stranger.assignment().expect("an assignment").count() == 0 {
                stranger.poll(Duration::from_millis(100));
                assert!(Instant::now() < deadline, "the stranger was given nothing");
            }
            drop(stranger);
            rebalances += 2;
        }
    });
    each_told_once(&[&a, &b], sender.sent());
    eprintln!("{rebalances} rebalances: {} events in {:?}, each told once", sender.sent(), begun.elapsed());

    let kills = count("LAPWING_KILLS", 50);
    under_load(&mut sender, || {
        for kill in 0..kills {
            let daemon = if kill % 2 == 0 { &mut a } else { &mut b };
            daemon.kill();
            daemon.run();
        }
    });
    each_told_once(&[&a, &b], sender.sent());
    eprintln!("{kills} kills: {} events in {:?}, each told once", sender.sent(), begun.elapsed());
    assert!(a.stop().success() && b.stop().success());
}
