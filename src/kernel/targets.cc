// The run-time choice of a SIMD target: Highway's own detection, narrowed by our bf16 gate and
// SNUG_TARGET.
#include "kernel/targets.h"

#include <atomic>
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

// Highway's bits of the targets that this process may use; asked once, since Highway's
// SupportedTargets also sets the dispatch to all that the CPU has.
int64_t Allowed() {
  static const int64_t targets = [] {
    const int64_t wanted = hwy::SupportedTargets() & HWY_TARGETS & ~Disabled();
    return wanted != 0 ? wanted : static_cast<int64_t>(HWY_STATIC_TARGET);
  }();
  return targets;
}

// The targets that dispatch chooses from; 0 before the first choice.
std::atomic<int64_t> current{0};

void Dispatch(int64_t targets) {
  hwy::GetChosenTarget().Update(targets);
  current.store(targets);
}

}  // namespace

void ChooseTarget() {
  static const bool once = [] {
    Dispatch(Allowed());
    return true;
  }();
  (void)once;
}

std::vector<int64_t> RunnableTargets() {
  ChooseTarget();
  std::vector<int64_t> targets;
  for (int64_t all = Allowed(); all != 0; all &= all - 1) targets.push_back(all & -all);
  // The fallback is not in Highway's mask where something better is.
  if (targets.back() != HWY_STATIC_TARGET) targets.push_back(HWY_STATIC_TARGET);
  return targets;
}

void UseTarget(int64_t target) {
  ChooseTarget();
  Dispatch(target == 0 ? Allowed() : target);
}

const char* KernelTarget() {
  ChooseTarget();
  const int64_t targets = current.load();
#if HWY_ARCH_X86
  if ((targets & HWY_AVX3_DL) != 0) return "AVX-512 VNNI BF16";
  if ((targets & HWY_AVX2) != 0) return "AVX2";
#elif HWY_ARCH_ARM
  if ((targets & HWY_NEON) != 0) return "NEON";
#endif
  return "generic";
}

}  // namespace snug
