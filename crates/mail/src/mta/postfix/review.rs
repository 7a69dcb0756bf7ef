//! What in the settings, the files and the programs loses mail, lets others in, or would make us guess.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Postfix;
use super::differences::{Compiling, not_by_hand};
use super::generations::review_generations;
use super::hops::{Endpoint, NextHop, OtherPort, port_part, transport, with_brackets};
use super::origin::Origin;
use super::proxymap;
use super::services::Service;
use super::settings::{Settings, postconf};
use super::survey::Survey;
use super::tables::{Kind, Store};
use super::tls::{PolicyAnswers, default_level, security_options};
use crate::fault::{Class, Fault};
use crate::finding::{Finding, Severity};
use crate::host;
use crate::host::trust::{self, quoted};
use crate::instruction::Instruction;
use crate::mta::alias::Alias;
use crate::mta::table::Table;
use crate::mta::{Relay, Reload, shown, table};

impl Postfix {
    /// Refuses what somebody else could have written of all that is run and obeyed here, before anything is changed; what
    /// a group may change is a problem to be told.
    pub(super) fn review_trust(&self, settings: &Settings) -> Result<Vec<Problem>, Fault> {
        let named = ["postmap", "postfix"].iter().map(|name| settings.program(name));
        let programs = named.chain(postconf().ok().map(OsString::from)).map(|program| vec![program]);
        let reload = match &self.reload {
            Reload::Command(argv) => Some(argv.iter().map(OsString::from).collect()),
            _ => None,
        };
        let mut doubts = Vec::new();
        for path in self.own_files().iter().chain(&self.parts(settings)) {
            doubts.extend(trust::look(path)?.unwrap_or_default());
        }
        let mut problems = Vec::new();
        let named = programs.map(|argv| (argv, false)).chain(reload.map(|argv| (argv, true)));
        for (looked, is_reload) in named.map(|(argv, is_reload)| (trust::command(&argv, None), is_reload)) {
            match looked {
                Ok(program) => doubts.extend(program.doubts),
                // Found out here, and not when a new login stands in the table.
                Err(e @ host::HostError::NotStarted { .. }) if is_reload => {
                    let what = format!("`reload` of this target: {e}, so that nothing is put in place");
                    problems.push(Problem::error(Class::Config, None, what, e.fix()));
                }
                // That it is not there is told by those who need it.
                Err(host::HostError::NotStarted { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        doubts.sort();
        doubts.dedup();
        let warn = |doubt: &trust::Doubt| Problem {
            subject: Subject::Trust,
            ..Problem::warning(Some(doubt.at.clone()), doubt.to_string(), doubt.fix())
        };
        problems.extend(doubts.iter().map(warn));
        Ok(problems)
    }

    /// What in the settings makes a rotation lose mail, or would make us guess.
    pub(super) fn review(&self, survey: &Survey) -> Vec<Problem> {
        let Survey { setup, hops, .. } = survey;
        let mut problems = self.review_routes(survey);
        let mut reviewed = false;
        let mut policies = PolicyAnswers::new();
        for service in setup.services.iter().filter(|service| service.logs_in()) {
            let own: Vec<&NextHop> = hops.ours(&service.name).collect();
            if !own.is_empty() {
                let levels = self.levels(service, &own, &mut policies);
                problems.extend(self.review_login(service, &levels));
                problems.extend(self.review_hops(service, &own));
                reviewed = true;
            }
        }
        if !reviewed {
            let main = Service { name: String::new(), settings: setup.main.clone(), overridden: BTreeSet::new() };
            let levels = BTreeSet::from([default_level(&main)]);
            problems.extend(self.review_login(&main, &levels));
        }
        problems.extend(self.review_tls(survey, &mut policies));
        problems
    }

    /// Where the mail goes.
    fn review_routes(&self, survey: &Survey) -> Vec<Problem> {
        let Survey { setup, hops, .. } = survey;
        let (main_cf, endpoint) = (|| Some(self.config_dir.join("main.cf")), &self.relay.endpoint);
        let mut problems = Vec::new();
        let has_live_key = survey.has_live_key();
        let is_ours = hops.all.iter().any(NextHop::is_ours);
        let mut error = |what: String, fix: String| problems.push(Problem::error(Class::Config, main_cf(), what, fix));
        for hop in hops.without_login.iter().filter(|_| !has_live_key) {
            let (what, fix) = without_login(hop);
            error(format!("{what}; no other route leads to the endpoint {endpoint:?}"), fix);
        }
        if hops.all.is_empty() && hops.without_login.is_empty() && !has_live_key {
            error(
                "relayhost is empty, and no other route that can be read names a next hop, so that none leads to the endpoint".into(),
                format!(
                    "if all mail of this instance is to go out through {endpoint}, set relayhost to [{endpoint}]:{}; that \
                     changes where mail goes, so it is yours to decide",
                    self.relay.port
                ),
            );
        } else if !is_ours && !has_live_key {
            for hop in &hops.all {
                let (parameter, spelt) = (hop.origin.parameter(), shown::hop(&hop.spelt));
                let (named, why, fix) = match other_port(hop, &self.relay) {
                    Some((relay, at)) => (&relay.endpoint, at.what(relay), at.fix(relay)),
                    None => (endpoint, format!("its host is {}", shown::hop(&hop.host)), elsewhere(hop, &self.relay)),
                };
                error(format!("{parameter} {spelt} does not lead to the endpoint {named:?}: {why}"), fix);
            }
        }
        let mut note = |origin: Origin, what: String, fix: String| {
            problems.push(Problem::note(Some(self.config_dir.join(setup.routing.file_of(origin))), what, fix));
        };
        for hop in hops.all.iter().filter(|_| is_ours || has_live_key) {
            let (parameter, spelt) = (hop.origin.parameter(), shown::hop(&hop.spelt));
            if !hop.is_ours() && hop.origin == Origin::Relayhost {
                note(
                    hop.origin,
                    format!(
                        "{parameter} {spelt} does not lead to the endpoint {endpoint:?}, and its login is left alone"
                    ),
                    match other_port(hop, &self.relay) {
                        // By the bare name every port would count.
                        Some((_, at)) => format!(
                            "nothing, where another server listens there; if that port leads to the endpoint too, add {} to \
                             endpoint_aliases",
                            at.alias()
                        ),
                        None => format!(
                            "if it is another name of the same server, add {} to endpoint_aliases",
                            shown::hop(&hop.host)
                        ),
                    },
                );
            } else if hop.is_ours() && hop.origin != Origin::Relayhost {
                note(
                    hop.origin,
                    format!(
                        "{parameter} hands mail to the endpoint, as {spelt}, through the service {}: its login is changed too",
                        hop.service
                    ),
                    "nothing".into(),
                );
            }
        }
        for hop in hops.without_login.iter().filter(|_| has_live_key) {
            let (what, fix) = without_login(hop);
            note(hop.origin, format!("{what}, and is left so"), fix);
        }
        for (origin, table) in &hops.unread {
            note(
                *origin,
                format!(
                    "{} = {table} cannot be read: where it hands mail to the endpoint, every login under a name of the endpoint \
                     counts",
                    origin.parameter()
                ),
                "nothing, where it leads elsewhere; else see that the login table has a line for each next hop that it names".into(),
            );
        }
        let default = setup.main.get("default_transport");
        let name = default.split_once(':').map_or(default, |(name, _)| name);
        if !default.is_empty() && !setup.services.iter().any(|service| service.name == name) {
            note(
                Origin::DefaultTransport,
                format!(
                    "default_transport = {} is no client service of master.cf: what takes it uses no relayhost",
                    transport(default)
                ),
                "nothing, if that is what you want".into(),
            );
        }
        for service in setup.services.iter().filter(|service| service.overridden.contains("relayhost")) {
            problems.push(Problem::warning(
                Some(self.config_dir.join("master.cf")),
                format!("-o relayhost of the service {} has no effect: relayhost counts in main.cf alone", service.name),
                "say in transport_maps or sender_dependent_default_transport_maps what is to go through that service, and where to; \
                 that changes where mail goes, so it is yours to decide"
                    .into(),
            ));
        }
        problems
    }

    /// The file that a service has a setting from.
    pub(super) fn file_of(&self, service: &Service, parameter: &str) -> PathBuf {
        self.config_dir.join(if service.overridden.contains(parameter) { "master.cf" } else { "main.cf" })
    }

    /// The command that sets a parameter where a service has it from.
    fn set(&self, service: &Service, parameter: &str, value: &str) -> String {
        let dir = self.config_dir.display();
        if service.overridden.contains(parameter) {
            // `postconf -P` takes no white space.
            let value = value.replace(", ", ",");
            return format!(
                "postconf -c {dir} -P '{}/unix/{parameter}={value}' && postfix -c {dir} reload",
                service.name
            );
        }
        let space = if value.is_empty() { "" } else { " " };
        format!("postconf -c {dir} -e '{parameter} ={space}{value}' && postfix -c {dir} reload")
    }

    /// How a service logs in, with these levels of TLS.
    fn review_login(&self, service: &Service, levels: &BTreeSet<String>) -> Vec<Problem> {
        let settings = &service.settings;
        let mut problems = Vec::new();
        let set = |parameter: &str, value: &str| self.set(service, parameter, value);
        let mut tell = |severity: Severity, parameter: &str, what: String, fix: String| {
            problems.push(Problem::new(severity, Some(self.file_of(service, parameter)), what, fix));
        };
        let is_ses = Endpoint::of(&self.relay).region.is_some();
        let severity = if is_ses { Severity::Error } else { Severity::Warning };
        let options: BTreeSet<&str> = levels.iter().flat_map(|level| security_options(level)).copied().collect();
        for option in options {
            let in_clear = option == "smtp_sasl_security_options";
            let words = settings.list(option);
            if words.iter().any(|word| word.eq_ignore_ascii_case("noplaintext")) {
                let also = match option {
                    "smtp_sasl_tls_security_options" => " (where it is unset, it follows smtp_sasl_security_options)",
                    "smtp_sasl_tls_verified_security_options" => {
                        " (where it is unset, it follows smtp_sasl_tls_security_options)"
                    }
                    _ => "",
                };
                // What else it excludes stays excluded.
                let is_other = |word: &&&str| words.iter().any(|have| have.eq_ignore_ascii_case(word));
                let mut rest: Vec<&str> = OTHER_OPTIONS.iter().filter(is_other).copied().collect();
                if rest.is_empty() {
                    rest.push("noanonymous");
                }
                let fix = match in_clear {
                    false => format!(
                        "set {option} = {} and reload Postfix, where all its relays may have the login by PLAIN or LOGIN inside of TLS; \
                         else hand the endpoint's mail to a service of its own, with that as its -o: which of them is yours to decide",
                        rest.join(", ")
                    ),
                    true => format!(
                        "have TLS for the endpoint, and there set smtp_sasl_tls_security_options = {0}. Only where the next hop is a \
                         tunnel on this host, which does TLS itself: {option} = {0}; with that the logins of all other relays may go \
                         out in clear, so it is yours to decide",
                        rest.join(", ")
                    ),
                };
                tell(
                    severity,
                    option,
                    format!(
                        "{option} contains noplaintext{also}: that excludes PLAIN and LOGIN, the mechanisms SES offers"
                    ),
                    fix,
                );
                break;
            }
        }
        let filter = settings.list("smtp_sasl_mechanism_filter");
        if !["PLAIN", "LOGIN"].iter().any(|mechanism| passes(&filter, mechanism)) {
            tell(
                severity,
                "smtp_sasl_mechanism_filter",
                "smtp_sasl_mechanism_filter lets neither PLAIN nor LOGIN pass, the mechanisms SES offers".into(),
                "put `plain, login` in front of what stands there, which the logins of other relays may need; it counts for them \
                 too: where that is not wanted, hand the endpoint's mail to a service of its own"
                    .into(),
            );
        }
        if !settings.yes("smtp_sasl_auth_soft_bounce") {
            tell(
                Severity::Warning,
                "smtp_sasl_auth_soft_bounce",
                "smtp_sasl_auth_soft_bounce = no: mail bounces, instead of waiting, when a login is refused with 535"
                    .into(),
                set("smtp_sasl_auth_soft_bounce", "yes"),
            );
        }
        if !settings.get("smtp_sasl_auth_cache_name").is_empty() {
            tell(
                Severity::Warning,
                "smtp_sasl_auth_cache_name",
                format!(
                    "smtp_sasl_auth_cache_name is set: after one refusal this host does not try that login again \
                     for {}",
                    settings.get("smtp_sasl_auth_cache_time")
                ),
                set("smtp_sasl_auth_cache_name", ""),
            );
        }
        if settings.yes("smtp_cname_overrides_servername") {
            tell(
                Severity::Warning,
                "smtp_cname_overrides_servername",
                "smtp_cname_overrides_servername = yes: Postfix looks for a login under the name that a CNAME \
                 leads to, which is not looked at"
                    .into(),
                "with smtp_cname_overrides_servername = no it looks under the name that the route has; before that, see that the \
                 table has a line under that name for every relay: a login that is not found is not used, and mail bounces"
                    .into(),
            );
        }
        problems.extend(self.review_plug_ins(service));
        let bundle = settings.get("smtp_tls_CAfile");
        let has_tls = levels.iter().any(|level| !matches!(level.as_str(), "" | "none"));
        if has_tls && bundle.starts_with('/') && !Path::new(bundle).exists() {
            problems.push(Problem::warning(
                Some(self.file_of(service, "smtp_tls_CAfile")),
                format!("smtp_tls_CAfile names {bundle:?}, which is not there: TLS is not available, and mail waits in the queue"),
                format!(
                    "name the bundle of this system, as in: {}",
                    self.set(service, "smtp_tls_CAfile", "/etc/ssl/certs/ca-certificates.crt")
                ),
            ));
        }
        problems
    }

    /// What the next hops of a service are.
    fn review_hops(&self, service: &Service, own: &[&NextHop]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for hop in own {
            let (parameter, spelt) = (hop.origin.parameter(), shown::hop(&hop.spelt));
            if matches!(port_part(&hop.spelt), Some("465" | "smtps" | "submissions" | "2465"))
                && !service.settings.yes("smtp_tls_wrappermode")
            {
                let who = match service.overridden.contains("smtp_tls_wrappermode") {
                    true => format!("the service {}", service.name),
                    false => "this instance".to_owned(),
                };
                problems.push(Problem::warning(
                    Some(self.file_of(service, "smtp_tls_wrappermode")),
                    format!(
                        "{parameter} {spelt} names a port for TLS from the first byte, and smtp_tls_wrappermode is no"
                    ),
                    format!(
                        "smtp_tls_wrappermode = yes counts for everything that {who} delivers. If that goes to such ports alone: {}; \
                         else give this next hop a service of its own in master.cf, with -o smtp_tls_wrappermode=yes, or name port \
                         587; that changes where mail goes, so it is yours to decide",
                        self.set(service, "smtp_tls_wrappermode", "yes")
                    ),
                ));
            }
            if !hop.is_bracketed() {
                let bracketed = with_brackets(hop);
                problems.push(Problem::warning(
                    Some(self.config_dir.join("main.cf")),
                    format!(
                        "{parameter} {spelt} is without brackets: Postfix looks up its MX hosts, and looks for a \
                         login under their names first"
                    ),
                    format!(
                        "nothing, where mail goes out and its MX hosts are meant. As {bracketed} it would be handed to that very \
                         host, with the login that stands under that spelling or the bare name: a line for it has to be in the \
                         table first, with the same login. That changes where mail goes, so it is yours to decide"
                    ),
                ));
            }
        }
        problems
    }

    /// Of a text that smtp(8) reads itself: it does not open one with a key that is there twice, which `postmap` only warns of.
    pub(super) fn key_twice(&self, store: &Store, table: &Table) -> Option<Problem> {
        let repeats = if store.kind == Kind::Texthash { table.all_repeats() } else { Vec::new() };
        let (first, repeat) = *repeats.first()?;
        let (first, repeat) = (table.entry(first), table.entry(repeat));
        let same = |(first, repeat): &(usize, usize)| {
            let is_same = table.entry(*first).value_bytes() == table.entry(*repeat).value_bytes();
            table.only_line(*repeat).filter(|_| is_same)
        };
        // A line that is there again word for word says nothing; which of two logins is right is no command's to decide.
        let lines: Option<Vec<usize>> = repeats.iter().map(same).collect();
        let (dir, file) = (self.config_dir.display(), quoted(&store.text));
        let command = lines.filter(|lines| lines.len() <= MOST_LINES_OF_A_FIX).map(|lines| {
            let gone: Vec<String> = lines.iter().map(|line| format!("{line}d")).collect();
            format!("sed -i --follow-symlinks '{}' {file} && postfix -c {dir} reload", gone.join(";"))
        });
        let fix = command.clone().unwrap_or_else(|| {
            format!(
                "leave the key once, with the login that is right, and then: postfix -c {dir} reload; `postmap -q` finds the one on \
                 line {}",
                first.line
            )
        });
        let mut problem = Problem::error(
            Class::Ambiguous,
            Some(store.text.clone()),
            format!(
                "lines {} and {} have the same key, {}: Postfix does not open a texthash: table with a key twice, and from its next \
                 reload or restart on mail that needs a login of it waits",
                first.line,
                repeat.line,
                shown::quoted_key(&first.key, None)
            ),
            fix,
        );
        problem.finding.line = Some(repeat.line);
        problem.subject = Subject::Table;
        problem.steps = command
            .map(|command| {
                vec![
                    Instruction::Text(format!("take out what stands in {file} once more")),
                    Instruction::Command(command),
                ]
            })
            .unwrap_or_default();
        Some(problem)
    }

    /// Who else can read the files, and whether text and map belong together.
    /// `compiling`: `None` where the map could not be looked up, and what to do about that is said already.
    pub(super) fn review_files(
        &self,
        settings: &Settings,
        store: &Store,
        compiling: Option<&Compiling>,
    ) -> Vec<Problem> {
        let mut problems = review_generations(store);
        for file in [Some(&store.text), store.map.as_ref()].into_iter().flatten() {
            if fs::metadata(file).is_ok_and(|m| m.permissions().mode() & 0o004 != 0) {
                let name = quoted(&file.display().to_string());
                problems.push(Problem::warning(
                    Some(file.clone()),
                    "every local user can read the logins in it, and keep it from being changed with a lock".into(),
                    match Some(settings.get("mail_owner")).filter(|_| store.is_proxied || self.has_others(settings)) {
                        // proxymap(8), which may be another instance's, opens it with the rights of that user alone.
                        Some(owner) => {
                            format!("chgrp \"$(id -gn {})\" {name} && chmod o-r,g+r {name}", quoted(owner))
                        }
                        None => format!("chmod o-r {name}"),
                    },
                ));
            }
            problems.extend(fs::metadata(file).ok().and_then(|m| review_writers(settings, file, &m)));
        }
        problems.extend(proxymap::out_of_reach(settings, store));
        let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
        if let Some(map) = &store.map
            && let (Some(text), Some(compiled)) = (changed(&store.text), changed(map))
            && text > compiled + Duration::from_secs(1)
        {
            problems.push(Problem::warning(
                Some(store.text.clone()),
                "it is newer than its compiled map: whatever was edited in it goes live once it is compiled, as by the next rollover".into(),
                match compiling.map(Compiling::harm) {
                    Some(None) => format!("look at the edits, then: {}", self.compile_command(store)),
                    Some(Some(harm)) => format!("look at the edits. {}", not_by_hand(harm)),
                    None => "look at the edits".into(),
                },
            ));
        }
        problems
    }
}

/// Who could have written a table that root compiles, or its map, by the rule for what is obeyed. Postfix's own user may own
/// both: it can read them anyway, and some hosts have it so.
pub(super) fn review_writers(settings: &Settings, file: &Path, m: &fs::Metadata) -> Option<Problem> {
    let (mode, uid, shown) = (m.mode() & 0o7777, m.uid(), quoted(&file.display().to_string()));
    if mode & 0o002 != 0 {
        let mut problem = Problem::error(
            Class::Permissions,
            Some(file.to_owned()),
            format!(
                "it may be changed by every user of this host (mode {mode:04o}), and what stands in it decides which \
                     logins go where"
            ),
            format!("look at what stands in it, then: `chmod go-w {shown}`"),
        );
        problem.subject = Subject::Table;
        problem.steps = vec![
            Instruction::Text(format!("every user of this host may change {shown}: look at what stands in it, then")),
            Instruction::Command(format!("chmod go-w {shown}")),
        ];
        return Some(problem);
    }
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return None;
    }
    let name = trust::user_name(uid);
    if name.as_deref().is_some_and(|name| name == "postfix" || name == settings.get("mail_owner")) {
        return None;
    }
    let named = name.map(|name| format!(" ({name})")).unwrap_or_default();
    Some(Problem::warning(
        Some(file.to_owned()),
        format!("it belongs to user id {uid}{named}, who can change which logins go where"),
        format!("if that user is not meant to: chown root {shown}"),
    ))
}

/// Of a next hop that has a name of an endpoint, and no login: what it is, and what to do.
fn without_login(hop: &NextHop) -> (String, String) {
    let spelt = shown::hop(&hop.spelt);
    let what = format!(
        "{} hands mail to {spelt}, through the service {}, which has no login for it, and that a login is asked for at that port cannot \
         be told: that mail goes without a login",
        hop.origin.parameter(),
        hop.service
    );
    let fix = format!(
        "nothing, where it is taken by the address of this host; if it is to log in, give {spelt} a line in the login table, with the \
         login of this credential"
    );
    (what, fix)
}

/// Of a next hop that has the name of an endpoint and another port: which endpoint that is, and the ports.
fn other_port<'r>(hop: &NextHop, relay: &'r Relay) -> Option<(&'r Relay, OtherPort)> {
    let is_shown = shown::hop(&hop.spelt) != shown::NOT_SHOWN;
    let mut endpoints = relay.endpoints().filter(|_| is_shown && !hop.is_ours());
    endpoints.find_map(|relay| Some((relay, Endpoint::of(relay).other_port(&hop.host, port_part(&hop.spelt))?)))
}

impl OtherPort {
    /// The destination, as `endpoint_aliases` would have it.
    fn alias(&self) -> Alias {
        Alias { port: Some(self.there), ..self.ours.clone() }
    }

    fn what(&self, relay: &Relay) -> String {
        match self.is_alias {
            false => format!("its port is {}, and `port` is {}", self.there, relay.port),
            true => format!("its port is {}, and endpoint_aliases has {}", self.there, self.ours),
        }
    }

    fn fix(&self, relay: &Relay) -> String {
        let mend = match self.is_alias {
            false => format!(
                "if the server of this credential listens there, set port = {}, where endpoint = {:?} is set",
                self.there, relay.endpoint
            ),
            true => format!("if that port leads to the endpoint, add {} to endpoint_aliases", self.alias()),
        };
        format!(
            "{mend}; if another server does, this instance has no use for this credential, unless mail is to go elsewhere, which is \
             yours to decide: take the target out of the configuration"
        )
    }
}

/// What to do where `relayhost` does not lead to the endpoint. To change where mail goes is not advised.
pub(super) fn elsewhere(hop: &NextHop, relay: &Relay) -> String {
    let Relay { endpoint, port, .. } = relay;
    match shown::hop(&hop.host) {
        host if shown::hop(&hop.spelt) == shown::NOT_SHOWN => format!(
            "what stands there has not the form [HOST]:PORT, and may be a login; with [{endpoint}]:{port} there mail would go to \
             {endpoint}, so it is yours to decide{}",
            if host == shown::NOT_SHOWN { "" } else { "; a login belongs into the table, and not into main.cf" }
        ),
        host => format!(
            "if it is another name of the same server, add {host} to endpoint_aliases; if this credential is for the server that \
             mail goes to now, set endpoint = {host} under [credential.smtp]; else this instance has no use for this \
             credential: take the target out of the configuration"
        ),
    }
}

/// So many lines are taken out by one printed command.
const MOST_LINES_OF_A_FIX: usize = 20;

/// What `smtp_sasl_security_options` may exclude besides plaintext mechanisms (postconf(5)).
const OTHER_OPTIONS: &[&str] = &["noactive", "nodictionary", "noanonymous", "mutual_auth", "forward_secrecy"];

/// Does `smtp_sasl_mechanism_filter` let a mechanism pass? The first pattern that matches decides; a pattern that is a
/// file or table is taken to match.
pub(super) fn passes(filter: &[&str], mechanism: &str) -> bool {
    for pattern in filter {
        let (name, not) = pattern.strip_prefix('!').map_or((*pattern, false), |name| (name, true));
        if name.contains([':', '/']) || name.eq_ignore_ascii_case(mechanism) {
            return !not;
        }
    }
    filter.is_empty()
}

/// Something that is wrong, on its way to a finding or an error.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) class: Class,
    pub(super) subject: Subject,
    pub(super) finding: Finding,
    /// The same as the finding's fix, for who does it by hand; empty where the fix is words alone.
    pub(super) steps: Vec<Instruction>,
}

/// What a problem is about: who edits the table by hand can mend the table, and is told of each entry anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Settings of Postfix, or of the target.
    Setup,
    /// The table, or what surrounds it.
    Table,
    /// What an entry holds, or that there are two of it.
    Entry,
    /// What stands in the compiled map and not in the text: it is lost when the map is replaced.
    Map,
    /// Who could have written what is run and obeyed; never an error.
    Trust,
}

