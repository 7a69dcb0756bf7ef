//! The walk over a file's tree: which tables and keys there are, and what single keys hold. Every program has a function for
//! each of its sections, which asks a [`Reader`] for what it needs and gets everything that is wrong noted on the way.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::hidden::{is_short_word, may_hold_a_secret, quotes_a_secret};
use super::schema::{AtSign, Schema, SchemaKey, Section};
use super::syntax::{FileLines, Syntax};
use super::value::{self, Judged, WrongValue, expected, mistake};
use crate::finding::{Finding, Severity};

/// Keys under which people look for a place to put the login itself.
const LOGIN_WORDS: [&str; 8] =
    ["password", "passwd", "username", "user", "access_key_id", "secret_access_key", "secret_key", "accesskeyid"];

/// Reads a file of this schema; `sections` makes the program's configuration of it. With that come warnings and notes.
///
/// # Errors
/// Every finding, by line, if at least one of them is an error; so four mistakes give four findings. After a syntax
/// error that leaves open which table the following lines belong to, only syntax errors are reported, since the rest
/// would be guesses. Of a file of a later version only that is said.
pub fn read<T>(
    text: &str,
    schema: &'static Schema,
    sections: impl FnOnce(&mut Reader, &SectionView) -> T,
) -> Result<(T, Vec<Finding>), Vec<Finding>> {
    let lines = FileLines::new(text);
    let mut syntax = Syntax::judge(text, &lines, schema);
    let Some(rest) = syntax.rest else { return Err(syntax.findings) };
    let (tree, _) = DeTable::parse_recoverable(&rest);
    let mut reader = Reader { schema, lines: &lines, findings: Vec::new(), lost: syntax.lost };
    let top = SectionView { section: schema.top, table: tree.get_ref(), line: 1 };
    let mut config = None;
    if reader.is_of_our_version(&top) {
        reader.keys(&top, None);
        config = Some(sections(&mut reader, &top));
    }
    let mut findings = reader.findings;
    findings.append(&mut syntax.findings);
    findings.sort_by_key(|f| (f.line, f.severity));
    match config {
        Some(config) if findings.iter().all(|f| f.severity != Severity::Error) => Ok((config, findings)),
        _ => Err(findings),
    }
}

/// The text under a key of a table, also of a file that has mistakes.
pub fn text_at(text: &str, table: &str, key: &str) -> Option<String> {
    let (tree, _) = DeTable::parse_recoverable(text);
    Some(tree.get_ref().get(table)?.get_ref().get(key)?.get_ref().as_str()?.to_owned())
}

/// A value and the line it stands on.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// 1-based.
    pub line: usize,
}

/// One table of the file, read under one section of the schema.
pub struct SectionView<'d> {
    /// What may stand in it.
    pub section: &'static Section,
    table: &'d DeTable<'d>,
    /// The line of its header.
    pub line: usize,
}

impl<'d> SectionView<'d> {
    fn get(&self, key: &str) -> Option<(&'d Spanned<DeString<'d>>, &'d Spanned<DeValue<'d>>)> {
        debug_assert!(self.section.keys.iter().any(|k| k.name == key), "{key} is not in the schema");
        self.table.iter().find(|(k, _)| k.get_ref() == key)
    }

    /// Does it have this key?
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Is this key a list?
    pub fn is_list(&self, key: &str) -> bool {
        self.get(key).is_some_and(|(_, value)| value.get_ref().is_array())
    }

    /// Is this key a list without elements?
    pub fn has_empty(&self, key: &str) -> bool {
        self.get(key).and_then(|(_, value)| value.get_ref().as_array()).is_some_and(|items| items.is_empty())
    }

    /// How people are told where they are.
    pub fn place(&self) -> &'static str {
        if self.section.header.is_empty() { "the file" } else { self.section.header }
    }
}

/// Walks the tree and collects what is wrong instead of stopping at the first mistake. Where a value is wrong or
/// missing, the finding is recorded and a placeholder goes on, since with an error the whole result is dropped.
pub struct Reader<'t> {
    schema: &'static Schema,
    lines: &'t FileLines<'t>,
    findings: Vec<Finding>,
    /// Keys that stand on lines which could not be read: they are not missing.
    lost: Vec<String>,
}

