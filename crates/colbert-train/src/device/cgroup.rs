//! Memory limits of containers: Linux control groups, version 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

/// Names of the files of a version of control groups.
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// Line of `memory.stat` that counts cached files, which the system drops before it refuses memory.
    reclaimable: &'static str,
}

const VERSION_1: Files =
    Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", reclaimable: "total_inactive_file" };

const VERSION_2: Files = Files { limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file" };

/// Returns the bytes that this process may still take by the limits of its control groups, the least over all levels.
/// None if no level has a limit. `root` is `/` outside of tests.
pub(crate) fn left(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    groups.lines().filter_map(|line| of_hierarchy(root, line)).min()
}

/// Returns the least of one hierarchy, for which the file has a line `number:controllers:path`.
fn of_hierarchy(root: &Path, line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (mount, files) = match controllers {
        "" => (root.join("sys/fs/cgroup"), VERSION_2),
        _ if controllers.split(',').any(|name| name == "memory") => (root.join("sys/fs/cgroup/memory"), VERSION_1),
        _ => return None,
    };
    // Inside a container the path may be that of the host, where only the last levels, or none, are visible.
    let path = PathBuf::from(path.trim_start_matches('/'));
    path.ancestors().filter_map(|group| of_group(&mount.join(group), &files)).min()
}

fn of_group(group: &Path, files: &Files) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" is no number, and version 1 writes a number near 2^63 for no limit.
    let limit = number(files.limit).filter(|limit| *limit < 1 << 60)?;
    let usage = number(files.usage)?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let reclaimable = stat.lines().find_map(|line| line.strip_prefix(files.reclaimable)?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(usage.saturating_sub(reclaimable.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn tree(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn version_2_takes_the_least_of_all_levels() {
        let root = tree(&[
            ("proc/self/cgroup", "0::/jobs/one\n"),
            ("sys/fs/cgroup/memory.stat", "inactive_file 5\n"),
            ("sys/fs/cgroup/jobs/memory.max", "1000\n"),
            ("sys/fs/cgroup/jobs/memory.current", "700\n"),
            ("sys/fs/cgroup/jobs/memory.stat", "anon 600\ninactive_file 100\n"),
            ("sys/fs/cgroup/jobs/one/memory.max", "max\n"),
            ("sys/fs/cgroup/jobs/one/memory.current", "500\n"),
        ]);
        assert_eq!(left(root.path()), Some(400));
        fs::write(root.path().join("sys/fs/cgroup/jobs/one/memory.max"), "600\n").unwrap();
        assert_eq!(left(root.path()), Some(100));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let root = tree(&[
            ("proc/self/cgroup", "0::/kubepods/pod1/abc\n"),
            ("sys/fs/cgroup/memory.max", "800\n"),
            ("sys/fs/cgroup/memory.current", "900\n"),
        ]);
        assert_eq!(left(root.path()), Some(0), "more is used than allowed");
    }

    #[test]
    fn version_1_has_a_hierarchy_for_memory() {
        let root = tree(&[
            ("proc/self/cgroup", "12:cpu,cpuacct:/a\n5:memory:/docker/b\n0::/\n"),
            ("sys/fs/cgroup/memory/docker/b/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/b/memory.usage_in_bytes", "10\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 250\n"),
        ]);
        assert_eq!(left(root.path()), Some(750));
    }

    #[test]
    fn without_a_limit_there_is_none() {
        assert_eq!(left(tree(&[("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max")]).path()), None);
        assert_eq!(left(tree(&[]).path()), None);
    }
}
