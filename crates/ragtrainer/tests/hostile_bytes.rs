//! The fuzz targets on their seeds: the targets compile, and no seed, whole or cut short, makes anything panic. The fix
//! of a defect that fuzzing found adds a seed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ragtrainer::record::{RunRecord, write_report};

#[expect(unreachable_pub, dead_code, reason = "a library of its own, of which this test uses a part")]
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

/// Lengths at which a seed is cut.
const CUTS: usize = 12;

/// The seeds of a target, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 5, "{target} has seeds");
    seeds
}

#[test]
#[expect(clippy::print_stderr, reason = "a failure names the input")]
fn no_seed_of_a_fuzz_target_panics() {
    for (name, target) in targets::TARGETS {
        for (seed, bytes) in seeds(name) {
            // Inputs that fuzzing found are many and as short as they get. An answer of a hub that is cut short is
            // asked for again after a pause, which would make this test long.
            let whole_alone = seed.starts_with("found-") || *name == "hub";
            for cut in if whole_alone { CUTS } else { 0 }..=CUTS {
                eprintln!("{name}/{seed}, {cut} of {CUTS} parts");
                target(&bytes[..bytes.len() * cut / CUTS]);
            }
        }
    }
}

/// The seeds of runs are whole enough to reach the explanations of the page.
#[test]
fn seeds_of_runs_reach_the_explanations() {
    for (seed, queries) in [("run", 1), ("run-explanations", 2)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/run_files").join(seed);
        let text = String::from_utf8(fs::read(path).unwrap().split_off(1)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in targets::run_files::RUN.iter().zip(text.split("\n==\n")) {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let record = RunRecord::read(folder.path()).unwrap();
        assert_eq!(record.explanations.len(), queries, "{seed}");
        write_report(folder.path()).unwrap();
        let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
        assert!(page.contains("Which tokens matched") && !page.contains("<script>"), "{seed}");
    }
}

/// A generator (xorshift): mutations need no quality, and no dependency.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Words that are put into inputs: numbers at the ends of ranges, and what syntaxes are made of.
const WORDS: [&str; 16] = [
    "0",
    "-1",
    "1e300",
    "1e-300",
    "NaN",
    "18446744073709551615",
    "9223372036854775807",
    "2147483648",
    "null",
    "true",
    "[",
    "]",
    "{",
    "\"",
    "\n",
    "../../",
];

/// Changes an input in one to eight places: a bit, a byte, a word in place of some bytes, a cut, a piece of another
/// seed.
fn mutated(seeds: &[(String, Vec<u8>)], draws: &mut Draws) -> Vec<u8> {
    let mut bytes = seeds[draws.below(seeds.len())].1.clone();
    for _ in 0..=draws.below(8) {
        let at = draws.below(bytes.len() + 1);
        let end = (at + draws.below(24)).min(bytes.len());
        match draws.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << draws.below(8),
            1 if at < bytes.len() => bytes[at] = draws.below(256) as u8,
            2 => drop(bytes.splice(at..end, WORDS[draws.below(WORDS.len())].bytes())),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let other = &seeds[draws.below(seeds.len())].1;
                let from = draws.below(other.len());
                let piece = other[from..(from + draws.below(64)).min(other.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            _ => bytes.truncate(end.max(1)),
        }
    }
    bytes
}

/// Fuzzing without a nightly compiler, coverage or sanitizers: random changes of the seeds. Two variables choose:
/// HOSTILE_SECONDS for each target (default 60), HOSTILE_TARGETS their names (default all).
#[test]
#[ignore = "takes minutes"]
#[expect(clippy::print_stderr, reason = "a failure names the input, and the figures go into docs/fuzzing.md")]
fn no_changed_seed_of_a_fuzz_target_panics() {
    let seconds = std::env::var("HOSTILE_SECONDS").map_or(60, |text| text.parse().unwrap());
    let chosen = std::env::var("HOSTILE_TARGETS").ok();
    for (name, target) in targets::TARGETS {
        if chosen.as_ref().is_some_and(|chosen| !chosen.split(',').any(|one| one == *name)) {
            continue;
        }
        let (seeds, mut draws) = (seeds(name), Draws(0x9e37_79b9_7f4a_7c15));
        let (start, mut inputs, mut slowest) = (Instant::now(), 0, Duration::ZERO);
        while start.elapsed() < Duration::from_secs(seconds) {
            let bytes = mutated(&seeds, &mut draws);
            // Kept until the target returns, so that an input that ends the process can be found.
            let kept = std::env::temp_dir().join(format!("ragtrainer-hostile-{name}-{}", std::process::id()));
            fs::write(&kept, &bytes).unwrap();
            let begun = Instant::now();
            let result = std::panic::catch_unwind(|| target(&bytes));
            assert!(result.is_ok(), "{name}: the input is {}", kept.display());
            (inputs, slowest) = (inputs + 1, slowest.max(begun.elapsed()));
            fs::remove_file(&kept).unwrap();
        }
        eprintln!("{name}: {inputs} inputs in {seconds} s, the slowest took {slowest:.1?}; no panic");
    }
}
