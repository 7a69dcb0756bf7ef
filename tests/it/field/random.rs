//! Set-ups made at random, seeded: services, tables, routes, senders, half-rotated and foreign lines, instances, new agents. Each is
//! run as those of `tests/field` are. Nothing here knows how Postfix looks a login up: which login a flow uses before is seen by
//! mail, and so is what it uses afterwards.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::case::{Case, Flow, TableFile};

const US: &str = "email-smtp.us-east-1.amazonaws.com";
const EU: &str = "email-smtp.eu-west-1.amazonaws.com";
/// Their mail goes to the second region.
const EU_SENDERS: &str = "@eu.example";
const OTHER: &str = "[smtp.other-relay.example]:587";

/// A set-up, its files written below a directory.
pub fn set_up(seed: u64, dir: &Path) -> Case {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut maker = Maker { rng: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes), ..Maker::default() };
    let case = maker.make();
    for (name, text) in &maker.files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    }
    Case { dir: dir.to_owned(), setup: format!("made from seed {seed}"), ..case }
}

/// A login table in the making.
#[derive(Default)]
struct Logins {
    name: String,
    kind: &'static str,
    is_proxied: bool,
    lines: Vec<(String, &'static str)>,
}

impl Logins {
    fn spelt(&self) -> String {
        let proxy = if self.is_proxied { "proxy:" } else { "" };
        format!("{proxy}{}:{{cfg}}/{}", self.kind, self.name)
    }
}

struct Maker {
    rng: TestRng,
    tables: Vec<Logins>,
    /// For each client service the numbers of its tables. The first is the usual one.
    services: Vec<Vec<usize>>,
    /// The keys under which each service will ask for its hops.
    asked: Vec<(usize, String)>,
    flows: Vec<Flow>,
    files: BTreeMap<String, String>,
    /// The secret held another key before.
    has_prev: bool,
    is_fresh: bool,
    two_regions: bool,
    /// Some senders' mail goes to the second region, whether or not an endpoint is there.
    to_eu: bool,
    /// Why it is right to refuse it.
    refusable: bool,
}

impl Default for Maker {
    fn default() -> Self {
        Self {
            rng: TestRng::from_seed(RngAlgorithm::ChaCha, &[0; 32]),
            tables: Vec::new(),
            services: Vec::new(),
            asked: Vec::new(),
            flows: Vec::new(),
            files: BTreeMap::new(),
            has_prev: false,
            is_fresh: false,
            two_regions: false,
            to_eu: false,
            refusable: false,
        }
    }
}

impl Maker {
    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    fn make(&mut self) -> Case {
        self.has_prev = self.one_in(3);
        self.is_fresh = self.one_in(2);
        self.two_regions = self.one_in(5);
        let mut kinds = BTreeMap::new();
        let main = self.some_tables(&mut kinds);
        let by_sender = self.one_in(2);
        self.services.push(main);

        let (mut main_cf, mut master_cf) = (Vec::new(), String::new());
        let (mut transport, mut senders, mut sender_hops) = (Vec::new(), Vec::new(), Vec::new());
        let relayhost = self.hop();
        main_cf.push(format!("relayhost = {relayhost}"));
        self.asked.push((0, relayhost));
        self.flow("u@a.example", "b@example.com");

        for name in ["bulk", "alerts"] {
            if !self.one_in(3) {
                continue;
            }
            let tables = if self.one_in(2) { self.some_tables(&mut kinds) } else { self.services[0].clone() };
            let own_rule = self.one_in(3).then(|| self.one_in(2));
            let number = self.services.len();
            let _ = writeln!(master_cf, "{name}       unix  -       -       n       -       -       smtp");
            let _ = writeln!(master_cf, "  -o syslog_name=postfix-{name}");
            if tables != self.services[0] {
                let spelt: Vec<_> = tables.iter().map(|table| self.tables[*table].spelt()).collect();
                let _ = writeln!(master_cf, "  -o smtp_sasl_password_maps={}", spelt.join(","));
            }
            if let Some(rule) = own_rule {
                let rule = if rule { "yes" } else { "no" };
                let _ = writeln!(master_cf, "  -o smtp_sender_dependent_authentication={rule}");
            }
            self.services.push(tables);
            let hop = self.hop();
            match self.rng.random_range(0..3) {
                0 => {
                    transport.push(format!("{name}.example {name}:{hop}"));
                    self.asked.push((number, hop));
                    self.flow("u@a.example", &format!("b@{name}.example"));
                }
                1 => {
                    senders.push(format!("@{name}.example {name}:{hop}"));
                    self.asked.push((number, hop));
                    self.flow(&format!("u@{name}.example"), "b@example.com");
                }
                _ => {
                    senders.push(format!("@{name}.example {name}:"));
                    let relayhost = self.asked[0].1.clone();
                    self.asked.push((number, relayhost));
                    self.flow(&format!("u@{name}.example"), "b@example.com");
                }
            }
        }
        if self.one_in(4) {
            let hop = self.hop();
            sender_hops.push(format!("u@c.example {hop}"));
            self.asked.push((0, hop));
            self.flow("u@c.example", "b@example.com");
        }
        if self.one_in(4) {
            let hop = format!("[{EU}]:587");
            sender_hops.push(format!("{EU_SENDERS} {hop}"));
            self.to_eu = true;
            // Who has no login of its own there has one by the host, or none.
            if !by_sender || self.one_in(2) {
                self.asked.push((0, hop));
            }
            self.flow("x@eu.example", "b@example.com");
        }
        if self.one_in(2) {
            transport.push(format!("other.example smtp:{OTHER}"));
            let table = self.services[0][0];
            self.tables[table].lines.push((OTHER.into(), "{other}"));
            self.flow("u@a.example", "b@other.example");
        }
        self.entries();
        self.sender_entries();
        if by_sender {
            main_cf.push("smtp_sender_dependent_authentication = yes".into());
        }
        let spelt: Vec<_> = self.services[0].iter().map(|table| self.tables[*table].spelt()).collect();
        main_cf.push(format!("smtp_sasl_password_maps = {}", spelt.join(", ")));
        for (setting, name, lines) in [
            ("transport_maps", "transport", transport),
            ("sender_dependent_default_transport_maps", "senders", senders),
            ("sender_dependent_relayhost_maps", "sender_relay", sender_hops),
        ] {
            if !lines.is_empty() {
                main_cf.push(format!("{setting} = hash:{{cfg}}/{name}"));
                self.files.insert(format!("tables/{name}"), lines.join("\n") + "\n");
                kinds.insert(name.to_owned(), TableFile { mode: "0644".into(), ..TableFile::default() });
            }
        }
        self.files.insert("main.cf".into(), main_cf.join("\n") + "\n");
        self.files.insert("master.cf".into(), master_cf);
        let logins = || self.tables.iter().flat_map(|table| &table.lines);
        let taken_over = logins().any(|(key, login)| !key.contains('@') && login.starts_with("{foreign"))
            && !logins().any(|(_, login)| login.starts_with("{old") || login.starts_with("{prev"));
        for table in std::mem::take(&mut self.tables) {
            let text = self.untidy(&table.lines);
            self.files.insert(format!("tables/{}", table.name), text);
        }
        if self.two_regions {
            let default = fs::read_to_string(super::case::folder().join("default.toml")).expect("default.toml");
            let (credential, target) = default.split_once("[[credential.target]]").expect("a target");
            let also = format!("[[credential.smtp.also]]\nendpoint = \"{EU}\"\n\n");
            self.files.insert("relaykey.toml".into(), format!("{credential}{also}[[credential.target]]{target}"));
        }
        Case {
            tables: kinds,
            flows: std::mem::take(&mut self.flows),
            fresh: self.is_fresh,
            prev: self.has_prev,
            payload: if self.two_regions { "iam".into() } else { String::new() },
            sync: if self.refusable { "refuse".into() } else { String::new() },
            taken_over,
            ..Case::default()
        }
    }

