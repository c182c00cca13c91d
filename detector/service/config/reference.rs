//! `docs/configuration.md`: its list of keys is written from the schema, so that it cannot drift. Only in
//! tests; record it again with `LAPWING_RECORD=1`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value as Json;

use super::Config;
use super::tree::join;

const BEGIN: &str = "<!-- keys: written from the schema -->\n";
const END: &str = "<!-- end of keys -->\n";

#[test]
fn the_reference_lists_the_keys_of_the_types() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let fresh = format!("{head}{BEGIN}{}{END}{tail}", keys());
    if std::env::var_os("LAPWING_RECORD").is_some() {
        std::fs::write(&file, &fresh).unwrap();
    } else {
        assert!(text == fresh, "record it again with LAPWING_RECORD=1");
    }
}

#[test]
fn recipes_are_readable() {
    for name in ["audit-policy.yaml", "webhook.kubeconfig.yaml"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/apiserver").join(name);
        let json = super::tree::parse(&std::fs::read_to_string(file).unwrap()).unwrap().to_json();
        assert!(json["apiVersion"].is_string(), "{name}");
        let levels = ["None", "Metadata", "Request", "RequestResponse"];
        for rule in json["rules"].as_array().into_iter().flatten() {
            assert!(levels.contains(&rule["level"].as_str().unwrap()), "{rule}");
        }
    }
}

#[test]
fn the_policy_never_records_the_content_of_secrets() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/apiserver/audit-policy.yaml");
    let policy = super::tree::parse(&std::fs::read_to_string(file).unwrap()).unwrap().to_json();
    for (group, resource) in
        [("", "secrets"), ("", "configmaps"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews")]
    {
        let names = |rule: &Json| {
            rule["resources"].as_array().is_none_or(|all| {
                all.iter().any(|r| {
                    let kinds = r["resources"].as_array();
                    r["group"] == group && kinds.is_none_or(|kinds| kinds.iter().any(|k| k == resource))
                })
            })
        };
        let first = policy["rules"].as_array().unwrap().iter().find(|rule| names(rule)).unwrap();
        assert_eq!(first["level"], "Metadata", "{group}/{resource}");
        assert!(first.get("verbs").is_none() && first.get("users").is_none(), "{group}/{resource}: for everyone");
    }
}

/// Configurations shown in pages are right, but for the files they name.
#[test]
fn examples_in_pages_can_be_read() {
    let mut seen = 0;
    for page in ["docs/outputs.md", "docs/put-it-behind-an-api-server.md"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|b| b.lines().any(|line| line == "outputs:" || line == "sources:")) {
            seen += 1;
            let Err(problems) = Config::read(block, Path::new("/etc/lapwing/lapwing.yaml"), &|_| None) else {
                continue;
            };
            let known = |what: &str| what.contains("does not exist") || what.starts_with("no source");
            let other: Vec<_> = problems.list.iter().filter(|p| !known(&p.what)).map(ToString::to_string).collect();
            assert!(other.is_empty(), "{page}: {other:?}\n{block}");
        }
    }
    assert!(seen >= 2, "{seen}");
}

/// One table a section, in the order of the schema.
fn keys() -> String {
    let schema = Config::schema();
    let mut out = String::new();
    let mut top = vec![(String::new(), &schema)];
    let mut seen: std::collections::BTreeMap<String, &Json> = std::collections::BTreeMap::new();
    while let Some((path, section)) = top.pop() {
        // Outputs share sections such as `tls`, and a tree goes on for ever: once is enough.
        let inside_itself = seen.iter().any(|(outer, s)| path.starts_with(outer.as_str()) && std::ptr::eq(*s, section));
        if inside_itself || seen.insert(path.clone(), section).is_some() {
            continue;
        }
        let mut inner = Vec::new();
        table(&schema, section, &path, &mut out, &mut inner);
        top.extend(inner.into_iter().rev());
    }
    out
}

