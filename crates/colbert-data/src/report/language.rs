//! Texts whose script or words belong to another language than `language_code`.

use std::collections::HashMap;

use super::finding::{Finding, Severity};
use crate::texts::language_code::{base_of, name_of};
use crate::texts::{Collection, Queries};

/// Number of characters that are examined together: a single text may be too short to tell.
const TOGETHER: usize = 1_000;
/// Fewer characters than this are not judged.
const FEWEST: usize = 100;
/// Number of groups of texts that are examined, spread evenly.
const GROUPS: usize = 40;
/// Codes of countries that are codes of other languages: Kanuri, Northern Sami, Chamorro, Ewe, Breton.
const COUNTRIES: [(&str, &str); 5] = [("kr", "ko"), ("se", "sv"), ("ch", "zh"), ("ee", "et"), ("br", "pt")];
/// Share of the groups that must agree.
const AGREE: f64 = 0.8;

/// Returns a finding if the texts are in another language than `code`; `None` if they are not, or if they are too few
/// to tell.
pub fn language_mismatch(queries: &Queries, collection: &Collection, code: &str) -> Option<Finding> {
    let base = base_of(code);
    let is_known = whatlang::Lang::all().iter().any(|language| is_same(code_of(*language), &base));
    let groups = groups(queries, collection);
    let mut votes: HashMap<&str, usize> = HashMap::new();
    for group in &groups {
        if let Some(found) = whatlang::detect(group).filter(whatlang::Info::is_reliable) {
            *votes.entry(code_of(found.lang())).or_insert(0) += 1;
        }
    }
    let (&found, &count) = votes.iter().max_by_key(|(code, count)| (**count, **code))?;
    // The words of related languages say nothing about a language that is not known here, unless its code is that of
    // a country where the language of the texts is spoken.
    let is_meant = is_known || COUNTRIES.contains(&(base.as_str(), found));
    if !is_meant || is_same(found, &base) || (count as f64) < AGREE * groups.len() as f64 {
        return None;
    }
    let name = name_of(found).unwrap_or(found);
    let named = name_of(&base).unwrap_or(code);
    Some(Finding {
        severity: Severity::Warning,
        name: "language_mismatch".to_owned(),
        count: count as u64,
        message: format!(
            "texts are {name}, as far as their script and words tell, but language_code is \"{code}\": BM25 splits and \
             stems them as {named}"
        ),
        examples: Vec::new(),
        fix: format!("language_code = \"{found}\""),
    })
}

/// Texts spread evenly over the documents and the queries, several at a time.
fn groups(queries: &Queries, collection: &Collection) -> Vec<String> {
    let all = collection.len() + queries.len();
    let text = |index: usize| match index.checked_sub(collection.len()) {
        None => collection.text(index as u32),
        Some(qid) => queries.text(qid as u32),
    };
    let mut groups: Vec<String> = Vec::new();
    let starts = all.min(GROUPS);
    for start in (0..starts).map(|group| group * all / starts.max(1)) {
        let mut group = String::new();
        let next = start + (all / starts.max(1)).max(1);
        for index in start..next {
            group.extend(text(index).chars().take(TOGETHER));
            group.push('\n');
            if group.chars().count() >= TOGETHER {
                break;
            }
        }
        groups.push(group);
    }
    // Few texts are judged together, which says more than each alone.
    if groups.iter().any(|group| group.chars().count() < FEWEST) {
        let together: String = groups.concat();
        let letters: Vec<char> = together.chars().collect();
        groups = letters.chunks(TOGETHER).map(|chunk| chunk.iter().collect()).collect();
        groups.retain(|group: &String| group.chars().count() >= FEWEST);
    }
    groups
}

fn code_of(language: whatlang::Lang) -> &'static str {
    match language {
        whatlang::Lang::Cmn => "zh",
        whatlang::Lang::Pes => "fa",
        whatlang::Lang::Nob => "no",
        other => {
            isolang::Language::from_639_3(other.code()).and_then(|language| language.to_639_1()).unwrap_or(other.code())
        }
    }
}

/// Languages whose texts are hard to tell apart count as one.
fn is_same(one: &str, other: &str) -> bool {
    const NEAR: [&[&str]; 5] = [
        &["no", "nb", "nn", "da", "sv"],
        &["hr", "sr", "bs", "sl", "mk"],
        &["id", "ms", "jv"],
        &["cs", "sk"],
        &["pt", "es", "gl", "ca"],
    ];
    one == other || NEAR.iter().any(|near| near.contains(&one) && near.contains(&other))
}
