//! Who may import whom. The apply boundary is real: `agent` reaches mail-server files only through `apply::Client`,
//! and the mail server's side imports no network, no AWS and no run time, so that one day it can be a process of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Module, and what of this crate it may name. `docs/code-structure.md` explains the order.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("credential", &["text"]),
    ("exit", &[]),
    ("finding", &[]),
    ("fault", &["text", "word"]),
    ("word", &[]),
    ("target", &["credential", "text"]),
    ("config", &["apply", "credential", "host", "instruction", "mta", "text"]),
    ("instruction", &[]),
    ("rollover", &["credential", "config", "instruction", "text"]),
    ("status", &["credential", "audit", "rollover", "config", "instruction"]),
    ("host", &[]),
    ("mta", &["credential", "host", "instruction", "text"]),
    ("apply", &["mta", "host", "credential", "instruction", "text"]),
    ("audit", &["credential", "host", "rollover", "text"]),
    ("net", &[]),
    ("tls", &["host"]),
    ("aws", &["config", "credential", "host", "text", "tls"]),
    ("source", &["aws", "config", "credential", "host", "instruction", "text"]),
    ("smtp", &["credential", "config", "net", "text", "tls"]),
    ("report", &["aws", "config", "credential", "host", "instruction", "net", "rollover", "smtp", "tls", "text"]),
    ("state", &["rollover", "host", "credential", "instruction"]),
    ("wake", &["config", "host", "instruction", "text"]),
    ("standin", &["credential", "host"]),
    ("service", &["text"]),
    ("control", &["host", "instruction", "wake", "text"]),
    ("health", &["audit", "config", "host", "instruction", "rollover", "status", "text"]),
    (
        "agent",
        &[
            "apply",
            "audit",
            "aws",
            "config",
            "credential",
            "instruction",
            "report",
            "rollover",
            "smtp",
            "source",
            "state",
            "status",
            "text",
            "tls",
            "wake",
        ],
    ),
    (
        "daemon",
        &[
            "agent",
            "apply",
            "audit",
            "aws",
            "config",
            "control",
            "credential",
            "health",
            "instruction",
            "report",
            "rollover",
            "service",
            "source",
            "state",
            "status",
            "text",
            "tls",
            "wake",
        ],
    ),
    (
        "cli",
        &[
            "agent",
            "apply",
            "audit",
            "aws",
            "config",
            "control",
            "credential",
            "daemon",
            "health",
            "host",
            "instruction",
            "report",
            "rollover",
            "service",
            "smtp",
            "source",
            "standin",
            "state",
            "status",
            "text",
            "tls",
            "wake",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// What every module may name: the one shape of what went wrong, and of what was found.
const EVERYWHERE: &[&str] = &["fault", "finding"];

/// Crates that are network, AWS or a run time.
const WORLD: &[&str] = &["tokio", "tokio_rustls", "lettre", "rustls", "rustls_native_certs", "rcgen"];
const WORLD_PREFIXES: &[&str] = &["aws_", "hyper"];
/// Modules that know none of them: the pure ones, and the mail server's side.
const WORLDLESS: &[&str] = &[
    "text",
    "credential",
    "fault",
    "finding",
    "config",
    "instruction",
    "rollover",
    "status",
    "host",
    "mta",
    "apply",
    "audit",
    "state",
];

fn source_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Where code is.
const CRATES: [&str; 3] = ["src", "crates/core/src", "crates/mail/src"];

/// Module name to the code of its files, without tests and comments.
fn modules() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    for src in CRATES.map(|src| Path::new(env!("CARGO_MANIFEST_DIR")).join(src)) {
        source_files(&src, &mut files);
    }
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let inside =
            file.to_str().and_then(|path| path.rsplit_once("/src/")).map(|(_, inside)| Path::new(inside)).unwrap();
        if inside.file_name().is_some_and(|n| n == "tests.rs") {
            continue;
        }
        let first = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: String = code.lines().filter(|l| !l.trim_start().starts_with("//")).flat_map(|l| [l, "\n"]).collect();
        modules.entry(first).or_default().push_str(&code);
    }
    modules
}

