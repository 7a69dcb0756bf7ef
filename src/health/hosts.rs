//! Under which names the health endpoints may be asked for.
//!
//! A web page may let its own name point to 127.0.0.1 and then read from there what it likes, with the browser of whoever
//! looks at it (DNS rebinding). Such a request carries the page's name in its `Host` header, so names that are not ours
//! are turned away.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use axum::http::header::HOST;
use axum::http::{HeaderMap, Uri};

use crate::config::{self, Listen};

/// Names and addresses that a `Host` header may hold, with any port: forwarded ports are other ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostAllowList {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl HostAllowList {
    /// `localhost`, the addresses that are listened at, `hosts` of the configuration, and the names of this host:
    /// as it stands in reports, and as the operating system has it.
    pub fn new<'a>(health: Option<&'a config::Health>, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut list = Self::default();
        let configured = health.iter().flat_map(|h| h.hosts.iter().map(String::as_str));
        for name in names.into_iter().chain(configured).chain(["localhost"]) {
            match host_part(name) {
                Some(NamedHost::Address(address)) => drop(list.addresses.insert(address)),
                Some(NamedHost::Name(name)) => drop(list.names.insert(name)),
                None => {}
            }
        }
        for place in health.iter().flat_map(|h| &h.listen) {
            if let Listen::Tcp(address) = place {
                list.addresses.insert(address.ip());
            }
        }
        list
    }

    /// Is a request with these headers for us? `local`: the address at which its connection came in, which is good
    /// as a name too, as where every address is listened at.
    ///
    /// # Errors
    /// What it was asked for instead.
    pub(super) fn judge(&self, uri: &Uri, headers: &HeaderMap, local: Option<SocketAddr>) -> Result<(), String> {
        let mut given = headers.get_all(HOST).iter();
        let (host, more) = (given.next(), given.next());
        let Some(host) = host else { return Err("no Host header".into()) };
        if more.is_some() {
            return Err("more than one Host header".into());
        }
        let host = host.to_str().map_err(|_| "a Host header that is no text".to_owned())?;
        // The target of a request may name a host too, which then counts (RFC 9112, section 3.2.2).
        for named in [Some(host), uri.authority().map(|a| a.as_str())].into_iter().flatten() {
            let ours = match host_part(named) {
                Some(NamedHost::Name(name)) => self.names.contains(&name),
                Some(NamedHost::Address(address)) => {
                    let local = local.map(|l| l.ip().to_canonical());
                    self.addresses.contains(&address) || local == Some(address.to_canonical())
                }
                None => false,
            };
            if !ours {
                return Err(format!("the Host {:?}", named.chars().take(256).collect::<String>()));
            }
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum NamedHost {
    Name(String),
    Address(IpAddr),
}

/// The host in `host`, `host:port`, `[address]:port` or a bare address. `None`: it is nothing of these.
fn host_part(text: &str) -> Option<NamedHost> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(NamedHost::Address(address));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            return port
                .is_none_or(is_port)
                .then(|| address.parse().ok().map(|a| NamedHost::Address(IpAddr::V6(a))))
                .flatten();
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if !port.is_none_or(is_port) {
        return None;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(NamedHost::Address(address));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (!name.is_empty() && name.chars().all(plain)).then_some(NamedHost::Name(name))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_ports_of_a_host_header() {
        let name = |n: &str| Some(NamedHost::Name(n.into()));
        let address = |a: &str| Some(NamedHost::Address(a.parse().unwrap()));
        for (text, expected) in [
            ("localhost", name("localhost")),
            ("LocalHost:9465", name("localhost")),
            ("mx1.example.com.:80", name("mx1.example.com")),
            ("127.0.0.1", address("127.0.0.1")),
            ("127.0.0.1:9465", address("127.0.0.1")),
            ("[::1]", address("::1")),
            ("[::1]:9465", address("::1")),
            ("::1", address("::1")),
            ("", None),
            (":9465", None),
            ("localhost:", None),
            ("localhost:+80", None),
            ("localhost:65536", None),
            ("localhost:80:80", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[localhost]", None),
            ("local host", None),
            ("user@localhost", None),
            ("localhost/..", None),
        ] {
            assert_eq!(host_part(text), expected, "{text:?}");
        }
    }
}
