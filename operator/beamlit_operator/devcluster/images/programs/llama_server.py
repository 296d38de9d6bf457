"""``llama-server``: llama.cpp's own HTTP server, started from the library that contains it.

The xllamacpp package has llama.cpp with its server compiled in, but not the program's command line
(github.com/ggml-org/llama.cpp/tree/master/tools/server). This reads the part of it that serving a
model needs, by flags or by the server's variables (``LLAMA_ARG_...``), and refuses the rest, so
that nothing that somebody asked for is silently missing. It runs in the image's own environment,
which has nothing of this project.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from typing import Any

_ANY = ("", "0.0.0.0", "::")  # noqa: S104

_POOLING = ("none", "mean", "cls", "last", "rank")

# Flags, the variable of the same meaning, the library's parameter, how to read a value.
_VALUES = (
    (("-c", "--ctx-size"), "CTX_SIZE", "n_ctx", int),
    (("-b", "--batch-size"), "BATCH", "n_batch", int),
    (("-ub", "--ubatch-size"), "UBATCH", "n_ubatch", int),
    (("-n", "--predict", "--n-predict"), "N_PREDICT", "n_predict", int),
    (("-np", "--parallel"), "N_PARALLEL", "n_parallel", int),
    (("-to", "--timeout"), "TIMEOUT", "timeout_read", int),
    (("--threads-http",), "THREADS_HTTP", "n_threads_http", int),
    (("--chat-template",), "CHAT_TEMPLATE", "chat_template", str),
    (("--api-prefix",), "API_PREFIX", "api_prefix", str),
)
_SWITCHES = (
    (("--metrics",), "ENDPOINT_METRICS", "endpoint_metrics", True),
    (("--props",), "ENDPOINT_PROPS", "endpoint_props", True),
    (("--no-slots",), "NO_ENDPOINT_SLOTS", "endpoint_slots", False),
    (("--embedding", "--embeddings"), "EMBEDDINGS", "embedding", True),
    (("--rerank", "--reranking"), "RERANKING", "reranking", True),
    (("--jinja",), "JINJA", "use_jinja", True),
    (("--no-webui", "--no-ui"), "NO_UI", "ui", False),
)


def read(arguments: Sequence[str], environment: dict[str, str]) -> argparse.Namespace:
    """The command line, and what it leaves out from the environment.

    Ends the program with status 2 where there is something that it does not know.
    """
    parser = argparse.ArgumentParser("llama-server", allow_abbrev=False)

    def add(flags: Sequence[str], variable: str, name: str, **options: Any) -> None:
        text = environment.get(f"LLAMA_ARG_{variable}")
        if text is not None:
            options["default"] = text
        parser.add_argument(*flags, dest=name, **options)

    add(("-m", "--model"), "MODEL", "model")
    add(("-a", "--alias"), "ALIAS", "alias", default="")
    add(("--host",), "HOST", "host", default="127.0.0.1")
    add(("--port",), "PORT", "port", type=int, default=8080)
    add(("-t", "--threads"), "THREADS", "threads", type=int)
    add(("-ngl", "--gpu-layers", "--n-gpu-layers"), "N_GPU_LAYERS", "gpu_layers")
    add(("--pooling",), "POOLING", "pooling", choices=_POOLING)
    parser.add_argument("--api-key", default=environment.get("LLAMA_API_KEY", ""))
    for flags, variable, name, kind in _VALUES:
        add(flags, variable, name, type=kind)
    for flags, variable, name, _ in _SWITCHES:
        on = environment.get(f"LLAMA_ARG_{variable}", "").lower() in ("1", "true", "on", "enabled")
        parser.add_argument(*flags, dest=f"{name}_", action="store_true", default=on)
    given = parser.parse_args(arguments)
    if not given.model:
        parser.error("the embedded cluster's llama-server needs --model")
    return given


def parameters(given: argparse.Namespace, address: str) -> Any:
    """The library's parameters. An address that means all is the pod's own here."""
    import xllamacpp  # type: ignore[import-not-found,unused-ignore]

    found = xllamacpp.CommonParams()
    found.model.path = given.model
    found.hostnames = [address or given.host if given.host in _ANY else given.host]
    found.port = given.port
    found.model_alias = {name.strip() for name in given.alias.split(",") if name.strip()}
    found.api_keys = [key for key in given.api_key.split(",") if key]
    if given.threads is not None:
        found.cpuparams.n_threads = given.threads
    if given.pooling is not None:
        found.pooling_type = xllamacpp.llama_pooling_type(_POOLING.index(given.pooling))
    for _, _, name, _ in _VALUES:
        if getattr(given, name) is not None:
            setattr(found, name, getattr(given, name))
    for _, _, name, value in _SWITCHES:
        if name != "reranking" and getattr(given, f"{name}_"):
            setattr(found, name, value)
    if given.reranking_:  # A model of ranks gives them as its pooled embedding.
        found.embedding = True
        found.pooling_type = xllamacpp.llama_pooling_type(_POOLING.index("rank"))
    return found


def main() -> NoReturn:
    given = read(sys.argv[1:], dict(os.environ))
    if given.gpu_layers is not None:
        print("no GPU here: --n-gpu-layers has no effect", file=sys.stderr, flush=True)
    found = parameters(given, os.environ.get("BEAMLIT_BIND_ADDRESS", ""))
    stops = {signal.SIGTERM, signal.SIGINT}
    # Before the library starts its threads, which inherit it: only the wait below sees a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    import xllamacpp  # type: ignore[import-not-found,unused-ignore]

    try:
        server = xllamacpp.Server(found)
    except RuntimeError as error:
        sys.exit(f"llama-server: {error}")
    signal.sigwait(stops)
    del server
    # The library's threads need not end before the process does.
    os._exit(0)


if __name__ == "__main__":
    main()
