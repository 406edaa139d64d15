// Parses GGUF headers: hostile-input code.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "format/gguf.h"

namespace snug {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxTensors = 1 << 17, kMaxKeys = 1 << 16, kMaxName = 256, kMaxKey = 1024;
constexpr uint64_t kMaxString = uint64_t{16}
                                << 20;  // of a scalar string value (chat templates are the longest)
constexpr uint64_t kMaxText = uint64_t{64}
                              << 20;  // of all keys, names and scalar strings, per file
constexpr uint64_t kMaxSplits = 512;
constexpr uint64_t kMaxAlignment = 1 << 20;

}  // namespace

// Buffered sequential reads with every length checked against the file.
class GgufReader {
 public:
  explicit GgufReader(const File& file) : file_(file), buffer_(64 << 10) {}
  uint64_t at() const { return base_ + pos_; }
  uint64_t left() const { return file_.size() - at(); }

  Status Read(void* dst, uint64_t n, const char* what) {
    if (n > left()) return Truncated(n, what);
    auto* out = static_cast<uint8_t*>(dst);
    while (n > 0) {
      if (pos_ == fill_) SNUG_TRY(Fill());
      const uint64_t take = std::min<uint64_t>(n, fill_ - pos_);
      std::memcpy(out, buffer_.data() + pos_, take);
      pos_ += take;
      out += take;
      n -= take;
    }
    return {};
  }
  template <class T>
  Result<T> Scalar(const char* what) {
    T value;
    SNUG_TRY(Read(&value, sizeof(T), what));
    return value;
  }
  Status Skip(uint64_t n, const char* what) {
    if (n > left()) return Truncated(n, what);
    if (n <= fill_ - pos_) {
      pos_ += n;
    } else {
      base_ = at() + n;
      pos_ = fill_ = 0;
    }
    return {};
  }
  Error Truncated(uint64_t n, const char* what) const {
    return MakeError(Code::kBadFile,
                     fmt::format("{}: truncated: {} at offset {} needs {} bytes, {} are left",
                                 file_.path(), what, at(), n, left()),
                     "the file is damaged or incomplete; fetch it again", {{"path", file_.path()}});
  }

 private:
  Status Fill() {
    base_ += pos_;
    pos_ = 0;
    fill_ = std::min<uint64_t>(buffer_.size(), file_.size() - base_);
    return file_.ReadAt(base_, buffer_.data(), fill_);
  }
  const File& file_;
  std::vector<uint8_t> buffer_;
  uint64_t base_ = 0, pos_ = 0, fill_ = 0;
};

class GgufParser {
 public:
  GgufParser(GgufFile& out, uint32_t file) : out_(out), index_(file), reader_(out.files_[file]) {}

  Status Parse() {
    SNUG_TRY(Header());
    for (uint64_t i = 0; i < keys_; ++i) SNUG_TRY(Key());
    SNUG_TRY(Alignment());
    for (uint64_t i = 0; i < tensors_; ++i) SNUG_TRY(Tensor());
    return Places();
  }

 private:
  template <class... Args>
  Error Bad(fmt::format_string<Args...> format, Args&&... args) const {
    const std::string& path = out_.files_[index_].path();
    return MakeError(Code::kBadFile, path + ": " + fmt::format(format, std::forward<Args>(args)...),
                     "the file is damaged or not a GGUF model; fetch it again", {{"path", path}});
  }

  Status Header() {
    SNUG_ASSIGN(const uint32_t magic, reader_.Scalar<uint32_t>("magic"));
    if (magic != kMagic) return Bad("not a GGUF file (magic {:#010x})", magic);
    SNUG_ASSIGN(const uint32_t version, reader_.Scalar<uint32_t>("version"));
    if (version == 0x02000000 || version == 0x03000000)
      return Bad("big-endian GGUF is not supported");
    if (version != 2 && version != 3)
      return Bad("GGUF version {} is not supported (2 and 3 are)", version);
    out_.version_ = version;
    SNUG_ASSIGN(tensors_, reader_.Scalar<uint64_t>("tensor count"));
    SNUG_ASSIGN(keys_, reader_.Scalar<uint64_t>("key count"));
    // A key takes at least 13 bytes, a tensor at least 32.
    if (tensors_ > kMaxTensors || tensors_ > reader_.left() / 32)
      return Bad("tensor count {} is impossible", tensors_);
    if (keys_ > kMaxKeys || keys_ > reader_.left() / 13)
      return Bad("key count {} is impossible", keys_);
    return {};
  }

