#include "base/status.h"

namespace snug {

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kUsage:
      return "usage";
    case Code::kBadFile:
      return "bad_file";
    case Code::kBadInput:
      return "bad_input";
    case Code::kDoesNotFit:
      return "does_not_fit";
    case Code::kCancelled:
      return "cancelled";
    case Code::kIo:
      return "io";
  }
  return "io";
}

int ExitCode(Code code) {
  switch (code) {
    case Code::kUsage:
      return 2;
    case Code::kBadFile:
    case Code::kBadInput:
    case Code::kIo:
      return 3;
    case Code::kDoesNotFit:
      return 4;
    case Code::kCancelled:
      return 5;
  }
  return 3;
}

Error MakeError(Code code, std::string message, std::string next,
                std::vector<std::pair<std::string, std::string>> values) {
  return Error{code, std::move(message), std::move(next), std::move(values)};
}

}  // namespace snug
