//! Amazon DynamoDB: one item per credential and host. It holds the latest report, as JSON in `report` and its main fields as
//! attributes of their own. Both keys are strings:
//!
//! - layout 1: partition key `credential`, sort key `host`;
//! - layout 2: partition key `principal`, the identity that AWS knows this host by, sort key `credential#host_id`. IAM can
//!   compare the partition key with the identity of who writes, so one policy holds each host of a fleet to its own items.
//!   STS says which identity that is; it is asked again after [`KNOWN`], or where AWS denies the write.
//!
//! One conditional UpdateItem writes it: where there is no item, or an earlier report of this installation (`host_id`).
//! Otherwise the answer brings the item along, and that says why it was not written:
//!
//! - the same report: it arrived before, and the answer was lost;
//! - a later one of this installation: never replaced;
//! - one of another installation under this host name. While that one is heard of, this is an error, shown on this host
//!   and tried again, so that of two machines with one name neither hides the other. Once it has left, or was silent
//!   for [`SILENT`], this installation takes the item over, and the other's `host_id` stays in `previous_host_id`.
//!
//! Needs `dynamodb:UpdateItem` on the table, and `dynamodb:GetItem` for the check. In layout 1 a policy can hold a host to
//! the partition keys of its credentials (`dynamodb:LeadingKeys`), but not to its own sort key.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use jiff::{SignedDuration, Timestamp};
use relaykey_core::report::is_report;
use relaykey_core::report::place::{self, TableLayout};
use tokio::sync::Mutex;

use crate::aws::{self, AwsSession, Call, Http, ReachedFor, ServiceError};
use crate::config::{Aws, TableKeys};
use crate::fault::{Class, Fault};
use crate::report::{Checking, Delivering, Receiver, Whose};
use crate::rollover::{Report, ReportOutcome, rfc3339};

/// An installation that was not heard of for so long is taken for one that is gone. Each reports once a day at least.
pub const SILENT: SignedDuration = SignedDuration::from_hours(48);

/// Bytes that a report may have. An item holds 400 KB (DynamoDB quotas), names and the other attributes included.
const MOST: usize = 380 * 1024;

/// So long an identity that STS named is taken for the one in use: credentials of a role last about as long.
const KNOWN: Duration = Duration::from_secs(3600);

/// How often it is looked again when somebody else writes the item between two requests.
const LOOKS: usize = 3;

/// Where there is no item, or an earlier report of this installation.
const OURS: &str = "attribute_not_exists(#partition) OR (#host_id = :host_id AND #seq < :seq)";
/// Where the item still is the one that was seen.
const AS_SEEN: &str = "#host_id = :held_by AND #seq = :held_seq";

/// A receiver of type `dynamodb`.
pub struct DynamoDb {
    table: String,
    keys: TableKeys,
    region: Option<String>,
    session: AwsSession,
    /// Under which identity this host writes, as STS said, and when.
    user_id: Mutex<Option<(String, Instant)>>,
}

impl DynamoDb {
    /// `table` is its name.
    pub fn new(table: &str, keys: &TableKeys, aws: &Aws, http: &Http) -> Result<Self, Fault> {
        let session = AwsSession::new(aws, http)?.reached_for(ReachedFor::Report);
        let (table, keys, region) = (table.to_owned(), keys.clone(), aws.region.clone());
        Ok(Self { table, keys, region, session, user_id: Mutex::new(None) })
    }

