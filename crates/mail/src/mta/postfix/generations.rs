//! Tables that something else makes anew: what is put in their place is gone with the next generation. NixOS's activation, tools
//! that decrypt secrets at it (sops-nix, agenix), Kubernetes's volumes of Secrets and ConfigMaps.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::review::{Problem, Subject};
use super::tables::Store;
use crate::fault::Class;

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;
const NIX_STORE: &str = "/nix/store";

/// Who makes a file anew.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Generator {
    /// The file is one of the Nix store.
    NixStore,
    /// A link leads to the directory of a number: `/run/secrets` to `secrets.d/1`.
    Numbered { link: PathBuf },
    /// The kubelet exchanges the link `..data`.
    Kubernetes { link: PathBuf },
}

/// What is to be said of a table that something else makes.
pub(super) fn review_generations(store: &Store) -> Vec<Problem> {
    let beside = store.kind.extension().map(|extension| super::tables::with_extension(&store.path, extension));
    let mut problems: Vec<Problem> = Vec::new();
    let mut known: Vec<Generator> = Vec::new();
    for path in std::iter::once(&store.path).chain(&beside) {
        if let Some(generation) = generation(path).filter(|generation| !known.contains(generation)) {
            problems.push(told(path, &generation));
            known.push(generation);
        }
    }
    problems
}

fn told(path: &Path, generation: &Generator) -> Problem {
    let file = Some(path.to_owned());
    let outside = "let smtp_sasl_password_maps name a table in a directory of its own, which relaykey keeps";
    let mut problem = match generation {
        Generator::NixStore => Problem::error(
            Class::Unsupported,
            file,
            format!("it lies in {NIX_STORE}, where nothing is ever changed, and what every user of this host can read"),
            format!("{outside}, as with services.postfix on NixOS: \"hash:/var/lib/relaykey-tables/sasl_passwd\""),
        ),
        Generator::Numbered { link } => Problem::warning(
            file,
            format!(
                "it lies behind {}, which the next activation points to a new generation: the login that its source holds is back \
                 then",
                link.display()
            ),
            format!(
                "put each new login into what the generations are made from, too (relaykey puts it back in place when it sees the old one), \
                 or {outside}"
            ),
        ),
        Generator::Kubernetes { link } => Problem::warning(
            file,
            format!(
                "it lies behind {}, as Kubernetes mounts a Secret: the kubelet exchanges all of it, and takes no change from here",
                link.display()
            ),
            format!(
                "have the container copy the table to a volume of its own at its start (an emptyDir), and {outside}; or change the \
                 Secret, and set write = false here"
            ),
        ),
    };
    problem.subject = Subject::Table;
    problem
}

/// By the links on the way to a file, and where it really is.
fn generation(path: &Path) -> Option<Generator> {
    let mut ahead: VecDeque<OsString> = words(path).collect();
    let (mut at, mut followed) = (PathBuf::from("/"), 0);
    while let Some(word) = ahead.pop_front() {
        if word == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&word);
        match fs::read_link(&next) {
            Ok(target) if followed < MOST_LINKS => {
                if let Some(found) = of_link(&next, &target) {
                    return Some(found);
                }
                followed += 1;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                words(&target).rev().for_each(|word| ahead.push_front(word));
            }
            _ => at = next,
        }
    }
    at.starts_with(NIX_STORE).then_some(Generator::NixStore)
}

fn words(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let words = path.components().filter_map(|part| match part {
        Component::Normal(word) => Some(word.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    words.collect::<Vec<_>>().into_iter()
}

/// What a link says by its name and by what it leads to.
fn of_link(link: &Path, target: &Path) -> Option<Generator> {
    if link.file_name() == Some(OsStr::new("..data")) {
        return Some(Generator::Kubernetes { link: link.to_owned() });
    }
    let text = |part: Option<&OsStr>| part.and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let number = text(target.file_name());
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let within = text(target.parent().and_then(Path::file_name));
    (is_number && within.ends_with(".d")).then(|| Generator::Numbered { link: link.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_say_what_is_made_anew() {
        let numbered = |link: &str| Some(Generator::Numbered { link: link.into() });
        for (link, target, expected) in [
            ("/run/secrets", "secrets.d/12", numbered("/run/secrets")),
            ("/run/agenix", "/run/agenix.d/3", numbered("/run/agenix")),
            ("/v/..data", "..2026_11_29_10_00_00.123", Some(Generator::Kubernetes { link: "/v/..data".into() })),
            ("/etc/postfix/sasl_passwd", "/srv/sasl_passwd", None),
            ("/etc/rc.d/1", "2", None),
            ("/srv/current", "releases/12", None),
        ] {
            assert_eq!(of_link(Path::new(link), Path::new(target)), expected, "{link} -> {target}");
        }
    }

    #[test]
    fn links_are_followed_to_the_file() {
        let base = std::env::temp_dir().join(format!("relaykey-generations-{}", std::process::id()));
        fs::create_dir_all(base.join("secrets.d/7")).unwrap();
        symlink("secrets.d/7", base.join("secrets")).unwrap();
        symlink(base.join("secrets"), base.join("etc")).unwrap();
        symlink("/nix/store/0-sasl/../0-passwd", base.join("of-the-store")).unwrap();
        let found = |name: &str| generation(&base.join(name));
        assert_eq!(found("etc/sasl_passwd"), Some(Generator::Numbered { link: base.join("secrets") }));
        assert_eq!(found("secrets.d/7/sasl_passwd"), None);
        assert_eq!(found("of-the-store"), Some(Generator::NixStore));
        assert_eq!(generation(Path::new("/nix/store/0-a/sasl_passwd")), Some(Generator::NixStore));
        fs::remove_dir_all(&base).unwrap();
    }
}
