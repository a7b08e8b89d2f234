# check, and how things are printed.
# shellcheck shell=bash

passed=0 failed=0

# How names are shown, and in which colour.
declare -A display=([node1]="node 1" [node2]="node 2")
declare -A colour=()
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    colour=([red]=$'\e[31m' [green]=$'\e[32m' [blue]=$'\e[34m' [yellow]=$'\e[33m'
            [title]=$'\e[1m' [fail]=$'\e[1;31m' [none]=$'\e[0m')
fi

die() { # die REASON
    echo "demo: $1" >&2
    exit 2
}

title() { # title TEXT
    printf '\n%s── %s%s\n\n' "${colour[title]:-}" "$1" "${colour[none]:-}"
}

# Prints a name as it is shown, in its colour, padded with spaces to WIDTH; to the left if WIDTH is negative.
name() { # name NAME WIDTH
    printf '%s%*s%s' "${colour[$1]:-}" "$2" "${display[$1]:-$1}" "${colour[$1]:+${colour[none]}}"
}

# Passes if the command succeeds; prints what the command said if it does not.
check() { # check WHAT COMMAND...
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then pass "$what"; else fail "$what" "$said"; fi
}

pass() { # pass WHAT
    passed=$((passed + 1))
    printf '  ✓ %s\n' "$1"
}

fail() { # fail WHAT SAID
    failed=$((failed + 1))
    printf '  %s✗ %s%s\n' "${colour[fail]:-}" "$1" "${colour[none]:-}"
    [[ -z $2 ]] || printf '%s\n' "$2" | sed 's/^/      /'
}

# Succeeds if the command does and prints nothing.
nothing() { # nothing COMMAND...
    local printed
    printed=$("$@") || return
    [[ -z $printed ]] || { echo "$printed"; false; }
}

summary() { # the last line, and the exit status
    printf '\ndemo: %d checks passed, %d failed\n' "$passed" "$failed"
    ((failed == 0))
}
