//! The text of a Postfix key-value table (`postmap(1)`, "TABLE FORMAT"), as bytes that we may change only where an
//! entry is ours.
//!
//! Words: a *physical line* ends with a newline or the file; a *logical line* starts with a character that is no white
//! space and goes on over every following line that starts with white space, with comment and blank lines between
//! them left out. An *entry* is a logical line with a key and a value. Postfix 3.2 and later end the key at the first
//! white space that is not between double quotes and not after a backslash; `hash`, `btree`, `lmdb`, `cdb` and
//! `texthash` share that parser. Lines that Postfix ignores with a warning (no value, a quote that is not closed, white
//! space before the first entry) are no entries here either, and stay as they are. The CR of a line that ends with CR LF is
//! white space like any other: it is no part of a value, and stays where it is.
//!
//! Pure: bytes in, bytes out. [`Table::render`] copies everything but the values it was told to change. A table may have a
//! million entries: besides its bytes some twenty bytes are kept of each, and an [`Entry`] is read again when it is asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::path::Path;

use zeroize::Zeroizing;

use crate::credential::{Login, Secret, has_secret_shape};
use crate::fault::{Class, Fault};
use crate::mta::shown;

/// The largest table that is read, in bytes. A `sasl_passwd` with a million relays is a tenth of it.
pub const MAX_TABLE: usize = 256 * 1024 * 1024;

/// One entry, in the order of the text.
#[derive(Clone)]
pub struct Entry<'t> {
    /// The lookup key as spelt, quotes included (Postfix keeps them too). Bytes that are not UTF-8 are replaced; such
    /// a key equals none of ours.
    pub key: Cow<'t, str>,
    /// 1-based physical line on which the key stands; 0: in a map, which has no lines.
    pub line: usize,
    value: Bytes<'t>,
    place: ValuePlace,
    delimiter: Delimiter,
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({:?}, line {})", self.key, self.line)
    }
}

/// Bytes of the table, or, where they stood on several lines, a copy.
#[derive(Clone)]
enum Bytes<'t> {
    Borrowed(&'t [u8]),
    Joined(Zeroizing<Vec<u8>>),
}

/// Where a value stands in the bytes.
#[derive(Debug, Clone)]
enum ValuePlace {
    /// On one physical line.
    At(Range<usize>),
    /// It starts on one physical line and goes on on this one (1-based).
    GoesOn(usize),
}

impl Entry<'_> {
    /// The value as Postfix sees it: continuation lines joined, blanks around it cut.
    pub fn value_bytes(&self) -> &[u8] {
        match &self.value {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Joined(bytes) => bytes,
        }
    }

    /// The same; `None`: not UTF-8.
    pub fn value(&self) -> Option<&str> {
        std::str::from_utf8(self.value_bytes()).ok()
    }

    /// The value as a login. `None`: it is not `USER:PASSWORD` in printable ASCII.
    pub fn login(&self) -> Option<Login> {
        self.delimiter.login(self.value()?)
    }

    /// The user name of the value, where it has one. Whether it may be shown is for [`crate::credential::shown`] to say.
    pub fn username(&self) -> Option<&str> {
        self.delimiter.username(self.value()?)
    }

    /// Where it stands, if that has lines.
    pub fn on_line(&self) -> Option<usize> {
        (self.line > 0).then_some(self.line)
    }

    /// Where the value stands in the text, if that is on one line.
    pub fn range(&self) -> Option<Range<usize>> {
        match &self.place {
            ValuePlace::At(range) => Some(range.clone()),
            ValuePlace::GoesOn(_) => None,
        }
    }
}

/// What stands between user name and password: a colon, or what `smtp_sasl_password_result_delimiter` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiter(char);

