//! `relaykey derive`: the SES SMTP password of an IAM secret access key.

use std::io::{IsTerminal as _, Read as _, Write as _};

use clap::Args;
use zeroize::Zeroizing;

use super::secret::EchoOff;
use super::{Exit, complain, tell};
use crate::credential::{self, Secret};

#[derive(Debug, Args)]
pub struct DeriveArgs {
    /// The region of the SES endpoint: a password is good for one region.
    #[arg(long, value_name = "REGION")]
    region: String,
    /// Take a key of another length than 40 characters, as the examples of AWS's documentation have it.
    #[arg(long)]
    any_length: bool,
}

pub fn run(json: bool, args: &DeriveArgs) -> Exit {
    if json {
        complain("derive prints the password and nothing else, and --json is for documents", "leave --json out");
        return Exit::Usage;
    }
    if !credential::region_shaped(&args.region) {
        complain(&format!("{:?} is not a region", args.region), "name it as AWS does, for example --region eu-west-1");
        return Exit::Usage;
    }
    if let Some(odd) = credential::odd_region(&args.region) {
        tell(&format!("relaykey: warning: {odd}"));
        tell(
            "  fix: correct --region, if it is mistyped: a password is good for one region, and the endpoint only says that it is wrong",
        );
    }
    let secret = match read_secret(args.any_length) {
        Ok(secret) => secret,
        Err((what, fix)) => {
            complain(&what, &fix);
            return Exit::Usage;
        }
    };
    let password = credential::ses_smtp_password(&secret, &args.region);
    match writeln!(std::io::stdout().lock(), "{}", password.expose()) {
        Ok(()) => Exit::Done,
        Err(e) => {
            complain(&format!("cannot write to standard output: {e}"), "");
            Exit::ForGood
        }
    }
}

/// One line from standard input; not echoed when that is a terminal.
fn read_secret(any_length: bool) -> Result<Secret, (String, String)> {
    let stdin = std::io::stdin();
    let mut bytes = Zeroizing::new(Vec::with_capacity(512));
    let echo = stdin.is_terminal().then(|| EchoOff::new(std::io::stdin())).flatten();
    if stdin.is_terminal() {
        let _ = write!(std::io::stderr().lock(), "IAM secret access key: ");
        let mut line = Zeroizing::new(String::with_capacity(512));
        stdin.read_line(&mut line).map_err(unreadable)?;
        bytes.extend_from_slice(line.as_bytes());
        tell("");
    } else {
        stdin.lock().take(4097).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    drop(echo);
    let fix = "pipe the secret access key in, one line: it is 40 characters long".to_owned();
    let text = std::str::from_utf8(&bytes).map_err(|_| ("standard input is not text".to_owned(), fix.clone()))?.trim();
    if text.is_empty() {
        return Err(("standard input is empty".into(), fix));
    }
    if bytes.len() > 4096 || text.bytes().any(|b| !b.is_ascii_graphic() && !text.starts_with('{')) {
        return Err((
            "standard input is not a secret access key: it has blanks, control characters or several lines".into(),
            fix,
        ));
    }
    if let Some(seems) = credential::no_secret_access_key(text, any_length) {
        return Err((format!("that is no secret access key: {}", seems.what), seems.fix.to_owned()));
    }
    Ok(Secret::new(text.to_owned()))
}

fn unreadable(e: std::io::Error) -> (String, String) {
    (format!("cannot read standard input: {e}"), "pipe the secret access key in".into())
}
