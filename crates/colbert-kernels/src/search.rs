//! Exact search on the CPU: stored token vectors against packed queries, one thread at a time.

pub(crate) mod packed_queries;
pub(crate) mod vector_format;
