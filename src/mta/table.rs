//! The text of a Postfix key-value table (`postmap(1)`, "TABLE FORMAT"), as bytes that we may change only where an
//! entry is ours.
//!
//! Words: a *physical line* ends with a newline or the file; a *logical line* starts with a character that is no white
//! space and goes on over every following line that starts with white space, with comment and blank lines between
//! them left out. An *entry* is a logical line with a key and a value. Postfix 3.2 and later end the key at the first
//! white space that is not between double quotes and not after a backslash; `hash`, `btree`, `lmdb`, `cdb` and
//! `texthash` share that parser. Lines that Postfix ignores with a warning (no value, a quote that is not closed, white
//! space before the first entry) are no entries here either, and stay as they are.
//!
//! Pure: bytes in, bytes out. [`Table::render`] copies everything but the values it was told to change.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::credential::{Login, Secret, ses_password_form};

/// The largest table that is read, in bytes. A `sasl_passwd` with a million relays is a tenth of it.
pub const MAX_TABLE: usize = 256 * 1024 * 1024;

/// Why a table cannot be read, or not be changed without guessing. Carries no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct TableError {
    /// As in [`crate::mta::MtaError`]: `too-large`, `config` (a line or key is not of the format) or `ambiguous`.
    pub class: &'static str,
    /// 1-based physical line, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// One entry, in the order of the text.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The lookup key as spelt, quotes included (Postfix keeps them too). Bytes that are not UTF-8 are replaced; such
    /// a key equals none of ours.
    pub key: String,
    /// 1-based physical line on which the key stands.
    pub line: usize,
    /// The value as Postfix sees it: continuation lines joined, blanks around it cut. `None`: not UTF-8.
    pub value: Option<Secret>,
    place: Place,
}

/// Where a value stands in the bytes.
#[derive(Debug, Clone)]
enum Place {
    /// On one physical line.
    At(Range<usize>),
    /// It starts on one physical line and goes on on this one (1-based).
    GoesOn(usize),
}

impl Entry {
    /// The value as a login. `None`: it is not `USER:PASSWORD` in printable ASCII.
    pub fn login(&self) -> Option<Login> {
        Login::from_pair(self.value.as_ref()?.expose()).ok()
    }

    /// The user name of the value, where it has one that may be shown.
    pub fn username(&self) -> Option<&str> {
        username(self.value.as_ref()?.expose())
    }
}

/// What stands before the first colon, where Postfix splits. `None` without a colon, or where it is an SES SMTP password:
/// somebody then forgot the user name, or wrote it last, and what stands there must not be shown.
pub fn username(value: &str) -> Option<&str> {
    let (user, _) = value.split_once(':')?;
    ses_password_form(user).is_err().then_some(user)
}

/// One change of a table.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// The value of the entry with this index in [`Table::entries`] becomes `USER:PASSWORD`.
    Replace { entry: usize, login: &'a Login },
    /// A new entry at the end of the text, its key spelt like this.
    Append { key: &'a str, login: &'a Login },
}

/// A parsed table; by default an empty one. `Debug` shows sizes only.
#[derive(Default)]
pub struct Table {
    bytes: Zeroizing<Vec<u8>>,
    entries: Vec<Entry>,
    /// Folded key to its first entry, and to its second where there is one.
    index: HashMap<String, (usize, Option<usize>)>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} bytes, {} entries)", self.bytes.len(), self.entries.len())
    }
}

/// The physical lines of one logical line that count, without their newlines.
struct Segment {
    line: usize,
    range: Range<usize>,
}

