"""The page at `/`, in a headless Chromium."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("selenium")

from csm_ggml.server.settings import Settings, key_digest
from selenium import webdriver
from server_harness import LONG, Running, running, until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
KEY = "sk-page"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(
        Settings(voices=tmp_path_factory.mktemp("voices"), chunk_frames=1), slots=2
    ) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    tone = tmp_path_factory.mktemp("tone") / "tone.wav"
    soundfile.write(tone, 0.1 * np.sin(np.arange(48_000 * 2) / 20), 48_000)
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-audio-capture={tone}",
        *("--window-size=1000,1400", f"--user-data-dir={profile}"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def page(server: Running, browser: Any) -> Iterator[Any]:
    browser.get(server.url)
    until(lambda: "slots" in text(browser, "server"), 20)
    until(lambda: browser.find_elements("css selector", "#voice option"))
    yield browser
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [c for c in complaints if "Content Security" in c["message"]], complaints


def text(browser: Any, id: str) -> str:
    return str(browser.find_element("id", id).text)


def put(browser: Any, id: str, value: str) -> None:
    field = browser.find_element("id", id)
    field.clear()
    field.send_keys(value)


def blob(browser: Any) -> bytes:
    """What the download link holds."""
    return bytes(
        browser.execute_async_script(
            "const done = arguments[0];"
            "player.file().arrayBuffer().then((b) => done([...new Uint8Array(b)]));"
        )
    )


def test_the_page_speaks_shows_and_offers_what_was_said(server: Running, page: Any) -> None:
    put(page, "text", "Hello there, how are you today?")
    put(page, "seed", "5")
    page.find_element("id", "speak").click()
    until(lambda: text(page, "status") == "Done.", 20)
    assert text(page, "first").endswith(" ms")
    assert 0 < float(text(page, "factor")) < 20
    assert text(page, "used-seed") == "5"
    expected = server.csm.generate("Hello there, how are you today?", seed=5).pcm16()
    assert text(page, "duration") == f"{len(expected) / 24_000:.2f} s"
    assert blob(page)[44:] == expected.tobytes()
    link = page.find_element("id", "download")
    assert link.is_displayed() and link.get_attribute("href").startswith("blob:")
    label = page.find_element("id", "wave").get_attribute("aria-label")
    assert "seconds of speech" in label
    if folder := os.environ.get("CSM_GGML_TEST_SCREENSHOTS"):
        page.save_screenshot(str(Path(folder) / "server-page.png"))


def test_stop_cancels_and_keys_work(server: Running, page: Any) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    server.csm.watermark = lambda chunk: (time.sleep(0.05), chunk.samples)[1]
    try:
        field = page.find_element("id", "text")
        field.clear()
        field.send_keys(LONG)
        field.send_keys(keys.CONTROL, keys.ENTER)
        until(lambda: text(page, "status") == "Speaking…", 20)
        assert server.busy() == 1
        field.send_keys(keys.ESCAPE)
        until(lambda: text(page, "status") == "Stopped.")
        until(lambda: server.busy() == 0, 1)
    finally:
        server.csm.watermark = None
    assert page.find_element("id", "speak").is_enabled()


def test_a_dialogue_of_two(server: Running, page: Any) -> None:
    page.find_element("css selector", "input[value=dialogue]").click()
    put(page, "seed", "5")
    page.find_element("id", "speak").click()
    until(lambda: text(page, "status") == "Done.", 20)
    expected = server.csm.generate("[0]How are you today? [1]Fine, thank you!", seed=5).pcm16()
    assert blob(page)[44:] == expected.tobytes()
    page.find_element("id", "add-turn").click()
    assert len(page.find_elements("css selector", "#turns .turn")) == 3


def test_a_voice_from_the_microphone(server: Running, page: Any) -> None:
    put(page, "voice-name", "Mine")
    put(page, "transcript", "This is me.")
    page.find_element("id", "consent").click()
    page.find_element("id", "record").click()
    until(lambda: text(page, "recorded") == "Recording…")
    time.sleep(1.2)
    page.find_element("id", "record").click()
    until(lambda: text(page, "recorded").startswith("Recorded"))
    page.find_element("id", "send-voice").click()
    until(lambda: text(page, "upload-status") == "Mine can speak now.", 20)
    [made] = [entry for entry in server.service.voices.entries() if entry.uploaded]
    assert made.name == "Mine" and "agreed" in str(made.consent)
    assert page.find_element("id", "voice").get_attribute("value") == made.id
    put(page, "text", "Hello.")
    page.find_element("id", "speak").click()
    until(lambda: text(page, "status") == "Done.", 20)


def test_everything_has_a_name_for_screen_readers(page: Any) -> None:
    unnamed = page.execute_script(
        """
        return [...document.querySelectorAll("input, select, textarea, button, canvas")]
          .filter((e) => !(e.labels && e.labels.length) && !e.getAttribute("aria-label")
            && !e.textContent.trim()).map((e) => e.outerHTML);
        """
    )
    assert unnamed == []
    order = page.execute_script("return [...document.querySelectorAll('[tabindex]')].length")
    assert order == 0
    assert page.execute_script("return document.documentElement.lang") == "en"


def test_errors_are_shown_as_text(server: Running, page: Any) -> None:
    put(page, "text", " ")
    page.find_element("id", "speak").click()
    until(lambda: "empty" in text(page, "status"), 20)


def test_the_page_with_a_key(browser: Any) -> None:
    with running(Settings(keys=(key_digest(KEY),)), slots=1) as server:
        browser.get(server.url)
        until(lambda: "key is needed" in text(browser, "status"), 20)
        put(browser, "key", KEY)
        browser.find_element("id", "text").click()
        until(lambda: browser.find_elements("css selector", "#voice option"))
        browser.find_element("id", "speak").click()
        until(lambda: text(browser, "status") == "Done.", 20)
        browser.get(f"{server.url}/docs")
        until(lambda: "POST /v1/audio/speech" in browser.find_element("id", "endpoints").text)
