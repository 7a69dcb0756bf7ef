//! One rollover, and every kind of receiver there is: each gets the document, `verify-proof` accepts it there, and refuses
//! it with any signed field changed. The real program, a real Postfix, a local AWS, a webhook receiver in Python.

use crate::lab::book;
use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::relaykey as lab;
use crate::lab::scratch::Files as _;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use book::Book;
use lab::{DELIVERY, Host, Key, Program, RUN, Setup, keep_secret};
use postfix::wait_for;
use relaykey::credential::Secret;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

fn python() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python"))
}

/// A webhook receiver that is not ours: HTTPS by Python, signatures by a library of Standard Webhooks. What it has
/// verified it adds to a file. Dropped, it is ended.
struct Hook {
    child: Child,
    taken: PathBuf,
    port: u16,
}

const RECEIVER: &str = r#"
import http.server, json, ssl, sys
from standardwebhooks import Webhook
cert, key, secret, taken, port = sys.argv[1:]
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Webhook(open(secret).read().strip()).verify(body, dict(self.headers))
        with open(taken, "a") as file:
            file.write(body.decode().strip() + "\n")
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(port + ".new", "w") as file:
    file.write(str(server.server_address[1]))
import os; os.rename(port + ".new", port)
server.serve_forever()
"#;

impl Hook {
    /// `[[report]]` tables name its CA as `hook-ca.pem` and its secret as `hook.secret`, in the host's directory.
    fn start(host: &Host) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.self_signed(&key).expect("a certificate");
        let file = |name: &str, text: &str| {
            host.dir.file(name, text);
            let path = host.path(name);
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
            path
        };
        let secret = "whsec_a2luZHMtb2YtcmVjZWl2ZXJzLXNpZ25pbmcta2V5LTAwMDE=";
        keep_secret(secret);
        let (cert, secret) = (file("hook-ca.pem", &certificate.pem()), file("hook.secret", secret));
        let key = file("hook-key.pem", &key.serialize_pem());
        let (taken, port) = (host.path("hook-taken"), host.path("hook-port"));
        let child = python()
            .args(["-c", RECEIVER])
            .args([&cert, &key, &secret, &taken, &port])
            .stdin(Stdio::null())
            .spawn()
            .expect("Python starts");
        let read = || fs::read_to_string(&port).ok()?.parse().ok();
        let mut hook = Self { child, taken, port: 0 };
        hook.port = wait_for("the port of the webhook receiver", SOON, read);
        hook
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The JSON document that a message carries, as Python's MIME parser finds it.
fn attachment(message: &[u8]) -> Value {
    let script = "import email, email.policy, sys\n\
                  m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)\n\
                  print(next(p.get_content().decode() for p in m.iter_attachments()))";
    let mut child =
        python().args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
    child.stdin.take().expect("piped").write_all(message).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(message));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// `verify-proof` over a document, with the password in file descriptor 3.
fn verify(host: &Host, key: &Key, document: &Value, arguments: &[&str]) -> lab::Ran {
    host.dir.file("held", key.password());
    let all = [&["verify-proof", "--password-fd", "3"], arguments].concat();
    Program::start_with_descriptor(&all, &host.path("held"), document.to_string().as_bytes()).wait(RUN)
}

#[test]
fn each_kind_of_receiver_gets_a_report_that_can_be_verified_there() {
    let first = Key::new();
    let host = Host::new("hash", &first);
    host.start_postfix();
    let (book, hook) = (Book::new(), Hook::start(&host));
    let (path, table) = (format!("/{}", lab::fresh("kinds")), lab::fresh("kinds"));
    moto::shared().call(
        "DynamoDB_20120810.CreateTable",
        json!({
            "TableName": table, "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "credential", "AttributeType": "S"}, {"AttributeName": "host", "AttributeType": "S"},
            ],
            "KeySchema": [
                {"AttributeName": "credential", "KeyType": "HASH"}, {"AttributeName": "host", "KeyType": "RANGE"},
            ],
        }),
    );
    let aws = format!("region = {:?}\nendpoint_url = {:?}\n", moto::REGION, moto::shared().endpoint());
    let more = [
        book.receiver(),
        format!("[[report]]\nname = \"parameter\"\ntype = \"parameter-store\"\npath = {path:?}\n{aws}"),
        format!("[[report]]\nname = \"table\"\ntype = \"dynamodb\"\ntable = {table:?}\n{aws}"),
        format!(
            "[[report]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"https://localhost:{}/in\"\nsecret_file = {:?}\nca_file = {:?}\n",
            hook.port,
            host.path("hook.secret"),
            host.path("hook-ca.pem"),
        ),
        format!(
            "[[report]]\nname = \"mail\"\ntype = \"email\"\nfrom = \"relaykey@example.com\"\nto = \"postmaster@example.com\"\n\
             server = \"127.0.0.1:{}\"\n",
            host.postfix.smtpd_port
        ),
    ]
    .concat();
    host.configure(&Setup { source: &host.publish(first.pair()), more: &more, ..Setup::default() });
    let check = host.relaykey(&["check"]);
    check.expect(0).says(&["report book", "report parameter", "report table", "report hook", "report mail"]);
    host.sync(&[], 0);
    let second = Key::new();
    host.standin.set_key(&second.id, &second.login.password);
    host.publish(second.pair());
    host.sync(&[], 0).says(&["reported to book", "reported to mail", "reported to hook"]);
    let report = host.state("ses")["report"].clone();

