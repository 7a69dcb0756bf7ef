//! What `tests/bench/rollover` runs: rollovers by `relaykey sync`, by their unavoidable parts, and by the usual script,
//! in turn, on one private Postfix, one AWS API server and one SES stand-in.
//!
//! The three ways roll over secrets of their own, and each finds the table as it left it: before its turn its own text and
//! map are put back, which is not measured, nor is what makes the new version or proves that it is in use. Nothing here
//! fails because of a time.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use relaykey::config::{Smtp, Tls};
use relaykey::credential::{Login, Secret, ses_smtp_password};
use relaykey::smtp::{self, LoginVerdict};
use relaykey::standin::postfix::PostfixInstance;
use relaykey::standin::{self, Standin};
use relaykey::tls::Roots;
use serde_json::{Value, json};

#[path = "../lab/moto.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod moto;
#[path = "../lab/scratch.rs"]
mod scratch;
use moto::{Moto, REGION};

/// The endpoint: a name of the stand-in's certificate, resolved without a network.
const ENDPOINT: &str = "localhost";
const HOST: &str = "bench.example.com";
/// How long a message may take until the stand-in has it: a reload stalls delivery for about a second.
const DELIVERY: Duration = Duration::from_secs(20);
/// So often `relaykey --version` is timed.
const STARTS: usize = 30;
/// What a rollover has to know of main.cf.
const PARAMETERS: &[&str] = &[
    "command_directory",
    "config_directory",
    "default_database_type",
    "process_id_directory",
    "queue_directory",
    "relayhost",
    "smtp_sasl_auth_enable",
    "smtp_sasl_password_maps",
    "smtp_tls_security_level",
];

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("bench-rollover: {what}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    relaykey: PathBuf,
    aws: PathBuf,
    /// A directory of this run's own, which Postfix's users can walk through. Whoever made it removes it.
    scratch: PathBuf,
    rounds: usize,
    json: bool,
    /// Nothing is timed: one rollover is counted.
    costs: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut relaykey, mut aws, mut scratch, mut rounds, mut json) = (None, None, None, 15, false);
        let mut costs = false;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--relaykey" => relaykey = Some(value()?.into()),
                "--aws" => aws = Some(value()?.into()),
                "--scratch" => scratch = Some(value()?.into()),
                "--rounds" => {
                    let n = value()?.parse().ok().filter(|n| (1..=1000).contains(n));
                    rounds = n.ok_or("--rounds takes a number from 1 to 1000")?;
                }
                "--json" => json = true,
                "--costs" => costs = true,
                other => return Err(format!("what is {other}?")),
            }
        }
        let missing = "--relaykey, --aws and --scratch are needed: run tests/bench/rollover";
        Ok(Self {
            relaykey: relaykey.ok_or(missing)?,
            aws: if costs { PathBuf::new() } else { aws.ok_or(missing)? },
            scratch: scratch.ok_or(missing)?,
            rounds,
            json,
            costs,
        })
    }
}

fn run(options: &Options) -> Result<String> {
    if !PostfixInstance::installed() {
        return Err("Postfix is not installed: run tests/bench/rollover, which installs it".into());
    }
    let mut bench = Bench::set_up(options)?;
    if options.costs {
        bench.adopt()?;
        bench.trace = Some(options.scratch.join("trace"));
        bench.round(Way::Relaykey)?;
        let trace = fs::read(options.scratch.join("trace")).map_err(|e| format!("strace wrote nothing: {e}"))?;
        let costs = Costs::of(&String::from_utf8_lossy(&trace));
        return Ok(if options.json { format!("{:#}", costs.json()) } else { costs.line() });
    }
    let size = fs::metadata(&options.relaykey).map_err(|e| said("look at", &options.relaykey, &e))?.len();
    let starts = bench.starts(&options.relaykey)?;
    // Once each, unmeasured: caches are warm for all of them, and relaykey has adopted what it finds.
    let adopted = bench.adopt()?;
    let mut peak = 0;
    for way in [Way::Relaykey, Way::Parts, Way::Script] {
        peak = peak.max(bench.round(way)?.peak_kb.unwrap_or(0));
    }
    let mut rounds: Vec<Round> = Vec::new();
    for n in 0..options.rounds {
        // Who goes first, and after whom, changes: what one leaves behind (a queue manager that starts) meets all.
        let mut ways = [Way::Relaykey, Way::Parts, Way::Script];
        ways.rotate_left(n % 3);
        for way in ways {
            rounds.push(bench.round(way)?);
        }
    }
    let result = Results { rounds, starts, size, peak, adopted };
    Ok(if options.json { result.json(options) } else { result.table() })
}

