# Namespaces that live as long as the demo.
#
# A namespace lives as long as a process in it. Each has a holder that sleeps, and every process
# started here dies with the demo, even if that is killed. No name is given to a namespace where
# others could see it, so there is nothing to remove afterwards.
# shellcheck shell=bash

declare -A holder=()  # namespace → pid of its holder
declare -A netns=()   # namespace → file to enter it by
declare -A server=()  # namespace → pid of its server

hold() { # hold NAME UNSHARE_OPTION...: makes a namespace, and returns once it is there
    local name=$1 ready said
    shift
    exec {ready}< <(exec setpriv --pdeathsig KILL unshare "$@" sh -c 'echo ready; exec sleep infinity')
    holder[$name]=$! netns[$name]=/proc/$!/ns/net
    read -r -t 10 said <&"$ready" || die "cannot make the namespace of $name"
    exec {ready}<&-
    inside "$name" ip link set lo up
}

inside() { # inside NAMESPACE COMMAND...: in its network, with the machine's files
    local file=${netns[$1]}
    shift
    nsenter --net="$file" -- "$@"
}

on() { # on NODE COMMAND...: in its network and with its files
    local pid=${holder[$1]}
    shift
    nsenter --target "$pid" --net --mount -- "$@"
}

end_namespaces() {
    trap - EXIT
    trap '' INT TERM
    stop_servers
    ((${#holder[@]} == 0)) || kill -KILL "${holder[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
}

# Answers every TCP connection to port 8080 with the client's address, in each of the namespaces.
start_servers() { # start_servers NAMESPACE...
    local name
    for name in "$@"; do
        # shellcheck disable=SC2016  # socat's shell expands it
        setpriv --pdeathsig KILL nsenter --net="${netns[$name]}" -- \
            socat TCP4-LISTEN:8080,reuseaddr,fork 'SYSTEM:echo $SOCAT_PEERADDR' &
        server[$name]=$!
    done
    for name in "$@"; do
        wait_until listens "$name" || die "the server of $name does not start"
    done
}

stop_servers() {
    ((${#server[@]} > 0)) || return 0
    kill "${server[@]}" 2>/dev/null || true
    wait "${server[@]}" 2>/dev/null || true
    server=()
}

listens() { # listens NAMESPACE
    [[ -n $(inside "$1" ss -Hltn 'sport = :8080') ]]
}

wait_until() { # wait_until COMMAND...: tries for five seconds
    local attempt
    for ((attempt = 0; attempt < 250; attempt++)); do
        ! "$@" || return 0
        sleep 0.02
    done
    return 1
}
