//! Suggested roles for columns whose roles are not clear; following the suggestion makes the data readable.

use colbert_config::ColumnRole;

use super::facts::Named;
use super::names::{
    are_numbered_alike, is_description, is_id_name, is_label_name, is_name, is_rival, is_score_name, is_short_answer,
    is_some_label, plain, role_of,
};

/// Longest suggestion, bytes.
const LONGEST: usize = 160;

/// Which column is the query and which the document, by their texts; `None` where no two columns hold texts.
pub(super) fn suggestion(named: Named<'_>) -> Option<String> {
    let names = named.names;
    let texts: Vec<&str> = names.iter().copied().filter(|name| may_be_text(named, name)).collect();
    let by_name = texts.iter().copied().find(|name| has_role(name, &[ColumnRole::Query]));
    let others: Vec<&str> = texts.into_iter().filter(|name| Some(*name) != by_name).collect();
    // Nothing tells the roles of `question1` and `question2` apart but their order.
    let alike = others.windows(2).find(|pair| by_name.is_none() && are_numbered_alike(pair[0], pair[1]));
    let document = match alike {
        Some(pair) => pair[1],
        None => likeliest_document(named, &others, by_name.is_some())?,
    };
    let query = by_name.or(alike.map(|pair| pair[0])).or_else(|| likeliest_query(named, &others, document))?;
    // A short answer is not what is searched for if the text that has it cannot be read.
    if is_short_answer(document) && names.iter().any(|name| is_rival(name) && !named.facts(name).is_empty()) {
        return None;
    }
    let mut scores = Vec::new();
    let mut parts = vec![format!("{query}=query"), format!("{document}=document")];
    for &name in names.iter().filter(|name| **name != query && **name != document) {
        if has_role(name, &[ColumnRole::Query, ColumnRole::Positive, ColumnRole::Document]) {
            parts.push(format!("{name}=ignore"));
        } else if role_of(name).is_none() && !is_description(name) && named.facts(name).is_labels() {
            parts.push(format!("{name}=label"));
        } else if role_of(name).is_none() && is_score_name(name) && named.facts(name).is_numbers() {
            scores.push(name);
        }
    }
    let has_scores = names.iter().any(|name| has_role(name, &[ColumnRole::Label, ColumnRole::Scores]));
    if let (Some(first), false) = (scores.first(), has_scores || parts.iter().any(|part| part.ends_with("=label"))) {
        // Scores that are not of a teacher are not suggested: with one document a query there is nothing to compare.
        let has_several = named.facts(query).distinct() < named.rows.len();
        if !has_several || scores.len() > 1 {
            return None;
        }
        parts.push(format!("{first}=scores"));
    }
    let suggestion = parts.join(", ");
    let can_be_written = [query, document].iter().all(|name| {
        let is_doubled = names.iter().filter(|other| *other == name).count() > 1;
        is_name(name) && !name.contains([',', '=', '"']) && !is_doubled
    });
    // A list is no query.
    let is_list = named.facts(query).is_written();
    // With labels that are not the expected ones, following it would end in the next refusal.
    let has_strange_labels = names.iter().any(|name| {
        let (facts, is_label) = (named.facts(name), role_of(name) == Some(ColumnRole::Label) || is_some_label(name));
        is_label && !facts.is_empty() && !facts.holds_labels()
    });
    (can_be_written && !is_list && !has_strange_labels && suggestion.len() <= LONGEST).then_some(suggestion)
}

fn has_role(name: &str, roles: &[ColumnRole]) -> bool {
    role_of(name).is_some_and(|role| roles.contains(&role))
}

/// Whether a column holds texts; without rows, as for an empty table, by its name alone.
fn may_be_text(named: Named<'_>, name: &str) -> bool {
    let is_other = is_id_name(name) || is_label_name(name) || has_role(name, &[ColumnRole::Scores]);
    let is_category = role_of(name).is_none() && named.facts(name).is_category();
    let is_written = named.facts(name).is_written() && !named.facts(name).is_written_lists();
    !is_other && !is_category && !is_written && (named.rows.is_empty() || named.facts(name).is_text())
}

/// The column with the name of a document, else the one with the longest texts; the first of equals.
fn likeliest_document<'a>(named: Named<'_>, texts: &[&'a str], has_query: bool) -> Option<&'a str> {
    let is_answer = |name: &str| has_role(name, &[ColumnRole::Positive, ColumnRole::Document]);
    let rank = |name: &str| (is_answer(name) && !is_short_answer(name), named.facts(name).mean_words());
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
        // What people call a prompt or a title is asked more often than a source or a type is.
        let is_asked = matches!(plain(name).as_str(), "title" | "prompt" | "instruction" | "topic" | "comment");
        (!facts.is_questions() && is_description(name) && !is_asked, !facts.is_questions(), facts.mean_words())
    };
    let mut query: Option<&str> = None;
    for &name in texts.iter().filter(|name| **name != document) {
        let is_better = |known: &str| {
            let ((described, question, words), (known_described, known_question, known_words)) =
                (rank(name), rank(known));
            (described, question).cmp(&(known_described, known_question)).then(words.total_cmp(&known_words)).is_lt()
        };
        if query.is_none_or(is_better) {
            query = Some(name);
        }
    }
    query
}
