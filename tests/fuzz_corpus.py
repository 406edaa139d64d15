#!/usr/bin/env python3
"""Writes the fuzz targets' seeds: for each target a folder of small valid inputs, and dictionaries of the words that
matter. Usage: fuzz_corpus.py FOLDER"""
import json
import random
import re
import struct
import sys
from pathlib import Path

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9


def text(s):
    data = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(data)) + data


def value(v):
    """A metadata value with its type."""
    if isinstance(v, bool):
        return struct.pack("<IB", BOOL, v)
    if isinstance(v, int):
        return struct.pack("<II", U32, v)
    if isinstance(v, float):
        return struct.pack("<If", F32, v)
    if isinstance(v, str):
        return struct.pack("<I", STRING) + text(v)
    head = struct.pack("<I", ARRAY)
    if isinstance(v[0], str):
        return head + struct.pack("<IQ", STRING, len(v)) + b"".join(map(text, v))
    kind, code = (F32, "f") if isinstance(v[0], float) else (5, "i")
    return head + struct.pack("<IQ", kind, len(v)) + struct.pack(f"<{len(v)}{code}", *v)


def gguf(keys, tensors, version=3):
    """tensors: name -> dimensions, innermost first; float32 values."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for key, v in keys.items():
        out += text(key) + value(v)
    data = b""
    for name, dims in tensors.items():
        out += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        out += struct.pack("<IQ", 0, len(data))
        n = 1
        for d in dims:
            n *= d
        data += struct.pack(f"<{n}f", *(random.uniform(-1, 1) for _ in range(n)))
        data += b"\0" * (-len(data) % 32)
    return out + b"\0" * (-len(out) % 32) + data


def byte_level():
    tokens, extra = [], 256
    for b in range(256):
        prints = 0x21 <= b <= 0x7E or (b >= 0xA1 and b != 0xAD)
        tokens.append(chr(b if prints else extra))
        extra += not prints
    tokens += ["th", "the", "<|im_end|>"]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [1] * (len(tokens) - 1) + [3], "tokenizer.ggml.merges": ["t h", "th e"],
            "tokenizer.ggml.eos_token_id": len(tokens) - 1, "tokenizer.chat_template": "{{ messages[0]['content'] }}"}


def sentence_piece():
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + ["\u2581", "t", "h", "th", "\u2581th"]
    types = [2, 3, 3] + [6] * 256 + [1] * 5
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))], "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_bos_token": True}


def model(arch, vocabulary, dim=8, heads=2, ffn=8, layers=1):
    keys = {"general.architecture": arch, "general.name": "seed", f"{arch}.block_count": layers,
            f"{arch}.embedding_length": dim, f"{arch}.feed_forward_length": ffn,
            f"{arch}.attention.head_count": heads, f"{arch}.attention.head_count_kv": 1,
            f"{arch}.context_length": 64, f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
            f"{arch}.rope.freq_base": 10000.0}
    if arch == "gemma3":
        keys |= {"gemma3.attention.sliding_window": 32, "gemma3.attention.key_length": dim // heads,
                 "gemma3.attention.value_length": dim // heads}
    if arch == "llama":
        keys |= {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0,
                 "llama.rope.scaling.original_context_length": 32}
    keys |= vocabulary
    head = dim // heads
    tensors = {"token_embd.weight": [dim, len(vocabulary["tokenizer.ggml.tokens"])], "output_norm.weight": [dim]}
    for layer in range(layers):
        b = f"blk.{layer}."
        tensors |= {b + "attn_norm.weight": [dim], b + "attn_q.weight": [dim, dim], b + "attn_k.weight": [dim, head],
                    b + "attn_v.weight": [dim, head], b + "attn_output.weight": [dim, dim], b + "ffn_norm.weight": [dim],
                    b + "ffn_gate.weight": [dim, ffn], b + "ffn_up.weight": [dim, ffn], b + "ffn_down.weight": [ffn, dim]}
        if arch == "qwen2":
            tensors |= {b + "attn_q.bias": [dim], b + "attn_k.bias": [head], b + "attn_v.bias": [head]}
        if arch == "gemma3":
            tensors |= {b + "attn_q_norm.weight": [head], b + "attn_k_norm.weight": [head],
                        b + "post_attention_norm.weight": [dim], b + "post_ffw_norm.weight": [dim]}
    return gguf(keys, tensors)


def safetensors(header, data):
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


MODELS = {"llama": sentence_piece, "qwen2": byte_level, "gemma3": sentence_piece}
TEXTS = ["The caf\u00e9's the 12,345th\n\n  <|im_end|><tag> don't", "\u2581\u00e9\u4e2d\u6587 \U0001F600\t\r\n", "a" * 300,
         " " * 40 + "x", "\x00\x01"]


def snippets():
    path = Path(__file__).parent / "data" / "jinja_snippets.json"
    return [c["template"] for c in json.loads(path.read_text(encoding="utf-8"))["cases"]]


def seeds():
    for i, template in enumerate(snippets()):
        yield "chat_template", str(i), template.encode()
    for arch, vocabulary in MODELS.items():
        yield "gguf", arch, model(arch, vocabulary())
        yield "engine", arch, model(arch, vocabulary())
    yield "gguf", "version2", gguf({"general.alignment": 32, "n": [1, 2, 3], "f": [1.0]}, {"w": [4, 2]}, 2)
    yield "gguf", "split", gguf({"split.no": 0, "split.count": 2, "split.tensors.count": 2}, {"w": [4]})
    one = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    two = {"dtype": "I32", "shape": [1], "data_offsets": [16, 20]}
    yield "safetensors", "two", safetensors({"__metadata__": {"format": "pt"}, "a": one, "b": two}, bytes(20))
    yield "safetensors", "empty", safetensors({}, b"")
    yield "safetensors", "scalar", safetensors({"s": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}}, bytes(2))
    for i, t in enumerate(TEXTS):
        yield "tokenizer", str(i), t.encode()
    yield "tokenizer", "invalid", b"\xff\xfe\xe2\x96 the\x80\xc3"


def words():
    keys = set()
    for arch, vocabulary in MODELS.items():
        keys |= {arch, f"{arch}.rope.dimension_count", f"{arch}.rope.scaling.attn_factor"}
        keys |= {k for k in model_keys(arch, vocabulary())}
    keys |= {"rope_freqs.weight", "output.weight", "linear", "none", "yarn", "general.alignment"}
    jinja = set(re.findall(r"[a-z_]{2,}|[{}%#*/|~-]{2,}", " ".join(snippets())))
    return {"gguf": keys, "chat_template": jinja, "engine": keys,
            "safetensors": {"dtype", "shape", "data_offsets", "__metadata__", "F32", "BF16", "F8_E4M3"},
            "tokenizer": {"<|im_end|>", "<tag>", "<s>", "the", "'re", "\u2581"}}


def model_keys(arch, vocabulary):
    data, prefix = model(arch, vocabulary), (arch + ".").encode()
    found = set(vocabulary)
    at = data.find(prefix)
    while at >= 0:
        length = struct.unpack("<Q", data[at - 8:at])[0]
        if length < 100:
            found.add(data[at:at + length].decode("ascii", "ignore"))
        at = data.find(prefix, at + 1)
    return found


def main():
    random.seed(1)
    folder = Path(sys.argv[1])
    for target, name, data in seeds():
        (folder / target).mkdir(parents=True, exist_ok=True)
        (folder / target / f"seed-{name}").write_bytes(data)
    for target, entries in words().items():
        quoted = ("".join(f"\\x{b:02x}" if b < 32 or b > 126 or b in b'"\\' else chr(b) for b in w.encode())
                  for w in sorted(entries))
        (folder / f"{target}.dict").write_text("".join(f'"{w}"\n' for w in quoted))


main()
