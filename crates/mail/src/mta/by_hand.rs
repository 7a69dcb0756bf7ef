//! A change that a person makes: what of it is still to be done, how exactly, and what is wrong with what was done so
//! far, in words. Pure.
//!
//! Nothing here shows any part of a password, nor how long it is; what is said of a value that differs is only what can
//! be said by comparing it with the right one: that it stands in quotation marks, that something follows it.

use std::collections::HashMap;
use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::shown;
use super::table::{Delimiter, Entry, Table, fold, same_key};
use super::{Logins, Ours};
use crate::credential::{Login, NOT_SHOWN, has_secret_shape, is_access_key_id};
use crate::finding;
use crate::instruction::{Instruction, relaykey};

/// What a person is told. All of it is masked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByHand {
    /// One line per entry that is to change. Empty: text and map hold the login already.
    pub diff: Vec<String>,
    /// What to do, in this order. Line numbers are those of the text as it is now, whatever was
    /// done before in this order. The login stands in it as `USER:***`.
    pub steps: Vec<Instruction>,
    /// How what is there differs from what is wanted, with file and line. Empty where nothing is to change.
    pub differences: Vec<String>,
}

/// Everything that a person is told about one table.
pub struct Task<'a> {
    /// The text, symbolic links resolved.
    pub file: &'a Path,
    /// Is there such a file?
    pub exists: bool,
    /// The group that reads a new one, by its number. `None`: nobody but root does.
    pub group: Option<u32>,
    pub table: &'a Table,
    /// Whose logins are known.
    pub ours: &'a Ours,
    /// What is to be there, by endpoint.
    pub logins: &'a Logins,
    /// The entries that are to hold one: indices into the table's, live keys first, in lookup order; and of which endpoint.
    pub entries: Vec<(usize, usize)>,
    /// Keys that are to be added, and for which endpoint.
    pub missing: Vec<(&'a str, usize)>,
    /// The regions of the endpoints, where there are several: one user name has a password for each.
    pub regions: Vec<String>,
    /// What the mail server looks up for each next hop of ours, in its order: the bare host name, the next hop as spelt.
    pub hops: Vec<[&'a str; 2]>,
    /// `None`: the mail server reads the text itself.
    pub map: Option<Map<'a>>,
    /// The command after which the mail server has noticed, where nobody else sees to that.
    pub restart: Option<String>,
}

/// The compiled map of a table.
pub struct Map<'a> {
    pub path: &'a Path,
    /// What is found in it, by key.
    pub found: &'a HashMap<String, Login>,
    /// Keys that the text has no more.
    pub only_here: Vec<&'a str>,
    /// What compiles it.
    pub command: String,
}

/// What is to be done to the text, with the line that the text has now.
#[derive(Default)]
struct Edits {
    /// Values and keys: no line moves.
    in_place: Vec<String>,
    appended: Vec<String>,
}

