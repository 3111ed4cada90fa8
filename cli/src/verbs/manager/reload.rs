//! SIGHUP: the limits in the file are read anew. What else changed there needs a manager that is started anew.

use air_manager::{BackendOptions, Limits};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Args, config, in_all};
use crate::Failure;

/// New limits, as they are told.
type Told = Option<watch::Receiver<Limits>>;

/// Listens to SIGHUP, where there is a file, in a future that has no end; gives it, and where it tells of new limits.
///
/// # Errors
/// Signals cannot be had.
pub(super) fn listen(
    args: &Args,
    backends: &[BackendOptions],
) -> Result<(impl Future<Output = ()> + use<>, Told), Failure> {
    let heard = match &args.config {
        Some(file) => {
            let signals = signal(SignalKind::hangup()).map_err(Failure::io("listen to signals"))?;
            Some((file.clone(), signals))
        }
        None => None,
    };
    let (tell, told) = watch::channel(Limits::default());
    let told = heard.is_some().then_some(told);
    let (most, backends) = (args.max_runners, backends.to_vec());
    let listening = async move {
        let Some((file, mut signals)) = heard else {
            return std::future::pending().await;
        };
        while signals.recv().await.is_some() {
            match config::read(&file) {
                Ok((new, warnings)) => {
                    for warning in warnings {
                        tracing::warn!("{warning}");
                    }
                    let all = in_all(most, &new);
                    let _ = tell.send(limits(all, &backends, &new.backends));
                }
                Err(error) => tracing::error!("{error}; the limits stay as they are"),
            }
        }
        std::future::pending().await
    };
    Ok((listening, told))
}

/// The limits of the backends that run, as the file has them now; one that is gone from it keeps its own.
fn limits(all: usize, running: &[BackendOptions], new: &[BackendOptions]) -> Limits {
    let now = |one: &BackendOptions| {
        let new = new.iter().find(|other| other.name == one.name);
        let most = new.map_or(one.runners_max, |new| new.runners_max);
        Some((one.name.clone(), most?))
    };
    Limits {
        runners_max: all,
        of: running.iter().filter_map(now).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, runners_max: Option<usize>) -> BackendOptions {
        BackendOptions {
            name: name.to_owned(),
            runners_max,
            ..BackendOptions::process()
        }
    }

    #[test]
    fn only_limits_of_backends_that_run_change() {
        let running = [
            backend("a", Some(1)),
            backend("b", Some(2)),
            backend("c", Some(3)),
        ];
        let new = [
            backend("a", Some(9)),
            backend("c", None),
            backend("d", Some(4)),
        ];
        let limits = limits(7, &running, &new);
        assert_eq!(limits.runners_max, 7);
        let of = [("a".to_owned(), 9), ("b".to_owned(), 2)];
        assert_eq!(limits.of, of.into());
    }
}
