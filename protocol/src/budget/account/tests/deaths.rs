//! Many claims side by side, while managers and runners die at any moment, and whoever settles for the dead goes by
//! what may be old: what runs may take, and what ended runs took, is never more than the budget and last turns.

use proptest::prelude::*;

use super::*;

/// Runs of the simulation.
const RUNS: u128 = 8;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Something may be reserved for it.
    Wanted,
    /// It was claimed, and has a lease.
    Claimed,
    /// It works, and may take so much.
    Works(u64),
    /// Its record says what it took.
    Recorded(u64),
    /// It is over: released, settled or dead.
    Over,
}

#[derive(Debug, Clone)]
enum Step {
    Reserve(u128, u64),
    Claim(u128),
    Begin(u128),
    /// It ends, with so many thousandths of what it may take, and a last turn.
    Commit(u128, u64, u64),
    Settle(u128),
    /// Its process, or its manager, is gone; it had taken as much as a commit says.
    Die(u128, u64, u64),
    /// Somebody judges what is reserved for it; by an old read, that shows neither lease nor record.
    Judge(u128, bool),
    /// What was judged is written.
    Write,
    /// A run of the same number begins anew.
    Again(u128),
}

fn step() -> impl Strategy<Value = Step> {
    let run = || 0..RUNS;
    let turn = || 0..=TURN;
    prop_oneof![
        4 => (run(), 1..300_u64).prop_map(|(run, usd)| Step::Reserve(run, usd)),
        4 => run().prop_map(Step::Claim),
        4 => run().prop_map(Step::Begin),
        3 => (run(), 0..=1000_u64, turn()).prop_map(|(run, part, turn)| Step::Commit(run, part, turn)),
        3 => run().prop_map(Step::Settle),
        2 => (run(), 0..=1000_u64, turn()).prop_map(|(run, part, turn)| Step::Die(run, part, turn)),
        4 => (run(), any::<bool>()).prop_map(|(run, old)| Step::Judge(run, old)),
        3 => Just(Step::Write),
        3 => run().prop_map(Step::Again),
    ]
}

/// What there is: the account, where each run is, and what was really taken.
struct World {
    account: Account,
    runs: [(u64, At); RUNS as usize],
    judged: Vec<(Uuid, Reservation, Taken)>,
    took: u64,
    turns: u64,
}

impl World {
    fn new(limit: u64) -> Self {
        Self {
            account: account(limit),
            runs: [(0, At::Wanted); RUNS as usize],
            judged: Vec::new(),
            took: 0,
            turns: 0,
        }
    }

    /// The id of a run: each time anew.
    fn id(&self, run: u128) -> Uuid {
        id(run << 64 | u128::from(self.runs[run as usize].0))
    }

    fn ends(&mut self, may: u64, part: u64, turn: u64) -> u64 {
        let took = may * part / 1000 + turn;
        self.took += took;
        self.turns += turn;
        took
    }

    fn step(&mut self, step: &Step) {
        let at = |world: &Self, run: u128| world.runs[run as usize].1;
        match *step {
            Step::Reserve(run, usd) if at(self, run) == At::Wanted => {
                let _ = self.account.reserve(self.id(run), &agent(usd), NOW);
            }
            // A manager that was frozen claims although somebody has taken its reservation away.
            Step::Claim(run) if at(self, run) == At::Wanted => self.to(run, At::Claimed),
            Step::Begin(run) if at(self, run) == At::Claimed => {
                let begun = self.account.begin(self.id(run));
                let works = |(limits, _): (Limits, bool)| At::Works(limits.usd.unwrap().micros());
                self.to(run, begun.map_or(At::Over, works));
            }
            Step::Commit(run, part, turn) => {
                if let At::Works(may) = at(self, run) {
                    let took = self.ends(may, part, turn);
                    self.to(run, At::Recorded(took));
                }
            }
            Step::Settle(run) => {
                if let At::Recorded(took) = at(self, run) {
                    self.account.settle(self.id(run), known(took));
                    self.to(run, At::Over);
                }
            }
            Step::Die(run, part, turn) => {
                match at(self, run) {
                    At::Works(may) => drop(self.ends(may, part, turn)),
                    // Its record stays, for whoever settles.
                    At::Recorded(_) => return,
                    At::Wanted | At::Claimed | At::Over => {}
                }
                self.to(run, At::Over);
            }
            Step::Judge(run, old) => self.judge(run, old),
            Step::Write => {
                if let Some((run, judged, taken)) = self.judged.pop() {
                    self.account.settle_if(run, &judged, taken);
                }
            }
            Step::Again(run) if at(self, run) == At::Over => {
                self.runs[run as usize].0 += 1;
                self.to(run, At::Wanted);
            }
            Step::Reserve(..) | Step::Claim(_) | Step::Begin(_) | Step::Again(_) => {}
        }
    }

    fn to(&mut self, run: u128, at: At) {
        self.runs[run as usize].1 = at;
    }

    fn judge(&mut self, run: u128, old: bool) {
        let runner = self.id(run);
        let Some(one) = self.account.reserved.get(&runner).cloned() else {
            return;
        };
        let taken = match self.runs[run as usize].1 {
            At::Claimed | At::Works(_) if !old => return,
            At::Recorded(took) if !old => known(took),
            _ => one.unknown(),
        };
        self.judged.push((runner, one, taken));
    }

    /// What runs may still take, and what others took.
    fn sum(&self) -> u64 {
        let may = self.runs.iter().map(|(_, at)| match at {
            At::Works(may) => *may,
            At::Wanted | At::Claimed | At::Recorded(_) | At::Over => 0,
        });
        self.took + may.sum::<u64>()
    }
}

proptest! {
    #[test]
    fn whoever_dies_and_whatever_is_old_no_more_is_taken_than_there_is(
        limit in 1..2_000_u64,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(limit);
        for step in &steps {
            world.step(step);
            prop_assert!(world.sum() <= limit + world.turns, "{step:?}: {} of {limit}", world.sum());
        }
    }
}
