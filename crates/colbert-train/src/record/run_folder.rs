//! The folder of a run: its files, and the guarantee that it never holds two runs or is used by two processes.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colbert_config::durable::{is_leftover, remove_leftovers, replace_file};
use colbert_config::{Options, Plan};
use serde_json::Value;

use crate::error::{TrainError, io};
use crate::flow::Flow;
use crate::record::observer::{Event, Observer};

/// The file that a process in the folder locks; the lock ends with the process, however that ends.
const LOCK: &str = ".lock";

/// The file that marks a folder as a run. It is written first and removed last.
const MARK: &str = ".ragtrainer-run";

/// Beginning of the mark, by which it is recognised.
const MARK_BEGINNING: &str = "A run of ragtrainer.";

/// Content of the mark.
const MARK_TEXT: &str =
    "A run of ragtrainer. `train --overwrite` may remove the files of a run in this folder, and only those.\n";

const OPTIONS: &str = "options.json";

const PLAN: &str = "plan.json";

/// Names of everything that a run writes into its folder, besides the names of `is_numbered`.
const WRITTEN: [&str; 18] = [
    LOCK,
    MARK,
    OPTIONS,
    PLAN,
    "plan.txt",
    "data.txt",
    "data_report.json",
    "data_report.html",
    "prepared.json",
    "metrics.jsonl",
    "outcome.json",
    "queries.json",
    "explanations.json",
    "report.html",
    "checkpoints",
    "negatives",
    "best",
    "last",
];

/// `options.json`, `plan.json`, `plan.txt`, `metrics.jsonl`, `outcome.json`, `checkpoints/`, `tensorboard/`, and the
/// model directories `best/` and `last/`. While this value or a clone of it lives, no process of another run can use
/// the folder.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    /// None if another process of the run holds it.
    _lock: Option<Arc<File>>,
}

impl RunFolder {
    /// Checks that a new run may use the folder; returns true if an old run would have to be removed first. Changes
    /// nothing.
    ///
    /// # Errors
    /// It holds a run already and `overwrite` is false, it holds something else, or another process is at work in it.
    pub fn check(path: &Path, overwrite: bool) -> Result<bool, TrainError> {
        let occupied = Self::check_files(path, overwrite)?;
        if path.join(LOCK).exists() {
            lock(path)?;
        }
        Ok(occupied)
    }

    fn check_files(path: &Path, overwrite: bool) -> Result<bool, TrainError> {
        let mut occupied = false;
        if path.exists() {
            for entry in fs::read_dir(path).map_err(io("list", path))? {
                let name = entry.map_err(io("list", path))?.file_name();
                // A process that was killed before it wrote its first file leaves these.
                let begun = name == LOCK || name == MARK || name.to_str().is_some_and(is_leftover);
                occupied |= !begun;
            }
        }
        if occupied && !is_run(path) {
            return Err(TrainError::NotARun { path: path.to_owned() });
        }
        if occupied && !overwrite {
            return Err(TrainError::RunExists { path: path.to_owned() });
        }
        if occupied && let Some(foreign) = foreign(path)? {
            return Err(TrainError::ForeignFile { path: path.to_owned(), foreign });
        }
        Ok(occupied)
    }

    /// Returns whether the folder holds a run.
    #[must_use]
    pub fn is_run(path: &Path) -> bool {
        is_run(path)
    }

    /// Makes the folder ready for a new run. An old run is removed only if `overwrite` is set.
    ///
    /// # Errors
    /// As [`RunFolder::check`], another process is at work in it, or the disk refuses.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, TrainError> {
        Self::check(path, overwrite)?;
        fs::create_dir_all(path).map_err(io("create", path))?;
        let lock = lock(path)?;
        // Another process may have been faster.
        if Self::check_files(path, overwrite)? {
            // The mark is removed last, so that the rest of an interrupted removal can still be overwritten.
            replace_file(&path.join(MARK), MARK_TEXT.as_bytes()).map_err(io("write", path))?;
            let mut old = Vec::new();
            for entry in fs::read_dir(path).map_err(io("list", path))? {
                old.push(entry.map_err(io("list", path))?.path());
            }
            old.retain(|path| path.file_name().is_some_and(|name| name != LOCK && name != MARK));
            for path in old {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(io("remove", &path))?;
            }
        }
        replace_file(&path.join(MARK), MARK_TEXT.as_bytes()).map_err(io("write", path))?;
        Ok(Self { path: path.to_owned(), _lock: Some(Arc::new(lock)) })
    }

    /// Opens the folder of a run to resume it, and removes what a killed process left half-written.
    ///
    /// # Errors
    /// There is no run in it, another process is at work in it, or the disk refuses.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        if !is_run(path) {
            return Err(TrainError::NoRun { path: path.to_owned() });
        }
        let lock = lock(path)?;
        remove_leftovers(path).map_err(io("clean", path))?;
        Ok(Self { path: path.to_owned(), _lock: Some(Arc::new(lock)) })
    }

    /// Opens, for reading, the folder of a run that another process of the same run has opened.
    ///
    /// # Errors
    /// There is no run in it.
    pub fn of_another_process(path: &Path) -> Result<Self, TrainError> {
        if is_run(path) {
            Ok(Self { path: path.to_owned(), _lock: None })
        } else {
            Err(TrainError::NoRun { path: path.to_owned() })
        }
    }

    /// Writes the plan, in words and as JSON.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write_plan(&self, plan: &Plan) -> Result<(), TrainError> {
        let json = serde_json::to_string_pretty(plan).expect("a plan has a JSON form");
        self.write(PLAN, json.as_bytes())?;
        self.write("plan.txt", format!("{plan}\n").as_bytes())
    }

    /// Puts a file into the folder, in place of an older one if there is one: at any moment the old or the new is
    /// there.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
        let path = self.path.join(name);
        replace_file(&path, bytes).map_err(io("write", &path))
    }

    /// Returns the folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file of the run's options, if it was started with any.
    pub fn options(path: &Path) -> PathBuf {
        path.join(OPTIONS)
    }

    /// Returns the folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Returns the model directory of the best model.
    pub fn best(&self) -> PathBuf {
        self.path.join("best")
    }

    /// Returns the model directory of the last model.
    pub fn last(&self) -> PathBuf {
        self.path.join("last")
    }

    /// Returns the folder of TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// Creates an observer that writes every event but progress as a line of `metrics.jsonl`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn metrics_log(&self) -> Result<MetricsLog, TrainError> {
        let path = self.path.join("metrics.jsonl");
        let file = open(&path).map_err(io("open", &path))?;
        Ok(MetricsLog { file, path, error: None })
    }
}

