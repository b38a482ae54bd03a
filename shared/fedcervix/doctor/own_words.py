"""What a text says in this program's own words: all else in it is left out.

An error, a log line or a trace is made of texts that stand in the source, with values in between: paths, names,
numbers, words of other programs. Here only those texts pass, and `<...>` stands for each value. So nothing can pass
that is not in the source: it is a list of what may leave, not of what may not.

Rules
1. A line passes as a whole, or not at all: a template is a text of the source with holes for its values. One that is
   hardly more than a word says nothing, and a name may look like it: it is not used (`_says_something`).
2. A value passes if it is a text of the source itself, again by these rules (an error inside an error), or if a person
   has named it (`allowed`).
3. Of several templates that fit, the one that leaves most letters is taken.
4. Of a trace only the frames in our own files pass: module, line, function; and the name of an error that Python or
   this program defines.
"""

from __future__ import annotations

import ast
import builtins
import errno
import functools
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import fedcervix

HOLE = "<...>"
LETTERS_MIN = 6
"""of a template's own"""
WORDS_MIN = 3
"""of a template without values: a name has fewer, or other ones"""
DEPTH_MAX = 4
"""of errors within errors"""
FITTING_MAX = 4
"""templates that are tried on a text"""
CHARS_MAX = 4000
"""of a text that is looked at"""
PACKAGES = ("coordinator", "site_agent")
"""beside fedcervix"""
LOGGED = ("debug", "info", "warning", "error", "exception")
"""methods of a logger, whose first argument is the event"""
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d{1,6}), in (?P<function>\S+)')
_RAISED = re.compile(r"(?:[A-Za-z_][\w.]*\.)?(?P<name>[A-Za-z_]\w*)(?::|$)")
_WORD = re.compile(r"[A-Za-z]{3,}")


@dataclass(frozen=True, slots=True)
class Template:
    """A text of the source; between its parts stand values."""

    parts: tuple[str, ...]
    letters: int
    """of its own"""

    def values(self, text: str) -> list[str] | None:
        """Return the values in a text that was made of this template; None where it was not.

        The first place for each part is the right one, as a value may be anything: so no text takes long.
        """
        first, *inner = self.parts
        if not inner:
            return [] if text == first else None
        if not text.startswith(first):
            return None
        found, at, last = list[str](), len(first), inner.pop()
        for part in inner:
            place = text.find(part, at)
            if place < 0:
                return None
            found.append(text[at:place])
            at = place + len(part)
        end = len(text) - len(last)
        return [*found, text[at:end]] if end >= at and text.endswith(last) else None


@dataclass(frozen=True, slots=True)
class SourceTexts:
    """What of the source may pass."""

    by_word: dict[str, tuple[Template, ...]]
    """by the rarest word in their own text"""
    functions: frozenset[str]
    modules: frozenset[str]
    """paths of our files, from the package on"""
    errors: frozenset[str]
    log_events: frozenset[str] = frozenset()
    """what is logged, where the whole event stands in the source"""


def own_event(text: str, allowed: Collection[str] = (), source: SourceTexts | None = None) -> str:
    """Return the event of a line of a log in JSON: short ones pass too, as nobody else writes in that place."""
    of = source or installed()
    return text if text in of.log_events else own_words(text, allowed, of)


def own_words(text: str, allowed: Collection[str] = (), source: SourceTexts | None = None) -> str:
    """Return the lines of a text in this program's own words. Raises nothing."""
    of = source or installed()
    lines = text[:CHARS_MAX].splitlines()
    return "\n".join(_of_text(line.strip(), frozenset(allowed), of, DEPTH_MAX) for line in lines)


def own_trace(text: str, source: SourceTexts | None = None) -> tuple[str, ...]:
    """Return the frames of a trace that are in our own files, and the names of the errors at its ends."""
    of, found = source or installed(), []
    for line in text.splitlines():
        if frame := _FRAME.match(line):
            module = next((one for one in of.modules if frame["file"].endswith(f"/{one}")), None)
            if module is not None and frame["function"].strip("<>") in of.functions:
                found.append(f"{module}:{frame['line']} {frame['function']}")
        elif (raised := _RAISED.match(line)) and raised["name"] in of.errors:
            found.append(raised["name"])
    return tuple(found)


def _of_text(text: str, allowed: frozenset[str], source: SourceTexts, depth: int) -> str:
    if not text or text in allowed:
        return text
    if depth == 0:
        return HOLE
    outcomes = [HOLE]
    for template, values in _fitting(text, source):
        inner = (_of_text(value.strip(), allowed, source, depth - 1) for value in values)
        pairs = zip(template.parts, [*inner, ""], strict=True)
        outcomes.append("".join(part + value for part, value in pairs))
    return max(outcomes, key=lambda outcome: _letters([outcome]))


