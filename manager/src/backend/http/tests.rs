//! Tests of requests, against a server that answers as it is told.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A server that gives these answers, one to each connection and as they are written here; gives its address, and what it
/// was asked.
pub(in crate::backend) async fn told(
    answers: Vec<String>,
) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let mut all = Vec::new();
        for answer in answers {
            let (mut link, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            let mut part = [0; 4096];
            while !String::from_utf8_lossy(&asked).contains("\r\n\r\n") {
                let read = link.read(&mut part).await.unwrap();
                asked.extend_from_slice(&part[..read]);
            }
            // Whoever has read enough may be gone.
            let _ = link.write_all(answer.as_bytes()).await;
            all.push(String::from_utf8(asked).unwrap());
        }
        all
    });
    (address, asked)
}

pub(in crate::backend) fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn ask(answer: &str) -> Result<Value, Fault> {
    let (address, _asked) = told(vec![answer.to_owned()]).await;
    let http = Http::new("It", &address);
    http.ask(Method::GET, "/x", None, None).await
}

fn is_unavailable(fault: Fault) -> bool {
    matches!(SpawnError::from(fault), SpawnError::Unavailable(_))
}

#[tokio::test]
async fn a_request_has_its_body_and_its_credential_and_an_answer_is_json() {
    let (address, asked) = told(vec![answer("201 Created", r#"{"id":"r"}"#)]).await;
    let http = Http::new("It", &format!("{address}/below/"));
    let body = json!({ "a": 1 });
    let found = http.ask(Method::POST, "/x?y=%25", Some("Bearer word"), Some(&body));
    assert_eq!(found.await.unwrap(), json!({ "id": "r" }));
    let asked = asked.await.unwrap()[0].to_lowercase();
    assert!(asked.starts_with("post /below/x?y=%25 http/1.1"), "{asked}");
    assert!(asked.contains("authorization: bearer word"), "{asked}");
    assert_eq!(
        ask(&answer("204 No Content", "")).await.unwrap(),
        Value::Null
    );
}

#[tokio::test]
async fn only_what_the_order_says_is_refused() {
    for status in [400, 409, 413, 422] {
        let fault = ask(&answer(&format!("{status} No"), r#"{"detail":"no such"}"#)).await;
        let error = SpawnError::from(fault.unwrap_err());
        let text = format!("no such (status {status})");
        assert_eq!(error, SpawnError::Refused(text));
    }
    for status in [301, 401, 403, 404, 408, 425, 429, 500, 503] {
        let fault = ask(&answer(&format!("{status} No"), "")).await.unwrap_err();
        assert!(is_unavailable(fault), "{status}");
    }
}

#[tokio::test]
async fn no_answer_and_one_that_is_none_are_somebody_who_is_away() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
    for answer in [&answer("200 OK", "<html>"), cut, ""] {
        let fault = ask(answer).await.unwrap_err();
        assert!(matches!(&fault, Fault::Away(text) if text.starts_with("It at http://127")));
        assert!(is_unavailable(fault));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let http = Http::new("It", &nobody);
    let fault = http.ask(Method::GET, "/x", None, None).await.unwrap_err();
    assert!(fault.to_string().contains("refused"), "{fault}");
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_to_it() {
    let body = format!("\"{}\"", "x".repeat(ANSWER_BYTES_MAX));
    let fault = ask(&answer("200 OK", &body)).await.unwrap_err();
    assert!(fault.to_string().contains("larger than"), "{fault}");
}

#[tokio::test]
async fn a_credential_that_is_no_header_is_told_without_it() {
    let http = Http::new("It", "http://127.0.0.1:9");
    let asked = http.ask(Method::GET, "/", Some("Bearer hid\nden"), None);
    let fault = asked.await.unwrap_err().to_string();
    assert!(
        fault.contains("credential") && !fault.contains("hid"),
        "{fault}"
    );
}

#[test]
fn a_credential_comes_from_a_file_or_a_variable() {
    let file = std::env::temp_dir().join(format!("air-secret-{}", std::process::id()));
    std::fs::write(&file, " word\n").unwrap();
    let secret = Secret::File(file.clone());
    assert_eq!(secret.read().unwrap(), "word");
    std::fs::write(&file, "\n").unwrap();
    let told = secret.read().unwrap_err().to_string();
    assert!(told.contains("holds no credential"), "{told}");
    std::fs::remove_file(&file).unwrap();
    let told = secret.read().unwrap_err().to_string();
    assert!(told.contains(&file.display().to_string()), "{told}");
    assert!(!Secret::Env("PATH".into()).read().unwrap().is_empty());
    assert!(Secret::Env("AIR_TEST_NO_SUCH".into()).read().is_err());
}

#[test]
fn a_complaint_is_the_line_that_matters() {
    assert_eq!(complaint(b""), "it says no more");
    assert_eq!(complaint(b"<p>\n  no </p>"), "<p> no </p>");
    assert_eq!(
        complaint(br#"{"detail":[{"msg":"x"}]}"#),
        r#"[{"msg":"x"}]"#
    );
    assert_eq!(complaint("x".repeat(5000).as_bytes()).len(), COMPLAINT_MAX);
}
