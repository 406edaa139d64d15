#include "format/quantize_search.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "format/block_bits.h"
#include "format/dtype.h"

namespace snug {
namespace {

constexpr size_t kLanes = 8;
constexpr int kRefinements = 4;  // rounds of codes and least squares in turn; most need two
constexpr int kSuperRounds = 2;  // rounds over a super-block's integers
// Candidates map the extreme value to an extreme code and up to this many steps aside.
constexpr int kSteps = 9;

// Sums f(i) over i in a fixed order of eight lanes, which compilers turn into vectors.
template <class F>
float Sum(size_t n, F f) {
  float acc[kLanes] = {};
  for (size_t i = 0; i < n; i += kLanes)
    for (size_t k = 0; k < kLanes; ++k) acc[k] += f(i + k);
  return ((acc[0] + acc[4]) + (acc[1] + acc[5])) + ((acc[2] + acc[6]) + (acc[3] + acc[7]));
}

// The integer nearest to v within [lo, hi]; lo where v is no number.
float Nearest(float v, float lo, float hi) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: sums with it are whole
  v = v > lo ? v : lo;
  v = v < hi ? v : hi;
  return (v + kShift) - kShift;
}

// How codes approximate: the integers of a range, or the entries of a table.
struct Integers {
  float lo, hi;
  float operator()(float v) const { return Nearest(v, lo, hi); }
  int Index(float v) const { return static_cast<int>(Nearest(v, lo, hi)); }
};
// All values between two multiples of a half have one nearest code, as the middles between codes
// are such multiples.
class Table {
 public:
  explicit Table(const int8_t* codes) {
    for (int i = 0; i < kCells; ++i) {
      const float v = kLeast + 0.5f * static_cast<float>(i);
      while (index_[i] < 15 && 2 * v >= static_cast<float>(codes[index_[i]] + codes[index_[i] + 1]))
        ++index_[i];
      code_[i] = codes[index_[i]];
      if (i + 1 < kCells) index_[i + 1] = index_[i];
    }
  }
  float operator()(float v) const { return code_[Cell(v)]; }
  int Index(float v) const { return index_[Cell(v)]; }

