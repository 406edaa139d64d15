// A safetensors file of any bytes.
#include "format/safetensors.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  const fuzz::MemoryFile input(data, size);
  const auto file = SafetensorsFile::Open(input.path());
  if (!file.ok()) return 0;
  uint64_t bytes = 0;
  for (const SafetensorInfo& t : file->tensors()) {
    FUZZ_CHECK(t.offset <= size && t.bytes <= size - t.offset);
    FUZZ_CHECK(file->Find(t.name) != nullptr);
    bytes += t.bytes;
    if (const auto f = file->ReadF32(t.name); f.ok()) FUZZ_CHECK(f->size() * 4 == t.bytes);
    if (const auto i = file->ReadI32(t.name); i.ok()) FUZZ_CHECK(i->size() * 4 == t.bytes);
  }
  FUZZ_CHECK(bytes <= size);
  return 0;
}
