//! The launch plan: all that is needed to start one process, fully resolved. Pure.
//!
//! It crosses to the keeper as bytes and knows no specification: the keeper decides nothing and looks nothing up.

use std::path::PathBuf;

use crate::confinement::{Confinement, Enforced};
use crate::ids::{BlobHash, InstanceId, RunId};
use crate::time::{Mono, Wall};

/// One start of one instance.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LaunchPlan {
    /// Which instance.
    #[n(0)]
    pub instance: InstanceId,
    /// Which start of it.
    #[n(1)]
    pub run: RunId,
    /// Says which revisions of the specification this start satisfies; opaque to the keeper, handed back with the instance.
    #[n(2)]
    pub launch_hash: BlobHash,
    /// The verified binary, `bin/<hash>` under the data directory.
    #[n(3)]
    #[cbor(with = "path")]
    pub binary: PathBuf,
    /// The interpreter to run the binary with, as written; looked up in the PATH of `env` when it has no slash.
    #[n(4)]
    pub interpreter: Option<String>,
    /// What follows the binary on the command line.
    #[n(5)]
    pub args: Vec<String>,
    /// The whole environment, nothing else is passed on; names are unique.
    #[n(6)]
    pub env: Vec<(String, String)>,
    /// Private working directory; made (mode 0700) when it is not there.
    #[n(7)]
    #[cbor(with = "path")]
    pub work_dir: PathBuf,
    /// Folder of this instance's log segments; made when it is not there.
    #[n(8)]
    #[cbor(with = "path")]
    pub log_dir: PathBuf,
    /// Whether another node takes this instance over when this one is lost: then a keeper without its node stops it.
    #[n(9)]
    pub replaceable: bool,
    /// The revision number that asked for this start; for people.
    #[n(10)]
    pub revision: u32,
    /// What holds it.
    #[n(11)]
    #[cbor(default)]
    pub confinement: Confinement,
    /// The user that `confinement` names, as this host knows it. Put in by the process shell: names are looked up on the host.
    #[n(12)]
    pub identity: Option<Identity>,
    /// How it is asked to stop where no node says so.
    #[n(13)]
    #[cbor(default)]
    pub stop: Stop,
    /// Whether it is an attempt of a cron spec's run, which the ledger knows.
    #[n(14)]
    #[cbor(default)]
    pub is_job: bool,
    /// When it is killed, unless that is put off: the end of the lease that it runs under, by the host's boot clock.
    #[n(15)]
    pub lease_until: Option<Mono>,
}

impl LaunchPlan {
    /// Says who the user of its confinement is on this host. Where the environment has the user as it was written, it has its
    /// name then.
    pub fn take_identity(&mut self, identity: Identity) {
        let written = self.confinement.user.as_deref();
        let user = self.env.iter_mut().find(|(name, value)| name == "USER" && Some(value.as_str()) == written);
        if let Some((_, value)) = user {
            value.clone_from(&identity.name);
        }
        self.identity = Some(identity);
    }
}

/// A user of this host, passwd(5) and group(5).
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Identity {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its number.
    #[n(1)]
    pub uid: u32,
    /// Its primary group.
    #[n(2)]
    pub gid: u32,
    /// All its groups, the primary one too.
    #[n(3)]
    pub groups: Vec<u32>,
}

/// How a program is asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Stop {
    /// The signal's number, signal(7).
    #[n(0)]
    pub signal: i32,
    /// How long it has before its whole tree is killed, in milliseconds.
    #[n(1)]
    pub grace_ms: u64,
}

impl Default for Stop {
    /// SIGTERM and ten seconds: the default of specifications, of containers and of most supervisors.
    fn default() -> Self {
        Self { signal: 15, grace_ms: 10_000 }
    }
}

/// An instance as the keeper holds it: what the node finds again after its own restart.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Kept {
    /// The plan that it was started by.
    #[n(0)]
    pub plan: LaunchPlan,
    /// Its first process.
    #[n(1)]
    pub pid: u32,
    /// When it was started.
    #[n(2)]
    pub started_at: Wall,
    /// How and when it ended, if it has.
    #[n(3)]
    pub ended: Option<Ended>,
    /// What of its confinement it has.
    #[n(4)]
    #[cbor(default)]
    pub enforced: Enforced,
}

/// How a process ended, from waitid(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Ended {
    /// The exit code, when it exited by itself.
    #[n(0)]
    pub code: Option<i32>,
    /// The signal, when one ended it.
    #[n(1)]
    pub signal: Option<i32>,
    /// When it was reaped.
    #[n(2)]
    pub at: Wall,
    /// How many of its processes the kernel killed because they had used up their memory.
    #[n(3)]
    #[cbor(default)]
    pub oom_kills: u32,
}

/// What the process shell reports to the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProcessEvent {
    /// The keeper was reached: this is all that it holds, running or ended and not yet acknowledged.
    Holding(Vec<Kept>),
    /// A launch succeeded: the program was exec'ed.
    Launched {
        /// Of which start.
        run: RunId,
        /// Its first process.
        pid: u32,
        /// When.
        at: Wall,
        /// What of its confinement it has.
        enforced: Enforced,
    },
    /// A launch failed; nothing runs.
    LaunchFailed {
        /// Of which start.
        run: RunId,
        /// The step and its cause, for people: "cannot make working directory …: permission denied".
        error: String,
    },
    /// The first process ended. All its output is in the log files by now, and no descendant is left.
    Exited {
        /// Of which start.
        run: RunId,
        /// How.
        ended: Ended,
    },
    /// The keeper is gone and so is every instance that it held; a new one is being started.
    KeeperLost,
}

/// Paths cross as bytes: a path need not be UTF-8.
mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        path: &Path,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(path.as_os_str().as_bytes())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<PathBuf, Error> {
        Ok(OsString::from_vec(d.bytes()?.to_vec()).into())
    }
}
