//! `relaykey demo`: the whole story on this machine, with nothing else installed.
//!
//! Every line that is printed was checked: what is shown and is not so ends the demo with exit code 1.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{Exit, complain, print_json, runtime, say};
use crate::agent::{self, Agent, FinishedRun, Logs, Run, RunEnd, RunEvent};
use crate::apply;
use crate::config::{self, Config, Drift, Reload, TargetKind, Tls};
use crate::credential::{JsonKeys, Login, Secret, ses_smtp_password};
use crate::fault::Class;
use crate::rollover::{Completion, Outcome, Step, Wake};
use crate::smtp::{self, LoginVerdict};
use crate::source;
use crate::standin::postfix::PostfixInstance;
use crate::standin::{self, Delay, Standin};
use crate::state::{Access, Store};
use crate::tls;

const REGION: &str = "us-east-1";
/// How long the demo goes on trying a key that is bad for good, before it is called so.
const PROPAGATION: Duration = Duration::from_secs(4);
const RETRY: Duration = Duration::from_secs(1);
/// How long a message may take to arrive at the stand-in.
const DELIVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Use a table of the demo's own although Postfix is installed.
    #[arg(long)]
    no_postfix: bool,
}

/// What `demo --json` prints.
#[derive(Serialize)]
struct DemoDocument {
    schema: &'static str,
    target: &'static str,
    steps: Vec<DemoLine>,
    failure: Option<String>,
    exit: u8,
}

#[derive(Serialize)]
struct DemoLine {
    seconds: f64,
    what: String,
}

pub fn run(json: bool, args: &DemoArgs) -> Exit {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let mut teller = DemoTeller { began: Instant::now(), json, told: Vec::new() };
    let scratch = match DemoDirectory::new() {
        Ok(scratch) => scratch,
        Err(e) => {
            complain(
                &format!("cannot make a scratch directory: {e}"),
                "set TMPDIR to a directory that you may write to",
            );
            return Exit::ForGood;
        }
    };
    let place = DemoChoice::choose(args.no_postfix);
    let kind = place.word();
    let shown = runtime.block_on(show(&mut teller, &scratch.0, place));
    let exit = match &shown {
        Ok(()) => Exit::Done,
        Err(what) => {
            complain(
                &format!("the demo did not show what it should: {what}"),
                "please report this with the lines above",
            );
            Exit::ForGood
        }
    };
    if json {
        let steps = teller.told;
        print_json(&DemoDocument {
            schema: "relaykey/demo/v1",
            target: kind,
            steps,
            failure: shown.err(),
            exit: exit.code(),
        });
    }
    exit
}

/// Tells each step on a line, with its time.
struct DemoTeller {
    began: Instant,
    json: bool,
    told: Vec<DemoLine>,
}

impl DemoTeller {
    fn tell(&mut self, what: impl Into<String>) {
        let (seconds, what) = (self.began.elapsed().as_secs_f64(), what.into());
        if !self.json {
            say(&format!("{seconds:7.3} s  {what}"));
        }
        self.told.push(DemoLine { seconds, what });
    }
}

/// A directory of the demo's own, removed at its end.
struct DemoDirectory(PathBuf);

impl DemoDirectory {
    fn new() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        // Not by the process id: those come round, and a demo that is killed leaves its directory behind.
        let name = format!("relaykey-demo-{:016x}", getrandom::u64()?);
        let path = std::env::temp_dir().canonicalize()?.join(name);
        // Postfix's own users walk through it.
        std::fs::DirBuilder::new().mode(0o755).create(&path)?;
        // The umask that protects every other file of ours took the others' bits away.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self(path))
    }
}

impl Drop for DemoDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What stands for the mail server.
enum DemoChoice {
    Postfix,
    /// Why not Postfix, in words.
    Text(&'static str),
}

impl DemoChoice {
    fn choose(no_postfix: bool) -> Self {
        if no_postfix {
            DemoChoice::Text("as asked")
        } else if !PostfixInstance::installed() {
            DemoChoice::Text("no Postfix is installed")
        } else if !rustix::process::geteuid().is_root() {
            DemoChoice::Text("only root can start a Postfix instance")
        } else {
            DemoChoice::Postfix
        }
    }

    fn word(&self) -> &'static str {
        match self {
            DemoChoice::Postfix => "postfix",
            DemoChoice::Text(_) => "text",
        }
    }
}

