//! The demo: a whole rotation on this machine, in less than a minute, through the same controller as any other. Five simulated
//! hosts send mail all the time; one of them is late, and somebody forges a confirmation of another. What the demo says it has
//! seen: where something was otherwise, it fails.

mod aws;
mod host;
#[cfg(test)]
pub mod lab;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use relaykey::aws::{AwsSession, Http};
use relaykey::fault::Fault;
use relaykey::standin::{Options, Standin};
use tokio::sync::{mpsc, watch};

use self::aws::{AwsStandin, REGION};
use self::host::{HostKind, HostTold, World};
use crate::cli::view;
use crate::config::{self, Config};
use crate::plan::{Action, Outcome, Purpose};
use crate::refusal::Refusal;
use crate::run::{Ask, Controller, Hooks, Look, Tick, Turned};

/// It ends in less than a minute, or has failed.
const DEADLINE: Duration = Duration::from_secs(58);

const USER: &str = "ses-smtp";
const SECRET: &str = "SESSendSecret";
const TABLE: &str = "relaykey";
const CREDENTIAL: &str = "ses";

/// The one whose confirmation is forged.
const FORGED: usize = 3;
/// The one that is late.
const LATE: usize = 4;

fn kinds() -> [HostKind; 5] {
    let kind = |name, poll, held| HostKind { name, poll: Duration::from_secs(poll), held };
    [
        kind("mx1", 1, None),
        kind("mx2", 1, None),
        kind("mx3", 2, None),
        kind("mx4", 4, None),
        kind("mx5", 1, Some(Duration::from_secs(8))),
    ]
}

