"""Imports point down: app -> page -> unet, train -> training -> unet; no circle; HTML stands in page/ alone."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABOVE = {
    "app": {"page", "unet"},
    "page": {"unet"},
    "train": {"training", "unet"},
    "training": {"unet"},
    "unet": set(),
}  # what each may import beside itself
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for room in ABOVE
    for path in [*ROOT.glob(f"{room}.py"), *ROOT.glob(f"{room}/**/*.py")]
}


def imported_by(module):
    """The modules of the project that a module imports, at its top or within a function."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    names = []
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            names += [f"{source}.{alias.name}" for alias in node.names]
    known = {name if name in FILES else name.rpartition(".")[0] for name in names}
    return {name for name in known & FILES.keys() if name != module}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    room = module.partition(".")[0]
    wrong = {name for name in imported_by(module) if name.partition(".")[0] not in ABOVE[room] | {room}}
    assert not wrong


def test_no_module_imports_itself_through_others():
    TopologicalSorter({module: imported_by(module) for module in FILES}).prepare()


@pytest.mark.parametrize("module", [module for module in FILES if re.match(r"unet|training", module)])
def test_no_html_below_the_page(module):
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [
        text
        for text in strings
        if re.search(
            r"</?(a|b|br|button|details|div|figure|h\d|img|li|p|path|rect|span|style|svg|table|td|text|tr|ul)\b", text
        )
    ]


def test_imports_are_seen():
    """The law would hold of an empty list, too."""
    assert {"unet.model", "unet.images"} <= imported_by("unet")
    assert imported_by("unet.metrics") == set()
    assert "training.datasets" in imported_by("training.dataset")
    assert any(name.startswith("page.") for name in imported_by("app"))
