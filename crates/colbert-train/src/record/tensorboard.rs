//! TensorBoard event files: the numbers of a run as scalars.
//!
//! A file is a list of records: length (u64), its checksum, a protobuf message `tensorflow.Event`, its checksum;
//! checksums are CRC-32C, rotated and shifted. Of the message only what scalars need is written. Sources: tensorflow
//! `core/lib/io/record_writer.cc`, `core/util/event.proto`, `core/framework/summary.proto`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::{Message, Oneof};

use crate::error::{TrainError, io};
use crate::flow::Flow;
use crate::record::observer::{Event, Observer};

/// `tensorflow.Event`, the fields that scalars need. The step is written even if it is 0.
#[derive(Clone, PartialEq, Message)]
struct EventProto {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, optional, tag = "2")]
    step: Option<i64>,
    #[prost(oneof = "Content", tags = "3, 5, 7")]
    content: Option<Content>,
}

/// The content of an event.
#[derive(Clone, PartialEq, Oneof)]
enum Content {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

/// `tensorflow.Summary.Value`. The number is written even if it is 0.
#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `tensorflow.SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `tensorflow.SessionLog.SessionStatus.START`.
const SESSION_START: i32 = 1;

/// An observer that writes losses, learning rate, gradient norm, scores, speed and dev metrics to a folder that
/// TensorBoard reads.
#[derive(Debug)]
pub struct TensorboardLog {
    file: File,
    path: PathBuf,
    error: Option<std::io::Error>,
}

impl TensorboardLog {
    /// Starts a new file in a folder. One process writes one file; TensorBoard puts those of a folder together.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn create(folder: &Path) -> Result<Self, TrainError> {
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        // TensorBoard reads files in the order of their names.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{:010}.{:09}.ragtrainer", since.as_secs(), since.subsec_nanos());
        let path = folder.join(name);
        let file = File::create(&path).map_err(io("create", &path))?;
        let mut log = Self { file, path, error: None };
        log.record(0, Content::FileVersion("brain.Event:2".to_owned()));
        Ok(log)
    }

    /// Finishes writing, and returns the first error if there was one.
    ///
    /// # Errors
    /// That error.
    pub fn finish(self) -> Result<(), TrainError> {
        match self.error {
            None => Ok(()),
            Some(source) => Err(TrainError::Io { action: "write", path: self.path, source }),
        }
    }

    fn scalars(&mut self, step: usize, scalars: &[(String, f64)]) {
        let value = |(tag, value): &(String, f64)| SummaryValue { tag: tag.clone(), simple_value: Some(*value as f32) };
        self.record(step, Content::Summary(Summary { value: scalars.iter().map(value).collect() }));
    }

    fn record(&mut self, step: usize, content: Content) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = EventProto { wall_time: now.as_secs_f64(), step: Some(step as i64), content: Some(content) };
        let written = self.file.write_all(&framed(&event.encode_to_vec()));
        self.error = self.error.take().or(written.err());
    }
}

impl Observer for TensorboardLog {
    fn observe(&mut self, event: &Event) -> Flow {
        match event {
            Event::Resumed { step, .. } => {
                // A session that starts after this step: TensorBoard drops its records of later steps.
                let from = if *step == 0 { 0 } else { step + 1 };
                self.record(from, Content::SessionLog(SessionLog { status: SESSION_START }));
            }
            Event::Step(record) => {
                let mut scalars = vec![
                    ("train/loss".to_owned(), record.loss),
                    ("train/learning_rate".to_owned(), record.learning_rate),
                    ("train/gradient_norm".to_owned(), record.gradient_norm),
                    ("train/positive_score".to_owned(), record.positive_score),
                    ("train/negative_score".to_owned(), record.negative_score),
                    ("speed/examples_per_second".to_owned(), record.examples_per_second),
                    ("speed/tokens_per_second".to_owned(), record.tokens_per_second),
                ];
                scalars.extend(record.parts.iter().map(|(name, part)| (format!("train/loss_{name}"), *part)));
                scalars.extend(record.memory.map(|bytes| ("speed/memory_bytes".to_owned(), bytes as f64)));
                self.scalars(record.step, &scalars);
            }
            Event::Evaluated { step, evaluation, .. } => {
                let metrics = evaluation.metrics.iter();
                let scalars: Vec<_> = metrics.map(|(metric, value)| (format!("dev/{metric}"), *value)).collect();
                self.scalars(*step, &scalars);
            }
            _ => {}
        }
        // A failed log does not end a run; `finish` returns the error.
        Flow::Continue
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(message);
    record.extend(masked_crc(message).to_le_bytes());
    record
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4, and the value everybody tests with.
    #[test]
    fn checksums_are_the_published_ones() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        // tensorflow, core/lib/hash/crc32c.h: ((crc >> 15) | (crc << 17)) + 0xa282ead8; here by hand.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }

    /// The message that tensorboard's own protobuf writes for this event, without the wall time.
    #[test]
    fn a_scalar_is_encoded_as_protobuf_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = TensorboardLog::create(folder.path()).unwrap();
        log.scalars(300, &[("a".to_owned(), 1.5)]);
        let path = log.path.clone();
        log.finish().unwrap();
        let bytes = fs::read(path).unwrap();
        let first = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let record = &bytes[first + 16..];
        let length = u64::from_le_bytes(record[..8].try_into().unwrap()) as usize;
        assert_eq!(record.len(), length + 16);
        let message = &record[12..12 + length];
        assert_eq!(message[9..], [0x10, 0xac, 0x02, 0x2a, 0x0a, 0x0a, 0x08, 0x0a, 0x01, b'a', 0x15, 0, 0, 0xc0, 0x3f]);
        assert_eq!(framed(message), record);
    }
}
