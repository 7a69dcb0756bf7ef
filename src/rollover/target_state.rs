//! What is durable about one target: what the mail server was last found to use, what was put in place there and never
//! confirmed, what waits to be changed, and when it is tried again.

use jiff::Timestamp;
use relaykey_core::report::{MailServer, StillHeld};
use relaykey_core::target::{ReloadOwed, Swapped};
use serde::{Deserialize, Serialize};

use super::facts::{HeldFacts, SourceVersion};
use super::own_login::OwnLoginTrials;
use super::state::{Applied, State};
use crate::credential::{NOT_SHOWN, RegionalLogin, SourceIdentity, VersionId, is_access_key_id};
use crate::fault::Failure;
use crate::instruction::Instruction;
use crate::text;

/// What would change in one target, masked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "WrittenChange", into = "WrittenChange")]
pub struct PlannedChange {
    /// One line per entry. Empty: nothing is to be written.
    pub diff: Vec<String>,
    /// What a person does who makes the change by hand, in this order.
    pub steps: Vec<Instruction>,
    /// How what is there differs from the candidate, where somebody has begun to change it.
    pub differences: Vec<String>,
    /// Would the mail server be reloaded?
    pub reload: bool,
}

/// [`PlannedChange`] in JSON. 0.1.0 has the steps as texts alone, and reads no others; what is a command stands in `todo`.
#[derive(Serialize, Deserialize)]
struct WrittenChange {
    #[serde(deserialize_with = "text::on_one_line")]
    diff: Vec<String>,
    steps: Vec<String>,
    #[serde(default)]
    todo: Vec<Instruction>,
    #[serde(deserialize_with = "text::on_one_line")]
    differences: Vec<String>,
    reload: bool,
}

impl From<WrittenChange> for PlannedChange {
    fn from(written: WrittenChange) -> Self {
        let WrittenChange { diff, steps, todo, differences, reload } = written;
        let steps = if todo.is_empty() { steps.into_iter().map(Instruction::Text).collect() } else { todo };
        Self { diff, steps, differences, reload }
    }
}

impl From<PlannedChange> for WrittenChange {
    fn from(change: PlannedChange) -> Self {
        let PlannedChange { diff, steps, differences, reload } = change;
        Self { diff, steps: Instruction::plain(&steps), todo: steps, differences, reload }
    }
}

#[derive(Debug, Clone, PartialEq, Hash, Default, Serialize, Deserialize)]
pub struct TargetState {
    /// Live id under every key of ours when the applied version was read back.
    pub live_id: Option<String>,
    /// Each login of the applied version, where it has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regional: Vec<RegionalLogin>,
    /// The numbers of the endpoints whose logins stood there then; none: the default one's, which is 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<usize>,
    /// The applied version has a ready-made password, for one of several regions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_region: bool,
    pub retry: Retry,
    /// First 535 that a version met here: from then on `propagation` counts for it.
    pub first_refused: Option<FirstRefused>,
    /// When drift was healed, within the last hour.
    pub heals: Vec<Timestamp>,
    /// Why a reload is owed, as last seen.
    pub reload_owed: Option<ReloadOwed>,
    /// Why the mail server may not go by what is there, where nothing may reload it, as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<ReloadOwed>,
    /// What waits to be changed here, by relaykey once it may, or by hand.
    #[serde(default)]
    pub change: Option<PlannedChange>,
    /// As seen at the last look; `None`: it was not looked at.
    #[serde(default)]
    pub mail_server: Option<MailServer>,
    /// What the mail server was found to use when it was last looked up.
    #[serde(default)]
    pub in_use: Option<InUse>,
    /// What logins of our own with the applied version came to, since the mail log first told of a refusal. Kept by the
    /// first of several targets that log in alike.
    #[serde(default)]
    pub own_login: Option<OwnLoginTrials>,
    /// When somebody else wrote to the table between a swap and its read-back, within the last hour.
    #[serde(default)]
    pub overtaken: Vec<Timestamp>,
    /// Versions that were put in place here and never confirmed, the latest last. Over with the next confirmation.
    #[serde(default)]
    pub begun: Vec<Begun>,
    /// The login of the version that waits, as far as it was compared with what is here: by it somebody's change by hand is
    /// told from another login of the same user name.
    #[serde(default)]
    pub wanted: Option<WantedLogin>,
    /// What its login tables hold beside the login in use; `None`: it was not looked at by a release that looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldBeside>,
}

