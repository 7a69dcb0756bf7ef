//! `relaykey verify-proof`: was a report made by somebody who holds the password, and as it now reads; or a typed code.
//!
//! It needs no configuration and no network: the report comes on standard input, so the password is asked for at the
//! terminal itself, or read from a file descriptor.

use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use jiff::Timestamp;
use relaykey_core::report::{REPORT_V1, REPORT_V2, StillHeld};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::secret::{self, Echo, Unread};
use super::{Exit, complain, print_json, say, tell};
use crate::credential::{self, Code, CodeFields, JsonKeys, Payload, PayloadError, ProofVerdict, Secret};
use crate::rollover::{Report, ReportOutcome, ReportTarget};

#[derive(Debug, Args)]
pub struct VerifyProofArgs {
    /// Read the password from this file descriptor, to its end, instead of asking at the terminal. It may be the SMTP
    /// password alone, or USER:PASSWORD or JSON as a source holds it.
    #[arg(long, value_name = "N")]
    password_fd: Option<u32>,
    /// What is read is the IAM secret access key: the SMTP password is derived from it for each target's region.
    #[arg(long)]
    iam_secret: bool,
    /// The report must be of this host; with --code: the host that the code was made for.
    #[arg(long)]
    host: Option<String>,
    /// The report must be about this credential; with --code: the credential that the code was made for.
    #[arg(long)]
    credential: Option<String>,
    /// The report must be about this version; with --code: the version that the code was made for.
    #[arg(long, visible_alias = "version", value_name = "VERSION")]
    expect_version: Option<String>,
    /// Check a typed code instead of a report; without CODE, or with -, it is asked for: five tries.
    #[arg(
        long,
        num_args = 0..=1,
        default_missing_value = "-",
        requires_all = ["host", "credential", "expect_version"]
    )]
    code: Option<String>,
    /// With --code: the nonce of the invitation, where there was one.
    #[arg(long, requires = "code", default_value = "", hide_default_value = true)]
    nonce: String,
    /// With --code and an IAM secret access key: the region of the SES endpoint.
    #[arg(long, requires = "code")]
    region: Option<String>,
}

const SCHEMA: &str = "relaykey/verify-proof/v1";
/// The most that is read from standard input, in bytes: some thousand reports.
const MAX_DOCUMENT: usize = 8 << 20;
/// How often a person may try a code: with 40 bits, more would be guessing.
const TRIES: u32 = 5;

const PROVES: &str = "whoever made a true proof holds the password, and host, host id, credential, version, user name, target, \
                      region, outcome, seq and time are as they wrote them; in a report of v2 also the source, the time of the login, \
                      and what the login tables hold besides";
const NOT_PROVED: &str = "which host made it: hosts share the password, so that is vouched for by the channel it came \
                          through (who may write there); nor the report's other fields, which the proof does not cover";
const CODE_PROVES: &str =
    "whoever made the code holds the password, and made it for this host, credential, version and nonce";
const CODE_NOT_PROVED: &str = "who that is: it is vouched for by the channel the code came through";
const IF_FALSE: &str = "made with another password (of another key, version or region), or one of the fields it covers was \
                        changed since";
const CODE_IF_FALSE: &str =
    "mistyped, or made with another password, or for another host, credential, version or nonce";

/// What `--json` prints.
#[derive(Serialize, Default)]
struct ProofDocument {
    schema: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reports: Vec<JudgedReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<JudgedCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ProofTrouble>,
    proves: &'static str,
    does_not_prove: &'static str,
    exit: u8,
}

#[derive(Serialize)]
struct ProofTrouble {
    what: String,
    fix: String,
}

/// One report.
#[derive(Serialize)]
struct JudgedReport {
    id: String,
    host_id: String,
    host: String,
    credential: String,
    version: String,
    username: String,
    outcome: ReportOutcome,
    seq: u64,
    at: String,
    /// The report that it stands in, which has no proof of its own, such as a sign of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    within: Option<Within>,
    /// What it is of, where something else was expected.
    unexpected: Vec<String>,
    /// Why there is no target with a proof.
    no_proof: Option<String>,
    targets: Vec<JudgedTarget>,
}

/// A report that holds the one that was judged, as its `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Within {
    id: String,
    outcome: ReportOutcome,
    seq: u64,
    at: String,
}

