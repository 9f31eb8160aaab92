//! The entry point for the fuzz targets and their corpus, which use the library from outside.

use super::sieve::{Moved, Sieve};
use std::io;

/// The result of sifting a connection's inbound bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sifted {
    /// The bytes that lapin would read.
    pub bytes: Vec<u8>,
    /// How many frames were changed.
    pub repaired: u64,
}

/// Sifts the inbound bytes of a new connection. Takes in `piece` bytes at a time, and has room for `room`
/// bytes of output at a time.
///
/// # Errors
/// `InvalidData` when the bytes are not AMQP 0-9-1.
pub fn sift(bytes: &[u8], frame_max: u32, piece: usize, room: usize) -> io::Result<Sifted> {
    let mut sieve = Sieve::new(frame_max);
    let bytes = feed(&mut sieve, bytes, piece, room)?;
    Ok(Sifted { bytes, repaired: sieve.repaired() })
}

/// Feeds `bytes` to the sieve in pieces of `piece` bytes, with room for `room` bytes of output at a time.
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
