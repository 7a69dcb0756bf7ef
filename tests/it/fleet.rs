//! A whole rotation of a fleet of real parts: five private Postfix instances, each with its agent, `relaykey-rotate run`, and the
//! local AWS server. Mail goes through all of them all the time; SES (one stand-in for all) knows what IAM knows.
//!
//! mx1 has two services, each with a table of its own; mx2 is down at first; on mx3 a person approves; on mx4 a person writes
//! (`write = false`); mx5 joins in the middle, and comes with the version before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use relaykey::standin::Standin;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::isolated::isolated_within;
use crate::lab::moto::REGION;
use crate::lab::postfix::{Instance, Options, wait_for};
use crate::lab::relaykey::{Program, send};
use crate::lab::scratch::{self, Files as _};
use crate::rotate::lab::{Kind, Lab, SECRET, Ses, TABLE, USER, program};

/// How long the whole may take. Where it takes longer, something hangs.
const LIMIT: u64 = 420;
const STEP: Duration = Duration::from_secs(90);

/// One mail server with its agent.
struct Member {
    name: &'static str,
    standin: Arc<Standin>,
    postfix: Instance,
    /// Configuration and state.
    dir: TempDir,
    /// Of an IAM user of its own.
    aws_key: String,
    /// Its agent, where it runs.
    agent: Option<Program>,
}

impl Member {
    /// With this login in its table. `credential`, `target`: further lines of its configuration.
    fn new(lab: &Lab, name: &'static str, login: &str, credential: &str, target: &str) -> Self {
        let dir = scratch::private("member");
        let ca = dir.file("ca.pem", lab.standin.ca_pem());
        let port = lab.standin.starttls_port();
        let hop = format!("[localhost]:{port}");
        let table = format!("# relays of {name}\n{hop} {login}\n");
        let postfix = Instance::new(&Options {
            map_type: "hash",
            relayhost: &hop,
            ca_pem: Some(&ca),
            table: Some(&table),
            settings: &[],
        });
        let aws = format!("region = {REGION:?}\nendpoint_url = {:?}\n", lab.moto.endpoint());
        let text = format!(
            "config_version = 1\n[host]\ninstances = \"named\"\nname = {name:?}\nstate_dir = {:?}\nrun_dir = {:?}\n[[credential]]\nname = \"ses\"\n\
             {credential}[credential.source]\ntype = \"secrets-manager\"\nsecret = {SECRET:?}\npoll = \"5s\"\n{aws}\
             [credential.smtp]\nendpoint = \"localhost\"\nport = {port}\nregion = {REGION:?}\nca_file = {ca:?}\n\
             [[credential.target]]\ntype = \"postfix\"\nname = \"main\"\nconfig_dir = {:?}\n{target}\
             [[report]]\nname = \"fleet\"\ntype = \"dynamodb\"\nlayout = 2\ntable = {TABLE:?}\n{aws}",
            dir.path().join("state"),
            dir.path().join("run"),
            postfix.config_dir,
        );
        dir.file("config.toml", &text);
        postfix.start();
        let keys = lab.moto.lab("iam", &json!({"user": name, "make": true}));
        let aws_key = keys[0]["id"].as_str().expect("an id").to_owned();
        Self { name, standin: Arc::clone(&lab.standin), postfix, dir, aws_key, agent: None }
    }

    fn relaykey(&self, arguments: &[&str]) -> Program {
        let config = self.dir.path().join("config.toml");
        let mut all = vec!["--config", config.to_str().expect("a path in UTF-8")];
        all.extend(arguments);
        Program::start(
            &all,
            &[("AWS_ACCESS_KEY_ID", &self.aws_key), ("AWS_SECRET_ACCESS_KEY", "of-no-importance")],
            b"",
        )
    }

    fn start(&mut self) {
        self.agent = Some(self.relaykey(&["run"]));
    }

    /// The user name under which one message leaves.
    fn key_of_mail(&self) -> String {
        send(&self.standin, &self.postfix)
    }

