//! What hands mail to a program of its own: pipe(8), spawn(8), local(8) by `mailbox_command`, and an entry of master.cf whose program is
//! none that Postfix comes with. Nobody knows what that one does, nor most of the others: one may be a client with a login of its
//! own, as msmtp is. Each that mail gets to is told as one whose login is not known, unless it is known to deliver on this host, or
//! somebody answers for it. What such a command names is looked through besides: the access key ids that stand there are told with
//! those of login tables, and a program or a file that names the endpoint is told, whether mail gets there or not.
//!
//! Looked through are the words of the command; the program, where it is a script; files that the command names; scripts that a
//! script names, and what stands in its own directory, over a few steps; other files that a script names, for key ids; and where
//! well-known clients have their settings. A client whose settings are not to be seen is told too. A program that is no script, what
//! it gets from elsewhere, and what local(8) starts for aliases and `.forward` files, are not.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Postfix;
use super::master::MasterEntry;
use super::programs::{KnownPrograms, found_at};
use super::reached::Reached;
use super::readers::{FileText, ReadingUser};
use super::settings::{Settings, Setup};
use super::spelling;
use crate::credential::is_access_key_id;
use crate::fault::Fault;
use crate::finding::{Finding, Severity};
use crate::mta::{KeyIds, Relay, TableId, shown};

/// So many files are looked into for a command.
const MOST_FILES: usize = 64;
/// So many paths of one script are looked for.
const MOST_PATHS: usize = 4096;
/// A command starts a script, which starts another, and that one a third.
const MOST_SCRIPTS: usize = 3;
/// So long all of that may take: a file may be on a file system that hangs.
const WHOLE_LOOK: Duration = Duration::from_secs(5);

/// Clients by their names, and where they have their settings; `~` is the home directory of the service's user. The first of
/// them have their logins nowhere else.
const CLIENTS: &[(&str, &[&str])] = &[
    ("msmtp", &["/etc/msmtprc", "~/.msmtprc", "~/.config/msmtp/config"]),
    ("ssmtp", &["/etc/ssmtp/ssmtp.conf"]),
    ("nullmailer", &["/etc/nullmailer/remotes"]),
    ("dma", &["/etc/dma/dma.conf", "/etc/dma/auth.conf"]),
    ("esmtp", &["/etc/esmtprc", "~/.esmtprc"]),
    ("swaks", &["~/.swaksrc"]),
    ("mailx", &["/etc/mail.rc", "/etc/s-nail.rc", "~/.mailrc"]),
    ("s-nail", &["/etc/s-nail.rc", "~/.mailrc"]),
    ("mutt", &["~/.muttrc", "~/.mutt/muttrc", "~/.config/mutt/muttrc"]),
    ("curl", &["~/.netrc", "~/.curlrc"]),
    ("aws", &["~/.aws/credentials"]),
    ("boto3", &["~/.aws/credentials"]),
];

/// So many of them go by their settings alone.
const BY_SETTINGS: usize = 5;

/// Where no login stands, whatever a script writes there or reads from there.
const ELSEWHERE: [&str; 5] = ["/dev/", "/proc/", "/sys/", "/run/", "/var/log/"];

/// What runs programs: a file without `#!` is a script where one of them is told to read it.
const INTERPRETERS: [&str; 10] = ["sh", "bash", "dash", "ksh", "python", "perl", "php", "ruby", "node", "env"];
/// How the names of such scripts end.
const SCRIPTS: [&str; 7] = ["sh", "py", "pl", "php", "rb", "js", "cgi"];

/// Whom smtpd(8) has look at mail first.
const FILTER: &str = "smtpd_proxy_filter";

/// What has local(8) run a program for a mailbox: a command, and tables of them.
const MAILBOX: [&str; 2] = ["mailbox_command", "mailbox_command_maps"];

/// A command that Postfix hands mail to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CommandService {
    starter: Starter,
    /// `USER` or `USER:GROUP`, where the command says so.
    user: Option<String>,
    argv: Vec<String>,
    started_in: StartedIn,
}

/// Where it is run.
#[derive(Debug, Clone, Default, PartialEq)]
struct StartedIn {
    /// In the queue directory, where nothing is said.
    directory: Option<String>,
    /// Below the queue directory, with programs and files of its own.
    is_in_jail: bool,
}

