//! Whether the limits held, and whether what is counted in Redis is what was sent. Pure, but for the reading.

use std::collections::HashMap;

use crate::audit::{Case, Rules, Violation};
use crate::job::FORMS;
use crate::settings::Settings;
use crate::stage::{LEDGER_PREFIX, Stage};

pub(crate) const WITHIN: &str = "no number, and not all together, got OTPs for more jobs than its limit";
pub(crate) const COUNTED: &str = "what the limits count is what was sent, or may have been";

/// `OTP_PHONE_LIMIT` of a campaign with limits: jobs for one number within [`WINDOW`].
pub(crate) const MOST_TO_A_NUMBER: usize = 2;

/// Longer than any campaign.
pub(crate) const WINDOW: &str = "1h";
const WINDOW_MS: u64 = 3_600_000;

/// `OTP_TOTAL_LIMIT`: it is reached towards the end.
pub(crate) const fn most_in_all(settings: &Settings) -> u64 {
    settings.jobs * 2 / 5
}

/// What Redis counts in all: OTPs, and jobs in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    sent: usize,
    in_flight: usize,
}

impl Counted {
    pub(crate) async fn read(stage: &Stage) -> Option<Self> {
        let redis = stage.redis.as_ref().filter(|_| stage.settings.limits)?;
        let key = |what: &str| format!("{LEDGER_PREFIX}limit:total:{what}");
        let sent = redis.cli(&["--raw", "HVALS", &key(&WINDOW_MS.to_string())]).await;
        let in_flight = redis.cli(&["--raw", "ZCARD", &key("flying")]).await;
        let sent = sent.lines().filter_map(|part| part.trim().parse::<usize>().ok()).sum();
        Some(Self { sent, in_flight: in_flight.trim().parse().unwrap_or_default() })
    }
}

/// Everything that is wrong with the limits. A worker that sends without the ledger counts only what it has seen.
pub(crate) fn violations(
    settings: &Settings,
    rules: Rules,
    cases: &[Case],
    counted: Option<Counted>,
) -> Vec<Violation> {
    if !settings.limits || rules.unseen {
        return Vec::new();
    }
    let sent = cases.iter().filter(|case| case.sends > 0);
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    for case in sent.clone() {
        *numbers.entry(core(case)).or_default() += 1;
    }
    let over = numbers.into_iter().filter(|(_, jobs)| *jobs > MOST_TO_A_NUMBER);
    let mut wrong: Vec<Violation> =
        over.map(|(number, jobs)| violation(WITHIN, format!("{jobs} jobs for the number …{number}"))).collect();
    let (sent, most) = (sent.count(), most_in_all(settings));
    if sent as u64 > most {
        wrong.push(violation(WITHIN, format!("{sent} jobs in all, and the limit is {most}")));
    }
    if let Some(Counted { sent, in_flight }) = counted.filter(|_| rules.recorded) {
        let kept = cases.iter().filter(|case| case.job.valid && case.keeps_its_place()).count();
        if (sent, in_flight) != (kept, 0) {
            let what = format!("{sent} are counted and {in_flight} in flight; {kept} were sent, or may have been");
            wrong.push(violation(COUNTED, what));
        }
    }
    wrong
}

/// The digits that all forms of a number end with.
fn core(case: &Case) -> &str {
    let form = FORMS.iter().rev().find_map(|form| case.job.phone.strip_prefix(form));
    form.unwrap_or(&case.job.phone)
}

fn violation(claim: &'static str, what: String) -> Violation {
    Violation { claim, id: None, what }
}
