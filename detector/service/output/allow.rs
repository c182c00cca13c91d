//! What the configuration opens of the addresses outputs may not talk to otherwise.
//!
//! One list for the process, set when its configuration is read: names are resolved deep below the outputs, and an exception
//! belongs to the network, not to an output.

use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which addresses Lapwing may connect to although they are refused otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// Networks (`169.254.20.0/24`), addresses and host names. Link-local, loopback behind another name, and cloud metadata
    /// are refused otherwise. A metadata address is opened only by naming it alone.
    pub allow: Vec<String>,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Network(IpNet),
    Host(String),
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Vec<Exception>);

static ALLOWED: RwLock<Allowed> = RwLock::new(Allowed(Vec::new()));

impl Config {
    /// The complaint about each line that is neither network, address nor host name, by its place.
    pub fn problems(&self) -> Vec<(String, String)> {
        let bad = self.allow.iter().enumerate().filter(|(_, text)| Exception::read(text).is_none());
        bad.map(|(i, _)| {
            let what = "expected a network such as `169.254.20.0/24`, an address or a host name";
            (format!("outbound.allow[{i}]"), what.to_owned())
        })
        .collect()
    }

    /// From now on the list of this process.
    pub fn apply(&self) {
        *ALLOWED.write().unwrap_or_else(PoisonError::into_inner) = self.allowed();
    }

    pub fn allowed(&self) -> Allowed {
        Allowed(self.allow.iter().filter_map(|text| Exception::read(text)).collect())
    }
}

impl Exception {
    fn read(text: &str) -> Option<Self> {
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self::Network(network));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self::Network(ip.into()));
        }
        let named =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        // What consists of digits is an address written in a way nobody should use.
        let letters = text.bytes().any(|b| b.is_ascii_alphabetic());
        (named && letters).then(|| Self::Host(plain(text)))
    }
}

impl Allowed {
    /// The list of this process.
    pub fn now() -> Self {
        ALLOWED.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether `ip` may be reached as `host`. `alone`: only an entry for this one address counts.
    pub fn has(&self, host: &str, ip: IpAddr, alone: bool) -> bool {
        self.0.iter().any(|exception| match exception {
            Exception::Network(network) => {
                network.contains(&ip) && (!alone || network.prefix_len() == network.max_prefix_len())
            }
            Exception::Host(name) => !alone && *name == plain(host),
        })
    }
}

fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(allow: &[&str], host: &str, ip: &str, alone: bool) -> bool {
        let config = Config { allow: allow.iter().map(|a| (*a).to_owned()).collect() };
        assert_eq!(config.problems(), []);
        config.allowed().has(host, ip.parse().unwrap(), alone)
    }

    #[test]
    fn networks_addresses_and_names() {
        assert!(has(&["169.254.20.0/24"], "x", "169.254.20.9", false));
        assert!(!has(&["169.254.20.0/24"], "x", "169.254.21.9", false));
        assert!(has(&["fe80::7"], "x", "fe80::7", false) && !has(&["fe80::7"], "x", "fe80::8", false));
        assert!(has(&["SIEM.local."], "siem.LOCAL", "169.254.1.1", false));
        assert!(!has(&["siem.local"], "evil.siem.local", "169.254.1.1", false));
        assert!(!has(&[], "x", "169.254.1.1", false));
    }

    #[test]
    fn what_must_be_named_alone() {
        for wide in ["0.0.0.0/0", "169.254.0.0/16", "169.254.169.254/31", "metadata.internal"] {
            assert!(!has(&[wide], "metadata.internal", "169.254.169.254", true), "{wide}");
        }
        assert!(has(&["169.254.169.254"], "x", "169.254.169.254", true));
    }

    #[test]
    fn what_is_no_entry_is_told_with_its_place() {
        let allow = ["10.0.0.0/8", "10.0.0.0/33", "127.1", "http://x", ""].map(str::to_owned).to_vec();
        let places: Vec<_> = Config { allow }.problems().into_iter().map(|(path, _)| path).collect();
        assert_eq!(places, ["outbound.allow[1]", "outbound.allow[2]", "outbound.allow[3]", "outbound.allow[4]"]);
    }
}
