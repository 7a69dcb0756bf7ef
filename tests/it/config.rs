//! The configuration file as people meet it: the example that explains it, and files that cannot be read.

use crate::lab::scratch::{self, Files as _};

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use relaykey::config::{
    self, Config, EXAMPLE, IfAppliedDies, LoadError, MAX_FILE, Mode, SCHEMA, SchemaKey, Section, Severity,
};

#[track_caller]
fn good(text: &str) -> Config {
    match config::parse(text) {
        Ok((config, findings)) => {
            assert_eq!(findings, [], "a good file has nothing to remark");
            config
        }
        Err(findings) => panic!("{}", config::render_text(&findings, Path::new("config.toml"), Some(text))),
    }
}

/// The lines of the example below each header, with their numbers, counted from 0.
fn below(header: &str) -> Vec<(usize, &'static str)> {
    let mut here = header.is_empty();
    let mut lines = Vec::new();
    for (number, line) in EXAMPLE.lines().enumerate() {
        // The header of a table that is off belongs to the keys below it all the same.
        if line.starts_with('[') || line.starts_with("#[") {
            here = line.trim_start_matches('#') == header;
        } else if here {
            lines.push((number, line));
        }
    }
    lines
}

fn accepted() -> impl Iterator<Item = (&'static Section, &'static SchemaKey)> {
    SCHEMA
        .sections
        .iter()
        .flat_map(|section| section.keys.iter().map(move |key| (*section, key)))
        .filter(|(_, k)| k.later.is_none())
}

#[test]
fn the_example_parses_as_it_stands() {
    let config = good(EXAMPLE);
    assert_eq!(config.credentials.len(), 1);
    assert_eq!(config.credentials[0].targets.len(), 1);
    assert_eq!((config.reports, config.health), (vec![], None), "nothing is served or reported unasked");
}

#[test]
fn every_accepted_key_is_in_the_example() {
    for (section, key) in accepted() {
        let SchemaKey { name, types, .. } = key;
        let found = if key.table {
            EXAMPLE.lines().map(|l| l.trim_start_matches('#')).any(|l| {
                l == format!("[{name}]")
                    || l == format!("[[{name}]]")
                    || l.ends_with(&format!(".{name}]"))
                    || l.ends_with(&format!(".{name}]]"))
            })
        } else {
            let set = [format!("{name} = "), format!("#{name} = "), format!("#   {name} = ")];
            below(section.header).iter().any(|(_, l)| set.iter().any(|s| l.starts_with(s)))
        };
        assert!(found, "{name} ({types:?}) of {:?} is not in config.example.toml", section.header);
    }
}

#[test]
fn the_example_has_no_other_keys() {
    for section in SCHEMA.sections {
        for (_, line) in below(section.header) {
            let line = line.strip_prefix("#   ").or(line.strip_prefix('#')).unwrap_or(line);
            let Some((name, _)) = line.split_once(" = ") else { continue };
            if name.contains([' ', '"']) {
                continue; // Prose.
            }
            let known = section.keys.iter().any(|k| k.name == name && k.later.is_none());
            assert!(known, "{line:?} stands below {:?}, which has no such key", section.header);
        }
    }
}

/// A line of the example as it stands when it is switched on; `None` where it is no setting that is off.
fn on(line: &str) -> Option<&str> {
    let setting = |l: &str| l.starts_with('[') || l.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
    let off = line.strip_prefix("#   ").or(line.strip_prefix('#'))?;
    setting(off).then_some(off)
}

/// The example with the setting on this line switched on, and without it; both with what it needs around it: the rest
/// of its table where that is off, or of the settings that are shown, set off, as going together.
fn on_and_off(number: usize) -> (String, String) {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let is_header = |i: &usize| lines[*i].trim_start_matches('#').starts_with('[');
    let start = (0..=number).rev().find(is_header).expect("a header");
    let end = (number + 1..lines.len()).find(is_header).unwrap_or(lines.len());
    let set_off = |i: usize| lines[i].starts_with("#   ");
    let goes_along = |i: usize| {
        (start..end).contains(&i)
            && if set_off(number) { set_off(i) } else { lines[start].starts_with('#') && !set_off(i) }
    };
    let text = |with: bool| {
        let line = |(i, line): (usize, &&'static str)| {
            let wanted = if i == number { with } else { goes_along(i) };
            on(line).filter(|_| wanted).unwrap_or(line)
        };
        lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    };
    (text(true), text(false))
}

