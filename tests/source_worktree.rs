//! Files as they lie: what is noticed, and what isn't.

use std::path::Path;
use std::time::Duration;

use plimsoll::model::CommitId;
use plimsoll::source::{Head, Source, SourceError, WorktreeSource};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(20);

async fn tip(source: &dyn Source) -> CommitId {
    match source.fetch(None).await.unwrap() {
        Head::At(commit) => commit,
        other => panic!("{other:?}"),
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn changes_of_files_as_they_lie_are_noticed_and_reads_are_not() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    write(folder, "apps/a.yaml", "1");
    let worktree = WorktreeSource::open(folder, None).unwrap();
    let first = tip(&worktree).await;
    assert!(first.0.starts_with("worktree-") && first.0.len() == 21, "{first}");
    assert_eq!(tip(&worktree).await, first);
    assert_eq!(worktree.resolve("HEAD").await.unwrap(), first);
    assert!(worktree.resolve("v1").await.is_err());

    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("write", |f| write(f, "apps/a.yaml", "2")),
        ("create in a new folder", |f| write(f, "new/b.yaml", "1")),
        ("change in that folder", |f| write(f, "new/b.yaml", "2")),
        ("replace by rename", |f| {
            write(f, "apps/.a.yaml.tmp", "3");
            let apps = f.join("apps");
            std::fs::rename(apps.join(".a.yaml.tmp"), apps.join("a.yaml")).unwrap();
        }),
        ("change after it", |f| write(f, "apps/a.yaml", "4")),
        ("remove", |f| std::fs::remove_file(f.join("new/b.yaml")).unwrap()),
    ];
    let mut state = first.clone();
    for (name, change) in changes {
        change(folder);
        tokio::time::timeout(LONG, worktree.changed()).await.expect(name);
        let next = tip(&worktree).await;
        assert_ne!(next, state, "{name}");
        state = next;
    }
    // What is no longer there, under an id that is forgotten.
    assert!(matches!(worktree.files(&first).await, Err(SourceError::NoRevision(_))));

    // Reading, and what git does for itself, is no change.
    tip(&worktree).await;
    std::fs::read(folder.join("apps/a.yaml")).unwrap();
    write(folder, ".git/index.lock", "git's own");
    let quiet = tokio::time::timeout(Duration::from_millis(400), worktree.changed()).await;
    assert!(quiet.is_err());
}

#[tokio::test]
async fn a_watched_folder_may_be_replaced_by_another() {
    let above = TempDir::new().unwrap();
    let folder = above.path().join("manifests");
    let (old, next) = (above.path().join("old"), above.path().join("next"));
    for (folder, text) in [(&folder, "1"), (&next, "2")] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("a.yaml"), text).unwrap();
    }
    let worktree = WorktreeSource::open(&folder, None).unwrap();
    let first = tip(&worktree).await;
    std::fs::rename(&folder, &old).unwrap();
    std::fs::rename(&next, &folder).unwrap();
    tokio::time::timeout(LONG, worktree.changed()).await.unwrap();
    let second = tip(&worktree).await;
    assert_ne!(first, second);
    std::fs::write(folder.join("a.yaml"), "3").unwrap();
    tokio::time::timeout(LONG, worktree.changed()).await.unwrap();
    assert_ne!(tip(&worktree).await, second);
}
