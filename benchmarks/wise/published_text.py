"""What the judge is told, in the words of the published program: read as data, never executed, never copied in here.

In the program's `build_evaluation_messages`, the returned list holds a system message of one text, and a user message
of a text and an image; the user's text is an f-string with the two fields `prompt_data['Prompt']` and
`prompt_data['Explanation']`. The literals are taken from the syntax tree, as Python's f-string would show them.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

from harness.contract.errors import MissingAsset
from harness.contract.parse import is_unicode
from harness.contract.text_files import decode_text

ASSET = "wise-judge-text"
FUNCTION = "build_evaluation_messages"
FIELDS = {"Prompt": "prompt", "Explanation": "explanation"}
"""Of `prompt_data` -> the name of the place in our texts."""

_MAX_BYTES = 256 << 10
"""The published program has 12 KB; Python's parser is not made for what strangers write at any length."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ClassDef)


def read_published(path: Path) -> tuple[str, list[str]]:
    """The system text, and the user text in pieces: literal text and names of places (`FIELDS`) in turn.

    Raises:
        MissingAsset: the file is not a program with such texts.
    """
    try:
        system, user = _contents(_returned(_tree(_text(path))))
        return _plain(system), _filled(user)
    except (OSError, ValueError) as error:
        raise MissingAsset(
            f"{path}: the judge's published text cannot be read from it ({error}); fetch it again: harness assets "
            f"pull {ASSET}, or use this project's wording: --set wise.wording=own"
        ) from error


def _text(path: Path) -> str:
    with path.open("rb") as handle:
        data = handle.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES >> 10} KiB")
    return decode_text(data)


def _tree(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd escapes in a program that is not ours
            return ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno or 1}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None


def _returned(tree: ast.Module) -> ast.expr:
    """What the function returns."""
    found = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS) and node.name == FUNCTION]
    if len(found) != 1:
        raise ValueError(f"it defines {FUNCTION} {len(found)} times, not once")
    values = [node.value for node in _own_nodes(found[0]) if isinstance(node, ast.Return) and node.value]
    if len(values) != 1:
        raise ValueError(f"{FUNCTION} returns something in {len(values)} places, not in one")
    return values[0]


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions and classes inside it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _SCOPES):
            waiting += ast.iter_child_nodes(node)


def _contents(returned: ast.expr) -> tuple[ast.expr, ast.expr]:
    """The text of the system's message, and that of the user's."""
    system, user = _items(returned, 2, "what it returns")
    (system_text,) = _items(_message(system, "system"), 1, "the content for the system")
    user_text, image = _items(_message(user, "user"), 2, "the content for the user")
    _part(image, "image_url")
    return _part(system_text, "text"), _part(user_text, "text")


def _items(node: ast.expr, count: int, what: str) -> list[ast.expr]:
    if not isinstance(node, ast.List) or len(node.elts) != count:
        raise ValueError(f"line {node.lineno}: {what} is not a list literal of length {count}")
    return node.elts


def _message(node: ast.expr, role: str) -> ast.expr:
    return _value(node, "role", role, "content")


def _part(node: ast.expr, kind: str) -> ast.expr:
    return _value(node, "type", kind, kind)


def _value(node: ast.expr, name: str, wanted: str, key: str) -> ast.expr:
    """`key` of a literal {name: wanted, key: ...}."""
    keys = [getattr(word, "value", None) for word in node.keys] if isinstance(node, ast.Dict) else []
    if isinstance(node, ast.Dict) and sorted(map(str, keys)) == sorted([name, key]):
        named = dict(zip(keys, node.values, strict=True))
        if getattr(named[name], "value", None) == wanted:
            return named[key]
    raise ValueError(f"line {node.lineno}: is not a literal of {name} {wanted!r} and its {key}")


def _plain(node: ast.expr) -> str:
    if not isinstance(node, ast.Constant):
        raise ValueError(f"line {node.lineno}: the text for the system is not plain text")
    return _readable(node, node.value)


def _filled(node: ast.expr) -> list[str]:
    if not isinstance(node, ast.JoinedStr):
        raise ValueError(f"line {node.lineno}: the text for the user is no f-string")
    pieces = [""]
    for part in node.values:
        if isinstance(part, ast.Constant):
            pieces[-1] += _readable(part, part.value)
        else:
            pieces += [_place(part), ""]
    if sorted(pieces[1::2]) != sorted(FIELDS.values()):
        raise ValueError(f"line {node.lineno}: the text for the user has not exactly the fields {', '.join(FIELDS)}")
    return pieces


def _place(part: ast.expr) -> str:
    """The place that a replacement field is, where it shows a value as it is."""
    match part:
        case ast.FormattedValue(
            value=ast.Subscript(value=ast.Name(id="prompt_data"), slice=ast.Constant(value=str(key))),
            conversion=-1,
            format_spec=None,
        ) if key in FIELDS:
            return FIELDS[key]
    raise ValueError(f"line {part.lineno}: a field of the text for the user is not plainly prompt_data['...']")


def _readable(node: ast.expr, text: object) -> str:
    if not isinstance(text, str) or not is_unicode(text):
        raise ValueError(f"line {node.lineno}: holds what is no text")
    return text
