#include "cli/args.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>

#include "base/file.h"
#include "base/nearest.h"
#include "cli/interrupt.h"
#include "cli/usage.h"
#include "engine/limits.h"
#include "format/recipe.h"

namespace snug::cli {
namespace {

constexpr uint64_t kDiskBytes = 64 * kMiB;  // read to measure the disk

// "123" as a number, anything else as it is.
Json Value(const std::string& text) {
  uint64_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (ec == std::errc() && end == text.data() + text.size()) return number;
  return text;
}

constexpr std::pair<std::string_view, PlaceChoice> kPlaces[] = {
    {"auto", PlaceChoice::kAuto},
    {"resident", PlaceChoice::kResident},
    {"stream", PlaceChoice::kStream},
};

std::optional<PlaceChoice> ParseWeightPlace(std::string_view name) {
  for (const auto& [known, place] : kPlaces)
    if (known == name) return place;
  return std::nullopt;
}

// A word of --weights that is no place.
Result<Recipe> ParseRecipe(std::string_view word) {
  Result<Recipe> recipe = FindRecipe(word);
  if (recipe.ok()) return recipe;
  std::vector<std::string> known = RecipeNames();
  for (const auto& [name, place] : kPlaces) known.emplace_back(name);
  Error e = std::move(recipe).error();
  e.message = fmt::format("--weights '{}' is neither a place nor a type of weights", word);
  if (const std::string near = NearestWord(std::string(word), known); !near.empty())
    e.next = fmt::format("did you mean {}?", near);
  return e;
}

// --weights: a place, a type, or both, separated by a comma; --place.
Status ResolveWeights(const EngineArgs& args, EngineOptions* o) {
  std::string_view rest = args.weights;
  bool placed = false;
  while (!rest.empty()) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    const auto place = ParseWeightPlace(word);
    if ((place && placed) || (!place && !o->weights.empty())) {
      return MakeError(Code::kUsage, fmt::format("--weights {} names two of a kind", args.weights),
                       "give a place, a type, or one of each");
    }
    if (place) {
      o->place = *place;
      placed = true;
    } else {
      SNUG_ASSIGN(const Recipe recipe, ParseRecipe(word));
      o->weights = recipe.name;
    }
  }
  if (const auto place = ParseWeightPlace(args.place)) o->place = *place;
  return {};
}

// --kv: cache types or a codec; --cache-type-k, --cache-type-v.
Status ResolveCache(const EngineArgs& args, EngineOptions* o) {
  if (NamesCodec(args.kv) || args.kv.find(':') != std::string::npos) {
    if (!args.key.empty() || !args.value.empty()) {
      return MakeError(Code::kUsage,
                       fmt::format("--kv {} leaves no choice to --cache-type-k and -v", args.kv),
                       "give one or the other", {{"option", "--kv"}, {"value", args.kv}});
    }
    if (!args.prompts) {
      return MakeError(
          Code::kUsage,
          fmt::format("--kv {} codes what follows a prompt, and here is none", args.kv),
          "one of f16, bf16, f8_e4m3, q8_0, q4_0", {{"option", "--kv"}, {"value", args.kv}});
    }
    SNUG_ASSIGN(o->codec, ParseCodec(args.kv));
    o->codebooks = args.codebooks;
    o->permutation = args.permutation;
    return {};
  }
  std::string k = args.kv, v = args.kv;
  if (const size_t comma = k.find(','); k.rfind("k=", 0) == 0 && comma != std::string::npos) {
    v = k.substr(comma + 1).rfind("v=", 0) == 0 ? k.substr(comma + 3) : "";
    k = k.substr(2, comma - 2);
  }
  if (!args.key.empty()) k = args.key;
  if (!args.value.empty()) v = args.value;
  for (const auto& [name, type] : {std::pair{k, &o->key_type}, std::pair{v, &o->value_type}}) {
    const auto parsed = ParseKvType(name);
    if (!parsed || *parsed == KvType::kF32) {
      std::string known = "one of f16, bf16, f8_e4m3, q8_0, q4_0";
      for (const CodecEntry* e : Codecs()) known += fmt::format(", {}", e->name);
      return MakeError(Code::kUsage, fmt::format("'{}' is no cache type", name), known,
                       {{"value", name}});
    }
    *type = *parsed;
  }
  return {};
}

}  // namespace

