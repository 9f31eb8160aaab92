"""What a person does on the sandbox's page, done in Chromium; a line per check. Run by run.sh.

With UPDATE_DOCS=1 it also takes the two pictures of docs/sandbox.md.
"""

import http.server
import json
import multiprocessing
import os
import random
import sys
import threading
import time

from browser import Browser, Failed, until
from sandbox import SEND, Sandbox, flood, free_port

DOCS = os.path.join(os.path.dirname(__file__), "../../docs")
FLOOD = int(os.environ.get("PAGE_FLOOD", 100_000))
PHONE, OTHER = "0901888484", "0901888485"

# The texts of a row, and the rows there are.
ROW = "[...document.querySelectorAll('#rows tr')[arguments[0]].cells].map(cell => cell.innerText.trim())"
ROWS = "document.querySelectorAll('#rows tr').length"
FIRST_PHONE = "document.querySelector('#rows tr td:nth-child(2)')?.textContent"
SAYS = "document.querySelector(arguments[0]).innerText.includes(arguments[1])"
ON = "[...document.querySelectorAll('#on li')].map(item => item.firstChild.textContent)"
PRESSED = "document.querySelector(arguments[0]).ariaPressed"

# The smallest contrast of text and what is behind it, and where.
CONTRAST = """(() => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(part => part / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = element => {
        for (; element; element = element.parentElement) {
            const { backgroundColor } = getComputedStyle(element);
            if (backgroundColor !== 'rgba(0, 0, 0, 0)') return backgroundColor;
        }
    };
    const seen = [...document.querySelectorAll('body *')].filter(element => element.checkVisibility()
        && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()) && !element.closest('.unseen'));
    return seen.map(element => {
        const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
        return [(a + .05) / (b + .05), element.outerHTML.slice(0, 80)];
    }).sort((a, b) => a[0] - b[0])[0];
})()"""


def equal(seen, expected, what=""):
    if seen != expected:
        raise Failed(f"{what} expected {expected!r}, and there is {seen!r}")


