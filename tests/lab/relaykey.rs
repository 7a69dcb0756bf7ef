//! One host for end-to-end tests: a private Postfix that relays to the SES stand-in, and the real `relaykey` with a
//! configuration and a state directory of its own. Whatever `relaykey` prints is searched for every secret of the test.
//!

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relaykey::credential::{Login, Secret, ses_smtp_password};
use relaykey::standin::{self, Standin};
use serde_json::{Value, json};

use super::moto;
use super::postfix::{Instance, Options, wait_for};
use super::scratch::{self, Files as _};
use tempfile::TempDir;

/// Of the stand-in's SES: the name `localhost` does not say it.
pub const REGION: &str = "us-east-1";
/// The longest that one run of `relaykey` may take here.
pub const RUN: Duration = Duration::from_secs(60);
/// The longest that a message may take to the stand-in.
pub const DELIVERY: Duration = Duration::from_secs(20);

/// What no output may contain.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on, no output may contain this.
pub fn keep_secret(text: &str) {
    SECRETS.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
}

/// The lines that a target's proof is made over, as the report document's definition has them, from scratch.
pub fn proof_lines(report: &Value, target: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().expect("a text").to_owned();
    let number = |v: &Value| v.as_u64().expect("a number").to_string();
    let mut lines = vec![
        "relaykey-proof-v2".to_owned(),
        text(&report["host_id"]),
        text(&report["host"]),
        text(&report["credential"]),
        text(&report["version"]),
        text(&report["username"]),
        text(&target["name"]),
        text(&target["region"]),
        text(&report["outcome"]),
        number(&report["seq"]),
        text(&report["at"]),
        text(&report["source"]),
        text(&target["evidence"]["at"]),
    ];
    let mut list = |name: &str, lines_of: &dyn Fn(&Value) -> Vec<String>| {
        let named = target[name].as_array().cloned().unwrap_or_default();
        let count = target[format!("{name}_count")].as_u64().unwrap_or(named.len() as u64);
        lines.extend([count.to_string(), named.len().to_string()]);
        lines.extend(named.iter().flat_map(lines_of));
    };
    list("remaining_old", &|key| vec![text(key)]);
    list("others", &|other| {
        let places = other["places"].as_array().cloned().unwrap_or_default();
        let mut lines = vec![text(&other["id"]), number(&other["count"]), places.len().to_string()];
        for place in &places {
            let line = place["line"].as_u64().map(|line| line.to_string()).unwrap_or_default();
            lines.extend([text(&place["table"]), line, text(&place["key"])]);
        }
        lines
    });
    list("incomplete", &|table| vec![text(table)]);
    lines
}

/// An IAM access key with its SES SMTP password.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    /// The secret access key.
    pub secret: String,
    pub login: Login,
}

impl Key {
    /// A key that no other test has.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let id = format!("AKIA{:08}{:08}", this_process(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let random = |n: usize| {
            let mut bytes = vec![0; n];
            getrandom::fill(&mut bytes).expect("random numbers");
            bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
        };
        let secret = random(20);
        let password = ses_smtp_password(&Secret::new(secret.clone()), REGION);
        keep_secret(&secret);
        keep_secret(password.expose());
        let login = Login::new(id.clone(), password).expect("a login");
        Self { id, secret, login }
    }

    pub fn password(&self) -> &str {
        self.login.password.expose()
    }

    /// `USER:PASSWORD`.
    pub fn pair(&self) -> String {
        format!("{}:{}", self.id, self.password())
    }

    /// A ready SMTP credential, as JSON.
    pub fn json(&self) -> String {
        json!({"username": self.id, "password": self.password()}).to_string()
    }

    /// The IAM access key, as JSON: the SMTP password has to be derived.
    pub fn iam_json(&self) -> String {
        json!({"accessKeyId": self.id, "secretAccessKey": self.secret}).to_string()
    }
}

