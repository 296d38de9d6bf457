"""The model server of the soak: says who it is, and sends what can be checked to the last byte.

Environment: MODEL, VERSION, POD. ``?size=N`` answers N bytes of MODEL's pattern, ``?chunks=N`` a
stream of N lines with 20 ms between them. Everything else is JSON with the digest of what came in.
"""

import hashlib
import json
import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MODEL, VERSION = os.environ.get("MODEL", ""), os.environ.get("VERSION", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    wbufsize = -1

    def do_GET(self):
        digest, received = self.read()
        query = parse_qs(urlsplit(self.path).query)
        if "chunks" in query:
            self.stream(int(query["chunks"][0]))
        elif "size" in query:
            size = int(query["size"][0])
            self.whole((f"{MODEL} " * (size // len(MODEL) + 1)).encode()[:size])
        else:
            told = {"model": MODEL, "version": VERSION, "pod": os.environ.get("POD")}
            told |= {"pid": os.getpid(), "received": received, "digest": digest}
            self.whole(json.dumps(told).encode())

    do_POST = do_GET  # noqa: N815

    def read(self):
        digest, received = hashlib.sha256(), 0
        while received < int(self.headers.get("Content-Length") or 0):
            left = int(self.headers["Content-Length"]) - received
            chunk = self.rfile.read(min(left, 65536))
            if not chunk:
                break
            digest.update(chunk)
            received += len(chunk)
        return digest.hexdigest(), received

    def whole(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, chunks):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(chunks):
            line = f"{MODEL} {number}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(0.02)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


def end(*_):
    raise SystemExit(0)


signal.signal(signal.SIGTERM, end)
server = ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
# Leaving waits for the requests in progress.
server.daemon_threads = False
try:
    server.serve_forever()
finally:
    server.server_close()
