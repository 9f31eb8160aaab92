"""One OTP, with aio-pika: puts a job on the queue, waits for its result, says what to tell the person.

    python send_otp_async.py PHONE TEMPLATE ID

ID belongs to the code that the person asks for, not to the press of the button: login-<session>-<n>. A second
press has the same ID: it gets the same result, and sends nothing. Only another code has another n.
"""

import asyncio, json, logging, os, sys, time
import aio_pika
from aio_pika.exceptions import AMQPError, DeliveryError

# Outcome: what to tell the person, and when the Resend button may be shown.
WORDS = {"accepted": ("Enter the code that we have sent to you.", "in 60 s, with a new id"),
         "rejected": ("We cannot send a code to this number. Is it right?", "no"),
         "failed": ("No code was sent. Please try again.", "now, with the same id"),
         "unknown": ("A code may be on its way. Enter it when it comes.", "in 60 s, with a new id"),
         "expired": ("No code was sent in time. Please try again.", "now, with the same id"),
         "limited": ("You have asked for many codes. Please wait.", "no"),
         "invalid": ("We cannot send a code to this number. Is it right?", "no")}


async def send(phone, template, job_id):
    url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        # For direct reply-to, the consumer comes first, on the same channel.
        answers, result = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False), asyncio.Queue()
        await answers.consume(result.put, no_ack=True)
        # The code lives for 5 minutes. It must be sent within 20 s; a call that has begun by then may take longer.
        job = {"Phone": phone, "MultiChannelTempId": template, "TimeAlive": "5"}
        message = aio_pika.Message(
            json.dumps(job).encode(), message_id=job_id, correlation_id=job_id, reply_to=answers.name,
            timestamp=int(time.time()), expiration=20, delivery_mode=2, content_type="application/json")
        await channel.default_exchange.publish(message, "otp.jobs", mandatory=True, timeout=10)
        return (await asyncio.wait_for(result.get(), 35)).body.decode()

logging.disable()  # the library logs stack traces, also of errors that are caught here
if len(sys.argv) != 4:
    sys.exit(__doc__)
try:
    answer = asyncio.run(send(*sys.argv[1:4]))
except DeliveryError:
    sys.exit("Not queued: otp.jobs does not exist, or is full. Does a worker run? Resend: now, with the same id")
except asyncio.TimeoutError:
    sys.exit("No result in time. A code may still come: enter it when it does. Resend: now, with the same id")
except (AMQPError, OSError) as error:
    sys.exit(f"The broker is away: {error!r}. Resend: now, with the same id")
result = json.loads(answer)
tell, resend = WORDS.get(result["Outcome"], WORDS["unknown"])
tell += " One code more may come: enter the newest." if result["MayBeDuplicate"] else ""
resend = f"in {result['RetryAfter']} s, with the same id" if "RetryAfter" in result else resend
print(answer, f"Tell: {tell}", f"Resend: {resend}", sep="\n")
sys.exit(result["Outcome"] != "accepted")
