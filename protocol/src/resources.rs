//! Resources of a task: what it may use, as numbers with units.
//!
//! The texts are those of Kubernetes: `500m` is half a processor, `512Mi` are 512 · 1024² bytes.

use serde::{Deserialize, Serialize};

use crate::quote::quote;

/// Resources of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPUs, such as `500m` or `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Memory, such as `512Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

/// A quantity that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceRule {
    /// Not an amount of processors.
    #[error(
        "`resources.cpu` is `{}`; write processors such as 2 or 0.5, or thousandths such as 500m",
        quote(.0)
    )]
    Cpu(String),
    /// Not an amount of memory.
    #[error(
        "`resources.memory` is `{}`; write bytes, or a number with a unit such as 512Mi, 2Gi or 500M",
        quote(.0)
    )]
    Memory(String),
}

/// Units of memory, and their bytes.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

impl Resources {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first quantity that is none.
    pub fn check(&self) -> Result<(), ResourceRule> {
        if let Some(cpu) = &self.cpu
            && self.cpu_millis().is_none()
        {
            return Err(ResourceRule::Cpu(cpu.clone()));
        }
        if let Some(memory) = &self.memory
            && self.memory_bytes().is_none()
        {
            return Err(ResourceRule::Memory(memory.clone()));
        }
        Ok(())
    }

    /// Thousandths of a processor; none where it does not say, or says no amount.
    pub fn cpu_millis(&self) -> Option<u64> {
        let text = self.cpu.as_deref()?;
        let millis = match text.strip_suffix('m') {
            Some(millis) => scaled(millis, 0)?,
            None => scaled(text, 3)?,
        };
        (millis > 0).then_some(millis)
    }

    /// Bytes of memory; none where it does not say, or says no amount.
    pub fn memory_bytes(&self) -> Option<u64> {
        let text = self.memory.as_deref()?;
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (number, factor) = unit.map_or((text, 1), |(unit, factor)| {
            (&text[..text.len() - unit.len()], *factor)
        });
        let thousandths = u128::from(scaled(number, 3)?) * u128::from(factor);
        let bytes = thousandths.div_ceil(1000);
        u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
    }
}

/// A decimal number of at most `places` places, times ten to their number.
fn scaled(text: &str, places: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || (text.contains('.') && part.len() > places) {
        return None;
    }
    let part = if places == 0 { "" } else { part };
    format!("{whole}{part:0<places$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(text: &str) -> Option<u64> {
        let cpu = Some(text.to_owned());
        Resources { cpu, memory: None }.cpu_millis()
    }

    fn memory(text: &str) -> Option<u64> {
        let memory = Some(text.to_owned());
        Resources { cpu: None, memory }.memory_bytes()
    }

    #[test]
    fn processors_are_counted_in_thousandths() {
        let good = ["2", "500m", "0.5", "1.25", "0.001"].map(cpu);
        assert_eq!(good, [2000, 500, 500, 1250, 1].map(Some));
        for bad in [
            "", "m", "0", "0m", "-1", "1.2345", "1.5m", ".5", "5.", "two", "1 ", "1e3",
        ] {
            assert_eq!(cpu(bad), None, "{bad}");
        }
    }

    #[test]
    fn memory_has_units() {
        for (text, bytes) in [
            ("1024", 1024),
            ("0.001Ki", 2),
            ("512Mi", 512 << 20),
            ("1.5Gi", 3 << 29),
            ("2Ti", 2 << 40),
            ("2k", 2000),
            ("500M", 500_000_000),
            ("0.5G", 500_000_000),
            ("3T", 3_000_000_000_000),
        ] {
            assert_eq!(memory(text), Some(bytes), "{text}");
        }
        for bad in [
            "",
            "Mi",
            "0",
            "0Gi",
            "512mb",
            "512 Mi",
            "-1",
            "1.5555Gi",
            "99999999999Ti",
        ] {
            assert_eq!(memory(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_named() {
        let of = |cpu: Option<&str>, memory: Option<&str>| {
            let (cpu, memory) = (cpu.map(str::to_owned), memory.map(str::to_owned));
            Resources { cpu, memory }
                .check()
                .map_err(|rule| rule.to_string())
        };
        assert_eq!(of(None, None), Ok(()));
        assert_eq!(of(Some("2"), Some("1Gi")), Ok(()));
        assert!(of(Some("lots"), None).unwrap_err().contains("`lots`"));
        assert!(of(Some("2"), Some("1GB")).unwrap_err().contains("512Mi"));
    }
}
