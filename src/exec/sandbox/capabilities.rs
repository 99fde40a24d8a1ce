//! Which of root's powers a program has. Shell round a pure rule, [`to_keep`].
//!
//! The four sets of a process and the ambient one (capabilities(7)) are brought down to what is kept, and the bounding set with
//! them, so that no program that is exec'ed later gets more. For an ordinary user kept ones are ambient: they hold across an
//! exec of a file that has none of its own.

use nix::errno::Errno;
use nix::unistd;

use crate::confinement::Capabilities;
use crate::exec::cause::Cause;

/// What programs that begin as root commonly need: to give files away and to read others', to become their own user, to
/// signal what they have started, to listen on a low port. Not among them: whatever reaches past the instance (mounts, modules,
/// clocks, devices, raw packets, other processes' memory).
pub(crate) const DEFAULT_OF_ROOT: [&str; 9] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"];

/// Greatest number of a capability that any kernel can have: the sets have 64 bits.
const NUMBER_MAX: u64 = 63;

/// The form of capget(2) and capset(2) with 64 bits, `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// Why capabilities cannot be as asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CapabilityError {
    #[error("cannot keep {}: narun itself does not have {}", .0.join(", "), if .0.len() == 1 { "it" } else { "them" })]
    Lacking(Vec<&'static str>),
    #[error("cannot read the capabilities of this process: {0}")]
    Read(Cause),
    #[error("cannot drop the capability {number} for good: {cause}")]
    Bound { number: u64, cause: Cause },
    #[error("cannot give up capabilities: {0}")]
    Reduce(Cause),
    #[error("cannot hand the capability {name} on to the program: {cause}")]
    Ambient { name: &'static str, cause: Cause },
}

/// What is kept of `own`, the keeper's, and the names of those that were asked for and are not there. Pure.
pub(crate) fn to_keep(
    asked: Option<Capabilities>,
    is_root: bool,
    own: Capabilities,
) -> (Capabilities, Vec<&'static str>) {
    let common = |set: Capabilities| Capabilities(set.0 & own.0);
    match asked {
        None if is_root => {
            let named = DEFAULT_OF_ROOT.iter().filter_map(|name| Capabilities::named(name));
            (common(named.fold(Capabilities::default(), Capabilities::and)), Vec::new())
        }
        None => (Capabilities::default(), Vec::new()),
        // All that there are, whichever they are.
        Some(Capabilities::ALL) => (own, Vec::new()),
        Some(asked) => (common(asked), Capabilities(asked.0 & !own.0).names().collect()),
    }
}

/// What the calling process may use.
pub(crate) fn own() -> Result<Capabilities, CapabilityError> {
    Sets::read().map(|sets| Capabilities(sets.permitted))
}

/// Leaves this process, and all that it becomes, with `kept` and nothing else.
pub(crate) fn keep_only(kept: Capabilities) -> Result<(), CapabilityError> {
    let sets = Sets::read()?;
    let permitted = Capabilities(sets.permitted);
    if permitted.has(Capabilities::named("SETPCAP").unwrap_or_default()) {
        // A change of user has left everything permitted and nothing effective.
        Sets { effective: sets.permitted, ..sets }.write()?;
        bound(kept)?;
    }
    // Without that capability the bounding set stays; since no new privileges are taken, nothing comes out of it any more.
    let rest = kept.0 & sets.permitted;
    let is_root = unistd::geteuid().is_root();
    let inheritable = if is_root { sets.inheritable & rest } else { rest };
    clear_ambient();
    Sets { effective: rest, permitted: rest, inheritable }.write()?;
    if !is_root {
        for name in Capabilities(rest).names() {
            raise_ambient(name)?;
        }
    }
    Ok(())
}

fn bound(kept: Capabilities) -> Result<(), CapabilityError> {
    for number in (0..=NUMBER_MAX).filter(|number| kept.0 & (1 << number) == 0) {
        // SAFETY: takes a right from this process alone.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        match Errno::result(dropped) {
            Ok(_) => {}
            // The kernel has no more.
            Err(Errno::EINVAL) => break,
            Err(e) => return Err(CapabilityError::Bound { number, cause: e.into() }),
        }
    }
    Ok(())
}

