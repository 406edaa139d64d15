#!/usr/bin/env python3
"""Makes tests/data/models: tiny random models in GGUF and their logits by transformers.

They stand for architectures and variants that the shared golden cases lack. Needs torch,
transformers, gguf and safetensors from PyPI:

    python tests/model/make_golden.py [NAME...]

Norm weights and biases are random too, so that a forgotten one shows.
"""
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "models"
VOCAB, TOKENS, SHORT = 64, 48, 24
COMMON = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
              initializer_range=0.2, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
              pad_token_id=0, attn_implementation="eager")
# GGUF's names of Hugging Face's tensors; N is the layer.
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "blk.N.attn_norm", "post_attention_layernorm": "blk.N.ffn_norm",
    "self_attn.q_proj": "blk.N.attn_q", "self_attn.k_proj": "blk.N.attn_k",
    "self_attn.v_proj": "blk.N.attn_v", "self_attn.o_proj": "blk.N.attn_output",
    "self_attn.qkv_proj": "blk.N.attn_qkv", "self_attn.q_norm": "blk.N.attn_q_norm",
    "self_attn.k_norm": "blk.N.attn_k_norm", "mlp.gate_proj": "blk.N.ffn_gate",
    "mlp.up_proj": "blk.N.ffn_up", "mlp.gate_up_proj": "blk.N.ffn_up",
    "mlp.down_proj": "blk.N.ffn_down",
}
# In OLMo 2 the norms stand behind the blocks.
OLMO2 = {"post_attention_layernorm": "blk.N.post_attention_norm",
         "post_feedforward_layernorm": "blk.N.post_ffw_norm"}
# In gpt-oss the norm ahead of the experts has the name of one behind attention.
GPT_OSS = {"post_attention_layernorm": "blk.N.post_attention_norm",
           "self_attn.sinks": "blk.N.attn_sinks.weight", "mlp.router": "blk.N.ffn_gate_inp"}
EXPERTS = "mlp.experts."
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, beta_fast=32.0, beta_slow=1.0,
            original_max_position_embeddings=32, truncate=False)
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=32,
                factor=4.0, short_factor=[1.0, 1.1, 1.3, 1.6],
                long_factor=[1.0, 1.5, 2.5, 4.0])


def models():
    """Name, GGUF architecture, configuration, whether q and k rows are permuted, extra keys."""
    t = transformers
    yield "olmo2", "olmo2", t.Olmo2Config(**COMMON), False, {}
    yield ("granite", "granite",
           t.GraniteConfig(**COMMON, embedding_multiplier=6.0, residual_multiplier=0.4,
                           attention_multiplier=0.25, logits_scaling=3.0), True,
           {"embedding_scale": 6.0, "residual_scale": 0.4, "attention.scale": 0.25,
            "logit_scale": 3.0})
    yield ("llama-biases", "llama",
           t.LlamaConfig(**COMMON, attention_bias=True, mlp_bias=True), True, {})
    yield ("phi3-longrope", "phi3",
           t.Phi3Config(**COMMON, rope_parameters=LONGROPE, original_max_position_embeddings=32),
           False,
           {"rope.scaling.original_context_length": 32,
            "rope.scaling.attn_factor": float(np.sqrt(1 + np.log(4.0) / np.log(32.0)))})
    yield ("gpt-oss", "gpt-oss",
           t.GptOssConfig(**COMMON | dict(intermediate_size=16, num_hidden_layers=3), head_dim=8,
                          num_local_experts=8, num_experts_per_tok=2, sliding_window=16,
                          tie_word_embeddings=False, rope_parameters=YARN,
                          layer_types=["sliding_attention", "full_attention",
                                       "sliding_attention"]), False,
           {"attention.key_length": 8, "attention.value_length": 8, "expert_count": 8,
            "expert_used_count": 2, "attention.sliding_window": 16,
            "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32})


def gguf_tensors(name, values, arch):
    """The GGUF tensors, by name, that one of Hugging Face's becomes."""
    layer = ""
    if name.startswith("model.layers."):
        _, _, layer, name = name.split(".", 3)
    names = NAMES | {"olmo2": OLMO2, "gpt-oss": GPT_OSS}.get(arch, {})
    if name.startswith(EXPERTS):
        # [experts, in, out], with gate and up in alternate columns.
        kind = "bias" if name.endswith("_bias") else "weight"
        if kind == "weight":
            values = values.swapaxes(1, 2)
        parts = ({"gate": values[:, 0::2], "up": values[:, 1::2]} if "gate_up" in name
                 else {"down": values})
        return {f"blk.{layer}.ffn_{k}_exps.{kind}": v for k, v in parts.items()}
    if name in names:
        return {names[name].replace("N", layer): values}
    stem, kind = name.rsplit(".", 1)
    return {names[stem].replace("N", layer) + "." + kind: values}


def permute(rows, heads):
    """Neighbouring rotary pairs, as GGUF has them for Llama's family."""
    return (rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2)
            .reshape(rows.shape))


def write(path, arch, model, permuted, extra):
    c = model.config
    w = gguf.GGUFWriter(path, arch)
    w.add_name(path.stem)
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(10000.0)
    for key, value in extra.items():
        add = {int: w.add_uint32, float: w.add_float32, str: w.add_string}[type(value)]
        add(f"{arch}.{key}", value)
    add_vocabulary(w)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        values = tensor.numpy()
        if permuted and ".q_proj." in name:
            values = permute(values, c.num_attention_heads)
        if permuted and ".k_proj." in name:
            values = permute(values, c.num_key_value_heads)
        for gguf_name, v in gguf_tensors(name, values, arch).items():
            w.add_tensor(gguf_name, np.ascontiguousarray(v))
    if arch == "phi3":
        for kind in ("short", "long"):
            factors = np.array(LONGROPE[f"{kind}_factor"], np.float32)
            w.add_tensor(f"rope_factors_{kind}.weight", factors)
    finish(w)


def add_vocabulary(w):
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>"] + [chr(ord("!") + i) for i in range(VOCAB - 3)])
    w.add_token_scores([-float(i) for i in range(VOCAB)])
    w.add_token_types([2, 3, 3] + [1] * (VOCAB - 3))
    w.add_unk_token_id(0)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make(name, config, adapt, write_gguf):
    """Both files of one model; `adapt` may change its modules, `write_gguf` takes path and model."""
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    adapt(model)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.dim() == 1 or "bias" in key:
                p.copy_(torch.randn_like(p) * 0.2 + (1 if "norm" in key else 0))
        tokens = torch.randint(3, VOCAB, (1, TOKENS))
        logits = model(tokens).logits[0]
        short = model(tokens[:, :SHORT]).logits[0]
    write_gguf(OUT / f"{name}.gguf", model)
    save_file({"tokens": tokens[0].numpy().astype(np.int32), "logits": logits.numpy(),
               "short_logits": short.numpy()}, OUT / f"{name}.safetensors")
    print(name, (OUT / f"{name}.gguf").stat().st_size, float(logits.std()))


def main():
    for name, arch, config, permuted, extra in models():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            make(name, config, lambda model: None,
                 lambda path, model: write(path, arch, model, permuted, extra))


if __name__ == "__main__":
    main()
