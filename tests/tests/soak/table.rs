//! The table: what each thing was at the end of the warm-up, at most afterwards, and at the end; and whether that holds.

use crate::sample::Sample;

/// Memory may grow by this factor after the warm-up: allocators keep what they had at the worst moment, and the
/// worst moment of a longer time is worse.
const MEMORY_FACTOR: f64 = 1.25;
/// … and by this, which short runs have not used yet.
const MANAGER_KIB: u64 = 8 * 1024;
/// The server's garbage collector lets its memory double before it collects; the index of streams grows with the
/// logs and events, which go by the server's own clock (see [`Bound::Linear`]).
const SERVER_FACTOR: f64 = 2.0;
const SERVER_KIB: u64 = 64 * 1024;
/// Files, threads and the like follow what happens to be at work at the moment of a sample.
const COUNT_FACTOR: f64 = 1.25;
const COUNT: u64 = 12;
/// Messages and bytes of the streams follow the waves, which are alike but not the same.
const STREAM_FACTOR: f64 = 1.5;
const STREAM_MESSAGES: u64 = 200;
const STREAM_BYTES: u64 = 128 * 1024;
/// Growth that is linear may miss the line through its warm-up by this factor.
const LINEAR_FACTOR: f64 = 1.25;
/// The most memory that `airx verify` may have, in KiB.
pub(crate) const VERIFY_KB_MAX: u64 = 128 * 1024;

/// How much something may be.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// As much as at most in the warm-up, times a factor, plus a constant.
    Flat(f64, u64),
    /// In proportion to the time: it goes by the age of its stream, by the server's own clock.
    Linear,
}

fn bound_of(name: &str) -> Bound {
    let by_age = ["AIR_LOGS", "AIR_EVENTS", "KV_air-specs"];
    match name {
        _ if by_age.iter().any(|stream| name.starts_with(stream)) => Bound::Linear,
        "manager KiB" => Bound::Flat(MEMORY_FACTOR, MANAGER_KIB),
        "server KiB" => Bound::Flat(SERVER_FACTOR, SERVER_KIB),
        _ if name.ends_with("messages") => Bound::Flat(STREAM_FACTOR, STREAM_MESSAGES),
        _ if name.ends_with("bytes") => Bound::Flat(STREAM_FACTOR, STREAM_BYTES),
        "records, endless job" => Bound::Flat(STREAM_FACTOR, STREAM_MESSAGES),
        _ => Bound::Flat(COUNT_FACTOR, COUNT),
    }
}

/// All samples.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) samples: Vec<Sample>,
}

impl Table {
    /// Prints it; says whether all holds.
    pub(crate) fn print(&self, verify: u64) -> bool {
        let warm = (self.samples.len() / 3).max(1);
        let mut all = true;
        let mut row = |name: &str, cells: [u64; 4], holds: bool| {
            let [warm, most, end, bound] = cells;
            let verdict = if holds { "yes" } else { "NO" };
            eprintln!("| {name} | {warm} | {most} | {end} | {bound} | {verdict} |");
            all &= holds;
        };
        eprintln!("| what | warm-up | most afterwards | at the end | bound | holds |");
        eprintln!("| --- | --- | --- | --- | --- | --- |");
        for (n, (name, _)) in self.samples[0].0.iter().enumerate() {
            let values: Vec<_> = self.samples.iter().map(|sample| sample.0[n].1).collect();
            let (first, rest) = values.split_at(warm);
            let before = *first.iter().max().unwrap();
            let (most, end) = (*rest.iter().max().unwrap(), *rest.last().unwrap());
            let bound = match bound_of(name) {
                Bound::Flat(factor, plus) => (before as f64 * factor) as u64 + plus,
                Bound::Linear => {
                    let times = self.samples.len() as f64 / warm as f64;
                    let messages = name.ends_with("messages");
                    let plus = if messages {
                        STREAM_MESSAGES
                    } else {
                        STREAM_BYTES
                    };
                    (before as f64 * times * LINEAR_FACTOR) as u64 + plus
                }
            };
            row(name, [before, most, end, bound], most <= bound);
        }
        let holds = verify <= VERIFY_KB_MAX;
        row(
            "airx verify KiB, at most",
            [0, verify, verify, VERIFY_KB_MAX],
            holds,
        );
        all
    }
}
