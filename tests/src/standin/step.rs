//! What the stand-in answers to one request.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::Request;

/// One answer.
#[derive(Debug, Clone)]
pub struct Step {
    pub(super) kind: Kind,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// The model says something, and ends its turn.
    Text(String),
    /// The model calls tools, one or more at once.
    Tools(Vec<(String, Value)>),
    /// The service refuses.
    Status {
        code: u16,
        kind: &'static str,
        message: String,
        headers: Vec<(String, String)>,
    },
    /// The service takes the request and never answers.
    Hang,
    /// The stream ends in the middle of an answer.
    Cut,
    /// What a function makes of the request.
    By(By),
}

#[derive(Clone)]
pub(super) struct By(Arc<dyn Fn(&Request) -> Step + Send + Sync>);

impl fmt::Debug for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("By")
    }
}

impl Step {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            input_tokens: 100,
            output_tokens: 10,
        }
    }

    /// The model says `text`, and ends its turn.
    pub fn text(text: &str) -> Self {
        Self::of(Kind::Text(text.to_owned()))
    }

    /// The model says this many bytes of text, in lines.
    pub fn big_text(bytes: usize) -> Self {
        let line = "All work and no play makes Jack a dull boy, says the model.\n";
        Self::of(Kind::Text(line.repeat(bytes.div_ceil(line.len()))))
    }

    /// The model calls a tool.
    pub fn tool(name: &str, input: Value) -> Self {
        Self::tools([(name, input)])
    }

    /// The model calls several tools at once.
    pub fn tools<const N: usize>(calls: [(&str, Value); N]) -> Self {
        let calls = calls.map(|(name, input)| (name.to_owned(), input));
        Self::of(Kind::Tools(calls.into()))
    }

    /// The model runs a line in its shell.
    pub fn bash(line: &str) -> Self {
        let input = serde_json::json!({ "command": line, "description": "run a line" });
        Self::tool("Bash", input)
    }

    /// The model calls a tool of Air-Executor's own MCP server.
    pub fn air(tool: &str, input: Value) -> Self {
        Self::tool(&format!("mcp__air__{tool}"), input)
    }

    /// The service refuses with this status.
    pub fn status(code: u16, message: &str) -> Self {
        let kind = match code {
            400 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            _ => "api_error",
        };
        Self::of(Kind::Status {
            code,
            kind,
            message: message.to_owned(),
            headers: Vec::new(),
        })
    }

    /// The key's limit is reached; `retry_after` in seconds, where the service tells it.
    pub fn rate_limited(retry_after: Option<u32>) -> Self {
        let step = Self::status(429, "This request would exceed your rate limit");
        match retry_after {
            Some(seconds) => step.header("retry-after", &seconds.to_string()),
            None => step,
        }
    }

    /// The service takes the request and never answers.
    pub fn hang() -> Self {
        Self::of(Kind::Hang)
    }

    /// The stream ends in the middle of an answer.
    pub fn cut() -> Self {
        Self::of(Kind::Cut)
    }

    /// What a function makes of the request.
    pub fn by(make: impl Fn(&Request) -> Self + Send + Sync + 'static) -> Self {
        Self::of(Kind::By(By(Arc::new(make))))
    }

    /// The same, with a further header where it is a refusal.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Kind::Status { headers, .. } = &mut self.kind {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same, said to have taken these tokens; else 100 and 10.
    #[must_use]
    pub fn tokens(mut self, input: u64, output: u64) -> Self {
        (self.input_tokens, self.output_tokens) = (input, output);
        self
    }

    /// The answer itself, where a function makes it.
    pub(super) fn resolved(self, request: &Request) -> Self {
        match &self.kind {
            Kind::By(By(make)) => make(request).resolved(request),
            _ => self,
        }
    }
}
