# The topology, with the addresses and MTUs that the kernel has: 98 columns.
# shellcheck shell=bash

picture() {
    cat <<END
                                  ╭─ internet ───────────────────────────╮
                                  │ $(device internet eth0) │
                                  ╰───────────────────┬──────────────────╯
                                  ╭─ router ──────────┴──────────────────╮
                                  │ $(device router wan) │
                                  │ $(device router lan) │
                                  ╰──┬────────────────────────────────┬──╯
 ╭─ node 1 ──────────────────────────┴──────────╮         ╭─ node 2 ──┴──────────────────────────╮
 │ $(device node1 eth0)         │         │ $(device node2 eth0) │
 │ $(device node1 flannel.1)         ╞═ VXLAN ═╡ $(device node2 flannel.1) │
 │ $(device node1 cni0)         │         │ $(device node2 cni0) │
 │ ╰──────┬──────────────┬──────────────╮       │         │ ╰──────╮                             │
 │ ╭──────┴─────╮ ╭──────┴─────╮ ╭──────┴─────╮ │         │ ╭──────┴─────╮                       │
 │ │ $(name red -10) │ │ $(name green -10) │ │ $(name blue -10) │ │         │ │ $(name yellow -10) │                       │
 │ │ $(pod_address red) │ │ $(pod_address green) │ │ $(pod_address blue) │ │         │ │ $(pod_address yellow) │                       │
 │ │ $(pod_mtu red) │ │ $(pod_mtu green) │ │ $(pod_mtu blue) │ │         │ │ $(pod_mtu yellow) │                       │
 │ ╰────────────╯ ╰────────────╯ ╰────────────╯ │         │ ╰────────────╯                       │
 ╰──────────────────────────────────────────────╯         ╰──────────────────────────────────────╯
END
}

device() { # device NAMESPACE LINK: 36 columns
    printf '%-9s %-17s mtu %-4s' "$2" "$(cidr_of "$1" "$2")" "$(mtu_of "$1" "$2")"
}

pod_address() { # pod_address POD: 10 columns
    printf '%-10s' "$(address_of "$1" eth0)"
}

pod_mtu() { # pod_mtu POD: 10 columns
    printf 'mtu %-6s' "$(mtu_of "$1" eth0)"
}
