//! Tests in a process of their own, with AWS keys in its environment and nothing else: the SDK takes its keys from there.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set in the process that a test runs in.
const INSIDE: &str = "RELAYKEY_TEST_ISOLATED";
const SECRET: &str = "wJalrXUtnFEMI";
/// The access key id that is in the environment.
pub const KEY: &str = "AKIATESTISOLATED0000";
/// The longest a test may take, the start of its servers included.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the test of this name, which calls this, in this program started again.
pub fn isolated(name: &str, test: impl FnOnce()) {
    isolated_within(name, LIMIT.as_secs(), test);
}

/// The same with another limit, in seconds. It may be one that is run on demand alone.
pub fn isolated_within(name: &str, limit: u64, test: impl FnOnce()) {
    let limit = Duration::from_secs(limit);
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let output = tempfile::NamedTempFile::with_prefix("relaykey-isolated-").expect("a fresh file");
    let file = output.reopen().expect("a handle of its own");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env_clear()
        .env(INSIDE, "1")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .envs(std::env::vars().filter(|(name, _)| name.starts_with("RELAYKEY_BENCH_") || name == super::moto::FORKS))
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second handle"))
        .stderr(file)
        .spawn()
        .expect("this program starts again");
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = std::fs::read_to_string(output.path()).unwrap_or_default();
    let status = status.unwrap_or_else(|| panic!("{name} did not end within {limit:?}:\n{said}"));
    assert!(status.success() && said.contains("1 passed"), "{said}");
    assert!(!said.contains(SECRET), "a secret key in the output");
    // What it measured, for who asks (`--nocapture`).
    println!("{said}");
}
