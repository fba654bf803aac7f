//! MPI: Open MPI, MPICH and what follows them.

use std::fmt;

use colbert_train::Processes;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::request::{self, Request};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Source};
use mpi::{Count, Rank, Threading};

/// Bytes that all processes together receive in one call, at most: MPI counts in 32 bits.
const AT_ONCE: usize = 1 << 30;

/// The use of MPI by this process, from the beginning to the end.
pub(super) struct Session(Universe);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// # Panics
    /// If MPI is in use already.
    pub(super) fn join() -> (Self, MpiProcesses) {
        let (universe, _) = mpi::initialize_with_threading(Threading::Serialized).expect("MPI is joined once");
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let own = MpiProcesses { rank, size, local_rank: 0, local_size: 1 };
        let machine = mpi::environment::processor_name().unwrap_or_default();
        let machines = own.all_gather(machine.as_bytes());
        let alike = |machines: &[Vec<u8>]| machines.iter().filter(|other| *other == machine.as_bytes()).count();
        let processes = MpiProcesses { local_rank: alike(&machines[..rank]), local_size: alike(&machines), ..own };
        (Self(universe), processes)
    }

    pub(super) fn abort(self, code: i32) -> ! {
        self.0.world().abort(code)
    }
}

/// All processes of the launcher.
#[derive(Debug, Clone, Copy)]
pub(super) struct MpiProcesses {
    rank: usize,
    size: usize,
    local_rank: usize,
    local_size: usize,
}

/// Where the parts of a buffer start.
fn starts(counts: &[Count]) -> Vec<Count> {
    let mut end = 0;
    counts
        .iter()
        .map(|count| {
            end += count;
            end - count
        })
        .collect()
}

impl Processes for MpiProcesses {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn local_size(&self) -> usize {
        self.local_size
    }

    fn all_gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        let world = SimpleCommunicator::world();
        let mut lengths = vec![0u64; self.size];
        world.all_gather_into(&(own.len() as u64), &mut lengths[..]);
        let each = AT_ONCE / self.size;
        let longest = lengths.iter().max().copied().unwrap_or(0) as usize;
        let mut gathered: Vec<Vec<u8>> = lengths.iter().map(|length| Vec::with_capacity(*length as usize)).collect();
        for start in (0..longest).step_by(each) {
            let count = |length: usize| length.saturating_sub(start).min(each);
            let counts: Vec<Count> = lengths.iter().map(|length| count(*length as usize) as Count).collect();
            let starts = starts(&counts);
            let mut received = vec![0u8; counts.iter().map(|count| *count as usize).sum()];
            let sent = &own[start.min(own.len())..][..count(own.len())];
            let mut parts = PartitionMut::new(&mut received[..], &counts[..], &starts[..]);
            world.all_gather_varcount_into(sent, &mut parts);
            for ((gathered, count), start) in gathered.iter_mut().zip(&counts).zip(starts) {
                gathered.extend_from_slice(&received[start as usize..][..*count as usize]);
            }
        }
        gathered
    }

    fn all_to_all(&self, parts: &[&[u32]]) -> Vec<Vec<u32>> {
        let world = SimpleCommunicator::world();
        let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let mut own_lengths = vec![0u64; self.size];
        world.all_to_all_into(&lengths[..], &mut own_lengths[..]);
        let mut received: Vec<Vec<u32>> = own_lengths.iter().map(|length| vec![0; *length as usize]).collect();
        received[self.rank].copy_from_slice(parts[self.rank]);
        // From and to the memory of the parts themselves: the library's own call wants them in one piece.
        request::scope(|scope| {
            let process = |rank: usize| world.process_at_rank(rank as Rank);
            let into = received.iter_mut().enumerate().filter(|(rank, part)| *rank != self.rank && !part.is_empty());
            let mut requests: Vec<_> =
                into.map(|(rank, part)| process(rank).immediate_receive_into(scope, &mut part[..])).collect();
            let from = parts.iter().enumerate().filter(|(rank, part)| *rank != self.rank && !part.is_empty());
            requests.extend(from.map(|(rank, part)| process(rank).immediate_send(scope, *part)));
            requests.into_iter().for_each(Request::wait_without_status);
        });
        received
    }
}
