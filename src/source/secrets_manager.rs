//! AWS Secrets Manager: a secret's version that carries a staging label, or the newest one that carries one of several.

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use zeroize::Zeroizing;

use crate::aws::{self, Arn, AwsError, Call, Http, Session};
use crate::config::Aws;
use crate::credential::{JsonKeys, SourceIdentity, VersionOrder};
use crate::source::{Fetched, Fetching, Source, SourceError, bad_payload, incomplete, payload, timestamp};

/// A source of type `secrets-manager`.
///
/// Version: the version id. Order: when that version was created. Identity: the secret's ARN, whose last six
/// characters differ when a secret is deleted and made again under the same name.
pub struct SecretsManager {
    secret: String,
    stages: Vec<String>,
    region: Option<String>,
    keys: JsonKeys,
    session: Session,
}

impl SecretsManager {
    /// `stages`: at least one label.
    pub fn new(secret: &str, stages: &[String], aws: &Aws, keys: JsonKeys, http: &Http) -> Result<Self, SourceError> {
        Ok(Self {
            secret: secret.to_owned(),
            stages: stages.to_vec(),
            region: aws.region.clone(),
            keys,
            session: Session::new(aws, http)?,
        })
    }

    async fn newest(&self) -> Result<Fetched, SourceError> {
        let config = self.session.config().await?;
        let region = config.region().map_or("", |r| r.as_ref()).to_owned();
        let client = Client::new(&config);
        let mut newest: Option<Version> = None;
        let mut absent = Vec::new();
        for stage in &self.stages {
            match self.get(&client, stage, &region).await {
                // Of two equally old ones the label that stands first wins.
                Ok(version) if newest.as_ref().is_none_or(|n| version.order > n.order) => newest = Some(version),
                Ok(_) => {}
                Err(error) if error.class == NO_SUCH_LABEL => absent.push(error),
                Err(error) => return Err(error),
            }
        }
        let Some(version) = newest else {
            return Err(absent
                .into_iter()
                .reduce(|mut all, next| {
                    all.what = format!("{}; {}", all.what, next.what);
                    all
                })
                .unwrap_or_else(|| incomplete(&self.about(&self.stages.join(", ")), "label to ask for")));
        };
        Ok(Fetched {
            payload: payload(&self.about(&version.stage), &version.content, &self.keys)?,
            identity: SourceIdentity { arn: version.arn, created: None },
            version: version.id,
            order: Some(version.order),
        })
    }

    async fn get(&self, client: &Client, stage: &str, region: &str) -> Result<Version, SourceError> {
        let answer = client.get_secret_value().secret_id(&self.secret).version_stage(stage).send().await;
        match answer {
            Ok(output) => Version::from_answer(output, stage, &self.about(stage)),
            Err(error) => {
                let call = Call {
                    action: "secretsmanager:GetSecretValue",
                    about: self.about(stage),
                    arn: self.arn(region),
                    region,
                    role_arn: self.session.role_arn(),
                };
                let explained = match aws::answer(&error) {
                    Some(answer) => special(answer, stage, &call).unwrap_or_else(|| aws::explain_answer(answer, &call)),
                    None => aws::explain(&error, &call),
                };
                self.session.note(&explained).await;
                Err(explained.into())
            }
        }
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

const NO_SUCH_LABEL: &str = "no-such-label";

/// What only Secrets Manager says: one code with several meanings, told apart by its words.
fn special(answer: aws::Answer, stage: &str, call: &Call) -> Option<AwsError> {
    let said = answer.words();
    let lower = answer.message.to_ascii_lowercase();
    match answer.code {
        "ResourceNotFoundException" if lower.contains("staging label") || lower.contains("versionstage") => {
            Some(AwsError::new(
                NO_SUCH_LABEL,
                format!(
                    "no version of {} in {} carries the label {stage:?}. AWS says: {said}",
                    call.about, call.region
                ),
                format!("attach the label {stage:?} to a version, or name another one in `stage`"),
            ))
        }
        "InvalidRequestException" if lower.contains("deletion") || lower.contains("deleted") => Some(AwsError::new(
            "scheduled-for-deletion",
            format!("{} in {} is scheduled for deletion. AWS says: {said}", call.about, call.region),
            "restore it (`aws secretsmanager restore-secret`), or name another secret; mail goes on with what this host has",
        )),
        _ => None,
    }
}

/// One version as it was answered.
struct Version {
    stage: String,
    arn: String,
    id: String,
    order: VersionOrder,
    content: Zeroizing<Vec<u8>>,
}

impl Version {
    fn from_answer(mut output: GetSecretValueOutput, stage: &str, about: &str) -> Result<Self, SourceError> {
        let text = output.secret_string.take().map(String::into_bytes).map(Zeroizing::new);
        let binary = output.secret_binary.take().map(|blob| Zeroizing::new(blob.into_inner()));
        let content = text.or(binary).filter(|content| !content.is_empty());
        let content = content
            .ok_or_else(|| bad_payload(format!("{about}: the version has no value, neither text nor binary")))?;
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

    fn describe(&self) -> String {
        let region = self.region.as_deref().unwrap_or("the default region");
        format!("Secrets Manager {} in {region}", self.about(&self.stages.join(", ")))
    }
}
