//! Attention of packed sequences, one cube for some rows of a sequence and a head. Weights are never written: forward
//! accumulates them block by block (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"), and
//! backward recomputes them from the log-sum-exp (Dao et al. 2022, FlashAttention, section 3.1).
//!
//! Query, key, value, output and their gradients are of the type `F` in memory; all else is float32. So is all
//! arithmetic, but for the products of bfloat16 on tensor cores, where the device has them ([`tensor_cores`]).

mod backward;
mod forward;
mod tensor_cores;

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

pub(crate) use self::backward::gradient;
pub(crate) use self::forward::forward;
use crate::cube::launch::{contiguous, dims, unwritten_as};
use crate::cube::random::{Mask, Wide, row_key, seed_of_sequence};
use crate::device::limits::LEAST_SHARED_BYTES;
use crate::operators::attention::{AttentionPlan, scale};

/// Units that share a row, without tensor cores.
const LANES: usize = 4;

/// The value of a product that does not count.
const NEVER: f32 = -1e30;

/// The limit above which a product counts.
const HARDLY: f32 = -5e29;

/// The parameters that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Form {
    /// Numbers of a token in one head.
    head_size: usize,
    /// Rows of a cube.
    rows: usize,
    /// Tokens on the other side that a cube processes together.
    others: usize,
    /// Whether tokens see only those near them.
    windowed: bool,
    /// Whether weights are dropped.
    drops: bool,
    /// Whether tensor cores compute the products.
    on_tensor_cores: bool,
    /// Whether query, key and value of a token lie side by side.
    joined: bool,
}

impl Form {
    /// Chooses tensor cores where they can compute a plan, else the largest blocks whose backward pass fits the shared
    /// memory that every device has; none if the heads are too large.
    fn of<R: CubeRuntime>(
        client: &ComputeClient<R>,
        head_size: usize,
        dtype: DType,
        plan: &AttentionPlan,
    ) -> Option<Self> {
        let fits = |(rows, others): &(usize, usize)| {
            // Rows and others are held twice each, with two blocks of weights, and four numbers for each of the others.
            let numbers = 2 * (rows + others) * head_size + 2 * rows * others + 4 * others;
            numbers * size_of::<f32>() <= LEAST_SHARED_BYTES as usize
        };
        let on_cores = if dtype == DType::BF16 { tensor_cores::rows(client, head_size) } else { None };
        let (rows, others) = match on_cores {
            Some(rows) => (rows, rows),
            None => [(32, 16), (32, 8), (16, 16), (16, 8), (8, 8), (8, 4)].into_iter().find(fits)?,
        };
        let (windowed, drops) = (plan.reach.is_some(), !plan.dropout.is_none());
        Some(Self { head_size, rows, others, windowed, drops, on_tensor_cores: on_cores.is_some(), joined: false })
    }

    /// Numbers of a row that one lane has, without tensor cores.
    fn each(self) -> usize {
        self.head_size.div_ceil(LANES)
    }

    fn units(self) -> usize {
        if self.on_tensor_cores { tensor_cores::units(self.rows) } else { self.rows * LANES }
    }

    fn cube_dim(self) -> CubeDim {
        CubeDim::new_1d(self.units() as u32)
    }
}

/// The numbers of a plan that every cube reads.
#[derive(CubeType, CubeLaunch)]
struct KernelPlan {
    cubes: usize,
    heads: usize,
    /// Numbers of a token in all heads.
    size: usize,
    scale: f32,
    reach: u32,
    seed_high: u32,
    seed_low: u32,
    threshold: u32,
    dropout_scale: f32,
}

/// A plan for kernels.
struct Numbers {
    /// Start, length and attended tokens of its sequence, and its first position, for each block of rows.
    blocks: Vec<u32>,
    heads: usize,
    size: usize,
    scale: f32,
    reach: u32,
    mask: Mask,
}

impl Numbers {
    fn new(plan: &AttentionPlan, form: Form) -> Self {
        let mut blocks = Vec::new();
        for segment in plan.segments.as_slice() {
            for first in (0..segment.length).step_by(form.rows) {
                blocks.extend([segment.start, segment.length, segment.attended, first].map(|number| number as u32));
            }
        }
        let size = form.head_size * plan.heads;
        // No sequence is longer than the largest reach, which is added to a position without overflow.
        let reach = plan.reach.unwrap_or(0).min(1 << 30) as u32;
        Self { blocks, heads: plan.heads, size, scale: scale(form.head_size), reach, mask: plan.dropout.into() }
    }

