//! What lies between two positions of the event journal, as objects: one for each cluster, NDJSON in zstd.
//!
//! The same positions give the same names and contents, so that putting an object again changes nothing.

use std::collections::BTreeMap;
use std::io::{self, Write};

use chrono::{DateTime, Utc};
use lapwing_engine::batch::{Batch, Item};
use serde_json::json;
use zstd::stream::Encoder;

use crate::output::encode::json_line;

/// zstd's own default.
const LEVEL: i32 = 3;

/// One object to be.
struct Object {
    encoder: Encoder<'static, Vec<u8>>,
    /// Microseconds; when the first batch in it came.
    received: i64,
    events: u64,
}

/// Objects in the making.
#[derive(Default)]
pub struct Part {
    objects: BTreeMap<String, Object>,
    /// Bytes before compression.
    pub bytes: u64,
    /// The last position in it.
    pub to: u64,
}

/// A finished object.
#[derive(Debug)]
pub struct Finished {
    /// `prod/2026/03/01/12/00000000000000000001-00000000000000000009.ndjson.zst`
    pub name: String,
    pub content: Vec<u8>,
    pub events: u64,
}

impl Part {
    /// With nothing in it yet of what lies behind `from`.
    pub fn after(from: u64) -> Self {
        Self { to: from, ..Self::default() }
    }

    /// Adds a batch.
    pub fn add(&mut self, batch: &Batch) -> io::Result<()> {
        if !self.objects.contains_key(&batch.cluster) {
            let object = Object { encoder: Encoder::new(Vec::new(), LEVEL)?, received: batch.received, events: 0 };
            self.objects.insert(batch.cluster.clone(), object);
        }
        let Some(object) = self.objects.get_mut(&batch.cluster) else { return Ok(()) };
        for item in &batch.items {
            let line = line(item);
            object.encoder.write_all(line.as_bytes())?;
            object.encoder.write_all(b"\n")?;
            object.events += 1;
            self.bytes += line.len() as u64 + 1;
        }
        Ok(())
    }

    /// The objects, for everything after `from`.
    pub fn finish(self, from: u64) -> io::Result<Vec<Finished>> {
        let (first, last) = (from + 1, self.to);
        let finish = |(cluster, object): (String, Object)| {
            let hour =
                DateTime::<Utc>::from_timestamp_micros(object.received).unwrap_or_default().format("%Y/%m/%d/%H");
            let name = format!("{}/{hour}/{first:020}-{last:020}.ndjson.zst", safe(&cluster));
            Ok(Finished { name, content: object.encoder.finish()?, events: object.events })
        };
        self.objects.into_iter().map(finish).collect()
    }
}

/// An event as it was stored, on one line; what could not be read is marked.
fn line(item: &Item) -> String {
    match item {
        // A raw line break can only stand between the values of JSON.
        Item::Event(text) => text.replace(['\n', '\r'], " "),
        Item::Reject { reason, detail, excerpt } => {
            let reject = json!({ "lapwingReject": reason.as_str(), "detail": detail, "excerpt": excerpt });
            json_line(&reject).unwrap_or_default()
        }
    }
}

/// A cluster's name as part of an object's: another cluster never gets the same.
fn safe(cluster: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !cluster.is_empty() && cluster.len() <= 100 && cluster.chars().all(plain) {
        return cluster.to_owned();
    }
    let kept: String = cluster.chars().filter(|c| plain(*c)).take(50).collect();
    format!("{kept}.{}", &blake3::hash(cluster.as_bytes()).to_hex()[..12])
}

#[cfg(test)]
mod tests {
    use lapwing_engine::batch::{Origin, RejectReason};

    use super::*;

    fn batch(cluster: &str, events: &[&str]) -> Batch {
        let items = events.iter().map(|e| Item::Event((*e).to_owned())).collect();
        Batch { cluster: cluster.into(), origin: Origin::Webhook, received: 1_772_366_400_000_000, items }
    }

    fn objects() -> Vec<Finished> {
        let mut part = Part::after(3);
        part.add(&batch("prod", &["{\"a\":1}", "{\n\"b\":\r\n2}"])).unwrap();
        part.add(&batch("test", &["{}"])).unwrap();
        let reject = Item::Reject { reason: RejectReason::NotJson, detail: "d\n".into(), excerpt: "x".into() };
        part.add(&Batch { items: vec![reject], ..batch("prod", &[]) }).unwrap();
        part.to = 9;
        part.finish(3).unwrap()
    }

    #[test]
    fn one_object_a_cluster_and_one_line_an_event() {
        let objects = objects();
        assert_eq!(objects[0].name, "prod/2026/03/01/12/00000000000000000004-00000000000000000009.ndjson.zst");
        let text = String::from_utf8(zstd::decode_all(&objects[0].content[..]).unwrap()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((lines.len(), objects[0].events), (3, 3));
        assert_eq!((&lines[1]["b"], &lines[2]["lapwingReject"]), (&json!(2), &json!("not_json")));
        assert!(objects[1].name.starts_with("test/"));
        let again = self::objects();
        assert!(again.iter().zip(&objects).all(|(a, b)| a.name == b.name && a.content == b.content));
    }

    #[test]
    fn no_cluster_leaves_its_place_or_takes_anothers() {
        for evil in ["../x", "", "a/b", "ab.", &"x".repeat(200)] {
            let name = safe(evil);
            assert!(!name.contains('/') && !name.contains("..") && name.contains('.'), "{name}");
        }
        assert_ne!(safe("a/b"), safe("ab"));
        assert_eq!(safe("prod-1"), "prod-1");
    }
}
