//! What a report holds, as a table: of the key, of each mail server, and of what proves it.

use jiff::Timestamp;

use super::body::{Body, clean};
use super::capital;
use super::keys::{is_aws_key, named, others_in_use, previous};
use crate::fault::Class;
use crate::rollover::{Report, ReportOutcome, ReportTarget, StillHeld};

/// Entries of any one list.
const MOST: usize = 20;

pub(super) fn facts(report: &Report, body: &mut Body) {
    body.heading("Facts");
    body.fact("host", &report.host);
    body.fact("SMTP login", &format!("{} (its name in relaykey's configuration)", report.credential));
    let class = report.error.as_ref().map(|e| e.class);
    // Beside a key that is to come stands the one that is in use.
    let (of_report, before, is_to_come) = match (report.outcome, class) {
        (ReportOutcome::Withdrawn, Some(Class::Superseded)) => ("key reported", "previous key", false),
        (ReportOutcome::Withdrawn, _) | (ReportOutcome::Failed, Some(Class::Drift)) => {
            ("relaykey's key", "previous key", false)
        }
        (ReportOutcome::Failed, _) if report.of_applied => ("relaykey's key", "previous key", false),
        // In the files, and perhaps not in use.
        (ReportOutcome::Failed, Some(Class::ReloadOwed)) => ("new key", "previous key", false),
        (ReportOutcome::PendingApproval | ReportOutcome::Rejected | ReportOutcome::Failed, _) => {
            ("new key", "key in use", true)
        }
        _ => ("key in use", "previous key", false),
    };
    if !report.username.is_empty() {
        body.fact(of_report, &report.username);
    }
    let previous = previous(report);
    let others = others_in_use(report);
    let no_login = report.in_use.as_ref().is_some_and(Vec::is_empty);
    if is_to_come && (no_login || !others.is_empty()) {
        body.fact(before, &if no_login { "none: no login was found".to_owned() } else { others.join(" and ") });
        if let Some(previous) = previous.filter(|previous| !others.iter().any(|other| other == previous)) {
            // What was confirmed here, and is not in use.
            body.fact(if report.another_login { "relaykey's key" } else { "previous key" }, previous);
        }
    } else {
        let is_told =
            report.another_login || matches!(class, Some(Class::Superseded | Class::Drift)) || report.of_applied;
        if let Some(found) = report.in_use.clone().map(named).filter(|_| is_told) {
            body.fact("found in use", &if found.is_empty() { "no login".to_owned() } else { found.join(" and ") });
        }
        if let Some(previous) = previous {
            body.fact(before, previous);
        }
    }
    if !report.half_done.is_empty() {
        let names = named(report.half_done.clone()).join(" and ");
        let what = "in the text of the password table, and not in what the mail server reads: relaykey was broken off";
        body.fact("half in place", &format!("{names} ({what})"));
    }
    body.explain(if is_aws_key(&report.username) || previous.is_some_and(is_aws_key) {
        "A key is the user name and password that the mail server logs in with at the mail relay. It is called by its user name, \
         which in AWS is the \"access key id\" and no secret."
    } else {
        "A key is the user name and password that the mail server logs in with at the mail relay. It is called by its user name."
    });
    if !report.version.is_empty() {
        body.fact("version", &format!("{} (what the source calls this key)", report.version));
    }
    if !report.source.is_empty() {
        body.fact("source", &format!("{} (where new keys come from)", report.source));
    }
    body.fact("when", &when_written(&report.at));
    if let Some(person) = &report.approved_by {
        // The one who said no stands in the same place.
        body.fact(if report.outcome == ReportOutcome::Rejected { "rejected by" } else { "approved by" }, person);
    }
    body.fact("report", &format!("number {}, {}", report.seq, report.id));
    body.gap();
}

pub(super) fn of_target(report: &Report, target: &ReportTarget, body: &mut Body) {
    body.heading(&format!("Mail server \"{}\" ({})", clean(&target.name), clean(&target.kind)));
    if !target.map.is_empty() {
        body.fact("password table", &target.map);
    }
    for (n, key) in shortened(&target.keys).iter().enumerate() {
        body.fact(if n == 0 { "entries" } else { "" }, key);
    }
    if !target.evidence.endpoint.is_empty() {
        let at = when(target.evidence.at);
        body.fact("login tried at", &format!("{}, {at}", target.evidence.endpoint));
    }
    if !target.evidence.reply.is_empty() {
        body.fact("it answered", &target.evidence.reply);
    }
    if !target.read_back.is_empty() {
        body.fact("read back with", &format!("{} (how it was seen what the mail server uses)", target.read_back));
    }
    for (n, key) in shortened(&target.held.remaining_old).iter().enumerate() {
        body.fact(if n == 0 { "still old" } else { "" }, key);
    }
    if !target.held.remaining_old.is_empty() {
        let key = previous(report).map(|key| format!(", {}", clean(key)));
        body.explain(&format!("What still holds the previous key{}.", key.unwrap_or_default()));
    }
    // What still holds an earlier key is said above.
    let others = StillHeld { remaining_old: Vec::new(), remaining_old_count: None, ..target.held.clone() };
    for said in others.said().iter().take(MOST) {
        body.explain(&format!("{}.", capital(said)));
    }
    body.gap();
}

/// Which targets have a proof, and why the others have none. The proofs themselves are for programs.
pub(super) fn proofs(report: &Report, body: &mut Body) {
    let several = report.targets.len() > 1;
    let of = |t: &ReportTarget| if several { format!(" for \"{}\"", clean(&t.name)) } else { String::new() };
    if report.targets.iter().any(|t| t.proof.is_some()) {
        body.paragraph(
            "That this host holds the key can be proved: whoever knows the key's password gives the attached report.json to \
             `relaykey verify-proof`.",
        );
    }
    for target in &report.targets {
        if let (None, Some(why)) = (&target.proof, &target.no_proof) {
            let why = clean(why);
            let why = why.trim_end_matches('.');
            body.paragraph(&format!("There is no proof{} that this host holds the key: {why}.", of(target)));
        }
    }
}

fn shortened(list: &[String]) -> Vec<String> {
    let mut short: Vec<String> = list.iter().take(MOST).cloned().collect();
    if list.len() > MOST {
        short.push(format!("and {} more: see report.json", list.len() - MOST));
    }
    short
}

/// `2027-01-15 08:00:00 UTC`
pub(super) fn when(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The same of a time as it stands in a document; the text itself where it is none.
pub(super) fn when_written(at: &str) -> String {
    at.parse().map_or_else(|_| at.to_owned(), when)
}
