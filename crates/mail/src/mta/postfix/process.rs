//! The Postfix that runs: its master process, whether it uses our files, and what it has read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::settings::{Settings, postconf};
use super::survey::LOOKS;
use super::tables::LoginMaps;
use super::{COMMAND, DEFAULT_CONFIG_DIR, Postfix, from_io};
use crate::fault::{Class, Fault};
use crate::host;
use crate::host::way::Way;
use crate::instruction::relaykey;
use crate::mta::Running;

/// Clock ticks per second in `/proc/PID/stat`: `USER_HZ`, which is 100 on every architecture Linux still supports.
pub(super) const TICKS: u64 = 100;

impl Postfix {
    /// What a person runs where a reload is needed and we must not do it. Theirs we do not see: only a start leaves a trace that
    /// can be trusted, where we looked before it: between stop and start we surely do.
    pub(super) fn restart_by_hand(&self) -> String {
        let option = self.config_option();
        format!("postfix{option} stop; {}; postfix{option} start", relaykey("sync --wait 0s"))
    }

    /// The master process that holds this instance's lock, with its start in clock ticks since boot.
    pub(super) fn master(&self, settings: &Settings) -> Result<Option<(u32, u64)>, Fault> {
        let queue = PathBuf::from(settings.get("queue_directory"));
        let directory = Some(settings.get("process_id_directory")).filter(|d| !d.is_empty()).unwrap_or("pid");
        let path = queue.join(directory).join("master.pid");
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(from_io(&e, &path)),
        };
        let text = io::read_to_string(&file).map_err(|e| from_io(&e, &path))?;
        let Ok(pid) = text.trim().parse::<u32>() else { return Ok(None) };
        // The pid file outlives its process, and the number may be somebody else's by now. Only a process of that name
        // makes us try the lock, so that a master which is just starting never finds it taken by us.
        let Some(process) = Process::read(pid).filter(|process| process.name == "master") else { return Ok(None) };
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => Ok(Some((pid, process.started))),
            Err(fs::TryLockError::Error(e)) => Err(from_io(&e, &path)),
            Ok(()) => Ok(None),
        }
    }

    pub(super) fn running_with(&self, settings: &Settings) -> Result<Running, Fault> {
        self.running_as_seen(settings).map(|(running, _)| running)
    }

    /// And the doubt that is left where what it uses cannot be seen: with the rights of before this was looked at, hosts go on.
    pub(super) fn running_as_seen(&self, settings: &Settings) -> Result<(Running, Option<Fault>), Fault> {
        let Some((pid, ticks)) = self.master(settings)? else { return Ok((Running::No, None)) };
        let running = Running::Yes { since_boot: ticks / TICKS };
        // What is seen in the middle of a rename, or as it ends, is seen again.
        for attempt in 1.. {
            match self.reads_our_files(pid, settings) {
                Ok(()) => break,
                Err(_) if self.master(settings)? != Some((pid, ticks)) => return Ok((Running::No, None)),
                Err(_) if attempt < LOOKS => {}
                Err(Unlike::Unseen(doubt)) => return Ok((running, Some(doubt))),
                Err(Unlike::Other(e)) => return Err(e),
            }
        }
        Ok((running, None))
    }

    /// The master that holds the lock of our queue directory need not be that of our configuration directory, nor see the
    /// files that we see: another directory may name the same queue, and a container has files of its own. Then nothing that is
    /// known of our files says anything of what it uses.
    pub(super) fn reads_our_files(&self, pid: u32, settings: &Settings) -> Result<(), Unlike> {
        let ours = Path::new("/");
        let its_root = PathBuf::from(format!("/proc/{pid}/root"));
        let its_directory = match started_with(pid).map_err(|e| cannot_see(pid, &self.config_dir, &e))? {
            Some(directory) => directory,
            None => compiled_in_directory().map_err(Unlike::Other)?,
        };
        let end = |root: &Path, path: &Path| match Way::of(root, path) {
            Ok((_, place)) => Ok(place),
            Err(host::HostError::Io { source, .. }) if root != ours => Err(cannot_see(pid, &self.config_dir, &source)),
            Err(e) => Err(Unlike::Other(e.into())),
        };
        let is_same = |(root, path): (&Path, &Path), (other_root, other): (&Path, &Path)| {
            Ok::<_, Unlike>(match (end(root, path)?, end(other_root, other)?) {
                (Some(one), Some(other)) => one.is_same(&other),
                (None, None) => true,
                _ => false,
            })
        };
        let directory = self.config_dir.display();
        let other = |file: PathBuf, what: String, fix: String| {
            Err(Unlike::Other(Fault::new(Class::Config, what, fix).in_file(file)))
        };
        if !is_same((&its_root, &its_directory), (&its_root, &self.config_dir))? {
            let its = its_directory.display();
            return other(
                self.config_dir.join("main.cf"),
                format!(
                    "the Postfix that runs with the queue directory {} (process {pid}) was not started with {directory}, but \
                     with {its}: what is changed in {directory} is not what it uses",
                    settings.get("queue_directory")
                ),
                format!(
                    "set config_dir of the target to {its}, or restart Postfix with {directory}: \
                     postfix -c {its} stop; postfix -c {directory} start"
                ),
            );
        }
        let maps = LoginMaps::of(&self.setup().map_err(Unlike::Other)?);
        let tables = maps.stores().flat_map(|(_, store)| store.files());
        for file in std::iter::once(self.config_dir.clone()).chain(self.own_files()).chain(tables) {
            if !is_same((&its_root, &file), (ours, &file))? {
                return other(
                    file.clone(),
                    format!(
                        "the Postfix that runs (process {pid}, configuration directory {}) finds something else in that place than \
                         is found from here, with {directory}: it runs in a container, or behind a mount of its own",
                        its_directory.display()
                    ),
                    format!(
                        "run relaykey where Postfix runs, or give both the same directories; to compare them: \
                         ls -lid {0} {1}{0}",
                        file.display(),
                        its_root.display()
                    ),
                );
            }
        }
        Ok(())
    }

    /// Is main.cf or master.cf newer than what the running instance has read? It reads them at its start and at a
    /// reload; at a reload its queue manager is started anew, which is the trace a reload leaves.
    pub(super) fn edited_since_start(&self, settings: &Settings) -> Result<Option<&'static str>, Fault> {
        let (Some((master, started)), Some(boot)) = (self.master(settings)?, boot_time()) else { return Ok(None) };
        let newer = |ticks: u64| {
            ["main.cf", "master.cf"].into_iter().find(|name| {
                let changed = fs::metadata(self.config_dir.join(name)).map_or(0, |m| m.mtime());
                // One second of tolerance: the boot time is a whole number.
                u64::try_from(changed).is_ok_and(|changed| changed > boot + ticks / TICKS + 1)
            })
        };
        if newer(started).is_none() {
            return Ok(None);
        }
        Ok(newer(Process::queue_managers_of(master).map(|p| p.started).max().unwrap_or(started).max(started)))
    }
}

