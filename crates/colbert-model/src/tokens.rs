//! Token sequences on the host, and how they are grouped so that little padding is computed.

/// One text as the encoder sees it, unpadded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSequence {
    /// Token ids, markers included.
    pub ids: Vec<u32>,
    /// The first `attended` tokens can be attended to; the rest ([MASK] expansion) only attend.
    pub attended: usize,
    /// True where the token takes part in MaxSim; as long as `ids`.
    pub scored: Vec<bool>,
}

impl TokenSequence {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens at all, which a ColBERT tokenizer never produces.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// A group may carry this share of padding on top of its real tokens.
const PADDING_ALLOWED: f64 = 0.08;

/// Cuts sequences into groups of similar length: indices, longest first.
///
/// A group is closed when padding its members to the longest would add more than 8 % tokens, or when it would hold more
/// than `max_tokens` tokens; one sequence always fits. Ties keep the given order, so the same input gives the same groups.
pub fn length_groups(lengths: &[usize], max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut real = 0;
    for i in order {
        let length = lengths[i];
        if let Some(group) = groups.last_mut() {
            let padded = lengths[group[0]] * (group.len() + 1);
            if padded as f64 <= (real + length) as f64 * (1.0 + PADDING_ALLOWED) && padded <= max_tokens {
                group.push(i);
                real += length;
                continue;
            }
        }
        groups.push(vec![i]);
        real = length;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_index_once_and_little_padding() {
        let lengths: Vec<usize> = (0..200).map(|i| 5 + (i * 37) % 251).collect();
        let groups = length_groups(&lengths, 4096);
        let mut seen: Vec<usize> = groups.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        for group in &groups {
            let padded = lengths[group[0]] * group.len();
            let real: usize = group.iter().map(|&i| lengths[i]).sum();
            assert!(padded as f64 <= real as f64 * (1.0 + PADDING_ALLOWED));
            assert!(padded <= 4096);
        }
        assert!(groups.len() < 60, "{} groups for 200 sequences", groups.len());
    }

    #[test]
    fn one_sequence_longer_than_the_limit_is_a_group_of_its_own() {
        assert_eq!(length_groups(&[10, 300, 10], 100), vec![vec![1], vec![0, 2]]);
    }
}
