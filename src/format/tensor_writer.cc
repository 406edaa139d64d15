#include "format/tensor_writer.h"

#include <fmt/format.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cassert>

#include "format/output_file.h"

namespace snug {
namespace {

// What the written bytes follow from.
std::string Identity(const ModelFile& file, const std::string& header, const std::string& options) {
  std::string id = fmt::format("{:016x} {}", XXH3_64bits(header.data(), header.size()), options);
  for (const std::string& path : file.paths()) {
    struct stat st {};
    if (stat(path.c_str(), &st) != 0) continue;
    id += fmt::format(" {}:{}:{}.{}", path, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  }
  return id;
}

}  // namespace

Status WriteTensors(const ModelFile& file, const std::string& header,
                    const std::vector<PlacedTensor>& tensors, uint64_t data_bytes,
                    const std::string& path, const std::string& options, Ledger& ledger,
                    ThreadPool& pool, const std::function<void(const WriteProgress&)>& progress,
                    const std::atomic<bool>* cancel) {
  std::vector<Reencoding> work;
  for (const PlacedTensor& t : tensors) work.push_back(t.work);
  SNUG_ASSIGN(Reencoder reencoder, Reencoder::Create(file, work, ledger, pool));
  SNUG_ASSIGN(OutputFile out, OutputFile::Create(path, Identity(file, header, options)));
  WriteProgress p{out.position(), header.size() + data_bytes, out.resumed()};
  const auto append = [&](const uint8_t* data, uint64_t bytes) -> Status {
    SNUG_TRY(out.Append(data, bytes));
    p.done = out.position();
    if (progress != nullptr) progress(p);
    return {};
  };
  const auto pad_to = [&](uint64_t end) -> Status {
    constexpr uint8_t kZeros[64] = {};
    while (out.position() < end)
      SNUG_TRY(append(kZeros, std::min<uint64_t>(sizeof(kZeros), end - out.position())));
    return {};
  };
  if (const uint64_t have = out.position(); have < header.size())
    SNUG_TRY(append(reinterpret_cast<const uint8_t*>(header.data()) + have, header.size() - have));
  for (const PlacedTensor& t : tensors) {
    const uint64_t start = header.size() + t.offset;
    SNUG_TRY(pad_to(start));
    if (out.position() < start + t.bytes)
      SNUG_TRY(reencoder.Write(t.work, out.position() - start, append, cancel));
  }
  SNUG_TRY(pad_to(p.total));
  for (const File& f : file.files()) SNUG_TRY(f.CheckUnchanged());
  assert(out.position() == p.total);
  return out.Finish();
}

}  // namespace snug
