//! The cursor file.

use std::fs;

use super::super::{CursorFile, Error};
use super::power::Recorder;
use super::{dir, flip};

#[test]
fn a_cursor_keeps_its_value() {
    let dir = dir();
    let path = dir.path().join("soc.cursor");
    assert_eq!(CursorFile::open(&path).unwrap().get(), 0);
    for value in [1, 5, 5, 3, u64::MAX] {
        let mut cursor = CursorFile::open(&path).unwrap();
        cursor.set(value).unwrap();
        assert_eq!(cursor.get(), value);
        let again = CursorFile::open(&path).unwrap();
        assert_eq!((again.get(), again.repaired()), (value, false));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
}

#[test]
fn one_torn_slot_costs_one_step_at_most() {
    for slot in [0u64, 4096] {
        for byte in (0..32).step_by(3) {
            let dir = dir();
            let path = dir.path().join("c");
            let mut cursor = CursorFile::open(&path).unwrap();
            (1..=6).for_each(|v| cursor.set(v * 10).unwrap());
            flip(&path, slot + byte);
            let mut cursor = CursorFile::open(&path).unwrap();
            // seq 7 is the last one written, and odd numbers live in the second slot
            assert_eq!((cursor.get(), cursor.repaired()), (if slot == 0 { 60 } else { 50 }, true));
            cursor.set(70).unwrap();
            let cursor = CursorFile::open(&path).unwrap();
            assert_eq!((cursor.get(), cursor.repaired()), (70, false));
        }
    }
}

#[test]
fn a_cursor_cut_short_or_wholly_damaged_is_an_error_or_an_older_value() {
    let dir = dir();
    let path = dir.path().join("c");
    let mut cursor = CursorFile::open(&path).unwrap();
    (1..=3).for_each(|v| cursor.set(v).unwrap());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..4096]).unwrap();
    assert_eq!(CursorFile::open(&path).unwrap().get(), 3);
    fs::write(&path, b"").unwrap();
    assert!(matches!(CursorFile::open(&path), Err(Error::Cursor { .. })));
}

#[test]
fn a_value_that_was_set_survives_a_power_loss() {
    let dir = dir();
    let disk = Recorder::default();
    let path = dir.path().join("c");
    let mut cursor = CursorFile::open_on(&path, Box::new(disk.clone())).unwrap();
    for value in 0..=5 {
        cursor.set(value).unwrap();
        let after = super::dir();
        disk.power_loss(disk.len(), &mut |_| 0, after.path());
        assert_eq!(CursorFile::open(&after.path().join("c")).unwrap().get(), value, "nothing but what was synced");
        assert_eq!(CursorFile::peek(&after.path().join("c")).unwrap(), value);
    }
}