#[test]
fn the_defaults_that_the_example_states_are_the_readers() {
    for (section, key) in accepted() {
        let Some(default) = key.default else { continue };
        let stated = format!("{} = {default}", key.name);
        let at = below(section.header).into_iter().find(|(_, l)| on(l) == Some(&stated));
        let Some((number, _)) = at else { panic!("{stated:?} does not stand below {:?}", section.header) };
        let (with, without) = on_and_off(number);
        assert_ne!(with, without);
        assert_eq!(good(&with), good(&without), "{stated:?} below {:?} changes something", section.header);
    }
}

/// As the head of the example says: in a table that is on, the # of that one line is removed; in one that is off, first those of
/// its header and of what is required in it.
#[test]
fn removing_the_mark_before_a_default_changes_nothing() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let head = EXAMPLE.split("\n\n").next().expect("a head").replace("\n#", "");
    assert!(head.contains("in a table that is off (its header has a # as well), remove first the # of the header and of what it says is required"));
    let good_as = |on: &[usize]| {
        let text = |(n, line): (usize, &&'static str)| {
            if on.contains(&n) { line.strip_prefix('#').expect("a mark") } else { *line }
        };
        good(&lines.iter().enumerate().map(text).collect::<Vec<_>>().join("\n"))
    };
    let (mut of_tables_on, mut of_tables_off) = (0, 0);
    for (number, pair) in lines.windows(2).enumerate() {
        let line = number + 1;
        if !(pair[0].ends_with("Default:") || pair[0].contains("Default: 587")) || pair[1].starts_with("# ") {
            continue;
        }
        let header = (0..line).rev().find(|i| lines[*i].trim_start_matches('#').starts_with('[')).expect("a header");
        let mut needed = Vec::new();
        if lines[header].starts_with('#') {
            let end = (header + 1..lines.len()).find(|i| lines[*i].trim_start_matches('#').starts_with('['));
            // Those right behind the header, which every report needs, and those below a text that says so.
            let is_required = |i: &usize| {
                let above = (header..*i).rev().take_while(|i| !lines[*i].is_empty());
                let said = above.map(|i| lines[i]).any(|line| line.starts_with("# ") && line.contains("Required"));
                lines[*i].starts_with('#')
                    && on(lines[*i]).is_some_and(|l| said || l.starts_with("name = ") || l.starts_with("type = "))
            };
            needed =
                std::iter::once(header).chain((header + 1..end.unwrap_or(lines.len())).filter(is_required)).collect();
            of_tables_off += 1;
        } else {
            of_tables_on += 1;
        }
        let with: Vec<usize> = needed.iter().copied().chain([line]).collect();
        assert_eq!(good_as(&with), good_as(&needed), "line {}: {}", line + 1, pair[1]);
    }
    assert!(of_tables_on >= 15 && of_tables_off >= 5, "{of_tables_on} {of_tables_off}");
}

#[test]
fn manual_mode_of_the_example_works() {
    let (number, _) = below("[[credential]]").into_iter().find(|(_, l)| l.contains("   apply = ")).expect("a window");
    let config = good(&on_and_off(number).0);
    let Mode::Manual { window: Some(window), if_applied_dies: IfAppliedDies::Wait } = &config.credentials[0].mode
    else {
        panic!("{config:?}")
    };
    assert_eq!(window.to_string(), "Sat 02:00-04:00");
    // What the text around it shows is no less of a window.
    let text = EXAMPLE.replace("\n# ", " ");
    let shown: Vec<&str> =
        text.split('"').skip(1).step_by(2).filter(|w| w.contains(' ') && w.contains(":00-")).collect();
    assert!(shown.len() >= 5, "{shown:?}");
    for window in shown {
        let both = format!("mode = \"manual\"\napply = {window:?}");
        good(&EXAMPLE.replace("#mode = \"automatic\"", &both));
    }
}