impl Default for Delimiter {
    fn default() -> Self {
        Self(':')
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Delimiter {
    /// `None`: Postfix takes one character that is no white space, and we take no other than those of ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let mut characters = text.chars();
        let only = characters.next().filter(char::is_ascii_graphic)?;
        characters.next().is_none().then_some(Self(only))
    }

    /// Postfix splits at the first one. `None`: there is none.
    pub fn split<'v>(&self, value: &'v str) -> Option<(&'v str, &'v str)> {
        value.split_once(self.0)
    }

    /// A value as a login. `None`: it is none in printable ASCII.
    pub fn login(&self, value: &str) -> Option<Login> {
        let (user, password) = self.split(value)?;
        Login::new(user.to_owned(), Secret::new(password.to_owned())).ok()
    }

    /// What stands before it. `None`: it is not there, or what stands before it has the shape of a secret:
    /// somebody then forgot the user name, or wrote it last.
    pub fn username<'v>(&self, value: &'v str) -> Option<&'v str> {
        let (user, _) = self.split(value)?;
        (!has_secret_shape(user)).then_some(user)
    }
}

/// One change of a table.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// The value of the entry with this index in [`Table::entries`] becomes `USER:PASSWORD`, with the table's delimiter.
    Replace { entry: usize, login: &'a Login },
    /// A new entry at the end of the text, its key spelt like this.
    Append { key: &'a str, login: &'a Login },
}

/// A parsed table; by default an empty one. `Debug` shows sizes only.
#[derive(Default)]
pub struct Table {
    bytes: Zeroizing<Vec<u8>>,
    spots: Vec<Spot>,
    /// A keyed hash of each folded key and, in the lower half, its entry's number; sorted.
    index: Vec<u64>,
    hashing: RandomState,
    delimiter: Delimiter,
}

/// Where an entry begins. A table has at most [`MAX_TABLE`] bytes, so that half a word is enough.
#[derive(Clone, Copy)]
struct Spot {
    start: u32,
    line: u32,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} bytes, {} entries)", self.bytes.len(), self.spots.len())
    }
}

/// The physical lines of one logical line that count, without their newlines: nearly always one.
struct Logical {
    first: Segment,
    more: Vec<Segment>,
}

impl Logical {
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

struct Segment {
    line: usize,
    range: Range<usize>,
}

/// Goes through physical lines from one that begins a logical line on.
struct LogicalLines<'t> {
    bytes: &'t [u8],
    start: usize,
    line: usize,
}

impl Iterator for LogicalLines<'_> {
    type Item = Logical;

    /// The next logical line. Lines with nothing but blanks or a comment are none, and part of none.
    fn next(&mut self) -> Option<Logical> {
        let mut logical: Option<Logical> = None;
        while self.start < self.bytes.len() {
            let (start, line) = (self.start, self.line);
            let end = find(b'\n', &self.bytes[start..]).map_or(self.bytes.len(), |n| start + n);
            (self.start, self.line) = (end + 1, line + 1);
            if self.bytes[start..end].iter().find(|b| !is_space(**b)).is_some_and(|b| *b != b'#') {
                let segment = Segment { line, range: start..end };
                match &mut logical {
                    None => logical = Some(Logical { first: segment, more: Vec::new() }),
                    Some(logical) => logical.more.push(segment),
                }
            }
            let goes_on = self.bytes.get(self.start).is_some_and(|b| is_space(*b) || *b == b'#');
            if logical.is_some() && !goes_on {
                break;
            }
        }
        // Blank or comment lines at the end leave the last one open.
        logical
    }
}

/// Is there a line that Postfix would read otherwise than it looks?
fn check_lines(bytes: &[u8]) -> Result<(), Fault> {
    let line_of = |at: usize| Some(lines(&bytes[..at]) + 1);
    let nul = find(0, bytes);
    if let Some(at) = nul {
        return Err(
            // What Postfix uses today stays what it uses.
            Fault::new(
                Class::Config,
                "the line has a NUL byte, at which Postfix cuts it",
                "restore the table from where it came from, or cut the line at the byte, as Postfix does: sed -i \
                  --follow-symlinks 's/\\x00.*//' FILE",
            )
            .at_line(line_of(at)),
        );
    }
    Ok(())
}

