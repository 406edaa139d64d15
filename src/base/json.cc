#include "base/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

namespace snug {
namespace {

// Checks depth and duplicate keys while the text streams by, before any value is built.
class Checker : public nlohmann::json_sax<Json> {
 public:
  explicit Checker(int depth) : limit_(depth) {}
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return Deeper();
  }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    error_ = fmt::format("key '{}' appears twice", name);
    return false;
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override { return Deeper(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    error_ = fmt::format("at byte {}: {}", position, e.what());
    return false;
  }
  const std::string& error() const { return error_; }

 private:
  bool Deeper() {
    if (++depth_ <= limit_) return true;
    error_ = fmt::format("nested deeper than {}", limit_);
    return false;
  }
  int limit_, depth_ = 0;
  std::vector<std::set<std::string>> keys_;
  std::string error_;
};

}  // namespace

Result<Json> ParseJson(std::string_view text, std::string_view what, const JsonLimits& limits) {
  auto bad = [&](const std::string& message) {
    return MakeError(Code::kBadInput, fmt::format("{} is no valid JSON: {}", what, message), {},
                     {{"source", std::string(what)}});
  };
  if (text.size() > limits.bytes)
    return bad(fmt::format("{} bytes, more than {}", text.size(), limits.bytes));
  Checker checker(limits.depth);
  if (!Json::sax_parse(text.begin(), text.end(), &checker)) return bad(checker.error());
  Json json = Json::parse(text.begin(), text.end(), nullptr, false);
  if (json.is_discarded()) return bad("unreadable");
  return json;
}

std::string DumpJson(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace snug
