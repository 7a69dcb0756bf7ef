//! The command line of `relaykey`: arguments, one file per command, text for people, `--json` for programs.

mod approve;
mod check;
mod confirm;
mod demo;
mod deregister;
mod derive;
mod history;
mod order;
mod reject;
mod run;
mod secret;
mod status;
mod sync;
mod verify_proof;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
pub use relaykey_core::exit::Exit;

use crate::config::{self, Config};
use crate::host;
use crate::instruction;

/// The usual configuration file.
const CONFIG: &str = "/etc/relaykey/config.toml";

/// Keeps the SMTP credential of a mail relay fresh: verified before it is written, proven after.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes (over several credentials the worst of 2, 1, 75, 3, 0):\n   0  done, nothing to do, or only reports \
                  owed\n   1  failed for good\n   2  usage or configuration\n   3  waits for a person\n  75  failed for \
                  now, or a reload is owed"
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Args)]
struct Common {
    /// The configuration file; without it, what RELAYKEY_CONFIG names, else /etc/relaykey/config.toml.
    // Not by clap's `env`: where the variable is set, every error of usage would name --config as something that is needed.
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Print facts as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// The daemon, in the foreground: keeps every credential fresh, until SIGTERM.
    Run,
    /// A rollover now, if there is anything new; waits for the end.
    Sync(sync::SyncArgs),
    /// Manual mode: the version that waits may go into use.
    Approve(approve::ApproveArgs),
    /// Manual mode: the version that waits is not to be taken.
    Reject(reject::RejectArgs),
    /// For a host that was changed by hand: reads back what the mail server uses, proves it with a login, reports it; writes
    /// nothing.
    Confirm(confirm::ConfirmArgs),
    /// This host leaves the fleet: reports `left`. The credential is kept fresh all the same.
    Deregister(deregister::DeregisterArgs),
    /// Per credential: applied version, when it was stored at the source, pending candidate, last error, what is owed.
    Status(status::StatusArgs),
    /// What was done here, when and by whom, from the audit log; --verify: is the log as it was written.
    History(history::HistoryArgs),
    /// Report on standard input, password at the terminal or a file descriptor: is its proof true; or a typed code.
    VerifyProof(verify_proof::VerifyProofArgs),
    /// Looks at configuration, permissions, mail-server settings, source and SMTP login; changes nothing.
    Check(check::CheckArgs),
    /// IAM secret access key on standard input, SES SMTP password on standard output.
    Derive(derive::DeriveArgs),
    /// The whole story on this machine, with an SES stand-in and nothing else installed.
    Demo(demo::DemoArgs),
}

/// Parses the arguments, runs the command, and gives its exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage.code().into() } else { ExitCode::SUCCESS };
        }
    };
    if let Err(e) = host::process_hardening() {
        complain(
            &format!("cannot keep secrets out of core dumps: {e}"),
            "run on Linux with procfs, as root or as the owner of the files",
        );
        return Exit::ForGood.code().into();
    }
    if let Err(e) = catch_signals() {
        complain(&format!("cannot catch a signal: {e}"), "see the limits of this user (ulimit -n)");
        return Exit::ForNow.code().into();
    }
    let Common { config, json } = cli.common;
    let config = config.or_else(|| std::env::var_os("RELAYKEY_CONFIG").map(PathBuf::from));
    let config = config.unwrap_or_else(|| CONFIG.into());
    instruction::goes_by(unusual(&config));
    let exit = match cli.command {
        CliCommand::Run => run::run(&config, json),
        CliCommand::Sync(args) => sync::run(&config, json, &args),
        CliCommand::Approve(args) => approve::run(&config, json, &args),
        CliCommand::Reject(args) => reject::run(&config, json, &args),
        CliCommand::Confirm(args) => confirm::run(&config, json, &args),
        CliCommand::Deregister(args) => deregister::run(&config, json, &args),
        CliCommand::Status(args) => status::run(&config, json, &args),
        CliCommand::History(args) => history::run(&config, json, &args),
        CliCommand::VerifyProof(args) => verify_proof::run(json, &args),
        CliCommand::Check(args) => check::run(&config, json, &args),
        CliCommand::Derive(args) => derive::run(json, &args),
        CliCommand::Demo(args) => demo::run(json, &args),
    };
    exit.code().into()
}

/// The configuration file as a command that we print names it, from whatever directory that is run; `None`: the usual one.
fn unusual(config: &Path) -> Option<String> {
    let at = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    (at != Path::new(CONFIG)).then(|| host::trust::quoted(&at))
}

/// A write beyond `ulimit -f` is an error (EFBIG) with its fix, as any other, instead of a signal that ends the program without a
/// word. And who started this with SIGCHLD ignored has no say in how its own children are waited for: ignored, none could be.
/// Both are caught, not ignored: programs that are started get them as ever. The handlers stay when this returns.
fn catch_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _within = runtime.enter();
    for kind in [SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()), SignalKind::child()] {
        drop(signal(kind)?);
    }
    Ok(())
}

/// Those of these names, in this order; all where none is named. One that is not there is an error that names those that are.
fn choose<'a, T>(all: &'a [T], names: &[String], name_of: impl Fn(&T) -> &str) -> Result<Vec<&'a T>, Exit> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |name: &String| {
        all.iter().find(|one| name_of(one) == name).ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(&name_of).collect();
            complain(
                &format!("the configuration has no credential {name:?}"),
                &format!("one of: {}", known.join(", ")),
            );
            Exit::Usage
        })
    };
    // Each once: orders about them are carried out side by side.
    let is_first = |(i, name): &(usize, &String)| !names[..*i].contains(name);
    names.iter().enumerate().filter(is_first).map(|(_, name)| find(name)).collect()
}

/// Prints an error with its fix.
fn complain(what: &str, fix: &str) {
    tell(&format!("relaykey: {what}"));
    if !fix.is_empty() {
        tell(&format!("  fix: {fix}"));
    }
}

/// One line on standard error, of what may be [shown](crate::text::lines); a reader that has gone away must not end a rollover half-way.
fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{}", crate::text::lines(text));
}

/// Loads the configuration; on mistakes prints every one of them.
fn load(path: &Path, json: bool) -> Result<Config, Exit> {
    let (config, findings) = load_with_remarks(path, json)?;
    if !findings.is_empty() && !json {
        tell(config::render(&findings, path).trim_end());
    }
    Ok(config)
}

/// As [`load`], for who shows warnings and notes by itself.
fn load_with_remarks(path: &Path, json: bool) -> Result<(Config, Vec<config::Finding>), Exit> {
    match config::load(path) {
        Ok(loaded) => Ok(loaded),
        Err(e) => {
            let exit = if e.may_pass() { Exit::ForNow } else { Exit::Usage };
            if json {
                print_json(&serde_json::json!({
                    "schema": "relaykey/config-errors/v1",
                    "config": path,
                    "findings": e.findings(),
                    "exit": exit.code(),
                }));
            }
            tell(config::render(&e.findings(), path).trim_end());
            Err(exit)
        }
    }
}

/// One JSON document on standard output.
fn print_json(document: &impl serde::Serialize) {
    let document = serde_json::to_string_pretty(document).expect("documents have only text keys");
    say(&crate::text::json(&document));
}

/// One line on standard output, of what may be [shown](crate::text::lines); a reader that has gone away is no error of ours.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{}", crate::text::lines(text));
}

/// The run time of one command: this thread, and threads for calls that block.
fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| {
        complain(&format!("cannot start the run time: {e}"), "see the limits of this user (ulimit -n, ulimit -u)");
        Exit::ForNow
    })
}
