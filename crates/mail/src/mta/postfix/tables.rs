//! Lookup tables: their kinds, where text and compiled map are, and what `postmap` finds and lists in them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::{fs, io};

use zeroize::Zeroizing;

pub(super) use super::own_table::no_map;
use super::own_table::{NamedIn, PASSWORD_MAPS, WritableTable};
use super::proxymap::unproxied;
use super::review::Problem;
use super::services::{Service, may_hold_a_login};
use super::setting_lines::{lines_of, lines_of_keys};
use super::settings::{Settings, Setup, postconf, words};
use super::{COMMAND, LONG_COMMAND, Postfix};
use crate::credential::{Login, Redactor};
use crate::fault::{Class, Fault};
use crate::host;
use crate::host::trust::quoted;
use crate::mta::compare::Comparison;
use crate::mta::table::{Delimiter, Table};
use crate::mta::{Answer, TableId, cdb, shown, table};

/// What a listing may have: as much as a map that is swapped.
pub(super) const MAX_LISTING: usize = 2 * table::MAX_TABLE;

/// How many keys one `postmap` is asked for; `host::run` takes megabytes of answers, not tables of any size.
pub(super) const KEYS_AT_ONCE: usize = 10_000;

/// What `postmap -q` answers: logins by key, and the keys with an answer that is none.
pub(super) type Answers = (HashMap<String, Login>, HashSet<String>);

impl Postfix {
    /// Lists a table, as `postmap` would open it, into a comparison. The inner error is why that is not possible.
    pub(super) fn list(
        &self,
        settings: &Settings,
        kind: Kind,
        path: &Path,
        comparison: &mut Comparison<'_>,
    ) -> Result<Result<(), String>, Fault> {
        if settings.redirected(kind) == Kind::Cdb {
            // `postmap -s` cannot list those.
            let (directory, name) = host::Directory::of(&with_extension(path, "cdb"))?;
            let (file, id) = directory.open_to_read(&name)?;
            let listed = cdb::records(io::BufReader::new(file), id.size, |key, value| comparison.record(key, value));
            return Ok(listed.map_err(|e| e.to_string()));
        }
        let mut argv = self.postmap(settings);
        argv.extend(["-s".into(), kind.spell(path)]);
        let output = host::run_listing(&argv, LONG_COMMAND, MAX_LISTING, &mut |piece| comparison.listed(piece))
            .map_err(|e| waited_for(e, settings, kind, path))?;
        if output.status.success() && gave_up(&output.stderr).is_empty() {
            return Ok(Ok(()));
        }
        Ok(Err(self.last_words(&output, path)))
    }

    /// As [`Self::list`]: all of it, as lines of key, tab and value.
    pub(super) fn list_whole(
        &self,
        settings: &Settings,
        kind: Kind,
        path: &Path,
        size: u64,
    ) -> Result<Result<Zeroizing<Vec<u8>>, String>, Fault> {
        // A map is larger than what it holds: not grown, which would leave a copy behind.
        let room = usize::try_from(size).unwrap_or_default().min(table::MAX_TABLE);
        let mut whole = Zeroizing::new(Vec::with_capacity(room));
        if settings.redirected(kind) == Kind::Cdb {
            let (directory, name) = host::Directory::of(&with_extension(path, "cdb"))?;
            let (file, id) = directory.open_to_read(&name)?;
            let listed = cdb::records(io::BufReader::new(file), id.size, |key, value| {
                [key, b"\t", value, b"\n"].into_iter().for_each(|part| whole.extend_from_slice(part));
            });
            return Ok(listed.map(|()| whole).map_err(|e| e.to_string()));
        }
        let mut argv = self.postmap(settings);
        argv.extend(["-s".into(), kind.spell(path)]);
        let output = host::run_listing(&argv, LONG_COMMAND, MAX_LISTING, &mut |piece| whole.extend_from_slice(piece))
            .map_err(|e| waited_for(e, settings, kind, path))?;
        match output.status.success() && gave_up(&output.stderr).is_empty() {
            true => Ok(Ok(whole)),
            false => Ok(Err(self.last_words(&output, path))),
        }
    }

    pub(super) fn compile_command(&self, store: &Store) -> String {
        format!("postmap{} {}", self.config_option(), quoted(&store.name))
    }

    /// Looks keys up with `postmap -q -`. The inner error is what `postmap` said when it gave up.
    pub(super) fn query(
        &self,
        settings: &Settings,
        store: &Store,
        path: &Path,
        keys: &[String],
    ) -> Result<Result<Answers, String>, Fault> {
        let Store { kind, delimiter, .. } = *store;
        let answers = self.ask(settings, &kind.spell(path), delimiter, keys, path);
        answers.map_err(|e| waited_for(e, settings, kind, path))
    }

