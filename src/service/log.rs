//! What the daemon tells the log, one function per kind of event, each with a `MESSAGE_ID` that `systemd/relaykey.catalog`
//! explains (`journalctl -x`). Under systemd the facts go to the journal as fields of their own (`RELAYKEY_CREDENTIAL=`, …);
//! elsewhere they stand in the line, on standard error:
//!
//! ```text
//! 2026-11-20T22:00:00Z info ses: confirmed version 7 (AKIA…, before AKIA…) after 1.204 s, woken by timer
//! ```
//!
//! Only events of this crate pass. The AWS SDK, hyper and rustls use the same `tracing`, and what they log is not ours to
//! vouch for: requests with their bodies, headers with their signatures.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use relaykey_core::audit::StepKind;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use super::stderr_is_the_journal;
use crate::fault::Failure;
use crate::text::line_of;
use crate::text::{Repeats, Tell};

/// The longest value that is logged, in characters. Texts of SES and of children are cut shorter before they get here.
const MAX_VALUE: usize = 4096;
/// Ours, and the root of every target that passes.
const TARGET: &str = "relaykey";

/// Sends the program's log lines to the journal where standard error is the journal's, else as text to standard error.
/// `RELAYKEY_LOG=debug` shows every wake and every look too; `warn` and `error` show less. To be called once, by `run`.
///
/// Commands for people do not call it: they print what they have to say.
pub fn init_log() {
    let level = match std::env::var("RELAYKEY_LOG").as_deref() {
        Ok("debug") => LevelFilter::DEBUG,
        Ok("warn") => LevelFilter::WARN,
        Ok("error") => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    // A second call changes nothing.
    let _ = match stderr_is_the_journal().then(journal).and_then(Result::ok) {
        Some(journal) => tracing::subscriber::set_global_default(ours_alone(journal, level)),
        None => tracing::subscriber::set_global_default(ours_alone(PlainLines { write: to_stderr }, level)),
    };
}

/// Nothing but this crate's events gets through to `layer`, and none below `level`.
fn ours_alone<L: Layer<Registry> + Send + Sync>(layer: L, level: LevelFilter) -> impl Subscriber + Send + Sync {
    // The outer filters are global: what they hold back is not even made.
    Registry::default().with(layer).with(level).with(filter_fn(is_ours))
}

/// `relaykey` or `relaykey::…`: not `relaykeys`.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().strip_prefix(TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The journal's native protocol. Fails where there is no journal.
fn journal() -> std::io::Result<tracing_journald::Layer> {
    let layer = tracing_journald::layer()?
        .with_field_prefix(None)
        .with_syslog_identifier(TARGET.to_owned())
        .with_priority_mappings(PriorityMappings {
            error: Priority::Error,
            warn: Priority::Warning,
            info: Priority::Informational,
            debug: Priority::Debug,
            trace: Priority::Debug,
        });
    Ok(layer)
}

/// Plain lines.
struct PlainLines<W> {
    write: W,
}

fn to_stderr(line: &str) {
    // A reader that has gone away must not end a rollover half-way.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

impl<S, W> Layer<S> for PlainLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&str) + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = PlainMessage::default();
        event.record(&mut message);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        (self.write)(&format!("{:.0} {level} {}\n", jiff::Timestamp::now(), message.0));
    }
}

/// What of an event stands in a plain line: the message holds every fact that the fields hold.
#[derive(Default)]
struct PlainMessage(String);

impl Visit for PlainMessage {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = line_of(format!("{value:?}").trim_end(), MAX_VALUE).into_owned();
        }
    }
}

