# shellcheck shell=bash
# `local-cluster.sh up --namespaces`: every node on a host of its own, round a router. Sourced by that script, and built of its functions.
#
# A host is a network namespace with one cable to the router, which is a namespace too; nothing leads from there to this
# machine's own network. What is cut is cut in the router, which drops packets without a word to either side.

# The router, as every host sees it at the other end of its cable.
readonly ROUTER=169.254.7.1
# What every node listens on: each has an address of its own.
readonly PORT=7470

has_namespaces() { [[ -e $cluster/namespaces ]]; }

# The name of a host's namespace, or of the router's: made of the cluster's folder, so that two clusters do not meet.
namespace() { echo "narun-$(cksum <<<"$cluster" | cut -d ' ' -f 1)-$1"; }

host_address() { echo "10.77.0.$1"; }

# Runs a command in a namespace. `ip netns exec` would hide the control groups from it.
within() {
    nsenter --net="/run/netns/$(namespace "$1")" -- "${@:2}"
}

require_namespace_tools() {
    local name
    [[ $UID == 0 ]] || fail "\`--namespaces\` needs root"
    for name in ip nft nsenter; do
        command -v "$name" >/dev/null ||
            fail "\`--namespaces\` needs \`$name\`; \`apt-get install iproute2 nftables util-linux\` installs it"
    done
}

make_namespaces() {
    local size=$1 k
    : >"$cluster/namespaces"
    ip netns add "$(namespace router)"
    within router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    within router nft -f - <<'TEXT'
table inet faults {
    chain forward { type filter hook forward priority 0; policy accept; }
}
TEXT
    for ((k = 1; k <= size; k++)); do
        ip netns add "$(namespace "n$k")"
        ip -n "$(namespace router)" -batch - <<TEXT
link add n$k type veth peer name eth0 netns $(namespace "n$k")
addr add $ROUTER peer $(host_address "$k") dev n$k
link set n$k up
TEXT
        ip -n "$(namespace "n$k")" -batch - <<TEXT
link set lo up
addr add $(host_address "$k") peer $ROUTER dev eth0
link set eth0 up
route add default via $ROUTER src $(host_address "$k")
TEXT
    done
}

remove_namespaces() {
    local name
    while read -r name _; do
        [[ $name != "$(namespace '')"* ]] || ip netns del "$name"
    done < <(ip netns list)
}

# The addresses of hosts that are given as 1,2,5.
side() {
    local k hosts addresses=()
    [[ $1 =~ ^[0-9]+(,[0-9]+)*$ ]] || fail "\`$1\` names no nodes; write numbers as in 1,2"
    IFS=, read -ra hosts <<<"$1"
    for k in "${hosts[@]}"; do
        require_node "$k"
        addresses+=("$(host_address "$k")")
    done
    (IFS=, && echo "{ ${addresses[*]} }")
}

require_namespaces() {
    require_cluster
    has_namespaces || fail "the nodes share this machine's network; \`up N --namespaces\` gives each an address of its own"
}

cut_command() {
    local one other
    require_namespaces
    (($# == 2)) || fail "\`cut\` takes two sides, as in \`cut 1,2 3,4,5\`"
    one=$(side "$1")
    other=$(side "$2")
    within router nft -f - <<TEXT
add rule inet faults forward ip saddr $one ip daddr $other drop
add rule inet faults forward ip saddr $other ip daddr $one drop
TEXT
    echo "$1 from $2" >>"$cluster/namespaces"
    say "nothing passes any more between $1 and $2"
}

heal() {
    require_namespaces
    within router nft flush chain inet faults forward
    : >"$cluster/namespaces"
    say "everything passes again"
}
