//! A table of Amazon DynamoDB. Layout 2: partition key `principal`, which IAM vouches for, sort key `CREDENTIAL#HOST_ID`. Layout 1,
//! of 0.1.0: `credential` and `host`, which anybody may write who may write at all.
//!
//! What is the control side's stands in partitions that begin with `!`, which no host's policy lets it write.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::builders::PutBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, KeyType, Put, TransactWriteItem, WriteRequest};
use futures_util::future::join_all;
use jiff::Timestamp;
use relaykey_core::fault::{Class, Fault};
use relaykey_core::report::place::{self, TableLayout};
use relaykey_core::text;
use tokio::sync::OnceCell;

use super::{EntryWrite, Kept, Known, Read, Row, json, ours, report};
use crate::audit::AuditLine;
use crate::aws::{AwsCall, CallFailed, FailKind, Reach, incomplete};
use crate::evidence::Written;
use crate::facts::HostName;

/// A scan is made in so many parts at once.
const SEGMENTS: i32 = 4;
/// Of any answer that makes sense.
const PAGES: usize = 10_000;
/// Items of one BatchWriteItem, and of one TransactWriteItems.
const BATCH: usize = 25;
const TRANSACTION: usize = 100;

/// Items that are asked for at first. How many fit on a page is known by their size afterwards.
const LIMIT: i32 = 128;
/// So much of them at once, as it comes over the wire: half of what is taken of any answer.
const PAGE: usize = 512 * 1024;

type Item = HashMap<String, AttributeValue>;
/// What is asked for of a page.
struct AskedPage {
    limit: i32,
    from: Option<Item>,
    /// Nothing but the keys of its items.
    bare: bool,
}

/// And where the next page begins.
type Page = (Vec<Item>, Option<Item>);

#[derive(Debug, Clone)]
struct Layout {
    partition: String,
    sort: String,
    /// Layout 2.
    by_principal: bool,
}

pub struct ReportsTable {
    reach: Reach,
    table: String,
    credential: String,
    layout: OnceCell<Layout>,
}

impl ReportsTable {
    pub fn new(reach: Reach, table: &str, credential: &str) -> Self {
        Self { reach, table: table.to_owned(), credential: credential.to_owned(), layout: OnceCell::new() }
    }

    fn asked(&self, action: &'static str) -> AwsCall {
        AwsCall {
            action,
            about: format!("table {:?}", self.table),
            arn: format!("arn:aws:dynamodb:*:*:table/{}", self.table),
        }
    }

    /// Which keys the table has; asked once.
    async fn layout(&self) -> Result<&Layout, CallFailed> {
        self.layout.get_or_try_init(|| self.described()).await
    }

    async fn described(&self) -> Result<Layout, CallFailed> {
        let described = self
            .reach
            .send(self.asked("dynamodb:DescribeTable"), |config| {
                Client::new(&config).describe_table().table_name(&self.table).send()
            })
            .await?;
        let schema = described.table.and_then(|table| table.key_schema).unwrap_or_default();
        let name = |kind: KeyType| schema.iter().find(|key| key.key_type == kind).map(|key| key.attribute_name.clone());
        let keys = name(KeyType::Hash).zip(name(KeyType::Range));
        match keys.and_then(|(partition, sort)| Some((TableLayout::of(&partition, &sort)?, partition, sort))) {
            Some((layout, partition, sort)) => {
                Ok(Layout { partition, sort, by_principal: layout == TableLayout::ByPrincipal })
            }
            None => {
                let what = format!("table {:?} has other keys than hosts write", self.table);
                let fix = "make it as docs/rotation.md says: partition key `principal`, sort key `credential#host_id`, both strings";
                Err(CallFailed {
                    kind: FailKind::Refused,
                    fault: Box::new(Fault::new(Class::Configuration, what, fix)),
                })
            }
        }
    }

    fn key(layout: &Layout, partition: &str, sort: &str) -> Item {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        HashMap::from([(layout.partition.clone(), text(partition)), (layout.sort.clone(), text(sort))])
    }

    fn own(&self, kind: &str) -> String {
        place::own_partition(kind, &self.credential)
    }

