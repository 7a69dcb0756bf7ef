//! Routing tables, as far as they can be read: what stands on the right-hand sides of `transport_maps` and its like.
//!
//! What is indexed is listed by `postmap -s`, or read (`cdb`); texts, `inline:`, `static:` and lists of patterns are read here, and
//! `proxy:` and `unionmap:` are looked into. What comes from a database or another program, or depends on the address that is
//! looked up, is named as not read.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::hops::{RouteTables, Values, filter_action};
use super::master::MasterEntry;
use super::origin::{Origin, RouteSettings, restriction_classes};
use super::proxymap::unproxied;
use super::review::Problem;
use super::services::mentions;
use super::settings::{PARAMETERS, Settings, Setup, words};
use super::spelling;
use super::tables::{Kind, MAX_LISTING, gave_up, in_braces, with_extension};
use super::{LONG_COMMAND, Postfix, from_io};
use crate::fault::{Class, Fault};
use crate::host;
use crate::mta::table::{self, Table, find};
use crate::mta::{cdb, shown};

/// So many different right-hand sides of a table are looked at; a routing table names some transports, however many domains it has.
const MOST_VALUES: usize = 10_000;

/// What was read of a file that has not changed since.
pub(super) struct ReadBefore {
    path: PathBuf,
    id: host::FileId,
    values: Option<BTreeSet<String>>,
}

impl Postfix {
    /// What the routing parameters say, in main.cf and in options of entries of master.cf. `listed`: what `postconf -M` says.
    pub(super) fn read_routing(
        &self,
        main: &Settings,
        by_service: &BTreeMap<String, String>,
        listed: &str,
    ) -> Result<RouteSettings, Fault> {
        let classes = restriction_classes(main);
        let mut routing = RouteSettings::of(main, &self.class_values(&classes)?);
        let entries: Vec<MasterEntry> = listed.lines().filter_map(MasterEntry::parse).collect();
        let options: Vec<_> = entries.iter().map(|entry| (entry, RouteSettings::options(entry, &classes))).collect();
        // Most of them say what they mean.
        let is_asked = |value: &&str| value.contains('$');
        let main_cf = self.config_dir.join("main.cf");
        let text = fs::read(&main_cf).map_err(|e| from_io(&e, &main_cf))?;
        let text = String::from_utf8_lossy(&text);
        for (entry, options) in options {
            // What main.cf says may be another thing to it, by an option that is no route, or by its name.
            let routes =
                || PARAMETERS.iter().filter_map(|name| Some((*name, Origin::of_option(entry, name, &classes)?)));
            let reads_otherwise = || !by_service.is_empty() || entry.options.keys().any(|name| mentions(&text, name));
            let is_another = routes().next().is_some() && reads_otherwise();
            let settings = match is_another || options.iter().any(|(_, _, value)| is_asked(value)) {
                true => self.as_read_by(entry, by_service)?,
                false => Settings::default(),
            };
            if is_another {
                for (name, origin) in routes().filter(|(name, _)| settings.get(name) != main.get(name)) {
                    routing.add(origin, settings.get(name).to_owned());
                }
            }
            for (origin, name, value) in options {
                let value = settings.0.get(name).map_or(value, String::as_str);
                if spelling::counts(name) && spelling::is_lost(value) {
                    return Err(self.cannot_spell(Some(&entry.name), name));
                }
                routing.add(origin, value.to_owned());
            }
        }
        Ok(routing)
    }

    /// What stands in the classes of restrictions, which are parameters of the administrator's.
    fn class_values(&self, classes: &[String]) -> Result<Vec<String>, Fault> {
        if classes.is_empty() {
            return Ok(Vec::new());
        }
        let words: Vec<OsString> =
            std::iter::once("-x").chain(classes.iter().map(String::as_str)).map(OsString::from).collect();
        Ok(Settings::parse(&self.postconf(&words)?).0.into_values().collect())
    }

    /// The right-hand sides of all routing tables.
    pub(super) fn route_tables(&self, Setup { main, routing, .. }: &Setup) -> RouteTables {
        let tables = Origin::of_tables().map(|origin| {
            let mut values = Values::default();
            for spelt in routing.tables(origin) {
                // Of what is done with a message only a filter hands it on.
                let found = self.right_hand_sides(main, spelt).map(|mut found| {
                    found.retain(|value| !origin.is_check() || filter_action(value).is_some());
                    found
                });
                match found.filter(|found| !found.iter().any(|value| depends_on_the_address(value))) {
                    Some(found) => values.found.extend(found),
                    None => values.unread.push(shown::table(spelt)),
                }
            }
            (origin, values)
        });
        tables.collect()
    }

