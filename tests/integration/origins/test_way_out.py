"""A fetcher behind a proxy, and before a store with a certificate of one's own authority."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from beamlit_operator.cli.releasetest import CONTENT, FILE, store_application
from beamlit_operator.controllers.admission.certificates import new_authority, new_certificate
from beamlit_operator.kube.trust import BUNDLES
from beamlit_operator.workloads.outgoing import PROXY_VARIABLES

STORE = "s3://helm-test/model"
"""What the store of `helm test` holds, which is as much of S3 as a fetcher asks for."""

PROXIES = (*PROXY_VARIABLES, *(name.lower() for name in PROXY_VARIABLES))


@asynccontextmanager
async def served(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The store's port on loopback."""
    runner = web.AppRunner(store_application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def fetched(folder: Path, **environment: str) -> None:
    """Runs a fetcher with these variables, and no others of the kind, and looks at what it got."""
    known = {name: value for name, value in os.environ.items() if name not in (*BUNDLES, *PROXIES)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "beamlit_operator.origins", STORE, str(folder)),
        env={**known, "TMPDIR": str(folder.parent), **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    _, words = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, words.decode()
    assert (folder / FILE).read_bytes() == CONTENT


async def test_an_authority_of_ones_own_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = new_authority(now)
    pair = new_certificate(authority, names=["127.0.0.1"], now=now)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "chain").write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "chain")
    async with served(context) as port:
        # Nobody else knows the authority, so an answer means that it was trusted.
        await fetched(
            tmp_path / "model",
            AWS_ENDPOINT_URL=f"https://127.0.0.1:{port}",
            BEAMLIT_CA_FILE=str(tmp_path / "ca.crt"),
        )


async def test_a_store_outside_is_reached_through_the_proxy_and_others_without(
    tmp_path: Path,
) -> None:
    async with served() as port:
        here = f"http://127.0.0.1:{port}"
        # Nobody has that name: only what stands for the proxy can answer.
        outside = {"AWS_ENDPOINT_URL": "http://store.invalid", "HTTP_PROXY": here}
        await fetched(tmp_path / "outside", **outside, NO_PROXY=".svc,.cluster.local")
        # Nobody listens at that proxy: only who does not ask it gets an answer.
        inside = {"AWS_ENDPOINT_URL": here, "HTTP_PROXY": "http://127.0.0.1:9"}
        await fetched(tmp_path / "inside", **inside, NO_PROXY=".svc,127.0.0.1")