    fn flow(&mut self, from: &str, to: &str) {
        self.flows.push(Flow { from: from.into(), to: to.into(), ..Flow::default() });
    }

    /// One table or two, new ones.
    fn some_tables(&mut self, kinds: &mut BTreeMap<String, TableFile>) -> Vec<usize> {
        let count = if self.one_in(3) { 2 } else { 1 };
        (0..count)
            .map(|_| {
                let number = self.tables.len();
                let (name, kind) = (format!("sasl_{number}"), self.pick(&["hash", "lmdb", "cdb", "btree", "texthash"]));
                let is_proxied = self.one_in(8);
                // Whoever wants proxymap to read it lets it.
                kinds.insert(name.clone(), TableFile { kind: kind.into(), ..TableFile::default() });
                self.tables.push(Logins { name, kind, is_proxied, lines: Vec::new() });
                number
            })
            .collect()
    }

    /// A next hop of ours, as somebody spells it.
    fn hop(&mut self) -> String {
        let host = if self.two_regions && self.one_in(2) { EU } else { US };
        match self.rng.random_range(0..8) {
            0 | 1 => format!("{host}:587"),
            2 => format!("[{host}]:2587"),
            3 => format!("[{host}]"),
            _ => format!("[{host}]:587"),
        }
    }

    /// A login for a key: `{old}` mostly. Others at a host make it one that may be refused.
    fn login(&mut self, is_host: bool) -> &'static str {
        let login = match self.rng.random_range(0..12) {
            0 | 1 if self.has_prev => "{prev}",
            2 if is_host && self.one_in(2) => "{foreign}",
            2 | 3 if !is_host => "{foreign}",
            _ => "{old}",
        };
        // Two keys back is nothing that a new agent can know of.
        self.refusable |= login == "{prev}" && self.is_fresh || login == "{foreign}" && is_host;
        login
    }

