//! `KEY=VALUE` pairs, applied to a spec.

use air_protocol::codec::{self, nearest};
use air_protocol::spec::{SPEC_FIELDS, Spec};
use serde_json::{Map, Value};

use crate::Failure;

/// Keys that hold keys of their own.
const PARENTS: [(&str, &[&str]); 6] = [
    ("retry", &["max", "backoff", "max_backoff"]),
    ("resources", &["cpu", "memory"]),
    (
        "budget",
        &["usd", "tokens", "turns", "tasks", "depth", "wall"],
    ),
    (
        "claude",
        &["model", "max_turns", "max_budget_usd", "bypass_permissions"],
    ),
    ("env", &[]),
    ("labels", &[]),
];
/// Keys whose values are no text.
const NUMBERS: [&str; 10] = [
    "v",
    "retry.max",
    "budget.usd",
    "budget.tokens",
    "budget.turns",
    "budget.tasks",
    "budget.depth",
    "claude.max_turns",
    "claude.max_budget_usd",
    "claude.bypass_permissions",
];

/// The spec with these pairs.
///
/// # Errors
/// A key or value that is none.
pub(super) fn apply(spec: &Spec, pairs: &[String]) -> Result<Spec, Failure> {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    for pair in pairs {
        let Some((key, text)) = pair.split_once('=') else {
            return Err(Failure::Usage(format!("`{pair}`: write KEY=VALUE")));
        };
        let root = value
            .as_object_mut()
            .ok_or_else(|| Failure::Usage("the spec is no object".to_owned()))?;
        put(root, key.trim(), text)?;
    }
    let bytes = serde_json::to_vec(&value).unwrap_or_default();
    codec::decode_spec(&bytes).map_err(|error| Failure::Usage(error.to_string()))
}

fn put(root: &mut Map<String, Value>, key: &str, text: &str) -> Result<(), Failure> {
    let (parent, child) = match key.split_once('.') {
        Some((parent, child)) => (parent, Some(child)),
        None => (key, None),
    };
    known(parent, SPEC_FIELDS, "")?;
    let below = PARENTS.iter().find(|(name, _)| *name == parent);
    match (child, below) {
        (None, Some(_)) if text.is_empty() => drop(root.remove(parent)),
        (None, Some(_)) => {
            let value = serde_json::from_str(text).map_err(|_| {
                Failure::Usage(format!(
                    "`{key}` has keys of its own; write {parent}.NAME=VALUE, or JSON"
                ))
            })?;
            root.insert(parent.to_owned(), value);
        }
        (None, None) if text.is_empty() => drop(root.remove(key)),
        (None, None) => drop(root.insert(key.to_owned(), scalar(key, text))),
        (Some(_), None) => {
            return Err(Failure::Usage(format!("`{parent}` has no keys of its own")));
        }
        (Some(child), Some((_, names))) => {
            if !names.is_empty() {
                known(child, names, &format!("{parent}."))?;
            }
            let map = root
                .entry(parent)
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(map) = map else {
                return Ok(());
            };
            let free = names.is_empty();
            if text.is_empty() && !free {
                map.remove(child);
            } else {
                let value = if free {
                    Value::from(text)
                } else {
                    scalar(key, text)
                };
                map.insert(child.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn known(word: &str, words: &[&str], prefix: &str) -> Result<(), Failure> {
    if words.contains(&word) {
        return Ok(());
    }
    let hint = nearest(word, words).map(|near| format!("; did you mean `{prefix}{near}`?"));
    Err(Failure::Usage(format!(
        "unknown key `{prefix}{word}`{}",
        hint.unwrap_or_default()
    )))
}

/// Text, but where only a number or a truth value makes sense.
fn scalar(key: &str, text: &str) -> Value {
    let json = || serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    if key == "paused" || NUMBERS.contains(&key) {
        json()
    } else {
        Value::from(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[&str]) -> Result<Spec, String> {
        let pairs: Vec<_> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        apply(&Spec::default(), &pairs).map_err(|failure| failure.to_string())
    }

    #[test]
    fn keys_are_set_and_unset() {
        let spec = set(&[
            "timeout=2h",
            "retry.max=5",
            "paused=true",
            "env.N=1",
            "resources.cpu=2",
            "labels.a=b=c",
        ])
        .unwrap();
        let text = r#"{"v":1,"paused":true,"on_failure":"stop","timeout":"2h","retry":{"max":5},"env":{"N":"1"},"resources":{"cpu":"2"},"labels":{"a":"b=c"},"wire":"json"}"#;
        assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        assert_eq!(
            set(&["timeout=2h", "timeout=", "env.N=1", "env="]).unwrap(),
            Spec::default()
        );
        assert_eq!(set(&[r#"env={"A":"b"}"#]).unwrap().env["A"], "b");
        let budget = set(&["budget.usd=1.5", "budget.depth=3", "budget.wall=2h"]);
        let budget = budget.unwrap().budget.unwrap();
        assert_eq!(budget.usd, Some("1.5".parse().unwrap()));
        assert_eq!((budget.depth, budget.tasks), (Some(3), None));
    }

    #[test]
    fn wrong_keys_and_values_are_told() {
        assert_eq!(
            set(&["pause=true"]).unwrap_err(),
            "unknown key `pause`; did you mean `paused`?"
        );
        assert_eq!(
            set(&["retry.maxx=1"]).unwrap_err(),
            "unknown key `retry.maxx`; did you mean `retry.max`?"
        );
        assert!(set(&["paused"]).unwrap_err().contains("KEY=VALUE"));
        assert!(set(&["timeout.x=1"]).unwrap_err().contains("no keys"));
        assert!(set(&["timeout=soon"]).unwrap_err().contains("`timeout`"));
        assert!(set(&["retry.max=x"]).unwrap_err().contains("`retry.max`"));
        assert!(set(&["paused=maybe"]).unwrap_err().contains("`paused`"));
        assert!(set(&["on_failure=go"]).unwrap_err().contains("on_failure"));
        assert!(set(&["lease_ttl=1s"]).unwrap_err().contains("3s"));
    }
}
