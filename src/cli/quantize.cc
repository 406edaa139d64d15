// snug quantize: a model's weights in fewer bits, row by row within the budget.
#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/file.h"
#include "base/progress.h"
#include "cli/args.h"
#include "cli/file_job.h"
#include "cli/interrupt.h"
#include "engine/sensitivity.h"
#include "engine/weight_probe.h"
#include "format/imatrix.h"
#include "format/recipe.h"

namespace snug::cli {
namespace {

struct QuantizeArgs {
  FileJobArgs job;
  std::string in, out, type = "q4_k_m", imatrix, target, text;
  uint32_t segments = 4, probes = 60;
  bool json = false, quiet = false;
};

// Of the text that sensitivity is measured on.
constexpr uint64_t kMaxSensitivityText = 1 << 20;
// Beside the weights: names, keys and padding that are estimated before the header is made.
constexpr uint64_t kHeaderSlack = 64 << 10;
constexpr uint64_t kMaxNote = 1 << 20;

// --- measured sensitivity, noted beside the output after every segment

std::string NotePath(const QuantizeArgs& a) { return a.out + ".sensitivity.json"; }

std::string NoteIdentity(const ModelFile& file, const std::string& text, size_t groups) {
  return fmt::format("{} {} {:016x} {} {}", file.path(), file.file_bytes(),
                     XXH3_64bits(text.data(), text.size()), kSegmentTokens, groups);
}

// Segments that an earlier run has measured; fills the groups' divergences.
uint32_t ReadNote(const QuantizeArgs& a, const std::string& identity,
                  std::vector<ProbeGroup>* groups) {
  const auto text = ReadWholeFile(NotePath(a), kMaxNote);
  if (!text.ok()) return 0;
  const auto note = ParseJson(*text, NotePath(a));
  if (!note.ok() || !note->is_object() || note->value("identity", "") != identity) return 0;
  const auto segments = note->find("segments"), values = note->find("divergence");
  if (segments == note->end() || !segments->is_number_unsigned() || values == note->end() ||
      !values->is_array() || values->size() != groups->size() ||
      !std::all_of(values->begin(), values->end(), [](const Json& v) { return v.is_number(); }))
    return 0;
  for (size_t i = 0; i < groups->size(); ++i) (*groups)[i].divergence = (*values)[i].get<double>();
  return segments->get<uint32_t>();
}

Status WriteNote(const QuantizeArgs& a, const std::string& identity, uint32_t segments,
                 const std::vector<ProbeGroup>& groups) {
  Json values = Json::array();
  for (const ProbeGroup& g : groups) values.push_back(g.divergence);
  const std::string text =
      DumpJson({{"identity", identity}, {"segments", segments}, {"divergence", values}});
  return WriteFileAtomically(NotePath(a), text.data(), text.size());
}

// Runs the model and measures every group; the engine is gone when it returns.
Result<std::vector<ProbeGroup>> Measure(const QuantizeArgs& a, const Budget& budget) {
  SNUG_ASSIGN(const std::string text, ReadText(a.text, kMaxSensitivityText));
  EngineOptions options;
  options.model_path = a.in;
  options.budget = budget;
  options.threads = a.job.threads;
  options.context = options.chunk = kSegmentTokens;
  options.logit_rows = WeightProbe::kRows;
  options.plane_head = false;
  options.observe = Observation::kProbe;
  options.caller_bytes = (text.size() + 2) * sizeof(Token);
  Progress loading("reading weights", ProgressUnit::kBytes, a.quiet || a.json);
  options.on_load = [&](uint64_t done, uint64_t total) {
    loading.Update(done, total);
    return !Interrupted();
  };
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  loading.Finish();
  std::vector<ProbeGroup> groups = MakeProbeGroups(engine->file(), a.probes);
  std::vector<Token> tokens;
  tokens.reserve(text.size() + 2);
  engine->tokenizer().Encode(text, {true, false}, &tokens);
  if (tokens.size() < uint64_t{a.segments} * kSegmentTokens) {
    return MakeError(Code::kBadInput,
                     fmt::format("{} has {} tokens, {} segments need {}", a.text, tokens.size(),
                                 a.segments, a.segments * kSegmentTokens),
                     "give a longer text or fewer --segments");
  }
  const std::string identity = NoteIdentity(engine->file(), text, groups.size());
  uint32_t segment = ReadNote(a, identity, &groups);
  Progress measuring("measuring sensitivity", ProgressUnit::kTokens, a.quiet || a.json);
  const uint64_t total = uint64_t{a.segments} * (groups.size() + 1) * kSegmentTokens;
  for (; segment < a.segments; ++segment) {
    const size_t at = segment * (tokens.size() - kSegmentTokens) / std::max(1u, a.segments - 1);
    SNUG_TRY(MeasureSegment(
        *engine,
        std::span<const Token>(tokens).subspan(std::min(at, tokens.size() - kSegmentTokens),
                                               kSegmentTokens),
        &groups,
        [&](size_t done, size_t of) {
          measuring.Update((segment * of + done) * kSegmentTokens, total);
        },
        &Interrupted()));
    SNUG_TRY(WriteNote(a, identity, segment + 1, groups));
  }
  return groups;
}

// --- the writing

Result<Json> Quantize(const QuantizeArgs& a) {
  std::error_code error;
  if (std::filesystem::equivalent(a.in, a.out, error)) {
    return MakeError(Code::kUsage, fmt::format("{} is the model itself", a.out),
                     "write to another file");
  }
  if (a.target.empty() != a.text.empty()) {
    return MakeError(Code::kUsage, "--target-size and --text go together",
                     "--text is what sensitivity is measured on");
  }
  SNUG_ASSIGN(const Recipe recipe, FindRecipe(a.type));
  std::vector<ProbeGroup> groups;
  uint64_t target = 0;
  if (!a.target.empty()) {
    SNUG_ASSIGN(target, ParseBytes(a.target));
    SNUG_ASSIGN(const Budget budget, ParseBudget(a.job.memory, MemoryBounds()));
    SNUG_ASSIGN(groups, Measure(a, budget));
  }
  SNUG_ASSIGN(FileJob job, FileJob::Start(a.job));
  SNUG_ASSIGN(const std::unique_ptr<ModelFile> file, ModelFile::Open(a.in));
  SNUG_TRY(job.Hold(MetadataBytes(*file), Owner::kVocab, "metadata"));
  Importance importance;
  if (!a.imatrix.empty()) {
    SNUG_ASSIGN(const Imatrix imatrix, ReadImatrix(a.imatrix));
    SNUG_TRY(job.Hold(2 * BytesOf(imatrix), Owner::kScratch, "importance"));
    importance = ImportanceOf(imatrix);
  }
  const Importance* weigh = importance.empty() ? nullptr : &importance;
  std::map<std::string, DType> chosen;
  if (target != 0) {
    uint64_t kept = MetadataBytes(*file) / 3 + kHeaderSlack;
    for (const TensorInfo& t : file->tensors())
      if (!Quantizable(t)) kept += t.rows() * t.cols() * sizeof(float);
    SNUG_ASSIGN(chosen, ChooseTypes(*file, groups, weigh, target > kept ? target - kept : 0,
                                    job.ledger(), job.pool()));
  }
  const auto type_of = [&](const TensorInfo& t) {
    const auto it = chosen.find(t.name);
    return it != chosen.end() ? it->second : RecipeType(recipe, *file, t);
  };
  std::string choices;
  for (const auto& [name, type] : chosen) choices += fmt::format("{}={} ", name, Info(type).name);
  SNUG_ASSIGN(const GgufPlan plan,
              PlanGguf(*file, type_of, target != 0 ? kMixedFileType : FileTypeOf(recipe), weigh,
                       job.TokenizerOf(*file)));
  uint64_t weights = 0, bytes = 0, resumed = 0;
  std::map<std::string, uint64_t> types;  // bytes by type
  for (const GgufTensorSpec& s : plan.specs) {
    weights += s.dims[0] * s.dims[1] * s.dims[2] * s.dims[3];
    bytes += s.bytes();
    types[std::string(Info(s.type).name)] += s.bytes();
  }
  Progress progress("quantizing", ProgressUnit::kBytes, a.quiet || a.json);
  SNUG_TRY(WriteGguf(
      *file, plan, a.out, fmt::format("{} {} {}", recipe.name, a.imatrix, choices), job.ledger(),
      job.pool(),
      [&](const WriteProgress& p) {
        resumed = p.resumed;
        progress.Update(p.done, p.total);
      },
      &Interrupted()));
  progress.Finish();
  if (target != 0) std::filesystem::remove(NotePath(a), error);
  return Json{{"path", a.out},
              {"type", target != 0 ? "chosen by sensitivity" : recipe.name},
              {"bytes", std::filesystem::file_size(a.out)},
              {"source_bytes", file->file_bytes()},
              {"bits_per_weight", 8.0 * static_cast<double>(bytes) / static_cast<double>(weights)},
              {"types", types},
              {"resumed_bytes", resumed},
              {"memory", job.MemoryJson()}};
}

}  // namespace

void AddQuantize(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<QuantizeArgs>();
  Verb quantize(app, "quantize", "write a model's weights in fewer bits");
  quantize.Footer(
      "examples: snug quantize model-f16.gguf model.gguf --type q4_k_m --imatrix imatrix.gguf\n"
      "          snug quantize model-f16.gguf model.gguf --target-size 900MiB --text book.txt");
  quantize.Add("IN", a->in, "the model, a GGUF file or a Hugging Face folder").Required();
  quantize.Add("OUT", a->out, "the GGUF file to write").Required();
  quantize.Add("--type", a->type, "a mix (q4_k_m, q3_k_m, q2_k, ...) or one type for all")
      .Default();
  quantize.Add("--imatrix", a->imatrix,
               "importance of inputs, from snug calibrate or llama-imatrix");
  quantize.Add("--target-size", a->target,
               "types for each tensor, by measured sensitivity, for a file of this size");
  quantize.Add("--text", a->text, "the text that sensitivity is measured on");
  quantize.Add("--segments", a->segments, "pieces of the text to measure on")
      .Range(1, 1024)
      .Default();
  quantize.Add("--probes", a->probes, "about so many groups of matrices are measured")
      .Range(1, 100000)
      .Default();
  a->job.Add(quantize);
  quantize.Flag("-q,--quiet", a->quiet, "no progress");
  quantize.Flag("--json", a->json, "one JSON object on stdout");
  quantize.Callback([a, exit_code] {
    const Result<Json> done = Quantize(*a);
    if (!done.ok()) {
      *exit_code = Report(done.error(), a->json);
      return;
    }
    *exit_code = 0;
    const Json& j = *done;
    if (a->json) {
      fmt::print("{}\n", DumpJson(j));
      return;
    }
    fmt::print("{}: {}, {} of {}, {:.2f} bits a weight\n", a->out, j["type"].get<std::string>(),
               FormatBytes(j["bytes"].get<uint64_t>()),
               FormatBytes(j["source_bytes"].get<uint64_t>()), j["bits_per_weight"].get<double>());
  });
}

}  // namespace snug::cli
