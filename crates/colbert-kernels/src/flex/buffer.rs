//! Buffers that are used again: a step of training asks for the same few hundred tensors every time, and fresh memory
//! costs a page fault every 4 KiB.
//!
//! A buffer from the pool holds arbitrary numbers, never uninitialised memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Shape};
use burn_flex::{FlexTensor, Layout as TensorLayout};
use burn_std::{AllocationController, AllocationProperty, Bytes};

/// A cache line, so that no vector load straddles two.
const ALIGNMENT: usize = 64;

/// Idle bytes that the pool keeps at most; the longest idle are given back first.
const MAX_IDLE_BYTES: usize = 1 << 30;

/// Buffers smaller than this are not worth keeping.
const MIN_POOLED_BYTES: usize = 1 << 14;

/// Memory of `bytes` bytes, all of them initialised.
struct Block {
    start: NonNull<u8>,
    bytes: usize,
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
        let layout = Self::layout(bytes);
        // SAFETY: `bytes` is at least ALIGNMENT: see `Buffer::new`.
        let start = unsafe { alloc_zeroed(layout) };
        Self { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), bytes }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) }
    }
}

/// Idle blocks, longest idle first.
static POOL: Mutex<Vec<Block>> = Mutex::new(Vec::new());

fn take(bytes: usize) -> Block {
    if bytes >= MIN_POOLED_BYTES {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        // A block may be larger by a quarter: batches differ a little in their number of tokens.
        let fits = (0..pool.len()).filter(|&i| (bytes..=bytes + bytes / 4).contains(&pool[i].bytes));
        if let Some(i) = fits.min_by_key(|&i| pool[i].bytes) {
            return pool.remove(i);
        }
    }
    Block::new(bytes)
}

fn give_back(block: Block) {
    if block.bytes < MIN_POOLED_BYTES {
        return;
    }
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    pool.push(block);
    let mut idle: usize = pool.iter().map(|block| block.bytes).sum();
    let mut freed = 0;
    while idle > MAX_IDLE_BYTES {
        idle -= pool[freed].bytes;
        freed += 1;
    }
    pool.drain(..freed);
}

/// Numbers of type `f32` or `i32` in pooled memory; it goes back to the pool when the last tensor of it is dropped.
pub(crate) struct Buffer<T = f32> {
    block: Option<Block>,
    length: usize,
    of: std::marker::PhantomData<T>,
}

/// Types of which any bits are a value.
pub(crate) trait Plain: Copy + 'static {
    const DTYPE: DType;
}

impl Plain for f32 {
    const DTYPE: DType = DType::F32;
}

impl Plain for i32 {
    const DTYPE: DType = DType::I32;
}

impl<T: Plain> Buffer<T> {
    /// `length` arbitrary numbers.
    pub(crate) fn new(length: usize) -> Self {
        let bytes = (length * size_of::<T>()).max(1).next_multiple_of(ALIGNMENT);
        Self { block: Some(take(bytes)), length, of: std::marker::PhantomData }
    }

    /// A tensor of these numbers.
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

/// A pointer into a buffer that several threads write disjoint parts of.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_tensor_s_memory_is_used_again() {
        // A length that no other test asks for.
        let length = 987_653;
        let mut buffer = Buffer::<f32>::new(length);
        buffer.fill(3.0);
        let start = buffer.as_ptr();
        assert_eq!(start as usize % ALIGNMENT, 0);
        let tensor = buffer.into_tensor([length]);
        let copy = tensor.clone();
        drop(tensor);
        assert_eq!(copy.as_slice::<f32>().unwrap()[length - 1], 3.0);
        let other = Buffer::<f32>::new(length);
        assert_ne!(other.as_ptr(), start);
        drop(copy);
        assert_eq!(Buffer::<f32>::new(length).as_ptr(), start);
        drop(other);
    }

    #[test]
    fn a_tensor_of_nothing_has_no_numbers() {
        let tensor = Buffer::<f32>::new(0).into_tensor([0, 5]);
        assert_eq!(tensor.as_slice::<f32>().unwrap().len(), 0);
        assert_eq!(tensor.into_data().bytes.len(), 0);
    }
}
