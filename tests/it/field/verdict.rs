//! What a run comes to, judged by mail: pure.

use std::collections::BTreeMap;
use std::fmt;

use super::case::{Case, Whose};
use super::network::Arrival;

/// From the worst to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Confirmed, nothing said to be left, and a flow that worked before fails.
    SilentMiss,
    /// Something that is not ours was changed, or something was changed although it was refused.
    Harm,
    /// A broken set-up that `check` calls fine, a healthy one that it calls broken, or words that have to be there and are not.
    FalseWord,
    /// What should move was refused, or left.
    RefusedWithoutNeed,
    /// By name, and nothing changed.
    Refused,
    /// It was broken before and still is: `check` says why.
    Named,
    /// Confirmed, and the report names the old key as one that this host still uses, so that it stays.
    Told,
    /// Confirmed, and every flow arrives where and under the login it should.
    Moved,
}

const WORDS: &[(Verdict, &str)] = &[
    (Verdict::SilentMiss, "silent-miss"),
    (Verdict::Harm, "harm"),
    (Verdict::FalseWord, "false-word"),
    (Verdict::RefusedWithoutNeed, "refused-without-need"),
    (Verdict::Refused, "refused"),
    (Verdict::Named, "named"),
    (Verdict::Told, "told"),
    (Verdict::Moved, "moved"),
];

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, word) = WORDS.iter().find(|(verdict, _)| verdict == self).expect("a word for each");
        f.write_str(word)
    }
}

impl Verdict {
    pub fn of_word(word: &str) -> Option<Self> {
        WORDS.iter().find(|(_, have)| *have == word).map(|(verdict, _)| *verdict)
    }

    pub fn is_right(self) -> bool {
        self >= Self::Refused
    }
}

