//! How tensors move between the processes of a run: by NCCL between NVIDIA GPUs, else through the hosts.

use std::fmt;
use std::sync::Arc;

use colbert_train::Processes;

use crate::backend::Backend;
use crate::error::Error;

/// How gradients and embeddings move between the processes of a run on NVIDIA GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exchange {
    /// From GPU to GPU.
    Nccl {
        /// NCCL's version.
        version: String,
    },
    /// Through the memory of the hosts.
    Hosts {
        /// The reason why not by NCCL.
        reason: String,
    },
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nccl { version } => write!(f, "gradients: between GPUs by NCCL {version}"),
            Self::Hosts { reason } => write!(f, "gradients: between GPUs through the host's memory, as {reason}"),
        }
    }
}

#[cfg(not(feature = "cuda-untuned"))]
impl Exchange {
    /// There are no NVIDIA GPUs in this build that NCCL could join.
    pub(crate) fn of(_processes: &dyn Processes, _backend: Backend) -> Option<Self> {
        None
    }

    /// The processes as they are.
    pub(crate) fn join(processes: &Arc<dyn Processes>, _backend: Backend) -> Result<Arc<dyn Processes>, Error> {
        Ok(Arc::clone(processes))
    }
}

#[cfg(feature = "cuda-untuned")]
mod by_nccl {
    use colbert_kernels::device::{DeviceLink, Nccl, gpu_address, nccl_version};

    use super::*;
    use crate::launch::machine;

    impl Exchange {
        /// Returns the exchange that all processes of a run can use; all of them call it and get the same. None for a
        /// process on its own, and where no process has a GPU of the backend `cuda`.
        pub(crate) fn of(processes: &dyn Processes, backend: Backend) -> Option<Self> {
            if processes.size() == 1 {
                return None;
            }
            let own = Place::of(backend, processes.rank()).to_text();
            let places = processes.all_gather(own.as_bytes());
            among(&places.iter().map(|text| Place::from_text(&String::from_utf8_lossy(text))).collect::<Vec<_>>())
        }

        /// Joins the GPUs of the processes where NCCL can. The processes that are returned have the link.
        ///
        /// # Errors
        /// NCCL is there, but fails. The others may then wait without end: the program has to end them.
        pub(crate) fn join(processes: &Arc<dyn Processes>, backend: Backend) -> Result<Arc<dyn Processes>, Error> {
            let found = Self::of(&**processes, backend);
            if let Some(found) = &found {
                tracing::info!("{found}");
            }
            let (Some(Self::Nccl { .. }), Backend::Cuda(device)) = (found, backend) else {
                return Ok(Arc::clone(processes));
            };
            let failed = |source| Error::Link { source: Box::new(source) };
            let id = if processes.is_first() { Nccl::unique_id().map_err(failed)? } else { Vec::new() };
            let id = processes.broadcast(&id);
            let nccl = Nccl::join(&id, processes.rank(), processes.size(), device).map_err(failed)?;
            Ok(Arc::new(Linked { hosts: Arc::clone(processes), link: DeviceLink::Nccl(nccl) }))
        }
    }

