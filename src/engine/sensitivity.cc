#include "engine/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/machine.h"
#include "engine/logits.h"
#include "engine/weight_probe.h"
#include "format/allocate.h"
#include "format/quantize.h"
#include "format/recipe.h"
#include "format/tensor_rows.h"

namespace snug {
namespace {

constexpr DType kCandidates[] = {DType::kQ2_K, DType::kQ3_K, DType::kIQ4_XS, DType::kQ4_K,
                                 DType::kQ5_K, DType::kQ6_K, DType::kQ8_0};
// Rows of a tensor whose errors stand for those of all.
constexpr uint64_t kSampleRows = 64;
// What no measurement is sure to tell from nothing.
constexpr double kLeastDivergence = 1e-8;

// Runs a segment; the logits of its last rows are the engine's then.
Status RunSegment(Engine& engine, std::span<const Token> segment) {
  engine.Clear(0);
  const size_t head = segment.size() - WeightProbe::kRows;
  for (size_t i = 0; i < head; i += engine.plan().chunk) {
    const size_t n = std::min<size_t>(engine.plan().chunk, head - i);
    const StepItem item{0, segment.subspan(i, n), StepItem::Logits::kNone};
    SNUG_TRY(engine.Step({&item, 1}));
  }
  const StepItem item{0, segment.subspan(head), StepItem::Logits::kAll};
  return engine.Step({&item, 1});
}

// "attn_q" of "blk.3.attn_q.weight", the whole name of tensors outside layers.
std::string KindOf(const std::string& name, uint64_t* layer) {
  *layer = 0;
  if (!name.starts_with("blk.")) return name;
  const size_t dot = name.find('.', 4);
  *layer = std::strtoull(name.c_str() + 4, nullptr, 10);
  return name.substr(dot + 1);
}

// Weighted squared errors of a sample of a tensor's rows in each of `types`, scaled up to all rows.
class RowErrors {
 public:
  static Result<RowErrors> Create(const ModelFile& file, const std::vector<ProbeGroup>& groups,
                                  Ledger& ledger, ThreadPool& pool) {
    RowErrors e(file, pool);
    uint64_t read = 0, cols = 0;
    for (const ProbeGroup& g : groups) {
      for (const std::string& name : g.tensors) {
        const TensorInfo& t = *file.Find(name);
        read = std::max(read, ReadBytesPerRow(t) + kReadOverhead);
        cols = std::max(cols, t.cols());
      }
    }
    e.row_bytes_ = (read + 63) / 64 * 64;
    e.cols_ = cols;
    // As stored, as float32, encoded, and decoded again.
    e.per_thread_ = e.row_bytes_ + 3 * ((cols * sizeof(float) + 63) / 64 * 64);
    SNUG_ASSIGN(e.buffer_, Buffer::Allocate(ledger, Owner::kScratch,
                                            e.per_thread_ * static_cast<uint64_t>(pool.size()),
                                            Pages::kNormal, "rows to try types on"));
    return e;
  }

  Result<std::vector<double>> Of(const TensorInfo& t, std::span<const DType> types,
                                 const std::vector<float>* importance) {
    const uint64_t rows = t.rows(), sampled = std::min(kSampleRows, rows);
    std::vector<double> errors(sampled * types.size());
    std::vector<Status> status(sampled);
    pool_.For(sampled, [&](size_t i, int thread) {
      const uint64_t row = i * rows / sampled;
      uint8_t* raw = buffer_.data() + per_thread_ * static_cast<uint64_t>(thread);
      auto* x = reinterpret_cast<float*>(raw + row_bytes_);
      const uint64_t step = (cols_ * sizeof(float) + 63) / 64 * 16;
      float* y = x + step;
      auto* encoded = reinterpret_cast<uint8_t*>(y + step);
      auto stored = ReadRows(file_.files(), t, row, 1, raw, nullptr);
      if (!stored.ok()) {
        status[i] = std::move(stored).error();
        return;
      }
      RowsToFloat(t, *stored, 1, x);
      const float* w = nullptr;
      if (importance != nullptr) {
        const bool each = importance->size() != t.cols();  // experts have their own
        w = importance->data() + (each ? row / t.dims[1] * t.cols() : 0);
      }
      for (size_t k = 0; k < types.size(); ++k) {
        Quantize(types[k], x, t.cols(), w, encoded);
        Dequantize(types[k], encoded, t.cols(), y);
        double sum = 0;
        for (uint64_t c = 0; c < t.cols(); ++c) {
          const double e = double{x[c]} - y[c];
          sum += (w == nullptr ? 1.0 : double{w[c]}) * e * e;
        }
        errors[i * types.size() + k] = sum;
      }
    });
    for (Status& s : status) SNUG_TRY(std::move(s));
    std::vector<double> totals(types.size());
    for (size_t i = 0; i < errors.size(); ++i) totals[i % types.size()] += errors[i];
    for (double& v : totals) v *= static_cast<double>(rows) / static_cast<double>(sampled);
    return totals;
  }