    let parameter = json!({"Names": [format!("{path}/ses/mx1.example.com")]});
    let parameter = moto::shared().call("AmazonSSM.GetParameters", parameter);
    let item = json!({"TableName": table, "Key": {"credential": {"S": "ses"}, "host": {"S": "mx1.example.com"}}});
    let item = moto::shared().call("DynamoDB_20120810.GetItem", item);
    let last_line = |text: &str| text.lines().last().map(str::to_owned).expect("a line");
    let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let is_ours = |m: &&relaykey::standin::TakenMessage| {
        m.from == "relaykey@example.com"
            && String::from_utf8_lossy(&m.text).contains(report["id"].as_str().expect("an id"))
    };
    let mail = host
        .standin
        .wait_for(DELIVERY, "the message", |seen| seen.messages.iter().find(is_ours).map(|m| m.text.clone()));
    let there = [
        ("exec", book.reports().pop().expect("a report")),
        ("parameter-store", parsed(parameter["Parameters"][0]["Value"].as_str().expect("a value"))),
        ("dynamodb", parsed(item["Item"]["report"]["S"].as_str().expect("a document"))),
        ("webhook", parsed(&last_line(&fs::read_to_string(&hook.taken).expect("taken")))),
        ("email", attachment(&mail.expect("delivered"))),
    ];
    for (kind, document) in &there {
        assert_eq!(*document, report, "{kind}");
        verify(&host, &second, document, &[]).expect(0);
        verify(&host, &first, document, &[]).expect(1);
        verify(&host, &second, document, &["--host", "mx2.example.com"]).expect(1);
        let version = document["version"].as_str().expect("a version");
        verify(&host, &second, document, &["--expect-version", version]).expect(0);
        verify(&host, &second, document, &["--expect-version", "another"]).expect(1);
        for field in ["host_id", "host", "credential", "version", "username", "outcome", "at"] {
            let mut forged = document.clone();
            forged[field] = if field == "outcome" { "adopted".into() } else { format!("{}x", field).into() };
            assert_ne!(verify(&host, &second, &forged, &[]).code, 0, "{kind}: {field}");
        }
        let mut forged = document.clone();
        forged["seq"] = (document["seq"].as_u64().expect("a number") + 1).into();
        verify(&host, &second, &forged, &[]).expect(1);
        for field in ["name", "region"] {
            let mut forged = document.clone();
            forged["targets"][0][field] = "us-west-1".into();
            verify(&host, &second, &forged, &[]).expect(1);
        }
    }
    assert_eq!(host.state("ses")["outbox"].as_object().expect("a map").len(), there.len());
}

#[test]
fn a_weak_password_gets_no_proof_and_it_says_why() {
    let host = Host::with("hash", |hop| Some(format!("{hop} relay:correct-horse\n")));
    let weak = Secret::new("correct-horse".into());
    keep_secret("correct-horse");
    host.standin.set_key("relay", &weak);
    host.start_postfix();
    let book = Book::new();
    let source = host.publish("relay:correct-horse");
    host.configure(&Setup { source: &source, more: &book.receiver(), ..Setup::default() });
    // Not SES: any password will do, and is no key for a proof.
    let path = host.path("config.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    fs::write(&path, text.replace(&format!("region = {:?}\n", lab::REGION), "")).expect("written");
    host.sync(&[], 0).says(&["ses: adopted"]);
    let report = book.reports().pop().expect("a report");
    let target = &report["targets"][0];
    assert_eq!(target["proof"], Value::Null);
    assert!(target["no_proof"].as_str().expect("words").contains("help to guess it"), "{target}");
}
