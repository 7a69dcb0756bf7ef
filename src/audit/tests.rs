use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use jiff::Timestamp;

use super::record::STEPS;
use super::*;
use crate::fault::Class;

/// A state directory of its own, gone at the end.
struct StateDirectory(tempfile::TempDir);

impl StateDirectory {
    fn new() -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("relaykey-audit-")
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir()
                .unwrap(),
        )
    }

    fn log(&self) -> Log {
        Log::with_file_size(self.0.path(), "ses", SIZE)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.0.path().join(format!("audit/ses.{number}.jsonl"))
    }

    fn verify(&self, head: &AuditHead) -> Result<Verified, Vec<AuditError>> {
        verify(self.0.path(), "ses", head)
    }

    /// The one break there is, as it is told, without the directory.
    fn broken(&self, head: &AuditHead) -> String {
        let wrong = self.verify(head).expect_err("it is broken");
        assert_eq!(wrong.len(), 1, "{wrong:#?}");
        wrong[0].to_string().replace(&format!("{}/audit/", self.0.path().display()), "")
    }

    /// A log of so many lines, all settled.
    fn filled(&self, lines: u64) -> (Log, AuditHead) {
        let (mut log, mut head) = (self.log(), AuditHead::default());
        for n in 1..=lines {
            head = log.append(&head, &record(n));
            log.settle(&head).unwrap();
        }
        (log, head)
    }
}

/// Room for some seventeen short lines.
const SIZE: u64 = 6_000;

fn record(n: u64) -> Record {
    Record {
        at: Timestamp::from_second(1_790_000_000 + n as i64).unwrap(),
        credential: "ses".into(),
        by: By { cause: "timer".into(), user: None, uid: None, claimed: None, detail: None },
        what: "rollover".into(),
        version: Some(format!("v{n}")),
        username: None,
        previous_username: None,
        steps: Vec::new(),
        outcome: "confirmed".into(),
        error: None,
        approved_by: None,
    }
}

fn words(text: &str) -> Record {
    let some = || Some(text.to_owned());
    let step = || StepTime { step: text.into(), target: some(), ok: true, milliseconds: u64::MAX };
    Record {
        by: By { cause: text.into(), user: some(), uid: Some(u32::MAX), claimed: some(), detail: some() },
        what: text.into(),
        version: some(),
        username: some(),
        previous_username: some(),
        steps: (0..500).map(|_| step()).collect(),
        outcome: text.into(),
        error: Some(RecordError { class: Class::Io, words: text.into() }),
        ..record(1)
    }
}

#[test]
fn a_line_is_a_json_object_that_is_bounded_and_gives_its_record_back() {
    let line = render(7, &"0".repeat(64), &record(7));
    assert!(line.starts_with(&format!("{{\"n\":7,\"prev\":\"{}\",\"at\":", "0".repeat(64))), "{line}");
    assert_eq!(serde_json::from_str::<AuditLine>(&line).unwrap().record, record(7));
    for text in ["x", "\"", "\\", "\u{0}", "\n", "é", "\u{10ffff}", "x\u{1b}[31m"] {
        let line = render(u64::MAX, &"f".repeat(64), &words(&text.repeat(20_000)));
        assert!(line.len() <= LINE && !line.chars().any(char::is_control), "{text:?}: {} bytes", line.len());
        let record = serde_json::from_str::<AuditLine>(&line).unwrap().record;
        assert!(record.error.unwrap().words.ends_with('…'), "{text:?}");
        let last = record.steps.last().unwrap();
        assert_eq!((last.step.word(), last.milliseconds), ("others", u64::MAX), "{text:?}");
    }
    let many = Record { steps: words("x").steps[..STEPS].to_vec(), ..record(1) };
    let back = serde_json::from_str::<AuditLine>(&render(1, "", &many)).unwrap().record;
    assert_eq!(back, many, "what belongs there is not cut");
}