/// Compares what is in several tables with what is wanted there: one table after the other, and the restart once, after all.
pub fn explain(tasks: &[Task<'_>]) -> ByHand {
    let mut said = ByHand::default();
    for task in tasks {
        let ByHand { diff, steps, differences } = task.explain_beside(tasks);
        said.diff.extend(diff);
        said.steps.extend(steps);
        said.differences.extend(differences);
    }
    if !said.diff.is_empty() {
        let restart = tasks.iter().find_map(|task| task.restart.clone());
        said.steps.extend(restart.map(Instruction::Command));
    }
    said
}

impl Task<'_> {
    /// Compares what is there with what is wanted.
    pub fn explain(&self) -> ByHand {
        explain(std::slice::from_ref(self))
    }

    /// Of this table alone, but for the restart; `all`: the tables that are told of together.
    fn explain_beside(&self, all: &[Task<'_>]) -> ByHand {
        let mut said = ByHand::default();
        let mut edits = Edits::default();
        self.explain_entries(&mut said, &mut edits);
        self.explain_missing(&mut said, &mut edits);
        self.explain_map(&mut said);
        if said.diff.is_empty() {
            return ByHand::default();
        }
        self.explain_spelling(&mut said, all);
        let edits = edits.in_place.into_iter().chain(edits.appended);
        said.steps = edits.map(Instruction::Text).collect();
        said.steps.extend(self.map.as_ref().map(|map| Instruction::Command(map.command.clone())));
        said
    }

    fn explain_entries(&self, said: &mut ByHand, edits: &mut Edits) {
        let file = self.file.display();
        for &(at, endpoint) in &self.entries {
            let (entry, new) = (self.table.entry(at), self.wanted(endpoint));
            let Some(wrong) = self.wrong_at(&entry, endpoint) else { continue };
            let same_user = entry.username() == Some(self.logins.username());
            // In the wrong order the password stands where the user name belongs.
            let user = entry.username().and_then(|user| self.shown(user));
            let old = user.map_or("***".to_owned(), |user| self.masked(user));
            let remark = if same_user { " (another password)" } else { "" };
            let line = entry.on_line().map(|line| format!("{line}:")).unwrap_or_default();
            said.diff.push(format!("{file}:{line} {} {old} -> {new}{remark}", shown::key(&entry.key)));
            edits.in_place.push(format!(
                "{}, replace what stands after {} by {new}",
                self.at(entry.line),
                shown::key(&entry.key)
            ));
            let beside = match self.table.get_folded(&entry.key).filter(|(first, _)| *first != at) {
                Some((_, first)) => format!("; it has no effect: the same key stands on line {}, which counts", first.line),
                None => self.found_before(&entry, endpoint).map_or(String::new(), |right| {
                    format!(
                        "; the mail server looks there before it looks under {}, which holds the right login on line {}",
                        shown::key(&right.key),
                        right.line
                    )
                }),
            };
            said.differences.push(self.located(entry.line, &format!("{} {wrong}{beside}", shown::key(&entry.key))));
        }
    }

    fn explain_missing(&self, said: &mut ByHand, edits: &mut Edits) {
        let file = self.file.display();
        for &(key, endpoint) in &self.missing {
            let new = self.wanted(endpoint);
            said.diff.push(format!("{file}: new line at the end: {key} {new}"));
            let misspelt = self.elsewhere().find(|entry| {
                self.wrong_at(entry, endpoint).is_none()
                    && self.hops.iter().any(|hop| same_key(hop[1], key) && alike(&entry.key, hop))
            });
            if let Some(entry) = misspelt {
                edits.in_place.push(format!(
                    "{}, write {key} in place of {}",
                    self.at(entry.line),
                    shown::key(&entry.key)
                ));
            } else if self.exists || !edits.appended.is_empty() {
                edits.appended.push(format!("in {file}, append the line: {key} {new}"));
            } else {
                let rights = match self.group {
                    None => "root's and mode 600".to_owned(),
                    Some(group) => format!("root's, of the group {group} and mode 640"),
                };
                edits.appended.push(format!("make the file {file}, {rights}, with the line: {key} {new}"));
            }
            said.differences.push(finding::located(Some(self.file), None, &format!("there is no entry for {key}")));
        }
    }

    /// The text holds the login, and the map that is made from it does not.
    fn explain_map(&self, said: &mut ByHand) {
        let Some(map) = &self.map else { return };
        let only_text = said.diff.is_empty();
        // A map made before the text is right puts into use whatever else stands there.
        let run = if only_text { "run" } else { "once the text is right, run" };
        let mut stale = Vec::new();
        for &(at, endpoint) in &self.entries {
            let entry = self.table.entry(at);
            let first = self.table.get_folded(&entry.key).is_none_or(|(first, _)| first == at);
            let gives = map.found.get(&*entry.key);
            if !first || self.wrong_at(&entry, endpoint).is_some() || gives == self.logins.at(endpoint) {
                continue;
            }
            let gives = match gives {
                None => "nothing".to_owned(),
                Some(login) if login.username == self.logins.username() => "another password".to_owned(),
                Some(login) => self.ours.login_of(&login.username, Some(self.logins.username())),
            };
            stale.push(self.located(
                entry.line,
                &format!(
                    "{} holds the right login, but the compiled map {} was not rebuilt and gives {gives}: {run} {}",
                    shown::key(&entry.key),
                    map.path.display(),
                    map.command
                ),
            ));
        }
        stale.extend(map.only_here.iter().map(|key| {
            let path = map.path.display();
            format!("{path}: the compiled map still has {key}, which the text has no more: {run} {}", map.command)
        }));
        if only_text && !stale.is_empty() {
            said.diff.push(format!("{}: compiled anew, the text holds the login already", map.path.display()));
        }
        said.differences.append(&mut stale);
    }

    /// The login, or one of its user name, under keys that the mail server does not look up.
    fn explain_spelling(&self, said: &mut ByHand, all: &[Task<'_>]) {
        for hop in &self.hops {
            if all.iter().any(|task| task.holds_it_for(hop)) {
                continue;
            }
            for entry in self.elsewhere() {
                said.differences.push(self.located(
                    entry.line,
                    &format!(
                        "the login of {} stands under {}, but the mail server looks for {}",
                        self.logins.username(),
                        shown::key(&entry.key),
                        hop[1]
                    ),
                ));
            }
        }
    }

    /// Does this next hop find the right login here?
    fn holds_it_for(&self, hop: &[&str; 2]) -> bool {
        let found = hop.iter().find_map(|key| self.table.get_folded(key));
        found.is_some_and(|(_, entry)| self.wrong(&entry).is_none())
    }

    /// Entries of the login's user name that no next hop finds. Those of senders are looked up by other rules.
    fn elsewhere(&self) -> impl Iterator<Item = Entry<'_>> {
        let looked_up = |key: &str| self.hops.iter().flatten().any(|hop| same_key(hop, key));
        self.table.entries().filter(move |entry| {
            let user = entry.username().filter(|user| *user == self.logins.username());
            // A name that is no access key id may be another relay's too.
            let ours = user.is_some_and(|user| is_access_key_id(user) || self.wrong(entry).is_none());
            ours && !entry.key.contains('@') && !looked_up(&entry.key)
        })
    }

    /// The right login that a next hop would find, were it not for this entry.
    fn found_before(&self, entry: &Entry<'_>, endpoint: usize) -> Option<Entry<'_>> {
        let hop = self.hops.iter().find(|[host, spelt]| same_key(host, &entry.key) && !same_key(host, spelt))?;
        let (_, behind) = self.table.get_folded(hop[1])?;
        self.wrong_at(&behind, endpoint).is_none().then_some(behind)
    }

    /// How it differs from every login of ours.
    fn wrong(&self, entry: &Entry<'_>) -> Option<String> {
        let mut differs = None;
        for (endpoint, _) in self.logins.each() {
            let wrong = self.wrong_at(entry, endpoint)?;
            differs.get_or_insert(wrong);
        }
        differs
    }

    /// How it differs from the login of an endpoint.
    fn wrong_at(&self, entry: &Entry<'_>, endpoint: usize) -> Option<String> {
        let Some(login) = self.logins.at(endpoint) else { return Some("has no login to hold".into()) };
        let wrong = wrong(entry.value(), login, self.table.delimiter(), &|user| self.shown(user).is_some())?;
        let other = self.logins.each().find(|(_, other)| entry.login().as_ref() == Some(*other));
        Some(match other.and_then(|(other, _)| self.regions.get(other)) {
            Some(region) => format!("has the right user name {} and its password for {region}", login.username),
            None => wrong,
        })
    }

    /// The user name, where it may be shown.
    fn shown<'u>(&self, user: &'u str) -> Option<&'u str> {
        let shown = self.ours.shown(user, Some(self.logins.username()))?;
        self.logins.each().all(|(_, login)| !shown.contains(login.password.expose())).then_some(shown)
    }

    fn masked(&self, user: &str) -> String {
        format!("{user}{}***", self.table.delimiter())
    }

    /// The login that is wanted for an endpoint.
    fn wanted(&self, endpoint: usize) -> String {
        in_region(self.masked(self.logins.username()), self.regions.get(endpoint).map(String::as_str))
    }

    fn at(&self, line: usize) -> String {
        format!("in {}, line {line}", self.file.display())
    }

    fn located(&self, line: usize, what: &str) -> String {
        finding::located(Some(self.file), Some(line), what)
    }
}

