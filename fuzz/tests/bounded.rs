//! The bounded form of fuzzing: replays the corpus of each target, and a few changes of it from a fixed seed. It takes
//! seconds; the long form is `cargo xtask fuzz`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use air_fuzz::mutate::{Random, mutate};
use air_fuzz::{TARGETS, Target, corpus};

/// Changed inputs of each target.
const CHANGED: usize = 5000;

/// One test, because memory is counted for the whole process.
#[test]
fn no_reader_has_a_fault() {
    the_corpus_is_small();
    let faults: Vec<_> = TARGETS
        .iter()
        .filter_map(|target| fault_of(target).err())
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The first fault of a target, in its corpus or in what is made of it.
fn fault_of(target: &Target) -> Result<(), String> {
    let inputs = corpus::inputs(target.name).unwrap();
    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
    for (name, input) in &inputs {
        check(target, name, input)?;
    }
    let inputs: Vec<_> = inputs.into_iter().map(|(_, input)| input).collect();
    let mut random = Random::new(1);
    for number in 0..CHANGED {
        let input = mutate(&mut random, &inputs);
        check(target, &format!("changed input {number}"), &input)?;
    }
    Ok(())
}

fn check(target: &Target, name: &str, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| target.check(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        let input = input.escape_ascii();
        format!("target {}, {name}: {text}\n  \"{input}\"", target.name)
    })
}

fn the_corpus_is_small() {
    let mut bytes = 0;
    for target in TARGETS {
        let inputs = corpus::inputs(target.name).unwrap();
        assert!(inputs.len() <= corpus::FILES_MAX, "{}", target.name);
        bytes += inputs.iter().map(|(_, input)| input.len()).sum::<usize>();
    }
    assert!(bytes <= corpus::BYTES_MAX, "{bytes} bytes");
}
