//! How much memory this process has.

/// Bytes of memory that this process has now; none where the system does not say (it does on Linux).
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn grows_by_what_is_taken() {
        let before = super::resident_bytes().unwrap();
        let block = vec![1u8; 64 << 20];
        let after = super::resident_bytes().unwrap();
        assert!(block.iter().map(|byte| u64::from(*byte)).sum::<u64>() == 64 << 20 && after >= before + (48 << 20));
    }
}