/// How a rollover is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Relaykey,
    Parts,
    Script,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Way::Relaykey => "relaykey",
            Way::Parts => "parts",
            Way::Script => "script",
        }
    }

    /// The secret in Secrets Manager that it follows.
    fn secret(self) -> String {
        format!("bench-{}", self.word())
    }
}

/// What one rollover took.
struct Round {
    way: Way,
    total: Duration,
    /// Its parts or steps, in order.
    parts: Vec<(String, Duration)>,
    /// The most memory that the process itself had resident, where that was looked at.
    peak_kb: Option<u64>,
}

/// The text and the map as one way left them.
#[derive(Default, Clone)]
struct Files {
    text: Vec<u8>,
    map: Vec<u8>,
}

/// What one way rolls over.
struct Lane {
    login: Login,
    files: Files,
}

struct Bench<'a> {
    options: &'a Options,
    scratch: &'a Path,
    /// Stopped before what it relays to.
    postfix: PostfixInstance,
    standin: Standin,
    moto: Moto,
    smtp: Smtp,
    roots: Roots,
    runtime: tokio::runtime::Runtime,
    lanes: [Lane; 3],
    keys: u32,
    messages: u32,
    /// When the latest version was, in seconds.
    published: u64,
    warm: bool,
    /// Where strace(1) writes what relaykey does.
    trace: Option<PathBuf>,
}

impl<'a> Bench<'a> {
    fn set_up(options: &'a Options) -> Result<Self> {
        let scratch = options.scratch.as_path();
        let standin = Standin::start(standin::Options::default()).map_err(|e| format!("the SES stand-in: {e}"))?;
        let ca_file = scratch.join("ca.pem");
        write(&ca_file, standin.ca_pem(), 0o644)?;
        let mut keys = 0;
        let first = new_login(&mut keys)?;
        standin.set_key(&first.username, &first.password);
        let port = standin.starttls_port();
        let postfix = PostfixInstance::new(scratch, "hash", ENDPOINT, port, &ca_file, &first)
            .and_then(|mut postfix| postfix.start().map(|()| postfix))
            .map_err(|e| format!("the private Postfix: {e}"))?;
        postfix.inject("the first message").map_err(|e| format!("the private Postfix: {e}"))?;
        let moto = Moto::start();
        for way in [Way::Relaykey, Way::Parts, Way::Script] {
            moto.secret(&way.secret(), &pair(&first));
        }
        let smtp = Smtp {
            endpoint: ENDPOINT.into(),
            port,
            tls: Tls::Starttls,
            region: Some(REGION.into()),
            ca_file: Some(ca_file.clone()),
            timeout: Duration::from_secs(10),
            propagation: Duration::ZERO,
            retry: Duration::from_secs(10),
            endpoint_aliases: Vec::new(),
            also: Vec::new(),
        };
        let config = format!(
            r#"config_version = 1
[host]
name = "{HOST}"
state_dir = "{state}"
run_dir = "{run}"
[aws]
region = "{REGION}"
endpoint_url = "{aws}"
[[credential]]
name = "ses"
[credential.source]
type = "secrets-manager"
secret = "{secret}"
[credential.smtp]
endpoint = "{ENDPOINT}"
port = {port}
region = "{REGION}"
ca_file = "{ca}"
[[credential.target]]
type = "postfix"
config_dir = "{postfix}"
"#,
            state = scratch.join("state").display(),
            run = scratch.join("run").display(),
            aws = moto.endpoint(),
            secret = Way::Relaykey.secret(),
            ca = ca_file.display(),
            postfix = postfix.config_dir().display(),
        );
        write(&scratch.join("config.toml"), &config, 0o600)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(scratch.join("parts"))
            .map_err(|e| format!("cannot make a directory: {e}"))?;
        let script = format!(
            r#"#!/bin/sh
# The usual way.
set -e
umask 077
login=$('{aws}' --endpoint-url '{endpoint}' --region {REGION} secretsmanager get-secret-value \
    --secret-id {secret} --query SecretString --output text)
echo "[{ENDPOINT}]:{port} $login" > {table}
/usr/sbin/postmap hash:{table}
/usr/sbin/postfix -c {etc} stop
/usr/sbin/postfix -c {etc} start
"#,
            aws = options.aws.display(),
            endpoint = moto.endpoint(),
            secret = Way::Script.secret(),
            table = postfix.table().display(),
            etc = postfix.config_dir().display(),
        );
        write(&scratch.join("script"), &script, 0o700)?;
        let roots = Roots::from_file(&ca_file).map_err(|e| e.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("no run time: {e}"))?;
        let lane = || Lane { login: first.clone(), files: Files::default() };
        let mut bench = Self {
            options,
            scratch,
            postfix,
            standin,
            moto,
            smtp,
            roots,
            runtime,
            lanes: [lane(), lane(), lane()],
            keys,
            messages: 0,
            published: seconds(),
            warm: false,
            trace: None,
        };
        let files = bench.files()?;
        for lane in &mut bench.lanes {
            lane.files = files.clone();
        }
        Ok(bench)
    }

