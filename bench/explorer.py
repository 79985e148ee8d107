"""Time the explorer: from a slider to the new picture in Chromium, and requests per second.

    vaestro train mnist --epochs 2 --run runs/mnist
    python bench/explorer.py runs/mnist

Prints the median and the 90th percentile of the time from a slider's event to the drawn picture,
and the number of requests to decode per second of concurrent clients.
"""

from __future__ import annotations

import http.client
import json
import shutil
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from playwright.sync_api import sync_playwright

import vaestro as vs

MOVES = 100
CLIENTS, SECONDS, ROWS = 8, 5.0, 16


def slider_times(url: str) -> list[float]:
    """Return the times from a slider's event to the drawn picture, in ms."""
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        page.wait_for_timeout(1000)
        page.evaluate("performance.clearMeasures()")
        page.locator("#sliders input").first.focus()
        for i in range(MOVES):
            page.keyboard.press("ArrowRight" if i % 40 < 20 else "ArrowLeft")
            page.wait_for_timeout(40)
        page.wait_for_timeout(500)
        script = "performance.getEntriesByName('slider to picture').map(e => e.duration)"
        times: list[float] = page.evaluate(script)
        browser.close()
    return times


def requests_per_second(url: str, units: int) -> float:
    """Return the number of requests per second of clients that decode ROWS codes each time."""
    host = url.removeprefix("http://").strip("/")
    body = json.dumps({"z": np.zeros((ROWS, units)).tolist(), "pictures": True})
    headers = {"content-type": "application/json", "accept": "application/octet-stream"}
    counts, end = [0] * CLIENTS, time.monotonic() + SECONDS

    def client(i: int) -> None:
        connection = http.client.HTTPConnection(host)
        while time.monotonic() < end:
            connection.request("POST", "/api/decode", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            counts[i] += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def main() -> None:
    explorer = vs.Run(sys.argv[1]).explore()
    units = int(np.prod(vs.Run(sys.argv[1]).model().units))
    times = np.array(slider_times(explorer.url))
    print(
        f"slider to picture: median {np.median(times):.1f} ms, 90 % below "
        f"{np.quantile(times, 0.9):.1f} ms ({len(times)} moves)"
    )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as clients:  # as browsers are
        clients.submit(units.__index__).result()  # the process is there before the time is taken
        start = time.process_time()
        rate = clients.submit(requests_per_second, explorer.url, units).result()
        cost = 1000 * (time.process_time() - start) / (rate * SECONDS)
    print(
        f"{rate:.0f} requests/s of {ROWS} codes each, from {CLIENTS} clients in another process; "
        f"processor time of a request in the server: {cost:.1f} ms"
    )
    explorer.stop()


if __name__ == "__main__":
    main()
