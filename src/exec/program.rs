//! The program itself: the verified file, its arguments and environment, and the exec. Shell.
//!
//! A binary is exec'ed by the descriptor that was looked at. A script goes by its path, since its interpreter opens it again.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{self, AccessFlags};

use super::launch::LaunchError;
use super::plan::LaunchPlan;

/// Longest first line of a script that is looked at to find its interpreter: what the kernel reads (execve(2)).
const SHEBANG_LEN_MAX: u64 = 256;

/// How often and how soon a program's file that is busy (ETXTBSY) is tried again. Whoever wrote it has closed it, but a child that
/// was forked meanwhile has its copy of the descriptor until it execs, which takes milliseconds.
const BUSY_TRIES: u32 = 100;
/// See [`BUSY_TRIES`].
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// How a program is called: put together before there is a child, which need not allocate for it then.
pub(crate) struct Invocation {
    /// The binary's path.
    path: CString,
    argv: Strings,
    env: Strings,
}

impl Invocation {
    /// As the plan says.
    pub(crate) fn of(plan: &LaunchPlan) -> Result<Self, LaunchError> {
        let path = plan.binary.as_os_str().as_bytes();
        let argv = match &plan.interpreter {
            Some(name) => arguments([name.as_bytes(), path], plan)?,
            None => arguments([plan.instance.service.as_str().as_bytes()], plan)?,
        };
        let path = text(path, || "the binary's path".to_owned())?;
        Ok(Self { path, argv: Strings::new(argv), env: Strings::new(environment(plan)?) })
    }
}

/// Texts as execve(2) takes them.
struct Strings {
    /// Points to the texts, and ends with a null.
    pointers: Vec<*const c_char>,
    _texts: Vec<CString>,
}

impl Strings {
    fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _texts: texts }
    }
}

/// The verified file, opened.
pub(crate) struct Binary {
    file: File,
    /// Whether its first line names an interpreter.
    pub(crate) is_script: bool,
}

impl Binary {
    /// That of the plan. To be called as the user that it runs as.
    pub(crate) fn open(plan: &LaunchPlan) -> Result<Self, LaunchError> {
        let file = open_binary(&plan.binary)?;
        let mut head = [0; 2];
        let is_script = file.read_at(&mut head, 0).is_ok_and(|len| len == 2) && &head == b"#!";
        Ok(Self { file, is_script })
    }
}

/// A program that is ready to be become.
pub(crate) struct Program<'a> {
    plan: &'a LaunchPlan,
    invocation: &'a Invocation,
    binary: &'a Binary,
    /// The path of the plan's interpreter, if it names one.
    interpreter: Option<CString>,
}

impl<'a> Program<'a> {
    /// Finds the interpreter of the plan. To be called as the user that it runs as.
    pub(crate) fn find(
        plan: &'a LaunchPlan,
        invocation: &'a Invocation,
        binary: &'a Binary,
    ) -> Result<Self, LaunchError> {
        let interpreter = plan.interpreter.as_ref().map(|name| find_interpreter(name, plan)).transpose()?;
        Ok(Self { plan, invocation, binary, interpreter })
    }

    /// The verified file.
    pub(crate) fn binary(&self) -> BorrowedFd<'_> {
        self.binary.file.as_fd()
    }

    /// What else must be executed for it to begin: the interpreter of the plan, or that of the script's first line; and where
    /// that is `env`, the one which it will look for.
    pub(crate) fn interpreters(&self) -> Vec<PathBuf> {
        if let Some(interpreter) = &self.interpreter {
            return vec![PathBuf::from(OsStr::from_bytes(interpreter.as_bytes()))];
        }
        if !self.binary.is_script {
            return Vec::new();
        }
        let mut words = first_line(&self.binary.file).into_iter();
        let Some(interpreter) = words.next().map(PathBuf::from) else { return Vec::new() };
        let is_env = interpreter.file_name() == Some(OsStr::new("env"));
        let looked_for = words.filter(|_| is_env).find(|word| !word.as_bytes().starts_with(b"-"));
        let found = looked_for.and_then(|name| find_in_path(name.to_str()?, self.plan));
        [interpreter].into_iter().chain(found).collect()
    }

    /// Becomes it; returns only when that has failed. A file that is busy is tried again, if it `may_wait`.
    pub(crate) fn begin(self, may_wait: bool) -> Result<Infallible, LaunchError> {
        let tries = if may_wait { BUSY_TRIES } else { 1 };
        let errno = exec_unless_busy(tries, || self.exec());
        let path = self.plan.binary.clone();
        Err(match (errno, &self.plan.interpreter) {
            (Errno::EACCES, _) if self.plan.confinement.landlock.is_some() => LaunchError::RunRestricted { path },
            (errno, Some(name)) => LaunchError::RunInterpreter { name: name.clone(), cause: errno.into() },
            (Errno::ENOEXEC, None) => LaunchError::Format(path),
            (Errno::ENOENT, None) if self.binary.is_script => {
                let interpreter = first_line(&self.binary.file).into_iter().next().unwrap_or_default();
                LaunchError::NoShebang { interpreter: interpreter.to_string_lossy().into_owned(), path }
            }
            (errno, None) => LaunchError::Run { path, cause: errno.into() },
        })
    }

    /// Comes back only with the reason why it could not. Allocates nothing: what this process holds at an exec is given back by nobody
    /// where it has borrowed its memory.
    fn exec(&self) -> Errno {
        let Invocation { path, argv, env } = self.invocation;
        let (argv, env) = (argv.pointers.as_ptr(), env.pointers.as_ptr());
        let path = self.interpreter.as_ref().unwrap_or(path);
        // SAFETY: both lists end with a null and point to texts that end with a zero; the invocation owns all of them.
        unsafe {
            if self.interpreter.is_none() && !self.binary.is_script {
                libc::fexecve(self.binary.file.as_raw_fd(), argv, env);
            } else {
                libc::execve(path.as_ptr(), argv, env);
            }
        }
        Errno::last()
    }
}

