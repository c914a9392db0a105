"""The recipes in CONTRIBUTING are true: the files that they list exist, and are all that their examples need."""

from __future__ import annotations

import re
from pathlib import Path
from token import NAME, STRING
from tokenize import tokenize

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cnnbp_cli"
WORDS = "words.py"
"""What people may call anything by."""
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = {
    name: (files, example) for name, files, example in re.findall(r"^\| (an? .+?) \| (.+) \| `(\w+)` \|$", TEXT, re.M)
}


def listed(files: str) -> list[Path]:
    """Return the paths of a recipe, `NAME` for what is yet to be named."""
    return [ROOT / path for path in re.findall(r"`(cnnbp_cli/[\w./]+)`", files)]


def naming(example: str) -> set[Path]:
    """Return the modules of the package that name an example, or are named after it."""
    spellings = {example, example.replace("_", "-")}
    sources = [path for path in PACKAGE.rglob("*.py") if "page" not in path.parts and path.name != WORDS]
    return {path for path in sources if spellings & names(path) or path.stem == example.lower()}


def names(path: Path) -> set[str]:
    """Return the words of a module's code, and its strings of one word: prose may mention anything."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize(file.readline) if token.type in (NAME, STRING)]
    strings = [token.string.strip("rbuf\"'") for token in tokens if token.type == STRING]
    inside = [word for text in strings if " " not in text for word in re.findall(r"[\w-]+", text)]
    return {token.string for token in tokens if token.type == NAME}.union(inside)


def test_there_is_a_recipe_for_each_kind() -> None:
    kinds = {"a layer", "an optimizer", "a command", "a diagnosis rule", "a data source", "an export"}
    assert set(RECIPES) == kinds


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_lists_files_that_exist(name: str) -> None:
    for path in listed(RECIPES[name][0]):
        assert path.exists() or path.name == "NAME.py", path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_lists_all_that_its_example_needs(name: str) -> None:
    files, example = RECIPES[name]
    allowed = [path.parent if path.name == "NAME.py" else path for path in listed(files)]
    found = naming(example)
    assert found, f"nothing names {example}"
    for path in found:
        assert any(path == place or (place.is_dir() and path.parent == place) for place in allowed), (
            f"{path.relative_to(ROOT)} names {example}, but the recipe for {name} does not list it"
        )


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|docs|cnnbp_cli)/[\w./]+)`", TEXT))))
def test_files_that_are_named_exist(path: str) -> None:
    assert (ROOT / path).exists() or Path(path).name == "NAME.py"


def test_every_folder_of_tests_is_described() -> None:
    readme = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    folders = {
        path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith(("_", "."))
    }
    assert not [name for name in folders if f"`{name}/`" not in readme]


def test_the_map_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert not [name for name in packages if f"{name}/" not in text]