impl Reader<'_> {
    /// Something to say about a line.
    pub fn find(&mut self, severity: Severity, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding { severity, line: Some(line), file: None, what: what.into(), fix: fix.into() });
    }

    /// A value that is wrong. What may hold a secret is not quoted: people put what they have at hand into the wrong key.
    pub fn wrong(&mut self, view: &SectionView, key: &str, line: usize, value: &DeValue, mistake: WrongValue) {
        let is_address = view.section.keys.iter().any(|k| k.name == key && k.at == AtSign::Belongs);
        let hides = value.as_str().is_some_and(|text| quotes_a_secret(&mistake, text, is_address));
        let WrongValue { what, fix } = match hides {
            true => WrongValue {
                what: "what stands there is not what belongs there (it is not shown, as it may hold a secret)".into(),
                fix: format!(
                    "correct the line; {} says what {key} is. {}",
                    self.schema.explained_in, self.schema.no_login
                ),
            },
            false => mistake,
        };
        self.error(line, format!("{key}: {what}"), fix);
    }

    /// What cannot be as it is.
    pub fn error(&mut self, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.find(Severity::Error, line, what, fix);
    }

    /// The line of a key, where it is there.
    pub fn line_of(&self, view: &SectionView, key: &str) -> Option<usize> {
        view.get(key).map(|(name, _)| self.lines.at(name.span().start))
    }

    /// The value of a key, if it is there and right.
    pub fn read<'d, T>(
        &mut self,
        view: &SectionView<'d>,
        key: &str,
        judge: impl FnOnce(&'d DeValue<'d>) -> Judged<T>,
    ) -> Option<At<T>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        match judge(value.get_ref()) {
            Ok(value) => Some(At { value, line }),
            Err(mistake) => {
                self.wrong(view, key, line, value.get_ref(), mistake);
                None
            }
        }
    }

    /// Like [`Self::read`], for a key that must be there. `fix` says what to add.
    pub fn require<'d, T>(
        &mut self,
        view: &SectionView<'d>,
        key: &str,
        fix: &str,
        judge: impl FnOnce(&'d DeValue<'d>) -> Judged<T>,
    ) -> Option<At<T>> {
        self.must(view, key, fix);
        self.read(view, key, judge)
    }

    /// The key must be there. `fix` says what to add.
    pub fn must(&mut self, view: &SectionView, key: &str, fix: &str) {
        if !self.is_there(view, key) {
            self.error(view.line, format!("{key} is missing in {}", view.place()), fix);
        }
    }

    /// Whether the file has this key. A line that could not be read and a misspelt key are findings of their own, and
    /// one mistake is said once: they count.
    pub fn is_there(&self, view: &SectionView, key: &str) -> bool {
        view.has(key)
            || self.lost.iter().any(|lost| lost == key)
            || view.table.iter().any(|(name, _)| self.meant(view, name.get_ref()) == Some(key))
    }

    /// The key that was probably meant by a word that is no key here.
    fn meant(&self, view: &SectionView, word: &str) -> Option<&'static str> {
        let keys = view.section.keys;
        let accepted: Vec<&str> = keys.iter().filter(|k| k.later.is_none()).map(|k| k.name).collect();
        if self.elsewhere(view, word).next().is_some() { None } else { value::similar(word, &accepted) }
    }

    /// The keys of other sections that are spelt like a key of this table: tables, where it is one (`[hosts]` is a
    /// misspelt `[host]`, and not the list of [health]).
    fn elsewhere(
        &self,
        view: &SectionView,
        word: &str,
    ) -> impl Iterator<Item = (&'static Section, &'static SchemaKey)> {
        let is_table = view.table.iter().find(|(name, _)| name.get_ref() == word).is_some_and(|(_, value)| {
            let value = value.get_ref();
            value.is_table()
                || value.as_array().is_some_and(|a| !a.is_empty() && a.iter().all(|i| i.get_ref().is_table()))
        });
        self.schema
            .sections
            .iter()
            .flat_map(|section| section.keys.iter().map(move |key| (*section, key)))
            .filter(move |(_, key)| key.name == word && key.table == is_table)
    }

    /// A list, each element judged on its own line; no two may be the same when folded. `empty` is what to do about a
    /// list without elements; where it says nothing, that is a list like any other.
    pub fn list<'d, T>(
        &mut self,
        view: &SectionView<'d>,
        key: &str,
        empty: &str,
        judge: impl Fn(&'d DeValue<'d>) -> Judged<T>,
        fold: impl Fn(&T) -> String,
    ) -> Option<Vec<T>> {
        let list = self.lines_of(view, key, empty, judge, fold)?;
        Some(list.into_iter().map(|at| at.value).collect())
    }

    /// Like [`Self::list`], each element with its line.
    pub fn lines_of<'d, T>(
        &mut self,
        view: &SectionView<'d>,
        key: &str,
        empty: &str,
        judge: impl Fn(&'d DeValue<'d>) -> Judged<T>,
        fold: impl Fn(&T) -> String,
    ) -> Option<Vec<At<T>>> {
        let items = self.read(view, key, |v| match v {
            DeValue::Array(items) if items.is_empty() && !empty.is_empty() => mistake("the list is empty", empty),
            DeValue::Array(items) => Ok(items),
            other => mistake(expected("a list", other), "write it between brackets: [\"…\"]"),
        })?;
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        for item in items.value {
            let line = self.lines.at(item.span().start);
            match judge(item.get_ref()) {
                Ok(new) if !seen.insert(fold(&new)) => {
                    self.error(line, format!("{key}: an element stands twice"), "remove one of the two");
                }
                Ok(value) => list.push(At { value, line }),
                Err(mistake) => self.wrong(view, key, line, item.get_ref(), mistake),
            }
        }
        Some(list)
    }

    /// One value, or a list of them.
    pub fn one_or_more<'d, T>(
        &mut self,
        view: &SectionView<'d>,
        key: &str,
        empty: &str,
        judge: impl Fn(&'d DeValue<'d>) -> Judged<T>,
        fold: impl Fn(&T) -> String,
    ) -> Option<Vec<T>> {
        match view.is_list(key) {
            true => self.list(view, key, empty, judge, fold),
            false => self.read(view, key, judge).map(|at| vec![at.value]),
        }
    }

    /// A table below this one.
    pub fn table<'d>(
        &mut self,
        view: &SectionView<'d>,
        key: &str,
        section: &'static Section,
    ) -> Option<SectionView<'d>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        let (table, line) = match value.get_ref() {
            DeValue::Table(table) => (table, self.lines.at(value.span().start)),
            DeValue::Array(items) if items.iter().all(|i| i.get_ref().is_table()) && !items.is_empty() => {
                let fix = format!("write {}, once, in single brackets", section.header);
                self.error(line, format!("{key}: expected one table, found a list of tables"), fix);
                return None;
            }
            other => {
                self.error(
                    line,
                    format!("{key}: {}", expected("a table", other)),
                    format!("write {} on a line of its own, and its keys below it", section.header),
                );
                return None;
            }
        };
        Some(SectionView { section, table, line })
    }

    /// A table below this one, which must be there. `fix` says what to add.
    pub fn part<'d>(
        &mut self,
        view: &SectionView<'d>,
        key: &str,
        section: &'static Section,
        fix: &str,
    ) -> Option<SectionView<'d>> {
        self.must(view, key, fix);
        self.table(view, key, section)
    }

    /// The tables of a list below this one. `None`: the key is not there.
    pub fn tables<'d>(
        &mut self,
        view: &SectionView<'d>,
        key: &str,
        section: &'static Section,
    ) -> Option<Vec<SectionView<'d>>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        let mut views = Vec::new();
        match value.get_ref() {
            DeValue::Array(items) => {
                for item in items {
                    let line = self.lines.at(item.span().start);
                    match item.get_ref() {
                        DeValue::Table(table) => views.push(SectionView { section, table, line }),
                        other => self.error(
                            line,
                            format!("{key}: {}", expected("a table", other)),
                            format!("begin each one with {} on a line of its own", section.header),
                        ),
                    }
                }
            }
            DeValue::Table(table) => {
                self.error(
                    line,
                    format!("{key}: expected a list of tables, found one table"),
                    format!("write {} in double brackets: there may be several", section.header),
                );
                views.push(SectionView { section, table, line: self.lines.at(value.span().start) });
            }
            other => self.error(
                line,
                format!("{key}: {}", expected("a list of tables", other)),
                format!("begin each one with {} on a line of its own", section.header),
            ),
        }
        Some(views)
    }

    /// Reports keys that do not belong into this table. `kind` is its type, where it has one.
    pub fn keys(&mut self, view: &SectionView, kind: Option<&str>) {
        let fits = |key: &SchemaKey| kind.is_none_or(|kind| key.types.is_empty() || key.types.contains(&kind));
        let allowed: Vec<&str> =
            view.section.keys.iter().filter(|k| k.later.is_none() && fits(k)).map(|k| k.name).collect();
        for (name, _) in view.table {
            let (line, name) = (self.lines.at(name.span().start), name.get_ref().as_ref());
            let known = view.section.keys.iter().find(|k| k.name == name);
            if known.is_some_and(|k| k.later.is_none() && fits(k)) {
                continue;
            }
            let elsewhere: Vec<_> = self.elsewhere(view, name).filter(|_| known.is_none()).collect();
            let later = known.into_iter().chain(elsewhere.iter().map(|(_, key)| *key)).find_map(|k| k.later);
            let place = view.place();
            let (what, fix) = if let Some(fix) = later {
                (format!("{name:?} is not yet supported"), fix.to_owned())
            } else if let (Some(known), Some(kind)) = (known, kind) {
                (
                    format!("{name:?} does not go with type = {kind:?}"),
                    format!("remove it, or set type = {}", value::quoted_list(known.types, " or ")),
                )
            } else if !elsewhere.is_empty() {
                let sections: Vec<&str> = elsewhere
                    .iter()
                    .map(|(s, _)| if s.header.is_empty() { "the top of the file" } else { s.header })
                    .collect();
                (
                    format!("unknown key {name:?} in {place}"),
                    format!("move it to {}. Allowed here: {}", sections.join(" or "), allowed.join(", ")),
                )
            } else if LOGIN_WORDS.contains(&name.to_ascii_lowercase().replace('-', "_").as_str()) {
                (format!("unknown key {name:?} in {place}"), self.schema.instead_of_login.to_owned())
            } else {
                let meant = self.meant(view, name);
                let shows = meant.is_some() || is_short_word(name);
                let guess = meant.map_or("remove it.".to_owned(), |meant| format!("did you mean {meant:?}?"));
                let what = match !shows || may_hold_a_secret(name, false) {
                    true => format!("there is an unknown key in {place} (it is not shown, as it may hold a secret)"),
                    false => format!("unknown key {name:?} in {place}"),
                };
                (what, format!("{guess} Allowed here: {}", allowed.join(", ")))
            };
            self.error(line, what, fix);
        }
    }

    /// Is the file of the version that this program reads? Of a later one nothing else is to be said.
    fn is_of_our_version(&mut self, top: &SectionView) -> bool {
        let (program, ours) = (self.schema.program, self.schema.version);
        let add = format!("put config_version = {ours} on the first line");
        let version = self.require(top, "config_version", &add, |v| match value::integer(v)? {
            n if n == ours => Ok(true),
            n if n > ours => Ok(false),
            _ => mistake("there is no such version of this file", format!("write config_version = {ours}")),
        });
        let Some(At { value: false, line }) = version else { return true };
        let what = format!("config_version: this {program} reads version {ours}, and the file is of a later one");
        self.error(line, what, format!("update {program}, or write the file anew for config_version = {ours}"));
        false
    }

    /// A name that nothing else of its kind has.
    pub fn unique(&mut self, name: &At<String>, taken: &mut HashMap<String, usize>, what: &str) {
        match taken.entry(name.value.clone()) {
            Entry::Vacant(free) => {
                free.insert(name.line);
            }
            Entry::Occupied(first) => self.error(
                name.line,
                format!("name: the {what} on line {} is called {:?} too", first.get(), name.value),
                format!("give each {what} a name of its own"),
            ),
        }
    }
}
