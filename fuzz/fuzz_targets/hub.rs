#![no_main]

use libfuzzer_sys::fuzz_target;
use ragtrainer_fuzz::{panics, hub};

fuzz_target!(init: panics::remember(), |bytes: &[u8]| panics::end_the_process(|| hub::run(bytes)));
