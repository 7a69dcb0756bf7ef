//! A network of its own, in which the real names are the stand-ins: SES in two regions, another provider, a recipient's
//! own server, and a name server.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use relaykey::standin::{Options, Standin};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::case::Server;
use crate::lab::{moto, scratch};

/// Set in the process that a test runs in.
const INSIDE: &str = "RELAYKEY_TEST_FIELD";
/// Which of its runs it is, where a test has several.
const ROUND: &str = "RELAYKEY_TEST_FIELD_ROUND";
/// The longest that a case may take, all of its servers included.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs the test of this name, which calls this, in this program started again: in network, mount and process
/// namespaces that end with it, and with a `/tmp` of its own. Gives what it said, and whether it passed. The test is told
/// which round it is.
pub fn apart(name: &str, round: u64, test: impl FnOnce(u64)) -> Option<(String, bool)> {
    if std::env::var_os(INSIDE).is_some() {
        enter();
        test(std::env::var(ROUND).expect("UTF-8").parse().expect("a number"));
        return None;
    }
    let tmp = scratch::directory("field", 0o1777);
    let output = tmp.path().join("said");
    let file = fs::File::create_new(&output).expect("a fresh file");
    let mut child = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(INSIDE, tmp.path())
        .env(ROUND, round.to_string())
        .env_remove("RUST_BACKTRACE")
        // It is not there in this network.
        .env_remove(moto::OF_THE_RUN)
        .env_remove(moto::FORKS)
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second handle"))
        .stderr(file)
        .spawn()
        .expect("unshare starts");
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let said = fs::read_to_string(&output).unwrap_or_default();
    let status = status.unwrap_or_else(|| panic!("{name} did not end within {LIMIT:?}:\n{said}"));
    let passed = status.success() && said.contains("1 passed");
    Some((said, passed))
}

