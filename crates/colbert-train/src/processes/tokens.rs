//! Token sequences between processes: each tokenizes a share of the texts.

use colbert_model::TokenSequence;

/// Appends a sequence: its length, how many tokens can be attended to, the ids, and a bit for each, 32 to a word.
pub(crate) fn write_tokens(sequence: &TokenSequence, words: &mut Vec<u32>) {
    words.extend([sequence.len() as u32, sequence.attended as u32]);
    words.extend(&sequence.ids);
    let bits = |scored: &[bool]| scored.iter().zip(0..).fold(0, |word, (scored, bit)| word | u32::from(*scored) << bit);
    words.extend(sequence.scored.chunks(32).map(bits));
}

/// Takes the next sequence from the front of what another process wrote.
///
/// # Panics
/// If there is none.
pub(crate) fn read_tokens(words: &mut &[u32]) -> TokenSequence {
    let (head, rest) = words.split_at(2);
    let (ids, rest) = rest.split_at(head[0] as usize);
    let (bits, rest) = rest.split_at(ids.len().div_ceil(32));
    *words = rest;
    let scored = (0..ids.len()).map(|place| bits[place / 32] >> (place % 32) & 1 == 1);
    TokenSequence { ids: ids.to_vec(), attended: head[1] as usize, scored: scored.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_come_back_as_they_were() {
        let sequence = |length: usize| TokenSequence {
            ids: (0..length as u32).map(|id| id * 7919).collect(),
            attended: length / 2,
            scored: (0..length).map(|place| place % 3 != 1).collect(),
        };
        let sequences: Vec<_> = [1, 31, 32, 33, 64, 300, 0].map(sequence).into();
        let mut words = Vec::new();
        sequences.iter().for_each(|sequence| write_tokens(sequence, &mut words));
        let mut rest = words.as_slice();
        let back: Vec<_> = sequences.iter().map(|_| read_tokens(&mut rest)).collect();
        assert_eq!((back, rest.len()), (sequences, 0));
    }
}
