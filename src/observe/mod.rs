//! Engines and HAProxies to one snapshot, all at the same time. What doesn't answer in time is
//! recorded as unseen, with the reason, and holds up nothing else: its call goes on in the
//! background, no second one is made beside it, and when it ends the loop is woken. What such a
//! late call says is thrown away: it may be older than what was done since.
//!
//! A host whose events are heard isn't asked again before one comes, or `FRESH` has passed, and
//! then only for the container that the event is of: what the engine answers is the truth, the
//! events only say when to ask. Nothing is decided here.
//!
//! What is the same as in the look before is shared with it, so that the next one who compares
//! two looks sees at once what changed.

mod looks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use imbl::OrdMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::docker::Engine;
use crate::model::{
    BalancerName, BalancerState, HostName, HostState, Observed, Owner, ProxyFile, ProxyProcess,
    View,
};
use crate::mutant::{self, Mutant};
use crate::proxy::Proxy;

use looks::{Answer, Looks};

/// How long one look waits for a host or balancer that answered the last time. A list of a few
/// hundred containers takes an engine some tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a look of the loop waits for a host until it goes on without it. The host still has
/// [`PATIENCE`] to answer; what is on it is left alone meanwhile.
const HASTE: Duration = Duration::from_millis(300);

/// How long a list is good where no event says otherwise. Engines drop events under load: this
/// is what heals that.
const FRESH: Duration = Duration::from_secs(30);

/// Above this number of containers that something happened to, a list is quicker.
const MOST_INSPECTED: usize = 4;

/// Where to look, and whose containers to see.
pub struct Observer {
    pub owner: Owner,
    pub engines: Arc<BTreeMap<HostName, Arc<dyn Engine>>>,
    pub proxies: Arc<BTreeMap<BalancerName, Arc<dyn Proxy>>>,
}

/// One look.
#[derive(Debug, Clone)]
pub struct Look {
    pub observed: Observed,
    /// Hosts that haven't answered yet and may still. They are in the snapshot as they were seen
    /// last: nothing may be done there now.
    pub slow: BTreeSet<HostName>,
}

/// Looks, and remembers which calls are still on their way.
pub struct Sight {
    hosts: Looks<HostName, HostState>,
    balancers: Looks<BalancerName, BalancerState>,
    kept: Mutex<BTreeMap<HostName, Kept>>,
    /// The look before.
    last: Mutex<Observed>,
    woken: Arc<Notify>,
}

/// What is known of a host between two lists.
#[derive(Debug, Default)]
struct Kept {
    /// Its events are heard.
    heard: bool,
    stirred: Stirred,
    /// What the call that is on its way was asked for.
    asking: Stirred,
    /// Something was done there since it was asked.
    acted: bool,
    /// What it had, and when it was listed.
    listed: Option<(Arc<HostState>, Instant)>,
    /// How many answers of it were taken.
    taken: u64,
}

/// What happened at a host since it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Stirred {
    /// It isn't known to what.
    all: bool,
    /// Containers, by id or name.
    containers: BTreeSet<String>,
}

impl Sight {
    /// `woken` is told when something that didn't answer in time did so later.
    pub fn new(woken: Arc<Notify>) -> Self {
        let (hosts, balancers) = (Looks::new(woken.clone()), Looks::new(woken.clone()));
        Self { hosts, balancers, kept: Mutex::default(), last: Mutex::default(), woken }
    }

    /// Says whether a host's events are heard from now on.
    pub fn hear(&self, host: &HostName, heard: bool) {
        let mut kept = self.kept();
        let kept = kept.entry(host.clone()).or_default();
        kept.heard = heard;
        kept.stirred.all = true;
    }

    /// Something happened at a host, or was done there: to a container, or nobody knows to what.
    pub fn stir(&self, host: &HostName, container: Option<&str>) {
        let mut kept = self.kept();
        let stirred = &mut kept.entry(host.clone()).or_default().stirred;
        match container {
            Some(container) if stirred.containers.len() <= MOST_INSPECTED => {
                stirred.containers.insert(container.to_owned());
            }
            _ => stirred.all = true,
        }
    }

