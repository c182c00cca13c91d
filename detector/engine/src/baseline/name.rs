//! Names without the part that changes with every run: the pod hash, the build number, the helm revision.
//!
//! A principal or an object that is new only in such a part is not new. What a person chose stays.

/// The alphabet Kubernetes draws name suffixes from.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Words in front of a number that make it the number of a run.
const RUN_WORDS: [&str; 8] = ["run", "job", "build", "pipeline", "session", "workflow", "task", "runner"];

/// Whether `piece` was drawn, not chosen: a suffix of Kubernetes, a hash, a UUID's part.
fn is_random(piece: &str) -> bool {
    let bytes = piece.as_bytes();
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let mixed = digits > 0 && digits < bytes.len();
    let suffix = (5..=10).contains(&bytes.len()) && bytes.iter().all(|b| SUFFIX_ALPHABET.contains(b));
    let hash = bytes.len() >= 8 && bytes.iter().all(u8::is_ascii_hexdigit);
    mixed && (suffix || hash)
}

/// What was drawn or counted has a digit somewhere: most names need no closer look.
fn has_digit(name: &str) -> bool {
    name.bytes().fold(false, |found, b| found | b.is_ascii_digit())
}

/// Appends `name` with every piece that was drawn or counts runs as `*`. Only for machine identities: a
/// person may be called by a number.
pub(super) fn push_machine(name: &str, out: &mut String) {
    if !has_digit(name) {
        out.push_str(name);
        return;
    }
    let mut last = "";
    for (i, piece) in name.split('-').enumerate() {
        if i > 0 {
            out.push('-');
        }
        let numbered = !piece.is_empty() && piece.bytes().all(|b| b.is_ascii_digit());
        let run = numbered && (piece.len() >= 4 || RUN_WORDS.contains(&last));
        if i > 0 && (run || is_random(piece)) {
            out.push('*');
        } else {
            out.push_str(piece);
        }
        last = piece;
    }
}

/// Appends the identity whose behaviour is learned: the user name, for service accounts without the run in
/// namespace and name.
pub(super) fn push_principal(user: &str, out: &mut String) {
    let Some((namespace, name)) = crate::facts::service_account(user) else {
        out.push_str(user);
        return;
    };
    out.push_str("system:serviceaccount:");
    push_machine(namespace, out);
    out.push(':');
    push_machine(name, out);
}

/// Appends the name of an object without hash, ordinal or revision at its end: `app-x7k2p`, `web-0`, `v1.app.v12`.
pub(super) fn push_object(name: &str, out: &mut String) {
    let mut rest = name;
    while let Some((head, tail)) = rest.rsplit_once(['-', '.']) {
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let hashed = (5..=10).contains(&tail.len()) && is_random(tail);
        if head.is_empty() || !(hashed || digits(tail) || tail.strip_prefix('v').is_some_and(digits)) {
            break;
        }
        rest = head;
    }
    out.push_str(rest);
}

/// Appends `major.minor` of a version.
pub(super) fn push_version(version: &str, out: &mut String) {
    let version = version.trim_start_matches('v');
    let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
    out.push_str(&version[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(push: impl Fn(&str, &mut String), text: &str) -> String {
        let mut out = String::new();
        push(text, &mut out);
        out
    }

    #[test]
    fn runs_of_a_pipeline_are_one_principal_and_people_stay_apart() {
        for (user, principal) in [
            ("system:serviceaccount:ci-run-8812:runner", "system:serviceaccount:ci-run-*:runner"),
            ("system:serviceaccount:ci:build-7f9c2b4d-x7k2p", "system:serviceaccount:ci:build-*-*"),
            ("system:serviceaccount:ci:job-17", "system:serviceaccount:ci:job-*"),
            ("system:serviceaccount:pay:pay-1", "system:serviceaccount:pay:pay-1"),
            (
                "system:serviceaccount:kube-system:node-problem-detector",
                "system:serviceaccount:kube-system:node-problem-detector",
            ),
            ("system:node:pool-a1b2c3d4-x7k2p", "system:node:pool-a1b2c3d4-x7k2p"),
            ("emp-1234567@corp", "emp-1234567@corp"),
        ] {
            assert_eq!(with(push_principal, user), principal);
        }
    }

    #[test]
    fn objects_lose_what_changes_with_every_rollout() {
        for (name, object) in [
            ("sh.helm.release.v1.app.v12", "sh.helm.release.v1.app"),
            ("web-7d4b9c6f5d-x7k2p", "web"),
            ("db-0", "db"),
            ("api-key", "api-key"),
            ("oauth", "oauth"),
            ("-1", "-1"),
        ] {
            assert_eq!(with(push_object, name), object);
        }
    }

    #[test]
    fn versions_are_major_and_minor() {
        assert_eq!(with(push_version, "v1.32.4-eks"), "1.32");
        assert_eq!(with(push_version, "28"), "28");
    }
}
