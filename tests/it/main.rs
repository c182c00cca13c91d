//! Integration tests: the real program and real servers. One binary, one module a subject.

mod daemon;
mod grafana;
mod kafka;
mod outputs;
mod serve;
