//! Log records of the libraries, printed to standard error as RAGTRAINER_LOG asks for.

use std::env;
use std::io;

use anyhow::{Context, anyhow, bail};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const VARIABLE: &str = "RAGTRAINER_LOG";

/// Prints log records from now on: warnings, or what the variable asks for, such as `debug` or
/// `colbert_data=debug,warn`.
pub(crate) fn install() -> anyhow::Result<()> {
    let targets = match env::var(VARIABLE) {
        Err(env::VarError::NotPresent) => Targets::new().with_default(LevelFilter::WARN),
        Err(env::VarError::NotUnicode(value)) => bail!("{VARIABLE} is {value:?}, expected Unicode text"),
        Ok(value) => value.parse().map_err(|_| {
            anyhow!("{VARIABLE} is \"{value}\", expected off, error, warn, info, debug, trace, or such as colbert_data=debug,warn")
        })?,
    };
    let records = fmt::layer().with_writer(io::stderr).without_time();
    tracing_subscriber::registry().with(records).with(targets).try_init().context("cannot print records")
}
