"""One OTP, with pika: puts a job on the queue, waits for its result, says what to tell the person.

    python send_otp.py PHONE TEMPLATE ID

ID belongs to the code that the person asks for, not to the press of the button: login-<session>-<n>. A second
press has the same ID: it gets the same result, and sends nothing. Only another code has another n.
"""

import json, os, sys, time
import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

# Outcome: what to tell the person, and when the Resend button may be shown.
WORDS = {"accepted": ("Enter the code that we have sent to you.", "in 60 s, with a new id"),
         "rejected": ("We cannot send a code to this number. Is it right?", "no"),
         "failed": ("No code was sent. Please try again.", "now, with the same id"),
         "unknown": ("A code may be on its way. Enter it when it comes.", "in 60 s, with a new id"),
         "expired": ("No code was sent in time. Please try again.", "now, with the same id"),
         "limited": ("You have asked for many codes. Please wait.", "no"),
         "invalid": ("We cannot send a code to this number. Is it right?", "no")}
if len(sys.argv) != 4:
    sys.exit(__doc__)
phone, template, job_id = sys.argv[1:4]
results, answers = [], "amq.rabbitmq.reply-to"
# The code lives for 5 minutes. It must be sent within 20 s; a call that has begun by then may take some seconds more.
job = json.dumps({"Phone": phone, "MultiChannelTempId": template, "TimeAlive": "5"})
properties = pika.BasicProperties(
    message_id=job_id, correlation_id=job_id, reply_to=answers, timestamp=int(time.time()),
    expiration="20000", delivery_mode=2, content_type="application/json")
try:
    url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    # For direct reply-to, the consumer comes first, on the same channel.
    channel.basic_consume(answers, lambda *message: results.append(message[-1]), auto_ack=True)
    channel.basic_publish("", "otp.jobs", job, properties, mandatory=True)
    give_up = time.monotonic() + 35
    while not results and time.monotonic() < give_up:
        connection.process_data_events(time_limit=1)
except (UnroutableError, NackError):
    sys.exit("Not queued: otp.jobs does not exist, or is full. Does a worker run? Resend: now, with the same id")
except AMQPError as error:
    sys.exit(f"The broker is away: {error!r}. Resend: now, with the same id")
if not results:
    sys.exit("No result in time. A code may still come: enter it when it does. Resend: now, with the same id")
result = json.loads(results[0])
tell, resend = WORDS.get(result["Outcome"], WORDS["unknown"])
tell += " One code more may come: enter the newest." if result["MayBeDuplicate"] else ""
resend = f"in {result['RetryAfter']} s, with the same id" if "RetryAfter" in result else resend
print(results[0].decode(), f"Tell: {tell}", f"Resend: {resend}", sep="\n")
sys.exit(result["Outcome"] != "accepted")
