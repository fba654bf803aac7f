"""``ragtrainer.utils``: what RAGatouille's examples import from the module of this name."""

from __future__ import annotations

import json
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from ragtrainer import __version__

_SECONDS = 30


def get_wikipedia_page(title: str, *, endpoint: str = "https://en.wikipedia.org/w/api.php") -> str | None:
    """Downloads the plain text of a Wikipedia page; None if there is no page of this title."""
    wanted = {"action": "query", "format": "json", "titles": title, "prop": "extracts", "explaintext": "1"}
    # Wikipedia refuses programs that do not name themselves.
    request = Request(f"{endpoint}?{urlencode(wanted)}", headers={"User-Agent": f"ragtrainer/{__version__}"})
    with urlopen(request, timeout=_SECONDS) as answer:
        pages = json.load(answer)["query"]["pages"]
    text = next(iter(pages.values())).get("extract")
    return None if text is None else str(text)
