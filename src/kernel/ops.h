// Element-wise and row kernels. All are functions of their row alone (deterministic in batch and
// threads).
#pragma once

#include <cstddef>
#include <cstdint>

namespace snug {

// y = x / rms(x) * w (RMSNorm, Zhang and Sennrich 2019); w null means ones. Gemma's "1 + w" is
// stored added in GGUF. y may be x.
void RmsNorm(const float* x, const float* w, float eps, size_t n, float* y);
// y = (x - mean(x)) / sqrt(var(x) + eps) * w + b (LayerNorm, Ba et al. 2016); b null means none. y
// may be x.
void LayerNorm(const float* x, const float* w, const float* b, float eps, size_t n, float* y);
void AddTo(const float* x, size_t n, float* y);                        // y += x
void AddScaled(float s, const float* x, size_t n, float* y);           // y += s * x
void Scale(float s, size_t n, float* x);                               // x *= s
void SiluMul(const float* gate, const float* up, size_t n, float* y);  // silu(gate) * up
void GeluMul(const float* gate, const float* up, size_t n, float* y);  // gelu_tanh(gate) * up
void GeluErf(size_t n, float* x);  // x = x Phi(x), Phi the normal distribution function
// gpt-oss: g sigmoid(alpha g) (u + 1), where g = min(gate, limit), u = up within [-limit, limit].
void ClampedSwiglu(const float* gate, const float* up, float alpha, float limit, size_t n,
                   float* y);
void SigmoidMul(const float* gate, size_t n, float* y);   // y *= sigmoid(gate)
void L2Norm(float eps, float scale, size_t n, float* x);  // x *= scale / sqrt(sum x^2 + eps)
void Softmax(float* x, size_t n);
size_t ArgMax(const float* x, size_t n);      // the first of equals
void SoftCap(float cap, size_t n, float* x);  // cap * tanh(x / cap)

// Rotary embedding (Su et al. 2021). `cos_sin` holds dim/2 cosines, then dim/2 sines of one
// position.
void RopeNeox(const float* cos_sin, size_t dim, float* head);  // pairs (i, i + dim/2): Qwen, Gemma
void RopeInterleaved(const float* cos_sin, size_t dim,
                     float* head);  // pairs (2i, 2i + 1): Llama in GGUF

}  // namespace snug
