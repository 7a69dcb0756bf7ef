//! What works, and should not be as it is: who may read or change the files that this host goes by.

use serde::{Deserialize, Serialize};

use crate::apply;
use crate::aws;
use crate::config::{self, Config};
use crate::source;
use crate::tls;

/// Something that works, and should not be as it is: who may read or write a file that this host goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWarning {
    /// The credential that it is about, where it is about one.
    pub credential: Option<String>,
    /// `config`, `source`, `login`, `target NAME`, `report NAME`.
    pub about: String,
    /// What is so, and what to do.
    #[serde(flatten)]
    pub finding: config::Finding,
}

impl FileWarning {
    /// For people: what is so, and what to do.
    pub fn lines(&self) -> [String; 2] {
        let place = self.credential.as_ref().map(|c| format!("{c}: ")).unwrap_or_default();
        let config::Finding { severity, fix, .. } = &self.finding;
        [format!("{place}{}: {severity}: {}", self.about, self.finding.located()), format!("  fix: {fix}")]
    }
}

/// Those of a target, and what is wrong with other mail servers of this host.
pub(super) fn doubts_of<'a>(
    seen: &'a apply::Inspected,
    credential: &'a str,
    target: &'a str,
) -> impl Iterator<Item = FileWarning> + use<'a> {
    seen.doubts.iter().chain(&seen.beside).map(move |finding| FileWarning {
        credential: Some(credential.to_owned()),
        about: format!("target {target}"),
        finding: finding.clone(),
    })
}

/// What others may read, or a group may change, of the files that sources, TLS, AWS and reports go by. What is refused is
/// told where it is used.
pub fn doubts(config: &Config) -> Vec<FileWarning> {
    let mut all = Vec::new();
    let mut add = |credential: Option<&str>, about: &str, findings: Vec<config::Finding>| {
        all.extend(findings.into_iter().map(|finding| FileWarning {
            credential: credential.map(str::to_owned),
            about: about.to_owned(),
            finding,
        }));
    };
    let tls = |file: Option<&std::path::Path>| tls::doubts(file).iter().map(config::Finding::from).collect::<Vec<_>>();
    let aws = |aws: &config::Aws| aws::doubts(aws).iter().map(config::Finding::from).collect::<Vec<_>>();
    for credential in &config.credentials {
        let name = Some(credential.name.as_str());
        let findings = match &credential.source {
            config::SourceConfig::File { path, owner } => source::file::doubts(path, owner.as_deref()),
            source => source.aws().map(aws).unwrap_or_default(),
        };
        add(name, "source", findings);
        let mut files: Vec<_> = credential.targets.iter().map(|target| target.smtp.ca_file.as_deref()).collect();
        files.dedup();
        files.into_iter().for_each(|file| add(name, "login", tls(file)));
    }
    for receiver in &config.reports {
        let findings = match &receiver.kind {
            config::ReceiverKind::Webhook { ca_file, .. } => tls(ca_file.as_deref()),
            config::ReceiverKind::Exec { command, user, .. } => {
                crate::report::exec::doubts(command, user).iter().map(config::Finding::from).collect()
            }
            config::ReceiverKind::ParameterStore { aws: of_it, .. }
            | config::ReceiverKind::DynamoDb { aws: of_it, .. } => aws(of_it),
            config::ReceiverKind::Email { via: config::MailVia::Ses(of_it), .. } => aws(of_it),
            config::ReceiverKind::Email { via: config::MailVia::Server { .. }, .. } => Vec::new(),
        };
        add(None, &format!("report {}", receiver.name), findings);
    }
    all
}

/// A target is looked at more than once in a run.
pub(super) fn each_once(doubts: Vec<FileWarning>) -> Vec<FileWarning> {
    let mut once: Vec<FileWarning> = Vec::new();
    for doubt in doubts {
        if !once.contains(&doubt) {
            once.push(doubt);
        }
    }
    once
}
