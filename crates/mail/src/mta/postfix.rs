//! One Postfix instance whose logins stand in one table (`smtp_sasl_password_maps`), for the next hops of `relayhost`.
//!
//! What Postfix does, and what this module therefore does: smtp(8) looks a login up under the sender (only with
//! `smtp_sender_dependent_authentication`), then under the bare name of the host it is connected to, then under the
//! destination as `relayhost` spells it; keys fold case, and the first of several equal keys wins. So the keys of a
//! next hop that leads to our endpoint are its bare host name and its spelling, in this order. Where the table has
//! none of them, the spelling is added, never the bare host: that would win over every later change of the other.
//!
//! Settings come from `postconf` (expanded), lookups from `postmap -q`, maps from `postmap`; keys and tables go in
//! through standard input and files, never on a command line. What `postmap` says on standard error is quoted only
//! where it gave up, because its warnings quote lines of the table.
//!
//! Several tables, `proxy:`, transports, fallback relays, sender-dependent relays and `-o` overrides in `master.cf` are
//! refused by name, or named in a finding as not looked at.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::credential::{Login, Redactor, is_access_key_id, ses_region};
use crate::fault::{Class, Fault};
use crate::finding::{Finding, Severity};
use crate::host::way::Way;
use crate::host::{self, trust};
use crate::instruction::{Instruction, relaykey};
use crate::mta::by_hand::{Map, Task};
use crate::mta::cdb;
use crate::mta::compare::{Comparison, Differences, Names};
use crate::mta::table::{self, Change, Table, fold, same_key};
use crate::mta::{
    ByHand, ByName, Content, Entry, LeftOut, Mta, NameRule, Ours, Plan, PlannedFile, Relay, Reload, Running, View,
    shown,
};

/// Where Postfix's programs look when nobody says otherwise.
const DEFAULT_CONFIG_DIR: &str = "/etc/postfix";
/// Bounds a command that reads or signals.
const COMMAND: Duration = Duration::from_secs(30);
/// Bounds `postmap` over a large table, and `postfix check`, which walks the queue directories.
const LONG_COMMAND: Duration = Duration::from_secs(180);
/// What a listing may have: as much as a map that is swapped.
const MAX_LISTING: usize = 2 * table::MAX_TABLE;
/// How often a table is looked at again because somebody wrote to it meanwhile.
const LOOKS: usize = 3;
/// A program of awk that prints the keys of a `cdb` file, whose bytes come as numbers: 2048 bytes that begin with where the records
/// end, and then each as two lengths of four bytes, key and data ([`cdb`]). Keys with capital letters are out of reach, and left.
const CDB_KEYS: &str = "{for (i = 1; i <= NF; i++) {if (n < 4) end += $i * 256 ^ n; else if (n >= 2048 && n < end) {if (h < 8) {if (h < 4) \
                        k += $i * 256 ^ h; else d += $i * 256 ^ (h - 4); h++} else if (k) {if ($i + 0) key = key sprintf(\"%c\", $i + 0); k--} \
                        else d--; if (h == 8 && !k && !d) {if (key !~ /[A-Z]/) print key; h = 0; key = \"\"}} n++}}";
/// How many keys one `postmap` is asked for; `host::run` takes megabytes of answers, not tables of any size.
const KEYS_AT_ONCE: usize = 10_000;
/// Clock ticks per second in `/proc/PID/stat`: `USER_HZ`, which is 100 on every architecture Linux still supports.
const TICKS: u64 = 100;

/// What is asked of `postconf`, in one call. Names that this Postfix does not know are left out of its answer.
const PARAMETERS: &[&str] = &[
    "command_directory",
    "config_directory",
    "daemon_directory",
    "default_cache_db_type",
    "default_database_type",
    "default_transport",
    "mail_owner",
    "maillog_file",
    "meta_directory",
    "multi_instance_directories",
    "non_bdb_migration_level",
    "process_id_directory",
    "queue_directory",
    "relayhost",
    "sender_dependent_default_transport_maps",
    "sender_dependent_relayhost_maps",
    "shlib_directory",
    "smtp_cname_overrides_servername",
    "smtp_fallback_relay",
    "smtp_sasl_auth_cache_name",
    "smtp_sasl_auth_cache_time",
    "smtp_sasl_auth_enable",
    "smtp_sasl_auth_soft_bounce",
    "smtp_sasl_mechanism_filter",
    "smtp_sasl_password_maps",
    "smtp_sasl_security_options",
    "smtp_sasl_tls_security_options",
    "smtp_sasl_tls_verified_security_options",
    "smtp_tls_policy_maps",
    "smtp_tls_security_level",
    "smtp_tls_wrappermode",
    "transport_maps",
];

/// One Postfix instance, named by its configuration directory.
pub struct Postfix {
    config_dir: PathBuf,
    relay: Relay,
    keys: Option<Vec<String>>,
    reload: Reload,
    /// What `postconf` said last, and of which files; `inspect` forgets it.
    kept: RefCell<Option<(ConfigId, Settings)>>,
    /// What was found in the text last.
    found: RefCell<Option<Found>>,
    /// What the comparison of text and map said last.
    compared: RefCell<Option<Compared>>,
}

/// What was found in a text that has not changed since. Holds no login: those are read again, each from its place.
struct Found {
    text: host::FileId,
    asked: Asked,
    pick: Pick,
}

/// What an answer depends on besides the text.
#[derive(PartialEq)]
struct Asked {
    ours: Ours,
    candidate: Option<String>,
    hops: Vec<NextHop>,
}

/// What `postmap -q` answers: logins by key, and the keys with an answer that is none.
type Answers = (HashMap<String, Login>, HashSet<String>);

/// How a text and a map that have not changed since differ.
struct Compared {
    text: host::FileId,
    map: host::FileId,
    /// Keys that were not compared. `None`: we made the one from the other.
    not_compared: Option<HashSet<String>>,
    problems: Vec<Problem>,
    compiling: Compiling,
}

/// What a map made from the text as it stands would do to the logins under the keys that are ours: a person who is told to
/// compile does not look at those. Nothing but a rollover puts another login into use, after it has logged in with it.
#[derive(Debug, Clone, Default)]
struct Compiling {
    /// A key of ours that only the map has, which would be gone.
    loses: Option<String>,
    /// A login that would be another one, or none.
    changes: Option<String>,
}

impl Compiling {
    /// Why the text is not to be compiled by hand; `None`: under the keys of ours it says what the map says.
    fn harm(&self) -> Option<&str> {
        self.changes.as_deref().or(self.loses.as_deref())
    }
}

impl Postfix {
    /// `smtp` says which next hops are ours, `keys` (where given) which lookup keys exactly are, and `reload` how a
    /// reload is done: an argv array runs instead of `postfix reload`. Nothing is looked at yet.
    pub fn new(config_dir: &Path, relay: &Relay, keys: Option<Vec<String>>, reload: &Reload) -> Self {
        Self {
            config_dir: config_dir.to_owned(),
            relay: relay.clone(),
            keys,
            reload: reload.clone(),
            kept: RefCell::default(),
            found: RefCell::default(),
            compared: RefCell::default(),
        }
    }

    /// As they are now. Asked of `postconf` again where main.cf or master.cf is another one than it has read.
    fn settings(&self) -> Result<Settings, Fault> {
        for path in self.own_files() {
            trust::look(&path)?;
        }
        let id = ConfigId::of(&self.config_dir);
        if let (Some(id), Some((known, settings))) = (&id, &*self.kept.borrow())
            && id == known
        {
            return Ok(settings.clone());
        }
        let settings = self.read_settings()?;
        // Looked at before they were read, so that what was written meanwhile is not taken for what was read.
        *self.kept.borrow_mut() = id.filter(|id| id.settled(SystemTime::now())).map(|id| (id, settings.clone()));
        Ok(settings)
    }

    /// What says which programs are Postfix's. Who can write it has them run as root.
    fn own_files(&self) -> [PathBuf; 2] {
        ["main.cf", "master.cf"].map(|name| self.config_dir.join(name))
    }

    /// What `postfix` and `postmap` start and load besides: scripts, daemons, and the libraries of table types.
    fn parts(&self, settings: &Settings) -> Vec<PathBuf> {
        let in_directory = |parameter: &str, name: &str| {
            let directory = Some(settings.get(parameter)).filter(|at| at.starts_with('/'))?;
            Some(Path::new(directory).join(name))
        };
        let meta = ["dynamicmaps.cf", "dynamicmaps.cf.d", "postfix-files"];
        let parts = meta.iter().map(|name| in_directory("meta_directory", name)).chain([
            in_directory("daemon_directory", "postfix-script"),
            in_directory("daemon_directory", "master"),
            in_directory("shlib_directory", ""),
        ]);
        parts.flatten().collect()
    }

    /// Refuses Postfix's programs where somebody else could have changed what they run.
    fn trusted_parts(&self, settings: &Settings) -> Result<(), Fault> {
        self.parts(settings).iter().try_for_each(|part| Ok(trust::look(part).map(drop)?))
    }

