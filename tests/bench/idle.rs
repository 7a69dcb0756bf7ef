//! What `tests/bench/idle` runs: `relaykey run` at rest, beside the least that a poller with Python and boto3 can be.
//!
//! Both ask the same AWS API server, over TLS, with the same certificates trusted. relaykey adopts what it finds, is
//! started again and again, rolls over, is made to poll, and then left alone; so is the poller, as far as it can do that.
//! Everything is read from outside: /proc says what a process has used, the notify socket when it was ready. Nothing here
//! fails because of a figure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use relaykey::credential::{Login, Secret, ses_smtp_password};
use relaykey::standin::postfix::PostfixInstance;
use relaykey::standin::{self, Standin};
use relaykey::tls::Roots;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

#[path = "../lab/moto.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod moto;
#[path = "../lab/scratch.rs"]
mod scratch;
use moto::{Moto, REGION};

/// The endpoint: a name of the stand-in's certificate, resolved without a network.
const ENDPOINT: &str = "localhost";
const SECRET: &str = "bench-idle";
/// Polls of an hour, for both.
const POLLS_PER_HOUR: f64 = 12.0;
const POLL: Duration = Duration::from_secs(300);
/// What the service manager says of its watchdog: fed every minute.
const WATCHDOG: Duration = Duration::from_secs(120);
/// Until nothing is left of a poll: threads and connections that were kept for a while.
const CALM: Duration = Duration::from_secs(15);
/// So often the page of metrics is asked for, to know what that costs.
const SCRAPES: u32 = 200;
/// What /proc/PID/stat counts in, in a second: USER_HZ, which is this on all that relaykey is built for.
const TICKS: f64 = 100.0;
/// The longest that one thing may take here.
const SOON: Duration = Duration::from_secs(30);

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("bench-idle: {what}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    relaykey: PathBuf,
    /// A directory of this run's own, which Postfix's users can walk through. Whoever made it removes it.
    scratch: PathBuf,
    polls: u32,
    idle: Duration,
    starts: u32,
    json: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut relaykey, mut scratch, mut json) = (None, None, false);
        let (mut polls, mut idle, mut starts) = (40, 120, 15);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            let number = |text: String, most: u32| {
                let n = text.parse().ok().filter(|n| (1..=most).contains(n));
                n.ok_or(format!("{argument} takes a number from 1 to {most}"))
            };
            match argument.as_str() {
                "--relaykey" => relaykey = Some(value()?.into()),
                "--scratch" => scratch = Some(value()?.into()),
                "--polls" => polls = number(value()?, 1000)?,
                // A poll comes half an interval after the one before, at the earliest.
                "--idle" => idle = number(value()?, 130)?,
                "--starts" => starts = number(value()?, 1000)?,
                "--json" => json = true,
                other => return Err(format!("what is {other}?")),
            }
        }
        let missing = "--relaykey and --scratch are needed: run tests/bench/idle";
        Ok(Self {
            relaykey: relaykey.ok_or(missing)?,
            scratch: scratch.ok_or(missing)?,
            polls,
            idle: Duration::from_secs(idle.into()),
            starts,
            json,
        })
    }
}

