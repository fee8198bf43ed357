//! How results look: for people, for programs, and as bare bytes.

use std::io::Write;
use std::process::ExitCode;

use raftcache::request::Item;
use serde_json::{Value, json};

use crate::args::Output;

/// A result in each of the ways it can be printed.
#[derive(Debug)]
pub struct Shown {
    table: Vec<u8>,
    raw: Vec<u8>,
    json: Value,
    exit: u8,
}

impl Shown {
    /// A text that is printed as it is, a line end behind it.
    pub fn text(text: impl Into<String>, json: Value) -> Self {
        let line = format!("{}\n", text.into()).into_bytes();
        Self { table: line.clone(), raw: line, json, exit: 0 }
    }

    /// The bytes of a value: nothing is added to them in raw output.
    pub fn value(item: &Item) -> Self {
        let mut table = item.value.to_vec();
        table.push(b'\n');
        let json = item_json(item);
        Self { table, raw: item.value.to_vec(), json, exit: 0 }
    }

    /// Rows under a header, in columns; raw output has tabs and no header.
    pub fn rows(header: &[&str], rows: &[Vec<String>], json: Value) -> Self {
        let raw: String = rows.iter().map(|row| row.join("\t") + "\n").collect();
        Self { table: columns(header, rows).into_bytes(), raw: raw.into_bytes(), json, exit: 0 }
    }

    /// The same with lines below it, for people only.
    pub fn with_note(mut self, note: &str) -> Self {
        self.table.extend_from_slice(note.as_bytes());
        self
    }

    /// The same with other raw output.
    pub fn with_raw(mut self, raw: Vec<u8>) -> Self {
        self.raw = raw;
        self
    }

    /// The same with another exit code.
    pub fn exiting(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Prints it. A reader that went away (`cachecli … | head`) is no failure.
    pub fn print(&self, output: Output) -> ExitCode {
        let mut stdout = std::io::stdout().lock();
        let _ = match output {
            Output::Table => stdout.write_all(&self.table),
            Output::Raw => stdout.write_all(&self.raw),
            Output::Json => writeln!(stdout, "{}", self.json),
        };
        let _ = stdout.flush();
        self.exit.into()
    }
}

/// A value as JSON: text if it is, else hex digits.
pub fn item_json(item: &Item) -> Value {
    match std::str::from_utf8(&item.value) {
        Ok(text) => json!({ "value": text, "version": item.version }),
        Err(_) => {
            let hex: String = item.value.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "value_hex": hex, "version": item.version })
        }
    }
}

fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let all = || std::iter::once(&header).chain(rows);
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells.map(|(cell, &width)| format!("{cell:width$}")).collect();
        line.join("  ").trim_end().to_owned() + "\n"
    };
    all().map(line).collect()
}

/// `1.5 MiB` and the like.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "2".to_owned()]];
        assert_eq!(columns(&["id", "n"], &rows), "id    n\na     1\nlong  2\n");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(3 << 19), "1.5 MiB");
    }
}
