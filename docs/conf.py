"""Settings of Sphinx. The pages are the .rst files beside this one."""

import re
from typing import Any

from txgearman import __version__

project = "txgearman"
author = "the txgearman developers"
project_copyright = "2026, the txgearman developers"
version = release = __version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples", "performance_table.rst"]
# `name` in the docstrings: a link where the name is documented, and plain code where it is not.
default_role = "py:obj"
highlight_language = "none"

autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"txgearman {release}"
html_copy_source = False


def make_readable(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, *parts: str | None) -> Any:
    """Write as Python what autodoc can only show as ``<...>``, which Sphinx could not parse."""
    named = (
        part and re.sub(r"<(?:InterfaceClass|built-in function) [\w.]*?(\w+)>", r"\1", part) for part in parts
    )
    return tuple(part and part.replace("<factory>", "...") for part in named)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", make_readable)
