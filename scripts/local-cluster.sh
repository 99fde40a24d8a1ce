#!/usr/bin/env bash
# A cluster of real nodes on this machine, for trying things out and for seeing hosts die.
#
# Each node has its own folder with its data directory, its log, and the process that this script started for it. A process
# is known by its number together with the time of its start, so that a number the kernel has given to somebody else since
# is never signalled.

set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cluster=${NARUN_CLUSTER_DIR:-${XDG_RUNTIME_DIR:-/tmp}/narun-cluster-$UID}

# shellcheck source=scripts/namespaces.sh
source "$repository/scripts/namespaces.sh"

# Ports are the kernel's choice; only this host can reach them.
readonly LISTEN=127.0.0.1:0
# A node serves within 100 ms on an idle machine. These are for one that compiles something besides.
readonly READY_SECONDS=30
readonly STOP_SECONDS=60
# Half of the time in which one blinks.
readonly LOOK_EVERY=0.1
# What three machines would rarely exceed, and one machine carries with ease.
readonly NODES_MAX=50

usage() {
    cat <<'TEXT'
A cluster of real nodes on this machine.

  scripts/local-cluster.sh demo       build, bring up three nodes, deploy, kill a host, watch; leaves the cluster up
  scripts/local-cluster.sh up [N] [--namespaces]
                                      build, bring up N nodes (3), named n1 to nN; with --namespaces (as root) each
                                      with an address of its own, so that the network between them can be cut
  scripts/local-cluster.sh status     the processes, and what the cluster says about itself
  scripts/local-cluster.sh env K      shell commands that point the CLI at node K:
                                      eval "$(scripts/local-cluster.sh env 2)"; narun node list
  scripts/local-cluster.sh logs K     the log of node K itself (-f follows)
  scripts/local-cluster.sh crash K    kill -9 the node process of K; its instances go on
  scripts/local-cluster.sh kill K     the death of host K: node, keeper and instances, without a word
  scripts/local-cluster.sh start K    start node K again after a crash or a death
  scripts/local-cluster.sh cut A B    nothing passes between the nodes A and the nodes B any more, as in `cut 1,2 3,4,5`
  scripts/local-cluster.sh heal       everything passes again
  scripts/local-cluster.sh down       stop everything and remove the cluster's folder

Environment:
  NARUN_CLUSTER_DIR   the cluster's folder (now: @folder@)
  NARUN_BIN           the program to run, instead of building one with `cargo build --release`
TEXT
}

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "local-cluster: $*"
    exit 1
}

# wait_until SECONDS WHAT COMMAND...: runs the command until it succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || fail "waited in vain until $what"
        sleep "$LOOK_EVERY"
    done
}

# ---- Processes -------------------------------------------------------------------------------------------------------

# The state letter and the start time of a process, out of proc(5); fails when it is gone.
process_stat() {
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    # The second field is the program's name in parentheses and may hold anything.
    read -ra fields <<<"${stat##*) }"
    echo "${fields[0]} ${fields[19]}"
}

# Whether a process is still the one that started then, and not merely waiting to be reaped.
is_process() {
    local state started
    read -r state started < <(process_stat "$1") || return 1
    [[ $started == "$2" && $state != [ZX] ]]
}

# All living processes below one, children and theirs.
living_below() {
    # What ends while it is read is no loss.
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v root="$1" '
        { pid = $1; sub(/.*\) /, ""); state[pid] = $1; parent[pid] = $2 }
        END {
            for (pid in parent) {
                if (state[pid] ~ /[ZX]/) continue
                for (above = parent[pid]; above > 1 && above != root; above = parent[above]);
                if (above == root) print pid
            }
        }'
}

# ---- Nodes -----------------------------------------------------------------------------------------------------------

folder() { echo "$cluster/n$1"; }
data_dir() { echo "$cluster/n$1/data"; }

# The CLI, pointed at node K.
ask() {
    local k=$1
    shift
    NARUN_API='' NARUN_DATA_DIR=$(data_dir "$k") "$cluster/bin/narun" "$@"
}

nodes() {
    local path
    for path in "$cluster"/n[0-9]*; do
        [[ -d $path ]] && echo "${path##*/n}"
    done | sort -n
}

# The node's process, if it lives.
node_process() {
    local pid started
    [[ -r $(folder "$1")/process ]] || return 1
    read -r pid started <"$(folder "$1")/process"
    is_process "$pid" "$started" || return 1
    echo "$pid"
}

# The keeper that the node of K started, if it lives. It publishes its number in the data directory; what it was started
# with proves that it is ours.
keeper_process() {
    local pid words
    { pid=$(<"$(data_dir "$1")/keeper.pid"); } 2>/dev/null || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    { mapfile -d '' -t words <"/proc/$pid/cmdline"; } 2>/dev/null || return 1
    [[ ${words[1]-} == keeper && ${words[3]-} == "$(realpath "$(data_dir "$1")")" ]] || return 1
    echo "$pid"
}

