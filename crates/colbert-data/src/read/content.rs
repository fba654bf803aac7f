//! The kind of records that a file is searched for, and the columns that matter to it.

use colbert_config::ColumnRole;

use super::names::role_of;
use super::read_options::ReadOptions;

/// The kind of records that a file is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Training rows. A list at the start of a line is one row.
    Rows,
    /// Rows of a table, whose columns have names.
    Table,
    /// Documents. A list at the start of a file holds all of them.
    Documents,
}

impl Content {
    /// Whether a column is read before it is known which roles there are.
    pub(super) fn may_use(self, name: &str, options: &ReadOptions) -> bool {
        match (self, options.roles.get(name)) {
            (Self::Rows, Some(role)) => *role != ColumnRole::Ignore,
            (Self::Rows, None) => role_of(name).is_some() || matches!(name, "pos_scores" | "neg_scores"),
            (Self::Table | Self::Documents, _) => true,
        }
    }
}
