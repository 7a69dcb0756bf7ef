//! Sources against a real AWS API server, with the real SDK: what is read, what each failure is called, and by which
//! way AWS is reached.
//!
//! The SDK takes credentials, profiles and proxies from the environment, so each fetch runs in a process of its own
//! with an environment of its own: this very program, started again for [`child`]. What it fetched it prints.

use crate::lab::moto;
use crate::lab::scratch::{self, Files as _};

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use moto::REGION;
use relaykey::aws::{Http, Limits};
use relaykey::config::{Aws, Credential, SourceConfig};
use relaykey::credential::{JsonKey, JsonKeys, LocalKey};
use relaykey::fault::Fault;
use relaykey::source::parameter_store::ParameterStore;
use relaykey::source::secrets_manager::SecretsManager;
use relaykey::source::{self, Fetched, SeenVersion};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest any fetch here may take, including the start of its process.
const FETCH: Duration = Duration::from_secs(60);

/// Content of the secrets: must be found in no output.
const PASSWORD: &str = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";
const LOGIN: &str = "AKIAIOSFODNN7EXAMPLE:BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";

const CHILD: &str = "RELAYKEY_TEST_FETCH";

/// One fetch: what to fetch, how AWS is reached, and in which environment.
struct Fetch {
    key: String,
    spec: Value,
    env: Vec<(String, String)>,
}

/// What the child printed.
#[derive(Debug, Clone)]
struct Outcome(Value);

impl Outcome {
    #[track_caller]
    fn ok(&self) -> &Value {
        assert!(self.0["error"].is_null(), "{self:?}");
        &self.0
    }

    #[track_caller]
    fn error(&self, class: &str, temporary: bool) -> (String, String) {
        let error = &self.0["error"];
        assert_eq!((error["class"].as_str(), error["temporary"].as_bool()), (Some(class), Some(temporary)), "{self:?}");
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (text("what"), text("fix"))
    }
}

impl Fetch {
    /// With static keys in the environment, no metadata service, and plain HTTP to the shared server.
    fn new(mut spec: Value) -> Self {
        let key = fresh("AKIATEST");
        spec["aws"] = json!({"endpoint_url": moto::shared().endpoint(), "region": REGION});
        let mut fetch = Self { key: key.clone(), spec, env: Vec::new() };
        fetch = fetch.env("AWS_ACCESS_KEY_ID", &key).env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI");
        fetch.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent")
    }

    fn secret(name: &str) -> Self {
        Self::stages(name, &["AWSCURRENT"])
    }

    fn stages(name: &str, stages: &[&str]) -> Self {
        Self::new(json!({"secret": name, "stages": stages}))
    }

    fn parameter(name: &str) -> Self {
        Self::new(json!({"parameter": name}))
    }

    fn label(mut self, label: &str) -> Self {
        self.spec["label"] = label.into();
        self
    }

    fn aws(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.spec["aws"][name] = value.into();
        self
    }

    /// Milliseconds for one attempt, and for the whole operation.
    fn limits(mut self, attempt: u64, operation: u64) -> Self {
        self.spec["limits"] = json!([attempt, operation]);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(have, _)| have != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without_keys(mut self) -> Self {
        self.env.retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
        self
    }

    fn fault(self, action: &str, fault: Value) -> Self {
        moto::shared().fault(&self.key, action, fault);
        self
    }

    /// Over TLS, trusting the server's certificate authority by way of SSL_CERT_FILE.
    fn over_tls(self, trust: &TempDir) -> Self {
        let bundle = trust.file("ca.pem", moto::shared().ca_pem());
        self.aws("endpoint_url", moto::shared().tls_endpoint()).env("SSL_CERT_FILE", &bundle.display().to_string())
    }

    fn start(&self, stdin: Stdio) -> Child {
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "sources::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env(CHILD, self.spec.to_string())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program starts again")
    }

    /// The source stays open, and is asked again and again.
    fn open(mut self) -> Open {
        self.spec["talk"] = true.into();
        let mut child = self.start(Stdio::piped());
        let (tell, told) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                assert!(!line.contains(&PASSWORD[..30]), "a secret was printed");
                if let Some((_, json)) = line.split_once("OUTCOME ") {
                    let _ = tell.send(json.to_owned());
                }
            }
        });
        Open { key: self.key, stdin: child.stdin.take(), child, told }
    }

    fn run(&self) -> Outcome {
        let mut child = self.start(Stdio::null());
        let readers = [read_all(child.stdout.take()), read_all(child.stderr.take())];
        let deadline = Instant::now() + FETCH;
        while child.try_wait().expect("a child").is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("the fetch did not end within {FETCH:?}: {}", self.spec);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let [out, err] = readers.map(|r| r.recv_timeout(FETCH).expect("its output"));
        for secret in [PASSWORD, &PASSWORD[..30], "wJalrXUtnFEMI", "hunter2"] {
            assert!(!out.contains(secret) && !err.contains(secret), "a secret was printed");
        }
        let line = out.lines().find_map(|l| l.split_once("OUTCOME ")).map(|(_, json)| json);
        let line = line.unwrap_or_else(|| panic!("no outcome:\n{out}\n{err}"));
        Outcome(serde_json::from_str(line).expect("JSON"))
    }
}

/// A source that is kept open in a process of its own.
struct Open {
    key: String,
    child: Child,
    stdin: Option<ChildStdin>,
    told: mpsc::Receiver<String>,
}

impl Open {
    fn ask(&mut self, what: &str) -> Outcome {
        let stdin = self.stdin.as_mut().expect("piped");
        writeln!(stdin, "{what}").expect("the child reads");
        let said = self.told.recv_timeout(FETCH).unwrap_or_else(|_| panic!("no answer to {what:?} within {FETCH:?}"));
        Outcome(serde_json::from_str(&said).expect("JSON"))
    }

    fn look(&mut self) -> Outcome {
        self.ask("look")
    }

    fn fetch(&mut self) -> Outcome {
        self.ask("fetch")
    }

    /// The actions that the server saw since the last time, each checked against what the source itself counts.
    #[track_caller]
    fn sent(&mut self, before: &mut usize) -> Vec<String> {
        let calls = moto::shared().calls(&self.key);
        assert_eq!(self.ask("requests").0, json!(calls.len()), "what the source counted");
        let new = calls[*before..].iter().map(|call| {
            assert!(call["action"] != "GetParameter" || call["decrypt"].is_boolean(), "{call}");
            let plain = if call["decrypt"] == false { " without decryption" } else { "" };
            format!("{}{plain}", call["action"].as_str().expect("an action"))
        });
        let new = new.collect();
        *before = calls.len();
        new
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = from.expect("piped").read_to_string(&mut text);
        let _ = tell.send(text);
    });
    told
}

