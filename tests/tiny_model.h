// A whole model small enough to be written by a test.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace snug::testing {

// A Llama of random float32 weights with a byte-level vocabulary of all bytes and an end token:
// runs, and says nothing.
struct TinyModel {
  uint32_t layers = 2, dim = 32, heads = 2, ffn = 64, context = 256;

  static std::vector<std::string> Vocabulary();
  // The file, or one of `parts` that its tensors are dealt to in turn.
  std::string Bytes(uint32_t part = 0, uint32_t parts = 1) const;
  // Writes the whole model, or its parts; returns the path to open.
  std::string Write(uint32_t parts = 1) const;
};

}  // namespace snug::testing
