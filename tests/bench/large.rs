//! What `tests/bench/large` runs: a rollover in a table of a million relays, and the daemon beside it at rest.
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

const REGION: &str = "us-east-1";
/// The longest that one thing may take here.
const LIMIT: Duration = Duration::from_secs(300);
/// What /proc/PID/stat counts in, in a second.
const TICKS: f64 = 100.0;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scratch, entries, programs @ ..] = &arguments[..] else {
        eprintln!("bench-large: run tests/bench/large");
        return ExitCode::FAILURE;
    };
    let entries = entries.parse().unwrap_or(1_000_000);
    for program in programs {
        if let Err(what) = measure(Path::new(scratch), Path::new(program), entries) {
            eprintln!("bench-large: {what}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(scratch: &Path, program: &Path, entries: usize) -> Result<()> {
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
    let table = postfix.table();
    let mut text = fs::read_to_string(&table).map_err(|e| e.to_string())?;
    for n in 0..entries {
        let _ = writeln!(text, "[relay{n:07}.customers.example.net]:587 user{n:07}:password-of-a-customer-{n:07}");
    }
    write(&table, &text)?;
    let size = text.len() as f64;
    drop(text);
    let postmap = |option: Option<&str>| -> Result<f64> {
        let began = Instant::now();
        let mut command = Command::new("/usr/sbin/postmap");
        command.arg("-c").arg(postfix.config_dir()).args(option).arg(format!("hash:{}", table.display()));
        let done = command.stdout(Stdio::null()).status().map_err(|e| e.to_string())?;
        if done.success() { Ok(began.elapsed().as_secs_f64()) } else { Err("postmap failed".into()) }
    };
    let compile = postmap(None)?;
    let listings = postmap(Some("-s"))? + postmap(Some("-s"))?;
    let source = base.join("credential");
    let config = base.join("config.toml");
    write(&config, &configuration(&base, &source, port, &ca, &postfix.config_dir()))?;
    let map = table.with_extension("db");

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
    let _ = Command::new("kill").arg(daemon.id().to_string()).status();
    let _ = daemon.wait();
    postfix.inject("the last message").map_err(|e| format!("the private Postfix: {e}"))?;

    let mib = |bytes: f64| bytes / 1_048_576.0;
    println!("{}: {entries} entries, text {:.1} MiB", program.display(), mib(size));
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
    Ok(())
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

fn start(program: &Path, config: &Path, arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
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
