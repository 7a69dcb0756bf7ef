//! A compiled map against the text that it should have been made from: which keys stand in one of them only, and which have
//! another value. Pure: the map comes in as the listing of it comes, in one pass, and nothing of it is kept but names.

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::key_ids::KeyIds;
use super::table::{Table, find, fold};
use super::{TableId, shown};

/// So many keys are named; of the others it is said how many there are.
pub const NAMED: usize = 10;
/// So many lines with keys that are no ASCII are looked at again in the end.
const ODD: usize = 1000;

/// What differs. Keys only, never values.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Differences {
    pub only_in_map: Names,
    /// In the map only, under keys that Postfix never asks for: it folds what it looks up.
    pub out_of_reach: Names,
    /// Each with the line in the text.
    pub differing: Names,
    pub only_in_text: Names,
    /// The access key ids of what is in the map and not so in the text, keys that are not compared among it. Only of a table
    /// that was named ([`Comparison::of`]).
    pub key_ids: KeyIds,
}

impl Differences {
    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.only_in_map.count + self.out_of_reach.count + self.differing.count + self.only_in_text.count == 0
    }
}

/// Some keys, the first of them by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Names {
    /// Key, and line in the text where it stands there.
    pub first: Vec<(String, Option<usize>)>,
    pub count: usize,
}

