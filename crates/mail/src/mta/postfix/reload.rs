//! The reload: asked for, and waited for until Postfix has taken it.
//!
//! `postfix reload` sends a signal and ends. What takes it is the master process: it reads main.cf and master.cf anew, opens what
//! they name, and ends every child that waits; one that is at work ends after it. Only then, back in its loop, does it start
//! others, its queue manager first, which it wakes itself. So a queue manager that was not there before shows that all of it is
//! done; a master process that hangs makes none, and one that cannot open what master.cf names ends.
//!
//! That wake-up may reach the queue manager that is about to end, as where two reloads follow each other closely; and with a
//! wake-up time of 0 in master.cf there is none. Then nothing starts one before mail comes, or the next wake-up, and it is woken by
//! Postfix's own postkick(1).

use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant};

use super::process::Process;
use super::settings::Settings;
use super::survey::LOOKS;
use super::tables::{LoginMaps, without_values};
use super::{LONG_COMMAND, Postfix};
use crate::credential::Redactor;
use crate::fault::{Class, Fault};
use crate::host;
use crate::instruction::relaykey;
use crate::mta::{Reload, Running};

/// How long a new queue manager is waited for. It is there within some milliseconds; later where the old one resolves thousands of
/// recipients, or where the command of the reload leaves it to somebody who looks now and then.
const TAKEN: Duration = Duration::from_secs(45);
/// The same, where the master process is stopped (SIGSTOP), and takes nothing by itself.
const STOPPED: Duration = Duration::from_secs(10);
/// Without a master process for this long, it has ended, and is not just started anew.
const GONE: Duration = Duration::from_secs(2);
/// The same, where none is seen at all: a master process that cannot open what master.cf names ends within this.
const ENDS: Duration = Duration::from_secs(3);
/// After this long without any queue manager it is woken, and again each time.
const WAKE: Duration = Duration::from_millis(500);
/// Between looks: the first pause, which doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// What is seen of a Postfix that runs.
#[derive(Debug, PartialEq, Eq)]
struct SeenProcesses {
    master: u32,
    /// Its master process was told to stop (SIGSTOP): it reads no other signal either.
    stopped: bool,
    /// Its queue managers, by process and start.
    managers: Vec<(u32, u64)>,
}

/// Has a Postfix taken the reload that was asked for after `before`?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    NotYet,
    /// No queue manager was seen before, nor is one now.
    Unseen,
    /// It has ended.
    Ended,
}

impl Taken {
    fn of(before: &SeenProcesses, now: Option<&SeenProcesses>) -> Self {
        match now {
            None => Self::Ended,
            Some(now) if now.managers.iter().any(|manager| !before.managers.contains(manager)) => Self::Yes,
            Some(_) if before.managers.is_empty() => Self::Unseen,
            Some(_) => Self::NotYet,
        }
    }
}

