//! What the controllers have in common: which files to write for which limits. Pure.

use super::hierarchy::{Controller, Version};
use super::{cpu, memory, pids};
use crate::confinement::{Limits, PIDS_MAX};

/// A file of a group, and what to write there.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) value: String,
    /// Whether the limit does not hold without it. Others refine it where the kernel has them.
    pub(super) is_needed: bool,
}

impl Setting {
    pub(super) fn needed(file: &'static str, value: impl ToString) -> Self {
        Self { file, value: value.to_string(), is_needed: true }
    }

    pub(super) fn wished(file: &'static str, value: impl ToString) -> Self {
        Self { is_needed: false, ..Self::needed(file, value) }
    }
}

impl Controller {
    /// What to write into a group of that version; nothing where nothing is limited.
    pub(super) fn settings(self, limits: &Limits, version: Version) -> Vec<Setting> {
        match self {
            Self::Memory => memory::settings(limits, version),
            Self::Cpu => cpu::settings(limits, version),
            Self::Pids => pids::settings(limits),
        }
    }

    /// Whether somebody has asked for a limit, so that it is a fault where there can be none. The default number of processes is
    /// a limit that nobody has asked for.
    pub(super) fn is_asked(self, limits: &Limits) -> bool {
        match self {
            Self::Memory => limits.memory_low > 0 || limits.memory_max > 0,
            Self::Cpu => limits.cpu_millicores > 0,
            Self::Pids => limits.pids_max != PIDS_MAX,
        }
    }
}
