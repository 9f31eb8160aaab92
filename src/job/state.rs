//! The states of a job, from its delivery to its end. `docs/architecture.md` draws who moves it.

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The broker has delivered it, and the ledger was not asked yet.
    Delivered,
    /// A worker holds it under a lease, and no attempt is under way.
    Claimed,
    /// An attempt is under way, or may be.
    Sending,
    /// It waits for its next attempt.
    Waiting,
    /// A worker gave it back to the broker, and the ledger knows what it has been through.
    Released,
    /// It has ended, and its result is recorded.
    Done,
    /// The broker gave it up: its expiration passed, or it was delivered too often.
    Dropped,
}

impl State {
    /// Every state, in the order in which a job comes by.
    pub const ALL: [Self; 7] =
        [Self::Delivered, Self::Claimed, Self::Sending, Self::Waiting, Self::Released, Self::Done, Self::Dropped];

    /// Its name, in the ledger's records too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Claimed => "claimed",
            Self::Sending => "sending",
            Self::Waiting => "waiting",
            Self::Released => "released",
            Self::Done => "done",
            Self::Dropped => "dropped",
        }
    }

    /// The state with this name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str().as_bytes() == name)
    }
}