    /// Looks keys up in whatever kind of table.
    fn ask(
        &self,
        settings: &Settings,
        spelt: &OsStr,
        delimiter: Delimiter,
        keys: &[String],
        text: &Path,
    ) -> Result<Result<Answers, String>, host::HostError> {
        let mut asked = HashSet::new();
        let keys: Vec<&str> = keys.iter().map(String::as_str).filter(|key| asked.insert(*key)).collect();
        let (mut found, mut odd) = (HashMap::new(), HashSet::new());
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let mut argv = self.postmap(settings);
            argv.extend(["-q".into(), "-".into(), spelt.to_owned()]);
            let lines = keys.iter().flat_map(|key| [*key, "\n"]).collect::<String>();
            let output = host::run(&argv, Some(lines.as_bytes()), COMMAND)?;
            // Exit status 1 is both "found none" and "gave up"; the latter says so at its severity.
            if !matches!(output.status.code(), Some(0 | 1)) || !gave_up(&output.stderr).is_empty() {
                return Ok(Err(self.last_words(&output, text)));
            }
            // Answers come in the order of the keys, and only for those that were found.
            let mut answers = output.stdout.split(|byte| *byte == b'\n').peekable();
            for key in keys {
                let answer = answers.peek().and_then(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b"\t"));
                if let Some(value) = answer {
                    match std::str::from_utf8(value).ok().and_then(|value| delimiter.login(value)) {
                        Some(login) => _ = found.insert((*key).to_owned(), login),
                        None => _ = odd.insert((*key).to_owned()),
                    }
                    answers.next();
                }
            }
        }
        Ok(Ok((found, odd)))
    }

    /// What smtp(8) finds in a table that we do not write.
    pub(super) fn look_up_other(
        &self,
        settings: &Settings,
        map: &LoginMap,
        keys: &[String],
    ) -> Result<Vec<Answer>, Fault> {
        self.try_other(settings, map, keys).map_err(|why| self.no_answer(map, why))
    }

    pub(super) fn no_answer(&self, map: &LoginMap, why: NoAnswer) -> Fault {
        match why {
            NoAnswer::Failed(why) | NoAnswer::Silent(why) => *why,
            NoAnswer::EntriesAreItsName => self.cannot_be_asked(map, "its entries are its name"),
        }
    }

    /// The same, with the reason apart.
    pub(super) fn try_other(
        &self,
        settings: &Settings,
        map: &LoginMap,
        keys: &[String],
    ) -> Result<Vec<Answer>, NoAnswer> {
        if let Some(table) = &map.fixed {
            return Ok(keys.iter().map(|key| map.answer(table, key)).collect());
        }
        if may_hold_a_login(&map.spelt) {
            return Err(NoAnswer::EntriesAreItsName);
        }
        // One that nobody has a line for: `postmap` opens a table only to look something up.
        let asked: Vec<String> = keys.iter().map(|key| if key.is_empty() { "-".into() } else { key.clone() }).collect();
        match self.ask(settings, OsStr::new(&map.spelt), map.delimiter, &asked, Path::new("")) {
            Ok(Ok((found, odd))) => Ok(asked.iter().map(|key| answer(&found, &odd, key)).collect()),
            Ok(Err(words)) => Err(NoAnswer::Failed(Box::new(self.cannot_be_asked(map, &words)))),
            Err(e @ host::HostError::TimedOut { .. }) => {
                Err(NoAnswer::Silent(Box::new(self.cannot_be_asked(map, &e.to_string()))))
            }
            Err(e) => Err(NoAnswer::Failed(Box::new(e.into()))),
        }
    }

    fn cannot_be_asked(&self, map: &LoginMap, why: &str) -> Fault {
        Fault::new(
            Class::Command,
            format!("{} cannot be asked what it holds: {why}", map.id),
            format!("try it by hand: postmap{} -q KEY {}", self.config_option(), map.id),
        )
        .temporary()
    }

    /// Has this host's Postfix tables of that kind? A list that cannot be had says nothing.
    pub(super) fn has_kind(&self, settings: &Settings, kind: &str) -> Result<bool, Fault> {
        let argv = [postconf()?.into(), "-c".into(), self.config_dir.clone().into_os_string(), "-m".into()];
        let output = host::run(&argv, None, COMMAND)?;
        let kinds = String::from_utf8_lossy(&output.stdout);
        let is_listed = !output.status.success() || kinds.lines().any(|line| line.trim() == kind);
        Ok(is_listed && plugin_that_is_missing(settings, kind).is_none())
    }

    pub(super) fn postmap(&self, settings: &Settings) -> Vec<OsString> {
        vec![settings.program("postmap"), "-c".into(), self.config_dir.clone().into_os_string()]
    }

    /// What a command said when it gave up, without any password that stands in the table.
    pub(super) fn last_words(&self, output: &host::Output, text: &Path) -> String {
        match gave_up(&output.stderr) {
            words if words.is_empty() => without_words(output.status),
            words => self.redacted(&words, text),
        }
    }

    /// The words without any password of a table; a table that cannot be read hides nothing.
    pub(super) fn redacted(&self, words: &str, text: &Path) -> String {
        let table = host::read(text, table::MAX_TABLE).ok().and_then(|(bytes, _)| Table::of(bytes).ok());
        let table = table.unwrap_or_default();
        // Whichever service asks it.
        let mut delimiters = self.setup().map(|setup| setup.delimiters()).unwrap_or_default();
        delimiters.push(Delimiter::default());
        let logins =
            delimiters.iter().flat_map(|delimiter| table.entries().filter_map(|entry| delimiter.login(entry.value()?)));
        Redactor::for_text(words, logins).clean(words)
    }

    /// Why `postfix check` failed. Without a terminal, postfix(1) itself speaks to the mail log only; another program
    /// that reads main.cf gives the reason aloud, where the reason stands there.
    pub(super) fn check_words(&self, settings: &Settings, stderr: &str) -> Result<String, Fault> {
        let said = gave_up(stderr);
        if !said.is_empty() {
            return Ok(Redactor::default().clean(&said));
        }
        let mut argv = self.postmap(settings);
        argv.extend(["-q".into(), "any".into(), "static:any".into()]);
        let said = gave_up(&host::run(&argv, None, COMMAND)?.stderr);
        if !said.is_empty() {
            return Ok(Redactor::default().clean(&said));
        }
        Ok(match settings.get("maillog_file") {
            file if !file.starts_with('/') => "its reason is in the mail log".into(),
            file => format!("its reason is in {file}"),
        })
    }

    /// Why this host's Postfix cannot open tables of that kind; `None`: it can. Asked only where something failed or there
    /// is no map yet.
    pub(super) fn unsupported(&self, settings: &Settings, kind: Kind) -> Result<Option<Problem>, Fault> {
        let argv = [postconf()?.into(), "-c".into(), self.config_dir.clone().into_os_string(), "-m".into()];
        let output = host::run(&argv, None, COMMAND)?;
        let kinds = String::from_utf8_lossy(&output.stdout);
        let name = kind.name();
        let needed = settings.redirected(kind).name();
        if output.status.success() && !kinds.lines().any(|line| line.trim() == needed) {
            let fix = match kind {
                Kind::Hash | Kind::Btree => {
                    format!(
                        "this Postfix is built without Berkeley DB: make the table one of lmdb: (package postfix-lmdb): postmap{} \
                         lmdb:FILE, and then name it so in smtp_sasl_password_maps; or follow the NON_BERKELEYDB_README",
                        self.config_option()
                    )
                }
                _ => format!(
                    "install the package postfix-{name}; a secondary instance also needs dynamicmaps.cf where its \
                     meta_directory says"
                ),
            };
            let what = format!("this host's Postfix cannot open {name}: tables (it is not in `postconf -m`)");
            return Ok(Some(Problem::error(Class::Unsupported, Some(self.config_dir.join("main.cf")), what, fix)));
        }
        // `postconf -m` lists what dynamicmaps.cf names, whether or not the library is there.
        Ok(plugin_that_is_missing(settings, needed).map(|(named_in, library)| {
            let what = format!(
                "this host's Postfix cannot open {name}: tables: it loads {} for them, which is not there",
                library.display()
            );
            let fix = format!("install the package postfix-{needed} (again), or correct the line {needed} there");
            Problem::error(Class::Unsupported, Some(named_in), what, fix)
        }))
    }
}

