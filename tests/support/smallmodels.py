"""Small real models in the formats that model servers read, made in a second or less.

Each comes with what it must answer, computed here and not by the server that is tested: by the
library that trained it, or by a forward pass in numpy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import erf
from pathlib import Path

import gguf
import numpy as np
import xgboost
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Matrix = np.ndarray


@dataclass(frozen=True)
class Tabular:
    """A model of numbers: its file, some rows, and what it must say of each."""

    file: bytes
    rows: Matrix
    expected: Matrix


def diabetes_trees() -> Tabular:
    """Boosted trees for scikit-learn's diabetes data set, as XGBoost writes them (``.ubj``)."""
    rows, target = load_diabetes(return_X_y=True)
    trees = xgboost.XGBRegressor(n_estimators=20, max_depth=3, random_state=0, n_jobs=1)
    trees.fit(rows[:400], target[:400])
    file = bytes(trees.get_booster().save_raw("ubj"))
    return Tabular(file, rows[400:405], trees.predict(rows[400:405]))


def iris_onnx() -> Tabular:
    """A classifier of irises by scikit-learn, converted: input X, outputs label, probabilities."""
    rows, classes = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(rows, classes)
    converted = to_onnx(model, rows[:1], options={"zipmap": False})
    some = rows[[0, 60, 140]]
    return Tabular(converted.SerializeToString(), some, model.predict_proba(some))


