//! Pieces of the page: what may stand in HTML, commands in sentences, and times.

use std::fmt::{self, Display, Write as _};

use jiff::Timestamp;

use super::super::verdict::{rough, since};
use crate::rollover::rfc3339;
use crate::text::shows;

/// Text for the inside of an element or a quoted attribute. What could end either, or change the direction or the place
/// of the text around it, is written as a reference or shown as what it is: some words come from other servers.
pub(super) struct Safe<T>(pub(super) T);

impl<T: Display> Display for Safe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' => f.write_str(" ")?,
                c if shows(c) => f.write_char(c)?,
                c => write!(f, "{}", c.escape_default())?,
            }
        }
        Ok(())
    }
}

/// As [`Safe`], where a command stands between two backticks, as in sentences of ours.
pub(super) struct WithCommands<T>(pub(super) T);

impl<T: Display> Display for WithCommands<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_commands(f, &self.0.to_string())
    }
}

/// Text in which a command stands between two backticks.
pub(super) fn write_commands(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    // Other programs quote with one backtick, and one apostrophe at the end.
    let quoted = |(i, part): (usize, &str)| i % 2 == 1 && part.trim() != part;
    if !text.matches('`').count().is_multiple_of(2) || text.split('`').enumerate().any(quoted) {
        return write!(out, "{}", Safe(text));
    }
    for (i, part) in text.split('`').enumerate() {
        match i % 2 {
            0 => write!(out, "{}", Safe(part))?,
            _ => write_command(out, part)?,
        }
    }
    Ok(())
}

/// A command. An option is not broken at its hyphens, where a narrow screen would show another one.
pub(super) fn write_command(out: &mut impl fmt::Write, command: &str) -> fmt::Result {
    out.write_str("<code>")?;
    for (i, word) in command.split(' ').enumerate() {
        out.write_str(if i == 0 { "" } else { " " })?;
        match word.starts_with("--") && word.len() <= 20 {
            true => write!(out, "<span class=\"option\">{}</span>", Safe(word))?,
            false => write!(out, "{}", Safe(word))?,
        }
    }
    out.write_str("</code>")
}

/// One line of the list of facts; `value` is HTML.
pub(super) fn fact(out: &mut String, name: &str, value: impl Display) -> fmt::Result {
    writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>")
}

/// As the beginning of a sentence; the program's own name stays as it is.
pub(super) fn capitalised(text: &str) -> String {
    if text.starts_with("relaykey") {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

/// `2026-11-20 22:10:05`.
pub(super) fn clock(at: Timestamp) -> String {
    rfc3339(at).replace('T', " ").trim_end_matches('Z').to_owned()
}

/// `3 hours ago (2026-11-20 19:10:05 UTC)`.
pub(super) fn when(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({} UTC)", since(at, now), clock(at))
}

pub(super) fn ahead(at: Timestamp, now: Timestamp) -> String {
    match at.duration_since(now) {
        left if left.as_secs() <= 0 => "now".into(),
        left => format!("in {}", rough(left)),
    }
}
