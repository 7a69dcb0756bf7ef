//! Whole rotations, from the wish for a new key to the end of the old one.

use jiff::SignedDuration;
use relaykey_rotate::plan::Phase;
use relaykey_rotate::run::Ask;

use super::lab::{Kind, Lab, host, words};
use crate::lab::isolated::isolated;

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

/// One whole rotation; gives the words of all that was done.
fn whole(lab: &Lab) -> Vec<String> {
    let mut controller = lab.controller();
    let old = lab.published().1;
    let mut hosts = [host("mx1"), host("mx2"), host("mx3")];
    for host in &mut hosts {
        lab.takes(host);
    }
    assert_eq!(words(&lab.settle(&mut controller)), [""; 0], "nothing is due");
    lab.ask(&mut controller, Ask::Seal { expect: 3 });
    lab.ask(&mut controller, Ask::Run);
    let mut all = lab.settle(&mut controller);
    let new = lab.published().1;
    assert_ne!(new, old);
    assert!(lab.is_live(&old) && lab.is_live(&new), "{:?}", words(&all));

    // Two of three, for a day: the old key lives.
    lab.takes(&mut hosts[0]);
    lab.takes(&mut hosts[1]);
    lab.pass(minutes(25 * 60));
    all.extend(lab.settle(&mut controller));
    assert!(lab.is_live(&old), "{:?}", words(&all));
    lab.takes(&mut hosts[2]);
    let turned = lab.tick(&mut controller);
    assert_eq!(turned.look.decision.phase, Phase::Grace);
    lab.pass(minutes(24 * 60 - 2));
    assert_eq!(words(&lab.settle(&mut controller)), [""; 0], "not a minute too early");
    lab.pass(minutes(3));
    all.extend(lab.settle(&mut controller));
    assert!(lab.is_live(&old), "the intention settles first");
    lab.pass(minutes(2));
    all.extend(lab.settle(&mut controller));
    assert!(!lab.is_live(&old) && lab.is_live(&new), "{:?}", words(&all));
    lab.pass(minutes(3 * 24 * 60 - 10));
    all.extend(lab.settle(&mut controller));
    assert_eq!(lab.keys().len(), 2, "observed for three days");
    lab.pass(minutes(10));
    all.extend(lab.settle(&mut controller));
    assert_eq!(lab.keys(), [(new.clone(), "Active".to_owned())], "{:?}", words(&all));

    let (lines, broken) = lab.run_time.block_on(controller.verify()).expect("a log");
    assert_eq!(broken, []);
    assert!(lines.iter().all(|line| line.by.starts_with("arn:aws:")), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.what == "log-in" && line.more.as_ref().is_some_and(|more| more.contains("535")))
    );
    // Neither the password nor what it is made of stands anywhere.
    let text = lab.everything() + &format!("{lines:?}");
    assert!(!text.contains(&lab.published().2));
    words(&all)
}

#[test]
fn a_key_is_made_published_and_taken_and_the_old_one_dies_last() {
    isolated("rotate::whole::a_key_is_made_published_and_taken_and_the_old_one_dies_last", || {
        let lab = Lab::new(Kind::SecretsManager);
        assert_eq!(
            whole(&lab),
            [
                "Create",
                "Put",
                "LogIn",
                "Promote",
                "Intend",
                "LogIn",
                "Deactivate",
                "LogIn refused",
                "RecordProvedDead",
                "Delete"
            ]
        );
    });
}

#[test]
fn the_same_by_way_of_parameter_store() {
    isolated("rotate::whole::the_same_by_way_of_parameter_store", || {
        let lab = Lab::new(Kind::ParameterStore);
        assert_eq!(
            whole(&lab),
            ["Create", "LogIn", "Put", "Intend", "LogIn", "Deactivate", "LogIn refused", "RecordProvedDead", "Delete"]
        );
    });
}