/// Each event's `MESSAGE_ID`: 128 random bits that are never used for anything else, and never change.
pub mod id {
    pub const STARTED: &str = "1398af8d550c4a9589fed196eb3a7f26";
    pub const STOPPING: &str = "219f17fd812440e9be7c9601d05629a9";
    pub const CONFIG_RELOADED: &str = "3ee657265c81414797f638cfd71a7c14";
    pub const CONFIG_REFUSED: &str = "451d063c687441d7927ebe6d2adb04dd";
    pub const ROLLOVER: &str = "286783dff7e4438d98b9609d524b787f";
    pub const HEALED: &str = "71e4f5093d914e279e3b2ef7326aa386";
    pub const DRIFT: &str = "b08c88bde68a434e9bc3ad76df3d3b55";
    pub const FAILURE: &str = "16ee0f436eaa40bcb7308db0ad1bc7d1";
    pub const RECOVERED: &str = "d7b738a9000e4c4483d4428779a616bc";
    pub const SUPERSEDED: &str = "3c1e8f5b0a9d4a2f8e64d7b1c05f9a37";
    pub const ALARM: &str = "09a7861e28ef4944a5469b7b38cf85a5";
    pub const WOKEN: &str = "36eb6addd69547ac8148efb15dd1ec1c";
    pub const STEP: &str = "f9ea2501204047db8045129206867541";
    pub const REPORT: &str = "9bc9fecaa19b414098cb85f757717cfc";
    pub const TROUBLE: &str = "6272c63916fb4cb2ac756d694a84db15";
    pub const WAITS: &str = "6e5824c78e1e4415a855359d8b2dede9";
    pub const REJECTED: &str = "68c080fc5051424e91a3521bcd7945b4";
    pub const LISTENING: &str = "4b0aaa53e60448239893f67142ea05f0";

    /// All of them.
    pub const ALL: [&str; 18] = [
        STARTED,
        STOPPING,
        CONFIG_RELOADED,
        CONFIG_REFUSED,
        ROLLOVER,
        HEALED,
        DRIFT,
        FAILURE,
        RECOVERED,
        SUPERSEDED,
        ALARM,
        WOKEN,
        STEP,
        REPORT,
        TROUBLE,
        LISTENING,
        WAITS,
        REJECTED,
    ];
}

/// One event: level, MESSAGE_ID, further fields, then the message. Values are cut to one line without control characters,
/// so that no text from outside looks like a line of ours, and `journalctl` shows it as text.
macro_rules! tell {
    ($level:ident, $id:expr, { $($name:ident = $value:expr),* $(,)? }, $($message:tt)+) => {{
        let message = format!($($message)+);
        tracing::event!(
            target: TARGET,
            Level::$level,
            MESSAGE_ID = $id,
            $($name = $value,)*
            "{}",
            line_of(message.trim_end(), MAX_VALUE)
        )
    }};
}

/// What a duration is in `RELAYKEY_DURATION_USEC`.
fn microseconds(took: Duration) -> u64 {
    took.as_micros().try_into().unwrap_or(u64::MAX)
}

/// What a line is about: it comes first, for `journalctl -u relaykey` shows all credentials.
fn about(credential: &str, target: Option<&str>) -> String {
    target.map_or_else(|| format!("{credential}: "), |target| format!("{credential}: target {target}: "))
}

/// The daemon has begun: its version, the configuration in force, and the credentials in it.
pub fn started(version: &str, config: &str, credentials: &[&str]) {
    tell!(INFO, id::STARTED, { RELAYKEY_AGENT = version, RELAYKEY_CONFIG = config },
        "{version} watches {} by {config}", listed(credentials));
}

/// The daemon ends, and why: `SIGTERM`, `SIGINT`.
pub fn stopping(why: &str) {
    let left_out = TOLD.lock().unwrap_or_else(PoisonError::into_inner).rest();
    if left_out > 0 {
        tell_trouble(Matter::Note, &format!("{left_out} more notices and troubles like those above were left out"), "");
    }
    tell!(INFO, id::STOPPING, { RELAYKEY_CAUSE = why }, "stopping on {why}, after the step under way");
}

/// The configuration was read again and is in force.
pub fn config_reloaded(config: &str, credentials: &[&str]) {
    tell!(
        INFO,
        id::CONFIG_RELOADED,
        { RELAYKEY_CONFIG = config },
        "{config} was read again: watching {}",
        listed(credentials)
    );
}

/// A changed configuration was refused; `mistakes` are pairs of what is wrong, with file and line, and its fix. The old one
/// stays in force.
pub fn config_refused<'a>(config: &str, mistakes: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut words = String::new();
    for (what, fix) in mistakes {
        let gap = if words.is_empty() { "" } else { "; " };
        let _ = write!(words, "{gap}{what}{}", and_fix(fix));
    }
    tell!(
        ERROR,
        id::CONFIG_REFUSED,
        { RELAYKEY_CONFIG = config },
        "{config} was refused, the old one stays in force: {words}"
    );
}

/// The daemon listens there: an address or a path, and what for.
pub fn listening(place: &str, what: &str) {
    tell!(INFO, id::LISTENING, { RELAYKEY_ADDRESS = place }, "{what} at {place}");
}

