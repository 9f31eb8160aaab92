//! A stand-in for the provider on loopback: a real HTTP/1.1 server that behaves as eSMS does. On demand
//! it fails in the ways a network fails. It counts the requests that it accepted.
//!
//! A test starts it in the test's own process with [`Sandbox::start`]. Demonstrations and benchmarks use
//! the `esms-sandbox` program. It listens on loopback addresses only.
//!
//! # The provider's calls
//!
//! | call | does |
//! |---|---|
//! | `POST /MainService.svc/json/SendMessageAutoGenCode_V5` | generates a code and "sends" it: `CodeResult` 100; refuses with 101 (keys), 103 (balance), 108 (phone), 110 (a field is missing, unknown or not a string) |
//! | `GET /MainService.svc/json/CheckCodeGen_V4_get?ApiKey&SecretKey&Phone&Code` | 100 for the phone's last code, once, while it is valid; else 171 |
//! | `POST /MainService.svc/json/GetBalance_json` | `Balance` and `CodeResponse` |
//!
//! The V5 call is also answered with a slash at the end of its path.
//!
//! Where eSMS answers with an HTML page instead of JSON, the sandbox does the same: 400 for a body that is
//! not a JSON object or not `application/json`, 404, 405.
//!
//! # Faults
//!
//! Each V5 request draws one [`Fault`]: from the script of its phone, else from the script for any
//! phone, else the fault that every request meets, else from the [`Mix`]. The mix uses only the seed, the phone and the number of earlier requests of
//! that phone. So the same run meets the same faults, in any order and at any concurrency. A request is taken
//! (counted, charged) the moment its body has arrived. Latency, hangs and resets come after that.
//!
//! Some faults are answers as servers, proxies and firewalls of the field deliver them: with odd headers, compressed,
//! with a wrong length, without a proper end. They are sent byte by byte where no HTTP server would send them.
//!
//! # The page
//!
//! `GET /` is a page for people: the messages as they come, and buttons for trouble. It uses the control plane.
//!
//! # The control plane
//!
//! For callers outside the process. [`Sandbox`] has methods for the same, but for what only the page needs. Bodies are
//! JSON. Another website in the developer's browser gets a 403: the `Host` must be `localhost` or a loopback address, and
//! what changes something must not come with an `Origin` or a `Sec-Fetch-Site` of elsewhere.
//!
//! | call | does |
//! |---|---|
//! | `GET /_sandbox/stats` | [`Stats`] |
//! | `GET /_sandbox/accepted` | every phone with an accepted request: a list of [`PhoneCount`] |
//! | `GET /_sandbox/duplicates` | the phones with more than one accepted request |
//! | `GET /_sandbox/phones/0901888484` | the phone's [`PhoneCount`], and a list of [`Recorded`] in the field `story`; 404 for a phone without requests |
//! | `GET /_sandbox/messages?after=0&find=0901&limit=200` | the newest messages with a higher number than `after`, to numbers with these digits, the newest first; the counts; which trouble is on. `run` changes with each start and reset, and then numbers begin at 1 again. The last 10,000 messages are kept; at most 1,000 come at once |
//! | `POST /_sandbox/check` `{"phone": "0901888484", "code": "123456"}` | what CheckCode answers; a right code is used by it |
//! | `POST /_sandbox/script` `{"phone": "0901888484", "faults": ["reset_after", {"status": {"code": 503}}]}` | the next requests of this phone meet these faults in order; without `phone`, those of any phone |
//! | `PUT /_sandbox/always` `{"fault": "latency:5s"}` | every request without a script meets this fault; `DELETE` ends this, and the mix is drawn from again |
//! | `PUT /_sandbox/mix` `{"reset_after": 0.02, "status:503:1": 0.05}` | probabilities from now on; `{}` for no faults |
//! | `PUT /_sandbox/forced` `{"code": "101", "message": "Authorize Failed"}` | refuses every request that would be accepted; `DELETE` ends this |
//! | `PUT /_sandbox/balance` `{"balance": 0}` | sets the account's balance, in VND |
//! | `POST /_sandbox/refuse` `{"ms": 2000}` | refuses connections for this long, also those of the control plane |
//! | `POST /_sandbox/release-hangs` | resets the connections of the requests that hang |
//! | `POST /_sandbox/release-held` | answers the requests that are held |
//! | `POST /_sandbox/reset` | forgets counts, phones, messages and scripts, and refills the balance; the mix, the fault of `always` and the forced refusal stay |
//!
//! # What it remembers
//!
//! Counts are exact for up to a million phones. After that, a request for a new phone gets a 503.
//! The first [`STORY_LIMIT`] requests of a phone are recorded in full, up to 200,000 requests in all. So are the last
//! 10,000 requests of all phones, for the page.

mod connection;
mod control;
mod deck;
mod dice;
mod door;
mod fault;
mod fault_text;
mod guard;
mod latest;
mod mix;
mod news;
mod page;
mod pages;
mod phones;
mod play;
mod records;
mod routes;
mod rules;
mod settings;
mod shared;
mod stats;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use self::{door::Door, rules::Keys, shared::Shared};
pub use self::{
    fault::Fault,
    fault_text::FaultError,
    mix::{Mix, MixError, Share},
    phones::{PhoneCount, Recorded, STORY_LIMIT},
    routes::{BALANCE_PATH, CHECK_CODE_PATH, SEND_PATH},
    rules::Refusal,
    settings::{DEFAULT_API_KEY, DEFAULT_BALANCE, DEFAULT_SECRET_KEY, DEFAULT_SEED, PRICE_VND, Settings},
    stats::Stats,
};

