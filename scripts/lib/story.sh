# shellcheck shell=bash
# What the demo shows with: requests that are counted, load that goes on meanwhile, waiting for
# convergence. Sourced after terminal.sh, process.sh, place.sh and takedown.sh.

# free_port WANTED: the first port from WANTED on that nothing on this machine listens on.
free_port() {
    local port=$1
    while [ -n "$(ss -Hltn "sport = :$port")" ]; do
        port=$((port + 1))
    done
    echo "$port"
}

# request_table URL COUNT: how COUNT requests spread over hosts and versions, as a table.
request_table() {
    curl -s --max-time 60 "$1?[1-$2]" |
        awk -F= -v count="$2" '
            $1 == "version" { version = $2 }
            $1 == "host" { hits[$2 " " version]++; answered++ }
            END {
                printf "  %-8s %-8s %9s %7s\n", "host", "version", "requests", "share"
                for (key in hits) {
                    split(key, part, " ")
                    bar = sprintf("%*s", hits[key] * 40 / count, "")
                    gsub(/ /, "#", bar)
                    row = sprintf("  %-8s %-8s %9d %6.1f%%  %s", part[1], part[2], hits[key], hits[key] * 100 / count, bar)
                    print row | "sort"
                }
                close("sort")
                printf "  %-17s %9d\n", "answered", answered
                if (answered != count) exit 1
            }' >&2
}

# load_start URL: two clients that ask all the time, one over one connection that stays open,
# one with a connection for each request. Every answer leaves its status; 000 is none.
load_start() {
    mkdir -p "$demo/load"
    load_pids=()
    curl -s -o /dev/null -w '%{stderr}%{http_code}\n' --rate 100/s "$1?[1-100000000]" \
        2>"$demo/load/kept" &
    load_pids+=($!)
    curl -s -o /dev/null -w '%{stderr}%{http_code}\n' --rate 100/s -H 'Connection: close' \
        "$1?[1-100000000]" 2>"$demo/load/closed" &
    load_pids+=($!)
}

# load_stop: ends the two, prints what they counted, and fails where a request was lost.
load_stop() {
    local kind total lost=0 bad
    kill "${load_pids[@]}" 2>/dev/null || true
    wait "${load_pids[@]}" 2>/dev/null || true
    load_pids=()
    printf '  %-30s %9s %7s\n' connections requests lost >&2
    for kind in kept closed; do
        total=$(grep -c . "$demo/load/$kind" || true)
        bad=$(grep -cv '^200$' "$demo/load/$kind" || true)
        lost=$((lost + bad))
        case $kind in
        kept) printf '  %-30s %9d %7d\n' 'one that stays open' "$total" "$bad" >&2 ;;
        closed) printf '  %-30s %9d %7d\n' 'a new one for each request' "$total" "$bad" >&2 ;;
        esac
    done
    [ "$lost" -eq 0 ] || {
        say "The statuses were:"
        sort "$demo/load/kept" "$demo/load/closed" | uniq -c >&2
        return 1
    }
}

# True where that commit is applied and every app is as it declares.
converged_at() {
    plimsoll status -o json 2>/dev/null | jq -e --arg commit "$1" '
        .commit.applied == $commit and (.apps | length) > 0
        and all(.apps[]; .sync == "InSync" and .health == "Healthy")' >/dev/null
}

# wait_converged SECONDS COMMIT: and says how long it took.
wait_converged() {
    local begun=$EPOCHREALTIME end=$((SECONDS + $1))
    until converged_at "$2"; do
        if ! runs "$demo/controller.pid" "$demo"; then
            tail -n 20 "$demo/controller.log" >&2
            die "the controller ended" "Its output is in $demo/controller.log."
        elif [ "$SECONDS" -ge "$end" ]; then
            plimsoll status >&2 || true
            die "the fleet isn't at ${2:0:12} after $1 s" "The controller's output is in $demo/controller.log."
        fi
        sleep 0.1
    done
    good "Converged at ${2:0:12} after $(awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s."
}

# The demo's containers that run, on both engines, as a table.
show_containers() {
    local engine
    for engine in "alpha $alpha_socket" "beta $beta_socket"; do
        containers "${engine#* }" --format "  ${engine%% *}	{{.Names}}	{{.Image}}	{{.Ports}}"
    done | expand -t 10,58,84 >&2
}