    /// Lets relaykey meet the host for the first time: it finds the credential in use.
    fn adopt(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let output = self.sync()?.wait_with_output().map_err(|e| format!("relaykey: {e}"))?;
        let took = began.elapsed();
        outcome(&output, "adopted")?;
        Ok(took)
    }

    /// `relaykey --version`.
    fn starts(&self, program: &Path) -> Result<Vec<Duration>> {
        let start = |_| {
            let began = Instant::now();
            finish(Command::new(program).arg("--version"), "relaykey --version")?;
            Ok(began.elapsed())
        };
        (0..STARTS).map(start).collect()
    }

    /// One whole turn of one way.
    fn round(&mut self, way: Way) -> Result<Round> {
        self.put_files(&self.lanes[way as usize].files.clone())?;
        self.must_pass(way)?;
        let old = self.lanes[way as usize].login.clone();
        let new = new_login(&mut self.keys)?;
        self.standin.set_key(&new.username, &new.password);
        let version = self.publish(way, &new);
        let fail = |what: String| format!("round of {}: {what}", way.word());
        let round = match way {
            Way::Relaykey => self.by_relaykey(&version),
            Way::Parts => self.by_parts(&new),
            Way::Script => self.by_script(),
        };
        let round = round.map_err(fail)?;
        self.lanes[way as usize] = Lane { login: new, files: self.files()? };
        // All begin with the same one.
        if self.lanes.iter().all(|lane| lane.login != old) {
            self.standin.deactivate(&old.username);
        }
        self.must_pass(way)?;
        self.warm = true;
        Ok(round)
    }

    /// Puts a new version into Secrets Manager. The server dates versions by whole seconds, and one that is not newer
    /// than the applied one is rightly not taken at once: so not in the second of an earlier one.
    fn publish(&mut self, way: Way, login: &Login) -> String {
        while seconds() <= self.published {
            std::thread::sleep(Duration::from_millis(10));
        }
        let version = self.moto.put(&way.secret(), &pair(login), &["AWSCURRENT"]);
        self.published = seconds();
        version
    }

    // ------------------------------------------------------------ the three ways

    fn by_relaykey(&self, version: &str) -> Result<Round> {
        let began = Instant::now();
        let child = self.sync()?;
        // Looked at while it runs, in the unmeasured round only.
        let peak = (!self.warm).then(|| {
            let status = PathBuf::from(format!("/proc/{}/status", child.id()));
            std::thread::spawn(move || peak(&status))
        });
        let output = child.wait_with_output().map_err(|e| format!("relaykey: {e}"))?;
        let total = began.elapsed();
        let credential = outcome(&output, "confirmed")?;
        if credential["version"] != version {
            return Err(format!("confirmed version {}, not {version}", credential["version"]));
        }
        let step = |step: &Value| {
            let ms = step["milliseconds"].as_u64().unwrap_or_default();
            (step["step"].as_str().unwrap_or_default().to_owned(), Duration::from_millis(ms))
        };
        let parts: Vec<_> = credential["steps"].as_array().into_iter().flatten().map(step).collect();
        let peak_kb = peak.and_then(|thread| thread.join().ok());
        Ok(Round { way: Way::Relaykey, total, parts, peak_kb })
    }