#[derive(Serialize)]
struct JudgedTarget {
    name: String,
    region: Option<String>,
    verdict: ProofAnswer,
    /// Of every verdict but `true`.
    why: Option<String>,
    /// What it says that the login tables hold beside the login in use: what a key's owner asks before it is retired.
    #[serde(flatten)]
    held: StillHeld,
}

#[derive(Serialize)]
struct JudgedCode {
    host: String,
    credential: String,
    version: String,
    nonce: String,
    verdict: ProofAnswer,
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ProofAnswer {
    True,
    False,
    /// The report has none.
    NoProof,
    /// What was given as password cannot tell, or what stands in the proof's place cannot be one.
    NotChecked,
}

impl ProofAnswer {
    fn words(self) -> &'static str {
        match self {
            ProofAnswer::True => "true",
            ProofAnswer::False => "FALSE",
            ProofAnswer::NoProof => "no proof",
            ProofAnswer::NotChecked => "not checked",
        }
    }
}

pub fn run(json: bool, args: &VerifyProofArgs) -> Exit {
    let result = match &args.code {
        Some(code) => check_code(args, code, json),
        None => check_reports(args),
    };
    let document = match result {
        Ok(document) => document,
        Err((what, fix)) => {
            complain(&what, &fix);
            let error = Some(ProofTrouble { what, fix });
            ProofDocument { error, exit: Exit::Usage.code(), ..ProofDocument::of(args) }
        }
    };
    if json {
        print_json(&document);
    } else if document.error.is_none() {
        document.text();
    }
    Exit::of(document.exit)
}

impl ProofDocument {
    fn of(args: &VerifyProofArgs) -> Self {
        let (proves, does_not_prove) = match args.code {
            Some(_) => (CODE_PROVES, CODE_NOT_PROVED),
            None => (PROVES, NOT_PROVED),
        };
        Self { schema: SCHEMA, proves, does_not_prove, ..Self::default() }
    }

    fn text(&self) {
        for report in &self.reports {
            report.text();
        }
        if let Some(code) = &self.code {
            let why = code.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            say(&crate::text::line(&format!(
                "the code for host {}, credential {}, version {}: {}{why}",
                code.host,
                code.credential,
                code.version,
                code.verdict.words()
            )));
        }
        if self.exit == Exit::Done.code() {
            say(&format!("This shows: {}.", self.proves));
            say(&format!("It does not show {}.", self.does_not_prove));
        }
    }
}

impl JudgedReport {
    fn is_true(&self) -> bool {
        self.unexpected.is_empty()
            && !self.targets.is_empty()
            && self.targets.iter().all(|target| target.verdict == ProofAnswer::True)
    }

    fn text(&self) {
        let JudgedReport { host, host_id, credential, version, username, outcome, seq, at, .. } = self;
        let of = format!("{host} (host id {host_id}), credential {credential}");
        let is = format!("version {version} ({username}): {outcome}, seq {seq}, {at}");
        // What is judged is not the report that was given, but the one in it.
        let indent = match &self.within {
            Some(Within { outcome, seq, at, .. }) => {
                say(&crate::text::line(&format!(
                    "{of}: {outcome}, seq {seq}, {at}, which has no proof of its own; the report in it:"
                )));
                say(&crate::text::line(&format!("  {is}")));
                "    "
            }
            None => {
                say(&crate::text::line(&format!("{of}, {is}")));
                "  "
            }
        };
        for unexpected in &self.unexpected {
            say(&crate::text::line(&format!("{indent}REFUSED: {unexpected}")));
        }
        for target in &self.targets {
            let region = target.region.as_ref().map(|region| format!(" ({region})")).unwrap_or_default();
            let why = target.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            say(&crate::text::line(&format!(
                "{indent}target {}{region}: {}{why}",
                target.name,
                target.verdict.words()
            )));
            for said in target.held.said() {
                say(&crate::text::line(&format!("{indent}  {said}")));
            }
        }
        if let Some(why) = &self.no_proof {
            say(&crate::text::line(&format!("{indent}{}: {why}", ProofAnswer::NoProof.words())));
        }
    }
}

// ---------------------------------------------------------------- reports

