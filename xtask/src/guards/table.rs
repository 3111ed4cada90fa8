//! The guards: what each one keeps from happening, where it stands, how it is left out, and who notices.
//!
//! A guard is added with the code that it guards, as a function without I/O, so that a test beside it can notice.
//! Guards in the order of requests, which no function holds, are left out in the model (`model/tests/bugs.rs`): a
//! claim or a start that reads the key again before it writes is found there.

/// One guard.
pub(super) struct Guard {
    /// What would happen without it, or what it compares.
    pub(super) name: &'static str,
    pub(super) file: &'static str,
    /// The text of the guard, which must stand in the file exactly once.
    pub(super) source: &'static str,
    /// What stands there when it is left out.
    pub(super) instead: &'static str,
    pub(super) caught: Caught,
}

/// Who notices that a guard is left out.
#[derive(Clone, Copy)]
pub(super) enum Caught {
    /// A test beside the code.
    By {
        package: &'static str,
        test: &'static str,
    },
    /// The compiler, which says this.
    NotBuilt {
        package: &'static str,
        says: &'static str,
    },
}

const fn protocol(test: &'static str) -> Caught {
    let package = "air-protocol";
    Caught::By { package, test }
}

const fn nats(test: &'static str) -> Caught {
    let package = "air-nats";
    Caught::By { package, test }
}

const fn manager(test: &'static str) -> Caught {
    let package = "air-manager";
    Caught::By { package, test }
}

const fn runner(test: &'static str) -> Caught {
    let package = "air-runner";
    Caught::By { package, test }
}

