//! Judgement files: three columns as BEIR has them (query id, document id, grade) or four as TREC has them (query id,
//! iteration, document id, grade), separated by tabs or spaces.

use std::path::{Path, PathBuf};

use super::lines::Lines;
use crate::error::DataError;

/// Extensions of judgement files.
const EXTENSIONS: [&str; 4] = ["tsv", "txt", "trec", "qrels"];

/// One line.
pub(super) struct Judgement<'a> {
    pub(super) query: &'a str,
    pub(super) document: &'a str,
    pub(super) grade: i32,
}

/// The judgements of a split: in the folder `qrels`, or beside the texts under a name with the split in it.
pub(super) fn file(folder: &Path, split: &str) -> Option<PathBuf> {
    let qrels = folder.join("qrels");
    let within = EXTENSIONS.map(|extension| qrels.join(format!("{split}.{extension}")));
    let beside = EXTENSIONS.into_iter().flat_map(|extension| {
        [
            format!("qrels.{split}.{extension}"),
            format!("qrels-{split}.{extension}"),
            format!("{split}.qrels.{extension}"),
        ]
    });
    // A file that names no split is the one that is trained on.
    let unnamed = EXTENSIONS.map(|extension| format!("qrels.{extension}")).into_iter().filter(|_| split == "train");
    within.into_iter().chain(beside.chain(unnamed).map(|name| folder.join(name))).find(|path| path.is_file())
}

/// Names of the splits in the folder `qrels`, sorted, and `train` for a file beside the texts.
pub(super) fn splits(folder: &Path) -> Result<Vec<String>, DataError> {
    let qrels = folder.join("qrels");
    let mut splits = Vec::new();
    if qrels.is_dir() {
        let failed = |source| DataError::Read { path: qrels.clone(), source };
        for entry in std::fs::read_dir(&qrels).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            if EXTENSIONS.contains(&extension.as_str()) {
                splits.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
    }
    splits
        .extend(["train", "dev", "test"].into_iter().filter(|split| file(folder, split).is_some()).map(str::to_owned));
    splits.sort_unstable();
    splits.dedup();
    Ok(splits)
}

/// The form of a split's file, if it is not BEIR's own, for the announcement.
pub(super) fn form(folder: &Path, split: &str) -> Result<String, DataError> {
    let Some(path) = file(folder, split) else { return Ok(String::new()) };
    let mut lines = Lines::open(&path, "judgements")?;
    let mut form = Form::default();
    while form.columns.is_none() && lines.advance()? {
        // What is wrong with a line is reported where the line is read.
        if line(&lines, &mut form).is_err() {
            break;
        }
    }
    let beside = if path.parent() == Some(folder) { format!(" ({})", path.display()) } else { String::new() };
    Ok(if form.columns == Some(4) { format!("{beside} (qrels of four columns, as TREC has them)") } else { beside })
}

/// The form of a file's lines, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Form {
    columns: Option<usize>,
    /// Places of query, document and grade, if a header names them in another order than the usual one.
    order: Option<[usize; 3]>,
}

/// The places of query, document and grade among the names of a header of three columns.
fn order_of(names: &[&str]) -> Option<[usize; 3]> {
    let place = |words: &[&str]| {
        let is_meant = |name: &&str| words.iter().any(|word| name.to_ascii_lowercase().contains(word));
        names.iter().position(is_meant)
    };
    let order = [place(&["query", "qid", "question"])?, place(&["corpus", "doc", "pid", "passage"])?];
    let grade = (0..names.len()).find(|index| !order.contains(index))?;
    (names.len() == 3 && order[0] != order[1]).then_some([order[0], order[1], grade])
}

/// One line of a file whose lines have as many columns as the first; nothing for a header.
pub(super) fn line<'a>(lines: &'a Lines, form: &mut Form) -> Result<Option<Judgement<'a>>, DataError> {
    let malformed = |found: String| DataError::Malformed {
        place: lines.place(),
        expected: match form.columns {
            Some(4) => "query id, iteration, document id and a whole-number grade, as in the lines before".to_owned(),
            _ => "query id, document id and a whole-number grade, separated by tabs or spaces".to_owned(),
        },
        found,
    };
    let text = lines.text()?;
    let cells: Vec<&str> =
        if text.contains('\t') { text.split('\t').map(str::trim).collect() } else { text.split_whitespace().collect() };
    let (query, document, grade) = match cells[..] {
        [_, _, _] if form.columns != Some(4) => {
            let [query, document, grade] = form.order.unwrap_or([0, 1, 2]);
            (cells[query], cells[document], cells[grade])
        }
        [query, _, document, grade] if form.columns != Some(3) => (query, document, grade),
        _ => return Err(malformed(format!("{} columns", cells.len()))),
    };
    let Some(grade) = whole_number(grade) else {
        let is_header = lines.number() == 1 && !grade.starts_with(|start: char| start.is_ascii_digit());
        if is_header {
            form.order = order_of(&cells);
            return Ok(None);
        }
        return Err(malformed(format!("grade `{grade}`")));
    };
    form.columns = Some(cells.len());
    Ok(Some(Judgement { query, document, grade }))
}

/// `1` and `1.0` are whole numbers.
fn whole_number(cell: &str) -> Option<i32> {
    cell.parse().ok().or_else(|| {
        let number = cell.parse::<f64>().ok()?;
        (number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX)).then_some(number as i32)
    })
}
