//! The answer of those who watch a run or an evaluation.

/// The wish of an observer after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// End the run after this step, with a checkpoint.
    Stop,
    /// End the run now and write nothing more: what is on the disk is all that can be relied on.
    Abort,
}
