#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/clock.h"
#include "base/file.h"
#include "repro/cache_claims.h"

namespace snug {
namespace {

constexpr uint64_t kMaxReproText = 64 * kMiB;
constexpr uint64_t kTextShare = 16;  // of a budget, as tokens take four times as much
constexpr uint32_t kQuickPrefix = 1024, kQuickFollow = 64;

struct Lengths {
  uint32_t prefix, follow;
};
Lengths LengthsOf(const ReproOptions& o) {
  return o.quick ? Lengths{std::min(o.prefix, kQuickPrefix), std::min(o.follow, kQuickFollow)}
                 : Lengths{o.prefix, o.follow};
}

Result<EngineOptions> OptionsOf(const CacheSetting& setting, const ReproOptions& options) {
  EngineOptions o;
  o.model_path = options.model_path;
  o.budget = options.budget;
  o.threads = options.threads;
  const auto [prefix, follow] = LengthsOf(options);
  o.context = prefix + follow;
  o.plane_head = false;  // every logit counts
  if (NamesCodec(setting.kv)) {
    SNUG_ASSIGN(o.codec, ParseCodec(setting.kv));
    o.codebooks = options.codebooks;
    o.permutation = options.permutation;
  } else if (!setting.kv.empty()) {
    o.key_type = o.value_type = *ParseKvType(std::string(setting.kv));
  }
  if (!setting.keep.empty()) {
    SNUG_ASSIGN(o.keep, ParseKeep(setting.keep));
  }
  if (!setting.read.empty()) {
    SNUG_ASSIGN(o.read, ParseRead(setting.read));
    o.channels = options.channels;
  }
  return o;
}

size_t TextsOf(const ReproOptions& o) {
  return o.quick ? std::min<size_t>(1, o.texts.size()) : o.texts.size();
}

// One text under one setting; `files` as Evaluation takes them.
Result<EvaluationRecord> Score(EngineOptions o, const std::string& path, const std::string& text,
                               const Evaluation::Files& files, const ReproOptions& options) {
  const auto [prefix, follow] = LengthsOf(options);
  o.caller_bytes = (text.size() + 2) * sizeof(Token);
  SNUG_ASSIGN(const std::unique_ptr<Engine> engine, Engine::Open(o));
  std::vector<Token> tokens;
  tokens.reserve(text.size() + 2);
  engine->tokenizer().Encode(text, {true, false}, &tokens);
  const size_t needed = size_t{prefix} + follow + 1;
  if (tokens.size() < needed) {
    return MakeError(Code::kBadInput,
                     fmt::format("{} has {} tokens, fewer than {}", path, tokens.size(), needed),
                     "give a longer text, or less of --prefix and --continue");
  }
  tokens.resize(needed);
  if (engine->tokenizer().add_bos()) tokens[0] = engine->tokenizer().bos();
  SNUG_ASSIGN(Evaluation evaluation, Evaluation::Open(*engine, files, follow, options.go_on));
  SNUG_TRY(evaluation.Continuation(tokens, prefix));
  SNUG_ASSIGN(EvaluationRecord record, evaluation.Finish());
  record.kv_held = engine->kv_bytes_held();
  record.text_name = std::filesystem::path(path).filename().string();
  return record;
}

// Whether another setting may do although this one does not.
bool OfTheSetting(const Error& e) { return e.code == Code::kUsage || e.code == Code::kDoesNotFit; }

// A file that is gone when this is.
struct Temporary {
  std::string path;
  ~Temporary() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove(path, ignored);
  }
};

class Measurement {
 public:
  Measurement(const ReproOptions& options, const std::vector<CacheSetting>& settings)
      : options_(options), settings_(settings) {}

  Status Text(const std::string& path) {
    SNUG_ASSIGN(const std::string text,
                ReadWholeFile(path, std::min(kMaxReproText, options_.budget.bytes / kTextShare)));
    const Temporary reference{options_.folder + "/dense.safetensors"};
    const CacheSetting dense;
    // The dense cache comes first: its logits are what the others are compared with, and are only
    // needed where one of those is not known.
    bool known = true;
    for (const CacheSetting& s : settings_) {
      if (!found_[s.Name()].refused.empty()) continue;
      SNUG_ASSIGN(const bool one, Known(s, path, text));
      known = known && one;
    }
    if (known) {
      SNUG_ASSIGN(known, Known(dense, path, text));
    }
    if (!known) {
      Step(path, dense, 0);
      SNUG_ASSIGN(const EngineOptions o, OptionsOf(dense, options_));
      SNUG_ASSIGN(const EvaluationRecord r, Score(o, path, text, {reference.path, ""}, options_));
      SNUG_TRY(Keep(dense, text, r));
    }
    for (size_t i = 0; i < settings_.size(); ++i) {
      const CacheSetting& s = settings_[i];
      CacheFigures& figures = found_[s.Name()];
      if (!figures.refused.empty() || figures.texts.size() == done_ + 1) continue;
      Step(path, s, i);
      SNUG_TRY(Run(s, path, text, reference.path));
    }
    ++done_;
    return {};
  }
  CacheFigureMap Take() { return std::move(found_); }

