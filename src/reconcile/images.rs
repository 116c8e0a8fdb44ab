//! From image references to what they stand for. A tag is resolved when the `image` field
//! changes, and pinned: by its registry, which an engine is asked to ask, or where the image was
//! built on the hosts, by its id there. A registry that is slow holds up only the apps that
//! wait for it: questions go on in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::docker::Engine;
use crate::model::{App, AppId, HostName, ImageContent, ImageRef, Observed, Pin, Sha256};
use crate::observe::Observer;

use super::Controller;
use super::knowledge::Knowledge;

/// How long a look of the loop waits for answers, and how long a command's own does: an engine
/// gives up asking a registry after 30 s.
const HASTY: Duration = Duration::from_secs(2);
const PATIENT: Duration = Duration::from_secs(60);

/// Registries and engines that are asked at one time.
const AT_ONCE: usize = 16;

/// Questions on their way, and those that failed, with the time of the next try.
pub(super) struct Resolutions {
    asked: BTreeMap<AppId, Asked>,
    failed: BTreeMap<AppId, Failed>,
    places: Arc<Semaphore>,
}

impl Default for Resolutions {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self { asked: BTreeMap::new(), failed: BTreeMap::new(), places }
    }
}

struct Asked {
    image: ImageRef,
    answer: Shared<BoxFuture<'static, Result<Pin, String>>>,
}

struct Failed {
    image: ImageRef,
    reason: String,
    tries: u32,
    next: Instant,
    /// The hosts that could be seen then, and since then at each look: one that comes in addition
    /// may know more.
    seen: BTreeSet<HostName>,
}

impl Controller {
    /// Finds out what the images that aren't resolved stand for.
    pub(super) async fn resolve_images(
        &self,
        knowledge: &mut Knowledge,
        observed: &Observed,
        observer: &Observer,
        hasty: bool,
    ) {
        let mut open = Vec::new();
        let apps = knowledge.open_apps();
        let labelled = labelled(&apps, observed);
        for app in apps {
            let id = &app.id;
            if let Some(pin) = certain(&app.template.image).or_else(|| labelled.get(id).cloned()) {
                knowledge.resolve(id, Ok(pin));
            } else if let Some(reason) = self.failed_lately(&app, observed) {
                knowledge.resolve(id, Err(reason));
            } else {
                let answer = self.ask(&app, observed, observer);
                open.push((app, answer));
            }
        }
        let deadline = Instant::now() + if hasty { HASTY } else { PATIENT };
        for (app, answer) in open {
            let image = &app.template.image;
            let answer = match tokio::time::timeout_at(deadline, answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    let reason = format!("{image} is being resolved, no answer so far");
                    knowledge.resolve(&app.id, Err(reason));
                    continue;
                }
            };
            self.note_resolution(&app, observed, &answer);
            knowledge.resolve(&app.id, answer);
        }
    }

    fn resolutions(&self) -> MutexGuard<'_, Resolutions> {
        self.resolutions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, unless that very question is on its way already.
    fn ask(
        &self,
        app: &App,
        observed: &Observed,
        observer: &Observer,
    ) -> Shared<BoxFuture<'static, Result<Pin, String>>> {
        let image = app.template.image.clone();
        let mut resolutions = self.resolutions();
        if let Some(asked) = resolutions.asked.get(&app.id).filter(|asked| asked.image == image) {
            return asked.answer.clone();
        }
        let hosts: Vec<(HostName, Arc<dyn Engine>)> = seen_hosts(app, observed)
            .filter_map(|host| Some((host.clone(), observer.engines.get(host)?.clone())))
            .collect();
        let (places, wake) = (resolutions.places.clone(), self.wake.clone());
        let question = image.clone();
        let task = tokio::spawn(async move {
            let _place = places.acquire_owned().await;
            let answer = resolve(&question, &hosts).await;
            wake.notify_one();
            answer
        });
        let answer = async move {
            task.await.unwrap_or_else(|error| Err(format!("the question failed: {error}")))
        };
        let answer = answer.boxed().shared();
        resolutions.asked.insert(app.id.clone(), Asked { image, answer: answer.clone() });
        answer
    }

    fn failed_lately(&self, app: &App, observed: &Observed) -> Option<String> {
        let mut resolutions = self.resolutions();
        let failed = resolutions.failed.get_mut(&app.id)?;
        let came = seen_hosts(app, observed).any(|host| !failed.seen.contains(host));
        failed.seen.retain(|host| observed.host(host).is_some());
        let waits = failed.image == app.template.image && Instant::now() < failed.next && !came;
        waits.then(|| failed.reason.clone())
    }

    fn note_resolution(&self, app: &App, observed: &Observed, answer: &Result<Pin, String>) {
        let unit = self.parts.randomness.unit();
        let mut resolutions = self.resolutions();
        resolutions.asked.remove(&app.id);
        match answer {
            Ok(_) => drop(resolutions.failed.remove(&app.id)),
            Err(reason) => {
                let image = app.template.image.clone();
                let before = resolutions.failed.get(&app.id).filter(|failed| failed.image == image);
                let tries = before.map_or(0, |failed| failed.tries.saturating_add(1));
                let pause = Duration::from_secs(2).saturating_mul(1 << tries.min(7));
                let next = Instant::now() + pause.mul_f64(0.8 + 0.4 * unit);
                let reason = reason.clone();
                let seen = seen_hosts(app, observed).cloned().collect();
                let failed = Failed { image, reason, tries, next, seen };
                resolutions.failed.insert(app.id.clone(), failed);
            }
        }
    }
}