/// A name that no other test has, nor any other process that shares the server.
fn fresh(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}X{}", crate::lab::relaykey::this_process(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The far side of [`Fetch::run`].
#[test]
#[ignore = "the other tests start it"]
fn child() {
    let Ok(spec) = std::env::var(CHILD) else { return };
    let spec: Value = serde_json::from_str(&spec).expect("JSON");
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let a = &spec["aws"];
    let aws = Aws {
        region: text(&a["region"]),
        profile: text(&a["profile"]),
        role_arn: text(&a["role_arn"]),
        external_id: text(&a["external_id"]),
        endpoint_url: text(&a["endpoint_url"]),
        proxy: text(&a["proxy"]),
        use_fips: false,
        use_dualstack: false,
    };
    let source = match text(&spec["secret"]) {
        Some(secret) => SourceConfig::SecretsManager {
            secret,
            stages: spec["stages"].as_array().expect("stages").iter().filter_map(text).collect(),
            aws,
        },
        None => SourceConfig::ParameterStore {
            parameter: text(&spec["parameter"]).expect("a parameter"),
            label: text(&spec["label"]),
            aws,
        },
    };
    let keys =
        JsonKeys { username: text(&spec["username_key"]).map(|name| JsonKey { name, line: 9 }), ..JsonKeys::default() };
    let credential = Credential {
        name: "ses".into(),
        source,
        keys,
        poll: relaykey::config::DEFAULT_POLL,
        mode: relaykey::config::Mode::Automatic,
        probe: None,
        targets: Vec::new(),
    };
    let roots = std::env::var_os("SSL_CERT_FILE").map_or_else(
        || std::fs::read("/etc/ssl/certs/ca-certificates.crt").expect("the system's bundle"),
        |file| std::fs::read(file).expect("SSL_CERT_FILE"),
    );
    let mut http = Http::new(&roots);
    if let Some(limits) = spec["limits"].as_array() {
        let ms = |i: usize| Duration::from_millis(limits[i].as_u64().expect("milliseconds"));
        http = http.with_limits(Limits { attempt: ms(0), operation: ms(1), ..Limits::default() });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
    if spec["talk"] == true {
        let source: Box<dyn source::Source> =
            match (spec["prove"].as_u64().map(Duration::from_millis), &credential.source) {
                (None, _) => source::open(&credential, &LocalKey::new([1; 32]), &http).expect("opened"),
                (Some(every), SourceConfig::SecretsManager { secret, stages, aws }) => {
                    let source = SecretsManager::new(secret, stages, aws, JsonKeys::default(), &http).expect("opened");
                    Box::new(source.proving_every(every))
                }
                (Some(every), SourceConfig::ParameterStore { parameter, label, aws }) => {
                    let source = ParameterStore::new(parameter, label.as_deref(), aws, JsonKeys::default(), &http);
                    Box::new(source.expect("opened").proving_every(every))
                }
                (Some(_), SourceConfig::File { .. }) => panic!("a file has nothing to prove"),
            };
        for asked in std::io::stdin().lines().map_while(Result::ok) {
            let answer = match asked.as_str() {
                "look" => looked(runtime.block_on(source.look())),
                "fetch" => outcome(runtime.block_on(source.fetch())),
                "requests" => json!(source.requests()),
                "earlier" => {
                    let earlier = runtime.block_on(source.earlier());
                    let unread = earlier.unread.iter().map(|e| json!([e.class, e.what, e.fix]));
                    json!({"ids": earlier.ids().collect::<Vec<_>>(), "unread": unread.collect::<Vec<_>>()})
                }
                "advice" => json!(source.advice().map(|advice| [advice.what, advice.fix])),
                other => panic!("what is {other:?}?"),
            };
            println!("\nOUTCOME {answer}");
        }
        return;
    }
    let fetched = source::open(&credential, &LocalKey::new([1; 32]), &http).and_then(|source| {
        // A person repairs a file while the agent runs.
        if let Some([path, content]) = spec["repair"].as_array().map(Vec::as_slice) {
            runtime.block_on(source.fetch()).expect_err("broken at first");
            std::fs::write(text(path).expect("a path"), text(content).expect("a text")).expect("written");
        }
        runtime.block_on(source.fetch())
    });
    println!("\nOUTCOME {}", outcome(fetched));
}

fn outcome(fetched: Result<Fetched, Fault>) -> Value {
    match fetched {
        Ok(f) => json!({
            "arn": f.identity.arn,
            "version": f.id.version,
            "at": f.id.order.map(|o| o.at.as_millisecond()),
            "number": f.id.order.map(|o| o.number),
            "username": f.payload.username(),
            "form": f.payload.form.to_string(),
            // Proves the password without printing it.
            "live_id": f.payload.login("mail.example.net", Some("us-east-2")).ok().map(|l| LocalKey::new([1; 32]).live_id(&l)),
        }),
        Err(e) => json!({"error": {"temporary": e.temporary, "class": e.class, "what": e.what, "fix": e.fix}}),
    }
}

fn looked(seen: Result<SeenVersion, Fault>) -> Value {
    match seen {
        Ok(s) => json!({
            "arn": s.identity.arn,
            "version": s.id.version,
            "at": s.id.order.map(|o| o.at.as_millisecond()),
            "number": s.id.order.map(|o| o.number),
        }),
        Err(e) => outcome(Err(e)),
    }
}

fn live_id(user: &str, password: &str) -> String {
    let login = relaykey::credential::Login::from_pair(&format!("{user}:{password}")).expect("a login");
    LocalKey::new([1; 32]).live_id(&login)
}

// What is read.

#[test]
fn the_version_that_carries_the_label_is_read() {
    let (moto, name) = (moto::shared(), fresh("ses/labels-"));
    let (arn, first) = moto.secret(&name, &LOGIN.replace("7EXAMPLE", "7FIRST00"));
    let second = moto.put(&name, LOGIN, &["AWSCURRENT"]);
    let canary = moto.put(&name, &LOGIN.replace("7EXAMPLE", "7CANARY0"), &["CANARY"]);

    let current = Fetch::secret(&name).run();
    assert_eq!(current.ok()["version"], json!(second));
    assert_eq!(current.ok()["arn"], json!(arn));
    assert_eq!(current.ok()["username"], "AKIAIOSFODNN7EXAMPLE");
    assert_eq!(current.ok()["number"], 0);
    assert_eq!(current.ok()["live_id"], json!(live_id("AKIAIOSFODNN7EXAMPLE", PASSWORD)));
    assert_eq!(Fetch::stages(&name, &["AWSPREVIOUS"]).run().ok()["version"], json!(first));
    assert_eq!(Fetch::stages(&name, &["CANARY"]).run().ok()["username"], "AKIAIOSFODNN7CANARY0");
    // By ARN, and its region wins over the configured one.
    let by_arn = Fetch::secret(&arn).aws("region", "us-east-1").run();
    assert_eq!(by_arn.ok()["version"], json!(second));
    assert_ne!(canary, second);
}

#[test]
fn of_several_labels_the_newest_version_wins_whichever_is_named_first() {
    let (moto, name) = (moto::shared(), fresh("ses/list-"));
    moto.secret(&name, LOGIN);
    // moto keeps whole seconds; two versions made in one second would be equally old.
    let later = || std::thread::sleep(Duration::from_millis(1100));
    later();
    let canary = moto.put(&name, &LOGIN.replace("7EXAMPLE", "7CANARY0"), &["CANARY"]);
    for stages in [["AWSCURRENT", "CANARY"], ["CANARY", "AWSCURRENT"], ["NOT-THERE", "CANARY"]] {
        assert_eq!(Fetch::stages(&name, &stages).run().ok()["version"], json!(canary), "{stages:?}");
    }
    later();
    let current = moto.put(&name, LOGIN, &["AWSCURRENT"]);
    for stages in [["AWSCURRENT", "CANARY"], ["CANARY", "AWSCURRENT"]] {
        assert_eq!(Fetch::stages(&name, &stages).run().ok()["version"], json!(current), "{stages:?}");
    }
}

#[test]
fn every_form_of_payload_is_read_and_wrong_ones_are_named() {
    let moto = moto::shared();
    let secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let ready = live_id("AKIAIOSFODNN7EXAMPLE", PASSWORD);
    // The published vector: this secret key in us-east-2 gives PASSWORD.
    for (value, form) in [
        (format!("{LOGIN}\n"), "USER:PASSWORD"),
        (json!({"username": "AKIAIOSFODNN7EXAMPLE", "password": PASSWORD}).to_string(), "JSON with user name"),
        (
            json!({"smtp_username": "AKIAIOSFODNN7EXAMPLE", "smtp_password": PASSWORD}).to_string(),
            "JSON with user name",
        ),
        (json!({"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": secret_key}).to_string(), "IAM access key"),
        (
            json!({"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": secret_key}).to_string(),
            "IAM access key",
        ),
    ] {
        let name = fresh("ses/form-");
        moto.secret(&name, &value);
        let read = Fetch::secret(&name).run();
        assert!(read.ok()["form"].as_str().is_some_and(|f| f.contains(form)), "{read:?}");
        assert_eq!(read.ok()["live_id"], json!(ready), "{form}");
    }
    let binary = fresh("ses/binary-");
    let blob = "QUtJQUlPU0ZPRE5ON0VYQU1QTEU6Qk1QUGdiQUhvRlZiemUxVWQwb0E1dU5kWFJ3VVhVWitxT3dwaEdKYmwvY1M=";
    moto.call("secretsmanager.CreateSecret", json!({"Name": binary, "SecretBinary": blob}));
    assert_eq!(Fetch::secret(&binary).run().ok()["live_id"], json!(ready));
    // With a key that the configuration names.
    let named = fresh("ses/named-");
    moto.secret(&named, &json!({"login": "AKIAIOSFODNN7EXAMPLE", "password": PASSWORD}).to_string());
    let mut fetch = Fetch::secret(&named);
    fetch.spec["username_key"] = "login".into();
    assert_eq!(fetch.run().ok()["live_id"], json!(ready));

    for (value, says) in [
        (json!({"username": "AKIAIOSFODNN7EXAMPLE"}).to_string(), "no key \"password\""),
        (json!({"host": "hunter2"}).to_string(), "none of the expected keys"),
        ("hunter2".to_owned(), "none of the forms"),
        ("{\"username\": \"hunter2\", ".to_owned(), "not valid JSON"),
        (
            json!({"accessKeyId": "AKIAX", "secretAccessKey": "hunter2", "sessionToken": "hunter2"}).to_string(),
            "temporary credentials",
        ),
        (" \n".to_owned(), "empty"),
    ] {
        let name = fresh("ses/wrong-");
        moto.secret(&name, &value);
        let (what, fix) = Fetch::secret(&name).run().error("payload", false);
        assert!(what.contains(&name) && what.contains(says), "{what}");
        // What the JSON's keys are called is told where this host says it: the secret is every host's.
        let mends =
            if says == "none of the expected keys" { "`username_key` and `password_key`" } else { "new version" };
        assert!(fix.contains(mends), "{fix}");
    }
}

#[test]
fn parameters_are_read_with_numbers_labels_and_by_arn() {
    let (moto, name) = (moto::shared(), fresh("/ses/smtp-"));
    assert_eq!(moto.parameter(&name, &LOGIN.replace("7EXAMPLE", "7FIRST00")), 1);
    moto.call("AmazonSSM.LabelParameterVersion", json!({"Name": name, "ParameterVersion": 1, "Labels": ["stable"]}));
    assert_eq!(moto.parameter(&name, LOGIN), 2);

    let latest = Fetch::parameter(&name).run();
    assert_eq!((&latest.ok()["version"], &latest.ok()["number"]), (&json!("2"), &json!(2)));
    assert_eq!(latest.ok()["live_id"], json!(live_id("AKIAIOSFODNN7EXAMPLE", PASSWORD)));
    assert!(latest.ok()["at"].as_i64().is_some_and(|at| at > 0), "{latest:?}");
    let arn = latest.ok()["arn"].as_str().expect("an ARN").to_owned();
    assert!(arn.starts_with(&format!("arn:aws:ssm:{REGION}:")) && arn.ends_with(&name), "{arn}");
    let stable = Fetch::parameter(&name).label("stable").run();
    assert_eq!((&stable.ok()["version"], &stable.ok()["username"]), (&json!("1"), &json!("AKIAIOSFODNN7FIRST00")));
    assert_eq!(Fetch::parameter(&arn).aws("region", "us-east-1").run().ok()["version"], "2");
    // Encrypted is how it is asked for, and how it must be stored.
    let plain = fresh("/ses/plain-");
    moto.call("AmazonSSM.PutParameter", json!({"Name": plain, "Value": LOGIN, "Type": "String"}));
    let (what, fix) = Fetch::parameter(&plain).run().error("payload", false);
    assert!(what.contains("is of type String") && fix.contains("SecureString"), "{what} {fix}");
}

// What a look costs, and that it does without the credential.

const DESCRIBE: &str = "DescribeSecret";
const GET: &str = "GetSecretValue";
const UNDECRYPTED: &str = "GetParameter without decryption";

#[test]
fn a_look_is_one_request_without_the_credential() {
    let (moto, name, parameter) = (moto::shared(), fresh("ses/look-"), fresh("/ses/look-"));
    let (arn, first) = moto.secret(&name, &LOGIN.replace("7EXAMPLE", "7FIRST00"));
    let (mut source, mut seen) = (Fetch::secret(&name).open(), 0);
    for _ in 0..3 {
        let look = source.look();
        assert_eq!((&look.ok()["version"], &look.ok()["arn"]), (&json!(first), &json!(arn)));
        assert_eq!(source.sent(&mut seen), [DESCRIBE], "nothing has changed");
    }
    let second = moto.put(&name, LOGIN, &["AWSCURRENT"]);
    let look = source.look();
    assert_eq!((&look.ok()["version"], &look.ok()["at"]), (&json!(second), &Value::Null));
    let fetched = source.fetch();
    assert_eq!(source.sent(&mut seen), [DESCRIBE, GET], "a change is two requests");
    // What a look says is what a fetch says, and once it was fetched its age is known too.
    let look = source.look();
    for field in ["arn", "version", "at", "number"] {
        assert_eq!(look.ok()[field], fetched.ok()[field], "{field}");
    }
    assert_eq!(source.ask("advice").0, Value::Null);

    moto.parameter(&parameter, &LOGIN.replace("7EXAMPLE", "7FIRST00"));
    let (mut source, mut seen) = (Fetch::parameter(&parameter).open(), 0);
    for _ in 0..3 {
        assert_eq!(source.look().ok()["version"], "1");
        assert_eq!(source.sent(&mut seen), [UNDECRYPTED]);
    }
    moto.parameter(&parameter, LOGIN);
    let (look, fetched) = (source.look(), source.fetch());
    assert_eq!(source.sent(&mut seen), [UNDECRYPTED, "GetParameter"]);
    for field in ["arn", "version", "at", "number"] {
        assert!(!look.ok()[field].is_null(), "{field}");
        assert_eq!(look.ok()[field], fetched.ok()[field], "{field}");
    }
    moto.call(
        "AmazonSSM.LabelParameterVersion",
        json!({"Name": parameter, "ParameterVersion": 1, "Labels": ["stable"]}),
    );
    assert_eq!(Fetch::parameter(&parameter).label("stable").open().look().ok()["version"], "1");
}

#[test]
fn a_look_at_several_labels_is_one_request_too() {
    let (moto, name) = (moto::shared(), fresh("ses/looks-"));
    let (_, current) = moto.secret(&name, LOGIN);
    let labels = ["CANARY", "AWSCURRENT", "NOT-THERE"];
    let (mut source, mut seen) = (Fetch::stages(&name, &labels).open(), 0);
    // All of them on one version: nothing is left open.
    assert_eq!(source.look().ok()["version"], json!(current));
    assert_eq!(source.sent(&mut seen), [DESCRIBE]);
    // On two: which is newer is learned once. moto keeps whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let canary = moto.put(&name, &LOGIN.replace("7EXAMPLE", "7CANARY0"), &["CANARY"]);
    assert_eq!(source.look().ok()["version"], json!(canary));
    assert_eq!(source.sent(&mut seen), [DESCRIBE, GET, GET, GET]);
    for _ in 0..2 {
        let look = source.look();
        assert_eq!(look.ok()["version"], json!(canary));
        assert!(look.ok()["at"].is_i64(), "{look:?}");
        assert_eq!(source.sent(&mut seen), [DESCRIBE]);
    }
    assert_eq!(source.fetch().ok()["version"], json!(canary));
    assert_eq!(source.sent(&mut seen), [GET, GET, GET]);
    // Back to one version.
    let put = json!({"SecretId": name, "VersionStage": "CANARY", "RemoveFromVersionId": canary});
    moto.call("secretsmanager.UpdateSecretVersionStage", put);
    assert_eq!(source.look().ok()["version"], json!(current));
    assert_eq!(source.sent(&mut seen), [DESCRIBE]);
}

#[test]
fn a_look_fails_as_a_fetch_does() {
    let (moto, name) = (moto::shared(), fresh("ses/blind-"));
    let both = |fetch: fn(&str) -> Fetch, name: &str, class: &str| {
        let mut source = fetch(name).open();
        let (looked, fetched) = (source.look().error(class, false), source.fetch().error(class, false));
        assert_eq!(looked.1, fetched.1, "the same to be done");
        let same = looked.0.split(". AWS says").next().unwrap_or_default().to_owned();
        assert!(looked.0.contains(name), "{}", looked.0);
        (same, fetched.0)
    };
    let (look, _) = both(Fetch::secret, &name, "not-found");
    assert!(look.contains("does not exist in") && look.contains(REGION), "{look}");
    moto.secret(&name, LOGIN);
    let (look, fetch) = both(|name| Fetch::stages(name, &["NO-A", "NO-B"]), &name, "no-such-label");
    assert!(look.contains("NO-A") && look.contains("NO-B") && fetch.contains("NO-B"), "{look}");
    moto.call("secretsmanager.DeleteSecret", json!({"SecretId": name}));
    let (look, fetch) = both(Fetch::secret, &name, "scheduled-for-deletion");
    assert!(fetch.starts_with(&look) && look.ends_with("is scheduled for deletion"), "{look}");

    let parameter = fresh("/ses/blind-");
    both(Fetch::parameter, &parameter, "not-found");
    moto.call("AmazonSSM.PutParameter", json!({"Name": parameter, "Value": LOGIN, "Type": "String"}));
    let (look, _) = both(Fetch::parameter, &parameter, "payload");
    assert!(look.contains("is of type String"), "{look}");

    // An answer with less in it than there must be is none, and each attempt is counted.
    let name = fresh("ses/less-");
    let (arn, _) = moto.secret(&name, LOGIN);
    for (body, class, temporary) in [
        (json!({}), "service", true),
        (json!({"ARN": arn}), "no-such-label", false),
        (json!({"ARN": arn, "VersionIdsToStages": {}}), "no-such-label", false),
        (json!({"VersionIdsToStages": {"v": ["AWSCURRENT"]}}), "service", true),
    ] {
        let answer = json!({"kind": "answer", "count": 0, "status": 200, "body": body.to_string()});
        Fetch::secret(&name).fault(DESCRIBE, answer).open().look().error(class, temporary);
    }
    let throttle =
        json!({"kind": "error", "count": 0, "status": 400, "code": "ThrottlingException", "message": "Rate exceeded"});
    let (mut source, mut seen) = (Fetch::secret(&name).fault(DESCRIBE, throttle).open(), 0);
    source.look().error("throttled", true);
    assert_eq!(source.sent(&mut seen), [DESCRIBE; 3]);
    assert_eq!(source.ask("advice").0, Value::Null, "throttling is no denial");
}

#[test]
fn where_describing_is_denied_a_look_fetches_and_says_so() {
    let (moto, name) = (moto::shared(), fresh("ses/undescribed-"));
    let (_, current) = moto.secret(&name, LOGIN);
    let denied = |action: &str, count: u32| {
        json!({"kind": "error", "count": count, "status": 400, "code": "AccessDeniedException", "message": format!(
            "User: arn:aws:iam::111122223333:user/mx is not authorized to perform: secretsmanager:{action} on resource: {name}")})
    };
    let (mut source, mut seen) = (Fetch::secret(&name).fault(DESCRIBE, denied(DESCRIBE, 0)).open(), 0);
    assert_eq!(source.ask("advice").0, Value::Null);
    assert_eq!(source.look().ok()["version"], json!(current));
    assert_eq!(source.sent(&mut seen), [DESCRIBE, GET]);
    for _ in 0..2 {
        assert_eq!(source.look().ok()["version"], json!(current));
        assert_eq!(source.sent(&mut seen), [GET], "it is not asked for in vain again");
    }
    let advice = source.ask("advice").0;
    let (what, fix) = (advice[0].as_str().expect("advice"), advice[1].as_str().expect("a fix"));
    assert!(what.contains("each look reads the credential itself") && what.contains(DESCRIBE), "{what}");
    assert!(fix.contains("allow secretsmanager:DescribeSecret on arn:aws:secretsmanager:"), "{fix}");

    // Where reading is denied too, that is what is told; and once both are allowed, nothing is left of it.
    let fetch = Fetch::secret(&name).fault(DESCRIBE, denied(DESCRIBE, 1)).fault(GET, denied(GET, 1));
    let (mut source, mut seen) = (fetch.open(), 0);
    let (what, _) = source.look().error("access-denied", false);
    assert!(what.contains("secretsmanager:GetSecretValue"), "{what}");
    assert_eq!(source.sent(&mut seen), [DESCRIBE, GET]);
    assert_eq!(source.look().ok()["version"], json!(current));
    assert_eq!(source.sent(&mut seen), [DESCRIBE]);
    assert_eq!(source.ask("advice").0, Value::Null);
}

#[test]
fn once_in_a_while_a_look_proves_that_the_credential_can_be_read() {
    let (moto, name, parameter) = (moto::shared(), fresh("ses/proof-"), fresh("/ses/proof-"));
    let (_, current) = moto.secret(&name, LOGIN);
    moto.parameter(&parameter, LOGIN);
    let proving = |mut fetch: Fetch, every: u64| {
        fetch.spec["prove"] = every.into();
        fetch.open()
    };
    let (mut source, mut seen) = (proving(Fetch::secret(&name), 0), 0);
    assert_eq!(source.look().ok()["version"], json!(current));
    assert_eq!(source.sent(&mut seen), [GET]);
    let denied = json!({"kind": "error", "status": 400, "code": "AccessDeniedException", "message": "Access to KMS is not allowed"});
    moto.fault(&source.key, GET, denied.clone());
    source.look().error("kms", false);
    let (mut source, mut seen) = (proving(Fetch::parameter(&parameter), 0), 0);
    assert_eq!(source.look().ok()["version"], "1");
    assert_eq!(source.sent(&mut seen), ["GetParameter"]);
    moto.fault(&source.key, "GetParameter", denied);
    source.look().error("kms", false);
    // Not before it is due; a fetch is a proof too.
    let (mut source, mut seen) = (proving(Fetch::secret(&name), 3_600_000), 0);
    source.fetch().ok();
    source.look().ok();
    assert_eq!(source.sent(&mut seen), [GET, DESCRIBE]);
}

// What failures are called.

/// The id of the version before it, for a host without state.
#[test]
fn the_ids_of_earlier_versions_are_read_and_nothing_else_of_them() {
    let (moto, secret, parameter) = (moto::shared(), fresh("ses/earlier-"), fresh("/ses/earlier-"));
    let login = |id: &str| format!("{id}:{PASSWORD}");
    moto.secret(&secret, &login("AKIAEARLIEST"));
    moto.parameter(&parameter, &login("AKIAEARLIEST"));
    let earlier = |fetch: &dyn Fn() -> Fetch| {
        let mut open = fetch().open();
        let said = open.ask("earlier").0;
        let sent = open.sent(&mut 0);
        (said["ids"].clone(), said["unread"].clone(), sent)
    };
    let unlabelled = || Fetch::secret(&secret);
    let first = || Fetch::parameter(&parameter);
    // The first version: there is none before it.
    let (ids, unread, sent) = earlier(&unlabelled);
    assert_eq!((ids, sent), (json!([]), vec!["GetSecretValue".to_owned()]));
    assert_eq!((unread[0][0].as_str(), unread.as_array().map(Vec::len)), (Some("no-such-label"), Some(1)), "{unread}");
    let (ids, unread, sent) = earlier(&first);
    let look = "GetParameter without decryption".to_owned();
    assert_eq!((ids, unread, sent), (json!([]), json!([]), vec![look.clone()]));

    moto.put(&secret, &json!({"username": "AKIAOLD", "password": PASSWORD}).to_string(), &["AWSCURRENT"]);
    moto.put(&secret, &login("AKIANEW"), &["canary"]);
    moto.parameter(&parameter, &login("AKIAOLD"));
    moto.parameter(&parameter, &login("AKIANEW"));
    let get = || "GetSecretValue".to_owned();
    let (ids, unread, sent) = earlier(&unlabelled);
    assert_eq!((ids, unread, sent), (json!(["AKIAEARLIEST"]), json!([]), vec![get()]));
    // Whatever this host takes.
    let (ids, _, sent) = earlier(&|| Fetch::stages(&secret, &["canary"]));
    assert_eq!((ids, sent), (json!(["AKIAOLD", "AKIAEARLIEST"]), vec![get(), get()]));
    let (ids, unread, sent) = earlier(&first);
    assert_eq!((ids, unread, sent), (json!(["AKIAOLD"]), json!([]), vec![look, "GetParameter".to_owned()]));

    // What cannot be read is said, and is no error.
    let of = |mut fault: Value, only: &str| {
        fault["only"] = only.into();
        fault["count"] = 0.into();
        fault
    };
    let error = |code: &str, message: &str| json!({"kind": "error", "status": 400, "code": code, "message": message});
    let hang = json!({"kind": "hang", "seconds": 20});
    for (fault, class) in [
        (error("AccessDeniedException", "not authorized"), "access-denied"),
        (error("ThrottlingException", "Rate exceeded"), "throttled"),
        (hang, "network"),
    ] {
        let (secret, parameter) = (&secret, &parameter);
        let (attempt, all) = if class == "network" { (600, 2000) } else { (5000, 20_000) };
        let labelled = of(fault.clone(), "AWSPREVIOUS");
        let numbered = of(fault.clone(), ":2\"");
        let began = Instant::now();
        let secret =
            || Fetch::stages(secret, &["canary"]).limits(attempt, all).fault("GetSecretValue", labelled.clone());
        let (ids, unread, _) = earlier(&secret);
        assert_eq!((ids, unread[0][0].as_str()), (json!(["AKIAOLD"]), Some(class)), "{unread}");
        let parameter = || Fetch::parameter(parameter).limits(attempt, all).fault("GetParameter", numbered.clone());
        let (ids, unread, _) = earlier(&parameter);
        assert_eq!((ids, unread[0][0].as_str()), (json!([]), Some(class)), "{unread}");
        assert!(class != "network" || began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        if class == "access-denied" {
            let fix = unread[0][2].as_str().unwrap_or_default();
            assert!(fix.contains("ssm:GetParameter"), "{fix}");
        }
    }

    // What is in another form than an access key id may be a secret in the wrong place, and goes nowhere.
    moto.put(&secret, &format!("{PASSWORD}:AKIANEW"), &["AWSCURRENT"]);
    moto.put(&secret, &login("AKIANEWER"), &["AWSCURRENT"]);
    moto.parameter(&parameter, "no login at all");
    moto.parameter(&parameter, &login("AKIANEWER"));
    for fetch in [&unlabelled as &dyn Fn() -> Fetch, &first] {
        let (ids, unread, _) = earlier(fetch);
        assert_eq!((ids, unread[0][0].as_str()), (json!([]), Some("payload")), "{unread}");
    }
    // Nor does the name of a login that is whole, but of somebody else.
    let of_another = format!("mailuser:{PASSWORD}");
    moto.put(&secret, &of_another, &["AWSCURRENT"]);
    moto.put(&secret, &login("AKIANEWEST"), &["AWSCURRENT"]);
    moto.parameter(&parameter, &of_another);
    moto.parameter(&parameter, &login("AKIANEWEST"));
    for fetch in [&unlabelled as &dyn Fn() -> Fetch, &first] {
        let (ids, unread, _) = earlier(fetch);
        assert_eq!((ids, unread[0][0].as_str()), (json!([]), Some("payload")), "{unread}");
    }
}

#[test]
fn what_is_not_there_is_told_apart() {
    let (moto, name) = (moto::shared(), fresh("ses/absent-"));
    let (what, fix) = Fetch::secret(&name).run().error("not-found", false);
    assert!(what.contains(&name) && what.contains(REGION) && what.contains("ResourceNotFoundException"), "{what}");
    assert!(fix.contains("region"), "{fix}");

    moto.secret(&name, LOGIN);
    let (what, fix) = Fetch::stages(&name, &["AWSPENDING"]).run().error("no-such-label", false);
    assert!(what.contains("\"AWSPENDING\"") && fix.contains("\"AWSPENDING\""), "{what} {fix}");
    let (what, _) = Fetch::stages(&name, &["NO-A", "NO-B"]).run().error("no-such-label", false);
    assert!(what.contains("NO-A") && what.contains("NO-B"), "{what}");

    moto.call("secretsmanager.DeleteSecret", json!({"SecretId": name}));
    let (what, fix) = Fetch::secret(&name).run().error("scheduled-for-deletion", false);
    assert!(what.contains(&name) && fix.contains("restore"), "{what} {fix}");

    let parameter = fresh("/ses/absent-");
    let (what, fix) = Fetch::parameter(&parameter).run().error("not-found", false);
    assert!(what.contains(&parameter) && what.contains("ParameterNotFound"), "{what}");
    assert!(fix.contains("a parameter of another account") && !fix.contains("secret"), "{fix}");
    moto.parameter(&parameter, LOGIN);
    let (_, fix) = Fetch::parameter(&parameter).label("stable").run().error("not-found", false);
    assert!(fix.contains("the label \"stable\" is missing"), "{fix}");
    let words =
        format!("Systems Manager could not find version stable of {parameter}. Verify the version and try again.");
    let missing = json!({"kind": "error", "status": 400, "code": "ParameterVersionNotFound", "message": words});
    let fetch = Fetch::parameter(&parameter).label("stable").fault("GetParameter", missing);
    let (what, fix) = fetch.run().error("no-such-label", false);
    assert!(
        what.contains("\"stable\"") && fix.contains(&format!("--name {parameter} --labels stable")),
        "{what} {fix}"
    );
}

/// As AWS words them, since no local server has its policies and keys.
#[test]
fn refusals_of_aws_name_action_and_resource_and_keep_its_words() {
    let (moto, name, parameter) = (moto::shared(), fresh("ses/denied-"), fresh("/ses/denied-"));
    moto.secret(&name, LOGIN);
    moto.parameter(&parameter, LOGIN);
    let user = "User: arn:aws:sts::111122223333:assumed-role/mail/i-0abc";
    let denied = |action: &str, on: &str| {
        json!({"kind": "error", "status": 400, "code": "AccessDeniedException",
               "message": format!("{user} is not authorized to perform: {action} on resource: {on} because no identity-based policy allows the {action} action")})
    };
    let error = |code: &str, message: &str| json!({"kind": "error", "status": 400, "code": code, "message": message});

    let secrets = |fault: Value| Fetch::secret(&name).fault("GetSecretValue", fault).run();
    let (what, fix) = secrets(denied("secretsmanager:GetSecretValue", &name)).error("access-denied", false);
    assert!(what.contains("is not authorized to perform") && what.contains("(request lab-request)"), "{what}");
    let missing = format!(
        "allow secretsmanager:GetSecretValue on arn:aws:secretsmanager:{REGION}:*:secret:{name}-?????? for arn:aws:sts::111122223333:assumed-role/mail/i-0abc"
    );
    assert!(fix.contains(&missing), "{fix}");
    let key = "arn:aws:kms:eu-west-1:111122223333:key/1234-abcd";
    let (_, fix) = secrets(denied("kms:Decrypt", key)).error("kms", false);
    assert!(fix.contains(&format!("allow kms:Decrypt on {key}")), "{fix}");
    let (what, _) = secrets(error("DecryptionFailure", "Secrets Manager can't decrypt the protected secret text."))
        .error("kms", false);
    assert!(what.contains("can't decrypt the protected"), "{what}");
    let (_, fix) = secrets(error("ExpiredTokenException", "The security token included in the request is expired"))
        .error("credentials", false);
    assert!(fix.contains("renew"), "{fix}");
    let (_, fix) =
        secrets(error("UnrecognizedClientException", "The security token included in the request is invalid."))
            .error("credentials", false);
    assert!(fix.contains("deactivated"), "{fix}");
    let (_, fix) = secrets(json!({"kind": "error", "count": 0, "status": 400, "code": "InvalidSignatureException",
        "message": "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z"}))
    .error("clock", false);
    assert!(fix.contains("clock"), "{fix}");
    secrets(error("InvalidSignatureException", "Credential should be scoped to a valid region."))
        .error("configuration", false);

    let parameters = |fault: Value| Fetch::parameter(&parameter).fault("GetParameter", fault).run();
    let (_, fix) =
        parameters(denied("ssm:GetParameter", &format!("arn:aws:ssm:{REGION}:111122223333:parameter{parameter}")))
            .error("access-denied", false);
    assert!(
        fix.contains(&format!("allow ssm:GetParameter on arn:aws:ssm:{REGION}:111122223333:parameter{parameter}")),
        "{fix}"
    );
    parameters(error("AccessDeniedException", "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access. (Service: AWSKMS)")).error("kms", false);
    parameters(error("InvalidKeyId", "arn:aws:kms:eu-west-1:111122223333:key/9 is disabled. (Service: AWSKMS)"))
        .error("kms", false);
}

#[test]
fn failures_that_pass_are_retried_then_called_temporary() {
    let (moto, name) = (moto::shared(), fresh("ses/faulty-"));
    moto.secret(&name, LOGIN);
    let throttle = |count: u32| json!({"kind": "error", "count": count, "status": 400, "code": "ThrottlingException", "message": "Rate exceeded"});
    let get = "GetSecretValue";

    let twice = Fetch::secret(&name).fault(get, throttle(2));
    twice.run().ok();
    assert_eq!(moto.calls(&twice.key).len(), 3, "three attempts");
    let always = Fetch::secret(&name).fault(get, throttle(0));
    let (what, _) = always.run().error("throttled", true);
    assert!(what.contains("Rate exceeded"), "{what}");
    assert_eq!(moto.calls(&always.key).len(), 3, "no more than three attempts");
    let broken = json!({"kind": "error", "count": 0, "status": 500, "code": "InternalServiceError", "message": "An error occurred on the server side."});
    Fetch::secret(&name).fault(get, broken).run().error("service", true);
    let gateway =
        json!({"kind": "answer", "count": 0, "status": 502, "type": "text/html", "body": "<html>Bad Gateway</html>"});
    Fetch::secret(&name).fault(get, gateway).run().error("service", true);
    let cut = json!({"kind": "truncate", "count": 0});
    let error = Fetch::secret(&name).fault(get, cut).run();
    assert_eq!(error.0["error"]["temporary"], true, "{error:?}");
    // Less than the secret is nothing: no version, no order, no value.
    for body in [
        "{}",
        "not json",
        "{\"ARN\":\"arn:aws:secretsmanager:x\",\"VersionId\":\"v\",\"SecretString\":\"",
        "{\"SecretString\":\"a:b\"}",
    ] {
        let answer = json!({"kind": "answer", "count": 0, "status": 200, "body": body});
        let error = Fetch::secret(&name).fault(get, answer).run();
        assert!(error.0["error"]["class"].is_string(), "{body}: {error:?}");
    }
    let valueless = json!({"kind": "answer", "count": 0, "status": 200, "body": "{\"ARN\":\"a\",\"VersionId\":\"v\",\"CreatedDate\":1.7e9,\"SecretString\":\"\"}"});
    let (what, _) = Fetch::secret(&name).fault(get, valueless).run().error("payload", false);
    assert!(what.contains("no value"), "{what}");
}

#[test]
fn a_server_that_does_not_answer_is_given_up_in_time() {
    let (moto, name) = (moto::shared(), fresh("ses/slow-"));
    moto.secret(&name, LOGIN);
    let hang = |count: u32| json!({"kind": "hang", "count": count, "seconds": 20});
    // The second attempt is answered.
    Fetch::secret(&name).limits(500, 8000).fault("GetSecretValue", hang(1)).run().ok();
    let began = Instant::now();
    let (what, fix) =
        Fetch::secret(&name).limits(600, 2000).fault("GetSecretValue", hang(0)).run().error("network", true);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(what.contains("no answer in time") && fix.contains("firewall"), "{what} {fix}");

    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let (_, fix) = Fetch::secret(&name).aws("endpoint_url", format!("http://{closed}")).run().error("network", true);
    assert!(fix.contains("firewall"), "{fix}");
    // No such name.
    let (what, fix) =
        Fetch::secret(&name).aws("endpoint_url", "http://secretsmanager.eu-wst-1.invalid").run().error("network", true);
    assert!(what.contains("dns") && fix.contains("misspelt region"), "{what} {fix}");
}

/// What answers in AWS's place may be anybody.
#[test]
fn an_answer_that_is_not_aws_is_told_as_a_proxy_and_tried_again() {
    let (moto, name) = (moto::shared(), fresh("ses/portal-"));
    moto.secret(&name, LOGIN);
    for (status, kind, body) in [
        (200, "text/html", "<html>Please log in to the guest network</html>"),
        (200, "application/x-amz-json-1.1", "not json"),
        (302, "text/html", ""),
        (403, "text/html", "<html>Blocked by policy</html>"),
        (511, "text/html", "<html>Network authentication required</html>"),
    ] {
        let answer = json!({"kind": "answer", "count": 0, "status": status, "type": kind, "body": body});
        for source in [
            Fetch::secret(&name).fault("GetSecretValue", answer.clone()),
            Fetch::parameter(&name).fault("GetParameter", answer.clone()),
        ] {
            let outcome = source.run();
            assert_eq!(outcome.0["error"]["temporary"], true, "{status} {body}: {outcome:?}");
            let fix = outcome.0["error"]["fix"].as_str().unwrap_or_default();
            assert!(fix.contains("proxy") && fix.contains("portal"), "{status} {body}: {outcome:?}");
            assert!(!fix.contains("API reference"), "{status} {body}: {outcome:?}");
        }
    }
}

/// What gives credentials may say them on its standard error, who answers may quote what was sent to it, and an error of the SDK
/// may be the whole request. (That no secret is told is asserted where each fetch ends.)
#[test]
fn what_others_say_of_credentials_and_requests_tells_no_secret() {
    let (dir, script) = (scratch::private("process"), scratch::private("script"));
    let script = script.file("process", "#!/bin/sh\necho 'no: {\"SessionToken\": \"hunter2\"}' >&2\nexit 3\n");
    let config = format!("[default]\ncredential_process = /bin/sh {}\n", script.display());
    let config = dir.file("config", &config);
    let process = Fetch::secret("ses").without_keys().env("AWS_CONFIG_FILE", &config.display().to_string());
    let (what, fix) = process.env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent").run().error("credentials", true);
    assert!(what.contains("could not be loaded") && what.contains("exit status: 3"), "{what}");
    assert!(fix.contains("by hand") && fix.contains("credential_process"), "{fix}");

    for code in ["", "AccessDeniedException"] {
        let endpoint = echo(code);
        let fetch = Fetch::secret("ses").aws("endpoint_url", endpoint).env("AWS_SESSION_TOKEN", "hunter2");
        let outcome = fetch.run();
        let what = outcome.0["error"]["what"].as_str().unwrap_or_default();
        assert!(what.contains("you sent") && what.contains("***") && !what.contains('\n'), "{what}");
    }

    let fetch = Fetch::secret("ses").aws("endpoint_url", Value::Null).env("AWS_SESSION_TOKEN", "hunter2");
    let (what, fix) = fetch.env("AWS_ENDPOINT_URL", "http://u:hunter2@a b/").run().error("configuration", false);
    assert!(what.contains("the request could not be made") && !what.contains('{'), "{what}");
    assert!(fix.contains("AWS_ENDPOINT_URL"), "{fix}");
}

/// A server that quotes what it was sent, in an error of that code; where it is.
fn echo(code: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let message = format!("you sent:\n{}", read_head(&client));
            let body = json!({"__type": code, "message": message}).to_string();
            let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\nConnection: close\r\n";
            let _ = client.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        }
    });
    endpoint
}