#[test]
fn files_follow_one_another_and_the_oldest_go() {
    let scratch = StateDirectory::new();
    let (mut log, mut head) = (scratch.log(), AuditHead::default());
    for n in 1..=200 {
        head = log.append(&head, &record(n));
        assert_eq!(head.lines.len(), 1, "what is in its file is not kept in the state");
        log.settle(&head).unwrap();
        let verified = scratch.verify(&head).unwrap_or_else(|e| panic!("{n}: {e:?}"));
        assert_eq!((verified.last, verified.owed, verified.files), (n, 0, head.files.len()));
        assert_eq!(verified.first, head.files[0].first);
    }
    assert_eq!(head.files.len(), FILES);
    assert!(head.files[0].number > 3 && head.files[0].first > 50);
    let kept = fs::read_dir(scratch.0.path().join("audit")).unwrap().count();
    assert_eq!(kept, FILES, "old files are removed");
    for file in &head.files {
        let found = fs::metadata(scratch.file(file.number)).unwrap();
        assert_eq!((found.len(), found.mode() & 0o7777), (file.size, 0o600));
        assert!(found.len() <= SIZE);
    }
    assert_eq!(fs::metadata(scratch.0.path().join("audit")).unwrap().mode() & 0o7777, 0o700);

    let all = lines(scratch.0.path(), "ses", &head, usize::MAX).unwrap();
    let numbers: Vec<u64> = all.iter().map(|line| line.n).collect();
    assert_eq!(numbers, (head.files[0].first..=200).rev().collect::<Vec<_>>());
    assert!(all.iter().all(|line| line.record == record(line.n)));
    for n in [0, 1, 2, 30] {
        let expected: Vec<Record> = all.iter().take(n).map(|line| line.record.clone()).collect();
        assert_eq!(recent(scratch.0.path(), "ses", &head, n), expected);
    }
    assert_eq!(recent(scratch.0.path(), "other", &AuditHead::default(), 5), []);
}

#[test]
fn ends_of_large_files_are_enough_for_the_latest_records() {
    let scratch = StateDirectory::new();
    let (mut log, mut head) = (Log::new(scratch.0.path(), "ses"), AuditHead::default());
    let long = |n| Record { error: Some(RecordError { class: Class::Io, words: "y".repeat(1000) }), ..record(n) };
    for n in 1..=200 {
        head = log.append(&head, &long(n));
        log.settle(&head).unwrap();
    }
    assert!(head.files[0].size > 200_000 && head.files.len() == 1);
    for n in [1, 40, 60, 150, 199, 200] {
        let found = lines(scratch.0.path(), "ses", &head, n).unwrap();
        let numbers: Vec<u64> = found.iter().map(|line| line.n).collect();
        assert_eq!(numbers, (201 - n as u64..=200).rev().collect::<Vec<_>>(), "{n}");
    }
}

/// What a write leaves that was cut off, anywhere, is completed; byte for byte, by a process that knows nothing of it.
#[test]
fn a_line_that_was_cut_off_in_writing_is_completed() {
    let scratch = StateDirectory::new();
    let (log, head) = scratch.filled(3);
    // Two records in one commit.
    let later = log.append(&log.append(&head, &record(4)), &record(5));
    assert_eq!(later.lines.len(), 2);
    let before = fs::read(scratch.file(1)).unwrap();
    scratch.log().settle(&later).unwrap();
    let whole = fs::read(scratch.file(1)).unwrap();
    assert!(whole.starts_with(&before) && whole.len() > before.len() + 400);
    for end in before.len()..=whole.len() {
        for zeros in [0, 1, 100, whole.len()] {
            let mut left = whole[..end].to_vec();
            left.resize((end + zeros).min(whole.len()), 0);
            fs::write(scratch.file(1), &left).unwrap();
            let owed = scratch.verify(&later).unwrap_or_else(|e| panic!("{end}: {e:?}")).owed;
            assert_eq!(owed, if left == whole { 0 } else { 2 }, "{end}");
            scratch.log().settle(&later).unwrap_or_else(|e| panic!("{end}: {e}"));
            assert_eq!(fs::read(scratch.file(1)).unwrap(), whole, "{end}");
        }
    }
    // The file may be missing only where nothing else was in it.
    fs::remove_file(scratch.file(1)).unwrap();
    assert!(
        scratch.log().settle(&later).unwrap_err().to_string().ends_with("the file is gone: lines 1 to 5 are missing")
    );
    let first = scratch.log().append(&AuditHead::default(), &record(1));
    assert_eq!(scratch.verify(&first).unwrap(), Verified { lines: 1, first: 1, last: 1, files: 1, owed: 1 });
    scratch.log().settle(&first).unwrap();
    assert_eq!(scratch.verify(&first).unwrap().owed, 0);
}

