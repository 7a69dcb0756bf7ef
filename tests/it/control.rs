//! The control socket, both ends: what it does for those who may ask, and that nobody else does it harm. The server is
//! the real one, with a handler of the test's own; the client is the real one, the real program, or raw bytes.

use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::{self, Files as _};

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::{Program, RUN, Ran};
use postfix::wait_for;
use relaykey::control::{
    self, ApproveRequest, ConfirmRequest, ControlError, ControlRequest, DeregisterRequest, Peer, Progress,
    RejectRequest, RequestAnswer, RequestRefusal, SyncRequest,
};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

/// Who is none of ours.
const NOBODY: u32 = 65534;
/// The longest that an answer may take which waits for nothing, on a machine that others use too.
const AT_ONCE: Duration = Duration::from_secs(4);

type Handler =
    dyn Fn(Peer, ControlRequest, Progress) -> Pin<Box<dyn Future<Output = RequestAnswer> + Send>> + Send + Sync;

/// The server, on a thread of its own. Dropped, it is stopped.
struct Server {
    run_dir: PathBuf,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(run_dir: &Path, handler: Arc<Handler>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let dir = run_dir.to_owned();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time").block_on(async {
                let listener = control::bind(&dir).unwrap_or_else(|e| panic!("{e}"));
                ready.send(()).expect("the test waits");
                let handler = move |peer, request, progress| handler(peer, request, progress);
                control::serve(listener, Arc::default(), handler, stopped).await;
            });
        });
        is_ready.recv().expect("it listens");
        Self { run_dir: run_dir.to_owned(), stop, thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    fn raw(&self) -> UnixStream {
        connect(&self.socket())
    }

    fn end(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends well");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
    stream.set_read_timeout(Some(RUN)).expect("a time-out");
    stream
}

/// Everything up to the end of the connection.
fn rest(mut stream: &UnixStream) -> String {
    let mut bytes = Vec::new();
    // The server may close with part of what was sent unread, which shows as a reset behind its last line.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).expect("UTF-8")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"))).collect()
}

fn handler<F>(f: impl Fn(Peer, ControlRequest, Progress) -> F + Send + Sync + 'static) -> Arc<Handler>
where
    F: Future<Output = RequestAnswer> + Send + 'static,
{
    Arc::new(move |peer, request, progress| Box::pin(f(peer, request, progress)))
}

/// `status` answers at once; `sync` is not expected.
fn status_only() -> Arc<Handler> {
    handler(|_, request, _| async move {
        match request {
            ControlRequest::Status => Ok(json!({"fine": true})),
            _ => Err(RequestRefusal { what: "not here".into(), fix: "no".into(), temporary: false }),
        }
    })
}

/// `status` answers at once, `sync` when `go` is true.
fn patient(go: watch::Receiver<bool>, begun: Arc<AtomicU32>, done: Arc<AtomicU32>) -> Arc<Handler> {
    handler(move |_, request, progress| {
        let (mut go, begun, done) = (go.clone(), begun.clone(), done.clone());
        async move {
            if request == ControlRequest::Status {
                return Ok(json!({"fine": true}));
            }
            begun.fetch_add(1, Ordering::SeqCst);
            progress.line("waits");
            go.wait_for(|go| *go).await.expect("the test goes on");
            done.fetch_add(1, Ordering::SeqCst);
            Ok(json!({"credentials": []}))
        }
    })
}

fn sync_request(names: &[&str]) -> ControlRequest {
    ControlRequest::Sync(SyncRequest {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        accept_version: None,
        previous: None,
        wait_seconds: 60,
    })
}

const STATUS: &[u8] = b"{\"relaykey\":1,\"command\":\"status\"}\n";
const SYNC: &[u8] = b"{\"relaykey\":1,\"command\":\"sync\",\"names\":[],\"accept_version\":null,\"wait_seconds\":60}\n";

/// The client's run time: it asks the kernel who listens by way of it.
fn within<T>(f: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
    let _within = runtime.enter();
    f()
}

fn call(run_dir: &Path, request: &ControlRequest, claimed: Option<&str>) -> (Result<Value, ControlError>, Vec<String>) {
    within(|| {
        let client = control::connect(run_dir).expect("a daemon that may be asked").expect("a daemon");
        let mut progress = Vec::new();
        let answer = client.call(request, claimed, |line| progress.push(line.to_owned()));
        (answer, progress)
    })
}

#[track_caller]
fn status_comes_at_once(run_dir: &Path) {
    let began = Instant::now();
    let (answer, _) = call(run_dir, &ControlRequest::Status, None);
    assert_eq!(answer.expect("an answer")["fine"], true);
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
}

fn run_dir(name: &str) -> (TempDir, PathBuf) {
    let dir = scratch::private(name);
    let run = dir.path().join("run");
    (dir, run)
}

// ---------------------------------------------------------------- what it does

#[test]
fn a_request_gets_its_progress_and_its_answer_and_the_daemon_knows_who_asks() {
    let (_dir, run) = run_dir("control");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = asked.clone();
    let server = Server::start(
        &run,
        handler(move |peer, request, progress| {
            told.lock().unwrap().push((peer, request.clone()));
            async move {
                progress.line("ses: verify");
                progress.line("ses: swap \u{1b}[31m\n");
                match request {
                    ControlRequest::Status => {
                        Err(RequestRefusal { what: "not now".into(), fix: "later".into(), temporary: false })
                    }
                    _ => Ok(json!({"credentials": [1]})),
                }
            }
        }),
    );
    let (answer, progress) = call(&run, &sync_request(&["ses", "other"]), Some("al\u{1b}[31mice\n"));
    assert_eq!(answer.expect("a document"), json!({"credentials": [1]}));
    assert_eq!(progress, ["ses: verify", "ses: swap \u{1b}[31m\n"]);
    let (answer, _) = call(&run, &ControlRequest::Status, Some(&"x".repeat(100)));
    let error = answer.expect_err("a refusal");
    assert_eq!((error.to_string().as_str(), error.fix().as_str(), error.is_temporary()), ("not now", "later", false));
    let asked = asked.lock().unwrap();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let pid = i32::try_from(std::process::id()).ok();
    let peer = |claimed: &str| Peer { uid, gid, pid, claimed: Some(claimed.to_owned()) };
    assert_eq!(asked[0], (peer("al[31mice"), sync_request(&["ses", "other"])));
    assert_eq!(asked[1], (peer(&"x".repeat(64)), ControlRequest::Status));
    let meta = fs::symlink_metadata(server.socket()).expect("a socket");
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&run).expect("a directory").mode() & 0o7777, 0o755);
}