    /// Routing tables of texts that daemons read themselves, with a key that is there twice: they open none of these, from our own
    /// reload on.
    pub(super) fn routes_twice(&self, Setup { main, routing, .. }: &Setup) -> Vec<Problem> {
        let mut problems: Vec<Problem> = Vec::new();
        for origin in Origin::of_tables() {
            for path in
                routing.tables(origin).into_iter().filter_map(|spelt| unproxied(spelt).strip_prefix("texthash:"))
            {
                let path = self.absolute(main, path);
                let table = host::read(&path, table::MAX_TABLE).ok().and_then(|(bytes, _)| Table::of(bytes).ok());
                let Some(table) = table else { continue };
                let Some((first, repeat)) = table.all_repeats().first().copied() else { continue };
                let (first, repeat) = (table.entry(first), table.entry(repeat));
                let mut problem = Problem::error(
                    Class::Ambiguous,
                    Some(path),
                    format!(
                        "lines {} and {} of this table of {} have the same key, {}: Postfix does not open a texthash: table with a key \
                         twice, and from its next reload or restart on mail waits that it would look up there",
                        first.line,
                        repeat.line,
                        origin.parameter(),
                        shown::quoted_key(&first.key, None)
                    ),
                    format!(
                        "leave the key once, with the value that is right, and then: postfix -c {} reload",
                        self.config_dir.display()
                    ),
                );
                problem.finding.line = Some(repeat.line);
                problems.push(problem);
            }
        }
        problems
    }

    /// `None`: they cannot be read.
    fn right_hand_sides(&self, main: &Settings, spelt: &str) -> Option<BTreeSet<String>> {
        let (kind, name) = match spelt.split_once(':').filter(|(kind, _)| !kind.contains(['/', '{'])) {
            Some(pair) => pair,
            None => (main.get("default_database_type"), spelt),
        };
        let values = match kind {
            "proxy" => return self.right_hand_sides(main, name),
            "unionmap" => {
                let inner = in_braces(name)?;
                return words(inner)
                    .into_iter()
                    .map(|table| self.right_hand_sides(main, table))
                    .collect::<Option<Vec<_>>>()
                    .map(|found| found.into_iter().flatten().collect());
            }
            "static" => Some([in_braces(name).unwrap_or(name).trim().to_owned()].into()),
            "randmap" => Some(words(in_braces(name)?).into_iter().map(str::to_owned).collect()),
            "inline" => words(in_braces(name)?).into_iter().map(inline_value).collect(),
            "regexp" | "pcre" | "cidr" | "texthash" => {
                let path = self.absolute(main, name);
                self.read_once(&path, || {
                    let bytes = host::read(&path, table::MAX_TABLE).ok()?.0;
                    match kind {
                        "texthash" => {
                            let table = Table::of(bytes).ok()?;
                            table.entries().map(|entry| Some(entry.value()?.to_owned())).collect()
                        }
                        kind => pattern_values(std::str::from_utf8(&bytes).ok()?, kind == "cidr"),
                    }
                })
            }
            kind => {
                let kind = Kind::new(kind)?;
                let path = self.absolute(main, name);
                let map = with_extension(&path, main.redirected(kind).extension()?);
                self.read_once(&map, || self.listed_values(main, kind, &path, &map))
            }
        };
        values.filter(|values| values.len() <= MOST_VALUES)
    }

    /// Daemons look for what has no absolute path in their queue directory.
    fn absolute(&self, main: &Settings, name: &str) -> PathBuf {
        Path::new(main.get("queue_directory")).join(name)
    }

    fn read_once(&self, path: &Path, read: impl FnOnce() -> Option<BTreeSet<String>>) -> Option<BTreeSet<String>> {
        let look = || {
            let (directory, name) = host::Directory::of(path).ok()?;
            directory.look(&name).ok()?
        };
        let id = look()?;
        let mut routes = self.routes.borrow_mut();
        if let Some(before) = routes.iter().find(|before| before.path == path && before.id == id) {
            return before.values.clone();
        }
        let values = read();
        routes.retain(|before| before.path != path);
        if look() == Some(id) && super::settings::settled(&id, std::time::SystemTime::now()) {
            routes.push(ReadBefore { path: path.to_owned(), id, values: values.clone() });
        }
        values
    }

    fn listed_values(&self, main: &Settings, kind: Kind, path: &Path, map: &Path) -> Option<BTreeSet<String>> {
        let mut values = Listed::default();
        if main.redirected(kind) == Kind::Cdb {
            let (directory, name) = host::Directory::of(map).ok()?;
            let (file, id) = directory.open_to_read(&name).ok()?;
            cdb::records(io::BufReader::new(file), id.size, |_, value| values.add(value)).ok()?;
            return values.found();
        }
        let mut argv = self.postmap(main);
        argv.extend(["-s".into(), kind.spell(path)]);
        let output = host::run_listing(&argv, LONG_COMMAND, MAX_LISTING, &mut |piece| values.piece(piece)).ok()?;
        (output.status.success() && gave_up(&output.stderr).is_empty()).then(|| values.found()).flatten()
    }
}

/// The values of a listing, which comes in pieces.
#[derive(Default)]
struct Listed {
    carry: Vec<u8>,
    values: BTreeSet<String>,
    is_odd: bool,
}

