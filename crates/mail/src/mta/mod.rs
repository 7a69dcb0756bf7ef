//! Mail servers: what they will really use, which entries of it are ours, and how a change of them becomes theirs.
//!
//! An [`Mta`] reads and plans; it writes only what [`Mta::compile`] and [`Mta::activate`] say. Swapping files in is
//! the same for all of them and lives in `apply`, on top of `host`. No network, no AWS, no run time here.

pub mod alias;
pub mod by_hand;
pub mod cdb;
pub mod compare;
pub mod key_ids;
pub mod logins;
pub mod postfix;
pub mod shown;
pub mod table;
pub mod text;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use crate::credential::RegionalLogin;
use crate::credential::{self, LocalKey, Login, ses_password_form};
use crate::fault::Fault;
use crate::finding::Finding;
use crate::host;
pub use by_hand::ByHand;
pub use key_ids::KeyIds;
pub use logins::{Logins, NamedLogin};

/// What is known of this credential's logins, those in use and those before: by it, and by where mail goes, is decided which
/// entries are ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ours {
    /// User name (access key id) of the applied version, from state. `None` without state: then it is the user name
    /// under the first live key.
    pub applied: Option<String>,
    /// User name of the version before, from state: an entry that still holds it under a key of ours is `remaining_old`.
    pub previous: Option<String>,
    /// User names of versions that a run put in place without committing them, or is about to: after a crash the table
    /// holds them, and they are nobody else's.
    pub known: Vec<String>,
    /// User names of all earlier versions, from state: entries that hold one of them are not ours to write by that, and are
    /// [`View::left_out`].
    pub earlier: Vec<String>,
    /// Access key ids of earlier versions, as the source names them to a host without state. `apply` takes them for `known` as
    /// long as it remembers none of its own, and looks at them no more afterwards.
    pub named: Vec<String>,
    /// The logins of these versions at the endpoints, as far as the source gives them. `apply` takes their live ids alone.
    pub named_logins: Vec<NamedLogin>,
    /// Those of `known` that `apply` alone remembers: whichever target of the credential was looked at then has shown them. Of none
    /// is the password known, and so no region: a line that names no endpoint is not written because of them.
    pub remembered: Vec<String>,
    /// Those of `known` that root has named as earlier ones. Nothing is known of their passwords either.
    pub named_by_root: Vec<String>,
    /// What tells a login of ours by its password, where its user name may be another relay's too.
    pub logins: KnownLogins,
    /// The login is ready-made: there is a password for the region of the default endpoint, and for no other.
    pub one_region: bool,
}

/// Live ids of the logins that this host knows as its own, and the key that they are made with.
#[derive(Debug, Clone, Default)]
pub struct KnownLogins {
    /// `None`: no login is told by it.
    pub key: Option<LocalKey>,
    /// Of the applied version, as it was read back. Empty: that is not known, and what stands under the live keys is taken
    /// for it.
    pub applied: Vec<String>,
    /// Of versions that were put in place and not confirmed, or are about to be, and of those that were confirmed before.
    pub others: Vec<String>,
    /// Of logins that were found in use here and were never of a version of ours: what still holds one is named, and nobody's to
    /// write by that.
    pub found: Vec<String>,
    /// Those that are known by their region too.
    pub regional: Vec<RegionalLogin>,
    /// Passwords of access key ids, each in a region: any other one of the same id is another region's.
    pub passwords: Vec<KnownPassword>,
}

/// The password that an access key id has in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPassword {
    /// The access key id.
    pub username: String,
    /// The login with it, and which region's it is.
    pub login: RegionalLogin,
    /// Is it that region's without a doubt? Else it is only said to be: that makes another one of the same id doubtful, and tells of
    /// no entry which region it is for.
    pub is_certain: bool,
}

impl KnownPassword {
    /// What is known by a login in a region; `None`: its user name is no access key id, and may have others there.
    pub fn of(login: &Login, at: RegionalLogin, is_certain: bool) -> Option<Self> {
        let is_one = credential::is_access_key_id(&login.username);
        is_one.then(|| Self { username: login.username.clone(), login: at, is_certain })
    }
}

