//! One look at everything: what a commit declares, what is there, and the plan from the one to
//! the other. `diff` shows it, `apply` executes it, `status` tells of it: there is no second way
//! to compute a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, PoisonError};

use crate::api::{Diff, OperationError};
use crate::check::{self, Finding};
use crate::model::{
    App, AppId, ApprovalRequest, CommitId, Desired, Diagnostic, Guards, Hold, Host, HostName,
    Observed, Pin, Placed, Revision, Sha256, View,
};
use crate::mutant::{self, Mutant};
use crate::observe::{Look, Observer};
use crate::plan::{BlockedApp, Input, Known, Plan, Planner, StepId};
use crate::source::Head;
use crate::store::StoreError;

use super::Controller;
use super::controller::{KnownDeparted, KnownObserver};
use super::knowledge::Knowledge;
use super::memory;

/// One look.
pub(super) struct Situation {
    pub desired: Arc<Desired>,
    pub diagnostics: Vec<Diagnostic>,
    pub observed: Observed,
    pub known: Known,
    pub plan: Plan,
    /// The apps that the plan looked at: what is known of the others is as it was.
    pub planned: BTreeSet<AppId>,
    /// Apps that are left alone until a host of theirs has answered. What is known of them is as
    /// it was.
    pub aside: BTreeSet<AppId>,
    pub observer: Arc<Observer>,
    /// What waits for a person as a whole.
    pub requests: Vec<ApprovalRequest>,
    /// The containers of the apps in `planned`, and those of all apps once they are asked for.
    standing: BTreeMap<AppId, Vec<Placed>>,
    all: OnceLock<BTreeMap<AppId, Vec<Placed>>>,
}

/// What a commit declares, and the mistakes in it.
pub(super) struct Reading {
    commit: CommitId,
    pub desired: Arc<Desired>,
    pub diagnostics: Vec<Diagnostic>,
}

/// What a look leaves out or keeps to itself.
#[derive(Debug, Default, Clone)]
pub(super) struct LookOptions {
    /// Apps whose steps are being executed.
    pub busy: BTreeSet<AppId>,
    /// Ports that those steps will use.
    pub reserved: BTreeMap<crate::model::HostName, BTreeSet<u16>>,
    /// New pins are written down.
    pub remember: bool,
    /// Registries that don't answer at once aren't waited for: the loop is woken when they do.
    pub hasty: bool,
}

/// The commit to work on, and what of it waits for a person.
pub(super) struct Tip {
    pub commit: CommitId,
    pub requests: Vec<ApprovalRequest>,
    /// False where the commit may be looked at but not applied yet.
    pub may_apply: bool,
    /// The commit that had been taken up when the remote was asked.
    pub base: Option<CommitId>,
}

impl Tip {
    /// True where another commit than this one was taken up since: somebody applied by hand.
    pub fn is_old(&self, attempted: Option<&CommitId>) -> bool {
        attempted != self.base.as_ref() && attempted != Some(&self.commit)
    }
}

pub(super) fn store_failed(error: &StoreError) -> OperationError {
    OperationError::because("the store can't be used", error)
}

impl Controller {
    /// Looks at the remote. A commit only follows one that it descends from, unless a person
    /// approved.
    pub(super) async fn tip(&self) -> Result<Tip, OperationError> {
        let commits = self.memory.commits().map_err(|error| store_failed(&error))?;
        let attempted = commits.attempted.clone();
        let base = commits.attempted.or(commits.applied);
        let base = base.filter(|commit| !commit.0.starts_with("worktree"));
        self.count("sourceFetches", 1);
        let head = self.parts.source.fetch(base.as_ref()).await.map_err(|error| {
            OperationError::because("the manifest repository can't be read", &error)
                .hint("`plimsoll doctor` looks at each part of it")
        })?;
        Ok(match head {
            Head::At(commit) => {
                Tip { commit, requests: Vec::new(), may_apply: true, base: attempted }
            }
            Head::Behind { tip, .. } if mutant::is(Mutant::OlderCommit) => {
                Tip { commit: tip, requests: Vec::new(), may_apply: true, base: attempted }
            }
            Head::Behind { applied, tip } => {
                tracing::info!(%applied, %tip, "the remote shows an older commit; it is left alone");
                Tip { commit: applied, requests: Vec::new(), may_apply: true, base: attempted }
            }
            Head::Rewritten { applied, tip } => self.rewritten(&applied, tip, attempted)?,
        })
    }

