//! Which calls are refused, why, and what lifts that. Pure data.
//!
//! `EPERM` is what the kernel itself would say to one who may not; `ENOSYS` is for calls that programs try and do without where
//! a kernel does not have them. Calls that the kernel allows to anybody, and that have no capability of their own, are lifted by
//! `SYS_ADMIN`, as in the default profiles of container engines; `capabilities: [all]` lifts what narun itself may do.

use libc::{c_long, c_ulong};

use crate::confinement::Capabilities;

/// `AUDIT_ARCH_*` of linux/audit.h for this program's own machine; none where it is not known.
pub(super) const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// The first number of calls that belong to another machine's programs though they come as this one's: on x86-64 those of
/// x32, which no usual program makes.
pub(super) const FOREIGN_CALLS: Option<u32> = if cfg!(target_arch = "x86_64") { Some(0x4000_0000) } else { None };

/// One refusal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The call's number.
    pub(super) call: u32,
    /// With which arguments.
    pub(super) when: When,
    /// What the program is answered.
    pub(super) errno: i32,
    /// The capability that lifts it.
    pub(super) lifted_by: &'static str,
}

impl Rule {
    pub(super) fn is_lifted_by(&self, kept: Capabilities) -> bool {
        // A name of the table is a capability's; a test holds them against each other.
        Capabilities::named(self.lifted_by).is_some_and(|needed| kept.has(needed))
    }
}

/// With which arguments a call is refused. Only the low halves of arguments are looked at, since the kernel takes these of the
/// ones here: a filter that also looked at the high halves could be passed by.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// With any.
    Always,
    /// If one of these bits is set in the argument at this place.
    Bits(u8, u32),
    /// If the argument at this place is this.
    Is(u8, u32),
    /// If the argument at this place is neither of these.
    IsNeither(u8, [u32; 2]),
}

/// New namespaces by clone(2), whose lowest byte is a signal.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// New namespaces by unshare(2), which has one more: CLONE_NEWTIME.
const NAMESPACES_OF_UNSHARE: u32 = NAMESPACES | 0x80;

/// To put words into a terminal's input as if typed there, TIOCSTI(2const): those who started a program from it would run them.
const TIOCSTI: c_ulong = libc::TIOCSTI;
/// The console's own, with which words are pasted into it, TIOCLINUX(2const).
const TIOCLINUX: c_ulong = libc::TIOCLINUX;

/// open_tree_attr(2), which the C library has no number for yet; calls newer than 423 have the same on all machines.
const SYS_OPEN_TREE_ATTR: c_long = 467;

/// personality(2): what every program has, and the question which it has.
const PERSONALITIES: [u32; 2] = [0, u32::MAX];

const fn refuse(call: c_long, lifted_by: &'static str) -> Rule {
    refuse_when(call, When::Always, lifted_by)
}

const fn refuse_when(call: c_long, when: When, lifted_by: &'static str) -> Rule {
    Rule { call: call as u32, when, errno: libc::EPERM, lifted_by }
}

const fn unknown(call: c_long, lifted_by: &'static str) -> Rule {
    Rule { call: call as u32, when: When::Always, errno: libc::ENOSYS, lifted_by }
}

/// `flags_at` is the place of the flags among the call's arguments.
const fn no_fast_open(call: c_long, flags_at: u8) -> Rule {
    let when = When::Bits(flags_at, libc::MSG_FASTOPEN.cast_unsigned());
    Rule { call: call as u32, when, errno: libc::EOPNOTSUPP, lifted_by: "SYS_ADMIN" }
}

