//! What may be shown of what stands in Postfix's settings and tables. People write logins where tables, hosts and keys
//! belong; so only what has the form of one of these is shown. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::credential::has_secret_shape;

/// What is said in the place of a value that is not shown.
pub const NOT_SHOWN: &str = "(not shown)";
/// What is said in the place of a lookup key that is not shown.
pub const KEY_NOT_SHOWN: &str = "a key that is not shown";

/// The services that a next hop is known to name in place of a port.
const SERVICES: &[&str] = &["smtp", "smtps", "submission", "submissions", "ssmtp"];
/// The ports that mail is handed over on, in the order of their numbers.
const PORTS: &[&str] = &["25", "465", "587", "2465", "2525", "2587"];
/// The types of tables that are files, which are named.
const FILES: &[&str] = &[
    "hash", "btree", "lmdb", "cdb", "texthash", "dbm", "sdbm", "pcre", "regexp", "cidr", "ldap", "mysql", "pgsql",
    "sqlite", "mongodb", "memcache",
];
/// The other types of tables.
const OTHERS: &[&str] = &[
    "inline",
    "static",
    "environ",
    "tcp",
    "socketmap",
    "nis",
    "nisplus",
    "netinfo",
    "unix",
    "pipemap",
    "unionmap",
    "randmap",
    "internal",
    "fail",
    "proxy",
];

/// The type of a table, where it is one of Postfix's, or where a path follows it.
pub fn table_type(spelt: &str) -> Option<&str> {
    let (kind, rest) = spelt.split_once(':')?;
    let is_word = (1..=16).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase());
    (FILES.iter().chain(OTHERS).any(|known| *known == kind) || is_word && is_path(rest)).then_some(kind)
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b))
        && !has_secret_shape(path)
}

/// One table of a list: its type and, where that is a file, the path.
pub fn table(spelt: &str) -> String {
    if is_path(spelt) {
        return spelt.to_owned();
    }
    let rest = spelt.split_once(':').map_or("", |(_, rest)| rest);
    match table_type(spelt) {
        None => NOT_SHOWN.to_owned(),
        Some("proxy") => format!("proxy:{}", table(rest)),
        Some(kind) if !OTHERS.contains(&kind) && is_path(rest) => format!("{kind}:{rest}"),
        Some(kind) => format!("{kind}:{NOT_SHOWN}"),
    }
}

/// Several tables, with commas between.
pub fn tables<'a>(spelt: impl IntoIterator<Item = &'a str>) -> String {
    spelt.into_iter().map(table).collect::<Vec<_>>().join(", ")
}

/// A next hop, as a text in quotation marks, or that it is not shown.
pub fn hop(spelt: &str) -> String {
    if is_destination(spelt) { format!("{spelt:?}") } else { NOT_SHOWN.to_owned() }
}

/// A lookup key: a host or destination, an address, or a domain with `@`; else words that say that it is another.
pub fn key(spelt: &str) -> Cow<'_, str> {
    if is_key(spelt) { spelt.into() } else { KEY_NOT_SHOWN.into() }
}

/// The same in quotation marks, and with the line where it is not shown.
pub fn quoted_key(spelt: &str, line: Option<usize>) -> String {
    match (is_key(spelt), line) {
        (true, _) => format!("{spelt:?}"),
        (false, Some(line)) => format!("{KEY_NOT_SHOWN} (line {line})"),
        (false, None) => KEY_NOT_SHOWN.to_owned(),
    }
}

/// May the key be shown?
pub fn is_key(spelt: &str) -> bool {
    if has_secret_shape(spelt) {
        return false;
    }
    let Some((local, domain)) = spelt.rsplit_once('@') else { return is_destination(spelt) };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+='!#$%&*/?^`{|}~".contains(&b);
    local.bytes().all(plain) && is_host(domain)
}

fn is_destination(spelt: &str) -> bool {
    let (host, port) = match spelt.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match spelt.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (spelt, None),
        },
    };
    let digits = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    // `user:12345` is no destination.
    let is_word = !spelt.starts_with('[') && !host.contains('.') && host != "localhost";
    let is_port = |port: &str| SERVICES.contains(&port) || if is_word { PORTS.contains(&port) } else { digits(port) };
    is_host(host) && !has_secret_shape(spelt) && port.is_none_or(is_port)
}

fn is_host(host: &str) -> bool {
    let bare = host.strip_prefix("IPv6:").or_else(|| host.strip_prefix("ipv6:")).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let has = |label: &str, is: fn(&u8) -> bool| label.as_bytes().iter().any(is);
    let mixed = |label: &str| has(label, u8::is_ascii_uppercase) && has(label, u8::is_ascii_lowercase);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            // Passwords mix all of it, host names do not.
            && !(mixed(label) && has(label, u8::is_ascii_digit))
    };
    let name = host.strip_prefix('.').unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    // A word alone may be a password: host names of one label are short, and mix nothing.
    let is_word = !name.contains('.');
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    name.len() <= 253 && name.split('.').all(label) && (!is_word || name.len() <= 16 && digits <= 3 && !mixed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_by_their_form() {
        for shown in [
            "[relay.example]:587",
            "relay.example",
            "relay.example:submission",
            "[127.0.0.1]:25",
            "[2001:db8::1]:25",
            "me@relay.example",
            "@relay.example",
            "localhost",
            "localhost:34587",
            "relay:587",
            "[relay]:587",
            "[relay.Example.com]:2526",
            "a.b.",
        ] {
            assert!(is_key(shown), "{shown}");
        }
        for hidden in [
            "otheruser:ZqSecretPw77",
            "Zq.SecretPw77",
            "other:77123",
            "otheruser:zqsecretpw77",
            "AKIAX:pw@[h]:587",
            "AKIAX:pw@h.example",
            "ZqSecretPw77",
            "relay.example:word",
            "[relay.example]x",
            "a b",
            "",
        ] {
            assert!(!is_key(hidden), "{hidden}");
        }
    }

    #[test]
    fn tables_are_shown_by_type_and_path() {
        for (spelt, shown) in [
            ("hash:/etc/postfix/sasl_passwd", "hash:/etc/postfix/sasl_passwd"),
            ("/etc/postfix/sasl_passwd", "/etc/postfix/sasl_passwd"),
            ("proxy:mysql:/etc/postfix/m.cf", "proxy:mysql:/etc/postfix/m.cf"),
            ("inline:{{[a]:1=u:pw}}", "inline:(not shown)"),
            ("proxy:inline:{{[a]:1=u:pw}}", "proxy:inline:(not shown)"),
            ("static:AKIAX:pw", "static:(not shown)"),
            ("mysql:{user=u password=pw}", "mysql:(not shown)"),
            ("AKIAX:pw", NOT_SHOWN),
            ("[relay]:587", NOT_SHOWN),
            ("hash:pw", "hash:(not shown)"),
            ("brandnew:/etc/postfix/x", "brandnew:/etc/postfix/x"),
        ] {
            assert_eq!(table(spelt), shown);
        }
        assert_eq!((hop("[h.example]:587").as_str(), hop("AKIAX:pw").as_str()), ("\"[h.example]:587\"", NOT_SHOWN));
    }
}