    /// The keys of the item of a host, by name.
    async fn item_keys(
        &self,
        credential: &str,
        host: &str,
        host_id: &str,
    ) -> Result<[(&'static str, String); 2], Fault> {
        let [partition, sort] = match &self.keys {
            TableKeys::ByHost => [credential.to_owned(), host.to_owned()],
            TableKeys::ByUserId => [self.identity().await?, place::sort_key(credential, host_id)],
            TableKeys::BySourceIdentity(identity) => [identity.clone(), place::sort_key(credential, host_id)],
        };
        let [of_partition, of_sort] = self.keys.layout().keys();
        Ok([(of_partition, partition), (of_sort, sort)])
    }

    /// The UserId of the caller, as IAM has it in `${aws:userid}`: `AROA…:i-0abc…` on an instance, `AIDA…` for a user.
    async fn identity(&self) -> Result<String, Fault> {
        let mut known = self.user_id.lock().await;
        if let Some((user_id, _)) = known.as_ref().filter(|(_, asked)| asked.elapsed() < KNOWN) {
            return Ok(user_id.clone());
        }
        let config = self.session.config_of_sts().await?;
        let region = config.region().map_or("", |r| r.as_ref()).to_owned();
        let said = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await;
        let user_id = match said {
            Ok(said) => said.user_id.unwrap_or_default(),
            Err(error) => {
                let call = Call {
                    action: "sts:GetCallerIdentity",
                    about: "this host's identity".into(),
                    arn: "*".into(),
                    region: &region,
                    role_arn: self.session.role_arn(),
                };
                return Err(self.session.explain(&error, &call, |_| None).await);
            }
        };
        if user_id.is_empty() || place::is_own_partition(&user_id) {
            let what = "sts:GetCallerIdentity names no identity that reports could be written under".to_owned();
            return Err(Fault::new(Class::Service, what, "see what answers there: `aws sts get-caller-identity`"));
        }
        *known = Some((user_id.clone(), Instant::now()));
        Ok(user_id)
    }

    /// Another identity than the one known so far, after AWS denied a write under that: roles are exchanged.
    async fn is_another(&self, keys: &[(&'static str, String); 2]) -> bool {
        if self.keys != TableKeys::ByUserId {
            return false;
        }
        *self.user_id.lock().await = None;
        self.identity().await.is_ok_and(|user_id| user_id != keys[0].1)
    }

    async fn put(&self, report: &Report) -> Result<(), Fault> {
        let keys = self.item_keys(&report.credential, &report.host, &report.host_id).await?;
        match self.put_at(report, &keys).await {
            Err(e) if e.class == Class::AccessDenied && self.is_another(&keys).await => {
                let keys = self.item_keys(&report.credential, &report.host, &report.host_id).await?;
                self.put_at(report, &keys).await
            }
            result => result,
        }
    }

    async fn put_at(&self, report: &Report, keys: &[(&'static str, String); 2]) -> Result<(), Fault> {
        let document = serde_json::to_string(report).expect("a report has only text keys");
        if document.len() > MOST {
            return Err(too_large(&document, report));
        }
        named(&report.host)?;
        let config = self.session.config().await?;
        let client = Client::new(&config);
        let place = self.place(config.region().map_or("", |r| r.as_ref()), keys, &report.host);
        let mut seen: Option<StoredItem> = None;
        for _ in 0..LOOKS {
            let now = Timestamp::now();
            let request = self.update(&client, report, keys, &document, now, seen.as_ref());
            let error = match request.send().await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let Some(UpdateItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
                return Err(self.explain(&error, "dynamodb:UpdateItem", &place).await);
            };
            seen = match failed.item() {
                None => None,
                Some(item) => {
                    let there = StoredItem::read(&place, item)?;
                    match there.standing(&report.host_id, Some(report.seq), now) {
                        ItemState::Delivered => return Ok(()),
                        ItemState::Newer => return Err(newer_there(&place, &there, report)),
                        ItemState::Occupied => return Err(occupied(&place, &there, &report.host_id)),
                        // Written by ourselves, past this attempt, in between.
                        ItemState::Earlier => None,
                        ItemState::Gone => Some(there),
                    }
                }
            };
        }
        Err(Fault::new(
            Class::Service,
            format!("{}: somebody else writes it again and again", place.item()),
            "nothing to do if it passes; if it stays, find out what else writes this item",
        )
        .temporary())
    }

    /// The write. `seen`: the item of another installation, which is taken over if it still is the one that was seen.
    fn update(
        &self,
        client: &Client,
        report: &Report,
        keys: &[(&'static str, String); 2],
        document: &str,
        now: Timestamp,
        seen: Option<&StoredItem>,
    ) -> aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let number = |n: u64| AttributeValue::N(n.to_string());
        let mut attributes = vec![
            ("schema", text(&report.schema)),
            ("host_id", text(&report.host_id)),
            ("seq", number(report.seq)),
            ("at", text(&report.at)),
            ("written", text(&rfc3339(now))),
            ("outcome", text(report.outcome.word())),
            ("version", text(&report.version)),
            ("username", text(&report.username)),
            ("report", text(document)),
        ];
        if self.keys.layout() == TableLayout::ByPrincipal {
            attributes.extend([("credential", text(&report.credential)), ("host", text(&report.host))]);
        }
        // Each by a placeholder: half of these words are reserved.
        let mut set: Vec<String> = attributes.iter().map(|(name, _)| format!("#{name} = :{name}")).collect();
        set.push(match seen {
            Some(_) => "#host_id_since = :at, #previous_host_id = :held_by".into(),
            None => "#host_id_since = if_not_exists(#host_id_since, :at)".into(),
        });
        let mut request = client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(keys)))
            .update_expression(format!("SET {}", set.join(", ")))
            .condition_expression(if seen.is_some() { AS_SEEN } else { OURS })
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .expression_attribute_names("#host_id_since", "host_id_since");
        for (name, value) in attributes {
            request = request
                .expression_attribute_names(format!("#{name}"), name)
                .expression_attribute_values(format!(":{name}"), value);
        }
        match seen {
            Some(there) => request
                .expression_attribute_names("#previous_host_id", "previous_host_id")
                .expression_attribute_values(":held_by", text(&there.host_id))
                .expression_attribute_values(":held_seq", number(there.seq)),
            None => request.expression_attribute_names("#partition", keys[0].0),
        }
    }

    /// The item can be read, so table and key fit; whether it may be written is known when a report is.
    async fn look(&self, whose: &Whose) -> Result<String, Fault> {
        named(&whose.host)?;
        let config = self.session.config().await?;
        let keys = &self.item_keys(&whose.credential, &whose.host, &whose.host_id).await?;
        // An id that the first run makes anew is not shown as if it stayed.
        let shown = keys.clone().map(|(name, value)| match whose.is_passing {
            true => (name, value.replace(&whose.host_id, "(a new host id)")),
            false => (name, value),
        });
        let place = self.place(config.region().map_or("", |r| r.as_ref()), &shown, &whose.host);
        let request = Client::new(&config).get_item().table_name(&self.table).consistent_read(true);
        match request.set_key(Some(key(keys))).send().await {
            Ok(output) => match output.item() {
                None => Ok(format!(
                    "{} fits; {} is not there yet and will be made; the right to make it (dynamodb:UpdateItem) is not tried",
                    place.table(),
                    place.item()
                )),
                Some(item) => {
                    let there = StoredItem::read(&place, item)?;
                    match there.standing(&whose.host_id, None, Timestamp::now()) {
                        ItemState::Occupied => {
                            let here = if whose.is_passing { "none yet" } else { &whose.host_id };
                            Err(occupied(&place, &there, here))
                        }
                        ItemState::Gone => Ok(format!(
                            "{} holds report number {} of another installation (host_id {}), which {}: it will be taken over",
                            place.item(),
                            there.seq,
                            there.host_id,
                            if there.outcome == ReportOutcome::Left {
                                "has left"
                            } else {
                                "has been silent for two days"
                            }
                        )),
                        _ => Ok(format!("{} holds report number {}", place.item(), there.seq)),
                    }
                }
            },
            Err(e) => {
                let mut explained = self.explain(&e, "dynamodb:GetItem", &place).await;
                if explained.class == Class::AccessDenied {
                    explained.fix +=
                        "; reports themselves need dynamodb:UpdateItem alone, which is not tried without a report";
                }
                Err(explained)
            }
        }
    }

    fn place<'a>(&'a self, region: &'a str, keys: &'a [(&'static str, String); 2], host: &'a str) -> ItemKey<'a> {
        let [(partition, first), (sort, second)] = keys;
        ItemKey { table: &self.table, region, names: [partition, sort], values: [first, second], host }
    }

    async fn explain<E>(&self, error: &SdkError<E>, action: &'static str, place: &ItemKey<'_>) -> Fault
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        SdkError<E>: RequestId,
    {
        let call = Call {
            action,
            about: place.item(),
            arn: format!("arn:{}:dynamodb:{}:*:table/{}", aws::partition(place.region), place.region, place.table),
            region: place.region,
            role_arn: self.session.role_arn(),
        };
        let mut explained = self.session.explain(error, &call, |answer| special(answer, &call, place)).await;
        if explained.class == Class::Throttled {
            explained.fix = place.grow();
        }
        explained
    }
}

impl Receiver for DynamoDb {
    fn deliver<'a>(&'a self, report: &'a Report) -> Delivering<'a> {
        Box::pin(self.put(report))
    }

    fn check<'a>(&'a self, whose: &'a Whose) -> Checking<'a> {
        Box::pin(self.look(whose))
    }

    fn describe(&self) -> String {
        format!("DynamoDB table {} in {}", self.table, self.region.as_deref().unwrap_or("the default region"))
    }
}

fn key(keys: &[(&'static str, String); 2]) -> HashMap<String, AttributeValue> {
    keys.iter().map(|(name, value)| ((*name).to_owned(), AttributeValue::S(value.clone()))).collect()
}

/// DynamoDB takes any text but an empty one as a sort key of at most 1,024 bytes.
fn named(host: &str) -> Result<(), Fault> {
    let what = match host.len() {
        0 => "the host has no name to report under".to_owned(),
        1..=1024 => return Ok(()),
        n => format!("the host name has {n} bytes, and a sort key holds 1024"),
    };
    Err(Fault::new(Class::Configuration, what, "set `name` under [host]"))
}

/// Where one item is, for the words of errors.
struct ItemKey<'a> {
    table: &'a str,
    region: &'a str,
    /// Of partition key and sort key.
    names: [&'static str; 2],
    values: [&'a str; 2],
    host: &'a str,
}

impl ItemKey<'_> {
    fn table(&self) -> String {
        format!("table {:?}", self.table)
    }

    fn item(&self) -> String {
        let [partition, sort] = self.values;
        format!("the item ({partition}, {sort}) in table {:?}", self.table)
    }

    /// The command that deletes the item.
    fn delete(&self) -> String {
        let [partition, sort] = self.names;
        let key = serde_json::json!({partition: {"S": self.values[0]}, sort: {"S": self.values[1]}});
        let key = key.to_string().replace('\'', r"'\''");
        format!("aws dynamodb delete-item --table-name {} --region {} --key '{key}'", self.table, self.region)
    }

    /// What to do about too many requests.
    fn grow(&self) -> String {
        format!(
            "nothing to do if it passes; if it stays, let the table grow with its use: `aws dynamodb update-table --table-name \
             {} --region {} --billing-mode PAY_PER_REQUEST`",
            self.table, self.region
        )
    }

    /// The layout of its table.
    fn layout(&self) -> TableLayout {
        TableLayout::of(self.names[0], self.names[1]).expect("its keys are of a layout")
    }

    /// The command that makes the table.
    fn create(&self) -> String {
        let [partition, sort] = self.names;
        format!(
            "aws dynamodb create-table --table-name {} --region {} --billing-mode PAY_PER_REQUEST \
             --attribute-definitions AttributeName={partition},AttributeType=S AttributeName={sort},AttributeType=S \
             --key-schema AttributeName={partition},KeyType=HASH AttributeName={sort},KeyType=RANGE",
            self.table, self.region
        )
    }
}

/// The report that is at the place already, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredItem {
    host_id: String,
    seq: u64,
    outcome: ReportOutcome,
    /// When it was written, by the clock of the host that wrote it.
    written: Timestamp,
}

/// What the item means to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemState {
    /// It is that report.
    Delivered,
    /// An earlier one of the same installation.
    Earlier,
    /// A later one of the same installation.
    Newer,
    /// Of another installation, which is at work.
    Occupied,
    /// Of another installation, which has left or is silent.
    Gone,
}

impl StoredItem {
    fn read(place: &ItemKey<'_>, item: &HashMap<String, AttributeValue>) -> Result<Self, Fault> {
        let text = |name: &str| item.get(name)?.as_s().ok();
        let there = || {
            text("schema").filter(|schema| is_report(schema))?;
            Some(Self {
                host_id: text("host_id")?.clone(),
                seq: item.get("seq")?.as_n().ok()?.parse().ok()?,
                outcome: text("outcome")?.as_str().into(),
                written: text("written")?.parse().ok()?,
            })
        };
        // What it holds instead is not repeated: it may be a secret.
        there().ok_or_else(|| {
            Fault::new(
                Class::Occupied,
                format!("{} holds something that is no report of relaykey, and is left as it is", place.item()),
                format!("set another `table` in [[report]]; or, if nobody needs it, delete it: `{}`", place.delete()),
            )
        })
    }

    /// `seq`: of the report that is to be written; `None`: of one that is yet to come.
    fn standing(&self, host_id: &str, seq: Option<u64>, now: Timestamp) -> ItemState {
        if self.host_id == host_id {
            return match seq {
                Some(seq) if seq == self.seq => ItemState::Delivered,
                Some(seq) if seq < self.seq => ItemState::Newer,
                _ => ItemState::Earlier,
            };
        }
        if self.outcome == ReportOutcome::Left || now.duration_since(self.written) > SILENT {
            return ItemState::Gone;
        }
        ItemState::Occupied
    }
}

fn newer_there(place: &ItemKey<'_>, there: &StoredItem, report: &Report) -> Fault {
    Fault::new(
        Class::NewerThere,
        format!(
            "{} holds a later report of this very installation: number {} there, {} here",
            place.item(),
            there.seq,
            report.seq
        ),
        format!(
            "find out which: the state of this host came back from a backup, its clock was wrong, or another machine runs with a copy of \
             its state directory; then: `{}`",
            place.delete()
        ),
    )
}

fn occupied(place: &ItemKey<'_>, there: &StoredItem, host_id: &str) -> Fault {
    let until = there.written.checked_add(SILENT).unwrap_or(Timestamp::MAX);
    Fault::new(
        Class::Occupied,
        format!(
            "{} belongs to another installation under the same host name: host_id {} there, last heard of {} ({}); {host_id} here",
            place.item(),
            there.host_id,
            rfc3339(there.written),
            there.outcome,
        ),
        format!(
            "if two machines run under the name {:?}, such as one and its copy, give one of them another `name` under [host]; if the other \
             one is gone, or is this machine before it was installed anew, wait: after {} the item is taken over; or at once: `{}`",
            place.host,
            rfc3339(until),
            place.delete()
        ),
    )
}

fn too_large(document: &str, report: &Report) -> Fault {
    Fault::new(
        Class::TooLarge,
        format!("the report has {} bytes, and an item holds {MOST} of it", document.len()),
        format!(
            "split the {} targets of the credential {:?} over several credentials",
            report.targets.len(),
            report.credential
        ),
    )
}

/// What DynamoDB alone says, or means differently.
fn special(answer: ServiceError, call: &Call, place: &ItemKey<'_>) -> Option<Fault> {
    let said = answer.words();
    let about = format!("{} for {} in {}", call.action, call.about, call.region);
    let lower = answer.message.to_ascii_lowercase();
    match answer.code {
        // Its name does not say "Throttl".
        "ProvisionedThroughputExceededException" => Some(
            Fault::new(Class::Throttled, format!("{about} was throttled. AWS says: {said}"), place.grow()).temporary(),
        ),
        "ReplicatedWriteConflictException" | "TransactionConflictException" => Some(
            Fault::new(
                Class::Service,
                format!("{about}: somebody else writes it at this moment. AWS says: {said}"),
                "nothing to do if it passes; if it stays, find out what else writes this item",
            )
            .temporary(),
        ),
        "ResourceNotFoundException" => Some(Fault::new(
            Class::Configuration,
            format!("{about}: there is no such table in this account and region, or not yet. AWS says: {said}"),
            format!("make it, once for all hosts: `{}`; or correct `table` or `region` in [[report]]", place.create()),
        )),
        // DynamoDB words this in several ways: the element does not match the schema, has another type, is missing.
        "ValidationException" if lower.contains("key") => Some(Fault::new(
            Class::Configuration,
            format!("{about}: the table has another key than reports need. AWS says: {said}"),
            format!(
                "set `table` in [[report]] to a table whose partition key is `{}` and whose sort key is `{}`, both strings, and \
                 nothing else; it is made like this: `{}`. Or, where it has the keys `{}` and `{}`, set layout = {} there",
                place.names[0],
                place.names[1],
                place.create(),
                place.layout().other().keys()[0],
                place.layout().other().keys()[1],
                place.layout().other().number()
            ),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    const PLACE: ItemKey<'static> = ItemKey {
        table: "relaykey",
        region: "eu-west-1",
        names: ["credential", "host"],
        values: ["ses", "mx1.example.com"],
        host: "mx1.example.com",
    };

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn there(host_id: &str, seq: u64, outcome: &str) -> StoredItem {
        StoredItem { host_id: host_id.into(), seq, outcome: outcome.into(), written: at(0) }
    }

    #[test]
    fn what_is_there_decides() {
        for (there, seq, hours, expected) in [
            (there("us", 7, "alive"), Some(7), 0, ItemState::Delivered),
            (there("us", 7, "alive"), Some(8), 0, ItemState::Earlier),
            (there("us", 7, "alive"), Some(6), 0, ItemState::Newer),
            // One's own is never taken over from oneself, however old.
            (there("us", 7, "left"), Some(6), 1000, ItemState::Newer),
            (there("us", 7, "alive"), None, 0, ItemState::Earlier),
            // The numbers of another installation say nothing here.
            (there("other", 7, "alive"), Some(7), 0, ItemState::Occupied),
            (there("other", 7, "confirmed"), Some(8), 48, ItemState::Occupied),
            (there("other", 7, "confirmed"), Some(6), 49, ItemState::Gone),
            (there("other", 7, "left"), Some(1), 0, ItemState::Gone),
            (there("other", 7, "alive"), None, 1, ItemState::Occupied),
            // A clock that is ahead is no silence.
            (there("other", 7, "alive"), Some(8), -1000, ItemState::Occupied),
        ] {
            assert_eq!(there.standing("us", seq, at(hours)), expected, "{there:?} {seq:?} {hours}");
        }
    }

    #[test]
    fn only_a_report_counts_as_one() {
        let text = |text: &str| AttributeValue::S(text.into());
        let whole: HashMap<String, AttributeValue> = HashMap::from([
            ("schema".into(), text("relaykey/report/v1")),
            ("host_id".into(), text("us")),
            ("seq".into(), AttributeValue::N("7".into())),
            ("outcome".into(), text("alive")),
            ("written".into(), text(&rfc3339(at(0)))),
        ]);
        assert_eq!(StoredItem::read(&PLACE, &whole).unwrap(), there("us", 7, "alive"));
        let mut broken: Vec<(&str, Option<AttributeValue>)> =
            ["schema", "host_id", "seq", "outcome", "written"].map(|name| (name, None)).into();
        broken.extend([
            ("schema", Some(text("hunter2"))),
            ("seq", Some(text("hunter2"))),
            ("seq", Some(AttributeValue::N("1.5".into()))),
            ("written", Some(text("hunter2"))),
            ("host_id", Some(AttributeValue::Bool(true))),
        ]);
        for (name, value) in broken {
            let mut item = whole.clone();
            match value {
                Some(value) => item.insert(name.into(), value),
                None => item.remove(name),
            };
            let e = StoredItem::read(&PLACE, &item).unwrap_err();
            assert_eq!((e.class.word(), e.temporary), ("occupied", false), "{name}");
            assert!(!format!("{e:?}").contains("hunter2") && e.what.contains("(ses, mx1.example.com)"), "{e:?}");
        }
    }

    #[test]
    fn the_other_installation_is_named_and_what_to_do() {
        let e = occupied(&PLACE, &there("other", 7, "alive"), "us");
        assert_eq!((e.class.word(), e.temporary), ("occupied", false));
        assert!(
            e.what.contains("host_id other there, last heard of 2027-01-15T08:00:00Z (alive); us here"),
            "{}",
            e.what
        );
        assert!(
            e.fix.contains("[host]") && e.fix.contains("after 2027-01-17T08:00:00Z the item is taken over"),
            "{}",
            e.fix
        );
        let place = ItemKey { values: ["ses", "it's"], ..PLACE };
        assert!(
            place.delete().ends_with(r#"--key '{"credential":{"S":"ses"},"host":{"S":"it'\''s"}}'"#),
            "{}",
            place.delete()
        );
    }

    #[test]
    fn what_cannot_be_a_key_or_an_item_is_said_without_asking() {
        assert!(named("mx1.example.com").is_ok() && named(&"x".repeat(1024)).is_ok());
        for host in ["", &"x".repeat(1025)] {
            let e = named(host).unwrap_err();
            assert!(e.class == Class::Configuration && e.fix.contains("[host]"), "{e:?}");
        }
        let e = too_large(&"x".repeat(MOST + 1), &report(1));
        assert!(e.class == Class::TooLarge && e.what.contains(&(MOST + 1).to_string()), "{e:?}");
    }

    #[test]
    fn what_aws_says_is_explained() {
        let call = Call {
            action: "dynamodb:UpdateItem",
            about: PLACE.item(),
            arn: "arn:aws:dynamodb:eu-west-1:*:table/relaykey".into(),
            region: "eu-west-1",
            role_arn: None,
        };
        for (code, message, class, temporary, fix) in [
            ("ProvisionedThroughputExceededException", "", "throttled", true, "PAY_PER_REQUEST"),
            ("ReplicatedWriteConflictException", "", "service", true, "what else writes"),
            ("ResourceNotFoundException", "Requested resource not found", "configuration", false, "create-table"),
            (
                "ValidationException",
                "The provided key element does not match the schema",
                "configuration",
                false,
                "partition key is `credential`",
            ),
            (
                "ValidationException",
                "One or more parameter values were invalid: Type mismatch for key host expected: N actual: S",
                "configuration",
                false,
                "AttributeName=host,KeyType=RANGE",
            ),
        ] {
            let e = special(ServiceError { code, message, ..ServiceError::default() }, &call, &PLACE).expect(code);
            assert_eq!((e.class.word(), e.temporary), (class, temporary), "{code}");
            assert!(e.fix.contains(fix) && e.what.contains(code), "{code}: {e:?}");
        }
        for code in ["AccessDeniedException", "ThrottlingException", "RequestLimitExceeded", "ValidationException"] {
            let answer = ServiceError { code, message: "not authorized", ..ServiceError::default() };
            assert!(special(answer, &call, &PLACE).is_none(), "{code}");
        }
    }
}
