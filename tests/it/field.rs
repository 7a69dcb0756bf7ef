//! Set-ups that people really have, run as they run them: on a real Postfix, with the real names in a network of its own, and
//! judged by mail. `tests/field` holds them; its README says what is in a folder. `today.toml` there holds the verdict
//! that each one gets today: one that gets another is red, whether it is worse or better, so that the list stays true.

mod case;
mod network;
mod random;
mod run;
mod verdict;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use verdict::{Verdict, listed};

/// Each test's case, as `today.toml` has it, and what came of it.
fn expect_today(test: &str, name: &str) {
    let said = network::apart(&format!("field::{test}"), 0, |_| {
        let outcome = run::run(name);
        println!("\n{name}: {}: {}\n{}{}", outcome.verdict, outcome.why, outcome.check, outcome.sync);
        let today = today();
        let listed = today.get(name).copied().unwrap_or_else(|| panic!("{name} is not in tests/field/today.toml"));
        let got = outcome.verdict;
        assert!(got >= listed, "{name} has got worse: {got}, and was {listed}: {}", outcome.why);
        assert!(got <= listed, "{name} has got better: write {got} for {listed} into tests/field/today.toml");
    });
    if let Some((said, passed)) = said {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("field");
        fs::create_dir_all(&kept).expect("a directory");
        fs::write(kept.join(name), &said).expect("written");
        assert!(passed, "{said}");
    }
}

fn today() -> std::collections::BTreeMap<String, Verdict> {
    listed(&fs::read_to_string(case::folder().join("today.toml")).expect("today.toml"))
}

/// A test for each case, and the list of them. Those of the second part take too long together for every run.
macro_rules! cases {
    (every run { $($test:ident = $name:literal;)* } long runs { $($long_test:ident = $long_name:literal;)* }) => {
        $(
            #[test]
            fn $test() {
                expect_today(stringify!($test), $name);
            }
        )*
        $(
            #[test]
            #[ignore = "tests/long/field runs it"]
            fn $long_test() {
                expect_today(stringify!($long_test), $long_name);
            }
        )*

        const CASES: &[&str] = &[$($name,)* $($long_name),*];
    };
}

