//! The calls that no instance makes, and those that every program does.

use super::{capabilities, expect, probe};
use crate::host::{Host, is_root};

/// Calls with arguments that the kernel would find fault with, each in its own way, so that a refusal is the filter's.
const REFUSED: [(&str, libc::c_long, &str); 24] = [
    ("mount", libc::SYS_mount, "EPERM"),
    ("umount2", libc::SYS_umount2, "EPERM"),
    ("pivot_root", libc::SYS_pivot_root, "EPERM"),
    ("open_tree", libc::SYS_open_tree, "EPERM"),
    ("fsopen", libc::SYS_fsopen, "EPERM"),
    ("mount_setattr", libc::SYS_mount_setattr, "EPERM"),
    ("setns", libc::SYS_setns, "EPERM"),
    ("chroot", libc::SYS_chroot, "EPERM"),
    ("clone3", libc::SYS_clone3, "ENOSYS"),
    ("ptrace", libc::SYS_ptrace, "EPERM"),
    ("process_vm_readv", libc::SYS_process_vm_readv, "EPERM"),
    ("keyctl", libc::SYS_keyctl, "EPERM"),
    ("add_key", libc::SYS_add_key, "EPERM"),
    ("request_key", libc::SYS_request_key, "EPERM"),
    ("io_uring_setup", libc::SYS_io_uring_setup, "ENOSYS"),
    ("bpf", libc::SYS_bpf, "EPERM"),
    ("perf_event_open", libc::SYS_perf_event_open, "EPERM"),
    ("userfaultfd", libc::SYS_userfaultfd, "EPERM"),
    ("kexec_load", libc::SYS_kexec_load, "EPERM"),
    ("init_module", libc::SYS_init_module, "EPERM"),
    ("reboot", libc::SYS_reboot, "EPERM"),
    ("adjtimex", libc::SYS_adjtimex, "EPERM"),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, "EPERM"),
    ("acct", libc::SYS_acct, "EPERM"),
];

#[tokio::test]
async fn calls_that_reach_past_an_instance_are_refused() {
    let mut host = Host::new();
    let mut node = host.node().await;
    let plan = probe(&mut host, "calls", &[]);
    let mut expected: Vec<(String, &str)> =
        REFUSED.iter().map(|(_, number, outcome)| (format!("call:{number},-1,-1,-1"), *outcome)).collect();
    let with = |number: libc::c_long, args: &str| format!("call:{number},{args}");
    expected.extend([
        (with(libc::SYS_unshare, "0x10000000"), "EPERM"),
        (with(libc::SYS_unshare, "0x00020000"), "EPERM"),
        (with(libc::SYS_clone, "0x10000011,0,0,0,0"), "EPERM"),
        (with(libc::SYS_personality, "0x0040000"), "EPERM"),
        (with(libc::SYS_personality, "0xffffffff"), "ok"),
        ("type:".to_owned(), "EPERM"),
        // What programs live on.
        ("thread:".to_owned(), "ok"),
        ("exec:/bin/true".to_owned(), "ok"),
        (with(libc::SYS_unshare, "0x400"), "ok"),
    ]);
    let expected: Vec<_> = expected.iter().map(|(word, outcome)| (word.as_str(), *outcome)).collect();
    expect(&host, &mut node, plan, &expected).await;
}

#[tokio::test]
async fn a_kept_capability_lifts_the_calls_that_need_it() {
    if !is_root() {
        return crate::skip::skip(
            "a_kept_capability_lifts_the_calls_that_need_it",
            "only root has capabilities to keep",
        );
    }
    let mut host = Host::new();
    let mut node = host.node().await;
    // The kernel's own answers to such arguments.
    for (kept, number, lifted) in [
        ("SYS_ADMIN", libc::SYS_mount, "EFAULT"),
        ("SYS_ADMIN", libc::SYS_setns, "EBADF"),
        ("SYS_CHROOT", libc::SYS_chroot, "EFAULT"),
        ("SYS_PTRACE", libc::SYS_process_vm_readv, "EINVAL"),
        ("SYS_TIME", libc::SYS_adjtimex, "EFAULT"),
    ] {
        let word = format!("call:{number},-1,-1,-1,-1,-1,-1");
        let mut plan = probe(&mut host, "lifted", &[]);
        plan.confinement.capabilities = capabilities(&[kept]);
        expect(&host, &mut node, plan, &[(&word, lifted)]).await;
        let mut plan = probe(&mut host, "other", &[]);
        plan.confinement.capabilities = capabilities(&["NET_RAW"]);
        expect(&host, &mut node, plan, &[(&word, "EPERM")]).await;
    }
}
