//! MaxSim of packed texts, one document at a time.

use crate::flex::buffer::{Buffer, Shared};
use crate::flex::level::{Level, for_each_level, largest, multiply_add};
use crate::flex::pack::transpose;
use crate::flex::parallel::for_each_block;
use crate::flex::tile::{Begin, Format, Left, Product, Right, Size};
use crate::operators::maxsim::{NEVER, ScoredTexts};

/// Query tokens whose products with a document are held at once: a multiple of every level's rows of a tile.
const ROWS: usize = 48;

/// In place of a winner, where a document has no scored token.
const NONE: i32 = -1;

for_each_level! {
    /// Finds the largest number of a row, and the first place where it is.
    fn first_largest(row: &[f32]) -> (f32, usize) = first_largest_body
}

for_each_level! {
    /// Computes `to[i] += factor * from[i]`
    fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) = add_scaled_body
}

#[inline(always)]
fn first_largest_body<const FUSED: bool>(row: &[f32]) -> (f32, usize) {
    let most = largest(row);
    // A chunk at a time, because a search that can stop at any element is not vectorised.
    let (chunks, _) = row.as_chunks::<16>();
    let before = chunks.iter().take_while(|chunk| !chunk.iter().fold(false, |any, x| any | (*x == most))).count() * 16;
    let place = row[before..].iter().position(|x| *x == most).map_or(0, |place| before + place);
    (most, place)
}

#[inline(always)]
fn add_scaled_body<const FUSED: bool>(to: &mut [f32], factor: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = multiply_add::<FUSED>(factor, *from, *to);
    }
}

/// Scores `[queries, docs]`, and the row of the winner of each document for each query token, `[docs, query tokens]`.
pub(crate) fn maxsim(
    level: Level,
    queries: &[f32],
    documents: &[f32],
    [query_texts, document_texts]: &[ScoredTexts; 2],
) -> (Buffer, Buffer<i32>) {
    let (tokens, count) = (query_texts.tokens(), document_texts.count());
    let dim = queries.len().checked_div(tokens).unwrap_or(0);
    assert!(queries.len() == tokens * dim && documents.len() == document_texts.tokens() * dim, "tokens of the texts");
    let mut scores = Buffer::new(query_texts.count() * count);
    let mut winners = Buffer::<i32>::new(count * tokens);
    let (to, of) = (Shared::new(&mut scores), Shared::new(&mut winners));
    for_each_block(count, 1, |own| {
        let document = own.start;
        // SAFETY: this document's own winners.
        let winners = unsafe { std::slice::from_raw_parts_mut(of.at(document * tokens), tokens) };
        let rows: Vec<usize> = document_texts.scored_rows(document).collect();
        let mut best = Buffer::<f32>::new(tokens);
        if rows.is_empty() {
            winners.fill(NONE);
            best.fill(NEVER);
        } else {
            find_best(level, queries, documents, dim, &rows, &mut best, winners);
        }
        for query in 0..query_texts.count() {
            let score = query_texts.scored_rows(query).map(|row| best[row]).sum();
            // SAFETY: this document's own column.
            unsafe { *to.at(query * count + document) = score };
        }
    });
    (scores, winners)
}