/// Every identifier that follows `prefix` in `code`, groups in braces included (`use crate::{a, b::c}`).
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let identifier = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = code[at + prefix.len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(identifier(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    names.insert(identifier(item.trim()));
                    item.clear();
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        names.insert(identifier(item.trim()));
    }
    names.remove("");
    names
}

#[test]
fn modules_import_only_what_they_may() {
    let modules = modules();
    let known: BTreeSet<&str> = MAY_IMPORT.iter().map(|(m, _)| *m).collect();
    let mut wrong = Vec::new();
    for (module, code) in &modules {
        let Some((_, may)) = MAY_IMPORT.iter().find(|(m, _)| m == module) else {
            wrong.push(format!("src/{module}: not in the table of tests/it/structure.rs"));
            continue;
        };
        for name in named_after(code, "crate::").iter().chain(&named_after(code, "relaykey::")) {
            let allowed = name == module || may.iter().chain(EVERYWHERE).any(|it| it == name);
            if known.contains(name.as_str()) && !allowed {
                wrong.push(format!("src/{module} imports {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_mail_servers_side_and_the_pure_modules_know_no_network_no_aws_and_no_run_time() {
    let modules = modules();
    let mut wrong = Vec::new();
    for module in WORLDLESS {
        let code = &modules[*module];
        let words: BTreeSet<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let is_world = |word: &&str| WORLD.contains(word) || WORLD_PREFIXES.iter().any(|p| word.starts_with(p));
        for word in words.into_iter().filter(is_world) {
            if code.contains(&format!("{word}::")) || code.contains(&format!("use {word}")) {
                wrong.push(format!("src/{module} names {word}"));
            }
        }
        for socket in ["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs", "UnixStream", "UnixListener"] {
            if code.contains(socket) {
                wrong.push(format!("src/{module} names {socket}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_itself_sees_every_way_to_name_a_module() {
    let code = "use crate::{host, mta::{self, table}, state::Store};\nlet x = crate::smtp::login();\nuse crate::apply;";
    let names = named_after(code, "crate::");
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["apply", "host", "mta", "smtp", "state"]);
}

#[test]
fn every_dependency_has_a_reason() {
    let manifests = ["Cargo.toml", "crates/core/Cargo.toml", "crates/mail/Cargo.toml"].map(read).concat();
    let mut inside = false;
    let mut bare = Vec::new();
    for line in manifests.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies]");
        } else if inside && line.contains('=') && !line.trim_start().starts_with('#') && !line.contains(" # ") {
            bare.push(line);
        }
    }
    assert!(bare.is_empty(), "no reason given: {bare:#?}");
}

/// Type names that stand twice, each with its reason. A name that is none of these stands once.
const TWICE: [(&str, &str); 23] = [
    ("Answer", "mta: what a look-up gives; rotate: what became of a person's order"),
    ("AuditLine", "one of each program: a line of its audit log"),
    ("Cli", "one of each program: its arguments"),
    ("CliCommand", "one of each program: its commands"),
    ("Client", "apply: the caller's end; postfix: a client service, which is Postfix's own word (master.cf)"),
    ("Common", "one of each program: arguments of every command"),
    ("Config", "one of each program: its configuration file"),
    ("Credential", "one of each program: [[credential]] of its configuration file"),
    ("Demo", "one of each program: its demo"),
    ("DemoArgs", "one of each program"),
    ("Facts", "one of each program: what its decision looks at"),
    ("HistoryArgs", "one of each program"),
    ("Host", "config: [host], this machine; rotate: one host of a fleet"),
    ("Login", "core: user name and password; rotate: what a login with one key came to at one endpoint"),
    ("Names", "mta: some keys, the first of them by name; rotate: what words name and facts do not"),
    ("Outcome", "one of each program: what became of the step, or the action, that was decided"),
    ("Policy", "one of each program: the numbers that its decision goes by"),
    ("Reason", "one of each program: why its decision is so"),
    ("Result", "the usual alias of a module with one error"),
    ("Setup", "apply: what a server is made from; postfix: main.cf and master.cf"),
    ("StatusArgs", "one of each program"),
    ("Store", "state: the state directory; postfix: a login table that is written; rotate: where the key is published"),
    ("Target", "config: what stands in the file; apply: the same with its open change"),
];

/// The types that a text defines at its outermost level.
fn types_of(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let line = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let rest = ["struct ", "enum ", "trait ", "type "].into_iter().find_map(|word| line.strip_prefix(word))?;
        // `type = "dynamodb"` is a line of a configuration file.
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
    })
}

/// A newcomer who searches for a name finds one thing.
#[test]
fn a_type_name_stands_once_or_has_its_reason() {
    assert_eq!(
        types_of("struct A;\npub(super) enum B {\n    struct C\npub type D<T> = T;\ntype = \"a\"\n")
            .collect::<String>(),
        "ABD"
    );
    let mut files = Vec::new();
    for src in CRATES.into_iter().chain(["crates/rotate/src"]) {
        source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(src), &mut files);
    }
    // Tests that are no `tests`: the model of the control side, and its scenarios.
    let is_test = |file: &Path| {
        let inside = |part: &str| file.iter().any(|p| p == part);
        file.ends_with("tests.rs") || ["tests", "model", "scenarios"].into_iter().any(inside)
    };
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_test(file)) {
        let text = std::fs::read_to_string(file).unwrap();
        for name in types_of(text.split("#[cfg(test)]\nmod tests {").next().unwrap()) {
            homes.entry(name.to_owned()).or_default().push(file.display().to_string());
        }
    }
    assert!(homes.len() > 700, "{} types: is that all?", homes.len());
    homes.retain(|_, files| files.len() > 1);
    let reasons: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    let unexplained: Vec<_> = homes.iter().filter(|(name, _)| !reasons.contains(name.as_str())).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let idle: Vec<_> = reasons.iter().filter(|name| !homes.contains_key(**name)).collect();
    assert!(idle.is_empty(), "stand once, and need no reason: {idle:?}");
}

/// Where a word of an enum is a word of another language too, that is read there.
const READS_A_LANGUAGE: [(&str, &str); 2] = [
    ("src/control/protocol.rs", "the names of requests at the control socket"),
    ("crates/rotate/src/scenarios/world.rs", "what happens in a scenario, told in a text file for its test"),
];

/// The words of the enums that a file defines: those of `words!`, and the names of `Class` in kebab-case.
fn words_of(code: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for block in code.split("words! {").skip(1) {
        let lines = block.lines().take_while(|line| *line != "}");
        let word = |line: &str| line.split_once(" = \"")?.1.split_once("\",").map(|(word, _)| word.to_owned());
        words.extend(lines.filter_map(word));
    }
    if let Some((_, class)) = code.split_once("pub enum Class {") {
        let names = class.lines().take_while(|line| *line != "}").map(str::trim);
        for name in
            names.filter_map(|line| line.strip_suffix(',')).filter(|name| name.chars().all(char::is_alphanumeric))
        {
            let kebab = name.chars().enumerate().flat_map(|(at, c)| {
                [Some('-').filter(|_| at > 0 && c.is_uppercase()), c.to_lowercase().next()].into_iter().flatten()
            });
            words.insert(kebab.collect());
        }
    }
    words
}

/// Words that others have too, who are read: URLs, main.cf, Postfix's mail log, fields of log lines.
const OF_OTHERS: [&str; 5] = ["deferred", "http", "message", "proxy", "smtp"];

/// Does this line ask whether a text is one of these words?
fn goes_by_a_word<'w>(line: &str, words: &'w BTreeSet<String>) -> Option<&'w str> {
    let parts: Vec<&str> = line.split('"').collect();
    // What stands in quotes, with what is on either side of it.
    let quoted = parts.windows(3).step_by(2).find(|part| {
        let (before, after) = (part[0].trim_end(), part[2].trim_start());
        let compared = ["==", "!="].iter().any(|sign| before.ends_with(sign) || after.starts_with(sign));
        let is_arm = after.starts_with("=>") || after.trim_end() == "|" || before.trim_start() == "|";
        (compared || is_arm) && words.contains(part[1]) && !OF_OTHERS.contains(&part[1])
    })?;
    words.get(quoted[1]).map(String::as_str)
}

/// What a fact is stands in an enum; its word is for documents and people.
#[test]
fn nobody_goes_by_the_word_of_an_enum() {
    let mut files = Vec::new();
    for src in CRATES.into_iter().chain(["crates/rotate/src"]) {
        source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(src), &mut files);
    }
    let code = |file: &PathBuf| std::fs::read_to_string(file).unwrap();
    let words: BTreeSet<String> = files.iter().flat_map(|file| words_of(&code(file))).collect();
    for known in ["read-back", "pending-approval", "not-yet", "drift"] {
        assert!(words.contains(known), "{known} is none of {words:?}");
    }
    for (line, found) in [
        ("    \"read-back\" => reload(),", true),
        ("if step == \"commit\" {", true),
        ("matches!(class, \"tls\" | \"drift\")", true),
        ("ReadBack = \"read-back\",", false),
        ("let word = \"commit\";", false),
        ("\"read-backwards\" => 1,", false),
    ] {
        assert_eq!(goes_by_a_word(line, &words).is_some(), found, "{line}");
    }
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("tests.rs") && !file.iter().any(|part| part == "tests")) {
        let path = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        if READS_A_LANGUAGE.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let code = code(file);
        for line in code.split("#[cfg(test)]\nmod tests {").next().unwrap().lines() {
            if let Some(word) = goes_by_a_word(line, &words).filter(|_| !line.trim_start().starts_with("//")) {
                wrong.push(format!("{path} goes by the text {word:?}: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where the sentence of a fault or a finding is looked at all the same, each with its reason.
const LOOKS_AT_A_SENTENCE: [(&str, &str); 6] = [
    ("crates/core/src/config/hidden.rs", "a secret is looked for in it, which it must not quote"),
    ("crates/core/src/finding.rs", "the file is not named in front of a sentence that names it"),
    ("crates/core/src/text/repeats.rs", "what repeats is known by its sentence: another one is told"),
    (
        "src/cli/check/findings.rs",
        "what was said of a credential as an error is not said again: the same sentence, whole, whoever came upon it",
    ),
    ("src/cli/history.rs", "a fix that several breaks of a chain have is printed once"),
    ("src/health/page.rs", "an advice that is a question (`did you mean`) gets other words in front of it than an order does"),
];

/// Does this line ask what is in the sentence of a fault or a finding, or compare it?
fn goes_by_a_sentence(line: &str) -> bool {
    const ASKS: [&str; 8] =
        ["contains(", "starts_with(", "ends_with(", "strip_prefix(", "strip_suffix(", "find(", "split", "trim_start_matches("];
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let compares = |text: &str| text.starts_with("==") || text.starts_with("!=");
    ["what", "fix", "located()"].into_iter().any(|field| {
        line.match_indices(field).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + field.len()..]);
            if before.ends_with(is_name) || after.starts_with(is_name) {
                return false;
            }
            let of = before.trim_end_matches(|c| is_name(c) || ".&*".contains(c)).trim_end();
            let asks = after.strip_prefix('.').is_some_and(|method| ASKS.iter().any(|ask| method.starts_with(ask)));
            // A record of the audit log has a kind, which is called so too.
            let with = after.trim_start().get(2..).unwrap_or_default().trim_start();
            let is_compared = compares(after.trim_start()) && !with.starts_with(char::is_uppercase);
            asks || is_compared || of.ends_with("==") || of.ends_with("!=")
        })
    })
}

/// What went wrong is told by its class, its file and line, or by where it stands: the sentence is for people, and may be put better
/// without anything else being changed.
#[test]
fn nobody_goes_by_the_sentence_of_a_fault_or_a_finding() {
    for (line, found) in [
        ("if e.what.contains(\"535\") {", true),
        ("if fix.starts_with(\"did you mean\") {", true),
        ("said.iter().any(|s| s.what == f.failure.what)", true),
        ("if \"x\" != finding.fix {", true),
        ("p.finding.located() == what", true),
        ("record.what == RecordKind::Heal", false),
        ("let what = e.what;", false),
        ("if !finding.fix.is_empty() {", false),
        ("somewhat == 1", false),
    ] {
        assert_eq!(goes_by_a_sentence(line), found, "{line}");
    }
    let mut files = Vec::new();
    for src in CRATES {
        source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(src), &mut files);
    }
    let (mut wrong, mut excused) = (Vec::new(), BTreeSet::new());
    for file in files.iter().filter(|file| !file.ends_with("tests.rs") && !file.iter().any(|part| part == "tests")) {
        let path = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        let code = std::fs::read_to_string(file).unwrap();
        let lines = code.split("#[cfg(test)]\nmod tests {").next().unwrap().lines();
        for line in lines.filter(|line| goes_by_a_sentence(line) && !line.trim_start().starts_with("//")) {
            match LOOKS_AT_A_SENTENCE.iter().find(|(known, _)| *known == path) {
                Some((known, _)) => drop(excused.insert(*known)),
                None => wrong.push(format!("{path} goes by a sentence: {}", line.trim())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let idle: Vec<_> = LOOKS_AT_A_SENTENCE.iter().filter(|(known, _)| !excused.contains(known)).collect();
    assert!(idle.is_empty(), "need no excuse: {idle:?}");
}

// ---------------------------------------------------------------- documents

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a package has in its directory below /usr/share/doc: names there, by the names in the repository.
fn packaged() -> [(&'static str, BTreeMap<String, String>); 4] {
    let of = |program: &str, folder: &str, begins: &str| {
        let manifest = read(&format!("{folder}Cargo.toml"));
        let documents = format!("usr/share/doc/{program}/");
        let assets = manifest.lines().map(str::trim).filter(|line| line.starts_with(begins));
        let names = assets.filter_map(|line| {
            let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            let below = quoted.get(1)?.trim_start_matches('/').strip_prefix(&documents)?;
            let from = quoted[0].strip_prefix("../../").map_or_else(|| format!("{folder}{}", quoted[0]), str::to_owned);
            Some((from, below.to_owned()))
        });
        names.collect::<BTreeMap<_, _>>()
    };
    let (agent, control) = (("relaykey", ""), ("relaykey-rotate", "crates/rotate/"));
    let all = [
        ("deb", of(agent.0, agent.1, "[\"")),
        ("rpm", of(agent.0, agent.1, "{ source")),
        ("deb of relaykey-rotate", of(control.0, control.1, "[\"")),
        ("rpm of relaykey-rotate", of(control.0, control.1, "{ source")),
    ];
    for (package, files) in &all {
        assert!(files.contains_key("docs/rotation.md"), "{package}: {files:?}");
    }
    all
}

/// A document in a package leads to documents in the package.
#[test]
fn what_packaged_documents_link_to_is_packaged() {
    for (package, files) in packaged() {
        for (from, to) in files.iter().filter(|(from, _)| from.ends_with(".md")) {
            let text = read(from);
            let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
            let links = links.map(|link| link.split('#').next().expect("a part")).filter(|link| !link.is_empty());
            for link in links.filter(|link| !link.contains("://")) {
                let target = Path::new(to).parent().expect("a directory").join(link);
                let target = target.to_str().expect("UTF-8");
                assert!(
                    files.values().any(|there| there == target),
                    "{package}: {from} leads to {target}, which is not packaged"
                );
            }
        }
    }
}

/// Who begins with README finds every page, and is sent to none that is not there.
#[test]
fn the_readme_names_every_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let list = readme.split_once("\n## Where to read on\n").expect("a list").1;
    for page in std::fs::read_dir(root.join("docs")).expect("docs") {
        let name = page.expect("a page").file_name().into_string().expect("UTF-8");
        assert!(list.contains(&format!("](docs/{name})")), "docs/{name} is not named under \"Where to read on\"");
    }
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|l| !l.contains("://")) {
        assert!(root.join(link.split('#').next().expect("a path")).exists(), "{link}");
    }
}

/// The report in docs/reports.md is one that this program reads, and would write so.
#[test]
fn the_report_in_the_documents_is_one() {
    let text = read("docs/reports.md");
    let (_, rest) = text.split_once("```json\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let value: serde_json::Value = serde_json::from_str(example).expect("JSON");
    let report: relaykey::rollover::Report = serde_json::from_value(value.clone()).expect("a report");
    assert_eq!(serde_json::to_value(&report).expect("JSON"), value);
    assert!(report.mail_server.is_some(), "every report since 0.1.0 says it");
}

/// Reports of 0.1.0 have the time of a login with nanoseconds: they are read, and passed on in seconds.
#[test]
fn the_time_of_a_login_is_in_seconds() {
    let old = r#"{"endpoint": "relay.example:587", "reply": "235 ok", "at": "2026-09-21T14:13:49.123456789Z"}"#;
    let evidence: relaykey::rollover::Evidence = serde_json::from_str(old).expect("evidence");
    let written = serde_json::to_value(&evidence).expect("JSON");
    assert_eq!(written["at"], "2026-09-21T14:13:49Z");
    assert!(serde_json::from_value::<relaykey::rollover::Evidence>(written).is_ok());
}
