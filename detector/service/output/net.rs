//! Which addresses an output may talk to, and connecting to exactly the address that was checked.
//!
//! Guards against server-side request forgery: link-local and metadata addresses are refused, loopback is
//! allowed only when the configuration names it, and exceptions are the configuration's ([`super::allow`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};

use super::allow::Allowed;

/// Longest wait for a TCP connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot resolve `{host}`: {source}")]
    Resolve { host: String, source: std::io::Error },
    #[error("`{host}` has no address")]
    NoAddress { host: String },
    #[error("`{host}` is {address}, which outputs may not talk to ({why}); `outbound.allow` makes exceptions")]
    Refused { host: String, address: IpAddr, why: &'static str },
    #[error("cannot connect to `{host}` ({address}): {source}")]
    Connect { host: String, address: SocketAddr, source: std::io::Error },
    #[error("no connection to `{host}` within 10 seconds")]
    Timeout { host: String },
}

/// Does `host` itself name the loopback interface?
pub fn names_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost") || host.parse().is_ok_and(|ip| unwrapped(ip).is_loopback())
}

/// Where clouds answer whoever asks with credentials of the machine.
const METADATA: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 one.
fn unwrapped(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let v4 = |a: u16, b: u16| IpAddr::V4(Ipv4Addr::from(u32::from(a) << 16 | u32::from(b)));
    match v6.segments() {
        [0x64, 0xff9b, 0 | 1, _, _, _, a, b] | [0x2002, a, b, ..] => v4(a, b),
        [0, 0, 0, 0, 0, 0, a, b] if a != 0 => v4(a, b),
        _ => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
    }
}

/// Why `ip` is refused for an output configured as `host`, or `None` when it is fine.
pub fn refusal(host: &str, ip: IpAddr) -> Option<&'static str> {
    refusal_but(host, ip, &Allowed::now())
}

fn refusal_but(host: &str, ip: IpAddr, allowed: &Allowed) -> Option<&'static str> {
    let ip = unwrapped(ip);
    if METADATA.contains(&ip) {
        return (!allowed.has(host, ip, true)).then_some("cloud metadata");
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Some("not one host");
    }
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let why = if link_local {
        "link-local"
    } else if ip.is_loopback() && !names_loopback(host) {
        "loopback, and the configured name does not say so"
    } else {
        return None;
    };
    (!allowed.has(host, ip, false)).then_some(why)
}

/// Every allowed address of `host`; an error when one of them is refused.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, NetError> {
    let name = host.trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((name, port)).await;
    let found: Vec<_> = found.map_err(|source| NetError::Resolve { host: host.to_owned(), source })?.collect();
    for address in &found {
        if let Some(why) = refusal(host, address.ip()) {
            return Err(NetError::Refused { host: host.to_owned(), address: address.ip(), why });
        }
    }
    if found.is_empty() { Err(NetError::NoAddress { host: host.to_owned() }) } else { Ok(found) }
}

/// A TCP connection to the first address of `host` that answers, within [`CONNECT_TIMEOUT`] in all.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, NetError> {
    let timeout = tokio::time::timeout(CONNECT_TIMEOUT, try_each(host, port)).await;
    timeout.map_err(|_| NetError::Timeout { host: host.to_owned() })?
}

/// A socket for datagrams to the first address of `host`.
pub async fn connect_udp(host: &str, port: u16) -> Result<UdpSocket, NetError> {
    let address = resolve(host, port).await?[0];
    let any: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let failed = |source| NetError::Connect { host: host.to_owned(), address, source };
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    Ok(socket)
}

async fn try_each(host: &str, port: u16) -> Result<TcpStream, NetError> {
    let mut last = NetError::NoAddress { host: host.to_owned() };
    for address in resolve(host, port).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Alerts are small and one at a time: do not let them wait for company.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(source) => last = NetError::Connect { host: host.to_owned(), address, source },
        }
    }
    Err(last)
}

/// `host:port` or `[v6]:port` taken apart.
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let ambiguous = bare == host && host.contains(':');
    let port = port.parse().ok().filter(|p| *p != 0)?;
    (!bare.is_empty() && !ambiguous).then_some((bare, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_an_attacker_would_like() {
        for ip in [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "64:ff9b:1::a9fe:a9fe",
            "255.255.255.255",
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(refusal("siem.example.org", ip.parse().unwrap()).is_some(), "{ip}");
        }
        for ip in ["10.0.0.1", "192.168.1.1", "203.0.113.7", "2001:db8::1", "fd12::1"] {
            assert_eq!(refusal("siem.example.org", ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn the_configuration_makes_exceptions_and_metadata_only_by_name() {
        let refused = |allow: &[&str], host: &str, ip: &str| {
            let allow = allow.iter().map(|a| (*a).to_owned()).collect();
            refusal_but(host, ip.parse().unwrap(), &super::super::allow::Config { allow }.allowed())
        };
        assert_eq!(refused(&["169.254.20.0/24"], "siem", "169.254.20.1"), None);
        assert_eq!(refused(&["169.254.20.0/24"], "siem", "::ffff:169.254.20.1"), None);
        assert_eq!(refused(&["169.254.20.0/24"], "siem", "169.254.21.1"), Some("link-local"));
        assert_eq!(refused(&["siem"], "siem", "127.0.0.1"), None);
        assert!(refused(&["siem"], "other", "127.0.0.1").is_some());
        for wide in ["0.0.0.0/0", "169.254.0.0/16", "siem"] {
            for ip in ["169.254.169.254", "::ffff:169.254.169.254"] {
                assert_eq!(refused(&[wide], "siem", ip), Some("cloud metadata"), "{wide} {ip}");
            }
        }
        assert_eq!(refused(&["169.254.169.254"], "siem", "169.254.169.254"), None);
        assert_eq!(refused(&["0.0.0.0/0"], "siem", "0.0.0.0"), Some("not one host"));
    }

    #[test]
    fn loopback_only_when_named() {
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "a.localhost"] {
            assert_eq!(refusal(host, "127.0.0.1".parse().unwrap()), None, "{host}");
        }
        // Naming loopback opens loopback, nothing else.
        assert!(refusal("localhost", "169.254.169.254".parse().unwrap()).is_some());
        assert!(!names_loopback("localhost.example.org"));
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_refused() {
        // An old way to write 127.0.0.1 that only the system's resolver understands.
        assert!(matches!(resolve("127.1", 80).await, Err(NetError::Refused { .. })));
        assert!(resolve("localhost", 80).await.is_ok());
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_metadata_is_not_connected_to() {
        // Not an address to us, 169.254.169.254 to the resolver: what a name under somebody else's control does.
        for name in ["169.254.43518", "169.16689662"] {
            assert!(name.parse::<IpAddr>().is_err());
            let refused = connect(name, 80).await;
            assert!(matches!(refused, Err(NetError::Refused { why: "cloud metadata", .. })), "{refused:?}");
            assert!(matches!(connect_udp(name, 80).await, Err(NetError::Refused { .. })));
        }
        assert!(matches!(connect("169.254.5", 80).await, Err(NetError::Refused { why: "link-local", .. })));
    }

    #[test]
    fn takes_addresses_apart() {
        assert_eq!(split_address("siem:6514"), Some(("siem", 6514)));
        assert_eq!(split_address("[::1]:514"), Some(("::1", 514)));
        for bad in ["siem", "siem:", "siem:0", "siem:70000", ":514", "::1:514", ""] {
            assert_eq!(split_address(bad), None, "{bad}");
        }
    }
}