/// The fix of a [`Fault`], with the name of the file in place of `FILE`, as a shell takes it.
pub fn fix_for(fix: &str, file: &Path) -> String {
    fix.replace("FILE", &crate::host::trust::quoted(file))
}

impl Table {
    /// Parses a text as `postmap` does.
    ///
    /// # Errors
    /// More than [`MAX_TABLE`] bytes; a NUL byte, at which Postfix would cut the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        Self::of(Zeroizing::new(bytes.to_vec()))
    }

    /// As [`Table::parse`], of bytes that nobody else needs.
    ///
    /// # Errors
    /// As [`Table::parse`].
    pub fn of(bytes: Zeroizing<Vec<u8>>) -> Result<Self, Fault> {
        if bytes.len() > MAX_TABLE {
            return Err(Fault::new(
                Class::TooLarge,
                format!("the table has {} bytes, more than the {MAX_TABLE} that relaykey edits", bytes.len()),
                "give the relay's login a table of its own",
            ));
        }
        check_lines(&bytes)?;
        let mut table = Self { bytes, ..Self::default() };
        // At most; so that nothing is moved.
        let most = lines(&table.bytes) + 1;
        (table.spots, table.index) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let half = |n: usize| u32::try_from(n).expect("checked above");
        for logical in (LogicalLines { bytes: &table.bytes, start: 0, line: 1 }) {
            let Some(entry) = entry(&table.bytes, &logical, table.delimiter) else { continue };
            let hash = table.hash(&entry.key);
            table.index.push(hash | table.spots.len() as u64);
            let Segment { line, range } = logical.first;
            table.spots.push(Spot { start: half(range.start), line: half(line) });
        }
        table.index.sort_unstable();
        Ok(table)
    }

    /// What a listing of a map says, whose lines are key, tab and value. `None`: a map that is made from these lines may be another one.
    ///
    /// # Errors
    /// As [`Table::parse`].
    pub fn of_listing(listing: Zeroizing<Vec<u8>>) -> Result<Option<Self>, Fault> {
        let is_plain = |line: &[u8]| {
            let Some(tab) = line.iter().position(|byte| *byte == b'\t') else { return false };
            let (key, value) = (&line[..tab], &line[tab + 1..]);
            let first = key.first().copied().unwrap_or(b'#');
            key.iter().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
                && !matches!(first, b'#' | b'"')
                && value.iter().all(|byte| *byte == b' ' || byte.is_ascii_graphic())
                && !value.is_empty()
                && value.trim_ascii() == value
        };
        let text = listing.strip_suffix(b"\n").unwrap_or(&listing);
        if !text.is_empty() && !text.split(|byte| *byte == b'\n').all(is_plain) {
            return Ok(None);
        }
        let mut table = Self::of(listing)?;
        table.spots.iter_mut().for_each(|spot| spot.line = 0);
        let is_first =
            |number: usize| table.get_folded(&table.entry(number).key).is_some_and(|(first, _)| first == number);
        Ok((0..table.len()).all(is_first).then_some(table))
    }

    /// With user names and passwords that are split there.
    #[must_use]
    pub fn delimited(self, delimiter: Delimiter) -> Self {
        Self { delimiter, ..self }
    }

    /// With its entries on these lines of another file, in their order; 0: on none.
    #[must_use]
    pub fn on_lines(mut self, lines: &[usize]) -> Self {
        for (at, spot) in self.spots.iter_mut().enumerate() {
            spot.line = lines.get(at).and_then(|line| u32::try_from(*line).ok()).unwrap_or_default();
        }
        self
    }

    /// Where user names and passwords are split.
    pub fn delimiter(&self) -> Delimiter {
        self.delimiter
    }

    /// In the upper half.
    fn hash(&self, key: &str) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        if key.is_ascii() {
            let mut lowered = [0; 64];
            for part in key.as_bytes().chunks(lowered.len()) {
                let lowered = &mut lowered[..part.len()];
                lowered.copy_from_slice(part);
                lowered.make_ascii_lowercase();
                hasher.write(lowered);
            }
        } else {
            hasher.write(fold(key).as_bytes());
        }
        hasher.finish() & 0xffff_ffff_0000_0000
    }

    /// Does the text end with a newline, or is it empty, so that a line can be added to it as it is?
    pub fn ends_with_newline(&self) -> bool {
        self.bytes.last().is_none_or(|last| *last == b'\n')
    }

    /// What a line that is added ends with: the end of the last line that has one.
    fn line_end(&self) -> &'static str {
        let last = self.bytes.iter().rposition(|byte| *byte == b'\n');
        if last.is_some_and(|at| self.bytes[..at].ends_with(b"\r")) { "\r\n" } else { "\n" }
    }

    /// How many entries there are, those under a key that an earlier one has included.
    pub fn len(&self) -> usize {
        self.spots.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.spots.is_empty()
    }

    /// The entry with this number, from 0.
    ///
    /// # Panics
    /// There is none.
    pub fn entry(&self, number: usize) -> Entry<'_> {
        let Spot { start, line } = self.spots[number];
        let mut lines = LogicalLines { bytes: &self.bytes, start: start as usize, line: line as usize };
        lines
            .next()
            .and_then(|logical| entry(&self.bytes, &logical, self.delimiter))
            .expect("it was one when it was parsed")
    }

    /// Every entry, those under a key that an earlier one has included.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).map(|number| self.entry(number))
    }

    /// The entries with this key, in their order, with their numbers.
    fn matching(&self, key: &str) -> impl Iterator<Item = (usize, Entry<'_>)> {
        let hash = self.hash(key);
        let from = self.index.partition_point(|have| *have < hash);
        let same_hash = self.index[from..].iter().take_while(move |have| **have & !0xffff_ffff == hash);
        let entry = |have: &u64| {
            let number = usize::try_from(have & 0xffff_ffff).expect("it was a number of an entry");
            (number, self.entry(number))
        };
        same_hash.map(entry).filter(move |(_, entry)| same_key(&entry.key, key))
    }

    /// The entry that Postfix finds under `key`, with its number: keys fold case, and the first of several wins.
    pub fn get_folded(&self, key: &str) -> Option<(usize, Entry<'_>)> {
        self.matching(key).next()
    }

    /// The entries after the first with this key: Postfix ignores them.
    pub fn repeats(&self, key: &str) -> Vec<usize> {
        self.matching(key).skip(1).map(|(number, _)| number).collect()
    }

    /// Each entry with the key of one before it, with that one: first all of the first key that is there more than once. What is not
    /// UTF-8 Postfix leaves out.
    pub fn all_repeats(&self) -> Vec<(usize, usize)> {
        let is_text = |entry: &Entry<'_>| entry.value().is_some() && !entry.key.contains(char::REPLACEMENT_CHARACTER);
        let hash = |have: &u64| have & !0xffff_ffff;
        let mut found = Vec::new();
        for same_hash in self.index.chunk_by(|a, b| hash(a) == hash(b)).filter(|same| same.len() > 1) {
            let numbers: Vec<usize> =
                same_hash.iter().filter_map(|have| usize::try_from(have & 0xffff_ffff).ok()).collect();
            for (at, number) in numbers.iter().enumerate() {
                let entry = self.entry(*number);
                let mut before = numbers[..at].iter().filter(|before| is_text(&self.entry(**before)));
                let first = before.find(|before| same_key(&self.entry(**before).key, &entry.key));
                found.extend(first.filter(|_| is_text(&entry)).map(|first| (*first, *number)));
            }
        }
        found.sort_unstable();
        found
    }

    /// The line that an entry stands on, if that is one line.
    pub fn only_line(&self, number: usize) -> Option<usize> {
        let (start, entry) = (self.spots[number].start as usize, self.entry(number));
        let text = &self.bytes[start..entry.range()?.end];
        find(b'\n', text).is_none().then_some(entry.line)
    }

    /// Can this entry be changed without guessing?
    ///
    /// # Errors
    /// The value goes on over several lines, or is not UTF-8.
    pub fn check_editable(&self, entry: usize) -> Result<(), Fault> {
        if entry >= self.len() {
            return Err(no_such_entry());
        }
        let this = self.entry(entry);
        if let ValuePlace::GoesOn(line) = this.place {
            return Err(Fault::new(
                Class::Ambiguous,
                format!(
                    "the value under {} (line {}) goes on over several lines; Postfix joins them with the blanks \
                     between, which no login has",
                    shown::quoted_key(&this.key, None),
                    this.line
                ),
                "write USER:PASSWORD on one line; a line that is to be an entry must not start with a blank",
            )
            .at_line(line));
        }
        if this.value().is_none() || this.key.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Fault::new(
                Class::Config,
                format!(
                    "the entry under {} is not UTF-8; Postfix ignores such a line, or not, as smtputf8_enable says",
                    shown::quoted_key(&this.key, None)
                ),
                "write key and USER:PASSWORD in printable ASCII",
            )
            .at_line(this.line));
        }
        Ok(())
    }

    /// The text with these changes and every other byte as it was. Appended entries come after one line end where the
    /// text ends without, and end as the lines before them do.
    ///
    /// # Errors
    /// As [`Table::check_editable`] for each entry that is replaced; a key to be added that is there already, or that
    /// the format cannot carry as spelt.
    pub fn render(&self, changes: &[Change<'_>]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let mut replaced: BTreeMap<usize, (Range<usize>, &Login)> = BTreeMap::new();
        let mut appended: Vec<(&str, &Login)> = Vec::new();
        for change in changes {
            match *change {
                Change::Replace { entry, login } => {
                    self.check_editable(entry)?;
                    let Some(range) = self.entry(entry).range() else { return Err(no_such_entry()) };
                    replaced.insert(range.start, (range, login));
                }
                Change::Append { key, login } => {
                    check_spelling(key)?;
                    let line = self.get_folded(key).map(|(_, e)| e.line);
                    if line.is_some() || appended.iter().any(|(have, _)| same_key(have, key)) {
                        return Err(Fault::new(
                            Class::Ambiguous,
                            format!("the key {key:?} is in the table already"),
                            "list it once",
                        )
                        .at_line(line));
                    }
                    appended.push((key, login));
                }
            }
        }
        let value_len = |login: &Login| login.username.len() + 1 + login.password.expose().len();
        // The exact room at once: a vector that grows leaves copies of what it held behind.
        let line_end = self.line_end();
        let room = self.bytes.len()
            + 2
            + replaced.values().map(|(_, login)| value_len(login)).sum::<usize>()
            + appended.iter().map(|(key, login)| key.len() + 3 + value_len(login)).sum::<usize>();
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        let push_value = |out: &mut Vec<u8>, login: &Login| {
            out.extend_from_slice(login.username.as_bytes());
            // One byte, as all of ASCII.
            self.delimiter.0.encode_utf8(&mut [0]).bytes().for_each(|byte| out.push(byte));
            out.extend_from_slice(login.password.expose().as_bytes());
        };
        let mut copied = 0;
        for (range, login) in replaced.values() {
            out.extend_from_slice(&self.bytes[copied..range.start]);
            push_value(&mut out, login);
            copied = range.end;
        }
        out.extend_from_slice(&self.bytes[copied..]);
        if !appended.is_empty() && !self.ends_with_newline() {
            let has_cr = out.ends_with(b"\r");
            out.extend_from_slice(if has_cr { "\n" } else { line_end }.as_bytes());
        }
        for (key, login) in appended {
            out.extend_from_slice(key.as_bytes());
            out.push(b' ');
            push_value(&mut out, login);
            out.extend_from_slice(line_end.as_bytes());
        }
        Ok(out)
    }
}