/// A rollover or an adoption that is complete.
#[derive(Debug, Clone, Copy)]
pub struct Rollover<'a> {
    pub credential: &'a str,
    pub version: &'a str,
    /// The access key id: public.
    pub username: &'a str,
    pub previous_username: Option<&'a str>,
    /// `adopted` or `confirmed`.
    pub outcome: &'a str,
    /// What woke the agent: `timer`, `signal`, `operator`, …
    pub cause: &'a str,
    /// From the wake to the commit.
    pub took: Duration,
}

/// A rollover or an adoption is complete.
pub fn rollover(r: &Rollover<'_>) {
    let before = r.previous_username.map(|u| format!(", before {u}")).unwrap_or_default();
    tell!(INFO, id::ROLLOVER, {
            RELAYKEY_CREDENTIAL = r.credential,
            RELAYKEY_VERSION = r.version,
            RELAYKEY_USERNAME = r.username,
            RELAYKEY_PREVIOUS_USERNAME = r.previous_username,
            RELAYKEY_OUTCOME = r.outcome,
            RELAYKEY_CAUSE = r.cause,
            RELAYKEY_DURATION_USEC = microseconds(r.took),
        },
        "{}: {} version {} ({}{before}) after {:.3} s, woken by {}",
        r.credential, r.outcome, r.version, r.username, r.took.as_secs_f64(), r.cause);
}

/// Somebody had changed our entries, and they were put back.
pub fn healed(credential: &str, target: &str, version: &str) {
    tell!(WARN, id::HEALED, {
            RELAYKEY_CREDENTIAL = credential, RELAYKEY_TARGET = target, RELAYKEY_VERSION = version
        },
        "{credential}: target {target}: our entries had been changed, version {version} was put back");
}

/// Somebody changed our entries, and they stay as they are.
pub fn drift(credential: &str, target: &str, what: &str, fix: &str) {
    tell!(WARN, id::DRIFT, { RELAYKEY_CREDENTIAL = credential, RELAYKEY_TARGET = target, RELAYKEY_FIX = fix },
        "{credential}: target {target}: {what}{}", and_fix(fix));
}

/// Something that did not work.
#[derive(Debug, Clone, Copy)]
pub struct FailureLine<'a> {
    pub credential: &'a str,
    /// `None`: it is the source's.
    pub target: Option<&'a str>,
    /// The candidate, where there is one.
    pub version: Option<&'a str>,
    /// One that may pass by itself is a warning, else an error.
    pub failure: &'a Failure,
    /// When it is tried again, RFC 3339.
    pub next: Option<&'a str>,
}

/// Something did not work: why, what to do, and when it is tried again.
pub fn failure(f: &FailureLine<'_>) {
    let (about, fix) = (about(f.credential, f.target), and_fix(&f.failure.fix));
    let next = f.next.map(|at| format!(" (again at {at})")).unwrap_or_default();
    macro_rules! at_level {
        ($level:ident) => {
            tell!($level, id::FAILURE, {
                RELAYKEY_CREDENTIAL = f.credential,
                RELAYKEY_TARGET = f.target,
                RELAYKEY_VERSION = f.version,
                RELAYKEY_ERROR_CLASS = f.failure.class.word(),
                RELAYKEY_FIX = f.failure.fix.as_str(),
            }, "{about}{}{fix}{next}", f.failure.what)
        };
    }
    if f.failure.temporary { at_level!(WARN) } else { at_level!(ERROR) }
}

/// What had failed works again.
pub fn recovered(credential: &str, target: Option<&str>, class: &str) {
    tell!(INFO, id::RECOVERED, {
            RELAYKEY_CREDENTIAL = credential, RELAYKEY_TARGET = target, RELAYKEY_ERROR_CLASS = class
        },
        "{}works again after: {class}", about(credential, target));
}

/// What had failed is over, because its version is: another one has taken its place. `version` is empty where the source
/// named none.
pub fn superseded(credential: &str, target: Option<&str>, class: &str, version: &str, by: Option<&str>) {
    let by = by.map(|by| format!(" by version {by}")).unwrap_or_default();
    let what = if version.is_empty() { "what the source held".to_owned() } else { format!("version {version}") };
    tell!(INFO, id::SUPERSEDED, {
            RELAYKEY_CREDENTIAL = credential, RELAYKEY_TARGET = target, RELAYKEY_ERROR_CLASS = class,
            RELAYKEY_VERSION = version
        },
        "{}no longer matters: {class}: {what} was replaced{by}", about(credential, target));
}

