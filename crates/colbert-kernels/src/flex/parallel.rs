//! Work shared among threads, in blocks that depend on its size alone.

use std::ops::Range;

use rayon::prelude::*;

/// Calls `work` on `0..count` in ranges of `block`, the last one shorter, in any order on any thread.
pub(crate) fn for_each_block(count: usize, block: usize, work: impl Fn(Range<usize>) + Sync + Send) {
    let range = |i: usize| i * block..((i + 1) * block).min(count);
    match count.div_ceil(block) {
        0 => {}
        1 => work(range(0)),
        blocks => (0..blocks).into_par_iter().with_max_len(1).for_each(|i| work(range(i))),
    }
}
