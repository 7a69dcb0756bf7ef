//! URLs: what may stand in one depends on what goes there. Values are not repeated, since a URL may carry a password.

use std::net::{Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;

use super::value::{Judged, is_host_name, mistake, trimmed};

/// Which URLs are taken, and what is said of others.
#[derive(Debug, Clone, Copy)]
pub struct UrlRule {
    /// How one is written.
    pub usage: &'static str,
    /// What to do about a login in it.
    pub no_login: &'static str,
    /// May a path with an `@` or a query in it follow?
    pub takes_query: bool,
    /// May it be `http`?
    pub clear: ClearText,
}

/// May it be `http`, without encryption?
#[derive(Debug, Clone, Copy)]
pub enum ClearText {
    /// TLS runs through it, from end to end.
    Taken,
    /// Only to this machine itself: what would happen elsewhere, and what to do.
    OnThisMachine(&'static str, &'static str),
    /// What would happen, and what to do.
    Never(&'static str, &'static str),
}

/// `http://HOST[:PORT]` or `https://…`, as the rule has it.
pub fn url(value: &DeValue, rule: &UrlRule) -> Judged<String> {
    let text = trimmed(value)?;
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return mistake("this is no http or https URL", rule.usage);
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    // Behind the host an @ is a letter like any other, where there may be a path.
    if authority.contains('@') || rest.contains('@') && !rule.takes_query {
        return mistake("there is a user name in the URL", rule.no_login);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fits = v6.map_or_else(|| is_host_name(host), |v6| v6.parse::<Ipv6Addr>().is_ok());
    let port_fits = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    // A path may be followed by a query; nothing is asked of a fragment.
    let extra = rest.contains('#') || rest.contains('?') && !rule.takes_query;
    if !host_fits || !port_fits || !text.bytes().all(|b| b.is_ascii_graphic()) || extra {
        return mistake("host or port of the URL cannot be right", rule.usage);
    }
    let loopback = match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback()),
    };
    match rule.clear {
        ClearText::OnThisMachine(what, fix) if scheme == "http" && !loopback => mistake(what, fix),
        ClearText::Never(what, fix) if scheme == "http" => mistake(what, fix),
        _ => Ok(text.to_owned()),
    }
}
