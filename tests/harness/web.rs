//! The demo app of `examples/web`, built static, as images `web:1` to `web:3` from scratch.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::command::run;
use super::image::Image;
use super::tar::{Archive, Entry};

/// How many versions of the image there are: `web:1` and so on.
const VERSIONS: u32 = 3;

/// The images of the demo app, made once.
pub fn images() -> &'static Image {
    static IMAGES: OnceLock<Image> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let program = std::fs::read(build()).unwrap();
        let mut layer = Archive::default();
        layer.add("web", &Entry::File(&program), 0o755, 0);
        let images: Vec<(String, Value)> = (1..=VERSIONS)
            .map(|version| {
                let config = json!({
                    "Env": [format!("VERSION={version}")],
                    "Entrypoint": ["/web"],
                    "ExposedPorts": {"8080/tcp": {}},
                });
                (format!("web:{version}"), config)
            })
            .collect();
        Image::make(&layer.finish(), &images)
    })
}

/// Builds the app with the compiled dependencies that the tests have; does nothing where it is
/// up to date. Test processes side by side take turns.
fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(folder.join("web.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    // What cargo tells the tests of their own package would make it build dependencies anew.
    let of_package = |name: &String| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|start| name.starts_with(start))
    };
    for name in std::env::vars().map(|(name, _)| name).filter(of_package) {
        command.env_remove(name);
    }
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["rustc", "--example", "web"]);
    if !cfg!(debug_assertions) {
        // As the profile of benchmarks has it, so that they share its dependencies.
        command.arg("--release").env("CARGO_PROFILE_RELEASE_LTO", "false");
    }
    command.args(["--message-format", "json-render-diagnostics"]);
    command.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    let output = run(command.env("OPENSSL_NO_VENDOR", "1")).expect(0);
    let program = output
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "web")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .unwrap_or_else(|| panic!("cargo names no program\n{output}"));
    // `cargo test` links the example under the same name, but not static.
    let copy = folder.join("web-static");
    std::fs::copy(&program, &copy).unwrap();
    assert!(!has_interpreter(&copy), "{} isn't static", program.display());
    copy
}

/// True where an ELF file names a dynamic linker (a program header of type `PT_INTERP`), and so
/// can't run in an image from scratch.
fn has_interpreter(program: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let bytes = std::fs::read(program).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let headers = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    (0..half(56)).any(|nth| {
        let at = headers + nth * half(54);
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) == PT_INTERP
    })
}