impl Listed {
    fn piece(&mut self, mut piece: &[u8]) {
        while let Some(end) = find(b'\n', piece) {
            self.carry.extend_from_slice(&piece[..end]);
            let line = std::mem::take(&mut self.carry);
            // The key of a route has no tab.
            if let Some(tab) = find(b'\t', &line) {
                self.add(&line[tab + 1..]);
            }
            piece = &piece[end + 1..];
        }
        self.carry.extend_from_slice(piece);
    }

    fn add(&mut self, value: &[u8]) {
        if self.values.len() > MOST_VALUES {
            return;
        }
        match std::str::from_utf8(value) {
            Ok(value) if self.values.contains(value) => {}
            Ok(value) => _ = self.values.insert(value.to_owned()),
            Err(_) => self.is_odd = true,
        }
    }

    fn found(self) -> Option<BTreeSet<String>> {
        (!self.is_odd).then_some(self.values)
    }
}

/// `{ key = value }`, or `key=value`.
fn inline_value(entry: &str) -> Option<String> {
    let entry = in_braces(entry).unwrap_or(entry);
    Some(entry.split_once('=')?.1.trim().to_owned())
}

/// Is a part of what was looked up, as a pattern found it, put in? Of a host that is spelt out nothing is left open then.
fn depends_on_the_address(value: &str) -> bool {
    value.contains('$')
}

/// The right-hand sides of a list of patterns (`regexp_table(5)`, `pcre_table(5)`, `cidr_table(5)`).
fn pattern_values(text: &str, is_cidr: bool) -> Option<BTreeSet<String>> {
    let mut logical: Vec<String> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        match logical.last_mut() {
            Some(last) if line.starts_with(|c: char| c.is_ascii_whitespace()) => {
                last.push(' ');
                last.push_str(trimmed);
            }
            _ => logical.push(trimmed.to_owned()),
        }
    }
    let mut values = BTreeSet::new();
    for line in logical {
        let lower = line.to_ascii_lowercase();
        let is_word = |word: &str| {
            lower.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '!', '/']))
        };
        if is_word("if") || is_word("endif") {
            continue;
        }
        let value = if is_cidr { after_word(&line) } else { after_pattern(&line) };
        values.insert(value?.to_owned());
    }
    Some(values)
}

fn after_word(line: &str) -> Option<&str> {
    line.split_once(|c: char| c.is_ascii_whitespace()).map(|(_, rest)| rest.trim())
}

fn after_pattern(line: &str) -> Option<&str> {
    let line = line.strip_prefix('!').unwrap_or(line).trim_start();
    let mut characters = line.char_indices();
    let (_, delimiter) = characters.next()?;
    let mut escaped = false;
    for (at, c) in characters {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == delimiter => return after_word(&line[at + c.len_utf8()..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_hand_sides_of_patterns() {
        for (text, is_cidr, expected) in [
            ("# c\n\n/@a\\.example$/ ses:[h]:587\n", false, Some(&["ses:[h]:587"][..])),
            ("/a\\/b/i  x:y\n!/c/ z:\n|d/e| w:\n", false, Some(&["x:y", "z:", "w:"])),
            ("if /x/\n/a/ b:\nendif\n", false, Some(&["b:"])),
            ("/a/\n   smtp:[b]:1\n# c\n", false, Some(&["smtp:[b]:1"])),
            ("10.0.0.0/8 smtp:[a]:1\nif 10.0.0.0/8\n10.1.0.0/16   b:\nendif\n", true, Some(&["smtp:[a]:1", "b:"])),
            ("/open a:b\n", false, None),
            ("/a/\n", false, None),
        ] {
            let expected = expected.map(|values| values.iter().map(|value| (*value).to_owned()).collect());
            assert_eq!(pattern_values(text, is_cidr), expected, "{text}");
        }
        assert!(depends_on_the_address("smtp:[$1.example]") && !depends_on_the_address("smtp:[a]:1"));
    }

    #[test]
    fn values_of_a_listing_however_it_comes() {
        let listing = "a.example\tsmtp:[h]:587\nb.example\tsmtp:[h]:587\nc.example\tses:\n";
        for cut in 0..listing.len() {
            let mut listed = Listed::default();
            [&listing[..cut], &listing[cut..]].iter().for_each(|piece| listed.piece(piece.as_bytes()));
            assert_eq!(listed.found(), Some(["smtp:[h]:587".to_owned(), "ses:".to_owned()].into()), "{cut}");
        }
        let mut listed = Listed::default();
        listed.piece(b"a\t\xff\n");
        assert_eq!(listed.found(), None);
    }

    #[test]
    fn tables_within_a_name() {
        assert_eq!(inline_value("{ a.example = smtp:[h]:1 }").as_deref(), Some("smtp:[h]:1"));
        assert_eq!(inline_value("a=b:").as_deref(), Some("b:"));
        assert_eq!((in_braces("{ a, b }"), in_braces("a")), (Some("a, b"), None));
    }
}
