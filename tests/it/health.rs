//! The health endpoints over real sockets: what they answer, to whom, and what strangers cannot do to them.

use crate::lab::health as lab;
use crate::lab::scratch;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use lab::{ANSWER, Answer, Host, STATES, Server, converse, failure, program, retry, spoil};
use relaykey::config::{self, Listen};
use relaykey::health::{self, AT_ONCE, HostAllowList, HttpListener, ListenError, OpenedPlaces};
use relaykey::status::Status;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn fine() -> Status {
    Host::fine(&["ses"]).status()
}

fn spoilt(state: &str) -> Status {
    let mut host = Host::fine(&["ses"]);
    spoil(&mut host, state);
    host.status()
}

// ---------------------------------------------------------------- endpoints

#[test]
fn each_path_answers_with_its_kind_of_document() {
    let server = Server::start(fine());
    for (path, kind, holds) in [
        ("/livez", "text/plain; charset=utf-8", "ok\n"),
        ("/readyz", "text/plain; charset=utf-8", "ok\n"),
        ("/readyz/ses", "text/plain; charset=utf-8", "ok\n"),
        ("/status", "application/json", "\"schema\": \"relaykey/status/v1\""),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "relaykey_ready{credential=\"ses\"} 1"),
        ("/", "text/html; charset=utf-8", "<h1>Everything is fine.</h1>"),
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some(kind)), "{path}");
        assert!(answer.body.contains(holds), "{path}: {}", answer.body);
        let head = server.request("HEAD", path, &format!("Host: {}\r\n", server.address()));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "HEAD {path}");
        assert_eq!(head.header("Content-Length"), Some(answer.body.len().to_string().as_str()), "HEAD {path}");
    }
}

#[test]
fn readiness_goes_with_each_reason_and_comes_back() {
    let server = Server::start(fine());
    for (state, _) in STATES {
        server.set(spoilt(state));
        let class = lab::class(state);
        for path in ["/readyz", "/readyz/ses"] {
            let answer = server.get(path);
            assert_eq!(answer.status, 503, "{state}: {}", answer.body);
            assert!(answer.body.contains(&format!("ses: {class}: ")), "{state}: {}", answer.body);
            for reason in answer.body.lines().collect::<Vec<_>>().chunks(2) {
                assert!(reason[0].starts_with("ses: ") && reason[1].starts_with("  fix: "), "{state}: {reason:?}");
                assert!(reason[1].len() > "  fix: ".len(), "{state}: no fix in {reason:?}");
            }
        }
        assert_eq!(server.get("/livez").status, 200, "{state}: alive all the same");
        assert_eq!(server.get("/status").status, 200, "{state}");
        server.set(fine());
        assert_eq!((server.get("/readyz").status, server.get("/readyz/ses").status), (200, 200), "after {state}");
    }
}

/// What is to be done about a login that could not be put back is said once, whatever words it is said in, and that relaykey goes on
/// trying where it does.
#[test]
fn what_to_do_about_a_login_that_was_not_put_back_is_said_once() {
    use relaykey::rollover::InUse;
    for (fix, temporary) in [
        ("find out what writes the table; then put the login of the old key back by hand", false),
        ("see whether the old key is still active", false),
        ("nothing: it is tried again", true),
    ] {
        let mut host = Host::fine(&["ses"]);
        host.manual(None, "wait").held();
        let now = host.now;
        let mut why =
            failure("drift", "the mail server no longer holds the login that this host had confirmed", fix, now);
        why.temporary = temporary;
        host.first().put_back = retry(why);
        let target = host.target();
        target.live_id = Some("old".into());
        target.in_use = Some(InUse { at: now, usernames: vec!["AKIASTRANGER".into()], live_id: Some("other".into()) });
        let page = Server::start(host.status()).get("/").body;
        let (goes_on, again) = (page.contains("puts its login back within about an hour"), format!("; then {fix}"));
        assert!(page.contains(fix) && !page.contains(&again) && goes_on == temporary, "{fix}: {page}");
    }
}

#[test]
fn one_credential_is_asked_for_by_its_name() {
    let mut host = Host::fine(&["bulk", "ses"]);
    spoil(&mut host, "drift");
    let server = Server::start(host.status());
    assert_eq!(server.get("/readyz").status, 503);
    assert_eq!(server.get("/readyz/bulk").status, 503);
    assert_eq!(server.get("/readyz/ses").status, 200);
    let other = server.get("/readyz/sess");
    assert_eq!(
        (other.status, other.body.as_str()),
        (404, "there is no credential of that name; there is: bulk, ses\n")
    );
}