    pub async fn record(&self) -> Result<Option<Kept>, CallFailed> {
        let layout = self.layout().await?;
        let key = Self::key(layout, &self.own("control"), &self.credential);
        let answer = self
            .reach
            .send(self.asked("dynamodb:GetItem"), |config| {
                let request = Client::new(&config).get_item().table_name(&self.table).consistent_read(true);
                request.set_key(Some(key)).send()
            })
            .await?;
        let Some(item) = answer.item else {
            return Ok(None);
        };
        let text = text_of(&item, "record").ok_or_else(|| incomplete("the control record", "record"))?;
        ours(text, &format!("the control record in table {:?}", self.table)).map(Some)
    }

    pub async fn write(
        &self,
        before: Option<&Kept>,
        after: &Kept,
        line: Option<&AuditLine>,
        entry: Option<&EntryWrite>,
    ) -> Result<(), CallFailed> {
        let layout = self.layout().await?;
        let mut item = Self::key(layout, &self.own("control"), &self.credential);
        let number = |n: u64| AttributeValue::N(n.to_string());
        item.insert("fence".into(), number(after.record.fence));
        item.insert("rev".into(), number(after.rev));
        item.insert("record".into(), AttributeValue::S(json(after)));
        let put = Put::builder().table_name(&self.table).set_item(Some(item));
        let put = match before {
            None => put
                .condition_expression("attribute_not_exists(#partition)")
                .expression_attribute_names("#partition", &layout.partition),
            Some(before) => put
                .condition_expression("#fence = :fence AND #rev = :rev")
                .expression_attribute_names("#fence", "fence")
                .expression_attribute_names("#rev", "rev")
                .expression_attribute_values(":fence", number(before.record.fence))
                .expression_attribute_values(":rev", number(before.rev)),
        };
        let mut puts = vec![put];
        if let Some(line) = line {
            let mut item = Self::key(layout, &self.own("audit"), &format!("{:012}", line.seq));
            item.insert("line".into(), AttributeValue::S(json(line)));
            let put = Put::builder().table_name(&self.table).set_item(Some(item));
            let put = put.condition_expression("attribute_not_exists(#partition)");
            puts.push(put.expression_attribute_names("#partition", &layout.partition));
        }
        puts.extend(entry.map(|entry| self.put_entry(layout, entry)));
        let of_the_log = line.map(|_| 1);
        self.transaction(puts, of_the_log).await
    }

    /// All of them, or none. `of_the_log`: which of them is a line of the audit log.
    async fn transaction(&self, puts: Vec<PutBuilder>, of_the_log: Option<usize>) -> Result<(), CallFailed> {
        let mut items = Vec::new();
        for put in puts {
            let put = put.build().map_err(|_| incomplete(&self.table, "item"))?;
            items.push(TransactWriteItem::builder().put(put).build());
        }
        let why = Mutex::new(None);
        let send = async |config| {
            let sent = Client::new(&config).transact_write_items().set_transact_items(Some(items)).send().await;
            if let Err(error) = &sent
                && let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
            {
                let reasons = cancelled.cancellation_reasons().iter();
                let codes: Vec<&str> = reasons.map(|reason| reason.code().unwrap_or_default()).collect();
                *why.lock().unwrap_or_else(PoisonError::into_inner) = cancelled_by(&codes, of_the_log);
            }
            sent
        };
        let sent = self.reach.send(self.asked("dynamodb:TransactWriteItems"), send).await;
        let why = why.into_inner().unwrap_or_else(PoisonError::into_inner);
        sent.map(|_| ()).map_err(|failed| why.map_or(failed, |kind| self.cancelled(kind)))
    }

    /// A transaction that was cancelled, in words.
    fn cancelled(&self, kind: FailKind) -> CallFailed {
        let table = format!("table {:?}", self.table);
        let (class, what, fix) = match kind {
            FailKind::Throttled => (
                Class::Service,
                format!("{table} is throttled"),
                "nothing if it passes; else give the table more capacity",
            ),
            FailKind::LogAhead => (
                Class::ChangedMeanwhile,
                format!("the control record in {table} is older than the audit log beside it: it was put back"),
                "nothing: it goes on after the log's last line",
            ),
            _ => (
                Class::ChangedMeanwhile,
                format!("what was to be written in {table} was written by somebody else in between"),
                "nothing if it passes: everything is looked at anew; else find out what writes it",
            ),
        };
        CallFailed { kind, fault: Box::new(Fault::new(class, what, fix).temporary()) }
    }

