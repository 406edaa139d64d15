// snug calibrate: what is measured over a text: which inputs of each matrix matter, which channels
// of the keys, the codebooks of keys and values, or the order of key channels.
#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <filesystem>

#include "base/progress.h"
#include "cli/args.h"
#include "cli/interrupt.h"
#include "engine/calibrate.h"
#include "format/fingerprint.h"
#include "kv/codec/codebooks.h"
#include "kv/codec/key_basis.h"
#include "kv/read/channels.h"

namespace snug::cli {
namespace {

struct CalibrateArgs {
  EngineArgs engine;
  std::string text, out;
  uint32_t chunks = 0;
  bool channels = false, codebooks = false, permutation = false, json = false, quiet = false;
  CodebookOptions training;
  uint32_t heads = 0;

  Observation observes() const {
    return channels      ? Observation::kChannels
           : codebooks   ? Observation::kCodebooks
           : permutation ? Observation::kKeyOrder
                         : Observation::kCalibrate;
  }
};

// Chunks between notes of what is done, for a run that is interrupted.
constexpr uint64_t kNote = 16;

// Beside the text's name, what the sums follow from: an earlier run's are gone on with only where
// all of it is the same.
std::vector<std::string> Sources(const CalibrateArgs& a, const std::string& text) {
  return {a.text, fmt::format("snug: {} {:016x} -c {}", a.engine.model,
                              XXH3_64bits(text.data(), text.size()), a.engine.context)};
}

Status CheckTraining(const CalibrateArgs& a) {
  const CodebookOptions& t = a.training;
  if (t.dims != 2 && t.dims != 4) {
    return MakeError(Code::kUsage, fmt::format("--dims {} is neither 2 nor 4", t.dims), {},
                     {{"option", "--dims"}, {"value", std::to_string(t.dims)}});
  }
  if (t.vectors < kCentroids || t.vectors > kMostVectors) {
    return MakeError(
        Code::kUsage,
        fmt::format("--vectors {} is outside {} .. {}", t.vectors, kCentroids, kMostVectors), {},
        {{"option", "--vectors"}, {"value", std::to_string(t.vectors)}});
  }
  return {};
}

// What a run over the text leaves, where that is no importance matrix: a ranking of channels,
// codebooks, or an order of key channels.
Status WriteArtefact(const CalibrateArgs& a, Engine& engine, uint64_t tokens) {
  SNUG_ASSIGN(const auto file, ModelFile::Open(a.engine.model));
  SNUG_ASSIGN(std::string weights, WeightsFingerprint(*file));
  const MeasuredOn source{std::move(weights), RotarySettings(engine.config().rope), a.text, tokens};
  if (a.channels) return WriteChannels(a.out, engine.channel_statistics()->Rank(), source);
  if (a.permutation) {
    KeyOrder order = engine.key_order_statistics()->Order();
    order.source = source;
    return WriteKeyOrder(a.out, order);
  }
  CodebookTraining& training = *engine.codebook_training();
  if (training.vectors() < kFewVectors) {
    fmt::print(stderr,
               "snug: each book is learnt from {} vectors; {} or more make better ones: a longer "
               "text, or more --chunks\n",
               training.vectors(), kFewVectors);
  }
  Progress progress("learning codebooks", ProgressUnit::kParts, a.quiet || a.json);
  SNUG_TRY(training.Train(engine.pool(), [&](uint32_t done, uint32_t total) {
    progress.Update(done, total);
    return !Interrupted();
  }));
  progress.Finish();
  return WriteCodebooks(a.out, training.books(), source);
}

Result<Json> Calibrate(CalibrateArgs& a) {
  if (a.engine.ContextOrigin() == "default") {
    SNUG_ASSIGN(const auto file, ModelFile::Open(a.engine.model));
    SNUG_ASSIGN(const auto model, Model::Open(*file));
    a.engine.context = std::min(a.engine.context, model->config().trained_context);
  }
  const bool sums = a.observes() == Observation::kCalibrate;  // an importance matrix
  if (a.codebooks) SNUG_TRY(CheckTraining(a));
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  SNUG_ASSIGN(const std::string text, ReadTextWithin(options.budget.bytes, a.text));
  options.plane_head = false;
  options.observe = a.observes();
  options.training = a.training;
  options.transform_heads = a.heads;
  options.caller_bytes = (text.size() + 2) * sizeof(Token);
  Progress loading("reading weights", ProgressUnit::kBytes, a.quiet || a.json);
  options.on_load = [&](uint64_t done, uint64_t total) {
    loading.Update(done, total);
    return !Interrupted();
  };
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  loading.Finish();
  std::vector<Token> tokens;
  tokens.reserve(text.size() + 2);
  engine->tokenizer().Encode(text, {true, false}, &tokens);
  const uint32_t c = engine->options().context;
  const uint64_t fit = tokens.size() / c;
  const uint64_t chunks = a.chunks == 0 ? fit : std::min<uint64_t>(a.chunks, fit);
  if (chunks == 0) {
    return MakeError(
        Code::kBadInput,
        fmt::format("{} has {} tokens, less than one chunk of {}", a.text, tokens.size(), c),
        fmt::format("give -c {} or less", tokens.size()));
  }
  const std::vector<std::string> sources = Sources(a, text);
  const std::string note = a.out + ".part";
  uint64_t first = 0;
  std::error_code error;
  if (sums && std::filesystem::exists(note, error)) {
    const auto earlier = ReadImatrix(note);
    if (earlier.ok() && earlier->datasets == sources && earlier->chunks <= chunks) {
      SNUG_TRY(engine->calibration()->Resume(*earlier));
      first = earlier->chunks;
    }
  }
  const auto result = [&](uint64_t done) {
    return engine->calibration()->Sum(static_cast<uint32_t>(done), c, sources);
  };
  Progress progress("calibrating", ProgressUnit::kTokens, a.quiet || a.json);
  for (uint64_t i = first; i < chunks; ++i) {
    if (Interrupted()) {
      if (sums) SNUG_TRY(WriteImatrix(note, result(i)));
      return Cancelled();
    }
    std::vector<Token> chunk(tokens.begin() + static_cast<std::ptrdiff_t>(i * c),
                             tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * c));
    if (engine->tokenizer().add_bos()) chunk[0] = engine->tokenizer().bos();
    engine->Clear(0);
    for (size_t t = 0; t < chunk.size(); t += engine->plan().chunk) {
      const size_t n = std::min<size_t>(engine->plan().chunk, chunk.size() - t);
      const StepItem item{0, std::span<const Token>(chunk).subspan(t, n), StepItem::Logits::kNone};
      SNUG_TRY(engine->Step({&item, 1}));
    }
    progress.Update((i + 1) * c, chunks * c);
    if (sums && (i + 1) % kNote == 0 && i + 1 < chunks) SNUG_TRY(WriteImatrix(note, result(i + 1)));
  }
  progress.Finish();
  size_t matrices = 0;
  if (!sums) {
    SNUG_TRY(WriteArtefact(a, *engine, chunks * c));
  } else {
    const Imatrix imatrix = result(chunks);
    SNUG_TRY(WriteImatrix(a.out, imatrix));
    std::filesystem::remove(note, error);
    matrices = imatrix.entries.size();
  }
  return Json{{"path", a.out},
              {"matrices", matrices},
              {"chunks", chunks},
              {"chunk_size", c},
              {"resumed_chunks", first},
              {"memory",
               {{"budget", options.budget.bytes},
                {"ledger_peak", engine->ledger().snapshot().total_peak},
                {"rss_peak", ReadProcessMemory().peak_rss}}}};
}

}  // namespace

