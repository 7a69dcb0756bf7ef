//! Judges of single values: each takes one value of the file and gives what the program uses, or says what is wrong
//! with it and what to write instead. They know nothing of where the value stands.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use toml::de::DeValue;

use super::{Listen, Log, Reload};
use crate::credential::{has_secret_shape, region_shaped};

/// What is wrong with one value, and what to write instead.
pub(super) struct Mistake {
    pub(super) what: String,
    pub(super) fix: String,
}

pub(super) type Judged<T> = Result<T, Mistake>;

pub(super) fn mistake<T>(what: impl Into<String>, fix: impl Into<String>) -> Judged<T> {
    Err(Mistake { what: what.into(), fix: fix.into() })
}

/// May a login or a password stand in it, so that it is not to be quoted: in one of its words an `@`, a `:` with eight characters
/// or more after it that are no path, address or the rest of an ARN or URL, or the shape of a secret or a password?
/// `is_address`: an `@` belongs there.
pub(super) fn may_hold_a_secret(text: &str, is_address: bool) -> bool {
    telling(text, is_address).next().is_some()
}

/// Does what is said of a value quote what may be a secret in it?
pub(super) fn quotes_a_secret(said: &Mistake, text: &str, is_address: bool) -> bool {
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
pub(super) fn is_short_word(text: &str) -> bool {
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
fn named(text: &str) -> String {
    match text.split_whitespace().all(is_short_word) && text.len() <= 40 {
        true => format!("{text:?}"),
        false => "what stands there (it is not shown, as it may hold a secret)".into(),
    }
}

pub(super) fn quoted_list(words: &[&str], or: &str) -> String {
    words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(or)
}

/// The one of `known` that was probably meant.
pub(super) fn similar<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|k| (strsim::normalized_damerau_levenshtein(&word, &k.replace('-', "_")), *k))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

pub(super) fn expected(what: &str, found: &DeValue) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("expected {what}, found {found}")
}

/// Any text without control characters: the mail server's files, argv and logs have no place for those.
fn string<'d>(value: &'d DeValue<'d>) -> Judged<&'d str> {
    let text = match value {
        DeValue::String(text) => text.as_ref(),
        DeValue::Integer(n) => {
            return mistake(expected("a string", value), format!("put it in quotes: \"{}\"", n.as_str()));
        }
        DeValue::Array(_) | DeValue::Table(_) => {
            return mistake(expected("a string", value), "give one value in quotes");
        }
        _ => return mistake(expected("a string", value), "put the value in quotes"),
    };
    match text.chars().position(char::is_control) {
        Some(at) => mistake(
            format!("character {} is a control character (NUL, tab, line end or the like)", at + 1),
            "remove it; in double quotes a backslash begins an escape, in single quotes it does not",
        ),
        None => Ok(text),
    }
}

/// A text that is not empty and has no blanks around it.
fn trimmed<'d>(value: &'d DeValue<'d>) -> Judged<&'d str> {
    match string(value)? {
        "" => mistake("the value is empty", "give a value, or remove the line"),
        text if text.trim() != text => mistake("there are blanks around the value", "remove them inside the quotes"),
        text => Ok(text),
    }
}

pub(super) fn word(value: &DeValue) -> Judged<String> {
    trimmed(value).map(str::to_owned)
}

pub(super) fn integer(value: &DeValue) -> Judged<i64> {
    match value {
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Ok(n),
            Err(_) => mistake("the number is too large, or has no digits", "write a smaller number"),
        },
        DeValue::String(text) if is_short_word(text) && text.parse::<i64>().is_ok() => {
            mistake(expected("an integer", value), format!("remove the quotes: {text}"))
        }
        other => mistake(expected("an integer", other), "write a whole number, without quotes"),
    }
}

pub(super) fn boolean(value: &DeValue) -> Judged<bool> {
    match value {
        DeValue::Boolean(b) => Ok(*b),
        other => mistake(expected("a boolean", other), "write true or false, without quotes"),
    }
}

pub(super) fn port(value: &DeValue) -> Judged<u16> {
    match u16::try_from(integer(value)?) {
        Ok(port) if port > 0 => Ok(port),
        _ => mistake(
            "there is no such port",
            "write a number from 1 to 65535; SES has 587 (STARTTLS) and 465 (implicit)",
        ),
    }
}

