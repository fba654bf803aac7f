//! Explanations of scores as a page: each document with its matched tokens marked, and the matches in a table.

use std::path::Path;

use maud::{Markup, PreEscaped, html};

use crate::error::Error;
use crate::record::page;
use crate::search::explanation::{Explanation, TokenMatch};
use crate::search::ranking::Hit;

/// Rules beside those of the sheet of all pages.
const STYLE: &str = "
.text{line-height:2}.text span{padding:.1em .15em;border-radius:3px}.text .unscored{color:var(--soft)}
.matches td:nth-child(2){text-align:left}.matches th:nth-child(2){text-align:left}
.bar{display:inline-block;height:.7em;background:var(--c0);border-radius:2px;vertical-align:middle;margin-left:.5em}";

/// How to read a picture.
pub(crate) const LEGEND: &str = "Each token of the query counts by the token of the document that is most like it; the score is the sum of these \
     similarities. The stronger the colour behind a token of a document, the more of the score it carries.";

/// Widest bar, in em: a similarity of 1.
const WIDEST: f32 = 8.0;

/// Writes a page that explains the scores of hits for a query, in their order.
///
/// # Errors
/// The disk refuses.
pub fn write_explanations(path: &Path, query: &str, hits: &[(Hit, Explanation)]) -> Result<(), Error> {
    let body = html! {
        (style())
        h1 { (query) }
        p .soft { (LEGEND) }
        @for (hit, explanation) in hits { (explained(hit, explanation)) }
    };
    page::write(path, &page::document(query, false, &body))
}

fn explained(hit: &Hit, explanation: &Explanation) -> Markup {
    let name = hit.id.clone().unwrap_or_else(|| format!("document {}", hit.index));
    html! {
        h2 { (hit.rank) ". " (name) " " span .soft { (format!("score {:.3}", hit.score)) } }
        (picture(explanation))
    }
}

/// The rules that [`picture`] needs.
pub(crate) fn style() -> Markup {
    html! { style { (PreEscaped(STYLE)) } }
}

/// A document with its matched tokens marked, and the matches in a table.
pub(crate) fn picture(explanation: &Explanation) -> Markup {
    let mut carried = vec![0f32; explanation.document.len()];
    for one in &explanation.matches {
        if let Some(carried) = carried.get_mut(one.place) {
            *carried += one.similarity.max(0.0);
        }
    }
    let most = carried.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let expansion: Vec<&TokenMatch> = explanation.matches.iter().filter(|one| is_expansion(one)).collect();
    let of_expansion: f32 = expansion.iter().map(|one| one.similarity).sum();
    html! {
        p .text {
            @for (token, carried) in explanation.document.iter().zip(&carried) {
                @let share = (carried / most * 60.0).round();
                @if !token.is_scored {
                    span .unscored title="not scored" { (token.token) } " "
                } @else if share < 1.0 {
                    span { (token.token) } " "
                } @else {
                    span style=(format!("background:color-mix(in srgb,var(--c1) {share}%,transparent)"))
                        title=(format!("{carried:.3} of {:.3}", explanation.score)) { (token.token) }
                    " "
                }
            }
        }
        .wide {
            table .matches {
                tr { th { "query" } th { "document" } th { "similarity" } }
                @for one in explanation.matches.iter().filter(|one| !is_expansion(one)) {
                    tr {
                        td { (one.query_token) }
                        td { (one.document_token) }
                        td {
                            (format!("{:.3}", one.similarity))
                            span .bar style=(format!("width:{:.2}em", one.similarity.max(0.0) * WIDEST)) {}
                        }
                    }
                }
                @if !expansion.is_empty() {
                    tr {
                        td .soft { (expansion[0].query_token) " (" (expansion.len()) " tokens of expansion)" }
                        td .soft { "several" }
                        td { (format!("{of_expansion:.3}")) }
                    }
                }
            }
        }
    }
}

/// Whether a match is of the [MASK] tokens that fill a query up.
fn is_expansion(one: &TokenMatch) -> bool {
    let token = one.query_token.to_ascii_lowercase();
    matches!(token.as_str(), "[mask]" | "<mask>" | "<|mask|>")
}
