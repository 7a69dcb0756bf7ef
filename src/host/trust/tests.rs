#[path = "../../../tests/lab/acl.rs"]
mod acl;

use std::os::unix::fs::PermissionsExt as _;

use acl::acl;

use super::*;

const NOBODY: u32 = 65534;

/// Everything that the rule looks at: owner, group, mode, what it is, what for.
#[test]
fn the_rule() {
    let obey = Rule::Obey { owner: None };
    let by_nobody = Rule::Obey { owner: Some(NOBODY) };
    let me = rustix::process::geteuid().as_raw();
    let verdict =
        |uid, gid, mode, is_directory, rule, acl| judge(Permissions { uid, gid, mode }, is_directory, rule, || acl);
    let others = |mode| Outcome::Refused(Reason::Others { mode });
    let owner = || Outcome::Refused(Reason::Owner { uid: NOBODY });
    use Outcome::{Trusted, Warning};
    for is_directory in [false, true] {
        let kind = if is_directory { "directory" } else { "file" };
        // Owners, with every harmless mode.
        for mode in [0o400, 0o600, 0o640, 0o644, 0o700, 0o755, 0o4755, 0o2755, 0o444] {
            for rule in [obey, by_nobody, Rule::Replace] {
                assert_eq!(verdict(0, 0, mode, is_directory, rule, false), Trusted, "{kind} {mode:o} {rule:?}");
                assert_eq!(verdict(me, NOBODY, mode, is_directory, rule, false), Trusted, "{kind} {mode:o} {rule:?}");
            }
            assert_eq!(verdict(NOBODY, 0, mode, is_directory, obey, false), owner(), "{kind} {mode:o}");
            assert_eq!(verdict(NOBODY, 0, mode, is_directory, by_nobody, false), Trusted, "{kind} {mode:o}");
            assert_eq!(verdict(NOBODY, 0, mode, is_directory, Rule::Replace, false), owner(), "{kind} {mode:o}");
        }
        // A group that may write: told, unless it is root's; where files are replaced, refused.
        for mode in [0o660, 0o664, 0o770, 0o775, 0o2775] {
            assert_eq!(verdict(0, NOBODY, mode, is_directory, obey, false), Warning, "{kind} {mode:o}");
            assert_eq!(verdict(0, 0, mode, is_directory, obey, false), Trusted, "{kind} {mode:o}");
            assert_eq!(verdict(0, 0, mode, is_directory, obey, true), Warning, "{kind} {mode:o} with an ACL");
            assert_eq!(verdict(0, 0, mode, is_directory, Rule::Replace, false), others(mode), "{kind} {mode:o}");
        }
        // Everybody: refused, whoever owns it.
        for mode in [0o666, 0o602, 0o777, 0o757, 0o2777] {
            for rule in [obey, by_nobody, Rule::Replace] {
                assert_eq!(verdict(0, 0, mode, is_directory, rule, false), others(mode), "{kind} {mode:o} {rule:?}");
            }
            assert_eq!(verdict(NOBODY, 0, mode, is_directory, by_nobody, false), others(mode), "{kind} {mode:o}");
        }
    }
    // The sticky bit means something on directories alone: there whose the next step is decides.
    for mode in [0o1777, 0o3777, 0o1775] {
        assert_eq!(verdict(0, NOBODY, mode, true, obey, false), Trusted, "{mode:o}");
        assert_eq!(verdict(NOBODY, NOBODY, mode, true, obey, false), owner(), "{mode:o}");
        let expected = if mode & 2 != 0 { others(mode) } else { Warning };
        assert_eq!(verdict(0, NOBODY, mode, false, obey, false), expected, "{mode:o}");
    }
}

#[test]
fn access_control_lists() {
    let (mine, mask, user, group) = ((1, 6, u32::MAX), |p| (0x10, p, u32::MAX), |p| (2, p, NOBODY), |p| (8, p, NOBODY));
    for (entries, writes) in [
        (vec![], false),
        (vec![mine], false),
        (vec![mine, user(6), mask(6)], true),
        (vec![mine, user(6), mask(4)], false),
        (vec![mine, user(4), mask(6)], false),
        (vec![mine, group(2), mask(2)], true),
        (vec![mine, (2, 6, 0), (8, 6, 0), mask(6)], false),
    ] {
        assert_eq!(acl_names_a_writer(&acl(&entries)), writes, "{entries:?}");
    }
    assert!(!acl_names_a_writer(b"") && !acl_names_a_writer(b"\x02\0\0\0odd"));
}

#[test]
fn what_runs_a_script() {
    for (head, programs) in [
        ("\x7fELF", &[][..]),
        ("", &[]),
        ("#!", &[]),
        ("#!\n/bin/sh", &[]),
        ("#!/bin/sh\nid", &["/bin/sh"]),
        ("#! /bin/bash -e", &["/bin/bash"]),
        ("#!sh\n", &["/sh"]),
        ("#!/usr/bin/env python3\n", &["/usr/bin/env", "python3"]),
        ("#!/usr/bin/env -S A=b bash -e\n", &["/usr/bin/env", "bash"]),
        ("#!/usr/bin/env\n", &["/usr/bin/env"]),
    ] {
        assert_eq!(interpreters(head.as_bytes()), programs, "{head:?}");
    }
}

#[test]
fn users_by_name_and_number() {
    assert_eq!(user_id("root").unwrap(), Some(0));
    assert_eq!(user_id("1234").unwrap(), Some(1234));
    assert_eq!(user_id("no-such-user").unwrap(), None);
    assert_eq!(user_name(0).as_deref(), Some("root"));
    let passwd = b"root:x:0:0::/root:/bin/sh\nbroken\n\xff:x:1:1::/:/\n:x:2:2::/:/\nvault:x:100:65533::/:/bin/false\n";
    let all: Vec<_> = entries(passwd).collect();
    assert_eq!(all, [("root".to_owned(), 0), ("vault".to_owned(), 100)]);
}

#[test]
fn paths_for_a_shell() {
    assert_eq!(quoted(Path::new("/etc/a-b_c.toml")), "/etc/a-b_c.toml");
    assert_eq!(quoted(Path::new("/etc/a b's; x")), r"'/etc/a b'\''s; x'");
}

#[test]
fn only_directories_of_which_nobody_else_is_part_are_searched() {
    let path = command_path();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    assert!(dirs.contains(&PathBuf::from("/usr/bin")), "{dirs:?}");
    assert!(dirs.iter().all(|dir| std::fs::metadata(dir).unwrap().permissions().mode() & 0o002 == 0), "{dirs:?}");
}
