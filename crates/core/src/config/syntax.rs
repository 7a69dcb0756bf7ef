//! Syntax errors of the file in words that help: what the TOML parser says, where it began, and how much of the rest
//! can still be believed.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::Schema;
use crate::finding::{Finding, Severity};

/// Where lines begin.
pub(super) struct FileLines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> FileLines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The 1-based line of a byte offset. The end of the file belongs to the last line that has text.
    pub(super) fn at(&self, offset: usize) -> usize {
        let last = self.text.trim_end().len();
        self.starts.partition_point(|start| *start <= offset.min(last)).max(1)
    }

    /// A line without its end.
    pub(super) fn get(&self, line: usize) -> &'t str {
        &self.text[self.span(line)]
    }

    fn span(&self, line: usize) -> Range<usize> {
        let Some(&start) = line.checked_sub(1).and_then(|i| self.starts.get(i)) else { return 0..0 };
        start..start + self.text[start..].lines().next().unwrap_or("").len()
    }
}

/// What the TOML parser said, in our words.
pub(super) struct Syntax {
    pub(super) findings: Vec<Finding>,
    /// The file without what was wrong: the same length, with blanks in its place, and nothing left to complain about.
    /// `None`: after one of the mistakes it is open which table the following lines belong to.
    pub(super) rest: Option<String>,
    /// Keys on lines that were blanked out: they are not missing.
    pub(super) lost: Vec<String>,
}

/// In a fix: headers of the program's own file, as examples.
const TABLES: &str = "TABLES";
const LISTS: &str = "LISTS";

