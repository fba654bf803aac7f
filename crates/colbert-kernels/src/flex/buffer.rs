//! A pool of buffers: every training step needs the same few hundred tensors, and fresh memory costs a page fault every
//! 4 KiB.
//!
//! A buffer from the pool holds arbitrary numbers, never uninitialised memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Shape};
use burn_flex::{FlexTensor, Layout as TensorLayout};
use burn_std::{AllocationController, AllocationProperty, Bytes};
use memmap2::MmapMut;

use crate::flex::arena::Arena;

/// A cache line, so that no vector load straddles two.
const ALIGNMENT: usize = 64;

/// Buffers smaller than this are not worth keeping.
const MIN_POOLED_BYTES: usize = 1 << 14;

/// Memory of this size and above is mapped: it returns to the system as a whole, and may use huge pages.
const MIN_MAPPED_BYTES: usize = 1 << 20;

/// Memory of `bytes` bytes, all of them initialised.
struct Block {
    start: NonNull<u8>,
    bytes: usize,
    home: Home,
}

/// The origin of a block's memory.
enum Home {
    Allocator,
    Map { _map: MmapMut },
    Arena,
}

// SAFETY: a block owns its memory alone.
unsafe impl Send for Block {}
// SAFETY: shared access to a block only reads.
unsafe impl Sync for Block {}

impl Block {
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, ALIGNMENT).expect("a tensor fits the address space")
    }

    fn new(bytes: usize) -> Self {
        if bytes >= MIN_MAPPED_BYTES {
            return Self::mapped(bytes);
        }
        let layout = Self::layout(bytes);
        // SAFETY: `bytes` is at least ALIGNMENT: see `Buffer::new`.
        let start = unsafe { alloc_zeroed(layout) };
        Self { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), bytes, home: Home::Allocator }
    }

    fn mapped(bytes: usize) -> Self {
        let mut map = MmapMut::map_anon(bytes).unwrap_or_else(|_| handle_alloc_error(Self::layout(bytes)));
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            // Without huge pages there are more page faults, but the result is the same.
            tracing::debug!(%error, "no huge pages");
        }
        let start = NonNull::new(map.as_mut_ptr()).expect("mapped memory is somewhere");
        Self { start, bytes, home: Home::Map { _map: map } }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Home::Allocator = self.home {
            // SAFETY: allocated in `new` with the same layout.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) }
        }
    }
}

/// Idle blocks. Those outside the arena never make the process larger than it was when most blocks were in use: beyond
/// that, the longest idle are returned to the system.
struct Pool {
    /// For large blocks, if the system has the addresses.
    arena: Arena,
    /// Small blocks, and those that did not fit there. Longest idle first.
    idle: Vec<Block>,
    idle_bytes: usize,
    used_bytes: usize,
    /// Most bytes that were ever in use.
    peak_bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

impl Pool {
    const fn new() -> Self {
        Self { arena: Arena::new(), idle: Vec::new(), idle_bytes: 0, used_bytes: 0, peak_bytes: 0 }
    }

    fn lock() -> MutexGuard<'static, Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an idle block of this size, or of the next: batches differ a little in their number of tokens.
    fn take(&mut self, bytes: usize) -> Option<Block> {
        let most = pooled_size(bytes + 1);
        let fits = (0..self.idle.len()).filter(|&i| (bytes..=most).contains(&self.idle[i].bytes));
        let block = self.idle.remove(fits.min_by_key(|&i| self.idle[i].bytes)?);
        self.idle_bytes -= block.bytes;
        self.used_bytes += block.bytes;
        Some(block)
    }

    /// Counts a new block as used, and gives up idle ones for it.
    fn grow(&mut self, bytes: usize) {
        self.used_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        let mut excess = (self.used_bytes + self.idle_bytes).saturating_sub(self.peak_bytes);
        let mut freed = 0;
        while excess > 0 && freed < self.idle.len() {
            let bytes = self.idle[freed].bytes;
            excess = excess.saturating_sub(bytes);
            self.idle_bytes -= bytes;
            freed += 1;
        }
        self.idle.drain(..freed);
    }

    fn give_back(&mut self, block: Block) {
        self.used_bytes -= block.bytes;
        self.idle_bytes += block.bytes;
        self.idle.push(block);
    }
}

/// Rounds up to a size that blocks of the pool have: eight to an octave, so that batches of similar length share them.
fn pooled_size(bytes: usize) -> usize {
    bytes.next_multiple_of(1 << (bytes.ilog2() - 3))
}

fn take(bytes: usize) -> Block {
    if bytes >= MIN_POOLED_BYTES {
        let mut pool = Pool::lock();
        if bytes >= MIN_MAPPED_BYTES
            && let Some(start) = pool.arena.take(bytes)
        {
            return Block { start, bytes, home: Home::Arena };
        }
        let bytes = pooled_size(bytes);
        if let Some(block) = pool.take(bytes) {
            return block;
        }
        pool.grow(bytes);
        return Block::new(bytes);
    }
    Block::new(bytes)
}

/// Gives the memory of tensors that were dropped back to the system. Worth it before something that needs much memory
/// of another kind; the next tensors take new memory.
pub fn release_idle_memory() {
    let mut pool = Pool::lock();
    pool.arena.release();
    pool.idle_bytes = 0;
    pool.idle.clear();
}

fn give_back(block: Block) {
    if let Home::Arena = block.home {
        let known = Pool::lock().arena.give_back(block.start, block.bytes);
        debug_assert!(known, "a block of the arena");
    } else if block.bytes >= MIN_POOLED_BYTES {
        Pool::lock().give_back(block);
    }
}

/// Numbers in pooled memory, which returns to the pool when its last tensor is dropped.
pub(crate) struct Buffer<T = f32> {
    block: Option<Block>,
    length: usize,
    of: std::marker::PhantomData<T>,
}

/// A type for which any bits are a value.
pub(crate) trait Plain: Copy + 'static {
    const DTYPE: DType;
}

