//! Suggested roles for columns whose roles are not clear; following the suggestion makes the data readable.

use colbert_config::ColumnRole;

use super::facts::Named;
use super::names::{is_description, is_id_name, is_label_name, is_name, is_some_label, role_of};

/// Longest suggestion, bytes.
const LONGEST: usize = 160;

/// Which column is the query and which the document, by their texts; `None` where no two columns hold texts.
pub(super) fn suggestion(named: Named<'_>) -> Option<String> {
    let names = named.names;
    let texts: Vec<&str> = names.iter().copied().filter(|name| may_be_text(named, name)).collect();
    let by_name = texts.iter().copied().find(|name| has_role(name, &[ColumnRole::Query]));
    let others: Vec<&str> = texts.into_iter().filter(|name| Some(*name) != by_name).collect();
    let document = likeliest_document(named, &others, by_name.is_some())?;
    let query = by_name.or_else(|| likeliest_query(named, &others, document))?;
    let mut parts = vec![format!("{query}=query"), format!("{document}=document")];
    for &name in names.iter().filter(|name| **name != query && **name != document) {
        if has_role(name, &[ColumnRole::Query, ColumnRole::Positive, ColumnRole::Document]) {
            parts.push(format!("{name}=ignore"));
        } else if role_of(name).is_none() && !is_description(name) && named.facts(name).is_labels() {
            parts.push(format!("{name}=label"));
        }
    }
    let suggestion = parts.join(", ");
    let can_be_written = [query, document].iter().all(|name| {
        let is_doubled = names.iter().filter(|other| *other == name).count() > 1;
        is_name(name) && !name.contains([',', '=', '"']) && !is_doubled
    });
    // With labels that are not the expected ones, following it would end in the next refusal.
    let has_strange_labels = names.iter().any(|name| {
        let (facts, is_label) = (named.facts(name), role_of(name) == Some(ColumnRole::Label) || is_some_label(name));
        is_label && !facts.is_empty() && !facts.holds_labels()
    });
    (can_be_written && !has_strange_labels && suggestion.len() <= LONGEST).then_some(suggestion)
}

fn has_role(name: &str, roles: &[ColumnRole]) -> bool {
    role_of(name).is_some_and(|role| roles.contains(&role))
}

/// Whether a column holds texts; without rows, as for an empty table, by its name alone.
fn may_be_text(named: Named<'_>, name: &str) -> bool {
    let is_other = is_id_name(name) || is_label_name(name) || has_role(name, &[ColumnRole::Scores]);
    !is_other && (named.rows.is_empty() || named.facts(name).is_text())
}

/// The column with the name of a document, else the one with the longest texts; the first of equals.
fn likeliest_document<'a>(named: Named<'_>, texts: &[&'a str], has_query: bool) -> Option<&'a str> {
    let is_answer = |name: &str| has_role(name, &[ColumnRole::Positive, ColumnRole::Document]);
    // `answer` is a weak name: such a column is often a few words of the text that answers.
    let rank = |name: &str| (is_answer(name) && !name.eq_ignore_ascii_case("answer"), named.facts(name).mean_words());
    let mut document: Option<&str> = None;
    for &name in texts.iter().filter(|name| !has_role(name, &[ColumnRole::Query, ColumnRole::Negative])) {
        let is_better = |known: &str| {
            let ((strong, words), (known_strong, known_words)) = (rank(name), rank(known));
            strong.cmp(&known_strong).then(words.total_cmp(&known_words)).is_gt()
        };
        // Without rows the second column is likelier to be the document than the first.
        let is_second = |known: &str| named.rows.is_empty() && !has_query && known == named.names[0];
        if document.is_none_or(|known| is_better(known) || is_second(known)) {
            document = Some(name);
        }
    }
    document
}

/// The column of questions, else the one with the shortest texts; the first of equals.
fn likeliest_query<'a>(named: Named<'_>, texts: &[&'a str], document: &str) -> Option<&'a str> {
    let rank = |name: &str| {
        let facts = named.facts(name);
        (!facts.is_questions(), facts.mean_words())
    };
    let mut query: Option<&str> = None;
    for &name in texts.iter().filter(|name| **name != document) {
        let is_better = |known: &str| {
            let ((no_question, words), (known_no_question, known_words)) = (rank(name), rank(known));
            no_question.cmp(&known_no_question).then(words.total_cmp(&known_words)).is_lt()
        };
        if query.is_none_or(is_better) {
            query = Some(name);
        }
    }
    query
}
