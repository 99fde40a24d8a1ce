//! The calls that no instance makes: a filter in the kernel, seccomp(2). Shell; `table` says which calls, and `assembler` makes
//! the program of it (pure).
//!
//! It is there for every instance, whatever its mode: what is refused is not what programs do, but the part of the kernel that
//! escapes are made of. A call that needs a capability is let through where the instance keeps that one, and is then judged by the
//! kernel as ever.

mod assembler;
mod table;

use libc::{sock_filter, sock_fprog};
use nix::errno::Errno;

use crate::confinement::Capabilities;
use crate::exec::cause::Cause;

/// Why there is no filter.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("cannot filter system calls: narun has no table for this processor")]
    UnknownMachine,
    #[error("cannot filter system calls: {0}")]
    Install(Cause),
}

/// The filter of one set of capabilities, or why there is none.
pub(crate) struct Filter(Result<Vec<sock_filter>, SeccompError>);

impl Filter {
    /// For programs that keep these.
    pub(crate) fn of(kept: Capabilities) -> Self {
        Self(table::ARCHITECTURE.map(|architecture| program(architecture, kept)).ok_or(SeccompError::UnknownMachine))
    }

    /// Filters the calls of this process, and of all that it becomes and forks, for good. No new privileges must be taken already.
    pub(crate) fn install(&self) -> Result<(), SeccompError> {
        let program = self.0.as_ref().map_err(|error| *error)?;
        let len =
            u16::try_from(program.len()).expect("a filter has some hundred instructions, and the kernel takes 4096");
        let filter = sock_fprog { len, filter: program.as_ptr().cast_mut() };
        // SAFETY: the program outlives the call, which copies it and changes nothing; it takes rights from this thread, which is alone.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
        Errno::result(result).map(drop).map_err(|e| SeccompError::Install(e.into()))
    }
}

/// The filter of the last start: the next one mostly needs the same.
#[derive(Default)]
pub(crate) struct LastFilter(Option<(Capabilities, Filter)>);

impl LastFilter {
    /// The filter for programs that keep these.
    pub(crate) fn of(&mut self, kept: Capabilities) -> &Filter {
        if self.0.as_ref().is_none_or(|(last, _)| *last != kept) {
            self.0 = Some((kept, Filter::of(kept)));
        }
        &self.0.as_ref().expect("just made").1
    }
}

fn program(architecture: u32, kept: Capabilities) -> Vec<sock_filter> {
    let refused = table::RULES.iter().filter(|rule| !rule.is_lifted_by(kept));
    assembler::assemble(architecture, table::FOREIGN_CALLS, refused)
}

#[cfg(test)]
mod tests;
