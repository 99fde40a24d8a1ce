#!/usr/bin/env bash
# Takes the figures of cron with real nodes on this machine, beside Debian's cron, APScheduler and etcd, all in one run. Prints JSON, an
# object a line. About 20 minutes; leave the machine alone meanwhile. Needs root, for control groups and namespaces; the peers are
# fetched from Debian and PyPI, and none is installed.
#
#   benches/cron.sh                      all figures
#   benches/cron.sh rush claim           some of them: rush lone idle loss claim schedules
#   SPECS=100 ROUNDS=1 benches/cron.sh rush
#
# NARUN names the binary of narun, LIBRARY the one of benches/cron/library.rs; without them the release builds are made first. TMPDIR is
# where nodes and members keep their data: what that disk takes for a write is the larger part of a claim, and of a put.

set -euo pipefail
cd "$(dirname "$0")/.."

SPECS=${SPECS:-500}
IDLE=${IDLE:-10000}
ROUNDS=${ROUNDS:-3}
CLAIMS=${CLAIMS:-3000}
SCHEDULES=${SCHEDULES:-100000}
# Three nodes that hold ten thousand specs.
OPEN_FILES=20000

fail() {
    echo "cron.sh: $*" >&2
    exit 1
}

[[ $EUID == 0 ]] || fail "only root may set limits and make the namespaces that the nodes run in"
for program in cc ip nft nsenter python3 unshare; do
    command -v "$program" >/dev/null ||
        fail "\`$program\` is missing: apt-get install gcc libc6-dev iproute2 nftables python3 python3-venv util-linux"
done
parts=("$@")
((${#parts[@]} > 0)) || parts=(rush lone idle loss claim schedules)
for part in "${parts[@]}"; do
    [[ " rush lone idle loss claim schedules " == *" $part "* ]] || fail "no part \`$part\`; there are rush, lone, idle, loss, claim and schedules"
done

folder=$(mktemp -d -t narun-cron-XXXXXX)
child=
# shellcheck disable=SC2317  # The trap calls it.
clean() {
    # With its first process a PID namespace ends, and with unshare its first process (--kill-child): nothing is left behind.
    if [[ -n $child ]]; then
        kill -KILL "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

narun=${NARUN-}
if [[ -z $narun ]]; then
    cargo build --release --locked >&2
    narun=${CARGO_TARGET_DIR:-target}/release/narun
fi
narun=$(readlink -f "$narun")
[[ -x $narun ]] || fail "\`$narun\` is no program"

has() { [[ " ${parts[*]} " == *" $1 "* ]]; }

library=${LIBRARY-}
if [[ -z $library ]] && { has claim || has schedules; }; then
    cargo bench --locked --bench library --no-run --message-format json >"$folder/built"
    library=$(python3 -c 'import json, sys
print(*(m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "library"))' <"$folder/built")
fi

# Taken out of their packages and not installed: the packages would start daemons of their own.
fetch() {
    mkdir -p "$folder/packages" "$folder/peers"
    (
        cd "$folder/packages"
        apt-get download -qq -o APT::Sandbox::User=root "$@" ||
            { apt-get update -qq && apt-get download -qq -o APT::Sandbox::User=root "$@"; }
        for package in *.deb; do
            dpkg-deb -x "$package" "$folder/peers"
        done
    ) >&2 || fail "Debian's packages cannot be fetched: $*"
}

python=python3
if has rush || has claim; then
    fetch cron etcd-server
    python3 -m venv "$folder/python" >&2
    "$folder/python/bin/pip" install -q apscheduler grpcio >&2
    python=$folder/python/bin/python3
fi
cc -O2 -static -o "$folder/stamp" benches/cron/stamp.c
# Landlock opens it to whoever runs it, and narun's nodes find it there.
chmod 0755 "$folder" "$folder/stamp"

ulimit -n "$OPEN_FILES" 2>/dev/null || ulimit -n "$(ulimit -Hn)"

# A network, mounts and processes of their own: nothing else is seen or met by what is measured, and nothing of it stays behind. What a
# daemon keeps under /run and /var/spool it keeps there. Debian's cron reads its table from /etc: over that lies what came with its package,
# and what is written here.
# shellcheck disable=SC2016  # The shell inside expands them.
enclosed() {
    unshare --net --mount --pid --mount-proc --fork --kill-child -- bash -c '
        set -e
        ip link set lo up
        mount -t tmpfs none /run
        mount -t tmpfs none /var/spool
        mkdir -p /run/netns "$0/peers/etc" "$0/over"
        mount -t tmpfs none "$0/over"
        mkdir "$0/over/upper" "$0/over/work"
        mount -t overlay -o "lowerdir=$0/peers/etc:/etc,upperdir=$0/over/upper,workdir=$0/over/work" overlay /etc
        "$@"
        exit $?' "$folder" "$@" &
    child=$!
    local status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

measure() {
    enclosed python3 -B benches/cron/measure.py "$@" --narun "$narun" --stamp "$folder/stamp" --specs "$SPECS" --idle "$IDLE" --rounds "$ROUNDS"
}

peer() {
    enclosed "$python" -B benches/cron/peers.py "$@" --stamp "$folder/stamp" --specs "$SPECS" --cron "$folder/peers/usr/sbin/cron" \
        --etcd "$folder/peers/usr/bin/etcd" --count "$CLAIMS"
}

for part in "${parts[@]}"; do
    case $part in
    rush)
        measure rush
        peer cron
        peer apscheduler
        ;;
    claim)
        # In turns, so that a busy moment of the machine hits both.
        for turn in 1 2; do
            mkdir "$folder/claims-$turn"
            enclosed "$library" claims "$CLAIMS" "$folder/claims-$turn"
            peer etcd
        done
        ;;
    schedules) "$library" schedules "$SCHEDULES" ;;
    *) measure "$part" ;;
    esac
done
