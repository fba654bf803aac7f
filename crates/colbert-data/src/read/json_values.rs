//! JSON values of a file, one at a time, so that memory holds only one of them: the members of a list, or a sequence of
//! objects, each of which may span several lines.
//!
//! Owns finding where a value ends. Does not parse values.

use std::io::BufRead;

use super::input::Input;
use super::lines::{LONGEST_LINE, text};
use crate::error::{DataError, Place};

/// Values of a file.
#[derive(Debug)]
pub(crate) struct JsonValues {
    input: Input,
    /// Members of one list, not objects one after another.
    is_list: bool,
    /// Line that the latest value begins on.
    start: u64,
    member: Vec<u8>,
    number: u64,
    line: u64,
    longest: u64,
    is_open: bool,
    is_done: bool,
}

impl JsonValues {
    /// The members of one list; `input` stands before the opening bracket.
    pub(crate) fn list(input: Input) -> Self {
        Self {
            input,
            is_list: true,
            start: 1,
            member: Vec::new(),
            number: 0,
            line: 1,
            longest: LONGEST_LINE,
            is_open: false,
            is_done: false,
        }
    }

    /// Objects one after another.
    pub(crate) fn stream(input: Input) -> Self {
        Self { is_list: false, ..Self::list(input) }
    }

    /// Lines that the latest value takes.
    pub(crate) fn lines(&self) -> u64 {
        1 + self.line - self.start
    }

    pub(crate) fn is_list(&self) -> bool {
        self.is_list
    }

    /// Goes to the next value; `false` at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, DataError> {
        if self.is_done {
            return Ok(false);
        }
        if !self.is_list {
            return match self.skip_white_space()? {
                None => Ok(false),
                Some(b'{' | b'[') => self.read_member().map(|()| true),
                other => Err(self.broken("an object or a list", other)),
            };
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
            // A trailing comma, which JSON does not allow but people write.
            if self.skip_white_space()? == Some(b']') {
                return self.close();
            }
        }
        self.read_member()?;
        Ok(true)
    }

    /// The member as it stands in the file.
    pub(crate) fn text(&self) -> Result<&str, DataError> {
        text(&self.member, || self.place())
    }

    pub(crate) fn place(&self) -> Place {
        let path = self.input.path().to_owned();
        if self.is_list { Place::Record { path, record: self.number } } else { Place::Line { path, line: self.start } }
    }

    /// Up to the comma or bracket that ends the member of a list, or to the bracket that ends an object.
    fn read_member(&mut self) -> Result<(), DataError> {
        self.member.clear();
        self.number += 1;
        self.start = self.line;
        let is_list = self.is_list;
        let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
        loop {
            let chunk = self.input.peek()?;
            if chunk.is_empty() {
                let expected =
                    if is_list { "the closing bracket of the list" } else { "the closing bracket of the object" };
                return Err(self.broken(expected, None));
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
                    b']' | b'}' if depth == 1 && !is_list => {
                        end = Some(index + 1);
                        break;
                    }
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
        let mut list = JsonValues::list(Input::open(&path, "a list").unwrap());
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
        let mut list = JsonValues { longest: 6, ..JsonValues::list(Input::open(&path, "a list").unwrap()) };
        assert!(list.advance().unwrap());
        let message = list.advance().unwrap_err().to_string();
        assert!(message.contains("at line 2: member 2 has more than 6 bytes"), "{message}");
    }

    #[test]
    fn objects_follow_each_other_over_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pretty.json");
        std::fs::write(&path, "{\n \"a\": \"}\"\n}\n\n{\"b\": [{}]} {\"c\":\n1}").unwrap();
        let mut values = JsonValues::stream(Input::open(&path, "objects").unwrap());
        let mut found = Vec::new();
        while values.advance().unwrap() {
            found.push((values.text().unwrap().to_owned(), values.place().to_string(), values.lines()));
        }
        let lines: Vec<_> = found.iter().map(|(_, place, lines)| (place.rsplit_once(' ').unwrap().1, *lines)).collect();
        assert_eq!(lines, [("1", 3), ("5", 1), ("5", 2)]);
        assert_eq!(found[0].0, "{\n \"a\": \"}\"\n}");
        std::fs::write(&path, "{\"a\": 1").unwrap();
        let message = JsonValues::stream(Input::open(&path, "objects").unwrap()).advance().unwrap_err().to_string();
        assert!(message.contains("closing bracket of the object, found the end"), "{message}");
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
