#!/usr/bin/env bash
# Queues three tasks, follows the job to its end and prints the result, with `nats` (the command line of NATS) and bash.
#
#     NATS_URL=nats://127.0.0.1:4222 examples/shell-client/client.sh demo
#
# Run it twice: the second run queues nothing, since the server knows each Nats-Msg-Id for two minutes.
set -euo pipefail
job=${1:?usage: client.sh JOB}

# A publish sent as a request is answered {"stream":"AIR","seq":7}: stored. With "duplicate": true it was there before.
queue() {
    local ack
    ack=$(nats request --raw --no-templates -H "Nats-Msg-Id:$job-$1" "air.tasks.$job" "$2")
    [[ $ack =~ \"seq\":([0-9]+) ]] || { echo "not stored: $ack" >&2; exit 1; }
    seq=${BASH_REMATCH[1]}
    if [[ $ack == *'"duplicate"'* ]]; then echo "known $1"; else echo "queued $1"; fi
}
# `plan` queues a sub-task, which it got as its input; `report` waits for it, and gets the outputs of what it needs.
queue words '{"id":"words","input":"the quick brown fox","run":"wc -w < $AIR_INPUT > $AIR_OUTPUT"}'
queue plan '{"id":"plan","run":"cat $AIR_INPUT >> $AIR_TASKS",
    "input":{"id":"letters","input":"the quick brown fox","run":"tr -cd a-z < $AIR_INPUT | wc -c > $AIR_OUTPUT"}}'
queue report '{"id":"report","needs":["words","letters"],"run":"cat $AIR_NEEDS > $AIR_OUTPUT"}'

# The job is over when it has failed, or when its queue was seen empty up to our last task (`drained`).
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" <<<"$state"; }
exec 3< <(exec nats kv watch air-jobs "$job")
trap "kill $!" EXIT
status=
while read -r state; do
    status=$(sed -n 's/.*"status":"\([a-z]*\)".*/\1/p' <<<"$state")
    if [[ $status == failed ]] || (($(number drained) + 0 >= seq)); then break; fi
done <&3
echo "$job $status: $(number succeeded) succeeded"
[[ $status == completed ]]

# The last record of a task is the truth about it. (With jq: `nats stream get … | grep "^{" | jq -c .output`.)
record=$(nats stream get AIR --last-for "air.results.$job.report")
output=${record#*\"output\":}
echo "report ${output%%,\"queued\"*}"