 private:
  static constexpr int kCells = 512;
  static constexpr float kLeast = -128;
  static int Cell(float v) {
    v = v > kLeast ? v : kLeast;
    v = v < 127 ? v : 127;
    return static_cast<int>(2 * v - 2 * kLeast);
  }
  float code_[kCells];
  uint8_t index_[kCells] = {};
};

const Table& TableOf([[maybe_unused]] const int8_t* codes) {
  static const Table kIq4(kIq4Codes);
  assert(codes == kIq4Codes);
  return kIq4;
}

// Of the codes nearest to x / scale: sums for least squares.
struct ScaleSums {
  float xc = 0, cc = 0;  // of w x c and w c c
  float gain() const { return cc > 0 ? xc * xc / cc : 0; }
  float best() const { return cc > 0 ? xc / cc : 0; }
};
template <class Codes>
ScaleSums SumsOf(const float* x, const float* w, size_t n, float inverse, const Codes& code) {
  ScaleSums s;
  s.xc = Sum(n, [&](size_t i) { return w[i] * x[i] * code(x[i] * inverse); });
  s.cc = Sum(n, [&](size_t i) {
    const float c = code(x[i] * inverse);
    return w[i] * c * c;
  });
  return s;
}

float FiniteExtreme(const float* x, size_t n) {
  float extreme = 0;
  for (size_t i = 0; i < n; ++i)
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
  return std::isfinite(extreme) ? extreme : 0;
}

// Scales under which the extreme value has about one of the extreme codes; least squares of each.
template <class Codes>
float FitWith(const float* x, const float* w, size_t n, float lo, float hi, const Codes& code) {
  // Steps are tenths of a code where there are 16, and as large a part of the range elsewhere.
  const float step = (lo < 0 ? hi - lo : hi) / 150;
  const float extreme = FiniteExtreme(x, n);
  if (extreme == 0) return 0;
  float scale = 0, gain = 0;
  const auto consider = [&](float candidate) {
    const ScaleSums s = SumsOf(x, w, n, Inverse(candidate), code);
    if (!(s.gain() > gain)) return false;
    gain = s.gain();
    scale = s.best();
    return true;
  };
  for (int k = -kSteps; k <= kSteps; ++k) {
    const float shift = step * static_cast<float>(k);
    if (lo < 0) consider(extreme / (lo + shift));
    consider(extreme / (hi + shift));
  }
  for (int i = 0; i < kRefinements && scale != 0 && consider(scale); ++i) {
  }
  return scale;
}

template <class Codes>
float ErrorWith(const float* x, const float* w, size_t n, float scale, float offset,
                const Codes& code) {
  const float inverse = Inverse(scale);
  return Sum(n, [&](size_t i) {
    const float e = x[i] - offset - scale * code((x[i] - offset) * inverse);
    return w[i] * e * e;
  });
}

// Integers in units of one half float that approximate `values`, weighted: the unit.
float FitUnit(const float* values, const float* weights, int n, CodeRange range) {
  float padded[16] = {}, weight[16] = {};
  for (int j = 0; j < n; ++j) {
    padded[j] = values[j];
    weight[j] = weights[j];
  }
  return FitScale(padded, weight, 16, range);
}

float AsHalf(float v) {
  const float h = HalfToFloat(FloatToHalf(v));
  return std::isfinite(h) ? h : 0;
}

// The search over one super-block.
template <class Codes>
class SuperSearch {
 public:
  SuperSearch(const float* x, const float* w, const SuperShape& shape, const Codes& code)
      : x_(x), w_(w), shape_(shape), code_(code), size_(256 / shape.sub_blocks) {}

  SuperBlock Run() {
    Start();
    float best = Error();
    SuperBlock kept = block_;
    for (int round = 0; round < kSuperRounds; ++round) {
      for (int j = 0; j < shape_.sub_blocks; ++j) Improve(j);
      Refit();
      for (int j = 0; j < shape_.sub_blocks; ++j) Improve(j);
      const float error = Error();
      if (!(error < best)) break;
      best = error;
      kept = block_;
    }
    SetCodes(&kept);
    return kept;
  }

 private:
  const float* X(int j) const { return x_ + size_t(j) * size_; }
  const float* W(int j) const { return w_ + size_t(j) * size_; }
  float Scale(int l) const { return d_ * static_cast<float>(l); }
  float Offset(int m) const { return -dmin_ * static_cast<float>(m); }
  float SubError(int j, int l, int m) const {
    return ErrorWith(X(j), W(j), size_, Scale(l), Offset(m), code_);
  }
  float Error() const {
    float sum = 0;
    for (int j = 0; j < shape_.sub_blocks; ++j)
      sum += SubError(j, block_.scales[j], block_.mins[j]);
    return sum;
  }
  void SetUnits(float d, float dmin) {
    block_.d = FloatToHalf(d);
    block_.dmin = FloatToHalf(dmin);
    d_ = AsHalf(d);
    dmin_ = AsHalf(dmin);
    if (d_ == 0) block_.d = 0;
    if (dmin_ == 0) block_.dmin = 0;
  }

  // The codes that the block's scales and mins make nearest.
  void SetCodes(SuperBlock* block) const {
    const float d = HalfToFloat(block->d), dmin = HalfToFloat(block->dmin);
    for (size_t i = 0; i < 256; ++i) {
      const size_t j = i / size_;
      const float offset = -dmin * static_cast<float>(block->mins[j]);
      const float inverse = Inverse(d * static_cast<float>(block->scales[j]));
      block->codes[i] = static_cast<int8_t>(code_.Index((x_[i] - offset) * inverse));
    }
  }

