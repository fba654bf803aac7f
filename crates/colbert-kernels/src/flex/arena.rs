//! One range of addresses, from which large buffers are taken and to which they return.
//!
//! Batches differ in their number of tokens, so that a buffer hardly ever has a size that one had before. Here a new
//! buffer takes part of the room that another left, and free neighbours become one again: the pages stay, and the
//! system need not clear new ones.

use std::ops::Range;
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};

/// Bytes of addresses that are reserved; memory is only used for pages that are touched.
const RESERVED: u64 = 1 << 38;

/// A range of addresses and its free parts.
pub(super) struct Arena {
    map: Option<MmapRaw>,
    /// Whether addresses were requested; a system that refuses is not asked again.
    asked: bool,
    /// Free ranges in order, none next to another; all below `top`.
    free: Vec<Range<usize>>,
    /// The end of the addresses that were in use.
    top: usize,
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self { map: None, asked: false, free: Vec::new(), top: 0 }
    }

    /// Takes `bytes` bytes, all of them initialised. They begin at a multiple of 64 as long as all sizes are multiples
    /// of 64. None if the system reserves no addresses, or all are in use.
    pub(super) fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        self.reserve()?;
        let smallest =
            (0..self.free.len()).filter(|&i| self.free[i].len() >= bytes).min_by_key(|&i| self.free[i].len());
        let start = match smallest {
            Some(i) => {
                let start = self.free[i].start;
                self.free[i].start += bytes;
                if self.free[i].is_empty() {
                    self.free.remove(i);
                }
                start
            }
            None => {
                // A free range just below the top becomes part of it.
                let start = self.free.last().filter(|last| last.end == self.top).map_or(self.top, |last| last.start);
                let end = start.checked_add(bytes).filter(|end| *end <= self.size())?;
                if start < self.top {
                    self.free.pop();
                }
                self.top = end;
                start
            }
        };
        let map = self.map.as_ref().expect("addresses are reserved");
        // SAFETY: `start` lies within the map.
        NonNull::new(unsafe { map.as_mut_ptr().add(start) })
    }

    /// Takes back what [`Arena::take`] gave. False if it is from elsewhere.
    pub(super) fn give_back(&mut self, start: NonNull<u8>, bytes: usize) -> bool {
        let Some(map) = &self.map else { return false };
        let Some(start) = (start.as_ptr() as usize).checked_sub(map.as_ptr() as usize) else { return false };
        if start >= self.top {
            return false;
        }
        let (mut given, mut place) = (start..start + bytes, self.free.partition_point(|free| free.start < start));
        if place > 0 && self.free[place - 1].end == given.start {
            place -= 1;
            given.start = self.free.remove(place).start;
        }
        if self.free.get(place).is_some_and(|next| next.start == given.end) {
            given.end = self.free.remove(place).end;
        }
        self.free.insert(place, given);
        true
    }

    /// Gives the memory of what is free back to the system; the addresses stay.
    pub(super) fn release(&mut self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            for free in &self.free {
                let (start, end) = (free.start.next_multiple_of(PAGE), free.end / PAGE * PAGE);
                if start < end {
                    // SAFETY: nobody uses these pages; anonymous memory that is touched again is zero.
                    let released =
                        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
                    if let Err(error) = released {
                        tracing::debug!(%error, "idle memory is kept");
                    }
                }
            }
        }
    }

    fn size(&self) -> usize {
        self.map.as_ref().map_or(0, |map| map.len())
    }

    fn reserve(&mut self) -> Option<()> {
        if !self.asked {
            self.asked = true;
            let size = usize::try_from(RESERVED).ok()?;
            match MmapOptions::new().len(size).no_reserve_swap().map_anon() {
                Ok(map) => {
                    #[cfg(target_os = "linux")]
                    if let Err(error) = map.advise(memmap2::Advice::HugePage) {
                        tracing::debug!(%error, "no huge pages");
                    }
                    self.map = Some(map.into());
                }
                Err(error) => tracing::debug!(%error, "no addresses for an arena"),
            }
        }
        self.map.as_ref().map(|_| ())
    }
}

/// A page, or several of a system with smaller ones.
#[cfg(unix)]
const PAGE: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::flex::testing::random;

    #[test]
    fn parts_never_meet_and_free_neighbours_become_one() {
        let mut arena = Arena::new();
        let sizes = random(4000, 7);
        let mut used: BTreeMap<usize, usize> = BTreeMap::new();
        let mut most = 0;
        for (step, number) in sizes.iter().enumerate() {
            if step % 50 < 30 {
                let bytes = 64 * (1 + (number.abs() * 1000.0) as usize);
                let start = arena.take(bytes).expect("a system that reserves addresses").as_ptr() as usize;
                assert_eq!(start % 64, 0);
                let before = used.range(..start + bytes).next_back();
                assert!(before.is_none_or(|(other, bytes)| other + bytes <= start), "step {step}");
                used.insert(start, bytes);
            } else if let Some((&start, &bytes)) =
                used.iter().nth((number.abs() * used.len() as f32) as usize % used.len().max(1))
            {
                used.remove(&start);
                assert!(arena.give_back(NonNull::new(start as *mut u8).unwrap(), bytes));
            }
            let base = arena.map.as_ref().unwrap().as_ptr() as usize;
            let in_use: usize = used.values().sum();
            let free: usize = arena.free.iter().map(Range::len).sum();
            assert_eq!(in_use + free, arena.top, "nothing is lost");
            assert!(arena.free.windows(2).all(|pair| pair[0].end < pair[1].start), "in order, apart");
            assert!(used.iter().all(|(start, bytes)| start + bytes <= base + arena.top));
            most = most.max(in_use);
        }
        assert!(arena.top < 2 * most, "{} of {most} at most in use", arena.top);
        for (start, bytes) in used {
            assert!(arena.give_back(NonNull::new(start as *mut u8).unwrap(), bytes));
        }
        assert_eq!(arena.free, [Range { start: 0, end: arena.top }]);
    }

    #[test]
    fn what_is_released_can_be_used_again() {
        let mut arena = Arena::new();
        let bytes = 3 << 20;
        let start = arena.take(bytes).unwrap();
        // SAFETY: just taken.
        unsafe { start.as_ptr().write_bytes(7, bytes) };
        assert!(arena.give_back(start, bytes));
        arena.release();
        let again = arena.take(bytes).unwrap();
        assert_eq!(again, start);
        // SAFETY: just taken; released memory is initialised too.
        let numbers = unsafe { std::slice::from_raw_parts(again.as_ptr(), bytes) };
        assert!(cfg!(not(target_os = "linux")) || numbers.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn more_than_is_reserved_and_what_is_not_its_own_are_refused() {
        let mut arena = Arena::new();
        assert!(arena.take(usize::MAX).is_none());
        let one = arena.take(64).unwrap();
        assert!(arena.take(arena.size()).is_none());
        assert!(arena.give_back(one, 64));
        let mut elsewhere = 0u8;
        assert!(!arena.give_back(NonNull::from(&mut elsewhere), 64));
        assert!(!Arena::new().give_back(one, 64));
    }
}
