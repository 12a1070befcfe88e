//! The operator of a broker under test: deploys, and asks what became of it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Outcome;
use crate::support::admin::Admin;
use crate::support::broker::Broker;
use crate::support::http::{self, Answer};

/// How often what goes on is looked at.
const POLL: Duration = Duration::from_millis(20);
const MOUNT: &str = "fixture";
const PAUSES: &str = "hotbay_swap_pause_seconds";

/// An operator with a key.
pub(crate) struct Operator<'b> {
    broker: &'b Broker,
    pub(crate) admin: Admin,
}

/// What a deployment did, as the broker counts it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) events: f64,
    pub(crate) cpu_us: f64,
    pub(crate) swaps: f64,
    pub(crate) swaps_failed: f64,
    pub(crate) swap_us_max: f64,
    pub(crate) shadow_events: f64,
    pub(crate) shadow_differences: f64,
    pub(crate) shadow_skipped: f64,
}

impl<'b> Operator<'b> {
    pub(crate) fn of(broker: &'b Broker) -> Self {
        Self { broker, admin: Admin::operator(broker) }
    }

    /// Deploys a component that the broker knows, and gives the deployment's number.
    pub(crate) async fn deploy(&self, component: &Path, strategy: &Value) -> Outcome<i64> {
        let digest = hex::encode(Sha256::digest(std::fs::read(component)?));
        let body = json!({ "version": digest, "strategy": strategy });
        let answer = self.admin.post(&format!("/mounts/{MOUNT}/deployments"), &body).await;
        let id = expect(&answer, 201)?["id"].as_i64();
        id.ok_or_else(|| format!("a deployment without a number: {}", answer.text).into())
    }

    /// A deployment as it is now.
    pub(crate) async fn deployment(&self, id: i64) -> Outcome<Value> {
        expect(&self.admin.get(&format!("/deployments/{id}")).await, 200)
    }

    /// What it did so far.
    pub(crate) async fn counts(&self, id: i64) -> Outcome<Counts> {
        let deployment = self.deployment(id).await?;
        let of = |name: &str| deployment["counts"][name].as_f64().unwrap_or_default();
        Ok(Counts {
            events: of("events"),
            cpu_us: of("cpu_us"),
            swaps: of("swaps"),
            swaps_failed: of("swaps_failed"),
            swap_us_max: of("swap_us_max"),
            shadow_events: of("shadow_events"),
            shadow_differences: of("shadow_differences"),
            shadow_skipped: of("shadow_skipped"),
        })
    }

    /// Waits until so many channels were swapped to a deployment, or could not be.
    pub(crate) async fn until_swapped(&self, id: i64, channels: u32, deadline: Duration) -> Outcome<Counts> {
        let begun = Instant::now();
        loop {
            let counts = self.counts(id).await?;
            if counts.swaps + counts.swaps_failed >= f64::from(channels) {
                return Ok(counts);
            }
            if begun.elapsed() > deadline {
                return Err(
                    format!("after {deadline:?} only {} of {channels} channels were swapped", counts.swaps).into()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a deployment is no longer in force, and gives it as it is then.
    pub(crate) async fn until_ended(&self, id: i64, deadline: Duration) -> Outcome<Value> {
        let begun = Instant::now();
        loop {
            let deployment = self.deployment(id).await?;
            if deployment["state"] != "active" {
                return Ok(deployment);
            }
            if begun.elapsed() > deadline {
                return Err(format!("after {deadline:?} it is still in force: {deployment}").into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends a deployment that is not for all.
    pub(crate) async fn stop(&self, id: i64) -> Outcome<()> {
        let body = json!({ "reason": "the bench has seen enough" });
        expect(&self.admin.post(&format!("/deployments/{id}/stop"), &body).await, 200).map(drop)
    }

    /// The bucket of the broker's pauses for swaps that a percentile lies in, as its upper bound in milliseconds.
    pub(crate) async fn pause_ms(&self, percent: f64) -> f64 {
        let metrics = http::get(&self.broker.http("/metrics"), &[]).await.text;
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for line in metrics.lines().filter_map(|line| line.strip_prefix(PAUSES)?.strip_prefix("_bucket{")) {
            let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            let count = line.rsplit(' ').next().and_then(|count| count.parse().ok());
            let bound = bound.and_then(|bound| if bound == "+Inf" { Some(f64::INFINITY) } else { bound.parse().ok() });
            buckets.extend(bound.zip(count));
        }
        let all = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
        let within = buckets.iter().find(|(_, count)| *count >= all * percent / 100.0);
        within.map_or(f64::NAN, |(bound, _)| bound * 1e3)
    }
}

/// The body of an answer that should have this status.
pub(crate) fn expect(answer: &Answer, status: u16) -> Outcome<Value> {
    if answer.status == status {
        Ok(serde_json::from_str(&answer.text)?)
    } else {
        Err(format!("{} instead of {status}: {}", answer.status, answer.text).into())
    }
}
