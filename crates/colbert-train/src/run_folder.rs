//! The folder of a run: what is in it, and that it never holds two runs.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use colbert_config::Plan;

use crate::checkpoint::{io, write_synced};
use crate::error::TrainError;
use crate::observer::{Event, Flow, Observer};

/// `plan.json`, `plan.txt`, `metrics.jsonl`, `checkpoints/`, and the model directories `best/` and `last/`.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Whether a new run may go into the folder: true if an old one would have to go first. Changes nothing.
    ///
    /// # Errors
    /// It holds a run already and `overwrite` is false, or it holds something else.
    pub fn check(path: &Path, overwrite: bool) -> Result<bool, TrainError> {
        let occupied = path.exists() && fs::read_dir(path).map_err(io("list", path))?.next().is_some();
        if occupied && !path.join("plan.json").exists() {
            return Err(TrainError::NotARun { path: path.to_owned() });
        }
        if occupied && !overwrite {
            return Err(TrainError::RunExists { path: path.to_owned() });
        }
        Ok(occupied)
    }

    /// Makes the folder ready for a new run. An old run is removed only if `overwrite` says so.
    ///
    /// # Errors
    /// As [`RunFolder::check`], or the disk refuses.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, TrainError> {
        if Self::check(path, overwrite)? {
            fs::remove_dir_all(path).map_err(io("remove", path))?;
        }
        fs::create_dir_all(path).map_err(io("create", path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Writes the plan, in words and as JSON.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write_plan(&self, plan: &Plan) -> Result<(), TrainError> {
        let json = serde_json::to_string_pretty(plan).expect("a plan has a JSON form");
        // plan.json marks the folder as a run, so it comes first.
        write_synced(&self.path.join("plan.json"), json.as_bytes())?;
        write_synced(&self.path.join("plan.txt"), format!("{plan}\n").as_bytes())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where checkpoints go.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Model directory of the best model.
    pub fn best(&self) -> PathBuf {
        self.path.join("best")
    }

    /// Model directory of the last model.
    pub fn last(&self) -> PathBuf {
        self.path.join("last")
    }

    /// An observer that writes every event but progress as a line of `metrics.jsonl`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn metrics_log(&self) -> Result<MetricsLog, TrainError> {
        let path = self.path.join("metrics.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io("open", &path))?;
        Ok(MetricsLog { file, path, error: None })
    }
}

/// Writes events to `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
    error: Option<std::io::Error>,
}

impl MetricsLog {
    /// The first error in writing, if there was one.
    ///
    /// # Errors
    /// That error.
    pub fn finish(self) -> Result<(), TrainError> {
        match self.error {
            None => Ok(()),
            Some(source) => Err(TrainError::Io { action: "write", path: self.path, source }),
        }
    }
}

impl Observer for MetricsLog {
    fn observe(&mut self, event: &Event) -> Flow {
        if matches!(event, Event::Evaluating { .. }) || self.error.is_some() {
            return Flow::Continue;
        }
        let mut line = serde_json::to_string(event).expect("events have a JSON form");
        line.push('\n');
        match self.file.write_all(line.as_bytes()) {
            Ok(()) => Flow::Continue,
            Err(error) => {
                // A full disk: better to end with the last checkpoint than to train on without a record.
                self.error = Some(error);
                Flow::Stop
            }
        }
    }
}