#[test]
fn an_endless_answer_is_not_held_in_memory_and_ends_in_time() {
    /// More than the sockets of the machine keep.
    const MUCH: usize = 256 << 20;
    let piece = vec![b' '; 64 << 10];
    for status in ["200 OK", "400 Bad Request"] {
        let (endpoint, sent) = endless(status, piece.clone(), Duration::ZERO, MUCH);
        let outcome = Fetch::secret("ses").aws("endpoint_url", endpoint).run();
        let (what, _) = outcome.error("service", true);
        assert!(what.contains("larger than"), "{what}");
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < MUCH / 4, "{sent} bytes were taken");
    }
    let (endpoint, _) = endless("200 OK", vec![b' '], Duration::from_millis(50), MUCH);
    let began = Instant::now();
    Fetch::secret("ses").aws("endpoint_url", endpoint).limits(600, 2000).run().error("network", true);
    assert!(began.elapsed() < FETCH / 2, "{:?}", began.elapsed());
}

/// A server that answers with one piece after the other, until so many bytes are sent, or nobody takes them; where it is, and
/// how many it sent.
fn endless(status: &'static str, piece: Vec<u8>, pause: Duration, most: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let (piece, counted) = (piece.clone(), counted.clone());
            std::thread::spawn(move || {
                read_head(&client);
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
                let mut told = client.write_all(head.as_bytes());
                while told.is_ok() && counted.load(Ordering::SeqCst) < most {
                    told = client.write_all(&chunk);
                    counted.fetch_add(piece.len(), Ordering::SeqCst);
                    std::thread::sleep(pause);
                }
            });
        }
    });
    (endpoint, sent)
}

