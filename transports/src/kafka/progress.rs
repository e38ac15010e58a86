//! What of a partition is finished.

use std::collections::BTreeSet;

/// The most bytes that we put beside a committed offset: brokers take 4096.
const MOST: usize = 3500;

/// Which offsets of a partition were read and are not finished. The offset that may be committed is the first of them, or
/// the next one to be read: so what lies between the read ones (transaction markers, what compaction removed) counts as
/// finished, and nothing unfinished is ever passed.
pub(super) struct Progress {
    /// The next offset that was not read yet.
    next: i64,
    open: BTreeSet<i64>,
    /// Ranges from `next` on that an earlier owner finished: they are skipped.
    done: Vec<(i64, i64)>,
}

impl Progress {
    pub(super) fn new(note: &Note) -> Self {
        Self { next: note.base, open: BTreeSet::new(), done: note.done.clone() }
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
    pub(super) fn base(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    /// What is to be written down, with the limit up to which records may have been handed out.
    pub(super) fn note(&self, limit: i64) -> Note {
        let base = self.base();
        let mut done = Vec::new();
        let mut from = base;
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
        Note { base, limit: limit.max(base), done }
    }
}

/// What the committed offset and the text beside it say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) base: i64,
    /// Offsets below it may have been handed out to whoever wrote this, and were not finished.
    pub(super) limit: i64,
    /// Ranges above the base that are finished.
    pub(super) done: Vec<(i64, i64)>,
}

impl Note {
    /// Nothing is known but where to begin.
    pub(super) fn at(base: i64) -> Self {
        Self { base, limit: base, done: Vec::new() }
    }

    /// `sagabus1 <limit> <gap> <run> <gap> <run>…`, all relative. What does not fit is left out: then it is delivered
    /// again, and found to be a duplicate.
    pub(super) fn text(&self) -> String {
        let mut text = format!("sagabus1 {}", self.limit - self.base);
        let mut at = self.base;
        for (from, to) in &self.done {
            let run = format!(" {} {}", from - at, to - from);
            if text.len() + run.len() > MOST {
                break;
            }
            text.push_str(&run);
            at = *to;
        }
        text
    }

    /// Text that is not ours says nothing.
    pub(super) fn read(base: i64, text: &str) -> Self {
        let mut note = Self::at(base);
        let Some(rest) = text.strip_prefix("sagabus1 ") else { return note };
        let numbers: Option<Vec<i64>> =
            rest.split(' ').map(|word| word.parse().ok().filter(|n| (0..1 << 40).contains(n))).collect();
        let Some((limit, runs)) = numbers.as_deref().and_then(|numbers| numbers.split_first()) else { return note };
        note.limit = base.saturating_add(*limit);
        let mut at = base;
        for run in runs.chunks_exact(2) {
            let from = at.saturating_add(run[0]);
            at = from.saturating_add(run[1]);
            note.done.push((from, at));
        }
        note
    }

    /// How many offsets in a range are not finished.
    pub(super) fn unfinished(&self, from: i64, to: i64) -> i64 {
        let from = from.max(self.base);
        let overlap = |(start, end): &(i64, i64)| ((*end).min(to) - (*start).max(from)).max(0);
        ((to - from).max(0)) - self.done.iter().map(overlap).sum::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_never_passes_what_is_unfinished() {
        let mut progress = Progress::new(&Note::at(100));
        for offset in [100, 101, 105, 106] {
            assert!(progress.read(offset));
        }
        assert_eq!(progress.base(), 100);
        progress.finish(105);
        progress.finish(101);
        assert_eq!(progress.base(), 100);
        // 102 to 104 were never read: markers, or compacted
        assert_eq!(progress.note(107).done, [(101, 106)]);
        progress.finish(100);
        assert_eq!(progress.base(), 106);
        progress.finish(106);
        assert_eq!((progress.base(), progress.note(0).done.len()), (107, 0));
        progress.finish(3);
        assert!(!progress.read(50), "already behind");
    }

    #[test]
    fn what_an_earlier_owner_finished_is_skipped_and_not_forgotten() {
        let note = Note { base: 10, limit: 30, done: vec![(12, 15), (20, 22)] };
        assert_eq!(Note::read(10, &note.text()), note);
        let mut progress = Progress::new(&note);
        let taken: Vec<i64> = (10..14).filter(|offset| progress.read(*offset)).collect();
        assert_eq!(taken, [10, 11]);
        progress.finish(10);
        assert_eq!(progress.note(30), Note { base: 11, limit: 30, done: vec![(12, 14), (14, 15), (20, 22)] });
        assert_eq!(note.unfinished(0, 30), 20 - 5);
        assert_eq!(note.unfinished(13, 21), 8 - 3);
    }

    #[test]
    fn texts_of_others_and_long_lists_do_no_harm() {
        for text in
            ["", "sagabus1 ", "sagabus1 x", "sagabus1 -3", "sagabus1 5 3", "sagabus1 99999999999999999999", "{}"]
        {
            let note = Note::read(7, text);
            assert!(note.base == 7 && note.limit >= 7 && note.done.is_empty(), "{text}: {note:?}");
        }
        let done = (0..5000).map(|n| (10 + 2 * n, 11 + 2 * n)).collect();
        let note = Note { base: 9, limit: 9, done };
        let text = note.text();
        assert!(text.len() <= MOST);
        let read = Note::read(9, &text);
        assert!(read.done.len() > 500 && note.done.starts_with(&read.done));
    }
}
