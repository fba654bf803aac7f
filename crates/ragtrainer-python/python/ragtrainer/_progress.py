"""Progress: lines in a script, one updating display in a notebook, or a callable that gets dictionaries."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
Progress = Callable[[Event], object] | bool | None


def listener(progress: Progress) -> Callable[[str], object] | None:
    """The function for the native half, which passes events as JSON texts."""
    if progress is None or progress is False:
        return None
    show: Callable[[Event], object] = _Shown() if progress is True else progress
    return lambda text: show(plain(text))


def plain(text: str) -> dict[str, Any]:
    """An object of the native half. Its named numbers come as pairs and are a dictionary here."""

    def named(value: dict[str, Any]) -> dict[str, Any]:
        return {key: dict(inner) if key in ("metrics", "parts") else inner for key, inner in value.items()}

    value: dict[str, Any] = json.loads(text, object_hook=named)
    return value


class _Shown:
    """Shows events on standard error, or in a notebook's display, which replaces its line."""

    def __init__(self) -> None:
        self._total = 0
        self._shown = 0.0
        self._display = _notebook_display()

    def __call__(self, event: Event) -> None:
        if event["event"] == "started":
            self._total = event["plan"]["steps"]
        line = self._line(event)
        if line is None:
            return
        if self._display is not None:
            self._display.update({"text/plain": line}, raw=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _line(self, event: Event) -> str | None:
        kind = event["event"]
        counts = kind in ("step", "mining", "encoding", "evaluating")
        done, total = event.get("done", event.get("step", 0)), event.get("total", self._total)
        now = time.monotonic()
        # Ten lines a second in a notebook, one every two seconds in a script, and always the last.
        pause = 0.1 if self._display is not None else 2.0
        if counts and done != total and now - self._shown < pause:
            return None
        self._shown = now
        if kind == "step":
            return f"step {done}/{total}  loss {event['loss']:.4f}"
        if kind == "mining":
            return f"negatives: {event['phase']} {done}/{total}"
        if kind in ("encoding", "evaluating"):
            return f"{kind} {done}/{total}"
        if kind == "started":
            return f"training: {total} steps, {event['done']} done" if event["done"] else f"training: {total} steps"
        if kind == "evaluated":
            value = event["evaluation"]
            return f"after step {event['step']}: dev {event['metric']} {_measured(value, event['metric'])}" + (
                ", the best so far" if event["best"] else ""
            )
        if kind == "skipped":
            return f"step {event['step']} was left out: its {event['what']} is not finite"
        if kind == "spike":
            return f"step {event['step']}: loss {event['loss']:.4f} is far above the mean of {event['mean']:.4f}"
        if kind == "finished":
            return f"stopped after step {event['step']}" if event["stopped"] else f"finished after step {event['step']}"
        return None


def _measured(evaluation: Event, metric: str) -> str:
    value = evaluation["metrics"].get(metric)
    return "not finite" if value is None else f"{value:.4f}"


def _notebook_display() -> Any:
    """A display of the running notebook that can be updated; None outside of notebooks."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    from IPython import display

    show: Any = display.display
    return show({"text/plain": ""}, raw=True, display_id=True)
