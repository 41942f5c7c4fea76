"""The search of the documentation from a disk, where browsers start no worker: its stand-in carries messages."""

from __future__ import annotations

import shutil
from pathlib import Path

from report.browsing import browser

SHIM = Path(__file__).parents[2] / "docs" / "assets" / "iframe-worker.js"
WORKER = """
addEventListener("message", async (event) => {
  await importScripts("words.js")
  postMessage({ asked: event.data, found: words })
})
"""
PAGE = """
<!doctype html><script src="shim.js"></script><script>
  const worker = new Worker(new URL("worker.js", location.href).href)
  worker.onmessage = (event) => document.title = JSON.stringify(event.data)
  worker.postMessage("loyalty")
</script>
"""


def test_a_page_on_a_disk_searches_like_one_of_a_server(tmp_path: Path) -> None:
    shutil.copy(SHIM, tmp_path / "shim.js")
    for name, text in (("worker.js", WORKER), ("words.js", "var words = 39"), ("index.html", PAGE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    with browser() as started:
        page = started.new_page()
        page.goto((tmp_path / "index.html").as_uri())
        page.wait_for_function("document.title.length > 0", timeout=10_000)
        assert page.title() == '{"asked":"loyalty","found":39}'
