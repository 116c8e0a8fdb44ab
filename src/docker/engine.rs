//! The seam: each call of [`Engine`] and where it is done.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use secrecy::SecretString;
use tokio::time::Instant;

use super::error::within;
use super::{DockerEngine, Engine, EngineError, ImageInfo, LogLine, Stir};
use crate::model::{
    Container, ContainerId, HostState, ImageRef, NewContainer, Owner, Pin, SecretName, Sha256, Span,
};

#[async_trait]
impl Engine for DockerEngine {
    async fn observe(&self, owner: &Owner) -> Result<HostState, EngineError> {
        let begun = Instant::now();
        let seen = self.look(owner).await;
        let seconds = begun.elapsed().as_secs_f64();
        tracing::debug!(engine = self.address(), seconds, "the containers were listed");
        seen.map_err(|failure| self.error("list the containers", failure))
    }

    async fn inspect(
        &self,
        owner: &Owner,
        id_or_name: &str,
    ) -> Result<Option<Container>, EngineError> {
        let found = self.find(owner, id_or_name).await;
        let found = found.map_err(|failure| self.error("inspect the container", failure))?;
        Ok(found.ours())
    }

    async fn image(&self, name: &str) -> Result<Option<ImageInfo>, EngineError> {
        self.image_info(name).await
    }

    async fn resolve(&self, image: &ImageRef) -> Result<Sha256, EngineError> {
        self.resolve_tag(image).await
    }

    async fn pull(&self, pin: &Pin) -> Result<(), EngineError> {
        self.pull_image(pin).await
    }

    async fn create(
        &self,
        container: &NewContainer,
        secrets: &BTreeMap<SecretName, SecretString>,
    ) -> Result<ContainerId, EngineError> {
        self.create_container(container, secrets).await
    }

    async fn start(&self, owner: &Owner, id_or_name: &str) -> Result<(), EngineError> {
        self.start_container(owner, id_or_name).await
    }

    async fn stop(&self, owner: &Owner, id: &ContainerId, grace: Span) -> Result<(), EngineError> {
        self.stop_container(owner, id, grace).await
    }

    async fn remove(&self, owner: &Owner, id: &ContainerId) -> Result<(), EngineError> {
        self.remove_container(owner, id).await
    }

    async fn events(&self, owner: &Owner) -> Result<BoxStream<'static, Stir>, EngineError> {
        self.wakes(owner).await
    }

    async fn logs(
        &self,
        owner: &Owner,
        id: &ContainerId,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        self.log_lines(owner, id, tail, follow).await
    }

    async fn version(&self) -> Result<String, EngineError> {
        let fail = |failure| self.error("ask for the version", failure);
        let docker = self.docker().map_err(fail)?;
        let version = within(self.deadlines().look, docker.version()).await.map_err(fail)?;
        let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        Ok(format!("{} (API {})", known(version.version), known(version.api_version)))
    }
}
