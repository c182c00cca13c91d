//! `${NAME}` in a value is replaced by the environment variable; `$${` writes a plain `${`.
//!
//! A lone `$` is left alone (Event Hubs' user name is literally `$ConnectionString`). There is no
//! default form on purpose: an unset variable is an error, not an empty password.

use super::problem::Problem;
use super::tree::{Node, Value};

/// Replaces in every text of the tree; what cannot be replaced becomes a problem.
pub fn substitute(tree: &mut Node, lookup: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
    tree.texts_mut("", &mut |path, node| {
        let Value::Text(text) = &node.value else { return };
        if !text.contains("${") {
            return;
        }
        match expand(text, lookup) {
            Ok((expanded, used)) => {
                if used {
                    node.template = Some(text.clone());
                }
                node.value = Value::Text(expanded);
            }
            Err(whats) => problems.extend(whats.into_iter().map(|what| Problem::new(node.place, path, what))),
        }
    });
}

/// The expanded text and whether a variable was used, or everything that is wrong with it.
fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(String, bool), Vec<String>> {
    let (mut out, mut used, mut wrong) = (String::new(), false, Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            wrong.push("`${` without `}`; write `$${` for a plain `${`".into());
            break;
        };
        rest = tail;
        used = true;
        if !is_name(name) {
            wrong.push(format!("`${{{name}}}` is not the name of a variable; write `$${{` for a plain `${{`"));
        } else if let Some(value) = lookup(name) {
            out.push_str(&value);
        } else {
            wrong.push(format!("the environment variable `{name}` is not set; set it, or write the value here"));
        }
    }
    out.push_str(rest);
    if wrong.is_empty() { Ok((out, used)) } else { Err(wrong) }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<(String, bool), Vec<String>> {
        expand(text, &|name| match name {
            "HOST" => Some("siem".into()),
            "NESTED" => Some("${HOST}".into()),
            _ => None,
        })
    }

    #[test]
    fn variables_are_replaced_once() {
        assert_eq!(run("${HOST}:6514"), Ok(("siem:6514".into(), true)));
        assert_eq!(run("${HOST}${HOST}"), Ok(("siemsiem".into(), true)));
        assert_eq!(run("${NESTED}"), Ok(("${HOST}".into(), true)), "a value is not a template");
        assert_eq!(run("a $${HOST} b"), Ok(("a ${HOST} b".into(), false)));
        assert_eq!(run("$ConnectionString"), Ok(("$ConnectionString".into(), false)));
    }

    #[test]
    fn everything_wrong_is_said() {
        let wrong = run("${A} ${B-C} ${HOST").unwrap_err();
        assert_eq!(
            wrong,
            [
                "the environment variable `A` is not set; set it, or write the value here",
                "`${B-C}` is not the name of a variable; write `$${` for a plain `${`",
                "`${` without `}`; write `$${` for a plain `${`",
            ]
        );
    }
}
