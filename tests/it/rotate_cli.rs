//! `relaykey-rotate` as people and timers call it: the real program against the local AWS server and the SES stand-in.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use relaykey::credential::{Secret, ses_smtp_password};
use relaykey::rollover::ReportOutcome;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::isolated::{isolated, isolated_within};
use crate::lab::moto::REGION;
use crate::lab::scratch::{self, Files as _};
use crate::rotate::lab::{Kind, Lab, SECOND, SECRET, Ses, SimHost, TABLE, USER, host, program};

/// What a command printed, and its exit code.
struct Ran {
    out: String,
    err: String,
    code: i32,
}

impl Ran {
    #[track_caller]
    fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "--- standard output\n{}\n--- standard error\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(&self, words: &str) -> &Self {
        // Lines are broken where they are full.
        let flowing = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let says = |text: &String| text.contains(words) || flowing(text).contains(&flowing(words));
        assert!(says(&self.out) || says(&self.err), "no {words:?} in\n{}\n---\n{}", self.out, self.err);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }

    /// What was done, as the lines of JSON tell it.
    fn actions(&self) -> Vec<String> {
        let lines = self.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let actions = lines.filter(|line| line["event"] == "action");
        actions.map(|line| line["action"].as_str().expect("a word").to_owned()).collect()
    }
}