impl Problem {
    pub(super) fn new(severity: Severity, file: Option<PathBuf>, what: String, fix: String) -> Self {
        let finding = Finding { severity, line: None, file, what, fix };
        Self { class: Class::Config, subject: Subject::Setup, finding, steps: Vec::new() }
    }

    pub(super) fn error(class: Class, file: Option<PathBuf>, what: String, fix: String) -> Self {
        Self { class, ..Self::new(Severity::Error, file, what, fix) }
    }

    pub(super) fn warning(file: Option<PathBuf>, what: String, fix: String) -> Self {
        Self::new(Severity::Warning, file, what, fix)
    }

    pub(super) fn note(file: Option<PathBuf>, what: String, fix: String) -> Self {
        Self::new(Severity::Note, file, what, fix)
    }

    pub(super) fn of_table(e: Fault, file: &Path) -> Self {
        let mut problem = Self::error(e.class, Some(file.to_owned()), e.what, table::fix_for(&e.fix, file));
        problem.finding.line = e.line;
        problem.subject = Subject::Table;
        problem
    }

    pub(super) fn of(mut self, severity: Severity) -> Self {
        self.finding.severity = severity;
        self
    }

    pub(super) fn into_error(self) -> Fault {
        let Finding { line, file, what, fix, .. } = self.finding;
        Fault::new(self.class, what, fix).in_file(file).at_line(line)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::words;
    use super::*;

    #[test]
    fn mechanism_filters() {
        for (filter, plain) in [
            ("", true),
            ("plain, login", true),
            ("PLAIN", true),
            ("login", false),
            ("!plain, static:all", false),
            ("!gssapi, static:all", true),
            ("!gssapi", false),
            ("/etc/postfix/mechanisms", true),
        ] {
            assert_eq!(passes(&words(filter), "PLAIN"), plain, "{filter:?}");
        }
    }
}
