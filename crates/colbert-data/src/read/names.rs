//! The role that the name of a column suggests, whatever the column holds.

use colbert_config::ColumnRole;

/// Longest name of a column, characters.
const LONGEST_NAME: usize = 40;

/// A name in the one spelling that names are compared in: lower case, words joined by underscores. `isRelevant`,
/// `Is Relevant` and `is-relevant` are one name.
pub(super) fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len() + 2);
    let mut before = ' ';
    for letter in name.trim().chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            plain.push('_');
        }
        if letter.is_whitespace() || matches!(letter, '-' | '.') {
            plain.push('_');
        } else {
            plain.extend(letter.to_lowercase());
        }
        before = letter;
    }
    plain
}

/// The role that a name suggests. Sources of the names: RAGatouille's examples, sentence-transformers (anchor),
/// Tevatron (..._passages), DPR (..._ctxs), FlagEmbedding (pos, neg), and names of label columns in MS MARCO, BEIR and
/// GLUE.
pub(super) fn role_of(name: &str) -> Option<ColumnRole> {
    match plain(name).as_str() {
        "query" | "question" | "anchor" => Some(ColumnRole::Query),
        "positive" | "positives" | "pos" | "positive_passages" | "positive_ctxs" | "answer" => {
            Some(ColumnRole::Positive)
        }
        "document" | "documents" | "passage" | "passages" => Some(ColumnRole::Document),
        name if is_label_name(name) => Some(ColumnRole::Label),
        "scores" | "score" => Some(ColumnRole::Scores),
        name if says_kind(name, &NEGATIVES) => Some(ColumnRole::Negative),
        name if says_kind(name, &POSITIVES) && name.contains('_') => Some(ColumnRole::Positive),
        _ => None,
    }
}

/// Words for documents that are not relevant.
const NEGATIVES: [&str; 7] = ["negative", "negatives", "neg", "negs", "irrelevant", "distractor", "distractors"];
/// Words for documents that are relevant.
const POSITIVES: [&str; 5] = ["positive", "positives", "pos", "relevant", "gold"];
/// Words for documents.
const DOCUMENTS: [&str; 16] = [
    "document",
    "documents",
    "doc",
    "docs",
    "passage",
    "passages",
    "ctx",
    "ctxs",
    "context",
    "contexts",
    "text",
    "texts",
    "answer",
    "answers",
    "chunk",
    "chunks",
];
/// Words for the way in which a document was found.
const FOUND: [&str; 4] = ["sample", "samples", "hard", "random"];

/// Whether a name is made of a word for a kind of document, words for documents, and perhaps a number at the end:
/// `hard_negatives`, `neg_0`, `negative_passage_2`. A positive is not numbered, as one column is meant.
fn says_kind(plain: &str, kind: &[&str]) -> bool {
    let base = plain.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let base = if kind == POSITIVES { plain } else { base.trim_end_matches('_') };
    let words: Vec<&str> = base.split('_').collect();
    let is_usual = |word: &&str| kind.contains(word) || DOCUMENTS.contains(word) || FOUND.contains(word);
    words.iter().any(|word| kind.contains(word)) && words.iter().all(is_usual)
}

/// Whether a column of that name holds numbers that say how relevant a document is.
pub(super) fn is_score_name(name: &str) -> bool {
    let name = plain(name);
    let last = name.rsplit('_').next().unwrap_or_default();
    matches!(
        last,
        "score"
            | "scores"
            | "similarity"
            | "similarities"
            | "logit"
            | "logits"
            | "rating"
            | "confidence"
            | "probability"
    )
}

