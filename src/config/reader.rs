//! The walk over the file's tree: which tables and keys there are, what goes together, and the configuration that comes
//! of it.

use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::schema::{
    AWS, CREDENTIAL, DYNAMODB, EMAIL, EXEC, FILE, HEALTH, HOST, Key, PARAMETER_STORE, PROBE, REPORT, SCHEMA,
    SECRETS_MANAGER, SMTP, SOURCE, Section, TARGET, TOP, WEBHOOK,
};
use super::syntax::Lines;
use super::value::{self, Id, Judged, Mistake, Scheme, expected, mistake};
use super::{
    Aws, Config, Credential, DEFAULT_POLL, Drift, Finding, Health, Host, IfAppliedDies, Listen, Log, MailVia, Mode,
    Probe, Receiver, ReceiverKind, Reload, Severity, Smtp, Source, Target, TargetKind, Tls, VERSION, Window,
};
use crate::credential::{JsonKeys, ses_region};
use crate::instruction::relaykey;

/// Keys under which people look for a place to put the login itself.
const LOGIN_WORDS: [&str; 8] =
    ["password", "passwd", "username", "user", "access_key_id", "secret_access_key", "secret_key", "accesskeyid"];

/// How often a source may be asked. More often would use up the rate that Parameter Store gives a whole account (40 a
/// second) with some 200 hosts; more seldom, and a new key waits for longer than a day unless something else wakes the
/// daemon.
const POLLS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(24 * 3600);

/// Below this a source in AWS costs more than anybody expects of a poll.
const EAGER_POLL: Duration = Duration::from_secs(30);

/// A value and the line it stands on.
#[derive(Debug, Clone)]
struct At<T> {
    value: T,
    line: usize,
}

/// One table of the file, read under one section of the schema.
struct View<'d> {
    section: &'static Section,
    table: &'d DeTable<'d>,
    /// The line of its header.
    line: usize,
}

impl<'d> View<'d> {
    fn get(&self, key: &str) -> Option<(&'d Spanned<DeString<'d>>, &'d Spanned<DeValue<'d>>)> {
        debug_assert!(self.section.keys.iter().any(|k| k.name == key), "{key} is not in the schema");
        self.table.iter().find(|(k, _)| k.get_ref() == key)
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn has_empty(&self, key: &str) -> bool {
        self.get(key).and_then(|(_, value)| value.get_ref().as_array()).is_some_and(|items| items.is_empty())
    }

    /// The key that was probably meant by a word that is no key here.
    fn meant(&self, word: &str) -> Option<&'static str> {
        let keys = self.section.keys;
        let accepted: Vec<&str> = keys.iter().filter(|k| k.later.is_none()).map(|k| k.name).collect();
        if self.elsewhere(word).next().is_some() { None } else { value::similar(word, &accepted) }
    }

    /// The keys of other sections that are spelt like a key of this table: tables, where it is one (`[hosts]` is a
    /// misspelt `[host]`, and not the list of [health]).
    fn elsewhere(&self, word: &str) -> impl Iterator<Item = (&'static Section, &'static Key)> {
        let is_table = self.table.iter().find(|(name, _)| name.get_ref() == word).is_some_and(|(_, value)| {
            let value = value.get_ref();
            value.is_table()
                || value.as_array().is_some_and(|a| !a.is_empty() && a.iter().all(|i| i.get_ref().is_table()))
        });
        SCHEMA
            .iter()
            .flat_map(|section| section.keys.iter().map(move |key| (*section, key)))
            .filter(move |(_, key)| key.name == word && key.table == is_table)
    }

    /// How people are told where they are.
    fn place(&self) -> &'static str {
        if self.section.header.is_empty() { "the file" } else { self.section.header }
    }
}

/// What one target holds on to, to see that no two meet.
struct Placed {
    who: String,
    line: usize,
    config_dir: PathBuf,
    /// The endpoint and its aliases, case folded.
    hosts: Vec<String>,
    /// Case folded, as Postfix looks keys up.
    keys: Option<Vec<String>>,
}

/// Where a login is tried: what a target may override, each with its line.
#[derive(Clone, Default)]
struct Door {
    endpoint: Option<At<String>>,
    port: Option<At<u16>>,
    tls: Option<At<Tls>>,
    region: Option<At<String>>,
}

/// Walks the tree and collects what is wrong instead of stopping at the first mistake. Where a value is wrong or
/// missing, the finding is recorded and a placeholder goes on, since with an error the whole result is dropped.
pub(super) struct Reader<'t> {
    lines: &'t Lines<'t>,
    pub(super) findings: Vec<Finding>,
    /// Keys that stand on lines which could not be read: they are not missing.
    lost: Vec<String>,
    placed: Vec<Placed>,
    /// Is there a user of this name or number on this host?
    is_user: &'t dyn Fn(&str) -> bool,
}

impl<'t> Reader<'t> {
    pub(super) fn new(lines: &'t Lines<'t>, lost: Vec<String>, is_user: &'t dyn Fn(&str) -> bool) -> Self {
        Self { lines, findings: Vec::new(), lost, placed: Vec::new(), is_user }
    }

