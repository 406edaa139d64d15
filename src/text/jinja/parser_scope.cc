#include "text/jinja/parser.h"

namespace snug::jinja {

size_t Parser::NewFrame(Body* body, bool isolated) {
  Frame frame;
  frame.body = body;
  if (!frames_.empty() && !isolated) frame.parent = static_cast<int64_t>(frame_);
  frames_.push_back(std::move(frame));
  return frames_.size() - 1;
}

void Parser::Assigned(const Target& target, bool parameter) {
  switch (target.type) {
    case Target::Type::kName:
      // What only some branch sets may keep the value from outside.
      frames_[frame_].set_first.emplace(target.id, !parameter && !soft_);
      break;
    case Target::Type::kNamespace:
      Read(target.id);
      break;
    case Target::Type::kTuple:
      for (const Target* part : target.parts) Assigned(*part, parameter);
      break;
  }
}

void Parser::FindUnset() {
  for (const Frame& frame : frames_) {
    if (frame.body == nullptr) continue;
    for (const auto& [id, set_first] : frame.set_first) {
      bool outside = !set_first;
      for (int64_t p = frame.parent; p >= 0 && !outside;
           p = frames_[static_cast<size_t>(p)].parent) {
        outside = frames_[static_cast<size_t>(p)].set_first.count(id) != 0;
      }
      if (!outside) frame.body->unset.push_back(id);
    }
  }
}

}  // namespace snug::jinja
