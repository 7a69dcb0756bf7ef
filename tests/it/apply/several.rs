//! A plan of several tables: staged and looked up all, by every client service, before the first is renamed; put back all.

use super::{KEY, config_of};
use crate::lab::postfix;
use crate::lab::scratch;
use crate::lab::several::{LoginTable, Service, Several};

use std::fs;
use std::os::unix::fs::MetadataExt;

use relaykey::apply::{Client, Inspected, Prepared, ReadBack, Reply, Request, Server, TargetId, TargetSetup};
use relaykey::config::{Reload, TargetKind};
use relaykey::credential::Login;
use relaykey::fault::{Class, Fault};
use relaykey::mta::{Mta, Ours};
use tempfile::TempDir;

const OLD: &str = "AKIAOLD:old-password";
const NEW: &str = "AKIANEW:new-password";

pub(super) struct Lab {
    pub(super) dir: TempDir,
    pub(super) several: Several,
    pub(super) client: Client,
}

impl Lab {
    /// Tables of these kinds at these places, with these texts; services with their tables.
    pub(super) fn new(tables: &[(&str, &str, String)], services: &[(&str, &[usize])]) -> Self {
        let scratch = scratch::private("several");
        let dir = scratch.path();
        fs::write(dir.join("main.cf"), "compatibility_level = 3.6\n").unwrap();
        for name in ["one", "two"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let table =
            |(kind, place, _): &(&str, &str, String)| LoginTable { kind: (*kind).into(), path: dir.join(place) };
        let service = |(name, tables): &(&str, &[usize])| Service {
            name: (*name).into(),
            tables: tables.to_vec(),
            keys: vec![KEY.into()],
        };
        let several = Several {
            config_dir: dir.to_owned(),
            tables: tables.iter().map(table).collect(),
            services: services.iter().map(service).collect(),
            further: Vec::new(),
        };
        for (n, (_, _, text)) in tables.iter().enumerate() {
            several.write(n, text);
        }
        let setup = config_of(&dir.join("state"), TargetKind::Text { path: "/none".into() }, Reload::Always).mail();
        let made = several.clone();
        let make = move |_: &TargetSetup| -> Box<dyn Mta> { Box::new(made.clone()) };
        Self { client: Client::in_process(Server::with_mtas(&setup, &make)), dir: scratch, several }
    }

    fn two(first: &str, second: &str) -> Self {
        let tables = [
            ("hash", "one/sasl_passwd", format!("{KEY} {first}\n")),
            ("lmdb", "two/sasl_passwd", format!("{KEY} {second}\n")),
        ];
        Self::new(&tables, &[("smtp", &[0, 1]), ("relay", &[1])])
    }

    pub(super) fn call(&self, request: Request) -> Result<Reply, Fault> {
        self.client.call(request)
    }

    pub(super) fn inspect(&self) -> Box<Inspected> {
        let Reply::Inspected(seen) = self.call(Request::Inspect { target: target(), ours: ours() }).unwrap() else {
            panic!()
        };
        seen
    }

    fn prepare(&self) -> Result<Prepared, Fault> {
        let expect = self.inspect().expect();
        let login = Login::from_pair(NEW).unwrap();
        let version = "v2".into();
        match self.call(Request::Prepare { target: target(), ours: ours(), expect, logins: login.into(), version })? {
            Reply::Prepared(prepared) => Ok(prepared),
            other => panic!("{other:?}"),
        }
    }

    fn read_back(&self) -> ReadBack {
        let request = Request::ReadBack { target: target(), prove: None, nonce: None };
        let Reply::ReadBack(read) = self.call(request).unwrap() else { panic!() };
        *read
    }

    /// Bytes and inode of every live file.
    pub(super) fn live(&self) -> Vec<(Vec<u8>, u64)> {
        let files = self.several.tables.iter().flat_map(LoginTable::files);
        files.map(|file| (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().ino())).collect()
    }

    fn found(&self) -> Vec<String> {
        (0..self.several.tables.len()).map(|table| self.several.find(table, KEY)).collect()
    }

    pub(super) fn staged(&self) -> Vec<String> {
        let entries = ["one", "two"].iter().flat_map(|name| fs::read_dir(self.dir.path().join(name)).unwrap());
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut staged: Vec<String> = names.filter(|name| name.starts_with(".relaykey.")).collect();
        staged.sort();
        staged
    }
}

pub(super) fn target() -> TargetId {
    TargetId { credential: "ses".into(), target: "main".into() }
}

fn ours() -> Ours {
    Ours { applied: Some("AKIAOLD".into()), ..Ours::default() }
}

#[test]
fn several_tables_are_staged_then_renamed_and_read_back_by_service() {
    let lab = Lab::two(OLD, OLD);
    let before = lab.live();
    lab.prepare().unwrap();
    assert_eq!(lab.live(), before, "nothing is live before the swap");
    let expected =
        [".relaykey.ses.main.0", ".relaykey.ses.main.0.db", ".relaykey.ses.main.1", ".relaykey.ses.main.1.lmdb"];
    assert_eq!(lab.staged(), expected);
    lab.call(Request::Swap { target: target() }).unwrap();
    lab.call(Request::Activate { target: target() }).unwrap();
    assert_eq!(lab.found(), [NEW, NEW]);
    let read = lab.read_back();
    assert!(read.matches && read.live_id.is_some(), "{read:?}");
    assert_eq!(read.keys, [KEY]);
    let tables: Vec<(&str, String)> = read.tables.iter().map(|t| (t.table.as_str(), t.services.join(" "))).collect();
    let ids: Vec<String> = lab.several.tables.iter().map(|table| table.id().to_string()).collect();
    assert_eq!(tables, [(ids[0].as_str(), "smtp".into()), (ids[1].as_str(), "smtp relay".into())]);
    // One of them is put back by somebody: only the service that asks it first finds something else.
    lab.several.write(1, &format!("{KEY} {OLD}\n"));
    let read = lab.read_back();
    assert!(!read.matches && read.live_id.is_none(), "{read:?}");
    assert_eq!(read.mismatches.len(), 1, "{:?}", read.mismatches);
    lab.call(Request::Commit { target: target() }).unwrap();
    assert!(lab.staged().is_empty());
}

/// A table that is none of ours to change stands in front of one that is, and answers first.
#[test]
fn what_answers_before_the_new_table_is_found_out_before_anything_is_renamed() {
    let lab = Lab::two("AKIASTRANGER:pw", OLD);
    let before = lab.live();
    let e = lab.prepare().unwrap_err();
    assert_eq!(e.class, Class::Mismatch, "{e:?}");
    let first = lab.several.tables[0].id();
    assert!(e.what.contains("smtp") && e.what.contains(&format!("gives another login (from {first})")), "{}", e.what);
    assert!(!e.what.contains("STRANGER") && !e.what.contains("pw"), "{}", e.what);
    assert_eq!(lab.live(), before);
    assert!(lab.staged().is_empty(), "{:?}", lab.staged());
    // What is no login answers too.
    lab.several.write(0, &format!("{KEY} nonsense\n"));
    assert_eq!(lab.prepare().unwrap_err().class, Class::Mismatch);
    // A table without the key does not.
    lab.several.write(0, "[else.example.com]:25 joe:pw\n");
    lab.prepare().unwrap();
    // Nor is it confirmed where somebody puts another login in front of it later.
    lab.call(Request::Swap { target: target() }).unwrap();
    assert!(lab.read_back().matches);
    lab.several.write(0, &format!("{KEY} AKIASTRANGER:pw\n"));
    let read = lab.read_back();
    assert!(!read.matches && read.live_id.is_none() && read.proof.is_none(), "{read:?}");
    let [told] = read.mismatches.as_slice() else { panic!("{:?}", read.mismatches) };
    assert!(told.starts_with("for smtp ") && told.ends_with(&format!(", from {first}")), "{told}");
    let others: Vec<&str> = read.others.named.iter().map(|held| held.id.as_str()).collect();
    assert_eq!(others, ["AKIASTRANGER"]);
}

#[test]
fn an_undo_puts_every_table_back() {
    let lab = Lab::two(OLD, OLD);
    let bytes = || lab.live().into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>();
    let before = bytes();
    lab.prepare().unwrap();
    lab.call(Request::Swap { target: target() }).unwrap();
    assert_eq!(lab.found(), [NEW, NEW]);
    lab.call(Request::Undo { target: target() }).unwrap();
    assert_eq!((bytes(), lab.found()), (before, vec![OLD.to_owned(); 2]));
    lab.call(Request::Discard { target: target() }).unwrap();
    assert!(lab.staged().is_empty());
}

/// The first table is in place when the second cannot be renamed any more.
#[test]
fn a_swap_that_stops_between_two_tables_puts_the_first_back() {
    let lab = Lab::two(OLD, OLD);
    let before: Vec<Vec<u8>> = lab.live().into_iter().map(|(bytes, _)| bytes).collect();
    lab.prepare().unwrap();
    fs::remove_file(lab.dir.path().join("two/.relaykey.ses.main.1")).unwrap();
    fs::write(lab.dir.path().join("no-plans"), "").unwrap();
    let e = lab.call(Request::Swap { target: target() }).unwrap_err();
    assert!(e.what.contains("no-plans") && !e.what.contains("could not be put back"), "{e:?}");
    let after: Vec<Vec<u8>> = lab.live().into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!((after, lab.found()), (before, vec![OLD.to_owned(); 2]));
    assert!(lab.inspect().swapped.is_none());
    // And with plans again it goes on.
    fs::remove_file(lab.dir.path().join("no-plans")).unwrap();
    lab.prepare().unwrap();
    lab.call(Request::Swap { target: target() }).unwrap();
    assert_eq!(lab.found(), [NEW, NEW]);
}

/// Two services may read one text through maps of two kinds.
#[test]
fn a_text_with_two_maps_is_written_once_and_compiled_twice() {
    let text = format!("# c\n{KEY} {OLD}\n");
    let tables = [("hash", "one/sasl_passwd", text.clone()), ("lmdb", "one/sasl_passwd", text.clone())];
    let lab = Lab::new(&tables, &[("smtp", &[0]), ("relay", &[1])]);
    lab.prepare().unwrap();
    let expected = [".relaykey.ses.main.0", ".relaykey.ses.main.0.db", ".relaykey.ses.main.0.lmdb"];
    assert_eq!(lab.staged(), expected);
    lab.call(Request::Swap { target: target() }).unwrap();
    assert_eq!(lab.found(), [NEW, NEW]);
    assert_eq!(fs::read_to_string(&lab.several.tables[0].path).unwrap(), text.replace(OLD, NEW));
    lab.call(Request::Undo { target: target() }).unwrap();
    assert_eq!(lab.found(), [OLD, OLD]);
}

/// On a real Postfix table: whatever key stands there is named, as an access key id and nothing else.
#[test]
fn every_other_access_key_id_is_named_and_no_other_user_name() {
    let text = format!(
        "{KEY} {OLD}\n[email-smtp.us-east-1.amazonaws.com]:587 AKIAFOREIGN:pw1\nsales@example.com AKIAFOREIGN:pw2\n\
         [smtp.sendgrid.net]:587 apikey:SG.secret\n[relay.example.com]:25 BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS:x\n"
    );
    let options =
        postfix::Options { map_type: "hash", relayhost: KEY, ca_pem: None, table: Some(&text), settings: &[] };
    let instance = postfix::Instance::new(&options);
    let kind = TargetKind::Postfix { config_dir: instance.config_dir.clone() };
    let client = Client::in_process(Server::new(&config_of(&instance.base.join("state"), kind, Reload::Always).mail()));
    let inspect = || {
        let Reply::Inspected(seen) = client.call(Request::Inspect { target: target(), ours: ours() }).unwrap() else {
            panic!()
        };
        seen
    };
    let told = |others: &relaykey_core::report::OtherKeyIds| -> Vec<(String, usize, Vec<Option<usize>>)> {
        let lines = |held: &relaykey_core::report::HeldKeyId| held.places.iter().map(|place| place.line).collect();
        others.named.iter().map(|held| (held.id.clone(), held.count, lines(held))).collect()
    };
    let seen = inspect();
    let foreign = ("AKIAFOREIGN".to_owned(), 2, vec![Some(2), Some(3)]);
    assert_eq!(told(&seen.others), std::slice::from_ref(&foreign));
    assert_eq!(seen.others.named[0].places[1].key, "sales@example.com");
    let shown = format!("{seen:?}{}", serde_json::to_string(&seen).unwrap());
    assert!(!shown.contains("apikey") && !shown.contains("BMPP") && !shown.contains("secret"), "{shown}");
    let (expect, login, version) = (seen.expect(), Login::from_pair(NEW).unwrap(), "v2".into());
    client.call(Request::Prepare { target: target(), ours: ours(), expect, logins: login.into(), version }).unwrap();
    // Staged, nothing has changed; swapped, the old one is gone.
    client.call(Request::Swap { target: target() }).unwrap();
    let read = client.call(Request::ReadBack { target: target(), prove: None, nonce: None }).unwrap();
    let Reply::ReadBack(read) = read else { panic!() };
    assert_eq!((told(&read.others), read.incomplete.len()), (vec![foreign.clone()], 0));
    client.call(Request::Commit { target: target() }).unwrap();
    // What only the compiled map holds counts as well.
    let applied = Ours { applied: Some("AKIANEW".into()), ..Ours::default() };
    let new = fs::read_to_string(instance.table()).unwrap();
    instance.write_table(&new.replace("AKIAFOREIGN:pw1", "AKIAMAPONLY:pw1"));
    instance.postmap();
    instance.write_table(&new);
    let Reply::Inspected(seen) = client.call(Request::Inspect { target: target(), ours: applied }).unwrap() else {
        panic!()
    };
    assert_eq!(told(&seen.others), [foreign, ("AKIAMAPONLY".into(), 1, vec![None])]);
}

#[test]
fn a_login_table_that_cannot_be_listed_is_named() {
    let options = postfix::Options {
        map_type: "hash",
        relayhost: KEY,
        ca_pem: None,
        table: Some(&format!("{KEY} {OLD}\n")),
        settings: &[("smtp_sasl_password_maps", "proxy:mysql:/etc/postfix/sasl.cf")],
    };
    let instance = postfix::Instance::new(&options);
    let kind = TargetKind::Postfix { config_dir: instance.config_dir.clone() };
    let server = Server::looking(&config_of(&instance.base.join("state"), kind, Reload::Always).mail());
    let Reply::Inspected(seen) = server.serve(Request::Inspect { target: target(), ours: ours() }).unwrap() else {
        panic!()
    };
    assert_eq!(seen.incomplete, ["proxy:mysql:/etc/postfix/sasl.cf"]);
    assert_eq!(seen.others.count, 0);
}
