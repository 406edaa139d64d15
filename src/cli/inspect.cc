// snug inspect: what a model file holds.
#include <fmt/format.h>

#include <map>

#include "cli/args.h"

namespace snug::cli {
namespace {

Status Inspect(const std::string& path, bool tensors, bool json) {
  SNUG_ASSIGN(const std::unique_ptr<ModelFile> file, ModelFile::Open(path));
  std::map<std::string, std::pair<uint64_t, uint64_t>> types;  // count, bytes
  for (const TensorInfo& t : file->tensors()) {
    auto& [count, bytes] = types[std::string(Info(t.type).name)];
    ++count;
    bytes += t.bytes;
  }
  if (json) {
    Json out = {{"path", path},
                {"format", file->format()},
                {"bytes", file->file_bytes()},
                {"metadata", Json::object()},
                {"types", Json::object()}};
    for (const auto& k : file->Describe(4096)) out["metadata"][k.key] = k.value;
    for (const auto& [name, n] : types)
      out["types"][name] = {{"tensors", n.first}, {"bytes", n.second}};
    if (tensors) {
      out["tensors"] = Json::array();
      for (const TensorInfo& t : file->tensors()) {
        out["tensors"].push_back({{"name", t.name},
                                  {"type", Info(t.type).name},
                                  {"rows", t.rows()},
                                  {"cols", t.cols()},
                                  {"bytes", t.bytes}});
      }
    }
    fmt::print("{}\n", DumpJson(out));
    return {};
  }
  fmt::print("{}: {}, {}, {} tensors\n", path, file->format(), FormatBytes(file->file_bytes()),
             file->tensors().size());
  for (const auto& k : file->Describe(80))
    fmt::print("  {:<48} {:<7} {}\n", Printable(k.key), k.type, Printable(k.value));
  for (const auto& [name, n] : types)
    fmt::print("  {:<6} {:>5} tensors {:>11}\n", name, n.first, FormatBytes(n.second));
  if (tensors) {
    for (const TensorInfo& t : file->tensors()) {
      fmt::print("  {:<40} {:<6} {} x {}\n", Printable(t.name), Info(t.type).name, t.rows(),
                 t.cols());
    }
  }
  return {};
}

}  // namespace

void AddInspect(CLI::App& app, int* exit_code) {
  struct InspectArgs {
    std::string model;
    bool json = false, tensors = false;
  };
  auto a = std::make_shared<InspectArgs>();
  Verb inspect(app, "inspect", "list a file's metadata and tensors");
  inspect.Add("MODEL,-m,--model", a->model, "a GGUF file").Required();
  inspect.Flag("--tensors", a->tensors, "every tensor with its type and shape");
  inspect.Flag("--json", a->json, "one JSON object on stdout");
  inspect.Callback([a, exit_code] {
    const Status s = Inspect(a->model, a->tensors, a->json);
    *exit_code = s.ok() ? 0 : Report(s.error(), a->json);
  });
}

}  // namespace snug::cli