fn no_such_entry() -> Fault {
    Fault::new(Class::ChangedUnderneath, "there is no such entry", "read the table again")
}

/// A key that is written as spelt must come back as that key.
fn check_spelling(key: &str) -> Result<(), Fault> {
    let bad = key.is_empty()
        || key.starts_with('#')
        || key.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"' || c == '\\');
    if bad {
        return Err(Fault::new(
            Class::Config,
            format!(
                "{key:?} cannot be written as a key: it is empty, or has blanks, quotes, backslashes or a '#' in front"
            ),
            "spell the key as relayhost does, for instance [email-smtp.eu-west-1.amazonaws.com]:587",
        ));
    }
    Ok(())
}

/// Postfix's `ISSPACE`: what C calls white space, in ASCII.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Where the first of these bytes is. One byte at a time: whoever looks at many at once keeps the last of them in wide
/// registers, from where pieces of passwords get onto stacks and stay there.
pub(super) fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|have| *have == byte)
}

/// How many lines end in these bytes.
fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
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
fn entry<'t>(bytes: &'t [u8], logical: &Logical, delimiter: Delimiter) -> Option<Entry<'t>> {
    if logical.more.is_empty() {
        return split(&bytes[logical.first.range.clone()], logical).map(|parts| Entry {
            key: String::from_utf8_lossy(parts.key),
            line: logical.first.line,
            value: Bytes::Borrowed(parts.value),
            place: parts.place,
            delimiter,
        });
    }
    let room = logical.segments().map(|segment| segment.range.len()).sum::<usize>();
    let mut all = Zeroizing::new(Vec::with_capacity(room));
    for segment in logical.segments() {
        all.extend_from_slice(&bytes[segment.range.clone()]);
    }
    split(&all, logical).map(|parts| Entry {
        key: String::from_utf8_lossy(parts.key).into_owned().into(),
        line: logical.first.line,
        value: Bytes::Joined(Zeroizing::new(parts.value.to_vec())),
        place: parts.place,
        delimiter,
    })
}

