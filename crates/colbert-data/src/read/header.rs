//! Detection of a header in a file of cells, and rows of cells under the header's names.

use serde_json::{Map, Value};

use super::content::Content;
use super::facts::words;
use super::names::{are_roles, has_word_of_role, is_id_name, is_name, role_of};
use super::read_options::ReadOptions;
use crate::error::{DataError, Place};

/// Other names that such files have, and no row begins with.
const NAMES: [&str; 12] = [
    "title",
    "text",
    "content",
    "contents",
    "body",
    "text_a",
    "text_b",
    "sentence1",
    "sentence2",
    "context",
    "url",
    "answers",
];

/// Whether the first line is a header, by the names themselves, by roles that the user gave, and by the rows below.
pub(super) fn is_header(names: &[String], rows: &[Vec<String>], content: Content, options: &ReadOptions) -> bool {
    if content == Content::Table || names.iter().any(|name| options.roles.contains_key(name.as_str())) {
        return true;
    }
    let cells: Vec<&str> = names.iter().map(String::as_str).collect();
    if content == Content::Rows && are_roles(&cells) {
        return true;
    }
    if !names.iter().all(|name| is_name(name)) {
        return false;
    }
    let column = |index: usize| rows.iter().filter_map(move |row| row.get(index).map(String::as_str));
    let is_number = |cell: &str| cell.trim().parse::<f64>().is_ok();
    // A column of numbers whose first cell is not a number has a name.
    let names_numbers = (0..names.len()).any(|index| column(index).next().is_some() && column(index).all(&is_number));
    let is_known = |name: &&str| is_known(name);
    let known = cells.iter().filter(|name| is_known(name)).count();
    let all_words = cells.iter().all(|name| !name.contains(char::is_whitespace));
    // Single words over sentences, and found nowhere below.
    let mean_words = |index: usize| {
        let (words, count) = column(index).fold((0, 0), |(sum, count), cell| (sum + words(cell), count + 1));
        f64::from(u32::try_from(words).unwrap_or(u32::MAX)) / f64::from(count.max(1))
    };
    let is_nowhere_below = (0..names.len()).all(|index| column(index).all(|cell| cell != names[index]));
    let stands_over_texts = all_words && (0..names.len()).any(|index| mean_words(index) >= 3.0) && is_nowhere_below;
    // Other names may have several words after one that no row begins with.
    let begins_with_a_name = cells.first().is_some_and(is_known) && mean_words(0) >= 3.0 && is_nowhere_below;
    // Headings of a few words are much shorter than the texts below them.
    let texts = || (0..names.len()).filter(|index| !column(*index).all(&is_number));
    let stands_far_above = |factor: usize| {
        is_nowhere_below && texts().all(|index| mean_words(index) >= (factor * words(&names[index])) as f64)
    };
    let is_heading =
        rows.len() > 1 && stands_far_above(if names.iter().any(|name| has_word_of_role(name)) { 2 } else { 3 });
    names_numbers
        || is_heading
        || begins_with_a_name
        || (all_words && known > 0 && (known == names.len() || stands_over_texts))
        || (rows.len() > 1 && stands_over_texts)
}

/// Whether the cells are known names and nothing else, whatever the name of the file is.
pub(super) fn are_known_names(cells: &[String]) -> bool {
    cells.len() > 1 && cells.iter().all(|cell| is_name(cell)) && cells.iter().filter(|cell| is_known(cell)).count() > 1
}

fn is_known(name: &str) -> bool {
    role_of(name).is_some() || is_id_name(name) || NAMES.contains(&name.to_lowercase().as_str())
}

/// Whether the first line of a CSV file is a row: two or three cells that do not look like names but like the cells
/// below them.
pub(super) fn is_row(cells: &[String], rows: &[Vec<String>]) -> bool {
    /// Smallest length of a text in the first line, relative to the mean of those below: a heading is shorter.
    const FEWEST: f64 = 0.4;
    let is_number = |cell: &str| cell.trim().parse::<f64>().is_ok();
    let is_question = |cell: &str| cell.trim_end().ends_with(['?', '？', '؟']);
    let words = |cell: &str| cell.split_whitespace().count() as f64;
    let is_like = |index: usize| {
        let below: Vec<&str> = rows.iter().filter_map(|row| row.get(index).map(String::as_str)).collect();
        let (cell, count) = (cells[index].as_str(), below.len() as f64);
        let share = |is: &dyn Fn(&str) -> bool| below.iter().filter(|cell| is(cell)).count() as f64 / count.max(1.0);
        if is_number(cell) {
            return share(&is_number) == 1.0;
        }
        // Words over numbers are a heading, whatever they are.
        if share(&is_number) > 0.5 {
            return false;
        }
        let mean = below.iter().map(|cell| words(cell)).sum::<f64>() / count.max(1.0);
        words(cell) >= FEWEST * mean && (is_question(cell) || share(&is_question) < 0.5)
    };
    matches!(cells.len(), 2 | 3)
        && !rows.is_empty()
        && rows.iter().all(|row| row.len() == cells.len())
        && !cells[..2].iter().any(|cell| cell.trim().is_empty() || is_name(cell) || is_number(cell))
        && (0..cells.len()).all(is_like)
}

