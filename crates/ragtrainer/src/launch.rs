//! Processes that a launcher (`mpirun`, `srun`) started to work on one run.

pub(crate) mod devices;
#[cfg(feature = "mpi")]
mod mpi;

use std::env;
use std::process;
use std::sync::Arc;

use colbert_train::{OneProcess, Processes};

use crate::error::Error;

/// Variables by which launchers tell a process how many they started: Open MPI, MPICH and Intel MPI, MVAPICH.
const SIZES: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_SIZE"];

/// This process among those that a launcher started with it. While this value lives, MPI is in use; it must live as long
/// as the work.
#[derive(Debug)]
pub struct Launched {
    processes: Arc<dyn Processes>,
    #[cfg(feature = "mpi")]
    session: Option<mpi::Session>,
}

impl Launched {
    /// Joins the processes of the launcher that started this one; without a launcher there is one process. To be called
    /// once, first of all, by the thread that later trains.
    ///
    /// # Errors
    /// A launcher started several processes, and this build has no MPI: each would do the whole work.
    pub fn join() -> Result<Self, Error> {
        #[cfg(feature = "mpi")]
        if was_launched() {
            let (session, processes) = mpi::Session::join();
            return Ok(Self { processes: Arc::new(processes), session: Some(session) });
        }
        #[cfg(not(feature = "mpi"))]
        if let Some(size) = started_by_launcher() {
            return Err(Error::NoMpi { size });
        }
        Ok(Self::one())
    }

    /// One process, on its own.
    pub fn one() -> Self {
        Self {
            processes: Arc::new(OneProcess),
            #[cfg(feature = "mpi")]
            session: None,
        }
    }

    /// The processes, for [`RagTrainer::with_processes`](crate::RagTrainer::with_processes).
    pub fn processes(&self) -> &Arc<dyn Processes> {
        &self.processes
    }

    /// Threads for each process of this machine, so that together they use the cores that they may run on: all cores
    /// divided by the processes that share them. A launcher that binds processes to cores of their own leaves nothing to
    /// divide.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let sharers = match &*cores_of_process() {
            "" => self.processes.local_size(),
            own => self.processes.all_gather(own.as_bytes()).iter().filter(|other| *other == own.as_bytes()).count(),
        };
        (cores / sharers.max(1)).max(1)
    }

    /// Ends all processes at once, as one of them cannot go on; to be called after the reason was told.
    pub fn abort(self, code: i32) -> ! {
        #[cfg(feature = "mpi")]
        if let Some(session) = self.session {
            session.abort(code);
        }
        process::exit(code)
    }
}

/// The number of processes that a launcher started, if it is more than one.
#[cfg(not(feature = "mpi"))]
fn started_by_launcher() -> Option<usize> {
    let sizes = SIZES.iter().filter_map(|name| env::var(name).ok()?.parse().ok());
    sizes.max().filter(|size| *size > 1)
}

/// Whether a launcher of MPI started this process.
#[cfg(feature = "mpi")]
fn was_launched() -> bool {
    // Slurm's own launcher speaks PMI or PMIx.
    let further = ["PMI_RANK", "PMIX_RANK", "PMI_FD"];
    SIZES.iter().chain(&further).any(|name| env::var_os(name).is_some())
}

/// The machine and the cores that this process may run on, as Linux names them; empty elsewhere.
fn cores_of_process() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(cores) = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")) else { return String::new() };
    format!("{} {cores}", machine())
}

/// A name of this machine that no other has, as Linux gives it; empty elsewhere.
fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
