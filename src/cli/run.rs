//! `relaykey run`: the daemon, in the foreground.

use std::path::Path;
use std::time::Duration;

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
    let ran = runtime.block_on(daemon::run(path, config));
    // Every step that must not be torn is over. What only looks, such as a read in a network file system that hangs, is not
    // waited for: the kernel would not let go of it either.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ran {
        Ok(()) => Exit::Done,
        Err(e) => {
            complain(&e.to_string(), &e.fix());
            if e.is_temporary() { Exit::ForNow } else { Exit::ForGood }
        }
    }
}
