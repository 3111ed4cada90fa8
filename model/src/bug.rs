//! Bugs that are put in on purpose, to see that they are found: each is a guard that is left out.

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
    /// A cancel lists what is queued from a replica that has not seen what the leader purges.
    CancelListsFromAReplica,
}