#[test]
fn the_protocol_is_one_json_object_per_line() {
    let (_dir, run) = run_dir("control");
    let server = Server::start(&run, status_only());
    let mut stream = server.raw();
    stream.write_all(STATUS).expect("sent");
    // As some tools do: nothing more is to come, and the answer is waited for.
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    assert_eq!(rest(&stream), "{\"taken\":true}\n{\"document\":{\"fine\":true}}\n");
    let mut stream = server.raw();
    for byte in STATUS {
        stream.write_all(&[*byte]).expect("sent");
    }
    assert_eq!(rest(&stream).lines().count(), 2);
}

#[test]
fn without_a_daemon_there_is_no_client() {
    let (_dir, run) = run_dir("control");
    within(|| {
        assert!(control::connect(&run).expect("no error").is_none());
        fs::create_dir(&run).expect("made");
        assert!(control::connect(&run).expect("no error").is_none());
        drop(UnixListener::bind(run.join("control.sock")).expect("bound"));
        assert!(run.join("control.sock").exists());
        assert!(control::connect(&run).expect("no error").is_none());
    });
}

// ---------------------------------------------------------------- what it does not

#[test]
fn garbage_gets_one_error_and_does_no_harm() {
    let (_dir, run) = run_dir("control");
    let server = Server::start(&run, status_only());
    let deep =
        |open: &str| format!("{{\"relaykey\":1,\"command\":\"sync\",\"names\":{}\n", open.repeat(8000)).into_bytes();
    let table: Vec<(Vec<u8>, &str)> = vec![
        (b"\n".to_vec(), "not JSON"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "not JSON"),
        (vec![0; 1000], "before its line did"),
        ([vec![0; 1000], b"\n".to_vec()].concat(), "not JSON"),
        (b"{\"relaykey\":1,\"command\":\"sta\xff\xfetus\"}\n".to_vec(), "not JSON"),
        (b"{\"relaykey\":1,\"command\":\"sta".to_vec(), "before its line did"),
        (b"".to_vec(), "no request came"),
        (deep("["), "not JSON"),
        (deep("{\"a\":"), "longer than 16384 bytes"),
        (vec![b'x'; 10 << 20], "longer than 16384 bytes"),
        ([vec![b' '; 16384], STATUS.to_vec()].concat(), "longer than 16384 bytes"),
        (b"[]\n".to_vec(), "not a JSON object"),
        (b"null\n".to_vec(), "not a JSON object"),
        (b"{\"command\":\"status\"}\n".to_vec(), "does not say"),
        (b"{\"relaykey\":\"1\",\"command\":\"status\"}\n".to_vec(), "does not say"),
        (b"{\"relaykey\":2,\"command\":\"status\"}\n".to_vec(), "version 2"),
        (b"{\"relaykey\":1}\n".to_vec(), "no command"),
        (b"{\"relaykey\":1,\"command\":\"\\u001b[31mrm\"}\n".to_vec(), "no command \"[31mrm\""),
        (b"{\"relaykey\":1,\"command\":\"status\",\"dry_run\":true}\n".to_vec(), "unknown field `dry_run`"),
        (b"{\"relaykey\":1,\"command\":\"status\",\"claimed\":7}\n".to_vec(), "`claimed`"),
        (b"{\"relaykey\":1,\"command\":\"sync\"}\n".to_vec(), "missing field"),
        (
            b"{\"relaykey\":1,\"command\":\"sync\",\"names\":[],\"accept_version\":null,\"wait_seconds\":1,\"dry_run\":true}\n"
                .to_vec(),
            "unknown field `dry_run`",
        ),
        (
            b"{\"relaykey\":1,\"command\":\"sync\",\"names\":\"ses\",\"accept_version\":null,\"wait_seconds\":1}\n".to_vec(),
            "invalid type",
        ),
        (
            b"{\"relaykey\":1,\"command\":\"sync\",\"names\":[],\"accept_version\":null,\"wait_seconds\":-1}\n".to_vec(),
            "invalid value",
        ),
    ];
    for (sent, expected) in table {
        let began = Instant::now();
        let shown = String::from_utf8_lossy(&sent[..sent.len().min(80)]).into_owned();
        let mut stream = server.raw();
        // It may be closed before all of it is taken.
        let _ = stream.write_all(&sent);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let said = rest(&stream);
        let said = lines(&said);
        let [only] = said.as_slice() else { panic!("{shown:?} gets {said:?}") };
        let what = only["error"]["what"].as_str().unwrap_or_else(|| panic!("{shown:?} gets {only}"));
        assert!(what.contains(expected), "{shown:?} gets {what:?}");
        assert!(!what.chars().any(char::is_control) && what.len() < 400, "{shown:?} gets {what:?}");
        assert_eq!(only["error"]["temporary"], false, "{shown:?}");
        assert!(!only["error"]["fix"].as_str().expect("a fix").is_empty());
        assert!(began.elapsed() < AT_ONCE, "{shown:?} took {:?}", began.elapsed());
    }
    status_comes_at_once(&run);
}

