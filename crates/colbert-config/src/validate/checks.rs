//! Ranges of a number, each as an error that names the option, its range and a way out.

use std::fmt::Display;

use crate::error::ConfigError;

pub(super) fn check(
    field: &'static str,
    found: impl Display,
    fine: bool,
    expected: &str,
    advice: &str,
) -> Result<(), ConfigError> {
    if fine {
        return Ok(());
    }
    let (found, expected, advice) = (found.to_string(), expected.to_owned(), advice.to_owned());
    Err(ConfigError::OutOfRange { field, found, expected, advice })
}

pub(super) fn at_least(field: &'static str, found: usize, least: usize, advice: &str) -> Result<(), ConfigError> {
    check(field, found, found >= least, &format!("{least} or more"), advice)
}

pub(super) fn positive(field: &'static str, found: f64, advice: &str) -> Result<(), ConfigError> {
    check(field, found, found.is_finite() && found > 0.0, "a finite number above 0", advice)
}

pub(super) fn not_negative(field: &'static str, found: f64, advice: &str) -> Result<(), ConfigError> {
    check(field, found, found.is_finite() && found >= 0.0, "a finite number, 0 or more", advice)
}
