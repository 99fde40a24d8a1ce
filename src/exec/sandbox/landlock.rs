//! What a program may reach, landlock(7). Shell; `groups` says what the groups of a specification are, `rights` what its modes
//! mean and which version of the kernel's interface has what (pure).
//!
//! All rights that the kernel knows are taken away, and given back by rules: to the working directory (everything but to execute,
//! so that a program which was made to write a file cannot run it; `paths: [{path: ., modes: x}]` allows that), to the program
//! and its interpreter, to the groups and paths that were asked for. Rules hold on to the files themselves and not to their names:
//! one that is replaced later is another file, and has a rule only if its folder has one.
//!
//! *Nothing is left out in silence.* What a specification names and the kernel cannot do fails the start; what comes with every
//! ruleset and an older kernel lacks is told in [`Enforced`], and fails the start where `require: strict` says so.

mod groups;
mod rights;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreated, RulesetError, Scope};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};

use crate::confinement::{Enforced, Landlock, Modes};
use crate::exec::cause::Cause;

use rights::Lack;

/// Asks for the version of the interface instead of a ruleset, landlock_create_ruleset(2).
const CREATE_RULESET_VERSION: u32 = 1;

/// The newest version that narun knows the rights of.
const ABI_NEWEST: u32 = 9;

/// Why a program cannot be restricted as asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LandlockError {
    #[error("cannot restrict the program by Landlock: {0}")]
    Unavailable(&'static str),
    #[error("cannot restrict the program by Landlock as asked for: {}{HINT}", lines(.0))]
    Lacking(Vec<Lack>),
    #[error("cannot open `{}` to the program by Landlock: {cause}", path.display())]
    Path { path: PathBuf, cause: Cause },
    #[error("cannot open `{}` to the program by Landlock without waiting for its file system", .0.display())]
    NotAtHand(PathBuf),
    #[error("cannot see what is opened to the program by Landlock: {0}")]
    Look(Cause),
    #[error("cannot open `{}` to the program by Landlock: it leads out of the working directory", .0.display())]
    Outside(PathBuf),
    #[error(
        "cannot open `{}` to the program by Landlock: it is a file, and mode `c` says what may be made in a directory",
        .0.display()
    )]
    NotDirectory(PathBuf),
    #[error("cannot restrict the program by Landlock: {0}")]
    Ruleset(#[from] RulesetError),
    #[error("cannot add a rule of Landlock: {0}")]
    Rule(Cause),
    #[error("cannot restrict the program by Landlock: {0}")]
    Restrict(Cause),
    #[error("cannot restrict the program by Landlock: the kernel enforces a part of the rules only")]
    InPart,
}

/// What to do about that.
const HINT: &str =
    "\nhint: a newer kernel has it; `enforce: best-effort` goes without, and says so in `narun service info`";

fn lines(lacks: &[Lack]) -> String {
    lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What a program is to be restricted to.
pub(crate) struct Asked<'a> {
    /// The rules of its specification.
    pub(crate) landlock: &'a Landlock,
    /// Whether anything that the kernel lacks fails the start.
    pub(crate) is_strict: bool,
    /// Whether what cannot be applied is left out and told.
    pub(crate) is_best_effort: bool,
    /// Its working directory, which this process is in.
    pub(crate) work_dir: &'a Path,
    /// Its own file.
    pub(crate) binary: BorrowedFd<'a>,
    /// What else has to be executed for it to begin.
    pub(crate) interpreters: &'a [PathBuf],
    /// Whether a file system may take its time to find a path. If not, one that it would have to look up fails all of it.
    pub(crate) may_wait: bool,
}

