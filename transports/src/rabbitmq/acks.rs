//! Which deliveries of a channel can be acknowledged, and in how few frames.

use std::collections::VecDeque;

/// The delivery tags of one channel, in order, from the oldest that is not acknowledged.
///
/// A multiple ack takes everything up to its tag, so only a prefix without gaps may be taken by one. What is done behind
/// a gap is acknowledged singly after a moment, so that one slow message does not use up the prefetch.
pub(super) struct Acks {
    /// The tag of the first of `tags`. The broker counts from 1.
    base: u64,
    tags: VecDeque<Tag>,
    /// Done behind a gap, since the last tick.
    gap_acks: Vec<u64>,
    /// Done behind a gap, since the tick before.
    aged_gap_acks: Vec<u64>,
    /// So many wait behind a gap for the next tick at most.
    max_gap_acks: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Open,
    Done,
    /// Acknowledged singly, or given back.
    Gone,
}

impl Acks {
    /// For a channel on which so many may be sent ahead. Half of them may wait behind a gap, the half that
    /// is not in the window: a single ack is an entry in a quorum queue's log, as one for hundreds is.
    pub(super) fn new(prefetch: usize) -> Self {
        Self {
            base: 1,
            tags: VecDeque::new(),
            gap_acks: Vec::new(),
            aged_gap_acks: Vec::new(),
            max_gap_acks: (prefetch / 2).max(1),
        }
    }

    /// A delivery. The tags of a channel are consecutive, but several consumers share it, and their streams are read in any
    /// order: a later tag says that those before it are under way. Were they passed over, a multiple ack would take them.
    pub(super) fn add(&mut self, tag: u64) {
        while self.base + self.tags.len() as u64 <= tag {
            self.tags.push_back(Tag::Open);
        }
    }

    fn set(&mut self, tag: u64, to: Tag) {
        let index = tag.checked_sub(self.base).and_then(|i| usize::try_from(i).ok());
        if let Some(state) = index.and_then(|i| self.tags.get_mut(i)) {
            *state = to;
        }
    }

    fn get(&self, tag: u64) -> Tag {
        let index = tag.checked_sub(self.base).and_then(|i| usize::try_from(i).ok());
        index.and_then(|i| self.tags.get(i)).copied().unwrap_or(Tag::Gone)
    }

    pub(super) fn done(&mut self, tag: u64) {
        self.set(tag, Tag::Done);
        if tag != self.base {
            self.gap_acks.push(tag);
        }
    }

    /// It was given back to the broker.
    pub(super) fn forget(&mut self, tag: u64) {
        self.set(tag, Tag::Gone);
    }

    /// The tag to acknowledge with everything before it. The tag itself is one that was not acknowledged before: the
    /// broker closes the channel otherwise.
    pub(super) fn prefix(&mut self) -> Option<u64> {
        let mut last = None;
        while let Some(tag) = self.tags.front().copied().filter(|tag| *tag != Tag::Open) {
            if tag == Tag::Done {
                last = Some(self.base);
            }
            self.tags.pop_front();
            self.base += 1;
        }
        if self.tags.is_empty() || self.gap_acks.first().is_some_and(|tag| *tag < self.base) {
            let base = self.base;
            self.gap_acks.retain(|tag| *tag >= base);
            self.aged_gap_acks.retain(|tag| *tag >= base);
        }
        last
    }

    /// What to acknowledge singly now.
    pub(super) fn due_gap_acks(&mut self, tick: bool) -> Vec<u64> {
        let mut tags = Vec::new();
        if tick {
            tags = std::mem::replace(&mut self.aged_gap_acks, std::mem::take(&mut self.gap_acks));
        } else if self.gap_acks.len() >= self.max_gap_acks {
            tags = std::mem::take(&mut self.gap_acks);
        }
        tags.retain(|tag| self.get(*tag) == Tag::Done);
        for tag in &tags {
            self.forget(*tag);
        }
        tags
    }

    /// Whether a tick is needed.
    pub(super) fn has_gap_acks(&self) -> bool {
        !self.gap_acks.is_empty() || !self.aged_gap_acks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: u64) -> Acks {
        let mut acks = Acks::new(400);
        (1..=count).for_each(|tag| acks.add(tag));
        acks
    }

    #[test]
    fn only_a_prefix_without_gaps() {
        let mut acks = of(5);
        acks.done(2);
        assert_eq!(acks.prefix(), None);
        acks.done(1);
        assert_eq!(acks.prefix(), Some(2));
        assert_eq!(acks.prefix(), None);
        acks.done(5);
        acks.done(3);
        assert_eq!(acks.prefix(), Some(3));
        acks.done(4);
        assert_eq!(acks.prefix(), Some(5));
        acks.add(6);
        acks.done(6);
        assert_eq!(acks.prefix(), Some(6));
        assert!(!acks.has_gap_acks());
    }

    #[test]
    fn what_another_consumer_still_has_under_way_is_not_acknowledged() {
        let mut acks = of(1);
        acks.done(1);
        assert_eq!(acks.prefix(), Some(1));
        // 2 went to another consumer of the channel, whose stream is read later
        acks.add(3);
        acks.done(3);
        assert_eq!(acks.prefix(), None);
        acks.add(2);
        assert_eq!(acks.prefix(), None);
        acks.done(2);
        assert_eq!(acks.prefix(), Some(3));
        let mut acks = Acks::new(400);
        acks.add(2);
        acks.done(2);
        assert_eq!(acks.prefix(), None, "the first one of all may be under way, too");
    }

    #[test]
    fn stragglers_go_singly_and_never_twice() {
        let mut acks = of(4);
        acks.done(3);
        acks.done(4);
        assert!(acks.due_gap_acks(false).is_empty());
        assert!(acks.due_gap_acks(true).is_empty(), "the first tick only ages them");
        assert_eq!(acks.due_gap_acks(true), [3, 4]);
        assert!(!acks.has_gap_acks());
        acks.done(1);
        acks.forget(2);
        // 4 is acknowledged already: the multiple ack must not name it
        assert_eq!(acks.prefix(), Some(1));
        assert_eq!(acks.prefix(), None);
    }

    #[test]
    fn any_order_acknowledges_each_once() {
        let mut acks = of(500);
        let mut acked = std::collections::BTreeSet::new();
        for n in 0..500u64 {
            acks.done((n * 137) % 500 + 1);
            if let Some(last) = acks.prefix() {
                acked.extend(1..=last);
            }
            for tag in acks.due_gap_acks(n % 50 == 0) {
                assert!(acked.insert(tag), "{tag} twice");
            }
        }
        assert_eq!(acked.len(), 500);
    }
}
