//! One run: the set-up as people have it on a real Postfix, mail through every flow, `check`, the adoption, a rollover,
//! the end of the old key, mail again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use relaykey::credential::{Secret, ses_smtp_password};
use serde_json::Value;

use crate::lab::book::Book;
use crate::lab::moto;
use crate::lab::postfix::{Instance, cool_down, wait_for};
use crate::lab::relaykey::{self as lab, Key, Program, Ran};

use super::case::{Case, Words};
use super::network::{Arrival, Network, hand_over};
use super::random;
use super::verdict::{Facts, Names, Verdict, as_found, changed_keys, foreign_lines, is_as_described, judge};

/// The longest that a message may take, retries included.
const DELIVERY: Duration = Duration::from_secs(120);
/// The longest that one run of the program may take.
const RUN: Duration = Duration::from_secs(120);
/// Where the AWS API server is, on a port that only root could take.
const AWS: &str = "http://127.0.0.1:80";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The login of the other provider.
const OTHER: (&str, &str) = ("relay-user", "of-the-other-provider");

/// An IAM user's key at SES in two regions.
struct Keys {
    old: Key,
    new: Key,
    prev: Key,
    foreign: Key,
    stale: Key,
}

fn eu_password(key: &Key) -> Secret {
    ses_smtp_password(&Secret::new(key.secret.clone()), "eu-west-1")
}

fn eu_pair(key: &Key) -> String {
    let password = eu_password(key);
    lab::keep_secret(password.expose());
    format!("{}:{}", key.id, password.expose())
}

/// The case, set up.
struct World<'a> {
    case: &'a Case,
    network: Network,
    keys: Keys,
    instances: Vec<Instance>,
    work: PathBuf,
    words: Words,
    book: Book,
    sent: usize,
}

/// What a run came to.
pub struct Outcome {
    pub verdict: Verdict,
    pub why: String,
    pub check: String,
    pub sync: String,
}

/// Runs the case of this name, in namespaces of its own.
pub fn run(name: &str) -> Outcome {
    let case = Case::read(name);
    run_case(name, &case, |names, before| is_as_described(&case, names, before).map(|()| case.clone()))
}

/// Makes a set-up from a seed and runs it, in namespaces of its own. What it does before is what it should do.
pub fn run_as_found(seed: u64) -> Outcome {
    let case = random::set_up(seed, Path::new("/tmp/set-up"));
    run_case(&format!("{seed}-random"), &case, |names, before| Ok(as_found(&case, names, before)))
}

