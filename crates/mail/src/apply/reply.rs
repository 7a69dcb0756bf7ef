//! What the server answers. No password is in it: user names, live ids, proofs and findings. A user name may be a password that
//! somebody wrote in its place: whoever shows one asks first whether it may be shown.

use std::path::PathBuf;

use relaykey_core::report::{OtherKeyIds, ReportTable, StillHeld};
use relaykey_core::target::{ReloadOwed, Swapped};
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::instruction::Instruction;
use crate::mta::{RegionalLogin, Running};

/// What the server answers; each to the request of its name.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To `Inspect`.
    Inspected(Box<Inspected>),
    /// To `Prepare`.
    Prepared(Prepared),
    /// To `Prepare`, where a person is to make a change: nothing is staged.
    ByHand(Previewed),
    /// To `Preview`.
    Previewed(Previewed),
    /// To `WhichStands`: its place in the list; `None`: none of them.
    Stands(Option<usize>),
    /// To `Swap`.
    Swapped {
        /// When, in seconds since boot; 0 when the machine was started since.
        at_boot: u64,
    },
    /// To `Activate`.
    Activated(Activated),
    /// To `ReadBack` and `Attest`.
    ReadBack(Box<ReadBack>),
    /// `Discard`, `Undo`, `Commit`.
    Done,
}

/// What a target really holds.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// `postfix`, `text`.
    pub kind: &'static str,
    /// Live keys and our other entries.
    pub entries: Vec<LiveEntry>,
    /// Lookup keys under which an entry is needed and none exists.
    pub missing: Vec<String>,
    /// The one live id under every live key; `None` where none is found or they differ. Where the relay has several endpoints,
    /// what they hold of one version has one live id.
    pub live_id: Option<String>,
    /// The same under every key of ours, in text and compiled map; `None` also where one is missing.
    pub holds: Option<String>,
    /// The numbers of the endpoints whose logins these entries are for; all of them where that cannot be told of one.
    pub endpoints: Vec<usize>,
    /// The user name under the first live key that gives a login, as the first client service finds it.
    pub username: Option<String>,
    /// The live id of that login: what `Prepare` expects to find.
    pub first_live_id: Option<String>,
    /// The user names that client services find under live keys, whichever table gives them, each once.
    pub usernames: Vec<String>,
    /// Is the mail server up, and since when?
    pub running: Running,
    /// The login tables that its client services ask.
    pub tables: Vec<ReportTable>,
    /// As [`ReadBack::remaining_old`], of the login in use.
    pub remaining_old: Vec<String>,
    /// As [`ReadBack::others`], of the login in use: that under the first live key; where none is found, the applied one.
    pub others: OtherKeyIds,
    /// As [`ReadBack::incomplete`].
    pub incomplete: Vec<String>,
    /// A reload that is still to be done.
    pub reload_owed: Option<ReloadOwed>,
    /// Somebody else changed the table, or the mail server's configuration, after the mail server had read them, and it is not
    /// known to have read what is there now; with nothing open, and unless a reload is owed anyway. `Activate` sees to it.
    pub unread: Option<ReloadOwed>,
    /// A version that was swapped in here, at least in part, and not committed yet: a killed run; `Prepare` finds what is
    /// left to do.
    pub swapped: Option<Swapped>,
    /// The mail server's and ours (directories and files that cannot be written safely), worst first.
    pub findings: Vec<Finding>,
    /// Beside them: that the mail server does not run, and how to start it.
    pub stopped: Option<Finding>,
    /// Those of them that say what a group could have written of all that is run and obeyed.
    pub doubts: Vec<Finding>,
    /// What is wrong with other mail servers of this host: it stops no rollover here.
    pub beside: Vec<Finding>,
    /// What would stand in the way of a rollover; `None` where it is not only looked: who changes something finds out by it.
    pub hindrances: Option<Box<Hindrances>>,
    /// As [`View::asks_for_proof`](crate::mta::View::asks_for_proof).
    pub asks_for_proof: bool,
    /// The tables' files, text and compiled map: a change of one may be drift.
    pub files: Vec<PathBuf>,
    /// The file that the mail server logs to itself; `None`: it logs to syslog.
    pub log: Option<PathBuf>,
}

/// What a rollover would find out by doing it.
#[derive(Debug, Clone, Serialize)]
pub struct Hindrances {
    /// That a table's directory could not be locked or written to, as a rollover does; and whether that may pass by itself.
    pub not_lockable: Option<(Finding, bool)>,
    /// Why a reload, which a rollover does, would be refused.
    pub reload_refused: Option<Finding>,
}

/// One entry of a table in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveEntry {
    /// The lookup key as spelt in the table, or as it would be added.
    pub key: String,
    /// `type:path` of the table.
    pub map: String,
    /// Its text.
    #[serde(skip)]
    pub file: PathBuf,
    /// 1-based line in the text, where it stands there.
    pub line: Option<usize>,
    /// User name of the login that the mail server finds under it.
    pub username: Option<String>,
    /// HMAC of what the mail server finds, under apply's own key.
    pub live_id: Option<String>,
    /// The same of what stands in the text; differs while the map is not compiled from it.
    pub text_id: Option<String>,
    /// Would the mail server use it for one of our next hops?
    pub is_live_key: bool,
    /// The number of the endpoint whose login it is for.
    pub endpoint: usize,
}

