//! The fuzz targets on their seeds: they compile, and no seed, and no seed that is cut short, makes anything panic. A new defect
//! that fuzzing found is a seed more.

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, dead_code, reason = "it is a library of its own, of which this uses a part")]
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

/// Lengths at which a seed is cut.
const CUTS: usize = 12;

#[test]
#[expect(clippy::print_stderr, reason = "a failure names the input")]
fn no_seed_of_a_fuzz_target_panics() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, target) in targets::TARGETS {
        let mut paths: Vec<_> = fs::read_dir(seeds.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 5, "{name} has seeds");
        for path in paths {
            let bytes = fs::read(&path).unwrap();
            // What fuzzing found is many and as short as it gets.
            let found = path.file_name().unwrap().to_string_lossy().starts_with("found-");
            for cut in if found { CUTS } else { 0 }..=CUTS {
                eprintln!("{}, {cut} of {CUTS} parts", path.display());
                target(&bytes[..bytes.len() * cut / CUTS]);
            }
        }
    }
}