impl Table {
    /// Parses a text as `postmap` does.
    ///
    /// # Errors
    /// More than [`MAX_TABLE`] bytes; a NUL byte, at which Postfix would cut the line; a line that ends with CR LF.
    /// Postfix takes the CR for a blank, but it says that the file was made elsewhere, and what we add would not match.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        if bytes.len() > MAX_TABLE {
            return Err(TableError {
                class: "too-large",
                line: None,
                what: format!("the table has {} bytes, more than the {MAX_TABLE} that relaykey edits", bytes.len()),
                fix: "give the relay's login a table of its own".into(),
            });
        }
        let mut table = Self { bytes: Zeroizing::new(bytes.to_vec()), entries: Vec::new(), index: HashMap::new() };
        let mut logical: Vec<Segment> = Vec::new();
        let (mut start, mut line) = (0, 1);
        while start < bytes.len() {
            let end = bytes[start..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| start + n);
            let content = &bytes[start..end];
            if content.contains(&0) {
                return Err(TableError {
                    class: "config",
                    line: Some(line),
                    what: "the line has a NUL byte, at which Postfix cuts it".into(),
                    fix: "restore the table from where it came from, or take the byte out: tr -d '\\000'".into(),
                });
            }
            if end < bytes.len() && content.last() == Some(&b'\r') {
                return Err(TableError {
                    class: "config",
                    line: Some(line),
                    what: "the line ends with CR LF".into(),
                    fix: "convert the table to Unix line ends: sed -i 's/\\r$//' FILE, then postmap".into(),
                });
            }
            if content.iter().find(|b| !is_space(**b)).is_some_and(|b| *b != b'#') {
                logical.push(Segment { line, range: start..end });
            }
            let goes_on = bytes.get(end + 1).is_some_and(|b| is_space(*b) || *b == b'#');
            if !logical.is_empty() && !goes_on {
                table.entries.extend(entry(bytes, &logical));
                logical.clear();
            }
            (start, line) = (end + 1, line + 1);
        }
        // Blank or comment lines at the end leave the last logical line open.
        if !logical.is_empty() {
            table.entries.extend(entry(bytes, &logical));
        }
        for (at, entry) in table.entries.iter().enumerate() {
            table
                .index
                .entry(fold(&entry.key))
                .and_modify(|(_, second)| _ = second.get_or_insert(at))
                .or_insert((at, None));
        }
        Ok(table)
    }

    /// Every entry, those under a key that an earlier one has included.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry that Postfix finds under `key`, with its index: keys fold case, and the first of several wins.
    pub fn get_folded(&self, key: &str) -> Option<(usize, &Entry)> {
        let (first, _) = self.index.get(&fold(key))?;
        Some((*first, &self.entries[*first]))
    }

    /// The entries after the first with this key: Postfix ignores them.
    pub fn repeats(&self, key: &str) -> Vec<usize> {
        let Some((first, Some(_))) = self.index.get(&fold(key)) else { return Vec::new() };
        let again = |(at, entry): &(usize, &Entry)| at > first && same_key(&entry.key, key);
        self.entries.iter().enumerate().filter(again).map(|(at, _)| at).collect()
    }

    /// Can this entry be changed without guessing?
    ///
    /// # Errors
    /// Another entry has the same key; the value goes on over several lines, or is not UTF-8.
    pub fn check_editable(&self, entry: usize) -> Result<(), TableError> {
        let Some(this) = self.entries.get(entry) else { return Err(no_such_entry()) };
        if let Some((first, Some(second))) = self.index.get(&fold(&this.key)) {
            let (first, second) = (self.entries[*first].line, self.entries[*second].line);
            return Err(TableError {
                class: "ambiguous",
                line: Some(second),
                what: format!(
                    "the key {:?} stands on line {first} and again on line {second}; Postfix uses the first and \
                     ignores the other",
                    this.key
                ),
                fix: format!("remove the one that is wrong (line {second} has no effect today), then postmap"),
            });
        }
        if let Place::GoesOn(line) = this.place {
            return Err(TableError {
                class: "ambiguous",
                line: Some(line),
                what: format!(
                    "the value under {:?} (line {}) goes on over several lines; Postfix joins them with the blanks \
                     between, which no login has",
                    this.key, this.line
                ),
                fix: "write USER:PASSWORD on one line; a line that is to be an entry must not start with a blank"
                    .into(),
            });
        }
        if this.value.is_none() || this.key.contains(char::REPLACEMENT_CHARACTER) {
            return Err(TableError {
                class: "config",
                line: Some(this.line),
                what: format!(
                    "the entry under {:?} is not UTF-8; Postfix ignores such a line, or not, as smtputf8_enable says",
                    this.key
                ),
                fix: "write key and USER:PASSWORD in printable ASCII".into(),
            });
        }
        Ok(())
    }

    /// The text with these changes and every other byte as it was. Appended entries come after one newline where the
    /// text ends without.
    ///
    /// # Errors
    /// As [`Table::check_editable`] for each entry that is replaced; a key to be added that is there already, or that
    /// the format cannot carry as spelt.
    pub fn render(&self, changes: &[Change<'_>]) -> Result<Zeroizing<Vec<u8>>, TableError> {
        let mut replaced: BTreeMap<usize, (Range<usize>, &Login)> = BTreeMap::new();
        let mut appended: Vec<(&str, &Login)> = Vec::new();
        for change in changes {
            match *change {
                Change::Replace { entry, login } => {
                    self.check_editable(entry)?;
                    let Place::At(range) = &self.entries[entry].place else { return Err(no_such_entry()) };
                    replaced.insert(range.start, (range.clone(), login));
                }
                Change::Append { key, login } => {
                    check_spelling(key)?;
                    let line = self.get_folded(key).map(|(_, e)| e.line);
                    if line.is_some() || appended.iter().any(|(have, _)| same_key(have, key)) {
                        return Err(TableError {
                            class: "ambiguous",
                            line,
                            what: format!("the key {key:?} is in the table already"),
                            fix: "list it once".into(),
                        });
                    }
                    appended.push((key, login));
                }
            }
        }
        let value_len = |login: &Login| login.username.len() + 1 + login.password.expose().len();
        // The exact room at once: a vector that grows leaves copies of what it held behind.
        let room = self.bytes.len()
            + 1
            + replaced.values().map(|(_, login)| value_len(login)).sum::<usize>()
            + appended.iter().map(|(key, login)| key.len() + 2 + value_len(login)).sum::<usize>();
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        let push_value = |out: &mut Vec<u8>, login: &Login| {
            out.extend_from_slice(login.username.as_bytes());
            out.push(b':');
            out.extend_from_slice(login.password.expose().as_bytes());
        };
        let mut copied = 0;
        for (range, login) in replaced.values() {
            out.extend_from_slice(&self.bytes[copied..range.start]);
            push_value(&mut out, login);
            copied = range.end;
        }
        out.extend_from_slice(&self.bytes[copied..]);
        if !appended.is_empty() && out.last().is_some_and(|b| *b != b'\n') {
            out.push(b'\n');
        }
        for (key, login) in appended {
            out.extend_from_slice(key.as_bytes());
            out.push(b' ');
            push_value(&mut out, login);
            out.push(b'\n');
        }
        Ok(out)
    }
}