    /// The state of the credential.
    fn state(&self) -> Value {
        let text = fs::read_to_string(self.dir.path().join("state/credentials/ses.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// Hands a member's Postfix messages all the time, until it is dropped.
struct Mail {
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Mail {
    fn through(config_dir: PathBuf) -> Self {
        let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stop, count) = (Arc::clone(&ended), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut sendmail = Command::new("/usr/sbin/sendmail");
                sendmail.arg("-C").arg(&config_dir).args(["-f", "all-the-time@lab.invalid", "to@example.net"]);
                let mut sendmail = sendmail.stdin(Stdio::piped()).spawn().expect("sendmail starts");
                let mut stdin = sendmail.stdin.take().expect("piped");
                std::io::Write::write_all(&mut stdin, b"Subject: all the time\n\nHello.\n").expect("written");
                drop(stdin);
                assert!(sendmail.wait().expect("it ends").success());
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(700));
            }
        });
        Self { ended, sent, thread: Some(thread) }
    }

    /// No more of it; how many there were.
    fn end(&mut self) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("all mail was handed over");
        }
        self.sent.load(Ordering::Relaxed)
    }
}

/// `relaykey-rotate` with the configuration in this directory.
fn rotate(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.env_clear().envs([
        ("AWS_ACCESS_KEY_ID", "AKIACONTROLLER000000"),
        ("AWS_SECRET_ACCESS_KEY", "of-no-importance"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    command.arg("--config").arg(dir.join("rotate.toml")).args(arguments).stdin(Stdio::null());
    command
}

fn told(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = rotate(dir, arguments).output().expect("relaykey-rotate starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("a code"), text)
}

/// The hosts as `status --json` has them.
fn confirmed(dir: &Path) -> (i64, String) {
    let output = rotate(dir, &["status", "--json"]).output().expect("relaykey-rotate starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (status["confirmed"].as_i64().unwrap_or(-1), text)
}

#[test]
fn a_whole_fleet_moves_and_the_old_key_dies_last() {
    isolated_within("fleet::a_whole_fleet_moves_and_the_old_key_dies_last", LIMIT, || {
        let lab = Lab::new(Kind::SecretsManager);
        let (first_version, old, password) = lab.published();
        let login = format!("{old}:{password}");
        let member = |name, credential: &str, target: &str| Member::new(&lab, name, &login, credential, target);
        let mut members = vec![
            member("mx1.example.com", "", ""),
            member("mx2.example.com", "", ""),
            member("mx3.example.com", "mode = \"manual\"\n", ""),
            member("mx4.example.com", "", "write = false\n"),
        ];
        two_services(&members[0].postfix, &format!("[localhost]:{}", lab.standin.starttls_port()), &login);

        let dir = scratch::private("fleet");
        let ca = dir.file("ca.pem", lab.standin.ca_pem());
        dir.file("rotate.toml", configuration(&lab, &ca));
        let _ses = Ses::knows_what_iam_knows(&lab, Duration::from_millis(200));
        let mut mail: Vec<Mail> =
            members.iter().map(|member| Mail::through(member.postfix.config_dir.clone())).collect();

        // Everybody proves what is in use; mx2 is down.
        for index in [0, 2, 3] {
            members[index].start();
        }
        wait_for("three hosts to have confirmed what is in use", STEP, || (confirmed(dir.path()).0 == 3).then_some(()));
        let (code, said) = told(dir.path(), &["hosts", "seal", "--expect", "3"]);
        assert_eq!(code, 0, "{said}");
        let (code, said) = told(dir.path(), &["hosts", "add", "mx2.example.com"]);
        assert_eq!(code, 0, "{said}");

        let log = fs::File::create(dir.path().join("run.log")).expect("a file");
        let errors = log.try_clone().expect("a file");
        let mut run =
            rotate(dir.path(), &["run", "--wait", "6m"]).stdout(log).stderr(errors).spawn().expect("it starts");
        let said = || fs::read_to_string(dir.path().join("run.log")).expect("what it said");
        let new = wait_for("the new key to be published", STEP, || Some(lab.published().1).filter(|key| *key != old));

        // mx1 moves by itself, both of its services.
        wait_for("mx1 to move", STEP, || (members[0].key_of_mail() == new).then_some(()));
        // One joins, with the version before in its table.
        let joined = member("mx5.example.com", "", "");
        mail.push(Mail::through(joined.postfix.config_dir.clone()));
        members.push(joined);
        members[4].start();
        wait_for("mx5 to move", STEP, || (members[4].key_of_mail() == new).then_some(()));
        // mx3 waits for a person.
        // Asked before it waits, each try would put off the look that has it wait.
        wait_for("mx3 to wait for a person", STEP, || {
            members[2].state()["candidate"]["held"].is_object().then_some(())
        });
        assert_eq!(members[2].relaykey(&["approve", "ses"]).wait(STEP).code, 0);
        // mx4 shows what to write, and a person writes it.
        write_by_hand(&members[3], &lab);
        // So far all but mx2: the old key lives.
        wait_for("four hosts to have confirmed the new key", STEP, || (confirmed(dir.path()).0 == 4).then_some(()));
        assert!(lab.is_live(&old), "{}", said());
        std::thread::sleep(Duration::from_secs(12));
        assert!(lab.is_live(&old), "one host is still on it: {}", said());
        assert_eq!(members[1].key_of_mail(), old);
        assert!(run.try_wait().expect("its end").is_none(), "{}", said());

        members[1].start();
        wait_for("mx2 to move", STEP, || (members[1].key_of_mail() == new).then_some(()));
        let began = Instant::now();
        wait_for("relaykey-rotate to end", Duration::from_secs(180), || run.try_wait().expect("its end"));
        println!("{}\n-- ended {:?} after mx2 had moved", said(), began.elapsed());
        assert_eq!(run.wait().expect("its end").code(), Some(0), "{}", said());
        assert_eq!(lab.keys(), [(new.clone(), "Active".to_owned())]);
        assert_ne!(lab.published().0, first_version);

        // All mail came through: what was handed over arrived, and nothing waits.
        for (member, mail) in members.iter().zip(&mut mail) {
            let sent = mail.end();
            member.postfix.flush();
            member.postfix.queue_empty(Duration::from_secs(60));
            let log = member.postfix.log();
            let deferred = log.lines().filter(|line| line.contains("status=deferred")).count();
            let bounced = log.lines().filter(|line| line.contains("status=bounced")).count();
            println!("{}: {sent} messages all the time, {deferred} deferred, {bounced} bounced", member.name);
            assert_eq!((deferred, bounced), (0, 0), "{}: {log}", member.name);
            assert_eq!(member.key_of_mail(), new, "{}", member.name);
        }
        let (code, said) = told(dir.path(), &["history", "--verify"]);
        assert_eq!(code, 0, "{said}");
    });
}

/// A person writes this login.
fn by_hand(member: &Member, login: &str) {
    let hop = format!("[localhost]:{}", member.standin.starttls_port());
    member.postfix.write_table(&format!("{hop} {login}\n"));
    member.postfix.postmap();
    member.postfix.reload();
}

/// A second smtp(8) service with a table of its own, which takes the mail of one domain.
fn two_services(postfix: &Instance, hop: &str, login: &str) {
    let dir = postfix.config_dir.clone();
    let table = dir.join("second_passwd");
    fs::write(&table, format!("{hop} {login}\n")).expect("written");
    let ran = |command: &mut Command| {
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    ran(Command::new("/usr/sbin/postmap").arg("-c").arg(&dir).arg(format!("hash:{}", table.display())));
    let postconf = || {
        let mut command = Command::new("/usr/sbin/postconf");
        command.arg("-c").arg(&dir);
        command
    };
    ran(postconf().args(["-M", "second/unix=second unix - - n - - smtp"]));
    ran(postconf().args(["-P", &format!("second/unix/smtp_sasl_password_maps=hash:{}", table.display())]));
    ran(postconf().args(["-e", "transport_maps=inline:{{second.example = second:}}"]));
    postfix.reload();
}

/// What the agent shows is written by a person.
fn write_by_hand(member: &Member, lab: &Lab) {
    wait_for("mx4 to say what to write", STEP, || member.state()["candidate"]["version"].is_string().then_some(()));
    let (_, key, password) = lab.published();
    by_hand(member, &format!("{key}:{password}"));
}

fn configuration(lab: &Lab, ca: &Path) -> String {
    format!(
        "config_version = 1\n[aws]\nregion = {REGION:?}\nendpoint_url = {:?}\n[[credential]]\nname = \"ses\"\n\
         iam_user = {USER:?}\n[credential.smtp]\nendpoint = \"localhost\"\nport = {}\ntls = \"starttls\"\n\
         region = {REGION:?}\nca_file = {ca:?}\ntimeout = \"5s\"\n[[credential.publish]]\ntype = \"secrets-manager\"\n\
         secret = {SECRET:?}\n[credential.evidence]\ntype = \"dynamodb\"\ntable = {TABLE:?}\n\
         [credential.rotation]\ngrace = \"8s\"\nlast_use_lag = \"10s\"\nobserve = \"8s\"\npropagation = \"20s\"\n\
         [lab]\nallow_short = true\n",
        lab.moto.endpoint(),
        lab.standin.starttls_port(),
    )
}