/// What has it run.
#[derive(Debug, Clone, PartialEq)]
enum Starter {
    /// The entry of master.cf with this name, by pipe(8).
    Service(String),
    /// The entry of master.cf with this name, by spawn(8). `is_inet`: its name is a port; `is_filter`: as `smtpd_proxy_filter` says.
    Spawn { name: String, is_inet: bool, is_filter: bool },
    /// The entry of master.cf with this name, whose program is none of Postfix's own.
    Program(String),
    /// This parameter of local(8): of main.cf, or of local's entry in master.cf.
    Parameter { name: &'static str, in_master: bool },
}

impl CommandService {
    /// Those of `postconf -M`.
    pub(super) fn all(listed: &str, main: &Settings) -> Vec<Self> {
        let entries: Vec<MasterEntry> = listed.lines().filter_map(MasterEntry::parse).collect();
        // What smtpd(8) hands mail to before it is in the queue.
        let filters: Vec<String> = (entries.iter().filter_map(|entry| entry.options.get(FILTER)).map(String::as_str))
            .chain([main.get(FILTER)])
            .filter(|filter| !filter.is_empty())
            .map(str::to_owned)
            .collect();
        entries.into_iter().filter_map(|entry| Self::of(entry, main, &filters)).collect()
    }

    fn of(entry: MasterEntry, main: &Settings, filters: &[String]) -> Option<Self> {
        let is_in_jail = entry.is_in_jail(main);
        if !entry.is_of_postfix() {
            // master(8) puts a slash between, whatever the name begins with.
            let daemons = Path::new(main.get("daemon_directory"));
            let program = daemons.join(entry.command.trim_start_matches('/')).display().to_string();
            let words = entry.arguments.into_iter().chain(entry.options.into_values());
            let argv = std::iter::once(program).chain(words).collect();
            return Some(Self {
                starter: Starter::Program(entry.name),
                user: None,
                argv,
                started_in: StartedIn::default(),
            });
        }
        let starter = match entry.program.as_str() {
            "pipe" => Starter::Service(entry.name),
            "spawn" => {
                let end = entry.name.rsplit(':').next().unwrap_or_default();
                let is_filter = filters.iter().any(|filter| filter.contains('$') || filter.ends_with(end));
                Starter::Spawn { is_inet: entry.kind == "inet", is_filter, name: entry.name }
            }
            _ => return None,
        };
        let mut words = entry.arguments.into_iter();
        let (mut user, mut directory, mut argv) = (None, None, Vec::new());
        while let Some(word) = words.next() {
            let inner = word.strip_prefix('{').and_then(|word| word.strip_suffix('}')).unwrap_or(&word).trim();
            if let Some(named) = inner.strip_prefix("user=") {
                user = Some(named.to_owned());
            } else if let Some(named) = inner.strip_prefix("directory=") {
                directory = Some(named.to_owned());
            } else if let Some(program) = word.strip_prefix("argv=") {
                argv =
                    std::iter::once(program.to_owned()).filter(|word| !word.is_empty()).chain(words.by_ref()).collect();
            }
        }
        Some(Self { starter, user, argv, started_in: StartedIn { directory, is_in_jail } })
    }

    /// Those of local(8), by what it goes by.
    fn of_mailboxes(settings: &Settings, in_master: impl Fn(&str) -> bool) -> Vec<Self> {
        let of = |name: &'static str| {
            let argv: Vec<String> = settings.get(name).split_ascii_whitespace().map(str::to_owned).collect();
            let starter = Starter::Parameter { name, in_master: in_master(name) };
            (!argv.is_empty()).then_some(Self { starter, user: None, argv, started_in: StartedIn::default() })
        };
        MAILBOX.into_iter().filter_map(of).collect()
    }

    /// As `unlisted_ok` and reports name it.
    pub(super) fn id(&self) -> String {
        match &self.starter {
            Starter::Service(name) | Starter::Spawn { name, .. } | Starter::Program(name) => format!("pipe:{name}"),
            Starter::Parameter { name, .. } => (*name).to_owned(),
        }
    }

    /// The service that runs it, as places of key ids name it.
    fn service(&self) -> &str {
        match &self.starter {
            Starter::Service(name) | Starter::Spawn { name, .. } | Starter::Program(name) => name,
            Starter::Parameter { .. } => "local",
        }
    }

    /// Does mail get to it?
    fn is_reached(&self, reached: &Reached) -> bool {
        match &self.starter {
            Starter::Service(name) => reached.by_transport(name),
            Starter::Spawn { is_filter: true, .. } | Starter::Program(_) | Starter::Parameter { .. } => true,
            Starter::Spawn { name, is_inet: true, .. } => reached.by_port(name),
            Starter::Spawn { name, .. } => reached.by_socket(name),
        }
    }

    /// Is it known to send nothing out?
    fn is_known(&self, known: KnownPrograms<'_>) -> bool {
        match self.starter {
            _ if self.started_in.is_in_jail => false,
            Starter::Service(_) | Starter::Spawn { .. } => known.sends_nothing(&self.argv),
            Starter::Program(_) | Starter::Parameter { name: "mailbox_command_maps", .. } => false,
            Starter::Parameter { .. } => known.line_sends_nothing(&self.argv.join(" ")),
        }
    }

