//! The channel's rules under a seeded simulator: a fake plugin and a fake store that fail in every way, millions of steps.
//!
//! [`world`] plays everything around [`hotbay::channel::core::Core`]: members, the plugin, the store, the clock. [`oracle`]
//! knows what must hold and nothing of how the core does it. A failure names its seed; `HOTBAY_TEST_SEED=<seed>` runs that one
//! again, `HOTBAY_SIM_SEEDS=<n>` runs so many fresh ones.
//!
//! That the laws can fail was tried by breaking `core.rs` on purpose; what was tried, and which law caught it, stands in
//! `tests/sim/mutations.md`.
#![allow(clippy::expect_used, clippy::panic, reason = "a test ends at the first surprise")]

mod oracle;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// Seeds of every test run: always the same, so that a change that breaks a law is seen by whoever makes it.
const SEEDS: u64 = 2_500;
/// Steps before the faults stop.
const STEPS: usize = 400;

fn setting(name: &str) -> Option<u64> {
    std::env::vars().find(|(key, _)| key == name).and_then(|(_, value)| value.parse().ok())
}

/// One life of a channel: faults for a while, then calm, in which everything must come to its end.
fn live(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.calm();
}

fn run(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let lived = catch_unwind(AssertUnwindSafe(|| live(seed)));
        assert!(lived.is_ok(), "a law was broken: run it again with HOTBAY_TEST_SEED={seed}");
    }
}

#[test]
fn the_laws_of_a_channel_hold_whatever_fails() {
    match (setting("HOTBAY_TEST_SEED"), setting("HOTBAY_SIM_SEEDS")) {
        (Some(seed), _) => run(std::iter::once(seed)),
        (None, Some(count)) => run((0..count).map(|_| rand::random())),
        (None, None) => run(0..SEEDS),
    }
}

/// A simulation that never sees a fault, a quarantine or a lost commit proves nothing.
#[test]
fn the_simulated_world_is_as_bad_as_it_claims() {
    let mut sum = oracle::Sightings::default();
    for seed in 0..200 {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.calm();
        sum.add(&world.oracle.seen);
    }
    println!("{sum:?}");
    let oracle::Sightings {
        released,
        refused,
        closed,
        quarantined,
        longer,
        given_up,
        held,
        timers,
        sleeps,
        reruns,
        ..
    } = sum;
    let oracle::Sightings { swapped, declined, went_back, left_trial, crashes, .. } = sum;
    let all = [released, refused, closed, quarantined, longer, given_up, held, timers, sleeps, reruns];
    let mut all = all.into_iter().chain([swapped, declined, went_back, left_trial, crashes]);
    assert!(all.all(|count| count >= 20), "something hardly ever happens");
}

#[test]
fn a_seed_decides_everything() {
    let life = |seed| {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        world.calm();
        format!("{:?}", world.oracle.seen)
    };
    assert_eq!(life(7), life(7));
    assert_ne!(life(7), life(8));
}
