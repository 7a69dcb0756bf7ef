//! What wakes the daemon: the clock, an operator, a signal, a file that changed, a refusal in the mail log.
//!
//! Words: a [`Cause`] is one reason to look at a credential. A [`Mailbox`] is where causes for one credential meet; what
//! arrives while a run is under way becomes one next run, which knows every distinct cause. [`Watch`] tells when files
//! changed, by the directories that hold them; [`alarm`] reads the mail log. [`next_poll`] says when the clock wakes,
//! [`wait`] waits for it. Nothing here wakes up by itself: an idle daemon sleeps until the kernel has something to say.

pub mod alarm;
pub mod log;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use sha2::{Digest, Sha256};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

pub use self::alarm::Alarm;
pub use self::watch::{Growth, Watch, WatchError};

/// So many distinct causes are kept for one run; a flood beyond that adds nothing to "look now".
const MAX_CAUSES: usize = 32;

/// Why a credential is looked at. Sorted: the most telling first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A person asked, through the control socket.
    Operator,
    /// SIGHUP.
    Signal,
    /// The mail log has a line that calls for a look.
    LogAlarm(Alarm),
    /// Somebody changed this file: a source, a table, the configuration.
    FileWatch(PathBuf),
    /// The daemon started.
    Start,
    /// Something that had failed is due again.
    Retry,
    /// The time for a poll has come.
    Timer,
}