    /// `relaykey sync`, started.
    fn sync(&self) -> Result<std::process::Child> {
        let mut command = match &self.trace {
            Some(trace) => {
                let mut command = Command::new("strace");
                command.args(["-f", "-qq", "-s", "64", "-e", CALLS, "-o"]).arg(trace).arg(&self.options.relaykey);
                command
            }
            None => Command::new(&self.options.relaykey),
        };
        command.arg("sync").arg("--json").arg("--config").arg(self.scratch.join("config.toml"));
        self.aws_environment(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| said("start", &self.options.relaykey, &e))
    }

    /// Each part is the whole of its work and nothing else, done in a process that has everything at hand.
    fn by_parts(&self, new: &Login) -> Result<Round> {
        let mut clock = Clock { parts: Vec::new() };
        let etc = self.postfix.config_dir();
        let table = self.postfix.table();
        let map = with_db(&table);
        let staged = etc.join(".bench.staged");
        let staged_map = with_db(&staged);
        let key = format!("[{ENDPOINT}]:{}", self.smtp.port);
        let state = self.scratch.join("parts");
        let document = "x".repeat(2048);

        // What the mail server is set to do: which next hops, which table.
        clock.time("postconf before", || self.postconf())?;
        // Which login is in use: what is compared, kept as the previous one, and checked once more before the rename.
        let live = clock.time("postmap -q live", || self.look_up(&table, &key))?;
        if live != pair(&self.lanes[Way::Parts as usize].login) {
            return Err("the table does not hold this way's login".into());
        }
        let value = clock.time("GET of the secret", || get_secret(&self.moto.endpoint(), &Way::Parts.secret()))?;
        let fetched = value["SecretString"].as_str().unwrap_or_default().to_owned();
        if fetched != pair(new) {
            return Err("Secrets Manager gave another value".into());
        }
        // What the next run has to know of the candidate should this one be killed between the two renames.
        clock.time("state: candidate", || replace(&state, "state", &document))?;
        let verdict =
            clock.time("TLS and AUTH", || self.runtime.block_on(smtp::login(&self.smtp, new, &self.roots, HOST)));
        if !matches!(verdict, LoginVerdict::Accepted { .. }) {
            return Err(format!("the stand-in did not accept the new key: {verdict:?}"));
        }
        let text = format!("# relays of the demo\n{key} {fetched}\n");
        clock.time("write the text", || write(&staged, &text, 0o600))?;
        clock.time("postmap", || {
            finish(Command::new("/usr/sbin/postmap").arg("-c").arg(&etc).arg(hash(&staged)), "postmap")
        })?;
        // Before it goes live: every key must be in the new map.
        let found = clock.time("postmap -q staged", || self.look_up(&staged, &key))?;
        if found != fetched {
            return Err("the staged map gives another login".into());
        }
        clock.time("fsync text and map", || sync(&staged).and_then(|()| sync(&staged_map)))?;
        // What is owed from the first rename on: a reload.
        clock.time("journal", || replace(&state, "journal", &document))?;
        clock.time("rename both", || rename(&staged, &table).and_then(|()| rename(&staged_map, &map)))?;
        clock.time("fsync directory", || sync(&etc))?;
        // A reload puts into effect whatever is half edited in main.cf.
        clock.time("postfix check", || self.postfix("check"))?;
        clock.time("postfix reload", || self.postfix("reload"))?;
        // The running configuration anew: is this still the table, and does it give the candidate?
        clock.time("postconf after", || self.postconf())?;
        let read_back = clock.time("postmap -q read back", || self.look_up(&table, &key))?;
        if read_back != fetched {
            return Err("the live map gives another login".into());
        }
        clock.time("state: confirmed", || replace(&state, "state", &document))?;
        let total = clock.parts.iter().map(|(_, took)| *took).sum();
        Ok(Round { way: Way::Parts, total, parts: clock.parts, peak_kb: None })
    }

    fn by_script(&self) -> Result<Round> {
        let mut command = Command::new(self.scratch.join("script"));
        self.aws_environment(&mut command);
        let began = Instant::now();
        finish(&mut command, "the script")?;
        Ok(Round { way: Way::Script, total: began.elapsed(), parts: Vec::new(), peak_kb: None })
    }