#[test]
fn the_status_is_the_document_itself_and_follows_it() {
    let server = Server::start(fine());
    let of = |server: &Server| serde_json::from_str::<Value>(&server.get("/status").body).expect("JSON");
    let given = of(&server);
    let parsed: Status = serde_json::from_value(given.clone()).expect("it reads its own document");
    assert_eq!(parsed.credentials[0].name, "ses");
    assert_eq!(given["schema"], "relaykey/status/v1");
    assert_eq!(given["credentials"][0]["state"], "up-to-date");
    server.set(spoilt("refused"));
    assert_eq!(of(&server)["credentials"][0]["state"], "refused");
}

#[test]
fn nothing_but_get_and_head_is_taken() {
    let server = Server::start(fine());
    let host = format!("Host: {}\r\n", server.address());
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for path in ["/", "/livez", "/readyz/ses", "/status", "/metrics"] {
            let answer = server.request(method, path, &format!("{host}Content-Length: 0\r\n"));
            assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET,HEAD")), "{method} {path}");
        }
    }
    for path in ["/nothing", "/readyz/ses/more", "/status/", "/favicon.ico", "//", "/readyz/%ff"] {
        let answer = server.get(path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    assert!(server.get("/nothing").body.contains("/readyz/NAME"), "the paths are named");
}

#[test]
fn every_answer_tells_the_browser_to_be_careful() {
    let server = Server::start(fine());
    let host = format!("Host: {}\r\n", server.address());
    let answers = [
        server.get("/"),
        server.get("/livez"),
        server.get("/status"),
        server.get("/metrics"),
        server.get("/nothing"),
        server.request("POST", "/status", &host),
        server.request("GET", "/", "Host: evil.example\r\n"),
        server.request("GET", "/status", &format!("{host}Origin: https://evil.example\r\n")),
    ];
    for answer in answers {
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        assert_eq!(answer.header("X-Frame-Options"), Some("DENY"));
        let policy = answer.header("Content-Security-Policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("script"), "{policy}");
        assert!(!answer.head.to_lowercase().contains("access-control-"), "{}", answer.head);
    }
}

// ---------------------------------------------------------------- who asks

#[test]
fn only_names_of_this_host_are_answered() {
    let server = Server::start(fine());
    let port = server.address().port();
    let ours = ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "mx1.example.com", "monitor.example.com"];
    for name in ours {
        for host in [name.to_owned(), format!("{name}:{port}"), format!("{name}:8080")] {
            assert_eq!(server.request("GET", "/status", &format!("Host: {host}\r\n")).status, 200, "{host}");
        }
    }
    let others =
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "xlocalhost", "127.0.0.2", "[::1]", ""];
    let others = others.map(|name| format!("Host: {name}\r\n"));
    let malformed = ["", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost:x\r\n", "Host: a@localhost\r\n"];
    for headers in others.iter().map(String::as_str).chain(malformed) {
        for path in ["/", "/livez", "/nothing"] {
            let answer = server.request("GET", path, headers);
            assert_eq!(answer.status, 421, "{headers:?}: {}", answer.body);
            assert!(answer.body.contains("add the name to hosts in [health]"), "{}", answer.body);
        }
    }
    // The target of a request names a host too.
    assert_eq!(server.request("GET", "http://evil.example/status", "Host: localhost\r\n").status, 421);
    assert_eq!(server.request("GET", "http://localhost/livez", "Host: localhost\r\n").status, 200);
}

#[test]
fn where_every_address_is_listened_at_the_one_that_was_reached_is_a_name_too() {
    let server = Server::at(vec![Listen::Tcp(([0, 0, 0, 0], 0).into())], &[], fine());
    let port = server.address().port();
    let ask = |ip: [u8; 4], host: &str| {
        let mut stream = TcpStream::connect(SocketAddr::from((ip, port))).expect("connects");
        converse(&mut stream, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).status
    };
    assert_eq!(ask([127, 0, 0, 3], &format!("127.0.0.3:{port}")), 200);
    assert_eq!(ask([127, 0, 0, 3], "127.0.0.4"), 421);
    assert_eq!(ask([127, 0, 0, 3], "evil.example"), 421);
}

// ---------------------------------------------------------------- places to listen at

fn at(places: &[Listen]) -> config::Health {
    config::Health { listen: places.to_vec(), hosts: Vec::new() }
}

fn unix(path: &Path) -> config::Health {
    at(&[Listen::Unix(path.to_owned())])
}

#[test]
fn a_unix_socket_keeps_strangers_out_and_takes_any_name() {
    let dir = scratch::private("health");
    let path = dir.path().join("health.sock");
    let mut server = Server::at(vec![Listen::Unix(path.clone())], &[], fine());
    let found = fs::symlink_metadata(&path).expect("there");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    for headers in ["", "Host: evil.example\r\n", "Host: localhost\r\n"] {
        let mut stream = UnixStream::connect(&path).expect("connects");
        let answer = converse(&mut stream, &format!("GET /readyz HTTP/1.1\r\n{headers}\r\n"));
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{headers:?}");
    }
    server.stop();
    assert!(!path.exists(), "it goes with the server");
}

/// Every place is listened at.
fn opened(health: &config::Health, held: &[HttpListener]) -> Vec<HttpListener> {
    let OpenedPlaces { listeners, failed } = health::open(Some(health), held);
    assert!(failed.is_empty(), "{failed:?}");
    listeners
}

/// Why no place can be listened at; a look says the same.
fn failed(health: &config::Health) -> Vec<ListenError> {
    let OpenedPlaces { listeners, failed } = health::open(Some(health), &[]);
    assert!(listeners.is_empty(), "{listeners:?}");
    for (place, e) in &failed {
        assert_eq!(e.place().as_ref(), Some(place));
        assert_eq!(
            health::look(place, Path::new("/nowhere")).expect_err("cannot be listened at").to_string(),
            e.to_string()
        );
    }
    failed.into_iter().map(|(_, e)| e).collect()
}

#[test]
fn only_a_socket_that_nobody_listens_at_is_replaced() {
    let dir = scratch::private("health");
    let path = dir.path().join("health.sock");
    let fails = |health: &config::Health| {
        let mut errors = failed(health);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let error = errors.remove(0);
        assert!(error.to_string().contains(path.to_str().expect("text")), "{error}");
        assert!(!error.fix().is_empty(), "{error}");
        error
    };
    fs::write(&path, "precious").expect("written");
    assert!(matches!(fails(&unix(&path)), ListenError::NotASocket { .. }));
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    fs::remove_file(&path).expect("removed");

    let other = UnixListener::bind(&path).expect("binds");
    assert!(matches!(fails(&unix(&path)), ListenError::Taken { .. }));
    assert!(UnixStream::connect(&path).is_ok(), "the other one still listens");
    drop(other);
    assert!(
        health::look(&Listen::Unix(path.clone()), Path::new("/nowhere")).is_ok() && path.exists(),
        "a look changes nothing"
    );
    let opened = opened(&unix(&path), &[]);
    assert!(UnixStream::connect(&path).is_ok());
    drop(opened);
    assert!(!path.exists());

    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("set");
    assert!(matches!(fails(&unix(&path)), ListenError::Directory { .. }));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("set");
}

#[test]
fn a_path_that_is_too_long_is_said_to_be() {
    let dir = scratch::private("health");
    let path = dir.path().join("x".repeat(120));
    let errors = failed(&unix(&path));
    assert!(
        health::look(&Listen::Unix(path), Path::new("/nowhere")).expect_err("too long").fix().contains("107 bytes")
    );
    assert!(errors[0].fix().contains("107 bytes"), "{}", errors[0].fix());
}

#[test]
fn of_several_places_those_that_are_free_are_listened_at() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("says so");
    let dir = scratch::private("health");
    let path = dir.path().join("health.sock");
    let places = at(&[Listen::Tcp(address), Listen::Unix(path.clone())]);
    let first = health::open(Some(&places), &[]);
    assert_eq!((first.listeners.len(), first.failed.len()), (1, 1), "{first:?}");
    assert!(UnixStream::connect(&path).is_ok());
    drop(taken);
    assert_eq!(opened(&places, &first.listeners).len(), 2);
}

