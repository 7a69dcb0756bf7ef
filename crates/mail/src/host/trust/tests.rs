#[path = "../../../../../tests/lab/acl.rs"]
mod acl;

use std::os::unix::fs::PermissionsExt as _;

use acl::acl;

use super::program::interpreters;
use super::users::entries;
use super::*;

const NOBODY: u32 = 65534;

/// Everything that the rule looks at: owner, group, mode, what it is, what for.
#[test]
fn the_rule() {
    let obey = TrustRule::Obey { owner: None };
    let by_nobody = TrustRule::Obey { owner: Some(NOBODY) };
    let me = rustix::process::geteuid().as_raw();
    let listed = |user| acl(&[(1, 6, u32::MAX), (2, 6, user), (4, 4, u32::MAX), (0x10, 6, u32::MAX)]);
    let verdict = |uid, gid, mode, is_directory, rule, list: Option<u32>| {
        judge(Permissions { uid, gid, mode }, is_directory, rule, || list.map(listed).unwrap_or_default())
    };
    let others = |mode| TrustOutcome::Refused(WhyUntrusted::Others { mode });
    let owner = || TrustOutcome::Refused(WhyUntrusted::Owner { uid: NOBODY });
    use TrustOutcome::Trusted;
    let warning = |gid| TrustOutcome::Warning { gid, listed: false };
    for is_directory in [false, true] {
        let kind = if is_directory { "directory" } else { "file" };
        // Owners, with every harmless mode.
        for mode in [0o400, 0o600, 0o640, 0o644, 0o700, 0o755, 0o4755, 0o2755, 0o444] {
            for rule in [obey, by_nobody, TrustRule::Replace] {
                assert_eq!(verdict(0, 0, mode, is_directory, rule, None), Trusted, "{kind} {mode:o} {rule:?}");
                assert_eq!(verdict(me, NOBODY, mode, is_directory, rule, None), Trusted, "{kind} {mode:o} {rule:?}");
            }
            assert_eq!(verdict(NOBODY, 0, mode, is_directory, obey, None), owner(), "{kind} {mode:o}");
            assert_eq!(verdict(NOBODY, 0, mode, is_directory, by_nobody, None), Trusted, "{kind} {mode:o}");
            assert_eq!(verdict(NOBODY, 0, mode, is_directory, TrustRule::Replace, None), owner(), "{kind} {mode:o}");
        }
        // A group that may write: told, unless it is root's; where files are replaced, refused.
        for mode in [0o660, 0o664, 0o770, 0o775, 0o2775] {
            assert_eq!(verdict(0, NOBODY, mode, is_directory, obey, None), warning(NOBODY), "{kind} {mode:o}");
            assert_eq!(verdict(0, 0, mode, is_directory, obey, None), Trusted, "{kind} {mode:o}");
            // By an access control list: whom it names, and not the group that the mode speaks of.
            let by_list = TrustOutcome::Refused(WhyUntrusted::Listed { uid: NOBODY });
            assert_eq!(verdict(0, 0, mode, is_directory, obey, Some(NOBODY)), by_list, "{kind} {mode:o}");
            for (rule, user) in [(obey, 0), (obey, me), (by_nobody, NOBODY)] {
                assert_eq!(verdict(0, NOBODY, mode, is_directory, rule, Some(user)), Trusted, "{kind} {mode:o} {user}");
            }
            let list = acl(&[(1, 6, u32::MAX), (4, 4, u32::MAX), (8, 6, NOBODY), (0x10, 6, u32::MAX)]);
            let found = judge(Permissions { uid: 0, gid: 0, mode }, is_directory, obey, || list);
            assert_eq!(found, TrustOutcome::Warning { gid: NOBODY, listed: true }, "{kind} {mode:o}");
            assert_eq!(verdict(0, 0, mode, is_directory, TrustRule::Replace, None), others(mode), "{kind} {mode:o}");
        }
        // Everybody: refused, whoever owns it.
        for mode in [0o666, 0o602, 0o777, 0o757, 0o2777] {
            for rule in [obey, by_nobody, TrustRule::Replace] {
                assert_eq!(verdict(0, 0, mode, is_directory, rule, None), others(mode), "{kind} {mode:o} {rule:?}");
            }
            assert_eq!(verdict(NOBODY, 0, mode, is_directory, by_nobody, None), others(mode), "{kind} {mode:o}");
        }
    }
    // The sticky bit means something on directories alone: there whose the next step is decides.
    for mode in [0o1777, 0o3777, 0o1775] {
        assert_eq!(verdict(0, NOBODY, mode, true, obey, None), Trusted, "{mode:o}");
        assert_eq!(verdict(NOBODY, NOBODY, mode, true, obey, None), owner(), "{mode:o}");
        let expected = if mode & 2 != 0 { others(mode) } else { warning(NOBODY) };
        assert_eq!(verdict(0, NOBODY, mode, false, obey, None), expected, "{mode:o}");
    }
}

#[test]
fn access_control_lists() {
    let (mine, mask) = ((1, 6, u32::MAX), |p| (0x10, p, u32::MAX));
    let (user, group, own) = (|p| (2, p, NOBODY), |p| (8, p, NOBODY), |p| (4, p, u32::MAX));
    for (entries, users, groups, own_group) in [
        (vec![], &[][..], &[][..], None),
        (vec![mine], &[], &[], None),
        (vec![mine, user(6), mask(6)], &[NOBODY], &[], None),
        (vec![mine, user(6), own(6), mask(4)], &[], &[], Some(false)),
        (vec![mine, user(4), own(6), mask(6)], &[], &[], Some(true)),
        (vec![mine, own(4), group(2), mask(2)], &[], &[NOBODY], Some(false)),
        (vec![mine, (2, 6, 0), (8, 6, 0), mask(6)], &[0], &[0], None),
    ] {
        let expected = Writers { users: users.to_vec(), groups: groups.to_vec(), own_group };
        assert_eq!(writers(&acl(&entries)), expected, "{entries:?}");
    }
    assert_eq!(writers(b""), Writers::default());
    assert_eq!(writers(b"\x02\0\0\0odd"), Writers::default());
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
        ("#!/bin/sh /opt/first\n", &["/bin/sh", "/opt/first"]),
        ("#!/usr/bin/env -S sh /opt/first\n", &["/usr/bin/env", "sh", "/opt/first"]),
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
    let all: Vec<_> = entries(passwd).map(|user| (user.name, user.uid, user.gid)).collect();
    assert_eq!(all, [("root".to_owned(), 0, 0), ("vault".to_owned(), 100, 65533)]);
    assert_eq!((user_group("root"), user_group("no-such-user")), (Some(0), None));
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