/// What a configuration says beyond the ordinary: lines of TOML.
#[derive(Default)]
pub struct Setup<'a> {
    /// `[credential.source]`.
    pub source: &'a str,
    /// Further lines of `[credential.smtp]`.
    pub smtp: &'a str,
    /// Further lines of `[[credential.target]]`.
    pub target: &'a str,
    /// Further tables of the file, such as `[health]`.
    pub more: &'a str,
}

/// One host. Dropped, its Postfix is stopped and everything removed.
pub struct Host {
    pub postfix: Instance,
    pub standin: Standin,
    /// Configuration, state, certificates, the file of a file source.
    pub dir: TempDir,
    /// With which `relaykey` signs its calls to AWS: faults and call logs go by it.
    pub aws_key: String,
}

impl Host {
    /// Its Postfix is not started; its table holds this key, which the stand-in knows.
    pub fn new(map_type: &str, key: &Key) -> Self {
        let host = Self::with(map_type, |hop| Some(format!("# relays of this host\n{hop} {}\n", key.pair())));
        host.standin.set_key(&key.id, &key.login.password);
        host
    }

    /// The same, with a table made for this next hop; `None`: there is no table.
    pub fn with(map_type: &str, table: impl FnOnce(&str) -> Option<String>) -> Self {
        let standin = Standin::start(standin::Options::default()).expect("an SES stand-in");
        let dir = scratch::private("e2e");
        let ca = dir.file("ca.pem", standin.ca_pem());
        let postfix = instance(map_type, &standin, &ca, table(&hop(&standin)).as_deref());
        let aws_key = Key::new().id;
        Self { postfix, standin, dir, aws_key }
    }

