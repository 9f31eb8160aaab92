// One OTP, with amqplib: puts a job on the queue, waits for its result, says what to tell the person.
//
//     node send-otp.js PHONE TEMPLATE ID
//
// ID belongs to the code that the person asks for, not to the press of the button: login-<session>-<n>. A second
// press has the same ID: it gets the same result, and sends nothing. Only another code has another n.
import amqp from 'amqplib'

// Outcome: what to tell the person, and when the Resend button may be shown.
const words = {
  accepted: ['Enter the code that we have sent to you.', 'in 60 s, with a new id'],
  rejected: ['We cannot send a code to this number. Is it right?', 'no'],
  failed: ['No code was sent. Please try again.', 'now, with the same id'],
  unknown: ['A code may be on its way. Enter it when it comes.', 'in 60 s, with a new id'],
  expired: ['No code was sent in time. Please try again.', 'now, with the same id'],
  limited: ['You have asked for many codes. Please wait.', 'no'],
  invalid: ['We cannot send a code to this number. Is it right?', 'no'],
}
const [phone, template, id] = process.argv.slice(2)

function giveUp(why) {
  console.error(`${why} Resend: now, with the same id`)
  process.exit(1)
}

try {
  const connection = await amqp.connect(process.env.AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2f')
  connection.on('error', (error) => giveUp(`The broker is away: ${error.message}.`))
  const channel = await connection.createConfirmChannel()
  channel.on('return', () => giveUp('Not queued: otp.jobs does not exist. Does a worker run?'))
  // For direct reply-to, the consumer comes first, on the same channel.
  const answers = 'amq.rabbitmq.reply-to'
  const answer = new Promise((resolve) => channel.consume(answers, resolve, { noAck: true }))
  // The code lives for 5 minutes. It must be sent within 20 s; a call that has begun by then may take some seconds more.
  const job = JSON.stringify({ Phone: phone, MultiChannelTempId: template, TimeAlive: '5' })
  const properties = { messageId: id, correlationId: id, replyTo: answers, timestamp: Math.floor(Date.now() / 1000),
    expiration: '20000', persistent: true, contentType: 'application/json', mandatory: true }
  channel.publish('', 'otp.jobs', Buffer.from(job), properties)
  setTimeout(giveUp, 35000, 'No result in time. A code may still come: enter it when it does.')
  await channel.waitForConfirms()
  const result = JSON.parse((await answer).content)
  const [tell, resend] = words[result.Outcome] ?? words.unknown
  console.log(JSON.stringify(result))
  console.log(`Tell: ${tell}${result.MayBeDuplicate ? ' One code more may come: enter the newest.' : ''}`)
  console.log(`Resend: ${result.RetryAfter ? `in ${result.RetryAfter} s, with the same id` : resend}`)
  process.exit(result.Outcome === 'accepted' ? 0 : 1)
} catch (error) {
  giveUp(`The broker is away, or has refused the job: ${error.message}.`)
}
