//! The access keys of one IAM user.

use aws_sdk_iam::Client;
use aws_sdk_iam::config::retry::RetryConfig;
use aws_sdk_iam::types::StatusType;
use relaykey_core::credential::Secret;

use super::{AwsCall, CallFailed, FailKind, Reach, Until, incomplete, timestamp};
use crate::facts::{Key, KeyId, KeyStatus, LastUsed};

/// A user has two keys; a few pages are more than enough for any answer that makes sense.
const PAGES: usize = 10;

pub struct Keys {
    reach: Reach,
    user: String,
}

impl Keys {
    pub fn new(reach: Reach, user: &str) -> Self {
        Self { reach, user: user.to_owned() }
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    fn asked(&self, action: &'static str) -> AwsCall {
        AwsCall {
            action,
            about: format!("IAM user {:?}", self.user),
            arn: format!("arn:aws:iam::*:user/{}", self.user),
        }
    }

    /// All of them, each with its last use. What IAM does not tell of a use is `Unknown`, and refuses.
    pub async fn list(&self) -> Result<Vec<Key>, CallFailed> {
        let (mut keys, mut marker) = (Vec::new(), None);
        for _ in 0..PAGES {
            let mut page = self
                .reach
                .send(self.asked("iam:ListAccessKeys"), |config| {
                    Client::new(&config).list_access_keys().user_name(&self.user).set_marker(marker.take()).send()
                })
                .await?;
            keys.append(&mut page.access_key_metadata);
            if !page.is_truncated {
                let known = keys.iter().map(|key| {
                    let id = key.access_key_id().ok_or_else(|| incomplete("iam:ListAccessKeys", "access key id"))?;
                    let created = key.create_date().and_then(timestamp);
                    let status = match key.status() {
                        Some(StatusType::Active) => KeyStatus::Active,
                        _ => KeyStatus::Inactive,
                    };
                    let created = created.ok_or_else(|| incomplete("iam:ListAccessKeys", "creation time"))?;
                    Ok(Key { id: KeyId::new(id), status, created, last_used: LastUsed::Unknown })
                });
                let mut known = known.collect::<Result<Vec<_>, CallFailed>>()?;
                for key in &mut known {
                    key.last_used = self.last_used(&key.id).await?;
                }
                return Ok(known);
            }
            marker = Some(page.marker.ok_or_else(|| incomplete("iam:ListAccessKeys", "marker of its next page"))?);
        }
        Err(incomplete("iam:ListAccessKeys", "last page"))
    }

    async fn last_used(&self, key: &KeyId) -> Result<LastUsed, CallFailed> {
        let answer = self
            .reach
            .send(self.asked("iam:GetAccessKeyLastUsed"), |config| {
                Client::new(&config).get_access_key_last_used().access_key_id(key.as_str()).send()
            })
            .await;
        let said = match answer {
            // Nothing else needs it: what is not known refuses by its own name.
            Err(failed) if failed.kind == FailKind::AccessDenied => return Ok(LastUsed::Unknown),
            answer => answer?,
        };
        let Some(used) = said.access_key_last_used else {
            return Ok(LastUsed::Unknown);
        };
        // Without a date it was never used; the other two are "N/A" then.
        Ok(match used.last_used_date.as_ref().map(timestamp) {
            None => LastUsed::Never,
            Some(None) => LastUsed::Unknown,
            Some(Some(at)) => LastUsed::At { at, service: used.service_name, region: used.region },
        })
    }

    /// Asked once: a second attempt after an answer that was lost would make a second key.
    pub async fn create(&self, until: &Until) -> Result<(KeyId, Secret), CallFailed> {
        let made = self
            .reach
            .send(self.asked("iam:CreateAccessKey"), |config| {
                let config = aws_sdk_iam::config::Builder::from(&config).retry_config(RetryConfig::disabled()).build();
                let request = Client::from_conf(config).create_access_key().user_name(&self.user);
                request.customize().interceptor(until.clone()).send()
            })
            .await?;
        let key = made.access_key.ok_or_else(|| incomplete("iam:CreateAccessKey", "access key"))?;
        Ok((KeyId::new(key.access_key_id), Secret::new(key.secret_access_key)))
    }

    pub async fn set(&self, key: &KeyId, status: KeyStatus, until: &Until) -> Result<(), CallFailed> {
        let status = match status {
            KeyStatus::Active => StatusType::Active,
            KeyStatus::Inactive => StatusType::Inactive,
        };
        let send = |config| {
            let request = Client::new(&config).update_access_key().user_name(&self.user);
            request.access_key_id(key.as_str()).status(status).customize().interceptor(until.clone()).send()
        };
        self.reach.send(self.asked("iam:UpdateAccessKey"), send).await.map(|_| ())
    }

    pub async fn delete(&self, key: &KeyId, until: &Until) -> Result<(), CallFailed> {
        let send = |config| {
            let request = Client::new(&config).delete_access_key().user_name(&self.user).access_key_id(key.as_str());
            request.customize().interceptor(until.clone()).send()
        };
        self.reach.send(self.asked("iam:DeleteAccessKey"), send).await.map(|_| ())
    }
}
