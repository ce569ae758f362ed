"""The site in a real browser: what a person does on it, with a mouse, with the keyboard alone, and on a phone."""

import io
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.papers.toys import write_toy
from tests.web.browser_help import CONTRAST, PATIENCE, SIDEWAYS, Watched, environment_of, serving
from tests.web.toys import write_paint

PAINT, COUNT = "browser_paint", "browser_count"
SLOW = {"steps": "10000", "pause": "0.05"}  # longer than any test; the tests stop it


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("browser")
    write_paint(top / "papers", PAINT)
    write_toy(top / "papers", COUNT)
    return top


@pytest.fixture(scope="module")
def address(browser: Any, place: Path) -> Iterator[str]:
    with serving(place / "home", place / "papers") as found:
        yield found


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """A page of a fresh profile; at the end none of them may have complained."""
    made: list[tuple[Any, Watched]] = []

    def new(path: str = "/", **options: Any) -> Any:
        context = browser.new_context(base_url=address, **options)
        watched = Watched(context.new_page())
        made.append((context, watched))
        watched.page.goto(path)
        return watched.page

    yield new
    for context, _ in made:
        context.close()
    assert [said for _, watched in made for said in watched.complaints] == []


def wait(page: Any, condition: str, *arguments: Any) -> None:
    page.wait_for_function(condition, arg=list(arguments), timeout=PATIENCE)


def wait_state(page: Any, *states: str) -> None:
    wait(page, "([states]) => states.includes(document.getElementById('live')?.dataset.state)", list(states))


def submit(page: Any, button: str) -> None:
    """Press it; the run's page follows, and a form that came back says why."""
    page.click(button)
    wait(page, "() => document.getElementById('live') || document.querySelector('[role=alert]')")
    assert "/runs/" in page.url, page.inner_text("[role=alert]")


def start_slow(page: Any) -> str:
    """A run that lasts until it is stopped; where it is."""
    page.goto(f"/papers/{PAINT}")
    for name, value in SLOW.items():
        page.fill(f"#o-{name}", value)
    submit(page, "#run button")
    return str(page.url)


def stop(page: Any) -> None:
    """Press Stop, again while it hesitates."""
    page.click("button.stop")
    wait_state(page, "stopping", "stopped")
    wait_state(page, "stopped")


def test_find_a_paper_and_run_it_on_a_photograph(open_page: Callable[..., Any], tmp_path: Path) -> None:
    from skimage import data

    photo = tmp_path / "my photo.png"
    from PIL import Image

    Image.fromarray(data.astronaut()).resize((48, 32)).save(photo)
    page = open_page()
    page.fill("#q", "sine sitzmann")
    wait(page, "() => [...document.querySelectorAll('.card')].filter((card) => card.offsetParent).length === 1")
    page.click(".card:not([hidden]) h2 a")
    page.wait_for_url("**/papers/siren")
    assert page.locator("math").count() > 5
    page.set_input_files("#input-files", str(photo))
    assert page.is_checked("input[value=upload]")
    page.fill("#o-steps", "25")
    for details in page.locator("#run details").all():
        details.locator("summary").click()
    page.fill("#o-width", "16")
    submit(page, "#run button")
    wait_state(page, "finished", "failed", "refused")
    assert page.get_attribute("#live", "data-state") == "finished", page.inner_text("main")
    wait(page, "() => document.querySelectorAll('#curves svg').length > 0")
    assert "psnr" in page.inner_text(".numbers.big").lower()
    wait(page, "() => document.querySelector('.gallery .first img')?.naturalWidth > 0")
    page.focus(".stage")
    before = page.get_attribute(".stage img", "alt")
    page.keyboard.press("+")
    wait(page, "([alt]) => ![alt, undefined].includes(document.querySelector('.stage img')?.alt)", before)
    wait(page, "() => document.querySelector('.stage img')?.naturalWidth > 0")
    assert page.locator(".viewer").count() == 1, "a picture has no shape to turn"
    sizes = drawn_by_a_slow_machine(page)
    assert sizes[0] == 64 and 96 < max(sizes) <= 200, sizes
    with page.expect_download() as waiting:
        page.click("text=Download all")
    archive = zipfile.ZipFile(io.BytesIO(Path(waiting.value.path()).read_bytes()))
    names = [name.rpartition("/")[2] for name in archive.namelist()]
    assert "result.json" in names and "reconstruction.png" in names and archive.testzip() is None


def drawn_by_a_slow_machine(page: Any) -> list[int]:
    """Longer sides of the pictures that the viewer asks for where each pixel takes 0.1 ms, until it rests."""
    sizes: list[int] = []

    def late(route: Any) -> None:
        if "probe=1" in route.request.url:  # the page is loaded anew: what was asked for before is not its own
            sizes.clear()
        width, height = (int(re.search(rf"{name}=(\d+)", route.request.url)[1]) for name in ("width", "height"))  # type: ignore[index]
        sizes.append(max(width, height))
        time.sleep(width * height * 1e-4)
        route.continue_()

    page.route("**/view/**", late)
    page.reload()
    wait(page, "() => document.querySelector('.stage img')?.naturalWidth > 96")
    wait(page, "() => !document.querySelector('.stage.busy')")
    page.unroute("**/view/**")
    return sizes


