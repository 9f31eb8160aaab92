// One OTP, with amqp091-go: puts a job on the queue, waits for its result, says what to tell the person.
//
//	go run . PHONE TEMPLATE ID
//
// ID belongs to the code that the person asks for, not to the press of the button: login-<session>-<n>. A second
// press has the same ID: it gets the same result, and sends nothing. Only another code has another n.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Outcome: what to tell the person, and when the Resend button may be shown.
var words = map[string][2]string{
	"accepted": {"Enter the code that we have sent to you.", "in 60 s, with a new id"},
	"rejected": {"We cannot send a code to this number. Is it right?", "no"},
	"failed":   {"No code was sent. Please try again.", "now, with the same id"},
	"unknown":  {"A code may be on its way. Enter it when it comes.", "in 60 s, with a new id"},
	"expired":  {"No code was sent in time. Please try again.", "now, with the same id"},
	"limited":  {"You have asked for many codes. Please wait.", "no"},
	"invalid":  {"We cannot send a code to this number. Is it right?", "no"}}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatalf("The broker is away, or has refused the job: %v. Resend: now, with the same id", err)
	}
	return value
}

func main() {
	url, phone, template, id := os.Getenv("AMQP_URL"), os.Args[1], os.Args[2], os.Args[3]
	if url == "" {
		url = "amqp://guest:guest@127.0.0.1:5672/%2f"
	}
	channel := must(must(amqp.Dial(url)).Channel())
	must(0, channel.Confirm(false))
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	// For direct reply-to, the consumer comes first, on the same channel.
	answers := must(channel.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil))
	// The code lives for 5 minutes. It must be sent within 20 s; a call that has begun by then may take longer.
	job := must(json.Marshal(map[string]string{"Phone": phone, "MultiChannelTempId": template, "TimeAlive": "5"}))
	message := amqp.Publishing{MessageId: id, CorrelationId: id, ReplyTo: "amq.rabbitmq.reply-to", Timestamp: time.Now(),
		Expiration: "20000", DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: job}
	confirmed := must(channel.PublishWithDeferredConfirm("", "otp.jobs", true, false, message))
	if !confirmed.Wait() || len(returned) > 0 {
		log.Fatal("Not queued: otp.jobs does not exist, or is full. Does a worker run? Resend: now, with the same id")
	}
	time.AfterFunc(35*time.Second, func() { log.Fatal("No result in time. A code may still come. Resend: now, with the same id") })
	answer := (<-answers).Body // empty when the broker goes away
	var result map[string]any
	must(0, json.Unmarshal(answer, &result))
	said, known := words[fmt.Sprint(result["Outcome"])]
	if !known {
		said = words["unknown"]
	}
	said[0] += map[any]string{true: " One code more may come: enter the newest."}[result["MayBeDuplicate"]]
	if after, limited := result["RetryAfter"]; limited {
		said[1] = fmt.Sprintf("in %v s, with the same id", after)
	}
	fmt.Printf("%s\nTell: %s\nResend: %s\n", answer, said[0], said[1])
	os.Exit(map[bool]int{true: 0, false: 1}[result["Outcome"] == "accepted"])
}
