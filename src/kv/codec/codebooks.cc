#include "kv/codec/codebooks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

namespace snug {
namespace {

constexpr const char* kAgain =
    "measure this model: snug calibrate MODEL --text TEXT --codebooks -o FILE";
constexpr const char* kKeys = "keys";
constexpr const char* kValues = "values";

std::string TensorName(const CodebookShape& shape, size_t pair, const char* what) {
  return shape.global ? what : fmt::format("layers.{}.{}", shape.layers[pair], what);
}

std::vector<uint64_t> TensorShape(const CodebookShape& s) {
  return {s.head_dim / s.dims, kCentroids, s.dims};
}

Error Bad(const std::string& path, const std::string& what) {
  return MakeError(Code::kBadFile, fmt::format("{} {}", path, what), kAgain, {{"file", path}});
}

}  // namespace

uint64_t CodebookShape::bytes() const {
  return Buffer::Reserved(2 * pairs() * book_floats() * sizeof(float), Pages::kNormal);
}

CodebookShape CodebookShapeOf(const ModelConfig& model, uint32_t dims, bool global) {
  CodebookShape shape{model.head_dim, dims, global, {}};
  for (uint32_t l = 0; l < model.layers; ++l) {
    if (model.window[l] == 0 && !model.recurrent[l]) shape.layers.push_back(l);
  }
  return shape;
}

Result<Codebooks> Codebooks::Allocate(const CodebookShape& shape, Owner owner, Ledger& ledger) {
  Codebooks books;
  books.shape_ = shape;
  SNUG_ASSIGN(
      books.buffer_,
      Buffer::Allocate(ledger, owner, 2 * shape.pairs() * shape.book_floats() * sizeof(float),
                       Pages::kNormal, "codebooks"));
  return books;
}

ProductBooks Codebooks::OfLayer(uint32_t layer) const {
  const auto at = std::lower_bound(shape_.layers.begin(), shape_.layers.end(), layer);
  assert(at != shape_.layers.end() && *at == layer);
  const auto pair = shape_.global ? 0 : static_cast<size_t>(at - shape_.layers.begin());
  auto& books = const_cast<Codebooks&>(*this);
  return {books.keys(pair), books.values(pair)};
}

Status WriteCodebooks(const std::string& path, Codebooks& books, const MeasuredOn& source) {
  const CodebookShape& shape = books.shape();
  std::vector<SafetensorsWriter::Spec> specs;
  for (size_t p = 0; p < shape.pairs(); ++p) {
    for (const char* what : {kKeys, kValues})
      specs.push_back({TensorName(shape, p, what), TensorShape(shape)});
  }
  SNUG_ASSIGN(SafetensorsWriter writer,
              SafetensorsWriter::Create(path, specs,
                                        {{"weights", source.weights},
                                         {"rotary", source.rotary},
                                         {"text", source.text},
                                         {"tokens", std::to_string(source.tokens)}}));
  for (size_t p = 0; p < shape.pairs(); ++p) {
    SNUG_TRY(writer.Append(books.keys(p), shape.book_floats()));
    SNUG_TRY(writer.Append(books.values(p), shape.book_floats()));
  }
  return writer.Finish();
}

Result<CodebookFile> CodebookFile::Open(const std::string& path, const ModelConfig& model) {
  CodebookFile f;
  SNUG_ASSIGN(f.file_, SafetensorsFile::Open(path));
  f.shape_ = CodebookShapeOf(model, 2, f.file_.Find(kKeys) != nullptr);
  if (f.shape_.layers.empty()) return Bad(path, "is of no use: no layer's rows are coded");
  for (size_t p = 0; p < f.shape_.pairs(); ++p) {
    for (const char* what : {kKeys, kValues}) {
      const std::string name = TensorName(f.shape_, p, what);
      const SafetensorInfo* t = f.file_.Find(name);
      if (t == nullptr) return Bad(path, fmt::format("holds no codebook {}", name));
      if (p == 0 && what == kKeys && t->shape.size() == 3 && (t->shape[2] == 2 || t->shape[2] == 4))
        f.shape_.dims = static_cast<uint32_t>(t->shape[2]);
      if (t->dtype != "F32" || t->shape != TensorShape(f.shape_)) {
        return Bad(path, fmt::format("has {} as {} of [{}], which is no codebook of heads of {}",
                                     name, t->dtype, fmt::join(t->shape, ", "), model.head_dim));
      }
    }
  }
  return f;
}

Status CodebookFile::ReadBook(const std::string& name, float* to) const {
  const SafetensorInfo* t = file_.Find(name);
  SNUG_TRY(file_.file().ReadAt(t->offset, to, t->bytes));
  const size_t n = shape_.book_floats();
  if (!std::all_of(to, to + n, [](float v) { return std::isfinite(v); })) {
    return Bad(file_.file().path(), fmt::format("has a value in {} that is no number", name));
  }
  return {};
}

Status CodebookFile::Check(const ModelConfig& model, const std::string& weights) const {
  const auto noted = [&](const char* key) {
    const auto it = file_.metadata().find(key);
    return it == file_.metadata().end() ? std::string() : it->second;
  };
  const MeasuredOn source{noted("weights"), noted("rotary"), noted("text"), 0};
  return CheckMeasuredOn(file_.file().path(), source, weights, model.rope, kAgain);
}

Result<std::shared_ptr<const Codebooks>> CodebookFile::Read(Ledger& ledger) const {
  SNUG_ASSIGN(Codebooks books, Codebooks::Allocate(shape_, Owner::kKv, ledger));
  for (size_t p = 0; p < shape_.pairs(); ++p) {
    SNUG_TRY(ReadBook(TensorName(shape_, p, kKeys), books.keys(p)));
    SNUG_TRY(ReadBook(TensorName(shape_, p, kValues), books.values(p)));
  }
  return std::make_shared<const Codebooks>(std::move(books));
}

}  // namespace snug
