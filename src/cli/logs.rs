//! `plimsoll logs`: what an app's containers write.

use clap::Args;
use futures_util::StreamExt;

use super::failure::Failure;
use super::output::{Output, Paint};
use super::settings::GlobalArguments;
use super::{code, connect, text};
use crate::api::LogRecord;
use crate::model::AppId;

/// Show what an app's containers write, each line after its host and container
///
/// What the containers wrote to their stderr is told apart in JSON by isError. On a terminal
/// control characters are escaped.
#[derive(Debug, Args)]
pub struct Logs {
    #[arg(value_name = "ENVIRONMENT/NAME")]
    app: AppId,

    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,

    /// Begin with the last lines of each container [default: all]
    #[arg(long, value_name = "NUMBER")]
    tail: Option<u32>,
}

impl Logs {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let operations = connect::operations(global).await?;
        let mut records = operations.logs(self.app, self.tail, self.follow).await?;
        while let Some(record) = records.next().await {
            if output.is_text() {
                output.line(&line(&record, output.paint(), output.is_terminal()))?;
                if self.follow {
                    output.flush()?;
                }
            } else {
                output.item(&record)?;
            }
            if output.is_closed() {
                break;
            }
        }
        Ok(code::DONE)
    }
}

/// `alpha/shop.production.web... | text`. A pipe gets the very text; a terminal could be driven
/// by it.
fn line(record: &LogRecord, paint: Paint, is_terminal: bool) -> String {
    let LogRecord { host, container, is_error, text } = record;
    let origin = text::plain(&format!("{host}/{container}")).into_owned();
    let origin = if *is_error { paint.caution(&origin) } else { paint.faint(&origin) };
    let text = text.trim_end_matches(['\r', '\n']);
    let text = if is_terminal { text::plain(text).into_owned() } else { text.to_owned() };
    format!("{origin} | {text}")
}
