// The run-time choice of a SIMD target: Highway's own detection, narrowed by our bf16 gate and
// SNUG_TARGET.
#include "kernel/targets.h"

#include <cstdlib>
#include <string_view>

#include "hwy/highway.h"
#include "hwy/targets.h"
#include "kernel/matmul.h"

#if HWY_ARCH_X86
#include <cpuid.h>
#endif

namespace snug {
namespace {

#if HWY_ARCH_X86
// CPUID leaf 7, subleaf 1, EAX bit 5: AVX512_BF16.
bool HasBf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
}
#endif

int64_t Disabled() {
  int64_t mask = 0;
#if HWY_ARCH_X86
  if (!HasBf16()) mask |= HWY_AVX3_DL;
  const char* wish = std::getenv("SNUG_TARGET");
  const std::string_view name = wish == nullptr ? "" : wish;
  if (name == "avx2" || name == "generic") mask |= HWY_AVX3_DL;
  if (name == "generic") mask |= HWY_AVX2;
#endif
  return mask;
}

}  // namespace

void ChooseTarget() {
  // Later calls would undo what a test has set through hwy::SetSupportedTargetsForTest.
  static const bool once = [] {
    if (const int64_t disabled = Disabled(); disabled != 0) hwy::DisableTargets(disabled);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return true;
  }();
  (void)once;
}

std::vector<int64_t> RunnableTargets() {
  ChooseTarget();
  std::vector<int64_t> targets;
  for (int64_t all = hwy::SupportedTargets() & HWY_TARGETS; all != 0; all &= all - 1) {
    targets.push_back(all & -all);
  }
  // The fallback is not in Highway's mask where something better is.
  if (targets.empty() || targets.back() != HWY_STATIC_TARGET) targets.push_back(HWY_STATIC_TARGET);
  return targets;
}

void UseTarget(int64_t target) {
  ChooseTarget();
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

const char* KernelTarget() {
  ChooseTarget();
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
#if HWY_ARCH_X86
  if ((targets & HWY_AVX3_DL) != 0) return "AVX-512 VNNI BF16";
  if ((targets & HWY_AVX2) != 0) return "AVX2";
#elif HWY_ARCH_ARM
  if ((targets & HWY_NEON) != 0) return "NEON";
#endif
  return "generic";
}

}  // namespace snug
