"""A small model server: it answers who and where it is. Lies in the test store as a model's file.

Environment: START_SECONDS before it listens, CRASH (a sentence) to fail at start, STATUS of the
answers to all but probes (200), VERSION, NODE, REVISION, and DELAY_SECONDS that every answer takes.
``?seconds=N`` makes an answer take that long, ``?work=N`` so many seconds of cpu. A request with
``?begins=FILE`` writes a line into that file when it is here, and one with ``?ends=FILE`` takes
until that file is there.
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

STATUS = int(os.environ.get("STATUS", "200"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    wbufsize = -1

    def do_GET(self):
        size = int(self.headers.get("Content-Length") or 0)
        received = len(self.rfile.read(size))
        asked = parse_qs(urlsplit(self.path).query)
        for name in asked.get("begins", ()):
            with open(name, "a") as file:
                file.write(f"{os.getpid()}\n")
        seconds = float(asked.get("seconds", ["0"])[0])
        time.sleep(seconds + float(os.environ.get("DELAY_SECONDS", "0")))
        for name in asked.get("ends", ()):
            while not os.path.exists(name):
                time.sleep(0.02)
        work(float(asked.get("work", ["0"])[0]))
        body = json.dumps(
            {
                "path": self.path,
                "node": os.environ.get("NODE"),
                "version": os.environ.get("VERSION"),
                "revision": os.environ.get("REVISION"),
                "received": received,
                "pid": os.getpid(),
            }
        ).encode()
        # One write: two would wait for the peer's delayed acknowledgement (40 ms).
        self.send_response(200 if self.path == "/ready" else STATUS)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def work(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def end(*_):
    raise SystemExit(0)


if reason := os.environ.get("CRASH"):
    sys.exit(reason)
time.sleep(float(os.environ.get("START_SECONDS", "0")))
signal.signal(signal.SIGTERM, end)
server = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
# Leaving waits for the requests in progress.
server.daemon_threads = False
try:
    server.serve_forever()
finally:
    server.server_close()
