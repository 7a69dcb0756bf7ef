//! A host, its source and the people around it, as far as decisions can tell: runs follow each other as the daemon and
//! the commands make them, on one durable state and in virtual time.

use super::*;

/// One host and its source.
pub(super) struct LabHost {
    pub policy: Policy,
    pub state: State,
    /// The version in each target's files; 9 is nobody's.
    pub files: Vec<i64>,
    /// What the mail server's side has written down of swaps that were not committed.
    pub journal: Vec<Option<Swapped>>,
    /// Whether the mail server has still to be told.
    pub owed: Vec<bool>,
    /// The version that the source has.
    pub source: i64,
    /// The source was made anew, and this one of its versions has that number there.
    pub renumbered: Option<(i64, i64)>,
    /// Every version has this user name, as has what is nobody's.
    pub name: Option<&'static str>,
    /// What goes wrong: the step's word, with the target's number where it is about one; and its outcome.
    pub troubles: Vec<(&'static str, Outcome)>,
    /// The endpoint refuses this version.
    pub refuses: Option<i64>,
    /// The program is killed before the first step with this word.
    pub killed_before: Option<&'static str>,
    /// The source has this one from the second time on that it is asked.
    pub then: Option<i64>,
    /// Somebody does this to the files just before the first step with this word.
    pub meanwhile: Option<(&'static str, usize, i64)>,
    /// What every target's tables hold beside the login in use: as a look sees it, and as it is read back.
    pub besides: (&'static str, &'static str),
    /// Everything that was ever told, confirmations included.
    pub seqs: Vec<u64>,
}

fn held(mark: &str) -> HeldFacts {
    HeldFacts { mark: mark.to_owned(), ..HeldFacts::default() }
}

/// What one run came to.
pub(super) struct LabRun {
    pub steps: Vec<&'static str>,
    pub last: Step,
    pub reason: String,
    /// Outcome, version and class.
    pub news: Vec<(&'static str, String, String)>,
    pub told: Vec<News>,
    /// Versions that were found in place and never confirmed when another one had come, and who had let them go.
    pub superseded: Vec<(String, Option<String>)>,
    /// The targets that held them, and whether these were all.
    pub held_by: Vec<(Vec<String>, bool)>,
    pub failures: Vec<String>,
    /// What they say.
    pub said: Vec<String>,
    /// The targets that a drift is told of.
    pub drifted: Vec<String>,
    pub committed: Option<Completion>,
    pub approved_by: Option<String>,
    pub waits: bool,
    pub carried_out: Option<bool>,
}

impl LabRun {
    pub fn wrote(&self) -> bool {
        self.steps.contains(&"swap")
    }

    pub fn staged(&self) -> bool {
        self.steps.contains(&"prepare")
    }

    pub fn outcomes(&self) -> Vec<&'static str> {
        self.news.iter().map(|n| n.0).collect()
    }
}

impl LabHost {
    /// Version 1 is applied on every target, and the source has `source`.
    pub fn new(policy: Policy, source: i64) -> Self {
        let mut state = applied(&policy, 1);
        state.report = Some(report(1));
        state.seq = 1;
        let targets = policy.targets.len();
        Self {
            policy,
            state,
            files: vec![1; targets],
            journal: vec![None; targets],
            owed: vec![false; targets],
            source,
            renumbered: None,
            name: None,
            troubles: Vec::new(),
            refuses: None,
            killed_before: None,
            then: None,
            meanwhile: None,
            besides: ("", ""),
            seqs: vec![1],
        }
    }

    /// As [`Host::new`], and every version has the user name `name`.
    pub fn of_one_name(policy: Policy, source: i64, name: &'static str) -> Self {
        let mut host = Self { name: Some(name), ..Self::new(policy, source) };
        name.clone_into(&mut host.state.applied.as_mut().expect("one is applied").username);
        for found in host.state.targets.values_mut().filter_map(|t| t.in_use.as_mut()) {
            found.usernames = vec![name.to_owned()];
        }
        host
    }

    /// Nothing is known yet; the targets hold `files`.
    pub fn unknown(policy: Policy, files: i64, source: i64) -> Self {
        let targets = policy.targets.len();
        Self { state: State::new("ses"), files: vec![files; targets], seqs: vec![0], ..Self::new(policy, source) }
    }

    /// A run that nobody asked for, at this second.
    pub fn poll(&mut self, seconds: i64) -> LabRun {
        self.run(Wake::default(), false, at(seconds), 0)
    }

    /// The files changed, and the daemon noticed.
    pub fn notice(&mut self, seconds: i64) -> LabRun {
        self.run(Wake::default(), true, at(seconds), 0)
    }

    pub fn order(&mut self, wake: Wake, seconds: i64) -> LabRun {
        self.run(wake, true, at(seconds), 0)
    }

    pub fn approve(&mut self, version: Option<&str>, seconds: i64) -> LabRun {
        self.order(approve(version), seconds)
    }

    pub fn reject(&mut self, version: Option<&str>, seconds: i64) -> LabRun {
        let reject = Reject { version: version.map(str::to_owned), reason: "not now".into(), by: "root".into() };
        self.order(Wake { reject: Some(reject), ..Wake::default() }, seconds)
    }

    /// One run. It waits for at most `patience` seconds at a time, as `sync --wait` does.
    pub fn run(&mut self, wake: Wake, ignore_backoff: bool, mut now: Timestamp, patience: i64) -> LabRun {
        // What is not in the file is not there.
        let state = serde_json::from_str(&serde_json::to_string(&self.state).unwrap()).unwrap();
        let mut facts = Facts::new(state, &self.policy, wake, ignore_backoff);
        let (mut steps, mut told, mut approved_by, mut fetches) = (Vec::new(), Vec::new(), None, 0);
        let (last, reason) = loop {
            self.hear(&mut facts, &mut told);
            let (step, reason) = decide(&facts, &self.policy, now);
            self.state = facts.state.clone();
            if self.killed_before == Some(step.word()) {
                self.killed_before = None;
                break (step, reason);
            }
            if let Step::Wait { until } = step {
                if until.duration_since(now).as_secs() > patience {
                    break (step, reason);
                }
                now = now.max(until);
            }
            if step == Step::End {
                break (step, reason);
            }
            assert!(steps.len() < 100, "no end: {steps:?}");
            let id = begin(&mut facts, &self.policy, &step);
            if self.meanwhile.is_some_and(|(word, ..)| word == step.word()) {
                let (_, target, files) = self.meanwhile.take().unwrap();
                self.files[target] = files;
            }
            if step == Step::Fetch {
                fetches += 1;
                self.source = self.then.filter(|_| fetches > 1).unwrap_or(self.source);
            }
            let outcome = self.outcome(&step, &facts, now);
            if let (Step::Commit { stamp }, Outcome::Committed(_)) = (&step, &outcome) {
                self.number(stamp.seq);
                approved_by = facts.approved_by();
            }
            steps.push(step.word());
            assert!(absorb(&mut facts, &self.policy, id, &step, outcome, now, 0.5));
        };
        let failures = facts.failures().iter().map(|(_, f)| f.class.word().to_owned()).collect();
        let said = facts.failures().iter().map(|(_, f)| f.what.clone()).collect();
        let of_drift = facts.failures().into_iter().filter(|(_, f)| f.class == Class::Drift);
        let drifted = of_drift.filter_map(|(target, _)| target.map(str::to_owned)).collect();
        let killed = last != Step::End && !matches!(last, Step::Wait { .. });
        if !killed {
            conclude(&mut facts, now, 0.5);
            let once = facts.clone();
            conclude(&mut facts, now, 0.5);
            assert_eq!((&facts.state, &facts.news), (&once.state, &once.news), "a second time does nothing");
            self.hear(&mut facts, &mut told);
            self.state = facts.state.clone();
        }
        assert_eq!(self.seqs.last(), Some(&self.state.seq), "the state knows the last number");
        let class = |n: &News| n.error.as_ref().map_or("", |e| e.class.word()).to_owned();
        LabRun {
            steps,
            last,
            reason: reason.to_string(),
            news: told.iter().map(|n| (n.outcome.word(), n.version.clone(), class(n))).collect(),
            told,
            held_by: facts.superseded.iter().map(|s| (s.targets.clone(), s.everywhere)).collect(),
            superseded: std::mem::take(&mut facts.superseded)
                .into_iter()
                .map(|s| (s.begun.id.version, s.approved_by))
                .collect(),
            failures,
            said,
            drifted,
            committed: facts.committed,
            approved_by,
            waits: facts.waits_for_a_person(&self.policy),
            carried_out: facts.carried_out(),
        }
    }

    fn hear(&mut self, facts: &mut Facts, told: &mut Vec<News>) {
        facts.news.iter().for_each(|news| self.number(news.seq));
        told.append(&mut facts.news);
    }

    fn number(&mut self, seq: u64) {
        let last = *self.seqs.last().expect("there is a first");
        assert!(seq > last, "{seq} comes after {last}");
        self.seqs.push(seq);
    }

    fn outcome(&mut self, step: &Step, facts: &Facts, now: Timestamp) -> Outcome {
        let word = step.target().map_or(step.word().to_owned(), |t| format!("{} {t}", step.word()));
        if let Some((_, outcome)) = self.troubles.iter().find(|(of, _)| *of == word || *of == step.word()) {
            return outcome.clone();
        }
        // The version that the run has got.
        let candidate = facts.fetched.as_ref().map_or(0, |f| f.id.order.expect("it has one").number);
        if matches!(step, Step::Verify { .. }) && self.refuses == Some(candidate) {
            return refused();
        }
        match step {
            Step::Inspect { target } => {
                let swapped = self.journal[*target].clone();
                let reload_owed = self.owed[*target].then(|| ReloadOwed { since: now, why: "not done yet".into() });
                let held = held(self.besides.0);
                let mut seen = Inspection { swapped, reload_owed, held, ..holds(self.files[*target]) };
                if let Some(name) = self.name {
                    (seen.username, seen.usernames) = (Some(name.to_owned()), vec![name.to_owned()]);
                }
                Outcome::Inspected(seen)
            }
            Step::Fetch => {
                let mut found = SourceVersion { at: now, ..found(self.source, 0) };
                if let Some((_, number)) = self.renumbered.filter(|(version, _)| *version == self.source) {
                    found.id.version = format!("v{number}");
                }
                found.username = self.name.map_or(found.username, str::to_owned);
                Outcome::Fetched(found)
            }
            Step::FetchApplied => {
                let applied = self.state.applied.clone().expect("one is applied");
                Outcome::Fetched(SourceVersion {
                    identity: source("arn:a"),
                    id: applied.id,
                    username: applied.username,
                    at: now,
                })
            }
            Step::Verify { .. } | Step::VerifyApplied { .. } => Outcome::Accepted(Evidence { at: now, ..evidence() }),
            Step::Probe { .. } => Outcome::Probed,
            Step::Preview { target } => {
                let right = self.files[*target] == candidate;
                Outcome::Previewed(if right { PlannedChange::default() } else { change() }, format!("live{candidate}"))
            }
            Step::Prepare { target } => Outcome::Prepared(StagedFacts {
                nothing_to_write: self.files[*target] == candidate,
                swapped_before: self.files[*target] == candidate && self.journal[*target].is_some(),
                live_id: format!("live{candidate}"),
                goes_live: None,
            }),
            Step::Swap { target } => {
                let in_place = facts.fetched.as_ref().map(|f| Swapped { id: f.id.clone(), ..swapped(candidate) });
                (self.files[*target], self.journal[*target]) = (candidate, in_place);
                self.owed[*target] = true;
                Outcome::Swapped
            }
            Step::Activate { target } => {
                self.owed[*target] = false;
                Outcome::Activated
            }
            Step::ReadBack { target, .. } if self.files[*target] == candidate => {
                Outcome::ReadBack(ReadBackFacts { held: held(self.besides.1), ..read_back(candidate) })
            }
            Step::ReadBack { .. } => Outcome::Mismatch(failure(true)),
            Step::Attest { target, .. } => {
                let applied = self.state.applied.as_ref().and_then(|a| a.id.order).expect("one is applied").number;
                match self.files[*target] == applied {
                    true => Outcome::ReadBack(proved(applied)),
                    false => Outcome::Mismatch(failure(true)),
                }
            }
            Step::Undo { target } => {
                (self.files[*target], self.journal[*target]) = (1, None);
                Outcome::Undone
            }
            Step::Discard { .. } => Outcome::Discarded,
            Step::Refrain { .. } => Outcome::Refrained,
            Step::Hold | Step::Release { .. } | Step::Reject | Step::Leave => Outcome::Noted,
            Step::Commit { stamp } => {
                self.journal.fill(None);
                Outcome::Committed(Box::new(report(stamp.seq)))
            }
            Step::Wait { .. } => Outcome::Waited,
            Step::Await => unreachable!("one step at a time"),
            Step::End => unreachable!("the run has ended"),
        }
    }

    pub fn version(&self) -> &str {
        &self.state.applied.as_ref().expect("one is applied").id.version
    }

    pub fn candidate(&self) -> &Candidate {
        self.state.candidate.as_ref().expect("there is a candidate")
    }
}

pub(super) fn approve(version: Option<&str>) -> Wake {
    let approve = Approve { version: version.map(str::to_owned), by: "alice".into() };
    Wake { approve: Some(approve), ..Wake::default() }
}

pub(super) fn refused() -> Outcome {
    Outcome::Refused { endpoint: None, reply: "535 Authentication Credentials Invalid".into() }
}

/// A failure of this class.
pub(super) fn trouble(class: &str, temporary: bool) -> Outcome {
    Outcome::Failed(Failure { class: serde_json::from_value(class.into()).unwrap(), ..failure(temporary) })
}
