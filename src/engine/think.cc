#include "engine/think.h"

#include <algorithm>

namespace snug {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>", kSpace = " \t\r\n";

std::string_view WithoutTrailingSpace(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kSpace) + 1);
}

// Bytes at the end of `text` with which `tag` may begin.
size_t PartialTag(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
    if (tag.starts_with(text.substr(text.size() - n))) return n;
  }
  return 0;
}

}  // namespace

bool ThinkSplitter::EndsInside(std::string_view prompt) {
  return WithoutTrailingSpace(prompt).ends_with(kOpen);
}

bool ThinkSplitter::Advance(const Sink& sink) {
  switch (state_) {
    case State::kStart: {
      const size_t begin = held_.find_first_not_of(kSpace);
      if (begin == std::string::npos) return false;
      const std::string_view rest = std::string_view(held_).substr(begin);
      if (rest.starts_with(kOpen)) {
        held_.erase(0, begin + kOpen.size());
        state_ = State::kThinking;
        return true;
      }
      if (kOpen.starts_with(rest)) return false;
      state_ = State::kAnswer;
      return true;
    }
    case State::kThinking: {
      const size_t close = held_.find(kClose);
      const bool closed = close != std::string::npos;
      const std::string_view all = held_;
      const std::string_view text = WithoutTrailingSpace(
          all.substr(0, closed ? close : all.size() - PartialTag(all, kClose)));
      if (!text.empty()) {
        const size_t lead = thought_ ? 0 : std::min(text.find_first_not_of(kSpace), text.size());
        sink(TextKind::kThinking, text.substr(lead));
        thought_ = true;
      }
      held_.erase(0, closed ? close + kClose.size() : text.size());
      if (closed) state_ = State::kClosed;
      return closed;
    }
    case State::kClosed:
      held_.erase(0, std::min(held_.find_first_not_of(kSpace), held_.size()));
      if (held_.empty()) return false;
      state_ = State::kAnswer;
      return true;
    case State::kAnswer:
      if (!held_.empty()) sink(TextKind::kAnswer, held_);
      held_.clear();
      return false;
  }
  return false;
}

void ThinkSplitter::Push(std::string_view text, const Sink& sink) {
  held_ += text;
  while (Advance(sink)) {
  }
}

void ThinkSplitter::Finish(const Sink& sink) {
  const bool thinking = state_ == State::kThinking;
  if (!held_.empty() && state_ != State::kClosed) {
    sink(thinking ? TextKind::kThinking : TextKind::kAnswer, held_);
  }
  held_.clear();
}

}  // namespace snug
