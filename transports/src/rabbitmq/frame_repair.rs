//! What a client may not be shown, and how a frame is mended where it lies.
//!
//! AMQP's short strings should be UTF-8, and header tables of a sane depth; the broker passes on whatever bytes it was given.
//! The client library ends the connection over a string that is no UTF-8, and the process over tables that are nested some
//! thousands of levels deep. Both are mended without moving a byte: bytes that are no text become [`REPLACEMENT`], and a table
//! that lies too deep becomes a byte array, which has the same shape. What does not add up is left as it is.

/// Stands for a byte that is no UTF-8. No name that is accepted anywhere contains it.
pub(super) const REPLACEMENT: char = '\u{1a}';

/// Tables and arrays that lie deeper than this are not read.
const MAX_TABLE_DEPTH: usize = 32;

/// A method or header frame's payload.
pub(super) fn repair(header: bool, payload: &mut [u8]) {
    let mut cursor = Cursor { bytes: payload, at: 0 };
    // None: it ends too soon, and the client library will say so
    let _ = if header { content_header(&mut cursor) } else { method(&mut cursor) };
}

struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        let at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len())?;
        self.at = at;
        Some(())
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let from = self.at;
        self.skip(bytes)?;
        Some(self.bytes[from..self.at].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// A short string becomes text.
    fn text(&mut self) -> Option<()> {
        let length = self.number(1)?;
        let from = self.at;
        self.skip(length)?;
        let mut rest = &mut self.bytes[from..self.at];
        while let Err(error) = std::str::from_utf8(rest) {
            let (bad, count) = (error.valid_up_to(), error.error_len());
            let end = count.map_or(rest.len(), |count| bad + count);
            rest[bad..end].fill(REPLACEMENT as u8);
            rest = &mut rest[end..];
        }
        Some(())
    }

    /// A table, with whatever lies in it.
    fn table(&mut self) -> Option<()> {
        let length = self.number(4)?;
        // where each container ends that is open, and whether it is a table
        let mut open = vec![(self.at.checked_add(length)?, true)];
        while let Some((end, named)) = open.last().copied() {
            if self.at >= end {
                open.pop();
                continue;
            }
            if named {
                self.text()?;
            }
            let tag = self.at;
            match self.number(1)? as u8 {
                b'V' => {}
                b't' | b'b' | b'B' => self.skip(1)?,
                b's' | b'U' | b'u' => self.skip(2)?,
                b'I' | b'i' | b'f' => self.skip(4)?,
                b'L' | b'l' | b'd' | b'T' => self.skip(8)?,
                b'D' => self.skip(5)?,
                b'S' | b'x' => {
                    let length = self.number(4)?;
                    self.skip(length)?;
                }
                kind @ (b'F' | b'A') => {
                    let length = self.number(4)?;
                    if open.len() >= MAX_TABLE_DEPTH {
                        self.bytes[tag] = b'x';
                        self.skip(length)?;
                    } else {
                        open.push((self.at.checked_add(length)?, kind == b'F'));
                    }
                }
                _ => return None,
            }
        }
        Some(())
    }
}

/// The names in what hands out a message: deliver, get-ok and return of the class basic.
fn method(cursor: &mut Cursor<'_>) -> Option<()> {
    match (cursor.number(2)?, cursor.number(2)?) {
        (60, 60) => {
            cursor.text()?;
            cursor.skip(9)?;
        }
        (60, 71) => cursor.skip(9)?,
        (60, 50) => {
            cursor.skip(2)?;
            cursor.text()?;
        }
        _ => return Some(()),
    }
    cursor.text()?;
    cursor.text()
}

/// The properties of a message, in the order of their flags.
fn content_header(cursor: &mut Cursor<'_>) -> Option<()> {
    cursor.skip(12)?;
    let flags = cursor.number(2)?;
    for bit in (2..16).rev() {
        if flags >> bit & 1 == 0 {
            continue;
        }
        match bit {
            13 => cursor.table()?,
            // delivery mode, priority
            12 | 11 => cursor.skip(1)?,
            // timestamp
            6 => cursor.skip(8)?,
            _ => cursor.text()?,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn short(bytes: &[u8]) -> Vec<u8> {
        [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn header(table: &[u8], id: &[u8], kind: &[u8]) -> Vec<u8> {
        let flags: u16 = 1 << 13 | 1 << 12 | 1 << 7 | 1 << 6 | 1 << 5;
        let fixed = [&60u16.to_be_bytes()[..], &[0, 0], &2u64.to_be_bytes(), &flags.to_be_bytes()].concat();
        [fixed, long(table), vec![2], short(id), vec![0xff; 8], short(kind)].concat()
    }

    #[test]
    fn what_is_sound_is_left_as_it_is() {
        let inner =
            [short(b"deep"), b"A".to_vec(), long(&[&b"S"[..], &long(b"\xff\xfe"), b"t\x01V"].concat())].concat();
        let table =
            [short("ü".as_bytes()), b"l".to_vec(), vec![0xff; 8], short(b"t"), b"F".to_vec(), long(&inner)].concat();
        let sound = header(&table, b"id", "größe".as_bytes());
        let mut payload = sound.clone();
        repair(true, &mut payload);
        assert_eq!(payload, sound);
    }

    #[test]
    fn bytes_that_are_no_text_are_marked() {
        let table = [short(b"a\xffb"), b"V".to_vec()].concat();
        let mut payload = header(&table, b"\xf0\x9f", "x\u{e4}\u{20ac}".as_bytes());
        repair(true, &mut payload);
        let repaired = header(&[short(b"a\x1ab"), b"V".to_vec()].concat(), b"\x1a\x1a", "x\u{e4}\u{20ac}".as_bytes());
        assert_eq!(payload, repaired);
        let deliver = |key: &[u8]| [&[0, 60, 0, 60][..], &short(b"tag"), &[0xff; 9], &short(b""), &short(key)].concat();
        let mut payload = deliver(b"k\xc3\x28");
        repair(false, &mut payload);
        assert_eq!(payload, deliver(b"k\x1a\x28"));
    }

    #[test]
    fn tables_that_lie_too_deep_become_bytes() {
        let mut table = Vec::new();
        for _ in 0..15_000 {
            table = [&short(b"")[..], b"F", &long(&table)].concat();
        }
        let mut payload = header(&table, b"id", b"kind\xff");
        let tables = payload.iter().filter(|byte| **byte == b'F').count();
        repair(true, &mut payload);
        assert_eq!(payload.iter().filter(|byte| **byte == b'F').count(), tables - 1);
        assert!(payload.ends_with(b"kind\x1a"), "what comes behind it is read, too");
    }

    #[test]
    fn what_does_not_add_up_does_no_harm() {
        let whole = header(&[short(b"a"), b"S".to_vec(), long(b"b")].concat(), b"id", b"kind");
        for end in 0..whole.len() {
            repair(true, &mut whole.clone()[..end]);
            repair(false, &mut whole.clone()[..end]);
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] = 0xff;
            repair(true, &mut broken);
        }
    }
}
