#include "format/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/json.h"

namespace snug {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr uint64_t kMaxElements = uint64_t{1} << 40;

uint32_t DTypeBytes(std::string_view dtype) {
  static constexpr std::pair<std::string_view, uint32_t> kBytes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  for (const auto& [name, bytes] : kBytes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

bool IsCount(const Json& j) { return j.is_number_unsigned(); }

Error Malformed(const std::string& path, const std::string& message) {
  return MakeError(Code::kBadFile, fmt::format("{}: {}", path, message),
                   "the file is damaged or no safetensors file", {{"path", path}});
}

Result<SafetensorInfo> ParseTensor(const std::string& path, const std::string& name, const Json& j,
                                   uint64_t data, uint64_t size) {
  SafetensorInfo t;
  t.name = name;
  const auto dtype = j.find("dtype"), shape = j.find("shape"), offsets = j.find("data_offsets");
  if (!j.is_object() || dtype == j.end() || !dtype->is_string() || shape == j.end() ||
      !shape->is_array() || offsets == j.end() || !offsets->is_array() || offsets->size() != 2 ||
      !IsCount((*offsets)[0]) || !IsCount((*offsets)[1])) {
    return Malformed(path, fmt::format("tensor '{}' lacks dtype, shape or data_offsets", name));
  }
  t.dtype = dtype->get<std::string>();
  uint64_t elements = 1;
  for (const Json& d : *shape) {
    if (!IsCount(d)) return Malformed(path, fmt::format("tensor '{}' has a malformed shape", name));
    t.shape.push_back(d.get<uint64_t>());
    if (t.shape.back() != 0 && elements > kMaxElements / t.shape.back()) {
      return Malformed(path, fmt::format("tensor '{}' has an impossible shape", name));
    }
    elements *= t.shape.back();
  }
  const uint64_t begin = (*offsets)[0].get<uint64_t>(), end = (*offsets)[1].get<uint64_t>();
  const uint32_t bytes = DTypeBytes(t.dtype);
  if (bytes == 0)
    return Malformed(path, fmt::format("tensor '{}' has the unknown dtype '{}'", name, t.dtype));
  if (begin > end || end > size - data) {
    return Malformed(
        path,
        fmt::format("tensor '{}' at [{}, {}) lies outside the file's {} data bytes (truncated?)",
                    name, begin, end, size - data));
  }
  if (end - begin != elements * bytes) {
    return Malformed(path, fmt::format("tensor '{}' has {} bytes where its shape needs {}", name,
                                       end - begin, elements * bytes));
  }
  t.offset = data + begin;
  t.bytes = end - begin;
  return t;
}

Error WriteError(const std::string& path, const char* what) {
  return MakeError(Code::kIo, fmt::format("{}: cannot {}: {}", path, what, std::strerror(errno)),
                   {}, {{"path", path}});
}

Status WriteAll(int fd, const void* data, size_t bytes, const std::string& path) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n = write(fd, static_cast<const char*>(data) + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return WriteError(path, "write");
    done += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile s;
  SNUG_ASSIGN(s.file_, File::Open(path));
  const uint64_t size = s.file_.size();
  uint64_t header = 0;
  if (size < 8) return Malformed(path, fmt::format("truncated: {} bytes", size));
  SNUG_TRY(s.file_.ReadAt(0, &header, 8));
  if (header > kMaxHeader || header > size - 8) {
    return Malformed(path, fmt::format("header of {} bytes does not fit the file's {} (truncated?)",
                                       header, size));
  }
  std::string text(header, '\0');
  SNUG_TRY(s.file_.ReadAt(8, text.data(), header));
  auto json = ParseJson(text, path + " (header)", {kMaxHeader, 8});
  if (!json.ok()) return Malformed(path, json.error().message);
  if (!json->is_object()) return Malformed(path, "the header is no object");
  for (const auto& [name, value] : json->items()) {
    if (name == "__metadata__") {
      for (const auto& [key, note] : value.items()) {
        if (note.is_string()) s.metadata_.emplace(key, note.get<std::string>());
      }
      continue;
    }
    SNUG_ASSIGN(SafetensorInfo t, ParseTensor(path, name, value, 8 + header, size));
    s.tensors_.push_back(std::move(t));
  }
  std::vector<const SafetensorInfo*> order;
  for (const SafetensorInfo& t : s.tensors_) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  uint64_t at = 8 + header;
  for (const SafetensorInfo* t : order) {
    if (t->offset != at) {
      return Malformed(path, fmt::format("tensor '{}' starts at {} where {} is due ({})", t->name,
                                         t->offset, at, t->offset < at ? "overlap" : "hole"));
    }
    at += t->bytes;
  }
  if (at != size) return Malformed(path, fmt::format("{} bytes follow the last tensor", size - at));
  return s;
}

const SafetensorInfo* SafetensorsFile::Find(std::string_view name) const {
  for (const SafetensorInfo& t : tensors_) {
    if (t.name == name) return &t;
  }
  return nullptr;
}

namespace {

template <class T>
Result<std::vector<T>> ReadAs(const SafetensorsFile& file, std::string_view name,
                              std::string_view dtype) {
  const SafetensorInfo* t = file.Find(name);
  if (t == nullptr || t->dtype != dtype) {
    return Malformed(file.file().path(),
                     fmt::format("tensor '{}' of type {} is {}", name, dtype,
                                 t == nullptr ? "missing" : "of type " + t->dtype));
  }
  std::vector<T> values(t->bytes / sizeof(T));
  SNUG_TRY(file.file().ReadAt(t->offset, values.data(), t->bytes));
  return values;
}

}  // namespace

Result<std::vector<float>> SafetensorsFile::ReadF32(std::string_view name) const {
  return ReadAs<float>(*this, name, "F32");
}
Result<std::vector<int32_t>> SafetensorsFile::ReadI32(std::string_view name) const {
  return ReadAs<int32_t>(*this, name, "I32");
}

Result<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path,
                                                    const std::vector<Spec>& f32,
                                                    const SafetensorsMetadata& metadata) {
  SafetensorsWriter w;
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  for (const Spec& s : f32) {
    uint64_t bytes = sizeof(float);
    for (uint64_t d : s.shape) bytes *= d;
    header[s.name] = {
        {"dtype", "F32"}, {"shape", s.shape}, {"data_offsets", {w.expected_, w.expected_ + bytes}}};
    w.expected_ += bytes;
  }
  std::string text = DumpJson(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  w.path_ = path;
  w.temp_ = path + ".part";
  w.fd_ = open(w.temp_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (w.fd_ < 0) return WriteError(w.temp_, "create");
  const uint64_t size = text.size();
  SNUG_TRY(WriteAll(w.fd_, &size, 8, w.temp_));
  SNUG_TRY(WriteAll(w.fd_, text.data(), text.size(), w.temp_));
  return w;
}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&& other) noexcept
    : path_(std::move(other.path_)),
      temp_(std::move(other.temp_)),
      fd_(std::exchange(other.fd_, -1)),
      expected_(other.expected_),
      written_(other.written_) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temp_.c_str());
}

Status SafetensorsWriter::Append(const float* data, size_t n) {
  assert(written_ + n * sizeof(float) <= expected_);
  SNUG_TRY(WriteAll(fd_, data, n * sizeof(float), temp_));
  written_ += n * sizeof(float);
  return {};
}

Status SafetensorsWriter::Finish() {
  assert(written_ == expected_);
  const bool synced = fsync(fd_) == 0;
  close(std::exchange(fd_, -1));
  if (synced && rename(temp_.c_str(), path_.c_str()) == 0) return {};
  Error error = WriteError(path_, "finish");
  unlink(temp_.c_str());
  return error;
}

}  // namespace snug
