#!/usr/bin/env bash
# Builds the fuzz targets with the stable compiler and runs each for so many seconds: fuzz/run.sh SECONDS [TARGET...]

set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
targets=("$@")
if ((${#targets[@]} == 0)); then
    for file in fuzz_targets/*.rs; do
        targets+=("$(basename "$file" .rs)")
    done
fi

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} CARGO_INCREMENTAL=0
# What cargo-fuzz asks of the compiler for coverage, all of it stable.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
export RUSTFLAGS
# Named, so that build scripts and macros, which run without libFuzzer, are built without coverage.
host=$(rustc -vV | sed -n 's/^host: //p')
nice -n 19 cargo build --locked --bins --target "$host"

found=()
for target in "${targets[@]}"; do
    # What is learnt on the way goes to a folder of its own; the corpus in the repository stays as it is.
    learnt=$CARGO_TARGET_DIR/learnt/$target
    mkdir -p "$learnt" "artifacts/$target"
    echo "==> $target"
    nice -n 19 "$CARGO_TARGET_DIR/$host/debug/$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="artifacts/$target/" -print_final_stats=1 "$learnt" "corpus/$target" 2>&1 | tail -n 15 || found+=("$target")
done
if ((${#found[@]} > 0)); then
    echo "found something: ${found[*]}"
    exit 1
fi
