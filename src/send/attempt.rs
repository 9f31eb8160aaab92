//! One attempt: the call, measured and traced, and what is logged of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::throttle::{Throttled, asked_to_slow_down};
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
    throttled: Arc<Throttled>,
    metrics: Arc<Metrics>,
    /// Whether the last reply that was answer or page was a page.
    unreadable: AtomicBool,
}

impl Attempts {
    /// Attempts with this client. `retry_codes` is `ESMS_RETRY_CODES`; what eSMS throttles is told to `throttled`.
    pub(super) const fn new(
        esms: Esms,
        retry_codes: BTreeSet<String>,
        throttled: Arc<Throttled>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { esms, retry_codes, throttled, metrics, unreadable: AtomicBool::new(false) }
    }

    /// Makes attempt `number` of the job. Returns its class, with phone number and credentials masked. It ends
    /// within `ESMS_TIMEOUT`.
    pub(super) async fn make(&self, job: &Job, number: u32) -> Class {
        debug!(attempt = number, "attempt begins");
        let class = self.call(job, number).await;
        self.log_page(&class);
        log_failure(job, &class, number);
        class
    }

    /// Says once what comes in place of answers, until answers come again.
    fn log_page(&self, class: &Class) {
        match class {
            Class::Answered(_) | Class::AnsweredTryLater(_) => self.unreadable.store(false, Ordering::Relaxed),
            Class::Unreadable { page, .. } if !self.unreadable.swap(true, Ordering::Relaxed) => warn!(
                parent: None,
                looks_like = page.look.as_str(),
                begins = self.esms.quote(page),
                hint = page.look.hint(),
                "an answer cannot be read"
            ),
            Class::Unreadable { .. } | Class::NotSent { .. } | Class::Ambiguous { .. } | Class::Refused { .. } => {}
        }
    }

    async fn call(&self, job: &Job, number: u32) -> Class {
        let (began, span) = (Instant::now(), job.span.call(self.esms.url(), number));
        // Made for each attempt: the keys may be new since the last one.
        let body = self.esms.body(&job.request);
        let seen = self.esms.attempt(body, span.traceparent(), job.deadline).await;
        let status = seen.status();
        let mut class = classify(seen, &self.retry_codes, SystemTime::now());
        if let Some(asked) = asked_to_slow_down(status, &class) {
            self.throttled.cut(began, asked);
        }
        span.called(status, &class);
        self.metrics.attempt(class.name(), began.elapsed());
        if let Class::Answered(answer) | Class::AnsweredTryLater(answer) = &mut class {
            self.metrics.code_result(&answer.code);
            self.mask(answer, &job.request.phone);
        }
        class
    }

    /// eSMS repeats numbers in its messages; a result event must not, in no field. A documented code is neither a
    /// number nor a credential, even where a short credential is a part of it: what follows the answer is decided on
    /// its code, and must be the same before and after.
    fn mask(&self, answer: &mut Answer, phone: &Phone) {
        let masked = |text: &str| phone.masked_in(&self.esms.without_credentials(text));
        if codes::documented(&answer.code) == &codes::UNDOCUMENTED {
            answer.code = masked(&answer.code);
        }
        answer.error_message = answer.error_message.as_deref().map(masked);
        answer.sms_id = answer.sms_id.as_deref().map(masked);
        let json = answer.count_regenerate.take().map(|json| masked(json.get()));
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
        Class::Ambiguous { why } | Class::Unreadable { why, .. } => {
            (why.clone(), Some("the OTP may have gone out; OTP_ON_AMBIGUOUS decides"))
        }
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
