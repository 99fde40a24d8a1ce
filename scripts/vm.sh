#!/usr/bin/env bash
# A throw-away virtual machine with a kernel of its own and one real cgroup2 tree, up and gone in a few seconds, without KVM.
#
#   scripts/vm.sh setup                          fetch what is needed: qemu, busybox, two kernels of Debian (never installed)
#   scripts/vm.sh run [OPTIONS] -- PROGRAM ARG...  run PROGRAM in it as root, print what it prints, exit as it exits
#     -k 6.1|6.12    which kernel: Landlock's interface is at version 2 in the one and 6 in the other (default 6.12)
#     -p PATH        also pack this file or folder, at the same path; a program with the libraries that it needs; may be repeated
#     -e NAME=VALUE  a variable for PROGRAM; may be repeated
#     -m MIB         memory (default 1024)
#     -t SECONDS     how long it may take (default 300; then exit code 124)
#
# All of it lives in memory: the guest's root is an initramfs of what was packed. The emulation runs compiled code at half speed or
# so, and starts processes fifty times slower: good for finding out what is right, never how fast it is.

set -euo pipefail

readonly HOME_DIR=${NARUN_VM_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/narun-vm}
# What Debian calls the kernels, and the modules without which they cannot say anything to the outside.
declare -rA PACKAGES=([6.1]=linux-image-6.1 [6.12]=linux-image-6.12)
declare -rA METAPACKAGES=([6.1]=linux-image-cloud-amd64 [6.12]=linux-image-6.12-cloud-amd64)
declare -rA MODULES=(
    [6.1]="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console"
    [6.12]=""
)
# The guest ended without a word.
readonly EXIT_SILENT=125

fail() {
    echo "vm.sh: $*" >&2
    exit 2
}

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

# setup

setup() {
    export DEBIAN_FRONTEND=noninteractive
    mkdir -p "$HOME_DIR/packages"
    apt-get update -qq
    # Kernels of later releases stand among the backports of security.
    apt-get install -y -qq --no-install-recommends qemu-system-x86 cpio zstd >/dev/null
    (cd "$HOME_DIR/packages" && apt-get download -qq busybox-static 2>/dev/null)
    dpkg-deb -x "$HOME_DIR"/packages/busybox-static_*.deb "$HOME_DIR/busybox"
    local kernel
    for kernel in "${!PACKAGES[@]}"; do
        fetch_kernel "$kernel"
    done
}

fetch_kernel() {
    local kernel=$1 package image
    [[ -s $HOME_DIR/$kernel/vmlinux ]] && return
    # The name holds the version of the day.
    package=$(apt-cache depends "${METAPACKAGES[$kernel]}" | awk -v start="${PACKAGES[$kernel]}" '$1 == "Depends:" && index($2, start) { print $2; exit }')
    [[ -n $package ]] || fail "Debian has no kernel $kernel here"
    (cd "$HOME_DIR/packages" && apt-get download -qq "$package" 2>/dev/null)
    rm -rf "${HOME_DIR:?}/$kernel"
    dpkg-deb -x "$HOME_DIR/packages/$package"_*.deb "$HOME_DIR/$kernel"
    image=$(echo "$HOME_DIR/$kernel"/boot/vmlinuz-*)
    uncompress "$image" >"$HOME_DIR/$kernel/vmlinux" 2>/dev/null || cp "$image" "$HOME_DIR/$kernel/vmlinux"
    echo "kernel $kernel: $(basename "$image")"
}

