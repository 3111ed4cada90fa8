//! One sample: what managers and server hold at a moment, by the kernel and by the server's monitoring.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use air_tests::{Installation, Program};
use serde_json::Value;

use crate::proc;

/// What is held, by name; in the order of the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(pub(crate) Vec<(String, u64)>);

impl Sample {
    /// Looks at everything.
    pub(crate) async fn take(air: &mut Installation) -> Self {
        let mut sample = Self::default();
        let managers: Vec<_> = air.managers.iter().map(Program::pid).collect();
        let most = |of: &dyn Fn(u32) -> u64| managers.iter().map(|pid| of(*pid)).max().unwrap();
        sample.add(
            "manager KiB",
            most(&|pid| proc::status(pid, "VmRSS:").unwrap()),
        );
        sample.add("manager files", most(&|pid| proc::files(pid)));
        sample.add(
            "manager threads",
            most(&|pid| proc::status(pid, "Threads:").unwrap()),
        );
        let children = most(&|pid| proc::children(&[pid]).len() as u64);
        sample.add("manager children", children);
        let server = air.server.program().pid();
        sample.add("server KiB", proc::status(server, "VmRSS:").unwrap());
        sample.add("server files", proc::files(server));
        sample.add("server threads", proc::status(server, "Threads:").unwrap());
        let monitor = monitor(air);
        let connections = ask(&monitor, "/varz")["connections"].as_u64().unwrap();
        sample.add("connections", connections);
        let all = ask(&monitor, "/jsz?streams=true&consumers=true");
        let account = &all["account_details"][0]["stream_detail"];
        let mut streams: Vec<_> = account.as_array().unwrap().iter().collect();
        streams.sort_by_key(|stream| stream["name"].to_string());
        let count = |stream: &&Value| stream["state"]["consumer_count"].as_u64().unwrap();
        sample.add("consumers", streams.iter().map(count).sum());
        for stream in streams {
            let name = stream["name"].as_str().unwrap();
            for what in ["messages", "bytes"] {
                let value = stream["state"][what].as_u64().unwrap();
                sample.add(&format!("{name} {what}"), value);
            }
        }
        let specs = air.nats.all_specs().await.unwrap();
        let live = specs.iter().filter(|entry| entry.value.is_some()).count();
        sample.add("specs", live as u64);
        let records = records(air, crate::load::ENDLESS).await;
        sample.add("records, endless job", records);
        sample
    }

    fn add(&mut self, name: &str, value: u64) {
        self.0.push((name.to_owned(), value));
    }
}

/// How many records a job has.
pub(crate) async fn records(air: &Installation, job: &str) -> u64 {
    let subject = air.nats.names().job_results(&job.parse().unwrap());
    let depth = air.nats.depth(&subject).await.unwrap();
    depth.messages.values().sum()
}

/// Where the server's monitoring listens, by the file that it writes.
fn monitor(air: &Installation) -> String {
    let folder = air.server.folder().join("ports");
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    let ports: Value = serde_json::from_str(&text).unwrap();
    let url = ports["monitoring"][0].as_str().unwrap();
    url.trim_start_matches("http://").to_owned()
}

/// What the monitoring says to a path.
fn ask(monitor: &str, path: &str) -> Value {
    let mut stream = TcpStream::connect(monitor).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}
