//! Walks the configuration tree against the JSON Schema of `Config` and collects every problem:
//! unknown keys and values (with did-you-mean), wrong types, missing keys, bad units.
//!
//! It understands the part of JSON Schema that schemars writes for plain structs, enums, options,
//! lists, maps and internally tagged enums. What it does not understand it leaves to serde.

use serde_json::{Map, Value as Json};

use super::problem::Problem;
use super::tree::{Node, Value, join, shorten};
use super::units::{ByteSize, HumanDuration};

type Schema = Map<String, Json>;

/// Checks `tree` and turns values that came from the environment into the type the schema wants.
pub fn check(tree: &mut Node, schema: &Json) -> Vec<Problem> {
    let mut walk = Walk { root: schema, problems: Vec::new() };
    walk.node(tree, schema, "");
    walk.problems
}

struct Walk<'a> {
    root: &'a Json,
    problems: Vec<Problem>,
}

impl<'a> Walk<'a> {
    fn node(&mut self, node: &mut Node, schema: &'a Json, path: &str) {
        let Some(schema) = self.resolve(schema) else { return };
        if matches!(node.value, Value::Null) {
            // Also where leaving the key away would be right: a key without a value is a half-written thought.
            return self.say(node, path, format!("is empty; expected {}, or remove the key", expected(schema)));
        }
        if let Some(choices) = choices(schema) {
            return self.choice(node, &choices, path);
        }
        if let Some(Json::Array(branches)) = schema.get("oneOf") {
            return self.tagged(node, branches, path);
        }
        coerce(node, schema);
        if !fits(node, schema) {
            let hint = if wants_text(schema, node) { "; put it in quotes" } else { "" };
            let (expected, found) = (expected(schema), node.found());
            return self.say(node, path, format!("expected {expected}, found {found}{hint}"));
        }
        match &mut node.value {
            Value::Map(_) => self.map(node, schema, path),
            Value::List(items) => {
                let Some(inner) = schema.get("items") else { return };
                for (i, item) in items.iter_mut().enumerate() {
                    self.node(item, inner, &format!("{path}[{i}]"));
                }
            }
            Value::Text(_) => self.text(node, schema, path),
            Value::Number(_) => self.number(node, schema, path),
            _ => {}
        }
    }

    /// Follows `$ref`, and takes the one branch of an `anyOf` that is not `null`.
    fn resolve(&self, schema: &'a Json) -> Option<&'a Schema> {
        let mut schema = schema.as_object()?;
        for _ in 0..16 {
            if let Some(Json::String(pointer)) = schema.get("$ref") {
                schema = self.root.pointer(pointer.strip_prefix('#')?)?.as_object()?;
            } else if let Some(Json::Array(branches)) = schema.get("anyOf") {
                schema = branches.iter().find(|b| b["type"] != "null")?.as_object()?;
            } else {
                return Some(schema);
            }
        }
        None
    }

    fn map(&mut self, node: &mut Node, schema: &'a Schema, path: &str) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let known: Vec<&str> = properties.into_iter().flat_map(|p| p.keys()).map(String::as_str).collect();
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if node.entry(name).is_none() {
                let what = match properties.and_then(|p| p.get(name)).and_then(|s| self.resolve(s)) {
                    Some(wanted) => format!("missing; expected {}", expected(wanted)),
                    None => "missing".to_owned(),
                };
                self.say(node, &join(path, name), what);
            }
        }
        let Value::Map(entries) = &mut node.value else { return };
        for entry in entries {
            let path = join(path, &entry.key);
            match (properties.and_then(|p| p.get(&entry.key)), schema.get("additionalProperties")) {
                (Some(inner), _) => self.node(&mut entry.node, inner, &path),
                (None, Some(Json::Bool(false))) => {
                    let what = format!("unknown key; {}", self.way_out(&entry.key, &known));
                    self.problems.push(Problem::new(entry.key_place, path, what));
                }
                (None, Some(inner @ Json::Object(_))) => self.node(&mut entry.node, inner, &path),
                (None, _) => {}
            }
        }
    }

