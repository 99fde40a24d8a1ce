#!/usr/bin/env bash
# Runs those tests again that are about the kernel, in virtual machines: with one real cgroup2 tree, and with Landlock's interface at
# version 2 and 6. One boot for each kernel. `scripts/vm.sh setup` must have run.
#
#   scripts/vm-tests.sh [KERNEL...]     (6.12 and 6.1)

set -euo pipefail
cd "$(dirname "$0")/.."

readonly TESTS=(escapes:: limits:: sandbox:: spaces::)
# An emulated machine starts processes fifty times slower.
readonly SECONDS_MAX=900

kernels=("$@")
((${#kernels[@]} > 0)) || kernels=(6.12 6.1)

tests=$(cargo test --locked --test real --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"target":{[^}]*"name":"real".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[[ -x $tests ]] || {
    echo "vm-tests.sh: the tests cannot be built" >&2
    exit 1
}
program=$(dirname "$(dirname "$tests")")/narun
# Not beneath /tmp, which is the guest's own.
escapes=$(mktemp -d -p "$(dirname "$program")" escapes.XXXXXX)
trap 'rm -rf "$escapes"' EXIT
chmod 755 "$escapes"
tests/escapes/build.sh "$escapes"

# Python without its own tests, which are half of it.
python=$(readlink -f /usr/bin/python3)
library=/usr/lib/$(basename "$python")
packed=()
for path in "$library"/*; do
    [[ $path == */test || $path == */idlelib || $path == */config-* ]] || packed+=(-p "$path")
done

# The guest's busybox has some of these with fewer options, and cannot be told apart when it is copied under another name.
for program_name in cat env id ls readlink sh sleep stat true wc setpriv unshare nsenter; do
    packed+=(-p "$program_name")
done

for kernel in "${kernels[@]}"; do
    echo "==> kernel $kernel"
    # The node's program stands where the tests were told that it stands when they were built.
    scripts/vm.sh run -k "$kernel" -m 2048 -t "$SECONDS_MAX" \
        -p "$program" -p "$escapes" -p "$PWD/tests/escapes" \
        -p /usr/bin/python3 "${packed[@]}" \
        -e NARUN_TEST_ESCAPES="$escapes" -e RUST_BACKTRACE=0 -e NARUN_TEST_SLOW=1 \
        -- "$tests" --test-threads=2 --show-output "${TESTS[@]}"
done
