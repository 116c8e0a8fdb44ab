//! Images made without an engine: archives that `docker load` reads. Their ids follow from their
//! content alone, so that every engine holds the same image under one tag.

use std::path::{Path, PathBuf};

use plimsoll::model::Sha256;
use serde_json::{Value, json};

use super::engine::Engine;
use super::tar::{Archive, Entry};

/// What an image says of how it runs, in Docker's own field names (`Env`, `Entrypoint`, `Cmd`,
/// `User`, `StopSignal` ...).
pub type ImageConfig = Value;

/// An archive with images that share one layer.
#[derive(Debug, Clone)]
pub struct Image {
    archive: PathBuf,
}

impl Image {
    /// Writes images of one layer, a tag and a configuration each, to an archive in the build
    /// folder. An archive that is there already is taken.
    pub fn make(layer: &[u8], images: &[(String, ImageConfig)]) -> Self {
        let layer_digest = Sha256::of(layer);
        let configs: Vec<(String, String)> = images
            .iter()
            .map(|(tag, config)| (tag.clone(), image_json(&layer_digest, config)))
            .collect();
        let all = configs.iter().fold(layer_digest.hex(), |all, (tag, json)| all + tag + json);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
        let archive = folder.join(format!("{}.tar", Sha256::of(all.as_bytes()).short(16)));
        if !archive.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            let mut beside = tempfile::NamedTempFile::new_in(&folder).unwrap();
            let bytes = archive_of(&layer_digest, layer, &configs);
            std::io::Write::write_all(&mut beside, &bytes).unwrap();
            beside.persist(&archive).unwrap();
        }
        Self { archive }
    }

    /// Brings the images onto an engine.
    #[track_caller]
    pub fn load(&self, engine: &Engine) {
        let archive = self.archive.to_str().unwrap();
        engine.docker(["load", "--quiet", "--input", archive]).expect(0);
    }
}

fn image_json(layer: &Sha256, config: &ImageConfig) -> String {
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2000-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.to_string()]},
        "history": [{"created": "2000-01-01T00:00:00Z"}],
    })
    .to_string()
}

fn archive_of(layer_digest: &Sha256, layer: &[u8], configs: &[(String, String)]) -> Vec<u8> {
    let layer_path = format!("{}/layer.tar", layer_digest.hex());
    let config_path = |json: &str| format!("{}.json", Sha256::of(json.as_bytes()).hex());
    let manifest: Vec<Value> = configs
        .iter()
        .map(|(tag, json)| {
            json!({"Config": config_path(json), "RepoTags": [tag], "Layers": [layer_path]})
        })
        .collect();
    let mut archive = Archive::default();
    archive.add(&format!("{}/", layer_digest.hex()), &Entry::Folder, 0o755, 0);
    archive.add(&layer_path, &Entry::File(layer), 0o644, 0);
    for (_, json) in configs {
        archive.add(&config_path(json), &Entry::File(json.as_bytes()), 0o644, 0);
    }
    let manifest = Value::from(manifest).to_string();
    archive.add("manifest.json", &Entry::File(manifest.as_bytes()), 0o644, 0);
    archive.finish()
}
