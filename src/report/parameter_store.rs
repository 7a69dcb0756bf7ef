//! AWS Systems Manager Parameter Store: one parameter per credential and host, `PATH/CREDENTIAL/HOST`, of type String in
//! the standard tier, which costs nothing and holds 4,096 characters. It holds the latest report; the 99 before it are
//! in the parameter's history.
//!
//! Parameter Store has no conditional write, so the parameter is read first: a report that is there already is not
//! written again, a later one of this installation is not replaced, and neither is anything that is no report. The
//! parameter is made without permission to overwrite.
//!
//! Needs `ssm:GetParameter` and `ssm:PutParameter` on that one parameter.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::RequestId;
use aws_sdk_ssm::types::{Parameter, ParameterTier, ParameterType};
use relaykey_core::report::{HeldKeyId, REPORT_V1, is_report, place};
use serde::Deserialize;

use crate::aws::{self, AwsSession, Call, Http, ReachedFor, ServiceError};
use crate::config::Aws;
use crate::fault::{Class, Fault};
use crate::instruction::{Instruction, relaykey};
use crate::report::{Checking, Delivering, Receiver, Whose};
use crate::rollover::{Report, ReportError, ReportOutcome, ReportTable, ReportTarget};

/// What a standard parameter holds, in characters; counted here in bytes, to be on the safe side.
const MOST: usize = 4096;
/// Levels of a name (`/a/b` has two), from the API reference of PutParameter.
const MOST_LEVELS: usize = 15;
/// Characters of a name, its ARN included, from the same place.
const MOST_IN_ARN: usize = 1011;

/// A receiver of type `parameter-store`.
pub struct ParameterReceiver {
    path: String,
    region: Option<String>,
    session: AwsSession,
}

impl ParameterReceiver {
    /// `path` begins with `/` and does not end with it.
    pub fn new(path: &str, aws: &Aws, http: &Http) -> Result<Self, Fault> {
        Ok(Self {
            path: path.to_owned(),
            region: aws.region.clone(),
            session: AwsSession::new(aws, http)?.reached_for(ReachedFor::Report),
        })
    }

    async fn put(&self, report: &Report) -> Result<(), Fault> {
        let name = name(&self.path, &report.credential, &report.host)?;
        let document = document(report, MOST)?;
        let config = self.session.config().await?;
        let region = config.region().map_or("", |r| r.as_ref());
        let client = Client::new(&config);
        let there = match client.get_parameter().name(&name).send().await {
            Ok(mut output) => Some(StoredReport::read(&name, output.parameter.take())?),
            Err(e) if aws::answer(&e).is_some_and(|answer| answer.code == "ParameterNotFound") => None,
            Err(e) => return Err(self.explain(&e, "ssm:GetParameter", &name, region).await),
        };
        // Another installation under the same name is one that this one follows: a host that was set up anew.
        match there.as_ref().filter(|there| there.host_id == report.host_id) {
            Some(there) if there.seq == report.seq => return Ok(()),
            Some(there) if there.seq > report.seq => return Err(newer_there(&name, there, report)),
            _ => {}
        }
        let request = client
            .put_parameter()
            .name(&name)
            .value(document)
            .r#type(ParameterType::String)
            .tier(ParameterTier::Standard)
            .overwrite(there.is_some());
        match request.send().await {
            Ok(_) => Ok(()),
            Err(e) => Err(self.explain(&e, "ssm:PutParameter", &name, region).await),
        }
    }

    /// The parameter can be read; whether it may be written is known when a report is.
    async fn look(&self, whose: &Whose) -> Result<String, Fault> {
        let name = name(&self.path, &whose.credential, &whose.host)?;
        let config = self.session.config().await?;
        let region = config.region().map_or("", |r| r.as_ref());
        match Client::new(&config).get_parameter().name(&name).send().await {
            Ok(mut output) => {
                let there = StoredReport::read(&name, output.parameter.take())?;
                Ok(format!("parameter {name:?} holds report number {}", there.seq))
            }
            Err(e) if aws::answer(&e).is_some_and(|answer| answer.code == "ParameterNotFound") => Ok(format!(
                "parameter {name:?} is not there yet and will be made; the right to make it (ssm:PutParameter) is not tried"
            )),
            Err(e) => Err(self.explain(&e, "ssm:GetParameter", &name, region).await),
        }
    }