impl Plain for f32 {
    const DTYPE: DType = DType::F32;
}

impl Plain for i32 {
    const DTYPE: DType = DType::I32;
}

impl Plain for half::bf16 {
    const DTYPE: DType = DType::BF16;
}

impl<T: Plain> Buffer<T> {
    /// Creates a buffer of `length` arbitrary numbers.
    pub(crate) fn new(length: usize) -> Self {
        let bytes = (length * size_of::<T>()).max(1).next_multiple_of(ALIGNMENT);
        Self { block: Some(take(bytes)), length, of: std::marker::PhantomData }
    }

    /// Makes a tensor of these numbers.
    pub(crate) fn into_tensor(self, shape: impl Into<Shape>) -> FlexTensor {
        let shape = shape.into();
        let bytes = self.length * size_of::<T>();
        assert_eq!(shape.num_elements(), self.length, "numbers of the buffer and of its tensor");
        // SAFETY: all bytes of a block are initialised.
        let bytes = unsafe { Bytes::from_controller(Box::new(self), bytes) };
        FlexTensor::new(bytes, TensorLayout::contiguous(shape), T::DTYPE)
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("a buffer has its block until it is dropped")
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            give_back(block);
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the block has at least `length` numbers, initialised and aligned; any bits are a number.
        unsafe { std::slice::from_raw_parts(self.block().start.as_ptr().cast(), self.length) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the block is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.block().start.as_ptr().cast(), self.length) }
    }
}

impl<T: Plain> AllocationController for Buffer<T> {
    fn alloc_align(&self) -> usize {
        ALIGNMENT
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let block = self.block();
        // SAFETY: the block's own memory, borrowed for as long as the buffer is.
        unsafe { std::slice::from_raw_parts_mut(block.start.as_ptr().cast(), block.bytes) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        let block = self.block();
        // SAFETY: as in `memory_mut`.
        unsafe { std::slice::from_raw_parts(block.start.as_ptr().cast(), block.bytes) }
    }
}

/// A pointer into a buffer, for threads that write disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T = f32>(*mut T);

// SAFETY: every use states which part it writes; the parts of different threads do not meet.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(numbers: &mut [T]) -> Self {
        Self(numbers.as_mut_ptr())
    }

    /// # Safety
    /// `offset` must lie in the buffer.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// # Safety
    /// `count` numbers from `offset` on must lie in the buffer, and no one else may touch them.
    pub(crate) unsafe fn slice<'a>(self, offset: usize, count: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset), count) }
    }

    /// Returns the pointer to the part that begins at `offset`.
    ///
    /// # Safety
    /// `offset` must lie in the buffer.
    pub(crate) unsafe fn part(self, offset: usize) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { self.0.add(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_shares_its_buffer_until_the_last_copy_is_dropped() {
        let mut buffer = Buffer::<f32>::new(50_000);
        buffer.fill(3.0);
        assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        let tensor = buffer.into_tensor([50_000]);
        let copy = tensor.clone();
        drop(tensor);
        assert_eq!(copy.as_slice::<f32>().unwrap()[49_999], 3.0);
    }

    #[test]
    fn idle_blocks_are_used_again_and_never_add_to_the_peak() {
        let mut pool = Pool::new();
        let size = |units: usize| units * MIN_POOLED_BYTES / 2;
        let get = |pool: &mut Pool, units| {
            pool.take(size(units)).unwrap_or_else(|| {
                pool.grow(size(units));
                Block::new(size(units))
            })
        };
        let (a, b) = (get(&mut pool, 16), get(&mut pool, 8));
        let start = a.start;
        pool.give_back(a);
        assert_eq!(pool.idle_bytes, size(16));
        assert!(pool.take(size(14)).is_none(), "a block two sizes larger");
        let again = get(&mut pool, 15);
        assert_eq!(again.start, start, "a block of the next size");
        pool.give_back(again);
        let small = get(&mut pool, 10);
        assert_eq!(
            (pool.used_bytes, pool.idle_bytes, pool.peak_bytes),
            (size(18), 0, size(24)),
            "16 idle would make it 34"
        );
        pool.give_back(b);
        pool.give_back(small);
        let large = get(&mut pool, 24);
        assert_eq!((pool.used_bytes, pool.idle_bytes, pool.peak_bytes), (size(24), 0, size(24)));
        pool.give_back(large);
    }

    #[test]
    fn a_tensor_of_nothing_has_no_numbers() {
        let tensor = Buffer::<f32>::new(0).into_tensor([0, 5]);
        assert_eq!(tensor.as_slice::<f32>().unwrap().len(), 0);
        assert_eq!(tensor.into_data().bytes.len(), 0);
    }
}
