#include "format/hf_architectures.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "format/hf_config.h"
#include "format/hf_folder.h"
#include "format/hf_recurrent.h"

namespace snug {
namespace {

using Kind = HfKey::Kind;

// --- names that families share

constexpr HfTensor kEnds[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

constexpr HfTensor kAttention[] = {
    {"model.layers.#.input_layernorm.weight", "blk.#.attn_norm.weight"},
    {"model.layers.#.self_attn.q_proj.weight", "blk.#.attn_q.weight"},
    {"model.layers.#.self_attn.k_proj.weight", "blk.#.attn_k.weight"},
    {"model.layers.#.self_attn.v_proj.weight", "blk.#.attn_v.weight"},
    {"model.layers.#.self_attn.o_proj.weight", "blk.#.attn_output.weight"},
    {"model.layers.#.self_attn.q_proj.bias", "blk.#.attn_q.bias"},
    {"model.layers.#.self_attn.k_proj.bias", "blk.#.attn_k.bias"},
    {"model.layers.#.self_attn.v_proj.bias", "blk.#.attn_v.bias"},
    {"model.layers.#.self_attn.o_proj.bias", "blk.#.attn_output.bias"},
    {"model.layers.#.self_attn.q_norm.weight", "blk.#.attn_q_norm.weight"},
    {"model.layers.#.self_attn.k_norm.weight", "blk.#.attn_k_norm.weight"},
    {"model.layers.#.post_attention_layernorm.weight", "blk.#.ffn_norm.weight"},
};

constexpr HfTensor kGatedMlp[] = {
    {"model.layers.#.mlp.gate_proj.weight", "blk.#.ffn_gate.weight"},
    {"model.layers.#.mlp.up_proj.weight", "blk.#.ffn_up.weight"},
    {"model.layers.#.mlp.down_proj.weight", "blk.#.ffn_down.weight"},
    {"model.layers.#.mlp.gate_proj.bias", "blk.#.ffn_gate.bias"},
    {"model.layers.#.mlp.up_proj.bias", "blk.#.ffn_up.bias"},
    {"model.layers.#.mlp.down_proj.bias", "blk.#.ffn_down.bias"},
};

constexpr HfTensor kExperts[] = {
    {"model.layers.#.mlp.gate.weight", "blk.#.ffn_gate_inp.weight"},
    {"model.layers.#.mlp.experts.#.gate_proj.weight", "blk.#.ffn_gate_exps.weight"},
    {"model.layers.#.mlp.experts.#.up_proj.weight", "blk.#.ffn_up_exps.weight"},
    {"model.layers.#.mlp.experts.#.down_proj.weight", "blk.#.ffn_down_exps.weight"},
};

constexpr HfKey kSharedKeys[] = {
    {"num_hidden_layers", "block_count", Kind::kUint, true},
    {"hidden_size", "embedding_length", Kind::kUint, true},
    {"max_position_embeddings", "context_length"},
    {"intermediate_size", "feed_forward_length"},
    {"num_attention_heads", "attention.head_count"},
    {"num_key_value_heads", "attention.head_count_kv"},
    {"head_dim", "attention.key_length"},
    {"head_dim", "attention.value_length"},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", Kind::kFloat},
    {"vocab_size", "vocab_size"},
    {"attn_logit_softcapping", "attn_logit_softcapping", Kind::kFloat},
    {"final_logit_softcapping", "final_logit_softcapping", Kind::kFloat},
};

constexpr HfFixed kSilu[] = {
    {"hidden_act", "\"silu\""},
    {"use_sliding_window", "false"},
};

// --- Gemma 2 and 3: weights of norms are stored less one.

constexpr HfTensor kGemma[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight", kPlusOne},
    {"lm_head.weight", "output.weight"},
    {"model.layers.#.input_layernorm.weight", "blk.#.attn_norm.weight", kPlusOne},
    {"model.layers.#.self_attn.q_proj.weight", "blk.#.attn_q.weight"},
    {"model.layers.#.self_attn.k_proj.weight", "blk.#.attn_k.weight"},
    {"model.layers.#.self_attn.v_proj.weight", "blk.#.attn_v.weight"},
    {"model.layers.#.self_attn.o_proj.weight", "blk.#.attn_output.weight"},
    {"model.layers.#.self_attn.q_norm.weight", "blk.#.attn_q_norm.weight", kPlusOne},
    {"model.layers.#.self_attn.k_norm.weight", "blk.#.attn_k_norm.weight", kPlusOne},
    {"model.layers.#.post_attention_layernorm.weight", "blk.#.post_attention_norm.weight",
     kPlusOne},
    {"model.layers.#.pre_feedforward_layernorm.weight", "blk.#.ffn_norm.weight", kPlusOne},
    {"model.layers.#.post_feedforward_layernorm.weight", "blk.#.post_ffw_norm.weight", kPlusOne},
};

constexpr HfFixed kGemmaFixed[] = {
    {"hidden_activation", "\"gelu_pytorch_tanh\""},
    {"attention_bias", "false"},
    {"use_bidirectional_attention", "false"},
};

// q k' is scaled by 1 / sqrt(query_pre_attn_scalar), which is the head size in most models.
Status FinishGemma(HfFolder& folder, const Json& config) {
  SNUG_ASSIGN(const auto scalar, HfFloat(folder, config, "query_pre_attn_scalar"));
  if (!scalar) return {};
  if (!(*scalar > 0)) return folder.Bad("config.json", "query_pre_attn_scalar is not positive");
  folder.SetFloat(*folder.GetString("general.architecture") + ".attention.scale",
                  1 / std::sqrt(*scalar));
  return {};
}

// --- OLMo 2: no norm before a block, one after it.

constexpr HfTensor kOlmo2Norms[] = {
    {"model.layers.#.self_attn.q_proj.weight", "blk.#.attn_q.weight"},
    {"model.layers.#.self_attn.k_proj.weight", "blk.#.attn_k.weight"},
    {"model.layers.#.self_attn.v_proj.weight", "blk.#.attn_v.weight"},
    {"model.layers.#.self_attn.o_proj.weight", "blk.#.attn_output.weight"},
    {"model.layers.#.self_attn.q_norm.weight", "blk.#.attn_q_norm.weight"},
    {"model.layers.#.self_attn.k_norm.weight", "blk.#.attn_k_norm.weight"},
    {"model.layers.#.post_attention_layernorm.weight", "blk.#.post_attention_norm.weight"},
    {"model.layers.#.post_feedforward_layernorm.weight", "blk.#.post_ffw_norm.weight"},
};

// --- Phi 3: q, k, v in one matrix, gate and up in another, as in GGUF.

constexpr HfTensor kPhi3[] = {
    {"model.layers.#.input_layernorm.weight", "blk.#.attn_norm.weight"},
    {"model.layers.#.self_attn.qkv_proj.weight", "blk.#.attn_qkv.weight"},
    {"model.layers.#.self_attn.o_proj.weight", "blk.#.attn_output.weight"},
    {"model.layers.#.post_attention_layernorm.weight", "blk.#.ffn_norm.weight"},
    {"model.layers.#.mlp.gate_up_proj.weight", "blk.#.ffn_up.weight"},
    {"model.layers.#.mlp.down_proj.weight", "blk.#.ffn_down.weight"},
};

// --- Granite 3: Llama with four scales.

constexpr HfKey kGraniteKeys[] = {
    {"attention_multiplier", "attention.scale", Kind::kFloat},
    {"embedding_multiplier", "embedding_scale", Kind::kFloat},
    {"residual_multiplier", "residual_scale", Kind::kFloat},
    {"logits_scaling", "logit_scale", Kind::kFloat},
};

// --- mixtures of experts

constexpr HfKey kMixtralKeys[] = {
    {"num_local_experts", "expert_count", Kind::kUint, true},
    {"num_experts_per_tok", "expert_used_count", Kind::kUint, true},
};

constexpr HfTensor kMixtral[] = {
    {"model.layers.#.block_sparse_moe.gate.weight", "blk.#.ffn_gate_inp.weight"},
    {"model.layers.#.block_sparse_moe.experts.#.w1.weight", "blk.#.ffn_gate_exps.weight"},
    {"model.layers.#.block_sparse_moe.experts.#.w3.weight", "blk.#.ffn_up_exps.weight"},
    {"model.layers.#.block_sparse_moe.experts.#.w2.weight", "blk.#.ffn_down_exps.weight"},
};

constexpr HfKey kExpertKeys[] = {
    {"num_experts", "expert_count"},
    {"num_local_experts", "expert_count"},
    {"num_experts_per_tok", "expert_used_count", Kind::kUint, true},
    {"moe_intermediate_size", "expert_feed_forward_length"},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length"},
};

constexpr HfFixed kOlmoeFixed[] = {
    {"hidden_act", "\"silu\""},
    {"norm_topk_prob", "false"},
    {"clip_qkv", ""},
};

constexpr HfFixed kQwenMoeFixed[] = {
    {"hidden_act", "\"silu\""},   {"norm_topk_prob", "true"}, {"use_sliding_window", "false"},
    {"decoder_sparse_step", "1"}, {"mlp_only_layers", "[]"},
};

// --- GPT-OSS: experts of [inputs, outputs], gate and up in turns; sinks. Real folders have MXFP4.

constexpr HfView kTransposed{.transposed = true};
constexpr HfView kGateOfPairs{.transposed = true, .part = 0, .parts = 2};
constexpr HfView kUpOfPairs{.transposed = true, .part = 1, .parts = 2};
constexpr HfView kGateBiasOfPairs{.part = 0, .parts = 2};
constexpr HfView kUpBiasOfPairs{.part = 1, .parts = 2};

constexpr HfTensor kGptOss[] = {
    {"model.layers.#.input_layernorm.weight", "blk.#.attn_norm.weight"},
    {"model.layers.#.self_attn.q_proj.weight", "blk.#.attn_q.weight"},
    {"model.layers.#.self_attn.k_proj.weight", "blk.#.attn_k.weight"},
    {"model.layers.#.self_attn.v_proj.weight", "blk.#.attn_v.weight"},
    {"model.layers.#.self_attn.o_proj.weight", "blk.#.attn_output.weight"},
    {"model.layers.#.self_attn.q_proj.bias", "blk.#.attn_q.bias"},
    {"model.layers.#.self_attn.k_proj.bias", "blk.#.attn_k.bias"},
    {"model.layers.#.self_attn.v_proj.bias", "blk.#.attn_v.bias"},
    {"model.layers.#.self_attn.o_proj.bias", "blk.#.attn_output.bias"},
    {"model.layers.#.self_attn.sinks", "blk.#.attn_sinks.weight"},
    {"model.layers.#.post_attention_layernorm.weight", "blk.#.post_attention_norm.weight"},
    {"model.layers.#.mlp.router.weight", "blk.#.ffn_gate_inp.weight"},
    {"model.layers.#.mlp.router.bias", "blk.#.ffn_gate_inp.bias"},
    {"model.layers.#.mlp.experts.gate_up_proj", "blk.#.ffn_gate_exps.weight", kGateOfPairs},
    {"model.layers.#.mlp.experts.gate_up_proj", "blk.#.ffn_up_exps.weight", kUpOfPairs},
    {"model.layers.#.mlp.experts.down_proj", "blk.#.ffn_down_exps.weight", kTransposed},
    {"model.layers.#.mlp.experts.gate_up_proj_bias", "blk.#.ffn_gate_exps.bias", kGateBiasOfPairs},
    {"model.layers.#.mlp.experts.gate_up_proj_bias", "blk.#.ffn_up_exps.bias", kUpBiasOfPairs},
    {"model.layers.#.mlp.experts.down_proj_bias", "blk.#.ffn_down_exps.bias"},
};

constexpr HfKey kGptOssKeys[] = {
    {"num_local_experts", "expert_count", Kind::kUint, true},
    {"num_experts_per_tok", "expert_used_count", Kind::kUint, true},
    {"intermediate_size", "expert_feed_forward_length", Kind::kUint, true},
};

constexpr HfFixed kGptOssFixed[] = {
    {"hidden_act", "\"silu\""},
    {"swiglu_limit", "7|7.0"},
    {"swiglu_alpha", "1.702"},
};

// --- BERT, and how sentence-transformers says what becomes of its hidden states

constexpr HfTensor kBert[] = {
    {"embeddings.word_embeddings.weight", "token_embd.weight"},
    {"embeddings.position_embeddings.weight", "position_embd.weight"},
    {"embeddings.token_type_embeddings.weight", "token_types.weight"},
    {"embeddings.LayerNorm.weight", "token_embd_norm.weight"},
    {"embeddings.LayerNorm.bias", "token_embd_norm.bias"},
    {"encoder.layer.#.attention.self.query.weight", "blk.#.attn_q.weight"},
    {"encoder.layer.#.attention.self.query.bias", "blk.#.attn_q.bias"},
    {"encoder.layer.#.attention.self.key.weight", "blk.#.attn_k.weight"},
    {"encoder.layer.#.attention.self.key.bias", "blk.#.attn_k.bias"},
    {"encoder.layer.#.attention.self.value.weight", "blk.#.attn_v.weight"},
    {"encoder.layer.#.attention.self.value.bias", "blk.#.attn_v.bias"},
    {"encoder.layer.#.attention.output.dense.weight", "blk.#.attn_output.weight"},
    {"encoder.layer.#.attention.output.dense.bias", "blk.#.attn_output.bias"},
    {"encoder.layer.#.attention.output.LayerNorm.weight", "blk.#.attn_output_norm.weight"},
    {"encoder.layer.#.attention.output.LayerNorm.bias", "blk.#.attn_output_norm.bias"},
    {"encoder.layer.#.intermediate.dense.weight", "blk.#.ffn_up.weight"},
    {"encoder.layer.#.intermediate.dense.bias", "blk.#.ffn_up.bias"},
    {"encoder.layer.#.output.dense.weight", "blk.#.ffn_down.weight"},
    {"encoder.layer.#.output.dense.bias", "blk.#.ffn_down.bias"},
    {"encoder.layer.#.output.LayerNorm.weight", "blk.#.layer_output_norm.weight"},
    {"encoder.layer.#.output.LayerNorm.bias", "blk.#.layer_output_norm.bias"},
};

constexpr HfKey kBertKeys[] = {
    {"layer_norm_eps", "attention.layer_norm_epsilon", Kind::kFloat},
};

constexpr HfFixed kBertFixed[] = {
    {"hidden_act", "\"gelu\""},
    {"position_embedding_type", "\"absolute\""},
    {"is_decoder", "false"},
    {"add_cross_attention", "false"},
};

// Whether modules.json, a list of what texts go through, ends with a scaling to length 1.
Result<bool> Normalizes(const HfFolder& folder) {
  const std::string path = folder.path() + "/modules.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return false;
  SNUG_ASSIGN(const std::string text, ReadWholeFile(path, 1 << 20));
  const auto modules = ParseJson(text, path);
  if (!modules.ok() || !modules->is_array()) {
    return folder.Bad("modules.json", "is no list of modules");
  }
  return std::any_of(modules->begin(), modules->end(), [](const Json& m) {
    return m.is_object() && m.contains("type") && m["type"].is_string() &&
           m["type"].get_ref<const std::string&>().ends_with(".Normalize");
  });
}

Status FinishBert(HfFolder& folder, const Json& /*config*/) {
  folder.SetBool("bert.attention.causal", false);
  SNUG_ASSIGN(const Json pooling, ReadHfJson(folder, "1_Pooling/config.json", false));
  const auto uses = [&](const char* mode) -> Result<bool> {
    SNUG_ASSIGN(const auto value, HfBool(folder, pooling, mode));
    return value.value_or(false);
  };
  SNUG_ASSIGN(const bool mean, uses("pooling_mode_mean_tokens"));
  SNUG_ASSIGN(const bool cls, uses("pooling_mode_cls_token"));
  for (const char* other : {"pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens",
                            "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"}) {
    SNUG_ASSIGN(const bool used, uses(other));
    if (!used) continue;
    return folder.Bad("1_Pooling/config.json", std::string(other) + " is not supported",
                      "supported are pooling_mode_mean_tokens and pooling_mode_cls_token");
  }
  if (mean && cls) {
    return folder.Bad("1_Pooling/config.json", "two kinds of pooling at once are not supported");
  }
  if (mean || cls) folder.SetUint("bert.pooling_type", mean ? 1 : 2);
  SNUG_ASSIGN(const bool normalize, Normalizes(folder));
  folder.SetBool("bert.normalize_embeddings", normalize);
  return {};
}

// --- the registry

constexpr std::string_view kBertDefaults = R"({"num_hidden_layers": 12, "hidden_size": 768,
  "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512,
  "layer_norm_eps": 1e-12})";
constexpr std::string_view kGemma2Defaults = R"({"num_attention_heads": 8,
  "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
  "rms_norm_eps": 1e-6, "rope_theta": 10000, "query_pre_attn_scalar": 256,
  "sliding_window": 4096, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0})";
