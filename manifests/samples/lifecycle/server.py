"""The model server of the lifecycle samples: it greets, and says which revision does.

GREETING is what it says, FAILS how many of 100 requests it answers with 500, SLOWLY how many
milliseconds it takes. The sample store holds this file as the files of the model `greeter`.
"""

import itertools
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAILS = int(os.environ.get("FAILS", "0"))
requests = itertools.count()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(int(os.environ.get("SLOWLY", "0")) / 1000)
        fails = self.path != "/ready" and next(requests) * FAILS % 100 < FAILS
        told = {
            "greeting": os.environ.get("GREETING", "hello"),
            "revision": os.environ.get("REVISION"),
        }
        body = json.dumps({"error": "out of sorts"} if fails else told).encode()
        self.send_response(500 if fails else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()  # noqa: S104