fn run(options: &Options) -> Result<String> {
    if !PostfixInstance::installed() {
        return Err("Postfix is not installed: run tests/run, which installs it".into());
    }
    let bench = Bench::set_up(options)?;
    let size = fs::metadata(&options.relaykey).map_err(|e| said("look at", &options.relaykey, &e))?.len();

    // The host is met for the first time: the credential in use is adopted.
    let mut adoption = bench.start(Who::Relaykey)?;
    let adopted = bench.ready(&mut adoption)?;
    adoption.end()?;
    let mut starts = [Vec::new(), Vec::new()];
    let mut listening = Vec::new();
    for _ in 0..options.starts {
        for who in [Who::Relaykey, Who::Poller] {
            let mut process = bench.start(who)?;
            if who == Who::Relaykey {
                listening.push(bench.listening(&process)?);
            }
            starts[who as usize].push(bench.ready(&mut process)?);
            process.end()?;
        }
    }

    let mut relaykey = bench.start(Who::Relaykey)?;
    bench.ready(&mut relaykey)?;
    let mut poller = bench.start(Who::Poller)?;
    bench.ready(&mut poller)?;
    bench.roll_over(&relaykey)?;
    let both = [&relaykey, &poller];
    for process in both {
        bench.at_rest(process)?;
    }

    // Polls of each in turn, so that a neighbour that is busy meets both. Each is at rest before and after.
    let before = both.map(Process::used);
    let (mut took, mut most_threads) = ([Vec::new(), Vec::new()], [0; 2]);
    for _ in 0..options.polls {
        for process in both {
            took[process.who as usize].push(bench.poll(process)?);
            let threads = &mut most_threads[process.who as usize];
            *threads = process.memory()?.threads.len().max(*threads);
        }
    }
    // Switches of threads that end go with them: counted while they are there.
    let switches = both.map(|p| p.used().map(|u| u.switches));
    std::thread::sleep(CALM);
    let after = both.map(Process::used);

    // Left alone.
    let calls = both.map(|p| bench.moto.calls(p.who.aws_key()).len());
    let began = Instant::now();
    let lines = bench.log_lines();
    let at = both.map(Process::used);
    std::thread::sleep(options.idle);
    let rest = both.map(Process::used);
    let lines = bench.log_lines().saturating_sub(lines);
    let rested = began.elapsed();
    let memory = both.map(Process::memory);
    if calls != both.map(|p| bench.moto.calls(p.who.aws_key()).len()) {
        return Err("there was a poll while none was to be: try a shorter --idle".into());
    }

    // What is asked for when somebody looks, which nobody did so far.
    let unscraped = relaykey.used()?.cpu;
    for _ in 0..SCRAPES {
        let metrics = bench.http("/metrics")?;
        if !metrics.contains("relaykey_") {
            return Err(format!("no metrics at /metrics: {metrics}"));
        }
    }
    let scrape = (relaykey.used()?.cpu - unscraped) / f64::from(SCRAPES);
    let watched = bench.told.try_iter().filter(|(_, text)| text.contains("WATCHDOG=1")).count();
    relaykey.end()?;
    poller.end()?;

    let polls = f64::from(options.polls);
    let mut figures = Vec::new();
    for (i, memory) in memory.into_iter().enumerate() {
        let (before, after) = (before[i].clone()?, after[i].clone()?);
        let (at, rest) = (at[i].clone()?, rest[i].clone()?);
        let hour = 3600.0 / rested.as_secs_f64();
        figures.push(Figures {
            memory: memory?,
            most_threads: most_threads[i],
            poll_cpu: (after.cpu - before.cpu) / polls,
            poll_children: (after.children - before.children) / polls,
            poll_switches: (switches[i].clone()?.saturating_sub(before.switches)) as f64 / polls,
            poll_took: median(&took[i]),
            idle_cpu: (rest.running - at.running) * hour,
            idle_switches: (rest.switches - at.switches) as f64 * hour / 60.0,
            start: median(&starts[i]),
        });
    }
    let [relaykey, poller] = <[Figures; 2]>::try_from(figures).map_err(|_| "there are two")?;
    let packages = packages(&bench.site_packages)?;
    let results = Results {
        relaykey,
        poller,
        size,
        packages,
        listening: median(&listening),
        adopted,
        scrape,
        watched,
        lines,
        rested,
    };
    Ok(if options.json { results.json(options) } else { results.table(options) })
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Relaykey,
    Poller,
}

impl Who {
    /// By which the API server tells their calls apart.
    fn aws_key(self) -> &'static str {
        match self {
            Who::Relaykey => "AKIABENCHIDLERELAYKE",
            Who::Poller => "AKIABENCHIDLEPOLLER1",
        }
    }
}

