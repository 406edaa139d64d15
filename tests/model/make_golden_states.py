#!/usr/bin/env python3
"""Makes tests/data/models of recurrent architectures; see make_golden.py, whose files these join.

Mamba-2's gated norm goes over the channels of a group, as in its authors' code and in GGUF files;
transformers norms all channels at once, which is the same for one group only, so its module is
adapted here.
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
    """Name, GGUF architecture, configuration, what adapts the model."""
    t = transformers
    yield ("falcon-mamba", "mamba",
           t.FalconMambaConfig(**COMMON, intermediate_size=44, state_size=5, conv_kernel=3,
                               time_step_rank=3, mixer_rms_eps=1e-5, tie_word_embeddings=True),
           lambda model: None)
    yield ("mamba2-groups", "mamba2",
           t.Mamba2Config(**COMMON, expand=3, num_heads=6, head_dim=12, state_size=7, n_groups=2,
                          conv_kernel=4, chunk_size=16, tie_word_embeddings=False), group_norms)


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


def main():
    for name, arch, config, adapt in models():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            make(name, config, adapt, lambda path, model: write(path, arch, model))


if __name__ == "__main__":
    main()
