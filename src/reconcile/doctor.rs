//! `doctor`: each part that the loop leans on, whether it works, and what to do if not.

use std::path::Path;

use crate::api::{Checkup, CheckupResult};
use crate::model::{BalancerRun, Desired, ProxyProcess};

use super::Controller;

fn checkup(
    subject: impl Into<String>,
    result: CheckupResult,
    message: impl Into<String>,
    hint: Option<&str>,
) -> Checkup {
    Checkup {
        subject: subject.into(),
        result,
        message: message.into(),
        hint: hint.map(ToOwned::to_owned),
    }
}

impl Controller {
    /// Looks at everything; each line stands for itself.
    pub(super) async fn check_up(&self) -> Vec<Checkup> {
        use CheckupResult::{Broken, Works};
        let mut lines = vec![state_folder(&self.state), self.haproxy_program().await];
        let name = self.parts.source.name();
        let tip = match self.tip().await {
            Ok(tip) => {
                let what = self.parts.source.describe(&tip.commit).await;
                let what = what.unwrap_or_else(|_| tip.commit.to_string());
                lines.push(checkup(format!("git {name}"), Works, what, None));
                tip
            }
            Err(error) => {
                let causes = error.causes.join(": ");
                let hint = "is --repo right, and does `git ls-remote` with it work?";
                lines.push(checkup(format!("git {name}"), Broken, causes, Some(hint)));
                return lines;
            }
        };
        match self.look(&tip.commit, Vec::new(), super::situation::LookOptions::default()).await {
            Ok(situation) => {
                let mistakes = situation.diagnostics.len();
                lines.push(if mistakes == 0 {
                    checkup("manifests", Works, count(situation.desired.apps.len(), "app"), None)
                } else {
                    let hint = Some("plimsoll validate");
                    checkup("manifests", Broken, count(mistakes, "mistake"), hint)
                });
                lines.extend(self.engines(&situation).await);
                lines.extend(self.balancers(&situation).await);
                lines.extend(self.secrets(&situation.desired));
            }
            Err(error) => {
                lines.push(checkup("manifests", Broken, error.to_string(), error.hint.as_deref()));
            }
        }
        lines
    }

    async fn haproxy_program(&self) -> Checkup {
        let program = &self.options.haproxy;
        let asked = tokio::process::Command::new(program).arg("-v").output();
        match tokio::time::timeout(std::time::Duration::from_secs(5), asked).await {
            Ok(Ok(output)) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout);
                let first = text.lines().next().unwrap_or_default().to_owned();
                checkup("haproxy", CheckupResult::Works, first, None)
            }
            _ => checkup(
                "haproxy",
                CheckupResult::Warning,
                format!("{} isn't to be found here", program.display()),
                Some("a balancer that Plimsoll runs needs it: apt-get install haproxy"),
            ),
        }
    }

    async fn engines(&self, situation: &super::situation::Situation) -> Vec<Checkup> {
        let mut lines = Vec::new();
        for (name, engine) in situation.observer.engines.iter() {
            let subject = format!("host {name}");
            lines.push(match engine.version().await {
                Ok(version) => {
                    let ours = situation.observed.host(name).map_or(0, |s| s.containers.len());
                    let message = format!("Docker {version}, {} of ours", count(ours, "container"));
                    checkup(subject, CheckupResult::Works, message, None)
                }
                Err(error) => checkup(
                    subject,
                    CheckupResult::Broken,
                    error.to_string(),
                    Some("is the engine running, and may this user open its socket (group docker, or root)?"),
                ),
            });
            if let (Some(host), Some(state)) =
                (situation.desired.hosts.get(name), situation.observed.host(name))
            {
                lines.push(ports(host, state));
            }
        }
        lines
    }

    async fn balancers(&self, situation: &super::situation::Situation) -> Vec<Checkup> {
        let mut lines = Vec::new();
        for (name, proxy) in situation.observer.proxies.iter() {
            let subject = format!("balancer {name}");
            let managed = situation
                .desired
                .balancers
                .get(name)
                .is_some_and(|balancer| balancer.run == BalancerRun::Managed);
            let state = situation.observed.balancer(name).map(|state| &state.process);
            lines.push(match (proxy.version().await, state) {
                (Ok(version), Some(ProxyProcess::Up(_))) => {
                    let message = format!("HAProxy {version} answers");
                    checkup(subject, CheckupResult::Works, message, None)
                }
                (Ok(version), Some(ProxyProcess::Down { reason })) if managed => {
                    let message = format!("HAProxy {version} isn't running: {reason}");
                    let hint = "`plimsoll apply` or `plimsoll run` starts it";
                    checkup(subject, CheckupResult::Warning, message, Some(hint))
                }
                (_, Some(ProxyProcess::Down { reason })) => {
                    let hint =
                        "start it, in master-worker mode: haproxy -W -S MASTER_SOCKET -f CONFIG";
                    checkup(subject, CheckupResult::Broken, reason.clone(), Some(hint))
                }
                (Err(error), _) => checkup(subject, CheckupResult::Broken, error.to_string(), None),
                (Ok(_), None) => {
                    let unseen = situation.unseen().join("; ");
                    checkup(subject, CheckupResult::Broken, unseen, None)
                }
            });
        }
        lines
    }

    fn secrets(&self, desired: &Desired) -> Vec<Checkup> {
        let names: std::collections::BTreeSet<_> =
            desired.apps.values().flat_map(|app| app.template.secrets()).cloned().collect();
        let missing = self.parts.secrets.digests(&names);
        let mut lines: Vec<_> = missing
            .into_iter()
            .filter_map(|(name, digest)| {
                let error = digest.err()?;
                let subject = format!("secret {name}");
                Some(checkup(subject, CheckupResult::Broken, error.to_string(), None))
            })
            .collect();
        if lines.is_empty() && !names.is_empty() {
            let message = format!("{} in {}", names.len(), self.parts.secrets.path().display());
            lines.push(checkup("secrets", CheckupResult::Works, message, None));
        }
        let warnings = self.parts.secrets.warnings(&names).into_iter();
        lines.extend(warnings.map(|w| checkup("secrets", CheckupResult::Warning, w, None)));
        lines
    }
}

/// `1 app`, `2 apps`.
fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn state_folder(state: &Path) -> Checkup {
    let probe = state.join(".doctor");
    let message = format!("{} can be written", state.display());
    match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) => checkup("state folder", CheckupResult::Works, message, None),
        Err(error) => checkup(
            "state folder",
            CheckupResult::Broken,
            format!("{}: {error}", state.display()),
            Some("name another with --state, or run as a user who may write it"),
        ),
    }
}

/// How many ports of a host's range are free.
fn ports(host: &crate::model::Host, state: &crate::model::HostState) -> Checkup {
    let all = usize::from(host.ports.last - host.ports.first) + 1;
    let ours = state.containers.iter().filter_map(|container| container.birth.port);
    let used = ours.chain(state.foreign_ports.iter().copied());
    let used = used.filter(|port| (host.ports.first..=host.ports.last).contains(port)).count();
    let free = all.saturating_sub(used);
    let message =
        format!("{free} of {all} ports are free ({}-{})", host.ports.first, host.ports.last);
    let subject = format!("ports of {}", host.name);
    if free == 0 {
        return checkup(
            subject,
            CheckupResult::Broken,
            message,
            Some("widen spec.ports of the Host"),
        );
    }
    checkup(subject, CheckupResult::Works, message, None)
}