  Result<std::string> String(uint64_t max, const char* what) {
    SNUG_ASSIGN(const uint64_t n, reader_.Scalar<uint64_t>(what));
    if (n > reader_.left()) return reader_.Truncated(n, what);
    if (n > max) return Bad("{} of {} bytes is longer than {}", what, n, max);
    text_bytes_ += n;
    if (text_bytes_ > kMaxText) return Bad("its keys and values hold more than {} bytes", kMaxText);
    std::string text(n, '\0');
    SNUG_TRY(reader_.Read(text.data(), n, what));
    return text;
  }

  Result<GgufType> Type(const std::string& key) {
    SNUG_ASSIGN(const uint32_t type, reader_.Scalar<uint32_t>("value type"));
    if (type > static_cast<uint32_t>(GgufType::kF64))
      return Bad("key '{}' has the unknown type {}", key, type);
    return static_cast<GgufType>(type);
  }

  Status Key() {
    SNUG_ASSIGN(const std::string key, String(kMaxKey, "key"));
    if (key.empty()) return Bad("an empty key");
    SNUG_ASSIGN(const GgufType type, Type(key));
    GgufFile::Value value;
    value.type = type;
    if (type == GgufType::kString) {
      SNUG_ASSIGN(value.text, String(kMaxString, "string value"));
    } else if (type == GgufType::kArray) {
      SNUG_TRY(Array(key, &value.array));
    } else {
      SNUG_TRY(Scalar(key, type, &value.bits));
    }
    // Split files after the first repeat keys; the first file's stand.
    if (index_ != 0) {
      if (key == "split.no") split_no_ = value.bits;
      return {};
    }
    if (!out_.AddValue(key, std::move(value))) return Bad("key '{}' appears twice", key);
    return {};
  }

  Status Scalar(const std::string& key, GgufType type, uint64_t* bits) {
    uint8_t raw[8] = {};
    SNUG_TRY(reader_.Read(raw, GgufScalarBytes(type), "value"));
    uint64_t u = 0;
    std::memcpy(&u, raw, 8);
    switch (type) {
      case GgufType::kI8:
        *bits = static_cast<uint64_t>(int64_t{static_cast<int8_t>(u)});
        break;
      case GgufType::kI16:
        *bits = static_cast<uint64_t>(int64_t{static_cast<int16_t>(u)});
        break;
      case GgufType::kI32:
        *bits = static_cast<uint64_t>(int64_t{static_cast<int32_t>(u)});
        break;
      case GgufType::kF32:
        *bits = std::bit_cast<uint64_t>(double{std::bit_cast<float>(static_cast<uint32_t>(u))});
        break;
      case GgufType::kBool:
        if (u > 1) return Bad("key '{}' is a bool of value {}", key, u);
        *bits = u;
        break;
      default:
        *bits = u;
    }
    return {};
  }

  Status Array(const std::string& key, GgufArray* array) {
    SNUG_ASSIGN(array->element, Type(key));
    SNUG_ASSIGN(array->count, reader_.Scalar<uint64_t>("array length"));
    array->offset = reader_.at();
    if (array->element == GgufType::kArray)
      return Bad("key '{}' is a nested array, which no model uses", key);
    const uint64_t least =
        array->element == GgufType::kString ? 8 : GgufScalarBytes(array->element);
    if (array->count > reader_.left() / least) {
      return Bad("key '{}' is an array of {} elements, more than the file holds (truncated)", key,
                 array->count);
    }
    if (array->element != GgufType::kString) {
      SNUG_TRY(reader_.Skip(array->count * least, "array"));
    } else {
      for (uint64_t i = 0; i < array->count; ++i) {
        SNUG_ASSIGN(const uint64_t n, reader_.Scalar<uint64_t>("string length"));
        SNUG_TRY(reader_.Skip(n, "string"));
      }
    }
    array->bytes = reader_.at() - array->offset;
    return {};
  }

  Status Alignment() {
    if (!out_.Has("general.alignment")) return {};
    alignment_ = out_.GetUint("general.alignment").value_or(0);
    if (!std::has_single_bit(alignment_) || alignment_ > kMaxAlignment) {
      return Bad("general.alignment is {}, not a power of two up to {}", alignment_, kMaxAlignment);
    }
    return {};
  }

