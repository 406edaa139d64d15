// From a stored type to the reader of its packed format. Included once per target.
#if defined(SNUG_KERNEL_MATMUL_DISPATCH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SNUG_KERNEL_MATMUL_DISPATCH_INL_H
#undef SNUG_KERNEL_MATMUL_DISPATCH_INL_H
#else
#define SNUG_KERNEL_MATMUL_DISPATCH_INL_H
#endif

#include "kernel/matmul_formats-inl.h"
#include "kernel/matmul_formats_codes-inl.h"
#include "kernel/matmul_formats_low-inl.h"
#include "kernel/matmul_formats_ternary-inl.h"

SNUG_BEFORE_NAMESPACE();
namespace snug {
namespace HWY_NAMESPACE {

// Calls f with a null pointer to the reader of a type that has one.
template <class F>
static HWY_INLINE void WithFormat(DType type, const F& f) {
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return;
    case DType::kQ8_0:
      return f(static_cast<FormatQ8_0*>(nullptr));
    case DType::kQ4_0:
      return f(static_cast<FormatQ4_0*>(nullptr));
    case DType::kQ4_1:
      return f(static_cast<FormatQ4_1*>(nullptr));
    case DType::kQ5_0:
      return f(static_cast<FormatQ5_0*>(nullptr));
    case DType::kQ5_1:
      return f(static_cast<FormatQ5_1*>(nullptr));
    case DType::kQ2_K:
      return f(static_cast<FormatQ2_K*>(nullptr));
    case DType::kQ3_K:
      return f(static_cast<FormatQ3_K*>(nullptr));
    case DType::kQ4_K:
      return f(static_cast<FormatQ4_K*>(nullptr));
    case DType::kQ5_K:
      return f(static_cast<FormatQ5_K*>(nullptr));
    case DType::kQ6_K:
      return f(static_cast<FormatQ6_K*>(nullptr));
    case DType::kIQ4_NL:
      return f(static_cast<FormatIQ4_NL*>(nullptr));
    case DType::kIQ4_XS:
      return f(static_cast<FormatIQ4_XS*>(nullptr));
    case DType::kTQ1_0:
      return f(static_cast<FormatTQ1_0*>(nullptr));
    case DType::kTQ2_0:
      return f(static_cast<FormatTQ2_0*>(nullptr));
    case DType::kMXFP4:
      return f(static_cast<FormatMXFP4*>(nullptr));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace snug
SNUG_AFTER_NAMESPACE();

#endif  // toggle
