//! `plimsoll events`: what happened, and what happens.

use clap::Args;
use futures_util::StreamExt;

use super::failure::Failure;
use super::output::{Output, Paint};
use super::settings::GlobalArguments;
use super::{code, connect, text};
use crate::model::{Event, EventType};

/// Show what happened, oldest first
///
/// With -o json, one event is one line.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with those that come
    #[arg(short, long)]
    follow: bool,

    /// How many of those that were
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
}

impl Events {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let operations = connect::operations(global).await?;
        let mut events = operations.events(self.limit, self.follow).await?;
        while let Some(event) = events.next().await {
            if output.is_text() {
                output.line(&line(&event, output.paint()))?;
                if self.follow {
                    output.flush()?;
                }
            } else {
                output.item(&event)?;
            }
            if output.is_closed() {
                break;
            }
        }
        Ok(code::DONE)
    }
}

/// An event on one line.
pub fn line(event: &Event, paint: Paint) -> String {
    let Event { time, kind, reason, object, message } = event;
    let time = paint.faint(&format!("{time:.0}"));
    let kind = match kind {
        EventType::Normal => "Normal ".to_owned(),
        EventType::Warning => paint.caution("Warning"),
    };
    let (reason, object, message) =
        (text::plain(reason), text::plain(object), text::plain(message));
    format!("{time}  {kind}  {reason:<18}  {object}  {message}")
}