#[test]
fn random_bytes_do_no_harm() {
    let (_dir, run) = run_dir("control");
    let server = Server::start(&run, status_only());
    // xorshift64: the same bytes every time.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..500 {
        let length = usize::try_from(random() % 3000).expect("small");
        let mut bytes: Vec<u8> = (0..length).map(|_| random().to_le_bytes()[0]).collect();
        if round % 2 == 0 {
            // A request with some bytes of it changed.
            bytes = SYNC.to_vec();
            for _ in 0..=random() % 4 {
                let at = usize::try_from(random()).expect("64 bits") % (bytes.len() - 1);
                bytes[at] = random().to_le_bytes()[0];
            }
        }
        let mut stream = server.raw();
        let _ = stream.write_all(&bytes);
        if round % 5 != 0 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let said = rest(&stream);
            let said = lines(&said);
            assert!(said.last().is_some_and(|last| last.get("error").is_some()), "round {round}: {said:?}");
        }
    }
    status_comes_at_once(&run);
}

#[test]
fn who_says_nothing_is_sent_away_after_a_while() {
    let (_dir, run) = run_dir("control");
    let server = Server::start(&run, status_only());
    let silent = server.raw();
    let mut half = server.raw();
    half.write_all(&STATUS[..20]).expect("sent");
    let began = Instant::now();
    for stream in [&silent, &half] {
        let said = rest(stream);
        assert!(said.contains("no whole request came within 5 s"), "{said}");
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(5) + AT_ONCE, "{took:?}");
}

#[test]
fn a_thousand_connections_hold_up_neither_a_rollover_nor_who_asks() {
    let files = rustix::process::getrlimit(Resource::Nofile);
    let wanted =
        Rlimit { current: files.maximum.map_or(Some(8192), |max| Some(max.min(8192))), maximum: files.maximum };
    rustix::process::setrlimit(Resource::Nofile, wanted).expect("more file descriptors");
    let (_dir, run) = run_dir("control");
    let server = ServerProcess::start(&run, &[]);
    let mut rollover = connect(&run.join("control.sock"));
    rollover.write_all(SYNC).expect("sent");
    let mut part = [0; 64];
    let taken = rollover.read(&mut part).expect("an answer");
    assert!(part[..taken].starts_with(b"{\"taken\":true}"), "{:?}", String::from_utf8_lossy(&part[..taken]));
    // The connections that showed that it listens have ended before it took the rollover.
    let idle = server.files();
    let before = server.resident();
    let mut after = Vec::new();
    for _ in 0..3 {
        let mut all = Vec::new();
        let mut slowest = Duration::ZERO;
        for n in 0..1000 {
            let mut stream = connect(&run.join("control.sock"));
            if n % 2 == 0 {
                // Half a request, then nothing more.
                let _ = stream.write_all(&STATUS[..n % STATUS.len()]);
            } else {
                let _ = stream.write_all(&[0xff; 200]);
                let _ = stream.write_all(b"\n");
            }
            all.push(stream);
            if n % 100 == 99 {
                let began = Instant::now();
                let (answer, _) = call(&run, &ControlRequest::Status, None);
                answer.unwrap_or_else(|e| panic!("after {n} connections: {e}"));
                slowest = slowest.max(began.elapsed());
            }
        }
        assert!(slowest < AT_ONCE, "status took {slowest:?}");
        println!("slowest status {slowest:?}");
        assert!(server.files() <= idle + 32, "{} files are open, {idle} before", server.files());
        drop(all);
        let gone = || (server.files() <= idle).then_some(());
        wait_for("the connections to be gone", Duration::from_secs(10), gone);
        after.push(server.resident());
    }
    println!("resident kB before: {before}, after each round: {after:?}");
    assert!(after[0] <= before + 2048 && after[2] <= after[0] + 512, "memory grows: {before}, then {after:?} kB");
    fs::write(run.join("go"), "").expect("written");
    let said = rest(&rollover);
    assert_eq!(lines(&said).last().expect("an answer")["document"], json!({"credentials": []}));
}

