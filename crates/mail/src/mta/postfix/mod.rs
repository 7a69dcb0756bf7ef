//! One Postfix instance: its client services, the next hops that lead to our endpoints, and the tables with logins for them.
//!
//! What Postfix does, and what this module therefore does: an smtp(8) service looks a login up under the sender (only with
//! `smtp_sender_dependent_authentication`), then under the bare name of the host it is connected to, then under the
//! destination as the route spells it, in its tables in their order; keys fold case, and the first of several equal keys wins. Each
//! service of master.cf goes by its own `-o` settings. Where no table of a service has a key of a next hop that is ours, the
//! spelling is added, never the bare host: that would win over every later change of the other.
//!
//! Settings come from `postconf` (expanded), lookups from `postmap -q`, maps from `postmap`; keys and tables go in
//! through standard input and files, never on a command line. What `postmap` says on standard error is quoted only
//! where it gave up, because its warnings quote lines of the table.
//!
//! A login table that cannot be listed or written, and a route that cannot be read, are refused by name or named in a finding.

mod commands;
mod differences;
mod expand;
mod generations;
mod hops;
mod instances;
mod master;
mod origin;
mod own_table;
mod ownership;
mod pick;
mod process;
mod programs;
mod proxymap;
mod reached;
mod readers;
mod reload;
mod review;
mod routes;
mod rules;
mod sasl;
mod searches;
mod services;
mod setting_lines;
mod settings;
mod spelling;
mod survey;
mod tables;
mod tls;
mod unlisted;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fault::{Class, Fault};
use crate::finding::{Finding, Severity};
use crate::host;
use crate::instruction::Instruction;
use crate::mta::by_hand::{self, Task};
use crate::mta::compare::{Comparison, Differences};
use crate::mta::table::{self, Change, Table};
use crate::mta::{
    Answer, Beneath, ByHand, Content, LiveKey, Logins, Mta, Ours, OwnEntry, Plan, PlannedFile, Relay, Reload, Running,
    ServicePlan, ServiceView, TableId, TablePlan, View, WantedKey, shown,
};
use differences::{Compared, Compiling};
use instances::Silent;
pub use instances::TargetDirectories;
use own_table::{no_map, no_table};
use pick::Owned;
use review::{Problem, Subject};
use routes::ReadBefore;
use settings::{ConfigId, Settings, Setup};
use survey::{Found, Need, Survey, TableSurvey};
use tables::{LoginMaps, Store, answer, identify, made_no_map, resolve, waited_for, with_extension};

/// Where Postfix's programs look when nobody says otherwise.
const DEFAULT_CONFIG_DIR: &str = "/etc/postfix";
/// Bounds a command that reads or signals.
const COMMAND: Duration = Duration::from_secs(30);
/// Bounds `postmap` over a large table, and `postfix check`, which walks the queue directories.
const LONG_COMMAND: Duration = Duration::from_secs(180);

/// One Postfix instance, named by its configuration directory.
pub struct Postfix {
    config_dir: PathBuf,
    /// What the credential is called in commands that are advised.
    credential: String,
    relay: Relay,
    keys: Option<Vec<String>>,
    /// Login tables that cannot be listed, and for which somebody answers.
    unlisted_ok: Vec<String>,
    reload: Reload,
    /// What `postconf` said last, and of which files; `inspect` forgets it.
    kept: RefCell<Option<(ConfigId, Setup)>>,
    /// What `postconf` said to these words, while the settings are read.
    said: RefCell<HashMap<Vec<OsString>, Settings>>,
    /// What was found in the texts last.
    found: RefCell<Option<Found>>,
    /// What the comparison of a text, by its path, and its map said last.
    compared: RefCell<HashMap<PathBuf, Compared>>,
    /// What was read of routing tables last.
    routes: RefCell<Vec<ReadBefore>>,
    /// Which instances of this host are targets.
    targets: TargetDirectories,
    /// The other instances, by their configuration directories, for what is kept of them.
    others: RefCell<BTreeMap<PathBuf, Box<Self>>>,
    /// Those of them that gave no answer.
    silent: RefCell<BTreeMap<PathBuf, Silent>>,
}