#[test]
fn a_line_that_says_default_shows_it() {
    // The other way round: no setting is called a default without being held to it by the test above.
    let mut stated = 0;
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for pair in lines.windows(2) {
        if pair[0].ends_with("Default:") || pair[0].contains("Default: 587") {
            let key = on(pair[1]).and_then(|l| l.split_once(" = "));
            let (name, value) = key.unwrap_or_else(|| panic!("{:?} follows {:?}", pair[1], pair[0]));
            assert!(accepted().any(|(_, k)| k.name == name && k.default == Some(value)), "{name} = {value}");
            stated += 1;
        }
    }
    assert!(stated >= 10, "{stated}");
}

#[test]
fn everything_in_the_example_can_be_switched_on() {
    let mut all = String::new();
    for line in EXAMPLE.lines() {
        // What is set off goes with other settings than those that stand around it.
        all.push_str(on(line).filter(|_| !line.starts_with("#   ")).unwrap_or(line));
        all.push('\n');
    }
    let config = good(&all);
    assert!(config.aws.proxy.is_some() && config.credentials[0].targets[0].keys.is_some(), "{config:?}");
    let kinds: Vec<&str> = config.reports.iter().map(|r| r.kind.word()).collect();
    assert_eq!(kinds, ["parameter-store", "dynamodb", "webhook", "email", "exec"]);
    assert!(config.credentials[0].probe.is_some());
    assert_eq!(config.health.map(|h| h.listen.len()), Some(2));
}

#[test]
fn the_other_sources_of_the_example_work() {
    let start = EXAMPLE.find("[credential.source]\n").expect("a source");
    let end = EXAMPLE.find("[credential.smtp]\n").expect("its end");
    let mut blocks: Vec<String> = Vec::new();
    for line in EXAMPLE[start..end].lines().filter_map(|l| l.strip_prefix("#   ")) {
        if line.starts_with('[') {
            blocks.push(String::new());
        }
        let block = blocks.last_mut().expect("a header first");
        block.push_str(line);
        block.push('\n');
    }
    assert_eq!(blocks.len(), 2);
    for (block, kind) in blocks.iter().zip(["ParameterStore", "File"]) {
        let config = good(&format!("{}{block}{}", &EXAMPLE[..start], &EXAMPLE[end..]));
        assert!(format!("{:?}", config.credentials[0].source).starts_with(kind), "{config:?}");
    }
}

#[test]
fn a_file_is_loaded() {
    let scratch = scratch::private("config");
    let path = scratch.file("config.toml", EXAMPLE);
    let (config, findings) = config::load(&path).expect("the example");
    assert_eq!((config, findings), (good(EXAMPLE), vec![]));
    // A byte order mark and CRLF line ends are what some editors leave.
    let path = scratch.file("windows.toml", format!("\u{feff}{}", EXAMPLE.replace('\n', "\r\n")));
    assert_eq!(config::load(&path).expect("the example, saved on Windows").0, good(EXAMPLE));
}

#[test]
fn four_mistakes_in_a_file() {
    let scratch = scratch::private("config");
    let text = "config_version = 1\n[[credential]]\nname = \"Ses\"\n[credential.source]\ntype = \"file\"\npath = \"etc/x\"\n\
                [credential.smtp]\nendpoint = \"[smtp.example.com]:587\"\n[[credential.target]]\ntyp = \"postfix\"\n";
    let path = scratch.file("config.toml", text);
    let error = config::load(&path).expect_err("four mistakes");
    assert_eq!(error.to_string(), format!("{} has 4 mistakes", path.display()));
    let out = config::render(&error.findings(), &path);
    let at = path.display();
    let want = format!(
        "{at}:3: error: name: \"Ses\" cannot be a name\n    name = \"Ses\"\n  fix: use 1 to 64 lower case letters, digits \
         and -, the first one no -\n\
         {at}:6: error: path: \"etc/x\" is not an absolute path\n    path = \"etc/x\"\n  fix: write the path from / on\n\
         {at}:8: error: endpoint: \"[smtp.example.com]:587\" is a host name with a port and brackets\n    \
         endpoint = \"[smtp.example.com]:587\"\n  fix: write the name alone, \"smtp.example.com\" and port = 587 (brackets \
         are Postfix's way to say that MX records are not looked up; it finds them in main.cf itself)\n\
         {at}:10: error: unknown key \"typ\" in [[credential.target]]\n    typ = …\n  fix: did you mean \"type\"? Allowed here: \
         name, type, config_dir, reload, drift, write, keys, unlisted_ok, log, endpoint, port, tls, region\n"
    );
    assert_eq!(out, want);
}

