//! The parts' own sections of the configuration.

/// What the parts find wrong with their own sections: the section's path and the message. The general
/// checks run first; a section they complained about is not complained about again.
pub fn problems(config: &super::Config) -> Vec<(String, String)> {
    let webhook = config.sources.webhook.iter().flat_map(webhook::Config::check);
    let webhook = webhook.map(|p| ("sources.webhook".to_owned(), p.to_string()));
    let outputs = config.outputs.iter().enumerate();
    let outputs = outputs.flat_map(|(i, c)| c.problems().into_iter().map(move |p| (format!("outputs[{i}]"), p)));
    let kafka = config.sources.kafka.iter().enumerate();
    let kafka = kafka.filter_map(|(i, k)| Some((format!("sources.kafka[{i}]"), k.client().err()?.to_string())));
    let archive = config.archive.iter().flat_map(archive::Config::problems).map(|p| ("archive".to_owned(), p));
    let forward = config.forward.iter().filter_map(|f| Some(("forward".to_owned(), f.client().err()?.to_string())));
    let admin = config.admin.problems().into_iter().chain(config.outbound.problems());
    webhook
        .chain(admin)
        .chain(forward)
        .chain(kafka)
        .chain(outputs)
        .chain(archive)
        .chain(config.completeness.problems())
        .collect()
}

pub use crate::archive;
pub use crate::completeness;
pub use crate::flow;
pub use crate::forward;
pub use crate::output;
pub use crate::source::{file, kafka, webhook};
pub use crate::space;
