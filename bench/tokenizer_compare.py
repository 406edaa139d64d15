#!/usr/bin/env python3
"""Speed of Snug's tokenizers beside Hugging Face's `tokenizers` on one thread, in processor time, and
whether both make the same tokens. A GGUF file is turned into the library's own model in memory; a tokenizer.json is
read by both.

    bench/tokenizer_compare.py --bench build/release/bench/snug_tokenizer_bench MODEL... [--text NAME=FILE]

Needs the PyPI packages `tokenizers` and, for GGUF files, `gguf`."""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

MEGABYTE = 1 << 20
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
MIXED = """
The quick brown fox jumps over the lazy dog; it doesn't mind. Les élèves étudient où ça coûte moins cher.
Быстрая коричневая лиса прыгает через ленивую собаку. Η γρήγορη αλεπού πηδάει πάνω από τον σκύλο.
速い茶色の狐は怠け者の犬を飛び越えます。敏捷的棕色狐狸跳过了懒狗。빠른 갈색 여우가 게으른 개를 뛰어넘습니다.
الثعلب البني السريع يقفز فوق الكلب الكسول. השועל החום המהיר קופץ מעל הכלב העצלן. तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।
สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ Größe, Straße, Übung. İstanbul'da 1234 kişi. 😀👍🏽 emoji 👨‍👩‍👧.
""".strip().split("\n")


def need(name):
    try:
        return __import__(name)
    except ImportError:
        sys.exit(f"the PyPI package `{name}` is missing")


def default_texts(root):
    data = pathlib.Path(os.environ.get("SNUG_DATA", root / "../shared/data"))
    books = sorted((data / "pg19").rglob("*.txt")) if data.exists() else []
    texts = {}
    if books:
        texts["english"] = books[0].read_text(errors="replace")
    else:
        print("no English text: give --text english=FILE", file=sys.stderr)
    sources = sorted((root / "src").rglob("*.cc")) + sorted((root / "tests").rglob("*.cc"))
    texts["code"] = "".join(p.read_text() for p in sources if "tables" not in p.name)
    draw = random.Random(1)
    words = " ".join(MIXED).split(" ")
    texts["mixed"] = "\n".join(
        " ".join(draw.choice(words) for _ in range(12)) if i % 2 else draw.choice(MIXED)
        for i in range(20000))
    texts["letter"] = "a" * MEGABYTE
    return {name: one_megabyte(text) for name, text in texts.items()}


def one_megabyte(text):
    data = text.encode()
    while len(data) < MEGABYTE:
        data += data
    return data[:MEGABYTE].decode(errors="ignore")


def byte_level_cuts(library, name):
    pre, regex = library.pre_tokenizers, library.Regex

    def split(expression):
        return pre.Split(regex(expression), "isolated")
    plain = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre.ByteLevel(add_prefix_space=False)
    cuts = {
        "gpt-2": [gpt2],
        "starcoder": [pre.Digits(individual_digits=True), gpt2],
        "falcon": [pre.Punctuation("contiguous"), gpt2, split("[0-9][0-9][0-9]")],
        "llama-bpe": [split(f"{CONTRACTIONS}|[^\\r\\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|\\p{{N}}{{1,3}}|{TAIL}"), plain],
        "qwen2": [split(f"{CONTRACTIONS}|[^\\r\\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|\\p{{N}}|{TAIL}"), plain],
        "deepseek-llm": [
            split("[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+"),
            split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"),
            split("[一-龥ࠀ-一가-\ud7ff]+"), pre.Digits(individual_digits=True), plain],
    }
    return pre.Sequence(cuts[name]) if name in cuts else None


