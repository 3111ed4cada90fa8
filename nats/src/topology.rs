//! Streams, buckets and the shared consumer: made where they are missing, compared where they exist.
//!
//! Nothing that exists is ever changed: a difference is told, with the way to mend it.

use serde_json::{Map, Value, json};

use air_protocol::limits::{EVENTS_AGE, LOGS_AGE};

use crate::request::NO_STREAM;
use crate::{Error, Nats};

/// What became of one stream or consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name, as NATS knows it.
    pub name: String,
    /// What it is for.
    pub purpose: &'static str,
    /// What was done.
    pub outcome: Outcome,
}

/// What was done about a stream or consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Made.
    Created,
    /// There, as it should be.
    Same,
    /// There, but different; nothing was changed. Each text names a setting.
    Differs(Vec<String>),
    /// Missing, and not to be made.
    Missing,
}

/// There is no topology. Each text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// JetStream is off.
    #[error(
        "JetStream is not enabled on this NATS server; start it with --jetstream, or a `jetstream` block in its configuration"
    )]
    Disabled,
    /// Missing rights, or another refusal.
    #[error("failed to make {name}: {source}")]
    Create {
        /// The stream.
        name: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// No answer: the rights to ask are missing, or there is no leader.
    #[error(
        "the NATS server does not answer requests to $JS.API about {name}: either these credentials lack the right to publish to `$JS.API.>` and to subscribe to `_INBOX.>`, or its cluster is electing a leader; try again in some seconds"
    )]
    Rights {
        /// The stream.
        name: String,
    },
}

struct Wanted {
    name: String,
    purpose: &'static str,
    config: Value,
}

const NANOS: u64 = 1_000_000_000;

impl Nats {
    /// Makes what is missing, with this many replicas (1 when none is named), and says what differs; the
    /// number of replicas only where one is named. With `create` false only looks.
    ///
    /// # Errors
    /// [`TopologyError`] says in one line what is wrong.
    pub async fn init(
        &self,
        replicas: Option<usize>,
        create: bool,
    ) -> Result<Vec<Found>, TopologyError> {
        self.check_jetstream().await?;
        let mut found = Vec::new();
        for wanted in self.wanted(replicas.unwrap_or(1)) {
            found.push(self.ensure(wanted, replicas.is_some(), create).await?);
        }
        found.push(self.ensure_consumer(create).await?);
        Ok(found)
    }

    /// Number of replicas of the stream of tasks; none when it does not exist.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn replicas(&self) -> Result<Option<usize>, Error> {
        match self.stream_info(&self.names.stream(), None).await {
            Ok(info) => Ok(info
                .config
                .get("num_replicas")
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok())),
            Err(error) if error.code() == Some(NO_STREAM) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What tells this installation from all others, whatever the address by which its server is reached: the
    /// stream of tasks, and when it was made.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should.
    pub async fn system(&self) -> Result<String, Error> {
        let stream = self.names.stream();
        let created = self.stream_info(&stream, None).await?.created;
        Ok(format!("{stream}@{created}"))
    }

    async fn check_jetstream(&self) -> Result<(), TopologyError> {
        match self.api::<Value>("INFO", &Value::Null).await {
            Ok(_) => Ok(()),
            Err(Error::NoResponders) => Err(TopologyError::Disabled),
            Err(error) if matches!(error.code(), Some(10039 | 10076)) => {
                Err(TopologyError::Disabled)
            }
            Err(Error::Timeout) => Err(TopologyError::Rights {
                name: "the account".into(),
            }),
            Err(source) => Err(TopologyError::Create {
                name: "anything".into(),
                source,
            }),
        }
    }

    async fn ensure(
        &self,
        wanted: Wanted,
        count: bool,
        create: bool,
    ) -> Result<Found, TopologyError> {
        let Wanted {
            name,
            purpose,
            config,
        } = wanted;
        let outcome = match self.stream_info(&name, None).await {
            Ok(info) => match differences(&config, &info.config, count) {
                differences if differences.is_empty() => Outcome::Same,
                differences => Outcome::Differs(differences),
            },
            Err(error) if error.code() == Some(NO_STREAM) && !create => Outcome::Missing,
            Err(error) if error.code() == Some(NO_STREAM) => {
                let made = self.create(&name, &config).await;
                made.map_err(|source| TopologyError::Create {
                    name: name.clone(),
                    source,
                })?;
                Outcome::Created
            }
            Err(Error::Timeout) => return Err(TopologyError::Rights { name }),
            Err(source) => return Err(TopologyError::Create { name, source }),
        };
        Ok(Found {
            name,
            purpose,
            outcome,
        })
    }

    async fn create(&self, name: &str, config: &Value) -> Result<(), Error> {
        self.api::<Value>(&format!("STREAM.CREATE.{name}"), config)
            .await
            .map(drop)
    }