/// The kinds of table that are a text which we may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hash,
    Btree,
    Lmdb,
    Cdb,
    Texthash,
}

impl Kind {
    pub(super) fn new(name: &str) -> Option<Self> {
        [Kind::Hash, Kind::Btree, Kind::Lmdb, Kind::Cdb, Kind::Texthash].into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Hash => "hash",
            Kind::Btree => "btree",
            Kind::Lmdb => "lmdb",
            Kind::Cdb => "cdb",
            Kind::Texthash => "texthash",
        }
    }

    /// What `postmap` adds to the name of the text. `None`: Postfix reads the text itself.
    pub(super) fn extension(self) -> Option<&'static str> {
        match self {
            Kind::Hash | Kind::Btree => Some("db"),
            Kind::Lmdb => Some("lmdb"),
            Kind::Cdb => Some("cdb"),
            Kind::Texthash => None,
        }
    }

    /// `type:path`, as `postmap` takes it.
    pub(super) fn spell(self, path: &Path) -> OsString {
        let mut spelt = OsString::from(format!("{}:", self.name()));
        spelt.push(path);
        spelt
    }
}

/// Why a kind of table is not one that we write.
fn refusal(map: &str) -> String {
    let kind = map.split_once(':').map_or(map, |(kind, _)| kind);
    let why = match kind {
        "proxy" => "proxymap(8) opens it",
        "ldap" | "mysql" | "pgsql" | "sqlite" | "mongodb" => {
            "the logins are in a database, not in a file that relaykey writes"
        }
        "pcre" | "regexp" | "cidr" => "it matches patterns, so no entry belongs to one key alone",
        "inline" | "static" => {
            "the login stands in main.cf itself, which relaykey never writes (and which everybody can read)"
        }
        "environ" => "the login stands in the environment of processes",
        "tcp" | "socketmap" | "memcache" | "nis" | "nisplus" | "netinfo" | "unix" => {
            "the logins come from another service"
        }
        "pipemap" | "unionmap" | "randmap" => "it combines other tables",
        "internal" | "fail" => "it holds nothing that lasts",
        "dbm" | "sdbm" => "its map is two files, which cannot be replaced in one step",
        _ => "relaykey does not know how Postfix reads it",
    };
    let named =
        shown::table_type(map).map_or_else(|| "a kind that is not shown".into(), |kind| format!("kind {kind}:"));
    format!("smtp_sasl_password_maps is of {named}, which relaykey cannot write: {why}")
}

/// Why a table that we do not write gave no answers.
pub(super) enum NoAnswer {
    /// It does not go onto a command line.
    EntriesAreItsName,
    Failed(Box<Fault>),
    /// Until the deadline.
    Silent(Box<Fault>),
}

