#!/usr/bin/env bash
# Looks for the world in pure code: clocks, tasks, sockets, files, random sources, unordered maps.
#
# What clippy.toml denies, clippy finds by type; this finds what clippy cannot name (whole modules, `.await`) and needs no
# build. Comments do not count.

set -euo pipefail
cd "$(dirname "$0")/.."

# The pure rooms. A file or folder that is not there any more is an error: it was moved, and would go unchecked.
pure=(
    src/ids.rs
    src/time.rs
    src/capacity.rs
    src/confinement.rs
    src/spec
    src/crdt
    src/gossip/membership
    src/gossip/dissemination.rs
    src/gossip/sync.rs
    src/gossip/message.rs
    src/node/engine
    src/exec/plan.rs
    src/exec/supervisor.rs
    src/exec/backoff.rs
    src/blobs/image.rs
    src/blobs/plan.rs
    src/ledger/time.rs
    src/ledger/run.rs
    src/ledger/command.rs
    src/ledger/question.rs
    src/ledger/machine
    src/ledger/office
    src/ledger/voters.rs
    src/ledger/duty
    src/ledger/raft/forms.rs
    src/ledger/raft/wire.rs
    src/ledger/raft/sound.rs
)

# Addresses of `std::net` and strings of `std::os::unix::ffi` are plain values; sockets and descriptors are not.
world='\btokio::|\.await\b|\basync fn\b'
world+='|\bstd::(fs|process|thread|env|os::(fd|linux|unix::(fs|net|process|thread)))\b|\b(Tcp|Udp|Unix)(Stream|Listener|Socket|Datagram)\b'
world+='|\bInstant::now\b|\bSystemTime\b|\b(Utc|Local)::now\b'
world+='|\bthread_rng\b|\brand::(rng|random|random_range|make_rng)\b|\bgetrandom\b|\bOsRng\b|\bThreadRng\b'
world+='|\bHash(Map|Set)\b|\b(Mutex|RwLock|Condvar)\b|\b(libc|nix)::'

for path in "${pure[@]}"; do
    if [[ ! -e $path ]]; then
        echo "check-purity: \`$path\` is not there; name its new place in scripts/check-purity.sh" >&2
        exit 1
    fi
done

# The text of each line up to a comment, so that a word in prose is no finding. Test files may do as they like.
code=$(
    find "${pure[@]}" -name '*.rs' ! -name 'tests.rs' ! -path '*/tests/*' -print0 | sort -z |
        xargs -0 grep -Hn '' | sed 's#//.*##'
)

status=0
found=$(grep -P "^[^:]+:[0-9]+:.*($world)" <<<"$code") || status=$?
case $status in
0)
    echo "$found" >&2
    echo "check-purity: pure code reaches for the world (above); take it as an input, or give it back as an effect" >&2
    exit 1
    ;;
1) echo "check-purity: $(wc -l <<<"$code") lines in the pure rooms, all of them pure" ;;
*) exit "$status" ;;
esac
