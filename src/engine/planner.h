// The memory plan: bytes per owner, from metadata alone. The engine allocates exactly what the plan
// says, from the fields below, so plan and allocator are one code.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/ledger.h"
#include "base/machine.h"
#include "base/status.h"
#include "engine/codebook_training.h"
#include "format/model_file.h"
#include "kernel/attention.h"
#include "kv/cache.h"
#include "kv/codec/codec.h"
#include "kv/keep/keep.h"
#include "kv/place/place.h"
#include "kv/read/read.h"
#include "kv/share/share.h"
#include "model/blocks.h"
#include "model/model.h"
#include "tokens/reduce/reduce.h"
#include "weights/experts.h"
#include "weights/layout.h"
#include "weights/place.h"
#include "weights/stream.h"

namespace snug {

enum class PlaceChoice : uint8_t { kAuto, kResident, kStream };

inline constexpr uint32_t kTrainedContext = UINT32_MAX;

class Engine;

// What a budget of the cache may choose: what types or codec leave open, or these too.
enum class KvChoice : uint8_t { kGiven, kEncoding };
// What watches: nothing, the sums of an importance matrix, a probe of sensitivity, what queries and
// keys give on each channel, a sample of keys and values, or the sums of key channels.
enum class Observation : uint8_t { kNone, kCalibrate, kProbe, kChannels, kCodebooks, kKeyOrder };

struct EngineOptions {
  std::string model_path;
  Budget budget;
  // Tokens per sequence, prompt and answer (but see `rolling`); 0: 4096, or what the model was
  // trained for where that is less; kTrainedContext: what it was trained for.
  uint32_t context = 0;
  uint32_t sequences = 1;  // sequences that may live at once
  bool embed = false;      // embed texts with an encoder instead of generating
  uint32_t chunk = 0;  // tokens per step at most; 0: the planner's choice (512, less when short)
  uint32_t logit_rows = 1;                   // rows of logits one step may ask for (at most chunk)
  Observation observe = Observation::kNone;  // memory for what watches the products
  CodebookOptions training;                  // of Observation::kCodebooks
  uint32_t transform_heads = 0;              // of Observation::kKeyOrder: see KeyOrderStatistics
  bool lookup = false;                       // memory for prompt-lookup speculation
  int threads = 0;                           // 0: all usable CPUs
  uint64_t base_bytes = 0;    // code, stacks and heap beside the engine's own; 0: measured
  uint64_t caller_bytes = 0;  // what the caller will take besides, counted as base
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  bool any_types = false;  // also those that are known to ruin the model
  uint64_t kv_bytes = 0;   // that the cache may take, prompts included; 0: as many as it needs
  KvChoice kv_choice = KvChoice::kGiven;   // what may be chosen for that: see kv_budget.h
  std::shared_ptr<const KeepMethod> keep;  // which rows of the cache stay; null: all
  // Rows that stay close up, and attention goes by their places in the cache (kv/rolled_keys.h): a
  // sequence may then go on past the context, which bounds prompts and rows alone.
  bool rolling = false;
  std::shared_ptr<const KvCodec> codec;      // what takes old rows of it over; null: nothing
  std::shared_ptr<const ShareMethod> share;  // how layers hold rows together; null: none does
  // Where the rows live that decoded tokens choose from, and the folder of its file; null: in
  // memory.
  std::shared_ptr<const PlaceMethod> kv_place;
  std::string kv_folder{kPlaceFolder};
  // Whether rows are dropped, merged, coded, shared or moved: steps then take one token of a
  // sequence at a time, and nothing of a sequence is gone back to or shared.
  bool gives_up_rows() const {
    return keep != nullptr || codec != nullptr || share != nullptr || kv_place != nullptr;
  }
  std::shared_ptr<const ReadMethod> read;  // which rows queries read; null: all
  // Whether each layer reads a whole prompt before the next one begins.
  bool by_layer() const {
    return gives_up_rows() || (read != nullptr && read->blocks() != nullptr);
  }
  // Which tokens of a prompt are read; null: all. Prompts of up to `prompt` tokens are then taken;
  // 0: 16384, or `context` where that is more, or what the model was trained for where that is
  // less.
  std::shared_ptr<const ReduceMethod> reduce;
  uint32_t prompt = 0;
  // Tokens that are read of a prompt of `tokens`.
  uint64_t Read(uint64_t tokens) const {
    if (reduce == nullptr) return tokens;
    return reduce->Stay(static_cast<uint32_t>(std::min<uint64_t>(tokens, UINT32_MAX)));
  }
  // Tokens of a prompt at most.
  uint32_t longest_prompt() const { return reduce ? prompt : context; }
  std::string channels;                // file of the ranking of channels that `read` may need
  std::string codebooks;               // file of the codebooks that `codec` may need
  std::string permutation;             // file of the order of key channels that it may need
  std::function<void()> encode_delay;  // test hook, see TileEncoder
  bool tokenizer = true;  // whether the vocabulary is loaded: steps take tokens without it
  bool exact = false;     // activations, cache and sums in float32
  PlaceChoice place = PlaceChoice::kAuto;
  std::string weights;   // recipe that floats are quantized by as they are loaded; empty: none
  StreamOptions stream;  // slots = 0: the planner's choice
  ExpertCacheOptions experts;  // slots = 0: the planner's choice
  int32_t snapshots = -1;      // of each sequence's states (kv/states.h); -1: the planner's choice
  bool plane_head = true;      // split the head into bit planes where that pays (resident, Q8_0)
  // Called when vocabulary and plan are there and no weight has been read; an error ends Open.
  std::function<Status(const Engine&)> before_weights;  // may be null
  LoadProgress on_load;                                 // may be null
  bool probe = false;                                   // made-up weights: see probe.h
  int64_t fail_reservation = -1;                        // test hook: see Ledger::FailAfter
};

struct MemoryPlan {
  uint64_t budget = 0;
  bool fits = false;
  std::array<uint64_t, kOwners> at_load{};     // while weights are read (bounce buffers)
  std::array<uint64_t, kOwners> at_start{};    // loaded, nothing cached yet
  std::array<uint64_t, kOwners> at_context{};  // every sequence at full context
  std::array<uint64_t, kOwners> peak{};        // the phase with the largest total
  uint64_t peak_total = 0;

