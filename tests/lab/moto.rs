//! A private AWS API server (moto) on loopback, for tests that talk to it with the real SDK.
//!
//! [`shared`] starts one per test program, at its first use; the server ends when the program does, because its standard input
//! closes then. Where `RELAYKEY_TEST_AWS` names a directory, one serves all test programs of a run: the first starts it, and it
//! ends with the run (see `tests/run`). Tests keep apart by their names: an access key id, secrets and parameters of their own
//! each.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::scratch::{self, Files as _};

/// Python has to load all of moto.
const START: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(30);

/// The region everything of the lab lies in.
pub const REGION: &str = "eu-west-1";

pub struct Moto {
    port: u16,
    tls_port: u16,
    ca_pem: String,
    /// `None`: it is not ours to end.
    child: Option<Child>,
    /// Open for as long as the server is to live.
    _alive: Option<OwnedFd>,
}

/// Set by `tests/run`: a directory with a FIFO `alive`, which is open for writing as long as the run lasts.
pub const OF_THE_RUN: &str = "RELAYKEY_TEST_AWS";

/// Set by `tests/run`: the socket at which `moto_lab.py` gives each who asks a server of their own.
pub const FORKS: &str = "RELAYKEY_TEST_AWS_FORKS";

/// The server that all tests of this program share, or of this run.
pub fn shared() -> &'static Moto {
    static SHARED: OnceLock<Moto> = OnceLock::new();
    SHARED.get_or_init(|| match std::env::var_os(OF_THE_RUN) {
        Some(directory) => Moto::of_the_run(Path::new(&directory)),
        None => Moto::start(),
    })
}

impl Moto {
    /// The server of this run of tests, started if it is not there yet.
    fn of_the_run(directory: &Path) -> Self {
        let lock = fs::File::create(directory.join("lock")).expect("a lock file");
        lock.lock().expect("locked");
        let known = directory.join("server.json");
        if let Ok(said) = fs::read(&known) {
            let known: Value = serde_json::from_slice(&said).expect("JSON");
            let (port, tls_port) = (port(&known, "port"), port(&known, "tls_port"));
            return Self { port, tls_port, ca_pem: text(&known["ca_pem"]), child: None, _alive: None };
        }
        let alive = fs::File::open(directory.join("alive")).expect("a FIFO that is open for writing");
        let mut server = Self::start_with(alive.into());
        let facts = json!({"port": server.port, "tls_port": server.tls_port, "ca_pem": server.ca_pem});
        fs::write(known, facts.to_string()).expect("written");
        server.child = None;
        server
    }

    /// Starts a server of its own.
    pub fn start() -> Self {
        match std::env::var_os(FORKS) {
            Some(socket) => Self::forked(Path::new(&socket)),
            None => Self::start_with(Stdio::piped()),
        }
    }

    /// One that a server of the run has become by fork(2).
    fn forked(socket: &Path) -> Self {
        let (ca_pem, chain_pem, key_pem) = certificates();
        let dir = scratch::private("moto");
        let asked = json!({"cert": dir.file("cert.pem", &chain_pem), "key": dir.file("key.pem", &key_pem)});
        let mut stream = UnixStream::connect(socket).expect("the server of this run");
        stream.set_read_timeout(Some(START)).expect("a time-out");
        writeln!(stream, "{asked}").expect("asked for a server");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("it listens in time");
        let said: Value = serde_json::from_str(&line).expect("a server that listens");
        let (port, tls_port) = (port(&said, "port"), port(&said, "tls_port"));
        Self { port, tls_port, ca_pem, child: None, _alive: Some(stream.into()) }
    }