/// The key is the host's, and always the same.
impl PartialEq for KnownLogins {
    fn eq(&self, other: &Self) -> bool {
        let own = (&self.applied, &self.others, &self.found, &self.regional, &self.passwords, self.key.is_some());
        own == (&other.applied, &other.others, &other.found, &other.regional, &other.passwords, other.key.is_some())
    }
}
impl Eq for KnownLogins {}

impl KnownLogins {
    /// Is the login one of them?
    fn knows(&self, login: &Login) -> bool {
        let id = self.key.as_ref().map(|key| key.live_id(login));
        id.is_some_and(|id| self.applied.contains(&id) || self.others.contains(&id))
    }

    /// Was the login found in use, and is none of ours?
    fn were_found(&self, login: &Login) -> bool {
        let Some(key) = self.key.as_ref().filter(|_| !self.found.is_empty()) else { return false };
        let id = key.live_id(login);
        self.found.contains(&id) && !self.applied.contains(&id) && !self.others.contains(&id)
    }

    /// Each of these is one of ours.
    pub fn know_regional(&mut self, logins: Vec<RegionalLogin>) {
        self.others.extend(logins.iter().map(|login| login.live_id.clone()));
        self.regional.extend(logins);
    }

    /// The SES region whose password it is, where that is known.
    pub fn region_of(&self, login: &Login) -> Option<&str> {
        let certain = || self.passwords.iter().filter(|known| known.is_certain);
        let all = || self.regional.iter().chain(certain().map(|known| &known.login));
        let id = self.key.as_ref().filter(|_| all().next().is_some())?.live_id(login);
        all().find(|known| known.live_id == id).map(|known| known.region.as_str())
    }

    /// Is it another password of its access key id than the one that is known, in this region or (`None`) in any? What has not the
    /// form of SES's passwords is no region's; and what was confirmed here was the endpoint's then.
    fn has_another(&self, login: &Login, region: Option<&str>) -> bool {
        let is_its = |known: &&KnownPassword| {
            known.username == login.username && region.is_none_or(|region| known.login.region == region)
        };
        let id = self.key.as_ref().map(|key| key.live_id(login));
        self.passwords.iter().any(|known| is_its(&known) && Some(&known.login.live_id) != id.as_ref())
            && ses_password_form(login.password.expose()).is_ok()
            && self.region_of(login).is_none()
            && !(self.is_applied_known() && self.knows(login))
    }

    /// The region whose password it is said to be, by a version that holds it.
    fn said(&self, login: &Login) -> Option<&KnownPassword> {
        let id = self.key.as_ref().filter(|_| !self.passwords.is_empty())?.live_id(login);
        self.passwords.iter().find(|known| known.login.live_id == id)
    }

    /// Is it said to be a region's password, and whether it is one not known? A login with it at the endpoint there would tell.
    fn is_only_said(&self, login: &Login) -> bool {
        self.region_of(login).is_none() && self.said(login).is_some()
    }

    fn is_applied_known(&self) -> bool {
        self.key.is_some() && !self.applied.is_empty()
    }
}

/// An entry that holds an earlier login and that we do not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub key: String,
    /// `None`: what it holds is no login.
    pub username: Option<String>,
    /// Live id of its login, where that is known as one of ours, password and all.
    pub own: Option<String>,
    /// It holds a login that was found in use here, and that was never ours.
    pub was_found: bool,
}

impl Ours {
    /// Is it the user name of a version that this host knows?
    pub fn knows(&self, username: &str) -> bool {
        [&self.applied, &self.previous].into_iter().flatten().chain(&self.known).any(|known| known == username)
    }

    /// The user name, where it may be shown: of a login that is to take the place of ours (`new`) too.
    pub fn shown<'u>(&self, username: &'u str, new: Option<&str>) -> Option<&'u str> {
        credential::shown(username, self.knows(username) || new == Some(username))
    }

    /// `the login of AKIA…`, where that may be shown.
    pub fn login_of(&self, username: &str, new: Option<&str>) -> String {
        // Around the whole value, as in a shell: Postfix takes them for a part of the user name and of the password.
        let in_marks = username.strip_prefix(['"', '\'', '`']);
        match (self.shown(username, new), in_marks.map(|inner| self.shown(inner, new))) {
            (Some(who), _) => format!("the login of {who}"),
            (None, Some(Some(who))) => format!("the login of {who} in quotation marks (they count as part of it)"),
            (None, Some(None)) => {
                "the login of a user name that begins with a quotation mark, which counts as part of it (not shown)"
                    .into()
            }
            (None, None) => format!("the login of {}", credential::NOT_SHOWN),
        }
    }
}