// By which way AWS is reached.

#[test]
fn a_role_is_assumed_with_its_external_id() {
    let (moto, name) = (moto::shared(), fresh("ses/role-"));
    moto.secret(&name, LOGIN);
    // In the account that moto keeps the secrets of.
    let role = "arn:aws:iam::123456789012:role/ses-reader";
    let with_role = || Fetch::secret(&name).aws("role_arn", role).aws("external_id", "ext-42");
    let fetch = with_role();
    fetch.run().ok();
    // The host's own keys assume the role; the role's keys read the secret.
    let calls = moto.calls(&fetch.key);
    assert_eq!(calls.len(), 1, "{calls:?}");
    let call = &calls[0];
    assert_eq!(
        (&call["service"], &call["action"], &call["about"]),
        (&json!("sts"), &json!("AssumeRole"), &json!(role))
    );
    assert_eq!(call["external_id"], "ext-42");

    let refused = json!({"kind": "error", "count": 0, "status": 403, "code": "AccessDenied",
        "message": format!("User: arn:aws:iam::9:user/mx is not authorized to perform: sts:AssumeRole on resource: {role}")});
    let (what, fix) = with_role().fault("AssumeRole", refused).run().error("access-denied", false);
    assert!(what.contains("sts:AssumeRole") && what.contains("arn:aws:iam::9:user/mx"), "{what}");
    assert!(fix.contains("trust policy") && fix.contains("external_id"), "{fix}");
    let throttled =
        json!({"kind": "error", "count": 0, "status": 400, "code": "Throttling", "message": "Rate exceeded"});
    with_role().fault("AssumeRole", throttled).run().error("throttled", true);
    let expired = json!({"kind": "error", "count": 0, "status": 403, "code": "InvalidClientTokenId", "message": "The security token included in the request is invalid."});
    with_role().fault("AssumeRole", expired).run().error("credentials", false);
}

