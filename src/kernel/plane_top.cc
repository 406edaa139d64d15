// The search for the largest logits over a plane-split head: bounds from the high plane, a
// threshold from the few rows with the largest bounds, the low plane of the rows above it, and
// exact logits of what is left.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "kernel/matmul_internal.h"
#include "kernel/plane_internal.h"
#include "kernel/targets.h"

namespace snug {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

struct Entry {
  float value;
  uint32_t id;
};

// The k largest of a stream of values, k at most kMaxPlaneK.
class Largest {
 public:
  explicit Largest(size_t k) : k_(k) {}
  float least() const { return n_ < k_ ? kLowest : heap_[0].value; }
  float greatest() const { return greatest_; }
  size_t size() const { return n_; }
  uint32_t id(size_t i) const { return heap_[i].id; }
  void Add(float value, uint32_t id = 0) {
    if (n_ == k_ && !(value > heap_[0].value)) return;
    const auto order = [](const Entry& a, const Entry& b) { return a.value > b.value; };
    if (n_ == k_) std::pop_heap(heap_, heap_ + n_--, order);
    heap_[n_++] = {value, id};
    std::push_heap(heap_, heap_ + n_, order);
    greatest_ = std::max(greatest_, value);
  }

 private:
  size_t k_, n_ = 0;
  float greatest_ = kLowest;
  Entry heap_[kMaxPlaneK];
};

// Splits the token's values for the bound: those above some multiple of their root mean square are
// `large`. Of a few multiples the best is taken for a row with equal scales and low bits spread
// evenly, of which the norm is 2.29 * |d| * sqrt(cols).
void SplitToken(PlaneToken& token) {
  const size_t cols = token.blocks * kQBlock;
  double squares = 0;
  const auto value = [&](size_t b, size_t i) {
    return std::abs(token.x[b].scale[0] * static_cast<float>(token.x[b].q[0][i]));
  };
  for (size_t b = 0; b < token.blocks; ++b) {
    for (size_t i = 0; i < kQBlock; ++i) squares += double{value(b, i)} * value(b, i);
  }
  const auto rms = static_cast<float>(std::sqrt(squares / static_cast<double>(cols)));
  float best = 0;
  double best_bound = std::numeric_limits<double>::infinity();
  for (const float multiple : {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 2.5f, 3.0f, 4.0f, 6.0f, 1e30f}) {
    double large = 0, rest = 0;
    for (size_t b = 0; b < token.blocks; ++b) {
      for (size_t i = 0; i < kQBlock; ++i) {
        const float v = value(b, i);
        (v > multiple * rms ? large : rest) += v > multiple * rms ? v : double{v} * v;
      }
    }
    const double bound = 3.5 * large + 2.29 * std::sqrt(static_cast<double>(cols) * rest);
    if (bound < best_bound) {
      best_bound = bound;
      best = multiple * rms;
    }
  }
  double rest = 0;
  for (size_t b = 0; b < token.blocks; ++b) {
    float large = 0;
    token.absolute[b] = 0;
    for (size_t i = 0; i < kQBlock; ++i) {
      const float v = value(b, i);
      token.absolute[b] += v;
      if (v > best) {
        large += v;
      } else {
        rest += double{v} * v;
      }
    }
    token.large[b] = 3.5f * large * 1.0001f + PlaneRounding(token.blocks) * token.absolute[b];
    token.center[b] = 3.5f * token.x[b].sum[0];
  }
  token.rest = static_cast<float>(std::sqrt(rest)) * 1.0001f;
}

void LoadToken(const Activations& x, size_t t, PlaneToken& token) {
  token.blocks = x.cols / kQBlock;
  const XBlock* from = x.blocks + t / 4 * token.blocks;
  const size_t slot = t % 4;
  for (size_t b = 0; b < token.blocks; ++b) {
    XBlock& to = token.x[b];
    std::memcpy(to.q[0], from[b].q[slot], kQBlock);
    to.scale[0] = from[b].scale[slot];
    to.sum[0] = from[b].sum[slot];
    to.neg[0] = from[b].neg[slot];
    to.neg_half[0] = from[b].neg_half[slot];
  }
  SplitToken(token);
}

class Search {
 public:
  Search(ThreadPool& pool, const PlaneHead& head, const Activations& x, size_t t,
         const PlaneQuery& query, float* bounds)
      : pool_(pool),
        head_(head),
        query_(query),
        upper_(bounds),
        panel_upper_(bounds + head.panels() * kPanelRows) {
    LoadToken(x, t, token_);
    single_.x = x.x + t * x.stride;
    single_.stride = x.stride;
    single_.tokens = 1;
    single_.cols = x.cols;
    single_.blocks = token_.x;
  }

