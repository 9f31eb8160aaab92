// The worker's work with amqplib and undici: a result is confirmed before its job is acknowledged, and as many jobs
// as the prefetch are in flight. Nothing else: no ledger, no retry, no metric, no log.

import amqp from 'amqplib'
import { request } from 'undici'

const { AMQP_URL, ESMS_URL, ESMS_API_KEY, ESMS_SECRET_KEY, QUEUE, EXCHANGE, PREFETCH } = process.env

const connection = await amqp.connect(AMQP_URL)
const channel = await connection.createConfirmChannel()
await channel.prefetch(Number(PREFETCH))
await channel.consume(QUEUE, (message) => work(message).catch((error) => console.error(error)))

async function work(message) {
  const { Phone, MultiChannelTempId } = JSON.parse(message.content)
  const id = message.properties.messageId
  const { body } = await request(ESMS_URL, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json' },
    body: JSON.stringify({ ApiKey: ESMS_API_KEY, SecretKey: ESMS_SECRET_KEY, Phone, MultiChannelTempId, TypeId: '2' }),
  })
  const { CodeResult, SMSID } = await body.json()
  const Outcome = CodeResult === '100' ? 'accepted' : 'rejected'
  const event = Buffer.from(JSON.stringify({ JobId: id, Outcome, CodeResult, SMSID }))
  const options = { persistent: true, messageId: `${id}:result` }
  await new Promise((taken, refused) =>
    channel.publish(EXCHANGE, `otp.${Outcome}`, event, options, (error) => (error ? refused(error) : taken())),
  )
  channel.ack(message)
}
