//! NCCL: messages between the memories of NVIDIA GPUs, one GPU for each process.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError};
use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclUniqueId};
use libloading::Library;

/// Names of the library: that of NVIDIA's packages, and that of its development package.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// The first version that sends and receives, as `ncclGetVersion` codes it: 2.7.
const LEAST: c_int = 2700;

/// Bytes of a number.
const BYTES: u64 = 4;

/// The reason why NCCL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NcclError {
    /// No library.
    #[error("the library libnccl was not found (NVIDIA's package libnccl2 or nvidia-nccl has it)")]
    Library,
    /// A library that lacks what is needed.
    #[error("NCCL {found} is too old: 2.7 or newer is needed")]
    TooOld {
        /// Its version.
        found: String,
    },
    /// NCCL reports a failure.
    #[error("NCCL failed ({call}: {reason}); with NCCL_DEBUG=INFO in the environment it tells more")]
    Failed {
        /// The function.
        call: &'static str,
        /// NCCL's reason.
        reason: String,
    },
    /// The driver reports a failure.
    #[error("the driver refuses: {reason}")]
    Driver {
        /// The driver's reason.
        reason: String,
    },
}

impl From<DriverError> for NcclError {
    fn from(error: DriverError) -> Self {
        Self::Driver { reason: error.to_string() }
    }
}

/// Moves numbers in one direction: memory, count, type, the other process.
type Move<P> = unsafe extern "C" fn(P, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_int;

/// The functions of the library that are used. Results are integers here, as a newer version may have further ones.
struct Functions {
    version: c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> c_int,
    init_rank: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> c_int,
    abort: unsafe extern "C" fn(ncclComm_t) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    send: Move<*const c_void>,
    receive: Move<*mut c_void>,
    all_gather:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, ncclDataType_t, ncclComm_t, cudaStream_t) -> c_int,
}

impl Functions {
    /// Loads the library, once for the process: its threads may outlive every use of it.
    fn load() -> Result<&'static Self, NcclError> {
        static LOADED: OnceLock<Result<Functions, NcclError>> = OnceLock::new();
        LOADED.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self, NcclError> {
        // SAFETY: loads a library, which runs nothing but what the library itself does then.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok()).ok_or(NcclError::Library)?;
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: all types of functions here are those of nccl.h, which are the same in every version 2.
        unsafe {
            let get_version = library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>("ncclGetVersion");
            let mut version = 0;
            get_version.map_err(|_| NcclError::Library)?(&raw mut version);
            if version < LEAST {
                return Err(NcclError::TooOld { found: written(version) });
            }
            Ok(Self {
                version,
                error_string: function(library, "ncclGetErrorString")?,
                unique_id: function(library, "ncclGetUniqueId")?,
                init_rank: function(library, "ncclCommInitRank")?,
                abort: function(library, "ncclCommAbort")?,
                group_start: function(library, "ncclGroupStart")?,
                group_end: function(library, "ncclGroupEnd")?,
                send: function(library, "ncclSend")?,
                receive: function(library, "ncclRecv")?,
                all_gather: function(library, "ncclAllGather")?,
            })
        }
    }

    fn check(&self, call: &'static str, result: c_int) -> Result<(), NcclError> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: the library gives a text that it keeps, whatever the number.
        let reason = unsafe { CStr::from_ptr((self.error_string)(result)) };
        Err(NcclError::Failed { call, reason: reason.to_string_lossy().into_owned() })
    }
}

/// Returns a function of the library.
///
/// # Safety
/// The function has the type `T`.
unsafe fn function<T: Copy>(library: &'static Library, name: &'static str) -> Result<T, NcclError> {
    // SAFETY: as the caller promises.
    let found = unsafe { library.get::<T>(name) };
    found.map(|function| *function).map_err(|_| NcclError::Failed { call: name, reason: "no such function".to_owned() })
}

/// Returns a version as people write it. From 2.9 on, the code has two digits for the minor version.
fn written(code: c_int) -> String {
    let (major, minor) = if code < 10_000 { (code / 1000, code / 100 % 10) } else { (code / 10_000, code / 100 % 100) };
    format!("{major}.{minor}.{}", code % 100)
}

/// Returns the version of NCCL on this machine.
///
/// # Errors
/// There is no library, or one that cannot be used.
pub fn nccl_version() -> Result<String, NcclError> {
    Functions::load().map(|functions| written(functions.version))
}

/// This process among those whose GPUs exchange numbers.
///
/// Every process makes the same calls in the same order. One that is gone is waited for without end.
pub struct Nccl {
    functions: &'static Functions,
    communicator: Mutex<Communicator>,
    stream: Arc<CudaStream>,
    size: usize,
}

/// NCCL's own state of a process.
struct Communicator(ncclComm_t);

// SAFETY: NCCL lets any thread call, one at a time; the mutex sees to that.
unsafe impl Send for Communicator {}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nccl").field("version", &written(self.functions.version)).field("size", &self.size).finish()
    }
}

