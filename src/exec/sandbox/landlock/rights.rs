//! What the modes of a specification mean, and what older kernels lack. Pure.

use std::fmt;

use landlock::{AccessFs, BitFlags, make_bitflags};

use crate::confinement::{Landlock, Modes};

/// The rights of the modes, on a directory with all that is beneath it, or on a file alone.
///
/// Devices are never made, whatever the mode: what a program may do with one is said by the rights on that one.
pub(super) fn of(modes: Modes, is_dir: bool) -> BitFlags<AccessFs> {
    let of_files = [
        (modes.read, make_bitflags!(AccessFs::{ReadFile})),
        (modes.write, make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev | ResolveUnix})),
        (modes.execute, make_bitflags!(AccessFs::{Execute})),
    ];
    let of_directories = [
        (modes.read, make_bitflags!(AccessFs::{ReadDir})),
        (
            modes.create,
            make_bitflags!(AccessFs::{
                MakeReg | MakeDir | MakeSym | MakeSock | MakeFifo | RemoveFile | RemoveDir | Refer
            }),
        ),
    ];
    let of_directories = of_directories.into_iter().filter(|_| is_dir);
    of_files.into_iter().chain(of_directories).filter(|(is_set, _)| *is_set).map(|(_, rights)| rights).collect()
}

/// Something that a kernel does not enforce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lack {
    /// What is the matter.
    what: &'static str,
    /// The version of the interface that has it.
    needs: u32,
    /// The version that there is.
    has: u32,
    /// Whether the specification names it, so that doing without is not what was asked for. The others come with every
    /// ruleset.
    pub(super) is_named: bool,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (needs Landlock ABI {}, this kernel has {})", self.what, self.needs, self.has)
    }
}

/// What version `has` of the interface lacks of the rules, by the versions in landlock(7).
pub(super) fn lacking(asked: &Landlock, has: u32) -> Vec<Lack> {
    let rules = [
        (2, "moving files between directories is refused altogether", false, true),
        (3, "truncating files is not restricted", false, true),
        (4, "the TCP ports to listen on are not restricted", true, asked.bind_ports.is_some()),
        (4, "the TCP ports to connect to are not restricted", true, asked.connect_ports.is_some()),
        (5, "the control of devices (ioctl) is not restricted", false, true),
        (6, "signals to processes outside are not restricted", true, asked.scope_signals),
        (6, "abstract sockets of processes outside are not restricted", true, asked.scope_abstract_sockets),
    ];
    let lack =
        |(needs, what, is_named, is_asked)| (is_asked && needs > has).then_some(Lack { what, needs, has, is_named });
    rules.into_iter().filter_map(lack).collect()
}

#[cfg(test)]
mod tests {
    use landlock::{ABI, Access};

    use super::*;

    #[test]
    fn files_get_what_files_can_have() {
        for letters in ["r", "w", "x", "c", "rwxc"] {
            let modes = Modes::of_letters(letters);
            assert!(AccessFs::from_file(ABI::V9).contains(of(modes, false)), "{letters}");
            assert!(of(modes, true).contains(of(modes, false)), "{letters}");
        }
        assert!(of(Modes::of_letters("c"), false).is_empty());
        assert!(of(Modes::of_letters("r"), true).contains(AccessFs::ReadDir));
    }

    #[test]
    fn everything_but_devices_can_be_given() {
        let given = of(Modes::of_letters("rwxc"), true);
        assert_eq!(AccessFs::from_all(ABI::V9) & !given, make_bitflags!(AccessFs::{MakeChar | MakeBlock}));
    }

    #[test]
    fn each_version_lacks_less() {
        let all = Landlock {
            bind_ports: Some(vec![]),
            connect_ports: Some(vec![1]),
            scope_signals: true,
            scope_abstract_sockets: true,
            ..Landlock::default()
        };
        let counts: Vec<usize> = (1..=9).map(|version| lacking(&all, version).len()).collect();
        assert_eq!(counts, [7, 6, 5, 3, 2, 0, 0, 0, 0]);
        let named: Vec<bool> = lacking(&all, 5).iter().map(|lack| lack.is_named).collect();
        assert_eq!(named, [true, true]);
        assert!(lacking(&Landlock::default(), 2).iter().all(|lack| !lack.is_named));
        let text = lacking(&Landlock::default(), 4)[0].to_string();
        assert_eq!(text, "the control of devices (ioctl) is not restricted (needs Landlock ABI 5, this kernel has 4)");
    }
}