    /// Makes the bucket of heartbeats where it is missing, with as many replicas as the stream of tasks: it
    /// lives in memory, so that a single server loses it when it ends.
    ///
    /// # Errors
    /// [`Error`] when NATS does not answer as it should, or the stream of tasks is missing as well.
    pub async fn make_managers_bucket(&self) -> Result<(), Error> {
        let name = crate::bucket::stream(&self.names.managers_bucket());
        match self.stream_info(&name, None).await {
            Err(error) if error.code() == Some(NO_STREAM) => {}
            other => return other.map(drop),
        }
        let replicas = self.replicas().await?.ok_or(Error::NoResponders)?;
        let mut wanted = self.wanted(replicas).into_iter();
        match wanted.find(|wanted| wanted.name == name) {
            Some(wanted) => self.create(&name, &wanted.config).await,
            None => Ok(()),
        }
    }

    /// Whether managers make it by themselves where it is missing: it lives in memory, and holds nothing
    /// that is not soon there again.
    pub fn is_made_by_managers(&self, found: &Found) -> bool {
        found.name.contains('>')
            || found.name == crate::bucket::stream(&self.names.managers_bucket())
    }

    async fn ensure_consumer(&self, create: bool) -> Result<Found, TopologyError> {
        let name = format!("{} > {}", self.names.stream(), crate::wakeups::CONSUMER);
        let operation = format!(
            "CONSUMER.INFO.{}.{}",
            self.names.stream(),
            crate::wakeups::CONSUMER
        );
        let outcome = match self.api::<Value>(&operation, &Value::Null).await {
            Ok(_) => Outcome::Same,
            Err(_) if !create => Outcome::Missing,
            Err(_) => {
                let made = self.wakeups().await;
                made.map_err(|source| TopologyError::Create {
                    name: name.clone(),
                    source,
                })?;
                Outcome::Created
            }
        };
        Ok(Found {
            name,
            purpose: "wakes a manager for each new task",
            outcome,
        })
    }

    fn wanted(&self, replicas: usize) -> Vec<Wanted> {
        let names = &self.names;
        let stream = |name, purpose, own| stream_of(name, purpose, replicas, own);
        let bucket = |name: String, purpose, own| bucket_of(&name, purpose, replicas, own);
        let blobs = names.blobs_bucket();
        vec![
            stream(
                names.stream(),
                "tasks, records and schedules",
                json!({
                    "subjects": [names.all_tasks(), names.all_results(), names.all_schedules()],
                    "allow_atomic": true, "allow_msg_ttl": true, "allow_msg_schedules": true,
                    "allow_rollup_hdrs": true,
                }),
            ),
            // Neither of the next two is compressed: docs/decisions/0017-no-compressed-streams.md.
            stream(
                names.logs_stream(),
                "output of tasks",
                json!({
                    "subjects": [names.all_logs()], "max_age": LOGS_AGE.as_secs() * NANOS
                }),
            ),
            stream(
                names.events_stream(),
                "life-cycle events",
                json!({
                    "subjects": [names.all_events()], "max_age": EVENTS_AGE.as_secs() * NANOS
                }),
            ),
            bucket(names.jobs_bucket(), "states of jobs", json!({})),
            bucket(
                names.specs_bucket(),
                "wishes of users",
                json!({ "allow_msg_ttl": true }),
            ),
            bucket(
                names.budgets_bucket(),
                "accounts of budgets",
                json!({ "allow_msg_ttl": true }),
            ),
            bucket(
                names.managers_bucket(),
                "heartbeats of managers",
                json!({
                    "storage": "memory", "allow_msg_ttl": true, "subject_delete_marker_ttl": 60 * NANOS,
                }),
            ),
            stream(
                format!("OBJ_{blobs}"),
                "large inputs, outputs and fan-outs",
                json!({
                    "subjects": [format!("$O.{blobs}.C.>"), format!("$O.{blobs}.M.>")],
                    "discard": "new", "allow_rollup_hdrs": true,
                }),
            ),
        ]
    }
}

/// A stream with the settings of all.
fn stream_of(name: String, purpose: &'static str, replicas: usize, own: Value) -> Wanted {
    let mut config = json!({
        "name": name, "retention": "limits", "storage": "file", "num_replicas": replicas,
        "max_msgs": -1, "max_bytes": -1, "max_consumers": -1, "discard": "old",
        "allow_direct": true,
    });
    merge(&mut config, own);
    Wanted {
        name,
        purpose,
        config,
    }
}

/// A bucket: the stream that it is.
fn bucket_of(bucket: &str, purpose: &'static str, replicas: usize, own: Value) -> Wanted {
    let mut config = json!({
        "subjects": [format!("$KV.{bucket}.>")], "max_msgs_per_subject": 1,
        "discard": "new", "allow_rollup_hdrs": true, "deny_delete": true,
    });
    merge(&mut config, own);
    stream_of(crate::bucket::stream(bucket), purpose, replicas, config)
}

fn merge(config: &mut Value, own: Value) {
    if let (Value::Object(config), Value::Object(own)) = (config, own) {
        config.extend(own);
    }
}

/// The settings in which a stream is not as wanted; its number of replicas only if it counts.
fn differences(wanted: &Value, is: &Value, count: bool) -> Vec<String> {
    let empty = Map::new();
    let wanted = wanted.as_object().unwrap_or(&empty);
    wanted
        .iter()
        .filter(|(name, _)| count || *name != "num_replicas")
        .filter_map(|(name, value)| {
            let found = is.get(name).unwrap_or(&Value::Null);
            (found != value).then(|| format!("{name} is {found}, should be {value}"))
        })
        .collect()
}
