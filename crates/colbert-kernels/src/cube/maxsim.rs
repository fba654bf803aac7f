//! MaxSim by blocks: no score of a query token with a document token is ever written, only the best product of each
//! query token with each document, and its row.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::cube::finite::is_nan;
use crate::cube::launch::{UNITS, copied, cubes, cubes_of_elements, dims, floats, unwritten, unwritten_integers};
use crate::operators::maxsim::{NEVER, ScoredTexts};

/// Query tokens, document tokens and numbers of each that a cube holds at once.
const BLOCK: usize = 32;

/// Units that share the document tokens of one query token.
const LANES: usize = 4;

/// Document tokens of a block for each of them.
const EACH: usize = BLOCK / LANES;

/// Units of a cube.
const ALL: usize = BLOCK * LANES;

/// Stands for the query of a token that takes no part.
const IDLE: u32 = u32::MAX;

/// Returns whether a product replaces the best of earlier rows. A NaN wins over everything and stays, so that it is not
/// lost.
#[cube]
fn wins(product: f32, most: f32, winner: i32) -> bool {
    winner < 0 || product > most || (is_nan(product) && !is_nan(most))
}

/// Returns whether the best product of one lane comes before that of another: the first of equal products does.
#[cube]
fn comes_before(product: f32, row: i32, most: f32, winner: i32) -> bool {
    let same = product == most || (is_nan(product) && is_nan(most));
    row >= 0 && (wins(product, most, winner) || (same && row < winner))
}

/// Finds the best document token of each query token, one cube for a block of query tokens and a document.
// One function, as all stages work on the same shared memory and on numbers that a unit keeps in registers.
#[cube(launch)]
fn find_best(
    queries: &Array<f32>,
    documents: &Array<f32>,
    scored: &Array<u32>,
    starts: &Array<u32>,
    best: &mut Array<f32>,
    winners: &mut Array<i32>,
    tokens: usize,
    blocks: usize,
    count: usize,
    dim: usize,
) {
    if CUBE_POS >= blocks * count {
        terminate!();
    }
    let document = CUBE_POS / blocks;
    let first = CUBE_POS % blocks * comptime!(BLOCK);
    let start = starts[document] as usize;
    let end = starts[document + 1] as usize;
    let unit = UNIT_POS as usize;
    let own = unit / comptime!(LANES);
    let lane = unit % comptime!(LANES);
    let mut query = SharedMemory::<f32>::new(comptime!(BLOCK * BLOCK));
    let mut text = SharedMemory::<f32>::new(comptime!(BLOCK * BLOCK));
    let mut sums = Array::<f32>::new(comptime!(EACH));
    let mut most = 0.0f32;
    let mut winner = comptime!(-1i32).runtime();
    let mut row = start;
    while row < end {
        #[unroll]
        for m in 0..EACH {
            sums[m] = 0.0f32;
        }
        let mut chunk = 0;
        while chunk < dim {
            sync_cube();
            let mut i = unit;
            while i < comptime!(BLOCK * BLOCK) {
                let at = i / comptime!(BLOCK);
                let column = chunk + i % comptime!(BLOCK);
                let mut of_query = 0.0f32;
                let mut of_text = 0.0f32;
                if column < dim {
                    if first + at < tokens {
                        of_query = queries[(first + at) * dim + column];
                    }
                    if row + at < end {
                        of_text = documents[(row + at) * dim + column];
                    }
                }
                query[i] = of_query;
                text[i] = of_text;
                i += comptime!(ALL);
            }
            sync_cube();
            for n in 0..BLOCK {
                let x = query[own * comptime!(BLOCK) + n];
                #[unroll]
                for m in 0..EACH {
                    sums[m] += x * text[(lane + comptime!(m * LANES)) * comptime!(BLOCK) + n];
                }
            }
            chunk += comptime!(BLOCK);
        }
        #[unroll]
        for m in 0..EACH {
            let candidate = row + lane + comptime!(m * LANES);
            if candidate < end {
                if scored[candidate] == 1u32 {
                    if wins(sums[m], most, winner) {
                        most = sums[m];
                        winner = candidate as i32;
                    }
                }
            }
        }
        row += comptime!(BLOCK);
    }
    // The lanes of a query token agree on the best.
    let mut products = SharedMemory::<f32>::new(comptime!(ALL));
    let mut rows = SharedMemory::<i32>::new(comptime!(ALL));
    products[unit] = most;
    rows[unit] = winner;
    sync_cube();
    if lane == 0 {
        if first + own < tokens {
            for other in 1..LANES {
                let product = products[unit + other];
                let candidate = rows[unit + other];
                if comes_before(product, candidate, most, winner) {
                    most = product;
                    winner = candidate;
                }
            }
            let at = document * tokens + first + own;
            best[at] = select(winner < 0, comptime!(NEVER).runtime(), most);
            winners[at] = winner;
        }
    }
}

/// Sums the best products of the scored tokens of each query, one unit for a query and a document.
#[cube(launch)]
fn sum_best(
    best: &Array<f32>,
    starts: &Array<u32>,
    query_of: &Array<u32>,
    scores: &mut Array<f32>,
    tokens: usize,
    count: usize,
) {
    let at = ABSOLUTE_POS;
    if at >= scores.len() {
        terminate!();
    }
    let query = at / count;
    let document = at % count;
    let mut sum = 0.0f32;
    for token in starts[query] as usize..starts[query + 1] as usize {
        if query_of[token] != IDLE {
            sum += best[document * tokens + token];
        }
    }
    scores[at] = sum;
}

