// snug eval: logits of given tokens, perplexity of a text, divergence from a reference.
#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "base/progress.h"
#include "cli/args.h"
#include "cli/interrupt.h"
#include "cli/results.h"
#include "format/fingerprint.h"
#include "format/safetensors.h"
#include "kernel/targets.h"

namespace snug::cli {
namespace {

struct EvalArgs {
  EngineArgs engine;
  std::string tokens, logits, text, save_reference, reference, results;
  uint32_t chunks = 0;
  std::optional<uint32_t> prefix;
  uint32_t follow = 512;
  bool json = false;
};

constexpr uint32_t kRows = 64;  // rows of logits computed at once

// Log of the sum of exponentials, in double.
double LogSum(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float l : logits) sum += std::exp(l - max);
  return max + std::log(sum);
}

// Sums over the scored positions.
struct Score {
  double nll = 0, kl = 0, kl_max = 0;
  uint64_t tokens = 0, compared = 0, same_top = 0;

  void Compare(std::span<const float> logits, std::span<const float> reference) {
    const double a = LogSum(reference), b = LogSum(logits);
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double p = reference[i] - a;
      sum += std::exp(p) * (p - (logits[i] - b));
    }
    kl += sum;
    kl_max = std::max(kl_max, sum);
    const auto top = [](std::span<const float> x) {
      return std::max_element(x.begin(), x.end()) - x.begin();
    };
    same_top += top(logits) == top(reference) ? 1 : 0;
    ++compared;
  }
};

class Evaluation {
 public:
  Evaluation(Engine& engine, const EvalArgs& args) : engine_(engine), args_(args) {}

  Status Open(uint64_t rows) {
    const uint64_t vocab = engine_.config().vocab;
    const std::string& out = args_.logits.empty() ? args_.save_reference : args_.logits;
    if (!out.empty()) {
      SNUG_ASSIGN(SafetensorsWriter w, SafetensorsWriter::Create(out, {{"logits", {rows, vocab}}}));
      writer_.emplace(std::move(w));
    }
    if (args_.reference.empty()) return {};
    SNUG_ASSIGN(SafetensorsFile f, SafetensorsFile::Open(args_.reference));
    const SafetensorInfo* t = f.Find("logits");
    if (t == nullptr || t->dtype != "F32" || t->shape != std::vector<uint64_t>{rows, vocab}) {
      return MakeError(
          Code::kBadFile,
          fmt::format("{} holds no reference of {} x {} logits", args_.reference, rows, vocab),
          "make it with --save-reference and the same text, -c and --chunks");
    }
    reference_.emplace(std::move(f));
    offset_ = reference_->Find("logits")->offset;
    row_.resize(vocab);
    return {};
  }

  // Runs a chunk and scores the predictions of tokens[first_scored ..].
  Status Chunk(std::span<const Token> tokens, size_t first_scored) {
    engine_.Clear(0);
    for (size_t i = 0; i < tokens.size(); i += kRows) {
      if (Interrupted()) return Cancelled();
      const size_t n = std::min<size_t>(kRows, tokens.size() - i);
      const StepItem item{0, tokens.subspan(i, n), StepItem::Logits::kAll};
      SNUG_TRY(engine_.Step({&item, 1}));
      for (size_t t = 0; t < n; ++t) SNUG_TRY(Row(tokens, i + t, first_scored, engine_.logits(t)));
    }
    return {};
  }

  // Reads a prefix as a prompt, then scores what follows it token by token: predictions that come
  // from the cache as the prompt left it. The prompt's own last one is not scored, its attention
  // having seen every row.
  Status Continuation(std::span<const Token> tokens, uint32_t prefix) {
    engine_.Clear(0);
    const auto go_on = [](uint32_t, uint32_t) { return !Interrupted(); };
    SNUG_TRY(engine_.Prefill(0, tokens.first(prefix), go_on));
    for (size_t i = prefix; i + 1 < tokens.size(); ++i) {
      if (Interrupted()) return Cancelled();
      const StepItem item{0, tokens.subspan(i, 1), StepItem::Logits::kLast};
      SNUG_TRY(engine_.Step({&item, 1}));
      SNUG_TRY(Row(tokens, i, prefix + 1, engine_.logits(0)));
    }
    return {};
  }

  Result<Score> Finish() {
    if (writer_) SNUG_TRY(writer_->Finish());
    return score_;
  }

 private:
  Status Row(std::span<const Token> tokens, size_t i, size_t first_scored,
             std::span<const float> logits) {
    const bool all = !args_.tokens.empty();
    if (!all && (i + 1 < first_scored || i + 1 >= tokens.size())) return {};
    if (i + 1 < tokens.size()) {
      score_.nll += LogSum(logits) - logits[static_cast<size_t>(tokens[i + 1])];
      ++score_.tokens;
    }
    if (writer_) SNUG_TRY(writer_->Append(logits.data(), logits.size()));
    if (!reference_) return {};
    SNUG_TRY(reference_->file().ReadAt(offset_, row_.data(), row_.size() * sizeof(float)));
    offset_ += row_.size() * sizeof(float);
    score_.Compare(logits, row_);
    return {};
  }