fn check_reports(args: &VerifyProofArgs) -> Result<ProofDocument, Unread> {
    if args.password_fd == Some(0) {
        let fix = "give the password through another one, for example --password-fd 3 3<FILE".to_owned();
        return Err(("standard input is where the report comes from".into(), fix));
    }
    let reports = reports(&read_document()?)?;
    let held = HeldSecret::read(args)?;
    let judged: Vec<JudgedReport> = reports.iter().map(|report| judge(report, &held, args)).collect();
    let exit = if judged.iter().all(JudgedReport::is_true) { Exit::Done } else { Exit::ForGood };
    Ok(ProofDocument { reports: judged, exit: exit.code(), ..ProofDocument::of(args) })
}

const PIPE_IN: &str = "pipe one report in, or several: the JSON document as it arrived at the place where reports go";

fn read_document() -> Result<Vec<u8>, Unread> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        tell("relaykey: paste the report, then press Ctrl-D");
    }
    let mut bytes = Vec::new();
    let read = stdin.lock().take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| (format!("cannot read standard input: {e}"), PIPE_IN.to_owned()))?;
    Ok(bytes)
}

/// What says of which kind a document is.
#[derive(Deserialize)]
struct DocumentHead {
    schema: Option<String>,
}

/// Every report of a text: one document, several one after the other, or arrays of them. Of a sign of life the report
/// in it, which has the proof.
fn reports(bytes: &[u8]) -> Result<Vec<(Report, Option<Within>)>, Unread> {
    let error = |what: String| Err((what, PIPE_IN.to_owned()));
    if bytes.len() > MAX_DOCUMENT {
        return error(format!("standard input has more than {MAX_DOCUMENT} bytes: a report has a few thousand"));
    }
    if let Err(e) = std::str::from_utf8(bytes) {
        return error(format!("standard input is not UTF-8 text (byte {})", e.valid_up_to() + 1));
    }
    let mut all = Vec::new();
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<serde::de::IgnoredAny>();
    loop {
        let begins = documents.byte_offset();
        match documents.next() {
            None => break,
            Some(Err(e)) => return error(format!("standard input is not JSON: {e}")),
            Some(Ok(_)) => {}
        }
        // Read from the text itself, so that a key that stands twice is refused rather than one of the two believed.
        let text = bytes[begins..documents.byte_offset()].trim_ascii_start();
        match many(text) {
            Ok(reports) => all.extend(reports),
            Err(what) => return error(format!("document {} on standard input {what}", all.len() + 1)),
        }
    }
    if all.is_empty() {
        return error("there is no report on standard input".into());
    }
    all.into_iter().map(|report| evidence(report).map_err(|what| (what, PIPE_IN.to_owned()))).collect()
}

/// The reports of one document.
fn many(text: &[u8]) -> Result<Vec<Report>, String> {
    fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<Vec<T>, serde_json::Error> {
        if text.starts_with(b"[") {
            serde_json::from_slice(text)
        } else {
            serde_json::from_slice(text).map(|one| vec![one])
        }
    }
    let no_report = |e: serde_json::Error| format!("is no report: {e}");
    for DocumentHead { schema } in read::<DocumentHead>(text).map_err(no_report)? {
        match schema.as_deref() {
            Some(REPORT_V1 | REPORT_V2) => {}
            Some(other) => {
                return Err(format!(
                    "is no report that this relaykey reads: its schema is {other:?}, not {REPORT_V2:?} or {REPORT_V1:?}"
                ));
            }
            None => return Err(format!("is no report: it has no \"schema\": {REPORT_V2:?}")),
        }
    }
    read(text).map_err(no_report)
}

/// The report that has the proof, with nothing in it that no proof is made over; and the one that it stood in.
fn evidence(mut report: Report) -> Result<(Report, Option<Within>), String> {
    let mut within = None;
    while report.outcome.leaves_standing()
        && report.targets.is_empty()
        && let Some(latest) = report.latest.take()
    {
        if !latest.is_of_same(&report) {
            let of =
                |r: &Report| format!("of host {:?} (host id {:?}), credential {:?}", r.host, r.host_id, r.credential);
            return Err(format!(
                "the report {:?} is {}, and the report in it {}: it says nothing of the former",
                report.id,
                of(&report),
                of(&latest)
            ));
        }
        within.get_or_insert_with(|| {
            let Report { id, outcome, seq, at, .. } = report.clone();
            Within { id, outcome, seq, at }
        });
        report = *latest;
    }
    let heading = report.proof_fields_of("", None, Timestamp::UNIX_EPOCH, Vec::new);
    for fields in report.targets.iter().map(|target| report.proof_fields(target)).chain([heading]) {
        if let Some(field) = fields.with_control_character() {
            return Err(format!("the report {:?} has a control character in {field}, which no report has", report.id));
        }
    }
    Ok((report, within))
}