pub(super) fn choice<T: Copy>(value: &DeValue, choices: &[(&'static str, T)], later: &[(&str, &str)]) -> Judged<T> {
    let text = trimmed(value)?;
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*chosen);
    }
    if let Some((name, fix)) = later.iter().find(|(name, _)| *name == text) {
        return mistake(format!("{name:?} is not yet supported"), *fix);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let guess = similar(text, &names).map(|s| format!("did you mean {s:?}? ")).unwrap_or_default();
    let found = if guess.is_empty() { named(text) } else { format!("{text:?}") };
    mistake(format!("{found} is not known"), format!("{guess}Allowed here: {}", quoted_list(&names, ", ")))
}

/// A path from the root, without `..`: every directory on the way is checked before anything is written.
pub(super) fn absolute(value: &DeValue) -> Judged<PathBuf> {
    let text = trimmed(value)?;
    let path = Path::new(text);
    if text.starts_with('~') {
        return mistake(format!("{text:?} begins with ~, which only a shell replaces"), "write the path from / on");
    }
    if !path.is_absolute() {
        return mistake(format!("{text:?} is not an absolute path"), "write the path from / on");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return mistake(format!("{text:?} has \"..\" in it"), "write the path without \"..\"");
    }
    Ok(path.to_owned())
}

/// A length of time within bounds: `500ms`, `10s`, `5m`, `1h`, also `1m 30s`.
pub(super) fn duration(value: &DeValue, range: RangeInclusive<Duration>) -> Judged<Duration> {
    let usage = "write a number with its unit, in quotes: \"500ms\", \"10s\", \"5m\", \"1h\"";
    let DeValue::String(_) = value else { return mistake(expected("a string", value), usage) };
    let text = trimmed(value)?;
    // jiff reads ISO 8601 (`PT5M`), clock times and `ago` too; one way to write it is enough.
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ' || b == b'.')
        && !text.ends_with("ago");
    let parsed = if plain { text.parse::<SignedDuration>().ok() } else { None };
    match parsed.and_then(|d| Duration::try_from(d).ok()) {
        None => mistake(format!("{} is not a length of time", named(text)), usage),
        Some(d) if range.contains(&d) => Ok(d),
        Some(_) => mistake(
            format!("{text:?} is out of bounds"),
            format!("choose from {:#} to {:#}", shown(*range.start()), shown(*range.end())),
        ),
    }
}

fn shown(d: Duration) -> SignedDuration {
    SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX)
}

pub(super) fn name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let rule = "use 1 to 64 lower case letters, digits and -, the first one no -";
    if text.len() > 64 || text.starts_with('-') || !text.bytes().all(fits) {
        return mistake(format!("{text:?} cannot be a name"), rule);
    }
    Ok(text.to_owned())
}

pub(super) fn region(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if region_shaped(text) {
        return Ok(text.to_owned());
    }
    let mut lower = text.to_ascii_lowercase();
    let fix = if region_shaped(&lower) {
        format!("write {lower:?}")
    } else if lower.pop().is_some_and(|c| c.is_ascii_lowercase()) && region_shaped(&lower) {
        format!("write {lower:?}: with a letter at its end it is an availability zone")
    } else {
        "write it as AWS does: \"eu-west-1\"".to_owned()
    };
    mistake(format!("{text:?} is not a region"), fix)
}

fn is_host_name(text: &str) -> bool {
    // RFC 1123, section 2.1; underscores occur in private names.
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
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

/// The parts of `arn:partition:service:region:account:resource` that matter here.
struct Arn<'a> {
    service: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

/// `None`: not of an ARN's shape.
fn arn(text: &str) -> Option<Arn<'_>> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, service, region, account, resource] = parts[..] else { return None };
    let account_fits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_graphic());
    (partition.starts_with("aws") && account_fits && plain(text) && !resource.is_empty()).then_some(Arn {
        service,
        region,
        account,
        resource,
    })
}

/// A name or an ARN, with the ARN's region.
pub(super) struct Id {
    pub(super) text: String,
    pub(super) region: Option<String>,
}

/// Judges an id that begins with `arn:`. Values are not repeated: somebody may have put the secret itself here.
fn id_from_arn(text: &str, service: &str, prefix: &str, example: &str) -> Judged<Id> {
    let Some(arn) = arn(text) else { return mistake("the ARN is not complete", format!("write it like {example}")) };
    if arn.service != service {
        let fix = match arn.service {
            "ssm" => "set type = \"parameter-store\" and parameter = to this ARN".to_owned(),
            "secretsmanager" => "set type = \"secrets-manager\" and secret = to this ARN".to_owned(),
            _ => format!("write one like {example}"),
        };
        return mistake(format!("it is an ARN of {:?}, not of {service:?}", arn.service), fix);
    }
    if !region_shaped(arn.region) {
        return mistake("the ARN names no region", format!("write it like {example}"));
    }
    match arn.resource.strip_prefix(prefix) {
        Some(name) if !name.is_empty() => Ok(Id { text: text.to_owned(), region: Some(arn.region.to_owned()) }),
        _ => mistake(
            format!("it is the ARN of something else in {service:?} of account {}", arn.account),
            format!("write one like {example}"),
        ),
    }
}

