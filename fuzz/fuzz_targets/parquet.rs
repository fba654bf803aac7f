#![no_main]

use libfuzzer_sys::fuzz_target;
use ragtrainer_fuzz::{panics, parquet};

fuzz_target!(init: panics::remember(), |bytes: &[u8]| panics::end_the_process(|| parquet::run(bytes)));