fn judge((report, within): &(Report, Option<Within>), held: &HeldSecret, args: &VerifyProofArgs) -> JudgedReport {
    let expectations = [
        ("host", &report.host, &args.host),
        ("credential", &report.credential, &args.credential),
        ("version", &report.version, &args.expect_version),
    ];
    let unexpected = expectations.into_iter().filter_map(|(name, is, expected)| {
        let expected = expected.as_ref().filter(|expected| *expected != is)?;
        Some(format!("it is of {name} {is}, and {expected} was expected"))
    });
    let words = format!("a report with outcome {} has none; adopted and confirmed have", report.outcome);
    // Whoever holds the password can make a proof over any words; relaykey makes them over these.
    use ReportOutcome::{Adopted, Alive, Confirmed};
    let completes = matches!(report.outcome, Adopted | Confirmed | Alive);
    let unexpected = unexpected.chain((!completes && !report.targets.is_empty()).then(|| words.clone()));
    JudgedReport {
        id: report.id.clone(),
        host_id: report.host_id.clone(),
        host: report.host.clone(),
        credential: report.credential.clone(),
        version: report.version.clone(),
        username: report.username.clone(),
        outcome: report.outcome,
        seq: report.seq,
        at: report.at.clone(),
        within: within.clone(),
        unexpected: unexpected.collect(),
        no_proof: report.targets.is_empty().then_some(words),
        targets: report.targets.iter().map(|target| judge_target(report, target, held)).collect(),
    }
}

fn judge_target(report: &Report, target: &ReportTarget, held: &HeldSecret) -> JudgedTarget {
    let (verdict, why) = match &target.proof {
        None => {
            (ProofAnswer::NoProof, Some(target.no_proof.clone().unwrap_or_else(|| "and it does not say why".into())))
        }
        Some(proof) => match held.password(Some(&report.username), target.region.as_deref()) {
            Err(why) => (ProofAnswer::NotChecked, Some(why)),
            Ok(password) => {
                let fields = report.proof_fields(target);
                verdict(credential::verify_proof(&password, &fields, proof), IF_FALSE)
            }
        },
    };
    let held = target.held.clone();
    JudgedTarget { name: target.name.clone(), region: target.region.clone(), verdict, why, held }
}

fn verdict(found: ProofVerdict, if_false: &str) -> (ProofAnswer, Option<String>) {
    match found {
        ProofVerdict::True => (ProofAnswer::True, None),
        ProofVerdict::False => (ProofAnswer::False, Some(if_false.to_owned())),
        ProofVerdict::NoProof(why) => (ProofAnswer::NotChecked, Some(why.to_owned())),
    }
}

// ---------------------------------------------------------------- the password

/// What the verifier holds.
enum HeldSecret {
    Password(Secret),
    IamSecret(Secret),
    Login(Payload),
}

impl HeldSecret {
    fn read(args: &VerifyProofArgs) -> Result<Self, Unread> {
        let bytes = match args.password_fd {
            Some(number) => secret::from_descriptor(number)?,
            None => {
                let prompt = if args.iam_secret { "IAM secret access key: " } else { "SMTP password: " };
                secret::ask(prompt, Echo::Off, "give it through a file descriptor: --password-fd 3 3<FILE")?
            }
        };
        Self::new(&bytes, args.iam_secret)
    }

    /// Errors name no content.
    fn new(bytes: &[u8], iam_secret: bool) -> Result<Self, Unread> {
        let fix = "give the SMTP password, USER:PASSWORD or JSON as a source holds it, or the IAM secret access key with \
                   --iam-secret";
        let error = |what: &str| Err((what.to_owned(), fix.to_owned()));
        let Ok(text) = std::str::from_utf8(bytes) else { return error("the password is not UTF-8 text") };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
        // No SES password and no IAM secret has these.
        if text.starts_with('{') || text.contains(':') {
            let payload = Payload::parse(bytes, &JsonKeys::default());
            return payload.map(Self::Login).map_err(|e| (e.to_string(), fix.to_owned()));
        }
        if text.is_empty() {
            return error("the password is empty");
        }
        if text.bytes().any(|b| !b.is_ascii_graphic()) {
            return error("that is no password: it has blanks, control characters or several lines");
        }
        if text.len() == 20 && (text.starts_with("AKIA") || text.starts_with("ASIA")) {
            return error("that is an access key id, not a password");
        }
        let secret = Secret::new(text.to_owned());
        Ok(if iam_secret { Self::IamSecret(secret) } else { Self::Password(secret) })
    }

