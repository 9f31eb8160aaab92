//! Ports that no other program takes while nothing listens on them.

use std::net::{Ipv4Addr, TcpListener};

/// Linux (from 32768) and macOS (from 49152) take the local ports of outgoing connections from higher
/// ranges. In such a range, any client could take the port of a node that is down for a while. A client
/// that keeps trying to reach the node could even be given that port itself, and so be connected to itself.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The first of `count` consecutive ports of 127.0.0.1 that are free now.
///
/// # Panics
///
/// When 100 random places in the range were all taken.
pub(crate) fn free_block(count: u16) -> u16 {
    (0..100)
        .map(|_| random_port())
        .find(|first| (*first..*first + count).all(is_free))
        .expect("no free ports between 20000 and 32000")
}

fn random_port() -> u16 {
    let size = u128::from(RANGE.end - RANGE.start);
    let offset = uuid::Uuid::new_v4().as_u128() % size;
    RANGE.start + u16::try_from(offset).expect("an offset into a range of u16")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