    fn rewritten(
        &self,
        applied: &CommitId,
        tip: CommitId,
        base: Option<CommitId>,
    ) -> Result<Tip, OperationError> {
        let id = Sha256::of(format!("rewrite {applied} {tip}").as_bytes()).short(12);
        let approved = self.memory.approvals().map_err(|error| store_failed(&error))?.contains(&id);
        if approved || mutant::is(Mutant::RewrittenHistory) {
            return Ok(Tip { commit: tip, requests: Vec::new(), may_apply: true, base });
        }
        let reason = format!("history rewritten {}..{}", applied.short(), tip.short());
        let requests = vec![ApprovalRequest { id, reason }];
        Ok(Tip { commit: tip, requests, may_apply: false, base })
    }

    /// Looks at everything, and plans.
    ///
    /// # Errors
    /// The commit can't be read, or declares no installation.
    pub(super) async fn look(
        &self,
        commit: &CommitId,
        requests: Vec<ApprovalRequest>,
        options: LookOptions,
    ) -> Result<Situation, OperationError> {
        let reading = self.read(commit).await?;
        let (desired, diagnostics) = (reading.desired.clone(), reading.diagnostics.clone());
        let departed = self.departed(&desired).map_err(|error| store_failed(&error))?;
        let observer = self.observer(&desired, &departed);
        let Look { observed, slow } = self.sight.look(&observer, options.hasty).await;
        self.count("looks", 1);
        let remember = options.remember;
        let mut known = self.known(&desired, &observed, &observer, options).await?;
        known.departed_hosts = departed;
        self.count("slowHosts", slow.len() as u64);
        let mut aside = BTreeSet::new();
        if !slow.is_empty() {
            aside = apps_on(&slow, &desired, &observed);
            aside.retain(|app| !known.busy.contains(app));
            known.busy.extend(aside.iter().cloned());
        }
        let previous = self.previous().await;
        known.guards = guards(previous.as_deref(), &desired);
        let last = self.recollect().last.clone();
        let (plan, standing) =
            match last.filter(|last| last.is_the_same(&desired, &observed, &known)) {
                Some(last) => (last.plan.clone(), BTreeMap::new()),
                None => {
                    self.count("plans", 1);
                    let previous = previous.as_deref();
                    let input =
                        Input { desired: &desired, observed: &observed, known: &known, previous };
                    let (plan, standing) = self.plan(&input, remember);
                    let findings = check::findings(&plan, &desired, &observed);
                    (withhold(plan, &findings, &desired), standing)
                }
            };
        let planned: BTreeSet<AppId> = standing.keys().cloned().collect();
        Ok(Situation {
            desired,
            diagnostics,
            observed,
            known,
            plan,
            planned,
            aside,
            observer,
            requests,
            standing,
            all: OnceLock::new(),
        })
    }

    /// The plan, and the apps that had to be looked at for it, with their containers. `remember`:
    /// it is one of a row in which each costs what changed since the one before.
    fn plan(&self, input: &Input<'_>, remember: bool) -> (Plan, BTreeMap<AppId, Vec<Placed>>) {
        let mut alone = Planner::default();
        let mut remembering;
        let planner = if remember {
            remembering = self.planner.lock().unwrap_or_else(PoisonError::into_inner);
            &mut *remembering
        } else {
            &mut alone
        };
        let plan = planner.plan(input);
        let planned = planner.planned().iter();
        let standing: BTreeMap<AppId, Vec<Placed>> =
            planned.map(|app| (app.clone(), planner.containers_of(app).to_vec())).collect();
        self.count("appsPlanned", standing.len() as u64);
        if remember {
            self.recollect().unwritten.extend(standing.keys().cloned());
        }
        (plan, standing)
    }

