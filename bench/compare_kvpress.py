#!/usr/bin/env python3
"""Compares which rows keep methods leave after a prompt with NVIDIA's kvpress, on tiny models in float32.

For each model (Hugging Face folders with a model.gguf beside, under SNUG_GOLDEN), method, layer and KV head: the tokens
that `snug run --exact --kv-keep ... --kept` says stay, and the largest scores that the press gives in transformers.
Sets must be equal but for tokens whose score lies within 1e-6 of the least one that stays. Ends with 1 where they are
not. Needs the packages of bench/compare_kvpress.txt; a folder may be named where they are: PYTHONPATH.

What differs by definition is undone here, and only this: kvpress divides a column's attention by the number of queries
that see it, H2O does not; kvpress's observed attention has no recent tokens that always stay, H2O has.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from kvpress import ObservedAttentionPress, SnapKVPress, StreamingLLMPress, TOVAPress
from transformers import AutoModelForCausalLM, DynamicCache

ROOT = Path(__file__).resolve().parent.parent
SNUG = ROOT / "build/release/snug"
GOLDEN = Path(os.environ.get("SNUG_GOLDEN") or ROOT / "../shared/golden")
DATA = Path(os.environ.get("SNUG_DATA") or ROOT / "../shared/data")
CLOSE = 1e-6


class SummedAttentionPress(ObservedAttentionPress):
    """Observed attention as H2O counts it: sums, and the last `recent` tokens stay."""

    recent = 0

    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        scores = super().score(module, hidden_states, keys, values, attentions, kwargs)
        n = scores.shape[-1]
        scores = scores * torch.arange(n, 0, -1, dtype=scores.dtype)
        scores[..., n - self.recent:] = scores.max() + 1
        return scores


def summed(recent):
    press = SummedAttentionPress()
    press.recent = recent
    return press


def methods(keep):
    return {
        f"snapkv:budget={keep},window=32,pool=5": lambda: SnapKVPress(window_size=32, kernel_size=5),
        f"snapkv:budget={keep},window=16,pool=7": lambda: SnapKVPress(window_size=16, kernel_size=7),
        f"tova:budget={keep}": TOVAPress,
        f"sink-window:budget={keep},sinks=4": lambda: StreamingLLMPress(n_sink=4),
        f"h2o:budget={keep},recent=0.5": lambda: summed(keep // 2),
        f"h2o:budget={keep},recent=0": lambda: summed(1),
        f"h2o:budget={keep},recent=8": lambda: summed(8),
    }


def kept_by_snug(model, text, spec):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept"
        run = subprocess.run(
            [SNUG, "run", model / "model.gguf", "--memory", "1GiB", "-c", "512", "--exact", "-n", "1", "--temp", "0",
             "--ignore-eos", "-q", "--kv-keep", spec, "--kept", path, "-p", text], capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(run.stderr or run.stdout)
        return json.loads(path.read_text())


def press_scores(model, tokens, press, keep):
    """The scores of every layer, and the number of rows that the press left."""
    press.compression_ratio = 1 - (keep + 0.5) / len(tokens)
    scores = {}
    original = press.score

    def score(module, *rest):
        scores[module.layer_idx] = original(module, *rest)
        return scores[module.layer_idx]

    press.score = score
    cache = DynamicCache()
    with torch.no_grad(), press(model):
        model(input_ids=torch.tensor([tokens]), past_key_values=cache)
    return scores, {layer.keys.shape[2] for layer in cache.layers}


def compare(name, text, keep):
    folder = GOLDEN / "tiny" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    wrong = 0
    for spec, make in methods(keep).items():
        ours = kept_by_snug(folder, text, spec)
        scores, left = press_scores(model, ours["tokens"], make(), keep)
        assert left == {keep}, left
        heads = equal = 0
        worst = 0.0
        for layer, kept in enumerate(ours["layers"]):
            for head, rows in enumerate(kept):
                values = scores[layer][0, head].double()
                theirs = set(values.topk(keep).indices.tolist())
                least = values.topk(keep).values.min()
                other = theirs.symmetric_difference(rows)
                heads += 1
                equal += not other
                assert len(rows) == keep, (spec, len(rows))
                for token in other:
                    worst = max(worst, abs(values[token] - least).item())
        wrong += worst > CLOSE
        print(f"| {name} | {spec} | {len(ours['tokens'])} | {equal} of {heads} | {worst:.1e} |")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="llama,qwen2")
    parser.add_argument("--keep", type=int, default=80, help="rows that stay")
    parser.add_argument("--characters", type=int, default=500, help="length of the prompt")
    args = parser.parse_args()
    text = (DATA / "tinyshakespeare.txt").read_text()[:args.characters]
    print("| model | method | prompt | equal sets | largest distance of a difference from the threshold |")
    print("|---|---|---|---|---|")
    sys.exit(1 if sum(compare(name, text, args.keep) for name in args.models.split(",")) else 0)


if __name__ == "__main__":
    main()
