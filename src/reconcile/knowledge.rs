//! What is known beside manifests and observation, kept from look to look: the images of apps and
//! the digests of secrets. A look brings it up to date with what changed since the one before.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::model::{App, AppId, Desired, Pin, SecretDigest, SecretName};
use crate::plan::Fallback;
use crate::source::SecretFolder;

/// The knowledge of one look.
#[derive(Debug, Clone, Default)]
pub(super) struct Knowledge {
    /// The apps that the rest is about.
    apps: OrdMap<AppId, Arc<App>>,
    pub pins: OrdMap<AppId, Result<Pin, String>>,
    /// Apps whose images aren't resolved.
    pub open: BTreeSet<AppId>,
    /// Pins that aren't in the store yet.
    pub unsaved: BTreeSet<AppId>,
    /// The apps and the fallbacks that `names` are of.
    named: (OrdMap<AppId, Arc<App>>, OrdMap<AppId, Arc<Fallback>>),
    names: BTreeSet<SecretName>,
    secrets: OrdMap<SecretName, Result<SecretDigest, String>>,
}

impl Knowledge {
    /// Takes the apps that are declared now. `stored`: what their images were resolved to before.
    pub fn take_apps(&mut self, desired: &Desired, stored: &OrdMap<AppId, Pin>) {
        let before = std::mem::replace(&mut self.apps, desired.apps.clone());
        for difference in before.diff(&self.apps) {
            match difference {
                DiffItem::Remove(id, _) => {
                    self.pins.remove(id);
                    self.open.remove(id);
                    self.unsaved.remove(id);
                }
                DiffItem::Add(id, app) | DiffItem::Update { new: (id, app), .. } => {
                    let image = &app.template.image;
                    let is_of = |pin: &&Pin| pin.reference == *image;
                    let known = self.pins.get(id).and_then(|pin| pin.as_ref().ok()).filter(is_of);
                    if known.is_some() {
                        continue;
                    }
                    self.unsaved.remove(id);
                    match stored.get(id).filter(is_of) {
                        Some(pin) => {
                            self.open.remove(id);
                            self.pins.insert(id.clone(), Ok(pin.clone()));
                        }
                        None => {
                            self.open.insert(id.clone());
                            self.pins.remove(id);
                        }
                    }
                }
            }
        }
    }

    /// The apps whose images have to be resolved.
    pub fn open_apps(&self) -> Vec<Arc<App>> {
        self.open.iter().filter_map(|id| self.apps.get(id)).cloned().collect()
    }

    /// Notes what an image was resolved to, or why it wasn't.
    pub fn resolve(&mut self, app: &AppId, answer: Result<Pin, String>) {
        if answer.is_ok() {
            self.open.remove(app);
            self.unsaved.insert(app.clone());
        }
        if self.pins.get(app) != Some(&answer) {
            self.pins.insert(app.clone(), answer);
        }
    }

    /// The digests of all secrets that the declared apps, or those that are gone back to, name.
    /// Secrets are files that change by themselves: each is read at each look.
    pub fn digests(
        &mut self,
        folder: &SecretFolder,
        desired: &Desired,
        fallbacks: &OrdMap<AppId, Arc<Fallback>>,
    ) -> OrdMap<SecretName, Result<SecretDigest, String>> {
        let (apps, before) = &self.named;
        if !apps.ptr_eq(&desired.apps) || !before.ptr_eq(fallbacks) {
            let old = fallbacks.values().flat_map(|fallback| fallback.app.template.secrets());
            let new = desired.apps.values().flat_map(|app| app.template.secrets());
            self.names = new.chain(old).cloned().collect();
            self.named = (desired.apps.clone(), fallbacks.clone());
        }
        let digests = folder.digests(&self.names);
        let gone: Vec<_> =
            self.secrets.keys().filter(|name| !digests.contains_key(*name)).cloned().collect();
        for name in gone {
            self.secrets.remove(&name);
        }
        for (name, digest) in digests {
            let digest = digest.map_err(|error| error.to_string());
            if self.secrets.get(&name) != Some(&digest) {
                self.secrets.insert(name, digest);
            }
        }
        self.secrets.clone()
    }
}
