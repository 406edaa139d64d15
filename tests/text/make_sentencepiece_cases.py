#!/usr/bin/env python3
"""Writes tests/data/sentencepiece: small tokenizer.model files of both kinds, and beside each what
Google's `sentencepiece` makes of some texts. Needs the PyPI packages `sentencepiece` and, for what it
shares with make_tokenizer_cases.py, `tokenizers`."""
import contextlib
import io
import json
import pathlib
import tempfile

import sentencepiece

from make_tokenizer_cases import CORPUS, RULES, TEXTS

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "sentencepiece"

MORE = [
    "<tag>", "<tag><tag>", "a<tag>b", " <tag> x", "x <tag>", "the<tag>the  <tag>", "fi<ﬁ>ne", "<ﬁ>",
    "  <tag>", "▁", "▁▁", "a▁", "   ", "a\u3000\u3000b", "x" * 300, "the " * 50, "\n\n\n", "\n \n", "a\n\nb",
    "  two  spaces  ", "①①", "½<tag>½", "1234567890", "日本語<tag>日本語", "aaaaaaa aaaaaaaa", "thethethe",
]

LLAMA = dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
             remove_extra_whitespaces=False, split_digits=True)

# By file name. Pieces of user_defined_symbols stand for themselves in any text.
MODELS = {
    "llama": dict(LLAMA, vocab_size=480, user_defined_symbols=["<tag>"]),
    "gemma": dict(LLAMA, vocab_size=480, add_dummy_prefix=False, allow_whitespace_only_pieces=True,
                  user_defined_symbols=["<tag>", "\n", "\n\n", "▁▁", "▁▁▁"]),
    "bpe": dict(model_type="bpe", vocab_size=260, rules=True, user_defined_symbols=["<tag>", "<ﬁ>"]),
    "t5": dict(model_type="unigram", vocab_size=260, rules=True, user_defined_symbols=["<tag>", "<ﬁ>"],
               pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
    "fallback": dict(model_type="unigram", vocab_size=480, byte_fallback=True,
                     normalization_rule_name="identity", remove_extra_whitespaces=False),
    "suffix": dict(model_type="unigram", vocab_size=240, treat_whitespace_as_suffix=True, rules=True),
    "no_prefix": dict(model_type="unigram", vocab_size=240, rules=True, add_dummy_prefix=False),
}


def train(rules=False, **options):
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if rules:
            points = lambda text: " ".join(f"{ord(c):X}" for c in text)
            options["normalization_rule_tsv"] = "rules.tsv"  # the model keeps the path
            pathlib.Path("rules.tsv").write_text(
                "".join(f"{points(a)}\t{points(b)}\n" for a, b in RULES))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=model, hard_vocab_limit=False,
            character_coverage=0.98, num_threads=1, minloglevel=2, **options)
    return model.getvalue()


def cases(processor):
    out = []
    for text in TEXTS + MORE:
        ids = processor.encode(text)
        case = {"text": text, "ids": ids}
        if processor.unk_id() not in ids:  # whose text is the package's own sign
            case["decoded"] = processor.decode(ids)
        out.append(case)
    return out


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name, options in MODELS.items():
        model = train(**options)
        (OUT / f"{name}.model").write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":"))
                           for case in cases(processor))
        (OUT / f"{name}.cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
