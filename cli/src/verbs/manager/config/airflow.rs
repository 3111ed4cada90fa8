//! The keys of a backend of the kind `airflow`.

use std::time::Duration;

use air_manager::{AirflowLogin, AirflowOptions};
use air_protocol::limits::{POLL_MAX, POLL_MIN};

use super::Remark;
use crate::verbs::manager::section::Section;

/// The DAG of the provider package.
const DAG: &str = "air_runner";
/// Airflow itself looks at its runs once a second.
const POLL: Duration = Duration::from_secs(2);

/// Reads them.
pub(super) fn read(section: &mut Section<'_>) -> Result<AirflowOptions, Remark> {
    let url = section.url("url")?.ok_or_else(|| {
        let text = "the backend has no `url`; write that of Airflow's API server, such as http://airflow:8080";
        section.wrong(text.to_owned())
    })?;
    Ok(AirflowOptions {
        url,
        dag: dag(section)?,
        login: login(section)?,
        poll: section.span("poll", (POLL_MIN, POLL_MAX))?.unwrap_or(POLL),
        kubernetes: section.flag("kubernetes")?,
    })
}

fn dag(section: &mut Section<'_>) -> Result<String, Remark> {
    let dag = section.text("dag")?.unwrap_or_else(|| DAG.to_owned());
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if dag.is_empty() || dag.len() > 250 || !dag.chars().all(known) {
        let text =
            format!("`{dag}` is no id of a DAG; use 1 to 250 of the characters A-Z a-z 0-9 _ - .");
        return Err(section.wrong_value("dag", text));
    }
    Ok(dag)
}

fn login(section: &mut Section<'_>) -> Result<AirflowLogin, Remark> {
    let token = section.secret("token_file", "token_env")?;
    let password = section.secret("password_file", "password_env")?;
    match (token, section.text("user")?, password) {
        (Some(token), None, None) => Ok(AirflowLogin::Token(token)),
        (None, Some(user), Some(password)) => Ok(AirflowLogin::Password(user, password)),
        _ => {
            let text = "the backend does not say who asks Airflow; write `user` and `password_file` (or `password_env`), or `token_file` (or `token_env`) alone";
            Err(section.wrong(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use air_manager::{Infrastructure, Secret};

    use super::super::parse;
    use super::*;

    const WHO: &str = "user = 'air'\npassword_file = '/run/secret'";

    fn read(lines: &str) -> Result<AirflowOptions, String> {
        let text = format!("[[backend]]\nkind = 'airflow'\n{lines}\n");
        let (config, _) =
            parse(&text).map_err(|wrong| format!("{}: {}", wrong.place, wrong.text))?;
        match config.backends.into_iter().next().unwrap().infrastructure {
            Infrastructure::Airflow(options) => Ok(options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let options = read(&format!("url = 'http://a:8080'\n{WHO}")).unwrap();
        let password = Secret::File("/run/secret".into());
        assert_eq!(
            options,
            AirflowOptions {
                url: "http://a:8080".into(),
                dag: "air_runner".into(),
                login: AirflowLogin::Password("air".into(), password),
                poll: POLL,
                kubernetes: false,
            }
        );
        let lines = "url = 'https://a/below'\ndag = 'mine'\ntoken_env = 'T'\npoll = '10s'\nkubernetes = true";
        let options = read(lines).unwrap();
        assert_eq!(options.login, AirflowLogin::Token(Secret::Env("T".into())));
        assert_eq!((options.poll.as_secs(), options.kubernetes), (10, true));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (lines, told) in [
            ("", "1:1: the backend has no `url`"),
            ("url = 'a:8080'", "3:7: `url` is `a:8080`; write http"),
            ("url = 'http://u:p@a'", "3:7: `url` has credentials in it"),
            ("url = 'http://a'", "1:1: the backend does not say who asks"),
            (
                "url = 'http://a'\nuser = 'u'\ntoken_file = 't'",
                "1:1: the backend does not say who asks",
            ),
            (
                "url = 'http://a'\ntoken_file = 't'\ntoken_env = 'T'",
                "5:13: there are both `token_file` and `token_env`",
            ),
            (
                "url = 'http://a'\ndag = 'a/b'",
                "4:7: `a/b` is no id of a DAG",
            ),
            (
                &format!("url = 'http://a'\n{WHO}\npoll = '100ms'"),
                "6:8: `poll` is 100ms; write a time from 1s to 1m",
            ),
            (
                &format!("url = 'http://a'\n{WHO}\npoll = 'x'"),
                "6:8: `poll` is `x`; write a time such as 1s",
            ),
        ] {
            let found = read(lines).unwrap_err();
            assert!(found.starts_with(told), "{lines}: {found}");
        }
    }
}
