//! Parameters below one path: `PATH/CREDENTIAL/HOST` as hosts write them, and `.control`, `.registry` and `.audit` beside them.
//!
//! There is no conditional write: one controller alone. The number that a write is given tells whether another one came in
//! between; then it is a conflict, and the lease is the other's.

use std::collections::BTreeSet;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{Parameter, ParameterTier, ParameterType};
use jiff::Timestamp;
use relaykey_core::fault::{Class, Fault};
use relaykey_core::report::{Report, place};
use relaykey_core::text;
use tokio::sync::Mutex;

use super::{EntryWrite, Kept, Known, Read, Row, json, ours, report};
use crate::audit::AuditLine;
use crate::aws::{AwsCall, CallFailed, FailKind, Reach, incomplete, timestamp};
use crate::evidence::Written;
use crate::facts::HostName;

/// More hosts than that ask for a table: each look reads all of them, ten on a page.
const HOSTS: usize = 500;
/// Of the registry, which also knows hosts that were removed.
const ENTRIES: usize = 1000;
/// Of any answer that makes sense.
const PAGES: usize = 60;

pub struct Parameters {
    reach: Reach,
    path: String,
    credential: String,
    /// Of the control parameter, as it was read or written last.
    number: Mutex<i64>,
}

impl Parameters {
    pub fn new(reach: Reach, path: &str, credential: &str) -> Self {
        Self { reach, path: path.to_owned(), credential: credential.to_owned(), number: Mutex::new(0) }
    }

    fn asked(&self, action: &'static str) -> AwsCall {
        let path = self.path.trim_start_matches('/');
        AwsCall {
            action,
            about: format!("parameters below {:?}", self.path),
            arn: format!("arn:aws:ssm:*:*:parameter/{path}/*"),
        }
    }

    fn own(&self, kind: &str) -> String {
        place::own_parameter(&self.path, kind, &self.credential)
    }

