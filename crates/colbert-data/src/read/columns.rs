//! The roles of named columns: as the user says, else as the name suggests; refused if that is not clear or the content
//! contradicts it.

use std::fmt::Display;

use colbert_config::ColumnRole;

use super::facts::Named;
use super::names::{
    is_description, is_grade_name, is_id_name, is_name, is_rival, is_score_name, is_short_answer, is_some_label,
    number_of, role_of,
};
use super::suggestion::suggestion;
use crate::error::{DataError, Place};
use crate::raw::labels::Labels;

/// Column names of rows that have names, each with its role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) query: String,
    pub(crate) positive: Option<String>,
    pub(crate) document: Option<String>,
    pub(crate) negatives: Vec<String>,
    pub(crate) label: Option<String>,
    /// The label is a grade of relevance, as in judgements: above 0 is a positive.
    pub(crate) is_graded: bool,
    pub(crate) scores: Option<String>,
    /// Scores of the positives and of the negatives, if they are in two columns (FlagEmbedding).
    pub(crate) split_scores: Option<[String; 2]>,
    /// Columns whose cells are lists written as text.
    pub(crate) lists: Vec<String>,
    pub(crate) ignored: Vec<String>,
    /// Unused columns whose names suggest a role, as the user decided otherwise.
    decided: Vec<String>,
}

