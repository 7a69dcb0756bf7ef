//! `[health]`: where the daemon answers over HTTP.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::value::{self, Judged, expected, is_host_name, mistake, trimmed};
use super::{At, DeValue, Reader, Section, SectionView, key};

pub(super) static HEALTH: Section = Section {
    header: "[health]",
    keys: &[key("listen"), key("public").few().default("false"), key("hosts").default("[]")],
};

/// `[health]`: where the daemon answers over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// In the order of the file. Empty only where `hosts` is set: for sockets that the service manager passes.
    pub listen: Vec<Listen>,
    /// Names under which it may be asked for in a `Host` header, besides the addresses it listens at, `localhost` and the
    /// host's own name. Lower case, without port; an IPv6 address stands in brackets.
    pub hosts: Vec<String>,
}

/// One place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Beyond loopback only where `public = true` was set. The port is not 0, and an IPv4 address stands as one.
    Tcp(SocketAddr),
    /// A Unix socket. Absolute.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => path.display().fmt(f),
        }
    }
}

/// `[health]`. `None`: nothing is to be served.
pub(super) fn read(reader: &mut Reader, view: &SectionView) -> Option<Health> {
    reader.keys(view, None);
    let public = reader.read(view, "public", value::boolean);
    // With a mistake in `public`, what was meant by it is not known.
    let open = public.as_ref().map_or(view.has("public"), |at| at.value);
    let empty = "name an address, or leave `listen` out: nothing is served then";
    let fold = |listen: &Listen| match listen {
        Listen::Tcp(address) => address.to_string(),
        // A path is compared part by part: `//` and `/./` mean nothing.
        Listen::Unix(path) => path.components().collect::<PathBuf>().display().to_string(),
    };
    let places = reader.lines_of(view, "listen", empty, listen, fold).unwrap_or_default();
    for (i, At { value: place, line }) in places.iter().enumerate() {
        let Listen::Tcp(address) = place else { continue };
        if !address.ip().is_loopback() && !open {
            reader.error(
                *line,
                format!("listen: {address} can be reached from other hosts"),
                format!(
                    "use \"127.0.0.1:{}\"; or set public = true: who reaches it reads access key ids, versions and failures",
                    address.port()
                ),
            );
        }
        let same = |first: &&At<Listen>| matches!(first.value, Listen::Tcp(first) if overlap(first, *address));
        if let Some(first) = places[..i].iter().find(same) {
            let what = format!("listen: {address} is the same port as on line {} once more", first.line);
            reader.error(*line, what, "remove one of the two: the address of all interfaces covers the others");
        }
    }
    let hosts = reader.list(view, "hosts", "", http_host, String::clone).unwrap_or_default();
    if places.is_empty() && hosts.is_empty() {
        return None;
    }
    Some(Health { listen: places.into_iter().map(|at| at.value).collect(), hosts })
}

/// Does the second of the two fail to be bound? A socket on all IPv6 addresses takes the port on all IPv4 ones too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers =
        |all: SocketAddr, one: SocketAddr| all != one && all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a.port() == b.port() && (covers(a, b) || covers(b, a))
}

/// The longest path that fits into a socket address (`sun_path` with its NUL, unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// An address and a port, or the path of a Unix socket.
fn listen(value: &DeValue) -> Judged<Listen> {
    let usage = "write \"127.0.0.1:9465\", \"[::1]:9465\", or the path of a Unix socket";
    let DeValue::String(_) = value else { return mistake(expected("a string", value), usage) };
    let text = trimmed(value)?;
    if text.starts_with(['/', '~', '.']) {
        let path = value::absolute(value)?;
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            let what = format!("the path is longer than the {MAX_SOCKET_PATH} bytes that a Unix socket's may have");
            return mistake(what, "choose a shorter one, such as \"/run/relaykey/health.sock\"");
        }
        if text.ends_with('/') {
            return mistake(format!("{text:?} is a directory"), "write the path of the socket itself");
        }
        return Ok(Listen::Unix(path));
    }
    if let Some((scheme, rest)) = text.split_once(':')
        && ["unix", "http", "https"].contains(&scheme)
    {
        let rest = rest.trim_start_matches("//");
        let rest = if scheme == "unix" { format!("/{}", rest.trim_start_matches('/')) } else { rest.to_owned() };
        let rest = if scheme == "unix" { rest.as_str() } else { rest.split('/').next().unwrap_or_default() };
        return mistake(format!("there is a scheme in {text:?}"), format!("write it without: {rest:?}"));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => mistake("port 0 is another port at every start", "name a port, such as 9465"),
            _ => Ok(Listen::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))),
        };
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let with_port = SocketAddr::new(ip, 9465).to_string();
        return mistake(format!("{text:?} has no port"), format!("add one: {with_port:?}"));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    if port.parse::<u16>().is_ok_and(|port| port > 0) {
        let (what, whole) = match host {
            "" | "localhost" => ("names no address", format!("127.0.0.1:{port}")),
            "*" => ("names no address", format!("0.0.0.0:{port}")),
            host if host.parse::<Ipv6Addr>().is_ok() => ("lacks brackets", format!("[{host}]:{port}")),
            _ => {
                let what = format!("{host:?} is a name, and what it stands for may change");
                return mistake(what, format!("write the address itself: \"127.0.0.1:{port}\", or the host's own"));
            }
        };
        return mistake(format!("{text:?} {what}"), format!("write {whole:?}"));
    }
    mistake(format!("{text:?} is neither an address with a port nor a path"), usage)
}

/// A host as it stands in a `Host` header, without its port: a name, or an address, in brackets where it is IPv6.
fn http_host(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?.to_ascii_lowercase();
    let usage = "write it as it stands in the address line, without scheme and port: \"mx1.example.com\"";
    if let Ok(v6) = text.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
        return Ok(format!("[{v6}]"));
    }
    if is_host_name(&text) {
        return Ok(text);
    }
    if text.contains('*') {
        return mistake("there is no pattern for host names", "write each name, one to an element");
    }
    if text.contains('@') {
        return mistake("there is an @ in the host name", usage);
    }
    mistake(format!("{text:?} is not a host name"), usage)
}
