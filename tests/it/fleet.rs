//! Rotations of fleets of real parts: private Postfix instances, each with its agent, `relaykey-rotate run`, and the local AWS
//! server. Mail goes through all of them all the time; SES (a stand-in for each region) knows what IAM knows.
//!
//! The whole fleet has five: mx1 has two services, each with a table of its own; mx2 is down at first; on mx3 a person approves; on
//! mx4 a person writes (`write = false`); mx5 joins in the middle, and comes with the version before. The others have two: mx2 goes
//! back to the old login, before the old key is deactivated or after it; or it relays to another region, where SES never takes the
//! new key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use relaykey::standin::{self, Standin};
use rustix::process::{Pid, Signal, kill_process};
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
/// The same, where two hosts are enough.
const LIMIT_OF_TWO: u64 = 240;
/// Of the whole fleet's rotation.
const CLOCKS: &str = "grace = \"8s\"\nlast_use_lag = \"10s\"\nobserve = \"8s\"\npropagation = \"20s\"\n";
/// Where SES is asked besides.
const OTHER_REGION: &str = "us-east-1";

/// Which SES a member relays to.
struct Region<'a> {
    lab: &'a Lab,
    standin: &'a Arc<Standin>,
    name: &'a str,
}

impl<'a> Region<'a> {
    fn first(lab: &'a Lab) -> Self {
        Self { lab, standin: &lab.standin, name: REGION }
    }
}

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
    fn new(at: &Region<'_>, name: &'static str, login: &str, credential: &str, target: &str) -> Self {
        let Region { lab, standin, name: region } = at;
        let dir = scratch::private("member");
        let ca = dir.file("ca.pem", standin.ca_pem());
        let port = standin.starttls_port();
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
             [credential.smtp]\nendpoint = \"localhost\"\nport = {port}\nregion = {region:?}\nca_file = {ca:?}\n\
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
        Self { name, standin: Arc::clone(standin), postfix, dir, aws_key, agent: None }
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

    /// Ends this mail; all that was handed over arrives, and nothing waits. How often a message was put off on its way.
    fn put_off(&self, mail: &mut Mail) -> usize {
        let sent = mail.end();
        self.postfix.flush();
        self.postfix.queue_empty(Duration::from_secs(60));
        let log = self.postfix.log();
        let with = |status: &str| log.lines().filter(|line| line.contains(status)).count();
        let (deferred, bounced) = (with("status=deferred"), with("status=bounced"));
        println!("{}: {sent} messages all the time, {deferred} deferred, {bounced} bounced", self.name);
        assert_eq!(bounced, 0, "{}: {log}", self.name);
        deferred
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
                std::thread::sleep(Duration::from_millis(1500));
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

/// What this command prints with `--json`.
fn document(dir: &Path, command: &str) -> Value {
    let output = rotate(dir, &[command, "--json"]).output().expect("relaykey-rotate starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// How many hosts have confirmed, as `status` has it.
fn confirmed(dir: &Path) -> i64 {
    document(dir, "status")["confirmed"].as_i64().unwrap_or(-1)
}

/// `relaykey-rotate run`, at work. Dropped, it is ended.
struct Rotation {
    run: Child,
    log: PathBuf,
}

impl Rotation {
    fn begins(dir: &Path, wait: &str) -> Self {
        let log = dir.join("run.log");
        let file = fs::File::options().create(true).append(true).open(&log).expect("a file");
        let mut run = rotate(dir, &["run", "--wait", wait]);
        let run = run.stdout(file.try_clone().expect("a file")).stderr(file).spawn().expect("it starts");
        Self { run, log }
    }

    /// What it has said so far, and what those said before it.
    fn said(&self) -> String {
        fs::read_to_string(&self.log).expect("what it said")
    }

    fn goes_on(&mut self) -> bool {
        self.run.try_wait().expect("its end").is_none()
    }

    /// Its exit code, when it has ended by itself.
    fn ends(mut self) -> Option<i32> {
        let limit = Duration::from_secs(180);
        let status = wait_for("relaykey-rotate to end", limit, || self.run.try_wait().expect("its end"));
        println!("{}", self.said());
        status.code()
    }

    /// Asked for the end, it comes to it. What is under way in AWS stays as it is.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.run), Signal::TERM).expect("it runs");
        wait_for("relaykey-rotate to end", STEP, || self.run.try_wait().expect("its end"));
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        let _ = self.run.kill();
        let _ = self.run.wait();
    }
}

#[test]
fn a_whole_fleet_moves_and_the_old_key_dies_last() {
    isolated_within("fleet::a_whole_fleet_moves_and_the_old_key_dies_last", LIMIT, || {
        let lab = Lab::new(Kind::SecretsManager);
        let (first_version, old, password) = lab.published();
        let login = format!("{old}:{password}");
        let region = Region::first(&lab);
        let member = |name, credential: &str, target: &str| Member::new(&region, name, &login, credential, target);
        let mut members = vec![
            member("mx1.example.com", "", ""),
            member("mx2.example.com", "", ""),
            member("mx3.example.com", "mode = \"manual\"\n", ""),
            member("mx4.example.com", "", "write = false\n"),
        ];
        two_services(&members[0].postfix, &format!("[localhost]:{}", lab.standin.starttls_port()), &login);

        let dir = scratch::private("fleet");
        let ca = dir.file("ca.pem", lab.standin.ca_pem());
        dir.file("rotate.toml", configuration(&lab, &ca, "", CLOCKS));
        let _ses = Ses::knows_what_iam_knows(&lab, Duration::from_millis(500));
        let mut mail: Vec<Mail> =
            members.iter().map(|member| Mail::through(member.postfix.config_dir.clone())).collect();

        // Everybody proves what is in use; mx2 is down.
        for index in [0, 2, 3] {
            members[index].start();
        }
        wait_for("three hosts to have confirmed what is in use", STEP, || (confirmed(dir.path()) == 3).then_some(()));
        let (code, said) = told(dir.path(), &["hosts", "seal", "--expect", "3"]);
        assert_eq!(code, 0, "{said}");
        let (code, said) = told(dir.path(), &["hosts", "add", "mx2.example.com"]);
        assert_eq!(code, 0, "{said}");

        let mut run = Rotation::begins(dir.path(), "6m");
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
        wait_for("four hosts to have confirmed the new key", STEP, || (confirmed(dir.path()) == 4).then_some(()));
        assert!(lab.is_live(&old), "{}", run.said());
        std::thread::sleep(Duration::from_secs(12));
        assert!(lab.is_live(&old), "one host is still on it: {}", run.said());
        assert_eq!(members[1].key_of_mail(), old);
        assert!(run.goes_on(), "{}", run.said());

        members[1].start();
        wait_for("mx2 to move", STEP, || (members[1].key_of_mail() == new).then_some(()));
        let began = Instant::now();
        assert_eq!(run.ends(), Some(0));
        println!("ended {:?} after mx2 had moved", began.elapsed());
        assert_eq!(lab.keys(), [(new.clone(), "Active".to_owned())]);
        assert_ne!(lab.published().0, first_version);

        for (member, mail) in members.iter().zip(&mut mail) {
            assert_eq!(member.put_off(mail), 0, "{}: {}", member.name, member.postfix.log());
            assert_eq!(member.key_of_mail(), new, "{}", member.name);
        }
        let (code, said) = told(dir.path(), &["history", "--verify"]);
        assert_eq!(code, 0, "{said}");
    });
}

/// Two members of which the second leaves what somebody else writes; both have confirmed what is in use, and the roster is sealed.
struct Two {
    lab: Lab,
    /// Of `rotate.toml`.
    dir: TempDir,
    ca: PathBuf,
    members: Vec<Member>,
    mail: Vec<Mail>,
    old: String,
    old_login: String,
    _ses: Ses,
}

impl Two {
    /// `clocks`: of the rotation.
    fn with(clocks: &str) -> Self {
        let lab = Lab::new(Kind::SecretsManager);
        let (_, old, password) = lab.published();
        let old_login = format!("{old}:{password}");
        let region = Region::first(&lab);
        let members = vec![
            Member::new(&region, "mx1.example.com", &old_login, "", ""),
            Member::new(&region, "mx2.example.com", &old_login, "", "drift = \"report\"\n"),
        ];
        let dir = scratch::private("fleet");
        let ca = dir.file("ca.pem", lab.standin.ca_pem());
        let ses = Ses::knows_what_iam_knows(&lab, Duration::from_millis(500));
        let mail = members.iter().map(|member| Mail::through(member.postfix.config_dir.clone())).collect();
        let mut two = Self { lab, dir, ca, members, mail, old, old_login, _ses: ses };
        two.goes_by(clocks);
        two.members.iter_mut().for_each(Member::start);
        wait_for("both to have confirmed what is in use", STEP, || (confirmed(two.at()) == 2).then_some(()));
        let (code, said) = told(two.at(), &["hosts", "seal", "--expect", "2"]);
        assert_eq!(code, 0, "{said}");
        two
    }

    fn at(&self) -> &Path {
        self.dir.path()
    }

    /// What runs from now on has these clocks.
    fn goes_by(&self, clocks: &str) {
        self.dir.file("rotate.toml", configuration(&self.lab, &self.ca, "", clocks));
    }

    /// Both use a new key, and have confirmed it, as this run has seen and written down.
    fn moves(&self, run: &Rotation) -> String {
        let new =
            wait_for("a new key to be published", STEP, || Some(self.lab.published().1).filter(|key| *key != self.old));
        for member in &self.members {
            wait_for(member.name, STEP, || (member.key_of_mail() == new).then_some(()));
        }
        wait_for("the run to see that", STEP, || run.said().contains("all hosts have confirmed").then_some(()));
        new
    }

    /// Somebody puts the old login back at the second, and it says so.
    fn goes_back(&self) {
        by_hand(&self.members[1], &self.old_login);
        wait_for("the withdrawal", STEP, || {
            let status = document(self.at(), "status");
            let refusals = status["refusals"].as_array().expect("a list").iter();
            let of_it = |refusal: &&Value| refusal["class"] == "withdrawn" && refusal["host"] == "mx2.example.com";
            refusals.clone().find(of_it).map(|_| ())
        });
    }

    /// Somebody puts the published login there again. When that was begun.
    fn comes_back(&self) -> Timestamp {
        let (_, key, password) = self.lab.published();
        let at = Timestamp::now();
        by_hand(&self.members[1], &format!("{key}:{password}"));
        at
    }

    /// When this was last done with the old key.
    fn last(&self, what: &str) -> Timestamp {
        let of_it = |line: &&Value| line["what"] == what && line["event"] == "done" && line["key"] == self.old.as_str();
        wait_for(what, STEP, || {
            let history = document(self.at(), "history");
            let line = history["lines"].as_array()?.iter().rfind(of_it)?;
            Some(line["at"].as_str().expect("a time").parse().expect("a time"))
        })
    }

    /// The new key is the only one, in use everywhere. How many messages were put off at each.
    fn ended_well(&mut self, new: &str) -> [usize; 2] {
        assert_eq!(self.lab.keys(), [(new.to_owned(), "Active".to_owned())]);
        let (code, said) = told(self.at(), &["history", "--verify"]);
        assert_eq!(code, 0, "{said}");
        [0, 1].map(|index| {
            let put_off = self.members[index].put_off(&mut self.mail[index]);
            assert_eq!(self.members[index].key_of_mail(), new);
            put_off
        })
    }
}

#[test]
fn a_host_that_goes_back_before_the_old_key_is_deactivated_keeps_it_alive() {
    let name = "fleet::a_host_that_goes_back_before_the_old_key_is_deactivated_keeps_it_alive";
    isolated_within(name, LIMIT_OF_TWO, || {
        // For as long as the clocks run, nothing is deactivated: the test need not hurry.
        let mut two = Two::with("grace = \"2s\"\nlast_use_lag = \"1h\"\nobserve = \"2s\"\n");
        let run = Rotation::begins(two.at(), "3m");
        let new = two.moves(&run);
        two.goes_back();
        assert_eq!(two.members[1].key_of_mail(), two.old, "its mail goes on, with the old key");
        run.stop();

        // Now the clocks that began before would be over, and the old key stays, for this host alone.
        two.goes_by("grace = \"2s\"\nlast_use_lag = \"12s\"\nobserve = \"2s\"\n");
        let mut run = Rotation::begins(two.at(), "3m");
        std::thread::sleep(Duration::from_secs(12));
        assert!(two.lab.is_live(&two.old) && run.goes_on(), "{}", run.said());
        assert_eq!(two.members[1].key_of_mail(), two.old);
        let back = two.comes_back();
        assert_eq!(run.ends(), Some(0));
        let waited = two.last("deactivate").duration_since(back);
        assert!(waited.as_secs() >= 12, "the clocks begin anew when it has confirmed: {waited:#}");
        assert!(two.last("delete") > two.last("deactivate"));
        assert_eq!(two.ended_well(&new), [0, 0], "no mail was put off");
    });
}

#[test]
fn a_host_that_goes_back_after_the_old_key_was_deactivated_gets_it_back_at_once() {
    let name = "fleet::a_host_that_goes_back_after_the_old_key_was_deactivated_gets_it_back_at_once";
    isolated_within(name, LIMIT_OF_TWO, || {
        let mut two = Two::with("grace = \"2s\"\nlast_use_lag = \"2s\"\nobserve = \"1h\"\n");
        let run = Rotation::begins(two.at(), "3m");
        let new = two.moves(&run);
        wait_for("the old key to be proved dead", STEP, || {
            (document(two.at(), "status")["phase"] == "observing").then_some(())
        });
        assert!(!two.lab.is_live(&two.old));

        // Somebody puts the old login there, which nobody takes any more.
        by_hand(&two.members[1], &two.old_login);
        wait_for("the old key to be brought back", STEP, || two.lab.is_live(&two.old).then_some(()));
        let back = two.last("reactivate");
        run.stop();
        let logins = |accepted: bool| {
            let logins = two.lab.standin.logins().into_iter();
            let of_old = logins.filter(|login| login.username == two.old && login.accepted == accepted);
            of_old.map(|login| login.at).collect::<Vec<_>>()
        };
        // Postfix leaves alone for minutes where a login failed; asked to, it delivers now, with the old key.
        let taken = wait_for("mail with the old key", STEP, || {
            two.members[1].postfix.flush();
            logins(true).into_iter().find(|at| *at > back)
        });
        assert_eq!(two.members[1].key_of_mail(), two.old);
        let refused = logins(false);
        println!("refused: {refused:?}; brought back at {back}; taken at {taken}");
        assert!(refused.iter().all(|at| *at < taken), "it fails no longer than until then");

        // It comes back, and the rotation ends as any other.
        two.goes_by("grace = \"2s\"\nlast_use_lag = \"2s\"\nobserve = \"2s\"\n");
        let run = Rotation::begins(two.at(), "3m");
        let came_back = two.comes_back();
        assert_eq!(run.ends(), Some(0));
        assert!(two.last("delete") > two.last("deactivate") && two.last("deactivate") > came_back);
        let put_off = two.ended_well(&new);
        println!("put off: {put_off:?}");
        assert_eq!(put_off[0], 0, "the other one never noticed");
    });
}

#[test]
fn a_key_that_ses_takes_in_one_region_of_two_reaches_no_host() {
    isolated_within("fleet::a_key_that_ses_takes_in_one_region_of_two_reaches_no_host", LIMIT_OF_TWO, || {
        let second = Arc::new(Standin::start(standin::Options::default()).expect("a stand-in"));
        let lab = Lab::with_also(&second, OTHER_REGION);
        let (first_version, old, _) = lab.published();
        let regions = [Region::first(&lab), Region { lab: &lab, standin: &second, name: OTHER_REGION }];
        let mut members: Vec<Member> = regions
            .iter()
            .zip(["mx1.example.com", "mx2.example.com"])
            .map(|(region, name)| Member::new(region, name, &lab.pair_in(&old, region.name), "", ""))
            .collect();
        let dir = scratch::private("fleet");
        let ca = dir.file("ca.pem", lab.standin.ca_pem().to_owned() + second.ca_pem());
        let port = second.starttls_port();
        let also =
            format!("[[credential.smtp.also]]\nendpoint = \"localhost\"\nport = {port}\nregion = {OTHER_REGION:?}\n");
        let clocks = "grace = \"2s\"\nlast_use_lag = \"2s\"\nobserve = \"2s\"\npropagation = \"6s\"\n";
        dir.file("rotate.toml", configuration(&lab, &ca, &also, clocks));
        // The other region never hears of a new key.
        let _ses = Ses::knows_what_iam_knows(&lab, Duration::from_millis(500));
        let mut mail: Vec<Mail> =
            members.iter().map(|member| Mail::through(member.postfix.config_dir.clone())).collect();
        members.iter_mut().for_each(Member::start);
        wait_for("both to have confirmed what is in use", STEP, || (confirmed(dir.path()) == 2).then_some(()));
        let (code, said) = told(dir.path(), &["hosts", "seal", "--expect", "2"]);
        assert_eq!(code, 0, "{said}");

        let (code, said) = told(dir.path(), &["run", "--wait", "12s"]);
        println!("{code}: {said}");
        assert!(code != 0 && said.contains("ses-refuses"), "{code}: {said}");
        let status = document(dir.path(), "status");
        let new = lab.keys().into_iter().map(|(key, _)| key).find(|key| *key != old).expect("a new key was made");
        let replies = |standin: &Standin| {
            let logins = standin.logins();
            let of_new = logins.iter().filter(|login| login.username == new);
            of_new.map(|login| login.accepted).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(replies(&lab.standin).contains(&true), "the first region takes it");
        assert_eq!(replies(&second).into_iter().collect::<Vec<_>>(), [false], "the other one never does");
        // Nothing was published: no host has the new key, and all mail goes on with the old one.
        assert_eq!((lab.published().0, lab.published().1), (first_version, old.clone()), "{status:#}");
        assert!(lab.is_live(&old));
        for (member, mail) in members.iter().zip(&mut mail) {
            assert_eq!(member.put_off(mail), 0, "{}: {}", member.name, member.postfix.log());
            assert_eq!(member.key_of_mail(), old, "{}", member.name);
            assert_eq!(member.state()["applied"]["username"], old.as_str(), "{}", member.name);
            assert!(member.standin.messages().iter().all(|message| message.username == old));
        }
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

/// `also`: further endpoints; `clocks`: of the rotation.
fn configuration(lab: &Lab, ca: &Path, also: &str, clocks: &str) -> String {
    format!(
        "config_version = 1\n[aws]\nregion = {REGION:?}\nendpoint_url = {:?}\n[[credential]]\nname = \"ses\"\n\
         iam_user = {USER:?}\n[credential.smtp]\nendpoint = \"localhost\"\nport = {}\ntls = \"starttls\"\n\
         region = {REGION:?}\nca_file = {ca:?}\ntimeout = \"5s\"\n{also}[[credential.publish]]\ntype = \"secrets-manager\"\n\
         secret = {SECRET:?}\n[credential.evidence]\ntype = \"dynamodb\"\ntable = {TABLE:?}\n\
         [credential.rotation]\n{clocks}[lab]\nallow_short = true\n",
        lab.moto.endpoint(),
        lab.standin.starttls_port(),
    )
}
