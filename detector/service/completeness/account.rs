//! What the API servers of one cluster say they recorded and failed to deliver, against what came. Pure: no clock, no
//! network.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// How long an event may be on its way: the API server's batching and all of its tries, seconds.
const SLACK: i64 = 300;
/// So many events may be missing before it is told: some arrive after the slack, or under a name that changed.
const TOLERANCE: u64 = 5;

/// Audit counters of one API server at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// `apiserver_audit_event_total`
    pub recorded: u64,
    /// `apiserver_audit_error_total` by plugin: events it could not deliver.
    pub errors: BTreeMap<String, u64>,
}

impl Counters {
    /// Takes one line of the Prometheus text format.
    pub fn line(&mut self, line: &str) {
        let Some((series, value)) = line.rsplit_once(' ') else { return };
        let value = value.parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0).unwrap_or_default() as u64;
        if series == "apiserver_audit_event_total" {
            self.recorded += value;
        } else if let Some(labels) = series.strip_prefix("apiserver_audit_error_total{") {
            let plugin = labels.split("plugin=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            *self.errors.entry(known(plugin).to_owned()).or_default() += value;
        }
    }
}

/// The audit backends of Kubernetes; an unknown one is a bounded label too.
fn known(plugin: &str) -> &'static str {
    ["buffered", "webhook", "truncate", "log"].into_iter().find(|k| *k == plugin).unwrap_or("other")
}

/// The account of one cluster since the first look.
#[derive(Debug, Default)]
pub struct Account {
    /// What each API server said last, by its address.
    servers: HashMap<String, Counters>,
    recorded: u64,
    /// Events recorded up to a time (seconds), oldest first.
    history: VecDeque<(i64, u64)>,
    /// Events that had come at the first look.
    before: Option<u64>,
    told: u64,
}

impl Account {
    /// What `server` says now, in seconds. Answers the errors that are new, by plugin. A counter that went back began
    /// anew: the API server was restarted.
    pub fn take(&mut self, server: &str, now: i64, counters: Counters) -> BTreeMap<String, u64> {
        let Some(last) = self.servers.insert(server.to_owned(), counters.clone()) else {
            return BTreeMap::new();
        };
        let since = |now: u64, last: u64| if now >= last { now - last } else { now };
        self.recorded += since(counters.recorded, last.recorded);
        self.history.push_back((now, self.recorded));
        let errors = counters.errors.into_iter().map(|(plugin, n)| {
            let new = since(n, last.errors.get(&plugin).copied().unwrap_or_default());
            (plugin, new)
        });
        errors.filter(|(_, n)| *n > 0).collect()
    }

    /// How many of the events recorded [`SLACK`] ago have not come. `received` is what came since the process started.
    pub fn missing(&mut self, now: i64, received: u64) -> u64 {
        let before = *self.before.get_or_insert(received);
        while self.history.get(1).is_some_and(|(at, _)| *at <= now - SLACK) {
            self.history.pop_front();
        }
        let due = self.history.front().filter(|(at, _)| *at <= now - SLACK).map_or(0, |(_, recorded)| *recorded);
        due.saturating_sub(received.saturating_sub(before))
    }

    /// Whether `missing` is so much more than what was told that it must be told again.
    pub fn must_tell(&mut self, missing: u64) -> bool {
        let allowed = TOLERANCE.max(self.recorded / 1000);
        let must = missing > self.told + allowed;
        if must {
            self.told = missing;
        }
        must
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(text: &str) -> Counters {
        let mut counters = Counters::default();
        text.lines().for_each(|line| counters.line(line));
        counters
    }

    fn recorded(n: u64) -> Counters {
        Counters { recorded: n, ..Counters::default() }
    }

    #[test]
    fn reads_what_an_api_server_exposes() {
        let found = counters(
            "# HELP apiserver_audit_event_total [ALPHA] Counter of audit events generated and sent to the audit backend.\n\
             # TYPE apiserver_audit_event_total counter\napiserver_audit_event_total 1.2345e+06\n\
             apiserver_audit_error_total{plugin=\"webhook\"} 800\napiserver_audit_error_total{plugin=\"evil\\\"\"} 3\n\
             apiserver_audit_level_total{level=\"Metadata\"} 7\napiserver_audit_requests_rejected_total 2\n\
             apiserver_audit_event_total NaN",
        );
        assert_eq!(found.recorded, 1_234_500);
        assert_eq!(found.errors, [("other".to_owned(), 3), ("webhook".to_owned(), 800)].into());
    }

    #[test]
    fn what_is_recorded_and_does_not_come_is_missing_after_a_while() {
        let mut account = Account::default();
        account.take("a", 0, recorded(1000));
        assert_eq!(account.missing(0, 50), 0, "what was before nobody asks for");
        account.take("a", 60, recorded(1100));
        assert_eq!(account.missing(60, 50), 0, "on its way");
        assert_eq!(account.missing(359, 110), 0, "still");
        assert_eq!(account.missing(361, 110), 40);
        assert!(account.must_tell(40) && !account.must_tell(40) && !account.must_tell(45) && account.must_tell(46));
        assert_eq!(account.missing(362, 150), 0, "late, but it came");
    }

    #[test]
    fn servers_add_up_and_may_be_restarted() {
        let mut account = Account::default();
        account.take("a", 0, recorded(1000));
        account.take("b", 0, recorded(500));
        account.missing(0, 0);
        account.take("a", 10, recorded(1010));
        account.take("b", 10, recorded(7));
        assert_eq!(account.missing(400, 0), 17, "ten of a, and the seven since b began anew");
    }

    #[test]
    fn errors_are_told_once() {
        let mut account = Account::default();
        let errors = |n| counters(&format!("apiserver_audit_error_total{{plugin=\"buffered\"}} {n}"));
        assert!(account.take("a", 0, errors(5)).is_empty(), "of before");
        assert_eq!(account.take("a", 1, errors(12)), [("buffered".to_owned(), 7)].into());
        assert!(account.take("a", 2, errors(12)).is_empty());
        assert_eq!(account.take("a", 3, errors(2)), [("buffered".to_owned(), 2)].into(), "restarted");
    }
}
