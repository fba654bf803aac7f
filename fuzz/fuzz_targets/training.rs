#![no_main]

use libfuzzer_sys::fuzz_target;
use ragtrainer_fuzz::{panics, training};

fuzz_target!(init: panics::remember(), |bytes: &[u8]| panics::end_the_process(|| training::run(bytes)));
