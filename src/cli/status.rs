//! `relaykey status`: what the daemon says, else what state files say, for people and for programs.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::{Exit, choose, complain, load, print_json, runtime, say, tell};
use crate::agent;
use crate::config::{self, Config};
use crate::control::{self, ControlClient, ControlError, ControlRequest};
use crate::state::{Access, StateError, Store};
use crate::status::Status;

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Names of credentials; all if none is given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

pub fn run(path: &Path, json: bool, args: &StatusArgs) -> Exit {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let _within = runtime.enter();
    let now = Timestamp::now();
    let config = match config::load(path) {
        Ok(_) => load(path, json),
        // The daemon goes on with the configuration before it, and says what it refused.
        Err(_) => match control::connect(&config::run_dir(path)).and_then(|client| client.map(ask).transpose()) {
            Ok(Some(status)) => {
                differences(&status, path).iter().for_each(|warning| tell(warning));
                return show(status, args, json, now, Exit::Done);
            }
            _ => load(path, json),
        },
    };
    let config = match config {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let asked = control::connect(&config.host.run_dir).and_then(|client| client.map(ask).transpose());
    let (status, exit) = match asked {
        Ok(Some(status)) => {
            differences(&status, path).iter().for_each(|warning| tell(warning));
            (Ok(status), Exit::Done)
        }
        Ok(None) => (at_rest(&config, now), Exit::Done),
        // Half of the facts are better than none, and the exit code tells that it is half.
        Err(e) => {
            complain(&e.to_string(), &e.fix());
            (at_rest(&config, now), if e.is_temporary() { Exit::ForNow } else { Exit::ForGood })
        }
    };
    let status = match status {
        Ok(status) => status,
        Err(e) => {
            complain(&e.to_string(), &e.fix());
            return Exit::ForGood;
        }
    };
    show(status, args, json, now, exit)
}

/// Shows what was asked for, and gives the exit: `exit`, unless something was asked for that is not there.
fn show(mut status: Status, args: &StatusArgs, json: bool, now: Timestamp, exit: Exit) -> Exit {
    match choose(&status.credentials, &args.names, |c| &c.name) {
        Ok(chosen) => status.credentials = chosen.into_iter().cloned().collect(),
        Err(exit) => return exit,
    }
    if json {
        print_json(&status);
    } else {
        say(status.text(now).trim_end());
    }
    exit
}

/// What the daemon says.
pub fn ask(client: ControlClient) -> Result<Status, ControlError> {
    control::understood(client.call(&ControlRequest::Status, None, |_| {})?)
}

/// What state files say.
fn at_rest(config: &Config, now: Timestamp) -> Result<Status, StateError> {
    let store = Store::open(&config.host.state_dir, Access::Read, Duration::ZERO)?;
    let states = config.credentials.iter().map(|c| store.load(&c.name)).collect::<Result<Vec<_>, _>>()?;
    let clone_of = store.identity(config.host.name.as_deref(), agent::host_name)?.clone_of;
    Ok(Status::at_rest(config, &states, now).of_clone(clone_of))
}

/// Where the daemon goes by something else than what this command was told: lines for standard error.
pub fn differences(status: &Status, path: &Path) -> Vec<String> {
    let Some(daemon) = &status.daemon else { return Vec::new() };
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut all = Vec::new();
    if real(Path::new(&daemon.config)) != real(path) {
        all.push(format!(
            "relaykey: the daemon (process {}) runs with {}, not with {}: what it says and does goes by that one",
            daemon.pid,
            daemon.config,
            path.display()
        ));
    }
    all
}
