//! Roles of the columns of a data file, as a person writes them: `question=query, context=document`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The role of a column of training data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ColumnRole {
    /// The query.
    Query,
    /// A document, or a list of them, that answers the query.
    Positive,
    /// A document, or a list of them, that does not.
    Negative,
    /// A document that a label or scores refer to; without them, a positive.
    Document,
    /// The label that says whether the document is a positive or a negative.
    Label,
    /// A teacher's scores, one for each document.
    Scores,
    /// Not used.
    Ignore,
}

/// Every role with the word for it.
const WORDS: [(ColumnRole, &str); 7] = [
    (ColumnRole::Query, "query"),
    (ColumnRole::Positive, "positive"),
    (ColumnRole::Negative, "negative"),
    (ColumnRole::Document, "document"),
    (ColumnRole::Label, "label"),
    (ColumnRole::Scores, "scores"),
    (ColumnRole::Ignore, "ignore"),
];

impl fmt::Display for ColumnRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(role, _)| role == self).map_or("", |(_, word)| word);
        f.pad(word)
    }
}

/// Roles given to columns by name; the columns that are not named keep the role that their name suggests.
///
/// Written as `column=role` pairs separated by commas. A name may hold an equals sign, but no comma.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnRoles(pub BTreeMap<String, ColumnRole>);

impl FromStr for ColumnRoles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut roles = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let Some((column, word)) = pair.rsplit_once('=') else {
                return Err(format!("`{pair}` has no equals sign; expected column=role"));
            };
            let (column, word) = (column.trim(), word.trim());
            let Some((role, _)) = WORDS.iter().find(|(_, known)| *known == word) else {
                let words: Vec<_> = WORDS.iter().map(|(_, word)| *word).collect();
                return Err(format!("`{word}` is not a role; expected one of {}", words.join(", ")));
            };
            if roles.insert(column.to_owned(), *role).is_some() {
                return Err(format!("column `{column}` has two roles"));
            }
        }
        Ok(Self(roles))
    }
}

impl fmt::Display for ColumnRoles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (column, role)) in self.0.iter().enumerate() {
            write!(f, "{}{column}={role}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Serialize for ColumnRoles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnRoles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_written_alike() {
        let text = "a=b=ignore, context=document, question=query";
        let roles: ColumnRoles = text.parse().unwrap();
        assert_eq!(roles.0["a=b"], ColumnRole::Ignore);
        assert_eq!(roles.to_string(), text);
        assert_eq!("".parse::<ColumnRoles>().unwrap(), ColumnRoles::default());
        assert_eq!(
            serde_json::from_str::<ColumnRoles>("\" question = query ,\"").unwrap().to_string(),
            "question=query"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("question", "no equals sign"),
            ("question=frage", "`frage` is not a role; expected one of query, positive"),
            ("a=query,a=label", "`a` has two roles"),
        ] {
            let message = text.parse::<ColumnRoles>().unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