void EngineArgs::Add(Verb verb, bool with_context) {
  verb_ = verb;
  verb.Add("MODEL,-m,--model", model, "the model, a GGUF file").Required();
  verb.Add("--memory", memory,
           "the budget: 600MiB, 1.5GiB, 70%, or auto (what the machine has free)")
      .Environment("SNUG_MEMORY")
      .Default();
  if (with_context) {
    context_option_ =
        verb.Add("-c,--ctx,--ctx-size", context,
                 "tokens of context, prompt and answer (0: as many as the model was trained "
                 "for; not given: those, but at most 4096)")
            .Environment("SNUG_CTX_SIZE");
  }
  verb.Add("--chunk,--ubatch-size", chunk, "prompt tokens per step (0: planned)")
      .Environment("SNUG_CHUNK")
      .Default();
  verb.Add("-t,--threads", threads, "threads (0: all usable CPUs)")
      .Environment("SNUG_THREADS")
      .Default();
  kv_option_ = verb.Add("--kv", kv,
                        "cache types: f16, bf16, f8_e4m3, q8_0, q4_0, or k=T,v=T; or a codec of a "
                        "prompt's rows, as kivi:bits=2 (`snug methods` lists them)")
                   .Environment("SNUG_KV")
                   .Default();
  verb.Add("--cache-type-k", key, "cache type of keys");
  verb.Add("--cache-type-v", value, "cache type of values");
  verb.Add("--weights", weights,
           "where weights live (auto, resident, stream), a type that floats are quantized to "
           "as they are loaded (q8_0, q4_k_m, ...), or both: q8_0,stream")
      .Environment("SNUG_WEIGHTS")
      .Default();
  verb.Add("--place", place, "where weights live: auto, resident, stream")
      .OneOf({"auto", "resident", "stream"});
  verb.Add("--slots", slots, "slots of streamed weights (0: planned)").Default();
  verb.Add("--expert-slots", expert_slots,
           "experts of a mixture kept in memory at once (0: planned)")
      .Default();
  verb.Add("--snapshots", snapshots,
           "states kept of each sequence to go back to, for recurrent models (-1: planned)")
      .Range(-1, 1024)
      .Default();
  verb.Flag("--force", force, "take cache types that are known to ruin the model");
  verb.Flag("--exact", exact, "activations, cache and sums in float32");
  verb.Flag("--no-plane-head", no_plane_head, "keep the head whole instead of in bit planes");
  verb.Flag("--show-config", show_config, "print every option and where it came from");
}

void EngineArgs::AddKeep(Verb verb) {
  prompts = true;
  verb.Add("--kv-keep", keep,
           "which rows of the cache stay, as h2o:budget=0.2 (`snug methods` lists them; not "
           "given: all)")
      .Environment("SNUG_KV_KEEP");
  verb.Add("--kv-positions", positions,
           "with --kv-keep: attention's distances are those in the text (original) or within the "
           "cache (rolling), where a text goes on past the context for ever")
      .Environment("SNUG_KV_POSITIONS")
      .OneOf({"original", "rolling"})
      .Default();
  verb.Add("--kv-read", read,
           "which rows of the cache queries read, as quest:tokens=1/16 (`snug methods` lists "
           "them; not given: all)")
      .Environment("SNUG_KV_READ");
  verb.Add(
          "--kv-share", share,
          "which layers hold rows together, as minicache:start=3/4 (`snug methods` lists them; not "
          "given: none)")
      .Environment("SNUG_KV_SHARE");
  verb.Add("--kv-place", kv_place,
           "where the rows live that --kv-read chooses from: memory, or disk:hot=1/8 (`snug "
           "methods` lists them; not given: memory)")
      .Environment("SNUG_KV_PLACE");
  verb.Add("--kv-folder", kv_folder, "where --kv-place puts its temporary file")
      .Environment("SNUG_KV_FOLDER")
      .Default();
  verb.Add("--kv-channels", channels,
           "the ranking of channels that --kv-read double-sparsity goes by (snug calibrate "
           "--channels)")
      .Environment("SNUG_KV_CHANNELS");
  verb.Add(
          "--kv-budget", kv_budget,
          "bytes that the cache may take, prompts included, as 64MiB: --kv-keep then drops no more "
          "rows than it must, and without it --kv is chosen, unless given")
      .Environment("SNUG_KV_BUDGET");
  verb.Add("--kv-codebooks", codebooks,
           "the codebooks that --kv million goes by (snug calibrate --codebooks)")
      .Environment("SNUG_KV_CODEBOOKS");
  verb.Add("--kv-permutation", permutation,
           "the order of key channels that --kv rotatekv goes by (snug calibrate --permutation)")
      .Environment("SNUG_KV_PERMUTATION");
}

