#!/usr/bin/env python3
"""Measures the structure of the crates: files, import circles, public names, long functions, wording.

Usage: .ci/house.py [-v] [REPOSITORY]; -v names what is counted. Imports are read from `crate::` and `super::` paths as
text, inline test modules left out. Not part of `.ci/run`; docs/decisions.md holds the figures of the day a change was
made.
"""
import re
import sys
from pathlib import Path

arguments = [argument for argument in sys.argv[1:] if argument != "-v"]
verbose = "-v" in sys.argv[1:]
root = Path(arguments[0] if arguments else ".")


def code_of(path):
    """The text of a file up to its inline test module."""
    return re.split(r"\n#\[cfg\(test\)\]\nmod tests", path.read_text())[0]


def circles(edges):
    """The strongly connected components of more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = []
            while True:
                component.append(stack.pop())
                if component[-1] == node:
                    break
            if len(component) > 1:
                found.append(sorted(component))

    for node in list(edges):
        if node not in index:
            visit(node)
    return found


def module_of(source, path):
    parts = path.relative_to(source).with_suffix("").parts
    return "::".join(parts)


def paths_in(text, module):
    """Every `crate::a::b` or `super::b` path in the text of a module, as a path from the crate; use lists opened up."""
    text = re.sub(r"//[^\n]*", "", text)
    for match in re.finditer(r"\b(crate::|(?:super::)+)((?:\w+::)*)(\w+|\{)", text):
        ups = match.group(1).count("super")
        if ups > len(module.split("::")):
            continue
        parent = module.split("::")[:-ups] if ups else []
        prefix = "".join(part + "::" for part in parent) + match.group(2)
        if match.group(3) != "{":
            yield prefix + match.group(3)
            continue
        depth, place, names = 1, match.end(), ""
        while depth and place < len(text):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            names += text[place]
            place += 1
        for name in re.findall(r"((?:\w+::)*\w+)", names):
            yield prefix + name


def functions_over(text, limit):
    lines, found = text.split("\n"), []
    for number, line in enumerate(lines):
        match = re.match(r"( *)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn (\w+)", line)
        if not match:
            continue
        for end in range(number, len(lines)):
            # A method of a trait without a body ends with its signature.
            if end > number and lines[end].startswith(match.group(1) + ")") and lines[end].endswith(";"):
                break
            if lines[end].startswith(match.group(1) + "}") or lines[end].rstrip().endswith(";") and end == number:
                if end - number + 1 > limit:
                    found.append((end - number + 1, match.group(2)))
                break
    return found


def public_names(source):
    lib = source / "lib.rs"
    if not lib.exists():
        return 0
    text = re.sub(r"//[^\n]*", "", lib.read_text())
    count = 0
    for use in re.findall(r"pub use ([^;]+);", text):
        inner = re.search(r"\{(.*)\}", use, re.S)
        count += len(re.findall(r"\w+", inner.group(1))) if inner else 1
    return count + len(re.findall(r"pub mod \w+", text))


print(f"{'crate':20}{'files':>6}{'at top':>7}{'names':>6}{'>60':>5}{'What':>5}  circles of files; of rooms")
totals = dict(what=0, long=0, names=0)
for source in sorted((root / "crates").glob("*/src")):
    files = sorted(source.rglob("*.rs"))
    modules = {module_of(source, path): path for path in files if path.name not in ("lib.rs", "main.rs")}
    edges, rooms, what, long = {}, {}, 0, []
    for module, path in modules.items():
        text = code_of(path)
        what += len(re.findall(r"(?<!//! )(?m:^\s*//[/!] What\b)", path.read_text()))
        long += functions_over(text, 60)
        for target in paths_in(text, module):
            parts = target.split("::")
            while parts and "::".join(parts) not in modules:
                parts.pop()
            other = "::".join(parts)
            if other and other != module:
                edges.setdefault(module, set()).add(other)
            here, there = module.split("::")[0], parts[0] if parts else None
            if there and here != there:
                rooms.setdefault(here, set()).add(there)
    top = len([path for path in files if path.parent == source])
    names = public_names(source)
    of_files = [len(circle) for circle in circles(edges)]
    of_rooms = [" <-> ".join(circle) for circle in circles(rooms)]
    print(f"{source.parent.name:20}{len(files):6}{top:7}{names:6}{len(long):5}{what:5}  {of_files}; {of_rooms}")
    if verbose:
        for circle in circles(edges):
            print("    circle:", " ".join(circle))
        for length, name in sorted(long, reverse=True):
            print(f"    {length} lines: {name}")
    totals["what"] += what
    totals["long"] += len(long)
    totals["names"] += names
words = len((root / "README.md").read_text().split())
print(f"public names {totals['names']}, functions over 60 lines {totals['long']}, "
      f"doc comments that begin with What {totals['what']}, README {words} words")