/// A login table, as a service names it.
pub(super) struct LoginMap {
    pub(super) id: TableId,
    spelt: String,
    /// The error is why we cannot write it.
    pub(super) store: Result<Store, Box<Problem>>,
    /// The entries of one that is written out in main.cf or master.cf.
    pub(super) fixed: Option<Table>,
    /// It gives the same for every key.
    pub(super) is_static: bool,
    /// It is of a kind that we cannot write.
    is_refused: bool,
    delimiter: Delimiter,
    /// The file that names it, main.cf or master.cf, and of the latter the service.
    pub(super) named_in: (PathBuf, Option<String>),
}

impl LoginMap {
    pub(super) fn of(named: NamedIn<'_>, spelt: &str) -> Self {
        let (store, settings) = (Store::of(named, spelt), named.settings);
        let delimiter = settings.delimiter().unwrap_or_default();
        let id = store.as_ref().map_or_else(|_| TableId::new(shown::table(spelt)), Store::id);
        let name = unproxied(spelt);
        let value = name.strip_prefix("static:").map(|value| in_braces(value).unwrap_or(value));
        let text = match (value, name.strip_prefix("inline:").and_then(in_braces)) {
            (Some(value), _) => Some(Zeroizing::new(format!("* {}\n", value.trim()).into_bytes())),
            (None, Some(entries)) => Some(inline_text(entries)),
            (None, None) => None,
        };
        // What a parameter stands for that is not known here is not listed.
        let text = text.filter(|_| !name.contains('$'));
        let fixed = text.and_then(|text| Table::of(text).ok()).map(|table| table.delimited(delimiter).on_lines(&[]));
        let is_refused = store.as_ref().is_err_and(|problem| problem.class == Class::Unsupported);
        let named_in = (named.file(), named.service.map(str::to_owned));
        Self { id, spelt: spelt.to_owned(), store, fixed, is_static: value.is_some(), is_refused, delimiter, named_in }
    }

    /// A service splits what it finds there by its own setting: a table that two split in two ways is not written.
    fn is_split_by(&mut self, service: &Service) {
        let parameter = "smtp_sasl_password_result_delimiter";
        let what = match service.settings.delimiter() {
            Some(delimiter) if delimiter == self.delimiter => return,
            Some(_) => format!(
                "{parameter} of the service {} is another one than that of a service which asks {} too: no line of it can be right \
                 for both",
                service.name, self.id
            ),
            None => {
                format!("{parameter} of the service {} is not one character: what it splits is not known", service.name)
            }
        };
        let main_cf = Path::new(service.settings.get("config_directory")).join("main.cf");
        let fix = "give all services that ask one table the same one, or each a table of its own".into();
        self.store = Err(Box::new(Problem::error(Class::Unsupported, Some(main_cf), what, fix)));
    }

    /// As a service names it. It may hold a login.
    pub(super) fn spelt(&self) -> &str {
        &self.spelt
    }

    /// Is it one table, by another path, or asked of proxymap(8) by the one and opened by the other?
    fn is_same_file(&self, other: &Self) -> bool {
        let (Ok(one), Ok(other)) = (&self.store, &other.store) else { return false };
        (one.kind, &one.text, &one.map, one.delimiter) == (other.kind, &other.text, &other.map, other.delimiter)
    }

    /// Does proxymap(8) open it?
    pub(super) fn is_proxied(&self) -> bool {
        self.spelt.starts_with("proxy:")
    }

    /// Can it be neither written nor read?
    pub(super) fn is_unlisted(&self) -> bool {
        self.store.is_err() && self.fixed.is_none()
    }

    /// The file of patterns that it is, if it is one.
    pub(super) fn list_of_patterns(&self, main: &Settings) -> Option<PathBuf> {
        let (kind, path) = unproxied(&self.spelt).split_once(':')?;
        // Daemons look for what has no absolute path in their queue directory.
        ["regexp", "pcre", "cidr"].contains(&kind).then(|| Path::new(main.get("queue_directory")).join(path))
    }

    /// Finds the lines of main.cf or master.cf that its entries stand on, where it is written out there.
    pub(super) fn find_lines(&mut self) {
        let (file, service) = &self.named_in;
        let Some(table) = self.fixed.take() else { return };
        let text = fs::read(file).map(Zeroizing::new).unwrap_or_default();
        let text = Zeroizing::new(String::from_utf8_lossy(&text).into_owned());
        let lines = lines_of(&text, service.as_deref(), PASSWORD_MAPS);
        let lines = lines_of_keys(&lines, table.entries().map(|entry| entry.key.into_owned()));
        self.fixed = Some(table.on_lines(&lines));
    }

    /// Has it one of these names?
    pub(super) fn is_among(&self, names: &[String]) -> bool {
        names.contains(&self.spelt)
    }

    /// What stands in it under a key, where it is written out.
    fn answer(&self, table: &Table, key: &str) -> Answer {
        let entry = if self.is_static { (!table.is_empty()).then(|| table.entry(0)) } else { None };
        match entry.or_else(|| table.get_folded(key).map(|(_, entry)| entry)) {
            Some(entry) => entry.login().map_or(Answer::NoLogin, Answer::Login),
            None => Answer::Nothing,
        }
    }
}

/// The lines that a table would have with the entries of `inline:`. Of several with one key the last is found there, and the first in
/// a table of lines.
fn inline_text(entries: &str) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(2 * entries.len() + 2));
    for entry in words(entries).into_iter().rev() {
        if let Some((key, value)) = in_braces(entry).unwrap_or(entry).split_once('=') {
            [key.trim(), " ", value.trim(), "\n"].iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
        }
    }
    text
}

