#!/usr/bin/env python3
"""Writes tests/data/tokenizers: small tokenizer.json files of every family, and beside each what
Hugging Face's `tokenizers` makes of some texts. With the argument `golden FILE...` prints such cases
for existing files instead. Needs the PyPI packages `tokenizers` and `sentencepiece`."""
import io
import json
import pathlib
import sys

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

OUT = pathlib.Path(__file__).parents[1] / "data" / "tokenizers"

CORPUS = """
The quick brown fox jumps over the lazy dog, and the dog doesn't mind. We've seen it 1234 times in 2026.
A model that fits in memory is a model that runs; a model that does not fit is streamed, layer by layer.
def tokenize(text):\n    return [t for t in text.split() if t != "the"]\n
for (int i = 0; i < 100; ++i) { sum += values[i] * weights[i]; }\n
Les élèves étudient où ça coûte moins cher; naïve façade, garçon, Noël. Größe, Straße, Übung, schön.
Быстрая коричневая лиса прыгает через ленивую собаку. Это предложение проверяет кириллицу.
速い茶色の狐は怠け者の犬を飛び越えます。模型は小さい。中文文本测试分词器的表现。한국어 문장도 있습니다.
The tokens of the text are the tokens of the model, and the model's tokens are the text's tokens.
""".strip().split("\n")

TEXTS = [
    "", " ", "  ", "\n", "Hello, world!", " Hello  world ", "The quick brown fox's 12345 jumps.",
    "I'll  we've DON'T can't it's", "\n\n\t  tabs\r\nand\r\n lines \n", "naïve façade Größe ŒUVRE",
    "e\u0301te\u0301 cafe\u0301 A\u030angstro\u0308m", "ﬁne ﬃ ① ½ Ａｂｃ ㍿ Ⅷ ™", "İstanbul ΣΊΣΥΦΟΣ ǅ",
    "速い茶色の狐は怠け者", "中文 and English混合text。", "한국어 문장도 있습니다", "Быстрая лиса",
    "😀👍🏽 emoji 👨‍👩‍👧", "x==y!=z; a->b() // c++", "1 22 333 4444 55555 ٣٤٥ ²³",
    "<s>special</s> <pad>", "a<mask>b <mask> c", " <mask> ", "word wordy word.word keyword word",
    "UPPER lower MiXeD CamelCaseWords", "\u00a0nbsp\u3000wide\u200bzero", "the\u2581mark ▁▁ here",
    "a.b,c?d!e'f\"g(h)[i]{j}", "\x00\x01\x7f controls \ufeff\ufffd", "ab" * 40, "日" * 30,
    "   leading", "trailing   ", "a   b    c     d", "don't stop: it's 5 o'clock, isn't it?",
]


def trained(tokenizer, trainer):
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def gpt2():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    trained(t, trainers.BpeTrainer(vocab_size=360, special_tokens=["<s>", "</s>", "<pad>"],
                                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=False), AddedToken("word", single_word=True),
                  AddedToken("  ", normalized=False), AddedToken("here", rstrip=True)])
    return t


def llama3():
    t = Tokenizer(models.BPE(ignore_merges=True))
    expression = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(expression), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    trained(t, trainers.BpeTrainer(vocab_size=380, special_tokens=["<s>", "</s>"],
                                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])])
    return t


def qwen2():
    t = gpt2_with(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
                  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    t.normalizer = normalizers.NFC()
    return t


def gpt2_with(expression):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(expression), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    return trained(t, trainers.BpeTrainer(vocab_size=340, special_tokens=["<s>", "</s>"],
                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))


def falcon():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    t.decoder = decoders.ByteLevel()
    return trained(t, trainers.BpeTrainer(vocab_size=340, special_tokens=["<s>"],
                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))


def starcoder():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=True)])
    t.decoder = decoders.ByteLevel()
    return trained(t, trainers.BpeTrainer(vocab_size=330, special_tokens=["</s>"],
                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))


