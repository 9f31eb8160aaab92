//! The provider, played on loopback: a real HTTP/1.1 server that does what eSMS does, goes
//! wrong on demand in the ways a network goes wrong, and counts what it accepted.
//!
//! A test starts it in its own process with [`Sandbox::start`]; for demonstrations and
//! benchmarks there is the `esms-sandbox` program. It listens on loopback addresses only.
//!
//! # The provider's calls
//!
//! | call | does |
//! |---|---|
//! | `POST /MainService.svc/json/SendMessageAutoGenCode_V5` | generates a code and "sends" it: `CodeResult` 100; refuses with 101 (keys), 103 (balance), 108 (phone), 110 (a field missing, unknown or no string) |
//! | `GET /MainService.svc/json/CheckCodeGen_V4_get?ApiKey&SecretKey&Phone&Code` | 100 for the phone's last code, once, while it lives; else 171 |
//! | `POST /MainService.svc/json/GetBalance_json` | `Balance` and `CodeResponse` |
//!
//! What eSMS does not answer in JSON gets an HTML page here too: 400 for a body that is no JSON
//! object or not `application/json`, 404, 405.
//!
//! # Faults
//!
//! Each V5 request draws one [`Fault`]: from the script of its phone, else from the script for
//! anyone, else from the [`Mix`]. What the mix gives depends on the seed, the phone and how many
//! requests of that phone came before, on nothing else: the same run meets the same faults
//! whatever its order and concurrency. A request is taken (counted, charged) the moment its body
//! has arrived; latency, hangs and resets come after that.
//!
//! # The control plane
//!
//! For those outside the process; [`Sandbox`] has the same as methods. Bodies are JSON.
//!
//! | call | does |
//! |---|---|
//! | `GET /_sandbox/stats` | [`Stats`] |
//! | `GET /_sandbox/accepted` | every phone accepted: a list of [`PhoneCount`] |
//! | `GET /_sandbox/duplicates` | the phones accepted more than once |
//! | `GET /_sandbox/phones/0901888484` | its [`PhoneCount`], and as `story` a list of [`Recorded`]; 404 for a phone without requests |
//! | `POST /_sandbox/script` `{"phone": "0901888484", "faults": ["reset_after", {"status": {"code": 503}}]}` | the next requests meet these in order; without `phone`, anyone's |
//! | `PUT /_sandbox/mix` `{"reset_after": 0.02, "status:503:1": 0.05}` | probabilities from now on; `{}` for no faults |
//! | `PUT /_sandbox/forced` `{"code": "101", "message": "Authorize Failed"}` | refuses all that would be accepted; `DELETE` ends it |
//! | `PUT /_sandbox/balance` `{"balance": 0}` | VND on the account |
//! | `POST /_sandbox/refuse` `{"ms": 2000}` | refuses connections for so long, these calls' too |
//! | `POST /_sandbox/release-hangs` | resets the connections of what hangs |
//! | `POST /_sandbox/release-held` | answers what is held |
//! | `POST /_sandbox/reset` | forgets counts, phones and scripts, and refills the balance; the mix and the forced refusal stay |
//!
//! # What it remembers
//!
//! Counts are exact for up to a million phones, after which a new phone is answered with 503.
//! The requests themselves are told for the first [`STORY_LIMIT`] of a phone, and for the first
//! 200,000 in all.

mod connection;
mod control;
mod deck;
mod dice;
mod door;
mod fault;
mod mix;
mod pages;
mod phones;
mod play;
mod records;
mod routes;
mod rules;
mod settings;
mod shared;
mod stats;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::timeout;

use self::{door::Door, shared::Shared};
pub use self::{
    fault::{Fault, FaultError},
    mix::{Mix, MixError, Share},
    phones::{PhoneCount, Recorded, STORY_LIMIT},
    routes::{BALANCE_PATH, CHECK_CODE_PATH, SEND_PATH},
    rules::Refusal,
    settings::{DEFAULT_API_KEY, DEFAULT_BALANCE, DEFAULT_SECRET_KEY, DEFAULT_SEED, PRICE_VND, Settings},
    stats::Stats,
};

/// Ending takes no time: everything open is reset.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// A running sandbox. It ends when this is dropped: every connection is reset, the port closed.
pub struct Sandbox {
    shared: Arc<Shared>,
    door: Arc<Door>,
}

impl Sandbox {
    /// Listens, and serves on the runtime this is called on.
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

    /// The URL of the V5 call: what `ESMS_URL` is to be.
    pub fn send_url(&self) -> String {
        self.url() + SEND_PATH
    }

    /// The next requests for this phone, or for anyone, meet these faults in this order, and
    /// then the mix again. A phone's own script comes first; scripts add up.
    pub fn script(&self, phone: Option<&str>, faults: Vec<Fault>) {
        self.shared.change(|records| records.deck.script(phone, faults));
    }

    /// What goes wrong from now on, and how often.
    pub fn set_mix(&self, mix: Mix) {
        self.shared.change(|records| records.deck.mix = mix);
    }

    /// Refuses every request that would be accepted, until told `None`.
    pub fn force(&self, refusal: Option<Refusal>) {
        self.shared.change(|records| records.forced = refusal);
    }

    /// What the account has left, in VND.
    pub fn set_balance(&self, balance: u64) {
        self.shared.change(|records| records.balance = balance);
    }

    /// Forgets counts, phones, codes and scripts, and refills the balance. The mix and
    /// the forced refusal stay.
    pub fn reset(&self) {
        self.shared.change(|records| records.reset());
    }

    /// How many requests for this phone, written as they write it, were accepted.
    pub fn accepted(&self, phone: &str) -> u32 {
        self.shared.look(|records| records.phones.accepted(phone))
    }

    /// How many requests were accepted.
    pub fn accepted_total(&self) -> u64 {
        self.shared.look(|records| records.counts.accepted)
    }

    /// Every phone accepted, in order.
    pub fn accepted_phones(&self) -> Vec<PhoneCount> {
        self.shared.look(|records| records.phones.accepted_at_least(1))
    }

    /// The phones accepted more than once, in order.
    pub fn duplicates(&self) -> Vec<PhoneCount> {
        self.shared.look(|records| records.phones.accepted_at_least(2))
    }

    /// The requests for this phone in the order they came, the first [`STORY_LIMIT`] of them.
    pub fn requests(&self, phone: &str) -> Vec<Recorded> {
        self.shared.look(|records| records.phones.story(phone))
    }

    /// All counts.
    pub fn stats(&self) -> Stats {
        self.shared.look(|records| records.stats())
    }

    /// Returns as soon as the counts are so. There is no time limit: put one around it.
    pub async fn wait_until(&self, mut so: impl FnMut(&Stats) -> bool) {
        self.shared.wait_until(|records| so(&records.stats())).await;
    }

    /// Returns as soon as at least `n` requests hang or are held ([`Fault::Hold`],
    /// [`Fault::HangBefore`], [`Fault::HangAfter`]). There is no time limit: put one around it.
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

    /// Has connections refused, from when this returns until [`Sandbox::listen_again`].
    /// Idle connections are closed; requests in progress are answered first. The port stays ours.
    ///
    /// # Errors
    /// The port could not be kept.
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

    /// Ends it: every connection is reset, the port closed. Returns when that is done.
    pub async fn shutdown(self) {
        self.shared.life.cancel();
        self.shared.tasks.close();
        // Late tasks have been told to end, and there is nothing more to do about them.
        let _ = timeout(SHUTDOWN_LIMIT, self.shared.tasks.wait()).await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shared.life.cancel();
    }
}