    /// Over what was read, and nothing else.
    fn put_entry(&self, layout: &Layout, write: &EntryWrite) -> PutBuilder {
        let mut item = Self::key(layout, &self.own("registry"), &write.name);
        item.insert("entry".into(), AttributeValue::S(json(&write.after)));
        let put = Put::builder().table_name(&self.table).set_item(Some(item));
        match &write.before {
            None => put
                .condition_expression("attribute_not_exists(#partition)")
                .expression_attribute_names("#partition", &layout.partition),
            Some(before) => put
                .condition_expression("#entry = :before")
                .expression_attribute_names("#entry", "entry")
                .expression_attribute_values(":before", AttributeValue::S(before.clone())),
        }
    }

    /// All that hosts wrote, by consistent reads: an index could miss one.
    pub async fn read(&self) -> Result<Read, CallFailed> {
        let layout = self.layout().await?;
        let (hosts, entries) = tokio::join!(self.hosts(layout), self.partition(layout, self.own("registry")));
        let mut read = hosts?;
        for item in entries? {
            let entry = text_of(&item, "entry").ok_or_else(|| incomplete("the registry", "entry"))?;
            let name = text_of(&item, &layout.sort).unwrap_or_default().to_owned();
            let text = entry.to_owned();
            let entry = ours(entry, &format!("the entry of {name:?} in the registry in table {:?}", self.table))?;
            read.entries.insert(name, Known { entry, text });
        }
        Ok(read)
    }

    /// The credentials that hosts report about, as far as the first page tells.
    pub async fn credentials(&self) -> Result<BTreeSet<String>, CallFailed> {
        let layout = self.layout().await?;
        let page = self
            .reach
            .send(self.asked("dynamodb:Scan"), |config| {
                let request = Client::new(&config).scan().table_name(&self.table).limit(LIMIT * 8);
                let request = request.projection_expression("#partition, #sort");
                let request = request.expression_attribute_names("#partition", &layout.partition);
                request.expression_attribute_names("#sort", &layout.sort).send()
            })
            .await?;
        let of = |item: &Item| {
            let partition = text_of(item, &layout.partition).filter(|partition| !place::is_own_partition(partition))?;
            let name = match layout.by_principal {
                true => place::credential_of(text_of(item, &layout.sort)?)?,
                false => partition,
            };
            Some(text::plain(name, 255))
        };
        Ok(page.items.unwrap_or_default().iter().filter_map(of).collect())
    }

    /// The items of hosts, of this credential, each read as it comes: there may be many.
    async fn hosts(&self, layout: &Layout) -> Result<Read, CallFailed> {
        let mut all = Read::default();
        if !layout.by_principal {
            let of = |part| self.queried(layout, self.credential.clone(), part);
            self.pages(of, true, |item| self.host(layout, &item, &mut all)).await?;
            return Ok(all);
        }
        let segments = join_all((0..SEGMENTS).map(async |segment| {
            let mut part = Read::default();
            let of = |asked| self.scanned(layout, segment, asked);
            self.pages(of, true, |item| self.host(layout, &item, &mut part)).await.map(|()| part)
        }));
        for part in segments.await {
            let part = part?;
            all.rows.extend(part.rows);
            all.unreadable.extend(part.unreadable);
        }
        Ok(all)
    }