impl Nccl {
    /// Makes the name under which processes meet, for one of them to tell the others.
    ///
    /// # Errors
    /// There is no NCCL, or it finds no network interface.
    pub fn unique_id() -> Result<Vec<u8>, NcclError> {
        let functions = Functions::load()?;
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: the memory is there for the call.
        functions.check("ncclGetUniqueId", unsafe { (functions.unique_id)(&raw mut id) })?;
        Ok(id.internal.iter().map(|byte| byte.cast_unsigned()).collect())
    }

    /// Meets the other processes, which all call this with the same `id` and ranks of their own. `device` is the index
    /// of this process's GPU.
    ///
    /// # Errors
    /// NCCL or the driver refuses. Other processes may then wait without end.
    ///
    /// # Panics
    /// If the id was not made by [`unique_id`](Self::unique_id).
    pub fn join(id: &[u8], rank: usize, size: usize, device: usize) -> Result<Self, NcclError> {
        let functions = Functions::load()?;
        let internal: Vec<c_char> = id.iter().map(|byte| byte.cast_signed()).collect();
        let id = ncclUniqueId { internal: internal.try_into().expect("an id of 128 bytes") };
        // The context of the device that CubeCL works in, too.
        let context = CudaContext::new(device)?;
        let stream = context.new_stream()?;
        let mut communicator: ncclComm_t = std::ptr::null_mut();
        // SAFETY: the memory is there for the call, and the device's context is that of this thread.
        let result = unsafe { (functions.init_rank)(&raw mut communicator, size as c_int, id, rank as c_int) };
        functions.check("ncclCommInitRank", result)?;
        Ok(Self { functions, communicator: Mutex::new(Communicator(communicator)), stream, size })
    }

    /// Returns the number of processes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Gives part i of `parts` to process i, and writes what each process gave to this one to `received`, by rank. Both
    /// have `each` float32 numbers for each process. Returns when this is done.
    ///
    /// # Safety
    /// Both are memory of the device that was joined with, and nothing else uses them until this returns: all work that
    /// was asked of the device on them is done.
    ///
    /// # Errors
    /// NCCL or the driver fails.
    pub(crate) unsafe fn all_to_all(&self, parts: u64, received: u64, each: usize) -> Result<(), NcclError> {
        self.exchange(|own, communicator, stream| {
            let functions = own.functions;
            // SAFETY: the calls of a group may come in any order; the places are within the memory that was promised.
            unsafe {
                functions.check("ncclGroupStart", (functions.group_start)())?;
                for peer in 0..own.size {
                    let at = (peer * each) as u64 * BYTES;
                    let (from, to) = ((parts + at) as *const c_void, (received + at) as *mut c_void);
                    let (kind, peer) = (ncclDataType_t::ncclFloat32, peer as c_int);
                    functions.check("ncclSend", (functions.send)(from, each, kind, peer, communicator, stream))?;
                    functions.check("ncclRecv", (functions.receive)(to, each, kind, peer, communicator, stream))?;
                }
                functions.check("ncclGroupEnd", (functions.group_end)())
            }
        })
    }

    /// Writes the `each` float32 numbers of `own` of every process to `gathered`, by rank. Returns when this is done.
    ///
    /// # Safety
    /// As for [`all_to_all`](Self::all_to_all); `gathered` has `each` numbers for each process.
    ///
    /// # Errors
    /// NCCL or the driver fails.
    pub(crate) unsafe fn all_gather(&self, own: u64, gathered: u64, each: usize) -> Result<(), NcclError> {
        self.exchange(|link, communicator, stream| {
            let (from, to) = (own as *const c_void, gathered as *mut c_void);
            let kind = ncclDataType_t::ncclFloat32;
            // SAFETY: the memory is as was promised.
            let result = unsafe { (link.functions.all_gather)(from, to, each, kind, communicator, stream) };
            link.functions.check("ncclAllGather", result)
        })
    }

    /// Makes calls on the device, and waits until they are done.
    fn exchange(
        &self,
        calls: impl FnOnce(&Self, ncclComm_t, cudaStream_t) -> Result<(), NcclError>,
    ) -> Result<(), NcclError> {
        let communicator = self.communicator.lock().unwrap_or_else(PoisonError::into_inner);
        self.stream.context().bind_to_thread()?;
        calls(self, communicator.0, self.stream.cu_stream().cast())?;
        Ok(self.stream.synchronize()?)
    }
}

/// Leaves the others without asking them, as one that has failed must. What is under way is lost: processes that go on
/// meet once more, by other means, before they drop this.
impl Drop for Nccl {
    fn drop(&mut self) {
        let communicator = self.communicator.get_mut().unwrap_or_else(PoisonError::into_inner).0;
        // SAFETY: the communicator is one that NCCL gave, and nothing uses it after this. What NCCL says of its end
        // changes nothing any more.
        let _ = unsafe { (self.functions.abort)(communicator) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_as_people_do() {
        assert_eq!([2708, 20_304, 22_703, 23_004].map(written), ["2.7.8", "2.3.4", "2.27.3", "2.30.4"]);
    }
}
