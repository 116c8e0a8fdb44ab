//! Images: names, ids, digests and the command that a container runs when it is given none.

/// An image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `sha256:` and 64 digits.
    pub id: String,
    pub repository: String,
    pub tag: String,
    /// `sha256:` and 64 digits of its manifest in a registry; none where it was built here.
    pub digest: Option<String>,
    pub command: Vec<String>,
}

impl Image {
    /// The names under which an engine finds it.
    pub fn names(&self) -> Vec<String> {
        let Self { id, repository, tag, digest, .. } = self;
        let mut names = vec![format!("{repository}:{tag}"), id.clone()];
        if tag == "latest" {
            names.push(repository.clone());
        }
        names.extend(id.strip_prefix("sha256:").map(str::to_owned));
        names.extend(digest.iter().map(|digest| format!("{repository}@{digest}")));
        names
    }

    /// The answer to a question for it.
    pub fn inspected(&self) -> String {
        let Self { id, repository, tag, digest, command } = self;
        let digests: Vec<_> =
            digest.iter().map(|digest| format!("{repository}@{digest}")).collect();
        let config = serde_json::json!({
            "Hostname": "", "Domainname": "", "User": "",
            "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
            "Tty": false, "OpenStdin": false, "StdinOnce": false,
            "Env": null, "Cmd": command, "Image": "", "Volumes": null, "WorkingDir": "",
            "Entrypoint": null, "OnBuild": null, "Labels": null,
        });
        serde_json::json!({
            "Id": id, "RepoTags": [format!("{repository}:{tag}")], "RepoDigests": digests,
            "Parent": "", "Comment": "Imported from -", "Created": "2026-01-01T00:00:00Z",
            "Container": "", "DockerVersion": "20.10.24+dfsg1", "Author": "", "Config": config,
            "Architecture": "amd64", "Os": "linux", "Size": 1_900_000, "VirtualSize": 1_900_000,
            "GraphDriver": {"Data": {}, "Name": "overlay2"},
            "RootFS": {"Type": "layers", "Layers": [id]},
            "Metadata": {"LastTagTime": "2026-01-01T00:00:00Z"},
        })
        .to_string()
    }
}