/// A login as it stands in texts for people: in which region its password is for, where there are several.
pub fn masked(username: &str, region: Option<&str>) -> String {
    in_region(format!("{username}:***"), region)
}

fn in_region(masked: String, region: Option<&str>) -> String {
    match region {
        Some(region) => format!("{masked} (the password for {region})"),
        None => masked,
    }
}

/// The next hop with its brackets or its port forgotten, or brackets where it has none.
fn alike(key: &str, hop: &[&str; 2]) -> bool {
    let bare = |key: &str| fold(key).replace(['[', ']'], "");
    hop.iter().any(|hop| bare(hop) == bare(key))
}

/// How a value differs from the login, in words that go on after the key; `None`: it does not.
fn wrong(value: Option<&str>, login: &Login, delimiter: Delimiter, is_shown: &dyn Fn(&str) -> bool) -> Option<String> {
    let Some(value) = value else { return Some("holds something that is not text".into()) };
    let (user, password) = (login.username.as_str(), login.password.expose());
    let right = Zeroizing::new(format!("{user}{delimiter}{password}"));
    let (pair, mark) = match delimiter == Delimiter::default() {
        true => ("USER:PASSWORD".to_owned(), "colon".to_owned()),
        false => {
            (format!("USER{delimiter}PASSWORD"), format!("{delimiter}, as smtp_sasl_password_result_delimiter says,"))
        }
    };
    // RFC 4616: what AUTH PLAIN says.
    let plain = Zeroizing::new(format!("\0{user}\0{password}"));
    if value == right.as_str() {
        return None;
    }
    let is_base64_of = |encoded: &str, texts: &[&str]| {
        let decoded = BASE64.decode(encoded).map(Zeroizing::new);
        decoded.is_ok_and(|decoded| texts.iter().any(|text| decoded.as_slice() == text.as_bytes()))
    };
    let words = match delimiter.split(value) {
        _ if unquoted(value) == Some(&right) => "holds the right login in quotation marks: take them out".into(),
        Some((before, after)) if (before, after) == (password, user) => {
            "holds password and user name, in the wrong order".into()
        }
        None => match value.strip_prefix(user) {
            Some("") => format!("holds the user name alone, without a {mark} and the password"),
            Some(rest) if rest.trim_start() == password && rest != password => {
                format!("has a blank where the {mark} belongs, between user name and password")
            }
            _ if value == password => format!("holds the password alone, without the user name and a {mark}"),
            _ if is_base64_of(value, &[&right, &plain]) => {
                format!("holds the right login encoded in base64: it stands there as it is, {pair}")
            }
            _ => format!("holds something that is not {pair}: it has no {mark}"),
        },
        Some((before, after)) if before == user => {
            format!("has the right user name {user} and another password{}", hint(after, password, delimiter))
        }
        Some((before, _)) if before.trim() == user => format!("has a blank beside the user name {user}"),
        Some((before, _)) if before.eq_ignore_ascii_case(user) => {
            format!("has the user name {user} in other upper and lower case")
        }
        // What stands before it is shown nowhere else either where it may be a password.
        Some((before, _)) if before.contains(password) => format!("holds something that is not {pair}"),
        Some((before, _)) if has_secret_shape(before) => format!("holds something else, not the login of {user}"),
        Some((before, _)) => {
            let other = if is_shown(before) { before } else { NOT_SHOWN };
            format!("holds the login of {other}, not of {user}")
        }
    };
    Some(words)
}

