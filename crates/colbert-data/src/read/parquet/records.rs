//! Rows of a Parquet file, one at a time; memory holds a page of each column. Columns that play no role are not read.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use super::pages::CheckedFile;
use crate::error::{DataError, Place};

/// Rows of a Parquet file.
pub(crate) struct ParquetRecords {
    rows: RowIter<'static>,
    path: PathBuf,
    header: Vec<String>,
    unread: Vec<String>,
    number: u64,
}

impl std::fmt::Debug for ParquetRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetRecords").field("path", &self.path).field("number", &self.number).finish_non_exhaustive()
    }
}

impl ParquetRecords {
    pub(crate) fn open(path: &Path, is_used: &dyn Fn(&str) -> bool) -> Result<Self, DataError> {
        File::open(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        let reader = guarded(path, 0, || CheckedFile::open(path))?;
        let schema = reader.metadata().file_metadata().schema().clone();
        let header: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
        let fields: Vec<_> = schema.get_fields().iter().filter(|field| is_used(field.name())).cloned().collect();
        let unread: Vec<String> = header.iter().filter(|name| !is_used(name)).cloned().collect();
        let rows = guarded(path, 0, || {
            let rows = RowIter::from_file_into(Box::new(reader));
            // Without a single column there would be no rows to complain about.
            if fields.is_empty() {
                return Ok(rows);
            }
            rows.project(Some(Type::group_type_builder(schema.name()).with_fields(fields).build()?))
        })?;
        Ok(Self { rows, path: path.to_owned(), header, unread, number: 0 })
    }

    pub(crate) fn next(&mut self) -> Result<Option<Value>, DataError> {
        self.number += 1;
        let Some(row) = guarded(&self.path, self.number, || self.rows.next().transpose())? else { return Ok(None) };
        let mut fields = object(&row);
        fields.extend(self.unread.iter().map(|name| (name.clone(), Value::Null)));
        Ok(Some(Value::Object(fields)))
    }

    pub(crate) fn place(&self) -> Place {
        Place::Record { path: self.path.clone(), record: self.number }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn header(&self) -> &[String] {
        &self.header
    }
}

/// The decoder's errors with the place; some damage makes it panic, and that is an error of the file too.
fn guarded<T>(path: &Path, record: u64, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let reason = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(read)) => return Ok(read),
        Ok(Err(ParquetError::NYI(what))) => {
            let advice = "write it with another codec (Snappy, say) or type";
            let what = format!("Parquet with {}", start_of(&what));
            return Err(DataError::Unsupported { path: path.to_owned(), what, advice: advice.to_owned() });
        }
        Ok(Err(error)) => start_of(&error.to_string()),
        Err(_) => "the decoder gave up".to_owned(),
    };
    let source = if record == 0 { reason } else { format!("at record {record}: {reason}") };
    Err(DataError::Damaged { path: path.to_owned(), what: "Parquet", source: source.into() })
}

/// Messages may hold whole texts.
fn start_of(message: &str) -> String {
    message.chars().take(200).collect()
}

fn object(row: &Row) -> Map<String, Value> {
    row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => Value::Bool(*truth),
        Field::Byte(number) => Value::from(*number),
        Field::Short(number) => Value::from(*number),
        Field::Int(number) => Value::from(*number),
        Field::Long(number) => Value::from(*number),
        Field::UByte(number) => Value::from(*number),
        Field::UShort(number) => Value::from(*number),
        Field::UInt(number) => Value::from(*number),
        Field::ULong(number) => Value::from(*number),
        Field::Float16(number) => float(f64::from(f32::from(*number))),
        Field::Float(number) => float(f64::from(*number)),
        Field::Double(number) => float(*number),
        Field::Str(text) => Value::String(text.clone()),
        // Some writers do not mark texts as such.
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::Null,
        },
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(value).collect()),
        other => Value::String(other.to_string()),
    }
}

/// JSON has no NaN; as a text it is refused where a number is needed, and named.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
}
