// The functions that every template can call.
#include "text/jinja/builtins.h"
#include "text/jinja/dict.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"

namespace snug::jinja {
namespace {

Result<Value> MakeRange(Runtime& rt, const Value&, const Args& args) {
  constexpr int64_t kMost = 100000;  // as jinja2's sandbox has it
  SNUG_ASSIGN(const Params p, Params::Bind("range", args, {"/start", "/stop", "/step"}, 1));
  SNUG_ASSIGN(int64_t start, p.Int(0, 0));
  SNUG_ASSIGN(int64_t stop, p.Int(1, 0));
  SNUG_ASSIGN(const int64_t step, p.Int(2, 1));
  if (!p.has(1)) {
    stop = start;
    start = 0;
  }
  if (step == 0) return Fail("range(): the step must not be zero");
  // Unsigned, for the distance may be all of 64 bits.
  const bool any = step > 0 ? start < stop : start > stop;
  const uint64_t from = static_cast<uint64_t>(start), to = static_cast<uint64_t>(stop);
  const uint64_t distance = step > 0 ? to - from : from - to;
  const uint64_t by = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  const uint64_t size = any ? (distance - 1) / by + 1 : 0;
  if (size > static_cast<uint64_t>(kMost)) {
    return Fail(fmt::format("range(): {} items are more than {}", size, kMost));
  }
  return rt.NewRange(start, stop, step, static_cast<int64_t>(size));
}

Result<Ref<Dict>> BuildDict(Runtime& rt, const Args& args) {
  if (args.positional.size() > 1) return Fail("dict() takes one positional argument at most");
  const Ref<Dict> dict = NewDict(rt);
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is(Kind::kDict)) {
      for (const Dict::Entry& e : from.dict().entries) {
        SNUG_TRY(DictSet(rt, *dict, e.key, e.value));
      }
    } else {
      SNUG_TRY(ForEach(rt, from, [&](const Value& item) -> Status {
        SNUG_ASSIGN(const std::vector<Value> pair, ToVector(rt, item));
        if (pair.size() != 2) return Fail("dict() wants pairs of a key and a value");
        return DictSet(rt, *dict, pair[0], pair[1]);
      }));
    }
  }
  for (const auto& [name, value] : args.named) {
    if (!rt.Spend()) return rt.Exhausted();
    DictSetText(rt, *dict, name, value);
  }
  return dict;
}

Result<Value> MakeDict(Runtime& rt, const Value&, const Args& args) {
  SNUG_ASSIGN(const Ref<Dict> dict, BuildDict(rt, args));
  return ToValue(dict);
}

Result<Value> MakeNamespace(Runtime& rt, const Value&, const Args& args) {
  SNUG_ASSIGN(Ref<Dict> attributes, BuildDict(rt, args));
  const Ref<Namespace> ns = rt.heap.New<Namespace>(0);
  ns->attributes = std::move(attributes);
  return Value(Kind::kNamespace, ns.get());
}

class Cycler : public Special {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  void Clear() override { items_.clear(); }
  std::string_view type() const override { return "Cycler"; }
  Result<std::optional<Value>> Attribute(Runtime& rt, std::string_view name) override {
    const Value self(Kind::kSpecial, this);
    if (name == "current") return std::optional(items_[at_]);
    if (name == "pos") return std::optional(Value::Int(static_cast<int64_t>(at_)));
    if (name == "next") {
      return std::optional(NewFunction(
          rt,
          [](Runtime&, const Value& v, const Args&) -> Result<Value> {
            auto& cycler = static_cast<Cycler&>(v.special());
            const size_t at = cycler.at_;
            cycler.at_ = (at + 1) % cycler.items_.size();
            return cycler.items_[at];
          },
          self));
    }
    if (name == "reset") {
      return std::optional(NewFunction(
          rt,
          [](Runtime&, const Value& v, const Args&) -> Result<Value> {
            static_cast<Cycler&>(v.special()).at_ = 0;
            return Value();
          },
          self));
    }
    return std::optional<Value>();
  }

 private:
  std::vector<Value> items_;
  size_t at_ = 0;
};

Result<Value> MakeCycler(Runtime& rt, const Value&, const Args& args) {
  if (args.positional.empty()) return Fail("cycler() needs at least one item");
  return Value(Kind::kSpecial,
               rt.heap.New<Cycler>(args.positional.size() * sizeof(Value), args.positional).get());
}

class Joiner : public Special {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  void Clear() override { separator_ = Value(); }
  std::string_view type() const override { return "Joiner"; }
  bool callable() const override { return true; }
  Result<Value> Call(Runtime& rt, const Args& args) override {
    SNUG_TRY(Params::Bind("joiner", args, {}));
    if (std::exchange(used_, true)) return separator_;
    return rt.NewString("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

Result<Value> MakeJoiner(Runtime& rt, const Value&, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("joiner", args, {"sep"}));
  const Value separator = p.has(0) ? p[0] : rt.NewString(", ");
  return Value(Kind::kSpecial, rt.heap.New<Joiner>(0, separator).get());
}

Result<Value> RaiseException(Runtime& rt, const Value&, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("raise_exception", args, {"message"}, 1));
  SNUG_ASSIGN(const std::string message, TextWithin(rt, false, p[0]));
  constexpr size_t kMost = 2000;  // bytes that an error shows
  return Fail("the template refuses this conversation: " + message.substr(0, kMost));
}

// One conversion of strftime, such as %d or %-d.
Status AppendTime(const std::tm& now, std::string_view conversion, Text* out) {
  if (conversion.back() == 'f') {  // Python's microseconds
    out->Append("000000");
    return {};
  }
  const bool zone = conversion.back() == 'z' || conversion.back() == 'Z';
  if (zone) return {};  // Python's local time names no zone
  char buffer[256];
  const size_t n = std::strftime(buffer, sizeof buffer, std::string(conversion).c_str(), &now);
  out->Append(std::string_view(buffer, n));
  return {};
}

Result<Value> StrftimeNow(Runtime& rt, const Value&, const Args& args) {
  SNUG_ASSIGN(const Params p, Params::Bind("strftime_now", args, {"format"}, 1));
  SNUG_ASSIGN(const std::string_view format, p.String(0, ""));
  if (!rt.SpendOn(16 * format.size())) return rt.Exhausted();
  Text out(rt);
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      out.Append(format[at++]);
      continue;
    }
    // glibc's flags, then one letter. Widths are left out: they could ask for any length.
    size_t end = at + 1;
    while (end < format.size() &&
           std::string_view("-_0^#EO").find(format[end]) != std::string_view::npos) {
      ++end;
    }
    if (end >= format.size()) {
      out.Append(format.substr(at));
      break;
    }
    SNUG_TRY(AppendTime(rt.now, format.substr(at, end + 1 - at), &out));
    at = end + 1;
  }
  return out.Finish();
}

Result<Value> Lipsum(Runtime&, const Value&, const Args&) {
  return Fail("lipsum() is random, which no template may be");
}

}  // namespace

Builtin FindGlobal(std::string_view name) {
  constexpr struct {
    std::string_view name;
    Builtin function;
  } kGlobals[] = {
      {"cycler", MakeCycler},       {"dict", MakeDict},
      {"joiner", MakeJoiner},       {"lipsum", Lipsum},
      {"namespace", MakeNamespace}, {"raise_exception", RaiseException},
      {"range", MakeRange},         {"strftime_now", StrftimeNow},
  };
  for (const auto& g : kGlobals) {
    if (g.name == name) return g.function;
  }
  return nullptr;
}

}  // namespace snug::jinja
