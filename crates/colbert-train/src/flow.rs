//! The answer of an observer of a run or an evaluation.

/// The wish of an observer after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Continue.
    Continue,
    /// End the run after this step, with a checkpoint.
    Stop,
    /// End the run now and write nothing more: only the files on disk can be relied on.
    Abort,
}

impl Flow {
    /// Returns the strongest of several answers: to end at once, to end, to go on. All of them are computed.
    pub fn strongest(flows: impl IntoIterator<Item = Self>) -> Self {
        let strength = |flow: &Self| match flow {
            Self::Continue => 0,
            Self::Stop => 1,
            Self::Abort => 2,
        };
        flows.into_iter().max_by_key(strength).unwrap_or(Self::Continue)
    }
}
