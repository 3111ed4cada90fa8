//! `airx init`: makes the streams and buckets, or compares those that exist.

use air_nats::topology::{Found, Outcome};
use serde_json::{Value, json};

use crate::app::App;
use crate::table::Table;
use crate::{Exit, Failure};

/// Options of `airx init`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nothing that exists is changed. Exit code 4 when something differs from what is needed."
)]
pub struct Args {
    /// Servers that keep a copy of each stream, in a cluster [default: 1 for what is made; as it is for what exists]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: Option<u8>,
}

/// Makes what is missing, and says what it found.
///
/// # Errors
/// There is no connection, or the streams cannot be made.
pub async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let nats = app.nats().await?;
    let found = nats.init(args.replicas.map(usize::from), true).await?;
    let values: Vec<_> = found.iter().map(value).collect();
    app.console.data(&values, || {
        let mut table = Table::new(&["NAME", "FOUND", "PURPOSE", "DIFFERENCES"]);
        for one in &found {
            let (word, differences) = outcome(&one.outcome);
            table.row([
                one.name.clone(),
                word.into(),
                one.purpose.into(),
                differences.join("; "),
            ]);
        }
        app.console.table(&table)
    })?;
    let differing: Vec<_> = found.iter().filter(|one| is_wrong(&one.outcome)).collect();
    for one in &differing {
        app.console.warn(format_args!(
            "{} is not as it should be; {}",
            one.name,
            mend(one)
        ));
    }
    Ok(if differing.is_empty() {
        Exit::Done
    } else {
        Exit::Nats
    })
}

/// How to mend a stream that differs.
pub fn mend(found: &Found) -> String {
    match &found.outcome {
        Outcome::Differs(_) => format!(
            "nothing was changed: set it right with `nats stream edit {}`, or choose other names with --prefix",
            found.name
        ),
        Outcome::Missing => "make it with `airx init`".to_owned(),
        Outcome::Created | Outcome::Same => String::new(),
    }
}

fn value(found: &Found) -> Value {
    let (word, differences) = outcome(&found.outcome);
    json!({ "name": found.name, "found": word, "purpose": found.purpose, "differences": differences })
}

/// The word for an outcome, and the differences.
pub fn outcome(outcome: &Outcome) -> (&'static str, &[String]) {
    match outcome {
        Outcome::Created => ("created", &[]),
        Outcome::Same => ("same", &[]),
        Outcome::Differs(differences) => ("differs", differences),
        Outcome::Missing => ("missing", &[]),
    }
}

fn is_wrong(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Differs(_) | Outcome::Missing)
}
