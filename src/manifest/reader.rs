//! The reader: files of a commit in, [`Reading`] out. It remembers what it parsed, so that a
//! commit costs what it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::base::Bases;
use super::decode;
use super::document::Class;
use super::file::{File, is_manifest};
use super::link::{Context, DecodeApp, DecodedApp, Environment, Judgement, Linked, link};
use super::mistake::{Mistake, Mistakes, Texts};
use super::node::merge;
use super::text::FileId;
use crate::model::{
    App, AppId, Blocked, Content, Desired, Diagnostic, EnvironmentName, Files, Host, HostName,
    Location,
};

/// The most files of a commit that are read.
const MOST_FILES: usize = 50_000;
/// The most diagnostics that are handed on.
const MOST_DIAGNOSTICS: usize = 10_000;

/// What a commit's files say.
#[derive(Debug, Clone)]
pub struct Reading {
    /// What can be used. None only where no Installation can be: then the diagnostics say why.
    pub desired: Option<Desired>,
    /// Mistakes, in the order of files, lines and columns.
    pub diagnostics: Vec<Diagnostic>,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<Diagnostic>,
    /// How many files were parsed for this reading; the others were known.
    pub files_parsed: usize,
}

/// Reads commits one after the other, and parses only the blobs that it doesn't know from the
/// commit before.
#[derive(Debug, Default)]
pub struct Reader {
    files: BTreeMap<String, Arc<File>>,
    /// Of each of `files` git's id of the content, or the reason why there is none.
    contents: BTreeMap<String, String>,
    texts: Texts,
    apps: KnownApps,
    next: u32,
    /// Hosts and Apps of the commit before, which the next one shares what didn't change with.
    hosts: OrdMap<HostName, Arc<Host>>,
    declared: OrdMap<AppId, Arc<App>>,
}

/// An App that was decoded with these files as its bases.
#[derive(Debug)]
struct KnownApp {
    bases: Vec<FileId>,
    decoded: Arc<DecodedApp>,
    /// How it was judged last, and against which context.
    judged: Option<(u64, Judgement)>,
    /// What it made in the environment that it was in last.
    made: Option<(Option<Arc<Environment>>, Arc<App>)>,
}

impl Reader {
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads all manifests among `files`. Mistakes are values: this never fails.
    pub fn read(&mut self, files: &Files) -> Reading {
        let (files_parsed, left_out) = self.parse(files);
        let Self { files: parsed, texts, apps, .. } = self;
        let mut linked = link(files.commit.clone(), parsed, texts, apps);
        if let Some(desired) = &mut linked.desired {
            share(&mut self.hosts, std::mem::take(&mut linked.hosts));
            share(&mut self.declared, std::mem::take(&mut linked.apps));
            desired.hosts.clone_from(&self.hosts);
            desired.apps.clone_from(&self.declared);
        }
        if left_out && let Some(desired) = &mut linked.desired {
            let location = Location { file: ".".to_owned(), line: 1 };
            desired.unreadable.push(Blocked { location, reason: too_many() });
        }
        report(linked, &self.texts, left_out, files_parsed)
    }

