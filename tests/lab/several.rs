//! A mail server that is nothing but its login tables: several of them, compiled by the real `postmap`, and client services that
//! ask them each in an order of their own. For what apply does with a plan of several tables.

#[cfg(feature = "crash-at")]
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use relaykey::credential::Login;
use relaykey::fault::{Class, Fault};
use relaykey::host::{self, Directory, FileId};
use relaykey::mta::by_hand::{self, Task};
use relaykey::mta::table::{Change, Table, same_key};
use relaykey::mta::{
    Answer, Beneath, ByHand, Content, KeyIds, LeftOut, LiveKey, Logins, Mta, Ours, OwnEntry, Plan, PlannedFile,
    Running, ServicePlan, ServiceView, TableId, TablePlan, View, WantedKey,
};
use serde::{Deserialize, Serialize};

/// The tables, and who asks them for what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Several {
    /// Of a Postfix whose programs are used.
    pub config_dir: PathBuf,
    pub tables: Vec<LoginTable>,
    pub services: Vec<Service>,
    /// Keys for the relay's second endpoint; all others are for the first.
    #[serde(default)]
    pub further: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoginTable {
    /// `hash`, `lmdb`, `cdb`, `texthash`.
    pub kind: String,
    pub path: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    /// Which tables, in the order in which they are asked.
    pub tables: Vec<usize>,
    /// Its live keys.
    pub keys: Vec<String>,
}

impl LoginTable {
    pub fn id(&self) -> TableId {
        TableId::new(format!("{}:{}", self.kind, self.path.display()))
    }

    /// The compiled map; `None`: the text is read.
    pub fn map(&self) -> Option<PathBuf> {
        let extension = match self.kind.as_str() {
            "hash" => "db",
            "texthash" => return None,
            other => other,
        };
        Some(PathBuf::from(format!("{}.{extension}", self.path.display())))
    }

    /// Text and map.
    pub fn files(&self) -> Vec<PathBuf> {
        std::iter::once(self.path.clone()).chain(self.map()).collect()
    }

    fn read(&self) -> Table {
        Table::parse(&fs::read(&self.path).unwrap_or_default()).expect("a table")
    }
}

impl Several {
    /// Writes a text (0640), and compiles it.
    pub fn write(&self, table: usize, text: &str) {
        let LoginTable { path, .. } = &self.tables[table];
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        super::postfix::cool_down(path);
        self.postmap(table);
    }

    /// Compiles a text.
    pub fn postmap(&self, table: usize) {
        let table = &self.tables[table];
        if table.map().is_some() {
            let done =
                Command::new("/usr/sbin/postmap").arg("-c").arg(&self.config_dir).arg(table.id().as_str()).status();
            assert!(done.unwrap().success());
        }
    }

    /// What a table gives for a key, as it is now.
    pub fn find(&self, table: usize, key: &str) -> String {
        self.find_all(table, &[key.to_owned()]).remove(0).unwrap_or_default()
    }

    /// The same for several keys, asked for at once.
    pub fn find_all(&self, table: usize, keys: &[String]) -> Vec<Option<String>> {
        self.query(&self.tables[table].kind, &self.tables[table].path, keys)
    }

    /// Every user name that any text or map holds.
    #[cfg(feature = "crash-at")]
    pub fn usernames(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (n, table) in self.tables.iter().enumerate() {
            let table = table.read();
            let keys: Vec<String> = table.entries().map(|entry| entry.key.to_string()).collect();
            let values = table.entries().map(|entry| entry.value().unwrap().to_owned());
            let values = values.chain(self.find_all(n, &keys).into_iter().flatten());
            found.extend(values.filter_map(|value| Some(value.split_once(':')?.0.to_owned())));
        }
        found
    }

    fn query(&self, kind: &str, path: &Path, keys: &[String]) -> Vec<Option<String>> {
        let mut argv: Vec<OsString> = vec!["/usr/sbin/postmap".into(), "-c".into(), self.config_dir.clone().into()];
        argv.extend(["-q".into(), "-".into(), format!("{kind}:{}", path.display()).into()]);
        let lines: String = keys.iter().flat_map(|key| [key.as_str(), "\n"]).collect();
        let said = host::run(&argv, Some(lines.as_bytes()), Duration::from_secs(30)).expect("postmap runs");
        let said = String::from_utf8(said.stdout.to_vec()).unwrap();
        let mut answers = said.lines().peekable();
        let answer = |key: &String| {
            let found = answers.peek()?.strip_prefix(key.as_str())?.strip_prefix('\t')?.to_owned();
            answers.next();
            Some(found)
        };
        keys.iter().map(answer).collect()
    }

    fn of(&self, id: &TableId) -> &LoginTable {
        self.tables.iter().find(|table| table.id() == *id).expect("one of them")
    }

    fn answers(&self, id: &TableId, staged: Option<&Path>, keys: &[String]) -> Vec<Answer> {
        let table = self.of(id);
        let answer = |found: Option<String>| match found {
            None => Answer::Nothing,
            Some(value) => Login::from_pair(&value).map_or(Answer::NoLogin, Answer::Login),
        };
        self.query(&table.kind, staged.unwrap_or(&table.path), keys).into_iter().map(answer).collect()
    }

