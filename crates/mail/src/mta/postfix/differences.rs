//! A compiled map and its text: what stands in one of them only, what that means, and what to do about it.

use std::collections::HashSet;
use std::time::SystemTime;

use super::Postfix;
use super::review::{Problem, Subject};
use super::settings::settled;
use super::survey::TableSurvey;
use super::tables::{Answers, Kind, Store, look};
use crate::fault::{Class, Fault};
use crate::host;
use crate::host::trust::quoted;
use crate::instruction::{Instruction, relaykey};
use crate::mta::compare::{Comparison, Differences, Names};
use crate::mta::table::{Table, same_key};
use crate::mta::{KeyIds, Ours, shown};

/// A program of awk that prints the keys of a `cdb` file, whose bytes come as numbers: 2048 bytes that begin with where the records
/// end, and then each as two lengths of four bytes, key and data ([`cdb`]). Keys with capital letters are out of reach, and left.
pub(super) const CDB_KEYS: &str = "{for (i = 1; i <= NF; i++) {if (n < 4) end += $i * 256 ^ n; else if (n >= 2048 && n < end) {if (h < 8) {if (h < 4) \
                        k += $i * 256 ^ h; else d += $i * 256 ^ (h - 4); h++} else if (k) {if ($i + 0) key = key sprintf(\"%c\", $i + 0); k--} \
                        else d--; if (h == 8 && !k && !d) {if (key !~ /[A-Z]/) print key; h = 0; key = \"\"}} n++}}";

impl Postfix {
    pub(super) fn compared_before(
        &self,
        store: &Store,
        text: host::FileId,
        map: host::FileId,
        not_compared: &HashSet<String>,
    ) -> Option<(Vec<Problem>, Compiling)> {
        let compared = self.compared.borrow();
        let compared = compared.get(&store.text).filter(|compared| compared.text == text && compared.map == map)?;
        let same_keys = compared.not_compared.as_ref().is_none_or(|keys| keys == not_compared);
        same_keys.then(|| (compared.problems.clone(), compared.compiling.clone()))
    }

    /// The live map against the text: what stands in the map alone would be lost with the next compilation, and the mail of
    /// those relays with it. Nothing where they are as they were when they were compared last, or as we left them.
    pub(super) fn compare_live(&self, survey: &TableSurvey) -> Result<(Vec<Problem>, Compiling), Fault> {
        let store = &survey.store;
        let (Some(map), Some(text)) = (&store.map, survey.seen) else { return Ok(Default::default()) };
        let not_compared = survey.pick.not_compared();
        let Some(seen) = look(map)? else {
            let only_in_text = self.goes_live(survey).unwrap_or_default();
            let differences = Differences { only_in_text, ..Differences::default() };
            let kind = survey.settings.redirected(store.kind);
            let mut problems = self.explain(&differences, store, kind, &survey.table, &Compiling::default());
            // Whether it is compiled by hand is said beside it.
            problems.iter_mut().for_each(|problem| problem.finding.fix = "take out what is not meant".into());
            return Ok((problems, Compiling::default()));
        };
        if let Some(compared) = self.compared_before(store, text, seen, &not_compared) {
            return Ok(compared);
        }
        let mut compiling = survey.compiling();
        let id = store.id();
        let mut comparison = Comparison::new(&survey.table, &not_compared).of(&id);
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
        compiling.key_ids.clone_from(&differences.key_ids);
        for (file, seen) in [(map, seen), (&store.text, text)] {
            if look(file)? != Some(seen) {
                return Err(host::HostError::Changed { path: file.clone() }.into());
            }
        }
        let kind = survey.settings.redirected(store.kind);
        let problems = self.explain(&differences, store, kind, &survey.table, &compiling);
        let now = SystemTime::now();
        let mut kept = self.compared.borrow_mut();
        kept.remove(&store.text);
        if settled(&text, now) && settled(&seen, now) {
            let (problems, compiling) = (problems.clone(), compiling.clone());
            let not_compared = Some(not_compared);
            kept.insert(store.text.clone(), Compared { text, map: seen, not_compared, problems, compiling });
        }
        drop(kept);
        Ok((problems, compiling))
    }

    /// The access key ids of a map whose text is gone. `None`: it cannot be listed.
    pub(super) fn ids_without_text(&self, survey: &TableSurvey) -> Result<Option<KeyIds>, Fault> {
        let (store, id, nothing) = (&survey.store, survey.store.id(), HashSet::new());
        let no_text = Table::default();
        let mut comparison = Comparison::new(&no_text, &nothing).of(&id);
        let listed = self.list(&survey.settings, store.kind, &store.path, &mut comparison)?;
        Ok(listed.is_ok().then(|| comparison.finish().key_ids))
    }

    /// What else goes into effect with a map that is made from the text, where there is none; `None`: there is one.
    pub(super) fn goes_live(&self, survey: &TableSurvey) -> Option<Names> {
        let store = &survey.store;
        let has_no_map = store.map.as_ref().is_some_and(|map| !map.exists());
        has_no_map.then(|| Comparison::new(&survey.table, &survey.pick.not_compared()).finish().only_in_text)
    }