  Engine& engine_;
  const EvalArgs& args_;
  std::optional<SafetensorsWriter> writer_;
  std::optional<SafetensorsFile> reference_;
  std::vector<float> row_;
  uint64_t offset_ = 0;
  Score score_;
};

Status CheckContinuation(const EvalArgs& a) {
  if (a.text.empty() || *a.prefix < 1 || a.follow < 1 || *a.prefix > kTrainedContext / 2 ||
      a.follow > kTrainedContext / 2) {
    return MakeError(
        Code::kUsage,
        fmt::format("--prefix {} and --continue {} cannot be scored", *a.prefix, a.follow),
        "give --text, and one token or more of both");
  }
  return {};
}

Result<EvaluationKey> KeyOf(const EvalArgs& a, const EngineOptions& options,
                            std::string_view text) {
  EvaluationKey key;
  {
    SNUG_ASSIGN(const auto file, ModelFile::Open(options.model_path));
    SNUG_ASSIGN(key.weights, WeightsFingerprint(*file));
  }
  SNUG_ASSIGN(const MemoryPlan plan, PlanFile(options));
  SNUG_ASSIGN(key.cache, CacheName(options, plan));
  if (!options.weights.empty()) key.cache += " --weights " + options.weights;
  key.text = fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
  if (!a.reference.empty()) {
    SNUG_ASSIGN(key.reference, HashOfEnds(a.reference));
  }
  ChooseTarget();
  key.target = KernelTarget();
  key.version = SNUG_VERSION;
  key.context = options.context;
  key.prefix = a.prefix.value_or(0);
  key.chunks = a.chunks;
  return key;
}

void Show(const EvalArgs& a, const EvaluationRecord& r, bool known) {
  Json out = {{"ppl", std::exp(r.nll)}, {"nll", r.nll}, {"tokens", r.tokens}};
  if (r.kl_mean) out["kl_mean"] = *r.kl_mean;
  if (r.kl_max) out["kl_max"] = *r.kl_max;
  if (r.top1) out["top1"] = *r.top1;
  if (r.kv_held) out["kv_held"] = *r.kv_held;
  if (known) out["known"] = true;
  if (a.json) {
    fmt::print("{}\n", DumpJson(out));
  } else {
    for (const auto& [key, value] : out.items()) fmt::print("{:<8} {}\n", key, DumpJson(value));
  }
}

Result<EvaluationRecord> Measure(const EvalArgs& a, EngineOptions options, std::string_view text,
                                 std::vector<Token> tokens) {
  Progress loading("reading weights", ProgressUnit::kBytes, false);
  options.on_load = [&](uint64_t done, uint64_t total) {
    loading.Update(done, total);
    return !Interrupted();
  };
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(options));
  loading.Finish();
  Evaluation evaluation(*engine, a);
  if (!a.tokens.empty()) {
    SNUG_TRY(evaluation.Open(tokens.size()));
    SNUG_TRY(evaluation.Chunk(tokens, 1));
  } else {
    tokens.reserve(text.size() + 2);  // a token stands for a byte or more
    engine->tokenizer().Encode(text, {true, false}, &tokens);
    const uint32_t c = engine->options().context + (a.prefix ? 1 : 0);
    const uint64_t fit = tokens.size() / c;
    const uint64_t chunks = a.chunks == 0 ? fit : std::min<uint64_t>(a.chunks, fit);
    if (chunks == 0) {
      return MakeError(
          Code::kBadInput,
          fmt::format("{} has {} tokens, less than one chunk of {}", a.text, tokens.size(), c),
          a.prefix ? "give a longer text, or less of --prefix and --continue"
                   : fmt::format("give -c {} or less", tokens.size()));
    }
    // As llama-perplexity: the second half of each chunk is scored; a chunk starts with BOS where
    // the model adds it.
    const size_t first = a.prefix ? *a.prefix + 1 : c / 2 + 1;
    SNUG_TRY(evaluation.Open(chunks * (c - first)));
    Progress scoring("scoring", ProgressUnit::kTokens, false);
    for (uint64_t i = 0; i < chunks; ++i) {
      std::vector<Token> chunk(tokens.begin() + static_cast<std::ptrdiff_t>(i * c),
                               tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * c));
      if (engine->tokenizer().add_bos()) chunk[0] = engine->tokenizer().bos();
      SNUG_TRY(a.prefix ? evaluation.Continuation(chunk, *a.prefix)
                        : evaluation.Chunk(chunk, first));
      scoring.Update((i + 1) * c, chunks * c);
    }
  }
  SNUG_ASSIGN(const Score score, evaluation.Finish());
  EvaluationRecord record;
  record.tokens = score.tokens;
  record.nll = score.tokens > 0 ? score.nll / static_cast<double>(score.tokens) : 0;
  if (score.compared > 0) {
    const auto compared = static_cast<double>(score.compared);
    record.kl_mean = score.kl / compared;
    record.kl_max = score.kl_max;
    record.top1 = static_cast<double>(score.same_top) / compared;
  }
  if (a.prefix) record.kv_held = engine->kv_bytes_held();
  return record;
}