    /// Could all be read that it is called, and says? Else other files would be looked into than it runs.
    fn is_spelt_out(&self) -> bool {
        let words = self.argv.iter().chain(&self.user).chain(&self.started_in.directory).map(String::as_str);
        !words.chain([self.service()]).any(spelling::is_lost)
    }

    /// Where it is run; `queue`: what Postfix runs in.
    fn directory(&self, queue: &Path) -> PathBuf {
        queue.join(self.started_in.directory.as_deref().unwrap_or_default())
    }

    /// The file of Postfix's that it stands in.
    fn file(&self) -> &'static str {
        match self.starter {
            Starter::Parameter { in_master: false, .. } => "main.cf",
            _ => "master.cf",
        }
    }

    /// Who reads what it names.
    fn reader(&self, passwd: &str, groups: &str) -> ReadingUser {
        match (&self.starter, &self.user) {
            (Starter::Program(_), _) => ReadingUser::Root,
            (_, Some(user)) => ReadingUser::of_user(user, passwd, groups),
            (_, None) => ReadingUser::Anyone,
        }
    }

    /// Are the files that it names scripts whether they say so or not? A table of commands is like one.
    fn reads_scripts(&self) -> bool {
        let program = self.argv.first().and_then(|word| Path::new(word).file_name()).and_then(|name| name.to_str());
        let program = program.map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'));
        matches!(self.starter, Starter::Parameter { name: "mailbox_command_maps", .. })
            || program.is_some_and(|program| INTERPRETERS.contains(&program))
    }
}

/// What they hold.
#[derive(Debug, Default)]
pub(super) struct CommandLogins {
    pub(super) key_ids: KeyIds,
    /// Those that name the endpoint.
    pub(super) incomplete: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

impl Postfix {
    /// What has local(8) run a program, where master.cf (`listed`) has an entry that runs local(8).
    pub(super) fn mailbox_commands(
        &self,
        main: &Settings,
        by_service: &BTreeMap<String, String>,
        listed: &str,
    ) -> Result<Vec<CommandService>, Fault> {
        let mut found: Vec<CommandService> = Vec::new();
        for entry in listed.lines().filter_map(MasterEntry::parse).filter(|entry| entry.program == "local") {
            let own = |name: &str| entry.options.contains_key(name);
            let of_it = match entry.options.is_empty() {
                true => CommandService::of_mailboxes(main, own),
                false => CommandService::of_mailboxes(&self.as_read_by(&entry, by_service)?, own),
            };
            for command in of_it {
                if !found.contains(&command) {
                    found.push(command);
                }
            }
        }
        Ok(found)
    }

