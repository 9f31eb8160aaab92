//! The way in for the fuzz targets and their corpus, which see the library from outside.

use super::sieve::{Moved, Sieve};
use std::io;

/// What a connection's inbound bytes became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sifted {
    /// What lapin would read.
    pub bytes: Vec<u8>,
    /// How many frames had to be changed.
    pub repaired: u64,
}

/// Sifts the inbound bytes of a new connection, `piece` at a time and with room for `room` at a time.
///
/// # Errors
/// `InvalidData` when the bytes are not AMQP 0-9-1.
pub fn sift(bytes: &[u8], frame_max: u32, piece: usize, room: usize) -> io::Result<Sifted> {
    let mut sieve = Sieve::new(frame_max);
    let bytes = feed(&mut sieve, bytes, piece, room)?;
    Ok(Sifted { bytes, repaired: sieve.repaired() })
}

/// Feeds `bytes` in pieces, with room for `room` bytes at a time.
pub(super) fn feed(sieve: &mut Sieve, bytes: &[u8], piece: usize, room: usize) -> io::Result<Vec<u8>> {
    let (mut all, mut output) = (Vec::new(), vec![0; room.max(1)]);
    for mut input in bytes.chunks(piece.max(1)) {
        loop {
            let moved = sieve.pull(input, &mut output)?;
            input = &input[moved.taken..];
            all.extend_from_slice(&output[..moved.given]);
            if input.is_empty() && moved.given < output.len() {
                break;
            }
            if moved == Moved::default() {
                return Err(io::Error::other("the sieve neither takes nor gives"));
            }
        }
    }
    Ok(all)
}
