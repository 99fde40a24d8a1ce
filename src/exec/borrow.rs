//! A child that borrows its parent's memory until it becomes its program, as that of vfork(2) does. Shell.
//!
//! A fork copies the tables of all pages of its parent, and each page again that one of the two then writes to; a start spent more
//! time on that than on everything it did. A child that borrows has no memory of its own to be copied or thrown away: it runs on its
//! parent's stack and heap while the parent waits in the kernel. What it has of its own is the rest: descriptors, directory and umask,
//! dispositions of signals, limits, credentials, namespaces, groups.
//!
//! *So what it does to memory, it does to its parent's.* Its deed gives back whatever it allocates before it execs, holds no lock then,
//! unwinds into nobody, and changes nothing that the parent goes on to use. And whatever holds it up, holds up its parent.

use std::convert::Infallible;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Pid;

use super::clone::INTO_CGROUP;

/// Whether this program knows how to make such a child on this processor.
pub(crate) const IS_KNOWN: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Makes a child, in the group of version 2 whose directory `group` is, has it do `deed`, and comes back once it has become
/// another program or has ended. All signals are blocked in the child: what interrupts it must not run in the memory of its parent,
/// or leave it half-changed.
///
/// # Safety
/// This process must have one thread only. The deed keeps to the page above: it execs or ends, and leaves the memory as it was
/// but for what its parent expects.
pub(crate) unsafe fn fork(group: Option<BorrowedFd<'_>>, deed: &dyn Fn() -> Infallible) -> nix::Result<Pid> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    // SAFETY: `clone_args` is plain numbers, for which zero means "none".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.unsigned_abs());
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    if let Some(group) = group {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
    // SAFETY: the caller vouches for the thread and for the deed, which outlives the call.
    let result = unsafe { clone_and_do(&args, (&raw const deed).cast()) };
    let unblocked = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
    let child =
        if result < 0 { Err(Errno::from_raw(-i32::try_from(result).unwrap_or(-libc::EIO))) } else { Ok(result) }?;
    // The kernel refuses no mask (sigprocmask(2)).
    unblocked.expect("the mask that was there before can be had again");
    Ok(Pid::from_raw(i32::try_from(child).expect("process numbers have 22 bits")))
}

/// What the child does, from the first instruction that is its own.
extern "C" fn begin(deed: *const c_void) -> ! {
    // SAFETY: `fork` has put the deed there and waits until this process is done with it.
    let deed = unsafe { &*deed.cast::<&dyn Fn() -> Infallible>() };
    match deed() {}
}

/// clone3(2) without a stack of its own, so that the child goes on beneath the frame of its parent, which it must not return into:
/// what it put there would be read by the parent as its own. So it calls [`begin`] right here, and never comes back.
///
/// Gives the child's number, or the error's with a minus.
///
/// # Safety
/// As for [`fork`]; `deed` points to one.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_and_do(args: &libc::clone_args, deed: *const c_void) -> isize {
    let result;
    // SAFETY: the kernel keeps all registers but these three. The child sees the same ones, with 0 for the number; the stack is aligned for
    // a call, and beneath it nothing is in use.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") &raw const *args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r8") deed,
            in("r9") begin as extern "C" fn(*const c_void) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// See above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_and_do(args: &libc::clone_args, deed: *const c_void) -> isize {
    let result;
    // SAFETY: the kernel keeps all registers but the first. The child sees the same ones, with 0 for the number; the stack is aligned for a
    // call, and beneath it nothing is in use. The link register changes in the child alone, which does not return.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x0, x9",
            "blr x10",
            "brk #1",
            "2:",
            inlateout("x0") &raw const *args => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x9") deed,
            in("x10") begin as extern "C" fn(*const c_void) -> !,
        );
    }
    result
}

