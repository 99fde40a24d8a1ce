//! What a run uses, read out of its groups. Shell.
//!
//! Anybody may read there, so that the node does, and the keeper is not asked. Which groups are a run's is told by the kernel:
//! they are those of its first process, if they have the run's name.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::GroupError;
use super::files::read;
use super::hierarchy::{Controller, Hierarchies, Hierarchy, Version, path_in_hierarchy, path_of_controller};
use super::{cpu, is_base_name, memory, pids, run_name, sweep};
use crate::exec::usage::{Pressure, Usage};
use crate::ids::{InstanceId, RunId};

/// This host's groups, for as many readings as are wanted.
#[derive(Debug)]
pub(crate) struct Reader {
    hierarchies: Hierarchies,
}

impl Reader {
    /// Looks at what is mounted.
    pub(crate) fn new() -> Result<Self, GroupError> {
        Ok(Self { hierarchies: super::hierarchies()? })
    }

    /// What the tree of a run uses whose first process is `pid`; none where that is in no group of the run: it has ended, or is held
    /// together by other means.
    pub(crate) fn usage(&self, pid: u32, instance: &InstanceId, run: &RunId) -> Option<Usage> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let name = run_name(instance, run);
        let folder = |hierarchy: Option<&Hierarchy>, path: Option<&str>| hierarchy?.folder(run_group(path?, &name)?);
        let unified = folder(self.hierarchies.unified.as_ref(), path_in_hierarchy(&groups))?;
        let of = |controller: Controller| -> Option<(Version, PathBuf)> {
            match self.hierarchies.legacy(controller) {
                None => Some((Version::Two, unified.clone())),
                legacy => Some((Version::One, folder(legacy, path_of_controller(&groups, controller.name()))?)),
            }
        };
        let mut usage = Usage::default();
        if let Some((version, group)) = of(Controller::Memory) {
            memory::usage(&group, version, &mut usage);
        }
        if let Some((version, group)) = of(Controller::Cpu) {
            cpu::usage(&group, version, &mut usage);
        }
        if let Some((_, group)) = of(Controller::Pids) {
            pids::usage(&group, &mut usage);
        }
        cpu::time(&unified, &mut usage);
        if usage.memory.is_none() {
            usage.memory = Some(sweep::sum(&unified, resident));
            usage.memory_is_summed = true;
        }
        let pressure = |file: &str| Pressure::parse(&read(&unified.join(file))?);
        usage.cpu_pressure = pressure("cpu.pressure");
        usage.memory_pressure = pressure("memory.pressure");
        usage.io_pressure = pressure("io.pressure");
        Some(usage)
    }
}

/// The path of the run's group, of a process that is in it or in a group that its tree has made beneath it.
fn run_group<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let mut above = Path::new(path).ancestors();
    let group = above.find(|group| group.file_name().is_some_and(|last| last == name))?;
    let base = group.parent()?.file_name()?.to_str()?;
    is_base_name(base).then(|| group.to_str())?
}

/// The memory that a process has at hand, in bytes (proc_pid_statm(5)).
fn resident(pid: i32) -> u64 {
    let pages = read(Path::new(&format!("/proc/{pid}/statm")))
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages.saturating_mul(page_size())
}

fn page_size() -> u64 {
    // SAFETY: only asks.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_of_the_run_is_read() {
        let group = "/system.slice/narun-0123456789abcdef/web-0-aabbccdd";
        assert_eq!(run_group(group, "web-0-aabbccdd"), Some(group));
        assert_eq!(run_group(&format!("{group}/inner/most"), "web-0-aabbccdd"), Some(group));
        assert_eq!(run_group(group, "web-0-aabbccee"), None);
        assert_eq!(run_group("/elsewhere/web-0-aabbccdd", "web-0-aabbccdd"), None);
        assert_eq!(run_group("/", "web-0-aabbccdd"), None);
    }

    #[test]
    fn this_process_has_memory_at_hand() {
        let own = resident(std::process::id().cast_signed());
        assert!((1 << 20..1 << 40).contains(&own), "{own}");
    }
}