  Status Tensor() {
    TensorInfo t;
    SNUG_ASSIGN(t.name, String(kMaxName, "tensor name"));
    if (t.name.empty()) return Bad("a tensor without a name");
    SNUG_ASSIGN(const uint32_t dims, reader_.Scalar<uint32_t>("dimension count"));
    if (dims < 1 || dims > 4) return Bad("tensor '{}' has {} dimensions", t.name, dims);
    t.n_dims = static_cast<int>(dims);
    uint64_t elements = 1;
    for (uint32_t d = 0; d < dims; ++d) {
      SNUG_ASSIGN(t.dims[d], reader_.Scalar<uint64_t>("dimension"));
      if (t.dims[d] < 1 || t.dims[d] > (uint64_t{1} << 40) / elements) {
        return Bad("tensor '{}' has the impossible dimension {}", t.name, t.dims[d]);
      }
      elements *= t.dims[d];
    }
    SNUG_ASSIGN(const uint32_t id, reader_.Scalar<uint32_t>("tensor type"));
    const DTypeInfo* type = FindDType(id);
    if (type == nullptr)
      return Bad("tensor '{}' has the type {}, which is not supported", t.name, id);
    if (t.dims[0] % type->block != 0) {
      return Bad("tensor '{}' has rows of {}, not a multiple of the {} block of {}", t.name,
                 t.dims[0], type->name, type->block);
    }
    t.type = type->type;
    t.bytes = elements / type->block * type->bytes;
    SNUG_ASSIGN(t.offset, reader_.Scalar<uint64_t>("tensor offset"));
    if (t.offset % alignment_ != 0)
      return Bad("tensor '{}' at offset {} is not aligned to {}", t.name, t.offset, alignment_);
    t.file = index_;
    const std::string name = t.name;
    if (!out_.AddTensor(std::move(t))) return Bad("tensor '{}' appears twice", name);
    return {};
  }

  // Turns offsets into file positions, and checks that tensors lie inside the file and apart.
  Status Places() {
    const uint64_t size = out_.files_[index_].size();
    const uint64_t data = (reader_.at() + alignment_ - 1) / alignment_ * alignment_;
    std::vector<TensorInfo*> mine;
    for (TensorInfo& t : out_.tensors_) {
      if (t.file != index_) continue;
      if (data > size || t.offset > size - data || t.bytes > size - data - t.offset) {
        return Bad("truncated: tensor '{}' ends at {}, the file at {}", t.name,
                   data + t.offset + t.bytes, size);
      }
      t.offset += data;
      mine.push_back(&t);
    }
    std::sort(mine.begin(), mine.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
    for (size_t i = 1; i < mine.size(); ++i) {
      if (mine[i - 1]->offset + mine[i - 1]->bytes > mine[i]->offset) {
        return Bad("tensors '{}' and '{}' overlap", mine[i - 1]->name, mine[i]->name);
      }
    }
    return {};
  }

 public:
  uint64_t split_no() const { return split_no_; }

 private:
  GgufFile& out_;
  uint32_t index_;
  GgufReader reader_;
  uint64_t tensors_ = 0, keys_ = 0, alignment_ = 32, split_no_ = 0;
  uint64_t text_bytes_ = 0;
};

Result<GgufFile> GgufFile::Open(const std::string& path) {
  GgufFile g;
  g.path_ = path;
  SNUG_ASSIGN(File first, File::Open(path));
  g.paths_.push_back(path);
  g.files_.push_back(std::move(first));
  SNUG_TRY(GgufParser(g, 0).Parse());
  const uint64_t count = g.GetUint("split.count").value_or(0);
  if (count <= 1) return g;

  auto bad = [&](std::string message, std::string next) {
    return MakeError(Code::kBadFile, path + ": " + std::move(message), std::move(next),
                     {{"path", path}});
  };
  if (count > kMaxSplits) return bad(fmt::format("split.count {} is impossible", count), "");
  const std::string suffix = fmt::format("-00001-of-{:05}.gguf", count);
  if (g.GetUint("split.no").value_or(0) != 0 || !path.ends_with(suffix)) {
    return bad(fmt::format("is part {} of a split model of {}",
                           g.GetUint("split.no").value_or(0) + 1, count),
               fmt::format("give the first part, named like MODEL{}", suffix));
  }
  const std::string stem = path.substr(0, path.size() - suffix.size());
  for (uint64_t i = 1; i < count; ++i) {
    const std::string name = fmt::format("{}-{:05}-of-{:05}.gguf", stem, i + 1, count);
    auto file = File::Open(name);
    if (!file.ok())
      return bad(fmt::format("its part {} is missing: {}", i + 1, file.error().message),
                 "put all parts in one folder");
    g.paths_.push_back(name);
    g.files_.push_back(std::move(file).value());
    GgufParser parser(g, static_cast<uint32_t>(i));
    SNUG_TRY(parser.Parse());
    if (parser.split_no() != i)
      return bad(fmt::format("part {} says it is part {}", i + 1, parser.split_no() + 1), "");
  }
  const uint64_t tensors = g.GetUint("split.tensors.count").value_or(g.tensors_.size());
  if (tensors != g.tensors_.size()) {
    return bad(
        fmt::format("split.tensors.count is {}, its parts hold {}", tensors, g.tensors_.size()),
        "");
  }
  return g;
}

}  // namespace snug
