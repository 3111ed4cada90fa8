//! Counts what a reader allocates, and holds it to a multiple of its input.

use std::alloc::System;

use peakmem_alloc::{INSTRUMENTED_SYSTEM, PeakMemAlloc, PeakMemAllocTrait as _};

#[global_allocator]
static COUNTED: &PeakMemAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most that a reader may hold at once.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    per_byte: usize,
    constant: usize,
}

impl Allowance {
    /// For readers of words: some copies of the input, and an error.
    pub const TEXT: Self = Self {
        per_byte: 16,
        constant: 64 * 1024,
    };
    /// For readers of values: an object with one field takes 700 bytes in memory and seven in JSON, and two or three such
    /// trees live at once while one is made of another.
    pub const VALUE: Self = Self {
        per_byte: 400,
        constant: 256 * 1024,
    };
    /// For YAML, in which aliases repeat values: up to 100,000 of them, whatever the length of the text.
    pub const ALIASES: Self = Self {
        per_byte: 4000,
        constant: 256 * 1024 * 1024,
    };

    fn of(self, bytes: usize) -> usize {
        self.constant + self.per_byte * bytes
    }
}

/// Does `work` on an input of so many bytes. Counts are of the whole process: one thread at a time.
///
/// # Panics
/// If `work` held more at once than it may.
pub(crate) fn within(allowance: Allowance, bytes: usize, work: impl FnOnce()) {
    COUNTED.reset_peak_memory();
    work();
    let peak = COUNTED.get_peak_memory();
    let most = allowance.of(bytes);
    assert!(
        peak <= most,
        "{bytes} bytes of input took {peak} bytes of memory, more than {most}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "more than")]
    fn a_reader_that_takes_too_much_is_caught() {
        within(Allowance::TEXT, 100, || drop(vec![0_u8; 1 << 20]));
    }
}
