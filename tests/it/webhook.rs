//! Reports by webhook: what arrives is verified by a library of Standard Webhooks that is not ours, and receivers that
//! mean harm do none.
//!
//! The servers are real ones on loopback, with certificates of a CA that is made for the test.

use crate::lab::scratch;

use std::future::Future;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use relaykey::fault::Fault;
use relaykey::report::webhook::Webhook;
use relaykey::report::{Receiver, Whose};
use relaykey::rollover::Report;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// For attempts that are not meant to run into it, on a busy machine.
const PLENTY: Duration = Duration::from_secs(15);
/// For those that are.
const SHORT: Duration = Duration::from_secs(1);
/// How much later than its limit an attempt may be seen to end, on a busy machine.
const LATE: Duration = Duration::from_secs(4);
/// 38 bytes, so that no piece of it is anything else by chance.
const SECRET: &str = "whsec_c3VwZXItc2VjcmV0LXNpZ25pbmcta2V5LW5vYm9keS1rbm93cyE=";

// ---------------------------------------------------------------- the lab

/// A directory of its own, 0700, gone at the end.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(scratch::private("hook"))
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let _ = std::fs::remove_file(&path);
        let mut file =
            std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).expect("a new file");
        file.write_all(content.as_bytes()).expect("write");
        path
    }
}

/// A CA, and what it certifies.
struct Ca {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "relaykey test CA");
        let key = rcgen::KeyPair::generate().expect("a key");
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).expect("a CA") }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn server(&self, names: &[&str], change: impl FnOnce(&mut rcgen::CertificateParams)) -> Arc<ServerConfig> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()).expect("parameters");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        server_config(&certificate, &key)
    }
}

fn server_config(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a configuration");
    Arc::new(config)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type Connection = Box<dyn Stream>;
type Acting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A server on loopback.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Behaves inside TLS, or, without a configuration, on the bare connection.
    async fn start(tls: Option<Arc<ServerConfig>>, act: impl Fn(Connection) -> Acting + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, act) = (Arc::clone(&connections), Arc::new(act));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                count.fetch_add(1, Ordering::SeqCst);
                let (tls, act) = (tls.clone(), Arc::clone(&act));
                tokio::spawn(async move {
                    match tls {
                        None => act(Box::new(socket)).await,
                        // A client that does not like the certificate goes away.
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(socket).await {
                                act(Box::new(stream)).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, connections }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/hook?token=t0ken", self.port)
    }

    fn met(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// What came: the head of a request and its body. `None`: the connection ended before.
async fn request(connection: &mut Connection) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..at].to_vec()).expect("text");
            let length = header(&head, "content-length")?.parse::<usize>().expect("a number");
            if bytes.len() >= at + 4 + length {
                return Some((head, bytes[at + 4..].to_vec()));
            }
        }
        match connection.read(&mut buffer).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

/// Reads the request, says this, and closes.
fn says(answer: impl Into<Vec<u8>>) -> impl Fn(Connection) -> Acting + Send + Sync + 'static {
    let answer: Arc<[u8]> = answer.into().into();
    move |mut connection| {
        let answer = Arc::clone(&answer);
        Box::pin(async move {
            request(&mut connection).await;
            // The client goes away when it has heard enough.
            let _ = connection.write_all(&answer).await;
            let _ = connection.shutdown().await;
        })
    }
}

/// Reads the request, says `first`, and then `again` for ever, with a pause before each.
fn goes_on(
    first: &'static str,
    again: impl Into<Vec<u8>>,
    pause: Duration,
) -> impl Fn(Connection) -> Acting + Send + Sync + 'static {
    let again: Arc<[u8]> = again.into().into();
    move |mut connection| {
        let again = Arc::clone(&again);
        Box::pin(async move {
            request(&mut connection).await;
            let mut said = connection.write_all(first.as_bytes()).await;
            while said.is_ok() {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                said = connection.write_all(&again).await;
            }
        })
    }
}

/// What a test has at hand.
struct Lab {
    dir: Scratch,
    ca: Ca,
    good: Arc<ServerConfig>,
    run_time: tokio::runtime::Runtime,
}

