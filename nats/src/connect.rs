//! Connecting: where to, with which credentials, and one clear line when it does not work.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use air_protocol::names::Names;
use async_nats::{ConnectErrorKind, ReconnectToServer, Server, ServerAddr};
use tokio::sync::watch;

use crate::Nats;

/// The oldest server that has what the protocol needs.
pub const SERVER_VERSION_MIN: (i64, i64) = (2, 14);
/// Where the server is, unless told otherwise.
pub const URL_DEFAULT: &str = "nats://127.0.0.1:4222";
/// The smallest `max_payload` of the server that carries every record.
pub const MAX_PAYLOAD_MIN: usize = 1024 * 1024;
/// Between two pings. A server that is frozen, or cut off without a word, is noticed by the third that it does not
/// answer: well before a runner must give up a lease of 30 s, while the client's own minute is far behind it.
const PING: Duration = Duration::from_secs(3);

/// Where to connect, and as whom. The environment variables are those of the `nats` CLI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Addresses of servers, separated by commas (`NATS_URL`).
    pub url: Option<String>,
    /// File with credentials (`NATS_CREDS`).
    pub creds: Option<PathBuf>,
    /// User (`NATS_USER`).
    pub user: Option<String>,
    /// Password (`NATS_PASSWORD`).
    pub password: Option<String>,
    /// Token (`NATS_TOKEN`).
    pub token: Option<String>,
    /// File with the seed of an nkey (`NATS_NKEY`).
    pub nkey: Option<PathBuf>,
    /// File with the client's certificate (`NATS_CERT`).
    pub cert: Option<PathBuf>,
    /// File with the client's key (`NATS_KEY`).
    pub key: Option<PathBuf>,
    /// File with the certificates to trust (`NATS_CA`).
    pub ca: Option<PathBuf>,
    /// The names of the installation (`AIR_PREFIX`).
    pub names: Names,
    /// Wait for the server instead of failing.
    pub wait: bool,
}

impl Options {
    /// The options that the environment gives; `var` looks a variable up.
    ///
    /// # Errors
    /// The prefix is no prefix.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Self, ConnectError> {
        let path = |name| var(name).map(PathBuf::from);
        Ok(Self {
            url: var("NATS_URL"),
            creds: path("NATS_CREDS"),
            user: var("NATS_USER"),
            password: var("NATS_PASSWORD"),
            token: var("NATS_TOKEN"),
            nkey: path("NATS_NKEY"),
            cert: path("NATS_CERT"),
            key: path("NATS_KEY"),
            ca: path("NATS_CA"),
            names: match var("AIR_PREFIX") {
                Some(prefix) => prefix.parse().map_err(ConnectError::Prefix)?,
                None => Names::default(),
            },
            wait: false,
        })
    }

    /// The variables that make [`Options::from_env`] give these options.
    pub fn to_env(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let mut vars = vec![
            ("NATS_URL", Some(self.url().to_owned())),
            ("AIR_PREFIX", Some(self.names.prefix().to_owned())),
        ];
        vars.extend([
            ("NATS_CREDS", path(&self.creds)),
            ("NATS_USER", self.user.clone()),
            ("NATS_PASSWORD", self.password.clone()),
            ("NATS_TOKEN", self.token.clone()),
            ("NATS_NKEY", path(&self.nkey)),
            ("NATS_CERT", path(&self.cert)),
            ("NATS_KEY", path(&self.key)),
            ("NATS_CA", path(&self.ca)),
        ]);
        vars.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// The addresses of servers.
    pub fn url(&self) -> &str {
        self.url.as_deref().unwrap_or(URL_DEFAULT)
    }
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// How often it was lost.
    pub losses: u64,
}

/// There is no connection. Each text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error(
        "no NATS server answers at {url} ({reason}); start one with `airx dev`, or name another with --server or NATS_URL"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// An address that is none.
    #[error("`{url}` is no address of a NATS server; write one such as {URL_DEFAULT}")]
    Address {
        /// The address.
        url: String,
    },
    /// Not let in.
    #[error(
        "the NATS server at {url} refuses these credentials; give others with --creds, --context or NATS_CREDS"
    )]
    Credentials {
        /// Where.
        url: String,
    },
    /// Credentials that cannot be read.
    #[error("failed to read credentials from {path}: {reason}")]
    CredentialsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// TLS does not come about.
    #[error(
        "no TLS with the NATS server at {url}: {reason}; check NATS_CA, NATS_CERT and NATS_KEY"
    )]
    Tls {
        /// Where.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// An old server.
    #[error("the NATS server at {url} is version {version}, but {}.{} or newer is needed; update it", SERVER_VERSION_MIN.0, SERVER_VERSION_MIN.1)]
    Old {
        /// Where.
        url: String,
        /// Its version.
        version: String,
    },
    /// A server that carries only small messages.
    #[error(
        "the NATS server at {url} has max_payload {bytes}, but {MAX_PAYLOAD_MIN} is the least; raise it in its configuration"
    )]
    MaxPayload {
        /// Where.
        url: String,
        /// Its limit.
        bytes: usize,
    },
    /// A prefix that is none.
    #[error(transparent)]
    Prefix(air_protocol::names::NameError),
}