#[test]
fn files_that_cannot_be_read() {
    let scratch = scratch::private("config");
    let fifo = scratch.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let mut nul = EXAMPLE.replacen('\n', "\n\0", 1).into_bytes();
    let nul_at = nul.iter().position(|b| *b == 0).expect("a NUL");
    let latin = b"config_version = 1\n# caf\xe9\n";
    let utf16: Vec<u8> = "config_version = 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    nul.push(0xff);
    type Fits = fn(&LoadError) -> bool;
    let cases: Vec<(PathBuf, Fits, Option<usize>, String, &str)> = vec![
        (
            scratch.path().join("none"),
            |e| matches!(e, LoadError::Missing { .. }),
            None,
            "does not exist".into(),
            "--config PATH",
        ),
        (
            scratch.file("file", "").join("below"),
            |e| matches!(e, LoadError::Missing { .. }),
            None,
            "does not exist".into(),
            "--config PATH",
        ),
        (
            scratch.path().to_owned(),
            |e| matches!(e, LoadError::Directory { .. }),
            None,
            "is a directory".into(),
            "config.toml",
        ),
        (fifo, |e| matches!(e, LoadError::NotAFile { .. }), None, "not a regular file".into(), "pipes"),
        (
            scratch.file("nul", &nul),
            |e| matches!(e, LoadError::NotText { .. }),
            Some(2),
            format!("offset {nul_at} is 0x00"),
            "UTF-8",
        ),
        (
            scratch.file("latin1", latin),
            |e| matches!(e, LoadError::NotText { .. }),
            Some(2),
            "offset 24 is 0xe9".into(),
            "UTF-8",
        ),
        (
            scratch.file("utf16", utf16),
            |e| matches!(e, LoadError::NotText { .. }),
            Some(1),
            "offset 1 is 0x00".into(),
            "UTF-8",
        ),
        (
            scratch.file("large", vec![b'#'; MAX_FILE as usize + 1]),
            |e| matches!(e, LoadError::TooLarge { .. }),
            None,
            "larger than 1 MiB".into(),
            "the right file",
        ),
    ];
    for (path, fits, line, what, fix) in cases {
        let error = config::load(&path).expect_err("it cannot be read");
        assert!(fits(&error), "{error:?}");
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        let findings = error.findings();
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!((finding.severity, finding.line, finding.file.as_ref()), (Severity::Error, line, Some(&path)));
        assert!(finding.what.contains(&what) && finding.fix.contains(fix), "{finding:?}");
        let out = config::render(&findings, Path::new("/elsewhere"));
        assert!(out.starts_with(&path.display().to_string()) && out.contains("\n  fix: "), "{out}");
        assert_eq!(out.lines().count(), 2, "nothing is quoted: {out}");
    }
    // A file of exactly the limit is read.
    let full = format!("{EXAMPLE}{}", "#".repeat(MAX_FILE as usize - EXAMPLE.len()));
    assert_eq!(config::load(&scratch.file("full", full)).expect("1 MiB").0, good(EXAMPLE));
}

#[test]
fn a_file_that_this_user_may_not_read() {
    let scratch = scratch::private("config");
    let path = scratch.file("config.toml", EXAMPLE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("chmod");
    match config::load(&path) {
        Err(error @ LoadError::Denied { .. }) => {
            let findings = error.findings();
            assert!(findings[0].what.contains("may not be read by this user"), "{findings:?}");
            assert!(findings[0].fix.contains("run as root"), "{findings:?}");
        }
        // Root reads everything.
        Ok(_) if rustix::process::geteuid().is_root() => {}
        other => panic!("{other:?}"),
    }
}