/// The mail server of the demo: takes messages and relays them under whatever its table says.
enum DemoMailServer {
    Postfix(Box<PostfixInstance>),
    Text(PathBuf),
}

struct Demo<'a> {
    standin: Standin,
    config: Config,
    server: DemoMailServer,
    source: PathBuf,
    table: PathBuf,
    teller: &'a mut DemoTeller,
    messages: usize,
    /// What the endpoint said to the login that it refused last.
    refusal: Option<String>,
}

/// A key of the demo: an access key id and the SES SMTP password derived from a random secret key.
fn key(number: u32) -> Result<Login, String> {
    let secret = Secret::new(format!("demo{:016x}{:016x}", random()?, random()?));
    Login::new(format!("AKIADEMO{number:012}"), ses_smtp_password(&secret, REGION)).map_err(|e| e.to_string())
}

fn random() -> Result<u64, String> {
    getrandom::u64().map_err(|e| format!("no random numbers: {e}"))
}

async fn show(teller: &mut DemoTeller, scratch: &Path, place: DemoChoice) -> Result<(), String> {
    let standin = Standin::start(standin::Options::default()).map_err(|e| format!("no SES stand-in: {e}"))?;
    teller.tell(format!(
        "an SES stand-in listens on loopback: STARTTLS on port {}, TLS on port {}",
        standin.starttls_port(),
        standin.implicit_port()
    ));
    let keys: Vec<Login> = (1..=4).map(key).collect::<Result<_, _>>()?;
    let [first, second, third, bad] = keys.as_slice() else { unreachable!("four keys") };
    standin.set_key(&first.username, &first.password);

    let ca_file = scratch.join("ca.pem");
    std::fs::write(&ca_file, standin.ca_pem()).map_err(|e| format!("{}: {e}", ca_file.display()))?;
    let (server, table, kind) = match place {
        DemoChoice::Postfix => {
            let instance = PostfixInstance::new(scratch, "hash", "localhost", standin.starttls_port(), &ca_file, first)
                .and_then(|mut i| i.start().map(|()| i))
                .map_err(|e| format!("no private Postfix: {e}"))?;
            teller.tell(format!("a private Postfix relays to it, with {} in its table", first.username));
            let kind = TargetKind::Postfix { config_dir: instance.config_dir() };
            let table = instance.table();
            (DemoMailServer::Postfix(Box::new(instance)), table, kind)
        }
        DemoChoice::Text(why) => {
            let table = scratch.join("sasl_passwd");
            let text = format!(
                "# relays of the demo\n[localhost]:{} {}:{}\n",
                standin.starttls_port(),
                first.username,
                first.password.expose()
            );
            write_secret(&table, &text)?;
            teller.tell(format!(
                "a table of the demo's own stands for the mail server ({why}), with {} in it",
                first.username
            ));
            (DemoMailServer::Text(table.clone()), table.clone(), TargetKind::Text { path: table })
        }
    };
    let source = scratch.join("credential");
    let config = configuration(scratch, &standin, kind, &source, &ca_file);
    let mut demo = Demo { standin, config, server, source, table, teller, messages: 0, refusal: None };

    demo.publish(first)?;
    let ended = demo.sync().await?;
    demo.expect(&ended, RunEnd::Done(Some(Completion::Adopted)))?;
    demo.teller
        .tell("day one: the host uses the source's version already; verified, read back, adopted, nothing written");
    demo.message_passes_under(first).await?;

    demo.teller.tell("-- a plain rollover");
    demo.standin.set_key(&second.username, &second.password);
    demo.publish(second)?;
    let ended = demo.sync().await?;
    demo.expect(&ended, RunEnd::Done(Some(Completion::Confirmed)))?;
    demo.message_passes_under(second).await?;

    demo.teller.tell("-- a rollover to a key that SES does not know yet");
    demo.standin.set_key(&third.username, &third.password);
    demo.standin.delay(&third.username, Delay::Refusals(2));
    demo.publish(third)?;
    let ended = demo.sync().await?;
    demo.expect(&ended, RunEnd::Done(Some(Completion::Confirmed)))?;
    let answers: Vec<bool> =
        demo.standin.logins().iter().filter(|a| a.username == third.username).map(|a| a.accepted).collect();
    if answers != [false, false, true] {
        return Err(format!("the logins with {} went {answers:?}, not 535, 535, 235", third.username));
    }
    demo.message_passes_under(third).await?;

    demo.teller.tell("-- a key that is bad for good");
    let before = demo.table_bytes()?;
    demo.publish(bad)?;
    let ended = demo.sync().await?;
    demo.expect(&ended, RunEnd::ForGood)?;
    let is_refused = ended.failures.iter().any(|(_, f)| f.class == Class::Refused);
    if !is_refused || !demo.refusal.as_ref().is_some_and(|reply| reply.starts_with("535")) {
        return Err(format!("the login was not refused with 535: {:?}, {:?}", demo.refusal, ended.failures));
    }
    if demo.table_bytes()? != before {
        return Err("the table was changed by a credential that was refused".into());
    }
    demo.teller.tell("refused for good: the table is as before, to the byte");
    demo.message_passes_under(third).await?;

    demo.teller.tell("-- the old keys die");
    demo.standin.deactivate(&first.username);
    demo.standin.deactivate(&second.username);
    demo.teller.tell(format!("{} and {} are deactivated", first.username, second.username));
    demo.message_passes_under(third).await?;
    demo.teller.tell(format!("all shown was so: 3 rollovers, {} messages, none lost", demo.messages));
    Ok(())
}

