//! A parameter of AWS Systems Manager: one value after the other, and what is put is published.

use std::collections::BTreeMap;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{ParameterHistory, ParameterMetadata, ParameterStringFilter, ParameterTier, ParameterType};
use relaykey_core::credential::Secret;
use relaykey_core::fault::{Class, Fault};

use super::store::Seen;
use super::{AwsCall, CallFailed, FailKind, Reach, Until, incomplete, timestamp};
use crate::facts::{CURRENT, PREVIOUS, Store, StoreKind, Version, VersionId};

/// A parameter has a hundred versions, fifty on a page.
const PAGES: usize = 10;

/// What became of a put.
pub struct Put {
    pub version: VersionId,
    /// Somebody else put a value at the same time.
    pub raced: Option<Fault>,
}

pub struct ParameterAt {
    reach: Reach,
    parameter: String,
}

impl ParameterAt {
    pub fn new(reach: Reach, parameter: &str) -> Self {
        Self { reach, parameter: parameter.to_owned() }
    }

    fn asked(&self, action: &'static str) -> AwsCall {
        let name = self.parameter.trim_start_matches('/');
        let arn = match self.parameter.starts_with("arn:") {
            true => self.parameter.clone(),
            false => format!("arn:aws:ssm:*:*:parameter/{name}"),
        };
        AwsCall { action, about: format!("parameter {:?}", self.parameter), arn }
    }

    /// Every version with its value. The last one is AWSCURRENT to us, the one before it AWSPREVIOUS. A parameter that is not
    /// there has none.
    pub async fn look(&self) -> Result<Seen, CallFailed> {
        let mut history = match self.history().await {
            Err(failed) if failed.kind == FailKind::NotFound => Vec::new(),
            history => history?,
        };
        history.sort_by_key(|version| version.version);
        let (mut versions, mut values) = (Vec::new(), BTreeMap::new());
        let last = history.len();
        for (index, one) in history.into_iter().enumerate() {
            let id = VersionId::new(one.version.to_string());
            let created = one.last_modified_date.as_ref().and_then(timestamp);
            let mut labels = one.labels.unwrap_or_default();
            match last - index {
                1 => labels.push(CURRENT.into()),
                2 => labels.push(PREVIOUS.into()),
                _ => {}
            }
            let text = one.value.map(Secret::new);
            versions.push(Version {
                id: id.clone(),
                created: created.ok_or_else(|| incomplete(&self.parameter, "modification time"))?,
                labels,
                value: Seen::value_of(text.as_ref()),
            });
            values.extend(text.map(|text| (id, text)));
        }
        let store = Store { kind: StoreKind::ParameterStore, versions };
        Ok(Seen { store, arn: self.parameter.clone(), values, behind: Vec::new(), further: Vec::new() })
    }

    async fn history(&self) -> Result<Vec<ParameterHistory>, CallFailed> {
        let (mut all, mut next) = (Vec::new(), None::<String>);
        for _ in 0..PAGES {
            let page = self
                .reach
                .send(self.asked("ssm:GetParameterHistory"), |config| {
                    let request = Client::new(&config).get_parameter_history().name(&self.parameter);
                    request.with_decryption(true).max_results(50).set_next_token(next.take()).send()
                })
                .await?;
            all.extend(page.parameters.unwrap_or_default());
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
        Err(incomplete(&self.parameter, "last page of its history"))
    }

    /// Puts a value with everything else as it is: a put without the key's id would take the default key. `seen`: the version that
    /// was published when this was decided. Parameter Store has no condition for a put: it is asked just before, and the number
    /// that the put gives tells whether somebody put a value between the two.
    pub async fn put(&self, text: &Secret, seen: Option<&VersionId>, until: &Until) -> Result<Put, CallFailed> {
        let kept = self.metadata().await?;
        let before = kept.as_ref().map(|kept| kept.version);
        if before.map(|number| number.to_string()).as_deref() != seen.map(VersionId::as_str) {
            return Err(self.changed("has another version now than when this was decided: nothing was put"));
        }
        let put = self
            .reach
            .send(self.asked("ssm:PutParameter"), |config| {
                let request = Client::new(&config).put_parameter().name(&self.parameter).value(text.expose());
                let request = request.r#type(ParameterType::SecureString);
                let request = match kept {
                    None => request,
                    Some(kept) => {
                        // A tier can be kept or raised; what chooses by itself shows as what it chose.
                        let tier = kept.tier.unwrap_or(ParameterTier::Standard);
                        let request = request.overwrite(true).set_key_id(kept.key_id).tier(tier);
                        let request = request.set_description(kept.description).set_data_type(kept.data_type);
                        request.set_allowed_pattern(kept.allowed_pattern.filter(|p| !p.is_empty()))
                    }
                };
                request.customize().interceptor(until.clone()).send()
            })
            .await?;
        let version = VersionId::new(put.version.to_string());
        let next = before.unwrap_or(0) + 1;
        let raced = if put.version != next {
            let what = format!(
                "got version {version}, where {next} was to be: somebody else's value in between was written over"
            );
            Some(*self.changed(&what).fault)
        } else {
            // Whoever put theirs after it has it published: the next look sees that.
            let after = self.metadata().await.ok().flatten().map(|after| after.version);
            let other = after.filter(|after| *after != put.version);
            other
                .map(|after| *self.changed(&format!("has version {after}, just after version {version} was put")).fault)
        };
        Ok(Put { version, raced })
    }

    /// Somebody else put something there.
    fn changed(&self, what: &str) -> CallFailed {
        let what = format!("parameter {:?} {what}", self.parameter);
        let fix = "find out who else writes it: nothing keeps two writers of a parameter apart";
        CallFailed {
            kind: FailKind::Conflict,
            fault: Box::new(Fault::new(Class::ChangedMeanwhile, what, fix).temporary()),
        }
    }

    /// Asks for the right to put, with a request that is never done: it is there already, and the value does not fit.
    pub async fn ask_to_put(&self) -> Result<(), CallFailed> {
        let send = |config| {
            let request = Client::new(&config).put_parameter().name(&self.parameter).value("-").overwrite(false);
            request.r#type(ParameterType::String).allowed_pattern("^relaykey-check$").send()
        };
        self.reach.send(self.asked("ssm:PutParameter"), send).await.map(|_| ())
    }

    /// `None`: there is no such parameter.
    async fn metadata(&self) -> Result<Option<ParameterMetadata>, CallFailed> {
        let mut next = None::<String>;
        for _ in 0..PAGES {
            let filter = ParameterStringFilter::builder().key("Name").option("Equals").values(&self.parameter).build();
            let filter = filter.map_err(|_| incomplete(&self.parameter, "name"))?;
            let page = self
                .reach
                .send(self.asked("ssm:DescribeParameters"), |config| {
                    let request = Client::new(&config).describe_parameters().parameter_filters(filter);
                    request.set_next_token(next.take()).send()
                })
                .await?;
            if let Some(found) = page.parameters.unwrap_or_default().into_iter().next() {
                return Ok(Some(found));
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(None);
            }
        }
        Err(incomplete(&self.parameter, "last page"))
    }
}
