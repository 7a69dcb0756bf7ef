//! Which files changed, by inotify on the directories that hold them.
//!
//! Never on the files themselves: whoever replaces a file by rename leaves a watch on the old one behind. A path is
//! followed as the kernel would, and every step counts that could lead it elsewhere: each symbolic link on the way (also
//! the `..data` link that Kubernetes exchanges), and, where the path ends early, the name that is missing. When a step
//! changes, the path is followed anew and new directories are watched.
//!
//! Two threads meet here. `notify`'s own reads the events and sorts them out; it must not add watches, since it is the one
//! that answers. A task of the run time does that, woken by the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::{Finding, Severity};

/// Symbolic links followed on one path, as the kernel's own limit.
const MAX_LINKS: usize = 40;
/// So often the paths are followed again at once because something moved while watches were added.
const MAX_ROUNDS: usize = 5;

/// Files cannot be watched, so only the clock, signals and operators wake the daemon.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel gave no inotify instance.
    #[error("files cannot be watched: {0}")]
    NoInotify(#[source] io::Error),
    /// This user has as many watches as are allowed.
    #[error("{} cannot be watched: this user has as many inotify watches as are allowed", .0.display())]
    TooMany(PathBuf),
    /// This directory cannot be watched.
    #[error("{} cannot be watched: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
}

impl WatchError {
    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            WatchError::NoInotify(e) if e.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                "raise the number of inotify instances: sysctl fs.inotify.max_user_instances=512, and in \
                 /etc/sysctl.d; until then changes are seen at the next poll"
            }
            WatchError::NoInotify(_) => {
                "see whether the kernel has inotify and a sandbox allows inotify_init1(2); until then changes are seen \
                 at the next poll"
            }
            WatchError::TooMany(_) => {
                "raise the number of watches: sysctl fs.inotify.max_user_watches=524288, and in /etc/sysctl.d; until \
                 then changes are seen at the next poll"
            }
            WatchError::Directory { .. } => {
                "let the daemon's user read the directory; until then changes are seen at the next poll"
            }
        }
        .to_owned()
    }

    /// The same as a finding.
    pub fn finding(&self) -> Finding {
        Finding { severity: Severity::Warning, line: None, file: None, what: self.to_string(), fix: self.fix() }
    }
}

/// Tells when files change. Dropped, it stops.
///
/// What counts: created, replaced, moved, removed, closed after writing, given another mode or owner, reached another
/// way. What does not: opened, read. One file that changes may be told several times.
pub struct Watch {
    watcher: Arc<Mutex<Armed>>,
    told: Arc<WatchShared>,
    task: JoinHandle<()>,
}

/// A file that grows, such as a log; from [`Watch::follow`]. Dropped, it is no longer watched.
#[derive(Debug)]
pub struct Growth(Arc<Notify>);

impl Growth {
    /// Waits until the file was written to or exchanged since the last time. Giving up loses nothing.
    pub async fn grown(&self) {
        self.0.notified().await;
    }
}

/// What the thread that reads events knows.
struct WatchShared {
    interest: Mutex<Interest>,
    /// Wakes the task that follows the paths anew.
    anew: Notify,
    on: Box<dyn Fn(&Path) + Send + Sync>,
}

#[derive(Default)]
struct Interest {
    /// Names that lead to somebody's file.
    names: HashMap<PathBuf, Vec<(Hearer, Leads)>>,
    /// Directories that are watched.
    directories: HashSet<PathBuf>,
    /// Of them, those that were moved or removed.
    broken: HashSet<PathBuf>,
    /// Events were lost.
    lost: bool,
}

#[derive(Clone)]
enum Hearer {
    /// Gets the path.
    File(Arc<Path>),
    /// Is only woken.
    Log(Weak<Notify>),
}

/// How a name leads to a file.
#[derive(Clone, Copy, PartialEq)]
enum Leads {
    /// It is the file's own.
    Itself,
    /// A link on the way, or a directory that is missing.
    OnTheWay,
}

/// The watches there are, and what they are for.
struct Armed {
    inotify: INotifyWatcher,
    directories: BTreeMap<PathBuf, (u64, u64)>,
    files: Vec<Followed>,
    logs: Vec<Followed>,
    troubles: Vec<WatchError>,
}