    /// For an unknown key: the close one here, else where else it is known, else what is known here.
    fn way_out(&self, key: &str, known: &[&str]) -> String {
        if let Some(close) = closest(key, known) {
            return format!("did you mean `{close}`?");
        }
        let mut homes = Vec::new();
        self.homes(key, self.root, "", 0, &mut homes);
        if let Some(home) = homes.first() {
            return format!("did you mean `{home}`?");
        }
        format!("known here: {}", list(known))
    }

    /// Where the schema knows `key`, outermost first as the walk meets them. Bounded in depth.
    fn homes(&self, key: &str, schema: &'a Json, path: &str, depth: usize, found: &mut Vec<String>) {
        let Some(schema) = self.resolve(schema).filter(|_| depth < 6) else { return };
        for (name, inner) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let path = join(path, name);
            if name == key {
                found.push(path.clone());
            }
            self.homes(key, inner, &path, depth + 1, found);
        }
        if let Some(items) = schema.get("items") {
            self.homes(key, items, &format!("{path}[]"), depth + 1, found);
        }
    }

    /// An enum whose variants are told apart by a key such as `type`.
    fn tagged(&mut self, node: &mut Node, branches: &'a [Json], path: &str) {
        let consts = |branch: &'a Json| {
            let properties = branch.get("properties").and_then(Json::as_object);
            properties.into_iter().flatten().find_map(|(k, s)| Some((k.as_str(), s.get("const")?.as_str()?)))
        };
        let tagged: Vec<(&str, &str, &Json)> =
            branches.iter().filter_map(|b| consts(b).map(|(k, v)| (k, v, b))).collect();
        let Some(&(tag, ..)) = tagged.first() else { return };
        let names: Vec<&str> = tagged.iter().map(|(_, name, _)| *name).collect();
        if !matches!(node.value, Value::Map(_)) {
            let found = node.found();
            return self.say(node, path, format!("expected a map with `{tag}`, found {found}"));
        }
        let Some(entry) = node.entry(tag) else {
            let what = format!("missing; expected one of {}", list(&names));
            return self.say(node, &join(path, tag), what);
        };
        let chosen = tagged.iter().find(|(_, name, _)| matches!(&entry.node.value, Value::Text(t) if t == name));
        match chosen {
            Some((_, _, branch)) => {
                if let Some(schema) = branch.as_object() {
                    self.map(node, schema, path);
                }
            }
            None => {
                let choices = names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
                let mut tag_node = entry.node.clone();
                self.choice(&mut tag_node, &choices, &join(path, tag));
            }
        }
    }

    fn choice(&mut self, node: &mut Node, choices: &[String], path: &str) {
        let known: Vec<&str> = choices.iter().map(String::as_str).collect();
        if let Value::Text(text) = &node.value {
            if known.contains(&text.as_str()) {
                return;
            }
            if node.template.is_none()
                && let Some(close) = closest(text, &known)
            {
                let what = format!("unknown value `{}`; did you mean `{close}`?", shorten(text));
                return self.say(node, path, what);
            }
        }
        let found = node.found();
        self.say(node, path, format!("expected one of {}, found {found}", list(&known)));
    }

    fn text(&mut self, node: &Node, schema: &Schema, path: &str) {
        let Value::Text(text) = &node.value else { return };
        let wrong = match schema.get("x-lapwing").and_then(Json::as_str) {
            Some("duration") => problem_of(text.parse::<HumanDuration>(), |d| d.0.is_zero()),
            Some("size") => problem_of(text.parse::<ByteSize>(), |s| s.0 == 0),
            _ => None,
        };
        if let Some(wrong) = wrong {
            let expected = expected(schema);
            let what = match &node.template {
                Some(_) => format!("expected {expected}, found {}", node.found()),
                None => format!("expected {expected}: {wrong}"),
            };
            self.say(node, path, what);
        }
    }

    fn number(&mut self, node: &Node, schema: &Schema, path: &str) {
        let Value::Number(number) = &node.value else { return };
        let Some(value) = number.as_f64() else { return };
        let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
        if bound("minimum").is_some_and(|min| value < min) || bound("maximum").is_some_and(|max| value > max) {
            let (expected, found) = (expected(schema), node.found());
            self.say(node, path, format!("expected {expected}, found {found}"));
        }
    }

    fn say(&mut self, node: &Node, path: &str, what: String) {
        self.problems.push(Problem::new(node.place, path, what));
    }
}

