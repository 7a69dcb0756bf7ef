//! Where a webhook is: its URL, the addresses of its name, and those that no report goes to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::Uri;

use crate::fault::{Class, Fault};

/// The parts of an `https` URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HookUrl {
    /// A name or an address, as certificates and the resolver spell it.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port, as the Host header has them: without the port that is https's own (RFC 9110, sections 4.2.2 and 7.2).
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
    /// For people.
    pub(super) shown: String,
}

impl HookUrl {
    pub(super) fn parse(url: &str) -> Result<Self, Fault> {
        let wrong = || {
            let words = "the URL of the webhook is not one of https";
            Fault::new(Class::Configuration, words, "write `url` in [[report]] like https://HOST/PATH")
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let written = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong());
        }
        let port = uri.port_u16().unwrap_or(443);
        let authority = if port == 443 { written.to_owned() } else { format!("{written}:{port}") };
        let bare = written.strip_prefix('[').and_then(|v6| v6.strip_suffix(']')).unwrap_or(written);
        Ok(Self {
            host: bare.trim_end_matches('.').to_owned(),
            port,
            target: uri.path_and_query().map_or("/", |both| both.as_str()).to_owned(),
            shown: format!("https://{authority}{}", uri.path()),
            authority,
        })
    }
}

/// Why no report goes to an address; `None`: one may.
///
/// Cloud platforms serve instance metadata and credentials at link-local addresses, and EC2 also at those below
/// `fd00:ec2::/32`: who controls a name could have a root process knock there. Loopback and private addresses are where
/// receivers of one's own live.
///
/// IPv6 has forms that hold an IPv4 address and end there; each is judged by that: IPv4-mapped, -compatible (RFC 4291,
/// section 2.5.5) and -translated (RFC 2765), NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056).
pub(super) fn forbidden(address: IpAddr) -> Option<String> {
    match address {
        IpAddr::V4(v4) => forbidden_v4(v4).map(str::to_owned),
        IpAddr::V6(v6) => forbidden_v6(v6),
    }
}

fn forbidden_v4(v4: Ipv4Addr) -> Option<&'static str> {
    match v4.octets() {
        [0, ..] => Some("it stands for no host (0.0.0.0/8)"),
        [169, 254, ..] => Some("it is link-local (169.254.0.0/16), where instance metadata is served"),
        _ if v4.is_multicast() => Some("it is a multicast address"),
        [255, 255, 255, 255] => Some("it is the broadcast address"),
        _ => None,
    }
}

fn forbidden_v6(v6: Ipv6Addr) -> Option<String> {
    let s = v6.segments();
    let why = match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => "it stands for no host (::)",
        [0xfe80..=0xfebf, ..] => "it is link-local (fe80::/10)",
        [0xff00..=0xffff, ..] => "it is a multicast address",
        [0xfd00, 0x0ec2, ..] => "instance metadata is served there (fd00:ec2::/32)",
        _ => {
            return held_v4(v6).into_iter().find_map(|v4| {
                let why = forbidden_v4(v4)?;
                Some(format!("it holds the IPv4 address {v4}, and {why}"))
            });
        }
    };
    Some(why.to_owned())
}

/// The IPv4 addresses that an IPv6 address may lead to.
fn held_v4(v6: Ipv6Addr) -> Vec<Ipv4Addr> {
    let (s, o) = (v6.segments(), v6.octets());
    let at = |i: [usize; 4]| Ipv4Addr::from(i.map(|i| o[i]));
    let last = at([12, 13, 14, 15]);
    match s {
        _ if v6.is_loopback() => Vec::new(),
        // Compatible, mapped, translated; the well-known prefix of NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![last],
        // 64:ff9b:1::/48 is cut further by whoever runs the translator: prefixes of 48, 56, 64 and 96 bits (RFC 6052,
        // section 2.2; octet 8 is skipped).
        [0x64, 0xff9b, 1, ..] => vec![at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), last],
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_go_to_no_address_where_a_platform_serves_secrets() {
        for bad in [
            "169.254.169.254",
            "169.254.0.1",
            "169.254.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf:ffff::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:255.255.255.255",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(forbidden(bad.parse().expect(bad)).is_some(), "{bad}");
        }
        for good in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.253.1.1",
            "169.255.1.1",
            "198.51.100.1",
            "::1",
            "::ffff:10.0.0.1",
            "fc00::1",
            "fd00:ec3::254",
            "2001:db8::1",
            "2001:db8::a9fe:a9fe",
            "64:ff9b::198.51.100.1",
            "2002:c633:6401::1",
        ] {
            assert_eq!(forbidden(good.parse().expect(good)), None, "{good}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let place = |url: &str| {
            let p = HookUrl::parse(url).expect(url);
            (p.host, p.port, p.authority, p.target, p.shown)
        };
        let all = |a: &str, port, b: &str, c: &str, d: &str| (a.into(), port, b.into(), c.into(), d.into());
        for (url, expected) in [
            ("https://a.example", all("a.example", 443, "a.example", "/", "https://a.example/")),
            ("https://a.example:443/x", all("a.example", 443, "a.example", "/x", "https://a.example/x")),
            (
                "https://a.example.:8443/x/y?token=1",
                all("a.example", 8443, "a.example.:8443", "/x/y?token=1", "https://a.example.:8443/x/y"),
            ),
            ("https://[::1]:8443/x", all("::1", 8443, "[::1]:8443", "/x", "https://[::1]:8443/x")),
            ("https://127.0.0.1/#f", all("127.0.0.1", 443, "127.0.0.1", "/", "https://127.0.0.1/")),
        ] {
            assert_eq!(place(url), expected, "{url}");
        }
        for url in ["http://a.example/", "a.example", "", "https://", "ftp://a.example/", "/x"] {
            let e = HookUrl::parse(url).expect_err(url);
            assert_eq!((e.class.word(), e.temporary), ("configuration", false));
        }
    }
}