struct Bench<'a> {
    options: &'a Options,
    /// Stopped before what it relays to.
    postfix: PostfixInstance,
    standin: Standin,
    moto: Moto,
    /// When the first version was made, by the clock, in seconds.
    published: u64,
    /// Where relaykey serves HTTP.
    port: u16,
    /// What the service manager is told, and when.
    told: mpsc::Receiver<(Instant, String)>,
    python: PathBuf,
    site_packages: PathBuf,
}

impl<'a> Bench<'a> {
    fn set_up(options: &'a Options) -> Result<Self> {
        let scratch = options.scratch.as_path();
        let standin = Standin::start(standin::Options::default()).map_err(|e| format!("the SES stand-in: {e}"))?;
        let ca_file = scratch.join("ca.pem");
        write(&ca_file, standin.ca_pem())?;
        let first = new_login(1)?;
        standin.set_key(&first.username, &first.password);
        let postfix = PostfixInstance::new(scratch, "hash", ENDPOINT, standin.starttls_port(), &ca_file, &first)
            .and_then(|mut postfix| postfix.start().map(|()| postfix))
            .map_err(|e| format!("the private Postfix: {e}"))?;
        postfix.inject("the first message").map_err(|e| format!("the private Postfix: {e}"))?;
        let moto = Moto::start();
        moto.secret(SECRET, &pair(&first));
        let published = seconds();
        // All of the system's certificates, as on any host, and the API server's.
        let mut trusted = Roots::system().map_err(|e| e.to_string())?.pem();
        trusted.extend_from_slice(moto.ca_pem().as_bytes());
        write(&scratch.join("trusted.pem"), &String::from_utf8_lossy(&trusted))?;
        let port = free_port()?;
        let config = format!(
            r#"config_version = 1
[host]
name = "bench.example.com"
state_dir = "{state}"
run_dir = "{run}"
[aws]
region = "{REGION}"
endpoint_url = "{aws}"
[[credential]]
name = "ses"
[credential.source]
type = "secrets-manager"
secret = "{SECRET}"
poll = "{poll}s"
[credential.smtp]
endpoint = "{ENDPOINT}"
port = {smtp}
region = "{REGION}"
ca_file = "{ca}"
[[credential.target]]
type = "postfix"
config_dir = "{postfix}"
[health]
listen = ["127.0.0.1:{port}"]
"#,
            state = scratch.join("state").display(),
            run = scratch.join("run").display(),
            aws = moto.tls_endpoint(),
            poll = POLL.as_secs(),
            smtp = standin.starttls_port(),
            ca = ca_file.display(),
            postfix = postfix.config_dir().display(),
        );
        write(&scratch.join("config.toml"), &config)?;
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let lib = root.join("tests/.venv/lib");
        let found = fs::read_dir(&lib).map_err(|e| said("list", &lib, &e))?.flatten();
        let site_packages = found.map(|entry| entry.path().join("site-packages")).find(|p| p.join("boto3").is_dir());
        let site_packages = site_packages.ok_or(format!("no boto3 below {}", lib.display()))?;
        Ok(Self {
            options,
            postfix,
            standin,
            moto,
            published,
            port,
            told: listen(&scratch.join("notify"))?,
            python: root.join("tests/.venv/bin/python"),
            site_packages,
        })
    }