    /// As `relayhost` and the table spell the stand-in.
    pub fn hop(&self) -> String {
        hop(&self.standin)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One more Postfix on this host, relaying to the same stand-in.
    pub fn another(&self, map_type: &str, table: &str) -> Instance {
        instance(map_type, &self.standin, &self.path("ca.pem"), Some(table))
    }

    /// Starts Postfix, so that it is known to have read the table: where it reads that at a start or reload alone, an
    /// adoption within the same seconds would be followed by a reload, to be on the safe side.
    pub fn start_postfix(&self) {
        if self.postfix.map_type == "texthash" {
            let_a_start_be_later();
        }
        self.postfix.start();
    }

    /// Adopts what is in use, of a target with these lines.
    pub fn adopts(&self, target: &str) {
        if target.contains("never") {
            // That it has read what was there before is known of a start that comes after a look.
            self.sync(&["--wait", "0s"], 75);
            self.postfix.stop();
            let_a_start_be_later();
            self.postfix.start();
        }
        self.sync(&[], 0).says(&["ses: adopted"]);
    }

    /// The endpoint is not SES then, where a user name is an access key id and a password is no weak one.
    pub fn without_region(&self) {
        let config = fs::read_to_string(self.path("config.toml")).expect("read");
        let without = config.replace(&format!("region = {REGION:?}\n"), "");
        fs::write(self.path("config.toml"), without).expect("written");
    }

    /// Writes the configuration: one credential `ses`, one target `main`.
    pub fn configure(&self, setup: &Setup<'_>) {
        let target = format!("name = \"main\"\n{}", setup.target);
        self.write_config(&(self.credential("ses", setup, &[(&self.postfix, &target)]) + setup.more));
    }

    /// Writes a configuration of these credentials.
    pub fn write_config(&self, credentials: &str) {
        let text = format!(
            "config_version = 1\n[host]\ninstances = \"named\"\nname = \"mx1.example.com\"\nstate_dir = {:?}\nrun_dir = {:?}\n{credentials}",
            self.path("state"),
            self.path("run")
        );
        self.dir.file("config.toml", &text);
        fs::set_permissions(self.path("config.toml"), fs::Permissions::from_mode(0o644)).expect("chmod");
    }

    /// One `[[credential]]` with a target for each of these instances.
    pub fn credential(&self, name: &str, setup: &Setup<'_>, targets: &[(&Instance, &str)]) -> String {
        let mut text = format!(
            "[[credential]]\nname = {name:?}\n[credential.source]\n{}\n[credential.smtp]\nendpoint = \"localhost\"\n\
             port = {}\nregion = {REGION:?}\n",
            setup.source,
            self.standin.starttls_port(),
        );
        if !setup.smtp.contains("ca_file") {
            text += &format!("ca_file = {:?}\n", self.path("ca.pem"));
        }
        text += setup.smtp;
        for (instance, lines) in targets {
            let dir = &instance.config_dir;
            text += &format!("\n[[credential.target]]\ntype = \"postfix\"\nconfig_dir = {dir:?}\n{lines}\n");
        }
        text
    }

    /// Puts this into the file of a file source, by rename, and gives the lines that name it.
    pub fn publish(&self, content: impl AsRef<[u8]>) -> String {
        let (path, fresh) = (self.path("credential"), self.path("credential.new"));
        fs::write(&fresh, content).expect("written");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::rename(&fresh, &path).expect("renamed");
        format!("type = \"file\"\npath = {path:?}\n")
    }

    /// Lines that name a secret of the AWS API server.
    pub fn secret(&self, name: &str) -> String {
        format!(
            "type = \"secrets-manager\"\nsecret = {name:?}\nregion = {:?}\nendpoint_url = {:?}\n",
            moto::REGION,
            moto::shared().endpoint()
        )
    }

    /// Lines that name a parameter of the AWS API server.
    pub fn parameter(&self, name: &str) -> String {
        self.secret(name).replace("secrets-manager", "parameter-store").replace("secret =", "parameter =")
    }

    /// Runs `relaykey` to its end.
    pub fn relaykey(&self, arguments: &[&str]) -> Ran {
        self.start(arguments).wait(RUN)
    }

    /// `relaykey sync` with these arguments, and its exit code.
    #[track_caller]
    pub fn sync(&self, arguments: &[&str], code: i32) -> Ran {
        let ran = self.relaykey(&[&["sync"], arguments].concat());
        ran.expect(code);
        ran
    }

    /// Starts `relaykey`, with the rights of the host's own access key.
    pub fn start(&self, arguments: &[&str]) -> Program {
        self.start_as(&self.aws_key, arguments)
    }

    /// Starts `relaykey`, with the rights of this access key.
    pub fn start_as(&self, aws_key: &str, arguments: &[&str]) -> Program {
        let config = self.path("config.toml");
        let mut all = vec!["--config", config.to_str().expect("a path in UTF-8")];
        all.extend(arguments);
        Program::start(&all, &[("AWS_ACCESS_KEY_ID", aws_key), ("AWS_SECRET_ACCESS_KEY", "of-no-importance")], b"")
    }

    /// The state of a credential, as it stands on disk.
    #[track_caller]
    pub fn state(&self, credential: &str) -> Value {
        let path = self.path("state").join("credentials").join(format!("{credential}.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Everything below the Postfix configuration directory.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.postfix.config_dir)
    }

    /// Hands Postfix a message and gives the user name under which it came to the stand-in.
    #[track_caller]
    pub fn send(&self) -> String {
        send(&self.standin, &self.postfix)
    }
}

fn hop(standin: &Standin) -> String {
    format!("[localhost]:{}", standin.starttls_port())
}

fn instance(map_type: &str, standin: &Standin, ca: &Path, table: Option<&str>) -> Instance {
    Instance::new(&Options { map_type, relayhost: &hop(standin), ca_pem: Some(ca), table, settings: &[] })
}

/// Hands this Postfix a message and gives the user name under which it came to the stand-in.
#[track_caller]
pub fn send(standin: &Standin, postfix: &Instance) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let sender = format!("m{}@lab.invalid", NUMBER.fetch_add(1, Ordering::Relaxed));
    postfix.inject_from(&sender, 1);
    let found =
        |seen: &standin::StandinRecord| seen.messages.iter().find(|m| m.from == sender).map(|m| m.username.clone());
    let arrived = standin.wait_for(DELIVERY, &format!("the message from {sender}"), found);
    arrived.unwrap_or_else(|e| panic!("{e}; the mail log:\n{}", postfix.log()))
}

/// Waits for the next second of the wall clock: moto keeps creation times in whole seconds, AWS in milliseconds.
pub fn next_second() {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let before = second();
    wait_for("the next second", Duration::from_secs(2), || (second() > before).then_some(()));
}

/// Waits until a start of the mail server is beyond doubt later than what was changed so far: start times are known in
/// whole seconds, and `relaykey` leaves a swap two of them.
pub fn let_a_start_be_later() {
    let second = || rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let before = second();
    wait_for("a later start", Duration::from_secs(10), || (second() > before + 3).then_some(()));
}

/// A name that no other test has, nor any other process that shares the AWS API server.
pub fn fresh(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", this_process(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A random number of up to eight digits: process ids come round within one run of all tests.
pub fn this_process() -> u32 {
    static NUMBER: OnceLock<u32> = OnceLock::new();
    *NUMBER.get_or_init(|| getrandom::u32().expect("a random number") % 100_000_000)
}

// ---------------------------------------------------------------- the program

/// `relaykey`, running. Dropped, it is ended.
pub struct Program {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
    began: Instant,
    what: String,
}

/// Names another `relaykey` than the one that is tested: the release whose files `tests/it/legacy.rs` records.
pub const RECORD_WITH: &str = "RELAYKEY_RECORD_WITH";

pub fn program() -> PathBuf {
    std::env::var_os(RECORD_WITH).map_or_else(|| env!("CARGO_BIN_EXE_relaykey").into(), PathBuf::from)
}

/// What became of a run.
#[derive(Debug)]
pub struct Ran {
    pub what: String,
    /// -1: it was ended by a signal.
    pub code: i32,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Program {
    /// Starts the real program, with nothing in its environment but the path, no metadata service, and what is given.
    pub fn start(arguments: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Self {
        let mut command = Command::new(program());
        command.args(arguments);
        Self::spawn(command, format!("relaykey {}", arguments.join(" ")), env, stdin)
    }

    /// Starts it with this file as file descriptor 3.
    pub fn start_with_descriptor(arguments: &[&str], file: &Path, stdin: &[u8]) -> Self {
        Self::start_in_shell("exec \"$@\" 3< \"$0\"", file, arguments, &[], stdin)
    }

    /// Starts it by a line of shell: `$@` is the program with its arguments, `$0` is `given`.
    pub fn start_in_shell(line: &str, given: &Path, arguments: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", line]).arg(given).arg(program()).args(arguments);
        Self::spawn(command, format!("relaykey {}", arguments.join(" ")), env, stdin)
    }

    fn spawn(mut command: Command, what: String, env: &[(&str, &str)], stdin: &[u8]) -> Self {
        let mut child = command
            .env_clear()
            .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/nonexistent")])
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("relaykey starts");
        // It need not read what it is given.
        let _ = child.stdin.take().expect("piped").write_all(stdin);
        let (out, err) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
        Self { child, out, err, began: Instant::now(), what }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end, and looks for secrets in what it printed.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Ran {
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None if self.began.elapsed() > limit => {
                    let _ = self.child.kill();
                    let rest = Duration::from_secs(5);
                    let said = self.err.recv_timeout(rest).unwrap_or_default();
                    panic!("{} did not end within {limit:?}; it said:\n{said}", self.what);
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let took = self.began.elapsed();
        let text = |from: &mpsc::Receiver<String>| from.recv_timeout(RUN).expect("its output ends with it");
        let ran = Ran {
            what: self.what.clone(),
            code: status.code().unwrap_or(-1),
            out: text(&self.out),
            err: text(&self.err),
            took,
        };
        for secret in SECRETS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{} printed a secret", ran.what);
        }
        ran
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Ok(said) = self.err.recv_timeout(Duration::from_secs(5))
        {
            let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
            let said = secrets.iter().fold(said, |said, secret| said.replace(secret, "(a secret!)"));
            eprintln!("{} said:\n{said}", self.what);
        }
    }
}

fn read_all(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.expect("piped").read_to_end(&mut bytes);
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    told
}

impl Ran {
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{} ended otherwise; it said:\n{}{}", self.what, self.out, self.err);
        self
    }

    /// Each of these texts stands in the output or on standard error.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) -> &Self {
        for text in texts {
            let said = self.out.contains(text) || self.err.contains(text);
            assert!(said, "{} does not say {text:?}:\n{}{}", self.what, self.out, self.err);
        }
        self
    }

    /// This text stands nowhere.
    #[track_caller]
    pub fn says_not(&self, text: &str) -> &Self {
        let said = self.out.contains(text) || self.err.contains(text);
        assert!(!said, "{} says {text:?}:\n{}{}", self.what, self.out, self.err);
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{}: {e}:\n{}{}", self.what, self.out, self.err))
    }
}

// ---------------------------------------------------------------- files

/// What is below a directory: every file with its content and everything that `stat` says but the time of access.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Seen>);

#[derive(Clone, PartialEq, Eq)]
struct Seen {
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    inode: u64,
    links: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Snapshot {
    pub fn of(dir: &Path) -> Self {
        let mut all = BTreeMap::new();
        look(dir, &mut all);
        Self(all)
    }

    /// What differs later, in words, without content.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for path in self.0.keys().chain(later.0.keys().filter(|path| !self.0.contains_key(*path))) {
            let what = match (self.0.get(path), later.0.get(path)) {
                (Some(a), Some(b)) if a == b => continue,
                (Some(a), Some(b)) if a.content != b.content => "other bytes",
                (Some(a), Some(b)) if a.inode != b.inode => "another inode",
                (Some(a), Some(b)) if (a.mode, a.owner) != (b.mode, b.owner) => "another mode or owner",
                (Some(_), Some(_)) => "other times or links",
                (Some(_), None) => "gone",
                (None, _) => "new",
            };
            found.push(format!("{}: {what}", path.display()));
        }
        found
    }

    /// Every file has the same bytes later, and there are no others.
    #[track_caller]
    pub fn same_content_as(&self, later: &Self) {
        let content = |all: &Self| -> BTreeMap<PathBuf, Vec<u8>> {
            all.0.iter().map(|(path, seen)| (path.clone(), seen.content.clone())).collect()
        };
        let differences = self.differences(later);
        assert!(content(self) == content(later), "changed: {differences:?}");
    }

    /// Nothing differs later.
    #[track_caller]
    pub fn same_as(&self, later: &Self) {
        let differences = self.differences(later);
        assert!(differences.is_empty(), "changed: {differences:?}");
    }
}

fn look(path: &Path, all: &mut BTreeMap<PathBuf, Seen>) {
    let m = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let content = if m.is_symlink() {
        fs::read_link(path).expect("a link").into_os_string().into_encoded_bytes()
    } else if m.is_file() {
        fs::read(path).expect("readable")
    } else {
        Vec::new()
    };
    let seen = Seen {
        content,
        mode: m.mode(),
        owner: (m.uid(), m.gid()),
        inode: m.ino(),
        links: m.nlink(),
        modified: (m.mtime(), m.mtime_nsec()),
        changed: (m.ctime(), m.ctime_nsec()),
    };
    all.insert(path.to_owned(), seen);
    if m.is_dir() {
        for entry in fs::read_dir(path).expect("readable") {
            look(&entry.expect("an entry").path(), all);
        }
    }
}