    /// Looks through what they name. What cannot be read is not looked through.
    pub(super) fn command_logins(&self, setup: &Setup, reached: &Reached, unlisted_ok: &[String]) -> CommandLogins {
        if setup.commands.is_empty() {
            return CommandLogins::default();
        }
        let master_cf = self.config_dir.join("master.cf");
        let (services, names) = (setup.commands.clone(), endpoint_names(&self.relay));
        let of = self.config_dir.clone();
        let [queue, sendmail] = ["queue_directory", "sendmail_path"].map(|name| PathBuf::from(setup.main.get(name)));
        let reached = reached.clone();
        let look = move || {
            let [passwd, groups] =
                ["/etc/passwd", "/etc/group"].map(|file| fs::read_to_string(file).unwrap_or_default());
            let look = |service: &CommandService| {
                let reader = service.reader(&passwd, &groups);
                let directory = service.directory(&queue);
                let mut looked =
                    Looked::through(service, &of.join(service.file()), &names, &passwd, reader, &directory);
                let known = KnownPrograms { reader, directory: &directory, sendmail: &sendmail };
                if !service.is_spelt_out() {
                    looked.doubt = Some(UnknownLogin::NotSpelt);
                } else if looked.doubt.is_none() && service.is_reached(&reached) && !service.is_known(known) {
                    let program = service.argv.first().map_or("", String::as_str);
                    looked.doubt = Some(UnknownLogin::NotKnown(PathBuf::from(program)));
                }
                looked
            };
            services.iter().map(look).collect::<Vec<_>>()
        };
        let mut found = CommandLogins::default();
        let Some(looked) = self.in_time(&master_cf, WHOLE_LOOK, look) else {
            let what = "what the programs that Postfix hands mail to have for logins could not be looked through: a file gives no answer";
            found.tell(
                &master_cf,
                what.into(),
                "see which file system hangs: until then a key of theirs is not known".into(),
            );
            found.incomplete.extend(setup.commands.iter().map(CommandService::id));
            return found;
        };
        for (service, looked) in setup.commands.iter().zip(looked) {
            for (id, file, line) in looked.ids {
                let table = TableId::new(shown::table(&file.display().to_string()));
                found.key_ids.add(&id, &table, line, service.service());
            }
            let Some(doubt) = looked.doubt.filter(|_| !unlisted_ok.contains(&service.id())) else { continue };
            let named = |file: &Path| shown::table(&file.display().to_string());
            let why = match &doubt {
                UnknownLogin::NotSpelt => {
                    "its name or command has a byte that is not UTF-8, so that what it runs cannot be told (give it, and what it names, \
                     names in UTF-8, as of ASCII letters)"
                        .to_owned()
                }
                UnknownLogin::NotKnown(program) => format!("what {} does with mail is not known", named(program)),
                UnknownLogin::NamesEndpoint(file) => format!("{} names the endpoint", named(file)),
                UnknownLogin::SettingsUnseen(client) => {
                    format!("the settings of {} are not to be seen from here", named(client))
                }
            };
            let what = format!(
                "{} runs a program that is no part of Postfix, and {why}: a login that it has is not changed, and not known",
                match &service.starter {
                    Starter::Service(name) | Starter::Spawn { name, .. } | Starter::Program(name) => {
                        format!("the service {name}")
                    }
                    Starter::Parameter { name, .. } => (*name).to_owned(),
                }
            );
            let fix = format!(
                "change its login whenever the key is rotated, or hand its mail to a service that runs smtp(8); where it has no login \
                 of this credential, say so: unlisted_ok = [{:?}] in [[credential.target]]",
                service.id()
            );
            found.tell(&self.config_dir.join(service.file()), what, fix);
            found.incomplete.push(service.id());
        }
        found
    }
}

impl CommandLogins {
    fn tell(&mut self, file: &Path, what: String, fix: String) {
        self.findings.push(Finding { severity: Severity::Warning, line: None, file: Some(file.to_owned()), what, fix });
    }
}

/// What stands in what one of them names.
#[derive(Debug, Default, PartialEq)]
struct Looked {
    /// Each access key id, with the file and the line.
    ids: Vec<(String, PathBuf, Option<usize>)>,
    doubt: Option<UnknownLogin>,
}

/// Why it may have a login that is not known.
#[derive(Debug, PartialEq)]
enum UnknownLogin {
    /// Which program it is, cannot be read.
    NotSpelt,
    /// This program gets mail, and what it does is not known.
    NotKnown(PathBuf),
    /// The first file that does.
    NamesEndpoint(PathBuf),
    /// Of this client.
    SettingsUnseen(PathBuf),
}

impl Looked {
    /// `of`: the file that it stands in; `reader`: with whose rights the program reads; `directory`: where it is run.
    fn through(
        service: &CommandService,
        of: &Path,
        names: &[String],
        passwd: &str,
        reader: ReadingUser,
        directory: &Path,
    ) -> Self {
        let mut looked = Self::default();
        for word in &service.argv {
            looked.take(of, word, names, |_| None);
        }
        let spelt = service.argv.first().map_or("", String::as_str);
        let program = found_at(spelt, directory);
        if let Starter::Program(_) = service.starter {
            looked.doubt = Some(UnknownLogin::NotKnown(program.clone()));
        }
        let mut clients = clients_in(&service.argv.join(" "));
        // Each with the number of scripts that lead to it: what is near comes first.
        let found = (!spelt.is_empty() && !spelt.starts_with('/')).then(|| program.clone());
        let paths = service.argv.iter().flat_map(|word| paths_in(word));
        let mut named: VecDeque<(PathBuf, usize)> = found.into_iter().chain(paths).map(|path| (path, 0)).collect();
        let (mut tried, mut whole) = (HashSet::new(), HashSet::new());
        let (mut files, mut settings_seen) = (0, false);
        while let Some((path, scripts)) = named.pop_front() {
            if files == MOST_FILES {
                break;
            }
            if !tried.insert(path.clone()) {
                continue;
            }
            let text = match reader.read(&path) {
                FileText::Read(text) => text,
                // By its modes: the program may be let in by others, as by a group of a client that is set-group-id.
                FileText::Closed => {
                    looked.doubt.get_or_insert(UnknownLogin::SettingsUnseen(path));
                    continue;
                }
                FileText::Absent => continue,
            };
            files += 1;
            let is_script =
                text.starts_with("#!") || scripts == 0 && service.reads_scripts() || has_name_of_script(&path);
            settings_seen |= scripts == 0 && path != program;
            if scripts > 0 && !is_script {
                // Where a script keeps a login: a name of the endpoint is no sign of one there.
                looked.take(&path, &text, &[], Some);
                continue;
            }
            looked.take(&path, &text, names, Some);
            if is_script && scripts < MOST_SCRIPTS {
                clients.extend(clients_in(&text));
                let paths = paths_in(&text).chain(paths_beside(&path, &text)).take(MOST_PATHS);
                named.extend(paths.map(|path| (path, scripts + 1)));
            }
            whole.insert(path);
        }
        let home = service.user.as_deref().and_then(|user| home_of(passwd, user.split(':').next().unwrap_or_default()));
        let settings = clients.into_iter().flatten().filter_map(|place| match place.strip_prefix("~/") {
            Some(rest) => Some(home.as_ref()?.join(rest)),
            None => Some(PathBuf::from(place)),
        });
        for path in settings {
            if whole.contains(&path) {
                continue;
            }
            match reader.read(&path) {
                FileText::Read(text) => {
                    // Some script may have named it.
                    looked.ids.retain(|(_, file, _)| *file != path);
                    looked.take(&path, &text, names, Some);
                    whole.insert(path);
                    settings_seen = true;
                }
                FileText::Closed => {
                    looked.doubt.get_or_insert(UnknownLogin::SettingsUnseen(path));
                }
                FileText::Absent => {}
            }
        }
        let is_client = CLIENTS[..BY_SETTINGS].iter().any(|(name, _)| program.ends_with(name));
        if is_client && !settings_seen {
            looked.doubt.get_or_insert(UnknownLogin::SettingsUnseen(program));
        }
        looked
    }