/// Cells as an object under the header's names, or as a list.
pub(super) fn named(header: Option<&[String]>, cells: Vec<String>, place: Place) -> Result<Value, DataError> {
    let Some(header) = header else { return Ok(Value::Array(cells.into_iter().map(Value::String).collect())) };
    if cells.len() != header.len() {
        return Err(DataError::Malformed {
            place,
            expected: format!("{} columns, as the header has", header.len()),
            found: cells.len().to_string(),
        });
    }
    Ok(Value::Object(header.iter().cloned().zip(cells.into_iter().map(Value::String)).collect::<Map<_, _>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(lines: &[&str]) -> bool {
        let cells = |line: &&str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<_> = lines[1..].iter().map(cells).collect();
        is_header(&cells(&lines[0]), &rows, Content::Rows, &ReadOptions::default())
    }

    #[test]
    fn a_first_line_of_csv_is_a_row_only_if_it_is_like_the_others() {
        let row = |lines: &[&[&str]]| {
            let rows: Vec<Vec<String>> =
                lines.iter().map(|line| line.iter().map(|cell| (*cell).to_owned()).collect()).collect();
            is_row(&rows[0], &rows[1..])
        };
        let (a, b) = ("Where does a tor stand?", "What is a wet fen?");
        let (x, y) = ("A tor is a rocky hill on a moor.", "A fen is wet land, full of reed.");
        assert!(row(&[&[a, x], &[b, y]]) && row(&[&[a, x, "1"], &[b, y, "0"]]) && row(&[&[a, x, y], &[b, y, x]]));
        let headings: [&[&[&str]]; 8] = [
            &[&["Your question:", "The answer, in short!"], &[a, x], &[b, y]],
            &[&["query", "passage"], &[a, x], &[b, y]],
            &[&["what do people ask?", "(answer)"], &[a, x], &[b, y]],
            &[&[a, x, "a label?"], &[a, x, "1"], &[b, y, "0"]],
            &[&[a, x, "1"], &[b, y, "yes"]],
            &[&["1", "2"], &["3", "4"]],
            &[&[a, x, y, y], &[b, y, x, x]],
            &[&[a, x]],
        ];
        for headed in headings {
            assert!(!row(headed), "{headed:?}");
        }
    }

    #[test]
    fn names_are_told_from_rows() {
        assert!(header(&["text_a\ttext_b\tlabel", "What is a tor?\tA rocky hill.\t1"]));
        assert!(header(&["query-id\tcorpus-id\tscore", "q1\td1\t1"]));
        assert!(header(&[
            "frage\tantwort",
            "Was ist ein Moor?\tNasses Land.",
            "Was ist ein Tor?\tEin Felsen im Moor."
        ]));
        assert!(header(&["query\tpositive", "q\tp"]));
        assert!(header(&["sentence1\tsentence2\tnli label", "what is a tor\ta rocky hill\tentailment"]));
        assert!(header(&["title\ttext", "Fever\tA condition."]));
        assert!(header(&[
            "User Query\tRelevant Passage",
            "What is a wet fen called?\tA fen is wet land of reed.",
            "What is a tor made of?\tA tor is of granite.",
        ]));
        for rows in [
            &["q\tp\tn"][..],
            &["q100\td0\td3", "q101\td1\td4"],
            &["what is a tor\ta rocky hill\t1", "what is a fen\twet land\t0"],
            &["tor\ta rocky hill", "fen\twet land of reed"],
            &["rock types\tof a moor", "weirs on rivers\tsmall dams", "wet land\ta fen"],
            &["q00\td00\t1", "q01\td01\t1"],
        ] {
            assert!(!header(rows), "{rows:?}");
        }
    }
}
