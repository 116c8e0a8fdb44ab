//! A process that outlives the tests by a moment and removes what they leave behind: engines,
//! HAProxies, bridges, mounts and folders. It also works when the tests are killed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// What is told to the watchdog. Each may be gone already when its time comes.
pub enum Leftover<'a> {
    /// A folder, and every process that has it on its command line.
    Folder(&'a str),
    /// An engine's network bridge, and the control group of that name with the processes of its
    /// containers. They are ours as long as the bridge bears [`mark`]: another test run may have
    /// taken the name meanwhile.
    Engine(&'a str),
    /// A network namespace, and the link of the same name that leads to it and bears [`mark`].
    Namespace(&'a str),
}

/// What we write on our bridges (`ip link set dev BRIDGE alias MARK`).
pub fn mark() -> String {
    format!("plimsoll-test-{}", std::process::id())
}

/// Its input ends when our process does, however that happens: the kernel closes the pipe.
/// Engines are asked first, since one that ends in order unmounts what it mounted.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
mark=$1 folders= engines= namespaces=
while read -r kind value; do
    case $kind in
        folder) folders="$folders $value" ;;
        engine) engines="$engines $value" ;;
        namespace) namespaces="$namespaces $value" ;;
    esac
done
users_of() { printf '%s/' "$1" | grep -lFa -f - /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3; }
is_ours() { [ "$(cat "/sys/class/net/$1/ifalias" 2>/dev/null)" = "$mark" ]; }
asked=
for folder in $folders; do
    pid=$(cat "$folder/pid" 2>/dev/null) || continue
    for user in $(users_of "$folder"); do
        [ "$user" = "$pid" ] && kill -TERM "$pid" && asked="$asked $pid"
    done
done
for pid in $asked; do
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
done
for engine in $engines; do
    is_ours "$engine" || continue
    find /sys/fs/cgroup -path "*/$engine/*" -name cgroup.procs 2>/dev/null |
        while read -r file; do for pid in $(cat "$file" 2>/dev/null); do kill -KILL "$pid"; done; done
done
for folder in $folders; do
    for pid in $(users_of "$folder"); do kill -KILL "$pid"; done
    grep -F " $folder/" /proc/mounts | cut -d' ' -f2 | sort -r |
        while read -r mount; do umount -l "$mount"; done
    rm -rf "$folder"
done
for engine in $engines; do
    is_ours "$engine" || continue
    find /sys/fs/cgroup -depth -type d \( -path "*/$engine" -o -path "*/$engine/*" \) -exec rmdir {} \;
    ip link del "$engine"
done
for namespace in $namespaces; do
    is_ours "$namespace" || continue
    ip link del "$namespace"
    ip netns del "$namespace"
done
"#;

/// Tells the watchdog of something that is to be gone when this process has ended.
pub fn remember(leftover: &Leftover<'_>) {
    static INPUT: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let line = match leftover {
        Leftover::Folder(path) => format!("folder {path}\n"),
        Leftover::Engine(name) => format!("engine {name}\n"),
        Leftover::Namespace(name) => format!("namespace {name}\n"),
    };
    let mut input = INPUT.get_or_init(start).lock().unwrap();
    input.write_all(line.as_bytes()).expect("the watchdog takes a line");
}

#[allow(clippy::zombie_processes, reason = "it ends after us, and init takes it then")]
fn start() -> Mutex<ChildStdin> {
    let mut child = Command::new("sh")
        .args(["-c", SCRIPT, "plimsoll-test-watchdog", &mark()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C on the terminal goes to the group of the tests.
        .process_group(0)
        .spawn()
        .expect("sh starts");
    Mutex::new(child.stdin.take().expect("its input is a pipe"))
}

/// The processes that have a path below `folder` on their command line.
pub fn users_of(folder: &str) -> Vec<i32> {
    let needle = format!("{folder}/");
    let own = std::process::id() as i32;
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                line.windows(needle.len()).any(|window| window == needle.as_bytes())
            })
        })
        .collect()
}

/// Ends the processes that have a path below `folder` on their command line.
pub fn end_users_of(folder: &str) {
    for pid in users_of(folder) {
        kill(pid, rustix::process::Signal::KILL);
    }
}

/// Sends a signal to a process that we started; one that is gone is fine.
pub fn kill(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
