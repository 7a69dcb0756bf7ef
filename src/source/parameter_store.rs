//! AWS Systems Manager Parameter Store: a SecureString, decrypted; the latest version, or the one with a label.

use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{Parameter, ParameterType};
use zeroize::Zeroizing;

use crate::aws::{self, AwsSession, Call, Http, ReachedFor};
use crate::config::{Arn, Aws};
use crate::credential::{JsonKeys, SourceIdentity, VersionId, VersionOrder};
use crate::fault::{Class, Fault};
use crate::source::{
    Corrected, EarlierVersions, Fetched, Fetching, Looking, PROOF, Proof, ReadingEarlier, Requests, SeenVersion,
    Source, bad_payload, incomplete, payload, same_version, timestamp,
};

/// A source of type `parameter-store`.
///
/// Version: the number. Order: (last modified, number): a parameter that was deleted and made again starts at 1 with
/// the same ARN, and only its time tells. Identity: the ARN.
///
/// A look is the same GetParameter without decryption: version, time and ARN come with the ciphertext, no key service is
/// asked, and nothing more has to be allowed. DescribeParameters would not even give the ciphertext, but searches the
/// account's parameters at a rate of its own, and labels are not in it.
pub struct ParameterStore {
    parameter: String,
    label: Option<String>,
    keys: JsonKeys,
    session: AwsSession,
    requests: Requests,
    proof: Proof,
}

impl ParameterStore {
    /// `label`: `None` for the latest version.
    pub fn new(parameter: &str, label: Option<&str>, aws: &Aws, keys: JsonKeys, http: &Http) -> Result<Self, Fault> {
        Ok(Self {
            parameter: parameter.to_owned(),
            label: label.map(str::to_owned),
            keys,
            session: AwsSession::new(aws, http)?.reached_for(ReachedFor::Parameter),
            requests: Requests::default(),
            proof: Proof::new(PROOF),
        })
    }

    /// With another period than [`PROOF`].
    pub fn proving_every(mut self, period: Duration) -> Self {
        self.proof = Proof::new(period);
        self
    }

    async fn get(&self) -> Result<Fetched, Fault> {
        let fetched = self.fetched(self.ask(self.label.as_deref(), Decrypt::Yes).await?)?;
        self.proof.given();
        Ok(fetched)
    }

    async fn seen(&self) -> Result<SeenVersion, Fault> {
        if self.proof.is_due() {
            return Ok(self.get().await?.into());
        }
        let (seen, _) = self.understood(self.ask(self.label.as_deref(), Decrypt::No).await?)?;
        Ok(seen)
    }

    /// The version with the number before that of the one which this host takes.
    async fn earlier_version(&self) -> EarlierVersions {
        let mut found = EarlierVersions::default();
        let current =
            self.ask(self.label.as_deref(), Decrypt::No).await.and_then(|parameter| self.understood(parameter));
        let number = match current.map(|(seen, _)| seen.id.order.map_or(0, |order| order.number)) {
            // Numbers begin with 1.
            Ok(..=1) => return found,
            Ok(number) => number - 1,
            Err(e) => {
                found.take("the version before", Err(e));
                return found;
            }
        };
        let read =
            self.ask(Some(&number.to_string()), Decrypt::Yes).await.and_then(|parameter| self.fetched(parameter));
        found.take(&format!("version {number}"), read.map(|fetched| fetched.payload));
        found
    }

    /// `selector`: a label, or the number of a version; `None`: the latest.
    async fn ask(&self, selector: Option<&str>, decrypt: Decrypt) -> Result<Parameter, Fault> {
        let config = self.session.config().await?;
        let region = config.region().map_or("", |r| r.as_ref()).to_owned();
        // Names and ARNs take a selector: `NAME:LABEL`, `NAME:NUMBER`.
        let name = match selector {
            Some(selector) => format!("{}:{selector}", self.parameter),
            None => self.parameter.clone(),
        };
        let config = aws_sdk_ssm::config::Builder::from(&config).interceptor(self.requests.clone()).build();
        let decrypt = matches!(decrypt, Decrypt::Yes);
        match Client::from_conf(config).get_parameter().name(name).with_decryption(decrypt).send().await {
            Ok(mut output) => output.parameter.take().ok_or_else(|| incomplete(&self.about(), "parameter")),
            Err(error) => {
                let call = Call {
                    action: "ssm:GetParameter",
                    about: self.about(),
                    arn: self.arn(&region),
                    region: &region,
                    role_arn: self.session.role_arn(),
                };
                Err(self.session.explain(&error, &call, |answer| self.special(answer, &call)).await)
            }
        }
    }

