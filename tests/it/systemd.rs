//! relaykey as a service, under a real systemd with a real Postfix, installed from its packages. What mail it sends comes
//! to the SES stand-in in this process.

use crate::lab::container;
use crate::lab::postfix::free_port;
use crate::lab::scratch;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use container::Container;
use relaykey::credential::Secret;
use relaykey::service::log::id;
use relaykey::standin::{self, Standin};
use serde_json::Value;

/// The longest that anything here may take to happen.
const SOON: Duration = Duration::from_secs(60);

// ---------------------------------------------------------------- packages

/// What is packaged.
const PROGRAMS: [&str; 2] = ["relaykey", "relaykey-rotate"];

/// The packages of the programs under test, in two revisions: of 1 and 2.
struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// Made once for all tests, also where each runs in a process of its own.
    fn get() -> &'static Self {
        static PACKAGES: OnceLock<Packages> = OnceLock::new();
        PACKAGES.get_or_init(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let dir = root.join("target/systemd/packages");
            fs::create_dir_all(&dir).expect("a directory for packages");
            let lock = fs::File::create(dir.join("lock")).expect("a lock");
            lock.lock().expect("locked");
            let packages = Self { dir };
            let binary = Path::new(env!("CARGO_BIN_EXE_relaykey"));
            let mut inputs = vec![binary.to_owned(), binary.with_file_name("relaykey-rotate")];
            inputs
                .extend(["Cargo.toml", "crates/rotate/Cargo.toml", "config.example.toml"].map(|name| root.join(name)));
            let rotate = ["packaging/rotate/deb", "packaging/rotate/rpm"];
            for dir in ["systemd", "packaging", "packaging/deb", "packaging/rpm"].into_iter().chain(rotate) {
                let entries = fs::read_dir(root.join(dir)).expect("a directory");
                inputs.extend(entries.map(|e| e.expect("an entry").path()).filter(|p| p.is_file()));
            }
            let made = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            let newest = inputs.iter().map(|p| made(p)).max().expect("inputs");
            for revision in ["1", "2"] {
                let fresh = |p: Option<PathBuf>| p.is_some_and(|p| made(&p) > newest);
                let all = PROGRAMS.iter().flat_map(|program| [".deb", ".rpm"].map(|suffix| (program, suffix)));
                if all.into_iter().all(|(program, suffix)| fresh(packages.find(program, revision, suffix))) {
                    continue;
                }
                let out = Command::new(root.join("packaging/build"))
                    .args(["--fast", "--revision", revision, "--output"])
                    .arg(&packages.dir)
                    .arg("--binary")
                    .arg(binary)
                    .output()
                    .expect("run packaging/build");
                assert!(out.status.success(), "packaging/build: {}", String::from_utf8_lossy(&out.stderr));
            }
            packages
        })
    }

    fn find(&self, program: &str, revision: &str, suffix: &str) -> Option<PathBuf> {
        let version = format!("{}-{revision}", env!("CARGO_PKG_VERSION"));
        let mut all = fs::read_dir(&self.dir).expect("packages").map(|e| e.expect("an entry").path());
        all.find(|p| {
            let name = p.file_name().expect("a name").to_string_lossy().into_owned();
            name.ends_with(suffix)
                && ["_", "."].iter().any(|end| {
                    name.contains(&format!("{program}_{version}{end}"))
                        || name.contains(&format!("{program}-{version}{end}"))
                })
        })
    }

    fn deb(&self, revision: &str) -> PathBuf {
        self.find("relaykey", revision, ".deb").expect("a Debian package")
    }

    fn rpm(&self, revision: &str) -> PathBuf {
        self.find("relaykey", revision, ".rpm").expect("an RPM package")
    }
}

// ---------------------------------------------------------------- a mail server

/// A mail server under systemd that relays to the stand-in, with relaykey installed.
struct MailServer {
    system: Container,
    standin: Standin,
}

impl MailServer {
    /// Postfix runs, as Debian sets it up (chroot and all), with this login; relaykey is not there yet.
    fn new(username: &str) -> Self {
        let standin = Standin::start(standin::Options::default()).expect("an SES stand-in");
        let server = Self { system: Container::start(), standin };
        let port = server.standin.starttls_port();
        server.system.put("/etc/ssl/lab.pem", server.standin.ca_pem(), "0644");
        server.add_key(username);
        let table = format!("# relays of this host\n[localhost]:{port} {}\n", pair(username));
        server.system.put("/etc/postfix/sasl_passwd", &table, "0600");
        server.system.sh(&format!(
            "postconf -e 'relayhost = [localhost]:{port}' 'smtp_sasl_auth_enable = yes' \
                 'smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd' 'smtp_sasl_tls_security_options = noanonymous' \
                 'smtp_tls_security_level = verify' 'smtp_tls_CAfile = /etc/ssl/lab.pem' 'smtp_tls_CApath =' \
                 'smtp_host_lookup = native' 'smtp_dns_support_level = disabled' 'mydestination =' 'local_recipient_maps =' \
                 'inet_interfaces = loopback-only' 'inet_protocols = ipv4' 'myhostname = mx1.example.com' &&
             postconf -MX smtp/inet && postmap hash:/etc/postfix/sasl_passwd && systemctl start postfix"
        ));
        server
    }

