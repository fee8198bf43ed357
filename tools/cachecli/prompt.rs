//! The interactive prompt: the commands of the command line, one per line.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::runtime::Runtime;

use crate::args::Line;
use crate::commands::Session;

/// Reads lines until `quit` or the end of input. The exit code is that of the
/// last command, so that a script on standard input can tell.
pub fn run(runtime: &Runtime, session: &mut Session) -> ExitCode {
    let mut editor = match DefaultEditor::new() {
        Ok(editor) => editor,
        Err(error) => {
            eprintln!("cachecli: no prompt: {error}");
            return 2.into();
        }
    };
    let history = history_file();
    // There is none at the first start.
    let _ = history.as_ref().map(|file| editor.load_history(file));
    let mut exit = ExitCode::SUCCESS;
    if std::io::stdin().is_terminal() {
        println!("help lists the commands, exit leaves.");
    }
    loop {
        match editor.readline("cache> ") {
            Ok(line) if matches!(line.trim(), "quit" | "exit") => break,
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                exit = execute(runtime, session, &line);
            }
            // Ctrl-C gives up the line, not the session.
            Err(ReadlineError::Interrupted) => {}
            Err(_) => break,
        }
    }
    let _ = history.map(|file| editor.save_history(&file));
    exit
}

fn history_file() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    Some(PathBuf::from(home).join(".cachecli_history"))
}

fn execute(runtime: &Runtime, session: &mut Session, line: &str) -> ExitCode {
    let output = session.options.output;
    let Some(words) = words(line) else {
        eprintln!("cachecli: a quote is not closed");
        return 2.into();
    };
    match Line::try_parse_from(words) {
        Ok(line) => match runtime.block_on(session.run(line.command)) {
            Ok(shown) => shown.print(output),
            Err(failure) => failure.print(output),
        },
        Err(error) => {
            let _ = error.print();
            if error.use_stderr() { 2.into() } else { ExitCode::SUCCESS }
        }
    }
}

/// Splits at white space; quotes of either kind keep it. `None` if one is open.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_white_space() {
        let split = |line| words(line).map(|words| words.join("|"));
        assert_eq!(split("set k  v "), Some("set|k|v".to_owned()));
        assert_eq!(split("set k 'a \"b' \"\""), Some("set|k|a \"b|".to_owned()));
        assert_eq!(split("set k 'a"), None);
    }
}
