//! Hits as CSV (RFC 4180), for people who open it in a spreadsheet: what would begin a formula there is text.

use super::search::when_exactly;
use crate::store::Hit;

/// The names of the columns, in order.
pub const COLUMNS: [&str; 21] = [
    "time",
    "kind",
    "position",
    "cluster",
    "level",
    "actor",
    "actingAs",
    "action",
    "verb",
    "resource",
    "namespace",
    "name",
    "outcome",
    "code",
    "address",
    "auditIDs",
    "rule",
    "id",
    "title",
    "summary",
    "count",
];

/// One hit as one record, without its line end.
pub fn hit(hit: &Hit) -> String {
    let code = hit.code.map(|code| code.to_string()).unwrap_or_default();
    let count = if hit.count == 0 { String::new() } else { hit.count.to_string() };
    record(&[
        &when_exactly(hit.time),
        match hit.kind {
            crate::store::Kind::Event => "event",
            crate::store::Kind::Alert => "alert",
            crate::store::Kind::Reject => "reject",
        },
        &hit.position.to_string(),
        &hit.cluster,
        hit.level.map_or("", |level| level.as_str()),
        &hit.actor,
        &hit.acting_as,
        &hit.action,
        &hit.verb,
        &hit.resource,
        &hit.namespace,
        &hit.name,
        &hit.outcome,
        &code,
        &hit.address,
        &hit.audit_ids.join(" "),
        &hit.rule,
        &hit.id,
        &hit.title,
        &hit.summary,
        &count,
    ])
}

/// Values as one record: each in quotes, so that commas and line breaks of a sender stay inside. One that a spreadsheet would
/// take for a formula gets an apostrophe before it; so does one that begins with an apostrophe, which tells them apart.
pub fn record(values: &[&str]) -> String {
    let mut out = String::new();
    for (i, value) in values.iter().enumerate() {
        out.push_str(if i == 0 { "\"" } else { ",\"" });
        if value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠']) {
            out.push('\'');
        }
        out.push_str(&value.replace('"', "\"\""));
        out.push('"');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads RFC 4180 as any reader does: records of values, quotes undone.
    fn parse(text: &str) -> Vec<Vec<String>> {
        let (mut records, mut record, mut value, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => value.extend(chars.next()),
                '"' => quoted = !quoted,
                ',' if !quoted => record.push(std::mem::take(&mut value)),
                '\r' if !quoted && chars.peek() == Some(&'\n') => {}
                '\n' if !quoted => {
                    record.push(std::mem::take(&mut value));
                    records.push(std::mem::take(&mut record));
                }
                c => value.push(c),
            }
        }
        assert!(!quoted && value.is_empty() && record.is_empty(), "an unfinished record");
        records
    }

    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("=HYPERLINK(\"http://evil\",\"x\")".to_owned()),
            Just("\r\n".to_owned()),
            Just("\",\"".to_owned()),
            Just("'".to_owned()),
            Just("@SUM(1)".to_owned()),
            Just("\t-1".to_owned()),
            any::<String>(),
        ];
        proptest::collection::vec(piece, 0..4).prop_map(|all| all.concat())
    }

    proptest! {
        #[test]
        fn each_record_comes_back_as_one_and_nothing_in_it_is_a_formula(
            rows in proptest::collection::vec(proptest::collection::vec(hostile(), 1..5), 1..4),
        ) {
            let mut text = String::new();
            for row in &rows {
                text.push_str(&record(&row.iter().map(String::as_str).collect::<Vec<_>>()));
                text.push_str("\r\n");
            }
            let back = parse(&text);
            for value in back.iter().flatten() {
                prop_assert!(!value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{value:?}");
            }
            let undone: Vec<Vec<String>> = back
                .into_iter()
                .map(|row| row.into_iter().map(|v| v.strip_prefix('\'').map(str::to_owned).unwrap_or(v)).collect())
                .collect();
            prop_assert_eq!(undone, rows);
        }
    }

    #[test]
    fn a_hit_has_a_value_for_each_column() {
        use crate::store::tests::filled;
        let dir = tempfile::tempdir().unwrap();
        let ask = crate::store::Ask {
            query: crate::store::Query::All,
            limit: 9,
            order: crate::store::Order::Newest,
            within: crate::store::search::TIME_LIMIT,
        };
        let hits = filled(dir.path()).searcher().unwrap().search(&ask).unwrap().hits;
        assert_eq!(hits.len(), 4);
        let text: String = hits.iter().map(|h| hit(h) + "\r\n").collect();
        let rows = parse(&text);
        assert_eq!(rows.len(), hits.len());
        for (row, hit) in rows.iter().zip(&hits) {
            assert_eq!(row.len(), COLUMNS.len());
            let json = serde_json::to_value(hit).unwrap();
            for (column, value) in COLUMNS.iter().zip(row) {
                let expected = match &json[column] {
                    serde_json::Value::Null => String::new(),
                    serde_json::Value::String(text) => text.clone(),
                    serde_json::Value::Array(all) => {
                        all.iter().filter_map(|v| v.as_str()).collect::<Vec<_>>().join(" ")
                    }
                    other => other.to_string(),
                };
                assert_eq!(*value, expected, "{column}");
            }
        }
    }
}