    /// A key that the stand-in takes from now on.
    fn add_key(&self, username: &str) {
        self.standin.set_key(username, &Secret::new(password(username)));
    }

    /// The source has a new version: a file that is replaced.
    fn publish(&self, username: &str) {
        self.add_key(username);
        self.system.put("/etc/relaykey/ses.secret", &pair(username), "0600");
    }

    /// The administrator's configuration: one credential from a file, one Postfix, and further lines of its target.
    fn config(&self, target: &str) -> String {
        format!(
            "config_version = 1\n[host]\nname = \"mx1.example.com\"\n[[credential]]\nname = \"ses\"\n\
             [credential.source]\ntype = \"file\"\npath = \"/etc/relaykey/ses.secret\"\npoll = \"10s\"\n\
             [credential.smtp]\nendpoint = \"localhost\"\nport = {}\nca_file = \"/etc/ssl/lab.pem\"\n\
             [[credential.target]]\ntype = \"postfix\"\n{target}",
            self.standin.starttls_port()
        )
    }

    fn install(&self, revision: &str) {
        let deb = Packages::get().deb(revision);
        let name = deb.file_name().expect("a name").to_string_lossy().into_owned();
        fs::copy(&deb, self.system.lab().join(&name)).expect("the package inside");
        self.system.sh(&format!("apt-get install --yes --allow-downgrades /lab/{name} 2>&1"));
    }

    /// Installed, configured and running, with the login of `username` in use.
    fn in_service(username: &str, target: &str) -> Self {
        let server = Self::new(username);
        server.install("1");
        server.publish(username);
        server.system.put("/etc/relaykey/config.toml", &server.config(target), "0644");
        server.system.sh("systemctl enable --now relaykey");
        server
    }

    fn status(&self) -> Value {
        let out = self.system.run("relaykey status --json");
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
    }

    /// What is applied, as `relaykey status` says.
    fn applied(&self) -> Option<String> {
        Some(self.status()["credentials"][0]["applied"]["username"].as_str()?.to_owned())
    }

    fn wait_applied(&self, username: &str) {
        let script = format!(
            "relaykey status --json | grep -q '\"username\": *\"{username}\"' && ! relaykey status --json \
                              | grep -q '\"pending\": *{{'"
        );
        self.system.wait(&format!("{username} is applied"), SOON, &script);
        assert_eq!(self.applied().as_deref(), Some(username));
    }

