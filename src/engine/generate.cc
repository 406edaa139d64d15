#include "engine/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "engine/lookup.h"
#include "engine/stop.h"

namespace snug {
namespace {

// The state of one generation.
class Generator {
 public:
  Generator(Engine& engine, uint32_t sequence, const GenerateOptions& options)
      : engine_(engine),
        sequence_(sequence),
        options_(options),
        sampler_(options.sampling, engine.config().vocab),
        stop_(options.stop) {}

  Result<Generation> Run(const std::vector<Token>& whole_prompt);

 private:
  bool cancelled() const {
    return options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed);
  }
  // Appends what is read of a prompt.
  Status Reduce(const std::vector<Token>& prompt, std::vector<Token>* read);
  Status Prefill(const std::vector<Token>& prompt);
  // Takes the token that logits row `row` gives. True when the generation ends with it.
  bool Take(size_t row);
  Status Single();
  Status Verify(std::span<const Token> draft);
  void Emit(std::string_view text);

  Engine& engine_;
  const uint32_t sequence_;
  const GenerateOptions& options_;
  Sampler sampler_;
  StopMatcher stop_;
  Utf8Stream utf8_;
  std::optional<Lookup> lookup_;
  std::vector<Token> batch_;
  std::string bytes_, piece_;
  Generation g_;
  bool done_ = false;
};

void Generator::Emit(std::string_view text) {
  if (text.empty()) return;
  g_.text += text;
  if (options_.on_text) options_.on_text(text);
}

bool Generator::Take(size_t row) {
  const Token token = sampler_.Sample(engine_.logits(row));
  sampler_.Accept(token);
  g_.tokens.push_back(token);
  if (lookup_) lookup_->Append(token);
  if (engine_.tokenizer().IsEndOfGeneration(token) && !options_.ignore_eos) {
    g_.finish_reason = "stop";
    return done_ = true;
  }
  bytes_.clear();
  piece_.clear();
  engine_.tokenizer().Decode(token, false, &bytes_);
  utf8_.Push(bytes_, &piece_);
  bytes_.clear();
  if (stop_.Push(piece_, &bytes_)) {
    Emit(bytes_);
    g_.finish_reason = "stop";
    return done_ = true;
  }
  Emit(bytes_);
  if (g_.tokens.size() >= options_.max_tokens) {
    g_.finish_reason = "length";
    return done_ = true;
  }
  return false;
}

Status Generator::Reduce(const std::vector<Token>& prompt, std::vector<Token>* read) {
  const auto start = Clock::now();
  const auto to_read = static_cast<uint32_t>(engine_.options().Read(prompt.size()));
  SNUG_ASSIGN(g_.read, engine_.Reduce(prompt, [&](uint32_t done, uint32_t total) {
    if (options_.on_prefill) options_.on_prefill(done, total + to_read);
    return !cancelled();
  }));
  read->reserve(g_.read.size());
  for (const uint32_t i : g_.read) read->push_back(prompt[i]);
  g_.reduce_s = SecondsSince(start);
  return {};
}

Status Generator::Prefill(const std::vector<Token>& prompt) {
  const auto start = Clock::now();
  g_.cached_tokens = engine_.ReusePrefix(sequence_, prompt);
  // The pass that chose what is read took the whole prompt before.
  const bool chose = !g_.read.empty() && g_.read.size() < g_.prompt_tokens;
  const uint32_t before = chose ? g_.prompt_tokens : 0;
  const std::span<const Token> rest(prompt.data() + g_.cached_tokens,
                                    prompt.size() - g_.cached_tokens);
  SNUG_TRY(engine_.Prefill(sequence_, rest, [&](uint32_t done, uint32_t total) {
    if (options_.on_prefill) options_.on_prefill(before + done, before + total);
    return !cancelled() || done == total;
  }));
  g_.prefill_s = g_.reduce_s + SecondsSince(start);
  return {};
}

Status Generator::Single() {
  const StepItem item{sequence_, {&g_.tokens.back(), 1}, StepItem::Logits::kLast};
  SNUG_TRY(engine_.Step({&item, 1}));
  Take(0);
  return {};
}

Status Generator::Verify(std::span<const Token> draft) {
  batch_.assign(1, g_.tokens.back());
  batch_.insert(batch_.end(), draft.begin(), draft.end());
  const uint32_t length = engine_.length(sequence_);
  const StepItem item{sequence_, batch_, StepItem::Logits::kAll};
  SNUG_TRY(engine_.Step({&item, 1}));
  size_t accepted = 0;
  while (!Take(accepted) && accepted + 1 < batch_.size() &&
         g_.tokens.back() == batch_[accepted + 1]) {
    ++accepted;
  }
  g_.drafted += draft.size();
  g_.accepted += accepted;
  return engine_.Rollback(sequence_, length + 1 + static_cast<uint32_t>(accepted));
}

Result<Generation> Generator::Run(const std::vector<Token>& whole_prompt) {
  const auto start = Clock::now();
  g_.prompt_tokens = static_cast<uint32_t>(whole_prompt.size());
  g_.tokens.reserve(options_.max_tokens);
  batch_.reserve(engine_.plan().logit_rows);
  engine_.SetTop(options_.plane_head ? sampler_.NeedsTop() : 0);
  const bool reduces = engine_.options().reduce != nullptr;
  std::vector<Token> read;
  Status s = reduces ? Reduce(whole_prompt, &read) : Status{};
  const std::vector<Token>& prompt = reduces ? read : whole_prompt;
  if (s.ok()) s = Prefill(prompt);
  if (!s.ok()) {
    if (s.error().code != Code::kCancelled) return s.error();
    g_.finish_reason = "cancelled";
    return std::move(g_);
  }
  for (Token t : prompt) sampler_.Accept(t);
  if (options_.lookup) {
    SNUG_ASSIGN(lookup_, Lookup::Create(engine_.options().context, engine_.plan().logit_rows - 1,
                                        engine_.ledger()));
    for (Token t : prompt) lookup_->Append(t);
  }
  Take(0);
  g_.ttft_s = SecondsSince(start);

  const auto decode = Clock::now();
  const TrafficStats traffic = engine_.traffic();
  const uint64_t disk = engine_.disk_bytes_read();
  const ExpertPlace* experts = engine_.experts();
  const ExpertStats expert_stats = experts != nullptr ? experts->stats() : ExpertStats{};
  while (!done_ && !cancelled()) {
    const auto step = Clock::now();
    std::span<const Token> draft;
    if (lookup_) {
      const size_t room = options_.max_tokens - g_.tokens.size();
      draft = lookup_->Draft(room > 0 ? room - 1 : 0);
    }
    const uint64_t accepted = g_.accepted;
    SNUG_TRY(draft.empty() ? Single() : Verify(draft));
    if (lookup_) lookup_->Report(draft.size(), g_.accepted - accepted, SecondsSince(step));
  }
  g_.decode_s = SecondsSince(decode);
  if (experts != nullptr) g_.experts = experts->stats() - expert_stats;
  if (!done_) g_.finish_reason = "cancelled";
  if (g_.tokens.size() > 1) {
    const auto n = static_cast<double>(g_.tokens.size() - 1);
    const TrafficStats& now = engine_.traffic();
    g_.bytes_touched_per_token = static_cast<double>(now.weight_bytes - traffic.weight_bytes +
                                                     now.kv_bytes - traffic.kv_bytes) /
                                 n;
    g_.disk_bytes_per_token = static_cast<double>(engine_.disk_bytes_read() - disk) / n;
  }
  piece_.clear();
  utf8_.Finish(&piece_);
  bytes_.clear();
  if (g_.finish_reason != "stop" || !stop_.matched()) {
    stop_.Push(piece_, &bytes_);
    stop_.Finish(&bytes_);
    Emit(bytes_);
  }
  return std::move(g_);
}

}  // namespace

