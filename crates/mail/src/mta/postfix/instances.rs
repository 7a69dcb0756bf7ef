//! Other Postfix instances of this host (postmulti(1)). One that no target names is changed by nobody: what its login tables hold is
//! told with everything else, so that no key is taken for unused that it still uses.
//!
//! Where they are is said by `multi_instance_directories`, and by `alternate_config_directories` of the old style, of the target's
//! own main.cf and of the default configuration directory's; one that no main.cf names is found as long as it runs. What does not
//! run, and nothing names, is not known of.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use super::process::{Place, RunningMaster};
use super::settings::Settings;
use super::survey::{Need, Survey};
use super::{DEFAULT_CONFIG_DIR, Postfix};
use crate::fault::Fault;
use crate::finding::{Finding, Severity};
use crate::mta::{KeyIds, Ours, Reload, Running};

/// Those of today, and of the old style, which some hosts still have.
const PARAMETERS: [&str; 2] = ["multi_instance_directories", "alternate_config_directories"];

/// So long another instance's directory may take to answer: it may be on a file system that hangs, and is no target's.
const ANSWER: Duration = Duration::from_secs(3);

/// So long a look at all that it has may take.
const WHOLE_LOOK: Duration = Duration::from_secs(20);

/// What waits for an answer ends with it.
pub(super) type Silent = mpsc::Receiver<()>;

/// The configuration directories that targets name.
#[derive(Debug, Clone, Default)]
pub struct TargetDirectories {
    /// Targets of the same credential: each tells itself what its tables hold.
    pub of_credential: Vec<PathBuf>,
    /// Targets of any credential.
    pub of_all: Vec<PathBuf>,
    /// Do instances count that run here, and that no main.cf names?
    pub beside_running: bool,
}

/// What an instance is known by.
enum KnownBy {
    /// A main.cf that names it.
    MainCf(PathBuf),
    /// It runs.
    Master(RunningMaster),
}

/// What is to be said of the instances that are no target of the credential.
#[derive(Default)]
pub(super) struct OtherInstances {
    pub(super) findings: Vec<Finding>,
    /// What their login tables hold.
    pub(super) key_ids: KeyIds,
    /// What could not be listed of them.
    pub(super) incomplete: Vec<String>,
}

impl Postfix {
    /// Tells which instances of this host are targets. Without it, only this one is.
    #[must_use]
    pub fn beside(mut self, targets: TargetDirectories) -> Self {
        self.targets = targets;
        self
    }

    /// Looks at all others. What is wrong with one of them is no error of this one.
    pub(super) fn other_instances(&self, ours: &Ours, main: &Settings) -> OtherInstances {
        let mut found = OtherInstances::default();
        let own = real(&self.config_dir);
        let mut known: BTreeSet<PathBuf> = self.targets.of_credential.iter().map(|dir| real(dir)).collect();
        known.insert(own.clone());
        let default = real(Path::new(DEFAULT_CONFIG_DIR));
        let mut named = self.named_by(main, &self.config_dir);
        // The first instance, which names the others, may be none of the targets.
        if default != own && default.join("main.cf").is_file() {
            let settings = self.with_other(&default, |other| other.settings());
            named.extend(settings.iter().flat_map(|settings| self.named_by(settings, &default)));
            named.push((default.clone(), default.join("main.cf")));
        }
        for (dir, named_in) in named {
            self.look_once(dir, &KnownBy::MainCf(named_in), ours, &mut known, &mut found);
        }
        if self.targets.beside_running {
            self.running_instances(ours, main, &mut known, &mut found);
        }
        self.others.borrow_mut().retain(|dir, _| known.contains(dir));
        found
    }

    /// Those that run, and that nothing names.
    fn running_instances(
        &self,
        ours: &Ours,
        main: &Settings,
        known: &mut BTreeSet<PathBuf>,
        found: &mut OtherInstances,
    ) {
        let Some(masters) = self.in_time(Path::new("/proc"), ANSWER, RunningMaster::all) else {
            return found
                .unseen("which Postfix instances run on this host could not be seen: /proc gives no answer", WAIT);
        };
        for master in masters {
            let pid = master.pid;
            match &master.place {
                Place::Here(dir) => {
                    let mut of_it = OtherInstances::default();
                    let dir = dir.clone();
                    let by = KnownBy::Master(master);
                    self.look_once(dir, &by, ours, known, &mut of_it);
                    // One that ended meanwhile may be gone with all that it had.
                    if matches!(&by, KnownBy::Master(master) if master.still_runs()) {
                        found.join(of_it);
                    }
                }
                Place::Hidden(dir) => {
                    if known.insert(dir.clone()) {
                        self.not_read(dir, "it is not to be seen from here as the Postfix that runs with it sees it", found);
                    }
                }
                // Files that it shares with us are read for what they are.
                Place::Unseen | Place::BelowRoot(_) if self.is_of(pid, main, known) => {}
                Place::BelowRoot(root) => found.unseen(
                    &format!(
                        "another Postfix runs on this host (process {pid}) with {} for its root directory: what it has for logins \
                         was not read",
                        // One that is mounted elsewhere is called so by both.
                        if root == Path::new("/") { "another one than this".to_owned() } else { root.display().to_string() }
                    ),
                    "run relaykey in there too, as on a host of its own; without that, a key that only it uses is not known as \
                     used here",
                ),
                Place::Unseen => found.unseen(
                    &format!(
                        "another Postfix runs on this host (process {pid}), and with which configuration directory could not be \
                         seen: /proc/{pid}/environ and /proc/{pid}/root are not readable from here"
                    ),
                    "run relaykey as root, with CAP_SYS_PTRACE: in CapabilityBoundingSet under systemd, as in the packaged unit",
                ),
            }
        }
    }

