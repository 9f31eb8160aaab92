//! Turns the bytes from a broker into frames that lapin can parse, no matter what producers wrote.
//!
//! lapin 4.12 gives up the connection on a short string that is not UTF-8. On deeply nested header tables it
//! overflows the stack of its I/O thread. In both cases the broker delivers the message again, so one message
//! would stop every worker of the queue, again and again. Frames that carry text from producers are therefore
//! held back until they are whole, and repaired. Bodies pass at once, because lapin does not look into them.

use super::repair::{self, FLAGS, HEAD};
use lapin::protocol::{AMQPClass, connection::AMQPMethod, parse_class};
use std::{
    io,
    sync::{Arc, OnceLock},
};

/// The largest frame that is held back, in bytes.
///
/// RabbitMQ's default `frame_max` is 128 KiB. A client cannot write a larger header than the `frame_max` it
/// negotiated. The rest is room for the broker's additions (`x-death`), and for brokers with a larger limit.
/// A larger content header is not held: it loses its properties.
pub(super) const HELD_MAX: u64 = 1024 * 1024;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// Type, channel and size before the payload, and the end marker after it.
const FRAMING: u64 = HEAD as u64 + 1;
/// A broker that speaks another version answers with these bytes and its version, eight bytes in all.
const PROTOCOL: &[u8] = b"AMQP";

/// How many bytes a [`Sieve`] has taken in and given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) taken: usize,
    pub(super) given: usize,
}

/// An incremental filter over the inbound bytes of one connection.
pub(super) struct Sieve {
    step: Step,
    /// The part of the current frame that is held back or on its way out.
    frame: Vec<u8>,
    /// How many bytes of `frame` are already out.
    sent: usize,
    frame_max: u64,
    open: bool,
    repaired: u64,
    cluster: Arc<OnceLock<String>>,
}

#[derive(Clone, Copy)]
enum Step {
    /// Collecting type, channel and size.
    Head,
    /// Collecting a whole frame of this many bytes, to repair it.
    Whole(usize),
    /// Collecting the start of a content header that is too large to hold, up to the end of its body size.
    Stub(Rest),
    /// Giving out `frame`, and then the part of it that was never held.
    Out(Rest),
    Rest(Rest),
}

/// The bytes after the held part of a frame, its end marker included.
#[derive(Clone, Copy)]
enum Rest {
    None,
    Pass(u64),
    Drop(u64),
}

impl Sieve {
    /// `frame_max` is the frame size that the client asks for, in bytes. The broker may lower it.
    pub(super) fn new(frame_max: u32) -> Self {
        Self {
            step: Step::Head,
            frame: Vec::new(),
            sent: 0,
            frame_max: frame_max.into(),
            open: false,
            repaired: 0,
            cluster: Arc::default(),
        }
    }

    /// Whether the broker has opened the connection (connection.open-ok).
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Where the broker's cluster name is put, as soon as the broker says it. lapin does not tell it.
    pub(super) fn cluster(&self) -> Arc<OnceLock<String>> {
        Arc::clone(&self.cluster)
    }

    /// How many frames were changed.
    pub(super) fn repaired(&self) -> u64 {
        self.repaired
    }