/// `expect`: what has to become of each flow, given what became of it before anything was done.
fn run_case(
    name: &str,
    case: &Case,
    expect: impl FnOnce(&Names, &[Option<Arrival>]) -> Result<Case, String>,
) -> Outcome {
    let mut world = World::new(name, case);
    world.set_up();
    let names = world.names();
    let mut facts = Facts { before: world.mail(false), ..Facts::default() };
    let case = expect(&names, &facts.before).unwrap_or_else(|wrong| panic!("{wrong}\n{}", world.logs()));
    let at_first = world.files();

    let mut check = None;
    let mut said = String::new();
    if !case.fresh {
        check = Some(world.relaykey(&["check"]));
        said += &words_of(&world.relaykey(&["sync", "--wait", "10s"]));
    }
    let before_people = world.files();
    world.script("between.sh").as_mut().map(done);
    let adopted = world.files();
    world.publish();
    let check = check.unwrap_or_else(|| world.relaykey(&["check"]));
    let mut last = world.relaykey(&["sync", "--wait", "10s"]);
    said += &words_of(&last);
    if case.confirm_again {
        let (named, then) = (named_as_left(&world.last_reports()), world.files());
        last = world.relaykey(&["sync", "--wait", "10s"]);
        said += &words_of(&last);
        facts.named_and_changed = changed_since(&named, &then, &world.files());
    }
    facts.check_exit = check.code;
    facts.check = words_of(&check);
    facts.sync = said;
    facts.sync_exit = last.code;
    facts.check_lacks = lacks(&without_good(&facts.check), &case.check_names);
    facts.refusal_lacks = lacks(&format!("{}{}", without_good(&facts.check), facts.sync), &case.refusal_names);

    let reports = world.last_reports();
    facts.confirmed = confirmed(&reports, &names);
    facts.told = reports.values().any(|r| names_in(r, &names.old) || names_in(r, &names.prev));
    if facts.confirmed {
        // What the control side does then.
        if !reports.values().any(|r| names_in(r, &names.old)) {
            world.dies(&world.keys.old);
        }
        if !reports.values().any(|r| names_in(r, &names.prev)) {
            world.dies(&world.keys.prev);
        }
        facts.foreign_changed = world.foreign_changes(&at_first);
    } else {
        // What people change in between is theirs.
        facts.changed = differences(&adopted, &world.files());
        if !facts.before.contains(&None) {
            facts.changed.extend(differences(&at_first, &before_people));
        }
    }
    facts.after = world.mail(true);
    for command in advice(&format!("{}\n{}", facts.check, facts.sync)) {
        println!("pasted: {command}");
        let ended = Command::new("sh").args(["-c", &command]).env("PATH", PATH).status().expect("a shell");
        println!("it ended with {ended}");
        let then = world.mail(true);
        let came = |arrival: &Option<Arrival>| arrival.as_ref().map(|a| a.server);
        if facts.after.iter().zip(&then).any(|(was, is)| was.is_some() && came(was) != came(is)) {
            facts.harmful.push(command);
            break;
        }
    }
    let (verdict, why) = judge(&case, &names, &facts);
    let outcome = Outcome { verdict, why, check: facts.check, sync: facts.sync };
    if !verdict.is_right() {
        println!("{}", world.logs());
    }
    outcome
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        // What would keep its directory from being removed. A mount that is busy goes with the namespace.
        if let Some(mut cleanup) = self.script("cleanup.sh") {
            let _ = cleanup.output();
        }
    }
}

impl<'a> World<'a> {
    fn new(name: &str, case: &'a Case) -> Self {
        let aws = moto::shared().endpoint();
        let (_, port) = aws.rsplit_once(':').expect("a port");
        let network = Network::start(port.parse().expect("a number"));
        let keys = Keys { old: Key::new(), new: Key::new(), prev: Key::new(), foreign: Key::new(), stale: Key::new() };
        let (number, _) = name.split_once('-').unwrap_or((name, ""));
        let base = |suffix: &str| PathBuf::from(format!("/tmp/c{number}{suffix}"));
        let mut instances = vec![instance(&base(""))];
        if case.dir.join("second").is_dir() {
            instances.push(instance(&base("b")));
        }
        let work = base("-work");
        directory(&work, 0o755);
        let ca = Path::new("/tmp/ca.pem");
        fs::write(ca, network.ca_pem()).expect("written");
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let mut words = Words::default()
            .with("cfg1", path(&base("").join("etc")))
            .with("cfg2", path(&base("b").join("etc")))
            .with("work", path(&work))
            .with("ca", path(ca))
            .with("secret_name", format!("secret-{number}"))
            .with("secret_b", format!("secret-b-{number}"))
            .with("old", keys.old.pair())
            .with("old_id", &*keys.old.id)
            .with("old_pw", keys.old.password())
            .with("old_secret", &*keys.old.secret)
            .with("old_eu", eu_pair(&keys.old))
            .with("prev", keys.prev.pair())
            .with("prev_eu", eu_pair(&keys.prev))
            .with("foreign", keys.foreign.pair())
            .with("foreign_eu", eu_pair(&keys.foreign))
            .with("stale", keys.stale.pair())
            .with("other", format!("{}:{}", OTHER.0, OTHER.1));
        words = words.with("cfg", path(&base("").join("etc")));
        Self { case, network, keys, instances, work, words, book: Book::new(), sent: 0 }
    }

    fn names(&self) -> Names {
        let Keys { old, new, prev, foreign, .. } = &self.keys;
        let [old, new, prev, foreign] = [old, new, prev, foreign].map(|key| key.id.clone());
        Names { old, new, prev, foreign, other: OTHER.0.to_owned() }
    }

