//! The text of one file, and the way from a byte offset to line and column. It keeps what
//! people wrote as they wrote it, so that a mistake can be shown in their own words.

/// A file of the reader's lifetime: a new content of a path is a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub u32);

/// Bytes `start..end` of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    pub file: FileId,
    pub start: u32,
    pub end: u32,
}

/// The longest line that is shown, in characters.
const LONGEST_LINE: usize = 400;

/// A file's path and decoded text.
#[derive(Debug)]
pub(super) struct Text {
    pub path: String,
    text: String,
    /// Where each line begins.
    lines: Vec<u32>,
}

impl Text {
    pub fn new(path: String, text: String) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at as u32 + 1)).collect();
        Self { path, text, lines }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The line, from 1, that holds this byte.
    pub fn line_of(&self, offset: u32) -> u32 {
        self.lines.partition_point(|start| *start <= offset) as u32
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub fn position(&self, offset: u32) -> (u32, u32) {
        let line = self.line_of(offset);
        let start = self.lines.get(line as usize - 1).copied().unwrap_or(0);
        let before = self.text.get(start as usize..offset as usize).unwrap_or("");
        (line, before.chars().count() as u32 + 1)
    }

    /// A line, from 1, without its end; none where it is too long to be shown.
    pub fn line(&self, line: u32) -> Option<&str> {
        let start = *self.lines.get(line as usize - 1)? as usize;
        let end = self.lines.get(line as usize).map_or(self.text.len(), |end| *end as usize);
        let text = self.text.get(start..end)?.trim_end_matches(['\n', '\r']);
        (text.chars().take(LONGEST_LINE + 1).count() <= LONGEST_LINE).then_some(text)
    }

    /// How many characters of its first line an extent covers, at least 1.
    pub fn length(&self, extent: Extent) -> u32 {
        let covered = self.text.get(extent.start as usize..extent.end as usize).unwrap_or("");
        let first = covered.lines().next().unwrap_or("").trim_end();
        (first.chars().count() as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines_and_columns() {
        let text = Text::new("a.yaml".into(), "ä: 1\r\nb: 2\n".into());
        for (offset, position) in
            [(0, (1, 1)), (2, (1, 2)), (7, (2, 1)), (10, (2, 4)), (12, (3, 1))]
        {
            assert_eq!(text.position(offset), position, "{offset}");
        }
        assert_eq!(text.line(1), Some("ä: 1"));
        assert_eq!(text.line(2), Some("b: 2"));
        assert_eq!(text.line(3), Some(""));
        assert_eq!(text.line(4), None);
    }
}
