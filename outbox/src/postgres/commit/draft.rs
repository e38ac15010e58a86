//! The builder of the one statement that applies a folded batch.

use super::super::{
    open::OpenSchema,
    sql::{Sql, Texts},
    text::escape,
};
use sagabus_core::Owner;

/// The parts, arguments and checks of a statement.
pub(super) struct StatementBuilder<'a> {
    pub(super) inner: &'a OpenSchema,
    pub(super) owner: &'a Owner,
    /// Ids that a queue has taken before are skipped; otherwise they fail the statement.
    pub(super) repeats: bool,
    pub(super) sql: Sql,
    /// `name as (…)`
    pub(super) parts: Vec<String>,
    /// What must be true.
    pub(super) checks: Vec<String>,
}

impl<'a> StatementBuilder<'a> {
    pub(super) fn new(inner: &'a OpenSchema, owner: &'a Owner, repeats: bool) -> Self {
        Self { inner, owner, repeats, sql: Sql::default(), parts: Vec::new(), checks: Vec::new() }
    }

    /// The statement, if it has a part: `ids` and `blocked` are what it answers beside its check.
    pub(super) fn finish(mut self, ids: &str, blocked: &str) -> Option<Sql> {
        if self.parts.is_empty() {
            return None;
        }
        let check = match self.checks.as_slice() {
            [] => "1".to_owned(),
            checks => format!("1/(case when {} then 1 else 0 end)", checks.join(" and ")),
        };
        self.sql.text = format!("with {} select {check},{ids},{blocked}", self.parts.join(","));
        Some(self.sql)
    }

    /// A part that has to touch exactly so many rows.
    pub(super) fn counted(&mut self, name: &str, part: String, count: usize) {
        let count = self.sql.bind(i64::try_from(count).unwrap_or(i64::MAX));
        self.checks.push(format!("(select count(*) from {name})={count}"));
        self.parts.push(format!("{name} as ({part})"));
    }

    pub(super) fn part(&mut self, name: &str, part: String) {
        self.parts.push(format!("{name} as ({part})"));
    }

    pub(super) fn texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> String {
        self.sql.bind(texts.map(escape).collect::<Texts<'t>>())
    }

    pub(super) fn maybe_texts<'t>(&mut self, texts: impl Iterator<Item = Option<&'t str>>) -> String {
        self.sql.bind(texts.map(|text| text.map(escape)).collect::<Vec<_>>())
    }

    pub(super) fn table(&self, name: &str) -> String {
        format!("{}{name}", self.inner.s)
    }
}
