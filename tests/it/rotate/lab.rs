//! An IAM user, a secret or a parameter, a table or a path, SES, hosts, and a clock that is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use relaykey::aws::{Http, Limits};
use relaykey::credential::{Secret, proof, ses_smtp_password};
use relaykey::rollover::{Report, ReportOutcome, rfc3339};
use relaykey::standin::{Options, Standin};
use relaykey_rotate::config::{self, Config};
use relaykey_rotate::plan::{Action, Outcome};
use relaykey_rotate::run::{Answer, Ask, Controller, Hooks, Moment, Tick, Turned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::moto::{Moto, REGION};
use crate::lab::{sample, scratch};

pub const USER: &str = "ses-smtp";
pub const SECRET: &str = "SESSendSecret";
/// A further secret with the same key.
pub const SECOND: &str = "SESSendSecret2";
pub const PARAMETER: &str = "/ses/credential";
pub const TABLE: &str = "relaykey";

/// Where the key is published, and where evidence is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    SecretsManager,
    ParameterStore,
    /// In two secrets and a parameter.
    ThreePlaces,
}

/// Where a host reads the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    First,
    Second,
    Parameter,
}

pub struct Lab {
    pub moto: Arc<Moto>,
    pub standin: Arc<Standin>,
    pub run_time: tokio::runtime::Runtime,
    pub kind: Kind,
    pub http: Http,
    config: Config,
    /// How far its clock is ahead, in milliseconds.
    offset: Arc<AtomicI64>,
    started: Instant,
    _dir: TempDir,
}

/// One host with its agent.
#[derive(Clone)]
pub struct SimHost {
    pub name: String,
    pub principal: String,
    pub host_id: String,
    /// Version and key in use.
    pub applied: Option<(String, String)>,
    pub seq: u64,
    pub reads: Reads,
}

pub fn host(name: &str) -> SimHost {
    SimHost {
        name: name.into(),
        principal: format!("AROAEXAMPLE:{name}"),
        host_id: format!("{name:0>32}"),
        applied: None,
        seq: 1,
        reads: Reads::First,
    }
}

impl Lab {
    /// With one key, published as `USER:PASSWORD`.
    pub fn new(kind: Kind) -> Self {
        let lab = Self::empty(kind, "");
        let key = lab.make_key();
        let login = lab.pair(&key);
        match kind {
            Kind::SecretsManager => drop(lab.moto.secret(SECRET, &login)),
            Kind::ParameterStore => drop(lab.moto.parameter(PARAMETER, &login)),
            Kind::ThreePlaces => {
                lab.moto.secret(SECRET, &login);
                lab.moto.secret(SECOND, &login);
                lab.moto.parameter(PARAMETER, &login);
            }
        }
        lab
    }

    /// Without a key, and without a secret. `more`: settings of `[credential.rotation]`, and what follows.
    pub fn empty(kind: Kind, more: &str) -> Self {
        Self::build(kind, None, more)
    }

    /// With one key, published as an IAM key, and a second region with SES of its own, which knows nothing yet.
    pub fn with_also(second: &Standin, region: &str) -> Self {
        let lab = Self::build(Kind::SecretsManager, Some((second, region)), "");
        let key = lab.make_key();
        let secret = lab.secret_of(&key).expect("a key");
        let text = json!({"accessKeyId": key, "secretAccessKey": secret.expose()}).to_string();
        lab.moto.secret(SECRET, &text);
        lab.knows(second, region);
        lab
    }

    /// SES of this region learns what IAM knows.
    pub fn knows(&self, standin: &Standin, region: &str) {
        for (key, _) in self.keys() {
            let secret = self.secret_of(&key).expect("a key");
            standin.set_key(&key, &ses_smtp_password(&secret, region));
        }
    }

