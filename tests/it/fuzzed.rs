//! The fuzz targets' properties without a fuzzer: for every seed of the corpus, and for slightly changed
//! seeds.

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::Index};

// These files are written for a separate library, tests/fuzz.
#[allow(unreachable_pub)]
#[path = "../fuzz/properties/mod.rs"]
mod properties;

/// The seeds of a target, by their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&directory)
        .expect("a corpus")
        .map(|entry| entry.expect("a seed").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a seed")))
        .collect();
    assert!(!seeds.is_empty(), "no seed in {}", directory.display());
    seeds.sort();
    seeds
}

/// One change of a seed. Places are relative to its length at that moment.
#[derive(Clone, Debug)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index),
    /// Continues with a part of another seed.
    Cross(Index, Index, Index),
}

impl Edit {
    fn any() -> impl Strategy<Value = Edit> {
        let place = any::<Index>;
        let byte = || prop_oneof![any::<u8>(), proptest::sample::select(&b"\0\x01\xff\"\\{}[]:, 0189FAS"[..])];
        prop_oneof![
            3 => (place(), byte()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
            2 => (place(), vec(byte(), 1..5)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
            2 => (place(), place()).prop_map(|(from, to)| Edit::Remove(from, to)),
            1 => (place(), place()).prop_map(|(from, to)| Edit::Repeat(from, to)),
            1 => (place(), place(), place()).prop_map(|(at, seed, from)| Edit::Cross(at, seed, from)),
        ]
    }

    fn apply(&self, input: &mut Vec<u8>, seeds: &[(String, Vec<u8>)]) {
        let size = input.len();
        let place = |index: &Index| index.index(size + 1);
        let range = |one: &Index, other: &Index| place(one).min(place(other))..place(one).max(place(other));
        match self {
            Edit::Replace(at, byte) => input[place(at)..].iter_mut().take(1).for_each(|old| *old = *byte),
            Edit::Insert(at, bytes) => drop(input.splice(place(at)..place(at), bytes.iter().copied())),
            Edit::Remove(from, to) => drop(input.drain(range(from, to))),
            Edit::Repeat(from, to) => input.extend_from_within(range(from, to)),
            Edit::Cross(at, seed, from) => {
                let other = &seed.get(seeds).1;
                input.truncate(place(at));
                input.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
}

fn holds_for_every_seed(target: &str, holds: fn(&[u8])) {
    for (name, seed) in corpus(target) {
        println!("{name}");
        holds(&seed);
    }
}

fn holds_for_edited_seeds(target: &str, holds: fn(&[u8])) {
    let seeds = corpus(target);
    let edited = (any::<Index>(), vec(Edit::any(), 1..6)).prop_map(|(seed, edits)| {
        let mut input = seed.get(&seeds).1.clone();
        edits.iter().for_each(|edit| edit.apply(&mut input, &seeds));
        input
    });
    // A failing input must become a seed, so nothing is stored elsewhere.
    let config = ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(input in edited)| holds(&input));
}

macro_rules! targets {
    ($($target:ident)*) => {$(
        mod $target {
            use super::*;

            #[test]
            fn holds_for_every_seed() {
                super::holds_for_every_seed(stringify!($target), properties::$target::holds);
            }

            #[test]
            fn holds_for_edited_seeds() {
                super::holds_for_edited_seeds(stringify!($target), properties::$target::holds);
            }
        }
    )*};
}

targets! { amqp_frames esms_answer job_body message_properties retry_after }