    fn live_key(&self, service: &Service, key: &str) -> LiveKey {
        for id in service.tables.iter().map(|n| self.tables[*n].id()) {
            let answer = self.answers(&id, None, &[key.to_owned()]).remove(0);
            if answer != Answer::Nothing {
                return LiveKey { key: key.into(), answer, table: Some(id), endpoint: self.endpoint_of(key) };
            }
        }
        LiveKey { key: key.into(), answer: Answer::Nothing, table: None, endpoint: self.endpoint_of(key) }
    }

    fn endpoint_of(&self, key: &str) -> usize {
        usize::from(self.further.iter().any(|further| same_key(further, key)))
    }

    fn wanted(&self, key: &str) -> WantedKey {
        WantedKey { key: key.to_owned(), endpoint: self.endpoint_of(key) }
    }

    fn is_live_key(&self, table: usize, key: &str) -> bool {
        let asks = |service: &&Service| service.tables.contains(&table);
        self.services.iter().filter(asks).flat_map(|service| &service.keys).any(|live| same_key(live, key))
    }

    /// The entries of ours, by number.
    fn owned(ours: &Ours, candidate: Option<&str>, table: &Table) -> Vec<usize> {
        let is_ours = |user: &str| ours.knows(user) || candidate == Some(user);
        let owned = table.entries().enumerate().filter(|(_, entry)| entry.username().is_some_and(is_ours));
        owned.map(|(at, _)| at).collect()
    }

    /// What a table gives for each entry of its text.
    fn live_logins(&self, table: usize, text: &Table) -> Vec<Option<Login>> {
        let keys: Vec<String> = text.entries().map(|entry| entry.key.to_string()).collect();
        let found = self.find_all(table, &keys).into_iter();
        found.map(|value| value.and_then(|value| Login::from_pair(&value).ok())).collect()
    }

    /// What the tables give, and their files.
    fn beneath(&self, ours: &Ours, candidate: Option<&str>) -> Beneath {
        let mut entries = Vec::new();
        for (n, login_table) in self.tables.iter().enumerate() {
            let (id, text) = (login_table.id(), login_table.read());
            let owned = Self::owned(ours, candidate, &text);
            for ((at, entry), live) in text.entries().enumerate().zip(self.live_logins(n, &text)) {
                if owned.contains(&at) {
                    let (key, line, table, text) = (entry.key.to_string(), Some(entry.line), id.clone(), entry.login());
                    let (is_live_key, endpoint) = (self.is_live_key(n, &entry.key), self.endpoint_of(&key));
                    let file = login_table.path.clone();
                    entries.push(OwnEntry { key, table, file, line, text, live, is_live_key, endpoint });
                }
            }
        }
        entries.sort_by_key(|entry| !entry.is_live_key);
        let services = self.services.iter().map(|service| ServiceView {
            service: service.name.clone(),
            tables: self.service_tables(service),
            keys: service.keys.iter().map(|key| self.live_key(service, key)).collect(),
        });
        let services = services.collect();
        Beneath { services, entries, files: self.tables.iter().flat_map(LoginTable::files).collect() }
    }

    fn service_tables(&self, service: &Service) -> Vec<TableId> {
        service.tables.iter().map(|n| self.tables[*n].id()).collect()
    }
}

/// Which file is there now.
fn look(path: &Path) -> Result<Option<FileId>, Fault> {
    let (directory, name) = Directory::of(path)?;
    Ok(directory.look(&name)?)
}

impl Mta for Several {
    fn inspect(&self, ours: &Ours) -> Result<View, Fault> {
        let (mut key_ids, mut left_out) = (KeyIds::default(), Vec::new());
        for (n, login_table) in self.tables.iter().enumerate() {
            let (id, table) = (login_table.id(), login_table.read());
            let owned = Self::owned(ours, None, &table);
            for ((at, entry), live) in table.entries().enumerate().zip(self.live_logins(n, &table)) {
                let user = entry.username().unwrap_or_default();
                key_ids.add(user, &id, Some(entry.line), &entry.key);
                if let Some(live) = live.as_ref().filter(|live| live.username != user) {
                    key_ids.add(&live.username, &id, None, &entry.key);
                }
                if !owned.contains(&at) && ours.earlier.iter().any(|earlier| earlier == user) {
                    let (key, username) = (entry.key.to_string(), Some(user.to_owned()));
                    left_out.push(LeftOut { key, username, own: None, was_found: false });
                }
            }
        }
        let Beneath { services, entries, files } = self.beneath(ours, None);
        Ok(View {
            services,
            endpoints: (0..=usize::from(!self.further.is_empty())).collect(),
            entries,
            missing: Vec::new(),
            running: self.running()?,
            findings: Vec::new(),
            stopped: None,
            doubts: Vec::new(),
            beside: Vec::new(),
            left_out,
            unreadable: Vec::new(),
            key_ids,
            incomplete: vec!["proxy:mysql:/elsewhere.cf".into()],
            asks_for_proof: false,
            files,
            log: None,
        })
    }