 private:
  void Step(const std::string& path, const CacheSetting& s, size_t position) {
    if (!options_.on_step) return;
    const size_t all = TextsOf(options_);
    const size_t left = (all - done_) * settings_.size() - position;
    std::string line = fmt::format("text {} of {} ({}): {}", done_ + 1, all,
                                   std::filesystem::path(path).filename().string(), s.Name());
    if (ran_ > 0) {
      const double seconds = SecondsSince(start_) / static_cast<double>(ran_);
      line += fmt::format(", about {:.0f} min left", seconds * static_cast<double>(left) / 60);
    }
    ++ran_;
    options_.on_step(line);
  }

  Result<EvaluationKey> Key(const CacheSetting& s, const std::string& text) const {
    SNUG_ASSIGN(const EngineOptions o, OptionsOf(s, options_));
    SNUG_ASSIGN(EvaluationKey key, MakeEvaluationKey(o, text));
    key.reference = "dense f16";
    key.version = options_.version;
    key.prefix = LengthsOf(options_).prefix;
    key.chunks = 1;
    return key;
  }

  // Takes what the store knows of it.
  Result<bool> Known(const CacheSetting& s, const std::string& path, const std::string& text) {
    if (options_.store == nullptr) return false;
    const Result<EvaluationKey> key = Key(s, text);
    if (!key.ok()) {
      if (!OfTheSetting(key.error())) return key.error();
      return false;  // running it will tell why
    }
    SNUG_ASSIGN(std::optional<EvaluationRecord> record, options_.store->Find(*key));
    if (!record) return false;
    record->text_name = std::filesystem::path(path).filename().string();
    found_[s.Name()].texts.push_back(*std::move(record));
    return true;
  }

  Status Keep(const CacheSetting& s, const std::string& text, const EvaluationRecord& record) {
    std::vector<EvaluationRecord>& texts = found_[s.Name()].texts;
    if (texts.size() == done_) texts.push_back(record);
    if (options_.store == nullptr) return {};
    SNUG_ASSIGN(const EvaluationKey key, Key(s, text));
    return options_.store->Put(key, record);
  }

  Status Run(const CacheSetting& s, const std::string& path, const std::string& text,
             const std::string& reference) {
    const Result<EngineOptions> o = OptionsOf(s, options_);
    const Result<EvaluationRecord> r =
        o.ok() ? Score(*o, path, text, {"", reference}, options_) : o.error();
    if (r.ok()) return Keep(s, text, *r);
    if (!OfTheSetting(r.error())) return r.error();
    found_[s.Name()].refused = r.error().message;
    return {};
  }

