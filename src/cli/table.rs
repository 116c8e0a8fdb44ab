//! Columns of text for people.

use super::output::Paint;
use super::text;

/// A cell: its text, and how it is coloured.
pub struct Cell {
    text: String,
    tone: Tone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Caution,
    Bad,
    Faint,
}

impl Cell {
    /// `content` is made safe to show.
    pub fn new(content: impl AsRef<str>) -> Self {
        Self::toned(content, Tone::Plain)
    }

    pub fn toned(content: impl AsRef<str>, tone: Tone) -> Self {
        let content = content.as_ref();
        let shown = if content.is_empty() { "-".into() } else { text::plain(content).into_owned() };
        Self { text: shown, tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl Tone {
    pub fn paint(self, text: &str, paint: Paint) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Good => paint.good(text),
            Self::Caution => paint.caution(text),
            Self::Bad => paint.bad(text),
            Self::Faint => paint.faint(text),
        }
    }
}

/// The rows below their headings, each column as wide as its widest cell. An empty cell is a
/// hyphen, so that columns can be counted.
pub fn render(headings: &[&str], rows: &[Vec<Cell>], paint: Paint) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(Cell::width);
        let heading = headings.get(column).map_or(0, |heading| heading.chars().count());
        cells.fold(heading, usize::max)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let head: Vec<Cell> =
        headings.iter().map(|heading| Cell::toned(heading, Tone::Faint)).collect();
    let mut lines = String::new();
    for row in std::iter::once(&head).chain(rows) {
        for (column, cell) in row.iter().enumerate() {
            let is_last = column + 1 == row.len();
            lines += &cell.tone.paint(&cell.text, paint);
            if !is_last {
                let width = widths.get(column).copied().unwrap_or_default();
                lines += &" ".repeat(width.saturating_sub(cell.width()) + 2);
            }
        }
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = vec![
            vec![Cell::new("production/web"), Cell::new(""), Cell::new("a\nb")],
            vec![Cell::new("b"), Cell::toned("✓", Tone::Good), Cell::new("x")],
        ];
        assert_eq!(
            render(&["APP", "OK", "NOTE"], &rows, Paint::off()),
            "APP             OK  NOTE\nproduction/web  -   a\\nb\nb               ✓   x\n"
        );
    }
}
