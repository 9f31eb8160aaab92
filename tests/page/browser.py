"""Chromium, driven by chromedriver through the WebDriver protocol. Only what the test needs, in the standard library."""

import base64
import http.client
import json
import subprocess
import time

# The key that WebDriver gives an element's id under.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Space": " ", "Shift": "\ue008", "Backspace": "\ue003"}

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--disable-breakpad", "--no-default-browser-check", "--lang=en", "--window-size=1280,900",
         # A name of another website that leads to this machine.
         "--host-resolver-rules=MAP evil.example 127.0.0.1"]


class Failed(Exception):
    """What is not as it should be."""


def until(what, look, limit=60):
    """Calls `look` until it gives something true, and returns that."""
    deadline = time.monotonic() + limit
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise Failed(f"not within {limit} s: {what}")
        time.sleep(0.05)


class Browser:
    """One window."""

    def __init__(self, directory, port):
        self.log = open(f"{directory}/chromedriver.log", "ab")
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.port, self.session = port, None
        until("chromedriver answers", self._is_up)
        options = {"args": [*FLAGS, f"--user-data-dir={directory}/profile"]}
        asked = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options,
                                 "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}
        self.session = self._call("POST", "/session", {"capabilities": asked})["sessionId"]
        self.events = []

    def _is_up(self):
        if self.driver.poll() is not None:
            raise Failed("chromedriver has ended: see chromedriver.log")
        try:
            return self._call("GET", "/status")["ready"]
        except OSError:
            return False

    def _call(self, method, path, body=None):
        if self.session:
            path = f"/session/{self.session}{path}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, json.dumps(body) if body is not None else None)
        value = json.loads(connection.getresponse().read())["value"]
        connection.close()
        if isinstance(value, dict) and "error" in value:
            raise Failed(f"{path}: {value['error']}: {value['message'].splitlines()[0]}")
        return value

    def close(self):
        if self.session:
            self._call("DELETE", "")
        self.driver.terminate()
        self.driver.wait(20)
        self.log.close()

    def open(self, url):
        self._call("POST", "/url", {"url": url})

    def js(self, script, *arguments):
        """The value of an expression."""
        return self._call("POST", "/execute/sync", {"script": f"return ({script})", "args": list(arguments)})

    def wait(self, what, script, *arguments, limit=60):
        return until(what, lambda: self.js(script, *arguments), limit)

    def element(self, selector):
        return self._call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        """As a person does: it must be visible, and nothing may lie over it."""
        self._call("POST", f"/element/{self.element(selector)}/click", {})

    def type(self, selector, text):
        """In place of what is there."""
        element = self.element(selector)
        self._call("POST", f"/element/{element}/clear", {})
        self._call("POST", f"/element/{element}/value", {"text": text})

    def text(self, selector):
        return self._call("GET", f"/element/{self.element(selector)}/text")

    def press(self, *keys, holding=None):
        """Keys of the keyboard, to whatever has the focus."""
        strokes = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        if holding:
            strokes = [{"type": "keyDown", "value": KEYS[holding]}, *strokes, {"type": "keyUp", "value": KEYS[holding]}]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def cdp(self, command, **parameters):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width, height, scale=1, mobile=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def scheme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, file):
        data = self.cdp("Page.captureScreenshot", format="png")["data"]
        with open(file, "wb") as to:
            to.write(base64.b64decode(data))

    def complaints(self):
        """What is in the console since the last look, at the level of an error."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def requests(self):
        """The URL of every request since the last look."""
        entries = (json.loads(entry["message"])["message"] for entry in self._call("POST", "/se/log", {"type": "performance"}))
        return [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