    fn fetched(&self, parameter: Parameter) -> Result<Fetched, Fault> {
        let (SeenVersion { identity, id }, content) = self.understood(parameter)?;
        Ok(Fetched { payload: payload(&self.about(), &content, &self.keys, Corrected::AsNewVersion)?, identity, id })
    }

    /// What a parameter shows, and its value, decrypted or not.
    fn understood(&self, mut parameter: Parameter) -> Result<(SeenVersion, Zeroizing<Vec<u8>>), Fault> {
        let about = self.about();
        let content = parameter.value.take().map(String::into_bytes).map(Zeroizing::new);
        match parameter.r#type {
            Some(ParameterType::SecureString) => {}
            other => {
                let kind = other.as_ref().map_or("unknown", ParameterType::as_str);
                return Err(Fault {
                    fix: "delete it and store it anew with --type SecureString; change the credential too: whoever may read parameters has seen it".into(),
                    ..bad_payload(format!("{about} is of type {kind}: the credential is stored there unencrypted"), Corrected::AsNewVersion)
                });
            }
        }
        let content = content.filter(|content| !content.is_empty());
        let content = content
            .ok_or_else(|| bad_payload(format!("{about}: the version has no value"), Corrected::AsNewVersion))?;
        let at = parameter.last_modified_date.as_ref().and_then(timestamp);
        let order =
            VersionOrder { at: at.ok_or_else(|| incomplete(&about, "modification time"))?, number: parameter.version };
        let seen = SeenVersion {
            identity: SourceIdentity {
                arn: parameter.arn.take().ok_or_else(|| incomplete(&about, "ARN"))?,
                created: None,
            },
            id: VersionId { version: parameter.version.to_string(), order: Some(order) },
        };
        Ok((seen, content))
    }

    /// What only Parameter Store says. Which of the two codes a label that is on no version gets is not documented, so
    /// with a label `ParameterNotFound` leaves both open.
    fn special(&self, answer: aws::ServiceError, call: &Call) -> Option<Fault> {
        let (about, region, said) = (&call.about, call.region, answer.words());
        let label = self.label.as_deref()?;
        let name = &self.parameter;
        let attach = format!(
            "attach it (`aws ssm label-parameter-version --name {name} --labels {label}`), or name another one in `label`"
        );
        match answer.code {
            "ParameterVersionNotFound" => Some(Fault::new(
                Class::NoSuchLabel,
                format!("no version of {about} in {region} carries the label {label:?}. AWS says: {said}"),
                attach,
            )),
            "ParameterNotFound" => Some(Fault::new(
                Class::NotFound,
                format!(
                    "{about} does not exist in {region} for this account, or no version of it carries the label. AWS says: {said}"
                ),
                format!("check its name and the region; if it exists, the label {label:?} is missing: {attach}"),
            )),
            _ => None,
        }
    }

    fn about(&self) -> String {
        match &self.label {
            Some(label) => format!("parameter {:?} ({label})", self.parameter),
            None => format!("parameter {:?}", self.parameter),
        }
    }

    /// What a policy has to allow. The ARN of `/a/b` is `…:parameter/a/b`, that of `b` is `…:parameter/b`.
    fn arn(&self, region: &str) -> String {
        match Arn::parse(&self.parameter) {
            Some(_) => self.parameter.clone(),
            None => {
                let name = self.parameter.trim_start_matches('/');
                format!("arn:{}:ssm:{region}:*:parameter/{name}", aws::partition(region))
            }
        }
    }
}

/// Whether the key service is asked.
enum Decrypt {
    Yes,
    No,
}

impl Source for ParameterStore {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(self.get())
    }

    fn look(&self) -> Looking<'_> {
        Box::pin(self.seen())
    }

    fn fetch_version<'a>(&'a self, identity: &'a SourceIdentity, id: &'a VersionId) -> Fetching<'a> {
        Box::pin(async move {
            let fetched = self.fetched(self.ask(Some(&id.version), Decrypt::Yes).await?)?;
            same_version(fetched, &self.about(), identity, id)
        })
    }

    fn earlier(&self) -> ReadingEarlier<'_> {
        Box::pin(self.earlier_version())
    }

    fn requests(&self) -> u64 {
        self.requests.sent()
    }
}
