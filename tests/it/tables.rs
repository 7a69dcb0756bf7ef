//! The table editor against the real thing: each file of the corpus, 5,000 entries, and random tables, with what
//! `postmap` makes of them before and after. Only our keys may differ.
//!
//! A case is `tests/corpus/NAME.in`, `NAME.change` (one line per change: `replace KEY`, `append KEY`, or `error LINE
//! WORDS`) and, where no error is due, `NAME.out`.

use crate::lab::scratch::{self, Files as _};

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use relaykey::credential::Login;
use relaykey::fault::Fault;
use relaykey::mta::table::{Change, Table, fold};
use tempfile::TempDir;

const NEW: &str = "AKIANEWNEWNEWNEWNEW1:BNew+pass/word=";
const OURS: &str = "[email-smtp.eu-west-1.amazonaws.com]:587";

fn login() -> Login {
    Login::from_pair(NEW).unwrap()
}

/// A directory with a Postfix configuration that says nothing, gone at the end of the test.
fn nothing_configured() -> TempDir {
    let dir = scratch::private("tables");
    dir.file(
        "main.cf",
        "compatibility_level = 3.6
",
    );
    dir
}

fn postmap(directory: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("/usr/sbin/postmap")
        .arg("-c")
        .arg(directory)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("postmap is installed");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!words.contains("fatal:"), "postmap {args:?}: {words}");
    output.stdout
}

/// Every `key TAB value` that Postfix sees in a text compiled as this kind.
fn postfix_sees(directory: &Path, kind: &str, text: &[u8], keys: &[String]) -> BTreeSet<Vec<u8>> {
    let file = directory.join("table");
    for leftover in ["table.db", "table.lmdb", "table.cdb"] {
        let _ = fs::remove_file(directory.join(leftover));
    }
    fs::write(&file, text).unwrap();
    // Postfix waits up to two seconds for a texthash file that was just written to "cool down".
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    fs::File::options().write(true).open(&file).unwrap().set_modified(past).unwrap();
    let name = format!("{kind}:{}", file.display());
    if kind != "texthash" {
        postmap(directory, &[&name], b"");
    }
    let lines = if kind == "cdb" {
        // cdb cannot list; ask for each key instead.
        postmap(directory, &["-q", "-", &name], keys.join("\n").as_bytes())
    } else {
        postmap(directory, &["-s", &name], b"")
    };
    lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// The same, as the editor sees it: the first of equal keys, folded, without what Postfix ignores for not being UTF-8.
fn table_sees(table: &Table) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    let mut lines = BTreeSet::new();
    for entry in table.entries() {
        let Some(value) = entry.value() else { continue };
        if !entry.key.contains('\u{fffd}') && keys.insert(fold(&entry.key)) {
            lines.insert(format!("{}\t{}", fold(&entry.key), value).into_bytes());
        }
    }
    lines
}

fn folded_keys(table: &Table) -> Vec<String> {
    let keys: BTreeSet<String> = table.entries().map(|entry| fold(&entry.key)).collect();
    keys.into_iter().filter(|key| !key.contains('\u{fffd}')).collect()
}

fn kinds() -> Vec<&'static str> {
    let known = Command::new("/usr/sbin/postconf").arg("-m").output().expect("postconf is installed").stdout;
    let known = String::from_utf8(known).unwrap();
    let kinds: Vec<&str> = ["hash", "btree", "lmdb", "cdb", "texthash"]
        .into_iter()
        .filter(|kind| known.lines().any(|k| k == *kind))
        .collect();
    assert!(kinds.len() > 1, "this Postfix has none of the kinds that are to be tested: {known}");
    kinds
}

/// Applies `replace` and `append` keys with the new login.
fn change(table: &Table, replace: &[&str], append: &[&str]) -> Result<Vec<u8>, Fault> {
    let login = login();
    let mut changes = Vec::new();
    for key in replace {
        let (entry, _) = table.get_folded(key).unwrap_or_else(|| panic!("the table has no {key}"));
        changes.push(Change::Replace { entry, login: &login });
    }
    changes.extend(append.iter().map(|key| Change::Append { key, login: &login }));
    Ok(table.render(&changes)?.to_vec())
}

