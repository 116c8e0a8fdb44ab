//! The trial of addresses before a reload: `haproxy -c` never binds, and a reload whose new
//! listener can't bind refuses every connection for two seconds. A throwaway HAProxy binds the
//! new addresses, there where the real one will, and is ended at once.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::ProxyError;
use super::machine::{Machine, MachineError, file_path, folder_of};
use crate::model::FilePath;

const DEADLINE: Duration = Duration::from_secs(10);

/// Ends what it started, also where it did start in part, and waits until that has let go of its
/// addresses: a signal is sent long before they are free on a busy machine.
const SCRIPT: &str = "\"$1\" -D -f \"$2\" -p \"$3\"; code=$?
if [ -s \"$3\" ]; then
    pid=$(cat \"$3\"); kill -9 \"$pid\"; looks=0
    while [ $looks -lt 200 ] && grep -q '^State:.[^Z]' \"/proc/$pid/status\" 2>/dev/null; do
        looks=$((looks + 1)); sleep 0.01 2>/dev/null || sleep 1
    done
fi
rm -f -- \"$2\" \"$3\"
exit $code";

/// Binds addresses for a moment that nobody may hold.
///
/// # Errors
/// [`ProxyError::Bind`] for the first that can't be bound.
pub async fn trial(
    machine: &dyn Machine,
    haproxy: &str,
    config: &FilePath,
    addresses: &[SocketAddr],
) -> Result<(), ProxyError> {
    // One after the other, so that the error names the address that it is about.
    for address in addresses {
        trial_of(machine, haproxy, config, *address).await?;
    }
    Ok(())
}

/// As [`trial`], for addresses that the HAProxy which serves now holds itself, or may hold: a
/// throwaway HAProxy beside it would take connections from it.
///
/// # Errors
/// [`ProxyError::Bind`] for the first that can't be bound.
pub async fn trial_beside_ours(
    machine: &dyn Machine,
    addresses: &[SocketAddr],
) -> Result<(), ProxyError> {
    for address in addresses {
        let bound = machine.bind_beside(*address).await;
        bound.map_err(|cause| ProxyError::Bind {
            address: *address,
            cause: explain(&cause.to_string()),
        })?;
    }
    Ok(())
}

async fn trial_of(
    machine: &dyn Machine,
    haproxy: &str,
    config: &FilePath,
    address: SocketAddr,
) -> Result<(), ProxyError> {
    let failed = |cause: MachineError| ProxyError::File {
        doing: format!("try whether {address} can be bound"),
        cause: cause.to_string(),
    };
    let folder = folder_of(config);
    let trial = file_path(&format!("{folder}/plimsoll-trial.cfg")).map_err(failed)?;
    let pid = file_path(&format!("{folder}/plimsoll-trial.pid")).map_err(failed)?;
    machine.write(&trial, trial_config(address).as_bytes()).await.map_err(failed)?;
    let words = ["-c", SCRIPT, "sh", haproxy, trial.as_str(), pid.as_str()];
    let outcome = machine.run("sh", &words, DEADLINE).await.map_err(failed)?;
    if outcome.succeeded() {
        return Ok(());
    }
    Err(ProxyError::Bind { address, cause: bind_cause(outcome.text()) })
}

/// It answers nobody while it lives: a connection is closed without a word.
/// Another HAProxy of the same user, which would share the address, is in its way too.
fn trial_config(address: SocketAddr) -> String {
    let mut text = "global\n    noreuseport\n".to_owned();
    text.push_str("defaults\n    mode tcp\n    timeout client 1s\n    timeout server 1s\n");
    text.push_str("    timeout connect 1s\nfrontend trial\n    tcp-request connection reject\n");
    let _ = writeln!(text, "    bind {address}");
    text
}

/// What the system said, out of HAProxy's alert.
fn bind_cause(stderr: &str) -> String {
    let alert = stderr.lines().find(|line| line.contains("[ALERT]")).unwrap_or(stderr);
    let reason =
        alert.split_once("cannot bind socket (").and_then(|(_, rest)| rest.split_once(')'));
    explain(reason.map_or(alert.trim(), |(reason, _)| reason))
}

/// An error of the system, with what to look at.
fn explain(reason: &str) -> String {
    let hint = if reason.starts_with("Address already in use") {
        "another process listens there (ss -ltnp shows which)"
    } else if reason.starts_with("Cannot assign requested address") {
        "the machine has no such address (ip address shows those that it has)"
    } else if reason.starts_with("Permission denied") {
        "HAProxy may not bind it: ports below 1024 need root or CAP_NET_BIND_SERVICE"
    } else {
        reason
    };
    hint.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_what_the_system_said() {
        let stderr = "[NOTICE]   (1) : haproxy version is 2.6.12\n[ALERT]    (1) : Binding \
            [t.cfg:7] for frontend a: cannot bind socket (Address already in use) for \
            [127.0.0.1:28080]\n";
        assert!(bind_cause(stderr).starts_with("another process"));
        assert_eq!(bind_cause("sh: not found"), "sh: not found");
    }
}
