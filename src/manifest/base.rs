//! Bases: partial specs that an App's own is a merge patch over (RFC 7386). A base may have a
//! base in turn; paths go from the file that names them, and never out of the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::document::{Class, Identity};
use super::file::{File, is_manifest};
use super::mistake::{Mistakes, nearest};
use super::node::{Data, Node, merge};
use super::text::{Extent, FileId};

/// The longest chain of bases.
const LONGEST_CHAIN: usize = 16;

/// A base with its own bases merged in.
#[derive(Debug)]
pub(super) struct Base {
    pub spec: Node,
    /// The files that it came from.
    pub files: Vec<FileId>,
}

/// Why there is no base: `reason` is for those who need it, after "needs the base PATH, ".
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub reason: String,
}

/// The bases of one commit, each merged once.
pub(super) struct Bases<'f> {
    files: &'f BTreeMap<String, Arc<File>>,
    done: BTreeMap<String, Result<Arc<Base>, Broken>>,
    /// What is wrong inside bases, at the bases' own places.
    pub found: Mistakes,
}

impl<'f> Bases<'f> {
    pub fn new(files: &'f BTreeMap<String, Arc<File>>) -> Self {
        Self { files, done: BTreeMap::new(), found: Mistakes::default() }
    }

    /// The base that `spec`, in `file`, names; none where it names none. What is wrong with the
    /// name goes to `found`, what is wrong inside the base doesn't.
    pub fn of(
        &mut self,
        spec: &Node,
        file: &str,
        found: &mut Mistakes,
    ) -> Option<Result<Arc<Base>, Broken>> {
        self.follow(spec, &mut vec![file.to_owned()], found)
    }

    fn follow(
        &mut self,
        spec: &Node,
        trail: &mut Vec<String>,
        found: &mut Mistakes,
    ) -> Option<Result<Arc<Base>, Broken>> {
        let entry = spec.get("base")?;
        let from = trail.last().cloned().unwrap_or_default();
        let path = match self.target(&entry.value, &from, found) {
            Ok(path) => path,
            Err(broken) => return Some(Err(broken)),
        };
        if trail.contains(&path) || trail.len() > LONGEST_CHAIN {
            let is_cycle = trail.contains(&path);
            let chain = trail.iter().chain([&path]).map(String::as_str).collect::<Vec<_>>();
            let what = if is_cycle { "comes back to itself" } else { "is too long" };
            let message = format!("the chain of bases {what}: {}", chain.join(" -> "));
            found
                .error(entry.value.at, message.clone())
                .hint("a base can't need those that need it");
            return Some(Err(Broken { reason: message }));
        }
        if let Some(done) = self.done.get(&path) {
            return Some(done.clone());
        }
        trail.push(path.clone());
        let base = self.load(&path, entry.value.at, trail, found);
        trail.pop();
        self.done.insert(path, base.clone());
        Some(base)
    }

    /// The path that a `base` field means.
    fn target(&self, node: &Node, from: &str, found: &mut Mistakes) -> Result<String, Broken> {
        let mut refuse = |message: String, hint: Option<String>| {
            found.error(node.at, message.clone()).hint = hint;
            Err(Broken { reason: message })
        };
        let Some(text) = node.text() else {
            return refuse(format!("`base` has to be a path, this is {}", node.what()), None);
        };
        let Some(path) = join(from, text) else {
            let hint = "a base lies in the same repository, and its path goes from this file";
            return refuse(
                format!("`base` leads out of the tree: {text:?}"),
                Some(hint.to_owned()),
            );
        };
        if self.files.contains_key(&path) {
            return Ok(path);
        }
        let hint = if !is_manifest(&path) {
            Some("a base is a .yaml or .yml file outside hidden folders".to_owned())
        } else {
            let near = nearest(&path, self.files.keys().map(String::as_str));
            let near = near.or_else(|| {
                let name = path.rsplit('/').next();
                self.files.keys().map(String::as_str).find(|file| file.rsplit('/').next() == name)
            });
            near.map(|near| format!("did you mean `{}`?", relative(from, near)))
        };
        refuse(format!("`base`: there is no file {path}"), hint)
    }

