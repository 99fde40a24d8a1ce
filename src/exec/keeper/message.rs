//! What a node and its keeper say to each other. Pure.
//!
//! A keeper outlives the node that started it, so a newer node meets older keepers: the first message of a connection settles
//! the version, unknown fields of known messages are skipped, and a variant's number is never given to anything else.
//!
//! | version | what it has |
//! |---|---|
//! | 1 | the messages themselves |
//! | 2 | a plan's `confinement`, `identity` and `stop` are carried out, `enforced` is told; `Shutdown` goes by each plan's `stop` |
//! | 3 | a plan's `lease_until` is kept, and `Extend` puts it off |

use minicbor::{Decode, Encode};

use crate::confinement::Enforced;
use crate::exec::plan::{Ended, Kept, LaunchPlan};
use crate::ids::RunId;
use crate::time::{Mono, Wall};

/// The oldest version of these messages that this program speaks.
pub(super) const VERSION_OLDEST: u32 = 1;
/// The newest one.
pub(super) const VERSION_NEWEST: u32 = 3;
/// The version since which plans are carried out with what holds the program.
pub(super) const VERSION_CONFINES: u32 = 2;
/// The version since which runs end with their lease.
pub(super) const VERSION_LEASES: u32 = 3;

/// What a node asks of its keeper.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub(super) enum Request {
    /// The first message of a connection; answered by [`Event::Welcome`] or [`Event::Refused`].
    #[n(0)]
    Hello {
        /// The oldest version that the node speaks.
        #[n(0)]
        oldest: u32,
        /// The newest one.
        #[n(1)]
        newest: u32,
    },
    /// Start a process. A run that is known already is answered from the table and never started twice.
    #[n(1)]
    Launch {
        /// How.
        #[n(0)]
        plan: Box<LaunchPlan>,
    },
    /// Send a signal to the first process of a run; nothing happens when there is no such run, or it has ended.
    #[n(2)]
    Signal {
        /// Which run.
        #[n(0)]
        run: RunId,
        /// The signal's number, signal(7).
        #[n(1)]
        signal: i32,
    },
    /// End every process of a run at once.
    #[n(3)]
    Kill {
        /// Which run.
        #[n(0)]
        run: RunId,
    },
    /// Forget a run that has ended.
    #[n(4)]
    Acknowledge {
        /// Which run.
        #[n(0)]
        run: RunId,
    },
    /// Say what is held; answered by [`Event::Holding`].
    #[n(5)]
    List,
    /// End every instance, then the keeper itself: the connection closes when both are gone.
    #[n(6)]
    Shutdown {
        /// How long instances may take at most before they are killed, in milliseconds, whatever their plans grant. Version 1: how
        /// long they take after SIGTERM, all alike.
        #[n(0)]
        grace_ms: u64,
    },
    /// The lease of a run goes on: it is killed then, and not before. Nothing happens when it has none.
    #[n(7)]
    Extend {
        /// Which run.
        #[n(0)]
        run: RunId,
        /// Until when, by the boot clock.
        #[n(1)]
        until: Mono,
    },
}

/// What a keeper reports to its node.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub(super) enum Event {
    /// The connection stands and speaks this version.
    #[n(0)]
    Welcome {
        /// The newest version that both speak.
        #[n(0)]
        version: u32,
    },
    /// The connection will be closed.
    #[n(1)]
    Refused {
        /// Why, for people.
        #[n(0)]
        reason: String,
    },
    /// A part of what is held: running, or ended and not yet acknowledged.
    #[n(2)]
    Holding {
        /// These instances.
        #[n(0)]
        kept: Vec<Kept>,
        /// Whether nothing follows.
        #[n(1)]
        last: bool,
    },
    /// The program of a run was exec'ed.
    #[n(3)]
    Launched {
        /// Which run.
        #[n(0)]
        run: RunId,
        /// Its first process.
        #[n(1)]
        pid: u32,
        /// When.
        #[n(2)]
        at: Wall,
        /// What of its confinement it has.
        #[n(3)]
        #[cbor(default)]
        enforced: Enforced,
    },
    /// A run could not be started, and nothing of it is left.
    #[n(4)]
    LaunchFailed {
        /// Which run.
        #[n(0)]
        run: RunId,
        /// The step and its cause.
        #[n(1)]
        error: String,
    },
    /// A run is over: its processes are gone, its output is in the log.
    #[n(5)]
    Exited {
        /// Which run.
        #[n(0)]
        run: RunId,
        /// How.
        #[n(1)]
        ended: Ended,
    },
}

/// Whether these bytes are a message of either side: for the fuzz targets.
pub(crate) fn understands(bytes: &[u8]) -> bool {
    minicbor::decode::<Request>(bytes).is_ok() | minicbor::decode::<Event>(bytes).is_ok()
}

/// Some messages, each with a word for it.
#[cfg(test)]
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let run = RunId([7; 16]);
    vec![
        ("hello", minicbor::to_vec(Request::Hello { oldest: 1, newest: 1 }).unwrap()),
        ("signal", minicbor::to_vec(Request::Signal { run, signal: 15 }).unwrap()),
        (
            "launched",
            minicbor::to_vec(Event::Launched { run, pid: 7, at: Wall(3), enforced: Enforced::default() }).unwrap(),
        ),
        ("failed", minicbor::to_vec(Event::LaunchFailed { run, error: "no".to_owned() }).unwrap()),
    ]
}

/// The newest version that a node and a keeper that goes up to `own` both speak, if there is one.
pub(super) fn agree(oldest: u32, newest: u32, own: u32) -> Option<u32> {
    let version = newest.min(own);
    (version >= oldest && version >= VERSION_OLDEST).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        assert_eq!(agree(VERSION_OLDEST, VERSION_NEWEST, VERSION_NEWEST), Some(VERSION_NEWEST));
        assert_eq!(agree(1, 9, VERSION_NEWEST), Some(VERSION_NEWEST));
        assert_eq!(agree(1, VERSION_NEWEST, 1), Some(1));
        assert_eq!(agree(VERSION_NEWEST + 1, VERSION_NEWEST + 2, VERSION_NEWEST), None);
        assert_eq!(agree(0, VERSION_OLDEST - 1, VERSION_NEWEST), None);
    }

    #[test]
    fn a_message_with_fields_of_a_later_version_is_still_read() {
        // `Signal` as a later version might send it: a third field, unknown here.
        let mut bytes = Vec::new();
        let mut e = minicbor::Encoder::new(&mut bytes);
        e.array(2).unwrap().u8(2).unwrap().map(3).unwrap();
        e.u8(0).unwrap().bytes(&[7; 16]).unwrap();
        e.u8(1).unwrap().i32(15).unwrap();
        e.u8(2).unwrap().str("later").unwrap();
        let request: Request = minicbor::decode(&bytes).unwrap();
        assert_eq!(request, Request::Signal { run: RunId([7; 16]), signal: 15 });
    }
}
