"""The way back in a real browser: from the link to "connected", wide and narrow, with and without JavaScript.

`ZAPWATCH_SCREENSHOTS=1` has the pictures in docs/screenshots taken anew.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, ViewportSize, async_playwright, expect

from tests.receiver.reconnect.test_page import reconnect_targets, waiting

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic",
)  # fmt: skip
PICTURES = Path(__file__).parents[3] / "docs" / "screenshots"
PATIENCE = 60_000
"""Milliseconds that a busy machine may take for what people see at once."""
SIZES = {"desktop": (1280, 800), "phone": (390, 844), "small": (360, 640)}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)")


@asynccontextmanager
async def window(size: str, **more: Any) -> AsyncIterator[Page]:
    """Yield a browser's page that fails the test when it reaches for another host or breaks its own rules."""
    width, height = SIZES[size]
    strange: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            viewport = ViewportSize(width=width, height=height)
            context = await browser.new_context(viewport=viewport, **{"locale": "pt-BR", **more})
            page = await context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("request", lambda request: strange.append(request.url))
            page.on("console", lambda message: strange.append(message.text))
            page.on("pageerror", lambda error: strange.append(str(error)))
            yield page
            here = "/".join(page.url.split("/")[:3])
            # htmx tells the console of an event each time that a stream ends.
            usual = (f"{here}/", "data:image/png", "[object Event]")
            assert [it for it in strange if not it.startswith(usual)] == []
        finally:
            await browser.close()


async def picture(page: Page, name: str) -> None:
    """Take a picture for the documentation, where that is wished for."""
    if os.environ.get("ZAPWATCH_SCREENSHOTS"):
        PICTURES.mkdir(exist_ok=True)
        await page.screenshot(path=PICTURES / f"{name}.png", animations="disabled", full_page=True)


async def width_needed(page: Page) -> int:
    """Return how wide the page would be if nobody had to scroll sideways."""
    return int(await page.evaluate("document.documentElement.scrollWidth"))


@pytest.mark.parametrize("size", ["desktop", "phone"])
async def test_browser_goes_from_the_link_to_connected_by_itself(dsn: str, size: str) -> None:
    async with waiting(dsn) as told, window(size) as page:
        tenant = (await told.z.client.post("/tenants", json={"name": "Clínica Vida"})).json()
        instance, channel, link = await reconnect_targets(
            told, tenant_id=tenant["id"], name="Recepção Centro"
        )

        await page.goto(link)
        await expect(page.get_by_alt_text("Código QR para conectar o WhatsApp")).to_be_visible(
            timeout=PATIENCE
        )
        await picture(page, f"reconnect-{size}")
        assert await width_needed(page) <= SIZES[size][0]
        instance.scan()
        await expect(page.get_by_text("Conectado", exact=True)).to_be_visible(timeout=PATIENCE)
        await picture(page, f"reconnect-{size}-connected")

        await expect(page.get_by_role("img")).to_have_count(0)
        await told.z.until(lambda: told.z.incidents(channel), lambda all_: all_[0]["resolved_at"] is not None)


async def test_nothing_moves_when_the_qr_comes(dsn: str) -> None:
    async with waiting(dsn) as told, window("phone") as page:
        _, _, link = await reconnect_targets(told)
        await page.add_init_script(
            """window.moved = 0; new PerformanceObserver(list => {
                 for (const shift of list.getEntries()) window.moved += shift.value;
               }).observe({type: 'layout-shift', buffered: true})"""
        )

        await page.goto(link)
        await expect(page.locator(".view.qr img")).to_be_visible(timeout=PATIENCE)
        box = await page.locator(".view.qr img").bounding_box()

        assert await page.evaluate("window.moved") < 0.05
        assert box is not None
        assert box["width"] >= 280
        assert box["y"] + box["height"] <= SIZES["phone"][1]


async def test_code_to_type_comes_into_the_page(dsn: str) -> None:
    async with waiting(dsn) as told, window("phone", locale="en-GB") as page:
        instance, _, link = await reconnect_targets(told)
        # A gateway that shows a QR already makes no code.
        await page.route("**/stream*", lambda route: route.fulfill(content_type="text/event-stream", body=""))

        await page.goto(link)
        await page.get_by_text("Is this page open on that same phone?").click()
        await page.get_by_label("Phone number with country code").fill("+55 11 99999-0000")
        await page.get_by_role("button", name="Get a code").click()
        await expect(page.locator(".code")).to_be_visible(timeout=PATIENCE)
        await picture(page, "reconnect-phone-code")

        shown = (await page.locator(".code").inner_text()).replace("\n", "").replace("–", "")
        assert shown == instance.pairing_code


async def test_smallest_phone_in_the_dark_without_javascript_shows_the_qr(dsn: str) -> None:
    async with (
        waiting(dsn) as told,
        window("small", java_script_enabled=False, color_scheme="dark", locale="es-AR") as page,
    ):
        _, _, link = await reconnect_targets(told)

        await page.goto(link)
        await page.get_by_role("link", name="Mostrar el código QR").click()
        await expect(page.get_by_alt_text("Código QR para conectar WhatsApp")).to_be_visible(timeout=PATIENCE)
        await picture(page, "reconnect-small-dark")

        ground = await page.locator("body").evaluate("it => getComputedStyle(it).backgroundColor")
        assert ground == "rgb(16, 22, 19)"
