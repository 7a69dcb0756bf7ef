//! Postfix's settings are asked of `postconf` once for several steps of a rollover, and still never out of date: whatever
//! happens to main.cf or master.cf between two steps, the second one goes by what is there then.

use crate::lab::postfix as lab;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lab::{Instance, Options, cool_down, wait_for};
use relaykey::config::{Reload, Smtp, Tls};
use relaykey::credential::Login;
use relaykey::mta::postfix::Postfix;
use relaykey::mta::{Mta, Ours};

const HOP: &str = "[relay.example]:587";
const KEYS: [&str; 2] = ["relay.example", HOP];

/// An instance whose configuration was last changed so long ago that settings are kept.
fn settled() -> (Instance, Postfix) {
    let table = format!("{HOP} AKIAOLD:oldpassword\n");
    let options = Options { map_type: "hash", relayhost: HOP, ca_pem: None, table: Some(&table), settings: &[] };
    let instance = Instance::new(&options);
    // A second table, to which main.cf can be turned.
    fs::write(instance.config_dir.join("sasl_passwe"), format!("{HOP} AKIAOLD:otherpassword\n")).unwrap();
    settle(&instance);
    let smtp = Smtp {
        endpoint: "relay.example".into(),
        port: 587,
        tls: Tls::Starttls,
        region: None,
        ca_file: None,
        timeout: Duration::from_secs(10),
        propagation: Duration::from_secs(300),
        retry: Duration::from_secs(10),
        endpoint_aliases: Vec::new(),
        also: Vec::new(),
    };
    let postfix = Postfix::new(&instance.config_dir, &smtp.relay(), None, &Reload::Always);
    (instance, postfix)
}

fn settle(instance: &Instance) {
    wait_for("the configuration to have been changed some time ago", Duration::from_secs(10), || {
        let old = |name: &str| {
            let changed = fs::metadata(instance.config_dir.join(name)).unwrap().ctime();
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(changed).unwrap());
            changed.elapsed().is_ok_and(|age| age > Duration::from_millis(3100))
        };
        (old("main.cf") && old("master.cf")).then_some(())
    });
}

/// The table that a plan would write.
fn planned(postfix: &Postfix) -> PathBuf {
    let login = Login::from_pair("AKIANEW:newpassword").unwrap();
    postfix.plan(&Ours::default(), &login.clone().into()).unwrap().files().next().unwrap().path.clone()
}

/// main.cf with another table, whose name is as long.
fn turned(main_cf: &Path, table: &str) -> String {
    let text = fs::read_to_string(main_cf).unwrap();
    let other = text.replace("sasl_passwd\n", &format!("{table}\n")).replace("sasl_passwe\n", &format!("{table}\n"));
    assert_ne!(other, text);
    other
}

fn edit(main_cf: &Path, text: &str) {
    fs::write(main_cf, text).unwrap();
    cool_down(main_cf);
}

#[test]
fn an_edit_between_two_steps_is_seen() {
    let (instance, postfix) = settled();
    postfix.inspect(&Ours::default()).unwrap();
    assert_eq!(planned(&postfix), instance.table());
    edit(&instance.main_cf(), &turned(&instance.main_cf(), "sasl_passwe"));
    assert_eq!(planned(&postfix), instance.config_dir.join("sasl_passwe"));
}

#[test]
fn another_file_of_the_same_size_and_time_is_seen() {
    let (instance, postfix) = settled();
    postfix.inspect(&Ours::default()).unwrap();
    assert_eq!(planned(&postfix), instance.table());
    let main_cf = instance.main_cf();
    let before = fs::metadata(&main_cf).unwrap();
    let new = instance.config_dir.join("main.cf.new");
    fs::write(&new, turned(&main_cf, "sasl_passwe")).unwrap();
    fs::File::options().write(true).open(&new).unwrap().set_modified(before.modified().unwrap()).unwrap();
    fs::rename(&new, &main_cf).unwrap();
    let after = fs::metadata(&main_cf).unwrap();
    assert_eq!((after.len(), after.modified().unwrap()), (before.len(), before.modified().unwrap()));
    assert_eq!(planned(&postfix), instance.config_dir.join("sasl_passwe"));
}

#[test]
fn an_edit_at_once_after_a_reading_is_seen() {
    let (instance, postfix) = settled();
    // Again and again, within whatever tick the file system dates its changes in: nothing of this is kept.
    for table in ["sasl_passwe", "sasl_passwd", "sasl_passwe", "sasl_passwd", "sasl_passwe"] {
        edit(&instance.main_cf(), &turned(&instance.main_cf(), table));
        assert_eq!(planned(&postfix), instance.config_dir.join(table));
    }
}

#[test]
fn a_lookup_goes_by_the_table_of_now() {
    let (instance, postfix) = settled();
    let keys = KEYS.map(str::to_owned);
    postfix.inspect(&Ours::default()).unwrap();
    let found = postfix.lookup(&instance.table_id(), None, &keys).unwrap();
    assert_eq!(found[1].login().map(|login| login.username.as_str()), Some("AKIAOLD"));
    // Settings and tables are two things: what the table holds is never kept.
    instance.write_table(&format!("{HOP} AKIANEW:newpassword\n"));
    instance.postmap();
    let found = postfix.lookup(&instance.table_id(), None, &keys).unwrap();
    assert_eq!(found[1].login().map(|login| login.username.as_str()), Some("AKIANEW"));
    // The same table as a text: main.cf says now that Postfix reads it without a map.
    let main_cf = fs::read_to_string(instance.main_cf()).unwrap();
    edit(&instance.main_cf(), &main_cf.replace("hash:", "texthash:"));
    fs::remove_file(instance.map()).unwrap();
    let found = postfix.lookup(&instance.table_id(), None, &keys).unwrap();
    assert_eq!(found[1].login().map(|login| login.username.as_str()), Some("AKIANEW"));
}