impl Lab {
    fn new() -> Self {
        let (dir, ca) = (Scratch::new(), Ca::new());
        dir.file("secret", &format!("{SECRET}\n"));
        dir.file("ca.pem", &ca.pem());
        let good = ca.server(&["localhost"], |_| ());
        let run_time = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
        Self { dir, ca, good, run_time }
    }

    fn webhook(&self, url: &str, limit: Duration) -> Webhook {
        hook(self.dir.0.path(), url, limit)
    }
}

fn hook(dir: &Path, url: &str, limit: Duration) -> Webhook {
    Webhook::new(url, &dir.join("secret"), Some(&dir.join("ca.pem"))).expect("a webhook").with_limit(limit)
}

fn report(seq: u64) -> Report {
    let target = json!({
        "name": "main", "kind": "postfix", "map": "hash:/etc/postfix/sasl_passwd",
        "keys": ["[email-smtp.eu-west-1.amazonaws.com]:587"], "read_back": "postmap -q, text and map", "remaining_old": [],
        "region": "eu-west-1",
        "evidence": {"endpoint": "email-smtp.eu-west-1.amazonaws.com:587", "reply": "235 Ä ok", "at": "2026-01-01T00:00:00Z"},
        "proof": "x", "no_proof": null,
    });
    serde_json::from_value(json!({
        "schema": "relaykey/report/v1", "id": format!("host-ses-{seq}"), "seq": seq, "host_id": "host", "host": "mx1.example.com",
        "credential": "ses", "source": "arn:x", "version": "v2", "username": "AKIAIOSFODNN7EXAMPLE",
        "previous_username": null, "at": "2026-01-01T00:00:00Z", "mode": "automatic", "agent": "relaykey/0", "outcome": "confirmed",
        "targets": [target], "error": null, "approved_by": null,
    }))
    .expect("a report")
}

fn whose() -> Whose {
    Whose { credential: "ses".into(), host: "mx1.example.com".into(), host_id: "host".into(), is_passing: false }
}

// ---------------------------------------------------------------- what arrives

/// One request, as the independent library gets it.
#[derive(Clone)]
struct Received {
    secret: String,
    id: String,
    timestamp: String,
    signature: String,
    body: Vec<u8>,
}

