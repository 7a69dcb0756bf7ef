//! Where a password is found while relaykey works and afterwards, and where it is not: the real binary, real Postfix,
//! the AWS API server and the SES stand-in, and a search over everything that they leave behind.
//!
//! It may be in the mail server's table and its compiled map, in their staged copies while a rollover runs, in the
//! file that a `file` source names, and in the memory of a relaykey whose rollover is open. It must not be anywhere
//! else: no log, output, state, command line, environment, pipe, backup, core dump.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use relaykey::credential::{Secret, ses_smtp_password};
use relaykey::standin::{Delay, Misbehavior, Options, Standin};

use crate::lab::memory;
use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::scratch;

use memory::memory_has;
use postfix::{Instance, wait_for};
use tempfile::TempDir;

const REGION: &str = "us-east-1";
/// Longer than any run here takes.
const RUN: Duration = Duration::from_secs(60);
/// How long something may take that a busy machine delays.
const SOON: Duration = Duration::from_secs(20);
/// The staged name of the target's text; its map has an ending more.
const STAGED: &str = ".relaykey.ses.postfix.0";

// ---------------------------------------------------------------- what is looked for

/// An IAM secret access key, the SMTP password derived from it, and every form in which either might get out.
struct Key {
    username: String,
    iam_secret: String,
    password: String,
}

impl Key {
    fn new() -> Self {
        let random = || getrandom::u64().expect("random numbers");
        // As AWS makes them: 30 bytes in base64.
        let bytes: Vec<u8> = (0..4).flat_map(|_| random().to_ne_bytes()).take(30).collect();
        let iam_secret = BASE64.encode(bytes);
        assert_eq!(iam_secret.len(), 40);
        let password = ses_smtp_password(&Secret::new(iam_secret.clone()), REGION).expose().to_owned();
        Self { username: format!("AKIA{:016X}", random()), iam_secret, password }
    }

    fn pair(&self) -> String {
        format!("{}:{}", self.username, self.password)
    }

    fn iam_json(&self) -> String {
        format!("{{\"accessKeyId\": \"{}\", \"secretAccessKey\": \"{}\"}}", self.username, self.iam_secret)
    }

    fn needles(&self) -> Vec<String> {
        [needles(&self.password), needles(&self.iam_secret)].concat()
    }
}

/// The forms of a secret, and its thirds, so that no large piece of it passes either: as it is, in base64 wherever it
/// begins in what was encoded (AUTH PLAIN has a name in front), in hexadecimal, as a URL has it, as `Debug` shows bytes.
fn needles(secret: &str) -> Vec<String> {
    let mut forms: Vec<String> = (0..3).map(|third| secret[third * 13..third * 13 + 13].to_owned()).collect();
    for offset in 0..3 {
        let whole = (secret.len() - offset) / 3 * 3;
        let encoded = BASE64.encode(&secret[offset..offset + whole]);
        forms.extend(encoded.as_bytes().chunks_exact(16).map(|c| String::from_utf8_lossy(c).into_owned()));
    }
    let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
    let url: String = secret
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let bytes: Vec<String> = secret.bytes().take(10).map(|b| b.to_string()).collect();
    forms.extend([hex[..24].to_owned(), hex[..24].to_uppercase(), url, bytes.join(", ")]);
    forms
}

fn found_in(bytes: &[u8], needles: &[String]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    needles.iter().any(|needle| text.contains(needle.as_str()))
}

/// Every regular file below these directories that has a form of the secret in it.
fn holders(roots: &[&Path], needles: &[String]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut todo: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
    while let Some(path) = todo.pop() {
        // Queue and staged files come and go.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if meta.is_file() && fs::read(&path).is_ok_and(|bytes| found_in(&bytes, needles)) {
            found.insert(path);
        }
    }
    found
}

#[test]
fn the_search_finds_what_it_should() {
    let key = Key::new();
    let (user, password) = (&key.username, &key.password);
    let plain = BASE64.encode(format!("\0{user}\0{password}"));
    let table = [
        password.clone(),
        key.pair(),
        format!("[localhost]:587 {}", key.pair()),
        plain.clone(),
        plain[plain.len() / 3..].to_owned(),
        BASE64.encode(password),
        BASE64.encode(key.pair()),
        BASE64.encode(format!("{user}\0{user}\0{password}")),
        format!("{:?}", password.as_bytes()),
        password[..25].to_owned(),
        password[password.len() - 30..].to_owned(),
        format!("{:?}", key.iam_secret),
        BASE64.encode(key.iam_json()),
    ];
    for text in table {
        assert!(found_in(format!("\0\u{fffd}before{text}after").as_bytes(), &key.needles()), "{text}");
    }
    assert!(!found_in(user.as_bytes(), &key.needles()));
    assert!(!found_in(Key::new().pair().as_bytes(), &key.needles()));
}

// ---------------------------------------------------------------- the lab

/// Writes a file that only its owner reads.
fn write_closed(path: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).expect("opened");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
}

/// One host: a Postfix instance that relays to a stand-in, and a relaykey that keeps its credential.
struct Lab {
    scratch: TempDir,
    standin: Standin,
    postfix: Instance,
    runs: AtomicU32,
}

/// How one run of relaykey ended.
struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn output(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    #[track_caller]
    fn expect(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{}", self.output());
    }
}

impl Lab {
    fn new(map_type: &str, old: &Key) -> Self {
        let scratch = scratch::private("secrets");
        let standin = Standin::start(Options::default()).expect("a stand-in");
        standin.set_key(&old.username, &Secret::new(old.password.clone()));
        fs::write(scratch.path().join("ca.pem"), standin.ca_pem()).expect("written");
        let postfix = Self::instance(map_type, &standin, &scratch.path().join("ca.pem"), old);
        Self { scratch, standin, postfix, runs: AtomicU32::new(0) }
    }

