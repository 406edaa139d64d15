#include "text/jinja/value.h"

#include <algorithm>
#include <random>

#include "text/unicode.h"

namespace snug::jinja {
namespace {

constexpr int64_t kMarkEvery = 128;

bool IsAscii(std::string_view s) {
  unsigned char all = 0;
  for (const char c : s) all |= static_cast<unsigned char>(c);
  return all < 0x80;
}

}  // namespace

void Object::Release() {
  assert(refs_ > 0);
  if (--refs_ == 0) heap_->Bury(this);
}

Heap::Heap(uint64_t limit)
    : limit_(limit), seed_(static_cast<uint64_t>(std::random_device{}()) << 32 ^ limit) {}

Heap::~Heap() {
  // Held once more, nothing goes away while all let go of each other; then each goes by itself.
  for (Object* o = first_; o != nullptr; o = o->next_) o->Retain();
  for (Object* o = first_; o != nullptr; o = o->next_) o->Clear();
  while (first_ != nullptr) Free(first_);
}

void Heap::Adopt(Object* o, uint64_t bytes) {
  o->heap_ = this;
  o->bytes_ = bytes;
  o->next_ = first_;
  if (first_ != nullptr) first_->previous_ = o;
  first_ = o;
  live_ += bytes;
}

void Heap::Free(Object* o) {
  if (o->previous_ != nullptr) o->previous_->next_ = o->next_;
  if (o->next_ != nullptr) o->next_->previous_ = o->previous_;
  if (first_ == o) first_ = o->next_;
  live_ -= o->bytes_;
  delete o;
}

void Heap::Bury(Object* o) {
  // Out of the list of the living, into the stack of the dead.
  if (o->previous_ != nullptr) o->previous_->next_ = o->next_;
  if (o->next_ != nullptr) o->next_->previous_ = o->previous_;
  if (first_ == o) first_ = o->next_;
  o->previous_ = nullptr;
  o->next_ = dead_;
  dead_ = o;
  if (burying_) return;
  burying_ = true;
  while (dead_ != nullptr) {
    Object* next = dead_;
    dead_ = next->next_;
    live_ -= next->bytes_;
    delete next;
  }
  burying_ = false;
}

Str::Str(std::string s, bool m) : text(std::move(s)), markup(m), ascii(IsAscii(text)) {}

void Str::Measure() const {
  if (size_ >= 0) return;
  if (ascii) {
    size_ = static_cast<int64_t>(text.size());
    return;
  }
  int64_t n = 0;
  for (size_t at = 0; at < text.size(); at += DecodeUtf8(text, at).bytes, ++n) {
    if (n % kMarkEvery == 0) marks_.push_back(static_cast<uint32_t>(at));
  }
  size_ = n;
}

int64_t Str::size() const {
  Measure();
  return size_;
}

size_t Str::Offset(int64_t index) const {
  Measure();
  assert(index >= 0 && index <= size_);
  if (ascii) return static_cast<size_t>(index);
  if (index == size_) return text.size();
  size_t at = marks_[static_cast<size_t>(index / kMarkEvery)];
  for (int64_t left = index % kMarkEvery; left > 0; --left) at += DecodeUtf8(text, at).bytes;
  return at;
}

int64_t Str::Index(size_t offset) const {
  Measure();
  if (ascii) return static_cast<int64_t>(offset);
  const auto after = std::upper_bound(marks_.begin(), marks_.end(), offset);
  if (after == marks_.begin()) return 0;
  int64_t index = (after - marks_.begin() - 1) * kMarkEvery;
  for (size_t at = *(after - 1); at < offset; at += DecodeUtf8(text, at).bytes) ++index;
  return index;
}

}  // namespace snug::jinja