#[test]
fn profiles_are_read_and_come_before_the_environment_when_named() {
    let (moto, name, dir) = (moto::shared(), fresh("ses/profile-"), scratch::private("profile"));
    moto.secret(&name, LOGIN);
    let (key, base) = (fresh("AKIAPROFILE"), fresh("AKIABASE"));
    let config = dir.file(
        "config",
        format!(
            "[profile mail]\naws_access_key_id = {key}\naws_secret_access_key = wJalrXUtnFEMI\nregion = {REGION}\n\
             [profile base]\naws_access_key_id = {base}\naws_secret_access_key = wJalrXUtnFEMI\n\
             [profile role]\nsource_profile = base\nrole_arn = arn:aws:iam::123456789012:role/x\nexternal_id = from-profile\nregion = {REGION}\n\
             [profile sso]\nsso_start_url = https://example.com\nsso_region = {REGION}\nsso_account_id = 1\nsso_role_name = r\nregion = {REGION}\n"
        ),
    );
    let with = |profile: &str| {
        Fetch::secret(&name)
            .aws("region", Value::Null)
            .aws("profile", profile)
            .env("AWS_CONFIG_FILE", &config.display().to_string())
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            .env("AWS_ENDPOINT_URL_STS", &moto.endpoint())
    };
    let fetch = with("mail");
    fetch.run().ok();
    assert_eq!(
        (moto.calls(&fetch.key).len(), moto.calls(&key).len()),
        (0, 1),
        "the profile's key, not the environment's"
    );
    with("role").run().ok();
    let calls = moto.calls(&base);
    assert_eq!((&calls[0]["action"], &calls[0]["external_id"]), (&json!("AssumeRole"), &json!("from-profile")));

    let (what, fix) = with("absent").aws("region", REGION).run().error("credentials", false);
    assert!(what.contains("absent") && fix.contains("profile"), "{what} {fix}");
    let (_, fix) = with("sso").run().error("credentials", false);
    assert!(fix.contains("single sign-on"), "{fix}");
    // Repaired while the agent runs: read again.
    let mut fetch = with("mail").env("AWS_CONFIG_FILE", &dir.file("broken", "[profile other]\n").display().to_string());
    fetch = fetch.aws("region", REGION);
    fetch.spec["repair"] = json!([dir.path().join("broken"), std::fs::read_to_string(&config).expect("the file")]);
    fetch.run().ok();
    assert_eq!(moto.calls(&key).len(), 2);
    // Without a name, the environment comes first and AWS_PROFILE after it.
    with("mail").aws("profile", Value::Null).aws("region", REGION).env("AWS_PROFILE", "mail").without_keys().run().ok();
    assert_eq!(moto.calls(&key).len(), 3);
}