void EngineArgs::AddReduce(Verb verb) {
  verb.Add("--reduce", reduce,
           "which tokens of a prompt are read, as gemfilter:keep=1024 (`snug methods` lists them; "
           "not given: all)")
      .Environment("SNUG_REDUCE");
  verb.Add("--prompt-size", prompt_size,
           "with --reduce: tokens of a prompt at most (0: 16384, or --ctx-size where that is more, "
           "or what the model was trained for where that is less)")
      .Environment("SNUG_PROMPT_SIZE")
      .Default();
}

void EngineArgs::ShowConfig() const {
  if (!show_config) return;
  for (const Setting& setting : Settings(verb_->app()))
    fmt::print(stderr, "{:<18} {:<24} {}\n", setting.name, setting.value, setting.origin);
}

std::string EngineArgs::ContextOrigin() const {
  if (!context_option_ || !context_option_->given()) return "default";
  return context == 0 ? "as trained" : "given";
}

std::string EngineArgs::ThreadsOrigin() const {
  return threads > 0 ? "given" : UsableCpus().origin;
}

Result<EngineOptions> EngineArgs::Resolve() const {
  ShowConfig();
  EngineOptions o;
  o.model_path = model;
  SNUG_ASSIGN(o.budget, ParseBudget(memory, MemoryBounds()));
  o.context = context == 0 && ContextOrigin() != "default" ? kTrainedContext : context;
  o.chunk = chunk;
  o.sequences = parallel;
  o.threads = threads;
  o.exact = exact;
  o.any_types = force;
  o.plane_head = !no_plane_head;
  o.stream.slots = slots;
  o.experts.slots = expert_slots;
  o.snapshots = snapshots;
  SNUG_TRY(ResolveWeights(*this, &o));
  if (threads < 0 || threads > 1024) {
    return MakeError(Code::kUsage, fmt::format("-t {} is outside 0 .. 1024", threads), {},
                     {{"option", "--threads"}, {"value", std::to_string(threads)}});
  }
  if (!keep.empty()) {
    SNUG_ASSIGN(o.keep, ParseKeep(keep));
  }
  o.rolling = positions == "rolling";
  if (!read.empty()) {
    SNUG_ASSIGN(o.read, ParseRead(read));
    o.channels = channels;
  }
  if (!share.empty()) {
    SNUG_ASSIGN(o.share, ParseShare(share));
  }
  if (!kv_place.empty()) {
    SNUG_ASSIGN(o.kv_place, ParsePlace(kv_place));
    o.kv_folder = kv_folder;
  }
  if (!reduce.empty()) {
    SNUG_ASSIGN(o.reduce, ParseReduce(reduce));
    o.prompt = prompt_size;
  }
  SNUG_TRY(ResolveCache(*this, &o));
  if (!kv_budget.empty()) {
    SNUG_ASSIGN(o.kv_bytes, ParseBytes(kv_budget));
    const bool given = kv_option_->given() || !key.empty() || !value.empty();
    if (!given) o.kv_choice = KvChoice::kEncoding;
  }
  return o;
}

void AddSampling(Verb verb, SamplingOptions& s) {
  verb.Add("--temp", s.temperature, "temperature; 0 takes the likeliest token").Default();
  verb.Add("--top-k", s.top_k, "sample among the k likeliest (0: off)").Default();
  verb.Add("--top-p", s.top_p, "sample among the likeliest that make up p (1: off)").Default();
  verb.Add("--min-p", s.min_p, "drop what is less likely than p times the likeliest").Default();
  verb.Add("--repeat-penalty", s.repeat_penalty, "penalty of recent tokens (1: off)").Default();
  verb.Add("--repeat-last-n", s.repeat_last, "how many tokens are recent").Default();
  verb.Add("-s,--seed", s.seed, "seed of the sampler").Default();
}

