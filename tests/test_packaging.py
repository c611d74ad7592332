"""What is shipped: the README's commands, the dependencies, the data files, and no trace of any machine."""

import ast
import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# Import name -> name in the registry, where they differ.
PROJECTS = {"sklearn": "scikit-learn", "grpc": "grpcio", "torch_pruning": "torch-pruning",
            "open_clip": "open_clip_torch", "segmentation_models_pytorch": "segmentation-models-pytorch"}
# What stands on a first screen, in lines.
FIRST_SCREEN = 45


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def commands() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", README, re.S | re.M)


def words(text: str) -> set[str]:
    """Names, without the versions that they are bounded by."""
    return {word.partition(">=")[0] for word in text.split()}


def test_the_first_screen_has_two_commands():
    screen = "\n".join(README.splitlines()[:FIRST_SCREEN])
    first, second = re.findall(r"^```bash\n(.*?)^```$", screen, re.S | re.M)
    assert "venv" in first and "fxprune compress resnet50 --macs 0.5 --out pruned/" in first
    assert "venv" in second and "pytest" in second


def test_ci_runs_them_as_they_stand_there():
    script = (ROOT / ".ci/run").read_text()
    function = re.search(r"^command_of\(\) \{.*?^\}$", script, re.S | re.M)[0]
    for number, command in enumerate(commands()[:2], 1):
        got = subprocess.run(["bash", "-c", f"{function}\ncommand_of {number}"], cwd=ROOT, capture_output=True,
                             text=True, check=True)
        assert got.stdout == command
    assert 'bash -euo pipefail -c "$main_job"' in script and 'bash -euo pipefail -c "$tests"' in script


def test_ci_is_a_sound_script():
    assert os.access(ROOT / ".ci/run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)
    assert "set -euo pipefail" in (ROOT / ".ci/run").read_text()


def test_the_oldest_versions_that_are_allowed_are_tested_and_told(setup):
    bounds = re.findall(r"(torch|torchvision)>=([\d.]+)", setup["options"]["install_requires"])
    assert [name for name, _ in bounds] == ["torch", "torchvision"]
    script = (ROOT / ".ci/run").read_text()
    assert all(f"'{name}=={version}.*'" in script for name, version in bounds)
    assert all(f"{name} {version}" in README for name, version in bounds)


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports from elsewhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"fxprune"}


def test_every_import_is_declared(setup):
    needed = words(setup["options"]["install_requires"])
    extras = {name for extra in setup["options.extras_require"].values() for name in words(extra)}
    used = {PROJECTS.get(name, name) for path in (ROOT / "fxprune").rglob("*.py") for name in imports(path)}
    assert used <= needed | extras
    assert needed <= used | {"tqdm"}, "declared and not imported"


def test_no_test_skips_for_a_missing_package(setup):
    """What CI installs is all that tests ask for."""
    installed = words(setup["options"]["install_requires"]) | words(setup["options.extras_require"]["test"])
    asked = {name for path in (ROOT / "tests").rglob("*.py")
             for name in re.findall(r'importorskip\("(\w+)', path.read_text())}
    asked -= {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert asked and {PROJECTS.get(name, name) for name in asked} <= installed


def test_every_folder_is_a_package_and_its_data_is_shipped(setup):
    for path in (ROOT / "fxprune").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path
    patterns = words(setup["options.package_data"]["fxprune"])
    shipped = {path for pattern in patterns for path in (ROOT / "fxprune").glob(pattern)}
    data = {path for path in (ROOT / "fxprune").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data <= shipped and shipped


def test_the_command_exists(setup):
    module, function = re.search(r"fxprune = ([\w.]+):(\w+)", setup["options.entry_points"]["console_scripts"]).groups()
    assert (module, function) == ("fxprune.cli", "main")


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_no_trace_of_a_machine():
    # Put together here, so that this file does not hold them.
    traces = re.compile("|".join(["/" + "root/", "/" + "home/", "/" + "opt/", "index" + "-url", "find" + "-links"]))
    folders = ("fxprune", "tests", "docs", "examples", "benchmarks", ".ci")
    files = [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    for path in files:
        if path.is_file() and path.suffix in (".py", ".md", ".cfg", ".toml", ".html", ".js", ".css", ".json", ""):
            found = traces.search(path.read_text(errors="ignore"))
            assert not found, f"{path}: {found[0]}"
