// Lays a model's tensors out in parts.
#include <fmt/format.h>

#include <algorithm>

#include "format/tensor_rows.h"
#include "model/model.h"

namespace snug {
namespace {

constexpr uint64_t kMinHeadPart = 4 * kMiB;  // head row blocks are at least this large

void Append(Part& part, const TensorInfo& info, uint32_t first_row, uint32_t rows, bool packed,
            Role role = Role::kCount) {
  PartTensor t{&info, first_row, rows, packed, static_cast<uint8_t>(role), part.bytes, 0};
  t.bytes = packed ? PackedBytes(info.type, rows, info.cols()) : info.cols() * rows * sizeof(float);
  part.bytes = AlignBytes(part.bytes + t.bytes);
  part.file_bytes += StoredRowBytes(info) * rows;
  part.tensors.push_back(t);
}

Result<const TensorInfo*> Find(const ModelFile& file, const std::string& name, uint64_t rows,
                               uint64_t cols) {
  const TensorInfo* info = file.Find(name);
  if (info == nullptr) {
    return MakeError(Code::kBadFile, fmt::format("{}: tensor {} is missing", file.path(), name),
                     "the file is incomplete", {{"tensor", name}});
  }
  if (info->rows() != rows || info->cols() != cols) {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: tensor {} is {} x {}, expected {} x {}", file.path(), name,
                                 info->rows(), info->cols(), rows, cols),
                     {}, {{"tensor", name}});
  }
  // A panel of rows must fit the bounce buffer it is read through.
  if (!FitsBounce(*info)) {
    return MakeError(
        Code::kBadFile,
        fmt::format("{}: tensor {} has rows of {}, too long to be read", file.path(), name, cols));
  }
  return info;
}

bool IsFloat(DType t) { return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16; }

// The tensors of a layer (or of the model, with an empty prefix) that belong to none or to its
// experts, as one part: of one expert, in that case.
Result<Part> MakePart(const ModelFile& file, std::string name, const std::string& prefix,
                      const LayerTensors& tensors, bool experts) {
  Part part{std::move(name), {}, 0, 0};
  for (const LayerTensor& t : tensors) {
    if ((t.experts != 0) != experts) continue;
    const std::string full = fmt::format("{}{}", prefix, t.name);
    if (t.optional && file.Find(full) == nullptr) continue;
    const uint64_t rows = t.of_rows == 0 ? t.rows : t.of_rows;
    SNUG_ASSIGN(const TensorInfo* info, Find(file, full, rows * std::max(1u, t.experts), t.cols));
    if (!t.packed && !IsFloat(info->type)) {
      return MakeError(Code::kBadFile, fmt::format("{}: {} is {}, expected a float type",
                                                   file.path(), full, Info(info->type).name));
    }
    Append(part, *info, t.first_row, t.rows, t.packed, t.role);
  }
  return part;
}

}  // namespace

Result<WeightLayout> MakeLayout(const ModelFile& file, const Model& model) {
  const ModelConfig& c = model.config();
  WeightLayout layout;
  SNUG_ASSIGN(Part globals, MakePart(file, "globals", "", model.Globals(), false));
  layout.parts.push_back(std::move(globals));
  layout.expert_count = c.router.experts;
  for (uint32_t l = 0; l < c.layers; ++l) {
    const LayerTensors tensors = model.Tensors(l);
    const std::string prefix = fmt::format("blk.{}.", l);
    SNUG_ASSIGN(Part part, MakePart(file, fmt::format("layer {}", l), prefix, tensors, false));
    layout.parts.push_back(std::move(part));
    if (c.router.experts == 0) continue;
    SNUG_ASSIGN(Part expert, MakePart(file, fmt::format("experts {}", l), prefix, tensors, true));
    layout.experts.push_back(std::move(expert));
  }

  layout.first_head = layout.parts.size();
  if (c.encoder) return layout;
  SNUG_ASSIGN(const TensorInfo* head,
              Find(file, c.tied ? "token_embd.weight" : "output.weight", c.vocab, c.dim));
  uint64_t target = kMinHeadPart;
  for (const Part& p : layout.parts) target = std::max<uint64_t>(target, p.bytes);
  const uint64_t panels = std::max<uint64_t>(1, target / PanelBytes(head->type, c.dim));
  const auto block = static_cast<uint32_t>(
      std::min<uint64_t>(panels * kPanelRows, uint64_t{c.vocab} + kPanelRows));
  for (uint32_t row = 0, i = 0; row < c.vocab; row += block, ++i) {
    Part part{fmt::format("head {}", i), {}, 0, 0};
    Append(part, *head, row, std::min(block, c.vocab - row), true);
    layout.parts.push_back(std::move(part));
  }
  return layout;
}

}  // namespace snug