Status CheckContext(size_t prompt, uint32_t max_tokens, const EngineOptions& options) {
  const uint32_t context = options.context;
  if (prompt == 0) {
    return MakeError(Code::kBadInput,
                     "the prompt is empty and the model adds no beginning-of-text token",
                     "give a prompt with -p, -f or on standard input");
  }
  if (max_tokens < 1) {
    return MakeError(Code::kUsage, "at least one token must be asked for", "-n 1");
  }
  const uint64_t needed = prompt + (options.rolling ? 0 : uint64_t{max_tokens});
  if (needed <= context) return {};
  std::string next = fmt::format("give --ctx-size {} or more", needed);
  if (options.rolling) {
    return MakeError(
        Code::kDoesNotFit,
        fmt::format("{} prompt tokens exceed the context of {}", prompt, context), next,
        {{"prompt_tokens", std::to_string(prompt)}, {"context", std::to_string(context)}});
  }
  if (context > prompt) next += fmt::format(", or -n {} or less", context - prompt);
  return MakeError(Code::kDoesNotFit,
                   fmt::format("{} prompt tokens and {} new ones exceed the context of {}", prompt,
                               max_tokens, context),
                   next,
                   {{"prompt_tokens", std::to_string(prompt)},
                    {"max_tokens", std::to_string(max_tokens)},
                    {"context", std::to_string(context)}});
}

Result<Generation> Generate(Engine& engine, uint32_t sequence, const std::vector<Token>& prompt,
                            const GenerateOptions& options) {
  SNUG_TRY(options.sampling.Validate());
  const EngineOptions& o = engine.options();
  SNUG_TRY(CheckContext(o.Read(prompt.size()), options.max_tokens, o));
  Generator generator(engine, sequence, options);
  return generator.Run(prompt);
}

}  // namespace snug
