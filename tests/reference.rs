//! The book holds together: its reference pages say what the program says of itself, its
//! summary names every page and no other, and each link leads to something that is there.
//!
//! The page of the commands is held by `tests/cli`, beside the other texts of the command line.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use plimsoll::manifest::reference_markdown;

const MANIFESTS: &str = "book/src/reference/manifests.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let whole = root().join(path);
    std::fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Markdown files of the book, and those at the root, by their paths below the root.
fn pages() -> Vec<String> {
    let mut pages = vec!["CHANGELOG.md".to_owned(), "README.md".to_owned()];
    let mut folders = vec![PathBuf::from("book/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap().flatten() {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    pages.sort();
    pages
}

/// The page's text without its blocks of code and its code between backticks.
fn prose(page: &str) -> String {
    let mut text = String::new();
    let mut fence: Option<usize> = None;
    for line in page.lines() {
        let ticks = line.trim_start().chars().take_while(|c| *c == '`').count();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            None => {
                // Every second part of a line stands between backticks.
                text.extend(line.split('`').step_by(2));
                text.push('\n');
            }
            Some(open) if ticks >= open => fence = None,
            Some(_) => {}
        }
    }
    text
}

/// The targets of `[text](target)`, in their order.
fn links(page: &str) -> Vec<String> {
    let text = prose(page);
    let behind = text.split("](").skip(1);
    behind.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The names by which the headings of a page can be linked to, as mdBook makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        }
        if let Some(heading) = line.strip_prefix('#').filter(|_| !inside) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

/// `target`, seen from the page at `from`, below the root; none where it leads out of it.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut path = PathBuf::from(from);
    path.pop();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path.to_str()?.to_owned())
}

/// Why a link of the page at `from` leads nowhere.
fn broken(from: &str, page: &str, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(p, a)| (p, Some(a)));
    let path = if path.is_empty() { Some(from.to_owned()) } else { resolve(from, path) };
    let Some(path) = path else { return Some(format!("{target} leads out of the repository")) };
    if !root().join(&path).exists() {
        return Some(format!("{target}: there is no {path}"));
    }
    let anchor = anchor?;
    let text = if path == from { page.to_owned() } else { read(&path) };
    (!anchors(&text).contains(anchor)).then(|| format!("{target}: {path} has no such heading"))
}

/// `UPDATE_GOLDEN=1 cargo test --test reference` writes the page anew.
#[test]
fn the_page_of_the_manifests_is_what_the_schema_says() {
    let now = reference_markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(root().join(MANIFESTS), &now).unwrap();
    }
    let page = std::fs::read_to_string(root().join(MANIFESTS)).unwrap_or_default();
    let line = page.lines().zip(now.lines()).position(|(old, new)| old != new);
    let line = line.unwrap_or_else(|| page.lines().count().min(now.lines().count()));
    assert!(
        page == now,
        "{MANIFESTS} is stale from line {}: UPDATE_GOLDEN=1 cargo test --test reference writes it \
         anew",
        line + 1
    );
}

#[test]
fn the_summary_names_every_page_once() {
    let summary = "book/src/SUMMARY.md";
    let named: Vec<_> = links(&read(summary))
        .iter()
        .map(|target| resolve(summary, target).expect("a page of the book"))
        .collect();
    let once: BTreeSet<_> = named.iter().cloned().collect();
    assert_eq!(once.len(), named.len(), "{summary} names a page twice: {named:?}");
    let there = pages().into_iter().filter(|page| page.starts_with("book/") && page != summary);
    assert_eq!(once, there.collect(), "left: {summary}, right: the files of the book");
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        for target in links(&text) {
            wrong.extend(broken(&page, &text, &target).map(|why| format!("{page}: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// mdBook makes a page of what lies below `book/src` only: a relative link that leads out of it
/// works where the file is read in the repository, and not in the book.
#[test]
fn pages_of_the_book_link_to_pages_of_the_book() {
    for page in pages().into_iter().filter(|page| page.starts_with("book/")) {
        for target in links(&read(&page)) {
            let path = target.split('#').next().unwrap_or_default();
            let inside = resolve(&page, path).is_some_and(|path| path.starts_with("book/src"));
            assert!(
                target.starts_with("https://") || target.starts_with('#') || inside,
                "{page}: {target} isn't in the book"
            );
        }
    }
}

#[test]
fn links_and_anchors_are_read_from_prose_only() {
    let page = "# A page's heading, `code` too\n[a](b.md#c) `[no](x)`\n```sh\n# no heading\n[no](y)\n```\n[d](https://e)\n";
    assert_eq!(links(page), ["b.md#c", "https://e"]);
    let expected = ["a-pages-heading-code-too".to_owned()];
    assert_eq!(anchors(page), expected.into());
    assert_eq!(resolve("book/src/a/b.md", "../c.md").as_deref(), Some("book/src/c.md"));
    assert_eq!(resolve("README.md", "../c.md"), None);
    assert_eq!(resolve("README.md", "/c.md"), None);
    assert!(broken("README.md", "# One\n", "#two").is_some());
    assert!(broken("README.md", "# One\n", "#one").is_none());
    assert!(broken("README.md", "", "none.md").is_some());
}