    fn start_with(stdin: Stdio) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("tests/.venv/bin/python");
        assert!(python.exists(), "{} is missing: tests/run makes it (a venv with moto[server])", python.display());
        let (ca_pem, chain_pem, key_pem) = certificates();
        let dir = scratch::private("moto");
        let (cert, key) = (dir.file("cert.pem", &chain_pem), dir.file("key.pem", &key_pem));
        // The server must not look for anybody's credentials.
        let mut child = Command::new(python)
            .arg(root.join("tests/lab/moto_lab.py"))
            .args(["--cert".as_ref(), cert.as_os_str(), "--key".as_ref(), key.as_os_str()])
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // What ends a test program ends no server of the whole run.
            .process_group(0)
            .spawn()
            .expect("moto_lab.py starts");
        let stdout = child.stdout.take().expect("piped");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = tell.send(line);
        });
        let line = told.recv_timeout(START).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("moto_lab.py did not listen within {START:?}")
        });
        let said: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("moto_lab.py did not start; run it by hand to see why"));
        let alive = child.stdin.take().map(OwnedFd::from);
        Self { port: port(&said, "port"), tls_port: port(&said, "tls_port"), ca_pem, child: Some(child), _alive: alive }
    }

    /// What to give as `endpoint_url`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same services over TLS, under the name `localhost`, with a certificate of [`Moto::ca_pem`].
    pub fn tls_endpoint(&self) -> String {
        format!("https://localhost:{}", self.tls_port)
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Calls a JSON-protocol API, `secretsmanager.CreateSecret`, `AmazonSSM.PutParameter` or `DynamoDB_20120810.PutItem`, as
    /// an administrator.
    pub fn call(&self, target: &str, input: Value) -> Value {
        let service = match target.split('.').next() {
            Some("AmazonSSM") => "ssm",
            Some("DynamoDB_20120810") => "dynamodb",
            _ => "secretsmanager",
        };
        let headers =
            format!("Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: {target}\r\n{}", administrator(service));
        let (status, body) = self.http("POST", "/", &headers, input.to_string().as_bytes());
        assert_eq!(status, 200, "{target}: {body}");
        serde_json::from_str(&body).unwrap_or(Value::Null)
    }

    /// Lets SES take messages from an address.
    pub fn verify_identity(&self, address: &str) {
        let headers = format!("Content-Type: application/json\r\n{}", administrator("ses"));
        let input = json!({"EmailIdentity": address}).to_string();
        let (status, body) = self.http("POST", "/v2/email/identities", &headers, input.as_bytes());
        assert_eq!(status, 200, "{address}: {body}");
    }

    /// The messages that SES took, as they were given to it: envelope sender, recipients, raw text.
    pub fn sent_messages(&self) -> Vec<Value> {
        let (status, body) = self.http("GET", "/lab/messages", "", b"");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Makes a secret with one version, labelled AWSCURRENT. Gives (ARN, version id).
    pub fn secret(&self, name: &str, value: &str) -> (String, String) {
        let made = self.call("secretsmanager.CreateSecret", json!({"Name": name, "SecretString": value}));
        (text(&made["ARN"]), text(&made["VersionId"]))
    }

    /// One more version with these labels; gives its version id.
    pub fn put(&self, name: &str, value: &str, labels: &[&str]) -> String {
        let input = json!({"SecretId": name, "SecretString": value, "VersionStages": labels});
        text(&self.call("secretsmanager.PutSecretValue", input)["VersionId"])
    }

    /// Stores a SecureString; gives its version number.
    pub fn parameter(&self, name: &str, value: &str) -> i64 {
        let input = json!({"Name": name, "Value": value, "Type": "SecureString", "Overwrite": true});
        self.call("AmazonSSM.PutParameter", input)["Version"].as_i64().expect("a version")
    }

    /// Asks for a fault (see `moto_lab.py`) for the calls of one access key id.
    pub fn fault(&self, key: &str, action: &str, mut fault: Value) {
        fault["key"] = key.into();
        fault["action"] = action.into();
        let (status, body) = self.http("POST", "/lab/faults", "", fault.to_string().as_bytes());
        assert_eq!(status, 200, "{body}");
    }

    /// Ends all faults that were asked for the calls of one access key id.
    pub fn heal(&self, key: &str) {
        let (status, body) = self.http("POST", "/lab/heal", "", json!({"key": key}).to_string().as_bytes());
        assert_eq!(status, 200, "{body}");
    }

    /// Calls made with an access key id so far: service, action, about, external_id, decrypt, status.
    pub fn calls(&self, key: &str) -> Vec<Value> {
        let (status, body) = self.http("GET", &format!("/lab/calls?key={key}"), "", b"");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// What the lab itself is asked (see `moto_lab.py`): `iam`, `used`, `empty`, `clock`.
    pub fn lab(&self, what: &str, input: &Value) -> Value {
        let (status, body) = self.http("POST", &format!("/lab/{what}"), "", input.to_string().as_bytes());
        assert_eq!(status, 200, "{what}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    fn http(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("moto listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a time-out");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("sent to moto");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("moto answers in time");
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, body.to_owned())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A throw-away certificate authority, and a certificate of it for `localhost`: CA, chain and private key, PEM.
fn certificates() -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "relaykey test CA");
    let ca_cert = ca.self_signed(&ca_key).expect("a CA");
    let key = rcgen::KeyPair::generate().expect("a key");
    let server = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("parameters");
    let cert = server.signed_by(&key, &rcgen::Issuer::new(ca, ca_key)).expect("a certificate");
    (ca_cert.pem(), cert.pem(), key.serialize_pem())
}

/// The header that signs a request, for a server that does not check signatures.
fn administrator(service: &str) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIALABADMINISTRATOR/20260101/{REGION}/{service}/aws4_request, \
         SignedHeaders=host, Signature=0\r\n"
    )
}

fn port(said: &Value, name: &str) -> u16 {
    said[name].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
