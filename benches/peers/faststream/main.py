"""The worker's work with FastStream and aiohttp: a result is confirmed before its job is acknowledged, and as many
jobs as the prefetch are in flight. Nothing else: no ledger, no retry, no metric, no log."""

import asyncio
import os

from aiohttp import ClientSession, TCPConnector
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
from pydantic import BaseModel

env = os.environ
prefetch = int(env["PREFETCH"])
broker = RabbitBroker(env["AMQP_URL"], default_channel=Channel(prefetch_count=prefetch), logger=None)
app = FastStream(broker, logger=None)
# They are there already.
queue = RabbitQueue(env["QUEUE"], declare=False)
results = RabbitExchange(env["EXCHANGE"], declare=False)


class Job(BaseModel):
    Phone: str
    MultiChannelTempId: str


@app.on_startup
async def connect() -> None:
    global session
    session = ClientSession(connector=TCPConnector(limit=prefetch), headers={"accept": "application/json"})


@broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR, no_reply=True)
async def work(job: Job, message: RabbitMessage) -> None:
    call = {
        "ApiKey": env["ESMS_API_KEY"],
        "SecretKey": env["ESMS_SECRET_KEY"],
        "Phone": job.Phone,
        "MultiChannelTempId": job.MultiChannelTempId,
        "TypeId": "2",
    }
    async with session.post(env["ESMS_URL"], json=call) as response:
        answer = await response.json()
    outcome = "accepted" if answer["CodeResult"] == "100" else "rejected"
    event = {"JobId": message.message_id, "Outcome": outcome, **answer}
    key, message_id = f"otp.{outcome}", f"{message.message_id}:result"
    # Returns when the broker has confirmed.
    await broker.publish(event, exchange=results, routing_key=key, message_id=message_id, persist=True)


asyncio.run(app.run())
