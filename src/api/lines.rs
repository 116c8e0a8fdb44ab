//! Reads an answer that is a JSON document on each line, as the lines come.

use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use serde::de::DeserializeOwned;

/// The longest line, in bytes: a plan of a large fleet.
const LINE_LIMIT: usize = 256 << 20;

/// Why a stream of lines ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("the answer broke off: {0}")]
    Broken(String),
    #[error("a line of the answer can't be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("a line of the answer is over {} MiB", LINE_LIMIT >> 20)]
    TooLong,
}

struct Reader<B> {
    body: B,
    /// What came after the last newline.
    rest: Vec<u8>,
    /// How much of `rest` is known to hold no newline.
    searched: usize,
    ended: bool,
}

/// The documents of `body`. After an error nothing follows.
pub(super) fn documents<T, B>(body: B) -> impl Stream<Item = Result<T, LineError>> + Send
where
    T: DeserializeOwned + Send,
    B: Body<Data = Bytes> + Unpin + Send,
    B::Error: std::fmt::Display + Send,
{
    let reader = Reader { body, rest: Vec::new(), searched: 0, ended: false };
    futures_util::stream::unfold(reader, async |mut reader| {
        let line = match reader.next_line().await? {
            Ok(line) => line,
            Err(error) => return Some((Err(error), reader)),
        };
        let document = serde_json::from_slice(&line).map_err(LineError::from);
        reader.ended |= document.is_err();
        Some((document, reader))
    })
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// The next line that isn't empty; none at the end.
    async fn next_line(&mut self) -> Option<Result<Vec<u8>, LineError>> {
        while !self.ended {
            match self.take_line() {
                Some(line) if line.is_empty() => continue,
                Some(line) => return Some(Ok(line)),
                None => {}
            }
            if self.rest.len() > LINE_LIMIT {
                self.ended = true;
                return Some(Err(LineError::TooLong));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.rest.extend_from_slice(&bytes);
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(LineError::Broken(error.to_string())));
                }
                None => {
                    self.ended = true;
                    let rest = std::mem::take(&mut self.rest);
                    return (!rest.is_empty()).then_some(Ok(rest));
                }
            }
        }
        None
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let unsearched = self.rest.get(self.searched..).unwrap_or_default();
        let Some(position) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.rest.len();
            return None;
        };
        let after = self.rest.split_off(self.searched + position + 1);
        let mut line = std::mem::replace(&mut self.rest, after);
        line.pop();
        self.searched = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    /// `chunks` as they come over the wire, and what is read from them; an error as `!`.
    async fn check(chunks: &[&str], expected: &[&str]) {
        let frames: Vec<_> = chunks
            .iter()
            .map(|chunk| {
                Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(chunk.to_string())))
            })
            .collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let read: Vec<String> = documents::<u32, _>(body)
            .map(|item| item.map_or("!".into(), |number| number.to_string()))
            .collect()
            .await;
        assert_eq!(read, expected, "{chunks:?}");
    }

    #[tokio::test]
    async fn lines_are_found_wherever_the_chunks_are_cut() {
        check(&[], &[]).await;
        check(&["1\n2\n"], &["1", "2"]).await;
        check(&["1", "2\n3", "\n", "\n4"], &["12", "3", "4"]).await;
        check(&["1\nx\n2\n"], &["1", "!"]).await;
    }
}