    /// A step was done at a host: as [`Self::stir`], and an answer that was on its way may be
    /// older than the step.
    pub fn act(&self, host: &HostName, container: Option<&str>) {
        self.stir(host, container);
        if let Some(kept) = self.kept().get_mut(host) {
            kept.acted = true;
        }
    }

    /// Looks at everything at once. `lazy`: what is known to be good isn't asked for again, and
    /// nobody waits for a host that is slow.
    pub async fn look(&self, observer: &Observer, lazy: bool) -> Look {
        let asked = self.to_ask(observer, lazy);
        let hosts = join_all(asked.into_iter().map(|host| self.ask(observer, host, lazy)));
        let balancers = join_all(observer.proxies.iter().map(|(name, proxy)| async move {
            let proxy = proxy.clone();
            let call = async move { proxy.observe().await.map_err(|error| error.to_string()) };
            (name, self.balancers.look(name, PATIENCE, PATIENCE, call).await)
        }));
        let (hosts, balancers) = join(hosts, balancers).await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let slow = self.take_hosts(&mut last.hosts, observer, hosts);
        let old = std::mem::take(&mut last.balancers);
        for (name, answer) in balancers {
            if let Answer::View(view) = answer {
                last.balancers.insert(name.clone(), share(old.get(name), view));
            }
        }
        Look { observed: last.clone(), slow }
    }

    /// The hosts that have to be asked, and for what.
    fn to_ask(&self, observer: &Observer, lazy: bool) -> Vec<Question> {
        let mut kept = self.kept();
        let mut questions = Vec::new();
        for (name, engine) in observer.engines.iter() {
            let pending = self.hosts.is_pending(name);
            let kept = match kept.get_mut(name) {
                Some(kept) => kept,
                None => kept.entry(name.clone()).or_default(),
            };
            let base = kept.good().filter(|_| lazy && !pending);
            if base.is_some() && kept.stirred == Stirred::default() {
                continue;
            }
            // What happens from now on is a reason to ask again.
            let stirred =
                if pending { Stirred::default() } else { std::mem::take(&mut kept.stirred) };
            kept.acted &= pending;
            let one_by_one = !stirred.all && stirred.containers.len() <= MOST_INSPECTED;
            let of = base.filter(|_| one_by_one).map(|base| (base, stirred.containers));
            if !pending {
                let containers = of.as_ref().map(|(_, containers)| containers.clone());
                let all = containers.is_none();
                kept.asking = Stirred { all, containers: containers.unwrap_or_default() };
            }
            let (host, engine, asked) = (name.clone(), engine.clone(), kept.asking.clone());
            questions.push(Question {
                host,
                engine,
                is_late: pending,
                of,
                asked,
                taken: kept.taken,
            });
        }
        questions
    }

    async fn ask(&self, observer: &Observer, question: Question, lazy: bool) -> Told {
        let Question { host, engine, is_late, of, asked, taken } = question;
        let (begun, owner) = (Instant::now(), observer.owner.clone());
        let listed = of.as_ref().and_then(|_| self.kept().get(&host)?.listed.as_ref().map(|l| l.1));
        let call = async move {
            let state = match of {
                Some((base, containers)) => patched(&*engine, &owner, &base, containers).await,
                None => engine.observe(&owner).await,
            };
            match state {
                Err(_) if mutant::is(Mutant::UnseenAsEmpty) => Ok(HostState::default()),
                state => state.map_err(|error| error.to_string()),
            }
        };
        let wait = if lazy { HASTE } else { PATIENCE };
        let answer = self.hosts.look(&host, wait, PATIENCE, call).await;
        Told { host, answer, is_late, asked, taken, listed: listed.unwrap_or(begun) }
    }

