use std::path::Path;

use super::*;

/// The table of docs/rotation.md is what the program says; `UPDATE_DOCS=1 cargo test -p relaykey-rotate the_table` writes it.
#[test]
fn the_table_of_the_documents_is_what_is_said() {
    let cell = |text: String| text.replace('|', "\\|");
    let mut table = "| refused with | for example | what to do |\n|---|---|---|\n".to_owned();
    for refusal in Refusal::one_of_each() {
        table += &format!("| `{}` | {} | {} |\n", refusal.class(), cell(refusal.words()), cell(refusal.fix()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rotation.md");
    let text = std::fs::read_to_string(&path).expect("docs/rotation.md");
    let (before, rest) = text.split_once("<!-- refusals -->\n").expect("where it begins");
    let (written, after) = rest.split_once("<!-- end -->").expect("where it ends");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}<!-- refusals -->\n{table}<!-- end -->{after}")).expect("written");
        return;
    }
    let differs = table.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(is, was)| is != was);
    assert!(written == table, "docs/rotation.md says otherwise (now, there): {differs:#?}");
}

/// What is pasted about a key names the user, without whom `aws` would take the key of whoever pastes it; it can be undone where
/// the key is not inactive already, and there is none where mail may depend on the key.
#[test]
fn advice_about_a_key_does_no_harm() {
    let key = KeyId::new("AKIA1");
    let fix = |used: KnownUse| Refusal::UnexplainedKey { key: key.clone(), used }.fix();
    let deactivate = "`aws iam update-access-key --status Inactive --access-key-id AKIA1 --user-name ses-smtp`";
    let delete = "`aws iam delete-access-key --access-key-id AKIA1 --user-name ses-smtp`";
    let nothing = fix(KnownUse::Nothing);
    assert!(nothing.contains(deactivate) && !nothing.contains("delete-access-key"), "{nothing}");
    let at = "2026-03-02T08:00:00Z".parse().expect("a time");
    let host = crate::facts::HostName::new("mx1");
    for used in [KnownUse::Used { at, service: "ses".into() }, KnownUse::Named { host }, KnownUse::NotKnown] {
        let fix = fix(used);
        assert!(!fix.contains("aws iam") && fix.starts_with("leave it alone"), "{fix}");
    }
    assert!(fix(KnownUse::Inactive).contains(delete));
    // No other advice has a key of somebody else's either.
    for refusal in Refusal::one_of_each() {
        let fix = refusal.fix();
        for command in fix.split('`').skip(1).step_by(2).filter(|command| command.starts_with("aws iam ")) {
            assert!(command.ends_with("--user-name ses-smtp"), "{command}");
        }
    }
}

/// Whoever can write a report chooses the name in it, and a person pastes what is said about it.
#[test]
fn a_name_in_a_report_is_one_word_of_what_is_pasted() {
    let host = crate::facts::HostName::new("mx1;id $(id)");
    let mut commands = 0;
    for refusal in Refusal::one_of_each_about(&host) {
        let fix = refusal.fix();
        for command in fix.split('`').skip(1).step_by(2).filter(|command| command.contains("mx1;id")) {
            commands += 1;
            assert!(command.replace("'mx1;id $(id)'", "").find("mx1;id").is_none(), "{command}");
        }
    }
    assert!(commands >= 6, "{commands}");
}

/// Whoever can write a report chooses the region in it, too: a line of rotate.toml is not theirs to write.
#[test]
fn a_region_of_a_report_is_printed_where_it_could_be_one() {
    let host = crate::facts::HostName::new("mx1");
    let refused = |region: &str| Refusal::RegionRefused { host: host.clone(), region: region.into() };
    assert!(refused("us-east-1").fix().contains("email-smtp.us-east-1.amazonaws.com"));
    for region in ["x\"\n[lab]\nallow_short = true", "", "evil.example#", "`id`", "US-EAST-1"] {
        let said = format!("{} {}", refused(region).words(), refused(region).fix());
        assert!(region.is_empty() || !said.contains(region), "{said}");
        assert!(!said.contains("endpoint ="), "{said}");
    }
}

/// Not the first one: whoever pastes it there changes what is in order.
#[test]
fn what_is_wrong_in_a_further_place_names_that_place() {
    let place = KeyPlace { region: Some("us-east-1".into()), ..KeyPlace::secret("second") };
    let part = || Part::Further(place.clone());
    let told = [
        Refusal::SecretDeleting { part: part() },
        Refusal::KmsDenied { part: part() },
        Refusal::AccessDenied { part: part() },
        Refusal::NotFound { part: part() },
        Refusal::NoAnswer { part: part() },
        Refusal::ReplicaBehind { of: part(), region: "us-west-2".into(), failed: true },
    ];
    for refusal in &told {
        assert!(refusal.words().contains("secret \"second\" in us-east-1"), "{}", refusal.words());
    }
    for refusal in [&told[0], &told[5]] {
        assert!(refusal.fix().contains("--secret-id second --region us-east-1`"), "{}", refusal.fix());
    }
    let first = Refusal::SecretDeleting { part: Part::Store };
    assert!(first.fix().contains("--secret-id SESSendSecret`"), "{}", first.fix());
}

/// A place may be reached by a profile, in a region and at an address of its own.
#[test]
fn a_command_about_a_place_says_how_that_place_is_reached() {
    let place = KeyPlace { kind: StoreKind::ParameterStore, ..KeyPlace::secret("/ses/a b") };
    let called = AwsCommand {
        aws: "aws --profile acct2 --endpoint-url https://ssm.example.com".into(),
        name: "'/ses/a b'".into(),
        region: " --region us-east-1".into(),
    };
    let first =
        AwsCommand { aws: "aws --profile acct1".into(), name: "first".into(), region: " --region eu-west-1".into() };
    let places = vec![(KeyPlace::secret("first"), first), (place.clone(), called)];
    let names = Names { places, ..Names::default() };
    assert_eq!(
        names.secrets_manager("restore-secret", &Part::Further(place)),
        "aws --profile acct2 --endpoint-url https://ssm.example.com secretsmanager restore-secret --secret-id '/ses/a b' \
         --region us-east-1"
    );
    assert_eq!(
        names.secrets_manager("restore-secret", &Part::Store),
        "aws --profile acct1 secretsmanager restore-secret --secret-id first --region eu-west-1"
    );
}

/// A refusal that only a person ends says how.
#[test]
fn another_user_is_accepted_by_a_command_that_is_printed() {
    let user = |name: &str| crate::facts::IamUser { name: name.into(), account: None };
    let fix = Refusal::WrongUser { user: user("ses-smtp"), is: user("ses other") }.fix();
    assert!(fix.contains("`relaykey-rotate user accept 'ses other'`"), "{fix}");
}