Status Eval(EvalArgs& a) {
  SNUG_ASSIGN(EngineOptions options, a.engine.Resolve());
  if (a.tokens.empty() == a.text.empty()) {
    return MakeError(Code::kUsage, "give either --tokens or --text", "see `snug eval --help`");
  }
  if (a.prefix) {
    SNUG_TRY(CheckContinuation(a));
    options.context = *a.prefix + a.follow;
    options.plane_head = false;  // every logit counts
  } else if (options.by_layer()) {
    const bool keeps = options.keep != nullptr;
    return MakeError(Code::kUsage,
                     fmt::format("a prompt's own predictions see every row as it was stored, "
                                 "whatever {} after it",
                                 keeps ? "--kv-keep drops" : "--kv codes"),
                     "score what follows a prompt: --prefix 4096 --continue 512",
                     {{"option", keeps ? "--kv-keep" : "--kv"},
                      {"value", keeps ? options.keep->spec() : options.codec->spec()}});
  } else {
    options.logit_rows = std::min(kRows, options.context);
    if (options.chunk < options.logit_rows) options.chunk = options.logit_rows;
  }
  // Texts are read before the plan is made, which counts them as memory in use.
  std::vector<Token> tokens;
  std::string text;
  if (!a.tokens.empty()) {
    SNUG_ASSIGN(const std::string list, ReadText(a.tokens));
    SNUG_ASSIGN(tokens, ParseTokens(list, a.tokens));
    options.context = static_cast<uint32_t>(tokens.size());
  } else {
    SNUG_ASSIGN(text, ReadTextWithin(options.budget.bytes, a.text));
    options.caller_bytes = (text.size() + 2) * sizeof(Token);
  }
  if (a.results.empty()) {
    SNUG_ASSIGN(const EvaluationRecord record,
                Measure(a, std::move(options), text, std::move(tokens)));
    Show(a, record, false);
    return {};
  }
  SNUG_ASSIGN(Results results, Results::Open(a.results));
  const auto* ids = reinterpret_cast<const char*>(tokens.data());
  SNUG_ASSIGN(const EvaluationKey key,
              KeyOf(a, options,
                    text.empty() ? std::string_view(ids, tokens.size() * sizeof(Token)) : text));
  if (a.logits.empty() && a.save_reference.empty()) {
    SNUG_ASSIGN(const std::optional<EvaluationRecord> known, results.Find(key));
    if (known) {
      Show(a, *known, true);
      return {};
    }
  }
  SNUG_ASSIGN(EvaluationRecord record, Measure(a, std::move(options), text, std::move(tokens)));
  record.text_name = std::filesystem::path(text.empty() ? a.tokens : a.text).filename().string();
  SNUG_TRY(results.Put(key, record));
  Show(a, record, false);
  return {};
}

}  // namespace

void AddEval(CLI::App& app, int* exit_code) {
  auto a = std::make_shared<EvalArgs>();
  a->engine.context = 512;
  Verb eval(app, "eval", "logits of tokens, perplexity of a text, divergence from a reference");
  eval.Footer(
      "examples: snug eval model.gguf --text book.txt -c 512 --chunks 4\n"
      "          snug eval model.gguf --tokens ids.json --logits out.safetensors --exact\n"
      "          snug eval model.gguf --text book.txt --prefix 4096 --kv-keep h2o --reference "
      "dense");
  a->engine.Add(eval);
  a->engine.AddKeep(eval);
  eval.Add("--tokens", a->tokens, "a JSON array of token ids, taken as they are");
  eval.Add("--logits", a->logits, "write float32 logits [tokens, vocab] here");
  eval.Add("--text,-f,--file", a->text, "score this text in chunks of -c tokens");
  eval.Add("--chunks", a->chunks, "chunks to score (0: all)").Default();
  eval.Add("--prefix", a->prefix,
           "score what follows prompts of so many tokens, instead of whole chunks");
  eval.Add("--continue", a->follow, "with --prefix: tokens that follow, taken as they are")
      .Default();
  eval.Add("--save-reference", a->save_reference, "keep the scored logits here");
  eval.Add("--reference", a->reference, "compare with logits kept before");
  eval.Add("--results", a->results,
           "a file of evaluations: what is known there is not run again, what is run goes there")
      .Environment("SNUG_RESULTS");
  eval.Flag("--json", a->json, "one JSON object on stdout");
  eval.Callback([a, exit_code] {
    const Status s = Eval(*a);
    *exit_code = s.ok() ? 0 : Report(s.error(), a->json);
  });
}

}  // namespace snug::cli
