//! A private Postfix instance that relays to the stand-in: its own configuration, queue, log and loopback port. It
//! touches nothing of the system's Postfix, and needs root, as Postfix does. `relaykey demo` shows its rollovers on one.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::credential::Login;
use crate::host::trust;

/// What an instance needs to take mail on a loopback port and to relay it; no chroot, so that no system file has to be
/// copied into the queue directory (master(5)).
const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
";

/// The settings of an instance that lives below `base` and relays everything: all but the relay, its login table and how
/// its certificate is checked.
pub fn main_cf(base: &Path, name: &str) -> String {
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {base}/spool\n\
         data_directory = {base}/data\n\
         multi_instance_name = postfix-{name}\n\
         multi_instance_enable = yes\n\
         maillog_file = {base}/log/mail.log\n\
         maillog_file_prefixes = {base}\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         myhostname = lab.invalid\n\
         mydestination =\n\
         local_recipient_maps =\n\
         alias_maps =\n\
         alias_database =\n\
         mynetworks = 127.0.0.0/8\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\n\
         disable_dns_lookups = yes\n\
         smtp_dns_support_level = disabled\n\
         smtp_host_lookup = native\n\
         smtp_sasl_auth_enable = yes\n\
         smtp_sasl_security_options = noanonymous\n\
         smtp_sasl_tls_security_options = noanonymous\n",
        base = base.display(),
    )
}

/// Its services, with an SMTP server on this port of 127.0.0.1.
pub fn master_cf(port: u16) -> String {
    format!("127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}")
}

/// How long a start may take, until its SMTP server greets.
const START: Duration = Duration::from_secs(20);

/// One private instance. Dropped, it is stopped.
pub struct PostfixInstance {
    base: PathBuf,
    port: u16,
    started: bool,
}

impl PostfixInstance {
    /// Is there a Postfix on this host to make instances of?
    pub fn installed() -> bool {
        ["/usr/sbin/postfix", "/usr/sbin/postconf", "/usr/sbin/postmap"].iter().all(|p| Path::new(p).is_file())
    }

    /// Writes configuration and table below `scratch`, which every user must be able to walk through. The next hop is
    /// `[relay]:relay_port`, checked against the certificates in `ca_file`, with `login` in a table of `map_type`.
    ///
    /// # Errors
    /// A file cannot be written, `postmap` fails, or there is no user `postfix`.
    pub fn new(
        scratch: &Path,
        map_type: &str,
        relay: &str,
        relay_port: u16,
        ca_file: &Path,
        login: &Login,
    ) -> io::Result<Self> {
        let base = scratch.join("postfix");
        for dir in ["", "etc", "spool", "data", "log"] {
            let dir = base.join(dir);
            fs::DirBuilder::new().mode(0o755).create(&dir)?;
            // Whatever the umask is, Postfix's own user walks through these.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        }
        let id = Command::new(trusted("id")?).args(["-u", "postfix"]).output()?;
        let uid = String::from_utf8_lossy(&id.stdout)
            .trim()
            .parse()
            .map_err(|_| io::Error::other("there is no user postfix"))?;
        chown(base.join("data"), Some(uid), None)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let instance = Self { base, port, started: false };
        let etc = instance.config_dir();
        let mut main_cf = main_cf(&instance.base, "relaykey-demo");
        main_cf += &format!(
            "relayhost = [{relay}]:{relay_port}\n\
             smtp_sasl_password_maps = {map_type}:{}\n\
             smtp_tls_security_level = verify\n\
             smtp_tls_CAfile = {}\n",
            instance.table().display(),
            ca_file.display(),
        );
        open(&etc.join("main.cf"), &main_cf)?;
        open(&etc.join("master.cf"), &master_cf(port))?;
        // Read from the configuration directory: without it lmdb: and cdb: are "unsupported dictionary types".
        if Path::new("/etc/postfix/dynamicmaps.cf").is_file() {
            open(&etc.join("dynamicmaps.cf"), &fs::read_to_string("/etc/postfix/dynamicmaps.cf")?)?;
        }
        open(ca_file, &fs::read_to_string(ca_file)?)?;
        let text = zeroize::Zeroizing::new(format!(
            "# relays of the demo\n[{relay}]:{relay_port} {}:{}\n",
            login.username,
            login.password.expose()
        ));
        let mut table = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(instance.table())?;
        table.write_all(text.as_bytes())?;
        instance.command("postmap", &[&format!("{map_type}:{}", instance.table().display())])?;
        Ok(instance)
    }

    pub fn config_dir(&self) -> PathBuf {
        self.base.join("etc")
    }

    /// The text of the login table.
    pub fn table(&self) -> PathBuf {
        self.base.join("etc/sasl_passwd")
    }

    /// Starts it and waits until its SMTP server greets.
    ///
    /// # Errors
    /// `postfix start` fails, or nothing greets in time.
    pub fn start(&mut self) -> io::Result<()> {
        self.command("postfix", &["start"])?;
        self.started = true;
        let deadline = Instant::now() + START;
        loop {
            match PlainSession::open(self.port) {
                Ok(session) => return session.quit(),
                Err(e) if Instant::now() > deadline => {
                    return Err(io::Error::other(format!("its SMTP server did not greet within {START:?}: {e}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Hands it one message with this subject.
    ///
    /// # Errors
    /// It was not taken.
    pub fn inject(&self, subject: &str) -> io::Result<()> {
        let mut session = PlainSession::open(self.port)?;
        session.say("HELO demo.invalid", "250")?;
        session.say("MAIL FROM:<demo@demo.invalid>", "250")?;
        session.say("RCPT TO:<you@example.com>", "250")?;
        session.say("DATA", "354")?;
        session.say(
            &format!("From: demo@demo.invalid\r\nTo: you@example.com\r\nSubject: {subject}\r\n\r\nhello\r\n."),
            "250",
        )?;
        session.quit()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> io::Result<()> {
        let program = format!("/usr/sbin/{program}");
        let output = Command::new(trusted(&program)?).arg("-c").arg(self.config_dir()).args(arguments).output()?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), words.trim())))
    }
}

/// Where a program is, if nobody else could have put another in its place.
fn trusted(program: &str) -> io::Result<PathBuf> {
    let checked = trust::program(program.as_ref()).map_err(|e| io::Error::other(format!("{e}; fix: {}", e.fix())))?;
    Ok(checked.path)
}

impl Drop for PostfixInstance {
    fn drop(&mut self) {
        if self.started {
            let _ = self.command("postfix", &["stop"]);
        }
    }
}

/// Makes a file that Postfix's own users can read, whatever the umask is.
fn open(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// A plain SMTP session with the instance (RFC 5321).
struct PlainSession(BufReader<TcpStream>);

impl PlainSession {
    fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(START))?;
        let mut session = Self(BufReader::new(stream));
        session.expect("the greeting", "220")?;
        Ok(session)
    }

    fn say(&mut self, line: &str, code: &str) -> io::Result<()> {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.expect(line, code)
    }

    fn expect(&mut self, what: &str, code: &str) -> io::Result<()> {
        loop {
            let mut reply = String::new();
            self.0.read_line(&mut reply)?;
            if !reply.starts_with(code) {
                let what = what.lines().next().unwrap_or_default();
                return Err(io::Error::other(format!("{what} was answered with {:?}", reply.trim())));
            }
            if reply.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }

    fn quit(mut self) -> io::Result<()> {
        self.say("QUIT", "221")
    }
}
