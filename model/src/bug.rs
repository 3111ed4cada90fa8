//! Bugs that are put in on purpose, to see that they are found; and known faults of the product, which
//! are left out of all other runs and shown by tests of their own, so that whoever mends one sees it.

/// A guard that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A runner starts without looking whether the claim is still its own.
    StartWithoutFence,
    /// A record is committed without saying which one must be the last.
    CommitWithoutExpectation,
    /// A runner deletes its message before it commits.
    DeleteBeforeCommit,
    /// A failed attempt is tried again by two timers: at once, and after its back-off.
    TwoTimers,
    /// A manager believes what it has seen of a key, and writes without comparing.
    TrustTheWatch,
    /// A manager takes over whatever lease the key holds by then.
    TakeOverWithoutRevision,
    /// Known fault: messages are read from a deposed leader, and one that it lacks counts as gone.
    MessagesOfADeposedLeader,
    /// Known fault: a queued task counts as live by the word of a replica that lacks its record.
    LastsOfALaggingReplica,
    /// Known fault: a cancel lists what is queued from a replica that may lag, and purges at the leader.
    CancelListsFromAReplica,
}