struct Followed {
    path: Arc<Path>,
    hearer: Hearer,
    trail: Option<Trail>,
}

/// How a path is followed: names that could lead elsewhere, and the directories with those names.
#[derive(Debug, Default, PartialEq)]
struct Trail {
    /// The last is where the path ends: the file, or the first that is missing.
    names: Vec<PathBuf>,
    /// By device and inode; another directory in the same place is another trail.
    directories: BTreeMap<PathBuf, (u64, u64)>,
    /// The path was followed to its end.
    complete: bool,
}

impl Watch {
    /// Watches these files, which need not exist; paths are absolute. `on` is told the path as it is given here, from any
    /// thread; it must not block. Look at the files after this: what happened before is not told.
    ///
    /// A directory that cannot be watched does not stop the others; see [`Watch::troubles`].
    ///
    /// # Errors
    /// There is no inotify to be had at all.
    ///
    /// # Panics
    /// Outside of a tokio run time.
    pub fn new(files: &[PathBuf], on: impl Fn(&Path) + Send + Sync + 'static) -> Result<Self, WatchError> {
        let told = Arc::new(WatchShared { interest: Mutex::default(), anew: Notify::new(), on: Box::new(on) });
        let reader = Arc::clone(&told);
        let inotify =
            INotifyWatcher::new(move |event| reader.event(event), notify::Config::default()).map_err(|e| {
                WatchError::NoInotify(match e.kind {
                    ErrorKind::Io(e) => e,
                    other => io::Error::other(format!("{other:?}")),
                })
            })?;
        let armed =
            Armed { inotify, directories: BTreeMap::new(), files: Vec::new(), logs: Vec::new(), troubles: Vec::new() };
        let watcher = Arc::new(Mutex::new(armed));
        let (again, telling) = (Arc::clone(&watcher), Arc::clone(&told));
        let task = tokio::spawn(async move {
            loop {
                telling.anew.notified().await;
                let (again, telling) = (Arc::clone(&again), Arc::clone(&telling));
                // A path may lead to a file system that hangs.
                let arming = tokio::task::spawn_blocking(move || {
                    let hearers = lock(&again).arm(&telling);
                    hearers.iter().for_each(|hearer| telling.tell(hearer));
                });
                let _ = arming.await;
            }
        });
        let watch = Self { watcher, told, task };
        watch.update(files);
        Ok(watch)
    }

    /// Watches these files from now on, and no others; logs stay. Files that stay are not told for that. Blocks for as long
    /// as a path leads to a file system that hangs.
    pub fn update(&self, files: &[PathBuf]) {
        let mut armed = lock(&self.watcher);
        let mut before = std::mem::take(&mut armed.files);
        let mut seen = HashSet::new();
        for path in files.iter().filter(|path| seen.insert(path.as_path())) {
            let stays = before.iter().position(|f| *f.path == **path).map(|at| before.swap_remove(at));
            let path: Arc<Path> = Arc::from(path.as_path());
            let hearer = Hearer::File(Arc::clone(&path));
            armed.files.push(stays.unwrap_or(Followed { path, hearer, trail: None }));
        }
        let hearers = armed.arm(&self.told);
        drop(armed);
        hearers.iter().for_each(|hearer| self.told.tell(hearer));
    }

    /// Watches a file that grows. Start to read it after this. Blocks as [`Watch::update`] does.
    pub fn follow(&self, path: &Path) -> Growth {
        let growth = Growth(Arc::new(Notify::new()));
        let hearer = Hearer::Log(Arc::downgrade(&growth.0));
        let mut armed = lock(&self.watcher);
        armed.logs.push(Followed { path: Arc::from(path), hearer, trail: None });
        let hearers = armed.arm(&self.told);
        drop(armed);
        hearers.iter().for_each(|hearer| self.told.tell(hearer));
        growth
    }

    /// Follows all paths anew, soon. To be called now and then, with each poll for instance: it finds what inotify does not
    /// tell, a directory further up that was exchanged, and tries again to watch what could not be watched.
    pub fn check(&self) {
        self.told.anew.notify_one();
    }

