//! Ports that stay ours while nothing listens on them.

use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which Linux (32768) and macOS (49152) take the local
/// ports of outgoing connections. A node that is down for a while would lose
/// a port from that range to any client; and a client that keeps trying to
/// reach it can be given the very same port, and so be connected to itself.
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