impl Postfix {
    /// As [`Mta::activate`](crate::mta::Mta::activate).
    pub(super) fn reload(&self) -> Result<(), Fault> {
        let settings = self.settings()?;
        let directory = self.config_dir.display();
        if self.running_with(&settings)? == Running::No {
            return Err(self.not_running());
        }
        let postfix = |command: &str| -> Vec<OsString> {
            vec![settings.program("postfix"), "-c".into(), self.config_dir.clone().into_os_string(), command.into()]
        };
        self.trusted_parts(&settings)?;
        let check = host::run_checking(&postfix("check"), LONG_COMMAND)?;
        let edited = self.edited_since_start(&settings)?;
        if !check.status.success() {
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
        let Some(before) = self.before_a_reload(&settings)? else { return Err(self.not_running()) };
        let output = host::run_mutating(&argv, None, LONG_COMMAND)?;
        if output.status.success() {
            return self.until_taken(&settings, &before, edited);
        }
        if self.running_with(&settings)? == Running::No {
            return Err(self.not_running());
        }
        let program = argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        let said = output.stderr.lines().map(without_values).collect::<Vec<_>>().join("\n");
        let maps = LoginMaps::of(&self.setup()?);
        let said =
            maps.stores().fold(Redactor::default().clean(&said), |said, (_, store)| self.redacted(&said, &store.text));
        let said = if said.is_empty() { "its reason is in the mail log" } else { &said };
        let fix = match &self.reload {
            // A reload by hand is not seen.
            Reload::Command(_) => format!("correct `reload` in the configuration, then: {}", relaykey("sync")),
            _ => format!("see why it fails: postfix -c {directory} reload; then: {}", relaykey("sync")),
        };
        let what = format!("the reload failed ({program}, {}): {said}", output.status);
        Err(Fault::new(Class::Command, what, fix).temporary())
    }

    fn not_running(&self) -> Fault {
        Fault::new(
            Class::NotRunning,
            "this Postfix instance is not running, so there is nothing to reload",
            format!("postfix -c {} start", self.config_dir.display()),
        )
        .temporary()
    }

    /// What runs now; `None`: nothing does.
    fn processes(&self, settings: &Settings) -> Result<Option<SeenProcesses>, Fault> {
        let Some((master, _)) = self.master(settings)? else { return Ok(None) };
        let stopped = Process::read(master).is_some_and(|process| process.is_stopped());
        let managers = Process::queue_managers_of(master);
        Ok(Some(SeenProcesses { master, stopped, managers: managers.map(|p| (p.pid, p.started)).collect() }))
    }

    /// Waits until Postfix has taken the reload. `edited`: what of its configuration was newer than what it had read.
    fn until_taken(
        &self,
        settings: &Settings,
        before: &SeenProcesses,
        edited: Option<&'static str>,
    ) -> Result<(), Fault> {
        let (asked, mut pause) = (Instant::now(), PAUSES.0);
        let (mut woken, mut gone) = (asked, None);
        let is_over = |patience| Instant::now() > host::looks_until(asked, patience);
        // A command may stop Postfix and start it again.
        let ends_after = if matches!(self.reload, Reload::Command(_)) { TAKEN } else { GONE };
        loop {
            let now = self.processes(settings)?;
            if now.is_some() {
                gone = None;
            }
            if now.as_ref().is_some_and(|now| now.managers.is_empty()) && woken.elapsed() > WAKE {
                self.wake_queue_manager(settings);
                woken = Instant::now();
            }
            match (Taken::of(before, now.as_ref()), now) {
                (Taken::Yes, _) => return Ok(()),
                (Taken::Unseen, _) if asked.elapsed() > ENDS => return Ok(()),
                (Taken::NotYet, Some(now)) if is_over(if now.stopped { STOPPED } else { TAKEN }) => {
                    return Err(self.not_taken(before, &now, asked.elapsed()));
                }
                (Taken::Ended, _) | (_, None)
                    if Instant::now() > host::looks_until(*gone.get_or_insert_with(Instant::now), ends_after) =>
                {
                    return Err(self.ended(edited));
                }
                (Taken::Unseen | Taken::NotYet | Taken::Ended, _) => {}
            }
            thread::sleep(pause);
            pause = PAUSES.1.min(pause * 2);
        }
    }

    /// What runs before a reload: with its queue manager, which is woken where there is none, so that one that comes afterwards has
    /// come of the reload.
    fn before_a_reload(&self, settings: &Settings) -> Result<Option<SeenProcesses>, Fault> {
        let (began, mut woken) = (Instant::now(), false);
        loop {
            let seen = self.processes(settings)?;
            match &seen {
                Some(seen) if seen.managers.is_empty() && began.elapsed() < GONE => {}
                _ => return Ok(seen),
            }
            if !woken && began.elapsed() > PAUSES.1 {
                self.wake_queue_manager(settings);
                woken = true;
            }
            thread::sleep(PAUSES.1 / 2);
        }
    }

    /// As the master process does by itself, by the clock. What comes of it is seen.
    fn wake_queue_manager(&self, settings: &Settings) {
        let of_this: [OsString; 3] =
            [settings.program("postkick"), "-c".into(), self.config_dir.clone().into_os_string()];
        let argv: Vec<OsString> = of_this.into_iter().chain(["public", "qmgr", "W"].map(OsString::from)).collect();
        let _ = host::run_checking(&argv, WAKE * 4);
    }

    fn not_taken(&self, before: &SeenProcesses, now: &SeenProcesses, waited: Duration) -> Fault {
        let (directory, master) = (self.config_dir.display(), now.master);
        let told = match &self.reload {
            Reload::Command(_) => "the command of `reload` ended without an error, but Postfix",
            _ => "Postfix was told to reload, but it",
        };
        let seen = match now.managers.iter().find(|manager| before.managers.contains(manager)) {
            Some((manager, _)) => format!("its queue manager is still that from before (process {manager})"),
            None => format!("no new queue manager has come under its master process ({master})"),
        };
        let (why, fix) = match (&self.reload, now.stopped) {
            (_, true) => (
                format!(": its master process ({master}) is stopped (SIGSTOP)"),
                format!("kill -CONT {master}; the reload is done again"),
            ),
            (Reload::Command(_), false) => (
                String::new(),
                format!(
                    "let `reload` in the configuration reload this Postfix, as `postfix -c {directory} reload` does; then: {}",
                    relaykey("sync")
                ),
            ),
            (_, false) => (
                String::new(),
                format!(
                    "see what its processes wait for; the reload is done again: ps -o pid,stat,wchan,args -p {master} --ppid {master}"
                ),
            ),
        };
        let waited = waited.as_secs();
        let what = format!("{told} has not read its configuration and tables anew: {waited} seconds later {seen}{why}");
        Fault::new(Class::ReloadOwed, what, fix).temporary()
    }

    /// With what is there now it cannot be started either: what somebody changed is to be taken back first.
    fn ended(&self, edited: Option<&'static str>) -> Fault {
        let directory = self.config_dir.display();
        let what = match edited {
            Some(name) => format!(
                "the reload put into effect what somebody had changed in {name} since the last start or reload, and Postfix ended"
            ),
            None => "Postfix ended at the reload, or right after it".to_owned(),
        };
        // Postfix may say the reason nowhere: with maillog_file, what writes that log has ended by then.
        let back = if edited.is_some() {
            "take the last change back"
        } else {
            "take back what was changed last, if anything was"
        };
        let fix = format!(
            "{back} (a port of a new service may be another program's: ss -ltnp); then: postfix -c {directory} start"
        );
        Fault::new(Class::NotRunning, what, fix)
            .temporary()
            .in_file(self.config_dir.join(edited.unwrap_or("master.cf")))
    }

    /// The doubt that is left where no queue manager of a Postfix that runs is seen, and with it not whether it takes a reload.
    pub(super) fn unseen_reload(&self, settings: &Settings) -> Result<Option<Fault>, Fault> {
        let mut master = 0;
        // Between two of them, and right after a start, there is none.
        for look in 0..LOOKS {
            match self.processes(settings)? {
                None => return Ok(None),
                Some(now) if !now.managers.is_empty() => return Ok(None),
                Some(now) => master = now.master,
            }
            if look + 1 < LOOKS {
                thread::sleep(PAUSES.1);
            }
        }
        let directory = self.config_dir.display();
        Ok(Some(Fault::new(
            Class::NotRunning,
            format!(
                "no queue manager (qmgr) of this Postfix is seen (master process {master}), so that nothing shows whether it takes a \
                 reload: it is believed to where the command of the reload ends without an error and Postfix still runs"
            ),
            format!(
                "see that qmgr stands in master.cf and runs: postconf -c {directory} -M qmgr/unix; ps -o pid,args --ppid {master}"
            ),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_taken_where_a_new_queue_manager_is_there() {
        let seen = |managers: &[(u32, u64)]| SeenProcesses { master: 7, stopped: false, managers: managers.to_vec() };
        let before = seen(&[(10, 500)]);
        for (now, taken) in [
            (Some(seen(&[(11, 600)])), Taken::Yes),
            // The number may come again, and the old one may still be at work.
            (Some(seen(&[(10, 600)])), Taken::Yes),
            (Some(seen(&[(10, 500), (11, 600)])), Taken::Yes),
            (Some(seen(&[(10, 500)])), Taken::NotYet),
            (Some(seen(&[])), Taken::NotYet),
            (None, Taken::Ended),
        ] {
            assert_eq!(Taken::of(&before, now.as_ref()), taken, "{now:?}");
        }
        let none = seen(&[]);
        assert_eq!(Taken::of(&none, Some(&seen(&[]))), Taken::Unseen);
        assert_eq!(Taken::of(&none, Some(&seen(&[(11, 600)]))), Taken::Yes);
        assert_eq!(Taken::of(&none, None), Taken::Ended);
    }
}
