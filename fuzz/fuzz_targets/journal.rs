//! A segment whose bytes are replaced where the input says so: what is read is what was written, and every number is read
//! or lost, once.
#![no_main]

use std::sync::OnceLock;

use lapwing::journal::{Journal, Lsn, Options, ReadError, open_read_only, verify};
use libfuzzer_sys::fuzz_target;

const NAME: &str = "00000000000000000001.wal";
const RECORDS: u8 = 12;

fn payload(n: u8) -> Vec<u8> {
    vec![n; 700]
}

/// A journal with some records, closed.
fn original() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = Journal::open(dir.path(), Options { sync: false, ..Options::default() }).expect("open");
        for n in 1..=RECORDS {
            journal.append_blocking(n, payload(n)).expect("stored");
        }
        journal.close();
        std::fs::read(dir.path().join(NAME)).expect("read")
    })
}

fuzz_target!(|changes: Vec<(u16, Vec<u8>)>| {
    let mut bytes = original().to_vec();
    for (at, with) in changes {
        for (i, byte) in with.into_iter().enumerate() {
            if let Some(old) = bytes.get_mut(usize::from(at) + i) {
                *old = byte;
            }
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join(NAME), bytes).expect("written");
    let _ = verify(dir.path());
    let mut reader = open_read_only(dir.path()).expect("listed").reader(Lsn(0));
    let mut next = 1;
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                assert_eq!((record.lsn.0, &record.payload), (next, &payload(next as u8)));
                next += 1;
            }
            Err(ReadError::Lost { from, to, .. }) => {
                assert!(from.0 == next && to >= from);
                next = to.0 + 1;
            }
            Ok(None) | Err(_) => break,
        }
    }
});