cases! {
    every run {
    c01 = "01-guide";
    c02 = "02-no-brackets";
    c08 = "08-transport-only";
    c13 = "13-transport-half-rotated";
    c14 = "14-sender-relayhost";
    c15 = "15-sender-lines";
    c18 = "18-two-tables";
    c20 = "20-proxy-hash";
    c22 = "22-master-second-table";
    c24 = "24-master-auth-enable";
    c30 = "30-two-regions";
    c39 = "39-key-without-port";
    c53 = "53-two-instances-one-file";
    c54 = "54-second-instance-forgotten";
    c68 = "68-sender-line-half-rotated";
    c78 = "78-foreign-under-our-key";
    c80 = "80-bare-host-other-account";
    c81 = "81-two-credentials-by-sender";
    c84 = "84-never-compiled";
    c90 = "90-region-failover-list";
    c91 = "91-only-sender-lines-fresh";
    c106 = "106-sender-transport-own-table";
    c126 = "126-also-two-tables-fresh";
    c136 = "136-filter-action";
    c160 = "160-three-services-three-tables";
    }
    long runs {
    c04 = "04-port-25-history";
    c05 = "05-implicit-465";
    c06 = "06-465-no-wrapper";
    c11 = "11-transport-bulk";
    c12 = "12-transport-second-port";
    c17 = "17-two-accounts-by-sender";
    c25 = "25-static";
    c28 = "28-text-removed";
    c32 = "32-fallback-region";
    c34 = "34-nixos-sops";
    c36 = "36-file-bind-mount";
    c38 = "38-appended-twice";
    c41 = "41-no-sasl-plugins";
    c44 = "44-variables";
    c47 = "47-mx-name-bare";
    c50 = "50-vpc-endpoint";
    c52 = "52-stunnel";
    c57 = "57-raw-secret-in-table";
    c61 = "61-ca-file-missing";
    c63 = "63-default-transport";
    c65 = "65-transport-without-key";
    c66 = "66-service-without-auth";
    c70 = "70-no-type";
    c86 = "86-advice-of-81-followed";
    c101 = "101-texthash";
    c102 = "102-lmdb-sender-lines";
    c103 = "103-cdb";
    c104 = "104-service-with-wrappermode";
    c105 = "105-default-transport-fresh";
    c107 = "107-sender-relayhosts-two-ports";
    c108 = "108-transport-for-all";
    c109 = "109-transport-regexp";
    c110 = "110-transport-inline";
    c111 = "111-transport-static";
    c112 = "112-two-services-one-table";
    c113 = "113-two-services-two-tables-fresh";
    c114 = "114-other-service-other-table";
    c115 = "115-two-instances";
    c116 = "116-second-instance-elsewhere";
    c117 = "117-sender-lines-of-all-kinds";
    c118 = "118-sender-lines-not-used";
    c119 = "119-key-in-capitals";
    c120 = "120-windows-line-ends";
    c121 = "121-untidy-table";
    c122 = "122-links";
    c123 = "123-proxy-lmdb";
    c124 = "124-also-by-transport";
    c125 = "125-also-by-fallback";
    c127 = "127-bare-key-without-brackets";
    c128 = "128-alias";
    c129 = "129-two-tunnels";
    c130 = "130-parameter-store-fresh";
    c131 = "131-sender-line-two-keys-back-fresh";
    c132 = "132-taken-over-two-ports";
    c133 = "133-two-logins-at-ses-fresh";
    c134 = "134-service-of-another-user";
    c135 = "135-service-of-another-user-fresh";
    c137 = "137-content-filter";
    c138 = "138-fallback-other";
    c139 = "139-relay-service-own-table";
    c140 = "140-two-tables-two-kinds";
    c141 = "141-two-tables-one-key";
    c142 = "142-second-table-the-key-before";
    c143 = "143-twice-ours";
    c144 = "144-list-of-ports";
    c145 = "145-service-without-table";
    c146 = "146-relayhost-on-a-service";
    c147 = "147-proxy-not-allowed";
    c148 = "148-misspelt-key";
    c149 = "149-no-tls";
    c150 = "150-sender-relayhost-regexp";
    c151 = "151-sender-service-to-relayhost";
    c152 = "152-inline-logins";
    c153 = "153-read-only";
    c154 = "154-immutable";
    c155 = "155-directory-of-another-user";
    c156 = "156-two-accounts-two-regions";
    c157 = "157-second-region-alone";
    c158 = "158-only-sender-lines-of-two-fresh";
    c159 = "159-transport-only-fresh";
    c161 = "161-table-by-a-variable";
    c162 = "162-main-table-not-used";
    c163 = "163-used-table-in-master-only";
    c164 = "164-sender-rule-on-a-service";
    c165 = "165-two-instances-two-services";
    c166 = "166-address-literal";
    c167 = "167-regexp-logins";
    c168 = "168-half-rotated-second-service";
    c170 = "170-result-delimiter";
    c171 = "171-relative-path";
    c172 = "172-relative-path-proxied";
    c173 = "173-windows-line-ends-several";
    c174 = "174-address-literal-ipv6";
    c175 = "175-alias-without-port";
    c176 = "176-proxied-never-compiled";
    c177 = "177-proxied-by-a-service";
    c178 = "178-vouched-for";
    c179 = "179-proxied-out-of-reach";
    c201 = "201-other-regions-password";
    c202 = "202-another-password";
    c180 = "180-also-two-instances";
    c181 = "181-also-sender-line";
    c182 = "182-also-ready-made";
    c183 = "183-also-ready-made-idle";
    c184 = "184-also-relayhost-list";
    c185 = "185-also-second-region-alone";
    c203 = "203-braces-in-master";
    c204 = "204-variable-of-a-service";
    c205 = "205-port-by-its-name";
    c207 = "207-hop-in-capitals";
    c208 = "208-old-style-instance";
    c209 = "209-text-removed-several";
    c210 = "210-text-emptied";
    c301 = "301-unnamed-host-other-region";
    c302 = "302-table-by-service-name";
    c303 = "303-variable-of-a-service-static";
    c304 = "304-static-by-variable";
    c305 = "305-instance-nobody-names";
    c308 = "308-sender-line-other-region";
    c310 = "310-content-filter-of-smtpd";
    c311 = "311-filter-of-access-map";
    c314 = "314-pipe-to-a-client";
    c316 = "316-main-table-by-service-name";
    c330 = "330-idle-line-of-another-region";
    c333 = "333-regexp-last";
    c335 = "335-unnamed-host-also-fresh";
    c340 = "340-transports-of-the-rewriter";
    c341 = "341-filter-of-a-restriction-class";
    c342 = "342-mailbox-transport-map";
    c343 = "343-unnamed-instance-elsewhere";
    c344 = "344-pipes-that-deliver";
    c345 = "345-settings-of-a-client";
    c346 = "346-client-vouched-for";
    c347 = "347-instance-below-another-root";
    c348 = "348-zimbra";
    c350 = "350-pipemap-route-other-region";
    c351 = "351-filter-of-a-policy-server";
    c352 = "352-named-line-synced-again";
    c353 = "353-pipe-with-settings-beside";
    c354 = "354-pipe-to-a-wrapper";
    c355 = "355-pipe-to-an-interpreter";
    c356 = "356-mailbox-command";
    c357 = "357-alias-to-a-client";
    c358 = "358-master-edited-not-reloaded";
    c359 = "359-master-edited-before-adoption";
    c360 = "360-tls-per-site-none";
    c361 = "361-use-tls-of-old";
    c362 = "362-enforce-tls-of-old";
    c363 = "363-unionmap-logins";
    c364 = "364-unionmap-of-a-service";
    c365 = "365-only-in-the-map-other-region";
    c366 = "366-only-in-the-map-unnamed-host";
    c367 = "367-map-behind-the-text";
    c368 = "368-local-part-as-sender";
    c369 = "369-probes-elsewhere";
    c370 = "370-pipemap-routes";
    c371 = "371-two-kinds-of-one-text";
    c372 = "372-by-config-directory";
    c373 = "373-route-without-a-transport";
    c374 = "374-ready-half-rotated-sender";
    c375 = "375-sender-line-unnamed-host";
    c376 = "376-sender-line-unnamed-host-also";
    c377 = "377-sender-transport-unnamed-host";
    c378 = "378-alias-of-another-region";
    c379 = "379-second-tunnel-other-region";
    c380 = "380-gateway-with-a-port-for-each-region";
    c381 = "381-second-tunnel-half-rotated";
    c382 = "382-keys-leave-the-named-line";
    c383 = "383-pipe-by-the-shell";
    c384 = "384-mx-name-of-another-region";
    c390 = "390-alias-behind-a-policy-server";
    c391 = "391-own-service-for-senders";
    c392 = "392-alias-of-the-wrong-region";
    c393 = "393-sender-line-before-a-host-line";
    c394 = "394-sender-line-beside-another-provider";
    c395 = "395-only-sender-lines-by-a-transport";
    c396 = "396-address-of-another-region";
    c397 = "397-mx-name-half-rotated";
    c398 = "398-keys-with-the-wrong-alias";
    c400 = "400-wrong-alias-half-rotated";
    c401 = "401-gateway-port-half-rotated";
    c402 = "402-sender-line-by-a-transport";
    c403 = "403-sender-line-before-a-gateways-own-login";
    c404 = "404-local-part-with-a-dot";
    c405 = "405-sender-line-by-a-transport-without-a-hop";
    c406 = "406-sender-line-behind-a-policy-server";
    c407 = "407-only-an-alias-of-another-region-fresh";
    c408 = "408-only-an-alias-of-another-region";
    c409 = "409-sender-line-of-the-other-instance";
    c410 = "410-bare-address-half-rotated";
    c411 = "411-options-in-one-word";
    c412 = "412-sender-smarthost-without-a-login";
    c413 = "413-quoted-local-part";
    c414 = "414-inline-before-hash";
    c415 = "415-service-table-by-a-condition";
    c417 = "417-unionmap-relayhosts";
    c418 = "418-filter-that-hands-back";
    c419 = "419-wrong-alias-half-rotated-iam";
    c420 = "420-right-alias-half-rotated";
    c421 = "421-only-an-alias-fresh";
    c422 = "422-only-an-alias-of-another-region-ready-made-fresh";
    c423 = "423-sender-line-of-also-by-a-transport";
    c430 = "430-relative-program-name";
    c431 = "431-second-table-missing";
    c432 = "432-other-service-unreadable";
    c433 = "433-earlier-password-of-another-region";
    c506 = "506-smtp-tcp-port";
    c520 = "520-tls-by-policy-alone";
    c521 = "521-use-tls-and-noplaintext";
    c522 = "522-tunnel-by-policy-none";
    c523 = "523-verified-options";
    c535 = "535-table-by-two-paths";
    c547 = "547-idle-line-of-another-alias";
    c571 = "571-wrappermode-and-may";
    c501 = "501-proxymap-in-a-jail";
    c534 = "534-proxied-and-not";
    c546 = "546-unit-with-its-own-root";
    c551 = "551-python-module-of-settings";
    c552 = "552-dotenv";
    c553 = "553-configuration-without-an-ending";
    c586 = "586-old-level-chroot-by-default";
    c612 = "612-directory-of-a-pipe";
    c613 = "613-command-by-path";
    c614 = "614-cd-and-start";
    c615 = "615-python-m";
    c617 = "617-proxied-and-not-open-to-all";
    c618 = "618-proxied-by-the-other-instance";
    c620 = "620-proxied-in-a-closed-directory";
    c502 = "502-table-by-syslog-name";
    c503 = "503-config-directory-of-a-service";
    c504 = "504-domain-of-a-service";
    c505 = "505-texthash-twice";
    c509 = "509-texthash-twice-another-relay";
    c510 = "510-n-of-a-service";
    c536 = "536-gateway-with-a-port-without-a-login";
    c537 = "537-any-port-of-loopback";
    c538 = "538-endpoint-by-its-name-at-any-port";
    c539 = "539-gateway-with-a-port-without-tls";
    c540 = "540-condition-on-an-option-with-a-colon";
    c621 = "621-service-twice";
    c633 = "633-variable-behind-a-variable";
    c508 = "508-port-of-etc-services";
    c511 = "511-texthash-appended-after-adoption";
    c580 = "580-previous-said-by-root";
    c619 = "619-per-site-and-policy";
    c655 = "655-relative-paths-by-a-condition";
    c659 = "659-tunnel-on-another-host";
    c660 = "660-options-for-all-relays";
    c664 = "664-texthash-routes-twice";
    }
}

