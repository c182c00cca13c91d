//! Records of a CloudWatch Logs subscription: the log lines of one stream, each with its time.

use super::{Content, of_line};

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    message_type: String,
    #[serde(default)]
    log_stream: String,
    #[serde(default)]
    log_events: Vec<LogEvent>,
}

#[derive(serde::Deserialize)]
struct LogEvent {
    /// Milliseconds since the epoch.
    #[serde(default)]
    timestamp: i64,
    message: String,
}

/// Log streams of the same group that hold no audit events.
const OTHERS: [&str; 5] = [
    "authenticator-",
    "cloud-controller-manager-",
    "kube-controller-manager-",
    "kube-scheduler-",
    // Behind this is a hash; the audit log is `kube-apiserver-audit-…`.
    "kube-apiserver-",
];

/// What each line of the stream holds. A `CONTROL_MESSAGE` only asks whether somebody listens.
pub(super) fn events(text: &str) -> Vec<Content> {
    let subscription: Subscription = match serde_json::from_str(text) {
        Ok(subscription) => subscription,
        Err(e) => return vec![Content::Broken(format!("a CloudWatch record of another form: {e}"))],
    };
    let stream = subscription.log_stream.as_str();
    let audit = stream.starts_with("kube-apiserver-audit-") || !OTHERS.iter().any(|other| stream.starts_with(other));
    if subscription.message_type == "CONTROL_MESSAGE" || !audit {
        return vec![Content::Skipped];
    }
    subscription.log_events.iter().map(line).collect()
}

fn line(event: &LogEvent) -> Content {
    let time = (event.timestamp > 0).then_some(event.timestamp.saturating_mul(1000));
    match of_line(&event.message) {
        Some(Content::Inner { bytes, .. }) => Content::Inner { bytes, time },
        _ => Content::Skipped,
    }
}
