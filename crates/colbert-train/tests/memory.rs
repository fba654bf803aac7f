//! Readings of memory, in a process where no other test takes or gives back any.

use std::fs::OpenOptions;

use colbert_train::memory;

#[cfg(target_os = "linux")]
#[test]
fn a_process_grows_by_what_it_takes() {
    // Linux counts pages for each processor apart and adds them up late, so that two readings may differ by some.
    const LATE: u64 = 4 << 20;
    let before = memory::resident().unwrap();
    let block = vec![1u8; 64 << 20];
    let after = memory::resident().unwrap();
    assert!(block.iter().map(|byte| u64::from(*byte)).sum::<u64>() == 64 << 20);
    assert!(after + LATE >= before + (64 << 20), "{before} {after}");
    assert!(memory::peak().unwrap() + LATE >= after && memory::available().unwrap() > 0);
    drop(block);
    memory::forget_peak();
    // Where the peak cannot be reset it stays.
    let can_be_reset = OpenOptions::new().write(true).open("/proc/self/clear_refs").is_ok();
    let most = if can_be_reset { memory::resident().unwrap() } else { after };
    assert!(memory::peak().unwrap() <= most + LATE, "{} {most}", memory::peak().unwrap());
}