  const ReproOptions& options_;
  const std::vector<CacheSetting>& settings_;
  CacheFigureMap found_;
  size_t done_ = 0, ran_ = 0;  // texts, and runs that were begun
  const Clock::time_point start_ = Clock::now();
};

double MeanKl(const CacheFigures& f) {
  double sum = 0;
  for (const EvaluationRecord& r : f.texts) sum += r.kl_mean.value_or(0);
  return sum / static_cast<double>(f.texts.size());
}

double MeanBytes(const CacheFigures& f) {
  double sum = 0;
  for (const EvaluationRecord& r : f.texts) sum += static_cast<double>(r.kv_held.value_or(0));
  return sum / static_cast<double>(f.texts.size());
}

std::string Bytes(const CacheFigures& f) {
  return FormatBytes(static_cast<uint64_t>(MeanBytes(f)));
}

ReproPoint PointOf(const std::string& name, const CacheFigures& f) {
  ReproPoint p;
  p.setting = name;
  p.bytes = static_cast<uint64_t>(MeanBytes(f));
  double nll = 0, top = 0, worst = 0;
  bool compared = true;
  for (const EvaluationRecord& r : f.texts) {
    nll += r.nll;
    compared = compared && r.kl_mean && r.top1;
    top += r.top1.value_or(0);
    worst = std::max(worst, r.kl_mean.value_or(0));
  }
  const auto n = static_cast<double>(f.texts.size());
  p.perplexity = std::exp(nll / n);
  if (compared) {
    p.kl = MeanKl(f);
    p.kl_worst_text = worst;
    p.top1 = top / n;
  }
  return p;
}

// A claim judged by figures that are there.
ReproRow Judge(const CacheClaim& c, const CacheFigureMap& found) {
  const CacheFigures& own = found.at(c.setting.Name());
  const CacheFigures& dense = found.at(CacheSetting{}.Name());
  const size_t texts = own.texts.size();
  ReproRow row{std::string(c.claim), "`" + c.setting.Name() + "`", {}, Verdict::kDiffers};
  bool holds = false;
  switch (c.rule) {
    case CacheRule::kKlAtMost:
      holds = MeanKl(own) <= c.bound;
      row.setting += fmt::format(", mean KL at most {}", c.bound);
      row.measured = fmt::format("KL {:.4f}", MeanKl(own));
      break;
    case CacheRule::kBytesAtMost: {
      const double share = MeanBytes(own) / MeanBytes(dense);
      holds = share <= c.bound;
      row.setting += fmt::format(", at most 1/{:.3g} of the dense bytes", 1 / c.bound);
      row.measured = fmt::format("{} of {}, 1/{:.1f}", Bytes(own), Bytes(dense), 1 / share);
      break;
    }
    case CacheRule::kCloserThanOthers: {
      size_t closer = 0;
      for (size_t t = 0; t < texts; ++t) {
        bool all = true;
        for (size_t i = 0; i < c.other_count; ++i) {
          const CacheFigures& other = found.at(c.others[i].Name());
          all = all && own.texts[t].kl_mean.value_or(0) < other.texts[t].kl_mean.value_or(0);
        }
        closer += all ? 1 : 0;
      }
      holds = closer * 5 >= texts * 4;
      row.measured = fmt::format("KL {:.4f} in {}", MeanKl(own), Bytes(own));
      for (size_t i = 0; i < c.other_count; ++i) {
        const std::string name = c.others[i].Name();
        row.setting += fmt::format("{} `{}`", i == 0 ? " against" : " and", name);
        row.measured +=
            fmt::format("; {:.4f} in {}", MeanKl(found.at(name)), Bytes(found.at(name)));
      }
      row.measured += fmt::format("; closer on {} of {} texts", closer, texts);
      break;
    }
  }
  row.verdict = holds ? Verdict::kHolds : Verdict::kDiffers;
  return row;
}

}  // namespace

std::string CacheSetting::Name() const {
  std::string name;
  for (const auto& [option, value] :
       {std::pair{"--kv", kv}, {"--kv-keep", keep}, {"--kv-read", read}}) {
    if (!value.empty()) name += fmt::format("{}{} {}", name.empty() ? "" : " ", option, value);
  }
  return name.empty() ? "dense" : name;
}

Result<CacheFigureMap> MeasureCaches(const std::vector<CacheSetting>& settings,
                                     const ReproOptions& options) {
  Measurement m(options, settings);
  for (size_t i = 0; i < TextsOf(options); ++i) SNUG_TRY(m.Text(options.texts[i]));
  return m.Take();
}

ReproReport JudgeCaches(const Repro& repro, const CacheFigureMap& found,
                        const ReproOptions& options) {
  ReproReport report;
  report.slug = repro.slug;
  report.source = repro.source;
  report.model = std::filesystem::path(options.model_path).filename().string();
  const auto [prefix, follow] = LengthsOf(options);
  const CacheFigures& dense = found.at(CacheSetting{}.Name());
  report.method = fmt::format(
      "{} {}, of each a prompt of {} tokens and the {} that follow it, taken as they are; KL is "
      "the "
      "mean divergence of their logits from those of the dense f16 cache, bytes are what the cache "
      "holds at the end.",
      dense.texts.size(), dense.texts.size() == 1 ? "text" : "texts", prefix, follow);
  std::vector<std::string> named;
  const auto point = [&](const std::string& name) {
    if (std::find(named.begin(), named.end(), name) != named.end()) return;
    named.push_back(name);
    report.points.push_back(PointOf(name, found.at(name)));
  };
  point(CacheSetting{}.Name());
  for (const CacheClaim& c : repro.claims) {
    std::vector<std::string> needed = {c.setting.Name()};
    for (size_t i = 0; i < c.other_count; ++i) needed.push_back(c.others[i].Name());
    std::string refused;
    for (const std::string& name : needed) {
      if (!found.at(name).refused.empty()) refused = found.at(name).refused;
    }
    if (!refused.empty()) {
      report.not_shown.push_back(fmt::format("{}: {}", c.claim, refused));
      continue;
    }
    for (const std::string& name : needed) point(name);
    report.rows.push_back(Judge(c, found));
  }
  report.not_shown.insert(report.not_shown.end(), repro.not_shown.begin(), repro.not_shown.end());
  return report;
}

}  // namespace snug
