//! How the mail server comes to read what is there, and how it is known that it has.

use relaykey_core::target::ReloadOwed;

use super::journal::{HostMoment, Instance, SeenFiles, SwapPhase, TargetRecord};
use super::{Activated, MayChange, OpenChange, Swap, Target};
use crate::fault::{Class, Fault};
use crate::mta::{Reload, Running};

impl Target {
    pub(super) fn activate(&mut self) -> Result<Activated, Fault> {
        let running = self.mta.running()?;
        if running != Running::No {
            self.ended = None;
        }
        let owed = |record: &Option<TargetRecord>| record.as_ref().is_some_and(|record| record.reload_owed.is_some());
        let owed_before = owed(&self.shared.store.get(&self.id)?);
        let mut record = self.settle(running)?;
        if running == Running::NotApplicable {
            if let (true, Some(record)) = (owed_before, &mut record) {
                self.reload_is_settled(record)?;
            }
            return Ok(Activated::Yes { how: "no-process" });
        }
        if let Some(open) = &self.open {
            self.files.clone_from(&open.files);
        }
        // Ahead of all that makes it read them: what changes later shows.
        let seen = self.see()?;
        if !owed(&record) {
            // What is open may have been changed by somebody else since, and is seen to by what follows.
            if owed_before && self.open.is_none() {
                return Ok(Activated::Yes { how: "started-after" });
            }
            match self.unread(running, record, seen.as_ref())? {
                Ok(how) => return Ok(Activated::Yes { how }),
                Err(unread) => record = unread,
            }
        }
        let not_done = |why: &str, fix: &str, temporary| (why.to_owned(), fix.to_owned(), temporary);
        let (why, fix, temporary) = match (&self.reload, running) {
            (reload, _) if !reload.is_ours() => not_done(
                "the configuration says reload = \"never\"",
                "restart the mail server: a start after the change settles it (a reload by hand is not seen)",
                false,
            ),
            (_, Running::No) => match &self.ended {
                Some(e) => not_done(&e.what, &e.fix, true),
                None => not_done(
                    "the mail server is not running",
                    "start it: a start after the change settles the reload",
                    true,
                ),
            },
            (reload, _) => match self.mta.activate() {
                Ok(()) => {
                    let how = if matches!(reload, Reload::Command(_)) { "command" } else { "reload" };
                    self.remember(seen.as_ref(), true)?;
                    if let Some(record) = &mut record {
                        self.reload_is_settled(record)?;
                    }
                    return Ok(Activated::Yes { how });
                }
                Err(e) => {
                    self.ended = Some(&e).filter(|e| e.class == Class::NotRunning).cloned();
                    (e.what, e.fix, e.temporary)
                }
            },
        };
        // A start after this look will have read them so.
        self.remember(seen.as_ref(), false)?;
        if let Some(mut record) = record {
            record.reload_owed = Some(ReloadOwed { since: record.swapped.wall, why: why.clone() });
            self.shared.store.set(&self.id, Some(record))?;
        }
        Ok(Activated::Owed { why, fix, temporary })
    }