    /// What a commit declares. It never changes, so it is read once.
    async fn read(&self, commit: &CommitId) -> Result<Arc<Reading>, OperationError> {
        if let Some(reading) = self.recollect().read.clone().filter(|r| r.commit == *commit) {
            return Ok(reading);
        }
        let files = self.parts.source.files(commit).await.map_err(|error| {
            OperationError::because(format!("commit {} can't be read", commit.short()), &error)
        })?;
        let reading = {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.read(&files)
        };
        self.count("filesParsed", reading.files_parsed as u64);
        match reading.desired {
            Some(desired) => {
                let (commit, desired) = (commit.clone(), Arc::new(desired));
                let reading =
                    Arc::new(Reading { commit, desired, diagnostics: reading.diagnostics });
                self.recollect().read = Some(reading.clone());
                Ok(reading)
            }
            None => Err(OperationError {
                diagnostics: reading.diagnostics,
                ..OperationError::new(format!(
                    "commit {} declares no installation that can be used",
                    commit.short()
                ))
                .hint("`plimsoll init` writes one")
            }),
        }
    }

    /// Hosts that were declared once and aren't any more.
    fn departed(&self, desired: &Desired) -> Result<BTreeMap<HostName, Host>, StoreError> {
        let hosts = self.memory.hosts()?;
        let mut recollection = self.recollect();
        if let Some(known) = &recollection.departed
            && known.known.ptr_eq(&hosts)
            && known.declared.ptr_eq(&desired.hosts)
            && (known.broken, desired.broken_hosts.len()) == (0, 0)
        {
            return Ok(known.departed.clone());
        }
        let departed = memory::departed(&hosts, desired);
        recollection.departed = Some(KnownDeparted {
            known: hosts,
            declared: desired.hosts.clone(),
            broken: desired.broken_hosts.len(),
            departed: departed.clone(),
        });
        Ok(departed)
    }

    /// Where to look: declared hosts, those that were taken out of git, declared balancers.
    fn observer(&self, desired: &Desired, departed: &BTreeMap<HostName, Host>) -> Arc<Observer> {
        let owner = crate::plan::owner(desired);
        let mut recollection = self.recollect();
        if let Some(known) = &recollection.observer
            && known.hosts.ptr_eq(&desired.hosts)
            && known.departed == *departed
            && known.balancers == desired.balancers
            && known.observer.owner == owner
        {
            return known.observer.clone();
        }
        let hosts = desired.hosts.values().map(AsRef::as_ref).chain(departed.values());
        let engines = hosts.map(|host| (host.name.clone(), self.parts.engines.engine(host)));
        let balancers = desired.balancers.values();
        let proxies = balancers.map(|b| (b.name.clone(), self.parts.proxies.proxy(b)));
        let (engines, proxies) = (Arc::new(engines.collect()), Arc::new(proxies.collect()));
        let observer = Arc::new(Observer { owner, engines, proxies });
        recollection.observer = Some(KnownObserver {
            hosts: desired.hosts.clone(),
            departed: departed.clone(),
            balancers: desired.balancers.clone(),
            observer: observer.clone(),
        });
        observer
    }

    async fn known(
        &self,
        desired: &Desired,
        observed: &Observed,
        observer: &Observer,
        options: LookOptions,
    ) -> Result<Known, OperationError> {
        let failed = |error: StoreError| store_failed(&error);
        // Two looks at the same time are rare: the second begins anew.
        let (mut knowledge, mut changing) = {
            let mut recollection = self.recollect();
            (
                std::mem::take(&mut recollection.knowledge),
                std::mem::take(&mut recollection.changing),
            )
        };
        knowledge.take_apps(desired, &self.memory.pins().map_err(failed)?);
        self.resolve_images(&mut knowledge, observed, observer, options.hasty).await;
        if options.remember {
            self.save_pins(&mut knowledge).map_err(failed)?;
        }
        let fallbacks = self.memory.fallbacks().map_err(failed)?;
        let secrets = knowledge.digests(&self.parts.secrets, desired, &fallbacks);
        let mut taken_ports = options.reserved;
        let last_pointers = {
            let beside = (self.parts.store.as_ref(), &self.memory);
            self.recollect()
                .pointed
                .take(&desired.broken_balancers, observed, beside)
                .map_err(failed)?
        };
        for (host, ports) in &self.recollect().taken_ports {
            taken_ports.entry(host.clone()).or_default().extend(ports);
        }
        changing.take(desired, observed);
        let failing_checks = changing.failing(observed).await;
        let pins = knowledge.pins.clone();
        let mut recollection = self.recollect();
        recollection.knowledge = knowledge;
        recollection.changing = changing;
        drop(recollection);
        Ok(Known {
            pins,
            secrets,
            holds: self.memory.holds().map_err(failed)?,
            fallbacks,
            approvals: self.memory.approvals().map_err(failed)?,
            departed_hosts: BTreeMap::new(),
            guards: Guards::default(),
            taken_ports,
            last_pointers,
            failing_checks,
            busy: options.busy,
        })
    }

