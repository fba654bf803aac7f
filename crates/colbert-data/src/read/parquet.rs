//! Parquet files, checked page by page before they are decoded.

#[cfg(feature = "parquet")]
pub(crate) mod pages;
#[cfg(feature = "parquet")]
pub(crate) mod records;
#[cfg(feature = "parquet")]
pub(crate) mod thrift;
#[cfg(feature = "parquet")]
mod zstandard;
