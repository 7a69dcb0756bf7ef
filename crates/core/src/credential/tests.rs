use super::*;

const GOOD: &str = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SES: &str = "email-smtp.us-east-2.amazonaws.com";

fn parse(text: &str) -> Result<Payload, PayloadError> {
    Payload::parse(text.as_bytes(), &JsonKeys::default())
}

#[test]
fn derivation_gives_the_published_vectors() {
    let cases = [
        (SECRET_KEY, "us-east-2", GOOD),
        ("some+secret+key", "eu-central-1", "BMXhUYlu5Z3gSXVQORxlVa7XPaz91aGWdfHxvkOZdWZ2"),
    ];
    for (secret, region, expected) in cases {
        let password = ses_smtp_password(&Secret::new(secret.into()), region);
        assert_eq!(password.expose(), expected);
        assert_eq!(ses_password_form(password.expose()), Ok(()));
    }
}

#[test]
fn every_documented_form_is_detected() {
    let pair = format!("AKIAEXAMPLE:{GOOD}");
    let mut cases = vec![
        (pair.clone(), PayloadForm::Pair),
        (format!("  {pair} \r\n"), PayloadForm::Pair),
        (format!("\u{feff}{pair}\n"), PayloadForm::Pair),
        (format!(r#"{{"username":"AKIAEXAMPLE","password":"{GOOD}"}}"#), PayloadForm::JsonReady),
        (
            format!(r#"{{"smtp_username":"AKIAEXAMPLE","smtp_password":" {GOOD}\n","note":[1,null]}}"#),
            PayloadForm::JsonReady,
        ),
    ];
    for (id, secret) in IAM {
        cases.push((
            format!(r#"{{"{id}":"AKIAEXAMPLE","{secret}":"{SECRET_KEY}","sessionToken":""}}"#),
            PayloadForm::JsonIamKey,
        ));
    }
    for (text, form) in cases {
        let payload = parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(payload.form, form, "{text}");
        let login = payload.login(SES, None).unwrap();
        assert_eq!((login.username.as_str(), login.password.expose()), ("AKIAEXAMPLE", GOOD), "{text}");
    }
}

#[test]
fn keys_named_in_the_config_are_the_only_ones() {
    let named = |name: &str, line| Some(JsonKey { name: name.into(), line });
    let keys = JsonKeys { username: named("user", 7), password: named("pass", 8), of_ses: false };
    let parse = |text: &str, keys: &JsonKeys| Payload::parse(text.as_bytes(), keys);
    let text = format!(r#"{{"user":"AKIAEXAMPLE","pass":"{GOOD}","username":"other","password":"x"}}"#);
    assert_eq!(parse(&text, &keys).unwrap().username(), "AKIAEXAMPLE");

    // What the configuration alone may be to blame for: nobody is told to change the secret, which other hosts share.
    let ready = format!(r#"{{"username":"AKIAEXAMPLE","password":"{GOOD}"}}"#);
    let misspelt = JsonKeys { username: named("usrname", 7), ..JsonKeys::default() };
    let misspelt_too = JsonKeys { password: named("pasword", 8), ..JsonKeys::default() };
    let half = JsonKeys { password: named("pass", 8), ..JsonKeys::default() };
    for (text, keys, what, fix) in [
        (
            ready.as_str(),
            &keys,
            "no key \"user\", which username_key names",
            "correct `username_key`, line 7 of the configuration",
        ),
        (&ready, &misspelt, "no key \"usrname\", which username_key names", "correct `username_key`, line 7 "),
        (&ready, &misspelt_too, "no key \"pasword\", which password_key names", "correct `password_key`, line 8 "),
        (
            r#"{"user":"u","pass":"p"}"#,
            &half,
            "no key \"username\"; password_key names that of the password, and username_key is not set",
            "set `username_key` beside `password_key`, line 8 of the configuration",
        ),
        (r#"{"user":"u"}"#, &half, "no key \"pass\", which password_key names", "correct `password_key`, line 8 "),
        (
            r#"{"user":"u"}"#,
            &JsonKeys::default(),
            "none of the expected keys",
            "set `username_key` and `password_key` in",
        ),
    ] {
        let error = parse(text, keys).expect_err(what);
        assert!(error.to_string().contains(what) && error.fix().contains(fix), "{error}\n{}", error.fix());
    }
}

/// Every region that AWS had in 2026, and what people type instead.
#[test]
fn a_region_without_a_direction_is_odd() {
    for region in [
        "us-east-1",
        "us-west-2",
        "eu-central-1",
        "ap-southeast-7",
        "ap-northeast-3",
        "me-central-1",
        "il-central-1",
        "mx-central-1",
        "us-gov-west-1",
        "us-iso-east-1",
        "us-isob-east-1",
        "eu-isoe-west-1",
        "eusc-de-east-1",
        "cn-northwest-1",
        "sa-east-1",
        "af-south-1",
        "eu-north-1",
        "no region",
    ] {
        assert_eq!(odd_region(region), None, "{region}");
    }
    for (region, meant) in [
        ("eu-wst-1", "eu-west-1"),
        ("us-esst-1", "us-east-1"),
        ("eu-centrall-1", "eu-central-1"),
        ("ap-southest-1", "ap-southeast-1"),
    ] {
        let odd = odd_region(region).expect(region);
        assert!(odd.contains(&format!("did you mean {meant:?}")), "{odd}");
    }
    assert!(!odd_region("eu-dublin-1").expect("odd").contains("mean"));
}

#[test]
fn a_secret_access_key_that_is_none_is_refused_before_anything_is_derived_of_it() {
    let stored = |secret: &str| {
        let payload = parse(&format!(r#"{{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"{secret}"}}"#));
        payload.expect("its form is right").with_a_whole_key().map(|payload| payload.form)
    };
    assert_eq!(stored(SECRET_KEY), Ok(PayloadForm::JsonIamKey));
    for (secret, what) in [
        (&SECRET_KEY[1..], "another length than 40"),
        (GOOD, "an SES SMTP password already"),
        ("a_b", "has a character"),
    ] {
        let Err(error) = stored(secret) else { panic!("{secret}") };
        assert!(error.to_string().contains(what) && !error.to_string().contains(secret), "{error}");
    }
}

/// What people store that is nearly a login is told for what it is, and none of it is shown.
#[test]
fn a_login_in_quotes_a_line_of_a_table_and_several_lines_are_named() {
    let login = format!("AKIAIOSFODNN7EXAMPLE:{GOOD}");
    let mut cases = vec![(format!("{login}\n{login}\n"), PayloadError::SeveralLines(2))];
    cases.push((format!("AKIAIOSFODNN7EXAMPLE\n{GOOD}\n\nx"), PayloadError::SeveralLines(4)));
    cases.extend(["\"", "'", "`"].map(|mark| (format!(" {mark}{login}{mark}\n"), PayloadError::Quoted)));
    for hop in [
        "[email-smtp.eu-west-1.amazonaws.com]:587",
        "[localhost]",
        "email-smtp.eu-west-1.amazonaws.com:submission",
        "mx.example.com",
    ] {
        cases.push((format!("{hop}  {login}"), PayloadError::TableLine));
        cases.push((format!("{hop}\t{login}\n[other.example]\tu:p"), PayloadError::TableLine));
    }
    for (text, expected) in cases {
        let error = parse(&text).expect_err(&text);
        assert_eq!(error, expected, "{text}");
        assert!(!error.to_string().contains("AKIAI") && !error.fix().contains("AKIAI"));
    }
    // Neither of the three: each is told as ever.
    for (text, not) in
        [("AKIA:pass wo:rd", "password"), ("me@mx.example.com:pa ss:x", "password"), ("a.b:pass wo:rd", "password")]
    {
        assert!(matches!(parse(text), Err(PayloadError::NotPrintable { what, .. }) if what == not), "{text}");
    }
    assert_eq!(parse("[\"mx.example.com\", \"u:p\"]").unwrap_err(), PayloadError::NotAnObject);
    assert!(parse("AKIAEXAMPLE:pass'").is_ok());
}

#[test]
fn wrong_payloads_are_named_for_what_they_are() {
    let missing =
        |missing: &str, present: &str| PayloadError::MissingKey { missing: missing.into(), present: present.into() };
    let alone = |what| PayloadError::Alone { what, without: "" };
    let cases = [
        ("", PayloadError::Nothing),
        (" \n\t", PayloadError::Nothing),
        ("hello", PayloadError::Unknown),
        (SECRET_KEY, alone("an AWS secret access key (40 characters)")),
        (GOOD, alone("an SES SMTP password")),
        ("AKIAIOSFODNN7EXAMPLE\n", alone("an access key id")),
        ("AKIAEXAMPLE:", PayloadError::Empty("password")),
        (":secret", PayloadError::Empty("user name")),
        ("AKIAEXAMPLE:pass word", PayloadError::NotPrintable { what: "password", at: 5 }),
        ("AKIAEXAMPLE:pass\0word", PayloadError::NotPrintable { what: "password", at: 5 }),
        ("AKIAEXAMPLE:p\u{e4}ss", PayloadError::NotPrintable { what: "password", at: 2 }),
        ("ASIAEXAMPLE:secret", PayloadError::Temporary("the access key id starts with ASIA")),
        ("{\"username\":\"u\",", PayloadError::BadJson { line: 1, column: 16 }),
        ("[\"u\",\"p\"]", PayloadError::NotAnObject),
        ("\"AKIA:pw\"", PayloadError::Quoted),
        ("{}", PayloadError::NoKnownKeys),
        (r#"{"username":"u"}"#, missing("password", "username")),
        (r#"{"password":"p"}"#, missing("username", "password")),
        (r#"{"accessKeyId":"AKIAEXAMPLE"}"#, missing("secretAccessKey", "accessKeyId")),
        (r#"{"username":"u","password":7}"#, PayloadError::NotAString("password".into())),
        (r#"{"username":"u","password":{"x":"y"}}"#, PayloadError::NotAString("password".into())),
        (
            r#"{"username":"u","password":"p","accessKeyId":"a","secretAccessKey":"s"}"#,
            PayloadError::Ambiguous("username".into(), "accessKeyId".into()),
        ),
        (
            r#"{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"s","sessionToken":"t"}"#,
            PayloadError::Temporary("the secret has a session token"),
        ),
        (r#"{"username":"a:b","password":"p"}"#, PayloadError::ColonInUsername),
    ];
    for (text, expected) in cases {
        match (parse(text).map(|_| ()).unwrap_err(), expected) {
            (PayloadError::Alone { what, .. }, PayloadError::Alone { what: expected, .. }) => {
                assert_eq!(what, expected)
            }
            (found, expected) => assert_eq!(found, expected, "{text:?}"),
        }
    }
    assert_eq!(Payload::parse(b"u:\xff", &JsonKeys::default()).unwrap_err(), PayloadError::NotUtf8(3));
    let long = vec![b'x'; 10_000_000];
    assert_eq!(Payload::parse(&long, &JsonKeys::default()).unwrap_err(), PayloadError::TooLong(10_000_000));
    let twice = parse(r#"{"username":"u","username":"v","password":"p"}"#).unwrap_err();
    assert!(matches!(twice, PayloadError::KeyTwice { line: 1, .. }), "{twice}");
}

#[test]
fn half_a_secret_is_an_error_that_holds_none_of_it() {
    let whole = format!(r#"{{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"{SECRET_KEY}"}}"#);
    for end in 0..whole.len() {
        let error = parse(&whole[..end]).expect_err(&whole[..end]).to_string();
        for n in 6..SECRET_KEY.len() {
            assert!(!error.contains(&SECRET_KEY[..n]), "{error}");
        }
    }
}

#[test]
fn what_has_the_shape_of_a_secret_is_no_user_name() {
    let of = |version: u8| {
        let bytes: Vec<u8> =
            std::iter::once(version).chain((0..32_u8).map(|n| n.wrapping_mul(7).wrapping_add(3))).collect();
        BASE64.encode(bytes)
    };
    let token = BASE64.encode((0..90_u8).map(|n| n.wrapping_mul(5).wrapping_add(1)).collect::<Vec<u8>>());
    let pair = |user: &str, password: &str| {
        [
            format!("{user}:{password}"),
            format!(r#"{{"username":"{user}","password":"{password}"}}"#),
            format!(r#"{{"accessKeyId":"{user}","secretAccessKey":"{password}"}}"#),
        ]
    };
    for secret in
        [SECRET_KEY, GOOD, &of(0x02), &of(0x04), &of(0x77), &token, &format!("\"{SECRET_KEY}\"").replace('"', "'")]
    {
        for text in pair(secret, "AKIAIOSFODNN7EXAMPLE").iter().chain(&pair(secret, secret)) {
            let error = parse(text).unwrap_err();
            // Each half in quotation marks looks as the whole does.
            let named = matches!(error, PayloadError::SecretAsUsername(_) | PayloadError::Quoted);
            assert!(named, "{text}: {error}");
            assert!(!error.to_string().contains(secret), "{error}");
        }
        for is_known in [true, false] {
            assert_eq!((shown(secret, is_known), shown_or_said(secret, is_known)), (None, NOT_SHOWN));
        }
    }
    // A password of any other form in both places.
    assert_eq!(parse("hunter2:hunter2").unwrap_err(), PayloadError::PasswordInUsername);
    assert_eq!(parse("mx1-a-long-password:a-long-password").unwrap_err(), PayloadError::PasswordInUsername);
    // Other relays have user names of their own, long ones too.
    for user in [
        "mx1",
        "apikey",
        "user@example.com",
        "0123456789abcdef0123456789abcdef01234567",
        "ocid1.user.oc1..aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffffgggggggghhhhhhhh@ocid1.tenancy.oc1..aa.xy.com",
        "acs-resource|01234567-89ab-cdef-0123-456789abcdef|01234567-89AB-CDEF-0123-456789ABCDEF",
    ] {
        let payload = parse(&format!("{user}:a-password")).unwrap_or_else(|e| panic!("{user}: {e}"));
        assert_eq!(payload.login("smtp.example.com", None).unwrap().username, user);
        assert_eq!((shown(user, true), shown(user, false)), (Some(user), None));
        // SES has none but access key ids.
        for text in &pair(user, GOOD)[..2] {
            assert_eq!(parse(text).unwrap().login(SES, None).unwrap_err(), PayloadError::NoAccessKeyId, "{text}");
            let keys = JsonKeys { of_ses: true, ..JsonKeys::default() };
            assert_eq!(Payload::parse(text.as_bytes(), &keys).unwrap_err(), PayloadError::NoAccessKeyId, "{text}");
        }
        assert_eq!(parse(&pair(user, SECRET_KEY)[2]).unwrap_err(), PayloadError::NoAccessKeyId, "{user}");
    }
    assert_eq!(shown("AKIAIOSFODNN7EXAMPLE", false), Some("AKIAIOSFODNN7EXAMPLE"));
    assert_eq!((shown("", true), shown("mx\u{1b}", true)), (None, None));
}

#[test]
fn a_password_that_is_none_is_refused_where_the_endpoint_is_ses() {
    let mut version2 = vec![0x02];
    version2.extend([7; 32]);
    let version2 = BASE64.encode(version2);
    let cases = [
        (SECRET_KEY, PayloadError::SecretAccessKey),
        (&version2, PayloadError::Version2),
        ("hunter2", PayloadError::NotSesPassword),
    ];
    for (password, expected) in cases {
        let payload = parse(&format!("AKIAEXAMPLE:{password}")).unwrap();
        assert_eq!(payload.login(SES, None).unwrap_err(), expected);
        assert_eq!(
            payload.login("127.0.0.1", Some("us-east-2")).unwrap_err(),
            expected,
            "a configured region makes it SES"
        );
        assert!(payload.login("smtp.example.com", None).is_ok());
    }
    let key = parse(&format!(r#"{{"accessKeyId":"AKIAEXAMPLE","secretAccessKey":"{SECRET_KEY}"}}"#)).unwrap();
    let e = key.login("smtp.example.com", None).unwrap_err();
    assert_eq!(e, PayloadError::NoRegion("smtp.example.com".into()));
    // The source is as it should be.
    assert!(e.fix().contains("correct `endpoint`") && !e.fix().contains("publish"), "{}", e.fix());
    assert_eq!(key.login("smtp.example.com", Some("us-east-2")).unwrap().password.expose(), GOOD);
}

#[test]
fn regions_are_read_from_every_form_of_name() {
    let cases = [
        ("email-smtp.eu-west-1.amazonaws.com", Some("eu-west-1")),
        ("EMAIL-SMTP.EU-WEST-1.AMAZONAWS.COM.", Some("eu-west-1")),
        ("email-smtp-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
        ("email-smtp.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("vpce-0a1b-2c3d.email-smtp.us-east-1.vpce.amazonaws.com", Some("us-east-1")),
        ("vpce-0a1b-2c3d-us-east-1a.email-smtp.us-east-1.vpce.amazonaws.com", Some("us-east-1")),
        ("email-smtp.mx-central-17.amazonaws.com", Some("mx-central-17")),
        ("email-smtp.amazonaws.com", None),
        ("email-smtp.eu-west-1.amazonaws.com.evil.example", None),
        ("evil.email-smtp.eu-west-1.amazonaws.com", None),
        ("email-smtp.Eu_West.amazonaws.com", None),
        ("smtp.example.com", None),
        ("localhost", None),
    ];
    for (name, region) in cases {
        assert_eq!(ses_region(name).as_deref(), region, "{name}");
    }
}

#[test]
fn a_secret_cannot_be_printed() {
    let login = Login::from_pair("AKIAEXAMPLE:hunter2").unwrap();
    assert_eq!(format!("{login:?}"), "Login { username: \"AKIAEXAMPLE\", password: *** }");
    let payload = parse("AKIAEXAMPLE:hunter2").unwrap();
    assert!(!format!("{payload:?}").contains("hunter2"));
    assert_eq!(format!("{:?}", LocalKey::new([7; 32])), "LocalKey(***)");
}

#[test]
fn the_redactor_knows_every_form_and_bounds_the_text() {
    let login = Login::from_pair("AKIAEXAMPLE:hunter2/+x").unwrap();
    let redactor = Redactor::new([&login]);
    let forms = [
        "hunter2/+x".to_owned(),
        BASE64.encode("hunter2/+x"),
        BASE64.encode("\0AKIAEXAMPLE\0hunter2/+x"),
        BASE64.encode("AKIAEXAMPLE\0AKIAEXAMPLE\0hunter2/+x"),
        "AKIAEXAMPLE:hunter2/+x".to_owned(),
    ];
    for form in forms {
        assert_eq!(redactor.clean(&format!("535 bad <{form}> again {form}")), "535 bad <***> again ***");
    }
    assert_eq!(redactor.clean("a\x1b[2Jb\0c"), "a\\u{1b}[2Jb\\u{0}c");
    let long = redactor.clean(&"x\u{e4}".repeat(5_000));
    assert!(long.len() <= 512 && long.len() > 500);
    assert_eq!(redactor.clean("1\n2\n3\n4\n5\n6"), "1 | 2 | 3 | 4");
}

/// A server may put anything before and behind what it was sent, and encode all of it.
#[test]
fn no_piece_of_the_password_passes_wherever_it_begins_in_base64() {
    for user in ["AKIAIOSFODNN7EXAMPLE", "smtp-user", "apikey"] {
        let redactor = Redactor::new([&Login::from_pair(&format!("{user}:{GOOD}")).unwrap()]);
        for before in ["", "a", "ab", "abc", "a longer text "] {
            for behind in ["", "y", "yz", "yz1"] {
                let said = BASE64.encode(format!("{before}{GOOD}{behind}"));
                let known = BASE64.encode(before).len();
                let shown = redactor.clean(&format!("535 {said}"));
                let left = shown.strip_prefix("535 ").unwrap().split("***").map(str::len).collect::<Vec<_>>();
                assert!(
                    left.len() == 2 && left[0] <= known + 3 && left[1] < 8,
                    "{user} {before:?} {behind:?}: {shown}"
                );
            }
        }
        // One that is too short to be told by eight characters.
        let short = Redactor::new([&Login::from_pair(&format!("{user}:a")).unwrap()]);
        assert_eq!(short.clean("535 no"), "535 no");
    }
}

/// `***` in each place where it stood would be read back as easily as it was written.
#[test]
fn a_short_password_is_not_told_by_what_is_left_of_a_text() {
    for password in ["p", "post", "postfix"] {
        let short = Redactor::new([&Login::from_pair(&format!("smtp-user:{password}")).unwrap()]);
        assert_eq!(short.clean("postfix: postmap: fatal"), redactor::HIDDEN, "{password}");
        assert_eq!(short.clean("no such file"), "no such file", "{password}");
    }
}

#[test]
fn no_form_and_no_piece_of_the_password_passes() {
    let texts = Redactor::new([&Login::from_pair(&format!("AKIAIOSFODNN7EXAMPLE:{GOOD}")).unwrap()]);
    let plain = BASE64.encode(format!("\0AKIAIOSFODNN7EXAMPLE\0{GOOD}"));
    let encoded = BASE64.encode(GOOD);
    let table = [
        format!("535 bad: AUTH PLAIN {plain}"),
        format!("535 bad: {}...", &plain[..plain.len() / 2]),
        format!("535 bad: {}", &plain[20..]),
        format!("535 bad: {}", plain.to_uppercase()),
        format!("535 {encoded} {GOOD} {}", GOOD.to_lowercase()),
        format!("535 {}\n535 {}", &encoded[..24], &encoded[24..]),
        format!("535 \0AKIAIOSFODNN7EXAMPLE\0{GOOD}"),
        format!("535 é{}é", &GOOD[10..30]),
    ];
    for text in table {
        let clean = texts.clean(&text).to_lowercase();
        assert!(clean.starts_with("535 ") && clean.contains("***"), "{clean:?}");
        for form in [&plain, &encoded, GOOD] {
            let form = form.to_lowercase();
            let left = form.as_bytes().windows(FRAGMENT).find(|w| clean.as_bytes().windows(FRAGMENT).any(|c| c == *w));
            assert_eq!(left, None, "{clean:?}");
        }
    }
    let words = "535 Authentication Credentials Invalid | AKIAIOSFODNN7EXAMPLE";
    assert_eq!(texts.clean(words), words);
    let long = texts.clean(&format!("535 {}\r\n2\n3\n4\n5", "x".repeat(2000)));
    assert_eq!((long.split(" | ").count(), long.split(" | ").next().map(str::len)), (4, Some(512)));
    assert_eq!(texts.clean("535 a\u{1b}[31mb"), "535 a\\u{1b}[31mb");
}

#[test]
fn live_ids_and_content_versions_are_keyed() {
    let login = Login::from_pair("u:p").unwrap();
    let (a, b) = (LocalKey::new([1; 32]), LocalKey::new([2; 32]));
    assert_eq!(a.live_id(&login), a.live_id(&login.clone()));
    assert_ne!(a.live_id(&login), b.live_id(&login));
    assert_ne!(a.live_id(&login), a.live_id(&Login::from_pair("u:q").unwrap()));
    assert_ne!(a.content_version(b"x"), b.content_version(b"x"));
    assert_eq!((a.live_id(&login).len(), a.content_version(b"x").len()), (64, 32));
}

fn fields() -> ProofFields {
    ProofFields {
        host_id: "0123".into(),
        host: "mx1.example.com".into(),
        credential: "ses".into(),
        version: "v1".into(),
        username: "AKIAEXAMPLE".into(),
        target: "main".into(),
        region: "us-east-2".into(),
        outcome: "confirmed".into(),
        seq: 17,
        at: "2026-11-20T12:00:00Z".into(),
        v2: None,
    }
}

#[test]
fn a_proof_covers_every_field_and_needs_a_strong_password() {
    let password = Secret::new(GOOD.into());
    let good = proof(&password, &fields()).unwrap();
    // Made with `openssl dgst -sha256 -hmac` over the same eleven lines.
    assert_eq!(good, "9UmOjihul9anIhYmTpf/PvxIJ1HiPn7y25+tXc5DVjY=");
    let changes: [fn(&mut ProofFields); 10] = [
        |f| f.host_id.push('x'),
        |f| f.host.push('x'),
        |f| f.credential.push('x'),
        |f| f.version.push('x'),
        |f| f.username.push('x'),
        |f| f.target.push('x'),
        |f| f.region.push('x'),
        |f| f.outcome.push('x'),
        |f| f.seq += 1,
        |f| f.at.push('x'),
    ];
    for change in changes {
        let mut other = fields();
        change(&mut other);
        assert_ne!(proof(&password, &other).unwrap(), good, "{other:?}");
    }
    let mut split = fields();
    split.host.push('\n');
    assert!(proof(&password, &split).is_err());
    assert!(proof(&Secret::new("hunter2".into()), &fields()).is_err());
}

/// Every field that a proof covers, changed; with its name.
fn changes_of_v1() -> [(&'static str, fn(&mut ProofFields)); 10] {
    [
        ("host_id", |f| f.host_id.push('x')),
        ("host", |f| f.host = "mx2.example.com".into()),
        ("credential", |f| f.credential = "ses-2".into()),
        ("version", |f| f.version = "v2".into()),
        ("username", |f| f.username = "AKIAOTHER".into()),
        ("target", |f| f.target.clear()),
        ("region", |f| f.region = "us-east-1".into()),
        ("outcome", |f| f.outcome = "adopted".into()),
        ("seq", |f| f.seq -= 1),
        ("at", |f| f.at = "2026-11-20T12:00:01Z".into()),
    ]
}

fn fields_of_v2() -> ProofFields {
    let lists = ["1", "1", "[relay]:587", "0", "0", "0", "0"].map(str::to_owned).to_vec();
    let (source, evidence_at) = ("arn:aws:ssm:us-east-2:1:parameter/ses".into(), "2026-11-20T11:59:59Z".into());
    ProofFields { v2: Some(SignedToo { source, evidence_at, lists }), ..fields() }
}

#[test]
fn a_proof_of_v2_covers_source_time_of_the_login_and_every_text_of_the_lists() {
    let password = Secret::new(GOOD.into());
    let good = proof(&password, &fields_of_v2()).unwrap();
    assert_eq!(verify_proof(&password, &fields_of_v2(), &good), ProofVerdict::True);
    let changes: [(&str, fn(&mut SignedToo)); 7] = [
        ("source", |too| too.source.push('x')),
        ("evidence.at", |too| too.evidence_at = "2026-11-20T11:59:58Z".into()),
        ("a count", |too| too.lists[0] = "2".into()),
        ("an entry", |too| too.lists[2].push('x')),
        ("one left out", |too| drop(too.lists.remove(2))),
        ("one more", |too| too.lists.push("0".into())),
        ("all left out", |too| too.lists.clear()),
    ];
    for (name, change) in changes {
        let mut other = fields_of_v2();
        change(other.v2.as_mut().unwrap());
        assert_eq!(verify_proof(&password, &other, &good), ProofVerdict::False, "{name}");
    }
    for (name, change) in changes_of_v1() {
        let mut other = fields_of_v2();
        change(&mut other);
        assert_eq!(verify_proof(&password, &other, &good), ProofVerdict::False, "{name}");
    }
    // Neither kind is taken for the other.
    assert_eq!(verify_proof(&password, &fields(), &good), ProofVerdict::False);
    let v1 = proof(&password, &fields()).unwrap();
    let bare = SignedToo { source: String::new(), evidence_at: String::new(), lists: Vec::new() };
    assert_eq!(verify_proof(&password, &ProofFields { v2: Some(bare), ..fields() }, &v1), ProofVerdict::False);
    // What has a control character is not signed, and named.
    let hostile: [(&str, fn(&mut SignedToo)); 3] = [
        ("source", |too| too.source.push('\n')),
        ("evidence.at", |too| too.evidence_at.push('\u{7f}')),
        ("a list", |too| too.lists[2].push('\n')),
    ];
    for (name, change) in hostile {
        let mut other = fields_of_v2();
        change(other.v2.as_mut().unwrap());
        assert!(proof(&password, &other).is_err());
        assert_eq!(other.with_control_character(), Some(name));
    }
}

#[test]
fn a_proof_is_refused_with_any_one_field_changed_and_with_another_password() {
    let password = Secret::new(GOOD.into());
    let good = proof(&password, &fields()).unwrap();
    assert_eq!(verify_proof(&password, &fields(), &good), ProofVerdict::True);
    for (name, change) in changes_of_v1() {
        let mut other = fields();
        change(&mut other);
        assert_eq!(verify_proof(&password, &other, &good), ProofVerdict::False, "{name}");
    }
    // The same key in another region, and another key.
    for (secret, region) in [(SECRET_KEY, "us-east-1"), ("some+secret+key", "us-east-2")] {
        let other = ses_smtp_password(&Secret::new(secret.into()), region);
        assert_eq!(verify_proof(&other, &fields(), &good), ProofVerdict::False);
    }
    let weak = Secret::new("hunter2".into());
    assert!(matches!(verify_proof(&weak, &fields(), &good), ProofVerdict::NoProof(why) if why.contains("SES's form")));
    // A text moved from one field into the next is another text.
    let mut moved = fields();
    moved.host = "mx1.example.co".into();
    moved.credential = "mses".into();
    assert_eq!(verify_proof(&password, &moved, &good), ProofVerdict::False);
}

#[test]
fn what_cannot_be_a_proof_is_told_from_a_false_one() {
    let password = Secret::new(GOOD.into());
    let good = proof(&password, &fields()).unwrap();
    let short = BASE64.encode(&BASE64.decode(&good).unwrap()[..31]);
    for bad in ["", "none", &good[..43], &good[1..], &format!("{good}\n"), &short, &good.repeat(9), "\0"] {
        assert!(matches!(verify_proof(&password, &fields(), bad), ProofVerdict::NoProof(_)), "{bad:?}");
    }
    let mut split = fields();
    split.region.push('\u{85}');
    assert_eq!(split.with_control_character(), Some("region"));
    assert!(matches!(verify_proof(&password, &split, &good), ProofVerdict::NoProof(why) if why.contains("control")));
    assert_eq!(fields().with_control_character(), None);
}

fn code_fields(nonce: &str) -> CodeFields {
    CodeFields::of(&fields(), nonce.into())
}

#[test]
fn the_code_is_the_one_that_others_compute() {
    let password = Secret::new(GOOD.into());
    // h = hmac.new(GOOD, "".join(t + "\n" for t in ["relaykey-code-v1", "mx1.example.com", "ses", "v1", NONCE]).encode(),
    //              "sha256").digest()[:5]
    // n = int.from_bytes(h, "big")
    // "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[n >> 5 * i & 31] for i in range(7, -1, -1))
    for (nonce, expected) in [("", "WJMJ-2DRA"), ("n-42", "WYV6-PDXK"), ("25", "1Q84-066S"), ("195", "0BYF-2215")] {
        assert_eq!(code(&password, &code_fields(nonce)).unwrap().to_string(), expected, "{nonce}");
        assert_eq!(verify_code(&password, &code_fields(nonce), &expected.parse().unwrap()), ProofVerdict::True);
    }
    let mut split = code_fields("");
    split.nonce = "a\nb".into();
    assert!(code(&password, &split).is_err());
    assert!(code(&Secret::new("hunter2".into()), &code_fields("")).is_err());
}

#[test]
fn a_code_is_refused_for_another_host_credential_version_nonce_or_password() {
    let password = Secret::new(GOOD.into());
    let good = code(&password, &code_fields("n-42")).unwrap();
    let changes: [fn(&mut CodeFields); 4] =
        [|f| f.host.push('x'), |f| f.credential.push('x'), |f| f.version.push('x'), |f| f.nonce.clear()];
    for change in changes {
        let mut other = code_fields("n-42");
        change(&mut other);
        assert_eq!(verify_code(&password, &other, &good), ProofVerdict::False, "{other:?}");
    }
    let other = ses_smtp_password(&Secret::new(SECRET_KEY.into()), "us-east-1");
    assert_eq!(verify_code(&other, &code_fields("n-42"), &good), ProofVerdict::False);
    let weak = verify_code(&Secret::new("hunter2".into()), &code_fields("n-42"), &good);
    assert!(matches!(weak, ProofVerdict::NoProof(_)));
    // Each of its 40 bits counts.
    let mut symbols: Vec<char> = good.to_string().chars().filter(|c| *c != '-').collect();
    for at in 0..symbols.len() {
        let kept = symbols[at];
        for symbol in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars().filter(|s| *s != kept) {
            symbols[at] = symbol;
            let typed: Code = symbols.iter().collect::<String>().parse().unwrap();
            assert_eq!(verify_code(&password, &code_fields("n-42"), &typed), ProofVerdict::False, "{symbols:?}");
        }
        symbols[at] = kept;
    }
}

#[test]
fn a_code_may_be_typed_as_people_do() {
    let read = |text: &str| text.parse::<Code>().map(|code| code.to_string());
    for typed in ["1Q84-066S", "1q84066s", " lq84 O66s\n", "I-q-8-4-o-6-6-S", "iQ84\u{a0}06\t6S"] {
        assert_eq!(read(typed).as_deref(), Ok("1Q84-066S"), "{typed:?}");
    }
    for (typed, expected) in [
        ("", CodeError::Length(0)),
        ("1Q84-066", CodeError::Length(7)),
        ("1Q84-066SS", CodeError::Length(9)),
        ("UQ84-066S", CodeError::Symbol('U')),
        ("1Q84-066\u{17f}", CodeError::Symbol('\u{17f}')),
        ("1Q84_066S", CodeError::Symbol('_')),
        ("1Q84-066\0", CodeError::Symbol('\0')),
    ] {
        assert_eq!(read(typed), Err(expected), "{typed:?}");
    }
    assert_eq!(read(&"A".repeat(10_000_000)), Err(CodeError::Length(10_000_000)));
}

#[test]
fn what_others_say_shows_what_it_is() {
    let hostile = crate::text::tests::HOSTILE;
    let said = Redactor::default().clean(&format!("535 {hostile}\n{hostile} no"));
    assert_eq!(said.split(" | ").count(), 2, "{said}");
    assert!(said.chars().all(crate::text::shows), "{said}");
}
