// The reproductions there are: functions, and claims about caches as lines of data. KL bounds are
// this project's reading of words like "negligible"; what sources claim of tasks and larger models
// stands in the pages of docs/methods.
#include "repro/cache_claims.h"

namespace snug {
namespace {

constexpr std::string_view kTasks = "the paper's tasks and models, which are larger than this one";
constexpr std::string_view kGpuSpeed =
    "speed on a GPU: there is none (bench/ measures this machine's)";
constexpr std::string_view kNotShown[] = {kTasks, kGpuSpeed};

constexpr CacheSetting kSinks{{}, "sink-window:budget=0.2", {}};
constexpr CacheSetting kRandom{{}, "random:budget=0.2", {}};
constexpr CacheSetting kH2o{{}, "h2o:budget=0.2", {}};

constexpr CacheClaim Closer(std::string_view claim, CacheSetting setting, CacheSetting a,
                            CacheSetting b) {
  return {claim, setting, CacheRule::kCloserThanOthers, 0, {a, b}, 2};
}
constexpr CacheClaim Closer(std::string_view claim, CacheSetting setting, CacheSetting a) {
  return {claim, setting, CacheRule::kCloserThanOthers, 0, {a}, 1};
}
constexpr CacheClaim Kl(std::string_view claim, CacheSetting setting, double bound) {
  return {claim, setting, CacheRule::kKlAtMost, bound, {}, 0};
}
constexpr CacheClaim Bytes(std::string_view claim, CacheSetting setting, double share) {
  return {claim, setting, CacheRule::kBytesAtMost, share, {}, 0};
}
constexpr std::string_view kSelects =
    "choosing rows keeps quality at a fifth of the cache, where the newest or random rows do not";

constexpr CacheClaim kChelsea[] = {
    Closer("merging beats dropping at an equal number of rows", {{}, "chelsea:budget=0.2", {}},
           kSinks, kRandom),
    Closer("merging beats dropping by attention", {{}, "chelsea:budget=0.2", {}}, kH2o),
};
constexpr CacheSetting kDhsa{{}, {}, "dhsa:density=1/8"};
constexpr CacheClaim kDhsaClaims[] = {
    Kl("an eighth of the blocks costs a prompt little", kDhsa, 0.1),
    Closer("what the last queries attend to chooses better than means of blocks do", kDhsa,
           {{}, {}, "dhsa:mode=topk,density=1/8"}, {{}, {}, "block-sparse:density=1/8"}),
};
constexpr CacheClaim kDoubleSparsity[] = {
    Kl("a sixteenth of the tokens costs little", {{}, {}, "double-sparsity:tokens=1/16"}, 0.1),
    Closer("labels of channels find rows better than bounds of pages",
           {{}, {}, "double-sparsity:tokens=1/16"}, {{}, {}, "quest:tokens=1/16"}),
};
constexpr CacheClaim kH2oClaims[] = {
    Closer(kSelects, kH2o, kSinks, kRandom),
    Bytes("a fifth of the rows takes about a fifth of the bytes", kH2o, 0.25),
};
constexpr CacheClaim kKeyformer[] = {
    Closer(kSelects, {{}, "keyformer:budget=0.2", {}}, kSinks, kRandom),
    Closer("a noisy, flattened softmax chooses better than attention's own sums",
           {{}, "keyformer:budget=0.2", {}}, kH2o),
};
constexpr CacheSetting kKivi2{"kivi:bits=2", {}, {}}, kKivi4{"kivi:bits=4", {}, {}};
constexpr CacheClaim kKivi[] = {
    Kl("two bits cost little", kKivi2, 0.1),
    Kl("four bits cost next to nothing", kKivi4, 0.005),
    Bytes("two bits take a fifth of the bytes, the exact rows included, where prompts are long",
          kKivi2, 0.2),
};
constexpr CacheClaim kMillion[] = {
    Kl("four bits an element cost next to nothing", {"million", {}, {}}, 0.02),
    Closer("at four bits, products of centroids stand outliers better than ranges do",
           {"million", {}, {}}, kKivi4),
};
constexpr CacheClaim kQuest[] = {
    Kl("an eighth of the tokens costs little", {{}, {}, "quest:tokens=1/8"}, 0.1),
};
constexpr CacheSetting kRotate{"rotatekv", {}, {}};
constexpr CacheClaim kRotateKv[] = {
    Kl("two bits cost little, with keys whose means are small", kRotate, 0.1),
    Closer("sorted channels and exact sinks each help", kRotate, {"rotatekv:sort=off", {}, {}},
           {"rotatekv:sinks=0", {}, {}}),
    Closer("better than other two-bit codes at no more bits", kRotate, kKivi2),
    Bytes("two and a quarter bits take a sixth of the bytes, where prompts are long", kRotate,
          0.1667),
};
constexpr CacheClaim kSinkWindow[] = {
    Closer("the first rows hold a window together", kSinks,
           {{}, "sink-window:budget=0.2,sinks=0", {}}),
};
constexpr CacheClaim kSnapkv[] = {
    Closer(kSelects, {{}, "snapkv:budget=0.2", {}}, kSinks, kRandom),
};
constexpr CacheClaim kTova[] = {
    Closer(kSelects, {{}, "tova:budget=0.2", {}}, kSinks, kRandom),
};
constexpr CacheClaim kWindowkv[] = {
    Closer(kSelects, {{}, "windowkv:budget=0.2", {}}, kSinks, kRandom),
    Closer("layers of a group may share what their first one chose",
           {{}, "windowkv:budget=0.2", {}}, {{}, "windowkv:budget=0.2,group=1,beta=1", {}}),
};
constexpr CacheSetting kZip{"zipcache", {}, {}};
constexpr CacheClaim kZipCache[] = {
    Kl("four bits for rows that are attended to and two for the others cost little", kZip, 0.1),
    Kl("the same with a prompt as one segment, as in the paper", {"zipcache:segment=0", {}, {}},
       0.1),
    Closer("they cost less than two bits for all rows", kZip, kKivi2),
    Bytes("they take a fifth of the bytes, the exact rows included, where prompts are long", kZip,
          0.2),
};

constexpr Repro kRepros[] = {
    {"chelsea", "Hu et al. 2025, arXiv 2506.11418", nullptr, kChelsea, kNotShown},
    {"dhsa", "arXiv 2510.24606, 2025", nullptr, kDhsaClaims, kNotShown},
    {"double-sparsity", "Yang et al. 2024, arXiv 2408.07092", nullptr, kDoubleSparsity, kNotShown},
    {"h2o", "Zhang et al. 2023, arXiv 2306.14048", nullptr, kH2oClaims, kNotShown},
    {"keyformer", "Adnan et al. 2024, arXiv 2403.09054", nullptr, kKeyformer, kNotShown},
    {"kivi", "Liu et al. 2024, arXiv 2402.02750", nullptr, kKivi, kNotShown},
    {"million", "Wang et al. 2025, arXiv 2504.03661", nullptr, kMillion, kNotShown},
    {"minicache", "Liu et al. 2024, arXiv 2405.14366", ReproMiniCache, {}, {}},
    {"quest", "Tang et al. 2024, arXiv 2406.10774", nullptr, kQuest, kNotShown},
    {"rotatekv", "Su et al. 2025, arXiv 2501.16383", nullptr, kRotateKv, kNotShown},
    {"sink-window", "Xiao et al. 2023, arXiv 2309.17453", nullptr, kSinkWindow, kNotShown},
    {"snapkv", "Li et al. 2024, arXiv 2404.14469", nullptr, kSnapkv, kNotShown},
    {"superpipeline", "Abbasi and Lim, arXiv 2410.08791", ReproSuperpipeline, {}, {}},
    {"tova", "Oren et al. 2024, arXiv 2401.06104", nullptr, kTova, kNotShown},
    {"windowkv", "Zuo et al. 2025, arXiv 2503.17922", nullptr, kWindowkv, kNotShown},
    {"zipcache", "He et al. 2024, arXiv 2405.14256", nullptr, kZipCache, kNotShown},
};

}  // namespace

std::span<const Repro> Repros() { return kRepros; }

}  // namespace snug
