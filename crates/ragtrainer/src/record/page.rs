//! The shell of every HTML page: one file that needs nothing else, with one style sheet.

use std::path::Path;

use colbert_config::durable::replace_file;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::error::Error;

const STYLE: &str = "
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d8dee4;--card:#f6f8fa;
--c0:#2f6db5;--c1:#b8530d;--c2:#2b7a3d;--c3:#8a3fa0;--c4:#8a6d00;--c5:#a32244;
--error:#b3261e;--warning:#8a5a00;--note:#35608a;--good:#1d6b35;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--ink:#e4e8ec;--soft:#9aa4ae;--line:#333a42;--card:#1d2126;
--c0:#6ea3e6;--c1:#f0964f;--c2:#6cc582;--c3:#c58bdb;--c4:#dcb94a;--c5:#f08aa5;
--error:#ff8a80;--warning:#f0b95b;--note:#8fbcec;--good:#7fd196;--bad:#ff8a80}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2rem 1.25rem 4rem}h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.25rem 0 .75rem}p{margin:.35rem 0}.soft{color:var(--soft)}.source{overflow-wrap:anywhere}
.verdict{font-size:1.1rem;font-weight:600;margin:.75rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0}
.tile,.finding,figure,details{background:var(--card);border:1px solid var(--line);border-radius:8px}
.tile{padding:.6rem .8rem}.tile b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}
.finding{border-left-width:5px;padding:.7rem 1rem;margin:.6rem 0}.finding p{overflow-wrap:anywhere}
.finding ul{margin:.4rem 0;padding-left:1.2rem;color:var(--soft);overflow-wrap:anywhere}
.badge{font-size:.78rem;font-weight:700;text-transform:uppercase;letter-spacing:.04em;margin-right:.5rem}
.error{border-left-color:var(--error)}.warning{border-left-color:var(--warning)}.note{border-left-color:var(--note)}
.error .badge,.verdict.error{color:var(--error)}.warning .badge,.verdict.warning{color:var(--warning)}
.note .badge,.verdict.note{color:var(--note)}.good{color:var(--good)}.bad{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(19rem,100%),1fr));gap:1rem}
figure{margin:0;padding:.8rem}figcaption{font-weight:600;margin-bottom:.4rem}svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font:14px system-ui,sans-serif}svg line{stroke:var(--line)}svg rect{fill:var(--c0)}
svg .limit{stroke:var(--error);stroke-dasharray:4 3}svg .limit-name{fill:var(--error)}
polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}
polyline.c0{stroke:var(--c0)}polyline.c1{stroke:var(--c1)}polyline.c2{stroke:var(--c2)}polyline.c3{stroke:var(--c3)}
polyline.c4{stroke:var(--c4)}polyline.c5{stroke:var(--c5)}
circle.c0,i.c0{fill:var(--c0);background:var(--c0)}circle.c1,i.c1{fill:var(--c1);background:var(--c1)}
circle.c2,i.c2{fill:var(--c2);background:var(--c2)}circle.c3,i.c3{fill:var(--c3);background:var(--c3)}
circle.c4,i.c4{fill:var(--c4);background:var(--c4)}circle.c5,i.c5{fill:var(--c5);background:var(--c5)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;overflow-wrap:anywhere}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.wide{overflow-x:auto;margin-bottom:1rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child{text-align:left;min-width:9rem}th{color:var(--soft);font-weight:600}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:13px/1.5 ui-monospace,monospace}
details{padding:.5rem .9rem;margin:.5rem 0}summary{cursor:pointer;overflow-wrap:anywhere}
dt{color:var(--soft);font-size:.85rem;margin-top:.4rem}dd{margin:0;overflow-wrap:anywhere}";

/// A whole page. With `is_refreshed` a browser loads it again every 20 seconds.
pub(crate) fn document(title: &str, is_refreshed: bool, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                @if is_refreshed { meta http-equiv="refresh" content="20"; }
                meta name="viewport" content="width=device-width,initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

/// Numbers in boxes, each with its name below it.
pub(crate) fn tiles(numbers: &[(String, String)]) -> Markup {
    html! {
        .tiles {
            @for (name, number) in numbers {
                .tile { b { (number) } span .soft { (name) } }
            }
        }
    }
}

/// A table under headings.
pub(crate) fn table<H: AsRef<str>, C: AsRef<str>>(headings: &[H], rows: &[Vec<C>]) -> Markup {
    html! {
        .wide {
            table {
                tr { @for heading in headings { th { (heading.as_ref()) } } }
                @for row in rows {
                    tr { @for cell in row { td { (cell.as_ref()) } } }
                }
            }
        }
    }
}

/// Writes a page.
///
/// # Errors
/// The disk refuses.
pub(crate) fn write(path: &Path, page: &str) -> Result<(), Error> {
    replace_file(path, page.as_bytes()).map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })
}
