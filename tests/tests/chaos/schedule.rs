//! What goes wrong when: a pure function of the seed.

use std::time::Duration;

use air_model::simulation::plan::Dice;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL of a server.
    KillServer,
    /// SIGSTOP of a server, then SIGCONT.
    FreezeServer,
    /// SIGKILL of the server that leads the stream.
    KillLeader,
    /// SIGSTOP of the server that leads the stream, then SIGCONT.
    FreezeLeader,
    /// The leader of the stream is told to step down.
    StepDown,
    /// SIGKILL of a manager; its runners go on.
    KillManager,
    /// SIGSTOP of a manager, then SIGCONT.
    FreezeManager,
    /// SIGKILL of up to three runners.
    KillRunners,
    /// SIGSTOP of up to three runners, then SIGCONT.
    FreezeRunners,
    /// Each server is killed and started again, one after another.
    RollingRestart,
    /// A machine that reaches no other, nor is reached.
    CutOne,
    /// Two machines that reach nobody.
    CutTwo,
    /// A machine that hears nobody, but is heard.
    DeafOne,
    /// A machine that nobody hears, but hears all.
    MuteOne,
    /// Machines that lose a part of what they hear.
    Loss,
    /// A machine that sends slowly, so that what it says comes late.
    Slow,
    /// All servers are killed at once, and started again.
    KillAll,
    /// The disk of a server is full. When there is room again the server is killed and started, as its operator would.
    FullDisk,
}

impl Fault {
    pub(crate) const ALL: [Self; 18] = [
        Self::KillServer,
        Self::FreezeServer,
        Self::KillLeader,
        Self::FreezeLeader,
        Self::StepDown,
        Self::KillManager,
        Self::FreezeManager,
        Self::KillRunners,
        Self::FreezeRunners,
        Self::RollingRestart,
        Self::CutOne,
        Self::CutTwo,
        Self::DeafOne,
        Self::MuteOne,
        Self::Loss,
        Self::Slow,
        Self::KillAll,
        Self::FullDisk,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::KillServer => "server killed",
            Self::FreezeServer => "server frozen",
            Self::KillLeader => "leader killed",
            Self::FreezeLeader => "leader frozen",
            Self::StepDown => "leader steps down",
            Self::KillManager => "manager killed",
            Self::FreezeManager => "manager frozen",
            Self::KillRunners => "runners killed",
            Self::FreezeRunners => "runners frozen",
            Self::RollingRestart => "servers restarted in turn",
            Self::CutOne => "one machine cut off",
            Self::CutTwo => "two machines cut off",
            Self::DeafOne => "one machine hears nobody",
            Self::MuteOne => "nobody hears one machine",
            Self::Loss => "packets lost",
            Self::Slow => "packets late",
            Self::KillAll => "all servers killed",
            Self::FullDisk => "one disk full",
        }
    }

    /// Seconds that it lasts: at least, and what chance may add.
    fn lasts(self) -> (u64, u64) {
        match self {
            Self::StepDown | Self::KillRunners => (0, 1),
            Self::RollingRestart => (2, 3),
            // Longer than the leases of most jobs.
            Self::FreezeRunners => (8, 5),
            Self::KillLeader | Self::FreezeLeader | Self::CutOne | Self::FullDisk => (6, 10),
            Self::KillServer
            | Self::FreezeServer
            | Self::KillManager
            | Self::FreezeManager
            | Self::CutTwo
            | Self::DeafOne
            | Self::MuteOne
            | Self::Loss
            | Self::Slow
            | Self::KillAll => (3, 7),
        }
    }
}

/// One fault of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    /// The machine, from 1, where the fault does not say which.
    pub(crate) node: usize,
    /// From the beginning of the fault to the moment when it is healed.
    pub(crate) lasts: Duration,
    /// From its recovery to the next fault.
    pub(crate) calm: Duration,
    /// For what else is left to chance.
    pub(crate) chance: u64,
}

/// About what a recovery adds, so that a schedule lasts as long as was asked for.
const RECOVERY: Duration = Duration::from_secs(3);

/// The faults of this time: all kinds in an order of chance, then all again.
pub(crate) fn schedule(seed: u64, time: Duration) -> Vec<Step> {
    let mut random = Dice::new(seed);
    let (mut steps, mut deck, mut left) = (Vec::new(), Vec::new(), time);
    loop {
        if deck.is_empty() {
            deck = Fault::ALL.to_vec();
        }
        let fault = deck.swap_remove(usize::try_from(random.below(deck.len() as u64)).unwrap());
        let (least, more) = fault.lasts();
        let step = Step {
            fault,
            node: 1 + usize::try_from(random.below(3)).unwrap(),
            lasts: Duration::from_millis(1000 * least + random.below(1000 * more)),
            calm: Duration::from_millis(500 + random.below(3000)),
            chance: random.number(),
        };
        let Some(rest) = left.checked_sub(step.lasts + step.calm + RECOVERY) else {
            return steps;
        };
        (left, _) = (rest, steps.push(step));
    }
}

#[test]
fn the_bounded_form_has_the_worst_faults() {
    let steps = schedule(crate::FIXED, Duration::from_secs(crate::SECONDS));
    let kinds: std::collections::BTreeSet<_> = steps.iter().map(|step| step.fault).collect();
    let wanted = [
        Fault::KillAll,
        Fault::KillLeader,
        Fault::RollingRestart,
        Fault::KillManager,
        Fault::KillRunners,
        Fault::FreezeRunners,
        Fault::CutOne,
        Fault::StepDown,
        Fault::FullDisk,
    ];
    let missing: Vec<_> = wanted.iter().filter(|kind| !kinds.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_schedule_is_a_function_of_its_seed() {
    let time = Duration::from_secs(600);
    assert_eq!(schedule(7, time), schedule(7, time));
    assert_ne!(schedule(7, time), schedule(8, time));
    let kinds: std::collections::BTreeSet<_> =
        schedule(7, time).iter().map(|step| step.fault).collect();
    assert_eq!(kinds.len(), Fault::ALL.len(), "ten minutes have each kind");
}
