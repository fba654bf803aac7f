//! Traces of a run for people: records, reports, model cards.

pub(crate) mod card;
pub(crate) mod chart;
pub(crate) mod compatibility;
pub(crate) mod data_page;
pub(crate) mod page;
pub(crate) mod report;
pub(crate) mod run_record;
