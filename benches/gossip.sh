#!/usr/bin/env bash
# Takes the figures of gossip and membership with real nodes on this machine: narun and, in the same run, Serf, which is fetched
# from Debian. Prints Markdown. Under 15 minutes with 100 nodes; leave the machine alone meanwhile. Needs root, for namespaces.
#
#   benches/gossip.sh                      all figures
#   benches/gossip.sh death silent         some of them; `--help` names them
#   NODES=20 benches/gossip.sh change      a smaller cluster
#
# NARUN names the binary of narun (without it the release build is made first), SERF the one of Serf, TMPDIR where the nodes'
# folders go: what that disk takes for a write is a part of narun's figures.

set -euo pipefail
cd "$(dirname "$0")/.."

# The version that the goals were set against.
SERF_VERSION=0.9.4
# 100 nodes, two processes each, and two connections to each of them.
OPEN_FILES=20000

fail() {
    echo "gossip.sh: $*" >&2
    exit 1
}

for word in "$@"; do
    if [[ $word == --help || $word == -h ]]; then
        exec python3 -B benches/gossip/measure.py --help
    fi
done
[[ $EUID == 0 ]] || fail "only root may make the namespaces that the nodes run in"
for program in ip python3 unshare; do
    command -v "$program" >/dev/null || fail "\`$program\` is missing: apt-get install iproute2 python3 util-linux"
done

folder=$(mktemp -d -t narun-gossip-XXXXXX)
child=
# shellcheck disable=SC2317  # The trap calls it.
clean() {
    # With its first process a PID namespace ends, and with unshare its first process (--kill-child). So nothing is left
    # behind, however this script ends.
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

# Taken out of its package and not installed: the package would start an agent of its own.
fetch_serf() {
    local package version
    command -v apt-get >/dev/null || fail "no apt-get to fetch Serf with; name its binary in SERF"
    mkdir "$folder/package"
    (
        cd "$folder/package"
        apt-get download -qq -o APT::Sandbox::User=root serf ||
            { apt-get update -qq && apt-get download -qq -o APT::Sandbox::User=root serf; }
    ) >&2 || fail "Debian's package \`serf\` cannot be fetched; name the binary in SERF"
    package=$(echo "$folder"/package/serf_*.deb)
    version=$(dpkg-deb -f "$package" Version)
    [[ $version == "$SERF_VERSION"* ]] || echo "gossip.sh: Serf $version instead of $SERF_VERSION" >&2
    dpkg-deb -x "$package" "$folder/package"
    serf=$folder/package/usr/bin/serf
    serf_version=$version
}

serf=${SERF-}
serf_version="of $serf"
[[ -n $serf ]] || fetch_serf
for binary in "$narun" "$serf"; do
    [[ -x $binary ]] || fail "\`$binary\` is no program"
done

ulimit -n "$OPEN_FILES" 2>/dev/null || ulimit -n "$(ulimit -Hn)"

# A network of their own: nothing else uses its ports, and its counters count nothing else. The shell inside is the namespace's
# first process and buries the keepers whose nodes were killed.
# shellcheck disable=SC2016  # The shell inside expands them.
unshare --net --pid --mount-proc --fork --kill-child -- bash -c 'ip link set lo up && "$@"; exit $?' gossip \
    python3 -B benches/gossip/measure.py --narun "$narun" --serf "$serf" --serf-version "$serf_version" \
    --folder "$folder" --nodes "${NODES:-100}" "$@" &
child=$!
wait "$child" && status=0 || status=$?
child=
exit "$status"
