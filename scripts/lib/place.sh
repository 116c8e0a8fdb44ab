# shellcheck shell=bash
# shellcheck disable=SC2034 # they are read by those who source it
# Where the demo lives, and who builds. Sourced after terminal.sh; creates nothing.

# The root of the source tree.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Everything that the demo makes is below this folder.
demo=${PLIMSOLL_DEMO:-/var/lib/plimsoll-demo}
export root demo

# The engine of the first host is the machine's own; the second one is the demo's.
alpha_socket=/var/run/docker.sock
beta_socket=$demo/beta/docker.sock
export alpha_socket beta_socket

[[ "$demo" =~ ^/[A-Za-z0-9._/-]+$ ]] ||
    die "PLIMSOLL_DEMO is $demo" "Name an absolute path of letters, digits and ._-/ only."
# A socket's path has at most 107 characters, and HAProxy's are deeper than the engine's.
[ ${#demo} -le 48 ] ||
    die "the path $demo is too long" "The sockets below it would have paths of more than 107 characters: name a shorter PLIMSOLL_DEMO."

# Both would send commands to another engine than the one that is named.
unset DOCKER_HOST DOCKER_CONTEXT

# Makes the folder, and refuses one that isn't the demo's: demo-clean removes all of it.
claim_demo() {
    if [ -d "$demo" ] && [ ! -e "$demo/.plimsoll-demo" ] && [ -n "$(ls -A "$demo")" ]; then
        die "$demo holds something that is not the demo's" "Name another folder: PLIMSOLL_DEMO=/some/where make demo"
    fi
    mkdir -p "$demo"
    touch "$demo/.plimsoll-demo"
}

need_root() {
    [ "$(id -u)" -eq 0 ] ||
        die "$1 needs root" "It starts Docker Engines with bridges of their own. Type: sudo make ${2:-demo}"
}

# Runs a command as the person who typed sudo, so that what cargo makes belongs to them.
as_builder() {
    local home
    if [ "$(id -u)" -eq 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
        runuser -u "$SUDO_USER" -- env HOME="$home" PATH="$home/.cargo/bin:$PATH" "$@"
    else
        PATH="$HOME/.cargo/bin:$PATH" "$@"
    fi
}
