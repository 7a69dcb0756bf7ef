use super::*;
use crate::demo::lab::Lab;

/// A command that takes longer than this does not end.
const LONG: Duration = Duration::from_secs(40);

async fn ends(at: Session<'_>, once: bool, wait: Option<i64>) -> Exit {
    let args = RunArgs { once, wait: wait.map(SignedDuration::from_secs), yes_overwrite: None };
    tokio::time::timeout(LONG, run(at, &args)).await.expect("it ends")
}

#[tokio::test]
async fn what_fails_for_good_ends_with_one_and_is_not_repeated_at_full_speed() {
    let Some(lab) = Lab::of("cli::run::tests::what_fails_for_good_ends_with_one_and_is_not_repeated_at_full_speed")
    else {
        return;
    };
    lab.controller().await.ask(Ask::Run).await.expect("asked");
    lab.aws.denies(&["CreateAccessKey"]);
    assert_eq!(ends(lab.place().await, true, None).await, Exit::ForGood);
    assert_eq!(lab.aws.asked("CreateAccessKey"), 1);
    let begun = Instant::now();
    assert_eq!(ends(lab.place().await, false, None).await, Exit::ForGood);
    assert_eq!(lab.aws.asked("CreateAccessKey"), 3, "once more, as it may have been a race, and no further");
    assert!(begun.elapsed() > Duration::from_secs(1), "with a pause between them");
}

#[tokio::test]
async fn a_new_key_that_cannot_be_stored_yet_is_not_lost() {
    let Some(lab) = Lab::of("cli::run::tests::a_new_key_that_cannot_be_stored_yet_is_not_lost") else { return };
    lab.controller().await.ask(Ask::Run).await.expect("asked");
    lab.aws.denies(&["PutSecretValue"]);
    let others = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(lab.aws.keys().len(), 2, "the new key is made");
        assert_eq!(lab.aws.asked("PutSecretValue"), 1, "without a pause it is tried all the time");
        // Now the record cannot be read.
        lab.aws.denies(&["GetItem"]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        lab.aws.denies(&[]);
    };
    let (exit, ()) = tokio::join!(ends(lab.place().await, true, None), others);
    assert_eq!(exit, Exit::Done);
    assert_eq!(lab.aws.asked("PutSecretValue"), 2);
    let look = lab.controller().await.look().await.expect("a look");
    let pending = look.facts.store.labelled(crate::facts::PENDING).and_then(|version| version.key().cloned());
    assert_eq!(pending.expect("it is stored").as_str(), lab.aws.keys()[1].0);
}

/// With a key that cannot be stored, the end is asked for.
async fn ends_when_asked(lab: &Lab, once: bool) {
    lab.controller().await.ask(Ask::Run).await.expect("asked");
    lab.aws.denies(&["PutSecretValue"]);
    let others = async {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let ourselves = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &ourselves]).status().expect("it is sent");
        assert!(sent.success());
        Instant::now()
    };
    // Its time is over long before, and it holds on.
    let wait = (!once).then_some(1);
    let (exit, asked) = tokio::join!(ends(lab.place().await, once, wait), others);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_ne!(exit, Exit::Done);
    // Nothing hangs on the key: no version has it.
    let (key, _) = lab.aws.keys().remove(1);
    let look = lab.controller().await.look().await.expect("a look");
    assert!(look.facts.store.with_key(&crate::facts::KeyId::new(key)).is_none());
}

#[tokio::test]
async fn a_run_ends_when_it_is_asked_to_although_it_holds_a_key() {
    let name = "cli::run::tests::a_run_ends_when_it_is_asked_to_although_it_holds_a_key";
    let Some(lab) = Lab::of(name) else { return };
    ends_when_asked(&lab, false).await;
}

#[tokio::test]
async fn one_look_ends_when_it_is_asked_to_although_it_holds_a_key() {
    let name = "cli::run::tests::one_look_ends_when_it_is_asked_to_although_it_holds_a_key";
    let Some(lab) = Lab::of(name) else { return };
    ends_when_asked(&lab, true).await;
}

#[tokio::test]
async fn a_new_key_is_held_without_haste_while_nothing_can_be_seen() {
    let Some(lab) = Lab::of("cli::run::tests::a_new_key_is_held_without_haste_while_nothing_can_be_seen") else {
        return;
    };
    lab.controller().await.ask(Ask::Run).await.expect("asked");
    lab.aws.denies_after("CreateAccessKey", "ListAccessKeys");
    let others = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(lab.aws.asked("ListAccessKeys"), 3, "before it, right after it, and in the next turn");
        lab.aws.denies(&[]);
    };
    let (exit, ()) = tokio::join!(ends(lab.place().await, true, None), others);
    assert_eq!((exit, lab.aws.asked("PutSecretValue")), (Exit::Done, 1));
    // Where it stays so, there is an end.
    lab.aws.denies(&["ListAccessKeys"]);
    let Ok(Tick::Turned(turned)) = lab.controller().await.tick().await else { panic!("it looks") };
    let mut failing = VainTurns { least: BUSY, turns: 0, since: Instant::now() };
    failing.after(&turned);
    assert_eq!(failing.turns, 1);
}

#[tokio::test]
async fn somebody_elses_pending_version_is_no_rotation_of_ours() {
    let Some(lab) = Lab::of("cli::run::tests::somebody_elses_pending_version_is_no_rotation_of_ours") else { return };
    assert_eq!(ends(lab.place().await, true, None).await, Exit::Done);
    lab.aws.staged(r#"{"accessKeyId": "AKIAGONEGONEGONEGONE", "secretAccessKey": "gone"}"#);
    assert_eq!(ends(lab.place().await, false, Some(4)).await, Exit::People, "no host has confirmed");
    assert_eq!(lab.aws.keys().len(), 2, "a new key was made");
}

#[test]
fn pauses_grow_and_end_within_the_lease_where_a_key_is_held() {
    let failing = || VainTurns { least: BUSY, turns: 0, since: Instant::now() };
    let pauses = |held| {
        let mut failing = failing();
        (0..7).map(|_| failing.again(held).as_secs()).collect::<Vec<_>>()
    };
    assert_eq!(pauses(false), [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(pauses(true), [10, 20, 40, 60, 60, 60, 60]);
    let (hopeless, mut tried) = (Instant::now().checked_sub(HOPE).expect("a time"), failing());
    assert!(tried.must_go_on(true) && !tried.must_go_on(false));
    (tried.turns, tried.since) = (3, hopeless);
    assert!(!tried.must_go_on(true), "not for ever");
}