struct Parts<'a> {
    key: &'a [u8],
    value: &'a [u8],
    place: ValuePlace,
}

/// Takes a logical line, joined, apart.
fn split<'a>(text: &'a [u8], logical: &Logical) -> Option<Parts<'a>> {
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
    for (at, segment) in logical.segments().enumerate() {
        let after = before + segment.range.len();
        if value_start < after {
            place = Some(if value_end <= after {
                let from = segment.range.start + (value_start - before);
                ValuePlace::At(from..from + (value_end - value_start))
            } else {
                ValuePlace::GoesOn(logical.segments().nth(at + 1).map_or(segment.line, |next| next.line))
            });
            break;
        }
        before = after;
    }
    Some(Parts { key: &text[..key_end], value: &text[value_start..value_end], place: place? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, usize, String)> {
        let table = Table::parse(text.as_bytes()).unwrap();
        table.entries().map(|e| (e.key.to_string(), e.line, e.value().unwrap().to_owned())).collect()
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
        // Each can be changed, and is changed for itself.
        let login = Login::from_pair("user:pass").unwrap();
        let text = table.render(&[Change::Replace { entry: 1, login: &login }]).unwrap();
        assert_eq!(text.as_slice(), "Key a:1\nkEY user:pass\n\u{212a}ey c:3\n".as_bytes());
        // As ICU folds, which is what Postfix uses.
        assert!(same_key("\u{17f}trasse", "STRASSE") && same_key("stra\u{df}e", "strasse") && !same_key("a", "b"));
    }

    #[test]
    fn keys_that_are_there_twice() {
        for (text, expected) in [
            ("", &[][..]),
            ("a x\nb x\n", &[]),
            ("a x\nb y\nA x\n\na z\nB\n y\n", &[(0, 2, Some(3)), (0, 3, Some(5)), (1, 4, None)]),
            ("a\u{fffd} x\na\u{fffd} x\n", &[]),
        ] {
            let table = Table::parse(text.as_bytes()).unwrap();
            let found = table.all_repeats().into_iter().map(|(first, repeat)| (first, repeat, table.only_line(repeat)));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{text:?}");
        }
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
            let entry = table.entry(0);
            assert_eq!((entry.username(), entry.login().is_some()), (user, login), "{value}");
        }
    }

    #[test]
    fn another_delimiter() {
        let table =
            Table::parse(b"k AKIAOLD;a:b;c\nl AKIA:pw\nm ;pw\n").unwrap().delimited(Delimiter::new(";").unwrap());
        let parts = |at: usize| {
            let entry = table.entry(at);
            (entry.username().map(str::to_owned), entry.login().map(|login| login.password.expose().to_owned()))
        };
        assert_eq!(parts(0), (Some("AKIAOLD".into()), Some("a:b;c".into())));
        assert_eq!((parts(1), parts(2)), ((None, None), (Some(String::new()), None)));
        let login = Login::from_pair("AKIANEW:x;y").unwrap();
        let changes = [Change::Replace { entry: 0, login: &login }, Change::Append { key: "n", login: &login }];
        let rendered = table.render(&changes).unwrap();
        assert_eq!(std::str::from_utf8(&rendered).unwrap(), "k AKIANEW;x;y\nl AKIA:pw\nm ;pw\nn AKIANEW;x;y\n");
        for (text, is_one) in
            [(":", true), ("|", true), ("\\", true), ("", false), (" ", false), ("::", false), ("\u{a6}", false)]
        {
            assert_eq!(Delimiter::new(text).is_some(), is_one, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_changed() {
        let login = Login::from_pair("user:pass").unwrap();
        assert_eq!(Table::parse(&vec![b'#'; MAX_TABLE + 1]).unwrap_err().class, Class::TooLarge);
        let table = Table::parse(b"# c\nk\xff AKIA:pw\nl AKIA:\xff\n").unwrap();
        for (entry, line) in [(0, Some(2)), (1, Some(3)), (2, None)] {
            assert_eq!(table.render(&[Change::Replace { entry, login: &login }]).unwrap_err().line, line);
        }
        for key in ["", "#key", "a b", "a\tb", "\"a\"", "a\\b", "a\nb", "a\u{a0}b"] {
            let e = table.render(&[Change::Append { key, login: &login }]).unwrap_err();
            assert_eq!(e.class, Class::Config, "{key:?}");
        }
        let twice = [Change::Append { key: "new", login: &login }, Change::Append { key: "NEW", login: &login }];
        assert!(table.render(&twice).is_err());
    }

    #[test]
    fn an_added_line_ends_as_the_one_before() {
        let login = Login::from_pair("user:pass").unwrap();
        for (text, expected) in [
            ("", "new user:pass\n"),
            ("k v", "k v\nnew user:pass\n"),
            ("k v\r\n", "k v\r\nnew user:pass\r\n"),
            ("# c\r\nk v", "# c\r\nk v\r\nnew user:pass\r\n"),
            ("# c\r\nk v\r", "# c\r\nk v\r\nnew user:pass\r\n"),
            ("# c\r\nk v\n", "# c\r\nk v\nnew user:pass\n"),
        ] {
            let table = Table::parse(text.as_bytes()).unwrap();
            let rendered = table.render(&[Change::Append { key: "new", login: &login }]).unwrap();
            assert_eq!(std::str::from_utf8(&rendered).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_is_shown() {
        let table = Table::parse(b"k user:password\n").unwrap();
        let shown = format!("{table:?} {:?}", table.entry(0));
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