/// The mail log said something about our endpoint. `class`: `refused` (535, looked into at once), `temporary` (454),
/// `policy` (554, the login is good and the message was refused).
///
/// `since`: how many more there were since the one before that was told.
pub fn alarm(credential: &str, class: &str, line: &str, since: Tell) {
    tell!(WARN, id::ALARM, { RELAYKEY_CREDENTIAL = credential, RELAYKEY_ERROR_CLASS = class },
        "{credential}: mail log, {class}: {line}{}", since.words());
}

/// Something woke the agent: cause, and what exactly where that is known. At debug level.
pub fn woken(credential: &str, cause: &str, detail: Option<&str>) {
    let detail = detail.map(|d| format!(": {d}")).unwrap_or_default();
    tell!(DEBUG, id::WOKEN, { RELAYKEY_CREDENTIAL = credential, RELAYKEY_CAUSE = cause }, "{credential}: woken by {cause}{detail}");
}

/// A step has ended. Looking is at debug level, what proves or changes something at info level.
pub fn step(credential: &str, target: Option<&str>, step: StepKind, ok: bool, took: Duration) {
    let outcome = if ok { "done" } else { "failed" };
    macro_rules! at_level {
        ($level:ident) => {
            tell!($level, id::STEP, {
                RELAYKEY_CREDENTIAL = credential,
                RELAYKEY_TARGET = target,
                RELAYKEY_STEP = step.word(),
                RELAYKEY_OUTCOME = outcome,
                RELAYKEY_DURATION_USEC = microseconds(took),
            }, "{}{step} {outcome} after {:.3} s", about(credential, target), took.as_secs_f64())
        };
    }
    match step {
        StepKind::Inspect
        | StepKind::Fetch
        | StepKind::Preview
        | StepKind::Refrain
        | StepKind::Wait
        | StepKind::End => at_level!(DEBUG),
        _ => at_level!(INFO),
    }
}

/// Reports went out, or did not: `trouble` is why, and the fix.
pub fn report(credential: &str, receiver: &str, count: usize, trouble: Option<(&str, &str)>) {
    match trouble {
        None => tell!(INFO, id::REPORT, {
                RELAYKEY_CREDENTIAL = credential, RELAYKEY_RECEIVER = receiver, RELAYKEY_OUTCOME = "delivered"
            }, "{credential}: {count} report(s) delivered to {receiver}"),
        Some((what, fix)) => tell!(WARN, id::REPORT, {
                RELAYKEY_CREDENTIAL = credential,
                RELAYKEY_RECEIVER = receiver,
                RELAYKEY_OUTCOME = "failed",
                RELAYKEY_FIX = fix,
            }, "{credential}: {count} report(s) owed to {receiver}: {what}{}", and_fix(fix)),
    }
}

/// A verified version waits for a person: to approve it, or to change a target by hand.
pub fn waits(credential: &str, version: &str, what: &str, fix: &str) {
    tell!(WARN, id::WAITS, { RELAYKEY_CREDENTIAL = credential, RELAYKEY_VERSION = version, RELAYKEY_FIX = fix },
        "{credential}: {what}{}", and_fix(fix));
}

/// A person rejected a version.
pub fn rejected(credential: &str, version: &str, by: &str, reason: &str) {
    tell!(WARN, id::REJECTED, { RELAYKEY_CREDENTIAL = credential, RELAYKEY_VERSION = version, RELAYKEY_BY = by },
        "{credential}: version {version} was rejected by {by}: {reason}");
}

/// How much something matters that is no rollover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matter {
    /// It does not work, and somebody has to do something.
    Error,
    /// Something works less well than it should.
    Warning,
    /// It is good to know.
    Note,
}

/// The same trouble has its line once in this time.
const TROUBLE_TOLD: Duration = Duration::from_secs(600);

static TOLD: Mutex<Repeats> = Mutex::new(Repeats::new(TROUBLE_TOLD));

/// Something beside the rollovers: about the daemon itself, such as an address it cannot listen at, what it watches, or the
/// mail log. It goes on without. What repeats is told now and again, with how often it came.
pub fn trouble(matter: Matter, what: &str, fix: &str) {
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner).happened(what, since_begun());
    if let Some(told) = told {
        tell_trouble(matter, &format!("{what}{}", told.words()), fix);
    }
}