/// A name or ARN in Secrets Manager (CreateSecret, `Name`).
pub(super) fn secret_id(value: &DeValue) -> Judged<Id> {
    let text = trimmed(value)?;
    let example = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:NAME-AbCdEf";
    if text.starts_with("arn:") {
        return id_from_arn(text, "secretsmanager", "secret:", example);
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b);
    if text.len() <= 512 && text.bytes().all(fits) {
        return Ok(Id { text: text.to_owned(), region: None });
    }
    mistake(
        "this is no name of a secret: it has at most 512 letters, digits and /_+=.@-",
        format!("write the secret's name, or its ARN like {example}; not what it holds"),
    )
}

/// A name or ARN in Parameter Store (PutParameter, `Name`).
pub(super) fn parameter_id(value: &DeValue) -> Judged<Id> {
    let text = trimmed(value)?;
    let example = "arn:aws:ssm:eu-west-1:111122223333:parameter/ses/smtp";
    let selector = || mistake("a version or label follows the name", "write the name alone; a label goes into `label`");
    if text.starts_with("arn:") {
        let id = id_from_arn(text, "ssm", "parameter/", example)?;
        return if arn(text).is_some_and(|arn| arn.resource.contains(':')) { selector() } else { Ok(id) };
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/_.-".contains(&b);
    match text.split_once(':') {
        Some((name, _)) if name.bytes().all(fits) && name.starts_with('/') => selector(),
        None if text.contains('/') && !text.starts_with('/') && text.bytes().all(fits) => {
            mistake("a parameter name with a slash in it begins with one", format!("write \"/{text}\""))
        }
        None if text.len() <= 2048 && !text.ends_with('/') && text.bytes().all(fits) => {
            Ok(Id { text: text.to_owned(), region: None })
        }
        _ => mistake(
            "this is no name of a parameter: it has letters, digits and _.-, with / between its parts",
            format!("write the parameter's name, or its ARN like {example}; not what it holds"),
        ),
    }
}

/// A staging label (Secrets Manager, `VersionStage`).
pub(super) fn stage(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if text.len() > 256 || text.contains(char::is_whitespace) {
        return mistake("this is no staging label", "use up to 256 characters without blanks, such as AWSCURRENT");
    }
    Ok(text.to_owned())
}

/// A parameter label (LabelParameterVersion, `Labels`).
pub(super) fn label(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let lower = text.to_ascii_lowercase();
    let reserved =
        lower.starts_with("aws") || lower.starts_with("ssm") || lower.starts_with(|c: char| c.is_ascii_digit());
    if text.len() > 100 || !text.bytes().all(fits) || reserved {
        let fix = "use up to 100 letters, digits and _.-, beginning with neither a digit nor aws nor ssm; versions have no place here";
        return mistake(format!("{text:?} cannot be a label in Parameter Store"), fix);
    }
    Ok(text.to_owned())
}

pub(super) fn role_arn(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let example = "write it like arn:aws:iam::111122223333:role/relaykey";
    match arn(text) {
        None => mistake(format!("{text:?} is not an ARN"), example),
        Some(Arn { service: "iam", region: "", resource, .. })
            if resource.strip_prefix("role/").is_some_and(|r| !r.is_empty()) =>
        {
            Ok(text.to_owned())
        }
        Some(_) => mistake(format!("{text:?} is not the ARN of an IAM role"), example),
    }
}

/// What AssumeRole takes as `ExternalId`.
pub(super) fn external_id(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b);
    if !(2..=1224).contains(&text.len()) || !text.bytes().all(fits) {
        return mistake("this is no external id", "use 2 to 1224 letters, digits and _+=,.@:/-");
    }
    Ok(text.to_owned())
}

/// Which schemes a URL may have.
pub(super) enum Scheme {
    /// A secret comes back from there, so without TLS it must not leave the machine.
    HttpsOrLoopback,
    /// Nothing but TLS.
    Https,
    /// TLS runs through it, from end to end.
    Any,
}

