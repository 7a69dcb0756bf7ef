//! Findings for people, each with the line of the file that it is about, as far as that may be shown.

use std::path::Path;

use super::hidden::{is_short_word, may_hold_a_secret};
use super::schema::{AtSign, Schema};
use super::syntax::{FileLines, key_of};
use crate::finding::Finding;
use crate::text;

/// The findings for people:
///
/// ```text
/// /etc/relaykey/config.toml:12: error: unknown key "endpont" in [credential.smtp]
///     endpont = …
///   fix: did you mean "endpoint"? Allowed here: …
/// ```
///
/// `text` is the configuration's; without it, and for findings about other files, no line is quoted. The value of a
/// quoted line is left out unless it belongs to a key whose values are harmless, and looks like no secret.
pub fn render_text(findings: &[Finding], path: &Path, text: Option<&str>, schema: &Schema) -> String {
    let lines = text.map(FileLines::new);
    let mut out = String::new();
    for finding in findings {
        let file = finding.file.as_deref().unwrap_or(path).display();
        let line = finding.line.map(|line| format!("{line}: ")).unwrap_or_else(|| " ".to_owned());
        out.push_str(&format!("{file}:{line}{}: {}\n", finding.severity, finding.what));
        let quoted = match (&lines, finding.line, &finding.file) {
            (Some(lines), Some(line), None) => quotable(lines.get(line), schema),
            _ => None,
        };
        if let Some(quoted) = quoted {
            out.push_str(&format!("    {quoted}\n"));
        }
        out.push_str(&format!("  fix: {}\n", finding.fix));
    }
    out
}

/// What of a line may be shown: no comment, no value of a key that people put secrets into or that nobody knows, and none that
/// may hold a secret, whatever its key.
pub fn quotable(line: &str, schema: &Schema) -> Option<String> {
    let line = without_comment(line).trim();
    if line.starts_with('[') && !line.contains('=') {
        let mut parts = line.trim_matches(['[', ']', ' ']).split('.').map(|part| part.trim().trim_matches('"'));
        return parts.all(is_short_word).then(|| excerpt(line));
    }
    let key = key_of(line)?;
    let known = || schema.sections.iter().flat_map(|s| s.keys).filter(|k| k.name == key);
    let value = line.split_once('=').map_or(line, |(_, value)| value);
    let harmless = known().next().is_some()
        && known().all(|k| k.shown)
        && !may_hold_a_secret(value, known().any(|k| k.at != AtSign::Login))
        && (!known().any(|k| k.one_of_a_few) || value.split(is_between).all(is_short_word));
    match line.split_once('=') {
        Some((name, _)) if !name.split('.').all(|part| is_short_word(part.trim().trim_matches('"'))) => None,
        _ if harmless => Some(excerpt(line)),
        Some((name, _)) => Some(excerpt(&format!("{}= …", name))),
        None => None,
    }
}

/// Does it stand between words of a value?
fn is_between(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '[' | ']')
}

/// The line up to the `#` that stands in no quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let begins = |(_, c): &(usize, char)| match (quote, c) {
        (None, '#') => true,
        (None, '"' | '\'') => {
            quote = Some(*c);
            false
        }
        (Some(open), c) if open == *c => {
            quote = None;
            false
        }
        _ => false,
    };
    line.char_indices().find(begins).map_or(line, |(at, _)| &line[..at])
}

/// A line of the file as people are shown it.
fn excerpt(line: &str) -> String {
    text::line_of(&line.replace('\t', " "), 200).into_owned()
}