/// Finds for each query token the largest product with one of `rows` of the documents, and that row.
fn find_best(
    level: Level,
    queries: &[f32],
    documents: &[f32],
    dim: usize,
    rows: &[usize],
    best: &mut [f32],
    winners: &mut [i32],
) {
    let width = level.columns();
    let wide = rows.len().next_multiple_of(width);
    let mut scratch = Buffer::<f32>::new(wide * dim + ROWS * wide);
    let (columns, products) = scratch.split_at_mut(wide * dim);
    let mut gathered = Buffer::<f32>::new(width * dim);
    for (rows, to) in rows.chunks(width).zip(columns.chunks_exact_mut((width * dim).max(1))) {
        for (row, to) in rows.iter().zip(gathered.chunks_exact_mut(dim)) {
            to.copy_from_slice(&documents[row * dim..][..dim]);
        }
        transpose(&gathered, dim, rows.len(), dim, to, width);
    }
    let right = Right { start: columns.as_ptr(), panel: width * dim, step: width };
    for (block, (best, winners)) in best.chunks_mut(ROWS).zip(winners.chunks_mut(ROWS)).enumerate() {
        let size = Size { rows: best.len(), columns: wide, depth: dim };
        let start = queries[block * ROWS * dim..].as_ptr();
        let left = Left { start, group: level.rows() * dim, row: dim, step: 1 };
        // SAFETY: these query tokens, packed document tokens up to `wide` columns, and as many products.
        unsafe {
            let result = Product { start: products.as_mut_ptr(), row: wide };
            level.multiply(Format::Single, size, left, right, result, Begin::Zero);
        }
        for ((products, best), winner) in products.chunks_exact(wide).zip(best).zip(winners) {
            let (most, place) = first_largest(level, &products[..rows.len()]);
            *best = most;
            *winner = rows[place] as i32;
        }
    }
}