    /// An entry for each hop in one of the tables of its service, or none.
    fn entries(&mut self) {
        for (service, hop) in std::mem::take(&mut self.asked) {
            let tables = self.services[service].clone();
            let bare = hop.trim_start_matches('[').split([']', ':']).next().expect("a host").to_owned();
            let key = if self.one_in(6) { bare } else { hop };
            let is_there = |table: &usize| self.tables[*table].lines.iter().any(|(have, _)| *have == key);
            if tables.iter().any(is_there) || self.one_in(12) {
                continue;
            }
            let table = self.pick(&tables);
            let mut login = self.login(true);
            if key.contains(EU) {
                // Without an endpoint there it is not this credential's to change.
                self.refusable |= !self.two_regions;
                login = match login {
                    "{prev}" => "{prev_eu}",
                    "{foreign}" => "{foreign_eu}",
                    _ => "{old_eu}",
                };
            }
            self.tables[table].lines.push((key, login));
        }
    }

    fn sender_entries(&mut self) {
        if self.to_eu && !self.one_in(4) {
            let table = self.pick(&self.services[0].clone());
            let login = self.pick(&["{old_eu}", "{old_eu}", "{foreign_eu}"]);
            // No key names the region: of a login of ours it is known by the password, if at all.
            self.refusable |= login == "{old_eu}" && (self.is_fresh || !self.two_regions);
            self.tables[table].lines.push((EU_SENDERS.to_owned(), login));
        }
        for sender in ["u@a.example", "u@d.example", "@e.example", "u@bulk.example"] {
            if self.one_in(3) {
                let tables: Vec<usize> = (0..self.tables.len()).collect();
                let table = self.pick(&tables);
                let login = self.login(false);
                // A new agent knows the region of a password by a host that has the same.
                let lines = || self.tables.iter().flat_map(|table| &table.lines);
                let is_told = lines().any(|(key, have)| key.contains(US) && *have == login);
                self.refusable |= self.two_regions && self.is_fresh && login != "{foreign}" && !is_told;
                self.tables[table].lines.push((sender.to_owned(), login));
                let from = sender.strip_prefix('@').map_or(sender.to_owned(), |domain| format!("x@{domain}"));
                if !self.flows.iter().any(|flow| flow.from == from) {
                    self.flow(&from, "b@example.com");
                }
            }
        }
    }

    /// The lines as people leave them.
    fn untidy(&mut self, lines: &[(String, &'static str)]) -> String {
        let mut text = String::new();
        if self.one_in(2) {
            text += "# relay logins, ask ops\n\n";
        }
        for (key, login) in lines {
            if self.one_in(6) {
                text += "#[old.example]:25 user:password\n";
            }
            let key = if self.one_in(8) { key.to_uppercase() } else { key.clone() };
            let space = self.pick(&[" ", "\t", "    ", "\n   "]);
            let end = self.pick(&["\n", "\n", "\n", " \n", "\n\n"]);
            text += &format!("{key}{space}{login}{end}");
        }
        if self.one_in(4) {
            text += "[relay.example]:587 somebody:else";
            if self.one_in(2) {
                text.push('\n');
            }
        }
        text
    }
}
