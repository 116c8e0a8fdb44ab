//! Images: what an engine has, what a registry says a tag stands for, and bringing a pinned
//! image onto a host. A registry is asked through the engine, which knows its mirrors and its
//! certificates.

use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::{Stream, StreamExt};

use super::error::{Failure, no_reply, within};
use super::scrub::Scrub;
use super::{DockerEngine, EngineError, ImageInfo};
use crate::model::{ImageContent, ImageRef, Pin, Sha256};

impl DockerEngine {
    /// What the engine has under that name, without asking a registry.
    pub(super) async fn image_info(&self, name: &str) -> Result<Option<ImageInfo>, EngineError> {
        let doing = format!("look for the image {name}");
        if !is_image_name(name) {
            let cause = "that is no name of an image".to_owned();
            return Err(EngineError::Refused { doing, cause });
        }
        let docker = self.docker().map_err(|failure| self.error(&doing, failure))?;
        let image = match within(self.deadlines().look, docker.inspect_image(name)).await {
            Ok(image) => image,
            Err(failure) if failure.status() == Some(404) => return Ok(None),
            Err(failure) => return Err(self.error(&doing, failure)),
        };
        let id = image.id.and_then(|id| id.parse().ok()).ok_or_else(|| {
            let cause = "its reply names no id of the image".to_owned();
            self.error(&doing, Failure::Silence { cause })
        })?;
        let repository_digests = image.repo_digests.unwrap_or_default();
        Ok(Some(ImageInfo { id, repository_digests }))
    }

    /// The digest that the image's registry has for its tag. A reference that has a digest
    /// already is asked of nobody.
    pub(super) async fn resolve_tag(&self, image: &ImageRef) -> Result<Sha256, EngineError> {
        if let Some(digest) = image.digest() {
            return Ok(digest);
        }
        let doing = format!("resolve {image}");
        let credentials = self.credentials(image.registry()).await?;
        let docker = self.docker().map_err(|failure| self.error(&doing, failure))?;
        let name = image.to_string();
        let scrub = Scrub::of_login(credentials.as_ref());
        let call = docker.inspect_registry_image(&name, credentials);
        let answer = within(self.deadlines().registry, call).await;
        let answer =
            answer.map_err(|failure| self.registry_error(&doing, image, failure, &scrub))?;
        answer.descriptor.digest.and_then(|digest| digest.parse().ok()).ok_or_else(|| {
            let cause = "the registry names no digest".to_owned();
            EngineError::Transient { doing, cause }
        })
    }

    /// Brings a pinned image onto the host. Done at once, and no registry asked, where it is
    /// there.
    pub(super) async fn pull_image(&self, pin: &Pin) -> Result<(), EngineError> {
        let name = pin.engine_name();
        if self.image_info(&name).await?.is_some() {
            return Ok(());
        }
        let image = &pin.reference;
        if let ImageContent::Id(id) = &pin.content {
            return Err(EngineError::ImageMissing {
                image: image.to_string(),
                cause: format!(
                    "it was built on the hosts with the id {id}, and no registry has it; load it \
                     here: docker save {image} | docker -H {} load",
                    self.address()
                ),
            });
        }
        let doing = format!("pull {image}");
        let credentials = self.credentials(image.registry()).await?;
        let options = CreateImageOptionsBuilder::new().from_image(&name).build();
        let docker = self.docker().map_err(|failure| self.error(&doing, failure))?;
        let scrub = Scrub::of_login(credentials.as_ref());
        let progress = docker.create_image(Some(options), None, credentials);
        let pulled = until_pulled(self.deadlines().pull_stall, progress).await;
        pulled.map_err(|failure| self.registry_error(&doing, image, failure, &scrub))?;
        match self.image_info(&name).await? {
            Some(_) => Ok(()),
            None => {
                let cause = format!("the engine ended the pull, and has no {name}");
                Err(EngineError::Transient { doing, cause })
            }
        }
    }

    /// The engine passes on what the registry says, which may repeat what it was sent.
    fn registry_error(
        &self,
        doing: &str,
        image: &ImageRef,
        failure: Failure,
        scrub: &Scrub,
    ) -> EngineError {
        let failure = failure.map_text(|text| scrub.clean(text));
        match verdict(&failure) {
            Some(verdict) => verdict.error(doing, image, failure.text()),
            None => self.error(doing, failure),
        }
    }
}

/// Reads the progress of a pull to its end; fails when there is none for `limit`.
async fn until_pulled(
    limit: Duration,
    progress: impl Stream<Item = Result<CreateImageInfo, bollard::errors::Error>>,
) -> Result<(), Failure> {
    let mut progress = std::pin::pin!(progress);
    loop {
        match tokio::time::timeout(limit, progress.next()).await {
            Ok(Some(Ok(info))) => {
                // Older engines have no code, and newer ones no text beside the detail.
                if let Some(detail) = info.error_detail {
                    let text = detail.message.unwrap_or_else(|| "no reason is given".into());
                    return Err(Failure::Stream { text });
                }
            }
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(None) => return Ok(()),
            Err(_) => return Err(no_reply(limit)),
        }
    }
}

/// Names and ids of images that may stand in the path of a request.
fn is_image_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.contains("..")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c))
}

/// What a registry's refusal means. The engine passes its words on under several statuses, and
/// in the middle of streams, so that only the words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The registry wants to know who asks, or won't let that one.
    Login,
    /// It has no such repository, tag or digest.
    Missing,
    /// It was asked too often.
    Limit,
    /// The host has no room for it.
    Space,
    /// It is down, unreachable, or answers nonsense.
    Down,
}