    /// Facts about a process that decide whether NCCL can be used.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Place {
        /// It does not use the backend `cuda`.
        Elsewhere,
        /// It cannot use NCCL, for this reason.
        Without(String),
        /// Its version of NCCL, and the GPU.
        Gpu { version: String, gpu: String },
    }

    impl Place {
        fn of(backend: Backend, rank: usize) -> Self {
            let Backend::Cuda(device) = backend else { return Self::Elsewhere };
            match nccl_version() {
                Err(error) => Self::Without(error.to_string()),
                Ok(version) => {
                    // One whose driver does not tell is taken for its own.
                    let gpu = gpu_address(device).map_or_else(|| format!("of process {rank}"), |at| format!("{at:?}"));
                    Self::Gpu { version, gpu: format!("{} {gpu}", machine()) }
                }
            }
        }

        fn to_text(&self) -> String {
            match self {
                Self::Elsewhere => String::new(),
                Self::Without(reason) => format!("-{reason}"),
                Self::Gpu { version, gpu } => format!("{version}\n{gpu}"),
            }
        }

        fn from_text(text: &str) -> Self {
            match (text.strip_prefix('-'), text.split_once('\n')) {
                (Some(reason), _) => Self::Without(reason.to_owned()),
                (None, Some((version, gpu))) => Self::Gpu { version: version.to_owned(), gpu: gpu.to_owned() },
                (None, None) => Self::Elsewhere,
            }
        }
    }

    /// Returns the exchange that processes at these places can use.
    fn among(places: &[Place]) -> Option<Exchange> {
        if places.iter().all(|place| *place == Place::Elsewhere) {
            return None;
        }
        let mut known: Vec<(&str, &str)> = Vec::new();
        for (rank, place) in places.iter().enumerate() {
            let reason = match place {
                Place::Elsewhere => format!("process {rank} does not use the backend cuda"),
                Place::Without(reason) => reason.clone(),
                Place::Gpu { version, gpu } => match known.first() {
                    Some((first, _)) if first != version => {
                        format!("process 0 has NCCL {first} and process {rank} has {version}")
                    }
                    _ => match known.iter().position(|(_, other)| other == gpu) {
                        Some(other) => {
                            format!("processes {other} and {rank} use the same GPU, which NCCL refuses")
                        }
                        None => {
                            known.push((version, gpu));
                            continue;
                        }
                    },
                },
            };
            return Some(Exchange::Hosts { reason });
        }
        known.first().map(|(version, _)| Exchange::Nccl { version: (*version).to_owned() })
    }

    /// Processes whose GPUs are joined.
    #[derive(Debug)]
    struct Linked {
        hosts: Arc<dyn Processes>,
        link: DeviceLink,
    }

    impl Processes for Linked {
        fn rank(&self) -> usize {
            self.hosts.rank()
        }

        fn size(&self) -> usize {
            self.hosts.size()
        }

        fn local_rank(&self) -> usize {
            self.hosts.local_rank()
        }

        fn local_size(&self) -> usize {
            self.hosts.local_size()
        }

        fn all_gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
            self.hosts.all_gather(own)
        }

        fn all_to_all(&self, parts: &[&[u32]]) -> Vec<Vec<u32>> {
            self.hosts.all_to_all(parts)
        }

        fn device_link(&self) -> Option<&DeviceLink> {
            Some(&self.link)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn gpu(version: &str, gpu: &str) -> Place {
            Place::Gpu { version: version.to_owned(), gpu: gpu.to_owned() }
        }

        fn told(places: &[Place]) -> Option<String> {
            let sent = places.iter().map(|place| Place::from_text(&place.to_text())).collect::<Vec<_>>();
            assert_eq!(sent, places);
            among(&sent).map(|found| found.to_string())
        }

        #[test]
        fn nccl_joins_processes_with_one_version_and_gpus_of_their_own() {
            let own = [gpu("2.27.3", "m [0, 1, 0]"), gpu("2.27.3", "m [0, 2, 0]"), gpu("2.27.3", "n [0, 1, 0]")];
            assert_eq!(told(&own).unwrap(), "gradients: between GPUs by NCCL 2.27.3");
            assert_eq!(told(&[Place::Elsewhere, Place::Elsewhere]), None, "not on GPUs");
            let hosts = |places: &[Place]| {
                let said = told(places).unwrap();
                said.strip_prefix("gradients: between GPUs through the host's memory, as ").unwrap().to_owned()
            };
            let same = [own[0].clone(), own[1].clone(), own[0].clone()];
            assert_eq!(hosts(&same), "processes 0 and 2 use the same GPU, which NCCL refuses");
            let other = [own[0].clone(), gpu("2.19.4", "m [0, 2, 0]")];
            assert_eq!(hosts(&other), "process 0 has NCCL 2.27.3 and process 1 has 2.19.4");
            let without = [own[0].clone(), Place::Without("the library libnccl was not found".to_owned())];
            assert_eq!(hosts(&without), "the library libnccl was not found");
            assert_eq!(hosts(&[own[0].clone(), Place::Elsewhere]), "process 1 does not use the backend cuda");
        }
    }
}