    /// Refuses what somebody else could have written of all that is run and obeyed here, before anything is changed; what
    /// a group may change is a problem to be told.
    fn review_trust(&self, settings: &Settings) -> Result<Vec<Problem>, Fault> {
        let named = ["postmap", "postfix"].iter().map(|name| settings.program(name));
        let programs = named.chain(postconf().ok().map(OsString::from)).map(|program| vec![program]);
        let reload = match &self.reload {
            Reload::Command(argv) => Some(argv.iter().map(OsString::from).collect()),
            _ => None,
        };
        let mut doubts = Vec::new();
        for path in self.own_files().iter().chain(&self.parts(settings)) {
            doubts.extend(trust::look(path)?.unwrap_or_default());
        }
        let mut problems = Vec::new();
        let named = programs.map(|argv| (argv, false)).chain(reload.map(|argv| (argv, true)));
        for (looked, is_reload) in named.map(|(argv, is_reload)| (trust::command(&argv, None), is_reload)) {
            match looked {
                Ok(program) => doubts.extend(program.doubts),
                // Found out here, and not when a new login stands in the table.
                Err(e @ host::HostError::NotStarted { .. }) if is_reload => {
                    let what = format!("`reload` of this target: {e}, so that nothing is put in place");
                    problems.push(Problem::error(Class::Config, None, what, e.fix()));
                }
                // That it is not there is told by those who need it.
                Err(host::HostError::NotStarted { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        doubts.sort();
        doubts.dedup();
        let warn = |doubt: &trust::Doubt| Problem {
            subject: Subject::Trust,
            ..Problem::warning(Some(doubt.at.clone()), doubt.to_string(), doubt.fix())
        };
        problems.extend(doubts.iter().map(warn));
        Ok(problems)
    }

    fn read_settings(&self) -> Result<Settings, Fault> {
        let main_cf = self.config_dir.join("main.cf");
        if !main_cf.is_file() {
            return Err(Fault::new(
                Class::Config,
                format!("there is no Postfix configuration: {} is not a file", main_cf.display()),
                "set config_dir of the target to what `postconf -h config_directory` says",
            )
            .in_file(main_cf));
        }
        let mut argv = vec![postconf()?.into(), "-c".into(), self.config_dir.clone().into_os_string(), "-x".into()];
        argv.extend(PARAMETERS.iter().map(OsString::from));
        let output = host::run(&argv, None, COMMAND)?;
        if !output.status.success() {
            return Err(Fault::new(
                Class::Config,
                format!("postconf cannot read the configuration: {}", or_none(gave_up(&output.stderr))),
                format!("run: postconf -c {} -n", self.config_dir.display()),
            )
            .in_file(main_cf));
        }
        Ok(Settings::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The next hops of `relayhost`, each with the answer whether it leads to our endpoint.
    fn next_hops(&self, settings: &Settings) -> Vec<NextHop> {
        let leads = |host: &str| {
            std::iter::once(&self.relay.endpoint)
                .chain(&self.relay.endpoint_aliases)
                .any(|name| name.eq_ignore_ascii_case(host))
        };
        let hop = |spelt: &str| {
            let host = host_part(spelt).to_owned();
            NextHop { ours: leads(&host), spelt: spelt.to_owned(), host }
        };
        settings.list("relayhost").into_iter().map(hop).collect()
    }

    fn region(&self) -> Option<String> {
        self.relay.region.clone().or_else(|| ses_region(&self.relay.endpoint))
    }

    /// Everything that `inspect` and `plan` go by. `candidate` is the user name that is about to be written, where one
    /// is. Nothing is changed. What is wrong with the configuration or a table is a problem in the answer; what could
    /// not be read at all is an error.
    fn survey(&self, ours: &Ours, candidate: Option<&str>, need: Need) -> Result<Survey, Fault> {
        for _ in 1..LOOKS {
            match self.survey_once(ours, candidate, need) {
                Err(e) if e.class == Class::ChangedUnderneath => {}
                other => return other,
            }
        }
        self.survey_once(ours, candidate, need)
    }

    fn survey_once(&self, ours: &Ours, candidate: Option<&str>, need: Need) -> Result<Survey, Fault> {
        let settings = self.settings()?;
        let mut hops = self.next_hops(&settings);
        let mut problems = self.review(&settings, &hops);
        problems.extend(self.review_trust(&settings)?);
        let mut survey = Survey { problems, settings, ..Survey::default() };
        match Store::new(&survey.settings) {
            Err(problem) => survey.problems.push(*problem),
            Ok(store) => {
                let asked = Asked { ours: ours.clone(), candidate: candidate.map(str::to_owned), hops };
                self.survey_table(&mut survey, &store, &asked, need)?;
                (survey.store, hops) = (Some(store), asked.hops);
            }
        }
        survey.hops = hops;
        survey.problems.sort_by_key(|p| p.finding.severity);
        // Of two equal keys each is ours, and each has the same to be said of it.
        survey.problems.dedup_by(|a, b| a.finding == b.finding);
        Ok(survey)
    }

    fn survey_table(&self, survey: &mut Survey, store: &Store, asked: &Asked, need: Need) -> Result<(), Fault> {
        let (directory, name) = host::Directory::of(&store.text)?;
        survey.seen = directory.look(&name)?;
        let again = match survey.seen {
            Some(seen) if need == Need::Found => self.find_again(&directory, &name, seen, store, asked)?,
            _ => None,
        };
        if let Some(pick) = again {
            survey.pick = pick;
        } else if !self.read_table(survey, store, &directory, &name)? {
            return Ok(());
        } else {
            let region = self.region();
            let question = Question {
                table: &survey.table,
                file: &store.text,
                hops: &asked.hops,
                keys: self.keys.as_deref(),
                ours: &asked.ours,
                candidate: asked.candidate.as_deref(),
                region: region.as_deref(),
            };
            survey.pick = question.pick();
            let keep = survey.seen.filter(|seen| settled(seen, SystemTime::now()));
            *self.found.borrow_mut() = keep.map(|text| {
                let asked =
                    Asked { ours: asked.ours.clone(), candidate: asked.candidate.clone(), hops: asked.hops.clone() };
                Found { text, asked, pick: survey.pick.without_logins() }
            });
        }
        survey.problems.extend(survey.pick.problems.iter().cloned());
        let mut compiling = Compiling::default();
        let is_looked_up = match self.look_up_live(survey, store, asked.ours.applied.as_deref())? {
            Some((live, odd)) => {
                (survey.live, survey.odd) = (live, odd);
                let (problems, would) = self.compare_live(survey, store, &asked.hops)?;
                survey.problems.extend(self.others_in_map(survey, store, &asked.ours, &would));
                survey.problems.extend(problems);
                compiling = would;
                true
            }
            None => {
                if !store.map.as_ref().is_some_and(|map| map.exists()) {
                    survey.problems.extend(self.compare_live(survey, store, &asked.hops)?.0);
                }
                false
            }
        };
        survey.problems.extend(self.review_files(&survey.settings, store, is_looked_up.then_some(&compiling)));
        Ok(())
    }

    /// What was found before, if that still holds and nothing has to be compared: then the table is not read. The logins
    /// are read from their places in the file, which is small work on a table of any size.
    fn find_again(
        &self,
        directory: &host::Directory,
        name: &std::ffi::OsStr,
        seen: host::FileId,
        store: &Store,
        asked: &Asked,
    ) -> Result<Option<Pick>, Fault> {
        let found = self.found.borrow();
        let Some(found) = found.as_ref().filter(|found| found.text == seen && found.asked == *asked) else {
            return Ok(None);
        };
        let mut pick = found.pick.clone();
        let to_compare = match &store.map {
            Some(map) => look(map)?.is_none_or(|map| self.compared_before(seen, map, &pick.not_compared()).is_none()),
            None => false,
        };
        if to_compare {
            return Ok(None);
        }
        let parts: Vec<Range<usize>> = pick.owned.iter().filter_map(|owned| owned.at.clone()).collect();
        let mut values = match directory.read_parts(name, seen, &parts) {
            Ok(values) => values.into_iter(),
            Err(host::HostError::Changed { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        for owned in pick.owned.iter_mut().filter(|owned| owned.at.is_some()) {
            let value = values.next();
            owned.text = value.and_then(|value| Login::from_pair(std::str::from_utf8(&value).ok()?).ok());
        }
        Ok(Some(pick))
    }

    /// Reads the whole text. False: it is none that could be gone on with, and that is said.
    fn read_table(
        &self,
        survey: &mut Survey,
        store: &Store,
        directory: &host::Directory,
        name: &std::ffi::OsStr,
    ) -> Result<bool, Fault> {
        match directory.read(name, table::MAX_TABLE) {
            Err(e) if e.is_not_found() => {
                survey.seen = None;
                if let Some(map) = store.map.as_ref().filter(|map| map.exists()) {
                    let command = store.text_from_map(map, &self.config_option());
                    let mut problem = Problem::error(
                        Class::Ambiguous,
                        Some(store.text.clone()),
                        format!(
                            "the text is gone and its map {} is there: a map made from a new text would lose whatever \
                             else the old one holds",
                            map.display()
                        ),
                        match &command {
                            Some(command) => format!(
                                "bring the text back, from a backup or with: {command}; it has to stay, with the owner and \
                                 the mode that the map has"
                            ),
                            None => "bring the text back from a backup; it has to stay".to_owned(),
                        },
                    );
                    problem.subject = Subject::Table;
                    let text = store.text.display();
                    let from = if command.is_some() { ", or as follows" } else { "" };
                    problem.steps = vec![Instruction::Text(format!(
                        "bring back {text}, which has to stay: from a backup, with the owner and the mode that it had{from}"
                    ))];
                    problem.steps.extend(command.map(Instruction::Command));
                    survey.problems.push(problem);
                }
            }
            Err(e) => return Err(e.into()),
            Ok((bytes, seen)) => {
                survey.seen = Some(seen);
                match Table::of(bytes) {
                    Ok(table) => survey.table = table,
                    Err(e) => {
                        survey.problems.push(Problem::of_table(e, &store.text));
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn compared_before(
        &self,
        text: host::FileId,
        map: host::FileId,
        not_compared: &HashSet<String>,
    ) -> Option<(Vec<Problem>, Compiling)> {
        let compared = self.compared.borrow();
        let compared = compared.as_ref().filter(|compared| compared.text == text && compared.map == map)?;
        let same_keys = compared.not_compared.as_ref().is_none_or(|keys| keys == not_compared);
        same_keys.then(|| (compared.problems.clone(), compared.compiling.clone()))
    }

    /// The live map against the text: what stands in the map alone would be lost with the next compilation, and the mail of
    /// those relays with it. Nothing where they are as they were when they were compared last, or as we left them.
    fn compare_live(
        &self,
        survey: &Survey,
        store: &Store,
        hops: &[NextHop],
    ) -> Result<(Vec<Problem>, Compiling), Fault> {
        let (Some(map), Some(text)) = (&store.map, survey.seen) else { return Ok(Default::default()) };
        let not_compared = survey.pick.not_compared();
        let Some(seen) = look(map)? else {
            let only_in_text = self.goes_live(survey, store).unwrap_or_default();
            let differences = Differences { only_in_text, ..Differences::default() };
            let kind = survey.settings.redirected(store.kind);
            let mut problems = self.explain(&differences, store, kind, &survey.table, &Compiling::default());
            // Whether it is compiled by hand is said beside it.
            problems.iter_mut().for_each(|problem| problem.finding.fix = "take out what is not meant".into());
            return Ok((problems, Compiling::default()));
        };
        if let Some(compared) = self.compared_before(text, seen, &not_compared) {
            return Ok(compared);
        }
        let compiling = survey.compiling(hops);
        let mut comparison = Comparison::new(&survey.table, &not_compared);
        if let Err(words) = self.list(&survey.settings, store.kind, &store.path, &mut comparison)? {
            return Err(Fault::new(
                Class::Command,
                format!("the compiled map cannot be listed, so that it cannot be compared with its text: {words}"),
                match compiling.harm() {
                    None => format!(
                        "see what it names; it is tried again; or compile it anew: {}",
                        self.compile_command(store)
                    ),
                    Some(harm) => format!("see what it names; it is tried again. {}", not_by_hand(harm)),
                },
            )
            .temporary()
            .in_file(map.clone()));
        }
        let differences = comparison.finish();
        for (file, seen) in [(map, seen), (&store.text, text)] {
            if look(file)? != Some(seen) {
                return Err(host::HostError::Changed { path: file.clone() }.into());
            }
        }
        let kind = survey.settings.redirected(store.kind);
        let problems = self.explain(&differences, store, kind, &survey.table, &compiling);
        let now = SystemTime::now();
        *self.compared.borrow_mut() = (settled(&text, now) && settled(&seen, now)).then(|| Compared {
            text,
            map: seen,
            not_compared: Some(not_compared),
            problems: problems.clone(),
            compiling: compiling.clone(),
        });
        Ok((problems, compiling))
    }

    /// What else goes into effect with a map that is made from the text, where there is none; `None`: there is one.
    fn goes_live(&self, survey: &Survey, store: &Store) -> Option<Names> {
        let has_no_map = store.map.as_ref().is_some_and(|map| !map.exists());
        has_no_map.then(|| Comparison::new(&survey.table, &survey.pick.not_compared()).finish().only_in_text)
    }

    /// The keys of ours that only the map has, and that hold another's login there. They are not compared, whatever the map
    /// holds under them, and a map made from the text has them no more.
    fn others_in_map(&self, survey: &Survey, store: &Store, ours: &Ours, compiling: &Compiling) -> Vec<Problem> {
        // Where there is no text, that is what is said.
        let Some(map) = store.map.as_ref().filter(|_| survey.seen.is_some()) else { return Vec::new() };
        let listed = |key: &str| self.keys.iter().flatten().any(|listed| same_key(listed, key));
        let mut problems = Vec::new();
        for key in survey.pick.absent.iter().filter(|key| !listed(key)) {
            let found = match survey.live.get(key) {
                Some(login) if survey.pick.users.contains(&login.username) => continue,
                Some(login) => ours.login_of(&login.username, None),
                None if survey.odd.contains(key) => "something that is not USER:PASSWORD".to_owned(),
                None => continue,
            };
            let what = format!(
                "the key {}, which Postfix tries for the endpoint, stands only in the compiled map, and not in its text {}, \
                 and holds {found}: a map made from that text would lose it",
                shown::quoted_key(key, None),
                store.text.display()
            );
            let may_go = match &compiling.changes {
                None => format!("if it may go, compile the text: `{}`; if", self.compile_command(store)),
                Some(harm) => format!("{}. If", not_by_hand(harm)),
            };
            let fix = format!(
                "{may_go} it is a login of this credential that this host's state does not know, as after a backup was put back, \
                 list {} in the target's keys: then it is replaced, with write = false by you; else write it into the text and correct endpoint",
                shown::quoted_key(key, None)
            );
            let steps = vec![Instruction::Text(format!("{what}; {fix}"))];
            let problem = Problem::error(Class::Ambiguous, Some(map.clone()), what, fix);
            problems.push(Problem { subject: Subject::Map, steps, ..problem });
        }
        problems
    }

    /// Lists a table, as `postmap` would open it, into a comparison. The inner error is why that is not possible.
    fn list(
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
        Ok(Err(self.last_words(&output.stderr, path)))
    }

    /// What the differences of a map and its text mean, and what to do. `kind`: what Postfix really opens.
    fn explain(
        &self,
        differences: &Differences,
        store: &Store,
        kind: Kind,
        table: &Table,
        compiling: &Compiling,
    ) -> Vec<Problem> {
        let map = store.read_by_postfix();
        let Differences { only_in_map, out_of_reach, differing, only_in_text } = differences;
        let (text, compile) = (store.text.display(), self.compile_command(store));
        let mut problems = Vec::new();
        let mut error = |what: String, fix: String, steps: Vec<Instruction>| {
            let mut problem = Problem::error(Class::Ambiguous, Some(map.to_owned()), what, fix);
            (problem.subject, problem.steps) = (Subject::Map, steps);
            problems.push(problem);
        };
        let entries =
            |names: &Names| if names.count == 1 { "1 entry".into() } else { format!("{} entries", names.count) };
        let verb = |names: &Names, one: &'static str, more: &'static str| if names.count == 1 { one } else { more };
        if only_in_map.count > 0 {
            let merge = self.merge_command(only_in_map, store, kind, table);
            error(
                format!(
                    "{} of other relays {} only in the compiled map, and not in its text {text}: {}; a map made from that text \
                     would lose {}, and {} mail would bounce",
                    entries(only_in_map),
                    verb(only_in_map, "stands", "stand"),
                    only_in_map.list(),
                    verb(only_in_map, "it", "them"),
                    verb(only_in_map, "its", "their")
                ),
                match compiling.harm() {
                    None => {
                        format!(
                            "to keep them, add them to the text: `{merge}`; to let them go, compile the text: `{compile}`"
                        )
                    }
                    Some(harm) => format!(
                        "add them to the text: `{merge}`; those that are to go can be taken out of it once a rollover has put \
                         the right login there. {}",
                        not_by_hand(harm)
                    ),
                },
                vec![
                    Instruction::Text(format!(
                        "keep what only {} holds: the next command adds it to {text} (leave it out where those entries are to \
                         go)",
                        map.display()
                    )),
                    Instruction::Command(merge),
                ],
            );
        }
        if differing.count > 0 {
            let key = differing.first.first().map(|(key, _)| key.as_str()).unwrap_or_default();
            // A login in the place of a key does not go onto a command line, nor what would be an option: it is typed.
            let key = Some(quoted(key)).filter(|quoted| shown::is_key(key) && !quoted.starts_with('-'));
            let key = key.as_deref().unwrap_or("-");
            let show = format!("postmap{} -q {key} {}", self.config_option(), quoted(&store.name));
            let fix = match compiling.harm() {
                None => format!(
                    "where the map is right, write its value into the text: `{show}` shows it; where the text is right, \
                     compile it: `{compile}`"
                ),
                Some(harm) => format!(
                    "write the map's value into the text: `{show}` shows it; where the text was right, change it again once a \
                     rollover has put the right login there. {}",
                    not_by_hand(harm)
                ),
            };
            error(
                format!(
                    "{} of other relays {} another value in the compiled map than in its text {text}: {}; a map made from that \
                     text would change the login{}",
                    entries(differing),
                    verb(differing, "has", "have"),
                    differing.list(),
                    verb(differing, "", "s")
                ),
                fix.clone(),
                vec![Instruction::Text(fix)],
            );
        }
        if out_of_reach.count > 0 {
            problems.push(Problem::note(
                Some(map.to_owned()),
                format!(
                    "{} of the compiled map {} capital letters in the key, as `postmap -f` leaves it, so that Postfix never \
                     finds {}: {}; a map that is made anew leaves {} out",
                    entries(out_of_reach),
                    verb(out_of_reach, "has", "have"),
                    verb(out_of_reach, "it", "them"),
                    out_of_reach.list(),
                    verb(out_of_reach, "it", "them")
                ),
                format!("what is meant to be found, add to the text {text}, and compile that without -f"),
            ));
        }
        if only_in_text.count > 0 {
            problems.push(Problem::warning(
                Some(store.text.clone()),
                format!(
                    "{} of other relays {} only in the text, and not in its compiled map: {}; {} into effect once the map is \
                     made anew, as by the next rollover",
                    entries(only_in_text),
                    verb(only_in_text, "stands", "stand"),
                    only_in_text.list(),
                    verb(only_in_text, "it goes", "they go")
                ),
                match compiling.harm() {
                    None => format!("take out what is not meant; or put it into effect now: {compile}"),
                    Some(harm) => format!("take out what is not meant. {}", not_by_hand(harm)),
                },
            ));
        }
        problems
    }

    /// Appends to the text what only the map holds, for people. It is the shell that opens the text: owner and mode stay.
    fn merge_command(&self, names: &Names, store: &Store, kind: Kind, table: &Table) -> String {
        let (option, map, text) =
            (self.config_option(), quoted(&store.name), quoted(&store.text.display().to_string()));
        let newline = if table.ends_with_newline() { String::new() } else { format!("echo >> {text}; ") };
        let plain =
            |key: &str| key.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()) && shown::is_key(key);
        let all_named = names.count == names.first.len();
        let is_cdb = kind == Kind::Cdb;
        let shown = || names.first.iter().all(|(key, _)| shown::is_key(key));
        if all_named && (is_cdb && shown() || names.first.iter().all(|(key, _)| plain(key))) {
            let keys = names.first.iter().map(|(key, _)| quoted(key)).collect::<Vec<_>>().join(" ");
            return format!("{newline}printf '%s\\n' {keys} | postmap{option} -q - {map} >> {text}");
        }
        // texthash: reads the text as the compiler does.
        let of_text = quoted(&format!("texthash:{}", store.text.display()));
        let of_map = match is_cdb {
            // `postmap -s` cannot list it: its keys are read from the file, and looked up.
            true => format!(
                "od -An -v -tu1 {} | LC_ALL=C awk '{CDB_KEYS}' | postmap{option} -q - {map}",
                quoted(&store.read_by_postfix().display().to_string())
            ),
            false => format!("postmap{option} -s {map}"),
        };
        format!(
            "{newline}(postmap{option} -s {of_text}; echo; {of_map}) | awk -F'\\t' '!NF {{map = 1; next}} !map {{text[$1]++; next}} \
             !text[$1]++' >> {text}"
        )
    }

    fn compile_command(&self, store: &Store) -> String {
        format!("postmap{} {}", self.config_option(), quoted(&store.name))
    }

    /// What the mail server finds now under each key of the survey, in one `postmap`. A map that is missing or cannot
    /// be read (`None`) is a problem, not an error: compiling it anew is what mends it.
    fn look_up_live(
        &self,
        survey: &mut Survey,
        store: &Store,
        applied: Option<&str>,
    ) -> Result<Option<Answers>, Fault> {
        let mut keys = survey.lookups();
        keys.extend(survey.pick.candidates.iter().cloned());
        let failed = match store.read_by_postfix() {
            file if !file.exists() => None,
            _ => match self.query(&survey.settings, store.kind, &store.path, &keys)? {
                Ok(found) => return Ok(Some(found)),
                Err(words) => Some(words),
            },
        };
        if let Some(problem) = self.unsupported(&survey.settings, store.kind)? {
            survey.problems.push(problem);
        } else if let Some(words) = failed {
            survey.problems.push(Problem::warning(
                Some(store.read_by_postfix().to_owned()),
                format!("the map cannot be read, so mail waits in the queue: {words}"),
                format!("the next rollover compiles it anew{}", self.or_now(survey, store, applied)),
            ));
        } else if survey.seen.is_some() && store.map.is_some() {
            survey.problems.push(Problem::warning(
                Some(store.read_by_postfix().to_owned()),
                "the text has no compiled map, so mail waits in the queue".into(),
                format!("the next rollover compiles it{}", self.or_now(survey, store, applied)),
            ));
        }
        Ok(None)
    }

    /// Where nothing can be looked up: the command that compiles the text, if that has the applied login's user name under
    /// every key of ours.
    fn or_now(&self, survey: &Survey, store: &Store, applied: Option<&str>) -> String {
        match survey.pick.missing.is_empty() && survey.seen.is_some() && survey.holds_only(applied) {
            true => format!("; or now, and with write = false in any case: {}", self.compile_command(store)),
            false => format!(
                " ({} begins one; with write = false it says what to do). Do not compile the text by hand: {}",
                relaykey("sync"),
                "it does not hold the login that is known to work under every key that Postfix tries for the endpoint"
            ),
        }
    }

    /// Looks keys up with `postmap -q -`. The inner error is what `postmap` said when it gave up.
    fn query(
        &self,
        settings: &Settings,
        kind: Kind,
        path: &Path,
        keys: &[String],
    ) -> Result<Result<Answers, String>, Fault> {
        let mut asked = HashSet::new();
        let keys: Vec<&str> = keys.iter().map(String::as_str).filter(|key| asked.insert(*key)).collect();
        let (mut found, mut odd) = (HashMap::new(), HashSet::new());
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let mut argv = self.postmap(settings);
            argv.extend(["-q".into(), "-".into(), kind.spell(path)]);
            let lines = keys.iter().flat_map(|key| [*key, "\n"]).collect::<String>();
            let output =
                host::run(&argv, Some(lines.as_bytes()), COMMAND).map_err(|e| waited_for(e, settings, kind, path))?;
            // Exit status 1 is both "found none" and "gave up"; the latter says so at its severity.
            if !matches!(output.status.code(), Some(0 | 1)) || !gave_up(&output.stderr).is_empty() {
                return Ok(Err(self.last_words(&output.stderr, path)));
            }
            // Answers come in the order of the keys, and only for those that were found.
            let mut answers = output.stdout.split(|byte| *byte == b'\n').peekable();
            for key in keys {
                let answer = answers.peek().and_then(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b"\t"));
                if let Some(value) = answer {
                    match std::str::from_utf8(value).ok().and_then(|value| Login::from_pair(value).ok()) {
                        Some(login) => _ = found.insert((*key).to_owned(), login),
                        None => _ = odd.insert((*key).to_owned()),
                    }
                    answers.next();
                }
            }
        }
        Ok(Ok((found, odd)))
    }

    fn postmap(&self, settings: &Settings) -> Vec<OsString> {
        vec![settings.program("postmap"), "-c".into(), self.config_dir.clone().into_os_string()]
    }

    /// What a command said when it gave up, without any password that stands in the table.
    fn last_words(&self, stderr: &str, text: &Path) -> String {
        match gave_up(stderr) {
            words if words.is_empty() => "it gave no reason".into(),
            words => self.redacted(&words, text),
        }
    }

    /// The words without any password of a table; a table that cannot be read hides nothing.
    fn redacted(&self, words: &str, text: &Path) -> String {
        let table = host::read(text, table::MAX_TABLE).ok().and_then(|(bytes, _)| Table::of(bytes).ok());
        let logins = table.iter().flat_map(|table| table.entries().filter_map(|entry| entry.login()));
        Redactor::for_text(words, logins).clean(words)
    }

    /// Why `postfix check` failed. Without a terminal, postfix(1) itself speaks to the mail log only; another program
    /// that reads main.cf gives the reason aloud, where the reason stands there.
    fn check_words(&self, settings: &Settings, stderr: &str) -> Result<String, Fault> {
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
    fn unsupported(&self, settings: &Settings, kind: Kind) -> Result<Option<Problem>, Fault> {
        let argv = [postconf()?.into(), "-c".into(), self.config_dir.clone().into_os_string(), "-m".into()];
        let output = host::run(&argv, None, COMMAND)?;
        let kinds = String::from_utf8_lossy(&output.stdout);
        let name = kind.name();
        let needed = settings.redirected(kind).name();
        if output.status.success() && !kinds.lines().any(|line| line.trim() == needed) {
            let fix = match kind {
                Kind::Hash | Kind::Btree => {
                    "this Postfix is built without Berkeley DB: change smtp_sasl_password_maps to lmdb: (package \
                     postfix-lmdb) and run postmap, or follow the NON_BERKELEYDB_README"
                        .into()
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

    /// What in the settings makes a rotation lose mail, or would make us guess.
    fn review(&self, settings: &Settings, hops: &[NextHop]) -> Vec<Problem> {
        let main_cf = || Some(self.config_dir.join("main.cf"));
        let set =
            |what: &str| format!("postconf -c {} -e '{what}' && postfix -c {0} reload", self.config_dir.display());
        let mut problems = Vec::new();
        let mut error = |what: String, fix: String| problems.push(Problem::error(Class::Config, main_cf(), what, fix));

        let endpoint = &self.relay.endpoint;
        if hops.is_empty() {
            error(
                "relayhost is empty, so no next hop leads to the endpoint; next hops from transport_maps, \
                 default_transport or sender_dependent_relayhost_maps are not yet supported"
                    .into(),
                format!(
                    "if all mail of this instance is to go out through {endpoint}, set relayhost to [{endpoint}]:{}; that \
                     changes where mail goes, so it is yours to decide",
                    self.relay.port
                ),
            );
        } else if !hops.iter().any(|hop| hop.ours) {
            for hop in hops {
                error(
                    format!(
                        "relayhost {} does not lead to the endpoint {endpoint:?}: its host is {}",
                        shown::hop(&hop.spelt),
                        shown::hop(&hop.host)
                    ),
                    elsewhere(hop, &self.relay),
                );
            }
        }
        if !settings.yes("smtp_sasl_auth_enable") {
            error(
                "smtp_sasl_auth_enable = no in main.cf: Postfix logs in nowhere, whatever the table holds (-o \
                 overrides in master.cf are not yet looked at)"
                    .into(),
                set("smtp_sasl_auth_enable = yes"),
            );
        }

        let level = settings.get("smtp_tls_security_level").to_ascii_lowercase();
        let in_clear = matches!(level.as_str(), "" | "none");
        let is_ses = self.region().is_some();
        let severity = if is_ses { Severity::Error } else { Severity::Warning };
        let options: &[&str] = if in_clear {
            &["smtp_sasl_security_options"]
        } else {
            &["smtp_sasl_tls_security_options", "smtp_sasl_tls_verified_security_options"]
        };
        for option in options {
            if settings.list(option).iter().any(|word| word.eq_ignore_ascii_case("noplaintext")) {
                let also = if in_clear { "" } else { " (unset, it follows smtp_sasl_security_options)" };
                problems.push(Problem::new(
                    severity,
                    main_cf(),
                    format!(
                        "{option} contains noplaintext{also}: that excludes PLAIN and LOGIN, the mechanisms SES offers"
                    ),
                    set(&format!("{option} = noanonymous")),
                ));
                break;
            }
        }
        let filter = settings.list("smtp_sasl_mechanism_filter");
        if !["PLAIN", "LOGIN"].iter().any(|mechanism| passes(&filter, mechanism)) {
            problems.push(Problem::new(
                severity,
                main_cf(),
                "smtp_sasl_mechanism_filter lets neither PLAIN nor LOGIN pass, the mechanisms SES offers".into(),
                set("smtp_sasl_mechanism_filter = plain, login"),
            ));
        }

        let mut warning = |what: String, fix: String| problems.push(Problem::warning(main_cf(), what, fix));
        if !settings.yes("smtp_sasl_auth_soft_bounce") {
            warning(
                "smtp_sasl_auth_soft_bounce = no: mail bounces, instead of waiting, when a login is refused with 535"
                    .into(),
                set("smtp_sasl_auth_soft_bounce = yes"),
            );
        }
        if !settings.get("smtp_sasl_auth_cache_name").is_empty() {
            warning(
                format!(
                    "smtp_sasl_auth_cache_name is set: after one refusal this host does not try that login again \
                     for {}",
                    settings.get("smtp_sasl_auth_cache_time")
                ),
                set("smtp_sasl_auth_cache_name ="),
            );
        }
        let policies = settings.get("smtp_tls_policy_maps");
        if !matches!(level.as_str(), "encrypt" | "dane-only" | "fingerprint" | "verify" | "secure") {
            let said = match level.as_str() {
                "" | "none" => "none",
                "may" => "may",
                "dane" => "dane",
                _ => shown::NOT_SHOWN,
            };
            if policies.is_empty() {
                warning(
                    format!("smtp_tls_security_level is {said}: the login may go out without TLS"),
                    set("smtp_tls_security_level = encrypt"),
                );
            } else {
                problems.push(Problem::note(
                    main_cf(),
                    format!(
                        "smtp_tls_security_level is {said}, and smtp_tls_policy_maps, which may say \
                         otherwise, is not looked at"
                    ),
                    format!(
                        "make sure that it says encrypt, verify or secure for {endpoint}: postmap -q \
                         DESTINATION {}",
                        shown::tables(settings.list("smtp_tls_policy_maps"))
                    ),
                ));
            }
        }
        let mut warning = |what: String, fix: String| problems.push(Problem::warning(main_cf(), what, fix));
        for hop in hops.iter().filter(|hop| hop.ours) {
            if matches!(port_part(&hop.spelt), Some("465" | "smtps" | "submissions" | "2465"))
                && !settings.yes("smtp_tls_wrappermode")
            {
                warning(
                    format!(
                        "relayhost {} names a port for TLS from the first byte, and smtp_tls_wrappermode is no",
                        shown::hop(&hop.spelt)
                    ),
                    set("smtp_tls_wrappermode = yes"),
                );
            }
            if !hop.spelt.starts_with('[') {
                warning(
                    format!(
                        "relayhost {} is without brackets: Postfix looks up its MX hosts, and looks for a \
                         login under their names first",
                        shown::hop(&hop.spelt)
                    ),
                    set(&format!("relayhost = {}", with_brackets(hops))),
                );
            }
        }
        if settings.yes("smtp_cname_overrides_servername") {
            warning(
                "smtp_cname_overrides_servername = yes: Postfix looks for a login under the name that a CNAME \
                 leads to, which is not looked at"
                    .into(),
                set("smtp_cname_overrides_servername = no"),
            );
        }
        let mut note = |what: String, fix: String| problems.push(Problem::note(main_cf(), what, fix));
        if hops.iter().any(|hop| hop.ours) {
            for hop in hops.iter().filter(|hop| !hop.ours) {
                note(
                    format!(
                        "relayhost {} does not lead to the endpoint {endpoint:?}, and its login is left alone",
                        shown::hop(&hop.spelt)
                    ),
                    format!(
                        "if it is another name of the same server, add {} to endpoint_aliases",
                        shown::hop(&hop.host)
                    ),
                );
            }
        }
        for name in [
            "smtp_fallback_relay",
            "sender_dependent_relayhost_maps",
            "sender_dependent_default_transport_maps",
            "transport_maps",
        ] {
            let value = match name {
                "smtp_fallback_relay" => settings.list(name).into_iter().map(shown::hop).collect::<Vec<_>>().join(", "),
                _ => shown::tables(settings.list(name)),
            };
            if !settings.get(name).is_empty() {
                note(
                    format!(
                        "{name} = {value} is not yet looked at: a next hop it names keeps its login unless \
                         the table holds the applied access key id under it"
                    ),
                    "make sure that every next hop that leads to the endpoint stands in relayhost too, or in the \
                     table with the same user name"
                        .into(),
                );
            }
        }
        if !matches!(settings.get("default_transport"), "" | "smtp") {
            note(
                format!("default_transport = {} is not yet looked at", transport(settings.get("default_transport"))),
                "make sure that mail for the endpoint goes through the smtp transport and relayhost".into(),
            );
        }
        let instances = settings.get("multi_instance_directories");
        if !instances.is_empty() {
            note(
                format!("there are other Postfix instances on this host: {instances}"),
                "add a target for each of them that relays to the endpoint".into(),
            );
        }
        problems
    }

    /// Who else can read the files, and whether text and map belong together.
    /// `compiling`: `None` where the map could not be looked up, and what to do about that is said already.
    fn review_files(&self, settings: &Settings, store: &Store, compiling: Option<&Compiling>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for file in [Some(&store.text), store.map.as_ref()].into_iter().flatten() {
            if fs::metadata(file).is_ok_and(|m| m.permissions().mode() & 0o004 != 0) {
                problems.push(Problem::warning(
                    Some(file.clone()),
                    "every local user can read the logins in it, and keep it from being changed with a lock".into(),
                    format!("chmod o-r {}", quoted(&file.display().to_string())),
                ));
            }
            problems.extend(fs::metadata(file).ok().and_then(|m| review_writers(settings, file, &m)));
        }
        let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
        if let Some(map) = &store.map
            && let (Some(text), Some(compiled)) = (changed(&store.text), changed(map))
            && text > compiled + Duration::from_secs(1)
        {
            problems.push(Problem::warning(
                Some(store.text.clone()),
                "it is newer than its compiled map: whatever was edited in it goes live once it is compiled, as by the next rollover".into(),
                match compiling.map(Compiling::harm) {
                    Some(None) => format!("look at the edits, then: {}", self.compile_command(store)),
                    Some(Some(harm)) => format!("look at the edits. {}", not_by_hand(harm)),
                    None => "look at the edits".into(),
                },
            ));
        }
        problems
    }

    /// A survey as a person is told of it.
    fn task<'a>(&self, survey: &'a Survey, store: &'a Store, ours: &'a Ours, login: &'a Login) -> Task<'a> {
        let map = store.map.as_ref().map(|path| Map {
            path,
            found: &survey.live,
            only_here: survey.only_in_map().map(String::as_str).collect(),
            command: format!("postmap{} {}", self.config_option(), store.name),
        });
        Task {
            file: &store.text,
            exists: survey.seen.is_some(),
            table: &survey.table,
            ours,
            login,
            entries: survey.pick.owned.iter().map(|owned| owned.entry).collect(),
            missing: &survey.pick.missing,
            hops: survey.hops.iter().filter(|hop| hop.ours).map(NextHop::keys).collect(),
            map,
            restart: None,
        }
    }

    /// `-c DIR`, for people, where they need it.
    fn config_option(&self) -> String {
        match self.config_dir == Path::new(DEFAULT_CONFIG_DIR) {
            true => String::new(),
            false => format!(" -c {}", self.config_dir.display()),
        }
    }

    /// What a person runs where a reload is needed and we must not do it. Theirs we do not see: only a start leaves a trace that
    /// can be trusted, where we looked before it: between stop and start we surely do.
    fn restart_by_hand(&self) -> String {
        let option = self.config_option();
        format!("postfix{option} stop; {}; postfix{option} start", relaykey("sync --wait 0s"))
    }

    /// The master process that holds this instance's lock, with its start in clock ticks since boot.
    fn master(&self, settings: &Settings) -> Result<Option<(u32, u64)>, Fault> {
        let queue = PathBuf::from(settings.get("queue_directory"));
        let directory = Some(settings.get("process_id_directory")).filter(|d| !d.is_empty()).unwrap_or("pid");
        let path = queue.join(directory).join("master.pid");
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(from_io(&e, &path)),
        };
        let text = io::read_to_string(&file).map_err(|e| from_io(&e, &path))?;
        let Ok(pid) = text.trim().parse::<u32>() else { return Ok(None) };
        // The pid file outlives its process, and the number may be somebody else's by now. Only a process of that name
        // makes us try the lock, so that a master which is just starting never finds it taken by us.
        let Some(process) = Process::read(pid).filter(|process| process.name == "master") else { return Ok(None) };
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => Ok(Some((pid, process.started))),
            Err(fs::TryLockError::Error(e)) => Err(from_io(&e, &path)),
            Ok(()) => Ok(None),
        }
    }

    fn running_with(&self, settings: &Settings) -> Result<Running, Fault> {
        self.running_as_seen(settings).map(|(running, _)| running)
    }

    /// And the doubt that is left where what it uses cannot be seen: with the rights of before this was looked at, hosts go on.
    fn running_as_seen(&self, settings: &Settings) -> Result<(Running, Option<Fault>), Fault> {
        let Some((pid, ticks)) = self.master(settings)? else { return Ok((Running::No, None)) };
        let running = Running::Yes { since_boot: ticks / TICKS };
        // What is seen in the middle of a rename, or as it ends, is seen again.
        for attempt in 1.. {
            match self.reads_our_files(pid, settings) {
                Ok(()) => break,
                Err(_) if self.master(settings)? != Some((pid, ticks)) => return Ok((Running::No, None)),
                Err(_) if attempt < LOOKS => {}
                Err(Unlike::Unseen(doubt)) => return Ok((running, Some(doubt))),
                Err(Unlike::Other(e)) => return Err(e),
            }
        }
        Ok((running, None))
    }

    /// The master that holds the lock of our queue directory need not be that of our configuration directory, nor see the
    /// files that we see: another directory may name the same queue, and a container has files of its own. Then nothing that is
    /// known of our files says anything of what it uses.
    fn reads_our_files(&self, pid: u32, settings: &Settings) -> Result<(), Unlike> {
        let ours = Path::new("/");
        let its_root = PathBuf::from(format!("/proc/{pid}/root"));
        let its_directory = match started_with(pid).map_err(|e| cannot_see(pid, &self.config_dir, &e))? {
            Some(directory) => directory,
            None => compiled_in_directory().map_err(Unlike::Other)?,
        };
        let end = |root: &Path, path: &Path| match Way::of(root, path) {
            Ok((_, place)) => Ok(place),
            Err(host::HostError::Io { source, .. }) if root != ours => Err(cannot_see(pid, &self.config_dir, &source)),
            Err(e) => Err(Unlike::Other(e.into())),
        };
        let is_same = |(root, path): (&Path, &Path), (other_root, other): (&Path, &Path)| {
            Ok::<_, Unlike>(match (end(root, path)?, end(other_root, other)?) {
                (Some(one), Some(other)) => one.is_same(&other),
                (None, None) => true,
                _ => false,
            })
        };
        let directory = self.config_dir.display();
        let other = |file: PathBuf, what: String, fix: String| {
            Err(Unlike::Other(Fault::new(Class::Config, what, fix).in_file(file)))
        };
        if !is_same((&its_root, &its_directory), (&its_root, &self.config_dir))? {
            let its = its_directory.display();
            return other(
                self.config_dir.join("main.cf"),
                format!(
                    "the Postfix that runs with the queue directory {} (process {pid}) was not started with {directory}, but \
                     with {its}: what is changed in {directory} is not what it uses",
                    settings.get("queue_directory")
                ),
                format!(
                    "set config_dir of the target to {its}, or restart Postfix with {directory}: \
                     postfix -c {its} stop; postfix -c {directory} start"
                ),
            );
        }
        let tables = Store::new(settings).map(|store| store.files()).unwrap_or_default();
        for file in std::iter::once(self.config_dir.clone()).chain(self.own_files()).chain(tables) {
            if !is_same((&its_root, &file), (ours, &file))? {
                return other(
                    file.clone(),
                    format!(
                        "the Postfix that runs (process {pid}, configuration directory {}) finds something else in that place than \
                         is found from here, with {directory}: it runs in a container, or behind a mount of its own",
                        its_directory.display()
                    ),
                    format!(
                        "run relaykey where Postfix runs, or give both the same directories; to compare them: \
                         ls -lid {0} {1}{0}",
                        file.display(),
                        its_root.display()
                    ),
                );
            }
        }
        Ok(())
    }

    /// Is main.cf or master.cf newer than what the running instance has read? It reads them at its start and at a
    /// reload; at a reload its queue manager is started anew, which is the trace a reload leaves.
    fn edited_since_start(&self, settings: &Settings) -> Result<Option<&'static str>, Fault> {
        let (Some((master, started)), Some(boot)) = (self.master(settings)?, boot_time()) else { return Ok(None) };
        let newer = |ticks: u64| {
            ["main.cf", "master.cf"].into_iter().find(|name| {
                let changed = fs::metadata(self.config_dir.join(name)).map_or(0, |m| m.mtime());
                // One second of tolerance: the boot time is a whole number.
                u64::try_from(changed).is_ok_and(|changed| changed > boot + ticks / TICKS + 1)
            })
        };
        if newer(started).is_none() {
            return Ok(None);
        }
        let reloaded =
            Process::all().filter(|p| p.parent == master && matches!(p.name.as_str(), "qmgr" | "nqmgr" | "oqmgr"));
        Ok(newer(reloaded.map(|p| p.started).max().unwrap_or(started).max(started)))
    }
}

impl Mta for Postfix {
    fn inspect(&self, ours: &Ours) -> Result<View, Fault> {
        // What is true now, whatever was true before: the read-back of a rollover is one of these.
        *self.kept.borrow_mut() = None;
        let mut survey = self.survey(ours, None, Need::Found)?;
        let (running, unseen) = self.running_as_seen(&survey.settings)?;
        let mut problems = std::mem::take(&mut survey.problems);
        problems.extend(unseen.map(|doubt| {
            let problem = Problem::warning(None, doubt.what, doubt.fix);
            Problem { subject: Subject::Trust, ..problem }
        }));
        match running {
            Running::No => problems.push(Problem::warning(
                None,
                "this Postfix instance is not running".into(),
                format!("postfix -c {} start", self.config_dir.display()),
            )),
            _ => {
                if let Some(name) = self.edited_since_start(&survey.settings)? {
                    problems.push(Problem::warning(
                        Some(self.config_dir.join(name)),
                        format!(
                            "{name} is newer than the last start or reload: the reload of a rollover puts \
                             its edits into effect"
                        ),
                        format!("look at the edits, then: postfix -c {} reload", self.config_dir.display()),
                    ));
                }
            }
        }
        for key in survey.pick.missing.iter().filter(|key| !survey.live.contains_key(*key)) {
            problems.push(Problem::warning(
                survey.store.as_ref().map(|store| store.text.clone()),
                format!(
                    "it has no entry for {}: Postfix goes on without a login, and the mail bounces with 530",
                    shown::quoted_key(key, None)
                ),
                "the next rollover adds it; with write = false it says what to add".into(),
            ));
        }
        problems.sort_by_key(|p| p.finding.severity);
        let map = survey.store.as_ref().map(|store| store.name.as_str()).unwrap_or_default();
        let in_text = |owned: &Owned| Entry {
            key: owned.key.clone(),
            map: map.to_owned(),
            line: Some(owned.line),
            text: owned.text.clone(),
            live: survey.live.get(&owned.key).cloned(),
            is_live_key: owned.is_live_key,
        };
        let absent = |key: &String| Entry {
            key: key.clone(),
            map: map.to_owned(),
            line: None,
            text: None,
            live: survey.live.get(key).cloned(),
            is_live_key: true,
        };
        let (live, others): (Vec<_>, Vec<_>) = survey.pick.owned.iter().partition(|owned| owned.is_live_key);
        let entries = live
            .into_iter()
            .map(in_text)
            .chain(survey.pick.missing.iter().map(absent))
            .chain(survey.only_in_map().map(absent))
            .chain(others.into_iter().map(in_text))
            .collect();
        Ok(View {
            kind: "postfix",
            entries,
            missing: survey.pick.missing.clone(),
            running,
            doubts: problems.iter().filter(|p| p.subject == Subject::Trust).map(|p| p.finding.clone()).collect(),
            findings: problems.into_iter().map(|p| p.finding).collect(),
            left_out: survey.pick.left_out.clone(),
            files: survey.store.as_ref().map(Store::files).unwrap_or_default(),
            log: Some(survey.settings.get("maillog_file")).filter(|file| file.starts_with('/')).map(PathBuf::from),
        })
    }

    fn plan(&self, ours: &Ours, login: &Login) -> Result<Plan, Fault> {
        let survey = self.survey(ours, Some(&login.username), Need::Table)?;
        let errors = || survey.problems.iter().filter(|p| p.finding.severity == Severity::Error);
        if let Some(problem) = errors().find(|p| p.subject != Subject::Map) {
            return Err(problem.clone().into_error());
        }
        let Some(store) = &survey.store else { return Err(no_table(&self.config_dir)) };
        let mut diff = self.task(&survey, store, ours, login).explain().diff;
        let goes_live = self.goes_live(&survey, store).filter(|names| names.count > 0).map(|names| names.list());
        diff.extend(goes_live.iter().map(|names| {
            format!(
                "{}: other relays' entries that only the text has go into effect, too: {names}",
                store.text.display()
            )
        }));
        let mut changes = Vec::new();
        for owned in &survey.pick.owned {
            if owned.text.as_ref() != Some(login) {
                changes.push(Change::Replace { entry: owned.entry, login });
            }
        }
        changes.extend(survey.pick.missing.iter().map(|key| Change::Append { key, login }));
        let lookups = survey.lookups();
        let mut files = Vec::new();
        if !changes.is_empty() {
            let bytes = survey.table.render(&changes).map_err(|e| Problem::of_table(e, &store.text).into_error())?;
            files.push(PlannedFile { path: store.text.clone(), seen: survey.seen, content: Content::Bytes(bytes) });
        }
        if let Some(map) = &store.map {
            let stale =
                lookups.iter().any(|key| survey.live.get(key) != Some(login)) || survey.only_in_map().count() > 0;
            if !files.is_empty() || stale {
                let text = store.text.clone();
                let content = Content::Compiled { text, seen: survey.seen.filter(|_| files.is_empty()) };
                files.push(PlannedFile { path: map.clone(), seen: identify(map)?, content });
            }
        }
        // What stands in the map alone is lost with a new one, and with nothing to write it is not.
        if let Some(problem) = errors().next().filter(|_| !files.is_empty()) {
            return Err(problem.clone().into_error());
        }
        Ok(Plan { files, lookups, reload_needed: store.map.is_none(), diff, goes_live })
    }

    fn by_hand(&self, ours: &Ours, login: &Login) -> Result<ByHand, Fault> {
        let mut survey = self.survey(ours, Some(&login.username), Need::Table)?;
        let problems = std::mem::take(&mut survey.problems).into_iter();
        let errors: Vec<Problem> = problems.filter(|p| p.finding.severity == Severity::Error).collect();
        if let Some(problem) = errors.iter().find(|p| p.subject == Subject::Setup) {
            return Err(problem.clone().into_error());
        }
        let Some(store) = &survey.store else { return Err(no_table(&self.config_dir)) };
        let mut task = self.task(&survey, store, ours, login);
        // What a person changes is unread, whatever the kind of the table: we see to that, unless we must not.
        if !self.reload.is_ours() && self.running_with(&survey.settings)? != Running::No {
            task.restart = Some(self.restart_by_hand());
        }
        let mut by_hand = task.explain();
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
                    vec![Instruction::Text(format!("in {}{line}: {}", store.text.display(), p.finding.fix))]
                }
            };
            by_hand.steps = first.iter().flat_map(fix).collect();
        }
        Ok(by_hand)
    }

    fn compile(&self, staged_text: &Path) -> Result<PathBuf, Fault> {
        let settings = self.settings()?;
        let store = Store::new(&settings).map_err(|problem| problem.into_error())?;
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
                    format!(
                        "postmap made no {} map: {}",
                        store.kind.name(),
                        self.last_words(&output.stderr, staged_text)
                    ),
                    made_no_map(&output.stderr, staged_text),
                )
                .temporary()
                .in_file(staged_text.to_owned()),
            }),
        }
    }

    fn compare(&self, staged_text: &Path) -> Result<(), Fault> {
        let settings = self.settings()?;
        let store = Store::new(&settings).map_err(|problem| problem.into_error())?;
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
        let Differences { only_in_map, out_of_reach, differing, only_in_text } = comparison.finish();
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

    fn live_map(&self, made: &Path) -> Result<PathBuf, Fault> {
        let store = Store::new(&self.settings()?).map_err(|problem| problem.into_error())?;
        let extension = made.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        resolve(&with_extension(&store.path, extension)).map_err(|problem| problem.into_error())
    }

    fn left(&self, files: &[(PathBuf, host::FileId)]) {
        // The text comes first.
        let left = match files {
            [(_, text), (_, map)] => Some(Compared {
                text: *text,
                map: *map,
                not_compared: None,
                problems: Vec::new(),
                compiling: Compiling::default(),
            }),
            _ => None,
        };
        *self.compared.borrow_mut() = left;
    }

    fn lookup(&self, text: &Path, keys: &[String]) -> Result<Vec<Option<Login>>, Fault> {
        let settings = self.settings()?;
        let store = Store::new(&settings).map_err(|problem| problem.into_error())?;
        let live = text == store.text || text == store.path;
        if live && !store.read_by_postfix().exists() {
            return Ok(vec![None; keys.len()]);
        }
        // Where the text is a symbolic link, its map stands beside the link.
        let path = if live { &store.path } else { text };
        match self.query(&settings, store.kind, path, keys)? {
            Ok((found, _)) => Ok(keys.iter().map(|key| found.get(key).cloned()).collect()),
            Err(words) => Err(match self.unsupported(&settings, store.kind)? {
                Some(problem) => problem.into_error(),
                None => Fault::new(
                    Class::Command,
                    format!("postmap cannot look keys up: {words}"),
                    format!("try it by hand: postmap -q KEY {}:{}", store.kind.name(), path.display()),
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
        let settings = self.settings()?;
        let directory = self.config_dir.display();
        let not_running = || {
            Fault::new(
                Class::NotRunning,
                "this Postfix instance is not running, so there is nothing to reload",
                format!("postfix -c {directory} start"),
            )
            .temporary()
        };
        if self.running_with(&settings)? == Running::No {
            return Err(not_running());
        }
        let postfix = |command: &str| -> Vec<OsString> {
            vec![settings.program("postfix"), "-c".into(), self.config_dir.clone().into_os_string(), command.into()]
        };
        self.trusted_parts(&settings)?;
        let check = host::run_checking(&postfix("check"), LONG_COMMAND)?;
        if !check.status.success() {
            let edited = self.edited_since_start(&settings)?;
            let also =
                edited.map(|name| format!(" ({name} is newer than the last start or reload)")).unwrap_or_default();
            return Err(Fault::new(
                Class::Config,
                format!(
                    "`postfix check` fails, so no reload is done{also}: {}",
                    self.check_words(&settings, &check.stderr)?
                ),
                format!("mend what it names, then: postfix -c {directory} check && postfix -c {directory} reload"),
            )
            .in_file(self.config_dir.join(edited.unwrap_or("main.cf"))));
        }
        let argv = match &self.reload {
            Reload::Command(argv) => argv.iter().map(OsString::from).collect(),
            _ => postfix("reload"),
        };
        let output = host::run_mutating(&argv, None, LONG_COMMAND)?;
        if output.status.success() {
            return Ok(());
        }
        if self.running_with(&settings)? == Running::No {
            return Err(not_running());
        }
        let program = argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        let said = output.stderr.lines().map(without_values).collect::<Vec<_>>().join("\n");
        let said = match Store::new(&settings) {
            Ok(store) => self.redacted(&said, &store.text),
            Err(_) => Redactor::default().clean(&said),
        };
        let said = if said.is_empty() { "its reason is in the mail log" } else { &said };
        let fix = match &self.reload {
            // A reload by hand is not seen.
            Reload::Command(_) => format!("correct `reload` in the configuration, then: {}", relaykey("sync")),
            _ => format!("see why it fails: postfix -c {directory} reload; then: {}", relaykey("sync")),
        };
        let what = format!("the reload failed ({program}, {}): {said}", output.status);
        Err(Fault::new(Class::Command, what, fix).temporary())
    }
}

/// The states of the files that Postfix's settings are in.
#[derive(PartialEq)]
struct ConfigId([host::FileId; 2]);

impl ConfigId {
    /// `None` where one of them cannot be looked at: then nothing is kept.
    fn of(config_dir: &Path) -> Option<Self> {
        let of = |name| identify(&config_dir.join(name)).ok().flatten();
        Some(Self([of("main.cf")?, of("master.cf")?]))
    }

    /// Would another change be seen by it? File systems date changes in ticks: two within one look like one.
    fn settled(&self, now: SystemTime) -> bool {
        self.0.iter().all(|file| settled(file, now))
    }
}

/// Who could have written a table that root compiles, or its map, by the rule for what is obeyed. Postfix's own user may own
/// both: it can read them anyway, and some hosts have it so.
fn review_writers(settings: &Settings, file: &Path, m: &fs::Metadata) -> Option<Problem> {
    let (mode, uid, shown) = (m.mode() & 0o7777, m.uid(), quoted(&file.display().to_string()));
    if mode & 0o002 != 0 {
        let mut problem = Problem::error(
            Class::Permissions,
            Some(file.to_owned()),
            format!(
                "it may be changed by every user of this host (mode {mode:04o}), and what stands in it decides which \
                     logins go where"
            ),
            format!("look at what stands in it, then: `chmod go-w {shown}`"),
        );
        problem.subject = Subject::Table;
        problem.steps = vec![
            Instruction::Text(format!("every user of this host may change {shown}: look at what stands in it, then")),
            Instruction::Command(format!("chmod go-w {shown}")),
        ];
        return Some(problem);
    }
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return None;
    }
    let name = trust::user_name(uid);
    if name.as_deref().is_some_and(|name| name == "postfix" || name == settings.get("mail_owner")) {
        return None;
    }
    let named = name.map(|name| format!(" ({name})")).unwrap_or_default();
    Some(Problem::warning(
        Some(file.to_owned()),
        format!("it belongs to user id {uid}{named}, who can change which logins go where"),
        format!("chown root {shown}, if that user is not meant to"),
    ))
}

/// Is a file's last change so long ago that another one would show?
fn settled(file: &host::FileId, now: SystemTime) -> bool {
    const SETTLED: i128 = 2_000_000_000;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    i128::try_from(now).is_ok_and(|now| now - file.ctime_ns > SETTLED)
}

/// What `postconf -x` says, by parameter.
#[derive(Default, Clone)]
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn parse(text: &str) -> Self {
        let pair =
            |line: &str| line.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        Self(text.lines().filter_map(pair).collect())
    }

    /// Empty where Postfix does not know the parameter.
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn yes(&self, name: &str) -> bool {
        self.get(name).eq_ignore_ascii_case("yes")
    }

    fn list(&self, name: &str) -> Vec<&str> {
        words(self.get(name))
    }

    fn program(&self, name: &str) -> OsString {
        Path::new(self.get("command_directory")).join(name).into_os_string()
    }

    /// What Postfix really opens for a kind: 3.11 and later may answer `hash:` and `btree:` with another kind
    /// (NON_BERKELEYDB_README, "enable-redirect").
    fn redirected(&self, kind: Kind) -> Kind {
        let to = match kind {
            Kind::Hash => "default_database_type",
            Kind::Btree => "default_cache_db_type",
            _ => return kind,
        };
        let enabled = self.get("non_bdb_migration_level").starts_with("enable");
        Kind::new(self.get(to)).filter(|_| enabled).unwrap_or(kind)
    }
}

/// Splits a list as Postfix does: at commas and white space, but not inside braces.
fn words(list: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let separator = move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && (c == ',' || c.is_ascii_whitespace())
    };
    list.split(separator).filter(|word| !word.is_empty()).collect()
}

/// One destination of `relayhost`.
#[derive(Clone, PartialEq)]
struct NextHop {
    spelt: String,
    host: String,
    ours: bool,
}

impl NextHop {
    /// The keys Postfix tries, in order.
    fn keys(&self) -> [&str; 2] {
        [&self.host, &self.spelt]
    }
}

/// The host of a destination or of a lookup key: without brackets and port.
fn host_part(spelt: &str) -> &str {
    match spelt.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => spelt.split(':').next().unwrap_or(spelt),
    }
}

fn port_part(spelt: &str) -> Option<&str> {
    spelt.rsplit(']').next()?.split_once(':').map(|(_, port)| port)
}

/// What to do where `relayhost` does not lead to the endpoint. To change where mail goes is not advised.
fn elsewhere(hop: &NextHop, relay: &Relay) -> String {
    let Relay { endpoint, port, .. } = relay;
    match shown::hop(&hop.host) {
        host if shown::hop(&hop.spelt) == shown::NOT_SHOWN => format!(
            "what stands there has not the form [HOST]:PORT, and may be a login; with [{endpoint}]:{port} there mail would go to \
             {endpoint}, so it is yours to decide{}",
            if host == shown::NOT_SHOWN { "" } else { "; a login belongs into the table, and not into main.cf" }
        ),
        host => format!(
            "if it is another name of the same server, add {host} to endpoint_aliases; if this credential is for the server that \
             mail goes to now, set endpoint = {host} under [credential.smtp]; else this instance has no use for this \
             credential: take the target out of the configuration"
        ),
    }
}

/// `transport:nexthop`, as far as it may be shown.
fn transport(value: &str) -> String {
    let (name, hop) = value.split_once(':').map_or((value, None), |(name, hop)| (name, Some(hop)));
    let is_name = name.len() <= 16 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    match hop {
        _ if !is_name => shown::NOT_SHOWN.into(),
        None | Some("") => value.into(),
        Some(hop) => format!("{name}:{}", shown::hop(hop)),
    }
}

/// `relayhost` with every destination that is ours in brackets.
fn with_brackets(hops: &[NextHop]) -> String {
    let spell = |hop: &NextHop| match port_part(&hop.spelt) {
        _ if !hop.ours && shown::hop(&hop.spelt) == shown::NOT_SHOWN => shown::NOT_SHOWN.to_owned(),
        _ if !hop.ours => hop.spelt.clone(),
        Some(port) => format!("[{}]:{port}", hop.host),
        None => format!("[{}]", hop.host),
    };
    hops.iter().map(spell).collect::<Vec<_>>().join(", ")
}

/// Does `smtp_sasl_mechanism_filter` let a mechanism pass? The first pattern that matches decides; a pattern that is a
/// file or table is taken to match.
fn passes(filter: &[&str], mechanism: &str) -> bool {
    for pattern in filter {
        let (name, not) = pattern.strip_prefix('!').map_or((*pattern, false), |name| (name, true));
        if name.contains([':', '/']) || name.eq_ignore_ascii_case(mechanism) {
            return !not;
        }
    }
    filter.is_empty()
}

/// The kinds of table that are a text which we may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hash,
    Btree,
    Lmdb,
    Cdb,
    Texthash,
}

impl Kind {
    fn new(name: &str) -> Option<Self> {
        [Kind::Hash, Kind::Btree, Kind::Lmdb, Kind::Cdb, Kind::Texthash].into_iter().find(|kind| kind.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Hash => "hash",
            Kind::Btree => "btree",
            Kind::Lmdb => "lmdb",
            Kind::Cdb => "cdb",
            Kind::Texthash => "texthash",
        }
    }

    /// What `postmap` adds to the name of the text. `None`: Postfix reads the text itself.
    fn extension(self) -> Option<&'static str> {
        match self {
            Kind::Hash | Kind::Btree => Some("db"),
            Kind::Lmdb => Some("lmdb"),
            Kind::Cdb => Some("cdb"),
            Kind::Texthash => None,
        }
    }

    /// `type:path`, as `postmap` takes it.
    fn spell(self, path: &Path) -> OsString {
        let mut spelt = OsString::from(format!("{}:", self.name()));
        spelt.push(path);
        spelt
    }
}

/// Why a kind of table is not one that we write, and what to do about it.
fn refusal(map: &str) -> (String, &'static str) {
    const OWN_TABLE: &str = "move the relay's login into a table that relaykey can write: smtp_sasl_password_maps = \
                             hash:/etc/postfix/sasl_passwd (or lmdb:, btree:, cdb:, texthash:)";
    let kind = map.split_once(':').map_or(map, |(kind, _)| kind);
    let why = match kind {
        "proxy" => {
            return (
                "proxy: is not yet supported".into(),
                "name the table itself, without proxy: in front; smtp(8) opens it before it gives up root",
            );
        }
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
    (format!("smtp_sasl_password_maps is of {named}, which relaykey cannot write: {why}"), OWN_TABLE)
}

/// The one table.
struct Store {
    kind: Kind,
    /// `type:path`, as configured; the type is the default one where none was given.
    name: String,
    /// As configured.
    path: PathBuf,
    /// The text, symbolic links resolved. It need not exist.
    text: PathBuf,
    /// The compiled map (beside the configured name), links resolved. `None`: Postfix reads the text.
    map: Option<PathBuf>,
}

impl Store {
    /// Text and compiled map under their configured names, and where symbolic links lead.
    fn files(&self) -> Vec<PathBuf> {
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

    /// The command that makes the text anew from its map, for nobody else to read, with the map's owner. `None`: `postmap`
    /// cannot list a map of this kind. `option`: `-c DIR`, where it is needed.
    fn text_from_map(&self, map: &Path, option: &str) -> Option<String> {
        let (text, map) = (self.text.display(), map.display());
        (self.kind != Kind::Cdb).then(|| {
            format!(
                "(umask 077; postmap{option} -s {} > {text}.new && chown --reference={map} {text}.new && mv {text}.new {text})",
                self.name
            )
        })
    }

    fn new(settings: &Settings) -> Result<Self, Box<Problem>> {
        let main_cf = || Path::new(settings.get("config_directory")).join("main.cf");
        let refuse =
            |class, what: String, fix: &str| Box::new(Problem::error(class, Some(main_cf()), what, fix.into()));
        let maps = settings.list("smtp_sasl_password_maps");
        let map = match maps.as_slice() {
            [one] => *one,
            [] => {
                return Err(refuse(
                    Class::Config,
                    "smtp_sasl_password_maps is empty: there is no table for the login".into(),
                    &password_maps(Path::new(settings.get("config_directory"))),
                ));
            }
            several => {
                return Err(refuse(
                    Class::Unsupported,
                    format!(
                        "smtp_sasl_password_maps names {} tables ({}), which is not yet supported",
                        several.len(),
                        shown::tables(several.iter().copied())
                    ),
                    "name one table that holds the relay's login",
                ));
            }
        };
        let (kind, path) = match map.split_once(':').filter(|(kind, _)| !kind.contains(['/', '{'])) {
            Some(pair) => pair,
            None => (settings.get("default_database_type"), map),
        };
        let Some(kind) = Kind::new(kind) else {
            let (what, fix) = refusal(map);
            return Err(refuse(Class::Unsupported, what, fix));
        };
        if !path.starts_with('/') {
            return Err(refuse(
                Class::Config,
                format!(
                    "the table {} has no absolute path: Postfix would look for it in its queue directory",
                    shown::table(map)
                ),
                "write the path from / on",
            ));
        }
        let path = PathBuf::from(path);
        let map = settings.redirected(kind).extension().map(|ext| resolve(&with_extension(&path, ext))).transpose()?;
        Ok(Self { kind, name: format!("{}:{}", kind.name(), path.display()), text: resolve(&path)?, map, path })
    }

    /// The file that smtp(8) opens.
    fn read_by_postfix(&self) -> &Path {
        self.map.as_deref().unwrap_or(&self.text)
    }
}

/// `path.ext`, whatever the path ends with.
fn with_extension(path: &Path, ext: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ext);
    name.into()
}

/// The name behind all symbolic links, also where the last component does not exist yet.
fn resolve(path: &Path) -> Result<PathBuf, Box<Problem>> {
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

/// Entries that hold a user name of ours and are left, because they may be another relay's.
#[derive(Default)]
struct SameName {
    names: Names,
    line: Option<usize>,
}

impl SameName {
    fn add(&mut self, entry: &table::Entry<'_>) {
        self.names.add(&entry.key, Some(entry.line));
        self.line.get_or_insert(entry.line);
    }

    fn explain(&self, file: &Path) -> Option<Problem> {
        let count = match self.names.count {
            0 => return None,
            1 => "1 entry has".to_owned(),
            many => format!("{many} entries have"),
        };
        let mut problem = Problem::note(
            Some(file.to_owned()),
            format!(
                "{count} the user name of this credential with another password than its own, as another relay's login may, and \
                 relaykey leaves that as it is: {}",
                self.names.list()
            ),
            "nothing, where it is another relay's login; where it is to hold this credential's login, list its key in the \
             target's keys, together with every other key that is to hold that login"
                .into(),
        );
        problem.subject = Subject::Entry;
        problem.finding.line = self.line;
        Some(problem)
    }
}

/// What decides which entries are ours.
struct Question<'a> {
    table: &'a Table,
    file: &'a Path,
    hops: &'a [NextHop],
    keys: Option<&'a [String]>,
    ours: &'a Ours,
    candidate: Option<&'a str>,
    region: Option<&'a str>,
}

fn left_out(entry: &table::Entry<'_>, rule: &NameRule<'_>) -> LeftOut {
    let (key, username) = (entry.key.to_string(), entry.username().map(str::to_owned));
    LeftOut { key, username, own: rule.own_id(entry), was_found: rule.was_found(entry) }
}

/// How much of the table a survey is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Which entries are ours, and what they hold: where the text has not changed, that is known.
    Found,
    /// All of it.
    Table,
}

/// One entry that is ours.
#[derive(Clone)]
struct Owned {
    /// Its number in the table.
    entry: usize,
    key: String,
    line: usize,
    /// Where the value stands in the text, if that is on one line.
    at: Option<Range<usize>>,
    text: Option<Login>,
    is_live_key: bool,
}

/// Which entries are ours.
#[derive(Default, Clone)]
struct Pick {
    /// Live keys in lookup order, then the others by line.
    owned: Vec<Owned>,
    /// Keys that are to be added.
    missing: Vec<String>,
    /// Entries with an applied, previous or earlier user name that are not to be written.
    left_out: Vec<LeftOut>,
    /// Every key that Postfix tries for a next hop of ours, in order.
    candidates: Vec<String>,
    /// Those of them that the text has not.
    absent: Vec<String>,
    /// The user names that are ours.
    users: HashSet<String>,
    problems: Vec<Problem>,
}

impl Pick {
    /// As it may be kept.
    fn without_logins(&self) -> Self {
        let mut pick = self.clone();
        pick.owned.iter_mut().for_each(|owned| owned.text = None);
        pick
    }

    /// The keys, folded, that are ours to change, whatever text and map hold under them.
    fn not_compared(&self) -> HashSet<String> {
        let owned = self.owned.iter().map(|owned| &owned.key);
        owned.chain(&self.missing).chain(&self.candidates).map(|key| fold(key)).collect()
    }
}

impl Question<'_> {
    fn pick(&self) -> Pick {
        let mut pick = Pick::default();
        let our_hops = || self.hops.iter().filter(|hop| hop.ours);
        for key in our_hops().flat_map(NextHop::keys) {
            if !pick.candidates.iter().any(|have| same_key(have, key)) {
                pick.candidates.push(key.to_owned());
            }
        }
        let find = |key: &str| self.table.get_folded(key).map(|(entry, _)| entry);
        let live: Vec<usize> = pick.candidates.iter().filter_map(|key| find(key)).collect();
        pick.absent = pick.candidates.iter().filter(|key| find(key).is_none()).cloned().collect();
        let listed: Option<HashSet<String>> = self.keys.map(|keys| keys.iter().map(|key| fold(key)).collect());
        let is_listed = |key: &str| listed.as_ref().is_some_and(|listed| listed.contains(&fold(key)));
        let of_keys: Vec<usize> = self.keys.unwrap_or_default().iter().filter_map(|key| find(key)).collect();

        let first = live.iter().chain(&of_keys).next().map(|first| self.table.entry(*first));
        let applied = self.ours.applied.as_deref().or_else(|| first.as_ref()?.username());
        let previous = self.ours.previous.as_deref();
        let known = self.ours.known.iter().map(String::as_str);
        let users = [applied, previous, self.candidate].into_iter().flatten().chain(known).collect();
        let own = live.iter().chain(&of_keys).filter_map(|at| self.table.entry(*at).login());
        let rule = NameRule::new(self.ours, users, own);
        pick.users = rule.users.iter().map(|user| (*user).to_owned()).collect();
        let is_ours = |user: Option<&str>| user.is_some_and(|user| rule.users.contains(user));

        for &entry in &live {
            let other = &self.table.entry(entry);
            if is_listed(&other.key) || is_ours(other.username()) {
                continue;
            }
            let mut problem = self.another_login(other, applied);
            if listed.is_some() {
                // Left out on purpose, and left behind by more than one rotation.
                pick.left_out.push(left_out(other, &rule));
                problem.finding.severity = Severity::Warning;
            }
            pick.problems.push(problem);
        }

        let mut chosen: HashSet<usize> = HashSet::new();
        let mut own = |number: usize, entry: &table::Entry<'_>, is_live_key: bool| {
            if chosen.insert(number) {
                let (key, line, at, text) = (entry.key.to_string(), entry.line, entry.range(), entry.login());
                pick.owned.push(Owned { entry: number, key, line, at, text, is_live_key });
            }
        };
        for &number in &live {
            let entry = self.table.entry(number);
            if listed.is_none() || is_listed(&entry.key) {
                own(number, &entry, true);
            }
        }
        let mut pick_left = std::mem::take(&mut pick.left_out);
        let mut same_name = SameName::default();
        for (at, entry) in self.table.entries().enumerate() {
            let by_name = rule.of(&entry);
            let ours = match &listed {
                None => by_name == ByName::Ours,
                Some(_) => is_listed(&entry.key),
            };
            if ours {
                own(at, &entry, false);
                continue;
            }
            // What stands under a live key is written whatever it holds.
            if listed.is_none() && by_name == ByName::Left && !live.contains(&at) {
                same_name.add(&entry);
            }
            // Another relay's login of the same name is no key of ours that is left behind.
            let is_earlier = entry.username().is_some_and(|user| {
                self.ours.earlier.iter().any(|earlier| earlier == user)
                    && (is_access_key_id(user) || rule.is_own(&entry))
            });
            // Under a key that Postfix tries for the endpoint the name says enough.
            let by_key = || is_ours(entry.username()) && live.contains(&at);
            let is_left = listed.is_some() && (by_name == ByName::Ours || by_key()) || is_earlier;
            // A live key that is left out is there already.
            let is_new = || !pick_left.iter().any(|left| left.key == entry.key);
            if (is_left && self.candidate != entry.username() || rule.was_found(&entry)) && is_new() {
                pick_left.push(left_out(&entry, &rule));
            }
        }

        pick.left_out = pick_left;
        pick.problems.extend(same_name.explain(self.file));
        match self.keys {
            None => {
                for hop in our_hops().filter(|hop| hop.keys().iter().all(|key| find(key).is_none())) {
                    if !pick.missing.iter().any(|have| same_key(have, &hop.spelt)) {
                        pick.missing.push(hop.spelt.clone());
                    }
                }
            }
            Some(keys) => {
                for key in keys.iter().filter(|key| find(key).is_none()) {
                    if !pick.missing.iter().any(|have| same_key(have, key)) {
                        pick.missing.push(key.clone());
                    }
                }
                our_hops().for_each(|hop| pick.problems.extend(self.check_keys(hop, &is_listed)));
                let unused = |hop: &NextHop| !hop.keys().iter().any(|key| is_listed(key));
                if our_hops().count() > 0 && our_hops().all(unused) {
                    let tried = our_hops().map(|hop| shown::hop(&hop.spelt)).collect::<Vec<_>>().join(", ");
                    pick.problems.push(Problem::error(
                        Class::Config,
                        Some(self.file.to_owned()),
                        format!("keys lists no key that Postfix tries for the endpoint, so a rollover would change nothing: it tries {tried}"),
                        format!("list {tried} in keys, or take keys out: relaykey finds them"),
                    ));
                }
            }
        }

        pick.problems.extend(self.hidden_by_a_mark(&pick.candidates));
        for owned in &pick.owned {
            pick.problems.extend(self.check_region(&owned.key, Some(owned.line)));
            if let Err(e) = self.table.check_editable(owned.entry) {
                let mut problem = Problem::of_table(e, self.file);
                if !self.table.repeats(&owned.key).is_empty() {
                    problem.subject = Subject::Entry;
                }
                pick.problems.push(problem);
            }
        }
        for key in &pick.missing {
            pick.problems.extend(self.check_region(key, None));
        }
        pick
    }

    /// A byte order mark before the first line makes it one under another key.
    fn hidden_by_a_mark(&self, candidates: &[String]) -> Option<Problem> {
        let first = (!self.table.is_empty()).then(|| self.table.entry(0)).filter(|entry| entry.line == 1)?;
        let key = first.key.strip_prefix('\u{feff}')?;
        let key = candidates.iter().find(|candidate| same_key(candidate, key))?;
        let file = trust::quoted(self.file);
        let fix = match self.table.get_folded(key) {
            // Without the mark that line would come before the one that is in use.
            Some(_) => format!("take the line out, which has no effect: sed -i --follow-symlinks 1d {file}"),
            None => format!("take the mark out: sed -i --follow-symlinks '1s/^\\xef\\xbb\\xbf//' {file}"),
        };
        let mut problem = Problem::warning(
            Some(self.file.to_owned()),
            format!(
                "a byte order mark stands before {}, which Postfix takes for a part of the key, so that it never finds this line",
                shown::quoted_key(key, None)
            ),
            format!("{fix}; then: {}", relaykey("sync")),
        );
        problem.finding.line = Some(1);
        Some(problem)
    }

    /// Before a candidate is known, an unexpected login may be just that candidate, put there by a run that was killed
    /// or by hand; it is an error only once a candidate is to replace it, or where no state could explain it.
    fn another_login(&self, entry: &table::Entry<'_>, applied: Option<&str>) -> Problem {
        let found = match entry.username() {
            Some(user) => self.ours.login_of(user, self.candidate),
            None => "something that is not USER:PASSWORD".into(),
        };
        let applied = applied.and_then(|user| self.ours.shown(user, self.candidate));
        let expected = applied.map(|user| format!(", not of {user}")).unwrap_or_default();
        let severity = match (self.candidate, &self.ours.applied) {
            (None, Some(_)) => Severity::Warning,
            _ => Severity::Error,
        };
        let mut problem = Problem::new(
            severity,
            Some(self.file.to_owned()),
            format!(
                "the key {}, which Postfix tries for the endpoint, holds {found}{expected}",
                shown::quoted_key(&entry.key, Some(entry.line))
            ),
            format!(
                "if it is a login of this credential that this host's state does not know, as after a backup was put back, or \
                 is to hold the credential's login from now on, list {} in the target's keys: then it is replaced, with write = false by you. If mail is \
                 to go on with the login that stands there, leave the line, and correct endpoint (or take the target out of the \
                 configuration). Do not take the line out: Postfix would not log in, and mail would bounce",
                shown::quoted_key(&entry.key, Some(entry.line))
            ),
        );
        problem.class = Class::Ambiguous;
        problem.subject = Subject::Entry;
        problem.finding.line = Some(entry.line);
        problem
    }

    /// With `keys`: does what is listed take effect for the next hop?
    fn check_keys(&self, hop: &NextHop, is_listed: &dyn Fn(&str) -> bool) -> Option<Problem> {
        let [host, spelt] = hop.keys();
        let shadow = self.table.get_folded(host).map(|(_, entry)| entry).filter(|entry| !is_listed(&entry.key));
        if let Some(entry) = shadow.filter(|_| is_listed(spelt)) {
            let mut problem = Problem::error(
                Class::Ambiguous,
                Some(self.file.to_owned()),
                format!(
                    "keys lists {} but not {}, which Postfix finds first",
                    shown::quoted_key(spelt, None),
                    shown::quoted_key(&entry.key, Some(entry.line))
                ),
                // Without that line, what goes to another port of the host would have no login.
                format!("list {} in keys too", shown::quoted_key(&entry.key, Some(entry.line))),
            );
            problem.subject = Subject::Table;
            problem.finding.line = Some(entry.line);
            return Some(problem);
        }
        (!is_listed(host) && !is_listed(spelt)).then(|| {
            let (host, spelt) = (shown::hop(host), shown::hop(spelt));
            Problem::warning(
                None,
                format!("keys lists none of the keys that Postfix tries for relayhost {spelt}: {host}, {spelt}"),
                format!("list {spelt} in keys, or take keys out: relaykey finds them"),
            )
        })
    }

    /// SES SMTP passwords hold for one region: this one's must not go to another one's endpoint.
    fn check_region(&self, key: &str, line: Option<usize>) -> Option<Problem> {
        let other = ses_region(host_part(key)).filter(|_| !key.contains('@'))?;
        if Some(other.as_str()) == self.region {
            return None;
        }
        let key = shown::quoted_key(key, line);
        let ours = self.region.map_or("which is not known to be SES's".into(), |region| format!("in {region}"));
        let fix = if self.keys.is_some() {
            format!("take {key} out of keys, and make a credential with its own endpoint for it")
        } else {
            let if_mistyped = if self.region.is_some() { "" } else { "correct `endpoint`, if it is mistyped; else " };
            format!(
                "{if_mistyped}list in the target's keys every key but {key}, which then keeps its login, and make a \
                 credential with its own endpoint for it"
            )
        };
        let mut problem = Problem::error(
            Class::Ambiguous,
            Some(self.file.to_owned()),
            format!(
                "{key} holds the same user name for SES in {other}, and the endpoint is one {ours}: a \
                 password derived for one region is refused in another"
            ),
            fix,
        );
        problem.subject = Subject::Table;
        problem.finding.line = line;
        Some(problem)
    }
}

/// All that was found.
#[derive(Default)]
struct Survey {
    settings: Settings,
    hops: Vec<NextHop>,
    store: Option<Store>,
    /// Empty where what was found before still holds.
    table: Table,
    /// The text as it was read; `None`: there is none.
    seen: Option<host::FileId>,
    pick: Pick,
    /// What Postfix finds now, by key as asked.
    live: HashMap<String, Login>,
    /// Keys under which it finds what is no login.
    odd: HashSet<String>,
    /// Worst first.
    problems: Vec<Problem>,
}

impl Survey {
    /// The keys that must give the candidate.
    fn lookups(&self) -> Vec<String> {
        let owned = self.pick.owned.iter().map(|owned| owned.key.clone());
        owned.chain(self.pick.missing.iter().cloned()).collect()
    }

    /// What a map made from the text now would change under the keys that are ours. The table was read.
    fn compiling(&self, hops: &[NextHop]) -> Compiling {
        let value = |login: Option<&Login>, is_odd: bool| match login {
            Some(login) if self.pick.users.contains(&login.username) => {
                Some(format!("the login of {}", login.username))
            }
            Some(_) => Some("another login".to_owned()),
            None if is_odd => Some("something that is not USER:PASSWORD".to_owned()),
            None => None,
        };
        let in_map = |key: &str| value(self.live.get(key), self.odd.contains(key));
        let in_text = |key: &str| {
            let (_, entry) = self.table.get_folded(key)?;
            let login = entry.login();
            Some((value(login.as_ref(), true).unwrap_or_default(), login))
        };
        let loses = self.pick.absent.iter().find_map(|key| {
            let found = in_map(key)?;
            Some(format!("{}, where Postfix finds {found} now, would be gone", shown::quoted_key(key, None)))
        });
        let without = hops.iter().filter(|hop| hop.ours).find_map(|hop| {
            let mut found = hop.keys().into_iter().filter_map(in_map);
            let bounces = hop.keys().into_iter().all(|key| self.table.get_folded(key).is_none());
            let found = found.next().filter(|_| bounces)?;
            let spelt = &hop.spelt;
            Some(format!(
                "the text has no login for {}, for which Postfix finds {found} now: it would log in no more, and mail \
                 would bounce",
                shown::hop(spelt)
            ))
        });
        let keys = self.pick.candidates.iter().chain(self.pick.owned.iter().map(|owned| &owned.key));
        let other = || {
            keys.filter(|key| !self.pick.absent.contains(key)).find_map(|key| {
                let (would, login) = in_text(key)?;
                if login.is_some() && login.as_ref() == self.live.get(key) {
                    return None;
                }
                let now = in_map(key).unwrap_or_else(|| "nothing".into());
                let would = if would == now { format!("{would} with another password") } else { would };
                let key = shown::quoted_key(key, None);
                Some(format!(
                    "Postfix would use {would} for {key}, where it finds {now} now, and nobody has logged in with that"
                ))
            })
        };
        Compiling { changes: without.or_else(other), loses }
    }

    /// Is this the user name of every login of the text that is ours, as far as the text is known?
    fn holds_only(&self, applied: Option<&str>) -> bool {
        let is_applied = |owned: &Owned| owned.text.as_ref().map(|login| login.username.as_str()) == applied;
        let covers = |key: &String| self.pick.owned.iter().any(|owned| same_key(&owned.key, key));
        let candidates = self.pick.candidates.iter().filter(|key| !self.pick.absent.contains(key));
        applied.is_some() && candidates.into_iter().all(covers) && self.pick.owned.iter().all(is_applied)
    }

    /// Keys that Postfix tries, that are not in the text, and that the map still has: somebody took them out of the
    /// text and did not compile it, or a run was killed.
    fn only_in_map(&self) -> impl Iterator<Item = &String> {
        self.pick.absent.iter().filter(|key| {
            (self.live.contains_key(*key) || self.odd.contains(*key))
                && !self.pick.missing.iter().any(|missing| same_key(missing, key))
        })
    }
}

/// Something that is wrong, on its way to a finding or an error.
#[derive(Debug, Clone)]
struct Problem {
    class: Class,
    subject: Subject,
    finding: Finding,
    /// The same as the finding's fix, for who does it by hand; empty where the fix is words alone.
    steps: Vec<Instruction>,
}

/// What a problem is about: who edits the table by hand can mend the table, and is told of each entry anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Settings of Postfix, or of the target.
    Setup,
    /// The table, or what surrounds it.
    Table,
    /// What an entry holds, or that there are two of it.
    Entry,
    /// What stands in the compiled map and not in the text: it is lost when the map is replaced.
    Map,
    /// Who could have written what is run and obeyed; never an error.
    Trust,
}

impl Problem {
    fn new(severity: Severity, file: Option<PathBuf>, what: String, fix: String) -> Self {
        let finding = Finding { severity, line: None, file, what, fix };
        Self { class: Class::Config, subject: Subject::Setup, finding, steps: Vec::new() }
    }

    fn error(class: Class, file: Option<PathBuf>, what: String, fix: String) -> Self {
        Self { class, ..Self::new(Severity::Error, file, what, fix) }
    }

    fn warning(file: Option<PathBuf>, what: String, fix: String) -> Self {
        Self::new(Severity::Warning, file, what, fix)
    }

    fn note(file: Option<PathBuf>, what: String, fix: String) -> Self {
        Self::new(Severity::Note, file, what, fix)
    }

    fn of_table(e: Fault, file: &Path) -> Self {
        let mut problem = Self::error(e.class, Some(file.to_owned()), e.what, table::fix_for(&e.fix, file));
        problem.finding.line = e.line;
        problem.subject = Subject::Table;
        problem
    }

    fn into_error(self) -> Fault {
        let Finding { line, file, what, fix, .. } = self.finding;
        Fault::new(self.class, what, fix).in_file(file).at_line(line)
    }
}

/// One line of `/proc/PID/stat` (proc(5)).
struct Process {
    name: String,
    parent: u32,
    /// Clock ticks since boot.
    started: u64,
}

impl Process {
    /// `None`: there is no such process, or it is hidden from us.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name stands in parentheses and may contain some.
        let (head, tail) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        Some(Self {
            name: head.split_once('(')?.1.to_owned(),
            // Fields 4 and 22; the tail begins with field 3.
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn all() -> impl Iterator<Item = Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::read(entry.file_name().to_str()?.parse().ok()?))
    }
}

/// The configuration directory that a master process was started with: `master -c`, else what postfix(1) puts into its
/// environment. `None`: neither says, and it is the one that was compiled in.
fn started_with(pid: u32) -> io::Result<Option<PathBuf>> {
    let words = |name: &str| fs::read(format!("/proc/{pid}/{name}"));
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let arguments = words("cmdline")?;
    let arguments: Vec<&[u8]> = arguments.split(|b| *b == 0).collect();
    let option = arguments.iter().enumerate().find_map(|(n, word)| match word.strip_prefix(b"-c") {
        Some([]) => arguments.get(n + 1).copied(),
        other => other,
    });
    let environment = words("environ")?;
    let variable = environment.split(|b| *b == 0).find_map(|word| word.strip_prefix(b"MAIL_CONFIG="));
    Ok(option.or(variable).map(path))
}

/// Where a Postfix looks that nobody tells where to.
fn compiled_in_directory() -> Result<PathBuf, Fault> {
    let output = host::run(&[postconf()?, "-d", "-h", "config_directory"], None, COMMAND)?;
    let said = output.stdout.trim_ascii();
    let is_said = output.status.success() && said.starts_with(b"/");
    Ok(PathBuf::from(if is_said { OsStr::from_bytes(said) } else { OsStr::new(DEFAULT_CONFIG_DIR) }))
}

/// Why the Postfix that runs is not known to use our files.
enum Unlike {
    Other(Fault),
    Unseen(Fault),
}

fn cannot_see(pid: u32, config_dir: &Path, e: &io::Error) -> Unlike {
    let directory = config_dir.display();
    Unlike::Unseen(Fault::new(
        Class::Permissions,
        format!(
            "whether the Postfix that runs (process {pid}) uses the files in {directory} cannot be seen: /proc/{pid}/environ and \
             /proc/{pid}/root are not readable from here ({e})"
        ),
        "run relaykey as root where Postfix runs, not in a container of its own; with CAP_SYS_PTRACE: in CapabilityBoundingSet \
         under systemd, as in the packaged unit; with --cap-add SYS_PTRACE in a container; until then nothing tells another \
         Postfix over the same queue, or one with other files, from this one",
    ))
}

/// When the system was booted, in Unix seconds (proc(5), `/proc/stat`, btime).
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Where the distributions put it; the other programs are where Postfix says.
fn postconf() -> Result<&'static str, Fault> {
    let places = ["/usr/sbin/postconf", "/usr/local/sbin/postconf", "/usr/bin/postconf", "/opt/postfix/sbin/postconf"];
    places.into_iter().find(|place| Path::new(place).exists()).ok_or_else(|| {
        Fault::new(
            Class::Config,
            format!("Postfix is not installed: there is no {}", places.join(", no ")),
            "install Postfix, or remove the target",
        )
    })
}

/// The lines with which Postfix's programs give up, without what they quote. Their warnings are left out: both quote
/// lines of tables, and of whatever file a parameter names.
fn gave_up(stderr: &str) -> String {
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
fn without_values(line: &str) -> Cow<'_, str> {
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
fn plugin_that_is_missing(settings: &Settings, kind: &str) -> Option<(PathBuf, PathBuf)> {
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
fn made_no_map(stderr: &str, staged_text: &Path) -> String {
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
fn waited_for(e: host::HostError, settings: &Settings, kind: Kind, path: &Path) -> Fault {
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
            quoted(&map.to_string_lossy())
        )).temporary().in_file(map)
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-@%+,=".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn or_none(words: String) -> String {
    if words.is_empty() { "it gave no reason".into() } else { words }
}

/// What is said where the text is not to be compiled by hand, and what puts it right.
fn not_by_hand(harm: &str) -> String {
    format!(
        "Do not compile the text as it is: {harm}. `{}` logs in first, and then puts the login there (with \
         write = false: says how)",
        relaykey("sync")
    )
}

fn no_table(config_dir: &Path) -> Fault {
    Fault::new(
        Class::Config,
        "smtp_sasl_password_maps names no table that relaykey can write",
        password_maps(config_dir),
    )
    .in_file(config_dir.join("main.cf"))
}

/// How an instance gets a login table of its own.
fn password_maps(config_dir: &Path) -> String {
    let dir = config_dir.display();
    format!(
        "postconf -c {dir} -e 'smtp_sasl_password_maps = hash:{dir}/sasl_passwd' # or lmdb:, where postconf -m has no \
         hash; relaykey makes the table"
    )
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

/// The state of a file that is read; `None`: there is none.
fn look(path: &Path) -> Result<Option<host::FileId>, Fault> {
    let (directory, name) = host::Directory::of(path)?;
    Ok(directory.look(&name)?)
}

/// The state of a map that is about to be replaced; its bytes are of no interest. `None`: there is none.
fn identify(path: &Path) -> Result<Option<host::FileId>, Fault> {
    let (directory, name) = host::Directory::of(path)?;
    Ok(directory.look_replaceable(&name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_outside_braces() {
        for (list, expected) in [
            ("", &[][..]),
            ("hash:/a", &["hash:/a"]),
            ("hash:/a, hash:/b\thash:/c", &["hash:/a", "hash:/b", "hash:/c"]),
            ("inline:{ {a=b}, {c=d} } hash:/b", &["inline:{ {a=b}, {c=d} }", "hash:/b"]),
            ("odd } hash:/b", &["odd", "}", "hash:/b"]),
        ] {
            assert_eq!(words(list), expected, "{list:?}");
        }
    }

    #[test]
    fn parts_of_destinations() {
        for (spelt, host, port) in [
            ("[mail.example]:587", "mail.example", Some("587")),
            ("[mail.example]", "mail.example", None),
            ("mail.example:submission", "mail.example", Some("submission")),
            ("mail.example", "mail.example", None),
            ("[2001:db8::1]:25", "2001:db8::1", Some("25")),
            ("[127.0.0.1]", "127.0.0.1", None),
        ] {
            assert_eq!((host_part(spelt), port_part(spelt)), (host, port), "{spelt}");
        }
        let hop = |spelt: &str, ours| NextHop { spelt: spelt.into(), host: host_part(spelt).into(), ours };
        let hops = [hop("a:587", true), hop("b", true), hop("c:25", false), hop("[d]:25", true)];
        assert_eq!(with_brackets(&hops), "[a]:587, [b], c:25, [d]:25");
    }

    #[test]
    fn mechanism_filters() {
        for (filter, plain) in [
            ("", true),
            ("plain, login", true),
            ("PLAIN", true),
            ("login", false),
            ("!plain, static:all", false),
            ("!gssapi, static:all", true),
            ("!gssapi", false),
            ("/etc/postfix/mechanisms", true),
        ] {
            assert_eq!(passes(&words(filter), "PLAIN"), plain, "{filter:?}");
        }
    }

    #[test]
    fn settings_and_redirected_kinds() {
        let of = |level: &str| {
            Settings::parse(&format!(
                "default_database_type = lmdb\ndefault_cache_db_type = cdb\nnon_bdb_migration_level = {level}\n\
                 relayhost = a = b\nempty =\nsmtp_sasl_auth_enable = yes\n"
            ))
        };
        let settings = of("disable");
        assert_eq!((settings.get("relayhost"), settings.get("empty"), settings.get("absent")), ("a = b", "", ""));
        assert!(settings.yes("smtp_sasl_auth_enable") && !settings.yes("absent"));
        for (level, hash, btree) in [
            ("disable", Kind::Hash, Kind::Btree),
            ("", Kind::Hash, Kind::Btree),
            ("enable-redirect", Kind::Lmdb, Kind::Cdb),
            ("enable-reindex", Kind::Lmdb, Kind::Cdb),
        ] {
            let settings = of(level);
            let kinds = [Kind::Hash, Kind::Btree, Kind::Texthash].map(|kind| settings.redirected(kind));
            assert_eq!(kinds, [hash, btree, Kind::Texthash], "{level:?}");
        }
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

    #[test]
    fn this_process_is_found() {
        let this = Process::read(std::process::id()).expect("/proc has it");
        assert!(this.parent > 0 && this.started > 0 && !this.name.is_empty());
        assert!(Process::all().any(|process| process.started == this.started && process.name == this.name));
        assert!(Process::read(u32::MAX).is_none());
        assert!(boot_time().is_some());
    }
}