/// Writes one section and collects the sections in it.
fn table<'a>(root: &'a Json, section: &'a Json, path: &str, out: &mut String, inner: &mut Vec<(String, &'a Json)>) {
    if let Some(branches) = section["oneOf"].as_array() {
        for branch in branches {
            let properties = branch["properties"].as_object().unwrap();
            let (tag, name) = properties.iter().find_map(|(k, s)| Some((k, s["const"].as_str()?))).unwrap();
            let title = format!("{path} with {tag}: {name}");
            rows(root, branch, &title, path, branch["description"].as_str(), out, inner);
        }
        return;
    }
    let title = if path.is_empty() { "The file".to_owned() } else { path.to_owned() };
    rows(root, section, &title, path, section["description"].as_str(), out, inner);
}

fn rows<'a>(
    root: &'a Json,
    section: &'a Json,
    title: &str,
    path: &str,
    about: Option<&str>,
    out: &mut String,
    inner: &mut Vec<(String, &'a Json)>,
) {
    let title = if path.is_empty() { title.to_owned() } else { format!("`{title}`") };
    let about = about.map(|a| format!("{}\n\n", one_line(a))).unwrap_or_default();
    let _ = write!(out, "\n### {title}\n\n{about}| key | value | default | |\n| --- | --- | --- | --- |\n");
    let required = |key: &str| section["required"].as_array().is_some_and(|r| r.iter().any(|k| k == key));
    for (key, property) in section["properties"].as_object().unwrap() {
        let resolved = resolve(root, property);
        let path = join(path, key);
        let about = property["description"].as_str().or(resolved["description"].as_str()).unwrap_or_default();
        let default = match &property["default"] {
            _ if required(key) => "required".to_owned(),
            Json::Object(_) | Json::Null => String::new(),
            Json::Array(list) if list.is_empty() => String::new(),
            Json::String(text) if text.is_empty() => String::new(),
            Json::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let _ = writeln!(
            out,
            "| `{key}` | {} | {default} | {} |",
            value(root, resolved),
            one_line(about).replace('|', "\\|")
        );
        if is_section(resolved) {
            inner.push((path, resolved));
        } else if is_section(resolve(root, &resolved["items"])) {
            inner.push((format!("{path}[]"), resolve(root, &resolved["items"])));
        }
    }
}

fn is_section(schema: &Json) -> bool {
    let tagged = schema["oneOf"].as_array().is_some_and(|b| b.iter().any(|b| b["properties"].is_object()));
    tagged || schema["properties"].is_object()
}

fn value(root: &Json, schema: &Json) -> String {
    if let Some(kind) = schema["x-lapwing"].as_str() {
        return format!("{kind}, `{}`", schema["examples"][0].as_str().unwrap_or_default());
    }
    let consts = |list: &Json, key: Option<&str>| -> Option<String> {
        let texts = list.as_array()?.iter().map(|v| key.map_or(v, |k| &v[k]).as_str().map(|t| format!("`{t}`")));
        texts.collect::<Option<Vec<_>>>().map(|t| t.join(" "))
    };
    if let Some(choices) = consts(&schema["enum"], None).or_else(|| consts(&schema["oneOf"], Some("const"))) {
        return choices;
    }
    if let Some(only) = schema["const"].as_str() {
        return format!("`{only}`");
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("map");
    match kind {
        "array" => format!("list of {}", value(root, resolve(root, &schema["items"]))),
        "string" => "text".into(),
        "integer" | "number" => "number".into(),
        "boolean" => "`true` `false`".into(),
        _ => "map".into(),
    }
}

fn resolve<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    let mut schema = schema;
    loop {
        if let Some(pointer) = schema["$ref"].as_str() {
            schema = root.pointer(pointer.trim_start_matches('#')).unwrap();
        } else if let Some(branches) = schema["anyOf"].as_array() {
            schema = branches.iter().find(|b| b["type"] != "null").unwrap();
        } else {
            return schema;
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