/// Returns whether the folder holds a run: by its mark, or, for runs older than that, by options or a plan that are
/// ours.
fn is_run(path: &Path) -> bool {
    let text = |name| fs::read_to_string(path.join(name)).unwrap_or_default();
    let options = || {
        // Every option has a default, so that nearly any object would parse.
        let whole = |json: &Value| {
            ["pretrained_model_name", "data", "negatives", "train"].iter().all(|key| json.get(key).is_some())
        };
        serde_json::from_str::<Value>(&text(OPTIONS))
            .is_ok_and(|json| whole(&json) && serde_json::from_value::<Options>(json).is_ok())
    };
    text(MARK).starts_with(MARK_BEGINNING) || options() || serde_json::from_str::<Plan>(&text(PLAN)).is_ok()
}

/// Finds the first entry in the folder of a run that a run does not write.
fn foreign(folder: &Path) -> Result<Option<PathBuf>, TrainError> {
    type IsOurs = fn(&str) -> bool;
    let inside: [(PathBuf, IsOurs); 4] = [
        (folder.to_owned(), |name| {
            WRITTEN.contains(&name) || name == "tensorboard" || is_numbered(name, "nonfinite-", "")
        }),
        (folder.join("checkpoints"), |name| is_numbered(name, "step-", "")),
        (folder.join("negatives"), |name| is_numbered(name, "epoch-", ".jsonl")),
        (folder.join("tensorboard"), |name| name.starts_with("events.out.tfevents.")),
    ];
    for (folder, is_ours) in inside {
        if !folder.is_dir() {
            continue;
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io("list", &folder))? {
            entries.push(entry.map_err(io("list", &folder))?.file_name());
        }
        entries.sort();
        let is_foreign = |name: &OsString| !name.to_str().is_some_and(|name| is_ours(name) || is_leftover(name));
        if let Some(name) = entries.into_iter().find(is_foreign) {
            return Ok(Some(folder.join(name)));
        }
    }
    Ok(None)
}

fn is_numbered(name: &str, before: &str, after: &str) -> bool {
    let number = name.strip_prefix(before).and_then(|name| name.strip_suffix(after));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn lock(folder: &Path) -> Result<File, TrainError> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::RunInUse { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(TrainError::Io { action: "lock", path, source }),
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// An observer that writes events to `metrics.jsonl`. When a run is resumed, lines of later steps than its checkpoint
/// are removed first.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
    error: Option<std::io::Error>,
}

impl MetricsLog {
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

    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        if let Event::Resumed { step, .. } = event {
            let text = fs::read(&self.path)?;
            replace_file(&self.path, cut_back(&String::from_utf8_lossy(&text), *step).as_bytes())?;
            self.file = open(&self.path)?;
        }
        let mut line = serde_json::to_string(event).expect("events have a JSON form");
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        if matches!(event, Event::Saved { .. } | Event::Finished { .. }) {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Returns the lines of whole events up to a step; none for a run that begins again.
fn cut_back(text: &str, step: usize) -> String {
    let kept = text.lines().filter(|line| {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return false };
        let at = event.get("step").or_else(|| event.get("done")).and_then(Value::as_u64);
        step > 0 && at.is_some_and(|at| at <= step as u64)
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

impl Observer for MetricsLog {
    fn observe(&mut self, event: &Event) -> Flow {
        if matches!(event, Event::Evaluating { .. }) || self.error.is_some() {
            return Flow::Continue;
        }
        match self.write(event) {
            Ok(()) => Flow::Continue,
            Err(error) => {
                // On a full disk it is better to end with the last checkpoint than to train on without a record, or to
                // write a checkpoint whose steps are not in the record.
                self.error = Some(error);
                Flow::Abort
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_cut_back_to_a_step_and_torn_lines_go() {
        let text = "{\"event\":\"started\",\"done\":0}\n{\"event\":\"step\",\"step\":1}\n{\"event\":\"step\",\"step\":2}\n\
                    {\"event\":\"saved\",\"step\":2}\n{\"event\":\"step\",\"step\":3}\n{\"event\":\"st";
        let kept = cut_back(text, 2);
        assert_eq!(kept.lines().count(), 4);
        assert!(kept.ends_with("\"saved\",\"step\":2}\n"), "{kept}");
        assert_eq!(cut_back(text, 0), "");
    }
}