#[test]
fn instance_metadata_gives_credentials_and_is_not_asked_when_they_are_known() {
    let (moto, name) = (moto::shared(), fresh("ses/imds-"));
    moto.secret(&name, LOGIN);
    let key = fresh("ASIAIMDS");
    let metadata = Metadata::start(&key);
    let with = || {
        Fetch::secret(&name)
            .env("AWS_EC2_METADATA_DISABLED", "false")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.endpoint)
    };
    with().run().ok();
    assert_eq!(metadata.requests.load(Ordering::SeqCst), 0, "region and keys were known");
    with().without_keys().run().ok();
    assert_eq!(moto.calls(&key).len(), 1, "with the instance's key");
    // Without a region it is asked for that too.
    with().without_keys().aws("region", Value::Null).run().ok();
    assert_eq!(moto.calls(&key).len(), 2);

    let (what, fix) = Fetch::secret(&name).without_keys().run().error("credentials", false);
    assert!(
        what.contains("no AWS credentials") && fix.contains("AWS_ACCESS_KEY_ID") && fix.contains("instance metadata"),
        "{what} {fix}"
    );
    let (_, fix) = Fetch::secret(&name).aws("region", Value::Null).run().error("configuration", false);
    assert!(fix.contains("region"), "{fix}");
}

