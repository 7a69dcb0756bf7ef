//! `relaykey run`: the daemon, in the foreground.

use std::path::Path;

use super::{Exit, complain, load, runtime};
use crate::daemon;
use crate::service;

pub fn run(path: &Path) -> Exit {
    let config = match load(path, false) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
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