/// The first steps inside.
fn enter() {
    let tmp = std::env::var(INSIDE).expect("UTF-8");
    run("ip", &["link", "set", "lo", "up"]);
    // A checkout may lie there too.
    let checkout = env!("CARGO_MANIFEST_DIR");
    if checkout.starts_with("/tmp/") {
        let kept = format!("{tmp}/{}", checkout.trim_start_matches("/tmp/"));
        fs::create_dir_all(&kept).expect("a directory");
        run("mount", &["--bind", checkout, &kept]);
        run("mount", &["--rbind", &tmp, "/tmp"]);
    } else {
        run("mount", &["--bind", &tmp, "/tmp"]);
    }
    let known = HOSTS.iter().map(|(name, server)| (*name, address(*server))).chain([GATEWAY]);
    let hosts: String = known.map(|(name, address)| format!("{address} {name}\n")).collect();
    for (file, text) in
        [("/etc/hosts", format!("127.0.0.1 localhost\n{hosts}")), ("/etc/resolv.conf", "nameserver 127.0.0.1\n".into())]
    {
        let ours = format!("/tmp{}", file.replace('/', "-"));
        fs::write(&ours, text).expect("written");
        run("mount", &["--bind", &ours, file]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Names with an address.
const HOSTS: &[(&str, Server)] = &[
    ("email-smtp.us-east-1.amazonaws.com", Server::Ses),
    ("vpce-0a1b2c3d-x9.email-smtp.us-east-1.vpce.amazonaws.com", Server::Ses),
    ("smtp-relay.internal", Server::Ses),
    ("smtp-relay-eu.internal", Server::SesEu),
    ("smtp-relay-partner.internal", Server::SesEu),
    ("email-smtp.eu-west-1.amazonaws.com", Server::SesEu),
    ("smtp.other-relay.example", Server::Other),
    ("direct.example", Server::Direct),
];

/// A name whose server a set-up starts itself.
const GATEWAY: (&str, Ipv4Addr) = ("smtp-gateway.internal", Ipv4Addr::new(127, 0, 20, 1));

/// Names with mail exchangers.
const EXCHANGERS: &[(&str, &str)] = &[
    ("mailout.corp.example", "email-smtp.us-east-1.amazonaws.com"),
    ("mailout-eu.internal", "smtp-relay-partner.internal"),
    ("direct.example", "direct.example"),
    ("dns-only.example", "smtp.other-relay.example"),
];

/// Where a tunnel to SES listens that takes mail without TLS.
const TUNNEL: u16 = 2525;

fn address(server: Server) -> Ipv4Addr {
    match server {
        Server::Ses => Ipv4Addr::new(127, 0, 10, 1),
        Server::SesEu => Ipv4Addr::new(127, 0, 10, 2),
        Server::Other => Ipv4Addr::new(127, 0, 10, 3),
        Server::Direct => Ipv4Addr::new(127, 0, 10, 4),
    }
}

/// A message that came somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub server: Server,
    /// Who had logged in.
    pub username: Option<String>,
}

/// The servers, for as long as the process lives.
pub struct Network {
    pub ses: Standin,
    pub ses_eu: Standin,
    pub other: Standin,
    direct: Arc<Mutex<Vec<String>>>,
}

impl Network {
    /// The AWS API server listens at this port of the loopback: port 80 leads there.
    pub fn start(aws: u16) -> Self {
        let standin = |server| {
            let names = HOSTS.iter().filter(|(_, of)| *of == server).map(|(name, _)| *name);
            // A gateway that carries bytes leads to SES.
            let names = names.chain((server == Server::Ses).then_some(GATEWAY.0)).map(str::to_owned);
            Standin::start(Options { names: names.collect(), ..Options::default() }).expect("a stand-in")
        };
        let network = Self {
            ses: standin(Server::Ses),
            ses_eu: standin(Server::SesEu),
            other: standin(Server::Other),
            direct: Arc::default(),
        };
        let mut ways: Vec<(IpAddr, u16, u16)> = vec![(Ipv4Addr::LOCALHOST.into(), 80, aws)];
        for (server, standin) in network.relays() {
            ways.extend([25, 587, 2587].map(|port| (address(server).into(), port, standin.starttls_port())));
            ways.extend([465, 2465].map(|port| (address(server).into(), port, standin.implicit_port())));
        }
        ways.push((Ipv6Addr::LOCALHOST.into(), 587, network.ses.starttls_port()));
        forward(&ways, network.ses.implicit_port(), network.ses.ca_pem());
        names();
        receive(Arc::clone(&network.direct));
        network
    }

    fn relays(&self) -> [(Server, &Standin); 3] {
        [(Server::Ses, &self.ses), (Server::SesEu, &self.ses_eu), (Server::Other, &self.other)]
    }

    /// The certificates of all of them.
    pub fn ca_pem(&self) -> String {
        self.relays().map(|(_, standin)| standin.ca_pem().to_owned()).concat()
    }

    /// Where the message with this subject came, if it did.
    pub fn arrival(&self, subject: &str) -> Option<Arrival> {
        let direct = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        if direct.iter().any(|s| s == subject) {
            return Some(Arrival { server: Server::Direct, username: None });
        }
        self.relays().into_iter().find_map(|(server, standin)| {
            let message = standin.messages().into_iter().find(|m| m.subject == subject)?;
            Some(Arrival { server, username: Some(message.username) })
        })
    }
}

/// Carries bytes from each address and port to a port of the loopback, and from the tunnel's to TLS.
fn forward(ways: &[(IpAddr, u16, u16)], implicit: u16, ca_pem: &str) {
    let ways = ways.to_vec();
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("a certificate");
    roots.add(ca).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let connector = TlsConnector::from(Arc::new(
        config.expect("protocol versions").with_root_certificates(roots).with_no_client_auth(),
    ));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
        runtime.block_on(async move {
            for (from, port, to) in ways {
                let listener = TcpListener::bind((from, port)).await.expect("a port of its own network");
                tokio::spawn(async move {
                    while let Ok((mut near, _)) = listener.accept().await {
                        tokio::spawn(async move {
                            let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
                            tokio::io::copy_bidirectional(&mut near, &mut far).await
                        });
                    }
                });
            }
            let tunnel = TcpListener::bind((Ipv4Addr::LOCALHOST, TUNNEL)).await.expect("the tunnel's port");
            let _ = tell.send(());
            while let Ok((mut near, _)) = tunnel.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let name = ServerName::try_from("email-smtp.us-east-1.amazonaws.com").expect("a name");
                    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, implicit)).await?;
                    let mut far = connector.connect(name, far).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
    });
    told.recv().expect("it listens");
}

