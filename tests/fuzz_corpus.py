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


def recurrent(arch, vocabulary, dim=8):
    """Models with states: one layer, for Qwen3-Next one of either kind."""
    inner, states, width, heads, groups, rank, experts = 8, 3, 3, 4, 2, 2, 3
    keys = {"general.architecture": arch, "general.name": "seed", f"{arch}.block_count": 1,
            f"{arch}.embedding_length": dim, f"{arch}.context_length": 64, f"{arch}.ssm.conv_kernel": width,
            f"{arch}.attention.layer_norm_rms_epsilon": 1e-5, f"{arch}.ssm.inner_size": inner,
            f"{arch}.ssm.state_size": states, f"{arch}.ssm.time_step_rank": rank if arch == "mamba" else heads}
    conv = inner if arch == "mamba" else inner + 2 * groups * states
    b = "blk.0."
    tensors = {"token_embd.weight": [dim, len(vocabulary["tokenizer.ggml.tokens"])], "output_norm.weight": [dim],
               b + "attn_norm.weight": [dim], b + "ssm_conv1d.weight": [width, conv], b + "ssm_out.weight": [inner, dim]}
    if arch == "mamba":
        tensors |= {b + "ssm_in.weight": [dim, 2 * inner], b + "ssm_conv1d.bias": [conv], b + "ssm_dt.bias": [inner],
                    b + "ssm_x.weight": [inner, rank + 2 * states], b + "ssm_dt.weight": [rank, inner],
                    b + "ssm_a": [states, inner], b + "ssm_d": [inner]}
        return gguf(keys | vocabulary, tensors)
    keys[f"{arch}.ssm.group_count"] = groups
    tensors[b + "ssm_dt.bias"] = [heads]
    if arch == "mamba2":
        tensors |= {b + "ssm_in.weight": [dim, inner + conv + heads], b + "ssm_conv1d.bias": [conv],
                    b + "ssm_a": [1, heads], b + "ssm_d": [1, heads], b + "ssm_norm.weight": [inner // groups, groups]}
        return gguf(keys | vocabulary, tensors)
    keys |= {f"{arch}.block_count": 2, f"{arch}.feed_forward_length": 8, f"{arch}.attention.head_count": 2,
             f"{arch}.attention.head_count_kv": 1, f"{arch}.attention.key_length": 4,
             f"{arch}.attention.value_length": 4, f"{arch}.rope.dimension_count": 2,
             f"{arch}.expert_count": experts, f"{arch}.expert_used_count": 2,
             f"{arch}.expert_feed_forward_length": 4, f"{arch}.expert_shared_feed_forward_length": 4,
             f"{arch}.full_attention_interval": 2}
    tensors |= {b + "attn_qkv.weight": [dim, conv], b + "attn_gate.weight": [dim, inner],
                b + "ssm_ba.weight": [dim, 2 * heads], b + "ssm_a": [heads], b + "ssm_norm.weight": [inner // heads]}
    a = "blk.1."
    tensors |= {a + "attn_norm.weight": [dim], a + "attn_q.weight": [dim, 16], a + "attn_k.weight": [dim, 4],
                a + "attn_v.weight": [dim, 4], a + "attn_output.weight": [8, dim], a + "attn_q_norm.weight": [4],
                a + "attn_k_norm.weight": [4]}
    for p in (b, a):
        tensors |= {p + "post_attention_norm.weight": [dim], p + "ffn_gate_inp.weight": [dim, experts],
                    p + "ffn_gate_exps.weight": [dim, 4, experts], p + "ffn_up_exps.weight": [dim, 4, experts],
                    p + "ffn_down_exps.weight": [4, dim, experts], p + "ffn_gate_inp_shexp.weight": [dim],
                    p + "ffn_gate_shexp.weight": [dim, 4], p + "ffn_up_shexp.weight": [dim, 4],
                    p + "ffn_down_shexp.weight": [4, dim]}
    return gguf(keys | vocabulary, tensors)


def safetensors(header, data):
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


MODELS = {"llama": (model, sentence_piece), "qwen2": (model, byte_level), "gemma3": (model, sentence_piece),
          "mamba": (recurrent, sentence_piece), "mamba2": (recurrent, sentence_piece),
          "qwen3next": (recurrent, byte_level)}
TEXTS = ["The caf\u00e9's the 12,345th\n\n  <|im_end|><tag> don't", "\u2581\u00e9\u4e2d\u6587 \U0001F600\t\r\n", "a" * 300,
         " " * 40 + "x", "\x00\x01"]


DATA = Path(__file__).parent / "data"


def snippets():
    text = (DATA / "jinja_snippets.json").read_text(encoding="utf-8")
    return [c["template"] for c in json.loads(text)["cases"]]


def tokenizer_jsons():
    for path in sorted((DATA / "tokenizers").glob("*.json")):
        if not path.name.endswith(".cases.json"):
            yield path.stem, path.read_bytes()


def folder(kind, extra):
    """The parts of a folder, as fuzz/config.cc takes them: a model of one layer."""
    dim, ffn, vocab, heads = 16, 16, 8, 2
    config = {"model_type": kind, "hidden_size": dim, "num_hidden_layers": 1, "num_attention_heads": heads,
              "num_key_value_heads": 1, "intermediate_size": ffn, "rms_norm_eps": 1e-5, "vocab_size": vocab,
              "max_position_embeddings": 64, "rope_theta": 10000.0, "tie_word_embeddings": True,
              "eos_token_id": [1, 2]} | extra
    layer = "model.layers.0."
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind.startswith("gemma"):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes = {"model.embed_tokens.weight": [vocab, dim], "model.norm.weight": [dim]}
    shapes |= {f"{layer}{n}.weight": [dim] for n in norms}
    for name, rows in (("q", dim), ("k", dim // heads), ("v", dim // heads)):
        shapes[f"{layer}self_attn.{name}_proj.weight"] = [rows, dim]
        if kind == "qwen2":
            shapes[f"{layer}self_attn.{name}_proj.bias"] = [rows]
    shapes[layer + "self_attn.o_proj.weight"] = [dim, dim]
    if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
        shapes |= {f"{layer}self_attn.{n}_norm.weight": [dim // heads] for n in "qk"}
    if kind == "qwen3_moe":
        shapes[layer + "mlp.gate.weight"] = [2, dim]
    for part in ("experts.0.", "experts.1.") if kind == "qwen3_moe" else ("",):
        shapes |= {f"{layer}mlp.{part}{n}_proj.weight": [ffn, dim] for n in ("gate", "up")}
        shapes[f"{layer}mlp.{part}down_proj.weight"] = [dim, ffn]
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2
        for d in shape:
            size *= d
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True, "chat_template": "x",
              "added_tokens_decoder": {"1": {"content": "<s>"}, "2": {"content": "</s>", "special": True}}}
    generation = {"eos_token_id": 2, "bos_token_id": 1}
    return b"\0".join(json.dumps(part).encode() for part in (config, tokens, generation, at, header))


FOLDERS = {
    "llama": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 16}},
    "mistral": {"sliding_window": 32, "head_dim": 8, "torch_dtype": "bfloat16"},
    "qwen2": {"use_sliding_window": False, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0,
                                                               "original_max_position_embeddings": 32}},
    "qwen3": {"head_dim": 8, "attention_bias": False},
    "qwen3_moe": {"head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
                  "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 50.0, "sliding_window": 32},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 32, "sliding_window_pattern": 6,
                    "layer_types": ["sliding_attention"], "rope_local_base_freq": 10000.0},
}


def seeds():
    for i, template in enumerate(snippets()):
        yield "chat_template", str(i), template.encode()
    for arch, (build, vocabulary) in MODELS.items():
        yield "gguf", arch, build(arch, vocabulary())
        yield "engine", arch, build(arch, vocabulary())
    yield "gguf", "version2", gguf({"general.alignment": 32, "n": [1, 2, 3], "f": [1.0]}, {"w": [4, 2]}, 2)
    yield "gguf", "split", gguf({"split.no": 0, "split.count": 2, "split.tensors.count": 2}, {"w": [4]})
    one = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    two = {"dtype": "I32", "shape": [1], "data_offsets": [16, 20]}
    yield "safetensors", "two", safetensors({"__metadata__": {"format": "pt"}, "a": one, "b": two}, bytes(20))
    yield "safetensors", "empty", safetensors({}, b"")
    yield "safetensors", "scalar", safetensors({"s": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}}, bytes(2))
    for i, t in enumerate(TEXTS):
        yield "tokenizer", str(i), t.encode()
    for name, data in tokenizer_jsons():
        yield "tokenizer_json", name, data
    for path in sorted((DATA / "sentencepiece").glob("*.model")):
        yield "sentencepiece", path.stem, path.read_bytes()
    for kind, extra in FOLDERS.items():
        yield "config", kind, folder(kind, extra)
    yield "tokenizer", "invalid", b"\xff\xfe\xe2\x96 the\x80\xc3"


def words():
    keys = set()
    for arch, (build, vocabulary) in MODELS.items():
        keys |= {arch, f"{arch}.rope.dimension_count", f"{arch}.rope.scaling.attn_factor"}
        keys |= {k for k in model_keys(arch, build, vocabulary())}
    keys |= {"rope_freqs.weight", "output.weight", "linear", "none", "yarn", "general.alignment"}
    jinja = set(re.findall(r"[a-z_]{2,}|[{}%#*/|~-]{2,}", " ".join(snippets())))
    quoted = re.compile(rb'"([A-Za-z_]{2,40})"')
    parts = {w.decode() for _, data in tokenizer_jsons() for w in quoted.findall(data) if w[:1].isupper() or b"_" in w}
    folders = {w.decode() for kind, extra in FOLDERS.items() for w in quoted.findall(folder(kind, extra))}
    return {"config": folders | {"quantization_config", "text_config", "llama3", "longrope", "dynamic", "F16", "F32"},
            "sentencepiece": {"<unk>", "\u2581", "<0x0A>"}, "tokenizer_json": parts, "gguf": keys, "chat_template": jinja, "engine": keys,
            "safetensors": {"dtype", "shape", "data_offsets", "__metadata__", "F32", "BF16", "F8_E4M3"},
            "tokenizer": {"<|im_end|>", "<tag>", "<s>", "the", "'re", "\u2581"}}


def model_keys(arch, build, vocabulary):
    data, prefix = build(arch, vocabulary), (arch + ".").encode()
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