def bigram_llama(sentences: Sequence[str], *, name: str = "bigram") -> bytes:
    """A language model of the Llama architecture that continues text as the sentences go on.

    Its embedding is one unit vector a word and its output matrix the logarithm of how often a word
    followed another, so that the most likely next word is the one counted most. Attention and
    feed-forward layers are there and add nothing. Prompts consist of words of the sentences.
    """
    lines = [sentence.split() for sentence in sentences]
    words = sorted({word for line in lines for word in line})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    number = {word: len(tokens) + index for index, word in enumerate(words)}
    tokens += [f" {word}" for word in words]
    kinds += [gguf.TokenType.USER_DEFINED] * len(words)
    if len(tokens) % 2:  # Positions turn pairs of values.
        tokens.append("<unused>")
        kinds.append(gguf.TokenType.UNUSED)
    size = len(tokens)
    counts = np.full((size, size), 1e-6, np.float32)
    for line in lines:
        ids = [1, *(number[word] for word in line), 2]
        for before, after in pairwise(ids):
            counts[before, after] += 1
    follows = np.log(counts / counts.sum(axis=1, keepdims=True))

    def none(*shape: int) -> Matrix:
        return np.zeros(shape, np.float32)

    tensors = {
        "token_embd.weight": np.eye(size, dtype=np.float32),
        # The norm before makes a unit vector longer by this root.
        "output_norm.weight": np.full(size, size**-0.5, np.float32),
        "output.weight": np.ascontiguousarray(follows.T),
        "blk.0.attn_norm.weight": np.ones(size, np.float32),
        "blk.0.ffn_norm.weight": np.ones(size, np.float32),
        **{f"blk.0.attn_{part}.weight": none(size, size) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate.weight": none(32, size),
        "blk.0.ffn_up.weight": none(32, size),
        "blk.0.ffn_down.weight": none(size, 32),
    }

    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_name(name)
        writer.add_context_length(256)
        writer.add_feed_forward_length(32)
        writer.add_head_count(1)
        writer.add_head_count_kv(1)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_dimension_count(size)
        writer.add_tokenizer_model("llama")
        writer.add_token_list([token.encode() for token in tokens])
        writer.add_token_scores([0.0] * size)
        writer.add_token_types(kinds)
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(False)
        writer.add_chat_template("{% for m in messages %} {{ m['content'] }}{% endfor %}")

    return _gguf("llama", tensors, describe, embedding=size)


@dataclass(frozen=True)
class SentenceModel:
    """A model of sentences, and the vector that it must give to one."""

    file: bytes
    encode: Callable[[str], Matrix]


def sentence_bert(sentences: Sequence[str], *, width: int = 16, heads: int = 2) -> SentenceModel:
    """A sentence-embedding model of the BERT architecture, with one layer and mean pooling.

    Its words' vectors are learned from the sentences: words that stand in the same ones get near
    vectors (a singular value decomposition of who stands beside whom). The layer mixes each with
    its neighbours; small random weights in all of it make every operation count in the result.
    """
    words = sorted({word for sentence in sentences for word in sentence.split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581{word}" for word in words)]
    number = {word: index + 4 for index, word in enumerate(words)}
    beside = np.zeros((len(tokens), len(tokens)))
    for sentence in sentences:
        ids = [number[word] for word in sentence.split()]
        beside[np.ix_(ids, ids)] += 1
    left, strength, _ = np.linalg.svd(np.log1p(beside))
    learned = (left[:, :width] * np.sqrt(strength[:width])).astype(np.float32)
    random, half = np.random.default_rng(0), 0.5 * np.eye(width, dtype=np.float32)

    def some(*shape: int) -> Matrix:
        return (random.standard_normal(shape) * 0.05).astype(np.float32)

    tensors = {
        "token_embd.weight": learned,
        "token_types.weight": np.zeros((2, width), np.float32),
        "position_embd.weight": some(64, width),
        "blk.0.ffn_up.weight": some(2 * width, width),
        "blk.0.ffn_up.bias": some(2 * width),
        "blk.0.ffn_down.weight": some(width, 2 * width),
        "blk.0.ffn_down.bias": some(width),
    }
    for part, base in (("q", 0), ("k", 0), ("v", half), ("output", half)):
        tensors[f"blk.0.attn_{part}.weight"] = some(width, width) + base
        tensors[f"blk.0.attn_{part}.bias"] = some(width)
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        tensors[f"{norm}.weight"] = np.ones(width, np.float32) + some(width)
        tensors[f"{norm}.bias"] = some(width)

    def describe(writer: gguf.GGUFWriter) -> None:
        writer.add_context_length(64)
        writer.add_feed_forward_length(2 * width)
        writer.add_head_count(heads)
        writer.add_layer_norm_eps(1e-12)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("jina-v2-en")
        writer.add_token_list(tokens)
        writer.add_token_type_count(2)
        writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * len(words))
        writer.add_pad_token_id(0)
        writer.add_unk_token_id(1)
        writer.add_bos_token_id(2)
        writer.add_eos_token_id(3)
        writer.add_sep_token_id(3)

    def linear(values: Matrix, part: str) -> Matrix:
        return values @ tensors[f"{part}.weight"].T + tensors[f"{part}.bias"]

    def normal(values: Matrix, part: str) -> Matrix:
        centred = values - values.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(values.var(axis=-1, keepdims=True) + 1e-12)
        return scaled * tensors[f"{part}.weight"] + tensors[f"{part}.bias"]

    def attention(values: Matrix) -> Matrix:
        count = len(values)
        query, key, value = (
            linear(values, f"blk.0.attn_{part}").reshape(count, heads, -1) for part in "qkv"
        )
        scores = np.exp(np.einsum("ihd,jhd->hij", query, key) / np.sqrt(width / heads))
        weights = scores / scores.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", weights, value).reshape(count, width)
        return linear(mixed, "blk.0.attn_output")

    def encode(sentence: str) -> Matrix:
        ids = [2, *(number.get(word, 1) for word in sentence.split()), 3]
        values = normal(
            learned[ids] + tensors["position_embd.weight"][: len(ids)], "token_embd_norm"
        )
        values = normal(values + attention(values), "blk.0.attn_output_norm")
        inner = linear(values, "blk.0.ffn_up")
        inner = 0.5 * inner * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
        values = normal(values + linear(inner, "blk.0.ffn_down"), "blk.0.layer_output_norm")
        mean = values.mean(axis=0)
        return mean / np.linalg.norm(mean)

    return SentenceModel(_gguf("bert", tensors, describe, embedding=width), encode)


def _gguf(
    architecture: str,
    tensors: dict[str, Matrix],
    describe: Callable[[gguf.GGUFWriter], None],
    *,
    embedding: int,
) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_block_count(1)
        writer.add_embedding_length(embedding)
        writer.add_vocab_size(len(tensors["token_embd.weight"]))
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        describe(writer)
        for name, values in tensors.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()
