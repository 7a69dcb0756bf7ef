//! AWS Secrets Manager: a secret's version that carries a staging label, or the newest one that carries one of several.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_sdk_secretsmanager::operation::get_secret_value::builders::GetSecretValueFluentBuilder;
use futures_util::future::join_all;
use zeroize::Zeroizing;

use crate::aws::{self, AwsSession, Call, Http, ReachedFor};
use crate::config::{Arn, Aws};
use crate::credential::{JsonKeys, SourceIdentity, VersionId, VersionOrder};
use crate::fault::{Class, Fault};
use crate::source::{
    Advice, Corrected, EarlierVersions, Fetched, Fetching, Looking, PROOF, Proof, ReadingEarlier, Requests,
    SeenVersion, Source, bad_payload, incomplete, payload, same_version, timestamp,
};

/// A source of type `secrets-manager`.
///
/// Version: the version id. Order: when that version was created. Identity: the secret's ARN, whose last six
/// characters differ when a secret is deleted and made again under the same name.
///
/// A look is one DescribeSecret: which version carries which label, for all labels at once, at the price of one call, and
/// without the value, so that no key service is asked and nothing secret crosses the network. It needs
/// `secretsmanager:DescribeSecret` beside `secretsmanager:GetSecretValue`; where that is denied, a look fetches, and
/// [`Source::advice`] says so. The age of a version is not in it: only where several labels lie on several versions
/// does that matter, and then each version is fetched once to learn it. ListSecretVersionIds would tell the age, but not
/// that the secret is scheduled for deletion; BatchGetSecretValue knows no label but AWSCURRENT, and gives the value.
pub struct SecretsManager {
    secret: String,
    stages: Vec<String>,
    keys: JsonKeys,
    session: AwsSession,
    requests: Requests,
    proof: Proof,
    learned: Mutex<Learned>,
}

/// What earlier answers told.
#[derive(Default)]
struct Learned {
    /// By version id. A version's age never changes.
    orders: BTreeMap<String, VersionOrder>,
    /// DescribeSecret is denied, since when, and AWS's words about it.
    denied: Option<(Instant, Fault)>,
}

/// So long after it was denied, DescribeSecret is tried again: somebody may have followed the advice.
const DENIED: Duration = PROOF;

impl SecretsManager {
    /// `stages`: at least one label.
    pub fn new(secret: &str, stages: &[String], aws: &Aws, keys: JsonKeys, http: &Http) -> Result<Self, Fault> {
        Ok(Self {
            secret: secret.to_owned(),
            stages: stages.to_vec(),
            keys,
            session: AwsSession::new(aws, http)?.reached_for(ReachedFor::Secret),
            requests: Requests::default(),
            proof: Proof::new(PROOF),
            learned: Mutex::default(),
        })
    }

    /// With another period than [`PROOF`].
    pub fn proving_every(mut self, period: Duration) -> Self {
        self.proof = Proof::new(period);
        self
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self) -> Result<(Client, String), Fault> {
        let config = self.session.config().await?;
        let region = config.region().map_or("", |r| r.as_ref()).to_owned();
        let config = aws_sdk_secretsmanager::config::Builder::from(&config).interceptor(self.requests.clone()).build();
        Ok((Client::from_conf(config), region))
    }

    async fn seen(&self) -> Result<SeenVersion, Fault> {
        let denied = self.learned().denied.as_ref().is_some_and(|(since, _)| since.elapsed() < DENIED);
        if denied || self.proof.is_due() {
            return Ok(self.newest().await?.into());
        }
        let (client, region) = self.client().await?;
        let error = match client.describe_secret().secret_id(&self.secret).send().await {
            Ok(output) => {
                self.learned().denied = None;
                return match self.described(output, &region)? {
                    Some(seen) => Ok(seen),
                    None => Ok(self.newest().await?.into()),
                };
            }
            Err(error) => error,
        };
        let call = self.call("secretsmanager:DescribeSecret", format!("secret {:?}", self.secret), &region);
        let explained = self.session.explain(&error, &call, |_| None).await;
        // That the role may not be assumed is no answer of Secrets Manager.
        if explained.class != Class::AccessDenied || aws::answer(&error).is_none() {
            return Err(explained);
        }
        // Where reading is denied too, that is what is to be told, and both are tried again.
        let fetched = self.newest().await?;
        self.learned().denied = Some((Instant::now(), explained));
        Ok(fetched.into())
    }

