//! A secret of AWS Secrets Manager.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::StatusType;
use futures_util::future::join_all;
use jiff::Timestamp;
use relaykey_core::credential::Secret;

use super::store::Seen;
use super::{AwsCall, CallFailed, FailKind, Reach, Until, incomplete, timestamp};
use crate::facts::{CURRENT, KeyId, PENDING, Part, Replica, Store, StoreKind, Value, Version, VersionId};

/// Of versions without a label so many are read, the newest, where the old key's value is looked for.
const UNLABELLED: usize = 5;
/// A secret has about a hundred versions.
const PAGES: usize = 20;

/// What a version was found to hold.
enum SecretValue {
    Nothing,
    Text(Secret),
    /// Bytes that are no text: somebody's, and no login.
    Bytes,
}

impl SecretValue {
    fn of(text: Option<String>, bytes: Option<Vec<u8>>) -> Self {
        match (text, bytes.map(String::from_utf8)) {
            (Some(text), _) | (None, Some(Ok(text))) => Self::Text(Secret::new(text)),
            (None, Some(Err(_))) => Self::Bytes,
            (None, None) => Self::Nothing,
        }
    }
}

pub struct SecretAt {
    reach: Reach,
    secret: String,
}

impl SecretAt {
    pub fn new(reach: Reach, secret: &str) -> Self {
        Self { reach, secret: secret.to_owned() }
    }

    fn asked(&self, action: &'static str) -> AwsCall {
        let arn = match self.secret.starts_with("arn:") {
            true => self.secret.clone(),
            false => format!("arn:aws:secretsmanager:*:*:secret:{}-??????", self.secret),
        };
        AwsCall { action, about: format!("secret {:?}", self.secret), arn }
    }

    /// Which versions there are and what each holds, read by its id.
    pub async fn look(&self, wanted: Option<&KeyId>) -> Result<Seen, CallFailed> {
        let described = self
            .reach
            .send(self.asked("secretsmanager:DescribeSecret"), |config| {
                Client::new(&config).describe_secret().secret_id(&self.secret).send()
            })
            .await?;
        let about = format!("secret {:?}", self.secret);
        if described.deleted_date.is_some() {
            let fault = relaykey_core::fault::Fault::new(
                relaykey_core::fault::Class::ScheduledForDeletion,
                format!("{about} is scheduled for deletion"),
                format!("`aws secretsmanager restore-secret --secret-id {}`", self.secret),
            );
            return Err(CallFailed { kind: FailKind::SecretDeleting, fault: Box::new(fault) });
        }
        let arn = described.arn.ok_or_else(|| incomplete(&about, "ARN"))?;
        let replicas = described.replication_status.unwrap_or_default().into_iter();
        let behind = replicas.filter(|replica| replica.status != Some(StatusType::InSync)).map(|replica| Replica {
            of: Part::Store,
            failed: replica.status == Some(StatusType::Failed),
            region: replica.region.unwrap_or_default(),
        });
        let behind = behind.collect();
        let labels = described.version_ids_to_stages.unwrap_or_default();
        let mut versions: Vec<Version> = self.listed().await?;
        for (id, stages) in labels {
            let id = VersionId::new(id);
            match versions.iter_mut().find(|version| version.id == id) {
                Some(version) => version.labels = stages,
                None => {
                    let created = self.reach.hooks.now();
                    versions.push(Version { id, created, labels: stages, value: Value::Empty });
                }
            }
        }
        versions.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let mut values = BTreeMap::new();
        let is_labelled = |version: &&mut Version| !version.labels.is_empty();
        self.read(versions.iter_mut().filter(is_labelled), &mut values).await?;
        if wanted.is_some_and(|key| versions.iter().all(|version| version.key() != Some(key))) {
            let unlabelled = versions.iter_mut().rev().filter(|version| version.labels.is_empty());
            self.read(unlabelled.take(UNLABELLED), &mut values).await?;
        }
        // What was not read is nobody's business here.
        versions.retain(|version| !version.labels.is_empty() || values.contains_key(&version.id));
        let store = Store { kind: StoreKind::SecretsManager, versions };
        Ok(Seen { store, arn, values, behind, further: Vec::new() })
    }

