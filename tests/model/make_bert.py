#!/usr/bin/env python3
"""Makes tests/data/bert: a tiny BERT with random weights, as a Hugging Face folder and as GGUF, and
what transformers computes with it.

Needs torch, transformers, tokenizers, safetensors and gguf from PyPI. Norms and biases are random
too, so that a forgotten one shows. golden.safetensors has, for text i, tokens_i [n], hidden_i
[n, dim] (the last layer) and mean_i, cls_i [dim] (pooled and scaled to length 1).
"""
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

WORDS = "the a of to in and is it that was for on with as he be at by had not are but from or have an they which".split()
TEXTS = [
    "a",
    "The cat is on the mat, and it was not happy.",
    "Caf\u00e9 na\u00efve \u00dcber 123-456",
    "of or by at " * 24,
    "",
    "unbelievably long words are split into pieces (e.g. antidisestablishmentarianism)!",
]


def vocabulary():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789")
    return special + list(".,!?()-'") + letters + ["##" + c for c in letters] + WORDS[2:] + ["the", "##ing", "##ed", "##ent"]


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "data" / "bert")
    out.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary()
    ids = {t: i for i, t in enumerate(vocab)}
    assert len(ids) == len(vocab)
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(vocab[:5])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(out / "tokenizer.json"))

    torch.manual_seed(5)
    config = BertConfig(vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=72, max_position_embeddings=128, layer_norm_eps=1e-12,
                        attn_implementation="eager")
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.3 if name.endswith("weight") and p.ndim == 2 else 0.2
            p.copy_(torch.randn_like(p) * scale + (1.0 if "LayerNorm.weight" in name else 0.0))
    tensors = {k: v.numpy().copy() for k, v in model.state_dict().items() if "position_ids" not in k}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    plain = {k: v for k, v in config.to_dict().items()
             if k in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                      "intermediate_size", "max_position_embeddings", "layer_norm_eps", "type_vocab_size",
                      "hidden_act", "pad_token_id")}
    plain["architectures"] = ["BertModel"]
    plain["position_embedding_type"] = "absolute"
    (out / "config.json").write_text(json.dumps(plain, indent=1) + "\n")
    (out / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "cls_token": "[CLS]", "sep_token": "[SEP]",
        "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}, indent=1) + "\n")
    # As sentence-transformers lays folders out.
    (out / "modules.json").write_text(json.dumps([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}], indent=1) + "\n")
    (out / "1_Pooling").mkdir(exist_ok=True)
    (out / "1_Pooling" / "config.json").write_text(json.dumps(
        {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, indent=1) + "\n")

    golden = {}
    for i, text in enumerate(TEXTS):
        tokens = tokenizer.encode(text).ids
        with torch.no_grad():
            hidden = model(torch.tensor([tokens])).last_hidden_state[0]
        golden[f"tokens_{i}"] = np.array(tokens, np.int32)
        golden[f"hidden_{i}"] = hidden.numpy().copy()
        for name, pooled in (("mean", hidden.mean(0)), ("cls", hidden[0])):
            golden[f"{name}_{i}"] = torch.nn.functional.normalize(pooled, dim=0).numpy().copy()
    save_file(golden, out / "golden.safetensors")
    (out / "texts.json").write_text(json.dumps(TEXTS) + "\n")

    w = gguf.GGUFWriter(out / "model.gguf", "bert")
    w.add_name("tiny bert")
    w.add_block_count(2)
    w.add_context_length(128)
    w.add_embedding_length(32)
    w.add_feed_forward_length(72)
    w.add_head_count(2)
    w.add_layer_norm_eps(1e-12)
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.CLS)
    w.add_tokenizer_model("bert")
    w.add_tokenizer_pre("bert-bge")
    # GGUF marks the beginnings of words instead of their continuations.
    w.add_token_list([t if t in vocab[:5] else t[2:] if t.startswith("##") else "\u2581" + t for t in vocab])
    w.add_token_types([3 if t in vocab[:5] else 1 for t in vocab])
    w.add_token_type_count(2)
    for key, token in (("unknown", "[UNK]"), ("seperator", "[SEP]"), ("padding", "[PAD]"), ("cls", "[CLS]"),
                       ("mask", "[MASK]")):
        w.add_uint32(f"tokenizer.ggml.{key}_token_id", ids[token])  # spelled as the format spells it
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, 2)
    for name, value in tensors.items():
        w.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


main()