    /// The table holds `old` under the next hop, between a comment and another relay's login.
    fn instance(map_type: &str, standin: &Standin, ca_pem: &Path, old: &Key) -> Instance {
        let relayhost = format!("[localhost]:{}", standin.starttls_port());
        let table = format!("# relays\n{relayhost} {}\n[mail.example.net]:587 someone:else\n", old.pair());
        Instance::new(&postfix::Options {
            map_type,
            relayhost: &relayhost,
            ca_pem: Some(ca_pem),
            table: Some(&table),
            settings: &[],
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes the configuration; `source` and `target` are the lines of these tables.
    fn configure(&self, source: &str, target: &str) {
        let credential = self.credential("ses", source, &self.postfix, target);
        fs::write(self.path("config.toml"), self.host() + &credential).expect("written");
    }

    fn host(&self) -> String {
        format!(
            "config_version = 1\n[host]\ninstances = \"named\"\nname = \"mx1.example.com\"\nstate_dir = {:?}\nrun_dir = {:?}\n",
            self.path("state"),
            self.path("run")
        )
    }

    fn credential(&self, name: &str, source: &str, postfix: &Instance, target: &str) -> String {
        format!(
            "[[credential]]\nname = {name:?}\n[credential.source]\n{source}\n[credential.smtp]\n\
             endpoint = \"localhost\"\nport = {}\nregion = {REGION:?}\nca_file = {:?}\ntimeout = \"20s\"\n\
             propagation = \"5m\"\nretry = \"1s\"\n\
             [[credential.target]]\ntype = \"postfix\"\nconfig_dir = {:?}\n{target}\n",
            self.standin.starttls_port(),
            self.path("ca.pem"),
            postfix.config_dir
        )
    }

    fn source_file(&self) -> PathBuf {
        self.path("credential")
    }

    /// A file source with this content, and the configuration for it.
    fn with_file_source(&self, content: &str) {
        self.configure(&format!("type = \"file\"\npath = {:?}", self.source_file()), "");
        self.publish(content);
    }

    /// With a region the endpoint would be SES, where a user name is an access key id.
    fn without_region(&self) {
        let config = fs::read_to_string(self.path("config.toml")).expect("read");
        let without = config.replace(&format!("region = {REGION:?}\n"), "");
        fs::write(self.path("config.toml"), without).expect("written");
    }

    fn publish(&self, content: &str) {
        let fresh = self.path("credential.new");
        write_closed(&fresh, content);
        fs::rename(fresh, self.source_file()).expect("renamed");
    }

    /// The same with the AWS API server: the lines of `[credential.source]`.
    fn aws_source(&self, source: &str) {
        let moto = moto::shared();
        let place = format!("region = {:?}\nendpoint_url = {:?}", moto::REGION, moto.endpoint());
        self.configure(&format!("{source}\n{place}"), "");
    }

    /// relaykey, its output in files of the scratch directory, where the search finds them. `wrapper`: what runs it.
    fn command(&self, wrapper: &[&str], arguments: &[&str]) -> (Command, PathBuf, PathBuf) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (self.path(&format!("stdout-{run}")), self.path(&format!("stderr-{run}")));
        let mut argv: Vec<&str> = wrapper.to_vec();
        argv.push(env!("CARGO_BIN_EXE_relaykey"));
        argv.extend(arguments);
        let mut command = Command::new(argv[0]);
        command
            .args(&argv[1..])
            .arg("--config")
            .arg(self.path("config.toml"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("AWS_ACCESS_KEY_ID", "AKIASECRETSTEST")
            .env("AWS_SECRET_ACCESS_KEY", "of-the-host-not-of-the-credential")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(self.scratch.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).expect("made"))
            .stderr(fs::File::create(&err).expect("made"));
        (command, out, err)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(&[], arguments)
    }

    fn run_in(&self, wrapper: &[&str], arguments: &[&str]) -> Ran {
        let (mut command, out, err) = self.command(wrapper, arguments);
        let mut child = Running(command.spawn().expect("relaykey starts"));
        let status = child.wait(RUN);
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("its output")).into_owned();
        Ran { status, stdout: read(&out), stderr: read(&err) }
    }

    /// Everything of this lab: what relaykey wrote and said, the mail server's files, queue and log.
    fn roots(&self) -> [&Path; 2] {
        [self.scratch.path(), &self.postfix.base]
    }

    #[track_caller]
    fn assert_held_by(&self, key: &Key, expected: &[PathBuf]) {
        let expected: BTreeSet<PathBuf> = expected.iter().cloned().collect();
        assert_eq!(holders(&self.roots(), &key.needles()), expected);
    }

    /// A message goes through, under the new key.
    fn message_passes_under(&self, key: &Key) {
        self.postfix.inject(1);
        self.standin
            .wait_for(SOON, "a message", |seen| seen.messages.iter().any(|m| m.username == key.username).then_some(()))
            .unwrap_or_else(|e| panic!("{e}\n{}", self.postfix.log()));
    }
}

/// A child that does not outlive the test.
struct Running(Child);

impl Running {
    fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for("relaykey to end", limit, || self.0.try_wait().expect("a child"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---------------------------------------------------------------- a rollover, watched

/// Looks, until told to stop, at the command line and environment of every process there is, and at the files in a
/// directory: the secret only under the names given, closed to all but the owner and the live table's group.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

#[derive(Default)]
struct Seen {
    leaks: BTreeSet<String>,
    /// Programs that were looked at, by name.
    programs: BTreeSet<String>,
    looks: usize,
}

impl Watch {
    fn start(needles: Vec<String>, directory: PathBuf, may_hold: Vec<PathBuf>, mode: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !until.load(Ordering::Relaxed) {
                seen.look_at_processes(&needles);
                seen.look_at_files(&needles, &directory, &may_hold, mode);
                seen.looks += 1;
            }
            seen
        });
        Self { stop, thread }
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch")
    }
}

impl Seen {
    fn look_at_processes(&mut self, needles: &[String]) {
        for entry in fs::read_dir("/proc").expect("procfs").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(program) = fs::read_to_string(entry.path().join("comm")) else { continue };
            for file in ["cmdline", "environ"] {
                if fs::read(entry.path().join(file)).is_ok_and(|bytes| found_in(&bytes, needles)) {
                    self.leaks.insert(format!("/proc/{pid}/{file} of {}", program.trim()));
                }
            }
            self.programs.insert(program.trim().to_owned());
        }
    }

    fn look_at_files(&mut self, needles: &[String], directory: &Path, may_hold: &[PathBuf], mode: u32) {
        for path in holders(&[directory], needles) {
            if !may_hold.contains(&path) {
                self.leaks.insert(format!("the file {}", path.display()));
            }
            if let Ok(meta) = fs::metadata(&path)
                && meta.mode() & 0o777 & !mode != 0
            {
                self.leaks.insert(format!("{} with mode {:04o}", path.display(), meta.mode() & 0o7777));
            }
        }
    }
}

/// One rollover from `old` to `new`, watched while it runs; then every place is searched, and once more after mail went
/// through under the new key.
fn a_rollover_leaves_nothing(lab: &Lab, old: &Key, new: &Key, source: Option<PathBuf>, arguments: &[&str]) {
    let (table, map) = (lab.postfix.table(), lab.postfix.map());
    let staged = ["", ".db", ".lmdb", ".cdb"].map(|ending| lab.postfix.config_dir.join(format!("{STAGED}{ending}")));
    lab.standin.set_key(&new.username, &Secret::new(new.password.clone()));
    let postfix = fs::metadata(lab.postfix.base.join("data")).expect("its data directory").uid();
    chown(&table, None, Some(postfix)).expect("chown");
    fs::set_permissions(&table, fs::Permissions::from_mode(0o640)).expect("chmod");
    let kept = |path: &Path| fs::metadata(path).map(|m| (m.uid(), m.gid(), m.mode())).expect("a file");
    let before = [kept(&table), kept(&map)];

    let may_hold = [staged.to_vec(), vec![table.clone(), map.clone()]].concat();
    let watch = Watch::start(new.needles(), lab.postfix.config_dir.clone(), may_hold, 0o640);
    let ran = lab.run(arguments);
    let seen = watch.end();
    ran.expect(0);
    assert!(ran.output().contains(&new.username), "{}", ran.output());
    assert_eq!(seen.leaks, BTreeSet::new(), "in {} looks", seen.looks);
    assert!(seen.programs.contains("relaykey"), "{} looks at {:?}", seen.looks, seen.programs);
    assert_eq!([kept(&table), kept(&map)], before, "owner, group and mode");

    lab.message_passes_under(new);
    let mut expected = vec![table, map];
    expected.extend(source);
    lab.assert_held_by(new, &expected);
    lab.assert_held_by(old, &[]);
    let status = lab.run(&["status", "--json"]);
    status.expect(0);
    assert!(status.stdout.contains(&new.username), "{}", status.output());
    lab.run(&["check"]).expect(0);
    lab.assert_held_by(new, &expected);
    for file in files_below(&lab.path("state")) {
        assert_eq!(fs::metadata(&file).expect("a file").mode() & 0o777, 0o600, "{}", file.display());
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    assert!(!found.is_empty(), "{} is empty", directory.display());
    found
}

#[test]
fn from_a_file_the_password_gets_into_the_table_and_its_map_only() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.postfix.start();
    lab.with_file_source(&new.pair());
    a_rollover_leaves_nothing(&lab, &old, &new, Some(lab.source_file()), &["sync"]);
}

#[test]
fn from_secrets_manager_the_password_gets_into_the_table_and_its_map_only() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("lmdb", &old);
    lab.postfix.start();
    let name = format!("secrets-test-{}", new.username);
    moto::shared()
        .secret(&name, &format!("{{\"username\": \"{}\", \"password\": \"{}\"}}", new.username, new.password));
    lab.aws_source(&format!("type = \"secrets-manager\"\nsecret = {name:?}"));
    a_rollover_leaves_nothing(&lab, &old, &new, None, &["sync", "--json"]);
}

#[test]
fn from_an_iam_key_the_derived_password_gets_into_the_table_only_and_the_key_nowhere() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("texthash", &old);
    lab.postfix.start();
    let name = format!("/secrets-test/{}", new.username);
    moto::shared().parameter(&name, &new.iam_json());
    lab.aws_source(&format!("type = \"parameter-store\"\nparameter = {name:?}"));
    a_rollover_leaves_nothing(&lab, &old, &new, None, &["sync"]);
    assert_eq!(holders(&lab.roots(), &needles(&new.iam_secret)), BTreeSet::new(), "the IAM secret key");
}

