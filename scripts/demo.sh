# shellcheck shell=bash
# `local-cluster.sh demo`: the main job, told step by step. Sourced by that script, and built of its functions.

# Where the web servers listen: below the range out of which the kernel gives ports to outgoing connections.
readonly WEB_PORT_MIN=18080
readonly WEB_PORT_MAX=28080
readonly WEB_REPLICAS=2
readonly TICKER_REPLICAS=3
# Instances move 10 s after a node is held for down, which takes up to 10 s, and then have to start.
readonly MOVE_SECONDS=90

narrate() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

# show K WORDS...: prints a command as one would type it on the host of node K, then runs it there.
show() {
    local k=$1
    shift
    printf '%sn%s$ %s%s\n' "$bold" "$k" "$*" "$plain"
    case $1 in
    narun) ask "$k" "${@:2}" ;;
    scripts/local-cluster.sh) "${@:2}" ;;
    *) "$@" ;;
    esac
}

# A busybox with a web server in it: a program that nobody here wrote.
web_server() {
    local found
    if ! command -v busybox >/dev/null && [[ $UID == 0 ]] && command -v apt-get >/dev/null; then
        say "installing busybox-static, to have a web server to deploy"
        apt-get install -y -qq busybox-static >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -y -qq busybox-static; } >&2
    fi
    if ! found=$(command -v busybox) || [[ $'\n'$("$found" --list)$'\n' != *$'\nhttpd\n'* ]]; then
        fail "the demo deploys busybox as a web server: install the package \`busybox-static\`"
    fi
    realpath "$found"
}

# The first of COUNT neighbouring ports on which nobody listens, as the kernel tells.
free_ports() {
    local count=$1 first port used
    used=$(awk 'FNR > 1 { print substr($2, length($2) - 3) }' /proc/net/tcp /proc/net/tcp6)
    for ((first = WEB_PORT_MIN; first + count <= WEB_PORT_MAX; first += count)); do
        for ((port = first; port < first + count; port++)); do
            ! grep -qx "$(printf '%04X' "$port")" <<<"$used" || continue 2
        done
        echo "$first"
        return
    done
    fail "no free ports between $WEB_PORT_MIN and $WEB_PORT_MAX"
}

write_specifications() {
    mkdir "$1"
    cat >"$1/web.yaml" <<TEXT
name: busybox-web
tag: v1
replicas: $WEB_REPLICAS
env:
  - name: PORT
    value: "$2"
args:
  - sh
  - -c
  - |
    port=\$((PORT + NARUN_REPLICA_INDEX))
    mkdir -p www
    echo "Hello from \$NARUN_INSTANCE_ID on \$NARUN_NODE_ID" > www/index.html
    echo "serving at http://127.0.0.1:\$port/"
    exec httpd -f -v -p "127.0.0.1:\$port" -h www
TEXT
    cat >"$1/ticker.sh" <<'TEXT'
#!/bin/sh
tick=0
while :; do
    tick=$((tick + 1))
    echo "tick $tick on $NARUN_NODE_ID"
    sleep 1
done
TEXT
    chmod +x "$1/ticker.sh"
}

# The number of a node, not the one given, that runs a web server.
host_with_web() {
    ask 1 service list | awk -v not="n$1" '$1 == "busybox-web" && $0 ~ /busybox-web-[0-9]/ {
        for (i = 2; i <= NF; i++) if ($i ~ /^n[0-9]+$/ && $i != not) { print substr($i, 2); exit }
    }'
}

# Whether node K holds node OTHER for what is said.
holds() { ask "$1" node list 2>/dev/null | awk -v node="n$2" -v word="$3" '$1 == node && $2 == word { found = 1 } END { exit !found }'; }

answers() { curl -fsS --max-time 2 "http://127.0.0.1:$1/" >/dev/null 2>&1; }

wait_for_pages() {
    local port
    for ((port = $1; port < $1 + WEB_REPLICAS; port++)); do
        wait_until "$2" "http://127.0.0.1:$port/ answers" answers "$port"
    done
}

show_pages() {
    local k=$1 port
    for ((port = $2; port < $2 + WEB_REPLICAS; port++)); do
        show "$k" curl -sS "http://127.0.0.1:$port/" || true
    done
}

demo() {
    local bold='' plain='' busybox files port victim witness
    if [[ -t 1 && -z ${NO_COLOR-} ]]; then
        bold=$'\e[1m' plain=$'\e[0m'
    fi
    command -v curl >/dev/null || fail "the demo fetches pages with curl: install the package \`curl\`"
    busybox=$(web_server)
    up 3
    trap 'say "the cluster stays up; \`scripts/local-cluster.sh down\` ends it"; exit 130' INT
    # shellcheck disable=SC2154  # local-cluster.sh sets it
    files=$cluster/demo
    port=$(free_ports "$WEB_REPLICAS")
    write_specifications "$files" "$port"
    cd "$files" || return

    narrate "Three nodes, each with its own data directory, keeper and port. Any of them answers for all."
    show 3 narun node list

    narrate "A specification: the web server of busybox, two of them somewhere in the cluster."
    show 2 cat web.yaml

    narrate "Deployed at node 2, which stores it, copies the binary to the others, and waits until both run."
    show 2 narun deploy --config web.yaml "$busybox" --wait

    narrate "A second service: a shell script, three of it, described by options alone."
    show 2 narun deploy --name ticker --tag v1 --node any --replicas "$TICKER_REPLICAS" ticker.sh --wait

    narrate "What runs where, asked of another node."
    show 1 narun service list
    show 3 narun list-images

    narrate "The pages, from the servers themselves."
    wait_for_pages "$port" "$READY_SECONDS"
    show_pages 1 "$port"

    victim=$(host_with_web 1)
    [[ -n $victim ]] || victim=3
    # Node 1 stays in any case, so that it can be asked throughout.
    witness=$((victim == 2 ? 3 : 2))
    narrate "Host n$victim dies: node, keeper and instances, without a word to anybody."
    kill_host "$victim"
    wait_until "$MOVE_SECONDS" "n$victim is held for down" holds 1 "$victim" down
    show 1 narun node list
    show 1 narun status

    narrate "Its instances move once it has been down for ten seconds."
    wait_for_pages "$port" "$MOVE_SECONDS"
    show "$witness" narun service list
    show_pages "$witness" "$port"

    narrate "The output of all instances that can be reached, asked of one node."
    show "$witness" narun logs --app busybox-web --tail 3
    show "$witness" narun logs --app ticker --tail 3

    narrate "The host comes back, and is a member as before."
    show 1 scripts/local-cluster.sh start "$victim"
    wait_until "$READY_SECONDS" "n$victim is alive again" holds 1 "$victim" alive
    show 1 narun node list

    narrate "The cluster stays up. To go on:"
    cat <<TEXT
eval "\$(scripts/local-cluster.sh env 2)"    points the CLI at node 2
narun status
narun logs --app ticker -f
scripts/local-cluster.sh kill 3              another death
scripts/local-cluster.sh down                ends everything
TEXT
}