impl Postfix {
    /// `relay` says which next hops are ours, `keys` (where given) which lookup keys exactly are, and `reload` how a
    /// reload is done: an argv array runs instead of `postfix reload`. Nothing is looked at yet.
    pub fn new(config_dir: &Path, relay: &Relay, keys: Option<Vec<String>>, reload: &Reload) -> Self {
        Self {
            config_dir: config_dir.to_owned(),
            credential: "NAME".to_owned(),
            relay: relay.clone(),
            keys,
            unlisted_ok: Vec::new(),
            reload: reload.clone(),
            kept: RefCell::default(),
            said: RefCell::default(),
            found: RefCell::default(),
            compared: RefCell::default(),
            routes: RefCell::default(),
            targets: TargetDirectories::default(),
            others: RefCell::default(),
            silent: RefCell::default(),
        }
    }

    /// Commands that are advised are about the credential of this name.
    #[must_use]
    pub fn of_credential(mut self, name: &str) -> Self {
        name.clone_into(&mut self.credential);
        self
    }

    /// With login tables, as `smtp_sasl_password_maps` has them, that cannot be listed and need not be: somebody answers for what
    /// they hold.
    #[must_use]
    pub fn vouched_for(self, unlisted_ok: Vec<String>) -> Self {
        Self { unlisted_ok, ..self }
    }
}

impl Mta for Postfix {
    fn inspect(&self, ours: &Ours) -> Result<View, Fault> {
        // What is true now, whatever was true before: the read-back of a rollover is one of these.
        *self.kept.borrow_mut() = None;
        let mut survey = self.survey(ours, None, Need::Found)?;
        let (running, unseen) = self.running_as_seen(&survey.setup.main)?;
        let unseen_reload = match running {
            Running::Yes { .. } if self.reload.is_ours() => self.unseen_reload(&survey.setup.main)?,
            _ => None,
        };
        let mut problems = std::mem::take(&mut survey.problems);
        problems.extend(unseen.into_iter().chain(unseen_reload).map(|doubt| {
            let problem = Problem::warning(None, doubt.what, doubt.fix);
            Problem { subject: Subject::Trust, ..problem }
        }));
        let directory = self.config_dir.display();
        let stopped = (running == Running::No).then(|| Finding {
            severity: Severity::Warning,
            line: None,
            file: None,
            what: "this Postfix instance is not running".into(),
            fix: format!("postfix -c {directory} start"),
        });
        if running != Running::No
            && let Some(name) = self.edited_since_start(&survey.setup.main)?
        {
            problems.push(Problem::warning(
                Some(self.config_dir.join(name)),
                format!(
                    "{name} is newer than the last start or reload: the reload of a rollover puts its edits into effect"
                ),
                format!("look at the edits, then: postfix -c {directory} reload"),
            ));
        }
        for table in &survey.tables {
            for key in table.pick.missing.iter().filter(|key| !table.live.contains_key(*key)) {
                problems.push(Problem::warning(
                    Some(table.store.text.clone()),
                    format!(
                        "it has no entry for {}: Postfix goes on without a login, and the mail bounces with 530",
                        shown::quoted_key(key, None)
                    ),
                    "the next rollover adds it; with write = false it says what to add".into(),
                ));
            }
        }
        problems.sort_by_key(|p| p.finding.severity);
        let Beneath { services, entries, files } = self.beneath(&survey)?;
        let main = &survey.setup.main;
        let beside = self.other_instances(ours, main);
        let commands = self.command_logins(&survey.setup, &survey.reached, &self.unlisted_ok);
        let (mut key_ids, mut incomplete) = (survey.key_ids(), survey.incomplete(&self.unlisted_ok));
        for (ids, unlisted) in [(commands.key_ids, commands.incomplete), (beside.key_ids, beside.incomplete)] {
            key_ids.join(&ids);
            incomplete.extend(unlisted);
        }
        let mut once = HashSet::new();
        incomplete.retain(|table| once.insert(table.clone()));
        Ok(View {
            services,
            entries,
            missing: survey.tables.iter().flat_map(|table| table.pick.missing.iter().cloned()).collect(),
            endpoints: survey.endpoints_used(),
            running,
            doubts: problems.iter().filter(|p| p.subject == Subject::Trust).map(|p| p.finding.clone()).collect(),
            findings: problems.into_iter().map(|p| p.finding).chain(commands.findings).collect(),
            stopped,
            left_out: survey.tables.iter().flat_map(|table| table.pick.left_out.iter().cloned()).collect(),
            key_ids,
            incomplete,
            beside: beside.findings,
            asks_for_proof: survey.asks_for_proof,
            unreadable: survey.unreadable,
            files,
            log: Some(main.get("maillog_file")).filter(|file| file.starts_with('/')).map(PathBuf::from),
        })
    }