is_serving() { ask "$1" node list >/dev/null 2>&1; }

is_gone() { ! is_process "$1" "$2"; }

# Whether a node answers; a node that has ended says why, and ends the wait.
is_up() {
    if ! node_process "$1" >/dev/null; then
        say "local-cluster: node n$1 has ended; the end of its log:"
        tail -n 15 "$(folder "$1")/log" >&2
        exit 1
    fi
    is_serving "$1"
}

# Where the node of K listens.
listen() {
    if has_namespaces; then
        echo "$(host_address "$1"):$PORT"
    else
        echo "$LISTEN"
    fi
}

# launch K WORDS...: runs `narun WORDS` as the node of K, in a session of its own, so that a Ctrl-C here does not reach it.
launch() {
    local k=$1 pid stat enter=()
    shift
    ! has_namespaces || enter=(nsenter --net="/run/netns/$(namespace "n$k")" --)
    NARUN_API='' setsid "${enter[@]}" "$cluster/bin/narun" "$@" --data-dir "$(data_dir "$k")" \
        </dev/null >>"$(folder "$k")/output" 2>>"$(folder "$k")/log" &
    pid=$!
    disown "$pid"
    # A process that has ended already leaves no start time; `is_up` will show its log.
    stat=$(process_stat "$pid") || stat="Z 0"
    echo "$pid ${stat#* }" >"$(folder "$k")/process"
}

prepare_node() {
    mkdir -m 700 "$(folder "$1")" "$(data_dir "$1")"
}

sees_alive() {
    local alive
    alive=$(ask "$1" node list 2>/dev/null | awk '$2 == "alive"' | wc -l)
    ((alive == $2))
}

