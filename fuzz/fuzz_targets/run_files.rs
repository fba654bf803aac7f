#![no_main]

use libfuzzer_sys::fuzz_target;
use ragtrainer_fuzz::{panics, run_files};

fuzz_target!(init: panics::remember(), |bytes: &[u8]| panics::end_the_process(|| run_files::run(bytes)));
