//! Requests to infrastructures that speak HTTP: JSON in, JSON out, within a time, and what a failure means.
//!
//! No credential is in a text that is told, nor in anything that `Debug` shows. [`super::polled`] is what such
//! infrastructures have in common beyond single requests.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response};
use serde_json::Value;

use super::SpawnError;

/// Time for an answer, from the connection on.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Time for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Characters of a complaint that are told.
const COMPLAINT_MAX: usize = 400;

/// An infrastructure at an address.
#[derive(Debug)]
pub(crate) struct Http {
    /// What people call it, such as `Airflow`.
    what: &'static str,
    /// Without a slash at its end.
    base: String,
    /// Or why there is none.
    client: Result<Client, String>,
    /// Time for an answer, from the connection on.
    within: Duration,
}

/// Something that was asked over HTTP failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No answer came, or none that can be understood.
    Away(String),
    /// It answered with this status and this text.
    Answer(u16, String),
}

/// A word that nobody may see: read anew at each use, so that it can be changed while a manager runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Secret {
    /// The text of this file, without white space around it.
    File(PathBuf),
    /// The value of this variable of the environment.
    Env(String),
}

impl Secret {
    /// Reads it.
    ///
    /// # Errors
    /// It is not there, or empty.
    pub(crate) fn read(&self) -> Result<String, Fault> {
        let (word, place) = match self {
            Self::File(path) => {
                let place = format!("the file {}", path.display());
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| Fault::Away(format!("{place}: {error}")))?;
                (text.trim().to_owned(), place)
            }
            Self::Env(name) => {
                let place = format!("the variable {name}");
                (std::env::var(name).unwrap_or_default(), place)
            }
        };
        if word.is_empty() {
            return Err(Fault::Away(format!("{place} holds no credential")));
        }
        Ok(word)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Env(name) => write!(f, "the variable {name}"),
        }
    }
}

/// Where NATS is, for a runner whose environment others may see: no credentials, which its surroundings have.
pub(crate) fn public_env(
    nats: &air_nats::Options,
    url: Option<&str>,
    system: &str,
) -> Vec<(String, String)> {
    let mut env = vec![("AIR_SYSTEM".to_owned(), system.to_owned())];
    for (name, value) in nats.to_env() {
        match (name, url) {
            ("NATS_URL", Some(url)) => env.push((name.to_owned(), url.to_owned())),
            // An address may have credentials in it: the surroundings know it as well.
            ("NATS_URL", None) if value.contains('@') => {}
            ("NATS_URL" | "AIR_PREFIX", _) => env.push((name.to_owned(), value)),
            _ => {}
        }
    }
    env
}

impl Http {
    pub(crate) fn new(what: &'static str, base: &str) -> Self {
        // The provider that the connection to NATS has as well; whoever was first is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            // A credential stays with whom it was meant for.
            .redirect(Policy::none())
            .build();
        Self {
            what,
            base: base.trim_end_matches('/').to_owned(),
            client: client.map_err(|error| with_causes(&error)),
            within: ANSWER_WITHIN,
        }
    }

    /// The same, with another time for an answer.
    pub(crate) fn answering_within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// The address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Asks for `path`, which begins with a slash and may have a query. `authorization` is the whole value of the header.
    ///
    /// # Errors
    /// [`Fault`], also for any answer but one of success. One without a body is `null`.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, Fault> {
        let asked = self.ask_for_status(method, path, authorization, body).await;
        asked.map(|(_, answer)| answer)
    }

    /// The same, with the status of the answer.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn ask_for_status(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Fault> {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            let value = HeaderValue::try_from(authorization);
            let mut value =
                value.map_err(|_| self.away("its credential is no text of one line"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let body = body.map(|body| body.to_string().into_bytes());
        let (status, text) = self.exchange(method, path, headers, body).await?;
        if text.is_empty() {
            return Ok((status, Value::Null));
        }
        let answer = serde_json::from_slice(&text);
        let answer = answer.map_err(|_| self.away("it answers with what is no JSON"))?;
        Ok((status, answer))
    }

    /// Posts a body as it is to the very address; gives the status of the answer, whatever it says.
    ///
    /// # Errors
    /// [`Fault`], also for any answer but one of success.
    pub(crate) async fn post(
        &self,
        headers: impl IntoIterator<Item = (String, String)>,
        body: Vec<u8>,
    ) -> Result<u16, Fault> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let wrong = |_| self.away(&format!("`{name}` is no header of one line"));
            let value = HeaderValue::try_from(value).map_err(|_| wrong(()))?;
            let name = HeaderName::try_from(&name).map_err(|_| wrong(()))?;
            all.insert(name, value);
        }
        let answer = self.exchange(Method::POST, "", all, Some(body)).await;
        answer.map(|(status, _)| status)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<(u16, Vec<u8>), Fault> {
        let client = self.client.as_ref().map_err(|why| self.away(why))?;
        let mut request = client.request(method, format!("{}{path}", self.base));
        request = request.headers(headers).timeout(self.within);
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await;
        let answer = answer.map_err(|error| self.away(&with_causes(&error.without_url())))?;
        let status = answer.status();
        let text = self.text_of(answer).await?;
        if !status.is_success() {
            return Err(Fault::Answer(status.as_u16(), complaint(&text)));
        }
        Ok((status.as_u16(), text))
    }

    async fn text_of(&self, mut answer: Response) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if text.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                    text.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    return Err(self.away(&format!(
                        "its answer is larger than {ANSWER_BYTES_MAX} bytes"
                    )));
                }
                Ok(None) => return Ok(text),
                Err(error) => return Err(self.away(&with_causes(&error.without_url()))),
            }
        }
    }

    fn away(&self, why: &str) -> Fault {
        Fault::Away(format!("{} at {}: {why}", self.what, self.base))
    }
}

impl Fault {
    /// The same, with what was to be done before its text.
    pub(crate) fn to(self, done: &str) -> Self {
        match self {
            Self::Away(text) => Self::Away(format!("{done}: {text}")),
            Self::Answer(status, text) => Self::Answer(status, format!("{done}: {text}")),
        }
    }

    /// Whether the answer speaks of what was asked for. All else any other order would meet as well: credentials that do not
    /// count, an address with nothing behind it, too many requests, a server that fails.
    fn is_about_the_order(&self) -> bool {
        match self {
            Self::Away(_) => false,
            Self::Answer(401 | 403 | 404 | 405 | 407 | 408 | 425 | 429, _) => false,
            Self::Answer(status, _) => (400..500).contains(status),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(text) => f.write_str(text),
            Self::Answer(status, text) => write!(f, "{text} (status {status})"),
        }
    }
}

impl From<Fault> for SpawnError {
    fn from(fault: Fault) -> Self {
        if fault.is_about_the_order() {
            Self::Refused(fault.to_string())
        } else {
            Self::Unavailable(fault.to_string())
        }
    }
}

/// What a body says is wrong, in one line: the `detail` or `message` of an object where there is one.
fn complaint(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let parsed: Option<Value> = serde_json::from_str(&text).ok();
    let found = parsed.as_ref().and_then(|value| {
        let names = ["detail", "message", "exception_message"];
        names.iter().find_map(|name| value.get(name))
    });
    let said = match found {
        Some(Value::String(said)) => said.clone(),
        Some(other) => other.to_string(),
        None => text.into_owned(),
    };
    let line: Vec<&str> = said.split_whitespace().collect();
    let line: String = line.join(" ").chars().take(COMPLAINT_MAX).collect();
    if line.is_empty() {
        "it says no more".to_owned()
    } else {
        line
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
pub(in crate::backend) mod tests;