Json ErrorJson(const Error& error) {
  Json values = Json::object();
  for (const auto& [k, v] : error.values) values[k] = Value(v);
  return {{"error",
           {{"code", CodeName(error.code)},
            {"message", error.message},
            {"values", values},
            {"next", error.next}}}};
}

int Report(const Error& error, bool json) {
  if (json) {
    fmt::print("{}\n", DumpJson(ErrorJson(error)));
  } else {
    fmt::print(stderr, "snug: {}\n", Printable(error.message));
    if (!error.next.empty()) fmt::print(stderr, "      {}\n", error.next);
  }
  return ExitCode(error.code);
}

double DiskRate(const std::string& path) {
  Ledger ledger(64 * kMiB);
  const auto rate = MeasureDisk(path, ledger, kDiskBytes);
  return rate.ok() ? *rate : 0;
}

std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

Json OwnersJson(const std::array<uint64_t, kOwners>& owners) {
  Json j = Json::object();
  for (size_t i = 0; i < kOwners; ++i) {
    if (owners[i] != 0) j[std::string(OwnerName(static_cast<Owner>(i)))] = owners[i];
  }
  return j;
}

Json ExpertsJson(const Engine& engine, const ExpertStats& s, size_t tokens) {
  if (engine.experts() == nullptr || engine.experts()->slots() == 0) return nullptr;
  return {{"total", engine.plan().experts},
          {"slots", engine.experts()->slots()},
          {"lookups", s.lookups},
          {"misses", s.misses},
          {"prefetches", s.prefetches},
          {"hit_rate", s.hit_rate()},
          {"bytes_loaded", s.bytes_loaded},
          {"bytes_per_token", tokens == 0 ? 0 : s.bytes_loaded / tokens}};
}

std::string ExpertsText(const Engine& engine, const ExpertStats& s, size_t tokens) {
  if (engine.experts() == nullptr || engine.experts()->slots() == 0 || tokens == 0) return {};
  return fmt::format(
      "experts: {} of {} in memory, {:.1f} % of {} look-ups hit; {} misses and {} prefetches read "
      "{}, {} a token",
      engine.experts()->slots(), engine.plan().experts, 100 * s.hit_rate(), s.lookups, s.misses,
      s.prefetches, FormatBytes(s.bytes_loaded), FormatBytes(s.bytes_loaded / tokens));
}

Json PlacedJson(const Engine& engine) {
  if (engine.options().kv_place == nullptr) return nullptr;
  const PlacedStats& s = engine.placed_stats();
  return {{"place", engine.options().kv_place->spec()},
          {"disk_bytes", engine.plan().kv_disk_bytes},
          {"rows", s.rows},
          {"hits", s.hits},
          {"hit_rate", s.hit_rate()},
          {"reads", s.reads},
          {"bytes_read", s.bytes_read},
          {"bytes_written", s.bytes_written}};
}

std::string PlacedText(const Engine& engine) {
  if (engine.options().kv_place == nullptr) return {};
  const PlacedStats& s = engine.placed_stats();
  return fmt::format("cache: {} written; {:.1f} % of {} rows found in memory, {} reads brought {}",
                     FormatBytes(s.bytes_written), 100 * s.hit_rate(), s.rows, s.reads,
                     FormatBytes(s.bytes_read));
}

Json PlanJson(const MemoryPlan& plan) {
  Json suggestions = Json::array();
  for (const auto& s : plan.suggestions)
    suggestions.push_back({{"change", s.change}, {"peak", s.peak}});
  return {{"fits", plan.fits},
          {"budget", plan.budget},
          {"owners",
           {{"load", OwnersJson(plan.at_load)},
            {"start", OwnersJson(plan.at_start)},
            {"context", OwnersJson(plan.at_context)},
            {"peak", OwnersJson(plan.peak)}}},
          {"peak", plan.peak_total},
          {"place", plan.resident ? "resident" : "stream"},
          {"slots", plan.stream.slots},
          {"pinned", plan.stream.pinned},
          {"context", plan.context},
          {"experts", plan.experts},
          {"expert_slots", plan.expert_slots},
          {"chunk", plan.chunk},
          {"snapshots", plan.snapshots},
          {"state_bytes", plan.kv_state_bytes},
          {"cache", plan.cache},
          {"kv_rows", plan.kv_rows},
          {"kv_exact_rows", plan.kv_exact_rows},
          {"kv_disk_bytes", plan.kv_disk_bytes},
          {"reduce", plan.prompt == 0 ? Json()
                                      : Json({{"prompt", plan.prompt},
                                              {"read", plan.prompt_read},
                                              {"layer", plan.reduce_layer}})},
          {"threads", plan.threads},
          {"suggestions", suggestions},
          {"predicted",
           {{"prefill_tps", plan.predicted.prefill_tps},
            {"prompt_tokens", plan.predicted.prompt_tokens},
            {"decode_tps", plan.predicted.decode_tps},
            {"decode_tps_at_start", plan.predicted.decode_tps_at_start},
            {"decode_tps_at_context", plan.predicted.decode_tps_at_context},
            {"bytes_touched_per_token", plan.weight_bytes_per_token},
            {"disk_bytes_per_token", plan.disk_bytes_per_token}}}};
}

