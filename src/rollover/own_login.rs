//! Does the endpoint refuse the applied version? The mail log only hints at it, and anybody may write to that: logins of our
//! own prove it, two refusals in a row, with gaps that grow.

use jiff::{SignedDuration, Timestamp};
use relaykey_core::report::{ReportError, rfc3339};
use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::refused::REPLACE_REFUSED;
use super::state::{LONGEST_WAIT, State};
use super::target_state::{Holds, TargetState};
use crate::credential::VersionId;
use crate::fault::Class;
use crate::text;

/// Between the first refusal of a login of our own with the applied version and the next try, in units of `retry`: by
/// default a minute. Only the second one counts.
const SECOND_LOGIN: i32 = 6;
/// Between two such logins otherwise, at first and at last, in the same units: by default 5 and 15 minutes. Anybody may
/// write to a mail log, and is not to make a host knock at the endpoint.
const LOGIN_GAP: i32 = 30;
const LONGEST_LOGIN_GAP: i32 = 90;
/// So many refusals of our own prove that the endpoint does not take the applied version any more.
const PROVED: usize = 2;

/// Logins of our own with the applied version, at one endpoint: what the mail log only hints at, they prove.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnLoginTrials {
    /// The version that they are made with; one that is no longer applied is no longer asked about.
    #[serde(flatten)]
    pub id: VersionId,
    /// The mail log has told of a refusal since the last one.
    pub hinted: bool,
    /// How many were made lately: the gap between two grows with it.
    pub tries: u32,
    /// The next one is not made before this.
    pub next: Option<Timestamp>,
    /// When the endpoint refused them, the first and the latest in a row. One alone proves nothing.
    pub refused: Vec<Timestamp>,
    /// What the last one came to.
    pub last: Option<Tried>,
}

/// What a login of our own with the applied version came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tried {
    pub at: Timestamp,
    /// Where it was tried.
    pub endpoint: String,
    #[serde(flatten)]
    pub result: OwnResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum OwnResult {
    /// Whatever the mail log tells is not about this login.
    Accepted,
    /// 535.
    Refused {
        #[serde(deserialize_with = "text::on_one_line")]
        reply: String,
    },
    /// Neither: the network, a 454.
    Unknown {
        #[serde(deserialize_with = "text::on_one_line")]
        what: String,
    },
    /// The source does not give the applied version any more, so that nothing can be proved.
    NotGiven {
        #[serde(deserialize_with = "text::on_one_line")]
        what: String,
        #[serde(deserialize_with = "text::on_one_line")]
        fix: String,
    },
}

impl State {
    /// The logins that prove that the endpoint refuses the applied version, where they do.
    pub fn applied_refused(&self) -> Option<&OwnLoginTrials> {
        let applied = self.applied.as_ref()?;
        let mut all = self.targets.values().filter_map(|t| t.own_login.as_ref());
        all.find(|own| own.id == applied.id && own.refused.len() >= PROVED)
    }

    /// It was told that the endpoint refuses the applied version, and it is taken again: that is confirmed anew.
    pub(super) fn is_taken_again(&self) -> bool {
        self.refused.is_some() && self.applied.is_some() && self.applied_refused().is_none()
    }

    /// A target that was found to hold what this host never put there, in the place of what it had confirmed.
    pub fn foreign(&self) -> Option<&TargetState> {
        self.applied.as_ref()?;
        let foreign = |t: &&TargetState| matches!(t.holds(self), Some(Holds::Other | Holds::Nothing));
        self.targets.values().find(foreign)
    }

    /// What the latest login of our own with the applied version came to, as far as one was made.
    pub fn own_login(&self) -> Option<&Tried> {
        let applied = self.applied.as_ref()?;
        let all = self.targets.values().filter_map(|t| t.own_login.as_ref()).filter(|own| own.id == applied.id);
        all.filter_map(|own| own.last.as_ref()).max_by_key(|tried| tried.at)
    }

