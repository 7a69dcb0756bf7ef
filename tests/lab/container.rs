//! A real systemd: Debian, booted in systemd-nspawn on a throw-away overlay of the tree that `tests/systemd/rootfs` makes.
//! It shares this machine's network, so that servers of the test on loopback are reachable; nothing inside listens at a
//! fixed port.
//!

use super::relaykey as lab;
use super::scratch;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest that starting the system may take, and stopping it.
const BOOT: Duration = Duration::from_secs(60);
/// The longest that one command inside may take, the packager's own time limits included.
const COMMAND: &str = "120";

/// In a mount namespace of its own: nspawn wants cgroup2 alone at /sys/fs/cgroup, and a place for its own notes where
/// the machine has no systemd. `$1` name, `$2` tree, `$3` directory that is `/lab` inside.
const BOOT_SCRIPT: &str = r#"
    umount -R /sys/fs/cgroup 2> /dev/null
    mount -t cgroup2 none /sys/fs/cgroup || exit 1
    mkdir -p "/sys/fs/cgroup/$1" && echo $$ > "/sys/fs/cgroup/$1/cgroup.procs" || exit 1
    mkdir -p /run/systemd && mount -t tmpfs none /run/systemd || exit 1
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    exec systemd-nspawn --quiet --directory="$2" --machine="$1" --volatile=overlay --register=no --keep-unit --boot \
        --console=pipe --link-journal=no --resolv-conf=off --timezone=off --bind="$3:/lab"
"#;

/// The Debian tree; made once.
pub fn tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/rootfs");
        let out = Command::new(script).stderr(Stdio::inherit()).output().expect("run tests/systemd/rootfs");
        assert!(out.status.success(), "tests/systemd/rootfs made no tree");
        PathBuf::from(String::from_utf8(out.stdout).expect("a path").trim())
    })
}

/// A running system. Dropped, it is powered off and its overlay is gone.
pub struct Container {
    name: String,
    nspawn: Child,
    scratch: TempDir,
}

impl Container {
    /// Boots; returns once systemd has started everything.
    pub fn start() -> Self {
        let scratch = scratch::private("container");
        // The machine is called as its directory.
        let name = scratch.path().file_name().and_then(OsStr::to_str).expect("UTF-8").to_owned();
        let lab = scratch.path().join("lab");
        fs::create_dir(&lab).expect("the shared directory");
        let console = fs::File::create(scratch.path().join("console")).expect("a file for the console");
        let nspawn = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-c", BOOT_SCRIPT, "boot", &name])
            .arg(tree())
            .arg(&lab)
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("the console again"))
            .stderr(console)
            .spawn()
            .expect("start unshare");
        let mut container = Self { name, nspawn, scratch };
        let deadline = Instant::now() + BOOT;
        let mut state = String::new();
        while !matches!(state.as_str(), "running" | "degraded") {
            let ended = container.nspawn.try_wait().expect("wait for nspawn");
            if ended.is_some() || Instant::now() > deadline {
                panic!("the container is not up ({state:?}, {ended:?}):\n{}", container.console());
            }
            std::thread::sleep(Duration::from_millis(50));
            if let Some(leader) = container.leader() {
                let out = inside(&leader, "systemctl is-system-running");
                state = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            }
        }
        container
    }

    /// Process id, here, of the init inside.
    fn leader(&self) -> Option<String> {
        let pid = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    /// What systemd printed while it started.
    pub fn console(&self) -> String {
        fs::read_to_string(self.scratch.path().join("console")).unwrap_or_default()
    }

    /// The directory that is `/lab` inside.
    pub fn lab(&self) -> PathBuf {
        self.scratch.path().join("lab")
    }

    /// Runs a shell script inside, as root, whatever becomes of it.
    pub fn run(&self, script: &str) -> Output {
        inside(&self.leader().expect("a running container"), script)
    }

    /// Runs a shell script inside, which must succeed; gives its standard output.
    pub fn sh(&self, script: &str) -> String {
        let out = self.run(script);
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{script}\n{}\n{stdout}{stderr}", out.status);
        stdout.into_owned()
    }

    /// Puts a file inside, owned by root, as a directory's program would: whole, by rename.
    pub fn put(&self, path: &str, text: &str, mode: &str) {
        let file = lab::fresh("file");
        fs::write(self.lab().join(&file), text).expect("a file for the container");
        self.sh(&format!("install -D -m {mode} /lab/{file} {path}.new && mv {path}.new {path} && rm /lab/{file}"));
    }

    /// Waits until a shell script inside succeeds; gives its standard output.
    pub fn wait(&self, what: &str, limit: Duration, script: &str) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let out = self.run(script);
            if out.status.success() {
                return String::from_utf8_lossy(&out.stdout).into_owned();
            }
            if Instant::now() > deadline {
                let journal = self.run("journalctl --no-pager -n 60; systemctl status relaykey --no-pager -l");
                panic!(
                    "{what}: not within {limit:?}\n{}{}\n{}",
                    String::from_utf8_lossy(&out.stdout),
                    String::from_utf8_lossy(&out.stderr),
                    String::from_utf8_lossy(&journal.stdout)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The exit code of systemd-nspawn, once the machine has ended: 0 when it was switched off, 133 when it is to start anew.
    pub fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + BOOT;
        while Instant::now() < deadline {
            if let Some(status) = self.nspawn.try_wait().expect("wait for nspawn") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the machine does not end:\n{}", self.console());
    }

    /// A property of the unit, as `systemctl show` gives it.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.sh(&format!("systemctl show --value --property={name} {unit}")).trim().to_owned()
    }
}

fn inside(leader: &str, script: &str) -> Output {
    Command::new("nsenter")
        .args(["-t", leader, "-m", "-u", "-i", "-p", "-C", "-r", "-w", "/usr/bin/env", "-i"])
        .args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"])
        .args(["SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "DEBIAN_FRONTEND=noninteractive"])
        .args(["timeout", COMMAND, "/bin/sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .expect("run nsenter")
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(leader) = self.leader() {
            let _ = inside(&leader, "systemctl --no-block poweroff");
        }
        let deadline = Instant::now() + BOOT;
        while matches!(self.nspawn.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // nspawn's end is the end of everything inside.
                let _ = self.nspawn.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.nspawn.wait();
        // Its cgroups are empty now, and stay otherwise.
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let cgroup2 = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()).find(|m| m.get(2) == Some(&"cgroup2"));
        if let Some(mount) = cgroup2 {
            let group = Path::new(mount[1]).join(&self.name);
            let _ =
                Command::new("find").arg(group).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]).output();
        }
    }
}
