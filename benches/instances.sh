#!/usr/bin/env bash
# Takes the figures of instances on this machine: how soon a sandboxed program runs, beside other sandboxes; and how soon many are
# up, stopped and found again, beside other supervisors, all in one run. Prints JSON, an object a line. About five minutes; leave
# the machine alone meanwhile. Needs root, for control groups; the peers are fetched from Debian, PyPI and npm.
#
#   benches/instances.sh [start] [many]
#
# NARUN names the binary of narun; without it the release build is made first.

set -euo pipefail
cd "$(dirname "$0")/.."

[[ $EUID == 0 ]] || {
    echo "instances.sh: only root may set limits" >&2
    exit 1
}
parts=("$@")
((${#parts[@]} > 0)) || parts=(start many)

folder=$(mktemp -d -t narun-instances-XXXXXX)
trap 'rm -rf "$folder"' EXIT

narun=${NARUN-}
if [[ -z $narun ]]; then
    cargo build --release --locked >&2
    narun=${CARGO_TARGET_DIR:-target}/release/narun
fi
narun=$(readlink -f "$narun")

{
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    packages=(bubblewrap firejail runc s6 runit python3-venv)
    # Whoever has it from elsewhere cannot have Debian's beside it.
    command -v npm >/dev/null || packages+=(npm)
    apt-get install -y -qq --no-install-recommends "${packages[@]}"
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install -q cbor2 supervisor
    npm install --silent --no-fund --no-audit --prefix "$folder/node" pm2
} >&2
export PATH="$folder/python/bin:$folder/node/node_modules/.bin:$PATH"

for part in "${parts[@]}"; do
    case $part in
    start)
        cc -O2 -static -o "$folder/stamp" benches/instances/stamp.c
        cc -O2 -o "$folder/spawner" benches/instances/spawner.c
        python3 -B benches/instances/start.py "$narun" "$folder"
        ;;
    many)
        NARUN_BIN=$narun python3 -B benches/instances/many.py
        python3 -B benches/instances/supervisors.py
        ;;
    *)
        echo "instances.sh: no part \`$part\`; there are start and many" >&2
        exit 2
        ;;
    esac
done
