// Stop strings over a stream of text: holds back what may be the beginning of one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace snug {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);
  // Appends to *out the text that can no longer be part of a stop string. True when one has come:
  // the text before it is out, the rest is dropped.
  bool Push(std::string_view text, std::string* out);
  void Finish(std::string* out);  // what was held back
  bool matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace snug