    fn plan(&self, ours: &Ours, logins: &Logins) -> Result<Plan, Fault> {
        let survey = self.survey(ours, Some(logins.username()), Need::Table)?;
        let errors = || survey.problems.iter().filter(|p| p.finding.severity == Severity::Error);
        if let Some(problem) = errors().find(|p| p.subject != Subject::Map) {
            return Err(problem.clone().into_error());
        }
        if survey.tables.is_empty() {
            return Err(no_table(&survey.setup.main));
        }
        let tasks: Vec<Task<'_>> = survey.tables.iter().map(|table| self.task(table, ours, logins)).collect();
        let mut diff = by_hand::explain(&tasks).diff;
        let mut all_go_live = Vec::new();
        let mut tables = Vec::new();
        for table in &survey.tables {
            let goes_live = self.goes_live(table).filter(|names| names.count > 0).map(|names| names.list());
            diff.extend(goes_live.iter().map(|names| {
                format!("{}: entries that only the text has go into effect, too: {names}", table.store.text.display())
            }));
            all_go_live.extend(goes_live);
            tables.push(plan_of(table, logins)?);
        }
        // What stands in the map alone is lost with a new one, and with nothing to write it is not.
        let is_written = |number: usize| tables[number].files().next().is_some();
        for (number, table) in survey.tables.iter().enumerate() {
            let of_it = |p: &&Problem| {
                p.finding.file.as_deref().is_none_or(|file| table.store.files().iter().any(|own| own == file))
            };
            if let Some(problem) = errors().find(of_it).filter(|_| is_written(number)) {
                return Err(problem.clone().into_error());
            }
        }
        let used = |id: &TableId| survey.services().any(|(_, tables, _)| tables.contains(id));
        let reload_needed = survey
            .tables
            .iter()
            .zip(&tables)
            .any(|(table, plan)| table.store.needs_reload() && (used(&plan.id) || plan.files().next().is_some()));
        let services = survey.services().map(|(service, tables, keys)| {
            let keys = keys.into_iter().filter(|key| !survey.is_only_in_map(key));
            let wanted = |key: &String| WantedKey { key: key.clone(), endpoint: survey.endpoint_of(&tables, key) };
            let keys = keys.map(wanted).collect();
            ServicePlan { service: service.to_owned(), tables, keys }
        });
        let services = services.collect();
        let goes_live = (!all_go_live.is_empty()).then(|| all_go_live.join(", "));
        let beneath = self.beneath(&survey)?;
        Ok(Plan { tables, services, reload_needed, diff, goes_live, beneath })
    }

