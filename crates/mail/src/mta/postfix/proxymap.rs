//! What is behind `proxy:`: proxymap(8) opens it, as Postfix's own user, if it is listed for it.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::master::MasterEntry;
use super::review::Problem;
use super::settings::{Settings, Setup};
use super::tables::{Kind, Store, in_braces};
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

/// Its entry of master.cf (`listed`).
pub(super) fn entry(main: &Settings, listed: &str) -> Option<MasterEntry> {
    let name = Some(main.get("proxymap_service_name")).filter(|name| !name.is_empty()).unwrap_or("proxymap");
    let mut entries = listed.lines().filter_map(MasterEntry::parse);
    entries.find(|entry| entry.is_local() && entry.program == "proxymap" && entry.name == name)
}

/// Does it open tables below the queue directory, where those of that name need not be these?
pub(super) fn is_in_jail(main: &Settings, listed: &str) -> bool {
    entry(main, listed).is_some_and(|entry| entry.is_in_jail(main))
}

/// The tables of services that log in which proxymap(8) has another file of than we: it opens them in its jail. A directory that is
/// there as well as here, by a bind mount, has one file for both.
pub(super) fn in_its_jail(setup: &Setup, config_dir: &Path) -> Vec<Problem> {
    let queue = Path::new(setup.main.get("queue_directory"));
    let is_elsewhere = |spelt: &str| {
        let Some((kind, path)) = unproxied(spelt).split_once(':') else { return false };
        let id = |file: PathBuf| {
            let directory = fs::metadata(file.parent()?).ok()?;
            Some((directory.dev(), directory.ino()))
        };
        let (here, there) = (id(queue.join(path)), id(queue.join(path.trim_start_matches('/'))));
        Kind::new(kind).is_some() && (here.is_none() || here != there)
    };
    let proxied = setup.services.iter().filter(|service| setup.proxymap_in_jail && service.logs_in());
    let proxied = proxied.flat_map(|service| service.tables()).filter(|spelt| spelt.starts_with("proxy:"));
    let problem = |spelt: &str| {
        let what = format!(
            "proxymap(8) runs with {} for its root directory, as the column chroot of master.cf has it, and opens there what {} names: \
             another file than is found here, which relaykey does not write",
            queue.display(),
            shown::table(spelt)
        );
        let fix = "let proxymap see what is here, as Postfix comes with it: n in its column chroot, once the table here has the login \
                   that is in use; or take proxy: away from the table";
        Problem::error(Class::Unsupported, Some(config_dir.join("master.cf")), what, fix.into())
    };
    proxied.filter(|spelt| is_elsewhere(spelt)).map(problem).collect()
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

/// A file that Postfix's own user, with no group but its own, cannot read, or a directory on the way to it. An ACL may let it in.
pub(super) fn out_of_reach(settings: &Settings, store: &Store) -> Option<Problem> {
    let owner = Some(settings.get("mail_owner")).filter(|_| store.is_proxied)?;
    let (uid, gid) = (trust::user_id(owner).ok()??, trust::user_group(owner)?);
    let file = store.read_by_postfix();
    let m = fs::metadata(file).ok()?;
    let is_kept_out = |at: &Path, m: &Metadata, bit: u32| {
        let shift = match (m.uid() == uid, m.gid() == gid) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        m.mode() & (bit << shift) == 0 && !trust::has_acl(at)
    };
    let closed = file.ancestors().skip(1).find_map(|directory| {
        let m = fs::metadata(directory).ok()?;
        is_kept_out(directory, &m, 1).then(|| (directory.to_owned(), m.mode() & 0o7777))
    });
    if let Some((directory, mode)) = closed {
        let path = quoted(&directory.display().to_string());
        return Some(Problem::warning(
            Some(directory),
            format!(
                "proxymap(8), which runs as {owner}, does not get through this directory (mode {mode:04o}) to {}, so mail waits in the \
                 queue",
                file.display()
            ),
            // Who else is kept out by it is not known here.
            format!(
                "put the table where {owner} gets to it, as into {}, and name it there; or, if nothing else is kept from others by \
                 this directory, let its group through: chgrp {gid} {path} && chmod g+x {path}; then reload Postfix",
                settings.get("config_directory")
            ),
        ));
    }
    if !is_kept_out(file, &m, 4) {
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
    fn another_file_in_its_jail() {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().display().to_string();
        fs::create_dir_all(dir.path().join("tables")).unwrap();
        for (entry, level, maps, is_other) in [
            ("proxymap unix - - y - - proxymap", "3.6", "proxy:hash:/etc/t", true),
            ("proxymap unix - - - - - proxymap", "0", "proxy:hash:/etc/t", true),
            ("proxymap unix - - - - - proxymap", "3.6", "proxy:hash:/etc/t", false),
            ("proxymap unix - - n - - proxymap", "0", "proxy:hash:/etc/t", false),
            ("other unix - - y - - proxymap", "3.6", "proxy:hash:/etc/t", false),
            ("proxymap unix - - y - - proxymap", "3.6", "hash:/etc/t", false),
            ("proxymap unix - - y - - proxymap", "3.6", "proxy:mysql:/etc/t", false),
            // It is below the queue directory for both.
            ("proxymap unix - - y - - proxymap", "3.6", "proxy:hash:tables/t", false),
        ] {
            let main = Settings::parse(&format!(
                "queue_directory = {queue}\ncompatibility_level = {level}\nsmtp_sasl_auth_enable = yes\n\
                 smtp_sasl_password_maps = {maps}\n"
            ));
            let service = Service { name: "smtp".into(), settings: main.clone(), overridden: Default::default() };
            let proxymap_in_jail = is_in_jail(&main, entry);
            let setup = Setup { main, services: vec![service], proxymap_in_jail, ..Setup::default() };
            let found = in_its_jail(&setup, Path::new("/etc/postfix"));
            assert_eq!(!found.is_empty(), is_other, "{entry} {level} {maps}");
        }
    }

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
