//! A key-value text in Postfix's `texthash:` format that is read directly, with no mail server behind it: what
//! `relaykey demo` rolls over where no Postfix is installed.
//!
//! Its live keys are those that Postfix would try for the next hop `[endpoint]:port`, in Postfix's order: the bare host
//! name, then the next hop as spelt. Where neither is there, the second is added.

use std::path::{Path, PathBuf};

use crate::fault::{Class, Fault};
use crate::finding::{Finding, Severity};
use crate::host::{Directory, FileId};
use crate::mta::by_hand::Task;
use crate::mta::table::{self, Change, MAX_TABLE, Table, same_key};
use crate::mta::{
    Answer, Beneath, ByHand, ByName, Content, KeyIds, LiveKey, Logins, Mta, NameRule, Ours, OwnEntry, Plan,
    PlannedFile, Relay, Running, ServicePlan, ServiceView, TableId, TablePlan, View, WantedKey, shown,
};

/// Who reads it.
const SERVICE: &str = "text";

/// One such text.
pub struct Text {
    path: PathBuf,
    /// The live keys, in the order in which they are looked up.
    keys: [String; 2],
}

/// What is in the text, and which of it is ours.
struct TextSurvey {
    /// Symbolic links resolved.
    path: PathBuf,
    table: Table,
    /// `None`: there is no such file.
    seen: Option<FileId>,
    /// Indices into the table's entries: live keys in lookup order, then our others.
    live: Vec<usize>,
    others: Vec<usize>,
    /// A live key with the login of somebody else.
    stranger: Option<usize>,
}

impl Text {
    /// The text at `path`, for the next hop that `relay` names. Nothing is looked at yet.
    pub fn new(path: &Path, relay: &Relay) -> Self {
        let keys = [relay.endpoint.clone(), format!("[{}]:{}", relay.endpoint, relay.port)];
        Self { path: path.to_owned(), keys }
    }