    /// When the next login of our own with the applied version is due, if one is.
    pub fn next_own_login(&self) -> Option<Timestamp> {
        let applied = self.applied.as_ref()?;
        let all = self.targets.values().filter_map(|t| t.own_login.as_ref()).filter(|own| own.id == applied.id);
        all.filter(|own| own.is_wanted()).filter_map(|own| own.next).min()
    }
}

impl OwnLoginTrials {
    pub(super) fn of(id: &VersionId) -> Self {
        Self { id: id.clone(), hinted: false, tries: 0, next: None, refused: Vec::new(), last: None }
    }

    /// Is there anything to prove? What the mail log tells, or that a refusal was not the only one, or is over.
    pub(super) fn is_wanted(&self) -> bool {
        self.hinted || !self.refused.is_empty()
    }

    /// Takes in what one came to. `unit`: the time between two tries of a login that is not taken yet.
    pub(super) fn tried(&mut self, tried: Tried, unit: SignedDuration) {
        let now = tried.at;
        if self.last.as_ref().is_some_and(|last| now.duration_since(last.at) > LONGEST_WAIT) {
            self.tries = 0;
        }
        match &tried.result {
            OwnResult::Accepted => self.refused.clear(),
            OwnResult::Refused { .. } => {
                self.refused.truncate(PROVED - 1);
                self.refused.push(now);
            }
            OwnResult::Unknown { .. } | OwnResult::NotGiven { .. } => {}
        }
        let gap = match (&tried.result, self.refused.len()) {
            (OwnResult::Refused { .. }, 1) => SECOND_LOGIN,
            _ => LOGIN_GAP.saturating_mul(1 << self.tries.min(4)).min(LONGEST_LOGIN_GAP),
        };
        self.next = now.checked_add(unit.saturating_mul(gap)).ok();
        self.tries = self.tries.saturating_add(1);
        self.hinted = false;
        self.last = Some(tried);
    }
}

/// What is told of it: which key, in the server's own words, and since when.
pub(super) fn refusal(state: &State) -> Option<(Timestamp, ReportError)> {
    let (applied, own) = (state.applied.as_ref()?, state.applied_refused()?);
    let (since, last) = (*own.refused.first()?, own.last.as_ref()?);
    let said = match &last.result {
        OwnResult::Refused { reply } => format!(": {reply}"),
        _ => String::new(),
    };
    let (endpoint, key) = (&last.endpoint, &applied.username);
    let what = format!("{endpoint} refuses the key in use, {key}, since {}{said}", rfc3339(since));
    let fix = REPLACE_REFUSED.to_owned();
    let words = format!("{what}. To do: {fix}");
    Some((since, ReportError { what: Some(what), fix: Some(fix), ..ReportError::new(Class::AppliedRefused, words) }))
}

/// Which setting lets a held version go where the applied one is refused, and by what that was proved.
pub(super) fn died(state: &State, own: &OwnLoginTrials) -> Option<String> {
    let (applied, last) = (state.applied.as_ref()?, own.last.as_ref()?);
    let (first, latest) = (own.refused.first()?, own.refused.last()?);
    Some(format!(
        "if_applied_dies = \"apply\": {} refused two logins of our own with {}, at {} and {}",
        last.endpoint,
        applied.username,
        rfc3339(*first),
        rfc3339(*latest)
    ))
}

/// The mail log tells that the login in use is refused: that is to be proved.
pub(super) fn hint(state: &mut State, policy: &Policy) {
    let Some(applied) = state.applied.as_ref().map(|a| a.id.clone()) else { return };
    for target in policy.targets.iter().enumerate().filter(|(i, t)| t.logs_in_as == *i).map(|(_, t)| t) {
        let own = &mut state.targets.entry(target.name.clone()).or_default().own_login;
        let about_it = own.take().filter(|own| own.id == applied);
        *own = Some(OwnLoginTrials { hinted: true, ..about_it.unwrap_or_else(|| OwnLoginTrials::of(&applied)) });
    }
}