    /// Moves as many bytes as possible from `input` to `output`. If there was room but no byte was given out,
    /// all of `input` has been taken.
    ///
    /// # Errors
    /// `InvalidData` when the broker does not speak AMQP 0-9-1. All bytes before the wrong ones are given out
    /// first. After this error the connection is useless.
    pub(super) fn pull(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Moved> {
        let mut total = Moved::default();
        loop {
            match self.advance(&input[total.taken..], &mut output[total.given..]) {
                Err(error) if total.given == 0 => return Err(error),
                Err(_) | Ok(Moved { taken: 0, given: 0 }) => return Ok(total),
                Ok(moved) => {
                    total.taken += moved.taken;
                    total.given += moved.given;
                }
            }
        }
    }

    fn advance(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Moved> {
        match self.step {
            Step::Head => self.collect(input, HEAD, Self::begin),
            Step::Whole(length) => self.collect(input, length, Self::repair),
            Step::Stub(rest) => self.collect(input, FLAGS, |sieve| {
                repair::strip(&mut sieve.frame);
                sieve.repaired += 1;
                Ok(Step::Out(rest))
            }),
            Step::Out(rest) => Ok(self.give(output, rest)),
            Step::Rest(rest) => Ok(self.rest(rest, input, output)),
        }
    }

    /// Holds back input until there are `length` bytes. Then `then` decides the next step.
    fn collect(
        &mut self,
        input: &[u8],
        length: usize,
        then: impl FnOnce(&mut Self) -> io::Result<Step>,
    ) -> io::Result<Moved> {
        let taken = input.len().min(length - self.frame.len());
        self.frame.extend_from_slice(&input[..taken]);
        if self.frame.len() == length {
            self.step = then(self)?;
        }
        Ok(Moved { taken, given: 0 })
    }

    fn begin(&mut self) -> io::Result<Step> {
        let size = u64::from(u32::from_be_bytes([self.frame[3], self.frame[4], self.frame[5], self.frame[6]]));
        match self.frame[0] {
            BODY | HEARTBEAT => Ok(Step::Out(Rest::Pass(size + 1))),
            METHOD | HEADER if size + FRAMING <= HELD_MAX => Ok(Step::Whole((size + FRAMING) as usize)),
            HEADER => Ok(Step::Stub(Rest::Drop(size + FRAMING - FLAGS as u64))),
            METHOD => Err(not_amqp("a method larger than any")),
            _ if self.frame.starts_with(PROTOCOL) => Ok(Step::Out(Rest::Pass(1))),
            _ => Err(not_amqp("an unknown type of frame")),
        }
    }

    fn repair(&mut self) -> io::Result<Step> {
        if self.frame.last() != Some(&repair::FRAME_END) {
            return Err(not_amqp("a frame without its end marker"));
        }
        let repaired = if self.frame[0] == HEADER {
            let limit = usize::try_from(self.frame_max).unwrap_or(usize::MAX);
            repair::repair_header(&mut self.frame, limit).map_err(|_| not_amqp("a content header cut short"))?
        } else {
            let repaired = repair::repair_method(&mut self.frame);
            self.observe();
            repaired
        };
        self.repaired += u64::from(repaired);
        Ok(Step::Out(Rest::None))
    }

    /// Learns the cluster name, the frame size, and whether the connection is open, from the methods of the
    /// handshake. lapin reads the same methods.
    fn observe(&mut self) {
        match repair::method_id(&self.frame) {
            Some((10, 10)) => self.start(),
            Some((10, 30)) => self.tune(),
            Some((10, 41)) => self.open = true,
            _ => {}
        }
    }

    fn start(&mut self) {
        let payload = &self.frame[HEAD..self.frame.len() - 1];
        let Ok((_, AMQPClass::Connection(AMQPMethod::Start(start)))) = parse_class(payload) else { return };
        let name = start.server_properties.inner().get("cluster_name").and_then(|name| name.as_long_string());
        if let Some(name) = name {
            let _ = self.cluster.set(String::from_utf8_lossy(name.as_bytes()).into_owned());
        }
    }

    /// connection.tune holds class, method, channel-max and then frame-max. A frame-max of 0 means no limit.
    /// The smaller limit of the two sides wins, but it is never below the 4 KiB of AMQP 0-9-1, 4.2.3.
    fn tune(&mut self) {
        if let Some(&[a, b, c, d]) = self.frame.get(HEAD + 6..HEAD + 10) {
            let offered = u64::from(u32::from_be_bytes([a, b, c, d]));
            if offered != 0 && offered < self.frame_max {
                self.frame_max = offered.max(4096);
            }
        }
    }

    fn give(&mut self, output: &mut [u8], rest: Rest) -> Moved {
        let left = &self.frame[self.sent..];
        let given = left.len().min(output.len());
        output[..given].copy_from_slice(&left[..given]);
        self.sent += given;
        if self.sent == self.frame.len() {
            self.frame.clear();
            self.sent = 0;
            self.step = rest.step();
        }
        Moved { taken: 0, given }
    }

    fn rest(&mut self, rest: Rest, input: &[u8], output: &mut [u8]) -> Moved {
        match rest {
            Rest::None => Moved::default(),
            Rest::Pass(left) => {
                let count = at_most(left, input.len().min(output.len()));
                output[..count].copy_from_slice(&input[..count]);
                self.step = Rest::Pass(left - count as u64).step();
                Moved { taken: count, given: count }
            }
            Rest::Drop(left) => {
                let count = at_most(left, input.len());
                self.step = Rest::Drop(left - count as u64).step();
                Moved { taken: count, given: 0 }
            }
        }
    }
}

impl Rest {
    fn step(self) -> Step {
        match self {
            Rest::None | Rest::Pass(0) | Rest::Drop(0) => Step::Head,
            rest => Step::Rest(rest),
        }
    }
}

fn at_most(limit: u64, count: usize) -> usize {
    usize::try_from(limit).map_or(count, |limit| limit.min(count))
}

fn not_amqp(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what came was {what}, which is not AMQP 0-9-1"))
}

#[cfg(test)]
mod tests;