#[test]
fn proxies_of_environment_and_configuration_are_used() {
    let (moto, name, dir) = (moto::shared(), fresh("ses/proxy-"), scratch::private("proxy"));
    moto.secret(&name, LOGIN);
    let tls = || Fetch::secret(&name).over_tls(&dir);
    let proxy = Proxy::start("200 OK");

    tls().run().ok();
    assert_eq!(proxy.connects(), 0, "no proxy without one");
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let before = proxy.connects();
        tls().env(variable, &proxy.url).run().ok();
        assert_eq!(proxy.connects(), before + 1, "{variable}");
    }
    let before = proxy.connects();
    tls().env("HTTPS_PROXY", &proxy.url).env("NO_PROXY", "example.com,localhost").run().ok();
    assert_eq!(proxy.connects(), before, "NO_PROXY");
    tls().aws("proxy", &*proxy.url).env("NO_PROXY", "localhost").run().ok();
    assert_eq!(proxy.connects(), before + 1, "the configured one, whatever the environment says");

    // Instance metadata, plain HTTP on a link-local address, is not for the configured proxy.
    let metadata = Metadata::start(&fresh("ASIAIMDS"));
    tls()
        .without_keys()
        .aws("proxy", &*proxy.url)
        .env("AWS_EC2_METADATA_DISABLED", "false")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.endpoint)
        .run()
        .ok();
    assert!(metadata.requests.load(Ordering::SeqCst) > 0 && proxy.connects() == before + 2);
    // Plain HTTP goes by HTTP_PROXY.
    let (_, seen) = (Fetch::secret(&name).env("HTTP_PROXY", &proxy.url).run(), proxy.forwarded.load(Ordering::SeqCst));
    assert!(seen > 0, "HTTP_PROXY was not used");

    let (what, _) = tls().env("HTTPS_PROXY", &Proxy::start("403 Forbidden").url).run().error("proxy", true);
    assert!(what.contains("refused"), "{what}");
    let asks = Proxy::start("407 Proxy Authentication Required");
    let with_password = asks.url.replace("http://", "http://user:hunter2@");
    let (what, fix) = tls().aws("proxy", with_password).run().error("proxy", false);
    assert!(what.contains("407") && fix.contains("USER:PASSWORD@"), "{what} {fix}");
    assert!(asks.authorized.load(Ordering::SeqCst) > 0, "the password was offered to the proxy");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    tls().env("HTTPS_PROXY", &format!("http://{closed}")).run().error("network", true);
    tls().aws("proxy", "socks5://user:hunter2@localhost:1080").run().error("configuration", false);
}

