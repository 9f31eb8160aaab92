//! The control plane: `/_sandbox/…`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, Path, Query, State},
    http::StatusCode,
    response::Response,
    routing::{any, get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    door::Door,
    fault::Fault,
    mix::Mix,
    news::{News, Question, news},
    pages,
    phones::{PhoneCount, Recorded},
    rules::Refusal,
    shared::Shared,
    stats::Stats,
};

/// The longest time that the sandbox refuses connections, in milliseconds. Meanwhile the control plane
/// refuses connections too, so nobody could shorten the time.
const REFUSE_LIMIT_MS: u64 = 3_600_000;

type Records = State<Arc<Shared>>;

#[derive(Clone)]
struct Control {
    shared: Arc<Shared>,
    door: Arc<Door>,
}

impl FromRef<Control> for Arc<Shared> {
    fn from_ref(control: &Control) -> Self {
        Self::clone(&control.shared)
    }
}

pub(crate) fn router(shared: Arc<Shared>, door: Arc<Door>) -> Router {
    Router::new()
        .route("/stats", get(stats))
        .route("/accepted", get(accepted))
        .route("/duplicates", get(duplicates))
        .route("/phones/{phone}", get(phone))
        .route("/messages", get(messages))
        .route("/check", post(check))
        .route("/script", post(script))
        .route("/always", put(always).delete(not_always))
        .route("/mix", put(mix))
        .route("/forced", put(force).delete(force_nothing))
        .route("/balance", put(balance))
        .route("/refuse", post(refuse))
        .route("/release-hangs", post(release_hangs))
        .route("/release-held", post(release_held))
        .route("/reset", post(reset))
        .route("/redirected", any(redirected))
        .with_state(Control { shared, door })
}

async fn stats(State(shared): Records) -> Json<Stats> {
    Json(shared.look(|records| records.stats()))
}

async fn accepted(State(shared): Records) -> Json<Vec<PhoneCount>> {
    Json(shared.look(|records| records.phones.accepted_at_least(1)))
}

async fn duplicates(State(shared): Records) -> Json<Vec<PhoneCount>> {
    Json(shared.look(|records| records.phones.accepted_at_least(2)))
}

#[derive(Serialize)]
struct PhoneStory {
    #[serde(flatten)]
    count: PhoneCount,
    story: Vec<Recorded>,
}

async fn phone(State(shared): Records, Path(phone): Path<String>) -> Result<Json<PhoneStory>, StatusCode> {
    let (count, story) = shared.look(|records| (records.phones.count(&phone), records.phones.story(&phone)));
    let count = count.ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(PhoneStory { count, story }))
}

async fn messages(State(shared): Records, Query(question): Query<Question>) -> Json<News> {
    Json(shared.look(|records| news(records, &question)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    phone: String,
    code: String,
}

/// As CheckCode does, for who has no keys. It is not counted as a call.
async fn check(State(shared): Records, Json(check): Json<Check>) -> Json<Map<String, Value>> {
    Json(shared.change(|records| records.check_code(&check.phone, &check.code)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    phone: Option<String>,
    faults: Vec<Fault>,
}

async fn script(State(shared): Records, Json(script): Json<Script>) -> StatusCode {
    shared.change(|records| records.deck.script(script.phone.as_deref(), script.faults));
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Always {
    fault: String,
}

async fn always(State(shared): Records, Json(always): Json<Always>) -> (StatusCode, String) {
    match always.fault.parse::<Fault>() {
        Ok(fault) => {
            shared.change(|records| records.deck.always = Some(fault));
            (StatusCode::NO_CONTENT, String::new())
        }
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
    }
}

async fn not_always(State(shared): Records) -> StatusCode {
    shared.change(|records| records.deck.always = None);
    StatusCode::NO_CONTENT
}

async fn mix(State(shared): Records, Json(mix): Json<Mix>) -> StatusCode {
    shared.change(|records| records.deck.mix = mix);
    StatusCode::NO_CONTENT
}

async fn force(State(shared): Records, Json(refusal): Json<Refusal>) -> StatusCode {
    shared.change(|records| records.forced = Some(refusal));
    StatusCode::NO_CONTENT
}

async fn force_nothing(State(shared): Records) -> StatusCode {
    shared.change(|records| records.forced = None);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Balance {
    balance: u64,
}

async fn balance(State(shared): Records, Json(new): Json<Balance>) -> StatusCode {
    shared.change(|records| records.balance = new.balance);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refuse {
    ms: u64,
}

/// Answers before the port is shut, because the answer uses a connection that is about to be closed.
async fn refuse(State(control): State<Control>, Json(refuse): Json<Refuse>) -> StatusCode {
    let time = Duration::from_millis(refuse.ms.min(REFUSE_LIMIT_MS));
    let tasks = control.shared.tasks.clone();
    tasks.spawn(refuse_for(control, time));
    StatusCode::ACCEPTED
}

async fn refuse_for(Control { shared, door }: Control, time: Duration) {
    let refused = async {
        door.shut().await?;
        tokio::time::sleep(time).await;
        door.open(&shared).await
    };
    if let Some(Err(error)) = shared.life.run_until_cancelled(refused).await {
        tracing::error!(%error, "the sandbox cannot listen again");
    }
}

async fn release_hangs(State(shared): Records) -> StatusCode {
    shared.hangs.send_replace(());
    StatusCode::NO_CONTENT
}

async fn release_held(State(shared): Records) -> StatusCode {
    shared.holds.send_replace(());
    StatusCode::NO_CONTENT
}

async fn reset(State(shared): Records) -> StatusCode {
    shared.change(|records| records.reset());
    StatusCode::NO_CONTENT
}

async fn redirected(State(shared): Records) -> Response {
    shared.change(|records| records.counts.redirects_followed += 1);
    pages::html(StatusCode::OK, "You should not have followed.")
}