fn configuration(scratch: &Path, standin: &Standin, kind: TargetKind, source: &Path, ca_file: &Path) -> Config {
    let smtp = config::Smtp {
        endpoint: "localhost".into(),
        port: standin.starttls_port(),
        tls: Tls::Starttls,
        region: Some(REGION.into()),
        ca_file: Some(ca_file.to_owned()),
        timeout: Duration::from_secs(10),
        propagation: PROPAGATION,
        retry: RETRY,
        endpoint_aliases: Vec::new(),
        also: Vec::new(),
    };
    let target = config::Target {
        write: true,
        name: "main".into(),
        kind,
        reload: Reload::Always,
        drift: Drift::Heal,
        keys: None,
        unlisted_ok: Vec::new(),
        log: config::MailLog::Found,
        smtp,
    };
    Config {
        host: config::Host {
            name: Some("demo.invalid".into()),
            state_dir: scratch.join("state"),
            run_dir: scratch.join("run"),
            lease: None,
            // The machine's own Postfix has no part in it.
            instances: config::Instances::Named,
        },
        aws: config::Aws::default(),
        credentials: vec![config::Credential {
            mode: config::Mode::Automatic,
            probe: None,
            name: "ses".into(),
            source: config::SourceConfig::File { path: source.to_owned(), owner: None },
            keys: JsonKeys::default(),
            poll: config::DEFAULT_POLL,
            targets: vec![target],
        }],
        reports: Vec::new(),
        health: None,
    }
}

