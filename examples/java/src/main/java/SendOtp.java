// One OTP, with amqp-client: puts a job on the queue, waits for its result, says what to tell the person.
//
//     mvn -q compile exec:java -Dexec.args="PHONE TEMPLATE ID"
//
// ID belongs to the code that the person asks for, not to the press of the button: login-<session>-<n>. A second
// press has the same ID: it gets the same result, and sends nothing. Only another code has another n.

import com.google.gson.Gson;
import com.rabbitmq.client.*;
import java.util.*;
import java.util.concurrent.*;

public class SendOtp {
    record Job(String Phone, String MultiChannelTempId, String TimeAlive) {}
    record Result(String Outcome, boolean MayBeDuplicate, Integer RetryAfter) {}
    // Outcome: what to tell the person, and when the Resend button may be shown.
    static final Map<String, List<String>> WORDS = Map.of(
        "accepted", List.of("Enter the code that we have sent to you.", "in 60 s, with a new id"),
        "rejected", List.of("We cannot send a code to this number. Is it right?", "no"),
        "failed", List.of("No code was sent. Please try again.", "now, with the same id"),
        "unknown", List.of("A code may be on its way. Enter it when it comes.", "in 60 s, with a new id"),
        "expired", List.of("No code was sent in time. Please try again.", "now, with the same id"),
        "limited", List.of("You have asked for many codes. Please wait.", "no"),
        "invalid", List.of("We cannot send a code to this number. Is it right?", "no"));
    static void end(int code, String words) { (code == 0 ? System.out : System.err).println(words); System.exit(code); }
    public static void main(String[] args) {
        try {
            var factory = new ConnectionFactory();
            factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"));
            var answer = new CompletableFuture<String>();
            var connection = factory.newConnection();
            connection.addShutdownListener(answer::completeExceptionally);
            var channel = connection.createChannel();
            channel.addReturnListener(returned -> answer.complete(""));
            channel.confirmSelect();
            // For direct reply-to, the consumer comes first, on the same channel.
            channel.basicConsume("amq.rabbitmq.reply-to", true, (tag, message) -> answer.complete(new String(message.getBody())), tag -> {});
            // The code lives for 5 minutes. It must be sent within 20 s; a call that has begun by then may take longer.
            var job = new Gson().toJson(new Job(args[0], args[1], "5"));
            var properties = new AMQP.BasicProperties.Builder().messageId(args[2]).correlationId(args[2]).replyTo("amq.rabbitmq.reply-to")
                .timestamp(new Date()).expiration("20000").deliveryMode(2).contentType("application/json").build();
            channel.basicPublish("", "otp.jobs", true, properties, job.getBytes("UTF-8"));
            channel.waitForConfirmsOrDie(10_000);
            var text = answer.get(35, TimeUnit.SECONDS);
            if (text.isEmpty()) end(1, "Not queued: otp.jobs does not exist. Does a worker run? Resend: now, with the same id");
            var result = new Gson().fromJson(text, Result.class);
            var words = WORDS.getOrDefault(result.Outcome, WORDS.get("unknown"));
            var more = result.MayBeDuplicate ? " One code more may come: enter the newest." : "";
            var resend = result.RetryAfter == null ? words.get(1) : "in " + result.RetryAfter + " s, with the same id";
            System.out.println(text + "\nTell: " + words.get(0) + more + "\nResend: " + resend);
            System.exit(result.Outcome.equals("accepted") ? 0 : 1);
        } catch (TimeoutException e) {
            end(1, "No result in time. A code may still come: enter it when it does. Resend: now, with the same id");
        } catch (Exception e) {
            end(1, "The broker is away, or has refused the job: " + e.getMessage() + ". Resend: now, with the same id");
        }
    }
}
