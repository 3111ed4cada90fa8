//! The keys of a backend of the kind `webhook`.

use std::time::Duration;

use air_manager::WebhookOptions;

use super::Remark;
use crate::verbs::manager::section::Section;

/// Time for an answer, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Shortest and longest such time.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Reads them.
pub(super) fn read(section: &mut Section<'_>) -> Result<WebhookOptions, Remark> {
    let url = section.url("url")?;
    let secret = section.secret("secret_file", "secret_env")?;
    Ok(WebhookOptions {
        url: section.must(url, "url", "the address of the receiver")?,
        stop_url: section.url("stop_url")?,
        secret: section.must(secret, "secret_file", "the file with the secret")?,
        headers: section.pairs("headers")?,
        timeout: section.span("timeout", TIMEOUTS)?.unwrap_or(TIMEOUT),
        nats_url: section.text("nats_url")?,
        images: section.flag("images")?,
        resources: section.flag("resources")?,
    })
}

#[cfg(test)]
mod tests {
    use air_manager::{Infrastructure, Secret};

    use super::super::parse;
    use super::*;

    #[test]
    fn it_has_its_address_its_secret_and_its_defaults() {
        let text = "[[backend]]\nkind = 'webhook'\nurl = 'https://h/x'\nsecret_file = '/s'\nheaders = { x-a = 'b' }";
        let (config, warnings) = parse(text).unwrap();
        assert_eq!(warnings, []);
        let webhook = WebhookOptions {
            url: "https://h/x".into(),
            stop_url: None,
            secret: Secret::File("/s".into()),
            headers: vec![("x-a".into(), "b".into())],
            timeout: Duration::from_secs(30),
            nats_url: None,
            images: false,
            resources: false,
        };
        let found = &config.backends[0].infrastructure;
        assert_eq!(*found, Infrastructure::Webhook(webhook));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (keys, told) in [
            (
                "url = 'http://h'",
                "1:1: the backend has no `secret_file`; write the file",
            ),
            ("secret_file = 's'", "1:1: the backend has no `url`"),
            (
                "url = 'http://h'\nsecret_file = 's'\nheaders = { a = 1 }",
                "5:17: `headers`",
            ),
        ] {
            let remark = parse(&format!("[[backend]]\nkind = 'webhook'\n{keys}")).unwrap_err();
            let found = format!("{}: {}", remark.place, remark.text);
            assert!(found.starts_with(told), "{keys}: {found}");
        }
    }
}