    async fn explain<E>(&self, error: &SdkError<E>, action: &'static str, name: &str, region: &str) -> Fault
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        SdkError<E>: RequestId,
    {
        let call = Call {
            action,
            about: format!("parameter {name:?}"),
            arn: format!("arn:{}:ssm:{region}:*:parameter{name}", aws::partition(region)),
            region,
            role_arn: self.session.role_arn(),
        };
        let mut explained = self.session.explain(error, &call, |answer| special(answer, &call)).await;
        if explained.class == Class::Throttled {
            explained.fix =
                "nothing to do if it passes; if it stays, too many hosts report to Parameter Store at the same time: turn on its higher \
                 throughput for the account (ssm:UpdateServiceSetting, high-throughput-enabled)"
                    .into();
        }
        explained
    }
}

impl Receiver for ParameterReceiver {
    fn deliver<'a>(&'a self, report: &'a Report) -> Delivering<'a> {
        Box::pin(self.put(report))
    }

    fn check<'a>(&'a self, whose: &'a Whose) -> Checking<'a> {
        Box::pin(self.look(whose))
    }

    fn describe(&self) -> String {
        format!("Parameter Store {} in {}", self.path, self.region.as_deref().unwrap_or("the default region"))
    }
}

/// The report that is at the place already, as far as it matters here.
#[derive(Deserialize)]
struct StoredReport {
    schema: String,
    host_id: String,
    seq: u64,
}

impl StoredReport {
    fn read(name: &str, parameter: Option<Parameter>) -> Result<Self, Fault> {
        let report = parameter
            .as_ref()
            .filter(|p| p.r#type == Some(ParameterType::String))
            .and_then(|p| serde_json::from_str::<StoredReport>(p.value()?).ok())
            .filter(|there| is_report(&there.schema));
        // What it holds instead is not repeated: it may be a secret.
        report.ok_or_else(|| {
            Fault::new(
                Class::Occupied,
                format!("parameter {name:?} holds something that is no report of relaykey, and is left as it is"),
                format!(
                    "set another `path` in [[report]]; or, if nobody needs it, delete it: aws ssm delete-parameter --name {name}"
                ),
            )
        })
    }
}

fn newer_there(name: &str, there: &StoredReport, report: &Report) -> Fault {
    Fault::new(
        Class::NewerThere,
        format!(
            "parameter {name:?} holds a later report of this very installation: number {} there, {} here",
            there.seq, report.seq
        ),
        format!(
            "find out which: the state of this host came back from a backup, its clock was wrong, or another machine runs with a copy of \
             its state directory; then: aws ssm delete-parameter --name {name}"
        ),
    )
}

/// `PATH/CREDENTIAL/HOST`, or what in it Parameter Store does not take.
fn name(path: &str, credential: &str, host: &str) -> Result<String, Fault> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let wrong = |what: String, fix: &str| Err(Fault::new(Class::Configuration, what, fix));
    let letters = "Parameter Store takes letters, digits and _ . - in a name";
    if let Some(c) = host.chars().find(|c| !allowed(*c)) {
        return wrong(
            format!("the host name {:?} cannot be part of a parameter's name, for its {c:?}: {letters}", host),
            "set `name` under [host] to a name of such characters",
        );
    }
    if host.is_empty() {
        return wrong("the host has no name to report under".into(), "set `name` under [host]");
    }
    let bad = path.chars().find(|c| !allowed(*c) && *c != '/');
    if bad.is_some() || !path.starts_with('/') || path.ends_with('/') || path.contains("//") {
        return wrong(
            format!("{path:?} is no path of parameters: {letters}, and / between its levels"),
            "correct `path` in [[report]]; it looks like /relaykey",
        );
    }
    let name = place::parameter(path, credential, host);
    // The longest start of an ARN: partition and region of the longest names.
    let longest = "arn:aws-us-gov:ssm:ap-southeast-99:111122223333:parameter".len() + name.len();
    if name.matches('/').count() > MOST_LEVELS || longest > MOST_IN_ARN {
        return wrong(
            format!(
                "the parameter name {name:?} is too deep or too long: at most {MOST_LEVELS} levels and, with its ARN, {MOST_IN_ARN} characters"
            ),
            "shorten `path` in [[report]]",
        );
    }
    Ok(name)
}

/// The report as it is stored: JSON of at most `most` bytes.
///
/// Where it is longer, texts that no proof is made over are shortened, each ending in `…` then: first the words of the
/// SMTP server, then lists of keys. A list that was not empty never becomes empty. What a proof covers stays as it is: it was
/// made to fit, by [`room_for_lists`].
fn document(report: &Report, most: usize) -> Result<String, Fault> {
    let full = json(report);
    if full.len() <= most {
        return Ok(full);
    }
    let mut short = report.clone();
    for (text, list) in SHORTER {
        short.clone_from(report);
        shorten(&mut short, text, list);
        let short = json(&short);
        if short.len() <= most {
            return Ok(short);
        }
    }
    // Without a proof of its own a sign of life is one all the same.
    if short.outcome == ReportOutcome::Alive && short.latest.is_some() {
        short.targets.clear();
        let (text, list) = SHORTER[SHORTER.len() - 1];
        shorten(&mut short, text, list);
        let short = json(&short);
        if short.len() <= most {
            return Ok(short);
        }
    }
    // Of a sign of life over a failure over a confirmation, the failure is not what anybody goes by.
    if let Some(latest) = short.latest.take_if(|latest| latest.targets.is_empty() && latest.latest.is_some()) {
        short.latest = latest.latest;
    }
    // What a person is to do, the host says.
    short.waiting = None;
    let short = json(&short);
    if short.len() <= most {
        return Ok(short);
    }
    Err(Fault::new(
        Class::TooLarge,
        format!("the report has {} bytes, and a standard parameter holds {most}; shortening did not help", full.len()),
        format!(
            "split the {} targets of the credential {:?} over several credentials",
            report.targets.len(),
            report.credential
        ),
    ))
}

/// Characters of a text, and texts of a list, in one attempt after the other.
const SHORTER: [(usize, usize); 4] = [(200, 100), (80, 20), (40, 5), (20, 1)];
/// Every document may have so much in its lists, however short the rest of it is.
const MOST_LISTED: usize = 1600;

/// Characters of JSON that the lists of each target may take, so that the longest document that this confirmation gets into fits: a
/// report of something else with it inside, as short as [`document`] makes both.
///
/// `targets`: as the configuration names them.
pub fn room_for_lists(heading: &Report, targets: &[ReportTarget]) -> usize {
    let filled = |target: &ReportTarget| {
        let mut target = target.clone();
        let long = || "x".repeat(SHORTER[0].0);
        (target.map, target.read_back) = (long(), "postmap -q".into());
        target.keys = vec![long(); 2];
        target.tables = vec![ReportTable { table: long(), services: vec![long(); 2] }];
        target.evidence.reply = long();
        target.proof = Some("x".repeat(44));
        // Ten digits are more than any table has entries.
        let count = Some(9_999_999_999);
        (target.held.remaining_old_count, target.held.others_count, target.held.incomplete_count) =
            (count, count, count);
        target.held.others = vec![HeldKeyId { id: String::new(), count: 0, places: Vec::new() }];
        target.held.incomplete = vec![String::new()];
        target
    };
    let inner = Report { targets: targets.iter().map(filled).collect(), latest: None, ..heading.clone() };
    let words = "x".repeat(SHORTER[0].0);
    let name = "x".repeat(heading.username.len().max(NAME));
    let mut longest = Report {
        error: Some(ReportError::new(Class::NotRunning, words)),
        waiting: None,
        in_use: Some(vec![name.clone(); targets.len().min(2)]),
        version_in_use: Some(heading.version.clone()),
        previous_username: Some(name),
        another_login: true,
        approved_by: None,
        latest: Some(Box::new(inner)),
        ..heading.clone()
    };
    let (text, list) = SHORTER[SHORTER.len() - 1];
    shorten(&mut longest, text, list);
    let left = MOST.saturating_sub(json(&longest).len());
    left.min(MOST_LISTED) / targets.len().max(1)
}

/// Characters of a user name: an access key id has 20.
const NAME: usize = 20;

/// One line of JSON. Two opening braces in a row are how Parameter Store refers to other parameters, and it refuses
/// them; in JSON they can only stand in a text.
fn json(report: &Report) -> String {
    serde_json::to_string(report).expect("a report has only text keys").replace("{{", "{\\u007b")
}

fn shorten(report: &mut Report, text: usize, list: usize) {
    for target in &mut report.targets {
        cut(&mut target.evidence.reply, text);
        target.no_proof.iter_mut().for_each(|words| cut(words, text));
        cut_list(&mut target.keys, list);
        // Of v2 they are signed.
        if report.schema == REPORT_V1 {
            cut_list(&mut target.held.remaining_old, list);
        }
        if text < 100 {
            cut(&mut target.map, text * 2);
            target.keys.iter_mut().for_each(|key| cut(key, text * 2));
            // The services are on the host, for who asks.
            target.tables.iter_mut().for_each(|table| cut(&mut table.table, text * 2));
            if target.tables.len() > list {
                target.tables.clear();
            }
            for table in &mut target.tables {
                cut_list(&mut table.services, list);
                table.services.iter_mut().for_each(|service| cut(service, text));
            }
        }
    }
    if text < 100 {
        cut_list(&mut report.labels, list);
        report.approved_by.iter_mut().for_each(|who| cut(who, text * 2));
        // No proof is made over it where there is none.
        if report.targets.is_empty() {
            cut(&mut report.source, text);
        }
    }
    if let Some(error) = &mut report.error {
        // Of what is told apart a part is worse than nothing: the words have it all, up to where they are cut.
        (error.what, error.fix) = (None, None);
        cut(&mut error.words, text * 2);
    }
    if let Some(waiting) = &mut report.waiting {
        waiting.differences.iter_mut().for_each(|words| cut(words, text));
        cut_list(&mut waiting.differences, list);
        // A step that is cut is another one.
        if text < 100 && !waiting.steps.is_empty() {
            let step = format!("the steps are too long for this place: {} shows them on the host", relaykey("status"));
            waiting.steps = vec![Instruction::Text(step)];
        }
    }
    if let Some(latest) = &mut report.latest {
        shorten(latest, text, list);
    }
}

fn cut(text: &mut String, most: usize) {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push('…');
    }
}