/// The mail relay whose logins are ours, as far as a mail server's tables know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Host name, as certificates name it.
    pub endpoint: String,
    /// TCP port.
    pub port: u16,
    /// The configured SES region; else it is read from the endpoint's name (`credential::ses_region`).
    pub region: Option<String>,
    /// Other names under which the mail server may know the endpoint ([`alias::Alias`]).
    pub endpoint_aliases: Vec<String>,
    /// Its endpoints in further regions, with the same IAM key: each has a password of its own, and nothing here.
    pub also: Vec<Relay>,
}

impl Relay {
    /// Every endpoint, the default one first: by their numbers logins are named.
    pub fn endpoints(&self) -> impl Iterator<Item = &Relay> {
        std::iter::once(self).chain(&self.also)
    }

    /// The SES region whose password it takes.
    #[must_use]
    pub fn ses_region(&self) -> Option<String> {
        self.region.clone().or_else(|| credential::ses_region(&self.endpoint))
    }

    /// What tells its password from those of the others.
    #[must_use]
    pub fn takes_password_of(&self) -> String {
        self.ses_region().unwrap_or_else(|| self.endpoint.to_ascii_lowercase())
    }
}

/// When the mail server is reloaded after a swap.
#[derive(Debug, Clone, PartialEq)]
pub enum Reload {
    /// After every swap.
    Always,
    /// Only where the table's kind makes it necessary (`texthash:`).
    IfNeeded,
    /// Not by us: a reload that is needed stays owed and is shown.
    Never,
    /// An argv array, run instead of `postfix reload`. Not empty; the program's path is absolute.
    Command(Vec<String>),
}

impl Reload {
    /// Does relaykey reload the mail server? Else it is left to people: what it has not read is owed until it was started, as a
    /// reload by hand leaves no trace that could be trusted.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Always | Self::IfNeeded | Self::Command(_) => true,
            Self::Never => false,
        }
    }
}

/// Whose an entry is under a key that no next hop of ours leads to and that nobody has listed, by the user name it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByName {
    /// The name is none of ours.
    Foreign,
    /// It is to get what the live keys get.
    Ours,
    /// The same name with another password than is known as ours: perhaps another relay's. An access key id stands for one
    /// account alone; `apikey` is the user name of everybody at a relay.
    Left,
}

/// What decides that: the one rule for what is planned, put back, told to people and counted as left behind.
pub struct NameRule<'a> {
    /// The user names that are ours.
    pub users: HashSet<&'a str>,
    known: &'a KnownLogins,
    /// The logins under the live keys, where no state says which one was applied.
    own: Vec<Login>,
}

impl<'a> NameRule<'a> {
    /// `live`: what stands under the live keys.
    pub fn new(ours: &'a Ours, users: HashSet<&'a str>, live: impl Iterator<Item = Login>) -> Self {
        let own = if ours.logins.is_applied_known() { Vec::new() } else { live.collect() };
        Self { users, known: &ours.logins, own }
    }

    /// Whose is this entry?
    pub fn of(&self, entry: &table::Entry<'_>) -> ByName {
        match entry.username().filter(|user| self.users.contains(user)) {
            None => ByName::Foreign,
            Some(user) if credential::is_access_key_id(user) || self.is_own(entry) => ByName::Ours,
            Some(_) => ByName::Left,
        }
    }

    /// Live id of the login that it holds, where that is known as ours.
    pub fn own_id(&self, entry: &table::Entry<'_>) -> Option<String> {
        let login = entry.login().filter(|_| self.is_own(entry))?;
        self.known.key.as_ref().map(|key| key.live_id(&login))
    }

