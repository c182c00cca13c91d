//! Lapwing as a whole: the real program and real servers around it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod grafana;