/// `{…}` without the braces.
pub(super) fn in_braces(text: &str) -> Option<&str> {
    text.trim().strip_prefix('{')?.strip_suffix('}').map(str::trim)
}

/// The login tables of a mail server.
pub(super) struct LoginMaps {
    /// Each once, as they are named first.
    pub(super) all: Vec<LoginMap>,
    /// For each service, by their numbers, in the order in which they are asked.
    pub(super) of_services: Vec<Vec<usize>>,
}

impl LoginMaps {
    /// Those of all client services, and of main.cf.
    pub(super) fn of(setup: &Setup) -> Self {
        let mut maps = Self { all: Vec::new(), of_services: Vec::new() };
        for service in &setup.services {
            let numbers: Vec<usize> =
                service.tables().into_iter().map(|spelt| maps.number(NamedIn::service(service), spelt)).collect();
            if service.logs_in() {
                numbers.iter().for_each(|number| maps.all[*number].is_split_by(service));
            }
            maps.of_services.push(numbers);
        }
        let of_main = setup.main.list(PASSWORD_MAPS).into_iter();
        let of_main = of_main.map(|spelt| maps.number(NamedIn::main_cf(&setup.main), spelt)).collect();
        maps.point_to_stores_beside(of_main);
        maps
    }

    /// Where a service has a table that we can write beside one that we cannot, it needs no other.
    fn point_to_stores_beside(&mut self, of_main: Vec<usize>) {
        for number in 0..self.all.len() {
            let lists = self.of_services.iter().chain([&of_main]).filter(|list| list.contains(&number));
            let store = lists.flatten().find_map(|beside| self.all[*beside].store.as_ref().ok()).map(Store::id);
            if let LoginMap { is_refused: true, store: Err(problem), .. } = &mut self.all[number]
                && let Some(id) = store
            {
                problem.finding.fix = WritableTable::Named(id).fix();
            }
        }
    }

    fn number(&mut self, named: NamedIn<'_>, spelt: &str) -> usize {
        if let Some(number) = self.all.iter().position(|map| map.spelt == spelt) {
            return number;
        }
        let mut map = LoginMap::of(named, spelt);
        // By two paths, as through a link to its directory; or asked of proxymap(8) by one of them.
        if let Some(number) = self.all.iter().position(|known| known.is_same_file(&map)) {
            // What proxymap(8) needs of it is right for smtp(8), too, which opens it as root.
            if map.is_proxied() && !self.all[number].is_proxied() {
                self.all[number] = map;
            }
            return number;
        }
        if let Some(number) = self.all.iter().position(|known| known.id == map.id) {
            // One path, spelt in two ways.
            if self.all[number].store.is_ok() && map.store.is_ok() {
                return number;
            }
            // Two that are not shown.
            map.id = TableId::new(format!("{} ({})", map.id, self.all.len() + 1));
        }
        self.all.push(map);
        self.all.len() - 1
    }

    /// The one of that name.
    pub(super) fn get(&self, id: &TableId) -> Option<&LoginMap> {
        self.all.iter().find(|map| map.id == *id)
    }

    /// Those that we can write, with their numbers.
    pub(super) fn stores(&self) -> impl Iterator<Item = (usize, &Store)> {
        self.all.iter().enumerate().filter_map(|(number, map)| Some((number, map.store.as_ref().ok()?)))
    }
}

/// A login table with a text that we may write.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) kind: Kind,
    /// `type:path`, without `proxy:`.
    pub(super) name: String,
    /// proxymap(8) opens it, as Postfix's own user.
    pub(super) is_proxied: bool,
    /// Between user name and password.
    pub(super) delimiter: Delimiter,
    /// As configured.
    pub(super) path: PathBuf,
    /// The text, symbolic links resolved. It need not exist.
    pub(super) text: PathBuf,
    /// The compiled map (beside the configured name), links resolved. `None`: Postfix reads the text.
    pub(super) map: Option<PathBuf>,
}

