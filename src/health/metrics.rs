//! The status document as numbers, by Prometheus' rules: base units, `_total`, `_seconds`, times as timestamps (an age
//! is for the query). Labels are words of the program and names of configured credentials, never what came from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use relaykey_core::report::StillHeld;

use crate::fault::Class;
use crate::rollover::Holds;
use crate::status::{Counters, CredentialStatus, Status};

/// Every reason not to be ready.
const CLASSES: [Class; 16] = [
    Class::AppliedRefused,
    Class::NotRunning,
    Class::NeverApplied,
    Class::SourceDown,
    Class::NoLook,
    Class::Pending,
    Class::PendingApproval,
    Class::ByHand,
    Class::Rejected,
    Class::Refused,
    Class::LeftBehind,
    Class::Failing,
    Class::ReloadOwed,
    Class::Drift,
    Class::Superseded,
    Class::ReportOwed,
];

/// The two ways in which Prometheus takes numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricsFormat {
    /// Version 0.0.4, which everything that scrapes can read.
    Text,
    /// What Prometheus asks for first.
    OpenMetrics,
}

impl MetricsFormat {
    /// OpenMetrics where the client names it, else text.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        match accepted.any(|kind| kind.split(';').next().is_some_and(|k| k.trim() == "application/openmetrics-text")) {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The numbers of one document.
pub(super) fn render(status: Arc<Status>, format: MetricsFormat) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers(status)));
    let mut out = String::new();
    match format {
        MetricsFormat::OpenMetrics => encode(&mut out, &registry),
        MetricsFormat::Text => encode_registry(&mut out, &registry),
    }
    .expect("a string takes everything");
    match format {
        MetricsFormat::OpenMetrics => out,
        MetricsFormat::Text => with_totals(&out),
    }
}