#[test]
fn files_that_are_new_are_closed() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.standin.set_key(&new.username, &Secret::new(new.password.clone()));
    lab.with_file_source(&new.pair());
    fs::remove_file(lab.postfix.table()).expect("removed");
    fs::remove_file(lab.postfix.map()).expect("removed");
    // Postfix does not run, so the reload is owed.
    lab.run(&["sync", "--wait", "0s"]).expect(75);
    for file in [lab.postfix.table(), lab.postfix.map()] {
        assert_eq!(fs::metadata(&file).expect("made").mode() & 0o7777, 0o600, "{}", file.display());
    }
    lab.assert_held_by(&new, &[lab.postfix.table(), lab.postfix.map(), lab.source_file()]);
}

// ---------------------------------------------------------------- every call, traced

/// One line of strace: the call, what its first argument refers to, and all of it.
struct Call<'a> {
    name: &'a str,
    refers_to: &'a str,
    line: &'a str,
}

/// The trace of one thread.
struct Trace {
    text: String,
    /// The last program that it became; of relaykey's threads that; of what a program forked and did not become another
    /// one, nothing.
    program: String,
}

impl Trace {
    /// In no order: thread ids start again from low numbers now and then.
    fn read(directory: &Path) -> Vec<Self> {
        let mut threads: BTreeSet<String> = BTreeSet::new();
        let mut traces = Vec::new();
        for file in fs::read_dir(directory).expect("traces").flatten() {
            let thread = file.path().extension().and_then(|e| e.to_str()).expect("a thread id").to_owned();
            let text = String::from_utf8_lossy(&fs::read(file.path()).expect("a trace")).into_owned();
            let became = text.lines().rfind(|line| line.starts_with("execve(") && line.ends_with("= 0"));
            let program =
                became.and_then(|line| line.split('"').nth(1)?.rsplit('/').next()).unwrap_or_default().to_owned();
            let made = text.lines().filter(|line| line.starts_with("clone") && line.contains("CLONE_THREAD"));
            threads.extend(made.filter_map(|line| Some(line.rsplit_once("= ")?.1.to_owned())));
            traces.push((thread, Self { text, program }));
        }
        // Of the programs that run here only relaykey has threads.
        for (thread, trace) in &mut traces {
            if threads.contains(thread) {
                trace.program = "relaykey".into();
            }
        }
        traces.into_iter().map(|(_, trace)| trace).collect()
    }

    fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        self.text.lines().filter_map(|line| {
            let (name, rest) = line.split_once('(')?;
            let refers_to = rest.split_once('<').and_then(|(fd, rest)| {
                fd.bytes().all(|b| b.is_ascii_digit()).then(|| rest.split('>').next()).flatten()
            });
            Some(Call { name, refers_to: refers_to.unwrap_or_default(), line })
        })
    }
}

