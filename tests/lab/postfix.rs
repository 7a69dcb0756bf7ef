//! Private Postfix instances for integration tests: their own configuration, queue, log and loopback port; nothing of
//! the system's Postfix is touched. They need root, as Postfix
//! does.

use super::scratch;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// What an instance is made of.
pub struct Options<'a> {
    /// Kind of the login table: `hash`, `btree`, `lmdb`, `cdb`, `texthash`.
    pub map_type: &'a str,
    /// As main.cf spells it, for instance `[127.0.0.1]:12587`.
    pub relayhost: &'a str,
    /// What the relay's certificate is checked against; `None`: TLS without a check.
    pub ca_pem: Option<&'a Path>,
    /// The text of the login table; it is compiled. `None`: there is no such file.
    pub table: Option<&'a str>,
    /// Further settings, which win over the ones made here.
    pub settings: &'a [(&'a str, &'a str)],
}

/// One private instance. Dropped, it is stopped and its directory removed.
pub struct Instance {
    /// Holds all that belongs to it.
    pub base: PathBuf,
    /// Removes it at the end, where that is for the instance to do.
    pub _directory: Option<TempDir>,
    pub config_dir: PathBuf,
    pub map_type: String,
    /// Where its own SMTP server listens, on 127.0.0.1, once it is started.
    pub smtpd_port: u16,
}

/// A port of 127.0.0.1 that no other test gets while this process lives, although nothing may listen there for a while. Below
/// those that the system gives away by itself.
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<fs::File>> = Mutex::new(Vec::new());
    let dir = std::env::temp_dir().join(format!("relaykey-test-ports-{}", rustix::process::getuid().as_raw()));
    fs::create_dir_all(&dir).expect("a directory for locks");
    let first = getrandom::u32().expect("a random number");
    for n in 0..10_000 {
        let port = 20_000 + u16::try_from(first.wrapping_add(n) % 10_000).expect("below 10,000");
        let lock = fs::File::create(dir.join(port.to_string())).expect("a lock file");
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return port;
        }
    }
    panic!("every port from 20,000 to 29,999 is taken");
}

/// Waits until `ready` gives something; panics with what it waited for when the time is over.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        sleep(Duration::from_millis(20));
    }
}

/// Makes a file look older than it is. Postfix reads main.cf and `texthash:` tables again and again, for up to two
/// seconds, while they look as if somebody were still writing to them; tests need not wait for that.
pub fn cool_down(file: &Path) {
    let past = SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(file).and_then(|f| f.set_modified(past)).expect("the file can be dated back");
}