  // Every sub-block alone, then integers for their scales and mins.
  void Start() {
    float scale[16], min[16], weight[16];
    for (int j = 0; j < shape_.sub_blocks; ++j) {
      weight[j] = Sum(size_, [&](size_t i) { return W(j)[i]; });
      min[j] = 0;
      if (shape_.max_min > 0) {
        const ScaleOffset fit = FitScaleOffset(X(j), W(j), size_, shape_.codes.hi, false);
        scale[j] = fit.scale;
        min[j] = -fit.offset;
      } else {
        scale[j] = FitWith(X(j), W(j), size_, static_cast<float>(shape_.codes.lo),
                           static_cast<float>(shape_.codes.hi), code_);
      }
    }
    SetUnits(FitUnit(scale, weight, shape_.sub_blocks, shape_.scales),
             shape_.max_min > 0 ? FitUnit(min, weight, shape_.sub_blocks, {0, shape_.max_min}) : 0);
    for (int j = 0; j < shape_.sub_blocks; ++j) {
      block_.scales[j] =
          static_cast<int>(Nearest(scale[j] * Inverse(d_), static_cast<float>(shape_.scales.lo),
                                   static_cast<float>(shape_.scales.hi)));
      block_.mins[j] =
          static_cast<int>(Nearest(min[j] * Inverse(dmin_), 0, static_cast<float>(shape_.max_min)));
    }
  }

  // The best of the neighbouring integers of a sub-block.
  void Improve(int j) {
    const int l0 = block_.scales[j], m0 = block_.mins[j];
    float best = SubError(j, l0, m0);
    for (int l = std::max(shape_.scales.lo, l0 - 1); l <= std::min(shape_.scales.hi, l0 + 1); ++l) {
      for (int m = std::max(0, m0 - 1); m <= std::min(shape_.max_min, m0 + 1); ++m) {
        if (l == l0 && m == m0) continue;
        const float error = SubError(j, l, m);
        if (!(error < best)) continue;
        best = error;
        block_.scales[j] = l;
        block_.mins[j] = m;
      }
    }
  }

  // Least squares of both units for the integers and codes at hand.
  void Refit() {
    double xa = 0, aa = 0, xb = 0, bb = 0, ab = 0;  // a: scale integer * code, b: min integer
    for (int j = 0; j < shape_.sub_blocks; ++j) {
      const float scale = Scale(block_.scales[j]), offset = Offset(block_.mins[j]);
      const float inverse = Inverse(scale);
      const float* x = X(j);
      const float* w = W(j);
      const auto code = [&](size_t i) { return code_((x[i] - offset) * inverse); };
      const double l = block_.scales[j], m = block_.mins[j];
      const float wxc = Sum(size_, [&](size_t i) { return w[i] * x[i] * code(i); });
      const float wcc = Sum(size_, [&](size_t i) { return w[i] * code(i) * code(i); });
      const float wc = Sum(size_, [&](size_t i) { return w[i] * code(i); });
      const float wx = Sum(size_, [&](size_t i) { return w[i] * x[i]; });
      const float ww = Sum(size_, [&](size_t i) { return w[i]; });
      xa += l * wxc;
      aa += l * l * wcc;
      xb += m * wx;
      bb += m * m * ww;
      ab += l * m * wc;
    }
    // x ~ d a - dmin b
    double d = d_, dmin = dmin_;
    const double det = aa * bb - ab * ab;
    if (shape_.max_min > 0 && det > 1e-9 * aa * bb) {
      d = (xa * bb - xb * ab) / det;
      dmin = (xa * ab - xb * aa) / det;
    }
    if (shape_.max_min == 0 || !(det > 1e-9 * aa * bb) || dmin < 0) {
      dmin = std::max(0.0, dmin);
      if (aa > 0) d = (xa + dmin * ab) / aa;
    }
    if (std::isfinite(d) && std::isfinite(dmin))
      SetUnits(static_cast<float>(d), static_cast<float>(dmin));
  }

