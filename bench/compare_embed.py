#!/usr/bin/env python3
"""Measures `snug embed` beside sentence-transformers and transformers on the same sentences, model and threads.

usage: compare_embed.py SNUG MODEL_FOLDER TEXT [--threads 2] [--rounds 5]

Takes the first 100 sentences of a text. Prints the largest difference of any embedding's component from
sentence-transformers', and sentences per second of all three, medians of alternating rounds; loading is not counted.
transformers runs batches of 32 in order, sentence-transformers batches of 32 sorted by length, as each does by default.
Needs torch, transformers and sentence-transformers from PyPI.
"""
import argparse
import json
import re
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer


def sentences(path, n):
    text = re.sub(r"\s+", " ", Path(path).read_text(errors="replace"))
    found = [s.strip() for s in re.split(r"(?<=[.!?])\s", text)]
    return [s for s in found if 20 <= len(s) <= 400][:n]


def by_snug(args, texts):
    command = [args.snug, "embed", args.model, "--json", "-t", str(args.threads), "--memory", args.memory]
    command += ["--exact"] if args.exact else []
    run = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True)
    out = json.loads(run.stdout)
    if "error" in out:
        raise SystemExit(out["error"])
    return np.array(out["embeddings"], np.float32), out["timings"]["seconds"], out


def by_transformers(tokenizer, model, texts):
    start = time.perf_counter()
    out = []
    with torch.inference_mode():
        for i in range(0, len(texts), 32):
            batch = tokenizer(texts[i:i + 32], padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).float()
            out.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
    return torch.cat(out).numpy(), time.perf_counter() - start


def main():
    p = argparse.ArgumentParser()
    p.add_argument("snug")
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--memory", default="1GiB")
    p.add_argument("--exact", action="store_true")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    texts = sentences(args.text, 100)
    st = SentenceTransformer(args.model, device="cpu")
    tokenizer, model = AutoTokenizer.from_pretrained(args.model), AutoModel.from_pretrained(args.model).eval()
    expected = st.encode(texts, batch_size=32)
    by_transformers(tokenizer, model, texts)
    seconds = {"snug": [], "sentence-transformers": [], "transformers": []}
    for _ in range(args.rounds):
        vectors, taken, out = by_snug(args, texts)
        seconds["snug"].append(taken)
        start = time.perf_counter()
        st.encode(texts, batch_size=32)
        seconds["sentence-transformers"].append(time.perf_counter() - start)
        peer, taken = by_transformers(tokenizer, model, texts)
        seconds["transformers"].append(taken)
    print(f"{len(texts)} sentences, {out['tokens']} tokens, {args.threads} threads")
    print(f"largest difference from sentence-transformers: {np.abs(vectors - expected).max():.2e} "
          f"(transformers: {np.abs(peer - expected).max():.2e})")
    for name, times in seconds.items():
        print(f"{name:<22} {len(texts) / statistics.median(times):8.1f} sentences/s "
              f"({len(texts) / max(times):.1f} .. {len(texts) / min(times):.1f})")
    memory = out["memory"]
    print(f"snug: peak {memory['rss_peak'] / 2**20:.0f} MiB, planned {memory['planned'] / 2**20:.0f} MiB, "
          f"budget {memory['budget'] / 2**20:.0f} MiB")


main()
