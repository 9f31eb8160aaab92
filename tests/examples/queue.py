"""What run.sh asks of the queue.

queue.py jobs ID...   the queue holds one job for each id, with the properties that make a job what it should be
queue.py delete       the queue is gone, so that a job cannot be routed
"""

import json
import os
import sys
import time

import pika

command, *ids = sys.argv[1:]
channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
if command == "delete":
    channel.queue_delete("otp.jobs")
    sys.exit()
left, give_up = set(ids), time.monotonic() + 15
while left:
    method, properties, body = channel.basic_get("otp.jobs")
    if method is None and time.monotonic() > give_up:
        sys.exit(f"not on the queue: {', '.join(sorted(left))}")
    if method is None:
        time.sleep(0.2)
        continue
    job, job_id = json.loads(body), properties.message_id
    found = {
        "one job with this id": job_id in left,
        "correlation_id": properties.correlation_id == job_id,
        "reply_to": (properties.reply_to or "").startswith("amq.rabbitmq.reply-to"),
        "timestamp": abs((properties.timestamp or 0) - time.time()) < 30,
        "expiration": properties.expiration == "20000",
        "delivery_mode": properties.delivery_mode == 2,
        "content_type": properties.content_type == "application/json",
        "body": sorted(job) == ["MultiChannelTempId", "Phone", "TimeAlive"] and job["TimeAlive"] == "5",
    }
    if wrong := [name for name, right in found.items() if not right]:
        sys.exit(f"{job_id}: wrong: {', '.join(wrong)}: {properties} {body}")
    left.remove(job_id)