    /// The SMTP password of this user in this region, or why what is held does not give it.
    fn password(&self, username: Option<&str>, region: Option<&str>) -> Result<Secret, String> {
        let no_region =
            "without a region no SMTP password can be derived from an IAM key: give the SMTP password itself";
        match (self, region) {
            (Self::Password(password), _) => match credential::ses_password_form(password.expose()) {
                Err(PayloadError::SecretAccessKey) => {
                    Err("what was given looks like an IAM secret access key (40 characters): add --iam-secret".into())
                }
                _ => Ok(password.clone()),
            },
            (Self::IamSecret(secret), Some(region)) => Ok(credential::ses_smtp_password(secret, region)),
            (Self::IamSecret(_), None) => Err(no_region.into()),
            (Self::Login(payload), region) => {
                if username.is_some_and(|username| username != payload.username()) {
                    return Err(format!(
                        "what was given is the login of {}, and the report is about {}",
                        credential::shown_or_said(payload.username(), false),
                        username.unwrap_or_default()
                    ));
                }
                payload.login("", region).map(|login| login.password).map_err(|e| match e {
                    PayloadError::NoRegion(_) => no_region.to_owned(),
                    other => other.to_string(),
                })
            }
        }
    }
}

// ---------------------------------------------------------------- the code

fn check_code(args: &VerifyProofArgs, code: &str, json: bool) -> Result<ProofDocument, Unread> {
    let [host, credential, version] =
        [&args.host, &args.credential, &args.expect_version].map(|value| value.clone().unwrap_or_default());
    let fields = CodeFields { host, credential, version, nonce: args.nonce.clone() };
    let asks = code == "-";
    if asks && args.password_fd == Some(0) {
        let fix = "give the password through another file descriptor, for example --password-fd 3 3<FILE".to_owned();
        return Err(("standard input is where the code comes from".into(), fix));
    }
    let held = HeldSecret::read(args)?;
    let password = held.password(None, args.region.as_deref()).map_err(|what| {
        let fix = "with an IAM key name the region too: --iam-secret --region REGION".to_owned();
        (what, fix)
    })?;
    // Once is enough for a program; it does not mistype.
    let at_terminal = asks && std::io::stdin().is_terminal();
    let tries = if at_terminal { TRIES } else { 1 };
    let mut judged = (ProofAnswer::NotChecked, None);
    for left in (0..tries).rev() {
        let typed = match (asks, at_terminal) {
            (true, true) => secret::ask("Code: ", Echo::On, "name it: --code CODE")?,
            (true, false) => piped_code()?,
            (false, _) => Zeroizing::new(code.as_bytes().to_vec()),
        };
        judged = match String::from_utf8_lossy(&typed).parse::<Code>() {
            Ok(typed) => verdict(credential::verify_code(&password, &fields, &typed), CODE_IF_FALSE),
            Err(e) => (ProofAnswer::False, Some(e.to_string())),
        };
        if judged.0 != ProofAnswer::False {
            break;
        }
        if left > 0 && !json {
            tell(&crate::text::line(&format!("{}; tries left: {left}", judged.1.as_deref().unwrap_or_default())));
        }
    }
    let (verdict, why) = judged;
    let CodeFields { host, credential, version, nonce } = fields;
    let code = JudgedCode { host, credential, version, nonce, verdict, why };
    let exit = if verdict == ProofAnswer::True { Exit::Done } else { Exit::ForGood };
    Ok(ProofDocument { code: Some(code), exit: exit.code(), ..ProofDocument::of(args) })
}

fn piped_code() -> Result<Zeroizing<Vec<u8>>, Unread> {
    let mut typed = Zeroizing::new(Vec::new());
    let read = std::io::stdin().lock().take(4096).read_to_end(&mut typed);
    read.map_err(|e| {
        (format!("cannot read standard input: {e}"), "pipe the code in, or name it: --code CODE".to_owned())
    })?;
    Ok(typed)
}
