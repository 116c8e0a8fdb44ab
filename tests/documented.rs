//! Every command that the README and the book show is run. Code blocks marked `console` hold
//! lines that begin with `$ `; each has to succeed, in the order of the page, and what the page
//! shows below it has to be in what it prints. `...` in shown output stands for anything.
//!
//! A page's commands run where its reader stands after `make demo`: in a clone of the demo's
//! manifests, as root, with a controller running. Blocks marked `sh` are for other places, such
//! as a fresh machine, and aren't run.

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Fleet, Installation, run};

/// A command of a page, and what the page says that it prints.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    /// Of the command, from 1.
    line: usize,
    command: String,
    output: Vec<String>,
}

/// The commands of a page's `console` blocks.
///
/// # Errors
/// The line at which a block begins with output, or doesn't end.
fn commands_of(page: &str) -> Result<Vec<Shown>, usize> {
    let mut commands: Vec<Shown> = Vec::new();
    let mut block_began = None;
    let mut commands_before = 0;
    for (number, line) in (1..).zip(page.lines()) {
        let text = line.trim_end();
        match block_began {
            None if text.trim_start() == "```console" => {
                block_began = Some(number);
                commands_before = commands.len();
            }
            None => {}
            Some(_) if text.trim_start() == "```" => block_began = None,
            Some(_) => {
                let in_block = commands.len() > commands_before;
                let last = commands.last_mut().filter(|_| in_block);
                match (text.trim_start().strip_prefix("$ "), last) {
                    (Some(_), Some(last)) if last.command.ends_with('\\') => return Err(number),
                    (Some(command), _) => commands.push(Shown {
                        line: number,
                        command: command.to_owned(),
                        output: Vec::new(),
                    }),
                    (None, Some(last)) if last.command.ends_with('\\') => {
                        last.command.push('\n');
                        last.command.push_str(text);
                    }
                    (None, Some(last)) => last.output.push(text.to_owned()),
                    (None, None) => return Err(number),
                }
            }
        }
    }
    block_began.map_or(Ok(commands), Err)
}

/// The first shown line that isn't in what was printed; the lines come in their order.
fn missing<'a>(shown: &'a [String], printed: &str) -> Option<&'a str> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut printed = printed.lines().map(words);
    shown.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).find(|line| {
        let expected = words(line);
        let fits = |line: String| {
            let mut rest = line.as_str();
            expected.split("...").all(|part| match rest.find(part.trim()) {
                Some(at) => {
                    rest = &rest[at + part.trim().len()..];
                    true
                }
                None => false,
            })
        };
        !printed.any(fits)
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and every page of the book.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("book/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

fn copy_below(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_below(&path, &target);
        } else if !target.exists() {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// The demo's manifests on the engines and ports of the tests.
fn like_the_demo(name: &str) -> Installation {
    for (_, engine, _) in Fleet::shared().hosts() {
        for version in ["1", "2"] {
            let image = format!("plimsoll-demo/web:{version}");
            engine.docker(["tag", &format!("web:{version}"), &image]).expect(0);
        }
    }
    let shop = Installation::new(name);
    // What declares hosts, balancer and installation is there already.
    copy_below(&root().join("manifests"), shop.repository.clone());
    shop.repository.git(["config", "user.name", "A Person"]);
    shop.repository.git(["config", "user.email", "person@example.invalid"]);
    shop.repository.push("The demo's manifests");
    shop
}

/// Runs a page's commands from first to last, and panics at the first that isn't as shown.
fn follow(page: &Path, commands: &[Shown]) {
    let name = page.strip_prefix(root()).unwrap().display().to_string();
    let shop = like_the_demo("documented");
    let mut controller = shop.start();
    controller.wait_for_commit(&shop.repository.head());
    let program = Path::new(env!("CARGO_BIN_EXE_plimsoll")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    for shown in commands {
        let output = run(Command::new("bash")
            .args(["-euo", "pipefail", "-c", &shown.command])
            .current_dir(shop.repository.clone())
            .env("PATH", &path)
            .env("HOME", shop.folder())
            .env("PLIMSOLL_REPO", shop.repository.url())
            .env("PLIMSOLL_STATE", shop.state())
            .env("PLIMSOLL_SECRETS", shop.folder().join("secrets")));
        let at = format!("{name}:{}", shown.line);
        assert!(output.code == 0, "{at}: the command fails\n{output}");
        let printed = format!("{}\n{}", output.stdout, output.stderr);
        let missing = missing(&shown.output, &printed);
        assert!(missing.is_none(), "{at}: the page shows {missing:?}, and not so\n{output}");
    }
    controller.stop();
}

#[test]
fn every_command_that_is_shown_works() {
    let mut count = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap_or_default();
        let commands = commands_of(&text);
        let commands = commands.unwrap_or_else(|line| {
            panic!("{}:{line}: a console block begins with $ and ends with ```", page.display())
        });
        count += commands.len();
        if !commands.is_empty() {
            follow(&page, &commands);
        }
    }
    assert!(count > 0, "no page shows a command");
}

#[test]
fn commands_are_read_from_console_blocks_only() {
    let page = "# T\n```sh\n$ no\n```\n```console\n$ one\nout\n$ two \\\n    more\n```\n$ no\n";
    let shown = |line, command: &str, output: &[&str]| Shown {
        line,
        command: command.to_owned(),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
    };
    let expected = vec![shown(6, "one", &["out"]), shown(8, "two \\\n    more", &[])];
    assert_eq!(commands_of(page), Ok(expected));
    assert_eq!(commands_of("```console\nno command\n```\n"), Err(2));
    assert_eq!(commands_of("\n```console\n$ one\n"), Err(2));
}

#[test]
fn shown_output_is_looked_for_line_by_line() {
    let printed = "NAME   SYNC\nproduction/web   InSync  Healthy\n";
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    for fine in [&["NAME SYNC", "production/web ... Healthy"][..], &["..."], &["", "InSync"]] {
        assert_eq!(missing(&lines(fine), printed), None, "{fine:?}");
    }
    assert_eq!(missing(&lines(&["Degraded"]), printed), Some("Degraded"));
    assert_eq!(missing(&lines(&["production/web", "NAME"]), printed), Some("NAME"));
}
