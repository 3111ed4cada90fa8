//! The whole path on real servers: published by any client, run by managers and runners, read back.

mod needs;
mod path;
mod replicas;
mod retries;
mod scale;
mod subtasks;
mod verbs;