/// Restricts this process, and all that it becomes and forks, for good. No new privileges must be taken already. What is and
/// what is not enforced goes into `enforced`.
pub(crate) fn restrict(asked: &Asked<'_>, enforced: &mut Enforced) -> Result<(), LandlockError> {
    let version = match version() {
        Ok(version) => version.min(ABI_NEWEST),
        Err(error) if asked.is_best_effort && !asked.is_strict => {
            enforced.missing.push(error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let lacks = rights::lacking(asked.landlock, version);
    let fatal = |lack: &Lack| asked.is_strict || (lack.is_named && !asked.is_best_effort);
    if lacks.iter().any(fatal) {
        return Err(LandlockError::Lacking(lacks.into_iter().filter(fatal).collect()));
    }
    let abi = ABI::from(i32::try_from(version).unwrap_or(i32::MAX));
    let ruleset: Option<OwnedFd> = ruleset(asked.landlock, abi)?.into();
    let rules = Rules { ruleset: ruleset.ok_or(LandlockError::InPart)?, abi };
    for missing in rules.add_all(asked)? {
        enforced.missing.push(missing.to_string());
    }
    rules.restrict_self()?;
    enforced.missing.extend(lacks.iter().map(ToString::to_string));
    enforced.landlock_abi = Some(version);
    Ok(())
}

/// The version of the interface that this kernel has.
fn version() -> Result<u32, LandlockError> {
    // SAFETY: with this flag nothing is made, and nothing is read.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, CREATE_RULESET_VERSION)
    };
    match Errno::result(version) {
        Ok(version) => Ok(u32::try_from(version).unwrap_or_default()),
        Err(Errno::EOPNOTSUPP) => {
            Err(LandlockError::Unavailable("it is switched off on this host (`lsm=` among the kernel's parameters)"))
        }
        Err(_) => Err(LandlockError::Unavailable("this kernel does not have it")),
    }
}

/// All that is taken away.
fn ruleset(landlock: &Landlock, abi: ABI) -> Result<RulesetCreated, LandlockError> {
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi))?;
    let mut ports = BitFlags::<AccessNet>::EMPTY;
    if landlock.bind_ports.is_some() {
        ports |= AccessNet::BindTcp;
    }
    if landlock.connect_ports.is_some() {
        ports |= AccessNet::ConnectTcp;
    }
    ports &= AccessNet::from_all(abi);
    if !ports.is_empty() {
        ruleset = ruleset.handle_access(ports)?;
    }
    let mut scopes = BitFlags::<Scope>::EMPTY;
    if landlock.scope_signals {
        scopes |= Scope::Signal;
    }
    if landlock.scope_abstract_sockets {
        scopes |= Scope::AbstractUnixSocket;
    }
    scopes &= Scope::from_all(abi);
    if !scopes.is_empty() {
        ruleset = ruleset.scope(scopes)?;
    }
    Ok(ruleset.create()?)
}

/// The rules, as they are added.
struct Rules {
    ruleset: OwnedFd,
    abi: ABI,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    allowed_access: u64,
    port: u64,
}

/// The kinds of rules, `enum landlock_rule_type`.
const PATH_BENEATH: libc::c_int = 1;
const NET_PORT: libc::c_int = 2;

impl Rules {
    /// Adds all that was asked for; gives what was left out because that was allowed.
    fn add_all(&self, asked: &Asked<'_>) -> Result<Vec<LandlockError>, LandlockError> {
        const PROGRAM: Modes = Modes { read: true, write: false, execute: true, create: false };
        const WORK_DIR: Modes = Modes { read: true, write: true, execute: false, create: true };
        let mut left_out = Vec::new();
        self.add(asked.binary, PROGRAM)?;
        for path in asked.interpreters {
            // Exec says better than a rule could that there is none.
            if let Ok(file) = open(path) {
                self.add(file.as_fd(), PROGRAM)?;
            }
        }
        let work_dir = open(Path::new("."))?;
        self.add(work_dir.as_fd(), WORK_DIR)?;
        for group in &asked.landlock.groups {
            for (path, modes) in groups::paths(*group) {
                // A host has some of them, and no host all; what this user cannot even find is of no use to its program.
                match asked.open(Path::new(path)) {
                    Ok(file) => drop(self.add(file.as_fd(), modes)?),
                    Err(error @ LandlockError::NotAtHand(_)) => return Err(error),
                    Err(_) => {}
                }
            }
        }
        for rule in &asked.landlock.paths {
            let added = asked.named(&rule.path, &work_dir).and_then(|file| {
                if self.add(file.as_fd(), rule.modes)? {
                    Ok(())
                } else {
                    Err(LandlockError::NotDirectory(asked.work_dir.join(&rule.path)))
                }
            });
            match added {
                Err(error @ LandlockError::NotAtHand(_)) => return Err(error),
                Err(error) if asked.is_best_effort => left_out.push(error),
                added => added?,
            }
        }
        for (ports, access) in
            [(&asked.landlock.bind_ports, AccessNet::BindTcp), (&asked.landlock.connect_ports, AccessNet::ConnectTcp)]
        {
            if AccessNet::from_all(self.abi).contains(access) {
                for port in ports.iter().flatten() {
                    self.add_rule(
                        NET_PORT,
                        &NetPort { allowed_access: BitFlags::from(access).bits(), port: u64::from(*port) },
                    )?;
                }
            }
        }
        Ok(left_out)
    }

