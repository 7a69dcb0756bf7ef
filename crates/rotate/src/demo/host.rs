//! A simulated mail server with its agent: it sends mail with the login it has, asks the secret for news, proves a new login with
//! a real AUTH, takes it, and reports that with a real proof.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use relaykey::agent::login_at;
use relaykey::config::Smtp;
use relaykey::smtp::{LoginVerdict, OutgoingMessage, send};
use relaykey::tls::CaFile;
use relaykey_core::credential::{JsonKeys, Login, Payload, Secret, proof};
use relaykey_core::report::{REPORT_V2, Report, ReportOutcome};
use serde_json::json;
use tokio::sync::watch;

use super::aws::{PARTITION, REGION, SORT};

/// How often each sends a message.
const MAIL: Duration = Duration::from_millis(400);

/// How one host is.
#[derive(Debug, Clone)]
pub struct HostKind {
    pub name: &'static str,
    /// How often it asks for news.
    pub poll: Duration,
    /// It waits for a person's approval, who takes so long.
    pub held: Option<Duration>,
}

/// What all hosts share.
pub struct World {
    pub aws: SdkConfig,
    pub smtp: Smtp,
    pub secret: String,
    pub table: String,
    pub credential: String,
    pub sent: AtomicU64,
    pub failed: AtomicU64,
}

