#include "kv/read/read.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <functional>

#include "kv/read/registry.h"

namespace snug {
namespace {

constexpr const ReadEntry* kMethods[] = {
    &kReadBlockSparse,     //
    &kReadDhsa,            //
    &kReadDoubleSparsity,  //
    &kReadQuest,           //
};

uint32_t UnitsOf(uint32_t rows, uint32_t unit) { return (rows + unit - 1) / unit; }

}  // namespace

uint32_t ReadBudget::Units(uint32_t rows) const {
  const uint32_t all = UnitsOf(rows, unit);
  const double wanted = amount > 1 ? amount : std::max<double>(least, std::floor(amount * rows));
  if (wanted >= rows) return all;
  // The last rows may begin within a unit.
  const uint64_t always = uint64_t{UnitsOf(sinks, unit)} + UnitsOf(recent, unit) + 1;
  const uint64_t units = std::max<uint64_t>(UnitsOf(static_cast<uint32_t>(wanted), unit),
                                            unit == 1 ? always - 1 : always);
  return static_cast<uint32_t>(std::min<uint64_t>(all, units));
}

std::span<const ReadEntry* const> ReadMethods() { return kMethods; }

Result<std::shared_ptr<const ReadMethod>> ParseRead(std::string_view spec) {
  return ParseMethod<ReadMethod>(spec, ReadMethods(), "--kv-read");
}

void ChooseLargest(std::span<const float> scores, uint32_t count, float* room, uint32_t* chosen) {
  assert(count <= scores.size());
  if (count == 0) return;
  // The least score that is chosen, by a histogram and then among those of its bin. No loop over
  // the scores has a branch that depends on them.
  constexpr size_t kBins = 2048, kWays = 8;
  float low = scores[0], high = scores[0];
  const size_t whole = scores.size() / kWays * kWays;
  if (whole > 0) {
    std::array<float, kWays> lows, highs;
    for (size_t j = 0; j < kWays; ++j) lows[j] = highs[j] = scores[j];
    for (size_t i = 0; i < whole; i += kWays) {
      for (size_t j = 0; j < kWays; ++j) {
        const float s = scores[i + j];
        lows[j] = s < lows[j] ? s : lows[j];
        highs[j] = s > highs[j] ? s : highs[j];
      }
    }
    low = *std::min_element(lows.begin(), lows.end());
    high = *std::max_element(highs.begin(), highs.end());
  }
  for (size_t i = whole; i < scores.size(); ++i) {
    low = std::min(low, scores[i]);
    high = std::max(high, scores[i]);
  }
  // Halves, so that no difference overflows.
  const float scale = static_cast<float>(kBins - 1) / std::max(high / 2 - low / 2, 1e-30f);
  const auto bin_of = [&](float s) { return static_cast<int32_t>((s / 2 - low / 2) * scale); };
  // Two histograms, as neighbours often share a bin.
  std::array<uint32_t, 2 * kBins> bins{};
  for (size_t i = 0; i < scores.size(); ++i) ++bins[i % 2 * kBins + bin_of(scores[i])];
  int32_t bin = kBins;
  uint32_t above = 0, in_bin = 0;
  do {
    above += in_bin;
    --bin;
    in_bin = bins[bin] + bins[kBins + bin];
  } while (above + in_bin < count);
  uint32_t found = 0;
  for (const float s : scores) {
    room[found] = s;
    found += bin_of(s) == bin ? 1 : 0;
  }
  const uint32_t left = count - above;  // of this bin
  std::nth_element(room, room + (left - 1), room + found, std::greater<>());
  const float least = room[left - 1];
  const auto more =
      static_cast<uint32_t>(std::count_if(room, room + left, [&](float s) { return s > least; }));
  uint32_t ties = left - more, out = 0;
  for (uint32_t i = 0; out < count; ++i) {
    const float s = scores[i];
    const uint32_t tie = s == least && ties > 0 ? 1 : 0;
    chosen[out] = i;
    ties -= tie;
    out += tie | (s > least ? 1 : 0);
  }
}

}  // namespace snug
