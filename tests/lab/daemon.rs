//! `relaykey run` on a host of the lab, watched over HTTP and the command line.
//!

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::postfix::{Instance, free_port};
use super::relaykey::{self as lab, DELIVERY, Host, Key, Program, Ran, Setup};

/// The longest that the daemon may take to do what it was woken for.
pub const SOON: Duration = Duration::from_secs(20);
/// The longest that it may take to end where nothing has to be finished first.
pub const AT_ONCE: Duration = Duration::from_secs(2);
/// The shortest poll there is.
pub const OFTEN: &str = "poll = \"5s\"\n";
/// A poll that does not come in a test.
pub const NEVER: &str = "poll = \"24h\"\n";

/// `relaykey run`, with HTTP.
pub struct Daemon<'a> {
    pub host: &'a Host,
    pub program: Program,
    pub port: u16,
}

/// The lines that make it answer on this port.
pub fn health(port: u16) -> String {
    format!("[health]\nlisten = [\"127.0.0.1:{port}\"]\n")
}

impl Host {
    /// Writes a configuration with HTTP and starts the daemon.
    pub fn run(&self, setup: &Setup<'_>) -> Daemon<'_> {
        let port = free_port();
        self.configure(&Setup { more: &(health(port) + setup.more), ..*setup });
        self.run_configured(port)
    }

    /// Starts the daemon with the configuration that is there, and waits until it has looked for the first time.
    pub fn run_configured(&self, port: u16) -> Daemon<'_> {
        let daemon = Daemon { host: self, program: self.start(&["run"]), port };
        daemon.looked();
        daemon
    }
}