#[test]
fn no_call_hands_the_password_to_anything_but_the_staged_files_and_postmap() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.postfix.start();
    lab.standin.set_key(&new.username, &Secret::new(new.password.clone()));
    lab.with_file_source(&new.pair());
    let traces = scratch::private("secrets");
    let log = traces.path().join("trace");
    let calls = "execve,execveat,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,process_vm_writev,vmsplice,\
                 openat,open,creat,openat2,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,setxattr,\
                 fsetxattr,clone,clone3,copy_file_range,sendfile,splice,tee,memfd_create,fchmod,fchmodat,chmod,prctl,prlimit64,setrlimit";
    let log = log.to_str().expect("UTF-8");
    let trace = format!("trace={calls}");
    // All of every argument, environments too; descriptors with what they refer to; one file per thread.
    lab.run_in(&["strace", "-ff", "-v", "-yy", "-s", "65535", "-e", &trace, "-o", log], &["sync"]).expect(0);
    lab.message_passes_under(&new);

    let traces = Trace::read(traces.path());
    let needles = [new.needles(), old.needles()].concat();
    let etc = lab.postfix.config_dir.to_str().expect("UTF-8");
    let (staged_text, staged_map) = (format!("{etc}/{STAGED}"), format!("{etc}/{STAGED}.db"));
    let (mut texts, mut maps, mut answers) = (0, 0, 0);
    for trace in &traces {
        let program = trace.program.as_str();
        for call in trace.calls().filter(|call| found_in(call.line.as_bytes(), &needles)) {
            let writes = matches!(call.name, "write" | "writev" | "pwrite64");
            match (program, call.refers_to) {
                ("relaykey", place) if writes && place == staged_text => texts += 1,
                ("postmap", place) if writes && place == staged_map => maps += 1,
                // `postmap -q` tells relaykey what it found.
                ("postmap", place) if writes && place.starts_with("pipe:") => answers += 1,
                // Never the line itself: it holds the secret.
                (program, place) => panic!("{program} hands the password to {} of {place:?}", call.name),
            }
        }
    }
    assert!(texts > 0 && maps > 0 && answers > 0, "not seen: {texts} texts, {maps} maps, {answers} answers");
    let ran: BTreeSet<&str> = traces.iter().map(|t| t.program.as_str()).collect();
    assert!(["postconf", "postmap", "postfix-script", "relaykey"].iter().all(|p| ran.contains(p)), "{ran:?}");
    let started: Vec<Call<'_>> = traces.iter().flat_map(Trace::calls).filter(|c| c.name == "execve").collect();
    assert!(started.len() > 10 && started.iter().all(|c| c.line.contains("PATH=")), "no environments in the trace");

    // What relaykey itself makes is closed from the first moment, is in its state or the table's directory, and is no
    // copy that the kernel made: that would not have shown above.
    let state = lab.path("state");
    let mut made = 0;
    for call in traces.iter().filter(|t| t.program == "relaykey").flat_map(Trace::calls) {
        let line = call.line;
        match call.name {
            "openat" | "open" | "openat2" if line.contains("O_CREAT") || line.contains("O_TMPFILE") => {
                assert!(line.contains(", 0600)"), "made with another mode: {line}");
                let locks = call.refers_to == "/run/relaykey-lock";
                let inside = Path::new(call.refers_to).starts_with(&state) || call.refers_to == etc || locks;
                assert!(inside, "made elsewhere: {line}");
                made += 1;
            }
            "creat" | "link" | "linkat" | "symlink" | "symlinkat" | "copy_file_range" | "sendfile" | "splice"
            | "tee" | "vmsplice" | "memfd_create" | "process_vm_writev" => {
                panic!("not a way in which relaykey writes: {line}")
            }
            _ => {}
        }
    }
    assert!(made >= 4, "only {made} files made");

    // No core dump and no tracing from before the first secret is read.
    let main = traces.iter().find(|t| t.program == "relaykey" && t.text.starts_with("execve(")).expect("relaykey");
    let own: Vec<Call<'_>> = main.calls().collect();
    let at = |words: &[&str]| own.iter().position(|c| words.iter().all(|w| c.line.contains(w)));
    let first_secret = traces.iter().flat_map(Trace::calls).any(|c| c.line.contains("\"credential\""));
    assert!(first_secret, "the source was not seen to be read");
    let config = at(&["config.toml\"", "O_RDONLY"]).expect("the configuration was not seen to be read");
    let hardened = at(&["PR_SET_DUMPABLE", "SUID_DUMP_DISABLE", "= 0"]).expect("not made undumpable");
    let limited = at(&["RLIMIT_CORE", "rlim_cur=0, rlim_max=0", "= 0"]).expect("no core limit");
    assert!(hardened < config && limited < config, "{hardened} {limited} {config}");
}

// ---------------------------------------------------------------- failures

/// Both ways of saying it; the candidate's secrets must be nowhere but in the source file.
fn fails_without_a_word_of_it(lab: &Lab, what: &str, key: &Key, code: i32, expected: &str) {
    for arguments in [&["sync", "--wait", "0s"][..], &["sync", "--wait", "0s", "--json"], &["check"], &["status"]] {
        let ran = lab.run(arguments);
        if arguments[0] == "sync" {
            assert_eq!(ran.status.code(), Some(code), "{what}: {}", ran.output());
            assert!(ran.output().contains(expected), "{what}: {expected:?} is not in {}", ran.output());
        }
        assert!(!found_in(ran.output().as_bytes(), &key.needles()), "{what}: {arguments:?} says it");
    }
    let sources: BTreeSet<PathBuf> = [lab.source_file()].into();
    assert_eq!(holders(&lab.roots(), &key.needles()), sources, "{what}");
}

#[test]
fn a_refusal_that_quotes_the_login_is_told_without_it() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.with_file_source(&new.pair());
    fails_without_a_word_of_it(&lab, "refused", &new, 75, "535 Authentication Credentials Invalid");
    lab.standin.fault(Misbehavior::EchoAuth, 100);
    fails_without_a_word_of_it(&lab, "refused, with the AUTH line in the answer", &new, 75, "535");
}

#[test]
fn payloads_that_are_no_credential_are_told_without_their_content() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    let (user, password, secret) = (&new.username, &new.password, &new.iam_secret);
    let table = [
        ("half of the JSON", new.iam_json()[..new.iam_json().len() - 8].to_owned(), "not valid JSON"),
        ("JSON without the password's key", format!("{{\"username\": {user:?}, \"pasword\": {password:?}}}"), "no key"),
        ("JSON without the user name", format!("{{\"secretAccessKey\": {secret:?}}}"), "no key"),
        ("JSON in a list", format!("[{password:?}, {secret:?}]"), "not an object"),
        ("a JSON number in its place", format!("{{\"username\": 1, \"password\": {password:?}}}"), "not a string"),
        ("the secret access key as password", format!("{user}:{secret}"), "AWS secret access key"),
        ("a temporary key", format!("ASIA0123456789:{password}"), "temporary"),
        ("a blank in it", format!("{user}:{password} {secret}"), "not printable ASCII"),
        ("a password of another kind", format!("{user}:x{password}"), "no SES SMTP password"),
        ("no user name", password.clone(), "without its user name"),
        (
            "a key twice",
            format!("{{\"username\": {user:?}, \"password\": {password:?}, \"password\": {secret:?}}}"),
            "JSON",
        ),
    ];
    lab.with_file_source("");
    for (what, content, expected) in table {
        lab.publish(&content);
        fails_without_a_word_of_it(&lab, what, &new, 1, expected);
    }
}

/// The 44 characters of an SES SMTP password of the withdrawn Version 2.
fn of_version_2(key: &Key) -> String {
    let mut bytes = BASE64.decode(&key.password).expect("base64");
    bytes[0] = 0x02;
    BASE64.encode(bytes)
}