/// The logins of a run.
#[derive(Debug, Default)]
pub struct Names {
    pub old: String,
    pub new: String,
    pub prev: String,
    pub foreign: String,
    pub other: String,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Facts {
    /// A flow each, in order; `None`: it did not arrive.
    pub before: Vec<Option<Arrival>>,
    pub after: Vec<Option<Arrival>>,
    pub check_exit: i32,
    /// What `check` said, without what it calls fine; and what `sync` said.
    pub check: String,
    pub sync: String,
    pub sync_exit: i32,
    /// The last reports say that the new key is in use.
    pub confirmed: bool,
    /// The last reports name the old key, or one before, or a table that could not be listed.
    pub told: bool,
    /// What differs in the configuration now from what was there before the run that refused.
    pub changed: Vec<String>,
    /// What differs and is not a login of ours.
    pub foreign_changed: Vec<String>,
    /// Keys that a report named as left, whose line a later run has changed nevertheless.
    pub named_and_changed: Vec<String>,
    /// Printed commands after which a flow got worse.
    pub harmful: Vec<String>,
    /// Patterns of the case that were not found.
    pub check_lacks: Vec<String>,
    pub refusal_lacks: Vec<String>,
}

/// Is it the message of this flow, with that login for what is ours?
fn arrives(case: &Case, names: &Names, flow: usize, arrival: Option<&Arrival>, after: bool) -> bool {
    let flow = &case.flows[flow];
    let login = match flow.auth {
        None => None,
        Some(Whose::Foreign) => Some(&names.foreign),
        Some(Whose::Other) => Some(&names.other),
        Some(Whose::Ours | Whose::Prev | Whose::TakenOver) if after => Some(&names.new),
        Some(Whose::Ours) => Some(&names.old),
        Some(Whose::Prev) => Some(&names.prev),
        Some(Whose::TakenOver) => Some(&names.foreign),
    };
    arrival.is_some_and(|a| a.server == flow.server && a.username.as_ref() == login)
}

/// Is the set-up as the case says, before anything is done? Else the case itself is wrong.
pub fn is_as_described(case: &Case, names: &Names, before: &[Option<Arrival>]) -> Result<(), String> {
    let wrong: Vec<_> = (0..before.len()).filter(|i| !arrives(case, names, *i, before[*i].as_ref(), false)).collect();
    match (case.broken, wrong.as_slice()) {
        (true, []) => Err("all mail arrives, of a set-up that is said to be broken".into()),
        (false, [first, ..]) => {
            Err(format!("before anything was done, {:?} came to {:?}", case.flows[*first], before[*first]))
        }
        _ => Ok(()),
    }
}

/// The case with each flow as it was found: where it came, and under whose login, before anything was done.
pub fn as_found(case: &Case, names: &Names, before: &[Option<Arrival>]) -> Case {
    let mut case = case.clone();
    let is_taken_over = case.taken_over;
    for (flow, arrival) in case.flows.iter_mut().zip(before) {
        let Some(arrival) = arrival else {
            case.broken = true;
            continue;
        };
        let whose = |username: &String| match username {
            name if *name == names.old => Whose::Ours,
            name if *name == names.prev => Whose::Prev,
            name if *name == names.foreign && is_taken_over => Whose::TakenOver,
            name if *name == names.foreign => Whose::Foreign,
            _ => Whose::Other,
        };
        flow.server = arrival.server;
        flow.auth = arrival.username.as_ref().map(whose);
    }
    case
}

/// The verdict, and why.
pub fn judge(case: &Case, names: &Names, facts: &Facts) -> (Verdict, String) {
    if !facts.foreign_changed.is_empty() {
        return (Verdict::Harm, format!("what is not ours was changed: {}", facts.foreign_changed.join("; ")));
    }
    if let Some(key) = facts.named_and_changed.first() {
        return (Verdict::Harm, format!("a report named {key} as left, and a later run changed it"));
    }
    let worked = |i: &usize| facts.before[*i].is_some();
    let flows = || 0..case.flows.len();
    let lost: Vec<_> = flows().filter(worked).filter(|i| facts.after[*i].is_none()).collect();
    if let Some(first) = lost.first() {
        let verdict = if facts.confirmed { Verdict::SilentMiss } else { Verdict::Harm };
        return (verdict, format!("{:?} arrives no more", case.flows[*first]));
    }
    if let Some(command) = facts.harmful.first() {
        return (Verdict::FalseWord, format!("advice that does harm: {command}"));
    }
    if !facts.confirmed {
        return judge_refusal(case, facts);
    }
    let astray = |i: &usize| !arrives(case, names, *i, facts.after[*i].as_ref(), true);
    let astray: Vec<_> = flows().filter(astray).collect();
    let stayed = |i: &usize| {
        let ours = [&names.old, &names.prev];
        facts.after[*i].as_ref().is_some_and(|a| a.username.as_ref().is_some_and(|u| ours.contains(&u)))
    };
    let elsewhere = astray.iter().copied().find(|i| worked(i) && !stayed(i));
    if let Some(i) = elsewhere {
        let (flow, came) = (&case.flows[i], &facts.after[i]);
        return (Verdict::SilentMiss, format!("{flow:?} came to {came:?}"));
    }
    if (case.broken || case.sync != "refuse") && !facts.check_lacks.is_empty() {
        return (Verdict::FalseWord, format!("check does not say {:?}", facts.check_lacks));
    }
    if astray.iter().any(worked) || facts.told {
        return match case.may_refuse() {
            true => (Verdict::Told, "confirmed in part: the old key stays, by the report".into()),
            false => (Verdict::RefusedWithoutNeed, "the old key is still named by the report".into()),
        };
    }
    if !astray.is_empty() {
        return (Verdict::Named, "broken as before; check says so".into());
    }
    if facts.sync_exit != 0 {
        return (Verdict::RefusedWithoutNeed, format!("the new key is in use, and sync ends with {}", facts.sync_exit));
    }
    if !case.may_refuse() && facts.check_exit != 0 {
        return (Verdict::FalseWord, "check calls it an error, and it moves".into());
    }
    (Verdict::Moved, "every flow arrives under the new key".into())
}

fn judge_refusal(case: &Case, facts: &Facts) -> (Verdict, String) {
    if !facts.changed.is_empty() {
        return (Verdict::Harm, format!("refused, and changed: {}", facts.changed.join("; ")));
    }
    if !case.may_refuse() {
        return (Verdict::RefusedWithoutNeed, format!("sync ends with {}", facts.sync_exit));
    }
    if facts.sync_exit == 0 {
        return (Verdict::FalseWord, "sync ends well, and no report says that the new key is in use".into());
    }
    let lacks = [&facts.check_lacks[..], &facts.refusal_lacks[..]].concat();
    if !lacks.is_empty() {
        return (Verdict::FalseWord, format!("refused, and nothing says {lacks:?}"));
    }
    (Verdict::Refused, "by name, and nothing changed".into())
}

/// Lines of a file that differ and are not a login of ours that was exchanged, nor one that was added: `ours` are the
/// logins that may go, `new` those that may come, each with its password.
pub fn foreign_lines(before: &str, after: &str, ours: &[&str], new: &[&str]) -> Vec<String> {
    let (before, after): (Vec<_>, Vec<_>) = (before.split('\n').collect(), after.split('\n').collect());
    let mut wrong = Vec::new();
    for (i, was) in before.iter().enumerate() {
        // A last line without an end gets one where another is added.
        let is = after.get(i).copied();
        let exchanged = |is: &str| {
            ours.iter().filter_map(|id| was.split_once(id)).any(|(key, _)| {
                let rest = is.strip_prefix(key);
                rest.is_some_and(|rest| new.iter().any(|new| rest.trim_end() == *new))
            })
        };
        let exchanged = |is: &str| !was.trim_start().starts_with('#') && exchanged(is);
        let ended = was.is_empty() && i + 1 == before.len();
        if !ended && !is.is_some_and(|is| is == *was || exchanged(is)) {
            wrong.push(format!("line {}", i + 1));
        }
    }
    let added =
        after.iter().skip(before.len().saturating_sub(1)).filter(|line| before.last().is_none_or(|l| l != *line));
    for line in added {
        if !line.is_empty() && !new.iter().any(|new| line.contains(new)) {
            wrong.push("a line was added".into());
        }
    }
    wrong
}

/// Of these keys, those whose line is another, or is gone.
pub fn changed_keys(keys: &[String], before: &str, after: &str) -> Vec<String> {
    let lines = |text: &str, key: &str| -> Vec<String> {
        let is_of_key = |line: &&str| line.split_ascii_whitespace().next().is_some_and(|k| k.eq_ignore_ascii_case(key));
        text.lines().filter(is_of_key).map(str::to_owned).collect()
    };
    keys.iter().filter(|key| lines(before, key) != lines(after, key)).cloned().collect()
}

/// What `today.toml` says of each case.
pub fn listed(text: &str) -> BTreeMap<String, Verdict> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, word) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no NAME = \"VERDICT\""));
            let word = word.trim().trim_matches('"');
            let verdict = Verdict::of_word(word).unwrap_or_else(|| panic!("{word:?} is no verdict"));
            (name.trim().trim_matches('"').to_owned(), verdict)
        })
        .collect()
}

