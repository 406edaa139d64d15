// The tables of hf_architectures.cc for architectures with recurrent layers; for that file alone.
#pragma once

#include "format/hf_architectures.h"

namespace snug {

inline constexpr HfView kPlusOne{.value = TensorSource::Value::kPlusOne};
inline constexpr HfView kMinusExp{.value = TensorSource::Value::kMinusExp};
inline constexpr HfView kMinusExpColumn{.value = TensorSource::Value::kMinusExp, .column = true};
inline constexpr HfView kColumn{.column = true};

// --- Mamba and Mamba-2

inline constexpr HfTensor kMamba[] = {
    {"backbone.embeddings.weight", "token_embd.weight"},
    {"backbone.norm_f.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"backbone.layers.#.norm.weight", "blk.#.attn_norm.weight"},
    {"backbone.layers.#.mixer.in_proj.weight", "blk.#.ssm_in.weight"},
    {"backbone.layers.#.mixer.conv1d.weight", "blk.#.ssm_conv1d.weight"},
    {"backbone.layers.#.mixer.conv1d.bias", "blk.#.ssm_conv1d.bias"},
    {"backbone.layers.#.mixer.out_proj.weight", "blk.#.ssm_out.weight"},
};

inline constexpr HfTensor kMamba1[] = {
    {"backbone.layers.#.mixer.x_proj.weight", "blk.#.ssm_x.weight"},
    {"backbone.layers.#.mixer.dt_proj.weight", "blk.#.ssm_dt.weight"},
    {"backbone.layers.#.mixer.dt_proj.bias", "blk.#.ssm_dt.bias"},
    {"backbone.layers.#.mixer.A_log", "blk.#.ssm_a", kMinusExp},
    {"backbone.layers.#.mixer.D", "blk.#.ssm_d"},
};

inline constexpr HfTensor kMamba2[] = {
    {"backbone.layers.#.mixer.dt_bias", "blk.#.ssm_dt.bias"},
    {"backbone.layers.#.mixer.A_log", "blk.#.ssm_a", kMinusExpColumn},
    {"backbone.layers.#.mixer.D", "blk.#.ssm_d", kColumn},
    {"backbone.layers.#.mixer.norm.weight", "blk.#.ssm_norm.weight"},
};

inline constexpr HfKey kMambaKeys[] = {
    {"conv_kernel", "ssm.conv_kernel", HfKey::Kind::kUint, true},
    {"state_size", "ssm.state_size", HfKey::Kind::kUint, true},
    {"layer_norm_epsilon", "attention.layer_norm_rms_epsilon", HfKey::Kind::kFloat},
};

inline constexpr HfKey kMamba2Keys[] = {
    {"conv_kernel", "ssm.conv_kernel", HfKey::Kind::kUint, true},
    {"state_size", "ssm.state_size", HfKey::Kind::kUint, true},
    {"num_heads", "ssm.time_step_rank", HfKey::Kind::kUint, true},
    {"n_groups", "ssm.group_count", HfKey::Kind::kUint, true},
    {"layer_norm_epsilon", "attention.layer_norm_rms_epsilon", HfKey::Kind::kFloat},
};

inline constexpr HfFixed kMambaFixed[] = {
    {"hidden_act", "\"silu\""},
    {"use_bias", "false"},
    {"use_conv_bias", "true"},
};

inline constexpr std::string_view kMambaDefaults = R"({"state_size": 16, "conv_kernel": 4,
  "layer_norm_epsilon": 1e-5})";
inline constexpr std::string_view kMamba2Defaults = R"({"state_size": 128, "conv_kernel": 4,
  "layer_norm_epsilon": 1e-5, "n_groups": 8, "num_heads": 128})";

Status FinishMamba(HfFolder& folder, const Json& config);
Status FinishFalconMamba(HfFolder& folder, const Json& config);  // RMSNorm of dt, B and C
Status FinishMamba2(HfFolder& folder, const Json& config);

// --- Qwen3-Next: weights of norms are stored less one, but for those of the delta rule. The folder
// has queries, keys, values and gates group by group; GGUF has all groups' queries first, and so
// on, and the gates apart.

Result<HfRows> DeltaQkvRows(const HfFolder& folder);
Result<HfRows> DeltaGateRows(const HfFolder& folder);