    // ------------------------------------------------------------ what they are made of

    /// The same few words for the AWS SDK and for the AWS CLI; nothing of the caller's.
    fn aws_environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.scratch)
            .env("AWS_ACCESS_KEY_ID", "AKIABENCHBENCHBENCH1")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("AWS_EC2_METADATA_DISABLED", "true");
    }

    fn postconf(&self) -> Result<()> {
        let mut command = Command::new("/usr/sbin/postconf");
        command.arg("-c").arg(self.postfix.config_dir()).arg("-x").args(PARAMETERS).stdin(Stdio::null());
        let output = command.output().map_err(|e| format!("postconf: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let table = format!("smtp_sasl_password_maps = {}", hash(&self.postfix.table()));
        if said.lines().any(|line| line == table) { Ok(()) } else { Err("postconf names another table".into()) }
    }

    /// What a table gives for a key, which goes in through standard input.
    fn look_up(&self, table: &Path, key: &str) -> Result<String> {
        let failed = |e| format!("postmap -q: {e}");
        let mut command = Command::new("/usr/sbin/postmap");
        command.arg("-c").arg(self.postfix.config_dir()).args(["-q", "-"]).arg(hash(table));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            writeln!(stdin, "{key}").map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let value = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
        Ok(value.ok_or("the table has no such key")?.to_owned())
    }

    /// Until the command itself has ended: `postfix reload` leaves a cleaner of the queue behind.
    fn postfix(&self, command: &str) -> Result<()> {
        finish(Command::new("/usr/sbin/postfix").arg("-c").arg(self.postfix.config_dir()).arg(command), command)
    }

    /// A message goes through, under the key that the way has put into use and no other.
    fn must_pass(&mut self, way: Way) -> Result<()> {
        self.messages += 1;
        let subject = format!("message {}", self.messages);
        let username = self.lanes[way as usize].login.username.clone();
        self.postfix.inject(&subject).map_err(|e| format!("after a round of {}: {e}", way.word()))?;
        let arrived = self.standin.wait_for(DELIVERY, &subject, |seen| {
            seen.messages.iter().rev().find(|message| message.subject == subject).map(|m| m.username.clone())
        });
        match arrived {
            Ok(user) if user == username => Ok(()),
            Ok(user) => Err(format!("{subject} passed under {user}, not under {username} of {}", way.word())),
            Err(e) => Err(format!("{e}: it did not pass under {username} of {}", way.word())),
        }
    }

    fn files(&self) -> Result<Files> {
        let read = |path: &Path| fs::read(path).map_err(|e| said("read", path, &e));
        let table = self.postfix.table();
        Ok(Files { text: read(&table)?, map: read(&with_db(&table))? })
    }

    /// Puts a way's own files back, by renames, which a running Postfix notices.
    fn put_files(&self, files: &Files) -> Result<()> {
        let table = self.postfix.table();
        let beside = self.postfix.config_dir().join(".bench.back");
        for (path, bytes) in [(&table, &files.text), (&with_db(&table), &files.map)] {
            write(&beside, bytes, 0o600)?;
            sync(&beside)?;
            rename(&beside, path)?;
        }
        Ok(())
    }
}

/// Secrets Manager's GetSecretValue as one plain HTTP request, connection included.
fn get_secret(endpoint: &str, name: &str) -> Result<Value> {
    let failed = |e: std::io::Error| format!("the AWS API server: {e}");
    let address = endpoint.trim_start_matches("http://");
    let body = json!({"SecretId": name, "VersionStage": "AWSCURRENT"}).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: secretsmanager.GetSecretValue\r\nContent-Length: {}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=AKIABENCHBENCHBENCH1/20260101/{REGION}/secretsmanager/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\r\n{body}",
        body.len()
    );
    let mut stream = BufReader::new(TcpStream::connect(address).map_err(failed)?);
    stream.get_ref().set_read_timeout(Some(DELIVERY)).map_err(failed)?;
    // In one piece: a second one would wait for the first one's acknowledgement.
    stream.get_mut().write_all(request.as_bytes()).map_err(failed)?;
    let mut line = String::new();
    stream.read_line(&mut line).map_err(failed)?;
    let status = line.trim().to_owned();
    let mut length = 0;
    while line.trim_end() != "" {
        line.clear();
        stream.read_line(&mut line).map_err(failed)?;
        if let Some(("content-length", value)) = line.to_ascii_lowercase().split_once(':') {
            length = value.trim().parse().map_err(|e| format!("the AWS API server: {e}"))?;
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).map_err(failed)?;
    match serde_json::from_slice(&answer) {
        Ok(value) if status.contains(" 200 ") => Ok(value),
        _ => Err(format!("the AWS API server answered {status}")),
    }
}

/// Times parts one by one.
struct Clock {
    parts: Vec<(String, Duration)>,
}

impl Clock {
    fn time<T>(&mut self, name: &str, part: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = part();
        self.parts.push((name.into(), began.elapsed()));
        done
    }
}

/// A key as IAM makes them, with the SMTP password that belongs to it.
fn new_login(number: &mut u32) -> Result<Login> {
    *number += 1;
    let secret = Secret::new(format!("{:040}", getrandom::u64().map_err(|e| format!("no random numbers: {e}"))?));
    Login::new(format!("AKIABENCH{number:011}"), ses_smtp_password(&secret, REGION)).map_err(|e| e.to_string())
}

/// Wall time.
fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn pair(login: &Login) -> String {
    format!("{}:{}", login.username, login.password.expose())
}

fn hash(table: &Path) -> String {
    format!("hash:{}", table.display())
}

fn with_db(table: &Path) -> PathBuf {
    let mut name = table.as_os_str().to_owned();
    name.push(".db");
    name.into()
}

fn said(doing: &str, path: &Path, e: &std::io::Error) -> String {
    format!("cannot {doing} {}: {e}", path.display())
}

/// Runs a command to its end; what it said is shown only where it failed.
fn finish(command: &mut Command, name: &str) -> Result<()> {
    // Its output goes to a file: a daemon that it leaves behind would keep a pipe open.
    let mut file = tempfile::tempfile().map_err(|e| format!("cannot make a temporary file: {e}"))?;
    let both = file
        .try_clone()
        .and_then(|a| Ok((a, file.try_clone()?)))
        .map_err(|e| format!("cannot use a temporary file: {e}"))?;
    let status = command.stdin(Stdio::null()).stdout(both.0).stderr(both.1).status();
    let status = status.map_err(|e| format!("{name}: {e}"))?;
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    let _ = std::io::Seek::rewind(&mut file).and_then(|()| file.read_to_string(&mut words));
    Err(format!("{name}: {status}: {}", words.trim()))
}

fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_ref())
    };
    write().map_err(|e| said("write", path, &e))
}