/// What login tables hold beside the login in use, as last seen; and what of it was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct HeldBeside {
    /// As a report tells it.
    #[serde(flatten)]
    pub seen: StillHeld,
    /// The mark of that.
    mark: String,
    /// The mark of what the last confirmation says; `None`: it says nothing of it, as those of 0.1.0.
    confirmed: Option<String>,
    /// The mark of what was seen right before that, where nothing was written in between: the same thing in the eyes of a look.
    looked: Option<String>,
}

impl HeldBeside {
    /// It was looked at.
    pub(super) fn see(&mut self, found: &HeldFacts) {
        (self.seen, self.mark) = (found.told.clone(), found.mark.clone());
    }

    /// It was read back, and is confirmed with that. `wrote`: the login was put in place just before.
    pub(super) fn confirm(&mut self, read_back: &HeldFacts, wrote: bool) {
        self.looked = Some(std::mem::take(&mut self.mark)).filter(|_| !wrote);
        self.confirmed = Some(read_back.mark.clone());
        self.see(read_back);
    }

    /// Would a confirmation say something else now?
    pub(super) fn differs(&self) -> bool {
        ![&self.confirmed, &self.looked].into_iter().any(|known| known.as_ref() == Some(&self.mark))
    }
}

/// The login of a version, as one target would hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WantedLogin {
    #[serde(flatten)]
    pub id: VersionId,
    pub live_id: String,
}

/// A version that this host put in place, or asked a person to put there, and did not confirm: the run was killed between its
/// swap and its commit, or another version came before the change by hand was seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Begun {
    #[serde(flatten)]
    pub id: VersionId,
    pub source: Option<SourceIdentity>,
    pub username: String,
    /// Live id of its login.
    pub live_id: String,
    /// Was it found in use? It may have been killed with the text renamed and the compiled map not.
    pub used: bool,
    /// Something that this host did not put there was found in its place since.
    #[serde(default)]
    pub gone: bool,
    /// It was told that another version came before it was confirmed.
    #[serde(default)]
    pub told: bool,
    /// A person was asked to put it there, and this host wrote nothing.
    #[serde(default)]
    pub by_hand: bool,
}

impl Begun {
    /// Is it this very version?
    pub(super) fn is(&self, found: &SourceVersion) -> bool {
        found.is(&self.id, self.source.as_ref())
    }

    /// Was only a part of it put in place, as far as was seen? What a person was asked for is theirs to begin.
    pub fn is_half_done(&self) -> bool {
        !self.used && !self.by_hand && !self.gone
    }
}

/// Does this user name alone tell one version's login from another's? Of an access key id there is one password for one
/// region; `apikey` is everybody's, and a password may change under one name.
pub(super) fn tells_apart(username: &str, applied: Option<&Applied>) -> bool {
    is_access_key_id(username) && applied.is_none_or(|applied| applied.username != username)
}

/// So many are remembered.
pub(super) const BEGUN: usize = 8;

/// What a look at the mail server's tables found: not what this host put there, but what is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InUse {
    /// When it was looked up. While nothing changes it is written down once an hour.
    pub at: Timestamp,
    /// The user names under the live keys, each once; empty: there is no login.
    pub usernames: Vec<String>,
    /// The one live id under every live key; `None`: none, or they differ.
    pub live_id: Option<String>,
}

/// How what is in use stands to what this host wants there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// The applied version.
    Applied,
    /// The version that is to take its place.
    Pending,
    /// A version that this host put there and never confirmed, and that is not the one to come any more.
    Begun,
    /// Somebody else's login, or another password.
    Other,
    /// No login at all.
    Nothing,
}

