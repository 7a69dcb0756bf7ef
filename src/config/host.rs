//! `[host]`: this machine.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{self, host_name};
use super::{At, Reader, Section, SectionView, Severity, key};

pub(super) static HOST: Section = Section {
    header: "[host]",
    keys: &[
        key("name"),
        key("state_dir").default("\"/var/lib/relaykey\""),
        key("run_dir").default("\"/run/relaykey\""),
        key("lease"),
        key("instances").default("\"running\""),
    ],
};

/// `run_dir` where none is configured.
pub(super) const RUN_DIR: &str = "/run/relaykey";

/// `[host]`: this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// As configured; the agent falls back to the fully qualified host name at first start.
    pub name: Option<String>,
    /// Where state lives that must survive a boot. Absolute.
    pub state_dir: PathBuf,
    /// Where sockets and locks live that need not. Absolute.
    pub run_dir: PathBuf,
    /// How long it may be silent: one that was not heard of for twice as long is no longer expected.
    pub lease: Option<Duration>,
    /// Which Postfix instances count that are no target.
    pub instances: Instances,
}

/// The Postfix instances besides the targets whose login tables count for a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instances {
    /// Those that a main.cf names, and those that run.
    Running,
    /// Those that a main.cf names.
    Named,
}

/// A shorter one makes a host report so often, a longer one is no different from none.
const LEASES: RangeInclusive<Duration> = Duration::from_secs(600)..=Duration::from_secs(30 * 86_400);

pub(super) fn read(reader: &mut Reader, top: &SectionView) -> Host {
    let view = reader.table(top, "host", &HOST);
    let mut host = Host {
        name: None,
        state_dir: PathBuf::from("/var/lib/relaykey"),
        run_dir: PathBuf::from(RUN_DIR),
        lease: None,
        instances: Instances::Running,
    };
    let Some(view) = view else { return host };
    reader.keys(&view, None);
    host.name = reader.read(&view, "name", host_name).map(|at| at.value);
    host.lease = reader.read(&view, "lease", |v| value::duration(v, LEASES)).map(|at| at.value);
    let instances = [("running", Instances::Running), ("named", Instances::Named)];
    let instances = reader.read(&view, "instances", |v| value::choice(v, &instances, &[]));
    host.instances = instances.map_or(host.instances, |at| at.value);
    let state = reader.read(&view, "state_dir", value::absolute);
    if let Some(At { value, line }) = &state
        && ["/run", "/var/run", "/dev/shm"].iter().any(|volatile| value.starts_with(volatile))
    {
        let what = format!("state_dir: {} is empty after a boot, and the state must outlive that", value.display());
        reader.find(Severity::Warning, *line, what, "use a directory on disk, such as /var/lib/relaykey");
    }
    let run = reader.read(&view, "run_dir", value::absolute);
    let line = run.as_ref().or(state.as_ref()).map(|at| at.line);
    host.state_dir = state.map_or(host.state_dir, |at| at.value);
    host.run_dir = run.map_or(host.run_dir, |at| at.value);
    if let Some(line) = line
        && host.state_dir == host.run_dir
    {
        reader.error(
            line,
            "state_dir and run_dir are the same directory",
            "give each its own: one outlives a boot, the other is made anew",
        );
    }
    host
}
