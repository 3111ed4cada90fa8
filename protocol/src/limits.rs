//! Every limit of the system, in one place, with its unit in its name.
//!
//! `docs/protocol.md` lists them; a test keeps that list equal to this file.

use std::time::Duration;

/// Characters of a job's name.
pub const JOB_NAME_CHARS_MAX: usize = 64;
/// Characters of a task's id.
pub const TASK_ID_CHARS_MAX: usize = 64;
/// Bytes of one task message.
pub const TASK_BYTES_MAX: usize = 512 * 1024;
/// Levels of lists and objects within one task, itself among them.
pub const TASK_DEPTH_MAX: usize = 100;
/// Tasks that one task may need.
pub const TASK_NEEDS_MAX: usize = 1000;
/// Labels of one task or job.
pub const LABELS_MAX: usize = 64;
/// Messages in one atomic batch: the server's default.
pub const BATCH_MESSAGES_MAX: usize = 1000;
/// Bytes of the tasks in one atomic batch.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Sub-tasks that one task may queue.
pub const SUBTASKS_MAX: usize = 1_000_000;
/// Bytes of the file in which a task lists its sub-tasks.
pub const SUBTASKS_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of a task's output (`AIR_OUTPUT`).
pub const OUTPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of the difference that stand in the output of a task with a workspace; the rest is counted.
pub const WORKSPACE_PATCH_BYTES_MAX: u64 = 256 * 1024;
/// Files that the output of a task with a workspace names; the rest is counted.
pub const WORKSPACE_FILES_MAX: usize = 1000;
/// Bytes of uncommitted work that are saved for the next attempt; more is not.
pub const WORKSPACE_SAVED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time without use after which what was fetched of a repository is removed.
pub const WORKSPACE_REPO_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time after which the working tree of another installation counts as abandoned.
pub const WORKSPACE_ABANDONED_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Time between two looks of a manager at what dead runners left on its host.
pub const SWEEP_EVERY: Duration = Duration::from_secs(10 * 60);
/// Bytes of output kept in the record itself.
pub const TAIL_BYTES: usize = 4 * 1024;
/// Bytes of log kept for one attempt; the rest is counted and dropped.
pub const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one chunk of log.
pub const LOG_CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an agent's raw transcript that are kept for one attempt; the rest is counted and dropped.
pub const TRANSCRIPT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one line of an agent's transcript; a longer one is counted and dropped.
pub const TRANSCRIPT_LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Least bytes of memory that a task may ask the process backend for: its runner is held to them too.
pub const PROCESS_MEMORY_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Bytes of an agent's session that is saved for the next attempt; a longer one is not.
pub const SESSION_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of a prompt, with the input that is added to it.
pub const PROMPT_BYTES_MAX: u64 = 1024 * 1024;
/// Turns that an agent may take, unless the task or the job's spec says otherwise.
pub const CLAUDE_TURNS_DEFAULT: u32 = 100;
/// Characters of an error text in a record.
pub const ERROR_CHARS_MAX: usize = 2000;
/// Rules by which tasks of a job wait for a person.
pub const APPROVAL_RULES_MAX: usize = 64;
/// Characters of a pattern in such a rule.
pub const APPROVAL_PATTERN_CHARS_MAX: usize = 400;
/// Characters of a question to a person.
pub const QUESTION_CHARS_MAX: usize = 2000;
/// Characters of what a person says: an answer, or the note to an approval.
pub const REPLY_CHARS_MAX: usize = 4000;
/// Replies that one task may get.
pub const REPLIES_MAX: usize = 16;
/// Characters of a foreign text that an error quotes.
pub const QUOTE_CHARS_MAX: usize = 400;
/// Lost runners after which a task fails, whatever its retries.
pub const LOSSES_MAX: u32 = 5;
/// Failed starts after which the task gets a failed attempt.
pub const FAILED_STARTS_MAX: u32 = 5;
/// Other jobs that a job's state lists as its children.
pub const CHILDREN_MAX: usize = 1000;
/// Decisions that a manager settles under one lease.
pub const DECISIONS_MAX: usize = 64;
/// Bytes of reasons after which no further decision is added to a lease.
pub const DECISIONS_BYTES_MAX: usize = 64 * 1024;
/// Generations of sub-tasks below a budget's own tasks, or above an agent's task; a budget may allow fewer.
pub const DEPTH_MAX: u32 = 1000;
/// Runs for which one account reserves at once; further ones wait.
pub const RESERVATIONS_MAX: usize = 1000;
/// An agent's task that names no limit reserves this part of what is left: one in so many.
pub const BUDGET_SHARE: u64 = 10;
/// The least that such a task reserves of money, in millionths of a US dollar, while as much is left.
pub const BUDGET_SHARE_USD_MIN_MICROS: u64 = 10_000;
/// The least that such a task reserves of turns, while as many are left.
pub const BUDGET_SHARE_TURNS_MIN: u64 = 10;
/// The least that such a task reserves of tokens, while as many are left.
pub const BUDGET_SHARE_TOKENS_MIN: u64 = 100_000;
/// Messages of queues that a manager remembers between two looks, over all jobs; more are read anew.
pub const REMEMBERED_MAX: usize = 200_000;
/// Time that a task may run, unless it says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// Time between SIGTERM and SIGKILL.
pub const KILL_GRACE: Duration = Duration::from_secs(10);
/// Time without renewal after which a lease may be taken over.
pub const LEASE_TTL_DEFAULT: Duration = Duration::from_secs(30);
/// The shortest lease that a job may ask for.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(3);
/// Time that a process may take from claim to start.
pub const START_WITHIN_PROCESS: Duration = Duration::from_secs(10);
/// Time that a container may take from claim to start: its image may have to be fetched.
pub const START_WITHIN_CONTAINER: Duration = Duration::from_secs(10 * 60);
/// Time for which records are kept, unless the spec says otherwise.
pub const KEEP_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The shortest time for which records are kept.
pub const KEEP_MIN: Duration = Duration::from_secs(24 * 3600);
/// Age at which logs are dropped.
pub const LOGS_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Age at which events are dropped.
pub const EVENTS_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// First delay of a retry.
pub const BACKOFF_DEFAULT: Duration = Duration::from_secs(1);
/// Longest delay of a retry.
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// Attempts after the first that a task gets.
pub const RETRIES_DEFAULT: u32 = 3;
/// Shortest delay of a task that asked to be run later (exit code 75).
pub const LATER_MIN: Duration = Duration::from_secs(1);
/// The shortest poll of a manager.
pub const POLL_MIN: Duration = Duration::from_secs(1);
/// The longest poll of a manager.
pub const POLL_MAX: Duration = Duration::from_secs(60);
/// The poll of a manager.
pub const POLL_DEFAULT: Duration = Duration::from_secs(5);
/// Time without a heartbeat after which a manager counts as gone.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(3);