/// A log of 50 lines in three files: every byte, every place where it can be cut off.
#[test]
fn every_changed_byte_and_every_cut_is_found_at_its_line() {
    let scratch = StateDirectory::new();
    let (_, head) = scratch.filled(50);
    assert_eq!(head.files.len(), 3);
    let mut bytes_seen = 0;
    for (at, file) in head.files.iter().enumerate() {
        let (stretch, owed) = (Stretch::of(&head, at), owed(&head, at));
        let path = scratch.file(file.number);
        let whole = fs::read(&path).unwrap();
        assert!(matches!(stretch.examine(&path, &whole, &owed), Ok(Completeness::Whole)));
        let line_of = |at: usize| whole[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        let mut changed = whole.clone();
        for at in 0..whole.len() {
            // Each bit in its turn, and more of them where lines end.
            let masks: &[u8] = if whole[at] == b'\n' { &[1, 2, 4, 8, 16, 32, 64, 128, 255] } else { &[1 << (at % 8)] };
            for mask in masks {
                changed[at] ^= mask;
                match stretch.examine(&path, &changed, &owed) {
                    Err(e) => assert!([line_of(at), line_of(at) + 1].contains(&e.line), "byte {at}: {e}"),
                    Ok(_) => panic!("{}: byte {at} is {:?} now", path.display(), char::from(changed[at])),
                }
                changed[at] = whole[at];
            }
            bytes_seen += 1;
        }
        for end in 0..whole.len() {
            match stretch.examine(&path, &whole[..end], &owed) {
                // The last line stands in the state too: it is told to be owed, and is put back.
                Ok(found) => {
                    assert!(end >= whole.len() - owed.len() && matches!(found, Completeness::Lacking), "cut at {end}")
                }
                Err(e) => assert!(end < whole.len() - owed.len(), "{e}"),
            }
        }
        for begin in (1..=whole.len()).step_by(7) {
            let cut = &whole[begin..];
            assert!(stretch.examine(&path, cut, &owed).is_err(), "{}: begins at {begin}", path.display());
        }
    }
    assert!(bytes_seen > 15_000, "{bytes_seen}");
}

/// Lines that were removed, exchanged or doubled, anywhere in the three files; files that were.
#[test]
fn every_missing_moved_or_doubled_line_is_found() {
    let scratch = StateDirectory::new();
    let (_, head) = scratch.filled(50);
    let whole: Vec<Vec<String>> = head
        .files
        .iter()
        .map(|file| fs::read_to_string(scratch.file(file.number)).unwrap().lines().map(|l| format!("{l}\n")).collect())
        .collect();
    let put = |at: usize, lines: &[String]| fs::write(scratch.file(head.files[at].number), lines.concat()).unwrap();
    let places: Vec<(usize, usize)> =
        whole.iter().enumerate().flat_map(|(file, lines)| (0..lines.len()).map(move |line| (file, line))).collect();
    assert_eq!(places.len(), 50);
    for &(file, line) in &places {
        let number = head.files[file].first + line as u64;
        let mut less = whole[file].clone();
        less.remove(line);
        put(file, &less);
        if number == 50 {
            assert_eq!(scratch.verify(&head).unwrap().owed, 1);
        } else {
            let told = scratch.broken(&head);
            assert!(told.contains(&format!("line {number} is missing")), "{told}");
        }
        for to in 0..=whole[file].len() {
            let mut more = whole[file].clone();
            more.insert(to, whole[file][line].clone());
            let (stretch, owed) = (Stretch::of(&head, file), owed(&head, file));
            assert!(
                stretch.examine(Path::new("f"), more.concat().as_bytes(), &owed).is_err(),
                "{number} doubled at {to}"
            );
        }
        put(file, &whole[file]);
    }
    for (n, &a) in places.iter().enumerate() {
        for &b in &places[n + 1..] {
            let mut changed = whole.clone();
            changed[a.0][a.1] = whole[b.0][b.1].clone();
            changed[b.0][b.1] = whole[a.0][a.1].clone();
            for file in [a.0, b.0] {
                put(file, &changed[file]);
            }
            let wrong = scratch.verify(&head).expect_err("two lines were exchanged");
            assert_eq!(wrong.len(), if a.0 == b.0 { 1 } else { 2 }, "{a:?} {b:?}: {wrong:?}");
            for file in [a.0, b.0] {
                put(file, &whole[file]);
            }
        }
    }
    for a in 0..3 {
        fs::remove_file(scratch.file(head.files[a].number)).unwrap();
        let told = scratch.broken(&head);
        assert!(told.contains(&format!("ses.{}.jsonl: the file is gone", a + 1)), "{told}");
        put(a, &[]);
        scratch.broken(&head);
        for (b, other) in whole.iter().enumerate() {
            put(a, other);
            assert_eq!(scratch.verify(&head).is_ok(), a == b);
        }
        put(a, &whole[a]);
    }
    scratch.verify(&head).unwrap();
}

#[test]
fn words_of_a_break_name_file_and_line() {
    let scratch = StateDirectory::new();
    let (log, head) = scratch.filled(6);
    let text = fs::read_to_string(scratch.file(1)).unwrap();
    let lines: Vec<String> = text.lines().map(|l| format!("{l}\n")).collect();
    let pick = |order: &[usize]| order.iter().map(|n| lines[n - 1].clone()).collect::<String>();
    let table = [
        (text.replace("\"v3\"", "\"v4\""), "ses.1.jsonl:3: line 3 was changed"),
        (text.replace("{\"n\":2,", "{\"n\":2x,"), "ses.1.jsonl:2: this is not line 2 of the log, which has to be here"),
        (pick(&[1, 2, 3, 5, 6]), "ses.1.jsonl:3: line 4 is missing after this"),
        (pick(&[3, 4, 5, 6]), "ses.1.jsonl:1: lines 1 to 2 are missing before this"),
        (pick(&[1, 2, 3]), "ses.1.jsonl:3: the file is cut off after this: lines 4 to 6 are missing"),
        (pick(&[1, 2, 3, 3, 4, 5, 6]), "ses.1.jsonl:3: line 3 stands where line 2 has to be: the order was changed"),
        (pick(&[1, 3, 2, 4, 5, 6]), "ses.1.jsonl:3: line 2 stands where line 3 has to be: the order was changed"),
        (pick(&[1, 1, 2, 3, 4, 5, 6]), "ses.1.jsonl:1: this is not part of the log, which begins here with line 1"),
        (format!("{text}more"), "ses.1.jsonl:7: the last line is not as it was written: it has no end"),
    ];
    for (changed, expected) in table {
        fs::write(scratch.file(1), changed).unwrap();
        assert_eq!(scratch.broken(&head), expected);
    }
    fs::write(scratch.file(1), &text).unwrap();
    // A state that does not belong to the files.
    let later = log.append(&log.append(&head, &record(7)), &record(8));
    scratch.log().settle(&later).unwrap();
    assert_eq!(scratch.broken(&head), "ses.1.jsonl:8: line 8 does not belong here, where line 6 has to be");
    scratch.verify(&later).unwrap();
    let other = AuditHead { hash: "0".repeat(64), ..later.clone() };
    assert_eq!(scratch.broken(&other), "ses.1.jsonl:8: line 8 was changed");
    assert_eq!(
        scratch.broken(&AuditHead::default()),
        "ses.1.jsonl: the state does not know this file: an older state was put back, or the state was lost"
    );
    assert!(scratch.verify(&AuditHead { files: Vec::new(), ..later }).is_err());
}

/// What is damaged stays as it is and is told of, the log goes on behind it, and in time the damaged file is dropped.
#[test]
fn a_broken_file_is_not_mended_and_the_log_goes_on_in_another_one() {
    let table: [(&str, fn(&Path)); 4] = [
        ("foreign line", |file| fs::write(file, fs::read_to_string(file).unwrap() + "{\"n\":4}\n").unwrap()),
        ("changed", |file| fs::write(file, fs::read_to_string(file).unwrap().replace("v2", "v9")).unwrap()),
        ("cut off", |file| fs::write(file, &fs::read(file).unwrap()[..400]).unwrap()),
        ("gone", |file| fs::remove_file(file).unwrap()),
    ];
    for (what, damage) in table {
        for restarted in [false, true] {
            let scratch = StateDirectory::new();
            let (mut log, head) = scratch.filled(3);
            damage(&scratch.file(1));
            let damaged = fs::read(scratch.file(1)).ok();
            if restarted {
                log = scratch.log();
            }
            let head = log.append(&head, &record(4));
            let AuditError::Broken(broken) = log.settle(&head).unwrap_err() else { panic!("{what}") };
            assert_eq!(broken.file, scratch.file(1), "{what}");
            assert!(log.settle(&head).unwrap_err().is_broken(), "{what}: it stays broken");
            let mut head = log.go_on(&head, &broken).unwrap();
            log.settle(&head).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(fs::read(scratch.file(1)).ok(), damaged, "{what}: it is evidence");
            let latest = recent(scratch.0.path(), "ses", &head, 1);
            assert_eq!(latest, [record(4)], "{what}");
            for n in 5..=150 {
                let told = scratch.verify(&head);
                if head.files[0].number == 1 {
                    let wrong = told.expect_err("the damage is told of for as long as the file is kept");
                    assert!(wrong.len() == 1 && wrong[0].to_string().contains("ses.1.jsonl"), "{what}: {wrong:?}");
                } else {
                    assert_eq!(told.unwrap().owed, 0, "{what}");
                }
                head = log.append(&head, &record(n));
                log.settle(&head).unwrap();
            }
            assert!(head.files[0].number > 1 && !scratch.file(1).exists(), "{what}");
        }
    }
}

#[test]
fn a_log_whose_state_was_lost_or_put_back_goes_on_and_says_so() {
    let scratch = StateDirectory::new();
    let (_, old) = scratch.filled(30);
    let (_, head) = {
        let (mut log, mut head) = (scratch.log(), old.clone());
        for n in 31..=40 {
            head = log.append(&head, &record(n));
            log.settle(&head).unwrap();
        }
        (log, head)
    };
    assert_eq!(head.files.len(), 3);
    for known in [AuditHead::default(), old] {
        let mut log = scratch.log();
        let mut head = log.append(&known, &record(41));
        let mut tries = 0;
        while let Err(e) = log.settle(&head) {
            let AuditError::Broken(broken) = e else { panic!("{e}") };
            head = log.go_on(&head, &broken).unwrap();
            tries += 1;
            assert!(tries < 3, "{broken}");
        }
        assert!(scratch.verify(&head).is_err());
        assert_eq!(recent(scratch.0.path(), "ses", &head, 1), [record(41)]);
        for number in 1..=3 {
            assert!(scratch.file(number).exists(), "nothing is removed for a state that does not know it");
        }
    }
}

#[test]
fn lines_wait_in_the_state_while_their_file_cannot_be_written() {
    let scratch = StateDirectory::new();
    let (mut log, mut head) = scratch.filled(3);
    let aside = scratch.0.path().join("aside");
    let block = || {
        fs::rename(scratch.file(1), &aside).unwrap();
        fs::create_dir(scratch.file(1)).unwrap();
    };
    let free = || {
        fs::remove_dir(scratch.file(1)).unwrap();
        fs::rename(&aside, scratch.file(1)).unwrap();
    };
    block();
    // More than one file's worth.
    for n in 4..=40 {
        head = log.append(&head, &record(n));
        let e = log.settle(&head).unwrap_err();
        assert!(!e.is_broken() && !e.fix().is_empty() && e.class() == Class::Unsupported, "{e}");
    }
    assert_eq!((head.lines.len(), head.files.len()), (37, 3));
    assert_eq!(recent(scratch.0.path(), "ses", &head, 37).len(), 37);
    free();
    log.settle(&head).unwrap();
    assert_eq!(scratch.verify(&head).unwrap(), Verified { lines: 40, first: 1, last: 40, files: 3, owed: 0 });

    // Beyond what the state holds, lines are lost: told of, and no more than that.
    let scratch = StateDirectory::new();
    let (mut log, mut head) = scratch.filled(3);
    let file = scratch.file(1);
    fs::rename(&file, scratch.0.path().join("aside")).unwrap();
    fs::create_dir(&file).unwrap();
    for n in 4..=70 {
        head = log.append(&head, &record(n));
        log.settle(&head).unwrap_err();
    }
    assert_eq!(head.lines.len(), OWED);
    fs::remove_dir(&file).unwrap();
    fs::rename(scratch.0.path().join("aside"), &file).unwrap();
    let AuditError::Broken(broken) = log.settle(&head).unwrap_err() else { panic!() };
    let lost =
        format!("ses.1.jsonl:3: the file is cut off after this: lines 4 to {} are missing", head.files[1].first - 1);
    assert!(broken.to_string().ends_with(&lost), "{broken}");
    head = log.go_on(&head, &broken).unwrap();
    log.settle(&head).unwrap();
    assert_eq!(scratch.verify(&head).unwrap_err().len(), 1);
    assert_eq!(recent(scratch.0.path(), "ses", &head, 1), [record(70)]);
}

/// Two credentials have logs of their own, also where one's name begins with the other's.
#[test]
fn logs_of_different_credentials_do_not_meet() {
    let scratch = StateDirectory::new();
    let mut heads = Vec::new();
    for credential in ["ses", "ses-2"] {
        let (mut log, mut head) = (Log::with_file_size(scratch.0.path(), credential, SIZE), AuditHead::default());
        for n in 1..=120 {
            head = log.append(&head, &Record { credential: credential.into(), ..record(n) });
            log.settle(&head).unwrap();
        }
        heads.push((credential, head));
    }
    for (credential, head) in &heads {
        assert_eq!(verify(scratch.0.path(), credential, head).unwrap().last, 120);
        assert!(recent(scratch.0.path(), credential, head, 500).iter().all(|r| r.credential == *credential));
    }
}

#[test]
fn records_that_0_1_0_wrote_are_written_again_byte_for_byte() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/legacy/0.1.0");
    let mut seen = 0;
    for case in std::fs::read_dir(cases).unwrap() {
        let text = std::fs::read_to_string(case.unwrap().path().join("state/audit/ses.1.jsonl")).unwrap();
        for line in text.lines() {
            let record: Record = serde_json::from_str(line).unwrap();
            let written = serde_json::to_string(&record).unwrap();
            assert!(line.ends_with(&written[1..]), "{line}\n{written}");
            let known =
                !matches!(record.what, RecordKind::Foreign(_)) && !matches!(record.outcome, RecordOutcome::Foreign(_));
            let steps = record.steps.iter().all(|s| !matches!(s.step, StepKind::Foreign(_)));
            assert!(known && steps && !matches!(record.by.cause, RecordCause::Foreign(_)), "{line}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen} records");
}