    /// Hands Postfix a message and gives the user name under which it came to the stand-in.
    fn send(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let from = format!("m{}@example.com", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.system.sh(&format!("printf 'Subject: test\\n\\ntest\\n' | sendmail -f {from} to@example.net"));
        let found =
            |seen: &standin::StandinRecord| seen.messages.iter().find(|m| m.from == from).map(|m| m.username.clone());
        self.standin
            .wait_for(SOON, &format!("the message from {from}"), found)
            .unwrap_or_else(|e| panic!("{e}\n{}", self.system.sh("journalctl -n 80 --no-pager")))
    }

    /// The journal of the unit, one JSON object per line, as `journalctl` finds them by these arguments.
    fn journal(&self, arguments: &str) -> Vec<Value> {
        let text = self.system.sh(&format!("journalctl --no-pager -o json {arguments}"));
        text.lines().map(|l| serde_json::from_str(l).expect("journalctl writes JSON")).collect()
    }
}

/// Of no importance beyond this test.
fn password(username: &str) -> String {
    format!("password-of-{username}")
}

fn pair(username: &str) -> String {
    format!("{username}:{}", password(username))
}

// ---------------------------------------------------------------- the life of a package

#[test]
fn the_debian_package_from_installation_to_purge() {
    let server = MailServer::new("AKIAFIRST");
    let system = &server.system;
    let state = |unit: &str| system.property(unit, "ActiveState");

    // Installed: nothing runs, nothing is enabled, and what is there configures nothing.
    server.install("1");
    assert_eq!(state("relaykey"), "inactive");
    for unit in ["relaykey.service", "relaykey.socket", "relaykey-deregister.service"] {
        let enabled = system.run(&format!("systemctl is-enabled {unit}"));
        assert_eq!(String::from_utf8_lossy(&enabled.stdout).trim(), "disabled", "{unit}");
    }
    let mode = system.sh("stat -c '%a %U:%G' /etc/relaykey/config.toml /etc/relaykey");
    assert_eq!(mode, "644 root:root\n755 root:root\n");
    // Started all the same, it says what is missing, and does not try again and again.
    assert!(!system.run("systemctl start relaykey").status.success());
    assert_eq!(system.property("relaykey", "Result"), "exit-code");
    assert_eq!(system.property("relaykey", "NRestarts"), "0");
    let journal = system.sh("journalctl --no-pager -u relaykey");
    assert!(journal.contains("there is no credential in the file"), "{journal}");
    system.sh("systemctl reset-failed relaykey");

    // Configured: the login that Postfix uses is adopted, then a rotation arrives.
    server.publish("AKIAFIRST");
    system.put("/etc/relaykey/config.toml", &server.config(""), "0644");
    system.sh("systemctl enable --now relaykey");
    assert_eq!(state("relaykey"), "active");
    assert_eq!(server.applied().as_deref(), Some("AKIAFIRST"));
    assert_eq!(server.send(), "AKIAFIRST");
    server.publish("AKIASECOND");
    server.wait_applied("AKIASECOND");
    assert_eq!(server.send(), "AKIASECOND");

    // Upgraded: configuration and state are kept, the service is a new process, and nothing is rolled over again.
    let before = (system.sh("cat /etc/relaykey/config.toml"), system.property("relaykey", "MainPID"));
    let report = server.status()["credentials"][0]["report"].clone();
    server.install("2");
    assert_eq!(system.sh("dpkg-query -W -f '${Version}' relaykey"), format!("{}-2", env!("CARGO_PKG_VERSION")));
    assert_eq!(system.sh("cat /etc/relaykey/config.toml"), before.0);
    assert_eq!(state("relaykey"), "active");
    assert_ne!(system.property("relaykey", "MainPID"), before.1);
    assert_eq!(server.applied().as_deref(), Some("AKIASECOND"));
    assert_eq!(server.status()["credentials"][0]["report"], report);
    assert_eq!(server.send(), "AKIASECOND");

    // An upgrade does not start what was stopped.
    system.sh("systemctl stop relaykey");
    server.install("1");
    assert_eq!(state("relaykey"), "inactive");
    system.sh("systemctl start relaykey");

    // Removed: stopped and disabled, mail goes on, configuration and state wait for the package to come back.
    system.sh("apt-get remove --yes relaykey 2>&1");
    assert_eq!(state("relaykey"), "inactive");
    assert!(!system.run("pgrep -x relaykey").status.success());
    system.sh("test -e /etc/relaykey/config.toml && test -e /var/lib/relaykey/credentials/ses.json");
    let links = system.sh("find /etc/systemd -name 'relaykey*'");
    assert_eq!(links, "", "left behind");
    assert_eq!(server.send(), "AKIASECOND");
    server.publish("AKIATHIRD");
    server.install("2");
    assert_eq!(state("relaykey"), "inactive", "it is for the administrator to start it again");
    system.sh("systemctl enable --now relaykey");
    server.wait_applied("AKIATHIRD");
    assert_eq!(server.send(), "AKIATHIRD");

    // Purged: nothing of ours is left, and Postfix keeps the login.
    system.sh("apt-get purge --yes relaykey 2>&1");
    let left = system.sh(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /lab -o -path /tmp -o -path /var/log -o -path /var/cache \\) \
         -prune -o -name '*relaykey*' -print",
    );
    assert_eq!(left, "", "left behind");
    // But the place of locks, which is every relaykey's of the host.
    system.sh("test -d /run/relaykey-lock");
    assert_eq!(server.send(), "AKIATHIRD");
}

/// `rpm` on an overlay of a Debian tree shows what the package does, not that it suits a Red Hat system.
#[test]
fn the_rpm_package_from_installation_to_removal() {
    let scratch = scratch::private("rpm");
    let packages = Packages::get();
    let root = scratch.path().join("root");
    for dir in ["root", "upper", "work"] {
        fs::create_dir(scratch.path().join(dir)).expect("a directory");
    }
    // The overlay is mounted in a mount namespace of its own, and gone with it. The scriptlets run inside the tree, where
    // systemd does not run; they call `systemctl disable` and `journalctl` all the same.
    let script = r#"
        set -eu
        mount -t tmpfs none "$S/upper" && mkdir "$S/upper/u" "$S/upper/w"
        mount -t overlay overlay -o "lowerdir=$TREE,upperdir=$S/upper/u,workdir=$S/upper/w" "$S/root"
        r() { rpm --root "$S/root" --dbpath /var/lib/rpm "$@"; }
        unit=etc/systemd/system/multi-user.target.wants/relaykey.service
        cd "$S/root"
        r -i --nodeps "$ONE"
        r -V --nodeps relaykey
        stat -c '%n %a %U:%G' usr/bin/relaykey etc/relaykey/config.toml
        [ ! -e "$unit" ] && echo "not enabled"
        chroot . relaykey --version
        chroot . relaykey check --offline || echo "check ends with $?"
        chroot . journalctl --list-catalog | grep -c relaykey
        echo 'config_version = 1 # edited' > etc/relaykey/config.toml
        mkdir -p var/lib/relaykey/credentials && echo state > var/lib/relaykey/credentials/ses.json
        chroot . systemctl enable --quiet relaykey
        r -U --nodeps "$TWO"
        r -q relaykey
        cat etc/relaykey/config.toml
        [ -L "$unit" ] && echo "still enabled"
        r -e relaykey
        [ ! -L "$unit" ] && echo "disabled"
        find . -xdev -name '*relaykey*' -not -path './var/cache/*' -not -path './var/lib/rpm/*' | sort
        find etc/relaykey var/lib/relaykey -type f | sort
        chroot . journalctl --list-catalog | grep relaykey || echo "no catalogue"
    "#;
    let out = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "/bin/sh", "-c", script])
        .env("S", scratch.path())
        .env("TREE", container::tree())
        .env("ONE", packages.rpm("1"))
        .env("TWO", packages.rpm("2"))
        .output()
        .expect("run unshare");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "usr/bin/relaykey 755 root:root\netc/relaykey/config.toml 644 root:root\nnot enabled\nrelaykey {version}\n\
         check ends with 2\n{}\nrelaykey-{version}-2.x86_64\nconfig_version = 1 # edited\nstill enabled\ndisabled\n\
         ./etc/relaykey\n./var/lib/relaykey\netc/relaykey/config.toml.rpmsave\nvar/lib/relaykey/credentials/ses.json\n\
         no catalogue\n",
        id::ALL.len()
    );
    assert_eq!(stdout, expected, "{stderr}");
    assert!(out.status.success(), "{stderr}");
    assert!(!root.join("usr").exists());
}

