//! The event of a request: a CloudEvent in structured mode, signed as Standard Webhooks are. Pure.
//!
//! Structured, so that the signature is over all of it. The same order makes the same id, and so the same event but for its time.

use air_protocol::time::Time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::backend::Order;

/// A runner is to be started.
const START: &str = "air.runner.start";
/// A runner is to end its task and itself.
const STOP: &str = "air.runner.stop";
/// What a secret of Standard Webhooks begins with.
const SECRET_PREFIX: &str = "whsec_";
/// Least and most bytes of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// An event that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// Its id: whoever gets it twice does nothing the second time.
    pub(super) id: String,
    /// Its bytes: what is signed is what is sent.
    pub(super) body: Vec<u8>,
}

impl Event {
    /// Has a runner started; `env` is where NATS is.
    pub(super) fn start(order: &Order, system: &str, env: &[(String, String)], now: Time) -> Self {
        let claim = order.env().into_iter();
        let claim = claim.map(|(name, value)| (name.to_owned(), value));
        let env: serde_json::Map<String, Value> = env
            .iter()
            .cloned()
            .chain(claim)
            .map(|(name, value)| (name, value.into()))
            .collect();
        let mut data = json!({
            "job": order.job, "seq": order.seq, "runner": order.runner, "fence": order.fence, "env": env,
        });
        if let Some(image) = &order.image {
            data["image"] = image.as_str().into();
        }
        if let Some(resources) = &order.resources {
            data["resources"] = json!(resources);
        }
        let about = format!("{}/{}", order.job, order.runner);
        Self::new(START, order.name(system), &about, data, now)
    }

    /// Has a runner end.
    pub(super) fn stop(runner: Uuid, now: Time) -> Self {
        let data = json!({ "runner": runner });
        Self::new(
            STOP,
            format!("air-stop-{runner}"),
            &runner.to_string(),
            data,
            now,
        )
    }

    fn new(kind: &str, id: String, subject: &str, data: Value, now: Time) -> Self {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "air-executor", "type": kind, "subject": subject,
            "time": now.to_string(), "datacontenttype": "application/json", "data": data,
        });
        Self {
            id,
            body: event.to_string().into_bytes(),
        }
    }

    /// The value of `webhook-signature` at this second since 1970.
    pub(super) fn signature(&self, secret: &Secret, second: u64) -> String {
        let mut signed = format!("{}.{second}.", self.id).into_bytes();
        signed.extend_from_slice(&self.body);
        let tag = ring::hmac::sign(&secret.0, &signed);
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    }
}

/// A secret that the receiver has as well.
pub(super) struct Secret(ring::hmac::Key);

impl Secret {
    /// Reads `whsec_` and 24 to 64 bytes in base64; none where it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
        let key = || ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &bytes);
        SECRET_BYTES.contains(&bytes.len()).then(|| Self(key()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            job: "j".parse().unwrap(),
            seq: 7,
            runner: Uuid::nil(),
            fence: 9,
            backend: "hook".into(),
            state: None,
            image: Some("debian:12".into()),
            resources: None,
        }
    }

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn a_signature_is_that_of_the_published_example() {
        let event = Event {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
            body: br#"{"test": 2432232314}"#.to_vec(),
        };
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            event.signature(&secret, 1_614_265_330),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_has_its_prefix_and_its_length() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![1; bytes]));
        for (text, good) in [
            (of(24), true),
            (of(64), true),
            (of(23), false),
            (of(65), false),
            (STANDARD.encode([1; 32]), false),
            ("whsec_no base64".to_owned(), false),
        ] {
            assert_eq!(Secret::parse(&text).is_some(), good, "{text}");
        }
    }

    #[test]
    fn an_event_has_the_claim_and_nothing_else() {
        let env = [("NATS_URL".to_owned(), "nats://n:4222".to_owned())];
        let event = Event::start(&order(), "s", &env, Time::from_millis(0));
        let read: Value = serde_json::from_slice(&event.body).unwrap();
        let nil = Uuid::nil().to_string();
        let expected = json!({
            "specversion": "1.0", "id": order().name("s"), "source": "air-executor", "type": "air.runner.start",
            "subject": format!("j/{nil}"), "time": "1970-01-01T00:00:00.000Z", "datacontenttype": "application/json",
            "data": {
                "job": "j", "seq": 7, "runner": nil, "fence": 9, "image": "debian:12",
                "env": {
                    "NATS_URL": "nats://n:4222", "AIR_JOB": "j", "AIR_SEQ": "7", "AIR_RUNNER": nil, "AIR_FENCE": "9",
                    "AIR_BACKEND": "hook",
                },
            },
        });
        assert_eq!(read, expected);
        assert_eq!(
            event.id,
            Event::start(&order(), "s", &[], Time::from_millis(5)).id
        );
        let stop = Event::stop(Uuid::nil(), Time::from_millis(0));
        assert_ne!(stop.id, event.id);
    }
}