    /// A key works at SES from now on.
    fn lives(&self, key: &Key) {
        self.network.ses.set_key(&key.id, &key.login.password);
        self.network.ses_eu.set_key(&key.id, &eu_password(key));
    }

    fn dies(&self, key: &Key) {
        self.network.ses.deactivate(&key.id);
        self.network.ses_eu.deactivate(&key.id);
    }

    fn set_up(&self) {
        self.network.other.set_key(OTHER.0, &Secret::new(OTHER.1.to_owned()));
        lab::keep_secret(OTHER.1);
        for key in [&self.keys.old, &self.keys.foreign] {
            self.lives(key);
        }
        self.fill(&self.instances[0], &self.case.dir, &self.words);
        if let Some(second) = self.instances.get(1) {
            let config_dir = second.config_dir.to_str().expect("UTF-8");
            self.fill(second, &self.case.dir.join("second"), &self.words.clone().with("cfg", config_dir));
        }
        self.script("setup.sh").as_mut().map(done);
        let name = self.words.fill("{secret_name}");
        let first = match (self.case.prev, self.case.prev_of_eu) {
            (true, true) => {
                self.keys.prev.json().replace(self.keys.prev.password(), eu_password(&self.keys.prev).expose())
            }
            (true, false) => self.payload(&self.keys.prev),
            (false, _) => self.payload(&self.keys.old),
        };
        self.in_aws(&name, &first, true);
        if self.case.prev {
            self.lives(&self.keys.prev);
            lab::next_second();
            self.in_aws(&name, &self.payload(&self.keys.old), false);
        }
        let agent = self.words.fill(&self.case.agent());
        if agent.contains("secret-b-") {
            moto::shared().secret(&self.words.fill("{secret_b}"), &self.payload(&self.keys.foreign));
        }
        directory(Path::new("/tmp/agent"), 0o700);
        let text = format!(
            "config_version = 1\n[host]\nname = \"mx1.example.com\"\nstate_dir = \"/tmp/agent/state\"\n\
             run_dir = \"/tmp/agent/run\"\n[aws]\nregion = {:?}\nendpoint_url = {:?}\n{agent}\n{}",
            moto::REGION,
            AWS,
            self.book.receiver(),
        );
        fs::write("/tmp/agent/config.toml", text).expect("written");
        for instance in &self.instances {
            // A wrapper for all instances may have started it.
            if instance.master().is_none() {
                instance.start();
            }
        }
    }

    /// What a source holds of a key.
    fn payload(&self, key: &Key) -> String {
        if self.case.payload == "iam" { key.iam_json() } else { key.json() }
    }

    /// Puts a value into the source.
    fn in_aws(&self, name: &str, value: &str, is_first: bool) {
        let moto = moto::shared();
        if self.case.agent().contains("parameter-store") {
            moto.parameter(name, value);
        } else if is_first {
            moto.secret(name, value);
        } else {
            moto.put(name, value, &["AWSCURRENT"]);
        }
    }

    fn publish(&self) {
        lab::next_second();
        self.lives(&self.keys.new);
        self.in_aws(&self.words.fill("{secret_name}"), &self.payload(&self.keys.new), false);
    }

