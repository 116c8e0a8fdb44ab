//! Where the stand-ins live: a thread of their own, so that what the measurement does holds up
//! none of them.

use std::path::Path;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::standin::Fleet;

pub struct Home {
    pub fleet: Fleet,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Home {
    /// Starts `count` engines with sockets in `folder`.
    pub fn of(folder: &Path, count: usize) -> Self {
        let folder = folder.to_owned();
        let (end, ended) = oneshot::channel::<()>();
        let (sender, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let fleet = Fleet::start(&folder, count).expect("the sockets can be bound");
                let _ = sender.send(fleet);
                let _ = ended.await;
            });
        });
        let fleet = started.recv().expect("the engines start");
        Self { fleet, end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