    /// The version that a fetch would get, if the answer tells. `None`: several versions carry one of the labels, and
    /// the age of one of them is not known yet.
    fn described(&self, mut output: DescribeSecretOutput, region: &str) -> Result<Option<SeenVersion>, Fault> {
        let about = self.about(&self.stages.join(", "));
        if let Some(at) = &output.deleted_date {
            // Not what the date means: the documentation of it and of its siblings disagree.
            let said = timestamp(at).map_or_else(String::new, |at| format!(". AWS says: DeletedDate {at:.0}"));
            return Err(scheduled_for_deletion(&about, region, &said));
        }
        let arn = output.arn.take().ok_or_else(|| incomplete(&about, "ARN"))?;
        let versions = output.version_ids_to_stages.take().unwrap_or_default();
        let mut learned = self.learned();
        learned.orders.retain(|id, _| versions.contains_key(id));
        let mut carriers: Vec<(&String, Option<VersionOrder>)> = Vec::new();
        for stage in &self.stages {
            for (id, _) in versions.iter().filter(|(_, stages)| stages.contains(stage)) {
                if carriers.iter().all(|(known, _)| *known != id) {
                    carriers.push((id, learned.orders.get(id).copied()));
                }
            }
        }
        let (id, order) = match carriers.as_slice() {
            [] => {
                let absent = |stage: &String| no_such_label(&self.about(stage), region, stage, "");
                return Err(all_absent(self.stages.iter().map(absent)).unwrap_or_else(|| incomplete(&about, "label")));
            }
            [one] => *one,
            several => {
                // Of two equally old ones the label that stands first wins.
                let newest = several.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
                match newest.filter(|_| several.iter().all(|(_, order)| order.is_some())) {
                    Some(newest) => newest,
                    None => return Ok(None),
                }
            }
        };
        let id = VersionId { version: id.clone(), order };
        Ok(Some(SeenVersion { identity: SourceIdentity { arn, created: None }, id }))
    }

    async fn newest(&self) -> Result<Fetched, Fault> {
        let (client, region) = self.client().await?;
        let mut newest: Option<SecretVersion> = None;
        let mut absent = Vec::new();
        for stage in &self.stages {
            match self.get(&client, stage, &region).await {
                // Of two equally old ones the label that stands first wins.
                Ok(version) if newest.as_ref().is_none_or(|n| version.order > n.order) => newest = Some(version),
                Ok(_) => {}
                Err(error) if error.class == Class::NoSuchLabel => absent.push(error),
                Err(error) => return Err(error),
            }
        }
        let Some(version) = newest else {
            return Err(all_absent(absent).unwrap_or_else(|| incomplete(&self.about(&self.stages.join(", ")), "label")));
        };
        let fetched = Fetched {
            payload: payload(&self.about(&version.stage), &version.content, &self.keys, Corrected::AsNewVersion)?,
            identity: SourceIdentity { arn: version.arn, created: None },
            id: VersionId { version: version.id, order: Some(version.order) },
        };
        self.proof.given();
        Ok(fetched)
    }

    async fn get(&self, client: &Client, stage: &str, region: &str) -> Result<SecretVersion, Fault> {
        self.asked(client.get_secret_value().version_stage(stage), stage, region).await
    }

    /// The versions with the labels that AWS itself moves, both asked at once.
    async fn earlier_versions(&self) -> EarlierVersions {
        let mut found = EarlierVersions::default();
        // What this host takes is asked for by itself.
        let labels = || ["AWSCURRENT", "AWSPREVIOUS"].into_iter().filter(|label| self.stages != [*label]);
        let about = |label: &str| format!("the version labelled {label}");
        let read = match self.client().await {
            Ok((client, region)) => {
                let read = async |label: &str| {
                    let version = self.get(&client, label, &region).await?;
                    payload(&self.about(label), &version.content, &self.keys, Corrected::AsNewVersion)
                };
                join_all(labels().map(read)).await
            }
            Err(e) => labels().map(|_| Err(e.clone())).collect(),
        };
        labels().zip(read).for_each(|(label, read)| found.take(&about(label), read));
        found
    }

    /// One version by its id. It is to be had for as long as any label is on it, such as AWSPREVIOUS.
    async fn by_id(&self, version: &str) -> Result<Fetched, Fault> {
        let (client, region) = self.client().await?;
        let version = self.asked(client.get_secret_value().version_id(version), version, &region).await?;
        Ok(Fetched {
            payload: payload(&self.about(&version.stage), &version.content, &self.keys, Corrected::AsNewVersion)?,
            identity: SourceIdentity { arn: version.arn, created: None },
            id: VersionId { version: version.id, order: Some(version.order) },
        })
    }

    /// `stage`: the label or the version id that is asked for.
    async fn asked(
        &self,
        request: GetSecretValueFluentBuilder,
        stage: &str,
        region: &str,
    ) -> Result<SecretVersion, Fault> {
        match request.secret_id(&self.secret).send().await {
            Ok(output) => {
                let version = SecretVersion::from_answer(output, stage, &self.about(stage))?;
                self.learned().orders.insert(version.id.clone(), version.order);
                Ok(version)
            }
            Err(error) => {
                let call = self.call("secretsmanager:GetSecretValue", self.about(stage), region);
                Err(self.session.explain(&error, &call, |answer| special(answer, stage, &call)).await)
            }
        }
    }

