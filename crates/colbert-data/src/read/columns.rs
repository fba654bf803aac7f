//! Which named column plays which role: as a person says, else as its name says, and refused where neither is clear.

use std::collections::BTreeMap;

use colbert_config::ColumnRole;

use crate::error::{DataError, Place};

/// Column names of rows that have names, each with its role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) query: String,
    pub(crate) positive: Option<String>,
    pub(crate) document: Option<String>,
    pub(crate) negatives: Vec<String>,
    pub(crate) label: Option<String>,
    pub(crate) scores: Option<String>,
    pub(crate) ignored: Vec<String>,
    /// Columns that a person gave a role that is not the one their name suggests.
    decided: Vec<String>,
}

/// Names that are understood. Sources: RAGatouille's examples, sentence-transformers (anchor), Tevatron (…_passages).
fn role_of(name: &str) -> Option<ColumnRole> {
    match name.trim().to_ascii_lowercase().as_str() {
        "query" | "question" | "anchor" => Some(ColumnRole::Query),
        "positive" | "positives" | "pos" | "positive_passages" | "answer" => Some(ColumnRole::Positive),
        "document" | "documents" | "passage" | "passages" => Some(ColumnRole::Document),
        "negative" | "negatives" | "neg" | "negative_passages" => Some(ColumnRole::Negative),
        "label" => Some(ColumnRole::Label),
        "scores" | "score" => Some(ColumnRole::Scores),
        other => other
            .strip_prefix("negative_")
            .filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
            .map(|_| ColumnRole::Negative),
    }
}

/// Whether these cells name roles, so that they are a header and not a row.
pub(crate) fn is_header(cells: &[&str]) -> bool {
    cells.len() > 1
        && cells.iter().filter(|cell| role_of(cell).is_some()).count() > 1
        && cells.iter().any(|cell| role_of(cell) == Some(ColumnRole::Query))
}

impl Columns {
    /// Gives each name its role; `roles` go before what a name suggests.
    pub(crate) fn of(names: &[&str], roles: &BTreeMap<String, ColumnRole>, place: &Place) -> Result<Self, DataError> {
        let unclear = |problem: String| DataError::Columns {
            place: place.clone(),
            problem,
            columns: listed(names),
            suggestion: suggestion(names),
        };
        if let Some(name) = roles.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(unclear(format!("data.columns names `{name}`, which is no column here")));
        }
        let with_role = |role: ColumnRole| {
            let given = names.iter().filter(|name| roles.get(**name) == Some(&role));
            let given: Vec<String> = given.map(|name| (*name).to_owned()).collect();
            if !given.is_empty() {
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
        columns.negatives.sort_by_key(|name| (number_of(name), name.clone()));
        columns.ignored = names.iter().filter(|name| !columns.uses(name)).map(|name| (*name).to_owned()).collect();
        columns.decided = columns.ignored.iter().filter(|name| role_of(name).is_some()).cloned().collect();
        if columns.query.is_empty() {
            return Err(unclear("none of the columns is the query (query, question, anchor)".to_owned()));
        }
        if columns.positive.is_none() && columns.document.is_none() {
            let wanted = "none of the columns is the positive (positive, answer) or the document (document, passage)";
            return Err(unclear(wanted.to_owned()));
        }
        Ok(columns)
    }

    /// Whether a name suggests a role.
    #[cfg(feature = "parquet")]
    pub(crate) fn knows(name: &str) -> bool {
        role_of(name).is_some()
    }

    fn uses(&self, name: &str) -> bool {
        let single = [&self.positive, &self.document, &self.label, &self.scores];
        self.query == name
            || self.negatives.iter().any(|known| known == name)
            || single.iter().any(|known| known.as_deref() == Some(name))
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
        if !self.ignored.is_empty() {
            parts.push(format!("not used: {}", self.ignored.join(", ")));
        }
        parts.join(", ")
    }
}

/// `negative_10` comes after `negative_9`.
fn number_of(name: &str) -> u64 {
    name.rsplit('_').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn in_ticks(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
}

/// Names for a message; the first line of a file without a header may hold long texts.
fn listed(names: &[&str]) -> String {
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

/// The first two columns as query and document, unless their names say otherwise.
fn suggestion(names: &[&str]) -> String {
    let query = names.iter().find(|name| role_of(name) == Some(ColumnRole::Query)).or(names.first());
    let known = |name: &&&str| matches!(role_of(name), Some(ColumnRole::Positive | ColumnRole::Document));
    let document = names.iter().find(known).or(names.iter().find(|name| Some(*name) != query));
    match (query, document) {
        (Some(query), Some(document)) if query.len() + document.len() < 80 => {
            format!("{query}=query, {document}=document")
        }
        _ => "question=query, context=document".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str], roles: &str) -> Result<Columns, DataError> {
        let roles: colbert_config::ColumnRoles = roles.parse().unwrap();
        Columns::of(names, &roles.0, &Place::Row { row: 1 })
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
        assert!(message.contains("names `titel`, which is no column here"), "{message}");
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
            (&[], &["without names"]),
        ] {
            let message = columns(names, "").unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[test]
    fn a_header_is_told_from_a_row() {
        assert!(is_header(&["Query", "Positive"]) && is_header(&["id", "query", "passage", "label"]));
        assert!(!is_header(&["query expansion", "positive"]) && !is_header(&["a question", "a passage"]));
    }
}