impl TargetState {
    /// What this target was last found to hold; `None`: it was not looked up yet.
    pub fn holds(&self, state: &State) -> Option<Holds> {
        let found = self.in_use.as_ref()?;
        let only = |username: &str| {
            username != NOT_SHOWN && !found.usernames.is_empty() && found.usernames.iter().all(|u| u == username)
        };
        let begun = found.live_id.as_ref().and_then(|live_id| self.has_begun(live_id));
        Some(match (&self.live_id, &state.applied, &state.candidate) {
            _ if found.usernames.is_empty() => Holds::Nothing,
            (Some(expected), Some(_), _) if found.live_id.as_ref() == Some(expected) => Holds::Applied,
            (_, _, Some(candidate)) if begun.is_some_and(|begun| begun.id == candidate.id) => Holds::Pending,
            _ if begun.is_some() => Holds::Begun,
            (Some(_), applied, Some(candidate))
                if self.is_login_of(&candidate.id, found.live_id.as_ref()).unwrap_or_else(|| {
                    only(&candidate.username) && tells_apart(&candidate.username, applied.as_ref())
                }) =>
            {
                Holds::Pending
            }
            // Nothing was read back here yet: the name alone tells.
            (None, Some(applied), _) if only(&applied.username) => Holds::Applied,
            _ => Holds::Other,
        })
    }

    /// The version with this live id, where this host put one in place and never confirmed it.
    pub fn has_begun(&self, live_id: &str) -> Option<&Begun> {
        self.begun.iter().rfind(|begun| begun.live_id == live_id)
    }

    /// Is this the login of that version? `None`: it was not compared yet.
    pub(super) fn is_login_of(&self, id: &VersionId, live_id: Option<&String>) -> Option<bool> {
        self.wanted.as_ref().filter(|wanted| wanted.id == *id).map(|wanted| live_id == Some(&wanted.live_id))
    }

    /// What is in place and not committed was looked up, and what is in use.
    pub(super) fn take_down(&mut self, swapped: Option<&Swapped>, in_use: Option<&String>) {
        // A person has done what was asked for.
        for asked in self.begun.iter_mut().filter(|begun| begun.by_hand && in_use == Some(&begun.live_id)) {
            (asked.used, asked.gone) = (true, false);
        }
        let is_begun = in_use
            .is_some_and(|id| self.has_begun(id).is_some() || swapped.is_some_and(|swapped| swapped.live_id == *id));
        if in_use.is_some() && !is_begun {
            // Something else took its place, and is what the next version takes over from.
            self.begun.iter_mut().for_each(|begun| begun.gone = true);
        }
        let Some((swapped, username)) = swapped.and_then(|s| Some((s, s.username.clone()?))) else { return };
        let used = in_use == Some(&swapped.live_id);
        let same = |begun: &Begun| begun.id == swapped.id && begun.source == swapped.source;
        let (id, source, live_id) = (swapped.id.clone(), swapped.source.clone(), swapped.live_id.clone());
        let before = self.begun.iter().position(same).map(|at| self.begun.remove(at));
        let (used_before, told) = before.map_or((false, false), |before| (before.used, before.told));
        let (used, gone, by_hand) = (used || used_before, false, false);
        self.begun.push(Begun { id, source, username, live_id, used, gone, told, by_hand });
        self.begun.drain(..self.begun.len().saturating_sub(BEGUN));
    }

    /// A person was asked to put this version there: should another one come first, what they did is known all the same.
    pub(super) fn asks_for(&mut self, found: &SourceVersion, live_id: String) {
        if let Some(before) = self.begun.iter_mut().find(|begun| begun.is(found)) {
            before.live_id = live_id;
            return;
        }
        let SourceVersion { identity, id, username, .. } = found.clone();
        let (used, gone, told, by_hand) = (false, false, false, true);
        self.begun.push(Begun { id, source: Some(identity), username, live_id, used, gone, told, by_hand });
        self.begun.drain(..self.begun.len().saturating_sub(BEGUN));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FirstRefused {
    #[serde(flatten)]
    pub id: VersionId,
    pub since: Timestamp,
}

/// Attempts at something that failed, and when it is due again. Persists, so that a restart does not hammer.
#[derive(Debug, Clone, PartialEq, Hash, Default, Serialize, Deserialize)]
pub struct Retry {
    pub attempts: u32,
    pub next: Option<Timestamp>,
    pub failure: Option<Failure>,
}
