//! Images: fetching one that the daemon does not have.

use std::time::Duration;

use air_protocol::limits::START_WITHIN_CONTAINER;
use bollard::Docker as Client;
use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt as _;

use super::link::{Fault, Link};

/// What is left of the time from claim to start for the start itself.
const START: Duration = Duration::from_secs(30);

/// Fetches an image. What comes of it is known when it is over: many answers come before.
pub(super) async fn pull(link: &Link, daemon: &Client, image: &str) -> Result<(), Fault> {
    tracing::info!(image, "fetching an image");
    let options = CreateImageOptions {
        from_image: Some(with_tag(image)),
        ..CreateImageOptions::default()
    };
    let fetching = async {
        let mut answers = std::pin::pin!(daemon.create_image(Some(options), None, None));
        while let Some(answer) = answers.next().await {
            answer.map_err(|error| link.fault(error).of_pull(image))?;
        }
        Ok(())
    };
    let within = START_WITHIN_CONTAINER.saturating_sub(START);
    match tokio::time::timeout(within, fetching).await {
        Ok(fetched) => fetched,
        Err(_) => {
            let text = format!("it was not there after {} s", within.as_secs());
            Err(Fault::Refused(text).of_pull(image))
        }
    }
}

/// A name without tag or digest means `latest`, as on the command line; the daemon would take all tags there are.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_meant_where_nothing_is_said() {
        assert_eq!(with_tag("debian"), "debian:latest");
        assert_eq!(with_tag("host:5000/a/b"), "host:5000/a/b:latest");
        for full in ["debian:12", "host:5000/a/b:1", "debian@sha256:00"] {
            assert_eq!(with_tag(full), full);
        }
    }
}
