// Splits a model's text, as it streams, into what it thinks between <think> and </think> and what
// it answers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace snug {

enum class TextKind : uint8_t { kAnswer, kThinking };

class ThinkSplitter {
 public:
  using Sink = std::function<void(TextKind kind, std::string_view text)>;

  // `thinking`: whether the text begins inside, as it does where the prompt ends with the tag.
  explicit ThinkSplitter(bool thinking) : state_(thinking ? State::kThinking : State::kStart) {}
  // Passes on what is decided. Tags count only before the answer begins; white space around them
  // belongs to neither side, and any other text is passed on as it is.
  void Push(std::string_view text, const Sink& sink);
  // Passes on what was held back for what might have followed.
  void Finish(const Sink& sink);

  // Whether a prompt ends with an open tag.
  static bool EndsInside(std::string_view prompt);

 private:
  enum class State : uint8_t { kStart, kThinking, kClosed, kAnswer };
  // One transition over held_; false when more text is needed.
  bool Advance(const Sink& sink);

  State state_;
  bool thought_ = false;  // thinking has begun with something other than white space
  std::string held_;
};

}  // namespace snug
