//! `relaykey status`: what state files say, for people and for programs.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::{Exit, complain, load, print_json, say};
use crate::state::{Access, Store};
use crate::status::Status;

pub fn run(config: &Path, json: bool) -> Exit {
    let config = match load(config, json) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let states = Store::open(&config.host.state_dir, Access::Read, Duration::ZERO)
        .and_then(|store| config.credentials.iter().map(|c| store.load(&c.name)).collect::<Result<Vec<_>, _>>());
    let states = match states {
        Ok(states) => states,
        Err(e) => {
            complain(&e.to_string(), &e.fix());
            return Exit::ForGood;
        }
    };
    let now = Timestamp::now();
    let status = Status::at_rest(&config, &states, now);
    if json {
        print_json(&status);
    } else {
        say(status.text(now).trim_end());
    }
    Exit::Done
}