#[test]
fn a_secret_published_in_the_place_of_the_user_name_is_shown_nowhere() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    let (user, password, secret, withdrawn) = (&new.username, &new.password, &new.iam_secret, of_version_2(&new));
    let iam = |id: &str, secret: &str| format!("{{\"accessKeyId\": {id:?}, \"secretAccessKey\": {secret:?}}}");
    let ready = |user: &str, password: &str| format!("{{\"username\": {user:?}, \"password\": {password:?}}}");
    let order = "stands where the user name belongs";
    let table = [
        ("an access key in the wrong order", iam(secret, user), order),
        ("the secret in both places", iam(secret, secret), order),
        ("a pair in the wrong order", format!("{secret}:{user}"), order),
        ("a password in the wrong order", format!("{password}:{user}"), order),
        ("a password of Version 2 in the wrong order", format!("{withdrawn}:{user}"), order),
        ("JSON in the wrong order", ready(secret, user), order),
        ("a part of a secret", iam(&secret[..39], user), "is no access key id"),
        ("a part of a secret in a pair", format!("{}:{user}", &secret[..39]), "is no access key id"),
        ("the name of an IAM user", format!("ses-smtp-user.20240101:{password}"), "is no access key id"),
        ("the same, of an access key", iam("ses-smtp-user.20240101", secret), "is no access key id"),
    ];
    lab.postfix.start();
    lab.with_file_source(&old.pair());
    lab.run(&["sync"]).expect(0);
    for (what, content, expected) in table {
        lab.publish(&content);
        fails_without_a_word_of_it(&lab, what, &new, 1, expected);
        // Nor is it said later of what was there before.
        lab.publish("nothing of use");
        for arguments in [&["sync", "--wait", "0s"][..], &["status", "--json"], &["history", "--json"]] {
            lab.run(arguments);
        }
        let left = holders(&lab.roots(), &[new.needles(), vec![withdrawn[1..].to_owned()]].concat());
        assert_eq!(left, BTreeSet::new(), "{what}");
    }
}

/// What the commands say that look, and that try once.
fn all_that_is_said(lab: &Lab) -> String {
    let commands = [
        &["check"][..],
        &["check", "--json"],
        &["sync", "--dry-run", "--wait", "0s"],
        &["sync", "--wait", "0s", "-v"],
        &["sync", "--wait", "0s", "--json"],
        &["status"],
        &["status", "--json"],
        &["history", "--json"],
    ];
    commands.map(|arguments| lab.run(arguments).output()).concat()
}

/// A relay that is not SES has user names and passwords of any form: what this host and its tables know tells them apart, and
/// that the endpoint takes one for a user name.
#[test]
fn a_password_of_any_form_in_the_place_of_the_user_name_is_shown_nowhere() {
    let old = Key::new();
    let lab = Lab::new("hash", &old);
    let (ours, fresh, stranger) = ("PassOneOfOurs111", "ZqSecretPw77", "QxOtherSecret88");
    let next = "WvThirdSecret99";
    let hop = format!("[localhost]:{}", lab.standin.starttls_port());
    lab.standin.set_key("relayuser", &Secret::new(ours.to_owned()));
    lab.postfix.write_table(&format!("{hop} relayuser:{ours}\n"));
    lab.postfix.postmap();
    lab.with_file_source("");
    lab.without_region();
    lab.postfix.start();
    let never = |what: &str, secret: &str, expected: &str| {
        let said = all_that_is_said(&lab);
        assert!(said.contains(expected), "{what}: {expected:?} is not in {said}");
        let mut only = BTreeSet::from([lab.source_file()]);
        if secret == ours {
            only.extend([lab.postfix.table(), lab.postfix.map()]);
        }
        assert_eq!(holders(&lab.roots(), &[secret.to_owned()]), only, "{what}: {said}");
    };
    let (order, in_use) = ("are the two in the wrong order", "a password that is in use here");
    // Nothing is applied yet: the table alone knows.
    lab.publish(&format!("{ours}:relayuser"));
    never("the login of the table in the wrong order", ours, order);
    lab.publish(&format!("relayuser:{ours}"));
    lab.run(&["sync"]).expect(0);
    let ran = lab.run(&["status"]);
    assert!(ran.output().contains("(relayuser)"), "{}", ran.output());
    lab.publish(&format!("{ours}:relayuser"));
    never("the applied login in the wrong order", ours, order);
    lab.publish(&format!("{fresh}:relayuser"));
    never("a new password in the wrong order", fresh, order);
    lab.publish(&format!("{ours}:newuser"));
    never("the applied password before a new user name", ours, in_use);
    lab.publish(&format!("{stranger}:newuser"));
    never("nothing of it is known", stranger, "another user name (not shown)");
    // A user name it is once the endpoint has taken it for one.
    lab.standin.set_key("newuser", &Secret::new(fresh.to_owned()));
    lab.publish(&format!("newuser:{fresh}"));
    lab.run(&["sync"]).expect(0);
    let ran = lab.run(&["status"]);
    assert!(ran.output().contains("(newuser)") && !ran.output().contains("not shown"), "{}", ran.output());
    // The user name before it stands in no table any more: this host's state alone knows it.
    lab.publish(&format!("{next}:relayuser"));
    never("a new password before the previous user name", next, "the password is a user name that this host knows");
    // What is known as a password is not sent as a user name either, by no command.
    let tried: Vec<String> = lab.standin.logins().into_iter().map(|login| login.username).collect();
    assert!(!tried.iter().any(|name| [ours, fresh, next].contains(&name.as_str())), "{tried:?}");
}

#[test]
fn what_stands_in_a_table_in_the_place_of_the_user_name_is_shown_nowhere() {
    let (old, stray) = (Key::new(), Key::new());
    let (secret, withdrawn) = (&stray.iam_secret, of_version_2(&stray));
    // Of another relay: it looks like any user name.
    let any = format!("of-another-relay-{}", &needles(secret)[0].replace(['/', '+'], "x"));
    let table = [
        ("a secret access key", secret.clone(), "not USER:PASSWORD"),
        ("a password of Version 2", withdrawn, "not USER:PASSWORD"),
        ("any password", any, "another user name (not shown)"),
    ];
    for region in [true, false] {
        let lab = Lab::new("hash", &old);
        // A relay that is not SES has user names of any form; its own are shown.
        let own = if region { old.username.as_str() } else { "mx1@example.com" };
        let login = format!("{own}:{}", old.password);
        lab.standin.set_key(own, &Secret::new(old.password.clone()));
        let hop = format!("[localhost]:{}", lab.standin.starttls_port());
        let put = |login: &str| {
            lab.postfix.write_table(&format!("{hop} {login}\n"));
            lab.postfix.postmap();
        };
        put(&login);
        lab.with_file_source(&login);
        if !region {
            lab.without_region();
        }
        lab.postfix.start();
        lab.run(&["sync"]).expect(0);
        for arguments in [&["check"][..], &["status"], &["history"]] {
            let ran = lab.run(arguments);
            assert!(ran.output().contains(own), "{arguments:?} does not name {own}: {}", ran.output());
        }
        for (what, wrong, expected) in &table {
            put(&format!("{wrong}:{}", stray.username));
            let said = all_that_is_said(&lab);
            assert!(said.contains(expected), "{what}: {expected:?} is not in {said}");
            let only = BTreeSet::from([lab.postfix.table(), lab.postfix.map()]);
            assert_eq!(holders(&lab.roots(), &[wrong[..wrong.len() - 1].to_owned()]), only, "{what}: {said}");
            put(&login);
            lab.run(&["sync", "--wait", "0s"]);
        }
    }
}

/// A password of another relay, which its form alone does not tell.
fn of_another_relay() -> String {
    format!("Zq{:x}Pw77", getrandom::u64().expect("random numbers"))
}