    fn take(&mut self, file: &Path, text: &str, names: &[String], number: impl Fn(usize) -> Option<usize>) {
        for (n, line) in text.lines().enumerate() {
            let is_word = |c: char| c.is_ascii_alphanumeric();
            for id in line.split(|c| !is_word(c)).filter(|word| word.len() >= LEAST_ID && is_access_key_id(word)) {
                self.ids.push((id.to_owned(), file.to_owned(), number(n + 1)));
            }
            let folded = line.to_ascii_lowercase();
            let is_comment = folded.trim_start().starts_with('#');
            if self.doubt.is_none() && !is_comment && names.iter().any(|name| folded.contains(name)) {
                self.doubt = Some(UnknownLogin::NamesEndpoint(file.to_owned()));
            }
        }
    }
}

/// IAM's are no shorter (IAM API reference, `AccessKey`); a word of another meaning may be.
const LEAST_ID: usize = 16;

/// By what a program's settings name the endpoint: its host names, in lower case. Of SES any region's count, as one IAM key
/// serves them all; a name of this host itself stands in many a script.
fn endpoint_names(relay: &Relay) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for relay in relay.endpoints() {
        let endpoint = super::hops::Endpoint::of(relay);
        names.extend(endpoint.region.is_some().then(|| "email-smtp".to_owned()));
        let is_host = |name: &&str| {
            name.contains('.') && !name.starts_with("localhost") && name.bytes().any(|b| b.is_ascii_alphabetic())
        };
        names.extend(endpoint.names().filter(is_host).map(str::to_ascii_lowercase));
    }
    names
}

/// The well-known clients that a text names, by the places of their settings.
fn clients_in(text: &str) -> Vec<&'static [&'static str]> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let words: Vec<&str> = text.split(|c| !is_word(c)).collect();
    CLIENTS.iter().filter(|(name, _)| words.contains(name)).map(|(_, places)| *places).collect()
}

/// The absolute paths in a text.
fn paths_in(text: &str) -> impl Iterator<Item = PathBuf> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    let words = text.split(move |c| !is_path(c)).filter_map(|word| {
        // `-C/etc/msmtprc`, and what stands alone.
        let at = word.find('/')?;
        let is_option =
            (at == 0 || word.starts_with('-') && !word[..at].contains('.')) && !word[at..].starts_with("//");
        is_option.then(|| word[at..].trim_end_matches(['.', '/']))
    });
    let counts = |path: &&str| path.len() > 1 && !ELSEWHERE.iter().any(|elsewhere| path.starts_with(elsewhere));
    words.filter(counts).map(PathBuf::from)
}

/// What a script may mean by a name with an extension, or by one that begins with a dot, in its own directory.
fn paths_beside(script: &Path, text: &str) -> impl Iterator<Item = PathBuf> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    let has_dot = |word: &str| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').is_some_and(|(_, end)| end.starts_with(|c: char| c.is_ascii_alphabetic()))
    };
    let dir = script.parent().map(Path::to_owned).unwrap_or_default();
    let names = text.split(move |c| !is_part(c)).filter(move |word| has_dot(word) && !word.contains("//"));
    names.flat_map(move |word| {
        let word = word.trim_end_matches('.');
        // `./a.json`, and `/a.json` behind a parameter or an expression.
        let whole = word.strip_prefix("./").unwrap_or(word).trim_start_matches('/');
        // `DIR/a.json` behind the `$` of a parameter.
        let behind = whole.split_once('/').map(|(_, rest)| rest);
        std::iter::once(whole).chain(behind).map(|name| dir.join(name)).collect::<Vec<_>>()
    })
}

fn has_name_of_script(path: &Path) -> bool {
    path.extension().and_then(|end| end.to_str()).is_some_and(|end| SCRIPTS.contains(&end))
}