    fn build(kind: Kind, also: Option<(&Standin, &str)>, more: &str) -> Self {
        let moto = Arc::new(Moto::start());
        let standin = Arc::new(Standin::start(Options::default()).expect("a stand-in"));
        let dir = scratch::private("rotate");
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, standin.ca_pem().to_owned() + also.map_or("", |(second, _)| second.ca_pem())).expect("written");
        let also = also.map_or_else(String::new, |(second, region)| {
            let port = second.starttls_port();
            format!("[[credential.smtp.also]]\nendpoint = \"localhost\"\nport = {port}\nregion = {region:?}\n")
        });
        let (publish, evidence) = match kind {
            Kind::SecretsManager => (
                format!("type = \"secrets-manager\"\nsecret = \"{SECRET}\""),
                format!("type = \"dynamodb\"\ntable = \"{TABLE}\""),
            ),
            Kind::ParameterStore => (
                format!("type = \"parameter-store\"\nparameter = \"{PARAMETER}\""),
                "type = \"parameter-store\"\npath = \"/relaykey\"".into(),
            ),
            Kind::ThreePlaces => (
                format!(
                    "type = \"secrets-manager\"\nsecret = \"{SECRET}\"\n[[credential.publish]]\n\
                     type = \"secrets-manager\"\nsecret = \"{SECOND}\"\n[[credential.publish]]\n\
                     type = \"parameter-store\"\nparameter = \"{PARAMETER}\""
                ),
                format!("type = \"dynamodb\"\ntable = \"{TABLE}\""),
            ),
        };
        let text = format!(
            "config_version = 1\n[aws]\nregion = \"{REGION}\"\nendpoint_url = \"{}\"\n[[credential]]\nname = \"ses\"\n\
             iam_user = \"{USER}\"\n[credential.smtp]\nendpoint = \"localhost\"\nport = {}\ntls = \"starttls\"\n\
             region = \"{REGION}\"\nca_file = {:?}\ntimeout = \"5s\"\n{also}[[credential.publish]]\n{publish}\n\
             [credential.evidence]\n{evidence}\n[credential.rotation]\n{more}\n",
            moto.endpoint(),
            standin.starttls_port(),
            ca.to_str().expect("a path"),
        );
        let (config, _) = config::parse(&text).unwrap_or_else(|findings| panic!("{findings:#?}"));
        let lab = Self {
            http: Http::new(moto.ca_pem().as_bytes()),
            run_time: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time"),
            config,
            kind,
            offset: Arc::default(),
            started: Instant::now(),
            standin,
            moto,
            _dir: dir,
        };
        if kind != Kind::ParameterStore {
            lab.make_table(TABLE, &[("principal", "HASH"), ("credential#host_id", "RANGE")]);
        }
        lab
    }

    /// Where something hangs: what is not answered in seconds is not answered.
    pub fn impatient(mut self) -> Self {
        let limits = Limits {
            connect: Duration::from_secs(2),
            attempt: Duration::from_secs(3),
            operation: Duration::from_secs(4),
            ..Limits::default()
        };
        self.http = self.http.with_limits(limits);
        self
    }

    pub fn make_table(&self, name: &str, key: &[(&str, &str)]) {
        let attributes: Vec<Value> =
            key.iter().map(|(name, _)| json!({"AttributeName": name, "AttributeType": "S"})).collect();
        let schema: Vec<Value> =
            key.iter().map(|(name, kind)| json!({"AttributeName": name, "KeyType": kind})).collect();
        self.moto.call(
            "DynamoDB_20120810.CreateTable",
            json!({"TableName": name, "BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": attributes, "KeySchema": schema}),
        );
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_millis(self.offset.load(Ordering::Relaxed))
    }

    /// Everybody's clock goes forward.
    pub fn pass(&self, time: SignedDuration) {
        let millis = i64::try_from(time.as_millis()).expect("a time");
        let offset = self.offset.fetch_add(millis, Ordering::Relaxed) + millis;
        self.moto.lab("clock", &json!({"offset": offset as f64 / 1000.0}));
    }

    /// What tests put in the place of the clocks; before each login the stand-in learns what IAM knows.
    pub fn hooks(&self, choke: impl Fn(&'static str, Moment) -> bool + Send + Sync + 'static) -> Hooks {
        let offset = |offset: &Arc<AtomicI64>| {
            let offset = Arc::clone(offset);
            move || SignedDuration::from_millis(offset.load(Ordering::Relaxed))
        };
        let (for_now, for_boot) = (offset(&self.offset), offset(&self.offset));
        let (moto, standin, started) = (Arc::clone(&self.moto), Arc::clone(&self.standin), self.started);
        Hooks {
            now: Some(Arc::new(move || Timestamp::now() + for_now())),
            boot: Some(Arc::new(move || started.elapsed() + for_boot().unsigned_abs())),
            choke: Some(Arc::new(move |action, moment| {
                if action == "smtp:AUTH" && moment == Moment::Before {
                    tell_ses(&moto, &standin);
                }
                choke(action, moment)
            })),
            http: Some(self.http.clone()),
        }
    }

    /// A process that looks after the credential.
    pub fn controller(&self) -> Controller {
        self.controller_with(|_| {}, |_, _| true)
    }

    pub fn controller_with(
        &self,
        set: impl FnOnce(&mut config::Credential),
        choke: impl Fn(&'static str, Moment) -> bool + Send + Sync + 'static,
    ) -> Controller {
        let mut config = self.config.clone();
        set(&mut config.credentials[0]);
        let made = Controller::with_hooks(&config, &config.credentials[0], self.hooks(choke));
        self.run_time.block_on(made).expect("a controller")
    }

    #[track_caller]
    pub fn tick(&self, controller: &mut Controller) -> Turned {
        match self.run_time.block_on(controller.tick()).expect("a turn") {
            Tick::Turned(turned) => {
                // Shown where the test fails.
                let decision = &turned.look.decision;
                let refusals: Vec<_> = decision.refusals.iter().map(|refusal| refusal.class()).collect();
                println!("{:?} {}: {} {refusals:?}", words(&turned.done), decision.phase, decision.reason);
                turned.look.faults.iter().for_each(|fault| println!("   {}", fault.what));
                *turned
            }
            Tick::Busy(lease) => panic!("busy: {lease:?}"),
        }
    }

    #[track_caller]
    pub fn ask(&self, controller: &mut Controller, what: Ask) {
        let answer = self.run_time.block_on(controller.ask(what)).expect("an answer");
        assert_eq!(answer, Answer::Done);
    }

    /// Ticks until nothing more is done at once; gives what was done.
    #[track_caller]
    pub fn settle(&self, controller: &mut Controller) -> Vec<(Action, Outcome)> {
        let mut all = Vec::new();
        for _ in 0..20 {
            let turned = self.tick(controller);
            if turned.done.is_empty() {
                return all;
            }
            all.extend(turned.done);
        }
        panic!("it does not come to rest: {all:#?}")
    }

    // ------------------------------------------------------------ keys

    /// A person makes a key.
    pub fn make_key(&self) -> String {
        let keys = self.moto.lab("iam", &json!({"user": USER, "make": true}));
        let id = keys.as_array().and_then(|keys| keys.last()).expect("a key")["id"].as_str().expect("an id").to_owned();
        tell_ses(&self.moto, &self.standin);
        id
    }

    /// Id and status of every key, the oldest first.
    pub fn keys(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let keys = self.moto.lab("iam", &json!({"user": USER}));
        keys.as_array().expect("keys").iter().map(|key| (text(&key["id"]), text(&key["status"]))).collect()
    }

    pub fn is_live(&self, key: &str) -> bool {
        self.keys().iter().any(|(id, status)| id == key && status == "Active")
    }

    fn secret_of(&self, key: &str) -> Option<Secret> {
        let keys = self.moto.lab("iam", &json!({"user": USER}));
        let found = keys.as_array().expect("keys").iter().find(|known| known["id"] == key)?.clone();
        Some(Secret::new(found["secret"].as_str().expect("a secret").to_owned()))
    }

    /// `USER:PASSWORD` of a key.
    pub fn pair(&self, key: &str) -> String {
        self.pair_in(key, REGION)
    }

    /// The same, for this region.
    pub fn pair_in(&self, key: &str, region: &str) -> String {
        let secret = self.secret_of(key).expect("a key");
        format!("{key}:{}", ses_smtp_password(&secret, region).expose())
    }

    /// As if the key had been used then.
    pub fn used(&self, key: &str, at: Timestamp, service: &str) {
        let at = at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        self.moto.lab("used", &json!({"user": USER, "id": key, "at": at, "service": service}));
    }

    // ------------------------------------------------------------ store

    /// What is published: version, key, password.
    pub fn published(&self) -> (String, String, String) {
        self.published_at(Reads::First)
    }

    /// The same, as whoever reads this place finds it.
    pub fn published_at(&self, reads: Reads) -> (String, String, String) {
        let secret = |name: &str| {
            let input = json!({"SecretId": name, "VersionStage": "AWSCURRENT"});
            let got = self.moto.call("secretsmanager.GetSecretValue", input);
            (got["VersionId"].clone(), got["SecretString"].clone())
        };
        let (version, text) = match (reads, self.kind) {
            (Reads::Parameter, _) | (Reads::First, Kind::ParameterStore) => {
                let input = json!({"Name": PARAMETER, "WithDecryption": true});
                let got = self.moto.call("AmazonSSM.GetParameter", input)["Parameter"].clone();
                (json!(got["Version"].to_string()), got["Value"].clone())
            }
            (Reads::First, _) => secret(SECRET),
            (Reads::Second, _) => secret(SECOND),
        };
        let (version, text) = (version.as_str().expect("an id"), text.as_str().expect("a text"));
        if let Ok(fields) = serde_json::from_str::<Value>(text) {
            let secret = Secret::new(fields["secretAccessKey"].as_str().expect("a secret").into());
            let password = ses_smtp_password(&secret, REGION).expose().to_owned();
            return (version.into(), fields["accessKeyId"].as_str().expect("an id").into(), password);
        }
        let (key, password) = text.split_once(':').expect("a pair");
        (version.into(), key.into(), password.into())
    }

    // ------------------------------------------------------------ hosts

    /// The host takes what is published, and says so with proof.
    pub fn takes(&self, host: &mut SimHost) {
        let (version, key, password) = self.published_at(host.reads);
        host.applied = Some((version, key));
        let report = self.report(host, ReportOutcome::Confirmed, &password);
        self.writes(host, &report);
    }

    /// What the host says of the version that it has.
    pub fn report(&self, host: &mut SimHost, outcome: ReportOutcome, password: &str) -> Report {
        host.seq += 1;
        let (version, key) = host.applied.clone().unwrap_or_default();
        let mut report = Report {
            schema: relaykey_core_v2(),
            host: host.name.clone(),
            version,
            username: key,
            at: rfc3339(self.now()),
            outcome,
            poll_s: Some(300),
            alive_due: Some(self.now() + SignedDuration::from_hours(24 * 60)),
            ..sample::report(&host.host_id, host.seq)
        };
        if outcome == ReportOutcome::Hello {
            report.targets.clear();
        }
        prove(&mut report, password);
        report
    }

    /// Writes a report where the host's agent would.
    pub fn writes(&self, host: &SimHost, report: &Report) {
        match self.kind {
            Kind::SecretsManager | Kind::ThreePlaces => {
                let item = self.item(host, report);
                self.moto.call("DynamoDB_20120810.PutItem", json!({"TableName": TABLE, "Item": item}));
            }
            Kind::ParameterStore => {
                let name = format!("/relaykey/ses/{}", host.name);
                let text = serde_json::to_string(report).expect("JSON");
                let input = json!({"Name": name, "Value": text, "Type": "String", "Overwrite": true});
                self.moto.call("AmazonSSM.PutParameter", input);
            }
        }
    }

    /// As it stands in the table.
    pub fn item(&self, host: &SimHost, report: &Report) -> Value {
        json!({
            "principal": {"S": host.principal},
            "credential#host_id": {"S": format!("ses#{}", host.host_id)},
            "host": {"S": host.name},
            "written": {"S": rfc3339(self.now())},
            "report": {"S": serde_json::to_string(report).expect("JSON")},
        })
    }

    /// Everything that stands in the table, or below the path.
    pub fn everything(&self) -> String {
        match self.kind {
            Kind::SecretsManager | Kind::ThreePlaces => {
                self.moto.call("DynamoDB_20120810.Scan", json!({"TableName": TABLE})).to_string()
            }
            Kind::ParameterStore => {
                let input = json!({"Path": "/relaykey", "Recursive": true});
                self.moto.call("AmazonSSM.GetParametersByPath", input).to_string()
            }
        }
    }
}

/// Signs a report with what the host holds.
pub fn prove(report: &mut Report, password: &str) {
    let held = Secret::new(password.to_owned());
    for index in 0..report.targets.len() {
        let target = report.targets[index].clone();
        report.targets[index].proof = Some(proof(&held, &report.proof_fields(&target)).expect("a proof"));
        report.targets[index].no_proof = None;
    }
}

fn relaykey_core_v2() -> String {
    "relaykey/report/v2".into()
}

/// `relaykey-rotate`, beside `relaykey`.
pub fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_relaykey")).with_file_name("relaykey-rotate");
    assert!(path.exists(), "{} is missing: cargo build -p relaykey-rotate makes it", path.display());
    path
}