const WORDS: [(Verdict, &[&str]); 5] = [
    (Verdict::Space, &["no space left", "disk quota", "not enough space"]),
    (Verdict::Limit, &["toomanyrequests", "too many requests", "rate limit", " 429"]),
    (
        Verdict::Login,
        &[
            "unauthorized",
            "authentication required",
            "no basic auth credentials",
            "access denied",
            "access to the resource is denied",
            "docker login",
            "incorrect username or password",
            "forbidden",
        ],
    ),
    (
        Verdict::Missing,
        &[
            "manifest unknown",
            "name unknown",
            "not found",
            "no such image",
            "does not exist",
            "no matching manifest",
        ],
    ),
    (
        Verdict::Down,
        &["connection refused", "no such host", "timeout", "eof", "connection reset", "i/o"],
    ),
];

/// None where it was the engine that failed, and no registry.
fn verdict(failure: &Failure) -> Option<Verdict> {
    if matches!(failure, Failure::Silence { .. }) {
        return None;
    }
    let text = failure.text().to_ascii_lowercase();
    let by_words = WORDS.iter().find(|(_, words)| words.iter().any(|word| text.contains(word)));
    match (by_words, failure.status()) {
        (Some((verdict, _)), _) => Some(*verdict),
        (None, Some(401 | 403)) => Some(Verdict::Login),
        (None, Some(404)) => Some(Verdict::Missing),
        (None, Some(429)) => Some(Verdict::Limit),
        (None, _) => None,
    }
}

impl Verdict {
    fn error(self, doing: &str, image: &ImageRef, text: &str) -> EngineError {
        let (doing, registry) = (doing.to_owned(), image.registry());
        let transient = |cause| EngineError::Transient { doing: doing.clone(), cause };
        match self {
            Self::Login => EngineError::Refused {
                cause: format!(
                    "the registry {registry} refused: {text}; put credentials for it into \
                     ~/.docker/config.json here: docker login {registry}"
                ),
                doing,
            },
            Self::Missing => EngineError::ImageMissing {
                image: image.to_string(),
                cause: format!("the registry {registry} says: {text}"),
            },
            Self::Limit => {
                transient(format!("the registry {registry} was asked too often: {text}"))
            }
            Self::Space => transient(format!(
                "there is no room on the host: {text}; free some there, for instance with: docker \
                 image prune"
            )),
            Self::Down => transient(format!("the registry {registry} can't be asked: {text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_registries_are_understood() {
        use Verdict::{Down, Limit, Login, Missing, Space};
        for (status, text, meant) in [
            (404, "manifest unknown: manifest unknown", Some(Missing)),
            (500, "manifest for r:5000/a:1 not found: manifest unknown", Some(Missing)),
            (404, "nothing of the kind", Some(Missing)),
            (401, "unauthorized: authentication required", Some(Login)),
            (
                500,
                "Head \"http://r:5000/v2/a/manifests/1\": no basic auth credentials",
                Some(Login),
            ),
            (
                404,
                "pull access denied for a, repository does not exist or may require 'docker \
                 login': denied: requested access to the resource is denied",
                Some(Login),
            ),
            (500, "toomanyrequests: You have reached your pull rate limit", Some(Limit)),
            (500, "write /var/lib/docker/tmp/x: no space left on device", Some(Space)),
            (500, "Get \"http://r:5000/v2/\": dial tcp: connect: connection refused", Some(Down)),
            (500, "Get \"https://r/v2/\": EOF", Some(Down)),
            (500, "something else", None),
        ] {
            let failure = Failure::Answer { status, text: text.to_owned() };
            assert_eq!(verdict(&failure), meant, "{text}");
        }
        let silence = Failure::Silence { cause: "not found".into() };
        assert_eq!(verdict(&silence), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_ends_when_nothing_moves_any_more() {
        use bollard::models::ErrorDetail;
        use futures_util::stream;
        let limit = Duration::from_secs(60);
        let step = || Ok(CreateImageInfo::default());
        // Slow is fine: each step begins the wait anew.
        let slow = stream::unfold(5, |left| async move {
            tokio::time::sleep(Duration::from_secs(50)).await;
            (left > 0).then(|| (Ok(CreateImageInfo::default()), left - 1))
        });
        assert_eq!(until_pulled(limit, slow).await, Ok(()));
        let stuck = stream::iter([step()]).chain(stream::pending());
        assert_eq!(until_pulled(limit, stuck).await, Err(no_reply(limit)));
        let message = Some("no space left on device".to_owned());
        let detail = Some(ErrorDetail { code: None, message });
        let full = CreateImageInfo { error_detail: detail, ..CreateImageInfo::default() };
        let failure = until_pulled(limit, stream::iter([step(), Ok(full)])).await.unwrap_err();
        assert_eq!(verdict(&failure), Some(Verdict::Space));
        let cut = bollard::errors::Error::IOError { err: std::io::Error::other("cut") };
        let failure = until_pulled(limit, stream::iter([step(), Err(cut)])).await.unwrap_err();
        assert_eq!(verdict(&failure), None);
    }

    #[test]
    fn only_a_name_of_an_image_reaches_a_path() {
        let id = format!("sha256:{}", "ab".repeat(32));
        for good in ["web", "localhost:5000/a/web:1", &id, "r.example/web@sha256:00"] {
            assert!(is_image_name(good), "{good}");
        }
        for bad in ["", "../containers/x", "a/../b", "a?b", "a b", "/a", "a%20"] {
            assert!(!is_image_name(bad), "{bad}");
        }
    }
}
