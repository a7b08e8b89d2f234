# The nodes, the wires between them, and what flanneld does on a node.
#
#   internet ── router ─┬─ node1      The router knows nothing of the pods' addresses,
#                       └─ node2      so what a pod sends out comes back only if masqueraded.
# shellcheck shell=bash

cluster_network=10.244.0.0/16
declare -A number=([node1]=1 [node2]=2)
declare -A peer=([node1]=node2 [node2]=node1)

build_cluster() {
    local node
    hold internet --net
    hold router --net
    connect_internet
    for node in node1 node2; do
        hold_node "$node"
        connect_node "$node"
    done
    for node in node1 node2; do
        flanneld "$node"
        printf '  %s: FLANNEL_SUBNET=%s FLANNEL_MTU=%s in /run/flannel/subnet.env\n' \
            "$(name "$node" 0)" "10.244.${number[$node]}.1/24" 1450
    done
}

underlay_address() { # underlay_address NODE
    echo "192.168.100.1${number[$1]}"
}

pod_subnet() { # pod_subnet NODE
    echo "10.244.${number[$1]}.0/24"
}

vtep_mac() { # vtep_mac NODE: the address of its flannel.1
    echo "02:f1:00:00:00:0${number[$1]}"
}

connect_internet() {
    inside router ip link add wan type veth peer name eth0 netns "${holder[internet]}"
    inside router ip address add 203.0.113.1/24 dev wan
    inside router ip link set wan up
    inside internet ip address add 203.0.113.10/24 dev eth0
    inside internet ip link set eth0 up
    inside internet ip route add default via 203.0.113.1
    inside router ip link add lan type bridge
    inside router ip address add 192.168.100.1/24 dev lan
    inside router ip link set lan up
    set_forwarding router 1
}

# A node has its own /run (subnet.env, the pods' namespaces, iptables' lock), /var/lib (leases,
# flannel's state, cnitool's cache), and a /sys that shows its own links.
hold_node() { # hold_node NODE
    hold "$1" --net --mount --propagation private
    on "$1" mount -t tmpfs tmpfs /run
    on "$1" mount -t tmpfs tmpfs /var/lib
    on "$1" mount -t sysfs sysfs /sys
    on "$1" mkdir -p /run/netns /run/flannel /var/lib/cni
}

connect_node() { # connect_node NODE
    inside router ip link add "$1" type veth peer name eth0 netns "${holder[$1]}"
    inside router ip link set "$1" master lan up
    inside "$1" ip address add "$(underlay_address "$1")/24" dev eth0
    inside "$1" ip link set eth0 up
    inside "$1" ip route add default via 192.168.100.1
    set_forwarding "$1" 0
}

set_forwarding() { # set_forwarding NAMESPACE 0|1
    # shellcheck disable=SC2016
    inside "$1" sh -c 'echo "$0" > /proc/sys/net/ipv4/ip_forward' "$2"
}

# What flanneld does at its start, with its VXLAN backend and --ip-masq: its device, the way to the
# other node, the packet filter, and last subnet.env.
flanneld() { # flanneld NODE
    local node=$1 other=${peer[$1]}
    inside "$node" ip link add flannel.1 address "$(vtep_mac "$node")" mtu 1450 \
        type vxlan id 1 dev eth0 local "$(underlay_address "$node")" dstport 8472 nolearning
    inside "$node" ip address add "$(vtep_address "$node")/32" dev flannel.1
    inside "$node" ip link set flannel.1 up

    inside "$node" ip neighbour replace "$(vtep_address "$other")" lladdr "$(vtep_mac "$other")" \
        dev flannel.1 nud permanent
    inside "$node" bridge fdb replace "$(vtep_mac "$other")" dev flannel.1 \
        dst "$(underlay_address "$other")" self permanent
    inside "$node" ip route replace "$(pod_subnet "$other")" via "$(vtep_address "$other")" dev flannel.1 onlink

    on "$node" iptables-restore --noflush <<<"$(rules_of_flanneld "$node")"

    on "$node" tee /run/flannel/subnet.env >/dev/null <<END
FLANNEL_NETWORK=$cluster_network
FLANNEL_SUBNET=10.244.${number[$node]}.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
END
}

vtep_address() { # vtep_address NODE: the network address of its pods
    echo "10.244.${number[$1]}.0"
}

rules_of_flanneld() { # rules_of_flanneld NODE
    local all=$cluster_network own
    own=$(pod_subnet "$1")
    cat <<END
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s $own -d $all -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s $all -d $own -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s $all -d $own -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s $all ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s $all -d $all -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FORWARD DROP [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s $all -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d $all -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
END
}

on_both_nodes() { # on_both_nodes FUNCTION ARGUMENT...: calls FUNCTION NODE ARGUMENT...
    local function=$1
    shift
    "$function" node1 "$@" && "$function" node2 "$@"
}

forward_drops() { # forward_drops NODE
    on "$1" iptables -S FORWARD | grep -qx -e '-P FORWARD DROP'
}

forwarding_is() { # forwarding_is NODE 0|1
    inside "$1" grep -qx "$2" /proc/sys/net/ipv4/ip_forward
}

other_rules_of() { # other_rules_of NODE: its packet filter's rules that neither flanneld set nor portmap shares among pods
    local rules
    rules=$(on "$1" iptables-save) || return
    sed -e '/^-A/!d' -e '/flanneld masq/d' -e '/flanneld forward/d' -e '/[ -]CNI-HOSTPORT-/d' <<<"$rules"
}