fn clear_ambient() {
    // SAFETY: takes rights from this process alone. It fails where the kernel has no such set, older than 4.3.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
}

fn raise_ambient(name: &'static str) -> Result<(), CapabilityError> {
    let number = Capabilities::NAMES.iter().position(|known| *known == name).unwrap_or_default();
    // SAFETY: concerns this process alone, which has the capability both permitted and inheritable.
    let raised = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0) };
    Errno::result(raised).map(drop).map_err(|e| CapabilityError::Ambient { name, cause: e.into() })
}

/// The sets of this thread, which is all of its process.
#[derive(Clone, Copy)]
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, of which there are two: the low halves, then the high ones.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Sets {
    fn read() -> Result<Self, CapabilityError> {
        let header = Header { version: VERSION, pid: 0 };
        let mut halves = [Half::default(); 2];
        // SAFETY: both structures are as the kernel has them, and live on this stack.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) };
        Errno::result(result).map_err(|e| CapabilityError::Read(e.into()))?;
        let whole = |of: fn(&Half) -> u32| u64::from(of(&halves[0])) | u64::from(of(&halves[1])) << 32;
        Ok(Self {
            effective: whole(|half| half.effective),
            permitted: whole(|half| half.permitted),
            inheritable: whole(|half| half.inheritable),
        })
    }

    fn write(self) -> Result<(), CapabilityError> {
        let header = Header { version: VERSION, pid: 0 };
        let half = |shift: u32| {
            let part = |set: u64| (set >> shift & u64::from(u32::MAX)) as u32;
            Half {
                effective: part(self.effective),
                permitted: part(self.permitted),
                inheritable: part(self.inheritable),
            }
        };
        let halves = [half(0), half(32)];
        // SAFETY: both structures are as the kernel has them, and live on this stack; it concerns this thread alone.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
        Errno::result(result).map(drop).map_err(|e| CapabilityError::Reduce(e.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Capabilities {
        names.iter().map(|name| Capabilities::named(name).unwrap()).fold(Capabilities::default(), Capabilities::and)
    }

    #[test]
    fn where_nobody_asks_root_keeps_a_little_and_others_nothing() {
        let (kept, lacking) = to_keep(None, true, Capabilities::ALL);
        assert_eq!((kept, lacking), (set(&DEFAULT_OF_ROOT), vec![]));
        let (kept, lacking) = to_keep(None, true, set(&["CHOWN", "SYS_ADMIN"]));
        assert_eq!((kept, lacking), (set(&["CHOWN"]), vec![]), "what nobody asked for fails nothing");
        assert_eq!(to_keep(None, false, Capabilities::ALL).0, Capabilities::default());
    }

    #[test]
    fn what_is_asked_for_is_kept_and_what_is_not_there_is_named() {
        let two = set(&["NET_RAW", "SYS_RESOURCE"]);
        assert_eq!(to_keep(Some(two), false, Capabilities::ALL), (two, vec![]));
        assert_eq!(to_keep(Some(two), true, set(&["NET_RAW", "KILL"])), (set(&["NET_RAW"]), vec!["SYS_RESOURCE"]));
        assert_eq!(to_keep(Some(Capabilities::ALL), true, set(&["KILL"])), (set(&["KILL"]), vec![]));
        assert_eq!(to_keep(Some(Capabilities::default()), true, Capabilities::ALL).0, Capabilities::default());
        let error = CapabilityError::Lacking(vec!["NET_RAW", "SYS_TIME"]).to_string();
        assert_eq!(error, "cannot keep NET_RAW, SYS_TIME: narun itself does not have them");
    }

    #[test]
    fn the_sets_of_this_process_are_those_of_its_status() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
        assert_eq!(own().unwrap().0, u64::from_str_radix(line, 16).unwrap());
    }
}
