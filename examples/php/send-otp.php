<?php
// One OTP, with php-amqplib: puts a job on the queue, waits for its result, says what to tell the person.
//
//     php send-otp.php PHONE TEMPLATE ID
//
// ID belongs to the code that the person asks for, not to the press of the button: login-<session>-<n>. A second
// press has the same ID: it gets the same result, and sends nothing. Only another code has another n.
require 'vendor/autoload.php';

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPTimeoutException;
use PhpAmqpLib\Message\AMQPMessage;

// Outcome: what to tell the person, and when the Resend button may be shown.
const WORDS = [
    'accepted' => ['Enter the code that we have sent to you.', 'in 60 s, with a new id'],
    'rejected' => ['We cannot send a code to this number. Is it right?', 'no'],
    'failed' => ['No code was sent. Please try again.', 'now, with the same id'],
    'unknown' => ['A code may be on its way. Enter it when it comes.', 'in 60 s, with a new id'],
    'expired' => ['No code was sent in time. Please try again.', 'now, with the same id'],
    'limited' => ['You have asked for many codes. Please wait.', 'no'],
    'invalid' => ['We cannot send a code to this number. Is it right?', 'no'],
];
[, $phone, $template, $id] = $argv;

function give_up(string $why): never {
    fwrite(STDERR, "$why Resend: now, with the same id\n");
    exit(1);
}

try {
    // For amqps://, AMQPSSLConnection takes the same arguments.
    $url = parse_url(getenv('AMQP_URL') ?: 'amqp://guest:guest@127.0.0.1:5672/%2f');
    [$user, $password, $path] = [urldecode($url['user']), urldecode($url['pass']), urldecode($url['path'] ?? '//')];
    $channel = (new AMQPStreamConnection($url['host'], $url['port'] ?? 5672, $user, $password, substr($path, 1)))->channel();
    $channel->confirm_select();
    $channel->set_return_listener(fn () => give_up('Not queued: otp.jobs does not exist. Does a worker run?'));
    $channel->set_nack_handler(fn () => give_up('Not queued: the broker refused the job.'));
    // For direct reply-to, the consumer comes first, on the same channel.
    $answers = 'amq.rabbitmq.reply-to';
    $results = new SplQueue();
    $channel->basic_consume($answers, no_ack: true, callback: fn ($message) => $results->enqueue($message->getBody()));
    // The code lives for 5 minutes. It must be sent within 20 s; a call that has begun by then may take longer.
    $job = json_encode(['Phone' => $phone, 'MultiChannelTempId' => $template, 'TimeAlive' => '5']);
    $properties = ['message_id' => $id, 'correlation_id' => $id, 'reply_to' => $answers, 'timestamp' => time(),
        'expiration' => '20000', 'delivery_mode' => 2, 'content_type' => 'application/json'];
    $channel->basic_publish(new AMQPMessage($job, $properties), '', 'otp.jobs', mandatory: true);
    $channel->wait_for_pending_acks_returns(10);
    while ($results->isEmpty()) {
        $channel->wait(timeout: 35);
    }
} catch (AMQPTimeoutException) {
    give_up('No result in time. A code may still come: enter it when it does.');
} catch (Exception $error) {
    give_up("The broker is away, or has refused the job: {$error->getMessage()}.");
}
$answer = $results->dequeue();
$result = json_decode($answer, true);
[$tell, $resend] = WORDS[$result['Outcome']] ?? WORDS['unknown'];
$tell .= $result['MayBeDuplicate'] ? ' One code more may come: enter the newest.' : '';
$resend = isset($result['RetryAfter']) ? "in {$result['RetryAfter']} s, with the same id" : $resend;
echo "$answer\nTell: $tell\nResend: $resend\n";
exit($result['Outcome'] === 'accepted' ? 0 : 1);