    fn save_pins(&self, knowledge: &mut Knowledge) -> Result<(), StoreError> {
        let pins = knowledge.unsaved.iter().filter_map(|id| {
            let pin = knowledge.pins.get(id)?.as_ref().ok()?;
            Some((id.clone(), pin.clone()))
        });
        let pins: BTreeMap<AppId, Pin> = pins.collect();
        self.memory.pin(&pins)?;
        knowledge.unsaved.clear();
        Ok(())
    }

    /// What the commit applied before declared; none where there is none or it can't be read.
    async fn previous(&self) -> Option<Arc<Desired>> {
        let applied = self.memory.commits().ok()?.applied?;
        if let Some((commit, desired)) = &self.recollect().applied
            && *commit == applied
        {
            return Some(desired.clone());
        }
        let files = self.parts.source.files(&applied).await.ok()?;
        let desired = Arc::new(crate::manifest::Reader::new().read(&files).desired?);
        self.recollect().applied = Some((applied, desired.clone()));
        Some(desired)
    }

    /// Holds of revisions that aren't declared any more are forgotten.
    pub(super) fn forget_old_holds(&self, situation: &Situation) -> Result<(), StoreError> {
        for hold in situation.known.holds.values() {
            let waits = situation.plan.waiting.iter().any(|waiting| {
                waiting.app == hold.app
                    && matches!(&waiting.cause, crate::plan::WaitCause::Held { revision } if *revision == hold.revision)
            });
            let unknown = situation.known.busy.contains(&hold.app)
                || situation.desired.blocked.contains_key(&hold.app)
                || situation.plan.blocked.iter().any(|b| b.app.as_ref() == Some(&hold.app))
                || situation.plan.waiting.iter().any(|w| w.app == hold.app);
            if !waits && !unknown {
                self.memory.lift(&hold.app)?;
            }
        }
        Ok(())
    }
}

/// The apps that are placed on one of these hosts, or had a container there.
fn apps_on(hosts: &BTreeSet<HostName>, desired: &Desired, observed: &Observed) -> BTreeSet<AppId> {
    let placed =
        desired.apps.values().filter(|app| app.placement.keys().any(|h| hosts.contains(h)));
    let states = hosts.iter().filter_map(|host| observed.host(host));
    let standing = states.flat_map(|state| &state.containers).map(|c| c.birth.app.clone());
    placed.map(|app| app.id.clone()).chain(standing).collect()
}

fn guards(previous: Option<&Desired>, desired: &Desired) -> Guards {
    previous.unwrap_or(desired).installation.guards
}

/// The plan without the apps whose steps would break a promise; they are blocked, and it is
/// said why. No plan of the planner should ever come to this.
fn withhold(mut plan: Plan, findings: &[Finding], desired: &Desired) -> Plan {
    if findings.is_empty() {
        return plan;
    }
    let apps: BTreeSet<&AppId> = findings.iter().filter_map(|f| f.app.as_ref()).collect();
    let shared = findings.iter().any(|finding| finding.app.is_none());
    let mut dropped: BTreeSet<StepId> = BTreeSet::new();
    for step in &plan.steps {
        let of_app = step.app.as_ref().is_some_and(|app| apps.contains(app));
        let follows = step.after.iter().any(|id| dropped.contains(id));
        if shared || of_app || follows {
            dropped.insert(step.id.clone());
        }
    }
    plan.steps.retain(|step| !dropped.contains(&step.id));
    for finding in findings {
        tracing::error!(promise = ?finding.promise, step = ?finding.step, "{}", finding.message);
        let location = finding.app.as_ref().and_then(|app| desired.apps.get(app));
        let location = location.map_or_else(
            || crate::model::Location { file: "plan".into(), line: 1 },
            |app| app.location.clone(),
        );
        plan.blocked.push(BlockedApp {
            app: finding.app.clone(),
            location,
            reason: format!(
                "the plan would break promise {:?}: {}",
                finding.promise, finding.message
            ),
        });
    }
    plan
}

