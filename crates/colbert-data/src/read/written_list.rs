//! Lists that stand in a cell as text: as JSON, or as Python prints them (pandas and numpy write such cells).

use serde_json::Value;

/// The members of a list that is written as text. The outer `None`: the text is not written like a list or an object;
/// the inner one: it is, and cannot be read as a list.
pub(super) fn written_list(text: &str) -> Option<Option<Vec<Value>>> {
    let text = text.trim();
    let inner = |open: char, close: char| text.strip_prefix(open)?.strip_suffix(close).map(str::trim);
    let begins = |letter: char| matches!(letter, '\'' | '"' | '{' | '[' | '-') || letter.is_ascii_digit();
    let is_list = inner('[', ']').is_some_and(|inner| inner.is_empty() || inner.starts_with(begins));
    let is_object = inner('{', '}').is_some_and(|inner| inner.starts_with(['\'', '"']));
    if !is_list && !is_object {
        return None;
    }
    Some(match serde_json::from_str(text) {
        Ok(Value::Array(members)) => Some(members),
        _ if is_list => inner('[', ']').and_then(python_texts),
        _ => None,
    })
}

/// Texts as Python prints them, separated by commas, or by white space as numpy does.
fn python_texts(inner: &str) -> Option<Vec<Value>> {
    let mut texts = Vec::new();
    let mut letters = inner.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace() || *letter == ',').is_some() {}
        let Some(quote) = letters.next() else { return Some(texts) };
        if !matches!(quote, '\'' | '"') {
            return None;
        }
        let mut text = String::new();
        loop {
            match letters.next()? {
                letter if letter == quote => break,
                '\\' => text.push(match letters.next()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'x' => code(&mut letters, 2)?,
                    'u' => code(&mut letters, 4)?,
                    'U' => code(&mut letters, 8)?,
                    mark @ ('\\' | '\'' | '"') => mark,
                    _ => return None,
                }),
                letter => text.push(letter),
            }
        }
        texts.push(Value::String(text));
    }
}

/// A character by its number in hexadecimal digits.
fn code(letters: &mut impl Iterator<Item = char>, digits: usize) -> Option<char> {
    let digits: String = letters.take(digits).collect();
    u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_json_python_and_numpy_are_read() {
        let texts = |written: &str| {
            let members = written_list(written)??;
            members.iter().map(|member| member.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        for written in [
            r#"["a b", "c's"]"#,
            r#"['a b', "c's"]"#,
            "['a b'\n \"c's\"]",
            r"['a b', 'c\'s']",
            r"['a\x20b', 'c\u0027s']",
        ] {
            assert_eq!(texts(written), Some(vec!["a b".to_owned(), "c's".to_owned()]), "{written}");
        }
        assert_eq!(texts(" [] "), Some(Vec::new()));
        for text in ["[1] A tor is a hill.", "a ['b']", "{x}", "[link](http://a)", ""] {
            assert_eq!(written_list(text), None, "{text}");
        }
        for broken in ["['a', 1]", "[{'text': 'a'}]", "{'text': ['a']}", "['a", "['a'b]"] {
            assert!(!matches!(written_list(broken), Some(Some(_))), "{broken}");
        }
    }
}
