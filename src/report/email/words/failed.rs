//! A report of what did not work, by what stood in the way.

use super::keys::ReportNames;
use super::{Sentences, capital};
use crate::fault::Class;
use crate::instruction::relaykey;
use crate::rollover::Report;

pub(super) fn failed(report: &Report, r: &ReportNames) -> Sentences {
    let class = report.error.as_ref().map(|e| e.class);
    let check = || {
        vec![(
            format!("To have everything checked, each problem with its remedy; on {}, as root:", r.host),
            relaykey("check"),
        )]
    };
    let keep = r.keep_old();
    let (headline, happened, mail, to_do, commands) = match class {
        Some(Class::Refused) => (
            if r.another_login {
                "new SMTP key refused by the mail relay"
            } else {
                "new SMTP key refused by the mail relay, old key stays"
            },
            format!(
                "{} refuses {} of {}, so relaykey does not put it into use on {}.",
                capital(&r.relay),
                r.new_key,
                r.login,
                r.host
            ),
            match r.old {
                Some(_) if r.another_login => r.goes_on(),
                Some(_) => format!("{} As long as nobody deletes it, this can wait for the morning.", r.goes_on()),
                // On a host where relaykey begins, this may be the very key that the mail server has.
                None => "relaykey has changed nothing here: mail goes on with the login that the mail server has, for as long as \
                         that one is valid. Should it be this same key, mail is probably held back in the queue already."
                    .into(),
            },
            if r.of_aws {
                format!(
                    "{keep} Check in AWS that the new key is there and active, and that what is stored at the source belongs to it. \
                     If not, publish a valid key there, as a new version. relaykey goes on trying by itself."
                )
            } else {
                format!(
                    "{keep} Check at the mail relay that user name and password are valid. If not, publish valid ones at the \
                     source, as a new version. relaykey goes on trying by itself."
                )
            },
            check(),
        ),
        Some(Class::Policy | Class::Probe) => (
            if r.another_login { "new SMTP key may not send mail" } else { "new SMTP key may not send mail, old key stays" },
            format!(
                "{} accepts the login with {} of {}, but took no test message over it, so relaykey does not put it into use on {}.",
                capital(&r.relay),
                r.new_key,
                r.login,
                r.host
            ),
            format!("{} With the new key, mail would have been refused.", r.goes_on()),
            if r.of_aws {
                format!(
                    "{keep} Give the IAM user of the new key the permission to send (ses:SendRawEmail), and see that the sender \
                     address is verified in SES: what the relay said is below. relaykey goes on trying by itself."
                )
            } else {
                format!(
                    "{keep} Let the mail relay take mail from this user and sender: what it said is below. relaykey goes on trying \
                     by itself."
                )
            },
            check(),
        ),
        Some(Class::LeftBehind | Class::NotNewer) => (
            "offered SMTP key is not newer, not used",
            format!(
                "The source of {} offers a key that is not newer than the one in use, so relaykey does not take it on {}.",
                r.login, r.host
            ),
            r.goes_on(),
            format!(
                "{} If somebody put an old key back by mistake, publish the right one at the source, as a new version.",
                if r.another_login { keep.as_str() } else { "Do not delete the key in use." }
            ),
            vec![(
                format!("If going back is meant, put the offered key into use; on {}, as root:", r.host),
                relaykey(format_args!("sync {} --accept-version {}", r.credential, r.version)),
            )],
        ),
        Some(Class::ReloadOwed) => (
            "new SMTP key in place, but the mail server was not reloaded",
            format!(
                "{} of {} is in the files of the mail server on {}, but the mail server has not been told to read them again: it \
                 may still log in with the old key.",
                capital(&r.new_key),
                r.login,
                r.host
            ),
            r.unaffected("Mail is not affected for as long as the old key is valid as well.".into()),
            format!("{keep} Reload the mail server; relaykey notices that by itself and reports it."),
            vec![(format!("For Postfix, on {}, as root:", r.host), "postfix reload".into())],
        ),
        Some(Class::Drift) => (
            "mail server's login changed by somebody else and not put back",
            format!(
                "Somebody else has changed the login of the mail server on {} that relaykey looks after ({}), and relaykey has not \
                 put its own back: either it is told not to, or it did so three times within an hour.",
                r.host, r.login
            ),
            format!(
                "Mail to {} may be failing, or may go out with another login: the mail server's password table no longer holds \
                 what relaykey had put there.",
                r.relay
            ),
            "Do not delete any key. Find out who or what changes the password table (configuration management such as Puppet or \
             Ansible, a restored backup, a colleague), and stop it. relaykey puts its login back within about an hour where the \
             source still gives it, also while a newer key waits or is refused. Where the source does not (a file holds one key \
             only), or the configuration says drift = \"report\", put it back by hand, or put the newer key into use."
                .into(),
            check(),
        ),
        _ if report.username.is_empty() => (
            "cannot look for a new SMTP key",
            format!("relaykey on {} cannot find out whether there is a new key for {}.", r.host, r.login),
            r.goes_on(),
            match r.another_login && !r.keep.is_empty() {
                true => format!("{keep} See to what stood in the way; relaykey goes on trying by itself."),
                false => "Do not delete the key in use: this host would not notice a new one. See to what stood in the way; relaykey \
                      goes on trying by itself."
                    .into(),
            },
            check(),
        ),
        _ if report.of_applied => (
            "mail server's login could not be put back",
            format!(
                "The mail server on {} does not hold {} of {} any more, which relaykey had put there, and relaykey could not put it \
                 back.",
                r.host, r.key, r.login
            ),
            format!(
                "Mail to {} may be failing, or may go out with another login, which relaykey has not checked.",
                r.relay
            ),
            "Do not delete any key. See to what stood in the way, and find out who or what changes the password table; relaykey goes \
             on trying by itself where it knows the login that it finds there."
                .into(),
            check(),
        ),
        _ => (
            "new SMTP key could not be put into use",
            format!("relaykey could not put {} of {} into use on {}.", r.new_key, r.login, r.host),
            r.goes_on(),
            format!("{keep} See to what stood in the way; relaykey goes on trying by itself."),
            check(),
        ),
    };
    let heading = if class == Some(Class::Drift) { "What relaykey found" } else { "What stood in the way" };
    let apart = report.error.as_ref().and_then(|e| Some((e.what.clone()?, e.fix.clone()?)));
    let (said, fix) = match apart {
        Some((what, fix)) => (Some((heading, what)), Some(fix)),
        None => (r.said(heading), None),
    };
    Sentences { headline: headline.into(), happened, mail, to_do, commands, said, fix, ..Sentences::empty() }
}