# The kernel inside the compressed image, if it is to be found: emulated, uncompressing takes longer than all else.
uncompress() {
    local magic offset
    for magic in '\x28\xb5\x2f\xfd zstd -dcq' '\xfd7zXZ\x00 xz -dcq'; do
        offset=$(LC_ALL=C grep -aboP "${magic%% *}" "$1" | head -1 | cut -d: -f1 || true)
        [[ -n $offset ]] || continue
        # The image goes on behind the compressed part, which the tools complain of.
        tail -c +$((offset + 1)) "$1" | ${magic#* } 2>/dev/null | cat >"$1.raw" || true
        if [[ $(head -c 4 "$1.raw") == $'\x7fELF' ]]; then
            cat "$1.raw"
            rm "$1.raw"
            return
        fi
    done
    return 1
}

# run

run() {
    local kernel=6.12 memory=1024 limit=300 paths=() variables=() option OPTARG OPTIND
    while getopts k:p:e:m:t: option; do
        case $option in
        k) kernel=$OPTARG ;;
        p) paths+=("$OPTARG") ;;
        e) variables+=("$OPTARG") ;;
        m) memory=$OPTARG ;;
        t) limit=$OPTARG ;;
        *) usage >&2 && exit 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    (($# > 0)) || fail "which program?"
    [[ -n ${PACKAGES[$kernel]:-} ]] || fail "no kernel $kernel; there are ${!PACKAGES[*]}"
    [[ -s $HOME_DIR/$kernel/vmlinux ]] || fail "there is no kernel yet; run \`scripts/vm.sh setup\` first"

    work=$(mktemp -d -t narun-vm.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"/root/{dev,etc,modules,proc,root,run,sys,tmp,usr,var}
    # As Debian has it.
    local folder
    for folder in bin sbin lib lib64; do
        mkdir "$work/root/usr/$folder"
        ln -s "usr/$folder" "$work/root/$folder"
    done
    install -m 755 "$HOME_DIR/busybox/bin/busybox" "$work/root/bin/busybox"
    local path
    for path in "$1" "${paths[@]}"; do
        pack "$path"
    done
    pack_modules "$kernel"
    users
    program "$work/root/program" "$@"
    init "$work/root/init"
    (cd "$work/root" && find . -print0 | cpio --null -o -H newc --quiet) >"$work/initramfs"
    boot "$kernel" "$memory" "$limit"
}

# Puts a file or folder where it is here; programs with their libraries.
pack() {
    local path=$1 target
    [[ $path == */* ]] || path=$(type -P "$path") || fail "no program $1"
    [[ -e $path ]] || fail "no such file: $1"
    # Links as they are, and what the last of them leads to.
    while [[ -L $path ]]; do
        mkdir -p "$work/root$(dirname "$path")"
        cp -a "$path" "$work/root$path"
        target=$(readlink "$path")
        [[ $target == /* ]] || target=$(dirname "$path")/$target
        path=$(realpath -s "$target")
    done
    path=$(readlink -f "$path")
    mkdir -p "$work/root$(dirname "$path")"
    if [[ -d $path ]]; then
        cp -a "$path" "$work/root$(dirname "$path")/"
        { find "$path" -name '*.so' -print0 | xargs -0 -r ldd 2>/dev/null || true; } | pack_libraries
        return
    fi
    cp -a "$path" "$work/root$path"
    [[ -x $path ]] || return 0
    # What tells a debugger where it is is the larger part of a program, and copying it in the guest's memory takes time.
    strip --strip-debug "$work/root$path" 2>/dev/null || true
    { ldd "$path" 2>/dev/null || true; } | pack_libraries
}

# Those that ldd names.
pack_libraries() {
    local library
    # Of several files, ldd also names each with a colon behind it.
    { grep -o '/[^ ]*' | grep -v ':$' || true; } | sort -u | while read -r library; do
        mkdir -p "$work/root$(dirname "$library")"
        cp -nL "$library" "$work/root$library"
    done
}

pack_modules() {
    local name file
    for name in ${MODULES[$1]}; do
        file=$(find "$HOME_DIR/$1" -name "$name.ko*" | head -1)
        [[ -n $file ]] || fail "kernel $1 has no module $name"
        cp "$file" "$work/root/modules/"
        echo "/modules/$(basename "$file")" >>"$work/root/modules/order"
    done
}

users() {
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >"$work/root/etc/passwd"
    printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'nogroup:x:65534:' >"$work/root/etc/group"
    printf '127.0.0.1 localhost\n' >"$work/root/etc/hosts"
}

# The script that is the program, with variables and arguments as they were given here.
program() {
    local file=$1 path variable argument
    shift
    path=$(readlink -f "$(type -P "$1")")
    shift
    {
        echo '#!/bin/sh'
        for variable in "${variables[@]}"; do
            printf 'export %q\n' "$variable"
        done
        printf 'exec %q' "$path"
        for argument in "$@"; do
            printf ' %q' "$argument"
        done
        echo
    } >"$file"
    chmod 755 "$file"
}

init() {
    cat >"$1" <<'INIT'
#!/bin/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# Where there is another program of that name already, that one stays.
/bin/busybox --install -s 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
for place in /dev/shm /tmp /run; do mount -t tmpfs -o mode=1777 tmp "$place"; done
ln -sfn /proc/self/fd /dev/fd
mount -t securityfs security /sys/kernel/security
mount -t cgroup2 cgroup /sys/fs/cgroup
if [ -s /modules/order ]; then
    while read -r module; do insmod "$module"; done </modules/order
fi
ip link set lo up
chmod 755 /
cd /root
/program >/dev/vport0p1 2>&1 </dev/null
echo "$?" >/dev/vport0p2
poweroff -f
INIT
    chmod 755 "$1"
}

boot() {
    local kernel=$1 memory=$2 limit=$3 printer status=0
    mkfifo "$work/output"
    cat "$work/output" &
    printer=$!
    timeout "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" \
        -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$HOME_DIR/$kernel/vmlinux" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet panic=-1 rdinit=/init psi=1 nokaslr no_timer_check tsc=reliable" \
        -serial "file:$work/console" -device virtio-serial-pci \
        -chardev "file,id=output,path=$work/output" -device virtserialport,chardev=output,nr=1 \
        -chardev "file,id=status,path=$work/status" -device virtserialport,chardev=status,nr=2 </dev/null || status=$?
    # Whoever reads the pipe must see its end, though nobody may ever have opened it.
    timeout 1 sh -c ": >'$work/output'" || true
    wait "$printer"
    if ((status == 0)) && [[ -s $work/status ]]; then
        exit "$(cat "$work/status")"
    fi
    tail -n 20 "$work/console" >&2 || true
    ((status == 124)) && exit 124
    exit "$EXIT_SILENT"
}

case ${1:-} in
setup) setup ;;
run) shift; run "$@" ;;
-h | --help) usage ;;
*) usage >&2 && exit 2 ;;
esac
