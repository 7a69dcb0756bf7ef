//! `relaykey run`: the daemon, in the foreground.

use std::path::Path;

use super::{Exit, complain, load_with_remarks, runtime, tell};
use crate::config;
use crate::daemon;
use crate::instruction::relaykey;
use crate::service;

/// With `json` what is wrong with the configuration is told as a document too; the daemon itself prints none.
pub fn run(path: &Path, json: bool) -> Exit {
    let (config, remarks) = match load_with_remarks(path, json) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if !remarks.is_empty() {
        tell(config::render(&remarks, path).trim_end());
    }
    if json {
        let status = relaykey("status --json");
        complain("--json: the daemon prints no facts, and goes on without it", &format!("what it knows: {status}"));
    }
    service::init_log();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let ended = runtime.block_on(daemon::run(path, config));
    // What may not be torn has been waited for. A look-up of a name that gets no answer has not, and may take its time.
    runtime.shutdown_background();
    match ended {
        Ok(()) => Exit::Done,
        Err(e) => {
            complain(&e.to_string(), &e.fix());
            if e.is_temporary() { Exit::ForNow } else { Exit::ForGood }
        }
    }
}
