// Reads a JSON file value by value in bounded memory, for files that are too large to be held as a
// tree: the caller walks objects and arrays, takes what it needs and skips the rest. Hostile-input
// code: depth and the lengths of strings are bounded, and every step moves forward in the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace snug {

enum class JsonKind : uint8_t { kObject, kArray, kString, kNumber, kTrue, kFalse, kNull };

// Calls return false once something is wrong; error() then says what. Holds a buffer of 64 KiB and
// the longest string asked for.
class JsonReader {
 public:
  static constexpr int kMaxDepth = 64;

  // `file` must outlive the reader. Reading starts at a value that begins at `offset`.
  explicit JsonReader(const File& file, uint64_t offset = 0);

  // The kind of the value that comes next.
  std::optional<JsonKind> Peek();
  // Where the value that comes next begins (after Peek).
  uint64_t offset() const { return start_ + at_; }

  // Walks an object: member(key) must read or skip the value and return whether to go on. The key
  // is valid until member returns.
  template <class Fn>
  bool Object(size_t max_key, const Fn& member) {
    if (!Enter('{')) return false;
    std::string key;
    for (bool first = true; !Leave('}', first); first = false) {
      const auto text = String(max_key);
      if (!text) return false;
      key.assign(*text);
      if (!Expect(':') || !member(std::string_view(key))) return Stop();
    }
    return ok();
  }
  // Walks an array: element() must read or skip one value.
  template <class Fn>
  bool Array(const Fn& element) {
    if (!Enter('[')) return false;
    for (bool first = true; !Leave(']', first); first = false)
      if (!element()) return Stop();
    return ok();
  }
  // A string of at most `limit` bytes; valid until the next call.
  std::optional<std::string_view> String(size_t limit);
  // A string of any length, in pieces: piece(bytes) returns whether to go on.
  template <class Fn>
  bool StringPieces(const Fn& piece) {
    if (!OpenString()) return false;
    for (;;) {
      const auto part = StringPart();
      if (!part) return false;
      if (part->empty()) return true;
      if (!piece(*part)) return Stop();
    }
  }
  std::optional<int64_t> Integer();
  std::optional<double> Number();
  std::optional<bool> Bool();
  // Skips a value of any kind.
  bool Skip();
  // Appends the text of a value, at most `limit` bytes of it. A string longer than `max_string`
  // bytes as written becomes the number that is its offset in the file.
  bool Copy(size_t limit, size_t max_string, std::string* out);
  // Whether nothing but white space is left.
  bool AtEnd();

  bool ok() const { return ok_; }
  // Ends the reading with an error of ours; returns false.
  bool Fail(const std::string& what);
  // kBadFile with the file, the position and what is wrong.
  Error TakeError();

 private:
  static constexpr size_t kBuffer = 64 << 10;

  bool Fill();      // more bytes after end_; false at the end of the file
  int Byte();       // the byte at at_, -1 at the end
  int SkipSpace();  // the first byte that is no white space, -1 at the end
  bool Expect(char c);
  bool Enter(char open);
  bool Leave(char close, bool first);  // true after the last entry, and after an error
  bool Stop();                         // false; an error if none was given
  bool OpenString();
  // The next bytes of an open string, unescaped; empty at its end.
  std::optional<std::string_view> StringPart();
  bool Escape(std::string* out);
  std::optional<uint32_t> Hex4();
  std::optional<std::string_view> NumberText();
  bool Literal(std::string_view word);

  const File& file_;
  std::vector<char> buffer_;
  uint64_t start_ = 0;       // the buffer's offset in the file
  size_t at_ = 0, end_ = 0;  // of the buffer
  int depth_ = 0;
  bool ok_ = true;
  std::string text_;  // a string that does not lie in the buffer as one piece
  std::string escaped_;
  std::string error_;
  std::optional<Error> io_error_;
};

}  // namespace snug