def test_watch_reload_and_stop(open_page: Callable[..., Any], place: Path) -> None:
    page = open_page()
    run = start_slow(page)
    moved = "([step]) => { const m = document.getElementById('pace')?.textContent.match(/^([\\d,]+) of/); "
    moved += "return m && Number(m[1].replace(',', '')) > step; }"
    wait(page, moved, 3)
    wait(page, "() => document.querySelector('#pictures img')?.src.includes('painted.png')")
    first = page.get_attribute("#pictures img", "src")
    newer = "([src]) => { const img = document.querySelector('#pictures img'); "
    newer += "return img && img.getAttribute('src') !== src; }"
    wait(page, newer, first)
    step = int(re.match(r"[\d,]+", page.inner_text("#pace"))[0].replace(",", ""))  # type: ignore[index]
    page.reload()
    wait(page, moved, step)
    # The curve begins where the run began.
    wait(page, "([step]) => document.querySelector('#curves polyline')?.points.numberOfItems >= step", max(step, 4))
    notes = page.locator("#notes li").all_inner_texts()
    assert notes and len(notes) == len(set(notes))
    stop(page)
    assert page.get_by_role("button", name="Go on").is_visible()
    assert page.locator("#curves polyline").count() >= 1, "what was drawn stays when the run ends"
    page.goto("/runs")
    assert page.locator(f"a[href='{run[run.index('/runs/'):]}']").count() >= 1


def until(true: Callable[[], bool], seconds: float = PATIENCE / 1000) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_a_run_of_the_command_line_is_watched(open_page: Callable[..., Any], place: Path) -> None:
    out = place / "home" / "runs" / "by_hand"
    process = subprocess.Popen(
        [sys.executable, "-m", "precis", "run", COUNT, "--steps", "40", "--pause", "0.1", "--out", str(out)],
        env=environment_of(place / "home", place / "papers"), stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: (out / "events.jsonl").exists() or process.poll() is not None)
        page = open_page("/runs")
        page.click("a[href='/runs/by_hand'] strong")
        wait(page, "() => document.querySelectorAll('#curves polyline').length > 0")
        wait_state(page, "finished")
        wait(page, "() => document.querySelector('.gallery .first img')?.naturalWidth > 0")
        assert "count" in page.inner_text(".numbers.big")
    finally:
        assert process.wait(60) == 0


def test_check_a_claim_at_smoke_size(open_page: Callable[..., Any]) -> None:
    page = open_page(f"/papers/{COUNT}")
    wait(page, "() => document.querySelector('#c-profile option[value=smoke]')")
    wait(page, "() => /seeds/.test(document.querySelector('#check details')?.textContent)")
    page.select_option("#c-profile", "smoke")
    page.click("#check details summary")
    page.check("input[name=claim][value=up_beats_down]")
    submit(page, "#check button")
    wait_state(page, "finished", "failed", "refused")
    assert page.get_attribute("#live", "data-state") == "finished", page.inner_text("main")
    wait(page, "() => document.querySelectorAll('#trials .dots i').length > 0")
    assert page.locator("#trials .dots i:not(.done):not(.kept)").count() == 0
    assert f"{COUNT}/up_beats_down" in page.inner_text("main")


def test_a_claim_and_its_verdict(open_page: Callable[..., Any]) -> None:
    page = open_page("/papers/siren")
    page.click("a[href^='/papers/siren/gradient_blend-']")
    page.wait_for_url("**/gradient_blend-*", timeout=PATIENCE)
    profile = page.url.rpartition("-")[2]
    text = page.inner_text("main")
    assert "siren's psnr is" in text and "95 % interval" in text and "5 seeds" in text
    assert f"precis check siren/gradient_blend --profile {profile}" in text and "torch" in text
    assert page.locator("svg.chart").count() >= 3


def focus(page: Any, selector: str) -> None:
    """Tab until what is focused is `selector`."""
    for _ in range(120):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            shown = "() => getComputedStyle(document.activeElement).outlineStyle !== 'none'"
            assert page.evaluate(shown), f"one does not see that {selector} is focused"
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {selector}")


def test_the_keyboard_alone(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    focus(page, "#q")
    page.keyboard.type("painting")
    wait(page, "() => [...document.querySelectorAll('.card')].filter((card) => card.offsetParent).length === 1")
    focus(page, ".card:not([hidden]) h2 a")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/papers/{PAINT}")
    for name, value in SLOW.items():
        focus(page, f"#o-{name}")
        page.keyboard.press("Control+a")
        page.keyboard.type(value)
    focus(page, "#run form button")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/**")
    wait_state(page, "running")
    focus(page, "button.stop")
    page.keyboard.press("Enter")
    wait_state(page, "stopped", "stopping")
    wait_state(page, "stopped")


PAGES = ["/", "/runs", "/papers/siren", f"/papers/{PAINT}", "/papers/siren/gradient_blend-quick", "/?q=nothingfits"]


GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_in_light_and_dark(open_page: Callable[..., Any], path: str) -> None:
    page = open_page(path, viewport={"width": 390, "height": 844}, has_touch=True)
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    assert page.evaluate(SIDEWAYS) <= 0, f"{path} is wider than a phone"
    for scheme, ground in GROUNDS.items():
        page.emulate_media(color_scheme=scheme)
        ratio, whose = page.evaluate(CONTRAST)
        assert ratio >= 4.5, f"{path} in {scheme}: {whose} has a contrast of {ratio:.2f}"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground


def test_a_wrong_form_is_told_and_kept(open_page: Callable[..., Any], browser: Any, address: str) -> None:
    context = browser.new_context(base_url=address, viewport={"width": 390, "height": 844})
    page = context.new_page()  # not watched: the answer is a 400, and the browser says so on its console
    page.goto(f"/papers/{PAINT}")
    page.fill("#o-steps", "7")
    page.check("input[value=upload]")
    page.click("#run button")
    page.wait_for_selector("[role=alert]")
    assert "choose a file" in page.inner_text("[role=alert]") and page.input_value("#o-steps") == "7"
    assert page.evaluate("document.activeElement.id") == "wrong" and page.evaluate(SIDEWAYS) <= 0
    context.close()