/// Computes the gradient of a query token, one cube for each.
#[cube(launch)]
fn query_gradient(
    documents: &Array<f32>,
    winners: &Array<i32>,
    gradient: &Array<f32>,
    query_of: &Array<u32>,
    output: &mut Array<f32>,
    tokens: usize,
    count: usize,
    dim: usize,
) {
    let token = CUBE_POS;
    if token >= tokens {
        terminate!();
    }
    let query = query_of[token];
    let mut column = UNIT_POS as usize;
    while column < dim {
        let mut sum = 0.0f32;
        if query != IDLE {
            for document in 0..count {
                let winner = winners[document * tokens + token];
                if winner >= 0 {
                    sum += gradient[query as usize * count + document] * documents[winner as usize * dim + column];
                }
            }
        }
        output[token * dim + column] = sum;
        column += comptime!(UNITS as usize);
    }
}

/// Computes the gradient of a document token, one cube for each.
#[cube(launch)]
fn document_gradient(
    queries: &Array<f32>,
    winners: &Array<i32>,
    gradient: &Array<f32>,
    query_of: &Array<u32>,
    document_of: &Array<u32>,
    output: &mut Array<f32>,
    rows: usize,
    tokens: usize,
    count: usize,
    dim: usize,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let document = document_of[row] as usize;
    let mut column = UNIT_POS as usize;
    while column < dim {
        let mut sum = 0.0f32;
        for token in 0..tokens {
            if winners[document * tokens + token] == row as i32 {
                let query = query_of[token];
                if query != IDLE {
                    sum += gradient[query as usize * count + document] * queries[token * dim + column];
                }
            }
        }
        output[row * dim + column] = sum;
        column += comptime!(UNITS as usize);
    }
}

fn starts(texts: &ScoredTexts) -> Vec<u32> {
    let ends = (0..texts.count()).map(|i| texts.rows(i).end as u32);
    std::iter::once(0).chain(ends).collect()
}

/// Returns the text that each scored token belongs to; [`IDLE`] for the others.
fn texts_of_scored(texts: &ScoredTexts) -> Vec<u32> {
    let mut of = vec![IDLE; texts.tokens()];
    for i in 0..texts.count() {
        texts.scored_rows(i).for_each(|row| of[row] = i as u32);
    }
    of
}

/// Scores `[queries, docs]`, and the winning row of each document and query token, `[docs, query tokens]`, -1 where a
/// document has no scored token.
pub(crate) fn forward<R: CubeRuntime>(
    queries: CubeTensor<R>,
    documents: CubeTensor<R>,
    [query_texts, document_texts]: &[ScoredTexts; 2],
) -> (CubeTensor<R>, CubeTensor<R>) {
    let [tokens, dim] = dims(&queries);
    let count = document_texts.count();
    let (queries, documents) = (floats(queries), floats(documents));
    let best = unwritten(&queries, [count, tokens]);
    let winners = unwritten_integers(&queries, [count, tokens]);
    let scores = unwritten(&queries, [query_texts.count(), count]);
    if query_texts.count() * count == 0 {
        return (scores, winners);
    }
    let scored: Vec<u32> = texts_of_scored(document_texts).iter().map(|text| u32::from(*text != IDLE)).collect();
    let blocks = tokens.div_ceil(BLOCK);
    find_best::launch(
        &scores.client,
        cubes(&scores, blocks * count),
        CubeDim::new_1d(ALL as u32),
        queries.into_array_arg(),
        documents.into_array_arg(),
        copied(&scores, &scored),
        copied(&scores, &starts(document_texts)),
        best.clone().into_array_arg(),
        winners.clone().into_array_arg(),
        tokens,
        blocks,
        count,
        dim,
    );
    sum_best::launch(
        &scores.client,
        cubes_of_elements(&scores, query_texts.count() * count),
        CubeDim::new_1d(UNITS),
        best.into_array_arg(),
        copied(&scores, &starts(query_texts)),
        copied(&scores, &texts_of_scored(query_texts)),
        scores.clone().into_array_arg(),
        tokens,
        count,
    );
    (scores, winners)
}

/// Computes the gradients of queries and documents.
pub(crate) fn gradient<R: CubeRuntime>(
    queries: CubeTensor<R>,
    documents: CubeTensor<R>,
    winners: CubeTensor<R>,
    gradient: CubeTensor<R>,
    [query_texts, document_texts]: &[ScoredTexts; 2],
) -> [CubeTensor<R>; 2] {
    let ([tokens, dim], [rows, _]) = (dims(&queries), dims(&documents));
    let count = document_texts.count();
    let [queries, documents, gradient] = [queries, documents, gradient].map(floats);
    let (of_queries, of_documents) = (unwritten(&queries, [tokens, dim]), unwritten(&queries, [rows, dim]));
    let query_of = texts_of_scored(query_texts);
    if tokens > 0 {
        query_gradient::launch(
            &of_queries.client,
            cubes(&of_queries, tokens),
            CubeDim::new_1d(UNITS),
            documents.into_array_arg(),
            winners.clone().into_array_arg(),
            gradient.clone().into_array_arg(),
            copied(&of_queries, &query_of),
            of_queries.clone().into_array_arg(),
            tokens,
            count,
            dim,
        );
    }
    if rows > 0 {
        let document_of: Vec<u32> = (0..count).flat_map(|i| document_texts.rows(i).map(move |_| i as u32)).collect();
        document_gradient::launch(
            &of_documents.client,
            cubes(&of_documents, rows),
            CubeDim::new_1d(UNITS),
            queries.into_array_arg(),
            winners.into_array_arg(),
            gradient.into_array_arg(),
            copied(&of_documents, &query_of),
            copied(&of_documents, &document_of),
            of_documents.clone().into_array_arg(),
            rows,
            tokens,
            count,
            dim,
        );
    }
    [of_queries, of_documents]
}
