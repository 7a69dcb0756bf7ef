//! Other names of an endpoint, as the configuration spells them: `HOST`, `HOST:PORT`, `[IPV6]:PORT` (pure).
//!
//! A host name of its own leads to the endpoint at every port. At an address, and at the names of this host itself, all kinds of
//! servers listen: there the port tells them apart, and a name without one stands for all of them.

use std::fmt;
use std::net::IpAddr;

/// A host, with the port that leads to the endpoint, where one is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Lower case, without brackets.
    pub host: String,
    pub port: Option<u16>,
}

impl Alias {
    /// `None`: it has not the form.
    pub fn parse(spelt: &str) -> Option<Self> {
        let port = |port: &str| port.parse().ok().filter(|port| *port > 0).map(Some);
        let (host, port) = match spelt.strip_prefix('[') {
            Some(rest) => match rest.split_once(']')? {
                (host, "") => (host, None),
                (host, rest) => (host, port(rest.strip_prefix(':')?)?),
            },
            None if address(spelt).is_some() => (spelt, None),
            None => match spelt.split_once(':') {
                Some((host, rest)) => (host, port(rest)?),
                None => (spelt, None),
            },
        };
        let host = connected(host).to_ascii_lowercase();
        (!host.is_empty()).then_some(Self { host, port })
    }

    /// An endpoint itself.
    pub fn of_endpoint(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port: is_told_by_port(host).then_some(port) }
    }

    /// Does a destination with this host and port have this name? `None`: no port that is known.
    pub fn is_at(&self, host: &str, port: Option<u16>) -> bool {
        same_host(&self.host, host) && self.port.is_none_or(|own| Some(own) == port)
    }

    /// Would a destination have both names?
    pub fn meets(&self, other: &Self) -> bool {
        same_host(&self.host, &other.host) && (self.port.is_none() || other.port.is_none() || self.port == other.port)
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(&self.host),
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

/// Is it an address, or a name of this host itself, where the port says which server is meant?
pub fn is_told_by_port(host: &str) -> bool {
    address(host).is_some() || is_this_host(host)
}

/// Is it a name or a loopback address of this host itself?
pub fn is_this_host(host: &str) -> bool {
    let own = ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"];
    // RFC 6761, section 6.3.
    address(host).is_some_and(|ip| ip.is_loopback())
        || own.iter().any(|name| host.eq_ignore_ascii_case(name))
        || is_below_localhost(host)
}

fn is_below_localhost(host: &str) -> bool {
    host.rsplit_once('.').is_some_and(|(_, last)| last.eq_ignore_ascii_case("localhost"))
}

/// A host as Postfix names it once it is connected: an address has one spelling, without a tag.
pub fn connected(host: &str) -> String {
    address(host).map_or_else(|| host.to_owned(), |ip| ip.to_string())
}

/// Are they one host? An IPv6 address is spelt in many ways.
pub fn same_host(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || address(a).is_some_and(|a| address(b) == Some(a))
}

/// `[ipv6:ADDRESS]` is how Postfix has it, and SMTP (RFC 5321, section 4.1.3).
fn address(host: &str) -> Option<IpAddr> {
    let is_tag = |tag: &&str| tag.eq_ignore_ascii_case("ipv6:");
    match host.get(.."ipv6:".len()).filter(is_tag) {
        Some(tag) => host[tag.len()..].parse().ok().filter(IpAddr::is_ipv6),
        None => host.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (spelt, host, port, again) in [
            ("smtp-relay.internal", "smtp-relay.internal", None, "smtp-relay.internal"),
            ("Localhost:2525", "localhost", Some(2525), "localhost:2525"),
            ("127.0.0.1:2525", "127.0.0.1", Some(2525), "127.0.0.1:2525"),
            ("[127.0.0.1]:2525", "127.0.0.1", Some(2525), "127.0.0.1:2525"),
            ("::1", "::1", None, "::1"),
            ("[::1]", "::1", None, "::1"),
            ("[IPv6:0:0:0:0:0:0:0:1]:465", "::1", Some(465), "[::1]:465"),
            ("ipv6:2001:DB8::1", "2001:db8::1", None, "2001:db8::1"),
        ] {
            let alias = Alias::parse(spelt).unwrap();
            assert_eq!((alias.host.as_str(), alias.port, alias.to_string().as_str()), (host, port, again), "{spelt}");
            assert_eq!(Alias::parse(again), Some(alias), "{spelt}");
        }
        for spelt in
            ["", "[::1", "[::1]2525", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "localhost:smtp", "[]:25"]
        {
            assert_eq!(Alias::parse(spelt), None, "{spelt}");
        }
    }

    #[test]
    fn ports_tell_servers_of_one_address_apart() {
        for (host, by_port) in [
            ("127.0.10.1", true),
            ("10.0.0.1", true),
            ("::1", true),
            ("ipv6:::1", true),
            ("LOCALHOST", true),
            ("tunnel.localhost", true),
            ("localhost.example", false),
            ("smtp-relay.internal", false),
            ("ipv6:10.0.0.1", false),
        ] {
            assert_eq!(is_told_by_port(host), by_port, "{host}");
        }
        let alias = |spelt: &str| Alias::parse(spelt).unwrap();
        let tunnel = alias("[::1]:2525");
        assert!(tunnel.is_at("IPv6:::1", Some(2525)) && tunnel.is_at("0:0:0:0:0:0:0:1", Some(2525)));
        assert!(!tunnel.is_at("::1", Some(2526)) && !tunnel.is_at("::1", None) && !tunnel.is_at("::2", Some(2525)));
        assert!(alias("::1").is_at("::1", None));
        assert!(!tunnel.meets(&alias("[::1]:2526")) && tunnel.meets(&alias("::1")) && tunnel.meets(&tunnel));
        let endpoint = Alias::of_endpoint("127.0.0.1", 2526);
        assert!(!endpoint.meets(&alias("127.0.0.1:2525")) && endpoint.meets(&alias("127.0.0.1")));
        assert!(Alias::of_endpoint("relay.example", 587).is_at("Relay.Example", Some(25)));
    }
}