    fn survey(&self, ours: &Ours, candidate: Option<&str>) -> Result<TextSurvey, Fault> {
        let (directory, name) = Directory::of(&self.path)?;
        let path = directory.path().join(&name);
        let (bytes, seen) = match directory.look(&name)? {
            None => (Default::default(), None),
            Some(_) => directory.read(&name, MAX_TABLE).map(|(bytes, seen)| (bytes, Some(seen)))?,
        };
        let table = Table::of(bytes).map_err(|e| in_file(e, &path))?;
        let live: Vec<usize> = self.keys.iter().filter_map(|key| Some(table.get_folded(key)?.0)).collect();
        let first = live.first().map(|first| table.entry(*first));
        let applied = ours.applied.as_deref().or_else(|| first.as_ref()?.username());
        let known = ours.known.iter().map(String::as_str);
        let users = [applied, ours.previous.as_deref(), candidate].into_iter().flatten().chain(known).collect();
        let rule = NameRule::new(ours, users, live.iter().filter_map(|at| table.entry(*at).login()));
        let is_ours =
            |(at, entry): &(usize, super::table::Entry<'_>)| !live.contains(at) && rule.of(entry) == ByName::Ours;
        let others = table.entries().enumerate().filter(is_ours).map(|(at, _)| at).collect();
        let stranger = |at: &&usize| !table.entry(**at).username().is_some_and(|user| rule.users.contains(user));
        let stranger = live.iter().find(stranger).copied();
        Ok(TextSurvey { path, table, seen, live, others, stranger })
    }

    fn task<'a>(
        &'a self,
        survey: &'a TextSurvey,
        ours: &'a Ours,
        logins: &'a Logins,
        missing: &'a [String],
    ) -> Task<'a> {
        Task {
            file: &survey.path,
            exists: survey.seen.is_some(),
            group: None,
            table: &survey.table,
            ours,
            logins,
            entries: survey.live.iter().chain(&survey.others).map(|at| (*at, 0)).collect(),
            missing: missing.iter().map(|key| (key.as_str(), 0)).collect(),
            regions: Vec::new(),
            hops: vec![[&self.keys[0], &self.keys[1]]],
            map: None,
            restart: None,
        }
    }

    fn id(&self, survey: &TextSurvey) -> TableId {
        TableId::new(format!("text:{}", survey.path.display()))
    }

    /// What the text gives, and where it lies.
    fn beneath(&self, survey: &TextSurvey) -> Beneath {
        let id = self.id(survey);
        let of_text = |at: &usize, is_live_key| {
            let entry = survey.table.entry(*at);
            OwnEntry {
                key: entry.key.to_string(),
                table: id.clone(),
                file: survey.path.clone(),
                line: Some(entry.line),
                text: entry.login(),
                // The first of several equal keys is the one that is found.
                live: survey.table.get_folded(&entry.key).and_then(|(_, found)| found.login()),
                is_live_key,
                endpoint: 0,
            }
        };
        let missing = self.missing(survey).map(|key| OwnEntry {
            key: key.clone(),
            table: id.clone(),
            file: survey.path.clone(),
            line: None,
            text: None,
            live: None,
            is_live_key: true,
            endpoint: 0,
        });
        let looked_up = |at: &usize| {
            let entry = survey.table.entry(*at);
            let answer = entry.login().map_or(Answer::NoLogin, Answer::Login);
            LiveKey { key: entry.key.to_string(), answer, table: Some(id.clone()), endpoint: 0 }
        };
        let absent = |key: &String| LiveKey { key: key.clone(), answer: Answer::Nothing, table: None, endpoint: 0 };
        let keys = survey.live.iter().map(looked_up).chain(self.missing(survey).map(absent)).collect();
        let entries = (survey.live.iter().map(|at| of_text(at, true)))
            .chain(missing)
            .chain(survey.others.iter().map(|at| of_text(at, false)))
            .collect();
        let services = vec![ServiceView { service: SERVICE.into(), tables: vec![id.clone()], keys }];
        Beneath { services, entries, files: vec![survey.path.clone()] }
    }

    /// The key that is to be added: the next hop as spelt, where no live key is there.
    fn missing(&self, survey: &TextSurvey) -> Option<&String> {
        survey.live.is_empty().then_some(&self.keys[1])
    }
}

fn in_file(e: Fault, path: &Path) -> Fault {
    let fix = table::fix_for(&e.fix, path);
    Fault { fix, ..e.in_file(path.to_owned()) }
}

impl Mta for Text {
    fn inspect(&self, ours: &Ours) -> Result<View, Fault> {
        let survey = self.survey(ours, None)?;
        let id = self.id(&survey);
        let finding = |key: &String| Finding {
            severity: Severity::Warning,
            line: None,
            file: Some(survey.path.clone()),
            what: format!("it has no entry for {}", shown::quoted_key(key, None)),
            fix: "the next rollover adds it; with write = false it says what to add".into(),
        };
        let mut key_ids = KeyIds::default();
        for entry in survey.table.entries() {
            entry.username().inspect(|user| key_ids.add(user, &id, Some(entry.line), &entry.key));
        }
        let Beneath { services, entries, files } = self.beneath(&survey);
        Ok(View {
            services,
            key_ids,
            incomplete: Vec::new(),
            findings: self.missing(&survey).map(finding).into_iter().collect(),
            stopped: None,
            doubts: Vec::new(),
            beside: Vec::new(),
            missing: self.missing(&survey).cloned().into_iter().collect(),
            endpoints: vec![0],
            entries,
            running: Running::NotApplicable,
            left_out: Vec::new(),
            unreadable: Vec::new(),
            asks_for_proof: false,
            files,
            log: None,
        })
    }

