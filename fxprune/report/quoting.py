"""Names as each format takes them. A module may be called anything that ``add_module`` takes: an escape sequence, a
formula, a tag.

`fxprune.errors.printable` is what all of them start from: one line without anything that steers a terminal.
"""

import re
from html import escape
from typing import Any

from fxprune.errors import printable

# What marks text up anywhere, in the middle of a link, at the edge of a word, and at the beginning.
_MARKUP = re.compile(r"([\\`*|~]|\](?=[(:])|(?<![^\W_])_|_(?![^\W_])|^#)")
# What spreadsheets take for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@")


def markdown(text: str) -> str:
    r"""Text that Markdown shows as it stands, in a table as well.

    >>> print(markdown("a|b <i> `c` [d](e) my_conv#2 __init__"))
    a\|b &lt;i&gt; \`c\` [d\](e) my_conv#2 \_\_init\_\_
    """
    return _MARKUP.sub(r"\\\1", escape(printable(text), quote=False))


def csv_cell(value: Any) -> Any:
    """A value of a CSV row; text that a spreadsheet would compute begins with an apostrophe.

    >>> csv_cell("=1+1"), csv_cell("conv1"), csv_cell(-2)
    ("'=1+1", 'conv1', -2)
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def html(value: object) -> str:
    """Text between two tags, or in an attribute.

    >>> html("<b>")
    '&lt;b&gt;'
    """
    return escape(printable(str(value)))


def plot_text(text: str) -> str:
    """A label that matplotlib does not read as a formula.

    >>> print(plot_text("a$b$"))
    a\\$b\\$
    """
    return printable(text).replace("$", r"\$")


def printable_data(value: Any) -> Any:
    """The same nest of dictionaries and lists, with all of its text printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_data(key): printable_data(item) for key, item in value.items()}
    return [printable_data(item) for item in value] if isinstance(value, (list, tuple)) else value