fn cut_list(list: &mut Vec<String>, most: usize) {
    if list.len() > most {
        let more = list.len() - most;
        list.truncate(most);
        list.push(format!("… and {more} more"));
    }
}

/// What only PutParameter says.
fn special(answer: ServiceError, call: &Call) -> Option<Fault> {
    let said = answer.words();
    let about = format!("{} for {} in {}", call.action, call.about, call.region);
    let lower = answer.message.to_ascii_lowercase();
    let told =
        |class, what: &str, fix: String| Some(Fault::new(class, format!("{about}: {what}. AWS says: {said}"), fix));
    match answer.code {
        // Of several writers one is let through; or somebody made it between the look and the write.
        "TooManyUpdates" | "ParameterAlreadyExists" => Some(Fault::new(
            Class::Service,
            format!("{about}: somebody else writes it at this moment. AWS says: {said}"),
            "nothing to do if it passes; if it stays, find out what else writes this parameter",
        ).temporary()),
        "ParameterLimitExceeded" => told(
            Class::Limit,
            "the account holds as many parameters as it may in this region",
            "delete parameters that nobody needs, such as those of hosts that are gone; a region holds 10,000 standard ones".into(),
        ),
        "ParameterMaxVersionLimitExceeded" => told(
            Class::Limit,
            "its oldest version carries a label, and so makes no room for a new one",
            "take the label off that version, or delete the parameter: reports need no labels".into(),
        ),
        "HierarchyLevelLimitExceededException" | "ParameterPatternMismatchException" => told(
            Class::Configuration,
            "AWS does not take the name",
            "set another `path` in [[report]], with fewer levels and only letters, digits and _ . -".into(),
        ),
        "HierarchyTypeMismatchException" | "UnsupportedParameterType" => told(
            Class::Occupied,
            "it exists and is of another type",
            "set another `path` in [[report]], or delete the parameter if nobody needs it".into(),
        ),
        "ValidationException" if lower.contains("tier") => told(
            Class::Configuration,
            "it is an advanced parameter, which cannot become a standard one again",
            "delete the parameter; relaykey makes it anew, as a standard one".into(),
        ),
        "ValidationException" | "AccessDeniedException" if lower.contains("prefixed") || lower.contains("reserved parameter name") => told(
            Class::Configuration,
            "the name belongs to AWS",
            "set a `path` in [[report]] that does not begin with aws or ssm, such as /relaykey".into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;
    use relaykey_core::report::{EntryPlace, OtherKeyIds, REPORT_V2, StillHeld};

    use crate::rollover::{Evidence, Waiting};

    fn target(name: &str, reply: &str) -> ReportTarget {
        ReportTarget {
            name: name.into(),
            kind: "postfix".into(),
            map: "hash:/etc/postfix/sasl_passwd".into(),
            keys: vec!["[email-smtp.eu-west-1.amazonaws.com]:587".into()],
            read_back: "postmap -q, text and map".into(),
            tables: Vec::new(),
            held: StillHeld::default(),
            region: Some("eu-west-1".into()),
            evidence: Evidence {
                endpoint: "email-smtp.eu-west-1.amazonaws.com:587".into(),
                reply: reply.into(),
                at: jiff::Timestamp::UNIX_EPOCH,
            },
            proof: Some("x".repeat(44)),
            no_proof: None,
        }
    }

    #[test]
    fn names_are_path_credential_host() {
        for (path, host, expected) in [
            ("/relaykey", "mx1.example.com", Ok("/relaykey/ses/mx1.example.com")),
            ("/mail/fleet_a", "MX-1", Ok("/mail/fleet_a/ses/MX-1")),
            ("/relaykey", "mx 1", Err("[host]")),
            ("/relaykey", "mx1/../mx2", Err("[host]")),
            ("/relaykey", "mäx", Err("[host]")),
            ("/relaykey", "", Err("[host]")),
            ("relaykey", "mx1", Err("path")),
            ("/relaykey/", "mx1", Err("path")),
            ("/a//b", "mx1", Err("path")),
            ("/a:b", "mx1", Err("path")),
            ("/1/2/3/4/5/6/7/8/9/10/11/12/13", "mx1", Ok("/1/2/3/4/5/6/7/8/9/10/11/12/13/ses/mx1")),
            ("/1/2/3/4/5/6/7/8/9/10/11/12/13/14", "mx1", Err("shorten")),
            (&format!("/{}", "x".repeat(1000)), "mx1", Err("shorten")),
        ] {
            let mut report = report(1);
            (report.credential, report.host) = ("ses".into(), host.into());
            match (name(path, &report.credential, &report.host), expected) {
                (Ok(name), Ok(expected)) => assert_eq!(name, expected),
                (Err(e), Err(fix)) => {
                    assert_eq!((e.class.word(), e.temporary), ("configuration", false), "{path} {host}");
                    assert!(e.fix.contains(fix), "{path} {host}: {}", e.fix);
                }
                (got, expected) => panic!("{path} {host}: {got:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_document_fits_and_what_is_signed_stays_whole() {
        let reply = "235 Authentication successful. ".repeat(60);
        let mut long = Report { schema: REPORT_V1.into(), ..report(7) };
        long.targets = (0..5).map(|n| target(&format!("t{n}"), &reply)).collect();
        long.targets[1].held.remaining_old = (0..300).map(|n| format!("[relay{n}.example.com]:587")).collect();
        long.error = Some(ReportError::new(Class::Refused, "ü".repeat(900)));
        let text = document(&long, MOST).unwrap();
        assert!(text.len() <= MOST);
        let stored: Report = serde_json::from_str(&text).unwrap();
        let signed = |r: &Report| {
            let targets: Vec<_> =
                r.targets.iter().map(|t| (t.name.clone(), t.region.clone(), t.proof.clone())).collect();
            let r = r.clone();
            (r.host_id, r.host, r.credential, r.version, r.username, r.outcome, r.seq, r.at, targets)
        };
        assert_eq!(signed(&stored), signed(&long));
        assert!(
            stored.targets[0].evidence.reply.starts_with("235 ") && stored.targets[0].evidence.reply.ends_with('…')
        );
        // Old entries that remain are never shortened away.
        assert!(stored.targets[1].held.remaining_old.len() >= 2, "{:?}", stored.targets[1].held.remaining_old);
        assert!(stored.targets[1].held.remaining_old.last().unwrap().ends_with("more"));

        // So is what a sign of life brings along.
        let alive = Report { latest: Some(Box::new(long.clone())), ..report(9) };
        let text = document(&alive, MOST).unwrap();
        let stored: Report = serde_json::from_str(&text).unwrap();
        assert!(text.len() <= MOST && signed(&stored.latest.unwrap()) == signed(&long));

        // As usual it has its own proofs, too.
        let usual = |outcome, latest| Report { outcome, targets: vec![target("main", "235 ok")], latest, ..report(8) };
        let confirmed = usual(ReportOutcome::Confirmed, None);
        let alive = usual(ReportOutcome::Alive, Some(Box::new(confirmed)));
        assert_eq!(serde_json::from_str::<Report>(&document(&alive, MOST).unwrap()).unwrap(), alive);

        let short = report(8);
        assert_eq!(serde_json::from_str::<Report>(&document(&short, MOST).unwrap()).unwrap(), short);

        long.targets = (0..40).map(|n| target(&format!("t{n}"), &reply)).collect();
        let e = document(&long, MOST).unwrap_err();
        assert_eq!((e.class.word(), e.temporary), ("too-large", false));
        assert!(e.what.contains("holds 4096"), "{}", e.what);
    }

    /// Everything as long as it may be: of that many targets, and inside of a sign of life over something that failed.
    fn longest(targets: usize, longest_names: bool) -> Report {
        let host = |n: usize| format!("{}.example.com", "h".repeat(n));
        let mut heading = Report {
            schema: REPORT_V2.into(),
            id: format!("{}-{}-1790000000000", "f".repeat(32), "c".repeat(64)),
            seq: 1_790_000_000_000,
            host_id: "f".repeat(32),
            host: host(20),
            credential: "c".repeat(20),
            source: format!("arn:aws:secretsmanager:eu-west-1:111122223333:secret:{}", "s".repeat(40)),
            version: "7f3c9a52-1111-2222-3333-444455556666".into(),
            username: "AKIAIOSFODNN7EXAMPLE".into(),
            previous_username: Some("AKIAI44QH8DHBEXAMPLE".into()),
            agent: "relaykey/10.20.30".into(),
            outcome: ReportOutcome::Confirmed,
            approved_by: Some("apply = Sat 02:00-04:00 ".repeat(20)),
            labels: vec!["AWSCURRENT".into(), "relaykey-canary".into()],
            poll_s: Some(86_400),
            alive_due: Some(jiff::Timestamp::UNIX_EPOCH),
            ..report(7)
        };
        if longest_names {
            // The longest host name, credential, and ARN of a parameter.
            heading.host = host(241);
            heading.credential = "c".repeat(64);
            heading.source = format!("arn:aws-us-gov:ssm:us-gov-west-1:111122223333:parameter/{}", "p".repeat(952));
        }
        let reply = "235 Authentication successful. ".repeat(60);
        let bare =
            |n| ReportTarget { region: Some("ap-southeast-2".into()), ..target(&format!("postfix-{n}"), &reply) };
        let room = room_for_lists(&heading, &(0..targets).map(bare).collect::<Vec<_>>());
        let many = |what: &str| (0..5000).map(|n| format!("{what}{n:05}{}", "y".repeat(300))).collect::<Vec<_>>();
        let id = |n: usize| {
            let place =
                |line| EntryPlace { table: "hash:/etc/postfix/{{sasl}}".into(), line: Some(line), key: "k".into() };
            HeldKeyId { id: format!("AKIA{n:016}"), count: 3, places: (0..3).map(place).collect() }
        };
        let others = OtherKeyIds { count: 20_000, named: (0..10_000).map(id).collect() };
        let full = |n| ReportTarget {
            map: format!("hash:/{}", "m".repeat(4000)),
            keys: vec!["k".repeat(300); 30],
            tables: vec![ReportTable { table: "t".repeat(4000), services: vec!["s".repeat(300); 30] }; 9],
            held: StillHeld::within(room, &many("[relay"), &others, &many("mysql:"), &["AKIA0000000000000777"]),
            proof: Some("p".repeat(44)),
            ..bare(n)
        };
        let confirmed = Report { targets: (0..targets).map(full).collect(), ..heading.clone() };
        let waiting = Waiting {
            window: Some("Sat 02:00-04:00".into()),
            steps: vec![Instruction::Text("edit this ".repeat(100)); 9],
            differences: vec!["d".repeat(300); 30],
            ..Waiting::default()
        };
        let failed = Report {
            outcome: ReportOutcome::PendingApproval,
            error: Some(ReportError::new(Class::NotRunning, "because ".repeat(200))),
            waiting: Some(waiting),
            in_use: Some(vec!["AKIAIOSFODNN7EXAMPLE".into(); targets.min(2)]),
            version_in_use: Some(heading.version.clone()),
            latest: Some(Box::new(confirmed)),
            ..heading.clone()
        };
        // A sign of life has proofs of its own: the longest of these, too, is to fit.
        let targets = (0..targets).map(full).collect();
        Report { outcome: ReportOutcome::Alive, targets, latest: Some(Box::new(failed)), ..heading }
    }

    fn evidence(report: &Report) -> &Report {
        report.chain().last().expect("itself")
    }

    fn evidence_mut(report: &mut Report) -> &mut Report {
        match report.latest {
            Some(ref mut latest) => evidence_mut(latest),
            None => report,
        }
    }

    #[test]
    fn several_short_entries_are_all_there_however_short_the_rest_becomes() {
        let mut alive = longest(1, false);
        let held = &mut evidence_mut(&mut alive).targets[0].held;
        let several: Vec<String> = (0..9).map(|n| format!("[relay{n}]:587")).collect();
        // They take no more room than what they stand for.
        held.others.truncate(1);
        held.remaining_old.clone_from(&several);
        let text = document(&alive, MOST).unwrap();
        let stored: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(evidence(&stored).targets[0].held.remaining_old, several);
        // All else was shortened as far as it goes.
        assert!(evidence(&stored).targets[0].keys.len() < several.len());
    }

    #[test]
    fn the_longest_document_fits_and_its_signed_lists_are_whole() {
        for (targets, longest_names) in [(1, false), (1, true), (2, false), (3, false), (4, false)] {
            let alive = longest(targets, longest_names);
            let made = evidence(&alive);
            let text = document(&alive, MOST).unwrap_or_else(|e| panic!("{targets} {longest_names}: {}", e.what));
            assert!(text.len() <= MOST, "{}", text.len());
            let stored: Report = serde_json::from_str(&text).unwrap();
            assert!(
                stored.targets.is_empty(),
                "it goes without proofs of its own before anything of the confirmation goes"
            );
            let stored = evidence(&stored);
            for (stored, made) in stored.targets.iter().zip(&made.targets) {
                assert_eq!(stored.held, made.held);
                assert!(made.held.is_shortened());
            }
            for (index, target) in made.targets.iter().enumerate() {
                assert_eq!(stored.proof_fields(&stored.targets[index]), made.proof_fields(target), "{targets}");
            }
            // Old entries, tables, and key ids of ours are named in any case where names are not of hundreds of characters.
            if targets < 4 && !longest_names {
                let held = &made.targets[0].held;
                let both_named = !held.remaining_old.is_empty() && !held.incomplete.is_empty();
                assert!(both_named || targets > 2, "{held:?}");
                assert_eq!(held.others[0].id, "AKIA0000000000000777");
                assert!(held.others.len() >= 4 / targets, "{held:?}");
            }
            // The confirmation alone, and in a report of something else.
            for report in [made, alive.latest.as_deref().unwrap()] {
                assert!(document(report, MOST).unwrap().len() <= MOST);
            }
        }
    }

    #[test]
    fn braces_that_parameter_store_would_take_for_a_reference_are_escaped() {
        let mut braces = report(1);
        braces.targets = vec![target("main", "235 {{ssm:/ses/password}} {{{{{")];
        let text = document(&braces, MOST).unwrap();
        assert!(!text.contains("{{"), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), braces);
    }

    #[test]
    fn only_a_report_counts_as_one() {
        let parameter = |kind: ParameterType, value: &str| Parameter::builder().r#type(kind).value(value).build();
        let text = document(&report(3), MOST).unwrap();
        assert_eq!(
            StoredReport::read("/r", Some(parameter(ParameterType::String, &text))).ok().map(|t| t.seq),
            Some(3)
        );
        let later = text.replace("report/v1", "report/v2");
        assert!(StoredReport::read("/r", Some(parameter(ParameterType::String, &later))).is_ok());
        for (kind, value) in [
            (ParameterType::SecureString, text.as_str()),
            (ParameterType::StringList, &text),
            (ParameterType::String, "AKIAIOSFODNN7EXAMPLE:hunter2hunter2"),
            (ParameterType::String, r#"{"schema":"other/v1","host_id":"x","seq":1}"#),
            (ParameterType::String, ""),
        ] {
            let Err(e) = StoredReport::read("/relaykey/ses/mx1", Some(parameter(kind, value))) else {
                panic!("{value}")
            };
            assert_eq!((e.class.word(), e.temporary), ("occupied", false));
            assert!(!format!("{e:?}").contains("hunter2") && e.what.contains("/relaykey/ses/mx1"), "{e:?}");
        }
    }

    #[test]
    fn what_aws_says_is_explained() {
        let call = Call {
            action: "ssm:PutParameter",
            about: "parameter \"/relaykey/ses/mx1\"".into(),
            arn: "arn:aws:ssm:eu-west-1:*:parameter/relaykey/ses/mx1".into(),
            region: "eu-west-1",
            role_arn: None,
        };
        for (code, message, class, temporary, fix) in [
            ("TooManyUpdates", "", "service", true, "what else writes"),
            ("ParameterAlreadyExists", "", "service", true, "what else writes"),
            ("ParameterLimitExceeded", "", "limit", false, "10,000"),
            ("ParameterMaxVersionLimitExceeded", "", "limit", false, "label"),
            ("HierarchyLevelLimitExceededException", "", "configuration", false, "path"),
            ("HierarchyTypeMismatchException", "", "occupied", false, "path"),
            (
                "ValidationException",
                "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the advanced-parameter tier.",
                "configuration",
                false,
                "delete the parameter",
            ),
            (
                "ValidationException",
                "Parameter name: can't be prefixed with \"ssm\" (case-insensitive).",
                "configuration",
                false,
                "/relaykey",
            ),
            (
                "AccessDeniedException",
                "No access to reserved parameter name: /aws/x.",
                "configuration",
                false,
                "/relaykey",
            ),
        ] {
            let e = special(ServiceError { code, message, ..ServiceError::default() }, &call).expect(code);
            assert_eq!((e.class.word(), e.temporary), (class, temporary), "{code}");
            assert!(e.fix.contains(fix) && e.what.contains(code), "{code}: {e:?}");
        }
        for code in ["AccessDeniedException", "ThrottlingException", "ValidationException"] {
            assert!(
                special(ServiceError { code, message: "not authorized", ..ServiceError::default() }, &call).is_none(),
                "{code}"
            );
        }
    }
}
