//! The lines of a message: paragraphs, headings and a table of facts, none wider than people's mail programs show.

use crate::text::line_of;

/// Columns of a line, as people's mail programs show them without wrapping.
pub(super) const WIDTH: usize = 72;
/// Column at which the facts begin.
pub(super) const INDENT: usize = 18;
/// Characters of any one text of a report: the words of servers have no end of their own.
const LONGEST: usize = 600;

/// A text from elsewhere on one line: blanks made one, cut.
pub(in crate::report::email) fn clean(text: &str) -> String {
    line_of(&text.split_whitespace().collect::<Vec<_>>().join(" "), LONGEST).into_owned()
}

/// One argument of a command that is to be copied into a shell.
pub(super) fn argument(text: &str) -> String {
    let text = clean(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/@%+=-".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The text of a message, as it grows.
#[derive(Default)]
pub(super) struct Body {
    pub(super) text: String,
}

impl Body {
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// An empty line, unless there is one.
    pub(super) fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.wrapped("", "", text);
        self.gap();
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.gap();
        self.wrapped("", "", text);
    }

    pub(super) fn indented(&mut self, columns: usize, text: &str) {
        let margin = " ".repeat(columns);
        self.wrapped(&margin, &margin, text);
    }

    /// A line of the table of facts.
    pub(super) fn fact(&mut self, label: &str, text: &str) {
        let first = format!("  {label:<width$}", width = INDENT - 2);
        self.wrapped(&first, &" ".repeat(INDENT), &clean(text));
    }

    /// A remark on the fact above.
    pub(super) fn explain(&mut self, text: &str) {
        self.indented(INDENT, text);
    }

    /// Lines of at most [`WIDTH`] columns; a word that is longer stands whole, so that it can be copied.
    pub(super) fn wrapped(&mut self, first: &str, margin: &str, text: &str) {
        let mut line = first.to_owned();
        let mut empty = true;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = margin.to_owned();
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.line(&line);
    }
}