  // What the engine allocates.
  uint32_t context = 0;
  bool resident = true;  // the weights apart from experts
  bool plane_head = false;
  StreamOptions stream;
  uint32_t experts = 0, expert_slots = 0;  // of all layers; in a cache, 0: all in memory
  uint32_t chunk = 0, logit_rows = 0;
  int threads = 0;
  uint64_t base_bytes = 0, vocab_bytes = 0, weight_bytes = 0, io_bytes = 0;
  uint64_t weight_bytes_at_load = 0;  // of weight_bytes, those held while bounce buffers load them
  uint64_t activation_bytes = 0, scratch_bytes = 0, kv_bytes = 0;
  uint64_t kv_disk_bytes = 0;       // that the cache takes of a disk
  uint64_t codebook_bytes = 0;      // of kv_bytes, what a codec's codebooks or basis take
  uint64_t head_scratch_bytes = 0;  // of scratch_bytes: the search of a head in bit planes
  uint64_t kv_tile_bytes = 0, kv_state_bytes = 0;  // 64 rows of a layer, states of a sequence
  std::string cache;                               // how it is held, as options ask for it
  // Of a layer without window and a head, where the context is full; on average over layers.
  uint32_t kv_rows = 0;
  uint32_t kv_pairs = 0;       // of layers that share rows
  uint32_t kv_exact_rows = 0;  // of those, rows that no codec takes over
  uint64_t hidden_bytes = 0;   // of activation_bytes: a prompt's rows between two layers
  uint32_t snapshots = 0;      // of each sequence's states
  // Where prompts are reduced: the longest one, tokens that are read of it, the layer that decides.
  uint32_t prompt = 0, prompt_read = 0, reduce_layer = 0;

  struct Prediction {  // tokens per second; 0 where nothing was measured
    uint32_t prompt_tokens = 0;
    double prefill_tps = 0;            // of a prompt of so many tokens
    double decode_tps = 0;             // on average while the context fills
    double decode_tps_at_start = 0;    // after nothing
    double decode_tps_at_context = 0;  // where the context is full
  } predicted;
  double head_share = 1;  // of the head's bytes that a token reads
  uint64_t weight_bytes_per_token = 0, disk_bytes_per_token = 0;
  uint64_t disk_bytes_per_chunk = 0;                                        // of a prompt
  uint64_t kv_bytes_per_token_mean = 0, kv_bytes_per_token_at_context = 0;  // read by attention
  struct Suggestion {
    std::string change;  // "--ctx 1024", "--memory 420MiB", ...
    uint64_t peak = 0;   // bytes with that change
  };
  std::vector<Suggestion> suggestions;  // nearest changes that fit; empty when it fits
};

// The options with what is left to the model filled in.
EngineOptions Resolved(const ModelConfig& config, EngineOptions options);
// The model of a run with these options, its weights in the types they will have.
Result<std::unique_ptr<ModelFile>> OpenModelFile(const EngineOptions& options);
// The cache of a run with these options.
KvLayout MakeKvLayout(const ModelConfig& config, const EngineOptions& options, uint32_t chunk);
// Plans a run with resolved options. Errors are those of options that no budget can serve
// (unsupported types, more context than trained). Not fitting is not an error here: see
// MemoryPlan::fits.
Result<MemoryPlan> MakePlan(const ModelFile& file, const Model& model, const WeightLayout& layout,
                            const EngineOptions& options);
// What layers read a prompt in before it is reduced: rows of one layer at a time, in f16 or, where
// exact, f32, whatever the cache is; of no use without a method.
KvLayout MakeScanLayout(const ModelConfig& config, const EngineOptions& options, uint32_t chunk);
// Bytes of scores, and of room to choose by them.
uint64_t ScanRoomBytes(const ModelConfig& config, const EngineOptions& options);
BlocksLayout MakeBlocksLayout(const ModelConfig& config, const EngineOptions& options,
                              uint32_t chunk, uint32_t logit_rows, int threads);
// Bytes of a prompt's rows between two layers, kept where prompts are read layer by layer, or are
// reduced.
uint64_t HiddenBytes(const ModelConfig& config, const EngineOptions& options);
// The kDoesNotFit error that a plan which does not fit turns into, with shortfall and suggestions.
Error DoesNotFit(const MemoryPlan& plan);
// Opens the file's metadata and plans: what `snug plan` runs.
Result<MemoryPlan> PlanFile(const EngineOptions& options);

}  // namespace snug