#[test]
fn those_who_wait_for_a_rollover_are_kept_and_others_are_told_to_come_again() {
    let (_dir, run) = run_dir("control");
    let (tell, go) = watch::channel(false);
    let (begun, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let server = Server::start(&run, patient(go, begun.clone(), done));
    let waiting: Vec<UnixStream> = (0..32)
        .map(|_| {
            let mut stream = server.raw();
            stream.write_all(SYNC).expect("sent");
            stream
        })
        .collect();
    wait_for("32 rollovers", RUN, || (begun.load(Ordering::SeqCst) == 32).then_some(()));
    let (answer, _) = call(&run, &ControlRequest::Status, None);
    let error = answer.expect_err("no place");
    assert!(error.is_temporary() && error.to_string().contains("serves 32 connections"), "{error}");
    // The client asks again by itself for a while: here until one has ended.
    let asking = std::thread::spawn({
        let run = run.clone();
        move || call(&run, &ControlRequest::Status, None).0
    });
    tell.send(true).expect("heard");
    for stream in &waiting {
        assert!(rest(stream).ends_with("{\"document\":{\"credentials\":[]}}\n"));
    }
    assert_eq!(asking.join().expect("no panic").expect("an answer")["fine"], true);
}

#[test]
fn what_was_asked_for_is_done_although_the_client_goes_away() {
    let (_dir, run) = run_dir("control");
    let (tell, go) = watch::channel(false);
    let (begun, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let server = Server::start(&run, patient(go, begun.clone(), done.clone()));
    let mut stream = server.raw();
    stream.write_all(SYNC).expect("sent");
    wait_for("a rollover", RUN, || (begun.load(Ordering::SeqCst) == 1).then_some(()));
    drop(stream);
    status_comes_at_once(&run);
    tell.send(true).expect("heard");
    wait_for("its end", RUN, || (done.load(Ordering::SeqCst) == 1).then_some(()));
}

#[test]
fn a_client_that_does_not_read_holds_up_nothing() {
    let (_dir, run) = run_dir("control");
    let done = Arc::new(AtomicU32::new(0));
    let count = done.clone();
    let server = Server::start(
        &run,
        handler(move |_, request, progress| {
            let count = count.clone();
            async move {
                if let ControlRequest::Sync(_) = request {
                    for _ in 0..2000 {
                        progress.line("x".repeat(1000));
                        tokio::task::yield_now().await;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                }
                Ok(json!({"fine": true}))
            }
        }),
    );
    let mut deaf = server.raw();
    deaf.write_all(SYNC).expect("sent");
    wait_for("the rollover's end", AT_ONCE, || (done.load(Ordering::SeqCst) == 1).then_some(()));
    status_comes_at_once(&run);
}

#[test]
fn at_the_end_those_who_wait_get_their_answer_and_the_socket_is_gone() {
    let (_dir, run) = run_dir("control");
    let (tell, go) = watch::channel(false);
    let (begun, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut server = Server::start(&run, patient(go, begun.clone(), done));
    let mut waiting = server.raw();
    waiting.write_all(SYNC).expect("sent");
    wait_for("a rollover", RUN, || (begun.load(Ordering::SeqCst) == 1).then_some(()));
    let idle = server.raw();
    status_comes_at_once(&run);
    server.stop.send(true).expect("heard");
    assert!(rest(&idle).contains("the daemon is ending"));
    wait_for("the socket to be gone", RUN, || (!server.socket().exists()).then_some(()));
    within(|| assert!(control::connect(&run).expect("no error").is_none()));
    tell.send(true).expect("heard");
    assert!(rest(&waiting).ends_with("{\"document\":{\"credentials\":[]}}\n"));
    server.end();
}

#[test]
fn without_free_file_descriptors_it_waits_and_does_not_spin() {
    let (_dir, run) = run_dir("control");
    let server = ServerProcess::start(&run, &[("CONTROL_FILES", "16")]);
    let crowd: Vec<UnixStream> = (0..40).map(|_| connect(&run.join("control.sock"))).collect();
    wait_for("all descriptors to be used", RUN, || (server.files() >= 16).then_some(()));
    let before = server.cpu_ticks();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(100));
    }
    // A hundredth of a second each.
    let used = server.cpu_ticks() - before;
    assert!(used < 20, "{used} ticks within 2 s");
    drop(crowd);
    let (answer, _) = call(&run, &ControlRequest::Status, None);
    assert_eq!(answer.expect("an answer")["fine"], true);
}

#[test]
fn a_daemon_that_hangs_is_named() {
    let (_dir, run) = run_dir("control");
    let server = ServerProcess::start(&run, &[]);
    let pid = Pid::from_child(&server.child);
    rustix::process::kill_process(pid, Signal::STOP).expect("stopped");
    wait_for("its threads to stand still", RUN, || server.stands_still().then_some(()));
    let began = Instant::now();
    let (answer, _) = call(&run, &ControlRequest::Status, None);
    let error = answer.expect_err("no answer");
    let named = format!("process {}", server.child.id());
    assert!(error.to_string().contains(&named) && error.to_string().contains("said nothing for 10 s"), "{error}");
    assert!(error.is_temporary());
    assert!(began.elapsed() < Duration::from_secs(10) + AT_ONCE, "{:?}", began.elapsed());
}

#[test]
fn a_daemon_that_dies_at_work_is_told_from_one_that_refuses() {
    let (_dir, run) = run_dir("control");
    let mut server = ServerProcess::start(&run, &[]);
    let asking = std::thread::spawn({
        let run = run.clone();
        move || call(&run, &sync_request(&[]), None)
    });
    wait_for("a rollover", RUN, || run.join("begun").exists().then_some(()));
    server.child.kill().expect("killed");
    server.child.wait().expect("ended");
    let (answer, _) = asking.join().expect("no panic");
    let error = answer.expect_err("no answer");
    assert!(matches!(error, ControlError::Lost { .. }) && error.is_temporary(), "{error}");
    // Its socket is stale now: the next one takes its place.
    let next = Server::start(&run, status_only());
    status_comes_at_once(&next.run_dir);
}

// ---------------------------------------------------------------- where it listens, and to whom

#[test]
fn a_socket_of_a_daemon_that_lives_is_not_taken_and_a_stale_one_is() {
    let (_dir, run) = run_dir("control");
    fs::create_dir(&run).expect("made");
    drop(UnixListener::bind(run.join("control.sock")).expect("bound"));
    let first = Server::start(&run, status_only());
    let inode = fs::symlink_metadata(first.socket()).expect("a socket").ino();
    let error = within(|| control::bind(&run)).expect_err("one at a time").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())) && error.contains("runs already"), "{error}");
    assert_eq!(fs::symlink_metadata(first.socket()).expect("still there").ino(), inode);
    status_comes_at_once(&run);
    drop(first);
    assert!(!run.join("control.sock").exists());
    let second = Server::start(&run, status_only());
    status_comes_at_once(&second.run_dir);
    // One that was replaced by somebody is not ours to remove.
    fs::remove_file(second.socket()).expect("removed");
    let other = UnixListener::bind(second.socket()).expect("bound");
    drop(second);
    assert!(run.join("control.sock").exists());
    drop(other);
}

