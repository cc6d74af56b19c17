"""Writing a configuration file with options of the server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def toml_text(values: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    """A file in TOML.

    Args:
        values: Texts, numbers, booleans and lists of them, by the names of options.
        comments: Lines for the top of it.

    Returns:
        The text, with a line end.

    Raises:
        ValueError: A text is not Unicode, such as a path in another encoding.
    """
    lines = [f"# {line}".rstrip() for line in comments]
    lines += [f"{name} = {_value(value)}" for name, value in values.items()]
    text = "\n".join(lines) + "\n"
    text.encode()
    return text


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # JSON is written as TOML is, but for the one control character that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