/// What a wrong password has to do with the right one, where it has.
fn hint(there: &str, right: &str, delimiter: Delimiter) -> String {
    let encoded = BASE64.decode(there).map(Zeroizing::new).is_ok_and(|decoded| decoded.as_slice() == right.as_bytes());
    let unseen = |rest: &str| !rest.chars().any(|c| c.is_ascii_graphic());
    let (after, before) = (there.strip_prefix(right), there.strip_suffix(right));
    if there.is_empty() {
        ": none at all".to_owned()
    } else if there.bytes().all(|b| b == b'*') {
        let reveal = relaykey("sync NAME --dry-run --reveal");
        format!(": the asterisks only stand for it; `{reveal}` shows it to root on a terminal")
    } else if unquoted(there) == Some(right) {
        ": the right one in quotation marks, which count as part of it: take them out".to_owned()
    } else if before.is_some_and(|before| before == delimiter.to_string()) {
        match delimiter == Delimiter::default() {
            true => ": there is one colon too many before it".to_owned(),
            false => format!(": there is one {delimiter} too many before it"),
        }
    } else if after.is_some_and(unseen) {
        ": the right one, followed by a character that is not seen, such as a carriage return or a blank".to_owned()
    } else if before.is_some_and(unseen) {
        ": the right one, after a blank or another character that is not seen".to_owned()
    } else if after.is_some() {
        ": the right one, and then something that does not belong there".to_owned()
    } else if before.is_some() {
        ": the right one, after something that does not belong there".to_owned()
    } else if encoded {
        ": the right one, encoded in base64 once more".to_owned()
    } else if there.eq_ignore_ascii_case(right) {
        ": the right one but for upper and lower case".to_owned()
    } else {
        "".to_owned()
    }
}

