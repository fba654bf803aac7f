#![no_main]

use libfuzzer_sys::fuzz_target;
use ragtrainer_fuzz::{panics, weights};

fuzz_target!(init: panics::remember(), |bytes: &[u8]| panics::end_the_process(|| weights::run(bytes)));
