// Queues three tasks, follows the job to its end and prints the result, with nats.js.
//
//     npm ci
//     NATS_URL=nats://127.0.0.1:4222 npx tsx client.ts demo
//
// Run it twice: the second run queues nothing, since the server knows each Nats-Msg-Id for two minutes.
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { connect } from "@nats-io/transport-node";

const job = process.argv[2];
const text = "the quick brown fox";
const letters = { id: "letters", input: text, run: "tr -cd a-z < $AIR_INPUT | wc -c > $AIR_OUTPUT" };
const tasks = [
  { id: "words", input: text, run: "wc -w < $AIR_INPUT > $AIR_OUTPUT" },
  // Queues a sub-task, which it got as its input.
  { id: "plan", input: letters, run: "cat $AIR_INPUT >> $AIR_TASKS" },
  // Waits for that sub-task too, and gets the outputs of what it needs.
  { id: "report", needs: ["words", "letters"], run: "cat $AIR_NEEDS > $AIR_OUTPUT" },
];

const client = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
const stream = jetstream(client);
let seq = 0;
for (const task of tasks) {
  const ack = await stream.publish(`air.tasks.${job}`, JSON.stringify(task), { msgID: `${job}-${task.id}` });
  seq = ack.seq;
  console.log(ack.duplicate ? "known" : "queued", task.id);
}

// The job is over when it has failed, or when its queue was seen empty up to our last task (`drained`).
type State = { status: string; drained?: number; counters: { succeeded: number } };
const jobs = await new Kvm(stream).open("air-jobs");
for await (const entry of await jobs.watch({ key: job })) {
  if (entry.operation !== "PUT") continue;
  const { status, drained = 0, counters } = entry.json<State>();
  if (status !== "failed" && drained < seq) continue;
  console.log(`${job} ${status}: ${counters.succeeded} succeeded`);
  if (status !== "completed") process.exit(1);
  break;
}

// The last record of a task is the truth about it.
const manager = await jetstreamManager(client);
const record = await manager.streams.getMessage("AIR", { last_by_subj: `air.results.${job}.report` });
console.log("report", JSON.stringify(record?.json<{ output: unknown }>().output));
await client.close();
