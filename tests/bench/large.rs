//! What `tests/bench/large` runs: a rollover in tables of a million relays, and the daemon beside it at rest.
//!
//! Everything is read from outside: the clock, and what /proc says of a process. Nothing here fails because of a figure.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use relaykey::credential::{Login, Secret, ses_smtp_password};
use relaykey::standin::postfix::PostfixInstance;
use relaykey::standin::{self, Standin};

/// What the daemon is started with on a host.
const UNIT: &str = include_str!("../../systemd/relaykey.service");
const REGION: &str = "us-east-1";
/// The longest that one thing may take here.
const LIMIT: Duration = Duration::from_secs(300);
/// What /proc/PID/stat counts in, in a second.
const TICKS: f64 = 100.0;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scratch, entries, services, tables, programs @ ..] = &arguments[..] else {
        eprintln!("bench-large: run tests/bench/large");
        return ExitCode::FAILURE;
    };
    let number = |text: &String, otherwise| text.parse::<usize>().unwrap_or(otherwise).max(1);
    let size = Size { entries: number(entries, 1_000_000), services: number(services, 1), tables: number(tables, 1) };
    for program in programs {
        if let Err(what) = measure(Path::new(scratch), Path::new(program), size) {
            eprintln!("bench-large: {what}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What the mail server is made of.
#[derive(Clone, Copy)]
struct Size {
    /// Of other relays, in all tables together.
    entries: usize,
    /// Which log in at the relay, each by a table of its own; the last one by all tables that are left.
    services: usize,
    tables: usize,
}

fn measure(scratch: &Path, program: &Path, Size { entries, services, tables }: Size) -> Result<()> {
    let standin = Standin::start(standin::Options::default()).map_err(|e| format!("the SES stand-in: {e}"))?;
    let logins = (1..=3).map(login).collect::<Result<Vec<_>>>()?;
    for login in &logins {
        standin.set_key(&login.username, &login.password);
    }
    let base = scratch.join(program.to_string_lossy().replace('/', "_"));
    fs::create_dir(&base).map_err(|e| format!("{}: {e}", base.display()))?;
    let ca = base.join("ca.pem");
    write(&ca, standin.ca_pem())?;
    let port = standin.starttls_port();
    let postfix = PostfixInstance::new(&base, "hash", "localhost", port, &ca, &logins[0])
        .and_then(|mut postfix| postfix.start().map(|()| postfix))
        .map_err(|e| format!("the private Postfix: {e}"))?;
    let first = postfix.table();
    let ours = fs::read_to_string(&first).map_err(|e| e.to_string())?;
    let all: Vec<PathBuf> = (0..tables.max(services)).map(|n| first.with_extension(format!("{n}"))).collect();
    let mut size = 0.0;
    for (part, table) in all.iter().enumerate() {
        let mut text = ours.clone();
        for n in (part..entries).step_by(all.len()) {
            let _ = writeln!(text, "[relay{n:07}.customers.example.net]:587 user{n:07}:password-of-a-customer-{n:07}");
        }
        write(table, &text)?;
        size += text.len() as f64;
    }
    let postmap = |option: Option<&str>| -> Result<f64> {
        let began = Instant::now();
        for table in &all {
            let mut command = Command::new("/usr/sbin/postmap");
            command.arg("-c").arg(postfix.config_dir()).args(option).arg(format!("hash:{}", table.display()));
            let done = command.stdout(Stdio::null()).status().map_err(|e| e.to_string())?;
            if !done.success() {
                return Err("postmap failed".into());
            }
        }
        Ok(began.elapsed().as_secs_f64())
    };
    let compile = postmap(None)?;
    let listings = postmap(Some("-s"))? + postmap(Some("-s"))?;
    settle(&postfix, &all, services)?;
    let source = base.join("credential");
    let config = base.join("config.toml");
    write(&config, &configuration(&base, &source, port, &ca, &postfix.config_dir()))?;
    let mut map = all[0].clone().into_os_string();
    map.push(".db");
    let map = PathBuf::from(map);

    write(&source, &pair(&logins[1]))?;
    let began = Instant::now();
    let mut sync = start(program, &config, &["sync"])?;
    let mut used = Used::default();
    while sync.try_wait().map_err(|e| e.to_string())?.is_none() {
        used = Used::of(sync.id()).unwrap_or(used);
        std::thread::sleep(Duration::from_millis(10));
    }
    let wall = began.elapsed().as_secs_f64();
    if !sync.wait().map_err(|e| e.to_string())?.success() {
        return Err(format!("{} sync failed", program.display()));
    }

    let mut daemon = start(program, &config, &["run"])?;
    let before = mtime(&map)?;
    std::thread::sleep(Duration::from_secs(10));
    write(&source, &pair(&logins[2]))?;
    let began = Instant::now();
    while mtime(&map)? == before {
        if began.elapsed() > LIMIT {
            return Err("the daemon rolls nothing over".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Until the reload, the read-back and the confirmation are over, and nothing counts as just changed.
    std::thread::sleep(Duration::from_secs(20));
    let at = Used::of(daemon.id()).ok_or("the daemon is gone")?;
    std::thread::sleep(Duration::from_secs(20));
    let rest = Used::of(daemon.id()).ok_or("the daemon is gone")?;
    let children = children(daemon.id(), Duration::from_secs(20));
    let _ = Command::new("kill").arg(daemon.id().to_string()).status();
    let _ = daemon.wait();
    postfix.inject("the last message").map_err(|e| format!("the private Postfix: {e}"))?;

    let mib = |bytes: f64| bytes / 1_048_576.0;
    println!(
        "{}: {entries} entries in {} tables of {services} services, text {:.1} MiB",
        program.display(),
        all.len(),
        mib(size)
    );
    println!("  postmap alone                    {compile:7.2} s");
    println!("  two listings                     {listings:7.2} s");
    println!(
        "  sync                             {wall:7.2} s   {:.2} of postmap and listings (aim 1.3)",
        wall / (compile + listings)
    );
    println!("  sync, CPU of it and its children {:7.2} s", used.cpu);
    println!(
        "  sync, peak RSS                   {:7.1} MiB {:.2} of the text (aim 3)",
        mib(used.peak),
        used.peak / size
    );
    println!("  daemon, peak RSS                 {:7.1} MiB", mib(rest.peak));
    println!("  daemon after a rollover, RSS     {:7.1} MiB", mib(rest.resident));
    println!("  daemon, CPU of 20 s at rest      {:7.2} s   at a poll every 5 s", rest.cpu - at.cpu);
    match children {
        Some(children) => println!("  daemon, children in 20 s at rest {children:7}     at a poll every 5 s"),
        None => println!("  daemon, children at rest: not counted, there is no strace"),
    }
    Ok(())
}

/// The tables come to their services: the first to smtp(8), each further one to a service of its own, which mail of a domain of
/// its own takes; those that are left to the last service.
fn settle(postfix: &PostfixInstance, tables: &[PathBuf], services: usize) -> Result<()> {
    let maps = |tables: &[PathBuf]| {
        tables.iter().map(|table| format!("hash:{}", table.display())).collect::<Vec<_>>().join(",")
    };
    let of = |service: usize| match service + 1 == services {
        true => maps(&tables[service..]),
        false => maps(&tables[service..=service]),
    };
    let postconf = |arguments: &[&str]| {
        let done = Command::new("/usr/sbin/postconf").arg("-c").arg(postfix.config_dir()).args(arguments).status();
        match done {
            Ok(done) if done.success() => Ok(()),
            done => Err(format!("postconf {arguments:?}: {done:?}")),
        }
    };
    postconf(&["-e", &format!("smtp_sasl_password_maps={}", of(0))])?;
    let mut routes = String::new();
    for service in 1..services {
        postconf(&["-M", &format!("out{service}/unix=out{service} unix - - n - - smtp")])?;
        postconf(&["-P", &format!("out{service}/unix/smtp_sasl_password_maps={}", of(service))])?;
        let _ = write!(routes, "{{domain{service}.example = out{service}:}} ");
    }
    if services > 1 {
        postconf(&["-e", &format!("transport_maps=inline:{{{routes}}}")])?;
    }
    let done = Command::new("/usr/sbin/postfix").arg("-c").arg(postfix.config_dir()).arg("reload").output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        done => Err(format!("postfix reload: {done:?}")),
    }
}

/// How many programs a process starts in this time; `None`: strace(1) is missing.
fn children(pid: u32, during: Duration) -> Option<usize> {
    let mut strace = Command::new("timeout");
    strace.args([&during.as_secs().to_string(), "strace", "-f", "-qq", "-e", "trace=execve", "-e", "signal=none"]);
    let said = strace.args(["-p", &pid.to_string()]).stderr(Stdio::piped()).stdout(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&said.stderr);
    (!said.contains("failed to run command")).then(|| said.matches(") = 0").count())
}

/// What a process has used.
#[derive(Clone, Copy, Default)]
struct Used {
    /// Seconds, of its children too.
    cpu: f64,
    resident: f64,
    peak: f64,
}

impl Used {
    /// `None`: it has ended.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let times = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).take(4);
        let ticks: f64 = times.filter_map(|field| field.parse::<f64>().ok()).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_ascii_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
        };
        Some(Self { cpu: ticks / TICKS, resident: of("VmRSS:")?, peak: of("VmHWM:")? })
    }
}

fn configuration(base: &Path, source: &Path, port: u16, ca: &Path, postfix: &Path) -> String {
    format!(
        "config_version = 1\n[host]\nname = \"bench.example.com\"\nstate_dir = \"{base}/state\"\nrun_dir = \"{base}/run\"\n\
         [[credential]]\nname = \"ses\"\n[credential.source]\ntype = \"file\"\npath = \"{source}\"\npoll = \"5s\"\n\
         [credential.smtp]\nendpoint = \"localhost\"\nport = {port}\nregion = \"{REGION}\"\nca_file = \"{ca}\"\n\
         [[credential.target]]\ntype = \"postfix\"\nconfig_dir = \"{postfix}\"\n",
        base = base.display(),
        source = source.display(),
        ca = ca.display(),
        postfix = postfix.display(),
    )
}

/// Started with the environment that the unit gives it.
fn start(program: &Path, config: &Path, arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command.envs(UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('=')));
    command.spawn().map_err(|e| format!("{}: {e}", program.display()))
}

fn mtime(file: &Path) -> Result<std::time::SystemTime> {
    fs::metadata(file).and_then(|m| m.modified()).map_err(|e| format!("{}: {e}", file.display()))
}

fn login(number: u32) -> Result<Login> {
    let password = ses_smtp_password(&Secret::new(format!("{number:040}")), REGION);
    Login::new(format!("AKIABENCH{number:011}"), password).map_err(|e| e.to_string())
}

fn pair(login: &Login) -> String {
    format!("{}:{}", login.username, login.password.expose())
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))
}
