//! The JSON Schema of a rule file's documents, for editors: made from the same lists the reader checks against.
//!
//! It says what can be said about shape, names of fields and modifiers. `lapwing rules check` says the rest:
//! conditions, references, values that do not fit a modifier.

use serde_json::{Map, Value, json};

use super::correlation::CorrelationKind;
use super::correlation_text::{BOUNDS, CORRELATION_KEYS, KILL_CHAIN};
use super::file::{FOREIGN_KEYS, LOG_SOURCE, OUR_KEYS, RELATIONS, STATUSES, TOP_KEYS};
use super::modifier;
use crate::alert::Level;
use crate::field;

/// The schema of one document.
pub fn schema() -> Value {
    let mut properties: Map<String, Value> = TOP_KEYS.iter().map(|key| ((*key).to_owned(), top(key))).collect();
    properties.extend(FOREIGN_KEYS.iter().map(|key| ((*key).to_owned(), json!(true))));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Lapwing rule",
        "description": "One document of a rule file: a Sigma detection, correlation or filter.",
        "type": "object",
        "required": ["title"],
        "oneOf": [
            { "required": ["detection", "logsource"] },
            { "required": ["correlation"] },
            { "required": ["filter", "logsource"] },
        ],
        "properties": properties,
        "patternProperties": { "^(x-|custom)": true },
        "additionalProperties": false,
        "$defs": {
            "text": { "type": ["string", "number", "boolean"] },
            "texts": one_or_list(&json!({ "$ref": "#/$defs/text" })),
            "date": { "type": "string", "pattern": "^[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}$" },
            "span": { "type": "string", "pattern": "^[0-9]+[smhd]$" },
            "value": { "type": ["string", "number", "boolean", "null"] },
            "selection": selection(),
            "items": items(),
            "elements": {
                "description": "Conditions that one element of a list meets, all of them.",
                "type": "object",
                "minProperties": 1,
                "patternProperties": any_item("[^|]+"),
                "additionalProperties": one_or_list(&json!({ "$ref": "#/$defs/value" })),
            },
        },
    })
}

fn one_or_list(one: &Value) -> Value {
    json!({ "anyOf": [one, { "type": "array", "items": one }] })
}

fn described(about: &str, mut schema: Value) -> Value {
    schema["description"] = about.into();
    schema
}

/// What stands under a key of a document.
fn top(key: &str) -> Value {
    let text = || json!({ "$ref": "#/$defs/text" });
    let texts = || json!({ "$ref": "#/$defs/texts" });
    match key {
        "title" => described("A short name for people.", json!({ "type": ["string", "number"], "maxLength": 256 })),
        "id" => described("Stays the same for ever; else `name`, else the name of the file.", text()),
        "name" => described("What correlations and filters call it.", text()),
        "status" => json!({ "enum": STATUSES }),
        "description" => described("Why it matters: part of every alert.", text()),
        "date" | "modified" => json!({ "$ref": "#/$defs/date" }),
        "tags" => described("For example `attack.t1609`.", texts()),
        "falsepositives" => described("When it is harmless: part of every alert.", texts()),
        "references" | "fields" | "scope" => texts(),
        "logsource" => log_source(),
        "level" => described("How grave it is; medium without one.", json!({ "enum": Level::ALL.map(Level::as_str) })),
        "related" => related(),
        "detection" => detection(&[]),
        "filter" => detection(&[("rules", json!({ "$ref": "#/$defs/texts" }))]),
        "correlation" => correlation(),
        "generate" => json!({ "type": "boolean" }),
        "lapwing" => ours(),
        _ => text(),
    }
}

fn log_source() -> Value {
    let mut properties: Map<String, Value> =
        LOG_SOURCE.iter().map(|(key, good)| ((*key).to_owned(), json!({ "enum": good }))).collect();
    properties.insert("definition".into(), json!({ "$ref": "#/$defs/text" }));
    json!({ "type": "object", "required": ["product"], "properties": properties, "additionalProperties": false })
}

fn related() -> Value {
    let one = json!({
        "type": "object",
        "properties": { "id": { "$ref": "#/$defs/text" }, "type": { "enum": RELATIONS } },
        "additionalProperties": false,
    });
    one_or_list(&one)
}