/// The limit on ending. Ending needs almost no time, because every open connection is reset.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// A running sandbox. Dropping it ends it: every connection is reset, and the port is closed.
pub struct Sandbox {
    shared: Arc<Shared>,
    door: Arc<Door>,
}

impl Sandbox {
    /// Listens, and serves on the runtime of the caller.
    ///
    /// # Errors
    /// An address that is not loopback (`InvalidInput`), or that cannot be listened on.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        if !settings.addr.ip().is_loopback() {
            let message = format!("{} is not a loopback address", settings.addr);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let door = Arc::new(Door::bind(settings.addr, routes::router)?);
        let sandbox = Self { shared: Shared::new(settings), door };
        sandbox.listen_again().await?;
        Ok(sandbox)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.door.addr
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.door.addr)
    }

    /// The URL of the V5 call: the value for `ESMS_URL`.
    pub fn send_url(&self) -> String {
        self.url() + SEND_PATH
    }

    /// The next requests for this phone, or for any phone, meet these faults in this order. After that they
    /// draw from the mix again. A phone's own script comes first. A later script is added to an earlier one.
    pub fn script(&self, phone: Option<&str>, faults: Vec<Fault>) {
        self.shared.change(|records| records.deck.script(phone, faults));
    }

    /// Has every request meet this fault, unless a script says otherwise. `None` ends this: the mix is drawn from again.
    pub fn always(&self, fault: Option<Fault>) {
        self.shared.change(|records| records.deck.always = fault);
    }

    /// Sets which faults come from now on, and how often.
    pub fn set_mix(&self, mix: Mix) {
        self.shared.change(|records| records.deck.mix = mix);
    }

    /// Refuses every request that would be accepted. `None` ends this.
    pub fn force(&self, refusal: Option<Refusal>) {
        self.shared.change(|records| records.forced = refusal);
    }

    /// Accepts these keys from now on, and no others.
    pub fn set_keys(&self, api_key: &str, secret_key: &str) {
        let keys = Keys { api: api_key.to_owned(), secret: secret_key.to_owned() };
        self.shared.change(|records| records.keys = keys);
    }

    /// Sets the account's balance, in VND.
    pub fn set_balance(&self, balance: u64) {
        self.shared.change(|records| records.balance = balance);
    }

    /// Forgets counts, phones, messages, codes and scripts, and refills the balance. The mix, the fault of
    /// [`Sandbox::always`] and the forced refusal stay.
    pub fn reset(&self) {
        self.shared.change(|records| records.reset());
    }

    /// How many requests for this phone were accepted. The phone must be written as in the requests.
    pub fn accepted(&self, phone: &str) -> u32 {
        self.shared.look(|records| records.phones.accepted(phone))
    }

    /// How many requests were accepted.
    pub fn accepted_total(&self) -> u64 {
        self.shared.look(|records| records.counts.accepted)
    }

    /// Every phone with an accepted request, sorted by phone.
    pub fn accepted_phones(&self) -> Vec<PhoneCount> {
        self.shared.look(|records| records.phones.accepted_at_least(1))
    }

    /// The phones with more than one accepted request, sorted by phone.
    pub fn duplicates(&self) -> Vec<PhoneCount> {
        self.shared.look(|records| records.phones.accepted_at_least(2))
    }

    /// The first [`STORY_LIMIT`] requests for this phone, in the order they came.
    pub fn requests(&self, phone: &str) -> Vec<Recorded> {
        self.shared.look(|records| records.phones.story(phone))
    }

    /// When the last 200,000 V5 requests arrived, in order.
    pub fn request_times(&self) -> Vec<Instant> {
        self.shared.look(|records| records.times.iter().copied().collect())
    }

    /// All counts.
    pub fn stats(&self) -> Stats {
        self.shared.look(|records| records.stats())
    }

    /// Returns as soon as `so` is true of the counts. There is no time limit: put one around this call.
    pub async fn wait_until(&self, mut so: impl FnMut(&Stats) -> bool) {
        self.shared.wait_until(|records| so(&records.stats())).await;
    }

    /// Returns as soon as at least `n` requests hang or are held ([`Fault::Hold`],
    /// [`Fault::HangBefore`], [`Fault::HangAfter`]). There is no time limit: put one around this call.
    pub async fn wait_until_held(&self, n: u64) {
        self.shared.wait_until(|records| records.held.now >= n).await;
    }

    /// Resets the connections of the requests that hang now.
    pub fn release_hangs(&self) {
        self.shared.hangs.send_replace(());
    }

    /// Answers the requests that are held now.
    pub fn release_held(&self) {
        self.shared.holds.send_replace(());
    }

    /// Refuses connections from the moment this returns until [`Sandbox::listen_again`].
    /// Idle connections are closed. Requests in progress are answered first. The sandbox keeps the port.
    ///
    /// # Errors
    /// The listening socket did not close within 5 s (`TimedOut`).
    pub async fn stop_listening(&self) -> io::Result<()> {
        self.door.shut().await
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub async fn listen_again(&self) -> io::Result<()> {
        self.door.open(&self.shared).await
    }

    /// Ends the sandbox: every connection is reset, and the port is closed. Returns when that is done.
    pub async fn shutdown(self) {
        self.shared.life.cancel();
        self.shared.tasks.close();
        // Every task has been told to end. Nothing more can be done about a late one.
        let _ = timeout(SHUTDOWN_LIMIT, self.shared.tasks.wait()).await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shared.life.cancel();
    }
}
