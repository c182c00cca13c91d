//! Making an alert fit: the bulky parts go first, what names it stays.

use lapwing_engine::alert::{Alert, RuleRef};
use serde_json::Value;

use super::encode::cap;

/// `alert` as `encode` writes it, in at most `max` bytes where that can be had at all. The second argument of `encode` tells
/// whether something was left out.
pub fn fit(alert: &Alert, max: usize, encode: impl Fn(&Alert, bool) -> String) -> String {
    let text = encode(alert, false);
    if text.len() <= max {
        return text;
    }
    let steps: [fn(&mut Alert); 9] = [
        |a| keep_last(&mut a.evidence, 1),
        |a| keep_last(&mut a.audit_ids, 10),
        |a| (a.false_positives, a.next_steps) = (Vec::new(), Vec::new()),
        |a| (a.why, a.anomaly) = (String::new(), None),
        |a| shorten(a, 255),
        |a| (a.evidence, a.audit_ids) = (Vec::new(), Vec::new()),
        |a| shorten(a, 64),
        |a| shorten(a, 32),
        bare,
    ];
    let (mut less, mut text) = (alert.clone(), text);
    for step in steps {
        if text.len() <= max {
            break;
        }
        step(&mut less);
        text = encode(&less, true);
    }
    text
}

fn keep_last<T>(list: &mut Vec<T>, count: usize) {
    list.drain(..list.len().saturating_sub(count));
}

/// Cuts every text to `max` characters, 32 at least (times are texts, too), and every list to ten items.
fn shorten(alert: &mut Alert, max: usize) {
    fn walk(value: &mut Value, max: usize) {
        match value {
            Value::String(text) => *text = cap(text, max).into_owned(),
            Value::Array(list) => {
                list.truncate(10);
                list.iter_mut().for_each(|v| walk(v, max));
            }
            Value::Object(map) => map.values_mut().for_each(|v| walk(v, max)),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::to_value(&*alert) else { return };
    walk(&mut value, max.max(32));
    if let Ok(shorter) = serde_json::from_value(value) {
        *alert = shorter;
    }
}

/// Only what tells which alert it is.
fn bare(alert: &mut Alert) {
    let rule = RuleRef {
        id: cap(&alert.rule.id, 12).into_owned(),
        title: String::new(),
        tags: Vec::new(),
        ..alert.rule.clone()
    };
    alert.rule = rule;
    for text in [&mut alert.cluster, &mut alert.actor, &mut alert.actor_kind, &mut alert.summary] {
        *text = cap(text, 12).into_owned();
    }
}
