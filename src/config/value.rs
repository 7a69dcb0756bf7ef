//! Judges of values that stand in several sections; those of one section stand beside it, those of any file in
//! `relaykey_core::config::value`.

use super::DeValue;
pub(super) use relaykey_core::config::value::*;

/// A TCP port.
pub(super) fn port(value: &DeValue) -> Judged<u16> {
    match u16::try_from(integer(value)?) {
        Ok(port) if port > 0 => Ok(port),
        _ => mistake(
            "there is no such port",
            "write a number from 1 to 65535; SES has 587 (STARTTLS) and 465 (implicit)",
        ),
    }
}

/// A host name and nothing around it; says what is around it.
pub(super) fn host_name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if is_host_name(text) {
        return Ok(text.to_owned());
    }
    if text.contains('@') {
        // Not repeated: what stands before an @ may be a login.
        return mistake("there is an @ in the host name", "write the host name alone; the login comes from the source");
    }
    let mut around = Vec::new();
    let mut also = Vec::new();
    let mut rest = text;
    if let Some((scheme, after)) = rest.split_once("://") {
        rest = after;
        around.push("a scheme");
        also.push(match scheme {
            "smtps" => "tls = \"implicit\"",
            _ => "how it becomes TLS is said by `tls`",
        });
    }
    if let Some((before, _)) = rest.split_once('/') {
        rest = before;
        around.push("a slash");
    }
    let mut port = None;
    if let Some((before, digits)) = rest.rsplit_once(':')
        && digits.parse::<u16>().is_ok()
        && (!before.contains(':') || before.ends_with(']'))
    {
        rest = before;
        port = Some(format!("port = {digits}"));
        around.push("a port");
    }
    if let Some(inner) = rest.strip_prefix('[').and_then(|r| r.strip_suffix(']')) {
        rest = inner;
        around.push("brackets");
        also.push(
            "brackets are Postfix's way to say that MX records are not looked up; it finds them in main.cf itself",
        );
    }
    if let Some(before) = rest.strip_suffix('.') {
        rest = before;
        around.push("a dot at its end");
    }
    if rest.contains(':') {
        return mistake(
            format!("{text:?} is an IPv6 address"),
            "write the host name that the server's certificate carries",
        );
    }
    if around.is_empty() || !is_host_name(rest) {
        return mistake(
            format!("{text:?} is not a host name"),
            "write a name like \"email-smtp.eu-west-1.amazonaws.com\": letters, digits, - and dots",
        );
    }
    let port = port.map(|p| format!(" and {p}")).unwrap_or_default();
    let also = if also.is_empty() { String::new() } else { format!(" ({})", also.join("; ")) };
    mistake(
        format!("{text:?} is a host name with {}", around.join(" and ")),
        format!("write the name alone, {rest:?}{port}{also}"),
    )
}

/// A mail address as it stands in an envelope (RFC 5321, section 4.1.2): a dot-string and a domain, without quoted local
/// parts and address literals.
pub(super) fn mail_address(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let usage = "write the address alone: \"postmaster@example.com\"";
    let atom = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    match text.rsplit_once('@') {
        Some((local, domain))
            if local.len() <= 64
                && local.split('.').all(atom)
                && is_host_name(domain)
                && !domain.contains('_')
                && text.len() <= 254 =>
        {
            Ok(text.to_owned())
        }
        _ if text.contains(['<', '"']) => mistake("there is more than a mail address", usage),
        _ if text.contains([',', ';', ' ']) => {
            mistake("this is more than one mail address, or a name with it", "write one address, without a name")
        }
        _ => mistake("this is no mail address", usage),
    }
}