#[test]
fn unsafe_places_are_refused() {
    let (dir, run) = run_dir("control");
    let refused = |run: &Path, words: &[&str]| {
        let error = within(|| control::bind(run)).expect_err("refused");
        let text = error.to_string();
        assert!(words.iter().all(|w| text.contains(w)), "{text}");
        assert!(!error.fix().is_empty() && !error.is_temporary(), "{text}");
    };
    fs::create_dir(&run).expect("made");
    for mode in [0o777, 0o775, 0o1777] {
        fs::set_permissions(&run, fs::Permissions::from_mode(mode)).expect("chmod");
        refused(&run, &["not safe", &format!("mode {mode:04o}")]);
    }
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("chmod");
    std::os::unix::fs::chown(&run, Some(NOBODY), None).expect("chown");
    refused(&run, &["belongs to user id 65534"]);
    std::os::unix::fs::chown(&run, Some(0), None).expect("chown");
    let socket = run.join("control.sock");
    fs::create_dir(&socket).expect("made");
    refused(&run, &["control.sock is a directory, not a socket"]);
    fs::remove_dir(&socket).expect("removed");
    fs::write(&socket, "precious").expect("written");
    refused(&run, &["a regular file"]);
    assert_eq!(fs::read(&socket).expect("still there"), b"precious");
    fs::remove_file(&socket).expect("removed");
    symlink("/nonexistent", &socket).expect("linked");
    refused(&run, &["a symbolic link"]);
    let long = dir.path().join("x".repeat(120));
    refused(&long, &["too long", "at most 107"]);
    within(|| assert!(matches!(control::connect(&long), Err(ControlError::TooLong { .. }))));
}