constexpr std::string_view kGemma3Defaults = R"({"num_attention_heads": 8,
  "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072,
  "rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_local_base_freq": 10000,
  "query_pre_attn_scalar": 256, "sliding_window": 4096})";
constexpr std::string_view kLlamaDefaults = R"({"rms_norm_eps": 1e-6,
  "max_position_embeddings": 2048})";
constexpr std::string_view kMistralDefaults = R"({"rms_norm_eps": 1e-6,
  "num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131072})";
constexpr std::string_view kMixtralDefaults = R"({"rms_norm_eps": 1e-5,
  "num_key_value_heads": 8, "rope_theta": 1000000, "max_position_embeddings": 131072,
  "num_local_experts": 8, "num_experts_per_tok": 2})";

constexpr HfArchitecture kArchitectures[] = {
    {.model_type = "bert",
     .class_name = "BertModel",
     .gguf = "bert",
     .tensors = {kBert},
     .keys = kBertKeys,
     .fixed = kBertFixed,
     .defaults = kBertDefaults,
     .finish = FinishBert},
    {.model_type = "falcon_mamba",
     .class_name = "FalconMambaForCausalLM",
     .gguf = "mamba",
     .tensors = {kMamba, kMamba1},
     .keys = kMambaKeys,
     .fixed = kMambaFixed,
     .defaults = kMambaDefaults,
     .finish = FinishFalconMamba},
    {.model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .gguf = "gemma2",
     .tensors = {kGemma, kGatedMlp},
     .fixed = kGemmaFixed,
     .defaults = kGemma2Defaults,
     .finish = FinishGemma},
    {.model_type = "gemma3",
     .class_name = "Gemma3ForConditionalGeneration",
     .gguf = "gemma3",
     .tensors = {kGemma, kGatedMlp},
     .fixed = kGemmaFixed,
     .defaults = kGemma3Defaults,
     .finish = FinishGemma},
    {.model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .gguf = "gemma3",
     .tensors = {kGemma, kGatedMlp},
     .fixed = kGemmaFixed,
     .defaults = kGemma3Defaults,
     .finish = FinishGemma},
    {.model_type = "gpt_oss",
     .class_name = "GptOssForCausalLM",
     .gguf = "gpt-oss",
     .tensors = {kEnds, kGptOss},
     .keys = kGptOssKeys,
     .fixed = kGptOssFixed},
    {.model_type = "granite",
     .class_name = "GraniteForCausalLM",
     .gguf = "granite",
     .tensors = {kEnds, kAttention, kGatedMlp},
     .keys = kGraniteKeys,
     .fixed = kSilu,
     .interleaved = true},
    {.model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .gguf = "llama",
     .tensors = {kEnds, kAttention, kGatedMlp},
     .fixed = kSilu,
     .defaults = kLlamaDefaults,
     .interleaved = true},
    {.model_type = "mamba",
     .class_name = "MambaForCausalLM",
     .gguf = "mamba",
     .tensors = {kMamba, kMamba1},
     .keys = kMambaKeys,
     .fixed = kMambaFixed,
     .defaults = kMambaDefaults,
     .finish = FinishMamba},
    {.model_type = "mamba2",
     .class_name = "Mamba2ForCausalLM",
     .gguf = "mamba2",
     .tensors = {kMamba, kMamba2},
     .keys = kMamba2Keys,
     .fixed = kMambaFixed,
     .defaults = kMamba2Defaults,
     .finish = FinishMamba2},
    {.model_type = "mistral",
     .class_name = "MistralForCausalLM",
     .gguf = "llama",
     .tensors = {kEnds, kAttention, kGatedMlp},
     .fixed = kSilu,
     .defaults = kMistralDefaults,
     .interleaved = true},
    {.model_type = "mixtral",
     .class_name = "MixtralForCausalLM",
     .gguf = "llama",
     .tensors = {kEnds, kAttention, kMixtral},
     .keys = kMixtralKeys,
     .fixed = kSilu,
     .defaults = kMixtralDefaults,
     .interleaved = true},
    {.model_type = "olmo2",
     .class_name = "Olmo2ForCausalLM",
     .gguf = "olmo2",
     .tensors = {kEnds, kOlmo2Norms, kGatedMlp},
     .fixed = kSilu},
    {.model_type = "olmoe",
     .class_name = "OlmoeForCausalLM",
     .gguf = "olmoe",
     .tensors = {kEnds, kAttention, kExperts},
     .keys = kExpertKeys,
     .fixed = kOlmoeFixed},
    {.model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .gguf = "phi3",
     .tensors = {kEnds, kPhi3},
     .fixed = kSilu},
    {.model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .gguf = "qwen2",
     .tensors = {kEnds, kAttention, kGatedMlp},
     .fixed = kSilu},
    {.model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .gguf = "qwen3",
     .tensors = {kEnds, kAttention, kGatedMlp},
     .fixed = kSilu},
    {.model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .gguf = "qwen3moe",
     .tensors = {kEnds, kAttention, kExperts},
     .keys = kExpertKeys,
     .fixed = kQwenMoeFixed},
    {.model_type = "qwen3_next",
     .class_name = "Qwen3NextForCausalLM",
     .gguf = "qwen3next",
     .tensors = {kQwen3Next, kGatedDelta, kExperts},
     .keys = kQwen3NextKeys,
     .fixed = kQwenMoeFixed,
     .defaults = kQwen3NextDefaults,
     .finish = FinishQwen3Next},
    {.model_type = "smollm3",
     .class_name = "SmolLM3ForCausalLM",
     .gguf = "smollm3",
     .tensors = {kEnds, kAttention, kGatedMlp},
     .fixed = kSilu,
     .interleaved = true},
};

}  // namespace

