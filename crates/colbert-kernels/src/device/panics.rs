//! Panics by which a device reports a failure.

/// The form of a backend's failures, if they are panics and not errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePanics {
    /// Words that begin a message about exhausted memory.
    pub out_of_memory: &'static [&'static str],
    /// Beginnings of the names of the threads that work for a device. A panic there is not reported: later results are
    /// computed from unwritten memory.
    pub threads: &'static [&'static str],
}

impl DevicePanics {
    /// Finds the part of a message about exhausted memory, without its wrapping; none if the message is about something
    /// else.
    pub fn out_of_memory<'a>(&self, message: &'a str) -> Option<&'a str> {
        let start = self.out_of_memory.iter().filter_map(|words| message.find(words)).min()?;
        let said = &message[start..];
        let end = ["\n", "\\n", "\""].iter().filter_map(|end| said.find(end)).min();
        Some(said[..end.unwrap_or(said.len())].trim_end())
    }

    /// Returns whether a thread of this name works for a device.
    pub fn is_of_device(&self, thread: Option<&str>) -> bool {
        thread.is_some_and(|name| self.threads.iter().any(|start| name.starts_with(start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_missing_memory_are_taken_out_of_a_message() {
        let panics = DevicePanics { out_of_memory: &["no memory:", "CUDA out of memory"], threads: &["DSD-"] };
        let wrapped =
            "called `Result::unwrap()` on an `Err` value: Torch(\"[at x.cpp] . no memory: 12 bytes.\\nframe #0\")";
        assert_eq!(panics.out_of_memory(wrapped), Some("no memory: 12 bytes."));
        assert_eq!(panics.out_of_memory("CUDA out of memory. Tried\nframe"), Some("CUDA out of memory. Tried"));
        assert_eq!(panics.out_of_memory("index out of bounds"), None);
        assert!(
            panics.is_of_device(Some("DSD-0-0")) && !panics.is_of_device(Some("main")) && !panics.is_of_device(None)
        );
    }
}
