// The resident place: all parts in one arena.
#include "weights/place.h"

namespace snug {
namespace {

class ResidentPlace final : public WeightPlace {
 public:
  Status Load(const ModelFile& file, const WeightLayout& layout, Ledger& ledger, ThreadPool& pool,
              const LoadProgress& progress);

  void BeginPass(size_t, size_t) override {}
  Result<const uint8_t*> Acquire(size_t part) override { return arena_.data() + offsets_[part]; }
  void Release(size_t) override {}
  PlaceStats stats() const override { return stats_; }
  bool resident() const override { return true; }

 private:
  Buffer arena_;
  std::vector<uint64_t> offsets_;
  PlaceStats stats_;
};

Status ResidentPlace::Load(const ModelFile& file, const WeightLayout& layout, Ledger& ledger,
                           ThreadPool& pool, const LoadProgress& progress) {
  SNUG_ASSIGN(arena_, Buffer::Allocate(ledger, Owner::kWeights, layout.total_bytes(), Pages::kHuge,
                                       "weights"));
  std::vector<LoadTarget> targets;
  uint64_t offset = 0;
  for (const Part& part : layout.parts) {
    offsets_.push_back(offset);
    targets.push_back({&part, 0, arena_.data() + offset});
    offset += part.bytes;
  }
  SNUG_ASSIGN(const uint64_t read, LoadParts(file, targets, ledger, pool, progress));
  stats_ = {read, layout.parts.size(), 0, layout.total_bytes(), 0};
  return {};
}

}  // namespace

Result<std::unique_ptr<WeightPlace>> MakeResidentPlace(const ModelFile& file,
                                                       const WeightLayout& layout, Ledger& ledger,
                                                       ThreadPool& pool,
                                                       const LoadProgress& progress) {
  auto place = std::make_unique<ResidentPlace>();
  SNUG_TRY(place->Load(file, layout, ledger, pool, progress));
  return std::unique_ptr<WeightPlace>(std::move(place));
}

uint64_t ResidentBytes(const WeightLayout& layout) {
  return Buffer::Reserved(layout.total_bytes(), Pages::kHuge);
}

}  // namespace snug
