"""What run.sh asks of the queue.

queue.py jobs ID...   the queue holds one job for each id, and no other
queue.py delete       the queue is gone, so that a job cannot be routed
"""

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
    method, properties, _ = channel.basic_get("otp.jobs")
    if method is not None:
        if properties.message_id not in left:
            sys.exit(f"a job too many: {properties.message_id}")
        left.remove(properties.message_id)
    elif time.monotonic() > give_up:
        sys.exit(f"not on the queue: {', '.join(sorted(left))}")
    else:
        time.sleep(0.2)