#[test]
fn an_address_that_is_taken_is_an_error_with_its_fix() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("says so");
    let elsewhere: SocketAddr = "192.0.2.1:9465".parse().expect("an address");
    let errors = failed(&at(&[Listen::Tcp(address), Listen::Tcp(elsewhere)]));
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].to_string().contains(&address.to_string()), "{}", errors[0]);
    assert!(errors[0].fix().contains(&format!("ss -ltnp 'sport = :{}'", address.port())), "{}", errors[0].fix());
    assert!(errors[1].fix().contains("192.0.2.1 is no address of this host"), "{}", errors[1].fix());
}

/// A changed configuration: what stays is not closed in between, what is new is added, what is gone is closed.
#[test]
fn a_place_that_stays_in_the_configuration_stays_open() {
    let dir = scratch::private("health");
    let (first, second) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
    let before = opened(&unix(&first), &[]);
    let waiting = UnixStream::connect(&first).expect("waits in the queue");
    let both = at(&[Listen::Unix(first.clone()), Listen::Unix(second.clone())]);
    let after = opened(&both, &before);
    assert_eq!(after.len(), 2);
    drop(before);
    assert!(first.exists() && second.exists());
    let only = opened(&unix(&first), &after);
    drop(after);
    assert!(first.exists() && !second.exists());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let asked = std::thread::spawn(move || {
        let mut waiting = waiting;
        let answer = converse(&mut waiting, "GET /livez HTTP/1.1\r\n\r\n");
        let _ = stop.send(true);
        answer.status
    });
    runtime.block_on(health::serve(&only, 1, documents(fine()), HostAllowList::default(), stopped)).expect("serves");
    assert_eq!(asked.join().expect("asked"), 200, "who came before the change is answered after it");
}

