# shellcheck shell=bash
# shellcheck disable=SC2034 # they are read by those who source it
# What the scripts say, and how they give up. Sourced; does nothing by itself. Everything but
# data goes to stderr, in colour on a terminal unless NO_COLOR is set.

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' plain=''
fi

# A chapter of a longer story.
chapter() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain" >&2; }

# What is being done now, on one line.
say() { printf '%s\n' "$*" >&2; }

# Something that turned out well.
good() { printf '%s%s%s\n' "$green" "$*" "$plain" >&2; }

# A command as a person would type it.
typed() { printf '%s$ %s%s\n' "$dim" "$*" "$plain" >&2; }

# What went wrong, each argument a line; ends the script.
die() {
    printf '%s%s: %s%s\n' "$red" "${0##*/}" "$1" "$plain" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

# wait_for SECONDS WHAT COMMAND...: tries the command ten times a second until it succeeds;
# fails when the time is up.
wait_for() {
    local seconds=$1 what=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$end" ]; then
            say "$what did not happen within $seconds s."
            return 1
        fi
        sleep 0.1
    done
}
