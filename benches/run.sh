#!/usr/bin/env bash
# Takes the figures that the README states, with the release build, and prints them as a table. About ten minutes after
# building; leave the machine alone meanwhile.

set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z ${NARUN_BIN-} ]]; then
    cargo build --release --locked
    NARUN_BIN=${CARGO_TARGET_DIR:-target}/release/narun
fi
exec python3 benches/measure.py --narun "$NARUN_BIN" "$@"