    /// Makes an instance what the folder says.
    fn fill(&self, instance: &Instance, folder: &Path, words: &Words) {
        let read = |name: &str| fs::read_to_string(folder.join(name)).map(|text| words.fill(&text)).unwrap_or_default();
        let config_dir = &instance.config_dir;
        let main_cf = read("main.cf");
        let (gone, set): (Vec<_>, Vec<_>) =
            main_cf.lines().filter(|line| !line.trim().is_empty()).partition(|line| line.starts_with('-'));
        let gone: Vec<_> = gone.iter().map(|name| name[1..].trim()).collect();
        for (what, lines) in [("-X", gone), ("-e", set)] {
            if !lines.is_empty() {
                done(Command::new("postconf").arg("-c").arg(config_dir).arg(what).args(lines));
            }
        }
        cool_down(&instance.main_cf());
        let mut master = fs::File::options().append(true).open(config_dir.join("master.cf")).expect("master.cf");
        master.write_all(read("master.cf").as_bytes()).expect("written");
        for entry in fs::read_dir(folder.join("tables")).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().expect("UTF-8");
            let table = self.case.tables.get(&name);
            let default = Default::default();
            let table = table.unwrap_or(&default);
            let path = config_dir.join(&name);
            fs::write(&path, read(&format!("tables/{name}"))).expect("written");
            let mode = u32::from_str_radix(&table.mode, 8).expect("octal");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            if table.is_compiled() {
                done(Command::new("postmap").arg("-c").arg(config_dir).arg(format!(
                    "{}:{}",
                    table.kind,
                    path.display()
                )));
            }
            if let Some(owner) = &table.owner {
                done(Command::new("chown").arg(owner).arg(&path));
            }
            cool_down(&path);
        }
    }

    /// A script of the folder, if it is there.
    fn script(&self, name: &str) -> Option<Command> {
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", &self.case.file(name)?])
            .env("PATH", PATH)
            .env("CFG", &self.instances[0].config_dir)
            .env("CFG2", self.instances.get(1).map_or(Path::new(""), |i| &i.config_dir))
            .env("WORK", &self.work)
            .env("RELAYKEY", lab::program())
            .env("OLD", self.keys.old.pair());
        Some(shell)
    }

    fn relaykey(&self, arguments: &[&str]) -> Ran {
        let aws = [("AWS_ACCESS_KEY_ID", "AKIAFIELDAGENT000000"), ("AWS_SECRET_ACCESS_KEY", "of-no-importance")];
        Program::start(&[&["--config", "/tmp/agent/config.toml"], arguments].concat(), &aws, b"").wait(RUN)
    }

    /// A message through every flow; where each came.
    fn mail(&mut self, after: bool) -> Vec<Option<Arrival>> {
        self.sent += 1;
        let subject = |i: usize| format!("round-{}-{i}", self.sent);
        let flows = self.case.flows.iter().enumerate();
        let handed: Vec<_> = flows
            .map(|(i, flow)| {
                let instance = &self.instances[flow.instance];
                let begun = instance.log().len();
                (instance, begun, subject(i), hand_over(instance.smtpd_port, &flow.from, &flow.to, &subject(i)))
            })
            .collect();
        // What was put off before is tried once more, as it would be some minutes later.
        let tries = if after { 2 } else { 1 };
        let came = |(instance, begun, subject, id): &(&Instance, usize, String, String)| {
            let mut flushed = Instant::now();
            wait_for(&format!("what became of {subject}"), DELIVERY, || {
                if let Some(arrival) = self.network.arrival(subject) {
                    return Some(Some(arrival));
                }
                let log = instance.log();
                let log = log.get(*begun..).unwrap_or_default();
                let ends = || log.lines().filter(|l| l.contains(&format!("{id}: to=<")));
                let deferred = ends().filter(|l| l.contains("status=deferred")).count();
                // A client that does not even start: its mail waits for ever.
                let does_not_start = log.contains("/smtp: bad command startup");
                if does_not_start || deferred >= tries || ends().any(|l| l.contains("status=bounced")) {
                    return Some(None);
                }
                // It may have been on its way into the queue when it was flushed.
                if deferred > 0 && flushed.elapsed() > Duration::from_secs(1) {
                    instance.flush();
                    flushed = Instant::now();
                }
                None
            })
        };
        handed.iter().map(came).collect()
    }

    /// The last report of each credential.
    fn last_reports(&self) -> BTreeMap<String, Value> {
        let reports = self.book.reports().into_iter();
        reports.map(|report| (report["credential"].as_str().expect("a name").to_owned(), report)).collect()
    }

    /// The configuration of each instance, and what lies elsewhere.
    fn files(&self) -> BTreeMap<PathBuf, File> {
        let mut all = BTreeMap::new();
        for instance in &self.instances {
            look(&instance.config_dir, &mut all);
        }
        look(&self.work, &mut all);
        all
    }

    /// What differs now and is no login of ours.
    fn foreign_changes(&self, before: &BTreeMap<PathBuf, File>) -> Vec<String> {
        let after = self.files();
        let Keys { old, new, prev, foreign, .. } = &self.keys;
        let taken_over =
            self.case.taken_over || self.case.flows.iter().any(|f| f.auth == Some(super::case::Whose::TakenOver));
        let mut ours = vec![old.id.as_str(), &prev.id];
        if taken_over {
            ours.push(&foreign.id);
        }
        let (us, eu) = (new.pair(), eu_pair(new));
        let mut wrong = Vec::new();
        for (path, was) in before {
            let Some(is) = after.get(path) else {
                wrong.push(format!("{} is gone", path.display()));
                continue;
            };
            if (was.mode, was.owner) != (is.mode, is.owner) {
                wrong.push(format!("{} has another mode or owner", path.display()));
            }
            // Of maps, mail is the judge.
            let text = |file: &File| String::from_utf8(file.content.clone()).ok().filter(|text| !text.contains('\0'));
            if let (Some(was), Some(is)) = (text(was), text(is)) {
                let lines = foreign_lines(&was, &is, &ours, &[&us, &eu]);
                wrong.extend(lines.into_iter().map(|line| format!("{}: {line}", path.display())));
            }
        }
        wrong
    }

    fn logs(&self) -> String {
        self.instances.iter().map(Instance::log).collect()
    }
}

