//! Several processes of the real program, started by a launcher. The tests of MPI need the feature `mpi` and `mpirun`.

#[cfg(feature = "mpi")]
mod by_mpirun;
#[cfg(feature = "mpi")]
mod by_nccl;

/// Without MPI each process would do the whole work, and all would write to the same folder.
#[test]
#[cfg(not(feature = "mpi"))]
fn several_processes_without_mpi_are_refused() {
    use crate::program::ragtrainer_with;
    use crate::support::folder;

    let here = folder();
    let ran = ragtrainer_with(here.path(), &["train"], &[("OMPI_COMM_WORLD_SIZE", "4")]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.errors.contains("4 processes") && ran.errors.contains("--features mpi"), "{}", ran.errors);
    let one = ragtrainer_with(here.path(), &["runs", "."], &[("OMPI_COMM_WORLD_SIZE", "1")]);
    assert_eq!(one.code, Some(0), "{}", one.errors);
}