    fn load(
        &mut self,
        path: &str,
        named_at: Extent,
        trail: &mut Vec<String>,
        found: &mut Mistakes,
    ) -> Result<Arc<Base>, Broken> {
        let broken = |reason: String| Err(Broken { reason });
        let Some(file) = self.files.get(path).cloned() else {
            return broken(format!("there is no file {path}"));
        };
        let mut documents = file.documents.iter().filter(|doc| doc.class != Class::Empty);
        let (first, second) = (documents.next(), documents.next());
        if let Some(fault) = &file.fault {
            return broken(format!("the base can't be read: {}", fault.message));
        }
        let Some(document) = first.filter(|_| second.is_none()) else {
            let what = if first.is_none() { "no document" } else { "several documents" };
            let message = format!("the base {path} has {what}; a base has one");
            found.error(named_at, message.clone());
            return broken(message);
        };
        if let Some(mistake) = document.found.errors.first() {
            let line = file.text.line_of(mistake.at.start);
            return broken(format!("the base has a mistake in {path}:{line}: {}", mistake.message));
        }
        let spec = match &document.class {
            Class::Fragment => document.root.as_ref(),
            Class::Declares(head) if matches!(head.identity, Identity::App(_)) => document.spec(),
            _ => None,
        };
        let Some(spec) = spec.filter(|spec| matches!(spec.data, Data::Map(_))) else {
            let message = format!("the base {path} holds no spec of an App");
            let mistake = found.error(named_at, message.clone());
            mistake.hint("a base is the spec's own fields, or a whole App");
            return broken(message);
        };
        let mut inner = Mistakes::default();
        let below = self.follow(spec, trail, &mut inner);
        self.found.add(&inner);
        let (below, mut files) = match below {
            Some(Ok(below)) => (Some(below.clone()), below.files.clone()),
            Some(Err(below)) => return Err(below),
            None => (None, Vec::new()),
        };
        files.push(file.id);
        let spec = merge(below.as_ref().map(|below| &below.spec), &without_base(spec));
        Ok(Arc::new(Base { spec, files }))
    }
}

/// A spec without its own `base`, which isn't handed on.
fn without_base(spec: &Node) -> Node {
    let entries = spec.entries().unwrap_or_default();
    let rest = entries.iter().filter(|entry| entry.key != "base").cloned().collect();
    Node { at: spec.at, data: Data::Map(rest) }
}

/// The files that some document names as a base, whether they are there or not.
pub(super) fn named(files: &BTreeMap<String, Arc<File>>) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (path, file) in files {
        for document in &file.documents {
            let specs = [document.spec(), document.root.as_ref()];
            let bases = specs.into_iter().flatten().filter_map(|spec| spec.get("base"));
            named.extend(bases.filter_map(|base| join(path, base.value.text()?)));
        }
    }
    named
}

/// The path that `target` means from the file `from`; none where it leads out of the tree.
fn join(from: &str, target: &str) -> Option<String> {
    if target.is_empty() || target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// How the file `from` spells the path of `target`.
fn relative(from: &str, target: &str) -> String {
    let mut folder: Vec<_> = from.split('/').collect();
    folder.pop();
    let target: Vec<_> = target.split('/').collect();
    let shared = folder.iter().zip(&target).take_while(|(a, b)| a == b).count();
    let up = vec![".."; folder.len() - shared];
    let down = target.into_iter().skip(shared);
    up.into_iter().chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_tree() {
        for (from, target, path) in [
            ("apps/web.yaml", "../base/web.yaml", Some("base/web.yaml")),
            ("web.yaml", "base.yaml", Some("base.yaml")),
            ("a/b/c.yaml", "./d.yaml", Some("a/b/d.yaml")),
            ("a.yaml", "../b.yaml", None),
            ("a/b.yaml", "../../b.yaml", None),
            ("a.yaml", "/etc/passwd", None),
            ("a.yaml", "", None),
        ] {
            assert_eq!(join(from, target).as_deref(), path, "{from} {target}");
        }
        assert_eq!(relative("apps/x/web.yaml", "base/web.yaml"), "../../base/web.yaml");
        assert_eq!(relative("web.yaml", "base/web.yaml"), "base/web.yaml");
    }
}