    fn cubes(&self) -> usize {
        self.blocks.len() / 4 * self.heads
    }

    fn for_kernels<R: CubeRuntime>(&self) -> KernelPlanLaunch<R> {
        let Mask { seed_high, seed_low, threshold, scale: dropout_scale, .. } = self.mask;
        KernelPlanLaunch::new(
            self.cubes(),
            self.heads,
            self.size,
            self.scale,
            self.reach,
            seed_high,
            seed_low,
            threshold,
            dropout_scale,
        )
    }
}

/// Returns whether these kernels can compute a plan on heads of this size: their blocks must fit shared memory.
pub(crate) fn can<R: CubeRuntime>(
    client: &ComputeClient<R>,
    head_size: usize,
    dtype: DType,
    plan: &AttentionPlan,
) -> bool {
    Form::of(client, head_size, dtype, plan).is_some()
}

/// Query, key and value, or their gradients: `[tokens, size]` each, or one tensor that has them side by side.
#[derive(Debug, Clone)]
pub(crate) struct Qkv<R: CubeRuntime>(Vec<CubeTensor<R>>);

impl<R: CubeRuntime> From<[CubeTensor<R>; 3]> for Qkv<R> {
    fn from(apart: [CubeTensor<R>; 3]) -> Self {
        Self(apart.into())
    }
}

impl<R: CubeRuntime> From<CubeTensor<R>> for Qkv<R> {
    fn from(joined: CubeTensor<R>) -> Self {
        Self(vec![joined])
    }
}

impl<R: CubeRuntime> Qkv<R> {
    /// Returns the three tensors of what was apart, or the one of what was joined.
    pub(crate) fn into_tensors<const N: usize>(self) -> [CubeTensor<R>; N] {
        self.0.try_into().expect("gradients have the form of what they are of")
    }

    fn is_joined(&self) -> bool {
        self.0.len() == 1
    }

    fn contiguous(self) -> Self {
        Self(self.0.into_iter().map(contiguous).collect())
    }

    /// Allocates memory for gradients.
    fn unwritten(&self) -> Self {
        Self(self.0.iter().map(|x| unwritten_as(x, dims(x), x.dtype)).collect())
    }

    /// Returns the tensor with the queries.
    fn query(&self) -> &CubeTensor<R> {
        &self.0[0]
    }

    /// Returns tokens and numbers of a token in all heads.
    fn dims(&self) -> [usize; 2] {
        let [tokens, columns] = dims(self.query());
        [tokens, if self.is_joined() { columns / 3 } else { columns }]
    }

    fn form(&self, plan: &AttentionPlan) -> Form {
        let query = self.query();
        let form = Form::of(&query.client, self.dims()[1] / plan.heads, query.dtype, plan).expect("asked before");
        Form { joined: self.is_joined(), ..form }
    }

    /// Returns the three as arguments of a kernel.
    fn args(&self) -> [ArrayArg<R>; 3] {
        [0, 1, 2].map(|part| self.0[if self.is_joined() { 0 } else { part }].clone().into_array_arg())
    }
}

/// The vectors of tokens that a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Query,
    Key,
    Value,
    Output,
}

/// Returns the place of a token's first number in a block's head.
#[cube]
fn place_of(
    block: &Block,
    plan: &KernelPlan,
    position: usize,
    #[comptime] part: Part,
    #[comptime] form: Form,
) -> usize {
    let token = block.start + position;
    let own = block.head * comptime!(form.head_size);
    if comptime!(form.joined && part != Part::Output) {
        (token * 3 + comptime!(part as usize)) * plan.size + own
    } else {
        token * plan.size + own
    }
}

/// The rows of a cube.
#[derive(CubeType, Clone, Copy)]
struct Block {
    head: usize,
    /// The first token, the number of tokens, and that of those attended to, of its sequence.
    start: usize,
    length: usize,
    attended: usize,
    /// Position of its first row.
    first: usize,
}

/// Returns the rows of this cube.
#[cube]
fn block_of(blocks: &Array<u32>, plan: &KernelPlan) -> Block {
    let block = CUBE_POS / plan.heads * 4;
    Block {
        head: CUBE_POS % plan.heads,
        start: blocks[block] as usize,
        length: blocks[block + 1] as usize,
        attended: blocks[block + 2] as usize,
        first: blocks[block + 3] as usize,
    }
}