mod tests {
    use super::super::case::Server;
    use super::*;

    fn names() -> Names {
        let name = |s: &str| s.to_owned();
        Names { old: name("OLD"), new: name("NEW"), prev: name("PREV"), foreign: name("FOREIGN"), other: name("other") }
    }

    fn at(server: Server, username: &str) -> Option<Arrival> {
        Some(Arrival { server, username: Some(username.to_owned()) })
    }

    #[test]
    fn each_outcome_has_its_verdict() {
        let case = |json: &str| {
            let mut case: Case = serde_json::from_str(json).unwrap();
            case.flows = vec![super::super::case::Flow::default()];
            case
        };
        let (healthy, refusing, broken) =
            (case("{}"), case(r#"{"sync": "refuse"}"#), case(r#"{"broken": true, "check_names": ["x"]}"#));
        let old = || vec![at(Server::Ses, "OLD")];
        let new = || vec![at(Server::Ses, "NEW")];
        let confirmed = |before, after| Facts { before, after, confirmed: true, ..Facts::default() };
        let refused =
            |before: Vec<_>| Facts { after: before.clone(), before, sync_exit: 1, check_exit: 1, ..Facts::default() };
        let table = [
            (&healthy, confirmed(old(), new()), Verdict::Moved),
            (&healthy, confirmed(old(), vec![None]), Verdict::SilentMiss),
            (&healthy, confirmed(old(), vec![at(Server::Other, "NEW")]), Verdict::SilentMiss),
            (&healthy, confirmed(old(), vec![at(Server::Ses, "FOREIGN")]), Verdict::SilentMiss),
            (&healthy, Facts { told: true, ..confirmed(old(), old()) }, Verdict::RefusedWithoutNeed),
            (&refusing, Facts { told: true, ..confirmed(old(), old()) }, Verdict::Told),
            (&refusing, confirmed(old(), new()), Verdict::Moved),
            (&healthy, Facts { check_exit: 1, ..confirmed(old(), new()) }, Verdict::FalseWord),
            (&healthy, Facts { sync_exit: 75, ..confirmed(old(), new()) }, Verdict::RefusedWithoutNeed),
            (&healthy, refused(old()), Verdict::RefusedWithoutNeed),
            (&refusing, refused(old()), Verdict::Refused),
            (&refusing, Facts { sync_exit: 0, ..refused(old()) }, Verdict::FalseWord),
            (&refusing, Facts { changed: vec!["a".into()], ..refused(old()) }, Verdict::Harm),
            (&refusing, Facts { refusal_lacks: vec!["a".into()], ..refused(old()) }, Verdict::FalseWord),
            (&refusing, Facts { after: vec![None], ..refused(old()) }, Verdict::Harm),
            (&healthy, Facts { foreign_changed: vec!["a".into()], ..confirmed(old(), new()) }, Verdict::Harm),
            (&refusing, Facts { named_and_changed: vec!["a".into()], ..confirmed(old(), old()) }, Verdict::Harm),
            (&healthy, Facts { check_lacks: vec!["a".into()], ..confirmed(old(), new()) }, Verdict::FalseWord),
            (&healthy, Facts { harmful: vec!["a".into()], ..confirmed(old(), new()) }, Verdict::FalseWord),
            (&broken, confirmed(vec![None], new()), Verdict::Moved),
            (&broken, confirmed(vec![None], vec![None]), Verdict::Named),
            (&broken, Facts { check_lacks: vec!["x".into()], ..confirmed(vec![None], vec![None]) }, Verdict::FalseWord),
            (&broken, refused(vec![None]), Verdict::Refused),
            (&broken, Facts { check_lacks: vec!["x".into()], ..refused(vec![None]) }, Verdict::FalseWord),
            (&healthy, Facts { check_lacks: vec!["x".into()], ..refused(old()) }, Verdict::RefusedWithoutNeed),
        ];
        for (i, (case, facts, verdict)) in table.into_iter().enumerate() {
            let (got, why) = judge(case, &names(), &facts);
            assert_eq!(got, verdict, "row {i}: {why}");
        }
    }

    #[test]
    fn a_line_that_was_named_stays() {
        let named = ["[A]:587".to_owned(), "@b".to_owned()];
        let before = "[a]:587 OLD:p\n@b OLD:q\nc OLD:r\n";
        assert!(changed_keys(&named, before, "[a]:587 OLD:p\n@b OLD:q\nc NEW:s\n").is_empty());
        assert_eq!(changed_keys(&named, before, "[a]:587 NEW:s\n@b OLD:q\n"), ["[A]:587"]);
        assert_eq!(changed_keys(&named, before, "[a]:587 OLD:p\n"), ["@b"]);
    }

    #[test]
    fn only_logins_of_ours_may_differ() {
        let before = "# x OLD:p\nother a:b\nhost OLD:p\n";
        let lines = |after: &str| foreign_lines(before, after, &["OLD"], &["NEW:q"]);
        assert!(lines(before).is_empty());
        assert!(lines("# x OLD:p\nother a:b\nhost NEW:q\n").is_empty());
        assert!(lines("# x OLD:p\nother a:b\nhost NEW:q\nmore NEW:q\n").is_empty());
        for wrong in [
            "# x OLD:p\nother a:b\nhost NEW:p\n",
            "# x OLD:p\nother a:c\nhost NEW:q\n",
            "# x NEW:q\nother a:b\nhost NEW:q\n",
            "# x OLD:p\nhost NEW:q\n",
            "# x OLD:p\nother a:b\nhost NEW:q\nmore a:b\n",
            "# x OLD:p\nother a:b\n",
        ] {
            assert!(!lines(wrong).is_empty(), "{wrong:?}");
        }
    }
}
