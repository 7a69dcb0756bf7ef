//! `relaykey run` with crowds at its doors, and through many configurations: the rollover goes on, whoever asks properly
//! is answered, and nothing is left behind in the process.

use crate::lab::postfix;
use crate::lab::relaykey as lab;

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::{DELIVERY, Host, Key, Program, Setup};
use postfix::{free_port, wait_for};
use relaykey::standin::Delay;
use rustix::process::{Resource, Rlimit, Signal};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Clients of HTTP, half of them slow; and as many again that send garbage to the control socket.
const CROWD: usize = 1000;
/// The longest that the daemon may take for a thing, crowd or no crowd.
const SOON: Duration = Duration::from_secs(30);
/// SES does not know a new key yet for this long, so that a crowd is there before, in and after the rollover.
const HELD: Duration = Duration::from_secs(4);
/// How much longer a rollover may take because of a crowd.
const DELAYED: Duration = Duration::from_secs(60);
/// The longest wait for an answer of somebody who asks properly, with the crowd before him.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory that may come and go from one crowd to the next, in KiB: what they leave in free lists differs by the moment.
const SLACK: u64 = 2048;

// ---------------------------------------------------------------- the daemon, measured

/// What the process has at a moment.
#[derive(Debug, Clone, Copy)]
struct Has {
    resident: u64,
    /// Its share of what it has in common with others: where another daemon comes or goes, this changes.
    proportional: u64,
    /// Data that no file is behind.
    anonymous: u64,
    descriptors: usize,
    threads: usize,
}

impl Has {
    fn of(pid: u32) -> Self {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
        let kilobytes = |name: &str| {
            let line = rollup.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
            line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
        };
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("its entries").count();
        Self {
            resident: kilobytes("Rss:"),
            proportional: kilobytes("Pss:"),
            anonymous: kilobytes("Anonymous:"),
            descriptors: count("fd"),
            threads: count("task"),
        }
    }

    /// Waits until threads and descriptors are as few as they were; `None`: until they have not changed for a while.
    #[track_caller]
    fn at_rest(pid: u32, before: Option<Has>) -> Self {
        let (mut last, mut since) = (Has::of(pid), Instant::now());
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let now = Has::of(pid);
            if (now.descriptors, now.threads) != (last.descriptors, last.threads) {
                (last, since) = (now, Instant::now());
            }
            let rests = match before {
                Some(before) => now.descriptors <= before.descriptors && now.threads <= before.threads,
                // Threads for what blocks end when they had nothing to do for ten seconds.
                None => since.elapsed() > Duration::from_secs(12),
            };
            if rests {
                return now;
            }
            assert!(Instant::now() < limit, "it does not come to rest: {now}, before {before:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl fmt::Display for Has {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Has { resident, proportional, descriptors, threads, .. } = self;
        write!(f, "RSS {resident} KiB, PSS {proportional} KiB, {descriptors} descriptors, {threads} threads")
    }
}

/// What its descriptors are of.
fn opened(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
    let mut all: Vec<String> =
        entries.filter_map(|e| Some(fs::read_link(e.path()).ok()?.to_string_lossy().into_owned())).collect();
    all.sort();
    all
}

/// A request at a loopback port.
fn ask(port: u16, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(SOON))?;
    converse(&mut stream, path)
}

/// The same at a Unix socket.
fn ask_at(socket: &Path, path: &str) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SOON))?;
    converse(&mut stream, path)
}