impl Columns {
    /// Assigns a role to each name; roles that the user gave override those that a name suggests.
    pub(super) fn of(named: Named<'_>, place: &Place) -> Result<Self, DataError> {
        let Named { names, roles, .. } = named;
        let unclear = |problem: String| DataError::Columns {
            place: place.clone(),
            problem,
            columns: listed(names),
            suggestion: suggestion(named),
        };
        if let Some(name) = roles.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(unclear(format!("data.columns names `{name}`, but there is no such column")));
        }
        let is_given = |role: ColumnRole| names.iter().any(|name| roles.get(*name) == Some(&role));
        // A user who names the positive or the document has said which texts answer.
        let answers = is_given(ColumnRole::Positive) || is_given(ColumnRole::Document);
        let with_role = |role: ColumnRole| -> Vec<String> {
            let given = names.iter().filter(|name| roles.get(**name) == Some(&role));
            let given: Vec<String> = given.map(|name| (*name).to_owned()).collect();
            let is_answer = matches!(role, ColumnRole::Positive | ColumnRole::Document);
            if !given.is_empty() || (is_answer && answers) {
                return given;
            }
            let suggested = names.iter().filter(|name| !roles.contains_key(**name) && role_of(name) == Some(role));
            suggested.map(|name| (*name).to_owned()).collect()
        };
        let one = |role: ColumnRole| {
            let found = with_role(role);
            match found.len() {
                0 | 1 => Ok(found.into_iter().next()),
                _ => Err(unclear(format!("{} could each be the {role}", in_ticks(&found)))),
            }
        };
        let mut columns = Self {
            query: one(ColumnRole::Query)?.unwrap_or_default(),
            positive: one(ColumnRole::Positive)?,
            document: one(ColumnRole::Document)?,
            negatives: with_role(ColumnRole::Negative),
            label: one(ColumnRole::Label)?,
            scores: one(ColumnRole::Scores)?,
            ..Self::default()
        };
        let split = ["pos_scores", "neg_scores"];
        if columns.scores.is_none()
            && split
                .iter()
                .all(|name| names.contains(name) && !roles.contains_key(*name) && !named.facts(name).is_empty())
        {
            columns.split_scores = Some(split.map(str::to_owned));
        }
        columns.is_graded = columns.label.as_ref().is_some_and(|name| {
            *named.labels == Labels::default() && is_grade_name(name) && named.facts(name).is_grades()
        });
        columns.lists = columns.texts().filter(|name| named.facts(name).is_written_lists()).cloned().collect();
        columns.negatives.sort_by_key(|name| (number_of(name), name.clone()));
        columns.ignored = names.iter().filter(|name| !columns.uses(name)).map(|name| (*name).to_owned()).collect();
        columns.decided = columns.ignored.iter().filter(|name| role_of(name).is_some()).cloned().collect();
        match columns.doubt(named, answers) {
            Some(problem) => Err(unclear(problem)),
            None => Ok(columns),
        }
    }

    /// The reason why the roles are not clear, if they are not.
    fn doubt(&self, named: Named<'_>, answers: bool) -> Option<String> {
        self.ids_for_texts(named)
            .or_else(|| self.written_objects(named))
            .or_else(|| self.no_query(named))
            .or_else(|| self.doubled_name(named))
            .or_else(|| self.unclear_positive(named, answers))
            .or_else(|| self.unused_label(named))
            .or_else(|| self.unused_score(named))
            .or_else(|| self.cells_of_ids(named))
    }

    /// Columns are named as ids, and the texts are in none.
    fn ids_for_texts(&self, named: Named<'_>) -> Option<String> {
        let lacks_texts = self.query.is_empty() || (self.positive.is_none() && self.document.is_none());
        let ids: Vec<&str> = named.names.iter().copied().filter(|name| is_id_name(name) && !name.is_empty()).collect();
        let texts = named.names.iter().filter(|name| named.facts(name).is_text()).count();
        (lacks_texts && ids.len() > 1 && texts < 2)
            .then(|| format!("{} are ids, not texts; {WHERE_TEXTS_ARE}", in_ticks(&ids)))
    }

    /// Cells hold objects that are written as text, or lists where one text is needed.
    fn written_objects(&self, named: Named<'_>) -> Option<String> {
        let is_list = |name: &str| self.lists.iter().any(|list| list == name);
        let mut texts = self.texts().filter(|name| named.facts(name).is_written());
        let name = texts.find(|name| **name == self.query || !is_list(name))?;
        Some(format!(
            "the cells of `{name}` are {} written as text; write the rows as JSONL, where they are what they are",
            if is_list(name) { "lists" } else { "objects" }
        ))
    }

    /// Columns that texts are read from.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let single = [Some(&self.query), self.positive.as_ref(), self.document.as_ref()];
        single.into_iter().flatten().chain(&self.negatives)
    }

    fn no_query(&self, named: Named<'_>) -> Option<String> {
        if !self.query.is_empty() {
            return None;
        }
        let names = named.names;
        let ids: Vec<&str> = names.iter().copied().filter(|name| named.facts(name).is_ids()).collect();
        if !ids.is_empty() && !names.iter().any(|name| named.facts(name).is_text()) {
            return Some(format!("the cells of {} are ids or numbers, not texts; {WHERE_TEXTS_ARE}", in_ticks(&ids)));
        }
        let is_row = names.len() > 1 && !names.iter().any(|name| is_name(name));
        let hint = match (is_row, named.has_header) {
            (true, true) => "; the first line looks like a row, not like a header: put the names above it",
            (true, false) => {
                "; the names look like texts: write each row as an object such as {\"query\": ..., \"positive\": ...}"
            }
            (false, _) => "",
        };
        Some(format!("none of the columns is the query (query, question, anchor){hint}"))
    }

    fn doubled_name(&self, named: Named<'_>) -> Option<String> {
        let names = named.names;
        let is_doubled = |name: &&&str| names.iter().filter(|other| **other == **name).count() > 1 && self.uses(name);
        names.iter().find(is_doubled).map(|name| format!("`{name}` is the name of several columns"))
    }

    /// None of the columns is the positive, or several may be.
    fn unclear_positive(&self, named: Named<'_>, answers: bool) -> Option<String> {
        match (&self.positive, &self.document) {
            (None, None) => {
                let rivals: Vec<&str> = self.free(named).filter(|name| is_rival(name)).collect();
                Some(if rivals.len() > 1 {
                    format!("{} could each be the positive", in_ticks(&rivals))
                } else {
                    "none of the columns is the positive (positive, answer) or the document (document, passage)"
                        .to_owned()
                })
            }
            (Some(positive), Some(document)) if !answers => {
                Some(format!("`{positive}` and `{document}` could each be the positive"))
            }
            (Some(positive), None) if !answers && is_short_answer(positive) => {
                let own = named.facts(positive).mean_words();
                let may_be_it = |name: &&str| {
                    let facts = named.facts(name);
                    let is_longer = facts.is_text() && facts.mean_words() > own.max(4.0) && !is_description(name);
                    is_rival(name) || is_longer
                };
                let all: Vec<&str> =
                    std::iter::once(positive.as_str()).chain(self.free(named).filter(may_be_it)).collect();
                (all.len() > 1).then(|| format!("{} could each be the positive", in_ticks(&all)))
            }
            _ => None,
        }
    }

    /// A column of labels that would be ignored, though nothing else says which documents are positives.
    fn unused_label(&self, named: Named<'_>) -> Option<String> {
        if self.label.is_some() || self.scores.is_some() || !self.negatives.is_empty() {
            return None;
        }
        let mut free = self.free(named).filter(|name| !is_id_name(name));
        let is_classes = |name: &str| is_some_label(name) && !named.facts(name).is_empty();
        let name = free.find(|name| named.facts(name).is_labels() || is_classes(name))?;
        Some(if named.facts(name).is_labels() {
            format!(
                "`{name}` holds nothing but labels, so it may say which documents are positives ({name}=label, or \
                 {name}=ignore)"
            )
        } else {
            format!(
                "`{name}` is called a label and holds other values than 0 and 1, so it may say which documents are \
                 positives; keep the rows of those alone and set {name}=ignore"
            )
        })
    }

    /// A column of scores that would be ignored, though nothing else says how relevant the documents are.
    fn unused_score(&self, named: Named<'_>) -> Option<String> {
        let says_more = self.scores.is_some() || self.split_scores.is_some() || !self.negatives.is_empty();
        if self.label.is_some() || says_more {
            return None;
        }
        let is_score = |name: &&str| is_score_name(name) && named.facts(name).is_numbers();
        let name = self.free(named).find(|name| is_score(name) && named.facts(name).distinct() > 1)?;
        Some(format!(
            "`{name}` holds numbers that may say how relevant a document is ({name}=scores, of a teacher; or keep the \
             rows of relevant documents and set {name}=ignore)"
        ))
    }

    /// Columns are named as texts, and hold ids.
    fn cells_of_ids(&self, named: Named<'_>) -> Option<String> {
        let texts = [Some(&self.query), self.positive.as_ref(), self.document.as_ref()];
        let open: Vec<&String> = texts.into_iter().flatten().filter(|name| !named.roles.contains_key(*name)).collect();
        let is_pair_of_ids = open.len() > 1 && open.iter().all(|name| named.facts(name).may_be_ids());
        let negatives = self.negatives.iter().filter(|name| !named.roles.contains_key(*name));
        open.into_iter()
            .chain(negatives)
            .find(|name| is_pair_of_ids || named.facts(name).is_ids())
            .map(|name| format!("the cells of `{name}` are ids or numbers, not texts; {WHERE_TEXTS_ARE}"))
    }

    /// Names of columns that are not used and that the user has not decided about.
    fn free<'a>(&self, named: Named<'a>) -> impl Iterator<Item = &'a str> {
        let is_ignored = |name: &str| self.ignored.iter().any(|ignored| ignored == name);
        named.names.iter().copied().filter(move |name| is_ignored(name) && !named.roles.contains_key(*name))
    }

    fn uses(&self, name: &str) -> bool {
        let single = [&self.positive, &self.document, &self.label, &self.scores];
        self.query == name
            || self.negatives.iter().any(|known| known == name)
            || single.iter().any(|known| known.as_deref() == Some(name))
            || self.split_scores.iter().flatten().any(|known| known == name)
    }

    /// Whether rows are read from this column.
    pub(crate) fn reads(&self, name: &str) -> bool {
        self.uses(name)
    }

    /// Whether a name has a role that no column of the first row had.
    pub(crate) fn is_new_role(&self, name: &str) -> bool {
        role_of(name).is_some() && !self.uses(name) && !self.decided.iter().any(|known| known == name)
    }

    /// `role = column`, for the announcement.
    pub(crate) fn describe(&self) -> String {
        let mut parts = vec![format!("query = {}", self.query)];
        let optional = [
            ("positive", &self.positive),
            ("document", &self.document),
            ("label", &self.label),
            ("teacher scores", &self.scores),
        ];
        for (role, column) in optional {
            parts.extend(column.iter().map(|column| format!("{role} = {column}")));
        }
        if !self.negatives.is_empty() {
            parts.push(format!("negatives = {}", self.negatives.join(" + ")));
        }
        if let Some(scores) = &self.split_scores {
            parts.push(format!("teacher scores = {}", scores.join(" + ")));
        }
        if !self.ignored.is_empty() {
            parts.push(format!("not used: {}", self.ignored.join(", ")));
        }
        parts.join(", ")
    }
}

