//! The memory of the system and of this process, in bytes; none if the system does not report it (Linux does).

use std::path::Path;

/// Returns the memory of this process now.
pub fn resident() -> Option<u64> {
    read("/proc/self/status", "VmRSS:")
}

/// Returns the most that this process had at once.
pub fn peak() -> Option<u64> {
    read("/proc/self/status", "VmHWM:")
}

/// Lets [`peak`] count from what this process has now. Without effect where the system does not allow it: then
/// the peak is that of the whole process, which is never less.
pub fn forget_peak() {
    // proc(5): "5" resets the peak of the resident set.
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "the peak of memory goes on counting from the start of the process");
    }
}

/// Returns the memory that this process could still take: as much as the system has for a new program, or less if a
/// container limits it.
pub fn available() -> Option<u64> {
    let limits = [read("/proc/meminfo", "MemAvailable:"), crate::device::cgroup::left(Path::new("/"))];
    limits.into_iter().flatten().min()
}

/// Reads a line of kibibytes in a file that Linux generates.
fn read(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
