//! The program that libFuzzer drives: hands each of its inputs to the target that `AIR_FUZZ_TARGET` names. It is started
//! by `cargo xtask fuzz`, with the options of libFuzzer.

#![no_main]

use std::sync::OnceLock;

use air_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("AIR_FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    Target::named(&name).unwrap_or_else(|| {
        panic!(
            "AIR_FUZZ_TARGET is `{name}`; set it to one of {}",
            names.join(", ")
        )
    })
}

fuzz_target!(|input: &[u8]| {
    TARGET.get_or_init(chosen).check(input);
});
