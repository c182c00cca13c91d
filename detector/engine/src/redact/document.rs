//! Redaction of one JSON document: which strings are secrets by their place, and which by their text.

use std::borrow::Cow;

use super::tape::{Kind, NONE, Node, Tape};
use super::trigger::Hits;
use super::{is_marker, marker, name, text, trigger, uri};

/// JSON inside a string inside JSON …: read so many levels deep, pattern-redacted below.
const MAX_EMBEDDED: usize = 4;
/// Words of a command looked at for its program.
const MAX_WORDS: usize = 64;

/// What a `data` without a kind of its own belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource {
    Secrets,
    ConfigMaps,
    Other,
    /// Not an event, or damaged: better too much than too little.
    Unknown,
}

/// What a value is by its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    /// Within the data of a config map.
    Config,
    /// Within the data of a secret: nothing of it stays.
    Gone,
}

/// `None` when there is nothing to redact.
pub(super) fn redact(json: &str) -> Option<String> {
    let tape = Tape::read(json);
    let resource = if tape.whole { event_resource(&tape, json) } else { Resource::Unknown };
    edit(json, &tape, resource, 0)
}

fn edit(json: &str, tape: &Tape, resource: Resource, embedded: usize) -> Option<String> {
    let edits = Pass { json, tape, resource, embedded, roles: Vec::with_capacity(tape.nodes.len()) }.edits();
    let changed = (!edits.is_empty()).then(|| apply(json, &edits));
    if tape.whole {
        return changed;
    }
    text::redact_damaged(changed.as_deref().unwrap_or(json)).or(changed)
}

fn apply(json: &str, edits: &[(u32, u32, String)]) -> String {
    let mut out = String::with_capacity(json.len());
    let mut at = 0;
    for (start, end, new) in edits {
        out.push_str(&json[at..*start as usize]);
        out.push_str(new);
        at = *end as usize;
    }
    out.push_str(&json[at..]);
    out
}

/// From the top-level `objectRef.resource`; if several are there, secrets win.
fn event_resource(tape: &Tape, json: &str) -> Resource {
    let mut is_event = false;
    let mut found = None;
    for node in &tape.nodes {
        let key = &json[node.key.0 as usize..node.key.1 as usize];
        if node.parent == 0 {
            is_event |= matches!(key, "auditID" | "verb" | "requestURI");
        } else if key == "resource" && node.kind == Kind::String {
            let parent = tape.nodes[node.parent as usize];
            if parent.parent == 0 && &json[parent.key.0 as usize..parent.key.1 as usize] == "objectRef" {
                found = Some(match inner(json, node) {
                    _ if found == Some(Resource::Secrets) => Resource::Secrets,
                    "secrets" => Resource::Secrets,
                    "configmaps" => Resource::ConfigMaps,
                    _ => Resource::Other,
                });
            }
        }
    }
    match found {
        Some(resource) if is_event => resource,
        _ => Resource::Unknown,
    }
}

/// A string's raw text between its quotes; the closing one may be missing in damaged JSON.
fn inner<'a>(json: &'a str, node: &Node) -> &'a str {
    let whole = &json[node.start as usize + 1..node.end as usize];
    whole.strip_suffix('"').unwrap_or(whole)
}

struct Pass<'a> {
    json: &'a str,
    tape: &'a Tape,
    resource: Resource,
    embedded: usize,
    roles: Vec<Role>,
}

impl<'a> Pass<'a> {
    fn edits(mut self) -> Vec<(u32, u32, String)> {
        let mut hits = Hits::new(self.json);
        let mut edits = Vec::new();
        for node in &self.tape.nodes {
            let role = self.role(node);
            self.roles.push(role);
            let new = match node.kind {
                Kind::String => {
                    let hit = hits.within(node.start as usize, node.end as usize);
                    self.string(node, role, hit).map(|new| quote(&new, self.closed(node)))
                }
                Kind::Number if role == Role::Gone => {
                    Some(quote(&New::Plain(marker((node.end - node.start) as usize)), true))
                }
                _ => None,
            };
            edits.extend(new.map(|new| (node.start, node.end, new)));
        }
        edits
    }

    fn closed(&self, node: &Node) -> bool {
        node.end > node.start + 1 && self.json.as_bytes()[node.end as usize - 1] == b'"'
    }