/// A private instance below this directory, which says nothing yet but what all of them need.
fn instance(base: &Path) -> Instance {
    let config_dir = base.join("etc");
    for dir in [base, &config_dir, &base.join("spool"), &base.join("data"), &base.join("log")] {
        directory(dir, 0o755);
    }
    done(Command::new("chown").arg("postfix").arg(base.join("data")));
    let name = base.file_name().and_then(|n| n.to_str()).expect("a name");
    let instance = Instance {
        base: base.to_owned(),
        _directory: None,
        config_dir,
        map_type: "hash".into(),
        smtpd_port: crate::lab::postfix::free_port(),
    };
    let main_cf = relaykey::standin::postfix::main_cf(base, name);
    instance.write_main_cf(&format!("{main_cf}smtp_tls_security_level = verify\nsmtp_tls_CAfile = /tmp/ca.pem\n"));
    let master_cf = relaykey::standin::postfix::master_cf(instance.smtpd_port);
    fs::write(instance.config_dir.join("master.cf"), master_cf).expect("written");
    // Without it some kinds of tables are unknown.
    let kinds = Path::new("/etc/postfix/dynamicmaps.cf");
    if kinds.is_file() {
        fs::copy(kinds, instance.config_dir.join("dynamicmaps.cf")).expect("copied");
    }
    instance
}