    fn by_hand(&self, ours: &Ours, logins: &Logins) -> Result<ByHand, Fault> {
        let mut survey = self.survey(ours, Some(logins.username()), Need::Table)?;
        let problems = std::mem::take(&mut survey.problems).into_iter();
        let mut errors: Vec<Problem> = problems.filter(|p| p.finding.severity == Severity::Error).collect();
        // Who changes it by hand changes a text.
        let without_text = survey.tables.iter().filter(|table| table.listed.is_some());
        errors.extend(without_text.filter_map(|table| self.text_is_gone(&table.store)));
        if let Some(problem) = errors.iter().find(|p| p.subject == Subject::Setup) {
            return Err(problem.clone().into_error());
        }
        let Some(first_table) = survey.tables.first() else { return Err(no_table(&survey.setup.main)) };
        let mut tasks: Vec<Task<'_>> = survey.tables.iter().map(|table| self.task(table, ours, logins)).collect();
        // What a person changes is unread, whatever the kind of the table: we see to that, unless we must not.
        if !self.reload.is_ours() && self.running_with(&survey.setup.main)? != Running::No {
            tasks[0].restart = Some(self.restart_by_hand());
        }
        let mut by_hand = by_hand::explain(&tasks);
        // First things first: with these out of the way the rest may be another one.
        let to_change = !by_hand.diff.is_empty();
        let comes_first = |p: &&Problem| p.subject == Subject::Table || p.subject == Subject::Map && to_change;
        let first: Vec<&Problem> = errors.iter().filter(comes_first).collect();
        if !first.is_empty() {
            let whats = || first.iter().map(|p| p.finding.located());
            by_hand.diff.splice(0..0, whats());
            by_hand.differences.splice(0..0, whats());
            let fix = |p: &&Problem| match p.steps.is_empty() {
                false => p.steps.clone(),
                true => {
                    let line = p.finding.line.map(|line| format!(", line {line}")).unwrap_or_default();
                    let file = p.finding.file.as_ref().unwrap_or(&first_table.store.text);
                    vec![Instruction::Text(format!("in {}{line}: {}", file.display(), p.finding.fix))]
                }
            };
            by_hand.steps = first.iter().flat_map(fix).collect();
        }
        Ok(by_hand)
    }

    fn compile(&self, table: &TableId, staged_text: &Path) -> Result<PathBuf, Fault> {
        let (settings, store) = self.store(table)?;
        self.trusted_parts(&settings)?;
        let mut argv = self.postmap(&settings);
        argv.push(store.kind.spell(staged_text));
        let output = host::run_mutating(&argv, None, LONG_COMMAND)
            .map_err(|e| waited_for(e, &settings, store.kind, staged_text))?;
        let expected = settings.redirected(store.kind).extension();
        let appeared = expected.into_iter().chain(["db", "lmdb", "cdb"]).map(|ext| with_extension(staged_text, ext));
        match appeared.into_iter().find(|path| output.status.success() && path.is_file()) {
            Some(map) => Ok(map),
            None => Err(match self.unsupported(&settings, store.kind)? {
                Some(problem) => problem.into_error(),
                None => Fault::new(
                    Class::Command,
                    format!("postmap made no {} map: {}", store.kind.name(), self.last_words(&output, staged_text)),
                    made_no_map(&output.stderr, staged_text),
                )
                .temporary()
                .in_file(staged_text.to_owned()),
            }),
        }
    }

