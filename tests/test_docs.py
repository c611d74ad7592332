"""Every code block in README and docs runs, and prints what stands below it.

``python`` blocks of one page share a namespace; a ``text`` block right behind one is its output. ``console`` blocks
hold ``$ fxprune …`` commands, each with the output below it where there is any; ``...`` stands for anything.
"""

import contextlib
import doctest
import io
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from fxprune.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Sphinx's directives are fences, too: ```{toctree}.
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.S | re.M)
# What differs between machines and versions: rounding errors, and line numbers in other people's files.
VARIES = re.compile(r"[\d.]+e-\d+ at '[^']*'|(?<=\.py:)\d+")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    follows: bool


def blocks(text: str) -> list[Block]:
    found, end = [], 0
    for match in FENCE.finditer(text):
        follows = bool(found) and not text[end:match.start()].strip()
        found.append(Block(match[1], match[2], text[:match.start()].count("\n") + 2, follows))
        end = match.end()
    return found


def run_python(page: Path, text: str) -> list[str]:
    """Run the page's Python; gives what does not come out as it stands."""
    wrong: list[str] = []
    space: dict = {"__name__": f"{page.stem}_page"}
    printed = ""
    for block in blocks(text):
        if block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), space)
            printed = out.getvalue()
        elif block.language == "text" and block.follows and printed:
            wrong += compare(page, block, block.text, printed)
            printed = ""
    return wrong


def run_console(page: Path, text: str) -> list[str]:
    wrong: list[str] = []
    for block in blocks(text):
        if block.language != "console":
            continue
        for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
            command, _, expected = part.partition("\n")
            words = shlex.split(command)
            assert words[0] == "fxprune", f"{page.name}:{block.line}: only fxprune is run here"
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                assert main(words[1:]) == 0, f"{page.name}:{block.line}: {command}"
            if expected.strip():
                wrong += compare(page, block, expected, out.getvalue())
    return wrong


def compare(page: Path, block: Block, expected: str, got: str) -> list[str]:
    if doctest.OutputChecker().check_output(VARIES.sub("-", expected), VARIES.sub("-", got), FLAGS):
        return []
    return [f"{page.name}:{block.line}\nexpected\n{expected}\ngot\n{got}"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python(page):
    assert run_python(page, page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_console(page):
    assert run_console(page, page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_index():
    """Sphinx warns of those that are not; here it is said where Sphinx is not installed."""
    listed = re.findall(r"^```\{toctree\}\n(.*?)^```$", (ROOT / "docs/index.md").read_text(), re.S | re.M)
    patterns = [f"{line}.md" for block in listed for line in block.split() if not line.startswith(":")]
    for page in PAGES[1:]:
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name == "index.md" or any(fnmatch(name, pattern) for pattern in patterns), f"add {name} to docs/index.md"


def test_the_check_can_fail():
    page = Path("page.md")
    assert run_python(page, "```python\nprint(1)\n```\n\n```text\n1\n```\n") == []
    assert len(run_python(page, "```python\nprint(1)\n```\n\n```text\n2\n```\n")) == 1
    with pytest.raises(ZeroDivisionError):
        run_python(page, "```python\n1 / 0\n```\n")
