//! The service manager (systemd): readiness, reloads, the watchdog, the line under `systemctl status`; and where log lines
//! go. Outside a service manager everything here does nothing, except that log lines go to standard error as text.
//!
//! The protocol is `sd_notify(3)`: datagrams to the socket that `$NOTIFY_SOCKET` names. The variables stay in this
//! process's environment; children are started without any (`host::run` clears it), so none can speak for us.

pub mod log;

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
        let line = crate::text::line_of(line.trim_end(), MAX_STATUS);
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

#[cfg(test)]
mod tests {
    #![expect(clippy::print_stdout, reason = "the child of a test tells its parent")]

    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixDatagram;

    use std::process::Command;

    use super::*;

    /// What [`other_process`] is to do; absent in an ordinary run.
    const ROLE: &str = "RELAYKEY_TEST_ROLE";

    /// This test program again, as [`other_process`] in `role`. Who starts it gives it its environment, as a service
    /// manager does; a process cannot change its own without unsafe code. `$$` in a value stands for its process id.
    fn in_role(role: &str, env: &[(&str, &str)]) -> (String, String) {
        let exports: String = env.iter().map(|(name, value)| format!("export {name}=\"{value}\"; ")).collect();
        let out = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("{exports}exec \"$0\" \"$@\""))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "service::tests::other_process", "--nocapture", "--test-threads=1"])
            .env_clear()
            .env(ROLE, role)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
        assert!(out.status.success(), "{role}: {stdout}{stderr}");
        assert!(stdout.contains("1 passed"), "{role} was not played: {stdout}");
        (stdout, stderr)
    }

    /// No test by itself: the part of the tests below that needs an environment of its own.
    #[test]
    fn other_process() {
        let Ok(role) = std::env::var(ROLE) else { return };
        let notifier = Notifier::default();
        match role.as_str() {
            "protocol" => {
                assert!(notifier.is_managed());
                notifier.status("looking");
                notifier.ready();
                notifier.status("ses up to date");
                notifier.status("ses up to date");
                notifier.status("ses: failed\nMAINPID=1\u{7}\n");
                notifier.reloading();
                notifier.ready();
                notifier.watchdog();
                notifier.extend_timeout(Duration::from_secs(7));
                notifier.stopping();
            }
            "alone" => {
                assert!(!notifier.is_managed());
                notifier.ready();
                notifier.status("nobody listens");
                notifier.reloading();
                notifier.watchdog();
                notifier.stopping();
            }
            "watchdog" => println!("interval={:?}", watchdog_interval()),
            "children" => {
                let said = crate::host::run(&["/usr/bin/env"], None, Duration::from_secs(10)).unwrap();
                println!("child={}", String::from_utf8_lossy(&said.stdout).replace('\n', " "));
            }
            "log" => {
                init_log();
                init_log();
                log::started("relaykey/0.1.0", "/etc/relaykey/config.toml", &["ses"]);
                log::woken("ses", "timer", None);
                tracing::error!(target: "aws_sdk", "secret of another crate");
            }
            other => panic!("no role {other}"),
        }
    }

    #[test]
    fn the_manager_is_told_in_its_own_words() {
        let scratch = tempfile::Builder::new().prefix("relaykey-service-").tempdir().unwrap();
        let path = scratch.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        in_role("protocol", &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        manager.set_nonblocking(true).unwrap();
        let mut messages = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(n) = manager.recv(&mut buffer) {
            messages.push(String::from_utf8(buffer[..n].to_vec()).unwrap());
        }
        let reloading = messages[4].clone();
        messages[4] = reloading.lines().next().unwrap().to_owned();
        assert_eq!(
            messages,
            [
                "STATUS=looking\n",
                "READY=1\n",
                "STATUS=ses up to date\n", // once
                "STATUS=ses: failed\\nMAINPID=1\\u{7}\n",
                "RELOADING=1",
                "READY=1\n",
                "WATCHDOG=1\n",
                "EXTEND_TIMEOUT_USEC=7000000\n",
                "STOPPING=1\n",
            ]
        );
        let stamp: u64 = reloading.lines().nth(1).unwrap().strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = u64::try_from(now.tv_sec).unwrap() * 1_000_000;
        assert!((now.saturating_sub(60_000_000)..=now + 1_000_000).contains(&stamp), "{stamp} at {now}");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let (_, stderr) = in_role("alone", &[]);
        assert_eq!(stderr, "");
    }

    #[test]
    fn the_watchdog_is_fed_twice_per_limit_and_only_when_it_is_ours() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[], "None"),
            (&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "$$")], "Some(30s)"),
            (&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "1")], "None"),
            (&[("WATCHDOG_USEC", "0"), ("WATCHDOG_PID", "$$")], "None"),
            (&[("WATCHDOG_USEC", "soon"), ("WATCHDOG_PID", "$$")], "None"),
        ];
        for (env, interval) in cases {
            let (stdout, _) = in_role("watchdog", env);
            assert!(stdout.contains(&format!("interval={interval}\n")), "{env:?}: {stdout}");
        }
    }

    /// A `postfix reload` that could speak for us would keep a stuck loop alive, or take sockets that are not its own.
    #[test]
    fn children_inherit_nothing_of_the_managers_protocol() {
        let given = [
            ("NOTIFY_SOCKET", "/nowhere"),
            ("WATCHDOG_USEC", "1"),
            ("WATCHDOG_PID", "$$"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_PID", "$$"),
            ("LISTEN_FDNAMES", "health"),
            ("JOURNAL_STREAM", "1:2"),
            ("INVOCATION_ID", "0"),
            ("AWS_SECRET_ACCESS_KEY", "of-the-service"),
        ];
        let (stdout, _) = in_role("children", &given);
        let child = stdout.lines().find_map(|l| l.split_once("child=")).unwrap().1;
        assert!(child.contains("PATH="), "{child}");
        for (name, _) in given {
            assert!(!child.contains(name), "{child}");
        }
    }

    #[test]
    fn off_the_journal_lines_go_to_standard_error() {
        let told = "info relaykey/0.1.0 watches ses by /etc/relaykey/config.toml\n";
        let woken = "debug ses: woken by timer\n";
        let cases: [(&[(&str, &str)], &[&str]); 4] = [
            (&[], &[told]),
            // Redirected since: standard error is a pipe of this test.
            (&[("JOURNAL_STREAM", "8:4711")], &[told]),
            (&[("RELAYKEY_LOG", "debug")], &[told, woken]),
            (&[("RELAYKEY_LOG", "error")], &[]),
        ];
        for (env, expected) in cases {
            let (_, stderr) = in_role("log", env);
            let lines: Vec<&str> = stderr.split_inclusive('\n').map(|l| l.split_once(' ').unwrap().1).collect();
            assert_eq!(lines, expected, "{env:?}");
        }
    }

    #[test]
    fn a_stream_is_the_journals_only_when_both_numbers_agree() {
        let found = std::fs::metadata("/dev/null").map(|m| (m.dev(), m.ino())).unwrap();
        let (dev, ino) = found;
        let cases = [
            (format!("{dev}:{ino}"), true),
            (format!("{dev}:{}", ino + 1), false),
            (format!("{}:{ino}", dev + 1), false),
            (format!("{dev}"), false),
            (format!("{dev}:{ino}:"), false),
            (String::new(), false),
        ];
        for (stream, same) in cases {
            assert_eq!(same_file(&stream, Some(found)), same, "{stream}");
        }
        assert!(!same_file("", None) && !same_file("x:y", None));
    }
}
