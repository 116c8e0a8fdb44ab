# shellcheck shell=bash
# Background processes that are known by a pid file. Sourced; does nothing by itself. No process
# is ever signalled whose command line doesn't hold the word that it is expected to hold, so that
# a pid that was given to somebody else since is left alone.

# runs PIDFILE WORD: true where the process of the file runs and is the expected one.
runs() {
    local pid
    [ -s "$1" ] || return 1
    pid=$(<"$1")
    [[ "$pid" =~ ^[0-9]+$ ]] && [ -r "/proc/$pid/cmdline" ] &&
        tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$2"
}

# end_process PIDFILE WORD SECONDS: SIGTERM, and SIGKILL when the time is up.
end_process() {
    local pid
    if runs "$1" "$2"; then
        pid=$(<"$1")
        kill -TERM "$pid" 2>/dev/null || true
        if ! wait_for "$3" "the end of process $pid" not runs "$1" "$2"; then
            kill -KILL "$pid" 2>/dev/null || true
            wait_for 5 "the end of process $pid" not runs "$1" "$2" || true
        fi
    fi
    rm -f "$1"
}

not() { ! "$@"; }

# unmount_below FOLDER: engines and their containers leave mounts when they are killed.
unmount_below() {
    local target
    # The deepest first. Spaces in /proc/mounts are written \040.
    awk -v folder="$1/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r |
        while read -r target; do
            umount -l "$(printf '%b' "$target")" 2>/dev/null || true
        done
}
