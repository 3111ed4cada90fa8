//! Logging in: a token that is renewed when Airflow does not take it any more.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::AirflowLogin;
use crate::backend::http::{Fault, Http};

/// Who asks.
pub(super) struct Login {
    who: AirflowLogin,
    token: Mutex<Option<String>>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("who", &self.who)
            .finish_non_exhaustive()
    }
}

impl Login {
    pub(super) fn new(who: AirflowLogin) -> Self {
        Self {
            who,
            token: Mutex::default(),
        }
    }

    /// Asks, and once more with another token where this one does not count: Airflow says 403 as well as 401 to one that is old.
    pub(super) async fn ask(
        &self,
        http: &Http,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Fault> {
        let token = self.token(http, None).await?;
        let asked = http.ask(method.clone(), path, Some(&token), body).await;
        if !matches!(asked, Err(Fault::Answer(401 | 403, _))) {
            return asked;
        }
        let other = self.token(http, Some(&token)).await?;
        if other == token {
            return asked;
        }
        http.ask(method, path, Some(&other), body).await
    }

    /// The token that there is, unless it is this one: the value of a header.
    async fn token(&self, http: &Http, stale: Option<&str>) -> Result<String, Fault> {
        let mut token = self.token.lock().await;
        let known = token.as_ref().filter(|known| Some(known.as_str()) != stale);
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let new = match &self.who {
            AirflowLogin::Token(secret) => secret.read()?,
            AirflowLogin::Password(user, password) => {
                let body = json!({ "username": user, "password": password.read()? });
                let path = "/auth/token";
                let given = http.ask(Method::POST, path, None, Some(&body)).await;
                let given =
                    given.map_err(|fault| Fault::Away(format!("cannot log in: {fault}")))?;
                let word = given["access_token"].as_str();
                let none = || Fault::Away("cannot log in: Airflow gives no token".to_owned());
                word.ok_or_else(none)?.to_owned()
            }
        };
        let new = format!("Bearer {new}");
        *token = Some(new.clone());
        Ok(new)
    }
}
