//! Every command that the README and the book show is run. Blocks marked `console` hold lines
//! that begin with `$ `, and below each what it prints; `...` stands for anything there. Blocks
//! marked `sh` hold commands alone. Each has to succeed, in the order of the page, and what the
//! page shows has to be in what it prints.
//!
//! A page is one shell, which keeps its folder and its exported variables from command to
//! command. It begins where its reader stands after `make demo`: in a clone of the demo's
//! manifests, as root, with a controller running. What can't be run there is in [`ELSEWHERE`],
//! with the reason. No block escapes: each names a language that is known here.

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Fleet, Installation, run};

/// Commands that are for another place than the sandbox: the page, the command's beginning, and
/// why it isn't run.
const ELSEWHERE: [(&str, &str, &str); 8] = [
    ("README.md", "sudo make demo", "it takes the machine's own engine and ports, and minutes"),
    ("README.md", "sudo make test", "this test is a part of it"),
    ("README.md", "curl --proto ", "it installs Rust from the network"),
    ("book/src/getting-started.md", "sudo make demo", "the sandbox stands for it"),
    ("book/src/getting-started.md", "sudo -i", "the sandbox is run by root"),
    ("book/src/getting-started.md", ". /var/lib/plimsoll-demo/", "the sandbox sets the same"),
    ("book/src/getting-started.md", "cd /var/lib/plimsoll-demo/", "the sandbox begins there"),
    ("book/src/operations.md", "sudo ", "it changes the units of the machine's systemd"),
];

/// What the fences of the pages may be.
const LANGUAGES: [&str; 4] = ["console", "sh", "yaml", "text"];

/// A command of a page, and what the page says that it prints.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    /// Of the command, from 1.
    line: usize,
    command: String,
    output: Vec<String>,
}

impl Shown {
    /// True where what is read so far isn't a whole command: it ends with a backslash, or with a
    /// text (`<<'END'`) whose end is still to come.
    fn goes_on(&self) -> bool {
        let has_text = self.command.lines().next().is_some_and(|line| line.ends_with("<<'END'"));
        let has_end = self.command.lines().any(|line| line == "END");
        self.command.ends_with('\\') || (has_text && !has_end)
    }
}

/// A block between fences.
struct Block<'p> {
    language: &'p str,
    /// Its lines, with their numbers from 1.
    lines: Vec<(usize, &'p str)>,
}

/// All blocks of a page.
///
/// # Errors
/// The line at which one begins that doesn't end.
fn blocks_of(page: &str) -> Result<Vec<Block<'_>>, usize> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut began = None;
    for (number, line) in (1..).zip(page.lines()) {
        let fence = line.trim_start().strip_prefix("```");
        match (began, fence) {
            (None, Some(language)) => {
                began = Some(number);
                blocks.push(Block { language, lines: Vec::new() });
            }
            (Some(_), Some("")) => began = None,
            (Some(_), _) => {
                blocks.last_mut().into_iter().for_each(|b| b.lines.push((number, line.trim_end())));
            }
            (None, None) => {}
        }
    }
    began.map_or(Ok(blocks), Err)
}

/// The commands of a page's `console` and `sh` blocks.
///
/// # Errors
/// The line at which a block doesn't end, begins with output, or breaks a command off.
fn commands_of(page: &str) -> Result<Vec<Shown>, usize> {
    let mut commands = Vec::new();
    for block in blocks_of(page)? {
        commands.extend(match block.language {
            "console" => commands_in(&block, "$ ")?,
            "sh" => commands_in(&block, "")?,
            _ => Vec::new(),
        });
    }
    Ok(commands)
}

/// The commands of one block, in which each begins with `prompt`.
fn commands_in(block: &Block<'_>, prompt: &str) -> Result<Vec<Shown>, usize> {
    let mut commands: Vec<Shown> = Vec::new();
    for (number, line) in &block.lines {
        let (line_number, text) = (*number, *line);
        if let Some(open) = commands.last_mut().filter(|last| last.goes_on()) {
            open.command.push('\n');
            open.command.push_str(text);
            continue;
        }
        match (text.trim_start().strip_prefix(prompt), commands.last_mut()) {
            (Some(command), _) if prompt.is_empty() && is_comment(command) => {}
            (Some(command), _) => commands.push(Shown {
                line: line_number,
                command: command.to_owned(),
                output: Vec::new(),
            }),
            (None, Some(last)) => last.output.push(text.to_owned()),
            (None, None) => return Err(line_number),
        }
    }
    match commands.last() {
        Some(last) if last.goes_on() => Err(last.line),
        _ => Ok(commands),
    }
}

fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with('#')
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

/// Whether a command of that page is for another place, as the number of its row.
fn elsewhere(page: &str, command: &str) -> Option<usize> {
    ELSEWHERE.iter().position(|(of, begin, _)| *of == page && command.starts_with(begin))
}

/// What a reader has to set to values of their own: the engine and the ports of the fleet that
/// the page begins.
struct Reader<'s> {
    shop: &'s Installation,
    /// Pairs of what the page says and what it is here.
    ports: [(&'static str, String); 2],
}

impl<'s> Reader<'s> {
    fn new(shop: &'s Installation) -> Self {
        let address = |nth| format!("127.0.0.1:{}", shop.ports.balancer_port(nth));
        let ports = [("127.0.0.1:9080", address(2)), ("127.0.0.1:9404", address(3))];
        Self { shop, ports }
    }

    fn typed(&self, command: &str) -> String {
        let fold = |text: String, (from, to): &(&str, String)| text.replace(from, to);
        self.ports.iter().fold(command.to_owned(), fold)
    }

    /// After `plimsoll init`: the engine is alpha's, not the machine's.
    fn edits(&self, command: &str, folder: &Path) {
        let file = folder.join("hosts/alpha.yaml");
        if !command.starts_with("plimsoll init") || !file.exists() {
            return;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text
            .replace("unix:///var/run/docker.sock", &Fleet::shared().alpha.url())
            .replace("20000-20999", &self.shop.ports.container_ports());
        std::fs::write(&file, text).unwrap();
    }
}

/// Runs a page's commands from first to last, and panics at the first that isn't as shown.
fn follow(name: &str, commands: &[Shown]) {
    let shop = like_the_demo("documented");
    let mut controller = shop.start();
    controller.wait_for_commit(&shop.repository.head());
    let reader = Reader::new(&shop);
    let program = Path::new(env!("CARGO_BIN_EXE_plimsoll")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let (kept, folder) = (shop.folder().join("kept"), shop.folder().join("kept-folder"));
    std::fs::write(&kept, "").unwrap();
    std::fs::write(&folder, shop.repository.clone().as_os_str().as_encoded_bytes()).unwrap();
    for shown in commands {
        if elsewhere(name, &shown.command).is_some() {
            continue;
        }
        let standing = PathBuf::from(std::fs::read_to_string(&folder).unwrap().trim_end());
        let leave = format!("export -p >{}; pwd >{}", kept.display(), folder.display());
        let script = format!(
            ". {}\ntrap '{leave}' EXIT\nset -euo pipefail\n{}",
            kept.display(),
            reader.typed(&shown.command)
        );
        let output = run(Command::new("bash")
            .args(["-c", &script])
            .current_dir(&standing)
            .env("PATH", &path)
            .env("HOME", shop.folder())
            .env("GIT_AUTHOR_NAME", "A Person")
            .env("GIT_AUTHOR_EMAIL", "person@example.invalid")
            .env("GIT_COMMITTER_NAME", "A Person")
            .env("GIT_COMMITTER_EMAIL", "person@example.invalid")
            .env("PLIMSOLL_REPO", shop.repository.url())
            .env("PLIMSOLL_STATE", shop.state())
            .env("PLIMSOLL_SECRETS", shop.folder().join("secrets")));
        let at = format!("{name}:{}", shown.line);
        assert!(output.code == 0, "{at}: the command fails\n{output}");
        let printed = format!("{}\n{}", output.stdout, output.stderr);
        let missing = missing(&shown.output, &printed);
        assert!(missing.is_none(), "{at}: the page shows {missing:?}, and not so\n{output}");
        reader.edits(&shown.command, &standing);
        println!("{at}: {}", shown.command.lines().next().unwrap_or_default());
    }
    controller.stop();
}

/// The pages by their paths below the root, with their texts.
fn texts() -> Vec<(String, String)> {
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    pages().iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn commands_or_panic(name: &str, text: &str) -> Vec<Shown> {
    commands_of(text).unwrap_or_else(|line| {
        panic!("{name}:{line}: a block ends with ```, and one of console begins with $")
    })
}

#[test]
fn every_command_that_is_shown_works() {
    let mut count = 0;
    for (name, text) in texts() {
        let commands = commands_or_panic(&name, &text);
        let here = commands.iter().filter(|shown| elsewhere(&name, &shown.command).is_none());
        let here = here.count();
        count += here;
        if here > 0 {
            follow(&name, &commands);
        }
    }
    assert!(count > 0, "no page shows a command");
}

#[test]
fn no_block_escapes() {
    let mut met = [false; ELSEWHERE.len()];
    for (name, text) in texts() {
        for block in blocks_of(&text).unwrap_or_else(|line| panic!("{name}:{line}: never ends")) {
            let first = block.lines.first().map_or(0, |(number, _)| *number);
            assert!(
                LANGUAGES.contains(&block.language),
                "{name}:{first}: a block of {:?}; the languages are {LANGUAGES:?}",
                block.language
            );
            let prompted = block.lines.iter().find(|(_, line)| line.starts_with("$ "));
            let is_text = !matches!(block.language, "console" | "sh");
            if let (true, Some((line, _))) = (is_text, prompted) {
                panic!("{name}:{line}: a command in a block that isn't run: mark it console");
            }
        }
        for shown in commands_or_panic(&name, &text) {
            elsewhere(&name, &shown.command).into_iter().for_each(|row| met[row] = true);
        }
    }
    for (row, met) in ELSEWHERE.iter().zip(met) {
        assert!(met, "{row:?} stands in the table, and on no page");
    }
}

/// Manifests that the pages show are as the schema has them.
#[test]
fn every_manifest_that_is_shown_is_one() {
    let validator = jsonschema::validator_for(&plimsoll::manifest::json_schema()).unwrap();
    let mut count = 0;
    for (name, text) in texts() {
        for block in blocks_of(&text).unwrap().iter().filter(|block| block.language == "yaml") {
            let first = block.lines.first().map_or(0, |(number, _)| *number);
            let lines: Vec<_> = block.lines.iter().map(|(_, line)| *line).collect();
            let documents = lines.split(|line| *line == "---").map(|lines| lines.join("\n"));
            for document in documents.filter(|document| document.contains("kind:")) {
                let value: serde_json::Value = serde_saphyr::from_str(&document).unwrap();
                let errors = validator.iter_errors(&value);
                let errors: Vec<_> = errors.map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{name}:{first}: {errors:?}\n{document}");
                count += 1;
            }
        }
    }
    assert!(count > 0, "no page shows a manifest");
}

#[test]
fn commands_are_read_from_blocks_of_commands_only() {
    let page = "# T\n```text\nno\n```\n```console\n$ one\nout\n$ two \\\n    more\n```\n$ no\n\
                ```sh\n# no\nthree\n\nfour\n```\n```console\n$ cat >a <<'END'\n$ in\nEND\nout\n```\n";
    let shown = |line, command: &str, output: &[&str]| Shown {
        line,
        command: command.to_owned(),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
    };
    let expected = vec![
        shown(6, "one", &["out"]),
        shown(8, "two \\\n    more", &[]),
        shown(14, "three", &[]),
        shown(16, "four", &[]),
        shown(19, "cat >a <<'END'\n$ in\nEND", &["out"]),
    ];
    assert_eq!(commands_of(page), Ok(expected));
    for (page, line) in [
        ("```console\nno command\n```\n", 2),
        ("\n```console\n$ one\n", 2),
        ("```console\n$ one \\\n```\n", 2),
        ("```sh\ncat <<'END'\n```\n", 2),
    ] {
        assert_eq!(commands_of(page), Err(line), "{page}");
    }
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
