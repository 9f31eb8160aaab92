"""The sandbox under test, and what sends to it."""

import http.client
import json
import selectors
import socket
import subprocess

from browser import until

SEND = "/MainService.svc/json/SendMessageAutoGenCode_V5"


def free_port():
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def body(phone, template="1234", type_id="2"):
    return json.dumps({"ApiKey": "sandbox-key", "SecretKey": "sandbox-secret", "Phone": phone,
                       "MultiChannelTempId": template, "TypeId": type_id})


class Sandbox:
    """The program. It is started again on the same port."""

    def __init__(self, program, log):
        self.program, self.log, self.port, self.process = program, open(log, "ab"), free_port(), None
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, *faults):
        self.process = subprocess.Popen([self.program, "--addr", f"127.0.0.1:{self.port}", *faults],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until("the sandbox listens", self.listens)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def listens(self):
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0

    def call(self, method, path, text=None):
        """The status and the body. An error of the connection is raised."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def send(self, phone, **fields):
        return self.call("POST", SEND, body(phone, **fields))

    def code_result(self, phone, **fields):
        return json.loads(self.send(phone, **fields)[1])["CodeResult"]

    def told(self, path):
        return json.loads(self.call("GET", f"/_sandbox/{path}")[1])

    def tell(self, method, path, value=None):
        status, text = self.call(method, f"/_sandbox/{path}", json.dumps(value))
        assert status == 204, f"{path}: {status} {text}"


def flood(port, count, connections=64, at_once=20):
    """Sends to so many numbers, from 0900000000 on, over many connections."""
    def request(n):
        text = body(f"09{n:08}")
        return f"POST {SEND} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}"

    batches = ([request(n) for n in range(first, min(first + at_once, count))] for first in range(0, count, at_once))
    waiting, missing = selectors.DefaultSelector(), {}

    def next_batch(to):
        batch = next(batches, None)
        if batch is None:
            waiting.unregister(to)
            to.close()
            return
        missing[to] = len(batch)
        to.sendall("".join(batch).encode())

    for _ in range(connections):
        to = socket.create_connection(("127.0.0.1", port))
        waiting.register(to, selectors.EVENT_READ)
        next_batch(to)
    while waiting.get_map():
        events = waiting.select(60)
        assert events, "the sandbox does not answer"
        for ready, _ in events:
            answered = ready.fileobj.recv(1 << 16)
            assert answered, "the sandbox closed a connection"
            # The end of each answer's JSON; an answer may come in two pieces, this one byte cannot.
            missing[ready.fileobj] -= answered.count(b"}")
            if not missing[ready.fileobj]:
                next_batch(ready.fileobj)