def _fitting(text: str, source: SourceTexts) -> list[tuple[Template, list[str]]]:
    """Return the templates with most letters of their own that a text may be made of, and its values."""
    candidates = {one for word in set(_WORD.findall(text)) for one in source.by_word.get(word, ())}
    found = [(one, values) for one in candidates if (values := one.values(text)) is not None]
    return sorted(found, key=lambda pair: (-pair[0].letters, pair[0].parts))[:FITTING_MAX]


def _letters(parts: Iterable[str]) -> int:
    return sum(letter.isalpha() for part in parts for letter in part)


def _says_something(parts: tuple[str, ...]) -> bool:
    return _letters(parts) >= LETTERS_MIN and (len(parts) > 1 or len(parts[0].split()) >= WORDS_MIN)


@functools.cache
def installed() -> SourceTexts:
    """Return what the installed packages say. Where their source is not there, nothing may pass."""
    root = Path(fedcervix.__file__).parent
    homes = {"fedcervix": root, **{name: _beside(root, name) for name in PACKAGES}}
    files = [
        (f"{name}/{file.relative_to(home).as_posix()}", file)
        for name, home in homes.items()
        for file in sorted(home.rglob("*.py"))
    ]
    return source_of((module, file.read_text("utf-8")) for module, file in files)


def _beside(root: Path, name: str) -> Path:
    """Return where another package lies: beside fedcervix where it is installed, one folder up in a checkout."""
    return next((place for place in (root.parent / name, root.parent.parent / name) if place.is_dir()), root / name)


def source_of(files: Iterable[tuple[str, str]]) -> SourceTexts:
    """Return what of a source may pass: (module, its text) of each file."""
    texts, functions, errors = dict[tuple[str, ...], None](), set[str](), set[str]()
    modules, log_events = set[str](), set[str]()
    for module, text in files:
        modules.add(module)
        nodes = [*ast.walk(ast.parse(text))]
        texts.update(dict.fromkeys(_texts(nodes)))
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.add(node.name)
            elif isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                errors.add(node.name)
            elif isinstance(node, ast.ClassDef):
                log_events.add(_CAPITAL.sub(" ", node.name).lower())  # as the coordinator logs its events
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGED:
                log_events.update(str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant))
    known = {name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, BaseException)}
    templates = [Template(parts, _letters(parts)) for parts in texts if _says_something(parts)]
    for said in {os.strerror(number) for number in errno.errorcode}:  # the system's words for its errors
        templates += (Template(parts, _letters(parts)) for parts in ((said,), ("", f": {said}")))
    functions |= {"module", "lambda", "genexpr", "listcomp", "dictcomp", "setcomp"}
    return SourceTexts(
        _by_rarest(templates),
        frozenset(functions),
        frozenset(modules),
        frozenset(errors | known),
        frozenset(log_events),
    )


def _texts(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, ...]]:
    """Yield the texts of a module, each as its parts between values: strings, f-strings, sums of both."""
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.BinOp | ast.JoinedStr | ast.Constant) and id(node) not in docstrings:
            parts = _parts(node)
            if parts is not None:
                yield parts


def _parts(node: ast.expr) -> tuple[str, ...] | None:
    """Return the parts of a text; None where it is none."""
    match node:
        case ast.Constant(value=str(text)):
            return _split(text)
        case ast.JoinedStr(values=values):
            found: tuple[str, ...] = ("",)
            for value in values:
                more = _split(str(value.value)) if isinstance(value, ast.Constant) else ("", "")
                found = (*found[:-1], found[-1] + more[0], *more[1:])
            return found
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            one, other = _parts(left), _parts(right)
            if one is None and other is None:
                return None
            one, other = one or ("", ""), other or ("", "")
            return (*one[:-1], one[-1] + other[0], *other[1:])
        case _:
            return None


def _split(text: str) -> tuple[str, ...]:
    """Return a text without its fields for later values: {site}."""
    return tuple(re.split(r"\{[a-z_0-9.]*\}", text))


def _by_rarest(templates: Collection[Template]) -> dict[str, tuple[Template, ...]]:
    """Return templates by the word in them that the fewest have: then few are tried on a text."""
    words = [_whole_words(template) for template in templates]
    count = defaultdict[str, int](int)
    for word in (word for found in words for word in found):
        count[word] += 1
    by_word = defaultdict[str, list[Template]](list)
    for template, found in zip(templates, words, strict=True):
        if found:
            by_word[min(found, key=lambda word: (count[word], word))].append(template)
    return {word: tuple(some) for word, some in by_word.items()}


def _whole_words(template: Template) -> set[str]:
    """Return the words that stand whole in a template's own text: those beside a value may be cut."""
    return {
        found[0]
        for number, part in enumerate(template.parts)
        for found in _WORD.finditer(part)
        if (number == 0 or found.start() > 0) and (number == len(template.parts) - 1 or found.end() < len(part))
    }