# Ends a host the hard way: first nobody may start or notice anything any more, then everything goes at once.
kill_host() {
    local k=$1 pid keeper living deadline
    if pid=$(node_process "$k"); then
        kill -KILL "$pid"
    fi
    if keeper=$(keeper_process "$k"); then
        # The keeper is the subreaper of its instances: all that they started, however it was forked, stands below it. While
        # it is stopped it starts and reaps nothing, so these numbers stay what they are.
        kill -STOP "$keeper"
        deadline=$((SECONDS + STOP_SECONDS))
        while mapfile -t living < <(living_below "$keeper") && ((${#living[@]} > 0)); do
            ((SECONDS < deadline)) || fail "instances of n$k do not end: ${living[*]}"
            kill -KILL "${living[@]}" 2>/dev/null || true
        done
        kill -KILL "$keeper"
        wait_until "$STOP_SECONDS" "the keeper of n$k is gone" is_keeper_gone "$k"
    fi
    [[ -z $pid ]] || wait_until "$STOP_SECONDS" "n$k is gone" is_node_gone "$k"
}

is_node_gone() { ! node_process "$1" >/dev/null; }
is_keeper_gone() {
    local pid
    pid=$(keeper_process "$1") || return 0
    [[ $(process_stat "$pid") == [ZX]* ]]
}

# Ends a host the orderly way, as far as there is anything left of it.
stop_host() {
    local k=$1
    if node_process "$k" >/dev/null && ask "$k" stop --timeout "${STOP_SECONDS}s" >/dev/null 2>>"$(folder "$k")/log"; then
        wait_until "$STOP_SECONDS" "n$k is gone" is_node_gone "$k"
    fi
    # A node that crashed has left its keeper behind, and one that hangs both.
    kill_host "$k"
}

# ---- Commands --------------------------------------------------------------------------------------------------------

require_cluster() {
    [[ -d $cluster/bin ]] || fail "no cluster is up; \`scripts/local-cluster.sh up\` brings one up"
}

require_node() {
    require_cluster
    [[ ${1-} =~ ^[0-9]+$ ]] || fail "say which node, by its number: $(nodes | paste -sd ' ')"
    [[ -d $(folder "$1") ]] || fail "there is no node $1; there are: $(nodes | paste -sd ' ')"
}

program() {
    if [[ -n ${NARUN_BIN-} ]]; then
        [[ -x $NARUN_BIN ]] || fail "NARUN_BIN: \`$NARUN_BIN\` is no program"
        realpath "$NARUN_BIN"
        return
    fi
    say "building narun (the first time takes some minutes)"
    (cd "$repository" && cargo build --release --locked) >&2
    (cd "$repository" && realpath "${CARGO_TARGET_DIR:-target}/release/narun")
}

up() {
    local size=3 namespaces='' word bin ticket k
    for word in "$@"; do
        case $word in
        --namespaces) namespaces=yes ;;
        *) size=$word ;;
        esac
    done
    if ! [[ $size =~ ^[1-9][0-9]?$ ]] || ((size > NODES_MAX)); then
        fail "\`up\` takes a number of nodes from 1 to $NODES_MAX"
    fi
    [[ -z $namespaces ]] || require_namespace_tools
    [[ ! -e $cluster ]] || fail "there is a cluster already in $cluster; \`scripts/local-cluster.sh down\` ends it"
    bin=$(program)
    # What is half up when this is broken off comes down again.
    trap 'trap - EXIT; say "local-cluster: broken off; taking the cluster down"; down' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    mkdir -m 700 "$cluster"
    mkdir "$cluster/bin"
    ln -s "$bin" "$cluster/bin/narun"
    [[ -z $namespaces ]] || make_namespaces "$size"

    prepare_node 1
    launch 1 start --name n1 --listen "$(listen 1)"
    wait_until "$READY_SECONDS" "n1 serves" is_up 1
    if ((size > 1)); then
        ticket=$(ask 1 ticket create --uses $((size - 1)))
        for ((k = 2; k <= size; k++)); do
            prepare_node "$k"
            launch "$k" join "$ticket" --name "n$k" --listen "$(listen "$k")"
        done
        for ((k = 2; k <= size; k++)); do
            wait_until "$READY_SECONDS" "n$k serves" is_up "$k"
        done
    fi
    for ((k = 1; k <= size; k++)); do
        wait_until "$READY_SECONDS" "n$k sees all $size nodes alive" sees_alive "$k" "$size"
    done
    trap - EXIT INT TERM HUP
    say "$size nodes are up in $cluster"
}

status() {
    local k pid keeper asked=
    require_cluster
    printf '%-5s %-9s %-9s %s\n' NODE PROCESS KEEPER DATA_DIR
    for k in $(nodes); do
        pid=$(node_process "$k") || pid=-
        keeper=$(keeper_process "$k") || keeper=-
        printf '%-5s %-9s %-9s %s\n' "n$k" "$pid" "$keeper" "$(data_dir "$k")"
        [[ -n $asked || $pid == - ]] || ! is_serving "$k" || asked=$k
    done
    if has_namespaces && [[ -s $cluster/namespaces ]]; then
        printf '\n'
        sed 's/^/cut: /' "$cluster/namespaces"
    fi
    [[ -n $asked ]] || fail "no node answers"
    printf '\n'
    ask "$asked" status
}

env_of() {
    require_node "$@"
    cat <<TEXT
export NARUN_DATA_DIR=$(printf '%q' "$(data_dir "$1")")
unset NARUN_API
export PATH=$(printf '%q' "$cluster/bin"):\$PATH
TEXT
}

crash() {
    local pid
    require_node "$@"
    pid=$(node_process "$1") || fail "node n$1 is not running"
    kill -KILL "$pid"
    wait_until "$STOP_SECONDS" "n$1 is gone" is_node_gone "$1"
    say "the node process of n$1 was killed; its instances go on"
}

kill_command() {
    require_node "$@"
    node_process "$1" >/dev/null || keeper_process "$1" >/dev/null || fail "host n$1 is dead already"
    kill_host "$1"
    say "host n$1 is dead: node, keeper and instances"
}

start() {
    require_node "$@"
    ! node_process "$1" >/dev/null || fail "node n$1 is running"
    launch "$1" start
    wait_until "$READY_SECONDS" "n$1 serves" is_up "$1"
    say "node n$1 is up"
}

node_log() {
    require_node "$@"
    case ${2-} in
    '') cat "$(folder "$1")/log" ;;
    -f) tail -n +1 -f "$(folder "$1")/log" ;;
    *) fail "\`logs\` takes a node and -f" ;;
    esac
}

down() {
    local k pid failed=
    if [[ ! -e $cluster ]]; then
        say "no cluster is up"
        return
    fi
    [[ -d $cluster/bin && -O $cluster ]] || fail "$cluster is not a cluster's folder of yours"
    local stopping=()
    for k in $(nodes); do
        (stop_host "$k") &
        stopping+=($!)
    done
    for pid in "${stopping[@]}"; do
        wait "$pid" || failed=yes
    done
    [[ -z $failed ]] || fail "something is still running; $cluster was left as it is"
    ! has_namespaces || remove_namespaces
    rm -rf "$cluster"
    say "the cluster is down"
}

main() {
    local command=${1-help}
    shift || true
    case $command in
    up) up "$@" ;;
    status) status ;;
    env) env_of "$@" ;;
    crash) crash "$@" ;;
    kill) kill_command "$@" ;;
    start) start "$@" ;;
    logs) node_log "$@" ;;
    cut) cut_command "$@" ;;
    heal) heal ;;
    down) down ;;
    demo)
        # shellcheck source=scripts/demo.sh
        source "$repository/scripts/demo.sh"
        demo
        ;;
    help | -h | --help) usage | sed "s|@folder@|$cluster|" ;;
    *)
        say "local-cluster: there is no command \`$command\`"
        usage >&2
        exit 2
        ;;
    esac
}

main "$@"
