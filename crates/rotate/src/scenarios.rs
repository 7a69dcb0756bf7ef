//! Scenarios that can be read: `tests/scenarios/NAME.txt` says what happens, `NAME.out` beside it what the plan said to each.
//! Every decision passes the checker too. `UPDATE_SCENARIOS=1 cargo test -p relaykey-rotate scenarios` writes the
//! answers anew, for whoever has read the difference.

mod world;

use std::path::{Path, PathBuf};

use world::World;

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let files = std::fs::read_dir(folder).expect("a folder of scenarios").map(|file| file.expect("a file").path());
    let mut all: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "txt")).collect();
    all.sort();
    all
}

fn told(scenario: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for line in scenario.lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            out += line;
            out += "\n";
            continue;
        }
        out += &format!("> {line}\n");
        for said in world.hear(line) {
            out += &format!("  {said}\n");
        }
    }
    out
}

#[test]
fn every_scenario_is_answered_as_is_written_beside_it() {
    let (all, mut differ) = (scenarios(), Vec::new());
    assert!(all.len() > 5, "{all:?}");
    for path in all {
        let told = told(&std::fs::read_to_string(&path).expect("a scenario"));
        let beside = path.with_extension("out");
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(&beside, &told).expect("written");
        }
        let written = std::fs::read_to_string(&beside).unwrap_or_default();
        if written != told {
            let first = told.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(is, was)| is != was);
            differ.push(format!("{}: {first:?}", path.display()));
        }
    }
    assert!(differ.is_empty(), "answered otherwise than is written (now, before):\n{}", differ.join("\n"));
}
