//! What subcommands print. Whoever reads it may have gone, as `head` does: then nothing more is printed, and the command ends as it would
//! have. Output that is lost for any other reason, such as a full disk, makes it fail.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

use super::Failure;

static LOST: OnceLock<Failure> = OnceLock::new();

/// Prints a line of results. False if nobody reads them any more.
pub(super) fn line(words: impl Display) -> bool {
    is_read(&writeln!(io::stdout(), "{words}"))
}

/// Prints results that have their own line ends. False if nobody reads them any more.
pub(super) fn text(words: impl Display) -> bool {
    is_read(&write!(io::stdout(), "{words}").and_then(|()| io::stdout().flush()))
}

/// Prints a line beside the results. Nothing is lost if nobody sees it.
pub(super) fn aside(words: impl Display) {
    writeln!(io::stderr(), "{words}").ok();
}

/// The same without a line end, for what is written over.
pub(super) fn progress(words: impl Display) {
    write!(io::stderr(), "{words}").and_then(|()| io::stderr().flush()).ok();
}

/// A message without the operating system's numbers, which follow its words: `(os error 111)`.
pub(super) fn without_numbers(message: &str) -> String {
    let mut parts = message.split(" (os error ");
    let mut words = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => words.push_str(rest),
            _ => words.extend([" (os error ", part]),
        }
    }
    words
}

/// Whether what was written to stdout can still be read.
pub(super) fn is_read(written: &io::Result<()>) -> bool {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| Failure::other(format!("the output cannot be written: {error}")));
    }
    written.is_ok()
}

/// Why some of the output is missing.
pub(super) fn lost() -> Option<&'static Failure> {
    LOST.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_operating_system_are_left_out() {
        let refused = io::Error::from_raw_os_error(111);
        let said = format!("a: {refused}; b: {}", io::Error::from_raw_os_error(2));
        assert_eq!(without_numbers(&said), "a: Connection refused; b: No such file or directory");
        for words in ["nothing (os error x) of it", "cut (os error 1"] {
            assert_eq!(without_numbers(words), words);
        }
    }
}
