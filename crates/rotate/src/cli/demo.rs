//! `relaykey-rotate demo`: a whole rotation on this machine, with nothing else installed and no account.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::{Exit, complain, lab, print_json_line, runtime, say, view};

#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Says that this is the second start, which has the demo's environment.
const STARTED: &str = "RELAYKEY_ROTATE_DEMO";

/// What would lead the SDK elsewhere.
const UNSET: [&str; 18] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
];

/// Credentials come from the environment, which a program cannot change of itself: it is started once more. Nobody's account is
/// asked, whatever the environment says.
pub fn start_anew() -> Result<(), Exit> {
    if std::env::var_os(STARTED).is_some() {
        return Ok(());
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => {
            complain(&format!("the demo does not find its own program: {e}"), "run it on Linux with procfs");
            return Err(Exit::ForGood);
        }
    };
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(STARTED, "1");
    for name in UNSET {
        command.env_remove(name);
    }
    command.env("AWS_ACCESS_KEY_ID", "AKIADEMO999999999999").env("AWS_SECRET_ACCESS_KEY", "demo");
    // Nor are the files of whoever runs it.
    command.env("HOME", "/nonexistent");
    let e = command.exec();
    complain(&format!("the demo cannot start its own program: {e}"), "run it from a file system that allows programs");
    Err(Exit::ForGood)
}

pub fn run(json: bool, _args: &DemoArgs) -> Exit {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let scratch = match Scratch::new() {
        Ok(scratch) => scratch,
        Err(e) => {
            complain(&format!("no directory for the demo: {e}"), "set TMPDIR to a directory that can be written");
            return Exit::ForNow;
        }
    };
    if !json {
        say(&lab(true, ""));
    }
    let mut tell = |line: &str| match json {
        true => {
            print_json_line(&serde_json::json!({"schema": view::SCHEMA, "lab": true, "event": "told", "words": line}))
        }
        false => say(line),
    };
    let shown = runtime.block_on(crate::demo::show(&scratch.0, &mut tell));
    let exit = match &shown {
        Ok(()) => Exit::Done,
        Err(what) => {
            complain(&format!("the demo failed: {what}"), "report this, with everything that was printed");
            Exit::ForGood
        }
    };
    if json {
        print_json_line(&serde_json::json!({"schema": view::SCHEMA, "lab": true, "event": "end", "exit": exit.code()}));
    }
    exit
}

/// A directory of the demo's own, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let name = format!("relaykey-rotate-demo-{:016x}", getrandom::u64()?);
        let path = std::env::temp_dir().canonicalize()?.join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
