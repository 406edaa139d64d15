#!/usr/bin/env python3
"""A mixture of experts three times larger than its budget, run inside it.

Writes a random 8-expert model (Mixtral's form, Q8_0, about --size MB), runs it within a third of
its size and checks what `snug run --json` reports: the peak of resident memory within the budget,
and the bytes read equal to the expert cache's misses and prefetches. Needs numpy and gguf (PyPI).

    python bench/expert_budget.py [--size 400] [--snug build/release/snug] [--keep FILE]
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np

DIM, HEADS, KV_HEADS, HEAD_DIM, LAYERS, EXPERTS, USED, VOCAB = 1024, 8, 2, 128, 8, 8, 2, 4096
Q8_0 = gguf.GGMLQuantizationType.Q8_0


def q8_0(rng, rows, cols, copies=1):
    """Random blocks of 32 int8 with one scale, of the spread that keeps a layer's output near 1."""
    blocks = copies * rows * cols // 32
    data = np.empty((blocks, 34), np.uint8)
    scale = np.float16(1.7 / 127 / np.sqrt(cols))
    data[:, :2] = np.frombuffer(scale.tobytes(), np.uint8)
    data[:, 2:] = rng.integers(-127, 128, (blocks, 32), np.int8).view(np.uint8)
    shape = (rows, cols // 32 * 34) if copies == 1 else (copies, rows, cols // 32 * 34)
    return data.reshape(shape)


def write(path, megabytes):
    per_column = LAYERS * EXPERTS * 3 * DIM * 34 / 32
    ffn = int(megabytes * 1e6 / per_column) // 32 * 32
    rng = np.random.default_rng(7)
    w = gguf.GGUFWriter(path, "llama", use_temp_file=True)
    w.add_name("synthetic experts")
    w.add_block_count(LAYERS)
    w.add_context_length(4096)
    w.add_embedding_length(DIM)
    w.add_feed_forward_length(ffn)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_expert_count(EXPERTS)
    w.add_expert_used_count(USED)
    w.add_tokenizer_model("llama")
    tokens = (["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] +
              [f"\u2581w{i}" for i in range(VOCAB - 259)])
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * 259 + [-float(i) for i in range(VOCAB - 259)])
    w.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCAB - 259))
    w.add_unk_token_id(0)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    ones = np.ones(DIM, np.float32)
    w.add_tensor("token_embd.weight", rng.standard_normal((VOCAB, DIM), np.float32)
                 .astype(np.float16))
    w.add_tensor("output.weight", q8_0(rng, VOCAB, DIM), raw_dtype=Q8_0)
    w.add_tensor("output_norm.weight", ones)
    for i in range(LAYERS):
        def add(name, *shape):
            w.add_tensor(f"blk.{i}.{name}.weight", q8_0(rng, *shape), raw_dtype=Q8_0)
        w.add_tensor(f"blk.{i}.attn_norm.weight", ones)
        w.add_tensor(f"blk.{i}.ffn_norm.weight", ones)
        add("attn_q", HEADS * HEAD_DIM, DIM)
        add("attn_k", KV_HEADS * HEAD_DIM, DIM)
        add("attn_v", KV_HEADS * HEAD_DIM, DIM)
        add("attn_output", DIM, HEADS * HEAD_DIM)
        w.add_tensor(f"blk.{i}.ffn_gate_inp.weight",
                     rng.standard_normal((EXPERTS, DIM), np.float32) / np.float32(np.sqrt(DIM)))
        add("ffn_gate_exps", ffn, DIM, EXPERTS)
        add("ffn_up_exps", ffn, DIM, EXPERTS)
        add("ffn_down_exps", DIM, ffn, EXPERTS)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return 3 * ffn * DIM // 32 * 34


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--size", type=float, default=400, help="MB of experts")
    p.add_argument("--snug", default="build/release/snug")
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--keep", help="write the model here and leave it")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(a.keep or pathlib.Path(folder) / "experts.gguf")
        expert = write(path, a.size)
        budget = path.stat().st_size // 3
        words = " ".join(f"w{i * 37 % 3000}" for i in range(100))
        run = subprocess.run(
            [a.snug, "run", str(path), "--memory", str(budget), "-c", "1024", "-n", str(a.tokens),
             "--temp", "1", "-s", "1", "--ignore-eos", "--json", "-p", words],
            capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(run.stdout + run.stderr)
        r = json.loads(run.stdout)
    e, m = r["experts"], r["memory"]
    loads = e["misses"] + e["prefetches"]
    print(f"{EXPERTS} experts x {LAYERS} layers of {expert / 1e6:.1f} MB, {e['slots']} slots, "
          f"budget {budget / 2**20:.1f} MiB")
    print(f"peak {m['rss_peak'] / 2**20:.1f} MiB (planned {m['planned'] / 2**20:.1f})")
    print(f"prefill {r['timings']['prefill_tps']:.1f}/s, decode {r['timings']['decode_tps']:.1f}/s")
    print(f"{100 * e['hit_rate']:.1f} % of {e['lookups']} look-ups hit; {e['misses']} misses and "
          f"{e['prefetches']} prefetches read {e['bytes_loaded'] / 1e6:.1f} MB, "
          f"{e['bytes_per_token'] / 1e6:.2f} MB a token; the disk gave "
          f"{r['disk_bytes_per_token'] / 1e6:.2f} MB a token")
    good = m["rss_peak"] <= budget and e["bytes_loaded"] == loads * expert
    print("holds" if good else "DOES NOT HOLD")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
