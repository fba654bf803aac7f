//! Texts that are ids of texts by their form.

/// Longest id, bytes.
const LONGEST: usize = 100;

/// Whether a text has the form of an id: one word of letters, digits and marks, with a digit in it (`q17`, `MARCO_D1`,
/// a UUID, a bare number), or an address.
pub(crate) fn is_id_like(text: &str) -> bool {
    let text = text.trim();
    if text.starts_with("http://") || text.starts_with("https://") {
        return !text.contains(char::is_whitespace);
    }
    !text.is_empty()
        && text.len() <= LONGEST
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/#@+=|~%".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && !text.ends_with(['.', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_digit_and_no_white_space() {
        for id in
            ["q100", "d3", "1048585", "MARCO_D59219", "msmarco_passage_01_2", "4c2a-11ee", "PLAIN-2", "https://a.b/c"]
        {
            assert!(is_id_like(id), "{id}");
        }
        for text in ["fever", "what is 3", "", "糖尿病2型", "In 1912.", "1912 in Kiel"] {
            assert!(!is_id_like(text), "{text}");
        }
    }
}
