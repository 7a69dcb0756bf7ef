//! The service manager (systemd): readiness, reloads, the watchdog, the line under `systemctl status`; and where log lines
//! go. Outside a service manager everything here does nothing, except that log lines go to standard error as text.
//!
//! The protocol is `sd_notify(3)`: datagrams to the socket that `$NOTIFY_SOCKET` names. The variables stay in this
//! process's environment; children are started without any (`host::run` clears it), so none can speak for us.

pub mod log;

use std::borrow::Cow;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

pub use self::log::init_log;

/// The longest STATUS line that is sent, in characters: `systemctl status` shows one line.
const MAX_STATUS: usize = 400;

/// Speaks to the service manager that started this process, if one did.
#[derive(Debug, Default)]
pub struct Notifier {
    /// The line that was sent last: the same one again would wake the manager for nothing.
    line: Mutex<String>,
}

impl Notifier {
    /// Is there a service manager that listens?
    pub fn is_managed(&self) -> bool {
        std::env::var_os("NOTIFY_SOCKET").is_some_and(|s| !s.is_empty())
    }

    /// The service works: after the configuration was found good and the first look is done, and after each reload.
    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The one line that `systemctl status` shows. Sent only when it is another one than before.
    pub fn status(&self, line: &str) {
        let line = one_line(line, MAX_STATUS);
        let mut last = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != line {
            send(&[NotifyState::Status(&line)]);
            line.as_ref().clone_into(&mut last);
        }
    }

    /// The configuration is being read again. [`Notifier::ready`] ends it, also where it was refused.
    pub fn reloading(&self) {
        // The stamp tells the manager which of several reloads this is (`Type=notify-reload`, systemd 253 and later).
        match NotifyState::monotonic_usec_now() {
            Ok(stamp) => send(&[NotifyState::Reloading, stamp]),
            Err(_) => send(&[NotifyState::Reloading]),
        }
    }

    /// The service ends by itself once the step under way is done.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// Starting, reloading or stopping takes longer than the unit allows: the manager waits this much longer, from now.
    pub fn extend_timeout(&self, more: Duration) {
        let microseconds = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        send(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
    }

    /// The loop still turns. To be called by the loop itself, every [`watchdog_interval`].
    pub fn watchdog(&self) {
        send(&[NotifyState::Watchdog]);
    }
}

/// How often the service manager wants to hear of the loop: half the time after which it gives up on us. `None`: it
/// watches somebody else, or nobody.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|interval| !interval.is_zero())
}

/// A manager that does not listen is not our trouble: mail is.
fn send(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!(target: "relaykey", "the service manager could not be told: {e}");
    }
}

/// Is standard error the journal's stream, as `$JOURNAL_STREAM` says (systemd.exec(5))? It may have been redirected since.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    same_file(&stream, rustix::fs::fstat(io::stderr()).ok().map(|s| (s.st_dev, s.st_ino)))
}

/// `DEVICE:INODE`, both decimal, against what a descriptor is.
fn same_file(stream: &str, found: Option<(u64, u64)>) -> bool {
    let parsed = stream.split_once(':').and_then(|(dev, inode)| Some((dev.parse().ok()?, inode.parse().ok()?)));
    parsed.is_some() && parsed == found
}

/// One line of at most `max` characters, with control characters escaped: a line feed would begin a new assignment in the
/// manager's protocol, and a new line in a log.
fn one_line(text: &str, max: usize) -> Cow<'_, str> {
    let text = text.trim_end();
    if !text.contains(|c: char| c.is_control()) && text.chars().count() <= max {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if let Some((cut, _)) = line.char_indices().nth(max) {
        let room = line[..cut].char_indices().next_back().map_or(0, |(at, _)| at);
        line.truncate(room);
        line.push('…');
    }
    Cow::Owned(line)
}
