// Queues three tasks, follows the job to its end and prints the result, with nats.go.
//
//	NATS_URL=nats://127.0.0.1:4222 go run . demo
//
// Run it twice: the second run queues nothing, since the server knows each Nats-Msg-Id for two minutes.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

type fields map[string]any

const text = "the quick brown fox"

var letters = fields{"id": "letters", "input": text, "run": "tr -cd a-z < $AIR_INPUT | wc -c > $AIR_OUTPUT"}
var tasks = []fields{
	{"id": "words", "input": text, "run": "wc -w < $AIR_INPUT > $AIR_OUTPUT"},
	// Queues a sub-task, which it got as its input.
	{"id": "plan", "input": letters, "run": "cat $AIR_INPUT >> $AIR_TASKS"},
	// Waits for that sub-task too, and gets the outputs of what it needs.
	{"id": "report", "needs": []string{"words", "letters"}, "run": "cat $AIR_NEEDS > $AIR_OUTPUT"},
}

func main() {
	ctx, job := context.Background(), os.Args[1]
	client := must(nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL)))
	defer client.Close()
	js := must(jetstream.New(client))
	var last uint64
	for _, task := range tasks {
		id := jetstream.WithMsgID(fmt.Sprintf("%s-%s", job, task["id"]))
		ack := must(js.Publish(ctx, "air.tasks."+job, must(json.Marshal(task)), id))
		last = ack.Sequence
		fmt.Println(map[bool]string{false: "queued", true: "known"}[ack.Duplicate], task["id"])
	}

	// The job is over when it has failed, or when its queue was seen empty up to our last task (`drained`).
	var state struct {
		Status   string
		Drained  uint64
		Counters struct{ Succeeded int }
	}
	watch := must(must(js.KeyValue(ctx, "air-jobs")).Watch(ctx, job))
	for state.Status != "failed" && state.Drained < last {
		// nil says only that from here on the watch tells what is new.
		if entry := <-watch.Updates(); entry != nil && entry.Operation() == jetstream.KeyValuePut {
			state.Drained = 0 // absent while the job is at work
			must(0, json.Unmarshal(entry.Value(), &state))
		}
	}
	fmt.Printf("%s %s: %d succeeded\n", job, state.Status, state.Counters.Succeeded)
	if state.Status != "completed" {
		os.Exit(1)
	}

	// The last record of a task is the truth about it.
	message := must(must(js.Stream(ctx, "AIR")).GetLastMsgForSubject(ctx, "air.results."+job+".report"))
	var record struct{ Output json.RawMessage }
	must(0, json.Unmarshal(message.Data, &record))
	fmt.Println("report", string(record.Output))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
