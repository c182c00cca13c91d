//! A translated rule as Sigma text.

use std::fmt::Write as _;

use super::tree::{Item, Tree, Want};

/// What stands around the detection.
#[derive(Debug)]
pub struct Head<'h> {
    pub id: &'h str,
    pub title: &'h str,
    pub description: &'h str,
    pub tags: &'h [String],
    pub level: &'static str,
    /// What the original does not see; written as a comment.
    pub blind: &'h [String],
}

/// The whole file.
pub fn rule(head: &Head<'_>, tree: &Tree) -> String {
    let mut detection = Detection::default();
    let condition = detection.condition(tree, false, true);
    let mut out = String::new();
    for line in head.blind {
        let _ = writeln!(out, "# blind: {}", line.replace(['\n', '\r'], " "));
    }
    let _ = writeln!(out, "title: {}", scalar(&cut(head.title, 256)));
    let _ = writeln!(out, "id: {}", head.id);
    let _ = writeln!(out, "status: experimental");
    let _ = writeln!(out, "description: {}", scalar(&cut(head.description.trim(), 60_000)));
    if !head.tags.is_empty() {
        let tags: Vec<String> = head.tags.iter().map(|t| scalar(t)).collect();
        let _ = writeln!(out, "tags: [{}]", tags.join(", "));
    }
    let _ = writeln!(out, "logsource: {{ product: kubernetes, service: audit }}\ndetection:");
    for (name, items) in &detection.selections {
        let _ = writeln!(out, "    {name}:");
        items.iter().for_each(|(key, want)| entry(&mut out, 8, key, want));
    }
    let _ = writeln!(out, "    condition: {}", scalar(&condition));
    let _ = writeln!(out, "level: {}", head.level);
    out
}

fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

fn entry(out: &mut String, indent: usize, key: &str, want: &Want) {
    let _ = write!(out, "{:indent$}{}:", "", scalar_key(key));
    match want {
        Want::Bool(b) => {
            let _ = writeln!(out, " {b}");
        }
        Want::Values(values) | Want::Keywords(values) => match values.as_slice() {
            [one] => {
                let _ = writeln!(out, " {}", value(key, one));
            }
            many => {
                out.push('\n');
                for v in many {
                    let _ = writeln!(out, "{:1$}- {2}", "", indent + 4, value(key, v));
                }
            }
        },
        Want::Element(inner) => {
            out.push('\n');
            inner.iter().for_each(|(key, want)| entry(out, indent + 4, key, want));
        }
    }
}

fn value(key: &str, text: &str) -> String {
    let number = ["|lt", "|lte", "|gt", "|gte"].iter().any(|m| key.ends_with(m));
    if number || matches!(text, "true" | "false") { text.to_owned() } else { scalar(text) }
}

fn scalar_key(key: &str) -> String {
    if key.starts_with('|') { format!("'{key}'") } else { scalar(key) }
}

/// A YAML scalar that reads back as this text.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./|".contains(c))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        serde_json::Value::from(text).to_string()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[derive(Debug, Default)]
struct Detection {
    selections: Vec<(String, Vec<(String, Want)>)>,
}

impl Detection {
    /// Writes the selections of `tree` and returns the condition over them.
    fn condition(&mut self, tree: &Tree, negated: bool, top: bool) -> String {
        let text = match tree {
            Tree::Item(item) => return self.selection(vec![item], negated),
            Tree::Not(part) => return format!("not {}", self.condition(part, !negated, false)),
            Tree::Always(_) => return String::new(),
            Tree::And(parts) => {
                let mut maps: Vec<Vec<&Item>> = Vec::new();
                for part in parts {
                    let Tree::Item(item) = part else { continue };
                    let free = maps.iter_mut().find(|m| m.iter().all(|i| i.key != item.key));
                    match free {
                        Some(map) => map.push(item),
                        None => maps.push(vec![item]),
                    }
                }
                let mut words: Vec<String> = maps.into_iter().map(|m| self.selection(m, negated)).collect();
                let others = parts.iter().filter(|p| !matches!(p, Tree::Item(_)));
                words.extend(others.map(|p| self.condition(p, negated, false)));
                if words.len() == 1 {
                    return words.remove(0);
                }
                words.join(" and ")
            }
            Tree::Or(parts) => {
                let words: Vec<String> = parts.iter().map(|p| self.condition(p, negated, false)).collect();
                words.join(" or ")
            }
        };
        if top { text } else { format!("({text})") }
    }

    /// The name of a selection of these items; the same items share one.
    fn selection(&mut self, items: Vec<&Item>, negated: bool) -> String {
        let items: Vec<(String, Want)> = items.into_iter().map(|i| (i.key.clone(), i.want.clone())).collect();
        if let Some((name, _)) = self.selections.iter().find(|(_, known)| *known == items) {
            return name.clone();
        }
        let stem = if negated { "filter" } else { "selection" };
        let same = self.selections.iter().filter(|(n, _)| n.starts_with(stem)).count();
        let name = if same == 0 { stem.to_owned() } else { format!("{stem}_{}", same + 1) };
        self.selections.push((name.clone(), items));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_read_back() {
        for text in ["a", "true", "it's", "*", "a: b", "", "l1\nl2", "\\*", "2", "- x", "#", "no", "é", "a\tb"] {
            let yaml = format!("k: {}", scalar(text));
            let nodes = lapwing_engine::rule::yaml::documents(&yaml).expect(text);
            let value = nodes[0].get("k").unwrap();
            assert_eq!(value.value, lapwing_engine::rule::yaml::Value::Str(text.to_owned()), "{yaml}");
        }
    }
}
