//! The reader with a file of another program: nothing that is said is about keys which that program does not have.

use std::path::Path;

use super::schema::{key, table};
use super::*;
use crate::finding::Severity;

static TOP: Section = Section { header: "", keys: &[key("config_version").few(), table("aws"), table("rotate")] };
static ROTATE: Section =
    Section { header: "[[rotate]]", keys: &[key("every").few().default("\"90d\""), key("note").hidden()] };
static SCHEMA: Schema = Schema {
    program: "turner",
    version: 2,
    explained_in: "turner.example.toml",
    no_login: "Its keys are made by the program",
    instead_of_login: "remove it: the program makes the keys",
    tables: "[aws]",
    lists: "[[rotate]]",
    twice: |_, _| ("it stands twice", "keep one"),
    top: &TOP,
    sections: &[&TOP, &AWS, &ROTATE],
};

type Turns = (Aws, Vec<std::time::Duration>);

fn parsed(text: &str) -> Result<(Turns, Vec<crate::finding::Finding>), Vec<crate::finding::Finding>> {
    read(text, &SCHEMA, |reader, top| {
        let aws = reader.table(top, "aws", &AWS).map(|view| {
            reader.keys(&view, None);
            aws::read(reader, &view, &Aws::default())
        });
        let mut turns = Vec::new();
        for view in reader.tables(top, "rotate", &ROTATE).unwrap_or_default() {
            reader.keys(&view, None);
            let day = std::time::Duration::from_secs(24 * 3600);
            let every = reader.require(&view, "every", "add every = \"720h\"", |v| value::duration(v, day..=90 * day));
            turns.extend(every.map(|at| at.value));
        }
        (aws.unwrap_or_default(), turns)
    })
}

#[test]
fn another_program_reads_its_own_file_with_it() {
    let good = "config_version = 2\n[aws]\nregion = \"eu-west-1\"\n[[rotate]]\nevery = \"720h\"\n";
    let ((aws, turns), found) = parsed(good).expect("a good file");
    assert_eq!((aws.region.as_deref(), turns.len(), found.len()), (Some("eu-west-1"), 1, 0));
}

#[test]
fn every_mistake_is_said_at_once_and_in_the_words_of_that_program() {
    let text = "config_version = 2\n[aws]\nregoin = \"eu-west-1\"\nregion = \"EU-west-1\"\n[[rotate]]\npassword = \"x\"\n\
                every = \"AKIAIOSFODNN7EXAMPLE:ZqSecretPw77\"\nnote = \"ZqSecretPw77\"\nproxy = 1\n";
    let found = parsed(text).expect_err("five mistakes");
    let out = render_text(&found, Path::new("/etc/turner.toml"), Some(text), &SCHEMA);
    let wanted = [
        (3, "unknown key \"regoin\" in [aws]", "did you mean \"region\"?"),
        (4, "region: \"EU-west-1\" is not a region", "write \"eu-west-1\""),
        (6, "unknown key \"password\" in [[rotate]]", "remove it: the program makes the keys"),
        (7, "it is not shown", "write a number with its unit"),
        (9, "unknown key \"proxy\" in [[rotate]]", "move it to [aws]"),
    ];
    assert_eq!(found.len(), wanted.len(), "{out}");
    for (finding, (line, what, fix)) in found.iter().zip(wanted) {
        assert_eq!((finding.line, finding.severity), (Some(line), Severity::Error), "{out}");
        assert!(finding.what.contains(what) && finding.fix.contains(fix), "{finding:?}");
    }
    assert!(!out.contains("ZqSecret") && !out.contains("relaykey") && !out.contains("credential"), "{out}");
}

#[test]
fn a_file_that_cannot_be_read_is_spoken_of_in_the_words_of_that_program() {
    for (text, what, fix) in [
        ("config_version = 3\nx = 1\n", "this turner reads version 2", "update turner"),
        ("[aws]\n", "config_version is missing", "put config_version = 2"),
        ("config_version = 2\n[aws\n", "header does not end", "as in [aws]"),
        ("config_version = 2\n[[rotate]\n", "two brackets", "as in [[rotate]]"),
        ("config_version = 2\n[aws]\n[aws]\n", "it stands twice", "keep one"),
        ("config_version = 2\n[[rotate]]\nevery = \"/x:y@zzzzzzzzzz 1\"\n", "not shown", "a number with its unit"),
        ("config_version = 2\n[aws]\nprofile = \" apikey:ZqSecretPw77\"\n", "blanks around", "remove them"),
        (
            "config_version = 2\n[aws]\nrole_arn = \"apikey:ZqSecretPw77\"\n",
            "not shown",
            "turner.example.toml says what",
        ),
    ] {
        let found = parsed(text).expect_err(text);
        let [finding] = found.as_slice() else { panic!("{text:?}: {found:#?}") };
        assert!(finding.what.contains(what) && finding.fix.contains(fix), "{text:?}: {finding:?}");
    }
}

#[test]
fn what_is_no_text_is_said_with_its_line() {
    assert_eq!(text_of(b"a\nb".to_vec()).as_deref(), Ok("a\nb"));
    for (bytes, line, offset, byte) in [
        (&b"a\nb\0c"[..], 2, 3, 0),
        (&b"\xffa\0"[..], 1, 0, 0xff),
        (&b"a\0\xff"[..], 1, 1, 0),
        (&b"a\n\nb\xc3"[..], 3, 4, 0xc3),
    ] {
        assert_eq!(text_of(bytes.to_vec()), Err(NotText { line, offset, byte }));
    }
}

#[test]
fn what_stands_under_a_key_is_found_beside_mistakes() {
    let text = "x = y\n[host]\nrun_dir = \"/run/x\"\n";
    assert_eq!(text_at(text, "host", "run_dir").as_deref(), Some("/run/x"));
    assert_eq!(text_at(text, "host", "name"), None);
}

/// Nothing of what any harmless value says may be taken for a secret.
#[test]
fn places_and_times_are_no_secrets() {
    for harmless in [
        "[::1]:587",
        "2001:db8::1",
        "2001:db8:85a3::8a2e:370:7334",
        "[2001:db8:85a3::8a2e:370:7334]:587",
        "2001:db8:85a3::/48",
        "localhost:587",
        "https://smtp.example.com:465/",
        "arn:aws:iam::1:role/some-role",
        "Sat 02:00:00-04:00:00",
        "/etc/postfix-out/sasl_passwd",
        "ip-10-0-12-34.eu-west-1.compute.internal",
    ] {
        assert!(!may_hold_a_secret(harmless, false), "{harmless}");
    }
}
