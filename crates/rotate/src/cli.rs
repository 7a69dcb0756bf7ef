//! The command line of `relaykey-rotate`: arguments, one file per command, text for people, `--json` for programs.

mod check;
mod demo;
mod history;
mod hosts;
mod places;
mod plan;
mod policy;
mod reactivate;
mod run;
mod status;
mod user;
pub mod view;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use relaykey::fault::{Class, Fault};
use relaykey::tls::Roots;
use relaykey::{host, text};
pub use relaykey_core::exit::Exit;

use crate::config::{self, Config, Credential};
use crate::run::Controller;
use crate::words::{AwsCommand, Names, speak_of};

/// Rotates the IAM key behind an SES SMTP credential: makes the new key, proves it, publishes it, waits until every host has
/// confirmed it with proof, then retires the old one.
#[derive(Debug, Parser)]
#[command(
    name = "relaykey-rotate",
    version,
    after_help = "Exit codes:\n   0  done, or nothing is due\n   1  refused for good\n   2  usage or configuration\n   3  waits \
                  for people, or for hosts\n  75  failed for now, not over yet, or somebody else is at work"
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Args)]
pub struct Common {
    /// The configuration file; without it, what RELAYKEY_ROTATE_CONFIG names, else /etc/relaykey/rotate.toml.
    // Not by clap's `env`: where the variable is set, every error of usage would name --config as something that is needed.
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Which credential; may be left out where the configuration has one.
    #[arg(long, global = true, value_name = "NAME")]
    credential: Option<String>,
    /// Print facts as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
}

impl Common {
    fn config(&self) -> PathBuf {
        let named = || std::env::var_os("RELAYKEY_ROTATE_CONFIG").map(PathBuf::from);
        self.config.clone().or_else(named).unwrap_or_else(|| config::PATH.into())
    }
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// What would be done next, and why; changes nothing.
    Plan,
    /// A rotation, or what is left of one that is under way; ends when the old key is retired.
    Run(run::RunArgs),
    /// How far a rotation is: phase, clocks, and the hosts that are not done; changes nothing.
    Status(status::StatusArgs),
    /// The hosts that have a say in it: list, add, remove, waive, unwaive, seal, accept.
    #[command(subcommand)]
    Hosts(hosts::HostsCommand),
    /// Where the key is published: remove a place that rotate.toml does not name any more.
    #[command(subcommand)]
    Places(places::PlacesCommand),
    /// Whose keys are rotated: accept another IAM user than the rotation was about.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Brings a deactivated key back.
    Reactivate(reactivate::ReactivateArgs),
    /// What was done, when and by whom, from the audit log; --verify: is the log as it was written.
    History(history::HistoryArgs),
    /// Looks at the configuration and at everything in AWS that a rotation needs; changes nothing.
    Check,
    /// The least IAM policy for this configuration.
    Policy(policy::PolicyArgs),
    /// A configuration that explains every key.
    Example,
    /// A whole rotation on this machine, with nothing else installed and no account: five hosts, an SES stand-in and an AWS
    /// stand-in.
    Demo(demo::DemoArgs),
}

/// Parses the arguments, runs the command, and gives its exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage.code().into() } else { ExitCode::SUCCESS };
        }
    };
    if let CliCommand::Demo(_) = cli.command
        && let Err(exit) = demo::start_anew()
    {
        return exit.code().into();
    }
    if let Err(e) = host::process_hardening() {
        complain(
            &format!("cannot keep secrets out of core dumps: {e}"),
            "run on Linux with procfs, as the owner of the files",
        );
        return Exit::ForGood.code().into();
    }
    let common = cli.common;
    let exit = match cli.command {
        CliCommand::Plan => with(&common, plan::run),
        CliCommand::Run(args) => with(&common, async |at| run::run(at, &args).await),
        CliCommand::Status(args) => with(&common, async |at| status::run(at, &args).await),
        CliCommand::Hosts(command) => with(&common, async |at| hosts::run(at, &command).await),
        CliCommand::Places(command) => with(&common, async |at| places::run(at, &command).await),
        CliCommand::User(command) => with(&common, async |at| user::run(at, &command).await),
        CliCommand::Reactivate(args) => with(&common, async |at| reactivate::run(at, &args).await),
        CliCommand::History(args) => with(&common, async |at| history::run(at, &args).await),
        CliCommand::Check => check::run(&common),
        CliCommand::Policy(args) => policy::run(&common, &args),
        CliCommand::Example => {
            say(config::EXAMPLE.trim_end());
            Exit::Done
        }
        CliCommand::Demo(args) => demo::run(common.json, &args),
    };
    exit.code().into()
}

/// From now on it is this configuration and this credential that is spoken of.
fn speak(common: &Common, config: &Config, credential: &Credential) {
    speak_of(spoken(common, config, credential));
}