/// One kind of syntax error: how the parser's message begins, what it means, what to do, and whether the lines around
/// it keep their places. A message that is not listed counts as one after which nothing is sure.
struct SyntaxRule(&'static str, &'static str, &'static str, bool);

const SYNTAX: [SyntaxRule; 15] = [
    SyntaxRule(
        "string values must be quoted",
        "a value that is a text does not stand in quotes",
        "put it in straight double quotes: key = \"value\"",
        true,
    ),
    SyntaxRule(
        "invalid boolean",
        "a value is neither true nor false, and a text does not stand in quotes",
        "write true or false in lower case, or put the text in straight double quotes",
        true,
    ),
    SyntaxRule(
        "invalid multi-line",
        "a text that begins with three quotes does not end",
        "end it with three quotes, or write it on one line between single ones",
        false,
    ),
    SyntaxRule(
        "invalid basic string",
        "a text in double quotes does not end on its line, or has a control character in it",
        "close the quotes on the same line",
        true,
    ),
    SyntaxRule(
        "invalid literal string",
        "a text in single quotes does not end on its line, or has a control character in it",
        "close the quotes on the same line",
        true,
    ),
    SyntaxRule(
        "missing escaped value",
        "a backslash between double quotes begins an escape that TOML does not have",
        "write \\\\ for a backslash, or put the text in single quotes, where a backslash is itself",
        true,
    ),
    SyntaxRule("key with no value", "there is no `=` on the line", "write key = value; a comment begins with #", true),
    SyntaxRule("extra `=`", "there is more than one `=` before the value", "write key = value, with one `=`", true),
    SyntaxRule(
        "unexpected key or value",
        "something follows the value on its line",
        "one key to a line; a comment begins with #; a text with blanks stands in quotes",
        true,
    ),
    SyntaxRule("invalid comment character", "there is a control character in a comment", "remove it", true),
    SyntaxRule("duplicate key", "the key stands twice in its table", "keep one of the two", true),
    SyntaxRule("unclosed table", "the table's header does not end", "end it with ], as in TABLES", false),
    SyntaxRule(
        "unclosed array table",
        "the table's header does not end with two brackets",
        "end it with ]], as in LISTS",
        false,
    ),
    SyntaxRule(
        "missing comma between array elements",
        "a list does not end, or a comma is missing in it",
        "put commas between its elements, and ] after the last one",
        false,
    ),
    SyntaxRule("unclosed array", "a list does not end", "put ] after its last element", false),
];

/// After so many syntax errors the file is no configuration, and more of them help nobody.
const ENOUGH: usize = 100;

/// How often the rest of a file is parsed again. The parser reports nearly everything at once, and stops early only at
/// a few kinds of mistake.
const PASSES: usize = 16;

impl Syntax {
    pub(super) fn judge(text: &str, lines: &FileLines, schema: &Schema) -> Self {
        let mut syntax = Syntax { findings: Vec::new(), rest: None, lost: Vec::new() };
        let mut rest = text.to_owned();
        for pass in 0..PASSES {
            let (tree, errors) = DeTable::parse_recoverable(&rest);
            if errors.is_empty() {
                syntax.findings.sort_by_key(|f| f.line);
                syntax.rest = Some(rest);
                return syntax;
            }
            let mut wrong = Vec::new();
            let roots = roots(&errors);
            if roots.len() > ENOUGH {
                wrong.push((false, 0..=0));
            }
            for (span, message) in roots.into_iter().take(ENOUGH) {
                let value = value_at(tree.get_ref(), span.start).unwrap_or(span.start..span.start);
                // A text over several lines is wrong where it begins.
                let start = if message.starts_with("invalid multi-line") { value.start } else { span.start };
                let line = lines.at(start);
                let (what, fix, intact) = Self::words(message, lines.get(line), span.is_empty(), schema);
                if pass > 0 && !intact {
                    // Perhaps only because something was blanked out above.
                    return syntax;
                }
                if syntax.findings.iter().all(|f| f.line != Some(line)) {
                    syntax.findings.push(Finding {
                        severity: Severity::Error,
                        line: Some(line),
                        file: None,
                        what,
                        fix,
                    });
                }
                wrong.push((intact, lines.at(value.start.min(start))..=lines.at(value.end.max(start))));
            }
            if wrong.iter().any(|(intact, _)| !intact) {
                return syntax;
            }
            for line in wrong.into_iter().flat_map(|(_, lines)| lines) {
                syntax.lost.extend(key_of(lines.get(line)).map(str::to_owned));
                let span = lines.span(line);
                rest.replace_range(span.clone(), &" ".repeat(span.len()));
            }
        }
        syntax
    }

    fn words(message: &str, source: &str, nothing: bool, schema: &Schema) -> (String, String, bool) {
        let source = source.trim();
        if message == "duplicate key" && source.starts_with('[') {
            let (what, fix) = (schema.twice)(source.trim_matches(['[', ']', ' ']), source.starts_with("[["));
            return (what.into(), fix.into(), false);
        }
        let Some(SyntaxRule(_, what, fix, intact)) = SYNTAX.iter().find(|rule| message.starts_with(rule.0)) else {
            return (
                format!("this is not TOML: {message}"),
                "correct the line; https://toml.io has the rules".into(),
                false,
            );
        };
        let (what, fix) = if message.starts_with("string values") && nothing {
            ("the key has no value", "write a value after the `=`, or remove the line; the default applies then")
        } else if source.contains(['“', '”', '„', '‘', '’']) {
            ("the quotes are typographic ones, which TOML does not know", "use straight quotes: key = \"value\"")
        } else {
            (*what, *fix)
        };
        let fix = fix.replace(TABLES, schema.tables).replace(LISTS, schema.lists);
        (what.into(), fix, *intact)
    }
}

/// The errors by place, without those that only follow from an earlier one: a list or an inline table that does not end
/// swallows the lines after it, and only where that began is a mistake.
fn roots(errors: &[toml::de::Error]) -> Vec<(Range<usize>, &str)> {
    let mut errors: Vec<_> = errors.iter().map(|e| (e.span().unwrap_or(0..0), e.message())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    if errors.iter().any(|(_, m)| m.starts_with("unclosed array,") || m.starts_with("unclosed inline")) {
        let first = errors.iter().position(|(_, m)| m.contains("array") || m.contains("inline") || m.contains("pair"));
        errors.truncate(first.map_or(errors.len(), |i| i + 1));
    }
    errors
}

/// Where the value that reaches over this offset stands: the whole of it, where it is a list.
fn value_at(table: &DeTable, offset: usize) -> Option<Range<usize>> {
    let inside = |value: &Spanned<DeValue>| match value.get_ref() {
        DeValue::Table(table) => value_at(table, offset),
        DeValue::Array(items) => items.iter().find_map(|item| value_at(item.get_ref().as_table()?, offset)),
        _ => None,
    };
    table.iter().find_map(|(_, value)| {
        let span = value.span();
        let over = span.start <= offset && offset <= span.end && !span.is_empty() && !value.get_ref().is_table();
        inside(value).or(over.then_some(span))
    })
}

/// The key (its last part, where it is dotted) that a line begins with.
pub(super) fn key_of(line: &str) -> Option<&str> {
    let before = line.split('=').next()?;
    // `a.b`, `a . b`, and on a line without `=` the first word.
    let end = before.trim_start().find(char::is_whitespace).map(|at| at + before.len() - before.trim_start().len());
    let name = match end {
        Some(end) if !before[end..].trim_start().starts_with('.') => &before[..end],
        _ => before,
    };
    let name = name.rsplit('.').next()?.trim().trim_matches('"');
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (!name.is_empty() && name.bytes().all(fits)).then_some(name)
}
