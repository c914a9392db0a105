"""Every rule has its page, with the texts of the code and an example in which it is found."""

from __future__ import annotations

import pytest
from diagnosis_campaign.pages import EXAMPLE, FOLDER, index, texts

from cnnbp_cli.diagnosis.registry import RULES
from cnnbp_cli.diagnosis.rules import load_rules

load_rules()


@pytest.mark.parametrize("name", RULES)
def test_a_page_is_current(name):
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(texts(RULES[name]))
    assert f": {name}" in page.split(EXAMPLE)[1]


def test_no_page_is_of_a_rule_that_has_gone():
    assert {path.stem for path in FOLDER.glob("*.md")} == {*RULES, "README"}
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == index()
