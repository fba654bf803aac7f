//! The quoting of a file of cells, detected from its first bytes.

/// Separator and quoting of a file of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    /// Cells may stand in quotation marks.
    pub(super) quotes: bool,
    /// A backslash within quotation marks takes the next character as it is; else only `""` is a quotation mark.
    pub(super) escapes: bool,
    /// Spaces may stand between a separator and a quotation mark.
    pub(super) spaces: bool,
}

/// Samples shorter than this are whole files, bytes.
const WHOLE: usize = 1 << 12;

impl Dialect {
    /// CSV, by a sample from the start of the file.
    pub(super) fn of_csv(sample: &[u8], delimiter: u8) -> Self {
        let plain = Self { delimiter, quotes: true, escapes: false, spaces: false };
        let has = |pattern: &[u8]| sample.windows(pattern.len()).any(|window| window == pattern);
        let (backslash, space) = (has(b"\\\""), has(&[delimiter, b' ', b'"']));
        let variants = [(true, true), (true, false), (false, true), (false, false)];
        variants
            .into_iter()
            .filter(|(escapes, spaces)| (backslash || !escapes) && (space || !spaces))
            .map(|(escapes, spaces)| Self { escapes, spaces, ..plain })
            .find(|dialect| dialect.shape(sample).is_some_and(|shape| dialect.suits(&shape)))
            .unwrap_or(plain)
    }

    /// Tab-separated cells: quoted only if every cell that begins with a quotation mark is quoted as in CSV, as most
    /// such files have no quoting.
    pub(super) fn of_tsv(sample: &[u8]) -> Self {
        let raw = Self { delimiter: b'\t', quotes: false, escapes: false, spaces: false };
        let has_backslash = sample.windows(2).any(|window| window == b"\\\"");
        [true, false]
            .into_iter()
            .filter(|escapes| has_backslash || !escapes)
            .map(|escapes| Self { quotes: true, escapes, ..raw })
            .find(|dialect| dialect.shape(sample).is_some_and(|shape| dialect.suits(&shape) && shape.quoted > 0))
            .unwrap_or(raw)
    }

    /// Whether all records have the same number of cells, and the sample uses everything that the dialect allows.
    fn suits(&self, shape: &Shape) -> bool {
        shape.is_even && (!self.escapes || shape.escaped > 0) && (!self.spaces || shape.spaced > 0)
    }

    /// Walks through the whole records of a sample; `None` where something follows a closing quotation mark.
    fn shape(&self, sample: &[u8]) -> Option<Shape> {
        #[derive(Clone, Copy, PartialEq)]
        enum At {
            Start,
            Bare,
            Quoted,
            Closed,
        }
        let (mut at, mut cells, mut counts) = (At::Start, 1_usize, Vec::new());
        let (mut quoted, mut escaped, mut spaced, mut after_space) = (0, 0, 0, false);
        let mut bytes = sample.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            at = match (at, byte) {
                (At::Quoted, b'\\') if self.escapes => {
                    escaped += usize::from(bytes.next() == Some(b'"'));
                    At::Quoted
                }
                (At::Quoted, b'"') if bytes.peek() == Some(&b'"') => {
                    bytes.next();
                    At::Quoted
                }
                (At::Quoted, b'"') => At::Closed,
                (At::Quoted, _) => At::Quoted,
                (_, b'\n' | b'\r') => {
                    // The second byte of a line's end, and blank lines, end no record.
                    if at != At::Start || cells > 1 {
                        counts.push(cells);
                    }
                    cells = 1;
                    At::Start
                }
                (_, byte) if byte == self.delimiter => {
                    cells += 1;
                    At::Start
                }
                (At::Start, b'"') => {
                    quoted += 1;
                    spaced += usize::from(after_space);
                    At::Quoted
                }
                (At::Start | At::Closed, b' ') if self.spaces => at,
                (At::Closed, _) => return None,
                _ => At::Bare,
            };
            after_space = byte == b' ';
        }
        // A small sample is the whole file: what is open at its end is never closed.
        if at == At::Quoted && sample.len() < WHOLE {
            return None;
        }
        // Of a sample that is the whole file, the last record may lack a line's end.
        if at != At::Quoted && (at != At::Start || cells > 1) && counts.is_empty() {
            counts.push(cells);
        }
        let is_even = counts.first().is_some_and(|first| counts.iter().all(|count| count == first));
        Some(Shape { is_even, quoted, escaped, spaced })
    }
}

/// Findings of a walk through a sample.
struct Shape {
    /// All records have as many cells.
    is_even: bool,
    /// Cells in quotation marks.
    quoted: usize,
    /// Quotation marks after a backslash.
    escaped: usize,
    /// Quotation marks after a space at the start of a cell.
    spaced: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> (bool, bool) {
        let dialect = Dialect::of_csv(text.as_bytes(), b',');
        (dialect.escapes, dialect.spaces)
    }

    #[test]
    fn quoting_shows_in_the_first_records() {
        assert_eq!(csv("a,b\n\"x, \"\"y\"\"\",z\n"), (false, false));
        assert_eq!(csv("a,b\n\"he said \\\"x, y\\\"\",z\n"), (true, false));
        assert_eq!(csv("a, b\nx, \"y, z\"\n"), (false, true));
        assert_eq!(csv("a,b\nC:\\\"x\",z\n\"C:\\\",z\n"), (false, false));
        assert_eq!(csv("a,b\n5\" pipe,z\n"), (false, false));
    }

    #[test]
    fn tabs_are_quoted_only_where_all_quotation_marks_are_those_of_csv() {
        let quotes = |text: &str| Dialect::of_tsv(text.as_bytes()).quotes;
        assert!(quotes("a\tb\n\"x \"\"y\"\"\"\tz\n"));
        assert!(quotes("a\tb\n\"x\ty\nz\"\tz\n"));
        assert!(!quotes("a\tb\n\"To be\" is his\tz\n"));
        assert!(!quotes("a\tb\nx\ty\n"));
        assert!(!quotes("a\tb\n\"x\ty\nz\tw\n"));
    }
}