#[test]
fn others_than_root_and_the_daemons_own_user_are_told_who_may() {
    let (dir, run) = run_dir("control");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let server = Server::start(
        &run,
        handler(move |_, _, _| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok(json!({})) }
        }),
    );
    let config = configuration(&dir);
    let program = dir.path().join("relaykey");
    fs::copy(env!("CARGO_BIN_EXE_relaykey"), &program).expect("copied");
    let ask = || {
        let ran = Command::new(&program)
            .args(["--config".as_ref(), config.as_os_str(), "sync".as_ref()])
            .env_clear()
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .expect("it runs");
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (code, said) = ask();
    assert!(
        code == Some(1) && said.contains("is not for this user") && said.contains("ask as root"),
        "{code:?} {said}"
    );
    // Not by the file's mode alone.
    fs::set_permissions(server.socket(), fs::Permissions::from_mode(0o666)).expect("chmod");
    let (code, said) = ask();
    let words = ["user id 65534 may not ask the relaykey daemon: root may", "fix: ask as root"];
    assert!(code == Some(1) && words.iter().all(|w| said.contains(w)), "{code:?} {said}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn what_another_user_says_in_the_daemons_place_is_not_believed() {
    let (dir, run) = run_dir("control");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::create_dir(&run).expect("made");
    std::os::unix::fs::chown(&run, Some(NOBODY), Some(NOBODY)).expect("chown");
    let socket = run.join("control.sock");
    let mut liar = Command::new("/usr/bin/perl")
        .args(["-MIO::Socket::UNIX", "-e"])
        .arg("$s = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 5) or die; print qq(ready\\n); close STDOUT; <STDIN>")
        .arg(&socket)
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("perl starts");
    let mut said = String::new();
    liar.stdout.take().expect("piped").read_to_string(&mut said).expect("it listens");
    assert_eq!(said, "ready\n");
    let error = within(|| control::connect(&run)).expect_err("not believed").to_string();
    assert!(error.contains(&format!("process {} of user id 65534", liar.id())), "{error}");
    drop(liar.stdin.take());
    liar.wait().expect("it ends");
}

// ---------------------------------------------------------------- the commands

/// A configuration whose source and mail server are not there: what is done in the program's own process fails.
fn configuration(dir: &TempDir) -> PathBuf {
    let path = dir.file(
        "config.toml",
        format!(
            "config_version = 1\n[host]\ninstances = \"named\"\nname = \"mx1.example.com\"\nstate_dir = {:?}\nrun_dir = {:?}\n\
             [[credential]]\nname = \"ses\"\n[credential.source]\ntype = \"file\"\npath = {:?}\n\
             [credential.smtp]\nendpoint = \"localhost\"\nregion = \"us-east-1\"\n\
             [[credential.target]]\ntype = \"postfix\"\nconfig_dir = {:?}\n",
            dir.path().join("state"),
            dir.path().join("run"),
            dir.path().join("nothing"),
            dir.path().join("nowhere"),
        ),
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    path
}

fn relaykey(config: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut all = vec!["--config", config.to_str().expect("a path in UTF-8")];
    all.extend(arguments);
    Program::start(&all, env, b"").wait(RUN)
}

fn status_document(config: &Path, refused: &Value) -> Value {
    json!({
        "schema": "relaykey/status/v1",
        "at": "2026-01-01T00:00:00Z",
        "daemon": {
            "agent": "relaykey/0.1.0", "host": "mx1.example.com", "pid": 4711, "since": "2026-01-01T00:00:00Z",
            "config": config, "config_since": "2026-01-01T00:00:00Z", "config_refused": refused,
        },
        "credentials": [],
    })
}

fn synced(name: &str, outcome: &str, exit: u8) -> Value {
    let failures = match exit {
        0 => json!([]),
        _ => json!([{"target": null, "class": "x", "what": "it went wrong", "fix": "mend it", "temporary": true,
                     "at": "2026-01-01T00:00:00Z"}]),
    };
    json!({
        "name": name, "outcome": outcome, "reason": "of course", "version": "v1", "username": "AKIA1", "candidate": null,
        "failures": failures, "steps": [], "preview": [], "report": null, "exit": exit,
    })
}

#[test]
fn what_a_person_decides_goes_through_the_daemon() {
    let (dir, run) = run_dir("decides");
    let config = configuration(&dir);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (told, path) = (asked.clone(), config.clone());
    let _server = Server::start(
        &run,
        handler(move |peer, request, _| {
            let answer = match &request {
                ControlRequest::Status => status_document(&path, &Value::Null),
                _ => {
                    told.lock().unwrap().push((peer.claimed, request));
                    json!({"schema": "relaykey/sync/v1", "credentials": [synced("ses", "confirmed", 0)]})
                }
            };
            async { Ok(answer) }
        }),
    );
    let names = || vec!["ses".to_owned()];
    let version = || Some("v2".to_owned());
    for (arguments, expected) in [
        (
            &["approve", "ses"][..],
            ControlRequest::Approve(ApproveRequest { names: names(), version: None, wait_seconds: 60 }),
        ),
        (
            &["approve", "ses", "--version", "v2", "--wait", "2m"],
            ControlRequest::Approve(ApproveRequest { names: names(), version: version(), wait_seconds: 120 }),
        ),
        (
            &["reject", "ses", "--version", "v2", "--reason", "not\u{1b}[31m today "],
            ControlRequest::Reject(RejectRequest {
                names: names(),
                version: version(),
                reason: "not[31m today".into(),
            }),
        ),
        (&["confirm", "ses"], ControlRequest::Confirm(ConfirmRequest { names: names(), code: None, wait_seconds: 60 })),
        (
            &["confirm", "ses", "--code", "--nonce", "n1"],
            ControlRequest::Confirm(ConfirmRequest { names: names(), code: Some("n1".into()), wait_seconds: 60 }),
        ),
        (&["deregister"], ControlRequest::Deregister(DeregisterRequest { names: Vec::new() })),
        (&["deregister", "ses"], ControlRequest::Deregister(DeregisterRequest { names: names() })),
    ] {
        let ran = relaykey(&config, arguments, &[("SUDO_USER", "alice")]);
        ran.expect(0);
        assert_eq!(asked.lock().unwrap().pop(), Some((Some("alice".to_owned()), expected)), "{arguments:?}");
    }
    for arguments in [
        &["approve"][..],
        &["reject", "ses"],
        &["reject", "ses", "--reason", " "],
        &["confirm"],
        &["confirm", "ses", "--nonce", "n1"],
        &["approve", "nobody"],
    ] {
        relaykey(&config, arguments, &[]).expect(2);
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn sync_goes_through_the_daemon_with_the_same_words_and_exit_codes() {
    let (dir, run) = run_dir("control");
    let config = configuration(&dir);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answer = Arc::new(Mutex::new(Ok(Value::Null)));
    let (told, give, path) = (asked.clone(), answer.clone(), config.clone());
    let _server = Server::start(
        &run,
        handler(move |peer, request, progress| {
            let answer = match &request {
                ControlRequest::Status => Ok(status_document(&path, &Value::Null)),
                _ => {
                    progress.line("ses: verify    accepted (0.100 s)");
                    told.lock().unwrap().push((peer.claimed, request));
                    give.lock().unwrap().clone()
                }
            };
            async { answer }
        }),
    );
    let document = |all: &[Value]| Ok(json!({"schema": "relaykey/sync/v1", "credentials": all}));
    let set = |new: RequestAnswer| *answer.lock().unwrap() = new;

    set(document(&[synced("ses", "confirmed", 0)]));
    let ran =
        relaykey(&config, &["sync", "ses", "--wait", "1500ms", "--accept-version", "v1"], &[("SUDO_USER", "alice")]);
    ran.expect(0);
    assert_eq!(ran.out, "ses: confirmed version v1 (AKIA1)\n");
    assert_eq!(ran.err, "ses: verify    accepted (0.100 s)\n");
    let expected = ControlRequest::Sync(SyncRequest {
        names: vec!["ses".into()],
        accept_version: Some("v1".into()),
        previous: None,
        wait_seconds: 2,
    });
    assert_eq!(asked.lock().unwrap().pop(), Some((Some("alice".into()), expected)));

    for (codes, code) in [([0, 75], 75), ([75, 1], 1), ([3, 0], 3), ([0, 0], 0)] {
        set(document(&codes.map(|exit| synced("ses", if exit == 0 { "up-to-date" } else { "failed-for-now" }, exit))));
        let ran = relaykey(&config, &["sync", "--json"], &[]);
        ran.expect(code);
        let json = ran.json();
        assert_eq!((&json["schema"], &json["exit"]), (&json!("relaykey/sync/v1"), &json!(code)));
        assert_eq!(json["credentials"].as_array().expect("a list").len(), 2);
        assert_eq!(ran.err, "");
    }
    assert_eq!(asked.lock().unwrap().pop(), Some((None, sync_request(&[]))));
    set(document(&[synced("ses", "failed-for-now", 75)]));
    relaykey(&config, &["sync"], &[]).expect(75).says(&["ses: it went wrong", "  fix: mend it"]);

    for (temporary, code) in [(true, 75), (false, 1)] {
        set(Err(RequestRefusal { what: "no such credential".into(), fix: "name another".into(), temporary }));
        let ran = relaykey(&config, &["sync", "--json"], &[]);
        ran.expect(code).says(&["relaykey: no such credential", "fix: name another"]);
        let error = json!({"what": "no such credential", "fix": "name another", "temporary": temporary});
        assert_eq!((ran.json()["error"].clone(), ran.json()["exit"].clone()), (error, json!(code)));
    }
    // A daemon of another version may answer anything.
    for strange in [json!([]), json!({"credentials": [1]}), json!({"credentials": "ses"}), json!(7)] {
        set(Ok(strange));
        relaykey(&config, &["sync"], &[]).expect(1).says(&["does not understand", "restart the daemon"]);
    }

    asked.lock().unwrap().clear();
    let ran = relaykey(&config, &["sync", "--dry-run", "--wait", "0s"], &[]);
    ran.says_not("verify    accepted");
    assert_ne!(ran.code, 0);
    assert!(asked.lock().unwrap().is_empty(), "--dry-run is done in the program's own process");
    relaykey(&config, &["sync", "other"], &[]).expect(2);
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn status_is_the_daemons_and_a_difference_of_configuration_is_told() {
    let (dir, run) = run_dir("control");
    let config = configuration(&dir);
    let answer = Arc::new(Mutex::new(Ok(status_document(&config, &Value::Null))));
    let give = answer.clone();
    let server = Server::start(
        &run,
        handler(move |_, _, _| {
            let answer = give.lock().unwrap().clone();
            async { answer }
        }),
    );
    let ran = relaykey(&config, &["status", "--json"], &[]);
    ran.expect(0);
    assert_eq!((ran.json(), ran.err.as_str()), (status_document(&config, &Value::Null), ""));
    relaykey(&config, &["status"], &[]).expect(0).says_not("no daemon answers");

    *answer.lock().unwrap() = Ok(status_document(Path::new("/etc/other.toml"), &Value::Null));
    relaykey(&config, &["status", "--json"], &[])
        .expect(0)
        .says(&["the daemon (process 4711) runs with /etc/other.toml, not with", "config.toml"]);

    let refused = json!({"at": "2026-01-01T00:00:00Z", "mistakes": [{"what": "line 3: no", "fix": "yes"}]});
    *answer.lock().unwrap() = Ok(status_document(&config, &refused));
    relaykey(&config, &["status"], &[]).expect(0).says(&["line 3: no"]);
    relaykey(&config, &["sync"], &[]).says(&["the daemon has refused the changed configuration"]);

    // What the state files say is better than nothing, but not what was asked for.
    let busy = RequestRefusal { what: "not now".into(), fix: "later".into(), temporary: true };
    *answer.lock().unwrap() = Err(busy);
    relaykey(&config, &["status"], &[]).expect(75).says(&[
        "not now",
        "fix: later",
        "no daemon answers",
        "ses: never-applied",
    ]);
    *answer.lock().unwrap() = Ok(json!({"schema": "relaykey/status/v9"}));
    relaykey(&config, &["status"], &[]).expect(1).says(&["does not understand", "no daemon answers"]);

    drop(server);
    let ran = relaykey(&config, &["status", "--json"], &[]);
    ran.expect(0);
    assert_eq!((&ran.json()["daemon"], ran.err.as_str()), (&Value::Null, ""));
}

// ---------------------------------------------------------------- a server of its own process

/// This test program, run once more as a server. Dropped, it is ended.
struct ServerProcess {
    child: Child,
}

impl ServerProcess {
    fn start(run_dir: &Path, env: &[(&str, &str)]) -> Self {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "control::the_server_of_the_tests_above"])
            .env("CONTROL_RUN_DIR", run_dir)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let server = Self { child };
        let listens = || UnixStream::connect(run_dir.join("control.sock")).ok().map(drop);
        wait_for("the server", RUN, listens);
        server
    }

    fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).expect("it lives")
    }

    fn files(&self) -> usize {
        let all = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it lives");
        all.map(|f| f.expect("an entry").file_name()).collect::<BTreeSet<_>>().len()
    }

    /// kB.
    fn resident(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }

    fn stands_still(&self) -> bool {
        let mut threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it lives");
        threads.all(|thread| {
            let stat = fs::read_to_string(thread.expect("an entry").path().join("stat")).expect("it lives");
            stat.rsplit(')').next().expect("fields").trim_start().starts_with('T')
        })
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11..13].iter().map(|f| f.parse::<u64>().expect("a number")).sum()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `status` answers at once; `sync` when there is a file `go` in the run directory, and makes a file `begun` before.
#[test]
fn the_server_of_the_tests_above() {
    let Ok(run_dir) = std::env::var("CONTROL_RUN_DIR").map(PathBuf::from) else { return };
    if let Some(files) = std::env::var("CONTROL_FILES").ok().and_then(|n| n.parse().ok()) {
        let limit = Rlimit { current: Some(files), maximum: Some(files) };
        rustix::process::setrlimit(Resource::Nofile, limit).expect("fewer file descriptors");
    }
    let dir = run_dir.clone();
    let mut server = Server::start(
        &run_dir,
        handler(move |_, request, _| {
            let dir = dir.clone();
            async move {
                if let ControlRequest::Sync(_) = request {
                    fs::write(dir.join("begun"), "").expect("written");
                    while !dir.join("go").exists() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    return Ok(json!({"credentials": []}));
                }
                Ok(json!({"fine": true}))
            }
        }),
    );
    server.thread.take().expect("a thread").join().expect("it is ended from outside");
}