/// What Postfix calls its queue manager, in all of its releases.
const QUEUE_MANAGERS: [&str; 3] = ["qmgr", "nqmgr", "oqmgr"];

/// One line of `/proc/PID/stat` (proc(5)).
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) parent: u32,
    /// Clock ticks since boot.
    pub(super) started: u64,
    /// Its state, as one letter.
    state: String,
}

impl Process {
    /// By SIGSTOP, or a debugger.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state.as_str(), "T" | "t")
    }

    /// `None`: there is no such process, or it is hidden from us.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name stands in parentheses and may contain some.
        let (head, tail) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            name: head.split_once('(')?.1.to_owned(),
            // Fields 3, 4 and 22; the tail begins with field 3.
            state: (*fields.first()?).to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::read(entry.file_name().to_str()?.parse().ok()?))
    }

    /// Those that this master process has started: one, for a moment two or none.
    pub(super) fn queue_managers_of(master: u32) -> impl Iterator<Item = Self> {
        Self::all().filter(move |p| p.parent == master && QUEUE_MANAGERS.contains(&p.name.as_str()))
    }
}

/// A Postfix that runs on this host.
#[derive(Debug)]
pub(super) struct RunningMaster {
    pub(super) pid: u32,
    /// Clock ticks since boot.
    started: u64,
    pub(super) place: Place,
}

/// Where the configuration of a running Postfix is.
#[derive(Debug)]
pub(super) enum Place {
    /// In this directory, which we see as it does.
    Here(PathBuf),
    /// In this directory, which it sees and we do not, or not as it does.
    Hidden(PathBuf),
    /// Below another root directory, as that process sees it or as we do.
    BelowRoot(PathBuf),
    /// We may not see it.
    Unseen,
}

impl RunningMaster {
    /// All that run here. One in a container, which has processes of its own, belongs to another host; what another user
    /// than root runs under that name is none.
    pub(super) fn all() -> Vec<Self> {
        let is_of_postfix = |name: &str| ["master", "pickup"].contains(&name) || QUEUE_MANAGERS.contains(&name);
        let processes: Vec<Process> = Process::all().filter(|process| is_of_postfix(&process.name)).collect();
        let has_queue = |pid: u32| processes.iter().any(|other| other.parent == pid && other.name != "master");
        let masters = processes.iter().filter(|process| process.name == "master" && has_queue(process.pid));
        masters.filter_map(Self::of).collect()
    }

    fn of(process: &Process) -> Option<Self> {
        let Process { pid, started, .. } = *process;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let place = is_roots_own(&status).then(|| place_of(pid))?;
        let place = match place {
            Ok(place) => place,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => Place::Unseen,
        };
        Some(Self { pid, started, place }).filter(Self::still_runs)
    }