    /// Starts one of them, as a service manager would: a few words in its environment, nothing of ours.
    fn start(&self, who: Who) -> Result<Process> {
        let scratch = &self.options.scratch;
        let mut command = match who {
            Who::Relaykey => {
                let mut command = Command::new(&self.options.relaykey);
                command.arg("run").arg("--config").arg(scratch.join("config.toml"));
                command
            }
            Who::Poller => {
                let mut command = Command::new(&self.python);
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/poller.py");
                command.arg(script).arg(SECRET).arg(POLL.as_secs().to_string());
                command
            }
        };
        let log = scratch.join(format!("{who:?}.log"));
        let log = fs::File::create(&log).map_err(|e| said("make", &log, &e))?;
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", scratch)
            .env("AWS_ACCESS_KEY_ID", who.aws_key())
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            // Each by its own name for the same thing.
            .env("SSL_CERT_FILE", scratch.join("trusted.pem"))
            .env("AWS_CA_BUNDLE", scratch.join("trusted.pem"))
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_ENDPOINT_URL", self.moto.tls_endpoint())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if who == Who::Relaykey {
            command.env("NOTIFY_SOCKET", scratch.join("notify"));
            command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
            // What the unit gives it beside that.
            let unit = include_str!("../../systemd/relaykey.service");
            let given = unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
            command.envs(given);
            for _ in self.told.try_iter() {} // what the one before said
        }
        let began = Instant::now();
        let child = command.spawn().map_err(|e| format!("cannot start {who:?}: {e}"))?;
        Ok(Process { who, child, began, log: scratch.join(format!("{who:?}.log")) })
    }

    /// From the start until it does what it is for: relaykey's READY=1, which follows the first look; the poller's first
    /// answer.
    fn ready(&self, process: &mut Process) -> Result<Duration> {
        match process.who {
            Who::Relaykey => loop {
                let left = SOON.saturating_sub(process.began.elapsed());
                let (at, text) =
                    self.told.recv_timeout(left).map_err(|_| process.failed("was not ready within", SOON))?;
                if text.lines().any(|line| line == "READY=1") {
                    return Ok(at - process.began);
                }
            },
            Who::Poller => {
                let mut line = [0; 1];
                let stdout = process.child.stdout.as_mut();
                let read = stdout.and_then(|out| out.read_exact(&mut line).ok());
                read.ok_or_else(|| process.failed("gave no version", SOON))?;
                Ok(process.began.elapsed())
            }
        }
    }

    /// From the start until its HTTP port takes connections.
    fn listening(&self, process: &Process) -> Result<Duration> {
        while process.began.elapsed() < SOON {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(process.began.elapsed());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Err(process.failed("did not listen within", SOON))
    }

    /// A new version, found by a poll, goes into use, and a message passes under it.
    fn roll_over(&self, relaykey: &Process) -> Result<()> {
        let new = new_login(2)?;
        self.standin.set_key(&new.username, &new.password);
        // The server dates versions by whole seconds, and one that is not newer than the applied one is not taken at once.
        until("the next second", || (seconds() > self.published).then_some(()))?;
        self.moto.put(SECRET, &pair(&new), &["AWSCURRENT"]);
        relaykey.signal(Signal::HUP)?;
        let state = self.options.scratch.join("state/credentials/ses.json");
        until("the new key to be applied", || {
            let state: Value = serde_json::from_slice(&fs::read(&state).ok()?).ok()?;
            (state["applied"]["username"] == new.username.as_str()).then_some(())
        })
        .map_err(|what| relaykey.failed(&what, SOON))?;
        let subject = "after the rollover";
        self.postfix.inject(subject).map_err(|e| format!("the private Postfix: {e}"))?;
        let found = |seen: &standin::StandinRecord| {
            seen.messages.iter().find(|message| message.subject == subject).map(|message| message.username.clone())
        };
        let under = self.standin.wait_for(SOON, subject, found).map_err(|e| e.to_string())?;
        if under == new.username { Ok(()) } else { Err(format!("the message passed under {under}")) }
    }

    /// Makes it poll, and waits until it rests again; gives how long it was at it.
    fn poll(&self, process: &Process) -> Result<Duration> {
        let calls = self.moto.calls(process.who.aws_key()).len();
        let began = Instant::now();
        process.signal(Signal::HUP)?;
        until("a call to the API server", || (self.moto.calls(process.who.aws_key()).len() > calls).then_some(()))
            .map_err(|what| process.failed(&what, SOON))?;
        self.at_rest(process).map(|at| at - began)
    }

    /// Waits until it has no children and has not run for a while; gives when it last ran.
    fn at_rest(&self, process: &Process) -> Result<Instant> {
        const STILL: Duration = Duration::from_millis(250);
        let (mut last, mut since) = (process.used()?, Instant::now());
        until("it to rest", || {
            let now = process.used().ok()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() >= STILL).then_some(since)
        })
        .map_err(|what| process.failed(&what, SOON))
    }

    /// How many lines Postfix has logged so far.
    fn log_lines(&self) -> usize {
        let log = fs::read(self.options.scratch.join("postfix/log/mail.log")).unwrap_or_default();
        log.iter().filter(|byte| **byte == b'\n').count()
    }

    /// One page, as a scraper asks for it.
    fn http(&self, path: &str) -> Result<String> {
        let failed = |e: std::io::Error| format!("{path}: {e}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(failed)?;
        stream.set_read_timeout(Some(SOON)).map_err(failed)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", self.port);
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        Ok(answer)
    }
}

