#!/usr/bin/env python3
"""Writes tests/data/quant.safetensors: per stored type random blocks (`Q4_1.blocks`, bytes) and
what they mean (`Q4_1.values`, float32), and for types with a plain encoder what `input` becomes
(`Q4_1.encoded`), all by the PyPI package gguf, an implementation that shares nothing with ours.

    pip install gguf numpy && tests/format/make_quant_fixture.py
"""
import json
import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, quants

# Where the f16 scales of a block are: those are kept finite.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [], T.TQ1_0: [52], T.TQ2_0: [64],
}
ENCODED = [T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.MXFP4, T.TQ1_0, T.TQ2_0]


def blocks_of(kind, rng):
    weights, size = GGML_QUANT_SIZES[kind]
    n = 256 if kind == T.MXFP4 else 1280 // weights
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in HALVES[kind]:
        top = blocks[:, at + 1]  # exponents 0 to 30: zeros and subnormals too, no infinity
        top[(top & 0x7C) == 0x7C] ^= 0x40
        blocks[0, at:at + 2] = (0, 0x80)  # a negative zero
    if kind == T.MXFP4:
        blocks[:, 0] = np.arange(256)  # every exponent
    if kind == T.TQ1_0:
        blocks[:, :52] = (np.arange(n * 52) % 256).reshape(n, 52)  # every byte
    return blocks


def input_of(rng):
    x = rng.standard_normal((16, 256)).astype(np.float32)
    x *= np.exp2(rng.integers(-12, 6, (16, 1))).astype(np.float32)
    x[0] = 0  # no scale at all
    x[1, :32] = 3  # no range
    x[2, 32:] = 0
    x[3] = np.abs(x[3])
    x[4, ::2] = -x[4, 1::2]  # ties between the extremes
    return x


def main():
    tensors = {}
    for i, kind in enumerate(HALVES):
        blocks = blocks_of(kind, np.random.default_rng(100 + i))
        tensors[f"{kind.name}.blocks"] = blocks.reshape(-1)
        with np.errstate(over="ignore"):  # MXFP4's largest exponents
            tensors[f"{kind.name}.values"] = quants.dequantize(blocks, kind).reshape(-1)
    x = input_of(np.random.default_rng(1))
    tensors["input"] = x.reshape(-1)
    for kind in ENCODED:
        encoded = quants.quantize(x, kind)
        tensors[f"{kind.name}.encoded"] = np.ascontiguousarray(encoded).view(np.uint8).reshape(-1)

    header, data = {}, b""
    for name, t in tensors.items():
        raw = np.ascontiguousarray(t).tobytes()
        header[name] = {"dtype": {"float32": "F32", "uint8": "U8"}[str(t.dtype)],
                        "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out = pathlib.Path(__file__).resolve().parents[1] / "data" / "quant.safetensors"
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(out, out.stat().st_size)


if __name__ == "__main__":
    main()
