//! What holds whatever the input is.

use std::fmt::{Debug, Display};

use air_protocol::limits::ERROR_CHARS_MAX;

/// An error is told on one line, and fits into a record.
pub(crate) fn is_told_well(error: &impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an error says nothing");
    assert!(
        !text.contains(char::is_control),
        "an error is not one line of text: {text:?}"
    );
    let chars = text.chars().count();
    assert!(
        chars <= ERROR_CHARS_MAX,
        "an error has {chars} characters: {text}"
    );
}

/// What was read is written and read again as the same value.
pub(crate) fn comes_back<T: PartialEq + Debug, E: Debug>(value: &T, again: Result<T, E>) {
    match again {
        Ok(again) => assert_eq!(*value, again, "it came back as another value"),
        Err(error) => panic!("{value:?}, which was read, is refused once written: {error:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "not one line")]
    fn an_error_of_two_lines_is_caught() {
        is_told_well(&"a\nb");
    }

    #[test]
    #[should_panic(expected = "another value")]
    fn a_value_that_changes_is_caught() {
        comes_back::<_, ()>(&1, Ok(2));
    }
}