fn problem_of<T>(parsed: Result<T, impl ToString>, zero: impl Fn(&T) -> bool) -> Option<String> {
    match parsed {
        Ok(value) if zero(&value) => Some("must be more than zero".into()),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn types(schema: &Schema) -> impl Iterator<Item = &str> {
    match schema.get("type") {
        Some(Json::String(one)) => std::slice::from_ref(one).iter().map(String::as_str).collect::<Vec<_>>(),
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
    .into_iter()
}

fn fits(node: &Node, schema: &Schema) -> bool {
    let mut types = types(schema).peekable();
    types.peek().is_none()
        || types.any(|t| match (&node.value, t) {
            (Value::Null, "null") | (Value::Bool(_), "boolean") | (Value::Text(_), "string") => true,
            (Value::Number(n), "integer") => n.is_i64() || n.is_u64(),
            (Value::Number(_), "number") | (Value::List(_), "array") | (Value::Map(_), "object") => true,
            _ => false,
        })
}

fn wants_text(schema: &Schema, node: &Node) -> bool {
    let scalar = matches!(node.value, Value::Bool(_) | Value::Number(_));
    scalar && schema.get("x-lapwing").is_none() && types(schema).any(|t| t == "string")
}

/// A replaced `${PORT}` is text; where a number or a flag is wanted, read it as one.
fn coerce(node: &mut Node, schema: &Schema) {
    let (Value::Text(text), Some(_)) = (&node.value, &node.template) else { return };
    let read = match serde_json::from_str(text.trim()) {
        Ok(Json::Number(n)) => Value::Number(n),
        Ok(Json::Bool(b)) => Value::Bool(b),
        _ => return,
    };
    let as_read = Node { value: read, ..node.clone() };
    if !fits(node, schema) && fits(&as_read, schema) {
        *node = as_read;
    }
}

/// The values of a plain enum, in either form schemars writes.
fn choices(schema: &Schema) -> Option<Vec<String>> {
    let text = |value: &Json| value.as_str().map(str::to_owned);
    if let Some(Json::Array(values)) = schema.get("enum") {
        return Some(values.iter().filter_map(text).collect());
    }
    let Some(Json::Array(branches)) = schema.get("oneOf") else { return None };
    let mut all = Vec::new();
    for branch in branches {
        match (branch.get("const"), branch.get("enum")) {
            (Some(one), _) => all.push(text(one)?),
            (_, Some(Json::Array(many))) => all.extend(many.iter().filter_map(text)),
            _ => return None,
        }
    }
    Some(all)
}

fn expected(schema: &Schema) -> String {
    if let Some(choices) = choices(schema) {
        return format!("one of {}", list(&choices.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    match schema.get("x-lapwing").and_then(Json::as_str) {
        Some("duration") => return "a duration such as `90s`, `1h` or `30d`".into(),
        Some("size") => return "a size such as `64MiB` or `20GiB`".into(),
        _ => {}
    }
    match types(schema).find(|t| *t != "null") {
        Some("string") => "text".into(),
        Some("integer") => {
            let bound = |key| schema.get(key).and_then(Json::as_u64);
            match (bound("minimum"), bound("maximum")) {
                (Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
                (Some(min), None) => format!("a whole number from {min}"),
                _ => "a whole number".into(),
            }
        }
        Some("number") => "a number".into(),
        Some("boolean") => "`true` or `false`".into(),
        Some("array") => "a list".into(),
        Some("object") => "a map".into(),
        None if schema.contains_key("oneOf") => "a map".into(),
        _ => "another value".into(),
    }
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    quoted.join(", ")
}

/// The candidate a person most likely meant: same letters in another case or with other dashes, one the
/// beginning of the other, or at most a third of its letters different.
pub fn closest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let word = plain(word);
    let starts = |c: &&str| plain(c).len() >= 4 && (word.starts_with(&plain(c)) || plain(c).starts_with(&word));
    if word.len() >= 4
        && let Some(longer) = candidates.iter().find(|c| starts(c))
    {
        return Some(longer);
    }
    let scored = candidates.iter().map(|c| (strsim::damerau_levenshtein(&word, &plain(c)), *c));
    let (distance, best) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= (best.len() / 3).max(1) && distance < word.len()).then_some(best)
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::Value as Json;

    use super::super::{env, tree};
    use super::{check, closest};

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Sample {
        port: u16,
        level: Option<Level>,
        on: Option<bool>,
        ratio: Option<f64>,
        labels: Option<std::collections::BTreeMap<String, u8>>,
    }

    #[derive(JsonSchema)]
    #[schemars(rename_all = "lowercase")]
    #[expect(dead_code, reason = "only its schema is looked at")]
    enum Level {
        /// With a description, schemars writes enums differently.
        Low,
        /// Another.
        High,
    }

    /// What is said about `text`, and the values afterwards; every variable `X` holds `x`.
    fn said(text: &str, x: &str) -> (Vec<String>, Json) {
        let mut tree = tree::parse(text).unwrap();
        env::substitute(&mut tree, &|_| Some(x.to_owned()), &mut Vec::new());
        let problems = check(&mut tree, &schemars::schema_for!(Sample).to_value());
        (problems.iter().map(ToString::to_string).collect(), tree.to_json())
    }

    #[test]
    fn numbers_have_bounds() {
        let expected = |found| format!("`port`: expected a whole number from 0 to 65535, found the number `{found}`");
        for number in ["65536", "-1", "1.5"] {
            assert_eq!(said(&format!("port: {number}"), "").0, [expected(number)]);
        }
        assert!(said("port: 65535\nratio: 1\non: true\nlevel: low\nlabels: { a: 255 }", "").0.is_empty());
        assert_eq!(
            said("port: 1\nlabels: { a: 256 }", "").0,
            ["`labels.a`: expected a whole number from 0 to 255, found the number `256`"]
        );
    }

    #[test]
    fn a_key_without_a_value_is_a_problem() {
        assert_eq!(
            said("port: 1\nlevel:\nratio: ~", "").0,
            [
                "`level`: is empty; expected one of `low`, `high`, or remove the key",
                "`ratio`: is empty; expected a number, or remove the key"
            ]
        );
    }

    #[test]
    fn variables_become_what_is_wanted() {
        let (problems, json) = said("port: ${X}\nratio: ${X}", "8443");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(json, serde_json::json!({ "port": 8443, "ratio": 8443 }));
        assert_eq!(said("port: 1\non: ${X}", "true").1["on"], true);
    }

    #[test]
    fn the_value_of_a_variable_is_never_repeated() {
        for key in ["port", "level", "on", "labels"] {
            let (problems, _) = said(&format!("{key}: ${{X}}"), "hihg");
            assert!(problems.iter().any(|p| p.contains("the value of `${X}`")), "{problems:?}");
            assert!(!problems.iter().any(|p| p.contains("hihg")), "{problems:?}");
        }
    }

    #[test]
    fn the_close_word_is_found_and_the_far_one_is_not() {
        let known = ["minLevel", "name", "type", "address", "tls"];
        for (word, meant) in [
            ("min_level", Some("minLevel")),
            ("minlevl", Some("minLevel")),
            ("adress", Some("address")),
            ("nmae", Some("name")),
            ("tsl", Some("tls")),
            ("addr", Some("address")),
            ("typeOfOutput", Some("type")),
            ("password", None),
            ("x", None),
        ] {
            assert_eq!(closest(word, &known), meant, "{word}");
        }
    }
}
