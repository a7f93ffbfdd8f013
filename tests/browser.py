"""A headless Chromium spoken to over a pipe (Chrome DevTools Protocol), so that tests need no package for it.

`--remote-debugging-pipe` reads commands from file descriptor 3 and answers on 4: JSON, each message ended by a zero byte.
"""

import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
# Chromium's ends of the two pipes must be 3 and 4. Copied to 10 and above first: they may be 3 and 4 themselves, crossed.
START = 'exec {inbox}<&"$0" {outbox}>&"$1"; shift; exec "$@" 3<&"$inbox" 4>&"$outbox"'


def installed() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page. events: what the browser told while it was waited for."""

    def __init__(self, process: "subprocess.Popen[bytes]", inbox: int, outbox: int) -> None:
        self._process = process
        self._write, self._read = os.fdopen(inbox, "wb", buffering=0), os.fdopen(outbox, "rb")
        self._count, self._session, self.events = 0, "", list[dict[str, Any]]()
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **params: Any) -> Any:
        """One command and its answer."""
        self._count += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._count, "method": method, "params": params, **session}
        self._write.write(json.dumps(message).encode() + b"\0")
        answer = self._next(lambda told: told.get("id") == self._count)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _next(self, wanted: Any) -> dict[str, Any]:
        while True:
            letter = bytearray()
            while (byte := self._read.read(1)) != b"\0":
                assert byte, "the browser has gone"
                letter += byte
            told = json.loads(letter)
            if "method" in told:
                self.events.append(told)
            if wanted(told):
                return told

    def open(self, file: Path, width: int, dark: bool = False, media: str = "") -> None:
        """media: screen ("") or print."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.events.clear()
        self.tell("Page.navigate", url=file.as_uri())
        self._next(lambda told: told.get("method") == "Page.loadEventFired")

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.tell("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, file: Path) -> None:
        height = self.ask("document.scrollingElement.scrollHeight")
        width = self.ask("document.scrollingElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.tell("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(b64decode(shot["data"]))

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings in the console, and exceptions."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    @property
    def requests(self) -> list[str]:
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def chromium(program: str, profile: Path) -> Iterator[Tab]:
    """profile: an empty folder for the browser's own files."""
    to_browser, from_us = os.pipe()
    from_browser, to_us = os.pipe()
    command = ["bash", "-c", START, str(to_browser), str(to_us), program, *QUIET, f"--user-data-dir={profile}"]
    with subprocess.Popen(command, pass_fds=(to_browser, to_us), stderr=subprocess.DEVNULL) as process:
        os.close(to_browser)
        os.close(to_us)
        try:
            yield Tab(process, from_us, from_browser)
        finally:
            process.kill()