  // Upper bounds of all rows.
  void ReadHighPlane() {
    constexpr size_t kPanels = 16;
    const size_t panels = head_.panels();
    pool_.For((panels + kPanels - 1) / kPanels, [&](size_t task, int) {
      PlaneUpper(head_, token_, task * kPanels, std::min(panels, (task + 1) * kPanels), upper_,
                 panel_upper_);
    });
    float* const last = upper_ + (panels - 1) * kPanelRows;
    std::fill(upper_ + head_.rows(), last + kPanelRows, kLowest);
    panel_upper_[panels - 1] = *std::max_element(last, last + kPanelRows);
  }

  // A value that the k-th largest logit reaches, from the exact logits of the panels with the
  // largest bounds.
  float Threshold() {
    Largest panels(query_.k);
    for (size_t p = 0; p < head_.panels(); ++p)
      panels.Add(panel_upper_[p], static_cast<uint32_t>(p));
    float logits[kMaxPlaneK][kPanelRows];
    pool_.For(panels.size(), [&](size_t i, int) {
      std::fill_n(logits[i], kPanelRows, kLowest);
      head_.MatMulPanel(single_, panels.id(i), false, logits[i], kPanelRows);
    });
    Largest exact(query_.k);
    for (size_t i = 0; i < panels.size(); ++i) {
      for (const float v : logits[i]) exact.Add(v);
    }
    return std::max(exact.least(), exact.greatest() - query_.margin);
  }

  // Rows with a bound of at least `threshold`, ascending; more than `capacity` of them count as
  // capacity + 1.
  size_t Survivors(float threshold, uint32_t* list, size_t capacity) const {
    size_t n = 0;
    for (size_t p = 0; p < head_.panels(); ++p) {
      if (!(panel_upper_[p] >= threshold)) continue;
      for (size_t r = p * kPanelRows; r < (p + 1) * kPanelRows; ++r) {
        if (!(upper_[r] >= threshold)) continue;
        if (n == capacity) return capacity + 1;
        list[n++] = static_cast<uint32_t>(r);
      }
    }
    return n;
  }

  // Tightens the bounds of the listed rows with their low bits, then the threshold, then the list.
  size_t ReadLowPlane(float threshold, uint32_t* list, size_t n) {
    constexpr size_t kRows = 64;
    std::atomic<float> most{0};
    pool_.For((n + kRows - 1) / kRows, [&](size_t task, int) {
      float greatest = 0;
      for (size_t i = task * kRows; i < std::min(n, (task + 1) * kRows); ++i) {
        float slack;
        float& bound = upper_[list[i]];
        bound = PlaneRefine(head_, token_, list[i], bound, &slack) + slack;
        greatest = std::max(greatest, slack);
      }
      float seen = most.load(std::memory_order_relaxed);
      while (greatest > seen && !most.compare_exchange_weak(seen, greatest)) {
      }
    });
    Largest lower(query_.k);
    const float width = 2 * most.load();
    for (size_t i = 0; i < n; ++i) lower.Add(upper_[list[i]] - width);
    threshold = std::max({threshold, lower.least(), lower.greatest() - query_.margin});
    return static_cast<size_t>(
        std::remove_if(list, list + n, [&](uint32_t r) { return !(upper_[r] >= threshold); }) -
        list);
  }

  void Exact(const uint32_t* list, size_t n, Candidate* out) {
    pool_.For(n, [&](size_t i, int) {
      const size_t panel = list[i] / kPanelRows;
      if (i > 0 && list[i - 1] / kPanelRows == panel) return;
      float logits[kPanelRows];
      head_.MatMulPanel(single_, panel, false, logits, kPanelRows);
      for (; i < n && list[i] / kPanelRows == panel; ++i)
        out[i] = {list[i], logits[list[i] % kPanelRows]};
    });
  }

 private:
  ThreadPool& pool_;
  const PlaneHead& head_;
  PlaneQuery query_;
  float *upper_, *panel_upper_;
  PlaneToken token_;
  Activations single_;
};

}  // namespace

size_t PlaneTop(ThreadPool& pool, const PlaneHead& head, const Activations& x, size_t token,
                const PlaneQuery& query, float* bounds, uint32_t* list, Candidate* out,
                size_t capacity, PlaneStats* stats) {
  ChooseTarget();
  if (query.k == 0 || query.k > kMaxPlaneK || x.outlier[token] != 0) return 0;
  Search search(pool, head, x, token, query, bounds);
  search.ReadHighPlane();
  const float threshold = search.Threshold();
  const size_t most = PlaneMaxSurvivors(head.rows());
  const size_t survivors = search.Survivors(threshold, list, most);
  if (stats != nullptr) *stats = {survivors, 0};
  if (survivors > most) return 0;
  const size_t n = search.ReadLowPlane(threshold, list, survivors);
  if (n > capacity) return 0;
  search.Exact(list, n, out);
  if (stats != nullptr) stats->exact = n;
  return n;
}

}  // namespace snug
