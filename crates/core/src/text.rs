//! The one judge of foreign words: what others say (servers, files, log lines, whoever asks), as far as people may be shown it.
//! A text that ends a line, obeys a terminal, turns the direction of writing or takes no room could pass for words of ours.
//!
//! Whatever leaves the program for people passes here: the terminal, the log, the pages, e-mails, the words in errors.

mod repeats;

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Deserializer};

pub use self::repeats::{Repeats, Tell, without_numbers};

/// Does it show as what it is, on the line it stands in? Not: control characters (C0, DEL, C1), line and paragraph separators,
/// what turns the direction of writing, characters of no width, tags, combining marks, blanks that look like the blank,
/// private and unassigned characters (Unicode as of the standard library's tables).
pub fn shows(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Letters and symbols by their category, and yet nothing to be seen: the Hangul fillers, the empty Braille cell.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => false,
        c => c.escape_debug().count() == 1,
    }
}

/// A text on one line: what does not [show](shows), line ends too, is written as an escape (`\n`, `\u{202e}`).
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// As [`line`], of at most so many characters: a longer one is cut, and ends with `…`.
pub fn line_of(text: &str, most: usize) -> Cow<'_, str> {
    let mut line = line(text);
    if let Some((end, _)) = line.char_indices().nth(most) {
        let line = line.to_mut();
        let room = line[..end].char_indices().next_back().map_or(0, |(at, _)| at);
        line.truncate(room);
        line.push('…');
    }
    line
}

/// The words of a text with one blank between them: what does not show is a blank, line ends too.
pub fn words(text: &str) -> String {
    let blanked: String = text.chars().map(|c| if shows(c) { c } else { ' ' }).collect();
    blanked.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// As [`line`], of a text of several lines: line feeds and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let fits = |c: char| shows(c) || stays(c);
    if text.chars().all(fits) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if fits(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    Cow::Owned(out)
}

/// A JSON document that says the same to programs, in characters that people may be shown: its strings have the others as
/// `\u202e`. (Outside of strings JSON has ASCII alone, and control characters inside of them are escaped already.)
pub fn json(document: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii() && c != '\u{7f}' || shows(c);
    if document.chars().all(fits) {
        return Cow::Borrowed(document);
    }
    let mut out = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if fits(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    Cow::Owned(out)
}

/// Words that may stand on several lines.
pub trait Words {
    /// The same on one line, with ` | ` between what were several.
    fn joined(self) -> Self;
}

impl Words for String {
    fn joined(self) -> Self {
        let ends = ['\n', '\r'];
        if !self.contains(ends) {
            return self;
        }
        let lines: Vec<&str> = self.split(ends).map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join(" | ")
    }
}

impl Words for Option<String> {
    fn joined(self) -> Self {
        self.map(Words::joined)
    }
}

impl Words for Vec<String> {
    fn joined(self) -> Self {
        self.into_iter().map(Words::joined).collect()
    }
}

/// For words that are read from what an earlier release wrote: relaykey 0.1.0 left the lines of others apart, and one that
/// others begin could pass for one of ours.
///
/// # Errors
/// They are no words.
pub fn on_one_line<'de, T: Words + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::deserialize(from).map(Words::joined)
}

/// Without what does not [show](shows), and of at most so many characters: for names that are compared and shown.
pub fn plain(text: &str, most: usize) -> String {
    text.chars().filter(|c| shows(*c)).take(most).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One of each kind that must reach nobody: C0, DEL, C1, separators, direction, no width, tags, fillers, look-alike blanks.
    pub(crate) const HOSTILE: &str = "\0\u{7}\u{8}\u{b}\u{1b}\u{7f}\u{85}\u{9b}\u{ad}\u{61c}\u{180e}\u{200b}\u{200d}\u{200e}\u{200f}\
        \u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{206f}\u{feff}\u{fe0f}\u{e0001}\u{e0041}\u{e007f}\u{3164}\u{2800}\
        \u{a0}\u{2007}\u{34f}\u{301}\u{e000}\u{fffe}";

    #[test]
    fn what_is_not_seen_or_does_not_stay_in_its_place_does_not_show() {
        for c in HOSTILE.chars().chain("\n\r\t".chars()) {
            assert!(!shows(c), "{c:?}");
        }
        for c in "az09 ~\"'\\äßñЖ中日本語العربيةעברית€…→±•ﬁ😀".chars() {
            assert!(shows(c), "{c:?}");
        }
    }

    #[test]
    fn a_line_is_one_line_and_cut_where_it_is_too_long() {
        let cases = [
            ("as it is", 40, "as it is"),
            ("ends here\n", 40, "ends here"),
            ("two\nlines\r\n\tand \u{1b}[31mred", 60, "two\\nlines\\r\\n\\tand \\u{1b}[31mred"),
            ("Zwölf Boxkämpfer", 16, "Zwölf Boxkämpfer"),
            ("Zwölf Boxkämpfer", 5, "Zwöl…"),
            ("Zwölf Boxkämpfer", 4, "Zwö…"),
            ("", 5, ""),
        ];
        for (text, max, line) in cases {
            assert_eq!(line_of(text.trim_end(), max), line);
            assert!(line_of(text.trim_end(), max).chars().count() <= max);
        }
    }

    #[test]
    fn words_are_what_shows_with_one_blank_between() {
        assert_eq!(words(" two\r\n lines,\u{202e}\u{1b}[31m red \t"), "two lines, [31m red");
    }

    #[test]
    fn texts_are_escaped_and_stay_what_they_say() {
        assert_eq!(line("as it is, Zwölf \"x\\y\""), "as it is, Zwölf \"x\\y\"");
        assert_eq!(line("two\nlines\r\n\tand \u{1b}[31mred"), "two\\nlines\\r\\n\\tand \\u{1b}[31mred");
        assert_eq!(line("535 \u{202e}kcol\u{2028}next\u{85}"), "535 \\u{202e}kcol\\u{2028}next\\u{85}");
        assert_eq!(lines("a\n\tb\r\u{2029}c\n"), "a\n\tb\\r\\u{2029}c\n");
        assert_eq!(plain("ro\u{202e}ot\n", 3), "roo");
        for text in [line(HOSTILE), lines(HOSTILE)] {
            assert!(text.is_ascii() && !text.contains(char::is_control), "{text}");
        }
    }

    #[test]
    fn words_on_several_lines_are_joined_to_one() {
        let joined = |text: &str| text.to_owned().joined();
        assert_eq!(joined("as it is | \tyes "), "as it is | \tyes ");
        assert_eq!(joined("535 one\r\n535 two\n\n  three\r"), "535 one | 535 two | three");
        let words = serde_json::json!("a\nb");
        assert_eq!(on_one_line::<Option<String>, _>(words).unwrap(), Some("a | b".to_owned()));
        assert_eq!(vec!["a\nb".to_owned()].joined(), ["a | b"]);
    }

    #[test]
    fn a_json_document_says_the_same_to_programs() {
        let value = serde_json::json!({ "words": HOSTILE, "name": "Zwölf 😀", HOSTILE: ["\u{e0041}\n\u{7f}"] });
        let made = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&made);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(shown.chars().all(|c| c == '\n' || shows(c)) && shown.contains("Zwölf 😀"), "{shown}");
        assert_eq!(json("{\"a\": \"é\"}"), "{\"a\": \"é\"}");
    }
}