/// OpenMetrics describes a counter by its name without `_total`, the older text format by the name it has.
fn with_totals(open: &str) -> String {
    let mut text = String::with_capacity(open.len() + 256);
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        let described = line.strip_prefix("# HELP ").and_then(|d| d.split_once(' '));
        if let (Some((name, help)), Some(next)) = (described, lines.peek())
            && *next == format!("# TYPE {name} counter")
        {
            text.push_str(&format!("# HELP {name}_total {help}\n# TYPE {name}_total counter\n"));
            lines.next();
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

struct Numbers(Arc<Status>);

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

/// Labels of one sample, in order.
#[derive(Debug)]
struct Labels<'a>(&'a [(&'static str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.iter().try_for_each(|pair| pair.encode(encoder.encode_label()))
    }
}

/// Writes families: each with its help once, then its samples.
struct Families<'a, 'e> {
    status: &'a Status,
    encoder: DescriptorEncoder<'e>,
}

type Sample<'a> = (Vec<(&'static str, &'a str)>, f64);

impl<'a> Families<'a, '_> {
    /// A gauge with whatever samples there are; nothing is said of one that has none.
    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&Labels(&labels))?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    /// A gauge per credential; a credential of which it is not known has none.
    fn per_credential(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&CredentialStatus) -> Option<f64>,
    ) -> fmt::Result {
        let status = self.status;
        let known = status.credentials.iter().filter_map(|c| Some((vec![("credential", c.name.as_str())], value(c)?)));
        self.gauge(name, help, known)
    }

    /// A counter; nothing is said of one that has no samples.
    fn counter(&mut self, name: &str, help: &str, samples: Vec<(Vec<(&'static str, &str)>, u64)>) -> fmt::Result {
        if samples.is_empty() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, n) in samples {
            ConstCounter::new(n).encode(family.encode_family(&Labels(&labels))?)?;
        }
        Ok(())
    }

    /// A counter per credential and word. The words that there may be are there from the start, as 0.
    fn count(
        &mut self,
        (name, help): (&str, &str),
        label: &'static str,
        words: &[&'static str],
        count: impl Fn(&Counters) -> &BTreeMap<String, u64>,
    ) -> fmt::Result {
        let mut samples = Vec::new();
        for (c, live) in self.status.credentials.iter().filter_map(|c| Some((c, c.live.as_ref()?))) {
            let mut counts: BTreeMap<&str, u64> = words.iter().map(|w| (*w, 0)).collect();
            for (word, n) in count(&live.counters) {
                *counts.entry(if is_word(word) { word } else { "other" }).or_default() += n;
            }
            samples
                .extend(counts.into_iter().map(|(word, n)| (vec![("credential", c.name.as_str()), (label, word)], n)));
        }
        self.counter(name, help, samples)
    }
}

/// Looks like a word of the program.
fn is_word(word: &str) -> bool {
    (1..=40).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[expect(clippy::cast_precision_loss, reason = "seconds and small counts, far below 2^52")]
fn number(n: impl TryInto<i64>) -> f64 {
    n.try_into().unwrap_or(i64::MAX) as f64
}

fn seconds(at: Timestamp) -> f64 {
    number(at.as_second())
}

fn truth(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = &*self.0;
        let mut out = Families { status, encoder };
        out.gauge(
            "relaykey_build_info",
            "The program that answers; always 1.",
            [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        )?;
        let kind = |c: &'static [&'static str], source: &str| {
            c.iter().find(|k| source.split(' ').next() == Some(**k)).copied().unwrap_or("other")
        };
        out.gauge(
            "relaykey_credential_info",
            "A configured credential and the kind of its source; always 1.",
            status.credentials.iter().map(|c| {
                let source = kind(&["secrets-manager", "parameter-store", "file"], &c.source);
                (vec![("credential", c.name.as_str()), ("source", source)], 1.0)
            }),
        )?;
        out.per_credential(
            "relaykey_ready",
            "1 if the newest version is applied on this host and everybody knows.",
            |c| Some(truth(c.not_ready.is_empty())),
        )?;
        out.gauge(
            "relaykey_not_ready",
            "1 for each class of reason why the credential is not ready.",
            status.credentials.iter().flat_map(|c| {
                CLASSES.iter().map(|class| {
                    let is = c.not_ready.iter().any(|n| n.class == *class);
                    (vec![("credential", c.name.as_str()), ("class", class.word())], truth(is))
                })
            }),
        )?;
        out.per_credential(
            "relaykey_applied_timestamp_seconds",
            "When the applied version was put into use on this host.",
            |c| Some(seconds(c.applied.as_ref()?.since)),
        )?;
        out.per_credential(
            "relaykey_key_created_timestamp_seconds",
            "The same as relaykey_version_stored_timestamp_seconds, under the name of 0.1.0: not when the key was made.",
            |c| Some(seconds(status.at) - number(c.applied.as_ref()?.key_age_seconds)),
        )?;
        out.per_credential(
            "relaykey_version_stored_timestamp_seconds",
            "When the version in use was stored at the source; for a file, when it was applied. The key may be older.",
            |c| Some(seconds(status.at) - number(c.applied.as_ref()?.key_age_seconds)),
        )?;
        out.per_credential("relaykey_pending", "1 if a newer version is known and not yet applied.", |c| {
            Some(truth(c.pending.is_some()))
        })?;
        out.per_credential(
            "relaykey_pending_since_timestamp_seconds",
            "When the version that is not yet applied was first seen.",
            |c| Some(seconds(c.pending.as_ref()?.first_seen)),
        )?;
        let waits = status.credentials.iter().filter_map(|c| {
            let class = [Class::PendingApproval, Class::ByHand];
            let class = class.into_iter().find(|class| c.not_ready.iter().any(|n| n.class == *class))?;
            // What goes by itself in a window waits for nobody.
            let p = c.pending.as_ref().filter(|p| p.window.is_none() || class == Class::ByHand)?;
            Some((vec![("credential", c.name.as_str()), ("class", class.word())], seconds(p.waits_since?)))
        });
        out.gauge(
            "relaykey_waits_for_person_since_timestamp_seconds",
            "Since when a version waits for a person: to approve it, or to change the mail server's files.",
            waits,
        )?;
        out.per_credential(
            "relaykey_rejected_timestamp_seconds",
            "When a person rejected the version that the source has.",
            |c| Some(seconds(c.pending.as_ref()?.rejected.as_ref()?.at)),
        )?;
        out.per_credential(
            "relaykey_applied_refused",
            "1 if two logins of our own with the applied version were refused; nothing that the mail log alone tells.",
            |c| c.applied.as_ref().map(|_| truth(c.applied_refused.is_some())),
        )?;
        out.per_credential(
            "relaykey_in_use_is_applied",
            "1 if every target was found to use the applied version when it was last looked up.",
            |c| {
                let known = c.applied.is_some() && !c.in_use.is_empty();
                known.then(|| truth(c.in_use.iter().all(|found| found.holds == Holds::Applied)))
            },
        )?;
        let held = |c: &CredentialStatus, count: fn(&StillHeld) -> usize| {
            c.applied.as_ref().map(|_| number(c.held.iter().map(|held| count(&held.held)).sum::<usize>()))
        };
        out.per_credential(
            "relaykey_remaining_old_entries",
            "Entries of the login tables that still hold an earlier login, as last seen: the old key is not to be retired.",
            |c| held(c, StillHeld::remaining),
        )?;
        out.per_credential(
            "relaykey_other_access_keys",
            "Access keys other than the one in use that stand in the login tables, as last seen: none of them is to be retired.",
            |c| held(c, StillHeld::other_ids),
        )?;
        out.per_credential(
            "relaykey_unlisted_tables",
            "Login tables that could not be listed: which keys stand there is not known.",
            |c| held(c, StillHeld::unlisted),
        )?;
        out.per_credential(
            "relaykey_withdrawn_since_timestamp_seconds",
            "Since when the mail server holds something else than what this host had confirmed.",
            |c| c.withdrawn.map(seconds),
        )?;
        out.per_credential("relaykey_left_timestamp_seconds", "When this host left the fleet.", |c| {
            c.left.map(seconds)
        })?;
        out.per_credential("relaykey_reloads_owed", "Mail servers that were not told of the version in use.", |c| {
            Some(number(c.owed.len()))
        })?;
        out.per_credential("relaykey_reports_owed", "Reports that have not arrived yet.", |c| {
            Some(number(c.reports_owed.iter().map(|r| r.count).sum::<usize>()))
        })?;
        out.per_credential(
            "relaykey_report_owed_oldest_timestamp_seconds",
            "When the oldest report that has not arrived was made.",
            |c| c.reports_owed.iter().filter_map(|r| r.made().map(seconds)).reduce(f64::min),
        )?;
        out.per_credential(
            "relaykey_source_answer_timestamp_seconds",
            "When the source last gave an answer to this process.",
            |c| c.live.as_ref()?.answered.map(seconds),
        )?;
        out.per_credential("relaykey_last_wake_timestamp_seconds", "When the credential was last looked at.", |c| {
            Some(seconds(c.live.as_ref()?.woken.as_ref()?.at))
        })?;
        out.per_credential(
            "relaykey_next_wake_timestamp_seconds",
            "When the credential will be looked at again, unless something happens before.",
            |c| c.live.as_ref()?.next_wake.map(seconds),
        )?;
        out.count(
            ("relaykey_wakes", "Times that the credential was looked at, by what caused it."),
            "cause",
            &["start", "timer", "signal", "operator", "file-watch", "log-alarm", "retry"],
            |c| &c.wakes,
        )?;
        let asked = status
            .credentials
            .iter()
            .filter_map(|c| Some((vec![("credential", c.name.as_str())], c.live.as_ref()?.counters.source_requests)));
        out.counter("relaykey_source_requests", "Requests to the credential's source.", asked.collect())?;
        out.count(
            ("relaykey_logins", "Logins at the SMTP endpoint, by what became of them."),
            "result",
            &["accepted", "refused", "unknown"],
            |c| &c.logins,
        )?;
        out.count(
            ("relaykey_rollovers", "Versions that came into use, and drift that was healed."),
            "outcome",
            &["adopted", "confirmed", "healed"],
            |c| &c.rollovers,
        )?;
        out.count(("relaykey_step_failures", "Steps that failed, by class."), "class", &[], |c| &c.failures)?;
        out.count(
            ("relaykey_mail_log_alarms", "Lines of the mail log about our endpoint, by what they say."),
            "kind",
            &["refused", "no-login", "temporary", "policy", "no-mechanism"],
            |c| &c.alarms,
        )?;
        out.count(
            ("relaykey_reports", "Attempts to deliver a report, by what became of them."),
            "outcome",
            &["delivered", "failed"],
            |c| &c.reports,
        )?;
        if let Some(daemon) = &status.daemon {
            let plain = |value| [(Vec::new(), value)];
            out.gauge(
                "relaykey_config_refused",
                "1 if a changed configuration was refused and the one before it is in force.",
                plain(truth(daemon.config_refused.is_some())),
            )?;
            out.gauge(
                "relaykey_config_loaded_timestamp_seconds",
                "When the configuration in force was read.",
                plain(seconds(daemon.config_since)),
            )?;
            out.gauge("process_start_time_seconds", "When the process started.", plain(seconds(daemon.since)))?;
        }
        Ok(())
    }
}