#[test]
fn corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut names: Vec<String> = fs::read_dir(directory.clone())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".in").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 25, "only {} cases", names.len());
    let scratch = nothing_configured();
    let kinds = kinds();
    for name in &names {
        let read = |extension: &str| fs::read(directory.join(format!("{name}.{extension}"))).unwrap();
        let input = read("in");
        let wanted = String::from_utf8(read("change")).unwrap();
        let of = |verb: &str| wanted.lines().filter_map(|l| l.strip_prefix(verb)).map(str::trim).collect::<Vec<_>>();
        let (replace, append, error) = (of("replace "), of("append "), of("error "));
        let result = Table::parse(&input).and_then(|table| change(&table, &replace, &append).map(|out| (table, out)));
        if let [error] = error.as_slice() {
            let (line, words) = error.split_once(' ').unwrap();
            let e = result.expect_err(name);
            assert_eq!(e.line, Some(line.parse().unwrap()), "{name}: {e}");
            assert!(e.what.contains(words) && !e.fix.is_empty(), "{name}: {e}");
            assert!(!format!("{e} {}", e.fix).contains("pass"), "{name}: a password in {e}");
            continue;
        }
        let (before, output) = result.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(String::from_utf8_lossy(&output), String::from_utf8_lossy(&read("out")), "{name}");
        assert_eq!(output, read("out"), "{name}");

        let after = Table::parse(&output).unwrap();
        let ours: BTreeSet<String> = replace.iter().chain(&append).map(|key| fold(key)).collect();
        for kind in &kinds {
            let old = postfix_sees(scratch.path(), kind, &input, &folded_keys(&before));
            assert_eq!(old, table_sees(&before), "{name}: {kind} before");
            let new = postfix_sees(scratch.path(), kind, &output, &folded_keys(&after));
            assert_eq!(new, table_sees(&after), "{name}: {kind} after");
            let others = |lines: &BTreeSet<Vec<u8>>| -> BTreeSet<Vec<u8>> {
                lines
                    .iter()
                    .filter(|l| !ours.iter().any(|k| l.starts_with(format!("{k}\t").as_bytes())))
                    .cloned()
                    .collect()
            };
            assert_eq!(others(&old), others(&new), "{name}: {kind}, other keys");
            for key in &ours {
                assert!(new.contains(format!("{key}\t{NEW}").as_bytes()), "{name}: {kind}, {key}");
            }
        }
    }
}

#[test]
fn five_thousand_entries() {
    let mut text = String::from("# relays of all customers\n");
    for n in 0..5000 {
        if n == 3210 {
            text += &format!("{OURS}\tAKIAOLD:old\n");
        }
        match n % 7 {
            0 => text += &format!("customer{n}@example.com\tuser{n}:secret{n}\n"),
            1 => text += &format!("[relay{n}.example.net]:587\n\tuser{n}:secret{n}\n"),
            2 => text += &format!("\n# {n}\nRelay{n}.Example.net   user{n}:secret {n}  \n"),
            _ => text += &format!("[relay{n}.example.net]:587 user{n}:secret{n}\n"),
        }
    }
    let before = Table::parse(text.as_bytes()).unwrap();
    assert_eq!(before.len(), 5001);
    let output = change(&before, &[OURS], &[]).unwrap();
    assert_eq!(String::from_utf8(output.clone()).unwrap(), text.replace("AKIAOLD:old", NEW));
    let scratch = nothing_configured();
    for kind in kinds() {
        let old = postfix_sees(scratch.path(), kind, text.as_bytes(), &folded_keys(&before));
        let new = postfix_sees(scratch.path(), kind, &output, &folded_keys(&before));
        assert_eq!((old.len(), new.len()), (5001, 5001), "{kind}");
        let differing: Vec<_> = new.difference(&old).collect();
        assert_eq!(differing, [&format!("{OURS}\t{NEW}").into_bytes()], "{kind}");
    }
}

/// A piece of a random table, whose text is known in parts.
#[derive(Debug, Clone)]
enum Piece {
    Noise(String),
    Entry { before: String, value: String, after: String },
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    // Some lines end with CR LF.
    let noise = prop_oneof![
        "#[ -~]{0,20}\r?\n",
        "[ \t]{0,3}#[ -~]{0,9}\r?\n",
        "[ \t]{0,3}\r?\n",
        // Lines that Postfix ignores: a key alone, a quote left open.
        "[a-z]{1,5}\r?\n",
        "\"[a-z]{1,5} [a-z]{1,5}\r?\n",
    ];
    let entry = (
        "[a-zA-Z0-9.@:\\[\\]-]{1,12}",
        prop_oneof!["[ \t]{1,3}", "[ \t]{0,2}\r?\n[ \t]{1,4}", "\r?\n# c\r?\n\r?\n \t", " \r?\n   #c\n  "],
        "[!-~]{1,8}(:[ -~]{0,9}[!-~])?",
        "[ \t]{0,2}\r?\n",
    );
    // A '#' that begins a continuation line would be a comment.
    let entry = entry.prop_filter("a comment", |(_, _, value, _)| !value.starts_with('#'));
    // A key alone would take a blank-led line after it for its value; every entry starts at the margin, so it does not.
    prop::collection::vec(
        prop_oneof![
            1 => noise.prop_map(Piece::Noise),
            2 => entry.prop_map(|(key, gap, value, after)| Piece::Entry { before: key + &gap, value, after }),
        ],
        0..25,
    )
}