    /// Does it hold a login that was found in use here, and that was never ours?
    pub fn was_found(&self, entry: &table::Entry<'_>) -> bool {
        entry.login().is_some_and(|login| self.known.were_found(&login))
    }

    /// Does it hold a login that is known as ours, password and all?
    pub fn is_own(&self, entry: &table::Entry<'_>) -> bool {
        entry.login().is_some_and(|login| self.own.contains(&login) || self.known.knows(&login))
    }
}

/// A login table, by its name in the mail server's configuration: `type:path`. Two names are two tables, also where both have
/// their entries in one text. Nothing secret stands in it: a table whose entries are its name (`inline:`) is named otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(String);

impl TableId {
    /// The table of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a look-up gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is no such key: the next table is asked.
    Nothing,
    /// Something that is not `USER:PASSWORD`. The next table is not asked.
    NoLogin,
    Login(Login),
}

impl Answer {
    /// The login, where it is one.
    pub fn login(&self) -> Option<&Login> {
        match self {
            Self::Login(login) => Some(login),
            Self::Nothing | Self::NoLogin => None,
        }
    }
}

impl From<Option<Login>> for Answer {
    /// Of a table that has nothing else.
    fn from(login: Option<Login>) -> Self {
        login.map_or(Self::Nothing, Self::Login)
    }
}

/// One entry under a live key, or another one that is ours.
#[derive(Debug, Clone)]
pub struct OwnEntry {
    /// The lookup key as spelt in the table (or, where it is missing, as it would be added).
    pub key: String,
    /// The table it stands in.
    pub table: TableId,
    /// Its text.
    pub file: PathBuf,
    /// 1-based line in the text, where it stands there.
    pub line: Option<usize>,
    /// What the text holds under it. `None`: no such entry, or not `USER:PASSWORD`.
    pub text: Option<Login>,
    /// What its table gives under it now (the compiled map; the text where that is read). `None`: nothing.
    pub live: Option<Login>,
    /// Is it a live key of any client service that asks this table? False for our other entries (sender lines, other ports).
    pub is_live_key: bool,
    /// The number of the endpoint whose login it is for.
    pub endpoint: usize,
}

/// What a mail server would use now.
#[derive(Debug, Clone)]
pub struct View {
    /// What each client service would find for its next hops of ours.
    pub services: Vec<ServiceView>,
    /// Our entries, those of every table: in lookup order for live keys, then by table and line.
    pub entries: Vec<OwnEntry>,
    /// Lookup keys under which an entry is needed and none exists; they are added as spelt.
    pub missing: Vec<String>,
    /// The numbers of the endpoints whose logins these entries are for, in order; all of them where that cannot be told of one.
    pub endpoints: Vec<usize>,
    pub running: Running,
    /// Findings for `check`, worst first. Errors also stop a rollover.
    pub findings: Vec<Finding>,
    /// Beside them: that it does not run, and how to start it.
    pub stopped: Option<Finding>,
    /// Those of them that say which login tables the mail server cannot read, of those that it looks up a login of ours in: what it
    /// would use is nothing, whatever stands in the others.
    pub unreadable: Vec<Finding>,
    /// Those of them that say what a group could have written of all that is run and obeyed.
    pub doubts: Vec<Finding>,
    /// Entries that hold the previous, the applied or an earlier key id and that we do not write: `keys` leaves them out, or
    /// they are under no live key.
    pub left_out: Vec<LeftOut>,
    /// Every access key id that any login table of this mail server holds, under whatever key, also where it is no table of
    /// ours to change.
    pub key_ids: KeyIds,
    /// Login tables whose entries could not be listed, as they may be shown: what they hold is not in `key_ids`.
    pub incomplete: Vec<String>,
    /// What is wrong with other mail servers of this host, worst first: it stops no rollover of this one, and what their tables hold
    /// stands in `key_ids`.
    pub beside: Vec<Finding>,
    /// An entry of ours whose region is not known holds what an earlier version is said to have for the default endpoint: a login
    /// there would tell ([`NamedLogin::is_certain`]).
    pub asks_for_proof: bool,
    /// The tables' files, text and compiled map, as configured: a change of one may be drift.
    pub files: Vec<PathBuf>,
    /// The file that the mail server logs to itself; `None`: it logs to syslog.
    pub log: Option<PathBuf>,
}

