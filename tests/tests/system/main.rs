//! The whole path on real servers: published by any client, run by managers and runners, read back.

mod path;
