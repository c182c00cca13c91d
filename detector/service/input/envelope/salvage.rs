//! An event that a log service cut off, read as far as it goes.

use lapwing_engine::carry::{NotCarried, Part};
use lapwing_engine::event::{Event, to_datetime};

/// The members of an event as the API server orders them, with the parts that are lost without them.
const ORDER: [(&str, &[Part]); 18] = [
    ("kind", &[]),
    ("apiVersion", &[]),
    ("level", &[]),
    ("auditID", &[]),
    ("stage", &[]),
    ("requestURI", &[]),
    ("verb", &[]),
    ("user", &[]),
    ("impersonatedUser", &[Part::Impersonated]),
    ("sourceIPs", &[Part::Claims]),
    ("userAgent", &[Part::Agent]),
    ("objectRef", &[]),
    ("responseStatus", &[Part::Status]),
    ("requestObject", &[Part::RequestBody]),
    ("responseObject", &[Part::ResponseBody]),
    ("requestReceivedTimestamp", &[]),
    ("stageTimestamp", &[]),
    ("annotations", &[Part::Annotations]),
];
/// An event cut before this does not tell who did what to what.
const NEEDED: usize = 11;

/// The whole members of a cut event as an event, marked with what was lost; `None` where too little is left. `time`,
/// microseconds since the epoch, stands in for a lost stage time.
pub fn salvage(text: &str, time: Option<i64>) -> Option<String> {
    let (keys, end) = whole_members(text);
    let place = |key: &&str| ORDER.iter().position(|(name, _)| name == key);
    let last = keys.iter().filter_map(place).max()?;
    // A member that has none behind it may be the last of an object whose brace was lost, or not.
    if last < NEEDED || !keys.contains(&"verb") || !keys.contains(&"user") {
        return None;
    }
    let lost = ORDER[last + 1..].iter().flat_map(|(_, parts)| *parts);
    let not_carried = lost.fold(NotCarried::default(), |set, part| set.with(*part));
    let mut event = text[..end].to_owned();
    if let Some(time) = time.filter(|_| !keys.contains(&"stageTimestamp")) {
        let time = to_datetime(time).to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        event.push_str(&format!(",\"stageTimestamp\":\"{time}\""));
    }
    event.push('}');
    let marked = not_carried.mark(&event);
    Event::parse(&marked).is_ok().then_some(marked)
}

/// Names of the members of the object `text` begins with that are there as a whole, and where the last of them ends.
fn whole_members(text: &str) -> (Vec<&str>, usize) {
    let bytes = text.as_bytes();
    let (mut keys, mut end, mut depth) = (Vec::new(), 0, 0usize);
    let (mut string, mut key) = (None, None);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (string, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(start), b'"') => {
                if depth == 1 && key.is_none() {
                    key = text.get(start + 1..at);
                }
                string = None;
            }
            (Some(_), _) => {}
            (None, b'"') => string = Some(at),
            (None, b'{' | b'[') => depth += 1,
            (None, b'}' | b']') => depth = depth.saturating_sub(1),
            (None, b',') if depth == 1 => {
                keys.extend(key.take());
                end = at;
            }
            (None, _) => {}
        }
        at += 1;
    }
    (keys, end)
}