/// One client service of a mail server: what logs in to other servers, with look-up rules of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// As the mail server names it; unique in the view.
    pub service: String,
    /// Its login tables, in the order in which they are asked for each key.
    pub tables: Vec<TableId>,
    /// Its live keys, in lookup order.
    pub keys: Vec<LiveKey>,
}

/// A live key of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKey {
    pub key: String,
    /// What the service finds under it now.
    pub answer: Answer,
    /// In which of its tables; `None`: in none.
    pub table: Option<TableId>,
    /// The number of the endpoint whose login it is for.
    pub endpoint: usize,
}

/// A key, and which login it must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedKey {
    pub key: String,
    /// The number of the endpoint whose login it is.
    pub endpoint: usize,
}

/// Is the mail server up, and since when?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Running {
    No,
    Yes {
        /// When its master process started, in seconds since boot (`/proc/PID/stat`, field 22, over the tick rate).
        since_boot: u64,
    },
    /// There is no process to run: the text file of the demo.
    NotApplicable,
}

/// What the tables gave when a plan was made: what it goes over. Seen in the same look, so that nobody has to look again.
#[derive(Debug, Default)]
pub struct Beneath {
    /// As [`View::services`].
    pub services: Vec<ServiceView>,
    /// As [`View::entries`].
    pub entries: Vec<OwnEntry>,
    /// As [`View::files`].
    pub files: Vec<PathBuf>,
}

/// A complete change, rendered before one byte changes on disk.
#[derive(Debug)]
pub struct Plan {
    /// The tables with entries of ours, each once, in the order in which they are renamed in: also those in which nothing is to
    /// be written.
    pub tables: Vec<TablePlan>,
    /// What every client service must find once all of that is in place.
    pub services: Vec<ServicePlan>,
    /// Does this mail server notice the change only by a reload? (`texthash:`; DESIGN.md, "field has learned".)
    pub reload_needed: bool,
    /// The same change for people: one masked line per entry, for `--dry-run`.
    pub diff: Vec<String>,
    /// The keys of other relays that go into effect with it, as only the text has them, for people. `None`: none do.
    pub goes_live: Option<String>,
    /// What was there when it was made.
    pub beneath: Beneath,
}

impl Plan {
    /// The files that are written, in the order in which they are renamed. None: the live files hold the candidate already.
    pub fn files(&self) -> impl Iterator<Item = &PlannedFile> {
        self.tables.iter().flat_map(TablePlan::files)
    }

    /// Is nothing to be written?
    pub fn is_empty(&self) -> bool {
        self.files().next().is_none()
    }

    /// The endpoints whose logins it puts somewhere, or finds there: their numbers, in order.
    pub fn endpoints(&self) -> BTreeSet<usize> {
        self.tables.iter().flat_map(|table| &table.lookups).map(|wanted| wanted.endpoint).collect()
    }
}

/// The change of one table.
#[derive(Debug)]
pub struct TablePlan {
    pub id: TableId,
    /// The text, where it changes; the plan of an earlier table may have it already.
    pub text: Option<PlannedFile>,
    /// Its compiled map, where that is to be made anew. Renamed after the text.
    pub map: Option<PlannedFile>,
    /// Every key that must give the candidate in the staged table before it goes live, and in the live one after.
    pub lookups: Vec<WantedKey>,
    /// The group that reads its files where they are new. `None`: nobody but their owner does.
    pub group: Option<u32>,
}

impl TablePlan {
    /// What is written, in the order in which it is renamed.
    pub fn files(&self) -> impl Iterator<Item = &PlannedFile> {
        self.text.iter().chain(&self.map)
    }
}

/// What one client service looks up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlan {
    /// As [`ServiceView::service`].
    pub service: String,
    /// Its login tables, in the order in which they are asked for each key; also those that the plan does not write.
    pub tables: Vec<TableId>,
    /// Its live keys: each must give the candidate, from whichever table answers first.
    pub keys: Vec<WantedKey>,
}