/// Deterministic, so that a failure is there again tomorrow.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[42; 32]))
}

fn edits_are_exact(cases: u32, mut also: impl FnMut(&Table, &Table, &[u8], &[u8]) -> Result<(), TestCaseError>) {
    let also = std::cell::RefCell::new(&mut also);
    let strategy = (pieces(), any::<prop::sample::Index>(), any::<bool>());
    runner(cases)
        .run(&strategy, |(pieces, chosen, newline)| {
            let entries: Vec<usize> =
                (0..pieces.len()).filter(|at| matches!(pieces[*at], Piece::Entry { .. })).collect();
            let chosen = (!entries.is_empty()).then(|| entries[chosen.index(entries.len())]);
            let (mut input, mut expected, mut line) = (String::new(), String::new(), 0);
            for (at, piece) in pieces.iter().enumerate() {
                if Some(at) == chosen {
                    line = input.matches('\n').count() + 1;
                }
                match piece {
                    Piece::Noise(text) => (input += text, expected += text).0,
                    Piece::Entry { before, value, after } => {
                        input += &format!("{before}{value}{after}");
                        expected += &format!("{before}{}{after}", if Some(at) == chosen { NEW } else { value });
                    }
                }
            }
            if !newline && input.ends_with('\n') {
                input.pop();
                expected.pop();
            }
            let table = Table::parse(input.as_bytes()).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let Some(_) = chosen else { return Ok(()) };
            let entry = table.entries().position(|e| e.line == line).expect("the chosen entry is one");
            let login = login();
            // Also where another entry has the same key.
            let rendered = table.render(&[Change::Replace { entry, login: &login }]);
            let rendered = rendered.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(String::from_utf8_lossy(&rendered), expected.as_str());
            let after = Table::parse(&rendered).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(after.len(), table.len());
            for (at, (old, new)) in table.entries().zip(after.entries()).enumerate() {
                prop_assert_eq!((&old.key, old.line), (&new.key, new.line));
                let value = if at == entry { NEW.as_bytes() } else { old.value_bytes() };
                prop_assert_eq!(value, new.value_bytes());
            }
            also.borrow_mut()(&table, &after, input.as_bytes(), &rendered)
        })
        .unwrap();
}

#[test]
fn random_tables_keep_every_other_byte() {
    edits_are_exact(2000, |_, _, _, _| Ok(()));
}

#[test]
fn random_tables_mean_the_same_to_postfix() {
    let scratch = nothing_configured();
    let compiled = kinds_with_a_map();
    edits_are_exact(60, |before, after, input, output| {
        for kind in ["texthash", compiled] {
            prop_assert_eq!(postfix_sees(scratch.path(), kind, input, &[]), table_sees(before));
            prop_assert_eq!(postfix_sees(scratch.path(), kind, output, &[]), table_sees(after));
        }
        Ok(())
    });
}

/// One kind that is compiled and can be listed.
fn kinds_with_a_map() -> &'static str {
    kinds().into_iter().find(|kind| matches!(*kind, "hash" | "lmdb")).expect("hash or lmdb")
}

/// Any bytes at all, of those that mean something to the format: what is an entry is what Postfix takes for one.
#[test]
fn random_bytes_are_read_as_postfix_reads_them() {
    let scratch = nothing_configured();
    let byte = prop_oneof![
        6 => prop::sample::select(&b"abAB:1#"[..]),
        4 => prop::sample::select(&b" \t\n\n\n\r"[..]),
        1 => prop::sample::select(&b"\"\\\x0b\x0c"[..]),
    ];
    let kind = kinds_with_a_map();
    runner(300)
        .run(&prop::collection::vec(byte, 0..80), |bytes| {
            let table = Table::parse(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(postfix_sees(scratch.path(), kind, &bytes, &[]), table_sees(&table));
            Ok(())
        })
        .unwrap();
}