    /// Brings the files to those of this commit: one walk over both. Returns how many weren't
    /// known, and whether some were left out.
    fn parse(&mut self, files: &Files) -> (usize, bool) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        let mut known = self.contents.iter().peekable();
        let mut manifests = files.files.iter().filter(|(path, _)| is_manifest(path));
        for (path, content) in manifests.by_ref().take(MOST_FILES) {
            while let Some((other, _)) = known.next_if(|(other, _)| *other < path) {
                gone.push(other.clone());
            }
            let before = known.next_if(|(other, _)| *other == path);
            if before.is_none_or(|(_, known)| known != key_of(content)) {
                changed.push((path, content));
            }
        }
        gone.extend(known.map(|(path, _)| path.clone()));
        let left_out = manifests.next().is_some();
        for path in &gone {
            self.forget(path);
        }
        for (path, content) in &changed {
            self.forget(path);
            let file = Arc::new(self.parse_one(path, content));
            self.texts.add(file.id, file.text.clone());
            self.contents.insert((*path).clone(), key_of(content).to_owned());
            self.files.insert((*path).clone(), file);
        }
        (changed.len(), left_out)
    }

    fn forget(&mut self, path: &str) {
        self.contents.remove(path);
        let Some(file) = self.files.remove(path) else { return };
        self.texts.forget(file.id);
        for index in 0..file.documents.len() {
            self.apps.known.remove(&(file.id, index));
        }
    }

    fn parse_one(&mut self, path: &str, content: &Content) -> File {
        let id = FileId(self.next);
        self.next = self.next.wrapping_add(1);
        match content {
            Content::Bytes { bytes, .. } => File::read(path, bytes, id),
            Content::Refused { reason } => File::unreadable(path, id, 1, reason.clone(), None),
        }
    }
}

/// Brings the old map to what is new, so that both share what is the same.
fn share<K: Ord + Clone, V: Eq>(old: &mut OrdMap<K, Arc<V>>, new: BTreeMap<K, Arc<V>>) {
    if old.is_empty() {
        *old = new.into_iter().collect();
        return;
    }
    let gone: Vec<K> = old.keys().filter(|key| !new.contains_key(*key)).cloned().collect();
    let mut known = old.iter().peekable();
    let mut changed = Vec::new();
    for (key, value) in new {
        while known.next_if(|(other, _)| **other < key).is_some() {}
        let before = known.next_if(|(other, _)| **other == key);
        // The same value at another place is the same too.
        if before.is_none_or(|(_, before)| *before != value) {
            changed.push((key, value));
        }
    }
    for key in gone {
        old.remove(&key);
    }
    old.extend(changed);
}

/// What two contents of one file differ by.
fn key_of(content: &Content) -> &str {
    match content {
        Content::Bytes { blob, .. } => blob,
        Content::Refused { reason } => reason,
    }
}

/// The memory of [`Reader`] for Apps.
#[derive(Debug, Default)]
struct KnownApps {
    known: BTreeMap<(FileId, usize), KnownApp>,
    environments: BTreeMap<EnvironmentName, Arc<Environment>>,
    context: Context,
    /// Counts the contexts that differed from the one before.
    context_number: u64,
}

impl KnownApps {
    /// What is known of a document that was decoded to this.
    fn of(
        &mut self,
        (file, index): (&Arc<File>, usize),
        decoded: &Arc<DecodedApp>,
    ) -> Option<&mut KnownApp> {
        let known = self.known.get_mut(&(file.id, index))?;
        Arc::ptr_eq(&known.decoded, decoded).then_some(known)
    }
}

impl DecodeApp for KnownApps {
    fn decode(&mut self, file: &Arc<File>, index: usize, bases: &mut Bases<'_>) -> Arc<DecodedApp> {
        let Some(document) = file.documents.get(index) else { return broken(Mistakes::default()) };
        let mut found = Mistakes::default();
        let Some(spec) = document.spec() else {
            found
                .error(document.at, "this App has no `spec`")
                .hint("add `spec:` with `image` and `hosts`");
            return broken(found);
        };
        let base = match bases.of(spec, &file.text.path, &mut found) {
            None => None,
            Some(Ok(base)) => Some(base),
            Some(Err(fault)) => {
                let broken_base = Some(fault.reason);
                return Arc::new(DecodedApp { draft: None, found, broken_base });
            }
        };
        let files = base.as_ref().map(|base| base.files.clone()).unwrap_or_default();
        let key = (file.id, index);
        if let Some(known) = self.known.get(&key).filter(|known| known.bases == files) {
            return known.decoded.clone();
        }
        let merged = base.map(|base| merge(Some(&base.spec), spec));
        let at = match &document.class {
            Class::Declares(head) => head.spec_at,
            _ => document.at,
        };
        let draft = decode::app(merged.as_ref().unwrap_or(spec), at, &mut found);
        let decoded = Arc::new(DecodedApp { draft, found, broken_base: None });
        let (decoded_to, judged, made) = (decoded.clone(), None, None);
        self.known.insert(key, KnownApp { bases: files, decoded: decoded_to, judged, made });
        decoded
    }