    async fn get(&self, name: &str) -> Result<Option<Parameter>, CallFailed> {
        let send = |config| Client::new(&config).get_parameter().name(name).send();
        match self.reach.send(self.asked("ssm:GetParameter"), send).await {
            Ok(answer) => Ok(answer.parameter),
            Err(failed) if failed.kind == FailKind::NotFound => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    async fn put(&self, name: &str, value: String) -> Result<i64, CallFailed> {
        let send = |config| {
            let request = Client::new(&config).put_parameter().name(name).value(value).overwrite(true);
            request.r#type(ParameterType::String).tier(ParameterTier::IntelligentTiering).send()
        };
        self.reach.send(self.asked("ssm:PutParameter"), send).await.map(|answer| answer.version)
    }

    pub async fn record(&self) -> Result<Option<Kept>, CallFailed> {
        let found = self.get(&self.own("control")).await?;
        *self.number.lock().await = found.as_ref().map_or(0, |found| found.version);
        let Some(text) = found.and_then(|found| found.value) else {
            return Ok(None);
        };
        ours(&text, &format!("parameter {:?}", self.own("control"))).map(Some)
    }

    pub async fn write(
        &self,
        before: Option<&Kept>,
        after: &Kept,
        line: Option<&AuditLine>,
        entry: Option<&EntryWrite>,
    ) -> Result<(), CallFailed> {
        // As near to a condition as it gets: read, write, and look at the number.
        if self.record().await?.as_ref() != before {
            return Err(conflict(&self.own("control")));
        }
        // First, so that nothing is done that no line tells of.
        if let Some(line) = line {
            self.put(&self.own("audit"), json(line)).await?;
        }
        if let Some(entry) = entry {
            self.put_entry(entry).await?;
        }
        let number = self.put(&self.own("control"), json(after)).await?;
        let mut known = self.number.lock().await;
        if number != *known + 1 {
            *known = number;
            return Err(conflict(&self.own("control")));
        }
        *known = number;
        Ok(())
    }

    async fn put_entry(&self, write: &EntryWrite) -> Result<(), CallFailed> {
        let name = write.name.replace('=', "_principal_").replace('!', "_own_");
        self.put(&format!("{}/{name}", self.own("registry")), json(&write.after)).await.map(|_| ())
    }

    /// What is not taken, because there is much of it, is written at the next look.
    pub async fn write_entries(&self, writes: &[EntryWrite]) -> Result<(), CallFailed> {
        for write in writes {
            self.put_entry(write).await?;
        }
        Ok(())
    }

    pub async fn read(&self) -> Result<Read, CallFailed> {
        let mut read = Read::default();
        for one in self.below(&self.own("registry"), ENTRIES).await? {
            let name = last(&one).replace("_principal_", "=").replace("_own_", "!");
            let text = one.value.clone().unwrap_or_default();
            let entry = ours(&text, &format!("the entry of {name:?} in the registry below {:?}", self.path))?;
            read.entries.insert(name, Known { entry, text });
        }
        for one in self.below(&place::parameters_of(&self.path, &self.credential), HOSTS).await? {
            let at = one.last_modified_date.as_ref().and_then(timestamp).unwrap_or(Timestamp::UNIX_EPOCH);
            let understood = one.value.as_deref().and_then(report);
            // Its entry in the registry is a parameter too.
            let fits =
                |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            // A report of another name there would hide the host whose parameter it is.
            let its_own = |report: &Report| {
                report.credential == self.credential && report.host == last(&one) && fits(&report.host)
            };
            let Some(report) = understood.filter(its_own) else {
                read.unreadable.push((HostName::new(text::plain(last(&one), 255)), at));
                continue;
            };
            let item = (one.name.clone().unwrap_or_default(), String::new());
            let principal = report.host_id.clone();
            read.rows.push(Row { written: Written { principal, item: item.clone(), at, report }, item });
        }
        Ok(read)
    }

    /// The credentials that hosts report about, as far as the first page tells.
    pub async fn credentials(&self) -> Result<BTreeSet<String>, CallFailed> {
        let send = |config| {
            let request = Client::new(&config).get_parameters_by_path().path(&self.path);
            request.recursive(true).max_results(10).send()
        };
        let page = self.reach.send(self.asked("ssm:GetParametersByPath"), send).await?;
        let of = |one: &Parameter| {
            let credential = place::credential_of_parameter(&self.path, one.name.as_deref()?)?;
            Some(text::plain(credential, 255))
        };
        Ok(page.parameters.unwrap_or_default().iter().filter_map(of).collect())
    }

    /// `most`: of them; more are refused.
    async fn below(&self, path: &str, most: usize) -> Result<Vec<Parameter>, CallFailed> {
        let (mut all, mut next) = (Vec::new(), None::<String>);
        while all.len() <= most {
            let page = self
                .reach
                .send(self.asked("ssm:GetParametersByPath"), |config| {
                    let request = Client::new(&config).get_parameters_by_path().path(path);
                    request.recursive(false).max_results(10).set_next_token(next.take()).send()
                })
                .await?;
            all.extend(page.parameters.unwrap_or_default());
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() && all.len() <= most {
                return Ok(all);
            }
        }
        Err(too_many(path, most))
    }

    /// Each version of one parameter is a line; Parameter Store keeps the last hundred.
    pub async fn audit(&self) -> Result<Vec<AuditLine>, CallFailed> {
        let name = self.own("audit");
        let (mut lines, mut next) = (Vec::<AuditLine>::new(), None::<String>);
        for _ in 0..PAGES {
            let answer = self
                .reach
                .send(self.asked("ssm:GetParameterHistory"), |config| {
                    let request = Client::new(&config).get_parameter_history().name(&name).max_results(50);
                    request.set_next_token(next.take()).send()
                })
                .await;
            let page = match answer {
                Err(failed) if failed.kind == FailKind::NotFound => return Ok(Vec::new()),
                answer => answer?,
            };
            for one in page.parameters.unwrap_or_default() {
                lines.push(ours(one.value.as_deref().unwrap_or_default(), &format!("parameter {name:?}"))?);
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                // Written before the record: whoever was killed in between left one whose number the next one took.
                lines.reverse();
                lines.sort_by_key(|line| line.seq);
                lines.dedup_by_key(|line| line.seq);
                return Ok(lines);
            }
        }
        Err(incomplete(&name, "last page"))
    }
}

fn last(parameter: &Parameter) -> &str {
    parameter.name.as_deref().and_then(|name| name.rsplit('/').next()).unwrap_or_default()
}

/// Told before anything else breaks: a record of a parameter has 8 KB at most, and each look would ask AWS a hundred times.
fn too_many(path: &str, most: usize) -> CallFailed {
    let what = format!("there are more than {most} parameters below {path:?}: so many hosts need a table");
    let fix = "use a DynamoDB table: `type = \"dynamodb\"` under [credential.evidence], and in a [[report]] of each host; or delete \
               parameters of hosts that are gone";
    CallFailed { kind: FailKind::Refused, fault: Box::new(Fault::new(Class::Unsupported, what, fix)) }
}

fn conflict(name: &str) -> CallFailed {
    let what = format!("parameter {name:?} was written by another controller in between");
    let fix = "let one controller alone look after this credential: Parameter Store has no conditional writes; or use DynamoDB";
    CallFailed { kind: FailKind::Conflict, fault: Box::new(Fault::new(Class::ChangedMeanwhile, what, fix).temporary()) }
}