/// Whether a column of that name says whether a document is relevant.
pub(super) fn is_label_name(name: &str) -> bool {
    matches!(
        plain(name).as_str(),
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
    let name = plain(name);
    name.ends_with("label") || name.ends_with("labels")
}

/// Whether a label column of that name may hold grades; numbers under other names are classes.
pub(super) fn is_grade_name(name: &str) -> bool {
    let name = plain(name);
    is_label_name(&name) && (name.starts_with("relevan") || matches!(name.as_str(), "grade" | "judgement" | "judgment"))
}

/// Whether a column of that name holds ids and never texts; so does the index that pandas writes without a name.
pub(super) fn is_id_name(name: &str) -> bool {
    let name = plain(name);
    let last = name.rsplit('_').next().unwrap_or_default();
    name.is_empty()
        || name.starts_with("unnamed:")
        || matches!(last, "id" | "ids" | "qid" | "qids" | "pid" | "pids" | "docid" | "docids")
        || matches!(name.as_str(), "did" | "uid" | "uuid" | "docno" | "idx" | "index")
}

/// Whether a column of that name often has only a few words of the text that answers: `answer`, `gold_answer`.
pub(super) fn is_short_answer(name: &str) -> bool {
    plain(name).rsplit('_').next().is_some_and(|last| matches!(last, "answer" | "answers"))
}

/// Whether a column of that name may hold the answering text in full, beside one called `answer` that often has only a
/// few words of it.
pub(super) fn is_rival(name: &str) -> bool {
    matches!(
        plain(name).as_str(),
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
            plain(name).as_str(),
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

/// Whether a heading has a word that names a part of a row.
pub(super) fn has_word_of_role(name: &str) -> bool {
    const WORDS: [&str; 10] =
        ["query", "question", "anchor", "positive", "negative", "sentence", "title", "label", "id", "search"];
    plain(name).split('_').any(|word| WORDS.contains(&word) || DOCUMENTS.contains(&word))
}

/// Whether two names differ in their last character only, a digit or a letter that counts: `question1` and
/// `question2`, `text_a` and `text_b`.
pub(super) fn are_numbered_alike(one: &str, other: &str) -> bool {
    let split = |name: &str| {
        let mut letters: Vec<char> = plain(name).chars().collect();
        letters.pop().map(|last| (letters, last))
    };
    match (split(one), split(other)) {
        (Some((one, first)), Some((other, second))) => {
            let is_digit = first.is_ascii_digit() && second.is_ascii_digit();
            let is_letter = one.last() == Some(&'_') && first.is_ascii_alphabetic() && second.is_ascii_alphabetic();
            one == other && !one.is_empty() && first != second && (is_digit || is_letter)
        }
        _ => false,
    }
}

/// `negative_10` comes after `negative_9`.
pub(super) fn number_of(name: &str) -> u64 {
    let digits = name.trim_end().rsplit(|letter: char| !letter.is_ascii_digit()).next();
    digits.and_then(|number| number.parse().ok()).unwrap_or(0)
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
    fn a_name_means_the_same_in_every_spelling() {
        for (names, role) in [
            (&["isRelevant", "Is Relevant", "is-relevant", "IS_RELEVANT"][..], ColumnRole::Label),
            (
                &["negative_3", "neg_0", "negative1", "hard_negative_2", "negative-1", "Negative 2"],
                ColumnRole::Negative,
            ),
            (
                &["hardNegatives", "negs", "neg_docs", "negative_passage", "irrelevant", "Distractor1"],
                ColumnRole::Negative,
            ),
            (&["positive_document", "relevant_passages", "pos_docs", "GoldPassage"], ColumnRole::Positive),
        ] {
            for name in names {
                assert_eq!(role_of(name), Some(role), "{name}");
            }
        }
        for name in ["neg_scores", "negative_id", "positive_1", "gold", "negation", "position", "docs", "negativity"] {
            assert_eq!(role_of(name), None, "{name}");
        }
        for name in ["", "Unnamed: 0", "DocId", "question-id", "answer_pids", "_id", "ID"] {
            assert!(is_id_name(name), "{name}");
        }
        assert!(is_score_name("rerank_score") && is_score_name("Cosine Similarity") && !is_score_name("scored_by"));
        assert!(are_numbered_alike("question1", "question2") && are_numbered_alike("text_a", "text_b"));
        assert!(!are_numbered_alike("cat", "car") && !are_numbered_alike("q", "d") && !are_numbered_alike("a1", "b1"));
    }

    #[test]
    fn a_header_is_told_from_a_row() {
        assert!(are_roles(&["Query", "Positive"]) && are_roles(&["id", "query", "passage", "label"]));
        assert!(!are_roles(&["query expansion", "positive"]) && !are_roles(&["a question", "a passage"]));
    }
}