fn make_directory(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// What `postfix start` makes in a queue directory that is empty (postfix-files(5)), so that it need not: its shell scripts take
/// ten times as long as the start itself.
fn make_queue(base: &Path) {
    let spool = base.join("spool");
    let (mut of_postfix, mut of_postdrop) = (vec![base.join("data")], Vec::new());
    for (name, mode) in [("pid", 0o755), ("public", 0o710), ("maildrop", 0o730)] {
        make_directory(&spool.join(name), mode);
        if name != "pid" {
            of_postdrop.push(spool.join(name));
        }
    }
    for name in
        ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"]
    {
        make_directory(&spool.join(name), 0o700);
        of_postfix.push(spool.join(name));
    }
    for (owner, paths) in [("postfix", of_postfix), ("postfix:postdrop", of_postdrop)] {
        let owned = Command::new("chown").arg(owner).args(paths).status().expect("chown");
        assert!(owned.success(), "there is no user postfix or no group postdrop, or this is not root");
    }
}

impl Instance {
    /// Writes configuration and table; starts nothing.
    pub fn new(options: &Options<'_>) -> Self {
        let directory = scratch::directory("pf", 0o755);
        let base = directory.path().to_owned();
        let name = base.file_name().and_then(OsStr::to_str).expect("UTF-8").to_owned();
        let config_dir = base.join("etc");
        // Postfix's own user walks through these.
        for directory in [&config_dir, &base.join("spool"), &base.join("data"), &base.join("log")] {
            make_directory(directory, 0o755);
        }
        make_queue(&base);

        let instance = Self {
            config_dir,
            map_type: options.map_type.to_owned(),
            smtpd_port: free_port(),
            base,
            _directory: Some(directory),
        };
        let mut main_cf = relaykey::standin::postfix::main_cf(&instance.base, &name);
        main_cf += &format!(
            "relayhost = {relayhost}\n\
             smtp_sasl_password_maps = {kind}:{table}\n\
             smtp_tls_security_level = {level}\n",
            relayhost = options.relayhost,
            kind = options.map_type,
            table = instance.table().display(),
            level = if options.ca_pem.is_some() { "verify" } else { "encrypt" },
        );
        if let Some(ca_pem) = options.ca_pem {
            main_cf += &format!("smtp_tls_CAfile = {}\n", ca_pem.display());
        }
        instance.write_main_cf(&main_cf);
        for (name, value) in options.settings {
            instance.set(name, value);
        }
        let master_cf = relaykey::standin::postfix::master_cf(instance.smtpd_port);
        fs::write(instance.config_dir.join("master.cf"), master_cf).unwrap();
        if let Some(text) = options.table {
            instance.write_table(text);
            instance.postmap();
        }
        instance
    }

    pub fn main_cf(&self) -> PathBuf {
        self.config_dir.join("main.cf")
    }

    /// The text of the login table.
    pub fn table(&self) -> PathBuf {
        self.config_dir.join("sasl_passwd")
    }

    /// The login table as main.cf names it.
    pub fn table_id(&self) -> relaykey::mta::TableId {
        let text = fs::read_to_string(self.main_cf()).unwrap();
        let set = text.lines().rev().filter_map(|line| line.split_once(" = "));
        let maps = set.filter(|(name, _)| *name == "smtp_sasl_password_maps").map(|(_, maps)| maps).next();
        relaykey::mta::TableId::new(maps.expect("main.cf names one"))
    }

    /// What `postmap` makes of it; the text itself where that is what Postfix reads.
    pub fn map(&self) -> PathBuf {
        self.config_dir.join(match self.map_type.as_str() {
            "texthash" => "sasl_passwd",
            "lmdb" => "sasl_passwd.lmdb",
            "cdb" => "sasl_passwd.cdb",
            _ => "sasl_passwd.db",
        })
    }

    /// Writes the text in place (0600), without compiling it.
    pub fn write_table(&self, text: &str) {
        fs::write(self.table(), text).unwrap();
        fs::set_permissions(self.table(), fs::Permissions::from_mode(0o600)).unwrap();
        cool_down(&self.table());
    }

    /// Compiles the text, where the kind is compiled.
    pub fn postmap(&self) {
        if self.map_type != "texthash" {
            let table = format!("{}:{}", self.map_type, self.table().display());
            expect(self.command("postmap").arg(&table), "postmap");
        }
    }

    /// What the table gives for a key, as Postfix finds it.
    pub fn query(&self, key: &str) -> String {
        let table = format!("{}:{}", self.map_type, self.table().display());
        let output = self.command("postmap").args(["-q", key, &table]).output().expect("postmap starts");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Writes main.cf.
    pub fn write_main_cf(&self, text: &str) {
        fs::write(self.main_cf(), text).unwrap();
        cool_down(&self.main_cf());
    }

    /// Sets a parameter of main.cf, in place.
    pub fn set(&self, name: &str, value: &str) {
        let text = fs::read_to_string(self.main_cf()).unwrap();
        let is_it = |line: &&str| line.split_once('=').is_some_and(|(have, _)| have.trim() == name);
        let mut lines: Vec<&str> = text.lines().filter(|line| !is_it(line)).collect();
        let line = format!("{name} = {value}");
        lines.push(&line);
        self.write_main_cf(&(lines.join("\n") + "\n"));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(format!("/usr/sbin/{program}"));
        command.arg("-c").arg(&self.config_dir);
        command
    }

    /// Starts it and waits until its SMTP server greets. As `postfix start` ends up doing, without the scripts before it, which look
    /// through a queue that is made as it should be.
    pub fn start(&self) {
        let mut master = Command::new("/usr/lib/postfix/sbin/master");
        master.arg("-w").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("MAIL_CONFIG", &self.config_dir);
        match self.base.join("spool/pid").is_dir() {
            true => expect(&mut master, "master -w"),
            // The scripts make the queue of an instance that was not made here.
            false => expect(self.command("postfix").arg("start"), "postfix start"),
        };
        wait_for("the instance's SMTP server", Duration::from_secs(15), || Smtp::connect(self.smtpd_port).ok());
    }

    /// Stops it, as `postfix stop` does, and waits until its master is gone.
    pub fn stop(&self) {
        assert!(self.terminate(), "it does not run");
        wait_for("the master process to end", Duration::from_secs(15), || self.master().is_none().then_some(()));
    }

    /// Tells its master to end, where it runs.
    fn terminate(&self) -> bool {
        let master = self.master().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        master.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok())
    }

    pub fn reload(&self) {
        expect(self.command("postfix").arg("reload"), "postfix reload");
    }

    /// The process id of its master, while that runs.
    pub fn master(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.base.join("spool/pid/master.pid")).ok()?.trim().parse().ok()?;
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let zombie = state.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
        (command.trim() == "master" && !zombie).then_some(pid)
    }

    /// Hands `n` messages to its SMTP server, and panics when one is not taken.
    pub fn inject(&self, n: usize) {
        self.inject_from("sender@lab.invalid", n);
    }

    /// The same, with a sender of choice.
    pub fn inject_from(&self, sender: &str, n: usize) {
        let mut smtp = Smtp::connect(self.smtpd_port).expect("the instance's SMTP server");
        smtp.say("EHLO test.invalid", "250");
        for message in 0..n {
            smtp.say(&format!("MAIL FROM:<{sender}>"), "250");
            smtp.say("RCPT TO:<recipient@example.com>", "250");
            smtp.say("DATA", "354");
            smtp.say(
                &format!("From: <{sender}>\r\nTo: <recipient@example.com>\r\nSubject: {message}\r\n\r\nhello\r\n."),
                "250",
            );
        }
        smtp.say("QUIT", "221");
    }

    /// One JSON document per message in the queue (postqueue(1)).
    pub fn queue(&self) -> Vec<String> {
        let output = expect(self.command("postqueue").arg("-j"), "postqueue -j");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Waits until every message has left the queue: delivered, or bounced (the log says which). One that smtp(8) was delivering
    /// while Postfix read its configuration anew is delivered, and stays where it is until qmgr(8) looks at it again, which is
    /// `minimal_backoff_time` later: of such it is asked for at once.
    pub fn queue_empty(&self, limit: Duration) {
        let start = Instant::now();
        loop {
            let left = self.queue();
            if left.is_empty() {
                return;
            }
            let log = self.log();
            let is_sent = |message: &String| {
                let message: serde_json::Value = serde_json::from_str(message).expect("a document of postqueue");
                let id = format!("{}:", message["queue_id"].as_str().expect("a queue id"));
                log.lines().any(|line| line.contains(&id) && line.contains("status=sent"))
            };
            if left.iter().all(is_sent) {
                self.flush();
            }
            assert!(start.elapsed() < limit, "the queue is not empty after {limit:?}:\n{}", self.log());
            sleep(Duration::from_millis(50));
        }
    }

    /// Tries everything in the queue again.
    pub fn flush(&self) {
        expect(self.command("postqueue").arg("-f"), "postqueue -f");
    }

    /// Its mail log so far.
    pub fn log(&self) -> String {
        fs::read(self.base.join("log/mail.log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Waits until a line of the log contains all of these words.
    pub fn wait_for_log(&self, words: &[&str], limit: Duration) -> String {
        wait_for(&format!("{words:?} in the mail log"), limit, || {
            self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.master().is_some() {
            self.terminate();
            let start = Instant::now();
            while self.master().is_some() && start.elapsed() < Duration::from_secs(10) {
                sleep(Duration::from_millis(20));
            }
            // By its own number: a lab must leave nothing running behind.
            if let Some(pid) = self.master() {
                let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
            }
        }
        if std::thread::panicking() {
            eprintln!("mail log of {}:\n{}", self.base.display(), self.log());
        }
    }
}

fn expect(command: &mut Command, what: &str) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(output.status.success(), "{what}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

/// As much SMTP as it takes to hand over a message.
struct Smtp(BufReader<TcpStream>);

impl Smtp {
    fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut smtp = Self(BufReader::new(stream));
        match smtp.reply()? {
            reply if reply.starts_with("220") => Ok(smtp),
            reply => Err(std::io::Error::other(reply)),
        }
    }

    fn reply(&mut self) -> std::io::Result<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    fn say(&mut self, line: &str, expected: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("the SMTP server listens");
        let reply = self.reply().expect("the SMTP server answers");
        assert!(reply.starts_with(expected), "{line:?} was answered {reply:?}");
    }
}