    /// Brings the answers into the views of the look before. Returns those that are slow.
    fn take_hosts(
        &self,
        views: &mut OrdMap<HostName, View<Arc<HostState>>>,
        observer: &Observer,
        told: Vec<Told>,
    ) -> BTreeSet<HostName> {
        let mut slow = BTreeSet::new();
        let mut kept = self.kept();
        for Told { host, answer, is_late, asked, taken, listed } in told {
            let Some(kept) = kept.get_mut(&host) else { continue };
            // Whoever planned by it would do again, or undo, what was done meanwhile.
            let is_older_than_a_step = is_late && kept.acted;
            // A look beside this one that waited for no other host has learned more by now.
            let is_older_than_known = kept.taken != taken;
            let answer = match answer {
                Answer::View(View::Seen(_))
                    if (is_older_than_a_step || is_older_than_known)
                        && !mutant::is(Mutant::StaleSnapshot) =>
                {
                    // What it tells of the containers that it was asked for is lost with it.
                    if !mutant::is(Mutant::LookForgotten) {
                        kept.stirred.all |= asked.all;
                        kept.stirred.containers.extend(asked.containers);
                    }
                    self.woken.notify_one();
                    if !is_older_than_a_step {
                        continue;
                    }
                    Answer::Pending
                }
                answer => answer,
            };
            let view = match answer {
                Answer::View(view) => view.map(Arc::new),
                Answer::Pending => {
                    slow.insert(host.clone());
                    let reason = "it is being asked".to_owned();
                    views.entry(host).or_insert(View::Unseen { reason });
                    continue;
                }
            };
            let known = views.get(&host).filter(|known| **known == view);
            let view = match known {
                Some(known) => known.clone(),
                None => {
                    views.insert(host, view.clone());
                    view
                }
            };
            kept.taken += 1;
            kept.listed = view.seen().map(|state| (state.clone(), listed));
            if kept.stirred != Stirred::default() {
                self.woken.notify_one();
            }
        }
        if !views.keys().eq(observer.engines.keys()) {
            let gone = views.keys().filter(|name| !observer.engines.contains_key(*name));
            for name in gone.cloned().collect::<Vec<_>>() {
                views.remove(&name);
                kept.remove(&name);
            }
        }
        slow
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<HostName, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The last list of the host, where it can be relied on but for what stirred.
    fn good(&self) -> Option<Arc<HostState>> {
        let (state, listed) = self.listed.as_ref()?;
        (self.heard && (listed.elapsed() < FRESH || mutant::is(Mutant::EventsOnly)))
            .then(|| state.clone())
    }
}

/// What a host is to be asked.
struct Question {
    host: HostName,
    engine: Arc<dyn Engine>,
    /// An earlier look has asked it.
    is_late: bool,
    /// Only these containers; the rest is as it was.
    of: Option<(Arc<HostState>, BTreeSet<String>)>,
    /// What the call that answers it was asked for.
    asked: Stirred,
    /// How many answers were taken before.
    taken: u64,
}

/// What came of it.
struct Told {
    host: HostName,
    answer: Answer<HostState>,
    is_late: bool,
    asked: Stirred,
    taken: u64,
    /// When the list that it is based on was asked for.
    listed: Instant,
}

/// The state of a host with some containers looked at again.
async fn patched(
    engine: &dyn Engine,
    owner: &Owner,
    base: &HostState,
    containers: BTreeSet<String>,
) -> Result<HostState, crate::docker::EngineError> {
    let looks = containers.into_iter().map(|which| async move {
        let found = engine.inspect(owner, &which).await;
        (which, found)
    });
    let mut state = base.clone();
    for (which, found) in join_all(looks).await {
        let found = found?;
        let is_it = |id: &str, name: &str| {
            let same_id = found.as_ref().is_some_and(|container| container.id.0 == id);
            same_id || which == id || which == name
        };
        state.containers.retain(|container| !is_it(&container.id.0, &container.name));
        state.containers.extend(found.map(|mut container| {
            // A list doesn't tell it.
            container.restarts = 0;
            Arc::new(container)
        }));
    }
    state.containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(state)
}

/// The new view, made of the parts of the old one that are the same.
fn share(
    old: Option<&View<Arc<BalancerState>>>,
    new: View<BalancerState>,
) -> View<Arc<BalancerState>> {
    let (mut state, old) = match (new, old) {
        (View::Seen(state), Some(View::Seen(old))) => (state, old),
        (new, _) => return new.map(Arc::new),
    };
    if let (ProxyFile::Ours(new), ProxyFile::Ours(old)) = (&mut state.file, &old.file)
        && new == old
    {
        *new = old.clone();
    }
    if let (ProxyProcess::Up(new), ProxyProcess::Up(old)) = (&mut state.process, &old.process)
        && new == old
    {
        *new = old.clone();
    }
    if state == **old { View::Seen(old.clone()) } else { View::Seen(Arc::new(state)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::{EngineError, ImageInfo, LogLine, Stir};
    use crate::model::{
        Container, ContainerId, ImageRef, NewContainer, Pin, SecretName, Sha256, Span,
    };
    use async_trait::async_trait;
    use futures_util::stream::BoxStream;
    use secrecy::SecretString;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// An engine with nothing on it, which counts its lists.
    #[derive(Default)]
    struct Empty {
        lists: AtomicU64,
        /// Which containers were asked for, since the last list.
        inspected: Mutex<BTreeSet<String>>,
        /// While it is locked, nothing is said of single containers.
        gate: tokio::sync::RwLock<()>,
    }

    #[async_trait]
    impl Engine for Empty {
        async fn observe(&self, _: &Owner) -> Result<HostState, EngineError> {
            self.lists.fetch_add(1, Ordering::Relaxed);
            self.inspected.lock().unwrap().clear();
            Ok(HostState::default())
        }
        async fn inspect(&self, _: &Owner, id: &str) -> Result<Option<Container>, EngineError> {
            drop(self.gate.read().await);
            self.inspected.lock().unwrap().insert(id.to_owned());
            Ok(None)
        }
        async fn image(&self, _: &str) -> Result<Option<ImageInfo>, EngineError> {
            Ok(None)
        }
        async fn resolve(&self, _: &ImageRef) -> Result<Sha256, EngineError> {
            Ok(Sha256::of(b""))
        }
        async fn pull(&self, _: &Pin) -> Result<(), EngineError> {
            Ok(())
        }
        async fn create(
            &self,
            _: &NewContainer,
            _: &BTreeMap<SecretName, SecretString>,
        ) -> Result<ContainerId, EngineError> {
            Ok(ContainerId(String::new()))
        }
        async fn start(&self, _: &Owner, _: &str) -> Result<(), EngineError> {
            Ok(())
        }
        async fn stop(&self, _: &Owner, _: &ContainerId, _: Span) -> Result<(), EngineError> {
            Ok(())
        }
        async fn remove(&self, _: &Owner, _: &ContainerId) -> Result<(), EngineError> {
            Ok(())
        }
        async fn events(&self, _: &Owner) -> Result<BoxStream<'static, Stir>, EngineError> {
            Ok(Box::pin(futures_util::stream::pending()))
        }
        async fn logs(
            &self,
            _: &Owner,
            _: &ContainerId,
            _: Option<u32>,
            _: bool,
        ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
            Ok(Box::pin(futures_util::stream::empty()))
        }
        async fn version(&self) -> Result<String, EngineError> {
            Ok(String::new())
        }
    }

    fn observer(engines: &[(&str, &Arc<Empty>)]) -> Observer {
        let engine = |(name, engine): &(&str, &Arc<Empty>)| {
            let engine: Arc<dyn Engine> = (*engine).clone();
            (name.parse().unwrap(), engine)
        };
        let (installation, uid) = ("shop".parse().unwrap(), "8f14e45f".parse().unwrap());
        Observer {
            owner: Owner { installation, uid },
            engines: Arc::new(engines.iter().map(engine).collect()),
            proxies: Arc::default(),
        }
    }

    /// Also where as many hosts come as go.
    #[tokio::test]
    async fn hosts_that_are_not_looked_at_any_more_are_in_no_snapshot() {
        let sight = Sight::new(Arc::default());
        let empty = Arc::new(Empty::default());
        for names in [&["alpha", "beta"][..], &["beta", "gamma"], &["gamma"], &[]] {
            let engines: Vec<_> = names.iter().map(|name| (*name, &empty)).collect();
            let look = sight.look(&observer(&engines), true).await;
            assert!(look.observed.hosts.keys().map(HostName::as_str).eq(names.iter().copied()));
        }
    }

    #[tokio::test]
    async fn a_host_that_is_heard_is_listed_again_when_something_happened() {
        let sight = Sight::new(Arc::default());
        let engine = Arc::new(Empty::default());
        let observer = observer(&[("alpha", &engine)]);
        let alpha: HostName = "alpha".parse().unwrap();
        let lists = || engine.lists.load(Ordering::Relaxed);
        sight.look(&observer, true).await;
        sight.look(&observer, true).await;
        assert_eq!(lists(), 2, "a host whose events aren't heard is listed each time");
        sight.hear(&alpha, true);
        let before = sight.look(&observer, true).await.observed;
        let after = sight.look(&observer, true).await.observed;
        assert_eq!(lists(), 3);
        assert!(before.hosts.ptr_eq(&after.hosts), "what is the same is shared");
        sight.stir(&alpha, Some("0123"));
        sight.look(&observer, true).await;
        assert_eq!(lists(), 3, "one container is inspected");
        sight.stir(&alpha, None);
        sight.look(&observer, true).await;
        assert_eq!(lists(), 4);
        sight.look(&observer, false).await;
        assert_eq!(lists(), 5, "who has patience asks for all");
    }

    /// With the answer that is thrown away goes what it would have told of the containers that
    /// were asked for: whoever asked only for the next ones would never hear of those.
    #[tokio::test(start_paused = true)]
    async fn after_an_answer_that_was_thrown_away_its_question_is_asked_again() {
        let sight = Sight::new(Arc::default());
        let engine = Arc::new(Empty::default());
        let observer = observer(&[("alpha", &engine)]);
        let alpha: HostName = "alpha".parse().unwrap();
        sight.hear(&alpha, true);
        sight.look(&observer, true).await;
        let shut = engine.gate.write().await;
        sight.stir(&alpha, Some("0123"));
        assert!(sight.look(&observer, true).await.slow.contains(&alpha));
        sight.act(&alpha, Some("4567"));
        drop(shut);
        tokio::time::sleep(HASTE).await;
        assert!(sight.look(&observer, true).await.slow.contains(&alpha), "it is older than a step");
        engine.inspected.lock().unwrap().clear();
        assert!(sight.look(&observer, true).await.slow.is_empty());
        let inspected = engine.inspected.lock().unwrap().clone();
        assert!(inspected.iter().eq(["0123", "4567"]), "{inspected:?}");
        assert_eq!(engine.lists.load(Ordering::Relaxed), 1);
    }

    /// Of two looks at the same time, one waits for a host that is slow, and brings its answers
    /// when the other has long brought newer ones.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waited_for_others_replaces_no_newer_one() {
        let sight = Arc::new(Sight::new(Arc::default()));
        let (alpha, beta) = (Arc::new(Empty::default()), Arc::new(Empty::default()));
        let both = observer(&[("alpha", &alpha), ("beta", &beta)]);
        let on_alpha: HostName = "alpha".parse().unwrap();
        for host in both.engines.keys() {
            sight.hear(host, true);
        }
        sight.look(&both, true).await;
        sight.stir(&on_alpha, Some("0123"));
        sight.stir(&"beta".parse().unwrap(), Some("4567"));
        let shut = beta.gate.write().await;
        let (slow, both) = (sight.clone(), Arc::new(both));
        let observer = both.clone();
        let slow = tokio::spawn(async move { slow.look(&observer, true).await });
        tokio::time::sleep(HASTE / 3).await;
        assert!(alpha.inspected.lock().unwrap().contains("0123"), "alpha has answered the first");

        sight.act(&on_alpha, Some("89ab"));
        sight.look(&both, true).await;
        assert!(alpha.inspected.lock().unwrap().contains("89ab"), "and the second");
        slow.await.unwrap();
        drop(shut);
        let taken = sight.kept().get(&on_alpha).map(|kept| kept.taken);
        assert_eq!(taken, Some(2), "the first list, and the second look");
        alpha.inspected.lock().unwrap().clear();
        sight.look(&both, true).await;
        let inspected = alpha.inspected.lock().unwrap().clone();
        assert!(inspected.iter().eq(["0123"]), "the first look's question: {inspected:?}");
    }
}