 private:
  RowErrors(const ModelFile& file, ThreadPool& pool) : file_(file), pool_(pool) {}
  const ModelFile& file_;
  ThreadPool& pool_;
  Buffer buffer_;
  uint64_t row_bytes_ = 0, cols_ = 0, per_thread_ = 0;
};

uint64_t BytesIn(const TensorInfo& t, DType type) { return RowBytes(type, t.cols()) * t.rows(); }

}  // namespace

std::vector<ProbeGroup> MakeProbeGroups(const ModelFile& file, uint32_t most) {
  std::map<std::string, std::map<uint64_t, std::string>> kinds;  // names by kind, by layer
  for (const TensorInfo& t : file.tensors()) {
    uint64_t layer = 0;
    if (!Quantizable(t)) continue;
    const std::string kind = KindOf(t.name, &layer);
    kinds[kind][layer] = t.name;
  }
  const size_t runs = std::max<size_t>(1, most / std::max<size_t>(1, kinds.size()));
  std::vector<ProbeGroup> groups;
  for (const auto& [kind, layers] : kinds) {
    const size_t length = (layers.size() + runs - 1) / runs;
    size_t n = 0;
    for (const auto& [layer, name] : layers) {
      if (n++ % length == 0) groups.emplace_back();
      groups.back().tensors.push_back(name);
    }
  }
  return groups;
}

Status MeasureSegment(Engine& engine, std::span<const Token> segment,
                      std::vector<ProbeGroup>* groups,
                      const std::function<void(size_t done, size_t total)>& progress,
                      const std::atomic<bool>* cancel) {
  assert(engine.weight_probe() != nullptr && segment.size() > WeightProbe::kRows);
  WeightProbe& probe = *engine.weight_probe();
  const size_t vocab = engine.config().vocab;
  std::vector<double> divergence(groups->size());
  for (size_t g = 0; g <= groups->size(); ++g) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed))
      return MakeError(Code::kCancelled, "interrupted", "run again to go on");
    probe.Choose(g == 0 ? std::vector<std::string>() : (*groups)[g - 1].tensors);
    SNUG_TRY(RunSegment(engine, segment));
    for (size_t r = 0; r < WeightProbe::kRows; ++r) {
      const std::span<const float> logits = engine.logits(r);
      const std::span<float> reference = probe.reference().subspan(r * vocab, vocab);
      if (g == 0) {
        std::copy(logits.begin(), logits.end(), reference.begin());
      } else {
        divergence[g - 1] += std::max(0.0, Divergence(reference, logits)) / WeightProbe::kRows;
      }
    }
    if (progress != nullptr) progress(g + 1, groups->size() + 1);
  }
  probe.Choose({});
  for (size_t g = 0; g < groups->size(); ++g) (*groups)[g].divergence += divergence[g];
  return {};
}

Result<std::map<std::string, DType>> ChooseTypes(const ModelFile& file,
                                                 const std::vector<ProbeGroup>& groups,
                                                 const Importance* importance, uint64_t bytes,
                                                 Ledger& ledger, ThreadPool& pool) {
  SNUG_ASSIGN(RowErrors rows, RowErrors::Create(file, groups, ledger, pool));
  std::vector<std::string> names;
  std::vector<std::vector<DType>> types;
  std::vector<std::vector<SizeChoice>> items;
  for (const ProbeGroup& g : groups) {
    const size_t first = items.size();
    double probed = 0;  // error of the group in the probe's type
    for (const std::string& name : g.tensors) {
      const TensorInfo& t = *file.Find(name);
      std::vector<DType> tried;
      for (const DType type : kCandidates) {
        const DType fitting = FittingType(type, t.cols());
        if (std::find(tried.begin(), tried.end(), fitting) == tried.end()) tried.push_back(fitting);
      }
      const DType probe = FittingType(WeightProbe::kType, t.cols());
      const auto at = std::find(tried.begin(), tried.end(), probe) - tried.begin();
      const auto it = importance == nullptr ? Importance::const_iterator() : importance->find(name);
      const bool has = importance != nullptr && it != importance->end();
      SNUG_ASSIGN(const std::vector<double> errors, rows.Of(t, tried, has ? &it->second : nullptr));
      probed += errors[static_cast<size_t>(at)];
      std::vector<SizeChoice> choices;
      for (size_t k = 0; k < tried.size(); ++k)
        choices.push_back({BytesIn(t, tried[k]), errors[k]});
      names.push_back(name);
      types.push_back(std::move(tried));
      items.push_back(std::move(choices));
    }
    const double per_error = probed > 0 ? std::max(g.divergence, kLeastDivergence) / probed : 0;
    for (size_t i = first; i < items.size(); ++i)
      for (SizeChoice& c : items[i]) c.cost *= per_error;
  }
  uint64_t least = 0;
  for (const auto& choices : items) {
    uint64_t smallest = UINT64_MAX;
    for (const SizeChoice& c : choices) smallest = std::min(smallest, c.bytes);
    least += smallest;
  }
  if (least > bytes) {
    return MakeError(Code::kDoesNotFit,
                     fmt::format("weights of {} in the smallest types are more than the {} that "
                                 "the target leaves",
                                 FormatBytes(least), FormatBytes(bytes)),
                     fmt::format("raise --target-size by {} or more", FormatBytes(least - bytes)),
                     {{"needed", std::to_string(least)}, {"given", std::to_string(bytes)}});
  }
  const std::vector<size_t> chosen = ChooseSizes(items, bytes);
  std::map<std::string, DType> result;
  for (size_t i = 0; i < names.size(); ++i) result.emplace(names[i], types[i][chosen[i]]);
  return result;
}

}  // namespace snug