    /// How the table's files are, and since when that is known. `None`: which they are is not known yet.
    pub(super) fn see(&mut self) -> Result<Option<SeenFiles>, Fault> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let now = SeenFiles::now(&self.files, Instance::now(self.mta.instance()?)?)?;
        let may_change = self.shared.access == MayChange::Change;
        let mut seen =
            self.shared.store.look(&self.id, now, self.seen.as_ref(), &self.shared.configured, may_change)?;
        // Asked after the look: one that was started in between may have read something else.
        if may_change && !seen.read && !seen.stopped && self.mta.running()? == Running::No {
            seen.stopped = true;
            self.shared.store.note(&self.id, &seen, &self.shared.configured)?;
        }
        self.seen = Some(seen.clone());
        Ok(Some(seen))
    }

    pub(super) fn set_seen(&self, seen: &SeenFiles) -> Result<(), Fault> {
        self.shared.store.set_seen(&self.id, seen, &self.shared.configured)
    }

    /// Remembers how the files were, durably, and whether the mail server has read them so.
    pub(super) fn remember(&mut self, seen: Option<&SeenFiles>, read: bool) -> Result<(), Fault> {
        let Some(seen) = seen else { return Ok(()) };
        let read = seen.read || read;
        let seen = SeenFiles { read, overtaken: seen.overtaken && !read, ..seen.clone() };
        self.set_seen(&seen)?;
        if let Some(OpenChange { swap: Swap::Done { reloaded, .. }, .. }) = &mut self.open {
            *reloaded |= read;
        }
        self.seen = Some(seen);
        Ok(())
    }

    /// No reload is owed: has the mail server read what is there, and how so? Else a record for the reload that is
    /// needed: unless that very table was seen before the mail server was started, or was read by it before. Time stamps of
    /// the wall clock prove neither, as it may have been set; a reload by hand leaves no trace that could be trusted; and one
    /// more does no harm.
    ///
    /// Needed it is for every kind of table. A running smtp(8) may miss that a map was rewritten in place, as it goes by the
    /// modification time in whole seconds; and it goes on with a file that was moved aside, as long as that has a name.
    pub(super) fn unread(
        &mut self,
        running: Running,
        known: Option<TargetRecord>,
        seen: Option<&SeenFiles>,
    ) -> Result<Result<&'static str, Option<TargetRecord>>, Fault> {
        if self.open.is_none() && !seen.is_some_and(|seen| seen.overtaken) {
            return Ok(Ok("nothing-owed"));
        }
        match has_read(seen, running)? {
            Some(HasRead::Before) => {
                let how = match &self.open {
                    Some(OpenChange { swap: Swap::Done { reloaded: true, .. }, .. }) => "reload",
                    // Known as read, as it went over what was.
                    Some(open) if open.change.replaced_any() => "indexed-map",
                    _ => "read-before",
                };
                self.remember(seen, false)?;
                return Ok(Ok(how));
            }
            Some(HasRead::AtItsStart) => {
                self.remember(seen, true)?;
                return Ok(Ok("started-after"));
            }
            Some(HasRead::WillAtItsStart) => {
                self.remember(seen, false)?;
                return Ok(Ok("not-running"));
            }
            None => {}
        }
        // Of what nobody of ours has put there, it is remembered with the files.
        let Some(open) = &self.open else { return Ok(Err(None)) };
        let swapped = HostMoment::now()?;
        if let Some(known) = known.filter(|record| record.live_id == open.live_id) {
            return Ok(Err(Some(TargetRecord { swapped, ..known })));
        }
        let (version, live_id, logins) = (open.version.clone(), open.live_id.clone(), open.regional.clone());
        let usernames = Vec::new();
        let (phase, reload_owed, ahead, tables) = (SwapPhase::Committed, None, None, open.written.clone());
        Ok(Err(Some(TargetRecord { version, usernames, live_id, logins, phase, reload_owed, swapped, ahead, tables })))
    }
}

/// How it is known that a mail server goes by the files that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HasRead {
    /// It was made to read them, or noticed our rename.
    Before,
    /// It was started after they were seen so.
    AtItsStart,
    /// It does not run.
    WillAtItsStart,
}

/// Is that known? `None`: it is not, and takes a reload.
pub(super) fn has_read(seen: Option<&SeenFiles>, running: Running) -> Result<Option<HasRead>, Fault> {
    Ok(match seen {
        Some(seen) if seen.read => Some(HasRead::Before),
        _ if running == Running::No => Some(HasRead::WillAtItsStart),
        Some(seen) if seen.is_before_start(running, &HostMoment::now()?) => Some(HasRead::AtItsStart),
        _ => None,
    })
}

/// Does this setting ask for a reload after a swap?
pub(super) fn wants_reload(reload: &Reload, needed: bool) -> bool {
    match reload {
        Reload::Always | Reload::Command(_) => true,
        Reload::IfNeeded | Reload::Never => needed,
    }
}
