#![no_main]

use libfuzzer_sys::fuzz_target;
use ragtrainer_fuzz::{model_files, panics};

fuzz_target!(init: panics::remember(), |bytes: &[u8]| panics::end_the_process(|| model_files::run(bytes)));