fn converse(stream: &mut (impl Read + Write), path: &str) -> io::Result<(u16, String)> {
    stream.write_all(request(path).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => Err(io::Error::other(format!("no HTTP: {answer:?}"))),
    }
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Waits until the document at this port shows something.
#[track_caller]
fn shows<T>(port: u16, what: &str, shown: impl Fn(&Value) -> Option<T>) -> T {
    let mut last = Value::Null;
    let began = Instant::now();
    loop {
        if let Ok((200, body)) = ask(port, "/status") {
            last = serde_json::from_str(&body).expect("JSON");
            if let Some(found) = shown(&last) {
                return found;
            }
        }
        assert!(began.elapsed() < SOON, "waited {SOON:?} in vain for {what}; the last status: {last:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every credential has been looked at, and nothing is under way.
fn looked(status: &Value) -> Option<()> {
    let all = status["credentials"].as_array().filter(|all| !all.is_empty())?;
    all.iter().all(|c| c["live"]["next_wake"].is_string() && c["live"]["step"].is_null()).then_some(())
}

/// As many file descriptors as a crowd takes.
fn many_descriptors() {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(8192, |most| most.min(8192)).max(now.current.unwrap_or(0));
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum })
        .expect("more file descriptors");
    assert!(wanted > 3 * CROWD as u64, "at most {wanted} file descriptors: see ulimit -Hn");
}

// ---------------------------------------------------------------- the crowd

/// Strangers at the doors of one daemon, on one thread. Dropped, they go.
struct Crowd {
    stop: Arc<AtomicBool>,
    counted: Arc<Counted>,
    thread: Option<JoinHandle<()>>,
}

/// What the strangers did.
#[derive(Default)]
struct Counted {
    /// Connections that were made, by door.
    http: AtomicUsize,
    control: AtomicUsize,
    /// How many stand at this moment.
    standing_http: AtomicUsize,
    standing_control: AtomicUsize,
    /// Fast clients: those that were answered.
    answered: AtomicUsize,
    /// And those that were not, although they asked properly.
    failed: AtomicUsize,
    /// The longest that one of them waited, in milliseconds.
    longest: AtomicUsize,
}

/// Where a daemon is reached.
#[derive(Clone)]
struct Doors {
    port: u16,
    /// HTTP on a Unix socket.
    health: PathBuf,
    control: PathBuf,
}

/// What is open, for as long as this lives.
struct Standing<'a>(&'a AtomicUsize);

impl<'a> Standing<'a> {
    fn new(made: &AtomicUsize, standing: &'a AtomicUsize) -> Self {
        made.fetch_add(1, Ordering::Relaxed);
        standing.fetch_add(1, Ordering::Relaxed);
        Self(standing)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crowd {
    /// So many clients of HTTP, every second one slow, and so many at the control socket.
    fn at(doors: &Doors, http: usize, control: usize) -> Self {
        let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(Counted::default()));
        let (doors, told, count) = (doors.clone(), stop.clone(), counted.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
            runtime.block_on(async move {
                let mut all = tokio::task::JoinSet::new();
                for n in 0..http {
                    all.spawn(at_http(n, doors.clone(), told.clone(), count.clone()));
                }
                for n in 0..control {
                    all.spawn(at_control(n, doors.control.clone(), told.clone(), count.clone()));
                }
                while !told.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                all.shutdown().await;
            });
        });
        Self { stop, counted, thread: Some(thread) }
    }

    /// Waits until everybody has come once.
    #[track_caller]
    fn is_there(&self, http: usize, control: usize) {
        wait_for("the crowd to have come", SOON, || {
            let come = |n: &AtomicUsize, all: usize| n.load(Ordering::Relaxed) >= all;
            (come(&self.counted.http, http) && come(&self.counted.control, control)).then_some(())
        });
    }

    fn standing(&self) -> (usize, usize) {
        let of = |n: &AtomicUsize| n.load(Ordering::Relaxed);
        (of(&self.counted.standing_http), of(&self.counted.standing_control))
    }

    /// Sends everybody away, and gives what they did.
    fn leaves(mut self) -> Arc<Counted> {
        self.end();
        self.counted.clone()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the crowd ends well");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |n: &AtomicUsize| n.load(Ordering::Relaxed);
        write!(
            f,
            "{} connections for HTTP, {} answered properly, {} not, the slowest after {} ms; {} to the control socket",
            of(&self.http),
            of(&self.answered),
            of(&self.failed),
            of(&self.longest),
            of(&self.control)
        )
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

/// One client of HTTP, again and again; every fourth comes to the Unix socket.
async fn at_http(n: usize, doors: Doors, stop: Arc<AtomicBool>, counted: Arc<Counted>) {
    const PATHS: [&str; 5] = ["/readyz", "/status", "/metrics", "/", "/livez"];
    let slow = n.is_multiple_of(2);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let connected: io::Result<Box<dyn Stream>> = match n % 8 {
            0 | 1 => tokio::net::UnixStream::connect(&doors.health).await.map(|s| Box::new(s) as _),
            _ => tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, doors.port)).await.map(|s| Box::new(s) as _),
        };
        let Ok(mut stream) = connected else {
            // The queue of a Unix socket is full for a moment.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _standing = Standing::new(&counted.http, &counted.standing_http);
        if slow {
            dawdle(n / 2, &mut stream).await;
            continue;
        }
        let mut answer = Vec::new();
        let asked = stream.write_all(request(PATHS[n / 2 % PATHS.len()]).as_bytes()).await.is_ok();
        let read = stream.read_to_end(&mut answer).await.is_ok();
        let proper = asked && read && (answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.1 503 "));
        let count = if proper { &counted.answered } else { &counted.failed };
        count.fetch_add(1, Ordering::Relaxed);
        let took = usize::try_from(began.elapsed().as_millis()).unwrap_or(usize::MAX);
        counted.longest.fetch_max(took, Ordering::Relaxed);
        drop(stream);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A slow client: until it is sent away.
async fn dawdle(n: usize, stream: &mut Box<dyn Stream>) {
    match n % 3 {
        // Says nothing.
        0 => {}
        // A byte now and then.
        1 => {
            for byte in b"GET /status HTTP/1.1\r\nHost: localhost\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // Asks, and reads nothing.
        _ => {
            let _ = stream.write_all(request("/metrics").as_bytes()).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            return;
        }
    }
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// One connection to the control socket after another, none of which says anything sensible, or hears the answer.
async fn at_control(n: usize, socket: PathBuf, stop: Arc<AtomicBool>, counted: Arc<Counted>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = tokio::net::UnixStream::connect(&socket).await else {
            // The queue is full.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _standing = Standing::new(&counted.control, &counted.standing_control);
        let said: &[u8] = match n % 6 {
            0 => b"",
            1 => &[0xff; 64],
            2 => b"{\"relaykey\":1,\"command\":\"sync\",\"names\":[",
            3 => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            4 => &[b'['; 40_000],
            // Proper, but the answer is not fetched.
            _ => b"{\"relaykey\":1,\"command\":\"status\"}\n",
        };
        let _ = stream.write_all(said).await;
        match n % 6 {
            5 => tokio::time::sleep(Duration::from_secs(1)).await,
            _ => drop(stream.read_to_end(&mut Vec::new()).await),
        }
        drop(stream);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

// ---------------------------------------------------------------- those who ask properly

/// Asks again and again until it is told to stop; gives how often, and the longest wait.
struct Asker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Duration)>,
}

impl Asker {
    fn start(mut ask: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut times, mut longest) = (0, Duration::ZERO);
            while !told.load(Ordering::Relaxed) {
                let began = Instant::now();
                ask();
                longest = longest.max(began.elapsed());
                times += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            (times, longest)
        });
        Self { stop, thread }
    }

    fn stop(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
    }
}

/// `relaykey` with the configuration of this host.
fn command(config: &Path, arguments: &[&str]) -> lab::Ran {
    let mut all = vec!["--config", config.to_str().expect("UTF-8")];
    all.extend(arguments);
    Program::start(&all, &[], b"").wait(lab::RUN)
}

// ---------------------------------------------------------------- crowds

/// Publishes a key that SES does not know for a while, and waits for the first mail under it; how long that took.
#[track_caller]
fn rollover(host: &Host, key: &Key) -> Duration {
    host.standin.set_key(&key.id, &key.login.password);
    let published = Instant::now();
    host.standin.delay(&key.id, Delay::Until(published + HELD));
    host.publish(key.pair());
    let limit = published + HELD + SOON;
    wait_for("the new key in the table", HELD + SOON, || {
        fs::read_to_string(host.postfix.table()).expect("a table").contains(&key.pair()).then_some(())
    });
    while host.send() != key.id {
        assert!(Instant::now() < limit + DELIVERY, "mail still goes out with another key");
    }
    assert!(published.elapsed() > HELD, "the rollover was to be held open");
    published.elapsed()
}

#[test]
fn a_crowd_holds_up_neither_a_rollover_nor_who_asks_and_leaves_nothing_behind() {
    many_descriptors();
    let keys: Vec<Key> = (0..4).map(|_| Key::new()).collect();
    let host = Host::new("hash", &keys[0]);
    host.start_postfix();
    let doors =
        Doors { port: free_port(), health: host.path("run/health.sock"), control: host.path("run/control.sock") };
    let source = host.publish(keys[0].pair()) + "poll = \"24h\"\n";
    let health = format!("[health]\nlisten = [\"127.0.0.1:{}\", {:?}]\n", doors.port, doors.health);
    let smtp = "retry = \"200ms\"\n";
    host.configure(&Setup { source: &source, smtp, more: &health, ..Setup::default() });
    let daemon = host.start(&["run"]);
    shows(doors.port, "the first look", looked);
    let pid = daemon.id();

    let alone = rollover(&host, &keys[1]);
    println!("without a crowd: mail under the new key after {alone:.2?}, {HELD:?} of it held");
    println!("at rest, before:     {}", Has::at_rest(pid, None));

    // The first crowd leaves its high-water mark; what is measured is whether another one adds to it.
    let mut rests: Option<Has> = None;
    for (n, key) in keys.iter().enumerate().skip(2) {
        let crowd = Crowd::at(&doors, CROWD, CROWD);
        crowd.is_there(CROWD, CROWD);
        let (port, socket) = (doors.port, doors.health.clone());
        let ready = Asker::start(move || {
            let (code, body) = ask(port, "/readyz").unwrap_or_else(|e| panic!("/readyz: {e}"));
            assert!(code == 200 || code == 503, "{code} {body}");
        });
        let quiet = Asker::start(move || {
            // Its queue may be full for a moment, which the kernel waits out for a client that blocks.
            let (code, body) = ask_at(&socket, "/livez").unwrap_or_else(|e| panic!("/livez: {e}"));
            assert_eq!(code, 200, "{body}");
        });
        let config = host.path("config.toml");
        let status = Asker::start(move || {
            let ran = command(&config, &["status", "--json"]);
            ran.expect(0);
            assert!(ran.json()["daemon"].is_object(), "the daemon did not answer: {}{}", ran.out, ran.err);
        });
        let mut highest = Has::of(pid);
        let standing = crowd.standing();
        let took = rollover(&host, key);
        let config = host.path("config.toml");
        let asked = Instant::now();
        command(&config, &["sync"]).expect(0).says(&["ses: up-to-date"]);
        let synced = asked.elapsed();
        highest.descriptors = highest.descriptors.max(Has::of(pid).descriptors);
        println!(
            "crowd {}: mail under the new key after {took:.2?}, {standing:?} connections stood when it began",
            n - 1
        );
        for (who, asker) in [("/readyz", ready), ("/livez at the Unix socket", quiet), ("relaykey status", status)] {
            let (times, longest) = asker.stop();
            println!("  {who}: asked {times} times, the longest wait {longest:.2?}");
            assert!(times > 0 && longest < PATIENCE, "{who}: {longest:?}");
        }
        println!("  relaykey sync: {synced:.2?}");
        assert!(synced < PATIENCE, "{synced:?}");
        println!("  in the crowd:      {highest}");
        let counted = crowd.leaves();
        println!("  {counted}");
        assert_eq!(counted.failed.load(Ordering::Relaxed), 0, "somebody who asked properly was sent away");
        assert!(counted.answered.load(Ordering::Relaxed) >= CROWD / 2, "fast clients were kept out");
        assert!(took < alone + DELAYED, "{took:?} with a crowd, {alone:?} without");
        let now = Has::at_rest(pid, rests);
        println!("  at rest, after it: {now}");
        if let Some(before) = rests {
            assert!(now.resident <= before.resident + SLACK, "memory grows: {before}, then {now}");
        }
        rests = Some(now);
    }
    host.relaykey(&["history", "--verify"]).expect(0);
    daemon.terminate();
    let ran = daemon.wait(lab::RUN * 10);
    ran.expect(0);
    println!("it logged {} bytes in {} lines", ran.err.len(), ran.err.lines().count());
    assert!(ran.err.len() < 64 * 1024, "logged without bound:\n{}", ran.err);
}

#[test]
fn polls_do_not_shorten_the_back_off() {
    let (old, bad) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    let port = free_port();
    let source = host.publish(old.pair()) + "poll = \"5s\"\n";
    let health = format!("[health]\nlisten = [\"127.0.0.1:{port}\"]\n");
    let smtp = "propagation = \"1s\"\nretry = \"200ms\"\n";
    host.configure(&Setup { source: &source, smtp, more: &health, ..Setup::default() });
    let daemon = host.start(&["run"]);
    shows(port, "the first look", looked);
    host.publish(bad.pair());
    shows(port, "the refusal", |s| (s["credentials"][0]["state"] == "refused").then(|| looked(s)).flatten());
    let logins = || host.standin.logins().iter().filter(|l| l.username == bad.id).count();
    let polls = |status: &Value| status["credentials"][0]["live"]["counters"]["wakes"]["timer"].as_u64().unwrap_or(0);
    let (tried, polled) = (logins(), shows(port, "the polls so far", |s| Some(polls(s))));
    shows(port, "three polls more", |s| (polls(s) >= polled + 3).then(|| looked(s)).flatten());
    assert_eq!(logins(), tried, "a refused key waits for more than a minute, not for the next poll");
    daemon.terminate();
    daemon.wait(lab::RUN * 10).expect(0);
}

// ---------------------------------------------------------------- large tables

/// What the systemd unit starts the daemon with.
const UNIT: &str = include_str!("../../systemd/relaykey.service");

/// Texts of less than 32 MiB are what glibc keeps by itself: see M_MMAP_THRESHOLD in mallopt(3).
#[test]
fn what_the_texts_of_large_tables_took_is_given_back() {
    let keys = [Key::new(), Key::new()];
    let host = Host::with("hash", |hop| {
        let others =
            (0..200_000).map(|n| format!("[relay{n:06}.customers.example.net]:587 user{n:06}:password-{n:06}\n"));
        Some(format!("{hop} {}\n{}", keys[0].pair(), others.collect::<String>()))
    });
    keys.iter().for_each(|key| host.standin.set_key(&key.id, &key.login.password));
    host.start_postfix();
    let text = fs::metadata(host.postfix.table()).expect("a table").len() / 1024;
    let port = free_port();
    let source = host.publish(keys[0].pair()) + "poll = \"5s\"\n";
    let health = format!("[health]\nlisten = [\"127.0.0.1:{port}\"]\n");
    host.configure(&Setup { source: &source, more: &health, ..Setup::default() });
    let config = host.path("config.toml");
    let environment: Vec<(&str, &str)> =
        UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('=')).collect();
    let daemon = Program::start(&["--config", config.to_str().expect("UTF-8"), "run"], &environment, b"");
    shows(port, "the first look", looked);
    host.publish(keys[1].pair());
    wait_for("the new key to be confirmed", SOON * 4, || {
        (host.state("ses")["applied"]["username"] == keys[1].id.as_str()).then_some(())
    });
    shows(port, "that it is at rest", looked);
    let pid = daemon.id();
    let kept = wait_for(&format!("most of {text} KiB of text to be given back"), SOON, || {
        Some(Has::of(pid).anonymous).filter(|kept| kept + 2048 < text)
    });
    println!("{kept} KiB are kept after a rollover in {text} KiB of text");
    daemon.terminate();
    daemon.wait(lab::RUN * 10).expect(0);
}

// ---------------------------------------------------------------- generations

#[test]
fn fifty_configurations_one_after_the_other_leave_nothing_behind() {
    many_descriptors();
    let key = Key::new();
    let host = Host::new("hash", &key);
    host.start_postfix();
    let table = fs::read_to_string(host.postfix.table()).expect("a table");
    let second = host.another("hash", &table);
    second.start();
    let (here, there) = (free_port(), free_port());
    let doors = Doors { port: here, health: host.path("run/health.sock"), control: host.path("run/control.sock") };
    let source = host.publish(key.pair());
    let write = |poll: &str, credentials: usize, listen: &str| {
        let setup = Setup { source: &format!("{source}poll = {poll:?}\n"), ..Setup::default() };
        let mut text = host.credential("ses", &setup, &[(&host.postfix, "")]);
        if credentials > 1 {
            text += &host.credential("other", &setup, &[(&second, "")]);
        }
        host.write_config(&format!("{text}[health]\nlisten = [{listen}]\n"));
    };
    let socket = format!("{:?}", doors.health);
    let (at_here, at_there) = (format!("\"127.0.0.1:{here}\""), format!("\"127.0.0.1:{there}\""));
    // Another poll, a credential more, another address, both addresses.
    let configurations = [
        ("24h", 1, format!("{at_here}, {socket}")),
        ("12h", 1, format!("{at_here}, {socket}")),
        ("12h", 2, format!("{at_here}, {socket}")),
        ("12h", 2, format!("{at_there}, {socket}")),
        ("24h", 1, format!("{at_here}, {at_there}, {socket}")),
    ];
    let take = |n: usize| {
        let (poll, credentials, listen) = &configurations[n % configurations.len()];
        write(poll, *credentials, listen);
    };
    take(0);
    let daemon = host.start(&["run"]);
    shows(here, "the first look", looked);
    let pid = daemon.id();
    let first = Has::at_rest(pid, None);
    println!("at the start: {first}: {:?}", opened(pid));

    // Through one of its two addresses it always says that it is alive, whatever the configuration is at the moment.
    let livez = Asker::start(move || {
        let began = Instant::now();
        loop {
            let answered = [here, there].into_iter().any(|port| matches!(ask(port, "/livez"), Ok((200, _))));
            if answered {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "/livez is refused for {:?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // The address that stays is never refused.
    let at_socket = doors.health.clone();
    let never_refused = Asker::start(move || {
        let (code, body) = ask_at(&at_socket, "/livez").unwrap_or_else(|e| panic!("/livez: {e}"));
        assert_eq!(code, 200, "{body}");
    });
    // The configuration itself is being written meanwhile, and not by rename.
    let config = host.path("config-of-the-one-who-asks.toml");
    fs::copy(host.path("config.toml"), &config).expect("copied");
    let status = Asker::start(move || {
        let ran = command(&config, &["status", "--json"]);
        ran.expect(0);
        assert!(ran.json()["daemon"].is_object(), "the daemon did not answer: {}{}", ran.out, ran.err);
    });
    let crowd = Crowd::at(&doors, 50, 20);
    let mut slowest = Duration::ZERO;
    let since = |status: &Value| status["daemon"]["config_since"].clone();
    let at_the_socket = || -> Value {
        let (_, body) = ask_at(&doors.health, "/status").expect("an answer");
        serde_json::from_str(&body).expect("JSON")
    };
    for n in 1..=50 {
        let before = since(&at_the_socket());
        // What is told of since when is in whole seconds.
        lab::next_second();
        take(n);
        let told = Instant::now();
        daemon.signal(Signal::HUP);
        wait_for("the configuration to be taken", SOON, || {
            let now = at_the_socket();
            let count = configurations[n % configurations.len()].1;
            let all = now["credentials"].as_array().is_some_and(|all| all.len() == count);
            (since(&now) != before && all).then(|| looked(&now)).flatten()
        });
        slowest = slowest.max(told.elapsed());
    }
    println!("50 configurations, the slowest taken and looked at after {slowest:.2?}");
    let asked = Instant::now();
    command(&host.path("config.toml"), &["sync"]).expect(0);
    println!("relaykey sync: {:.2?}", asked.elapsed());
    for (who, asker) in [("/livez, by TCP", livez), ("/livez, Unix", never_refused), ("relaykey status", status)] {
        let (times, longest) = asker.stop();
        println!("{who}: asked {times} times, the longest wait {longest:.2?}");
        assert!(longest < PATIENCE, "{who}: {longest:?}");
    }
    println!("{}", crowd.leaves());
    // With the same configuration as at the start.
    let now = Has::at_rest(pid, None);
    println!("at rest:      {now}");
    let open = opened(pid);
    assert!(now.descriptors <= first.descriptors && now.threads <= first.threads, "{first}, then {now}: {open:?}");
    // And fifty more told at once.
    for n in 0..50 {
        take(n);
        daemon.signal(Signal::HUP);
    }
    take(50);
    daemon.signal(Signal::HUP);
    wait_for("the last configuration", SOON, || {
        let now = at_the_socket();
        looked(&now).filter(|()| now["credentials"].as_array().is_some_and(|all| all.len() == 1))
    });
    let after = Has::at_rest(pid, None);
    println!("50 at once:   {after}");
    assert!(after.resident <= now.resident + SLACK, "{now}, {after}");
    assert!(after.descriptors <= now.descriptors && after.threads <= now.threads, "{now}, then {after}");
    host.relaykey(&["history", "--verify"]).expect(0);
    daemon.terminate();
    daemon.wait(lab::RUN * 10).expect(0);
    assert!(!doors.control.exists() && !doors.health.exists(), "it leaves no socket behind");
}
