//! What libFuzzer told of each target, as one table.

use std::fmt::Write as _;
use std::time::Duration;

/// What became of one target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) target: String,
    inputs: u64,
    per_second: u64,
    edges: u64,
    corpus: u64,
    /// What went wrong, and the input that shows it.
    fault: Option<String>,
}

impl Row {
    /// From what libFuzzer wrote to stderr.
    pub(crate) fn of(target: &str, told: &str, succeeded: bool, took: Duration) -> Self {
        let stat = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
        };
        let inputs = stat("stat::number_of_executed_units:");
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self {
            target: target.to_owned(),
            inputs,
            per_second: inputs.saturating_mul(1000) / millis.max(1),
            edges: last_number(told, " cov: "),
            corpus: last_number(told, " corp: "),
            fault: (!succeeded).then(|| fault(told)),
        }
    }

    /// The fault in words, if there is one.
    pub(crate) fn told(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        Some(format!("{}: {fault}", self.target))
    }
}

/// The number behind the last `mark`.
fn last_number(told: &str, mark: &str) -> u64 {
    let rest = told.rsplit_once(mark).map_or("", |(_, rest)| rest);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// The panic, or what libFuzzer calls it, and the file with the input.
fn fault(told: &str) -> String {
    let behind = |mark: &str| {
        let mut lines = told.lines().skip_while(|line| !line.contains(mark));
        let line = lines.next()?;
        Some((line, lines.next().unwrap_or_default()))
    };
    let what = match (behind(" panicked at "), behind("ERROR: libFuzzer: ")) {
        (Some((place, text)), _) => format!(
            "{text} ({})",
            place
                .rsplit_once("panicked at ")
                .map_or(place, |(_, at)| at)
        ),
        (None, Some((line, _))) => line.to_owned(),
        (None, None) => "it ended without a word".to_owned(),
    };
    let file = behind("Test unit written to ").map(|(line, _)| line);
    let file = file.and_then(|line| line.rsplit_once("written to "));
    format!(
        "{what}\n    {}",
        file.map_or("no input was kept", |(_, file)| file)
    )
}

/// The table, with a sum.
pub(crate) fn of(rows: &[Row]) -> String {
    let mut table = "| target | inputs | inputs/s | edges reached | corpus | result |\n\
        | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for row in rows {
        let result = if row.fault.is_some() {
            "FAULT"
        } else {
            "no fault"
        };
        let (inputs, rate) = (grouped(row.inputs), grouped(row.per_second));
        // Writing to a text cannot fail.
        let _ = writeln!(
            table,
            "| {} | {inputs} | {rate} | {} | {} | {result} |",
            row.target, row.edges, row.corpus
        );
    }
    let inputs = rows.iter().map(|row| row.inputs).sum();
    let faults = rows.iter().filter(|row| row.fault.is_some()).count();
    let _ = writeln!(
        table,
        "| all | {} | | | | {faults} faults |",
        grouped(inputs)
    );
    table
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_run_has_its_numbers() {
        let told = "#2\tINITED cov: 12 ft: 13 corp: 1/1b\n#9 DONE   cov: 345 ft: 400 corp: 67/12Kb\n\
            stat::number_of_executed_units: 1234567\n";
        let row = Row::of("names", told, true, Duration::from_secs(2));
        assert_eq!(row.told(), None);
        let table = of(&[row]);
        assert!(
            table.contains("| names | 1,234,567 | 617,283 | 345 | 67 | no fault |"),
            "{table}"
        );
        assert!(
            table.ends_with("| all | 1,234,567 | | | | 0 faults |\n"),
            "{table}"
        );
    }

    #[test]
    fn a_fault_is_told_with_its_input() {
        let told = "thread '<unnamed>' (12) panicked at fuzz/src/x.rs:1:2:\nit is bad\nstack backtrace:\n\
            ==1== ERROR: libFuzzer: deadly signal\nartifact_prefix='f/'; Test unit written to f/crash-1\n";
        let row = Row::of("names", told, false, Duration::ZERO);
        assert_eq!(
            row.told().unwrap(),
            "names: it is bad (fuzz/src/x.rs:1:2:)\n    f/crash-1"
        );
        assert!(
            Row::of("names", "", false, Duration::ZERO)
                .told()
                .unwrap()
                .contains("without a word")
        );
    }
}