    fn plan(&self, ours: &Ours, logins: &Logins) -> Result<Plan, Fault> {
        if self.config_dir.join("no-plans").exists() {
            return Err(Fault::new(Class::Config, "there is a file no-plans", "remove it"));
        }
        let beneath = self.beneath(ours, Some(logins.username()));
        let mut tables: Vec<TablePlan> = Vec::new();
        let mut reload_needed = false;
        for login_table in &self.tables {
            let seen = look(&login_table.path)?;
            let (id, table) = (login_table.id(), login_table.read());
            let owned = Self::owned(ours, Some(logins.username()), &table);
            let lookups: Vec<WantedKey> = owned.iter().map(|at| self.wanted(&table.entry(*at).key)).collect();
            let login_at = |at: usize| logins.at(self.endpoint_of(&table.entry(at).key)).expect("each has one");
            let to_change = |at: &&usize| table.entry(**at).login().as_ref() != Some(login_at(**at));
            let changes: Vec<_> =
                owned.iter().filter(to_change).map(|at| Change::Replace { entry: *at, login: login_at(*at) }).collect();
            let keys: Vec<String> = lookups.iter().map(|wanted| wanted.key.clone()).collect();
            let is_stale = || {
                let answers = self.answers(&id, None, &keys);
                answers.iter().zip(&lookups).any(|(answer, wanted)| answer.login() != logins.at(wanted.endpoint))
            };
            let is_planned = |table: &TablePlan| table.text.as_ref().is_some_and(|file| file.path == login_table.path);
            let is_written = tables.iter().any(is_planned);
            let text = match changes.is_empty() || is_written {
                true => None,
                false => {
                    let content = Content::Bytes(table.render(&changes)?);
                    Some(PlannedFile { path: login_table.path.clone(), seen, content })
                }
            };
            let map = match login_table.map() {
                Some(path) if text.is_some() || is_written || is_stale() => {
                    let seen = seen.filter(|_| text.is_none() && !is_written);
                    let content = Content::Compiled { text: login_table.path.clone(), seen };
                    Some(PlannedFile { seen: look(&path)?, path, content })
                }
                _ => None,
            };
            reload_needed |= text.is_some() && login_table.map().is_none();
            tables.push(TablePlan { id, text, map, lookups, group: None });
        }
        let services = self.services.iter().map(|service| ServicePlan {
            service: service.name.clone(),
            tables: self.service_tables(service),
            keys: service.keys.iter().map(|key| self.wanted(key)).collect(),
        });
        let (services, diff) = (services.collect(), vec!["changes".into()]);
        Ok(Plan { tables, services, reload_needed, diff, goes_live: None, beneath })
    }

    fn by_hand(&self, ours: &Ours, logins: &Logins) -> Result<ByHand, Fault> {
        let read: Vec<Table> = self.tables.iter().map(LoginTable::read).collect();
        let tasks: Vec<Task<'_>> = (self.tables.iter().zip(&read))
            .map(|(login_table, table)| Task {
                file: &login_table.path,
                exists: true,
                group: None,
                table,
                ours,
                logins,
                entries: Self::owned(ours, Some(logins.username()), table).into_iter().map(|at| (at, 0)).collect(),
                missing: Vec::new(),
                regions: Vec::new(),
                hops: Vec::new(),
                map: None,
                restart: None,
            })
            .collect();
        Ok(by_hand::explain(&tasks))
    }

    fn compile(&self, table: &TableId, staged_text: &Path) -> Result<PathBuf, Fault> {
        let kind = &self.of(table).kind;
        let mut argv: Vec<OsString> = vec!["/usr/sbin/postmap".into(), "-c".into(), self.config_dir.clone().into()];
        argv.push(format!("{kind}:{}", staged_text.display()).into());
        host::run_mutating(&argv, None, Duration::from_secs(30))?;
        Ok(LoginTable { kind: kind.clone(), path: staged_text.into() }.map().expect("it is compiled"))
    }

    fn compare(&self, _table: &TableId, _staged_text: &Path) -> Result<(), Fault> {
        Ok(())
    }

    fn live_map(&self, table: &TableId, _made: &Path) -> Result<PathBuf, Fault> {
        Ok(self.of(table).map().expect("it is compiled"))
    }

    fn left(&self, _files: &[(PathBuf, FileId)]) {}

    fn lookup(&self, table: &TableId, staged_text: Option<&Path>, keys: &[String]) -> Result<Vec<Answer>, Fault> {
        Ok(self.answers(table, staged_text, keys))
    }

    /// Since the machine was started: it has not read what is changed now.
    fn running(&self) -> Result<Running, Fault> {
        Ok(Running::Yes { since_boot: 0 })
    }

    fn activate(&self) -> Result<(), Fault> {
        Ok(())
    }
}