def bpe_of_characters(normalizer, pre_tokenizer, **options):
    """Trains on marked words, so that the vocabulary has pieces such as ▁the."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trained(t, trainers.BpeTrainer(vocab_size=640, special_tokens=specials, limit_alphabet=90))
    model = json.loads(t.to_str())["model"]
    t = Tokenizer(models.BPE(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]],
                             unk_token="<unk>", **options))
    t.normalizer, t.pre_tokenizer = normalizer, pre_tokenizer
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    return t


def llama2():
    t = bpe_of_characters(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
                          None, byte_fallback=True, fuse_unk=True)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    t.add_tokens([AddedToken("<mask>", normalized=True), AddedToken("keyword", normalized=True)])
    return t


def gemma():
    t = bpe_of_characters(normalizers.Replace(" ", "▁"),
                          pre_tokenizers.Split(" ", "merged_with_previous"), byte_fallback=True,
                          fuse_unk=True)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    t.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    return t


def mistral():
    t = bpe_of_characters(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
                          fuse_unk=False)
    t.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    return t


def charsmap(rules):
    """A small precompiled_charsmap, as SentencePiece compiles it."""
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        tsv = pathlib.Path(folder) / "rules.tsv"
        tsv.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t"
                               + " ".join(f"{ord(c):X}" for c in b) + "\n" for a, b in rules))
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=400, hard_vocab_limit=False,
            normalization_rule_tsv=str(tsv), character_coverage=1.0, minloglevel=2)
    data, at = model.getvalue(), 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    fields = []

    def walk(end, path):
        nonlocal at
        while at < end:
            key = varint()
            wire, number = key & 7, key >> 3
            if wire == 0:
                varint()
            elif wire == 5:
                at += 4
            elif wire == 2:
                size = varint()
                if path + (number,) == (3,):  # normalizer_spec
                    walk(at + size, (3,))
                else:
                    fields.append((path + (number,), data[at : at + size]))
                    at += size
            else:
                raise ValueError(wire)
    walk(len(data), ())
    return next(value for path, value in fields if path == (3, 2))


RULES = [("ﬁ", "fi"), ("①", "1"), ("½", "1⁄2"), ("Ａ", "A"), ("ｂ", "b"), ("e\u0301", "é"),
         ("a\u0301", "á"), ("\u00a0", " "), ("\u3000", " "), ("\t", " "), ("\n", " "), ("\r", " "),
         ("\u200b", " "), ("™", "TM"), ("İ", "I\u0307"), ("㍿", "株式会社")]


def unigram(byte_fallback):
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    specials = ["<pad>", "</s>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256 if byte_fallback else 0)]
    trained(t, trainers.UnigramTrainer(vocab_size=300 + len(specials), special_tokens=specials,
                                       unk_token="<unk>"))
    vocab = [tuple(entry) for entry in json.loads(t.to_str())["model"]["vocab"]]
    t = Tokenizer(models.Unigram(vocab, 2, byte_fallback))
    t.add_special_tokens(["<pad>", "</s>", "<unk>"])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    return t


def t5():
    t = unigram(False)
    t.normalizer = normalizers.Sequence([
        normalizers.Precompiled(charsmap(RULES)), normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), "▁")])
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    t.add_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    return t


def xlmr():
    t = unigram(True)
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(),
                                         normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                               pre_tokenizers.Metaspace(prepend_scheme="always")])
    t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    t.post_processor = processors.RobertaProcessing(("</s>", 1), ("<pad>", 0))
    return t


def bert():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=50))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    trained(t, trainers.WordPieceTrainer(vocab_size=420, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"]))
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    t.add_tokens([AddedToken("<mask>", normalized=True, lstrip=True)])
    return t


def bert_cased():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(),
                                         normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("merged_with_previous")])
    t.decoder = decoders.WordPiece(cleanup=False)
    trained(t, trainers.WordPieceTrainer(vocab_size=420, special_tokens=["[UNK]", "[CLS]", "[SEP]"]))
    t.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return t


def lower():
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.CharDelimiterSplit(" "), pre_tokenizers.Digits(individual_digits=True)])
    trained(t, trainers.BpeTrainer(vocab_size=300, special_tokens=["[UNK]"], limit_alphabet=60))
    t.add_tokens([AddedToken("KEYWORD", normalized=True), AddedToken("Word", normalized=False)])
    return t


FAMILIES = [gpt2, llama3, qwen2, falcon, starcoder, llama2, gemma, mistral, t5, xlmr, bert, bert_cased,
            lower]


def cases(tokenizer):
    out = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        out.append({"text": text, "ids": ids,
                    "plain": tokenizer.encode(text, add_special_tokens=False).ids,
                    "decoded": tokenizer.decode(ids, skip_special_tokens=True),
                    "shown": tokenizer.decode(ids, skip_special_tokens=False)})
    return out


def main():
    if sys.argv[1:2] == ["golden"]:
        for path in sys.argv[2:]:
            print(json.dumps(cases(Tokenizer.from_file(path)), separators=(",", ":")))
        return
    OUT.mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        tokenizer = family()
        path = OUT / f"{family.__name__}.json"
        path.write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False,
                                   separators=(",", ":")) + "\n")
        lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":"))
                           for case in cases(Tokenizer.from_file(str(path))))
        (OUT / f"{family.__name__}.cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
