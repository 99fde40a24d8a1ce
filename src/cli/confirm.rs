//! Asking before something is lost. A shell over the terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use super::failure::Failure;

/// Asks `question` and wants the word `yes`; `given` is `-y`. False: the user thought better of it. Refused where nobody can be
/// asked.
pub(crate) fn confirmed(question: &str, given: bool) -> Result<bool, Failure> {
    if given {
        return Ok(true);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::failed(format!("{question} nobody can be asked: standard input is no terminal"))
            .hint("-y goes on without asking"));
    }
    let answer = ask(&mut stdin.lock(), &mut io::stderr(), &format!("{question} Type `yes` to go on: "))?;
    Ok(answer == "yes")
}

/// Asks for a line.
pub(crate) fn ask(input: &mut impl BufRead, output: &mut impl Write, question: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("cannot ask: {error}"));
    output.write_all(question.as_bytes()).map_err(failed)?;
    output.flush().map_err(failed)?;
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_line_without_its_ends() {
        let mut asked = Vec::new();
        assert_eq!(ask(&mut &b" yes \nno\n"[..], &mut asked, "sure? ").unwrap(), "yes");
        assert_eq!(asked, b"sure? ");
        assert_eq!(ask(&mut &b""[..], &mut asked, "").unwrap(), "");
        assert!(confirmed("Delete?", true).unwrap());
    }
}