#[derive(Debug)]
pub struct PlannedFile {
    /// The live name, symlinks resolved.
    pub path: PathBuf,
    /// The file as it was when it was read for this plan; `None`: it did not exist. Looked at again before the rename.
    pub seen: Option<host::FileId>,
    pub content: Content,
}

/// Where a staged file's bytes come from.
pub enum Content {
    /// We render them.
    Bytes(zeroize::Zeroizing<Vec<u8>>),
    /// [`Mta::compile`] makes them from this text, of which nothing is left.
    CompiledOf(zeroize::Zeroizing<Vec<u8>>),
    /// [`Mta::compile`] makes them from the text: the staged one, else a copy of the live one.
    Compiled {
        /// The live text, symlinks resolved: it may lie elsewhere than the map, and be named otherwise.
        text: PathBuf,
        /// That text as it was read, where this plan leaves it as it is.
        seen: Option<host::FileId>,
    },
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::Bytes(b) => write!(f, "Bytes({} bytes)", b.len()),
            Content::CompiledOf(b) => write!(f, "CompiledOf({} bytes)", b.len()),
            Content::Compiled { .. } => f.write_str("Compiled"),
        }
    }
}

/// One mail server's side of a rollover. `apply` drives it; each call looks at what is there now. What is kept from one
/// call to the next is what was read of files that have not changed since: settings, in which a login may stand, and of tables no
/// login; [`Mta::inspect`] asks for the settings anew.
pub trait Mta: Send {
    /// Reads the running configuration and the live tables. Changes nothing.
    fn inspect(&self, ours: &Ours) -> Result<View, Fault>;

    /// Renders the complete change that puts under every key that is ours the login of its endpoint, and says what was there
    /// when it was made. Changes nothing.
    fn plan(&self, ours: &Ours, logins: &Logins) -> Result<Plan, Fault>;

    /// The same change as a person makes it, and what is wrong with what they have done of it so far. What [`Mta::plan`]
    /// refuses because it would have to guess what an entry is for (a login that is neither the old nor the new one) is told
    /// apart here like everything else. Nothing to do here means nothing to write there.
    /// Changes nothing.
    ///
    /// # Errors
    /// What is wrong with the mail server's settings, and what could not be read.
    fn by_hand(&self, ours: &Ours, logins: &Logins) -> Result<ByHand, Fault>;

    /// Compiles the staged text of a table and returns the path of the map that appeared beside it.
    fn compile(&self, table: &TableId, staged_text: &Path) -> Result<PathBuf, Fault>;

    /// Does what was compiled from a staged text hold exactly what the text says? A compiler that loses or changes a line is
    /// found out here.
    fn compare(&self, table: &TableId, staged_text: &Path) -> Result<(), Fault>;

    /// The live name, symlinks resolved, of a map that [`Mta::compile`] made.
    fn live_map(&self, table: &TableId, made: &Path) -> Result<PathBuf, Fault>;

    /// Our change is in place: these files are as we left them, those of each table one after the other, text first.
    fn left(&self, files: &[(PathBuf, host::FileId)]);

    /// Looks keys up as the mail server would, in one table: in what was compiled from its staged text, where one is given (in
    /// that text, where the mail server reads texts), else in the live one. One answer per key, in order.
    fn lookup(&self, table: &TableId, staged_text: Option<&Path>, keys: &[String]) -> Result<Vec<Answer>, Fault>;

    fn running(&self) -> Result<Running, Fault>;

    /// Which mail server it is, by its directories, and the files of its configuration, which it reads at a start or reload.
    ///
    /// # Errors
    /// Its settings cannot be read.
    fn instance(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Fault> {
        Ok((Vec::new(), Vec::new()))
    }

    /// Why its configuration would keep it from a reload, as far as that can be seen without anything being changed.
    ///
    /// # Errors
    /// Its settings cannot be read.
    fn reload_refused(&self) -> Result<Option<Finding>, Fault> {
        Ok(None)
    }

    /// Makes the running mail server notice: checks its configuration first (`postfix check`), then reloads.
    fn activate(&self) -> Result<(), Fault>;
}