/// What these commands say, and whatever they leave, has not this in it; only `holding` may.
fn shown_nowhere(lab: &Lab, what: &str, password: &str, holding: &[PathBuf]) {
    for arguments in [&["check"][..], &["sync", "--wait", "0s"], &["status"], &["history"]] {
        let said = lab.run(arguments).output();
        assert!(!said.to_lowercase().contains(&password.to_lowercase()), "{what}: {arguments:?} says it: {said}");
    }
    let holders = holders(&lab.roots(), &[password.to_owned(), password.to_lowercase()]);
    assert!(holders.iter().all(|file| holding.contains(file)), "{what}: {holders:?}");
}

#[test]
fn what_stands_in_main_cf_in_the_place_of_a_table_or_a_host_is_shown_nowhere() {
    let (old, new, password) = (Key::new(), Key::new(), of_another_relay());
    let lab = Lab::new("hash", &old);
    lab.with_file_source(&new.pair());
    let hop = format!("[localhost]:{}", lab.standin.starttls_port());
    let pair = format!("AKIAOTHER:{password}");
    let original = fs::read_to_string(lab.postfix.main_cf()).expect("read");
    for (name, value) in [
        ("smtp_sasl_password_maps", format!("static:{pair}")),
        ("smtp_sasl_password_maps", format!("inline:{{ {{ {hop} = {pair} }} }}")),
        ("smtp_sasl_password_maps", format!("hash:/etc/x inline:{{{{{hop}={pair}}}}}")),
        ("smtp_sasl_password_maps", format!("proxy:inline:{{{{{hop}={pair}}}}}")),
        ("smtp_sasl_password_maps", format!("mysql:{{user=u password={password}}}")),
        ("smtp_sasl_password_maps", pair.clone()),
        ("smtp_sasl_password_maps", format!("{hop} {pair}")),
        ("smtp_sasl_password_maps", format!("{password}:x")),
        ("relayhost", format!("{pair}@{hop}")),
        ("relayhost", format!("{hop} {pair}")),
        ("relayhost", format!("[localhost]:{password}")),
        ("transport_maps", format!("inline:{{{{*=smtp:{pair}@x}}}}")),
        ("sender_dependent_relayhost_maps", format!("static:{pair}")),
        ("default_transport", format!("smtp:{pair}@{hop}")),
        ("smtp_fallback_relay", pair.clone()),
        ("smtp_tls_security_level", password.clone()),
        ("smtp_tls_policy_maps", format!("static:{password}")),
        ("smtp_sasl_auth_enable", password.clone()),
        ("smtp_sasl_mechanism_filter", password.clone()),
        ("smtp_sasl_security_options", password.clone()),
        ("maillog_file", password.clone()),
    ] {
        lab.postfix.set(name, &value);
        shown_nowhere(&lab, &format!("{name} = {value}"), &password, &[lab.postfix.main_cf()]);
        lab.postfix.write_main_cf(&original);
    }
}

#[test]
fn a_login_in_the_place_of_a_key_is_shown_nowhere() {
    let (old, password) = (Key::new(), of_another_relay());
    let lab = Lab::new("hash", &old);
    lab.with_file_source(&old.pair());
    let hop = format!("[localhost]:{}", lab.standin.starttls_port());
    let ours = format!("{hop} {}\n", old.pair());
    let reversed = format!("otheruser:{password} [other.example]:587\n");
    // Of a key that stands there twice postmap itself tells the mail log, whoever runs it.
    let holding = [lab.postfix.table(), lab.postfix.map(), lab.postfix.base.join("log/mail.log")];
    let compiled = |text: &str| {
        lab.postfix.write_table(text);
        lab.postfix.postmap();
    };
    compiled(&ours);
    lab.postfix.start();
    lab.run(&["sync"]).expect(0);
    let next = Key::new();
    lab.standin.set_key(&next.username, &Secret::new(next.password.clone()));
    for (what, map, text) in [
        ("another's line", format!("{ours}{reversed}"), format!("{ours}{reversed}")),
        ("another's line, not compiled", ours.clone(), format!("{ours}{reversed}")),
        ("another's line, only compiled", format!("{ours}{reversed}"), ours.clone()),
        ("another's line twice", ours.clone(), format!("{ours}{reversed}{reversed}")),
        ("another value compiled", format!("{ours}{reversed}"), format!("{ours}{}", reversed.replace("587", "588"))),
        ("our line", ours.clone(), format!("{}:{password} {hop}\n", old.username)),
        ("with our login", ours.clone(), format!("{ours}otheruser:{password} {}\n", old.pair())),
        ("the password alone", ours.clone(), format!("{ours}{password} {}\n", old.pair())),
        ("with the port of another", ours.clone(), format!("{ours}[other.example]:{password} {}\n", old.pair())),
        ("not UTF-8", ours.clone(), format!("{ours}{password}\u{fffd} {}\n", old.pair())),
    ] {
        for published in [&old, &next] {
            compiled(&map);
            lab.postfix.write_table(&text);
            lab.publish(&published.pair());
            shown_nowhere(&lab, what, &password, &holding);
        }
        compiled(&ours);
        lab.publish(&old.pair());
        lab.run(&["sync", "--wait", "0s"]);
    }
}

/// At a relay that is not SES, other relays' logins may have the very same user name.
#[test]
fn another_relays_login_of_the_same_user_name_is_kept() {
    let (first, second) = ("Pass1.of-this-relay", "Pass2.of-this-relay");
    let lab = Lab::new("hash", &Key::new());
    let hop = format!("[localhost]:{}", lab.standin.starttls_port());
    let other = "[smtp.other.example]:587 apikey:of-the-other-relay\n";
    let text = |live: &str, sender: &str| format!("{hop} apikey:{live}\nalice@example.com apikey:{sender}\n{other}");
    let read = || fs::read_to_string(lab.postfix.table()).expect("read");
    let put = |text: &str| {
        lab.postfix.write_table(text);
        lab.postfix.postmap();
    };
    put(&text(first, first));
    lab.with_file_source(&format!("apikey:{first}"));
    lab.without_region();
    let accept = |password: &str| lab.standin.set_key("apikey", &Secret::new(password.to_owned()));
    accept(first);
    lab.postfix.start();
    lab.run(&["sync"]).expect(0);

    accept(second);
    lab.publish(&format!("apikey:{second}"));
    lab.run(&["sync"]).expect(0);
    assert_eq!(read(), text(second, second));
    // Not either where somebody wrote that other login under our key.
    put(&text("of-the-other-relay", second));
    lab.run(&["sync"]);
    assert_eq!(read(), text(second, second));

    // A backup of the table was put back, whole or in part: what it holds of ours is known, however long ago it was confirmed.
    put(&text(first, first));
    let told = lab.run(&["check", "--offline"]).output();
    assert!(told.contains("1 entry has the user name of this credential"), "{told}");
    lab.run(&["sync"]).expect(0);
    assert_eq!(read(), text(second, second));
    let third = "Pass3.of-this-relay";
    accept(third);
    lab.publish(&format!("apikey:{third}"));
    lab.run(&["sync"]).expect(0);
    put(&text(third, first));
    lab.run(&["sync"]).expect(0);
    assert_eq!(read(), text(third, third));
}

