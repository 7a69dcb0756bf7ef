//! A report as a host makes one.

use jiff::Timestamp;
use relaykey::rollover::{Evidence, MailServer, Report, ReportTarget, StillHeld};

use super::moto::REGION;

/// That the installation `host_id` on mx1.example.com has confirmed; version and id go with `seq`.
pub fn report(host_id: &str, seq: u64) -> Report {
    Report {
        schema: "relaykey/report/v1".into(),
        id: format!("{host_id}-ses-{seq}"),
        seq,
        host_id: host_id.into(),
        host: "mx1.example.com".into(),
        credential: "ses".into(),
        source: format!("arn:aws:secretsmanager:{REGION}:123456789012:secret:ses-AbCdEf"),
        version: format!("version-{seq}"),
        username: "AKIAIOSFODNN7EXAMPLE".into(),
        previous_username: None,
        at: "2027-01-15T08:00:00Z".into(),
        mode: "automatic".into(),
        agent: "relaykey/test".into(),
        outcome: "confirmed".into(),
        targets: vec![ReportTarget {
            name: "postfix".into(),
            kind: "postfix".into(),
            map: "hash:/etc/postfix/sasl_passwd".into(),
            keys: vec![format!("[email-smtp.{REGION}.amazonaws.com]:587")],
            read_back: "postmap".into(),
            tables: Vec::new(),
            held: StillHeld::default(),
            region: Some(REGION.into()),
            evidence: Evidence {
                endpoint: format!("email-smtp.{REGION}.amazonaws.com:587"),
                reply: "235 Authentication successful. {{really}}".into(),
                at: Timestamp::UNIX_EPOCH,
            },
            proof: None,
            no_proof: Some("not an SES-form password".into()),
        }],
        error: None,
        waiting: None,
        mail_server: Some(MailServer::Runs),
        in_use: None,
        version_in_use: None,
        another_login: false,
        half_done: Vec::new(),
        of_applied: false,
        approved_by: None,
        labels: Vec::new(),
        poll_s: None,
        alive_due: None,
        lease_s: None,
        latest: None,
    }
}
