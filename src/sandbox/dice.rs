//! Repeatable chance: everything "random" in the sandbox is a hash of the seed, the phone, and the number
//! of earlier requests of that phone.
//!
//! A recorded seed must give the same faults forever. The standard hashers may change from one Rust release
//! to the next, so this file has its own hash.

/// What a roll is for. Rolls for different purposes are unrelated, even for the same request.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Fault = 1,
    Jitter,
    Code,
    SmsIdHigh,
    SmsIdLow,
}

/// One request: everything that its rolls depend on.
#[derive(Clone, Copy)]
pub(crate) struct Dice<'a> {
    pub(crate) seed: u64,
    pub(crate) phone: &'a str,
    /// 1 for the first request of this phone.
    pub(crate) nth: u64,
}

impl Dice<'_> {
    /// A whole number. Every number is equally likely.
    pub(crate) fn roll(self, purpose: Purpose) -> u64 {
        let mut hash = FNV_OFFSET;
        let words = [self.seed, self.nth, purpose as u64];
        for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
            hash = fnv(hash, byte);
        }
        finish(self.phone.bytes().fold(hash, fnv))
    }

    /// At least 0 and less than 1.
    pub(crate) fn fraction(self, purpose: Purpose) -> f64 {
        // An f64 holds 53 bits exactly.
        (self.roll(purpose) >> 11) as f64 / (1u64 << 53) as f64
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// One step of FNV-1a.
fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

/// The finisher of splitmix64: FNV alone leaves its high bits poorly mixed.
fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roll_is_the_same_in_every_release() {
        let dice = Dice { seed: 1, phone: "0901888484", nth: 1 };
        assert_ne!(dice.roll(Purpose::Fault), dice.roll(Purpose::Code));
        assert_eq!(dice.roll(Purpose::Fault), 11_133_866_004_594_270_681);
    }

    #[test]
    fn fractions_fill_the_unit_interval_evenly() {
        let below_a_tenth = (1..=10_000)
            .map(|nth| Dice { seed: 7, phone: "0901888484", nth }.fraction(Purpose::Fault))
            .inspect(|fraction| assert!((0.0..1.0).contains(fraction)))
            .filter(|fraction| *fraction < 0.1)
            .count();
        assert!((900..1100).contains(&below_a_tenth), "{below_a_tenth}");
    }
}