  const float *x_, *w_;
  const SuperShape& shape_;
  const Codes& code_;
  const size_t size_;
  SuperBlock block_;
  float d_ = 0, dmin_ = 0;
};

Integers Range(CodeRange r) { return {static_cast<float>(r.lo), static_cast<float>(r.hi)}; }

}  // namespace

float FitScale(const float* x, const float* w, size_t n, CodeRange codes) {
  const Integers range = Range(codes);
  return FitWith(x, w, n, range.lo, range.hi, range);
}

float FitTableScale(const float* x, const float* w, size_t n, const int8_t (&table)[16]) {
  return FitWith(x, w, n, table[0], table[15], TableOf(table));
}

ScaleOffset FitScaleOffset(const float* x, const float* w, size_t n, int hi, bool any_offset) {
  float least = x[0], most = x[0];
  for (size_t i = 1; i < n; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  if (!any_offset) least = least < 0 ? least : 0;
  if (!std::isfinite(least) || !std::isfinite(most)) return {0, 0};
  if (!(most > least)) return {0, least};
  const float sw = Sum(n, [&](size_t i) { return w[i]; });
  const float sx = Sum(n, [&](size_t i) { return w[i] * x[i]; });
  const float sxx = Sum(n, [&](size_t i) { return w[i] * x[i] * x[i]; });
  const Integers code{0, static_cast<float>(hi)};
  ScaleOffset best{(most - least) / static_cast<float>(hi), least};
  float error = INFINITY;
  const auto consider = [&](float inverse, float offset) {
    const auto c = [&](size_t i) { return code((x[i] - offset) * inverse); };
    const float sc = Sum(n, [&](size_t i) { return w[i] * c(i); });
    const float scc = Sum(n, [&](size_t i) { return w[i] * c(i) * c(i); });
    const float sxc = Sum(n, [&](size_t i) { return w[i] * x[i] * c(i); });
    const float det = sw * scc - sc * sc;
    if (!(det > 0)) return false;
    float d = (sw * sxc - sx * sc) / det, b = (scc * sx - sc * sxc) / det;
    if (!any_offset && b > 0) {
      b = 0;
      d = scc > 0 ? sxc / scc : 0;
    }
    const float e = sxx - 2 * d * sxc - 2 * b * sx + d * d * scc + 2 * d * b * sc + b * b * sw;
    if (!(d > 0) || !(e < error)) return false;
    error = e;
    best = {d, b};
    return true;
  };
  // Fewer codes leave less to gain at the ends.
  const float step = hi > 4 ? 0.1f : 0.05f;
  for (int k = -10; k <= 10; ++k)
    consider((static_cast<float>(hi) + step * static_cast<float>(k)) / (most - least), least);
  for (int i = 0; i < kRefinements && consider(Inverse(best.scale), best.offset); ++i) {
  }
  return best;
}

void NearestCodes(const float* x, size_t n, float scale, float offset, CodeRange codes,
                  int8_t* out) {
  const Integers code = Range(codes);
  const float inverse = Inverse(scale);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<int8_t>(code((x[i] - offset) * inverse));
}

void NearestTableCodes(const float* x, size_t n, float scale, const int8_t (&table)[16],
                       uint8_t* index) {
  const float inverse = Inverse(scale);
  const Table& codes = TableOf(table);
  for (size_t i = 0; i < n; ++i) index[i] = static_cast<uint8_t>(codes.Index(x[i] * inverse));
}

SuperBlock FitSuperBlock(const float* x, const float* w, const SuperShape& shape) {
  if (shape.table != nullptr) return SuperSearch(x, w, shape, TableOf(shape.table)).Run();
  const Integers range = Range(shape.codes);
  return SuperSearch(x, w, shape, range).Run();
}

}  // namespace snug
