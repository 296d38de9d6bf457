"""Models of many formats, really served: from the store through the operator's own choice of
server, woken through the gateway, and right to the last digit that single precision has."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.support import smallmodels

from beamlit_operator.devcluster.images import interpreters
from beamlit_operator.kube import MODELS, Json

from .conftest import FINAL, Workspace, reason_of

PULLED_WITHIN = 600.0
STARTED_WITHIN = 90.0

SENTENCES = (
    "the cat sat on the mat",
    "a dog sat on the rug",
    "the cat and the dog sleep",
    "a bank lends money",
    "the market lost money today",
    "shares fell on the market",
    "banks and markets move money",
)


@pytest.fixture(scope="module")
def pulled():
    """Installs what stands for an image, once on this machine, as ``beamlit pull`` does."""

    def pull(image: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "beamlit_operator.cli.main", "pull", image],
            check=True,
            timeout=PULLED_WITHIN,
        )

    return pull


async def serve(workspace: Workspace, files: dict[str, bytes], *, suggested: str) -> None:
    """A Model of these files and its deployment: all else the files tell."""
    prefix = f"{workspace.name}-model"
    for name, content in files.items():
        workspace.stack.s3().put_object(Bucket="models", Key=f"{prefix}/{name}", Body=content)
    await workspace.apply("Environment", "production", {"policies": []})
    await workspace.secret()
    await workspace.model(uri=f"s3://models/{prefix}")
    await workspace.apply("ModelDeployment", "tiny", {"model": "tiny"})
    await workspace.until_ready("Idle")
    model = await workspace.client.get(MODELS, "tiny", workspace.name)
    assert model["status"]["suggestedRuntime"]["type"] == suggested


async def ask(workspace: Workspace, path: str, body: Json) -> Json:
    """The answer to one request, which wakes the model."""
    url = f"{workspace.stack.gateway}/{workspace.name}/models/tiny{path}"
    deadline = time.monotonic() + STARTED_WITHIN
    while True:
        async with workspace.http.post(url, json=body) as response:
            answer = await response.json()
            if response.status == 200:
                return answer
        # The gateway may learn of a new deployment a moment after its status says Idle.
        settled = response.status not in (404, 503) or reason_of(answer) in FINAL
        told = f"{response.status} {answer}{workspace.stack.logs()}"
        assert not settled, told
        assert time.monotonic() < deadline, told
        await asyncio.sleep(0.1)


def rows(name: str, datatype: str, values: np.ndarray) -> Json:
    """A request of the Open Inference Protocol."""
    shape, data = list(values.shape), values.flatten().tolist()
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}


async def test_trees_of_xgboost_are_served_by_mlserver_as_the_library_predicts(workspace, pulled):
    pulled("docker.io/seldonio/mlserver")
    trees = smallmodels.diabetes_trees()
    await serve(workspace, {"model.ubj": trees.file}, suggested="mlserver")
    answer = await ask(workspace, "/v2/models/tiny/infer", rows("rows", "FP64", trees.rows))
    found = answer["outputs"][0]["data"]
    np.testing.assert_allclose(found, trees.expected, rtol=1e-6)


async def test_an_onnx_model_is_served_by_triton_as_scikit_learn_predicts(workspace, pulled):
    if await interpreters.find(["3.13"], or_newer=False) is None:
        pytest.skip("Triton's package runs with Python 3.13 only, and there is none")
    pulled("nvcr.io/nvidia/tritonserver")
    iris = smallmodels.iris_onnx()
    # Triton's repository: a folder a model, and in it a folder a version.
    await serve(workspace, {"iris/1/model.onnx": iris.file}, suggested="triton")
    answer = await ask(workspace, "/v2/models/iris/infer", rows("X", "FP32", iris.rows))
    outputs = {output["name"]: output for output in answer["outputs"]}
    found = np.reshape(outputs["probabilities"]["data"], outputs["probabilities"]["shape"])
    np.testing.assert_allclose(found, iris.expected, atol=1e-5)
    assert outputs["label"]["data"] == iris.expected.argmax(axis=1).tolist() == [0, 1, 2]


async def test_sentences_become_vectors_and_similar_ones_are_near(workspace, pulled):
    pulled("ghcr.io/ggml-org/llama.cpp:server")
    model = smallmodels.sentence_bert(SENTENCES)
    await serve(workspace, {"model.gguf": model.file}, suggested="llamacpp")
    questions = ["the dog sat on the mat", "a cat sleep on the rug", "shares and money on markets"]
    answer = await ask(workspace, "/v1/embeddings", {"model": "tiny", "input": questions})
    vectors = np.array([item["embedding"] for item in answer["data"]])
    np.testing.assert_allclose(vectors, [model.encode(q) for q in questions], atol=2e-4)
    pets, others = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert pets > others + 0.1


async def test_a_language_model_chats_through_the_clients_of_openai(workspace, pulled):
    pulled("ghcr.io/ggml-org/llama.cpp:server")
    story = "hello reader a model sleeps until somebody calls"
    llama = smallmodels.bigram_llama([story, "the gateway wakes it"])
    await serve(workspace, {"story-f32.gguf": llama}, suggested="llamacpp")
    chat = {"model": "tiny", "temperature": 0, "messages": [{"role": "user", "content": "hello"}]}
    answer = await ask(workspace, "/v1/chat/completions", chat)
    told = answer["choices"][0]["message"]["content"]
    assert told.strip() == story.removeprefix("hello ")
    # Word by word, by the address that OpenAI's clients take.
    url = f"{workspace.stack.gateway}/{workspace.name}/openai/v1/chat/completions"
    async with workspace.http.post(url, json={**chat, "stream": True}) as response:
        assert response.status == 200
        lines = [line async for line in response.content if line.startswith(b"data: {")]
    choices = [choice for line in lines for choice in json.loads(line[6:])["choices"]]
    assert "".join(c["delta"].get("content") or "" for c in choices) == told
    assert len(choices) > len(story.split()) - 2
