//! `lapwing schema`: JSON Schemas of what Lapwing reads and writes, made from its types.

use clap::ValueEnum;
use lapwing_engine::alert::{Alert, Finding};
use lapwing_engine::rule::schema as rule;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::{Exit, print};
use crate::config::Config;

/// Print the JSON Schema of something Lapwing reads or writes
///
/// The same files are in schemas/ of the source. Fields may be added to alerts and findings later: readers should
/// ignore what they do not know.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "EXAMPLES
  lapwing schema alert > alert.schema.json
  lapwing schema config > config.schema.json
  In an editor with a YAML language server, first line of the configuration:
    # yaml-language-server: $schema=config.schema.json")]
pub struct Args {
    /// Of what
    #[arg(value_name = "WHAT")]
    what: What,
}

/// What there is a schema of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// What outputs and `scan` write
    Alert,
    /// What `scan --findings` writes
    Finding,
    /// The configuration file
    Config,
    /// One document of a rule file
    Rule,
}

/// # Errors
/// When it cannot be written.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    print(text(args.what)?.as_bytes())
}

fn text(what: What) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(&schema(what))? + "\n")
}

fn schema(what: What) -> Json {
    match what {
        What::Alert => written::<Alert>(),
        What::Finding => written::<Finding>(),
        What::Config => Config::schema(),
        What::Rule => rule::schema(),
    }
}

