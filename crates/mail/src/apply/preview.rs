//! A change as people read it, and as they make it by hand, with nothing staged.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::activate::{has_read, wants_reload};
use super::inspect::endpoints_of_live_keys;
use super::session::printable;
use super::{MayChange, Previewed, Target, WhyReload};
use crate::fault::Fault;
use crate::host;
use crate::mta::{ByHand, Logins, Ours, Reload, Running};

impl Target {
    pub(super) fn preview(&mut self, ours: &Ours, logins: Logins) -> Result<Previewed, Fault> {
        let logins = logins.checked(printable)?;
        let ours = &self.about_to_be(ours, &logins)?.0;
        let Target { mta, write, .. } = &*self;
        // What we write ourselves has to be beyond doubt: there `plan` says what stands in the way.
        let planned = if *write { Some(mta.plan(ours, &logins)?) } else { None };
        let ByHand { diff, steps, differences } = mta.by_hand(ours, &logins)?;
        if self.shared.access == MayChange::Change {
            if !*write {
                // By it the caller knows again what a person was asked for.
                self.shared.keep_key()?;
            }
            // They may put it there, and then another version comes. Before the first one the caller is believed anyway.
            let store = &self.shared.store;
            if !store.own_ids(&self.id.credential)?.is_empty() {
                store.prepares(&self.id.credential, ours, logins.username())?;
            }
        }
        let live_id = match &planned {
            Some(plan) => self.planned_live_id(plan, &logins)?,
            None => self.live_id_of(ours, &logins)?,
        };
        let (diff, to_come) = match planned {
            Some(plan) if plan.is_empty() => (plan.diff, ToCome::Nothing),
            Some(plan) => {
                let over = plan.files().map(|file| (file.path.clone(), file.seen)).collect();
                (plan.diff, ToCome::Ours { over, reload_needed: plan.reload_needed })
            }
            None if diff.is_empty() => (diff, ToCome::Nothing),
            None => (diff, ToCome::ByHand),
        };
        let reload = self.foretell_reload(&to_come)?;
        Ok(Previewed { diff, reload, steps, differences, live_id })
    }

    /// The live id of the logins under the live keys, where a person puts them there.
    fn live_id_of(&self, ours: &Ours, logins: &Logins) -> Result<String, Fault> {
        let live = match self.regions.len() {
            1 => BTreeSet::new(),
            _ => endpoints_of_live_keys(&self.mta.inspect(ours)?),
        };
        self.live_id_at(&live, logins)
    }

    /// What [`Target::activate`] would come to after this, and why, by the same rules. Where no mail server runs, nothing would
    /// be reloaded for its sake; what the configuration asks for would be owed until it is started.
    pub(super) fn foretell_reload(&mut self, to_come: &ToCome) -> Result<Option<WhyReload>, Fault> {
        let running = self.mta.running()?;
        if running == Running::NotApplicable {
            return Ok(None);
        }
        match to_come {
            ToCome::Ours { reload_needed: needed, .. } if wants_reload(&self.reload, *needed) => {
                let asked = matches!(self.reload, Reload::Always | Reload::Command(_));
                return Ok(Some(if asked { WhyReload::Always } else { WhyReload::Kind }));
            }
            ToCome::ByHand if wants_reload(&self.reload, false) => return Ok(Some(WhyReload::Always)),
            ToCome::Nothing | ToCome::Ours { .. } | ToCome::ByHand => {}
        }
        if self.settled(running, false)?.is_some_and(|record| record.reload_owed.is_some()) {
            return Ok(Some(WhyReload::Owed));
        }
        // What cannot be looked at is a finding already; of it nothing is known.
        let seen = self.see().unwrap_or_default();
        let has_read = match to_come {
            ToCome::Nothing => has_read(seen.as_ref(), running)?.is_some(),
            ToCome::Ours { over, .. } => {
                let over = over.iter().map(|(path, before)| (&**path, *before));
                running == Running::No || seen.is_some_and(|seen| seen.would_notice(over))
            }
            // As nobody can know how a person does it.
            ToCome::ByHand => running == Running::No,
        };
        Ok((!has_read).then_some(WhyReload::Unread))
    }

    /// What a person is to change where `write = false`; `None`: nothing, or it is ours to change.
    pub(super) fn left_to_a_person(&mut self, ours: &Ours, logins: &Logins) -> Result<Option<Previewed>, Fault> {
        if self.write {
            return Ok(None);
        }
        self.open = None;
        let change = self.preview(ours, logins.clone())?;
        Ok(Some(change).filter(|change| !change.diff.is_empty()))
    }
}

/// What a preview has found to be done, as far as a mail server notices it.
pub(super) enum ToCome {
    Nothing,
    /// We rename over these files, which are now such.
    Ours {
        over: Vec<(PathBuf, Option<host::FileId>)>,
        reload_needed: bool,
    },
    /// A person makes the change.
    ByHand,
}
