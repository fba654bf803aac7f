//! Roles for columns whose roles are not clear: a proposal that is read when it is followed.

use colbert_config::ColumnRole;

use super::facts::Named;
use super::names::{is_description, is_id_name, is_label_name, is_name, role_of};

/// Longest suggestion, bytes.
const LONGEST: usize = 160;

/// Which column is the query and which the document, by their texts; `None` where no two columns hold texts.
pub(super) fn suggestion(named: Named<'_>) -> Option<String> {
    let Named { names, rows, .. } = named;
    let has_role = |name: &str, roles: &[ColumnRole]| role_of(name).is_some_and(|role| roles.contains(&role));
    // Without rows, as for an empty table, names are all there is.
    let is_text = |name: &&&str| {
        let is_other = is_id_name(name) || is_label_name(name) || has_role(name, &[ColumnRole::Scores]);
        !is_other && (rows.is_empty() || named.facts(name).is_text())
    };
    let texts: Vec<&str> = names.iter().filter(is_text).copied().collect();
    let length = |name: &str| named.facts(name).mean_words();
    let by_name = texts.iter().find(|name| has_role(name, &[ColumnRole::Query])).copied();
    let is_answer = |name: &&&str| has_role(name, &[ColumnRole::Positive, ColumnRole::Document]);
    let others: Vec<&str> = texts.iter().copied().filter(|name| Some(*name) != by_name).collect();
    let candidates: Vec<&str> =
        others.iter().copied().filter(|name| !has_role(name, &[ColumnRole::Query, ColumnRole::Negative])).collect();
    let mut document: Option<&str> = None;
    for &name in &candidates {
        // The first of equals; a name that is no weak one (`answer`) goes before length.
        let rank = |name: &str| (is_answer(&&name) && !name.eq_ignore_ascii_case("answer"), length(name));
        let is_better = |known: &str| {
            let ((strong, words), (known_strong, known_words)) = (rank(name), rank(known));
            strong.cmp(&known_strong).then(words.total_cmp(&known_words)).is_gt()
        };
        // Without rows the second column is likelier to be the document than the first.
        if document.is_none_or(|known| is_better(known) || (rows.is_empty() && by_name.is_none() && known == names[0]))
        {
            document = Some(name);
        }
    }
    let document = document?;
    let query = by_name.or_else(|| {
        let mut query: Option<&str> = None;
        for &name in others.iter().filter(|name| **name != document) {
            // A question goes before the shortest text.
            let rank = |name: &str| (!named.facts(name).is_questions(), length(name));
            let is_better = |known: &str| {
                let ((no_question, words), (known_no_question, known_words)) = (rank(name), rank(known));
                no_question.cmp(&known_no_question).then(words.total_cmp(&known_words)).is_lt()
            };
            if query.is_none_or(is_better) {
                query = Some(name);
            }
        }
        query
    })?;
    let mut parts = vec![format!("{query}=query"), format!("{document}=document")];
    for &name in names.iter().filter(|name| **name != query && **name != document) {
        let facts = named.facts(name);
        if has_role(name, &[ColumnRole::Query, ColumnRole::Positive, ColumnRole::Document]) {
            parts.push(format!("{name}=ignore"));
        } else if role_of(name).is_none() && !is_description(name) && facts.is_labels() {
            parts.push(format!("{name}=label"));
        }
    }
    let suggestion = parts.join(", ");
    let is_sayable = [query, document].iter().all(|name| {
        let is_doubled = names.iter().filter(|other| *other == name).count() > 1;
        is_name(name) && !name.contains([',', '=', '"']) && !is_doubled
    });
    // With labels that are not the expected ones, following it would end in the next refusal.
    let has_strange_labels = names.iter().any(|name| {
        let facts = named.facts(name);
        role_of(name) == Some(ColumnRole::Label) && !facts.is_empty() && !facts.holds_labels()
    });
    (is_sayable && !has_strange_labels && suggestion.len() <= LONGEST).then_some(suggestion)
}