/// The program in an environment of its own.
fn rotate(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(program());
    command.args(arguments).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    let output = command.output().expect("relaykey-rotate starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Ran { out: text(&output.stdout), err: text(&output.stderr), code: output.status.code().expect("a code") }
}

/// A lab with a configuration file, and SES that knows what IAM knows.
struct Desk {
    _ses: Ses,
    lab: Lab,
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let lab = Lab::new(Kind::SecretsManager);
        let dir = scratch::private("rotate-cli");
        let ca = dir.file("ca.pem", lab.standin.ca_pem());
        dir.file("roots.pem", lab.moto.ca_pem());
        let text = format!(
            r#"config_version = 1
[aws]
region = "{REGION}"
endpoint_url = "{}"
[[credential]]
name = "ses"
iam_user = "{USER}"
[credential.smtp]
endpoint = "localhost"
port = {}
region = "{REGION}"
ca_file = {ca:?}
[[credential.publish]]
type = "secrets-manager"
secret = "{SECRET}"
[credential.evidence]
type = "dynamodb"
table = "{TABLE}"
[credential.rotation]
grace = "1s"
last_use_lag = "1s"
observe = "1s"
[lab]
allow_short = true
"#,
            lab.moto.endpoint(),
            lab.standin.starttls_port(),
        );
        dir.file("rotate.toml", text);
        Self { _ses: Ses::knows_what_iam_knows(&lab, Duration::from_millis(50)), lab, dir }
    }

    /// The path of a configuration that differs in one place.
    fn edited(&self, from: &str, to: &str) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("rotate.toml")).expect("the configuration");
        assert!(text.contains(from), "no {from:?} in {text}");
        let path = self.dir.file("edited.toml", text.replace(from, to));
        path.to_str().expect("a path").to_owned()
    }

    fn rotate(&self, arguments: &[&str]) -> Ran {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        rotate(arguments, &environment)
    }

    fn environment(&self) -> [(&'static str, String); 6] {
        let path = |name: &str| self.dir.path().join(name).to_str().expect("a path").to_owned();
        [
            ("AWS_ACCESS_KEY_ID", crate::lab::isolated::KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", "of-no-importance".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ("HOME", "/nonexistent".into()),
            ("SSL_CERT_FILE", path("roots.pem")),
            ("RELAYKEY_ROTATE_CONFIG", path("rotate.toml")),
        ]
    }
}

/// The host takes what is published, and says so with proof. It asks for news every second.
fn takes(lab: &Lab, host: &mut SimHost) {
    let (version, key, password) = lab.published();
    host.applied = Some((version, key));
    let mut report = lab.report(host, ReportOutcome::Confirmed, &password);
    report.poll_s = Some(1);
    lab.writes(host, &report);
}

/// From the first `check` to the end of the old key, with nothing but commands.
#[test]
fn a_whole_rotation_from_the_command_line() {
    isolated("rotate_cli::a_whole_rotation_from_the_command_line", || {
        let desk = Desk::new();
        let lab = &desk.lab;
        let old = lab.published().1;
        let mut hosts = [host("mx1"), host("mx2"), host("mx3")];
        for host in &mut hosts {
            takes(lab, host);
        }
        let before = lab.everything();
        let check = desk.rotate(&["check"]);
        check
            .expect(0)
            .says("3 hosts have reported")
            .says("ses-smtp has 1 of two keys")
            .says(&format!("{old} is published"));
        // All that it tried, and what it could not.
        check.says(&format!("login          {old} at localhost:")).says("235").says("ca_file");
        check
            .says("iam:UpdateAccessKey, iam:DeleteAccessKey")
            .says("secretsmanager:UpdateSecretVersionStage")
            .says("dynamodb:PutItem");
        check.says("not tried      iam:CreateAccessKey, secretsmanager:PutSecretValue");
        assert_eq!(before, lab.everything(), "it changes nothing");
        desk.rotate(&["plan"]).expect(0).says("no rotation is under way");
        desk.rotate(&["run", "--once"]).expect(0);

        // Nobody said how many hosts there are, and none has the new key.
        let ran = desk.rotate(&["run", "--wait", "10s"]);
        ran.expect(3).says("roster-open").says("confirmed 0/3");
        // What is to be pasted is about this configuration.
        let config = desk.dir.path().join("rotate.toml");
        ran.says(&format!("`relaykey-rotate --config {} hosts seal --expect N`", config.display()));
        assert_eq!(ran.actions(), ["create", "put", "log-in", "promote"]);
        let status = desk.rotate(&["status", "--json"]);
        let document = status.expect(3).json();
        assert_eq!(document["schema"], "relaykey/rotate/v1");
        assert_eq!(document["lab"], true);
        assert_eq!(document["old"], old);
        assert_eq!(document["hosts"].as_array().expect("hosts").len(), 3);
        desk.rotate(&["hosts", "seal"]).expect(2).says("how many mail servers are there? 3 hosts have reported");
        // Fewer than there are would leave somebody without the new key.
        desk.rotate(&["hosts", "seal", "--expect", "2"]).expect(2).says("more hosts than 2 are counted already: 3");
        desk.rotate(&["hosts", "seal", "--expect", "3"]).expect(0);
        desk.rotate(&["hosts", "list"]).expect(0).says("sealed with the next look of a run");
        desk.rotate(&["hosts", "list"]).expect(0).says("confirmed 0/3").says(&format!("uses {old}"));

        for host in &mut hosts {
            takes(lab, host);
        }
        let begun = Instant::now();
        let ran = desk.rotate(&["run", "--wait", "100s"]);
        ran.expect(0).says("is in use, and no other key is");
        assert!(begun.elapsed() > Duration::from_secs(3), "the waiting times were kept");
        let actions: Vec<String> = ran.actions().into_iter().filter(|word| word != "log-in").collect();
        assert_eq!(actions, ["intend", "deactivate", "record-proved-dead", "delete"]);
        assert_eq!(lab.keys().len(), 1);
        assert_ne!(lab.published().1, old);

        // A line for each action: who asked, what, and that it was in a lab.
        let first: Value = serde_json::from_str(ran.out.lines().next().expect("a line")).expect("JSON");
        assert_eq!((&first["schema"], &first["lab"]), (&"relaykey/rotate/v1".into(), &true.into()));
        assert!(first["by"].as_str().expect("who").starts_with("arn:aws:"), "{first}");

        desk.rotate(&["plan"]).expect(0).says("no rotation is under way");
        let history = desk.rotate(&["history", "--verify"]);
        history.expect(0).says("the log holds").says("delete: done").says("by arn:aws:");
        // Neither output has a secret in it, and each begins with what it is.
        let password = lab.published().2;
        for ran in [&ran, &history, &status] {
            assert!(!ran.out.contains(&password) && !ran.err.contains(&password));
        }
        assert!(history.out.starts_with("LAB"), "{}", history.out);
    });
}

#[test]
fn people_say_what_they_know_of_hosts() {
    isolated("rotate_cli::people_say_what_they_know_of_hosts", || {
        let desk = Desk::new();
        let mut one = host("mx1");
        takes(&desk.lab, &mut one);
        desk.rotate(&["run", "--once"]).expect(0);
        desk.rotate(&["hosts", "add", "mx9"]).expect(0).says("mx9 is waited for");
        desk.rotate(&["hosts", "list"]).expect(0).says("never heard of");
        desk.rotate(&["hosts", "waive", "mx9", "--reason", "short"]).expect(2).says("less than ten characters");
        desk.rotate(&["hosts", "waive", "mx9", "--reason", "down for repair", "--for", "91d"])
            .expect(2)
            .says("90 days");
        // The first one is half of all.
        let waive = ["hosts", "waive", "mx9", "--reason", "down for repair"];
        desk.rotate(&waive).expect(2).says("1 of 2 hosts would be waived");
        desk.rotate(&[&waive[..], &["--yes"]].concat()).expect(0).says("mx9 is waived until");
        desk.rotate(&["hosts", "list"]).expect(0).says("down for repair").says("1 host has reported");
        desk.rotate(&["hosts", "waive", "mx1", "--reason", "looked at its table"])
            .expect(2)
            .says("2 of 2 hosts would be waived");
        // Nobody of that name is there.
        for said in [
            &["unwaive", "mx8"][..],
            &["remove", "mx8"],
            &["accept", "mx8"],
            &["waive", "mx8", "--reason", "down for repair"],
        ] {
            desk.rotate(&[&["hosts"], said].concat())
                .expect(2)
                .says("no host is named \"mx8\"")
                .says("did you mean mx");
        }
        desk.rotate(&["hosts", "remove", "smtp-gateway"]).expect(2).says("there are: mx1, mx9");
        desk.rotate(&["hosts", "unwaive", "mx9"]).expect(0);
        desk.rotate(&["hosts", "remove", "mx9"]).expect(0);
        // One that reports is not taken out by mistake.
        let ran = desk.rotate(&["hosts", "remove", "mx1"]);
        ran.expect(2).says("mx1 reported ").says("hosts remove mx1 --yes`");
        desk.rotate(&["hosts", "list"]).expect(0).says("mx1");
        let listed = desk.rotate(&["hosts", "list", "--json"]);
        let hosts = listed.expect(0).json()["hosts"].clone();
        assert_eq!(hosts.as_array().expect("hosts").len(), 1, "{hosts}");
        desk.rotate(&["hosts", "seal", "--expect", "2"]).expect(3).says("as soon as 2 hosts have reported; 1 so far");
        desk.rotate(&["hosts", "seal", "--expect", "0"]).expect(2);
        desk.rotate(&["hosts", "remove", "mx1", "--yes"]).expect(0).says("until it reports again");
    });
}

#[test]
fn what_goes_wrong_has_its_code() {
    isolated("rotate_cli::what_goes_wrong_has_its_code", || {
        let desk = Desk::new();
        desk.rotate(&["plan", "--credential", "other"]).expect(2).says("no credential \"other\"").says("one of: ses");
        desk.rotate(&["plan", "--config", "/nonexistent/rotate.toml"]).expect(2).says("relaykey-rotate example");
        desk.rotate(&["hosts", "sael"]).expect(2);
        let broken = desk.dir.file("broken.toml", "config_version = 1\n[[credential]]\nname = \"ses\"\n");
        let ran = desk.rotate(&["plan", "--config", broken.to_str().expect("a path")]);
        ran.expect(2).says("iam_user is missing").says("[credential.evidence]");

        // Somebody else is at work.
        let mut controller = desk.lab.controller();
        let caller = desk.lab.run_time.block_on(controller.caller()).expect("who it is").arn;
        desk.lab.tick(&mut controller);
        // Who, and where, and since when.
        let who = format!("{caller} (process {} on ", std::process::id());
        desk.rotate(&["run", "--once"]).expect(75).says(&who).says("is at work since ");
        desk.rotate(&["plan"]).expect(75).says("is at work since ");
        desk.lab.run_time.block_on(controller.leave()).expect("left");
        desk.rotate(&["run", "--once"]).expect(0);

        // AWS says no.
        let key = crate::lab::isolated::KEY;
        let fault =
            serde_json::json!({"kind": "error", "count": 0, "status": 403, "code": "AccessDenied", "message": "no"});
        desk.lab.moto.fault(key, "ListAccessKeys", fault);
        desk.rotate(&["plan"]).expect(1).says("iam:ListAccessKeys");
        desk.rotate(&["check"]).expect(1);
        desk.rotate(&["run", "--wait", "5s"]).expect(1);
        desk.lab.moto.heal(key);
        desk.rotate(&["plan"]).expect(0);
    });
}

#[test]
fn what_needs_no_aws_asks_none() {
    let example = rotate(&["example"], &[]);
    example.expect(0);
    assert!(example.out.contains("config_version = 1"));
    let dir = scratch::private("rotate-policy");
    let config = dir.file("rotate.toml", &example.out);
    let config = config.to_str().expect("a path");
    for (who, has, has_not) in [
        ("controller", "iam:CreateAccessKey", "dynamodb:LeadingKeys"),
        ("host", "dynamodb:LeadingKeys", "iam:CreateAccessKey"),
    ] {
        let policy = rotate(&["policy", "--for", who, "--config", config], &[]);
        let document = policy.expect(0).json();
        assert_eq!(document["Version"], "2012-10-17");
        assert!(policy.out.contains(has) && !policy.out.contains(has_not), "{}", policy.out);
        policy.says("--kms-key ARN");
        let key = "arn:aws:kms:eu-west-1:111122223333:key/1";
        let policy = rotate(&["policy", "--for", who, "--config", config, "--kms-key", key], &[]);
        policy.expect(0).says("kms:Decrypt").says(key);
        assert!(!policy.err.contains("--kms-key"), "{}", policy.err);
    }
    let layout = rotate(&["policy", "--for", "host", "--config", config, "--layout", "1"], &[]);
    layout.expect(0).says("\"dynamodb:LeadingKeys\": [ \"ses\" ]");

    // What the environment names need not be said, and a mistake does not ask for it.
    let environment = [("RELAYKEY_ROTATE_CONFIG", config)];
    rotate(&["policy", "--for", "host"], &environment).expect(0).says("dynamodb:LeadingKeys");
    for (arguments, words) in [
        (&["history", "--limit", "x"][..], "expected a whole number, as in --limit 50"),
        (&["policy", "--for", "host", "--layout", "x"], "write 1 or 2"),
        (&["policy", "--for", "host", "--layout", "3"], "write 1 or 2"),
        (&["hosts", "seal", "--expect", "x"], "as a number"),
        (&["hosts", "add"], "<HOST>"),
    ] {
        let ran = rotate(arguments, &environment);
        ran.expect(2).says(words);
        assert!(!ran.err.contains("--config") && !ran.err.contains("invalid digit"), "{}", ran.err);
    }
}

/// What keeps a rotation from its end is found before it begins, by its name.
#[test]
fn check_finds_what_would_stop_a_rotation() {
    isolated("rotate_cli::check_finds_what_would_stop_a_rotation", || {
        let desk = Desk::new();
        let old = desk.lab.published().1;
        let fails = |arguments: &[&str], code: i32, words: &str| {
            desk.rotate(arguments).expect(code).says(words);
            assert_eq!(desk.lab.keys().len(), 1, "{arguments:?} made a key");
        };
        let ca = desk.dir.path().join("ca.pem");
        let (ca, gone) = (ca.to_str().expect("a path"), "/nonexistent/smtp-ca.pem");
        let config = desk.edited(ca, gone);
        fails(&["check", "--config", &config], 1, gone);
        fails(&["run", "--wait", "2s", "--config", &config], 1, gone);

        // Nobody answers at the endpoint.
        let port = format!("port = {}", desk.lab.standin.starttls_port());
        let config = desk.edited(&port, "port = 9");
        fails(&["check", "--config", &config], 75, "no login at localhost:9");

        // A right that is missing.
        let fault =
            serde_json::json!({"kind": "error", "count": 0, "status": 403, "code": "AccessDenied", "message": "no"});
        desk.lab.moto.fault(crate::lab::isolated::KEY, "DeleteAccessKey", fault);
        fails(&["check"], 1, "iam:DeleteAccessKey");
        desk.lab.moto.heal(crate::lab::isolated::KEY);

        // Nobody reports about this name: which are there?
        let mut host = host("mx1");
        takes(&desk.lab, &mut host);
        let config = desk.edited("name = \"ses\"", "name = \"sse\"");
        fails(&["check", "--config", &config], 0, "hosts report here about ses, and none about sse");
        // Where else it is published, and what that place gives.
        desk.lab.moto.secret(SECOND, &desk.lab.pair(&old));
        let first = format!("secret = \"{SECRET}\"");
        let second = format!("{first}\n[[credential.publish]]\ntype = \"secrets-manager\"\nsecret = \"{SECOND}\"");
        let config = desk.edited(&first, &second);
        for command in ["check", "status"] {
            let said = desk.rotate(&[command, "--config", &config]).expect(0).out.clone();
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.contains(&format!("secret \"{SECOND}\" in {REGION}: gives {old}")), "{command}: {said}");
        }
        // What is said of a name says the name.
        let config = desk.edited(TABLE, "relaykey-reports");
        let ran = desk.rotate(&["check", "--config", &config]);
        ran.expect(1).says("table \"relaykey-reports\" does not exist");
        assert!(!ran.err.contains("a secret of another account"), "{}", ran.err);
        let config = desk.edited(USER, "nobody");
        let ran = desk.rotate(&["check", "--config", &config]);
        ran.expect(1).says("IAM user \"nobody\" does not exist");
        assert_eq!(format!("{}{}", ran.out, ran.err).matches("cannot be found").count(), 1, "{}\n{}", ran.out, ran.err);

        // What is published is no login of SES's, or none at all, or somebody else's.
        let put = |value: &str| {
            let input = serde_json::json!({"SecretId": SECRET, "SecretString": value});
            desk.lab.moto.call("secretsmanager.PutSecretValue", input);
        };
        let of_another = ses_smtp_password(&Secret::new("another".into()), REGION);
        put(&format!("{old}:{}", of_another.expose()));
        fails(&["check"], 1, &format!("the published login with {old} is refused at localhost:"));
        put(&format!("{old}:secret"));
        fails(&["check"], 1, "no login at localhost:");
        for value in ["postgres://db.example.com/orders", " "] {
            put(value);
            fails(&["check"], 1, "the published version");
        }
        put("postgres://db.example.com/orders");
        // It is not written over.
        fails(&["run", "--wait", "2s"], 1, "holds no login whose user name is a key id");
        let config = desk.edited(
            &format!("type = \"secrets-manager\"\nsecret = \"{SECRET}\""),
            "type = \"parameter-store\"\nparameter = \"/ses/smpt\"",
        );
        fails(&["check", "--config", &config], 1, "parameter \"/ses/smpt\" does not exist");
        let directory = desk.dir.path().to_str().expect("a path");
        fails(&["check", "--config", directory], 2, "--config PATH/rotate.toml");
    });
}