/// What would change in a target, masked. No part of a password stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previewed {
    /// One line per entry that would change. Empty: nothing is to be written, text and map hold the login already.
    pub diff: Vec<String>,
    /// Why the mail server would be reloaded, as the configuration allows it; `None`: it would not.
    pub reload: Option<WhyReload>,
    /// What a person does to make the change, in this order: edits with file and line (of the text as it is now), and
    /// commands. The login stands in it as `USER:***`.
    pub steps: Vec<Instruction>,
    /// How what is there differs from the wanted login, with file and line: for a person who has begun to change it. Empty
    /// where nothing differs.
    pub differences: Vec<String>,
    /// HMAC of the login that it is about, under apply's own key.
    pub live_id: String,
}

/// Why a mail server has to read its tables anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyReload {
    /// The configuration asks for it after each change.
    Always,
    /// It notices a change of a table of this kind by nothing else.
    Kind,
    /// It is not known to have read what is in place, or what would be replaced.
    Unread,
    /// One is owed from before.
    Owed,
}

impl WhyReload {
    /// What follows `because`, for people.
    pub fn because(self) -> &'static str {
        match self {
            WhyReload::Always => "the configuration asks for it after each change",
            WhyReload::Kind => "it notices a change of such a table only by that",
            WhyReload::Unread => "it is not known to have read the table that is there",
            WhyReload::Owed => "a reload is owed",
        }
    }
}

/// What `Prepare` has staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Nothing is staged: the live files hold the candidate already.
    pub nothing_to_write: bool,
    /// This version was swapped in by us, in a run that was killed before `Commit`.
    pub swapped_before: bool,
    /// Live id of the candidate.
    pub live_id: String,
    /// One masked line per entry that changes.
    pub diff: Vec<String>,
    /// The keys of other relays that go into effect with it, as only the text has them, for people.
    pub goes_live: Option<String>,
    /// Does this mail server notice the change only by a reload?
    pub reload_needed: bool,
}

/// Has the mail server noticed?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activated {
    /// It has noticed, or will at its next look-up.
    Yes {
        /// `reload`, `command` (the configured one), `indexed-map` (renamed over files that it had read, and needs no reload),
        /// `read-before` (these very files), `started-after` (the swap, or a look at these very files), `not-running` (what it will read is there), `no-process`,
        /// `nothing-owed` (and nothing is open).
        how: &'static str,
    },
    /// Not done, and remembered: mail server down, reload failed, `reload = "never"` where one is needed.
    Owed {
        /// Why it was not done.
        why: String,
        /// What to do.
        fix: String,
        /// Will trying again help without anybody doing anything?
        temporary: bool,
    },
}

/// What was read back of several regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionsRead {
    /// The region whose password was found under the live keys, the default endpoint's where that is among them: what the proof
    /// is made with, and over.
    pub region: Option<String>,
    /// Where the version has a login for each of several regions: these.
    pub regional: Vec<RegionalLogin>,
    /// The version has a ready-made password, for one of them.
    pub one_region: bool,
}

/// What the running configuration gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBack {
    /// The kind of mail server: `postfix`, `text`.
    pub kind: &'static str,
    /// Every live key gives the candidate, and so does the text.
    pub matches: bool,
    /// Where it does not: key, and what was found in words (never the value).
    pub mismatches: Vec<String>,
    /// Every key that was looked up.
    pub keys: Vec<String>,
    /// `type:path` of the table with the first live key.
    pub map: String,
    /// `postmap -q`, `text`.
    pub how: &'static str,
    /// The login tables that its client services ask.
    pub tables: Vec<ReportTable>,
    /// Entries with the previous key id that are still there under keys that we may not write.
    pub remaining_old: Vec<String>,
    /// Every access key id but that of the login in use that any login table of this mail server holds, under whatever key:
    /// what is not ours is left, but never silently. No user name of another form is in it.
    pub others: OtherKeyIds,
    /// Login tables that could not be listed: what they hold is not in `others`.
    pub incomplete: Vec<String>,
    /// The same three, as the report is to have them, and as the proof covers them.
    pub held: StillHeld,
    /// The one live id under every live key; `None` where none is found or they differ.
    pub live_id: Option<String>,
    /// Is the mail server up, and since when?
    pub running: Running,
    /// Where the relay has several endpoints, each in a region of its own.
    pub regions: Option<RegionsRead>,
    /// Computed with the read-back password, or why there is none. `None`: not asked for, or no match.
    pub proof: Option<Result<String, &'static str>>,
    /// The same for the code that a person types.
    pub code: Option<Result<String, &'static str>>,
}

impl Inspected {
    /// What `Prepare` expects to find.
    pub fn expect(&self) -> Option<String> {
        self.first_live_id.clone()
    }
}
