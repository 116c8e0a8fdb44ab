//! A program named haproxy in front of the real one, which misbehaves where a test asks for it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Writes a script `haproxy` below `folder` that runs `before` and then becomes the real
/// program. In `before`, `$check` is the file that is to be verified, or empty.
pub fn haproxy_that(folder: &Path, before: &str) -> PathBuf {
    let real = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];
    let real = real.iter().find(|path| Path::new(path).exists()).expect("haproxy is installed");
    let place = tempfile::Builder::new().prefix("bin").tempdir_in(folder).unwrap().keep();
    let program = place.join("haproxy");
    let script = format!(
        "#!/bin/sh\ncheck=\nif [ \"$1\" = -c ]; then check=\"$3\"; fi\n{before}\nexec {real} \"$@\"\n"
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}