    fn environment(
        &mut self,
        name: &EnvironmentName,
        environment: Environment,
    ) -> Arc<Environment> {
        if let Some(known) = self.environments.get(name).filter(|known| ***known == environment) {
            return known.clone();
        }
        let environment = Arc::new(environment);
        self.environments.insert(name.clone(), environment.clone());
        environment
    }

    fn set_context(&mut self, context: Context) {
        if self.context != context {
            self.context = context;
            self.context_number += 1;
        }
    }

    fn judgement(
        &mut self,
        document: (&Arc<File>, usize),
        decoded: &Arc<DecodedApp>,
        judge: &mut dyn FnMut() -> Judgement,
    ) -> Judgement {
        let number = self.context_number;
        let Some(known) = self.of(document, decoded) else { return judge() };
        match &known.judged {
            Some((against, judgement)) if *against == number => judgement.clone(),
            _ => {
                let judgement = judge();
                known.judged = Some((number, judgement.clone()));
                judgement
            }
        }
    }

    fn app(
        &mut self,
        document: (&Arc<File>, usize),
        decoded: &Arc<DecodedApp>,
        environment: Option<&Arc<Environment>>,
        make: &mut dyn FnMut() -> Option<App>,
    ) -> Option<Arc<App>> {
        let Some(known) = self.of(document, decoded) else {
            return make().map(Arc::new);
        };
        if let Some((made_in, app)) = &known.made {
            let is_same = match (made_in, environment) {
                (Some(then), Some(now)) => Arc::ptr_eq(then, now),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if is_same {
                return Some(app.clone());
            }
        }
        let app = Arc::new(make()?);
        known.made = Some((environment.cloned(), app.clone()));
        Some(app)
    }
}

fn broken(found: Mistakes) -> Arc<DecodedApp> {
    Arc::new(DecodedApp { draft: None, found, broken_base: None })
}

fn too_many() -> String {
    format!("there are more than {MOST_FILES} manifest files; the others weren't read")
}

fn report(linked: Linked, texts: &Texts, left_out: bool, files_parsed: usize) -> Reading {
    let Linked { desired, hosts: _, apps: _, errors, warnings } = linked;
    let mut diagnostics = diagnostics(errors, texts);
    let at_the_root = |message: String, hint: &str| Diagnostic {
        location: Location { file: ".".to_owned(), line: 1 },
        column: 1,
        length: 1,
        message,
        hint: Some(hint.to_owned()),
        source: None,
    };
    if left_out {
        diagnostics.push(at_the_root(too_many(), "point `--path` to the folder of manifests"));
    }
    if desired.is_none() {
        let message = match diagnostics.is_empty() {
            true => "no file declares an Installation",
            false => "there is no Installation that can be used",
        };
        let hint = "type `plimsoll init` to write one, or mend the one that is there";
        diagnostics.push(at_the_root(message.to_owned(), hint));
    }
    Reading { desired, diagnostics, warnings: self::diagnostics(warnings, texts), files_parsed }
}

/// Mistakes for people: sorted by place, each once.
fn diagnostics(mut mistakes: Vec<Mistake>, texts: &Texts) -> Vec<Diagnostic> {
    mistakes.sort();
    mistakes.dedup();
    mistakes.truncate(MOST_DIAGNOSTICS);
    let mut diagnostics: Vec<_> =
        mistakes.iter().map(|mistake| texts.diagnostic(mistake)).collect();
    let key = |d: &Diagnostic| (d.location.clone(), d.column, d.message.clone());
    diagnostics.sort_by_key(key);
    diagnostics
}
