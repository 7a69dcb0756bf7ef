//! The machine, and this process.

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::time::{ClockId, clock_gettime};

use super::{HostError, Result};

/// Seconds since the machine was started, time asleep included: what process start times are counted in.
pub fn boot_seconds() -> u64 {
    clock_gettime(ClockId::Boottime).tv_sec.try_into().unwrap_or(0)
}

/// A name for the time since the machine was started; another one after the next start.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|e| HostError::io("read", path, e))?;
    Ok(text.trim().to_owned())
}

/// A name for what the time since boot is counted by: in another time namespace it is another one. `None`: this kernel
/// has no such namespaces.
pub fn time_namespace() -> Option<String> {
    let name = std::fs::read_link("/proc/self/ns/time").ok()?;
    name.into_os_string().into_string().ok()
}

/// Closes the ways by which secrets in memory get out of the process: no core dumps, not traceable by other processes
/// of the same user, and files that are made without a mode are ours alone. For the start of the program.
///
/// # Errors
/// The system call failed.
pub fn process_hardening() -> Result<()> {
    let failed = |doing| move |e: Errno| HostError::io(doing, "/proc/self", e);
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("set the dumpable flag of"))?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(failed("set the core limit of"))?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    Ok(())
}