impl Store {
    /// Text and compiled map under their configured names, and where symbolic links lead.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let beside = self.kind.extension().map(|extension| {
            let mut name = self.path.clone().into_os_string();
            name.push(".");
            name.push(extension);
            PathBuf::from(name)
        });
        let mut files = vec![self.path.clone(), self.text.clone()];
        files.extend(beside);
        files.extend(self.map.clone());
        files.sort();
        files.dedup();
        files
    }

    /// The command that makes the text anew from its map, with the owner and the mode that the map has, but for nobody else to
    /// read. `None`: `postmap` cannot list a map of this kind. `option`: `-c DIR`, where it is needed.
    pub(super) fn text_from_map(&self, map: &Path, option: &str) -> Option<String> {
        let found = fs::metadata(map).ok().filter(|_| self.kind != Kind::Cdb)?;
        let text = quoted(&self.text.display().to_string());
        let new = quoted(&format!("{}.new", self.text.display()));
        Some(format!(
            "(umask 077; postmap -s{option} {} > {new} && chown {}:{} {new} && chmod {:04o} {new} && mv {new} {text})",
            quoted(&self.name),
            found.uid(),
            found.gid(),
            found.mode() & 0o640 | 0o400
        ))
    }

    /// The table that is spelt so.
    pub(super) fn of(named: NamedIn<'_>, map: &str) -> Result<Self, Box<Problem>> {
        let settings = named.settings;
        let refuse = |class, what: String, fix: String| Box::new(Problem::error(class, Some(named.file()), what, fix));
        let typed = |map: &str| {
            let (kind, path) = map.split_once(':').filter(|(kind, _)| !kind.contains(['/', '{']))?;
            Some((kind.to_owned(), path.to_owned()))
        };
        let Some((kind, path)) = typed(map) else {
            return Err(refuse(
                Class::Config,
                format!(
                    "smtp_sasl_password_maps names {} without a type: smtp(8) ends as it starts (\"fatal: open dictionary: expecting \
                     \"type:name\" form\"), and all mail waits in the queue",
                    shown::table(map)
                ),
                format!(
                    "write the type in front of it, as in {}:{}",
                    settings.get("default_database_type"),
                    shown::table(map)
                ),
            ));
        };
        let inner = if kind == "proxy" { typed(unproxied(&path)) } else { None };
        let inner = inner.filter(|(kind, _)| Kind::new(kind).is_some());
        let is_proxied = inner.is_some();
        let (kind, path) = inner.unwrap_or((kind, path));
        let Some(kind) = Kind::new(&kind) else {
            return Err(refuse(Class::Unsupported, refusal(map), named.own_table_in_front()));
        };
        // Daemons look for what has no absolute path in their queue directory; `postmap` looks where it is called.
        let path = Path::new(settings.get("queue_directory")).join(path);
        let map = settings.redirected(kind).extension().map(|ext| resolve(&with_extension(&path, ext))).transpose()?;
        let name = format!("{}:{}", kind.name(), path.display());
        let delimiter = settings.delimiter().unwrap_or_default();
        Ok(Self { kind, name, is_proxied, delimiter, text: resolve(&path)?, map, path })
    }

    /// Does Postfix go on with what it has read until it is reloaded?
    pub(super) fn needs_reload(&self) -> bool {
        self.map.is_none() || self.is_proxied
    }

    pub(super) fn id(&self) -> TableId {
        TableId::new(format!("{}{}", if self.is_proxied { "proxy:" } else { "" }, self.name))
    }

    /// The file that smtp(8) opens.
    pub(super) fn read_by_postfix(&self) -> &Path {
        self.map.as_deref().unwrap_or(&self.text)
    }
}

/// `path.ext`, whatever the path ends with.
pub(super) fn with_extension(path: &Path, ext: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ext);
    name.into()
}

/// The name behind all symbolic links, also where the last component does not exist yet.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Box<Problem>> {
    let found = match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                return Err(Box::new(Problem::error(
                    Class::Config,
                    Some(path.to_owned()),
                    "it is a symbolic link to a file that does not exist".into(),
                    "make the file it points to, or remove the link".into(),
                )));
            }
            let parent = path.parent().unwrap_or(path);
            fs::canonicalize(parent).map(|parent| parent.join(path.file_name().unwrap_or_default()))
        }
        other => other,
    };
    found.map_err(|e| {
        let what = format!("its directory cannot be opened: {e}");
        Box::new(Problem::error(Class::Io, Some(path.to_owned()), what, "make the directory, readable for root".into()))
    })
}

/// What Postfix finds under a key that was asked for.
pub(super) fn answer(found: &HashMap<String, Login>, odd: &HashSet<String>, key: &String) -> Answer {
    match found.get(key) {
        Some(login) => Answer::Login(login.clone()),
        None if odd.contains(key) => Answer::NoLogin,
        None => Answer::Nothing,
    }
}

/// How a program ended that said nothing. A limit of sizes or of memory, or whoever kills it, leaves it no time to.
fn without_words(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!(
            "signal {signal} ended it (kill -l {signal} names it; one of a limit comes from `ulimit` or the unit)"
        ),
        None => "it gave no reason".into(),
    }
}

/// The lines with which Postfix's programs give up, without what they quote. Their warnings are left out: both quote
/// lines of tables, and of whatever file a parameter names.
pub(super) fn gave_up(stderr: &str) -> String {
    let gives_up = |line: &&str| [": fatal: ", ": error: ", ": panic: "].iter().any(|severity| line.contains(severity));
    let unquoted = |line: &str| match (line.find('"'), line.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}\"…{}", &line[..first], &line[last..]),
        (Some(first), _) => format!("{}\"…", &line[..first]),
        _ => line.to_owned(),
    };
    let said = |line: &str| crate::text::line(&unquoted(&without_values(line))).into_owned();
    stderr.lines().filter(gives_up).map(said).collect::<Vec<_>>().join(" | ")
}

/// A line of one of Postfix's programs without the value of a parameter that it is about: it is whatever somebody wrote
/// into main.cf.
pub(super) fn without_values(line: &str) -> Cow<'_, str> {
    if let (Some(first), Some(last)) = (line.find(" value '"), line.rfind('\''))
        && first + " value '".len() <= last
    {
        return format!("{} value '…{}", &line[..first], &line[last..]).into();
    }
    let about = line.find(" configuration: ").or_else(|| line.find(": bad string length "));
    match about.and_then(|at| Some(at + line[at..].find(" = ")?)) {
        Some(equals) => format!("{} = …", &line[..equals]).into(),
        None => line.into(),
    }
}