fn no_such_entry() -> TableError {
    TableError {
        class: "changed-underneath",
        line: None,
        what: "there is no such entry".into(),
        fix: "read the table again".into(),
    }
}

/// A key that is written as spelt must come back as that key.
fn check_spelling(key: &str) -> Result<(), TableError> {
    let bad = key.is_empty()
        || key.starts_with('#')
        || key.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"' || c == '\\');
    if bad {
        return Err(TableError {
            class: "config",
            line: None,
            what: format!(
                "{key:?} cannot be written as a key: it is empty, or has blanks, quotes, backslashes or a '#' in front"
            ),
            fix: "spell the key as relayhost does, for instance [email-smtp.eu-west-1.amazonaws.com]:587".into(),
        });
    }
    Ok(())
}

/// Postfix's `ISSPACE`: what C calls white space, in ASCII.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// A key as Postfix compares it: ASCII lowered, and with `smtputf8_enable` folded as Unicode does: there a Kelvin sign
/// is a `k` and a long s an `s`. Lowering the upper case comes to the same for all that can meet an ASCII key.
pub fn fold(key: &str) -> String {
    if key.is_ascii() { key.to_ascii_lowercase() } else { key.to_uppercase().to_lowercase() }
}

/// Do two keys name the same entry?
pub fn same_key(a: &str, b: &str) -> bool {
    a == b || fold(a) == fold(b)
}