/// SES learns what IAM knows, all the time, until this is dropped.
pub struct Ses {
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Ses {
    /// Told anew so often.
    pub fn knows_what_iam_knows(lab: &Lab, every: Duration) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, moto, standin) = (Arc::clone(&ended), Arc::clone(&lab.moto), Arc::clone(&lab.standin));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                tell_ses(&moto, &standin);
                std::thread::sleep(every);
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Ses {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// SES learns what IAM knows.
pub fn tell_ses(moto: &Moto, standin: &Standin) {
    let keys = moto.lab("iam", &json!({"user": USER}));
    let mut there = Vec::new();
    for key in keys.as_array().expect("keys") {
        let text = |name: &str| key[name].as_str().expect("a text").to_owned();
        let password = ses_smtp_password(&Secret::new(text("secret")), REGION);
        there.push(text("id"));
        if !standin.has_key(&text("id")) {
            standin.set_key(&text("id"), &password);
        }
        match text("status").as_str() {
            "Active" => standin.activate(&text("id")),
            _ => standin.deactivate(&text("id")),
        }
    }
    let gone: Vec<String> = standin.logins().iter().map(|login| login.username.clone()).collect();
    for key in gone.iter().filter(|key| !there.contains(key)) {
        standin.remove(key);
    }
}

/// The words of actions, for reading.
pub fn words(done: &[(Action, Outcome)]) -> Vec<String> {
    done.iter()
        .map(|(action, outcome)| {
            let name = format!("{action:?}");
            let name = name.split([' ', '{']).next().expect("a word").to_owned();
            match outcome {
                Outcome::Failed => format!("{name} failed"),
                Outcome::Unknown => format!("{name} unknown"),
                Outcome::LoggedIn { accepted: false, .. } => format!("{name} refused"),
                _ => name,
            }
        })
        .collect()
}
