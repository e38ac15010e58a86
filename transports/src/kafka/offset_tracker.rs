//! The offset tracker: which records of a partition are finished, in whichever order they finish.

use std::collections::BTreeSet;

/// The most bytes of text beside a committed offset: brokers take 4096.
const MAX_METADATA_BYTES: usize = 3500;

/// Tracks which offsets of a partition were read and are not finished. The offset that may be committed is the first of them, or
/// the next one to be read: so what lies between the read ones (transaction markers, what compaction removed) counts as
/// finished, and nothing unfinished is ever passed.
pub(super) struct OffsetTracker {
    /// The next offset that was not read yet.
    next: i64,
    open: BTreeSet<i64>,
    /// Ranges from `next` on that an earlier owner finished: they are skipped.
    done: Vec<(i64, i64)>,
}

impl OffsetTracker {
    pub(super) fn new(note: &OffsetNote) -> Self {
        Self { next: note.handled_below, open: BTreeSet::new(), done: note.done.clone() }
    }

    /// A record was read. Answers whether it is still to be handled.
    pub(super) fn read(&mut self, offset: i64) -> bool {
        if offset < self.next {
            return false;
        }
        self.next = offset + 1;
        let finished = self.done.iter().any(|(from, to)| (*from..*to).contains(&offset));
        if !finished {
            self.open.insert(offset);
        }
        !finished
    }

    pub(super) fn finish(&mut self, offset: i64) {
        self.open.remove(&offset);
    }

    /// What may be committed.
    pub(super) fn handled_below(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    /// What is to be written down, with the limit up to which records may have been handed out.
    pub(super) fn note(&self, limit: i64) -> OffsetNote {
        let handled_below = self.handled_below();
        let mut done = Vec::new();
        let mut from = handled_below;
        for open in &self.open {
            if *open > from {
                done.push((from, *open));
            }
            from = open + 1;
        }
        if self.next > from {
            done.push((from, self.next));
        }
        done.extend(self.done.iter().filter(|(_, to)| *to > self.next).map(|(from, to)| (self.next.max(*from), *to)));
        OffsetNote { handled_below, limit: limit.max(handled_below), done }
    }
}

/// The committed offset and the text beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OffsetNote {
    /// Everything below this offset is finished.
    pub(super) handled_below: i64,
    /// Offsets below it may have been handed out to the process that wrote this, and were not finished.
    pub(super) limit: i64,
    /// Ranges above `handled_below` that are finished.
    pub(super) done: Vec<(i64, i64)>,
}

impl OffsetNote {
    /// Nothing is known but where to begin.
    pub(super) fn at(handled_below: i64) -> Self {
        Self { handled_below, limit: handled_below, done: Vec::new() }
    }

    /// `sagabus1 <limit> <gap> <run> <gap> <run>…`, all relative. What does not fit is left out: then it is delivered
    /// again, and found to be a duplicate.
    pub(super) fn text(&self) -> String {
        let mut text = format!("sagabus1 {}", self.limit - self.handled_below);
        let mut at = self.handled_below;
        for (from, to) in &self.done {
            let run = format!(" {} {}", from - at, to - from);
            if text.len() + run.len() > MAX_METADATA_BYTES {
                break;
            }
            text.push_str(&run);
            at = *to;
        }
        text
    }

    /// Text that is not ours says nothing.
    pub(super) fn read(handled_below: i64, text: &str) -> Self {
        let mut note = Self::at(handled_below);
        let Some(rest) = text.strip_prefix("sagabus1 ") else { return note };
        let numbers: Option<Vec<i64>> =
            rest.split(' ').map(|word| word.parse().ok().filter(|n| (0..1 << 40).contains(n))).collect();
        let Some((limit, runs)) = numbers.as_deref().and_then(|numbers| numbers.split_first()) else { return note };
        note.limit = handled_below.saturating_add(*limit);
        let mut at = handled_below;
        for run in runs.chunks_exact(2) {
            let from = at.saturating_add(run[0]);
            at = from.saturating_add(run[1]);
            note.done.push((from, at));
        }
        note
    }

    /// How many offsets in a range are not finished.
    pub(super) fn unfinished(&self, from: i64, to: i64) -> i64 {
        let from = from.max(self.handled_below);
        let overlap = |(start, end): &(i64, i64)| ((*end).min(to) - (*start).max(from)).max(0);
        ((to - from).max(0)) - self.done.iter().map(overlap).sum::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_never_passes_what_is_unfinished() {
        let mut tracker = OffsetTracker::new(&OffsetNote::at(100));
        for offset in [100, 101, 105, 106] {
            assert!(tracker.read(offset));
        }
        assert_eq!(tracker.handled_below(), 100);
        tracker.finish(105);
        tracker.finish(101);
        assert_eq!(tracker.handled_below(), 100);
        // 102 to 104 were never read: markers, or compacted
        assert_eq!(tracker.note(107).done, [(101, 106)]);
        tracker.finish(100);
        assert_eq!(tracker.handled_below(), 106);
        tracker.finish(106);
        assert_eq!((tracker.handled_below(), tracker.note(0).done.len()), (107, 0));
        tracker.finish(3);
        assert!(!tracker.read(50), "already behind");
    }

    #[test]
    fn what_an_earlier_owner_finished_is_skipped_and_not_forgotten() {
        let note = OffsetNote { handled_below: 10, limit: 30, done: vec![(12, 15), (20, 22)] };
        assert_eq!(OffsetNote::read(10, &note.text()), note);
        let mut tracker = OffsetTracker::new(&note);
        let taken: Vec<i64> = (10..14).filter(|offset| tracker.read(*offset)).collect();
        assert_eq!(taken, [10, 11]);
        tracker.finish(10);
        assert_eq!(
            tracker.note(30),
            OffsetNote { handled_below: 11, limit: 30, done: vec![(12, 14), (14, 15), (20, 22)] }
        );
        assert_eq!(note.unfinished(0, 30), 20 - 5);
        assert_eq!(note.unfinished(13, 21), 8 - 3);
    }

    #[test]
    fn texts_of_others_and_long_lists_do_no_harm() {
        for text in
            ["", "sagabus1 ", "sagabus1 x", "sagabus1 -3", "sagabus1 5 3", "sagabus1 99999999999999999999", "{}"]
        {
            let note = OffsetNote::read(7, text);
            assert!(note.handled_below == 7 && note.limit >= 7 && note.done.is_empty(), "{text}: {note:?}");
        }
        let done = (0..5000).map(|n| (10 + 2 * n, 11 + 2 * n)).collect();
        let note = OffsetNote { handled_below: 9, limit: 9, done };
        let text = note.text();
        assert!(text.len() <= MAX_METADATA_BYTES);
        let read = OffsetNote::read(9, &text);
        assert!(read.done.len() > 500 && note.done.starts_with(&read.done));
    }
}
