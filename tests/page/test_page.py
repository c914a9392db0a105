"""The page in a browser, without a network: what it shows is what Python computed, whatever is done to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.custom_layers import load_layers
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.tracing import source
from cnnbp_cli.tracing.html import page
from cnnbp_cli.tracing.payload import page_payload
from cnnbp_cli.tracing.trace import Trace, trace

from .conftest import CONFIGS, html_of, load, trace_of

Opener = Callable[..., Any]


def some_cells(found: Trace, count: int) -> list[tuple[str, str]]:
    """Draw cells of the traced network: values and gradients."""
    rng = np.random.default_rng(0)
    tensors = [(name, of) for name in found.shapes for of in ("value", "gradient")]
    cells: list[tuple[str, str]] = []
    while len(cells) < count:
        name, of = tensors[rng.integers(len(tensors))]
        shape = found.shapes[name]
        if not shape or (of == "gradient" and (name in ("prediction", "target") or "running" in name)):
            continue
        cells.append((f"{name}[{','.join(str(rng.integers(size)) for size in shape)}]", of))
    return cells


@pytest.mark.parametrize("name", ["toy", "lenet5", "resnet-mini", "depthwise", "autoencoder"])
def test_numbers_and_terms_are_pythons(name: str, open_page: Opener) -> None:
    found = trace_of(name, "dtype=float64")
    opened = open_page(found.to_html())
    assert opened("window.trace.deviation()") <= 1e-12
    assert opened("window.trace.loss()") == pytest.approx(found.loss, rel=1e-12)
    for cell, of in some_cells(found, 40):
        expected = found.value(cell) if of == "value" else found.gradient(cell)
        got = opened("([cell, of]) => window.trace[of](cell)", [cell, of])
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12), cell
        if of == "value" and found.kind(found.cell(cell).tensor) not in ("layer", "prediction"):
            continue
        terms = opened("([cell, of]) => window.trace.terms(cell, of)", [cell, of])
        assert sum(term["product"] for term in terms) == pytest.approx(expected, rel=1e-9, abs=1e-12), cell
        if any("rule" in term for term in terms):
            continue  # a function of cells, which Python states without factors
        theirs = sorted(term.product for term in found.terms(cell, of).terms if term.product != 0)
        mine = sorted(term["product"] for term in terms if term["product"] != 0)
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-14, err_msg=f"{of} of {cell}")


@pytest.mark.parametrize(("head", "channels"), [("softmax", 3), ("sigmoid", 1)])
def test_masks_start_with_every_pixel(head: str, channels: int, open_page: Opener) -> None:
    """The gradient at a pixel is p − y over the number of pixels, and an edit reaches the loss of all of them."""
    text = (
        "{dtype: float64, data: {source: synthetic, kind: bars, target: mask}, "
        f"model: {{input: [1, 6, 6], head: {head}, layers: [{{type: conv2d, filters: 2, kernel_size: 3, "
        f"padding: same}}, relu, {{type: conv2d, name: mask, filters: {channels}, kernel_size: 1}}]}}}}"
    )
    rng = np.random.default_rng(4)
    image, mask = rng.normal(size=(1, 1, 6, 6)), rng.integers(0, max(2, channels), (1, 6, 6))
    model = build(parse_config(text))
    found = trace(model, image, mask)
    opened = open_page(found.to_html(batch=(image, mask)))
    assert opened("window.trace.deviation()") <= 1e-12
    cell = f"mask[{channels - 1},2,3]"
    terms = opened("cell => window.trace.terms(cell, 'gradient')", cell)
    p, y = (found.value(f"{tensor}[{channels - 1},2,3]") for tensor in ("prediction", "target"))
    assert [term["product"] for term in terms] == pytest.approx([p / 36, -y / 36])
    called = model.predict(image)[0]
    right = called.argmax(0) == mask[0] if channels > 1 else (called[0] > 0.5) == mask[0]
    assert f"{round(100 * right.mean())}% of the mask's pixels are right" in opened.page.locator(".state").inner_text()
    opened.choose(f"{cell}:gradient")
    assert "The loss is the mean over 36 pixels" in opened.page.locator("body").inner_text()
    before = opened("window.trace.loss()")
    opened("cell => window.trace.edit(cell, 9)", "mask.bias[0]")
    assert opened("window.trace.loss()") != before
    opened.button("Mistakes").click()
    opened.button("Worksheet").click()


@pytest.mark.parametrize(
    ("name", "limit"),
    [("toy", 200_000), ("lenet5", 1_500_000), ("pytorch-mnist", 12_000_000)],
)
def test_sizes(name: str, limit: int) -> None:
    assert len(html_of(name).encode()) <= limit


def test_size_without_the_weights_of_dense_layers() -> None:
    assert len(trace_of("pytorch-mnist").to_html(light=True).encode()) <= 3_000_000


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_ready_within_a_second(theme: str, open_page: Opener) -> None:
    html = html_of("toy")
    times = [
        open_page(html, color_scheme=theme)("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        for _ in range(3)
    ]
    assert min(times) < 1000


def test_edits_are_pytorchs(open_page: Opener) -> None:
    torch = pytest.importorskip("torch")
    model, data = load("toy", "dtype=float64")
    found = trace(model, data.test.images[:1], np.array(data.test.labels[:1]))
    opened = open_page(found.to_html())
    pixels = torch.tensor(found.array("input"))[None]
    parameters = {name: torch.tensor(value) for name, value in model.parameters().items()}
    rng = np.random.default_rng(1)
    for _ in range(12):
        tensors = {"input": pixels, **parameters}
        name = list(tensors)[rng.integers(len(tensors))]
        tensor = tensors[name][0] if name == "input" else tensors[name]
        index = tuple(int(rng.integers(size)) for size in tensor.shape)
        value = float(rng.normal())
        tensor[index] = value
        opened("([cell, value]) => window.trace.edit(cell, value)", [f"{name}[{','.join(map(str, index))}]", value])
        leaves = {key: value.clone().requires_grad_() for key, value in tensors.items()}
        hidden = torch.nn.functional.conv2d(leaves["input"], leaves["conv2d_1.weight"], leaves["conv2d_1.bias"])
        pooled = torch.nn.functional.max_pool2d(hidden.relu(), 2).flatten(1)
        z = torch.nn.functional.linear(pooled, leaves["dense_1.weight"], leaves["dense_1.bias"])
        label = torch.tensor([[float(data.test.labels[0])]], dtype=torch.float64)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, label)
        loss.backward()
        assert opened("window.trace.loss()") == pytest.approx(loss.item(), rel=1e-9)
        for key, leaf in leaves.items():
            grad = leaf.grad[0] if key == "input" else leaf.grad
            cells = [f"{key}[{','.join(map(str, place))}]" for place in np.ndindex(*grad.shape)]
            got = opened("cells => cells.map((cell) => window.trace.gradient(cell))", cells)
            np.testing.assert_allclose(got, grad.numpy().ravel(), rtol=1e-9, atol=1e-14)
    opened("window.trace.reset()")
    assert opened("window.trace.loss()") == pytest.approx(found.loss, rel=1e-12)


def test_a_step_changes_the_loss_about_as_predicted(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened.page.locator("#rate").fill("0.0001")
    opened.page.locator("#rate").press("Tab")
    opened.button("One step").click()
    note = opened.page.locator(".note").inner_text()
    numbers = re.findall(r"by ([+−]?[\d.]+(?:·10[⁻\d⁰¹²³⁴⁵⁶⁷⁸⁹]+)?)", note)
    assert len(numbers) == 2, note
    predicted, real = (read(number) for number in numbers)
    assert predicted == pytest.approx(real, rel=1e-2)
    assert real < 0


def read(number: str) -> float:
    """Return a number as the page writes it."""
    digits = str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789")
    return float(number.translate(digits).replace("·10", "e"))


def test_another_label_is_another_loss(open_page: Opener) -> None:
    found = trace_of("lenet5")
    opened = open_page(found.to_html())
    opened.page.locator("#label").select_option("3")
    other = trace(found.model, found.array("input")[None], np.array([3]))
    assert opened("window.trace.loss()") == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize("name", ["toy", "lenet5", "resnet-mini"])
def test_every_answer_of_the_quiz_is_the_models(name: str, open_page: Opener) -> None:
    found = trace_of(name, "dtype=float64")
    opened = open_page(found.to_html())
    kinds = set()
    for seed in range(1, 6):
        for question in opened("seed => window.trace.quiz(seed)", seed):
            kinds.add(question["kind"])
            tensor, at = question["cell"]["tensor"], question["cell"]["at"]
            index = np.unravel_index(at, found.shapes[tensor])
            cell = f"{tensor}[{','.join(map(str, index))}]"
            if question["kind"] == "winner":
                rows = found.decisions(tensor)[0]
                assert rows is not None
                row, column = rows[index]
                source = next(node for node in found.model.graph.nodes if node.name == tensor).inputs[0]
                place = np.ravel_multi_index((index[0], row, column), found.shapes[source])
                assert question["answer"] == place
            elif question["kind"] == "gate":
                assert question["answer"] == (found.value(cell) > 0)
            elif question["kind"] == "sign":
                assert question["answer"] == np.sign(found.gradient(cell))
            elif question["kind"] == "whole":
                assert question["answer"] == pytest.approx(found.gradient(cell), rel=1e-9)
            else:
                products = [term.product for term in found.terms(cell).terms]
                assert min(abs(question["answer"] - product) for product in products) < 1e-12
    assert kinds >= ({"winner", "gate", "sign", "blank", "whole"} if name == "toy" else {"gate"})


WRONG_ON_THE_TOY = {
    "not-flipped": {"input"},
    "gate": {"conv2d_1", "conv2d_1.weight", "conv2d_1.bias", "input"},
    "mean": {"conv2d_1.bias"},
    "swapped": {"conv2d_1.weight"},
    "last-row": {"conv2d_1.weight", "conv2d_1.bias"},
    "overwrite": {"input"},
    "ties": set(),
}


@pytest.mark.parametrize("key", WRONG_ON_THE_TOY)
def test_a_mistake_is_wrong_where_it_says_so_and_right_elsewhere(key: str, open_page: Opener) -> None:
    found = trace_of("toy", "dtype=float64")
    opened = open_page(found.to_html())
    damages = {damage["tensor"]: damage for damage in opened("key => window.trace.mistake(key)", key)}
    assert damages.keys() == WRONG_ON_THE_TOY[key]
    for tensor, damage in damages.items():
        right = np.array(found.array(tensor, "gradient")).ravel()
        np.testing.assert_allclose(damage["right"], right, rtol=1e-9, atol=1e-15)
        off = np.abs(np.array(damage["wrong"]) - right) > 1e-9 * np.abs(right).max()
        assert sorted(np.flatnonzero(off)) == sorted(damage["cells"])
        assert off.any()
        assert damage["kind"]


def test_tied_winners_are_caught_on_a_flat_image(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened.button("Mistakes").click()
    opened.button("Every tied winner takes the gradient").click()
    assert "Nothing is wrong here" in opened.page.locator(".lab").inner_text()
    opened.button("Try it on a flat image").click()
    text = opened.page.locator(".lab").inner_text()
    assert "Caught." in text
    assert "4 times what it should be" in text
    assert opened.page.locator("td[data-wrong]").count() > 0


def test_overwriting_at_a_branch(open_page: Opener) -> None:
    found = trace_of("resnet-mini")
    opened = open_page(found.to_html())
    damages = {damage["tensor"]: damage for damage in opened("window.trace.mistake('overwrite')")}
    assert "stem" in damages
    assert "dense_1.weight" not in damages


def test_mistakes_cost_something(open_page: Opener) -> None:
    opened = open_page(html_of("lenet5"))
    opened.button("Mistakes").click()
    opened.button("ReLU is gated by the gradient").click()
    opened.page.get_by_role("button", name="Train 30 steps").click()
    figure = opened.page.locator(".curves figcaption").inner_text()
    right, wrong = (float(value) for value in re.findall(r"→ (\d+\.\d+)", figure))
    assert wrong > right


def test_keyboard_alone(open_page: Opener) -> None:
    """Walk through the whole pass, choose a cell, change it, answer a question, break the pass."""
    opened = open_page(html_of("toy"))
    keyboard = opened.page.keyboard
    keyboard.press("Home")
    steps = [opened.page.locator(".step-name").inner_text()]
    for _ in range(30):
        keyboard.press("ArrowRight")
        if (step := opened.page.locator(".step-name").inner_text()) == steps[-1]:
            break
        steps.append(step)
    assert steps[0] == "forward: the image"
    assert "backward: conv2d_1.weight" in steps
    assert steps[-1] == "the update of conv2d_1.weight"
    keyboard.press("Home")
    keyboard.press("End")
    keyboard.press("ArrowLeft")
    assert opened.page.locator(".step-name").inner_text() == "backward: the pixels"
    keyboard.press("Space")
    assert opened.page.locator(".step-name").inner_text() == steps[-1]

    press_until(opened, "Tab", "document.activeElement.tagName === 'TD'")
    keyboard.press("ArrowRight")
    keyboard.press("ArrowDown")
    assert opened.page.locator(".cell-name").inner_text() == "input[0,1,1]"
    before = opened("window.trace.loss()")
    keyboard.press("Enter")
    assert opened("document.activeElement.id") == "edit"
    keyboard.press("Control+A")
    keyboard.type("3")
    keyboard.press("Enter")
    assert opened("window.trace.value('input[0,1,1]')") == 3
    assert opened("window.trace.loss()") != before

    press_until(opened, "Shift+Tab", "document.activeElement.textContent === 'Predict'")
    keyboard.press("Enter")
    press_until(opened, "Tab", "document.activeElement.closest('.options') !== null")
    keyboard.press("Enter")
    assert opened.page.locator(".verdict").count() == 1
    press_until(opened, "Shift+Tab", "document.activeElement.textContent === 'Mistakes'")
    keyboard.press("Enter")
    press_until(opened, "Tab", "document.activeElement.textContent === 'The bias takes the mean'")
    keyboard.press("Enter")
    assert "1/16 times what it should be" in opened.page.locator(".lab").inner_text()


def press_until(opened: Any, key: str, condition: str) -> None:
    for _ in range(120):
        if opened(condition):
            return
        opened.page.keyboard.press(key)
    raise AssertionError(f"{key} never reached: {condition}")


def test_a_link_leads_to_its_cell(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened.choose("conv2d_1.weight[0,0,1,1]:gradient")
    assert opened.page.locator(".cell-name").inner_text() == "conv2d_1.weight[0,0,1,1]"
    assert opened.page.locator("td[data-chosen]").get_attribute("aria-label").startswith("conv2d_1.weight[0,0,1,1]")
    opened.choose("batch-norm/conv.bias[0]:gradient")
    assert "canceled" in opened.page.locator(".why").inner_text()
    opened.choose("dense_1:gradient")
    assert opened.page.locator(".cell-name").inner_text() == "dense_1[0]"


def test_why_a_pixel_cannot_matter(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened.page.locator("td[aria-label^='input[0,0,0], gradient']").click()
    assert opened.page.locator(".why").inner_text().startswith("0: nothing arrived.")


def test_scatter_and_gather_agree(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened.page.locator("td[aria-label^='input[0,2,2], gradient']").click()
    sums = opened.page.locator(".both-ways tfoot .product").all_inner_texts()
    assert len(sums) == 2
    assert sums[0] == sums[1]


def test_the_circulating_sentence_is_put_right(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened.choose("conv2d_1.weight[0,0,1,1]:gradient")
    assert "has the two swapped" in opened.page.locator(".microscope").inner_text()


def test_hover_lights_up_sources_and_users(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened.page.locator("td[aria-label^='relu_1[0,1,1], value']").hover()
    lit = opened.page.locator("td[data-source]").all()
    assert [cell.get_attribute("aria-label")[:15] for cell in lit] == ["conv2d_1[0,1,1]"]
    assert opened.page.locator("td[data-user]").first.get_attribute("aria-label").startswith("max_pool2d_1[0,0,0]")


def test_sums_can_be_added_again(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    for address in ["conv2d_1.weight[0,0,1,1]:gradient", "input[0,2,3]:gradient", "conv2d_1[0,1,1]:value"]:
        opened.choose(address)
        table = opened.page.locator("table.terms").first
        products = [read(text) for text in table.locator("tbody .product").all_inner_texts()]
        total = table.locator("tfoot .product").inner_text()
        decimals = len(total.partition(".")[2])
        assert round(sum(products), decimals) == pytest.approx(read(total), abs=1e-12)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible(theme: str, open_page: Opener, axe: str) -> None:
    opened = open_page(html_of("toy"), color_scheme=theme, bypass_csp=True)
    states = ["Cell", "What to see", "Predict", "Mistakes"]
    for state in states:
        opened.button(state).click()
        if state == "Cell":
            opened.choose("input[0,2,2]:gradient")
        if state == "Mistakes":
            opened.button("The kernel is not flipped").click()
        opened("source => { if (!window.axe) (0, eval)(source); }", axe)
        found = opened("async () => (await window.axe.run()).violations")
        assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == [], state


HOSTILE = "\"'><script>document.title='broken'</script><img src=x onerror=alert(1)>&lt;" + "long " * 2000


def test_hostile_names_do_nothing_but_show(open_page: Opener) -> None:
    found = trace_of("toy")
    payload = page_payload(found, origin=f"</script>{HOSTILE}", classes=[HOSTILE, "<b>one</b>"])
    old, new = "conv2d_1", f"</script><!--{HOSTILE}[0]"
    payload["name"] = HOSTILE
    for node in payload["nodes"]:
        node["inputs"] = [new if name == old else name for name in node["inputs"]]
        node["name"] = new if node["name"] == old else node["name"]
    opened = open_page(page(payload))
    assert opened("document.querySelectorAll('script').length") == 2
    assert opened("document.querySelectorAll('img').length") == 0
    assert opened("document.title").startswith("\"'><script>")
    opened.page.locator("td[aria-label*='[0,1,1], value']").nth(1).click()
    assert opened.page.locator(".cell-name").count() == 1
    assert opened("window.trace.deviation()") <= 1e-12
    assert opened("document.documentElement.scrollWidth") <= 1280


def test_nan_and_infinity_are_shown(open_page: Opener) -> None:
    model, data = load("toy")
    model.params["dense_1"]["weight"][0, 0] = np.nan
    model.params["conv2d_1"]["weight"][0, 0, 0, 0] = np.inf
    found = trace(model, data.test.images[:1], np.array(data.test.labels[:1]))
    opened = open_page(found.to_html())
    text = opened.page.locator(".column").inner_text()
    assert "NaN" in text
    assert "∞" in text
    assert opened("window.trace.deviation()") <= 1e-12
    opened.page.keyboard.press("End")
    opened.page.keyboard.press("ArrowLeft")


def test_narrow_and_wide(open_page: Opener) -> None:
    html = html_of("toy")
    for width, height in [(1920, 1080), (1280, 800), (400, 800)]:
        opened = open_page(html)
        opened.page.set_viewport_size({"width": width, "height": height})
        assert opened("document.documentElement.scrollWidth") <= width


def test_worksheet_and_key(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened("window.dispatchEvent(new Event('beforeprint'))")
    sheet = opened.page.locator(".worksheet .sheet")
    key = opened.page.locator(".worksheet .key")
    for part in (sheet, key):
        assert part.count() == 1
    blanks = opened("[...document.querySelectorAll('.sheet .blank')].map((cell) => cell.textContent.trim())")
    solved = opened("[...document.querySelectorAll('.key .blank')].map((cell) => cell.textContent.trim())")
    assert len(blanks) == len(solved) > 20
    assert not any(blanks)
    assert all(solved)
    opened("window.dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator(".worksheet").count() == 0


def test_checkpoints(open_page: Opener) -> None:
    found = trace_of("toy")
    first = found.model.parameters()
    second = {name: value + 0.125 for name, value in first.items()}
    opened = open_page(found.to_html(checkpoints=[("step 50", first), ("step 100", second)]))
    opened.choose("conv2d_1.weight[0,0,1,1]:value")
    if not opened.page.locator(".history tr").count():
        opened.page.locator("summary").click()
    opened.page.locator(".history tr").first.wait_for()
    rows = opened.page.locator(".history tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["step 50", "step 100"]
    opened.page.locator("#checkpoint").focus()
    opened.page.keyboard.press("Home")
    low = opened("window.trace.value('conv2d_1.weight[0,0,1,1]')")
    opened.page.keyboard.press("End")
    assert opened("window.trace.value('conv2d_1.weight[0,0,1,1]')") == pytest.approx(low + 0.125)


def test_without_the_weights_of_dense_layers_nothing_before_them_can_be_edited(open_page: Opener) -> None:
    found = trace_of("lenet5", "dtype=float64")
    opened = open_page(found.to_html(light=True))
    assert opened("window.trace.deviation()") <= 1e-12
    assert opened("window.trace.gradient('conv1.bias[0]')") == pytest.approx(found.gradient("conv1.bias[0]"), rel=1e-9)
    opened.choose("input[0,3,3]:value")
    assert "has its weights left out of this file" in opened.page.locator(".microscope").inner_text()
    assert opened.page.locator("#edit").count() == 0
    assert opened.button("One step").is_disabled()


@pytest.mark.usefixtures("registered")
def test_a_layer_of_the_users_own_is_shown_as_python_computed_it(open_page: Opener) -> None:
    examples = CONFIGS.parent / "examples"
    load_layers(examples / "homework_conv.py")
    found = source.trace_of(str(examples / "homework_conv.yaml"), source.Request())
    opened = open_page(found.to_html())
    assert opened("window.trace.deviation()") <= 1e-12
    opened.choose("input[0,2,2]:gradient")
    assert opened("window.trace.gradient('input[0,2,2]')") == pytest.approx(found.gradient("input[0,2,2]"), rel=1e-9)
    assert "was computed by HomeworkConv, which this page cannot run" in opened.page.locator(".microscope").inner_text()


def test_in_a_notebook(open_page: Opener) -> None:
    """Within the frame of a notebook, which has no address of its own."""
    opened = open_page(f"<!doctype html><html data-ready='true'><body>{trace_of('toy')._repr_html_()}</body></html>")
    frame = opened.page.frame_locator("iframe")
    frame.locator("td[aria-label^='input[0,2,2], gradient']").click()
    assert frame.locator(".cell-name").inner_text() == "input[0,2,2]"


def test_an_image_that_is_its_own_target_stays_the_target(open_page: Opener) -> None:
    found = trace_of("autoencoder", "dtype=float64")
    opened = open_page(found.to_html())
    opened.choose("input[0,10,10]:gradient")
    if opened.button("Measure it").count():
        opened.button("Measure it").click()
    assert ", the same." in opened.page.locator(".measured").inner_text()


def test_a_network_in_miniature_answers_to_the_pointer(open_page: Opener) -> None:
    opened = open_page(html_of("toy"))
    opened.button("What to see").click()
    opened.page.get_by_role("button", name="see it in miniature").first.click()
    opened.page.locator("td[aria-label^='average[0,0,0], gradient']").click()
    assert opened.page.locator(".cell-name").inner_text() == "average[0,0,0]"
    opened.button("Back to toy").click()
    opened.page.locator("td[aria-label^='dense_1[0], gradient']").click()
    assert opened.page.locator(".cell-name").inner_text() == "dense_1[0]"
