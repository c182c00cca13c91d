//! The fields of the index.
//!
//! Identifiers are indexed raw (no tokens, frequencies or norms). Columns (fast fields) hold what a
//! result table prints, which is smaller than a document store, and what sorts and filters. Only the
//! few documents that are no plain event (alerts, rejects) store something.

use tantivy::schema::{
    FAST, Field, IndexRecordOption, IpAddrOptions, NumericOptions, STORED, Schema, SchemaBuilder, TextFieldIndexing,
    TextOptions,
};
use tantivy::tokenizer::{LowerCaser, RemoveLongFilter, SimpleTokenizer, TextAnalyzer, TokenizerManager};

/// Name of the analyzer of the free text: words of letters and digits, lower case, at most 128 bytes.
pub(super) const WORDS: &str = "words";

/// Handles of every field, in schema order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    /// Microseconds since the epoch; column.
    pub time: Field,
    pub lsn: Field,
    pub item: Field,
    pub kind: Field,
    pub cluster: Field,
    pub actor: Field,
    pub actor_kind: Field,
    pub acting_as: Field,
    pub verb: Field,
    pub action: Field,
    /// `pods/exec` first, then `pods`.
    pub resource: Field,
    pub subresource: Field,
    pub namespace: Field,
    pub name: Field,
    pub outcome: Field,
    pub code: Field,
    /// The address as it was written; column only.
    pub address: Field,
    /// The address as a number, for ranges; absent when it is none.
    pub ip: Field,
    pub client: Field,
    pub rule: Field,
    pub level: Field,
    /// Column only: exact and prefix look-ups scan its dictionary, no postings for unique values.
    pub audit_id: Field,
    pub alert_id: Field,
    pub text: Field,
    /// JSON of [`super::doc::Extra`]; alerts and rejects only.
    pub extra: Field,
}

/// The schema and its handles. A change of any of this makes older indexes be rebuilt.
pub(super) fn schema() -> (Schema, Fields) {
    let mut b = Schema::builder();
    let fields = Fields {
        time: b.add_i64_field("time", FAST),
        lsn: b.add_u64_field("lsn", FAST),
        item: b.add_u64_field("item", FAST),
        kind: id(&mut b, "kind", true),
        cluster: id(&mut b, "cluster", true),
        actor: id(&mut b, "actor", true),
        actor_kind: id(&mut b, "actor_kind", false),
        acting_as: id(&mut b, "acting_as", true),
        verb: id(&mut b, "verb", true),
        action: id(&mut b, "action", true),
        resource: id(&mut b, "resource", true),
        subresource: id(&mut b, "subresource", false),
        namespace: id(&mut b, "namespace", true),
        name: id(&mut b, "name", true),
        outcome: id(&mut b, "outcome", true),
        code: b.add_u64_field("code", NumericOptions::default().set_indexed().set_fast()),
        address: b.add_text_field("address", TextOptions::default().set_fast("raw")),
        ip: b.add_ip_addr_field("ip", IpAddrOptions::default().set_indexed()),
        client: id(&mut b, "client", false),
        rule: id(&mut b, "rule", true),
        level: id(&mut b, "level", true),
        audit_id: b.add_text_field("audit_id", TextOptions::default().set_fast("raw")),
        alert_id: id(&mut b, "alert_id", false),
        text: b.add_text_field("text", TextOptions::default().set_indexing_options(indexing(WORDS))),
        extra: b.add_bytes_field("extra", STORED),
    };
    (b.build(), fields)
}

fn id(b: &mut SchemaBuilder, name: &str, column: bool) -> Field {
    let options = TextOptions::default().set_indexing_options(indexing("raw"));
    b.add_text_field(name, if column { options.set_fast("raw") } else { options })
}

fn indexing(tokenizer: &str) -> TextFieldIndexing {
    TextFieldIndexing::default()
        .set_tokenizer(tokenizer)
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic)
}

/// Tokenizers of the index; `raw` is tantivy's own.
pub(super) fn tokenizers() -> TokenizerManager {
    let manager = TokenizerManager::default();
    manager.register(WORDS, words());
    manager
}

/// The analyzer of the free text, for documents and queries alike.
pub(super) fn words() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default()).filter(RemoveLongFilter::limit(128)).filter(LowerCaser).build()
}
