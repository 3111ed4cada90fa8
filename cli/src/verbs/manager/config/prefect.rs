//! The keys of a backend of the kind `prefect`.

use std::time::Duration;

use air_manager::{PrefectAuth, PrefectOptions};
use air_protocol::limits::{POLL_MAX, POLL_MIN};

use super::Remark;
use crate::verbs::manager::section::Section;

/// The deployment, unless it has another name.
const DEPLOYMENT: &str = "air-runner";
/// Ends are told to people and places; nothing waits for them.
const POLL: Duration = Duration::from_secs(2);

/// Reads them.
pub(super) fn read(section: &mut Section<'_>) -> Result<PrefectOptions, Remark> {
    let (url, work_pool) = (section.url("url")?, section.text("work_pool")?);
    let deployment = section.text("deployment")?;
    Ok(PrefectOptions {
        url: section.must(
            url,
            "url",
            "the address of Prefect's API, such as http://127.0.0.1:4200/api",
        )?,
        auth: auth(section)?,
        work_pool: section.must(work_pool, "work_pool", "the name of a work pool")?,
        deployment: deployment.unwrap_or_else(|| DEPLOYMENT.to_owned()),
        poll: section.span("poll", (POLL_MIN, POLL_MAX))?.unwrap_or(POLL),
        nats_url: section.text("nats_url")?,
        images: section.flag("images")?,
        job_variables: section.object("job_variables")?,
    })
}

fn auth(section: &mut Section<'_>) -> Result<Option<PrefectAuth>, Remark> {
    let key = section.secret("api_key_file", "api_key_env")?;
    let basic = section.secret("auth_file", "auth_env")?;
    match (key, basic) {
        (Some(_), Some(_)) => {
            let text =
                "the backend has both an API key and a user with a password; write one of them";
            Err(section.wrong(text.to_owned()))
        }
        (key, basic) => Ok(key.map(PrefectAuth::Key).or(basic.map(PrefectAuth::Basic))),
    }
}

#[cfg(test)]
mod tests {
    use air_manager::{Infrastructure, Secret};

    use super::super::parse;
    use super::*;

    #[test]
    fn it_has_its_address_its_secret_and_its_defaults() {
        let text = "[[backend]]\nkind = 'prefect'\nurl = 'https://p/api'\nwork_pool = 'w'\nauth_env = 'E'\n\
            job_variables = { cpu = 1, env = { A = 'b' }, list = [1.5, true] }";
        let (config, warnings) = parse(text).unwrap();
        assert_eq!(warnings, []);
        let variables = serde_json::json!({ "cpu": 1, "env": { "A": "b" }, "list": [1.5, true] });
        let prefect = PrefectOptions {
            url: "https://p/api".into(),
            auth: Some(PrefectAuth::Basic(Secret::Env("E".into()))),
            work_pool: "w".into(),
            deployment: "air-runner".into(),
            poll: Duration::from_secs(2),
            nats_url: None,
            images: false,
            job_variables: variables.as_object().unwrap().clone(),
        };
        let found = &config.backends[0].infrastructure;
        assert_eq!(*found, Infrastructure::Prefect(prefect));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (keys, told) in [
            ("url = 'x'", "3:7: `url` is `x`; write http://HOST:PORT"),
            (
                "url = 'http://h/api'",
                "1:1: the backend has no `work_pool`",
            ),
            (
                "url = 'http://h'\napi_key_env = 'A'\nauth_file = 'b'",
                "1:1: the backend has both an API key and a user",
            ),
            (
                "url = 'http://h'\nwork_pool = 'p'\njob_variables = { at = 07:32:00 }",
                "5:17: `job_variables`",
            ),
            (
                "url = 'http://h'\nwork_pool = 'p'\npoll = '2m'",
                "5:8: `poll` is 2m; write a time from 1s to 1m",
            ),
        ] {
            let remark = parse(&format!("[[backend]]\nkind = 'prefect'\n{keys}")).unwrap_err();
            let found = format!("{}: {}", remark.place, remark.text);
            assert!(found.starts_with(told), "{keys}: {found}");
        }
    }
}