fn unquoted(text: &str) -> Option<&str> {
    ['"', '\'', '`'].into_iter().find_map(|mark| text.strip_prefix(mark)?.strip_suffix(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential;

    const HOPS: [&str; 2] = ["relay.example", "[relay.example]:587"];

    fn login() -> Login {
        Login::from_pair("user:pass+word").unwrap()
    }

    /// Of a text that is read itself; every entry with one of our keys is ours.
    fn explain(text: &str, missing: &[String]) -> ByHand {
        let (table, logins, ours) = (Table::parse(text.as_bytes()).unwrap(), login().into(), Ours::default());
        let is_ours = |entry: &Entry<'_>| HOPS.iter().any(|key| same_key(key, &entry.key));
        let entries = (0..table.len()).filter(|at| is_ours(&table.entry(*at))).map(|at| (at, 0)).collect();
        Task {
            file: Path::new("/t"),
            exists: true,
            group: None,
            table: &table,
            ours: &ours,
            logins: &logins,
            entries,
            missing: missing.iter().map(|key| (key.as_str(), 0)).collect(),
            regions: Vec::new(),
            hops: vec![HOPS],
            map: None,
            restart: None,
        }
        .explain()
    }

    #[test]
    fn what_a_value_has_to_do_with_the_login() {
        for (value, expected) in [
            ("user:pass+word", None),
            ("user:", Some("has the right user name user and another password: none at all")),
            ("user:other", Some("has the right user name user and another password")),
            ("user:***", Some("has the right user name user and another password: the asterisks")),
            ("user:`pass+word`", Some("has the right user name user and another password: the right one in quotation")),
            ("user:PASS+word", Some("has the right user name user and another password: the right one but for")),
            ("user:pass+wor", Some("has the right user name user and another password")),
            ("user:cGFzcyt3b3Jk", Some("has the right user name user and another password: the right one, encoded")),
            ("user:pass+word user", Some("has the right user name user and another password: the right one, and then")),
            ("user :pass+word", Some("has a blank beside the user name user")),
            ("User:pass+word", Some("has the user name user in other upper and lower case")),
            ("pass+word:user", Some("holds password and user name, in the wrong order")),
            ("pass+word:other", Some("holds something that is not USER:PASSWORD")),
            ("user pass+word", Some("has a blank where the colon belongs")),
            ("userpass+word", Some("holds something that is not USER:PASSWORD: it has no colon")),
            ("AHVzZXIAcGFzcyt3b3Jk", Some("holds the right login encoded in base64")),
            ("secret", Some("holds something that is not USER:PASSWORD: it has no colon")),
            ("other:secret", Some("holds the login of other, not of user")),
        ] {
            let said = wrong(Some(value), &login(), Delimiter::default(), &|user| {
                credential::shown(user, user == "other").is_some()
            });
            match (&said, expected) {
                (None, None) => {}
                (Some(said), Some(expected)) if said.starts_with(expected) => {
                    assert!(!said.contains("pass+word") && !said.contains("secret"), "{value}: {said}");
                }
                _ => panic!("{value}: {said:?}, not {expected:?}"),
            }
        }
        // What an SES SMTP password looks like is no user name, whoever's it is.
        let password = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";
        let colon = Delimiter::default();
        let said = wrong(Some(&format!("{password}:AKIAOTHER")), &login(), colon, &|_| true);
        assert_eq!(said.as_deref(), Some("holds something else, not the login of user"));
        // With another delimiter.
        let semicolon = Delimiter::new(";").unwrap();
        for (value, expected) in [
            ("user;pass+word", None),
            ("user:pass+word", Some("holds something that is not USER;PASSWORD: it has no ;, as smtp_sasl")),
            (
                "user;;pass+word",
                Some("has the right user name user and another password: there is one ; too many before it"),
            ),
        ] {
            let said = wrong(Some(value), &login(), semicolon, &|_| false);
            assert_eq!(
                said.as_deref().map(|said| expected.is_some_and(|words| said.starts_with(words))),
                expected.map(|_| true)
            );
        }
    }

    #[test]
    fn a_password_in_the_place_of_the_user_name_is_not_shown() {
        for value in ["pass+word:user", "xpass+word:other"] {
            let said = explain(&format!("[relay.example]:587 {value}\n"), &[]);
            assert_eq!(said.diff, ["/t:1: [relay.example]:587 *** -> user:***"], "{value}");
            let steps = Instruction::plain(&said.steps);
            let lines = said.diff.iter().chain(&steps).chain(&said.differences);
            assert!(!lines.cloned().collect::<String>().contains("pass+word"), "{said:?}");
        }
    }

    #[test]
    fn a_key_that_stands_there_twice_is_changed_twice_and_no_line_moves() {
        let text = "[relay.example]:587 old:a\n# c\nRelay.Example old:a\n[relay.example]:587 user:pass+word\n[RELAY.example]:587 old:a\n";
        let said = explain(text, &[]);
        assert_eq!(
            Instruction::plain(&said.steps),
            [
                "in /t, line 1, replace what stands after [relay.example]:587 by user:***",
                "in /t, line 3, replace what stands after Relay.Example by user:***",
                "in /t, line 5, replace what stands after [RELAY.example]:587 by user:***",
            ]
        );
        assert_eq!(
            said.differences[2],
            "/t:5: [RELAY.example]:587 holds the login of another user name (not shown), not of user; it has no effect: the same key stands on \
             line 1, which counts"
        );
    }

    #[test]
    fn a_key_that_is_nearly_right_is_corrected_and_another_one_is_not() {
        let missing = vec![HOPS[1].to_owned()];
        for (key, corrected) in [
            ("relay.example:587", true),
            ("RELAY.example:587", true),
            ("[relay.example]", true),
            ("[relay.example]:2587", false),
            ("[relai.example]:587", false),
            ("me@relay.example", false),
        ] {
            let said = explain(&format!("{key} user:pass+word\n"), &missing);
            let step = match corrected {
                true => format!("in /t, line 1, write [relay.example]:587 in place of {key}"),
                false => "in /t, append the line: [relay.example]:587 user:***".to_owned(),
            };
            assert_eq!(said.steps, [Instruction::Text(step)], "{key}");
            let told = said.differences.iter().any(|line| line.contains("but the mail server looks for"));
            assert_eq!(told, !key.contains('@'), "{key}: {said:?}");
        }
    }

    #[test]
    fn of_several_tables_each_is_told_and_the_restart_once() {
        let (login, ours) = (login(), Ours::default());
        let logins = login.clone().into();
        let tables =
            ["[relay.example]:587 old:a\n", "[relay.example]:587 old:b\n", "[relay.example]:587 user:pass+word\n"]
                .map(|text| Table::parse(text.as_bytes()).unwrap());
        let found = HashMap::from([(HOPS[1].to_owned(), login)]);
        let task = |n: usize| Task {
            file: Path::new(["/one", "/two", "/three"][n]),
            exists: true,
            group: None,
            table: &tables[n],
            ours: &ours,
            logins: &logins,
            entries: vec![(0, 0)],
            missing: Vec::new(),
            regions: Vec::new(),
            hops: vec![HOPS],
            map: Some(Map {
                path: Path::new("/map"),
                found: &found,
                only_here: Vec::new(),
                command: format!("compile {n}"),
            }),
            restart: Some("restart".to_owned()),
        };
        let said = super::explain(&[task(0), task(1), task(2)]);
        assert_eq!(
            Instruction::plain(&said.steps),
            [
                "in /one, line 1, replace what stands after [relay.example]:587 by user:***",
                "compile 0",
                "in /two, line 1, replace what stands after [relay.example]:587 by user:***",
                "compile 1",
                "restart",
            ]
        );
        assert_eq!((said.diff.len(), said.differences.len()), (2, 2), "{said:?}");
        // What another table gives the next hop is not looked for under other keys.
        let astray = Table::parse(b"[relay.example]:2587 user:pass+word\n").unwrap();
        let aside = Task { table: &astray, entries: Vec::new(), ..task(0) };
        assert_eq!(super::explain(&[aside, task(2)]), ByHand::default());
    }

    #[test]
    fn nothing_is_said_where_nothing_is_to_be_done() {
        let text = "relay.example user:pass+word\n[relay.example]:2587 user:pass+word\nelse.example joe:pw\n";
        assert_eq!(explain(text, &[]), ByHand::default());
    }
}