    fn compare(&self, table: &TableId, staged_text: &Path) -> Result<(), Fault> {
        let (settings, store) = self.store(table)?;
        if store.map.is_none() {
            return Ok(());
        }
        let table = Table::of(host::read(staged_text, table::MAX_TABLE)?.0)
            .map_err(|e| Problem::of_table(e, staged_text).into_error())?;
        let all = HashSet::new();
        let mut comparison = Comparison::new(&table, &all);
        if let Err(words) = self.list(&settings, store.kind, staged_text, &mut comparison)? {
            return Err(Fault::new(
                Class::Command,
                format!("the new map cannot be listed, so that it cannot be compared with its text: {words}"),
                "see what it names; it is tried again",
            )
            .temporary()
            .in_file(staged_text.to_owned()));
        }
        let Differences { only_in_map, out_of_reach, differing, only_in_text, key_ids: _ } = comparison.finish();
        let wrong: Vec<String> = [
            ("it lacks", only_in_text),
            ("it has another value under", differing),
            ("it has what the text has not:", only_in_map),
            ("it has what Postfix cannot find:", out_of_reach),
        ]
        .into_iter()
        .filter(|(_, names)| names.count > 0)
        .map(|(what, names)| format!("{what} {}", names.list()))
        .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Fault::new(
            Class::Mismatch,
            format!(
                "the new map was not put in place, because it is not what postmap should have made of the text: {}",
                wrong.join("; ")
            ),
            format!(
                "this host's live table is as it was; look at what stands in {} for postmap, and at those lines",
                settings.get("command_directory")
            ),
        )
        .in_file(store.text.clone()))
    }

    fn live_map(&self, table: &TableId, made: &Path) -> Result<PathBuf, Fault> {
        let (_, store) = self.store(table)?;
        let extension = made.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        resolve(&with_extension(&store.path, extension)).map_err(|problem| problem.into_error())
    }

    fn left(&self, files: &[(PathBuf, host::FileId)]) {
        let mut kept = self.compared.borrow_mut();
        let Ok(setup) = self.setup() else { return kept.clear() };
        let left = |path: &Path| files.iter().find(|(file, _)| file == path).map(|(_, id)| *id);
        for (_, store) in LoginMaps::of(&setup).stores() {
            let (text, map) = (left(&store.text), store.map.as_deref().and_then(left));
            if text.is_some() || map.is_some() {
                kept.remove(&store.text);
            }
            if let (Some(text), Some(map)) = (text, map) {
                let compared =
                    Compared { text, map, not_compared: None, problems: Vec::new(), compiling: Compiling::default() };
                kept.insert(store.text.clone(), compared);
            }
        }
    }

    fn lookup(&self, table: &TableId, staged_text: Option<&Path>, keys: &[String]) -> Result<Vec<Answer>, Fault> {
        let setup = self.setup()?;
        let maps = LoginMaps::of(&setup);
        match maps.get(table) {
            Some(map) if map.store.is_err() && staged_text.is_none() => {
                return self.look_up_other(&setup.main, map, keys);
            }
            // Somebody pointed the mail server elsewhere: it finds nothing there any more.
            None if staged_text.is_none() && !maps.all.is_empty() => return Ok(vec![Answer::Nothing; keys.len()]),
            _ => {}
        }
        let (settings, store) = self.store_in(setup, &maps, table)?;
        if staged_text.is_none() && !store.read_by_postfix().exists() {
            return Ok(vec![Answer::Nothing; keys.len()]);
        }
        // Where the text is a symbolic link, its map stands beside the link.
        let path = staged_text.unwrap_or(&store.path);
        match self.query(&settings, &store, path, keys)? {
            Ok((found, odd)) => Ok(keys.iter().map(|key| answer(&found, &odd, key)).collect()),
            Err(words) => Err(match self.unsupported(&settings, store.kind)? {
                Some(problem) => problem.into_error(),
                None => Fault::new(
                    Class::Command,
                    format!("postmap cannot look keys up: {words}"),
                    format!(
                        "try it by hand: postmap{} -q KEY {}:{}",
                        self.config_option(),
                        store.kind.name(),
                        path.display()
                    ),
                )
                .temporary()
                .in_file(path.to_owned()),
            }),
        }
    }

    fn running(&self) -> Result<Running, Fault> {
        self.running_with(&self.settings()?)
    }

    fn instance(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Fault> {
        let queue = PathBuf::from(self.settings()?.get("queue_directory"));
        Ok((vec![self.config_dir.clone(), queue], self.own_files().to_vec()))
    }

    /// `postfix check` itself makes directories that are missing, so that who only looks cannot run it: what it refuses at once.
    fn reload_refused(&self) -> Result<Option<Finding>, Fault> {
        let settings = self.settings()?;
        let in_directory = |parameter: &str, name: &str| Path::new(settings.get(parameter)).join(name);
        let needed = [
            self.config_dir.join("master.cf"),
            in_directory("daemon_directory", "postfix-script"),
            in_directory("daemon_directory", "post-install"),
            in_directory("daemon_directory", "master"),
            settings.program("postfix").into(),
        ];
        let Some(missing) = needed.into_iter().find(|path| !path.is_file()) else { return Ok(None) };
        Ok(Some(Finding {
            severity: Severity::Error,
            line: None,
            what: format!(
                "{} is not there, so that `postfix check` fails and no reload would be done",
                missing.display()
            ),
            file: None,
            fix: format!("put it back, or correct what names it; then: postfix -c {} check", self.config_dir.display()),
        }))
    }

    fn activate(&self) -> Result<(), Fault> {
        self.reload()
    }
}

