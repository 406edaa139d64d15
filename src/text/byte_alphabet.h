// The printable characters by which byte-level vocabularies write bytes (GPT-2): those that are
// printable in Latin-1 as themselves, the other 68 as U+0100 and up in their order.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace snug {

struct ByteAlphabet {
  std::array<uint16_t, 256> to_char{};
  std::array<int16_t, 324> to_byte{};  // -1: stands for no byte

  constexpr ByteAlphabet() {
    to_byte.fill(-1);
    uint16_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      const uint16_t c = printable ? static_cast<uint16_t>(b) : next++;
      to_char[static_cast<size_t>(b)] = c;
      to_byte[c] = static_cast<int16_t>(b);
    }
  }
};
inline constexpr ByteAlphabet kByteLetters;

// Appends `bytes` as characters.
inline void AppendAsChars(std::string_view bytes, std::string* out) {
  for (const char byte : bytes) {
    const uint16_t c = kByteLetters.to_char[static_cast<uint8_t>(byte)];
    if (c < 0x80) {
      out->push_back(static_cast<char>(c));
    } else {
      out->push_back(static_cast<char>(0xC0 | c >> 6));
      out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
    }
  }
}

}  // namespace snug
