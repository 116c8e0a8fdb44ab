//! SIGTERM and SIGINT. As the first process of a container the app has no default handler for
//! them: without this it would be killed when its grace has passed.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells everybody who asks that the app is to stop.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Receives the signals from now on; `ignore`s them where the app was asked to.
    ///
    /// # Errors
    /// The operating system's, where a handler can't be installed.
    pub fn listen(ignore: bool) -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! { biased;
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if !ignore {
                    sender.send_replace(true);
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Returns once the app is to stop.
    pub async fn requested(&self) {
        // The sender lives as long as the process, so that waiting can't fail before that.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }
}