impl Postfix {
    /// The table of that name.
    fn store(&self, id: &TableId) -> Result<(Settings, Store), Fault> {
        let setup = self.setup()?;
        let maps = LoginMaps::of(&setup);
        self.store_in(setup, &maps, id)
    }

    /// The same, where the settings and the login maps were looked at already.
    fn store_in(&self, setup: Setup, maps: &LoginMaps, id: &TableId) -> Result<(Settings, Store), Fault> {
        match maps.get(id).map(|map| &map.store) {
            Some(Ok(store)) => Ok((setup.main, store.clone())),
            Some(Err(problem)) => Err((**problem).clone().into_error()),
            None => Err(match maps.all.iter().find_map(|map| map.store.as_ref().err()) {
                Some(problem) => (**problem).clone().into_error(),
                None if maps.all.is_empty() => no_map(&setup.main).into_error(),
                None => {
                    let what =
                        format!("smtp_sasl_password_maps named {id} a moment ago, and does not name it any more");
                    Fault::new(Class::ChangedUnderneath, what, "nothing: it is looked at anew")
                        .temporary()
                        .in_file(self.config_dir.join("main.cf"))
                }
            }),
        }
    }

    /// What the tables give, and their files.
    fn beneath(&self, survey: &Survey) -> Result<Beneath, Fault> {
        let in_text = |table: &TableSurvey, owned: &Owned| OwnEntry {
            key: owned.key.clone(),
            table: table.store.id(),
            file: table.store.text.clone(),
            line: Some(owned.line).filter(|line| *line > 0),
            text: owned.text.clone(),
            live: table.live.get(&owned.key).cloned(),
            is_live_key: owned.is_live_key,
            endpoint: table.pick.endpoint_of(&owned.key),
        };
        let absent = |table: &TableSurvey, key: &String| OwnEntry {
            key: key.clone(),
            table: table.store.id(),
            file: table.store.text.clone(),
            line: None,
            text: None,
            live: table.live.get(key).cloned(),
            is_live_key: true,
            endpoint: survey.endpoint_of(&[table.store.id()], key),
        };
        let (mut entries, mut others) = (Vec::new(), Vec::new());
        for table in &survey.tables {
            let (live, other): (Vec<_>, Vec<_>) = table.pick.owned.iter().partition(|owned| owned.is_live_key);
            entries.extend(live.into_iter().map(|owned| in_text(table, owned)));
            let missing = table.pick.missing.iter().chain(table.only_in_map());
            entries.extend(missing.map(|key| absent(table, key)));
            others.extend(other.into_iter().map(|owned| in_text(table, owned)));
        }
        entries.extend(others);
        let mut services = Vec::new();
        for (service, tables, keys) in survey.services() {
            let keys = self.answers(survey, &tables, &keys)?;
            services.push(ServiceView { service: service.to_owned(), tables, keys });
        }
        let mut files: Vec<PathBuf> = survey.tables.iter().flat_map(|table| table.store.files()).collect();
        files.sort();
        files.dedup();
        Ok(Beneath { services, entries, files })
    }

