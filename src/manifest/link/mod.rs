//! Documents held against each other: references, duplicates, what meets. It takes what each
//! document says by itself and gives the [`Desired`] of the commit, with everything that can't
//! be used named as such, and everything else usable.

mod apps;
mod balancers;
mod hosts;
mod routes;

pub(super) use apps::Judgement;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::base::{self, Bases};
use super::decode::{self, AppDraft, BalancerDraft, HostDraft};
use super::document::{Class, Document, Head, Identity};
use super::file::File;
use super::mistake::{Mistake, Mistakes, Texts};
use super::node::Node;
use super::text::FileId;
use crate::model::{
    App, AppId, BalancerName, Blocked, CommitId, Desired, EnvSource, EnvironmentName, Host,
    HostName, Installation, Location,
};

/// What is wrong with a commit, and what is left of it.
pub(super) struct Linked {
    /// Still without hosts and Apps: they are brought into the maps of the commit before.
    pub desired: Option<Desired>,
    pub hosts: BTreeMap<HostName, Arc<Host>>,
    pub apps: BTreeMap<AppId, Arc<App>>,
    pub errors: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

/// Decodes an App, or remembers having done so.
pub(super) trait DecodeApp {
    /// What the document at `index` of `file` says, with its bases.
    fn decode(&mut self, file: &Arc<File>, index: usize, bases: &mut Bases<'_>) -> Arc<DecodedApp>;

    /// The environment of that name, the very one of the commit before where it is the same.
    fn environment(&mut self, name: &EnvironmentName, environment: Environment)
    -> Arc<Environment>;

    /// Apps are judged against this from now on.
    fn set_context(&mut self, context: Context);

    /// How that document, decoded to `decoded`, was judged before against the same context; else
    /// as `judge` does.
    fn judgement(
        &mut self,
        document: (&Arc<File>, usize),
        decoded: &Arc<DecodedApp>,
        judge: &mut dyn FnMut() -> Judgement,
    ) -> Judgement;

    /// The App that was made of that document, decoded to `decoded`, in that very environment
    /// before; else the one that `make` makes.
    fn app(
        &mut self,
        document: (&Arc<File>, usize),
        decoded: &Arc<DecodedApp>,
        environment: Option<&Arc<Environment>>,
        make: &mut dyn FnMut() -> Option<App>,
    ) -> Option<Arc<App>>;
}

/// All that an App is judged against: what isn't an App follows from these.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// The files that hold anything but Apps, or that can't be read.
    files: Vec<FileId>,
    /// The paths that Apps name as bases.
    bases: BTreeSet<String>,
}

/// What the containers of an Environment have in common.
pub(super) type Environment = BTreeMap<String, EnvSource>;

/// An App as far as its document and its bases tell.
#[derive(Debug)]
pub(super) struct DecodedApp {
    pub draft: Option<AppDraft>,
    pub found: Mistakes,
    /// Why its base can't be used.
    pub broken_base: Option<String>,
}

/// A document, and why it can't be used.
struct Object<'f> {
    head: &'f Head,
    document: &'f Document,
    file: &'f Arc<File>,
    index: usize,
    found: Mistakes,
    /// Set by what isn't a mistake of its own: something that it needs is broken.
    needs: Option<String>,
    /// The same identity is declared elsewhere too.
    is_double: bool,
}

impl Object<'_> {
    /// Why it can't be used; none where it can.
    fn blocked(&self, texts: &Texts) -> Option<Blocked> {
        if let Some(mistake) = self.found.errors.iter().min() {
            let location = texts.location(mistake.at);
            return Some(Blocked { location, reason: mistake.message.clone() });
        }
        let reason = self.needs.clone()?;
        Some(Blocked { location: self.document.location.clone(), reason })
    }
}

/// Something that Apps refer to, by name: usable, or broken for a reason.
type Named<K, V> = BTreeMap<K, Result<V, Blocked>>;

/// All that is known of a commit while it is put together.
struct Linker<'f> {
    texts: &'f Texts,
    objects: BTreeMap<&'f Identity, Vec<Object<'f>>>,
    unreadable: Vec<Blocked>,
    environments: Named<EnvironmentName, Arc<Environment>>,
    hosts: Named<HostName, HostDraft>,
    balancers: Named<BalancerName, BalancerDraft>,
    errors: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

