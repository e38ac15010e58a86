//! One shard, for as long as this node holds it.

use sagabus_core::QueueRow;

/// From taking a shard to losing it. Its number is in the tokens, so that a token of an earlier shard lease is recognised
/// even where the lease came back with the same epoch.
pub(super) struct ShardLease {
    pub(super) number: u64,
    pub(super) epoch: i64,
    /// More than a fair share: nothing new is started.
    pub(super) surplus: bool,
    /// The release was asked for.
    pub(super) releasing: bool,
    /// How many rows are handed out.
    pub(super) out: usize,
    suspects: Suspects,
}

/// Which rows may have been in flight when the previous owner died: the first `window` of them.
enum Suspects {
    None,
    /// So many more rows to be read.
    Reading {
        left: usize,
        last: i64,
    },
    UpTo(i64),
}

impl ShardLease {
    pub(super) fn new(number: u64, epoch: i64, surplus: bool, inherited: bool, window: usize) -> Self {
        Self {
            number,
            epoch,
            surplus,
            releasing: false,
            out: 0,
            suspects: if inherited { Suspects::Reading { left: window, last: i64::MIN } } else { Suspects::None },
        }
    }

    /// Whether rows of it are read and handed out.
    pub(super) fn active(&self) -> bool {
        !self.surplus && !self.releasing
    }

    /// A row was read for the first time.
    pub(super) fn seen(&mut self, row: &QueueRow) {
        if let Suspects::Reading { left, last } = &mut self.suspects {
            *last = row.id.max(*last);
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.suspects = Suspects::UpTo(*last);
            }
        }
    }

    /// A read found the end of the queue.
    pub(super) fn seen_all(&mut self) {
        if let Suspects::Reading { last, .. } = self.suspects {
            self.suspects = Suspects::UpTo(last);
        }
    }

    pub(super) fn suspects(&self, id: i64) -> bool {
        match self.suspects {
            Suspects::None => false,
            Suspects::Reading { .. } => true,
            Suspects::UpTo(last) => id <= last,
        }
    }
}