fn documents(status: Status) -> health::Documents {
    let status = std::sync::Arc::new(status);
    std::sync::Arc::new(move || std::sync::Arc::clone(&status))
}

// ---------------------------------------------------------------- a server in a process of its own

/// Not a test by itself: what the tests below start as another process, to see its memory, its descriptors and its sleep.
/// Says its port, and serves until its standard input ends; takes all its descriptors at an `f` there, and gives them
/// back at an `r`.
#[test]
fn serves_for_another_test() {
    if std::env::var_os("HEALTH_SERVES").is_none() {
        return;
    }
    let inherits = std::env::var_os("HEALTH_INHERITS").is_some();
    let mut host = Host::fine(&["ses", "bulk"]);
    spoil(&mut host, "refused");
    if inherits {
        let (listeners, unusable) = health::inherited();
        assert!(unusable.is_empty(), "{unusable:?}");
        let kept = health::open(None, &listeners).listeners;
        println!("inherited {}", kept.len());
        serve_until_end_of_input(&kept, host.status());
        return;
    }
    let place = at(&[Listen::Tcp(([127, 0, 0, 1], 0).into())]);
    let listeners = opened(&place, &[]);
    println!("port {}", listeners[0].address().expect("says so").expect("TCP").port());
    serve_until_end_of_input(&listeners, host.status());
}

fn serve_until_end_of_input(listeners: &[health::HttpListener], status: Status) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for byte in std::io::stdin().lock().bytes().map_while(Result::ok) {
            match byte {
                // Takes every descriptor that there is.
                b'f' => held.extend(std::iter::from_fn(|| fs::File::open("/dev/null").ok())),
                _ => held.clear(),
            }
        }
        let _ = stop.send(true);
    });
    runtime
        .block_on(health::serve(listeners, listeners.len(), documents(status), HostAllowList::new(None, []), stopped))
        .expect("serves");
}

/// The test above, in another process.
struct Process {
    child: Child,
    /// Held open: its harness has a last line to say.
    _stdout: BufReader<ChildStdout>,
    said: String,
}