void AddCalibrate(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<CalibrateArgs>();
  a->engine.context = 512;
  Verb calibrate(app, "calibrate", "measure which inputs of each matrix matter, over a text");
  calibrate.Footer(
      "examples: snug calibrate model.gguf --text book.txt -o imatrix.gguf\n"
      "          snug calibrate model.gguf "
      "--text book.txt --channels -o channels.json\n"
      "          snug calibrate model.gguf "
      "--text book.txt --codebooks -o books.safetensors\n"
      "          snug calibrate model.gguf "
      "--text book.txt --permutation -o permutation.json");
  a->engine.Add(calibrate);
  calibrate.Add("--text,-f,--file", a->text, "the text, in chunks of -c tokens").Required();
  calibrate
      .Add("-o,--output", a->out,
           "the importance matrix, the ranking, the codebooks or the permutation to write")
      .Required();
  const Option channels =
      calibrate.Flag("--channels", a->channels,
                     "rank the channels of the keys instead, for --kv-read double-sparsity");
  const Option codebooks = calibrate
                               .Flag("--codebooks", a->codebooks,
                                     "learn codebooks of keys and values instead, for --kv million")
                               .Excludes(channels);
  calibrate.Add("--dims", a->training.dims, "channels that share a code: 2 or 4")
      .Default()
      .Needs(codebooks);
  calibrate.Flag("--global", a->training.global, "one pair of codebooks for all layers")
      .Needs(codebooks);
  calibrate
      .Add("--vectors", a->training.vectors,
           "keys and values that a codebook is learnt from, at most")
      .Default()
      .Needs(codebooks);
  const Option permutation =
      calibrate
          .Flag("--permutation", a->permutation,
                "order the channels of the keys by their means instead, for --kv rotatekv")
          .Excludes(channels)
          .Excludes(codebooks);
  calibrate
      .Add("--heads", a->heads,
           "KV heads that a transform covers (0: 4, or as many as divide them)")
      .Default()
      .Needs(permutation);
  calibrate.Add("--chunks", a->chunks, "chunks to use (0: all)").Default();
  calibrate.Flag("-q,--quiet", a->quiet, "no progress");
  calibrate.Flag("--json", a->json, "one JSON object on stdout");
  calibrate.Callback([a, exit_code] {
    const Result<Json> done = Calibrate(*a);
    if (!done.ok()) {
      *exit_code = Report(done.error(), a->json);
      return;
    }
    *exit_code = 0;
    if (a->json) {
      fmt::print("{}\n", DumpJson(*done));
    } else {
      const auto matrices = (*done)["matrices"].get<uint64_t>();
      fmt::print("{}: {} over {} chunks of {} tokens\n", a->out,
                 a->channels      ? "channels ranked"
                 : a->codebooks   ? "codebooks learnt"
                 : a->permutation ? "key channels ordered"
                                  : fmt::format("{} matrices", matrices),
                 (*done)["chunks"].get<uint64_t>(), (*done)["chunk_size"].get<uint64_t>());
    }
  });
}

}  // namespace snug::cli