    /// What a service finds under each key: in the first of its tables that has it.
    fn answers(&self, survey: &Survey, tables: &[TableId], keys: &[&String]) -> Result<Vec<LiveKey>, Fault> {
        let mut found: Vec<LiveKey> =
            (keys.iter().copied()).map(|key| unanswered(key, survey.endpoint_of(tables, key))).collect();
        for id in tables {
            let open: Vec<usize> = (0..found.len()).filter(|at| found[*at].table.is_none()).collect();
            let of_table = match survey.tables.iter().find(|table| table.store.id() == *id) {
                Some(table) => {
                    open.iter().map(|at| answer(&table.live, &table.odd, &found[*at].key)).collect::<Vec<_>>()
                }
                None => {
                    let Some(number) = survey.maps.iter().position(|map| map.id == *id) else { continue };
                    let keys: Vec<String> = open.iter().map(|at| found[*at].key.clone()).collect();
                    // What cannot be asked is told as not listed; what it answers is for the look-up before a change to find out.
                    let Ok(answers) = self.probe(survey, number, &keys) else { continue };
                    answers
                }
            };
            for (at, answer) in open.into_iter().zip(of_table) {
                if answer != Answer::Nothing {
                    (found[at].answer, found[at].table) = (answer, Some(id.clone()));
                }
            }
        }
        Ok(found)
    }
}

fn unanswered(key: &str, endpoint: usize) -> LiveKey {
    LiveKey { key: key.to_owned(), answer: Answer::Nothing, table: None, endpoint }
}

/// The change of one table.
fn plan_of(survey: &TableSurvey, logins: &Logins) -> Result<TablePlan, Fault> {
    let store = &survey.store;
    let mut changes = Vec::new();
    let login_at = |endpoint: usize| logins.at(endpoint).ok_or_else(|| no_login(store));
    for owned in &survey.pick.owned {
        let login = login_at(owned.endpoint)?;
        if owned.text.as_ref() != Some(login) {
            changes.push(Change::Replace { entry: owned.entry, login });
        }
    }
    for key in &survey.pick.missing {
        changes.push(Change::Append { key, login: login_at(survey.pick.endpoint_of(key))? });
    }
    let lookups = survey.lookups();
    let (mut text, mut map) = (None, None);
    if let (Some(path), Some(listed), false) = (&store.map, survey.listed, changes.is_empty()) {
        // No text is left behind where there was none.
        let bytes = survey.table.render(&changes).map_err(|e| Problem::of_table(e, path).into_error())?;
        map = Some(PlannedFile { path: path.clone(), seen: Some(listed), content: Content::CompiledOf(bytes) });
    } else if survey.listed.is_none() && !changes.is_empty() {
        let bytes = survey.table.render(&changes).map_err(|e| Problem::of_table(e, &store.text).into_error())?;
        text = Some(PlannedFile { path: store.text.clone(), seen: survey.seen, content: Content::Bytes(bytes) });
    }
    if let (Some(path), None) = (&store.map, survey.listed) {
        let stale = lookups.iter().any(|wanted| survey.live.get(&wanted.key) != logins.at(wanted.endpoint))
            || survey.only_in_map().count() > 0;
        if text.is_some() || stale {
            let seen = survey.seen.filter(|_| text.is_none());
            let content = Content::Compiled { text: store.text.clone(), seen };
            map = Some(PlannedFile { path: path.clone(), seen: identify(path)?, content });
        }
    }
    Ok(TablePlan { id: store.id(), text, map, lookups, group: proxymap::group(&survey.settings, store) })
}

/// Which cannot be: an entry of a region without a password is told of, and not ours to change.
fn no_login(store: &Store) -> Fault {
    let what = "an entry is for an endpoint that the version has no password for";
    Fault::new(Class::Ambiguous, what, "this is a mistake in relaykey: please report it").in_file(store.text.clone())
}

fn or_none(words: String) -> String {
    if words.is_empty() { "it gave no reason".into() } else { words }
}

fn from_io(e: &io::Error, path: &Path) -> Fault {
    let permissions = e.kind() == io::ErrorKind::PermissionDenied;
    Fault::new(
        if permissions { Class::Permissions } else { Class::Io },
        e.to_string(),
        if permissions { "run relaykey as root" } else { "see what it names; it is tried again" },
    )
    .temporary_if(!permissions)
    .in_file(path.to_owned())
}
