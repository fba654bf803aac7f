//! Which named column plays which role.

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Query,
    Positive,
    Document,
    Negative,
    Label,
    Scores,
}

/// Names that are understood. Sources: RAGatouille's examples, sentence-transformers (anchor), Tevatron (…_passages).
fn role_of(name: &str) -> Option<Role> {
    match name.trim().to_ascii_lowercase().as_str() {
        "query" | "question" | "anchor" => Some(Role::Query),
        "positive" | "positives" | "pos" | "positive_passages" => Some(Role::Positive),
        "document" | "documents" | "passage" | "passages" => Some(Role::Document),
        "negative" | "negatives" | "neg" | "negative_passages" => Some(Role::Negative),
        "label" => Some(Role::Label),
        "scores" => Some(Role::Scores),
        other => other
            .strip_prefix("negative_")
            .filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
            .map(|_| Role::Negative),
    }
}

/// Whether every one of these cells names a role, so that they are a header and not a row.
pub(crate) fn is_header(cells: &[&str]) -> bool {
    cells.len() > 1
        && cells.iter().filter(|cell| role_of(cell).is_some()).count() > 1
        && cells.iter().any(|cell| role_of(cell) == Some(Role::Query))
}

impl Columns {
    /// Gives each name its role.
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>, place: &Place) -> Result<Self, DataError> {
        let mut columns = Self::default();
        let mut query = None;
        for name in names {
            let (role, slot) = match role_of(name) {
                None => {
                    columns.ignored.push(name.to_owned());
                    continue;
                }
                Some(Role::Negative) => {
                    columns.negatives.push(name.to_owned());
                    continue;
                }
                Some(Role::Query) => ("query", &mut query),
                Some(Role::Positive) => ("positive", &mut columns.positive),
                Some(Role::Document) => ("document", &mut columns.document),
                Some(Role::Label) => ("label", &mut columns.label),
                Some(Role::Scores) => ("scores", &mut columns.scores),
            };
            if let Some(other) = slot.replace(name.to_owned()) {
                return Err(DataError::Malformed {
                    place: place.clone(),
                    expected: format!("one column for the {role}"),
                    found: format!("`{other}` and `{name}`"),
                });
            }
        }
        let known = || columns.positive.iter().chain(&columns.document).next().is_some();
        match query {
            Some(query) if known() => Ok(Self { query, ..columns }),
            _ => Err(DataError::Malformed {
                place: place.clone(),
                expected:
                    "a column for the query (query, question, anchor) and one for the positive (positive, positives) \
                           or the document (document, passage)"
                        .to_owned(),
                found: format!("columns {}", columns.names(query.as_deref())),
            }),
        }
    }

    fn names(&self, query: Option<&str>) -> String {
        let optional = [query, self.positive.as_deref(), self.document.as_deref(), self.label.as_deref()];
        let negatives = self.negatives.iter().map(String::as_str);
        let all: Vec<_> = optional
            .into_iter()
            .flatten()
            .chain(self.scores.as_deref())
            .chain(negatives)
            .chain(self.ignored.iter().map(String::as_str))
            .collect();
        if all.is_empty() { "without names".to_owned() } else { all.join(", ") }
    }

    /// Whether a name has a role that no column of the first row had.
    pub(crate) fn is_new_role(&self, name: &str) -> bool {
        role_of(name).is_some()
            && self.query != name
            && !self.negatives.iter().any(|known| known == name)
            && ![&self.positive, &self.document, &self.label, &self.scores]
                .iter()
                .any(|known| known.as_deref() == Some(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Result<Columns, DataError> {
        Columns::of(names.iter().copied(), &Place::Row { row: 1 })
    }

    #[test]
    fn names_get_roles_and_the_rest_is_announced() {
        let found = columns(&["anchor", "positive", "negative_1", "negative_2", "source"]).unwrap();
        assert_eq!(
            found.describe(),
            "query = anchor, positive = positive, negatives = negative_1 + negative_2, not used: source"
        );
        assert!(found.is_new_role("label") && !found.is_new_role("negative_2") && !found.is_new_role("other"));
    }

    #[test]
    fn missing_and_doubled_roles_are_refused() {
        let message = columns(&["query", "texte"]).unwrap_err().to_string();
        assert!(message.contains("row 1") && message.contains("found columns query, texte"), "{message}");
        let message = columns(&["query", "question", "positive"]).unwrap_err().to_string();
        assert!(message.contains("`query` and `question`"), "{message}");
    }

    #[test]
    fn a_header_is_told_from_a_row() {
        assert!(is_header(&["Query", "Positive"]) && is_header(&["id", "query", "passage", "label"]));
        assert!(!is_header(&["query expansion", "positive"]) && !is_header(&["a question", "a passage"]));
    }
}