/// Answers questions for A and MX records (RFC 1035).
fn names() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("port 53 of its own network");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((n, who)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..n]) {
                let _ = socket.send_to(&answer, who);
            }
        }
    });
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let (name, kind) = (labels.join("."), question.get(at..at + 2)?);
    let known = HOSTS.iter().find(|(have, _)| *have == name);
    let exchanger = EXCHANGERS.iter().find(|(have, _)| *have == name);
    let data = match kind {
        [0, 1] => known.map(|(_, server)| address(*server).octets().to_vec()),
        [0, 15] => exchanger.map(|(_, to)| {
            let labels =
                to.split('.').flat_map(|l| [&[u8::try_from(l.len()).expect("short")][..], l.as_bytes()].concat());
            [0, 10].into_iter().chain(labels).chain([0]).collect()
        }),
        _ => None,
    };
    let mut reply = question.get(..2)?.to_vec();
    let no_such_name = u8::from(known.is_none() && exchanger.is_none()) * 3;
    reply.extend([0x81, 0x80 | no_such_name, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    reply.extend(question.get(12..at + 4)?);
    if let Some(data) = data {
        reply.extend([0xc0, 12, kind[0], kind[1], 0, 1, 0, 0, 0, 60]);
        reply.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

/// The recipient's own server: takes all mail on port 25, from everybody, without TLS; keeps the subjects.
fn receive(subjects: Arc<Mutex<Vec<String>>>) {
    let listener = StdListener::bind((address(Server::Direct), 25)).expect("port 25 of its own network");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let subjects = Arc::clone(&subjects);
            std::thread::spawn(move || take(&stream, &subjects));
        }
    });
}

fn take(stream: &StdStream, subjects: &Mutex<Vec<String>>) -> Option<()> {
    let say = |text: &str| (&*stream).write_all(format!("{text}\r\n").as_bytes()).ok();
    say("220 direct.example ESMTP")?;
    let (mut data, mut subject) = (false, String::new());
    for line in BufReader::new(stream).lines() {
        let line = line.ok()?;
        match (data, line.split_once(' ').map_or(line.as_str(), |(verb, _)| verb)) {
            (true, ".") => {
                subjects.lock().unwrap_or_else(PoisonError::into_inner).push(subject.clone());
                data = false;
                say("250 Ok")?;
            }
            (true, "Subject:") => line["Subject: ".len()..].clone_into(&mut subject),
            (true, _) => {}
            (false, "DATA") => {
                data = true;
                say("354 go on")?;
            }
            (false, "QUIT") => return say("221 bye"),
            (false, _) => say("250 Ok")?,
        }
    }
    Some(())
}

/// Hands a message to the SMTP server on this loopback port. Gives the queue id.
pub fn hand_over(port: u16, from: &str, to: &str, subject: &str) -> String {
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let stream = StdStream::connect(at).expect("the instance's SMTP server");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    let mut lines = BufReader::new(&stream).lines();
    let mut expect = |code: &str| {
        let mut next = || lines.next().expect("an answer").expect("an answer in time");
        let mut line = next();
        while line.as_bytes().get(3) == Some(&b'-') {
            line = next();
        }
        assert!(line.starts_with(code), "not {code}: {line}");
        line
    };
    expect("220");
    let message = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\r\nhello\r\n.");
    let mail = [
        ("HELO test.invalid", "250"),
        (&format!("MAIL FROM:<{from}>"), "250"),
        (&format!("RCPT TO:<{to}>"), "250"),
        ("DATA", "354"),
        (&message, "250"),
    ];
    let mut last = String::new();
    for (line, code) in mail {
        (&stream).write_all(format!("{line}\r\n").as_bytes()).expect("the SMTP server listens");
        last = expect(code);
    }
    let (_, id) = last.rsplit_once(' ').expect("a queue id");
    id.to_owned()
}
