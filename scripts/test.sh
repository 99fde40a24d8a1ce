#!/usr/bin/env bash
# Runs the tests, after installing the few Debian packages that they use, where it may. Words are handed on to `cargo test`.
#
# A test that cannot run here appends a line to the file that NARUN_TEST_SKIPS names; they are shown at the end. In CI
# (CI=true) a skipped test is a failure.

set -euo pipefail
cd "$(dirname "$0")/.."

# The programs that tests run, and the packages that have them. Nobody here wrote them: that is why they are used.
programs=(
    "busybox busybox-static"
    "caddy caddy"
    "cc gcc libc6-dev"
    "curl curl"
    "ip iproute2"
    "nft nftables"
    "nginx nginx-light"
    "python3 python3"
    "redis-server redis-server"
    "setpriv util-linux"
)

missing_packages() {
    local entry program packages
    for entry in "${programs[@]}"; do
        read -r program packages <<<"$entry"
        command -v "$program" >/dev/null || tr ' ' '\n' <<<"$packages"
    done
}

install_packages() {
    echo "test: installing $*" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; } || return
    # The tests start their own servers. Those that the packages have just started are not wanted.
    if [[ -d /run/systemd/system ]]; then
        local package
        for package in "$@"; do
            case $package in
            redis-server | caddy) systemctl disable --now "$package" >&2 ;;
            nginx-light) systemctl disable --now nginx >&2 ;;
            esac
        done
    fi
}

mapfile -t missing < <(missing_packages)
if ((${#missing[@]} > 0)) && [[ $EUID == 0 ]] && command -v apt-get >/dev/null; then
    install_packages "${missing[@]}" || echo "test: not all of that could be installed" >&2
    mapfile -t missing < <(missing_packages)
fi
if ((${#missing[@]} > 0)); then
    echo "test: the tests that use these packages will be skipped: ${missing[*]}" >&2
    echo "test: as root, \`apt-get install ${missing[*]}\`" >&2
    [[ ${CI-} != true ]] || exit 1
fi

NARUN_TEST_SKIPS=$(mktemp)
export NARUN_TEST_SKIPS
trap 'rm -f "$NARUN_TEST_SKIPS"' EXIT

status=0
cargo test --locked "$@" || status=$?

if [[ -s $NARUN_TEST_SKIPS ]]; then
    echo
    echo "test: $(wc -l <"$NARUN_TEST_SKIPS") skipped:"
    sort "$NARUN_TEST_SKIPS"
    [[ ${CI-} != true ]] || status=1
fi
exit "$status"