fn sync(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(|e| said("sync", path, &e))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| said("rename", from, &e))
}

/// A small document, replaced durably.
fn replace(directory: &Path, name: &str, text: &str) -> Result<()> {
    let (new, live) = (directory.join(".new"), directory.join(name));
    write(&new, text, 0o600)?;
    sync(&new)?;
    rename(&new, &live)?;
    sync(directory)
}

/// The one credential in what `sync --json` printed, which must have come out so.
fn outcome(output: &std::process::Output, expected: &str) -> Result<Value> {
    let words = String::from_utf8_lossy(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("relaykey sync said no JSON ({e}; {}): {}", output.status, words.trim()))?;
    let credential = &document["credentials"][0];
    if !output.status.success() || credential["outcome"] != expected {
        return Err(format!("relaykey sync: {}, not {expected}: {credential:#}", output.status));
    }
    Ok(credential.clone())
}

/// Follows a process until it ends; gives the most kilobytes that it had resident.
fn peak(status: &Path) -> u64 {
    let mut most = 0;
    while let Ok(text) = fs::read_to_string(status) {
        let value = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        // A process that has ended and was not waited for has no such line.
        let Some(kilobytes) = value.and_then(|v| v.trim().parse().ok()) else { break };
        most = u64::max(most, kilobytes);
        std::thread::sleep(Duration::from_millis(1));
    }
    most
}

// ---------------------------------------------------------------- what it costs beside time

/// The calls that are looked at; those that this machine does not know are left out.
const CALLS: &str = "trace=execve,?clone,?clone3,?fork,?vfork,openat,?open,fsync,fdatasync";