/// All refusals.
pub(super) const RULES: &[Rule] = &[
    // Namespaces, in which an ordinary user is root over parts of the kernel that it cannot reach otherwise.
    refuse_when(libc::SYS_clone, When::Bits(0, NAMESPACES), "SYS_ADMIN"),
    // Its flags lie in memory, where no filter sees them. The C library and others fall back to clone.
    unknown(libc::SYS_clone3, "SYS_ADMIN"),
    refuse_when(libc::SYS_unshare, When::Bits(0, NAMESPACES_OF_UNSHARE), "SYS_ADMIN"),
    refuse(libc::SYS_setns, "SYS_ADMIN"),
    // A connection by its first message (tcp(7), TCP_FASTOPEN), which Landlock's rules for ports do not see. Who tries it connects
    // in the usual way when it is told that there is no such thing.
    no_fast_open(libc::SYS_sendto, 3),
    no_fast_open(libc::SYS_sendmsg, 2),
    no_fast_open(libc::SYS_sendmmsg, 3),
    // What the file system looks like.
    refuse(libc::SYS_mount, "SYS_ADMIN"),
    refuse(libc::SYS_umount2, "SYS_ADMIN"),
    refuse(libc::SYS_pivot_root, "SYS_ADMIN"),
    refuse(libc::SYS_open_tree, "SYS_ADMIN"),
    refuse(SYS_OPEN_TREE_ATTR, "SYS_ADMIN"),
    refuse(libc::SYS_move_mount, "SYS_ADMIN"),
    refuse(libc::SYS_fsopen, "SYS_ADMIN"),
    refuse(libc::SYS_fsconfig, "SYS_ADMIN"),
    refuse(libc::SYS_fsmount, "SYS_ADMIN"),
    refuse(libc::SYS_fspick, "SYS_ADMIN"),
    refuse(libc::SYS_mount_setattr, "SYS_ADMIN"),
    refuse(libc::SYS_swapon, "SYS_ADMIN"),
    refuse(libc::SYS_swapoff, "SYS_ADMIN"),
    refuse(libc::SYS_quotactl, "SYS_ADMIN"),
    refuse(libc::SYS_quotactl_fd, "SYS_ADMIN"),
    refuse(libc::SYS_chroot, "SYS_CHROOT"),
    // Files by their number, past every folder on the way to them.
    unknown(libc::SYS_name_to_handle_at, "DAC_READ_SEARCH"),
    refuse(libc::SYS_open_by_handle_at, "DAC_READ_SEARCH"),
    // Other processes from within. Instances often have one user in common, so that the kernel would let one trace another, or
    // its user's own shell; that no debugger works inside an instance is the price.
    refuse(libc::SYS_ptrace, "SYS_PTRACE"),
    refuse(libc::SYS_process_vm_readv, "SYS_PTRACE"),
    refuse(libc::SYS_process_vm_writev, "SYS_PTRACE"),
    refuse(libc::SYS_pidfd_getfd, "SYS_PTRACE"),
    refuse(libc::SYS_kcmp, "SYS_PTRACE"),
    // Keyrings, which belong to a user and not to an instance.
    refuse(libc::SYS_add_key, "SYS_ADMIN"),
    refuse(libc::SYS_request_key, "SYS_ADMIN"),
    refuse(libc::SYS_keyctl, "SYS_ADMIN"),
    // Large parts of the kernel with a long list of past holes. A ring does what no filter of calls sees.
    unknown(libc::SYS_io_uring_setup, "SYS_ADMIN"),
    unknown(libc::SYS_io_uring_enter, "SYS_ADMIN"),
    unknown(libc::SYS_io_uring_register, "SYS_ADMIN"),
    refuse(libc::SYS_userfaultfd, "SYS_ADMIN"),
    refuse(libc::SYS_bpf, "BPF"),
    refuse(libc::SYS_perf_event_open, "PERFMON"),
    // The machine itself.
    refuse(libc::SYS_init_module, "SYS_MODULE"),
    refuse(libc::SYS_finit_module, "SYS_MODULE"),
    refuse(libc::SYS_delete_module, "SYS_MODULE"),
    refuse(libc::SYS_kexec_load, "SYS_BOOT"),
    #[cfg(target_arch = "x86_64")]
    refuse(libc::SYS_kexec_file_load, "SYS_BOOT"),
    refuse(libc::SYS_reboot, "SYS_BOOT"),
    refuse(libc::SYS_acct, "SYS_PACCT"),
    refuse(libc::SYS_settimeofday, "SYS_TIME"),
    refuse(libc::SYS_clock_settime, "SYS_TIME"),
    refuse(libc::SYS_adjtimex, "SYS_TIME"),
    refuse(libc::SYS_clock_adjtime, "SYS_TIME"),
    #[cfg(target_arch = "x86_64")]
    refuse(libc::SYS_iopl, "SYS_RAWIO"),
    #[cfg(target_arch = "x86_64")]
    refuse(libc::SYS_ioperm, "SYS_RAWIO"),
    // Old ways of being run, some of which make addresses easy to guess.
    refuse_when(libc::SYS_personality, When::IsNeither(0, PERSONALITIES), "SYS_ADMIN"),
    refuse_when(libc::SYS_ioctl, When::Is(1, TIOCSTI as u32), "SYS_ADMIN"),
    refuse_when(libc::SYS_ioctl, When::Is(1, TIOCLINUX as u32), "SYS_ADMIN"),
];