/// `http://HOST[:PORT]` or `https://…`; values are not repeated, since a URL may carry a password.
pub(super) fn url(value: &DeValue, schemes: Scheme) -> Judged<String> {
    let text = trimmed(value)?;
    let usage = match schemes {
        Scheme::HttpsOrLoopback => "write it like https://HOST or https://HOST:PORT",
        Scheme::Https => "write it like https://HOST/PATH",
        Scheme::Any => "write it like http://HOST:PORT",
    };
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return mistake("this is no http or https URL", usage);
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    // Behind the host an @ is a letter like any other, where there may be a path.
    if authority.contains('@') || rest.contains('@') && !matches!(schemes, Scheme::Https) {
        let fix = match schemes {
            Scheme::Https => {
                "remove the user name and the password: no secret stands in this file; the receiver knows this host by the \
                 signature that is made with `secret_file`"
            }
            _ => {
                "remove the user name and the password: no secret stands in this file; let the proxy admit this host by its \
                 address"
            }
        };
        return mistake("there is a user name in the URL", fix);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fits = v6.map_or_else(|| is_host_name(host), |v6| v6.parse::<Ipv6Addr>().is_ok());
    let port_fits = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    // Where reports go, a path may be followed by a query; nothing is asked of a fragment.
    let extra = rest.contains('#') || rest.contains('?') && !matches!(schemes, Scheme::Https);
    if !host_fits || !port_fits || !text.bytes().all(|b| b.is_ascii_graphic()) || extra {
        return mistake("host or port of the URL cannot be right", usage);
    }
    let loopback = match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback()),
        None => {
            host.eq_ignore_ascii_case("localhost")
                || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        }
    };
    match schemes {
        Scheme::HttpsOrLoopback if scheme == "http" && !loopback => mistake(
            "the secret would cross the network without encryption",
            "use https; http is for this machine itself (127.0.0.1)",
        ),
        Scheme::Https if scheme == "http" => {
            mistake("the reports would cross the network without encryption", "use https")
        }
        _ => Ok(text.to_owned()),
    }
}

pub(super) fn reload(value: &DeValue) -> Judged<Reload> {
    let usage =
        "for a command write a list, the program's full path first: [\"/usr/bin/systemctl\", \"reload\", \"postfix\"]";
    let words = || [("always", ()), ("if-needed", ()), ("never", ())];
    match value {
        DeValue::String(_) => match trimmed(value)? {
            "always" => Ok(Reload::Always),
            "if-needed" => Ok(Reload::IfNeeded),
            "never" => Ok(Reload::Never),
            text if text.contains([' ', '/']) => mistake("a command is no string: nothing here splits it", usage),
            _ => choice(value, &words(), &[]).map(|()| Reload::Always),
        },
        DeValue::Array(_) => argv(value, usage).map(Reload::Command),
        other => mistake(expected("a string or a list of strings", other), usage),
    }
}

/// A program with its arguments.
pub(super) fn command(value: &DeValue) -> Judged<Vec<String>> {
    let usage = "write a list, the program's full path first: [\"/usr/local/lib/relaykey/report\", \"--fleet\"]";
    match value {
        DeValue::Array(_) => argv(value, usage),
        DeValue::String(_) => mistake("a command is no string: nothing here splits it", usage),
        other => mistake(expected("a list of strings", other), usage),
    }
}

fn argv(value: &DeValue, usage: &str) -> Judged<Vec<String>> {
    let items = value.as_array().into_iter().flatten();
    let argv = items.map(|item| string(item.get_ref()).map(str::to_owned)).collect::<Judged<Vec<_>>>()?;
    match argv.first() {
        None => mistake("the list is empty", usage),
        Some(program) if !program.starts_with('/') => {
            mistake(format!("the program {program:?} is not an absolute path"), usage)
        }
        Some(_) => Ok(argv),
    }
}

/// A user of this host, by name. Whether there is one of that name is for those to say who use it.
pub(super) fn user_name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if text == "root" || text.bytes().all(|b| b.is_ascii_digit()) {
        return mistake(
            format!("{text:?} cannot be the user that a report is handed to"),
            "name a user without rights, such as \"nobody\"",
        );
    }
    if text.len() > 32 || text.starts_with('-') || !text.bytes().all(fits) {
        return mistake(format!("{text:?} is no user name"), "name a user of this host, such as \"nobody\"");
    }
    Ok(text.to_owned())
}

