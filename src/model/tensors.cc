#include "model/tensors.h"

namespace snug {

LayerTensor Matrix(Role role, std::string_view name, uint32_t rows, uint32_t cols) {
  return {role, name, rows, cols};
}

LayerTensor Vector(Role role, std::string_view name, uint32_t size) {
  return {role, name, 1, size, false};
}

LayerTensor Values(Role role, std::string_view name, uint32_t rows, uint32_t cols) {
  return {role, name, rows, cols, false};
}

LayerTensor Slice(Role role, std::string_view name, uint32_t first_row, uint32_t rows,
                  uint32_t of_rows, uint32_t cols) {
  return {role, name, rows, cols, true, false, first_row, of_rows};
}

LayerTensor Optional(LayerTensor tensor) {
  tensor.optional = true;
  return tensor;
}

LayerTensor PerExpert(uint32_t experts, LayerTensor tensor) {
  tensor.experts = experts;
  return tensor;
}

LayerTensors AttentionTensors(const ModelConfig& c) {
  const uint32_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  const uint32_t projected = c.attention_gate ? 2 * q : q;
  return {
      Matrix(Role::kQ, "attn_q.weight", projected, c.dim),
      Matrix(Role::kK, "attn_k.weight", kv, c.dim),
      Matrix(Role::kV, "attn_v.weight", kv, c.dim),
      Matrix(Role::kO, "attn_output.weight", c.dim, q),
      Optional(Vector(Role::kQBias, "attn_q.bias", projected)),
      Optional(Vector(Role::kKBias, "attn_k.bias", kv)),
      Optional(Vector(Role::kVBias, "attn_v.bias", kv)),
      Optional(Vector(Role::kOBias, "attn_output.bias", c.dim)),
  };
}

LayerTensors GatedFfnTensors(const ModelConfig& c) {
  return {
      Matrix(Role::kGate, "ffn_gate.weight", c.ffn, c.dim),
      Matrix(Role::kUp, "ffn_up.weight", c.ffn, c.dim),
      Matrix(Role::kDown, "ffn_down.weight", c.dim, c.ffn),
      Optional(Vector(Role::kGateBias, "ffn_gate.bias", c.ffn)),
      Optional(Vector(Role::kUpBias, "ffn_up.bias", c.ffn)),
      Optional(Vector(Role::kDownBias, "ffn_down.bias", c.dim)),
  };
}

LayerTensors ExpertTensors(const ModelConfig& c) {
  const uint32_t n = c.router.experts, ffn = c.expert_ffn;
  return {
      Matrix(Role::kRouter, "ffn_gate_inp.weight", n, c.dim),
      Optional(Vector(Role::kRouterBias, "ffn_gate_inp.bias", n)),
      Optional(Vector(Role::kRouterCorrection, "exp_probs_b.bias", n)),
      PerExpert(n, Matrix(Role::kGate, "ffn_gate_exps.weight", ffn, c.dim)),
      PerExpert(n, Matrix(Role::kUp, "ffn_up_exps.weight", ffn, c.dim)),
      PerExpert(n, Matrix(Role::kDown, "ffn_down_exps.weight", c.dim, ffn)),
      PerExpert(n, Optional(Vector(Role::kGateBias, "ffn_gate_exps.bias", ffn))),
      PerExpert(n, Optional(Vector(Role::kUpBias, "ffn_up_exps.bias", ffn))),
      PerExpert(n, Optional(Vector(Role::kDownBias, "ffn_down_exps.bias", c.dim))),
  };
}

LayerTensors SharedExpertTensors(const ModelConfig& c) {
  return {
      Optional(Matrix(Role::kSharedRouter, "ffn_gate_inp_shexp.weight", 1, c.dim)),
      Matrix(Role::kSharedGate, "ffn_gate_shexp.weight", c.shared_ffn, c.dim),
      Matrix(Role::kSharedUp, "ffn_up_shexp.weight", c.shared_ffn, c.dim),
      Matrix(Role::kSharedDown, "ffn_down_shexp.weight", c.dim, c.shared_ffn),
  };
}

LayerTensors Join(std::initializer_list<LayerTensors> lists) {
  LayerTensors all;
  for (const LayerTensors& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

LayerWeights ViewPart(const Part& part, const uint8_t* base) {
  LayerWeights w;
  for (const PartTensor& t : part.tensors) {
    if (t.packed) {
      w.matrix[t.role] = {base + t.offset, t.info->type, t.rows,
                          static_cast<uint32_t>(t.info->cols())};
    } else {
      w.vector[t.role] = reinterpret_cast<const float*>(base + t.offset);
    }
  }
  return w;
}

}  // namespace snug
