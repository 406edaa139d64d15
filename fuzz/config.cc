// A Hugging Face folder whose files hold any text: opened, described and planned. Parts of the
// input are divided by a zero byte: config.json, tokenizer_config.json, generation_config.json, how
// many bytes of zeros model.safetensors has, and its header.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "base/ledger.h"
#include "engine/planner.h"
#include "format/hf_folder.h"
#include "fuzz.h"

namespace snug {
namespace {

constexpr uint64_t kMaxData = kMiB;  // in a hole of the file

struct TempFolder {
  TempFolder() {
    FUZZ_CHECK(mkdtemp(path) != nullptr);
    std::atexit([] { std::filesystem::remove_all(Get().path); });
  }
  static TempFolder& Get() {
    static TempFolder folder;
    return folder;
  }
  std::string Path(const char* name) const { return std::string(path) + "/" + name; }
  char path[32] = "/dev/shm/snug-fuzz-XXXXXX";
};

void Write(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string_view TakePart(std::string_view* rest) {
  const size_t end = std::min(rest->find('\0'), rest->size());
  const std::string_view part = rest->substr(0, end);
  rest->remove_prefix(std::min(end + 1, rest->size()));
  return part;
}

void WriteFolder(std::string_view input) {
  const TempFolder& folder = TempFolder::Get();
  for (const char* name : {"config.json", "tokenizer_config.json", "generation_config.json"}) {
    const std::string_view part = TakePart(&input);
    if (part.empty()) {
      std::filesystem::remove(folder.Path(name));
    } else {
      Write(folder.Path(name), part);
    }
  }
  uint64_t zeros = 0;
  for (const char c : TakePart(&input))
    if (c >= '0' && c <= '9')
      zeros = std::min(kMaxData, 10 * zeros + static_cast<uint64_t>(c - '0'));
  const uint64_t n = input.size();
  std::string weights(reinterpret_cast<const char*>(&n), sizeof(n));
  weights += input;
  Write(folder.Path("model.safetensors"), weights);
  FUZZ_CHECK(truncate(folder.Path("model.safetensors").c_str(),
                      static_cast<off_t>(weights.size() + zeros)) == 0);
}

}  // namespace
}  // namespace snug

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  WriteFolder({reinterpret_cast<const char*>(data), size});
  const auto file = HfFolder::Open(TempFolder::Get().path);
  if (!file.ok()) return 0;
  file->Describe();
  for (const TensorInfo& t : file->tensors()) {
    FUZZ_CHECK(t.cols() != 0 && t.rows() != 0);
    FUZZ_CHECK(file->Find(t.name) != nullptr);
  }
  EngineOptions o;
  o.model_path = TempFolder::Get().path;
  o.budget.bytes = 256 * kMiB;
  o.base_bytes = 8 * kMiB;
  o.context = 64;
  o.threads = 1;
  const auto plan = PlanFile(o);
  if (!plan.ok()) return 0;
  uint64_t sum = 0;
  for (const uint64_t bytes : plan->peak) sum += bytes;
  FUZZ_CHECK(sum == plan->peak_total);
  FUZZ_CHECK(plan->fits == (sum <= o.budget.bytes));
  return 0;
}
