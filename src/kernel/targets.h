// SIMD targets. Highway dispatches at run time among AVX2, NEON, a generic one and "AVX3_DL";
// Highway 1.0.3 knows AVX3_DL as AVX-512 with VNNI but not the bf16 dot product, so our gate lets
// it through only where CPUID reports avx512_bf16 too (Zen 4 and later, Cooper Lake, Sapphire
// Rapids and later).
#pragma once

#include <cstdint>
#include <vector>

namespace snug {

// Restricts dispatch to targets this machine runs; called before the first kernel, idempotent. The
// environment variable SNUG_TARGET=avx2|generic lowers it for tests.
void ChooseTarget();

// Test hooks: the targets that are built and that this machine runs, best first, as Highway's bits;
// and the choice of one of them for the whole process (0: the best again). Not while kernels run.
std::vector<int64_t> RunnableTargets();
void UseTarget(int64_t target);

}  // namespace snug