impl Cause {
    /// The word in audit records, status and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Cause::Operator => "operator",
            Cause::Signal => "signal",
            Cause::LogAlarm(_) => "log-alarm",
            Cause::FileWatch(_) => "file-watch",
            Cause::Start => "start",
            Cause::Retry => "retry",
            Cause::Timer => "timer",
        }
    }

    /// Does the mail log say that the login in use is refused?
    pub fn is_refusal(&self) -> bool {
        matches!(self, Cause::LogAlarm(alarm) if alarm.kind == alarm::AlarmKind::Refused)
    }

    /// What woke it, in words, where there is more to say: the file that changed, the line of the mail log.
    pub fn detail(&self) -> Option<String> {
        match self {
            Cause::LogAlarm(alarm) => Some(alarm.to_string()),
            // A file name may hold anything but `/` and NUL, and this goes to logs.
            Cause::FileWatch(path) => Some(crate::text::line(&path.to_string_lossy()).into_owned()),
            _ => None,
        }
    }

    /// Adds what is not said yet, and puts the most telling first.
    pub fn add(causes: &mut Vec<Cause>, more: Vec<Cause>) {
        for cause in more {
            if !causes.iter().any(|have| have.same(&cause)) {
                causes.push(cause);
            }
        }
        causes.sort_by_key(Cause::rank);
    }

    fn rank(&self) -> u8 {
        match self {
            Cause::Operator => 0,
            Cause::Signal => 1,
            Cause::LogAlarm(_) => 2,
            Cause::FileWatch(_) => 3,
            Cause::Start => 4,
            Cause::Retry => 5,
            Cause::Timer => 6,
        }
    }

    /// Do both say the same? Alarms of one kind at one endpoint do, whatever words each came with.
    fn same(&self, other: &Cause) -> bool {
        match (self, other) {
            (Cause::LogAlarm(a), Cause::LogAlarm(b)) => a.kind == b.kind && a.endpoint == b.endpoint,
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self.detail() {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

/// Where the causes for one credential meet. A clone is another handle on the same mailbox; any thread may post.
#[derive(Debug, Clone, Default)]
pub struct Mailbox(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    causes: Mutex<Vec<Cause>>,
    arrived: Notify,
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a cause, and wakes whoever waits in [`Mailbox::recv`]. Never blocks for longer than it takes to copy a few
    /// words, and takes no more memory however often it is called.
    pub fn post(&self, cause: Cause) {
        let mut causes = self.0.causes.lock().unwrap_or_else(PoisonError::into_inner);
        if causes.iter().any(|have| have.same(&cause)) {
            return;
        }
        // Few kinds come without words of their own, so that there is always room for those.
        let has_words = matches!(cause, Cause::LogAlarm(_) | Cause::FileWatch(_));
        if has_words && causes.len() >= MAX_CAUSES {
            return;
        }
        causes.push(cause);
        drop(causes);
        self.0.arrived.notify_one();
    }

    /// Waits until there is a cause, and takes all there are: at least one, no two that say the same, the most telling
    /// first. Nothing is lost when the wait is given up. One task receives.
    pub async fn recv(&self) -> Vec<Cause> {
        loop {
            let causes = self.take();
            if !causes.is_empty() {
                return causes;
            }
            self.0.arrived.notified().await;
        }
    }

    /// What is there now, without waiting: as [`Mailbox::recv`], but possibly nothing.
    pub fn take(&self) -> Vec<Cause> {
        let mut causes = std::mem::take(&mut *self.0.causes.lock().unwrap_or_else(PoisonError::into_inner));
        causes.sort_by_key(Cause::rank);
        causes
    }
}

/// When to poll next, given that the source was asked just before `now`.
///
/// Each host and credential has a fixed place within the poll interval, by a hash of both, so that thousands of hosts
/// are spread evenly however they came to be started: after a common reboot or a fleet-wide upgrade the second look is
/// spread already. `jitter` is a random number in [0, 1) and moves the place by at most a tenth of `poll` to either side,
/// so that two hosts that happen to share one do not meet forever. On average there is one poll in `poll`; never is one
/// closer than half of it to the one before, nor further away than one and a half.
///
/// The first look, at the start, is not spread: whether a host still sends with a good credential is wanted at once, and
/// the service manager waits for it. A source that throttles a fleet that starts in one second is temporary trouble, and
/// the back-off's full jitter spreads those that were throttled.
pub fn next_poll(now: Timestamp, poll: Duration, host_id: &str, credential: &str, jitter: f64) -> Timestamp {
    let poll = i128::try_from(poll.as_nanos()).unwrap_or(i128::MAX).clamp(1_000_000_000, 1 << 62);
    let hash = Sha256::new().chain_update(host_id).chain_update([0]).chain_update(credential).finalize();
    let hash: u64 = hash.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte));
    let place = (i128::from(hash) * poll) >> 64;
    let now = now.as_nanosecond();
    // The first occurrence of the place that is at least half an interval away; it is less than one and a half away.
    let earliest = now + poll / 2;
    let due = earliest + (place - earliest).rem_euclid(poll);
    let share = if jitter.is_finite() { jitter.clamp(0.0, 1.0) * 2.0 - 1.0 } else { 0.0 };
    let moved = (poll as f64 / 10.0 * share) as i128;
    // Mirrored at the ends and not cut off there, where those that were cut off would meet.
    let moved = (due + moved - earliest).abs();
    let due = earliest + moved.min(2 * poll - moved);
    Timestamp::from_nanosecond(due).unwrap_or(Timestamp::MAX)
}

/// The time from `now` to `then` that [`wait`] takes; zero when it has passed.
pub fn until(then: Timestamp, now: Timestamp) -> Duration {
    let left: SignedDuration = then.duration_since(now);
    Duration::try_from(left).unwrap_or(Duration::ZERO)
}

/// The time since the machine was started, time asleep included: what waits and alarms are timed by.
pub fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Waits so long by the clock that goes on while the host sleeps (CLOCK_BOOTTIME): a wait that ran out during sleep ends
/// when the host is awake again. The kernel does the waiting; nothing wakes up in between.
///
/// # Panics
/// Outside of a tokio run time with I/O and time enabled.
pub async fn wait(left: Duration) {
    if left.is_zero() {
        return;
    }
    let due = boot_time().saturating_add(left);
    if let Ok(timer) = timer(left) {
        // Ready means expired: nothing else makes such a timer readable.
        if timer.readable().await.is_ok() {
            return;
        }
    }
    // No timer of the kernel's, for instance because there are no file descriptors left. The run time's own clock stands
    // still while the host sleeps: asked again after a short part of the wait.
    loop {
        let left = due.saturating_sub(boot_time());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(5))).await;
    }
}

/// A timer that becomes readable when the time is over (timerfd_create(2)).
fn timer(left: Duration) -> std::io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let value = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        },
    };
    timerfd_settime(&fd, TimerfdTimerFlags::empty(), &value)?;
    #[allow(
        deprecated,
        reason = "its successor is `unsafe` for types whose descriptor may change or close; OwnedFd's cannot"
    )]
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Comes back when `stop` becomes true. That nobody can say so any more is no reason to stop.
pub async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
