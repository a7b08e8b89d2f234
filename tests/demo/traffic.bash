# Who reaches whom, and as whom.
# shellcheck shell=bash

# Everybody pings everybody; every pair is a check.
matrix() { # matrix NAMESPACE...
    local from to time pair wrong=()
    printf '   from ╲ to'
    for to in "$@"; do name "$to" 11; done
    printf '\n'
    for from in "$@"; do
        printf '   %s' "$(name "$from" -9)"
        for to in "$@"; do
            time=$(round_trip "$from" "$to") || time=-
            printf '%11s' "$time"
            if as_meant "$from" "$to" "$time"; then
                passed=$((passed + 1))
            else
                wrong+=("$(name "$from" 0) → $(name "$to" 0): $time")
            fi
        done
        printf '\n'
    done
    printf '\n   - no answer, and none is meant to come: outside, nobody has a route to a pod\n'
    for pair in "${wrong[@]}"; do fail "$pair" ""; done
}

as_meant() { # as_meant FROM TO TIME: everybody is reached, but no pod from the internet
    if [[ $1 == internet && -n ${node_of[$2]:-} ]]; then [[ $3 == - ]]; else [[ $3 != - ]]; fi
}

# Prints the shortest of three round trips in milliseconds; fails unless all three come back.
round_trip() { # round_trip FROM TO
    local said
    said=$(inside "$1" ping -q -n -c 3 -i 0.01 -W 1 "$(address_to_reach "$2")") || return
    [[ $said == *" 3 received"* ]] || return
    sed -n 's/^rtt [^=]*= \([0-9.]*\).*/\1/p' <<<"$said"
}

address_to_reach() { # address_to_reach NAMESPACE
    address_of "$1" eth0
}

# Passes if the server in TO sees a client in FROM under the address that DEVICE has in OWNER.
check_seen_as() { # check_seen_as FROM TO[:PORT] OWNER DEVICE
    local expected said what to=${2%:*} port=8080
    [[ $2 != *:* ]] || port=${2#*:}
    expected=$(address_of "$3" "$4")
    said=$(answer "$1" "$(address_to_reach "$to")" "$port") || true
    what="$(name "$1" -8) → $(name "$2" -10) as $(printf '%-15s' "$said") $(name "$3" 0)'s $4"
    if [[ $said == "$expected" ]]; then pass "$what"; else fail "$what" "should be $expected"; fi
}

answer() { # answer FROM ADDRESS PORT: what the server there says
    # shellcheck disable=SC2016  # the inner shell expands it
    inside "$1" timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1" && cat <&3' "$2" "$3" 2>&1
}

fits() { # fits FROM TO LENGTH: an IPv4 packet of that many bytes arrives, not fragmented
    inside "$1" ping -n -c 1 -W 2 -M do -s "$(($3 - 28))" "$(address_to_reach "$2")"
}

too_long() { # too_long FROM TO LENGTH
    local said
    said=$(fits "$@" 2>&1) && return 1
    echo "$said"
    grep -qi 'message too long' <<<"$said"
}