/// The library of a table type that dynamicmaps.cf names and that is not there, after the file that names it.
pub(super) fn plugin_that_is_missing(settings: &Settings, kind: &str) -> Option<(PathBuf, PathBuf)> {
    let meta = Path::new(settings.get("meta_directory"));
    let more =
        std::fs::read_dir(meta.join("dynamicmaps.cf.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = std::iter::once(meta.join("dynamicmaps.cf")).chain(more);
    let mut named = Vec::new();
    for file in files.filter(|file| file.is_file()) {
        let Ok((bytes, _)) = host::read(&file, table::MAX_TABLE) else { continue };
        for line in String::from_utf8_lossy(&bytes).lines() {
            let mut words = line.split_ascii_whitespace();
            // A library without a directory is one of shlib_directory's.
            if let (Some(of), Some(library)) = (words.next(), words.next())
                && of == kind
            {
                named.push((file.clone(), Path::new(settings.get("shlib_directory")).join(library)));
            }
        }
    }
    let is_there = named.iter().any(|(_, library)| library.exists());
    named.into_iter().find(|_| !is_there)
}

/// What to do where `postmap` made no map, by what the operating system told it; in the C locale, which every command gets.
pub(super) fn made_no_map(stderr: &str, staged_text: &Path) -> String {
    let place = staged_text.parent().unwrap_or(staged_text);
    let directory = place.display();
    let says = |reasons: &[&str]| reasons.iter().any(|reason| stderr.contains(reason));
    let what = if says(&["No space left on device", "Disk quota exceeded"]) {
        host::make_room(place)
    } else if says(&["File too large"]) {
        "raise the limit of file sizes under which relaykey runs (`ulimit -f`; in a unit LimitFSIZE=)".into()
    } else if says(&["Operation not permitted", "Permission denied"]) {
        format!(
            "look at `lsattr -d {directory}` (chattr -a and chattr -i take the flags off that keep files from being replaced) and, \
             with SELinux, at `ausearch -m avc -ts recent`"
        )
    } else if says(&["Read-only file system"]) {
        format!("mount it writable; under systemd the directory must be in ReadWritePaths=: {directory}")
    } else {
        "see what postmap names".into()
    };
    format!("{what}; it is tried again")
}

/// What it means that `postmap` took too long over a table: Postfix's programs wait for whoever has locked the map, which
/// anybody can who may read it.
pub(super) fn waited_for(e: host::HostError, settings: &Settings, kind: Kind, path: &Path) -> Fault {
    let map = settings.redirected(kind).extension().map_or_else(|| path.to_owned(), |ext| with_extension(path, ext));
    let holder = match &e {
        host::HostError::TimedOut { .. } => host::holder(&map),
        _ => None,
    };
    let Some(holder) = holder else { return e.into() };
    Fault::new(Class::LockHeld, format!("{e}: {} is locked by {holder}", map.display()), format!(
            "`ps -o pid,user,args -p {}` shows whose process that is; have it ended, or wait until it is done; whoever may read the \
             map can lock it; so that no local user can: chmod o-r {}",
            holder.pid,
            quoted(&map)
        )).temporary().in_file(map)
}

/// The state of a file that is read; `None`: there is none.
pub(super) fn look(path: &Path) -> Result<Option<host::FileId>, Fault> {
    let (directory, name) = host::Directory::of(path)?;
    Ok(directory.look(&name)?)
}

/// The state of a map that is about to be replaced; its bytes are of no interest. `None`: there is none.
pub(super) fn identify(path: &Path) -> Result<Option<host::FileId>, Fault> {
    let (directory, name) = host::Directory::of(path)?;
    Ok(directory.look_replaceable(&name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_a_signal_ended_is_not_said_to_have_given_no_reason() {
        assert!(without_words(ExitStatus::from_raw(25)).starts_with("signal 25 ended it"));
        assert_eq!(without_words(ExitStatus::from_raw(1 << 8)), "it gave no reason");
    }

    fn settings(text: &str) -> Settings {
        Settings::parse(&format!("config_directory = /etc/postfix\nqueue_directory = /var/empty-queue\n{text}"))
    }

    fn setup(main: &str, services: &[(&str, &str)]) -> Setup {
        let main = settings(main);
        let service = |(name, own): &(&str, &str)| {
            let mut settings = main.clone();
            settings.0.extend(Settings::parse(own).0);
            Service { name: (*name).to_owned(), settings, overridden: Default::default() }
        };
        Setup { services: services.iter().map(service).collect(), main, ..Setup::default() }
    }

    #[test]
    fn a_table_without_an_absolute_path_is_in_the_queue_directory() {
        // Directories that are there.
        let main = settings("queue_directory = /usr");
        for (spelt, id, text) in [
            ("hash:bin/no-table", "hash:/usr/bin/no-table", "/usr/bin/no-table"),
            ("proxy:proxy:lmdb:no-table", "proxy:lmdb:/usr/no-table", "/usr/no-table"),
            ("texthash:/no-table", "texthash:/no-table", "/no-table"),
        ] {
            let store = Store::of(NamedIn::main_cf(&main), spelt).map_err(|problem| problem.finding.what).unwrap();
            let text = fs::canonicalize("/usr").unwrap().join(text.strip_prefix("/usr/").unwrap_or(text));
            let parent = fs::canonicalize(text.parent().unwrap()).unwrap();
            assert_eq!((store.id().as_str(), store.text.parent().unwrap()), (id, parent.as_path()), "{spelt}");
        }
        // One path spelt in two ways is one table.
        let maps = LoginMaps::of(&setup(
            "queue_directory = /usr\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/usr/t hash:t",
            &[("smtp", "")],
        ));
        assert_eq!((maps.all.len(), maps.of_services), (1, vec![vec![0, 0]]));
    }

    #[test]
    fn a_table_by_two_paths_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
        for (second, tables) in [("hash:LINK/t", 1), ("lmdb:LINK/t", 2), ("proxy:hash:LINK/t", 1), ("hash:LINK/u", 2)] {
            let second = second.replace("LINK", &at("link"));
            let main = format!("smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:{} {second}", at("real/t"));
            let maps = LoginMaps::of(&setup(&main, &[("smtp", "")]));
            assert_eq!(maps.all.len(), tables, "{second}");
        }
    }

    #[test]
    fn a_table_by_proxymap_and_without_it_is_one() {
        for (first, second) in [("proxy:hash:/t", "hash:/t"), ("hash:/t", "proxy:hash:/t")] {
            let main = format!("smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = {first}\n");
            let bulk = format!("smtp_sasl_password_maps = {second} hash:/other");
            let maps = LoginMaps::of(&setup(&main, &[("smtp", ""), ("bulk", &bulk)]));
            let ids: Vec<&str> = maps.all.iter().map(|map| map.id.as_str()).collect();
            assert_eq!((ids, maps.of_services), (vec!["proxy:hash:/t", "hash:/other"], vec![vec![0], vec![0, 1]]));
        }
    }

    #[test]
    fn the_delimiter_is_the_one_of_the_services_that_ask_the_table() {
        let of = |main: &str, services: &[(&str, &str)]| {
            let main = format!("smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/t\n{main}");
            let maps = LoginMaps::of(&setup(&main, services));
            maps.all
                .into_iter()
                .next()
                .unwrap()
                .store
                .map(|store| store.delimiter.to_string())
                .map_err(|p| p.finding.what)
        };
        const SET: &str = "smtp_sasl_password_result_delimiter = ";
        let set = |text: &str| format!("{SET}{text}\n");
        // A Postfix that does not know the setting does not say it.
        assert_eq!(of("", &[("smtp", "")]).as_deref(), Ok(":"));
        assert_eq!(of(&set("|"), &[("smtp", "")]).as_deref(), Ok("|"));
        assert_eq!(of(&set("|"), &[("smtp", &set(";")), ("relay", &set(";"))]).as_deref(), Ok(";"));
        // Who does not log in splits nothing.
        let off = format!("{}smtp_sasl_auth_enable = no\n", set("|"));
        assert_eq!(of("", &[("smtp", ""), ("relay", &off)]).as_deref(), Ok(":"));
        assert!(
            of("", &[("smtp", ""), ("relay", &set("|"))]).unwrap_err().contains("of the service relay is another one")
        );
        for text in ["", "::"] {
            assert!(of(&set(text), &[("smtp", "")]).unwrap_err().contains("is not one character"), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_listed_may_be_vouched_for() {
        let main = "smtp_sasl_password_maps = hash:/t proxy:mysql:/m.cf inline:{ {a=b:c} }";
        let maps = LoginMaps::of(&setup(main, &[]));
        let vouched = ["proxy:mysql:/m.cf".to_owned(), "hash:/t".to_owned()];
        let found: Vec<(bool, bool)> = maps.all.iter().map(|m| (m.is_unlisted(), m.is_among(&vouched))).collect();
        assert_eq!(found, [(false, true), (true, true), (false, false)]);
    }

    #[test]
    fn of_equal_keys_of_inline_the_last_counts() {
        let table = Table::of(inline_text("{ a = x:1 } b=y:2, { A = z:3 }")).unwrap();
        let found = ["a", "b"].map(|key| table.get_folded(key).unwrap().1.value().unwrap().to_owned());
        assert_eq!(found, ["z:3", "y:2"]);
    }

    #[test]
    fn last_words_quote_nothing() {
        for (stderr, expected) in [
            ("", ""),
            ("postmap: warning: t, line 4: unbalanced '\"' in '\"k user:password' -- ignoring this line\n", ""),
            (
                "postconf: fatal: t, line 1: missing '=' after attribute name: \"k user:password\"\n",
                "postconf: fatal: t, line 1: missing '=' after attribute name: \"…\"",
            ),
            ("a: warning: x\nb: fatal: \"password\nc: error: plain\n", "b: fatal: \"… | c: error: plain"),
            (
                "postmap: fatal: maillog_file value 'pass'word' does not match any prefix in maillog_file_prefixes\n",
                "postmap: fatal: maillog_file value '…' does not match any prefix in maillog_file_prefixes",
            ),
            (
                "postmap: fatal: bad boolean configuration: smtp_sasl_auth_enable = pass word\n",
                "postmap: fatal: bad boolean configuration: smtp_sasl_auth_enable = …",
            ),
            (
                "postmap: fatal: bad string length 8 > 1: mail_name = password\n",
                "postmap: fatal: bad string length 8 > 1: mail_name = …",
            ),
        ] {
            assert_eq!(gave_up(stderr), expected);
        }
    }
}
