//! `relaykey status` as a person reads it on a terminal: the whole text of each state in which somebody has to do something.

use crate::lab::health as lab;

use lab::{Host, STATES, left, old_key, spoil};
use relaykey::fault::Class;

fn text(make: impl FnOnce(&mut Host)) -> String {
    let mut host = Host::fine(&["ses"]);
    make(&mut host);
    host.status().text(host.now)
}

/// What is the same in every state: source, key in use, next look, cost.
fn body(text: &str) -> String {
    let always = ["  source ", "  applied ", "  in use ", "  looked ", "  next ", "  cost "];
    text.lines().filter(|l| !always.iter().any(|a| l.starts_with(a))).map(|l| format!("{l}\n")).collect()
}

#[test]
fn a_key_that_waits_for_approval() {
    let said = text(|h| spoil(h, "pending-approval"));
    assert_eq!(
        body(&said),
        "\
ses: pending-approval (new key waits for approval)
  stored    1 day 6 hours ago (this version; the key may be older)
  pending   version b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10 (AKIANEWNEWNEWNEWNEW2), seen 1 day 2 hours ago
  waits     for somebody to approve it, for 1 day 2 hours
  mail      goes on with AKIAOLDOLDOLDOLDOLD1: do not delete that key yet
  approve   relaykey approve ses --version b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10
  reject    relaykey reject ses --version b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10 --reason \"...\"
  or wait   nothing changes until somebody decides
  change    /etc/postfix/sasl_passwd:3: [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLDOLDOLDOLDOLD1:*** -> \
AKIANEWNEWNEWNEWNEW2:***
"
    );
    let window = text(|h| spoil(h, "pending-approval-window"));
    assert!(window.contains("\n  or wait   it goes into use by itself: Sat 02:00-04:00, local time\n"), "{window}");
    let dies = text(|h| spoil(h, "pending-approval-dies"));
    assert!(
        dies.contains(
            "\n  or wait   nothing changes until somebody decides, or the mail relay refuses the key in use\n"
        ),
        "{dies}"
    );
}

#[test]
fn a_key_that_a_person_puts_in_place() {
    let said = text(|h| spoil(h, "by-hand"));
    assert_eq!(
        body(&said),
        "\
ses: by-hand (new key waits for a change by hand)
  stored    1 day 6 hours ago (this version; the key may be older)
  pending   version b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10 (AKIANEWNEWNEWNEWNEW2), seen 1 day 2 hours ago
  mail      goes on with AKIAOLDOLDOLDOLDOLD1: do not delete that key yet
  by hand   target main waits for a person to change it, for 1 day 2 hours:
            1. in /etc/postfix/sasl_passwd, line 3, replace what stands after \
[email-smtp.eu-west-1.amazonaws.com]:587 by AKIANEWNEWNEWNEWNEW2:***
            2. postmap -c /etc/postfix lmdb:/etc/postfix/sasl_passwd
            3. postfix -c /etc/postfix reload
  as it is  /etc/postfix/sasl_passwd:3: [email-smtp.eu-west-1.amazonaws.com]:587 holds the login of \
AKIAOLDOLDOLDOLDOLD1, not of AKIANEWNEWNEWNEWNEW2
  password  *** stands for it; root sees it with: relaykey sync ses --dry-run --reveal
  then      relaykey sees it and reports it; where it does not run: relaykey confirm ses
"
    );
}

/// What is half changed is no reason to believe that mail goes on.
#[test]
fn a_key_that_a_person_has_begun_to_put_in_place() {
    let said = text(|h| spoil(h, "by-hand-begun"));
    assert!(!said.contains("goes on with"), "{said}");
    let last = said.split_once("\n  then ").expect("the end of what is to be done").1;
    assert!(
        last.contains(
            "\n  mail      may be failing, or going out with another login: do not delete any key\n  withdrawn 9 minutes ago: the mail server no longer holds the key that this host had reported;\n            \
             where reports go out, that one is taken back, so that nobody deletes the old key\n"
        ),
        "{said}"
    );
    let said = text(|h| spoil(h, "withdrawn"));
    assert!(said.starts_with("ses: drift (changed by somebody else)\n"), "{said}");
    assert!(
        said.contains(
            "\n  withdrawn 4 minutes ago: the mail server no longer holds the key that this host had reported"
        ),
        "{said}"
    );
    assert!(
        said.contains("\n  mail      may be failing, or going out with another login: do not delete any key\n"),
        "{said}"
    );
    assert!(
        said.contains("\n  error     the mail server (target main) no longer holds the login that relaykey put there"),
        "{said}"
    );
}

#[test]
fn a_key_that_was_rejected() {
    assert_eq!(
        body(&text(|h| spoil(h, "rejected"))),
        "\
ses: rejected (new key rejected)
  stored    1 day 6 hours ago (this version; the key may be older)
  pending   version b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10 (AKIANEWNEWNEWNEWNEW2), seen 1 day 2 hours ago
  rejected  by root (says: alice) 3 hours ago: not in the change calendar
  mail      goes on with AKIAOLDOLDOLDOLDOLD1: do not delete that key yet
  to do     nothing, if that was meant; else publish another version, or take this one:
            relaykey approve ses --version b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10
"
    );
}

/// The source may be another one by now, or silent: nobody works on what it gave before.
#[test]
fn a_key_that_the_source_does_not_give_any_more_is_not_worked_on() {
    let pending = |state: &str| {
        let mut host = Host::fine(&["ses"]);
        spoil(&mut host, state);
        let status = host.status();
        let all = &status.credentials[0].not_ready;
        all.iter().find(|n| n.class == Class::Pending).map(|n| (n.what.clone(), n.fix.clone())).expect("it is pending")
    };
    let (what, fix) = pending("pending-not-given");
    assert!(what.contains("the source does not give it now: /run/vault/ses does not exist"), "{what}");
    assert_eq!(fix, "put the credential there");
    let (what, fix) = pending("pending");
    assert!(what.ends_with("waits to be put into use") && fix == "nothing: it is being worked on", "{what} {fix}");
}

/// A daemon that was only just started, and waits before it tries again, has not looked.
#[test]
fn a_look_is_when_the_source_was_asked() {
    let looked = |make: fn(&mut Host)| {
        let said = text(make);
        said.lines().find_map(|l| l.strip_prefix("  looked ")).expect("a line").trim().to_owned()
    };
    assert_eq!(looked(|h| h.lives[0].source_asked = None), "not since relaykey started");
    assert!(
        looked(|h| h.lives[0].source_asked = Some(h.now - jiff::SignedDuration::from_mins(7)))
            .starts_with("7 minutes ago")
    );
}

#[test]
fn who_approved_stands_beside_what_came_of_it() {
    let said = text(|h| spoil(h, "approved-refused"));
    assert!(said.starts_with("ses: refused (key refused)\n"), "{said}");
    assert!(said.contains("\n  mail      goes on with AKIAOLDOLDOLDOLDOLD1: do not delete that key yet\n"), "{said}");
    assert!(said.contains("\n  approved  by root (says: alice) 20 minutes ago\n"), "{said}");
    assert!(
        said.contains("\n  error     email-smtp.eu-west-1.amazonaws.com:587 refused the credential: 535"),
        "{said}"
    );
    assert!(!said.contains("relaykey approve"), "{said}");
    let said = text(|h| spoil(h, "approved-pending"));
    assert!(said.starts_with("ses: pending (new key on its way)\n"), "{said}");
    // Held, and refused when it was tried again: not called verified.
    let mut host = Host::fine(&["ses"]);
    spoil(&mut host, "pending-approval-refused");
    let status = host.status();
    let waits = status.credentials[0].not_ready.iter().find(|n| n.class == Class::PendingApproval).expect("waits");
    assert!(!waits.what.contains("verified"), "{}", waits.what);
    let said = status.text(host.now);
    assert!(said.contains("relaykey reject ses") && !said.contains("relaykey approve"), "{said}");
}

#[test]
fn a_host_that_left_and_a_key_that_is_old() {
    let said = text(left);
    assert!(
        said.contains(
            "\n  left      the hosts that share this key, 5 hours ago (relaykey deregister): nobody waits for it\n            \
             before an old key is deleted; if it still sends mail: relaykey confirm ses\n"
        ),
        "{said}"
    );
    let said = text(old_key);
    assert!(
        said.contains(
            "\n  stored    118 days ago (this version; the key may be older): older than 90 days; mail is not affected; publish a new one at the source\n"
        ),
        "{said}"
    );
    let said = text(|h| {
        spoil(h, "pending-approval");
        old_key(h);
    });
    assert!(said.contains("\n  stored    118 days ago (this version; the key may be older): older than 90 days; the pending one takes its place\n"), "{said}");
    let said = text(|h| {
        spoil(h, "rejected");
        old_key(h);
    });
    assert!(
        said.contains(
            "\n  stored    118 days ago (this version; the key may be older): older than 90 days; mail is not affected; publish a new one at the source\n"
        ),
        "{said}"
    );
}

/// In manual mode a target that a person changes asks for no approval besides: whoever changes it decides.
#[test]
fn what_a_person_changes_needs_no_approval() {
    let mut host = Host::fine(&["ses"]);
    host.manual(Some("daily 03:00-04:00"), "apply");
    spoil(&mut host, "by-hand");
    let status = host.status();
    let ses = &status.credentials[0];
    assert_eq!(ses.not_ready.iter().map(|n| n.class.word()).collect::<Vec<_>>(), ["by-hand"]);
    let said = status.text(host.now);
    assert!(!said.contains("approve") && !said.contains("03:00"), "{said}");
}

/// What a person is to read and decide upon runs on only where it names a place in a file, or a version; and every line
/// has its label in the same column.
#[test]
fn lines_are_of_a_length_that_can_be_read() {
    for (state, _) in
        STATES.iter().filter(|(state, _)| ["pending", "by-hand", "reject"].iter().any(|w| state.starts_with(w)))
    {
        let said = text(|h| spoil(h, state));
        let failure = |line: &&str| line.starts_with("  error ") || line.starts_with("  fix ");
        for line in said.lines().skip(1).filter(|line| !failure(line)) {
            let (label, words) = line.split_at(12);
            assert!(label.starts_with("  ") && label.ends_with(' '), "{state}: {line}");
            let names = words.contains("/etc/postfix/sasl_passwd") || words.contains("version ");
            assert!(line.len() <= 100 || names, "{state}: {line}");
        }
    }
}

/// Nothing is said of how mail goes on where the mail server was not seen running.
#[test]
fn a_mail_server_that_does_not_run_is_told_in_every_state() {
    use relaykey::rollover::MailServer;
    for (state, _) in STATES.iter().filter(|(state, _)| *state != "never-applied") {
        for (seen, says) in [
            (Some(MailServer::Stopped), "the mail server is not running (target main): no mail goes out"),
            (None, "whether the mail server runs has not been looked at yet"),
        ] {
            let said = text(|h| {
                spoil(h, state);
                old_key(h);
                h.target().mail_server = seen;
            });
            assert!(said.contains(says), "{state}: {said}");
            assert!(!said.contains("not affected") && !said.contains("goes on with"), "{state}: {said}");
        }
    }
}

/// A new key that was put in while the mail server was stopped: all that is said of it agrees.
#[test]
fn a_key_that_was_put_in_while_the_mail_server_was_stopped() {
    let said = text(lab::swapped_while_stopped);
    assert!(said.starts_with("ses: not-running (mail server is not running)\n"), "{said}");
    assert!(
        said.contains(
            "\n  in place  AKIANEWNEWNEWNEWNEW2, looked up 3 minutes ago; this is the new key, not confirmed yet\n"
        ),
        "{said}"
    );
    assert!(
        said.contains("\n  mail      the mail server is not running (target main): no mail goes out from it\n"),
        "{said}"
    );
    // What does not run uses nothing.
    assert!(!said.contains("in use"), "{said}");
    let fix = said.lines().find(|line| line.starts_with("  fix ")).expect("what to do");
    assert!(fix.contains("start"), "{said}");
}

/// One attempt is one attempt.
#[test]
fn attempts_are_counted_in_english() {
    let said = |attempts: u32| {
        text(|h| {
            spoil(h, "drift");
            h.target().retry.attempts = attempts;
        })
    };
    assert!(said(1).contains(" (1 attempt, last "), "{}", said(1));
    assert!(said(2).contains(" (2 attempts, last "), "{}", said(2));
}

/// What is in the files of a mail server that was not told of it may not be in use.
#[test]
fn a_key_whose_reload_is_owed_is_in_place_and_not_in_use() {
    use relaykey::rollover::{InUse, ReloadOwed};
    let said = text(|h| {
        let now = h.now;
        h.pending();
        let target = h.target();
        target.live_id = Some("old".into());
        let why = "reload = \"never\": the mail server has to be told by somebody else";
        target.reload_owed = Some(ReloadOwed { since: now, why: why.into() });
        target.in_use = Some(InUse { at: now, usernames: vec![lab::NEW.into()], live_id: Some("new".into()) });
        h.candidate().approval = None;
    });
    assert!(said.contains("\n  in place  AKIANEWNEWNEWNEWNEW2, looked up "), "{said}");
    assert!(!said.contains("in use"), "{said}");
    assert!(!said.contains("goes on with AKIANEW"), "{said}");
}

/// What was put back is not said to be wrong any more.
#[test]
fn a_key_that_was_put_back_while_a_version_waits() {
    use relaykey::rollover::InUse;
    let said = text(|h| {
        h.manual(None, "wait").held();
        let now = h.now;
        h.first().withdrawn = Some(now - jiff::SignedDuration::from_mins(9));
        let target = h.target();
        target.live_id = Some("old".into());
        target.in_use = Some(InUse { at: now, usernames: vec![lab::OLD.into()], live_id: Some("old".into()) });
    });
    assert!(
        said.contains(
            "\n  withdrawn 9 minutes ago: the mail server held something else. It holds the key again, which is confirmed\n            \
             with the next change, or at once: relaykey confirm ses\n"
        ),
        "{said}"
    );
    assert!(said.contains("goes on with AKIAOLD") && !said.contains("may be failing"), "{said}");
}

/// What stands in the way for good is not said to be worked on besides.
#[test]
fn what_fails_is_not_said_to_be_worked_on() {
    let mut host = Host::fine(&["ses"]);
    spoil(&mut host, "failing");
    let classes: Vec<String> =
        host.status().credentials[0].not_ready.iter().map(|n| n.class.word().to_owned()).collect();
    assert_eq!(classes, ["failing"]);
}

/// The way out stands beside what is proved, and a hint from before that contradicts it is gone.
#[test]
fn a_key_in_use_that_is_refused_says_what_to_do() {
    use relaykey::wake::alarm::AlarmKind;
    let said = text(|h| {
        lab::mail_log_notice(h, AlarmKind::Refused, "535 Authentication Credentials Invalid");
        lab::key_in_use_refused(h);
    });
    assert!(
        said.contains(
            "\n  mail      is probably held back in the queue: the mail relay refuses the key in use\n  fix       activate the \
             key again, or publish a valid one at the source\n"
        ),
        "{said}"
    );
    assert!(!said.contains("\n  notice "), "{said}");
    let said = text(|h| {
        h.manual(None, "wait").held();
        lab::key_in_use_refused(h);
    });
    assert!(said.contains("\n  fix       put the new key into use: `relaykey approve ses --version "), "{said}");
}

#[test]
fn a_state_is_told_in_words() {
    let said = text(|h| lab::spoil(h, "failing"));
    assert!(said.starts_with("ses: failing (something stands in the way)\n"), "{said}");
}

/// Where another login was looked up, that is what the mail log tells of.
#[test]
fn what_the_mail_log_tells_is_about_the_login_that_was_found() {
    use relaykey::rollover::{InUse, OwnLoginTrials, OwnResult, Tried};
    let said = |foreign: bool| {
        text(|h| {
            let now = h.now;
            let id = h.first().applied.as_ref().expect("applied").id.clone();
            let last = Tried { at: now, endpoint: "e:587".into(), result: OwnResult::Accepted };
            let own = OwnLoginTrials { id, hinted: false, tries: 1, next: None, refused: vec![], last: Some(last) };
            let target = h.target();
            target.live_id = Some("ours".into());
            target.own_login = Some(own);
            let usernames = vec![if foreign { "AKIASOMEBODYELSE0000" } else { lab::NEW }.to_owned()];
            let live_id = Some(if foreign { "theirs" } else { "ours" }.to_owned());
            target.in_use = Some(InUse { at: now, usernames, live_id });
        })
    };
    assert!(said(true).contains("the mail server uses another login than that, as was looked up"), "{}", said(true));
    assert!(!said(true).contains("not Postfix's"), "{}", said(true));
    assert!(said(false).contains("or the line is not Postfix's"), "{}", said(false));
}
