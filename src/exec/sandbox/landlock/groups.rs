//! The groups of files that programs commonly need, as they lie on Debian, Fedora, Alpine and Arch. Pure data.
//!
//! Paths that a host does not have are passed over. A link stands for what it leads to. No group opens a folder in which secrets
//! lie as well: not /etc, not /etc/ssl with its private keys, not /proc with what belongs to others. Descriptors 0 to 2 need no
//! rule, and neither does `/dev/fd/1`: what is open stays open, and pipes have no place in the file system.

use crate::confinement::{Group, Modes};

const R: Modes = Modes { read: true, write: false, execute: false, create: false };
const RW: Modes = Modes { read: true, write: true, execute: false, create: false };
const RX: Modes = Modes { read: true, write: false, execute: true, create: false };
const RWC: Modes = Modes { read: true, write: true, execute: false, create: true };

/// What a group opens, and how.
pub(super) fn paths(group: Group) -> impl Iterator<Item = (&'static str, Modes)> {
    let parts: &[(Modes, &[&str])] = match group {
        Group::Shared => &[(RX, LIBRARIES), (R, LOADER), (RW, &["/dev/null"])],
        Group::Stdio => {
            &[(RW, &["/dev/null", "/dev/zero", "/dev/full"]), (R, RANDOM), (R, LOCALES), (R, KERNEL_SETTINGS)]
        }
        Group::Tty => &[(RW, &["/dev/tty", "/dev/console"]), (R, TERMINALS)],
        Group::Tmp => &[(RWC, &["/tmp"])],
        Group::Vminfo => &[(R, FIGURES)],
        Group::Dns => &[(R, NAMES)],
        Group::Certs => &[(R, CERTIFICATES)],
    };
    parts.iter().flat_map(|(modes, paths)| paths.iter().map(|path| (*path, *modes)))
}

/// Libraries, and what is loaded like them. On a host with a merged /usr some of these are one folder.
const LIBRARIES: &[&str] = &[
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libx32",
    "/usr/local/lib",
    "/usr/local/lib64",
];

/// What the dynamic loaders of glibc and musl read, ld.so(8).
const LOADER: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/ld-musl-x86_64.path",
    "/etc/ld-musl-aarch64.path",
];

const RANDOM: &[&str] = &["/dev/random", "/dev/urandom"];

const LOCALES: &[&str] = &[
    "/usr/share/locale",
    "/usr/share/i18n",
    "/usr/share/zoneinfo",
    "/usr/lib/locale",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/default/locale",
];

/// Settings that run-time libraries and servers look at, proc_sys(5).
const KERNEL_SETTINGS: &[&str] = &[
    "/proc/sys/kernel/cap_last_cap",
    "/proc/sys/kernel/ngroups_max",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/ostype",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/kernel/random",
    "/proc/sys/kernel/version",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/overcommit_memory",
];

/// Descriptions of terminals, terminfo(5).
const TERMINALS: &[&str] = &[
    "/etc/terminfo",
    "/lib/terminfo",
    "/usr/lib/terminfo",
    "/usr/share/terminfo",
    "/usr/share/misc/termcap",
    "/etc/inputrc",
];

/// Figures of the machine and, under `self`, those of the program itself (of its first process, since others begin later).
const FIGURES: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/self",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/proc/vmstat",
    "/proc/zoneinfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/hugepages",
    "/sys/kernel/mm/transparent_hugepage",
];

/// What look-ups of names read. The resolver's own folders stand beside `resolv.conf`, which often is a link into one of them to a
/// file that is replaced whenever the network changes.
const NAMES: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/networks",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/run/resolvconf",
    "/run/systemd/resolve",
];

/// Certificates of public authorities, and the settings that libraries read before them.
const CERTIFICATES: &[&str] = &[
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/ca-certs",
    "/usr/share/crypto-policies",
    "/usr/share/pki/ca-trust-source",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_opens_a_folder_with_secrets_or_can_be_written_and_executed() {
        let secret =
            ["/", "/etc", "/etc/ssl", "/etc/ssl/private", "/etc/pki", "/etc/pki/tls", "/proc", "/sys", "/dev", "/run"];
        for (path, modes) in Group::ALL.into_iter().flat_map(paths) {
            assert!(!secret.contains(&path), "{path}");
            assert!(path.starts_with('/') && !path.ends_with('/'), "{path}");
            assert!(!(modes.write && modes.execute), "{path}");
        }
    }
}
