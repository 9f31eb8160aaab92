//! A broker as it is operated: passwords change, nodes are drained, slow jobs are timed out.

use esms_otp_worker::sandbox::Fault;

use super::restarts::own_node;
use super::{allow, until_held, until_settled, works};
use crate::stage::{LIMIT, PHONE, Stage, ending, field};
use crate::support::broker::Broker;
use crate::support::client::Job;
use crate::support::wait::until;

#[tokio::test]
async fn a_password_that_is_changed_in_its_file_is_used_at_the_next_connection() {
    let broker = Broker::shared().await;
    let user = "rotated-user";
    let url = |password: &str| format!("amqp://{user}:{password}@127.0.0.1:{}", broker.port());
    let change = async |how: &str, password: &str| {
        let code = format!("rabbit_auth_backend_internal:{how}(<<\"{user}\">>, <<\"{password}\">>, <<\"\">>).");
        broker.eval(&code).await;
    };
    change("add_user", "old-canary").await;
    allow(broker, user, "/").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("url");
    std::fs::write(&file, url("old-canary")).expect("written");
    let mut stage = Stage::new().await;
    let path = file.to_str().expect("a path").to_owned();
    stage.unset("AMQP_URL").set("AMQP_URL_FILE", &path);
    let running = stage.worker().await;

    change("change_password", "new-canary").await;
    // As an editor or `echo` leaves it for a moment.
    std::fs::write(&file, "").expect("written");
    let code = "[rabbit_networking:close_connection(Pid, \"a test\") || Pid <- rabbit_networking:connections(), \
         (catch rabbit_misc:pget(user, rabbit_reader:info(Pid, [user]))) =:= <<\"rotated-user\">>].";
    broker.eval(code).await;
    running.process.wait_for_log("a secret's file cannot be used", LIMIT).await;
    running.process.wait_for_log("refuses the credentials", LIMIT).await;
    std::fs::write(&file, format!("\u{feff}{}\r\n", url("new-canary"))).expect("written");
    works(&running, &stage).await;
    assert!(running.process.log_containing("canary").is_empty());
}

#[tokio::test]
async fn of_several_addresses_the_first_that_gives_a_connection_is_used() {
    let broker = Broker::shared().await;
    let mut stage = Stage::new().await;
    let several = format!("amqp://127.0.0.1:1, amqp://guest:wrong@127.0.0.1:{0}, amqp://127.0.0.1:{0}/", broker.port());
    works(&stage.set("AMQP_URL", &several).worker().await, &stage).await;

    let none = format!("amqp://127.0.0.1:1,amqp://guest:wrong-canary@127.0.0.1:{}", broker.port());
    let process = stage.set("AMQP_URL", &none).spawn();
    let said = process.wait_for_log("none of 2 addresses", LIMIT).await;
    assert!(said.contains("cannot reach") && said.contains("refuses the credentials"), "{said}");
    assert!(process.log_containing("canary").is_empty());
}

#[tokio::test]
async fn a_node_in_maintenance_is_waited_for_and_a_job_in_flight_is_sent_once() {
    let node = own_node().await;
    let stage = Stage::on(&node.url()).await;
    let running = stage.worker().await;
    let (client, _results) = stage.audience().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "in-flight")).await;
    until_held(&stage, 1).await;
    node.eval("rabbit_maintenance:drain().").await;
    running.until_not_ready().await;
    running.process.wait_for_log("CONNECTION_FORCED", LIMIT).await;
    stage.sandbox.release_held();
    running.until_metric("otp_jobs_total", &[("outcome", "accepted")], 1.0).await;
    node.eval("rabbit_maintenance:revive().").await;
    running.until_ready().await;
    let client = stage.client().await;
    let kept = client.consume(&stage.names.unrouted).await.next(LIMIT).await;
    assert_eq!(ending(&kept), ("accepted".into(), 1, false));
    until_settled(&node, &stage).await;
    assert_eq!(stage.sandbox.stats().requests, 1);
}

/// Queues that hand out a job again while it is worked have mailed people the same thing four times:
/// <https://github.com/pretix/pretix/issues/2058>, <https://github.com/celery/celery/issues/5306>.
#[tokio::test]
async fn a_job_over_the_brokers_consumer_timeout_is_sent_once_and_the_log_names_the_setting() {
    let node = own_node().await;
    let default = node.eval("application:get_env(rabbit, consumer_timeout).").await;
    // Looked at every `channel_tick_interval`. Both are read when a channel is opened.
    node.eval("application:set_env(rabbit, consumer_timeout, 1000).").await;
    node.eval("application:set_env(rabbit, channel_tick_interval, 500).").await;
    let mut stage = Stage::on(&node.url()).await;
    stage.set("ESMS_TIMEOUT", "20s");
    let running = stage.worker().await;
    let (client, mut results) = stage.audience().await;
    stage.sandbox.script(None, vec![Fault::Hold]);
    client.publish(&stage.names.jobs, Job::for_phone(PHONE, "slow")).await;
    until_held(&stage, 1).await;
    let said = running.process.wait_for_log("consumer_timeout", LIMIT).await;
    assert!(said.contains("timed out") && said.contains("policy"), "{said}");
    running.until_metric("otp_redeliveries_total", &[("found", "in_flight")], 1.0).await;
    node.eval(&format!("application:set_env(rabbit, consumer_timeout, {default}).")).await;
    node.eval("application:set_env(rabbit, channel_tick_interval, 60000).").await;
    stage.sandbox.release_held();
    let result = results.next(LIMIT).await;
    assert_eq!((field(&result, "JobId"), ending(&result)), ("slow".into(), ("accepted".into(), 1, false)));
    until("the job is acknowledged", LIMIT, async || node.messages(&stage.names.jobs).await == 0).await;
    assert_eq!(stage.sandbox.stats().requests, 1);
}