/// One of them, running. Dropped, it is ended.
struct Process {
    who: Who,
    child: Child,
    began: Instant,
    /// What it said on standard error.
    log: PathBuf,
}

/// What a process has used so far.
#[derive(Debug, Clone, PartialEq)]
struct Used {
    /// Seconds of CPU time, all its threads, those that have ended too.
    cpu: f64,
    /// Of the children that have ended.
    children: f64,
    /// As `cpu`, to the nanosecond, but only of the threads that there are now.
    running: f64,
    /// How often its threads went to sleep, those that there are now.
    switches: u64,
}

/// One thread of it.
struct Task {
    name: String,
    switches: u64,
    running: f64,
}

/// What it has now. In kB, where it is memory.
#[derive(Debug, Clone)]
struct Memory {
    resident: u64,
    anonymous: u64,
    proportional: u64,
    most: u64,
    threads: Vec<String>,
    descriptors: usize,
}

impl Process {
    fn read(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).map_err(|e| self.failed(&format!("cannot be looked at ({path}: {e}); within"), SOON))
    }

    fn used(&self) -> Result<Used> {
        let stat = self.read("stat")?;
        // proc(5): utime, stime, cutime and cstime are the 14th to the 17th; the name before may hold blanks.
        let fields: Vec<f64> = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.split(' ').map(|field| field.trim().parse().unwrap_or(0.0)).collect())
            .unwrap_or_default();
        let [user, system, child_user, child_system] =
            fields.get(11..15).and_then(|f| <[f64; 4]>::try_from(f).ok()).ok_or("/proc/PID/stat is too short")?;
        let (mut switches, mut running) = (0, 0.0);
        for task in self.tasks() {
            switches += task.switches;
            running += task.running;
        }
        let (cpu, children) = ((user + system) / TICKS, (child_user + child_system) / TICKS);
        Ok(Used { cpu, children, running, switches })
    }

    fn memory(&self) -> Result<Memory> {
        let (status, rollup) = (self.read("status")?, self.read("smaps_rollup")?);
        let of = |text: &str, name: &str| field(text, name).ok_or(format!("the kernel tells no {name}"));
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count);
        Ok(Memory {
            resident: of(&status, "VmRSS")?,
            anonymous: of(&status, "RssAnon")?,
            proportional: of(&rollup, "Pss")?,
            most: of(&status, "VmHWM")?,
            threads: self.tasks().into_iter().map(|task| task.name).collect(),
            descriptors,
        })
    }

    fn tasks(&self) -> Vec<Task> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let read = |path: PathBuf| {
            let text = |name| fs::read_to_string(path.join(name)).ok();
            Some(Task {
                name: text("comm")?.trim().to_owned(),
                switches: field(&text("status")?, "voluntary_ctxt_switches")?,
                // The first of its numbers: nanoseconds on a CPU.
                running: text("schedstat")?.split(' ').next()?.parse::<f64>().ok()? / 1e9,
            })
        };
        tasks.filter_map(|task| read(task.path())).collect()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal)
            .map_err(|e| self.failed(&e.to_string(), SOON))
    }

    /// Ends it in the ordinary way.
    fn end(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let ended =
            until("its end", || self.child.try_wait().ok().flatten()).map_err(|what| self.failed(&what, SOON))?;
        match (self.who, ended.success()) {
            (Who::Relaykey, false) => Err(self.failed(&format!("ended with {ended}, which took at most"), SOON)),
            _ => Ok(()),
        }
    }

    /// What went wrong, and what it said last.
    fn failed(&self, what: &str, limit: Duration) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(12).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!("{:?}: {what} {limit:?}; it said last:\n{}", self.who, last.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `NAME: 123 kB`, or without a unit.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// A service manager's socket: every message with its time.
fn listen(path: &Path) -> Result<mpsc::Receiver<(Instant, String)>> {
    let socket = UnixDatagram::bind(path).map_err(|e| said("make", path, &e))?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = socket.recv(&mut buffer) {
            if tell.send((Instant::now(), String::from_utf8_lossy(&buffer[..n]).into_owned())).is_err() {
                return;
            }
        }
    });
    Ok(told)
}

fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    while began.elapsed() < SOON {
        if let Some(value) = ready() {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("waited in vain for {what}, for"))
}

fn free_port() -> Result<u16> {
    let bound = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
    bound.map(|at| at.port()).map_err(|e| format!("no port on loopback: {e}"))
}

/// A key as IAM makes them, with the SMTP password that belongs to it.
fn new_login(number: u32) -> Result<Login> {
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

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)))
        .map_err(|e| said("write", path, &e))
}

fn said(doing: &str, path: &Path, e: &std::io::Error) -> String {
    format!("cannot {doing} {}: {e}", path.display())
}

/// Bytes of the Python packages that the poller needs, Python itself not counted.
fn packages(site_packages: &Path) -> Result<u64> {
    let mut all = 0;
    for name in ["boto3", "botocore", "s3transfer", "jmespath", "urllib3", "dateutil", "six.py"] {
        all += bytes(&site_packages.join(name)).map_err(|e| said("measure", &site_packages.join(name), &e))?;
    }
    Ok(all)
}

fn bytes(path: &Path) -> std::io::Result<u64> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| bytes(&entry?.path())).sum()
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

// ---------------------------------------------------------------- what came out

struct Figures {
    memory: Memory,
    most_threads: usize,
    /// Seconds of CPU time of one poll: its own, and its children's.
    poll_cpu: f64,
    poll_children: f64,
    poll_switches: f64,
    poll_took: Duration,
    /// Seconds of CPU time in an hour without a poll.
    idle_cpu: f64,
    /// In a minute without a poll.
    idle_switches: f64,
    start: Duration,
}

impl Figures {
    fn hour(&self) -> f64 {
        self.idle_cpu + POLLS_PER_HOUR * self.poll_cpu
    }

    fn hour_with_children(&self) -> f64 {
        self.hour() + POLLS_PER_HOUR * self.poll_children
    }

    fn switches_per_hour(&self) -> f64 {
        60.0 * self.idle_switches + POLLS_PER_HOUR * self.poll_switches
    }
}

struct Results {
    relaykey: Figures,
    poller: Figures,
    /// Bytes of the program, and of the poller's packages.
    size: u64,
    packages: u64,
    listening: Duration,
    adopted: Duration,
    /// Seconds of CPU time.
    scrape: f64,
    /// How often the watchdog was fed since the last start.
    watched: usize,
    /// Lines that Postfix wrote into its log meanwhile: each may wake relaykey, which follows it.
    lines: usize,
    rested: Duration,
}

/// One line of the table: what, relaykey's, the poller's, digits behind the point, what relaykey aims at.
struct Row {
    what: &'static str,
    key: &'static str,
    relaykey: f64,
    poller: Option<f64>,
    digits: usize,
    aim: Option<f64>,
}