/// Lapwing's own keys.
fn ours() -> Value {
    let about = |key: &str| match key {
        "next_steps" => described("What to do, in order: part of every alert.", json!({ "$ref": "#/$defs/texts" })),
        "owner" => described("Who answers for this rule or filter.", json!({ "$ref": "#/$defs/text" })),
        "reason" => described("Why a filter exists.", json!({ "$ref": "#/$defs/text" })),
        "lists" => described(
            "Names of `rules.lists` it needs for `%name%`; it sleeps while one is empty.",
            json!({ "$ref": "#/$defs/texts" }),
        ),
        "expires" => described("A filter is ignored from this day on.", json!({ "$ref": "#/$defs/date" })),
        _ => described(
            "Kept for silence after a finding about the same thing; has no effect yet.",
            json!({ "$ref": "#/$defs/span" }),
        ),
    };
    let properties: Map<String, Value> = OUR_KEYS.iter().map(|key| ((*key).to_owned(), about(key))).collect();
    json!({
        "description": "What Sigma has no word for.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn detection(others: &[(&str, Value)]) -> Value {
    let mut properties = Map::new();
    properties.insert(
        "condition".into(),
        described("Joins the selections: `a and not 1 of b_*`.", json!({ "$ref": "#/$defs/texts" })),
    );
    properties.insert("timeframe".into(), json!(false));
    properties.extend(others.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let required: Vec<&str> = std::iter::once("condition").chain(others.iter().map(|(key, _)| *key)).collect();
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": { "$ref": "#/$defs/selection" },
    })
}

fn correlation() -> Value {
    let kinds = CorrelationKind::ALL.map(CorrelationKind::as_str);
    let mut bounds: Map<String, Value> =
        BOUNDS.iter().map(|key| ((*key).to_owned(), json!({ "type": "integer", "minimum": 0 }))).collect();
    bounds.insert("field".into(), json!({ "$ref": "#/$defs/texts" }));
    let about = |key: &str| match key {
        "type" => json!({ "enum": kinds }),
        "timespan" => described("For example `5m`.", json!({ "$ref": "#/$defs/span" })),
        "condition" => json!({ "type": "object", "properties": bounds, "additionalProperties": false }),
        "aliases" => json!({
            "type": "object",
            "additionalProperties": { "type": "object", "additionalProperties": { "$ref": "#/$defs/text" } },
        }),
        "generate" => json!({ "type": "boolean" }),
        "level" => described(
            "Of a kill chain: the least level of the findings that count.",
            json!({ "enum": ["low", "medium", "high", "critical"] }),
        ),
        _ => json!({ "$ref": "#/$defs/texts" }),
    };
    let properties: Map<String, Value> = CORRELATION_KEYS.iter().map(|key| ((*key).to_owned(), about(key))).collect();
    json!({
        "type": "object",
        "required": ["type", "timespan"],
        "anyOf": [{ "required": ["rules"] }, { "properties": { "type": { "const": KILL_CHAIN } } }],
        "properties": properties,
        "additionalProperties": false,
    })
}

/// All items of a map hold; one map of a list holds; texts are searched in the whole event.
fn selection() -> Value {
    let map = json!({ "$ref": "#/$defs/items" });
    let text = json!({ "type": ["string", "number"] });
    json!({ "anyOf": [
        map,
        { "type": "array", "minItems": 1, "items": { "anyOf": [map, text] } },
        text,
    ] })
}

fn items() -> Value {
    let escaped = |name: &str| name.replace('.', "\\.");
    let never = field::NEVER.iter().map(|(name, _)| *name);
    let mut names: Vec<String> = field::NAMES.iter().copied().chain(never).map(escaped).collect();
    names.extend(["annotations", "user\\.extra", "requestObject", "responseObject"].map(|p| format!("{p}\\.[^|]+")));
    let field = format!("({})?", names.join("|"));
    let modifiers = modifier::NAMES.iter().filter(|m| **m != "any").copied().collect::<Vec<_>>().join("|");
    let mut patterns = any_item(&field);
    patterns.insert(format!("^{field}(\\|({modifiers}))*$"), one_or_list(&json!({ "$ref": "#/$defs/value" })));
    json!({
        "description": "`field|modifier: value`; all of them must hold. The fields are in docs/fields.md.",
        "type": "object",
        "minProperties": 1,
        "patternProperties": patterns,
        "additionalProperties": false,
    })
}

/// `field|any`: one element of the list meets all nested conditions.
fn any_item(field: &str) -> Map<String, Value> {
    let nested = one_or_list(&json!({ "$ref": "#/$defs/elements" }));
    Map::from_iter([(format!("^{field}\\|any$"), nested)])
}