/// Puts the documents of a commit together.
pub(super) fn link(
    commit: CommitId,
    files: &BTreeMap<String, Arc<File>>,
    texts: &Texts,
    apps: &mut dyn DecodeApp,
) -> Linked {
    let mut linker = Linker {
        texts,
        objects: BTreeMap::new(),
        unreadable: Vec::new(),
        environments: Named::new(),
        hosts: Named::new(),
        balancers: Named::new(),
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    apps.set_context(linker.sort(files));
    linker.refuse_doubles();
    let installation = linker.installation();
    linker.link_environments(apps);
    linker.link_hosts();
    linker.link_balancers();
    let mut bases = Bases::new(files);
    let linked_apps = linker.link_apps(apps, &mut bases);
    linker.errors.append(&mut bases.found.errors);
    linker.warnings.append(&mut bases.found.warnings);
    linker.finish(commit, installation, linked_apps)
}

impl<'f> Linker<'f> {
    /// Each document to its identity; what has none is unreadable.
    fn sort(&mut self, files: &'f BTreeMap<String, Arc<File>>) -> Context {
        let mut others = Vec::new();
        let named = base::named(files);
        for (path, file) in files {
            if !holds_only_apps(file) {
                others.push(file.id);
            }
            let is_base = named.contains(path);
            if let Some(fault) = &file.fault {
                self.errors.push(fault.clone());
                if !is_base {
                    self.give_up(fault);
                }
            }
            let is_base =
                is_base && file.documents.iter().filter(|d| d.class != Class::Empty).count() <= 1;
            for (index, document) in file.documents.iter().enumerate() {
                self.sort_document(file, index, document, is_base);
            }
        }
        Context { files: others, bases: named }
    }

    fn sort_document(
        &mut self,
        file: &'f Arc<File>,
        index: usize,
        document: &'f Document,
        is_base: bool,
    ) {
        let found = document.found.clone();
        match &document.class {
            Class::Declares(head) => {
                let object =
                    Object { head, document, file, index, found, needs: None, is_double: false };
                self.objects.entry(&head.identity).or_default().push(object);
                return;
            }
            Class::Fragment if !is_base => self.judge_fragment(document),
            Class::Unknown if !is_base => {
                if let Some(mistake) = found.errors.iter().min() {
                    self.give_up(mistake);
                }
            }
            Class::Fragment | Class::Unknown | Class::Empty => {}
        }
        self.errors.extend(found.errors);
        self.warnings.extend(found.warnings);
    }

    /// A document without an envelope that no App names.
    fn judge_fragment(&mut self, document: &Document) {
        let entries = document.root.as_ref().and_then(Node::entries).unwrap_or_default();
        let is_spec = !entries.is_empty()
            && entries.iter().all(|entry| decode::APP_FIELDS.contains(&&*entry.key));
        let mut found = Mistakes::default();
        if is_spec {
            found
                .warn(document.at, "no App uses this base, and by itself it declares nothing")
                .hint("remove the file, or name it in the `base` of an App");
        } else {
            found
                .error(document.at, "this document has neither `apiVersion` nor `kind`")
                .hint("begin with `apiVersion: plimsoll/v1alpha1` and `kind: App`; keep other YAML outside the folder of manifests (`--path`)");
        }
        if let Some(mistake) = found.errors.first() {
            self.give_up(mistake);
        }
        self.errors.extend(found.errors);
        self.warnings.extend(found.warnings);
    }

    /// Remembers that something may be declared here that can't be read.
    fn give_up(&mut self, mistake: &Mistake) {
        let location = self.texts.location(mistake.at);
        self.unreadable.push(Blocked { location, reason: mistake.message.clone() });
    }

    /// One identity belongs to one document.
    fn refuse_doubles(&mut self) {
        for (identity, objects) in self.objects.iter_mut().filter(|(_, objects)| objects.len() > 1)
        {
            let places: Vec<_> =
                objects.iter().map(|object| self.texts.place(object.head.name_at)).collect();
            for (number, object) in objects.iter_mut().enumerate() {
                let other = &places[usize::from(number == 0)];
                let title = identity.title();
                let more = match places.len() {
                    2 => String::new(),
                    count => format!(", {count} times in all"),
                };
                object
                    .found
                    .error(
                        object.head.name_at,
                        format!("{title} is declared twice: also in {other}{more}"),
                    )
                    .hint(match identity {
                        Identity::Installation => {
                            "a repository has one Installation: keep one of them"
                        }
                        _ => "rename or remove one of them",
                    });
                object.is_double = true;
            }
        }
    }

    fn installation(&mut self) -> Option<Installation> {
        let objects = self.objects.get_mut(&Identity::Installation)?;
        let mut installation = None;
        for object in objects.iter_mut() {
            installation =
                decode::installation(object.head, object.document.spec(), &mut object.found);
        }
        installation.filter(|_| objects.len() == 1 && objects[0].found.errors.is_empty())
    }

    fn link_environments(&mut self, apps: &mut dyn DecodeApp) {
        for (identity, objects) in &mut self.objects {
            let Identity::Environment(name) = identity else { continue };
            for object in objects.iter_mut() {
                let env = object.document.spec().map(|spec| environment(spec, &mut object.found));
                let result = match object.blocked(self.texts) {
                    Some(blocked) => Err(blocked),
                    None => Ok(apps.environment(name, env.unwrap_or_default())),
                };
                self.environments.entry(name.clone()).or_insert(result);
            }
        }
    }

    fn finish(
        mut self,
        commit: CommitId,
        installation: Option<Installation>,
        linked: apps::LinkedApps,
    ) -> Linked {
        for object in self.objects.into_values().flatten() {
            self.errors.extend(object.found.errors);
            self.warnings.extend(object.found.warnings);
        }
        self.unreadable.sort_by(|a, b| (&a.location, &a.reason).cmp(&(&b.location, &b.reason)));
        let (hosts, broken_hosts) = part(self.hosts, |draft| Arc::new(draft.host));
        let (balancers, broken_balancers) = part(self.balancers, |draft| draft.balancer);
        let (environments, _) = part(self.environments, |env| Environment::clone(&env));
        let desired = installation.map(|installation| Desired {
            commit,
            installation,
            environments,
            hosts: OrdMap::new(),
            balancers,
            apps: OrdMap::new(),
            blocked: linked.blocked,
            unreadable: self.unreadable,
            broken_hosts,
            broken_balancers,
        });
        let (errors, warnings) = (self.errors, self.warnings);
        Linked { desired, hosts, apps: linked.apps, errors, warnings }
    }
}

fn holds_only_apps(file: &File) -> bool {
    let is_app = |document: &Document| {
        matches!(&document.class, Class::Declares(Head { identity: Identity::App(_), .. }))
    };
    file.fault.is_none() && file.documents.iter().all(is_app)
}

/// What can be used, and what can't.
fn part<K: Ord, V, W>(
    named: Named<K, V>,
    take: impl Fn(V) -> W,
) -> (BTreeMap<K, W>, BTreeMap<K, Blocked>) {
    let (mut fine, mut broken) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in named {
        match value {
            Ok(value) => {
                fine.insert(name, take(value));
            }
            Err(blocked) => {
                broken.insert(name, blocked);
            }
        }
    }
    (fine, broken)
}

fn environment(spec: &Node, found: &mut Mistakes) -> Environment {
    let Some(mut fields) = decode::Fields::open(spec, "the spec of an Environment", found) else {
        return BTreeMap::new();
    };
    let env = fields.get("env").map(|field| decode::env(&field, found)).unwrap_or_default();
    fields.finish(found);
    env
}

/// Where something broken is, for those who need it: `it has a mistake in FILE:LINE: ...`.
fn because(blocked: &Blocked) -> String {
    let Blocked { location: Location { file, line }, reason } = blocked;
    format!("which has a mistake in {file}:{line}: {reason}")
}

/// Apps by their identity.
type Apps<T> = BTreeMap<AppId, T>;
