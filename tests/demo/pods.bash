# cnitool, and what it leaves on a node.
# shellcheck shell=bash

# Plays the container runtime: cnitool on the pod's node, which knows the pod by its namespace.
cni() { # cni POD VERB NETWORK INTERFACE
    CNI_IFNAME=$4 CAP_ARGS=$(capabilities "$1") on "${node_of[$1]}" "$CNITOOL" "$2" "$3" "/run/netns/$1"
}

capabilities() { # capabilities POD: what a runtime passes on from the pod's definition
    [[ -z ${host_port[$1]:-} ]] ||
        echo "{\"portMappings\": [{\"hostPort\": ${host_port[$1]}, \"containerPort\": 8080, \"protocol\": \"tcp\"}]}"
}

add_pod() { # add_pod POD
    local pod=$1 node=${node_of[$1]} said milliseconds
    on "$node" touch "/run/netns/$pod"
    on "$node" unshare --net="/run/netns/$pod" true
    netns[$pod]=/proc/${holder[$node]}/root/run/netns/$pod

    if said=$(cni "$pod" add lo lo 2>&1) && timed said cni "$pod" add cbr0 eth0 && said=$(is_attached "$pod"); then
        pass "$(name "$pod" -7) on $(name "$node" 0)   $(address_of "$pod" eth0)   mtu $(mtu_of "$pod" eth0)   $(
            )port $(host_end_of "$pod")   eth0 in $(printf '%5s' "$milliseconds") ms"
    else
        fail "$pod" "$said"
    fi
}

delete_pod() { # delete_pod POD
    local pod=$1 node=${node_of[$1]} said milliseconds
    if timed said cni "$pod" del cbr0 eth0 && said=$(cni "$pod" del lo lo 2>&1) && said=$(is_bare "$pod"); then
        pass "$(name "$pod" -7) eth0 gone in $(printf '%5s' "$milliseconds") ms, lo down, nothing else in it"
    else
        fail "$pod" "$said"
    fi
    on "$node" umount "/run/netns/$pod"
    on "$node" rm "/run/netns/$pod"
    unset "netns[$pod]"
}

# Runs the command; sets VARIABLE to what it says and `milliseconds` to how long it took.
timed() { # timed VARIABLE COMMAND...
    local -n into=$1
    local start=${EPOCHREALTIME/./} took status=0
    shift
    # shellcheck disable=SC2034  # the caller's variables
    into=$("$@" 2>&1) || status=$?
    took=$((${EPOCHREALTIME/./} - start))
    # shellcheck disable=SC2034
    milliseconds=$((took / 1000)).$((took / 100 % 10))
    return "$status"
}

is_attached() { # is_attached POD: it has an address of its node's subnet, and the MTU of subnet.env
    local address mtu prefix
    address=$(address_of "$1" eth0) mtu=$(mtu_of "$1" eth0) prefix=10.244.${number[${node_of[$1]}]}.
    [[ $address == "$prefix"* && $mtu == 1450 ]] || { echo "eth0 has address $address and mtu $mtu"; false; }
}

is_bare() { # is_bare POD: nothing but lo, and that is down
    local links
    links=$(inside "$1" ip -br link show)
    [[ $links =~ ^lo\ +DOWN && $links != *$'\n'* ]] || { echo "$links"; false; }
}

routes_lead_to_gateway() { # routes_lead_to_gateway POD
    local gateway routes
    gateway=$(address_of "${node_of[$1]}" cni0)
    routes=$(inside "$1" ip route show)
    echo "$routes"
    grep -q "^default via $gateway dev eth0" <<<"$routes" && grep -q "^$cluster_network via $gateway dev eth0" <<<"$routes"
}

cidr_of() { # cidr_of NAMESPACE LINK: its first IPv4 address, with the prefix length
    inside "$1" ip -o -4 address show dev "$2" | sed -n '1s/.* inet \([0-9./]*\).*/\1/p'
}

address_of() { # address_of NAMESPACE LINK: the same without
    local cidr
    cidr=$(cidr_of "$@")
    echo "${cidr%/*}"
}

mtu_of() { # mtu_of NAMESPACE LINK
    inside "$1" ip -o link show dev "$2" | sed -n 's/.* mtu \([0-9]*\).*/\1/p'
}

host_end_of() { # host_end_of POD: the link of its node that eth0 is the peer of
    local index
    index=$(inside "$1" ip -o link show dev eth0 | sed -n 's/.* eth0@if\([0-9]*\):.*/\1/p')
    inside "${node_of[$1]}" ip -o link show | sed -n "s/^$index: \([^@:]*\).*/\1/p"
}

node_holds() { # node_holds NODE COUNT: that many ports, leases and state files
    local found
    found="$(ports_of "$1" | wc -l) $(leases_of "$1" | wc -l) $(state_files_of "$1" | wc -l)"
    [[ $found == "$2 $2 $2" ]] || { echo "found: $found"; false; }
}

ports_of() { # ports_of NODE: the ports of its bridge
    inside "$1" ip -o link show master cni0
}

pod_veths_of() { # pod_veths_of NODE: every veth but the one that connects the node
    inside "$1" ip -o link show type veth | sed '/^[0-9]*: eth0@/d'
}

leases_of() { # leases_of NODE: the files named by an address
    on "$1" find /var/lib/cni/networks/cbr0 -name '[0-9]*.*'
}

state_files_of() { # state_files_of NODE: what flannel keeps for DEL, a file a container
    on "$1" find /var/lib/cni/flannel -maxdepth 1 -type f
}

flannel_files_of() { # flannel_files_of NODE: that and what it keeps beside it
    on "$1" find /var/lib/cni/flannel -type f
}

has_plugin() { # has_plugin TYPE: somewhere in CNI_PATH
    local directories directory
    IFS=: read -ra directories <<<"$CNI_PATH"
    for directory in "${directories[@]}"; do [[ ! -x $directory/$1 ]] || return 0; done
    return 1
}
