//! `lapwing output route`: where an alert goes, with the reasons.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::Utc;
use lapwing_engine::alert::Alert;
use serde_json::json;

use crate::cli::show::find_alert;
use crate::flow::Flow;
use crate::flow::silence::Watch;
use crate::output::Config;
use crate::output::encode::{json_line, terminal};

/// The alerts meant: of a file, of standard input, or by id.
pub fn alerts(what: &str, data_dir: &Path) -> Result<Vec<Alert>> {
    let mut text = String::new();
    if what == "-" {
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    } else if Path::new(what).is_file() {
        text = std::fs::read_to_string(what).with_context(|| format!("cannot read `{what}`"))?;
    } else {
        match find_alert(what, data_dir)? {
            Some(alert) => return Ok(vec![alert]),
            None => bail!("`{what}` is neither a file nor an alert"),
        }
    }
    let alerts = serde_json::Deserializer::from_str(&text).into_iter();
    alerts.collect::<Result<_, _>>().with_context(|| format!("`{what}` holds no alerts"))
}

/// What keeps an output from being told, or how it is told.
fn fate(config: &Config, alert: &Alert, flow: &Flow, silences: &Watch) -> (bool, String) {
    let now = Utc::now();
    if alert.level < config.common().min_level {
        return (false, format!("level {} is below its minLevel {}", alert.level, config.common().min_level));
    }
    let Some(hop) = flow.hop(config.name(), alert) else {
        return (false, "no route leads there".to_owned());
    };
    if let Some(id) = silences.silenced_by(alert, now) {
        return (false, format!("silenced by {id}; lapwing silence list"));
    }
    let mut said = if hop.path.is_empty() { "no routes: told".to_owned() } else { format!("told by {}", hop.path) };
    let pace = &hop.pace;
    let mut add = |name: &str, micros: i64| {
        if micros > 0 {
            let length = crate::config::HumanDuration::from_secs(micros.unsigned_abs() / 1_000_000);
            said.push_str(&format!(", {name} {length}"));
        }
    };
    add("digest", pace.digest);
    add("groupWait", pace.wait);
    add("groupInterval", pace.interval);
    add("repeatInterval", pace.repeat);
    if let Some(by) = &pace.by {
        let names: Vec<&str> = by.iter().map(|f| f.as_str()).collect();
        said.push_str(&format!(", grouped by [{}]", names.join(", ")));
    }
    if let Some(window) = hop.muted_by(now) {
        said.push_str(&format!(", but waits now: time interval {window}"));
    }
    let possible = flow.may_inhibit(alert);
    if !possible.is_empty() {
        said.push_str(&format!(", unless inhibited by {}", possible.join(" or ")));
    }
    (true, said)
}

/// Tells for each output; true when one is told.
pub fn explain(
    alert: &Alert,
    configs: &[Config],
    flow: &Flow,
    silences: &Watch,
    people: bool,
    out: &mut impl Write,
) -> Result<bool> {
    let mut any = false;
    if people {
        writeln!(out, "{} {}", alert.id, terminal(&alert.rule.title))?;
    }
    for config in configs {
        let (told, why) = fate(config, alert, flow, silences);
        any |= told;
        if people {
            writeln!(out, "  {} {:<20} {}", if told { "told    " } else { "not told" }, config.name(), terminal(&why))?;
        } else {
            let line = json!({ "alert": alert.id, "output": config.name(), "told": told, "why": why });
            writeln!(out, "{}", json_line(&line)?)?;
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::silence::{Silence, Silences};
    use crate::output::sample;

    #[test]
    fn each_output_gets_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = "
sources: { webhook: { listen: '127.0.0.1:0', insecureLoopback: true } }
outputs:
  - { name: all, type: stdout }
  - { name: worst, type: stdout, minLevel: critical }
  - { name: other, type: stdout }
inhibitRules: [{ sourceMatchers: [level=critical], targetMatchers: [level=high] }]
route:
  outputs: [all, worst]
  routes: [{ matchers: [actor=bob], outputs: [other] }, { matchers: [actor=alice], groupBy: [rule], repeatInterval: 4h }]
";
        let config = crate::config::Config::read(yaml, &dir.path().join("c.yaml"), &|_| None).unwrap().config;
        let (flow, file) = (config.flow().unwrap(), Silences::of(dir.path()));
        let (watch, path) = (Watch::new(file.clone()), dir.path().join("alert.json"));
        std::fs::write(&path, serde_json::to_string_pretty(&sample::alert()).unwrap()).unwrap();
        let alert = alerts(&path.display().to_string(), dir.path()).unwrap().remove(0);
        let mut out = Vec::new();
        assert!(explain(&alert, &config.outputs, &flow, &watch, true, &mut out).unwrap());
        let said = String::from_utf8(out).unwrap();
        for part in [
            "told     all                  told by route.routes[1], repeatInterval 4h, grouped by [rule], unless inhibited by inhibitRules[0]",
            "not told worst                level high is below its minLevel critical",
            "not told other                no route leads there",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
        let (now, hour) = (Utc::now(), chrono::TimeDelta::hours(1));
        let words = ("ann".to_owned(), "test".to_owned());
        file.add(Silence::new(vec!["actor=alice".into()], words, (now, now + hour), now).unwrap()).unwrap();
        let mut out = Vec::new();
        assert!(!explain(&alert, &config.outputs, &flow, &watch, false, &mut out).unwrap());
        let first: serde_json::Value = serde_json::from_slice(out.split(|b| *b == b'\n').next().unwrap()).unwrap();
        assert_eq!((&first["told"], first["output"].as_str()), (&json!(false), Some("all")));
        assert!(first["why"].as_str().unwrap().starts_with("silenced by "), "{first}");
    }
}
