//! Users that may not do everything: each worker tells what it can, and begins no call that it cannot tell of.

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use super::{PUBLISHER, confirmed, until_held, until_settled};
use crate::stage::{LIMIT, Names, PHONE, Running, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::Job;
use crate::support::metrics::get;
use crate::support::proxy::Proxy;
use crate::support::wait::{eventually, until};
use esms_otp_worker::sandbox::Fault;

/// A user of the shared broker.
pub(crate) struct User {
    name: String,
}

/// What a user may do: three regular expressions.
pub(crate) struct Permissions {
    pub(crate) configure: String,
    pub(crate) write: String,
    pub(crate) read: String,
}

impl User {
    /// A user without any permission.
    pub(crate) async fn new() -> Self {
        let name = Uuid::new_v4().simple().to_string();
        let code = format!("rabbit_auth_backend_internal:add_user(<<\"{name}\">>, <<\"pw\">>, <<\"\">>).");
        Broker::shared().await.eval(&code).await;
        Self { name }
    }

    pub(crate) async fn allow(&self, Permissions { configure, write, read }: Permissions) {
        let code = format!(
            "rabbit_auth_backend_internal:set_permissions(<<\"{}\">>, <<\"/\">>, <<\"{configure}\">>, <<\"{write}\">>, <<\"{read}\">>, <<\"\">>).",
            self.name
        );
        Broker::shared().await.eval(&code).await;
    }

    /// At most so many connections.
    async fn limit_connections(&self, most: i32) {
        let name = &self.name;
        let limit = format!("{{\"max-connections\": {most}}}");
        Broker::shared().await.ctl(&["set_user_limits", name, &limit]).await;
    }

    pub(crate) fn url(&self, port: u16) -> String {
        format!("amqp://{}:pw@127.0.0.1:{port}/%2f", self.name)
    }
}

/// `[.]` and not `\.`, which Erlang and shells would each read in their own way.
fn pattern<const N: usize>(names: [&str; N]) -> String {
    format!("^({})$", names.map(|name| name.replace('.', "[.]")).join("|"))
}

impl Permissions {
    /// What docs/flow.md gives to a worker that declares.
    pub(crate) fn to_declare(names: &Names) -> Self {
        let Names { jobs, results, dropped, dead, unrouted } = names;
        Self {
            configure: pattern([jobs, results, unrouted, dropped, dead]),
            write: pattern(["amq.default", results, unrouted, dropped, dead]),
            read: pattern([jobs, results, unrouted, dropped, dead]),
        }
    }

    /// What docs/flow.md gives to a worker that does not declare.
    pub(crate) fn to_work(names: &Names) -> Self {
        let Names { jobs, results, dropped, dead, .. } = names;
        Self { configure: "^$".into(), write: pattern(["amq.default", results, dead]), read: pattern([jobs, dropped]) }
    }
}

/// A stage whose objects are declared, with a worker's user of its own. Its clients are `guest`.
pub(crate) async fn with_user() -> (Stage, User) {
    let mut stage = Stage::new().await;
    assert_eq!(stage.worker().await.stop().await, Some(0), "the objects are declared");
    let user = User::new().await;
    stage.set("AMQP_URL", &user.url(Broker::shared().await.port()));
    (stage, user)
}

fn phone(nth: usize) -> String {
    format!("09{nth:08}")
}

/// A worker that has started, and is not ready for `trouble`.
async fn unready(stage: &Stage, trouble: &str) -> Running {
    let process = stage.spawn();
    let http = process.http_addr(LIMIT).await;
    process.wait_for_log(trouble, LIMIT).await;
    assert_eq!(get(http, "/readyz").await.0, 503);
    Running { process, http }
}

#[test]
fn the_documents_give_these_permissions() {
    let [jobs, results, dropped, dead, unrouted] =
        ["otp.jobs", "otp.results", "otp.dropped", "otp.dead", "otp.results.unrouted"].map(str::to_owned);
    let names = Names { jobs, results, dropped, dead, unrouted };
    let document = include_str!("../../../docs/flow.md");
    for Permissions { configure, write, read } in [Permissions::to_declare(&names), Permissions::to_work(&names)] {
        let command = [configure, write, read].map(|pattern| format!("  '{pattern}'")).join(" \\\n");
        assert!(document.contains(&command), "not in docs/flow.md:\n{command}");
    }
}

#[tokio::test]
async fn the_permissions_of_the_readme_are_enough_with_and_without_declaring() {
    let mut stage = Stage::new().await;
    let user = User::new().await;
    stage.set("AMQP_URL", &user.url(Broker::shared().await.port()));
    user.allow(Permissions::to_declare(&stage.names)).await;
    for mode in ["declare", "check", "skip"] {
        if mode != "declare" {
            user.allow(Permissions::to_work(&stage.names)).await;
        }
        let running = stage.set("OTP_TOPOLOGY", mode).worker().await;
        let (client, mut results) = stage.audience().await;
        let mut replies = client.direct_replies().await;
        let reply_to = crate::support::client::DIRECT_REPLY_TO;
        client.publish(&stage.names.jobs, Job::for_phone(PHONE, mode).reply_to(reply_to)).await;
        assert_eq!(field(&results.next(LIMIT).await, "JobId"), mode);
        assert_eq!(field(&replies.next(LIMIT).await, "JobId"), mode);
        client.publish(&stage.names.jobs, Job::bytes("no job")).await;
        assert_eq!(ending(&results.next(LIMIT).await).0, "invalid");
        until_settled(Broker::shared().await, &stage).await;
        assert_eq!(running.metric("otp_dead_lettered_total", &[]).await, 1.0);
    }
}

#[tokio::test]
async fn without_permission_for_replies_the_jobs_do_not_wait_and_dead_letters_go_on() {
    const JOBS: usize = 500;
    let (stage, user) = with_user().await;
    let names = &stage.names;
    let write = pattern([&names.results, &names.dead]);
    user.allow(Permissions { write, ..Permissions::to_work(names) }).await;
    let mut stage = stage;
    let running = stage.set("OTP_TOPOLOGY", "check").worker().await;
    let (client, mut results) = stage.audience().await;
    client.channel().queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await.unwrap();
    let jobs = (0..JOBS).map(|nth| match nth % 10 {
        0 => Job::bytes("no job").reply_to("somewhere"),
        _ => Job::for_phone(&phone(nth), &nth.to_string()).reply_to("somewhere"),
    });
    client.publish_all(&stage.names.jobs, jobs).await;
    assert_eq!(results.collect(JOBS, LIMIT).await.len(), JOBS);
    until_settled(Broker::shared().await, &stage).await;
    assert_eq!(confirmed(&running).await, JOBS as f64);
    assert_eq!(running.metric("otp_dead_lettered_total", &[]).await, JOBS as f64 / 10.0);
    let failed = running.metric("otp_results_published_total", &[("status", "failed")]).await;
    assert_eq!(failed, JOBS as f64, "each reply is counted");
    assert_eq!(running.metric("otp_broker_connections_total", &[]).await, 3.0, "no connection was given up");
    let said = running.process.log_containing("replies are not taken");
    assert!(said.len() == 1 && said[0].contains("amq.default") && said[0].contains("hint"), "{said:?}");
    assert!(running.process.log_containing("dead letter not published").is_empty());
}

#[tokio::test]
async fn without_permission_for_results_no_call_is_begun_until_there_is_one() {
    const JOBS: usize = 50;
    let (mut stage, user) = with_user().await;
    let names = stage.names.clone();
    let write = pattern(["amq.default", &names.dead]);
    user.allow(Permissions { write, ..Permissions::to_work(&names) }).await;
    let (client, mut results) = stage.audience().await;
    client.publish_all(&names.jobs, (0..JOBS).map(|nth| Job::for_phone(&phone(nth), &nth.to_string()))).await;
    stage.set("OTP_TOPOLOGY", "check");
    let running = unready(&stage, "no call is begun meanwhile").await;
    let said = running.process.wait_for_log("ACCESS_REFUSED", LIMIT).await;
    assert!(said.contains(&names.results) && said.contains("OTP_REPLY_EXCHANGE"), "{said}");
    assert_eq!(stage.sandbox.stats().requests, 0);
    assert_eq!(Broker::shared().await.unacked(&names.jobs).await, 0, "another worker may have the jobs");
    user.allow(Permissions::to_work(&names)).await;
    running.until_ready().await;
    assert_eq!(results.collect(JOBS, LIMIT).await.len(), JOBS);
    until_settled(Broker::shared().await, &stage).await;
    assert_eq!(stage.sandbox.accepted_total(), JOBS as u64);
}

/// The broker looks at permissions again for each channel. So what is taken away is noticed after a reconnect.
#[tokio::test]
async fn a_permission_that_is_taken_away_holds_calls_back_and_what_is_in_flight_is_told_later() {
    let (mut stage, user) = with_user().await;
    let names = stage.names.clone();
    let proxy = Proxy::start(Broker::shared().await.port()).await;
    user.allow(Permissions::to_work(&names)).await;
    stage.set("AMQP_URL", &user.url(proxy.port())).set("OTP_TOPOLOGY", "check");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    client.publish(&names.jobs, Job::for_phone(PHONE, "in-flight")).await;
    until_held(&stage, 1).await;
    user.allow(Permissions { write: "^$".into(), ..Permissions::to_work(&names) }).await;
    proxy.cut_matching(PUBLISHER).await;
    running.until_not_ready().await;
    running.process.wait_for_log("no call is begun meanwhile", LIMIT).await;
    client.publish(&names.jobs, Job::for_phone("0901888485", "later")).await;
    until("the later job is here", LIMIT, async || Broker::shared().await.unacked(&names.jobs).await == 2).await;
    stage.sandbox.release_held();
    running.until_metric("otp_jobs_total", &[("outcome", "accepted")], 1.0).await;
    assert_eq!(stage.sandbox.stats().requests, 1, "no call is begun");
    user.allow(Permissions::to_work(&names)).await;
    let mut told = [field(&results.next(LIMIT).await, "JobId"), field(&results.next(LIMIT).await, "JobId")];
    told.sort();
    assert_eq!(told, ["in-flight", "later"]);
    until_settled(Broker::shared().await, &stage).await;
    assert_eq!(stage.sandbox.stats().requests, 2);
}

#[tokio::test]
async fn one_full_queue_of_several_holds_calls_back_until_it_has_room() {
    let stage = Stage::new().await;
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    let full = format!("{}.full", stage.names.results);
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    client.channel().queue_declare(full.as_str().into(), options, arguments).await.unwrap();
    let (exchange, options) = (stage.names.results.as_str(), QueueBindOptions::default());
    let bind =
        client.channel().queue_bind(full.as_str().into(), exchange.into(), "#".into(), options, FieldTable::default());
    bind.await.unwrap();

    client.publish(&stage.names.jobs, Job::for_phone("0901888481", "fills")).await;
    assert_eq!(field(&results.next(LIMIT).await, "JobId"), "fills");
    client.publish(&stage.names.jobs, Job::for_phone("0901888482", "refused")).await;
    running.until_not_ready().await;
    let said = running.process.wait_for_log("a queue may be full", LIMIT).await;
    assert!(said.contains("refused"), "{said}");
    client.publish(&stage.names.jobs, Job::for_phone("0901888483", "waits")).await;
    let all_here = async || Broker::shared().await.unacked(&stage.names.jobs).await == 2;
    until("the waiting job is here", LIMIT, all_here).await;
    // Several more tries, each of which gives the healthy queue a copy.
    let failed = &[("status", "failed")];
    until("it is tried again", LIMIT, async || running.metric("otp_results_published_total", failed).await >= 4.0)
        .await;
    assert_eq!(stage.sandbox.stats().requests, 2, "no call is begun");
    assert_eq!(get(running.http, "/readyz").await.0, 503);

    client.channel().queue_delete(full.as_str().into(), Default::default()).await.unwrap();
    running.until_ready().await;
    let mut last = String::new();
    while last != "waits" {
        last = field(&results.next(LIMIT).await, "JobId");
    }
    until_settled(Broker::shared().await, &stage).await;
    assert_eq!(stage.sandbox.accepted_total(), 3);
}

/// The broker counts connections a moment late, so the limit is set while the worker has its connections.
#[tokio::test]
async fn two_connections_are_enough_without_replies_and_with_one_nothing_is_sent() {
    let (mut stage, user) = with_user().await;
    let names = stage.names.clone();
    let proxy = Proxy::start(Broker::shared().await.port()).await;
    user.allow(Permissions::to_work(&names)).await;
    stage.set("AMQP_URL", &user.url(proxy.port())).set("OTP_TOPOLOGY", "check");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;

    user.limit_connections(2).await;
    client.publish(&names.jobs, Job::for_phone("0901888481", "first").reply_to("somewhere")).await;
    assert_eq!(field(&results.next(LIMIT).await, "JobId"), "first");
    let said = running.process.wait_for_log("replies are not taken", LIMIT).await;
    assert!(said.contains("a connection of their own"), "{said}");
    until_settled(Broker::shared().await, &stage).await;

    user.limit_connections(1).await;
    proxy.cut_matching(PUBLISHER).await;
    let limit = async || {
        running.process.log_containing("no more connections").into_iter().find(|line| line.contains("publisher"))
    };
    let said = eventually("it says why", LIMIT, limit).await;
    assert!(said.contains("connection limit") && said.contains("a worker needs two"), "{said}");
    running.until_not_ready().await;
    client.publish(&names.jobs, Job::for_phone("0901888482", "second")).await;
    until("the job is here", LIMIT, async || Broker::shared().await.unacked(&names.jobs).await == 1).await;
    assert_eq!(stage.sandbox.stats().requests, 1, "no call is begun");
    user.limit_connections(2).await;
    assert_eq!(field(&results.next(LIMIT).await, "JobId"), "second");
    until_settled(Broker::shared().await, &stage).await;
}
