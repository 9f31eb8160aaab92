//! The label values that belong to no other module.

/// What a worker already knew about a job when a further delivery of it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    New,
    /// The job is being worked.
    InFlight,
    /// The job's result is recorded.
    Done,
}

impl Found {
    /// Every value, in the order of [`Found::index`].
    pub const ALL: [Self; 3] = [Self::New, Self::InFlight, Self::Done];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::InFlight => "in_flight",
            Self::Done => "done",
        }
    }

    /// The place in [`Found::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Confirmed by the broker and routed.
    Confirmed,
    /// Confirmed, but no queue took it.
    Returned,
    /// Not confirmed. It is tried again.
    Failed,
}

impl Published {
    /// Every value, in the order of [`Published::index`].
    pub const ALL: [Self; 3] = [Self::Confirmed, Self::Returned, Self::Failed];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Returned => "returned",
            Self::Failed => "failed",
        }
    }

    /// The place in [`Published::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}