    /// What one item says.
    fn host(&self, layout: &Layout, item: &Item, read: &mut Read) {
        let (partition, sort) = (text_of(item, &layout.partition), text_of(item, &layout.sort));
        let (Some(partition), Some(sort)) = (partition, sort) else { return };
        if place::is_own_partition(partition) {
            return;
        }
        let understood = text_of(item, "report").and_then(report);
        // A host without a name could be waited for, and not removed.
        let named = |name: &str| !text::plain(name, 255).trim().is_empty();
        let understood = understood.filter(|report| report.credential == self.credential && named(&report.host));
        let Some(report) = understood else {
            let name = text_of(item, "host").filter(|name| named(name)).unwrap_or(sort);
            let at = text_of(item, "written").and_then(|at| at.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
            read.unreadable.push((HostName::new(text::plain(name, 255)), at));
            return;
        };
        let written = text_of(item, "written").unwrap_or(&report.at);
        let at: Timestamp = written.parse().unwrap_or(Timestamp::UNIX_EPOCH);
        let principal = if layout.by_principal { partition.to_owned() } else { report.host_id.clone() };
        let item = (partition.to_owned(), sort.to_owned());
        read.rows.push(Row { written: Written { principal, item: item.clone(), at, report }, item });
    }

    async fn scanned(&self, layout: &Layout, segment: i32, part: AskedPage) -> Result<Page, CallFailed> {
        let AskedPage { limit, from, bare } = part;
        let page = self
            .reach
            .send(self.asked("dynamodb:Scan"), |config| {
                let request = Client::new(&config).scan().table_name(&self.table).consistent_read(true).limit(limit);
                let request = request.segment(segment).total_segments(SEGMENTS).set_exclusive_start_key(from);
                let request = request.filter_expression("begins_with(#sort, :mine)");
                let request = request.expression_attribute_names("#sort", &layout.sort);
                let request = match bare {
                    true => request
                        .projection_expression("#partition, #sort")
                        .expression_attribute_names("#partition", &layout.partition),
                    false => request,
                };
                let mine = AttributeValue::S(place::sort_keys_begin(&self.credential));
                request.expression_attribute_values(":mine", mine).send()
            })
            .await?;
        Ok((page.items.unwrap_or_default(), page.last_evaluated_key))
    }

    async fn queried(&self, layout: &Layout, name: String, part: AskedPage) -> Result<Page, CallFailed> {
        let AskedPage { limit, from, bare } = part;
        let page = self
            .reach
            .send(self.asked("dynamodb:Query"), |config| {
                let request = Client::new(&config).query().table_name(&self.table).consistent_read(true).limit(limit);
                let request = request.key_condition_expression("#partition = :name");
                let request = request.expression_attribute_names("#partition", &layout.partition);
                let request = request.expression_attribute_values(":name", AttributeValue::S(name));
                let request = match bare {
                    true => request
                        .projection_expression("#partition, #sort")
                        .expression_attribute_names("#sort", &layout.sort),
                    false => request,
                };
                request.set_exclusive_start_key(from).send()
            })
            .await?;
        Ok((page.items.unwrap_or_default(), page.last_evaluated_key))
    }

    async fn partition(&self, layout: &Layout, name: String) -> Result<Vec<Item>, CallFailed> {
        let mut all = Vec::new();
        self.pages(|part| self.queried(layout, name.clone(), part), false, |item| all.push(item)).await?;
        Ok(all)
    }

    /// Every page to the last. No answer of more than a megabyte is taken, so that a page which holds large items is asked for in
    /// smaller parts, and as much of small ones at once as comes well below that. `bares`: an item that is too large by itself is
    /// known by its keys alone; else it is an error.
    async fn pages<F>(
        &self,
        page: impl Fn(AskedPage) -> F,
        bares: bool,
        mut each: impl FnMut(Item),
    ) -> Result<(), CallFailed>
    where
        F: Future<Output = Result<Page, CallFailed>>,
    {
        let (mut from, mut limit, mut bare) = (None::<Item>, LIMIT, false);
        for _ in 0..PAGES {
            let (items, next) = match page(AskedPage { limit, from: from.clone(), bare }).await {
                Err(failed)
                    if (limit > 1 || bares && !bare)
                        && failed.kind == FailKind::NoAnswer
                        && failed.fault.class == Class::Service =>
                {
                    (limit, bare) = ((limit / 8).max(1), limit == 1);
                    continue;
                }
                page => page?,
            };
            bare = false;
            if items.is_empty() {
                // They are others', and nothing of them comes over the wire.
                limit = limit.saturating_mul(8);
            } else {
                let each = items.iter().map(wire_size).sum::<usize>().div_ceil(items.len()).max(1);
                let fits = i32::try_from(PAGE / each).unwrap_or(i32::MAX);
                // Growing with care: those to come may be larger.
                limit = fits.clamp(1, limit.saturating_mul(8));
            }
            items.into_iter().for_each(&mut each);
            from = next.filter(|key| !key.is_empty());
            if from.is_none() {
                return Ok(());
            }
        }
        Err(incomplete(&self.table, "last page"))
    }

    pub async fn write_entries(&self, writes: &[EntryWrite]) -> Result<(), CallFailed> {
        let layout = self.layout().await?;
        for some in writes.chunks(TRANSACTION) {
            self.transaction(some.iter().map(|write| self.put_entry(layout, write)).collect(), None).await?;
        }
        Ok(())
    }

    pub async fn drop_items(&self, items: &[(String, String)]) -> Result<(), CallFailed> {
        let layout = self.layout().await?;
        let mut requests = Vec::new();
        for (partition, sort) in items {
            let delete = DeleteRequest::builder().set_key(Some(Self::key(layout, partition, sort))).build();
            let delete = delete.map_err(|_| incomplete(&self.table, "item"))?;
            requests.push(WriteRequest::builder().delete_request(delete).build());
        }
        self.batches(requests).await
    }

    /// What is not taken is written at the next look.
    async fn batches(&self, requests: Vec<WriteRequest>) -> Result<(), CallFailed> {
        for batch in requests.chunks(BATCH) {
            let batch = batch.to_vec();
            let send = |config| Client::new(&config).batch_write_item().request_items(&self.table, batch).send();
            self.reach.send(self.asked("dynamodb:BatchWriteItem"), send).await?;
        }
        Ok(())
    }

    pub async fn audit(&self) -> Result<Vec<AuditLine>, CallFailed> {
        let layout = self.layout().await?;
        let about = format!("the audit log in table {:?}", self.table);
        let lines = self.partition(layout, self.own("audit")).await?;
        let line = |item: &Item| ours(text_of(item, "line").unwrap_or_default(), &about);
        let mut lines: Vec<AuditLine> = lines.iter().map(line).collect::<Result<_, _>>()?;
        lines.sort_by_key(|line| line.seq);
        Ok(lines)
    }
}

/// Why a transaction was cancelled, by what each of its items came to. What is throttled says nothing about the others.
fn cancelled_by(codes: &[&str], of_the_log: Option<usize>) -> Option<FailKind> {
    let failed: Vec<usize> = (0..codes.len()).filter(|n| !matches!(codes[*n], "" | "None")).collect();
    let throttled = |n: &usize| matches!(codes[*n], "ThrottlingError" | "ProvisionedThroughputExceeded");
    match failed.as_slice() {
        [] => None,
        all if all.iter().all(throttled) => Some(FailKind::Throttled),
        [line] if Some(*line) == of_the_log && codes[*line] == "ConditionalCheckFailed" => Some(FailKind::LogAhead),
        _ => Some(FailKind::Conflict),
    }
}

/// What an item takes on the wire, as JSON: its texts, with what has to be escaped in them.
fn wire_size(item: &Item) -> usize {
    let text = |value: &AttributeValue| {
        let text = value.as_s().map(String::as_str).unwrap_or_default();
        text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\n')).count()
    };
    item.iter().map(|(name, value)| name.len() + text(value) + 16).sum()
}

fn text_of<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A throttled transaction was written by nobody; a line that is there already is no other controller.
    #[test]
    fn a_cancelled_transaction_is_told_by_its_reasons() {
        let (failed, none, slow) = ("ConditionalCheckFailed", "None", "ThrottlingError");
        for (codes, of_the_log, kind) in [
            (&[failed, none] as &[&str], Some(1), Some(FailKind::Conflict)),
            (&[failed, failed], Some(1), Some(FailKind::Conflict)),
            (&[none, failed, none], Some(1), Some(FailKind::LogAhead)),
            (&[none, failed], None, Some(FailKind::Conflict)),
            (&[none, slow], Some(1), Some(FailKind::Throttled)),
            (&[slow, failed], Some(1), Some(FailKind::Conflict)),
            (&[none, "TransactionConflict"], Some(1), Some(FailKind::Conflict)),
            (&[], Some(1), None),
        ] {
            assert_eq!(cancelled_by(codes, of_the_log), kind, "{codes:?}");
        }
    }
}