    /// Gives what the modes mean for this very file or directory; false when they mean nothing for it.
    fn add(&self, file: BorrowedFd<'_>, modes: Modes) -> Result<bool, LandlockError> {
        let metadata = fstat(file).map_err(|e| LandlockError::Look(e.into()))?;
        let is_dir = SFlag::from_bits_truncate(metadata.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        let access = rights::of(modes, is_dir) & AccessFs::from_all(self.abi);
        if access.is_empty() {
            return Ok(false);
        }
        self.add_rule(PATH_BENEATH, &PathBeneath { allowed_access: access.bits(), parent_fd: file.as_raw_fd() })?;
        Ok(true)
    }

    /// landlock_add_rule(2), of one of the two kinds above.
    fn add_rule<R>(&self, kind: libc::c_int, rule: &R) -> Result<(), LandlockError> {
        let ruleset = self.ruleset.as_raw_fd();
        // SAFETY: only reads the rule, which is as the kernel has it.
        let added = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, kind, &raw const *rule, 0u32) };
        Errno::result(added).map(drop).map_err(|e| LandlockError::Rule(e.into()))
    }

    /// landlock_restrict_self(2).
    fn restrict_self(self) -> Result<(), LandlockError> {
        // SAFETY: takes rights from this process alone.
        let restricted = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.ruleset.as_raw_fd(), 0u32) };
        Errno::result(restricted).map(drop).map_err(|e| LandlockError::Restrict(e.into()))
    }
}

impl Asked<'_> {
    /// Opens a path for a rule. The kernel's own file systems are asked as ever where nothing may wait: they hold no path ready, and
    /// wait for nobody.
    fn open(&self, path: &Path) -> Result<OwnedFd, LandlockError> {
        const OF_THE_KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];
        if self.may_wait || OF_THE_KERNEL.iter().any(|folder| path.starts_with(folder)) {
            return open(path);
        }
        open_by(AT_FDCWD, path, self.resolve()).map_err(|errno| refused(path, errno))
    }

    /// Opens a path of a specification. In the working directory an earlier run may have left a link to anywhere, so that no path
    /// is followed out of there (openat2(2)).
    fn named(&self, path: &str, work_dir: &OwnedFd) -> Result<OwnedFd, LandlockError> {
        let whole = self.work_dir.join(path);
        let Ok(beneath) = whole.strip_prefix(self.work_dir) else { return self.open(&whole) };
        let beneath = if beneath.as_os_str().is_empty() { Path::new(".") } else { beneath };
        let resolve = self.resolve() | ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        open_by(work_dir, beneath, resolve).map_err(|errno| match errno {
            Errno::EXDEV => LandlockError::Outside(whole.clone()),
            errno => refused(&whole, errno),
        })
    }

    /// Where nothing may wait, the kernel follows a path only as far as it remembers it.
    fn resolve(&self) -> ResolveFlag {
        /// From Linux 5.12 on, and so wherever there is Landlock; `EAGAIN` says that it would have to look it up.
        const RESOLVE_CACHED: ResolveFlag = ResolveFlag::from_bits_retain(0x20);
        if self.may_wait { ResolveFlag::empty() } else { RESOLVE_CACHED }
    }
}

/// Opens a path for a rule alone: nothing is read through it.
fn open(path: &Path) -> Result<OwnedFd, LandlockError> {
    let opened = File::options().read(true).custom_flags(libc::O_PATH).open(path);
    opened.map(OwnedFd::from).map_err(|e| LandlockError::Path { path: path.to_owned(), cause: e.into() })
}

/// The same by openat2(2).
fn open_by(folder: impl AsFd, path: &Path, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    openat2(folder, path, OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve))
}

fn refused(path: &Path, errno: Errno) -> LandlockError {
    match errno {
        Errno::EAGAIN => LandlockError::NotAtHand(path.to_owned()),
        errno => LandlockError::Path { path: path.to_owned(), cause: errno.into() },
    }
}