std::span<const HfArchitecture> HfArchitectures() { return kArchitectures; }

const HfArchitecture* FindHfArchitecture(std::string_view model_type) {
  const auto* it = std::find_if(std::begin(kArchitectures), std::end(kArchitectures),
                                [&](const auto& a) { return a.model_type == model_type; });
  return it == std::end(kArchitectures) ? nullptr : it;
}

std::span<const HfKey> HfSharedKeys() { return kSharedKeys; }

HfPattern MakeHfPattern(std::string_view name) {
  HfPattern p;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    const std::string_view part = name.substr(at, end - at);
    uint64_t number = 0;
    const auto [last, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool is_number =
        !part.empty() && error == std::errc() && last == part.data() + part.size();
    if (is_number) p.numbers.push_back(number);
    p.text += is_number ? "#" : std::string(part);
    if (end < name.size()) p.text += '.';
    at = end + 1;
  }
  return p;
}

bool HfIgnores(std::string_view tensor) {
  constexpr std::string_view kParts[] = {"vision_tower.", "multi_modal_projector.", "visual."};
  constexpr std::string_view kEndings[] = {".rotary_emb.inv_freq", ".attention.bias",
                                           ".attention.masked_bias"};
  return tensor.starts_with("mtp.") || tensor.starts_with("pooler.") ||
         tensor.starts_with("cls.") || tensor.ends_with("position_ids") ||
         std::any_of(std::begin(kParts), std::end(kParts),
                     [&](std::string_view p) {
                       return tensor.starts_with(p) ||
                              (tensor.starts_with("model.") && tensor.substr(6).starts_with(p));
                     }) ||
         std::any_of(std::begin(kEndings), std::end(kEndings),
                     [&](std::string_view e) { return tensor.ends_with(e); });
}

}  // namespace snug