    /// The keys of ours that only the map has, and that hold another's login there. They are not compared, whatever the map
    /// holds under them, and a map made from the text has them no more.
    pub(super) fn others_in_map(&self, survey: &TableSurvey, ours: &Ours, compiling: &Compiling) -> Vec<Problem> {
        let store = &survey.store;
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

    /// What the differences of a map and its text mean, and what to do. `kind`: what Postfix really opens.
    pub(super) fn explain(
        &self,
        differences: &Differences,
        store: &Store,
        kind: Kind,
        table: &Table,
        compiling: &Compiling,
    ) -> Vec<Problem> {
        let map = store.read_by_postfix();
        let Differences { only_in_map, out_of_reach, differing, only_in_text, key_ids: _ } = differences;
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
                    "{} that relaykey does not write {} only in the compiled map, and not in its text {text}: {}; a map made from that text \
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
                    "{} that relaykey does not write {} another value in the compiled map than in its text {text}: {}; a map made from that \
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
                    "{} that relaykey does not write {} only in the text, and not in its compiled map: {}; {} into effect once the map is \
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
    pub(super) fn merge_command(&self, names: &Names, store: &Store, kind: Kind, table: &Table) -> String {
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

    /// What the mail server finds now under each key of the survey, in one `postmap`. A map that is missing or cannot
    /// be read (`None`) is a problem, not an error: compiling it anew is what mends it.
    pub(super) fn look_up_live(
        &self,
        survey: &mut TableSurvey,
        applied: Option<&str>,
    ) -> Result<Option<Answers>, Fault> {
        let store = &survey.store;
        let mut keys: Vec<String> = survey.lookups().into_iter().map(|wanted| wanted.key).collect();
        keys.extend(survey.pick.candidates.iter().chain(&survey.pick.asked).cloned());
        let failed = match store.read_by_postfix() {
            file if !file.exists() => None,
            _ => match self.query(&survey.settings, store, &store.path, &keys)? {
                Ok(found) => return Ok(Some(found)),
                Err(words) => Some(words),
            },
        };
        if let Some(problem) = self.unsupported(&survey.settings, store.kind)? {
            survey.problems.push(problem);
        } else if survey.lookups().is_empty() {
            // No rollover writes it. Whether that is of harm is seen when all tables are known.
            survey.failed = failed;
        } else if let Some(words) = failed {
            survey.problems.push(Problem::warning(
                Some(store.read_by_postfix().to_owned()),
                format!("the map cannot be read, so mail waits in the queue: {words}"),
                format!("the next rollover compiles it anew{}", self.or_now(survey, applied)),
            ));
        } else if survey.seen.is_some() && store.map.is_some() {
            survey.problems.push(Problem::warning(
                Some(store.read_by_postfix().to_owned()),
                "the text has no compiled map, so mail waits in the queue".into(),
                format!("the next rollover compiles it{}", self.or_now(survey, applied)),
            ));
        }
        Ok(None)
    }

    /// Where nothing can be looked up: the command that compiles the text, if that has the applied login's user name under
    /// every key of ours; on a host that has confirmed none yet, only a person knows whether what it holds works.
    pub(super) fn or_now(&self, survey: &TableSurvey, applied: Option<&str>) -> String {
        let (compile, sync) = (self.compile_command(&survey.store), relaykey("sync"));
        let is_complete = survey.pick.missing.is_empty() && survey.seen.is_some();
        if is_complete && survey.holds_only(applied) {
            return format!("; or now, and with write = false in any case: {compile}");
        }
        let by_sync = format!(" ({sync} begins one, once no error is left; with write = false it says what to do).");
        match applied {
            None if is_complete => format!(
                "{by_sync} No login is confirmed on this host yet, and whether the one in the text works is not known here: if you \
                 know that it does, compile it now: {compile}"
            ),
            None => format!(
                "{by_sync} Do not compile the text by hand: it does not hold a login under every key that Postfix tries for the \
                 endpoint"
            ),
            Some(_) => format!(
                "{by_sync} Do not compile the text by hand: it does not hold the login that is known to work under every key that \
                 Postfix tries for the endpoint"
            ),
        }
    }
}

/// How a text and a map that have not changed since differ.
pub(super) struct Compared {
    pub(super) text: host::FileId,
    pub(super) map: host::FileId,
    /// Keys that were not compared. `None`: we made the one from the other.
    pub(super) not_compared: Option<HashSet<String>>,
    pub(super) problems: Vec<Problem>,
    pub(super) compiling: Compiling,
}

/// What a map made from the text as it stands would do to the logins under the keys that are ours: a person who is told to
/// compile does not look at those. Nothing but a rollover puts another login into use, after it has logged in with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Compiling {
    /// A key of ours that only the map has, which would be gone.
    pub(super) loses: Option<String>,
    /// A login that would be another one, or none.
    pub(super) changes: Option<String>,
    /// The access key ids that would go.
    pub(super) key_ids: KeyIds,
}

impl Compiling {
    /// Why the text is not to be compiled by hand; `None`: under the keys of ours it says what the map says.
    pub(super) fn harm(&self) -> Option<&str> {
        self.changes.as_deref().or(self.loses.as_deref())
    }
}

/// What is said where the text is not to be compiled by hand, and what puts it right.
pub(super) fn not_by_hand(harm: &str) -> String {
    format!(
        "Do not compile the text as it is: {harm}. Once no error is left, `{}` logs in, and then puts the login there (with \
         write = false: says how)",
        relaykey("sync")
    )
}