/// The user who writes a file: a name, or a number where this host need not know the name.
pub(super) fn owner(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let usage = "name the user who writes the file, such as \"vault\", or its number";
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-$".contains(&b);
    if is_number && text.parse::<u32>().is_err() || text.len() > 32 || text.starts_with('-') || !text.bytes().all(fits)
    {
        return mistake(format!("{text:?} is no user"), usage);
    }
    Ok(text.to_owned())
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

/// A mail server on this machine, or `ses`, which is `None`.
pub(super) fn mail_server(value: &DeValue) -> Judged<Option<(String, u16)>> {
    let text = trimmed(value)?;
    let usage = "write \"localhost:25\", the mail server on this machine, or \"ses\"";
    if text == "ses" {
        return Ok(None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, digits)) if !host.contains(':') || host.ends_with(']') => match digits.parse::<u16>() {
            Ok(port) if port > 0 => (host, port),
            _ => return mistake(format!("there is no port {digits:?}"), usage),
        },
        _ => (text, 25),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return Ok(Some((host.to_ascii_lowercase(), port)));
    }
    mistake(format!("{text:?} is not on this machine, and messages go there without TLS and without a login"), usage)
}

/// Name of a table (DynamoDB, "Naming rules").
pub(super) fn table_name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if (3..=255).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    let what =
        if text.starts_with("arn:") { "this is an ARN".to_owned() } else { format!("{text:?} is no name of a table") };
    mistake(what, "write the table's name: 3 to 255 letters, digits and _.-")
}

/// A key as it stands in a table.
pub(super) fn lookup_key(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if text.contains(char::is_whitespace) || text.starts_with(['#', '"']) {
        return mistake(
            format!("{text:?} cannot be a lookup key"),
            "write it as it stands in the table, without blanks: \"[email-smtp.eu-west-1.amazonaws.com]:587\"",
        );
    }
    Ok(text.to_owned())
}

/// Where the mail server logs.
pub(super) fn log(value: &DeValue) -> Judged<Log> {
    let usage = "write the log's path, \"/var/log/mail.log\", or \"journal\"; without the line it is found";
    match trimmed(value)? {
        "journal" => Ok(Log::Journal),
        // The journal's own files are no text.
        text if text.starts_with("/var/log/journal") || text.starts_with("/run/log/journal") => {
            mistake(format!("{text:?} is where the systemd journal keeps its files"), "write log = \"journal\"")
        }
        text if text.starts_with(['/', '~', '.']) => absolute(value).map(Log::File),
        text => mistake(format!("{text:?} is neither a path nor \"journal\""), usage),
    }
}

/// The longest path that fits into a socket address (`sun_path` with its NUL, unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// An address and a port, or the path of a Unix socket.
pub(super) fn listen(value: &DeValue) -> Judged<Listen> {
    let usage = "write \"127.0.0.1:9465\", \"[::1]:9465\", or the path of a Unix socket";
    let DeValue::String(_) = value else { return mistake(expected("a string", value), usage) };
    let text = trimmed(value)?;
    if text.starts_with(['/', '~', '.']) {
        let path = absolute(value)?;
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
pub(super) fn http_host(value: &DeValue) -> Judged<String> {
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

/// Levels that a parameter's name may have (Systems Manager, "Requirements and constraints for parameter names"), less the
/// two that are appended: credential and host.
const MAX_LEVELS: usize = 13;

/// A name may have 1011 characters, the ARN in front of it and what is appended included; a credential has up to 64, a
/// host up to 253.
const MAX_PATH: usize = 512;

/// The path below which reports are stored as parameters.
pub(super) fn parameter_path(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let example = "write it like \"/relaykey\"";
    if text.starts_with("arn:") {
        return mistake("this is an ARN", "write the path alone, like \"/relaykey\"; the region is said by `region`");
    }
    if !text.starts_with('/') {
        return mistake(format!("{text:?} does not begin with a slash"), format!("write \"/{text}\""));
    }
    let path = text.trim_end_matches('/');
    if path.is_empty() {
        return mistake("the path has no name in it", example);
    }
    if path != text {
        return mistake(format!("{text:?} ends with a slash"), format!("write {path:?}"));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.iter().any(|part| part.is_empty() || !part.bytes().all(fits)) {
        let what = format!("{text:?} cannot begin the name of a parameter");
        return mistake(what, "use letters, digits and _.-, with one / between the parts");
    }
    let lower = parts[0].to_ascii_lowercase();
    if lower.starts_with("aws") || lower.starts_with("ssm") {
        let what = "names that begin with aws or ssm are reserved in Parameter Store";
        return mistake(what, "begin the path otherwise: \"/relaykey\"");
    }
    if parts.len() > MAX_LEVELS || path.len() > MAX_PATH {
        let what = "the path is too long for Parameter Store: /CREDENTIAL/HOST is appended to it";
        return mistake(what, format!("use at most {MAX_LEVELS} parts and {MAX_PATH} characters"));
    }
    Ok(path.to_owned())
}
