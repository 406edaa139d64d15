#!/usr/bin/env python3
"""Measures the fast path against --exact: full-vocabulary KL divergence, top-1 agreement and perplexity.

Texts: the first 256 tokens of each golden text (SNUG_GOLDEN) and the first 4096 tokens of a book (SNUG_DATA), which
cross Gemma's window. Prints a Markdown table. --kv adds rows with other cache types against the same reference.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNUG = ROOT / "build/release/snug"
MODELS = Path(os.environ.get("SNUG_MODELS") or Path.home() / ".cache/snug/models")
GOLDEN = Path(os.environ.get("SNUG_GOLDEN") or ROOT / "../shared/golden")
DATA = Path(os.environ.get("SNUG_DATA") or ROOT / "../shared/data")
NAMES = {"Gemma": "gemma-3-270m-q4_k_m", "Qwen": "qwen2.5-coder-1.5b-instruct-q4_k_m"}


def golden_tokens(path, count):
    """The token lists of a safetensors file of goldens."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
        lists = []
        while f"tokens_{len(lists)}" in header:
            begin, end = header[f"tokens_{len(lists)}"]["data_offsets"]
            f.seek(8 + length + begin)
            data = f.read(end - begin)
            lists.append(list(struct.unpack(f"<{len(data) // 4}i", data))[:count])
    return lists


def snug(*args):
    result = subprocess.run([str(SNUG), *map(str, args), "--json"], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"snug {args[0]} failed: {result.stdout}{result.stderr}")
    return json.loads(result.stdout)


def book_tokens(model, count):
    book = sorted((DATA / "pg19").glob("*.txt"))[0]
    text = book.read_text(errors="replace")[:40000]
    result = subprocess.run([str(SNUG), "tokenize", str(model), "--json"], input=text, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)["tokens"][:count]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kv", action="append", default=[], help="another cache type")
    parser.add_argument("--short", action="store_true", help="without the text of 4096 tokens")
    args = parser.parse_args()
    print("| model | text | cache | mean KL | max KL | top-1 | perplexity against exact |\n|---|---|---|---|---|---|---|")
    for label, name in NAMES.items():
        model, golden = MODELS / f"{name}.gguf", GOLDEN / f"real/{name}.safetensors"
        if not model.exists() or not golden.exists():
            print(f"{label}: {model} or {golden} is absent: skipped", file=sys.stderr)
            continue
        texts = [(f"golden {i}, 256 tokens", t) for i, t in enumerate(golden_tokens(golden, 256))]
        if not args.short:
            texts.append(("book, 4096 tokens", book_tokens(model, 4096)))
        for text, tokens in texts:
            with tempfile.TemporaryDirectory() as folder:
                ids, reference = Path(folder) / "ids.json", Path(folder) / "reference.safetensors"
                ids.write_text(json.dumps(tokens))
                common = ["eval", model, "--tokens", ids, "-c", len(tokens), "--memory", "8GiB"]
                exact = snug(*common, "--exact", "--save-reference", reference)
                for kv in ["f16"] + args.kv:
                    fast = snug(*common, "--kv", kv, "--force", "--reference", reference)
                    print(f"| {label} | {text} | {kv} | {fast['kl_mean']:.5f} | {fast['kl_max']:.3f} | {fast['top1']:.3f} | "
                          f"{100 * (fast['ppl'] / exact['ppl'] - 1):+.2f} % |", flush=True)


main()