/// Commands that are printed are about this configuration and this credential, from whatever directory.
fn spoken(common: &Common, config: &Config, credential: &Credential) -> Names {
    let mut us = "relaykey-rotate".to_owned();
    let path = common.config();
    let at = std::path::absolute(&path).unwrap_or(path);
    if at != Path::new(config::PATH) {
        us += &format!(" --config {}", host::trust::quoted(&at));
    }
    if common.credential.is_some() || config.credentials.len() > 1 {
        us += &format!(" --credential {}", host::trust::quoted(&credential.name));
    }
    let given = |option: &str, value: &Option<String>| match value {
        Some(value) => format!(" {option} {}", host::trust::quoted(value)),
        None => String::new(),
    };
    let aws = |aws: &relaykey_core::config::Aws| {
        format!("aws{}{}", given("--profile", &aws.profile), given("--endpoint-url", &aws.endpoint_url))
    };
    let called = |publish: &config::Publish| AwsCommand {
        aws: aws(&publish.aws),
        name: host::trust::quoted(publish.place.name()),
        region: given("--region", &publish.aws.region),
    };
    Names {
        us,
        aws: aws(&config.aws),
        user: credential.iam_user.clone(),
        store: match credential.publish.as_slice() {
            [] => String::new(),
            [publish] => publish.place.to_string(),
            [first, ..] => first.to_string(),
        },
        places: credential.publish.iter().map(|publish| (publish.at(), called(publish))).collect(),
        fleet: credential.evidence.name(),
    }
}

/// Where a command is at work: one credential of one configuration.
pub struct Session<'a> {
    pub config: &'a Config,
    pub credential: &'a Credential,
    pub controller: Controller,
    pub json: bool,
}

impl Session<'_> {
    /// Text for people on standard output; in a lab it says so first.
    pub fn say(&self, text: &str) {
        say(&lab(self.config.lab, text));
    }
}

/// The text, as it is to begin in a lab.
fn lab(is_lab: bool, text: &str) -> String {
    match is_lab {
        true => format!("LAB  (no number here protects anything)\n{text}"),
        false => text.to_owned(),
    }
}

/// Loads the configuration, chooses the credential, and runs a command about it.
fn with(common: &Common, command: impl AsyncFnOnce(Session<'_>) -> Exit) -> Exit {
    let config = match load(common) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let credential = match choose(&config, common.credential.as_deref()) {
        Ok(credential) => credential,
        Err(exit) => return exit,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    speak(common, &config, credential);
    runtime.block_on(async {
        match Controller::new(&config, credential).await {
            Ok(controller) => command(Session { config: &config, credential, controller, json: common.json }).await,
            Err(fault) => refused(&fault),
        }
    })
}

/// Loads the configuration; on mistakes prints every one of them.
fn load(common: &Common) -> Result<Config, Exit> {
    let path: &Path = &common.config();
    match config::load(path) {
        Ok((config, findings)) => {
            if !findings.is_empty() && !common.json {
                tell(config::render(&findings, path).trim_end());
            }
            Ok(config)
        }
        Err(e) => {
            let findings = config::findings(&e);
            let exit = if e.may_pass() { Exit::ForNow } else { Exit::Usage };
            if common.json {
                print_json(&serde_json::json!({
                    "schema": view::SCHEMA,
                    "config": path,
                    "findings": findings,
                    "exit": exit.code(),
                }));
            }
            tell(config::render(&findings, path).trim_end());
            Err(exit)
        }
    }
}

/// The credential of this name; the only one where none is named.
fn choose<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Credential, Exit> {
    let found = match (name, config.credentials.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), all) => all.iter().find(|credential| credential.name == name),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = config.credentials.iter().map(|credential| credential.name.as_str()).collect();
        let what = match name {
            Some(name) => format!("the configuration has no credential {name:?}"),
            None => "the configuration has several credentials".to_owned(),
        };
        complain(&what, &format!("--credential with one of: {}", known.join(", ")));
        Exit::Usage
    })
}

/// The files of certificates that logins need can be read, and have some: nothing is begun that would wait for that.
///
/// # Errors
/// The first that cannot, by its name.
fn ca_files(credential: &Credential) -> Result<(), Fault> {
    for path in credential.smtp.endpoints().filter_map(|smtp| smtp.ca_file.as_deref()) {
        Roots::from_file(path).map_err(|e| Fault::new(Class::Trust, format!("ca_file: {e}"), e.fix()))?;
    }
    Ok(())
}

/// Says why nothing came of it.
fn refused(fault: &Fault) -> Exit {
    complain(&fault.what, &fault.fix);
    if fault.temporary { Exit::ForNow } else { Exit::ForGood }
}

