//! One attempt: the call, measured and traced, and what is logged of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::warn;

use crate::deliveries::job::Job;
use crate::esms::classify::{Class, classify};
use crate::esms::client::Esms;
use crate::esms::codes;
use crate::job::phone::Phone;
use crate::job::result::Answer;
use crate::telemetry::metrics::Metrics;

/// Makes attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    esms: Esms,
    retry_codes: BTreeSet<String>,
    metrics: Arc<Metrics>,
}

impl Attempts {
    /// Attempts with this client. `retry_codes` is `ESMS_RETRY_CODES`.
    pub(super) const fn new(esms: Esms, retry_codes: BTreeSet<String>, metrics: Arc<Metrics>) -> Self {
        Self { esms, retry_codes, metrics }
    }

    /// Makes the attempt `number` of the job; what it means, with eSMS's words masked. It ends within
    /// `ESMS_TIMEOUT`.
    pub(super) async fn make(&self, job: &Job, number: u32) -> Class {
        let class = self.call(job, number).await;
        log_failure(job, &class, number);
        class
    }

    async fn call(&self, job: &Job, number: u32) -> Class {
        let (began, span) = (Instant::now(), job.span.call(self.esms.url(), number));
        // Made for each attempt: the keys may be new since the last one.
        let body = self.esms.body(&job.request);
        let seen = self.esms.attempt(body, span.traceparent(), job.deadline).await;
        let status = seen.status();
        let mut class = classify(seen, &self.retry_codes, SystemTime::now());
        span.called(status, &class);
        self.metrics.attempt(class.name(), began.elapsed());
        if let Class::Answered(answer) | Class::AnsweredTryLater(answer) = &mut class {
            self.metrics.code_result(&answer.code);
            self.mask(answer, &job.request.phone);
        }
        class
    }

    /// eSMS repeats numbers in its messages; a result event must not, in no field.
    fn mask(&self, answer: &mut Answer, phone: &Phone) {
        let masked = |text: String| phone.masked_in(&self.esms.without_credentials(text));
        answer.error_message = answer.error_message.take().map(&masked);
        answer.code = masked(std::mem::take(&mut answer.code));
        answer.sms_id = answer.sms_id.take().map(&masked);
        let json = answer.count_regenerate.take().map(|json| masked(json.get().to_owned()));
        // What is no JSON once masked was no count.
        answer.count_regenerate = json.and_then(|json| RawValue::from_string(json).ok());
    }
}

fn log_failure(job: &Job, class: &Class, attempt: u32) {
    let (why, hint) = match class {
        Class::Answered(answer) if answer.code == codes::ACCEPTED => return,
        Class::Answered(answer) | Class::AnsweredTryLater(answer) => {
            let known = codes::documented(&answer.code);
            (format!("CodeResult {}: {}", answer.code, known.meaning), known.scope.hint())
        }
        Class::NotSent { why, .. } => (why.clone(), Some("nothing was sent; check the network to eSMS and its status")),
        Class::Ambiguous { why } => (why.clone(), Some("the OTP may have gone out; OTP_ON_AMBIGUOUS decides")),
        Class::Refused { why } => (why.clone(), Some("check ESMS_URL and what stands between here and eSMS")),
    };
    warn!(
        phone = %job.request.phone,
        attempt,
        class = class.name().as_str(),
        why,
        hint,
        "attempt failed"
    );
}

#[cfg(test)]
mod tests;
