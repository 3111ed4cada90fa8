//! Tables: columns aligned by spaces, without lines or tabs, so that people and `awk` can read them alike.

/// A table of text; the last column may be of any length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// Spaces between two columns.
const GAP: usize = 2;

impl Table {
    /// A table with these column heads and no rows.
    pub fn new(heads: &[&'static str]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; a cell that is empty becomes `-`, so that each row has as many words as the table has columns.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.heads.len());
        self.rows.push(cells.map(|cell| one_line(&cell)).to_vec());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the table. `paint` colours a cell (its column's head, its text); it adds no width.
    pub fn lines(&self, paint: impl Fn(&str, &str) -> String) -> Vec<String> {
        let widths = self.widths();
        let heads: Vec<_> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let mut lines = vec![self.line(&heads, &widths, |_, text| paint("", text))];
        lines.extend(self.rows.iter().map(|row| self.line(row, &widths, &paint)));
        lines
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize, head: &&str| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(head.len())
        };
        self.heads
            .iter()
            .enumerate()
            .map(|(column, head)| width(column, head))
            .collect()
    }

    fn line(
        &self,
        cells: &[String],
        widths: &[usize],
        paint: impl Fn(&str, &str) -> String,
    ) -> String {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            line.push_str(&paint(self.heads[column], cell));
            if column + 1 < cells.len() {
                let fill = widths[column] - cell.chars().count() + GAP;
                line.extend(std::iter::repeat_n(' ', fill));
            }
        }
        line
    }
}

/// The text on one line, without control characters.
pub fn one_line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.trim().chars().map(clean).collect();
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_spaces() {
        let mut table = Table::new(&["JOB", "N", "WORK"]);
        table.row(["long-name".into(), "1".into(), "echo\thi\nyou".into()]);
        table.row(["j".into(), String::new(), "ü".into()]);
        let lines = table.lines(|_, text| text.to_owned());
        assert_eq!(
            lines,
            [
                "JOB        N  WORK",
                "long-name  1  echo hi you",
                "j          -  ü"
            ]
        );
    }

    #[test]
    fn paint_does_not_move_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x".into(), "y".into()]);
        let lines = table.lines(|head, text| format!("<{head}{text}>"));
        assert_eq!(lines[1], "<Ax>  <By>");
    }
}
