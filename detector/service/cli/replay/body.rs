//! The request body as the API server's webhook backend writes it: an `EventList` whose items carry no
//! `kind` and `apiVersion` (lines of the log backend do). Everything else of an event stays byte for byte.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

const HEAD: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
const TAIL: &[u8] = b"]}\n";

/// A list under construction.
#[derive(Debug, Default)]
pub struct EventList {
    items: Vec<u8>,
    count: u64,
}

impl EventList {
    /// Adds the event in `line`.
    ///
    /// # Errors
    /// When it is not one JSON object.
    pub fn push(&mut self, line: &[u8]) -> Result<(), serde_json::Error> {
        let Fields(fields) = serde_json::from_slice(line)?;
        if self.count > 0 {
            self.items.push(b',');
        }
        self.items.push(b'{');
        let kept = fields.iter().filter(|(key, _)| key != "kind" && key != "apiVersion");
        for (i, (key, value)) in kept.enumerate() {
            if i > 0 {
                self.items.push(b',');
            }
            serde_json::to_writer(&mut self.items, key)?;
            self.items.push(b':');
            self.items.extend_from_slice(value.get().as_bytes());
        }
        self.items.push(b'}');
        self.count += 1;
        Ok(())
    }

    pub const fn len(&self) -> u64 {
        self.count
    }

    /// The number of events and the finished body; the list is empty afterwards.
    pub fn take(&mut self) -> (u64, Vec<u8>) {
        let Self { items, count } = std::mem::take(self);
        (count, [HEAD, &items, TAIL].concat())
    }
}

/// The fields of an object in their order, values unread.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an audit event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(20);
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        d.deserialize_map(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_lose_kind_and_version_and_nothing_else() {
        let mut list = EventList::default();
        list.push(br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","n": 1e999,"a\"b":[ 1,2]}"#)
            .unwrap();
        list.push(br#" {"auditID":"x","kind":"Event"} "#).unwrap();
        assert!(list.push(b"[1]").is_err() && list.push(b"{\"a\":").is_err());
        let (count, body) = list.take();
        assert_eq!(count, 2);
        let text = String::from_utf8(body).unwrap();
        assert_eq!(
            text,
            "{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":\
             [{\"level\":\"Metadata\",\"n\":1e999,\"a\\\"b\":[ 1,2]},{\"auditID\":\"x\"}]}\n"
        );
        assert_eq!(list.len(), 0);
    }
}