/// Prints an error with its fix.
fn complain(what: &str, fix: &str) {
    tell(&format!("relaykey-rotate: {what}"));
    if !fix.is_empty() {
        tell(&format!("  fix: {fix}"));
    }
}

/// One line on standard error; a reader that has gone away must not end a rotation half-way.
fn tell(words: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text::lines(words));
}

/// One line on standard output; a reader that has gone away is no error of ours.
fn say(words: &str) {
    let _ = is_read(words);
}

/// The same; `false`: nobody reads it any more.
fn is_read(words: &str) -> bool {
    let said = writeln!(std::io::stdout().lock(), "{}", text::lines(words));
    !said.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// One JSON document on standard output.
fn print_json(document: &impl serde::Serialize) {
    let document = serde_json::to_string_pretty(document).expect("documents have only text keys");
    say(&text::json(&document));
}

/// One JSON document on one line of standard output.
fn print_json_line(document: &impl serde::Serialize) {
    let document = serde_json::to_string(document).expect("documents have only text keys");
    say(&text::json(&document));
}

/// The run time of one command: this thread, and threads for calls that block.
fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| {
        complain(&format!("cannot start the run time: {e}"), "see the limits of this user (ulimit -n, ulimit -u)");
        Exit::ForNow
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::Cli;
    use crate::refusal::Refusal;

    /// A command line as a shell takes it apart, as far as our own commands go.
    fn words(command: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (n, part) in command.split('"').enumerate() {
            match n % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words
    }

    #[test]
    fn the_documents_name_every_command_and_every_exit_code() {
        use clap::CommandFactory as _;
        let text = include_str!("../../../docs/rotation.md");
        for command in Cli::command().get_subcommands() {
            let nested: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let names = match nested.is_empty() {
                true => vec![command.get_name().to_owned()],
                false => nested.iter().map(|name| format!("{} {name}", command.get_name())).collect(),
            };
            for name in names {
                assert!(text.contains(&format!("`{name}")), "{name}");
            }
        }
        let exits =
            [super::Exit::Done, super::Exit::ForGood, super::Exit::Usage, super::Exit::People, super::Exit::ForNow];
        let codes = text.split_once("Exit codes: ").expect("the codes").1.split('\u{b7}');
        let codes: Vec<u8> = codes
            .take(5)
            .map(|code| code.trim().split(' ').next().and_then(|n| n.parse().ok()).expect("a code"))
            .collect();
        assert_eq!(codes, exits.map(super::Exit::code));
    }

    #[test]
    fn every_command_that_a_fix_names_is_one() {
        let fixes: Vec<String> = Refusal::one_of_each().iter().map(Refusal::fix).collect();
        let commands = fixes.iter().flat_map(|fix| fix.split('`').skip(1).step_by(2));
        let ours: Vec<&str> = commands.filter(|command| command.starts_with("relaykey-rotate ")).collect();
        assert!(ours.len() > 10, "{ours:#?}");
        for command in ours {
            // How many mail servers there are is for a person to count; nothing else is left open.
            if let Err(e) = Cli::try_parse_from(words(&command.replace("--expect N", "--expect 3"))) {
                panic!("`{command}`: {e}");
            }
        }
    }

    #[test]
    fn a_place_is_spoken_of_as_it_is_reached() {
        let text = "config_version = 1\n[aws]\nregion = \"eu-west-1\"\nprofile = \"here\"\n[[credential]]\nname = \"ses\"\n\
                    iam_user = \"ses-smtp\"\n[credential.smtp]\nendpoint = \"email-smtp.eu-west-1.amazonaws.com\"\n\
                    [[credential.publish]]\ntype = \"secrets-manager\"\nsecret = \"a\"\n\
                    [[credential.publish]]\ntype = \"parameter-store\"\nparameter = \"/b\"\nregion = \"us-east-1\"\n\
                    profile = \"acct 2\"\nendpoint_url = \"https://ssm.example.com\"\n\
                    [credential.evidence]\ntype = \"dynamodb\"\ntable = \"relaykey\"\n";
        let (config, _) = crate::config::parse(text).unwrap_or_else(|findings| panic!("{findings:#?}"));
        let common = super::Common { config: None, credential: None, json: false };
        let names = super::spoken(&common, &config, &config.credentials[0]);
        let told: Vec<_> =
            names.places.iter().map(|(_, to)| [&to.aws, &to.name, &to.region].map(String::as_str)).collect();
        let other = "aws --profile 'acct 2' --endpoint-url https://ssm.example.com";
        assert_eq!(told, [["aws --profile here", "a", " --region eu-west-1"], [other, "/b", " --region us-east-1"]]);
        assert_eq!(names.aws, "aws --profile here");
    }
}