    /// Without their values, and with the labels that the listing gives.
    async fn listed(&self) -> Result<Vec<Version>, CallFailed> {
        let (mut versions, mut next) = (Vec::new(), None::<String>);
        for _ in 0..PAGES {
            let page = self
                .reach
                .send(self.asked("secretsmanager:ListSecretVersionIds"), |config| {
                    let request = Client::new(&config).list_secret_version_ids().secret_id(&self.secret);
                    request.include_deprecated(true).set_next_token(next.take()).send()
                })
                .await?;
            for version in page.versions.unwrap_or_default() {
                let id = version.version_id.ok_or_else(|| incomplete(&self.secret, "version id"))?;
                let created = version.created_date.as_ref().and_then(timestamp);
                versions.push(Version {
                    id: VersionId::new(id),
                    created: created.unwrap_or(Timestamp::UNIX_EPOCH),
                    labels: version.version_stages.unwrap_or_default(),
                    value: Value::Empty,
                });
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(versions);
            }
        }
        Err(incomplete(&self.secret, "last page of its versions"))
    }

    /// Reads these. That AWSCURRENT cannot be read is an error; of another it is a value that is not known.
    async fn read(
        &self,
        versions: impl Iterator<Item = &mut Version>,
        values: &mut BTreeMap<VersionId, Secret>,
    ) -> Result<(), CallFailed> {
        let read = versions.map(async |version| {
            let answer = self.value(&version.id).await;
            (version, answer)
        });
        for (version, answer) in join_all(read).await {
            match answer {
                Ok((content, created)) => {
                    version.created = created.unwrap_or(version.created);
                    match content {
                        SecretValue::Text(text) => {
                            version.value = Seen::value_of(Some(&text));
                            values.insert(version.id.clone(), text);
                        }
                        SecretValue::Bytes => version.value = Value::Unreadable,
                        SecretValue::Nothing => version.value = Value::Empty,
                    }
                }
                Err(failed)
                    if failed.kind.is_definite()
                        && failed.kind != FailKind::Throttled
                        && !version.carries(CURRENT)
                        && !version.carries(PENDING) =>
                {
                    version.value = Value::Unreadable;
                }
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }

    /// With when it was made.
    async fn value(&self, version: &VersionId) -> Result<(SecretValue, Option<Timestamp>), CallFailed> {
        let answer = self
            .reach
            .send(self.asked("secretsmanager:GetSecretValue"), |config| {
                Client::new(&config).get_secret_value().secret_id(&self.secret).version_id(version.as_str()).send()
            })
            .await;
        match answer {
            Ok(mut output) => {
                let bytes = output.secret_binary.take().map(aws_sdk_secretsmanager::primitives::Blob::into_inner);
                let created = output.created_date.as_ref().and_then(timestamp);
                Ok((SecretValue::of(output.secret_string.take(), bytes), created))
            }
            // That is what a version without a value gives, as Secrets Manager makes them at the start of a rotation.
            Err(failed) if failed.kind == FailKind::NotFound => Ok((SecretValue::Nothing, None)),
            Err(failed) => Err(failed),
        }
    }

    /// A value under this token, with this label. The same again is no other put.
    pub async fn put(
        &self,
        token: &VersionId,
        text: &Secret,
        label: &str,
        until: &Until,
    ) -> Result<VersionId, CallFailed> {
        let put = self
            .reach
            .send(self.asked("secretsmanager:PutSecretValue"), |config| {
                let request = Client::new(&config).put_secret_value().secret_id(&self.secret).version_stages(label);
                let request = request.client_request_token(token.as_str()).secret_string(text.expose());
                request.customize().interceptor(until.clone()).send()
            })
            .await?;
        Ok(VersionId::new(put.version_id.ok_or_else(|| incomplete(&self.secret, "version id"))?))
    }

    /// Moves a label: a compare-and-swap where `from` is named.
    pub async fn label(
        &self,
        label: &str,
        from: Option<&VersionId>,
        to: Option<&VersionId>,
        until: &Until,
    ) -> Result<(), CallFailed> {
        let id = |version: Option<&VersionId>| version.map(|version| version.as_str().to_owned());
        let send = |config| {
            let request = Client::new(&config).update_secret_version_stage().secret_id(&self.secret);
            let request = request.version_stage(label).set_remove_from_version_id(id(from));
            request.set_move_to_version_id(id(to)).customize().interceptor(until.clone()).send()
        };
        self.reach.send(self.asked("secretsmanager:UpdateSecretVersionStage"), send).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_no_empty_value() {
        let keystore = vec![0xfe, 0xed, 0xfe, 0xed, 0x00];
        assert!(matches!(SecretValue::of(None, Some(keystore)), SecretValue::Bytes));
        assert!(
            matches!(SecretValue::of(None, Some(b"AKIA1:p".to_vec())), SecretValue::Text(text) if text.expose() == "AKIA1:p")
        );
        assert!(matches!(SecretValue::of(Some("a".into()), None), SecretValue::Text(_)));
        assert!(matches!(SecretValue::of(None, None), SecretValue::Nothing));
    }
}
