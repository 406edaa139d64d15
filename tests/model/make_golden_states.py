#!/usr/bin/env python3
"""Makes tests/data/models of recurrent architectures; see make_golden.py, whose files these join.

Mamba-2's gated norm goes over the channels of a group, as in its authors' code and in GGUF files;
transformers norms all channels at once, which is the same for one group only, so its module is
adapted here. Qwen3-Next has layers of both kinds in no period, and value heads of another size than
key heads.
"""
import sys

import gguf
import numpy as np
import torch
import transformers

from make_golden import VOCAB, add_vocabulary, finish, make

CONTEXT = 128
COMMON = dict(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=2, layer_norm_epsilon=1e-5,
              initializer_range=0.2, rescale_prenorm_residual=False, bos_token_id=1,
              eos_token_id=2, pad_token_id=0)
# GGUF's names of Hugging Face's tensors; N is the layer.
NAMES = {
    "backbone.embeddings.weight": "token_embd.weight",
    "backbone.norm_f.weight": "output_norm.weight", "lm_head.weight": "output.weight",
    "norm.weight": "blk.N.attn_norm.weight", "mixer.in_proj.weight": "blk.N.ssm_in.weight",
    "mixer.conv1d.weight": "blk.N.ssm_conv1d.weight", "mixer.conv1d.bias": "blk.N.ssm_conv1d.bias",
    "mixer.x_proj.weight": "blk.N.ssm_x.weight", "mixer.dt_proj.weight": "blk.N.ssm_dt.weight",
    "mixer.dt_proj.bias": "blk.N.ssm_dt.bias", "mixer.dt_bias": "blk.N.ssm_dt.bias",
    "mixer.A_log": "blk.N.ssm_a", "mixer.D": "blk.N.ssm_d",
    "mixer.norm.weight": "blk.N.ssm_norm.weight", "mixer.out_proj.weight": "blk.N.ssm_out.weight",
}

QWEN3_NEXT = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "input_layernorm.weight": "blk.N.attn_norm.weight",
    "post_attention_layernorm.weight": "blk.N.post_attention_norm.weight",
    "self_attn.q_proj.weight": "blk.N.attn_q.weight",
    "self_attn.k_proj.weight": "blk.N.attn_k.weight",
    "self_attn.v_proj.weight": "blk.N.attn_v.weight",
    "self_attn.o_proj.weight": "blk.N.attn_output.weight",
    "self_attn.q_norm.weight": "blk.N.attn_q_norm.weight",
    "self_attn.k_norm.weight": "blk.N.attn_k_norm.weight",
    "linear_attn.in_proj_ba.weight": "blk.N.ssm_ba.weight",
    "linear_attn.conv1d.weight": "blk.N.ssm_conv1d.weight",
    "linear_attn.dt_bias": "blk.N.ssm_dt.bias", "linear_attn.A_log": "blk.N.ssm_a",
    "linear_attn.norm.weight": "blk.N.ssm_norm.weight",
    "linear_attn.out_proj.weight": "blk.N.ssm_out.weight",
    "mlp.gate.weight": "blk.N.ffn_gate_inp.weight",
    "mlp.experts.down_proj": "blk.N.ffn_down_exps.weight",
    "mlp.shared_expert_gate.weight": "blk.N.ffn_gate_inp_shexp.weight",
    "mlp.shared_expert.gate_proj.weight": "blk.N.ffn_gate_shexp.weight",
    "mlp.shared_expert.up_proj.weight": "blk.N.ffn_up_shexp.weight",
    "mlp.shared_expert.down_proj.weight": "blk.N.ffn_down_shexp.weight",
}


def group_norms(model):
    """Norms each group's channels by themselves."""
    groups, eps = model.config.n_groups, model.config.layer_norm_epsilon

    def forward(self, hidden, gate=None):
        hidden = hidden * torch.nn.functional.silu(gate)
        grouped = hidden.unflatten(-1, (groups, -1))
        grouped = grouped * torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + eps)
        return self.weight * grouped.flatten(-2)

    for layer in model.backbone.layers:
        layer.mixer.norm.forward = forward.__get__(layer.mixer.norm)


