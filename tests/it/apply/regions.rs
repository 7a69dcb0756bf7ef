//! Several regions of one IAM key: each key gets, and is compared with, the login of its own endpoint.

use super::several::{Lab, target};
use super::{KEY, config_of};
use crate::lab::several::Several;

use std::fs;

use relaykey::apply::{Client, Logins, Reply, Request, Server, TargetSetup, WantedProof};
use relaykey::config::{Reload, Smtp, TargetKind};
use relaykey::credential::{self, Login, ProofFields, Secret, ses_smtp_password};
use relaykey::fault::Class;
use relaykey::mta::{Mta, Ours};
use relaykey_core::report::OtherKeyIds;

/// Of the relay's second endpoint.
const FURTHER: &str = "[email-smtp.us-east-1.amazonaws.com]:587";
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

fn login(user: &str, region: &str) -> Login {
    let password = ses_smtp_password(&Secret::new(format!("secret-of-{user}")), region);
    Login::new(user.into(), password).unwrap()
}

fn pair(user: &str, region: &str) -> String {
    let Login { username, password } = login(user, region);
    format!("{username}:{}", password.expose())
}

fn logins() -> Logins {
    Logins::new(login("AKIANEW", REGIONS[0]), vec![Some(login("AKIANEW", REGIONS[1]))])
}

/// A table for each region, and a service that asks both: with these user names.
fn lab(users: [&str; 2]) -> Lab {
    let line = |key: &str, user: &str, region: &str| format!("{key} {}\n", pair(user, region));
    let tables = [
        ("hash", "one/sasl_passwd", line(KEY, users[0], REGIONS[0])),
        ("lmdb", "two/sasl_passwd", line(FURTHER, users[1], REGIONS[1])),
    ];
    let mut lab = Lab::new(&tables, &[("smtp", &[0, 1])]);
    lab.several.services[0].keys.push(FURTHER.into());
    lab.several.further.push(FURTHER.into());
    begin_anew(&mut lab);
    lab
}

/// As if the process had been killed and started again.
fn begin_anew(lab: &mut Lab) {
    let mut config =
        config_of(&lab.dir.path().join("state"), TargetKind::Text { path: "/none".into() }, Reload::Always);
    let smtp = &mut config.credentials[0].targets[0].smtp;
    let further = Smtp { endpoint: "email-smtp.us-east-1.amazonaws.com".into(), ..smtp.clone() };
    smtp.also.push(further);
    let made: Several = lab.several.clone();
    let make = move |_: &TargetSetup| -> Box<dyn Mta> { Box::new(made.clone()) };
    lab.client = Client::in_process(Server::with_mtas(&config.mail(), &make));
}

fn ours() -> Ours {
    Ours { applied: Some("AKIAOLD".into()), ..Ours::default() }
}

fn prepare(lab: &Lab, logins: Logins) -> Result<relaykey::apply::Prepared, relaykey::fault::Fault> {
    let expect = lab.inspect().expect();
    let request = Request::Prepare { target: target(), ours: ours(), expect, logins, version: "v2".into() };
    match lab.call(request)? {
        Reply::Prepared(prepared) => Ok(prepared),
        other => panic!("{other:?}"),
    }
}

fn fields() -> ProofFields {
    ProofFields {
        host_id: "id".into(),
        host: "mx1.example.com".into(),
        credential: "ses".into(),
        version: "v2".into(),
        username: "AKIANEW".into(),
        target: "main".into(),
        region: REGIONS[0].into(),
        outcome: "confirmed".into(),
        seq: 1,
        at: "2026-11-29T20:00:00Z".into(),
        v2: None,
    }
}

#[test]
fn each_key_gets_the_login_of_its_region() {
    let lab = lab(["AKIAOLD", "AKIAOLD"]);
    let before = lab.inspect();
    assert_eq!(before.endpoints, [0, 1]);
    // Two passwords, and one version.
    assert!(before.live_id.is_some() && before.live_id == before.holds);
    let prepared = prepare(&lab, logins()).unwrap();
    lab.call(Request::Swap { target: target() }).unwrap();
    assert_eq!(lab.several.find(0, KEY), pair("AKIANEW", REGIONS[0]));
    assert_eq!(lab.several.find(1, FURTHER), pair("AKIANEW", REGIONS[1]));

    let read =
        Request::ReadBack { target: target(), prove: Some(WantedProof { fields: fields(), room: 1000 }), nonce: None };
    let Reply::ReadBack(read) = lab.call(read).unwrap() else { panic!() };
    assert!(read.matches, "{:?}", read.mismatches);
    assert_eq!((read.live_id.as_ref(), &read.others), (Some(&prepared.live_id), &OtherKeyIds::default()));
    assert_eq!(read.regions.as_ref().unwrap().regional.iter().map(|login| &*login.region).collect::<Vec<_>>(), REGIONS);
    // The proof is over one password, that of the default endpoint's region.
    assert_eq!(read.regions.unwrap().region.as_deref(), Some(REGIONS[0]));
    let proof = credential::proof(&login("AKIANEW", REGIONS[0]).password, &fields());
    assert_eq!(read.proof, Some(proof));
    let after = lab.inspect();
    assert_eq!((after.live_id, after.holds), (Some(prepared.live_id.clone()), Some(prepared.live_id)));
}

