#include "text/tokenizer.h"

namespace snug {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

// Bytes of the sequence that `lead` opens; 0 where it opens none.
int SequenceBytes(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  return lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
}

// Whether `byte` may follow the n held bytes. The second byte's range depends on the first, which
// excludes overlong forms, surrogates and codes above U+10FFFF (Unicode, table 3-7).
bool MayFollow(const char* held, int n, uint8_t byte) {
  if ((byte & 0xC0) != 0x80) return false;
  if (n != 1) return true;
  switch (static_cast<uint8_t>(held[0])) {
    case 0xE0:
      return byte >= 0xA0;
    case 0xED:
      return byte <= 0x9F;
    case 0xF0:
      return byte >= 0x90;
    case 0xF4:
      return byte <= 0x8F;
    default:
      return true;
  }
}

}  // namespace

void Utf8Stream::Push(std::string_view bytes, std::string* out) {
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (n_held_ != 0 && !MayFollow(held_, n_held_, byte)) Finish(out);
    if (n_held_ == 0 && SequenceBytes(byte) == 0) {
      out->append(kReplacement);
      continue;
    }
    held_[n_held_++] = c;
    if (n_held_ == SequenceBytes(static_cast<uint8_t>(held_[0]))) {
      out->append(held_, static_cast<size_t>(n_held_));
      n_held_ = 0;
    }
  }
}

void Utf8Stream::Finish(std::string* out) {
  if (n_held_ != 0) out->append(kReplacement);
  n_held_ = 0;
}

}  // namespace snug