/// All of them: the expectations first, then liveness, leases, ends of jobs, and deletion.
pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "the record's expectation on its commit",
        file: "nats/src/commit.rs",
        source: "    message.expecting(commit.record.after)\n",
        instead: "    message\n",
        caught: nats("commit::tests::a_record_is_stored_only_in_place_of_the_one_that_it_follows"),
    },
    Guard {
        name: "the revision that a key is swapped at",
        file: "nats/src/bucket.rs",
        source: "    message.expecting(expected)\n",
        instead: "    let _ = expected;\n    message\n",
        caught: nats("bucket::tests::a_value_is_stored_only_at_the_revision_that_was_read"),
    },
    Guard {
        name: "the header that NATS compares",
        file: "nats/src/publish.rs",
        source: "        self.headers.insert(EXPECTED, sequence.to_string());\n",
        instead: "        let _ = (sequence, EXPECTED, &mut self);\n",
        caught: nats("bucket::tests::a_value_is_stored_only_at_the_revision_that_was_read"),
    },
    Guard {
        name: "the fence as the revision that a start expects",
        file: "runner/src/hold.rs",
        source: "            expected: claim.fence,\n",
        instead: "            expected: 0,\n",
        caught: runner("hold::tests::a_start_is_written_only_in_place_of_its_claim"),
    },
    Guard {
        name: "the record that the claim expects, at the start",
        file: "runner/src/look.rs",
        source: "    last == target.expected && queued.id == target.task",
        instead: "    let _ = last;\n    queued.id == target.task",
        caught: runner(
            "look::tests::only_the_claimed_attempt_is_due_and_only_while_nobody_ended_it",
        ),
    },
    Guard {
        name: "the record that the claim expects, at the runner's commit",
        file: "runner/src/record.rs",
        source: "            target.expected,\n",
        instead: "            found.last.as_ref().map_or(0, |(seq, _)| *seq),\n",
        caught: runner("record::tests::a_record_follows_the_one_that_the_claim_expects"),
    },
    Guard {
        name: "the record that a manager's lease expects",
        file: "manager/src/settle.rs",
        source: "        (seq == target.expected).then(|| Self {\n",
        instead: "        (seq == seq).then(|| Self {\n",
        caught: manager("settle::tests::an_attempt_that_somebody_ended_is_not_settled"),
    },
    Guard {
        name: "the record that a manager's record follows",
        file: "manager/src/settle.rs",
        source: "        record.after = target.expected;\n",
        instead: "",
        caught: manager("settle::tests::a_record_says_whom_it_follows_and_under_which_claim"),
    },
    Guard {
        name: "liveness: the attempt is the next one",
        file: "protocol/src/record.rs",
        source: "last.status.has_next() && Some(attempt) == last.attempt.checked_add(1)",
        instead: "last.status.has_next() && attempt > last.attempt",
        caught: protocol("record::tests::only_the_next_attempt_of_an_open_task_is_live"),
    },
    Guard {
        name: "liveness: the task waits for an attempt",
        file: "protocol/src/record.rs",
        source: "last.status.has_next() && Some(attempt) == last.attempt.checked_add(1)",
        instead: "Some(attempt) == last.attempt.checked_add(1)",
        caught: protocol("record::tests::only_the_next_attempt_of_an_open_task_is_live"),
    },
    Guard {
        name: "liveness: the first attempt of a task without a record",
        file: "protocol/src/record.rs",
        source: "        None => attempt == 1,\n",
        instead: "        None => true,\n",
        caught: protocol("record::tests::only_the_next_attempt_of_an_open_task_is_live"),
    },
    Guard {
        name: "liveness of what is read from a queue",
        file: "manager/src/backlog.rs",
        source: "            if !is_live(message.attempt, last) {\n",
        instead: "            if false {\n",
        caught: manager("backlog::tests::the_first_live_task_is_picked"),
    },
    Guard {
        name: "liveness of what is remembered of a queue",
        file: "manager/src/backlog/pick.rs",
        source: "            .filter(|(_, entry)| is_live(entry.attempt, entry.last))\n",
        instead: "",
        caught: manager("backlog::tests::a_later_attempt_of_a_task_that_is_over_is_not_picked"),
    },
    Guard {
        name: "a lease is changed by its holder only",
        file: "protocol/src/job.rs",
        source: "            JobStatus::Working { lease } if lease.runner == runner => Some(lease),\n",
        instead: "            JobStatus::Working { lease } => {\n                let _ = runner;\n                Some(lease)\n            }\n",
        caught: protocol("job::tests::every_event_in_every_state"),
    },
    Guard {
        name: "a job is claimed only while nobody works on it",
        file: "protocol/src/job.rs",
        source: "            JobStatus::Waiting if fresh => self.to(JobStatus::Working {\n",
        instead: "            JobStatus::Waiting | JobStatus::Working { .. } if fresh => self.to(JobStatus::Working {\n",
        caught: protocol("job::tests::every_event_in_every_state"),
    },
    Guard {
        name: "a lost key is rebuilt with a hold",
        file: "protocol/src/job.rs",
        source: "            hold_until: until,\n",
        instead: "",
        caught: manager("decide::tests::a_key_that_is_gone_is_rebuilt_and_held"),
    },
    Guard {
        name: "the hold of a job",
        file: "manager/src/decide.rs",
        source: "    if let Some(until) = state.hold_until.filter(held) {\n",
        instead: "    if let Some(until) = state.hold_until.filter(held).filter(|_| false) {\n",
        caught: manager("decide::tests::policy_and_wishes_of_the_user_come_first"),
    },
    Guard {
        name: "a key of a newer version is not rebuilt",
        file: "manager/src/decide.rs",
        source: "        Key::Newer(..) => return Ok(Step::Rest(Rest::Newer)),\n",
        instead: "        Key::Newer(..) => return Ok(rebuild(view)),\n",
        caught: manager("decide::tests::a_key_that_is_gone_is_rebuilt_and_held"),
    },
    Guard {
        name: "a state of a newer version is told from garbage",
        file: "protocol/src/codec.rs",
        source: "                .is_ok_and(|version| version > u64::from(VERSION)),\n",
        instead: "                .is_ok_and(|version| version > u64::from(VERSION) + 1),\n",
        caught: protocol("codec::tests::only_a_later_version_is_newer"),
    },
    Guard {
        name: "a lease of another runner, in the runner",
        file: "runner/src/hold.rs",
        source: "        _ if lease.runner != runner => None,\n",
        instead: "        _ if lease.runner != runner => Some(Ours::Running),\n",
        caught: runner("hold::tests::a_lease_of_another_runner_ends_the_work"),
    },
    Guard {
        name: "the fence of a lease, in the runner",
        file: "runner/src/hold.rs",
        source: "        Phase::Running(running) if running.fence == fence => Some(Ours::Running),\n",
        instead: "        Phase::Running(_) => Some(Ours::Running),\n",
        caught: runner("hold::tests::a_lease_is_ours_by_runner_and_fence"),
    },
    Guard {
        name: "heeding what the key says of the lease",
        file: "runner/src/hold.rs",
        source: "(Key::State(state, revision), Some(ours)) = (key, ours(key, runner, fence)) else",
        instead: "(Key::State(state, revision), ours) = (key, ours(key, runner, fence).unwrap_or(Ours::Running)) else",
        caught: runner("hold::tests::a_lease_of_another_runner_ends_the_work"),
    },
    Guard {
        name: "an answer that is older than what is known",
        file: "runner/src/hold.rs",
        source: "        if key.revision() < self.revision && *key != Key::Absent {\n",
        instead: "        if false {\n",
        caught: runner("hold::tests::an_older_answer_says_nothing"),
    },
    Guard {
        name: "the end of the time for which a lease is surely ours",
        file: "runner/src/hold.rs",
        source: "        self.renewed.saturating_add(usable).saturating_sub(boot)\n",
        instead: "        self.renewed.saturating_add(usable).max(boot)\n",
        caught: runner("hold::tests::a_lease_is_surely_ours_only_so_long_after_its_renewal"),
    },
    Guard {
        name: "a runner that lost its lease settles nothing",
        file: "runner/src/judge.rs",
        source: "            Some(Why::Over | Why::Lost) | None => return None,\n",
        instead: "            Some(Why::Over | Why::Lost) | None => {}\n",
        caught: runner("judge::tests::each_end_has_its_outcome"),
    },
    Guard {
        name: "no lease is suspected while the connection is down",
        file: "manager/src/leases.rs",
        source: "        if !self.up {\n",
        instead: "        if false {\n",
        caught: manager("leases::tests::an_outage_starts_every_watch_anew"),
    },
    Guard {
        name: "a lease is suspected only after its time",
        file: "manager/src/leases.rs",
        source: "            } else if age >= watched.within {\n",
        instead: "            } else if age > Duration::ZERO {\n",
        caught: manager("leases::tests::a_silent_runner_is_suspected_after_its_ttl"),
    },
    Guard {
        name: "an older sight of a lease",
        file: "manager/src/leases.rs",
        source: "            Some(before) if before.revision >= revision => {}\n",
        instead: "",
        caught: manager("leases::tests::an_older_sight_changes_nothing"),
    },
    Guard {
        name: "who was judged dead is killed before anything is committed for it",
        file: "manager/src/recover.rs",
        source: "    let killed = shared.fleet.kill(&lease.backend, lease.runner).await;\n",
        instead: "",
        caught: Caught::NotBuilt {
            package: "air-manager",
            says: "cannot find value `killed`",
        },
    },
    Guard {
        name: "the kill itself",
        file: "manager/src/backend/process/left.rs",
        source: "    match sweep::sweep(|found| found == id, Whom::TasksAndRunners, SWEEP_WITHIN) {\n",
        instead: "    match sweep::sweep(|found| found == id, Whom::Tasks, SWEEP_WITHIN) {\n",
        caught: manager("backend::process::tests::a_runner_that_was_judged_dead_is_killed"),
    },
    Guard {
        name: "no runner without a place",
        file: "manager/src/backend/fleet.rs",
        source: "        if places.free_of(backend) == 0 {\n            return None;\n        }\n",
        instead: "",
        caught: manager("backend::fleet::tests::places_are_counted_in_all_and_of_each_backend"),
    },
    Guard {
        name: "an infrastructure that is down is not the fault of a task",
        file: "manager/src/backend/docker/link.rs",
        source: "Client::connect_with_host(&self.host).map_err(|error| self.away(&error))?;\n",
        instead: "Client::connect_with_host(&self.host).map_err(|error| Fault::Refused(error.to_string()))?;\n",
        caught: manager(
            "backend::docker::link::tests::nobody_at_the_address_is_a_daemon_that_is_away",
        ),
    },
    Guard {
        name: "a record counts once",
        file: "protocol/src/ledger.rs",
        source: "        if seq <= self.accounted {\n            return;\n        }\n",
        instead: "",
        caught: protocol("ledger::tests::a_task_counts_by_its_last_record"),
    },
    Guard {
        name: "a job is drained only when it was counted afterwards",
        file: "manager/src/decide.rs",
        source: "    let Some(pending) = view.pending else {\n        return Ok(Step::Count);\n    };\n",
        instead: "    let pending = view.pending.unwrap_or(Pending { schedules: 0, last_queued: 0, last_seq: pick.scanned_to });\n",
        caught: manager("decide::tests::a_look_asks_for_one_thing_after_another"),
    },
    Guard {
        name: "a job is not drained while anything is counted",
        file: "manager/src/decide.rs",
        source: "    if pending.schedules > 0 || pending.last_queued > pick.scanned_to {\n",
        instead: "    if false {\n",
        caught: manager("decide::tests::a_job_is_not_done_while_anything_is_left"),
    },
    Guard {
        name: "a job is not drained while tasks are to come back",
        file: "manager/src/decide.rs",
        source: "    if open > 0 {\n",
        instead: "    let _ = open;\n    if false {\n",
        caught: manager("decide::tests::a_job_is_not_done_while_anything_is_left"),
    },
    Guard {
        name: "a count that is older than what the key names",
        file: "manager/src/decide.rs",
        source: "    if pending.last_seq < state.last_record {\n        return Ok(Step::Count);\n    }\n",
        instead: "",
        caught: manager("decide::tests::a_count_older_than_the_last_record_is_made_again"),
    },
    Guard {
        name: "a message is left over only if its record was seen after it",
        file: "manager/src/backlog.rs",
        source: "                if lasts.up_to.is_some_and(|up_to| up_to >= message.seq) {\n",
        instead: "                if lasts.up_to.is_some() {\n",
        caught: manager("backlog::tests::a_stale_reply_deletes_nothing"),
    },
    Guard {
        name: "a message is left over only once its attempt was committed",
        file: "manager/src/backlog.rs",
        source: "                if !is_live(entry.attempt, entry.last) && entry.attempt <= record.attempt {\n",
        instead: "                if !is_live(entry.attempt, entry.last) {\n",
        caught: manager("backlog::tests::a_later_attempt_of_a_task_that_is_over_is_not_picked"),
    },
    Guard {
        name: "only a message that was read is deleted",
        file: "manager/src/backlog.rs",
        source: "            .any(|message| message.seq == seq && self.is(message))\n",
        instead: "            .any(|message| message.seq == seq)\n",
        caught: manager("backlog::tests::a_message_that_is_left_over_is_known_by_task_and_attempt"),
    },
    Guard {
        name: "records of tasks that are open or needed stay",
        file: "manager/src/expire.rs",
        source: "!record.status.is_final() || needed(&record.task)",
        instead: "needed(&record.task)",
        caught: manager("expire::tests::the_last_record_of_an_open_or_needed_task_stays"),
    },
    Guard {
        name: "what is reserved is not reserved again",
        file: "protocol/src/budget/account.rs",
        source: "        Some(self.unspent()?.saturating_sub(self.reserved))\n",
        instead: "        self.unspent()\n",
        caught: protocol("budget::account::tests::each_claim_leaves_enough_for_those_before_it"),
    },
    Guard {
        name: "a runner that has begun keeps what is reserved for it",
        file: "protocol/src/budget/account.rs",
        source: "        self.reserved.get(&runner) == Some(judged) && self.settle(runner, taken)\n",
        instead: "        let _ = judged;\n        self.settle(runner, taken)\n",
        caught: protocol("budget::account::tests::who_has_begun_since_it_was_judged_is_left_alone"),
    },
    Guard {
        name: "a task of an account that is gone is not let off",
        file: "manager/src/budget.rs",
        source: "        return (None, Err(gone(&charge.account)));\n",
        instead: "        return (None, Ok(()));\n",
        caught: manager("budget::tests::a_task_of_an_account_that_is_gone_is_not_let_off"),
    },
    Guard {
        name: "a task that waits for a person is parked before anybody claims it",
        file: "manager/src/backlog/pick.rs",
        source: "if let Some(reason) = &entry.approval {",
        instead: "if let Some(reason) = entry.approval.as_ref().filter(|_| false) {",
        caught: manager("backlog::tests::approval::a_task_is_parked_when_nothing_else_keeps_it"),
    },
    Guard {
        name: "who was approved is not parked again",
        file: "protocol/src/approval.rs",
        source: "last.is_some_and(Record::is_approved) || ",
        instead: "",
        caught: protocol("approval::tests::who_was_approved_is_not_asked_for_again"),
    },
    Guard {
        name: "what was judged by other rules is forgotten",
        file: "manager/src/backlog.rs",
        source: "if self.rules != rules {",
        instead: "if self.rules != rules && false {",
        caught: manager("backlog::tests::approval::other_rules_are_heeded_at_once"),
    },
    Guard {
        name: "only a parked task is replied to",
        file: "protocol/src/approval/replied.rs",
        source: "        status => Err(Unfit::Status(status)),\n",
        instead: "        _ => Ok(last.waits.as_ref()),\n",
        caught: protocol("approval::replied::tests::a_reply_must_fit"),
    },
    Guard {
        name: "an approval is carried along by a runner's record",
        file: "runner/src/record.rs",
        source: "            replies: found.replies().to_vec(),\n",
        instead: "",
        caught: runner("record::tests::what_people_said_stands_in_every_further_record"),
    },
    Guard {
        name: "an approval is carried along by a manager's record",
        file: "manager/src/settle.rs",
        source: "            record.replies.clone_from(&before.replies);\n",
        instead: "",
        caught: manager("settle::tests::a_parked_task_says_why_and_keeps_what_people_said"),
    },
];
