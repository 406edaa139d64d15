#include "base/json_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace snug {
namespace {

bool IsSpace(int c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// Bytes of a string before its first quote, backslash or control character.
size_t PlainBytes(const char* p, size_t n) {
  size_t i = 0;
  while (i < n && p[i] != '"' && p[i] != '\\' && static_cast<uint8_t>(p[i]) >= 0x20) ++i;
  return i;
}

void AppendCodePoint(uint32_t c, std::string* out) {
  const auto tail = [&](int shift) {
    out->push_back(static_cast<char>(0x80 | (c >> shift & 0x3F)));
  };
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    tail(6);
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace

JsonReader::JsonReader(const File& file, uint64_t offset)
    : file_(file), buffer_(kBuffer), start_(offset) {}

bool JsonReader::Fail(const std::string& what) {
  if (ok_) error_ = fmt::format("at byte {}: {}", offset(), what);
  ok_ = false;
  return false;
}

bool JsonReader::Stop() { return ok_ ? Fail("unexpected value") : false; }

Error JsonReader::TakeError() {
  if (io_error_) return std::move(*io_error_);
  return MakeError(Code::kBadFile, fmt::format("{} {}", file_.path(), error_),
                   "the file is damaged or of another kind: download it again",
                   {{"file", file_.path()}, {"position", std::to_string(offset())}});
}

bool JsonReader::Fill() {
  // What has been read goes; what has not moves to the front.
  std::memmove(buffer_.data(), buffer_.data() + at_, end_ - at_);
  start_ += at_;
  end_ -= at_;
  at_ = 0;
  const uint64_t from = start_ + end_;
  const uint64_t left = from < file_.size() ? file_.size() - from : 0;
  const uint64_t bytes = std::min<uint64_t>(buffer_.size() - end_, left);
  if (bytes == 0) return false;
  if (Status s = file_.ReadAt(from, buffer_.data() + end_, bytes); !s.ok()) {
    if (ok_) io_error_ = std::move(s).error();
    ok_ = false;
    return false;
  }
  end_ += bytes;
  return true;
}

int JsonReader::Byte() {
  if (at_ == end_ && !Fill()) return -1;
  return static_cast<uint8_t>(buffer_[at_]);
}

int JsonReader::SkipSpace() {
  for (;;) {
    const int c = Byte();
    if (!IsSpace(c)) return c;
    ++at_;
  }
}

bool JsonReader::Expect(char c) {
  if (!ok_) return false;
  if (SkipSpace() != c) return Fail(fmt::format("'{}' expected", c));
  ++at_;
  return true;
}

bool JsonReader::Enter(char open) {
  if (!Expect(open)) return false;
  if (++depth_ > kMaxDepth) return Fail(fmt::format("nested deeper than {}", kMaxDepth));
  return true;
}

bool JsonReader::Leave(char close, bool first) {
  if (!ok_) return true;
  const int c = SkipSpace();
  if (c == close) {
    ++at_;
    --depth_;
    return true;
  }
  if (!first && !Expect(',')) return true;
  return false;
}

std::optional<JsonKind> JsonReader::Peek() {
  if (!ok_) return std::nullopt;
  const int c = SkipSpace();
  switch (c) {
    case '{':
      return JsonKind::kObject;
    case '[':
      return JsonKind::kArray;
    case '"':
      return JsonKind::kString;
    case 't':
      return JsonKind::kTrue;
    case 'f':
      return JsonKind::kFalse;
    case 'n':
      return JsonKind::kNull;
    default:
      if (c == '-' || (c >= '0' && c <= '9')) return JsonKind::kNumber;
      Fail("a value expected");
      return std::nullopt;
  }
}

bool JsonReader::OpenString() {
  if (!ok_) return false;
  if (SkipSpace() != '"') return Fail("a string expected");
  ++at_;
  return true;
}

std::optional<std::string_view> JsonReader::StringPart() {
  if (Byte() < 0) {
    Fail("the file ends within a string");
    return std::nullopt;
  }
  if (const size_t plain = PlainBytes(&buffer_[at_], end_ - at_); plain != 0) {
    at_ += plain;
    return std::string_view(&buffer_[at_ - plain], plain);
  }
  const char c = buffer_[at_];
  if (c == '"') {
    ++at_;
    return std::string_view();
  }
  if (c != '\\') {
    Fail("a control character within a string");
    return std::nullopt;
  }
  ++at_;
  escaped_.clear();
  if (!Escape(&escaped_)) return std::nullopt;
  return escaped_;
}

std::optional<std::string_view> JsonReader::String(size_t limit) {
  if (!OpenString()) return std::nullopt;
  // Most strings lie in the buffer as they are.
  if (end_ - at_ < 256) Fill();
  const size_t plain = at_ < end_ ? PlainBytes(&buffer_[at_], end_ - at_) : 0;
  if (at_ + plain < end_ && buffer_[at_ + plain] == '"' && plain <= limit) {
    at_ += plain + 1;
    return std::string_view(&buffer_[at_ - plain - 1], plain);
  }
  text_.clear();
  for (;;) {
    const auto part = StringPart();
    if (!part) return std::nullopt;
    if (part->empty()) return text_;
    if (part->size() > limit - text_.size()) {
      Fail(fmt::format("a string longer than {} bytes", limit));
      return std::nullopt;
    }
    text_.append(*part);
  }
}

std::optional<uint32_t> JsonReader::Hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const int c = Byte(), low = c | 32;
    const int digit = c >= '0' && c <= '9'       ? c - '0'
                      : low >= 'a' && low <= 'f' ? low - 'a' + 10
                                                 : -1;
    if (digit < 0) {
      Fail("\\u without four hexadecimal digits");
      return std::nullopt;
    }
    value = value << 4 | static_cast<uint32_t>(digit);
    ++at_;
  }
  return value;
}

bool JsonReader::Escape(std::string* out) {
  constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
  const int c = Byte();
  if (c != 'u') {
    const size_t i = c < 0 ? kNames.npos : kNames.find(static_cast<char>(c));
    if (i == kNames.npos) return Fail("an unknown escape");
    out->push_back(kValues[i]);
    ++at_;
    return true;
  }
  ++at_;
  auto value = Hex4();
  if (!value) return false;
  if (*value >= 0xD800 && *value < 0xDC00) {
    if (Byte() != '\\') return Fail("half of a surrogate pair");
    ++at_;
    if (Byte() != 'u') return Fail("half of a surrogate pair");
    ++at_;
    const auto low = Hex4();
    if (!low) return false;
    if (*low < 0xDC00 || *low > 0xDFFF) return Fail("half of a surrogate pair");
    value = 0x10000 + ((*value - 0xD800) << 10) + (*low - 0xDC00);
  } else if (*value >= 0xDC00 && *value < 0xE000) {
    return Fail("half of a surrogate pair");
  }
  AppendCodePoint(*value, out);
  return true;
}

std::optional<std::string_view> JsonReader::NumberText() {
  const auto kind = Peek();
  if (!kind) return std::nullopt;
  text_.clear();
  for (int c = Byte(); kind == JsonKind::kNumber && c >= 0 && text_.size() < 64; c = Byte()) {
    if ((c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E')
      return text_;
    text_.push_back(static_cast<char>(c));
    ++at_;
  }
  Fail("a number expected");
  return std::nullopt;
}

std::optional<int64_t> JsonReader::Integer() {
  const auto text = NumberText();
  if (!text) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error == std::errc() && end == text->data() + text->size()) return value;
  Fail(fmt::format("{} is no whole number of 64 bits", *text));
  return std::nullopt;
}

std::optional<double> JsonReader::Number() {
  const auto text = NumberText();
  if (!text) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error == std::errc() && end == text->data() + text->size()) return value;
  Fail(fmt::format("{} is no number", *text));
  return std::nullopt;
}

bool JsonReader::Literal(std::string_view word) {
  for (const char c : word) {
    if (Byte() != c) return Fail("a value expected");
    ++at_;
  }
  return true;
}

std::optional<bool> JsonReader::Bool() {
  const auto kind = Peek();
  if (kind == JsonKind::kTrue && Literal("true")) return true;
  if (kind == JsonKind::kFalse && Literal("false")) return false;
  if (ok_) Fail("true or false expected");
  return std::nullopt;
}

bool JsonReader::Skip() {
  const auto kind = Peek();
  if (!kind) return false;
  switch (*kind) {
    case JsonKind::kObject:
      return Object(kBuffer, [this](std::string_view) { return Skip(); });
    case JsonKind::kArray:
      return Array([this] { return Skip(); });
    case JsonKind::kString:
      return StringPieces([](std::string_view) { return true; });
    case JsonKind::kNumber:
      return NumberText().has_value();
    case JsonKind::kTrue:
    case JsonKind::kFalse:
      return Bool().has_value();
    case JsonKind::kNull:
      return Literal("null");
  }
  return false;
}

bool JsonReader::Copy(size_t limit, size_t max_string, std::string* out) {
  const auto kind = Peek();
  if (!kind) return false;
  const auto add = [&](std::string_view text) {
    if (text.size() > limit - std::min(limit, out->size()))
      return Fail(fmt::format("a value longer than {} bytes", limit));
    out->append(text);
    return true;
  };
  const auto add_string = [&](std::string_view text) {
    if (!add("\"")) return false;
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      if (c == '"' || c == '\\' ? !add(std::string{'\\', c})
          : byte < 0x20         ? !add(fmt::format("\\u{:04x}", byte))
                                : !add({&c, 1}))
        return false;
    }
    return add("\"");
  };
  std::string_view comma;
  switch (*kind) {
    case JsonKind::kObject:
      return add("{") &&
             Object(max_string,
                    [&](std::string_view key) {
                      if (!add(comma) || !add_string(key) || !add(":")) return false;
                      comma = ",";
                      return Copy(limit, max_string, out);
                    }) &&
             add("}");
    case JsonKind::kArray:
      return add("[") && Array([&] {
               if (!add(comma)) return false;
               comma = ",";
               return Copy(limit, max_string, out);
             }) &&
             add("]");
    case JsonKind::kString: {
      const uint64_t from = offset();
      std::string text;
      bool all = true;
      if (!StringPieces([&](std::string_view part) {
            all = all && part.size() <= max_string - text.size();
            if (all) text.append(part);
            return true;
          }))
        return false;
      return all ? add_string(text) : add(std::to_string(from));
    }
    case JsonKind::kNumber: {
      const auto text = NumberText();
      return text && add(*text);
    }
    case JsonKind::kTrue:
    case JsonKind::kFalse: {
      const auto value = Bool();
      return value && add(*value ? "true" : "false");
    }
    case JsonKind::kNull:
      return Literal("null") && add("null");
  }
  return false;
}

bool JsonReader::AtEnd() {
  if (ok_ && SkipSpace() >= 0) return Fail("more after the end");
  return ok_;
}

}  // namespace snug
