//! What may be a secret, and so is not repeated: people put what they have at hand into the wrong key.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::value::WrongValue;
use crate::credential::has_secret_shape;

/// May a login or a password stand in it, so that it is not to be quoted: in one of its words an `@`, a `:` with eight characters
/// or more after it that are no path, address or the rest of an ARN or URL, or the shape of a secret or a password?
/// `is_address`: an `@` belongs there.
pub fn may_hold_a_secret(text: &str, is_address: bool) -> bool {
    telling(text, is_address).next().is_some()
}

/// Does what is said of a value quote what may be a secret in it?
pub fn quotes_a_secret(said: &WrongValue, text: &str, is_address: bool) -> bool {
    // Quoted, they may be escaped.
    let is_quoted = |part: &str| part.len() >= 4 && (said.what.contains(part) || said.fix.contains(part));
    telling(text, is_address).any(|word| word.split([':', '@', '/', '"', '\'', '\\']).any(is_quoted))
}

/// The words that may be a secret, or hold one; of a URL its login.
fn telling(text: &str, is_address: bool) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter_map(move |word| told_by(word, is_address))
}

fn told_by(word: &str, is_address: bool) -> Option<&str> {
    let word = word.trim_matches(['"', '\'', ',', '{', '}']);
    let rest = match word.split_once("://") {
        Some((_, rest)) => rest.rsplit_once('@').map_or(rest, |(login, _)| &rest[..=login.len()]),
        None if word.starts_with("arn:") => "",
        None => word,
    };
    let is_login = may_be_a_login(rest, is_address) || has_secret_shape(word);
    is_login.then_some(rest).or(may_be_a_password(word).then_some(word))
}

fn may_be_a_login(word: &str, is_address: bool) -> bool {
    // An address in brackets or without, and what may stand after it.
    let is_host = |host: &str| host.parse::<Ipv6Addr>().is_ok() || !host.contains(':');
    let after = match word.rsplit_once(']') {
        Some((host, after)) if is_host(host.trim_start_matches(['[', '"', '\''])) => after,
        _ => word,
    };
    let tells = |(_, told): (&str, &str)| told.len() >= 8 && !told.starts_with('/') && !is_place_or_time(word);
    word.contains('@') && (!is_address || word.contains(':')) || after.split_once(':').is_some_and(tells)
}

/// An IPv6 address, a network of them, or a window of time: all that has more than a port after a colon. Digits after a
/// name are a password as well as letters are.
fn is_place_or_time(word: &str) -> bool {
    let address = word.split(['/', '%']).next().unwrap_or(word);
    word.parse::<SocketAddr>().is_ok()
        || address.parse::<IpAddr>().is_ok()
        || word.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '-'))
}

/// Does it look made up by a machine, or for a password: letters of both cases and digits in one run, many hexadecimal
/// digits, or signs that stand in no name?
fn may_be_a_password(word: &str) -> bool {
    let runs = || word.split(|c: char| !c.is_ascii_alphanumeric());
    let has = |run: &str, is: fn(&u8) -> bool| run.as_bytes().iter().any(is);
    let is_mixed = |run: &str| {
        let both = has(run, u8::is_ascii_uppercase) && has(run, u8::is_ascii_lowercase);
        run.len() >= 8 && both && has(run, u8::is_ascii_digit)
    };
    let is_hex = |run: &str| {
        let hex = run.bytes().all(|b| b.is_ascii_hexdigit());
        run.len() >= 16 && hex && has(run, u8::is_ascii_digit) && has(run, u8::is_ascii_alphabetic)
    };
    let is_arn_or_url = word.starts_with("arn:") || word.contains("://");
    let odd = || word.len() >= 8 && !word.contains('/') && word.contains(['!', '$', '^', '&', '?', '#', ';']);
    !is_arn_or_url && (runs().any(|run| is_mixed(run) || is_hex(run)) || word.starts_with("SG.") || odd())
}

/// A number, a length of time, or a word as keys and their values are: what may be shown where one of a few is expected. A
/// password of one such word cannot be told from them.
pub fn is_short_word(text: &str) -> bool {
    let is_word = text.len() <= 20
        && text.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-'))
        && (!text.bytes().skip(1).any(|b| b.is_ascii_uppercase()) || !text.bytes().any(|b| b.is_ascii_lowercase()));
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = number.len() <= 6
        && number.starts_with(|c: char| c.is_ascii_digit())
        && number.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    is_word || is_number
}

/// The value in quotes, where it is made of short words.
pub(super) fn named(text: &str) -> String {
    match text.split_whitespace().all(is_short_word) && text.len() <= 40 {
        true => format!("{text:?}"),
        false => "what stands there (it is not shown, as it may hold a secret)".into(),
    }
}