inline constexpr HfTensor kQwen3Next[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight", kPlusOne},
    {"lm_head.weight", "output.weight"},
    {"model.layers.#.input_layernorm.weight", "blk.#.attn_norm.weight", kPlusOne},
    {"model.layers.#.post_attention_layernorm.weight", "blk.#.post_attention_norm.weight",
     kPlusOne},
    {"model.layers.#.self_attn.q_proj.weight", "blk.#.attn_q.weight"},
    {"model.layers.#.self_attn.k_proj.weight", "blk.#.attn_k.weight"},
    {"model.layers.#.self_attn.v_proj.weight", "blk.#.attn_v.weight"},
    {"model.layers.#.self_attn.o_proj.weight", "blk.#.attn_output.weight"},
    {"model.layers.#.self_attn.q_proj.bias", "blk.#.attn_q.bias"},
    {"model.layers.#.self_attn.k_proj.bias", "blk.#.attn_k.bias"},
    {"model.layers.#.self_attn.v_proj.bias", "blk.#.attn_v.bias"},
    {"model.layers.#.self_attn.o_proj.bias", "blk.#.attn_output.bias"},
    {"model.layers.#.self_attn.q_norm.weight", "blk.#.attn_q_norm.weight", kPlusOne},
    {"model.layers.#.self_attn.k_norm.weight", "blk.#.attn_k_norm.weight", kPlusOne},
    {"model.layers.#.mlp.shared_expert_gate.weight", "blk.#.ffn_gate_inp_shexp.weight"},
    {"model.layers.#.mlp.shared_expert.gate_proj.weight", "blk.#.ffn_gate_shexp.weight"},
    {"model.layers.#.mlp.shared_expert.up_proj.weight", "blk.#.ffn_up_shexp.weight"},
    {"model.layers.#.mlp.shared_expert.down_proj.weight", "blk.#.ffn_down_shexp.weight"},
};

inline constexpr HfTensor kGatedDelta[] = {
    {"model.layers.#.linear_attn.in_proj_qkvz.weight",
     "blk.#.attn_qkv.weight",
     {.rows = DeltaQkvRows}},
    {"model.layers.#.linear_attn.in_proj_qkvz.weight",
     "blk.#.attn_gate.weight",
     {.rows = DeltaGateRows}},
    {"model.layers.#.linear_attn.in_proj_ba.weight", "blk.#.ssm_ba.weight"},
    {"model.layers.#.linear_attn.conv1d.weight", "blk.#.ssm_conv1d.weight"},
    {"model.layers.#.linear_attn.dt_bias", "blk.#.ssm_dt.bias"},
    {"model.layers.#.linear_attn.A_log", "blk.#.ssm_a", kMinusExp},
    {"model.layers.#.linear_attn.norm.weight", "blk.#.ssm_norm.weight"},
    {"model.layers.#.linear_attn.out_proj.weight", "blk.#.ssm_out.weight"},
};

inline constexpr HfKey kQwen3NextKeys[] = {
    {"num_experts", "expert_count", HfKey::Kind::kUint, true},
    {"num_experts_per_tok", "expert_used_count", HfKey::Kind::kUint, true},
    {"moe_intermediate_size", "expert_feed_forward_length", HfKey::Kind::kUint, true},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length", HfKey::Kind::kUint,
     true},
    {"linear_conv_kernel_dim", "ssm.conv_kernel", HfKey::Kind::kUint, true},
    {"linear_key_head_dim", "ssm.state_size", HfKey::Kind::kUint, true},
    {"linear_num_key_heads", "ssm.group_count", HfKey::Kind::kUint, true},
    {"linear_num_value_heads", "ssm.time_step_rank", HfKey::Kind::kUint, true},
};

inline constexpr std::string_view kQwen3NextDefaults = R"({"num_attention_heads": 16,
  "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 32768,
  "rms_norm_eps": 1e-6, "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4,
  "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
  "linear_num_value_heads": 32, "moe_intermediate_size": 512,
  "shared_expert_intermediate_size": 512, "num_experts_per_tok": 10, "num_experts": 512})";

Status FinishQwen3Next(HfFolder& folder, const Json& config);

}  // namespace snug
