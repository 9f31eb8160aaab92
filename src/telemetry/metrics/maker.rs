//! Making metrics.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Keeps a gauge higher by one until it is dropped.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes metrics and registers them.
pub(super) struct Maker(pub(super) Registry);

impl Maker {
    pub(super) fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// A counter of something that counts itself. It is asked at each scrape.
    pub(super) fn counted_elsewhere(
        &self,
        name: &str,
        help: &str,
        count: fn() -> u64,
    ) -> Result<(), prometheus::Error> {
        let shape = IntCounter::new(name, help)?;
        self.0.register(Box::new(CountedElsewhere { name: name.into(), help: help.into(), shape, count }))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()))?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        label: &str,
        bounds: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), &[label])?)
    }
}

struct CountedElsewhere {
    name: String,
    help: String,
    /// Says what the metric looks like. It counts nothing.
    shape: IntCounter,
    count: fn() -> u64,
}

impl Collector for CountedElsewhere {
    fn desc(&self) -> Vec<&Desc> {
        self.shape.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A new counter each time, so that two scrapes at once cannot count twice.
        let Ok(counter) = IntCounter::new(self.name.as_str(), self.help.as_str()) else { return Vec::new() };
        counter.inc_by((self.count)());
        counter.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Encoder as _, TextEncoder};

    #[test]
    fn what_is_counted_elsewhere_is_asked_at_each_scrape() {
        let registry = Registry::new();
        Maker(registry.clone()).counted_elsewhere("lines_total", "Lines.", || 3).unwrap();
        for _ in 0..2 {
            let mut text = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text, "# HELP lines_total Lines.\n# TYPE lines_total counter\nlines_total 3\n");
        }
    }
}