/// Computes the gradients of queries and documents.
pub(crate) fn gradient(
    level: Level,
    queries: &[f32],
    documents: &[f32],
    winners: &[i32],
    gradient: &[f32],
    [query_texts, document_texts]: &[ScoredTexts; 2],
) -> [Buffer; 2] {
    let (tokens, count) = (query_texts.tokens(), document_texts.count());
    let dim = queries.len().checked_div(tokens).unwrap_or(0);
    assert!(queries.len() == tokens * dim && documents.len() == document_texts.tokens() * dim, "tokens of the texts");
    assert_eq!(gradient.len(), query_texts.count() * count, "a gradient for each score");
    assert_eq!(winners.len(), tokens * count, "a winner for each query token and document");
    let mut of_queries = Buffer::new(queries.len());
    let mut of_documents = Buffer::new(documents.len());
    let (to_queries, to_documents) = (Shared::new(&mut of_queries), Shared::new(&mut of_documents));
    for_each_block(query_texts.count(), 1, |own| {
        let query = own.start;
        let rows = query_texts.rows(query);
        // SAFETY: this query's own rows.
        let to = unsafe { std::slice::from_raw_parts_mut(to_queries.at(rows.start * dim), rows.len() * dim) };
        to.fill(0.0);
        for row in query_texts.scored_rows(query) {
            let to = &mut to[(row - rows.start) * dim..][..dim];
            for document in 0..count {
                let winner = winners[document * tokens + row];
                if winner != NONE {
                    let from = &documents[winner as usize * dim..][..dim];
                    add_scaled(level, to, gradient[query * count + document], from);
                }
            }
        }
    });
    for_each_block(count, 1, |own| {
        let document = own.start;
        let rows = document_texts.rows(document);
        // SAFETY: this document's own rows.
        let to = unsafe { std::slice::from_raw_parts_mut(to_documents.at(rows.start * dim), rows.len() * dim) };
        to.fill(0.0);
        for query in 0..query_texts.count() {
            for row in query_texts.scored_rows(query) {
                let winner = winners[document * tokens + row];
                if winner != NONE {
                    let to = &mut to[(winner as usize - rows.start) * dim..][..dim];
                    add_scaled(level, to, gradient[query * count + document], &queries[row * dim..][..dim]);
                }
            }
        }
    });
    [of_queries, of_documents]
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;

    use super::*;
    use crate::flex::testing::{close, flat, matrix, random, slope, wide};
    use crate::operators::maxsim::{composed, composed_gradient};

    /// Scores are sums of up to 40 products of vectors of up to 128 numbers below 1.
    const ERROR: f64 = 1e-4;

    fn exact(vectors: &[f64], dim: usize, [queries, documents]: &[ScoredTexts; 2]) -> Vec<f64> {
        let mut scores = Vec::new();
        let (of_queries, of_documents) = vectors.split_at(queries.tokens() * dim);
        for query in 0..queries.count() {
            for document in 0..documents.count() {
                let best = |row: usize| {
                    let products = documents
                        .scored_rows(document)
                        .map(|d| (0..dim).map(|i| of_queries[row * dim + i] * of_documents[d * dim + i]).sum::<f64>());
                    products.reduce(f64::max).unwrap_or(f64::from(NEVER))
                };
                scores.push(queries.scored_rows(query).map(best).sum());
            }
        }
        scores
    }

    #[test]
    fn scores_and_gradients_are_those_of_f64_on_every_level_and_composed() {
        let cases: [(&[usize], &[usize], usize); 4] =
            [(&[1], &[1], 1), (&[3, 5], &[70, 1, 40, 2], 128), (&[32, 32, 9], &[33, 32, 31], 24), (&[8], &[5], 7)];
        for (case, (query_lengths, document_lengths, dim)) in cases.into_iter().enumerate() {
            let (q, d) = (query_lengths.iter().sum::<usize>(), document_lengths.iter().sum::<usize>());
            // The last tokens take no part, and of some documents none does.
            let scored =
                |count: usize| (0..count).map(|i| count == 1 || i % 5 != 3 && i + 1 < count).collect::<Vec<_>>();
            let texts = [ScoredTexts::new(query_lengths, scored(q)), ScoredTexts::new(document_lengths, scored(d))];
            let vectors = random((q + d) * dim, case);
            let (queries, documents) = vectors.split_at(q * dim);
            let expected = exact(&wide(&vectors), dim, &texts);
            let back = random(expected.len(), case + 9);
            let loss = |v: &[f64]| exact(v, dim, &texts).iter().zip(&back).map(|(x, g)| x * f64::from(*g)).sum::<f64>();
            let places: Vec<usize> = (0..vectors.len()).step_by((vectors.len() / 200).max(1) | 1).collect();
            let slopes: Vec<f64> = places.iter().map(|&i| slope(loss, &wide(&vectors), i)).collect();
            let pick = |found: Vec<f32>| places.iter().map(|&i| found[i]).collect::<Vec<_>>();

            let tensors = [matrix(queries, dim), matrix(documents, dim)];
            let [a, b] = tensors.clone();
            let (scores, winners) = composed::<Flex>(a, b, &texts);
            close(&flat(&scores), &expected, ERROR, &format!("composed, case {case}"));
            let [a, b] = tensors;
            let found = composed_gradient::<Flex>(a, b, winners, matrix(&back, document_lengths.len()), &texts);
            close(&pick(found.map(|x| flat(&x)).concat()), &slopes, ERROR, &format!("composed, case {case}"));
            for level in Level::available() {
                let what = format!("{level:?}, case {case}");
                let (scores, winners) = maxsim(level, queries, documents, &texts);
                close(&scores, &expected, ERROR, &what);
                let found = gradient(level, queries, documents, &winners, &back, &texts);
                close(&pick(found.map(|x| x.to_vec()).concat()), &slopes, ERROR, &what);
            }
        }
    }

    #[test]
    fn of_equal_tokens_the_first_scored_one_wins() {
        let texts = [ScoredTexts::new(&[1], [true]), ScoredTexts::new(&[40, 1], vec![true; 41])];
        let hidden: Vec<bool> = (0..41).map(|i| i != 0 && i != 40).collect();
        let hidden = [texts[0].clone(), ScoredTexts::new(&[40, 1], hidden)];
        let documents = [0.5; 41 * 3];
        for level in Level::available() {
            assert_eq!(&maxsim(level, &[1.0; 3], &documents, &texts).1[..], [0, 40]);
            let (scores, winners) = maxsim(level, &[1.0; 3], &documents, &hidden);
            assert_eq!((&winners[..], &scores[..]), (&[1, NONE][..], &[1.5, NEVER][..]));
        }
    }
}