/// Asks the Python library of Standard Webhooks about each of them.
fn verified(received: &[Received]) -> Vec<bool> {
    const VERIFY: &str = r#"
import base64, json, sys
from standardwebhooks import Webhook
answers = []
for r in json.load(sys.stdin):
    headers = {"webhook-id": r["id"], "webhook-timestamp": r["timestamp"], "webhook-signature": r["signature"]}
    try:
        Webhook(r["secret"]).verify(base64.b64decode(r["body"]), headers)
        answers.append(True)
    except Exception:
        answers.append(False)
print(json.dumps(answers))
"#;
    let asked: Vec<_> = received
        .iter()
        .map(|r| {
            let body = BASE64.encode(&r.body);
            json!({"secret": r.secret, "id": r.id, "timestamp": r.timestamp, "signature": r.signature, "body": body})
        })
        .collect();
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python");
    assert!(python.exists(), "{} is missing: tests/run makes it", python.display());
    let mut child = Command::new(python)
        .args(["-c", VERIFY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(json!(asked).to_string().as_bytes()).expect("Python reads");
    drop(stdin);
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "the venv of tests/run has the library standardwebhooks");
    serde_json::from_slice(&output.stdout).expect("answers")
}

#[test]
fn an_independent_library_verifies_what_arrives_and_nothing_that_was_changed() {
    let lab = Lab::new();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let there = Arc::clone(&heads);
    let port = lab.run_time.block_on(async {
        let server = Server::start(Some(Arc::clone(&lab.good)), move |mut connection| {
            let there = Arc::clone(&there);
            Box::pin(async move {
                let got = request(&mut connection).await.expect("a request");
                there.lock().expect("unpoisoned").push(got);
                let _ = connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                let _ = connection.shutdown().await;
            })
        })
        .await;
        let hook = lab.webhook(&server.url(), PLENTY);
        for seq in [1, 2] {
            hook.deliver(&report(seq)).await.expect("delivered");
        }
        // The secret is read anew.
        lab.dir.file("secret", &SECRET.replace("whsec_c3", "whsec_d3"));
        hook.deliver(&report(3)).await.expect("delivered");
        server.port
    });

    let got = heads.lock().expect("unpoisoned").clone();
    assert_eq!(got.len(), 3);
    let mut asked = Vec::new();
    for (seq, (head, body)) in (1..).zip(&got) {
        assert!(head.starts_with("POST /hook?token=t0ken HTTP/1.1\r\n"), "{head}");
        let value = |name: &str| header(head, name).unwrap_or_else(|| panic!("{name} is missing:\n{head}"));
        assert_eq!(value("host"), format!("localhost:{port}"));
        assert_eq!(value("content-type"), "application/json");
        assert_eq!(value("user-agent"), format!("relaykey/{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(value("webhook-id"), report(seq).id);
        assert_eq!(serde_json::from_slice::<Report>(body).expect("a report"), report(seq));
        asked.push(Received {
            secret: SECRET.into(),
            id: value("webhook-id"),
            timestamp: value("webhook-timestamp"),
            signature: value("webhook-signature"),
            body: body.clone(),
        });
    }
    asked[2].secret = SECRET.replace("whsec_c3", "whsec_d3");
    let changed = |change: &dyn Fn(&mut Received)| {
        let mut received = asked[0].clone();
        change(&mut received);
        received
    };
    let changes = [
        changed(&|r| r.body[10] ^= 1),
        changed(&|r| {
            r.body.pop();
        }),
        changed(&|r| r.id = report(2).id),
        changed(&|r| r.timestamp = (r.timestamp.parse::<i64>().expect("seconds") + 1).to_string()),
        changed(&|r| r.secret = asked[2].secret.clone()),
        changed(&|r| r.signature = r.signature.replacen("v1,", "v1,A", 1)),
        changed(&|r| r.signature = asked[1].signature.clone()),
    ];
    let answers = verified(&[asked.clone(), changes.to_vec()].concat());
    assert_eq!(answers[..3], [true; 3]);
    assert_eq!(answers[3..], [false; 7]);
}

#[test]
fn a_check_sends_nothing_and_says_what_it_saw() {
    let lab = Lab::new();
    lab.run_time.block_on(async {
        let heard = Arc::new(AtomicUsize::new(usize::MAX));
        let there = Arc::clone(&heard);
        let server = Server::start(Some(Arc::clone(&lab.good)), move |mut connection| {
            let there = Arc::clone(&there);
            Box::pin(async move {
                let mut bytes = Vec::new();
                let _ = connection.read_to_end(&mut bytes).await;
                there.store(bytes.len(), Ordering::SeqCst);
            })
        })
        .await;
        let (hook, whose) = (lab.webhook(&server.url(), PLENTY), whose());
        let words = hook.check(&whose).await.expect("it would work");
        assert!(words.contains(&format!("127.0.0.1:{}", server.port)) && words.contains("38 bytes"), "{words}");
        assert!(!words.contains("t0ken") && !words.contains(&SECRET[6..14]), "{words}");
        let deadline = Instant::now() + PLENTY;
        while heard.load(Ordering::SeqCst) == usize::MAX {
            assert!(Instant::now() < deadline, "the server waited for the end of the connection");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(heard.load(Ordering::SeqCst), 0, "a check sent something");

        let e = lab.webhook("https://169.254.169.254/", PLENTY).check(&whose).await.expect_err("forbidden");
        assert_eq!((e.class.word(), e.temporary), ("forbidden-address", false));
        lab.dir.file("secret", "whsec_half");
        let e = hook.check(&whose).await.expect_err("half a secret");
        assert_eq!((e.class.word(), e.temporary), ("secret", false));
        // What is printed can be pasted: nothing is shown, and there is a secret afterwards.
        let (_, paste) = e.fix.split_once("for the receiver too: ").expect("a command");
        let pasted = std::process::Command::new("sh").args(["-c", paste]).output().expect("sh");
        assert!(pasted.status.success() && pasted.stdout.is_empty(), "{pasted:?}");
        assert!(!hook.check(&whose).await.is_err_and(|e| e.class.word() == "secret"), "a secret was made");
        lab.dir.file("secret", SECRET);
        // Made by another CA since; this is read anew too.
        lab.dir.file("ca.pem", &Ca::new().pem());
        let e = hook.check(&whose).await.expect_err("nobody's certificate");
        assert_eq!((e.class.word(), e.temporary), ("tls", false), "{e:?}");
        lab.dir.file("ca.pem", "nothing");
        let e = hook.check(&whose).await.expect_err("no CA");
        assert_eq!((e.class.word(), e.temporary), ("trust", false), "{e:?}");
    });
}

#[test]
fn an_attempt_that_is_dropped_ends_its_connection() {
    let lab = Lab::new();
    lab.run_time.block_on(async {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(Some(Arc::clone(&lab.good)), move |mut connection| {
            let tell = tell.clone();
            Box::pin(async move {
                request(&mut connection).await.expect("a request");
                let _ = tell.send("came");
                let _ = connection.read(&mut [0]).await;
                let _ = tell.send("ended");
            })
        })
        .await;
        let (hook, report) = (lab.webhook(&server.url(), PLENTY), report(1));
        let attempt = hook.deliver(&report);
        let came = tokio::select! {
            _ = attempt => panic!("nothing was answered"),
            came = told.recv() => came,
        };
        assert_eq!(came, Some("came"));
        let ended = tokio::time::timeout(PLENTY, told.recv()).await.expect("the connection ends");
        assert_eq!(ended, Some("ended"));
    });
}

// ---------------------------------------------------------------- who means harm

enum Want {
    Delivered,
    /// Class, temporary, a part of the words.
    Fails(&'static str, bool, &'static str),
    /// Whatever it is, it does no harm.
    AnyEnd,
}
use Want::{AnyEnd, Delivered, Fails};

/// What holds for every end of an attempt.
fn harmless(name: &str, outcome: &Result<(), Fault>) {
    let Err(Fault { what, fix, .. }) = outcome else { return };
    for text in [what, fix] {
        assert!(text.chars().count() < 700, "{name}: too many words: {text}");
        assert!(text.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{name}: {text:?}");
        for secret in [&SECRET[6..14], &SECRET[20..30], "t0ken"] {
            assert!(!text.contains(secret), "{name}: a secret in {text}");
        }
    }
    assert!(!fix.is_empty(), "{name}: {what}");
}

#[test]
fn hostile_receivers_do_no_harm() {
    let lab = Lab::new();
    let good = || Some(Arc::clone(&lab.good));
    lab.run_time.block_on(async {
        // Whoever follows a redirect, or goes where no report goes, is seen here.
        let trap = Server::start(None, |_| Box::pin(async {})).await;
        let t = trap.port;
        let mut cases: Vec<(&str, String, Duration, Want, Option<Arc<AtomicUsize>>)> = Vec::new();
        macro_rules! case {
            ($name:expr, $limit:expr, $want:expr, $tls:expr, $act:expr) => {{
                let server = Server::start($tls, $act).await;
                cases.push(($name, server.url(), $limit, $want, Some(server.connections)));
            }};
        }

        // Redirects.
        for (name, status) in [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)] {
            let answer = format!(
                "HTTP/1.1 {status} X\r\nlocation: https://localhost:{t}/x?token=t0ken\r\ncontent-length: 0\r\n\r\n"
            );
            case!(name, PLENTY, Fails("redirect", false, "leads to \"https://localhost"), good(), says(answer));
        }
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{t}/\r\n\r\n");
        case!("302 to http", PLENTY, Fails("redirect", false, "http://127.0.0.1"), good(), says(answer));
        case!(
            "307 to itself",
            PLENTY,
            Fails("redirect", false, "leads to \"/hook\""),
            good(),
            says("HTTP/1.1 307 X\r\nlocation: /hook\r\n\r\n")
        );
        case!("300 to nowhere", PLENTY, Fails("redirect", false, "300"), good(), says("HTTP/1.1 300 X\r\n\r\n"));
        let refresh =
            format!("HTTP/1.1 204 X\r\nrefresh: 0; url=http://127.0.0.1:{t}/\r\nalt-svc: h2=\":{t}\"\r\n\r\n");
        case!("204 with other ways to send on", PLENTY, Delivered, good(), says(refresh));

        // Addresses. The unspecified one is this very host to Linux, so that the trap would see who tries it.
        for (name, url) in [
            ("link-local", "https://169.254.169.254/latest/meta-data/".to_owned()),
            ("link-local as one number", "https://2852039166/".to_owned()),
            ("link-local in hexadecimal", "https://0xa9.0xfe.0xa9fe/".to_owned()),
            ("mapped link-local", "https://[::ffff:169.254.169.254]/".to_owned()),
            ("NAT64 link-local", "https://[64:ff9b::a9fe:a9fe]/".to_owned()),
            ("link-local, IPv6", "https://[fe80::1]/".to_owned()),
            ("EC2's metadata, IPv6", "https://[fd00:ec2::254]/".to_owned()),
            ("unspecified", format!("https://0.0.0.0:{t}/")),
            ("unspecified as a number", format!("https://0:{t}/")),
            ("unspecified, IPv6", format!("https://[::]:{t}/")),
            ("mapped unspecified", format!("https://[::ffff:0.0.0.0]:{t}/")),
            ("multicast", "https://224.0.0.1/".to_owned()),
            ("broadcast", "https://255.255.255.255/".to_owned()),
        ] {
            cases.push((name, url, PLENTY, Fails("forbidden-address", false, "no report is sent there"), None));
        }

        // Slow ones.
        let ms = Duration::from_millis;
        let timeout = |waiting| Fails("timeout", true, waiting);
        case!("never begins TLS", SHORT, timeout("the TLS handshake"), None, |mut c| Box::pin(async move {
            let mut sink = Vec::new();
            let _ = c.read_to_end(&mut sink).await;
        }));
        case!("never answers", SHORT, timeout("the answer to the report"), good(), |mut c| Box::pin(async move {
            request(&mut c).await;
            let _ = c.read(&mut [0]).await;
        }));
        case!("slow head", SHORT, timeout("the answer"), good(), goes_on("HTTP/1.1 200 OK\r\nx: ", "a", ms(50)));
        case!("slow status line", SHORT, timeout("the answer"), good(), goes_on("", "HTTP/1.1", ms(400)));
        let slow = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
        case!("slow body of a 200", PLENTY, Delivered, good(), goes_on(slow, "a", ms(50)));
        let slow = "HTTP/1.1 500 X\r\ncontent-length: 1000000\r\n\r\n";
        case!("slow body of a 500", PLENTY, Fails("service", true, ": \"aaa"), good(), goes_on(slow, "a", ms(50)));

        // Those that go away.
        case!("closes at once", PLENTY, Fails("network", true, "TLS handshake"), None, |_| Box::pin(async {}));
        case!("closes after TLS", PLENTY, Fails("network", true, "waiting for"), good(), |_| Box::pin(async {}));
        case!("says nothing", PLENTY, Fails("network", true, "closed the connection"), good(), says(""));
        let half = "HTTP/1.1 200 OK\r\ncontent-le";
        case!("closes within the head", PLENTY, Fails("network", true, "closed the connection"), good(), says(half));

        // Much.
        let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1_000_000));
        case!("a head of a megabyte", PLENTY, Fails("http", false, "larger than 32768 bytes"), good(), says(large));
        let endless = "HTTP/1.1 200 OK\r\n";
        case!(
            "endless head",
            PLENTY,
            Fails("http", false, "head of its answer"),
            good(),
            goes_on(endless, "x: y\r\n", ms(0))
        );
        let large = [b"HTTP/1.1 500 X\r\ncontent-length: 50000000\r\n\r\n".to_vec(), vec![b'a'; 50_000_000]].concat();
        case!("a body of 50 MB", PLENTY, Fails("service", true, "aaa"), good(), says(large));
        let endless = "HTTP/1.1 503 X\r\nretry-after: 7\r\n\r\n";
        case!(
            "endless body of a 503",
            PLENTY,
            Fails("service", true, "for 7 s"),
            good(),
            goes_on(endless, vec![b'a'; 9000], ms(0))
        );
        let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        case!("endless body of a 200", PLENTY, Delivered, good(), goes_on(endless, "5\r\naaaaa\r\n", ms(0)));
        let continues = "HTTP/1.1 100 Continue\r\n\r\n";
        case!("endless 100", PLENTY, Fails("http", false, "262144 bytes"), good(), goes_on("", continues, ms(0)));
        let hints = format!("HTTP/1.1 103 X\r\nlink: <{}>\r\n\r\n", "a".repeat(9000));
        case!("endless 103", PLENTY, Fails("http", false, "262144 bytes"), good(), goes_on("", hints, ms(0)));

        // Nonsense in HTTP.
        let no_http = |what| Fails("http", false, what);
        let case_of = |body: &str| format!("HTTP/1.1 {body}");
        case!("no HTTP", PLENTY, no_http("is not HTTP"), good(), says("220 mx ESMTP\r\n"));
        case!(
            "HTTP/2",
            PLENTY,
            no_http("is not HTTP"),
            good(),
            says(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80".to_vec())
        );
        case!("NUL bytes", PLENTY, no_http("is not HTTP"), good(), says(vec![0; 100]));
        case!("status 999", PLENTY, no_http("it answered 999"), good(), says(case_of("999 X\r\n\r\n")));
        case!("status 000", PLENTY, no_http("is not HTTP"), good(), says(case_of("000 X\r\n\r\n")));
        case!(
            "another protocol",
            PLENTY,
            no_http("it answered 101"),
            good(),
            says(case_of("101 X\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"))
        );
        let two = case_of("200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\naaaaa");
        case!("two lengths", PLENTY, no_http("is not HTTP"), good(), says(two));
        case!(
            "a length below zero",
            PLENTY,
            no_http("is not HTTP"),
            good(),
            says(case_of("500 X\r\ncontent-length: -1\r\n\r\n"))
        );
        let short = case_of("500 X\r\ncontent-length: 1000\r\n\r\nshort");
        case!("a length that is too large", PLENTY, Fails("service", true, "\"short\""), good(), says(short));
        let chunks = case_of("500 X\r\ntransfer-encoding: chunked\r\n\r\nzzzz\r\nffffffffffffffffffff\r\n");
        case!("no chunks", PLENTY, Fails("service", true, "500"), good(), says(chunks));
        let chunks = case_of("200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffffff\r\n");
        case!("chunks of any size", PLENTY, Delivered, good(), says(chunks));
        case!(
            "an escape in a header",
            PLENTY,
            no_http("is not HTTP"),
            good(),
            says(case_of("302 X\r\nlocation: /\x1b[31m\r\n\r\n"))
        );
        let text =
            [b"HTTP/1.1 500 \xff\xfe\x80 \xe2\x80\xae\r\n\r\n\xff\x1b]0;title\x07\x1b[2J\xe2\x80\xaeno\0".as_slice()]
                .concat();
        case!("escapes in status and body", PLENTY, Fails("service", true, "]0;title [2J no\""), good(), says(text));
        let echo = case_of(&format!("401 X\r\n\r\nwanted {SECRET} or {}", &SECRET[6..]));
        let denied = Fails("access-denied", false, "wanted ***");
        case!("says the secret", PLENTY, denied, good(), says(echo));
        case!("204", PLENTY, Delivered, good(), says(case_of("204 No Content\r\n\r\n")));
        case!(
            "204 with a body",
            PLENTY,
            Delivered,
            good(),
            says(case_of("204 No Content\r\ncontent-length: 5\r\n\r\naaaaa"))
        );
        case!("answers before it has read", PLENTY, Delivered, good(), |mut c| Box::pin(async move {
            let _ = c.read(&mut [0]).await;
            let _ = c.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
            request(&mut c).await;
        }));
        case!("answers before it was asked", PLENTY, AnyEnd, good(), |mut c| Box::pin(async move {
            let _ = c.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            request(&mut c).await;
        }));

        // Nonsense in TLS.
        let tls = |what| Fails("tls", false, what);
        case!("plain HTTP", PLENTY, tls("not TLS"), None, |mut c| Box::pin(async move {
            let _ = c.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = c.read_to_end(&mut Vec::new()).await;
        }));
        case!("TLS 1.0", PLENTY, tls("speaks neither TLS 1.2 nor TLS 1.3"), None, |mut c| Box::pin(async move {
            // ServerHello of version 3.1 with one of its cipher suites (RFC 2246, section 7.4.1.3).
            let mut hello = vec![0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
            hello.extend([7; 32]);
            hello.extend([0, 0, 0x2f, 0]);
            let _ = c.write_all(&hello).await;
            let _ = c.read_to_end(&mut Vec::new()).await;
        }));
        case!(
            "a TLS alert",
            PLENTY,
            tls("TLS failed: the other side broke it off: protocol version (alert 70)"),
            None,
            |mut c| Box::pin(async move {
                let _ = c.read(&mut [0; 100]).await;
                let _ = c.write_all(&[0x15, 3, 1, 0, 2, 2, 70]).await;
                let _ = c.read_to_end(&mut Vec::new()).await;
            })
        );
        case!("endless garbage", PLENTY, AnyEnd, None, |mut c| Box::pin(async move {
            let garbage: Vec<u8> = (0..=255).cycle().take(10_000).collect();
            while c.write_all(&garbage).await.is_ok() {}
        }));
        case!("endless handshake", PLENTY, AnyEnd, None, |mut c| Box::pin(async move {
            // One message of 16 MB, record by record.
            let mut record = vec![0x16, 3, 3, 0x40, 0, 2, 0xff, 0xff, 0xff];
            record.resize(5 + 0x4000, 3);
            while c.write_all(&record).await.is_ok() {}
        }));
        let key = rcgen::KeyPair::generate().expect("a key");
        let own = rcgen::CertificateParams::new(vec!["localhost".into()])
            .expect("parameters")
            .self_signed(&key)
            .expect("one");
        case!(
            "self-signed",
            PLENTY,
            tls("certificate"),
            Some(server_config(&own, &key)),
            says(case_of("200 OK\r\n\r\n"))
        );
        let other = lab.ca.server(&["other.example", &"x".repeat(60)], |_| ());
        case!("another name", PLENTY, tls("other.example"), Some(other), says(case_of("200 OK\r\n\r\n")));
        let old = lab.ca.server(&["localhost"], |p| {
            p.not_before = rcgen::date_time_ymd(2001, 1, 1);
            p.not_after = rcgen::date_time_ymd(2002, 1, 1);
        });
        case!("expired", PLENTY, tls("expired on 2002-01-01"), Some(old), says(case_of("200 OK\r\n\r\n")));
        let young = lab.ca.server(&["localhost"], |p| {
            p.not_before = rcgen::date_time_ymd(2200, 1, 1);
            p.not_after = rcgen::date_time_ymd(2201, 1, 1);
        });
        case!(
            "not yet valid",
            PLENTY,
            tls("not valid before 2200-01-01"),
            Some(young),
            says(case_of("200 OK\r\n\r\n"))
        );
        let odd = lab.ca.server(&["*.localhost", "\u{1b}[31m.example"].map(|n| n.trim_start_matches('\u{1b}')), |_| ());
        case!("odd names", PLENTY, tls("not for the name"), Some(odd), says(case_of("200 OK\r\n\r\n")));

        assert!(cases.len() >= 50, "{}", cases.len());
        let report = report(1);
        let mut attempts = tokio::task::JoinSet::new();
        for (name, url, limit, want, met) in cases {
            let (hook, report) = (lab.webhook(&url, limit), report.clone());
            attempts.spawn(async move {
                let began = Instant::now();
                let outcome = hook.deliver(&report).await;
                (name, outcome, began.elapsed(), limit, want, met)
            });
        }
        let mut wrong = Vec::new();
        while let Some(ended) = attempts.join_next().await {
            let (name, outcome, took, limit, want, met) = ended.expect("no panic");
            harmless(name, &outcome);
            let as_wanted = match (&want, &outcome) {
                (AnyEnd, _) | (Delivered, Ok(())) => true,
                (Fails(class, temporary, words), Err(e)) => {
                    (e.class.word(), e.temporary) == (*class, *temporary) && e.what.contains(words)
                }
                _ => false,
            };
            let met = met.map_or(1, |met| met.load(Ordering::SeqCst));
            if !as_wanted || met != 1 || took > limit + LATE {
                wrong.push(format!("{name}: after {took:?} and {met} connections: {outcome:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(trap.met(), 0, "somebody came to the trap");
        // The trap works.
        let _ = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, t))).await.expect("the trap");
        let deadline = Instant::now() + PLENTY;
        while trap.met() == 0 {
            assert!(Instant::now() < deadline, "the trap did not see who came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Runs in a process of its own, so that nobody else's memory is counted.
#[test]
fn answers_without_end_take_neither_memory_nor_time() {
    const INSIDE: &str = "RELAYKEY_TEST_WEBHOOK_MEMORY";
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "webhook::answers_without_end_take_neither_memory_nor_time", "--test-threads=1"])
            .env(INSIDE, "1")
            .stdout(Stdio::null())
            .status()
            .expect("this program starts again");
        assert!(status.success(), "it fails in a process of its own");
        return;
    }
    /// What a server would send if it was let, and what may lie in the kernel's buffers of a connection.
    const ENDLESS: u64 = 1 << 30;
    const BUFFERS: u64 = 64 << 20;
    let lab = Lab::new();
    lab.run_time.block_on(async {
        for first in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 500 X\r\n\r\n",
            "HTTP/1.1 500 X\r\ncontent-length: 1000000000\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: ",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 X\r\n\r\n",
        ] {
            let written = Arc::new(AtomicU64::new(0));
            let ended = Arc::new(AtomicUsize::new(0));
            let (count, end) = (Arc::clone(&written), Arc::clone(&ended));
            let server = Server::start(Some(Arc::clone(&lab.good)), move |mut connection| {
                let (count, end) = (Arc::clone(&count), Arc::clone(&end));
                Box::pin(async move {
                    request(&mut connection).await;
                    let _ = connection.write_all(first.as_bytes()).await;
                    let chunk = vec![b'a'; 64 * 1024];
                    while count.load(Ordering::SeqCst) < ENDLESS && connection.write_all(&chunk).await.is_ok() {
                        count.fetch_add(chunk.len() as u64, Ordering::SeqCst);
                    }
                    end.fetch_add(1, Ordering::SeqCst);
                })
            })
            .await;
            // The first fills caches of the TLS library.
            let _ = lab.webhook(&server.url(), PLENTY).check(&whose()).await;
            let (before, began) = (peak_memory(), Instant::now());
            let outcome = lab.webhook(&server.url(), PLENTY).deliver(&report(1)).await;
            harmless(first, &outcome);
            let grown = peak_memory() - before;
            assert!(grown < 8 << 20, "{first:?}: {grown} bytes more");
            assert!(began.elapsed() < PLENTY + LATE, "{first:?}");
            let deadline = Instant::now() + PLENTY;
            while ended.load(Ordering::SeqCst) < 1 {
                assert!(Instant::now() < deadline, "{first:?}: the connection was not closed");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let sent = written.load(Ordering::SeqCst);
            assert!(sent < BUFFERS, "{first:?}: it took {sent} bytes");
        }
    });
}
