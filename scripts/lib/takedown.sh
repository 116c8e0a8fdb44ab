# shellcheck shell=bash
# Ends what a demo has running: controller, balancer, containers. Sourced after terminal.sh,
# process.sh and place.sh. It touches only what carries the demo's name: the containers of its
# installation by both labels, and HAProxies whose file lies below its state folder.

installation=demo
uid=5ea1e4e1

# containers SOCKET [DOCKER_PS_OPTION...]: lists the demo's containers on that engine.
containers() {
    local socket=$1
    shift
    docker -H "unix://$socket" ps "$@" --filter "label=plimsoll.installation=$installation" \
        --filter "label=plimsoll.uid=$uid" 2>/dev/null || true
}

end_controller() {
    runs "$demo/controller.pid" "$demo" || return 0
    end_process "$demo/controller.pid" "$demo" 15
    say "clean: stopped the controller"
}

# The balancer outlives the controller on purpose, so that it has to be ended by itself.
end_balancers() {
    local folder pid file ended=0
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        [ "$(cat "$folder/comm" 2>/dev/null)" = haproxy ] || continue
        tr '\0' '\n' <"$folder/cmdline" 2>/dev/null | grep -qF -- "$demo/state/" || continue
        file=$(mktemp)
        echo "$pid" >"$file"
        end_process "$file" "$demo/state/" 5
        ended=1
    done
    [ "$ended" -eq 0 ] || say "clean: stopped HAProxy"
}

remove_containers() {
    local socket ids
    for socket in "$alpha_socket" "$beta_socket"; do
        mapfile -t ids < <(containers "$socket" -aq)
        [ ${#ids[@]} -eq 0 ] && continue
        docker -H "unix://$socket" rm -f "${ids[@]}" >/dev/null
        say "clean: removed ${#ids[@]} containers from unix://$socket"
    done
}

# All of it, and what the controller remembers.
take_down() {
    end_controller
    end_balancers
    remove_containers
    rm -rf "$demo/state" "$demo/remote.git" "$demo/manifests" "$demo/load"
}