impl Names {
    /// One more.
    pub fn add(&mut self, key: &str, line: Option<usize>) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push((key.to_owned(), line));
        }
    }

    /// `"a", "b" (line 7) and 3 more`.
    pub fn list(&self) -> String {
        let name = |(key, line): &(String, Option<usize>)| match line {
            Some(line) if shown::is_key(key) => format!("{key:?} (line {line})"),
            line => shown::quoted_key(key, *line),
        };
        let named = self.first.iter().map(name).collect::<Vec<_>>().join(", ");
        match self.count - self.first.len() {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

/// A comparison under way.
pub struct Comparison<'t> {
    table: &'t Table,
    /// Folded keys that are not compared.
    left_out: &'t HashSet<String>,
    /// For each entry of the table: has the map it, or something else under its key, or is it left out?
    seen: Marks,
    skipped: Marks,
    /// The beginning of a line whose end has not come yet.
    carry: Zeroizing<Vec<u8>>,
    /// Keys that Postfix may have folded otherwise than we do, with their values.
    odd: Vec<(String, Zeroizing<Vec<u8>>)>,
    found: Differences,
    /// Whose key ids are kept.
    id: Option<&'t TableId>,
}

/// One bit for each entry.
struct Marks(Vec<u64>);

impl Marks {
    fn set(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn has(&self, number: usize) -> bool {
        self.0[number / 64] & 1 << (number % 64) != 0
    }
}

/// What the text says of a key of the map.
enum KeyVerdict {
    Same,
    /// With the entry's number.
    Differs(usize),
    Absent,
}

impl<'t> Comparison<'t> {
    /// With the table of a text, but for these keys, folded.
    pub fn new(table: &'t Table, left_out: &'t HashSet<String>) -> Self {
        let marks = || Marks(vec![0; table.len().div_ceil(64)]);
        let mut skipped = marks();
        for (number, _) in left_out.iter().filter_map(|key| table.get_folded(key)) {
            skipped.set(number);
        }
        let carry = Zeroizing::new(Vec::new());
        Self {
            table,
            left_out,
            seen: marks(),
            skipped,
            carry,
            odd: Vec::new(),
            found: Differences::default(),
            id: None,
        }
    }

    /// Keeps access key ids too, those of this table.
    #[must_use]
    pub fn of(self, id: &'t TableId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// A piece of the listing, whose lines are key, tab and value.
    pub fn listed(&mut self, mut piece: &[u8]) {
        while let Some(end) = find(b'\n', piece) {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            if self.carry.is_empty() {
                self.line(line);
            } else {
                self.keep(line);
                let whole = std::mem::take(&mut self.carry);
                self.line(&whole);
            }
            piece = rest;
        }
        self.keep(piece);
    }

    fn keep(&mut self, part: &[u8]) {
        let room = self.carry.len() + part.len();
        if self.carry.capacity() < room {
            // Not grown: that would leave a copy behind.
            let mut wider = Zeroizing::new(Vec::with_capacity(room.next_power_of_two()));
            wider.extend_from_slice(&self.carry);
            self.carry = wider;
        }
        self.carry.extend_from_slice(part);
    }

    /// A key in quotation marks may hold tabs itself: it ends at the tab after a closing one, where there is such a tab.
    fn line(&mut self, line: &[u8]) {
        let mut verdict: Option<(&[u8], &[u8], KeyVerdict)> = None;
        for tab in (0..line.len()).filter(|at| line[*at] == b'\t') {
            let (key, value) = (&line[..tab], &line[tab + 1..]);
            match self.verdict(key, value) {
                KeyVerdict::Same => return,
                other => {
                    let closed = |key: &[u8]| key.len() > 1 && key.ends_with(b"\"");
                    if verdict.as_ref().is_none_or(|(before, ..)| closed(key) && !closed(before)) {
                        verdict = Some((key, value, other));
                    }
                }
            }
            if key.first() != Some(&b'"') {
                break;
            }
        }
        if let Some((key, value, verdict)) = verdict {
            self.note(key, value, &verdict);
        }
    }

    /// One record of the map.
    pub fn record(&mut self, key: &[u8], value: &[u8]) {
        match self.verdict(key, value) {
            KeyVerdict::Same => {}
            other => self.note(key, value, &other),
        }
    }

    fn verdict(&mut self, key: &[u8], value: &[u8]) -> KeyVerdict {
        let key = String::from_utf8_lossy(key);
        match self.table.get_folded(&key) {
            None if self.left_out.contains(&fold(&key)) => {
                self.keep_key_id(&key, value);
                KeyVerdict::Same
            }
            None => KeyVerdict::Absent,
            Some((number, entry)) if self.skipped.has(number) => {
                if entry.value_bytes() != value {
                    self.keep_key_id(&key, value);
                }
                KeyVerdict::Same
            }
            Some((number, entry)) if entry.value_bytes() != value => KeyVerdict::Differs(number),
            Some((number, _)) => {
                self.seen.set(number);
                KeyVerdict::Same
            }
        }
    }

    fn note(&mut self, key: &[u8], value: &[u8], verdict: &KeyVerdict) {
        let key = String::from_utf8_lossy(key);
        self.keep_key_id(&key, value);
        match *verdict {
            KeyVerdict::Differs(number) => {
                self.seen.set(number);
                self.found.differing.add(&key, Some(self.table.entry(number).line));
            }
            _ if !key.is_ascii() && self.odd.len() < ODD => {
                self.odd.push((key.into_owned(), Zeroizing::new(value.to_vec())));
            }
            _ if key.bytes().any(|b| b.is_ascii_uppercase()) => self.found.out_of_reach.add(&key, None),
            _ => self.found.only_in_map.add(&key, None),
        }
    }

    fn keep_key_id(&mut self, key: &str, value: &[u8]) {
        let username = |value| self.table.delimiter().username(value);
        if let (Some(id), Some(user)) = (self.id, std::str::from_utf8(value).ok().and_then(username)) {
            self.found.key_ids.add(user, id, None, key);
        }
    }

    /// When the whole map has come.
    pub fn finish(mut self) -> Differences {
        if !self.carry.is_empty() {
            let last = std::mem::take(&mut self.carry);
            self.line(&last);
        }
        for number in 0..self.table.len() {
            if self.seen.has(number) || self.skipped.has(number) {
                continue;
            }
            let entry = self.table.entry(number);
            if self.table.get_folded(&entry.key).is_some_and(|(first, _)| first != number) {
                continue;
            }
            if !entry.key.is_ascii()
                && let Some(same) = self.odd.iter().position(|(_, value)| value.as_slice() == entry.value_bytes())
            {
                self.odd.swap_remove(same);
                continue;
            }
            // Postfix leaves out what is no UTF-8, or not, as smtputf8_enable says; and a key that is no ASCII where its
            // folding fails.
            if entry.key.is_ascii() && entry.value().is_some() {
                self.found.only_in_text.add(&entry.key, Some(entry.line));
            }
        }
        for (key, _) in &self.odd {
            self.found.only_in_map.add(key, None);
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(text: &str, left_out: &[&str], pieces: &[&str]) -> Differences {
        let table = Table::parse(text.as_bytes()).unwrap();
        let left_out = left_out.iter().map(|key| fold(key)).collect();
        let mut comparison = Comparison::new(&table, &left_out);
        pieces.iter().for_each(|piece| comparison.listed(piece.as_bytes()));
        comparison.finish()
    }

    #[test]
    fn the_same_however_it_comes() {
        let text = "# c\nB b:1\na a:1\n\"q\tx\" q:1\nb b:2\nstra\u{df}e s:1\n";
        let listing = "a\ta:1\nb\tb:1\n\"q\tx\"\tq:1\nSTRA\u{df}E\ts:1\n";
        assert_eq!(compare(text, &[], &[listing]), Differences::default());
        for cut in (0..listing.len()).filter(|at| listing.is_char_boundary(*at)) {
            assert_eq!(compare(text, &[], &[&listing[..cut], &listing[cut..]]), Differences::default(), "{cut}");
        }
        let without = listing.trim_end_matches('\n');
        assert!(compare(text, &[], &[without]).is_empty());
    }

    #[test]
    fn what_differs_is_named_and_no_value_is() {
        let found = compare("a secret:1\nB secret:2\nc secret:3\n", &[], &["b\tsecret:9\nc\tsecret:3\nd\tsecret:4\n"]);
        let names = |names: &Names| names.list();
        assert_eq!(names(&found.only_in_map), "\"d\"");
        assert_eq!(names(&found.differing), "\"b\" (line 2)");
        assert_eq!(names(&found.only_in_text), "\"a\" (line 1)");
        assert!(!format!("{found:?}").contains("secret"));
        let found = compare("", &[], &["\"q\tx\"\tq:1\ty\nUp\tx:1\n"]);
        let key = |names: &Names| names.first[0].0.clone();
        assert_eq!((key(&found.only_in_map), key(&found.out_of_reach)), ("\"q\tx\"".into(), "Up".into()));
        // A login in the place of a key is not named.
        let found = compare("c x:1\nuser:Secret12 [c]:1\n", &[], &["c\tx:1\nuser:secret34\t[d]:1\n"]);
        assert_eq!(names(&found.only_in_map), "a key that is not shown");
        assert_eq!(names(&found.only_in_text), "a key that is not shown (line 2)");
        assert!(compare("a x:1\nb x:2\n", &["A", "B", "c"], &["a\ty:1\nc\ty:1\n"]).is_empty());
        // A value may hold tabs, and is compared whole.
        assert!(compare("a x:1\ty\n", &[], &["a\tx:1\ty\n"]).is_empty());
        assert_eq!(compare("a x:1\ty\n", &[], &["a\tx:1\n"]).differing.count, 1);
    }

    #[test]
    fn key_ids_that_only_the_map_holds_are_kept() {
        let text = "ours AKIANEW:pw\nother AKIAOTHER:pw\nplain joe:pw\n";
        let table = Table::parse(text.as_bytes()).unwrap();
        let (left_out, id) = (["ours", "gone"].map(str::to_owned).into(), TableId::new("hash:/t"));
        let listing = b"ours\tAKIAOLD:pw\ngone\tAKIAGONE:pw\nother\tAKIAOTHER:pw\nplain\tAKIAPLAIN:pw\nmore\tjim:pw\n";
        let mut comparison = Comparison::new(&table, &left_out).of(&id);
        comparison.listed(listing);
        let others = comparison.finish().key_ids.others(None);
        let found: Vec<(&str, &str)> = others.named.iter().map(|o| (o.id.as_str(), o.places[0].key.as_str())).collect();
        assert_eq!(found, [("AKIAGONE", "gone"), ("AKIAOLD", "ours"), ("AKIAPLAIN", "plain")]);
        assert!(others.named.iter().all(|other| other.places[0].line.is_none()));
        let mut comparison = Comparison::new(&table, &left_out);
        comparison.listed(listing);
        assert_eq!(comparison.finish().key_ids, KeyIds::default());
    }

    #[test]
    fn many_are_counted() {
        let listing: String = (0..25).map(|n| format!("k{n:02}\tx:y\n")).collect();
        let found = compare("", &[], &[&listing]).only_in_map;
        assert_eq!((found.count, found.first.len()), (25, NAMED));
        assert!(found.list().starts_with("\"k00\", ") && found.list().ends_with(" and 15 more"), "{}", found.list());
    }

    #[test]
    fn keys_that_are_no_ascii_may_be_folded_otherwise() {
        // Postfix's library may make something else of it; the value tells that it is the same line.
        assert!(compare("\u{1c5} x:1\n", &[], &["\u{1c6}\u{301}\tx:1\n"]).is_empty());
        assert_eq!(compare("\u{1c5} x:1\n", &[], &["\u{e9}\tx:2\n"]).only_in_map.count, 1);
        // What Postfix left out for not being UTF-8 is nobody's loss.
        let table = Table::parse(b"k\xff x:1\nl x\xff\n").unwrap();
        assert!(Comparison::new(&table, &HashSet::new()).finish().is_empty());
    }
}