/// Why a new key is not published yet is said where one looks, also by another process.
#[test]
fn an_endpoint_that_gives_no_answer_is_named_where_one_looks() {
    isolated("rotate_cli::an_endpoint_that_gives_no_answer_is_named_where_one_looks", || {
        let desk = Desk::new();
        takes(&desk.lab, &mut host("mx1"));
        desk.rotate(&["run", "--once"]).expect(0);
        let port = format!("port = {}", desk.lab.standin.starttls_port());
        let config = desk.edited(&port, "port = 9");
        let ran = desk.rotate(&["run", "--wait", "4s", "--config", &config]);
        ran.expect(75).says("no login at localhost:9").says("got no answer yet; tried until 20");
        assert!(!ran.err.contains("SES does not take"), "{}", ran.err);
        let new = desk.lab.keys()[1].0.clone();
        desk.rotate(&["status"]).says(&format!("the last login with {new}")).says("localhost:9");
        // Where it answers, it goes on.
        desk.rotate(&["run", "--wait", "4s"]).expect(3);
        assert_eq!(desk.lab.published().1, new);
    });
}

/// With nothing but the program: no configuration, no certificates, no account, no home.
#[test]
fn the_demo_shows_a_whole_rotation_in_less_than_a_minute() {
    let begun = Instant::now();
    // What points elsewhere is not followed.
    let elsewhere = [
        ("AWS_PROFILE", "production"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
    ];
    let ran = rotate(&["demo"], &elsewhere);
    ran.expect(0);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(ran.out.starts_with("LAB"), "{}", ran.out);
    for words in [
        "somebody reports in the name of mx4",
        "refused (proof-false)",
        "waits for a person's\n            approval",
        "confirmed 5/5",
        "is proved dead",
        "it is deleted",
        "logins that failed:\n            none",
        "it holds",
    ] {
        ran.says(words);
    }
    let order = ["mx5 takes", "is deactivated", "it is deleted"].map(|words| ran.out.find(words).expect(words));
    assert!(order.is_sorted(), "the old key died before the last host had the new one:\n{}", ran.out);
    let wide: Vec<&str> = ran.out.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}

/// What `tests/bench/fleet` prints: one look at a large fleet, and what the first looks have to write of it.
#[test]
#[ignore = "it measures"]
fn a_look_at_ten_thousand_hosts() {
    isolated_within("rotate_cli::a_look_at_ten_thousand_hosts", 1200, || {
        let hosts =
            std::env::var("RELAYKEY_BENCH_HOSTS").map_or(10_000, |hosts| hosts.parse().expect("a number of hosts"));
        let desk = Desk::new();
        let (version, key, password) = desk.lab.published();
        let numbers: Vec<usize> = (1..=hosts).collect();
        for some in numbers.chunks(25) {
            let puts: Vec<Value> = some
                .iter()
                .map(|n| {
                    let mut one = host(&format!("mx{n:05}.eu-west-1.example.com"));
                    one.applied = Some((version.clone(), key.clone()));
                    let report = desk.lab.report(&mut one, ReportOutcome::Confirmed, &password);
                    json!({"PutRequest": {"Item": desk.lab.item(&one, &report)}})
                })
                .collect();
            desk.lab.moto.call("DynamoDB_20120810.BatchWriteItem", json!({"RequestItems": {TABLE: puts}}));
        }
        println!("{hosts} hosts");
        desk.measured("the first look", &["run", "--once"]).expect(0);
        desk.measured("hosts seal", &["hosts", "seal", "--expect", &hosts.to_string()]).expect(0);
        desk.measured("the look that seals", &["run", "--once"]).expect(0);
        desk.measured("any other look", &["run", "--once"]).expect(0);
        let status = desk.measured("status --json", &["status", "--json"]);
        assert_eq!(status.expect(0).json()["roster"]["names"].as_array().map(Vec::len), Some(hosts));
    });
}

impl Desk {
    /// The same as [`Desk::rotate`], and its requests, time and memory printed.
    fn measured(&self, name: &str, arguments: &[&str]) -> Ran {
        let calls = || self.lab.moto.calls(crate::lab::isolated::KEY);
        let before = calls().len();
        let (out, err) = (self.dir.path().join("out"), self.dir.path().join("err"));
        let file = |path: &std::path::Path| std::fs::File::create(path).expect("a file");
        let began = Instant::now();
        let mut command = Command::new(program());
        command.args(arguments).env_clear().envs(self.environment()).stdin(Stdio::null());
        let mut child = command.stdout(file(&out)).stderr(file(&err)).spawn().expect("relaykey-rotate starts");
        let (mut peak, mut ticks) = (0, 0);
        let status = loop {
            // Of its own, without what the server takes: user and system, in hundredths of a second.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
            let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            let own: u64 = after.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
            ticks = ticks.max(own);
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let high =
                status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse().ok());
            peak = peak.max(high.unwrap_or(0_u64));
            match child.try_wait().expect("its end") {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let took = began.elapsed();
        let made = calls().split_off(before);
        let of = |action: &str| made.iter().filter(|call| call["action"] == action).count();
        println!(
            "{name:20} {:4} requests ({} pages of Scan, {} of Query, {} transactions), {:6.2} s, of it {:5.2} s of CPU time of its own, {} MB",
            made.len(),
            of("Scan"),
            of("Query"),
            of("TransactWriteItems"),
            took.as_secs_f64(),
            ticks as f64 / 100.0,
            peak / 1024
        );
        let text = |path: &std::path::Path| std::fs::read_to_string(path).expect("UTF-8");
        Ran { out: text(&out), err: text(&err), code: status.code().expect("a code") }
    }
}
