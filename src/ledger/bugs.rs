//! Deliberate bugs, to try the checker of `ledger::trial` on: a checker that has never found anything proves nothing. Pure.
//!
//! Outside of tests [`bug!`] is the word `false`, and nothing of this is compiled. In tests a bug is on for one thread, for as long as its
//! [`Switch`] lives.

/// Whether a deliberate bug is on.
#[cfg(test)]
macro_rules! bug {
    ($bug:ident) => {
        $crate::ledger::bugs::is_on($crate::ledger::bugs::Bug::$bug)
    };
}

/// Whether a deliberate bug is on: never, outside of tests.
#[cfg(not(test))]
macro_rules! bug {
    ($bug:ident) => {
        false
    };
}

#[cfg(test)]
pub(super) use switch::{Bug, Switch, is_on};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    macro_rules! bugs {
        ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
            /// What could be wrong.
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub(in crate::ledger) enum Bug {
                $($(#[doc = $doc])+ $name,)+
            }

            impl Bug {
                /// All of them.
                pub(in crate::ledger) const ALL: &[Bug] = &[$(Bug::$name,)+];
            }
        };
    }

    bugs! {
        /// A run is started when its claim is asked for, not when it is granted.
        StartBeforeClaim,
        /// A later attempt, or run, has the fence of an earlier one.
        FenceReused,
        /// A claim is taken whatever was decided before.
        CursorIgnored,
        /// A claim by a clock that is ahead is taken.
        EarlyClaimTaken,
        /// Entries are acknowledged before they are on the disk.
        SyncForgotten,
        /// Members that are down are no voters any more.
        VotersFromGossip,
        /// A snapshot has older cursors than the machine had.
        SnapshotForgetsClaims,
        /// A snapshot has no open runs.
        SnapshotForgetsRuns,
        /// Who loses a lease goes on hearing of the job as if it held it, and its claims are taken.
        LeaseNotTakenAway,
        /// A session stays open that is over.
        EndedSessionKept,
        /// Another node makes another attempt of a run whose node is away, though its spec says that it must not.
        OrphanGivenAway,
        /// Nobody ever gives up a run whose node is away.
        OrphanKeptForEver,
        /// A retry is made under the fence of the attempt before.
        RetryUnderOldFence,
        /// The end of a run is not told.
        EndNotRecorded,
        /// Slots without a run are not recorded.
        GapsDropped,
        /// A job whose lease is given away begins where its spec was deployed.
        CursorLostWithLease,
        /// A slot that is caught up is still to be decided afterwards.
        CaughtUpTwice,
        /// A process that comes back starts again what it was granted before.
        GrantLaunchedAgain,
        /// What is said of an earlier attempt is taken for the current one.
        OldFenceAccepted,
        /// A claim of which nothing is known is not looked for.
        UnknownClaimForgotten,
        /// A slot is run however late it is.
        DeadlineIgnored,
        /// A slot is run though an earlier run is open.
        SkipIgnored,
        /// A run replaces another one before that one has ended.
        ReplacedNotAwaited,
        /// A run may take as long as it likes.
        TimeoutIgnored,
        /// A grant is carried out however old it is.
        OldGrantCarriedOut,
        /// Slots from before its deploy are slots of a spec that was deleted and is there again.
        BegunBeforeDeploy,
        /// Every clock is trusted.
        ClocksNotJudged,
        /// A lease stays where it is, whoever is wanted for it.
        LeaseNeverMoved,
    }

    /// Whether it is on.
    pub(in crate::ledger) fn is_on(bug: Bug) -> bool {
        ON.get() == Some(bug)
    }

    /// A bug is on in this thread until this is dropped.
    pub(in crate::ledger) struct Switch(());

    impl Switch {
        /// Switches a bug on, or none.
        pub(in crate::ledger) fn on(bug: Option<Bug>) -> Self {
            assert_eq!(ON.replace(bug), None, "one bug at a time");
            Self(())
        }
    }

    impl Drop for Switch {
        fn drop(&mut self) {
            ON.set(None);
        }
    }
}
