#![no_main]

use libfuzzer_sys::fuzz_target;
use ragtrainer_fuzz::{data, panics};

fuzz_target!(init: panics::remember(), |bytes: &[u8]| panics::end_the_process(|| data::run(bytes)));
