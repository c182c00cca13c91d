//! One alert as one JSON record, in our own shape or in OCSF, within a size.

use lapwing_engine::alert::Alert;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::encode::json_line;
use super::{ocsf, shrink};

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As everywhere: `schemas/alert.schema.json`.
    #[default]
    Json,
    /// OCSF 1.5.0 Detection Finding (class 2004).
    Ocsf,
}

/// `alert` as one line of JSON of at most `max` bytes. What did not fit is left out; our own shape then says
/// `"truncated": true`.
pub fn line(alert: &Alert, format: Format, max: usize) -> String {
    shrink::fit(alert, max, |alert, cut| {
        let value = match format {
            Format::Json => own(alert, cut),
            Format::Ocsf => ocsf::finding(alert),
        };
        json_line(&value).unwrap_or_default()
    })
}

/// `alert` in our own shape.
pub fn own(alert: &Alert, cut: bool) -> Value {
    let mut value = serde_json::to_value(alert).unwrap_or_default();
    if cut {
        value["truncated"] = true.into();
    }
    value
}