impl Results {
    fn rows(&self) -> Vec<Row> {
        let both = |what, key, digits, aim, of: &dyn Fn(&Figures) -> f64| Row {
            what,
            key,
            relaykey: of(&self.relaykey),
            poller: Some(of(&self.poller)),
            digits,
            aim,
        };
        let alone = |what, key, digits, aim, relaykey| Row { what, key, relaykey, poller: None, digits, aim };
        let mib = |kb: u64| kb as f64 / 1024.0;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        vec![
            both("resident memory (RSS), MiB", "rss_mib", 2, Some(10.0), &|f| mib(f.memory.resident)),
            both("  of it anonymous, MiB", "rss_anonymous_mib", 2, None, &|f| mib(f.memory.anonymous)),
            both("proportional share (PSS), MiB", "pss_mib", 2, None, &|f| mib(f.memory.proportional)),
            both("most ever resident, MiB", "most_rss_mib", 2, None, &|f| mib(f.memory.most)),
            both("threads at rest", "threads", 0, Some(3.0), &|f| f.memory.threads.len() as f64),
            both("threads right after a poll", "threads_after_poll", 0, None, &|f| f.most_threads as f64),
            both("file descriptors", "descriptors", 0, None, &|f| f.memory.descriptors as f64),
            both("wake-ups a minute between polls", "wakes_per_minute", 2, Some(1.0), &|f| f.idle_switches),
            both("wake-ups an hour, with polls", "wakes_per_hour", 0, None, &Figures::switches_per_hour),
            both("CPU of one poll, ms", "poll_cpu_ms", 1, None, &|f| f.poll_cpu * 1000.0),
            both("  its children's, ms", "poll_children_cpu_ms", 1, None, &|f| f.poll_children * 1000.0),
            both("CPU an hour, s", "cpu_s_per_hour", 2, Some(1.0), &Figures::hour),
            both("  with children's, s", "cpu_s_per_hour_with_children", 2, None, &Figures::hour_with_children),
            both("one poll takes, ms", "poll_ms", 1, None, &|f| ms(f.poll_took)),
            both("start to ready, ms", "ready_ms", 1, Some(20.0), &|f| ms(f.start)),
            alone("start to listening, ms", "listening_ms", 1, None, ms(self.listening)),
            alone("first start of all (adoption), ms", "adoption_ms", 1, None, ms(self.adopted)),
            alone("CPU of one scrape of /metrics, ms", "scrape_cpu_ms", 2, None, self.scrape * 1000.0),
            Row {
                what: "program; packages, MiB",
                key: "size_mib",
                relaykey: self.size as f64 / 1_048_576.0,
                poller: Some(self.packages as f64 / 1_048_576.0),
                digits: 2,
                aim: Some(9.0),
            },
        ]
    }

    fn table(&self, options: &Options) -> String {
        let mut text = format!("{:<36} {:>9} {:>9} {:>7}  aim\n", "", "relaykey", "poller", "ratio");
        for row in self.rows() {
            let number = |value: f64| format!("{value:.*}", row.digits);
            let poller = row.poller.map(number).unwrap_or_default();
            let ratio = row.poller.filter(|p| *p > 0.0).map(|p| format!("{:.2}", row.relaykey / p)).unwrap_or_default();
            let aim = row.aim.map(|aim| format!("<= {aim}")).unwrap_or_default();
            let line = format!("{:<36} {:>9} {poller:>9} {ratio:>7}  {aim}", row.what, number(row.relaykey));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(text, "\nthreads of relaykey at rest: {}", names(&self.relaykey.memory.threads));
        let _ = write!(
            text,
            "at rest for {:.0} s, with {} new lines in the mail log; the watchdog was fed {} times since the start; {} polls, CPU time counted in {:.0} ms over all \
             of them; an hour has {POLLS_PER_HOUR} polls",
            self.rested.as_secs_f64(),
            self.lines,
            self.watched,
            options.polls,
            1000.0 / TICKS,
        );
        text
    }

    fn json(&self, options: &Options) -> String {
        let figures: BTreeMap<&str, Value> = self
            .rows()
            .iter()
            .map(|row| (row.key, json!({"relaykey": row.relaykey, "poller": row.poller, "aim": row.aim})))
            .collect();
        let document = json!({
            "schema": "relaykey/bench-idle/v1",
            "polls": options.polls,
            "starts": options.starts,
            "rested_seconds": self.rested.as_secs_f64(),
            "log_lines": self.lines,
            "polls_per_hour": POLLS_PER_HOUR,
            "threads": self.relaykey.memory.threads,
            "figures": figures,
        });
        format!("{document:#}")
    }
}

fn names(threads: &[String]) -> String {
    let names: Vec<String> = threads.iter().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}
