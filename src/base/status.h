// Typed errors for everything that a user, file, request or budget can cause. A broken invariant of
// ours is an assert instead; the two are never mixed.
#pragma once

#include <cassert>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace snug {

enum class Code : uint8_t {
  kUsage,       // a flag or argument is wrong
  kBadFile,     // a file is missing, truncated, malformed or of an unsupported kind
  kBadInput,    // a prompt, request or template is wrong
  kDoesNotFit,  // the budget or the context is too small
  kCancelled,   // the user interrupted
  kIo,          // the system refused a read, a write or an allocation
};

// "usage", "bad_file", ... as printed with --json.
std::string_view CodeName(Code code);
// The program's exit code: 2 usage, 3 file, input or I/O, 4 does not fit, 5 cancelled.
int ExitCode(Code code);

struct Error {
  Code code = Code::kBadInput;
  std::string message;  // what is wrong, with the values
  std::string next;     // what the user can do about it; may be empty
  std::vector<std::pair<std::string, std::string>> values;  // the values again, for --json
};

Error MakeError(Code code, std::string message, std::string next = {},
                std::vector<std::pair<std::string, std::string>> values = {});

// A value or an Error.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Error error)
      : v_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit by design
  bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    assert(ok());
    return *std::get_if<0>(&v_);
  }
  const T& value() const& {
    assert(ok());
    return *std::get_if<0>(&v_);
  }
  T&& value() && {
    assert(ok());
    return std::move(*std::get_if<0>(&v_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const& {
    assert(!ok());
    return *std::get_if<1>(&v_);
  }
  Error&& error() && {
    assert(!ok());
    return std::move(*std::get_if<1>(&v_));
  }

 private:
  std::variant<T, Error> v_;
};

// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT: implicit by design
  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const Error& error() const& {
    assert(!ok_);
    return error_;
  }
  Error&& error() && {
    assert(!ok_);
    return std::move(error_);
  }

 private:
  Error error_;
  bool ok_ = true;
};

#define SNUG_CONCAT_(a, b) a##b
#define SNUG_CONCAT(a, b) SNUG_CONCAT_(a, b)
// Returns the error of a Status or Result expression, if it has one.
#define SNUG_TRY(expr)                                                                       \
  do {                                                                                       \
    if (auto snug_status = (expr); !snug_status.ok()) return std::move(snug_status).error(); \
  } while (0)
// SNUG_ASSIGN(auto x, F()): declares x from a Result's value or returns its error.
#define SNUG_ASSIGN(decl, expr)                                    \
  auto SNUG_CONCAT(snug_result_, __LINE__) = (expr);               \
  if (!SNUG_CONCAT(snug_result_, __LINE__).ok())                   \
    return std::move(SNUG_CONCAT(snug_result_, __LINE__)).error(); \
  decl = std::move(SNUG_CONCAT(snug_result_, __LINE__)).value()

}  // namespace snug