/// Execs, and returns only why it could not.
fn exec_unless_busy(tries_max: u32, exec: impl Fn() -> Errno) -> Errno {
    let mut tries = 0;
    loop {
        let errno = exec();
        tries += 1;
        if errno != Errno::ETXTBSY || tries >= tries_max {
            return errno;
        }
        std::thread::sleep(BUSY_PAUSE);
    }
}

/// Opens the verified binary and makes sure that it is a file which nobody else can have changed.
fn open_binary(path: &Path) -> Result<File, LaunchError> {
    let failed = |e: io::Error| LaunchError::OpenBinary { path: path.to_owned(), cause: e.into() };
    // Not blocking, so that a pipe in the binary's place is refused instead of waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(LaunchError::NotRegular(path.to_owned()));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(LaunchError::WritableByOthers { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    Ok(file)
}

/// The interpreter's path: as written when it has a slash, else the first program of that name in the plan's PATH.
fn find_interpreter(name: &str, plan: &LaunchPlan) -> Result<CString, LaunchError> {
    let what = || "the interpreter".to_owned();
    if name.contains('/') {
        return text(name.as_bytes(), what);
    }
    match find_in_path(name, plan) {
        Some(path) => text(path.as_os_str().as_bytes(), what),
        None => Err(LaunchError::NoInterpreter { name: name.to_owned(), search: search_path(plan).to_owned() }),
    }
}

/// The first program of that name in the plan's PATH. Empty entries, which a shell takes for the working directory, are passed
/// over.
fn find_in_path(name: &str, plan: &LaunchPlan) -> Option<PathBuf> {
    let folders = search_path(plan).split(':').filter(|folder| !folder.is_empty());
    folders.map(|folder| Path::new(folder).join(name)).find(|path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) && unistd::access(path, AccessFlags::X_OK).is_ok()
    })
}

fn search_path(plan: &LaunchPlan) -> &str {
    plan.env.iter().find(|(key, _)| key == "PATH").map_or("", |(_, value)| value)
}

fn arguments<const N: usize>(first: [&[u8]; N], plan: &LaunchPlan) -> Result<Vec<CString>, LaunchError> {
    let all = first.into_iter().chain(plan.args.iter().map(String::as_bytes));
    all.enumerate().map(|(i, argument)| text(argument, || format!("argument {i}"))).collect()
}

fn environment(plan: &LaunchPlan) -> Result<Vec<CString>, LaunchError> {
    plan.env
        .iter()
        .map(|(name, value)| text(format!("{name}={value}").as_bytes(), || format!("the variable `{name}`")))
        .collect()
}

fn text(bytes: &[u8], what: impl FnOnce() -> String) -> Result<CString, LaunchError> {
    CString::new(bytes).map_err(|_| LaunchError::ZeroByte { what: what() })
}

/// The words of a script's first line, of which the first is its interpreter.
fn first_line(script: &File) -> Vec<OsString> {
    let mut line = vec![0; usize::try_from(SHEBANG_LEN_MAX).unwrap_or(usize::MAX)];
    // What cannot be read any more is left out: exec will say so better.
    let len = script.read_at(&mut line, 0).unwrap_or(0);
    line.truncate(len);
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = line.strip_prefix(b"#!").unwrap_or(line).split(u8::is_ascii_whitespace);
    words.filter(|word| !word.is_empty()).map(|word| OsString::from_vec(word.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_script_names_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        fs::write(&path, "#! /opt/none/python3 -u\nprint(1)\n").unwrap();
        assert_eq!(first_line(&File::open(&path).unwrap()), ["/opt/none/python3", "-u"]);
    }

    #[test]
    fn only_a_regular_file_that_others_cannot_write_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        assert!(matches!(open_binary(&path), Err(LaunchError::OpenBinary { .. })));
        assert!(matches!(open_binary(dir.path()), Err(LaunchError::NotRegular(_))));
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o757)).unwrap();
        assert!(matches!(open_binary(&path), Err(LaunchError::WritableByOthers { mode: 0o757, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
        assert!(open_binary(&path).is_ok());
        let pipe = dir.path().join("pipe");
        unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert!(matches!(open_binary(&pipe), Err(LaunchError::NotRegular(_))));
    }
}