/// Where texts are expected when ids are found.
pub(super) const WHERE_TEXTS_ARE: &str = "texts are read from a BEIR folder (corpus.jsonl, queries.jsonl, qrels/), or from \
     a folder with the reference's three files or PyLate's three tables: name that folder";

pub(super) fn in_ticks(names: &[impl Display]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
}

/// Names for a message; the first line of a file without a header may hold long texts.
pub(super) fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        return "without names".to_owned();
    }
    let short = |name: &&str| match name.char_indices().nth(40) {
        Some((end, _)) => format!("`{}...`", &name[..end]),
        None => format!("`{name}`"),
    };
    let more = if names.len() > 12 { format!(" and {} more", names.len() - 12) } else { String::new() };
    names.iter().take(12).map(short).collect::<Vec<_>>().join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str], roles: &str) -> Result<Columns, DataError> {
        let roles: colbert_config::ColumnRoles = roles.parse().unwrap();
        let named = Named { names, rows: &[], labels: &Labels::default(), roles: &roles.0, has_header: true };
        Columns::of(named, &Place::Row { row: 1 })
    }

    #[test]
    fn names_get_roles_and_the_rest_is_announced() {
        let found = columns(&["anchor", "positive", "negative_10", "negative_9", "source"], "").unwrap();
        assert_eq!(
            found.describe(),
            "query = anchor, positive = positive, negatives = negative_9 + negative_10, not used: source"
        );
        assert!(found.is_new_role("label") && !found.is_new_role("negative_9") && !found.is_new_role("other"));
    }

    #[test]
    fn a_role_given_by_a_person_goes_before_the_one_a_name_suggests() {
        let names = ["query", "question", "answer", "context"];
        let found = columns(&names, "question=query, context=document, answer=ignore").unwrap();
        assert_eq!(found.describe(), "query = question, document = context, not used: query, answer");
        assert!(!found.is_new_role("query") && !found.is_new_role("answer") && found.is_new_role("positive"));
        let message = columns(&names, "titel=query").unwrap_err().to_string();
        assert!(message.contains("names `titel`, but there is no such column"), "{message}");
    }

    #[test]
    fn missing_and_doubled_roles_are_refused() {
        for (names, parts) in [
            (
                &["query", "texte"][..],
                &["row 1", "none of the columns is the positive", "`query`, `texte`", "query=query, texte=document"][..],
            ),
            (
                &["query", "question", "positive"],
                &[
                    "`query` and `question` could each be the query",
                    "the columns are",
                    "query=query, positive=document",
                ],
            ),
            (
                &["frage", "antwort"],
                &["none of the columns is the query", "frage=query, antwort=document", "roles: query"],
            ),
            (&["question", "answer", "positive"], &["`answer` and `positive` could each be the positive"]),
            (&["question", "Gold Answer", "context"], &["`Gold Answer` and `context` could each be the positive"]),
            (&[], &["without names"]),
        ] {
            let message = columns(names, "").unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
