//! Files the configuration names: paths are made absolute against the configuration's directory, and
//! what must be readable at start is tried.
//!
//! Which keys are paths is a convention, so that parts need no special types: `cert`, `key`, `ca` and
//! `clientCa` under a `tls`, every key that ends in `File`, and the few paths listed in `role`.

use std::path::Path;

use super::problem::Problem;
use super::tree::{Node, Value};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Must be a readable, non-empty file now.
    Input,
    /// Must exist: a file or a directory.
    Existing,
    /// Is created, or appears, later.
    Later,
}

/// What a key path names, `None` when it is no path.
fn role(path: &str) -> Option<Role> {
    let plain: String = path.split('[').map(|s| s.split_once(']').map_or(s, |(_, rest)| rest)).collect();
    let (parent, key) = plain.rsplit_once('.').unwrap_or(("", &plain));
    let in_tls = parent.to_ascii_lowercase().ends_with("tls");
    match (plain.as_str(), key) {
        ("dataDir" | "sources.files.path" | "outputs.path", _) => Some(Role::Later),
        ("rules.paths", _) => Some(Role::Existing),
        (_, "cert" | "key" | "ca" | "clientCa") if in_tls => Some(Role::Input),
        (_, key) if key.ends_with("File") => Some(Role::Input),
        _ => None,
    }
}

/// Makes paths in `tree` absolute and reports the ones that cannot be used.
pub fn resolve(tree: &mut Node, base: &Path, problems: &mut Vec<Problem>) {
    tree.texts_mut("", &mut |path, node| {
        let Some(role) = role(path) else { return };
        let Value::Text(text) = &mut node.value else { return };
        if text.is_empty() {
            return problems.push(Problem::new(node.place, path, "is empty; expected the path of a file"));
        }
        let file = std::path::absolute(base.join(&*text)).unwrap_or_else(|_| base.join(&*text));
        if let Some(what) = complaint(&file, role) {
            problems.push(Problem::new(node.place, path, what));
        }
        *text = file.to_string_lossy().into_owned();
    });
}

fn complaint(file: &Path, role: Role) -> Option<String> {
    let shown = file.display();
    let unusable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("`{shown}` does not exist; relative paths start at the directory of this file")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("`{shown}` is not readable by this user; change its owner or mode")
        }
        _ => format!("`{shown}`: {error}"),
    };
    match role {
        Role::Later => None,
        Role::Existing => std::fs::metadata(file).err().map(unusable),
        Role::Input => match std::fs::File::open(file).and_then(|f| f.metadata()) {
            Err(error) => Some(unusable(error)),
            Ok(meta) if meta.is_dir() => Some(format!("`{shown}` is a directory; expected a file")),
            Ok(meta) if meta.is_file() && meta.len() == 0 => Some(format!("`{shown}` is empty")),
            Ok(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Role, role};

    #[test]
    fn which_keys_are_paths() {
        for (path, expected) in [
            ("dataDir", Some(Role::Later)),
            ("sources.webhook.tls.cert", Some(Role::Input)),
            ("sources.webhook.tls.clientCa", Some(Role::Input)),
            ("sources.webhook.clusters[3].tokenFile", Some(Role::Input)),
            ("outputs[0].path", Some(Role::Later)),
            ("outputs[0].key", None),
            ("rules.paths[10]", Some(Role::Existing)),
            ("sources.files[0].path", Some(Role::Later)),
            ("sources.files[0].cluster", None),
        ] {
            assert_eq!(role(path), expected, "{path}");
        }
    }
}