#[test]
fn certificates_are_checked() {
    let (moto, name, dir) = (moto::shared(), fresh("ses/tls-"), scratch::private("trust"));
    moto.secret(&name, LOGIN);
    Fetch::secret(&name).over_tls(&dir).run().ok();
    // The system's bundle does not know the test's authority.
    let (what, fix) = Fetch::secret(&name).aws("endpoint_url", moto.tls_endpoint()).run().error("tls", false);
    assert!(what.contains("unknown issuer") && fix.contains("update-ca-certificates"), "{what} {fix}");
    let by_address = moto.tls_endpoint().replace("localhost", "127.0.0.1");
    let (_, fix) = Fetch::secret(&name).over_tls(&dir).aws("endpoint_url", by_address).run().error("tls", false);
    assert!(fix.contains("who answers under that name"), "{fix}");
    // A port that speaks no TLS.
    let plain = moto.endpoint().replace("http://", "https://");
    Fetch::secret(&name).over_tls(&dir).aws("endpoint_url", plain).run().error("tls", false);
    let bundle = dir.file("bad.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let (_, fix) = Fetch::secret(&name).env("SSL_CERT_FILE", &bundle.display().to_string()).run().error("tls", false);
    assert!(fix.contains("ca-certificates"), "{fix}");
}

// Two small servers.

/// A proxy that counts. CONNECT is answered with a given status and, on 200, joined to its destination.
struct Proxy {
    url: String,
    connects: Arc<AtomicUsize>,
    forwarded: Arc<AtomicUsize>,
    authorized: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let counts: [Arc<AtomicUsize>; 3] = Default::default();
        let [connects, forwarded, authorized] = counts.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let [connects, forwarded, authorized] = counts.clone();
                std::thread::spawn(move || {
                    let (head, mut client) = (read_head(&client), client);
                    if head.to_ascii_lowercase().contains("proxy-authorization: basic ") {
                        authorized.fetch_add(1, Ordering::SeqCst);
                    }
                    let Some(to) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
                        forwarded.fetch_add(1, Ordering::SeqCst);
                        let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
                        return;
                    };
                    connects.fetch_add(1, Ordering::SeqCst);
                    let _ = client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
                    if status.starts_with("200") {
                        join(client, TcpStream::connect(to).expect("the destination"));
                    }
                });
            }
        });
        Self { url, connects, forwarded, authorized }
    }

    fn connects(&self) -> usize {
        self.connects.load(Ordering::SeqCst)
    }
}

/// The lines up to the empty one, byte by byte: what follows belongs to the destination.
fn read_head(mut client: &TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn join(a: TcpStream, b: TcpStream) {
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        })
    };
    pump(a.try_clone().expect("a socket"), b.try_clone().expect("a socket"));
    pump(b, a);
}

/// The instance metadata service, version 2, of an instance with a role.
struct Metadata {
    endpoint: String,
    requests: Arc<AtomicUsize>,
}

impl Metadata {
    fn start(key: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, key) = (requests.clone(), key.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (count, key) = (count.clone(), key.clone());
                std::thread::spawn(move || serve_metadata(client, &count, &key));
            }
        });
        Self { endpoint, requests }
    }
}

fn serve_metadata(mut client: TcpStream, count: &AtomicUsize, key: &str) {
    let mut lines = BufReader::new(client.try_clone().expect("a socket")).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        // The headers; none of these requests has a body.
        while lines.next().is_some_and(|line| !line.is_empty()) {}
        count.fetch_add(1, Ordering::SeqCst);
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match path {
            "/latest/api/token" => ("200 OK", "token".to_owned()),
            "/latest/meta-data/placement/region" => ("200 OK", REGION.to_owned()),
            "/latest/meta-data/iam/security-credentials/" => ("200 OK", "mail".to_owned()),
            "/latest/meta-data/iam/security-credentials/mail" => (
                "200 OK",
                json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": "wJalrXUtnFEMI",
                       "Token": "t", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"})
                .to_string(),
            ),
            _ => ("404 Not Found", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if client.write_all(head.as_bytes()).and_then(|()| client.write_all(body.as_bytes())).is_err() {
            return;
        }
    }
}