/// An entry that `keys` leaves out goes on holding an old password under the shared user name: it fails once that password is
/// made invalid, so it is named. Another relay's login of that name is not, nor is what holds the login in use.
#[test]
fn an_old_password_under_a_shared_user_name_is_named_where_it_is_left() {
    let passwords = ["Pass1.of-this-relay", "Pass2.of-this-relay", "Pass3.of-this-relay"];
    let lab = Lab::new("hash", &Key::new());
    let hop = format!("[localhost]:{}", lab.standin.starttls_port());
    // On the first rollover there may be no state that knows the login before it.
    let put = |live: &str| {
        lab.postfix.write_table(&format!(
            "{hop} apikey:{live}\nold@example.com apikey:{}\nother@example.com apikey:of-the-other-relay\n",
            passwords[0]
        ));
        lab.postfix.postmap();
    };
    put(passwords[0]);
    lab.with_file_source(&format!("apikey:{}", passwords[1]));
    lab.without_region();
    let config = fs::read_to_string(lab.path("config.toml")).expect("read");
    let target = "[[credential.target]]\n";
    assert!(config.contains(target), "{config}");
    let with_keys = config.replace(target, &format!("{target}keys = [{hop:?}]\n"));
    fs::write(lab.path("config.toml"), with_keys).expect("written");
    lab.postfix.start();
    let remaining = || {
        let state = fs::read(lab.path("state/credentials/ses.json")).expect("a state");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        state["report"]["targets"][0]["remaining_old"].clone()
    };
    for password in &passwords[1..] {
        lab.standin.set_key("apikey", &Secret::new((*password).to_owned()));
        lab.publish(&format!("apikey:{password}"));
        lab.run(&["sync"]).expect(0);
        assert_eq!(remaining(), serde_json::json!(["old@example.com"]), "{password}");
    }
    // Put right by a person, it is named no more.
    let table = fs::read_to_string(lab.postfix.table()).expect("read");
    lab.postfix.write_table(&table.replace(passwords[0], passwords[2]));
    lab.postfix.postmap();
    lab.run(&["confirm", "ses"]).expect(0);
    assert_eq!(remaining(), serde_json::json!([]));
}

/// A directory with Postfix's programs, one of them replaced by a script.
fn programs_with(lab: &Lab, name: &str, script: &str) -> PathBuf {
    let directory = lab.path("programs");
    fs::DirBuilder::new().mode(0o755).create(&directory).expect("made");
    for program in ["postfix", "postmap", "postconf", "postqueue", "postlog", "postsuper"] {
        let place = directory.join(program);
        if program == name {
            fs::write(&place, script).expect("written");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("chmod");
        } else {
            std::os::unix::fs::symlink(Path::new("/usr/sbin").join(program), &place).expect("linked");
        }
    }
    directory
}

#[test]
fn what_postmap_says_of_the_table_is_told_without_the_logins_in_it() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.standin.set_key(&new.username, &Secret::new(new.password.clone()));
    lab.with_file_source(&new.pair());
    // postmap quotes the table that it cannot compile, its arguments, its environment and its standard input.
    let script = "#!/bin/sh\ncase \"$*\" in *\" -q \"*|*\" -s \"*) exec /usr/sbin/postmap \"$@\";; esac\n\
                  { tr '\\n' ' ' < \"${3#*:}\"; echo \"$@\"; env; cat; } | sed 's/^/postmap: fatal: /' >&2\nexit 1\n";
    let programs = programs_with(&lab, "postmap", script);
    lab.postfix.set("command_directory", programs.to_str().expect("UTF-8"));
    fails_without_a_word_of_it(&lab, "postmap fails", &new, 75, "postmap made no hash map");
    let ran = lab.run(&["sync", "--wait", "0s"]);
    // One of the logins in it has a password of two characters.
    assert!(ran.output().contains("its words are not shown"), "{}", ran.output());
    assert!(!found_in(ran.output().as_bytes(), &old.needles()), "it says the old one");
    lab.assert_held_by(&old, &[lab.postfix.table(), lab.postfix.map()]);
}

#[test]
fn an_ambiguous_table_is_told_without_the_logins_in_it() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.standin.set_key(&new.username, &Secret::new(new.password.clone()));
    lab.with_file_source(&new.pair());
    let hop = format!("[localhost]:{}", lab.standin.starttls_port());
    let table = [
        ("a password without its user name", format!("{hop} {}\n", old.password), "not USER:PASSWORD"),
        ("a login over two lines", format!("{hop} {}:\n  {}\n", old.username, old.password), "several lines"),
    ];
    for (what, text, expected) in table {
        lab.postfix.write_table(&text);
        lab.postfix.postmap();
        fails_without_a_word_of_it(&lab, what, &new, 1, expected);
        for run in fs::read_dir(lab.scratch.path()).expect("a directory").flatten() {
            let output = fs::read(run.path()).unwrap_or_default();
            assert!(!found_in(&output, &old.needles()), "{what}: {} has it", run.path().display());
        }
    }
}

#[test]
fn what_was_undone_is_gone() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.postfix.start();
    lab.standin.set_key(&new.username, &Secret::new(new.password.clone()));
    // A reload that makes Postfix use another table, so that the read-back fails, and says what it was given.
    let (table, other, reload) = (lab.postfix.table(), lab.postfix.config_dir.join("other"), lab.path("reload"));
    fs::copy(&table, &other).expect("copied");
    let maps = format!("smtp_sasl_password_maps=hash:{}", other.display());
    let etc = &lab.postfix.config_dir;
    let script = format!(
        "#!/bin/sh\nexec >&2\nenv; echo \"$@\"; cat\npostmap hash:{other:?}\npostconf -c {etc:?} -e {maps:?}\npostfix -c {etc:?} reload\n"
    );
    fs::write(&reload, script).expect("written");
    fs::set_permissions(&reload, fs::Permissions::from_mode(0o755)).expect("chmod");
    lab.configure(&format!("type = \"file\"\npath = {:?}", lab.source_file()), &format!("reload = [{reload:?}]"));
    lab.publish(&new.pair());
    let ran = lab.run(&["sync", "--wait", "0s"]);
    ran.expect(75);
    assert!(ran.output().contains("the old files were put back"), "{}", ran.output());
    lab.assert_held_by(&new, &[lab.source_file()]);
    let map = other.with_extension("db");
    lab.assert_held_by(&old, &[table, lab.postfix.map(), other, map]);
}

