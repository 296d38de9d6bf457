"""The tutorials, command by command, with small stand-ins of the repositories that they name.

``python -m tests.integration.cli.test_tutorials PAGE`` writes what it prints into the page.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import struct
import sys
from pathlib import Path

import pytest
from tests.support.reader import SampleStack, reader
from tests.support.smallmodels import bigram_llama
from tests.support.stack import ROOT, free_port

from beamlit_operator.cli.images import pull_command
from beamlit_operator.cli.shipped import read_roles

TUTORIALS = ROOT / "docs" / "tutorials"
TOKEN = "hf_of-acme"
LLAMACPP = "ghcr.io/ggml-org/llama.cpp:server"


def safetensors() -> bytes:
    """Two tensors of a model's: the form of its files, and almost none of its size."""
    tensors = {"model.embed_tokens.weight": [32, 8], "lm_head.weight": [32, 8]}
    header, end = {}, 0
    for name, (rows, columns) in tensors.items():
        start, end = end, end + 2 * rows * columns
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def llama_files() -> dict[str, bytes]:
    """A repository of the Llama family, as TinyLlama's is: its config.json says the same."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "max_position_embeddings": 2048,
        "hidden_size": 2048,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
    }
    return {
        "README.md": b"# A stand-in\n",
        "config.json": json.dumps(config).encode(),
        "generation_config.json": b"{}",
        "model.safetensors": safetensors(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
    }


class PublicStack(SampleStack):
    """With a Hub that has the two public repositories."""

    def start_stores(self) -> None:
        super().start_stores()
        gguf = bigram_llama(["What is a llama? A llama carries what people in the Andes need."])
        self.hub.add("TinyLlama/TinyLlama-1.1B-Chat-v1.0", llama_files())
        self.hub.add(
            "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
            {
                "README.md": b"# A stand-in\n",
                "tinyllama-1.1b-chat-v1.0.Q2_K.gguf": b"not asked for",
                "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf": gguf,
            },
        )


class PrivateStack(SampleStack):
    """With a Hub that has the private repository, and a gateway that asks who calls."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cluster_flags = ("--authorization", "RBAC")
        listen = f"127.0.0.1:{free_port()}"
        self.gateway_flags = ("--authentication", "--authentication-listen", listen)

    def start_stores(self) -> None:
        super().start_stores()
        name, ask = "acme/support-llama", "Where is my parcel?"
        for version, says in (
            ("v1.0", "It left our warehouse this morning."),
            ("v1.1", "Tell me your order number, please."),
        ):
            gguf = bigram_llama([f"{ask} {says}"], name=f"support {version}")
            files = {**llama_files(), "support-llama-f32.gguf": gguf}
            self.hub.add(name, files, branch=version)
        self.hub.tokens.add(TOKEN)
        self.hub.repos[name].private = True
        self.hub.repos[name].granted = {TOKEN}

    def prepare(self) -> None:
        super().prepare()
        for role in read_roles("people"):
            self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(role))


STACKS: dict[str, type[SampleStack]] = {
    "public-llama": PublicStack,
    "fine-tuned-from-hugging-face": PrivateStack,
}


def page_of(name: str) -> Path:
    return TUTORIALS / f"{name}.md"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
@pytest.mark.parametrize("name", STACKS)
def test_every_command_of_a_tutorial_prints_what_it_says(name: str) -> None:
    asyncio.run(pull_command(LLAMACPP))
    with reader(STACKS[name], {"HF_TOKEN": TOKEN}) as person:
        wrong = person.first_wrong(page_of(name))
    assert not wrong, wrong


def main() -> None:
    (name,) = sys.argv[1:]
    with reader(STACKS[name], {"HF_TOKEN": TOKEN}) as person:
        person.rewrite(page_of(name))


if __name__ == "__main__":
    main()