impl Situation {
    /// True where a plan from these would be this plan. What changed since the commit before
    /// is shown beside it, and doesn't count.
    fn is_the_same(&self, desired: &Arc<Desired>, observed: &Observed, known: &Known) -> bool {
        Arc::ptr_eq(&self.desired, desired) && self.observed == *observed && self.known == *known
    }

    /// The same with nothing to do.
    pub fn without_plan(&self) -> Self {
        Self {
            desired: self.desired.clone(),
            diagnostics: self.diagnostics.clone(),
            observed: self.observed.clone(),
            known: self.known.clone(),
            plan: Plan {
                commit: self.plan.commit.clone(),
                digest: self.plan.digest,
                steps: Vec::new(),
                routes: Vec::new(),
                waiting: Vec::new(),
                blocked: Vec::new(),
                changes: BTreeMap::new(),
                totals: crate::plan::Totals::default(),
            },
            planned: BTreeSet::new(),
            aside: BTreeSet::new(),
            observer: self.observer.clone(),
            requests: self.requests.clone(),
            standing: BTreeMap::new(),
            all: OnceLock::new(),
        }
    }

    /// The containers of an app that were seen.
    pub fn containers_of(&self, app: &AppId) -> &[Placed] {
        if self.planned.contains(app) {
            return self.standing.get(app).map_or(&[], Vec::as_slice);
        }
        let all = self.all.get_or_init(|| {
            let mut all: BTreeMap<AppId, Vec<Placed>> = BTreeMap::new();
            for (host, container) in self.observed.containers() {
                let app = container.birth.app.clone();
                all.entry(app).or_default().push((host.clone(), container.clone()));
            }
            all
        });
        all.get(app).map_or(&[], Vec::as_slice)
    }

    /// What could not be seen, in words.
    pub fn unseen(&self) -> Vec<String> {
        let hosts = self.observed.hosts.iter().filter_map(|(name, view)| match view {
            View::Unseen { reason } => Some(format!("host {name}: {reason}")),
            View::Seen(_) => None,
        });
        let balancers = self.observed.balancers.iter().filter_map(|(name, view)| match view {
            View::Unseen { reason } => Some(format!("balancer {name}: {reason}")),
            View::Seen(_) => None,
        });
        hosts.chain(balancers).collect()
    }

    /// Everything that a person could let through.
    pub fn approvals(&self) -> Vec<ApprovalRequest> {
        let mut all: BTreeMap<&str, ApprovalRequest> = BTreeMap::new();
        for waiting in &self.plan.waiting {
            if let Some(id) = &waiting.approval {
                let reason = format!("{}: {}", waiting.app, waiting.reason);
                let request = ApprovalRequest { id: id.clone(), reason };
                all.entry(id).or_insert(request);
            }
        }
        self.requests.iter().cloned().chain(all.into_values()).collect()
    }

    pub fn diff(&self) -> Diff {
        Diff {
            plan: self.plan.clone(),
            diagnostics: self.diagnostics.clone(),
            unseen: self.unseen(),
            approvals: self.approvals(),
        }
    }

    /// Nothing is left to do, and nothing waits.
    pub fn is_converged(&self) -> bool {
        let plan = &self.plan;
        plan.is_empty()
            && plan.waiting.is_empty()
            && plan.blocked.is_empty()
            && self.requests.is_empty()
            && self.observed.hosts.values().all(|view| view.seen().is_some())
            && self.observed.balancers.values().all(|view| view.seen().is_some())
    }

    /// The revision that an app would have with that image; none while a secret isn't known.
    pub fn revision_of(&self, app: &App, pin: &Pin) -> Option<Revision> {
        let known = self.known.secrets.iter();
        let digests =
            known.filter_map(|(name, digest)| Some((name.clone(), *digest.as_ref().ok()?)));
        Some(app.template.resolve(pin, &digests.collect()).ok()?.revision())
    }

    /// The hold that a failure asks for.
    pub fn hold(&self, app: &AppId, revision: crate::model::Revision, reason: String) -> Hold {
        Hold { app: app.clone(), revision, commit: self.desired.commit.clone(), reason }
    }
}