impl Nats {
    /// Connects; once connected, reconnects for ever with back-off.
    ///
    /// # Errors
    /// [`ConnectError`] says in one line what is wrong and how to mend it.
    pub async fn connect(options: &Options, name: &str) -> Result<Self, ConnectError> {
        let url = options.url().to_owned();
        let (sender, link) = watch::channel(Link {
            up: !options.wait,
            losses: 0,
        });
        let servers = servers(&url)?;
        let mut connect = credentials(options).await?;
        if let [only] = servers.as_slice() {
            connect = connect.reconnect_to_server_callback(at_once(only.clone()));
        }
        let client = connect
            .name(name)
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .ping_interval(PING)
            .request_timeout(Some(Duration::from_secs(5)))
            .subscription_capacity(64 * 1024)
            .event_callback(move |event| {
                note(&sender, &event);
                std::future::ready(())
            })
            .connect(servers)
            .await
            .map_err(|error| explain(url.clone(), &error))?;
        let nats = Self {
            context: async_nats::jetstream::new(client.clone()),
            client,
            names: Arc::new(options.names.clone()),
            link,
            cut: Arc::default(),
        };
        if !options.wait {
            nats.check_server(&url)?;
        }
        Ok(nats)
    }

    fn check_server(&self, url: &str) -> Result<(), ConnectError> {
        let info = self.client.server_info();
        if !self
            .client
            .is_server_compatible(SERVER_VERSION_MIN.0, SERVER_VERSION_MIN.1, 0)
        {
            return Err(ConnectError::Old {
                url: url.to_owned(),
                version: info.version,
            });
        }
        if info.max_payload < MAX_PAYLOAD_MIN {
            return Err(ConnectError::MaxPayload {
                url: url.to_owned(),
                bytes: info.max_payload,
            });
        }
        Ok(())
    }
}

fn servers(url: &str) -> Result<Vec<ServerAddr>, ConnectError> {
    url.split(',')
        .map(|one| {
            one.trim().parse().map_err(|_| ConnectError::Address {
                url: one.to_owned(),
            })
        })
        .collect()
}

async fn credentials(options: &Options) -> Result<async_nats::ConnectOptions, ConnectError> {
    let unreadable = |path: &PathBuf| {
        let path = path.clone();
        move |error: std::io::Error| ConnectError::CredentialsFile {
            path,
            reason: error.to_string(),
        }
    };
    let mut connect = async_nats::ConnectOptions::new();
    if options.wait {
        connect = connect.retry_on_initial_connect();
    }
    if let Some(path) = &options.creds {
        connect = connect
            .credentials_file(path)
            .await
            .map_err(unreadable(path))?;
    }
    if let Some(path) = &options.nkey {
        let seed = tokio::fs::read_to_string(path)
            .await
            .map_err(unreadable(path))?;
        connect = connect.nkey(seed.trim().to_owned());
    }
    if let Some(token) = &options.token {
        connect = connect.token(token.clone());
    }
    if let (Some(user), Some(password)) = (&options.user, &options.password) {
        connect = connect.user_and_password(user.clone(), password.clone());
    }
    if let (Some(cert), Some(key)) = (&options.cert, &options.key) {
        connect = connect.add_client_certificate(cert.clone(), key.clone());
    }
    if let Some(ca) = &options.ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    Ok(connect)
}

/// The first connection to the only server needs no delay, and no timer, whose shortest is a
/// millisecond: most of what connecting costs a runner. All else is left to [`reconnect_delay`].
fn at_once(
    only: ServerAddr,
) -> impl Fn(Vec<Server>, async_nats::ServerInfo) -> std::future::Ready<Option<ReconnectToServer>> {
    let first = AtomicBool::new(true);
    move |_, _| {
        let now = first.swap(false, Ordering::Relaxed);
        std::future::ready(now.then(|| ReconnectToServer {
            addr: only.clone(),
            delay: Some(Duration::ZERO),
        }))
    }
}

/// At once at first, then doubling up to two seconds.
fn reconnect_delay(attempts: usize) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        n => Duration::from_millis(50)
            .saturating_mul(1 << (n - 2).min(6))
            .min(Duration::from_secs(2)),
    }
}

fn note(sender: &watch::Sender<Link>, event: &async_nats::Event) {
    match event {
        async_nats::Event::Connected => sender.send_modify(|link| link.up = true),
        async_nats::Event::Disconnected => {
            tracing::warn!("lost the connection to NATS");
            sender.send_modify(|link| {
                *link = Link {
                    up: false,
                    losses: link.losses + 1,
                }
            });
        }
        other => tracing::debug!(event = %other, "NATS"),
    }
}

fn explain(url: String, error: &async_nats::ConnectError) -> ConnectError {
    let reason = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    match error.kind() {
        ConnectErrorKind::ServerParse => ConnectError::Address { url },
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Credentials { url }
        }
        ConnectErrorKind::Tls => ConnectError::Tls { url, reason },
        ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable { url, reason },
    }
}
