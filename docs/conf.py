"""Settings of Sphinx. The pages are the .rst files beside this one."""

import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from txgearman import __version__
from txgearman.server.twistd import OPTIONS

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


class GearmandOptions(Directive):
    """The table of the options of ``twistd gearmand``, made of their descriptions in the code."""

    def run(self) -> list[nodes.Node]:
        rows = [["Option", "Short", "Default", "Meaning"]]
        for option in OPTIONS:
            short = f"``-{option.short}``" if option.short else ""
            rows.append([f"``--{option.name}``", short, option.shown, option.meaning])
        # Twisted's own.
        rows += [["``--version``", "", "", "Print the version and exit."]]
        rows += [["``--help``", "", "", "Print the options and exit."]]
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 24, 8, 18, 50", ""]
        for first, *others in rows:
            lines += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
        table = nodes.container()
        self.state.nested_parse(StringList(lines, "options"), 0, table)
        return table.children


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_directive("gearmand-options", GearmandOptions)
    app.connect("autodoc-process-signature", make_readable)
