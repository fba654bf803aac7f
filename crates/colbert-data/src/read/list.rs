//! A whole file that is one JSON list: its members, one at a time, so that memory holds one of them.
//!
//! Owns finding where a member ends. Does not parse members.

use std::io::BufRead;

use super::input::Input;
use super::lines::{LONGEST_LINE, text};
use crate::error::{DataError, Place};

/// Members of a JSON list.
#[derive(Debug)]
pub(crate) struct List {
    input: Input,
    member: Vec<u8>,
    number: u64,
    line: u64,
    longest: u64,
    is_open: bool,
    is_done: bool,
}

impl List {
    /// `input` stands before the opening bracket.
    pub(crate) fn of(input: Input) -> Self {
        Self { input, member: Vec::new(), number: 0, line: 1, longest: LONGEST_LINE, is_open: false, is_done: false }
    }

    /// Goes to the next member; `false` at the end of the list.
    pub(crate) fn advance(&mut self) -> Result<bool, DataError> {
        if self.is_done {
            return Ok(false);
        }
        let next = self.skip_white_space()?;
        if !self.is_open {
            self.take(next);
            self.is_open = true;
            if self.skip_white_space()? == Some(b']') {
                return self.close();
            }
        } else {
            match next {
                Some(b',') => self.take(next),
                Some(b']') => return self.close(),
                other => return Err(self.broken("a comma or the closing bracket of the list", other)),
            }
            self.skip_white_space()?;
        }
        self.read_member()?;
        Ok(true)
    }

    /// The member as it stands in the file.
    pub(crate) fn text(&self) -> Result<&str, DataError> {
        text(&self.member, || self.place())
    }

    pub(crate) fn place(&self) -> Place {
        Place::Record { path: self.input.path().to_owned(), record: self.number }
    }

    /// Up to the comma or bracket that ends the member.
    fn read_member(&mut self) -> Result<(), DataError> {
        self.member.clear();
        self.number += 1;
        let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
        loop {
            let chunk = self.input.peek()?;
            if chunk.is_empty() {
                return Err(self.broken("the closing bracket of the list", None));
            }
            let mut end = None;
            for (index, &byte) in chunk.iter().enumerate() {
                if in_text {
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = true,
                        b'"' => in_text = false,
                        _ => {}
                    }
                    continue;
                }
                match byte {
                    b'"' => in_text = true,
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' | b',' if depth == 0 => {
                        end = Some(index);
                        break;
                    }
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
            }
            let length = end.unwrap_or(chunk.len());
            let taken = chunk[..length].to_vec();
            self.line += taken.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.member.extend_from_slice(&taken);
            if self.member.len() as u64 > self.longest {
                let source =
                    format!("at line {}: member {} has more than {} bytes", self.line, self.number, self.longest);
                return Err(DataError::Damaged {
                    path: self.input.path().to_owned(),
                    what: "JSON",
                    source: source.into(),
                });
            }
            self.input.reader.consume(length);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    fn close(&mut self) -> Result<bool, DataError> {
        self.take(Some(b']'));
        self.is_done = true;
        match self.skip_white_space()? {
            None => Ok(false),
            other => Err(self.broken("nothing after the closing bracket of the list", other)),
        }
    }

    fn take(&mut self, byte: Option<u8>) {
        self.input.reader.consume(usize::from(byte.is_some()));
    }

    fn skip_white_space(&mut self) -> Result<Option<u8>, DataError> {
        loop {
            match self.input.peek()?.first().copied() {
                Some(byte) if byte.is_ascii_whitespace() => {
                    self.line += u64::from(byte == b'\n');
                    self.take(Some(byte));
                }
                other => return Ok(other),
            }
        }
    }

    /// The list itself is broken: no later member can be found.
    fn broken(&self, expected: &str, found: Option<u8>) -> DataError {
        let found = found.map_or("the end of the file".to_owned(), |byte| format!("`{}`", char::from(byte)));
        let source =
            format!("at line {}, after {} members: expected {expected}, found {found}", self.line, self.number);
        DataError::Damaged { path: self.input.path().to_owned(), what: "JSON", source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(content: &str) -> Result<Vec<String>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        std::fs::write(&path, content).unwrap();
        let mut list = List::of(Input::open(&path, "a list").unwrap());
        let mut members = Vec::new();
        while list.advance()? {
            members.push(list.text()?.trim().to_owned());
        }
        Ok(members)
    }

    #[test]
    fn members_are_split_at_the_outer_commas_alone() {
        let content = " [ [\"a, b\", 1],\n {\"x\": [2, \"]}\\\"\"]} , \"\\\\\", 3 ]\n";
        assert_eq!(members(content).unwrap(), ["[\"a, b\", 1]", "{\"x\": [2, \"]}\\\"\"]}", "\"\\\\\"", "3"]);
        assert!(members("[]").unwrap().is_empty() && members("[ \n]").unwrap().is_empty());
        let long = format!("[\"{}\",1]", "x, ".repeat(60_000));
        assert_eq!(members(&long).unwrap()[0].len(), 180_002);
    }

    #[test]
    fn a_member_without_an_end_is_refused_before_it_fills_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        std::fs::write(&path, "[\"0123\",\n\"01234\"]").unwrap();
        let mut list = List { longest: 6, ..List::of(Input::open(&path, "a list").unwrap()) };
        assert!(list.advance().unwrap());
        let message = list.advance().unwrap_err().to_string();
        assert!(message.contains("at line 2: member 2 has more than 6 bytes"), "{message}");
    }

    #[test]
    fn a_list_that_breaks_off_says_where() {
        for (content, part) in [
            ("[1,\n2", "line 2, after 2 members: expected the closing bracket of the list, found the end"),
            ("[\"a\nb", "line 2, after 1 members: expected the closing bracket"),
            ("[1] x", "nothing after the closing bracket of the list, found `x`"),
            ("[1}2]", "a comma or the closing bracket of the list, found `}`"),
        ] {
            let message = members(content).unwrap_err().to_string();
            assert!(message.contains(part), "{content}: {message}");
        }
    }
}