    /// Is the process the master of one of these instances, or of this one?
    fn is_of(&self, pid: u32, main: &Settings, known: &BTreeSet<PathBuf>) -> bool {
        let is_its =
            |settings: &Settings| self.master(settings).is_ok_and(|its| its.is_some_and(|(its, _)| its == pid));
        let mut others =
            known.iter().chain(&self.targets.of_all).filter(|dir| !self.silent.borrow().contains_key(*dir));
        is_its(main)
            || others.any(|dir| self.with_other(dir, |other| other.settings()).is_ok_and(|settings| is_its(&settings)))
    }

    /// Looks at an instance, if that was not done yet.
    fn look_once(
        &self,
        dir: PathBuf,
        by: &KnownBy,
        ours: &Ours,
        known: &mut BTreeSet<PathBuf>,
        found: &mut OtherInstances,
    ) {
        if known.contains(&dir) {
            return;
        }
        let main_cf = dir.join("main.cf");
        let answers = self.in_time(&dir, ANSWER, move || fs::read(main_cf).map(drop).err().map(|e| e.kind()));
        if answers.is_none() {
            self.not_read(&dir, NO_ANSWER, found);
            known.insert(dir);
            return;
        }
        let dir = real(&dir);
        if known.insert(dir.clone()) {
            self.look_at_other(&dir, by, ours, found);
        }
    }

    /// Are there others on this host, which may have the same tables, as far as targets and main.cf name them?
    pub(super) fn has_others(&self, settings: &Settings) -> bool {
        self.targets.of_all.iter().any(|target| *target != self.config_dir)
            || !self.named_by(settings, &self.config_dir).is_empty()
    }

    /// Each directory, and the file that names it.
    fn named_by(&self, settings: &Settings, config_dir: &Path) -> Vec<(PathBuf, PathBuf)> {
        let dirs = PARAMETERS.into_iter().flat_map(|parameter| settings.list(parameter));
        let dirs = dirs.filter(|dir| dir.starts_with('/'));
        dirs.map(|dir| (PathBuf::from(dir), config_dir.join("main.cf"))).collect()
    }

    fn look_at_other(&self, dir: &Path, by: &KnownBy, ours: &Ours, found: &mut OtherInstances) {
        let main_cf = dir.join("main.cf");
        match (fs::metadata(&main_cf), by) {
            (Err(e), KnownBy::MainCf(named_in)) if e.kind() == io::ErrorKind::NotFound => {
                return found.findings.push(Finding {
                    severity: Severity::Note,
                    line: None,
                    file: Some(named_in.clone()),
                    what: format!(
                        "{} names {}, where there is no Postfix configuration",
                        PARAMETERS.join(" or "),
                        dir.display()
                    ),
                    fix: "nothing, if that instance is gone; else put its configuration back".into(),
                });
            }
            (Err(e), _) => return self.not_read(dir, &e.to_string(), found),
            (Ok(_), _) => {}
        }
        let other = self.take_other(dir);
        let (asked, unlisted_ok) = (ours.clone(), self.unlisted_ok.clone());
        let looked = self.in_time(dir, WHOLE_LOOK, move || {
            let looked = other.survey(&asked, None, Need::Found);
            let looked = looked.map(|survey| {
                let running = other.running_with(&survey.setup.main);
                let commands = other.command_logins(&survey.setup, &survey.reached, &unlisted_ok);
                (survey, commands, running)
            });
            (other, looked)
        });
        let Some((other, looked)) = looked else { return self.not_read(dir, NO_ANSWER, found) };
        self.others.borrow_mut().insert(dir.to_owned(), other);
        match looked {
            Err(e) => self.not_read(dir, &e.what, found),
            Ok((survey, commands, running)) => {
                found.key_ids.join(&survey.key_ids());
                found.key_ids.join(&commands.key_ids);
                found.incomplete.extend(commands.incomplete);
                found.findings.extend(commands.findings);
                found.incomplete.extend(survey.incomplete(&self.unlisted_ok));
                found.incomplete.extend(survey.not_read().map(|store| store.id().to_string()));
                let tables = survey.with_logins_for_hops();
                if tables.is_empty() || self.targets.of_all.iter().any(|target| real(target) == dir) {
                    return;
                }
                // What it has read of them is not known: nobody of ours reloads it.
                let unread = survey.tables.iter().filter(|table| table.store.needs_reload());
                found.incomplete.extend(unread.map(|table| table.store.id().to_string()));
                let state = match by {
                    KnownBy::Master(master) => {
                        format!(", which runs (process {}) and which no main.cf names,", master.pid)
                    }
                    KnownBy::MainCf(_) if matches!(running, Ok(Running::No)) => ", which does not run now,".to_owned(),
                    KnownBy::MainCf(_) => String::new(),
                };
                found.findings.push(Finding {
                    severity: Severity::Error,
                    line: None,
                    file: Some(main_cf),
                    what: format!(
                        "there are other Postfix instances on this host: {}{state} has logins for the endpoint, in {}, and is no \
                         target, so that nothing changes them, and it goes on with the key that it has",
                        dir.display(),
                        tables.join(", ")
                    ),
                    fix: format!(
                        "add to the credential: [[credential.target]] with type = \"postfix\", a name, and config_dir = \"{}\"",
                        dir.display()
                    ),
                });
            }
        }
    }