/// What one rollover does, as strace(1) saw it: of relaykey itself, and not of the programs that it starts.
struct Costs {
    /// Programs that it starts.
    children: usize,
    /// Of these, looks at all settings.
    surveys: usize,
    fsyncs: usize,
    /// How often it reads what the mail server's side remembers.
    journal_reads: usize,
}

impl Costs {
    fn of(trace: &str) -> Self {
        // A call that another thread interrupts stands on two lines.
        let (mut begun, mut calls) = (HashMap::new(), Vec::new());
        for line in trace.lines() {
            let Some((pid, call)) = line.split_once(' ').map(|(pid, call)| (pid, call.trim_start())) else { continue };
            if let Some(first) = call.strip_suffix("<unfinished ...>") {
                begun.insert(pid, first.to_owned());
            } else if let Some((_, rest)) = call.split_once("resumed>").filter(|_| call.starts_with("<... ")) {
                calls.push((pid, begun.remove(pid).unwrap_or_default() + rest));
            } else {
                calls.push((pid, call.to_owned()));
            }
        }
        // Whose number a call gave: a thread of relaykey, or a child of one.
        let mut own: HashSet<String> = calls.first().map(|(pid, _)| (*pid).to_owned()).into_iter().collect();
        let mut children: HashSet<String> = HashSet::new();
        loop {
            let makes = |call: &str| ["clone", "fork", "vfork"].iter().any(|name| call.starts_with(name));
            let made = |(pid, call): &(&str, String)| {
                let made = call.rsplit_once("= ")?.1.trim();
                let is_ours = own.contains(*pid) && makes(call) && made.parse().is_ok_and(|made: i64| made > 0);
                is_ours.then(|| (made.to_owned(), call.contains("CLONE_THREAD")))
            };
            let (threads, started): (Vec<_>, Vec<_>) = calls.iter().filter_map(made).partition(|(_, thread)| *thread);
            let before = own.len() + children.len();
            own.extend(threads.into_iter().map(|(pid, _)| pid));
            children.extend(started.into_iter().map(|(pid, _)| pid));
            if own.len() + children.len() == before {
                break;
            }
        }
        let of = |whose: &HashSet<String>, wanted: &dyn Fn(&str) -> bool| {
            calls.iter().filter(|(pid, call)| whose.contains(*pid) && !call.contains("= -1 ") && wanted(call)).count()
        };
        Self {
            children: children.len(),
            surveys: of(&children, &|call| {
                call.starts_with("execve(") && call.contains("postconf\", \"-c\"") && call.contains("\"-x\"")
            }),
            fsyncs: of(&own, &|call| call.starts_with("fsync(") || call.starts_with("fdatasync(")),
            journal_reads: of(&own, &|call| {
                call.contains("journal.json\"") && call.contains("O_RDONLY") && !call.contains("O_PATH")
            }),
        }
    }

    fn line(&self) -> String {
        format!(
            "one rollover: {} children, of these {} surveys of the settings; {} fsyncs; {} reads of the journal",
            self.children, self.surveys, self.fsyncs, self.journal_reads
        )
    }

    fn json(&self) -> Value {
        json!({
            "schema": "relaykey/bench-rollover-costs/v1",
            "children": self.children,
            "surveys": self.surveys,
            "fsyncs": self.fsyncs,
            "journal_reads": self.journal_reads,
        })
    }
}

// ---------------------------------------------------------------- what came out

struct Results {
    rounds: Vec<Round>,
    starts: Vec<Duration>,
    /// Bytes of the program.
    size: u64,
    /// Kilobytes.
    peak: u64,
    adopted: Duration,
}

/// Of a sorted, non-empty list.
struct Spread {
    n: usize,
    min: f64,
    median: f64,
    p90: f64,
}

impl Spread {
    /// In milliseconds.
    fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<f64> = times.into_iter().map(|t| t.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        let n = times.len();
        // The nearest rank: a time that was really taken.
        let rank = |part: f64| times.get(((part * n as f64).ceil() as usize).clamp(1, n.max(1)) - 1).copied();
        let middle = match n % 2 {
            0 if n > 0 => (times[n / 2 - 1] + times[n / 2]) / 2.0,
            _ => rank(0.5).unwrap_or_default(),
        };
        Self { n, min: rank(0.0).unwrap_or_default(), median: middle, p90: rank(0.9).unwrap_or_default() }
    }