#[test]
fn what_a_killed_run_had_staged_goes_with_the_next_run_also_if_that_has_nothing_to_do() {
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.postfix.start();
    lab.standin.set_key(&new.username, &Secret::new(new.password.clone()));
    lab.with_file_source(&old.pair());
    lab.run(&["sync"]).expect(0);
    // A compiler that hangs: when it is asked to compile, the staged text is there.
    let asked = lab.path("asked");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *\" -q \"*|*\" -s \"*) exec /usr/sbin/postmap \"$@\";; esac\necho $$ > {asked:?}\nexec sleep 1000\n"
    );
    lab.postfix.set("command_directory", programs_with(&lab, "postmap", &script).to_str().expect("UTF-8"));
    lab.publish(&new.pair());
    let (mut command, ..) = lab.command(&[], &["sync"]);
    let mut run = Running(command.spawn().expect("relaykey starts"));
    let compiler = wait_for("postmap to be asked", SOON, || {
        fs::read_to_string(&asked).ok().and_then(|pid| pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw))
    });
    run.0.kill().expect("killed");
    run.wait(SOON);
    rustix::process::kill_process(compiler, rustix::process::Signal::KILL).expect("killed");
    lab.assert_held_by(&new, &[lab.postfix.config_dir.join(STAGED), lab.source_file()]);

    // The source goes back to what is applied, so that nothing is staged any more.
    lab.publish(&old.pair());
    lab.postfix.set("command_directory", "/usr/sbin");
    let ran = lab.run(&["sync"]);
    ran.expect(0);
    assert!(ran.stdout.contains("up-to-date"), "{}", ran.output());
    lab.assert_held_by(&new, &[]);
}

// ---------------------------------------------------------------- the process

/// A relaykey that has sent its login and waits for an answer that does not come.
fn hold_the_secret(lab: &Lab, as_user: Option<u32>) -> Running {
    lab.standin.fault(Misbehavior::HangAtAuth, 1);
    let (mut command, ..) = lab.command(&[], &["check"]);
    if let Some(user) = as_user {
        command.uid(user).gid(user);
    }
    let connections =
        |lab: &Lab| lab.standin.wait_for(Duration::ZERO, "", |seen| Some(seen.connections)).expect("seen");
    let before = connections(lab);
    let child = Running(command.spawn().expect("relaykey starts"));
    wait_for("relaykey to connect", SOON, || (connections(lab) > before).then_some(()));
    child
}

#[test]
fn a_process_that_holds_a_secret_dumps_no_core_and_is_closed_to_its_own_user() {
    use rustix::process::{Resource, Rlimit, Signal, kill_process};
    let (old, new) = (Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.with_file_source(&new.pair());
    // As a user, who may look at processes of his own, and for whom the core limit is what its parent set: none.
    let user = 65534;
    fs::set_permissions(lab.scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    chown(lab.source_file(), Some(user), None).expect("chown");
    let place = scratch::private("secrets");
    chown(place.path(), Some(user), None).expect("chown");
    let unlimited = Rlimit { current: None, maximum: None };
    rustix::process::setrlimit(Resource::Core, unlimited).expect("root raises its core limit");
    let may_read = |pid: u32| {
        let file = format!("/proc/{pid}/environ");
        Command::new("cat").arg(file).uid(user).gid(user).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    let core_of = |child: &mut Running, signal: Signal| {
        let pid = rustix::process::Pid::from_child(&child.0);
        kill_process(pid, signal).expect("a process");
        let status = child.wait(SOON);
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        status.core_dumped()
    };

    // That it would be otherwise for another program.
    let mut other = Running(
        Command::new("sleep").arg("1000").current_dir(place.path()).uid(user).gid(user).spawn().expect("sleep"),
    );
    wait_for("sleep to start", SOON, || {
        fs::read_to_string(format!("/proc/{}/comm", other.0.id())).ok().filter(|name| name.trim() == "sleep")
    });
    assert!(may_read(other.0.id()).expect("cat").success());
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("procfs");
    let dumps = core_of(&mut other, Signal::ABORT);
    assert!(dumps || pattern.starts_with('|') || pattern.trim().is_empty(), "no program dumps core here: {pattern}");

    for signal in [Signal::ABORT, Signal::QUIT] {
        let mut child = hold_the_secret(&lab, Some(user));
        let pid = child.0.id();
        wait_for("the secret in memory", SOON, || memory_has(pid, &new.password).then_some(()));
        assert!(!may_read(pid).expect("cat").success(), "its own user may look into it");
        assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).expect("procfs").uid(), 0, "dumpable");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("procfs");
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).expect("a core limit");
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
        assert!(!core_of(&mut child, signal), "{signal:?} left a core");
    }
    let left: Vec<PathBuf> = holders(&[lab.scratch.path(), place.path()], &new.needles()).into_iter().collect();
    assert_eq!(left, [lab.source_file()]);
}

#[test]
fn after_its_rollover_a_secret_is_gone_from_memory() {
    let (old, first, second) = (Key::new(), Key::new(), Key::new());
    let lab = Lab::new("hash", &old);
    lab.postfix.start();
    lab.standin.set_key(&first.username, &Secret::new(first.password.clone()));
    lab.standin.set_key(&second.username, &Secret::new(second.password.clone()));
    // The one that waits looks at its table again and again, so that what stands there may be in memory at any time.
    let others = Key::new();
    // Two credentials: when the first is done, the second waits, because SES does not know its key yet.
    lab.standin.delay(&second.username, Delay::Until(Instant::now() + RUN));
    let other = Lab::instance("hash", &lab.standin, &lab.path("ca.pem"), &others);
    let name = format!("memory-test-{}", first.username);
    moto::shared().secret(&name, &first.iam_json());
    let aws = format!("region = {:?}\nendpoint_url = {:?}", moto::REGION, moto::shared().endpoint());
    lab.publish(&second.pair());
    let config = [
        lab.host(),
        lab.credential("ses", &format!("type = \"secrets-manager\"\nsecret = {name:?}\n{aws}"), &lab.postfix, ""),
        lab.credential("other", &format!("type = \"file\"\npath = {:?}", lab.source_file()), &other, ""),
    ];
    fs::write(lab.path("config.toml"), config.concat()).expect("written");

    let (mut command, out, err) = lab.command(&[], &["sync", "--wait", "60s"]);
    let child = Running(command.spawn().expect("relaykey starts"));
    let pid = child.0.id();
    let said =
        || format!("{}{}", fs::read_to_string(&out).unwrap_or_default(), fs::read_to_string(&err).unwrap_or_default());
    wait_for("the first rollover, and the second login", SOON, || {
        let refused = lab.standin.logins().iter().any(|l| l.username == second.username);
        (said().contains("ses: confirmed") && refused).then_some(())
    });
    // The search sees secrets: the one of the rollover that is open.
    assert!(memory_has(pid, &second.password), "{}", said());
    for (what, text) in [("password", &first.password), ("IAM secret key", &first.iam_secret)] {
        // The begin of what was freed is overwritten by the allocator.
        for (part, text) in [("whole", text.as_str()), ("second half of the", &text[text.len() / 2..])] {
            assert!(!memory_has(pid, text), "the {part} {what} of the finished rollover is in memory");
        }
    }
    let plain = BASE64.encode(format!("\0{}\0{}", first.username, first.password));
    assert!(!memory_has(pid, &plain), "the AUTH PLAIN line of the finished rollover is in memory");
    assert!(!memory_has(pid, &old.password), "the password that was replaced is in memory");
}