    fn find(&mut self, severity: Severity, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding { severity, line: Some(line), file: None, what: what.into(), fix: fix.into() });
    }

    /// A value that is wrong. What may hold a secret is not quoted: people put what they have at hand into the wrong key.
    fn wrong(&mut self, line: usize, key: &str, value: &DeValue, mistake: Mistake) {
        let is_address = matches!(key, "from" | "to");
        let hides = value.as_str().is_some_and(|text| value::quotes_a_secret(&mistake, text, is_address));
        let Mistake { what, fix } = match hides {
            true => Mistake {
                what: "what stands there is not what belongs there (it is not shown, as it may hold a secret)".into(),
                fix: format!(
                    "correct the line; config.example.toml says what {key} is. No login stands in this file: the source holds it"
                ),
            },
            false => mistake,
        };
        self.error(line, format!("{key}: {what}"), fix);
    }

    fn error(&mut self, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        self.find(Severity::Error, line, what, fix);
    }

    /// The value of a key, if it is there and right.
    fn read<'d, T>(
        &mut self,
        view: &View<'d>,
        key: &str,
        judge: impl FnOnce(&'d DeValue<'d>) -> Judged<T>,
    ) -> Option<At<T>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        match judge(value.get_ref()) {
            Ok(value) => Some(At { value, line }),
            Err(mistake) => {
                self.wrong(line, key, value.get_ref(), mistake);
                None
            }
        }
    }

    /// Like [`Self::read`], for a key that must be there. `fix` says what to add.
    fn require<'d, T>(
        &mut self,
        view: &View<'d>,
        key: &str,
        fix: &str,
        judge: impl FnOnce(&'d DeValue<'d>) -> Judged<T>,
    ) -> Option<At<T>> {
        self.must(view, key, fix);
        self.read(view, key, judge)
    }

    fn must(&mut self, view: &View, key: &str, fix: &str) {
        if !self.is_there(view, key) {
            self.error(view.line, format!("{key} is missing in {}", view.place()), fix);
        }
    }

    /// Whether the file has this key. A line that could not be read and a misspelt key are findings of their own, and
    /// one mistake is said once: they count.
    fn is_there(&self, view: &View, key: &str) -> bool {
        view.has(key)
            || self.lost.iter().any(|lost| lost == key)
            || view.table.iter().any(|(name, _)| view.meant(name.get_ref()) == Some(key))
    }

    /// A list, each element judged on its own line; no two may be the same when folded. `empty` is what to do about a
    /// list without elements; where it says nothing, that is a list like any other.
    fn list<'d, T>(
        &mut self,
        view: &View<'d>,
        key: &str,
        empty: &str,
        judge: impl Fn(&'d DeValue<'d>) -> Judged<T>,
        fold: impl Fn(&T) -> String,
    ) -> Option<Vec<T>> {
        let list = self.lines_of(view, key, empty, judge, fold)?;
        Some(list.into_iter().map(|at| at.value).collect())
    }

    /// Like [`Self::list`], each element with its line.
    fn lines_of<'d, T>(
        &mut self,
        view: &View<'d>,
        key: &str,
        empty: &str,
        judge: impl Fn(&'d DeValue<'d>) -> Judged<T>,
        fold: impl Fn(&T) -> String,
    ) -> Option<Vec<At<T>>> {
        let items = self.read(view, key, |v| match v {
            DeValue::Array(items) if items.is_empty() && !empty.is_empty() => mistake("the list is empty", empty),
            DeValue::Array(items) => Ok(items),
            other => mistake(expected("a list", other), "write it between brackets: [\"…\"]"),
        })?;
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        for item in items.value {
            let line = self.lines.at(item.span().start);
            match judge(item.get_ref()) {
                Ok(new) if !seen.insert(fold(&new)) => {
                    self.error(line, format!("{key}: an element stands twice"), "remove one of the two");
                }
                Ok(value) => list.push(At { value, line }),
                Err(mistake) => self.wrong(line, key, item.get_ref(), mistake),
            }
        }
        Some(list)
    }

    /// A table below this one.
    fn table<'d>(&mut self, view: &View<'d>, key: &str, section: &'static Section) -> Option<View<'d>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        let (table, line) = match value.get_ref() {
            DeValue::Table(table) => (table, self.lines.at(value.span().start)),
            DeValue::Array(items) if items.iter().all(|i| i.get_ref().is_table()) && !items.is_empty() => {
                let fix = format!("write {}, once, in single brackets", section.header);
                self.error(line, format!("{key}: expected one table, found a list of tables"), fix);
                return None;
            }
            other => {
                self.error(
                    line,
                    format!("{key}: {}", expected("a table", other)),
                    format!("write {} on a line of its own, and its keys below it", section.header),
                );
                return None;
            }
        };
        Some(View { section, table, line })
    }

    /// The tables of a list below this one. `None`: the key is not there.
    fn tables<'d>(&mut self, view: &View<'d>, key: &str, section: &'static Section) -> Option<Vec<View<'d>>> {
        let (name, value) = view.get(key)?;
        let line = self.lines.at(name.span().start);
        let mut views = Vec::new();
        match value.get_ref() {
            DeValue::Array(items) => {
                for item in items {
                    let line = self.lines.at(item.span().start);
                    match item.get_ref() {
                        DeValue::Table(table) => views.push(View { section, table, line }),
                        other => self.error(
                            line,
                            format!("{key}: {}", expected("a table", other)),
                            format!("begin each one with {} on a line of its own", section.header),
                        ),
                    }
                }
            }
            DeValue::Table(table) => {
                self.error(
                    line,
                    format!("{key}: expected a list of tables, found one table"),
                    format!("write {} in double brackets: there may be several", section.header),
                );
                views.push(View { section, table, line: self.lines.at(value.span().start) });
            }
            other => self.error(
                line,
                format!("{key}: {}", expected("a list of tables", other)),
                format!("begin each one with {} on a line of its own", section.header),
            ),
        }
        Some(views)
    }

    /// Reports keys that do not belong into this table. `kind` is the source's type, where the table is one.
    fn keys(&mut self, view: &View, kind: Option<&str>) {
        let fits = |key: &Key| kind.is_none_or(|kind| key.types.is_empty() || key.types.contains(&kind));
        let allowed: Vec<&str> =
            view.section.keys.iter().filter(|k| k.later.is_none() && fits(k)).map(|k| k.name).collect();
        for (name, _) in view.table {
            let (line, name) = (self.lines.at(name.span().start), name.get_ref().as_ref());
            let known = view.section.keys.iter().find(|k| k.name == name);
            if known.is_some_and(|k| k.later.is_none() && fits(k)) {
                continue;
            }
            let elsewhere: Vec<_> = view.elsewhere(name).filter(|_| known.is_none()).collect();
            let later = known.into_iter().chain(elsewhere.iter().map(|(_, key)| *key)).find_map(|k| k.later);
            let place = view.place();
            let (what, fix) = if let Some(fix) = later {
                (format!("{name:?} is not yet supported"), fix.to_owned())
            } else if let (Some(known), Some(kind)) = (known, kind) {
                (
                    format!("{name:?} does not go with type = {kind:?}"),
                    format!("remove it, or set type = {}", value::quoted_list(known.types, " or ")),
                )
            } else if !elsewhere.is_empty() {
                let sections: Vec<&str> = elsewhere
                    .iter()
                    .map(|(s, _)| if s.header.is_empty() { "the top of the file" } else { s.header })
                    .collect();
                (
                    format!("unknown key {name:?} in {place}"),
                    format!("move it to {}. Allowed here: {}", sections.join(" or "), allowed.join(", ")),
                )
            } else if LOGIN_WORDS.contains(&name.to_ascii_lowercase().replace('-', "_").as_str()) {
                (
                    format!("unknown key {name:?} in {place}"),
                    "remove it: no login stands in this file, the source holds it (to name the keys of a JSON secret \
                     there are username_key and password_key)"
                        .to_owned(),
                )
            } else {
                let guess =
                    view.meant(name).map_or("remove it.".to_owned(), |meant| format!("did you mean {meant:?}?"));
                let shows = !guess.starts_with("remove") || value::is_short_word(name);
                let what = match !shows || value::may_hold_a_secret(name, false) {
                    true => format!("there is an unknown key in {place} (it is not shown, as it may hold a secret)"),
                    false => format!("unknown key {name:?} in {place}"),
                };
                (what, format!("{guess} Allowed here: {}", allowed.join(", ")))
            };
            self.error(line, what, fix);
        }
    }

    /// `None`: the file is of another version, and nothing else is to be said about it.
    pub(super) fn config(&mut self, root: &DeTable) -> Option<Config> {
        let top = View { section: &TOP, table: root, line: 1 };
        let add = "put config_version = 1 on the first line";
        let version = self.require(&top, "config_version", add, |v| match value::integer(v)? {
            n if n == VERSION => Ok(true),
            n if n > VERSION => Ok(false),
            _ => mistake("there is no such version of this file", "write config_version = 1"),
        });
        if let Some(At { value: false, line }) = version {
            let what = format!("config_version: this relaykey reads version {VERSION}, and the file is of a later one");
            self.error(line, what, "update relaykey, or write the file anew for config_version = 1");
            return None;
        }
        self.keys(&top, None);
        let host = self.host(&top);
        let aws = match self.table(&top, "aws", &AWS) {
            Some(view) => {
                self.keys(&view, None);
                self.aws(&view, &Aws::default())
            }
            None => Aws::default(),
        };
        let views = self.tables(&top, "credential", &CREDENTIAL);
        if !self.is_there(&top, "credential") || top.has_empty("credential") {
            let fix = "add [[credential]] with [credential.source], [credential.smtp] and [[credential.target]]";
            self.error(1, "there is no credential in the file", fix);
        }
        let mut credentials = Vec::new();
        let mut names = HashMap::new();
        for view in views.into_iter().flatten() {
            credentials.push(self.credential(&view, &aws, &mut names));
        }
        self.meetings();
        let health = self.table(&top, "health", &HEALTH).and_then(|view| self.health(&view));
        // Where a name is wrong or missing, it is not known which there are.
        let known = credentials.iter().all(|c| !c.name.is_empty()) && !credentials.is_empty();
        let reports = self.reports(&top, &aws, &credentials, known);
        Some(Config { host, aws, credentials, reports, health })
    }

    fn host(&mut self, top: &View) -> Host {
        let view = self.table(top, "host", &HOST);
        let mut host =
            Host { name: None, state_dir: PathBuf::from("/var/lib/relaykey"), run_dir: PathBuf::from(super::RUN_DIR) };
        let Some(view) = view else { return host };
        self.keys(&view, None);
        host.name = self.read(&view, "name", value::host_name).map(|at| at.value);
        let state = self.read(&view, "state_dir", value::absolute);
        if let Some(At { value, line }) = &state
            && ["/run", "/var/run", "/dev/shm"].iter().any(|volatile| value.starts_with(volatile))
        {
            let what = format!("state_dir: {} is empty after a boot, and the state must outlive that", value.display());
            self.find(Severity::Warning, *line, what, "use a directory on disk, such as /var/lib/relaykey");
        }
        let run = self.read(&view, "run_dir", value::absolute);
        let line = run.as_ref().or(state.as_ref()).map(|at| at.line);
        host.state_dir = state.map_or(host.state_dir, |at| at.value);
        host.run_dir = run.map_or(host.run_dir, |at| at.value);
        if let Some(line) = line
            && host.state_dir == host.run_dir
        {
            self.error(
                line,
                "state_dir and run_dir are the same directory",
                "give each its own: one outlives a boot, the other is made anew",
            );
        }
        host
    }

    /// `[aws]`, or what a source says over it.
    fn aws(&mut self, view: &View, base: &Aws) -> Aws {
        let mut aws = base.clone();
        let set = |slot: &mut Option<String>, at: Option<At<String>>| {
            if let Some(at) = at {
                *slot = Some(at.value);
            }
        };
        set(&mut aws.region, self.read(view, "region", value::region));
        set(&mut aws.profile, self.read(view, "profile", value::word));
        let role = self.read(view, "role_arn", value::role_arn);
        if role.is_some() {
            // An external id belongs to a role's trust policy: one for another role is of no use.
            aws.external_id = None;
        }
        set(&mut aws.role_arn, role);
        let id = self.read(view, "external_id", value::external_id);
        if let Some(At { line, .. }) = id
            && !view.has("role_arn")
            && aws.role_arn.is_none()
        {
            self.error(line, "external_id has no effect without role_arn", "add role_arn, or remove external_id");
        }
        set(&mut aws.external_id, id);
        let endpoint = self.read(view, "endpoint_url", |v| value::url(v, Scheme::HttpsOrLoopback));
        let line = endpoint.as_ref().map(|at| at.line);
        set(&mut aws.endpoint_url, endpoint);
        if view.section.header == AWS.header {
            set(&mut aws.proxy, self.read(view, "proxy", |v| value::url(v, Scheme::Any)));
            aws.use_fips = self.read(view, "use_fips", value::boolean).is_some_and(|at| at.value);
            aws.use_dualstack = self.read(view, "use_dualstack", value::boolean).is_some_and(|at| at.value);
        }
        if let Some(line) = line
            && (aws.use_fips || aws.use_dualstack)
        {
            self.error(
                line,
                "endpoint_url cannot go with use_fips or use_dualstack: they choose the address, and it replaces it",
                "remove endpoint_url, or set use_fips and use_dualstack to false",
            );
        }
        aws
    }

    fn credential(&mut self, view: &View, aws: &Aws, names: &mut HashMap<String, usize>) -> Credential {
        self.keys(view, None);
        let name = self.require(view, "name", "add name = \"ses\" below [[credential]]", value::name);
        if let Some(name) = &name {
            self.unique(name, names, "credential");
        }
        let name = name.map(|at| at.value).unwrap_or_default();
        let mode = self.mode(view);
        let probe = self.table(view, "probe", &PROBE).map(|view| self.probe(&view));

        let source = "add [credential.source] with type = \"secrets-manager\" and secret = \"…\"";
        let (source, keys, poll) = match self.part(view, "source", &SOURCE, source) {
            Some(view) => {
                let (source, keys) = self.source(&view, aws);
                let poll = self.poll(&view, &source);
                (source, keys, poll)
            }
            None => (Source::File { path: PathBuf::new(), owner: None }, JsonKeys::default(), DEFAULT_POLL),
        };
        let smtp = "add [credential.smtp] with endpoint = \"email-smtp.REGION.amazonaws.com\"";
        let smtp = self.part(view, "smtp", &SMTP, smtp);
        let (smtp, door) = self.smtp(smtp.as_ref());

        let views = self.tables(view, "target", &TARGET).unwrap_or_default();
        if !self.is_there(view, "target") || view.has_empty("target") {
            let fix = "add [[credential.target]] with type = \"postfix\" below it";
            self.error(view.line, "the credential has no target", fix);
        }
        let own: Vec<Option<At<String>>> = views.iter().map(|view| self.read(view, "name", value::name)).collect();
        // Names that are given come first, wherever they stand; the others take what is left.
        let mut taken = HashMap::new();
        for own in own.iter().flatten() {
            self.unique(own, &mut taken, "target");
        }
        let mut left = (1..)
            .map(|n: u64| if n == 1 { "postfix".to_owned() } else { format!("postfix-{n}") })
            .filter(|name| !taken.contains_key(name));
        let mut targets = Vec::new();
        for (view, own) in views.iter().zip(own) {
            let target_name = own.map(|at| at.value).or_else(|| left.next()).unwrap_or_default();
            targets.push(self.target(view, &name, target_name, &smtp, &door));
        }
        Credential { name, source, keys, poll, mode, probe, targets }
    }

    /// `mode` and what belongs to it.
    fn mode(&mut self, view: &View) -> Mode {
        let modes = [("automatic", false), ("manual", true)];
        let manual = self.read(view, "mode", |v| value::choice(v, &modes, &[]));
        // With a mistake in `mode`, what was meant by it is not known.
        let is_manual = manual.map_or(view.has("mode"), |at| at.value);
        let window = self.read(view, "apply", |v| {
            let text = value::word(v)?;
            let usage = "write days and hours in local time: \"Sat 02:00-04:00\", \"Mon-Fri 22:00-23:30\", \"daily 03:00-04:00\"";
            Window::parse(&text).or_else(|why| mistake(format!("{text:?} is no window: {why}"), usage))
        });
        let choices = [("wait", IfAppliedDies::Wait), ("apply", IfAppliedDies::Apply)];
        let dies = self.read(view, "if_applied_dies", |v| value::choice(v, &choices, &[]));
        if is_manual {
            return Mode::Manual {
                window: window.map(|at| at.value),
                if_applied_dies: dies.map_or(IfAppliedDies::Wait, |at| at.value),
            };
        }
        for (key, line) in [("apply", window.map(|at| at.line)), ("if_applied_dies", dies.map(|at| at.line))] {
            if let Some(line) = line {
                self.error(
                    line,
                    format!("{key} has no effect with mode = \"automatic\""),
                    format!("add mode = \"manual\", or remove {key}"),
                );
            }
        }
        Mode::Automatic
    }

    /// `[credential.probe]`.
    fn probe(&mut self, view: &View) -> Probe {
        self.keys(view, None);
        let add = "add from = \"postmaster@example.com\", an address that SES lets this credential send from";
        let from = self.require(view, "from", add, value::mail_address);
        let to = self.read(view, "to", value::mail_address);
        Probe {
            from: from.map(|at| at.value).unwrap_or_default(),
            to: to.map_or_else(|| "success@simulator.amazonses.com".to_owned(), |at| at.value),
        }
    }

    /// A table that a credential must have.
    fn part<'d>(&mut self, view: &View<'d>, key: &str, section: &'static Section, fix: &str) -> Option<View<'d>> {
        self.must(view, key, fix);
        self.table(view, key, section)
    }

    fn unique(&mut self, name: &At<String>, taken: &mut HashMap<String, usize>, what: &str) {
        match taken.entry(name.value.clone()) {
            Entry::Vacant(free) => {
                free.insert(name.line);
            }
            Entry::Occupied(first) => self.error(
                name.line,
                format!("name: the {what} on line {} is called {:?} too", first.get(), name.value),
                format!("give each {what} a name of its own"),
            ),
        }
    }

    fn source(&mut self, view: &View, aws: &Aws) -> (Source, JsonKeys) {
        let add = "add type = \"secrets-manager\", \"parameter-store\" or \"file\"";
        let kinds = [(SECRETS_MANAGER, SECRETS_MANAGER), (PARAMETER_STORE, PARAMETER_STORE), (FILE, FILE)];
        let kind = self.require(view, "type", add, |v| value::choice(v, &kinds, &[])).map(|at| at.value);
        self.keys(view, kind);

        let username = self.read(view, "username_key", value::word);
        let password = self.read(view, "password_key", value::word);
        if let (Some(username), Some(password)) = (&username, &password)
            && username.value == password.value
        {
            let what = "username_key and password_key name the same key";
            self.error(password.line, what, "name the key of the user name and the key of the password");
        }
        let keys =
            JsonKeys { username: username.map(|at| at.value), password: password.map(|at| at.value), of_ses: false };

        let source = match kind {
            Some(SECRETS_MANAGER) => {
                let mut aws = self.aws(view, aws);
                let secret = self.require(view, "secret", "add secret = \"NAME\", a name or an ARN", value::secret_id);
                let secret = self.pinned(view, secret, &mut aws);
                let empty = "name a label, or leave `stage` out: AWSCURRENT";
                let stages = match view.get("stage") {
                    Some((_, list)) if list.get_ref().is_array() => {
                        self.list(view, "stage", empty, value::stage, String::clone)
                    }
                    _ => self.read(view, "stage", value::stage).map(|at| vec![at.value]),
                };
                Source::SecretsManager { secret, stages: stages.unwrap_or_else(|| vec!["AWSCURRENT".to_owned()]), aws }
            }
            Some(PARAMETER_STORE) => {
                let mut aws = self.aws(view, aws);
                let add = "add parameter = \"/ses/smtp\", a name or an ARN";
                let parameter = self.require(view, "parameter", add, value::parameter_id);
                let parameter = self.pinned(view, parameter, &mut aws);
                let label = self.read(view, "label", value::label).map(|at| at.value);
                Source::ParameterStore { parameter, label, aws }
            }
            Some(_) => {
                let path = self.require(view, "path", "add path = \"/etc/relaykey/NAME\"", value::absolute);
                let owner = self.read(view, "owner", value::owner);
                if let Some(At { value: owner, line }) = &owner
                    && !(self.is_user)(owner)
                {
                    let no_user = value::Mistake {
                        what: format!("this host has no user {owner:?} (directory services are not asked)"),
                        fix: "name the user who writes the file, as `stat -c %U` shows it; or its number, as `stat -c %u` does"
                            .into(),
                    };
                    self.wrong(*line, "owner", &DeValue::String(owner.as_str().into()), no_user);
                }
                Source::File { path: path.map(|at| at.value).unwrap_or_default(), owner: owner.map(|at| at.value) }
            }
            None => Source::File { path: PathBuf::new(), owner: None },
        };
        (source, keys)
    }

    fn poll(&mut self, view: &View, source: &Source) -> Duration {
        let Some(At { value: poll, line }) = self.read(view, "poll", |v| value::duration(v, POLLS)) else {
            return DEFAULT_POLL;
        };
        if poll < EAGER_POLL && !matches!(source, Source::File { .. }) {
            let a_day = 86_400 / poll.as_secs().max(1);
            self.find(
                Severity::Warning,
                line,
                format!("poll: every host asks AWS {a_day} times a day, and shares one rate with the whole account"),
                format!(
                    "use \"5m\": SIGHUP, `{}` and a refused login make the daemon look at once anyway",
                    relaykey("sync")
                ),
            );
        }
        poll
    }

    /// The id; where it is an ARN, its region wins over a configured one.
    fn pinned(&mut self, view: &View, id: Option<At<Id>>, aws: &mut Aws) -> String {
        let Some(At { value: Id { text, region }, line }) = id else { return String::new() };
        if let Some(arn) = region {
            if let Some(configured) = aws.region.as_ref().filter(|r| **r != arn) {
                let own = view.get("region").map(|(name, _)| self.lines.at(name.span().start));
                let (severity, line, whose, fix) = match own {
                    Some(line) => (Severity::Warning, line, "region", "remove `region` here".to_owned()),
                    None => (Severity::Note, line, "[aws] region", "nothing, if the ARN is right".to_owned()),
                };
                let what = format!("{whose} is {configured:?}, but the ARN names {arn:?}, which is used");
                self.find(severity, line, what, fix);
            }
            aws.region = Some(arn);
        }
        text
    }

    fn door(&mut self, view: &View) -> Door {
        let tls = [("starttls", Tls::Starttls), ("implicit", Tls::Implicit)];
        Door {
            endpoint: self.read(view, "endpoint", value::host_name),
            port: self.read(view, "port", value::port),
            tls: self.read(view, "tls", |v| value::choice(v, &tls, &[])),
            region: self.read(view, "region", value::region),
        }
    }

    /// `[credential.smtp]`. Without one (that is recorded) the result is a placeholder.
    fn smtp(&mut self, view: Option<&View>) -> (Smtp, Door) {
        let mut smtp = Smtp {
            endpoint: String::new(),
            port: default_port(Tls::Starttls),
            tls: Tls::Starttls,
            region: None,
            ca_file: None,
            timeout: Duration::from_secs(10),
            propagation: Duration::from_secs(300),
            retry: Duration::from_secs(10),
            endpoint_aliases: Vec::new(),
        };
        let Some(view) = view else { return (smtp, Door::default()) };
        self.keys(view, None);
        self.must(view, "endpoint", "add endpoint = \"email-smtp.REGION.amazonaws.com\"");
        let door = self.door(view);
        smtp.tls = door.tls.as_ref().map_or(Tls::Starttls, |at| at.value);
        smtp.port = door.port.as_ref().map_or(default_port(smtp.tls), |at| at.value);
        smtp.endpoint = door.endpoint.as_ref().map(|at| at.value.clone()).unwrap_or_default();
        smtp.region = door.region.as_ref().map(|at| at.value.clone());
        self.fits(&smtp, &door, view.line);

        smtp.ca_file = self.read(view, "ca_file", value::absolute).map(|at| at.value);
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for (key, slot, range) in [
            ("timeout", &mut smtp.timeout, second..=5 * minute),
            ("propagation", &mut smtp.propagation, Duration::ZERO..=60 * minute),
            ("retry", &mut smtp.retry, Duration::from_millis(10)..=15 * minute),
        ] {
            if let Some(at) = self.read(view, key, |v| value::duration(v, range)) {
                *slot = at.value;
            }
        }
        let aliases = self.list(view, "endpoint_aliases", "", value::host_name, |name| name.to_ascii_lowercase());
        smtp.endpoint_aliases = aliases.unwrap_or_default();
        (smtp, door)
    }

    /// Do endpoint, port, TLS and region go together? The finding stands on the most telling line of `door`.
    fn fits(&mut self, smtp: &Smtp, door: &Door, header: usize) {
        let named = ses_region(&smtp.endpoint);
        let line = |at: &[Option<usize>]| at.iter().find_map(|line| *line).unwrap_or(header);
        let (endpoint, port, tls, region) = (
            door.endpoint.as_ref().map(|at| at.line),
            door.port.as_ref().map(|at| at.line),
            door.tls.as_ref().map(|at| at.line),
            door.region.as_ref().map(|at| at.line),
        );
        if let (Some(named), Some(configured)) = (&named, &smtp.region)
            && named != configured
        {
            self.error(
                line(&[region, endpoint]),
                format!("region is {configured:?}, but the endpoint's name says {named:?}"),
                "remove `region`: it is read from the endpoint's name; or correct the endpoint",
            );
        }
        let wanted = match smtp.port {
            465 | 2465 => Some(Tls::Implicit),
            25 | 587 | 2587 => Some(Tls::Starttls),
            _ => None,
        };
        match wanted {
            Some(wanted) if wanted != smtp.tls => {
                // SES's listeners are known; elsewhere somebody may have chosen otherwise.
                let severity = if named.is_some() { Severity::Error } else { Severity::Warning };
                let (is, should) = match wanted {
                    Tls::Implicit => ("implicit TLS", "set tls = \"implicit\", or port = 587"),
                    Tls::Starttls => ("STARTTLS", "set tls = \"starttls\", or port = 465"),
                };
                let what = format!("port {} is one for {is}, and tls says otherwise", smtp.port);
                self.find(severity, line(&[tls, port]), what, should);
            }
            None if named.is_some() => {
                self.find(
                    Severity::Warning,
                    line(&[port]),
                    format!("SES does not listen on port {}", smtp.port),
                    "use 587, 2587 or 25 with tls = \"starttls\", or 465 or 2465 with tls = \"implicit\"",
                );
            }
            _ => {}
        }
    }

    fn target(&mut self, view: &View, credential: &str, name: String, smtp: &Smtp, base: &Door) -> Target {
        self.keys(view, None);
        let soon = "remove this target for now; postfix is the one that works";
        let later = ["exim", "sendmail", "opensmtpd", "msmtp", "iis"].map(|kind| (kind, soon));
        let kind =
            self.require(view, "type", "add type = \"postfix\"", |v| value::choice(v, &[("postfix", ())], &later));
        let config_dir = self.read(view, "config_dir", value::absolute).map(|at| at.value);
        let sure = kind.is_some() && config_dir.is_some() == view.has("config_dir");
        let config_dir = config_dir.unwrap_or_else(|| PathBuf::from("/etc/postfix"));
        let reload = self.read(view, "reload", value::reload).map_or(Reload::Always, |at| at.value);
        let drift = [("heal", Drift::Heal), ("report", Drift::Report)];
        let drift = self.read(view, "drift", |v| value::choice(v, &drift, &[])).map_or(Drift::Heal, |at| at.value);
        let write = self.read(view, "write", value::boolean).is_none_or(|at| at.value);
        let empty = "name a lookup key, or leave `keys` out: they are found then";
        let keys = self.list(view, "keys", empty, value::lookup_key, |key| key.to_lowercase());

        let log = self.read(view, "log", value::log).map_or(Log::Found, |at| at.value);

        let door = self.door(view);
        let smtp = self.overridden(smtp, base, &door, view.line);
        // With a mistake in what they hold on to, whether two meet is not known.
        if sure
            && keys.is_some() == view.has("keys")
            && door.endpoint.is_some() == view.has("endpoint")
            && !smtp.endpoint.is_empty()
        {
            let fold = |list: &[String]| list.iter().map(|s| s.to_lowercase()).collect::<Vec<_>>();
            let mut hosts = fold(&smtp.endpoint_aliases);
            hosts.push(smtp.endpoint.to_lowercase());
            self.placed.push(Placed {
                who: format!("{credential}/{name}"),
                line: view.line,
                config_dir: config_dir.clone(),
                hosts,
                keys: keys.as_deref().map(fold),
            });
        }
        Target { name, kind: TargetKind::Postfix { config_dir }, reload, drift, write, keys, log, smtp }
    }

    /// `[credential.smtp]` with a target's own endpoint, port, TLS and region over it.
    fn overridden(&mut self, smtp: &Smtp, base: &Door, door: &Door, header: usize) -> Smtp {
        let mut own = smtp.clone();
        if let Some(endpoint) = &door.endpoint {
            // Aliases lead to the endpoint beside which they stand, not to this one.
            if !endpoint.value.eq_ignore_ascii_case(&smtp.endpoint) {
                own.endpoint_aliases.clear();
            }
            own.endpoint = endpoint.value.clone();
            // The region that was meant for the other endpoint gives way to the one that this endpoint's name says.
            if ses_region(&own.endpoint).is_some() {
                own.region = None;
            }
        }
        if let Some(tls) = &door.tls {
            own.tls = tls.value;
            // A port that was chosen for the other kind of TLS is not taken over.
            if own.tls != smtp.tls || base.port.is_none() {
                own.port = default_port(own.tls);
            }
        }
        if let Some(port) = &door.port {
            own.port = port.value;
        }
        if let Some(region) = &door.region {
            own.region = Some(region.value.clone());
        }
        // What is inherited was judged where it stands.
        let Door { endpoint, port, tls, region } = door;
        if (endpoint.is_some() || port.is_some() || tls.is_some() || region.is_some()) && !own.endpoint.is_empty() {
            self.fits(&own, door, header);
        }
        own
    }

    /// `[health]`. `None`: nothing is to be served.
    fn health(&mut self, view: &View) -> Option<Health> {
        self.keys(view, None);
        let public = self.read(view, "public", value::boolean);
        // With a mistake in `public`, what was meant by it is not known.
        let open = public.as_ref().map_or(view.has("public"), |at| at.value);
        let empty = "name an address, or leave `listen` out: nothing is served then";
        let fold = |listen: &Listen| match listen {
            Listen::Tcp(address) => address.to_string(),
            // A path is compared part by part: `//` and `/./` mean nothing.
            Listen::Unix(path) => path.components().collect::<PathBuf>().display().to_string(),
        };
        let places = self.lines_of(view, "listen", empty, value::listen, fold).unwrap_or_default();
        for (i, At { value: place, line }) in places.iter().enumerate() {
            let Listen::Tcp(address) = place else { continue };
            if !address.ip().is_loopback() && !open {
                self.error(
                    *line,
                    format!("listen: {address} can be reached from other hosts"),
                    format!(
                        "use \"127.0.0.1:{}\"; or set public = true: who reaches it reads access key ids, versions and failures",
                        address.port()
                    ),
                );
            }
            let same = |first: &&At<Listen>| matches!(first.value, Listen::Tcp(first) if overlap(first, *address));
            if let Some(first) = places[..i].iter().find(same) {
                let what = format!("listen: {address} is the same port as on line {} once more", first.line);
                self.error(*line, what, "remove one of the two: the address of all interfaces covers the others");
            }
        }
        let hosts = self.list(view, "hosts", "", value::http_host, String::clone).unwrap_or_default();
        if places.is_empty() && hosts.is_empty() {
            return None;
        }
        Some(Health { listen: places.into_iter().map(|at| at.value).collect(), hosts })
    }

    /// `[[report]]`. `known`: the credentials' names are all there, so that one that is not among them is a mistake.
    fn reports(&mut self, top: &View, aws: &Aws, credentials: &[Credential], known: bool) -> Vec<Receiver> {
        let views = self.tables(top, "report", &REPORT).unwrap_or_default();
        let mut names = HashMap::new();
        let mut receivers: Vec<(usize, Receiver)> = Vec::new();
        for view in views {
            let name = self.require(&view, "name", "add name = \"fleet\" below [[report]]", value::name);
            if let Some(name) = &name {
                self.unique(name, &mut names, "receiver of reports");
            }
            let kinds = [PARAMETER_STORE, DYNAMODB, WEBHOOK, EMAIL, EXEC].map(|kind| (kind, kind));
            let add = "add type = \"parameter-store\", \"dynamodb\", \"webhook\", \"email\" or \"exec\"";
            let kind = self.require(&view, "type", add, |v| value::choice(v, &kinds, &[])).map(|at| at.value);
            let chosen = self.chosen(&view, credentials, known);
            // Which keys belong to a type that is not known, is not known either.
            let Some(kind) = kind else { continue };
            self.keys(&view, Some(kind));
            let place = self.receiver(&view, kind, aws);
            let (Some(name), Some(kind)) = (name, place) else { continue };
            let receiver = Receiver { name: name.value, kind, credentials: chosen };
            // Both would write one document, and the older report could come last.
            let holds_one =
                matches!(receiver.kind, ReceiverKind::ParameterStore { .. } | ReceiverKind::DynamoDb { .. });
            let same = |(_, first): &&(usize, Receiver)| {
                holds_one
                    && first.kind == receiver.kind
                    && credentials.iter().any(|c| first.takes(&c.name) && receiver.takes(&c.name))
            };
            if let Some((first, _)) = receivers.iter().find(same) {
                let (key, what) = match receiver.kind {
                    ReceiverKind::ParameterStore { .. } => ("path", "parameters"),
                    _ => ("table", "items"),
                };
                let line = view.get(key).map_or(view.line, |(name, _)| self.lines.at(name.span().start));
                let what = format!("{key}: the receiver on line {first} writes the same {what}");
                self.error(
                    line,
                    what,
                    format!("remove one of the two, or give them different `{key}` or `credentials`"),
                );
            }
            receivers.push((view.line, receiver));
        }
        receivers.into_iter().map(|(_, receiver)| receiver).collect()
    }

    /// Where a receiver of this type is. `None`: something that it needs is wrong or missing, which is recorded.
    fn receiver(&mut self, view: &View, kind: &str, aws: &Aws) -> Option<ReceiverKind> {
        match kind {
            PARAMETER_STORE => {
                let aws = self.aws(view, aws);
                let path = self.require(view, "path", "add path = \"/relaykey\"", value::parameter_path);
                Some(ReceiverKind::ParameterStore { path: path?.value, aws })
            }
            DYNAMODB => {
                let aws = self.aws(view, aws);
                let table = self.require(view, "table", "add table = \"relaykey\"", value::table_name);
                Some(ReceiverKind::DynamoDb { table: table?.value, aws })
            }
            WEBHOOK => {
                let add = "add url = \"https://hooks.example.com/relaykey\"";
                let url = self.require(view, "url", add, |v| value::url(v, Scheme::Https));
                let add = "add secret_file = \"/etc/relaykey/webhook.secret\": a file with the signing secret, whsec_…";
                let secret_file = self.require(view, "secret_file", add, value::absolute);
                let ca_file = self.read(view, "ca_file", value::absolute).map(|at| at.value);
                Some(ReceiverKind::Webhook { url: url?.value, secret_file: secret_file?.value, ca_file })
            }
            EMAIL => {
                let from = self.require(view, "from", "add from = \"relaykey@example.com\"", value::mail_address);
                let empty = "name at least one address";
                self.must(view, "to", "add to = [\"postmaster@example.com\"]");
                let to = match view.get("to") {
                    Some((_, list)) if list.get_ref().is_array() => {
                        self.list(view, "to", empty, value::mail_address, |to| to.to_lowercase())
                    }
                    _ => self.read(view, "to", value::mail_address).map(|at| vec![at.value]),
                };
                let server = self.read(view, "server", value::mail_server);
                // With a mistake in `server`, what was meant by it is not known.
                let ses = server.as_ref().map_or(view.has("server"), |at| at.value.is_none());
                let via = if ses {
                    MailVia::Ses(self.aws(view, aws))
                } else {
                    for key in ["region", "profile", "role_arn", "external_id", "endpoint_url"] {
                        let Some((at, _)) = view.get(key) else { continue };
                        self.error(
                            self.lines.at(at.span().start),
                            format!("{key} has no effect: the messages go to a mail server, not to AWS"),
                            format!("remove {key}, or set server = \"ses\""),
                        );
                    }
                    let (host, port) = server.and_then(|at| at.value).unwrap_or_else(|| ("localhost".to_owned(), 25));
                    MailVia::Server { host, port }
                };
                Some(ReceiverKind::Email { from: from?.value, to: to?, via })
            }
            EXEC => {
                let add = "add command = [\"/usr/local/lib/relaykey/report\"]";
                let command = self.require(view, "command", add, value::command);
                let user = self.read(view, "user", value::user_name);
                let range = Duration::from_secs(1)..=Duration::from_secs(300);
                let timeout = self.read(view, "timeout", |v| value::duration(v, range));
                Some(ReceiverKind::Exec {
                    command: command?.value,
                    user: user.map_or_else(|| "nobody".to_owned(), |at| at.value),
                    timeout: timeout.map_or(Duration::from_secs(30), |at| at.value),
                })
            }
            other => unreachable!("{other} is no type of receiver"),
        }
    }

    /// The credentials whose reports a receiver gets; `None`: all.
    fn chosen(&mut self, view: &View, credentials: &[Credential], known: bool) -> Option<Vec<String>> {
        let empty = "name a credential, or leave `credentials` out: all of them";
        let judge = |v: &DeValue| {
            let name = value::name(v)?;
            if !known || credentials.iter().any(|c| c.name == name) {
                return Ok(name);
            }
            let names: Vec<&str> = credentials.iter().map(|c| c.name.as_str()).collect();
            let guess = value::similar(&name, &names).map(|s| format!("did you mean {s:?}? ")).unwrap_or_default();
            let fix = format!("{guess}There are: {}", value::quoted_list(&names, ", "));
            mistake(format!("there is no credential {name:?} in the file"), fix)
        };
        self.list(view, "credentials", empty, judge, String::clone)
    }

    /// No two targets may hold the same entries of one Postfix instance: each would put its own login there.
    fn meetings(&mut self) {
        let placed = std::mem::take(&mut self.placed);
        for (i, second) in placed.iter().enumerate() {
            let meet = |first: &&Placed| {
                first.config_dir == second.config_dir
                    && match (&first.keys, &second.keys) {
                        (Some(a), Some(b)) => a.iter().any(|key| b.contains(key)),
                        _ => first.hosts.iter().any(|host| second.hosts.contains(host)),
                    }
            };
            if let Some(first) = placed[..i].iter().find(meet) {
                self.error(
                    second.line,
                    format!(
                        "target {} would write the same entries of {} as target {} on line {}",
                        second.who,
                        second.config_dir.display(),
                        first.who,
                        first.line
                    ),
                    "remove one of the two, or give them different config_dir or endpoint, or each its own `keys`",
                );
            }
        }
    }
}

fn default_port(tls: Tls) -> u16 {
    match tls {
        Tls::Starttls => 587,
        Tls::Implicit => 465,
    }
}

/// Does the second of the two fail to be bound? A socket on all IPv6 addresses takes the port on all IPv4 ones too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers =
        |all: SocketAddr, one: SocketAddr| all != one && all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a.port() == b.port() && (covers(a, b) || covers(b, a))
}