    pub(super) fn still_runs(&self) -> bool {
        Process::read(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// By `/proc/PID/status`: is it root's altogether, so that nobody else chose what it was started with, and none of another
/// process namespace?
fn is_roots_own(status: &str) -> bool {
    let words = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
    };
    words("Uid:").is_some_and(|ids| ids.iter().all(|id| *id == "0")) && words("NSpid:").is_none_or(|ids| ids.len() == 1)
}

fn place_of(pid: u32) -> io::Result<Place> {
    let its_root = PathBuf::from(format!("/proc/{pid}/root"));
    let id = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino()));
    if id(&its_root.join("."))? != id(Path::new("/"))? {
        // Of a unit with a root directory of its own as well, which has mounts of its own besides.
        return Ok(Place::BelowRoot(fs::read_link(its_root)?));
    }
    let directory = match started_with(pid)? {
        Some(directory) => directory,
        None => compiled_in_directory().unwrap_or_else(|_| PathBuf::from(DEFAULT_CONFIG_DIR)),
    };
    let Ok(relative) = directory.strip_prefix("/") else { return Ok(Place::Unseen) };
    let main_cf = |root: &Path| id(&root.join(relative).join("main.cf")).ok();
    let is_same = main_cf(&its_root) == main_cf(Path::new("/"));
    Ok(if is_same { Place::Here(directory) } else { Place::Hidden(directory) })
}

/// The configuration directory that a master process was started with: `master -c`, else what postfix(1) puts into its
/// environment. `None`: neither says, and it is the one that was compiled in.
pub(super) fn started_with(pid: u32) -> io::Result<Option<PathBuf>> {
    let words = |name: &str| fs::read(format!("/proc/{pid}/{name}"));
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let arguments = words("cmdline")?;
    let arguments: Vec<&[u8]> = arguments.split(|b| *b == 0).collect();
    let option = arguments.iter().enumerate().find_map(|(n, word)| match word.strip_prefix(b"-c") {
        Some([]) => arguments.get(n + 1).copied(),
        other => other,
    });
    let environment = words("environ")?;
    let variable = environment.split(|b| *b == 0).find_map(|word| word.strip_prefix(b"MAIL_CONFIG="));
    Ok(option.or(variable).map(path))
}

/// Where a Postfix looks that nobody tells where to.
pub(super) fn compiled_in_directory() -> Result<PathBuf, Fault> {
    let output = host::run(&[postconf()?, "-d", "-h", "config_directory"], None, COMMAND)?;
    let said = output.stdout.trim_ascii();
    let is_said = output.status.success() && said.starts_with(b"/");
    Ok(PathBuf::from(if is_said { OsStr::from_bytes(said) } else { OsStr::new(DEFAULT_CONFIG_DIR) }))
}

/// Why the Postfix that runs is not known to use our files.
pub(super) enum Unlike {
    Other(Fault),
    Unseen(Fault),
}

pub(super) fn cannot_see(pid: u32, config_dir: &Path, e: &io::Error) -> Unlike {
    let directory = config_dir.display();
    Unlike::Unseen(Fault::new(
        Class::Permissions,
        format!(
            "whether the Postfix that runs (process {pid}) uses the files in {directory} cannot be seen: /proc/{pid}/environ and \
             /proc/{pid}/root are not readable from here ({e})"
        ),
        "run relaykey as root where Postfix runs, not in a container of its own; with CAP_SYS_PTRACE: in CapabilityBoundingSet \
         under systemd, as in the packaged unit; with --cap-add SYS_PTRACE in a container; until then nothing tells another \
         Postfix over the same queue, or one with other files, from this one",
    ))
}

/// When the system was booted, in Unix seconds (proc(5), `/proc/stat`, btime).
pub(super) fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found() {
        let this = Process::read(std::process::id()).expect("/proc has it");
        assert!(this.parent > 0 && this.started > 0 && !this.name.is_empty());
        assert!(Process::all().any(|process| process.started == this.started && process.name == this.name));
        assert!(Process::read(u32::MAX).is_none());
        assert!(boot_time().is_some());
    }

    #[test]
    fn whose_processes_count() {
        let status = |uid: &str, pids: &str| format!("Name:\tmaster\nUid:\t{uid}\nGid:\t0\t0\t0\t0\n{pids}");
        let root = "0\t0\t0\t0";
        assert!(is_roots_own(&status(root, "NSpid:\t77\n")) && is_roots_own(&status(root, "")));
        // Of a container, and of somebody who gave a program that runs as root that name.
        assert!(!is_roots_own(&status(root, "NSpid:\t77\t5\n")));
        assert!(!is_roots_own(&status("1000\t0\t0\t0", "NSpid:\t77\n")) && !is_roots_own(""));
    }
}
