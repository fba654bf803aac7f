//! The role that the name of a column suggests, whatever the column holds.

use colbert_config::ColumnRole;

/// Longest name of a column, characters.
const LONGEST_NAME: usize = 40;

/// The role that a name suggests. Sources of the names: RAGatouille's examples, sentence-transformers (anchor),
/// Tevatron (..._passages), DPR (..._ctxs), FlagEmbedding (pos, neg), and names of label columns in MS MARCO, BEIR and
/// GLUE.
pub(super) fn role_of(name: &str) -> Option<ColumnRole> {
    match name.trim().to_ascii_lowercase().as_str() {
        "query" | "question" | "anchor" => Some(ColumnRole::Query),
        "positive" | "positives" | "pos" | "positive_passages" | "positive_ctxs" | "answer" => {
            Some(ColumnRole::Positive)
        }
        "document" | "documents" | "passage" | "passages" => Some(ColumnRole::Document),
        "negative" | "negatives" | "neg" | "negative_passages" | "negative_ctxs" | "hard_negative_ctxs"
        | "hard_negatives" | "hard_negative" => Some(ColumnRole::Negative),
        name if is_label_name(name) => Some(ColumnRole::Label),
        "scores" | "score" => Some(ColumnRole::Scores),
        other => other
            .strip_prefix("negative_")
            .filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
            .map(|_| ColumnRole::Negative),
    }
}

/// Whether a column of that name says whether a document is relevant.
pub(super) fn is_label_name(name: &str) -> bool {
    matches!(
        name.trim().to_ascii_lowercase().as_str(),
        "label"
            | "labels"
            | "relevance"
            | "relevancy"
            | "relevant"
            | "is_relevant"
            | "relevance_label"
            | "relevance_grade"
            | "grade"
            | "is_selected"
            | "is_positive"
            | "is_duplicate"
            | "is_match"
            | "judgement"
            | "judgment"
    )
}

/// Whether a column is called a label of some kind, as `gold_label` is; what it says is not known.
pub(super) fn is_some_label(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name.ends_with("label") || name.ends_with("labels")
}

/// Whether a label column of that name may hold grades; numbers under other names are classes.
pub(super) fn is_grade_name(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    is_label_name(&name) && (name.starts_with("relevan") || matches!(name.as_str(), "grade" | "judgement" | "judgment"))
}

/// Whether a column of that name holds ids and never texts.
pub(super) fn is_id_name(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase().replace('-', "_");
    matches!(
        name.as_str(),
        "id" | "ids" | "_id" | "qid" | "pid" | "did" | "uid" | "uuid" | "docid" | "docno" | "idx" | "index"
    ) || name.ends_with("_id")
        || name.ends_with("_ids")
}

/// Whether a column of that name may hold the answering text in full, beside one called `answer` that often has only a
/// few words of it.
pub(super) fn is_rival(name: &str) -> bool {
    matches!(
        name.trim().to_ascii_lowercase().as_str(),
        "context"
            | "contexts"
            | "ground_truth"
            | "ground_truths"
            | "reference"
            | "references"
            | "text"
            | "texts"
            | "content"
            | "contents"
            | "body"
            | "paragraph"
            | "article"
            | "chunk"
            | "chunks"
            | "snippet"
            | "response"
            | "output"
            | "evidence"
            | "reference_contexts"
            | "retrieved_contexts"
    )
}

/// Whether a column of that name describes a row and is not a text to rank.
pub(super) fn is_description(name: &str) -> bool {
    is_id_name(name)
        || matches!(
            name.trim().to_ascii_lowercase().as_str(),
            "title"
                | "url"
                | "link"
                | "source"
                | "category"
                | "topic"
                | "tags"
                | "language"
                | "lang"
                | "date"
                | "type"
                | "split"
                | "metadata"
                | "prompt"
                | "instruction"
                | "dataset"
                | "explanation"
                | "comment"
                | "notes"
        )
}

/// Whether these cells name roles, so that they are a header and not a row.
pub(super) fn are_roles(cells: &[&str]) -> bool {
    cells.len() > 1
        && cells.iter().filter(|cell| role_of(cell).is_some()).count() > 1
        && cells.iter().any(|cell| role_of(cell) == Some(ColumnRole::Query))
}

/// `negative_10` comes after `negative_9`.
pub(super) fn number_of(name: &str) -> u64 {
    name.rsplit('_').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Whether a cell looks like a name: at most three words of letters, digits and common marks, beginning with a letter.
pub(super) fn is_name(cell: &str) -> bool {
    cell.chars().count() <= LONGEST_NAME
        && cell.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && cell.split_whitespace().count() <= 3
        && cell.chars().all(|letter| letter.is_alphanumeric() || "_-. :/()#".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_told_from_a_row() {
        assert!(are_roles(&["Query", "Positive"]) && are_roles(&["id", "query", "passage", "label"]));
        assert!(!are_roles(&["query expansion", "positive"]) && !are_roles(&["a question", "a passage"]));
    }
}