/// Where nobody has written it down.
///
/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone_and_do(_: &libc::clone_args, _: *const c_void) -> isize {
    -(libc::ENOSYS as isize)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nix::sys::prctl;
    use nix::sys::signal::Signal;
    use nix::sys::stat::{Mode, umask};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{self, ForkResult, getcwd};

    use super::*;

    /// Ends the calling process at once.
    fn end(code: i32) -> ! {
        // SAFETY: runs no handlers, which belong to the tests' own process.
        unsafe { libc::_exit(code) }
    }

    /// The exit code of a forked process in which `deed` gave its code: it has one thread, as a keeper has.
    fn alone(deed: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child allocates at most, for which the C library prepares a fork.
        match unsafe { unistd::fork() }.unwrap() {
            ForkResult::Child => end(std::panic::catch_unwind(std::panic::AssertUnwindSafe(deed)).unwrap_or(-1)),
            ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, code) => code,
                other => panic!("{other:?}"),
            },
        }
    }

    /// The exit code of a child that borrows the memory of this process, which has one thread.
    fn borrower(deed: &dyn Fn() -> Infallible) -> i32 {
        // SAFETY: only called by processes with one thread, and the deeds of these tests change cells alone.
        let child = unsafe { fork(None, deed) }.unwrap();
        match waitpid(child, None).unwrap() {
            WaitStatus::Exited(of, code) if of == child => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_child_writes_is_there_when_it_has_ended() {
        let code = alone(|| {
            let (on_the_stack, on_the_heap) = (Cell::new(1), Box::new(Cell::new(2)));
            let own = unistd::getpid();
            let ended = borrower(&|| {
                on_the_stack.set(10);
                on_the_heap.set(if unistd::getppid() == own { 20 } else { 0 });
                end(7)
            });
            on_the_stack.get() + on_the_heap.get() + ended
        });
        assert_eq!(code, 37);
    }

    #[test]
    fn the_parent_goes_on_when_the_child_has_become_another_program() {
        let code = alone(|| {
            borrower(&|| {
                let (path, none) = (c"/bin/false", std::ptr::null());
                let argv = [path.as_ptr(), none];
                // SAFETY: the lists end with a null; an exec that fails comes back.
                unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), &raw const none) };
                end(9)
            })
        });
        assert_eq!(code, 1);
    }

    #[test]
    fn all_but_memory_is_the_childs_own_and_no_signal_comes_through() {
        let code = alone(|| {
            let masked = |signal| SigSet::thread_get_mask().unwrap().contains(signal);
            prctl::set_dumpable(false).unwrap();
            umask(Mode::S_IRWXO);
            let (here, file) = (getcwd().unwrap(), std::fs::File::open("/dev/null").unwrap());
            let ended = borrower(&|| {
                let is_blocked = masked(Signal::SIGTERM) && masked(Signal::SIGUSR1);
                umask(Mode::S_IRWXU);
                // SAFETY: closes the child's own descriptor, and sets its own disposition; both are its last deeds.
                unsafe {
                    libc::close(file.as_raw_fd());
                    libc::signal(libc::SIGUSR1, libc::SIG_IGN);
                    libc::chdir(c"/".as_ptr());
                }
                end(i32::from(!is_blocked))
            });
            assert_eq!(ended, 0, "signals are not blocked");
            assert!(!masked(Signal::SIGTERM) && !masked(Signal::SIGUSR1), "signals stay blocked");
            assert!(file.metadata().is_ok() && getcwd().unwrap() == here, "the descriptor or the directory is gone");
            assert_eq!(umask(Mode::empty()), Mode::S_IRWXO);
            assert!(!prctl::get_dumpable().unwrap(), "it can be dumped");
            // SAFETY: asks by setting what it is to be.
            assert_eq!(unsafe { libc::signal(libc::SIGUSR1, libc::SIG_DFL) }, libc::SIG_DFL);
            0
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn a_child_that_is_killed_is_told_as_any_other() {
        let code = alone(|| {
            // SAFETY: as in `borrower`; nothing is changed.
            let child = unsafe {
                fork(None, &|| loop {
                    libc::raise(libc::SIGKILL);
                })
            }
            .unwrap();
            i32::from(!matches!(waitpid(child, None).unwrap(), WaitStatus::Signaled(_, Signal::SIGKILL, _)))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn an_error_of_the_kernel_comes_back() {
        let file = std::fs::File::open("/dev/null").unwrap();
        use std::os::fd::AsFd;
        // SAFETY: there is no child.
        let refused = unsafe { fork(Some(file.as_fd()), &|| end(1)) };
        assert_eq!(refused, Err(Errno::EBADF));
    }
}