impl<'a> Daemon<'a> {
    /// One request, without a second try.
    pub fn ask(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(SOON))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", self.port)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        match (status, answer.split_once("\r\n\r\n")) {
            (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
            _ => Err(std::io::Error::other(format!("no HTTP: {answer:?}"))),
        }
    }

    /// Status code and body.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask(path).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// The document.
    #[track_caller]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").1).expect("JSON")
    }

    /// Of one credential.
    #[track_caller]
    pub fn credential(&self, name: &str) -> Value {
        let status = self.status();
        let all = status["credentials"].as_array().expect("a list");
        all.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}")).clone()
    }

    /// Waits until the document shows something.
    #[track_caller]
    pub fn shows<T>(&self, what: &str, limit: Duration, shown: impl Fn(&Value) -> Option<T>) -> T {
        let mut last = Value::Null;
        let start = Instant::now();
        loop {
            if let Ok((200, body)) = self.ask("/status") {
                last = serde_json::from_str(&body).expect("JSON");
                if let Some(found) = shown(&last) {
                    return found;
                }
            }
            assert!(
                start.elapsed() < limit,
                "waited {limit:?} in vain for {what}:\n{}\nthe last status: {last:#}",
                in_short(&last)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until every credential has been looked at.
    #[track_caller]
    pub fn looked(&self) {
        self.shows("the first look of the daemon", SOON, |status| {
            let all = status["credentials"].as_array().filter(|all| !all.is_empty())?;
            all.iter().all(|c| c["live"]["next_wake"].is_string() && c["live"]["step"].is_null()).then_some(())
        });
    }

    /// Waits until this key is the applied one; how long that took.
    #[track_caller]
    pub fn applied(&self, key: &Key) -> Duration {
        let began = Instant::now();
        self.shows("the new key to be applied", SOON, |status| {
            let credential = &status["credentials"][0];
            (credential["applied"]["username"] == key.id.as_str()).then_some(())
        });
        began.elapsed()
    }

    /// How often the first credential was looked at, by cause.
    #[track_caller]
    pub fn wakes(&self) -> BTreeMap<String, u64> {
        counts(&self.status()["credentials"][0]["live"]["counters"]["wakes"])
    }

    /// A sample of `/metrics`.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no {sample} in:\n{text}"));
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Waits until `/readyz/ses` says 503 with a reason of this class (`None`: 200), and everything else says the same.
    #[track_caller]
    pub fn agrees(&self, class: Option<&str>, on_the_page: &str, limit: Duration) {
        let start = Instant::now();
        loop {
            match self.disagreement(class, on_the_page) {
                None => return,
                Some(why) if start.elapsed() > limit => panic!("after {limit:?}: {why}"),
                Some(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    pub fn disagreement(&self, class: Option<&str>, on_the_page: &str) -> Option<String> {
        let (code, ready) = self.get("/readyz/ses");
        let right = match class {
            Some(class) => code == 503 && ready.contains(&format!("ses: {class}: ")) && ready.contains("  fix: "),
            None => code == 200 && ready == "ok\n",
        };
        if !right {
            return Some(format!("/readyz/ses is {code}: {ready}; {:#}", self.status()));
        }
        if self.get("/readyz").0 != code {
            return Some(format!("/readyz is not {code}"));
        }
        let ran = self.host.relaykey(&["status", "--json"]);
        if ran.code != 0 {
            return Some(format!("relaykey status ended {}: {}", ran.code, ran.err));
        }
        for (place, document) in [("/status", self.status()), ("relaykey status", ran.json())] {
            let credential = &document["credentials"][0];
            let classes: Vec<&str> =
                credential["not_ready"].as_array()?.iter().filter_map(|n| n["class"].as_str()).collect();
            let same = class.map_or(classes.is_empty(), |class| classes.contains(&class));
            if !same || !credential["live"].is_object() || !document["daemon"].is_object() {
                return Some(format!("{place} does not agree with {ready}: {document:#}"));
            }
        }
        let text = self.host.relaykey(&["status"]);
        if text.out.contains("no daemon answers") || class.is_none() && !text.out.contains("ses: up-to-date") {
            return Some(format!("relaykey status says: {}", text.out));
        }
        let (_, page) = self.get("/");
        if !page.contains(on_the_page) {
            return Some(format!("the page does not say {on_the_page:?}: {page}"));
        }
        let is_ready = self.metric("relaykey_ready{credential=\"ses\"}");
        if is_ready != f64::from(class.is_none()) {
            return Some(format!("relaykey_ready is {is_ready} where /readyz/ses is {code}"));
        }
        let of_class =
            class.map(|class| self.metric(&format!("relaykey_not_ready{{credential=\"ses\",class=\"{class}\"}}")));
        (of_class == Some(0.0)).then(|| format!("relaykey_not_ready has no {class:?}"))
    }

    /// SIGTERM: it ends within the limit, and well.
    #[track_caller]
    pub fn ends(self, limit: Duration) -> Ran {
        let told = Instant::now();
        self.program.terminate();
        let ran = self.program.wait(lab::RUN * 2);
        let took = told.elapsed();
        assert!(took < limit, "it took {took:?} to end; it said:\n{}", ran.err);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran
    }
}

pub fn counts(value: &Value) -> BTreeMap<String, u64> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

/// Files beside the table that a rollover had staged.
pub fn staged(postfix: &Instance) -> Vec<PathBuf> {
    let entries = fs::read_dir(&postfix.config_dir).expect("a directory").flatten().map(|e| e.path());
    entries.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".relaykey"))).collect()
}

/// Who is in the table's text.
pub fn holds(postfix: &Instance, key: &Key) -> bool {
    fs::read_to_string(postfix.table()).expect("a table").contains(&key.pair())
}

/// Waits until a message comes to the stand-in under this key.
#[track_caller]
pub fn passes_under(host: &Host, key: &Key) {
    let limit = Instant::now() + DELIVERY;
    while host.send() != key.id {
        assert!(Instant::now() < limit, "mail still goes out with another key");
    }
}

/// A line of each credential. The whole status of many is longer than what is kept of a failed test's output.
fn in_short(status: &Value) -> String {
    let of = |c: &Value| {
        let seen = [&c["name"], &c["state"], &c["live"]["step"], &c["applied"]["username"], &c["live"]["next_wake"]];
        format!("{} {}", seen.map(Value::to_string).join(" "), c["failures"])
    };
    status["credentials"].as_array().map(|all| all.iter().map(of).collect::<Vec<_>>().join("\n")).unwrap_or_default()
}
