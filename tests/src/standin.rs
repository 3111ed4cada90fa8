//! A stand-in of the Messages API on loopback: answers the real Claude Code CLI by scripts of the test.
//!
//! A [`Standin`] listens on a free port. A script belongs to a *marker*: a text that stands in the first prompt of a
//! session, by which requests find their script; so one stand-in serves many agents at once, and a session that is gone
//! on with stays in its script. Each request takes the next [`Step`]; the last one is repeated for ever.
//! [`Standin::requests`] gives what was asked. Start at [`Standin::start`], [`Standin::script`] and [`Step`].

mod http;
mod step;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use step::Step;

/// A stand-in; it stops listening when dropped.
#[derive(Debug)]
pub struct Standin {
    url: String,
    desk: Arc<Mutex<Desk>>,
    listens: JoinHandle<()>,
}

/// What the CLI asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Marker of the script that answered; empty where none did.
    pub marker: String,
    /// Id of the session.
    pub session: String,
    /// The key that came along.
    pub key: String,
    /// The whole body.
    pub body: Value,
}

#[derive(Debug, Default)]
struct Desk {
    scripts: Vec<Script>,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Script {
    marker: String,
    steps: Vec<Step>,
    /// Whether each session begins with the first step; else all sessions share one count.
    each_session: bool,
    taken: BTreeMap<String, usize>,
}

impl Standin {
    /// Starts to listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let desk = Arc::<Mutex<Desk>>::default();
        let listens = tokio::spawn(http::serve(listener, desk.clone()));
        Self { url, desk, listens }
    }

    /// What stands in `ANTHROPIC_BASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers sessions whose first prompt holds `marker`, whichever session asks next.
    pub fn script(&self, marker: &str, steps: impl Into<Vec<Step>>) {
        self.add(marker, steps.into(), false);
    }

    /// The same, but each session begins with the first step: for many agents with one prompt.
    pub fn script_of_each_session(&self, marker: &str, steps: impl Into<Vec<Step>>) {
        self.add(marker, steps.into(), true);
    }

    fn add(&self, marker: &str, steps: Vec<Step>, each_session: bool) {
        assert!(!steps.is_empty(), "a script has a step at least");
        let mut desk = self.desk.lock().unwrap();
        // The newest script of a marker counts.
        desk.scripts.retain(|script| script.marker != marker);
        desk.scripts.push(Script {
            marker: marker.to_owned(),
            steps,
            each_session,
            taken: BTreeMap::new(),
        });
    }

    /// What was asked so far under a marker, in order.
    pub fn requests(&self, marker: &str) -> Vec<Request> {
        let desk = self.desk.lock().unwrap();
        let ours = desk.requests.iter().filter(|one| one.marker == marker);
        ours.cloned().collect()
    }

    /// How often was asked so far, under whatever marker.
    pub fn count(&self) -> usize {
        self.desk.lock().unwrap().requests.len()
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.listens.abort();
    }
}

impl Request {
    /// The texts of the conversation: `(role, text)`; calls of tools and their results as JSON.
    pub fn messages(&self) -> Vec<(String, String)> {
        let all = self.body["messages"].as_array().into_iter().flatten();
        all.map(|message| {
            let role = message["role"].as_str().unwrap_or_default().to_owned();
            let text = match &message["content"] {
                Value::String(text) => text.clone(),
                Value::Array(parts) => {
                    let part = |part: &Value| match &part["text"] {
                        Value::String(text) => text.clone(),
                        _ => part.to_string(),
                    };
                    parts.iter().map(part).collect::<Vec<_>>().join("\n")
                }
                other => other.to_string(),
            };
            (role, text)
        })
        .collect()
    }

    /// The whole conversation as one text.
    pub fn text(&self) -> String {
        let messages = self.messages().into_iter();
        let line = |(role, text)| format!("{role}: {text}");
        messages.map(line).collect::<Vec<_>>().join("\n")
    }

    /// Names of the tools that the model is offered.
    pub fn tools(&self) -> Vec<String> {
        let all = self.body["tools"].as_array().into_iter().flatten();
        all.filter_map(|tool| tool["name"].as_str().map(str::to_owned))
            .collect()
    }
}

impl Desk {
    /// The next step for a request, which is noted. A request that is no streaming one is the CLI's second try after a
    /// stream that was cut: it takes the next step like any other.
    fn next(&mut self, session: String, key: String, body: Value) -> Step {
        let mut request = Request {
            marker: String::new(),
            session,
            key,
            body,
        };
        let first = request
            .messages()
            .into_iter()
            .find(|(role, _)| role == "user");
        let prompt = first.map(|(_, text)| text).unwrap_or_default();
        let script = (self.scripts.iter_mut()).find(|script| prompt.contains(&script.marker));
        let step = match script {
            Some(script) => {
                request.marker.clone_from(&script.marker);
                let who = if script.each_session {
                    request.session.as_str()
                } else {
                    ""
                };
                let taken = script.taken.entry(who.to_owned()).or_default();
                let at = (*taken).min(script.steps.len() - 1);
                *taken += 1;
                script.steps[at].clone()
            }
            None => Step::status(400, "the stand-in has no script for this prompt"),
        };
        let step = step.resolved(&request);
        self.requests.push(request);
        step
    }
}
