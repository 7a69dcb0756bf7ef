//! Judges of single values: each takes one value of a file and gives what the program uses, or says what is wrong
//! with it and what to write instead. They know nothing of where the value stands.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use toml::de::DeValue;

use super::hidden::{is_short_word, named};

/// What is wrong with one value, and what to write instead.
pub struct WrongValue {
    pub what: String,
    pub fix: String,
}

pub type Judged<T> = Result<T, WrongValue>;

pub fn mistake<T>(what: impl Into<String>, fix: impl Into<String>) -> Judged<T> {
    Err(WrongValue { what: what.into(), fix: fix.into() })
}

pub fn quoted_list(words: &[&str], or: &str) -> String {
    words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(or)
}

/// The one of `known` that was probably meant.
pub fn similar<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|k| (strsim::normalized_damerau_levenshtein(&word, &k.replace('-', "_")), *k))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

pub fn expected(what: &str, found: &DeValue) -> String {
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
pub fn string<'d>(value: &'d DeValue<'d>) -> Judged<&'d str> {
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
pub fn trimmed<'d>(value: &'d DeValue<'d>) -> Judged<&'d str> {
    match string(value)? {
        "" => mistake("the value is empty", "give a value, or remove the line"),
        text if text.trim() != text => mistake("there are blanks around the value", "remove them inside the quotes"),
        text => Ok(text),
    }
}

pub fn word(value: &DeValue) -> Judged<String> {
    trimmed(value).map(str::to_owned)
}

pub fn integer(value: &DeValue) -> Judged<i64> {
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

pub fn boolean(value: &DeValue) -> Judged<bool> {
    match value {
        DeValue::Boolean(b) => Ok(*b),
        other => mistake(expected("a boolean", other), "write true or false, without quotes"),
    }
}

pub fn choice<T: Copy>(value: &DeValue, choices: &[(&'static str, T)], later: &[(&str, &str)]) -> Judged<T> {
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
pub fn absolute(value: &DeValue) -> Judged<PathBuf> {
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
pub fn duration(value: &DeValue, range: RangeInclusive<Duration>) -> Judged<Duration> {
    duration_written(value, range, "write a number with its unit, in quotes: \"500ms\", \"10s\", \"5m\", \"1h\"")
}

/// The same; `usage` says how it may be written there.
pub fn duration_written(value: &DeValue, range: RangeInclusive<Duration>, usage: &str) -> Judged<Duration> {
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

pub fn name(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let rule = "use 1 to 64 lower case letters, digits and -, the first one no -";
    if text.len() > 64 || text.starts_with('-') || !text.bytes().all(fits) {
        return mistake(format!("{text:?} cannot be a name"), rule);
    }
    Ok(text.to_owned())
}

pub fn is_host_name(text: &str) -> bool {
    // RFC 1123, section 2.1; underscores occur in private names.
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A program with its arguments, from a list; `usage` says how one is written.
pub fn argv(value: &DeValue, usage: &str) -> Judged<Vec<String>> {
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