fn directory(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn done(command: &mut Command) {
    let output = command.env("PATH", PATH).output().expect("a program");
    let said = String::from_utf8_lossy(&output.stderr);
    let what: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    assert!(output.status.success(), "{what:?}: {}: {said}", output.status);
}

fn words_of(ran: &Ran) -> String {
    format!(
        "$ {} (exit {})\n{}{}",
        ran.what.replace("--config /tmp/agent/config.toml ", ""),
        ran.code,
        ran.out,
        ran.err
    )
}

/// Without the lines of what is good.
fn without_good(check: &str) -> String {
    check.lines().filter(|line| !line.starts_with("ok ")).map(|line| format!("{line}\n")).collect()
}

/// The fixes that are commands as they stand, each once. What installs software, and what is ours, is not among them.
fn advice(said: &str) -> Vec<String> {
    let programs =
        ["postconf", "postmap", "postfix", "postmulti", "chmod", "chown", "chgrp", "chattr", "mv", "cp", "umount"];
    let mut all = Vec::new();
    for fix in said.lines().filter_map(|line| line.trim_start().strip_prefix("fix: ")) {
        // A command, or prose that leads to one in parentheses.
        let quoted =
            || fix.split_once(" with: (").and_then(|(_, rest)| rest.split_once("); ")).map(|(inside, _)| inside);
        let is_command = fix.split(' ').next().is_some_and(|word| programs.contains(&word));
        let command = if is_command { Some(fix) } else { quoted() };
        all.extend(command.map(str::to_owned).filter(|command| !all.contains(command)));
    }
    all
}

/// The patterns that no line of the text has.
fn lacks(text: &str, patterns: &[String]) -> Vec<String> {
    let lacking = |pattern: &&String| {
        let mut grep = Command::new("grep").args(["-Eiq", "-e", pattern]).stdin(Stdio::piped()).spawn().expect("grep");
        // It stops reading once it has found it.
        let _ = grep.stdin.take().expect("piped").write_all(text.as_bytes());
        !grep.wait().expect("grep").success()
    };
    patterns.iter().filter(lacking).cloned().collect()
}

/// Is the new key in use, by the last report of each credential of its source?
fn confirmed(reports: &BTreeMap<String, Value>, names: &Names) -> bool {
    let is_of_another = |report: &&Value| report["source"].as_str().is_some_and(|s| s.contains("secret-b-"));
    let mut of_it = reports.values().filter(|r| !is_of_another(r)).peekable();
    let is_in_use = |report: &Value| {
        ["adopted", "confirmed"].map(Some).contains(&report["outcome"].as_str()) && report["username"] == *names.new
    };
    of_it.peek().is_some() && of_it.all(is_in_use)
}

/// What a report, or its targets, name beside what is in use.
fn listed(report: &Value, list: &str) -> Vec<Value> {
    let targets = report["targets"].as_array().into_iter().flatten();
    targets.chain([report]).filter_map(|t| t[list].as_array()).flatten().cloned().collect()
}

/// The keys of the entries that the reports say are left.
fn named_as_left(reports: &BTreeMap<String, Value>) -> Vec<String> {
    let left = reports.values().flat_map(|report| listed(report, "remaining_old"));
    left.filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

/// Those of them whose line in a text is another now.
fn changed_since(named: &[String], before: &BTreeMap<PathBuf, File>, after: &BTreeMap<PathBuf, File>) -> Vec<String> {
    let text = |file: &File| String::from_utf8(file.content.clone()).unwrap_or_default();
    let both = before.iter().filter_map(|(path, was)| Some((text(was), text(after.get(path)?))));
    both.flat_map(|(was, is)| changed_keys(named, &was, &is)).collect()
}

/// Would the control side keep this key because of the report?
fn names_in(report: &Value, id: &str) -> bool {
    let is_left = ["remaining_old", "incomplete"].iter().any(|list| !listed(report, list).is_empty());
    // A list that is shorter than its count hides what is asked.
    let targets = || report["targets"].as_array().into_iter().flatten();
    let counts = ["remaining_old_count", "others_count", "incomplete_count"];
    let hides = targets().any(|target| counts.iter().any(|count| target[*count].is_u64()));
    is_left || hides || listed(report, "others").iter().any(|other| other["id"] == id)
}

#[derive(Clone, PartialEq, Eq)]
struct File {
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
}

fn look(dir: &Path, all: &mut BTreeMap<PathBuf, File>) {
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("readable");
        if meta.is_dir() {
            look(&path, all);
        } else {
            let content = match fs::read_link(&path) {
                Ok(link) => link.into_os_string().into_encoded_bytes(),
                Err(_) => fs::read(&path).expect("readable"),
            };
            all.insert(path, File { content, mode: meta.mode(), owner: (meta.uid(), meta.gid()) });
        }
    }
}

fn differences(before: &BTreeMap<PathBuf, File>, after: &BTreeMap<PathBuf, File>) -> Vec<String> {
    let paths = before.keys().chain(after.keys().filter(|path| !before.contains_key(*path)));
    paths.filter(|path| before.get(*path) != after.get(*path)).map(|path| path.display().to_string()).collect()
}