    fn key(&self, node: &Node) -> Cow<'a, str> {
        unescape(&self.json[node.key.0 as usize..node.key.1 as usize]).unwrap_or(Cow::Borrowed(""))
    }

    /// The string under one of the keys a container remembers.
    fn text_of(&self, index: u32) -> Option<Cow<'a, str>> {
        self.tape.nodes.get(index as usize).and_then(|n| unescape(inner(self.json, n)))
    }

    fn role(&self, node: &Node) -> Role {
        let inherited = self.roles.get(node.parent as usize).copied().unwrap_or(Role::Plain);
        if inherited != Role::Plain || node.parent == NONE {
            return inherited;
        }
        match &self.json[node.key.0 as usize..node.key.1 as usize] {
            "stringData" => Role::Gone,
            "data" => self.data_role(node.parent),
            "value" => self.patch_role(node.parent),
            // A body that is one string (a patch no one could read) of a secret.
            "requestObject" | "responseObject"
                if node.kind == Kind::String && self.resource == Resource::Secrets && node.parent == 0 =>
            {
                Role::Gone
            }
            _ => Role::Plain,
        }
    }

    /// Of `data`, by the kind of the object it is in, or of the list that object is in.
    fn data_role(&self, object: u32) -> Role {
        let mut at = object;
        for _ in 0..4 {
            let Some(container) = self.tape.container(at) else { break };
            match self.text_of(container.kind).as_deref() {
                Some("Secret" | "SecretList") => return Role::Gone,
                Some("ConfigMap" | "ConfigMapList") => return Role::Config,
                Some("List" | "Table" | "Event" | "") | None => {}
                Some(_) if self.resource == Resource::Secrets => return Role::Gone,
                Some(_) => return Role::Plain,
            }
            at = self.tape.nodes[at as usize].parent;
        }
        self.unnamed()
    }

    fn unnamed(&self) -> Role {
        match self.resource {
            Resource::Secrets | Resource::Unknown => Role::Gone,
            Resource::ConfigMaps => Role::Config,
            Resource::Other => Role::Plain,
        }
    }

    /// Of `value` in `{"op":"replace","path":"/data/password","value":…}`.
    fn patch_role(&self, object: u32) -> Role {
        let path = self.tape.container(object).and_then(|c| self.text_of(c.path));
        match path.as_deref() {
            Some(p) if p == "/stringData" || p.starts_with("/stringData/") => Role::Gone,
            Some(p) if p == "/data" || p.starts_with("/data/") => self.unnamed(),
            _ => Role::Plain,
        }
    }

    /// The new text of a string, `None` to leave it.
    fn string(&self, node: &Node, role: Role, hit: bool) -> Option<New> {
        let raw = inner(self.json, node);
        if raw.is_empty() || is_marker(raw) {
            return None;
        }
        if role == Role::Gone || self.is_credential(node, role) {
            return Some(New::Plain(marker(unescape(raw).map_or(raw.len(), |s| s.len()))));
        }
        // A command of a container: the programs it may name are no triggers of their own.
        let in_command = node.key == (0, 0) && text::names_program(raw);
        let is_uri = node.parent == 0 && self.embedded == 0 && self.key(node) == "requestURI";
        let signed = is_uri && trigger::has_signature(raw);
        if !hit && !in_command && !signed {
            return self.after_flag(node, raw).map(New::Plain);
        }
        let Some(plain) = unescape(raw) else {
            // No Unicode text: patterns on the escaped form.
            return text::redact(raw).map(New::Escaped);
        };
        let new = if is_uri {
            uri::redact(&plain)
        } else {
            self.after_flag(node, raw).or_else(|| self.embedded(&plain)).or_else(|| text::redact(&plain))
        };
        new.map(New::Plain)
    }

    /// By the name it is under, or by the `name` beside its `value`.
    fn is_credential(&self, node: &Node, role: Role) -> bool {
        let Some(container) = self.tape.container(node.parent) else { return false };
        if node.key == (0, 0) {
            return false;
        }
        let key = self.key(node);
        if role == Role::Config && key != "value" {
            return name::promises_credential(&key);
        }
        if key == "value" {
            let path = self.text_of(container.path).filter(|_| role == Role::Config);
            let named = path.as_deref().and_then(|p| p.rsplit('/').next().map(str::to_owned));
            return named
                .or_else(|| self.text_of(container.name).map(Cow::into_owned))
                .is_some_and(|n| name::promises_credential(&n));
        }
        name::is_credential_key(&key)
    }

    /// An element of a command that is a credential by its place.
    fn after_flag(&self, node: &Node, raw: &str) -> Option<String> {
        if node.key != (0, 0) || node.link == NONE {
            return None;
        }
        let before = self.text_of(node.link)?;
        if !before.starts_with('-') && !raw.starts_with("-p") {
            return None;
        }
        let value = unescape(raw).unwrap_or(Cow::Borrowed(raw));
        text::behind_flag(&self.first_word(node)?, Some(&before), &value)
    }

    /// The first string of the array that `node` is in, looked for as far as commands are long.
    fn first_word(&self, node: &Node) -> Option<Cow<'a, str>> {
        let mut first = node.link;
        for _ in 0..MAX_WORDS {
            match self.tape.nodes[first as usize].link {
                NONE => break,
                earlier => first = earlier,
            }
        }
        self.text_of(first)
    }

    /// A string that is JSON itself, like the last applied configuration.
    fn embedded(&self, plain: &str) -> Option<String> {
        if self.embedded == MAX_EMBEDDED || !plain.trim_start().starts_with(['{', '[']) {
            return None;
        }
        let tape = Tape::read(plain);
        if !tape.whole {
            return None;
        }
        edit(plain, &tape, self.resource, self.embedded + 1)
    }
}

/// The new text of a string.
enum New {
    Plain(String),
    /// Still escaped as it was.
    Escaped(String),
}

fn quote(text: &New, closed: bool) -> String {
    let mut quoted = match text {
        New::Escaped(raw) => format!("\"{raw}\""),
        New::Plain(text) => serde_json::to_string(text).expect("a string is always JSON"),
    };
    if !closed {
        quoted.pop();
    }
    quoted
}

/// The text a JSON string stands for; `None` if it stands for no Unicode text.
fn unescape(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('\\') {
        return Some(Cow::Borrowed(raw));
    }
    serde_json::from_str::<String>(&format!("\"{raw}\"")).ok().map(Cow::Owned)
}