    /// What cannot be watched now, with what to do about it. Blocks as [`Watch::update`] does.
    pub fn troubles(&self) -> Vec<Finding> {
        lock(&self.watcher).troubles.iter().map(WatchError::finding).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let armed = lock(&self.watcher);
        f.debug_struct("Watch").field("directories", &armed.directories.keys()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WatchShared {
    /// One event, on the thread that reads them.
    fn event(&self, event: notify::Result<Event>) {
        #[derive(PartialEq)]
        enum What {
            Grown,
            Written,
            Touched,
            Replaced,
        }
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            // The queue ran over, or could not be read: anything may have changed.
            Ok(_) | Err(_) => {
                lock(&self.interest).lost = true;
                return self.anew.notify_one();
            }
        };
        let what = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => What::Written,
            // Our own reading is of no interest.
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => What::Grown,
            EventKind::Modify(ModifyKind::Metadata(_)) => What::Touched,
            // Its halves have been told.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            _ => What::Replaced,
        };
        let mut hearers = Vec::new();
        let mut anew = false;
        {
            let mut interest = lock(&self.interest);
            for path in &event.paths {
                if what == What::Replaced && interest.directories.contains(path) {
                    interest.broken.insert(path.clone());
                    anew = true;
                }
                let Some(concerned) = interest.names.get(path) else { continue };
                anew |= what == What::Replaced;
                for (hearer, leads) in concerned {
                    let hears = match hearer {
                        Hearer::File(_) => what != What::Grown,
                        Hearer::Log(_) => matches!(what, What::Grown | What::Replaced),
                    };
                    // Another way to the file is told when it has been followed.
                    if hears && *leads == Leads::Itself {
                        hearers.push(hearer.clone());
                    }
                }
            }
        }
        if anew {
            self.anew.notify_one();
        }
        hearers.iter().for_each(|hearer| self.tell(hearer));
    }

    fn tell(&self, hearer: &Hearer) {
        match hearer {
            Hearer::File(path) => (self.on)(path),
            Hearer::Log(woken) => {
                if let Some(woken) = woken.upgrade() {
                    woken.notify_one();
                }
            }
        }
    }
}

impl Armed {
    /// Follows every path and watches the directories it comes through. Gives those who must be told: their path leads
    /// elsewhere now, or events about it may have been lost.
    fn arm(&mut self, told: &WatchShared) -> Vec<Hearer> {
        self.logs.retain(|log| matches!(&log.hearer, Hearer::Log(woken) if woken.strong_count() > 0));
        let mut to_tell = Vec::new();
        for round in 1..=MAX_ROUNDS {
            let (broken, lost) = {
                let mut interest = lock(&told.interest);
                (std::mem::take(&mut interest.broken), std::mem::take(&mut interest.lost))
            };
            let mut names: HashMap<PathBuf, Vec<(Hearer, Leads)>> = HashMap::new();
            let mut directories = BTreeMap::new();
            for followed in self.files.iter_mut().chain(&mut self.logs) {
                let trail = Trail::of(&followed.path);
                for (at, name) in trail.names.iter().enumerate() {
                    let last = at + 1 == trail.names.len();
                    let leads = if last && trail.complete { Leads::Itself } else { Leads::OnTheWay };
                    names.entry(name.clone()).or_default().push((followed.hearer.clone(), leads));
                }
                directories.extend(trail.directories.iter().map(|(path, id)| (path.clone(), *id)));
                let again = lost || trail.directories.keys().any(|d| broken.contains(d));
                let new = followed.trail.is_none();
                if !new && (again || followed.trail.as_ref() != Some(&trail)) {
                    to_tell.push(followed.hearer.clone());
                }
                followed.trail = Some(trail);
            }
            {
                // Before the watches: an event that comes with the first of them must find its name.
                let mut interest = lock(&told.interest);
                interest.names = names;
                interest.directories = directories.keys().cloned().collect();
            }
            if !self.rewatch(directories, &broken, lost) {
                return to_tell;
            }
            if round == MAX_ROUNDS {
                // Somebody moves directories all the time; let others run, then go on.
                told.anew.notify_one();
            }
        }
        to_tell
    }