/// The entry on one logical line, if it is one (`postmap.c`; white space first: `readlline.c`).
fn entry(bytes: &[u8], segments: &[Segment]) -> Option<Entry> {
    let joined: Zeroizing<Vec<u8>>;
    let text: &[u8] = match segments {
        [one] => &bytes[one.range.clone()],
        several => {
            let mut all =
                Zeroizing::new(Vec::with_capacity(several.iter().map(|segment| segment.range.len()).sum::<usize>()));
            for segment in several {
                all.extend_from_slice(&bytes[segment.range.clone()]);
            }
            joined = all;
            &joined
        }
    };
    if is_space(*text.first()?) {
        return None;
    }
    let (mut key_end, mut quoted) = (0, false);
    while let Some(byte) = text.get(key_end) {
        match byte {
            b'\\' => key_end += 1,
            b'"' => quoted = !quoted,
            b if is_space(*b) && !quoted => break,
            _ => {}
        }
        key_end += 1;
    }
    if quoted || key_end >= text.len() {
        return None;
    }
    let value_start = key_end + text[key_end..].iter().position(|b| !is_space(*b))?;
    let value_end = text.iter().rposition(|b| !is_space(*b))? + 1;
    let mut before = 0;
    let mut place = None;
    for (at, segment) in segments.iter().enumerate() {
        let after = before + segment.range.len();
        if value_start < after {
            place = Some(if value_end <= after {
                let from = segment.range.start + (value_start - before);
                Place::At(from..from + (value_end - value_start))
            } else {
                Place::GoesOn(segments.get(at + 1).map_or(segment.line, |next| next.line))
            });
            break;
        }
        before = after;
    }
    let value = &text[value_start..value_end];
    Some(Entry {
        key: String::from_utf8_lossy(&text[..key_end]).into_owned(),
        line: segments[0].line,
        value: std::str::from_utf8(value).ok().map(|v| Secret::new(v.to_owned())),
        place: place?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, usize, String)> {
        let table = Table::parse(text.as_bytes()).unwrap();
        let value = |e: &Entry| e.value.as_ref().unwrap().expose().to_owned();
        table.entries().iter().map(|e| (e.key.clone(), e.line, value(e))).collect()
    }

    #[test]
    fn logical_lines() {
        for (text, expected) in [
            ("", &[][..]),
            ("k v", &[("k", 1, "v")]),
            ("k v\n", &[("k", 1, "v")]),
            ("\n\nk\tv \n", &[("k", 3, "v")]),
            ("k\n v\n", &[("k", 1, "v")]),
            ("k v\n# c\n w\n", &[("k", 1, "v w")]),
            ("k v\n\n w\nl x\n", &[("k", 1, "v w"), ("l", 4, "x")]),
            (" k v\nl w\n", &[("l", 2, "w")]),
            ("k\nl w\n", &[("l", 2, "w")]),
            ("\"a b\" v\n", &[("\"a b\"", 1, "v")]),
            ("\"a\n b\" v\n", &[("\"a b\"", 1, "v")]),
            ("\"a b v\nl w\n", &[("l", 2, "w")]),
            ("a\\ b v\n", &[("a\\ b", 1, "v")]),
            ("a\\", &[]),
            ("k v\n#", &[("k", 1, "v")]),
            ("k v\n ", &[("k", 1, "v")]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(k, l, v)| ((*k).to_owned(), *l, (*v).to_owned())).collect();
            assert_eq!(entries(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_of_equal_keys_is_found() {
        let table = Table::parse("Key a:1\nkEY b:2\n\u{212a}ey c:3\n".as_bytes()).unwrap();
        assert_eq!(table.get_folded("KEY").map(|(at, e)| (at, e.line)), Some((0, 1)));
        assert!(table.get_folded("other").is_none());
        for entry in 0..3 {
            assert_eq!(table.check_editable(entry).unwrap_err().line, Some(2), "entry {entry}");
        }
        // As ICU folds, which is what Postfix uses.
        assert!(same_key("\u{17f}trasse", "STRASSE") && same_key("stra\u{df}e", "strasse") && !same_key("a", "b"));
    }

    #[test]
    fn logins_and_user_names() {
        for (value, user, login) in [
            ("AKIA:pass:word", Some("AKIA"), true),
            ("AKIA:", Some("AKIA"), false),
            ("AKIA:pass word", Some("AKIA"), false),
            ("password", None, false),
        ] {
            let table = Table::parse(format!("k {value}\n").as_bytes()).unwrap();
            let entry = &table.entries()[0];
            assert_eq!((entry.username(), entry.login().is_some()), (user, login), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_changed() {
        let login = Login::from_pair("user:pass").unwrap();
        assert_eq!(Table::parse(&vec![b'#'; MAX_TABLE + 1]).unwrap_err().class, "too-large");
        let table = Table::parse(b"# c\nk\xff AKIA:pw\nl AKIA:\xff\n").unwrap();
        for (entry, line) in [(0, Some(2)), (1, Some(3)), (2, None)] {
            assert_eq!(table.render(&[Change::Replace { entry, login: &login }]).unwrap_err().line, line);
        }
        for key in ["", "#key", "a b", "a\tb", "\"a\"", "a\\b", "a\nb", "a\u{a0}b"] {
            let e = table.render(&[Change::Append { key, login: &login }]).unwrap_err();
            assert_eq!(e.class, "config", "{key:?}");
        }
        let twice = [Change::Append { key: "new", login: &login }, Change::Append { key: "NEW", login: &login }];
        assert!(table.render(&twice).is_err());
    }

    #[test]
    fn nothing_is_shown() {
        let table = Table::parse(b"k user:password\n").unwrap();
        let shown = format!("{table:?} {:?}", table.entries());
        assert!(!shown.contains("password"), "{shown}");
    }

    #[test]
    fn no_change_is_no_change() {
        for text in ["", "k v", "k v\n", "\n \n# c"] {
            let table = Table::parse(text.as_bytes()).unwrap();
            assert_eq!(table.render(&[]).unwrap().as_slice(), text.as_bytes());
        }
    }
}