    fn not_read(&self, dir: &Path, why: &str, found: &mut OtherInstances) {
        found.incomplete.push(dir.join("main.cf").display().to_string());
        found.findings.push(Finding {
            severity: Severity::Warning,
            line: None,
            file: Some(dir.join("main.cf")),
            what: format!(
                "there are other Postfix instances on this host, and what {} has for logins could not be read: {why}",
                dir.display()
            ),
            fix: "mend what it names: until then a key that only that instance uses is not known as used here".into(),
        });
    }

    /// With what is kept of another instance from one look to the next.
    fn with_other<T>(&self, dir: &Path, look: impl FnOnce(&Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let other = self.take_other(dir);
        let looked = look(&other);
        self.others.borrow_mut().insert(dir.to_owned(), other);
        looked
    }

    fn take_other(&self, dir: &Path) -> Box<Self> {
        let kept = self.others.borrow_mut().remove(dir);
        kept.unwrap_or_else(|| Box::new(Self::new(dir, &self.relay, None, &Reload::Never)))
    }

    /// Asks about another instance's directory, in a thread of its own. `None`: there is no answer; until there is one, nothing more
    /// is asked about it.
    pub(super) fn in_time<T: Send + 'static>(
        &self,
        dir: &Path,
        within: Duration,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let mut silent = self.silent.borrow_mut();
        if silent.get(dir).is_some_and(|waits| waits.try_recv() == Err(TryRecvError::Empty)) {
            return None;
        }
        silent.remove(dir);
        let ((tell, told), (ends, ended)) = (mpsc::channel(), mpsc::channel());
        let asking = move || {
            // Nobody may listen any more.
            let _ = tell.send(ask());
            drop(ends);
        };
        thread::Builder::new().name("other-instance".into()).spawn(asking).ok()?;
        match told.recv_timeout(within) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                silent.insert(dir.to_owned(), ended);
                None
            }
        }
    }
}

impl OtherInstances {
    fn join(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.key_ids.join(&other.key_ids);
        self.incomplete.extend(other.incomplete);
    }

    /// One that runs, and of which no file can be named.
    fn unseen(&mut self, what: &str, fix: &str) {
        self.incomplete.push("another Postfix that runs".to_owned());
        let (what, fix) = (what.to_owned(), fix.to_owned());
        self.findings.push(Finding { severity: Severity::Warning, line: None, file: None, what, fix });
    }
}

impl Survey {
    /// The tables that hold a login which a service would use for a next hop of ours, or another one of ours.
    fn with_logins_for_hops(&self) -> Vec<String> {
        let has_login = |number: usize| {
            let table = self.tables.iter().find(|table| table.number == number);
            table.is_some_and(|table| !table.pick.owned.is_empty() || !table.live.is_empty() || !table.odd.is_empty())
                || self.found_in(number)
        };
        let named = self.maps.iter().enumerate().filter(|(number, _)| has_login(*number));
        named.map(|(_, map)| map.id.to_string()).collect()
    }
}

const WAIT: &str =
    "see what hangs on this host: until then a key that only such an instance uses is not known as used here";

const NO_ANSWER: &str = "its file system, or a program that was asked, gives no answer";

/// The directory behind all links, where it is there.
fn real(dir: &Path) -> PathBuf {
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}
