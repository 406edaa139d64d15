// snug convert: a Hugging Face folder as a GGUF file, or a GGUF file as a folder, tensor by tensor
// within the budget.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/progress.h"
#include "cli/args.h"
#include "cli/file_job.h"
#include "cli/interrupt.h"
#include "format/gguf_convert.h"
#include "format/hf_write.h"
#include "model/model.h"
#include "text/tokenizer_files.h"

namespace snug::cli {
namespace {

struct ConvertArgs {
  FileJobArgs job;
  std::string in, out, type = "keep";
  bool json = false, quiet = false;
};

constexpr char kKeep[] = "keep";

struct Written {
  std::string path, format;
  uint64_t resumed = 0;
};

Result<Written> ToGguf(const ConvertArgs& a, const ModelFile& file, FileJob& job) {
  Recipe recipe;
  if (a.type != kKeep) {
    SNUG_ASSIGN(recipe, FindRecipe(a.type));
  }
  const auto type_of = [&](const TensorInfo& t) {
    return a.type == kKeep ? t.type : RecipeType(recipe, file, t);
  };
  uint32_t file_type = a.type == kKeep ? kMixedFileType : FileTypeOf(recipe);
  if (a.type == kKeep) {
    const TensorInfo* embedding = file.Find("token_embd.weight");
    if (embedding != nullptr && embedding->type == DType::kF32) file_type = 0;
    if (embedding != nullptr && embedding->type == DType::kF16) file_type = 1;
    if (embedding != nullptr && embedding->type == DType::kBF16) file_type = 32;
  }
  SNUG_ASSIGN(const GgufPlan plan,
              PlanGguf(file, type_of, file_type, nullptr, job.TokenizerOf(file)));
  Written w{a.out, "GGUF v3", 0};
  Progress progress("converting", ProgressUnit::kBytes, a.quiet || a.json);
  SNUG_TRY(WriteGguf(
      file, plan, a.out, a.type, job.ledger(), job.pool(),
      [&](const WriteProgress& p) {
        w.resumed = p.resumed;
        progress.Update(p.done, p.total);
      },
      &Interrupted()));
  progress.Finish();
  return w;
}

Result<DType> FolderType(const ConvertArgs& a, const ModelFile& file) {
  if (a.type == kKeep) {
    const TensorInfo* embedding = file.Find("token_embd.weight");
    const DType stored = embedding == nullptr ? DType::kF16 : embedding->type;
    return stored == DType::kF32 || stored == DType::kBF16 ? stored : DType::kF16;
  }
  const auto type = ParseDType(a.type);
  if (!type || (*type != DType::kF32 && *type != DType::kF16 && *type != DType::kBF16)) {
    return MakeError(Code::kUsage, fmt::format("'{}' is no type of a folder's weights", a.type),
                     "one of f32, f16, bf16", {{"value", a.type}});
  }
  return *type;
}

Result<Written> ToFolder(const ConvertArgs& a, const ModelFile& file, FileJob& job) {
  SNUG_ASSIGN(const DType type, FolderType(a, file));
  SNUG_ASSIGN(const std::unique_ptr<Model> model, Model::Open(file));
  std::vector<bool> windowed;
  for (const uint32_t w : model->config().window) windowed.push_back(w != 0);
  SNUG_ASSIGN(const HfPlan plan, PlanHfFolder(file, type, windowed));
  std::error_code error;
  std::filesystem::create_directories(a.out, error);
  if (error) {
    return MakeError(Code::kIo, fmt::format("cannot make {}: {}", a.out, error.message()), {},
                     {{"path", a.out}});
  }
  const auto put = [&](const std::string& name, const std::string& text) {
    return WriteFileAtomically(a.out + "/" + name, text.data(), text.size());
  };
  {
    SNUG_ASSIGN(const Reservation texts, job.ReserveTokenizerFiles(file));
    SNUG_ASSIGN(const std::vector<TextFile> files, MakeTokenizerFiles(file, job.ledger()));
    for (const TextFile& f : files) SNUG_TRY(put(f.name, f.content));
  }
  SNUG_TRY(put("generation_config.json", DumpJson(plan.generation, 2)));
  Written w{a.out, "Hugging Face folder", 0};
  Progress progress("converting", ProgressUnit::kBytes, a.quiet || a.json);
  SNUG_TRY(WriteSafetensors(
      file, plan, a.out + "/" + kSafetensorsName, std::string(Info(type).name), job.ledger(),
      job.pool(),
      [&](const WriteProgress& p) {
        w.resumed = p.resumed;
        progress.Update(p.done, p.total);
      },
      &Interrupted()));
  progress.Finish();
  // Last, so that a folder with a config.json is whole.
  SNUG_TRY(put("config.json", DumpJson(plan.config, 2)));
  return w;
}

Result<Json> Convert(const ConvertArgs& a) {
  std::error_code error;
  if (std::filesystem::equivalent(a.in, a.out, error))
    return MakeError(Code::kUsage, fmt::format("{} is the model itself", a.out),
                     "write to another place");
  const bool from_folder = std::filesystem::is_directory(a.in, error);
  const bool to_gguf = from_folder || a.out.ends_with(".gguf");
  if (to_gguf && std::filesystem::is_directory(a.out, error)) {
    return MakeError(Code::kUsage, fmt::format("{} is a folder; a folder becomes a file", a.out),
                     "name the GGUF file to write");
  }
  if (!to_gguf && std::filesystem::exists(a.out + "/config.json", error)) {
    return MakeError(Code::kUsage, fmt::format("{} holds a model already", a.out),
                     "write to another folder");
  }
  SNUG_ASSIGN(FileJob job, FileJob::Start(a.job));
  SNUG_ASSIGN(const std::unique_ptr<ModelFile> file, ModelFile::Open(a.in));
  SNUG_TRY(job.Hold(MetadataBytes(*file), Owner::kVocab, "metadata"));
  SNUG_ASSIGN(const Written w, to_gguf ? ToGguf(a, *file, job) : ToFolder(a, *file, job));
  const std::string weights = to_gguf ? a.out : a.out + "/" + kSafetensorsName;
  return Json{{"path", w.path},
              {"from", file->format()},
              {"to", w.format},
              {"tensors", file->tensors().size()},
              {"bytes", std::filesystem::file_size(weights)},
              {"source_bytes", file->file_bytes()},
              {"resumed_bytes", w.resumed},
              {"memory", job.MemoryJson()}};
}

}  // namespace

void AddConvert(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<ConvertArgs>();
  Verb convert(app, "convert",
               "write a Hugging Face folder as a GGUF file, or a GGUF file as a folder");
  convert.Footer(
      "examples: snug convert Qwen3-0.6B model.gguf --type q8_0\n"
      "          snug convert model-00001-of-00003.gguf whole.gguf\n"
      "          snug convert model.gguf folder --type bf16");
  convert.Add("IN", a->in, "a Hugging Face folder, or a GGUF file").Required();
  convert.Add("OUT", a->out, "the file (NAME.gguf) or folder to write").Required();
  convert
      .Add("--type", a->type,
           "of matrices: as they are (keep), f32, f16, bf16, or for a file what snug "
           "quantize knows (q8_0, q4_k_m, ...)")
      .Default();
  a->job.Add(convert);
  convert.Flag("-q,--quiet", a->quiet, "no progress");
  convert.Flag("--json", a->json, "one JSON object on stdout");
  convert.Callback([a, exit_code] {
    const Result<Json> done = Convert(*a);
    if (!done.ok()) {
      *exit_code = Report(done.error(), a->json);
      return;
    }
    *exit_code = 0;
    if (a->json) {
      fmt::print("{}\n", DumpJson(*done));
      return;
    }
    fmt::print("{}: {}, {}, {} tensors\n", a->out, (*done)["to"].get<std::string>(),
               FormatBytes((*done)["bytes"].get<uint64_t>()), (*done)["tensors"].get<uint64_t>());
  });
}

}  // namespace snug::cli