impl Process {
    fn start(command: &mut Command, expect: &str) -> Self {
        let mut child = command
            .args(["--exact", "health::serves_for_another_test", "--nocapture", "--test-threads=1"])
            .env("HEALTH_SERVES", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        // The harness may have begun the line.
        let found = stdout.by_ref().lines().map_while(Result::ok).find_map(|l| Some(l[l.find(expect)?..].to_owned()));
        let said = found.unwrap_or_else(|| panic!("it never said {expect:?}"));
        Self { child, _stdout: stdout, said }
    }

    fn on_a_port() -> (Self, SocketAddr) {
        let process = Self::start(&mut Command::new(std::env::current_exe().expect("known")), "port ");
        let port: u16 = process.said["port ".len()..].trim().parse().expect("a port");
        (process, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    fn kilobytes(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).expect("it runs").count()
    }

    /// Times that it has gone to sleep, all threads together.
    fn sleeps(&self) -> u64 {
        let tasks = fs::read_dir(self.proc("task")).expect("it runs").map(|t| t.expect("listed").path());
        let of = |task: PathBuf| {
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap_or("0").trim();
            line.parse::<u64>().expect("a number")
        };
        tasks.map(of).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let end = Instant::now() + ANSWER;
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(address: SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(ANSWER)).expect("set");
    converse(&mut stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// Until it is so, or the time is over.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// ---------------------------------------------------------------- strangers

/// What a stranger may do with a connection besides asking properly.
#[derive(Clone, Copy, Debug)]
enum Slow {
    /// Says nothing.
    Silent,
    /// A byte now and then.
    Drips,
    /// Asks for the largest document, again and again on new connections, and reads none of it.
    NeverReads,
}

async fn slow(address: SocketAddr, how: Slow, end: Instant) {
    while Instant::now() < end {
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { continue };
        match how {
            Slow::Silent => {}
            Slow::Drips => {
                for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: " {
                    if stream.write_all(&[*byte]).await.is_err() || Instant::now() > end {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Slow::NeverReads => {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        }
        // Until it is thrown out.
        let left = end.saturating_duration_since(Instant::now());
        let _ = tokio::time::timeout(left, stream.read(&mut [0; 16])).await;
    }
}

async fn fast(address: SocketAddr) -> (u16, Duration) {
    let begun = Instant::now();
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("answered");
    (Answer::parse(&bytes).status, begun.elapsed())
}

#[test]
fn five_hundred_slow_clients_do_not_keep_five_hundred_fast_ones_out() {
    let (server, address) = Process::on_a_port();
    for path in ["/", "/status", "/metrics", "/readyz"] {
        ask(address, path);
    }
    // The first rush leaves its high-water mark; what is measured is whether a second one adds to it.
    let mut memory = Vec::new();
    let resting = server.descriptors();
    for round in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
        let most = runtime.block_on(async {
            let end = Instant::now() + Duration::from_secs(60);
            let mut strangers = tokio::task::JoinSet::new();
            for n in 0..500 {
                strangers.spawn(slow(address, [Slow::Silent, Slow::Drips, Slow::NeverReads][n % 3], end));
            }
            // The slow ones stand in the queue first.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut asking = tokio::task::JoinSet::new();
            for _ in 0..500 {
                asking.spawn(fast(address));
            }
            let (mut longest, mut most) = (Duration::ZERO, 0);
            while let Some(asked) = asking.join_next().await {
                let (status, took) = asked.expect("asked");
                assert_eq!(status, 200);
                longest = longest.max(took);
                most = most.max(server.descriptors());
            }
            println!("round {round}: 500 answers, the longest after {longest:?}; at most {most} descriptors");
            assert!(longest < Duration::from_secs(8), "{longest:?}");
            strangers.shutdown().await;
            most
        });
        assert!(most <= resting + AT_ONCE + 2, "{most} descriptors at once, {resting} at rest");
        until("every connection is over", || server.descriptors() <= resting);
        assert_eq!(ask(address, "/livez").status, 200);
        memory.push(server.kilobytes());
    }
    println!("memory after each round: {memory:?} KiB");
    assert!(memory[1] <= memory[0] + 1024, "{memory:?} KiB");
}

/// How long half of some requests for `/livez` took at most, one after the other, while strangers keep the queue full: only
/// those count that were made while all strangers still stood there. Of a busy machine some are slow anyhow; who waits for
/// strangers makes each of them slow.
fn probes_among(address: SocketAddr, strangers: usize, how: &[Slow]) -> Duration {
    let end = Instant::now() + Duration::from_secs(60);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let how = how.to_vec();
    let crowd = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
        runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            for n in 0..strangers {
                all.spawn(slow(address, how[n % how.len()], end));
            }
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            all.shutdown().await;
        });
    });
    // The slow ones stand in the queue first.
    std::thread::sleep(Duration::from_millis(500));
    let ask_once = |_| {
        let begun = Instant::now();
        assert_eq!(ask(address, "/livez").status, 200);
        begun.elapsed()
    };
    let enough = Instant::now() + Duration::from_secs(30);
    let mut all: Vec<Duration> = (0..40).take_while(|_| Instant::now() < enough).map(ask_once).collect();
    all.sort();
    drop(stop);
    crowd.join().expect("the strangers are gone");
    all[all.len() / 2]
}

#[test]
fn who_is_slow_delays_no_probe() {
    let (_server, address) = Process::on_a_port();
    ask(address, "/");
    for how in
        [&[Slow::Silent][..], &[Slow::Drips], &[Slow::NeverReads], &[Slow::Silent, Slow::Drips, Slow::NeverReads]]
    {
        let half = probes_among(address, 900, how);
        println!("900 clients {how:?}: half of 40 probes took {half:?} at most");
        assert!(half < Duration::from_millis(2500), "{how:?}: {half:?}");
    }
}

#[test]
fn a_slow_client_is_shown_out_in_the_end_even_if_nobody_waits() {
    let server = Server::start(fine());
    let begun = Instant::now();
    let mut streams: Vec<TcpStream> = ["", "GET / HT", "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "]
        .iter()
        .map(|start| {
            let mut stream = TcpStream::connect(server.address()).expect("connects");
            stream.write_all(start.as_bytes()).expect("sent");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
            stream
        })
        .collect();
    for stream in &mut streams {
        // An answer such as 408 or none: then the end.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[test]
fn garbage_and_enormous_heads_are_turned_away_and_nobody_is_hurt() {
    let (server, address) = Process::on_a_port();
    ask(address, "/");
    let (resting, before) = (server.descriptors(), server.kilobytes());
    let enormous = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: {}\r\n\r\n", "a".repeat(1 << 20));
    let many: String = (0..5000).map(|n| format!("X-{n}: y\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000));
    let body = format!(
        "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n{}",
        "b".repeat(1 << 20)
    );
    let chunked = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
    let both = "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let tls = "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}";
    let texts = [
        enormous.as_str(),
        &many,
        &long,
        &body,
        chunked,
        both,
        tls,
        "\0\0\0\0",
        "GET\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for round in 0..20 {
        for text in texts {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.set_read_timeout(Some(ANSWER)).expect("set");
            stream.set_write_timeout(Some(ANSWER)).expect("set");
            // It may be shown out before it has said all.
            let _ = stream.write_all(text.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let head = String::from_utf8_lossy(&answer);
            assert!(
                !head.starts_with("HTTP/1.1 200") || text == both,
                "round {round}: {:?}: {head}",
                &text[..text.len().min(60)]
            );
        }
        assert_eq!(ask(address, "/livez").status, 200);
    }
    until("every connection is over", || server.descriptors() <= resting);
    let after = server.kilobytes();
    assert!(after <= before + 2048, "{before} KiB before, {after} KiB after");
}

/// Under a limit of this many descriptors.
fn with_few_descriptors(limit: usize) -> (Process, SocketAddr) {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]);
    shell.arg(std::env::current_exe().expect("known"));
    let server = Process::start(&mut shell, "port ");
    let port: u16 = server.said["port ".len()..].trim().parse().expect("a port");
    (server, SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn a_crowd_that_uses_up_the_descriptors_is_thinned_out() {
    let (server, address) = with_few_descriptors(24);
    let crowd: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).expect("connects")).collect();
    assert_eq!(ask(address, "/livez").status, 200);
    drop((crowd, server));
}

#[test]
fn without_descriptors_it_waits_and_comes_back() {
    let (mut server, address) = with_few_descriptors(24);
    assert_eq!(ask(address, "/livez").status, 200, "it serves");
    let mut last = 0;
    until("it rests", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = server.descriptors();
        std::mem::replace(&mut last, now) == now
    });
    let mut stdin = server.child.stdin.take().expect("piped");
    stdin.write_all(b"f").expect("told");
    until("its descriptors are used up", || server.descriptors() >= 24);
    let waiting: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).expect("waits in the queue")).collect();
    // In hundredths of a second.
    let worked = || {
        let stat = fs::read_to_string(server.proc("stat")).expect("it runs");
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
        fields.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>()
    };
    let (worked_before, slept_before) = (worked(), server.sleeps());
    std::thread::sleep(Duration::from_secs(2));
    let (work, sleeps) = (worked() - worked_before, server.sleeps() - slept_before);
    assert!(work < 20 && sleeps < 30, "{work} hundredths of a second of work, woken {sleeps} times, within 2 s");
    stdin.write_all(b"r").expect("told");
    drop(waiting);
    until("it comes back", || {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200 ")
    });
    server.child.stdin = Some(stdin);
}

#[test]
fn idle_it_sleeps() {
    let (server, address) = Process::on_a_port();
    assert_eq!(ask(address, "/status").status, 200);
    let resting = server.descriptors();
    until("the connection is over", || server.descriptors() <= resting);
    // Time-outs of connections that are over may still be due once.
    let mut last = server.sleeps();
    until("nothing is left to do", || {
        std::thread::sleep(Duration::from_secs(1));
        let now = server.sleeps();
        std::mem::replace(&mut last, now) == now
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.sleeps(), last, "it woke up with nothing to do");
}

// ---------------------------------------------------------------- sockets of the service manager

#[test]
fn sockets_that_the_service_manager_opened_are_taken_over() {
    let dir = scratch::private("health");
    let path = dir.path().join("activated.sock");
    let listener = UnixListener::bind(&path).expect("binds");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = tcp.local_addr().expect("says so");
    // Python passes descriptors on by number, and `exec` keeps the process id that LISTEN_PID has to name.
    let script = "import os,sys\n\
                  a,b=map(int,sys.argv[1:3])\n\
                  a=os.dup(a) if a<5 else a\n\
                  b=os.dup(b) if b<5 else b\n\
                  os.dup2(a,3); os.dup2(b,4)\n\
                  os.environ['LISTEN_FDS']='2'; os.environ['LISTEN_PID']=str(os.getpid())\n\
                  os.execv(sys.argv[3],sys.argv[3:])\n";
    let python = program("python3", "python3");
    let fds: Vec<String> = [keep(&listener), keep(&tcp)].iter().map(ToString::to_string).collect();
    let mut command = Command::new(python);
    command.args(["-c", script]).args(&fds).arg(std::env::current_exe().expect("known")).env("HEALTH_INHERITS", "1");
    let server = Process::start(&mut command, "inherited ");
    assert_eq!(server.said.trim(), "inherited 2");
    drop((listener, tcp));
    assert_eq!(ask(address, "/livez").status, 200);
    let mut stream = UnixStream::connect(&path).expect("connects");
    assert_eq!(converse(&mut stream, "GET /livez HTTP/1.1\r\n\r\n").status, 200);
    drop((stream, server));
    assert!(path.exists(), "its file is the service manager's");
}

/// Lets children have it.
fn keep(socket: &impl std::os::fd::AsFd) -> i32 {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).expect("set");
    std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd())
}

// ---------------------------------------------------------------- numbers

fn promtool(args: &[&str], input: Option<&str>) {
    let mut child = Command::new(program("promtool", "prometheus"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    child.stdin.take().expect("piped").write_all(input.unwrap_or_default().as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {args:?}: {said}\n{}", input.unwrap_or_default());
    // It ends well where it has only complaints, too.
    assert!(input.is_none() || said.is_empty(), "promtool {args:?}: {said}");
}

#[test]
fn prometheus_takes_the_numbers_of_every_state_without_complaint() {
    let server = Server::start(fine());
    promtool(&["check", "metrics"], Some(&server.get("/metrics").body));
    for (state, _) in STATES {
        let mut host = Host::fine(&["ses", "bulk"]);
        spoil(&mut host, state);
        lab::policy_notice(&mut host);
        lab::config_refused(&mut host);
        host.lives[0].counters.failures = [("network".to_owned(), 3), ("smtp".to_owned(), 1)].into();
        host.lives[0].counters.alarms = [("policy".to_owned(), 2)].into();
        server.set(host.status());
        let body = server.get("/metrics").body;
        promtool(&["check", "metrics"], Some(&body));
        for line in [
            "relaykey_ready{credential=\"ses\"} 0.0",
            "relaykey_ready{credential=\"bulk\"} 1.0",
            "relaykey_config_refused 1.0",
            "relaykey_step_failures_total{credential=\"ses\",class=\"network\"} 3",
            "relaykey_mail_log_alarms_total{credential=\"ses\",kind=\"policy\"} 2",
            "relaykey_wakes_total{credential=\"ses\",cause=\"timer\"} 412",
            "relaykey_credential_info{credential=\"ses\",source=\"secrets-manager\"} 1.0",
        ] {
            assert!(body.lines().any(|l| l == line), "{state}: no {line} in\n{body}");
        }
        let class = lab::class(state);
        let reason = format!("relaykey_not_ready{{credential=\"ses\",class=\"{class}\"}} 1.0");
        assert!(body.lines().any(|l| l == reason), "{state}: no {reason} in\n{body}");
    }
}

/// Since when somebody is waited for is told while it is so, and only where nothing else lets the key go.
#[test]
fn numbers_tell_since_when_a_person_is_waited_for() {
    let lines = |host: Host| {
        let server = Server::start(host.status());
        let body = server.get("/metrics").body;
        let of = |name: &str| body.lines().find(|l| l.starts_with(name)).map(str::to_owned);
        let at = |hours: i64| lab::hours(host.now, hours).as_second();
        [
            ("relaykey_waits_for_person_since_timestamp_seconds{", 26),
            ("relaykey_rejected_timestamp_seconds{", 3),
            ("relaykey_left_timestamp_seconds{", 5),
        ]
        .map(|(name, hours)| of(name).map(|line| line.replace(&format!(" {}.0", at(hours)), " then")))
    };
    let waits = |class: &str| {
        Some(format!("relaykey_waits_for_person_since_timestamp_seconds{{credential=\"ses\",class=\"{class}\"}} then"))
    };
    let rejected = Some("relaykey_rejected_timestamp_seconds{credential=\"ses\"} then".to_owned());
    for (state, waits, rejected) in [
        ("pending-approval", waits("pending-approval"), None),
        ("pending-approval-window", None, None),
        ("by-hand", waits("by-hand"), None),
        ("approved-pending", None, None),
        ("rejected", None, rejected),
        ("pending", None, None),
    ] {
        let mut host = Host::fine(&["ses"]);
        spoil(&mut host, state);
        assert_eq!(lines(host), [waits, rejected, None], "{state}");
    }
    let mut host = Host::fine(&["ses"]);
    lab::left(&mut host);
    let left = Some("relaykey_left_timestamp_seconds{credential=\"ses\"} then".to_owned());
    assert_eq!(lines(host), [None, None, left]);
}

/// Before anything was looked at, and with counters that no program of ours would have.
#[test]
fn numbers_at_the_beginning_and_from_nowhere() {
    let mut host = Host::fine(&["ses"]);
    host.states[0] = None;
    host.lives[0] = relaykey::status::Live { since: host.now, ..relaykey::status::Live::default() };
    host.lives[0].counters.failures = [("5.7.0 \"quoted\"\n".to_owned(), 1), ("x".repeat(200), 1)].into();
    let server = Server::start(host.status());
    let body = server.get("/metrics").body;
    promtool(&["check", "metrics"], Some(&body));
    assert!(body.contains("relaykey_step_failures_total{credential=\"ses\",class=\"other\"} 2"), "{body}");
    assert!(!body.contains("relaykey_applied_timestamp_seconds"), "nothing is said of what is not known: {body}");
}

#[test]
fn open_metrics_for_those_who_ask_for_it() {
    let server = Server::start(fine());
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5\r\n";
    let answer = server.request("GET", "/metrics", &format!("Host: localhost\r\n{accept}"));
    assert_eq!(answer.header("Content-Type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(answer.body.ends_with("\n# EOF\n"), "{}", answer.body);
    assert!(answer.body.contains("# TYPE relaykey_wakes counter\nrelaykey_wakes_total{"), "{}", answer.body);
    let text = server.get("/metrics").body;
    assert!(text.contains("# TYPE relaykey_wakes_total counter\nrelaykey_wakes_total{"), "{text}");
    assert!(!text.contains("# EOF"), "{text}");
    let samples = |text: &str| text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(samples(&answer.body), samples(&text), "the same numbers in both");
}

const RULES: &str = "packaging/prometheus/relaykey.rules.yml";
const RULE_TESTS: &str = "packaging/prometheus/relaykey.rules.test.yml";

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    promtool(&["check", "rules", RULES], None);
    promtool(&["test", "rules", RULE_TESTS], None);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (rules, tests) = (
        fs::read_to_string(root.join(RULES)).expect("there"),
        fs::read_to_string(root.join(RULE_TESTS)).expect("there"),
    );
    let alerts: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in alerts {
        let named = format!("alertname: {alert}\n");
        let cases: Vec<&str> =
            tests.split(&named).skip(1).map(|rest| rest.lines().next().unwrap_or("").trim()).collect();
        assert!(cases.contains(&"exp_alerts: []"), "{alert} is nowhere shown not to fire");
        assert!(cases.contains(&"exp_alerts:"), "{alert} is nowhere shown to fire");
    }
    assert_eq!(rules.matches("- alert: ").count(), rules.matches(" summary: ").count());
    assert_eq!(rules.matches("- alert: ").count(), rules.matches(" description: ").count());
}

#[test]
fn every_number_that_an_alert_looks_at_exists() {
    let rules = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES)).expect("there");
    let host = Host::fine(&["ses"]);
    let server = Server::start(host.status());
    let mut numbers = server.get("/metrics").body;
    for (state, _) in STATES {
        server.set(spoilt(state));
        numbers.push_str(&server.get("/metrics").body);
    }
    let mut host = Host::fine(&["ses"]);
    lab::left(&mut host);
    server.set(host.status());
    numbers.push_str(&server.get("/metrics").body);
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("relaykey_"));
    for word in words.collect::<BTreeSet<_>>() {
        assert!(numbers.contains(&format!("\n{word}{{")) || numbers.contains(&format!("\n{word} ")), "no {word}");
    }
    let classes = rules.split("class=").skip(1).flat_map(|r| r.split('"').nth(1)).flat_map(|c| c.split('|'));
    for class in classes {
        assert!(numbers.contains(&format!("class=\"{class}\"")), "no class {class}");
    }
}
