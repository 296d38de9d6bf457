"""A caller that speaks HTTP/2 without TLS and without asking first (RFC 9113, 3.3)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events


@dataclass
class Answer:
    """What came back. ``reset`` is the error code of a stream that was broken off."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None


async def request(
    host: str,
    port: int,
    *,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """One request on a connection of its own; ``body`` is at most 64 KiB, the first window."""
    reader, writer = await asyncio.open_connection(host, port)
    link = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    link.initiate_connection()
    stream = link.get_next_available_stream_id()
    head = {":method": method, ":path": path, ":authority": f"{host}:{port}", ":scheme": "http"}
    link.send_headers(stream, list({**head, **(headers or {})}.items()), end_stream=not body)
    if body:
        for start in range(0, len(body), link.max_outbound_frame_size):
            link.send_data(stream, body[start : start + link.max_outbound_frame_size])
        link.end_stream(stream)
    answer = Answer()
    try:
        while True:
            writer.write(link.data_to_send())
            received = await reader.read(65_536)
            assert received, "the connection was closed before the stream ended"
            for event in link.receive_data(received):
                match event:
                    case h2.events.ResponseReceived():
                        answer.headers = {str(k): str(v) for k, v in event.headers or ()}
                        answer.status = int(answer.headers[":status"])
                    case h2.events.DataReceived():
                        answer.body += event.data or b""
                        link.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                    case h2.events.TrailersReceived():
                        answer.trailers = {str(k): str(v) for k, v in event.headers or ()}
                    case h2.events.StreamReset():
                        answer.reset = int(event.error_code or 0)
                        return answer
                    case h2.events.StreamEnded():
                        return answer
    finally:
        writer.close()
