// snug eval: logits of given tokens, perplexity of a text, divergence from a reference.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <tuple>

#include "base/progress.h"
#include "cli/args.h"
#include "cli/interrupt.h"
#include "cli/results.h"
#include "engine/evaluate.h"

namespace snug::cli {
namespace {

struct EvalArgs {
  EngineArgs engine;
  std::string tokens, logits, text, save_reference, reference, results;
  uint32_t chunks = 0, buckets = 0;
  std::optional<uint32_t> prefix;
  uint32_t follow = 512;
  bool json = false;
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
  SNUG_ASSIGN(EvaluationKey key, MakeEvaluationKey(options, text));
  if (!a.reference.empty()) {
    SNUG_ASSIGN(key.reference, HashOfEnds(a.reference));
  }
  key.version = SNUG_VERSION;
  key.prefix = a.prefix.value_or(0);
  key.chunks = a.chunks;
  if (a.prefix) key.context = options.Read(*a.prefix) + a.follow;  // of the text, not of the cache
  return key;
}

// One line of the table of buckets, or its head.
std::string BucketLine(const EvaluationBucket* b) {
  const bool head = b == nullptr;
  std::string line =
      head ? fmt::format("{:>17}{:>8}{:>10}", "positions", "tokens", "nll")
           : fmt::format("{:>8}-{:<8}{:>8}{:>10.4f}", b->first, b->last, b->tokens, b->nll);
  if (head) return line + "   and KL, top-1; bytes held, ms a token where there are any";
  if (b->kl_mean) line += fmt::format("  KL {:.5f}  top-1 {:.2f} %", *b->kl_mean, 100 * *b->top1);
  if (b->kv_held) line += fmt::format("  {} held", FormatBytes(*b->kv_held));
  if (b->seconds) line += fmt::format("  {:.1f} ms", 1e3 * *b->seconds);
  return line;
}

Json BucketJson(const EvaluationBucket& b) {
  Json j = {{"first", b.first}, {"last", b.last}, {"tokens", b.tokens}, {"nll", b.nll}};
  if (b.kl_mean) j["kl_mean"] = *b.kl_mean;
  if (b.top1) j["top1"] = *b.top1;
  if (b.kv_held) j["kv_held"] = *b.kv_held;
  if (b.seconds) j["ms_per_token"] = 1e3 * *b.seconds;
  return j;
}

void Show(const EvalArgs& a, const EvaluationRecord& r, bool known) {
  Json out = {{"ppl", std::exp(r.nll)}, {"nll", r.nll}, {"tokens", r.tokens}};
  if (r.kl_mean) out["kl_mean"] = *r.kl_mean;
  if (r.kl_max) out["kl_max"] = *r.kl_max;
  if (r.top1) out["top1"] = *r.top1;
  if (r.kv_held) out["kv_held"] = *r.kv_held;
  if (known) out["known"] = true;
  if (!a.json) {
    for (const auto& [key, value] : out.items()) fmt::print("{:<8} {}\n", key, DumpJson(value));
    if (!r.buckets.empty()) fmt::print("{}\n", BucketLine(nullptr));
    for (const EvaluationBucket& b : r.buckets) fmt::print("{}\n", BucketLine(&b));
    return;
  }
  if (a.buckets != 0) out["buckets"] = Json::array();
  for (const EvaluationBucket& b : r.buckets) out["buckets"].push_back(BucketJson(b));
  fmt::print("{}\n", DumpJson(out));
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
  Progress scoring("scoring", ProgressUnit::kTokens, false);
  const Evaluation* running = nullptr;
  uint64_t total = 0;
  const auto open = [&](uint64_t rows) -> Result<Evaluation> {
    total = rows;
    SNUG_ASSIGN(
        Evaluation e,
        Evaluation::Open(*engine, {a.logits.empty() ? a.save_reference : a.logits, a.reference},
                         rows, [&] {
                           if (running != nullptr) scoring.Update(running->scored(), total);
                           return !Interrupted();
                         }));
    e.SetBuckets(a.buckets);
    return e;
  };
  if (!a.tokens.empty()) {
    SNUG_ASSIGN(Evaluation evaluation, open(tokens.size()));
    SNUG_TRY(evaluation.Chunk(tokens, 1, true));
    return evaluation.Finish();
  }
  tokens.reserve(text.size() + 2);  // a token stands for a byte or more
  engine->tokenizer().Encode(text, {true, false}, &tokens);
  const uint32_t c = a.prefix ? *a.prefix + a.follow + 1 : engine->options().context;
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
  SNUG_ASSIGN(Evaluation evaluation, open(chunks * (c - first)));
  running = &evaluation;
  for (uint64_t i = 0; i < chunks; ++i) {
    const auto chunk = std::span(tokens).subspan(i * c, c);
    if (engine->tokenizer().add_bos()) chunk[0] = engine->tokenizer().bos();
    SNUG_TRY(a.prefix ? evaluation.Continuation(chunk, *a.prefix) : evaluation.Chunk(chunk, first));
  }
  scoring.Update(total, total);
  SNUG_ASSIGN(EvaluationRecord record, evaluation.Finish());
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
    options.prompt = *a.prefix;
    const auto read = static_cast<uint32_t>(options.Read(*a.prefix));
    options.context = options.rolling ? std::max(read, options.context) : read + a.follow;
    options.plane_head = false;  // every logit counts
  } else if (options.reduce != nullptr) {
    return MakeError(Code::kUsage,
                     "--reduce chooses among the tokens of a prompt, and here is none",
                     "score what follows a prompt: --prefix 4096 --continue 512",
                     {{"option", "--reduce"}, {"value", options.reduce->spec()}});
  } else if (options.by_layer() && !options.gives_up_rows()) {
    return MakeError(
        Code::kUsage,
        fmt::format("--kv-read {} chooses in prompts, and without --prefix there is none",
                    options.read->spec()),
        "score what follows a prompt: --prefix 4096 --continue 512",
        {{"option", "--kv-read"}, {"value", options.read->spec()}});
  } else if (options.gives_up_rows()) {
    const auto [option, does, spec] =
        options.keep != nullptr    ? std::tuple("--kv-keep", "drops", options.keep->spec())
        : options.codec != nullptr ? std::tuple("--kv", "codes", options.codec->spec())
        : options.share != nullptr ? std::tuple("--kv-share", "merges", options.share->spec())
                                   : std::tuple("--kv-place", "moves", options.kv_place->spec());
    return MakeError(Code::kUsage,
                     fmt::format("a prompt's own predictions see every row as it was stored, "
                                 "whatever {} {} after it",
                                 option, does),
                     "score what follows a prompt: --prefix 4096 --continue 512",
                     {{"option", option}, {"value", spec}});
  } else {
    options.logit_rows = std::min(Evaluation::kRows, options.context);
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
  if (a.logits.empty() && a.save_reference.empty() && a.buckets == 0) {
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
  a->engine.AddReduce(eval);
  eval.Add("--tokens", a->tokens, "a JSON array of token ids, taken as they are");
  eval.Add("--logits", a->logits, "write float32 logits [tokens, vocab] here");
  eval.Add("--text,-f,--file", a->text, "score this text in chunks of -c tokens");
  eval.Add("--chunks", a->chunks, "chunks to score (0: all)").Default();
  eval.Add("--prefix", a->prefix,
           "score what follows prompts of so many tokens, instead of whole chunks (-c then only "
           "counts with --kv-positions rolling: for what the cache is made)");
  eval.Add("--continue", a->follow, "with --prefix: tokens that follow, taken as they are")
      .Default();
  eval.Add("--buckets", a->buckets,
           "tell figures of every so many positions of the text apart, too (0: no); such "
           "evaluations are run whatever --results knows")
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