def from_gguf(library, path):
    reader = need("gguf").GGUFReader(path)
    fields = reader.fields

    def value(key, otherwise=None):
        field = fields.get("tokenizer.ggml." + key)
        return field.contents() if field else otherwise
    model, tokens = value("model"), value("tokens")
    types = value("token_type") or [1] * len(tokens)
    vocab = {}
    for i, token in enumerate(tokens):
        vocab.setdefault(token, i)
    models, pre = library.models, library.pre_tokenizers
    if model == "gpt2":
        cuts = byte_level_cuts(library, value("pre"))
        if cuts is None:
            return None, f"no pre-tokenizer {value('pre')} here"
        merges = [tuple(m.split(" ", 1)) for m in value("merges")]
        known = [m for m in merges if m[0] in vocab and m[1] in vocab and "".join(m) in vocab]
        t = library.Tokenizer(models.BPE(vocab=vocab, merges=known,
                                         ignore_merges=value("pre") == "llama-bpe"))
        t.pre_tokenizer = cuts
    elif model == "llama":
        scores = value("scores")
        pairs = []
        for piece, i in vocab.items():
            if types[i] not in (1, 4, 5):
                continue
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in vocab and right in vocab:
                    pairs.append((-scores[i], i, vocab[left], vocab[right], left, right))
        pairs.sort()
        unknown = next((token for token, kind in zip(tokens, types) if kind == 2), None)
        t = library.Tokenizer(models.BPE(vocab=vocab, merges=[p[4:] for p in pairs], unk_token=unknown,
                                         fuse_unk=True, byte_fallback=True))
        mark = library.normalizers.Replace(" ", "▁")
        prefix = value("add_space_prefix", True)
        t.normalizer = library.normalizers.Sequence(
            [library.normalizers.Prepend("▁"), mark]) if prefix else mark
    elif model == "bert":
        pieces = {t[1:] if t[0] == "▁" else t if types[i] != 1 else "##" + t: i
                  for i, t in enumerate(tokens)}
        t = library.Tokenizer(models.WordPiece(vocab=pieces, unk_token=tokens[value("unknown_token_id")],
                                               max_input_chars_per_word=100))
        t.normalizer, t.pre_tokenizer = library.normalizers.BertNormalizer(), pre.BertPreTokenizer()
    else:
        return None, f"no model {model} here"
    special = [library.AddedToken(token, normalized=False, special=kind != 4)
               for token, kind in zip(tokens, types) if kind in (2, 3, 4)]
    t.add_tokens(special)
    return t, None


def best_time(run):
    best, total, runs = 1e9, 0.0, 0
    while runs < 2 or (total < 2 and runs < 10):
        start = time.process_time()
        result = run()
        spent = time.process_time() - start
        best, total, runs = min(best, spent), total + spent, runs + 1
    return best, result


def measure_theirs(tokenizer, text):
    """The better of the whole text and its lines, with and without offsets."""
    whole, encoding = best_time(lambda: tokenizer.encode(text, add_special_tokens=False))
    fast, _ = best_time(lambda: tokenizer.encode_batch_fast([text], add_special_tokens=False))
    lines = text.splitlines(keepends=True)
    by_line, _ = best_time(lambda: tokenizer.encode_batch_fast(lines, add_special_tokens=False))
    return min(whole, fast, by_line), encoding.ids


def main():
    root = pathlib.Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--bench", default=str(root / "build/release/bench/snug_tokenizer_bench"))
    parser.add_argument("--text", action="append", default=[], metavar="NAME=FILE")
    args = parser.parse_args()
    library = need("tokenizers")
    texts = default_texts(root)
    for name, path in (item.split("=", 1) for item in args.text):
        texts[name] = one_megabyte(pathlib.Path(path).read_text(errors="replace"))
    print("| vocabulary | text | Snug MB/s | tokenizers MB/s | ratio | same tokens |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, text in texts.items():
            files[name] = f"{folder}/{name}"
            pathlib.Path(files[name]).write_bytes(text.encode())
        for path in args.models:
            theirs, why = (library.Tokenizer.from_file(path), None) if path.endswith(".json") \
                else from_gguf(library, path)
            ids = f"{folder}/ids"
            run = subprocess.run([args.bench, "--ids", ids, path, *files.values()],
                                 capture_output=True, text=True)
            if run.returncode != 0:
                sys.exit(run.stderr)
            ours = [json.loads(line) for line in run.stdout.splitlines()]
            tokens = [[int(t) for t in line.split()] for line in pathlib.Path(ids).read_text().splitlines()]
            for (name, text), mine, made in zip(texts.items(), ours, tokens):
                speed = mine["bytes"] / 1e6 / mine["seconds"]
                row = f"| {pathlib.Path(path).stem} | {name} | {speed:.1f} | "
                if theirs is None:
                    print(row + f"{why} | | |", flush=True)
                    continue
                seconds, expected = measure_theirs(theirs, text)
                other = mine["bytes"] / 1e6 / seconds
                same = "yes" if expected == made else f"no ({len(expected)} and {len(made)})"
                print(row + f"{other:.1f} | {speed / other:.1f} | {same} |", flush=True)


main()