void PrintMemoryTable(Engine& engine) {
  const LedgerSnapshot ledger = engine.ledger().snapshot();
  const ProcessMemory os = ReadProcessMemory();
  fmt::print(stderr, "\nmemory          plan        ledger peak\n");
  for (size_t i = 0; i < kOwners; ++i) {
    if (engine.plan().peak[i] == 0 && ledger.peak[i] == 0) continue;
    fmt::print(stderr, "{:<14}{:>11}  {:>11}\n", OwnerName(static_cast<Owner>(i)),
               FormatBytes(engine.plan().peak[i]), FormatBytes(ledger.peak[i]));
  }
  fmt::print(stderr, "{:<14}{:>11}  {:>11}   system peak {} of a budget of {}\n", "total",
             FormatBytes(engine.plan().peak_total), FormatBytes(ledger.total_peak),
             FormatBytes(os.peak_rss), FormatBytes(engine.plan().budget));
}

Result<std::vector<Token>> ParseTokens(const std::string& text, const std::string& what) {
  SNUG_ASSIGN(const Json json, ParseJson(text, what));
  const Json& list = json.is_object() && json.contains("tokens") ? json["tokens"] : json;
  const std::string example = "give [1, 2, 3] or {\"tokens\": [1, 2, 3]}";
  if (!list.is_array() || list.empty())
    return MakeError(Code::kBadInput, what + " holds no list of tokens", example);
  std::vector<Token> tokens;
  tokens.reserve(list.size());
  for (const Json& t : list) {
    if (!t.is_number_integer() || t.get<int64_t>() < 0 ||
        t.get<int64_t>() > std::numeric_limits<Token>::max()) {
      return MakeError(Code::kBadInput, fmt::format("{} holds {}, no token", what, DumpJson(t)),
                       example);
    }
    tokens.push_back(t.get<Token>());
  }
  return tokens;
}

Result<std::string> ReadTextWithin(uint64_t budget, const std::string& path) {
  constexpr uint64_t kShare = 16;
  return ReadText(path, std::min(kMaxText, budget / kShare));
}

Result<std::string> ReadText(const std::string& path, uint64_t max_bytes) {
  const auto too_long = [&](const std::string& what, uint64_t bytes) {
    return MakeError(Code::kBadInput,
                     fmt::format("{} has {} or more, at most {} can be taken", what,
                                 FormatBytes(bytes), FormatBytes(max_bytes)),
                     "give a shorter text, or a larger --memory",
                     {{"source", what}, {"max_bytes", std::to_string(max_bytes)}});
  };
  if (path != "-") {
    SNUG_ASSIGN(const File file, File::Open(path));
    if (file.size() > max_bytes) return too_long(path, file.size());
    return ReadWholeFile(path, max_bytes);
  }
  if (isatty(STDIN_FILENO) != 0) fmt::print(stderr, "reading standard input, up to Ctrl-D\n");
  std::string text;
  char buffer[1 << 16];
  for (;;) {
    // A read would go on after an interrupt; a poll does not.
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, -1) < 0 && errno == EINTR) {
      if (Interrupted()) return Cancelled();
      continue;
    }
    const ssize_t n = read(STDIN_FILENO, buffer, sizeof(buffer));
    if (n == 0) return text;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return MakeError(Code::kIo,
                       fmt::format("cannot read standard input: {}", std::strerror(errno)));
    }
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > max_bytes) return too_long("standard input", text.size());
  }
}

}  // namespace snug::cli