    fn plan(&self, ours: &Ours, logins: &Logins) -> Result<Plan, Fault> {
        let login = logins.default_login();
        let survey = self.survey(ours, Some(&login.username))?;
        if let Some(at) = survey.stranger {
            let entry = survey.table.entry(at);
            return Err(Fault::new(
                Class::Ambiguous,
                format!(
                    "the key {} holds another login than the one that was applied",
                    shown::quoted_key(&entry.key, Some(entry.line))
                ),
                "put the login that was applied back under it, or correct the endpoint; without the line nothing would be \
                 logged in with",
            )
            .in_file(survey.path.clone())
            .at_line(entry.line));
        }
        let beneath = self.beneath(&survey);
        let missing: Vec<String> = self.missing(&survey).cloned().into_iter().collect();
        let diff = self.task(&survey, ours, logins, &missing).explain().diff;
        let mut table = TablePlan { id: self.id(&survey), text: None, map: None, lookups: Vec::new(), group: None };
        let mut changes = Vec::new();
        for &at in survey.live.iter().chain(&survey.others) {
            let entry = survey.table.entry(at);
            if !table.lookups.iter().any(|have| same_key(&have.key, &entry.key)) {
                table.lookups.push(WantedKey { key: entry.key.to_string(), endpoint: 0 });
            }
            if entry.login().as_ref() != Some(login) {
                changes.push(Change::Replace { entry: at, login });
            }
        }
        let wanted = |key: String| WantedKey { key, endpoint: 0 };
        table.lookups.extend(missing.iter().cloned().map(wanted));
        let live = survey.live.iter().map(|at| survey.table.entry(*at).key.to_string());
        let keys = live.chain(missing.iter().cloned()).map(wanted).collect();
        let services = vec![ServicePlan { service: SERVICE.into(), tables: vec![table.id.clone()], keys }];
        changes.extend(missing.iter().map(|key| Change::Append { key, login }));
        if !changes.is_empty() {
            let bytes = survey.table.render(&changes).map_err(|e| in_file(e, &survey.path))?;
            table.text = Some(PlannedFile { path: survey.path, seen: survey.seen, content: Content::Bytes(bytes) });
        }
        Ok(Plan { tables: vec![table], services, reload_needed: false, diff, goes_live: None, beneath })
    }

    fn by_hand(&self, ours: &Ours, logins: &Logins) -> Result<ByHand, Fault> {
        let survey = self.survey(ours, Some(logins.username()))?;
        let missing: Vec<String> = self.missing(&survey).cloned().into_iter().collect();
        Ok(self.task(&survey, ours, logins, &missing).explain())
    }

    /// The text is read as it is; no plan of this target asks for a map.
    fn compile(&self, _table: &TableId, staged_text: &Path) -> Result<PathBuf, Fault> {
        Err(Fault::new(
            Class::Unsupported,
            "a text that is read directly has no compiled map",
            "this is a mistake in relaykey: please report it",
        )
        .in_file(staged_text.to_owned()))
    }

    fn compare(&self, _table: &TableId, _staged_text: &Path) -> Result<(), Fault> {
        Ok(())
    }

    fn live_map(&self, _table: &TableId, made: &Path) -> Result<PathBuf, Fault> {
        Ok(made.to_owned())
    }

    fn left(&self, _files: &[(PathBuf, FileId)]) {}

    fn lookup(&self, _table: &TableId, staged_text: Option<&Path>, keys: &[String]) -> Result<Vec<Answer>, Fault> {
        let text = staged_text.unwrap_or(&self.path);
        let (directory, name) = Directory::of(text)?;
        let bytes = match directory.look(&name)? {
            None => Default::default(),
            Some(_) => directory.read(&name, MAX_TABLE)?.0,
        };
        let table = Table::of(bytes).map_err(|e| in_file(e, text))?;
        let answer = |key: &String| match table.get_folded(key) {
            Some((_, entry)) => entry.login().map_or(Answer::NoLogin, Answer::Login),
            None => Answer::Nothing,
        };
        Ok(keys.iter().map(answer).collect())
    }

    fn running(&self) -> Result<Running, Fault> {
        Ok(Running::NotApplicable)
    }

    fn activate(&self) -> Result<(), Fault> {
        Ok(())
    }
}