#[test]
fn both_packages_hold_the_same() {
    let lines = |command: &mut Command| {
        let out = command.output().expect("a packager's tool");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("UTF-8").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let packages = Packages::get();
    let agent = [
        "/usr/bin/relaykey",
        "/etc/relaykey/config.toml",
        "/usr/lib/systemd/system/relaykey.service",
        "/usr/lib/systemd/system/relaykey-deregister.service",
    ];
    let control = [
        "/usr/bin/relaykey-rotate",
        "/usr/share/doc/relaykey-rotate/rotate.example.toml",
        "/usr/share/doc/relaykey-rotate/docs/rotation.md",
        "/usr/lib/systemd/system/relaykey-rotate.service",
        "/usr/lib/systemd/system/relaykey-rotate.timer",
    ];
    for (program, files) in PROGRAMS.into_iter().zip([&agent[..], &control]) {
        let of = |suffix| packages.find(program, "1", suffix).expect("a package");
        let deb = lines(Command::new("dpkg-deb").arg("--contents").arg(of(".deb")));
        let deb: BTreeSet<String> = deb
            .iter()
            .filter(|l| !l.starts_with('d'))
            .map(|l| format!("{} {}", &l[..10], l.rsplit_once(" .").expect("a path").1))
            .collect();
        let rpm =
            lines(Command::new("rpm").args(["-qp", "--qf", "[%{FILEMODES:perms} %{FILENAMES}\\n]"]).arg(of(".rpm")));
        let mut rpm: BTreeSet<String> = rpm.into_iter().collect();
        // Debian's own form of what LICENSE-* say.
        assert!(rpm.insert(format!("-rw-r--r-- /usr/share/doc/{program}/copyright")));
        assert_eq!(deb, rpm);
        for file in files {
            assert!(deb.iter().any(|l| l.ends_with(file)), "{file} is missing: {deb:#?}");
        }
        assert!(!deb.iter().any(|l| l.contains("crash")), "{deb:#?}");
    }
}

/// The control side has a package of its own, whose timer is for the administrator to start; its service owns nothing.
#[test]
fn the_control_side_looks_by_a_timer_and_owns_nothing() {
    let system = Container::start();
    let deb = Packages::get().find("relaykey-rotate", "1", ".deb").expect("a Debian package");
    fs::copy(&deb, system.lab().join("rotate.deb")).expect("the package inside");
    system.sh("apt-get install --yes /lab/rotate.deb 2>&1");
    let enabled = || {
        let said = system.run("systemctl is-enabled relaykey-rotate.timer");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    assert_eq!(enabled(), "disabled");
    // Without a configuration there is nothing to do.
    system.sh("systemctl start relaykey-rotate.service");
    assert_eq!(system.property("relaykey-rotate", "ConditionResult"), "no");
    // An administrator's configuration, and AWS that gives no answer: told in the journal, and no unit that failed.
    let config = "config_version = 1\n[aws]\nregion = \"eu-west-1\"\nendpoint_url = \"http://127.0.0.1:9\"\n[[credential]]\n\
                  name = \"ses\"\niam_user = \"ses-smtp\"\n[credential.smtp]\n\
                  endpoint = \"email-smtp.eu-west-1.amazonaws.com\"\n[[credential.publish]]\ntype = \"secrets-manager\"\n\
                  secret = \"SESSendSecret\"\n[credential.evidence]\ntype = \"dynamodb\"\ntable = \"relaykey\"\n";
    system.put("/etc/relaykey/rotate.toml", config, "0644");
    system.put(
        "/etc/default/relaykey-rotate",
        "AWS_ACCESS_KEY_ID=AKIAEXAMPLE\nAWS_SECRET_ACCESS_KEY=example\n",
        "0600",
    );
    // What ended well is forgotten by systemd, with its exit code: that it ended well is what `start` says.
    system.sh("systemctl start relaykey-rotate.service");
    let journal = system.sh("journalctl --no-pager -u relaykey-rotate");
    assert!(journal.contains("sts:GetCallerIdentity"), "{journal}");
    // A mistake needs a person.
    system.put("/etc/relaykey/rotate.toml", "config_version = 1\n", "0644");
    assert!(!system.run("systemctl start relaykey-rotate.service").status.success());
    assert_eq!(system.property("relaykey-rotate", "ExecMainStatus"), "2");
    system.sh("systemctl enable --now relaykey-rotate.timer && systemctl is-active relaykey-rotate.timer");
    system.sh("apt-get purge --yes relaykey-rotate 2>&1");
    assert_eq!(system.sh("find /etc/systemd -name 'relaykey*'; ls /etc/relaykey"), "rotate.toml\n");
}

// ---------------------------------------------------------------- the service

#[test]
fn the_service_tells_systemd_and_the_journal_what_it_does() {
    let server = MailServer::in_service("AKIAFIRST", "");
    let system = &server.system;
    let line = || system.property("relaykey", "StatusText");
    let journal_of = |id: &str| server.journal(&format!("-u relaykey MESSAGE_ID={id}"));

    // `systemctl start` came back after the first look.
    assert_eq!(server.applied().as_deref(), Some("AKIAFIRST"));
    assert_eq!(system.property("relaykey", "ActiveState"), "active");
    let told =
        system.wait("the line of status", SOON, "systemctl show --value -p StatusText relaykey | grep 'up to date'");
    assert!(told.starts_with("ses up to date: version ") && told.trim_end().ends_with("(AKIAFIRST)"), "{told}");
    assert!(system.sh("systemctl status relaykey --no-pager").contains("Status: \"ses up to date"));

    // A rollover, on a table that belongs to somebody else: owner and mode are kept, within what the unit allows.
    system.sh(
        "cd /etc/postfix && chown daemon:postfix sasl_passwd sasl_passwd.db && chmod 0640 sasl_passwd sasl_passwd.db",
    );
    server.publish("AKIASECOND");
    server.wait_applied("AKIASECOND");
    assert_eq!(server.send(), "AKIASECOND");
    let owners = system.sh("cd /etc/postfix && stat -c '%a %U:%G' sasl_passwd sasl_passwd.db");
    assert_eq!(owners, "640 daemon:postfix\n640 daemon:postfix\n");

    // `journalctl RELAYKEY_CREDENTIAL=ses` shows it, step by step.
    let rollovers = journal_of(id::ROLLOVER);
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let outcomes: Vec<_> = rollovers.iter().map(|e| text(e, "RELAYKEY_OUTCOME")).collect();
    assert_eq!(outcomes, ["adopted", "confirmed"]);
    let confirmed = &rollovers[1];
    for (field, value) in [
        ("RELAYKEY_CREDENTIAL", "ses"),
        ("RELAYKEY_USERNAME", "AKIASECOND"),
        ("RELAYKEY_PREVIOUS_USERNAME", "AKIAFIRST"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "relaykey"),
        ("_SYSTEMD_UNIT", "relaykey.service"),
        ("TARGET", "relaykey"),
    ] {
        assert_eq!(text(confirmed, field), value, "{field} of {confirmed:#}");
    }
    assert!(text(confirmed, "RELAYKEY_DURATION_USEC").parse::<u64>().is_ok_and(|d| d > 0), "{confirmed:#}");
    let version = text(confirmed, "RELAYKEY_VERSION");
    assert!(line().contains(&version), "{version} is not in {:?}", line());
    let all = server.journal("RELAYKEY_CREDENTIAL=ses");
    let steps: Vec<_> = all
        .iter()
        .filter(|e| text(e, "MESSAGE_ID") == id::STEP && text(e, "RELAYKEY_OUTCOME") == "done")
        .map(|e| text(e, "RELAYKEY_STEP"))
        .skip_while(|step| step != "swap")
        .collect();
    for step in ["swap", "activate", "read-back"] {
        assert!(steps.iter().any(|s| s == step), "{step} is not among {steps:?}");
    }
    let explained = system.sh(&format!("journalctl --no-pager -x MESSAGE_ID={}", id::ROLLOVER));
    assert!(explained.contains(&format!("Subject: Credential ses: version {version} is in use")), "{explained}");

    // Postfix logs to the journal here: a login that the endpoint refuses is heard of at once. What this takes back gives
    // the service a new /proc, in which systemd-nspawn's boot id is missing, and by that `journalctl --follow` goes.
    let proc = "[Service]\nProtectKernelTunables=no\nProtectControlGroups=no\nProtectProc=default\n";
    system.put("/etc/systemd/system/relaykey.service.d/proc.conf", proc, "0644");
    system.sh("systemctl daemon-reload && systemctl restart relaykey");
    server.standin.deactivate("AKIASECOND");
    system.sh("printf 'Subject: refused\\n\\ntest\\n' | sendmail -f refused@example.com to@example.net");
    let heard = format!("journalctl -q -o cat -u relaykey MESSAGE_ID={} | grep 'ses: mail log, refused'", id::ALARM);
    system.wait("the alarm", SOON, &heard);
    server.standin.activate("AKIASECOND");
    system.sh("postqueue -f");

    // A changed configuration is taken, a bad one refused; the process stays the same.
    let pid = system.property("relaykey", "MainPID");
    let good = server.config("name = \"main\"\n");
    system.put("/etc/relaykey/config.toml", &good, "0644");
    system.sh("systemctl reload relaykey");
    let event = |id: &str| format!("journalctl -q -o cat -u relaykey MESSAGE_ID={id} | grep .");
    system.wait("the reload", SOON, &event(id::CONFIG_RELOADED));
    system.put("/etc/relaykey/config.toml", &good.replace("[credential.smtp]", "[credential.smpt]"), "0644");
    system.sh("systemctl reload relaykey");
    system.wait("the refusal", SOON, &event(id::CONFIG_REFUSED));
    system.wait("the refusal in the line", SOON, "systemctl show --value -p StatusText relaykey | grep refused");
    let refused = system.sh(&event(id::CONFIG_REFUSED));
    assert!(refused.contains("config.toml:10: unknown key") && refused.contains("smtp"), "{refused}");
    // Back from reloading: READY=1 came after RELOADING=1.
    let active = "systemctl show --value -p ActiveState relaykey | grep -x active";
    system.wait("the end of the reload", SOON, active);
    assert_eq!(server.send(), "AKIASECOND");
    system.put("/etc/relaykey/config.toml", &good, "0644");
    system.sh("systemctl reload relaykey");
    system.wait("the line without the refusal", SOON, "! systemctl show -p StatusText relaykey | grep refused");
    system.wait("the end of the reload", SOON, active);
    assert_eq!(system.property("relaykey", "MainPID"), pid);
    assert_eq!(system.property("relaykey", "NRestarts"), "0");

    // Stopped, it says so and leaves nothing running.
    system.sh("systemctl stop relaykey");
    assert_eq!(system.property("relaykey", "Result"), "success");
    assert_eq!(journal_of(id::STOPPING).len(), 2, "this stop, and that of the restart");
    let passwords = system.sh("journalctl --no-pager -a -o export | grep -c password-of- || true");
    assert_eq!(passwords.trim(), "0", "a password is in the journal");
}

#[test]
fn the_units_are_sound_and_closed() {
    let system = Container::start();
    let deb = Packages::get().deb("1");
    fs::copy(deb, system.lab().join("relaykey.deb")).expect("the package inside");
    system.sh("apt-get install --yes /lab/relaykey.deb 2>&1");
    let said = system.sh("systemd-analyze verify relaykey.service relaykey.socket relaykey-deregister.service 2>&1");
    assert_eq!(said, "");
    let table = system.sh("systemd-analyze security --no-pager relaykey.service");
    let exposure =
        table.lines().find_map(|l| l.split_once("exposure level for relaykey.service: ")).expect("a figure").1;
    let exposure: f64 = exposure.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(exposure <= 2.8, "less closed than it was: {table}");
    // Not configured, nothing is started by a boot.
    system.sh("rm /etc/relaykey/config.toml && systemctl enable relaykey && systemctl start relaykey");
    assert_eq!(system.property("relaykey", "ConditionResult"), "no");
    assert_eq!(system.property("relaykey", "ActiveState"), "inactive");
}

#[test]
fn a_service_that_is_stuck_is_restarted() {
    let server = MailServer::new("AKIAFIRST");
    let system = &server.system;
    let quick = "[Service]\nWatchdogSec=4s\nRestartSec=100ms\n";
    system.put("/etc/systemd/system/relaykey.service.d/quick.conf", quick, "0644");
    server.install("1");
    server.publish("AKIAFIRST");
    system.put("/etc/relaykey/config.toml", &server.config(""), "0644");
    system.sh("systemctl enable --now relaykey");
    let pid = system.property("relaykey", "MainPID");

    // Its loop reports again and again.
    let fed = "systemctl show --value -p WatchdogTimestampMonotonic relaykey";
    for _ in 0..3 {
        let last = system.sh(fed);
        system.wait("a sign of life", SOON, &format!("[ \"$({fed})\" != {} ]", last.trim()));
    }
    assert_eq!(system.property("relaykey", "NRestarts"), "0");

    system.sh(&format!("kill -STOP {pid}"));
    let another = format!(
        "[ $(systemctl show --value -p NRestarts relaykey) = 1 ] && [ $(systemctl show --value -p ActiveState relaykey) = \
         active ] && [ $(systemctl show --value -p MainPID relaykey) != {pid} ]"
    );
    system.wait("another process", SOON, &another);
    let journal = system.sh("journalctl --no-pager -u relaykey");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    assert!(
        !Path::new(&format!("/proc/{pid}/cwd")).exists() || !system.run(&format!("kill -0 {pid}")).status.success()
    );
    server.publish("AKIASECOND");
    server.wait_applied("AKIASECOND");
    assert_eq!(server.send(), "AKIASECOND");
}

#[test]
fn a_stop_in_the_middle_of_a_rollover_tears_nothing() {
    // A reload that takes until somebody says so. What the unit lets it write to is below /var/lib/postfix.
    let slow = "#!/bin/sh\ntouch /var/lib/postfix/begun\nwhile [ ! -e /var/lib/postfix/go ]; do sleep 0.05; done\n\
                postfix reload && touch /var/lib/postfix/done\n";
    let server = MailServer::new("AKIAFIRST");
    let system = &server.system;
    system.put("/usr/local/sbin/slow-reload", slow, "0755");
    server.install("1");
    server.publish("AKIAFIRST");
    system.put("/etc/relaykey/config.toml", &server.config("reload = [\"/usr/local/sbin/slow-reload\"]\n"), "0644");
    system.sh("touch /var/lib/postfix/go && systemctl enable --now relaykey && rm -f /var/lib/postfix/*");
    let pid = system.property("relaykey", "MainPID");

    server.publish("AKIASECOND");
    system.wait("the reload to begin", SOON, "test -e /var/lib/postfix/begun");
    system.sh("systemctl --no-block stop relaykey");
    system.wait("the stop to begin", SOON, "systemctl show -p StatusText relaykey | grep 'stopping, after the step'");
    assert_eq!(system.property("relaykey", "ActiveState"), "deactivating");
    // SIGTERM reached relaykey, and neither ended it nor the reload that it waits for.
    system.sh(&format!("kill -0 {pid} && pgrep -f slow-reload"));
    system.sh("touch /var/lib/postfix/go");
    system.wait("the end", SOON, "systemctl show --value -p ActiveState relaykey | grep -x inactive");
    assert_eq!(system.property("relaykey", "Result"), "success");
    system.sh("test -e /var/lib/postfix/done");
    assert_eq!(server.send(), "AKIASECOND");

    // The next start goes on from there: whatever was left to do is done, and confirmed.
    system.sh("systemctl start relaykey");
    server.wait_applied("AKIASECOND");
    let outcome = &server.status()["credentials"][0]["report"]["outcome"];
    assert_eq!(outcome, "confirmed");
    assert_eq!(server.send(), "AKIASECOND");
}

/// A machine that is made and thrown away, with the unit for that. What it reports is kept where it outlasts the machine.
fn thrown_away() -> MailServer {
    let server = MailServer::new("AKIAFIRST");
    let system = &server.system;
    server.install("1");
    server.publish("AKIAFIRST");
    let command = r#"command = ["/bin/sh", "-c", "cat >> /lab/out/book"]"#;
    let config = server.config("") + &format!("[[report]]\nname = \"book\"\ntype = \"exec\"\n{command}\n");
    system.put("/etc/relaykey/config.toml", &config, "0644");
    system.sh("mkdir -m 0777 /lab/out");
    for unit in ["relaykey", "relaykey-deregister"] {
        let drop_in = format!("/etc/systemd/system/{unit}.service.d/book.conf");
        system.put(&drop_in, "[Service]\nReadWritePaths=/lab/out\n", "0644");
    }
    system.sh("systemctl enable --now relaykey relaykey-deregister");
    system.wait("the first report", SOON, "grep adopted /lab/out/book");
    server
}

/// The outcomes that a machine has reported.
fn reported(server: &MailServer) -> Vec<String> {
    let book = fs::read_to_string(server.system.lab().join("out/book")).expect("reports");
    let report = |line: &str| serde_json::from_str::<Value>(line).expect("a report");
    book.lines().map(|line| report(line)["outcome"].as_str().expect("an outcome").to_owned()).collect()
}

#[test]
fn a_machine_that_is_switched_off_leaves_the_fleet_with_or_without_the_daemon() {
    for stops_before in ["", "systemctl stop relaykey"] {
        let mut server = thrown_away();
        server.system.sh(stops_before);
        server.system.sh("systemctl --no-block poweroff");
        assert_eq!(server.system.ends(), Some(0));
        assert_eq!(reported(&server), ["adopted", "left"], "{stops_before:?}: {}", server.system.console());
    }
}

#[test]
fn a_machine_that_reboots_and_a_unit_that_is_stopped_report_nothing() {
    let mut server = thrown_away();
    let system = &server.system;
    let state = || system.property("relaykey-deregister", "ActiveState");
    // An upgrade leaves it as it is.
    server.install("2");
    assert_eq!(state(), "active");
    system.sh("systemctl stop relaykey-deregister && systemctl start relaykey-deregister");
    assert_eq!(system.property("relaykey-deregister", "Result"), "success");
    // A removed package is stopped and disabled.
    system.sh("apt-get remove --yes relaykey 2>&1");
    assert_eq!(state(), "inactive");
    assert_eq!(system.sh("find /etc/systemd -name 'relaykey*.service'"), "", "left behind");
    server.install("2");
    system.sh("systemctl enable --now relaykey relaykey-deregister");
    system.sh("systemctl --no-block reboot");
    assert_eq!(server.system.ends(), Some(133));
    assert_eq!(reported(&server), ["adopted"], "{}", server.system.console());
}

/// The address stays open while relaykey is restarted, and asking there starts it.
#[test]
fn systemd_may_hold_the_health_endpoints_open() {
    let server = MailServer::new("AKIAFIRST");
    let system = &server.system;
    let port = free_port();
    let places = format!(
        "[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\nListenStream=/run/health.sock\nSocketMode=0660\n"
    );
    system.put("/etc/systemd/system/relaykey.socket.d/places.conf", &places, "0644");
    server.install("1");
    server.publish("AKIAFIRST");
    system.put("/etc/relaykey/config.toml", &server.config(""), "0644");
    system.sh("systemctl enable relaykey && systemctl enable --now relaykey.socket");
    assert_eq!(system.property("relaykey", "ActiveState"), "inactive");

    let ask = format!("curl -sS -f -m 30 http://127.0.0.1:{port}/livez");
    let ask_unix = "curl -sS -f -m 30 --unix-socket /run/health.sock http://localhost/livez";
    system.sh(&ask);
    system.sh(ask_unix);
    system.wait("the start", SOON, "systemctl show --value -p ActiveState relaykey | grep -x active");
    system.sh(&format!("curl -sS -f http://127.0.0.1:{port}/readyz/ses"));

    // Nobody who asks meanwhile is turned away.
    let pid = system.property("relaykey", "MainPID");
    system.sh(&format!("systemctl --no-block restart relaykey; {ask} && {ask_unix}"));
    system.wait("the restart", SOON, &format!("[ $(systemctl show --value -p MainPID relaykey) != {pid} ]"));
    system.sh(&ask);
    let mode = system.sh("stat -c %a /run/health.sock");
    assert_eq!(mode.trim(), "660");
}

#[test]
fn in_the_sandbox_a_report_program_runs_and_an_approval_is_taken() {
    let server = MailServer::new("AKIAFIRST");
    let system = &server.system;
    server.install("1");
    server.publish("AKIAFIRST");
    let manual = "name = \"ses\"\nmode = \"manual\"\n";
    let logger = "command = [\"/usr/bin/logger\", \"-t\", \"relaykey-report\", \"--size\", \"8192\"]";
    let config = server.config("").replacen("name = \"ses\"\n", manual, 1)
        + &format!("[[report]]\nname = \"journal\"\ntype = \"exec\"\n{logger}\n");
    system.put("/etc/relaykey/config.toml", &config, "0644");
    system.sh("systemctl enable --now relaykey");
    // What the program was given stands in the journal, under the user that it ran as.
    let told = |outcome: &str| {
        let script = format!("journalctl --no-pager -t relaykey-report | grep -q '\"outcome\":\"{outcome}\"'");
        system.wait(&format!("the report {outcome}"), SOON, &script);
        let lines = server.journal("-t relaykey-report");
        let report = |line: &Value| serde_json::from_str::<Value>(line["MESSAGE"].as_str()?).ok();
        let found = lines.iter().find(|l| report(l).is_some_and(|r| r["outcome"] == outcome)).expect("it is there");
        assert_eq!(found["_UID"], "65534", "{found}");
        report(found).expect("a report")
    };
    assert_eq!(told("adopted")["username"], "AKIAFIRST");

    server.publish("AKIASECOND");
    let held = "relaykey status --json | grep -q '\"for_approval\": *true'";
    system.wait("the version to wait for approval", SOON, held);
    assert_eq!(server.send(), "AKIAFIRST");
    assert_eq!(told("pending-approval")["username"], "AKIASECOND");
    let waits = server.journal("MESSAGE_ID=6e5824c78e1e4415a855359d8b2dede9");
    assert!(waits[0]["RELAYKEY_FIX"].as_str().is_some_and(|fix| fix.contains("relaykey approve ses")), "{waits:?}");

    system.sh("relaykey approve ses");
    assert_eq!(server.applied().as_deref(), Some("AKIASECOND"));
    assert_eq!(server.send(), "AKIASECOND");
    let confirmed = told("confirmed");
    assert_eq!((&confirmed["username"], &confirmed["approved_by"]), (&"AKIASECOND".into(), &"root".into()));
}