/// Positions `from..to`.
#[derive(CubeType, Clone, Copy)]
struct Range {
    from: usize,
    to: usize,
}

/// Returns the positions before `end` that rows of a block can see.
#[cube]
fn seen(block: &Block, end: usize, plan: &KernelPlan, #[comptime] form: Form) -> Range {
    let mut from = 0usize.runtime();
    let mut to = end;
    if comptime!(form.windowed) {
        let reach = plan.reach as usize;
        from = select(block.first > reach, block.first - reach, 0);
        let last = block.first + comptime!(form.rows) + reach;
        to = select(last < end, last, end);
    }
    Range { from, to }
}

/// Returns whether a key is within reach of a query.
#[cube]
fn near(one: usize, other: usize, plan: &KernelPlan, #[comptime] form: Form) -> bool {
    if comptime!(form.windowed) {
        let reach = plan.reach as usize;
        one <= other + reach && other <= one + reach
    } else {
        true.runtime()
    }
}

/// Returns key and flip of the dropout factors of a query's weights ([`AttentionPlan::weights_row`]).
#[cube]
fn weights_key(block: &Block, plan: &KernelPlan, position: usize, #[comptime] form: Form) -> Wide {
    if comptime!(form.windowed) {
        let seed = seed_of_sequence(plan.seed_high, plan.seed_low, block.start as u32);
        row_key(seed.high, seed.low, (block.head * block.length + position) as u32)
    } else {
        row_key(plan.seed_high, plan.seed_low, ((block.start + position) * plan.heads + block.head) as u32)
    }
}

/// Copies a head's numbers of the tokens from `first` on to shared memory, zeros after the last.
#[cube]
fn load<F: Float>(
    from: &Array<F>,
    to: &mut SharedMemory<f32>,
    block: &Block,
    plan: &KernelPlan,
    first: usize,
    end: usize,
    factor: f32,
    #[comptime] tokens: usize,
    #[comptime] part: Part,
    #[comptime] form: Form,
) {
    let mut i = UNIT_POS as usize;
    while i < comptime!(tokens * form.head_size) {
        let position = first + i / comptime!(form.head_size);
        let mut number = 0.0f32;
        if position < end {
            let at = place_of(block, plan, position, part, form);
            number = f32::cast_from(from[at + i % comptime!(form.head_size)]) * factor;
        }
        to[i] = number;
        i += comptime!(form.units());
    }
}

/// Results of the forward pass for the queries on the other side, and key and flip of their dropout factors.
#[derive(CubeType)]
struct Known {
    sum_exps: SharedMemory<f32>,
    means: SharedMemory<f32>,
    drop_keys: SharedMemory<u32>,
    drop_flips: SharedMemory<u32>,
}

/// Makes shared memory for what is known of the queries on the other side.
#[cube]
fn known_of_others(#[comptime] form: Form) -> Known {
    Known {
        sum_exps: SharedMemory::<f32>::new(form.others),
        means: SharedMemory::<f32>::new(form.others),
        drop_keys: SharedMemory::<u32>::new(form.others),
        drop_flips: SharedMemory::<u32>::new(form.others),
    }
}

/// Loads what is known of the queries from position `first` on, those before `end`.
#[cube]
fn load_known(
    known: &mut Known,
    log_sum_exp: &Array<f32>,
    means: &Array<f32>,
    block: &Block,
    plan: &KernelPlan,
    first: usize,
    end: usize,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let position = first + unit;
    if unit < comptime!(form.others) && position < end {
        let row = (block.start + position) * plan.heads + block.head;
        known.sum_exps[unit] = log_sum_exp[row];
        known.means[unit] = means[row];
        if comptime!(form.drops) {
            let drop = weights_key(block, plan, position, form);
            known.drop_keys[unit] = drop.low;
            known.drop_flips[unit] = drop.high;
        }
    }
}

/// Computes the product of a row in one block with a row in another.
#[cube]
fn dot(
    left: &SharedMemory<f32>,
    right: &SharedMemory<f32>,
    left_row: usize,
    right_row: usize,
    #[comptime] head_size: usize,
) -> f32 {
    let mut sum = 0.0f32;
    for n in 0..head_size {
        sum += left[left_row * comptime!(head_size) + n] * right[right_row * comptime!(head_size) + n];
    }
    sum
}