/// Shows it. `tell` gets each line, in order.
///
/// # Errors
/// Something was not as the demo says: in words.
pub async fn show(scratch: &Path, tell: &mut dyn FnMut(&str)) -> Result<(), String> {
    let ses = Standin::start(Options::default()).map_err(|e| format!("no SES stand-in: {e}"))?;
    let ses = Arc::new(ses);
    let ca_file = scratch.join("ca.pem");
    std::fs::write(&ca_file, ses.ca_pem()).map_err(|e| format!("{}: {e}", ca_file.display()))?;
    let aws = AwsStandin::start(USER, SECRET, Arc::clone(&ses)).map_err(|e| format!("no AWS stand-in: {e}"))?;
    let config = configuration(&aws, &ses, &ca_file)?;
    let credential = &config.credentials[0];
    let http = Http::new(ses.ca_pem().as_bytes());
    let sdk = AwsSession::new(&config.aws, &http).map_err(words)?.config().await.map_err(words)?;
    let hooks = Hooks { http: Some(http), ..Hooks::default() };
    let controller = Controller::with_hooks(&config, credential, hooks).await.map_err(words)?;
    let world = Arc::new(World {
        aws: sdk,
        smtp: credential.smtp.clone(),
        secret: SECRET.into(),
        table: TABLE.into(),
        credential: CREDENTIAL.into(),
        sent: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let (tell_host, told) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let hosts: Vec<_> = kinds()
        .into_iter()
        .map(|kind| tokio::spawn(host::run(kind, Arc::clone(&world), tell_host.clone(), stopped.clone())))
        .collect();
    let begun = Instant::now();
    let mut demo = Demo {
        config: &config,
        controller,
        world,
        told,
        begun,
        tell,
        confirmed: Vec::new(),
        shown: String::new(),
        forged: Forged::NotYet,
    };
    let result = demo.story(&aws, &ses).await;
    let _ = stop.send(true);
    for host in hosts {
        // One that is just asking somebody ends there.
        host.abort();
    }
    result
}

fn configuration(aws: &AwsStandin, ses: &Standin, ca_file: &Path) -> Result<Config, String> {
    let (url, port) = (aws.url(), ses.starttls_port());
    let ca_file = ca_file.display();
    let text = format!(
        r#"config_version = 1
[aws]
region = "{REGION}"
endpoint_url = "{url}"
[[credential]]
name = "{CREDENTIAL}"
iam_user = "{USER}"
[credential.smtp]
endpoint = "localhost"
port = {port}
region = "{REGION}"
ca_file = "{ca_file}"
[[credential.publish]]
type = "secrets-manager"
secret = "{SECRET}"
[credential.evidence]
type = "dynamodb"
table = "{TABLE}"
[credential.rotation]
propagation = "10s"
canary_soak = "10s"
grace = "2s"
last_use_lag = "2s"
observe = "4s"
[lab]
allow_short = true
"#
    );
    let parsed = config::parse(&text).map_err(|findings| format!("the demo's configuration: {}", findings[0].what))?;
    Ok(parsed.0)
}

fn words(fault: Fault) -> String {
    format!("{}. To do: {}", fault.what, fault.fix)
}

/// How far the story of the forged confirmation is.
#[derive(PartialEq, Eq)]
enum Forged {
    NotYet,
    Written,
    Refused,
}

struct Demo<'a> {
    config: &'a Config,
    controller: Controller,
    world: Arc<World>,
    told: mpsc::UnboundedReceiver<HostTold>,
    begun: Instant,
    tell: &'a mut dyn FnMut(&str),
    /// Hosts that took the new key.
    confirmed: Vec<&'static str>,
    /// The progress that was told last.
    shown: String,
    forged: Forged,
}

impl Demo<'_> {
    async fn story(&mut self, aws: &AwsStandin, ses: &Standin) -> Result<(), String> {
        let old = aws.keys()[0].0.clone();
        self.plain(
            "Five mail servers share one SMTP login for Amazon SES. It is made from an IAM access key, and that has to be replaced \
             without losing mail: a new key for all, then the end of the old one. Everything around it is simulated here: SES, AWS, \
             and the hosts mx1 to mx5, which send mail all the time. The program that rotates is the real one; only its waiting \
             times are short.",
        );
        self.plain("");
        self.plain("-- day one");
        self.hosts_adopt(&old).await?;
        self.turn().await?;
        self.ask(Ask::Seal { expect: kinds().len() }).await?;
        self.say("you say how many hosts there are: `relaykey-rotate hosts seal --expect 5`. One that never reported would not be missed otherwise");

        self.plain("-- the rotation: `relaykey-rotate run`");
        self.ask(Ask::Run).await?;
        let mut gone = None;
        loop {
            if self.begun.elapsed() > DEADLINE {
                return Err(format!("it is not over after {} s: {}", DEADLINE.as_secs(), self.shown));
            }
            self.hear();
            let turned = self.turn().await?;
            for (action, outcome) in &turned.done {
                self.acted(action, outcome, &turned.look, &old);
                if let Action::Deactivate { .. } = action {
                    self.nobody_is_left_behind()?;
                    gone = Some(Instant::now());
                }
            }
            self.progress(&turned.look).await?;
            if turned.done.is_empty() {
                if view::is_complete(&turned.look, self.config.credentials[0].policy.delete) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        self.ends(aws, ses, &old, gone).await
    }

    async fn hosts_adopt(&mut self, old: &str) -> Result<(), String> {
        let mut adopted = Vec::new();
        while adopted.len() < kinds().len() {
            let left = DEADLINE.saturating_sub(self.begun.elapsed());
            match tokio::time::timeout(left, self.told.recv()).await {
                Ok(Some(HostTold::Uses { host, adopted: true, .. })) => adopted.push(host),
                Ok(Some(HostTold::Trouble { host, words } | HostTold::MailFailed { host, words })) => {
                    return Err(format!("{host}: {words}"));
                }
                Ok(Some(_)) => {}
                _ => return Err("the hosts do not report".into()),
            }
        }
        self.say(&format!("{} hosts log in with {old}, and each has proved it in a report", adopted.len()));
        Ok(())
    }

    /// One turn of the loop that every rotation is made of.
    async fn turn(&mut self) -> Result<Box<Turned>, String> {
        match self.controller.tick().await.map_err(words)? {
            Tick::Turned(turned) => Ok(turned),
            Tick::Busy(lease) => Err(format!("{} is at work", lease.holder)),
        }
    }

    async fn ask(&mut self, ask: Ask) -> Result<(), String> {
        self.controller.ask(ask).await.map(|_| ()).map_err(words)
    }

    /// What hosts told meanwhile.
    fn hear(&mut self) {
        while let Ok(told) = self.told.try_recv() {
            match told {
                HostTold::Uses { host, key, .. } => {
                    self.confirmed.push(host);
                    self.say(&format!("{host} takes {key}: a login, then its report, with proof"));
                }
                HostTold::Waits { host, key } => {
                    self.say(&format!("{host} has fetched {key}, and its postmaster wants to approve it first"));
                }
                HostTold::MailFailed { host, words } => self.say(&format!("{host}: MAIL FAILED: {words}")),
                HostTold::Trouble { host, words } => self.say(&format!("{host}: {words}")),
            }
        }
    }

    fn acted(&mut self, action: &Action, outcome: &Outcome, look: &Look, old: &str) {
        let accepted = matches!(outcome, Outcome::LoggedIn { accepted: true, .. });
        let words = match (action, outcome) {
            (Action::Create, Outcome::Created(key)) => {
                format!("* IAM makes a new key, {key}. The old one, {old}, stays: mail depends on it")
            }
            (Action::Put { key, .. }, _) => {
                format!("* {key} is stored beside it, labelled AWSPENDING: no host takes it yet")
            }
            (Action::LogIn { key, purpose: Purpose::Verify }, _) => {
                format!("* a login with {key} at SES: {}", if accepted { "accepted" } else { "not accepted yet" })
            }
            (Action::Promote { key, .. }, _) => format!("* published: AWSCURRENT is {key} from now on"),
            (Action::Intend { key }, _) => format!(
                "* all hosts have proved the new key, the waiting times are over, nothing uses {key}: it is about to go. \
                 Everything is looked at once more"
            ),
            (Action::LogIn { purpose: Purpose::LastLogin, key }, _) => format!(
                "* a last login with {key}: {}. A refusal after this one says that it is dead",
                if accepted { "accepted" } else { "not accepted" }
            ),
            (Action::Deactivate { key, .. }, _) => format!("* {key} is deactivated. That can still be undone"),
            (Action::LogIn { purpose: Purpose::ProveDead, key }, _) => {
                format!("* the same login with {key} again: {}", if accepted { "still accepted" } else { "refused" })
            }
            (Action::RecordProvedDead { key }, _) => {
                format!("* {key} is proved dead. It is kept a while: a host that misses it would get it back")
            }
            (Action::Delete { key, .. }, _) => format!("* nobody missed {key}: it is deleted"),
            (other, _) => format!("* {other} ({})", look.decision.reason),
        };
        self.say(&words);
    }

    /// What stands in the way, when that changed; and the forger's part, in the middle of it.
    async fn progress(&mut self, look: &Look) -> Result<(), String> {
        let new = look.facts.record.published.clone().filter(|_| look.facts.record.old.is_some());
        let kinds = kinds();
        let (forged, name) = (&kinds[FORGED], kinds[FORGED].name);
        if let Some(published) = new.filter(|_| self.forged == Forged::NotYet && !self.confirmed.contains(&name)) {
            host::forge(&self.world, forged, published.version.as_str(), published.key.as_str()).await?;
            self.forged = Forged::Written;
            self.say(&format!(
                "! somebody reports in the name of {name} that it uses {}, without having it",
                published.key
            ));
        }
        let is_false = |refusal: &Refusal| matches!(refusal, Refusal::ProofFalse { host } if host.as_str() == name);
        if self.forged == Forged::Written && look.decision.refusals.iter().any(is_false) {
            self.forged = Forged::Refused;
            self.say(&format!(
                "! refused (proof-false): who has not got the key cannot prove that it is used. {name} is waited for"
            ));
        }
        if look.facts.record.old.is_none() || look.decision.action.is_some() {
            return Ok(());
        }
        let mut text = view::progress(look).lines().next().unwrap_or_default().to_owned();
        for host in view::hosts(look).iter().filter(|host| !host.is_done() && host.is_in_trouble()) {
            text += &format!("\n{}: {}", host.host.name, host.words());
        }
        if text != self.shown {
            for line in text.lines() {
                self.say(&format!("  {line}"));
            }
            self.shown = text;
        }
        Ok(())
    }

    /// At the moment at which the old key is deactivated.
    fn nobody_is_left_behind(&mut self) -> Result<(), String> {
        self.hear();
        match kinds().iter().find(|kind| !self.confirmed.contains(&kind.name)) {
            Some(kind) => Err(format!("the old key was deactivated before {} had the new one", kind.name)),
            None => Ok(()),
        }
    }

    async fn ends(&mut self, aws: &AwsStandin, ses: &Standin, old: &str, gone: Option<Instant>) -> Result<(), String> {
        self.controller.leave().await.map_err(words)?;
        self.hear();
        let (lines, broken) = self.controller.verify().await.map_err(words)?;
        let keys = aws.keys();
        let (sent, failed) = (self.world.sent.load(Ordering::Relaxed), self.world.failed.load(Ordering::Relaxed));
        let late = kinds()[LATE].name;
        for (holds, what) in [
            (gone.is_some(), "the old key was never deactivated".to_owned()),
            (keys.len() == 1 && keys[0].1 && keys[0].0 != old, format!("the keys at the end are {keys:?}")),
            (failed == 0, format!("{failed} messages failed")),
            (sent > 50, format!("only {sent} messages were sent")),
            (self.forged == Forged::Refused, "the forged report was not refused".into()),
            (self.confirmed.last() == Some(&late), format!("{late} was not the last")),
            (broken.is_empty(), format!("the audit log does not hold: {broken:?}")),
            (ses.messages().len() as u64 >= sent, "messages that nobody has".into()),
        ] {
            if !holds {
                return Err(what);
            }
        }
        self.plain("");
        self.plain("-- what it came to");
        self.say(&format!("mail: the five hosts sent {sent} messages meanwhile; logins that failed: none"));
        self.say(&format!(
            "keys: {} is in use, {old} is gone. It died after the last host, {late}, had the new one",
            keys[0].0
        ));
        self.say(&format!("audit log: {} lines, each with the hash of the one before it; it holds", lines.len()));
        self.say(&format!(
            "time: {} s. With the real waiting times it takes four days, without a person",
            self.begun.elapsed().as_secs()
        ));
        self.plain("");
        self.plain("Yours: `relaykey-rotate example` prints a configuration that explains every key; then `relaykey-rotate check`, `relaykey-rotate plan`.");
        Ok(())
    }

    /// Something that happens, with the seconds since the start.
    fn say(&mut self, words: &str) {
        let first = format!("{:5.1}s  ", self.begun.elapsed().as_secs_f32());
        let (first, words) = match words.strip_prefix("  ") {
            Some(words) => (format!("{first}    "), words),
            None => (first, words),
        };
        let mut out = String::new();
        view::put(&mut out, &first, "            ", words);
        (self.tell)(out.trim_end());
    }

    fn plain(&mut self, words: &str) {
        let mut out = String::new();
        view::put(&mut out, "", "", words);
        (self.tell)(out.trim_end());
    }
}