/// By passwd(5).
fn home_of(passwd: &str, user: &str) -> Option<PathBuf> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(5).filter(|home| home.starts_with('/')).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_run_a_program() {
        let listed = "smtp unix - - n - - smtp\n\
                      msmtp unix - n n - - pipe flags=R user=mail:mail argv=/usr/bin/msmtp -C/etc/m ${recipient}\n\
                      127.0.0.1:9 inet n n n - 0 spawn user=nobody argv= /usr/bin/filter\n\
                      out unix - n n - - ./pipe user=nobody argv=/usr/bin/filter\n\
                      dot unix - - n - - .//smtp\n\
                      wrapped unix - - n - - smtp-wrapper -v -o smtp_sasl_password_maps=texthash:/other\n\
                      outside unix - - n - - ../bin/smtp\n";
        let found = CommandService::all(listed, &Settings::parse("daemon_directory = /usr/lib/postfix/sbin\n"));
        let told: Vec<_> =
            found.iter().map(|s| (s.id(), s.user.as_deref().unwrap_or_default(), s.argv.join(" "))).collect();
        assert_eq!(
            told,
            [
                ("pipe:msmtp".to_owned(), "mail:mail", "/usr/bin/msmtp -C/etc/m ${recipient}".to_owned()),
                ("pipe:127.0.0.1:9".to_owned(), "nobody", "/usr/bin/filter".to_owned()),
                ("pipe:out".to_owned(), "nobody", "/usr/bin/filter".to_owned()),
                ("pipe:wrapped".to_owned(), "", "/usr/lib/postfix/sbin/smtp-wrapper -v texthash:/other".to_owned()),
                ("pipe:outside".to_owned(), "", "/usr/lib/postfix/sbin/../bin/smtp".to_owned()),
            ]
        );
        // What another program does with mail is not known, whatever is found in it.
        let looked =
            Looked::through(&found[3], Path::new("/etc/master.cf"), &[], "", ReadingUser::Root, Path::new("/"));
        let program = PathBuf::from("/usr/lib/postfix/sbin/smtp-wrapper");
        assert_eq!(looked, Looked { ids: Vec::new(), doubt: Some(UnknownLogin::NotKnown(program)) });
    }

    #[test]
    fn paths_and_clients_in_a_text() {
        let paths = |text: &str| paths_in(text).map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            paths("-C/etc/msmtprc --file=/a/b \"/c d\" and/or https://x.example/y ./e"),
            ["/etc/msmtprc", "/a/b", "/c"]
        );
        assert!(paths("> /dev/null 2>> /var/log/x.log / ${dir}").is_empty());
        assert_eq!(clients_in("exec /usr/bin/msmtp -a ses"), [CLIENTS[0].1]);
        assert!(clients_in("smsmtpd, admadmin").is_empty());
        let passwd = "root:x:0:0::/root:/bin/sh\nfilter:x:9:9::/var/filter:/bin/false\nodd:x\n";
        assert_eq!(home_of(passwd, "filter"), Some("/var/filter".into()));
        assert_eq!((home_of(passwd, "odd"), home_of(passwd, "x")), (None, None));
    }

    #[test]
    fn paths_beside_a_script() {
        let paths = |text: &str| {
            let paths = paths_beside(Path::new("/srv/send"), text).map(|path| path.display().to_string());
            paths.collect::<Vec<_>>().join(" ")
        };
        for (text, expected) in [
            ("os.path.join(here, \"settings.json\")", "/srv/os.path.join /srv/settings.json"),
            (". \"$(dirname $0)/client.conf\"", "/srv/client.conf"),
            ("cat $DIR/a.conf ${DIR}/b/c.d", "/srv/DIR/a.conf /srv/a.conf /srv/b/c.d /srv/c.d"),
            ("load('.env') ./x.py ../y.ini", "/srv/.env /srv/x.py /srv/../y.ini /srv/y.ini"),
            ("https://a.example/x.html 3.14 send to it.", ""),
        ] {
            assert_eq!(paths(text), expected, "{text}");
        }
    }

    #[test]
    fn commands_of_local() {
        let settings = Settings::parse(
            "mailbox_command = /usr/bin/send -a x\nmailbox_command_maps = hash:/etc/postfix/commands, static:/a\n",
        );
        let found = CommandService::of_mailboxes(&settings, |name| name == "mailbox_command_maps");
        let told: Vec<_> = found.iter().map(|c| (c.id(), c.file(), c.argv.join(" "), c.reads_scripts())).collect();
        assert_eq!(
            told,
            [
                ("mailbox_command".to_owned(), "main.cf", "/usr/bin/send -a x".to_owned(), false),
                ("mailbox_command_maps".into(), "master.cf", "hash:/etc/postfix/commands, static:/a".into(), true),
            ]
        );
        assert_eq!(CommandService::of_mailboxes(&Settings::default(), |_| false), []);
    }

    #[test]
    fn what_is_told_of_a_program_that_mail_gets_to() {
        let main = Settings::parse(
            "daemon_directory = /usr/lib/postfix/sbin\ncompatibility_level = 3.6\nqueue_directory = /var/spool/postfix\n\
             smtpd_proxy_filter = 127.0.0.1:10030\n",
        );
        let listed = "idle unix - n n - - pipe user=nobody argv=/usr/bin/python3 -m sesrelay\n\
                      bulk unix - n n - - pipe user=nobody directory=/srv argv=/usr/bin/python3 -m sesrelay\n\
                      keep unix - n n - - pipe user=nobody argv=cat\n\
                      jail unix - n y - - pipe user=nobody argv=cat\n\
                      policy unix - n n - 0 spawn user=nobody argv=/usr/bin/python3 policy\n\
                      10030 inet n n n - 0 spawn user=nobody argv=/usr/bin/python3 filter\n";
        let commands = CommandService::all(listed, &main);
        let routing = super::super::origin::RouteSettings::of(
            &Settings::parse("local_transport = bulk\nmailbox_transport = jail\nfallback_transport = keep\n"),
            &[],
        );
        let reached = Reached::of(&routing, &Vec::new(), &[]);
        let known =
            KnownPrograms { reader: ReadingUser::Root, directory: Path::new("/"), sendmail: Path::new("/none") };
        let told: Vec<_> =
            commands.iter().filter(|c| c.is_reached(&reached) && !c.is_known(known)).map(|c| c.id()).collect();
        assert_eq!(told, ["pipe:bulk", "pipe:jail", "pipe:10030"]);
        let queue = Path::new("/var/spool/postfix");
        assert_eq!((commands[0].directory(queue), commands[1].directory(queue)), (queue.join(""), "/srv".into()));
        // The shell runs it.
        let mailbox = |command: &str| {
            let settings = Settings::parse(&format!("mailbox_command = {command}\nmailbox_command_maps = hash:/a\n"));
            let commands = CommandService::of_mailboxes(&settings, |_| false);
            commands.iter().map(|command| command.is_known(known)).collect::<Vec<_>>()
        };
        assert_eq!(mailbox("cat >> \"/var/mail/$USER\""), [true, false]);
        assert_eq!(mailbox("cat | python3 /srv/send"), [false, false]);
    }

    #[test]
    fn scripts_lead_to_a_login() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let file = |name: &str, text: &str| {
            let path = at(name);
            fs::write(&path, text.replace("DIR", &dir.path().display().to_string())).unwrap();
            path
        };
        let look = |argv: &str| {
            let argv = argv.replace("DIR", &dir.path().display().to_string());
            let argv = argv.split(' ').map(str::to_owned).collect();
            let service = CommandService {
                starter: Starter::Service("x".into()),
                user: None,
                argv,
                started_in: StartedIn::default(),
            };
            Looked::through(
                &service,
                Path::new("/etc/master.cf"),
                &["email-smtp".to_owned()],
                "",
                ReadingUser::Root,
                dir.path(),
            )
        };
        let login = file("login.json", "{\"host\": \"email-smtp.x\", \"user\": \"AKIAIOSFODNN7EXAMPLE\"}\n");
        let named = Looked { ids: vec![("AKIAIOSFODNN7EXAMPLE".to_owned(), login, Some(1))], doubt: None };
        // One starts another, and a third one.
        file("send", "#!/usr/bin/python3\nopen('DIR/login.json')\n");
        file("wrapper", "#!/bin/sh\nexec DIR/send\n");
        assert_eq!(look("DIR/wrapper ${recipient}"), named);
        file("outer", "#!/bin/sh\nexec DIR/wrapper\n");
        assert_eq!(look("DIR/outer"), named);
        // Where it ends.
        file("outermost", "#!/bin/sh\nexec DIR/outer\n");
        assert_eq!(look("DIR/outermost"), Looked::default());
        // Nothing in it says that it is a script, and its name does not either.
        file("plain", "exec DIR/send \"$@\"\n");
        for shell in ["/bin/sh", "/usr/bin/env sh", "/usr/bin/python3.11", "/usr/bin/perl -w"] {
            assert_eq!(look(&format!("{shell} DIR/plain ${{recipient}}")), named, "{shell}");
        }
        assert_eq!(look("/usr/bin/true DIR/plain"), Looked::default());
        file("called", "#!/bin/sh\npython3 DIR/named.py\n");
        file("named.py", "open('DIR/login.json')\n");
        assert_eq!(look("DIR/called"), named);
        // Beside it, wherever that is.
        file("beside", "#!/usr/bin/python3\nopen(os.path.join(os.path.dirname(__file__), 'login.json'))\n");
        assert_eq!(look("DIR/beside"), named);
        // A script that it starts names the endpoint itself.
        let direct = file("direct", "#!/bin/sh\nnc email-smtp.x 587\n");
        file("to-direct", "#!/bin/sh\nDIR/direct\nDIR/to-direct\n");
        let names = Some(UnknownLogin::NamesEndpoint(direct));
        assert_eq!(look("DIR/to-direct"), Looked { ids: Vec::new(), doubt: names });
        // A table of commands is no script itself.
        file("commands", "list DIR/send -x\n");
        let argv = vec![format!("hash:{}", at("commands").display())];
        let starter = Starter::Parameter { name: "mailbox_command_maps", in_master: false };
        let service = CommandService { starter, user: None, argv, started_in: StartedIn::default() };
        assert_eq!(
            Looked::through(&service, Path::new("/etc/main.cf"), &[], "", ReadingUser::Root, Path::new("/")),
            named
        );
    }

    #[test]
    fn what_counts_as_a_name_of_the_endpoint() {
        let relay = |endpoint: &str, aliases: &[&str]| Relay {
            endpoint: endpoint.into(),
            port: 587,
            region: None,
            endpoint_aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            also: Vec::new(),
        };
        let ses = relay("email-smtp.eu-west-1.amazonaws.com", &["127.0.0.1:2525", "Relay.internal", "tunnel"]);
        assert_eq!(endpoint_names(&ses), ["email-smtp", "email-smtp.eu-west-1.amazonaws.com", "relay.internal"]);
        assert!(endpoint_names(&relay("localhost", &[])).is_empty());
    }

    #[test]
    fn a_service_is_looked_through() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let login = file("login", "AKIAIOSFODNN7EXAMPLE:p\n# to email-smtp.x\n");
        let script = |text: &str| file("client", &format!("#!/bin/sh\n# email-smtp\n{text}\n"));
        let look = |path: &Path, words: &str| {
            let argv = std::iter::once(path.display().to_string()).chain(words.split(' ').map(str::to_owned)).collect();
            let service = CommandService {
                starter: Starter::Service("x".into()),
                user: Some("u".into()),
                argv,
                started_in: StartedIn::default(),
            };
            let passwd = format!("u:x:9:9::{}:/bin/sh\n", dir.path().display());
            Looked::through(
                &service,
                Path::new("/etc/master.cf"),
                &["email-smtp".to_owned()],
                &passwd,
                ReadingUser::Root,
                dir.path(),
            )
        };
        let names = |path: &Path| Some(UnknownLogin::NamesEndpoint(path.to_owned()));
        let id = |path: &Path, line| ("AKIAIOSFODNN7EXAMPLE".to_owned(), path.to_owned(), line);
        // It delivers, and names nothing.
        assert_eq!(look(&script("exec /bin/true \"$@\""), "${recipient}"), Looked::default());
        // What it reads its login from.
        let path = script(&format!("cat {}", login.display()));
        assert_eq!(look(&path, ""), Looked { ids: vec![id(&login, Some(1))], doubt: None });
        // It names the endpoint itself, whatever its comments are written in, or in its command.
        let latin = dir.path().join("latin");
        fs::write(&latin, b"#!/bin/sh\n# caf\xe9\nnc email-smtp.eu-west-1.amazonaws.com 587\n").unwrap();
        assert_eq!(look(&latin, "").doubt, names(&latin));
        fs::write(&latin, b"\x7fELF\0email-smtp").unwrap();
        assert_eq!(look(&latin, ""), Looked::default());
        let path = script("nc EMAIL-SMTP.eu-west-1.amazonaws.com 587");
        assert_eq!(look(&path, ""), Looked { ids: vec![], doubt: names(&path) });
        let found = look(&script(""), "--server email-smtp.x --user AKIAIOSFODNN7EXAMPLE");
        let master_cf = PathBuf::from("/etc/master.cf");
        assert_eq!(found, Looked { ids: vec![id(&master_cf, None)], doubt: names(&master_cf) });
        // A client of its user's.
        let settings = file(".msmtprc", "host email-smtp.x\nuser AKIAIOSFODNN7EXAMPLE\n");
        let expected = Looked { ids: vec![id(&settings, Some(2))], doubt: names(&settings) };
        assert_eq!(look(&script("msmtp -t"), ""), expected);
        assert_eq!(look(&script("sendmail -t"), ""), Looked::default());
        // One whose settings are elsewhere, or closed to us.
        let client = PathBuf::from("/usr/bin/msmtp");
        assert_eq!(look(&client, "-t").doubt, names(&dir.path().join(".msmtprc")));
        fs::remove_file(dir.path().join(".msmtprc")).unwrap();
        assert_eq!(look(&client, "-t").doubt, Some(UnknownLogin::SettingsUnseen(client.clone())));
        let other = file("other", "host smtp.other.example\nuser x\n");
        assert_eq!(look(&client, &format!("-C {}", other.display())), Looked::default());
    }
}
