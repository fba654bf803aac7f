//! Texts that are ids of texts by their form.

/// Longest id, bytes.
const LONGEST: usize = 100;

/// Whether a text has the form of an id: one word of letters, digits and marks, with a digit in it (`q17`, `MARCO_D1`,
/// a UUID, a bare number); an address; or words that marks join (`docs/tor.md`, `Tor_(landform)`, `what-is-a-tor`).
pub(crate) fn is_id_like(text: &str) -> bool {
    let text = text.trim();
    if text.starts_with("http://") || text.starts_with("https://") {
        return !text.contains(char::is_whitespace);
    }
    is_joined(text)
        || !text.is_empty()
            && text.len() <= LONGEST
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/#@+=|~%".contains(&byte))
            && text.bytes().any(|byte| byte.is_ascii_digit())
            && !text.ends_with(['.', ':'])
}

/// Whether a text is several words that are joined by slashes, underscores or hyphens and not by spaces.
fn is_joined(text: &str) -> bool {
    let is_latin = |letter: char| !letter.is_whitespace() && (letter as u32) < 0x0250;
    let is_inside = |mark: char| text.trim_matches(mark).contains(mark);
    let joins = is_inside('/') || is_inside('_') || text.trim_matches('-').matches('-').count() > 1;
    text.starts_with("www.") && text.chars().all(is_latin)
        || joins && text.len() <= LONGEST && text.chars().all(is_latin) && !text.ends_with(['.', ':', '?', '!'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_digit_and_no_white_space() {
        for id in [
            "docs/geo/tor.md",
            "Tor_(landform)",
            "what-is-a-tor",
            "www.example.com/tor",
            "q100",
            "d3",
            "1048585",
            "MARCO_D59219",
            "msmarco_passage_01_2",
            "4c2a-11ee",
            "PLAIN-2",
            "https://a.b/c",
        ] {
            assert!(is_id_like(id), "{id}");
        }
        for text in [
            "well-known",
            "__",
            "入力/出力",
            "Is it either/or?",
            "fever",
            "what is 3",
            "",
            "糖尿病2型",
            "In 1912.",
            "1912 in Kiel",
        ] {
            assert!(!is_id_like(text), "{text}");
        }
    }
}
