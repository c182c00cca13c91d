//! What one delivery from a sender becomes: the unit that is journaled and acknowledged.

/// Where a batch came from, so that positions survive a restart and metrics can name the way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The audit webhook.
    Webhook,
    /// A Kafka record range: everything before `next_offset` of this partition is in the journal.
    Kafka { topic: String, partition: i32, next_offset: i64 },
    /// A followed file: everything before `offset` of the file with this identity is in the journal.
    File { path: String, identity: u64, offset: u64 },
    /// One-shot reading; never journaled.
    Scan,
}

impl Origin {
    /// Bounded label for metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Kafka { .. } => "kafka",
            Self::File { .. } => "file",
            Self::Scan => "scan",
        }
    }
}

/// Why an item is no event. Each is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Not JSON, or cut off.
    NotJson,
    /// JSON, but not an audit event (wrong kind, no object).
    NotAnEvent,
    /// Larger than the limit for one event even without its bodies.
    TooLarge,
    /// The whole body could not be read.
    BadBody,
}

impl RejectReason {
    pub const ALL: [Self; 4] = [Self::NotJson, Self::NotAnEvent, Self::TooLarge, Self::BadBody];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotAnEvent => "not_an_event",
            Self::TooLarge => "too_large",
            Self::BadBody => "bad_body",
        }
    }
}

/// One element of a batch, in the sender's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The event's JSON text, already redacted.
    Event(String),
    /// Something that could not be read, kept (redacted, cut to 4 KiB) so that nothing vanishes.
    Reject { reason: RejectReason, detail: String, excerpt: String },
}

/// A batch as it is journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub cluster: String,
    pub origin: Origin,
    /// When Lapwing received it, microseconds since the epoch; never goes back within a journal.
    pub received: i64,
    pub items: Vec<Item>,
}

/// A stored batch that cannot be read back.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("batch is not readable at byte {at}: {what}")]
pub struct DecodeError {
    pub at: usize,
    pub what: &'static str,
}

const FORMAT: u8 = 1;

impl Batch {
    /// The binary form stored in the journal: little-endian, every string behind its `u32` length.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.items.iter().map(Item::len).sum::<usize>());
        out.push(FORMAT);
        put_str(&mut out, &self.cluster);
        out.extend(self.received.to_le_bytes());
        match &self.origin {
            Origin::Webhook => out.push(0),
            Origin::Kafka { topic, partition, next_offset } => {
                out.push(1);
                put_str(&mut out, topic);
                out.extend(partition.to_le_bytes());
                out.extend(next_offset.to_le_bytes());
            }
            Origin::File { path, identity, offset } => {
                out.push(2);
                put_str(&mut out, path);
                out.extend(identity.to_le_bytes());
                out.extend(offset.to_le_bytes());
            }
            Origin::Scan => out.push(3),
        }
        out.extend((self.items.len() as u32).to_le_bytes());
        for item in &self.items {
            match item {
                Item::Event(text) => {
                    out.push(0);
                    put_str(&mut out, text);
                }
                Item::Reject { reason, detail, excerpt } => {
                    out.push(1 + *reason as u8);
                    put_str(&mut out, detail);
                    put_str(&mut out, excerpt);
                }
            }
        }
        out
    }

    /// Reads what [`Batch::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Cursor { bytes, at: 0 };
        if r.u8()? != FORMAT {
            return Err(r.error("unknown format"));
        }
        let cluster = r.str()?;
        let received = i64::from_le_bytes(r.array()?);
        let origin = match r.u8()? {
            0 => Origin::Webhook,
            1 => Origin::Kafka {
                topic: r.str()?,
                partition: i32::from_le_bytes(r.array()?),
                next_offset: i64::from_le_bytes(r.array()?),
            },
            2 => Origin::File {
                path: r.str()?,
                identity: u64::from_le_bytes(r.array()?),
                offset: u64::from_le_bytes(r.array()?),
            },
            3 => Origin::Scan,
            _ => return Err(r.error("unknown origin")),
        };
        let n = u32::from_le_bytes(r.array()?) as usize;
        let mut items = Vec::with_capacity(n.min(bytes.len()));
        for _ in 0..n {
            items.push(match r.u8()? {
                0 => Item::Event(r.str()?),
                k => {
                    let reason =
                        *RejectReason::ALL.get(usize::from(k) - 1).ok_or_else(|| r.error("unknown item kind"))?;
                    Item::Reject { reason, detail: r.str()?, excerpt: r.str()? }
                }
            });
        }
        if r.at != bytes.len() { Err(r.error("trailing bytes")) } else { Ok(Self { cluster, origin, received, items }) }
    }
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Event(t) => t.len() + 5,
            Self::Reject { detail, excerpt, .. } => detail.len() + excerpt.len() + 9,
        }
    }
}

fn put_str(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u32).to_le_bytes());
    out.extend(s.as_bytes());
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { at: self.at, what }
    }

    fn take(&mut self, n: usize) -> Result<&[u8], DecodeError> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len()).ok_or_else(|| self.error("cut short"))?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| DecodeError { at, what: "cut short" })
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[b]| b)
    }

    fn str(&mut self) -> Result<String, DecodeError> {
        let n = u32::from_le_bytes(self.array()?) as usize;
        let at = self.at;
        let bytes = self.take(n)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError { at, what: "not UTF-8" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            any::<String>().prop_map(Item::Event),
            (0..4usize, any::<String>(), any::<String>()).prop_map(|(r, detail, excerpt)| Item::Reject {
                reason: RejectReason::ALL[r],
                detail,
                excerpt
            }),
        ]
    }

    fn origin() -> impl Strategy<Value = Origin> {
        prop_oneof![
            Just(Origin::Webhook),
            Just(Origin::Scan),
            (any::<String>(), any::<i32>(), any::<i64>()).prop_map(|(topic, partition, next_offset)| Origin::Kafka {
                topic,
                partition,
                next_offset
            }),
            (any::<String>(), any::<u64>(), any::<u64>()).prop_map(|(path, identity, offset)| Origin::File {
                path,
                identity,
                offset
            }),
        ]
    }

    proptest! {
        #[test]
        fn decode_reads_what_encode_wrote(
            cluster: String, received: i64, origin in origin(), items in prop::collection::vec(item(), 0..8)
        ) {
            let batch = Batch { cluster, origin, received, items };
            prop_assert_eq!(Batch::decode(&batch.encode()), Ok(batch));
        }

        #[test]
        fn any_bytes_are_an_answer_not_a_panic(bytes: Vec<u8>) {
            let _ = Batch::decode(&bytes);
        }

        #[test]
        fn every_cut_is_noticed(cut in 0usize..60) {
            let whole = Batch { cluster: "c".into(), origin: Origin::Webhook, received: 1,
                items: vec![Item::Event("{}".into()), Item::Event("[1,2,3]".into())] }.encode();
            prop_assume!(cut < whole.len());
            prop_assert!(Batch::decode(&whole[..cut]).is_err());
        }
    }
}
