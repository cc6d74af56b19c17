"""Settings of Sphinx. The pages are the .rst files beside this one."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from txgearman import __version__
from txgearman.server.config.access_rules import RuleSettings
from txgearman.server.config.function_options import FunctionSettings
from txgearman.server.config.option_kinds import options_of
from txgearman.server.config.schedule_options import ScheduleSettings
from txgearman.server.gearmand.options import OPTIONS as GEARMAND_OPTIONS
from txgearman.server.gearmand.options import Effect
from txgearman.server.process.twistd import OPTIONS

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import rooms  # noqa: E402

project = "txgearman"
author = "the txgearman developers"
project_copyright = "2026, the txgearman developers"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "states"]
exclude_patterns = [
    "_build",
    "examples",
    "performance_table.rst",
    "library_table.rst",
    "rivals_table.rst",
]
# `name` in the docstrings: a link where the name is documented, and plain code where it is not.
default_role = "py:obj"
highlight_language = "none"

autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
# As a list: each would be documented twice where the attribute has a docstring, or is listed, of its own.
napoleon_use_ivar = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"txgearman {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]
# Of a terminal's text the commands are copied, without their prompts and without what they print.
copybutton_prompt_text = "$ "


def make_readable(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, *parts: str | None) -> Any:
    """Write as Python what autodoc can only show as ``<...>``, which Sphinx could not parse."""
    named = (
        part and re.sub(r"<(?:InterfaceClass|built-in function) [\w.]*?(\w+)>", r"\1", part) for part in parts
    )
    return tuple(part and part.replace("<factory>", "...") for part in named)


class GearmandOptions(Directive):
    """The table of the options of ``twistd gearmand``, made of their descriptions in the code; with the
    argument ``functions``, ``schedules`` or ``access`` that of a table in the configuration file, with
    ``txgearmand`` that of gearmand's options."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = self.of_a_table(*self.arguments) if self.arguments else self.of_the_server()
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for first, *others in rows:
            lines += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
        table = nodes.container()
        self.state.nested_parse(StringList(lines, "options"), 0, table)
        return table.children

    def of_the_server(self) -> list[list[str]]:
        rows = [["Option", "Default", "Meaning", "Reload"]]
        for option in OPTIONS:
            short = f", ``-{option.short}``" if option.short else ""
            reloadable = "yes" if option.reloadable else ""
            rows.append([f"``--{option.name}``{short}", option.shown, option.meaning, reloadable])
        # Twisted's own.
        rows += [["``--version``", "", "Print the version and exit.", ""]]
        rows += [["``--help``", "", "Print the options and exit.", ""]]
        return rows

    def of_txgearmand(self) -> list[list[str]]:
        rows = [["Option", "Here"]]
        for option in GEARMAND_OPTIONS:
            if not option.hidden and option.effect is not Effect.ELSEWHERE:
                short = f", ``-{option.short}``" if option.short else ""
                rows.append([f"``--{option.name}``{short}", option.meaning])
        return rows

    def of_a_table(self, name: str) -> list[list[str]]:
        if name == "txgearmand":
            return self.of_txgearmand()
        options = options_of(
            {"functions": FunctionSettings, "schedules": ScheduleSettings, "access": RuleSettings}[name]
        )
        return [["Key", "Meaning"], *([f"``{option.name}``", option.meaning] for option in options)]


class Rooms(Directive):
    """The picture of the package's rooms and their imports."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", rooms.drawing(HERE.parent), format="html")]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_directive("rooms", Rooms)
    app.add_directive("gearmand-options", GearmandOptions)
    app.connect("autodoc-process-signature", make_readable)