def models():
    """Name, GGUF architecture, configuration, what adapts the model, what writes it."""
    t = transformers
    yield ("falcon-mamba", "mamba",
           t.FalconMambaConfig(**COMMON, intermediate_size=44, state_size=5, conv_kernel=3,
                               time_step_rank=3, mixer_rms_eps=1e-5, tie_word_embeddings=True),
           lambda model: None, write)
    yield ("mamba2-groups", "mamba2",
           t.Mamba2Config(**COMMON, expand=3, num_heads=6, head_dim=12, state_size=7, n_groups=2,
                          conv_kernel=4, chunk_size=16, tie_word_embeddings=False), group_norms,
           write)
    kinds = ["linear_attention", "full_attention"]
    yield ("qwen3next", "qwen3next",
           t.Qwen3NextConfig(vocab_size=VOCAB, hidden_size=24, intermediate_size=40,
                             num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                             head_dim=12, max_position_embeddings=CONTEXT, initializer_range=0.2,
                             rms_norm_eps=1e-5, linear_conv_kernel_dim=3, linear_key_head_dim=6,
                             linear_value_head_dim=10, linear_num_key_heads=2,
                             linear_num_value_heads=6, moe_intermediate_size=14,
                             shared_expert_intermediate_size=18, num_experts=5,
                             num_experts_per_tok=2, tie_word_embeddings=True,
                             rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                  partial_rotary_factor=0.5),
                             layer_types=[kinds[0], kinds[1], kinds[0], kinds[0]],
                             attn_implementation="eager", experts_implementation="eager",
                             bos_token_id=1, eos_token_id=2, pad_token_id=0), lambda model: None, write_qwen3_next)


def write(path, arch, model):
    c = model.config
    mixer = model.backbone.layers[0].mixer
    w = gguf.GGUFWriter(path, arch)
    w.add_name(path.stem)
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(0)
    w.add_head_count(0)
    w.add_layer_norm_rms_eps(c.layer_norm_epsilon)
    w.add_ssm_conv_kernel(c.conv_kernel)
    w.add_ssm_inner_size(mixer.intermediate_size)
    w.add_ssm_state_size(c.state_size)
    if arch == "mamba2":
        w.add_ssm_time_step_rank(c.num_heads)
        w.add_ssm_group_count(c.n_groups)
    else:
        w.add_ssm_time_step_rank(c.time_step_rank)
        w.add_ssm_dt_b_c_rms(True)
    add_vocabulary(w)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        layer = ""
        if name.startswith("backbone.layers."):
            _, _, layer, name = name.split(".", 3)
        values = tensor.numpy()
        if "conv1d.weight" in name:
            values = values[:, 0]
        if "A_log" in name:
            values = -np.exp(values)
        if arch == "mamba2" and name in ("mixer.A_log", "mixer.D"):
            values = values[:, None]
        if arch == "mamba2" and name == "mixer.norm.weight":
            values = values.reshape(c.n_groups, -1)
        w.add_tensor(NAMES[name].replace("N", layer), np.ascontiguousarray(values))
    finish(w)


def write_qwen3_next(path, arch, model):
    c = model.config
    w = gguf.GGUFWriter(path, arch)
    w.add_name(path.stem)
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_rope_dimension_count(c.head_dim // 2)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_expert_count(c.num_experts)
    w.add_expert_used_count(c.num_experts_per_tok)
    w.add_expert_feed_forward_length(c.moe_intermediate_size)
    w.add_expert_shared_feed_forward_length(c.shared_expert_intermediate_size)
    w.add_ssm_conv_kernel(c.linear_conv_kernel_dim)
    w.add_ssm_inner_size(c.linear_value_head_dim * c.linear_num_value_heads)
    w.add_ssm_state_size(c.linear_key_head_dim)
    w.add_ssm_time_step_rank(c.linear_num_value_heads)
    w.add_ssm_group_count(c.linear_num_key_heads)
    w.add_array(f"{arch}.attention.recurrent_layers",
                [kind == "linear_attention" for kind in c.layer_types])
    add_vocabulary(w)
    groups, keys = c.linear_num_key_heads, c.linear_key_head_dim
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        layer = ""
        if name.startswith("model.layers."):
            _, _, layer, name = name.split(".", 3)
        values = tensor.numpy()
        if name.endswith("norm.weight") and not name.startswith("linear_attn"):
            values = values + 1
        if name.endswith("A_log"):
            values = -np.exp(values)
        if name.endswith("conv1d.weight"):
            values = values[:, 0]
        parts = {QWEN3_NEXT.get(name): values}
        if name == "linear_attn.in_proj_qkvz.weight":
            grouped = values.reshape(groups, -1, c.hidden_size)
            ends = np.cumsum([keys, keys, (grouped.shape[1] - 2 * keys) // 2])
            q, k, v, z = (p.reshape(-1, c.hidden_size) for p in np.split(grouped, ends, axis=1))
            parts = {"blk.N.attn_qkv.weight": np.concatenate([q, k, v]),
                     "blk.N.attn_gate.weight": z}
        if name == "mlp.experts.gate_up_proj":
            half = c.moe_intermediate_size
            parts = {"blk.N.ffn_gate_exps.weight": values[:, :half],
                     "blk.N.ffn_up_exps.weight": values[:, half:]}
        for gguf_name, v in parts.items():
            w.add_tensor(gguf_name.replace("N", layer), np.ascontiguousarray(v))
    finish(w)


def main():
    for name, arch, config, adapt, writer in models():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            make(name, config, adapt, lambda path, model: writer(path, arch, model))


if __name__ == "__main__":
    main()
