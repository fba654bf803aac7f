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

/// Rows of a document whose gradients a cube computes.
const ROWS: usize = 32;

/// Stands for the query of a token that takes no part, and for no row.
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

/// Computes the gradients of some rows of a document, one cube for each block of them and each [`UNITS`] columns. The
/// cube goes once through the best rows of all query tokens; a unit has a column.
#[cube(launch)]
fn document_gradient(
    queries: &Array<f32>,
    winners: &Array<i32>,
    gradient: &Array<f32>,
    query_of: &Array<u32>,
    blocks: &Array<u32>,
    output: &mut Array<f32>,
    cubes: usize,
    tokens: usize,
    count: usize,
    dim: usize,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let units = comptime!(UNITS as usize);
    let unit = UNIT_POS as usize;
    let slices = dim.div_ceil(units);
    let column = CUBE_POS % slices * units + unit;
    let block = CUBE_POS / slices * 3;
    let document = blocks[block] as usize;
    let first = blocks[block + 1] as usize;
    let rows = blocks[block + 2] as usize;
    let mut sums = SharedMemory::<f32>::new(comptime!(ROWS * UNITS as usize));
    let mut found = SharedMemory::<u32>::new(comptime!(UNITS as usize));
    let mut factors = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    for row in 0..ROWS {
        sums[row * units + unit] = 0.0f32;
    }
    let mut from = 0usize.runtime();
    while from < tokens {
        // All units have used what was found before.
        sync_cube();
        let token = from + unit;
        let mut own = comptime!(IDLE).runtime();
        let mut factor = 0.0f32;
        if token < tokens {
            let winner = winners[document * tokens + token];
            let query = query_of[token];
            if query != IDLE && winner >= first as i32 && winner < (first + rows) as i32 {
                own = (winner - first as i32) as u32;
                factor = gradient[query as usize * count + document];
            }
        }
        found[unit] = own;
        factors[unit] = factor;
        sync_cube();
        for i in 0..units {
            let row = found[i];
            if row != IDLE && column < dim {
                sums[row as usize * units + unit] += factors[i] * queries[(from + i) * dim + column];
            }
        }
        from += units;
    }
    if column < dim {
        for row in 0..rows {
            output[(first + row) * dim + column] = sums[row * units + unit];
        }
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

/// Returns the document, the first row and the number of rows of each block.
fn blocks(texts: &ScoredTexts) -> Vec<u32> {
    let of_text = |i: usize| {
        let rows = texts.rows(i);
        let end = rows.end;
        rows.step_by(ROWS).flat_map(move |first| [i, first, ROWS.min(end - first)].map(|number| number as u32))
    };
    (0..texts.count()).flat_map(of_text).collect()
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
    let blocks = blocks(document_texts);
    let cubes_of_all = blocks.len() / 3 * dim.div_ceil(UNITS as usize);
    if cubes_of_all > 0 {
        document_gradient::launch(
            &of_documents.client,
            cubes(&of_documents, cubes_of_all),
            CubeDim::new_1d(UNITS),
            queries.into_array_arg(),
            winners.into_array_arg(),
            gradient.into_array_arg(),
            copied(&of_documents, &query_of),
            copied(&of_documents, &blocks),
            of_documents.clone().into_array_arg(),
            cubes_of_all,
            tokens,
            count,
            dim,
        );
    }
    [of_queries, of_documents]
}
