//! What is behind `proxy:`: proxymap(8) opens it, as Postfix's own user, if it is listed for it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::review::Problem;
use super::settings::{Settings, Setup};
use super::tables::{Store, in_braces};
use crate::fault::Class;
use crate::host::trust::{self, quoted};
use crate::mta::shown;

/// Without `proxy:`, however often that stands there.
pub(super) fn unproxied(map: &str) -> &str {
    map.strip_prefix("proxy:").map_or(map, unproxied)
}

/// The group that reads the files of a table where they are new; `None`: nobody but their owner does.
pub(super) fn group(settings: &Settings, store: &Store) -> Option<u32> {
    trust::user_group(settings.get("mail_owner")).filter(|_| store.is_proxied)
}

/// The tables of services that log in which proxymap(8) does not open: who asks it ends at once.
pub(super) fn not_opened(setup: &Setup, config_dir: &Path) -> Vec<Problem> {
    let open = |listed: &str| listed.strip_prefix("proxy:").map(|inner| unproxied(inner).to_owned());
    let allowed: Option<Vec<String>> = setup.proxymap.as_ref().map(|settings| {
        let listed = settings.list("proxy_read_maps").into_iter().map(|word| in_braces(word).unwrap_or(word).trim());
        listed.filter_map(open).collect()
    });
    let mut problems: Vec<Problem> = Vec::new();
    for service in setup.services.iter().filter(|service| service.logs_in()) {
        for spelt in service.tables().into_iter().filter(|spelt| spelt.starts_with("proxy:")) {
            let is_allowed = |allowed: &Vec<String>| allowed.iter().any(|name| name == unproxied(spelt));
            if allowed.as_ref().is_some_and(is_allowed) {
                continue;
            }
            let table = shown::table(spelt);
            let (file, what, fix) = match allowed {
                Some(_) => (
                    "main.cf",
                    format!("proxy_read_maps does not list {table}"),
                    format!(
                        "add {table} to proxy_read_maps, where proxymap(8) may read it; or take proxy: away from it"
                    ),
                ),
                None => (
                    "master.cf",
                    format!("there is no service proxymap for {table}"),
                    "put the service proxymap back, as Postfix comes with it; or take proxy: away from the table"
                        .to_owned(),
                ),
            };
            let what = format!(
                "{what}: the service {} does not get at its logins (\"fatal: proxymap service is not configured for table\"), and all \
                 its mail waits in the queue",
                service.name
            );
            problems.push(Problem::error(Class::Config, Some(config_dir.join(file)), what, fix));
        }
    }
    problems
}

/// A file that Postfix's own user, with no group but its own, cannot read. An ACL may let it in.
pub(super) fn out_of_reach(settings: &Settings, store: &Store) -> Option<Problem> {
    let owner = Some(settings.get("mail_owner")).filter(|_| store.is_proxied)?;
    let (uid, gid) = (trust::user_id(owner).ok()??, trust::user_group(owner)?);
    let file = store.read_by_postfix();
    let m = fs::metadata(file).ok()?;
    let bits = match (m.uid() == uid, m.gid() == gid) {
        (true, _) => 0o400,
        (false, true) => 0o040,
        (false, false) => 0o004,
    };
    if m.mode() & bits != 0 || trust::has_acl(file) {
        return None;
    }
    let (mode, path) = (m.mode() & 0o7777, quoted(&file.display().to_string()));
    Some(Problem::warning(
        Some(file.to_owned()),
        format!("proxymap(8), which runs as {owner}, cannot read it (mode {mode:04o}), so mail waits in the queue"),
        // Its own user is let in by its group: whose file it is stays as it is.
        format!(
            "chgrp {gid} {path} && chmod g+r {path} && postfix -c {} reload",
            quoted(settings.get("config_directory"))
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::services::Service;
    use super::*;

    #[test]
    fn what_is_not_listed_is_not_opened() {
        // proxy_read_maps, smtp_sasl_password_maps, and whether that is opened.
        for (listed, maps, is_opened) in [
            ("proxy:hash:/t", "proxy:hash:/t", true),
            ("proxy:lmdb:/a, proxy:hash:t", "proxy:hash:t", true),
            ("proxy:proxy:hash:/t", "proxy:hash:/t", true),
            ("{proxy:hash:/t}", "proxy:proxy:hash:/t", true),
            ("", "proxy:hash:/t", false),
            ("hash:/t", "proxy:hash:/t", false),
            ("proxy:lmdb:/t proxy:hash:/t2", "proxy:hash:/t", false),
            // As it is spelt, and not what it leads to.
            ("proxy:hash:/var/spool/postfix/t", "proxy:hash:t", false),
            ("proxy:hash:/t", "hash:/t proxy:mysql:/m.cf", false),
            ("", "hash:/t", true),
        ] {
            let main = Settings::parse(&format!("smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = {maps}\n"));
            let service = Service { name: "smtp".into(), settings: main.clone(), overridden: Default::default() };
            let proxymap = Some(Settings::parse(&format!("proxy_read_maps = {listed}\n")));
            let setup = Setup { main, services: vec![service], proxymap, ..Setup::default() };
            let found = not_opened(&setup, Path::new("/etc/postfix"));
            assert_eq!(found.is_empty(), is_opened, "{listed} {maps}");
            // And without the service nothing is.
            let without = not_opened(&Setup { proxymap: None, ..setup }, Path::new("/etc/postfix"));
            assert_eq!(without.is_empty(), !maps.contains("proxy:"), "{maps}");
        }
    }
}