impl Demo<'_> {
    /// A new version in the file source, by rename, as a careful publisher does it.
    fn publish(&mut self, login: &Login) -> Result<(), String> {
        let fresh = self.source.with_extension("new");
        write_secret(&fresh, &format!("{}:{}\n", login.username, login.password.expose()))?;
        std::fs::rename(&fresh, &self.source).map_err(|e| format!("{}: {e}", self.source.display()))?;
        self.teller.tell(format!("the source holds {} now", login.username));
        Ok(())
    }

    /// What `relaykey sync` does, told step by step.
    async fn sync(&mut self) -> Result<FinishedRun, String> {
        let credential = &self.config.credentials[0];
        let store =
            Store::open(&self.config.host.state_dir, Access::Write, Duration::ZERO).map_err(|e| e.to_string())?;
        let http = agent::http(&self.config).map_err(|e| e.to_string())?;
        let source = source::open(credential, &store.key().map_err(|e| e.to_string())?, &http);
        let agent = Agent {
            apply: apply::Client::in_process(apply::Server::new(&self.config.mail())),
            identity: store.identity(self.config.host.name.as_deref(), String::new).map_err(|e| e.to_string())?,
            store: Arc::new(store),
            receivers: Vec::new(),
            lease: None,
            logs: Logs::default(),
        };
        let (teller, refusal) = (&mut *self.teller, &mut self.refusal);
        let mut observer = |event: RunEvent<'_>| {
            let RunEvent::Ended { step, outcome, .. } = event else { return };
            let line = match (step, outcome) {
                (_, Outcome::Fetched(f)) => format!("fetch: a version with {}", f.username),
                (_, Outcome::Accepted(e)) => format!("verify: {}", e.reply),
                (_, Outcome::Refused { reply, .. }) => {
                    *refusal = Some(reply.clone());
                    format!("verify: {reply}")
                }
                (_, Outcome::Prepared(p)) if p.nothing_to_write => return,
                (_, Outcome::Prepared(_)) => {
                    "prepare: staged; every key gives the new login in the staged files".into()
                }
                (_, Outcome::Swapped) => "swap: in place, by rename".into(),
                (_, Outcome::Activated) => "activate: the mail server has noticed".into(),
                (_, Outcome::ReadBack(r)) => {
                    format!("read back: {} gives the new login ({})", r.keys.join(", "), r.how)
                }
                (_, Outcome::Committed(r)) => format!("commit: {}", r.outcome),
                (Step::Wait { .. }, _) => "wait: tried again".into(),
                (_, Outcome::Failed(f) | Outcome::Mismatch(f) | Outcome::ReloadOwed(f)) => {
                    format!("failed: {}", f.what)
                }
                _ => return,
            };
            teller.tell(format!("  {line}"));
        };
        let (_tell, mut stop) = tokio::sync::watch::channel(false);
        // Long enough for a refusal to become final; a wait beyond that is the end of this run.
        let deadline = Instant::now() + PROPAGATION + RETRY + Duration::from_secs(1);
        let run = Run {
            credential,
            source: &source,
            wake: Wake::default(),
            by: agent::operator(),
            ignore_backoff: true,
            deadline,
            observer: &mut observer,
        };
        agent.run(run, &mut stop).await.map_err(|e| e.to_string())
    }

    fn expect(&self, ended: &FinishedRun, expected: RunEnd) -> Result<(), String> {
        if ended.end == expected {
            return Ok(());
        }
        let failures: Vec<&str> = ended.failures.iter().map(|(_, f)| f.what.as_str()).collect();
        Err(format!(
            "the rollover ended {:?} instead of {expected:?}: {} {}",
            ended.end,
            ended.reason,
            failures.join("; ")
        ))
    }

    /// Hands the mail server a message and waits until the stand-in has it, under this key.
    async fn message_passes_under(&mut self, login: &Login) -> Result<(), String> {
        self.messages += 1;
        let subject = format!("demo message {}", self.messages);
        match &mut self.server {
            DemoMailServer::Postfix(instance) => {
                instance.inject(&subject).map_err(|e| format!("Postfix did not take {subject}: {e}"))?
            }
            DemoMailServer::Text(table) => {
                relay_under_table(table, &self.config.credentials[0].targets[0].smtp, &subject).await?;
            }
        }
        let what = format!("{subject} at the stand-in");
        let found = |seen: &standin::StandinRecord| {
            seen.messages.iter().find(|m| m.subject == subject).map(|m| m.username.clone())
        };
        let username = self.standin.wait_for(DELIVERY, &what, found).map_err(|e| e.to_string())?;
        if username != login.username {
            return Err(format!("{subject} went out under {username}, not {}", login.username));
        }
        self.teller.tell(format!("{subject} went out under {username}"));
        Ok(())
    }

    fn table_bytes(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        std::fs::read(&self.table).map(zeroize::Zeroizing::new).map_err(|e| format!("{}: {e}", self.table.display()))
    }
}

/// Sends one message as a mail server would that reads the table: with the login that stands there.
async fn relay_under_table(table: &Path, smtp: &config::Smtp, subject: &str) -> Result<(), String> {
    let text =
        std::fs::read_to_string(table).map(zeroize::Zeroizing::new).map_err(|e| format!("{}: {e}", table.display()))?;
    let key = format!("[localhost]:{}", smtp.port);
    let value = text.lines().find_map(|l| l.strip_prefix(&key)).map(str::trim).ok_or("the table has no entry")?;
    let login = Login::from_pair(value).map_err(|e| e.to_string())?;
    let roots = tls::CaFile::new(smtp.ca_file.clone()).roots().map_err(|e| e.to_string())?;
    let (from, to) = ("demo@demo.invalid", "you@example.com");
    let text = format!("From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nhello\r\n");
    match smtp::send(smtp, &login, &roots, "demo.invalid", smtp::OutgoingMessage { from, to, text: &text }).await {
        LoginVerdict::Accepted { .. } => Ok(()),
        LoginVerdict::Refused { reply } => Err(reply),
        LoginVerdict::Unknown { words, .. } => Err(words),
    }
}

fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .map_err(|e| format!("{}: {e}", path.display()))
}