/// The hosts of an app that can be seen.
fn seen_hosts<'a>(app: &'a App, observed: &Observed) -> impl Iterator<Item = &'a HostName> {
    app.placement.keys().filter(|host| observed.host(host).is_some())
}

/// A reference with a digest needs nobody's word.
fn certain(image: &ImageRef) -> Option<Pin> {
    let digest = image.digest()?;
    Some(Pin { reference: image.clone(), content: ImageContent::Digest(digest) })
}

/// What a container of each app was made from, when its label names that very reference: so a
/// lost store changes no pin.
fn labelled(apps: &[Arc<App>], observed: &Observed) -> BTreeMap<AppId, Pin> {
    let images: BTreeMap<&AppId, &ImageRef> =
        apps.iter().map(|app| (&app.id, &app.template.image)).collect();
    let mut pins: BTreeMap<AppId, Pin> = BTreeMap::new();
    if images.is_empty() {
        return pins;
    }
    for (_, container) in observed.containers() {
        let birth = &container.birth;
        if images.get(&birth.app).is_some_and(|image| birth.pin.reference == **image)
            && pins.get(&birth.app).is_none_or(|known| *known < birth.pin)
        {
            pins.insert(birth.app.clone(), birth.pin.clone());
        }
    }
    pins
}

/// Asks the app's hosts, and through one of them the registry.
async fn resolve(image: &ImageRef, hosts: &[(HostName, Arc<dyn Engine>)]) -> Result<Pin, String> {
    if hosts.is_empty() {
        return Err(format!("{image} can't be resolved: no host of it can be seen"));
    }
    let name = image.to_string();
    let name = name.as_str();
    let looks = hosts.iter().map(|(host, engine)| async move { (host, engine.image(name).await) });
    let looks = futures_util::future::join_all(looks).await;
    let mut local: BTreeMap<&HostName, Sha256> = BTreeMap::new();
    let mut without: Vec<&HostName> = Vec::new();
    let mut silent: Vec<String> = Vec::new();
    for (host, look) in &looks {
        match look {
            Ok(Some(info)) if info.repository_digests.is_empty() => {
                local.insert(host, info.id);
            }
            Ok(_) => without.push(host),
            Err(error) => silent.push(format!("{host}: {error}")),
        }
    }
    if !local.is_empty() {
        return built_on_hosts(image, &local, &without);
    }
    if without.is_empty() {
        return Err(format!(
            "{image} can't be resolved: no host of it answers ({})",
            silent.join("; ")
        ));
    }
    from_registry(image, hosts, &without).await
}

/// An image that was built on the hosts: all must hold the same one.
fn built_on_hosts(
    image: &ImageRef,
    local: &BTreeMap<&HostName, Sha256>,
    without: &[&HostName],
) -> Result<Pin, String> {
    let mut distinct: Vec<(&&HostName, &Sha256)> = local.iter().collect();
    distinct.sort_by_key(|(_, id)| **id);
    distinct.dedup_by_key(|(_, id)| **id);
    if let [(one, first), (other, second), ..] = distinct.as_slice() {
        return Err(format!(
            "hosts hold different images under {image}: {one} has {}, {other} has {}; load the same one on both, or push it to a registry",
            first.short(12),
            second.short(12)
        ));
    }
    let Some((holder, id)) = distinct.first() else {
        return Err(format!("{image} is on no host"));
    };
    if let Some(host) = without.first() {
        return Err(format!(
            "{image} was built on {holder} and isn't on {host}: load it there (docker save {image} on {holder}, docker load on {host}), or push it to a registry"
        ));
    }
    Ok(Pin { reference: image.clone(), content: ImageContent::Id(**id) })
}

async fn from_registry(
    image: &ImageRef,
    hosts: &[(HostName, Arc<dyn Engine>)],
    answering: &[&HostName],
) -> Result<Pin, String> {
    let mut reasons = Vec::new();
    for (host, engine) in hosts.iter().filter(|(host, _)| answering.contains(&host)) {
        match engine.resolve(image).await {
            Ok(digest) => {
                return Ok(Pin { reference: image.clone(), content: ImageContent::Digest(digest) });
            }
            Err(error) => reasons.push(format!("{host}: {error}")),
        }
    }
    Err(format!("{image} can't be resolved: {}", reasons.join("; ")))
}
