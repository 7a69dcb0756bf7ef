//! Who imports whom, as docs/code-structure.md has it: above all, the checker shares no condition with the plan.

use std::collections::BTreeSet;
use std::path::Path;

const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("facts", &["record"]),
    ("policy", &[]),
    ("refusal", &["facts"]),
    ("evidence", &["facts", "policy"]),
    ("retire", &["evidence", "facts", "policy", "record", "refusal"]),
    ("record", &["facts", "plan", "policy", "retire"]),
    ("plan", &["evidence", "facts", "policy", "record", "refusal", "retire"]),
    ("words", &["evidence", "facts", "plan", "refusal"]),
    ("checker", &["facts", "plan", "policy"]),
    // The world's side: no rule is decided there.
    ("config", &["facts", "policy"]),
    ("audit", &["facts", "plan"]),
    ("aws", &["config", "facts"]),
    ("hosts", &["audit", "aws", "evidence", "facts", "record"]),
    ("run", &["audit", "aws", "config", "evidence", "facts", "hosts", "plan", "policy", "record"]),
    ("cli", &["config", "demo", "evidence", "facts", "plan", "policy", "record", "refusal", "retire", "run", "words"]),
    ("demo", &["cli", "config", "plan", "refusal", "run"]),
];

/// The code of a module, its files below it included, without comments and tests.
fn code(module: &str) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join(format!("{module}.rs"))];
    let mut folders = vec![src.join(module)];
    while let Some(folder) = folders.pop() {
        let Ok(below) = std::fs::read_dir(folder) else { continue };
        let (more, code): (Vec<_>, Vec<_>) =
            below.map(|file| file.expect("a file").path()).partition(|path| path.is_dir());
        folders.extend(more);
        files.extend(code);
    }
    files.retain(|file| !file.ends_with("tests.rs"));
    let mut code = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a module");
        let text = text.split("#[cfg(test)]\nmod tests {").next().expect("a part");
        code.extend(text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]));
    }
    code
}

#[test]
fn modules_import_only_what_they_may() {
    for (module, may) in MAY_IMPORT {
        let code = code(module);
        let named = code.split("crate::").skip(1);
        let named = named.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
        let named: BTreeSet<String> = named.filter(|name| !name.is_empty() && name != module).collect();
        let may: BTreeSet<String> = may.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(named, may, "{module}");
    }
}