    /// Makes the watches those that are wanted. Were any added? Then what happened before that has to be looked for.
    fn rewatch(&mut self, wanted: BTreeMap<PathBuf, (u64, u64)>, broken: &HashSet<PathBuf>, lost: bool) -> bool {
        let stale: BTreeSet<PathBuf> = self
            .directories
            .iter()
            .filter(|(path, id)| lost || broken.contains(*path) || wanted.get(*path) != Some(*id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in &stale {
            // It may be gone already, with its directory.
            let _ = self.inotify.unwatch(path);
            self.directories.remove(path);
        }
        self.troubles.clear();
        let mut added = false;
        for (path, id) in wanted {
            if self.directories.contains_key(&path) {
                continue;
            }
            match self.inotify.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(path, id);
                    added = true;
                }
                // Moved away in this moment: followed anew.
                Err(e) if matches!(e.kind, ErrorKind::PathNotFound) => added = true,
                Err(e) => self.troubles.push(match e.kind {
                    ErrorKind::MaxFilesWatch => WatchError::TooMany(path),
                    ErrorKind::Io(e) => WatchError::Directory { path, reason: e.to_string() },
                    other => WatchError::Directory { path, reason: format!("{other:?}") },
                }),
            }
        }
        added
    }
}

impl Trail {
    /// Follows an absolute path, link by link (path_resolution(7)).
    fn of(path: &Path) -> Self {
        let mut trail = Trail::default();
        let mut at = PathBuf::from("/");
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        push_front(&mut ahead, path);
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let here = at.join(&name);
            let found = fs::symlink_metadata(&here);
            if found.as_ref().is_ok_and(|m| m.is_dir()) && !ahead.is_empty() {
                at = here;
                continue;
            }
            trail.step(&at, here.clone());
            if !found.is_ok_and(|m| m.is_symlink()) {
                // The file; or nothing, or no directory where one should be.
                trail.complete = ahead.is_empty();
                return trail;
            }
            links += 1;
            let Ok(target) = fs::read_link(&here) else { return trail };
            if links > MAX_LINKS {
                return trail;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            push_front(&mut ahead, &target);
        }
        trail
    }

    fn step(&mut self, directory: &Path, name: PathBuf) {
        if let Ok(m) = fs::metadata(directory) {
            self.directories.insert(directory.to_owned(), (m.dev(), m.ino()));
        }
        self.names.push(name);
    }
}

/// Puts the path's names before what is ahead; `/` and `.` are none.
fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_trail_has_every_name_that_could_lead_elsewhere() {
        let scratch = tempfile::Builder::new().prefix("relaykey-trail-").tempdir().unwrap();
        let base = scratch.path();
        fs::create_dir_all(base.join("real/one")).unwrap();
        let base = fs::canonicalize(base).unwrap();
        let put = |link: &str, target: &str| symlink(target, base.join(link)).unwrap();
        fs::write(base.join("real/one/table"), "").unwrap();
        put("real/..data", "one");
        put("real/table", "..data/table");
        put("etc", "real");
        put("loop", "loop");
        put("up", "real/../etc/one/./table");
        // Path, names relative to the base, followed to its end?
        let cases: [(&str, &[&str], bool); 8] = [
            ("real/one/table", &["real/one/table"], true),
            ("real/table", &["real/table", "real/..data", "real/one/table"], true),
            ("etc/table", &["etc", "real/table", "real/..data", "real/one/table"], true),
            ("up", &["up", "etc", "real/one/table"], true),
            ("real/new", &["real/new"], true),
            ("real/two/three/table", &["real/two"], false),
            ("real/one/table/below", &["real/one/table"], false),
            ("loop", &["loop"; MAX_LINKS + 1], false),
        ];
        for (path, names, complete) in cases {
            let trail = Trail::of(&base.join(path));
            let expected: Vec<PathBuf> = names.iter().map(|name| base.join(name)).collect();
            // The scratch directory itself may be reached through links.
            assert_eq!((trail.names, trail.complete), (expected, complete), "{path}");
        }
    }
}