class Page:
    """The page in the browser, and the sandbox that serves it."""

    def __init__(self, program, directory):
        self.sandbox = Sandbox(program, f"{directory}/sandbox.log")
        self.browser = Browser(directory, free_port())

    def close(self):
        self.browser.close()
        if self.sandbox.process:
            self.sandbox.kill()

    def load(self):
        self.browser.open(self.sandbox.url + "/")
        self.browser.wait("the page is live", SAYS, "#link", "live")

    def says(self, selector, words, limit=60):
        self.browser.wait(f"{selector} says: {words}", SAYS, selector, words, limit=limit)

    def on(self, *troubles):
        self.browser.wait(f"the trouble that is on: {troubles}", f"JSON.stringify({ON}) === arguments[0]",
                          json.dumps(list(troubles), ensure_ascii=False, separators=(",", ":")))
        self.says("#count", f"{len(troubles)} on" if troubles else "none is on")

    def newest(self, phone, fault="–", result="100"):
        """Sees the newest message, once it is there."""
        self.browser.wait(f"the newest message is to {phone} and met {fault}",
                          f"{FIRST_PHONE} === arguments[0] && ({ROW.replace('arguments[0]', '0')})[7] === arguments[1]", phone, fault)
        row = self.browser.js(ROW, 0)
        equal(row[6], result, "CodeResult:")
        return row

    def quiet(self, *allowed):
        """Nothing is in the console but this."""
        wrong = [line for line in self.browser.complaints() if not any(words in line for words in allowed)]
        equal(wrong, [], "the console:")

    # Each check's first words are what is printed.

    def it_says_what_to_do_first(self):
        """an empty page says where to send to"""
        self.load()
        self.says("#empty", f"ESMS_URL={self.sandbox.url}{SEND}")
        self.on()

    def messages_come_as_they_are_sent(self):
        """messages come as they are sent, with all that is known of each"""
        self.sandbox.send(PHONE)
        row = self.newest(PHONE)
        known = self.sandbox.told(f"phones/{PHONE}")["story"][0]
        equal(row[1:], [PHONE, known["code"], "1234", "Zalo or SMS", "1", "100", "–", known["sms_id"]])
        self.sandbox.send(PHONE, type_id="1", template="login-2")
        self.browser.wait("a second row", f"{ROWS} === 2")
        row = self.newest(PHONE)
        equal((row[3], row[4], row[5]), ("login-2", "only generated", "2"))
        self.sandbox.send("12")
        row = self.newest("12", result="108")
        equal((row[2], row[8]), ("–", "–"))
        self.sandbox.tell("POST", "script", {"phone": OTHER, "faults": [{"status": {"code": 502}}]})
        self.sandbox.send(OTHER)
        self.newest(OTHER, "status:502", "none")
        self.says("#requests", "4")
        self.says("#accepted", "2")
        self.says("#duplicates", "1")

    def a_number_is_found(self):
        """a number is found, however it is written, and new messages to it come"""
        self.browser.type("#find", "+84 901 888 484")
        self.says("#summary", f"{PHONE}: 2 requests, 2 accepted. Its code now is {self.sandbox.told(f'phones/{PHONE}')['code']}.")
        equal(self.browser.js(ROWS), 2)
        self.sandbox.send(OTHER)
        self.sandbox.send(PHONE)
        self.browser.wait("a third row", f"{ROWS} === 3")
        self.browser.type("#find", "0999")
        self.says("#empty", "No message to a number with “0999” in it.")
        self.browser.type("#find", "88848")
        self.says("#summary", "5 messages found.")
        self.browser.type("#find", "x")
        self.browser.press("Backspace")
        self.browser.wait("all rows", f"{ROWS} === 6")

    def a_code_is_checked(self):
        """a code is checked: a wrong one, the right one, and that one again"""
        self.browser.type("#phone", PHONE)
        for code, words in [("nonsense", "171: "), (self.sandbox.told(f"phones/{PHONE}")["code"], "100: right. It is used up now."),
                            (self.browser.js(ROW, 0)[2], "171: Code is used")]:
            self.browser.type("#code", code)
            self.browser.click("#check button")
            self.says("#checked", words)

    def each_fault_comes_and_ends(self):
        """slow; accepted, then cut; a page of HTML with 200 and with 503: on, met, ended by the button and by End"""
        for place, (fault, name, result) in enumerate([
                ("latency:5000ms", "Slow", "100"), ("reset_after", "Accepted, then cut", "100"),
                ("html", "A page of HTML", "none"), ("status:503", "A page of HTML, 503", "none")]):
            button = f"[data-always='{fault}']"
            self.browser.click(button)
            self.on(name)
            equal(self.browser.js(PRESSED, button), "true")
            phone = f"090288840{place}"
            began, seen = time.monotonic(), self.answer_to(phone)
            self.newest(phone, fault, result)
            if fault == "latency:5000ms" and time.monotonic() - began < 5:
                raise Failed("slow is not slow")
            equal(seen, {"reset_after": "cut", "html": "200 HTML", "status:503": "503 HTML"}.get(fault, "200 100"), name)
            self.browser.click(button if place % 2 else "#on button")
            self.on()
            self.says("#said", f"Ended: {name}")
            equal(self.browser.js(PRESSED, button), "false")
            equal(self.answer_to(phone), "200 100", "afterwards:")

    def answer_to(self, phone):
        try:
            status, text = self.sandbox.send(phone)
        except ConnectionError:
            return "cut"
        return f"{status} HTML" if "<html>" in text else f"{status} {json.loads(text)['CodeResult']}"

    def one_fault_takes_anothers_place(self):
        """the second of two faults takes the place of the first"""
        self.browser.click("[data-always=html]")
        self.on("A page of HTML")
        self.browser.click("[data-always=reset_after]")
        self.on("Accepted, then cut")
        equal(self.browser.js(PRESSED, "[data-always=html]"), "false")
        self.browser.click("#on button")
        self.on()

    def the_balance_runs_out(self):
        """out of balance: refused with 103, refilled by the button and by Refill"""
        before = self.browser.js("document.getElementById('balance').innerText")
        for end in ["[data-balance]", "#on button"]:
            self.browser.click("[data-balance]")
            self.on("Out of balance")
            equal(self.sandbox.code_result(OTHER), "103")
            self.newest(OTHER, "–", "103")
            self.browser.click(end)
            self.on()
        if self.browser.js("document.getElementById('balance').innerText") < before:
            raise Failed("the balance is not as at the start")

    def other_trouble_is_shown(self):
        """trouble that a program set is shown, and ended"""
        self.sandbox.tell("PUT", "forced", {"code": "146"})
        self.sandbox.tell("PUT", "mix", {"html": 0.125, "status:429:1": 0.5})
        self.sandbox.tell("PUT", "always", {"fault": "hang_after"})
        words = ["Each request meets hang_after", "Each request is refused with 146",
                 "By chance: html 12.5\u00a0%, status:429:1 50\u00a0%"]
        while words:
            self.on(*words)
            self.browser.click("#on button")
            words.pop(0)
        self.on()

    def it_goes_away_and_comes_back(self):
        """away for 10 s: refused, said with the time left, and back by itself"""
        self.quiet()
        rows = self.browser.js(ROWS)
        self.browser.click("[data-away]")
        began = time.monotonic()
        self.says("#away", "eSMS is away, as asked.")
        self.says("#left", "Back in ")
        self.says("#link", "not answering")
        equal(self.sandbox.listens(), False, "it listens:")
        self.browser.wait("it is back", "document.getElementById('away').hidden")
        if time.monotonic() - began < 8:
            raise Failed("it was not away for long")
        self.says("#link", "live")
        self.on()
        equal(self.browser.js(ROWS), rows)
        equal(self.sandbox.code_result("0903888484"), "100")
        self.newest("0903888484")
        self.quiet("net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET", "net::ERR_EMPTY_RESPONSE")

    def it_is_killed_and_started_again(self):
        """killed: said, the list stays; started again: it begins anew by itself"""
        self.sandbox.kill()
        self.says("#away", "The sandbox does not answer. Is it running?")
        equal(self.browser.js(ROWS) > 0, True)
        self.browser.click("[data-always=html]")
        self.says("#said", "The sandbox did not take it")
        self.sandbox.start()
        self.says("#said", "started again")
        self.browser.wait("the list is empty", f"{ROWS} === 0")
        self.browser.wait("it is back", "document.getElementById('away').hidden")
        self.sandbox.send(OTHER)
        self.newest(OTHER)
        self.quiet("net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET", "net::ERR_EMPTY_RESPONSE")

    def hostile_text_is_text(self):
        """hostile text is shown as text, and turns nothing around"""
        phone, template = "<script>hacked=1</script>", "\u202e<img src=x onerror='hacked=1'>"
        self.sandbox.tell("PUT", "always", {"fault": "code:<b>7</b>:<i>\u2066"})
        self.sandbox.send(phone, template=template[:32], type_id="<u>")
        self.newest(phone, "code:<b>7</b>:<i>\\u2066", "<b>7</b>")
        row = self.browser.js(ROW, 0)
        equal((row[3], row[4]), ("\\u202e" + template[1:30], "<u>"))
        self.says("#on", "Each request meets code:<b>7</b>:<i>\\u2066")
        self.browser.type("#find", "<img src=x onerror=hacked=1>")
        self.says("#empty", "<img src=x onerror=hacked=1>")
        self.browser.type("#find", phone)
        self.says("#summary", f"{phone}: 1 request, 0 accepted.")
        self.browser.type("#phone", phone)
        self.browser.type("#code", "<b>")
        self.browser.click("#check button")
        self.says("#checked", "171")
        made = self.browser.js("[typeof hacked, document.querySelectorAll('main :is(script, img, b, i, u)').length]")
        equal(made, ["undefined", 0])
        self.sandbox.tell("DELETE", "always")

    def it_stands_still_when_told(self):
        """Pause holds the list still and counts what is new; then it comes"""
        self.load()
        self.browser.click("#pause")
        self.says("#link", "paused")
        rows = self.browser.js(ROWS)
        self.sandbox.send("0904888484")
        self.says("#pause", "Paused: 1 new")
        equal(self.browser.js(ROWS), rows)
        self.browser.click("#pause")
        self.newest("0904888484")

    def the_keyboard_is_enough(self):
        """by keyboard alone: each control in order with a visible focus, a trouble on and ended, a number found, a code checked"""
        self.load()
        browser, seen = self.browser, []
        describe = "(e => [e.id || e.textContent.trim(), getComputedStyle(e).outlineStyle, parseFloat(getComputedStyle(e).outlineWidth), e.checkVisibility()])(document.activeElement)"
        for _ in range(14):
            browser.press("Tab")
            name, style, width, visible = browser.js(describe)
            if style == "none" or width < 2 or not visible:
                raise Failed(f"the focus on {name!r} cannot be seen")
            seen.append(name)
        equal(seen, ["To the messages", "trouble", "Away for 10 s", "Slow", "Out of balance", "Accepted, then cut", "A page of HTML",
                     "A page of HTML, 503", "Check a code", "phone", "code", "Check", "find", "pause"], "the order:")
        browser.press(*["Tab"] * 10, holding="Shift")
        browser.press("Space")
        self.on("Slow")
        browser.press(*["Tab"] * 5)
        equal(browser.js("document.activeElement.ariaLabel"), "End: Slow")
        browser.press("Enter")
        self.on()
        equal(browser.js("document.activeElement.id"), "trouble", "after End, the focus is on")
        self.sandbox.send(PHONE)
        browser.press(*["Tab"] * 8)
        browser.press(*PHONE)
        browser.press("Tab")
        browser.press(*self.sandbox.told(f"phones/{PHONE}")["code"])
        browser.press("Enter")
        self.says("#checked", "100: right.")
        self.load()
        browser.press("Tab")
        browser.press("Enter")
        equal(browser.js("document.activeElement.id"), "find", "after the first link, the focus is on")
        browser.press(*PHONE)
        self.says("#summary", f"{PHONE}: ")

    def everything_has_a_name(self):
        """a screen reader is told the name of every control, and the table's parts"""
        self.load()
        self.browser.wait("rows", f"{ROWS} > 0")
        nodes = self.browser.cdp("Accessibility.getFullAXTree")["nodes"]
        roles = {}
        for node in nodes:
            if not node["ignored"]:
                roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
        for role in ("button", "textbox", "searchbox", "DisclosureTriangle", "table"):
            equal([name for name in roles.get(role, [""]) if not name], [], f"{role} without a name:")
        for role in ("status", "columnheader", "cell", "row", "main", "search"):
            equal(role in roles, True, f"{role}:")

    def it_can_be_read_by_day_and_by_night(self):
        """light and dark differ, and every text stands out (4.5 to 1) in both, with trouble on"""
        self.browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        self.browser.click("[data-always=html]")
        self.on("A page of HTML")
        self.sandbox.send(OTHER)
        self.newest(OTHER, "html", "none")
        behind = set()
        for scheme in ("light", "dark"):
            self.browser.scheme(scheme)
            contrast, where = self.browser.js(CONTRAST)
            if contrast < 4.5:
                raise Failed(f"{scheme}: {contrast:.2f} to 1 is too little: {where}")
            behind.add(self.browser.js("getComputedStyle(document.body).backgroundColor"))
        equal(len(behind), 2, "backgrounds:")
        self.browser.scheme("light")
        self.browser.click("[data-always=html]")
        self.on()

    def it_fits_every_width(self):
        """no width from 320 on scrolls sideways, with hostile text, all of it open and trouble on"""
        self.sandbox.send("x" * 100, template="y" * 100, type_id="w" * 100)
        self.sandbox.tell("PUT", "always", {"fault": "code:" + "z" * 60})
        for width in (320, 360, 560, 768, 880, 1024, 1120, 1280, 1920):
            self.browser.size(width, 800, mobile=width < 800)
            self.load()
            self.says("#on", "zzz") if width > 1120 else self.browser.js("document.querySelectorAll('details').forEach(part => part.open = true)")
            self.browser.wait("rows", f"{ROWS} > 2")
            widest = self.browser.js("Math.max(document.documentElement.scrollWidth, ...[...document.querySelectorAll('body *')]"
                                     ".filter(e => e.checkVisibility() && !e.closest('.unseen')).map(e => e.getBoundingClientRect().right))")
            if widest > width:
                raise Failed(f"at {width} it is {widest} wide")
        self.sandbox.tell("DELETE", "always")
        self.browser.size(1280, 900)

    def another_website_gets_nowhere(self):
        """another website in the same browser: its calls change nothing, its frame stays empty, its name is refused"""
        before = self.sandbox.told("messages")
        foreign = b"""<iframe src="%URL/"></iframe><iframe name=other></iframe><form method=post target=other action="%URL/_sandbox/reset"></form><script>
            document.forms[0].submit();
            const post = (path, method, type, body) => fetch('%URL/_sandbox/' + path, { method, mode: type ? 'cors' : 'no-cors', body,
                headers: type ? { 'content-type': type } : {} }).catch(() => 0);
            Promise.all([post('reset', 'POST'), post('refuse', 'POST', null, '{"ms":60000}'), post('release-held', 'POST'),
                post('refuse', 'POST', 'application/json', '{"ms":60000}'), post('balance', 'PUT', 'application/json', '{"balance":0}'),
                post('always', 'DELETE', 'text/plain')]).then(() => document.title = 'done');
        </script>""".replace(b"%URL", self.sandbox.url.encode())

        class Foreign(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(foreign)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.browser.open(f"http://evil.example:{server.server_port}/")
            self.browser.wait("it has tried everything", "document.title === 'done'")
            until("the frame is refused", lambda: any("frame-ancestors" in line for line in self.browser.complaints()))
            server.shutdown()
        after = self.sandbox.told("messages")
        for what in ("run", "last", "trouble", "stats"):
            for news in (before, after):
                for changing in ("connections", "open_connections"):
                    news["stats"].pop(changing, None)
            equal(after[what], before[what], f"{what}:")
        self.browser.open(f"http://evil.example:{self.sandbox.port}/")
        self.browser.wait("its name is refused", "document.body.innerText.includes('neither localhost nor a loopback address')")
        self.browser.open("about:blank")
        self.browser.complaints()
        self.browser.requests()

    def it_stays_quick_in_a_flood(self):
        """a flood: exact counts, a bounded list, and clicks that are answered at once"""
        self.load()
        before = self.sandbox.told("stats")["requests"]
        self.browser.js("""(() => { taken = []; document.getElementById('pause').addEventListener('click', event =>
            requestAnimationFrame(() => setTimeout(() => taken.push(performance.now() - event.timeStamp)))); })()""")
        # Not at the browser's expense.
        sender = multiprocessing.Process(target=lambda: os.nice(10) and flood(self.sandbox.port, FLOOD))
        began = time.monotonic()
        sender.start()
        clicks = 0
        while sender.is_alive():
            self.browser.click("#pause")
            clicks += 1
            self.browser.wait("the click is taken", "taken.length >= arguments[0]", clicks)
            rows = self.browser.js(ROWS)
            if rows > 200:
                raise Failed(f"{rows} rows")
            sender.join(0.3)
        took = time.monotonic() - began
        equal(sender.exitcode, 0, "the sender's exit code:")
        if clicks % 2:
            self.browser.click("#pause")
        self.says("#requests", f"{before + FLOOD:,}")
        self.browser.wait("200 rows", f"{ROWS} === 200")
        words = f"{before + FLOOD:,} messages in all, the newest 200 are shown."
        if before + FLOOD > 10_000:
            words += " The last 10,000 are kept; older ones are only counted."
        self.says("#summary", words)
        taken = sorted(self.browser.js("taken"))
        told = time.monotonic()
        self.browser.type("#find", "0900000000")
        self.says("#summary", "0900000000: 1 request, 1 accepted.")
        found = time.monotonic() - told
        self.browser.type("#find", "x")
        self.browser.press("Backspace")
        for rows in (400, 600, 800, 1000):
            self.browser.wait("the list is there", f"{ROWS} === arguments[0] - 200", rows)
            self.browser.click("#more")
        self.browser.wait("1000 rows", f"{ROWS} === 1000 && document.getElementById('more').hidden")
        heap = self.browser.js("performance.memory.usedJSHeapSize")
        print(f"      {FLOOD:,} messages in {took:.0f} s; {clicks} clicks were painted after {taken[len(taken) // 2]:.0f} ms (median), "
              f"{taken[-1]:.0f} ms at most;\n      a number that is only counted was found after {found * 1000:.0f} ms; "
              f"the page's heap is {heap / 2**20:.0f} MiB")

    def nobody_else_was_asked(self):
        """no error in the console, and no request to anybody else"""
        self.quiet()
        others = {url for url in self.browser.requests() if not url.startswith((self.sandbox.url + "/", "data:", "chrome:", "about:"))}
        equal(others, set())

    def pictures(self):
        """the pictures of docs/sandbox.md"""
        self.sandbox.kill()
        self.sandbox.start("--fault", "reset_after=0.06", "--fault", "status:503=0.06")
        self.browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"},
                                                                 {"name": "prefers-color-scheme", "value": "light"}])
        for name, width, height in (("sandbox-page", 1280, 700), ("sandbox-page-narrow", 360, 760)):
            self.browser.size(width, height, mobile=width < 500)
            self.load()
            numbers = random.Random(4)
            while (sent := self.sandbox.told("stats")["requests"]) < 100:
                self.answer_to_picture(numbers, sent)
            self.browser.wait("a hundred rows", f"{ROWS} >= 100")
            if width > 500:
                self.browser.click("[data-always='latency:5000ms']")
                self.browser.wait("Slow is on", "document.querySelectorAll('#on li').length === 2")
            else:
                self.sandbox.tell("DELETE", "always")
            file = f"{DOCS}/{name}.png"
            self.browser.picture(file)
            equal(os.path.getsize(file) < 200_000, True, f"{file} is small:")

    def answer_to_picture(self, numbers, sent):
        phone = f"09{numbers.randrange(0, 9)}{numbers.randrange(1_000_000, 9_999_999)}"
        for _ in range(2):
            if self.answer_to_any(phone, "login-2" if sent % 7 == 3 else "1234", "1" if sent % 23 == 5 else "2"):
                return
            time.sleep(0.02)

    def answer_to_any(self, phone, template, type_id):
        try:
            return self.sandbox.send(phone, template=template, type_id=type_id)[0] == 200
        except ConnectionError:
            return False

    def run(self):
        checks = [self.it_says_what_to_do_first, self.messages_come_as_they_are_sent, self.a_number_is_found, self.a_code_is_checked,
                  self.each_fault_comes_and_ends, self.one_fault_takes_anothers_place, self.the_balance_runs_out,
                  self.other_trouble_is_shown, self.it_goes_away_and_comes_back, self.it_is_killed_and_started_again,
                  self.hostile_text_is_text, self.it_stands_still_when_told, self.the_keyboard_is_enough,
                  self.everything_has_a_name, self.it_can_be_read_by_day_and_by_night, self.it_fits_every_width,
                  self.nobody_else_was_asked, self.another_website_gets_nowhere, self.it_stays_quick_in_a_flood,
                  self.nobody_else_was_asked]
        if os.environ.get("UPDATE_DOCS"):
            checks.append(self.pictures)
        self.sandbox.start()
        for check in checks:
            try:
                check()
            except (Failed, AssertionError, OSError) as error:
                print(f"FAIL  {check.__doc__}\n      {error}")
                raise SystemExit(1) from None
            print(f"ok    {check.__doc__}", flush=True)


def main():
    page = Page(*sys.argv[1:])
    try:
        page.run()
    finally:
        page.close()


if __name__ == "__main__":
    main()