/// With nothing open, for a sign of life: what is there, under its own outcome, and nothing where anything else is there.
#[test]
fn a_sign_of_life_is_proved_only_by_the_login_that_was_confirmed_and_as_one() {
    let lab = lab(["AKIANEW", "AKIANEW"]);
    let live_id = lab.inspect().live_id.expect("one login");
    let attest = |lab: &Lab, live_id: &str| {
        let prove = WantedProof { fields: fields(), room: 1000 };
        let ours = Ours { applied: Some("AKIANEW".into()), ..Ours::default() };
        let request = Request::Attest { target: target(), ours, live_id: live_id.into(), prove };
        assert!(request.only_looks());
        match lab.call(request).unwrap() {
            Reply::ReadBack(read) => read,
            other => panic!("{other:?}"),
        }
    };
    let read = attest(&lab, &live_id);
    let as_alive = ProofFields { outcome: "alive".into(), ..fields() };
    let proof = credential::proof(&login("AKIANEW", REGIONS[0]).password, &as_alive);
    assert_eq!((read.matches, &read.proof, &read.live_id), (true, &Some(proof), &Some(live_id.clone())));
    assert_eq!((read.regions.unwrap().region.as_deref(), read.keys.len()), (Some(REGIONS[0]), 2));
    // Another one was confirmed.
    let read = attest(&lab, "another");
    assert_eq!((read.matches, &read.proof), (false, &None));
    // One of the tables holds something else by now.
    lab.several.write(1, &format!("{FURTHER} {}\n", pair("AKIAOLD", REGIONS[1])));
    let read = attest(&lab, &live_id);
    assert_eq!((read.matches, &read.proof), (false, &None));
}

#[test]
fn another_regions_password_is_no_match_and_proves_nothing() {
    let lab = lab(["AKIAOLD", "AKIAOLD"]);
    let prepared = prepare(&lab, logins()).unwrap();
    lab.call(Request::Swap { target: target() }).unwrap();
    // The right user name, and the password of the other region.
    lab.several.write(1, &format!("{FURTHER} {}\n", pair("AKIANEW", REGIONS[0])));
    let read =
        Request::ReadBack { target: target(), prove: Some(WantedProof { fields: fields(), room: 1000 }), nonce: None };
    let Reply::ReadBack(read) = lab.call(read).unwrap() else { panic!() };
    assert!(!read.matches && read.proof.is_none() && read.mismatches[0].contains(FURTHER), "{read:?}");
    assert_ne!(lab.inspect().live_id, Some(prepared.live_id));
}

#[test]
fn where_a_target_uses_one_region_that_one_is_proven() {
    let mut lab = lab(["AKIAOLD", "AKIAOLD"]);
    lab.several.write(0, "");
    lab.several.services[0].keys.remove(0);
    begin_anew(&mut lab);
    let prepared = prepare(&lab, logins()).unwrap();
    lab.call(Request::Swap { target: target() }).unwrap();
    let read =
        Request::ReadBack { target: target(), prove: Some(WantedProof { fields: fields(), room: 1000 }), nonce: None };
    let Reply::ReadBack(read) = lab.call(read).unwrap() else { panic!() };
    assert!(read.matches, "{:?}", read.mismatches);
    let regions = read.regions.unwrap();
    assert_eq!((regions.region.as_deref(), read.live_id), (Some(REGIONS[1]), Some(prepared.live_id)));
    let over = ProofFields { region: REGIONS[1].into(), ..fields() };
    assert_eq!(read.proof, Some(credential::proof(&login("AKIANEW", REGIONS[1]).password, &over)));
}

#[test]
fn what_no_endpoint_has_taken_is_put_nowhere() {
    let lab = lab(["AKIAOLD", "AKIAOLD"]);
    let before = lab.live();
    let e = prepare(&lab, logins().proved_at(vec![0])).unwrap_err();
    assert_eq!((e.class, e.temporary), (Class::ChangedUnderneath, true), "{e:?}");
    assert_eq!((lab.live(), lab.staged().len()), (before, 0));
    prepare(&lab, logins().proved_at(vec![0, 1])).unwrap();
}

/// Killed between the two tables: what is in place is known as the version's, whichever of them it is.
#[test]
fn a_part_of_it_is_known_after_a_kill() {
    for half in 0..2 {
        let mut lab = lab(["AKIAOLD", "AKIAOLD"]);
        let before: Vec<String> = lab.several.tables.iter().map(|t| fs::read_to_string(&t.path).unwrap()).collect();
        prepare(&lab, logins()).unwrap();
        lab.call(Request::Swap { target: target() }).unwrap();
        lab.several.write(half, &before[half]);
        begin_anew(&mut lab);
        let seen = lab.inspect();
        assert!(seen.swapped.is_some() && seen.live_id.is_none() && seen.holds.is_none(), "{half} {seen:?}");
        let prepared = prepare(&lab, logins()).unwrap();
        assert!(!prepared.nothing_to_write);
        lab.call(Request::Swap { target: target() }).unwrap();
        assert_eq!(lab.inspect().holds, Some(prepared.live_id));
    }
}
