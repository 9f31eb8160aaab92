// One OTP, with RabbitMQ.Client: puts a job on the queue, waits for its result, says what to tell the person.
//
//     dotnet run PHONE TEMPLATE ID
//
// ID belongs to the code that the person asks for, not to the press of the button: login-<session>-<n>. A second
// press has the same ID: it gets the same result, and sends nothing. Only another code has another n.
using System.Text.Json;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;
using RabbitMQ.Client.Exceptions;

// Outcome: what to tell the person, and when the Resend button may be shown.
var words = new Dictionary<string, (string Tell, string Resend)>
{
    ["accepted"] = ("Enter the code that we have sent to you.", "in 60 s, with a new id"),
    ["rejected"] = ("We cannot send a code to this number. Is it right?", "no"),
    ["failed"] = ("No code was sent. Please try again.", "now, with the same id"),
    ["unknown"] = ("A code may be on its way. Enter it when it comes.", "in 60 s, with a new id"),
    ["expired"] = ("No code was sent in time. Please try again.", "now, with the same id"),
    ["limited"] = ("You have asked for many codes. Please wait.", "no"),
    ["invalid"] = ("We cannot send a code to this number. Is it right?", "no"),
};
var (phone, template, id) = (args[0], args[1], args[2]);
try
{
    var url = Environment.GetEnvironmentVariable("AMQP_URL") ?? "amqp://guest:guest@127.0.0.1:5672/%2f";
    await using var connection = await new ConnectionFactory { Uri = new Uri(url) }.CreateConnectionAsync();
    // With tracking, publishing waits for the confirm, and throws when the job is refused or returned.
    await using var channel = await connection.CreateChannelAsync(new CreateChannelOptions(true, true));
    // For direct reply-to, the consumer comes first, on the same channel.
    const string answers = "amq.rabbitmq.reply-to";
    var answer = new TaskCompletionSource<byte[]>();
    var consumer = new AsyncEventingBasicConsumer(channel);
    consumer.ReceivedAsync += (_, message) => { answer.TrySetResult(message.Body.ToArray()); return Task.CompletedTask; };
    await channel.BasicConsumeAsync(answers, autoAck: true, consumer);
    // The code lives for 5 minutes. It must be sent within 20 s; a call that has begun by then may take longer.
    var job = JsonSerializer.SerializeToUtf8Bytes(new { Phone = phone, MultiChannelTempId = template, TimeAlive = "5" });
    var now = new AmqpTimestamp(DateTimeOffset.UtcNow.ToUnixTimeSeconds());
    var properties = new BasicProperties { MessageId = id, CorrelationId = id, ReplyTo = answers, Timestamp = now,
        Expiration = "20000", Persistent = true, ContentType = "application/json" };
    await channel.BasicPublishAsync("", "otp.jobs", mandatory: true, basicProperties: properties, body: job);
    var text = await answer.Task.WaitAsync(TimeSpan.FromSeconds(35));
    var result = JsonDocument.Parse(text).RootElement;
    var outcome = result.GetProperty("Outcome").GetString() ?? "unknown";
    var (tell, resend) = words.GetValueOrDefault(outcome, words["unknown"]);
    if (result.GetProperty("MayBeDuplicate").GetBoolean()) tell += " One code more may come: enter the newest.";
    if (result.TryGetProperty("RetryAfter", out var after)) resend = $"in {after} s, with the same id";
    Console.WriteLine($"{result.GetRawText()}\nTell: {tell}\nResend: {resend}");
    return outcome == "accepted" ? 0 : 1;
}
catch (Exception error)
{
    Console.Error.WriteLine(error switch
    {
        PublishException => "Not queued: otp.jobs does not exist, or is full. Does a worker run?",
        TimeoutException => "No result in time. A code may still come: enter it when it does.",
        _ => $"The broker is away, or has refused the job: {error.Message}.",
    } + " Resend: now, with the same id");
    return 1;
}