fn tell_trouble(matter: Matter, what: &str, fix: &str) {
    macro_rules! at_level {
        ($level:ident) => {
            tell!($level, id::TROUBLE, { RELAYKEY_FIX = fix }, "{what}{}", and_fix(fix))
        };
    }
    match matter {
        Matter::Error => at_level!(ERROR),
        Matter::Warning => at_level!(WARN),
        Matter::Note => at_level!(INFO),
    }
}

fn since_begun() -> Duration {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed()
}

fn and_fix(fix: &str) -> String {
    if fix.is_empty() { String::new() } else { format!("; to do: {fix}") }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;

    use super::*;
    use crate::fault::{Class, Fault};

    const TOOK: Duration = Duration::from_micros(1_204_017);

    /// The plain lines of what `tell` logs, without their times, which are checked.
    fn lines(level: LevelFilter, tell: impl FnOnce()) -> Vec<String> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keeper = Arc::clone(&kept);
        let layer = PlainLines { write: move |line: &str| keeper.lock().unwrap().push(line.to_owned()) };
        let before = jiff::Timestamp::now().as_second();
        tracing::subscriber::with_default(ours_alone(layer, level), tell);
        let after = jiff::Timestamp::now().as_second();
        let kept = kept.lock().unwrap();
        let without_time = |line: &String| {
            let (at, rest) = line.split_once(' ').unwrap();
            assert_eq!(at.len(), "2026-11-20T22:00:00Z".len(), "{line}");
            assert!((before..=after).contains(&at.parse::<jiff::Timestamp>().unwrap().as_second()), "{line}");
            rest.strip_suffix('\n').unwrap().to_owned()
        };
        kept.iter().map(without_time).collect()
    }

    /// Keeps the fields of each event, and its level.
    struct Fields(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Fields {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            struct All(BTreeMap<String, String>);
            impl Visit for All {
                fn record_str(&mut self, field: &Field, value: &str) {
                    self.0.insert(field.name().to_owned(), value.to_owned());
                }
                fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                    self.0.insert(field.name().to_owned(), format!("{value:?}"));
                }
            }
            let mut all = All(BTreeMap::from([("level".to_owned(), event.metadata().level().to_string())]));
            event.record(&mut all);
            self.0.lock().unwrap().push(all.0);
        }
    }

    fn fields(tell: impl FnOnce()) -> Vec<BTreeMap<String, String>> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let layer = Fields(Arc::clone(&kept));
        tracing::subscriber::with_default(ours_alone(layer, LevelFilter::TRACE), tell);
        let kept = kept.lock().unwrap();
        kept.clone()
    }

    fn confirmed() -> Rollover<'static> {
        Rollover {
            credential: "ses",
            version: "7",
            username: "AKIANEW",
            previous_username: Some("AKIAOLD"),
            outcome: "confirmed",
            cause: "timer",
            took: TOOK,
        }
    }

    fn refused() -> Failure {
        Fault::new(
            Class::Refused,
            "localhost said: 535 Authentication Credentials Invalid",
            "publish a version that holds a valid login",
        )
        .at(Timestamp::UNIX_EPOCH)
    }

    fn line(failure: &Failure) -> FailureLine<'_> {
        let (target, version, next) = (Some("postfix"), Some("8"), Some("2026-11-20T22:15:00Z"));
        FailureLine { credential: "ses", target, version, failure, next }
    }

    /// Every function, once.
    fn everything() {
        started("relaykey/0.1.0", "/etc/relaykey/config.toml", &["ses", "backup"]);
        stopping("SIGTERM");
        config_reloaded("/etc/relaykey/config.toml", &["ses"]);
        config_refused(
            "/etc/relaykey/config.toml",
            [("config.toml:3: error: a", "do b"), ("config.toml:9: error: c", "")],
        );
        listening("127.0.0.1:9465", "health endpoints");
        rollover(&confirmed());
        rollover(&Rollover { outcome: "adopted", previous_username: None, ..confirmed() });
        healed("ses", "postfix", "7");
        drift("ses", "postfix", "another login stands under our key", "find out what wrote it");
        failure(&line(&refused()));
        let unreached = Failure { class: Class::Network, temporary: true, ..refused() };
        failure(&FailureLine { target: None, version: None, next: None, ..line(&unreached) });
        recovered("ses", None, "network");
        superseded("ses", Some("postfix"), "refused", "7", Some("8"));
        alarm("ses", "refused", "SASL authentication failed", Tell { left_out: 2, others: 0 });
        woken("ses", "file-watch", Some("/run/ses"));
        step("ses", Some("postfix"), StepKind::Swap, true, TOOK);
        step("ses", None, StepKind::Fetch, false, TOOK);
        report("ses", "fleet", 1, None);
        report("ses", "fleet", 2, Some(("AccessDenied", "allow ssm:PutParameter")));
        waits("ses", "8", "version 8 waits for approval", "relaykey approve ses --version 8");
        rejected("ses", "8", "alice", "not today");
        tell_trouble(Matter::Error, "cannot listen at 127.0.0.1:9465: in use", "choose another port");
        tell_trouble(Matter::Warning, "the mail log cannot be read", "let us read it");
        tell_trouble(Matter::Note, "4096 bytes of the mail log were passed over", "");
    }

    #[test]
    fn plain_lines_hold_every_fact() {
        let expected = [
            "info relaykey/0.1.0 watches ses, backup by /etc/relaykey/config.toml",
            "info stopping on SIGTERM, after the step under way",
            "info /etc/relaykey/config.toml was read again: watching ses",
            "error /etc/relaykey/config.toml was refused, the old one stays in force: config.toml:3: error: a; to do: do b; \
             config.toml:9: error: c",
            "info health endpoints at 127.0.0.1:9465",
            "info ses: confirmed version 7 (AKIANEW, before AKIAOLD) after 1.204 s, woken by timer",
            "info ses: adopted version 7 (AKIANEW) after 1.204 s, woken by timer",
            "warning ses: target postfix: our entries had been changed, version 7 was put back",
            "warning ses: target postfix: another login stands under our key; to do: find out what wrote it",
            "error ses: target postfix: localhost said: 535 Authentication Credentials Invalid; to do: publish a version \
             that holds a valid login (again at 2026-11-20T22:15:00Z)",
            "warning ses: localhost said: 535 Authentication Credentials Invalid; to do: publish a version that holds a \
             valid login",
            "info ses: works again after: network",
            "info ses: target postfix: no longer matters: refused: version 7 was replaced by version 8",
            "warning ses: mail log, refused: SASL authentication failed (and 2 more like it since it was last told)",
            "debug ses: woken by file-watch: /run/ses",
            "info ses: target postfix: swap done after 1.204 s",
            "debug ses: fetch failed after 1.204 s",
            "info ses: 1 report(s) delivered to fleet",
            "warning ses: 2 report(s) owed to fleet: AccessDenied; to do: allow ssm:PutParameter",
            "warning ses: version 8 waits for approval; to do: relaykey approve ses --version 8",
            "warning ses: version 8 was rejected by alice: not today",
            "error cannot listen at 127.0.0.1:9465: in use; to do: choose another port",
            "warning the mail log cannot be read; to do: let us read it",
            "info 4096 bytes of the mail log were passed over",
        ];
        assert_eq!(lines(LevelFilter::DEBUG, everything), expected);
        let quiet: Vec<_> = expected.into_iter().filter(|l| !l.starts_with("debug")).collect();
        assert_eq!(lines(LevelFilter::INFO, everything), quiet);
    }

    #[test]
    fn the_journals_fields_hold_them_too() {
        let expect = |level: &str, pairs: &[(&str, &str)]| {
            pairs.iter().chain(&[("level", level)]).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let mut seen = fields(|| {
            rollover(&confirmed());
            failure(&line(&refused()));
            step("ses", Some("postfix"), StepKind::Swap, true, TOOK);
        });
        for event in &mut seen {
            assert!(event.remove("message").is_some());
        }
        let expected: [BTreeMap<String, String>; 3] = [
            expect(
                "INFO",
                &[
                    ("MESSAGE_ID", id::ROLLOVER),
                    ("RELAYKEY_CREDENTIAL", "ses"),
                    ("RELAYKEY_VERSION", "7"),
                    ("RELAYKEY_USERNAME", "AKIANEW"),
                    ("RELAYKEY_PREVIOUS_USERNAME", "AKIAOLD"),
                    ("RELAYKEY_OUTCOME", "confirmed"),
                    ("RELAYKEY_CAUSE", "timer"),
                    ("RELAYKEY_DURATION_USEC", "1204017"),
                ],
            ),
            expect(
                "ERROR",
                &[
                    ("MESSAGE_ID", id::FAILURE),
                    ("RELAYKEY_CREDENTIAL", "ses"),
                    ("RELAYKEY_TARGET", "postfix"),
                    ("RELAYKEY_VERSION", "8"),
                    ("RELAYKEY_ERROR_CLASS", "refused"),
                    ("RELAYKEY_FIX", "publish a version that holds a valid login"),
                ],
            ),
            expect(
                "INFO",
                &[
                    ("MESSAGE_ID", id::STEP),
                    ("RELAYKEY_CREDENTIAL", "ses"),
                    ("RELAYKEY_TARGET", "postfix"),
                    ("RELAYKEY_STEP", "swap"),
                    ("RELAYKEY_OUTCOME", "done"),
                    ("RELAYKEY_DURATION_USEC", "1204017"),
                ],
            ),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_others_log_goes_nowhere() {
        let secret = "wJalrXUtnFEMI/K7MDENG";
        let others = || {
            tracing::error!(target: "aws_smithy_runtime::client", "sent {secret}");
            tracing::warn!(target: "hyper::proto", header = secret, "authorization");
            tracing::info!(target: "lettre::transport", "AUTH PLAIN {secret}");
            tracing::debug!(target: "rustls", "{secret}");
            tracing::trace!(target: "relaykeys", "{secret}");
            tracing::error!(target: "relaykey-rotate", "{secret}");
            let span = tracing::error_span!(target: "aws_sdk_ssm", "get_parameter", value = secret);
            let _inside = span.enter();
            tell_trouble(Matter::Error, "one of ours", "");
        };
        assert_eq!(lines(LevelFilter::TRACE, others), ["error one of ours"]);
        assert_eq!(fields(others).len(), 1);
        let ours = || tracing::info!(target: "relaykey::agent", "passes");
        assert_eq!(lines(LevelFilter::TRACE, ours), ["info passes"]);
    }

    #[test]
    fn what_repeats_has_a_line_now_and_again() {
        let told = lines(LevelFilter::INFO, || {
            for n in 0..154 {
                trouble(Matter::Note, &format!("{} bytes of a flooded log were passed over", 1000 + 17 * n), "");
            }
            stopping("SIGTERM");
        });
        let [first, rest, _] = told.as_slice() else { panic!("{} lines: {told:#?}", told.len()) };
        assert_eq!(first, "info 1000 bytes of a flooded log were passed over");
        assert_eq!(rest, "info 153 more notices and troubles like those above were left out");
    }

    #[test]
    fn no_text_from_outside_makes_a_line_of_its_own() {
        let line = "535 no\n2026-11-20T22:00:00Z info ses: confirmed version 9";
        let told = lines(LevelFilter::INFO, || alarm("ses", "refused", line, Tell { left_out: 0, others: 0 }));
        assert_eq!(
            told,
            ["warning ses: mail log, refused: 535 no\\n2026-11-20T22:00:00Z info ses: confirmed version 9"]
        );
    }

    #[test]
    fn every_message_id_is_in_the_catalogue_and_has_an_event() {
        let catalogue = include_str!("../../systemd/relaykey.catalog");
        let explained: Vec<&str> = catalogue.lines().filter_map(|l| l.strip_prefix("-- ")).collect();
        let ids: BTreeSet<&str> = id::ALL.into_iter().collect();
        assert_eq!(explained.iter().copied().collect::<BTreeSet<_>>(), ids);
        assert_eq!(explained.len(), ids.len(), "one is explained twice");
        assert_eq!(ids.len(), id::ALL.len(), "one is used twice");
        assert!(ids.iter().all(|id| id.len() == 32 && id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))));
        let events = fields(everything);
        let told: BTreeSet<&str> = events.iter().map(|e| e["MESSAGE_ID"].as_str()).collect();
        assert_eq!(told, ids);
        // What an entry quotes, every event of its kind has, or journalctl shows the name of the field.
        for entry in catalogue.split("\n-- ").skip(1) {
            let id = &entry[..32];
            for field in entry.split('@').skip(1).step_by(2) {
                for event in events.iter().filter(|e| e["MESSAGE_ID"] == id) {
                    assert!(event.contains_key(field), "{id} quotes {field}");
                }
            }
        }
    }
}