    fn call<'a>(&'a self, action: &'static str, about: String, region: &'a str) -> Call<'a> {
        Call { action, about, arn: self.arn(region), region, role_arn: self.session.role_arn() }
    }

    fn about(&self, stage: &str) -> String {
        format!("secret {:?} ({stage})", self.secret)
    }

    /// What a policy has to allow. An ARN ends in six random characters that a name does not tell.
    fn arn(&self, region: &str) -> String {
        match Arn::parse(&self.secret) {
            Some(_) => self.secret.clone(),
            None => {
                format!("arn:{}:secretsmanager:{region}:*:secret:{}-??????", aws::partition(region), self.secret)
            }
        }
    }
}

/// What only Secrets Manager says: one code with several meanings, told apart by its words.
fn special(answer: aws::ServiceError, stage: &str, call: &Call) -> Option<Fault> {
    let said = answer.words();
    let lower = answer.message.to_ascii_lowercase();
    match answer.code {
        "ResourceNotFoundException" if lower.contains("staging label") || lower.contains("versionstage") => {
            Some(no_such_label(&call.about, call.region, stage, &format!(". AWS says: {said}")))
        }
        "InvalidRequestException" if lower.contains("deletion") || lower.contains("deleted") => {
            Some(scheduled_for_deletion(&call.about, call.region, &format!(". AWS says: {said}")))
        }
        _ => None,
    }
}

/// `said`: what is to follow the sentence.
fn no_such_label(about: &str, region: &str, stage: &str, said: &str) -> Fault {
    Fault::new(
        Class::NoSuchLabel,
        format!("no version of {about} in {region} carries the label {stage:?}{said}"),
        format!("attach the label {stage:?} to a version, or name another one in `stage`"),
    )
}

/// `said`: what is to follow the sentence.
fn scheduled_for_deletion(about: &str, region: &str, said: &str) -> Fault {
    Fault::new(
        Class::ScheduledForDeletion,
        format!("{about} in {region} is scheduled for deletion{said}"),
        "restore it (`aws secretsmanager restore-secret`), or name another secret; mail goes on with what this host has",
    )
}

/// One error of those about each label.
fn all_absent(errors: impl IntoIterator<Item = Fault>) -> Option<Fault> {
    errors.into_iter().reduce(|mut all, next| {
        all.what = format!("{}; {}", all.what, next.what);
        all
    })
}

/// One version as it was answered.
struct SecretVersion {
    stage: String,
    arn: String,
    id: String,
    order: VersionOrder,
    content: Zeroizing<Vec<u8>>,
}

impl SecretVersion {
    fn from_answer(mut output: GetSecretValueOutput, stage: &str, about: &str) -> Result<Self, Fault> {
        let text = output.secret_string.take().map(String::into_bytes).map(Zeroizing::new);
        let binary = output.secret_binary.take().map(|blob| Zeroizing::new(blob.into_inner()));
        let content = text.or(binary).filter(|content| !content.is_empty());
        let content = content.ok_or_else(|| {
            bad_payload(format!("{about}: the version has no value, neither text nor binary"), Corrected::AsNewVersion)
        })?;
        let at = output.created_date.as_ref().and_then(timestamp);
        Ok(Self {
            stage: stage.to_owned(),
            arn: output.arn.take().ok_or_else(|| incomplete(about, "ARN"))?,
            id: output.version_id.take().ok_or_else(|| incomplete(about, "version id"))?,
            order: VersionOrder { at: at.ok_or_else(|| incomplete(about, "creation time"))?, number: 0 },
            content,
        })
    }
}

impl Source for SecretsManager {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(self.newest())
    }

    fn look(&self) -> Looking<'_> {
        Box::pin(self.seen())
    }

    fn fetch_version<'a>(&'a self, identity: &'a SourceIdentity, id: &'a VersionId) -> Fetching<'a> {
        Box::pin(async move {
            let fetched = self.by_id(&id.version).await?;
            same_version(fetched, &self.about(&id.version), identity, id)
        })
    }

    fn earlier(&self) -> ReadingEarlier<'_> {
        Box::pin(self.earlier_versions())
    }

    fn requests(&self) -> u64 {
        self.requests.sent()
    }

    fn advice(&self) -> Option<Advice> {
        let learned = self.learned();
        let (_, denied) = learned.denied.as_ref()?;
        Some(Advice {
            what: format!("each look reads the credential itself, since {}", denied.what),
            fix: denied.fix.clone(),
        })
    }
}
