//! Changes inputs at random, from a seed: the bounded form's engine, which knows nothing of coverage.

/// Parts of what readers look for.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\n",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551615",
    "4294967295",
    "0.5",
    "\"v\":1",
    "\"run\":\"a\"",
    "\"id\":\"_7\"",
    "\"needs\":",
    "\"input\":",
    "\"timeout\":",
    "1h30m",
    "9999-12-31T23:59:59.999Z",
    "- ",
    "---\n",
    "&a ",
    "*a",
    "!!x ",
    "|\n ",
    "? ",
    "\u{85}",
    "\u{2028}",
    "\u{fffd}",
    "\r",
    "\t",
    "\0",
    "=",
];

/// Random numbers from a seed, the same ones each time.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`; 0 where there is none.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or(0) % end.max(1)
    }
}

/// An input made of one of `inputs`, with one to four changes.
pub fn mutate(random: &mut Random, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = one(random, inputs).to_vec();
    for _ in 0..=random.below(4) {
        change(random, &mut bytes, inputs);
    }
    bytes
}

fn one<'a>(random: &mut Random, inputs: &'a [Vec<u8>]) -> &'a [u8] {
    let index = random.below(inputs.len());
    inputs.get(index).map_or(&[], Vec::as_slice)
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
    let at = random.below(bytes.len() + 1);
    let end = (at + 1 + random.below(16)).min(bytes.len());
    match random.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap_or(0),
        2 if at < end => drop(bytes.drain(at..end)),
        3 if at < end => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part.repeat(1 + random.below(64)));
        }
        4 => {
            let other = one(random, inputs);
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend(&other[from..]);
        }
        5 => bytes.truncate(at),
        _ => {
            let word = WORDS[random.below(WORDS.len())];
            bytes.splice(at..at, word.bytes());
        }
    }
}
