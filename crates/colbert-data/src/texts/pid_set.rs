//! Whether a pid is in a list, fast also where a query has very many positives.

use std::collections::HashSet;

/// Lists up to this long are searched from end to end, which is faster than hashing.
pub(crate) const FEW: usize = 32;

/// A list of pids to look others up in.
#[derive(Debug)]
pub(crate) enum PidSet<'a> {
    Few(&'a [u32]),
    Many(HashSet<u32>),
}

impl<'a> PidSet<'a> {
    pub(crate) fn of(pids: &'a [u32]) -> Self {
        if pids.len() <= FEW { Self::Few(pids) } else { Self::Many(pids.iter().copied().collect()) }
    }

    pub(crate) fn contains(&self, pid: u32) -> bool {
        match self {
            Self::Few(pids) => pids.contains(&pid),
            Self::Many(pids) => pids.contains(&pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_lists_know_their_members() {
        for length in [0, 1, FEW, FEW + 1, 1000] {
            let pids: Vec<u32> = (0..length as u32).map(|number| number * 3).collect();
            let set = PidSet::of(&pids);
            assert!((0..4000).all(|pid| set.contains(pid) == pids.contains(&pid)), "{length}");
        }
    }
}