    fn json(&self) -> Value {
        json!({"n": self.n, "min": round(self.min), "median": round(self.median), "p90": round(self.p90)})
    }

    fn line(&self, name: &str) -> String {
        format!("{name:<24} {:>4} {:>9.1} {:>9.1} {:>9.1}\n", self.n, self.min, self.median, self.p90)
    }
}

fn round(milliseconds: f64) -> f64 {
    (milliseconds * 1000.0).round() / 1000.0
}

impl Results {
    fn whole(&self, way: Way) -> Spread {
        Spread::of(self.rounds.iter().filter(|r| r.way == way).map(|r| r.total))
    }

    /// The parts of a way, by their places: a name may come twice.
    fn parts(&self, way: Way) -> Vec<(String, Spread)> {
        let rounds: Vec<&Round> = self.rounds.iter().filter(|r| r.way == way).collect();
        let Some(first) = rounds.first() else { return Vec::new() };
        let at = |i: usize| rounds.iter().filter_map(move |r| r.parts.get(i).map(|(_, took)| *took));
        let mut parts: Vec<_> =
            first.parts.iter().enumerate().map(|(i, (name, _))| (name.clone(), Spread::of(at(i)))).collect();
        if way == Way::Relaykey {
            let rest = |r: &&Round| r.total.saturating_sub(r.parts.iter().map(|(_, took)| *took).sum());
            parts.push(("start, between, end".into(), Spread::of(rounds.iter().map(rest))));
        }
        parts
    }

    /// Of medians: `relaykey sync` over the other way.
    fn ratio(&self, way: Way) -> f64 {
        self.whole(Way::Relaykey).median / self.whole(way).median
    }

    fn table(&self) -> String {
        let mut text = format!("{:<24} {:>4} {:>9} {:>9} {:>9}\n", "milliseconds", "n", "min", "median", "p90");
        for way in [Way::Relaykey, Way::Parts, Way::Script] {
            text += &self.whole(way).line(match way {
                Way::Relaykey => "relaykey sync",
                Way::Parts => "sum of the parts",
                Way::Script => "usual script",
            });
        }
        for (way, title) in [(Way::Relaykey, "steps of relaykey sync"), (Way::Parts, "the parts")] {
            let _ = writeln!(text, "\n{title}");
            for (name, spread) in self.parts(way) {
                text += &spread.line(&format!("  {name}"));
            }
        }
        let starts = Spread::of(self.starts.iter().copied());
        let _ = writeln!(text, "\n{}", starts.line("relaykey --version").trim_end());
        let _ = writeln!(text, "first sync (adoption)         {:>19.1}", self.adopted.as_secs_f64() * 1000.0);
        let _ = writeln!(text, "program                       {:>16.2} MB", self.size as f64 / 1e6);
        let _ = writeln!(text, "peak resident memory of sync  {:>16.2} MB", self.peak as f64 * 1024.0 / 1e6);
        let _ =
            writeln!(text, "\nrelaykey sync / sum of the parts  {:.2}   (aim: at most 1.3)", self.ratio(Way::Parts));
        let _ = write!(text, "relaykey sync / usual script      {:.2}   (aim: at most 0.3)", self.ratio(Way::Script));
        text
    }

    fn json(&self, options: &Options) -> String {
        let parts = |way| -> Vec<Value> {
            let named = |(name, spread): (String, Spread)| json!({"name": name, "milliseconds": spread.json()});
            self.parts(way).into_iter().map(named).collect()
        };
        let document = json!({
            "schema": "relaykey/bench-rollover/v1",
            "rounds": options.rounds,
            "milliseconds": {
                "relaykey": self.whole(Way::Relaykey).json(),
                "parts": self.whole(Way::Parts).json(),
                "script": self.whole(Way::Script).json(),
                "version": Spread::of(self.starts.iter().copied()).json(),
                "adoption": round(self.adopted.as_secs_f64() * 1000.0),
            },
            "steps": parts(Way::Relaykey),
            "parts": parts(Way::Parts),
            "program_bytes": self.size,
            "peak_resident_kilobytes": self.peak,
            "relaykey_to_parts": round(self.ratio(Way::Parts)),
            "relaykey_to_script": round(self.ratio(Way::Script)),
        });
        format!("{document:#}")
    }
}