/// What a host tells the audience.
#[derive(Debug, Clone)]
pub enum HostTold {
    Uses { host: &'static str, key: String, adopted: bool },
    Waits { host: &'static str, key: String },
    MailFailed { host: &'static str, words: String },
    Trouble { host: &'static str, words: String },
}

/// One version, as the secret gave it.
struct FetchedLogin {
    version: String,
    login: Login,
}

/// Runs until it is told to stop.
pub async fn run(
    kind: HostKind,
    world: Arc<World>,
    tell: tokio::sync::mpsc::UnboundedSender<HostTold>,
    mut stop: watch::Receiver<bool>,
) {
    let mut host = DemoHost { kind, world, tell, login: None, seq: 0, confirmed: None };
    let mut poll = tokio::time::interval(host.kind.poll);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut mail = tokio::time::interval(MAIL);
    mail.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut held: Option<(tokio::time::Instant, FetchedLogin)> = None;
    loop {
        let approved = async {
            match &held {
                Some((until, _)) => tokio::time::sleep_until(*until).await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            _ = stop.changed() => return,
            () = approved => {
                let (_, fetched) = held.take().expect("what was approved");
                host.take(fetched).await
            }
            _ = poll.tick(), if held.is_none() => match host.news().await {
                Ok(Some(fetched)) => match host.kind.held.filter(|_| host.login.is_some()) {
                    Some(length) => {
                        let waits = host.waits(&fetched).await;
                        held = Some((tokio::time::Instant::now() + length, fetched));
                        waits
                    }
                    None => host.take(fetched).await,
                },
                Ok(None) => Ok(()),
                Err(words) => Err(words),
            },
            _ = mail.tick() => { host.mail().await; Ok(()) }
        };
        if let Err(words) = result {
            let _ = host.tell.send(HostTold::Trouble { host: host.kind.name, words });
        }
    }
}

struct DemoHost {
    kind: HostKind,
    world: Arc<World>,
    tell: tokio::sync::mpsc::UnboundedSender<HostTold>,
    /// In the mail server's table.
    login: Option<(String, Login)>,
    seq: u64,
    confirmed: Option<Report>,
}

impl DemoHost {
    /// A version that is not in use here.
    async fn news(&mut self) -> Result<Option<FetchedLogin>, String> {
        let client = aws_sdk_secretsmanager::Client::new(&self.world.aws);
        let answer = client.get_secret_value().secret_id(&self.world.secret).version_stage("AWSCURRENT").send().await;
        let answer = answer.map_err(|e| format!("the secret cannot be read: {e}"))?;
        let (version, value) = (answer.version_id().unwrap_or_default(), answer.secret_string().unwrap_or_default());
        if self.login.as_ref().is_some_and(|(known, _)| known == version) {
            return Ok(None);
        }
        let payload = Payload::parse(value.as_bytes(), &JsonKeys::default()).map_err(|e| e.to_string())?;
        let login = payload.login(&self.world.smtp.endpoint, Some(REGION)).map_err(|e| e.to_string())?;
        Ok(Some(FetchedLogin { version: version.to_owned(), login }))
    }

    /// Verified by a real login, put in place, reported with a proof.
    async fn take(&mut self, fetched: FetchedLogin) -> Result<(), String> {
        let reply = match login_at(&self.world.smtp, &fetched.login, self.kind.name).await {
            LoginVerdict::Accepted { reply } => reply,
            LoginVerdict::Refused { reply } => return Err(format!("the new login is refused: {reply}")),
            LoginVerdict::Unknown { words, .. } => return Err(words),
        };
        let before = self.login.as_ref().map(|(_, login)| login.username.clone());
        let outcome = if before.is_some() { ReportOutcome::Confirmed } else { ReportOutcome::Adopted };
        let key = fetched.login.username.clone();
        let seq = self.next();
        let mut report = report(&self.world.credential, &self.kind, seq, &fetched.version, &key, before, outcome);
        target(&mut report, &self.world.smtp.place(), &reply);
        prove(&mut report, &fetched.login.password)?;
        self.login = Some((fetched.version, fetched.login));
        write(&self.world, &principal(self.kind.name), &report).await?;
        self.confirmed = Some(report);
        let _ =
            self.tell.send(HostTold::Uses { host: self.kind.name, key, adopted: outcome == ReportOutcome::Adopted });
        Ok(())
    }

    async fn waits(&mut self, fetched: &FetchedLogin) -> Result<(), String> {
        let key = fetched.login.username.clone();
        let before = self.login.as_ref().map(|(_, login)| login.username.clone());
        let outcome = ReportOutcome::PendingApproval;
        let seq = self.next();
        let mut report = report(&self.world.credential, &self.kind, seq, &fetched.version, &key, before, outcome);
        report.latest = self.confirmed.clone().map(Box::new);
        write(&self.world, &principal(self.kind.name), &report).await?;
        let _ = self.tell.send(HostTold::Waits { host: self.kind.name, key });
        Ok(())
    }

    /// One message over whatever login the mail server has.
    async fn mail(&mut self) {
        let Some((_, login)) = &self.login else { return };
        let (from, to) = ("demo@demo.invalid", "you@example.com");
        let text = format!("From: {from}\r\nTo: {to}\r\nSubject: from {}\r\n\r\nhello\r\n", self.kind.name);
        let verdict = match CaFile::new(self.world.smtp.ca_file.clone()).roots() {
            Ok(roots) => {
                send(&self.world.smtp, login, &roots, self.kind.name, OutgoingMessage { from, to, text: &text }).await
            }
            Err(e) => e.into(),
        };
        match verdict {
            LoginVerdict::Accepted { .. } => {
                self.world.sent.fetch_add(1, Ordering::Relaxed);
            }
            LoginVerdict::Refused { reply: words } | LoginVerdict::Unknown { words, .. } => {
                self.world.failed.fetch_add(1, Ordering::Relaxed);
                let _ = self.tell.send(HostTold::MailFailed { host: self.kind.name, words });
            }
        }
    }

    /// As agents count: Unix milliseconds, and never twice the same.
    fn next(&mut self) -> u64 {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        self.seq = now.max(self.seq + 1);
        self.seq
    }
}

/// As STS names the host: AWS itself vouches for it.
fn principal(host: &str) -> String {
    format!("AROADEMO:{host}")
}

fn report(
    credential: &str,
    kind: &HostKind,
    seq: u64,
    version: &str,
    key: &str,
    before: Option<String>,
    outcome: ReportOutcome,
) -> Report {
    let mode = if kind.held.is_some() { "manual" } else { "automatic" };
    let now = Timestamp::now();
    let mut report: Report = serde_json::from_value(json!({
        "schema": REPORT_V2, "id": format!("{}-{seq}", kind.name), "seq": seq, "host_id": format!("demo-{}", kind.name),
        "host": kind.name, "credential": credential, "source": "arn:aws:secretsmanager:us-east-1:111122223333:secret:demo",
        "version": version, "username": key, "previous_username": before, "at": format!("{now:.0}"), "mode": mode,
        "agent": "relaykey demo", "outcome": outcome.word(), "error": null, "approved_by": null, "targets": [],
        "labels": ["AWSCURRENT"], "poll_s": kind.poll.as_secs().max(1), "alive_due": now + jiff::SignedDuration::from_hours(24),
    }))
    .expect("a report");
    report.outcome = outcome;
    report
}

fn target(report: &mut Report, endpoint: &str, reply: &str) {
    let at = Timestamp::now();
    let target = serde_json::from_value(json!({
        "name": "main", "kind": "text", "map": "demo", "keys": [format!("[{endpoint}]")], "read_back": "looked up", "region": REGION,
        "remaining_old": [], "proof": null, "no_proof": null,
        "evidence": {"endpoint": endpoint, "reply": reply, "at": format!("{at:.0}")},
    }));
    report.targets = vec![target.expect("a target")];
}

fn prove(report: &mut Report, password: &Secret) -> Result<(), String> {
    let fields: Vec<_> = report.targets.iter().map(|target| report.proof_fields(target)).collect();
    for (target, fields) in report.targets.iter_mut().zip(fields) {
        target.proof = Some(proof(password, &fields)?);
    }
    Ok(())
}

/// The confirmation of somebody who may write where this host writes, and does not have the key.
pub async fn forge(world: &World, kind: &HostKind, version: &str, key: &str) -> Result<(), String> {
    let seq = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let mut report = report(&world.credential, kind, seq, version, key, None, ReportOutcome::Confirmed);
    target(&mut report, &world.smtp.place(), "235 Authentication successful.");
    // Of the form of SES's passwords, and another one.
    prove(&mut report, &relaykey_core::credential::ses_smtp_password(&Secret::new("guessed".into()), REGION))?;
    write(world, &principal(kind.name), &report).await
}

async fn write(world: &World, principal: &str, report: &Report) -> Result<(), String> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let sort = format!("{}#{}", report.credential, report.host_id);
    let document = serde_json::to_string(report).expect("a report has only text keys");
    let client = aws_sdk_dynamodb::Client::new(&world.aws);
    let request = client.put_item().table_name(&world.table).item(PARTITION, text(principal)).item(SORT, text(&sort));
    let request = request.item("host", text(&report.host)).item("written", text(&format!("{:.0}", Timestamp::now())));
    let request = request.item("report", text(&document));
    request.send().await.map(|_| ()).map_err(|e| format!("the report cannot be written: {e}"))
}