#[test]
fn every_folder_is_a_test_with_a_verdict() {
    let folders = fs::read_dir(case::folder()).expect("tests/field").map(|entry| entry.expect("an entry"));
    let folders: BTreeSet<_> =
        folders.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().expect("UTF-8")).collect();
    let tests: BTreeSet<_> = CASES.iter().map(|name| (*name).to_owned()).collect();
    let today = today();
    let listed: BTreeSet<_> = today.keys().cloned().collect();
    assert_eq!(folders, tests);
    assert_eq!(folders, listed);
    let wrong = today.values().filter(|verdict| !verdict.is_right()).count();
    println!("{} set-ups: {wrong} not yet right", today.len());
}

/// So many for each of the tests below.
const ROUNDS: u64 = 40;

/// Seeds `first` to `first + ROUNDS`, one after the other; `RELAYKEY_FIELD_SEEDS=FROM..TO` asks for others.
fn at_random(test: &str, first: u64) {
    let asked = std::env::var("RELAYKEY_FIELD_SEEDS").ok();
    let asked = asked.as_deref().and_then(|asked| asked.split_once(".."));
    let number = |text: &str| text.parse().expect("RELAYKEY_FIELD_SEEDS: FROM..TO");
    let seeds = asked.map_or(first..first + ROUNDS, |(from, to)| number(from)..number(to));
    let mut wrong = Vec::new();
    for seed in seeds {
        let said = network::apart(&format!("field::{test}"), seed, |seed| {
            let outcome = run::run_as_found(seed);
            println!("\nseed {seed}: {}: {}\n{}{}", outcome.verdict, outcome.why, outcome.check, outcome.sync);
            assert!(outcome.verdict.is_right(), "seed {seed}: {}: {}", outcome.verdict, outcome.why);
        });
        let Some((said, passed)) = said else { return };
        match said.lines().find(|line| line.starts_with(&format!("seed {seed}: "))) {
            Some(verdict) => println!("{verdict}"),
            None => println!("seed {seed}: no verdict"),
        }
        if !passed {
            wrong.push(format!("seed {seed}\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{} set-ups came out wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

macro_rules! random {
    ($($test:ident = $first:literal;)*) => {
        $(
            #[test]
            #[ignore = "tests/long/random runs it"]
            fn $test() {
                at_random(stringify!($test), $first);
            }
        )*
    };
}

random! {
    random_0 = 0;
    random_1 = 40;
    random_2 = 80;
    random_3 = 120;
    random_4 = 160;
    random_5 = 200;
    random_6 = 240;
    random_7 = 280;
}