/// The schema of what serde writes.
fn written<T: JsonSchema>() -> Json {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use jsonschema::Validator;
    use lapwing_engine::engine::{Engine, Options, Output};
    use lapwing_engine::rule::file::RuleFile;
    use serde_json::json;

    use super::*;
    use crate::input::{Events, Limits};
    use crate::ruleset::Selection;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    fn validator(what: What) -> Validator {
        jsonschema::validator_for(&schema(what)).unwrap()
    }

    fn must_fit(validator: &Validator, json: &Json, name: &str) {
        let faults: Vec<_> = validator.iter_errors(json).map(|e| format!("{}: {e}", e.instance_path)).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}\n{json:#}");
    }

    /// Record again with `LAPWING_RECORD=1 cargo test --lib schema`.
    #[test]
    fn the_committed_schemas_are_those_of_the_types() {
        for what in What::value_variants() {
            let name = what.to_possible_value().unwrap().get_name().to_owned();
            let file = Path::new(ROOT).join(format!("schemas/{name}.schema.json"));
            let fresh = text(*what).unwrap();
            if std::env::var_os("LAPWING_RECORD").is_some() {
                std::fs::write(&file, &fresh).unwrap();
            }
            let committed = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(committed == fresh, "{name}: write it again with `lapwing schema {name} > {}`", file.display());
        }
    }

    /// No key is written that the schema does not tell of.
    fn keys_are_known(schema: &Json, root: &Json, json: &Json, at: &str) {
        let schema = match schema["$ref"].as_str() {
            Some(pointer) => root.pointer(pointer.trim_start_matches('#')).unwrap(),
            None => schema,
        };
        match json {
            Json::Object(map) => {
                for (key, value) in map {
                    let known = &schema["properties"][key];
                    assert!(!known.is_null(), "{at}.{key} is not in the schema");
                    keys_are_known(known, root, value, &format!("{at}.{key}"));
                }
            }
            Json::Array(items) => items.iter().for_each(|item| keys_are_known(&schema["items"], root, item, at)),
            _ => {}
        }
    }

    #[test]
    fn real_findings_and_alerts_are_as_the_schemas_say() {
        let mut engine = Engine::new(Selection::default().load().unwrap(), Options::default());
        let mut out = Output::default();
        for attack in ["crb-user", "exec-ws", "authz-bruteforce", "impersonation"] {
            let file = Path::new(ROOT).join(format!("fixtures/attacks/{attack}/events.jsonl.zst"));
            let mut events = Events::open(&file, Limits::default()).unwrap();
            while let Some(item) = events.next() {
                engine.event("prod", item.unwrap(), 0, &|| "1:0".to_owned(), &mut out).unwrap();
            }
        }
        engine.finish(&mut out);
        assert!(out.findings.len() > 20 && out.alerts.len() > 10);
        let (alert, finding) = (schema(What::Alert), schema(What::Finding));
        for (what, schema, all) in [
            (
                What::Finding,
                &finding,
                out.findings.iter().map(|f| serde_json::to_value(f).unwrap()).collect::<Vec<_>>(),
            ),
            (What::Alert, &alert, out.alerts.iter().map(|a| serde_json::to_value(a).unwrap()).collect()),
        ] {
            let validator = validator(what);
            for json in &all {
                must_fit(&validator, json, "a real one");
                keys_are_known(schema, schema, json, "");
            }
            let mut broken = all[0].clone();
            broken["verdict"] = json!("perhaps");
            assert!(!validator.is_valid(&broken));
            broken.as_object_mut().unwrap().remove("verdict");
            assert!(!validator.is_valid(&broken), "what is always written is required");
        }
    }

    #[test]
    fn every_built_in_rule_fits_the_schema() {
        let validator = validator(What::Rule);
        let mut documents = 0;
        for (path, text) in Selection::default().rule_files().unwrap() {
            for json in serde_saphyr::from_multiple::<Json>(&text).unwrap() {
                must_fit(&validator, &json, &path.display().to_string());
                documents += 1;
            }
        }
        assert!(documents > 100, "{documents}");
    }

    /// What the schema accepts or refuses, the reader does too.
    #[test]
    fn the_schema_of_rules_agrees_with_their_reader() {
        let validator = validator(What::Rule);
        let wrap = |detection: &str| {
            format!("title: t\nlogsource: {{product: kubernetes}}\ndetection:\n{detection}\n  condition: a\n")
        };
        let correlation =
            "title: t\ncorrelation:\n  type: event_count\n  rules: r\n  timespan: 5m\n  condition: {gte: 3}\n";
        for (good, text) in [
            (true, wrap("  a: {actor.name|startswith: x}")),
            (true, wrap("  a: {workload.containers|any: {privileged: true, image|endswith: [x, z]}}")),
            (true, wrap("  a: [{verb: get}, {verb: list, annotations.a.b/c: x}]")),
            (true, wrap("  a: [some, words]")),
            (true, wrap("  a: {'|contains': some}")),
            (true, wrap("  a: {verb: get}") + "lapwing: {next_steps: [look], suppress: 1h}\nx-ours: 1\n"),
            (true, correlation.to_owned()),
            (true, "title: t\nlogsource: {product: kubernetes}\nfilter:\n  rules: any\n  a: {verb: get}\n  condition: not a\nlapwing: {expires: 2026-11-20}\n".into()),
            (false, wrap("  a: {actor.nam: x}")),
            (false, wrap("  a: {actor.name|startwith: x}")),
            (false, wrap("  a: {workload.containers|any: privileged}")),
            (false, wrap("  a: {workload.containers|any|neq: {privileged: true}}")),
            (false, wrap("  a: {}")),
            (false, wrap("  a: {verb: get}") + "levle: high\n"),
            (false, wrap("  a: {verb: get}") + "level: grave\n"),
            (false, wrap("  a: {verb: get}") + "lapwing: {nextsteps: x}\n"),
            (false, wrap("  a: {verb: get}") + "lapwing: {suppress: soon}\n"),
            (false, wrap("  a: {verb: get}\n  timeframe: 5m")),
            (false, "title: t\n".into()),
            (false, wrap("  a: {verb: get}").replace("  condition: a", "")),
            (false, wrap("  a: {verb: get}").replace("kubernetes", "windows")),
            (false, wrap("  a: {verb: get}").replace("logsource: {product: kubernetes}", "")),
            (false, correlation.replace("event_count", "count")),
            (false, correlation.replace("gte: 3", "gte: -1")),
            (false, correlation.replace("gte", "atleast")),
            (false, correlation.replace("timespan", "timespam")),
        ] {
            let json = serde_saphyr::from_str::<Json>(&text).unwrap();
            let (file, _) = RuleFile::parse(Path::new("x.yml"), &text);
            // Correlations and filters need rules to refer to: only their shape is read here.
            let read = match file.documents.first().map(|d| &d.body) {
                None => false,
                Some(lapwing_engine::rule::file::Body::Detection(_)) => loads(&text),
                Some(_) => !text.contains("type: count"),
            };
            assert_eq!((validator.is_valid(&json), read), (good, good), "{text}");
        }
    }

    fn loads(text: &str) -> bool {
        let files = vec![("x.yml".into(), text.to_owned())];
        lapwing_engine::rule::set::RuleSet::load(files, &Selection::default().options()).map(Arc::new).is_ok()
    }
}
